"""The profile of a channel, day by day: scores first, then learns. One compiled loop over the rows of a block.

What is kept of a channel, in units of the channel:

* ``location`` per day type (weekday, weekend) and hour, ``spread`` per hour: an online median and mean absolute deviation of its intervals.
* per feature of a day (:data:`FEATURES`, most of them logarithms of quantities) a centre and spread, means of the last ten and twenty days,
  and the range that the day and these means have kept to.
* ``shares``: per hour a histogram of the hour's logarithmic load. How likely a day is under it, as it is, displaced by some hours, or
  multiplied by some factor (the last days together: ``fits``) tells a clock that is wrong, a meter that counts a part, and another meter.

Two small forests of decision trees (:mod:`streams.insights.trees`) turn all this into the logarithmic odds of two kinds of fault:
*acute* ones of a day (spike, standing value, reversal) and *lasting* changes (step, displaced clock, another meter, leak), the latter
averaged over the last days. Odds beyond those that ordinary days reach about once in a meter-year score 1 or more.

A day scores before it teaches. An acutely strange day teaches nothing, a day of a lasting change not before ``PATIENCE`` such days
in a row.

Source: our own; online medians by stochastic approximation, ranges as in extreme value detectors, likelihood ratios as in CUSUM tests,
gradient boosted trees (Friedman 2001) fitted to injected faults.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numba import njit

Array = npt.NDArray[Any]

FEATURES: Final = (
    "total", "base", "low", "median", "peak", "high", "rough", "night", "morning", "daytime", "evening", "same", "zero", "negative",
    "interval", "band", "crest", "unlike", "top", "night-rough", "tenth", "quarter", "step",
)  # fmt: skip
F: Final = len(FEATURES)
(
    TOTAL, BASE, LOW, MEDIAN, PEAK, HIGH, ROUGH, NIGHT, MORNING, DAYTIME, EVENING, SAME, ZERO, NEGATIVE, INTERVAL, BAND, CREST, UNLIKE,
    TOP, NIGHT_ROUGH, TENTH, QUARTER, STEP,
) = range(F)  # fmt: skip
LAG, DOWN, UP, LEVEL, APART = range(F, F + 5)  # of the last days together
PARTS: Final = (*FEATURES, "lag", "down", "up", "level", "apart")  # what an input of the trees belongs to
SPANS: Final = np.array([1.0, 0.1, 0.05])  # weight of the newest day in the day itself and the two means
S: Final = len(SPANS)
INPUTS: Final = F * S * 2 + S * 5 + 1
PART_OF: Final = np.array([f for f in range(F) for _ in range(2 * S)] + [F + j for _ in range(S) for j in range(5)] + [-1])
M: Final = 4 + 2 * S  # centre, spread, the two means, then lowest and highest of day and means
HOURS: Final = 24
LEVELS: Final = 14  # of an hour's load
LEVEL_WIDTH: Final = 0.45
SCALES: Final = 4  # factors tried in either direction, each a level wider
WHOLE: Final = 32_000  # a share of one
WARM_UP: Final = 28  # days a channel learns before its own profile is asked
FEATURE_RATE: Final = 0.02
PATIENCE: Final = 10  # days of a lasting change in a row after which it becomes normal; acutely strange ones after
ACUTE_PATIENCE: Final = 35
HASTE: Final = 4.0  # times as fast is learned what has become normal
FADE: Final = 0.003  # of the distance to the centre that a range loses per day
SLOT_RATE, SHARE_RATE, ODDS_RATE = 0.05, 0.015, 0.2
LEAST_ODDS: Final = -6.0
SUDDEN: Final = 2.0  # a day this much beyond its mean odds is told at once
SOFT: Final = 4.0  # odds beyond the limit that add 1 to a score
TOO_FEW, YOUNG = -2.0, -1.0  # instead of a score: a day with too few measured values, a channel still warming up
ENOUGH: Final = 0.75  # of a day's slots must be measured
ACUTE, LASTING = 0, 1
# The smallest spread of each feature: what is finer than this never matters
FLOORS: Final = np.array(
    [.05, .08, .08, .06, .05, .05, .05, .02, .02, .02, .02, .5, .5, .01, .3, .05, .05, .1, .1, .1, .08, .08, .1]
)  # fmt: skip
_SHIFT: Final = 5
_LOGS: Final = np.log(np.arange((WHOLE >> _SHIFT) + 2) * (1 << _SHIFT) / WHOLE + 0.02)


@njit(cache=True)
def quantities(v: Array, good: Array, hours: Array, slots: int, mean: float, unit: float, x: Array, hourly: Array) -> None:
    """Features of one day that need no profile into ``x``; ``hourly`` gets the mean power of each hour, as consumption of a day."""
    n = len(v)
    w = np.where(good, v, mean)
    day, eps = mean * slots, 0.03 * unit
    ordered = np.sort(np.maximum(v[good], 0.0))
    count = len(ordered)
    window = max(1, n // 8)
    least, rolling = np.inf, 0.0
    negative, positive, rough, night_rough = 0.0, 0.0, 0.0, 0.0
    run, longest, zeros, longest_zero = 0, 0, 0, 0
    blocks, weight = np.zeros(4), np.zeros(HOURS)
    hourly[:] = 0.0
    steps = np.empty(n - 1)
    for i in range(n):
        value = w[i]
        rolling += max(value, 0.0)
        if i >= window:
            rolling -= max(w[i - window], 0.0)
        if i >= window - 1:
            least = min(least, rolling)
        if value < 0:
            negative -= value
        else:
            positive += value
        hour = hours[i]
        hourly[hour] += value
        weight[hour] += 1.0
        blocks[0 if hour < 5 else 1 if hour < 10 else 2 if hour < 16 else 3] += value if hour < 21 else 0.0
        if i > 0:
            steps[i - 1] = abs(value - w[i - 1])
            rough += steps[i - 1]
            if hour < 5:
                night_rough += steps[i - 1]
        if not good[i]:
            run, zeros = 0, 0
        elif value == 0.0:
            zeros += 1
            run = 0
        else:
            zeros = 0
            run = run + 1 if i > 0 and good[i - 1] and value == w[i - 1] else 1
        longest, longest_zero = max(longest, run), max(longest_zero, zeros)
    for h in range(HOURS):
        hourly[h] = hourly[h] / weight[h] * slots if weight[h] > 0 else day
    size, nights = abs(day) + eps, max(n * 5 // 24 - 1, 1)
    x[TOTAL] = math.log(max(day, 0.0) + eps)
    x[BASE] = math.log(max(least, 0.0) * slots / window + eps)
    x[LOW] = math.log(ordered[min(1, count - 1)] * slots + eps)
    x[TENTH] = math.log(ordered[count // 10] * slots + eps)
    x[QUARTER] = math.log(ordered[count // 4] * slots + eps)
    x[MEDIAN] = math.log(ordered[count // 2] * slots + eps)
    x[HIGH] = math.log(ordered[int(count * 0.85)] * slots + eps)
    x[PEAK] = math.log(ordered[count - 1] * slots + eps)
    x[ROUGH] = math.log(rough / size + 0.05)
    x[NIGHT_ROUGH] = math.log(night_rough / nights * slots + 0.3 * eps)
    steps.sort()
    x[STEP] = math.log(steps[(n - 1) // 2] * slots + 0.3 * eps)
    for k in range(4):
        x[NIGHT + k] = blocks[k] / (negative + positive + eps)
    x[SAME] = math.log(1.0 + longest * 24.0 / slots)
    x[ZERO] = math.log(1.0 + longest_zero * 24.0 / slots)
    x[NEGATIVE] = negative / (negative + positive + 1e-9)
    x[BAND], x[CREST] = x[HIGH] - x[LOW], x[PEAK] - x[MEDIAN]
    x[TOP] = math.log((max(hourly.max(), 0.0) / HOURS + eps / HOURS) / size)


@njit(cache=True)
def furthest(v: Array, good: Array, hours: Array, location: Array, spread: Array, floor: float) -> tuple[float, int]:
    """How far the interval furthest off its hour lies, in spreads, and its position."""
    worst, at = 0.0, 0
    for i in range(len(v)):
        if good[i]:
            off = abs(v[i] - location[hours[i]]) / (spread[hours[i]] + floor)
            if off > worst:
                worst, at = off, i
    return worst, at


@njit(cache=True)
def likelihoods(hourly: Array, shares: Array, anchor: float, unit: float, levels: Array, fit: Array) -> None:
    """Mean log-likelihood of a day's hours under a channel's shares: displaced by 0 to 23 hours, then multiplied by each factor. The level
    of each hour goes into ``levels``."""
    for h in range(HOURS):
        levels[h] = min(max(int((math.log(max(hourly[h], 0.0) + 0.01 * unit) - anchor) / LEVEL_WIDTH), 0), LEVELS - 1)
    table = np.empty((HOURS, LEVELS))
    for h in range(HOURS):
        for b in range(LEVELS):
            table[h, b] = _LOGS[shares[h, b] >> _SHIFT]
    for lag in range(HOURS):
        total = 0.0
        for h in range(HOURS):
            total += table[(h - lag) % HOURS, levels[h]]
        fit[lag] = total / HOURS
    for j in range(2 * SCALES + 1):
        total = 0.0
        for h in range(HOURS):
            total += table[h, min(max(levels[h] + j - SCALES, 0), LEVELS - 1)]
        fit[HOURS + j] = total / HOURS


@njit(cache=True)
def beyond(x: float, low: float, high: float) -> float:
    """How far a value lies outside a range; negative below."""
    return x - high if x > high else x - low if x < low else 0.0


@njit(cache=True)
def inputs(x: Array, memory: Array, fits: Array, fit: Array, age: int, q: Array, means: Array, together: Array) -> None:
    """What the trees look at into ``q``; the means with this day in them into ``means`` (F, S) and ``together`` (S, as ``fit``)."""
    c = 0
    first = 1.0 / (age + 1)
    for f in range(F):
        m = memory[f]
        spread = max(m[1], FLOORS[f])
        for k in range(S):
            value = x[f]
            if k > 0 and age > 0:
                step = min(max(x[f] - m[1 + k], -4.0 * spread), 4.0 * spread)
                value = m[1 + k] + max(SPANS[k], first) * step
            means[f, k] = value
            q[c] = (value - m[0]) / spread
            q[c + 1] = beyond(value, m[4 + 2 * k], m[5 + 2 * k]) / spread
            c += 2
    shifts = np.empty(5)
    for k in range(S):
        for j in range(len(fit)):
            together[k, j] = fit[j] if k == 0 else fits[k - 1, j] + max(SPANS[k], first) * (fit[j] - fits[k - 1, j])
        own = together[k]
        q[c] = own[2 : HOURS - 1].max() - own[0]
        q[c + 1] = own[HOURS + SCALES + 1 :].max() - own[HOURS + SCALES]
        q[c + 2] = own[HOURS : HOURS + SCALES].max() - own[HOURS + SCALES]
        for j in range(5):
            shifts[j] = means[BASE + j, k] - memory[BASE + j, 0]
        shifts.sort()
        q[c + 3], q[c + 4] = shifts[2], shifts[4] - shifts[0]
        c += 5
    q[c] = math.log(age + 1.0)


@njit(cache=True)
def paths(feature: Array, left: Array, right: Array) -> tuple[Array, Array, int]:
    """The forest as :func:`odds_of` walks it: per node the input asked about and both nodes below, a leaf's being itself; and its depth."""
    asked, below, level = np.empty(len(feature), np.int64), np.empty(2 * len(feature), np.int64), np.zeros(len(feature), np.int64)
    for node in range(len(feature)):  # nodes come before those below them
        asked[node], below[2 * node], below[2 * node + 1] = max(feature[node], 0), node, node
        if feature[node] >= 0:
            below[2 * node], below[2 * node + 1] = left[node], right[node]
            level[left[node]] = level[right[node]] = level[node] + 1
    return asked, below, level.max()


