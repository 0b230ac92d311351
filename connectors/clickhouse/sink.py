"""From the stored topics into the store: data first, then receipts, then positions.

Every row is replaced by its key, so whatever is written twice is there once; the order of writes decides only what is known when.
The position from which to go on lies in the store itself: a store that is lost or set back is filled again from Kafka, and
Kafka's committed offsets are for lag displays.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa
import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from connectors.clickhouse import rows
from connectors.clickhouse.rows import second
from connectors.clickhouse.store import TOO_MANY_PARTS, Store, StoreError
from connectors.clickhouse.tables import TABLES
from connectors.kafka.client import consumer as make_consumer
from connectors.kafka.client import producer as make_producer
from connectors.kafka.settings import KafkaSettings
from schemas import metrics
from schemas.arrow import integers
from schemas.block import DayBlock, FinalBlock, RecallBlock
from schemas.codec import Codec
from schemas.identity import identity
from schemas.topology import Topology
from schemas.topology.topics import RAW
from streams.runtime.lane import ID, PARENT, PAYLOAD, RECEIPT
from streams.vee.older import AROUND, StoredReading
from streams.vee.older import answer as window

TICK: Final = "tick/"
DAYS_PER_QUERY: Final = 1000
Place = tuple[str, int]  # topic, partition
TODO_TIMES: Final = ("first_seen", "last_seen", "start", "end", "assign_by", "resolve_by", "completed_at", "bill_at")
# Records that are stored as they are: table, and which fields are times
PLAIN: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "Posting": ("prepaid_postings", ("at",)),
    "PrepaidAccount": ("prepaid_account_states", ("as_of", "cut_from", "measured_until")),
    "PrepaidNotice": ("prepaid_notice_log", ("at", "not_before", "cut_from")),
    "PrepaidOutcome": ("prepaid_outcome_log", ("at",)),
    "PrepaidProof": ("prepaid_proof_log", ("at",)),
    "TodoEvent": ("todo_event_log", ("at",)),
    "TodoOutcome": ("todo_outcome_log", ("at",)),
    "DeviceCommand": ("device_command_log", ("issued_at", "expires_at")),
    "DeviceReply": ("device_reply_log", ("at",)),
}
ANSWERS: Final = frozenset(("prepaid_outcome_log", "todo_outcome_log"))  # stored behind what they tell of: somebody waits for them
_REFUSALS: Final = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED)
log = structlog.get_logger(__name__)


class StoppedError(Exception):
    """The sink was told to stop while it waited for store or broker; what it held is read again at the next start."""


@dataclass(frozen=True, slots=True)
class Pace:
    """When a batch is written: as soon as one of these is reached; with more records waiting not before ``behind`` seconds, because
    fewer and larger parts cost the store less."""

    seconds: float = 0.5
    behind: float = 2.0
    reads: int = 2_000_000
    bytes: int = 64 * 1024 * 1024
    records: int = 500  # per poll


@dataclass(slots=True)
class Health:
    """What the sink is doing, for readiness and displays. Written by the sink's thread, read by anyone."""

    running: bool = False
    last_flush: float = 0.0  # UTC seconds; 0: never
    positions: dict[Place, int] = field(default_factory=dict)
    lag: dict[Place, int] = field(default_factory=dict)
    records: int = 0
    reads: int = 0
    refused: int = 0
    problem: str = ""  # why nothing moves, empty: it does

    @property
    def behind(self) -> int:
        """Records not yet stored, of all partitions."""
        return sum(self.lag.values())


@dataclass(frozen=True, slots=True)
class Recall:
    """Channel days that VEE asked for in one record."""

    id: str
    payload: str
    days: RecallBlock


@dataclass(slots=True)
class Batch:
    """Records read and not yet stored, sorted by where they go."""

    finals: list[FinalBlock] = field(default_factory=list)
    days: list[DayBlock] = field(default_factory=list)
    singles: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))  # table → rows
    recalls: list[Recall] = field(default_factory=list)
    positions: dict[Place, int] = field(default_factory=dict)  # the next offset to read
    records: int = 0
    reads: int = 0
    bytes: int = 0

    def add_receipt(self, payload: str, id: str, agent: str, children: int, parent: str, **figures: Any) -> None:
        """A node of a payload's tree, or of a tick's."""
        row = {"payload": payload, "id": id, "agent": agent, "children": children, "parent": parent}
        if payload.startswith(TICK):
            self.singles["tick_receipts"].append({**row, "at": _tick_time(payload)})
        else:
            blank = {name: "" if kind.endswith(("String", "String)")) else 0 for name, kind in TABLES["receipts"].items()}
            self.singles["receipts"].append({**blank, **figures, **row})


