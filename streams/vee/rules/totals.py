"""Sums over days that cannot overflow."""

from __future__ import annotations

from typing import Final

from streams.vee.batch import DayBatch, Ints

CEILING: Final = 1 << 46  # 70 million units in one interval; 90,000 slots of it still add within int64


def day_totals(batch: DayBatch) -> Ints:
    """Sum of each day's values; single values count for 70 million units at most, which keeps every sum inside 64 bits."""
    return sums_of(batch.values)


def sums_of(values: Ints) -> Ints:
    """Sum of each row, as in :func:`day_totals`."""
    if values.size and (int(values.max()) > CEILING or int(values.min()) < -CEILING):
        values = values.clip(-CEILING, CEILING)
    totals: Ints = values.sum(axis=1)
    return totals
