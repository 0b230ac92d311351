"""Curves: the intervals of one channel (or of a formula over channels) in a period, with the quality of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from schemas import conditions as c
from schemas.units import resolve
from streams.determinants.kernels import BOTTOMS
from streams.determinants.sums import MOST
from streams.determinants.usage.exact import scale, total

Array = npt.NDArray[Any]
_ESTIMATES: Final = (300_000, c.SUSPECT)
_REPORTED: Final = np.concatenate([[c.INVALID], BOTTOMS[1:]])


@dataclass(frozen=True, slots=True)
class Quality:
    """Of what a quantity was made: the lowest condition class, and how many parts were due, measured, estimated."""

    condition: int = 0
    slots: int = 0
    actual: int = 0
    estimated: int = 0

    @classmethod
    def of(cls, conditions: Array) -> Quality:
        """The quality of parts by their conditions; 0 is not due."""
        due = conditions[conditions > c.NOT_RECEIVED]
        if not len(due):
            return cls()
        low = int(_REPORTED[int(np.searchsorted(BOTTOMS, int(due.min()), side="right")) - 1])
        estimated = (due >= _ESTIMATES[0]) & (due < _ESTIMATES[1])
        return cls(low, len(due), int((due >= c.REGULAR).sum()), int(estimated.sum()))

    def with_(self, other: Quality) -> Quality:
        """The quality of both together: the worse condition, and the parts of the one with more of them."""
        known = [q.condition for q in (self, other) if q.condition]
        more = max((self, other), key=lambda q: q.slots)
        return Quality(min(known, default=0), more.slots, min(self.actual, other.actual), max(self.estimated, other.estimated))


@dataclass(frozen=True, slots=True)
class Quantity:
    """A service quantity: what a rule found. ``amount`` in millionths of ``unit``; ``at`` is a UTC second, 0 where it has no moment."""

    name: str
    kind: str
    unit: str
    amount: int
    quality: Quality
    tou: str = ""
    at: int = 0
    device: str = ""
    channel: str = ""

    @property
    def sound(self) -> bool:
        """Whether it can be billed at all: the amount fits a record, and nothing it is made of is missing or invalid."""
        return abs(self.amount) <= MOST and self.quality.condition >= c.OUTAGE


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Intervals one after the other from UTC second ``start``; a value without a usable condition is 0."""

    start: int
    seconds: int
    unit: str
    values: Array  # int64, millionths
    conditions: Array  # int32 codes; 0: nothing due

    def __len__(self) -> int:
        return len(self.values)

    @property
    def end(self) -> int:
        """The UTC second behind the last interval."""
        return self.start + len(self) * self.seconds

    @property
    def times(self) -> Array:
        """UTC second at which each interval begins."""
        return self.start + np.arange(len(self), dtype=np.int64) * self.seconds

    @property
    def usable(self) -> Array:
        """Which intervals have a value."""
        return self.conditions >= c.OUTAGE

    @property
    def quality(self) -> Quality:
        """The quality of all intervals together."""
        return Quality.of(self.conditions)

    @property
    def amount(self) -> int:
        """The sum of all values."""
        return total(self.values)

    def part(self, begin: int, end: int) -> Curve:
        """The intervals that begin in [begin, end)."""
        first = max(0, -(-(begin - self.start) // self.seconds))
        last = max(first, min(len(self), -(-(end - self.start) // self.seconds)))
        return replace(
            self, start=self.start + first * self.seconds, values=self.values[first:last], conditions=self.conditions[first:last]
        )

    def every(self, seconds: int) -> Curve:
        """In longer intervals, each the sum of those inside and of their worst condition; an incomplete one at the end is left out.

        Intervals begin where the curve begins. Raises ValueError where ``seconds`` is no multiple.
        """
        many, rest = divmod(seconds, self.seconds)
        if rest or not many:
            raise ValueError(f"intervals of {self.seconds} s do not add up to {seconds} s")
        if many == 1:
            return self
        size = len(self) // many
        values = self.values[: size * many].reshape(size, many)
        codes = self.conditions[: size * many].reshape(size, many)
        worst = np.where(codes > 0, codes, np.iinfo(np.int32).max).min(axis=1)
        worst = np.where((codes > 0).all(axis=1), worst, np.where((codes > 0).any(axis=1), c.MISSING, c.NOT_RECEIVED))
        return replace(self, seconds=seconds, values=values.sum(axis=1), conditions=worst.astype(np.int32))

    def in_unit(self, unit: str) -> Curve:
        """In another unit of the same dimension, each value rounded half to even. Raises ValueError across dimensions."""
        return self if resolve(unit) == resolve(self.unit) else replace(self, unit=unit, values=scale(self.values, ratio(self.unit, unit)))


def ratio(source: str, target: str) -> Fraction:
    """What a number in one unit is multiplied by to be in another. Raises ValueError across dimensions."""
    a, b = resolve(source), resolve(target)
    if a.dimension != b.dimension:
        raise ValueError(f"{source} does not convert to {target}")
    return a.ratio / b.ratio


def alike(curves: Sequence[Curve]) -> list[Curve]:
    """Curves brought to one grid: the longest interval length among them, from the latest start to the earliest end.

    Raises ValueError where their intervals do not fit into each other.
    """
    seconds = max(curve.seconds for curve in curves)
    start, end = max(curve.start for curve in curves), min(curve.end for curve in curves)
    cut = [curve.part(start, end).every(seconds) for curve in curves]
    if len({(curve.start, len(curve)) for curve in cut}) > 1:
        raise ValueError("the intervals of the channels do not lie on one grid")
    return cut


def added(curves: Sequence[Curve], unit: str) -> Curve:
    """The sum of curves, interval by interval, each interval in the worst of its conditions."""
    cut = alike([curve.in_unit(unit) for curve in curves])
    return replace(
        cut[0], unit=unit, values=np.asarray(np.sum([curve.values for curve in cut], axis=0, dtype=np.int64)), conditions=worst(cut)
    )


def worst(curves: Sequence[Curve]) -> Array:
    """The worst condition of each interval; where one of the curves has nothing due and another has, it is missing."""
    codes = np.stack([curve.conditions for curve in curves])
    none, some = (codes == 0).any(axis=0), (codes > 0).any(axis=0)
    low = np.where(codes > 0, codes, np.iinfo(np.int32).max).min(axis=0)
    return np.where(none & some, np.minimum(low, c.MISSING), np.where(some, low, 0)).astype(np.int32)
