"""The embedded broker: starts, keeps what it was given through stops and kills, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from connectors.embedded import EmbeddedError
from connectors.embedded.kafka import Broker, broker_answers
from tests.patience import PATIENCE, eventually

pytestmark = pytest.mark.broker


def _write(bootstrap: str, values: list[bytes]) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all"})
    for value in values:
        producer.produce("kept", value, partition=0)
    assert producer.flush(120) == 0


def _read(bootstrap: str, count: int) -> list[bytes]:
    reader = Consumer({"bootstrap.servers": bootstrap, "group.id": "x", "isolation.level": "read_committed"})
    reader.assign([TopicPartition("kept", 0, 0)])
    values: list[bytes] = []
    deadline = time.monotonic() + PATIENCE
    while len(values) < count and time.monotonic() < deadline:
        values += [m.value() or b"" for m in reader.consume(count, 0.5) if not m.error()]
    reader.close()
    return values


def test_goes_on_from_its_directory_after_stop_and_kill(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "kafka", heap_mb=256)
    with broker:
        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        admin.create_topics([NewTopic("kept", 1, 1)])["kept"].result(120)
        _write(broker.bootstrap, [b"one"])
    assert not broker_answers(broker.bootstrap, 1)

    again = Broker(tmp_path / "kafka", heap_mb=256)
    assert again.port == broker.port
    again.start()
    _write(again.bootstrap, [b"two"])
    again.kill()
    again.start()
    assert _read(again.bootstrap, 2) == [b"one", b"two"]
    again.stop()


def test_takes_records_of_32_megabytes_but_makes_no_topics_by_itself(broker: str, make_topics, topic_prefix: str) -> None:
    topic = f"{topic_prefix}large"
    make_topics(topic, partitions=1)
    size = (32 << 20) - 1000
    producer = Producer({"bootstrap.servers": broker, "message.max.bytes": size + 10_000})
    errors: list[object] = []
    producer.produce(topic, bytes(size), on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(120) == 0
    assert errors == [None]

    assert f"{topic_prefix}unknown" not in AdminClient({"bootstrap.servers": broker}).list_topics(timeout=60).topics
    producer.produce(f"{topic_prefix}unknown", b"x", on_delivery=lambda error, _: errors.append(error))
    producer.purge()
    producer.flush(60)
    assert f"{topic_prefix}unknown" not in AdminClient({"bootstrap.servers": broker}).list_topics(timeout=60).topics


def test_listens_on_this_machine_only(broker: str) -> None:
    port = int(broker.rpartition(":")[2])
    listening = {c.laddr.ip for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.laddr.port == port}
    assert listening <= {"127.0.0.1", "::ffff:127.0.0.1"}
    assert listening


def test_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from connectors.embedded.kafka import Broker\n"
        "b = Broker(Path(sys.argv[1]), heap_mb=256); b.start(); print(b.process.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "kafka")], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    child = int(parent.stdout.readline())
    assert psutil.pid_exists(child)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    eventually(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)


def test_says_why_it_does_not_start(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "kafka", heap_mb=256, settings={"num.io.threads": "none"})
    (tmp_path / "kafka" / "data").mkdir(parents=True)  # as if formatted: the settings are what fails
    with pytest.raises(EmbeddedError, match=r"num\.io\.threads"):
        broker.start(PATIENCE)
    assert broker.process is None
