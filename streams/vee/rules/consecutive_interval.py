"""consecutive-interval: unbroken runs of intervals alike, over any number of days."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from schemas import conditions
from schemas.block import DIRECTIONS
from schemas.quantity import text_of
from schemas.topology.base import duration_text
from schemas.topology.vee import ConsecutiveInterval
from streams.vee.batch import Array, DayBatch, Findings, Ints, Mask

_SIGNS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "=": operator.eq, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


def fits(rule: ConsecutiveInterval, values: Ints, codes: Array, step: int = 1) -> Mask:
    """Which slots fit the rule's tests; ``codes`` are conditions divided by ``step``."""
    by_band: Mask | None = None
    if rule.bands:
        by_band = np.zeros(codes.shape, np.bool_)
        for band in conditions.RANGES:
            if band.name in rule.bands:
                by_band |= (codes >= -(-band.bottom // step)) & (codes <= band.top // step)
    if rule.test is None:
        assert by_band is not None
        return by_band
    sign, amount = rule.test
    by_value: Mask = _SIGNS[sign](values, amount) & (codes >= conditions.OUTAGE // step)
    if by_band is None:
        return by_value
    return by_value & by_band if rule.combine == "and" else by_value | by_band


def consecutive_interval(batch: DayBatch, rule: ConsecutiveInterval) -> Findings:
    """Days (M) on which an unbroken run of fitting slots gets as long as ``min_run``, by elapsed time.

    A run goes on over midnights: the days before are looked at as they were received, and of those that left the state the length of
    the run is kept. A day without reads or a missing value breaks it, unless
    the rule tests for that. A run is told once, on the day it gets long enough, or on each further day too (``each_day``).
    Without ``look_back`` runs are those of the day. The value is compared in the unit of the channel. Values of unusable
    condition fit no value test. Runs are not known for days before the channel's first read.
    Source: consecutive interval check of the domain; elapsed time in place of a number of rows, so that it holds for all lengths.
    """
    match = fits(rule, batch.values, batch.conditions)
    match &= np.arange(match.shape[1]) < batch.counts[:, None]
    judged = batch.attributes.quantity_in(rule.quantities)
    if rule.exempt_directions:
        judged &= ~np.isin(batch.attributes.direction, [DIRECTIONS.index(name) for name in rule.exempt_directions])
    least = -(-rule.min_run // batch.seconds)
    entering = np.zeros(len(batch), np.int64)
    if rule.look_back and batch.past is not None:
        entering = batch.past.entering(match, rule, lambda values, codes: fits(rule, values, codes, 100))
    possible = judged & (match.sum(axis=1) + entering >= least) & match.any(axis=1)
    rows = np.flatnonzero(possible)
    row, first, size = runs(match[rows])
    row = rows[row]
    before = np.where(first == 0, entering[row], 0)
    long = (before + size >= least) & ((before < least) | rule.each_day)
    row, first, size, before = row[long], first[long], size[long], before[long]
    hit, at = np.unique(row, return_index=True)
    if not len(hit):
        none = np.zeros(0, np.int64)
        return Findings("consecutive-interval", none, none, none, none, str)
    last = np.maximum.reduceat(first + size - 1, at)
    count = np.add.reduceat(size + before, at)
    cell = np.arange(int(size.sum())) - np.repeat(np.cumsum(size) - size, size)

    def say(k: int) -> str:
        begin = int(batch.start[hit[k]]) + int(first[at[k]] - before[at[k]]) * batch.seconds
        length = duration_text(int(size[at[k]] + before[at[k]]) * batch.seconds)
        since = batch.moment(int(hit[k]), (begin - int(batch.start[hit[k]])) // batch.seconds)
        return f"{_words(rule, batch.attributes.unit_names[batch.attributes.unit[hit[k]]])} for {length}, since {since}"

    return Findings("consecutive-interval", hit, count, first[at], last, say, failed=(np.repeat(row, size), np.repeat(first, size) + cell))


def _words(rule: ConsecutiveInterval, unit: str) -> str:
    parts = []
    if rule.test:
        sign, amount = rule.test
        parts.append("zero" if (sign, amount) == ("=", 0) else f"{sign} {text_of(amount)} {unit}")
    if rule.bands:
        parts.append(" or ".join(rule.bands))
    return f" {rule.combine} ".join(parts)


def runs(mask: Mask) -> tuple[Ints, Ints, Ints]:
    """Row, first column and length of each maximal run of True."""
    padded = np.zeros((mask.shape[0], mask.shape[1] + 2), np.int8)
    padded[:, 1:-1] = mask
    change = np.diff(padded, axis=1)
    row, first = np.nonzero(change == 1)
    return row, first, np.nonzero(change == -1)[1] - first