@njit(cache=True)
def odds_of(q: Array, roots: Array, asked: Array, threshold: Array, below: Array, depth: int, value: Array, at: Array) -> float:
    """Sum of the leaves that a day falls into. All trees go down together, so that none waits for the answers of another one.

    ``at`` is room for a node per tree.
    """
    trees = len(roots)
    for tree in range(trees):
        at[tree] = roots[tree]
    for _ in range(depth):
        for tree in range(trees):
            node = at[tree]
            at[tree] = below[2 * node + (not q[asked[node]] <= threshold[node])]
    total = 0.0
    for tree in range(trees):
        total += value[at[tree]]
    return total


@njit(cache=True)
def parts_of(q: Array, roots: Array, feature: Array, threshold: Array, left: Array, right: Array, value: Array, found: Array) -> None:
    """What each part of a day (:data:`PARTS`) adds to its odds: along the way down each tree, what each question changed."""
    for root in roots:
        node = root
        while feature[node] >= 0:
            part = PART_OF[feature[node]]
            below = left[node] if q[feature[node]] <= threshold[node] else right[node]
            if part >= 0:
                found[part] += value[below] - value[node]
            node = below


@njit(cache=True)
def remember(memory: Array, x: Array, means: Array, age: int, teach: bool, haste: float) -> None:
    """Takes a day into a channel's memory: its means, and where it teaches centre, spread and ranges."""
    for f in range(F):
        m = memory[f]
        if age == 0:
            m[0], m[1] = x[f], 0.0
            for k in range(S):
                m[4 + 2 * k], m[5 + 2 * k] = x[f], x[f]
        for k in range(1, S):
            m[1 + k] = means[f, k]
        if not teach:
            continue
        spread, rate = max(m[1], FLOORS[f]), max(FEATURE_RATE * haste, 1.0 / (age + 1))
        off = x[f] - m[0]
        m[0] += rate * min(max(off, -3.0 * spread), 3.0 * spread)
        m[1] += rate * (min(abs(off), 4.0 * spread) - m[1])
        for k in range(S):
            mean, low, high = means[f, k], m[4 + 2 * k], m[5 + 2 * k]
            if age < 20:
                m[4 + 2 * k] = mean if age < 10 else min(low, mean)
                m[5 + 2 * k] = mean if age < 10 else max(high, mean)
                continue
            follow = 0.3 if k == 0 else 0.06 * haste
            low += FADE * (m[0] - low)
            high += FADE * (m[0] - high)
            m[4 + 2 * k] = low + follow * min(mean - low, 0.0)
            m[5 + 2 * k] = high + follow * max(mean - high, 0.0)


