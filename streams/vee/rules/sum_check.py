"""sum-check: intervals against the register."""

from __future__ import annotations

import numpy as np

from schemas.rules import METHOD
from schemas.topology.vee import SumCheck
from streams.vee.batch import FIRST_VALUE, DayBatch, Findings
from streams.vee.rules.totals import CEILING
from streams.vee.stretches import step_of

_SCALED = METHOD["interval-adjustment-from-scalar"]


def sum_check(batch: DayBatch, rule: SumCheck) -> Findings:
    """Per pair of neighbouring readings: |sum of intervals - S| above the tolerance, S being the register's difference.

    The tolerance is the larger of ``tolerance_percent`` of S, and ``tolerance`` plus two steps of the register (each reading is cut off)
    plus half a step for every interval (each is rounded). Told on the day in which the later reading ends. Not judged: spans
    with intervals scaled from the same register, with a falling register, with units of another dimension, and (``missing: skip``) those
    where an interval has no value. Source: Oracle D2-SUM-CHK.
    """
    checks = batch.checks
    empty = np.zeros(0, np.int64)
    none = Findings("sum-check", empty, empty, empty, empty, lambda _: "")
    if checks is None:
        return none
    spans = checks.spans
    length = (spans.end - spans.start) // batch.seconds
    judged = checks.complete & ~spans.broken & (spans.end - spans.start <= rule.max_span_days * 86_400)
    judged &= checks.sums(batch.due) == length
    judged &= checks.sums(batch.methods == _SCALED) == 0
    if batch.refused:
        judged[sorted(batch.refused)] = False
    usable = checks.sums(batch.conditions >= FIRST_VALUE) == length
    totals = checks.sums(batch.values.clip(-CEILING, CEILING))
    apart = np.abs(totals - spans.quantity)
    limit = np.maximum((np.abs(spans.quantity) * (rule.tolerance_percent / 100)).astype(np.int64), 0)
    steps = spans.step if rule.resolution is None else np.full(len(spans), rule.resolution)
    suspects = np.flatnonzero(judged & usable & (apart > np.maximum(limit, rule.tolerance + 2 * steps)))
    wrong: dict[int, tuple[int, str]] = {}
    for k in suspects.tolist():
        row, slot = checks.cells(k)
        allowed = rule.tolerance + 2 * int(steps[k]) + len(slot) * step_of(batch.values[row, slot]) // 2
        if apart[k] > max(allowed, int(limit[k])):
            last = int(checks.last[k])
            has, says = batch.amount(last, int(totals[k])), batch.amount(last, int(spans.quantity[k]))
            wrong[last] = (len(slot), f"{len(slot)} intervals hold {has}, the register says {says}")
    if rule.missing == "exception":
        for k in np.flatnonzero(judged & ~usable).tolist():
            wrong.setdefault(int(checks.last[k]), (int(length[k]), "intervals between two readings have no value"))
    if not wrong:
        return none
    rows = np.array(sorted(wrong), np.int64)
    counts = np.array([wrong[row][0] for row in rows.tolist()], np.int64)
    words = [wrong[row][1] for row in rows.tolist()]
    return Findings("sum-check", rows, counts, np.zeros(len(rows), np.int64), batch.counts[rows].astype(np.int64) - 1, lambda k: words[k])
