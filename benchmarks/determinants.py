"""A day of many meters into time-of-use determinants: the compiled sums and the whole agent against Polars, and corrections."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from statistics import median
from typing import Any, Final

import numpy as np
import numpy.typing as npt

os.environ.setdefault("POLARS_MAX_THREADS", "1")  # all are compared on one core

from schemas.block import FINALIZED, FinalBlock, strings
from schemas.conditions import EST_LIKE_DAY, MISSING, OUTAGE, REGULAR
from schemas.topology import load_topology
from streams.determinants.fold import DeterminantsFold
from streams.determinants.kernels import correct_sums, day_sums
from streams.determinants.maps import Maps, Vector
from streams.runtime.fold import Message

Array = npt.NDArray[Any]
SECONDS: Final = 900
SLOTS: Final = 96
DAY: Final = 20_515  # a Tuesday without clock change
ZONE: Final = "Europe/Berlin"
BLOCK: Final = 2000
RUNS: Final = 5


def run(meters: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Measures in turn, results compared first. Raises RuntimeError where they differ."""
    import polars as pl

    if pl.thread_pool_size() != 1:
        raise RuntimeError("polars was loaded before with more than one thread")
    say(f"{meters:,} meters x {SLOTS} intervals")
    rng = np.random.default_rng(7)
    values = rng.integers(0, 4_000, (meters, SLOTS)) * 1000
    conditions = np.full((meters, SLOTS), REGULAR, np.int32)
    conditions[rng.random((meters, SLOTS)) < 0.01] = EST_LIKE_DAY
    conditions[rng.random((meters, SLOTS)) < 0.005] = MISSING
    settings = load_topology(None).determinants
    maps = Maps(settings)
    vector = maps.vectors[maps.vector(1, ZONE, DAY, SECONDS, SLOTS)]
    ours = _kernel(values, conditions, vector, maps.width)
    frame = pl.DataFrame(
        {
            "meter": np.repeat(np.arange(meters, dtype=np.int32), SLOTS), "slot": np.tile(np.arange(SLOTS, dtype=np.int16), meters),
            "value": values.ravel(), "condition": conditions.ravel(),
        }
    )  # fmt: skip
    table = pl.DataFrame({"slot": np.arange(SLOTS, dtype=np.int16), "line": vector.lines.astype(np.int8)})
    theirs = _polars(pl, frame, table).sort("meter", "line")
    _same(ours, theirs, vector)
    say("results of the kernel and Polars are equal")
    spent: dict[str, list[float]] = {name: [] for name in ("kernel", "polars", "agent", "again", "reads", "agent_again")}
    wrong = np.sort(rng.choice(meters, max(1, meters // 100), replace=False))
    cells = np.sort(rng.choice(meters * SLOTS, max(1, meters * SLOTS // 100), replace=False))
    for number in range(RUNS):
        _timed(spent, "kernel", lambda: _kernel(values, conditions, vector, maps.width))
        _timed(spent, "polars", lambda: _polars(pl, frame, table))
        _days_again(spent, values, conditions, vector, maps.width, wrong)
        _reads_again(spent, values, conditions, vector, maps.width, cells)
        _agent(spent, values, conditions, ours, wrong)
        say(f"run {number + 1} of {RUNS}")
    reads = meters * SLOTS
    best = {name: median(times) for name, times in spent.items()}
    return {
        "meters": meters, "reads": reads, "kernel_ns": _ns(best["kernel"], reads), "agent_ns": _ns(best["agent"], reads),
        "polars_ns": _ns(best["polars"], reads), "ratio_kernel": round(best["polars"] / best["kernel"], 1),
        "ratio_agent": round(best["polars"] / best["agent"], 1), "days_again_percent": round(100 * best["again"] / best["kernel"], 2),
        "reads_again_percent": round(100 * best["reads"] / best["kernel"], 2),
        "agent_again_percent": round(100 * best["agent_again"] / best["agent"], 2),
    }  # fmt: skip


def _ns(seconds: float, reads: int) -> float:
    return round(seconds * 1e9 / reads, 2)


def _timed(spent: dict[str, list[float]], name: str, work: Callable[[], Any]) -> Any:
    began = time.process_time()
    found = work()
    spent[name].append(time.process_time() - began)
    return found


def _kernel(values: Array, conditions: Array, vector: Vector, width: int) -> tuple[Array, Array, Array]:
    sums = np.zeros((len(values), width), np.int64)
    good, due = np.zeros((len(values), width), np.int32), np.zeros((len(values), width), np.int32)
    day_sums(values, conditions, vector.starts, vector.runs, sums, good, due)
    return sums, good, due


def _polars(pl: Any, frame: Any, table: Any) -> Any:
    usable = pl.col("condition") >= OUTAGE
    joined = frame.lazy().join(table.lazy(), on="slot")
    sums = pl.col("value").filter(usable).sum(), (pl.col("condition") >= REGULAR).sum().alias("good"), pl.len().alias("due")
    return joined.group_by("meter", "line").agg(*sums).collect()


def _same(ours: tuple[Array, Array, Array], theirs: Any, vector: Vector) -> None:
    lines = np.unique(vector.lines)
    for name, found in zip(("value", "good", "due"), ours, strict=True):
        if not np.array_equal(found[:, lines].ravel(), theirs[name].to_numpy()):
            raise RuntimeError(f"{name}: the kernel and Polars differ")


def _days_again(spent: dict[str, list[float]], values: Array, conditions: Array, vector: Vector, width: int, wrong: Array) -> None:
    """One meter in a hundred sends its day once more, other than before."""
    held = _kernel(values, conditions, vector, width)
    fresh, codes = values[wrong] + 1000, conditions[wrong]

    def again() -> None:
        for into, part in zip(held, _kernel(fresh, codes, vector, width), strict=True):
            into[wrong] = part

    _timed(spent, "again", again)
    whole = values.copy()
    whole[wrong] = fresh
    _check(held, _kernel(whole, conditions, vector, width))


def _reads_again(spent: dict[str, list[float]], values: Array, conditions: Array, vector: Vector, width: int, cells: Array) -> None:
    """One read in a hundred, anywhere, is corrected."""
    held, whole, codes = _kernel(values, conditions, vector, width), values.copy(), conditions.copy()
    rows, slots = np.divmod(cells, SLOTS)
    fresh = values[rows, slots] + 1000
    measured = np.full(len(cells), REGULAR, np.int32)
    _timed(spent, "reads", lambda: correct_sums(rows, slots, fresh, measured, whole, codes, vector.lines, *held))
    _check(held, _kernel(whole, codes, vector, width))


def _check(held: tuple[Array, Array, Array], rebuilt: tuple[Array, Array, Array]) -> None:
    if not all(np.array_equal(a, b) for a, b in zip(held, rebuilt, strict=True)):
        raise RuntimeError("corrected rows differ from a full rebuild")


def _agent(spent: dict[str, list[float]], values: Array, conditions: Array, ours: tuple[Array, Array, Array], wrong: Array) -> None:
    """The agent: state, versions, corrections as differences. Blocks of the day, then of the meters that send it once more."""
    fold = DeterminantsFold(load_topology(None).determinants, 0, 1)
    meters = len(values)
    parts = [np.arange(first, min(first + BLOCK, meters)) for first in range(0, meters, BLOCK)]
    for rows in parts:  # the day before: its channels are known, as those of most days are
        before = _block(values[rows], conditions[rows], rows, 1, DAY - 1)
        fold.apply(Message("FinalBlock", before, before.id))
    blocks = [_block(values[rows], conditions[rows], rows, 1) for rows in parts]
    again = [_block(values[rows] + 1000, conditions[rows], rows, 2) for rows in np.array_split(wrong, max(1, len(wrong) // BLOCK))]
    outputs = _timed(spent, "agent", lambda: [out for b in blocks for out in fold.apply(Message("FinalBlock", b, b.id)).outputs])
    total = sum(int(out.body.quantities.sum()) for out in outputs if out.type == "DayBlock")
    if total != 2 * int(ours[0].sum()):  # each day whole and by line
        raise RuntimeError("the agent differs from the kernel")
    _timed(spent, "agent_again", lambda: [fold.apply(Message("FinalBlock", b, b.id)) for b in again])


def _block(values: Array, conditions: Array, rows: Array, version: int, day: int = DAY) -> FinalBlock:
    from streams import calendar

    size, none = len(rows), np.zeros(len(rows), np.int32)
    empty = np.zeros(0, np.int64)
    return FinalBlock(
        id=f"b{rows[0]}-{version}-{day}", payload="", source="bench", device=strings([f"B{n:07d}" for n in rows.tolist()]),
        channel=strings(["1.8.0"] * size), unit=strings(["kWh"] * size), service_point=strings([""] * size), account=strings([""] * size),
        zone=strings([ZONE] * size), direction=np.ones(size, np.int8), day=np.full(size, day, np.int32),
        start=np.full(size, int(calendar.start_of(ZONE, day))), seconds=np.full(size, SECONDS, np.int32),
        count=np.full(size, SLOTS, np.int32), reads=none, version=np.full(size, version, np.int64),
        replaces=np.full(size, version - 1, np.int64), state=np.full(size, FINALIZED, np.int8), dials=np.zeros(size, np.int8),
        multiplier=np.zeros(size, np.int64), values=values.ravel(), conditions=conditions.ravel(),
        methods=np.zeros(values.size, np.int8), times=empty, received_count=none, received=empty,
        received_conditions=np.zeros(0, np.int32), before_count=none, before=empty, before_conditions=np.zeros(0, np.int32),
    )  # fmt: skip
