"""After an outage of the head end: days that come at once cost no more, read by read, than days that come one by one."""

from __future__ import annotations

import time
from collections import defaultdict
from datetime import date, timedelta

import orjson

from connectors.enterprise.master import parse_master
from mdh.agents import plans_and_folds
from mdh.simulation.head_end import HeadEnd, Payload, Settings
from schemas.codec import Codec
from schemas.identity import partition_of
from schemas.topology import load_topology
from streams.runtime.replay import Pipeline

CODEC = Codec()
TOPOLOGY = load_topology(None)
START, SINGLE, OUT, OUTAGES = date(2025, 5, 5), 8, 3, 3
DAYS = SINGLE + OUT * OUTAGES
METERS, CHUNK = 160, 40


def midnight(day: int) -> int:
    return (START + timedelta(days=day) - date(1970, 1, 1)).days * 86_400


def settle(pipeline: Pipeline, at: int) -> float:
    """Processor seconds of everything that is to be done, and of a tick after it."""
    began = time.process_time()
    pipeline.run()
    for number in range(TOPOLOGY.partitions):
        pipeline.publish("hub.ticks", number, b"", CODEC.encode("Tick", {"at": at}), {"id": f"tick/{at}/{number}".encode()})
    pipeline.run()
    return time.process_time() - began


def test_three_days_at_once_are_worked_off_at_the_rate_of_single_days() -> None:
    head_end = HeadEnd(Settings(meters=METERS, days=DAYS, seconds=1800, rates={}, chunk=CHUNK, start=START, zone="UTC"))
    pipeline = Pipeline(plans_and_folds(TOPOLOGY, ["ingest", "vee", "determinants"]))
    for number in range(TOPOLOGY.partitions):
        pipeline.publish("master.data", number, b"", CODEC.encode("MasterPresent", {"at": 0}), {"id": b"present-%d" % number})
    for record in parse_master(b"\n".join(map(orjson.dumps, head_end.master())))[0]:
        key = record["device"]
        pipeline.publish("master.data", partition_of(key, TOPOLOGY.partitions), key.encode(), CODEC.encode("MasterChannel", record))
    days = defaultdict(list)
    for payload in head_end.payloads():
        days[payload.name.rsplit("-", 1)[0]].append(payload)
    assert len(days) == DAYS

    def deliver(payloads: list[Payload], day: int) -> None:
        for payload in payloads:
            headers = {"id": payload.name.encode(), "source": b"hes", "received_at": str(midnight(day + 1)).encode()}
            pipeline.publish("hes.reads", 1, b"hes", payload.data, headers)

    order = list(days.values())
    single, at_once = [], []
    for day in range(SINGLE):
        deliver(order[day], day)
        single.append(settle(pipeline, midnight(day + 1)))
    for outage in range(SINGLE, DAYS, OUT):
        for day in range(outage, outage + OUT):
            deliver(order[day], day)
        at_once.append(settle(pipeline, midnight(outage + OUT)) / OUT)
    assert min(at_once) <= sorted(single)[SINGLE // 2] / 0.8
    found = set()
    for log in pipeline.topics["reads.final"]:
        for record in log:
            if CODEC.name_of(record.value or b"") == "FinalBlock":
                block = CODEC.decode(record.value or b"")
                found |= set(zip(block.device.to_pylist(), block.start.tolist(), strict=True))
    assert len(found) == METERS * DAYS
