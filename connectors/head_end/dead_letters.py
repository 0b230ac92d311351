"""Dead letters: payloads nobody could decode, read from their topic and sent again.

What was dealt with is kept as the committed offsets of one consumer group, so every Kafka tool shows how many letters wait. Letters
dealt with out of order are named in the metadata of the commit. A letter sent again has the original bytes and an id that
comes from the first id and the attempt: sending it twice, after a crash, is taken once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
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
    """One dead letter. ``partition`` and ``offset`` are its place on the dead-letter topic, ``ref`` is how people name it.

    Letters in a list come without their ``value``: a thousand of them must fit in memory.
    """

    partition: int
    offset: int
    at: datetime
    size: int
    key: bytes = b""
    value: bytes | None = None
    headers: dict[str, bytes] = field(default_factory=dict)

    @property
    def ref(self) -> str:
        """``partition:offset``."""
        return f"{self.partition}:{self.offset}"

    def text(self, header: str) -> str:
        """A header as text, empty where there is none."""
        return self.headers.get(header, b"").decode(errors="replace")

    @property
    def origin(self) -> str:
        """The topic it was read from."""
        return self.text(f"{PREFIX}topic")

    @property
    def reason(self) -> str:
        """Why it could not be decoded."""
        return self.text(f"{PREFIX}exception.message")

    @property
    def attempt(self) -> int:
        """How often it was sent again already."""
        text = self.text(ATTEMPT)
        return int(text) if text.isascii() and text.isdigit() and len(text) < 9 else 0

    @property
    def first_id(self) -> str:
        """The payload id of the very first try."""
        own = f"{self.origin}/{self.text(PREFIX + 'partition')}/{self.text(PREFIX + 'offset')}"
        return self.text(FIRST_ID) or self.text("id") or own

    def next_id(self) -> str:
        """The payload id of the next try."""
        return identity("replay", self.first_id, self.attempt + 1)

    def summary(self) -> dict[str, Any]:
        """What a table shows of it."""
        return {
            "ref": self.ref,
            "id": self.text("id"),
            "source": self.text("source"),
            "name": self.text("name"),
            "format": self.text("format"),
            "topic": self.origin,
            "partition": self.text(f"{PREFIX}partition"),
            "offset": self.text(f"{PREFIX}offset"),
            "stage": self.text(f"{PREFIX}stage"),
            "error": self.text(f"{PREFIX}exception.class.name"),
            "reason": self.reason,
            "attempt": self.attempt,
            "bytes": self.size,
            "at": self.at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a letter that was dealt with. ``status``: sent, decoded, duplicate, dead, dropped, unknown or refused."""

    ref: str
    id: str
    status: str
    reason: str = ""


