"""A toy agent for runtime tests: counts the bytes of each key; forwards each count; refuses b"poison"."""

from __future__ import annotations

import numpy as np

from schemas.codec import Codec
from streams.runtime.fold import Message, Output, Result
from streams.runtime.lane import Plan
from streams.runtime.state import Column, State, Table

PARTITIONS = {"in": 2, "middle": 2, "out": 2, "first.state": 2, "second.state": 2, "hub.receipts": 2, "first.dlq": 2}
CODEC = Codec()


class CountFold:
    """Counts messages per key and says the count as a Tick's ``at``."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.state = State(lambda _: Table({"count": Column(np.int64)}))

    def apply(self, message: Message) -> Result:
        table = self.state.table("counts")
        row = table.add([message.key.decode()])
        table["count"][row] += 1
        table.mark(row)
        if message.body == b"poison":
            raise RuntimeError("cannot stomach this")
        count = int(table["count"][row[0]])
        return Result([Output(self.target, "Tick", {"at": count, "close": False}, message.key)], {"finals": 1})


def plan(agent: str) -> Plan:
    """``first`` reads raw bytes from ``in`` and writes ``middle``; ``second`` reads that and writes ``out``."""
    first = agent == "first"
    return Plan(
        system="toy",
        agent=agent,
        inbox=None if first else "middle",
        plain=frozenset({"in"}) if first else frozenset(),
        raw=frozenset({"in"}) if first else frozenset(),
        sparse=frozenset(),
        state=f"{agent}.state",
        partitions=PARTITIONS,
        stored=frozenset({"out"}),
        inboxes={"middle": 1},
        letters="first.dlq" if first else "",
    )
