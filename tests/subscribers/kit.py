"""Receivers, records and a delivery service over librdkafka's mock broker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson
from confluent_kafka import Consumer, TopicPartition

from connectors.head_end.publish import Writer
from connectors.kafka.client import consumer, producer
from connectors.kafka.mock import MockBroker
from connectors.kafka.settings import KafkaSettings
from connectors.subscribers.guard import Guard
from connectors.subscribers.registry import Registry
from connectors.subscribers.secrets import Secrets
from connectors.subscribers.service import DeliveryService, Tools
from connectors.subscribers.worker import Join, Rebalance, topics_of
from schemas.codec import Codec
from schemas.identity import partition_of
from schemas.topology import Topology, load_topology
from schemas.topology.subscribers import DeliverySettings, Subscriber
from tests.patience import PATIENCE, eventually

CODEC = Codec()
SECRET = "s" * 32
PARTITIONS = 4  # the mock gives every topic so many
LOCAL = DeliverySettings(networks=["127.0.0.0/8"], plain_http=True)
QUICK = {"first": "1s", "most": "1s", "attempts": 3, "refusals": 2}
TOPOLOGY = load_topology(Path(__file__).resolve().parent.parent.parent / "topology.yaml")


@dataclass
class Request:
    """What a receiver got."""

    headers: dict[str, str]
    body: bytes
    path: str

    @property
    def data(self) -> list[dict[str, Any]]:
        return orjson.loads(self.body)["data"]

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def ids(self) -> list[str]:
        return [item["id"] for item in self.data]


@dataclass
class Receiver:
    """An HTTP server that answers what ``answer`` says; remembers every request and those it took."""

    answer: Callable[[Request], int | tuple[int, dict[str, str], bytes]] = lambda _: 204
    requests: list[Request] = field(default_factory=list)
    taken: list[Request] = field(default_factory=list)
    url: str = ""

    @property
    def ids(self) -> list[str]:
        """Ids of the items taken, in order."""
        return [item["id"] for request in self.taken for item in request.data]


@contextmanager
def receiver(answer: Callable[[Request], Any] = lambda _: 204) -> Iterator[Receiver]:
    """A running receiver."""
    kept = Receiver(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers["content-length"])
            body = self.rfile.read(length)
            if len(body) < length:  # the sender was killed in the middle
                self.close_connection = True
                return
            request = Request({name.lower(): value for name, value in self.headers.items()}, body, self.path)
            kept.requests.append(request)
            found = kept.answer(request)
            status, headers, text = found if isinstance(found, tuple) else (found, {}, b"")
            if 200 <= status < 300:
                kept.taken.append(request)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    kept.url = f"http://127.0.0.1:{server.server_port}/in"
    try:
        yield kept
    finally:
        server.shutdown()
        server.server_close()


def determinant(number: int, account: str = "a-1", version: int = 1, **changes: Any) -> dict[str, Any]:
    """A determinant."""
    return {
        "id": f"d{number:05}-{version}", "account": account, "service_point": "sp-1", "device": f"m-{number % 7}", "channel": "1-0:1.29.0",
        "period_start": datetime(2026, 1, 1, tzinfo=UTC), "period_end": datetime(2026, 2, 1, tzinfo=UTC), "period": "billing",
        "kind": "interval-consumption", "tou": "", "unit": "kWh", "quantity": Decimal("12.500000"), "condition": 500_000, "slots": 2976,
        "actual": 2976, "estimated": 0, "status": "released", "version": version, "replaces": "", "reason": "", **changes,
    }  # fmt: skip


def exception(number: int, **changes: Any) -> dict[str, Any]:
    """An exception."""
    return {
        "id": f"e{number}", "rule": "interval-spike", "severity": "issue", "status": "open", "version": 1, "device": f"m-{number}",
        "channel": "1", "service_point": "sp-1", "payload": "", "start": datetime(2026, 1, 1, tzinfo=UTC),
        "end": datetime(2026, 1, 2, tzinfo=UTC), "count": 1, "detail": "d", **changes,
    }  # fmt: skip


def all_of_it(consumer: Consumer, topics: Sequence[str], gained: Rebalance, _: Rebalance) -> None:
    """All partitions at once: a group's join takes the mock three seconds, and one process needs no group to share with."""
    gained(consumer, [TopicPartition(topic, number) for topic in topics for number in range(PARTITIONS)])


