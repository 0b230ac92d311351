"""Local wall-clock times to UTC, for whole columns."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import numpy.typing as npt
from numba import njit

from connectors.head_end.formats.text import NAIVE

Ints = npt.NDArray[np.int64]
FINE, SKIPPED, ZONELESS = 0, 1, 2  # status of a local time
_FIRST, _LAST = -86_400, 4_133_980_800  # 1970 to 2100, a day of margin
_DAY: Final = 86_400


def known_zone(name: str) -> str:
    """The zone's name. Raises ValueError for an unknown one."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"{name!r} is not an IANA time zone such as Europe/Berlin") from error
    return name


@cache
def transitions(zone: str) -> tuple[Ints, Ints]:
    """(UTC seconds of the changes, offsets) from 1970 to 2100; ``offsets`` has one entry more: before, between and after."""
    info = ZoneInfo(zone)

    def offset(second: int) -> int:
        change = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=second)).astimezone(info).utcoffset()
        return int(change.total_seconds()) if change else 0

    changes: list[int] = []
    offsets = [offset(_FIRST)]
    for low in range(_FIRST, _LAST, _DAY // 2):
        high = low + _DAY // 2
        after = offset(high)
        if after == offsets[-1]:
            continue
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if offset(middle) == offsets[-1] else (low, middle)
        changes.append(high)
        offsets.append(after)
    return np.array(changes, np.int64), np.array(offsets, np.int64)


def standard_offset(zone: str, day: int) -> int:
    """The zone's offset without daylight saving on a day (days since 1970), in seconds."""
    moment = (datetime(1970, 1, 1, 12, tzinfo=UTC) + timedelta(days=day)).astimezone(ZoneInfo(zone))
    offset, saving = moment.utcoffset(), moment.dst()
    return int(((offset or timedelta()) - (saving or timedelta())).total_seconds())


@njit(cache=True)
def _folds(local, order, group, ambiguous, second):  # type: ignore[no-untyped-def]
    """Which ambiguous times belong to the second pass of the repeated hour, by the order of the file within each group."""
    seen = np.full(_DAY, -1, np.int64)  # run in which a wall-clock second was met
    run, previous, again, falling = 0, 0, False, False
    size = len(order)
    at = 0
    while at < size:
        end = at
        while end < size and group[order[end]] == group[order[at]]:
            end += 1
        falling = local[order[end - 1]] < local[order[at]]
        again = False
        run += 1
        inside = False
        for k in range(at, end):
            row = order[k]
            if not ambiguous[row]:
                if inside:
                    inside = False
                    again = False
                    run += 1
                continue
            stamp = local[row]
            back = inside and (stamp > previous if falling else stamp < previous)
            if back:
                again = True
            late = again or seen[stamp % _DAY] == run
            seen[stamp % _DAY] = run
            second[row] = late != falling
            previous = stamp
            inside = True
        at = end


def to_utc(local: Ints, offsets: Ints, zone: str | None, group: Ints) -> tuple[Ints, npt.NDArray[np.int8]]:
    """(UTC seconds, status) of local times in file order.

    A time with an offset is taken by it. One without is wall-clock time in ``zone``: of the autumn hour that comes twice, times are of
    the first pass until, within a group (channel), the file goes back or repeats one; a time of the hour that spring skips does
    not exist.
    """
    utc = local - offsets
    status = np.zeros(len(local), np.int8)
    naive = offsets == NAIVE
    if not naive.any():
        return utc, status
    if zone is None:
        status[naive] = ZONELESS
        return utc, status
    changes, shifts = transitions(zone)
    early = shifts[np.searchsorted(changes + np.maximum(shifts[:-1], shifts[1:]), local, side="right")]
    late = shifts[np.searchsorted(changes + np.minimum(shifts[:-1], shifts[1:]), local, side="right")]
    status[naive & (late > early)] = SKIPPED
    ambiguous = naive & (late < early)
    second = np.zeros(len(local), np.bool_)
    if ambiguous.any():
        grouped = len(group) < 2 or bool((group[1:] >= group[:-1]).all())
        order = np.arange(len(group)) if grouped else np.argsort(group, kind="stable")
        _folds(local, order, group, ambiguous, second)
    utc[naive] = (local - np.where(second, late, early))[naive]
    return utc, status
