"""Time of use as arrays: for a map, a local day and an interval length, the line each slot is summed on.

A map's periods are its *lines*: numbers that, once given, never change, because sums in the state are kept by line. Number 0 of
the maps is "not mapped"; all of its day is one line with an empty name.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from schemas.topology.tou import DeterminantsSettings, TouMap
from streams import calendar

Ints = npt.NDArray[np.int64]
UNMAPPED: Final = 0
PLANS: Final = 10_000  # numbers from here on are plans: maps by date
_EPOCH: Final = date(1970, 1, 1)
_CACHE: Final = 200_000


@dataclass(frozen=True, slots=True, eq=False)
class Vector:
    """The lines of a day's slots, also as runs of equal lines: ``starts`` of the runs and the line of each."""

    map: int
    lines: Ints
    starts: Ints
    runs: Ints
    slots: Ints  # per line

    @classmethod
    def of(cls, number: int, lines: Ints, width: int) -> Vector:
        """The vector of a map number and the lines of a day; ``width`` lines are summed in all."""
        starts = np.flatnonzero(np.diff(lines, prepend=-1))
        return cls(number, lines, starts, lines[starts], np.bincount(lines, minlength=width))


class Maps:
    """The maps of the settings, numbered as the state knows them."""

    def __init__(self, settings: DeterminantsSettings, known: bytes | None = None) -> None:
        """``known`` is what :meth:`numbering` gave before: numbers and lines are kept, new ones come behind."""
        self.settings = settings
        self.names: list[tuple[str, list[str]]] = [("", [""])]
        if known:
            self.names = [(name, list(lines)) for name, lines in json.loads(known)]
        numbers = {name: number for number, (name, _) in enumerate(self.names)}
        for tou in settings.maps:
            if tou.id not in numbers:
                numbers[tou.id] = len(self.names)
                self.names.append((tou.id, []))
            lines = self.names[numbers[tou.id]][1]
            lines += [period for period in tou.periods() if period not in lines]
        self._numbers = numbers
        self._plans: list[tuple[tuple[int, int], ...]] = []  # first days and maps, in order
        self._maps: dict[int, TouMap] = {numbers[tou.id]: tou for tou in settings.maps}
        self.width = max(len(lines) for _, lines in self.names)
        self.vectors: list[Vector] = []
        self._interned: dict[tuple[int, bytes], int] = {}
        self._days: dict[tuple[int, str, int, int, int], int] = {}

    def numbering(self) -> bytes:
        """Numbers and lines as bytes for the state."""
        return json.dumps(self.names).encode()

    def assign(self, unit: str, direction: str, channel: str, account: str) -> int:
        """The number of the map a channel is billed by; where it changes by date, that of a plan (see :meth:`on`)."""
        maps = self.settings.maps_of(unit, direction, channel, account)
        steps = tuple(
            (-(2**31) if since is None else (since - _EPOCH).days, self._numbers[found.id] if found else UNMAPPED) for since, found in maps
        )
        if len(steps) == 1:
            return steps[0][1]
        if steps not in self._plans:
            self._plans.append(steps)
        return PLANS + self._plans.index(steps)

    def on(self, number: int, day: int) -> int:
        """The number of the map that a number or plan means on a local day."""
        return number if number < PLANS else next(found for since, found in reversed(self._plans[number - PLANS]) if since <= day)

    def number_of(self, name: str) -> int:
        """The number of a map. Raises ValueError for one that is not among the settings."""
        if name not in self._numbers:
            raise ValueError(f"there is no map {name!r}")
        return self._numbers[name]

    def vector(self, number: int, zone: str, day: int, seconds: int, count: int) -> int:
        """Which of ``vectors`` a channel's day has: its map (or plan), the day in the channel's zone, interval length and number of slots.

        A day is not mapped where its map has no version for it, or where the intervals are so long that one could straddle two periods.
        """
        key = (number, zone, day, seconds, count)
        found = self._days.get(key)
        if found is None:
            if len(self._days) >= _CACHE:
                self._days.clear()
            found = self._days[key] = self._make(self.on(number, day), zone, day, seconds, count)
        return found

    def _make(self, number: int, zone: str, day: int, seconds: int, count: int) -> int:
        tou = self._maps.get(number)
        lines = self._lines(tou, self.names[number][1], zone, day, seconds, count) if tou else None
        if lines is None:
            number, lines = UNMAPPED, np.zeros(count, np.int64)
        key = (number, lines.tobytes())
        if key not in self._interned:
            self._interned[key] = len(self.vectors)
            self.vectors.append(Vector.of(number, lines, self.width))
        return self._interned[key]

    @staticmethod
    def _lines(tou: TouMap, names: list[str], zone: str, day: int, seconds: int, count: int) -> Ints | None:
        if tou.grid() % seconds:
            return None
        start, info = int(calendar.start_of(zone, day)), ZoneInfo(tou.zone or zone)
        moments = [datetime.fromtimestamp(start + i * seconds, UTC).astimezone(info) for i in range(count)]
        clock = np.array([m.hour * 3600 + m.minute * 60 + m.second for m in moments], np.int64)
        dates = np.array([(m.date() - _EPOCH).days for m in moments], np.int64)
        lines = np.zeros(count, np.int64)
        for number in np.unique(dates).tolist():
            here = _EPOCH + timedelta(days=number)
            version = tou.version_of(here)
            if version is None:
                return None
            of_date = dates == number
            if version.default:
                lines[of_date] = names.index(version.default)
            for window in reversed(version.windows_of(here)):  # the strongest last
                lines[of_date & (clock >= window.start) & (clock < window.end)] = names.index(window.period)
        return lines
