"""Billing periods of subscriptions: from a day of a month to that of one or more months later, local midnight to local midnight."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Final

from schemas.topology.tou import Billing
from schemas.topology.usage import Cycle
from streams import calendar
from streams.determinants.periods import day_number
from streams.determinants.usage.engine import Period

_EPOCH: Final = date(1970, 1, 1)
Dated = Sequence[tuple[int | None, Cycle]]
"""Cycles, each with the local day (since 1970-01-01) from which on it holds; None: since ever."""


def usual(billing: Billing, account: str) -> Dated:
    """The cycles of an account for which master data name none."""
    return [(None if since is None else day_number(since), Cycle(day=day)) for since, day in billing.cycles_of(account)]


def dated(cycles: Sequence[Cycle]) -> Dated:
    """The versions of a cycle with their days."""
    return [(None if one.since is None else day_number(one.since), one) for one in cycles]


def period_at(cycles: Dated, zone: str, at: int) -> Period:
    """The period that a UTC second lies in. Where the cycle changes, the period under way ends with the first begin of the new one."""
    day = int(calendar.day_of(zone, at))
    steps: list[tuple[int, Cycle]] = []
    for since, cycle in cycles:
        first = -(2**31) if since is None or not steps else _next(cycle, since)
        while steps and steps[-1][0] >= first:
            steps.pop()
        steps.append((first, cycle) if steps else (-(2**31), cycle))
    number = max(i for i, (first, _) in enumerate(steps) if first <= day)
    begin, end = _around(steps[number][1], day)
    begin = max(begin, steps[number][0])
    until = min(end, steps[number + 1][0]) if number + 1 < len(steps) else end
    return Period(int(calendar.start_of(zone, begin)), int(calendar.start_of(zone, until)), zone, end - begin)


def _around(cycle: Cycle, day: int) -> tuple[int, int]:
    """The local days on which a cycle's period begins and ends that a local day lies in."""
    here = date.fromordinal(_EPOCH.toordinal() + day)
    month = here.year * 12 + here.month - 1 - (here.day < cycle.day)
    first = month - (month - (cycle.first_month - 1)) % cycle.months
    return _day(first, cycle.day), _day(first + cycle.months, cycle.day)


def _next(cycle: Cycle, day: int) -> int:
    """The first begin of a cycle on or after a local day."""
    begin, end = _around(cycle, day)
    return begin if begin == day else end


def _day(month: int, day: int) -> int:
    found = date(month // 12, month % 12 + 1, day)
    return min(max(found.toordinal() - _EPOCH.toordinal(), calendar.FIRST_DAY), calendar.LAST_DAY)
