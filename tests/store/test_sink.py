"""The sink: everything a log holds is in the store once, however often and in whatever pieces it is read."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import orjson
import pytest
from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.clickhouse import sink as sink_module
from connectors.clickhouse.query import history_asked, settled, settled_tick, ticks_settled
from connectors.clickhouse.sink import Batch, Pace, Sink, StoppedError, positions
from connectors.clickhouse.store import Limits, Store, StoreError
from connectors.clickhouse.tables import TABLES, VIEWS
from connectors.kafka.settings import KafkaSettings
from schemas.block import FinalBlock, RecallBlock, strings
from schemas.codec import Codec
from schemas.conditions import EST_INTERPOLATED, REGULAR
from schemas.topology import load_topology
from streams.runtime.fold import Output, Result
from streams.runtime.lane import Plan
from streams.runtime.replay import Pipeline
from streams.runtime.state import State, Table
from streams.vee.older import windows_of
from tests.patience import PATIENCE, eventually
from tests.store.conftest import days, emptied, finals
from tests.store.test_views import audit, bill, exception

CODEC = Codec()
TOPICS = [
    "hes.reads", "reads.final", "vee.exceptions", "determinants.daily", "billing.determinants", "audit.events", "master.changes",
    "enterprise.messages", "enterprise.conversations", "hub.receipts",
]  # fmt: skip
NEVER = threading.Event()
NOW = int(time.time()) // 2 * 2  # receipts of ticks are kept for a day only


@pytest.fixture
def store(module_store: Store) -> Store:
    return emptied(module_store)


@dataclass
class Log:
    """Topics as lists, with messages as librdkafka gives them."""

    messages: list[Any] = field(default_factory=list)
    ends: dict[tuple[str, int], int] = field(default_factory=dict)

    def put(self, topic: str, value: bytes | Any, headers: dict[str, str] | None = None, partition: int = 0, kind: str = "") -> None:
        if isinstance(value, dict):
            value = CODEC.encode(kind, value)
        elif not isinstance(value, bytes):
            value = CODEC.encode_block(value)
        offset = self.ends.get((topic, partition), 0)
        self.ends[topic, partition] = offset + 1
        pairs = [(name, text.encode()) for name, text in (headers or {}).items()]
        self.messages.append(FakeMessage(topic, partition, offset, value, pairs))


@dataclass
class FakeMessage:
    _topic: str
    _partition: int
    _offset: int
    _value: bytes
    _headers: list[tuple[str, bytes]]

    def topic(self) -> str:
        return self._topic

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._offset

    def value(self) -> bytes:
        return self._value

    def headers(self) -> list[tuple[str, bytes]]:
        return self._headers

    def key(self) -> bytes:
        return b"key"

    def timestamp(self) -> tuple[int, int]:
        return 1, 1_700_000_000_000

    def error(self) -> None:
        return None


class FakeProducer:
    """Takes answers; the first ``failures`` of them are not acknowledged."""

    def __init__(self, failures: int = 0) -> None:
        self.sent: list[tuple[str, FinalBlock, bytes, dict[str, bytes]]] = []
        self.failures = failures
        self._pending: list[Callable[[], None]] = []

    def produce(self, topic: str, value: bytes, key: bytes, headers: dict[str, bytes], on_delivery: Any) -> None:
        if self.failures:
            self.failures -= 1
            self._pending.append(lambda: on_delivery(Failure(), None))
        else:
            self.sent.append((topic, CODEC.decode(value), key, headers))
            self._pending.append(lambda: on_delivery(None, None))

    def flush(self, _: float) -> int:
        pending, self._pending = self._pending, []
        for done in pending:
            done()
        return 0


class Failure:
    def str(self) -> str:
        return "not acknowledged"


def make_sink(store: Store, **options: Any) -> Sink:
    return Sink(store, KafkaSettings(), TOPICS, group="mdh.sink", **options)


def feed(sink: Sink, messages: Sequence[Any], producer: Any = None) -> Batch:
    """One batch of these messages, stored."""
    batch = Batch()
    for message in messages:
        sink._sorter.add(batch, message)
    sink.flush(batch, None, producer or FakeProducer(), NEVER)
    return batch


def receipt(payload: str, id: str, agent: str, children: int, parent: str = "", **figures: Any) -> dict[str, Any]:
    return {"payload": payload, "id": id, "agent": agent, "children": children, "parent": parent, "status": "", **figures}


def cis_message() -> dict[str, Any]:
    item = {"id": "a", "reference": "b", "body": '{"id":"7"}', "category": "", "note": "fine"}
    return {
        "id": "m", "system": "sap", "protocol": "sap", "kind": "device-answer", "reference": "r", "bulk": True, "at": NOW, "items": [item],
    }  # fmt: skip


def conversation(version: int) -> dict[str, Any]:
    return {
        "id": "c", "system": "sap", "kind": "reading-order", "subject": "7", "device": "m1", "account": "", "at": NOW, "version": version,
        "state": f"state {version}", "detail": "{}",
    }  # fmt: skip


def whole_log() -> Log:
    """Two payloads all the way through, an exception that ends, a correction, a dead letter, a tick."""
    log = Log()
    raw = {"id": "p1", "source": "hes", "format": "csv", "name": "a.csv", "received_at": "1700000000"}
    log.put("hes.reads", b"device,channel\n\xff", raw)
    log.put("hes.reads", b"<broken", {"id": "p2", "source": "hes"})
    log.put("hub.receipts", receipt("p1", "ingest/0/0", "ingest", 1, status="decoded", format="csv", source="hes", reads=96, rows=2,
                                    received_at=1_700_000_000), kind="Receipt")  # fmt: skip
    log.put("hub.receipts", receipt("p2", "ingest/0/1", "ingest", 0, status="dead", dead=1, reason="not XML"), kind="Receipt")
    log.put("reads.final", finals([{"values": [1000] * 48}, {"channel": "Z", "seconds": 0, "values": [7], "times": [60]}], payload="p1"),
            {"mdh-payload": "p1"})  # fmt: skip
    log.put("reads.final", finals([{"device": "M2", "values": [5] * 48}], payload="p1"), {"mdh-payload": "p1", "mdh-receipt": "vee/0/0"})
    log.put("vee.exceptions", exception(payload="p1"), {"mdh-payload": "p1", "mdh-receipt": "vee/0/0"}, kind="VeeException")
    log.put("hub.receipts", receipt("p1", "vee/0/0", "vee", 4, "ingest/0/0", finals=3, exceptions=1), kind="Receipt")
    log.put("determinants.daily", days([{"tou": [0, 1], "quantities": [48_000, 48_000]}], ["", "peak"]),
            {"mdh-payload": "p1", "mdh-receipt": "determinants/0/0"})  # fmt: skip
    log.put("billing.determinants", bill(), {"mdh-payload": "p1", "mdh-receipt": "determinants/0/0"}, kind="Determinant")
    log.put("hub.receipts", receipt("p1", "determinants/0/0", "determinants", 2, "vee/0/0"), kind="Receipt")
    log.put("hub.receipts", receipt("p1", "determinants/0/1", "determinants", 0, "vee/0/0"), kind="Receipt")
    log.put("reads.final", finals([{"values": [2000] * 48, "version": 2, "replaces": 1}]))
    log.put("vee.exceptions", exception(version=2, status="superseded"), kind="VeeException")
    log.put("audit.events", audit(), kind="AuditEvent")
    log.put("audit.events", audit(), kind="AuditEvent")
    log.put("enterprise.messages", cis_message(), kind="EnterpriseMessage")
    for version in (2, 1):
        log.put("enterprise.conversations", conversation(version), kind="EnterpriseConversation")
    log.put("billing.determinants", bill(id="b2", version=2, quantity=Decimal("9"), replaces="b1"), kind="Determinant")
    log.put("reads.final", {"at": NOW, "close": False}, {"mdh-payload": f"tick/{NOW}/0"}, kind="Tick")
    log.put("hub.receipts", receipt(f"tick/{NOW}/0", "ingest/0/2", "ingest", 1), kind="Receipt")
    log.put("hub.receipts", receipt(f"tick/{NOW}/0", "vee/0/1", "vee", 0, "ingest/0/2"), kind="Receipt")
    log.put("reads.final", b"not a record at all", {"mdh-payload": "p3", "mdh-receipt": "vee/0/9"})
    return log


def contents(store: Store, names: Iterable[str] = (*TABLES, *VIEWS)) -> dict[str, list[Any]]:
    """All rows of tables and views, in order."""
    found = {}
    for name in names:
        final = " FINAL" if name in TABLES else ""
        found[name] = store.query_json(f"SELECT * FROM {name}{final} ORDER BY ALL", Limits()).splitlines()
    return found


def test_every_record_finds_its_table(store: Store) -> None:
    feed(make_sink(store), whole_log().messages)
    sizes = {name: len(held) for name, held in contents(store).items() if held}
    assert sizes == {
        "payload_log": 2, "final_days": 2, "register_reads": 1, "vee_exceptions": 1, "determinant_days": 1, "bill_determinants": 2,
        "receipts": 10, "tick_receipts": 2, "refused_records": 1, "sink_positions": 9, "intervals": 96, "registers": 1,
        "exceptions": 1, "determinants": 3, "payloads": 2, "audit_events": 1, "audit": 1,
        "cis_messages": 1, "cis_conversations": 1, "conversations": 1, "conversation_messages": 1,
    }  # fmt: skip
    assert store.query_rows("SELECT state, version FROM conversations") == [{"state": "state 2", "version": 2}]
    told = store.query_rows("SELECT items, body FROM conversation_messages")[0]
    assert (told["items"], orjson.loads(told["body"])[0]["body"]) == (1, {"id": "7"})
    log = store.query_rows("SELECT id, source, format, name, received_at FROM payload_log ORDER BY id")
    assert log[0] == {
        "id": "p1", "source": "hes", "format": "csv", "name": "a.csv", "received_at": datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    }  # fmt: skip
    assert store.query_rows("SELECT hex(body) AS h FROM payload_log WHERE id = 'p1'")[0]["h"] == b"device,channel\n\xff".hex().upper()
    assert positions(store, "mdh.sink") == whole_log().ends


def test_payloads_view(store: Store) -> None:
    feed(make_sink(store), whole_log().messages)
    found = store.query_rows("SELECT * FROM payloads ORDER BY id")
    assert found[0] == {
        "id": "p1", "source": "hes", "format": "csv", "received_at": datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC),
        "status": "stored", "reads": 96, "finals": 3, "exceptions": 1, "parked": 0, "dead": 0, "blocks": 1, "name": "a.csv",
        "bytes": 16, "reason": "",
    }  # fmt: skip
    assert (found[1]["id"], found[1]["status"], found[1]["dead"], found[1]["reason"]) == ("p2", "dead", 1, "not XML")


def test_a_payload_is_complete_with_its_last_node_and_not_before(store: Store) -> None:
    sink, log = make_sink(store), whole_log()
    mine = [m for m in log.messages if m.topic() != "hes.reads" and b"p1" in dict(m.headers()).get("mdh-payload", b"") + m.value()]
    # Topics are read in any order: children may be seen before their parents, and must not be taken for others that are missing
    for seed in range(4):
        emptied(store)
        order = mine if seed == 0 else mine[::-1] if seed == 1 else random.Random(seed).sample(mine, len(mine))
        last = max(i for i, m in enumerate(order) if m.topic() == "hub.receipts" or "mdh-receipt" in dict(m.headers()))
        feed(sink, log.messages[:1])
        assert settled(store, ["p1", "unknown"]) == {"p1": {**settled(store, ["p1"])["p1"], "status": "received", "complete": False}}
        for message in order[:last]:
            feed(sink, [message])
            assert not settled(store, ["p1"])["p1"]["complete"]
        assert store.query_rows("SELECT status FROM payloads WHERE id = 'p1'")[0]["status"] in ("received", "decoded")
        feed(sink, order[last:])
        answer = settled(store, ["p1"])["p1"]
        assert answer == {
            "id": "p1", "source": "hes", "format": "csv", "reason": "", "status": "stored", "complete": True, "rows": 2, "reads": 96,
            "finals": 3, "exceptions": 1, "parked": 0, "dead": 0,
        }  # fmt: skip


def test_a_payload_sent_twice_is_complete_too(store: Store) -> None:
    sink, log = make_sink(store), whole_log()
    log.put("hub.receipts", receipt("p1", "ingest/0/5", "ingest", 0, status="duplicate", reason="taken before"), kind="Receipt")
    feed(sink, log.messages)
    assert settled(store, ["p1"])["p1"]["status"] == "stored"
    assert store.query_rows("SELECT status FROM payloads WHERE id = 'p1'") == [{"status": "stored"}]


def test_two_partitions_of_a_topic_are_two_groups(store: Store) -> None:
    log = Log()
    log.put("hub.receipts", receipt("p", "i/0", "ingest", 1, status="decoded"), kind="Receipt")
    log.put("hub.receipts", receipt("p", "v/0", "vee", 2, "i/0"), kind="Receipt")
    for partition in (0, 3):
        log.put("reads.final", finals([{"values": [1]}]), {"mdh-payload": "p", "mdh-receipt": "v/0"}, partition=partition)
    sink = make_sink(store)
    feed(sink, log.messages[:-1])
    assert not settled(store, ["p"])["p"]["complete"]
    feed(sink, log.messages[-1:])
    assert settled(store, ["p"])["p"]["complete"]


def test_ticks(store: Store) -> None:
    sink, log = make_sink(store), Log()
    for at in (NOW, NOW + 2):
        for partition in range(2):
            log.put("hub.receipts", receipt(f"tick/{at}/{partition}", f"i/{at}/{partition}", "ingest", 1), kind="Receipt")
            log.put(
                "hub.receipts", receipt(f"tick/{at}/{partition}", f"v/{at}/{partition}", "vee", 0, f"i/{at}/{partition}"), kind="Receipt"
            )
    assert settled_tick(store, 2) is None
    feed(sink, log.messages[:-1])
    assert settled_tick(store, 2) == NOW
    assert ticks_settled(store, NOW, 2)
    assert ticks_settled(store, NOW - 1000, 2)
    assert not ticks_settled(store, NOW + 1, 2)
    assert not ticks_settled(store, NOW, 3)
    feed(sink, log.messages[-1:])
    assert settled_tick(store, 2) == NOW + 2
    assert ticks_settled(store, NOW + 1, 2)
    assert store.query_rows("SELECT count() AS n FROM payloads") == [{"n": 0}]


def test_a_payload_of_which_something_is_gathered_is_stored_when_the_tick_that_publishes_it_is(store: Store) -> None:
    sink, log = make_sink(store), Log()

    def tick(at: int, *, whole: bool, partition: int = 0) -> None:
        payload, root = f"tick/{at}/{partition}", f"i/{at}/{partition}"
        log.put("hub.receipts", receipt(payload, root, "ingest", 1), kind="Receipt")
        log.put("hub.receipts", receipt(payload, f"v/{at}/{partition}", "vee", 0 if whole else 1, root), kind="Receipt")

    def status() -> list[Any]:
        feed(sink, log.messages)
        log.messages.clear()
        told = store.query_rows("SELECT status FROM payloads WHERE id = 'p'")[0]["status"]
        answer = settled(store, ["p"])["p"]
        assert answer["status"] == told
        return [answer["complete"], told]

    log.put("hub.receipts", receipt("p", "ingest/0/4", "ingest", 1, status="decoded"), kind="Receipt")
    log.put("hub.receipts", receipt("p", "vee/0/7", "vee", 0, "ingest/0/4", until=NOW + 10), kind="Receipt")
    assert status() == [False, "decoded"]  # no tick at all
    tick(NOW, whole=True)
    assert status() == [False, "decoded"]
    tick(NOW + 11, whole=False)
    assert status() == [False, "decoded"]  # it has come, and what it published is not stored
    tick(NOW + 20, whole=True)
    assert status() == [False, "decoded"]  # a later one says nothing of it
    log.put("hub.receipts", receipt(f"tick/{NOW + 11}/0", "sink/1", "sink", 0, f"v/{NOW + 11}/0"), kind="Receipt")
    assert status() == [True, "stored"]
    tick(NOW + 22, whole=False)
    assert status() == [True, "stored"]


def test_a_tick_that_asked_for_history_is_known_until_its_answer_has_come_through(store: Store) -> None:
    sink, log = make_sink(store), Log()
    tick = f"tick/{NOW}/0"
    log.put("hub.receipts", receipt(tick, "i/1", "ingest", 0), kind="Receipt")
    feed(sink, log.messages)
    assert history_asked(store) == (None, False)
    log.put("reads.final", recall(), {"mdh-id": "r1", "mdh-payload": tick})
    feed(sink, log.messages[-1:], FakeProducer())
    assert history_asked(store) == (NOW, True)
    log.put("hub.receipts", receipt(tick, "i/2", "ingest", 0, "recall:r1"), kind="Receipt")
    feed(sink, log.messages[-1:])
    assert history_asked(store) == (NOW, False)


@pytest.fixture(scope="module")
def expected(module_store: Store) -> dict[str, list[Any]]:
    emptied(module_store)
    feed(make_sink(module_store), whole_log().messages)
    return contents(module_store)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 18), st.integers(0, 19)), max_size=5), st.integers(1, 19), st.randoms(use_true_random=False))
def test_any_pieces_read_any_number_of_times_leave_one_copy(
    expected: dict[str, list[Any]], store: Store, replays: list[tuple[int, int]], piece: int, chance: random.Random
) -> None:
    emptied(store)
    sink, messages = make_sink(store), whole_log().messages
    parts = [messages[i : i + piece] for i in range(0, len(messages), piece)]
    parts += [messages[min(a, b) : max(a, b)] for a, b in replays]
    chance.shuffle(parts)
    for part in parts:
        feed(sink, part)
    assert contents(store, TABLES) == {name: expected[name] for name in TABLES}
    for table in ("final_days", "receipts", "bill_determinants"):
        store.command(f"OPTIMIZE TABLE {table} FINAL")
    assert contents(store, VIEWS) == {name: expected[name] for name in VIEWS}


class CrashError(Exception):
    """The process ends here."""


def test_a_crash_after_any_write_tells_nothing_untrue(
    expected: dict[str, list[Any]], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = whole_log().messages
    insert = store.insert_arrow
    writes = 0
    for crash_at in range(20):
        emptied(store)
        writes = 0

        def one_write_less(table: str, rows: Any, crash_at: int = crash_at) -> None:
            nonlocal writes
            if writes == crash_at:
                raise CrashError
            writes += 1
            insert(table, rows)

        monkeypatch.setattr(store, "insert_arrow", one_write_less)
        try:
            feed(make_sink(store), messages)
        except CrashError:
            complete = settled(store, ["p1"]).get("p1", {}).get("complete", False)
            found = contents(store, TABLES)
            if complete:
                data = ("final_days", "register_reads", "vee_exceptions", "determinant_days", "bill_determinants")
                assert {name: found[name] for name in data} == {name: expected[name] for name in data}
            if found["sink_positions"]:
                assert {k: v for k, v in found.items() if k != "sink_positions"} == {
                    k: v for k, v in expected.items() if k != "sink_positions"
                }
        else:
            assert crash_at > 8  # every table and the positions were a place to crash
            break
        monkeypatch.setattr(store, "insert_arrow", insert)
        feed(make_sink(store), messages)
        assert contents(store, TABLES) == {name: expected[name] for name in TABLES}
    else:
        pytest.fail("never got through")


def test_a_record_nobody_can_read_is_kept_and_stops_nothing(store: Store) -> None:
    log = Log()
    log.put("hub.receipts", receipt("p", "i/0", "ingest", 1, status="decoded"), kind="Receipt")
    good = CODEC.encode_block(finals([{"device": "good", "values": [1]}]))
    log.put("reads.final", good)
    broken = [b"", b"x", b"\0\0\0\0\2", good[:-3], good[:40] + b"\xff" + good[41:], b"\0\0\0\0\x09" + b"\xff" * 30]
    for value in broken[1:]:
        log.put("reads.final", value)
    log.put("billing.determinants", bill(quantity=Decimal("1.5")), kind="Determinant")
    block = days([{"tou": [0], "quantities": [1]}], ["", "peak"])
    log.put("determinants.daily", block)
    block.tou[0] = 9  # a line nobody named
    log.put("determinants.daily", block, {"mdh-payload": "p", "mdh-receipt": "d/0"})
    log.put("hub.receipts", receipt("p", "d/0", "determinants", 1, "i/0"), kind="Receipt")
    sink = make_sink(store)
    feed(sink, log.messages)
    kept = store.query_rows("SELECT topic, offset, reason, hex(value) AS value FROM refused_records ORDER BY topic, offset")
    assert {(row["topic"], row["offset"]) for row in kept} >= {("reads.final", n) for n in (1, 2, 3)} | {("determinants.daily", 1)}
    assert all(row["reason"] for row in kept)
    assert kept[-1]["topic"] == "reads.final"
    assert {row["value"] for row in kept} >= {b"x".hex().upper(), good[:-3].hex().upper()}
    assert sink.health.refused == len(kept)
    assert store.query_rows("SELECT DISTINCT device FROM intervals") == [{"device": "good"}]
    assert store.query_rows("SELECT quantity FROM determinants WHERE period = 'billing'") == [{"quantity": Decimal("1.5")}]
    assert store.query_rows("SELECT count() AS n FROM determinants WHERE period = 'day'") == [{"n": 1}]
    # whoever waits for the payload is told, with a dead part, instead of waiting for ever
    answer = settled(store, ["p"])["p"]
    assert (answer["complete"], answer["dead"]) == (True, 1)


def recall(*rows: dict[str, Any], **changes: Any) -> RecallBlock:
    asked = [{"device": "M1", "channel": "A+", "seconds": 1800, "day": 19_800, **changes, **row} for row in rows or ({},)]
    texts = (strings([row[name] for row in asked]) for name in ("device", "channel"))
    return RecallBlock(*texts, *(np.array([row[name] for row in asked], np.int32) for name in ("seconds", "day")))


def test_recalled_days_are_what_was_stored(store: Store) -> None:
    sink, log, producer = make_sink(store), Log(), FakeProducer()
    row = {"values": [1000, 2, -3, 0], "conditions": [REGULAR, EST_INTERPOLATED, REGULAR, 0], "methods": [0, 2, 0, 0], "version": 4,
           "replaces": 3, "state": 2, "received": [1000, 0, 7, 0], "zone": "Europe/Berlin", "start": 19_800 * 86_400 - 3600,
           "direction": 2, "multiplier": 3_000_000}  # fmt: skip
    others = [{**row, "version": 3}, {**row, "day": 19_799}, {**row, "seconds": 900}, {**row, "device": "M2"}, {**row, "channel": "B"}]
    log.put("reads.final", finals(others))
    log.put("reads.final", finals([row]))
    log.put("reads.final", recall(), {"mdh-id": "r1", "mdh-payload": "p"})
    log.put("reads.final", recall(device="nobody", day=3), {"mdh-id": "r2"})
    log.put("reads.final", recall(device="M2"), {"mdh-id": "r3"})
    log.put("reads.final", recall(channel="B"), {"mdh-id": "r4"})
    feed(sink, log.messages, producer)
    (topic, block, key, headers), (_, none, other, without), *more = producer.sent
    assert (topic, key, headers) == ("vee.recalled", b"M1", {"id": b"recall/r1", "mdh-payload": b"p", "mdh-parent": b"recall:r1"})
    assert (other, without) == (b"nobody", {"id": b"recall/r2", "mdh-payload": b"", "mdh-parent": b"recall:r2"})
    wanted = finals([row], id="r1", payload="p", source="store")
    assert CODEC.encode_block(block) == CODEC.encode_block(wanted)
    for (_, found, _, _), changed in zip(more, ({"device": "M2"}, {"channel": "B"}), strict=True):
        assert CODEC.encode_block(found) == CODEC.encode_block(finals([{**row, **changed}], id=found.id, payload="", source="store"))
    assert (none.id, len(none), none.count.tolist(), none.day.tolist(), none.seconds.tolist()) == ("r2", 1, [0], [3], [1800])
    assert none.device.to_pylist() == ["nobody"]


def test_windows_of_register_readings_are_what_was_stored(store: Store) -> None:
    sink, log, producer = make_sink(store), Log(), FakeProducer()
    day = 86_400
    for version in (1, 2):
        times = [k * day for k in range(200)] if version == 1 else [100 * day]
        row = {"device": "M1", "channel": "R", "seconds": 0, "day": 0, "values": [version + t // day for t in times], "times": times,
               "conditions": [REGULAR] * len(times), "version": version}  # fmt: skip
        log.put("reads.final", finals([row]))
    log.put(
        "reads.final", recall({"seconds": 0, "day": 100, "channel": "R"}, {"seconds": 0, "day": 7, "channel": "none"}), {"mdh-id": "r1"}
    )
    feed(sink, log.messages, producer)
    (_, block, _, _), *more = producer.sent
    assert not more
    found = {device + channel: one for (device, channel), one in ((place, window.source) for place, window in windows_of(block))}
    assert len(found["M1none"].times) == 0
    window = found["M1R"]
    assert sorted(window.times.tolist()) == [k * day for k in range(60, 141)]
    newest = dict(zip(window.times.tolist(), window.values.tolist(), strict=True))
    assert (newest[100 * day], newest[99 * day], set(window.version.tolist())) == (102, 100, {1, 2})


def test_many_days_in_one_record_are_answered_in_one(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_module, "DAYS_PER_QUERY", 4)
    queries: list[int] = []
    asked_of = sink_module.stored_days
    monkeypatch.setattr(sink_module, "stored_days", lambda store, part: queries.append(len(part)) or asked_of(store, part))
    sink, log, producer = make_sink(store), Log(), FakeProducer()
    log.put("reads.final", finals([{"device": "M1", "day": 19_800 + i, "values": [i], "conditions": [REGULAR]} for i in range(5)]))
    log.put("reads.final", recall(*({"day": 19_800 + i} for i in (3, 9, 1))), {"mdh-id": "a"})
    log.put("reads.final", recall(*({"day": 19_800 + i} for i in (0, 4))), {"mdh-id": "b"})
    log.put("reads.final", recall(*({"day": 19_800 + i} for i in (2, 3))), {"mdh-id": "c"})
    feed(sink, log.messages, producer)
    assert queries == [1, 2]  # three days, then two recalls of two
    answers = {block.id: sorted(zip(block.day.tolist(), block.count.tolist(), strict=True)) for _, block, _, _ in producer.sent}
    assert answers == {
        "a": [(19_801, 1), (19_803, 1), (19_809, 0)], "b": [(19_800, 1), (19_804, 1)], "c": [(19_802, 1), (19_803, 1)],
    }  # fmt: skip


def test_a_recall_is_part_of_what_its_payload_waits_for(store: Store) -> None:
    sink, log = make_sink(store), Log()
    log.put("hub.receipts", receipt("p", "i/0", "ingest", 1, status="decoded"), kind="Receipt")
    log.put("reads.final", recall(), {"mdh-id": "r1", "mdh-payload": "p", "mdh-receipt": "v/0"})
    log.put("hub.receipts", receipt("p", "v/0", "vee", 2, "i/0"), kind="Receipt")
    log.put("hub.receipts", receipt("p", "d/0", "determinants", 0, "v/0"), kind="Receipt")
    feed(sink, log.messages)
    feed(sink, log.messages)
    assert not settled(store, ["p"])["p"]["complete"]  # the answer is on its way
    log.put("hub.receipts", receipt("p", "i/1", "ingest", 1, "recall:r1"), kind="Receipt")
    feed(sink, log.messages[-1:])
    assert not settled(store, ["p"])["p"]["complete"]
    log.put("hub.receipts", receipt("p", "v/1", "vee", 0, "i/1"), kind="Receipt")
    feed(sink, log.messages[-1:])
    assert settled(store, ["p"])["p"]["complete"]
    assert store.query_rows("SELECT status FROM payloads WHERE id = 'p'") == [{"status": "stored"}]


def test_answers_are_sent_until_kafka_has_them(store: Store) -> None:
    producer, log = FakeProducer(failures=2), Log()
    for i in range(3):
        log.put("reads.final", recall(day=i), {"mdh-id": f"r{i}"})
    feed(make_sink(store), log.messages, producer)
    assert sorted(block.id for _, block, _, _ in producer.sent) == ["r0", "r1", "r2"]


class Ill:
    """A store that fails some times before it works."""

    def __init__(self, store: Store, failures: int, code: int = 0) -> None:
        self.store, self.failures, self.code = store, failures, code

    def insert_arrow(self, table: str, rows: Any) -> None:
        if self.failures:
            self.failures -= 1
            raise StoreError("out of order", self.code)
        self.store.insert_arrow(table, rows)

    def query_arrow(self, *args: Any) -> Any:
        return self.store.query_arrow(*args)


class Watch(threading.Event):
    """An event nobody waits for in earnest; keeps how long was asked for."""

    def __init__(self, set_after: int = 10**9) -> None:
        super().__init__()
        self.waits: list[float] = []
        self.set_after = set_after

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0)
        return len(self.waits) >= self.set_after


def test_a_store_that_is_away_is_waited_for_with_growing_patience(store: Store) -> None:
    sink, batch, watch = make_sink(Ill(store, 8)), Batch(), Watch()  # type: ignore[arg-type]
    for message in whole_log().messages:
        sink._sorter.add(batch, message)
    sink.flush(batch, None, FakeProducer(), watch)  # type: ignore[arg-type]
    assert watch.waits == sorted(watch.waits)
    assert watch.waits[0] < 0.5
    assert 5 < watch.waits[-1] <= 10
    assert sink.health.problem == ""
    assert len(store.query_rows("SELECT 1 FROM intervals")) == 96


def test_too_many_parts_slow_down(store: Store) -> None:
    sink, batch, watch = make_sink(Ill(store, 1, code=252)), Batch(), Watch()  # type: ignore[arg-type]
    sink._sorter.add(batch, whole_log().messages[0])
    sink.flush(batch, None, FakeProducer(), watch)  # type: ignore[arg-type]
    assert watch.waits == [2.0]


def test_a_stop_while_waiting_leaves_the_position_where_it_was(store: Store) -> None:
    sink, batch = make_sink(Ill(store, 10**6)), Batch()  # type: ignore[arg-type]
    for message in whole_log().messages:
        sink._sorter.add(batch, message)
    with pytest.raises(StoppedError):
        sink.flush(batch, None, FakeProducer(), Watch(set_after=3))  # type: ignore[arg-type]
    assert "out of order" in sink.health.problem
    assert positions(store, "mdh.sink") == {}


def test_a_broker_that_does_not_tell_its_offsets_yet_is_asked_again(store: Store) -> None:
    answers: list[Any] = [KafkaException(KafkaError(KafkaError._TIMED_OUT)), KafkaException(KafkaError(KafkaError._TRANSPORT)), (3, 9)]

    class Slow:
        def get_watermark_offsets(self, *_: Any, **__: Any) -> Any:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

    sink, watch, place = make_sink(store), Watch(), TopicPartition("reads.final", 0)
    assert sink._bounds(Slow(), place, watch) == (3, 9)  # type: ignore[arg-type]
    assert "broker" in sink.health.problem
    answers.append(KafkaException(KafkaError(KafkaError._TRANSPORT)))
    with pytest.raises(StoppedError):
        sink._bounds(Slow(), place, Watch(set_after=1))  # type: ignore[arg-type]
    answers.append(KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)))
    with pytest.raises(KafkaException):
        sink._bounds(Slow(), place, watch)  # type: ignore[arg-type]


def test_topics_come_from_the_topology(store: Store) -> None:
    sink = Sink.from_topology(store, KafkaSettings(), load_topology(None))
    assert set(TOPICS) < set(sink.topics)
    assert sink.topics == load_topology(None).stored
    assert (sink.group, sink.recalled, sink._sorter.raw) == ("mdh.sink", "vee.recalled", {"hes.reads"})


# --- on a broker -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def mock_broker() -> Iterator[str]:
    """librdkafka's own broker in memory, alive as long as the producer that started it."""
    owner = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "ignored"})
    brokers = owner.list_topics(timeout=60).brokers
    yield ",".join(f"{b.host}:{b.port}" for b in brokers.values())
    owner.flush(1)


