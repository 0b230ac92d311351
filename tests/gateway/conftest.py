"""A gateway over librdkafka's mock broker and a store that is a few dictionaries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Message
from fastapi.testclient import TestClient

from connectors.head_end.desk import Desk
from connectors.head_end.documents import MasterAnswer, MasterLine
from connectors.head_end.gateway import create_app
from connectors.head_end.publish import KeyLog, Publisher, Writer
from connectors.kafka.client import KafkaSettings, administrator, producer
from connectors.kafka.mock import MockBroker
from tests.brokers import read_all

LIMIT = 64 * 1024


@dataclass
class FakeReader:
    """Answers from what a test puts in."""

    found: dict[str, dict[str, Any]] = field(default_factory=dict)
    tick: int | None = None
    answer: list[dict[str, Any]] = field(default_factory=list)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def payloads(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        return [self.found[id] for id in ids if id in self.found]

    def history_asked(self) -> tuple[int | None, bool]:
        return None, False

    def settled_tick(self) -> int | None:
        return self.tick

    def rows(self, sql: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        self.asked.append((sql, dict(parameters)))
        return self.answer

    def stream(self, sql: str) -> Iterator[bytes]:
        if "secret" in sql:
            raise ValueError("not allowed here")
        yield b'{"one":1}\n'
        yield b'{"two":2}\n'


class FakeMaster:
    """Takes lines that are not ``bad``."""

    def take(self, data: bytes) -> MasterAnswer:
        lines = data.decode().splitlines()
        bad = [MasterLine(line=n, message="not valid") for n, line in enumerate(lines, 1) if line == "bad"]
        return MasterAnswer(accepted=len(lines) - len(bad), refused=len(bad), errors=bad)


@dataclass
class Door:
    """Everything a test of the gateway handles."""

    client: TestClient
    reader: FakeReader
    reasons: list[str]
    kafka: KafkaSettings
    publisher: Publisher

    def records(self, topic: str = "hes.reads") -> list[Message]:
        return read_all(self.kafka, topic)


@pytest.fixture
def kafka() -> Iterator[KafkaSettings]:
    with MockBroker() as broker:
        yield KafkaSettings(bootstrap=broker.bootstrap)


@pytest.fixture
def writer(kafka: KafkaSettings) -> Iterator[Writer]:
    made = Writer(kafka, max_bytes=LIMIT, timeout=60)
    yield made
    made.close(1)


@pytest.fixture
def door(kafka: KafkaSettings, writer: Writer, tmp_path: Path) -> Iterator[Door]:
    publisher = Publisher(writer, "hes.reads", max_payload_bytes=LIMIT, keys=KeyLog(tmp_path / "keys.sqlite"))
    reader, reasons = FakeReader(), list[str]()
    desk = Desk(publisher, reader, FakeMaster(), lambda: reasons, formats=frozenset({"csv", "nem12"}))
    with TestClient(create_app(desk), raise_server_exceptions=False) as client:
        yield Door(client, reader, reasons, kafka, publisher)


def partitions(kafka: KafkaSettings, topic: str) -> int:
    """How many partitions a topic has."""
    return len(administrator(kafka).list_topics(topic, timeout=60).topics[topic].partitions)


@pytest.fixture
def write(kafka: KafkaSettings) -> Iterator[Callable[..., None]]:
    """Writes records and waits for them."""
    made = producer(kafka, linger_ms=0)

    def put(topic: str, value: bytes, **options: Any) -> None:
        made.produce(topic, value, **options)
        assert made.flush(60) == 0

    yield put
    made.flush(1)
