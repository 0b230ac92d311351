"""The hourly proof of the ledger in the store: what came since the last one is added up and chained; once a day everything anew.

The agent proves its own books every hour and stops posting where they do not hold; this proves what people and billing systems are
shown. It only tells: metrics, a line in the log, and through them an alarm.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import structlog

from connectors.clickhouse.store import StoreError
from connectors.prepaid.explain import Explaining, Proof
from schemas import metrics

HOUR: Final = 3600.0
SOON: Final = 60.0  # seconds until what does not hold is looked at again: a part of it may have been on its way into the store
PASSES: Final = 24  # of which one begins from nothing
AT_ONCE: Final = 500  # accounts asked for together
log = structlog.get_logger(__name__)


class Prover:
    """Proves the ledger hour by hour. ``run`` blocks."""

    def __init__(self, explaining: Explaining, clock: Callable[[], float] = time.time) -> None:
        self.explaining, self._clock = explaining, clock
        self._proof = self._new()
        self._passes = 0

    def run(self, stop: threading.Event) -> None:
        """A proof soon after the start and every hour, until ``stop`` is set."""
        pause = SOON
        while not stop.wait(pause):
            try:
                pause = HOUR if self.once()["holds"] else SOON
            except StoreError as error:
                log.warning("the ledger waits for the store to be proved", reason=str(error)[:200])
                pause = SOON

    def once(self) -> dict[str, Any]:
        """One proof; what it found, as :meth:`Explaining.verify`. It is told as broken when it does not hold twice. Raises StoreError."""
        if self._passes % PASSES == 0:
            self._proof = self._new()
        suspected = bool(self._proof.flaws)
        if suspected:  # from nothing: what was on its way has come, or it is really broken
            self._proof = self._new()
        found = self._continued()
        self._passes += 1
        if found["holds"] or suspected:
            metrics.LEDGER_HOLDS.set(found["holds"])
            metrics.LEDGER_PROVED.set(self._clock())
        if not found["holds"] and suspected:
            log.error("the ledger does not hold", flaws=found["flaws"][:5], postings=found["postings"])
        return found

    def _new(self) -> Proof:
        return Proof(self.explaining.settings.currency.code)

    def _continued(self) -> dict[str, Any]:
        proof, states = self._proof, self.explaining.states()
        behind = [state["account"] for state in states if proof.number(state["account"]) != int(state["postings"])]
        for row in self._rows(behind):
            proof.take(row)
        for state in states:
            proof.compare(state)
        return proof.found(len(states), self.explaining.settings.currency.text)

    def _rows(self, accounts: list[str]) -> Iterator[dict[str, Any]]:
        """Postings of accounts that are not proved yet, account by account in order."""
        for first in range(0, len(accounts), AT_ONCE):
            some = accounts[first : first + AT_ONCE]
            known = {account: self._proof.number(account) for account in some}
            for row in self.explaining.postings_of(some, min(known.values())):
                if int(row["sequence"]) > known[row["account"]]:
                    yield row
