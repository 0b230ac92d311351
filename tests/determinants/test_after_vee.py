"""Determinants of what VEE really publishes: late, repeated and contradicting reads, estimates replaced by reads, days recalled."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from schemas.block import FinalBlock, ReadBlock, strings
from schemas.conditions import EXT_ESTIMATE, REGULAR, REPORTED_MISSING
from schemas.topology import load_topology
from schemas.topology.tou import DeterminantsSettings
from streams.runtime.fold import Message
from streams.vee.fold import VeeFold
from tests.conftest import ROOT
from tests.determinants.kit import Hub, Row, finals, slow_determinants, told

ZONE, START = "Europe/Berlin", 1_711_494_000  # 27 March 2024, local midnight; clocks go forward on the 31st


def reads(device: str, start: int, values: list[int], codes: list[int], name: str) -> ReadBlock:
    size = np.array([len(values)], np.int32)
    return ReadBlock(
        id=name, payload=name, source="s", format="f", received_at=0,
        device=strings([device]), channel=strings(["E1"]), unit=strings(["kWh"]),
        direction=np.array([1], np.int8), start=np.array([start]), seconds=np.array([1800], np.int32), count=size,
        reads=np.zeros(1, np.int32), multiplier=np.zeros(1, np.int64), values=np.array(values), conditions=np.array(codes, np.int32),
        times=np.zeros(0, np.int64),
    )  # fmt: skip


class Chain:
    """VEE and determinants side by side, with a store that answers recalls; keeps the newest version of each final day."""

    def __init__(self, hot_days: int, determinants: DeterminantsSettings | None = None) -> None:
        settings = load_topology(ROOT / "topology.yaml").vee
        self.vee = VeeFold(settings.model_copy(update={"hot_days": hot_days, "zone": ZONE}), 0, 1)
        self.hub = Hub(determinants, hot_days=hot_days)
        self.stored: dict[tuple[str, int], FinalBlock] = {}
        self.recalls = 0
        self._count = 0

    def send(self, kind: str, body: Any) -> None:
        self._count += 1
        asked = []
        for output in self.vee.apply(Message(kind, body, f"v{self._count}", "p")).outputs:
            if output.topic != "reads.final":
                continue
            self.hub.send(output.type, output.body)
            if output.type == "FinalBlock":
                for row, device in enumerate(output.body.device.to_pylist()):
                    self.stored[device, int(output.body.day[row])] = output.body.take(np.array([row]))
            elif output.type == "Recall":
                asked += [(device, day) for device, _, _, day in output.body.places()]
        self.recalls += len(asked)
        for device, day in asked:
            found = [self.stored[device, d] for d in (day - 1, day, day + 1) if (device, d) in self.stored]
            nothing = Row(day, [], device=device, unit="", account="", service_point="", zone="UTC", seconds=1800, version=0)
            self.send("FinalBlock", FinalBlock.join(found) if found else finals([nothing]))

    def newest(self) -> list[Row]:
        found = []
        for (device, day), one in self.stored.items():
            row = Row(
                day, one.values.tolist(), one.conditions.tolist(), device=device, account="", service_point="", zone=ZONE, seconds=1800
            )
            row.state = int(one.state[0])
            found.append(row)
        return found


@pytest.mark.parametrize(("seed", "hot_days"), [(1, 2), (5, 2), (3, 5), (2, 3), (4, 3)])
def test_determinants_follow_the_newest_final_days(seed: int, hot_days: int) -> None:
    rng, chain = random.Random(seed), Chain(hot_days)
    now = START
    for step in range(90):
        device = rng.choice(["m1", "m2", "m3"])
        late = rng.choice([0, 0, 0, 1, 3, 20]) * 48
        first = max(0, step * 16 - rng.randint(0, 30) - late)
        size = rng.randint(1, 60)
        codes = [rng.choice([REPORTED_MISSING, EXT_ESTIMATE]) if rng.random() < 0.1 else REGULAR for _ in range(size)]
        values = [0 if code == REPORTED_MISSING else rng.randint(-1, 900) * 1000 for code in codes]
        chain.send("ReadBlock", reads(device, START + first * 1800, values, codes, f"r{step}"))
        if rng.random() < 0.4:
            now = max(now, START + step * 16 * 1800)
            chain.send("Tick", {"at": now, "close": False})
    chain.send("Tick", {"at": now + 90 * 86_400, "close": True})
    chain.send("Tick", {"at": now + 91 * 86_400, "close": True})  # bills what answers from the store changed after the first
    assert chain.recalls > 5
    assert not chain.hub.figures
    assert told(chain.hub) == slow_determinants(chain.newest())
    assert {body["status"] for body in chain.hub.sent} >= {"held"}
