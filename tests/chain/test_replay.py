"""The whole chain in memory: the same inbox twice gives the same bytes, and crashes at any step leave no trace."""

from __future__ import annotations

import random
from datetime import date

import numpy as np
import orjson
import pytest

from connectors.enterprise.master import parse_master
from connectors.head_end.formats import Options, decode
from mdh.agents import plans_and_folds
from mdh.commands.vee import Bench
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


@pytest.mark.parametrize("agent", ["ingest", "vee", "determinants", "insights", "todo"])
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
    for topic in ("reads.final", "vee.exceptions", "determinants.daily", "billing.determinants", "todo.items", "hub.receipts"):
        assert wild.topics[topic] == finished.topics[topic], topic


@pytest.mark.parametrize("agent", ["vee", "determinants", "insights"])
def test_a_lost_state_is_rebuilt_from_the_inbox_and_nothing_counts_twice(finished: Pipeline, agent: str) -> None:
    plan, make = finished.agents[agent]
    (inbox,) = plan.reads
    written = {
        (record.topic, record.partition, record.headers["mdh-writer"], record.headers["mdh-seq"]): (
            record.key,
            record.value,
            record.headers,
        )
        for logs in finished.topics.values()
        for log in logs
        for record in log
        if "mdh-writer" in record.headers
    }
    again = 0
    for partition in range(TOPOLOGY.partitions):
        lane = Lane(plan, partition, make, CODEC)  # begins with nothing
        for record in finished.log(inbox, partition):
            assert lane.is_next(record)
            for output in lane.apply(record):  # whoever reads it knows it by writer and number, the store by its id
                number = output.headers["mdh-seq"]
                known = written[output.topic, output.partition, lane.writer.encode(), number]
                assert (output.key, output.value, output.headers) == known
                again += 1
        assert lane.fold.state.digest() == finished.lanes[agent, partition].fold.state.digest()
    assert again > 50


def test_a_record_an_inbox_refused_is_put_back_by_a_replay_of_its_dead_letter(finished: Pipeline) -> None:
    wild = Pipeline(plans_and_folds(TOPOLOGY))
    feed(wild)
    refused = 0
    while waiting := wild.waiting():
        for lane, record in waiting:
            block = lane.plan.agent == "vee" and CODEC.name_of(record.value or b"") == "ReadBlock"
            if not (block and record.offset % 3 == 0 and not record.headers.get("mdh-payload", b"").startswith(b"again")):
                wild.step(lane, record)
                continue
            assert lane.is_next(record)
            letters = [wild._append(it) for it in lane.refuse(record, ValueError("a bad day"))]
            for row in lane.take_changed():
                wild.states["vee", lane.partition][row.key] = row.value
            letter = next(it for it in letters if it.topic == "vee.inbox.dlq")
            assert letter.value == record.value
            refused += 1
            to = {"id": b"again-%d" % refused, "inbox": b"vee.inbox", "partition": str(lane.partition).encode()}
            wild.publish("hub.replays", refused % TOPOLOGY.partitions, letter.key, letter.value, to)
    tick(wild, 1_750_000_000)
    wild.run()
    assert refused > 3

    def days(pipeline: Pipeline) -> dict[tuple[str, str, int], tuple[list[int], list[int]]]:
        latest = {}
        for log in pipeline.topics["reads.final"]:
            for record in log:
                if CODEC.name_of(record.value) == "FinalBlock":
                    block = CODEC.decode(record.value)
                    ends = np.cumsum(block.count)
                    for row, (end, count) in enumerate(zip(ends.tolist(), block.count.tolist(), strict=True)):
                        at = slice(end - count, end)
                        key = (block.device[row].as_py(), block.channel[row].as_py(), int(block.start[row]))
                        latest[key] = (block.values[at].tolist(), block.conditions[at].tolist())
        return latest

    assert days(wild) == days(finished)


def test_a_replay_to_no_inbox_is_dead_again(finished: Pipeline) -> None:
    pipeline = Pipeline(plans_and_folds(TOPOLOGY))
    for number, inbox in enumerate((b"hes.reads", b"vee.inbox")):
        pipeline.publish("hub.replays", 0, b"", b"x", {"id": b"r%d" % number, "inbox": inbox, "partition": b"99"})
    pipeline.run()
    assert [record.value for log in pipeline.topics["hes.reads.dlq"] for record in log] == [b"x", b"x"]
    assert not any(pipeline.topics["vee.inbox"])


def test_nothing_in_a_topic_names_what_it_is_not(finished: Pipeline) -> None:
    for topic, declared in TOPOLOGY.topics.items():
        if declared.records and declared.records != ["raw"]:
            for log in finished.topics.get(topic, []):
                assert {CODEC.name_of(record.value) for record in log} <= set(declared.records), topic


def test_files_give_the_anomalies_that_the_hub_stored() -> None:
    """Channels with history: what they are told of follows from their own days, whatever came beside them and however it was cut."""
    rng, lines = np.random.default_rng(3), ["device,channel,unit,seconds,start,value"]
    for device in range(4):
        for day in range(60):
            load = (
                0.2 + 0.1 * np.sin(np.arange(24) / 4) + rng.uniform(0, 0.1, 24) + (20.0 * (np.arange(24) == 7) if day == 50 + device else 0)
            )
            start = np.datetime64("2025-01-01") + day
            lines += [f"M{device},E1,kWh,3600,{start}T{hour:02d}:00:00Z,{value:.3f}" for hour, value in enumerate(load.tolist())]
    payload = "\n".join(lines).encode()
    pipeline = Pipeline(plans_and_folds(TOPOLOGY))
    pipeline.publish("hes.reads", 1, b"hes", payload, {"id": b"p", "source": b"hes", "received_at": b"1743000000"})
    pipeline.run()
    tick(pipeline, 1_750_000_000)
    pipeline.run()
    bodies = [CODEC.decode(record.value) for number in range(TOPOLOGY.partitions) for record in pipeline.log("vee.exceptions", number)]
    stored = {(body["device"], body["start"].date().isoformat(), body["detail"]) for body in bodies if body["rule"] == "anomaly"}
    bench = Bench(TOPOLOGY, insights=True)
    bench.reads(decode(payload, Options(name="reads.csv")))
    told = {(item["device"], item["start"][:10], item["detail"]) for item in bench.finish() if item.get("rule") == "anomaly"}
    assert told == stored
    assert len({device for device, _, _ in told}) == 4
