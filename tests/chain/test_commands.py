"""Commands and device events through the whole chain in memory: applied once, audited, and what billing gets follows."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest

from mdh.agents import plans_and_folds
from schemas.block import FinalBlock
from schemas.codec import Codec
from schemas.conditions import OUTAGE_TOLD, USER_EDIT
from schemas.identity import partition_of
from schemas.topology import load_topology
from streams.runtime.lane import PAYLOAD
from streams.runtime.replay import Pipeline

CODEC = Codec()
TOPOLOGY = load_topology(None)
START = 1_742_256_000  # 2025-03-18, a Tuesday
EDIT = {
    "id": "c1", "action": "edit", "device": "m1", "channel": "1", "start": START + 3600, "end": START + 7200, "seconds": None,
    "values": [5_000_000], "reading": None, "method": None, "reason": "read again", "user": "clerk", "expected_version": None,
}  # fmt: skip


def reads(day: int) -> bytes:
    row = {"device": "m1", "channel": "1", "unit": "kWh", "seconds": 3600, "start": START + day * 86_400}
    row["start"] = f"2025-03-{18 + day:02d}T00:00:00Z"
    return orjson.dumps({"source": "hes", "reads": [row | {"values": [1, 1, 1, 0, 0, 0, *[1] * 18]}]})


def publish(pipeline: Pipeline, topic: str, key: str, value: bytes, id_: str) -> None:
    headers = {"id": id_.encode(), "source": b"hes", "received_at": b"1743000000"}
    pipeline.publish(topic, partition_of(key, TOPOLOGY.partitions), key.encode(), value, headers)


def command(pipeline: Pipeline, **more: Any) -> None:
    body = EDIT | more
    publish(pipeline, "hub.commands", body["device"], CODEC.encode("Command", body), body["id"])


def story(pipeline: Pipeline) -> None:
    for day in range(5):
        publish(pipeline, "hes.reads", "hes", reads(day), f"p{day}")
    pipeline.run()
    command(pipeline)
    command(pipeline)  # sent twice
    command(pipeline, id="c2", expected_version=1, values=[6_000_000])
    pipeline.run()
    events = [{"device": "m1", "code": "3.26.0.85", "at": "2025-03-22T03:00:00Z"},
              {"device": "m1", "kind": "restore", "at": "2025-03-22T05:30:00Z"}]  # fmt: skip
    publish(pipeline, "hes.events", "hes", orjson.dumps({"events": events}), "e1")
    publish(pipeline, "hes.events", "hes", b'{"device": "m1", "kind": "party"}', "e2")
    pipeline.run()
    for number in range(TOPOLOGY.partitions):
        pipeline.publish("hub.ticks", number, b"", CODEC.encode("Tick", {"at": 1_750_000_000}), {"id": b"tick/1750000000/%d" % number})
    pipeline.run()
    answer(pipeline)


def answer(pipeline: Pipeline) -> None:
    """Plays the store: answers what VEE asks for with the newest version of each day."""
    answered: set[bytes] = set()
    while True:
        days, asked = {}, []
        for log in pipeline.topics["reads.final"]:
            for record in log:
                body = CODEC.decode(record.value)
                if isinstance(body, FinalBlock):
                    for row in range(len(body)):
                        days[body.device[row].as_py(), int(body.day[row])] = body.take([row])
                elif CODEC.name_of(record.value) == "Recall" and record.headers["mdh-id"] not in answered:
                    asked.append((record, body))
        if not asked:
            return
        for record, body in asked:
            answered.add(record.headers["mdh-id"])
            places = body.places()
            number = partition_of(places[0][0], TOPOLOGY.partitions)
            headers = {"id": b"recall/" + record.headers["mdh-id"], PAYLOAD: record.headers.get(PAYLOAD, b"")}
            value = CODEC.encode_block(FinalBlock.join([days[device, day] for device, _, _, day in places]))
            pipeline.publish("vee.recalled", number, places[0][0].encode(), value, headers)
        pipeline.run()


def decoded(pipeline: Pipeline, topic: str) -> list[Any]:
    return [CODEC.decode(record.value) for log in pipeline.topics[topic] for record in log]


@pytest.fixture(scope="module")
def finished() -> Pipeline:
    pipeline = Pipeline(plans_and_folds(TOPOLOGY))
    story(pipeline)
    return pipeline


def newest(pipeline: Pipeline, day: int) -> FinalBlock:
    blocks = [b for b in decoded(pipeline, "reads.final") if isinstance(b, FinalBlock)]
    return max((b for b in blocks if b.day[0] == (START // 86_400) + day), key=lambda b: int(b.version[0]))


def test_a_command_is_applied_once_and_audited(finished: Pipeline) -> None:
    told = {body["command"]: body for body in decoded(finished, "audit.events")}
    assert [body["command"] for body in decoded(finished, "audit.events")].count("c1") == 1
    assert (told["c1"]["outcome"], told["c1"]["actor"], told["c1"]["reason"]) == ("applied", "clerk", "read again")
    assert told["c2"]["outcome"] == "refused"
    assert "version conflict" in told["c2"]["detail"]
    final = newest(finished, 0)
    assert (int(final.values[1]), int(final.conditions[1])) == (5_000_000, USER_EDIT)


def test_what_billing_gets_follows_the_edit(finished: Pipeline) -> None:
    daily = [b for b in decoded(finished, "determinants.daily") if START // 86_400 in b.day.tolist()]
    last = max(daily, key=lambda b: int(b.version.max()))
    assert 25_000_000 in last.quantities.tolist()  # 21 kWh, one hour of 1 kWh edited to 5


def test_events_make_outages_and_what_nobody_understands_is_a_dead_letter(finished: Pipeline) -> None:
    assert newest(finished, 4).conditions[2:6].tolist() == [500_000, OUTAGE_TOLD, OUTAGE_TOLD, 500_000]
    letters = [record for log in finished.topics["hes.reads.dlq"] for record in log]
    assert [record.value for record in letters] == [b'{"device": "m1", "kind": "party"}']
    assert letters[0].headers["__connect.errors.topic"] == b"hes.events"


def test_receipts_of_commands_and_events_add_up(finished: Pipeline) -> None:
    for payload in ("c1", "c2", "e1", "e2"):
        nodes = [body for body in decoded(finished, "hub.receipts") if body["payload"] == payload]
        leaves = [r for topic in TOPOLOGY.stored for log in finished.topics.get(topic, []) for r in log
                  if r.headers.get(PAYLOAD) == payload.encode() and "mdh-receipt" in r.headers]  # fmt: skip
        asked = [r for log in finished.topics["reads.final"] for r in log
                 if CODEC.name_of(r.value) == "Recall" and r.headers.get(PAYLOAD) == payload.encode()]  # fmt: skip
        assert nodes
        # the sink adds two for each recall: itself and the answer
        assert len(nodes) + len(leaves) + len(asked) == 1 + sum(node["children"] for node in nodes) + 2 * len(asked)


def test_a_worker_killed_anywhere_leaves_the_same_audit(finished: Pipeline) -> None:
    wild = Pipeline(plans_and_folds(TOPOLOGY))
    rng = random.Random(3)
    calm = Pipeline.run

    def run(pipeline: Pipeline) -> None:
        while waiting := pipeline.waiting():
            for old, record in waiting:
                lane = pipeline.lanes[old.plan.agent, old.partition]
                if rng.random() < 0.2:
                    lane.is_next(record)
                    lane.apply(record)
                    lane = pipeline.restart(lane.plan.agent, lane.partition)
                pipeline.step(lane, record)

    Pipeline.run = run  # type: ignore[method-assign]
    try:
        story(wild)
    finally:
        Pipeline.run = calm  # type: ignore[method-assign]
    for topic in ("audit.events", "reads.final", "vee.exceptions"):
        assert wild.topics[topic] == finished.topics[topic]
