"""Bulk orders over the real store: selection, dry run, four eyes, and that everything is in the audit."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import pytest

from connectors.clickhouse import rows
from connectors.clickhouse.store import Store
from connectors.console.shelf import TOPIC, Shelf
from connectors.head_end.bulk_desk import BulkDesk, BulkRequest, Decision
from connectors.head_end.problems import ProblemError
from connectors.head_end.publish import Writer
from connectors.head_end.reading import StoreReader
from connectors.kafka.client import producer
from connectors.kafka.mock import MockBroker
from connectors.kafka.settings import KafkaSettings
from connectors.rights.chain import verify
from connectors.rights.principal import Principal, as_principal
from connectors.rights.roles import Roles
from connectors.rights.trail import Trail, anchor
from connectors.todo.questions import Selection as TodoSelection
from connectors.todo.service import BulkAct, TodoService
from schemas.codec import Codec
from schemas.topology import load_topology
from schemas.topology.commands import CommandSettings
from schemas.topology.rights import Grant, RightsSettings
from schemas.topology.todo import TodoSettings
from tests.console.estate import put
from tests.patience import eventually

HOUR = 3600


class Kafka:
    """Takes records; entries of the audit are in the store at once."""

    def __init__(self, store: Store) -> None:
        self.store, self.codec, self.commands, self.timeout = store, Codec(), list[dict[str, Any]](), 5.0

    def write(self, topic: str, value: bytes | None, **_: Any) -> Future[tuple[int, int]]:
        body = self.codec.decode(value or b"")
        if topic == "audit.events":
            self.audit(body)
        else:
            self.commands.append(body)
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


def desk_of(kafka: Kafka, above: int = 10, most: int = 100, claims: Shelf | None = None) -> BulkDesk:
    settings = CommandSettings(four_eyes_above=above, most=most)
    trail = Trail(kafka, Codec(), None)  # type: ignore[arg-type]
    reader = StoreReader(kafka.store, 1)
    double: Any = kafka
    return BulkDesk(reader, double, Codec(), settings, "hub.commands", trail, lambda: 1_000_000.0, claims)


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


class Later(Kafka):
    """The store follows only when it is told to."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.held = list[dict[str, Any]]()

    def audit(self, body: dict[str, Any]) -> None:
        self.held.append(body)

    def follow(self) -> None:
        for body in self.held:
            super().audit(body)
        self.held = []


def test_an_order_is_listed_shown_and_decided_before_the_store_has_it(kafka: Kafka) -> None:
    later = Later(kafka.store)
    desk = desk_of(later, above=3)
    ids = [desk.submit(request(reason=f"storm {number}")).id or "" for number in range(2)]
    assert [order.id for order in desk.waiting()] == ids
    assert desk.decide(ids[0], Decision(user="bob"), approve=False).state == "rejected"
    assert [order.id for order in desk.waiting()] == ids[1:]
    assert desk.show(ids[0]).decided_by == "bob"
    later.follow()
    assert [order.id for order in desk.waiting()] == ids[1:], "listed once, now from the store"
    assert [order.id for order in desk_of(later, above=3).waiting()] == ids[1:], "also by another hub"


def test_a_large_act_on_to_dos_is_listed_before_the_store_has_it(kafka: Kafka) -> None:
    later, settings = Later(kafka.store), TodoSettings(bulk_alone=1)
    trail = Trail(later, Codec(), None)  # type: ignore[arg-type]
    service = TodoService(settings, StoreReader(kafka.store, 1), later, Codec(), trail=trail)  # type: ignore[arg-type]
    put(kafka.store, "todo_open", [{"id": f"t{n}", "type": "validation", "state": "open", "priority": 5, "version": 1} for n in range(3)])
    asked = service.bulk(BulkAct(action="complete", select=TodoSelection(), user="ann"))
    assert (asked["state"], asked["count"]) == ("waiting", 3)
    assert [(act["id"], act["state"], act["user"]) for act in service.acts()] == [(asked["id"], "waiting", "ann")]
    later.follow()
    assert [act["id"] for act in service.acts()] == [asked["id"]]
    service.decide(asked["id"], "bob", approve=False)
    assert service.acts() == []


def test_of_two_hubs_one_decides(kafka: Kafka) -> None:
    """Two hub processes over one topic; neither sees in the store yet what the other decides."""
    topology = load_topology()
    with MockBroker() as broker, ExitStack() as stack:
        settings, stop = KafkaSettings(bootstrap=broker.bootstrap), threading.Event()
        made = producer(settings)
        made.produce(TOPIC, b"", partition=0)
        assert made.flush(120) == 0
        shelves = []
        for _ in range(2):
            writer = Writer(settings, max_bytes=1_000_000, timeout=120)
            shelves.append(Shelf(settings, topology, Codec(), writer))
            thread = threading.Thread(target=shelves[-1].run, args=(stop,), daemon=True)
            thread.start()
            stack.callback(writer.close, 1)
            stack.callback(thread.join, 120)
        stack.callback(stop.set)
        later = Later(kafka.store)
        one, other = (desk_of(later, above=3, claims=shelf) for shelf in shelves)
        ids = [one.submit(request(reason=f"storm {number}")).id or "" for number in range(2)]
        later.follow()

        assert one.decide(ids[0], Decision(user="bob"), approve=True).state == "approved"
        with pytest.raises(ProblemError, match="Somebody else is deciding") as second:
            other.decide(ids[0], Decision(user="cid"), approve=False)
        assert second.value.status == 409
        with pytest.raises(ProblemError, match="finds 4 now, not 9"):
            one.decide(ids[1], Decision(user="bob", count=9), approve=True)
        # what came to no decision is given back; the other hub reads it a moment later
        eventually(lambda: (entry := shelves[1].found(f"decision/{ids[1]}")) is not None and not entry.active)
        assert other.decide(ids[1], Decision(user="cid"), approve=False).state == "rejected"
        assert len(kafka.commands) + len(later.commands) == 4


def test_an_order_keeps_to_the_area_of_the_one_who_asked(kafka: Kafka) -> None:
    put(kafka.store, "master_objects", [
        {"kind": kind, "object": id, "version": 1, "sequence": 1, "span_from": [-1], "span_to": [-1], "span_body": [body]}
        for kind, id, body in (("service_point", "SP1", '{"region": "north"}'),
                               ("install", "M1/1", '{"device": "M1", "service_point": "SP1"}'))
    ])  # fmt: skip
    roles = Roles(RightsSettings().all_roles)
    north, south, all_of_it = (
        Principal(name, "session", (Grant(role="supervisor", **area),), None, roles)
        for name, area in (("nora", {"region": "north"}), ("sam", {"region": "south"}), ("bob", {}))
    )
    desk = desk_of(kafka, above=1)
    with as_principal(north, "commands.bulk"):
        asked = desk.submit(request(user="nora"))
    assert (asked.state, asked.count, asked.devices) == ("waiting", 2, 1)
    with as_principal(south, "commands.approve"):
        assert desk.waiting() == []
        with pytest.raises(ProblemError, match="No order"):
            desk.decide(asked.id or "", Decision(user="sam"), approve=True)
    with as_principal(all_of_it, "commands.approve"):
        approved = desk.decide(asked.id or "", Decision(user="bob"), approve=True)
    assert approved.count == 2
    assert {command["device"] for command in kafka.commands} == {"M1"}, "whoever approves, it reaches no further"


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
