"""Compiled sums by time-of-use line. One pass over values and conditions, in 64-bit integers."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numba import njit

from schemas import conditions as c

Array = npt.NDArray[Any]
_USABLE: Final = c.OUTAGE
_GOOD: Final = c.REGULAR


@njit("Tuple((int64[:], int64[:]))(int64[:], int32[:], int64[:], int64)", cache=True, nogil=True)
def _line_sums(values: Array, conditions: Array, lines: Array, width: int) -> Any:
    sums, due = np.zeros(width, np.int64), np.zeros(width, np.int64)
    for i in range(len(values)):
        code = conditions[i]
        if code > 0:
            due[lines[i]] += 1
            if code >= _USABLE:
                sums[lines[i]] += values[i]
    return sums, due


def line_sums(values: Array, conditions: Array, lines: Array, width: int) -> tuple[Array, Array]:
    """Sums of usable values (int64) and number of due slots by line, of one long row of intervals."""
    found: tuple[Array, Array] = _line_sums(
        np.ascontiguousarray(values, np.int64), np.ascontiguousarray(conditions, np.int32), np.ascontiguousarray(lines, np.int64), width
    )
    return found


def warm() -> None:
    """Loads or compiles the kernels."""
    line_sums(np.zeros(1, np.int64), np.zeros(1, np.int32), np.zeros(1, np.int64), 1)
