"""What clerks decide, learned: how likely an anomaly is a fault indeed, given what it looks like.

An online logistic regression (river) over the odds of the forests, what each family of features adds to them, and what was said of the
channel before. It begins with the odds as they are, so that without labels nothing changes; a few labels count little, and none can move
odds further than ``_BOUNDS``, unless clerks reject everything. What an exception looked like is kept for the newest ``KEPT`` of a
partition, so that a label finds it.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from streams.insights import words
from streams.runtime.state import Column, State, Table

Array = npt.NDArray[Any]

TABLE: Final = "raised"
KEPT: Final = 4096
_MODEL: Final = "labels"
_COUNT: Final = "raised"
_RATE: Final = 0.3
_SCALE: Final = 4.0  # odds that count as much
_MOST: Final = 3  # labels of one channel that count
_BOUNDS: Final = (-1.5, 0.5)  # of odds, by which labels may lower and raise them
_FEW: Final = 10  # labels that count half
_STREAK: Final = 3  # rejections in a row beyond which each lowers the lower bound by as much
_PARTS: Final = len(words.NAMES)
WIDTH: Final = _PARTS + 4


def make_table() -> Table:
    """What the newest exceptions looked like, and what was said of them: 0 nothing, 1 rejected, 2 confirmed."""
    return Table({"looks": Column(np.int32, (WIDTH,)), "verdict": Column(np.int32)}, ("exception",))


def looks_of(parts: Array, beyond: float, which: int, labels: Array) -> Array:
    """What an exception looks like, as kept in the state (32-bit floats): what each family of features added to the odds, the odds
    beyond the limit, acute or lasting, and how many exceptions of the channel were rejected and confirmed before."""
    return np.array([*np.clip(parts, -50, 50), min(beyond, 50.0), which, *np.minimum(labels, _MOST)], np.float32)


class Labels:
    """The model of one partition."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._model: Any = None
        self.labels = 0
        self._streak = 0  # rejections since something was confirmed
        self._where: dict[str, int] | None = None

    def _load(self) -> Any:
        if self._model is None:
            from river.linear_model import LogisticRegression  # a second of importing, for those who have labels only
            from river.optim import SGD
            from river.utils import VectorDict

            self._model = LogisticRegression(SGD(_RATE), intercept_lr=_RATE)
            told = self._state.entries.get(_MODEL)
            kept: dict[str, Any] = json.loads(told) if told else {"labels": 0, "streak": 0, "weights": {"odds": _SCALE}, "intercept": 0.0}
            self.labels, self._streak = kept["labels"], kept["streak"]
            self._model._weights = VectorDict(kept["weights"], self._model.initializer)
            self._model.intercept = kept["intercept"]
            self._model.optimizer.n_iterations = self.labels
        return self._model

    @property
    def any(self) -> bool:
        """Whether there have been labels."""
        return _MODEL in self._state.entries

    def beyond(self, looks: Array) -> float:
        """By how much the odds of a day exceed the limit (SOFT of it: a score of 2) once labels are heard; without any, as they are."""
        odds = float(looks[_PARTS])
        if not self.any:
            return odds
        likely = min(max(float(self._load().predict_proba_one(_features(looks))[True]), 1e-9), 1 - 1e-9)
        change = math.log(likely / (1 - likely)) - odds
        more = max(self._streak - _STREAK, 0)
        share = 1.0 if more else self.labels / (self.labels + _FEW)
        return odds + min(max(change, _BOUNDS[0] - _STREAK * more), _BOUNDS[1]) * share

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
            table["verdict"][row] = 0
        table["looks"][row] = looks.view(np.int32)
        table.mark(np.array([row]))

    def learn(self, exception: str, confirmed: bool) -> bool:
        """Learns from a label; False where the exception is not (or no longer) known here, or the same was said of it before."""
        row, table = self._index().get(exception), self._state.table(TABLE)
        if row is None or table["verdict"][row] == 1 + confirmed:
            return False
        table["verdict"][row] = 1 + confirmed
        table.mark(np.array([row]))
        model, looks = self._load(), table["looks"][row].view(np.float32)
        model.learn_one(_features(looks), confirmed)
        self.labels += 1
        self._streak = 0 if confirmed else self._streak + 1
        weights = dict(sorted(model._weights.to_dict().items()))
        kept = {"labels": self.labels, "streak": self._streak, "weights": weights, "intercept": model.intercept}
        self._state.put(_MODEL, json.dumps(kept).encode())
        return True

    def _index(self) -> dict[str, int]:
        if self._where is None:
            self._where = {text: row for row, text in enumerate(self._state.table(TABLE).text["exception"]) if text}
        return self._where


def _features(looks: Array) -> dict[str, float]:
    """Numbers of about one: the odds, what made them by kind of fault, and what was said of the channel before."""
    *parts, beyond, which, rejected, confirmed = looks.astype(np.float64).tolist()
    kind = "lasting" if which else "acute"
    named = {f"{kind} {name}": value / _SCALE for name, value in zip(words.NAMES, parts, strict=True)}
    return named | {"odds": beyond / _SCALE, kind: 1.0, "rejected": rejected / _MOST, "confirmed": confirmed / _MOST}
