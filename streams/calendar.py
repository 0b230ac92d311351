"""Local days: the settlement day of a service point as UTC instants and slots.

A day is local midnight to the next local midnight: 23, 24 or 25 hours (half-hour changes exist too). Days are counted since 1970-01-01
*in the zone*. All arithmetic is on whole UTC seconds; arrays in, arrays out.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
FIRST_DAY: Final = 0  # 1970-01-01
LAST_DAY: Final = 47_846  # 2101-01-01
LONGEST_DAY: Final = 25 * 3600
_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 local wall clock, its zone is added below


@cache
def day_starts(zone: str) -> Ints:
    """UTC second at which each local day begins; index is the day number. Raises ZoneInfoNotFoundError for an unknown zone."""
    days = np.arange(FIRST_DAY, LAST_DAY + 1, dtype=np.int64)
    if zone == "UTC":
        return days * 86_400
    info = ZoneInfo(zone)
    starts = np.empty(len(days), np.int64)
    for day in range(len(days)):
        starts[day] = int((_EPOCH + timedelta(days=day)).replace(tzinfo=info).astimezone(UTC).timestamp())
    return starts


def day_of(zone: str, seconds: Any) -> Ints:
    """The local day number of UTC seconds (array or scalar). Seconds outside 1970-2100 give -1 or the last day."""
    days: Ints = np.searchsorted(day_starts(zone), seconds, side="right") - 1
    return days


def start_of(zone: str, day: Any) -> Ints:
    """The UTC second at which local days begin."""
    starts: Ints = day_starts(zone)[day]
    return starts


@lru_cache(1 << 14)
def start(zone: str, day: int) -> int:
    """The UTC second at which one local day begins, as a plain number."""
    return int(day_starts(zone)[day])


def length_of(zone: str, day: Any) -> Ints:
    """Length of local days in seconds: 82 800, 86 400, 90 000 …"""
    starts = day_starts(zone)
    lengths: Ints = starts[np.asarray(day) + 1] - starts[day]
    return lengths


def slots_of(zone: str, day: Any, seconds: Any) -> Ints:
    """How many intervals of a length a local day has; at least one (a daily interval is one slot however long the day)."""
    slots: Ints = np.maximum(1, length_of(zone, day) // np.asarray(seconds))
    return slots


def width_of(seconds: int) -> int:
    """Most slots a day of this interval length can have."""
    return max(1, LONGEST_DAY // seconds)


@cache
def wall_clock(zone: str, day: int, seconds: int) -> Ints:
    """Local wall-clock second of the day at which each slot of a day starts; on the autumn day some repeat."""
    start, count = int(start_of(zone, day)), int(slots_of(zone, day, seconds))
    info = ZoneInfo(zone)
    locals_ = [datetime.fromtimestamp(start + i * seconds, info) for i in range(count)]
    return np.array([t.hour * 3600 + t.minute * 60 + t.second for t in locals_], np.int64)


def date_of(day: int) -> str:
    """The ISO date of a day number."""
    return (_EPOCH + timedelta(days=int(day))).date().isoformat()
