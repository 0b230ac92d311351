"""What clerks decide, learned: how likely an anomaly is a fault indeed, given what it looks like.

An online logistic regression (river) over what was strange. Without labels it changes nothing; with each label it counts for more. What
an exception looked like is kept for the newest ``KEPT`` of a partition, so that a label finds it.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from streams.insights import kernel
from streams.runtime.state import Column, State, Table

Array = npt.NDArray[Any]

TABLE: Final = "raised"
KEPT: Final = 4096
_MODEL: Final = "labels"
_COUNT: Final = "raised"
_TRUST: Final = 4  # labels after which the model counts for half
_SCALE: Final = 4.0  # spreads that count as clearly strange
WIDTH: Final = kernel.F + 2


def make_table() -> Table:
    """What the newest exceptions looked like: standardised features, score and the feature that made it."""
    return Table({"looks": Column(np.int32, (WIDTH,))}, ("exception",))


def looks_of(z: Array, score: float, which: int) -> Array:
    """What an exception looks like, as kept in the state (32-bit floats)."""
    return np.array([*np.clip(z, -50, 50), min(score, 50.0), which], np.float32)


class Labels:
    """The model of one partition."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._model: Any = None
        self.labels = self.confirmed = 0
        self._where: dict[str, int] | None = None

    def _load(self) -> Any:
        if self._model is None:
            from river.linear_model import LogisticRegression  # a second of importing, for those who have labels only
            from river.optim import SGD
            from river.utils import VectorDict

            self._model = LogisticRegression(SGD(0.3), l2=0.002)
            told = self._state.entries.get(_MODEL)
            if told:
                kept = json.loads(told)
                self.labels, self.confirmed = kept["labels"], kept["confirmed"]
                self._model._weights = VectorDict(kept["weights"], self._model.initializer)
                self._model.intercept = kept["intercept"]
                self._model.optimizer.n_iterations = self.labels
        return self._model

    def factor(self, looks: Array) -> float:
        """By how much labels raise or lower a score: 1 without any, towards 0 for what clerks reject, towards 2 for what they confirm."""
        if _MODEL not in self._state.entries:
            return 1.0
        model = self._load()
        trust = self.labels / (self.labels + _TRUST)
        likely = min(max(float(model.predict_proba_one(_features(looks))[True]), 1e-6), 1 - 1e-6)
        # against the share of confirmed ones: clerks who confirm much want what is confirmed more often first, not more of everything
        average = (self.confirmed + 1) / (self.labels + 2)
        odds = likely / (1 - likely) * (1 - average) / average
        return 1.0 + trust * (2.0 * min(likely, odds / (1 + odds)) - 1.0)

    def keep(self, exception: str, looks: Array) -> None:
        """Keeps what an exception looked like."""
        table, index = self._state.table(TABLE), self._index()
        if exception in index:
            row = index[exception]
        else:
            count = int(self._state.entries.get(_COUNT, b"0"))
            row = int(table.add([str(count % KEPT)])[0])
            index.pop(table.text["exception"][row], None)
            table.text["exception"][row] = exception
            index[exception] = row
            self._state.put(_COUNT, b"%d" % (count + 1))
        table["looks"][row] = looks.view(np.int32)
        table.mark(np.array([row]))

    def learn(self, exception: str, confirmed: bool) -> bool:
        """Learns from a label; False where the exception is not (or no longer) known here."""
        row = self._index().get(exception)
        if row is None:
            return False
        model = self._load()
        looks = self._state.table(TABLE)["looks"][row].view(np.float32)
        model.learn_one(_features(looks), confirmed)
        self.labels, self.confirmed = self.labels + 1, self.confirmed + confirmed
        kept = {
            "labels": self.labels,
            "confirmed": self.confirmed,
            "weights": dict(sorted(model._weights.to_dict().items())),
            "intercept": model.intercept,
        }
        self._state.put(_MODEL, json.dumps(kept).encode())
        return True

    def _index(self) -> dict[str, int]:
        if self._where is None:
            self._where = {text: row for row, text in enumerate(self._state.table(TABLE).text["exception"]) if text}
        return self._where


def _features(looks: Array) -> dict[str, float]:
    """Numbers between -1 and 1, and which feature made the score."""
    values = looks.astype(np.float64).tolist()
    named = {name: math.tanh(value / _SCALE) for name, value in zip(kernel.FEATURES, values[: kernel.F], strict=True)}
    which = int(values[kernel.F + 1])
    return named | {"score": math.tanh(values[kernel.F] / _SCALE), f"by-{kernel.FEATURES[which % kernel.F]}": 1.0}
