"""Anomalies in words a clerk understands: what was expected, what came, and in which respect."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from streams.insights import kernel

Array = npt.NDArray[Any]
_LATELY: Final = " on average of the last days"


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


def reason(which: int, x: Array, before: Array, values: Array, at: int, seconds: int, unit: str, slot: float) -> str:
    """Why a day is strange. ``which`` is the feature (plus F: the mean of the last days), ``before`` its centre, low and high until then
    and the channel's usual daily consumption, ``at`` the interval furthest off and ``slot`` what is usual there."""
    feature, lately = which % kernel.F, which >= kernel.F
    centre, low, high, level = before.tolist()
    words = _LATELY if lately else ""
    count = 86_400 // seconds
    if feature in (kernel.TOTAL, kernel.BASE, kernel.LEVEL, kernel.MIX):
        subject = "Lowest three hours" if feature == kernel.BASE else "Day total"
        if feature in (kernel.TOTAL, kernel.BASE):
            part = 8 if feature == kernel.BASE else 1
            usual = [number(max(0.0, math.exp(v) - 0.05) * level / part) for v in (low, high)]
            came = number(max(0.0, math.exp(x[feature]) - 0.05) * level / part)
            return f"{subject} {came} {unit} where {usual[0]}–{usual[1]} {unit} is usual{words}"
        came = number(float(values.sum()))
        return f"{subject} {came} {unit} where {number(level)} {unit} is usual; base, total and peak have all moved for several days"
    if feature == kernel.PEAK:
        most, when = number(max(0.0, math.exp(high) - 0.05) * level / count), clock(int(values.argmax()) * seconds)
        return f"Highest interval {number(float(values.max()))} {unit} at {when} where {most} {unit} was the most{words}"
    if feature == kernel.INTERVAL:
        return f"{number(float(values[at]))} {unit} at {clock(at * seconds)} where {number(slot)} {unit} is usual"
    if feature == kernel.SAME:
        return f"The same value for {number(x[feature])} hours where {number(high)} hours was the longest{words}"
    if feature == kernel.ZERO:
        return f"Nothing for {number(x[feature])} hours where {number(high)} hours was the longest{words}"
    if feature == kernel.NEGATIVE:
        return f"{x[feature]:.0%} of the day's energy is negative where {centre:.0%} is usual"
    if feature == kernel.NIGHT:
        return f"00:00–05:00 carries {x[feature]:.0%} of the day instead of {centre:.0%}{words}"
    if feature == kernel.LAG:
        return "The days look displaced by some hours against what is usual"
    return f"The course of the last days differs from the usual one by {x[feature]:.0%} where {number(high * 100)} % was the most"


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
