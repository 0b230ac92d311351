"""Dead letters: records an agent could not take, read from their topics and, where they came from outside, sent again.

What was dealt with is kept as the committed offsets of one consumer group, so every Kafka tool shows how many letters wait. Letters
dealt with out of order are named in the metadata of the commit. A letter sent again has the original bytes and an id that
comes from the first id and the attempt: sending it twice, after a crash, is taken once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, Literal

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, Message, TopicPartition

from connectors.head_end.publish import Writer
from connectors.kafka.client import KafkaSettings, consumer
from schemas.codec import Codec
from schemas.identity import identity

Policy = Literal["stop", "reinsert", "drop"]
ATTEMPT: Final = "attempt"
FIRST_ID: Final = "first_id"
PREFIX: Final = "__connect.errors."
METADATA_LIMIT: Final = 3500  # brokers take 4096 bytes by default
PATIENCE: Final = 30.0


class DeadLettersError(Exception):
    """The letters cannot be read or dealt with; the message says why."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter. ``topic``, ``partition`` and ``offset`` are its place among the dead letters; people name it by ``ref``.

    Letters in a list come without their ``value``: a thousand of them must fit in memory.
    """

    topic: str
    partition: int
    offset: int
    at: datetime
    size: int
    key: bytes = b""
    value: bytes | None = None
    headers: dict[str, bytes] = field(default_factory=dict)

    @property
    def ref(self) -> str:
        """``topic/partition/offset``."""
        return f"{self.topic}/{self.partition}/{self.offset}"

    def text(self, header: str) -> str:
        """A header as text, empty where there is none."""
        return self.headers.get(header, b"").decode(errors="replace")

    @property
    def id(self) -> str:
        """The payload it is, or came from."""
        return self.text("id") or self.text("mdh-payload")

    @property
    def origin(self) -> str:
        """The topic it was read from."""
        return self.text(f"{PREFIX}topic")

    @property
    def reason(self) -> str:
        """Why it could not be decoded."""
        return self.text(f"{PREFIX}exception.message")

    @property
    def stage(self) -> str:
        """The agent that could not take it."""
        return self.text(f"{PREFIX}stage")

    @property
    def attempt(self) -> int:
        """How often it was sent again already."""
        text = self.text(ATTEMPT)
        return int(text) if text.isascii() and text.isdigit() and len(text) < 9 else 0

    @property
    def first_id(self) -> str:
        """The payload id of the very first try."""
        own = f"{self.origin}/{self.text(PREFIX + 'partition')}/{self.text(PREFIX + 'offset')}"
        return self.text(FIRST_ID) or self.id or own

    def next_id(self) -> str:
        """The payload id of the next try."""
        return identity("replay", self.first_id, self.attempt + 1)

    def summary(self) -> dict[str, Any]:
        """What a table shows of it."""
        return {
            "ref": self.ref,
            "id": self.id,
            "source": self.text("source"),
            "name": self.text("name"),
            "format": self.text("format"),
            "topic": self.origin,
            "partition": self.text(f"{PREFIX}partition"),
            "offset": self.text(f"{PREFIX}offset"),
            "stage": self.stage,
            "error": self.text(f"{PREFIX}exception.class.name"),
            "reason": self.reason,
            "attempt": self.attempt,
            "bytes": self.size,
            "at": self.at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a letter that was dealt with. ``status``: sent, decoded, folded, duplicate, dead, dropped, unknown or refused."""

    ref: str
    id: str
    status: str
    reason: str = ""