def publish(bootstrap: str, messages: Sequence[Any], prefix: str = "") -> None:
    producer = Producer({"bootstrap.servers": bootstrap})
    for m in messages:
        producer.produce(prefix + m.topic(), m.value(), key=m.key(), headers=m.headers(), partition=m.partition())
    assert producer.flush(120) == 0
    for topic in TOPICS if not prefix else ():
        producer.list_topics(topic, timeout=60)  # the mock broker makes a topic when somebody asks for it


@dataclass
class Running:
    sink: Sink
    stop: threading.Event
    thread: threading.Thread
    errors: list[BaseException]

    def until(self, reached: Callable[[Sink], bool]) -> None:
        def alive() -> None:
            assert not self.errors, self.errors

        eventually(lambda: reached(self.sink), meanwhile=alive, pause=0.02)

    def end(self) -> None:
        self.stop.set()
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()
        assert not self.errors


def start(store: Store, bootstrap: str, prefix: str = "", **options: Any) -> Running:
    topics = [prefix + topic for topic in TOPICS]
    options = {"pace": Pace(seconds=0.1), "raw": frozenset({prefix + "hes.reads"}), "recalled": prefix + "vee.recalled", **options}
    sink = Sink(store, KafkaSettings().at(bootstrap), topics, group=prefix + "mdh.sink", **options)
    stop, errors = threading.Event(), list[BaseException]()

    def run() -> None:
        try:
            sink.run(stop)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return Running(sink, stop, thread, errors)


