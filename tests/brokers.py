"""Pytest plugin: one real Kafka broker per test session, started when the first test asks for it and shared by all xdist workers.

A keeper process owns the broker. Every test process holds a shared lock for as long as it lives; when nobody holds it any more,
however they ended, the keeper stops the broker and removes its files.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, Message, TopicPartition

from connectors.kafka.client import consumer, producer
from connectors.kafka.settings import KafkaSettings
from schemas.topology import Topology

LONGEST = (  # begun first when several processes share the tests, so that none of them is left with a long one at the end
    "torment/test_torment.py", "torment/test_prepaid.py", "simulation/test_demo.py", "chain/test_files_through_hub.py",
    "console/test_running.py", "store/test_sink.py", "embedded/test_prepaid_story.py", "todo/test_door.py", "vee/test_clean.py",
    "embedded/test_commands.py", "embedded/test_up.py", "subscribers/test_running.py", "determinants/test_every_year.py",
    "topology/test_loader.py", "enterprise/test_stories.py", "embedded/test_kafka.py", "gateway/test_hub_process.py",
    "enterprise/test_devices.py", "architecture/test_rules.py", "runtime/test_worker.py", "prepaid/test_api.py",
    "console/test_browser.py", "store/test_bulk_orders.py", "docker/test_docker.py", "determinants/test_intervals.py",
    "formats/test_profiles.py", "determinants/test_real_years.py",
)  # fmt: skip
TIERS = ("broker", "torment", "docker")  # after everything else, in this order, when one process runs them all
_START_SECONDS = 600  # the first run may have to fetch the jars


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Fast tests first for one process, long ones first for several; those for a container engine are left out where there is none."""
    if hasattr(config, "workerinput"):
        rank = {file: number for number, file in enumerate(LONGEST)}
        items.sort(key=lambda item: rank.get("/".join(item.path.parts[-2:]), len(rank)))
    else:
        items.sort(key=lambda item: max((TIERS.index(name) + 1 for name in TIERS if item.get_closest_marker(name)), default=0))
    if _container_engine() is None:
        left_out = [item for item in items if item.get_closest_marker("docker")]
        if left_out:
            config.hook.pytest_deselected(items=left_out)
            items[:] = [item for item in items if not item.get_closest_marker("docker")]


def pytest_report_header() -> str:
    """Says which engine runs the tests marked ``docker``."""
    return f"container engine: {_container_engine() or 'none here, tests marked docker are left out'}"


def _container_engine() -> str | None:
    if "mdh_engine" not in _found:
        _found["mdh_engine"] = None
        if engine := shutil.which("docker"):
            works = subprocess.run([engine, "info"], capture_output=True, timeout=60, check=False).returncode == 0
            _found["mdh_engine"] = engine if works else None
    return _found["mdh_engine"]


_found: dict[str, str | None] = {}


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[str]:
    """``host:port`` of a real Kafka broker. Mark tests that use it ``broker`` and take topic names from `topic_prefix`."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "broker"
    folder.mkdir(exist_ok=True)
    with (folder / "users").open("a") as users:
        with (folder / "start").open("a") as start:
            fcntl.flock(start, fcntl.LOCK_EX)
            fcntl.flock(users, fcntl.LOCK_SH)
            if not (folder / "bootstrap").exists():
                _start_keeper(folder)
            bootstrap = (folder / "bootstrap").read_text()
        yield bootstrap


@pytest.fixture
def topic_prefix() -> str:
    """A prefix nobody else's topics have."""
    return f"t{uuid.uuid4().hex[:10]}."


@pytest.fixture
def make_topics(broker: str) -> Iterator[Callable[..., None]]:
    """Creates topics and deletes them after the test: ``make_topics("name", …, partitions=4, config={…})``."""
    from confluent_kafka.admin import AdminClient, NewTopic

    admin, made = AdminClient({"bootstrap.servers": broker}), []

    def make(*names: str, partitions: int = 4, config: dict[str, str] | None = None) -> None:
        topics = [NewTopic(name, partitions, 1, config=config or {}) for name in names]
        for name, future in admin.create_topics(topics).items():
            future.result(120)
            made.append(name)

    yield make
    for future in admin.delete_topics(made).values() if made else ():
        future.exception(120)


def begin_topics(settings: KafkaSettings, topology: Topology) -> None:
    """Makes every partition of the topics of a topology on a mock broker, which does so with the first record."""
    made = producer(settings)
    for name, topic in topology.topics.items():
        for number in range(topic.partitions if topic.records else 0):
            made.produce(name, b"", partition=number)
    assert made.flush(120) == 0


def read_all(settings: KafkaSettings, topic: str) -> list[Message]:
    """Every committed record of a topic, by partition and offset."""
    reading = consumer(settings, "test", enable_partition_eof=True, fetch_wait_max_ms=20)
    partitions = reading.list_topics(topic, timeout=60).topics[topic].partitions
    reading.assign([TopicPartition(topic, number, 0) for number in partitions])
    left, found = set(partitions), []  # a partition that grows meanwhile says more than once that it ends here
    while left:
        for message in reading.consume(1000, 0.05):
            if (error := message.error()) is None:
                found.append(message)
            else:
                assert error.code() == KafkaError._PARTITION_EOF, error
                left.discard(message.partition())
    reading.close()
    return sorted(found, key=lambda message: (message.partition(), message.offset()))


def _start_keeper(folder: Path) -> None:
    output = (folder / "keeper.log").open("ab")
    keeper = subprocess.Popen(
        [sys.executable, __file__, str(folder)],
        stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        cwd=Path(__file__).resolve().parent.parent,
    )  # fmt: skip
    output.close()
    deadline = time.monotonic() + _START_SECONDS
    while not (folder / "bootstrap").exists():
        if keeper.poll() is not None or time.monotonic() > deadline:
            keeper.kill()
            pytest.fail(f"the test broker did not start:\n{(folder / 'keeper.log').read_text()[-2000:]}", pytrace=False)
        time.sleep(0.05)


def _keep(folder: Path) -> None:
    """The keeper: runs the broker until no test process is left."""
    sys.path.insert(0, str(Path.cwd()))
    from connectors.embedded.kafka import Broker

    place = Path(tempfile.mkdtemp(prefix="mdh-test-broker-"))
    try:
        with Broker(place / "kafka", say=print) as server, (folder / "users").open("a") as users:
            part = folder / "bootstrap.part"
            part.write_text(server.bootstrap)
            part.replace(folder / "bootstrap")
            while server.process and server.process.poll() is None:
                time.sleep(0.5)
                with (folder / "start").open("a") as start:
                    fcntl.flock(start, fcntl.LOCK_EX)
                    try:
                        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except OSError:
                        continue
                    (folder / "bootstrap").unlink()
                    break
    finally:
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    _keep(Path(sys.argv[1]))