class DeadLetters:
    """The dead-letter topic of a broker, and what of it was dealt with. Close it after use."""

    def __init__(self, settings: KafkaSettings, topic: str, group: str, patience: float = PATIENCE) -> None:
        self.settings, self.topic, self.group, self.patience = settings, topic, group, patience
        self._consumer: Consumer = consumer(settings, group, enable_partition_eof=True)
        self._listed: dict[int, list[int]] = {}  # offsets per partition, from the committed one to the end when last read

    def __enter__(self) -> DeadLetters:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leaves the broker."""
        self._consumer.close()

    def partitions(self) -> list[int]:
        """The partitions of the topic. Raises DeadLettersError where there is no broker or no topic."""
        return _partitions(self._consumer, self.topic)

    def waiting(self) -> list[Letter]:
        """The letters not dealt with yet, by time, without their bytes."""
        places = self._consumer.committed([TopicPartition(self.topic, p) for p in self.partitions()], timeout=10)
        done = {place.partition: parse_ranges(place.metadata or "") for place in places}
        starts = [TopicPartition(self.topic, place.partition, max(place.offset, 0)) for place in places]
        found = [replace(letter, value=None) for letter in self._read(starts)]
        self._listed = {place.partition: [] for place in places}
        for letter in found:
            self._listed[letter.partition].append(letter.offset)
        letters = [letter for letter in found if letter.offset not in done[letter.partition]]
        return sorted(letters, key=lambda letter: (letter.at, letter.partition, letter.offset))

    def depth(self) -> int:
        """How many letters wait."""
        return len(self.waiting())

    def get(self, ref: str) -> Letter:
        """One letter by its name, dealt with or not. Raises DeadLettersError if there is none."""
        partition, _, offset = ref.rpartition(":")
        if not offset.isdigit() or not (partition.isdigit() or not partition):
            raise DeadLettersError(f"{ref!r} names no letter; `mdh dlq ls` shows names such as 0:12")
        candidates = [int(partition)] if partition else self.partitions()
        found = [letter for number in candidates if (letter := self._one(number, int(offset))) is not None]
        if not found:
            raise DeadLettersError(f"there is no letter {ref}")
        if len(found) > 1:
            raise DeadLettersError(f"{ref} names {len(found)} letters; say {' or '.join(letter.ref for letter in found)}")
        return found[0]

    def settle(self, letters: Iterable[Letter]) -> None:
        """Notes letters as dealt with. Raises DeadLettersError where too many older ones were passed over to keep note of."""
        by_partition: dict[int, set[int]] = {}
        for letter in letters:
            by_partition.setdefault(letter.partition, set()).add(letter.offset)
        places = self._consumer.committed([TopicPartition(self.topic, p) for p in by_partition], timeout=10)
        commits = []
        for place in places:
            start = max(place.offset, 0)
            done = parse_ranges(place.metadata or "") | by_partition[place.partition]
            if place.partition not in self._listed:
                self.waiting()
            there = [offset for offset in self._listed[place.partition] if offset >= start]
            open_letters = [offset for offset in there if offset not in done]
            through = open_letters[0] if open_letters else max([start, *(offset + 1 for offset in there)])
            note = format_ranges({offset for offset in done if offset > through})
            if len(note) > METADATA_LIMIT:
                raise DeadLettersError("too many older letters were passed over; deal with the oldest ones first")
            commits.append(TopicPartition(self.topic, place.partition, through, metadata=note))
        if commits:
            failed = [it.error for it in self._consumer.commit(offsets=commits, asynchronous=False) or [] if it.error]
            if failed:
                raise DeadLettersError(f"progress could not be kept ({failed[0]})")

    def _one(self, partition: int, offset: int) -> Letter | None:
        try:
            low, high = self._consumer.get_watermark_offsets(TopicPartition(self.topic, partition), timeout=10)
        except KafkaException:
            return None
        if not low <= offset < high:
            return None
        first = next(self._read([TopicPartition(self.topic, partition, offset)]), None)
        return first if first is not None and first.offset == offset else None

    def _read(self, starts: Sequence[TopicPartition]) -> Iterator[Letter]:
        """All letters from these places to the present end."""
        if not starts:
            return
        self._consumer.assign(list(starts))
        left = {place.partition for place in starts}
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
                        left.discard(message.partition())
                    elif not error.retriable():
                        raise DeadLettersError(error.str())
        finally:
            self._consumer.unassign()


class Replay:
    """Sends letters again. ``plain`` are the topics the outside may write; a letter from elsewhere stays where it is."""

    def __init__(self, letters: DeadLetters, writer: Writer, plain: frozenset[str], receipts: str, codec: Codec | None = None) -> None:
        self.letters, self.writer, self.plain, self.receipts = letters, writer, plain, receipts
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
        watch = None if policy == "reinsert" else ReceiptWatch(self.letters.settings, self.receipts, self.codec)
        try:
            for letter in chosen:
                outcome = self._send(letter, watch, patience)
                if outcome.status == "dead" and policy == "drop":
                    outcome = Outcome(outcome.ref, outcome.id, "dropped", outcome.reason)
                outcomes.append(outcome)
                told(outcome)
                if policy == "stop" and outcome.status in ("dead", "unknown"):
                    break
        finally:
            if watch is not None:
                watch.close()
        again = {outcome.id for outcome in outcomes if outcome.status == "dropped"}
        if again:
            self.letters.settle([letter for letter in self.letters.waiting() if letter.text("id") in again])
        return outcomes

    def _send(self, letter: Letter, watch: ReceiptWatch | None, patience: float) -> Outcome:
        if letter.origin not in self.plain:
            return Outcome(letter.ref, letter.text("id"), "refused", f"{letter.origin or 'its topic'} is written by agents only")
        payload = letter.next_id()
        value = letter.value if letter.value is not None else self.letters.get(letter.ref).value
        kept = {name: text for name, text in letter.headers.items() if not name.startswith(PREFIX)}
        headers = {
            **kept,
            "id": payload.encode(),
            "ce_id": payload.encode(),
            ATTEMPT: str(letter.attempt + 1).encode(),
            FIRST_ID: letter.first_id.encode(),
        }
        self.writer.write(letter.origin, value, key=letter.key or None, headers=headers).result(self.writer.timeout + 5)
        self.letters.settle([letter])
        if watch is None:
            return Outcome(letter.ref, payload, "sent")
        status, reason = watch.outcome(payload, patience)
        return Outcome(letter.ref, payload, status, reason)


class ReceiptWatch:
    """Reads receipts from now on, to learn what ingest made of a payload."""

    def __init__(self, settings: KafkaSettings, topic: str, codec: Codec) -> None:
        self.codec = codec
        self._consumer: Consumer = consumer(settings, "mdh-receipt-watch", auto_offset_reset="latest")
        # The present ends are looked up, not left to the first fetch: a receipt must not slip by before it
        places = []
        for partition in _partitions(self._consumer, topic):
            _, high = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)
            places.append(TopicPartition(topic, partition, high if high >= 0 else OFFSET_END))
        self._consumer.assign(places)
        self._seen: dict[str, tuple[str, str]] = {}

    def outcome(self, payload: str, patience: float) -> tuple[str, str]:
        """(status, reason) of the payload's first receipt: decoded, duplicate or dead; unknown after ``patience`` seconds."""
        deadline = time.monotonic() + patience
        while payload not in self._seen:
            if time.monotonic() > deadline:
                return "unknown", "no agent took it in time; are workers running?"
            for message in self._consumer.consume(500, timeout=0.3):
                value = message.value()
                if message.error() is None and value:
                    receipt = self.codec.decode(value)
                    if receipt.get("status"):
                        self._seen[receipt["payload"]] = (receipt["status"], receipt["reason"])
        return self._seen[payload]

    def close(self) -> None:
        """Leaves the broker."""
        self._consumer.close()


def _partitions(reading: Consumer, topic: str) -> list[int]:
    for pause in (0.2, 0.5, 1.0, 0):  # a topic just made may show no partitions yet
        try:
            found = reading.list_topics(topic, timeout=10).topics.get(topic)
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
    return Letter(message.partition() or 0, message.offset() or 0, at, len(value), message.key() or b"", value, headers)


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