def test_a_sink_on_a_broker_goes_on_where_the_store_stands(expected: dict[str, list[Any]], store: Store, mock_broker: str) -> None:
    messages = whole_log().messages
    publish(mock_broker, messages[:10])
    first = start(store, mock_broker)
    first.until(lambda sink: sink.health.records == 10)
    first.end()
    assert not first.sink.health.running
    publish(mock_broker, messages[10:])
    began = time.time()
    second = start(store, mock_broker)
    second.until(lambda sink: sink.health.records == len(messages) - 10)
    second.until(lambda sink: sink.health.behind == 0)
    assert second.sink.health.running
    assert second.sink.health.last_flush >= began
    second.end()
    assert contents(store) == adjusted(expected)


def adjusted(expected: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Times of arrival are those of the broker here."""
    return {**expected, **dict.fromkeys(("payload_log", "payloads", "refused_records"), ANY)}


class _Anything:
    def __eq__(self, _: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


ANY: Any = _Anything()


def test_a_store_set_back_is_filled_again(expected: dict[str, list[Any]], store: Store, mock_broker: str) -> None:
    publish(mock_broker, whole_log().messages)
    for _ in range(2):
        emptied(store)  # a lost store: Kafka's committed offsets must not count
        running = start(store, mock_broker)
        running.until(lambda sink: sink.health.records == len(whole_log().messages))
        running.end()
        assert contents(store) == adjusted(expected)


def test_a_topic_made_anew_is_read_from_its_beginning(store: Store, mock_broker: str) -> None:
    store.command("INSERT INTO sink_positions VALUES ('mdh.sink', 'reads.final', 0, 1000)")
    publish(mock_broker, whole_log().messages)
    running = start(store, mock_broker)
    running.until(lambda sink: sink.health.records == len(whole_log().messages))
    running.end()
    assert positions(store, "mdh.sink") == whole_log().ends


def test_the_sink_waits_for_topics_and_stops_when_told(store: Store) -> None:
    owner = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "ignored", "allow.auto.create.topics": False})
    bootstrap = ",".join(f"{b.host}:{b.port}" for b in owner.list_topics(timeout=60).brokers.values())
    running = start(store, bootstrap)
    running.until(lambda sink: "reads.final" in sink.health.problem)
    assert not running.sink.health.running
    running.end()
    owner.flush(1)


def test_a_broker_that_is_away_is_a_problem_not_an_end(store: Store) -> None:
    running = start(store, "127.0.0.1:1")
    running.until(lambda sink: "broker" in sink.health.problem)
    running.end()


def test_large_batches_are_written_before_their_time(store: Store, mock_broker: str) -> None:
    log = Log()
    for day in range(20):
        log.put("reads.final", finals([{"day": 19_800 + day, "values": [1] * 48}]))
    publish(mock_broker, [*whole_log().messages[:-1], *log.messages])
    running = start(store, mock_broker, pace=Pace(seconds=60, reads=200, records=4))
    running.until(lambda sink: sink.health.reads > 500)
    running.end()


def test_a_newest_end_is_the_end_of_the_last_interval_with_a_condition() -> None:
    assert sink_module._newest_end(finals([{"values": [1, 2, 3], "conditions": [REGULAR, REGULAR, 0]}])) == 19_800 * 86_400 + 3600
    assert sink_module._newest_end(finals([{"values": [0], "conditions": [0]}])) is None
    assert sink_module._newest_end(finals([{"seconds": 0, "values": [1], "times": [5]}])) is None
    assert np.array_equal(finals([]).count, np.zeros(0, np.int32))
    assert sink_module._newest_end(finals([])) is None


# --- with the runtime's own envelopes ------------------------------------------------------------------------------------------


class Passing:
    """A fold that passes what it gets on to all partitions, and stores something besides."""

    def __init__(self, agent: str, outputs: tuple[str, ...], partitions: int) -> None:
        self.agent, self.outputs, self.partitions = agent, outputs, partitions
        self.state = State(lambda _: Table({}))

    def apply(self, message: Any) -> Result:
        given = [Output(topic, "FinalBlock", finals([{"device": f"{self.agent}{n}", "values": [n]}]), b"", n)
                 for topic in self.outputs for n in range(self.partitions)]  # fmt: skip
        return Result(given, {"status": "decoded", "finals": 1} if self.agent == "ingest" else {"finals": 1})


@pytest.mark.parametrize("seed", range(3))
def test_a_real_chain_is_settled_with_its_last_record_in_any_order(store: Store, seed: int) -> None:
    counts = dict.fromkeys(("raw", "mid", "end", "hub.receipts"), 2)
    ends = frozenset({"mid", "end"})
    first = Plan("t", "ingest", None, frozenset({"raw"}), frozenset({"raw"}), frozenset(), "s1", counts, frozenset({"end"}), {"mid": 1})
    second = Plan("t", "vee", "mid", frozenset(), frozenset(), frozenset(), "s2", counts, frozenset({"end"}), {"mid": 1})
    chain = Pipeline([(first, lambda _: Passing("ingest", ("mid", "end"), 2)), (second, lambda _: Passing("vee", ("end",), 2))])
    for n in range(3):
        chain.publish("raw", n % 2, b"", b"x", {"id": f"payload-{n}".encode()})
    chain.run()
    records = [record for topic in (*ends - {"mid"}, "hub.receipts") for part in chain.topics[topic] for record in part]
    messages = [FakeMessage(r.topic, r.partition, r.offset, r.value or b"", list(r.headers.items())) for r in records]
    random.Random(seed).shuffle(messages)
    sink = make_sink(store)
    last = {id: max(i for i, m in enumerate(messages) if _belongs(m, id)) for id in ("payload-0", "payload-1", "payload-2")}
    for i, message in enumerate(messages):
        feed(sink, [message])
        done = {id for id, row in settled(store, list(last)).items() if row["complete"]}
        assert done == {id for id, end in last.items() if end <= i}
    assert {row["status"] for row in store.query_rows("SELECT status FROM payloads")} == {"stored"}


def _belongs(message: FakeMessage, id: str) -> bool:
    headers = dict(message.headers())
    if message.topic() == "hub.receipts":
        return bool(CODEC.decode(message.value())["payload"] == id)
    return headers.get("mdh-payload") == id.encode() and "mdh-receipt" in headers


@pytest.mark.broker
def test_several_sinks_share_the_partitions(
    expected: dict[str, list[Any]], store: Store, broker: str, make_topics: Any, topic_prefix: str
) -> None:
    names = [topic_prefix + topic for topic in (*TOPICS, "vee.recalled")]
    make_topics(*names, partitions=2)
    messages = whole_log().messages
    publish(broker, messages[:12], topic_prefix)
    first = start(store, broker, topic_prefix, share=True)
    first.until(lambda sink: sink.health.records >= 12)
    second = start(store, broker, topic_prefix, share=True)
    second.until(lambda sink: bool(sink.health.positions))
    publish(broker, messages[12:], topic_prefix)
    eventually(lambda: sum(positions(store, topic_prefix + "mdh.sink").values()) >= len(messages))
    first.end()
    second.end()
    found = contents(store, VIEWS)
    assert {name: found[name] for name in VIEWS if name != "payloads"} == {name: expected[name] for name in VIEWS if name != "payloads"}
