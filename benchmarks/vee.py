"""``mdh bench vee``: the engine against the cheapest thing one can do with reads, and against the same rules in Polars and plain Python.

Every contender gets the same blocks in memory, day after day in turn in one process: the engine (validation, estimation, replacement
and versions, state, sums by time of use: what a worker runs, without broker and bytes), ``np.sum`` over the values, Polars over
columns, Python read by read. Final values and conditions, what each rule found and the sums are compared before any figure is given.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from benchmarks.load import FIRST_DAY, SECONDS, SLOTS, Load
from benchmarks.peers import frames, rules
from mdh.errors import UsageError
from mdh.simulation.faults import MISSING
from mdh.simulation.writers import CHANNEL
from schemas.block import DayBlock, FinalBlock, ReadBlock, starts_of, strings
from schemas.topology import load_topology
from schemas.topology.vee import VeeSettings
from streams.determinants import intervals
from streams.determinants.fold import DeterminantsFold
from streams.runtime.fold import Message
from streams.vee import kernel
from streams.vee.fold import VeeFold
from streams.vee.rules import ESTIMATIONS, VALIDATIONS

Ints = npt.NDArray[np.int64]
WARM: Final = 2  # days until a channel's ring is full
PEERS_KNOW: Final = ("negative-consumption", "interval-spike", "zero-consumption", "missing-quantity")
REPORTED_MISSING, REGULAR = 110_000, 500_000
BARE: Final[dict[str, Any]] = {  # what the cost of rules is measured against
    "groups": {"initial-load": {"rules": [{"id": "unit-of-measure"}, {"id": "interval-size"}, {"id": "final-measurement-replacement"}]}}
}


@dataclass(slots=True)
class Day:
    """What came of the channel-days of one block, one row each."""

    values: Ints
    codes: Ints
    found: dict[str, dict[int, int]] = field(default_factory=dict)  # rule → row → how many intervals
    tou: dict[str, Ints] = field(default_factory=dict)

    def differs(self, other: Day, rows: int) -> str:
        """In what the first rows of two results differ; empty where they do not."""
        if not np.array_equal(self.values[:rows], other.values[:rows]) or not np.array_equal(self.codes[:rows], other.codes[:rows]):
            return "final values or conditions"
        for rule in PEERS_KNOW:
            mine, theirs = ({r: n for r, n in d.found.get(rule, {}).items() if r < rows} for d in (self, other))
            if mine != theirs:
                return rule
        none = np.zeros(len(self.values), np.int64)
        for name in {*self.tou, *other.tou}:
            if not np.array_equal(self.tou.get(name, none)[:rows], other.tou.get(name, none[: len(other.values)])[:rows]):
                return f"sums of {name}"
        return ""


def run(channels: int, days: int, rows: int, python_channels: int, say: Callable[[str], None]) -> dict[str, Any]:
    """The figures: nanoseconds per read, medians over blocks. Raises UsageError where results differ."""
    load, engine, bare, plain = Load(channels, days + WARM), Engine(), Engine(bare=True), Plain()
    spent: dict[str, list[float]] = {name: [] for name in ("vee", "determinants", "rules", "ours", "bare", "np_sum", "polars", "python")}
    for number in range(days + WARM):
        blocks = list(blocks_of(load, number, rows))
        with clocked() as rules_took:
            ours = [engine.fold(block) for block in blocks]
        spent["rules"].append(sum(rules_took) / (channels * SLOTS))
        alone = [sum(bare.fold(block)[1:]) for block in blocks]
        for block in blocks:
            _timed(spent["np_sum"], len(block.values), lambda values=block.values: np.sum(values))
        reads = plain.reads(blocks[0], python_channels)
        if number < WARM:
            plain.fold(reads)
            continue
        spent["bare"] += alone
        spent["vee"] += [vee for _, vee, _ in ours]
        spent["determinants"] += [sums for _, _, sums in ours]
        spent["ours"] += [vee + sums for _, vee, sums in ours]
        for block, (outputs, _, _) in zip(blocks, ours, strict=True):
            frame = frames.frame(block.values, block.conditions, SLOTS)
            date = FIRST_DAY + number
            theirs = _timed(spent["polars"], len(block.values), lambda frame=frame, date=date: frames.finish(frame, date, SECONDS))
            _same("Polars", number, result_of(block, outputs), Day(*theirs), len(block))
        results = _timed(spent["python"], len(reads), lambda reads=reads: plain.fold(reads))
        _same("Python", number, result_of(blocks[0], ours[0][0]), _of_python(results), len(results))
        say(f"day {number - WARM + 1} of {days}: {spent['ours'][-1]:.1f} ns per read, all results equal")
    ns = {name: median(times) for name, times in spent.items()}
    return {
        "reads": channels * days * SLOTS,
        **{f"{name}_ns": round(ns[name], 2) for name in ("ours", "vee", "determinants", "rules", "bare", "np_sum", "polars", "python")},
        "kept_with_rules": round(ns["bare"] / ns["ours"], 3),
        "ratio_np_sum": round(ns["ours"] / ns["np_sum"], 1),
        **{f"ratio_{name}": round(ns[name] / ns["ours"], 1) for name in ("polars", "python")},
        "rules_ratio_np_sum": round(ns["rules"] / ns["np_sum"], 1),
        **{f"rules_ratio_{name}": round(ns[name] / ns["rules"], 1) for name in ("polars", "python")},
        "equal": True,
    }  # fmt: skip


@contextmanager
def clocked() -> Iterator[list[int]]:
    """Collects the nanoseconds spent inside rules and the sums by time of use, apart from versions and records around them.

    The compiled pass over clean days writes them into the state as it goes: that is in it too.
    """
    took: list[int] = []

    def timed(work: Callable[..., Any]) -> Callable[..., Any]:
        def inner(*given: Any) -> Any:
            began = time.perf_counter_ns()
            result = work(*given)
            took.append(time.perf_counter_ns() - began)
            return result

        return inner

    places: list[Any] = [VALIDATIONS, ESTIMATIONS, vars(intervals), vars(kernel)]
    before = [dict(VALIDATIONS), dict(ESTIMATIONS), {"sum_days": intervals.sum_days}, {"sift": kernel.sift}]
    for place, functions in zip(places, before, strict=True):
        place.update({name: timed(work) for name, work in functions.items()})
    try:
        yield took
    finally:
        for place, functions in zip(places, before, strict=True):
            place.update(functions)


def _timed(into: list[float], reads: int, work: Callable[[], Any]) -> Any:
    began = time.perf_counter_ns()
    result = work()
    into.append((time.perf_counter_ns() - began) / reads)
    return result


def _same(peer: str, day: int, ours: Day, theirs: Day, rows: int) -> None:
    differs = ours.differs(theirs, rows)
    if differs:
        raise UsageError(f"{peer} and the engine differ on day {day} of the load: {differs}")


def blocks_of(load: Load, day: int, rows: int) -> Iterator[ReadBlock]:
    """One day of the load as blocks of many channels, as decoded."""
    devices = load.devices()
    for first in range(0, load.channels, rows):
        chosen = np.arange(first, min(first + rows, load.channels))
        values, states = load.day(day, chosen)
        size, lost = len(chosen), states == MISSING
        yield ReadBlock(
            id=f"{day}-{first}", payload=f"{day}-{first}", source="bench", format="", received_at=0,
            device=strings(devices[first : first + size]), channel=strings([CHANNEL] * size), unit=strings(["kWh"] * size),
            direction=np.ones(size, np.int8), start=np.full(size, (FIRST_DAY + day) * 86_400), seconds=np.full(size, SECONDS, np.int32),
            count=np.full(size, SLOTS, np.int32), reads=np.zeros(size, np.int32), multiplier=np.zeros(size, np.int64),
            values=np.where(lost, 0, values * 1000).ravel(),
            conditions=np.where(lost, REPORTED_MISSING, REGULAR).astype(np.int32).ravel(), times=np.zeros(0, np.int64),
        )  # fmt: skip


class Engine:
    """VEE and determinants of one partition with the topology as it comes, or (``bare``) with no rule but those that take reads in."""

    def __init__(self, *, bare: bool = False) -> None:
        topology = load_topology(None)
        settings = VeeSettings.model_validate(BARE) if bare else topology.vee
        self.vee = VeeFold(settings.within(topology.zone), 0, 1)
        self.determinants = DeterminantsFold(topology.determinants, 0, 1, topology.vee.hot_days)

    def fold(self, block: ReadBlock) -> tuple[list[Any], float, float]:
        """All outputs of a block, and nanoseconds per read of VEE and of the sums."""
        began = time.perf_counter_ns()
        decided = self.vee.apply(Message("ReadBlock", block, block.id, block.payload)).outputs
        between = time.perf_counter_ns()
        sums = []
        for output in decided:
            if output.type == "FinalBlock":
                sums += self.determinants.apply(Message("FinalBlock", output.body, output.body.id, block.payload, writer="vee-0")).outputs
        ended = time.perf_counter_ns()
        reads = len(block.values)
        return [*decided, *sums], (between - began) / reads, (ended - between) / reads


def result_of(block: ReadBlock, outputs: list[Any]) -> Day:
    """The engine's outputs as one row per row of the block. A day must have become final in one go."""
    row = {device: number for number, device in enumerate(block.device.to_pylist())}
    day = Day(np.full((len(row), SLOTS), -1, np.int64), np.zeros((len(row), SLOTS), np.int64))
    first = int(block.start[0]) // 86_400
    for output in outputs:
        body = output.body
        if isinstance(body, FinalBlock):
            which = np.flatnonzero(body.day == first)
            at = [row[device] for device in body.device.take(which).to_pylist()]
            day.values[at] = body.values.reshape(-1, SLOTS)[which]
            day.codes[at] = body.conditions.reshape(-1, SLOTS)[which]
        elif isinstance(body, DayBlock):
            _add_sums(day, body, row, first)
        elif output.type == "VeeException" and body["status"] == "open" and int(body["start"].timestamp()) // 86_400 == first:
            day.found.setdefault(body["rule"], {})[row[body["device"]]] = body["count"]
    return day


