"""Billing periods of subscriptions: from a day of a month to that of one or more months later, local midnight to local midnight."""

from __future__ import annotations

from datetime import date
from typing import Final

from schemas.topology.usage import Cycle
from streams import calendar
from streams.determinants.usage.engine import Period

_EPOCH: Final = date(1970, 1, 1)


def period_at(cycle: Cycle, zone: str, at: int) -> Period:
    """The period of a cycle that a UTC second lies in."""
    day = date.fromordinal(_EPOCH.toordinal() + int(calendar.day_of(zone, at)))
    month = day.year * 12 + day.month - 1 - (day.day < cycle.day)
    first = month - (month - (cycle.first_month - 1)) % cycle.months
    begin, end = (_day(first + months, cycle.day) for months in (0, cycle.months))
    return Period(int(calendar.start_of(zone, begin)), int(calendar.start_of(zone, end)), zone, end - begin)


def _day(month: int, day: int) -> int:
    found = date(month // 12, month % 12 + 1, day)
    return min(max(found.toordinal() - _EPOCH.toordinal(), calendar.FIRST_DAY), calendar.LAST_DAY)
