"""``mdh bench late``: days that have left VEE's state and come again, against days that come in time.

In one process, with the real store (chDB): blocks go through the VEE fold, what it publishes is inserted, what it asks for is answered by
the sink's own query. Both get the same channels and as many days; the clock is the processor time of all of it. Before any figure is
given, the late days must have become what they become where VEE still holds them.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from benchmarks.load import Load
from connectors.clickhouse import migrate, rows
from connectors.clickhouse.sink import Recall, stored_days
from connectors.clickhouse.store import Store, open_store
from connectors.head_end.formats import Options, decode
from mdh.errors import UsageError
from schemas.block import FinalBlock, ReadBlock, RecallBlock
from schemas.topology import load_topology
from streams.runtime.fold import Message
from streams.vee.fold import VeeFold

WARM: Final = 3  # days until rings and kernels are as they stay
LATE: Final = 5
Say = Callable[[str], None]


@dataclass
class Chain:
    """A VEE fold and a store that answers it."""

    hot_days: int
    store: Store | None = None
    recalls: int = 0
    asked: int = 0
    days: dict[tuple[str, int], tuple[int, bytes, bytes]] = field(default_factory=dict)  # device, day → version, values, conditions
    count: int = 0

    def __post_init__(self) -> None:
        vee = load_topology(None).vee
        self.fold = VeeFold(vee.model_copy(update={"hot_days": self.hot_days, "zone": "UTC"}), 0, 1)

    def send(self, block: ReadBlock | FinalBlock) -> float:
        """Processor seconds until nothing that the block led to is left to do."""
        self.count += 1
        began = time.process_time()
        outputs = self.fold.apply(Message(block.SCHEMA, block, f"m{self.count}", "p")).outputs
        finals = [output.body for output in outputs if isinstance(output.body, FinalBlock)]
        table = rows.final_days(finals)
        if self.store is not None and table is not None:
            self.store.insert_arrow("final_days", table)
        seconds = time.process_time() - began
        for final in finals:
            self._note(final)
        for asked in [output.body for output in outputs if isinstance(output.body, RecallBlock)]:
            assert self.store is not None
            self.recalls, self.asked = self.recalls + 1, self.asked + len(asked)
            began = time.process_time()
            answer = stored_days(self.store, [Recall(f"r{self.recalls}", "p", asked)])[0]
            seconds += time.process_time() - began + self.send(answer)
        return seconds

    def _note(self, block: FinalBlock) -> None:
        ends = np.cumsum(block.count).tolist()
        for row, (device, day) in enumerate(zip(block.device.to_pylist(), block.day.tolist(), strict=True)):
            cells = slice(ends[row] - int(block.count[row]), ends[row])
            self.days[device, day] = (int(block.version[row]), block.values[cells].tobytes(), block.conditions[cells].tobytes())


def run(channels: int, say: Say) -> dict[str, Any]:
    """The figures."""
    hot_days = load_topology(None).vee.hot_days
    total = WARM + LATE + hot_days + 1
    load = Load(channels, total)
    blocks = [block for _, name, data in load.payloads() for block in decode(data, Options(name=name, payload=name, source="b")).blocks]
    per_day = len(blocks) // total
    again = [_changed(block) for block in blocks[: LATE * per_day]]
    with tempfile.TemporaryDirectory(prefix="mdh-bench-") as folder:
        store = open_store(f"chdb://{folder}/store")
        migrate.up(store)
        chain = Chain(hot_days, store)
        say(f"in time: {channels:,} channels × {total} days")
        seconds = [chain.send(block) for block in blocks]
        hot = sum(seconds[WARM * per_day : (WARM + LATE) * per_day])
        say(f"late: {channels:,} channels × {LATE} days")
        late = sum(chain.send(block) for block in again)
        store.close()
    held = Chain(total + 1)
    for block in (*blocks, *again):
        held.send(block)
    if [day[1:] for _, day in sorted(chain.days.items())] != [day[1:] for _, day in sorted(held.days.items())]:
        raise UsageError("late days did not become what they become in time")
    days = channels * LATE
    return {
        "channel_days": days, "hot_us_per_channel_day": round(hot / days * 1e6, 1), "late_us_per_channel_day": round(late / days * 1e6, 1),
        "ratio_late_to_hot": round(late / hot, 1), "recalls": chain.recalls, "days_recalled": chain.asked, "equal": True,
    }  # fmt: skip


def _changed(block: ReadBlock) -> ReadBlock:
    """The block sent again with other values in a third of its slots."""
    columns = {name: getattr(block, name) for name in ReadBlock.__slots__}
    values = block.values + np.where((np.arange(len(block.values)) % 3 == 0) & (block.conditions > 0), 1_000_000, 0)
    return ReadBlock(**columns | {"id": f"{block.id}-again", "values": values})
