"""When supply may be cut and when customers may be told: local times, weekdays, holidays and their eves."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from functools import cache, lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from schemas.topology.prepaid import Disconnection, Quiet
from schemas.topology.tou import DAY, WEEKDAYS
from streams import calendar

EPOCH: Final = date(1970, 1, 1)
HORIZON: Final = 40  # days looked ahead; a year full of holidays is a mistake someone must see
Span = tuple[int, int]  # UTC seconds, half open


class Windows:
    """Protected times of one hub's rules, zone by zone."""

    def __init__(self, rules: Disconnection, quiet: Iterable[Quiet]) -> None:
        self.rules, self.quiet = rules, tuple(quiet)
        self._protected = cache(self._protected_of)
        self._times = tuple((q.start, q.end) for q in self.quiet)
        self.cut_allowed_from = lru_cache(1 << 10)(self._cut_allowed_from)
        self.tell_from = lru_cache(1 << 10)(self._tell_from)

    def _cut_allowed_from(self, zone: str, at: int) -> int | None:
        """The first second from ``at`` on at which supply may be cut; None: not within forty days.

        Protected are the listed local times, holidays whole, and the eve of a holiday from ``eve_from`` on: the first working
        instant behind is the first possible one (domain 5.3).
        """
        day = int(calendar.day_of(zone, at))
        for number in range(day, day + HORIZON):
            at = max(at, int(calendar.start_of(zone, number)))
            end = int(calendar.start_of(zone, number + 1))
            for first, last in self._protected(zone, number):
                if first <= at < last:
                    at = last
            if at < end:
                return at
        return None

    def _tell_from(self, zone: str, at: int) -> int:
        """The first second from ``at`` on outside quiet hours."""
        day = int(calendar.day_of(zone, at))
        for number in (day, day + 1, day + 2):
            for first, last in _spans(zone, number, self._times):
                if first <= at < last:
                    at = last
        return at

    def _protected_of(self, zone: str, number: int) -> list[Span]:
        day = EPOCH + timedelta(days=number)
        holidays = self.rules.holidays
        if holidays is not None and holidays.holds(day):
            return [(int(calendar.start_of(zone, number)), int(calendar.start_of(zone, number + 1)))]
        times = [(window.start, window.end) for window in self.rules.protected if WEEKDAYS[day.weekday()] in window.days]
        if self.rules.eve_from is not None and holidays is not None and holidays.holds(day + timedelta(days=1)):
            times.append((self.rules.eve_from, DAY))
        return _spans(zone, number, tuple(times))


@cache
def _spans(zone: str, number: int, times: tuple[tuple[int, int], ...]) -> list[Span]:
    """Wall-clock ranges of a local day as UTC seconds, in order. A time the clock skips counts as the moment of the change."""
    day = EPOCH + timedelta(days=number)

    def instant(second: int) -> int:
        if second == DAY:
            return int(calendar.start_of(zone, number + 1))
        wall = datetime(day.year, day.month, day.day, second // 3600, second // 60 % 60, second % 60, tzinfo=ZoneInfo(zone))
        return int(wall.timestamp())

    return sorted((instant(start), instant(end)) for start, end in times)
