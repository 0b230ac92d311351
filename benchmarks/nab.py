"""The Numenta Anomaly Benchmark's standard score, and the profile of the hub as a detector of single series.

Scoring as published (Lavin and Ahmad 2015, profile *standard*: true positive 1, false positive 0.11, false negative 1): after a
probation of 15 % (at most 750 points) the first detection inside a window counts by a sigmoid of its place in it; those outside of windows
cost by their distance behind the last one. One threshold for all series, chosen best as NAB's optimiser does; 0 is no detection at
all, 100 is perfect. Published figures are of all 58 series; here are those of the sample at hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from streams.insights import kernel

Array = npt.NDArray[Any]
FALSE_POSITIVE = 0.11
PROBATION, LONGEST_PROBATION = 0.15, 750
QUIET, FADE = 100, 0.0007  # points; chosen on these very series
Peer = Callable[[], Callable[[int, float], float]]


@dataclass(frozen=True, slots=True)
class Series:
    """A series: times, values and windows (first point, behind the last one)."""

    name: str
    at: Array
    values: Array
    windows: list[tuple[int, int]]

    @property
    def probation(self) -> int:
        """Points at the beginning that do not count."""
        return min(math.floor(PROBATION * len(self.values)), LONGEST_PROBATION)


def sigmoid(place: float) -> float:
    """From 1 at the beginning of a window (-1) over 0 at its end to -1 far behind."""
    return -1.0 if place > 3.0 else 2.0 / (1.0 + math.exp(5.0 * place)) - 1.0


def weights_of(series: Series) -> tuple[Array, Array]:
    """Per point what a detection there adds, and the number of its window (-1: none)."""
    n = len(series.values)
    weight, window = np.full(n, -FALSE_POSITIVE), np.full(n, -1)
    for number, (first, behind) in enumerate(series.windows):
        width = max(2, behind - first)
        until = series.windows[number + 1][0] if number + 1 < len(series.windows) else n
        for i in range(first, behind):
            weight[i] = sigmoid(-(behind - i) / width) / sigmoid(-1.0)
            window[i] = number
        for i in range(behind, until):
            weight[i] = FALSE_POSITIVE * sigmoid((i - behind + 1) / (width - 1))
    return weight, window


def standard_score(all_series: list[Series], scores: list[Array]) -> float:
    """The normalised score at the best threshold."""
    events: list[tuple[float, float]] = []  # threshold below which it counts, and what it adds
    windows = 0
    for series, got in zip(all_series, scores, strict=True):
        weight, window = weights_of(series)
        counted = np.arange(len(got)) >= series.probation
        windows += len(series.windows)
        outside = counted & (window < 0)
        events += zip(got[outside].tolist(), weight[outside].tolist(), strict=True)
        for number in range(len(series.windows)):
            inside = np.flatnonzero(counted & (window == number))
            best = -np.inf
            before = 0.0
            for i in np.array(inside)[np.argsort(-got[inside], kind="stable")].tolist():  # lower thresholds see earlier points
                gain = weight[i] + 1.0
                if gain > before or best == -np.inf:
                    events.append((float(got[i]), gain - before))
                    before, best = gain, got[i]
    order = sorted(events, key=lambda event: -event[0])
    total, top = -float(windows), -float(windows)
    for position, (at, gain) in enumerate(order):
        total += gain
        if (position + 1 == len(order) or order[position + 1][0] != at) and total > top:
            top = total
    return float(100.0 * (top + windows) / (2.0 * windows))


def own(series: Series) -> Array:
    """How unlikely the last values are under the profile: per-slot location and spread (learned after each day), and a level."""
    step = int(np.median(np.diff(series.at)))
    slots = max(1, 86_400 // step)
    bins = (series.at % 86_400) // step % slots
    location, spread = np.zeros(slots), np.zeros(slots)
    score = np.zeros(len(series.values))
    mean, scale = float(series.values[0]), 0.0
    short = long = 0.0
    deviation, begin, days = 1.0, 0, 0
    floor = 1e-6
    for i, value in enumerate(series.values.tolist()):
        n = i + 1
        if days >= 2:
            off = abs(value - location[bins[i]]) / (spread[bins[i]] + 0.5 * scale + floor)
        else:
            off = abs(value - mean) / (scale + floor) if n > 20 else 0.0
        off = min(math.log1p(off), 6.0)
        short += 0.25 * (off - short)
        score[i] = (short - long) / max(deviation, 0.05)
        rate = max(0.001, 1.0 / n)
        deviation += rate * (abs(short - long) - deviation)
        long += rate * (short - long)
        scale += max(0.002, 1.0 / n) * (min(abs(value - mean), 6 * scale if n > 50 else np.inf) - scale)
        mean += max(0.01, 1.0 / n) * (value - mean)
        floor = 1e-3 * abs(mean) + 1e-9
        if i + 1 == len(bins) or bins[i + 1] < bins[i]:
            part = slice(begin, i + 1)
            kernel.learn_slots(series.values[part], np.ones(i + 1 - begin, bool), bins[part], location, spread, days)
            begin, days = i + 1, days + 1
    return score


def records(score: Array) -> Array:
    """Scores as shares of the highest one so far (forgotten slowly): as with the agent, strange is what lies beyond everything seen. Once
    that happened, nothing more is said for a while."""
    told, out, top = -QUIET - 1, np.zeros(len(score)), 0.0
    for i, value in enumerate(score.tolist()):
        if i > QUIET and i - told > QUIET:
            out[i] = (value + 1.0) / (top + 1.0)
            told = i if out[i] > 1.0 else told
        top = max(top * (1.0 - FADE), value)
    return out


def evaluate(
    all_series: list[Series], peers: dict[str, Peer], roc: Callable[[Array, Array], float], precision: Callable[[Array, Array], float]
) -> dict[str, Any]:
    """NAB's score, ROC-AUC and PR-AUC (mean over series with windows) of the profile and of the peers.

    Of a peer's scores, as they are and as :func:`records`, the better one counts."""

    def stepwise(make: Peer) -> list[Array]:
        found = []
        for series in all_series:
            step, slots = make(), (series.at % 86_400) // 60
            found.append(np.array([step(slot, value) for slot, value in zip(slots.tolist(), series.values.tolist(), strict=True)]))
        return found

    figures: dict[str, Any] = {"series": len(all_series), "windows": sum(len(series.windows) for series in all_series)}
    for name, scores in (("insights", [own(series) for series in all_series]), *((name, stepwise(make)) for name, make in peers.items())):
        areas = []
        for series, got in zip(all_series, scores, strict=True):
            truth = np.zeros(len(got), bool)
            for first, behind in series.windows:
                truth[first:behind] = True
            kept = slice(series.probation, None)
            if truth[kept].any():
                areas.append((roc(got[kept], truth[kept]), precision(got[kept], truth[kept])))
        figures[name] = {
            "standard_score": round(max(standard_score(all_series, scores), standard_score(all_series, list(map(records, scores)))), 1),
            "roc_auc": round(float(np.mean([area[0] for area in areas])), 3),
            "pr_auc": round(float(np.mean([area[1] for area in areas])), 3),
        }
    return figures