def _add_sums(day: Day, block: DayBlock, row: dict[str, int], number: int) -> None:
    begins = starts_of(block.lines)
    for at, device in enumerate(block.device.to_pylist()):
        if block.day[at] == number:
            for cell in range(int(begins[at]), int(begins[at]) + int(block.lines[at])):
                name = block.tou_names[int(block.tou[cell])]
                if name:
                    day.tou.setdefault(name, np.zeros(len(row), np.int64))[row[device]] = block.quantities[cell]


class Plain:
    """The rules read by read, as the peers of ``mdh bench pipeline`` run them; messages are made before the clock starts."""

    def __init__(self) -> None:
        self.states: dict[str, dict[str, Any]] = {}

    def fold(self, reads: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Results of the days that these reads complete."""
        results = []
        for read in reads:
            self.states[read["device"]], result = rules.take(self.states.get(read["device"]), read)
            if result is not None:
                results.append(result)
        return results

    @staticmethod
    def reads(block: ReadBlock, channels: int) -> list[dict[str, Any]]:
        """The reads of the first channels of a block, one by one."""
        values, codes = block.values.tolist(), block.conditions.tolist()
        return [
            {
                "device": device, "channel": CHANNEL, "unit": "kWh", "seconds": SECONDS, "start": int(block.start[row]) + slot * SECONDS,
                "value": values[row * SLOTS + slot] if codes[row * SLOTS + slot] == REGULAR else None,
            }
            for row, device in enumerate(block.device.to_pylist()[:channels])
            for slot in range(SLOTS)
        ]  # fmt: skip


def _of_python(results: list[dict[str, Any]]) -> Day:
    day = Day(np.array([r["values"] for r in results], np.int64), np.array([r["codes"] for r in results], np.int64))
    for row, result in enumerate(results):
        for rule, count in result["found"].items():
            day.found.setdefault(rule, {})[row] = count
        for name, quantity in result["tou"].items():
            day.tou.setdefault(name, np.zeros(len(results), np.int64))[row] = quantity
    return day