def _tick_time(payload: str) -> int:
    at = payload.split("/")[1]
    return rows.second(int(at) if at.isdigit() else 0)


class Sorter:
    """Decodes records and puts them into a batch. A record that cannot be decoded is kept as it is, with the reason."""

    def __init__(self, codec: Codec, raw: frozenset[str]) -> None:
        self.codec, self.raw = codec, raw

    def add(self, batch: Batch, message: Message) -> None:
        """Takes one record; never raises for what is in it."""
        topic, partition, offset = message.topic() or "", message.partition() or 0, message.offset() or 0
        value = message.value() or b""
        headers = {header[0]: _bytes(header[1]) for header in message.headers() or []}
        batch.records += 1
        batch.bytes += len(value)
        batch.positions[topic, partition] = offset + 1
        origin = {
            "topic": topic, "partition": partition, "offset": offset, "at": rows.second(max(message.timestamp()[1], 0) // 1000),
            "key": _bytes(message.key()), "value": value, "headers": _texts(headers),
        }  # fmt: skip
        dead = 0
        try:
            if topic in self.raw:
                self._payload(batch, origin)
            elif value:
                self._typed(batch, value, headers, origin)
        except Exception as error:  # bytes from a topic may be anything: what is wrong with one record concerns it alone
            dead = 1
            refuse(batch, origin, error)
        payload = headers.get(PAYLOAD, b"").decode(errors="replace")
        if payload and RECEIPT in headers:
            receipt = headers[RECEIPT].decode(errors="replace")
            batch.add_receipt(payload, f"{receipt}:{topic}/{partition}", "sink", 0, receipt, dead=dead)

    def _payload(self, batch: Batch, origin: Mapping[str, Any]) -> None:
        headers = origin["headers"]
        received = headers.get("received_at", "")
        batch.singles["payload_log"].append(
            {
                **{name: origin[name] for name in ("topic", "partition", "offset", "headers")},
                "id": headers.get("id") or identity(origin["topic"], origin["partition"], origin["offset"]),
                "source": headers.get("source", ""),
                "format": headers.get("format", ""),
                "name": headers.get("name", ""),
                "received_at": rows.second(int(received)) if received.isdigit() and received.isascii() else origin["at"],
                "body": origin["value"],
                "_origin": origin,
            }
        )

    def _typed(self, batch: Batch, value: bytes, headers: Mapping[str, bytes], origin: Mapping[str, Any]) -> None:
        kind, body = self.codec.name_of(value), self.codec.decode(value)
        if isinstance(body, FinalBlock):
            batch.finals.append(body)
            batch.reads += len(body.values)
        elif isinstance(body, DayBlock):
            rows.tou_names([body])  # raises on a block that numbers names it does not have
            batch.days.append(body)
        elif kind == "VeeException":
            batch.singles["vee_exceptions"].append({**rows.with_seconds(body, "start", "end"), "_origin": origin})
        elif kind == "Determinant":
            row = rows.with_seconds(body, "period_start", "period_end")
            row["moment"] = None if body["moment"] is None else rows.second(body["moment"])
            batch.singles["bill_determinants"].append({**row, "_origin": origin})
        elif kind == "UsageTransaction":
            batch.singles["usage_transactions"].append({**rows.usage_transaction(body, origin["at"]), "_origin": origin})
        elif kind == "DeviceEvent":
            batch.singles["event_log"].append({**body, "at": rows.second(body["at"]), "_origin": origin})
        elif kind == "AuditEvent":
            batch.singles["audit_events"].append({**rows.with_seconds(body, "at", "start", "end"), "_origin": origin})
        elif kind == "EnterpriseMessage":
            batch.singles["cis_messages"].append({**rows.message_row(body), "_origin": origin})
        elif kind == "EnterpriseConversation":
            batch.singles["cis_conversations"].append({**body, "at": rows.second(body["at"]), "_origin": origin})
        elif kind == "Delivery":
            batch.singles["delivery_log"].append({**rows.with_seconds(body, "at", "since", "next_at"), "_origin": origin})
        elif kind == "Todo":
            row = {**body, **{name: rows.second(body[name]) for name in TODO_TIMES if body[name] is not None}, "_origin": origin}
            batch.singles["todo_items"].append(row)
            batch.singles["todo_open"].append({**row, "done": int(body["state"] == "completed")})
        elif kind in PLAIN:
            table, times = PLAIN[kind]
            known = {name: rows.second(body[name]) for name in times if body[name] is not None}
            batch.singles[table].append({**body, **known, "_origin": origin})
        elif kind == "MasterChange":
            _master(batch, body, origin)
        elif kind == "Receipt":
            figures = {**rows.with_seconds(body, "received_at"), "_origin": origin}
            batch.add_receipt(**figures)
        elif isinstance(body, RecallBlock):
            payload = headers.get(PAYLOAD, b"").decode(errors="replace")
            id = headers.get(ID, b"").decode(errors="replace") or identity(origin["topic"], origin["partition"], origin["offset"])
            batch.recalls.append(Recall(id, payload, body))
            if payload:
                # A node that announces itself and its answer, of which nobody else knows
                batch.add_receipt(payload, f"recall:{id}", "sink", 2, f"recall:{id}")


def _master(batch: Batch, body: Mapping[str, Any], origin: Mapping[str, Any]) -> None:
    """What became of an item, and the object where it was applied."""
    row = {**rows.with_seconds(body, "at"), "_origin": origin}
    batch.singles["master_items"].append(row)
    if body["outcome"] == "applied":
        spans = body["spans"]
        ends = {f"span_{edge}": [-1 if span[edge] is None else span[edge] for span in spans] for edge in ("from", "to")}
        row = {**row, **ends, "span_body": [span["body"] for span in spans]}
        batch.singles["master_objects"].append(row)
        batch.singles["master_versions"].append(row)


def refuse(batch: Batch, origin: Mapping[str, Any], reason: Exception) -> None:
    """Keeps a record that cannot be stored as what it is."""
    log.error("record refused", topic=origin["topic"], partition=origin["partition"], offset=origin["offset"], reason=str(reason)[:300])
    metrics.DEAD_LETTERS.labels(origin["topic"]).inc()
    batch.singles["refused_records"].append({**origin, "reason": f"{type(reason).__name__}: {reason}"[:1000]})


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value or "").encode()


