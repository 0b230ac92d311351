"""Delivery as a part of the hub (or a process of its own): follows the registry and keeps a worker for each active subscriber."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from connectors.head_end.publish import PublishError, Writer
from connectors.head_end.versions import StaleError
from connectors.kafka.client import consumer
from connectors.kafka.settings import KafkaSettings
from connectors.subscribers.channels.files import FileChannel, SftpChannel
from connectors.subscribers.channels.topic import TopicChannel
from connectors.subscribers.channels.webhook import WebhookChannel
from connectors.subscribers.filters import Wanted
from connectors.subscribers.guard import Guard
from connectors.subscribers.journal import DEAD, SENT, Journal
from connectors.subscribers.objects import Reader, Record, record_types, sample_unit
from connectors.subscribers.parcel import AwayError, Channel, DeliveryError, Sent, parcel_of
from connectors.subscribers.past import Past, Regions
from connectors.subscribers.registry import SUSPENDED, Entry, Registry
from connectors.subscribers.secrets import Secrets
from connectors.subscribers.worker import Join, SuspendedError, Worker, by_group, parcels_of, record_of, topics_of
from schemas.codec import Codec
from schemas.identity import identity
from schemas.topology import Topology
from schemas.topology.subscribers import Files, KafkaTopic, Sftp, Subscriber, Webhook

PATIENCE: Final = 20.0  # seconds for the records of one delivery to be read again
AGAIN: Final = 30.0  # the longest pause before a worker that failed is started anew, seconds
log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Tools:
    """What workers and tests of channels stand on."""

    topology: Topology
    kafka: KafkaSettings
    codec: Codec
    writer: Writer
    secrets: Secrets
    guard: Guard
    outbox: Path
    version: str = ""
    join: Join = by_group
    past: Past | None = None  # the store, where this process has one
    regions: Regions | None = None

    def channel(self, spec: Subscriber) -> Channel:
        """The channel of a subscriber. Raises AwayError where something it needs is not there."""
        settings = spec.channel
        if isinstance(settings, Webhook):
            limit = self.topology.delivery.response_bytes
            return WebhookChannel(settings, self.guard, self.secrets, response_bytes=limit, agent=f"meter-data-hub/{self.version}")
        if isinstance(settings, Files):
            return FileChannel(settings, self.outbox, self.past)
        if isinstance(settings, Sftp):
            return SftpChannel(settings, self.guard, self.secrets, self.past)
        return TopicChannel(settings, self.writer, self.codec)

    def worker(self, entry: Entry) -> Worker:
        """A worker for a subscriber. Raises AwayError."""
        journal = Journal(self.writer, self.codec, entry.spec.channel.kind)
        topics = [topic for topic in topics_of(entry) if topic in self.topology.topics]
        return Worker(
            entry, self.channel(entry.spec), self.reader(entry), journal, self.kafka, self.group(entry.id), topics, join=self.join
        )

    def reader(self, entry: Entry) -> Reader:
        """What makes items of records for a subscriber."""
        known = self.regions
        wanted = Wanted(entry.spec.filter, self.topology.delivery, known.of) if known else Wanted(entry.spec.filter, self.topology.delivery)
        names = self.topology.ingest.event_names
        return Reader(self.codec, frozenset(entry.spec.objects), wanted, event_names=names, zone=self.topology.zone)

    def group(self, id: str) -> str:
        """The consumer group of a subscriber, its own or ours for it."""
        return self.topology.group(f"subscriber.{id}")

    def try_out(self, id: str, spec: Subscriber, object: str) -> Sent:
        """Sends a sample, once, marked as a test. Raises DeliveryError."""
        unit = sample_unit(self.topology, object)
        channel = self.channel(spec)
        try:
            return channel.send(parcel_of(id, [unit], 0, again=identity("test", time.time_ns()), test=True))
        finally:
            channel.close()

    def again(self, entry: Entry, told: Mapping[str, Any]) -> Sent:
        """Sends one delivery once more, under its id; ``told`` is its row of the view ``deliveries``.

        Raises GoneError where Kafka has its records no more or the subscriber's settings make another delivery of them, DeliveryError.
        """
        units = [unit for record in self._records(told) for unit in self.reader(entry).units(record) if unit.object == told["object"]]
        parcel = next((one for one in parcels_of(entry, units, int(told["replay"])) if one.id == told["id"]), None)
        if parcel is None:
            raise GoneError("its items are others by now: the subscriber's filter or format was changed; replay the time instead")
        journal = Journal(self.writer, self.codec, entry.spec.channel.kind)
        about = {"attempt": int(told["attempt"]) + 1, "since": told["since"].timestamp()}
        channel = self.channel(entry.spec)
        try:
            sent = channel.send(parcel)
        except DeliveryError as error:
            journal.note(parcel, DEAD, **about, code=error.code, reason=error.reason)
            raise
        finally:
            channel.close()
        journal.note(parcel, SENT, **about, place=sent.place, size=sent.bytes, code=sent.code)
        return sent

    def _records(self, told: Mapping[str, Any]) -> Iterator[Record]:
        """The records a delivery was made of. Raises GoneError."""
        place, first, last = (str(told["topic"]), int(told["partition"])), int(told["first"]), int(told["last"])
        reading = consumer(self.kafka, self.group("again"), enable_partition_eof=True)
        try:
            low, _ = reading.get_watermark_offsets(TopicPartition(*place), timeout=10)
            if low > first:
                raise GoneError("Kafka keeps its records no more")
            reading.assign([TopicPartition(*place, first)])
            deadline = time.monotonic() + PATIENCE
            while time.monotonic() < deadline:
                for message in reading.consume(200, 0.1):
                    error, offset = message.error(), message.offset() or 0
                    if error is not None and error.code() != KafkaError._PARTITION_EOF:
                        raise AwayError(f"Kafka: {error.str()}")
                    if error is None and offset <= last:
                        yield record_of(message)
                    if error is not None or offset >= last:
                        return
            raise AwayError("Kafka does not answer in time")
        except KafkaException as error:
            raise AwayError(f"Kafka: {error.args[0].str()}") from None
        finally:
            reading.close()

    def testable(self, spec: Subscriber) -> list[str]:
        """The objects of a subscriber of which there are samples."""
        return [name for name in spec.objects if record_types(self.topology, name)]


class GoneError(Exception):
    """A delivery that cannot be made again as it was."""


class Running:
    """A worker and its thread."""

    def __init__(self, worker: Worker, ended: Callable[[Running, BaseException | None], None]) -> None:
        self.worker, self._ended = worker, ended
        self.thread = threading.Thread(target=self._run, name=f"subscriber-{worker.entry.id}", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        reason: BaseException | None = None
        try:
            self.worker.run()
        except BaseException as error:  # one subscriber's trouble stays its own
            reason = error
        finally:
            self.worker.channel.close()
        self._ended(self, reason)


class DeliveryService:
    """The registry and the workers. With ``deliver`` false only the registry is followed, for the API."""

    def __init__(self, tools: Tools, registry: Registry, *, deliver: bool = True, declare: bool = True) -> None:
        self.tools, self.registry, self.deliver, self._declare = tools, registry, deliver, declare
        self._workers: dict[str, Running] = {}
        self._failures: dict[str, tuple[int, float, str]] = {}  # id → how often, not before (monotonic), why
        self._declared: Mapping[str, Subscriber] | None = None

    def loops(self) -> Mapping[str, Callable[[threading.Event], None]]:
        """The registry's thread, and the one that keeps the workers."""
        return {"subscribers": self.registry.run, "delivery": self.run}

    def close(self) -> None:
        """Nothing is held once the loops have ended."""

    def run(self, stop: threading.Event) -> None:
        """Keeps the workers as the registry says until ``stop`` is set."""
        try:
            while not stop.wait(0.2):
                if not self.registry.ready:
                    continue
                if self._declare and self._declared is None:
                    self._declare_all()
                if self.deliver:
                    self.reconcile()
        finally:
            for running in self._workers.values():
                running.worker.stop.set()
            deadline = time.monotonic() + 12
            for running in list(self._workers.values()):
                running.thread.join(max(deadline - time.monotonic(), 0.1))

    def _declare_all(self) -> None:
        declared = self.tools.topology.subscribers
        try:
            changed = self.registry.declare(declared)
        except (StaleError, PublishError) as error:
            log.warning("subscribers of topology.yaml are not registered yet", reason=str(error))
            return
        self._declared = declared
        if changed:
            log.info("subscribers of topology.yaml are registered", changed=changed)

    @property
    def declared(self) -> bool:
        """Whether the registry agrees with topology.yaml."""
        return self._declared is not None

    def reconcile(self) -> None:
        """Stops what is no longer wanted or has changed, starts what is new."""
        entries = self.registry.entries()
        for id, running in list(self._workers.items()):
            entry = entries.get(id)
            if entry is None or not self.wanted(entry) or entry.version != running.worker.entry.version:
                running.worker.stop.set()
            if not running.thread.is_alive():
                del self._workers[id]
        for id, entry in entries.items():
            if self.wanted(entry) and id not in self._workers:
                self._start(entry)

    @staticmethod
    def wanted(entry: Entry) -> bool:
        """Whether there is something for us to do: who reads the hub's own topics does so without us."""
        settings = entry.spec.channel
        return entry.running and not (isinstance(settings, KafkaTopic) and settings.topic is None)

    def _start(self, entry: Entry) -> None:
        count, after, _ = self._failures.get(entry.id, (0, 0.0, ""))
        if time.monotonic() < after:
            return
        try:
            self._workers[entry.id] = Running(self.tools.worker(entry), self._ended)
        except AwayError as error:
            self._failed(entry.id, count, error.reason)

    def _ended(self, running: Running, reason: BaseException | None) -> None:
        entry = running.worker.entry
        if reason is None:
            self._failures.pop(entry.id, None)
            return
        if isinstance(reason, SuspendedError):
            self._suspend(entry, str(reason))
            return
        log.error("delivery to a subscriber failed and starts anew", subscriber=entry.id, exc_info=reason)
        self._failed(entry.id, self._failures.get(entry.id, (0, 0.0, ""))[0], str(reason))

    def _failed(self, id: str, count: int, reason: str) -> None:
        self._failures[id] = (count + 1, time.monotonic() + min(2.0**count, AGAIN), reason)

    def _suspend(self, entry: Entry, reason: str) -> None:
        log.error("a subscriber is suspended: its receiver has been away for too long", subscriber=entry.id, reason=reason)
        try:
            self.registry.set_status(entry, "suspend", SUSPENDED, actor="delivery", reason=reason)
        except (StaleError, PublishError) as error:
            self._failed(entry.id, 0, f"{reason}; not suspended: {error}")

    def state(self, entry: Entry) -> dict[str, Any]:
        """What is known of a subscriber's delivery in this process."""
        running = self._workers.get(entry.id)
        if running is None:
            failure = self._failures.get(entry.id, (0, 0.0, ""))[2]
            state = "elsewhere" if self.wanted(entry) and not self.deliver else "starting" if self.wanted(entry) else "idle"
            return {"state": state, "problem": failure}
        progress, circuit = running.worker.progress, running.worker.circuit
        return {
            "state": progress.state,
            "version": running.worker.entry.version,
            "circuit": circuit.state,
            "waiting_records": progress.waiting,
            "oldest_seconds": round(max(time.time() - progress.oldest, 0.0), 1) if progress.oldest else 0,
            "delivered": progress.delivered,
            "last_sent": progress.last_sent,
            "problem": progress.problem,
            "partitions": progress.partitions,
        }
