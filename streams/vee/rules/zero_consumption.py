"""zero-consumption: a whole day without any use."""

from __future__ import annotations

import numpy as np

from schemas import conditions
from schemas.block import DIRECTIONS
from schemas.topology.vee import ZeroConsumption
from streams.vee.batch import DayBatch, Findings
from streams.vee.rules.totals import day_totals


def zero_consumption(batch: DayBatch, rule: ZeroConsumption) -> Findings:
    """Whole days with all values present whose total is zero within epsilon; days with an outage are not judged."""
    suspects = np.flatnonzero((np.abs(day_totals(batch)) <= rule.epsilon) & batch.whole)
    codes = batch.conditions[suspects]
    inside = np.arange(codes.shape[1]) < batch.counts[suspects][:, None]
    counted = ((codes >= conditions.OUTAGE + 100_000) | ~inside).all(axis=1)  # no outage, nothing missing, nothing before the first read
    exempt = [DIRECTIONS.index(name) for name in rule.exempt_directions]
    counted &= ~np.isin(batch.attributes.direction[suspects], exempt) & batch.attributes.quantity_in(rule.quantities)[suspects]
    rows = suspects[counted]
    counts = batch.counts[rows].astype(np.int64)

    def say(k: int) -> str:
        return f"no consumption in all {int(counts[k])} intervals of the day"

    return Findings("zero-consumption", rows, counts, np.zeros(len(rows), np.int64), counts - 1, say)
