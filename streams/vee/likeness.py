"""Which days are like which: types of days, holidays, and the days a missing one may be estimated from."""

from __future__ import annotations

from datetime import date, timedelta
from functools import lru_cache
from typing import Final

from schemas.topology.tou import WEEKDAYS
from schemas.topology.vee import DayTypes, LikeDayAverage

_EPOCH: Final = date(1970, 1, 1)
_SUNDAY: Final = 6
# Weekday of the missing day → (weekday, weeks back) in the order of the Australian metrology procedure (domain: like day)
_AEMO: Final = {
    0: ((0, 1),),
    1: ((1, 1), (2, 1), (3, 1), (2, 0), (3, 0)),
    2: ((2, 1), (1, 0), (3, 0), (3, 1), (1, 1)),
    3: ((3, 1), (2, 0), (1, 0), (2, 1), (1, 1)),
    4: ((4, 1),),
    5: ((5, 1),),
    6: ((6, 1),),
}


def weekday_of(day: int) -> int:
    """0 for Mondays to 6 for Sundays."""
    return (day + 3) % 7


def is_holiday(types: DayTypes, day: int) -> bool:
    """Whether a day (counted since 1970) is a holiday."""
    return types.holidays is not None and types.holidays.holds(_EPOCH + timedelta(days=day))


def type_of(types: DayTypes, day: int) -> int:
    """The type of a day, as position in ``types``; that of Sundays for a holiday."""
    weekday = WEEKDAYS[_SUNDAY if is_holiday(types, day) else weekday_of(day)]
    return next(number for number, days in enumerate(types.types) if weekday in days)


@lru_cache(maxsize=4096)
def candidates(rule: LikeDayAverage, day: int) -> tuple[int, ...]:
    """The days a missing day may be estimated from, the best first.

    ``recent``: the newest days before it of the same type; for a holiday, other holidays, then days of the type of Sundays. Holidays stand
    for holidays only. ``aemo``: the order of weekdays of the week before and the same week. Source: California DASMMD rules 3.x;
    AEMO Metrology Procedure Part B, method 14.
    """
    types = rule.day_types
    holiday = is_holiday(types, day)
    if rule.priority == "aemo" and not holiday:
        monday = day - weekday_of(day)
        days = [monday - 7 * weeks + weekday for weekday, weeks in _AEMO[weekday_of(day)]]
        return tuple(other for other in days if not is_holiday(types, other))[: rule.candidates]
    own = type_of(types, day)
    like: list[int] = []
    others: list[int] = []
    for other in range(day - 1, max(-1, day - 1 - rule.window_days), -1):
        free = is_holiday(types, other)
        if holiday and free:
            like.append(other)
        elif not free and type_of(types, other) == own:
            others.append(other)
    return tuple((*like, *others)[: rule.candidates])
