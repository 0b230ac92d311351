"""One subscriber's deliveries, in threads of its own: reads the topics of its objects, delivers in order per key, commits what is done.

Kafka's committed positions of the subscriber's group say what has been delivered; they move after the receiver has taken it. A crash in
between delivers it again, under the same id. Nothing here is shared with other subscribers but Kafka's producer.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Any, Final

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from connectors.kafka.client import consumer as make_consumer
from connectors.kafka.settings import KafkaSettings
from connectors.subscribers import journal as told
from connectors.subscribers.circuit import Circuit, pause
from connectors.subscribers.journal import Journal
from connectors.subscribers.objects import DEFINITIONS, Reader, Record, Unit
from connectors.subscribers.parcel import BrokenError, Channel, DeliveryError, Parcel, RefusedError, Sent, UnfitError, parcel_of
from connectors.subscribers.places import Mark, Place, marks_of
from connectors.subscribers.registry import Entry
from schemas import metrics
from schemas.topology.subscribers import Files, Sftp, Webhook

POLL: Final = 200  # records
BUFFER_BYTES: Final = 32 * 1024 * 1024  # of records that wait to become a file
IDLE_COMMIT: Final = 2.0  # seconds between commits of positions over which nothing was wanted
log = structlog.get_logger(__name__)


class StoppedError(Exception):
    """The worker was told to stop; what is not done is done by whoever goes on."""


class LostError(Exception):
    """The partition is somebody else's now."""


class SuspendedError(Exception):
    """The receiver has been away for longer than the subscriber's patience."""


@dataclass(slots=True)
class Progress:
    """What a worker is doing, for displays. Written by its threads, read by anyone."""

    state: str = "starting"
    waiting: int = 0  # records behind
    oldest: float | None = None  # UTC seconds of the oldest record not yet delivered
    delivered: int = 0
    last_sent: float | None = None
    problem: str = ""
    partitions: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Queue:
    """Records of one partition that wait to become a batch: offset and units of each."""

    since: float  # monotonic seconds
    records: list[tuple[int, list[Unit]]] = field(default_factory=list)
    items: int = 0
    bytes: int = 0


Rebalance = Callable[[Consumer, list[TopicPartition]], None]
Join = Callable[[Consumer, Sequence[str], Rebalance, Rebalance], None]
"""How a worker comes by its partitions: consumer, topics, what to call with those it gets, and with those it loses."""


def by_group(consumer: Consumer, topics: Sequence[str], gained: Rebalance, lost: Rebalance) -> None:
    """As a member of the subscriber's group: however many processes deliver, each partition is delivered by one."""
    consumer.subscribe(list(topics), on_assign=gained, on_revoke=lost, on_lost=lost)


