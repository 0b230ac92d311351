"""``mdh bench memory``: what a channel costs a worker, and how long a restart takes, against a Faust Table of as many keys.

Memory: the VEE and determinants folds of one partition take two days of quarter hours of all channels; counted are the arrays of
the state, and what the process grew by. Restart: the state both have then is written to topics of a real broker; a worker takes its
partitions over, and the per-read Faust agent of the pipeline benchmark recovers its Table with the open day of as many channels.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import psutil
from confluent_kafka.admin import NewTopic

from benchmarks.load import FIRST_DAY, SLOTS, Load
from benchmarks.pipeline import MAIN_PATH, PARTITIONS, Say, _chain_alone, _faust, _mdh, _process, _publish, peer_environment, settled
from connectors.embedded.kafka import Broker
from connectors.kafka.admin import Administrator
from connectors.kafka.client import administrator, producer
from connectors.kafka.settings import KafkaSettings
from mdh.errors import UsageError
from mdh.simulation.writers import CHANNEL
from schemas.topology import load_topology

AGENTS = ",".join(MAIN_PATH)


def run(channels: int, say: Say) -> dict[str, Any]:
    """The figures."""
    say(f"memory: {channels:,} channels")
    figures: dict[str, Any] = {"channels": channels, **_in_process(channels)}
    with tempfile.TemporaryDirectory(prefix="mdh-bench-") as name:
        folder = Path(name)
        with Broker(folder / "kafka", say=say) as broker:
            say(f"restart: the hub's worker, {channels:,} channels")
            ours = _restart(broker.bootstrap, folder, Load(channels, 1))
            say(f"restart: a Faust Table of {channels:,} keys")
            theirs, keys = _recover(broker.bootstrap, folder, Load(channels, 1))
    if keys != channels:
        raise UsageError(f"the Table came back with {keys} of {channels} keys")
    return figures | {
        "restart_seconds": round(ours, 3), "faust_restart_seconds": round(theirs, 3), "ratio_restart": round(theirs / ours, 1),
    }  # fmt: skip


# --- memory -----------------------------------------------------------------------------------------------------------------


def _in_process(channels: int) -> dict[str, Any]:
    """Measured in a process of its own, so that nothing else counts."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        figures: dict[str, Any] = pool.apply(_measure, (channels,))
    return figures


def _measure(channels: int) -> dict[str, Any]:
    from connectors.head_end.formats import Options, decode
    from mdh.agents import make_folds
    from streams.runtime.fold import Message

    topology = load_topology(None)
    makers = make_folds(topology)
    folds = {name: makers[name](0) for name in ("vee", "determinants")}
    payloads = [decode(data, Options(name=name)).blocks for _, name, data in Load(channels, 2).payloads()]
    _warm(folds, Message)
    gc.collect()
    before = psutil.Process().memory_info().rss
    number = 0
    for blocks in payloads:
        for block in blocks:
            for output in folds["vee"].apply(Message("ReadBlock", block, f"m{number}", "p")).outputs:
                if output.topic == "reads.final":
                    folds["determinants"].apply(Message(output.type, output.body, f"d{number}", "p"))
                    number += 1
            number += 1
        blocks.clear()
    gc.collect()
    grown = psutil.Process().memory_info().rss - before
    sizes = {name: fold.state.nbytes() / channels for name, fold in folds.items()}
    return {
        "state_bytes_per_channel": round(sum(sizes.values())), "vee_bytes_per_channel": round(sizes["vee"]),
        "process_bytes_per_channel": round(grown / channels),
    }  # fmt: skip


def _warm(folds: dict[str, Any], message: Any) -> None:
    """Lets everything be imported and compiled before memory is looked at."""
    from connectors.head_end.formats import Options, decode

    for _, name, data in Load(1, 1, seed=99).payloads():
        for block in decode(data, Options(name=name)).blocks:
            for output in folds["vee"].apply(message("ReadBlock", block, "w", "w")).outputs:
                if output.topic == "reads.final":
                    folds["determinants"].apply(message(output.type, output.body, "w", "w"))


# --- restart -----------------------------------------------------------------------------------------------------------------


def _restart(broker: str, folder: Path, load: Load) -> float:
    """Seconds in which a new worker takes all partitions of all agents over and has read their state back."""
    kafka = KafkaSettings(bootstrap=broker)
    chain = _chain_alone(folder)
    Administrator(kafka).apply(load_topology(chain))
    ids = _publish(kafka, load)
    with settled(broker, folder, ids, AGENTS, chain):
        pass
    log = folder / "again.log"
    with _process(_mdh("worker", broker, folder / "data", "--agents", AGENTS, "--topology", str(chain)), log):
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            for line in log.read_text(errors="replace").splitlines():
                if '"event":"assigned"' in line:
                    return float(json.loads(line)["seconds"])
            time.sleep(0.05)
    raise UsageError(f"the worker took nothing over: {log.read_text()[-400:]}")


def _recover(broker: str, folder: Path, load: Load) -> tuple[float, int]:
    """Seconds from the assignment to the Table's recovery, and the keys it has then."""
    kafka = KafkaSettings(bootstrap=broker)
    reads, days, changelog = "bench.faust.reads", "bench.faust.days", "bench-faust-state-changelog"
    topics = [NewTopic(topic, PARTITIONS, 1) for topic in (reads, days)]
    topics.append(NewTopic(changelog, PARTITIONS, 1, config={"cleanup.policy": "compact"}))
    admin = administrator(kafka)
    for future in admin.create_topics(topics).values():
        future.result()
    write = producer(kafka, queue_buffering_max_messages=1_000_000)
    for first in range(0, load.channels, 1000):
        rows = np.arange(first, min(first + 1000, load.channels))
        values, _ = load.day(0, rows)
        for row, day in zip(rows.tolist(), (values * 1000).tolist(), strict=True):
            state = {"day": FIRST_DAY, "have": SLOTS, "values": day, "codes": [500_000] * SLOTS, "twice": 0}
            write.produce(changelog, orjson.dumps(state), json.dumps(f"B{row:07d}|{CHANNEL}").encode())
        write.poll(0)
    write.flush(120)
    log = folder / "faust.log"
    with _process(_faust(), log, peer_environment(broker, folder / "faust", reads, days)):
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline:
            text = log.read_text(errors="replace")
            begun, done = re.search(r"assigned (\d+\.\d+)", text), re.search(r"recovered (\d+\.\d+) (\d+)", text)
            if begun and done:
                return float(done[1]) - float(begun[1]), int(done[2])
            time.sleep(0.1)
    raise UsageError(f"the Table did not recover: {log.read_text()[-400:]}")
