"""Determinants of one channel that stand on a bill: what corrects them is told as a subsequent correction."""

from __future__ import annotations

from typing import Any, Final

from schemas.identity import identity
from streams.runtime.fold import Result
from streams.runtime.state import State

_PREFIX: Final = "ub/"


def subject_of(body: dict[str, Any], begin: int) -> str:
    """What is the same in all versions of a channel's determinant. ``begin`` is the period's, UTC seconds."""
    return identity(body["account"], body["device"], body["channel"], body["unit"], begin, body["kind"], body["tou"])


class Billed:
    """Acknowledgements by determinant, each until the correction it leads to."""

    def __init__(self, state: State) -> None:
        self._state = state

    def note(self, body: dict[str, Any]) -> None:
        """Keeps that a determinant was used on a bill."""
        self._state.put(_PREFIX + body["subject"], body["bill"].encode())

    def mark(self, result: Result) -> None:
        """Calls corrections of billed determinants by their name."""
        for output in result.outputs:
            body = output.body
            if output.type == "Determinant" and body["version"] > 1:
                bill = self._state.entries.get(_PREFIX + subject_of(body, body["period_start"] // 1000))
                if bill is not None:
                    body["correction"] = "subsequent-correction"
                    body["reason"] = f"late or corrected reads after bill {bill.decode()}"
                    self._state.put(_PREFIX + subject_of(body, body["period_start"] // 1000), None)
