"""Billing periods: months that begin on a cycle day, numbered since January 1970."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from streams import calendar

Array = npt.NDArray[Any]


def period_of(days: Any, cycle: Any) -> Array:
    """The billing period of local days (since 1970-01-01); ``cycle`` is the day of the month on which periods begin."""
    shifted = np.asarray(days, np.int64) - (np.asarray(cycle, np.int64) - 1)
    return shifted.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)


def first_day(periods: Any, cycle: Any) -> Array:
    """The local day on which billing periods begin."""
    months = np.asarray(periods, np.int64).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    return months + np.asarray(cycle, np.int64) - 1


def bounds(zone: str, periods: Any, cycle: Any) -> tuple[Array, Array]:
    """UTC seconds at which billing periods begin and end."""
    numbers = np.asarray(periods, np.int64)
    begin, end = (np.clip(first_day(p, cycle), calendar.FIRST_DAY, calendar.LAST_DAY) for p in (numbers, numbers + 1))
    return calendar.start_of(zone, begin), calendar.start_of(zone, end)


def months_behind(zone: str, at: int, months: int) -> int:
    """The UTC second so many months behind a local day's begin; a day behind the 28th counts as the 28th."""
    day = int(calendar.day_of(zone, at))
    month = int(np.int64(day).astype("datetime64[D]").astype("datetime64[M]").astype(np.int64))
    since = day - int(first_day(month, 1))
    there = int(first_day(month + months, 1)) + min(since, 27)
    return int(calendar.start_of(zone, min(max(there, calendar.FIRST_DAY), calendar.LAST_DAY)))
