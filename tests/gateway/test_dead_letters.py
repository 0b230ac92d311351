"""Dead letters: listed with their reason, sent again unchanged, and not listed once dealt with."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from connectors.head_end.dead_letters import PATIENCE, DeadLetters, DeadLettersError, Replay, format_ranges, parse_ranges
from connectors.head_end.publish import Writer
from connectors.kafka.client import KafkaSettings, consumer, producer
from schemas.codec import Codec
from schemas.identity import identity
from tests.brokers import read_all

CODEC = Codec()
DLQ = "hes.reads.dlq"
PLAIN = frozenset({"hes.reads"})
PREFIX = "__connect.errors."


@pytest.fixture
def letter(write: Callable[..., None]) -> Callable[..., None]:
    def put(number: int, partition: int = 0, origin: str = "hes.reads", **extra: bytes) -> None:
        headers = {
            "id": b"id%d" % number,
            "source": b"hes",
            "name": b"f%d.csv" % number,
            f"{PREFIX}topic": origin.encode(),
            f"{PREFIX}partition": b"1",
            f"{PREFIX}offset": b"%d" % number,
            f"{PREFIX}stage": b"ingest",
            f"{PREFIX}exception.class.name": b"DecodeError",
            f"{PREFIX}exception.message": b"line %d: no" % number,
        } | extra
        write(DLQ, b"\0\xff bytes %d" % number, key=b"hes", partition=partition, headers=headers)

    return put


@pytest.fixture
def letters(kafka: KafkaSettings) -> Iterator[DeadLetters]:
    with DeadLetters(kafka, [DLQ], "mdh.operations") as opened:
        yield opened


@pytest.fixture
def replay(letters: DeadLetters, writer: Writer, write: Callable[..., None]) -> Replay:
    write("hub.receipts", CODEC.encode("Receipt", {"payload": "old", "id": "x", "agent": "vee", "children": 0, "status": ""}))
    return Replay(letters, writer, PLAIN, "hub.receipts", CODEC)


def refs(letters: DeadLetters) -> list[str]:
    return sorted(letter.ref for letter in letters.waiting())


@given(st.sets(st.integers(0, 300)))
def test_ranges_come_back(numbers: set[int]) -> None:
    assert parse_ranges(format_ranges(numbers)) == numbers


@pytest.mark.parametrize("text", ["consumer-host", "1-x", "-", "1,,2", "１"])
def test_what_another_tool_left_in_the_metadata_is_no_range(text: str) -> None:
    assert parse_ranges(text) == set()


def test_letters_tell_where_they_come_from_and_why(letters: DeadLetters, letter: Callable[..., None]) -> None:
    letter(1)
    letter(2, partition=1)
    assert refs(letters) == ["hes.reads.dlq/0/0", "hes.reads.dlq/1/0"]
    found = letters.get("hes.reads.dlq/1/0")
    assert found.value == b"\0\xff bytes 2"
    assert found.summary() == found.summary() | {
        "ref": "hes.reads.dlq/1/0", "id": "id2", "source": "hes", "name": "f2.csv", "topic": "hes.reads", "partition": "1", "offset": "2",
        "stage": "ingest", "error": "DecodeError", "reason": "line 2: no", "attempt": 0, "bytes": 10,
    }  # fmt: skip


@pytest.mark.parametrize(
    "name", ["", "7", "0/0", "hes.reads.dlq/0/9", "hes.reads.dlq/9/0", "hes.reads.dlq/0/-1", "other/0/0", "hes.reads.dlq/0/x"]
)
def test_a_name_of_no_letter_is_told_so(letters: DeadLetters, letter: Callable[..., None], name: str) -> None:
    letter(1)
    with pytest.raises(DeadLettersError, match="letter"):
        letters.get(name)


def test_a_letter_sent_again_is_the_same_bytes_under_a_new_id_and_no_longer_waits(
    letters: DeadLetters, letter: Callable[..., None], replay: Replay, kafka: KafkaSettings
) -> None:
    letter(1)
    (outcome,) = replay.run(letters.waiting(), "reinsert")
    assert outcome.status == "sent"
    assert outcome.id == identity("replay", "id1", 1)
    (record,) = read_all(kafka, "hes.reads")
    headers = dict(record.headers())
    assert (record.key(), record.value()) == (b"hes", b"\0\xff bytes 1")
    assert headers["id"] == headers["ce_id"] == outcome.id.encode()
    assert (headers["attempt"], headers["first_id"], headers["name"]) == (b"1", b"id1", b"f1.csv")
    assert not any(name.startswith(PREFIX) for name in headers)
    assert letters.waiting() == []
    with DeadLetters(kafka, [DLQ], "mdh.operations") as later:
        assert later.waiting() == []
        assert later.get("hes.reads.dlq/0/0").text("id") == "id1", "it is kept all the same"


def test_the_next_attempt_counts_on_from_the_first_id(letters: DeadLetters, letter: Callable[..., None], replay: Replay) -> None:
    letter(5, id=identity("replay", "id1", 2).encode(), attempt=b"2", first_id=b"id1")
    (outcome,) = replay.run(letters.waiting(), "reinsert")
    assert outcome.id == identity("replay", "id1", 3)


def test_dealing_with_the_middle_leaves_the_others_waiting(letters: DeadLetters, letter: Callable[..., None], kafka: KafkaSettings) -> None:
    for number in range(6):
        letter(number)
    waiting = letters.waiting()
    letters.settle([waiting[2], waiting[4]])
    assert refs(letters) == ["hes.reads.dlq/0/0", "hes.reads.dlq/0/1", "hes.reads.dlq/0/3", "hes.reads.dlq/0/5"]
    letters.settle([waiting[0], waiting[1]])
    assert refs(letters) == ["hes.reads.dlq/0/3", "hes.reads.dlq/0/5"]
    (place,) = letters._consumer.committed([TopicPartition(DLQ, 0)], timeout=60)
    assert (place.offset, place.metadata) == (3, "4")
    letters.settle([waiting[3], waiting[5]])
    assert refs(letters) == []
    letter(7)
    assert refs(letters) == ["hes.reads.dlq/0/6"]


def test_letters_of_topics_nobody_reads_stay(letters: DeadLetters, letter: Callable[..., None], replay: Replay) -> None:
    letter(1, origin="somewhere")
    (outcome,) = replay.run(letters.waiting(), "reinsert")
    assert outcome.status == "refused"
    assert refs(letters) == ["hes.reads.dlq/0/0"]
    assert [it.status for it in replay.run(letters.waiting(), "drop", patience=0.1)] == ["dropped"]
    assert letters.waiting() == []


@pytest.mark.parametrize(("status", "told"), [("", "folded"), ("dead", "dead")])
def test_letters_of_an_inbox_go_through_ingest_and_the_agent_that_refused_them_tells_the_outcome(
    letters: DeadLetters,
    letter: Callable[..., None],
    replay: Replay,
    kafka: KafkaSettings,
    write: Callable[..., None],
    status: str,
    told: str,
) -> None:
    letter(1, origin="vee.inbox", **{f"{PREFIX}stage": b"vee"})
    replay.inboxes = frozenset({"vee.inbox"})
    id = identity("replay", "id1", 1)
    receipts = [{"agent": "ingest", "status": "decoded"}, {"agent": "vee", "status": status}]

    def answer() -> None:
        for receipt in receipts:
            write("hub.receipts", CODEC.encode("Receipt", {"payload": id, "id": receipt["agent"], "children": 0, **receipt}))

    later = threading.Timer(0.5, answer)
    later.start()
    (outcome,) = replay.run(letters.waiting(), "stop", patience=120)
    later.join()
    assert (outcome.id, outcome.status) == (id, told)
    (record,) = read_all(kafka, "hub.replays")
    headers = dict(record.headers())
    assert (record.value(), headers["inbox"], headers["partition"], headers["id"]) == (b"\0\xff bytes 1", b"vee.inbox", b"1", id.encode())
    assert read_all(kafka, "vee.inbox") == []


def test_letters_of_all_agents_wait_together(kafka: KafkaSettings, letter: Callable[..., None], write: Callable[..., None]) -> None:
    letter(1)
    write("vee.inbox.dlq", b"x", headers={f"{PREFIX}topic": b"vee.inbox", "mdh-payload": b"p"}, partition=0)
    with DeadLetters(kafka, [DLQ, "vee.inbox.dlq"], "g") as letters:
        assert refs(letters) == ["hes.reads.dlq/0/0", "vee.inbox.dlq/0/0"]
        letters.settle([it for it in letters.waiting() if it.id == "p"])
        assert refs(letters) == ["hes.reads.dlq/0/0"]


class Ingest:
    """Stands for the ingest agent: every payload is dead again, unless its name is in ``good``."""

    def __init__(self, kafka: KafkaSettings, good: set[bytes]) -> None:
        self.kafka, self.good, self.stop = kafka, good, threading.Event()
        first = producer(kafka)
        first.produce("hes.reads", b"x", headers={"name": b"first", "id": b"first"})
        first.flush(60)
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        reading, writing = consumer(self.kafka, "ingest", fetch_wait_max_ms=20), producer(self.kafka, linger_ms=0)
        count = len(reading.list_topics("hes.reads", timeout=60).topics["hes.reads"].partitions)
        reading.assign([TopicPartition("hes.reads", n, 0) for n in range(count)])
        while not self.stop.is_set():
            for message in reading.consume(10, 0.02):
                headers = dict(message.headers())
                status = "decoded" if headers["name"] in self.good else "dead"
                if status == "dead":
                    marks = {f"{PREFIX}topic": b"hes.reads", f"{PREFIX}exception.message": b"still no"}
                    writing.produce(DLQ, message.value(), key=message.key(), headers=headers | marks, partition=0)
                receipt = {
                    "payload": headers["id"].decode(),
                    "id": "ingest/0/1",
                    "agent": "ingest",
                    "children": 0,
                    "status": status,
                    "reason": "still no",
                }
                writing.produce("hub.receipts", CODEC.encode("Receipt", receipt))
                writing.flush(60)
        reading.close()

    def end(self) -> None:
        self.stop.set()
        self.thread.join(60)


def test_stop_ends_at_the_first_that_fails_again(
    letters: DeadLetters, letter: Callable[..., None], replay: Replay, kafka: KafkaSettings
) -> None:
    for number in range(3):
        letter(number)
    ingest = Ingest(kafka, good={b"f0.csv", b"first"})
    try:
        outcomes = replay.run(letters.waiting(), "stop", patience=120)
    finally:
        ingest.end()
    assert [outcome.status for outcome in outcomes] == ["decoded", "dead"]
    assert [(letter.text("name"), letter.attempt) for letter in letters.waiting()] == [("f2.csv", 0), ("f1.csv", 1)]


def test_drop_settles_what_fails_again(letters: DeadLetters, letter: Callable[..., None], replay: Replay, kafka: KafkaSettings) -> None:
    for number in range(4):
        letter(number)
    ingest = Ingest(kafka, good={b"f0.csv", b"first"})
    try:
        outcomes = replay.run(letters.waiting()[:3], "drop", patience=120)
    finally:
        ingest.end()
    assert [outcome.status for outcome in outcomes] == ["decoded", "dropped", "dropped"]
    assert [letter.text("name") for letter in letters.waiting()] == ["f3.csv"]


def test_without_workers_an_outcome_is_unknown_and_stop_stops(letters: DeadLetters, letter: Callable[..., None], replay: Replay) -> None:
    letter(0)
    letter(1)
    outcomes = replay.run(letters.waiting(), "stop", patience=0.5)
    assert [outcome.status for outcome in outcomes] == ["unknown"]


def test_without_a_broker_the_answer_is_one_sentence() -> None:
    begun = time.monotonic()
    with (
        DeadLetters(KafkaSettings(bootstrap="127.0.0.1:1"), [DLQ], "g", patience=1) as letters,
        pytest.raises(DeadLettersError, match="does not answer"),
    ):
        letters.waiting()
    assert time.monotonic() - begun < PATIENCE
