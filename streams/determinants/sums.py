"""Sums of days by line: quantity and number of slots by class of condition. Whole days at once, in 64-bit integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from schemas import conditions as c
from streams.determinants.maps import Vector

Array = npt.NDArray[Any]

# Classes of conditions, worst first; an aggregate reports the bottom of its worst class. Regular, edited and verified values are
# one class: all of them are as good as measured.
BOTTOMS: Final = np.array([100, 100_000, 200_000, 300_000, 350_000, 400_000, 450_000, 500_000], np.int64)
INVALID, MISSING, GOOD = 0, 1, 7
ESTIMATED: Final = slice(3, 6)
CLASSES: Final = len(BOTTOMS)
_NOT_DUE: Final = CLASSES
_CLASS_OF: Final = np.full(8_000, _NOT_DUE, np.int64)  # by code // 100
_CLASS_OF[1:] = np.searchsorted(BOTTOMS, np.arange(1, 8_000) * 100, side="right") - 1
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
        _sum_alike(out, rows, day, codes, limits[rows], vector)
    return out


def _sum_alike(out: Sums, rows: Array, day: Array, codes: Array, limits: Array, vector: Vector) -> None:
    """Days of one vector, as matrices."""
    lowest = codes.min(axis=1).astype(np.int64)
    good = lowest >= c.REGULAR
    least = int(limits.min())
    if int(day.max()) > least or int(day.min()) < -least:
        good &= (day.max(axis=1) <= limits) & (day.min(axis=1) >= -limits)
    quantities = _by_line(day, vector, out.quantities.shape[1])
    counts = np.zeros((len(rows), *out.counts.shape[1:]), np.int64)
    counts[:, :, GOOD] = vector.slots
    poor = np.flatnonzero(~good)
    if poor.size:
        some, of_codes, bound = day[poor], codes[poor], limits[poor][:, None]
        kind = _CLASS_OF[of_codes // 100]
        beyond = (some > bound) | (some < -bound)
        kind[beyond & (kind != _NOT_DUE)] = INVALID
        quantities[poor] = _by_line(np.where((kind <= MISSING) | (kind == _NOT_DUE), 0, some), vector, out.quantities.shape[1])
        width = out.counts.shape[1]
        cells = (np.arange(len(poor))[:, None] * width + vector.lines) * (CLASSES + 1) + kind
        found = np.bincount(cells.ravel(), minlength=len(poor) * width * (CLASSES + 1))
        counts[poor] = found.reshape(len(poor), width, CLASSES + 1)[:, :, :CLASSES]
        due = np.where(beyond, np.minimum(of_codes, c.INVALID), of_codes).astype(np.int64)
        due[kind == _NOT_DUE] = np.iinfo(np.int64).max
        low = due.min(axis=1)
        lowest[poor] = np.where(low == np.iinfo(np.int64).max, 0, low)
    out.quantities[rows] = quantities
    out.counts[rows] = counts
    out.condition[rows] = lowest


def _by_line(day: Array, vector: Vector, width: int) -> Array:
    """Days (rows × slots) summed by line: first each run of neighbouring slots, then the few runs."""
    runs = np.add.reduceat(day, vector.starts, axis=1)
    out = np.zeros((len(day), width), np.int64)
    for position, line in enumerate(vector.runs.tolist()):
        out[:, line] += runs[:, position]
    return out
