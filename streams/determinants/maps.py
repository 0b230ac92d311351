"""Time of use as arrays: for a map, a local day and an interval length, the line each slot is summed on.

A map's periods are its *lines*: numbers that, once given, never change, because sums in the state are kept by line. Number 0 of
the maps is "not mapped"; all of its day is one line with an empty name.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from schemas.topology.tou import DeterminantsSettings, TouMap
from streams import calendar

Ints = npt.NDArray[np.int64]
UNMAPPED: Final = 0
_SPLIT, _DAY, _SIZE = ">", ":", "#"  # in names of maps that follow each other in a billing period: one map, its first day, its lines
PLANS: Final = 10_000  # numbers from here on are plans: maps by date
_EPOCH: Final = date(1970, 1, 1)
_CACHE: Final = 200_000


@dataclass(frozen=True, slots=True, eq=False)
class Vector:
    """The lines of a day's slots, also as runs of equal lines: ``starts`` of the runs and the line of each.

    ``map`` is the number its sums are kept by, ``own`` that of the day's map, whose lines begin at ``first``: they differ in billing
    periods in which the map changes.
    """

    map: int
    own: int
    first: int
    lines: Ints
    starts: Ints
    runs: Ints
    slots: Ints  # per line

    @classmethod
    def of(cls, number: int, own: int, first: int, lines: Ints, width: int) -> Vector:
        """The vector of map numbers and the lines of a day; ``width`` lines are summed in all."""
        starts = np.flatnonzero(np.diff(lines, prepend=-1))
        return cls(number, own, first, lines, starts, lines[starts], np.bincount(lines, minlength=width))


@dataclass(frozen=True, slots=True)
class Part:
    """What one map of a billing period has of its lines: ``first`` and how many; in force from a local day on (None: from the begin)."""

    map: int
    since: int | None
    first: int
    size: int


Swap = tuple[int, int, str, str]
"""What a critical-peak event does to a day: UTC seconds from and to, the period that holds, or the map whose periods hold."""


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
        # Maps change by date, or did
        self.wide = any(rule.since or rule.until for rule in settings.assign) or any(_DAY in name for name, _ in self.names)
        self._plans: list[tuple[tuple[int, int], ...]] = []  # first days and maps, in order
        self._found = lru_cache(4096)(self._find)
        self._by_account = any(rule.accounts for rule in settings.assign)
        self._maps: dict[int, TouMap] = {numbers[tou.id]: tou for tou in settings.maps}
        self.width = (1 + self.wide) * max(len(lines) for name, lines in self.names if _DAY not in name)
        self.width = max(self.width, *(len(lines) for _, lines in self.names))
        self._parts: dict[int, list[Part]] = {}
        self.vectors: list[Vector] = []
        self._interned: dict[tuple[int, int, bytes], int] = {}
        self._days: dict[tuple[int, str, int, int, int, int, int, tuple[Swap, ...]], int] = {}

    def numbering(self) -> bytes:
        """Numbers and lines as bytes for the state."""
        return json.dumps(self.names).encode()

    def assign(self, unit: str, direction: str, channel: str, account: str) -> int:
        """The number of the map a channel is billed by; where it changes by date, that of a plan (see :meth:`on`)."""
        return self._found(unit, direction, channel, account if self._by_account else "")

    def _find(self, unit: str, direction: str, channel: str, account: str) -> int:
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

    def whole(self, number: int, first: int, end: int) -> int:
        """The number that sums of a billing period (local days, ``end`` not included) are kept by: of its map, or, where a plan changes it
        inside, of all its maps one after the other. Where these have more lines than are summed, of the first."""
        if number < PLANS:
            return number
        inside = [(since, found) for since, found in self._plans[number - PLANS] if first < since < end]
        start = self.on(number, first)
        parts = [(start, None), *((found, since) for since, found in inside)]
        size = sum(self._size(found) for found, _ in parts)
        if not inside or size > self.width:
            return start
        name = _SPLIT.join(f"{'' if at is None else at}{_DAY}{self.names[found][0]}{_SIZE}{self._size(found)}" for found, at in parts)
        if name not in self._numbers:
            self._numbers[name] = len(self.names)
            self.names.append((name, [line for found, _ in parts if found for line in self.names[found][1]]))
        return self._numbers[name]

    def _size(self, number: int) -> int:
        return len(self.names[number][1]) if number else 1

    def parts(self, number: int) -> list[Part]:
        """The maps whose lines a number has, in order. Days that are not mapped have one line, behind those of the others."""
        found = self._parts.get(number)
        if found is None:
            found, at = [], 0
            if _DAY not in self.names[number][0]:
                found.append(Part(number, None, 0, self._size(number)))
            else:
                for one in self.names[number][0].split(_SPLIT):
                    since, _, rest = one.partition(_DAY)
                    name, _, size = rest.partition(_SIZE)
                    known = self._numbers.get(name, UNMAPPED)
                    found.append(Part(known, int(since) if since else None, at if name else -1, int(size)))
                    at += int(size) if name else 0
                found = [replace(part, first=at) if part.first < 0 else part for part in found]
            self._parts[number] = found
        return found

    def number_of(self, name: str) -> int:
        """The number of a map. Raises ValueError for one that is not among the settings."""
        if name not in self._numbers:
            raise ValueError(f"there is no map {name!r}")
        return self._numbers[name]

    def vector(
        self, number: int, zone: str, day: int, seconds: int, count: int, within: tuple[int, int] | None = None,
        swaps: tuple[Swap, ...] = (),
    ) -> int:  # fmt: skip
        """Which of ``vectors`` a channel's day has: its map (or plan), the day in the channel's zone, interval length and number of slots.

        ``within`` are the local days of its billing period, ``swaps`` the critical-peak events of the day, the strongest last; one whose
        periods the map does not have changes nothing. A day is not mapped where its map has no version for it, or where the intervals are
        so long that one could straddle two periods.
        """
        first, end = within or (day, day + 1)
        key = (number, zone, day, seconds, count, first, end, swaps)
        found = self._days.get(key)
        if found is None:
            if len(self._days) >= _CACHE:
                self._days.clear()
            found = self._days[key] = self._make(self.whole(number, first, end), self.on(number, day), zone, day, seconds, count, swaps)
        return found

    def _make(self, whole: int, own: int, zone: str, day: int, seconds: int, count: int, swaps: tuple[Swap, ...]) -> int:
        tou = self._maps.get(own)
        lines = self._lines(tou, self.names[own][1], zone, day, seconds, count) if tou else None
        part = next((part for part in reversed(self.parts(whole)) if part.since is None or part.since <= day), None)
        if lines is None and own:
            whole, own, first, lines = UNMAPPED, UNMAPPED, 0, np.zeros(count, np.int64)
        else:
            if part is None or part.map != own:  # its lines find no place beside those of the period's other maps
                whole, first = own, 0
            else:
                first = part.first
            lines = np.zeros(count, np.int64) if lines is None else self._swapped(lines, own, zone, day, seconds, count, swaps)
        lines = lines + first
        key = (whole, own, lines.tobytes())
        if key not in self._interned:
            self._interned[key] = len(self.vectors)
            self.vectors.append(Vector.of(whole, own, first, lines, self.width))
        return self._interned[key]

    def _swapped(self, lines: Ints, own: int, zone: str, day: int, seconds: int, count: int, swaps: tuple[Swap, ...]) -> Ints:
        """The lines of a day with the periods that critical-peak events bring."""
        names = self.names[own][1]
        starts = int(calendar.start_of(zone, day)) + np.arange(count) * seconds if swaps else lines
        for start, end, tou, use in swaps:
            inside = (starts >= start) & (starts < end)
            if tou in names:
                lines = np.where(inside, names.index(tou), lines)
            elif use in self._numbers:
                other = self._numbers[use]
                theirs = self._lines(self._maps[other], self.names[other][1], zone, day, seconds, count) if other in self._maps else None
                known = np.array([names.index(name) if name in names else -1 for name in self.names[other][1]], np.int64)
                if theirs is not None:
                    lines = np.where(inside & (known[theirs] >= 0), known[theirs], lines)
        return lines

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