Place = tuple[str, int]  # topic, partition


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a partition was dealt with: everything before ``through``, and single letters after it."""

    through: int
    done: frozenset[int]


class DeadLetters:
    """The dead-letter topics of a broker, and what of them was dealt with. Close it after use."""

    def __init__(self, settings: KafkaSettings, topics: Sequence[str], group: str, patience: float = PATIENCE) -> None:
        self.settings, self.topics, self.group, self.patience = settings, list(topics), group, patience
        self._consumer: Consumer = consumer(settings, group, enable_partition_eof=True, fetch_wait_max_ms=50)
        self._listed: dict[Place, list[int]] = {}  # offsets per partition, from the committed one to the end when last read

    def __enter__(self) -> DeadLetters:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leaves the broker."""
        self._consumer.close()

    def places(self) -> list[Place]:
        """All partitions of the topics. Raises DeadLettersError where there is no broker or no topic."""
        return [(topic, number) for topic in self.topics for number in _partitions(self._consumer, topic, min(self.patience, 5))]

    def waiting(self) -> list[Letter]:
        """The letters not dealt with yet, by time, without their bytes."""
        marks = self._marks(self.places())
        found = [replace(letter, value=None) for letter in self._read({place: mark.through for place, mark in marks.items()})]
        self._listed = {place: [] for place in marks}
        for letter in found:
            self._listed[letter.topic, letter.partition].append(letter.offset)
        letters = [letter for letter in found if letter.offset not in marks[letter.topic, letter.partition].done]
        return sorted(letters, key=lambda letter: (letter.at, letter.topic, letter.partition, letter.offset))

    def get(self, ref: str) -> Letter:
        """One letter by its name, dealt with or not. Raises DeadLettersError if there is none."""
        topic, _, rest = ref.rpartition("/")
        topic, _, partition = topic.rpartition("/")
        if topic not in self.topics or not all(part.isascii() and part.isdigit() and len(part) < 19 for part in (partition, rest)):
            raise DeadLettersError(f"{ref!r} names no letter; `mdh dlq ls` shows names such as {self.topics[0]}/0/12")
        place, offset = (topic, int(partition)), int(rest)
        try:
            low, high = self._consumer.get_watermark_offsets(TopicPartition(*place), timeout=30)
        except KafkaException:
            low, high = 0, 0
        found = next(self._read({place: offset}), None) if low <= offset < high else None
        if found is None or found.offset != offset:
            raise DeadLettersError(f"there is no letter {ref}")
        return found

    def settle(self, letters: Iterable[Letter]) -> None:
        """Notes letters as dealt with. Raises DeadLettersError where too many older ones were passed over to keep note of."""
        new: dict[Place, set[int]] = {}
        for letter in letters:
            new.setdefault((letter.topic, letter.partition), set()).add(letter.offset)
        if not new.keys() <= self._listed.keys():
            self.waiting()
        commits = []
        for place, mark in self._marks(new).items():
            done = mark.done | new[place]
            there = [offset for offset in self._listed[place] if offset >= mark.through]
            left = [offset for offset in there if offset not in done]
            through = left[0] if left else max([mark.through, *(offset + 1 for offset in (*there, *new[place]))])
            note = format_ranges({offset for offset in done if offset > through})
            if len(note) > METADATA_LIMIT:
                raise DeadLettersError("too many older letters were passed over; deal with the oldest ones first")
            commits.append(TopicPartition(*place, through, metadata=note))
        if commits:
            failed = [it.error for it in self._consumer.commit(offsets=commits, asynchronous=False) or [] if it.error]
            if failed:
                raise DeadLettersError(f"progress could not be kept ({failed[0]})")

    def _marks(self, places: Iterable[Place]) -> dict[Place, Mark]:
        try:
            committed = self._consumer.committed([TopicPartition(*place) for place in places], timeout=30)
        except KafkaException as error:
            raise DeadLettersError(f"the broker does not answer ({error.args[0].str()})") from None
        return {(it.topic, it.partition): Mark(max(it.offset, 0), frozenset(parse_ranges(it.metadata or ""))) for it in committed}

    def _read(self, starts: Mapping[Place, int]) -> Iterator[Letter]:
        """All letters from these offsets to the present end."""
        self._consumer.assign([TopicPartition(*place, offset) for place, offset in starts.items()])
        left = set(starts)
        deadline = time.monotonic() + self.patience
        try:
            while left:
                messages = self._consumer.consume(200, timeout=0.1)
                if messages:
                    deadline = time.monotonic() + self.patience
                elif time.monotonic() > deadline:
                    raise DeadLettersError("the broker does not answer")
                for message in messages:
                    error = message.error()
                    if error is None:
                        yield _letter(message)
                    elif error.code() == KafkaError._PARTITION_EOF:
                        left.discard((message.topic() or "", message.partition() or 0))
                    elif not error.retriable():
                        raise DeadLettersError(error.str())
        finally:
            self._consumer.unassign()


