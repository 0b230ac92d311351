"""Bulk orders over the real store: selection, dry run, four eyes, and that everything is in the audit."""

from __future__ import annotations

from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Any

import pytest

from connectors.clickhouse import rows
from connectors.clickhouse.store import Store
from connectors.head_end.bulk_desk import BulkDesk, BulkRequest, Decision
from connectors.head_end.problems import ProblemError
from connectors.head_end.reading import StoreReader
from connectors.rights.chain import verify
from connectors.rights.trail import Trail, anchor
from schemas.codec import Codec
from schemas.topology.commands import CommandSettings

HOUR = 3600


class Kafka:
    """Takes records; entries of the audit are in the store at once."""

    def __init__(self, store: Store) -> None:
        self.store, self.codec, self.commands, self.timeout = store, Codec(), list[dict[str, Any]](), 5.0

    def write(self, topic: str, value: bytes | None, **_: Any) -> Future[tuple[int, int]]:
        body = self.codec.decode(value or b"")
        if topic == "hub.commands":
            self.commands.append(body)
        else:
            self.audit(body)
        done: Future[tuple[int, int]] = Future()
        done.set_result((0, 0))
        return done

    def audit(self, body: dict[str, Any]) -> None:
        whole = self.codec.decode(self.codec.encode("AuditEvent", body))
        self.store.insert_arrow("audit_events", rows.from_dicts("audit_events", [rows.with_seconds(whole, "at", "start", "end")]))


@pytest.fixture
def kafka(store: Store) -> Kafka:
    found = [
        {
            "id": f"e{number}", "rule": "interval-spike" if number < 5 else "zero-consumption", "severity": "issue" if number else "info",
            "status": "open" if number != 4 else "resolved", "version": 1, "device": f"M{number % 2}", "channel": "E_1",
            "service_point": "", "payload": "", "start": 86_400 * number + HOUR, "end": 86_400 * number + 2 * HOUR, "count": 4,
            "detail": "so much",
        } for number in range(8)
    ]  # fmt: skip
    store.insert_arrow("vee_exceptions", rows.from_dicts("vee_exceptions", found))
    return Kafka(store)


def desk_of(kafka: Kafka, above: int = 10, most: int = 100) -> BulkDesk:
    settings = CommandSettings(four_eyes_above=above, most=most)
    trail = Trail(kafka, Codec(), None)  # type: ignore[arg-type]
    reader = StoreReader(kafka.store, 1)
    return BulkDesk(reader, kafka, Codec(), settings, "hub.commands", trail, clock=lambda: 1_000_000.0)  # type: ignore[arg-type]


def request(**more: Any) -> BulkRequest:
    select = {"rule": "interval-spike", "from": datetime.fromtimestamp(0, UTC), "to": datetime.fromtimestamp(30 * 86_400, UTC)}
    select |= {name: more.pop(name) for name in ("devices", "channels", "severity", "from", "to", "rule") if name in more}
    return BulkRequest.model_validate({"action": "accept", "select": select, "user": "ann", "reason": "known"} | more)


def test_a_dry_run_counts_and_does_nothing(kafka: Kafka) -> None:
    answer = desk_of(kafka, above=3).submit(request(dry_run=True))
    assert (answer.id, answer.state, answer.count, answer.devices, answer.channels, answer.intervals) == (None, "dry-run", 4, 2, 2, 16)
    assert answer.needs_approval
    assert kafka.commands == []


@pytest.mark.parametrize(
    ("select", "count"),
    [({"devices": ["M1"]}, 2), ({"devices": ["M?"]}, 4), ({"devices": ["*0", "X"]}, 2), ({"channels": ["E_*"]}, 4),
     ({"channels": ["EX1"]}, 0),
     ({"channels": ["E%"]}, 0), ({"severity": "info"}, 1), ({"rule": "zero-consumption"}, 3),
     ({"from": datetime.fromtimestamp(86_400 + 2 * HOUR, UTC)}, 2), ({"to": datetime.fromtimestamp(86_400 + HOUR, UTC)}, 1)],
)  # fmt: skip
def test_what_a_selection_finds(kafka: Kafka, select: dict[str, Any], count: int) -> None:
    assert desk_of(kafka).submit(request(dry_run=True, **select)).count == count


def test_a_small_order_is_carried_out_and_audited(kafka: Kafka) -> None:
    desk = desk_of(kafka)
    answer = desk.submit(request(devices=["M1"]))
    assert answer.state == "ordered"
    assert [(c["device"], c["start"], c["end"], c["action"], c["user"], c["bulk"]) for c in kafka.commands] == [
        ("M1", 86_400 * n + HOUR, 86_400 * n + 2 * HOUR, "accept", "ann", answer.id) for n in (1, 3)
    ]
    for command, outcome in zip(kafka.commands, ("applied", "refused"), strict=True):
        kafka.audit(
            {**dict.fromkeys(("channel", "reason", "detail", "before", "after", "approved_by"), ""), "id": command["id"], "at": 5,
             "actor": "ann", "action": "accept", "command": command["id"], "subject": "M1", "device": "M1", "start": 0, "end": 1,
             "outcome": outcome, "bulk": answer.id}
        )  # fmt: skip
    assert answer.id is not None
    shown = desk.show(answer.id)
    assert (shown.state, shown.count, shown.outcomes) == ("ordered", 2, {"applied": 1, "refused": 1})
    assert desk.waiting() == []


