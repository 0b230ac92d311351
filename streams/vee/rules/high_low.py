"""high-low: a day's use against the average day of the channel's own past."""

from __future__ import annotations

import numpy as np

from schemas import conditions
from schemas.topology.vee import HighLow
from streams.vee.batch import DayBatch, Findings
from streams.vee.rules.totals import day_totals

_YEAR = 13  # blocks of 28 days: 52 weeks, so weekdays fall together


def high_low(batch: DayBatch, rule: HighLow) -> Findings:
    """Whole days (M) whose average use u / d leaves the band [low · h, high · h] of the average h of history.

    u is the total of the day's intervals with a value that are no outage, d their share of the day; h the total of the complete
    days (no missing slot, no outage) of a block of 28 days divided by their number: the block before the one the day lies in, or that
    52 weeks earlier, whichever of ``history`` qualifies first. It must have ``min_days`` such days and no larger share with
    estimates of the source than allowed. Days and averages below the floor, and negative or zero averages, say nothing.
    Days later in the same block do not count, so it makes no difference in what pieces reads come.
    Source: high/low check of the domain, with rolling sums in place of a look at stored measurements.
    """
    none = np.zeros(0, np.int64)
    nothing = Findings("high-low", none, none, none, none, str)
    if batch.past is None or not len(batch):
        return nothing
    rows = np.flatnonzero(batch.whole & batch.attributes.quantity_in(rule.quantities))
    average, source = np.zeros(len(rows)), np.full(len(rows), -1)
    for number, name in enumerate(rule.history):
        sums, days, guessed = batch.past.block(rows, 1 if name == "previous" else _YEAR)
        fits = (source < 0) & (days >= rule.min_days) & (guessed * 100 <= days * rule.max_estimated_percent)
        average[fits] = sums[fits] / days[fits]
        source[fits] = number
    maybe = np.flatnonzero((source >= 0) & (average > 0))
    if not len(maybe):
        return nothing
    total = day_totals(batch)[rows[maybe]].astype(np.float64)
    # A day is judged from half of its intervals on, so its use is at most twice its total
    maybe = maybe[(2 * total > rule.high * average[maybe]) | (total < rule.low * average[maybe])]
    rows, average, source = rows[maybe], average[maybe], source[maybe]
    used = (batch.conditions[rows] >= conditions.OUTAGE + 100_000) & (np.arange(batch.values.shape[1]) < batch.counts[rows][:, None])
    share = used.sum(axis=1)
    use = day_totals(batch)[rows].astype(np.float64) * batch.counts[rows] / np.maximum(share, 1)
    known = (share * 2 >= batch.counts[rows]) & (np.maximum(use, average) >= rule.floor)
    hit = np.flatnonzero(known & ((use > rule.high * average) | (use < rule.low * average)))
    found, counts = rows[hit], batch.counts[rows[hit]].astype(np.int64)

    def say(k: int) -> str:
        row, at = int(found[k]), int(hit[k])
        when = "the 28 days before its block" if rule.history[source[at]] == "previous" else "the same weeks a year before"
        day, mean = batch.amount(row, round(use[at])), batch.amount(row, round(average[at]))
        return f"{day} in a day, {use[at] / average[at]:.3g} times the average day of {when}: {mean}"

    return Findings("high-low", found, counts, np.zeros(len(found), np.int64), counts - 1, say)