@njit(cache=True)
def learn_slots(v: Array, good: Array, bins: Array, location: Array, spread: Array, days: int) -> None:
    """Takes a day's values into the slots of its day type; ``days`` of that type came before."""
    rate = max(SLOT_RATE, 1.0 / (days + 1))
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
def learn_shares(shares: Array, levels: Array, age: int, haste: float) -> None:
    """Takes the levels of a day's hours into their histograms."""
    rate = max(SHARE_RATE * haste, 1.0 / (age + 2))
    for h in range(HOURS):
        at = levels[h]
        for b in range(LEVELS):
            part = 0.6 if b == at else 0.0
            if b == max(at - 1, 0):
                part += 0.2
            if b == min(at + 1, LEVELS - 1):
                part += 0.2
            shares[h, b] = int(shares[h, b] * (1.0 - rate) + rate * part * WHOLE + 0.5)


@njit(cache=True)
def fold_days(
    values: Array, good: Array, begins: Array, counts: Array, patterns: Array, pattern: Array, slots: int, rows: Array, kinds: Array,
    learns: Array,
    location: Array, spread: Array, memory: Array, shares: Array, fits: Array, scalars: Array, ages: Array, strange: Array,
    acute: Array, lasting: Array, feature: Array, threshold: Array, left: Array, right: Array, value: Array, limits: Array,
    x: Array, q: Array, odds: Array, score: Array, worst: Array, before: Array, levels_before: Array,
) -> None:  # fmt: skip
    """Scores and learns channel-days in order. ``rows`` are state rows; ``ages`` days learned per row and day type (last: all);
    ``scalars`` per row usual consumption of a day, anchor of the levels and mean odds of a lasting change."""
    hourly, levels = np.empty(HOURS), np.empty(HOURS, np.int64)
    fit, means, together = np.empty(HOURS + 2 * SCALES + 1), np.empty((F, S)), np.empty((S, HOURS + 2 * SCALES + 1))
    asked, below, depth = paths(feature, left, right)
    at = np.empty(max(len(acute), len(lasting)), np.int64)
    for d in range(len(rows)):
        r, kind = rows[d], kinds[d]
        v = values[begins[d] : begins[d] + counts[d]]
        g = good[begins[d] : begins[d] + counts[d]]
        hours = patterns[pattern[d], : counts[d]]
        count, total = 0, 0.0
        for i in range(len(v)):
            if g[i]:
                count += 1
                total += v[i]
        if count < ENOUGH * counts[d] or count < 2:
            score[d, ACUTE] = score[d, LASTING] = TOO_FEW
            continue
        mean, age = total / count, ages[r, 2]
        if age == 0:
            scalars[r, 0] = max(mean * slots, 1e-3)
            scalars[r, 1] = math.log(scalars[r, 0]) - 3.5
            scalars[r, 2] = LEAST_ODDS
        unit = scalars[r, 0]
        used = kind if ages[r, kind] > 0 else 1 - kind
        quantities(v, g, hours, slots, mean, unit, x[d], hourly)
        off, worst[d] = furthest(v, g, hours, location[r, used], spread[r], 0.25 * unit / slots)
        x[d, INTERVAL] = math.log(1.0 + off) * 2.0 if age > 0 else 0.0
        likelihoods(hourly, shares[r], scalars[r, 1], unit, levels, fit)
        x[d, UNLIKE] = -fit[0]
        if age == 0:
            memory[r, :, 0] = x[d]
        inputs(x[d], memory[r], fits[r], fit, age, q[d], means, together)
        for f in range(F):
            before[d, f, 0], before[d, f, 1] = memory[r, f, 0], memory[r, f, 4]
            before[d, f, 2], before[d, f, 3] = memory[r, f, 5], means[f, 1]
        levels_before[d] = unit
        odds[d, ACUTE] = odds_of(q[d], acute, asked, threshold, below, depth, value, at)
        today = odds_of(q[d], lasting, asked, threshold, below, depth, value, at)
        average = scalars[r, 2] + ODDS_RATE * (max(today, LEAST_ODDS) - scalars[r, 2]) if age >= WARM_UP else LEAST_ODDS / 2
        odds[d, LASTING] = max(average, today - SUDDEN)
        for k in range(2):
            score[d, k] = max(1.0 + (odds[d, k] - limits[k]) / SOFT, 0.0) if age >= WARM_UP else YOUNG
        if not learns[d]:
            continue
        loud, bad = score[d, ACUTE] >= 1.0, score[d, LASTING] >= 1.0
        strange[r] = strange[r] + 1 if loud or bad else 0
        haste = HASTE if strange[r] > 0 else 1.0
        teach = strange[r] == 0 or strange[r] > (ACUTE_PATIENCE if loud else PATIENCE)
        if loud and not teach:
            continue
        scalars[r, 2] = average
        fits[r] = together[1:]
        remember(memory[r], x[d], means, age, teach, haste)
        if teach:
            step = max(mean * slots, 0.0) - unit
            if age > WARM_UP:
                step = min(max(step, -0.5 * unit), 0.5 * unit)
            scalars[r, 0] = max(unit + max(0.02, 1.0 / (age + 1)) * step, 1e-3)
            learn_slots(v, g, hours, location[r, kind], spread[r], ages[r, kind])
            learn_shares(shares[r], levels, age, haste)
            ages[r, kind] += 1
            ages[r, 2] += 1


def warm() -> None:
    """Compiles, or loads what was compiled before: a worker does so before a day waits for it."""
    n, f4 = np.zeros(1, np.int64), np.float32
    none, small = np.zeros(0, np.int32), np.zeros(1, np.int32)
    fold_days(
        np.zeros(HOURS), np.zeros(HOURS, np.bool_), n, n + HOURS, np.arange(HOURS)[None, :], n, HOURS, n, n, np.zeros(1, np.bool_),
        np.zeros((1, 2, HOURS), f4), np.zeros((1, HOURS), f4), np.zeros((1, F, M), f4), np.zeros((1, HOURS, LEVELS), np.int16),
        np.zeros((1, S - 1, HOURS + 2 * SCALES + 1), f4), np.zeros((1, 3), f4), np.zeros((1, 3), np.int32), small,
        none, none, small, np.zeros(1), small, small, np.zeros(1), np.zeros(2),
        np.zeros((1, F)), np.zeros((1, INPUTS)), np.zeros((1, 2)), np.zeros((1, 2)), n.copy(), np.zeros((1, F, 4)), np.zeros(1),
    )  # fmt: skip
    parts_of(np.zeros(INPUTS), none, small, np.zeros(1), small, small, np.zeros(1), np.zeros(len(PARTS)))
