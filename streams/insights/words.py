"""Anomalies in words a clerk understands: what was expected, what came, and in which respect."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from streams.insights import kernel

Array = npt.NDArray[Any]
FAMILIES: Final = {
    "total": (kernel.TOTAL, kernel.MEDIAN, kernel.HIGH),
    "base": (kernel.BASE, kernel.LOW, kernel.TENTH, kernel.QUARTER, kernel.BAND),
    "peak": (kernel.PEAK, kernel.CREST, kernel.TOP),
    "interval": (kernel.INTERVAL,),
    "same": (kernel.SAME,),
    "zero": (kernel.ZERO,),
    "negative": (kernel.NEGATIVE,),
    "course": (kernel.NIGHT, kernel.MORNING, kernel.DAYTIME, kernel.EVENING),
    "steps": (kernel.ROUGH, kernel.NIGHT_ROUGH, kernel.STEP),
    "unlike": (kernel.UNLIKE,),
    "displaced": (kernel.LAG,),
    "factor": (kernel.DOWN, kernel.UP, kernel.LEVEL, kernel.APART),
}
NAMES: Final = tuple(FAMILIES)
_FAMILY_OF: Final = np.array([next(k for k, parts in enumerate(FAMILIES.values()) if p in parts) for p in range(len(kernel.PARTS))])
_BLOCKS: Final = ("00:00–05:00", "05:00–10:00", "10:00–16:00", "16:00–21:00")


def by_family(parts: Array) -> Array:
    """What each family of features adds to the odds."""
    return np.bincount(_FAMILY_OF, parts, len(NAMES))


def number(value: float) -> str:
    """Three significant digits, plainly written."""
    if value == 0 or not math.isfinite(value):
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{min(digits, 6)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def clock(seconds: int) -> str:
    """A second of the day as hours and minutes."""
    return f"{seconds // 3600 % 24:02d}:{seconds % 3600 // 60:02d}"


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of a strange day: features ``x`` and what they were before (centre, lowest, highest, mean of the last days), usual
    ``level`` of a day, its values, the position of the interval furthest off and what is ``usual`` at each, and how well the last days fit
    the profile displaced or multiplied."""

    x: Array
    before: Array
    level: float
    values: Array
    at: int
    usual: Array
    fit: Array
    seconds: int
    unit: str
    lasting: bool

    def amount(self, logarithm: float) -> float:
        """Consumption of a day from its logarithm."""
        return max(0.0, math.exp(logarithm) - 0.03 * self.level)

    def _of(self, feature: int) -> tuple[float, float, float]:
        """What came, and between what it has been; of lasting changes the mean of the last days, and what was usual."""
        centre, low, high, mean = self.before[feature].tolist()
        return (mean, centre, centre) if self.lasting else (float(self.x[feature]), low, high)

    def quantity(self, subject: str, feature: int, part: float) -> str:
        """A quantity against what is usual."""
        came, low, high = (number(self.amount(value) / part) for value in self._of(feature))
        usual = low if low == high else f"{low}–{high}"
        return f"{subject} {came} {self.unit} where {usual} {self.unit} is usual{self.lately}"

    @property
    def lately(self) -> str:
        """Of lasting changes, what the figures are of."""
        return ", on average of the last days" if self.lasting else ""


def family_of(parts: Array, x: Array, before: Array, *, lasting: bool) -> str:
    """Which family to tell of: what explains itself where it was never seen so (negative, nothing, standing still), else what adds most to
    the odds. ``parts`` as from :func:`by_family`."""
    if not lasting:
        for name, feature in (("negative", kernel.NEGATIVE), ("zero", kernel.ZERO), ("same", kernel.SAME)):
            if x[feature] > before[feature, 2] + 2.0 * kernel.FLOORS[feature]:
                return name
    name = NAMES[int(parts.argmax())]
    return "total" if name == "peak" and not lasting and x[kernel.PEAK] <= before[kernel.PEAK, 2] else name


