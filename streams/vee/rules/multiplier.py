"""multiplier: reads that came with another multiplier than master data name."""

from __future__ import annotations

import numpy as np

from schemas.quantity import text_of
from schemas.topology.vee import Multiplier
from streams.vee.batch import DayBatch, Findings


def multiplier(batch: DayBatch, rule: Multiplier) -> Findings:
    """Days of channels whose newest reads came with multiplier r where master data name m: abs(r - m) > tolerance · m.

    Reads without one and channels for which master data name none are not judged. One finding per day (M), of all its received
    slots; none of them becomes suspect, since the values themselves are as the meter counted. Corrected master data take it back.
    Source: multiplier check as field practice knows it, compared as decimals.
    """
    said, known = batch.attributes.reported, batch.attributes.multiplier
    if not len(said) or not said.any():
        none = np.zeros(0, np.int64)
        return Findings("multiplier", none, none, none, none, str)
    judged = (said > 0) & (known > 0) & batch.received.any(axis=1)
    rows = np.flatnonzero(judged & (np.abs(said - known).astype(np.float64) > rule.tolerance * known))
    part = batch.received[rows]
    last = part.shape[1] - 1 - part[:, ::-1].argmax(axis=1)

    def say(k: int) -> str:
        row = int(rows[k])
        return f"reads came with multiplier {text_of(int(said[row]))}, master data say {text_of(int(known[row]))}"

    return Findings("multiplier", rows, part.sum(axis=1), part.argmax(axis=1), last, say)
