"""Business time: deadlines that count only the hours in which people work."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from schemas.topology.todo import BusinessHours
from schemas.topology.tou import WEEKDAYS
from streams import calendar

EPOCH: Final = date(1970, 1, 1)
HORIZON: Final = 400  # days looked ahead


class Hours:
    """The business calendar of a hub."""

    def __init__(self, rules: BusinessHours) -> None:
        self.rules = rules
        self._open = lru_cache(maxsize=4096)(self._span)

    def after(self, at: int, seconds: int) -> int:
        """The moment at which so much business time has passed since ``at`` (both UTC seconds).

        Where the calendar has no working day within four hundred days, plain time counts: a deadline that never comes helps nobody.
        """
        left, day = seconds, int(calendar.day_of(self.rules.zone, at))
        for number in range(day, day + HORIZON):
            span = self._open(number)
            if span is None or span[1] <= at:
                continue
            begin = max(at, span[0])
            if span[1] - begin >= left:
                return begin + left
            left -= span[1] - begin
        return at + seconds

    def _span(self, number: int) -> tuple[int, int] | None:
        day = EPOCH + timedelta(days=number)
        if WEEKDAYS[day.weekday()] not in self.rules.days or (self.rules.holidays is not None and self.rules.holidays.holds(day)):
            return None
        midnight = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(self.rules.zone))

        def instant(second: int) -> int:
            if second >= 86_400:
                return int(calendar.start_of(self.rules.zone, number + 1))
            return int(midnight.replace(hour=second // 3600, minute=second // 60 % 60, second=second % 60).timestamp())

        return instant(self.rules.start), instant(self.rules.end)