def reason(family: str, seen: Seen) -> str:
    """Why a day is strange, in one sentence without a full stop."""
    x, before, count = seen.x, seen.before, 86_400 // seen.seconds
    if family == "total":
        return seen.quantity("Day total", kernel.TOTAL, 1)
    if family == "base":
        return seen.quantity("Lowest three hours", kernel.BASE, 8)
    if family == "peak" and seen.lasting:
        return seen.quantity("Highest interval", kernel.PEAK, count)
    if family == "peak":
        most, at = number(seen.amount(before[kernel.PEAK, 2]) / count), clock(int(seen.values.argmax()) * seen.seconds)
        return f"Highest interval {number(float(seen.values.max()))} {seen.unit} at {at} where {most} {seen.unit} was the most"
    if family == "interval":
        came, usual = number(float(seen.values[seen.at])), number(float(seen.usual[seen.at]))
        return f"{came} {seen.unit} at {clock(seen.at * seen.seconds)} where {usual} {seen.unit} is usual"
    if family in ("same", "zero"):
        feature, what = (kernel.SAME, "The same value") if family == "same" else (kernel.ZERO, "Nothing")
        hours, longest = (number(math.exp(value) - 1) for value in (x[feature], before[feature, 2]))
        return f"{what} for {hours} hours where {longest} hours was the longest"
    if family == "negative":
        return f"{x[kernel.NEGATIVE]:.0%} of the day's energy is negative where {before[kernel.NEGATIVE, 0]:.0%} is usual"
    return _of_course(family, seen)


def _of_course(family: str, seen: Seen) -> str:
    """The families that compare the course of the days."""
    if family == "course":
        value = seen.before[:, 3] if seen.lasting else seen.x
        moved = np.abs(value - seen.before[:, 0])[kernel.NIGHT : kernel.EVENING + 1]
        k = int(moved.argmax())
        feature = kernel.NIGHT + k
        return f"{_BLOCKS[k]} carries {value[feature]:.0%} of the day instead of {seen.before[feature, 0]:.0%}{seen.lately}"
    if family == "steps":
        came, low, high = (number(math.exp(value)) for value in seen._of(kernel.ROUGH))
        usual = low if low == high else f"{low}–{high}"
        return f"From interval to interval consumption moves by {came} of itself where {usual} is usual{seen.lately}"
    if family == "displaced":
        lag = 2 + int(seen.fit[2 : kernel.HOURS - 1].argmax())
        way = f"{lag} hours later" if lag <= 12 else f"{24 - lag} hours earlier"
        return f"The last days fit the usual course better {way} than at their own time"
    if family == "factor":
        tried = seen.fit[kernel.HOURS :].copy()
        tried[kernel.SCALES] = -np.inf
        factor = math.exp(-kernel.LEVEL_WIDTH * (int(tried.argmax()) - kernel.SCALES))
        return f"Low, middle and high loads together: the last days look like about {number(factor)} times what is usual at each hour"
    return "The loads of the last days are unlike what this meter has at these hours"


def shape(values: Array, usual: Array) -> str:
    """Where in the day the energy went: the four hours whose share of the day has changed most; empty where nothing much has."""
    hours = np.array([part.sum() for part in np.array_split(values, 24)])
    expected = np.array([part.sum() for part in np.array_split(usual, 24)])
    total, whole = hours.sum(), expected.sum()
    if len(values) < 24 or total <= 0 or whole <= 0:
        return ""
    change = np.array([(hours[h : h + 4].sum() / total) - (expected[h : h + 4].sum() / whole) for h in range(21)])
    h = int(np.abs(change).argmax())
    if abs(change[h]) < 0.1:
        return ""
    came, was = hours[h : h + 4].sum() / total, expected[h : h + 4].sum() / whole
    return f"; {h:02d}:00–{h + 4:02d}:00 carries {came:.0%} instead of {was:.0%}"
