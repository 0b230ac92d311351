"""What a test may do to a running worker."""

from __future__ import annotations

import random

from streams.runtime.lane import Record


class Sabotage:
    """Nothing: what production does."""

    def drop(self, record: Record) -> bool:  # noqa: ARG002
        """True: the record is lost on its way, as Faust may do around a rebalance."""
        return False

    def strike(self, where: str) -> None:
        """May raise, at the named point."""


class InjectedError(Exception):
    """Raised by Torment."""


class Torment(Sabotage):
    """Loses records and fails at random. Not seeded: whatever happens must not matter to the result."""

    def __init__(self, rate: float) -> None:
        self.rate, self.random = rate, random.SystemRandom()

    def drop(self, record: Record) -> bool:  # noqa: ARG002
        return self.random.random() < self.rate / 50

    def strike(self, where: str) -> None:
        if self.random.random() < self.rate:
            raise InjectedError(where)
