"""What meters alike have in common: models of a segment (unit, interval length, direction, size), by which new channels are judged.

A segment standardises the shape of a day online (median and spread of level-free features), watches with ADWIN whether its meters
drift as a whole, and keeps river's half-space trees over the standardised features. Everything is checkpointed as plain numbers: the trees
by the masses of their nodes (their shape follows from the seed), ADWIN by the values it has seen since it began, at most
``WINDOW`` of them.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from streams.insights import kernel
from streams.runtime.state import State

Array = npt.NDArray[Any]

NAMES: Final = ("base", "peak", "same", "zero", "negative", "night", "shape")
_SIDES: Final = np.array([0, 0, 1, 1, 1, 0, 1])
_FLOORS: Final = np.array([0.2, 0.2, 0.3, 0.4, 0.005, 0.05, 0.05])
TREES, HEIGHT, MASSES, SEED = 5, 5, 64, 7
WINDOW: Final = 256
FIRST: Final = 16  # meter-days before river's models are opened
ENOUGH: Final = 100  # meter-days before a segment is asked
LIMIT: Final = 10.0  # spreads off the segment's centre that score 1
RATE: Final = 0.02
_SMALLEST: Final = 1e-3


def size_of(level: float) -> int:
    """The size class of a daily consumption: steps of a factor of four."""
    return round(math.log(max(level, _SMALLEST), 4))


def shape_of(values: Array) -> Array:
    """Shares of a day's energy by hour, of whatever sign; even where there is none."""
    hours = np.array([part.sum() for part in np.array_split(values, kernel.HOURS)])
    size = np.abs(hours).sum()
    shares: Array = hours / size if size > 0 else np.full(kernel.HOURS, 1.0 / kernel.HOURS)
    return shares


class Segment:
    """The models of one segment."""

    def __init__(self, data: bytes | None = None) -> None:
        told = json.loads(data) if data else None
        self.days: int = told["days"] if told else 0
        self.centre = np.array(told["centre"] if told else np.zeros(len(NAMES)))
        self.spread = np.array(told["spread"] if told else np.zeros(len(NAMES)))
        self.shape = np.array(told["shape"] if told else np.zeros(kernel.HOURS))
        self.drifts: int = told["drifts"] if told else 0
        self._recent: list[float] = told["recent"] if told else []
        self._trees: Any = None
        self._adwin: Any = None
        if self.days > FIRST:
            self._open()
        if told and told["trees"]:
            self._plant(told["trees"], told["counter"], told["first"])

    def _open(self) -> None:
        """river's models, from the first days on; importing them takes a second, which short files need not wait for."""
        from river.anomaly import HalfSpaceTrees

        self._trees = HalfSpaceTrees(TREES, HEIGHT, MASSES, seed=SEED)
        self._watch()

    def to_bytes(self) -> bytes:
        """Everything, as JSON."""
        nodes = [node for tree in self._trees._tree_nodes for node in tree] if self._trees else []
        told = {
            "days": self.days,
            "centre": self.centre.tolist(),
            "spread": self.spread.tolist(),
            "shape": self.shape.tolist(),
            "drifts": self.drifts,
            "recent": self._recent,
            "trees": [[node.l_mass for node in nodes], [node.r_mass for node in nodes]] if nodes else [],
            "counter": self._trees.counter if nodes else 0,
            "first": self._trees._first_window if nodes else True,
        }
        return json.dumps(told, sort_keys=True).encode()

    def _watch(self) -> None:
        from river.drift import ADWIN

        self._adwin = ADWIN(delta=0.0005)
        for value in self._recent:
            self._adwin.update(value)

    def _plant(self, masses: list[list[int]], counter: int, first: bool) -> None:
        """Grows the trees again and gives their nodes the masses they had."""
        self._trees.learn_one(dict.fromkeys(NAMES, 0.5))
        nodes = [node for tree in self._trees._tree_nodes for node in tree]
        for node, learning, reference in zip(nodes, *masses, strict=True):
            node.l_mass, node.r_mass = learning, reference
        self._trees.counter, self._trees._first_window = counter, first

    def features(self, x: Array, shape: Array) -> Array:
        """Level-free features of a day: of the kernel's features and of its shape."""
        distance = float(np.abs(shape - self.shape).sum()) / 2 if self.days else 0.0
        return np.array(
            [
                x[kernel.BASE] - x[kernel.TOTAL], x[kernel.PEAK] - x[kernel.TOTAL], x[kernel.SAME], x[kernel.ZERO],
                x[kernel.NEGATIVE], x[kernel.NIGHT], distance,
            ]
        )  # fmt: skip

    def score(self, features: Array) -> tuple[float, int, float]:
        """Score of a day against the segment, the feature that makes it, and how rare the half-space trees find it (0 to 1)."""
        if self.days < ENOUGH:
            return 0.0, 0, 0.0
        z = self._standardised(features)
        off = np.where(_SIDES > 0, np.maximum(z, 0.0), np.abs(z))
        which = int(off.argmax())
        rare = self._trees.score_one(_squashed(z)) if not self._trees._first_window else 0.0
        return float(off[which]) / LIMIT * (0.75 + 0.5 * rare), which, float(rare)

    def learn(self, features: Array, shape: Array) -> None:
        """Takes an ordinary day in."""
        self.days += 1
        if self.days == 1:
            self.centre, self.shape = features.copy(), shape.astype(np.float64)
            return
        rate = max(RATE, 1.0 / self.days)
        z = self._standardised(features)
        off = np.abs(features - self.centre)
        spread = np.maximum(self.spread, _FLOORS)
        self.centre += rate * np.clip(features - self.centre, -3 * spread, 3 * spread)
        self.spread += rate * (np.minimum(off, 4 * spread) - self.spread)
        self.shape += rate * (shape - self.shape)
        if self.days <= FIRST:
            return
        if self._trees is None:
            self._open()
        self._trees.learn_one(_squashed(z))
        self._drift(float(np.clip(z, -3, 3).mean()))

    def _standardised(self, features: Array) -> Array:
        z: Array = (features - self.centre) / np.maximum(self.spread, _FLOORS)
        return z

    def _drift(self, value: float) -> None:
        """Where the segment as a whole has changed, what it was is forgotten the faster: it counts as young again."""
        self._recent.append(value)
        self._adwin.update(value)
        if self._adwin.drift_detected and self.days > ENOUGH:
            self.drifts += 1
            self.days = ENOUGH // 4 + ENOUGH
            self._recent = self._recent[-32:]
            self._watch()
        elif len(self._recent) >= 2 * WINDOW:
            self._recent = self._recent[-WINDOW:]
            self._watch()


def _squashed(z: Array) -> dict[str, float]:
    return {name: 1.0 / (1.0 + math.exp(-min(max(value, -20.0), 20.0) / 2)) for name, value in zip(NAMES, z.tolist(), strict=True)}


class Segments:
    """All segments of a partition: entries ``s/<unit>/<seconds>/<direction>/<size>`` of the state."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._open: dict[str, Segment] = {}
        self._changed: set[str] = set()

    def get(self, unit: str, seconds: int, direction: int, level: float) -> Segment:
        """The segment of a channel, opened for learning."""
        key = f"s/{unit}/{seconds}/{direction}/{size_of(level)}"
        if key not in self._open:
            self._open[key] = Segment(self._state.entries.get(key))
        self._changed.add(key)
        return self._open[key]

    def save(self) -> None:
        """Writes what changed into the state."""
        for key in sorted(self._changed):
            self._state.put(key, self._open[key].to_bytes())
        self._changed.clear()
