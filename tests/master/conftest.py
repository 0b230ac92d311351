"""The whole way of master data in one process: door, ingest, master agent, sink, the real store engine."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from connectors.clickhouse import migrate
from connectors.clickhouse.query import stored_parts
from connectors.clickhouse.sink import Batch, Sink
from connectors.clickhouse.store import Store, open_store
from connectors.enterprise.persons import Vault
from connectors.enterprise.routes import MasterRoutes, router
from connectors.enterprise.service import MasterService
from connectors.head_end import problems
from connectors.head_end.master_desk import KafkaMasterDesk
from connectors.head_end.publish import Publisher
from connectors.head_end.reading import StoreReader
from connectors.kafka.settings import KafkaSettings
from mdh.agents import plans_and_folds
from schemas.codec import Codec
from schemas.identity import partition_of
from schemas.topology import load_topology
from streams.runtime.replay import Pipeline
from tests.conftest import ROOT

TOPOLOGY = load_topology(ROOT / "topology.yaml")
NOW = 1_767_225_600  # 2026-01-01


@dataclass
class Stored:
    """A Kafka message as the sink sees it."""

    record: Any

    def topic(self) -> str:
        return str(self.record.topic)

    def partition(self) -> int:
        return int(self.record.partition)

    def offset(self) -> int:
        return int(self.record.offset)

    def value(self) -> bytes | None:
        return self.record.value  # type: ignore[no-any-return]

    def key(self) -> bytes:
        return self.record.key  # type: ignore[no-any-return]

    def headers(self) -> list[tuple[str, bytes]]:
        return list(self.record.headers.items())

    def timestamp(self) -> tuple[int, int]:
        return 1, NOW * 1000


class Hub:
    """Writes go through the agents and the sink at once, so whoever waits for the store finds it all there."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.codec, self.timeout = Codec(), 1.0
        self.pipeline = Pipeline(plans_and_folds(TOPOLOGY, ["ingest", "master"]), self.codec)
        self.store, self.reader = store, StoreReader(store, TOPOLOGY.partitions)
        self.sink = Sink(store, KafkaSettings(), ["master.changes"], group="test")
        self.sent: list[bytes] = []
        self.vault = Vault(folder / "keys.sqlite", b"k" * 32)
        self.service = MasterService(self, self.codec, self.reader, self.vault, zone="Europe/Berlin", clock=lambda: NOW * 10**9)  # type: ignore[arg-type]
        self.routes = MasterRoutes(self.service, Publisher(self, "hes.reads", max_payload_bytes=1_000_000))  # type: ignore[arg-type]
        self.desk = KafkaMasterDesk(self, self.codec, "master.data", TOPOLOGY.partitions, self.service)  # type: ignore[arg-type]

    def write(
        self, topic: str, value: bytes | None, *, key: bytes | None = None, headers: Mapping[str, bytes] | None = None,
        partition: int | None = None,
    ) -> Future[tuple[int, int]]:  # fmt: skip
        """One record to Kafka, taken by everyone behind it."""
        number = partition_of(key or b"", TOPOLOGY.partitions) if partition is None else partition
        texts = {name: text if isinstance(text, bytes) else str(text).encode() for name, text in (headers or {}).items()}
        before = len(self.log("master.changes"))
        self.pipeline.publish(topic, number, key or b"", value or b"", texts)
        self.pipeline.run()
        self.keep(self.log("master.changes")[before:])
        done: Future[tuple[int, int]] = Future()
        done.set_result((number, 0))
        return done

    def log(self, topic: str) -> list[Any]:
        """Every record of a topic, in the order of writing as far as partitions keep it."""
        found = [record for partition in self.pipeline.topics[topic] for record in partition]
        return sorted(found, key=lambda r: self.codec.decode(r.value)["sequence"]) if topic == "master.changes" else found

    def keep(self, records: list[Any]) -> None:
        """Stores records of master.changes."""
        batch = Batch()
        for record in records:
            self.sink._sorter.add(batch, Stored(record))  # type: ignore[arg-type]
        if batch.records:
            self.sink.flush(batch, None, None, threading.Event())  # type: ignore[arg-type]

    def records(self, topic: str, kind: str) -> list[dict[str, Any]]:
        """The decoded records of one type."""
        return [self.codec.decode(r.value) for r in self.log(topic) if self.codec.name_of(r.value) == kind]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One migrated store for all tests of a module."""
    store = open_store(f"chdb://{tmp_path_factory.mktemp('master')}/store")
    migrate.up(store)
    yield store
    store.close()


@pytest.fixture
def hub(engine: Store, tmp_path: Path) -> Iterator[Hub]:
    """A hub without any master data."""
    for table in stored_parts(engine):
        if table.startswith("master_"):
            engine.command(f"TRUNCATE TABLE {table}")
    made = Hub(engine, tmp_path)
    yield made
    made.vault.close()


@pytest.fixture
def client(hub: Hub) -> Iterator[TestClient]:
    """The doors."""
    app = FastAPI()
    problems.install(app)
    app.include_router(router(hub.routes))
    with TestClient(app, raise_server_exceptions=False) as made:
        yield made
