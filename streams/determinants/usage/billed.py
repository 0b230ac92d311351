"""Determinants of one channel that stand on a bill: what corrects them is told as a subsequent correction."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from schemas.identity import identity
from streams.runtime.fold import Result
from streams.runtime.state import State

_PREFIX: Final = "ub/"


def subject_of(body: dict[str, Any], begin: int) -> str:
    """What is the same in all versions of a channel's determinant. ``begin`` is the period's, UTC seconds."""
    return identity(body["account"], body["device"], body["channel"], body["unit"], begin, body["kind"], body["tou"])


@dataclass(frozen=True, slots=True)
class Bill:
    """A bill, and the version of the determinant that stands on it."""

    number: str
    version: int


class Billed:
    """Acknowledgements by determinant, each until the correction it leads to."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._some: bool | None = None

    def note(self, body: dict[str, Any]) -> None:
        """Keeps that a determinant was used on a bill."""
        self._some = True
        self._state.put(_PREFIX + body["subject"], json.dumps([body["bill"], body["version"]]).encode())

    @property
    def some(self) -> bool:
        """Whether anything is noted at all."""
        if self._some is None:
            self._some = any(key.startswith(_PREFIX) for key in self._state.entries)
        return self._some

    def of(self, subject: str) -> Bill | None:
        """The bill a determinant is known to stand on."""
        data = self._state.entries.get(_PREFIX + subject) if self.some else None
        return Bill(*json.loads(data)) if data else None

    def mark(self, result: Result) -> None:
        """Calls corrections of billed determinants by their name."""
        if not self.some:
            return
        for output in result.outputs:
            body = output.body
            if output.type == "Determinant" and body["version"] > 1 and not body.get("usage"):
                subject = subject_of(body, body["period_start"] // 1000)
                bill = self.of(subject)
                if bill is not None:
                    body["correction"] = "subsequent-correction"
                    body["reason"] = f"after bill {bill.number}, which has version {bill.version}: {body['reason']}"
                    self._state.put(_PREFIX + subject, None)
