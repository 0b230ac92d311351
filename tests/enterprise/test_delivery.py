"""Messages to a CIS with an address: again until they are taken, past what is refused for good, none lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import TopicPartition
from lxml import etree

from connectors.enterprise import delivery
from connectors.enterprise.ccb import documents as ccb
from connectors.enterprise.delivery import Delivery, Letter
from connectors.head_end.publish import Writer
from connectors.kafka.client import consumer, producer
from connectors.kafka.mock import MockBroker
from connectors.kafka.settings import KafkaSettings
from schemas.codec import Codec
from schemas.topology.enterprise import EnterpriseSettings, System
from tests.patience import eventually

CODEC = Codec()


class Cis(HTTPServer):
    """Answers as told, one status per request, then 200; keeps what it took."""

    statuses: list[int]
    taken: list[bytes]


class _Handler(BaseHTTPRequestHandler):
    server: Cis

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status = self.server.statuses.pop(0) if self.server.statuses else 200
        if status == 200:
            self.server.taken.append(body)
        self.send_response(status)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@pytest.fixture
def cis() -> Iterator[Cis]:
    server = Cis(("127.0.0.1", 0), _Handler)
    server.statuses, server.taken = [], []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()


def message(id: str, system: str = "ccb") -> bytes:
    item = {"id": id, "reference": "r", "body": '{"usage":"u"}', "category": "", "note": ""}
    head = {"protocol": "ccb", "kind": "usage-request-answer", "reference": "", "bulk": False, "at": 1}
    return CODEC.encode("EnterpriseMessage", {**head, "id": id, "system": system, "items": [item]})


def values_of(kafka: KafkaSettings, topic: str) -> list[bytes]:
    reading = consumer(kafka, "reading")
    ends = [reading.get_watermark_offsets(TopicPartition(topic, n), timeout=60)[1] for n in range(4)]
    reading.assign([TopicPartition(topic, number, 0) for number in range(4)])
    found: list[bytes] = []
    while len(found) < sum(ends):
        found += [one.value() for one in reading.consume(100, 0.1) if one.error() is None]
    reading.close()
    return found


def test_what_is_not_taken_comes_again_and_what_is_refused_for_good_holds_nobody_up(
    cis: Cis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "TRIES", 2)
    cis.statuses = [503, 200, 400, 400]
    settings = EnterpriseSettings(systems={"ccb": System(protocol="ccb", url=f"http://127.0.0.1:{cis.server_port}/in")})
    with MockBroker() as broker:
        kafka = KafkaSettings(bootstrap=broker.bootstrap)
        out = producer(kafka, linger_ms=0)
        for value in (message("one"), b"no record", message("elsewhere", "sap"), message("two"), message("three")):
            out.produce("enterprise.messages", value, partition=0)
        assert out.flush(120) == 0
        renders = {"ccb": lambda told, _: Letter(ccb.written(told), {"Content-Type": "application/xml"})}
        writer = Writer(kafka, max_bytes=1_000_000)
        sending = Delivery(kafka, "test", CODEC, settings, renders, tmp_path, writer)
        stop = threading.Event()
        thread = threading.Thread(target=sending.loops()["cis-ccb"], args=(stop,))
        thread.start()
        eventually(lambda: len(cis.taken) == 2)
        stop.set()
        thread.join(60)
        body = CODEC.decode(message("two"))
        sending.again({**body, "items": [{**item, "body": orjson.loads(item["body"])} for item in body["items"]]})
        writer.close()
        told = [CODEC.decode(value) for value in values_of(kafka, "hub.deliveries")]
    taken = [etree.fromstring(body).get("id") for body in cis.taken]
    assert taken == ["one", "three", "two"], "two was refused twice and left out, until an operator sent it again"
    found = [(one["id"], one["status"], one["attempt"]) for one in told if one["subscriber"] == "cis-ccb"]
    assert found == [("one", "sent", 2), ("two", "dead", 2), ("three", "sent", 1), ("two", "sent", 1)]
    assert not thread.is_alive()
