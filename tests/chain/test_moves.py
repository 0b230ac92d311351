"""Accounts, service points and multipliers that change back in time: what every account is told is what a rebuild would tell."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdh.agents import plans_and_folds
from schemas.block import FinalBlock, RecallBlock, starts_of
from schemas.codec import Codec
from schemas.identity import partition_of
from schemas.topology import load_topology
from streams.runtime.lane import PAYLOAD
from streams.runtime.replay import Pipeline
from streams.vee.older import StoredReading, answer, around
from tests.vee.driver import empty_answer

CODEC = Codec()
TOPOLOGY = load_topology(None)
AGENTS = ["ingest", "vee", "determinants"]
DAY = 86_400
START = 1_742_256_000  # 2025-03-18, a Tuesday; 14 days on lies in the next month
DAYS = 16
MICRO = 1_000_000
Use = tuple[int | None, int | None, str | None, str | None, int | None]  # from, to (hours from START), account, point, multiplier


def periods(uses: list[Use]) -> list[dict[str, Any]]:
    def at(hour: int | None) -> int | None:
        return None if hour is None else START + hour * 3600

    return [
        {"from": at(a), "to": at(b), "state": "connected", "service_point": point, "account": account, "multiplier": multiplier,
         "unit": None}
        for a, b, account, point, multiplier in uses
    ]  # fmt: skip


def master(channel: str, seconds: int, uses: list[Use]) -> dict[str, Any]:
    _, _, account, point, multiplier = uses[-1]
    return {
        "device": "m1", "channel": channel, "unit": "kWh", "seconds": seconds, "account": account, "service_point": point,
        "multiplier": multiplier, "periods": periods(uses), "dials": 6, "zone": "UTC",
    }  # fmt: skip


@dataclass
class Chain:
    """Ingest, VEE and determinants in memory, and a store that answers what VEE asks for."""

    pipeline: Pipeline = field(default_factory=lambda: Pipeline(plans_and_folds(TOPOLOGY, AGENTS)))
    answered: set[bytes] = field(default_factory=set)
    days: dict[tuple[Any, ...], FinalBlock] = field(default_factory=dict)
    readings: dict[tuple[str, int], tuple[Any, ...]] = field(default_factory=dict)
    methods: dict[tuple[str, int], int] = field(default_factory=dict)
    seen: dict[int, int] = field(default_factory=dict)
    asked: int = 0

    def publish(self, topic: str, key: str, value: bytes, id_: str) -> None:
        headers = {"id": id_.encode(), "source": b"hes", "received_at": b"1745000000"}
        self.pipeline.publish(topic, partition_of(key, TOPOLOGY.partitions), key.encode(), value, headers)

    def master(self, body: dict[str, Any], number: int) -> None:
        """Master data; numbers make records differ."""
        self.publish("master.data", "m1", CODEC.encode("MasterChannel", body), f"m{number}{body['channel']}")

    def reads(self, day: int, values: list[float | None], number: int) -> None:
        rows = [{"device": "m1", "channel": "E1", "unit": "kWh", "seconds": 3600, "start": iso(START + day * DAY), "values": values}]
        self.publish("hes.reads", "hes", orjson.dumps({"source": "hes", "reads": rows}), f"p{number}")

    def reading(self, day: int, value: float, number: int) -> None:
        readings = [{"at": iso(START + day * DAY), "value": value}]
        rows = [{"device": "m1", "channel": "R1", "unit": "kWh", "readings": readings}]
        self.publish("hes.reads", "hes", orjson.dumps({"source": "hes", "reads": rows}), f"r{number}")

    def run(self) -> None:
        """Runs until nothing is left to do or to answer."""
        self.pipeline.run()
        while asked := self._store():
            for record, body in asked:
                places = body.places()
                headers = {"id": b"recall/" + record.headers["mdh-id"], PAYLOAD: record.headers.get(PAYLOAD, b"")}
                value = CODEC.encode_block(FinalBlock.join([self._given(*place) for place in places]))
                self.pipeline.publish("vee.recalled", partition_of("m1", TOPOLOGY.partitions), b"m1", value, headers)
            self.pipeline.run()

    def _given(self, device: str, channel: str, seconds: int, day: int) -> FinalBlock:
        """A day, or a window of register readings, as the store has it."""
        if seconds:
            return self.days.get((device, channel, seconds, day)) or empty_answer(device, channel, seconds, day)
        own = sorted((at, *told[:3], self.methods[name, at]) for (name, at), told in self.readings.items() if name == channel and told[2])
        held = [StoredReading(at, value, condition, method, version) for at, version, value, condition, method in own]
        return answer(device, channel, "kWh", day, around(held, day))

    def _store(self) -> list[tuple[Any, RecallBlock]]:
        """Takes finals in; what is asked for is to be found in the partition that asks, before the question."""
        asked = []
        for number, log in enumerate(self.pipeline.topics["reads.final"]):
            for record in log[self.seen.get(number, 0) :]:
                body = CODEC.decode(record.value)
                if isinstance(body, FinalBlock):
                    self._keep_readings(body)
                    for row in np.flatnonzero(body.seconds > 0).tolist():
                        one = body.take(np.array([row]))
                        place = (one.device[0].as_py(), one.channel[0].as_py(), int(one.seconds[0]), int(one.day[0]))
                        if place not in self.days or self.days[place].version[0] < one.version[0]:
                            self.days[place] = one
                elif isinstance(body, RecallBlock):
                    asked.append((record, body))
                    self.asked += len(body)
            self.seen[number] = len(log)
        return asked

    def _keep_readings(self, body: FinalBlock) -> None:
        begins, times = starts_of(body.count), starts_of(body.reads)
        for row in np.flatnonzero(body.reads > 0).tolist():
            for k in range(int(body.reads[row])):
                place = (body.channel[row].as_py(), int(body.times[times[row] + k]))
                told = (int(body.values[begins[row] + k]), int(body.conditions[begins[row] + k]))
                owner = (body.account[row].as_py(), body.service_point[row].as_py(), int(body.multiplier[row]))
                if place not in self.readings or self.readings[place][0] < body.version[row]:
                    self.methods[place] = int(body.methods[begins[row] + k])
                    self.readings[place] = (int(body.version[row]), *told, *owner)

    def close(self) -> None:
        for at in (1_750_000_000, 1_750_100_000):
            for number in range(TOPOLOGY.partitions):
                self.pipeline.publish("hub.ticks", number, b"", CODEC.encode("Tick", {"at": at}), {"id": b"tick/%d/%d" % (at, number)})
            self.run()

    def records(self, topic: str, kind: str) -> list[dict[str, Any]]:
        logs = self.pipeline.topics[topic]
        return [CODEC.decode(r.value) for log in logs for r in log if CODEC.name_of(r.value) == kind]

    def outcome(self) -> dict[str, Any]:
        """What a reader of the store, of billing and of usage events sees in the end."""
        finals = {
            place: (one.account[0].as_py(), one.service_point[0].as_py(), int(one.multiplier[0]), int(one.state[0]),
                    one.values.tolist(), one.conditions.tolist())
            for place, one in self.days.items()
        }  # fmt: skip
        readings = {place: told[1:] for place, told in self.readings.items()}
        return {"finals": finals, "readings": readings, "determinants": self._determinants(), "events": self._events()}

    def _determinants(self) -> dict[Any, Any]:
        names = ("account", "device", "channel", "unit", "kind", "tou", "period_start")
        told = ("quantity", "condition", "slots", "actual", "estimated", "status")
        return self._newest("billing.determinants", "Determinant", names, told)

    def _events(self) -> dict[Any, Any]:
        names = ("account", "device", "channel", "unit", "measure", "grain", "start")
        told = ("quantity", "lines", "condition", "slots", "actual", "estimated", "missing", "status", "service_point")
        return self._newest("usage.events", "UsageEvent", names, told)

    def _newest(self, topic: str, kind: str, names: tuple[str, ...], told: tuple[str, ...]) -> dict[Any, Any]:
        newest: dict[Any, dict[str, Any]] = {}
        for body in self.records(topic, kind):
            key = tuple(body[name] for name in names)
            if key not in newest or newest[key]["version"] < body["version"]:
                newest[key] = body
        for body in newest.values():
            assert body["slots"] or not body["quantity"]
        return {key: [body[name] for name in told] for key, body in newest.items() if body["slots"]}


def iso(at: int) -> str:
    return str(np.datetime64(at, "s")) + "Z"


@st.composite
def histories(draw: st.DrawFn) -> list[Use]:
    cuts = sorted(draw(st.sets(st.integers(0, DAYS * 24), max_size=2)))
    bounds = [None, *cuts, None]
    who = st.tuples(st.sampled_from(["A", "B", None]), st.sampled_from(["P", "Q"]), st.sampled_from([MICRO, 20 * MICRO]))
    return [(a, b, *draw(who)) for a, b in pairwise(bounds)]


def values_of(day: int) -> list[float | None]:
    values: list[float | None] = [round(1.0 + day + (k % 7) / 10, 3) for k in range(24)]
    if day % 5 == 2:
        values[3:5] = [None, None]
    return values


def story(histories_: list[tuple[int, list[Use]]], order: list[int], restart: bool = False) -> Chain:
    """Days come in ``order``; master data before the given number of them."""
    chain, number = Chain(), 0
    for step, day in enumerate([*order, None]):
        for at, uses in histories_:
            if at == step:
                number += 1
                chain.master(master("E1", 3600, uses), number)
                chain.master(master("R1", 0, uses), number)
                chain.run()
        if restart and step % 5 == 3:
            for lane in range(TOPOLOGY.partitions):
                for agent in AGENTS:
                    chain.pipeline.restart(agent, lane)
        if day is not None:
            chain.reads(day, values_of(day), day)
            chain.reading(day, 100.0 + 40 * day + day * day, day)
            chain.run()
    chain.close()
    return chain


@given(
    moves=st.lists(st.tuples(st.integers(1, DAYS), histories()), min_size=1, max_size=2), first=histories(),
    late=st.lists(st.integers(0, DAYS - 1), max_size=3, unique=True), restart=st.booleans(),
)  # fmt: skip
@settings(max_examples=8, deadline=None)
def test_a_move_told_late_ends_as_one_that_was_known(
    moves: list[tuple[int, list[Use]]], first: list[Use], late: list[int], restart: bool
) -> None:
    order = [day for day in range(DAYS) if day not in late] + late
    known = sorted(moves, key=lambda move: move[0])
    changed = story([(0, first), *known], order, restart)
    rebuilt = story([(0, known[-1][1])], order)
    assert changed.outcome() == rebuilt.outcome()


def test_only_the_days_that_changed_hands_are_published_again() -> None:
    owner: list[Use] = [(None, None, "A", "P", MICRO)]
    moved: list[Use] = [(None, 8 * 24, "A", "P", MICRO), (8 * 24, None, "B", "P", MICRO)]
    chain = Chain()
    chain.master(master("E1", 3600, owner), 1)
    chain.run()
    for day in range(12):
        chain.reads(day, [1.0] * 24, day)
        chain.run()
    before = {place: int(one.version[0]) for place, one in chain.days.items()}
    assert chain.asked == 0
    chain.master(master("E1", 3600, moved), 2)
    chain.run()
    again = sorted(place[3] - START // DAY for place, one in chain.days.items() if before[place] != one.version[0])
    assert again == [8, 9, 10, 11]
    assert chain.asked == 3  # days 8 and 9, and the day beside them; 10 and 11 are still in the state
    told = {(body["account"], body["day"]): body for body in chain.records("usage.events", "UsageEvent")}
    assert [str(told["A", f"2025-03-{18 + day}"]["quantity"]) for day in (7, 8, 11)] == ["24.000000", "0.000000", "0.000000"]
    assert [str(told["B", f"2025-03-{18 + day}"]["quantity"]) for day in (8, 11)] == ["24.000000", "24.000000"]
    assert told["B", "2025-03-26"]["replaces"] == told["B", "2025-03-29"]["replaces"] == ""  # nothing was told to this account
    assert told["A", "2025-03-26"]["replaces"] != ""


def test_readings_that_changed_hands_leave_the_old_account() -> None:
    owner: list[Use] = [(None, None, "A", "P", MICRO)]
    moved: list[Use] = [(None, 8 * 24, "A", "P", MICRO), (8 * 24, None, "B", "P", MICRO)]
    chain = Chain()
    chain.master(master("R1", 0, owner), 1)
    chain.run()
    for day in range(11):
        chain.reading(day, 100.0 + 10 * day, day)
        chain.run()
    chain.master(master("R1", 0, moved), 2)
    chain.run()
    newest: dict[tuple[str, str], dict[str, Any]] = {}
    owner_of: dict[int, tuple[int, str]] = {}  # the store has one row per device, channel and day: the highest version
    for block in [CODEC.decode(r.value) for log in chain.pipeline.topics["determinants.daily"] for r in log]:
        for row, day in enumerate(block.day.tolist()):
            owner_of[day] = max(owner_of.get(day, (0, "")), (int(block.version[row]), block.account[row].as_py()))
    assert [account for _, (_, account) in sorted(owner_of.items())][-3:] == ["A", "B", "B"]
    for body in chain.records("usage.events", "UsageEvent"):
        key = (body["account"], body["day"])
        assert key not in newest or newest[key]["version"] < body["version"]
        newest[key] = body
    told = {key: (str(body["quantity"]), body["slots"]) for key, body in newest.items() if int(key[1][-2:]) > 23}
    # the reading of the 26th is the first of the new account: what lies before it belongs to nobody
    assert told == {
        ("A", "2025-03-24"): ("10.000000", 2), ("A", "2025-03-25"): ("0.000000", 0), ("A", "2025-03-26"): ("0.000000", 0),
        ("A", "2025-03-27"): ("0.000000", 0), ("B", "2025-03-26"): ("10.000000", 2), ("B", "2025-03-27"): ("10.000000", 2),
    }  # fmt: skip


@pytest.mark.parametrize("last", [None, 2])
def test_a_reading_older_than_the_state_goes_its_way_through_the_chain(last: int | None) -> None:
    """Ingest sends the window on to VEE, and what VEE makes of it is what it would have been in time."""
    chains = []
    for late in (last, None):
        chain = Chain()
        chain.master(master("R1", 0, [(None, None, "A1", "P1", MICRO)]), 0)
        for day in [*(d for d in range(45) if d != late), *([late] if late is not None else [])]:
            chain.reading(day - 20, 100.0 + 10 * day, day)
        chain.run()
        chains.append(chain)
    first, other = ({place: told[1:] for place, told in chain.readings.items()} for chain in chains)
    assert len(first) == 45
    assert first == other
    assert chains[0].asked == (1 if last is not None else 0)
