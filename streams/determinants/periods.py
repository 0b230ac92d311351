"""Billing periods: months that begin on a cycle day, numbered since January 1970, with the dates on which the cycle day changes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from schemas.topology.tou import Billing
from streams import calendar

Array = npt.NDArray[Any]
_EPOCH: Final = date(1970, 1, 1)
_EVER: Final = -(2**31)
_NEVER: Final = 2**31


def month_of(days: Any, cycle: Any) -> Array:
    """The month (since January 1970) in which a period that local days lie in begins; ``cycle`` is the day of the month it begins on."""
    shifted = np.asarray(days, np.int64) - (np.asarray(cycle, np.int64) - 1)
    return shifted.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)


def day_in(months: Any, cycle: Any) -> Array:
    """The local day (since 1970-01-01) on which the period of a month begins."""
    first = np.asarray(months, np.int64).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    return first + np.asarray(cycle, np.int64) - 1


def day_number(day: date) -> int:
    """A date as days since 1970-01-01."""
    return (day - _EPOCH).days


class Schedules:
    """The billing periods of accounts as the settings have them. Accounts whose periods begin alike share a schedule, a small number.

    A schedule is a list of steps: the local day on which one begins, the cycle day, and the number of its first period. Where the cycle day
    changes, the period under way ends at the first new begin, so it is shorter; a change to a later day of the month makes one more period,
    and all numbers behind it are one higher than months since 1970.
    """

    def __init__(self, billing: Billing) -> None:
        self._billing = billing
        self._known: dict[tuple[tuple[date | None, int], ...], int] = {}
        self._days = self._first = self._cycles = self._ahead = np.zeros((0, 1), np.int64)

    def of(self, account: str) -> int:
        """The schedule of an account."""
        cycles = tuple(self._billing.cycles_of(account))
        found = self._known.get(cycles)
        if found is None:
            found = self._known[cycles] = len(self._known)
            self._add(_steps(cycles))
        return found

    def _add(self, steps: list[tuple[int, int, int]]) -> None:
        width = max(self._days.shape[1], len(steps))
        days, first, cycles, ahead = (
            np.pad(old, ((0, 1), (0, width - old.shape[1])), constant_values=empty)
            for old, empty in ((self._days, _NEVER), (self._first, _NEVER), (self._cycles, 1), (self._ahead, 0))
        )
        for at, (day, cycle, extra) in enumerate(steps):
            days[-1, at], cycles[-1, at], ahead[-1, at] = day, cycle, extra
            first[-1, at] = _EVER if not at else int(month_of(day, cycle)) + extra
        self._days, self._first, self._cycles, self._ahead = days, first, cycles, ahead

    def _step(self, bounds: Array, schedule: Any, values: Any) -> tuple[Array, Array]:
        which = np.asarray(schedule, np.int64)
        if bounds.shape[1] == 1:
            return which, np.zeros_like(which)
        return which, (np.asarray(values, np.int64)[..., None] >= bounds[which]).sum(axis=-1) - 1

    def period_of(self, days: Any, schedule: Any) -> Array:
        """The numbers of the billing periods of local days (since 1970-01-01)."""
        at = self._step(self._days, schedule, days)
        return month_of(days, self._cycles[at]) + self._ahead[at]

    def first_day(self, periods: Any, schedule: Any) -> Array:
        """The local days on which billing periods begin."""
        at = self._step(self._first, schedule, periods)
        return day_in(np.asarray(periods, np.int64) - self._ahead[at], self._cycles[at])

    def bounds(self, zone: str, periods: Any, schedule: Any) -> tuple[Array, Array]:
        """UTC seconds at which billing periods begin and end."""
        numbers = np.asarray(periods, np.int64)
        begin, end = (np.clip(self.first_day(p, schedule), calendar.FIRST_DAY, calendar.LAST_DAY) for p in (numbers, numbers + 1))
        return calendar.start_of(zone, begin), calendar.start_of(zone, end)


def _steps(cycles: Sequence[tuple[date | None, int]]) -> list[tuple[int, int, int]]:
    """First day, cycle day and further periods of each step. One whose first begin is not before that of a later one never holds."""
    found: list[tuple[int, int]] = []
    for since, cycle in cycles:
        day = _EVER if since is None or not found else int(day_in(month_of(day_number(since) - 1, cycle) + 1, cycle))
        while found and found[-1][0] >= day:
            found.pop()
        if not found or found[-1][1] != cycle:
            found.append((day if found else _EVER, cycle))
    steps = [(*found[0], 0)]
    for day, cycle in found[1:]:
        _, before, extra = steps[-1]
        steps.append((day, cycle, int(month_of(day - 1, before)) + extra + 1 - int(month_of(day, cycle))))
    return steps


def settled(billing: Billing, now: int) -> list[dict[str, Any]]:
    """The versions that hold on days that have begun anywhere at a UTC second."""
    known = _EPOCH + timedelta(days=now // 86_400 + 1)
    return [version.model_dump(mode="json") for version in billing.versions if version.since is None or version.since <= known]


def months_behind(zone: str, at: int, months: int) -> int:
    """The UTC second so many months behind a local day's begin; a day behind the 28th counts as the 28th."""
    day = int(calendar.day_of(zone, at))
    month = int(month_of(day, 1))
    since = day - int(day_in(month, 1))
    there = int(day_in(month + months, 1)) + min(since, 27)
    return int(calendar.start_of(zone, min(max(there, calendar.FIRST_DAY), calendar.LAST_DAY)))