def _texts(headers: Mapping[str, bytes]) -> dict[str, str]:
    return {name: value.decode(errors="replace") for name, value in headers.items()}


class Sink:
    """Writes stored topics to the store and answers recalls, in a thread of its own.

    ``raw`` are the topics of payloads as they came. With ``share`` several sinks divide the partitions among them (a consumer group);
    without, this one takes all. ``recalled`` is where answers go.
    """

    def __init__(
        self,
        store: Store,
        kafka: KafkaSettings,
        topics: Sequence[str],
        *,
        group: str,
        raw: frozenset[str] = frozenset({"hes.reads"}),
        recalled: str = "vee.recalled",
        share: bool = False,
        pace: Pace | None = None,
        codec: Codec | None = None,
    ) -> None:
        self.store, self.kafka, self.topics, self.group = store, kafka, list(topics), group
        self.recalled, self.share, self.pace = recalled, share, pace or Pace()
        self.codec = codec or Codec()
        self.health = Health()
        self._sorter = Sorter(self.codec, raw)
        self._stop = threading.Event()
        self._batch = Batch()

    @classmethod
    def from_topology(cls, store: Store, kafka: KafkaSettings, topology: Topology, **options: Any) -> Self:
        """The sink of a topology: its stored topics, and the topic of recalled days (the one the party ``sink`` writes)."""
        raw = frozenset(name for name in topology.stored if topology.topics[name].records == [RAW])
        answers = [name for name, topic in topology.topics.items() if "sink" in topic.writers]
        return cls(store, kafka, topology.stored, group=topology.group("sink"), raw=raw, recalled=answers[0], **options)

    # --- reading -----------------------------------------------------------------------------------------------------------

    def run(self, stop: threading.Event) -> None:
        """Stores until ``stop`` is set. Raises KafkaException where the broker refuses for good (no right, unknown settings)."""
        self._stop = stop
        # A store may be away for longer than the five minutes after which a group gives up on its member
        consumer = make_consumer(self.kafka, self.group, enable_partition_eof=True, max_poll_interval_ms=1_800_000)
        producer = make_producer(self.kafka, linger_ms=5)
        try:
            self._take_partitions(consumer, stop)
            self.health.running = True
            self._loop(consumer, producer, stop)
        except StoppedError:
            log.info("sink stopped with records in hand, they will be read again", records=self._batch.records)
        finally:
            self.health.running = False
            consumer.close()

    def _loop(self, consumer: Consumer, producer: Producer, stop: threading.Event) -> None:
        flushed = time.monotonic()
        while not stop.is_set():
            wait = max(0.01, self.pace.seconds - (time.monotonic() - flushed))
            messages = consumer.consume(self.pace.records, min(wait, self.pace.seconds))
            for message in messages:
                self._take(message)
            patience = max(self.pace.behind, self.pace.seconds) if len(messages) == self.pace.records else self.pace.seconds
            batch = self._batch
            full = batch.reads >= self.pace.reads or batch.bytes >= self.pace.bytes
            if full or time.monotonic() - flushed >= patience:
                if batch.records:
                    self.flush(batch, consumer, producer, stop)
                    self._batch = Batch()
                self._note_lag(consumer)
                flushed = time.monotonic()
        if self._batch.records:
            self.flush(self._batch, consumer, producer, stop)

    def _take(self, message: Message) -> None:
        error = message.error()
        if error is None:
            self._sorter.add(self._batch, message)
        elif error.code() == KafkaError._PARTITION_EOF:
            self.health.lag[message.topic() or "", message.partition() or 0] = 0
        elif error.fatal() or error.code() in _REFUSALS:
            raise KafkaException(error)
        else:
            self.health.problem = f"broker: {error.str()}"
            log.warning("kafka", error=error.str())

    def _take_partitions(self, consumer: Consumer, stop: threading.Event) -> None:
        if self.share:
            consumer.subscribe(self.topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke)
            return
        while not stop.is_set():
            try:
                known = consumer.list_topics(timeout=5).topics
                missing = [name for name in self.topics if name not in known or not known[name].partitions]
                if not missing:
                    places = [TopicPartition(name, number) for name in self.topics for number in known[name].partitions]
                    consumer.assign(self._placed(consumer, places, stop))
                    return
                self.health.problem = f"broker has no topic {', '.join(missing)}"
            except KafkaException as error:
                self.health.problem = f"broker: {error.args[0].str()}"
            log.warning("sink waits", reason=self.health.problem)
            stop.wait(1)
        raise StoppedError

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        consumer.assign(self._placed(consumer, partitions, self._stop))

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:  # noqa: ARG002
        # Not yet stored and no longer ours: whoever takes over goes on from the positions in the store
        self._batch = Batch()
        self.health.positions.clear()
        self.health.lag.clear()

    def _placed(self, consumer: Consumer, partitions: Sequence[TopicPartition], stop: threading.Event) -> list[TopicPartition]:
        """The partitions with where to go on reading."""
        known = self._patiently("sink_positions", lambda: positions(self.store, self.group), stop)
        placed = []
        for part in partitions:
            place = (part.topic, part.partition)
            low, high = self._bounds(consumer, part, stop)
            offset = known.get(place, OFFSET_BEGINNING)
            if offset > high:
                log.error("topic is shorter than what was stored of it: it was made anew, all of it is read", topic=part.topic,
                          partition=part.partition, stored=offset, end=high)  # fmt: skip
                forget_position(self.store, self.group, place)
                offset = OFFSET_BEGINNING
            elif OFFSET_BEGINNING < offset < low:
                log.error("records are gone from Kafka before they were stored", topic=part.topic, partition=part.partition,
                          records=low - offset)  # fmt: skip
                offset = low
            self.health.positions[place] = max(offset, low)
            self.health.lag[place] = high - max(offset, low)
            placed.append(TopicPartition(part.topic, part.partition, offset))
        return placed

    def _bounds(self, consumer: Consumer, part: TopicPartition, stop: threading.Event) -> tuple[int, int]:
        """First offset and end of a partition, once the broker tells. Raises KafkaException where it refuses for good."""
        while True:
            try:
                low, high = consumer.get_watermark_offsets(part, timeout=10)
                return int(low), int(high)
            except KafkaException as failure:
                error = failure.args[0]
                if error.fatal() or error.code() in _REFUSALS:
                    raise
                self.health.problem = f"broker: {error.str()}"
                log.warning("sink waits", reason=self.health.problem)
                if stop.wait(1):
                    raise StoppedError from failure

    def _note_lag(self, consumer: Consumer) -> None:
        for (topic, partition), position in self.health.positions.items():
            _, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
            if high >= 0 and self.health.lag.get((topic, partition)) != 0:
                self.health.lag[topic, partition] = max(high - position, 0)
            metrics.LAG_RECORDS.labels(self.group, topic, partition).set(self.health.lag.get((topic, partition), 0))

    # --- writing -----------------------------------------------------------------------------------------------------------

    def flush(self, batch: Batch, consumer: Consumer | None, producer: Producer, stop: threading.Event) -> None:
        """Stores a batch. Raises StoppedError where ``stop`` was set before store and broker had taken it.

        A crash after any of these lines has the whole batch read again; what each line then finds is said beside it.
        """
        started = time.perf_counter()
        receipts = [name for name in ("receipts", "tick_receipts") if name in batch.singles]
        for table, data in self._tables(batch):
            self._insert(table, data, stop)  # crash after: rows are there without receipts, the same rows replace them
        self._answer(batch, producer, stop)  # crash after: answers are sent twice, VEE knows a recall by its id
        for table in receipts:
            # crash after: whoever waits is told rightly that all is stored, the same receipts replace these
            self._insert(table, rows.from_dicts(table, batch.singles[table]), stop)
        self._insert("sink_positions", self._position_rows(batch), stop)  # crash after: nothing is read again
        if consumer is not None:
            # crash after: nothing is read again; without this line lag displays lie, nothing else
            consumer.commit(offsets=[TopicPartition(*place, offset) for place, offset in batch.positions.items()], asynchronous=True)
        self._note_flush(batch, time.perf_counter() - started)

    def _tables(self, batch: Batch) -> list[tuple[str, pa.Table | None]]:
        plain = [name for name in batch.singles if name not in ("receipts", "tick_receipts", "refused_records")]
        plain.sort(key=ANSWERS.__contains__)
        return [
            *[(name, self._sound(batch, name)) for name in plain],
            ("final_days", rows.final_days(batch.finals)),
            ("register_reads", rows.register_reads(batch.finals)),
            ("determinant_days", rows.determinant_days(batch.days)),
            ("refused_records", rows.from_dicts("refused_records", batch.singles.get("refused_records", []))),
        ]

    def _sound(self, batch: Batch, table: str) -> pa.Table | None:
        """Rows of a table; a record whose values the table cannot hold is put aside, the others stay."""
        try:
            return rows.from_dicts(table, batch.singles[table])
        except (pa.ArrowException, TypeError, ValueError, OverflowError, KeyError):
            kept = []
            for row in batch.singles[table]:
                try:
                    rows.from_dicts(table, [row])
                    kept.append(row)
                except (pa.ArrowException, TypeError, ValueError, OverflowError, KeyError) as error:
                    refuse(batch, row["_origin"], error)
            batch.singles[table] = kept
            return rows.from_dicts(table, kept)

    def _position_rows(self, batch: Batch) -> pa.Table | None:
        return rows.from_dicts(
            "sink_positions",
            [
                {"sink": self.group, "topic": topic, "partition": partition, "offset": offset}
                for (topic, partition), offset in batch.positions.items()
            ],
        )

    def _insert(self, table: str, data: pa.Table | None, stop: threading.Event) -> None:
        if data is not None:
            self._patiently(table, lambda: self.store.insert_arrow(table, data), stop)

    def _patiently(self, table: str, work: Any, stop: threading.Event) -> Any:
        """Does it until it is done. While it is not, nothing more is consumed: Kafka keeps what comes."""
        delay = 0.2
        while True:
            try:
                done = work()
            except StoreError as error:
                many = error.code == TOO_MANY_PARTS
                delay = max(delay, 2.0) if many else delay  # merges need time more than another part
                self.health.problem = f"store: {error}"
                metrics.STORE_RETRIES.labels(table).inc()
                log.warning("store does not take rows yet", table=table, reason=str(error)[:300], again_in=round(delay, 1))
                if stop.wait(delay):
                    raise StoppedError from error
                delay = min(delay * 2, 10.0)
            else:
                self.health.problem = ""
                return done

    def _note_flush(self, batch: Batch, seconds: float) -> None:
        health = self.health
        health.last_flush = time.time()
        health.positions.update(batch.positions)
        health.records += batch.records
        health.reads += batch.reads
        health.refused += len(batch.singles.get("refused_records", []))
        metrics.READS_IN.labels("sink").inc(batch.reads)
        metrics.BATCH_ROWS.labels("sink").observe(sum(map(len, batch.finals)) + sum(map(len, batch.singles.values())))
        metrics.BATCH_BYTES.labels("sink").observe(batch.bytes)
        metrics.BATCH_SECONDS.labels("sink").observe(seconds)
        for block in batch.finals:
            end = _newest_end(block)
            if end is not None:
                metrics.READ_AGE.observe(max(health.last_flush - end, 0))

    # --- recalls -----------------------------------------------------------------------------------------------------------

    def _answer(self, batch: Batch, producer: Producer, stop: threading.Event) -> None:
        """Sends the stored days VEE asked for, as they are after everything read before; returns when Kafka has them."""
        pending = list(batch.recalls)
        while pending:
            failed: list[Recall] = []
            for part in _parcels(pending):
                found = self._patiently("final_days", lambda part=part: stored_days(self.store, part), stop)
                for asked, days in zip(part, found, strict=True):
                    self._send(producer, asked, days, failed)
            while producer.flush(1.0):
                if stop.is_set():
                    raise StoppedError
            pending = failed
            if failed and stop.wait(1.0):
                raise StoppedError

    def _send(self, producer: Producer, asked: Recall, days: FinalBlock, failed: list[Recall]) -> None:
        headers: dict[str, str | bytes | None] = {
            "id": f"recall/{asked.id}".encode(),
            PAYLOAD: asked.payload.encode(),
            PARENT: f"recall:{asked.id}".encode(),
        }
        key = asked.days.device[0].as_py().encode()  # all devices of a recall are of one partition of VEE

        def acknowledged(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                self.health.problem = f"broker: {error.str()}"
                log.warning("answer to a recall not taken", error=error.str())
                failed.append(asked)

        while True:
            try:
                producer.produce(self.recalled, self.codec.encode_block(days), key, headers=headers, on_delivery=acknowledged)
                return
            except BufferError:
                producer.poll(0.5)


def _newest_end(block: FinalBlock) -> int | None:
    """The end of the newest interval of a block's last row that has a condition."""
    if not len(block) or not block.seconds[-1] or not block.count[-1]:
        return None
    slots = np.flatnonzero(block.conditions[-int(block.count[-1]) :])
    return int(block.start[-1]) + (int(slots[-1]) + 1) * int(block.seconds[-1]) if len(slots) else None


def positions(store: Store, group: str) -> dict[Place, int]:
    """Where a sink goes on reading: topic and partition → next offset."""
    found = store.query_arrow("SELECT topic, partition, offset FROM sink_positions FINAL WHERE sink = {sink:String}", {"sink": group})
    return {(row["topic"], row["partition"]): row["offset"] for row in found.to_pylist()}


def forget_position(store: Store, group: str, place: Place) -> None:
    """Makes a sink read a partition from its beginning again."""
    store.command(
        "ALTER TABLE sink_positions DELETE WHERE sink = {sink:String} AND topic = {topic:String} AND partition = {partition:Int32} "
        "SETTINGS mutations_sync = 2",
        {"sink": group, "topic": place[0], "partition": place[1]},
    )


def _parcels(recalls: Sequence[Recall]) -> Iterator[list[Recall]]:
    """The recalls in groups of at most so many days that one query asks for them; a large recall is a group of its own."""
    part: list[Recall] = []
    for recall in recalls:
        if part and sum(len(other.days) for other in part) + len(recall.days) > DAYS_PER_QUERY:
            yield part
            part = []
        part.append(recall)
    yield part


def stored_days(store: Store, recalls: Sequence[Recall]) -> list[FinalBlock]:
    """The answer to each recall: the current rows of ``final_days``, and a row without slots for days the store has not.

    Rows of interval length 0 ask for windows of register readings (streams/vee/older.py).
    """
    asked = {place for recall in recalls for place in recall.days.places() if place[2]}
    windows = _windows(store, sorted({place for recall in recalls for place in recall.days.places() if not place[2]}))
    found, at = _found_days(store, sorted(asked)) if asked else (None, {})
    answers = []
    for recall in recalls:
        places = [place for place in recall.days.places() if place[2]]
        parts = [window for place in recall.days.places() if not place[2] for window in windows(place, recall)]
        if places and found is not None:
            rows_ = integers(np.array([at[place] for place in places if place in at], np.int64))
            absent = [place for place in places if place not in at]
            parts.insert(0, rows.recalled(found.take(rows_), absent, recall.id, recall.payload))
        answers.append(FinalBlock.join(parts) if len(parts) > 1 else parts[0])
    return answers


def _found_days(store: Store, asked: list[tuple[str, str, int, int]]) -> tuple[pa.Table, dict[tuple[str, str, int, int], int]]:
    """The rows of ``final_days`` there are of these places, and where each is."""
    found = store.query_arrow(
        "SELECT * EXCEPT (day), toInt32(day) AS day FROM final_days FINAL "
        "WHERE (device, channel) IN {channels:Array(Tuple(String, String))} "
        "AND (device, toString(channel), toInt32(seconds), toInt32(day)) IN {days:Array(Tuple(String, String, Int32, Int32))}",
        {"channels": sorted({place[:2] for place in asked}), "days": asked},
        {"do_not_merge_across_partitions_select_final": "1"},
    )
    keyed = zip(*(found[name].to_pylist() for name in ("device", "channel", "seconds", "day")), strict=True)
    return found, {key: i for i, key in enumerate(keyed)}


def _windows(store: Store, asked: list[tuple[str, str, int, int]]) -> Callable[[tuple[str, str, int, int], Recall], list[FinalBlock]]:
    """Answers for windows of register readings: those of the day, and the nearest before and behind."""
    readings: dict[tuple[str, str, int], list[tuple[StoredReading, str]]] = {}
    if asked:
        days = [(device, channel, day) for device, channel, _, day in asked]
        reads = (
            "SELECT p.device AS device, p.channel AS channel, p.day AS day, r.at AS at, r.reading AS reading, r.condition AS condition, "
            "r.method AS method, r.version AS version, r.unit AS unit FROM "
            "(SELECT * FROM register_reads FINAL WHERE (device, channel) IN {channels:Array(Tuple(String, String))}) AS r INNER JOIN "
            "(SELECT t.1 AS device, t.2 AS channel, toInt64(t.3) AS day FROM "
            "(SELECT arrayJoin({days:Array(Tuple(String, String, Int32))}) AS t)) AS p "
            "ON r.device = p.device AND toString(r.channel) = p.channel WHERE r.condition != 0 AND "
        )
        by = f"LIMIT {AROUND} BY p.device, p.channel, p.day"
        when = ("toInt64(toUnixTimestamp(r.at))", "p.day * 86400", "(p.day + 1) * 86400")
        parts = (
            f"{reads} {when[0]} < {when[1]} ORDER BY r.at DESC {by}", f"{reads} {when[0]} >= {when[1]} AND {when[0]} < {when[2]}",
            f"{reads} {when[0]} >= {when[2]} ORDER BY r.at {by}",
        )  # fmt: skip
        for query in parts:
            found = store.query_arrow(query, {"channels": sorted({place[:2] for place in asked}), "days": days})
            names = ("device", "channel", "day", "at", "reading", "condition", "method", "version", "unit")
            for device, channel, day, at, *rest, unit in zip(*(found[name].to_pylist() for name in names), strict=True):
                readings.setdefault((device, channel, day), []).append((StoredReading(second(at), *rest), unit))

    def answers(place: tuple[str, str, int, int], recall: Recall) -> list[FinalBlock]:
        device, channel, _, day = place
        found = sorted(readings.get((device, channel, day), []), key=lambda one: one[0].at)
        units = list(dict.fromkeys(unit for _, unit in found)) or [""]
        return [
            window(device, channel, unit, day, [one for one, own in found if own == unit], id=recall.id, payload=recall.payload)
            for unit in units
        ]

    return answers
