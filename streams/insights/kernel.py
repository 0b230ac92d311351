"""The profile of a channel, day by day: scores first, then learns. One compiled loop over the rows of a block.

What is kept of a channel (float32, in units of the channel):

* ``location`` per day type (weekday, weekend) and slot of the day, ``spread`` per slot: an online median and mean absolute deviation.
  A value moves its slot by at most a step of 1.5 spreads times the rate, so a bad value hardly teaches and a gradual change is followed.
* ``shape``: the mean shape of the last days, hour by hour, as shares of the day.
* per feature of a day (:data:`FEATURES`): centre, spread, and the lowest and highest value ever seen (forgotten slowly), and the same
  for its mean of the last days. A day is strange by how far a feature lies *outside everything seen so far*, in spreads.

A day scores before it teaches. A day of score 1 or more does not teach, until ``PATIENCE`` such days in a row have passed.

Source: our own; online medians by stochastic approximation, ranges as in extreme value detectors.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numba import njit

Array = npt.NDArray[Any]

FEATURES: Final = ("total", "base", "peak", "shape", "lag", "same", "zero", "negative", "night", "interval", "level", "mix")
F: Final = len(FEATURES)
TOTAL, BASE, PEAK, SHAPE, LAG, SAME, ZERO, NEGATIVE, NIGHT, INTERVAL, LEVEL, MIX = range(F)
MEMORY: Final = ("centre", "spread", "low", "high", "mean", "mean_low", "mean_high", "wait_low", "wait_high", "next_low", "next_high")
M: Final = len(MEMORY)
HOURS: Final = 24
WARM_UP: Final = 28  # days a channel learns before its own profile is asked
BLOCK: Final = 30  # days after which the means of the last days join the range they are judged by, one block late
FEATURE_RATE: Final = 0.02
PATIENCE: Final = 35  # strange days in a row after which what is strange has become normal
FADE: Final = 0.003  # of the distance to the centre that the range loses per day
RATE, MEAN_RATE, SHAPE_RATE = 0.05, 0.15, 0.1
TOO_FEW, YOUNG = -2.0, -1.0  # instead of a score: a day with too few measured values, a channel still warming up
NIGHT_HOURS: Final = 5
LAGS_FROM: Final = 2  # hours; smaller displacements are daily life
ENOUGH: Final = 0.75  # of a day's slots must be measured
# The smallest spread of each feature: what is finer than this never matters
FLOORS: Final = np.array([0.05, 0.05, 0.05, 0.02, 0.03, 0.25, 0.5, 0.002, 0.02, 0.5, 0.05, 1.0])
# What matters: +1 only more than usual, -1 only less, 0 both
SIDES: Final = np.array([0, 0, 1, 1, 1, 1, 1, 1, 0, 1, 0, 1])


@njit(cache=True)
def features(v: Array, good: Array, bins: Array, slots: int, location: Array, spread: Array, shape: Array, level: float, x: Array) -> int:
    """Features of one day into ``x``; returns the slot (position in ``v``) that is furthest off. ``v`` has the day's values."""
    n = len(v)
    total, count, negative, positive, peak = 0.0, 0, 0.0, 0.0, 0.0
    hourly = np.zeros(HOURS)
    weight = np.zeros(HOURS)
    run, longest, zero_run, longest_zero = 0, 0, 0, 0
    worst, at = -1.0, 0
    unit = max(level, 1e-9)
    floor = 0.25 * unit / slots
    window = max(1, slots // 8)
    rolling, filled, least = 0.0, 0, np.inf
    for i in range(n):
        if not good[i]:
            run, zero_run, rolling, filled = 0, 0, 0.0, 0
            continue
        value = v[i]
        total += value
        count += 1
        if value < 0:
            negative -= value
        else:
            positive += value
        if value > peak:
            peak = value
        hour = bins[i] * HOURS // len(location)
        hourly[hour] += value
        weight[hour] += 1
        if value == 0.0:
            zero_run += 1
            run = 0
        else:
            zero_run = 0
            run = run + 1 if i > 0 and good[i - 1] and v[i - 1] == value else 1
        longest = max(longest, run)
        longest_zero = max(longest_zero, zero_run)
        rolling += value
        filled += 1
        if filled > window:
            rolling -= v[i - window]
            filled = window
        if filled == window and rolling < least:
            least = rolling
        off = abs(value - location[bins[i]]) / (spread[bins[i]] + floor)
        if off > worst:
            worst, at = off, i
    day = total * slots / max(count, 1)
    x[TOTAL] = math.log((max(day, 0.0) + 0.05 * unit) / unit)
    base = least * slots / window if least < np.inf else day
    x[BASE] = math.log((max(base, 0.0) + 0.05 * unit) / unit)
    x[PEAK] = math.log((peak * slots + 0.05 * unit) / unit)
    x[SAME] = longest * 24.0 / slots
    x[ZERO] = longest_zero * 24.0 / slots
    x[NEGATIVE] = negative / max(negative + positive, 1e-9)
    mean = 0.0
    for h in range(HOURS):
        hourly[h] = hourly[h] / weight[h] if weight[h] > 0 else day / HOURS * HOURS / slots
        mean += abs(hourly[h])
    night = 0.0
    for h in range(HOURS):
        share = hourly[h] / max(mean, 1e-9)
        if h < NIGHT_HOURS:
            night += share
        shape[h] = share if shape[h] == -1.0 else shape[h] + SHAPE_RATE * (share - shape[h])
    x[NIGHT] = night
    x[INTERVAL] = math.log(1.0 + worst) * 2.0
    usual = np.zeros(HOURS)
    per = np.zeros(HOURS)
    for b in range(len(location)):
        hour = b * HOURS // len(location)
        usual[hour] += location[b]
        per[hour] += 1
    distance, size = 0.0, 0.0
    for h in range(HOURS):
        usual[h] /= max(per[h], 1.0)
        size += abs(usual[h])
    for h in range(HOURS):
        usual[h] /= max(size, 1e-9)
        distance += abs(shape[h] - usual[h]) / 2
    x[SHAPE] = distance
    x[LAG] = displaced(shape, usual)
    return at


@njit(cache=True)
def displaced(a: Array, b: Array) -> float:
    """By how much the correlation of two daily shapes grows where the second is displaced by some hours."""
    ma, mb = a.mean(), b.mean()
    twice = np.empty(2 * HOURS)
    aa, bb = 1e-12, 1e-12
    for i in range(HOURS):
        twice[i] = twice[i + HOURS] = b[i] - mb
        aa += (a[i] - ma) ** 2
        bb += twice[i] ** 2
    same, best = 0.0, -np.inf
    for lag in range(HOURS - LAGS_FROM + 1):
        if lag == 0 or lag >= LAGS_FROM:
            product = 0.0
            for i in range(HOURS):
                product += (a[i] - ma) * twice[i + HOURS - lag]
            if lag == 0:
                same = product
            elif product > best:
                best = product
    return (best - same) / math.sqrt(aa * bb)


@njit(cache=True)
def outside(x: float, low: float, high: float, spread: float, side: int) -> float:
    """How far a value lies outside what was seen, in spreads; negative below."""
    if x > high and side >= 0:
        return (x - high) / spread
    if x < low and side <= 0:
        return (x - low) / spread
    return 0.0


@njit(cache=True)
def judge(x: Array, memory: Array, age: int, limits: Array, z: Array) -> tuple[float, int]:
    """Score of a day against a channel's memory, and which feature makes it (its number, plus F where it is the mean of the last days).

    ``limits[0]`` are the excesses of a day that score 1, ``limits[1]`` those of the mean of the last days.
    """
    score, which = 0.0, 0
    deltas = np.zeros(F)
    for f in (TOTAL, BASE, PEAK, NIGHT):
        m = memory[f]
        spread = max(m[1], FLOORS[f])
        step = min(max(x[f] - m[4], -3.0 * spread), 3.0 * spread)
        deltas[f] = m[4] + MEAN_RATE * step - m[0]
    x[LEVEL] = 0.0
    low = min(deltas[TOTAL], min(deltas[BASE], deltas[PEAK]))
    high = max(deltas[TOTAL], max(deltas[BASE], deltas[PEAK]))
    if low > 0:
        x[LEVEL] = low
    elif high < 0:
        x[LEVEL] = high
    x[MIX] = 0.0
    for f in (TOTAL, BASE, PEAK, NIGHT):
        x[MIX] += (deltas[f] / max(memory[f, 1], FLOORS[f])) ** 2
    x[MIX] = math.sqrt(x[MIX])
    young = 1.0 + 20.0 / max(age, 1)
    for f in range(F):
        m = memory[f]
        spread = max(m[1], FLOORS[f])
        z[f] = (x[f] - m[0]) / spread
        step = min(max(x[f] - m[4], -3.0 * spread), 3.0 * spread)
        mean = m[4] + MEAN_RATE * step
        for k in range(2):
            value, low, high = (x[f], m[2], m[3]) if k == 0 else (mean, m[5], m[6])
            unit = spread if k == 0 else 0.5 * (high - low) + 2.0 * FLOORS[f]
            s = abs(outside(value, low, high, unit, SIDES[f])) / (limits[k, f] * young)
            if s > score:
                score, which = s, f + k * F
    return score, which


@njit(cache=True)
def remember(x: Array, memory: Array, age: int, teach: bool, loud: bool) -> None:
    """Takes a day's features into a channel's memory. The means of the last days move unless the day is
    strange by itself, the rest only where it teaches."""
    for f in range(F):
        m = memory[f]
        if age == 0:
            m[0], m[1], m[4] = x[f], 0.0, x[f]
            continue
        spread = max(m[1], FLOORS[f])
        if not loud:
            m[4] += MEAN_RATE * min(max(x[f] - m[4], -3.0 * spread), 3.0 * spread)
        if not teach:
            continue
        rate = max(FEATURE_RATE, 1.0 / (age + 1))
        off = abs(x[f] - m[0])
        m[0] += rate * min(max(x[f] - m[0], -3.0 * spread), 3.0 * spread)
        m[1] += rate * (min(off, 4.0 * spread) - m[1])
        if age < WARM_UP // 2:
            m[2], m[3] = x[f], x[f]
        else:
            m[2] = min(x[f], m[2] + FADE * (m[0] - m[2]))
            m[3] = max(x[f], m[3] + FADE * (m[0] - m[3]))
        if age < WARM_UP - 4:
            m[5], m[6], m[7], m[8], m[9], m[10] = m[4], m[4], m[4], m[4], m[4], m[4]
            continue
        m[9], m[10] = min(m[9], m[4]), max(m[10], m[4])
        m[5] += FADE * (m[0] - m[5])
        m[6] += FADE * (m[0] - m[6])
        if age % BLOCK == 0 or age < 2 * WARM_UP:
            m[5], m[6] = min(m[5], m[7]), max(m[6], m[8])
            m[7], m[8] = m[9], m[10]
            m[9], m[10] = m[4], m[4]


@njit(cache=True)
def learn_slots(v: Array, good: Array, bins: Array, location: Array, spread: Array, days: int) -> None:
    """Takes a day's values into the slots of its day type; ``days`` of that type came before."""
    rate = max(RATE, 1.0 / (days + 1))
    for i in range(len(v)):
        if not good[i]:
            continue
        b = bins[i]
        off = v[i] - location[b]
        if days == 0:
            location[b] = v[i]
            continue
        limit = 3.0 * spread[b] if days > 4 else abs(off)
        location[b] += rate * min(max(off, -limit), limit)
        spread[b] += rate * (min(abs(off), 4.0 * spread[b] if days > 4 else abs(off)) - spread[b])
        if days > 4 and spread[b] <= 0.0:
            spread[b] = rate * abs(off)


@njit(cache=True)
def fold_days(
    values: Array, good: Array, begins: Array, counts: Array, patterns: Array, pattern: Array, slots: int, rows: Array, kinds: Array,
    learns: Array,
    location: Array, spread: Array, shape: Array, memory: Array, level: Array, ages: Array, strange: Array, limits: Array,
    x: Array, z: Array, score: Array, which: Array, worst: Array, before: Array,
) -> None:  # fmt: skip
    """Scores and learns channel-days in order. ``rows`` are state rows; ``ages`` days learned per row and day type (last: all)."""
    for d in range(len(rows)):
        r, kind = rows[d], kinds[d]
        v = values[begins[d] : begins[d] + counts[d]]
        g = good[begins[d] : begins[d] + counts[d]]
        b = patterns[pattern[d], : counts[d]]
        count, total = 0, 0.0
        for i in range(len(v)):
            if g[i]:
                count += 1
                total += v[i]
        if count < ENOUGH * counts[d]:
            score[d] = TOO_FEW
            continue
        mean = max(total * slots / count, 0.0)
        age = ages[r, 2]
        used = kind if ages[r, kind] > 0 else 1 - kind
        unit = level[r] if age > 0 else mean
        old_shape = shape[r].copy()
        worst[d] = features(v, g, b, slots, location[r, used], spread[r], shape[r], unit, x[d])
        if age == 0:
            x[d, SHAPE] = x[d, LAG] = 0.0
            x[d, INTERVAL] = 0.0
        score[d], which[d] = judge(x[d], memory[r], age, limits, z[d])
        m = memory[r, which[d] % F]
        lower, upper = (m[5], m[6]) if which[d] >= F else (m[2], m[3])
        before[d, 0], before[d, 1], before[d, 2], before[d, 3] = m[0], lower, upper, unit
        if age < WARM_UP:
            score[d] = YOUNG
        if not learns[d]:
            shape[r] = old_shape
            continue
        bad = score[d] >= 1.0
        strange[r] = strange[r] + 1 if bad else 0
        teach = not bad or strange[r] > PATIENCE
        loud = bad and which[d] < F and not teach
        if loud:
            shape[r] = old_shape
        remember(x[d], memory[r], age, teach, loud)
        if teach:
            step = mean - level[r]
            if age > 0 and age > WARM_UP:
                step = min(max(step, -0.5 * level[r]), 0.5 * level[r])
            moved = level[r] + max(0.02, 1.0 / (age + 1)) * step
            if age > 0 and level[r] > 0.0 and moved > 0.0:
                # total, base and peak are logarithms relative to the level: they move with it
                shift = math.log(level[r] / moved)
                for f in (TOTAL, BASE, PEAK):
                    for k in (0, 2, 3, 4, 5, 6, 7, 8, 9, 10):
                        memory[r, f, k] += shift
            level[r] = moved
            learn_slots(v, g, b, location[r, kind], spread[r], ages[r, kind])
            ages[r, kind] += 1
            ages[r, 2] += 1


def warm() -> None:
    """Compiles, or loads what was compiled before: a worker does so before a day waits for it."""
    n = np.zeros(1, np.int64)
    fold_days(
        np.zeros(HOURS), np.zeros(HOURS, np.bool_), n, n + HOURS, np.arange(HOURS)[None, :], n, HOURS, n, n, np.zeros(1, np.bool_),
        np.zeros((1, 2, HOURS), np.float32), np.zeros((1, HOURS), np.float32), np.zeros((1, HOURS), np.float32),
        np.zeros((1, F, M), np.float32), np.zeros(1, np.float32), np.zeros((1, 3), np.int32), np.zeros(1, np.int32),
        np.ones((2, F)), np.zeros((1, F)), np.zeros((1, F)), np.zeros(1), n.copy(), n.copy(), np.zeros((1, 4)),
    )  # fmt: skip