def test_a_large_order_waits_for_somebody_else(kafka: Kafka) -> None:
    desk = desk_of(kafka, above=3)
    answer = desk.submit(request())
    assert answer.id is not None
    assert (answer.state, answer.needs_approval, kafka.commands) == ("waiting", True, [])
    assert [order.id for order in desk.waiting()] == [answer.id]
    with pytest.raises(ProblemError, match="Somebody else") as same:
        desk.decide(answer.id, Decision(user="ann"), approve=True)
    assert same.value.status == 403
    approved = desk.decide(answer.id, Decision(user="bob"), approve=True)
    assert (approved.state, approved.decided_by) == ("approved", "bob")
    assert {(c["user"], c["approved_by"]) for c in kafka.commands} == {("ann", "bob")}
    assert len(kafka.commands) == 4
    with pytest.raises(ProblemError, match="approved by bob"):
        desk.decide(answer.id, Decision(user="cid"), approve=True)
    told = kafka.store.query_arrow("SELECT outcome, actor, approved_by FROM audit WHERE bulk != '' ORDER BY outcome").to_pylist()
    assert [tuple(row.values()) for row in told] == [("approved", "bob", "bob"), ("requested", "ann", "")]
    entries = kafka.store.query_arrow("SELECT * FROM audit").to_pylist()
    found = verify(entries)
    assert (found.entries, found.chains, found.problems) == (3, 1, []), "what is stored hashes as what was written"
    assert verify([{**row, "actor": "cid"} if row["outcome"] == "approved" else row for row in entries]).problems


def test_a_selection_that_changed_must_be_agreed_to(kafka: Kafka) -> None:
    desk = desk_of(kafka, above=3)
    id_ = desk.submit(request()).id or ""
    kafka.store.insert_arrow("vee_exceptions", rows.from_dicts("vee_exceptions", [
        {"id": "e9", "rule": "interval-spike", "severity": "issue", "status": "open", "version": 1, "device": "M9", "channel": "1",
         "service_point": "", "payload": "", "start": 5, "end": 900, "count": 1, "detail": ""},
    ]))  # fmt: skip
    with pytest.raises(ProblemError, match="finds 5 now, not 4"):
        desk.decide(id_, Decision(user="bob"), approve=True)
    assert kafka.commands == []
    assert desk.decide(id_, Decision(user="bob", count=5), approve=True).state == "approved"
    assert len(kafka.commands) == 5


def test_what_is_rejected_is_never_done(kafka: Kafka) -> None:
    desk = desk_of(kafka, above=0)
    id_ = desk.submit(request()).id or ""
    assert desk.decide(id_, Decision(user="bob", reason="no"), approve=False).state == "rejected"
    with pytest.raises(ProblemError, match="rejected by bob"):
        desk.decide(id_, Decision(user="cid"), approve=True)
    assert (kafka.commands, desk.waiting()) == ([], [])


@pytest.mark.parametrize(
    ("asked", "what"),
    [({"rule": "no-rule"}, "no rule"), ({"severity": "bad"}, "severity"), ({"action": "estimate"}, "method"), ({"user": ""}, "user"),
     ({"from": datetime.fromtimestamp(99 * 86_400, UTC)}, "before")],
)  # fmt: skip
def test_orders_that_make_no_sense(kafka: Kafka, asked: dict[str, Any], what: str) -> None:
    with pytest.raises(ProblemError, match=what):
        desk_of(kafka).submit(request(**asked))


def test_too_many_at_once_are_refused(kafka: Kafka) -> None:
    with pytest.raises(ProblemError, match="more than 3"):
        desk_of(kafka, most=3).submit(request())
    with pytest.raises(ProblemError, match="No order"):
        desk_of(kafka).show("x")


def test_a_hub_names_the_ends_of_chains_it_finds(kafka: Kafka) -> None:
    desk_of(kafka).submit(request(devices=["M1"]))
    trail, reader = Trail(kafka, Codec(), None), StoreReader(kafka.store, 1)  # type: ignore[arg-type]
    known = anchor(trail, reader, {})
    assert anchor(trail, reader, known) == known, "nothing new: nothing is named"
    trail.write("test", "x", "applied")
    entries = kafka.store.query_arrow("SELECT * FROM audit").to_pylist()
    named = [row for row in entries if row["action"] == "audit-heads"]
    assert len(named) == 1
    assert verify(entries).problems == []
    last = max((row for row in entries if row["writer"] in known), key=lambda row: int(row["sequence"]))
    assert verify([row for row in entries if row is not last]).problems, "the end of a chain is cut off"
