"""``mdh bench pushes``: one fresh interval of each of many meters at a time, against the same reads as whole days.

In one process, with the real store (chDB): blocks and ticks go through the folds of VEE and determinants, records and changed state become
bytes, days are inserted. The clock is processor time. Before any figure is given, all ways must have led to the same final days.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Final

import numpy as np

from benchmarks.load import FIRST_DAY, SECONDS, SLOTS, Load
from benchmarks.vee import blocks_of
from connectors.clickhouse import migrate, rows
from connectors.clickhouse.store import Store, open_store
from mdh.errors import UsageError
from schemas.block import DayBlock, FinalBlock, ReadBlock
from schemas.codec import Codec
from schemas.topology import load_topology
from streams.determinants.fold import DeterminantsFold
from streams.runtime.fold import Message, Output
from streams.vee.fold import VeeFold

WARM: Final = 2  # days until rings and kernels are as they stay
TOGETHER: Final = 16  # messages in a transaction, at most
TICK: Final = 2  # seconds between ticks
AT_ONCE: Final = 10  # pushes between two ticks where a backlog is worked off
LIVE: Final = frozenset(("in_time", "hourly"))  # ways in which a push waits for no other
Say = Callable[[str], None]
Step = ReadBlock | int  # a block, or the time of a tick


@dataclass
class Chain:
    """VEE and determinants of one partition, and the store behind them."""

    gather: int | None = None  # None: as the topology comes
    store: Store | None = None
    codec: Codec = field(default_factory=Codec)
    days: dict[tuple[str, int], tuple[bytes, bytes]] = field(default_factory=dict)  # device, day → values, conditions
    published: int = 0  # rows of final days
    count: int = 0

    def __post_init__(self) -> None:
        topology = load_topology(None)
        vee = topology.vee.within(topology.zone)
        vee = vee if self.gather is None else vee.model_copy(update={"gather": self.gather})
        self.vee = VeeFold(vee, 0, 1)
        self.determinants = DeterminantsFold(topology.determinants, 0, 1, topology.vee.hot_days)

    def run(self, steps: Iterator[Step], together: int = TOGETHER) -> float:
        """Processor seconds of all steps, with all they lead to; so many at a time are one transaction."""
        began = time.process_time()
        while batch := list(islice(steps, together)):
            self._commit([output for step in batch for output in self._apply(step)])
        return time.process_time() - began

    def _apply(self, step: Step) -> list[Output]:
        kind, body = ("Tick", {"at": step, "close": False}) if isinstance(step, int) else ("ReadBlock", step)
        self.count += 1
        outputs = self.vee.apply(Message(kind, body, f"m{self.count}", "p")).outputs
        for number, output in enumerate(list(outputs)):
            outputs += self.determinants.apply(Message(output.type, output.body, f"m{self.count}.{number}", "p", writer="vee/0")).outputs
        return outputs

    def _commit(self, outputs: list[Output]) -> None:
        for output in outputs:
            (self.codec.encode(output.type, output.body) if isinstance(output.body, dict) else self.codec.encode_block(output.body))
        for fold in (self.vee, self.determinants):
            fold.state.take_changed()
        finals = [output.body for output in outputs if isinstance(output.body, FinalBlock)]
        sums = [output.body for output in outputs if isinstance(output.body, DayBlock)]
        for table, data in (("final_days", rows.final_days(finals)), ("determinant_days", rows.determinant_days(sums))):
            if self.store is not None and data is not None:
                self.store.insert_arrow(table, data)
        for block in finals:
            self._note(block)

    def _note(self, block: FinalBlock) -> None:
        self.published += len(block)
        ends = np.cumsum(block.count).tolist()
        for row, (device, day) in enumerate(zip(block.device.to_pylist(), block.day.tolist(), strict=True)):
            cells = slice(ends[row] - int(block.count[row]), ends[row])
            self.days[device, day] = (block.values[cells].tobytes(), block.conditions[cells].tobytes())


def run(channels: int, days: int, say: Say) -> dict[str, Any]:
    """The figures. Raises UsageError where ways led to different days."""
    load = Load(channels, WARM + days)
    whole = [block for day in range(load.days) for block in blocks_of(load, day, 2000)]
    per_day = len(whole) // load.days
    warm, rest = whole[: WARM * per_day], whole[WARM * per_day :]
    begin, end = (FIRST_DAY + WARM) * 86_400, (FIRST_DAY + WARM + days) * 86_400
    ways: dict[str, tuple[int | None, Callable[[], Iterator[Step]]]] = {
        "whole": (None, lambda: _whole(rest)),
        "each": (0, lambda: _in_time(rest)),
        "backlog": (None, lambda: _backlog(rest, end)),
        "in_time": (None, lambda: _in_time(rest)),
        "hourly": (3600, lambda: _in_time(rest)),
    }
    reads = channels * SLOTS * days
    figures: dict[str, Any] = {"reads": reads}
    seen: dict[str, Any] = {}
    for name, (gather, steps) in ways.items():
        with tempfile.TemporaryDirectory(prefix="mdh-bench-") as folder:
            store = open_store(f"chdb://{folder}/store")
            migrate.up(store)
            chain = Chain(gather, store)
            chain.run(iter([FIRST_DAY * 86_400, *warm, begin]))
            before = chain.published
            seconds = chain.run(steps(), 2 if name in LIVE else TOGETHER)
            store.close()
        chain.run(iter([end + 3600]))  # what was gathered last
        figures[f"{name}_ns"] = round(seconds / reads * 1e9, 1)
        figures[f"{name}_rows"] = chain.published - before
        seen[name] = {place: day for place, day in chain.days.items() if place[1] >= FIRST_DAY + WARM}
        if seen[name] != seen["whole"]:
            raise UsageError(f"days sent another way ({name}) did not become what they become as whole days")
        say(f"{name}: {figures[f'{name}_ns']:,} ns per read, {figures[f'{name}_rows']:,} rows of days")
    ratios = {f"ratio_{name}": round(figures[f"{name}_ns"] / figures["whole_ns"], 1) for name in ways if name != "whole"}
    return figures | ratios | {"equal": True}


def _whole(blocks: list[ReadBlock]) -> Iterator[Step]:
    for block in blocks:
        yield block
        yield int(block.start[0]) + 86_400


def _pushes(block: ReadBlock) -> Iterator[ReadBlock]:
    """A block of whole days interval by interval, as a head end sends it that polls all meters."""
    values, codes = block.values.reshape(-1, SLOTS), block.conditions.reshape(-1, SLOTS)
    for slot in range(SLOTS):
        yield replace(
            block, id=f"{block.id}/{slot}", start=block.start + slot * SECONDS, count=np.ones(len(block), np.int32),
            values=np.ascontiguousarray(values[:, slot]), conditions=np.ascontiguousarray(codes[:, slot]),
        )  # fmt: skip


def _in_time(blocks: list[ReadBlock]) -> Iterator[Step]:
    """Each push when its interval is over."""
    for block in blocks:
        for push in _pushes(block):
            yield int(push.start[0]) + SECONDS
            yield push
    yield int(blocks[-1].start[0]) + 86_400 + 3600


def _backlog(blocks: list[ReadBlock], now: int) -> Iterator[Step]:
    """One push behind the other, as they come where they had to wait."""
    for block in blocks:
        for number, push in enumerate(_pushes(block)):
            if number % AT_ONCE == 0:
                now += TICK
                yield now
            yield push
    yield now + 3600
