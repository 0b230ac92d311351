"""Sums of days by line: quantity and number of slots by class of condition. Whole days at once, in 64-bit integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from schemas import conditions as c
from streams.determinants.kernels import BOTTOMS, CLASSES, INVALID, class_sums
from streams.determinants.maps import Vector

Array = npt.NDArray[Any]

_REPORTED: Final = BOTTOMS.copy()
_REPORTED[INVALID] = c.INVALID

MOST: Final = 10**18 - 1  # what a determinant can carry, in millionths
LONGEST_PERIOD: Final = 32 * 86_400


@dataclass(slots=True)
class Sums:
    """Of each row: ``quantities`` (× lines, millionths), ``counts`` (× lines × classes) and the lowest ``condition`` (0: nothing)."""

    quantities: Array
    counts: Array
    condition: Array

    @classmethod
    def zeros(cls, rows: int, width: int) -> Sums:
        """Sums of nothing."""
        return cls(np.zeros((rows, width), np.int64), np.zeros((rows, width, CLASSES), np.int64), np.zeros(rows, np.int64))

    def difference(self, before: Sums) -> tuple[Array, Array]:
        """What has to be added to an aggregate that holds ``before``: quantities and counts."""
        return self.quantities - before.quantities, self.counts - before.counts


def worst_of(counts: Array) -> Array:
    """The condition of aggregates from counts (… × classes): the bottom of the worst class present, 0 where there is none."""
    present = counts > 0
    return np.where(present.any(axis=-1), _REPORTED[present.argmax(axis=-1)], 0)


def limits_of(seconds: Array) -> Array:
    """The largest magnitude of one interval's value that a billing period can still add up exactly."""
    return (MOST // LONGEST_PERIOD) * seconds.astype(np.int64)


def sum_days(values: Array, conditions: Array, begins: Array, limits: Array, kinds: Array, vectors: list[Vector], width: int) -> Sums:
    """Sums of days that lie in flat columns.

    ``begins`` is where each row's slots start in ``values`` (int64 millionths) and ``conditions`` (codes), ``limits`` its largest
    magnitude, ``kinds`` the index of its vector. Values with an unusable condition, and those beyond the limit, count as invalid and
    add nothing.
    """
    out = Sums.zeros(len(begins), width)
    present, first = np.unique(kinds, return_index=True)
    for kind in present[np.argsort(first)].tolist():
        rows = np.flatnonzero(kinds == kind)
        vector = vectors[kind]
        size = len(vector.lines)
        if rows.size * size == len(values):  # one kind fills the block: no copy
            day, codes = values.reshape(-1, size), conditions.reshape(-1, size)
        else:
            cells = begins[rows][:, None] + np.arange(size)
            day, codes = values[cells], conditions[cells]
        class_sums(
            np.ascontiguousarray(day, np.int64), np.ascontiguousarray(codes, np.int32), rows, limits[rows], vector.starts, vector.runs,
            out.quantities, out.counts, out.condition,
        )  # fmt: skip
    return out