class Bench:
    """A delivery service over a mock broker, with what a test does to it."""

    def __init__(self, folder: Path, topology: Topology = TOPOLOGY, settings: DeliverySettings = LOCAL, join: Join = all_of_it) -> None:
        self.folder, self.broker, self.join = folder, MockBroker(), join
        self.kafka = KafkaSettings(bootstrap=self.broker.bootstrap)
        self.topology = topology.model_copy(update={"delivery": settings})
        self._producer = producer(self.kafka, linger_ms=1)
        for name in self.topology.topics:  # the mock makes a topic when it is first written
            self._producer.produce(name, b"", partition=0)
        assert self._producer.flush(120) == 0
        self.secrets = Secrets(folder / "secrets", {"MDH_SUBSCRIBER_SECRET_KEY": SECRET})
        self.guard = Guard(settings)
        self._running: list[tuple[DeliveryService, threading.Event, list[threading.Thread], Writer]] = []
        self.start()

    def start(self, **options: Any) -> DeliveryService:
        """Starts (another) delivery process, as it were."""
        writer = Writer(self.kafka, max_bytes=32 * 1024 * 1024)
        tools = Tools(self.topology, self.kafka, CODEC, writer, self.secrets, self.guard, self.folder / "outbox", "test", self.join)
        service = DeliveryService(tools, Registry(self.kafka, self.topology, CODEC, writer), **options)
        stop = threading.Event()
        threads = [threading.Thread(target=work, args=(stop,), daemon=True) for work in service.loops().values()]
        for thread in threads:
            thread.start()
        self._running.append((service, stop, threads, writer))
        assert service.registry.wait_ready(PATIENCE)
        return service

    @property
    def service(self) -> DeliveryService:
        return self._running[-1][0]

    @property
    def registry(self) -> Registry:
        return self.service.registry

    def halt(self) -> None:
        """Stops all delivery processes."""
        running, self._running = self._running, []
        for _, stop, _, _ in running:
            stop.set()
        for _, _, threads, writer in running:
            for thread in threads:
                thread.join(120)
            writer.close(2)

    def subscribe(self, id: str, objects: list[str], channel: dict[str, Any], **more: Any) -> None:
        """Registers a subscriber that begins at the beginning."""
        spec = {"objects": objects, "channel": channel, "start": "earliest", "retry": QUICK, **more}
        self.registry.create(id, Subscriber.model_validate(spec), actor="test")

    def webhook(self, id: str, to: Receiver, objects: tuple[str, ...] = ("determinants",), *, filter: Any = None, **channel: Any) -> None:
        """Registers a webhook."""
        self.subscribe(id, list(objects), {"kind": "webhook", "url": to.url, "secrets": ["key"], **channel}, filter=filter or {})

    def write(self, topic: str, kind: str, records: list[dict[str, Any]], key: str = "account", at: int = 0) -> None:
        """Writes records as an agent would, at a time (UTC milliseconds) or now."""
        for record in records:
            name = str(record[key])
            self._producer.produce(
                topic, CODEC.encode(kind, record), key=name.encode(), partition=partition_of(name, PARTITIONS), timestamp=at
            )
        assert self._producer.flush(120) == 0

    def block(self, block: Any, key: str = "m") -> None:
        """Writes finals."""
        self._producer.produce("reads.final", CODEC.encode_block(block), key=key.encode(), partition=0)
        assert self._producer.flush(120) == 0

    def raw(self, topic: str, value: bytes) -> None:
        """Writes bytes."""
        self._producer.produce(topic, value, key=b"k", partition=0)
        assert self._producer.flush(120) == 0

    def read(self, topic: str) -> list[Any]:
        """All records that are in a topic now, with key and headers."""
        reading = consumer(self.kafka, f"test-{time.time_ns()}", fetch_wait_max_ms=20)
        ends = {n: reading.get_watermark_offsets(TopicPartition(topic, n), timeout=60)[1] for n in range(PARTITIONS)}
        reading.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
        waiting, found = sum(ends.values()), []
        deadline = time.monotonic() + PATIENCE
        while waiting:
            for message in reading.consume(500, 0.05):
                assert message.error() is None, message.error()
                if message.offset() < ends[message.partition()]:
                    waiting -= 1
                    found += [message] if message.value() else []
            assert time.monotonic() < deadline, f"{waiting} records of {topic} do not come"
        reading.close()
        return found

    def journal(self, id: str) -> list[dict[str, Any]]:
        """What was told of deliveries to a subscriber."""
        found = [CODEC.decode(message.value()) for message in self.read("hub.deliveries")]
        return sorted((one for one in found if one["subscriber"] == id), key=lambda one: one["version"])

    def position(self, id: str) -> int:
        """The sum of the committed positions of a subscriber on determinants."""
        return sum(offset for offset, _ in self._positions(id, ["billing.determinants"]))

    def settled(self, id: str) -> None:
        """Waits until a subscriber is through with all there is on its topics."""
        topics = topics_of(self.registry.get(id))
        eventually(lambda: all(offset >= end for offset, end in self._positions(id, topics)))

    def _positions(self, id: str, topics: Sequence[str]) -> list[tuple[int, int]]:
        """Committed position and end of each partition."""
        reading = consumer(self.kafka, self.service.tools.group(id))
        places = [TopicPartition(topic, number) for topic in topics for number in range(PARTITIONS)]
        found = [
            (max(part.offset, 0), reading.get_watermark_offsets(part, timeout=60)[1]) for part in reading.committed(places, timeout=60)
        ]
        reading.close()
        return found

    def close(self) -> None:
        """Ends everything."""
        self.halt()
        self.broker.close()
