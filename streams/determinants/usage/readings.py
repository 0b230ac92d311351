"""Register readings of a period: begin and end, consumption over rollovers, exchanges and changed multipliers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from schemas import conditions as c
from schemas.quantity import MICRO
from streams.determinants.registers import Reading, consumption
from streams.determinants.sums import MOST
from streams.determinants.usage.curve import Quality
from streams.determinants.usage.exact import divide


@dataclass(frozen=True, slots=True)
class Read:
    """One reading of a register: UTC second, millionths, condition, and the multiplier (millionths) it came under."""

    at: int
    value: int
    condition: int
    multiplier: int = MICRO


@dataclass(frozen=True, slots=True)
class Details:
    """What a register did in a period. ``base`` or ``end`` is None where there is no reading to begin or end with."""

    base: Read | None
    end: Read | None
    amount: int
    quality: Quality


def scalar_details(reads: Sequence[Read], begin: int, end: int, dials: int, percent: int) -> Details:
    """Begin reading, end reading and consumption of each register.

    Formula: the sum over neighbouring readings of ``(R_j − R_{j−1}) · multiplier_j``, from the last reading at or before the begin (else
    the first behind it) to the last at or before the end; a difference below zero is a rollover of ``10^dials`` if the register then
    advanced by at most ``rollover_percent`` of its range.

    Edge cases: each difference has the multiplier of its end reading, so a changed transformer splits at the reading taken then. A
    meter exchange gives two registers, whose consumption the rule adds. Readings that are missing or invalid are left out. A register
    that went back further is broken: the amount is invalid. Rounded once per multiplier.

    Source: Oracle Utilities MDM, rule *Get Scalar Details*; rollover by number of dials.
    """
    usable = [read for read in reads if read.condition >= c.OUTAGE and read.at <= end]
    base = max((read for read in usable if read.at <= begin), key=lambda read: read.at, default=None)
    inside = [read for read in usable if begin < read.at]
    base = base or (inside[0] if inside else None)
    if base is None:
        return Details(None, None, 0, Quality(c.MISSING, 2, 0, 0))
    chain = [base, *(read for read in inside if read.at > base.at)]
    if len(chain) < 2:
        return Details(base, None, 0, Quality(c.MISSING, 2, 0, 0))
    raw: dict[int, int] = {}
    broken = False
    for a, b in pairwise(chain):
        step = consumption(Reading(a.at, a.value, a.condition), Reading(b.at, b.value, b.condition), dials, 0, percent)
        broken |= step.broken
        raw[b.multiplier or MICRO] = raw.get(b.multiplier or MICRO, 0) + step.quantity
    amount = sum(divide(value * multiplier, MICRO) for multiplier, value in raw.items())
    ends = (base.condition, chain[-1].condition)
    quality = Quality(
        c.INVALID if broken or abs(amount) > MOST else min(min(ends), c.REGULAR) if min(ends) >= c.REGULAR else min(ends),
        2,
        sum(x >= c.REGULAR for x in ends),
        sum(300_000 <= x < c.SUSPECT for x in ends),
    )
    return Details(base, chain[-1], 0 if quality.condition == c.INVALID else amount, quality)


def daily_scalar(reads: Sequence[Read], begin: int, end: int, dials: int, percent: int) -> Details:
    """Consumption of daily registers as the difference of the first and the last reading.

    Formula: ``(R_end − R_begin) · multiplier``, with the readings taken at the period's begin and end themselves (the nearest inside a
    day); readings between are ignored.

    Edge cases: it never estimates: where either reading is not measured or not there, there is no quantity (condition missing) and a
    later rule may answer. Rollover as in `scalar-details`.

    Source: Oracle Utilities MDM, rule *Daily Scalar* (D2-GETFRESCR).
    """
    measured = [read for read in reads if read.condition >= c.REGULAR]
    base = min((r for r in measured if abs(r.at - begin) < 86_400 and r.at < end), key=lambda r: abs(r.at - begin), default=None)
    last = min((r for r in measured if abs(r.at - end) < 86_400 and r.at > begin), key=lambda r: abs(r.at - end), default=None)
    if base is None or last is None or last.at <= base.at:
        return Details(base, last, 0, Quality(c.MISSING, 2, sum(r is not None for r in (base, last)), 0))
    return scalar_details([base, last], base.at, last.at, dials, percent)


def subtractive_interval_details(reads: Sequence[Read], begin: int, end: int) -> tuple[Read | None, Read | None]:
    """The readings of the register beside an interval channel at the period's begin and end, for the bill to show.

    Formula: last reading at or before the begin, last at or before the end; the consumption told with them is the sum of the
    intervals, not their difference.

    Edge cases: without a reading there is none to show; the consumption stands. Missing and invalid readings are left out.

    Source: Oracle Utilities MDM, rule *Get Subtractive Interval Details*.
    """
    usable = [read for read in reads if read.condition >= c.OUTAGE]

    def at(moment: int) -> Read | None:
        return max((read for read in usable if read.at <= moment), key=lambda read: read.at, default=None)

    return at(begin), at(end)
