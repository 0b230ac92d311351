"""interval-spike: one interval out of proportion to the other peaks of its day."""

from __future__ import annotations

import numpy as np

from schemas import conditions
from schemas.topology.vee import IntervalSpike
from streams.vee.batch import FIRST_NEIGHBOUR, DayBatch, Findings, Ints, Mask, from_slots
from streams.vee.rules.totals import day_totals


def interval_spike(batch: DayBatch, rule: IntervalSpike) -> Findings:
    """Days whose highest magnitude P1 exceeds the third highest P3 by more than the tolerance: (P1 - P3) / P3.

    ``per`` says among which intervals the third highest is sought: those of the local day, of 24 hours counted from the begin of the
    delivery, or of the whole delivery, however many days it has; of deliveries what stands out is marked when they come.

    Days (M) with fewer usable intervals than the minimum are not judged. Missing values and outages are left out, and what follows an
    outage within ``after_outage`` is never a spike: loads come back all at once. P3 = 0 fails only above the floor, as everything
    does. With ``history_factor`` k an interval must also exceed k times the highest measured one of the channel's past 28 to 56
    days, as far as these are known. Slots above P3 by more than the tolerance become suspect.
    Source: spike check of the California rules (there 180 %) and of field practice; P3 so that two legitimate peaks pass.
    """
    if rule.per != "day":
        return _of_deliveries(batch, rule)
    rows = _candidates(batch, rule)
    usable = batch.conditions[rows] >= FIRST_NEIGHBOUR
    size = np.where(usable, np.abs(batch.values[rows]), -1)
    enough = usable.sum(axis=1) >= rule.min_intervals
    rows, size = rows[enough], size[enough]
    width = size.shape[1]
    third = np.partition(size, width - 3, axis=1)[:, width - 3] if width >= 3 else np.zeros(len(rows), np.int64)
    bad = size > limits(third, rule)[:, None]
    bad &= batch.conditions[rows] < conditions.USER_EDIT  # a person has decided
    bad = _plausible(batch, rule, rows, bad)
    hit = np.flatnonzero(bad.any(axis=1))
    rows, size, third, bad = rows[hit], size[hit], third[hit], bad[hit]
    peak = size.argmax(axis=1)
    where = np.nonzero(bad)

    def say(k: int) -> str:
        row, slot = int(rows[k]), int(peak[k])
        return words(batch, row, int(batch.values[row, slot]), slot, int(third[k]))

    last = width - 1 - bad[:, ::-1].argmax(axis=1)
    return Findings("interval-spike", rows, bad.sum(axis=1), bad.argmax(axis=1), last, say, failed=(rows[where[0]], where[1]))


def words(batch: DayBatch, row: int, top: int, slot: int, third: int) -> str:
    """What is said of a day's highest value."""
    return f"{batch.amount(row, top)} at {batch.moment(row, slot)} against a third highest of {batch.amount(row, third)}"


def _of_deliveries(batch: DayBatch, rule: IntervalSpike) -> Findings:
    """What was marked when it came, less what an outage or the past explains: that becomes regular."""
    marked = batch.conditions == conditions.SUSPECT_DELIVERY
    rows = np.flatnonzero(marked.any(axis=1))
    bad = marked.copy()
    bad[rows] = _plausible(batch, rule, rows, bad[rows])
    batch.conditions[marked & ~bad] = conditions.REGULAR
    batch.edited[rows] = True
    what = "its delivery" if rule.per == "delivery" else "the 24 hours of its delivery"

    def say(row: int, count: int) -> str:
        slot = int(np.where(bad[row], np.abs(batch.values[row]), -1).argmax())
        top, more = batch.amount(row, int(batch.values[row, slot])), f" and {count - 1} more" if count > 1 else ""
        return f"{top} at {batch.moment(row, slot)}{more}, over {rule.tolerance_percent} % above the third highest of {what}"

    return from_slots("interval-spike", bad, say)


def _plausible(batch: DayBatch, rule: IntervalSpike, rows: Ints, bad: Mask) -> Mask:
    """Takes out what follows an outage, and what the channel's past makes plausible."""
    hit = np.flatnonzero(bad.any(axis=1))
    if not len(hit):
        return bad
    behind = rule.after_outage // batch.seconds
    codes = batch.conditions[rows[hit]]
    outage = (codes >= conditions.OUTAGE) & (codes < FIRST_NEIGHBOUR)
    if behind and outage.any():
        slots = np.arange(codes.shape[1])
        last = np.maximum.accumulate(np.where(outage, slots, -1 - codes.shape[1] - behind), axis=1)
        bad[hit] &= slots - last > behind
    if rule.history_factor and batch.past is not None:
        bad[hit] = batch.past.outstanding(rows[hit], bad[hit], rule.history_factor)
    return bad


def _candidates(batch: DayBatch, rule: IntervalSpike) -> Ints:
    """Rows that could fail: without negative values P3 is at least the mean of all but the two highest, so few days need sorting."""
    values = batch.values
    high, low = values.max(axis=1), values.min(axis=1)
    top = np.maximum(high, -low).astype(np.float64)
    maybe = top > rule.floor
    if not maybe.any():
        return np.zeros(0, np.int64)
    rest = np.maximum(day_totals(batch).astype(np.float64) - 2 * top, 0)
    maybe &= (low < 0) | (top * values.shape[1] * 1.001 > rest * (1 + rule.tolerance_percent / 100))
    return np.flatnonzero(maybe)


def limits(third: Ints, rule: IntervalSpike) -> Ints:
    """Up to where a magnitude is no spike, by the third highest of the day."""
    percent = 100 + rule.tolerance_percent
    if not len(third) or int(third.max()) < np.iinfo(np.int64).max // percent:
        plain: Ints = np.maximum(rule.floor, third + third * rule.tolerance_percent // 100)
        return plain
    exact = [max(rule.floor, p3 + p3 * rule.tolerance_percent // 100) for p3 in third.tolist()]
    return np.array([min(limit, np.iinfo(np.int64).max) for limit in exact], np.int64)
