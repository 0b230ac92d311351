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


@njit("void(int64[:, :], int32[:, :], int64[:], int64[:], int64[:, :], int32[:, :], int32[:, :])", cache=True, nogil=True)
def day_sums(values: Array, conditions: Array, starts: Array, runs: Array, sums: Array, good: Array, due: Array) -> None:
    """Sums of whole days by line: rows × slots into rows × lines of ``sums``, measured (``good``) and due slots, which begin as zeros.

    ``starts`` are the first slots of runs of equal lines, ``runs`` the line of each (streams.determinants.maps.Vector).
    """
    slots, parts = values.shape[1], len(starts)
    for row in range(values.shape[0]):
        for part in range(parts):
            end = starts[part + 1] if part + 1 < parts else slots
            amount, actual, all_ = 0, 0, 0
            for slot in range(starts[part], end):
                code = conditions[row, slot]
                amount += values[row, slot] if code >= _USABLE else 0
                actual += code >= _GOOD
                all_ += code > 0
            line = runs[part]
            sums[row, line] += amount
            good[row, line] += actual
            due[row, line] += all_


@njit(
    "void(int64[:], int64[:], int64[:], int32[:], int64[:, :], int32[:, :], int64[:], int64[:, :], int32[:, :], int32[:, :])",
    cache=True,
    nogil=True,
)
def correct_sums(
    rows: Array,
    slots: Array,
    fresh: Array,
    codes: Array,
    values: Array,
    conditions: Array,
    lines: Array,
    sums: Array,
    good: Array,
    due: Array,
) -> None:
    """Corrects single reads: adds the difference of each to its row's line and takes it over into ``values`` and ``conditions``."""
    for k in range(len(rows)):
        row, slot = rows[k], slots[k]
        line, code, was = lines[slot], codes[k], conditions[row, slot]
        sums[row, line] += (fresh[k] if code >= _USABLE else 0) - (values[row, slot] if was >= _USABLE else 0)
        good[row, line] += (code >= _GOOD) - (was >= _GOOD)
        due[row, line] += (code > 0) - (was > 0)
        values[row, slot], conditions[row, slot] = fresh[k], code


def warm() -> None:
    """Loads or compiles the kernels."""
    line_sums(np.zeros(1, np.int64), np.zeros(1, np.int32), np.zeros(1, np.int64), 1)
