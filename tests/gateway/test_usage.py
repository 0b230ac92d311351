"""The door of usage: what is refused, and what is written where."""

from __future__ import annotations

from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from connectors.head_end import problems
from connectors.usage.routes import UsageDesk, routes
from schemas.codec import Codec
from schemas.identity import partition_of
from streams.determinants.usage.billed import subject_of

CODEC = Codec()


class FakeWriter:
    """Remembers what was written."""

    timeout = 1.0

    def __init__(self) -> None:
        self.written: list[tuple[str, str, dict[str, Any], int | None]] = []

    def write(self, topic: str, value: bytes, **rest: Any) -> Future[tuple[int, int]]:
        self.written.append((topic, CODEC.name_of(value), CODEC.decode(value), rest["partition"]))
        done: Future[tuple[int, int]] = Future()
        done.set_result((0, 0))
        return done


class FakeReader:
    """Answers with what it was given, by the table asked for."""

    def __init__(self, **tables: list[dict[str, Any]]) -> None:
        self.tables = tables

    def rows(self, sql: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        return next((rows for name, rows in self.tables.items() if name in sql), [])


def door(**tables: list[dict[str, Any]]) -> tuple[TestClient, FakeWriter]:
    writer = FakeWriter()
    desk = UsageDesk(writer, FakeReader(**tables), CODEC, 4, frozenset({"three-part"}), clock=lambda: 7)  # type: ignore[arg-type]
    app = FastAPI()
    problems.install(app)
    app.include_router(routes(desk))
    return TestClient(app, raise_server_exceptions=False), writer


def test_a_request_goes_to_its_accounts_partition() -> None:
    client, writer = door()
    asked = {"account": "c-1", "from": "2026-03-01T00:00:00+01:00", "to": "2026-03-15T00:00:00+01:00", "trigger": "final"}
    first = client.post("/v1/usage-requests", json=asked, headers={"Idempotency-Key": "k1"})
    again = client.post("/v1/usage-requests", json=asked, headers={"Idempotency-Key": "k1"})
    assert (first.status_code, first.json()) == (202, again.json())
    topic, kind, body, partition = writer.written[0]
    assert (topic, kind, partition) == ("hub.commands", "UsageRequest", partition_of("c-1", 4))
    assert (body["start"], body["end"] - body["start"], body["trigger"]) == (1_772_319_600, 14 * 86_400, "final")


@pytest.mark.parametrize(
    "asked",
    [
        {"account": "c-1", "from": "2026-03-01T00:00:00"},
        {"account": "c-1", "from": "2026-03-01T00:00:00Z", "to": "2026-03-01T00:00:00Z"},
        {"account": "c-1", "from": "2026-03-01T00:00:00Z", "to": "2036-03-01T00:00:00Z"},
        {"account": "", "from": "2026-03-01T00:00:00Z"},
        {"account": "c-1", "from": "2026-03-01T00:00:00Z", "trigger": "whenever"},
    ],
)
def test_what_is_no_request_is_refused(asked: dict[str, Any]) -> None:
    client, writer = door()
    assert client.post("/v1/usage-requests", json=asked).status_code == 422
    assert not writer.written


def test_usage_on_a_bill_is_found_by_any_of_its_ids() -> None:
    client, writer = door(usage_transactions=[{"account": "c-1", "usage": "u", "version": 2}])
    assert client.post("/v1/determinants/x/used-on-bill", json={"bill": "B-1"}).status_code == 202
    _, kind, body, _ = writer.written[0]
    assert (kind, body["usage"], body["subject"], body["version"], body["bill"]) == ("UsedOnBill", "u", "", 2, "B-1")


def test_a_determinant_of_a_channel_is_known_by_its_subject() -> None:
    row = {
        "account": "", "service_point": "sp", "device": "m", "channel": "E1", "unit": "kWh", "kind": "interval-consumption", "tou": "",
        "usage": "", "version": 3, "period_start": datetime(2026, 3, 1, tzinfo=UTC),
    }  # fmt: skip
    client, writer = door(bill_determinants=[row])
    assert client.post("/v1/determinants/x/used-on-bill", json={"bill": "B-1"}).status_code == 202
    _, _, body, partition = writer.written[0]
    assert (body["account"], body["subject"]) == ("sp", subject_of(row, 1_772_323_200))
    assert partition == partition_of("sp", 4)


def test_an_event_needs_a_known_map_and_one_of_tou_and_use() -> None:
    client, writer = door()
    event = {"id": "e1", "from": "2026-07-01T16:00:00Z", "to": "2026-07-01T19:00:00Z", "tou": "critical", "maps": ["three-part"]}
    assert client.post("/v1/tou-events", json=event).status_code == 202
    assert client.post("/v1/tou-events", json={**event, "use": "three-part"}).status_code == 422
    assert client.post("/v1/tou-events", json={**event, "maps": ["nine-part"]}).status_code == 422
    assert [(kind, body["tou"], body["maps"]) for _, kind, body, _ in writer.written] == [("TouEvent", "critical", ["three-part"])]
