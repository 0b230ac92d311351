"""like-day-average: longer gaps from the same wall-clock slots of days of the same type."""

from __future__ import annotations

import numpy as np

from schemas import conditions
from schemas.rules import METHOD
from schemas.topology.vee import LikeDayAverage
from streams.calendar import wall_clock
from streams.vee.batch import DayBatch, Ints, Mask
from streams.vee.likeness import candidates

_SAFE = 1 << 56  # some dozens of values up to here still add within 64 bits


def like_day_average(batch: DayBatch, rule: LikeDayAverage, wanted: Mask) -> None:
    """Fills what interpolation left of whole days with the mean of measured values at the same wall-clock time of like days.

    Like days are those of :func:`streams.vee.likeness.candidates`; of these count the first ``max_days`` that have no outage and not more
    than ``max_estimated_percent`` of their slots without a measured value, and at least ``min_days`` are needed. Only measured values
    are averaged, so no estimate rests on another. On the day the clocks go back an hour stands twice: both get the same mean, and such a
    day lends the mean of both. Source: California DASMMD, gaps above two hours; the mean is rounded half up to the millionth.
    """
    rows = np.flatnonzero(batch.whole & wanted & batch.vacant.any(axis=1))
    if not len(rows):
        return
    batch.averaged[rows] = True
    least = 1 if rule.priority == "aemo" else rule.min_days
    most = 1 if rule.priority == "aemo" else rule.max_days
    for row in rows.tolist():
        likes = [peer for peer in batch.peers(row, candidates(rule, int(batch.day[row]))) if _qualifies(batch, rule, peer)][:most]
        if len(likes) >= least:
            _fill(batch, rule, row, likes)


def _measured(batch: DayBatch, row: int) -> Mask:
    return np.asarray((batch.conditions[row] >= conditions.REGULAR) & (batch.methods[row] == 0))


def _qualifies(batch: DayBatch, rule: LikeDayAverage, row: int) -> bool:
    count = int(batch.counts[row])
    codes = batch.conditions[row, :count]
    outage = ((codes >= conditions.OUTAGE) & (codes < conditions.EST_FLAT)).any()
    lacking = count - int(_measured(batch, row)[:count].sum())
    return not outage and lacking * 100 <= rule.max_estimated_percent * count


def _clock(batch: DayBatch, row: int) -> Ints:
    """Wall-clock second of each slot; a day of other slots than its zone gives is taken by position."""
    clock = wall_clock(batch.zone_of(row), int(batch.day[row]), batch.seconds)
    count = int(batch.counts[row])
    return clock if len(clock) == count else np.arange(count) * batch.seconds


def _fill(batch: DayBatch, rule: LikeDayAverage, row: int, likes: list[int]) -> None:
    times, values = [], []
    for like in likes:
        measured = _measured(batch, like)[: int(batch.counts[like])]
        times.append(_clock(batch, like)[measured])
        values.append(batch.values[like, : len(measured)][measured])
    known, where = np.unique(np.concatenate(times), return_inverse=True)
    all_values = np.concatenate(values)
    if len(all_values) and int(np.abs(all_values).max()) > _SAFE:
        return  # no meter counts that much; such values are left to people
    count = np.bincount(where, minlength=len(known))
    total = np.zeros(len(known), np.int64)
    np.add.at(total, where, all_values)
    mean = (2 * total + count) // (2 * count)
    slots = np.flatnonzero(batch.vacant[row, : int(batch.counts[row])])
    clock = _clock(batch, row)[slots]
    at = np.searchsorted(known, clock).clip(0, len(known) - 1)
    found = known[at] == clock
    slots = slots[found]
    batch.values[row, slots] = mean[at[found]]
    batch.conditions[row, slots] = rule.condition
    batch.methods[row, slots] = METHOD["like-day-average"]
    batch.edited[row] = True
