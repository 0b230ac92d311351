"""Exact arithmetic on millionths: divisions and roots are rounded once, half to even, never through floating point."""

from __future__ import annotations

from fractions import Fraction
from math import isqrt
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
_SAFE = 2**62


def divide(amount: int, by: int) -> int:
    """``amount / by`` rounded half to even. Raises ZeroDivisionError."""
    return round(Fraction(amount, by))


def root(amount: int, by: int = 1) -> int:
    """The square root of ``amount / by`` (0 or more), rounded to the nearest whole number."""
    low = isqrt(amount // by)
    return low + (4 * amount > (2 * low + 1) ** 2 * by)


def total(values: Array) -> int:
    """The sum of integers, however large."""
    if not len(values):
        return 0
    most = max(abs(int(values.max())), abs(int(values.min())))
    return int(values.sum()) if most < _SAFE // len(values) else sum(values.tolist())


def scale(values: Array, ratio: Fraction) -> Array:
    """Integers times a ratio, each rounded half to even. Raises OverflowError where one does not fit in 64 bits."""
    if ratio == 1 or not len(values):
        return values.astype(np.int64)
    most = max(abs(int(values.max())), abs(int(values.min())))
    if ratio.denominator == 1 and most * abs(ratio.numerator) < _SAFE:
        return values * ratio.numerator
    if most * abs(ratio.numerator) < _SAFE and ratio.denominator < _SAFE // 4:
        whole, rest = np.divmod(values * ratio.numerator, ratio.denominator)
        twice = rest * 2
        up = (twice > ratio.denominator) | ((twice == ratio.denominator) & (whole % 2 == 1))
        return np.asarray(whole + up, np.int64)
    return np.array([round(value * ratio) for value in values.tolist()], np.int64)
