"""Distinct numbers, by sorting: several times faster than NumPy's hashing for the few thousand rows of a block."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def rising(values: Array) -> bool:
    """Whether each value is larger than the one before it."""
    return bool((values[1:] > values[:-1]).all())


def distinct(values: Array) -> Array:
    """The distinct values of a one-dimensional array in order; possibly the array itself."""
    if len(values) < 2 or rising(values):
        return values
    ordered = np.sort(values)
    fresh = np.empty(len(ordered), np.bool_)
    fresh[0] = True
    np.not_equal(ordered[1:], ordered[:-1], out=fresh[1:])
    return ordered[fresh]
