"""zero-consumption: a whole day without any use."""

from __future__ import annotations

from typing import Final

import numpy as np

from schemas import conditions
from schemas.block import DIRECTIONS
from schemas.topology.vee import ZeroConsumption
from streams.vee.batch import DayBatch, Findings, Ints
from streams.vee.rules.totals import day_totals
from streams.vee.service import idle_slots, outside

WORDS: Final = "no consumption in all {} intervals of the day"


def zero_consumption(batch: DayBatch, rule: ZeroConsumption) -> list[Findings]:
    """Whole days (M) whose total is zero within epsilon, no slot missing.

    Days with an outage in them are another matter: told with the severity of their own that ``with_outage`` sets, or not at all. Days in
    which the channel is not in service (``exempt_disconnected``) and exempt directions, such as feed-in at night, are not judged.
    Source: zero consumption check of the domain, which keeps known outages apart so that nobody works on them.
    """
    suspects = np.flatnonzero((np.abs(day_totals(batch)) <= rule.epsilon) & batch.whole)
    codes = batch.conditions[suspects]
    inside = np.arange(codes.shape[1]) < batch.counts[suspects][:, None]
    exempt = [DIRECTIONS.index(name) for name in rule.exempt_directions]
    judged = ~np.isin(batch.attributes.direction[suspects], exempt) & batch.attributes.quantity_in(rule.quantities)[suspects]
    judged &= ((codes >= conditions.OUTAGE) | ~inside).all(axis=1)  # nothing missing, nothing before the first read
    if rule.exempt_disconnected and len(batch.attributes.served):
        begin = batch.start[suspects]
        beyond = outside(batch.attributes.served[suspects], begin, begin + batch.counts[suspects] * batch.seconds)
        for k in np.flatnonzero(judged & beyond).tolist():
            row = int(suspects[k])
            judged[k] = not idle_slots(batch.attributes.periods(row), int(begin[k]), batch.seconds, int(batch.counts[row])).any()
    dark = ((codes < conditions.OUTAGE + 100_000) & inside).any(axis=1)
    found = [_findings(batch, suspects[judged & ~dark], WORDS, "")]
    if rule.with_outage:
        words = "no consumption in all {} intervals of a day with an outage"
        found.append(_findings(batch, suspects[judged & dark], words, rule.with_outage))
    return found


def _findings(batch: DayBatch, rows: Ints, words: str, severity: str) -> Findings:
    counts = batch.counts[rows].astype(np.int64)
    return Findings(
        "zero-consumption", rows, counts, np.zeros(len(rows), np.int64), counts - 1, lambda k: words.format(int(counts[k])), severity
    )
