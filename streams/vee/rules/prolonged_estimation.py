"""prolonged-estimation: estimates that have gone on for too long."""

from __future__ import annotations

import numpy as np

from schemas import conditions
from schemas.topology.vee import ProlongedEstimation
from streams.vee.batch import DayBatch, Findings, iso

_DAY = 86_400


def prolonged_estimation(batch: DayBatch, rule: ProlongedEstimation) -> Findings:
    """Days (M) with estimates, of the source or of the system, that end more than ``allowed_days`` behind the last measured value.

    The last measured value is the newest slot of the channel, up to the end of the day, that is measured or edited (condition from
    500000) or an outage; without any it is where the channel begins. Late data move it forward only. Place the rule behind all
    estimations. The finding covers the slots estimated; they do not become suspect.
    Source: prolonged estimation check of the domain; statutory limits on estimates in a row are set by ``allowed_days``.
    """
    none = np.zeros(0, np.int64)
    estimated = (batch.conditions >= conditions.EST_FLAT - 10_000) & (batch.conditions < conditions.SUSPECT)
    rows = np.flatnonzero(estimated.any(axis=1))
    if batch.past is None or not len(rows):
        return Findings("prolonged-estimation", none, none, none, none, str)
    last = batch.past.measured(rows)
    end = batch.start[rows] + batch.counts[rows] * batch.seconds
    hit = np.flatnonzero(last + rule.allowed_days * _DAY < end)
    rows, last, end = rows[hit], last[hit], end[hit]
    part = estimated[rows]

    def say(k: int) -> str:
        days = (int(end[k]) - int(last[k])) // _DAY
        return f"estimated, and the last measured value ends {days} days before, at {iso(int(last[k]))}"

    behind = part.shape[1] - 1 - part[:, ::-1].argmax(axis=1)
    return Findings("prolonged-estimation", rows, part.sum(axis=1), part.argmax(axis=1), behind, say)
