"""interval-adjustment-from-scalar: estimates between two register readings sum up to what the register says."""

from __future__ import annotations

import numpy as np

from schemas import conditions
from schemas.quantity import text_of
from schemas.rules import METHOD
from schemas.topology.vee import IntervalAdjustmentFromScalar
from streams.vee.batch import FIRST_NEIGHBOUR, FIRST_VALUE, DayBatch, Findings, Ints, Mask
from streams.vee.stretches import Checks, step_of

_NAME = "interval-adjustment-from-scalar"


def interval_adjustment_from_scalar(batch: DayBatch, rule: IntervalAdjustmentFromScalar, wanted: Mask) -> Findings | None:
    """Per pair of neighbouring readings: v' = v · (S - known) / sum(v) over what is scaled, rounded so that the sum is exact.

    S is the register's difference (rollover and multiplier first), known what is not scaled. ``estimates`` scales what this hub estimated
    and fills what is still missing with the mean of these; ``all`` scales everything but outages and edits. Where all is zero, S is
    spread evenly.
    A target below zero or a factor above the limit is not applied but told, unless register and intervals agree within their
    resolution. Outage intervals stay as they are. Sources: Oracle D2-INTADJSCA; largest remainder.
    """
    checks = batch.checks
    if checks is None:
        return None
    told: list[tuple[int, int, int, int, str]] = []
    for number in _concerned(batch, checks, rule, wanted):
        complaint = _adjust(batch, checks, rule, number)
        if complaint:
            row, slot = checks.cells(number)
            last = int(checks.last[number])
            own = slot[row == last]
            told.append((last, len(slot), int(own[0]), int(own[-1]), complaint))
            batch.refused.add(number)
    if not told:
        return None
    told.sort()
    kept = {entry[0]: entry for entry in told}  # one finding a day; the last says it
    rows, counts, firsts, lasts = (np.array([e[k] for e in kept.values()], np.int64) for k in range(4))
    words = [e[4] for e in kept.values()]
    return Findings(_NAME, rows, counts, firsts, lasts, lambda k: words[k])


def _concerned(batch: DayBatch, checks: Checks, rule: IntervalAdjustmentFromScalar, wanted: Mask) -> list[int]:
    """Spans with all their days, all due, and something to scale."""
    real = checks.complete & ~checks.spans.broken
    real[checks.span[~wanted[checks.row]]] = False
    near = checks.spans.end - checks.spans.start <= rule.max_span_days * 86_400
    length = (checks.spans.end - checks.spans.start) // batch.seconds
    rows = np.unique(checks.row)
    some = np.zeros(batch.values.shape, np.bool_)
    some[rows] = _scaled(batch, rule, rows)
    due = checks.sums(batch.due) == length
    hit = checks.sums(some) > 0
    found = np.flatnonzero(real & near & due & hit)
    bare = some.any(axis=1)
    batch.leaning |= bare
    return [int(number) for number in found.tolist()]


def _scaled(batch: DayBatch, rule: IntervalAdjustmentFromScalar, rows: Ints) -> Mask:
    codes = batch.conditions[rows]
    vacant = (codes < FIRST_VALUE) & batch.due[rows]
    if rule.adjust == "all":
        return np.asarray(vacant | ((codes >= FIRST_NEIGHBOUR) & (codes < conditions.USER_EDIT)))
    return np.asarray(vacant | (batch.methods[rows] > 0) & (codes >= FIRST_NEIGHBOUR) & (codes < conditions.EXT_ESTIMATE))


def _adjust(batch: DayBatch, checks: Checks, rule: IntervalAdjustmentFromScalar, number: int) -> str:
    """Scales one span; returns what is wrong where it cannot be."""
    row, slot = checks.cells(number)
    values, codes = batch.values[row, slot], batch.conditions[row, slot]
    days, where = np.unique(row, return_inverse=True)
    scaled = _scaled(batch, rule, days)[where, slot]
    known = sum(values[~scaled].tolist())
    says = int(checks.spans.quantity[number])
    target = says - known
    vacant = scaled & (codes < FIRST_VALUE)
    weights = _weights(values[scaled], vacant[scaled])
    total = int(np.maximum(values[scaled & ~vacant], 0).sum(dtype=object))
    slack = 2 * int(checks.spans.step[number]) + len(values) * step_of(values) // 2
    row0 = int(checks.last[number])
    allowed = bool(batch.attributes.allow_negative[row0])
    if target < 0 and not allowed:
        if -target <= slack:
            return ""
        more, less = batch.amount(row0, known), batch.amount(row0, says)
        return f"measured intervals hold {more}, the register says {less} in the same time"
    if not vacant.any() and total > 0 and target > rule.max_factor * total:
        if target - total <= slack:
            return ""
        return f"estimates would have to be multiplied by {text_of(target * 1_000_000 // total)} to reach {batch.amount(row0, says)}"
    batch.values[row[scaled], slot[scaled]] = apportion(target, weights)
    batch.conditions[row[scaled], slot[scaled]] = rule.condition
    batch.methods[row[scaled], slot[scaled]] = METHOD[_NAME]
    batch.edited[days] = True
    return ""


def _weights(values: Ints, vacant: Mask) -> list[int]:
    """By what the target is divided: the estimates; what is missing counts like their mean."""
    estimates = [max(0, v) for v in values[~vacant].tolist()]
    mean = sum(estimates) // len(estimates) if estimates else 0
    shape = np.zeros(len(values), object)
    shape[~vacant] = estimates
    shape[vacant] = mean
    found = [int(v) for v in shape.tolist()]
    return found if sum(found) else [1] * len(found)


def apportion(target: int, weights: list[int]) -> Ints:
    """A whole amount divided in proportion to weights: each gets its whole part, the rest goes to the largest remainders, earlier first."""
    total = sum(weights)
    shares = [divmod(target * weight, total) for weight in weights]
    rest = target - sum(share for share, _ in shares)
    order = sorted(range(len(weights)), key=lambda k: (-shares[k][1], k))
    values = [share for share, _ in shares]
    for k in order[:rest]:
        values[k] += 1
    return np.array(values, np.int64)
