"""Money as whole numbers: amounts in the currency's smallest unit, exact charges in its 10⁻¹², and how the two meet.

A quantity (millionths of a unit) times a rate (millionths of the smallest unit per unit) is a whole number of 10⁻¹² of the smallest
unit, so charges add up without any rounding. Only what is posted is rounded, once.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

EXACT: Final = 10**12  # parts of the smallest unit in which charges are exact
PARTS: Final = 10**8  # a percentage counts in so many parts of one


def divide(numerator: int, denominator: int) -> int:
    """The quotient rounded half to even, for any signs; the denominator is positive."""
    whole, rest = divmod(numerator, denominator)
    twice = 2 * rest
    return whole + (twice > denominator or (twice == denominator and whole % 2 == 1))


def rounded(exact: int) -> int:
    """An exact charge (10⁻¹² of the smallest unit) as an amount, half to even."""
    return divide(exact, EXACT)


def share(percent: str) -> int:
    """A percentage as whole parts of ``PARTS``: ``"20"`` is 20 000 000. Digits beyond the sixth decimal are rounded half to even."""
    return round(Decimal(percent).scaleb(6))


def part_of(exact: int, parts: int) -> int:
    """A share of an exact charge, rounded to its last digit."""
    return divide(exact * parts, PARTS)


def apportion(total: int, weights: Sequence[int]) -> list[int]:
    """An amount split by weights to the last unit, by largest remainder; ties go to the earlier part.

    Weights are not negative; where all are zero, the first part takes all. The parts always add up to the total.
    """
    if not weights:
        return []
    whole = sum(weights)
    if whole == 0:
        return [total, *[0] * (len(weights) - 1)]
    sign, magnitude = (-1, -total) if total < 0 else (1, total)
    parts, rests = [], []
    for position, weight in enumerate(weights):
        part, rest = divmod(magnitude * weight, whole)
        parts.append(part)
        rests.append((-rest, position))
    for _, position in sorted(rests)[: magnitude - sum(parts)]:
        parts[position] += 1
    return [sign * part for part in parts]
