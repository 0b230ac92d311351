"""Outages as devices tell of them: what of a day lies between power failure and restoration, and what that means for its intervals.

An interval that lies wholly inside an outage and has no value, or zero, has used nothing because there was nothing: it becomes an outage
with value zero. This is written where received values are held, so that neighbours and later looks see it; a measured value above
zero stays, and one that comes later replaces it. So events and reads may come in any order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import numpy as np

from schemas import conditions
from schemas.events import OUTAGE, RESTORE
from streams.runtime.state import State
from streams.vee.batch import Ints, Mask
from streams.vee.merging import STEP

if TYPE_CHECKING:
    from streams.vee.days import _Work

KEPT: Final = 64  # power events per device
_PREFIX: Final = "power/"
_CODE: Final = conditions.OUTAGE_TOLD // STEP
_EDITED: Final = conditions.USER_EDIT // STEP
_USABLE: Final = conditions.OUTAGE // STEP


class Outages:
    """Power events of the devices of a partition; entries of the state."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._periods: dict[str, list[tuple[int, int]]] | None = None
        self._touched: tuple[int, Ints] | None = None  # how many devices there were, and the numbers of those with outages

    @property
    def periods(self) -> dict[str, list[tuple[int, int]]]:
        """Device → its outages that ended: from and to, UTC seconds."""
        if self._periods is None:
            entries = self.state.entries
            found = {name.removeprefix(_PREFIX): json.loads(data) for name, data in entries.items() if name.startswith(_PREFIX)}
            self._periods = {device: _pairs(events) for device, events in found.items()}
        return self._periods

    def note(self, device: str, kind: str, at: int) -> list[tuple[int, int]]:
        """Takes an event in; returns the outages that it makes known."""
        if kind not in (OUTAGE, RESTORE):
            return []
        entry = _PREFIX + device
        events = {(when, what) for when, what in json.loads(self.state.entries.get(entry, b"[]"))}
        if (at, kind) in events:
            return []
        before = self.periods.get(device, [])
        self._touched = None
        kept = sorted({*events, (at, kind)})[-KEPT:]
        self.state.put(entry, json.dumps(kept).encode())
        self.periods[device] = _pairs(kept)
        return [period for period in self.periods[device] if period not in before]

    def touched(self, devices: Ints, numbers: Mapping[str, int]) -> Mask:
        """Which of these devices (by ``numbers``) have outages."""
        if self._touched is None or self._touched[0] != len(numbers):
            known = [numbers[device] for device, periods in self.periods.items() if periods and device in numbers]
            self._touched = len(numbers), np.array(known, np.int64)
        return np.isin(devices, self._touched[1])

    def write(self, work: _Work, devices: list[str]) -> None:
        """Marks intervals of outages in the days being worked on; ``devices`` names that of each row."""
        periods = self.periods
        for row, device in enumerate(devices):
            for begin, end in periods.get(device, ()):
                first = max(-(-(begin - int(work.start[row])) // work.seconds), int(work.opening[row]), 0)
                behind = min((end - int(work.start[row])) // work.seconds, int(work.counts[row]))
                if behind > first and not work.passive[row]:
                    codes, values = work.coded[row, first:behind], work.values[row, first:behind]
                    idle = (codes < _USABLE) | ((values == 0) & (codes < _EDITED))
                    codes[idle], values[idle] = _CODE, 0


def _pairs(events: list[tuple[int, str]]) -> list[tuple[int, int]]:
    """From each first power failure to the restoration that follows it."""
    found: list[tuple[int, int]] = []
    begun = -1
    for at, kind in events:
        if kind == OUTAGE and begun < 0:
            begun = at
        elif kind == RESTORE:
            if 0 <= begun < at:
                found.append((begun, at))
            begun = -1
    return found
