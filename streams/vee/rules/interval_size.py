"""interval-size: days in which values came only every so many intervals."""

from __future__ import annotations

import numpy as np

from schemas.topology.vee import IntervalSize
from streams.vee.batch import DayBatch, Findings


def interval_size(batch: DayBatch, rule: IntervalSize) -> Findings:
    """Whole days (M) in which every slot something was received of is a multiple of k ≥ 2 slots from the others: data of a longer interval
    length, such as half hours declared as quarter hours.

    k is the greatest common divisor of the distances between these slots, of which there must be ``min_values``. Slots that the source
    announces as missing count as received. To fill the gaps would invent energy, so the rule belongs before all estimations.
    """
    heard = batch.received.sum(axis=1)
    some = np.flatnonzero(batch.whole & (heard >= rule.min_values) & (2 * heard <= batch.counts + 1))
    places = [np.flatnonzero(batch.received[row]) for row in some.tolist()]
    steps = np.array([np.gcd.reduce(np.diff(own)) for own in places], np.int64)
    hit = np.flatnonzero(steps > 1)
    count = np.array([len(places[k]) for k in hit.tolist()], np.int64)
    first, last = (np.array([places[k][end] for k in hit.tolist()], np.int64) for end in (0, -1))

    def say(k: int) -> str:
        step = int(steps[hit[k]]) * batch.seconds // 60
        return f"values came every {step} minutes only, in intervals of {batch.seconds // 60} minutes: the gaps are not filled"

    return Findings("interval-size", some[hit], count, first, last, say)
