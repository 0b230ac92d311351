"""The whole chain in memory: the same inbox twice gives the same bytes, and crashes at any step leave no trace."""

from __future__ import annotations

import random
from datetime import date

import orjson
import pytest

from connectors.enterprise.master import parse_master
from mdh.agents import plans_and_folds
from mdh.simulation.head_end import HeadEnd, Settings
from schemas.codec import Codec
from schemas.identity import partition_of
from schemas.topology import load_topology
from streams.runtime.lane import Lane, Record
from streams.runtime.replay import Pipeline

CODEC = Codec()
TOPOLOGY = load_topology(None)
RATES = dict.fromkeys(("spike", "negative", "gap", "missing", "zero", "duplicate", "unknown"), 0.03)


def feed(pipeline: Pipeline, *, days: int = 3) -> None:
    head_end = HeadEnd(Settings(meters=24, days=days, seconds=1800, rates=RATES, chunk=6, start=date(2025, 3, 28), registers=True))
    for number in range(TOPOLOGY.partitions):
        pipeline.publish("master.data", number, b"", CODEC.encode("MasterPresent", {"at": 0}), {"id": b"present-%d" % number})
    for record in parse_master(b"\n".join(map(orjson.dumps, head_end.master())))[0]:
        key = record["device"]
        pipeline.publish("master.data", partition_of(key, TOPOLOGY.partitions), key.encode(), CODEC.encode("MasterChannel", record))
    for payload in head_end.payloads():
        headers = {"id": payload.name.encode(), "source": b"hes", "received_at": b"1743000000"}
        pipeline.publish("hes.reads", 1, b"hes", payload.data, headers)


def tick(pipeline: Pipeline, at: int) -> None:
    for number in range(TOPOLOGY.partitions):
        pipeline.publish("hub.ticks", number, b"", CODEC.encode("Tick", {"at": at}), {"id": f"tick/{at}/{number}".encode()})


@pytest.fixture(scope="module")
def finished() -> Pipeline:
    pipeline = Pipeline(plans_and_folds(TOPOLOGY))
    feed(pipeline)
    pipeline.run()
    tick(pipeline, 1_750_000_000)
    pipeline.run()
    return pipeline


@pytest.mark.parametrize("agent", ["ingest", "vee", "determinants", "insights"])
def test_the_same_inbox_twice_gives_the_same_bytes(finished: Pipeline, agent: str) -> None:
    plan, make = finished.agents[agent]

    def replay(partition: int) -> tuple[list[Record], str]:
        lane = Lane(plan, partition, make, CODEC)
        outputs: list[Record] = []
        for topic in sorted(plan.reads):
            for record in finished.log(topic, partition):
                assert lane.is_next(record)
                outputs += lane.apply(record)
        return outputs, lane.fold.state.digest()

    written = 0
    for partition in range(TOPOLOGY.partitions):
        first, second = replay(partition), replay(partition)
        assert first == second
        written += len(first[0])
    assert written > 100


def test_a_lane_restored_at_any_point_goes_on_as_if_nothing_had_happened(finished: Pipeline) -> None:
    wild = Pipeline(plans_and_folds(TOPOLOGY))
    feed(wild)
    rng = random.Random(5)

    def run() -> None:
        while waiting := wild.waiting():
            for old, record in waiting:
                lane = wild.lanes[old.plan.agent, old.partition]  # not the one restarted a moment ago
                if rng.random() < 0.1:
                    lane.is_next(record)
                    lane.apply(record)  # folded, then killed before the commit
                    lane = wild.restart(lane.plan.agent, lane.partition)
                wild.step(lane, record)

    run()
    tick(wild, 1_750_000_000)
    run()
    for topic in ("reads.final", "vee.exceptions", "determinants.daily", "billing.determinants", "hub.receipts"):
        assert wild.topics[topic] == finished.topics[topic], topic


def test_nothing_in_a_topic_names_what_it_is_not(finished: Pipeline) -> None:
    for topic, declared in TOPOLOGY.topics.items():
        if declared.records and declared.records != ["raw"]:
            for log in finished.topics.get(topic, []):
                assert {CODEC.name_of(record.value) for record in log} <= set(declared.records), topic
