"""Commands and device events over HTTP: what is taken, what is refused at the door, and what is asked of the audit."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from fastapi.testclient import TestClient

from connectors.head_end.command_desk import KafkaCommandDesk
from connectors.head_end.desk import Desk
from connectors.head_end.gateway import create_app
from connectors.head_end.label_desk import LabelDesk
from connectors.head_end.publish import KeyLog, Publisher, Writer
from connectors.kafka.client import KafkaSettings
from schemas.codec import Codec
from tests.gateway.conftest import LIMIT, Door, FakeMaster, FakeReader
from tests.gateway.test_reads import is_problem

CODEC = Codec()
EDIT = {"action": "edit", "device": "m1", "channel": "1", "start": "2026-03-29T00:00:00Z", "end": "2026-03-29T00:30:00+00:00",
        "values": ["1.5", None], "user": "clerk", "reason": "seen"}  # fmt: skip


@pytest.fixture
def orders(kafka: KafkaSettings, writer: Writer, tmp_path: Path) -> Iterator[Door]:
    publisher = Publisher(writer, "hes.reads", max_payload_bytes=LIMIT, keys=KeyLog(tmp_path / "keys.sqlite"))
    reader = FakeReader()
    events = Publisher(writer, "hes.events", max_payload_bytes=LIMIT)
    commands, labels = KafkaCommandDesk(writer, CODEC, "hub.commands"), LabelDesk(writer, CODEC, "hub.commands", reader)
    desk = Desk(publisher, reader, FakeMaster(), list, commands=commands, labels=labels, events=events)
    with TestClient(create_app(desk), raise_server_exceptions=False) as client:
        yield Door(client, reader, [], kafka, publisher)


def test_a_command_is_on_its_topic_before_anyone_is_told(orders: Door) -> None:
    answer = orders.client.post("/v1/commands", json=EDIT)
    assert answer.status_code == 202
    id_ = answer.json()["id"]
    assert answer.headers["location"] == f"/v1/commands/{id_}"
    (record,) = orders.records("hub.commands")
    body = CODEC.decode(record.value())
    assert record.key() == b"m1"
    assert dict(record.headers())["id"] == id_.encode()
    assert (body["id"], body["action"], body["user"], body["reason"]) == (id_, "edit", "clerk", "seen")
    assert (body["start"], body["end"], body["values"]) == (1_774_742_400, 1_774_744_200, [1_500_000, None])


def test_a_key_makes_a_command_the_same_command(orders: Door) -> None:
    ids = {orders.client.post("/v1/commands", json=EDIT, headers={"Idempotency-Key": "k"}).json()["id"] for _ in range(2)}
    assert len(ids) == 1
    assert len({orders.client.post("/v1/commands", json=EDIT).json()["id"] for _ in range(2)}) == 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"action": "hide"}, "action"),
        ({"user": ""}, "user"),
        ({"device": "a\nb"}, "device"),
        ({"start": "2026-03-29T00:00:00"}, "offset"),
        ({"start": "1960-03-29T00:00:00Z"}, "1970"),
        ({"end": "2026-03-28T00:00:00Z"}, "before end"),
        ({"values": ["1,5"]}, "values"),
        ({"values": ["0.0000000000000000000000000001", "9" * 40]}, ""),
        ({"values": []}, "needs values"),
        ({"expected_version": "x"}, "expected_version"),
        ({"more": 1}, "more"),
    ],
)
def test_what_is_refused_at_the_door(orders: Door, change: dict[str, Any], says: str) -> None:
    answer = orders.client.post("/v1/commands", json=EDIT | change)
    is_problem(answer, 422, "not-valid")
    assert says in answer.json()["detail"]


def test_what_became_of_a_command_is_its_entry_of_the_audit(orders: Door) -> None:
    is_problem(orders.client.get("/v1/commands/c1"), 404, "not-found")
    orders.reader.answer = [
        {"command": "c1", "device": "m1", "at": datetime(2026, 3, 29, tzinfo=UTC), "actor": "clerk", "action": "edit", "outcome": "refused",
         "detail": "version conflict", "before": '{"version": 3}', "after": ""}
    ]  # fmt: skip
    answer = orders.client.get("/v1/commands/c1").json()
    assert (answer["outcome"], answer["before"], answer["after"]) == ("refused", {"version": 3}, None)
    assert orders.reader.asked[-1][1] == {"id": "c1"}


def test_events_are_looked_at_and_passed_on_as_they_came(orders: Door) -> None:
    payload = orjson.dumps({"events": [{"device": "m1", "kind": "outage", "at": "2026-03-29T00:00:00Z"}]})
    answer = orders.client.post("/v1/events", params={"source": "hes"}, content=payload)
    assert answer.status_code == 202
    (record,) = orders.records("hes.events")
    assert record.value() == payload
    assert record.key() == b"hes"
    is_problem(orders.client.post("/v1/events", content=b'{"device": "m1"}'), 422, "not-valid")


def test_a_gateway_without_desks_says_so(door: Door) -> None:
    is_problem(door.client.post("/v1/commands", json=EDIT), 503, "no-commands")
    is_problem(door.client.post("/v1/events", content=b"{}"), 503, "no-events")


def test_a_label_is_on_the_topic_of_commands_with_the_exception_it_is_about(orders: Door) -> None:
    orders.reader.answer = [{"exception": "e1", "device": "m1", "channel": "1", "day": 20_540}]
    asked = {"exception": "e1", "verdict": "false-alarm", "reason": "on holiday", "user": "clerk"}
    assert orders.client.post("/v1/labels", json=asked).json() == {"id": "e1"}
    by_day = {"device": "m1", "channel": "1", "day": "2026-03-28", "verdict": "confirmed", "user": "clerk"}
    assert orders.client.post("/v1/labels", json=by_day).status_code == 202
    first, second = orders.records("hub.commands")
    assert first.key() == b"m1"
    assert CODEC.decode(first.value()) == {
        "exception": "e1", "device": "m1", "channel": "1", "day": 20_540, "confirmed": False, "reason": "on holiday", "user": "clerk",
    }  # fmt: skip
    assert CODEC.decode(second.value())["confirmed"] is True


@pytest.mark.parametrize(
    ("change", "says"),
    [({"verdict": "maybe"}, "verdict"), ({"user": ""}, "user"), ({"exception": None}, "device, channel and day"), ({}, "no anomaly")],
)
def test_a_label_about_nothing_is_refused(orders: Door, change: dict[str, Any], says: str) -> None:
    answer = orders.client.post("/v1/labels", json={"exception": "e1", "verdict": "confirmed", "user": "clerk"} | change)
    is_problem(answer, 422, "not-valid")
    assert says in answer.json()["detail"]


@pytest.mark.parametrize(("action", "confirmed"), [("accept", False), ("discard", True)])
def test_a_command_that_names_an_exception_labels_it(orders: Door, action: str, confirmed: bool) -> None:
    orders.reader.answer = [{"exception": "e1", "device": "m1", "channel": "1", "day": 20_540}]
    span = {name: EDIT[name] for name in ("device", "channel", "start", "end", "user", "reason")}
    assert orders.client.post("/v1/commands", json={**span, "action": action, "exception": "e1"}).status_code == 202
    command, label = (CODEC.decode(record.value()) for record in orders.records("hub.commands"))
    assert command["action"] == action
    assert (label["exception"], label["confirmed"], label["reason"]) == ("e1", confirmed, "seen")
