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
from streams.determinants.kernels import GOOD
from streams.determinants.maps import Maps, Vector
from streams.determinants.sums import Sums, limits_of, sum_days
from streams.runtime.fold import Message, Output

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
    spent: dict[str, list[float]] = {name: [] for name in ("kernel", "polars", "agent", "agent_days", "agent_reads")}
    wrong = np.sort(rng.choice(meters, max(1, meters // 100), replace=False))
    cells = np.sort(rng.choice(meters * SLOTS, max(1, meters * SLOTS // 100), replace=False))
    for number in range(RUNS):
        _timed(spent, "kernel", lambda: _kernel(values, conditions, vector, maps.width))
        _timed(spent, "polars", lambda: _polars(pl, frame, table))
        _agent(spent, values, conditions, ours, wrong, cells)
        say(f"run {number + 1} of {RUNS}")
    reads = meters * SLOTS
    best = {name: median(times) for name, times in spent.items()}
    return {
        "meters": meters, "reads": reads, "kernel_ns": _ns(best["kernel"], reads), "agent_ns": _ns(best["agent"], reads),
        "polars_ns": _ns(best["polars"], reads), "ratio_kernel": round(best["polars"] / best["kernel"], 1),
        "ratio_agent": round(best["polars"] / best["agent"], 1),
        "days_again_percent": round(100 * best["agent_days"] / best["agent"], 2),
        "reads_again_percent": round(100 * best["agent_reads"] / best["agent"], 2),
        "days_of_reads_percent": round(100 * len(np.unique(cells // SLOTS)) / meters, 1),
    }  # fmt: skip


def _ns(seconds: float, reads: int) -> float:
    return round(seconds * 1e9 / reads, 2)


def _timed(spent: dict[str, list[float]], name: str, work: Callable[[], Any]) -> Any:
    began = time.process_time()
    found = work()
    spent[name].append(time.process_time() - began)
    return found


def _kernel(values: Array, conditions: Array, vector: Vector, width: int) -> Sums:
    """The sums as the agent makes them: by line, with the quality of each, block by block."""
    parts = []
    for first in range(0, len(values), BLOCK):
        day, codes = values[first : first + BLOCK], conditions[first : first + BLOCK]
        rows = len(day)
        limits = limits_of(np.full(rows, SECONDS, np.int32))
        parts.append(sum_days(day.ravel(), codes.ravel(), np.arange(rows) * SLOTS, limits, np.zeros(rows, np.int64), [vector], width))
    return Sums(*(np.concatenate([getattr(part, name) for part in parts]) for name in Sums.__slots__))


def _polars(pl: Any, frame: Any, table: Any) -> Any:
    usable = pl.col("condition") >= OUTAGE
    joined = frame.lazy().join(table.lazy(), on="slot")
    sums = pl.col("value").filter(usable).sum(), (pl.col("condition") >= REGULAR).sum().alias("good"), pl.len().alias("due")
    return joined.group_by("meter", "line").agg(*sums).collect()


def _same(ours: Sums, theirs: Any, vector: Vector) -> None:
    lines = np.unique(vector.lines)
    counts = ours.counts[:, lines]
    for name, found in (("value", ours.quantities[:, lines]), ("good", counts[:, :, GOOD]), ("due", counts.sum(axis=2))):
        if not np.array_equal(found.ravel(), theirs[name].to_numpy()):
            raise RuntimeError(f"{name}: the kernel and Polars differ")


def _agent(spent: dict[str, list[float]], values: Array, conditions: Array, ours: Sums, wrong: Array, cells: Array) -> None:
    """The agent: state, versions, corrections as differences. The day's blocks; then the days of one meter in a hundred once more, then
    one read in a hundred, wherever it is: whole days, as VEE tells them. The state is compared with that of a rebuild."""
    meters = len(values)
    parts = [np.arange(first, min(first + BLOCK, meters)) for first in range(0, meters, BLOCK)]
    fold = _before(values, conditions, parts)
    outputs = _fold(spent, "agent", fold, [_block(values[rows], conditions[rows], rows, 1) for rows in parts])
    total = sum(int(out.body.quantities.sum()) for out in outputs if out.type == "DayBlock")
    if total != 2 * int(ours.quantities.sum()):  # each day whole and by line
        raise RuntimeError("the agent differs from the kernel")
    fresh = values.copy()
    fresh[wrong] += 1000
    _fold(spent, "agent_days", fold, [_block(fresh[rows], conditions[rows], rows, 2) for rows in _blocks(wrong)])
    fresh.ravel()[cells] += 1000
    touched = np.unique(cells // SLOTS)
    _fold(spent, "agent_reads", fold, [_block(fresh[rows], conditions[rows], rows, 3) for rows in _blocks(touched)])
    rebuilt = _before(values, conditions, parts)
    _fold({"": []}, "", rebuilt, [_block(fresh[rows], conditions[rows], rows, 3) for rows in parts])
    if fold.state.digest() != rebuilt.state.digest():
        raise RuntimeError("corrected rows differ from those of a full rebuild")


def _blocks(rows: Array) -> list[Array]:
    return np.array_split(rows, max(1, -(-len(rows) // BLOCK)))


def _before(values: Array, conditions: Array, parts: list[Array]) -> DeterminantsFold:
    """An agent that had the day before: its channels are known, as those of most days are."""
    fold = DeterminantsFold(load_topology(None).determinants, 0, 1)
    _fold({"": []}, "", fold, [_block(values[rows], conditions[rows], rows, 1, DAY - 1) for rows in parts])
    return fold


def _fold(spent: dict[str, list[float]], name: str, fold: DeterminantsFold, blocks: list[FinalBlock]) -> list[Output]:
    messages = [Message("FinalBlock", block, block.id) for block in blocks]
    found: list[Output] = _timed(spent, name, lambda: [out for message in messages for out in fold.apply(message).outputs])
    return found


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
