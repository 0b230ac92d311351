"""Finals carry the account, service point and multiplier that hold on their day, and go where that account's finals go."""

from __future__ import annotations

from typing import Any

import numpy as np

from schemas.block import ReadBlock, strings
from schemas.conditions import REGULAR
from schemas.identity import partition_of
from schemas.topology.vee import VeeSettings
from streams.runtime.fold import Message
from streams.vee.fold import VeeFold

DAY = 86_400
FIRST = 20_000 * DAY
PARTITIONS = 4


def master(*uses: tuple[int | None, int | None, str, int]) -> dict[str, Any]:
    periods = [
        {"from": a, "to": b, "state": "connected", "service_point": "SP", "account": account, "multiplier": multiplier, "unit": None}
        for a, b, account, multiplier in uses
    ]
    last = periods[-1]
    return {"device": "D", "channel": "c", "unit": "kWh", "seconds": 3600, "service_point": "SP", "account": last["account"],
            "multiplier": last["multiplier"], "periods": periods}  # fmt: skip


def reads(day: int, name: str) -> ReadBlock:
    return ReadBlock(
        id=name, payload=name, source="s", format="f", received_at=0, device=strings(["D"]), channel=strings(["c"]), unit=strings(["kWh"]),
        direction=np.array([1], np.int8), start=np.array([FIRST + day * DAY]), seconds=np.array([3600], np.int32),
        count=np.array([24], np.int32), reads=np.zeros(1, np.int32), multiplier=np.zeros(1, np.int64),
        values=np.arange(24) * 1000 + 1_000_000, conditions=np.full(24, REGULAR, np.int32), times=np.zeros(0, np.int64),
    )  # fmt: skip


class Vee:
    def __init__(self) -> None:
        self.fold = VeeFold(VeeSettings.default().model_copy(update={"zone": "UTC"}), 0, PARTITIONS)
        self.rows: dict[bytes, bytes | None] = {}
        self.count = 0

    def send(self, kind: str, body: Any) -> list[tuple[int, str, int, int | None]]:
        """Day, account, multiplier and partition of each final row that came of a message."""
        self.count += 1
        outputs = self.fold.apply(Message(kind, body, f"m{self.count}", "p")).outputs
        self.rows |= dict(self.fold.state.take_changed())
        finals = [output for output in outputs if output.type == "FinalBlock"]
        assert len({output.body.id for output in finals}) == len(finals)
        return [
            (int(day) - 20_000, account, int(multiplier) // 1_000_000, output.partition)
            for output in finals
            for day, account, multiplier in zip(output.body.day, output.body.account.to_pylist(), output.body.multiplier, strict=True)
        ]

    def restart(self) -> None:
        self.fold = VeeFold(VeeSettings.default().model_copy(update={"zone": "UTC"}), 0, PARTITIONS)
        for key, value in self.rows.items():
            self.fold.state.load(key, value)


def test_a_move_that_is_known_ahead_changes_nothing_before_its_day() -> None:
    vee = Vee()
    vee.send("MasterChannel", master((None, FIRST + 2 * DAY, "old", 40_000_000), (FIRST + 2 * DAY, None, "new", 50_000_000)))
    told = []
    for day in (0, 1, 2, 3):
        told += vee.send("ReadBlock", reads(day, f"r{day}"))
        vee.restart()
    old, new = (partition_of(name, PARTITIONS) for name in ("old", "new"))
    assert told == [(0, "old", 40, old), (1, "old", 40, old), (2, "new", 50, new), (3, "new", 50, new)]


def test_late_reads_go_to_who_used_the_channel_then() -> None:
    vee = Vee()
    vee.send("MasterChannel", master((None, FIRST + DAY, "old", 40_000_000), (FIRST + DAY, None, "new", 40_000_000)))
    assert [row[1] for row in vee.send("ReadBlock", reads(1, "b"))] == ["new"]
    assert [row[1] for row in vee.send("ReadBlock", reads(0, "a"))] == ["old"]


def test_both_accounts_hear_of_the_channel() -> None:
    vee = Vee()
    vee.count += 1
    body = master((None, FIRST, "old", 1_000_000), (FIRST, None, "new", 1_000_000))
    outputs = vee.fold.apply(Message("MasterChannel", body, "m", "p")).outputs
    assert {o.partition for o in outputs if o.type == "MasterChannel"} == {partition_of(name, PARTITIONS) for name in ("old", "new")}
