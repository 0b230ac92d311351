"""The forests that turn a channel-day into odds: read from ``forest.npz`` beside this file, which ``benchmarks/insights_fit.py`` writes.

A forest is arrays of nodes: the input a node asks about (-1: a leaf), the threshold, the nodes left (not above it) and right, and the
value of every node. Roots of the two forests (acute, lasting) are lists of nodes; ``limits`` are the odds that score 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from streams.insights import kernel

Array = npt.NDArray[Any]
FILE: Final = Path(__file__).with_name("forest.npz")


@dataclass(frozen=True, slots=True, eq=False)
class Forest:
    """Both forests and their limits."""

    acute: Array
    lasting: Array
    feature: Array
    threshold: Array
    left: Array
    right: Array
    value: Array
    limits: Array

    @classmethod
    def blank(cls) -> Forest:
        """One that finds nothing."""
        none, one = np.zeros(0, np.int32), np.zeros(1, np.int32)
        return cls(none, none, one - 1, np.zeros(1), one, one, np.zeros(1), np.full(2, np.inf))

    def parts(self, q: Array, which: int) -> Array:
        """What each part of a day (:data:`kernel.PARTS`) adds to its odds: along the way down each tree, what each question changed."""
        found: Array = np.zeros(len(kernel.PARTS))
        roots = (self.acute, self.lasting)[which]
        kernel.parts_of(q, roots, self.feature, self.threshold, self.left, self.right, self.value, found)
        return found


@cache
def forest() -> Forest:
    """The forest that comes with the hub."""
    with np.load(FILE) as kept:
        return Forest(**{name: kept[name] for name in Forest.__slots__})