class Worker:
    """Delivers to one subscriber until stopped. ``run`` blocks."""

    def __init__(
        self, entry: Entry, channel: Channel, reader: Reader, journal: Journal, kafka: KafkaSettings, group: str, topics: Sequence[str],
        *, clock: Callable[[], float] = time.time, join: Join = by_group,
    ) -> None:  # fmt: skip
        self.entry, self.channel, self.reader, self.journal = entry, channel, reader, journal
        self.kafka, self.group, self.topics = kafka, group, list(topics)
        self.progress = Progress()
        self.circuit = Circuit(entry.spec.retry)
        self.stop = threading.Event()
        self._clock, self._join = clock, join
        self._owned: set[Place] = set()
        self._marks: dict[Place, Mark] = {}
        self._next: dict[Place, int] = {}  # behind what was read and is done or not wanted
        self._queues: dict[Place, Queue] = {}
        self._ended: set[Place] = set()  # where what is read lies behind the replay at hand
        self._early: list[Message] = []
        self._committed_at = 0.0
        settings = entry.spec.channel
        self._in_batches = in_batches(entry)
        self._lanes = settings.parallel if settings.kind == "webhook" else 1
        self._lock = threading.Lock()
        self._notes: list[Future[tuple[int, int]]] = []
        self._lag_at = 0.0

    # --- the loop ----------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Delivers. Raises KafkaException where the broker refuses for good, SuspendedError where patience has run out."""
        consumer = make_consumer(
            self.kafka, self.group, enable_partition_eof=False, max_poll_interval_ms=1_800_000, queued_max_messages_kbytes=16 * 1024,
            fetch_message_max_bytes=1024 * 1024, client_id=f"{self.group}",
        )  # fmt: skip
        try:
            self._join(consumer, self.topics, self._on_assign, self._on_revoke)
            with ThreadPoolExecutor(self._lanes, thread_name_prefix=f"deliver-{self.entry.id}") as lanes:
                self._loop(consumer, lanes)
        except StoppedError:
            pass
        finally:
            with contextlib.suppress(KafkaException):
                self._commit_idle(consumer, force=True)
            self.progress.state = "stopped"
            consumer.close()

    def _loop(self, consumer: Consumer, lanes: ThreadPoolExecutor) -> None:
        self.progress.state = "running"
        while not self.stop.is_set():
            early, self._early = self._early, []
            units = self._sorted(early + consumer.consume(POLL, 0.2 if not early else 0.0))
            if self._in_batches:
                self._collect(units)
                for place, queue in list(self._queues.items()):
                    self._deliver_batch(consumer, lanes, place, queue)
            elif units:
                self._deliver_now(consumer, lanes, units)
            self._go_back(consumer)
            self._commit_idle(consumer)
            self._note_lag(consumer)

    def _sorted(self, messages: Sequence[Message]) -> list[tuple[Place, int, int, list[Unit]]]:
        """Place, offset, time and wanted units of each record, in the order in which they came."""
        found = []
        for message in messages:
            error = message.error()
            if error is not None:
                if error.fatal() or error.code() in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED):
                    raise KafkaException(error)
                self.progress.problem = f"Kafka: {error.str()}"
                continue
            place = (message.topic() or "", message.partition() or 0)
            offset, at = message.offset() or 0, max(message.timestamp()[1], 0)
            if place not in self._owned or offset < self._next.get(place, 0):
                continue
            if self._marks[place].stop and offset >= self._marks[place].stop:
                self._ended.add(place)
                continue
            found.append((place, offset, at, self._units(record_of(message))))
        return found

    def _units(self, record: Record) -> list[Unit]:
        try:
            return list(self.reader.units(record)) if record.value else []
        except ValueError as error:
            # Bytes that nobody can decode are the sink's to keep; a subscriber cannot be told of what they are
            metrics.DELIVERIES.labels(self.entry.id, "unreadable").inc()
            log.warning("a record cannot be read", subscriber=self.entry.id, topic=record.topic, partition=record.partition,
                        offset=record.offset, reason=str(error)[:200])  # fmt: skip
            return []

    # --- partitions --------------------------------------------------------------------------------------------------------

    def _on_assign(self, consumer: Consumer, parts: list[TopicPartition]) -> None:
        if parts:
            marks = marks_of(consumer, self.entry, parts)
            for place, mark in marks.items():
                self._owned.add(place)
                self._marks[place], self._next[place] = mark, mark.offset
                self._queues.pop(place, None)
                self._ended.discard(place)
            # Written down at once: "now" must mean the same after a restart
            self._commit(consumer, marks)
        consumer.assign([TopicPartition(p.topic, p.partition, self._next[p.topic, p.partition]) for p in parts])
        self.progress.partitions = sorted(f"{topic}/{number}" for topic, number in self._owned)

    def _on_revoke(self, consumer: Consumer, parts: list[TopicPartition]) -> None:  # noqa: ARG002 as librdkafka calls it
        for part in parts:
            place = (part.topic, part.partition)
            self._owned.discard(place)
            self._ended.discard(place)
            for kept in (self._marks, self._next, self._queues):
                kept.pop(place, None)
        self.progress.partitions = sorted(f"{topic}/{number}" for topic, number in self._owned)

    def _commit(self, consumer: Consumer, marks: Mapping[Place, Mark]) -> bool:
        """Writes positions down; whether it worked. Refused, somebody else has the partition and goes on from the position before."""
        wanted = [mark.at(place) for place, mark in marks.items() if place in self._owned]
        if not wanted:
            return False
        try:
            consumer.commit(offsets=wanted, asynchronous=False)
        except KafkaException as error:
            self.progress.problem = f"Kafka: {error.args[0].str()}"
            log.warning("positions are not committed", subscriber=self.entry.id, reason=error.args[0].str())
            return False
        self._marks |= {place: mark for place, mark in marks.items() if place in self._owned}
        return True

    def _mark(self, place: Place, until: int = 0) -> Mark:
        """Where a partition is now."""
        kept = self._marks[place]
        return Mark(self._next[place], self.entry.epoch, until, kept.stop, kept.back)

    def _go_back(self, consumer: Consumer) -> None:
        """Where a replay has come to its end, goes on from where everything had been delivered."""
        for place, mark in list(self._marks.items()):
            over = mark.stop and (place in self._ended or self._next[place] >= mark.stop)
            if not over or place in self._queues:
                continue
            consumer.seek(TopicPartition(*place, mark.back))
            self._next[place] = mark.back
            self._ended.discard(place)
            self._marks[place] = Mark(mark.back, self.entry.epoch)
            self._commit(consumer, {place: self._marks[place]})

    def _commit_idle(self, consumer: Consumer, *, force: bool = False) -> None:
        """Now and then, positions over which nothing was wanted."""
        if not force and time.monotonic() - self._committed_at < IDLE_COMMIT:
            return
        self._committed_at = time.monotonic()
        moved = {
            place: self._mark(place)
            for place, offset in self._next.items()
            if place not in self._queues and offset > self._marks[place].offset and place in self._owned
        }
        self._commit(consumer, moved)

    # --- one by one --------------------------------------------------------------------------------------------------------

    def _deliver_now(self, consumer: Consumer, lanes: ThreadPoolExecutor, records: list[tuple[Place, int, int, list[Unit]]]) -> None:
        """Delivers what was read; returns when all of it is taken or given up, or the worker is stopped."""
        queues: dict[int, list[Unit]] = defaultdict(list)
        open_: dict[Place, dict[int, int]] = defaultdict(dict)  # offset → units not yet done
        for place, offset, _, units in records:
            open_[place][offset] = len(units)
            for unit in units:
                queues[hash((place, unit.key)) % self._lanes].append(unit)
        done_lock = threading.Lock()

        def done(unit: Unit) -> None:
            with done_lock:
                open_[unit.topic, unit.partition][unit.offset] -= 1

        self.progress.oldest = min((at for _, _, at, units in records if units), default=0) / 1000 or None
        futures = [lanes.submit(self._lane, queue, done) for queue in queues.values()]
        try:
            self._await(consumer, futures)
        finally:
            for place, offsets in open_.items():
                for offset in sorted(offsets):
                    if offsets[offset]:
                        break
                    if place in self._owned:
                        self._next[place] = offset + 1
            self._settle()
            self._commit(consumer, {p: self._mark(p) for p in open_ if p in self._owned})
            self._committed_at = time.monotonic()
        self.progress.oldest = None

    def _lane(self, units: list[Unit], done: Callable[[Unit], None]) -> None:
        """Delivers units one after the other: what comes later never overtakes what is tried again."""
        for unit in units:
            if (unit.topic, unit.partition) not in self._owned:
                continue
            with contextlib.suppress(LostError):
                for parcel in parcels_of(self.entry, [unit], self.entry.epoch):
                    self._deliver(parcel)
                done(unit)

    def _await(self, consumer: Consumer, futures: Sequence[Future[None]]) -> None:
        """Waits for lanes while Kafka goes on hearing from us. Whatever a lane raises is raised."""
        waiting = set(futures)
        paused: list[TopicPartition] = []
        try:
            while waiting:
                finished, waiting = wait(waiting, 0.05 if not paused else 0.2)
                for future in finished:
                    future.result()
                if waiting:
                    fresh = [TopicPartition(*place) for place in self._owned]
                    with contextlib.suppress(KafkaException):
                        consumer.pause(fresh)
                        paused = fresh
                    self._early += consumer.consume(1, 0.05)
                    self._note_lag(consumer)
        except BaseException:
            self.stop.set()  # the others must not go on past what failed
            wait(waiting)
            raise
        finally:
            if paused:
                with contextlib.suppress(KafkaException):
                    consumer.resume([TopicPartition(*place) for place in self._owned])

    # --- in batches --------------------------------------------------------------------------------------------------------

    def _collect(self, records: list[tuple[Place, int, int, list[Unit]]]) -> None:
        """Puts records aside until there are enough of them, or they are old enough."""
        for place, offset, _, units in records:
            queue = self._queues.get(place)
            if queue is None and not units and not self._marks[place].until:
                self._next[place] = offset + 1
                continue
            if queue is None:
                queue = self._queues[place] = Queue(time.monotonic())
            queue.records.append((offset, units))
            queue.items += sum(len(unit.items) for unit in units)
            queue.bytes += sum(unit.size for unit in units)

    def _due(self, place: Place, queue: Queue) -> list[tuple[int, list[Unit]]]:
        """The records of a batch that is to be delivered now; empty while it is not."""
        until, settings = self._marks[place].until, self.entry.spec.channel
        assert isinstance(settings, Files | Sftp)
        if until:  # begun before a crash: the very same records again
            ready = queue.records[-1][0] >= until - 1
            return [record for record in queue.records if record[0] < until] if ready else []
        old = place in self._ended or time.monotonic() - queue.since >= settings.every
        if not (old or queue.items >= settings.records or queue.bytes >= BUFFER_BYTES):
            return []
        found, items = [], 0
        for record in queue.records:
            found.append(record)
            items += sum(len(unit.items) for unit in record[1])
            if items >= settings.records:
                break
        return found

    def _deliver_batch(self, consumer: Consumer, lanes: ThreadPoolExecutor, place: Place, queue: Queue) -> None:
        batch = self._due(place, queue)
        if not batch:
            return
        until = batch[-1][0] + 1
        if not self._marks[place].until and not self._commit(consumer, {place: self._mark(place, until)}):
            return  # its limits must be known before anybody sees it
        parcels = parcels_of(self.entry, [unit for _, units in batch for unit in units], self.entry.epoch)
        self.progress.oldest = min((parcel.at for parcel in parcels), default=0) / 1000 or None
        self._await(consumer, [lanes.submit(self._parcels, parcels)])
        if place in self._owned:
            del queue.records[: len(batch)]
            queue.items -= sum(len(unit.items) for _, units in batch for unit in units)
            queue.bytes -= sum(unit.size for _, units in batch for unit in units)
            queue.since = time.monotonic()
            if not queue.records:
                del self._queues[place]
            self._next[place] = until
            self._settle()
            self._commit(consumer, {place: self._mark(place)})
        self.progress.oldest = None

    def _parcels(self, parcels: Sequence[Parcel]) -> None:
        with contextlib.suppress(LostError):
            for parcel in parcels:
                self._deliver(parcel)

    # --- one delivery ------------------------------------------------------------------------------------------------------

    def _deliver(self, parcel: Parcel) -> None:
        """Delivers until it is taken or given up. Raises LostError, StoppedError or SuspendedError."""
        since, attempt, refused, broken = self._clock(), 0, 0, 0
        retry = self.entry.spec.retry
        self._admit(parcel, since)
        while True:
            attempt += 1
            started = time.perf_counter()
            try:
                sent = self.channel.send(parcel)
            except UnfitError as error:
                self.circuit.succeeded()
                self._note(parcel, told.SKIPPED, attempt=attempt, since=since, reason=error.reason)
                return
            except RefusedError as error:
                self.circuit.succeeded()
                refused += 1
                delay, last = pause(retry, refused, random.random), refused >= retry.refusals
                failure: DeliveryError = error
            except BrokenError as error:
                broken += 1
                delay, last, failure = self.circuit.failed(error.reason), broken >= retry.attempts, error
            except DeliveryError as error:
                delay, last, failure = max(self.circuit.failed(error.reason), error.wait), False, error
                if self.circuit.exhausted:
                    self._note(parcel, told.FAILED, attempt=attempt, since=since, code=error.code, reason=error.reason)
                    raise SuspendedError(error.reason) from None
            else:
                metrics.DELIVERY_SECONDS.labels(self.channel.kind).observe(time.perf_counter() - started)
                self._taken(parcel, sent, attempt, since)
                return
            self.progress.problem = failure.reason
            if last:
                self._note(parcel, told.DEAD, attempt=attempt, since=since, code=failure.code, reason=failure.reason)
                log.error("a delivery is given up", subscriber=self.entry.id, delivery=parcel.id, reason=failure.reason)
                return
            self._note(parcel, told.RETRYING, attempt=attempt, since=since, code=failure.code, reason=failure.reason, wait=delay)
            self._sleep(delay, (parcel.topic, parcel.partition))
            self._admit(parcel, since, attempt)

    def _taken(self, parcel: Parcel, sent: Sent, attempt: int, since: float) -> None:
        self.circuit.succeeded()
        self.progress.delivered += 1
        self.progress.last_sent, self.progress.problem = self._clock(), ""
        about: dict[str, Any] = {"attempt": attempt, "since": since, "place": sent.place, "size": sent.bytes, "code": sent.code}
        self._note(parcel, told.SENT, **about)
        if sent.left_out:
            rest = replace(parcel, id=f"{parcel.id}-left-out")
            self._note(rest, told.SKIPPED, **(about | {"reason": sent.left_out}))

    def _admit(self, parcel: Parcel, since: float, attempt: int = 0) -> None:
        """Waits until the circuit lets a call through."""
        told_of = bool(attempt)
        while delay := self.circuit.admit():
            if not told_of:
                told_of = True
                reason = self.circuit.last_error or "the receiver does not answer"
                self._note(parcel, told.PENDING, attempt=0, since=since, reason=reason, wait=delay)
            self._sleep(delay, (parcel.topic, parcel.partition))

    def _sleep(self, seconds: float, place: Place) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if self.stop.wait(min(left, 0.5)):
                raise StoppedError
            if place not in self._owned:
                raise LostError
        if self.stop.is_set():
            raise StoppedError

    # --- telling -----------------------------------------------------------------------------------------------------------

    def _note(self, parcel: Parcel, status: str, **about: Any) -> None:
        future = self.journal.note(parcel, status, **about)
        if future is not None:
            with self._lock:
                self._notes.append(future)

    def _settle(self) -> None:
        """Waits until Kafka has what was told of deliveries: their positions move after it."""
        with self._lock:
            notes, self._notes = self._notes, []
        wait(notes, 20)

    def _note_lag(self, consumer: Consumer) -> None:
        now = time.monotonic()
        if now - self._lag_at < 1.0:
            return
        self._lag_at = now
        behind = 0
        for place in self._owned:
            _, high = consumer.get_watermark_offsets(TopicPartition(*place), cached=True)
            behind += max(high - self._next.get(place, high), 0) if high >= 0 else 0
        self.progress.waiting = behind
        oldest = self.progress.oldest
        id_ = self.entry.id
        metrics.DELIVERY_WAITING.labels(id_).set(behind)
        metrics.DELIVERY_OLDEST.labels(id_).set(max(self._clock() - oldest, 0.0) if oldest else 0.0)
        metrics.DELIVERY_OPEN.labels(id_).set(0 if self.circuit.state == "closed" else 1)


