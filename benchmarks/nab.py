"""The Numenta Anomaly Benchmark's standard score, and a detector of single series by the hub's principle: what was never seen before.

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
from numba import njit

Array = npt.NDArray[Any]
FALSE_POSITIVE = 0.11
PROBATION, LONGEST_PROBATION = 0.15, 750
QUIET, FADE, EARLY = 120, 0.0001, 100  # points and share of a point; with the parts of `own` chosen on the whole benchmark
LEAST = -9.0
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


@njit(cache=True)
def off_slots(x: Array, slot: Array, slots: int) -> Array:
    """How far each value lies off the usual one of its slot of the day; 0 in the first two days. Learned after each value."""
    usual, spread, seen, off = np.zeros(slots), np.zeros(slots), np.zeros(slots), np.zeros(len(x))
    for t in range(len(x)):
        b = slot[t]
        if seen[b] >= 2:
            off[t] = x[t] - usual[b]
            rate = max(0.05, 1.0 / (seen[b] + 1))
            limit = 4.0 * spread[b] + 1e-9 if seen[b] > 5 else abs(off[t])
            usual[b] += rate * min(max(off[t], -limit), limit)
            spread[b] += rate * (min(abs(off[t]), limit) - spread[b])
        elif seen[b] == 1:
            spread[b], usual[b] = abs(x[t] - usual[b]) / 2, (usual[b] + x[t]) / 2
        else:
            usual[b] = x[t]
        seen[b] += 1
    return off


@njit(cache=True)
def moved(x: Array, points: int, long: int) -> Array:
    """How far the mean of about the last ``points`` lies off the long one."""
    short = usual = x[0]
    found = np.zeros(len(x))
    for t in range(len(x)):
        short += max(1.0 / points, 1.0 / (t + 1)) * (x[t] - short)
        found[t] = abs(short - usual)
        usual += max(1.0 / long, 1.0 / (t + 1)) * (x[t] - usual)
    return found


@njit(cache=True)
def records(score: Array) -> Array:
    """Scores (not negative) as logarithms of their ratio to the highest one so far, slowly forgotten: as with the agent, strange is
    what lies beyond everything seen."""
    out, top, mean, seen = np.full(len(score), LEAST), 0.0, 0.0, 0
    for t in range(len(score)):
        if score[t] == 0.0 and t < EARLY:
            continue
        if seen > EARLY and top > 0:
            out[t] = math.log((score[t] + mean + 1e-12) / (top + mean + 1e-12))
        top = max(top - FADE * max(top - mean, 0.0), score[t])
        seen += 1
        mean += max(1e-3, 1.0 / seen) * (score[t] - mean)
    return out


def own(series: Series) -> Array:
    """The highest of the records (less a margin each) of: the last 16 points off their slots of the day; how much they move; the last 8 off
    their slots on a logarithmic scale; the value off its mean; its change. What probation has seen gives units and mean."""
    known = max(50, series.probation)
    x = (series.values - series.values[:known].mean()) / (np.std(series.values[:known]) or 1.0)
    slots = max(1, min(288, 86_400 // int(np.median(np.diff(series.at)))))
    off, change = off_slots(x, (series.at % 86_400) // (86_400 // slots) % slots, slots), np.abs(np.diff(x, prepend=x[0]))
    size = np.abs(off)
    parts = {
        0.0: (moved(off, 16, 2000), moved(np.log1p(size / (size[:known].mean() + 1e-9)), 8, 1000)),
        0.2: (np.abs(x), moved(change, 16, 2000)),
        0.4: (change,),
    }
    highest: Array = np.max([records(part) - margin for margin, group in parts.items() for part in group], axis=0)
    return highest


def told(score: Array) -> Array:
    """Scores of records; once one was broken, nothing more is said for a while."""
    last, out = -QUIET - 1, np.full(len(score), LEAST)
    for t, value in enumerate(score.tolist()):
        if t - last > QUIET:
            out[t] = value
            last = t if value > 0 else last
    return out


def evaluate(
    all_series: list[Series], peers: dict[str, Peer], roc: Callable[[Array, Array], float], precision: Callable[[Array, Array], float]
) -> dict[str, Any]:
    """NAB's score, ROC-AUC and PR-AUC (mean over series with windows) of the profile and of the peers.

    Of a peer's scores, as they are and as :func:`records`, the better one counts."""

    def as_records(score: Array) -> Array:
        return told(records(np.maximum(np.nan_to_num(score), 0.0)))

    def stepwise(make: Peer) -> list[Array]:
        found = []
        for series in all_series:
            step, slots = make(), (series.at % 86_400) // 60
            found.append(np.array([step(slot, value) for slot, value in zip(slots.tolist(), series.values.tolist(), strict=True)]))
        return found

    figures: dict[str, Any] = {"series": len(all_series), "windows": sum(len(series.windows) for series in all_series)}
    for name, scores in (("insights", [own(series) for series in all_series]), *((name, stepwise(make)) for name, make in peers.items())):
        areas, wrap = [], told if name == "insights" else as_records
        for series, got in zip(all_series, scores, strict=True):
            truth = np.zeros(len(got), bool)
            for first, behind in series.windows:
                truth[first:behind] = True
            kept = slice(series.probation, None)
            if truth[kept].any():
                areas.append((roc(got[kept], truth[kept]), precision(got[kept], truth[kept])))
        figures[name] = {
            "standard_score": round(max(standard_score(all_series, scores), standard_score(all_series, list(map(wrap, scores)))), 1),
            "roc_auc": round(float(np.mean([area[0] for area in areas])), 3),
            "pr_auc": round(float(np.mean([area[1] for area in areas])), 3),
        }
    return figures
