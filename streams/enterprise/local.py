"""Dates and wall-clock times of a CIS as UTC seconds."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Final
from zoneinfo import ZoneInfo

from streams import calendar

_EPOCH: Final = date(1970, 1, 1)


def day_number(day: date) -> int:
    """Days since 1970."""
    return (day - _EPOCH).days


def midnight(zone: str, number: int) -> int | None:
    """UTC seconds at which a local day (counted since 1970) begins; None before 1970 and from 2100 on: open."""
    return int(calendar.start_of(zone, number)) if calendar.FIRST_DAY <= number <= calendar.LAST_DAY else None


def moment(zone: str, day: date, clock: str) -> int:
    """UTC seconds of a local wall-clock time (``hh:mm:ss``, 24:00:00 ends the day).

    Of a time that stands twice the first counts; one that clocks skip is taken as if they had not been moved yet.
    """
    hour, minute, second = (int(part) for part in clock.rstrip("Z").split(".")[0].split(":")[:3])
    if hour == 24:
        return midnight(zone, day_number(day) + 1) or 0
    return int(datetime(day.year, day.month, day.day, hour, minute, second, tzinfo=ZoneInfo(zone)).astimezone(UTC).timestamp())