def record_of(message: Message) -> Record:
    """What matters of a message from Kafka."""
    key = message.key() or b""
    text = key.decode(errors="replace") if isinstance(key, bytes) else str(key)
    at = max(message.timestamp()[1], 0)
    return Record(message.topic() or "", message.partition() or 0, message.offset() or 0, at, text, message.value() or b"")


def in_batches(entry: Entry) -> bool:
    """Whether records are put together into files."""
    return entry.spec.channel.kind in ("file", "sftp")


def parcels_of(entry: Entry, units: Sequence[Unit], epoch: int) -> list[Parcel]:
    """The deliveries of a batch (one for each object), or of one record after the other in requests of bounded size."""
    if in_batches(entry):
        by_object: dict[str, list[Unit]] = defaultdict(list)
        for unit in units:
            by_object[unit.object].append(unit)
        return [parcel_of(entry.id, some, epoch) for some in by_object.values()]
    found = []
    settings = entry.spec.channel
    for unit in units:
        size = len(unit.items)
        most = settings.records if isinstance(settings, Webhook) else size
        parts = [None] if size <= most else [slice(begin, begin + most) for begin in range(0, size, most)]
        found += [parcel_of(entry.id, [unit], epoch, part=part) for part in parts]
    return found


def topics_of(entry: Entry) -> list[str]:
    """The topics that a subscriber's objects flow on."""
    return sorted({DEFINITIONS[name].topic for name in entry.spec.objects})
