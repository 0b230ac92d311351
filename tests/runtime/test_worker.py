"""A worker process on librdkafka's mock broker: it delivers, survives a kill and a poison message, stops cleanly."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from connectors.kafka.mock import MockBroker
from tests.conftest import ROOT
from tests.patience import PATIENCE
from tests.runtime.counting import CODEC, PARTITIONS

COUNT = 4  # the mock broker makes topics with four partitions


def start(broker: str, folder: Path, group: str = "toy", *more: str, torment: float = 0) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.runtime.toy_worker", broker, str(COUNT), str(torment), str(folder), group, *more]
    with (folder / "worker.log").open("ab") as log:  # a pipe that nobody reads would stop it one day
        return subprocess.Popen(command, cwd=ROOT, stderr=log)


def read(broker: str, topic: str, want: int, seconds: float = PATIENCE) -> list[tuple[bytes, bytes, dict[str, bytes]]]:
    reader = Consumer({"bootstrap.servers": broker, "group.id": "test", "isolation.level": "read_committed"})
    reader.assign([TopicPartition(topic, n, 0) for n in range(COUNT)])
    found, until = [], time.monotonic() + seconds
    while len(found) < want and time.monotonic() < until:
        found += [(m.key(), m.value(), dict(m.headers() or ())) for m in reader.consume(100, 0.2) if not m.error()]
    found += [(m.key(), m.value(), dict(m.headers() or ())) for m in reader.consume(100, 1.0) if not m.error()]
    reader.close()
    return found


@pytest.fixture
def broker() -> str:
    with MockBroker() as running:
        producer = Producer({"bootstrap.servers": running.bootstrap})
        for topic in PARTITIONS:
            producer.list_topics(topic, timeout=60)
        yield running.bootstrap


def feed(broker: str, first: int, last: int, poison: bool = False) -> None:
    producer = Producer({"bootstrap.servers": broker})
    for i in range(first, last):
        producer.produce("in", b"x", b"k%d" % (i % 8), partition=i % COUNT, headers={"id": b"p%d" % i})
        if poison and i == (first + last) // 2:
            producer.produce("in", b"poison", b"k0", partition=0, headers={"id": b"bad"})
    assert producer.flush(120) == 0


def test_killed_and_poisoned_it_still_counts_each_message_once(broker: str, tmp_path: Path) -> None:
    feed(broker, 0, 80)
    worker = start(broker, tmp_path)
    try:
        assert len(read(broker, "out", 80)) == 80
        worker.send_signal(signal.SIGKILL)
        worker.wait(PATIENCE)
        feed(broker, 80, 160, poison=True)
        worker = start(broker, tmp_path, "another")  # a group without offsets: they were lost, and must not matter
        counts = defaultdict(list)
        for key, value, _ in read(broker, "out", 160):
            counts[key].append(CODEC.decode(value)["at"])
        assert {key: sorted(values) for key, values in counts.items()} == {b"k%d" % k: list(range(1, 21)) for k in range(8)}
        ((key, value, headers),) = read(broker, "first.dlq", 1)
        assert (key, value) == (b"k0", b"poison")
        assert headers["__connect.errors.exception.message"] == b"cannot stomach this"
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(PATIENCE) == 0
    finally:
        worker.kill()
        worker.wait()


@pytest.mark.parametrize(("torment", "status"), [(1.0, 1), (0.0, 0)])
def test_it_ends_though_stopping_hangs(broker: str, tmp_path: Path, torment: float, status: int) -> None:
    """A worker that has failed, or was told to stop, must not keep its partitions because a part of it never answers."""
    worker = start(broker, tmp_path, "toy", "wedged", torment=torment)
    try:
        feed(broker, 0, 8)
        if not torment:
            assert len(read(broker, "out", 8)) == 8
            worker.send_signal(signal.SIGTERM)
        assert worker.wait(PATIENCE) == status
    finally:
        worker.kill()
        worker.wait()
