"""Critical-peak events: which touch a day, and by which its sums were made.

A day of a channel that no event touches has no trace here. Where one does, the state keeps the number of the events its sums were made
by, so that a correction, or the event's late coming or going, is a difference to exactly what was summed.
"""

from __future__ import annotations

import json
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from schemas.topology.usage import any_match
from streams.determinants.maps import Swap
from streams.determinants.usage.book import TouEvent
from streams.runtime.state import Column, State, Table

Array = npt.NDArray[Any]
SWAPS: Final = "swaps"
DAYS: Final = 64  # of a channel that are remembered: a year of events, mostly
_SETS: Final = "swaps"
_DAY: Final = 26 * 3600


def swap_table() -> Table:
    """The table of days under events: by channel and interval length, day and number of the events (0: none any more)."""
    return Table({"day": Column(np.int32, (DAYS,), -1), "set": Column(np.int16, (DAYS,))})


class Swaps:
    """Events of one partition, and the days summed by them."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.events: tuple[TouEvent, ...] = ()
        self._sets: list[tuple[Swap, ...]] | None = None

    @property
    def sets(self) -> list[tuple[Swap, ...]]:
        """All combinations of events that days were summed by; number 1 is the first."""
        if self._sets is None:
            held = json.loads(self._state.entries.get(_SETS, b"[]"))
            self._sets = [tuple((start, end, tou, use) for start, end, tou, use in one) for one in held]
        return self._sets

    @property
    def any(self) -> bool:
        """Whether any day was ever summed by an event."""
        return bool(self.sets)

    def near(self, starts: Array) -> Array:
        """Which days, by the UTC second of their begin, an event may touch."""
        found = np.zeros(len(starts), np.bool_)
        for event in self.events:
            found |= (starts < event.end) & (starts + _DAY > event.start)
        return found

    def number(self, begin: int, end: int, name: str, account: str) -> int:
        """The number of the events that touch [begin, end) under the map of a name, for an account; of several the last id holds."""
        hit = tuple(
            (event.start, event.end, event.tou, event.use)
            for event in sorted(self.events, key=lambda event: event.id)
            if name and event.start < end and begin < event.end and (not event.maps or name in event.maps)
            and (not event.accounts or any_match(event.accounts, account))
        )  # fmt: skip
        if not hit:
            return 0
        if hit not in self.sets:
            self.sets.append(hit)
            self._state.put(_SETS, json.dumps(self.sets).encode())
        return self.sets.index(hit) + 1

    def are_known(self, days: Array) -> Array:
        """Which days lie where some channel was summed by events."""
        if not len(self._table):
            return np.zeros(len(days), np.bool_)
        return np.isin(days, self._table["day"][: len(self._table)])

    @property
    def _table(self) -> Table:
        return self._state.table(SWAPS)

    def summed(self, keys: list[str], days: Array) -> Array:
        """By which events days of channels were summed."""
        found = np.zeros(len(keys), np.int64)
        if len(self._table):
            rows = self._table.find(keys)
            for k in np.flatnonzero(rows >= 0).tolist():
                place = np.flatnonzero(self._table["day"][rows[k]] == days[k])
                found[k] = self._table["set"][rows[k], place[0]] if place.size else 0
        return found

    def note(self, keys: list[str], days: Array, numbers: Array) -> None:
        """Keeps by which events days of channels are summed now."""
        held = self.summed(keys, days)
        other = np.flatnonzero(held != numbers)
        if not other.size:
            return
        rows = self._table.add([keys[k] for k in other.tolist()])
        for row, k in zip(rows.tolist(), other.tolist(), strict=True):
            there = np.flatnonzero(self._table["day"][row] == days[k])
            place = there[0] if there.size else self._table["day"][row].argmin()
            self._table["day"][row, place], self._table["set"][row, place] = days[k], numbers[k]
        self._table.mark(rows)
