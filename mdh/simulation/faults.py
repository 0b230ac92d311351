"""What goes wrong, how often, and where exactly it did: at most one fault per meter and day, so that the truth is plain."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mdh.errors import UsageError
from mdh.simulation.chance import below, draw, hits

Ints = npt.NDArray[np.int64]
ACTUAL, ABSENT, MISSING, ESTIMATED = 0, 1, 2, 3  # how a value is sent

# name → (what its rate counts, rule or method that must answer for it, what happens)
FAULTS: Final = {
    "spike": ("interval", "interval-spike", "a value 40 times the day's highest"),
    "gap": ("interval", "interval-interpolation", "1 to 4 intervals never come"),
    "missing": ("interval", "interval-interpolation", "1 to 4 reported as missing"),
    "negative": ("interval", "negative-consumption", "a value of the wrong sign"),
    "zero": ("day", "zero-consumption", "a whole day of zeros"),
    "duplicate": ("day", "duplicate-imd", "the day again at the end"),
    "late": ("day", "", "the day at the end only"),
    "correction": ("day", "", "half the day estimated at first"),
    "unknown": ("meter", "unknown-device", "a meter without master data"),
    "rollover": ("meter", "", "the register passes 99999.999 kWh"),
}
_LONGEST_GAP: Final = 4


def parse_rates(text: str, known: Iterable[str] = FAULTS) -> dict[str, float]:
    """``spike=0.001,gap=0.01`` as rates by name; ``all=0.01`` is every one.

    Raises UsageError on unknown names and on rates outside 0 to 1.
    """
    names = list(known)
    rates: dict[str, float] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, _, number = part.partition("=")
        if name not in (*names, "all"):
            raise UsageError(f"--faults: {name!r} is none of {', '.join(names)}, nor all")
        try:
            rate = float(number)
        except ValueError:
            raise UsageError(f"--faults: {part!r} is not of the form {name}=0.01") from None
        if not 0 <= rate <= 1:
            raise UsageError(f"--faults: the rate of {name} is {number}; it must lie between 0 and 1")
        rates |= dict.fromkeys(names if name == "all" else (name,), rate)
    return rates


@dataclass(frozen=True, slots=True)
class Injected:
    """One fault as injected: meter (row), first interval and how many, what was true and what was sent there (Wh)."""

    fault: str
    row: int
    first: int
    count: int
    true: int
    sent: int | None


@dataclass(slots=True)
class DayPlan:
    """One day of some meters after faults: values and how each is sent (meter × interval), and rows to send (again) at the end."""

    values: Ints
    states: npt.NDArray[np.int8]
    injected: list[Injected]
    again: Ints  # rows to send at the end with their true values


def share(seed: int, name: str, meters: Ints, rates: dict[str, float]) -> npt.NDArray[np.bool_]:
    """Which meters a per-meter fault (``unknown``, ``rollover``) concerns."""
    return hits(draw(seed, name, meters), rates.get(name, 0.0))


def spoil(seed: int, meters: Ints, day: int, loads: Ints, rates: dict[str, float]) -> DayPlan:
    """Injects the day's faults into true loads (meter × interval, Wh)."""
    values, slots = loads.copy(), loads.shape[1]
    plan = DayPlan(values, np.zeros(loads.shape, np.int8), [], np.zeros(0, np.int64))
    free = np.ones(len(meters), bool)
    again: list[Any] = []
    for name in ("late", "duplicate", "correction", "zero"):
        rows = np.flatnonzero(free & hits(draw(seed, name, meters, day), rates.get(name, 0.0)))
        free[rows] = False
        _whole_days(name, rows, loads, plan)
        if name != "zero":
            again.append(rows)
    for name in ("spike", "negative", "gap", "missing"):
        rate = rates.get(name, 0.0)
        if not rate:
            continue
        struck = hits(draw(seed, name, meters[:, None], day, np.arange(slots)), rate) & free[:, None]
        rows = np.flatnonzero(struck.any(axis=1))
        free[rows] = False
        lengths = 1 + below(draw(seed, name + "n", meters[rows], day), _LONGEST_GAP)
        for row, first, length in zip(rows.tolist(), struck[rows].argmax(axis=1).tolist(), lengths.tolist(), strict=True):
            if name in ("gap", "missing"):  # the day's last value is there, so that a gap has two ends
                first, length = min(first, slots - 2), min(length, slots - 1 - min(first, slots - 2))
            _one(name, row, first, length, loads, plan)
    plan.again = np.sort(np.concatenate(again)).astype(np.int64) if again else plan.again
    return plan


def _whole_days(name: str, rows: Ints, loads: Ints, plan: DayPlan) -> None:
    slots = loads.shape[1]
    if name == "late":
        plan.states[rows] = ABSENT
    elif name == "zero":
        plan.values[rows] = 0
    elif name == "correction":
        half = slots // 2
        plan.values[rows, half:] = (loads[rows].sum(axis=1) // slots)[:, None]
        plan.states[rows, half:] = ESTIMATED
    for row in rows.tolist():
        true = int(loads[row].sum())
        sent = None if name == "late" else int(plan.values[row].sum())
        plan.injected.append(Injected(name, row, 0, slots, true, sent))


def _one(name: str, row: int, first: int, length: int, loads: Ints, plan: DayPlan) -> None:
    if name in ("gap", "missing"):
        true = int(loads[row, first : first + length].sum())
        plan.states[row, first : first + length] = ABSENT if name == "gap" else MISSING
        plan.injected.append(Injected(name, row, first, length, true, None))
        return
    true = int(loads[row, first])
    sent = int(loads[row].max()) * 40 + 5_000 if name == "spike" else -true - 1
    plan.values[row, first] = sent
    plan.injected.append(Injected(name, row, first, 1, true, sent))
