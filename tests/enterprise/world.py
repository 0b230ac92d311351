"""A whole hub for conversations: the real doors, sink and store over the mock broker; agents as lanes that this process moves."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import TopicPartition
from fastapi.testclient import TestClient

from connectors.clickhouse.sink import Pace, Sink
from connectors.clickhouse.store import Store
from connectors.enterprise.part import Enterprise, routes
from connectors.head_end.desk import Desk
from connectors.head_end.gateway import create_app
from connectors.head_end.publish import Publisher, Writer
from connectors.head_end.reading import StoreReader
from connectors.kafka.client import consumer, producer
from connectors.kafka.mock import MockBroker
from connectors.kafka.settings import KafkaSettings
from connectors.prepaid.part import Prepaid
from connectors.prepaid.part import routes as prepaid_routes
from connectors.subscribers.secrets import Secrets
from connectors.todo.part import TodoDesk
from connectors.todo.routes import routes as todo_routes
from mdh.agents import plans_and_folds
from schemas.codec import Codec
from schemas.topology import Topology
from streams.runtime.lane import Record
from streams.runtime.replay import Pipeline
from tests.brokers import begin_topics
from tests.patience import PATIENCE, eventually
from tests.prepaid.hub import FakeMaster

CODEC = Codec()


@dataclass
class World:
    """Everything a test of conversations handles."""

    topology: Topology
    kafka: KafkaSettings
    client: TestClient
    part: Enterprise
    todo: TodoDesk
    publisher: Publisher
    pipeline: Pipeline
    now: int
    failed: list[BaseException] = field(default_factory=list)  # what ended one of its threads
    _written: dict[tuple[str, int], int] = field(default_factory=lambda: defaultdict(int))
    _read: dict[tuple[str, int], int] = field(default_factory=lambda: defaultdict(int))

    def move(self) -> None:
        """Moves everything from outside through the agents, and what they write onto the broker."""
        assert not self.failed, self.failed[0]
        plain = self.topology.agents["ingest"].reads
        for record in self._fresh(plain):
            self.pipeline.publish(record.topic, record.partition, record.key, record.value or b"", record.headers)
        self.pipeline.run()
        out = producer(self.kafka, linger_ms=0)
        for name, topic in self.topology.topics.items():
            if name in plain or not topic.records or name.endswith(".state"):
                continue
            for number in range(topic.partitions):
                log = self.pipeline.log(name, number)
                for record in log[self._written[name, number] :]:
                    out.produce(name, record.value, record.key or None, number, headers=list(record.headers.items()))
                self._written[name, number] = len(log)
        assert out.flush(120) == 0

    def _fresh(self, topics: list[str]) -> list[Record]:
        reading = consumer(self.kafka, "world", enable_partition_eof=True, fetch_wait_max_ms=10)
        places = [TopicPartition(t, n, self._read[t, n]) for t in topics for n in range(self.topology.partitions)]
        reading.assign(places)
        left, found = {(place.topic, place.partition) for place in places}, list[Record]()
        while left:
            for message in reading.consume(500, 0.05):
                place = message.topic() or "", message.partition() or 0
                if message.error() is not None:
                    left.discard(place)
                    continue
                self._read[place] = (message.offset() or 0) + 1
                if message.value():
                    headers = {name: value if isinstance(value, bytes) else b"" for name, value in message.headers() or []}
                    found.append(Record(*place, message.key() or b"", message.value(), headers))
        reading.close()
        return found

    def tick(self, at: int | None = None) -> None:
        """Time comes to ``at``, or goes on by a second."""
        self.now = max(self.now + 1, at or 0)
        for number in range(self.topology.partitions):
            value = CODEC.encode("Tick", {"at": self.now, "close": False})
            self.part.intake.writer.write(
                "hub.ticks", value, headers={"id": f"tick/{self.now}/{number}".encode()}, partition=number
            ).result(120)
        self.move()

    def until(self, check: Callable[[], Any], *, ticks: bool = True) -> Any:
        """Lets time pass until something is so; what it was."""
        return eventually(check, meanwhile=self.tick if ticks else self.move, pause=0.1)

    def messages(self, kind: str = "", system: str = "sap") -> list[dict[str, Any]]:
        """Messages for a CIS as the agent wrote them, bodies read."""
        import orjson

        found = []
        for number in range(self.topology.partitions):
            for record in self.pipeline.log("enterprise.messages", number):
                body = CODEC.decode(record.value or b"")
                if body["system"] == system and kind in ("", body["kind"]):
                    found.append({**body, "items": [{**item, "body": orjson.loads(item["body"])} for item in body["items"]]})
        return found

    def restart(self) -> None:
        """Throws every agent's memory away: what counts is restored from its state topic."""
        for agent in self.pipeline.agents:
            for number in range(self.topology.partitions):
                self.pipeline.restart(agent, number)


@contextmanager
def world(topology: Topology, store: Store, folder: Path) -> Iterator[World]:
    """A hub over a store."""
    with MockBroker() as broker:
        kafka = KafkaSettings(bootstrap=broker.bootstrap)
        begin_topics(kafka, topology)
        writer = Writer(kafka, max_bytes=4 * 1024 * 1024, timeout=60)
        reader = StoreReader(store, topology.partitions)
        part = Enterprise(topology, kafka, CODEC, reader, writer, folder)
        todo = TodoDesk(topology, reader, writer, CODEC, patience=PATIENCE)
        prepaid = Prepaid(topology, reader, writer, CODEC, FakeMaster(), Secrets(None, {}), folder)  # type: ignore[arg-type]
        publisher = Publisher(writer, "hes.reads", max_payload_bytes=4 * 1024 * 1024)
        sink = Sink.from_topology(store, kafka, topology, codec=CODEC, pace=Pace(seconds=0.05))
        nobody: Any = None
        app = create_app(Desk(publisher, reader, nobody, list), [routes(part), todo_routes(todo), prepaid_routes(prepaid)])
        stop = threading.Event()
        failed: list[BaseException] = []

        def guarded(loop: Callable[[threading.Event], None]) -> None:
            try:
                loop(stop)
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=guarded, args=(loop,), daemon=True) for loop in (sink.run, *part.loops().values())]
        for thread in threads:
            thread.start()
        pipeline = Pipeline(plans_and_folds(topology, [name for name in topology.agents if name != "insights"]), CODEC)
        try:
            with TestClient(app) as client:
                yield World(topology, kafka, client, part, todo, publisher, pipeline, int(time.time()), failed)
        finally:
            stop.set()
            for thread in threads:
                thread.join(120)
            writer.close(2)