class Replay:
    """Sends letters again: to their topic if it is one of ``plain``, which the outside may write, through ``replays`` if it is one of
    ``inboxes``, which only agents write. A letter from elsewhere stays where it is."""

    def __init__(
        self,
        letters: DeadLetters,
        writer: Writer,
        plain: frozenset[str],
        receipts: str,
        codec: Codec | None = None,
        *,
        inboxes: frozenset[str] = frozenset(),
        replays: str = "hub.replays",
    ) -> None:
        self.letters, self.writer, self.plain, self.receipts = letters, writer, plain, receipts
        self.inboxes, self.replays = inboxes, replays
        self.codec = codec or Codec()

    def run(
        self,
        chosen: Sequence[Letter],
        policy: Policy,
        told: Callable[[Outcome], None] = lambda _: None,
        patience: float = 60.0,
    ) -> list[Outcome]:
        """Sends the chosen letters again in their order.

        ``reinsert``: all are sent; what fails again is a new letter. ``stop``: each one's outcome is awaited; the first that
        fails again ends the run. ``drop``: outcomes are awaited, and what fails again is noted as dealt with.
        """
        outcomes: list[Outcome] = []
        again: set[str] = set()
        watch = None if policy == "reinsert" else ReceiptWatch(self.letters.settings, self.receipts, self.codec)
        try:
            for letter in chosen:
                outcome = self._send(letter, watch, patience)
                if outcome.status == "refused" and policy == "drop":
                    self.letters.settle([letter])
                    outcome = replace(outcome, status="dropped")
                elif outcome.status == "dead" and policy == "drop":
                    again.add(outcome.id)
                    outcome = replace(outcome, status="dropped")
                outcomes.append(outcome)
                told(outcome)
                if policy == "stop" and outcome.status in ("dead", "unknown"):
                    break
        finally:
            if watch is not None:
                watch.close()
        if again:
            self.letters.settle([letter for letter in self.letters.waiting() if letter.id in again])
        return outcomes

    def _send(self, letter: Letter, watch: ReceiptWatch | None, patience: float) -> Outcome:
        inbox = letter.origin in self.inboxes
        if not inbox and letter.origin not in self.plain:
            return Outcome(letter.ref, letter.id, "refused", f"{letter.origin or 'its topic'} is no topic an agent of this topology reads")
        payload = letter.next_id()
        value = letter.value if letter.value is not None else self.letters.get(letter.ref).value
        kept = {name: text for name, text in letter.headers.items() if not name.startswith((PREFIX, "mdh-"))}
        headers = {
            **kept,
            "id": payload.encode(),
            "ce_id": payload.encode(),
            ATTEMPT: str(letter.attempt + 1).encode(),
            FIRST_ID: letter.first_id.encode(),
        }
        if inbox:
            headers |= {"inbox": letter.origin.encode(), "partition": letter.headers.get(f"{PREFIX}partition", b"")}
        topic = self.replays if inbox else letter.origin
        self.writer.write(topic, value, key=letter.key or None, headers=headers).result(self.writer.timeout + 5)
        self.letters.settle([letter])
        if watch is None:
            return Outcome(letter.ref, payload, "sent")
        status, reason = watch.outcome(payload, patience, letter.stage if inbox else None)
        return Outcome(letter.ref, payload, status, reason)


class ReceiptWatch:
    """Reads receipts from now on, to learn what ingest made of a payload."""

    def __init__(self, settings: KafkaSettings, topic: str, codec: Codec) -> None:
        self.codec = codec
        self._consumer: Consumer = consumer(settings, "mdh-receipt-watch", auto_offset_reset="latest", fetch_wait_max_ms=50)
        # The present ends are looked up, not left to the first fetch: a receipt must not slip by before it
        places = []
        for partition in _partitions(self._consumer, topic):
            _, high = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=30)
            places.append(TopicPartition(topic, partition, high if high >= 0 else OFFSET_END))
        self._consumer.assign(places)
        self._seen: dict[tuple[str, str | None], tuple[str, str]] = {}

    def outcome(self, payload: str, patience: float, agent: str | None = None) -> tuple[str, str]:
        """(status, reason) of the payload's first receipt that tells one: decoded, duplicate or dead; unknown after ``patience`` seconds.

        With ``agent`` that agent's receipt counts: folded or dead.
        """
        deadline = time.monotonic() + patience
        while (payload, agent) not in self._seen:
            if time.monotonic() > deadline:
                return "unknown", "no agent took it in time; are workers running?"
            for message in self._consumer.consume(500, timeout=0.3):
                value = message.value()
                if message.error() is None and value:
                    receipt = self.codec.decode(value)
                    told = (receipt["status"], receipt["reason"])
                    if receipt["status"]:
                        self._seen.setdefault((receipt["payload"], None), told)
                    self._seen[receipt["payload"], receipt["agent"]] = told if receipt["status"] else ("folded", "")
        return self._seen[payload, agent]

    def close(self) -> None:
        """Leaves the broker."""
        self._consumer.close()


def _partitions(reading: Consumer, topic: str, timeout: float = 5) -> list[int]:
    for pause in (0.2, 0.5, 1.0, 0):  # a topic just made may show no partitions yet
        try:
            found = reading.list_topics(topic, timeout=timeout).topics.get(topic)
        except KafkaException as error:
            raise DeadLettersError(f"the broker does not answer ({error.args[0].str()})") from None
        if found is not None and found.partitions:
            return sorted(found.partitions)
        time.sleep(pause)
    raise DeadLettersError(f"the broker has no topic {topic}")


def _letter(message: Message) -> Letter:
    _, milliseconds = message.timestamp()
    pairs: Any = message.headers() or []
    headers = {name: text if isinstance(text, bytes) else str(text or "").encode() for name, text in pairs}
    value = message.value() or b""
    at = datetime.fromtimestamp(max(milliseconds, 0) / 1000, UTC)
    place = (message.topic() or "", message.partition() or 0)
    return Letter(*place, message.offset() or 0, at, len(value), message.key() or b"", value, headers)


def format_ranges(numbers: set[int]) -> str:
    """``{3, 4, 5, 9}`` as ``3-5,9``."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in spans)


def parse_ranges(text: str) -> set[int]:
    """The numbers of ``3-5,9``; nothing of text that somebody else's tool left there."""
    numbers: set[int] = set()
    for part in text.split(",") if text else []:
        low, _, high = part.partition("-")
        if not (low.isascii() and low.isdigit() and (not high or (high.isascii() and high.isdigit()))):
            return set()
        numbers.update(range(int(low), int(high or low) + 1))
    return numbers
