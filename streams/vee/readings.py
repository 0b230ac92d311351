"""Missing register readings: scalar-proration between two valid ones, scalar-estimation behind the last.

Consumption is estimated first and then put back into a reading: without multipliers (they cancel out), modulo the register's range. Only
measured readings are leant on, so the outcome does not depend on the order in which they came.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Final

from schemas import conditions
from schemas.rules import METHOD
from schemas.topology.vee import RuleSettings, ScalarEstimation, ScalarProration

DAY: Final = 86_400
_AGO: Final = {"month": 30, "year": 365}


@dataclass(frozen=True, slots=True)
class Reading:
    """A reading as received: UTC second, millionths of the register's unit, condition."""

    at: int
    value: int
    condition: int

    @property
    def valid(self) -> bool:
        """Whether an estimate may lean on it."""
        return self.condition >= conditions.SUSPECT


@dataclass(frozen=True, slots=True)
class Known:
    """Of the time between two readings: how much intervals have measured, in how many seconds; before the missing one, and in all.

    Amounts are in the register's own counting, before its multiplier.
    """

    amount_before: Fraction
    seconds_before: int
    amount: Fraction
    seconds: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """What stands in for a missing reading."""

    value: int
    condition: int
    method: int


def estimates(
    readings: list[Reading], dials: int, rules: list[ScalarProration | ScalarEstimation], applies: Callable[[RuleSettings, int], bool],
    known: Callable[[int, int, int], Known | None] = lambda _, __, ___: None,
) -> dict[int, Estimate]:  # fmt: skip
    """Position → estimate for the missing ones of a register's readings, ascending in time. The first rule that can, does.

    ``dials``: integer digits of the register, 0 unknown. ``applies`` tells whether a rule holds at a time, ``known`` what
    intervals know between two valid readings, given the times of the first, the missing one and the last.
    """
    valid = [k for k, reading in enumerate(readings) if reading.valid]
    found: dict[int, Estimate] = {}
    for k, reading in enumerate(readings):
        if reading.condition >= conditions.OUTAGE or not valid:
            continue
        history = [readings[v] for v in valid if v < k]
        behind = next((readings[v] for v in valid if v > k), None)
        for rule in rules:
            if not history or not applies(rule, reading.at):
                continue
            if isinstance(rule, ScalarProration):
                value = _prorated(rule, history[-1], behind, reading.at, dials, known) if behind is not None else None
            else:
                value = _from_history(rule, history, reading.at, dials) if behind is None else None
            if value is not None:
                found[k] = Estimate(value, rule.condition, METHOD[rule.id])
                break
    return found


def advance(before: Reading, behind: Reading, dials: int, percent: int) -> int | None:
    """By how much a register went on between two readings, rollover taken out; None where it fell further than that explains."""
    raw = behind.value - before.value
    if raw >= 0:
        return raw
    span = 10 ** (dials + 6)
    return raw + span if dials and 0 <= (raw + span) * 100 <= span * percent else None


def _prorated(
    rule: ScalarProration, before: Reading, behind: Reading, at: int, dials: int, known: Callable[[int, int, int], Known | None]
) -> int | None:
    """A reading between two valid ones L and R by time: L + k + (R - L - K) · (t - t_L - u) / (t_R - t_L - U), rounded half to even.

    K is what the intervals that the register checks have measured between L and R, in U seconds; k and u are their parts before t. All
    are 0 without such intervals. So 150 kWh in 72 hours, of which intervals know 100 kWh in 24 hours, leave (150 - 100) / 48 · 24 = 25
    kWh for another 24 hours. Days between of which nothing came know nothing. Where the interval channel does not reach from L to R
    (nothing at or before L, or up to R), or its intervals hold more than the register, it is by time alone, with the same method and
    condition.

    R - L is taken across a rollover where the register can have rolled over, and the outcome is put back into the register's range.
    The readings must lie within ``max_span_days``.
    Source: scalar proration of the domain.
    """
    if behind.at - before.at > rule.max_span_days * DAY:
        return None
    used = advance(before, behind, dials, rule.rollover_percent)
    if used is None:
        return None
    some = known(before.at, at, behind.at) if rule.related_condition is not None else None
    if some is None or not 0 <= some.amount <= used or some.seconds >= behind.at - before.at:
        some = Known(Fraction(0), 0, Fraction(0), 0)
    rate = (used - some.amount) / (behind.at - before.at - some.seconds)
    return _reading(before, round(some.amount_before + rate * (at - before.at - some.seconds_before)), dials)


def _from_history(rule: ScalarEstimation, history: list[Reading], at: int, dials: int) -> int | None:
    """A reading behind the last valid one L, by the rate of the channel's past: L + c · (t - t_L) / d.

    c is what the register went on over d seconds between the first and last reading of the first history that has ``min_days``: a year
    or a month before, around the same span with ``window_days`` to spare, or all that is known before. Not further ahead than
    ``max_ahead_days``. Source: scalar estimation of the domain.
    """
    last = history[-1]
    ahead = at - last.at
    if ahead > rule.max_ahead_days * DAY:
        return None
    for which in rule.history:
        if which == "before":
            some = history
        else:
            back, window = _AGO[which] * DAY, rule.window_days * DAY
            some = [r for r in history if last.at - back - window <= r.at <= at - back + window]
        if len(some) < 2 or some[-1].at - some[0].at < rule.min_days * DAY:
            continue
        steps = [advance(a, b, dials, rule.rollover_percent) for a, b in pairwise(some)]
        if any(step is None for step in steps):
            continue
        used = sum(step for step in steps if step is not None)
        return _reading(last, round(Fraction(used * ahead, some[-1].at - some[0].at)), dials)
    return None


def _reading(before: Reading, used: int, dials: int) -> int:
    value = before.value + used
    return value % 10 ** (dials + 6) if dials else value
