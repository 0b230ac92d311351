"""What the gateway answers besides taking reads: results in pages, SQL, waiting, master data, health, documents."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from connectors.clickhouse.store import StoreError
from connectors.head_end.listing import DETERMINANTS, EXCEPTIONS, INTERVALS, Listing, after_cursor, cursor_of, page_query
from mdh.commands.hub import openapi_text
from tests.gateway.conftest import Door
from tests.gateway.test_reads import is_problem

ROOT = Path(__file__).resolve().parents[2]


def row(device: str, second: int) -> dict[str, Any]:
    start = datetime.fromtimestamp(second, UTC)
    return {
        "rule": "interval-spike", "severity": "issue", "device": device, "channel": "1", "start": start,
        "end": start + timedelta(minutes=30),
        "status": "open", "detail": "d", "id": f"id-{device}",
    }  # fmt: skip


# --- pages ------------------------------------------------------------------------------------------------------------------


def test_a_page_has_iso_times_and_a_cursor_only_where_more_follows(door: Door) -> None:
    door.reader.answer = [row("a", 1_767_225_600), row("b", 1_767_225_600), row("c", 1_767_229_200)]
    page = door.client.get("/v1/exceptions", params={"limit": 2}).json()
    assert [item["device"] for item in page["items"]] == ["a", "b"]
    assert page["items"][0]["start"] == "2026-01-01T00:00:00Z"
    door.reader.answer = [row("c", 1_767_229_200)]
    last = door.client.get("/v1/exceptions", params={"limit": 2, "cursor": page["next"]}).json()
    assert last["next"] is None
    sql, parameters = door.reader.asked[-1]
    assert "(start, device, channel, rule, id) > (" in sql
    assert parameters["after_start"] == "2026-01-01 00:00:00"
    assert parameters["after_device"] == "b"


@pytest.mark.parametrize(("listing", "table"), [(DETERMINANTS, "bill_determinants"), (INTERVALS, "final_days")])
def test_pages_are_in_an_order_that_tells_all_rows_apart(listing: Listing, table: str) -> None:
    text = (ROOT / "connectors" / "clickhouse" / "migrations" / "0001_tables.sql").read_text()
    key = re.search(rf"TABLE IF NOT EXISTS {table} .*?ORDER BY \((.*?)\)", text, re.DOTALL)
    assert key is not None
    identity = set(key[1].split(", ")) - {"version", "id", "day"}  # a view shows the newest version only, and the days of its rows
    assert identity <= listing.order.keys()


def test_filters_are_parameters_and_never_sql(door: Door) -> None:
    evil = "x' OR 1=1; DROP TABLE final_days --"
    response = door.client.get(
        "/v1/exceptions", params={"device": evil, "rule": "zero-consumption", "from": "2026-01-01T01:00:00+01:00", "to": "2026-02-01"}
    )
    assert response.status_code == 200
    sql, parameters = door.reader.asked[-1]
    assert "DROP" not in sql
    assert parameters == {"device": evil, "rule": "zero-consumption", "since": "2026-01-01 00:00:00", "until": "2026-02-01 00:00:00"}


def test_determinants_and_intervals_take_their_filters(door: Door) -> None:
    door.client.get("/v1/determinants", params={"account": "A1", "kind": "interval-consumption", "status": "held"})
    assert door.reader.asked[-1][1] == {"account": "A1", "kind": "interval-consumption", "status": "held"}
    door.client.get("/v1/intervals", params={"device": "m1", "from": "2026-01-01"})
    sql, parameters = door.reader.asked[-1]
    assert "start >= {since" in sql, "an interval that began before is not asked for"
    assert parameters == {"device": "m1", "since": "2026-01-01 00:00:00"}
    is_problem(door.client.get("/v1/intervals"), 422, "not-valid")


@pytest.mark.parametrize(
    "params", [{"limit": 0}, {"limit": 100_000}, {"from": "yesterday"}, {"cursor": "!!"}, {"cursor": "WzFd"}, {"device": "x" * 300}]
)
def test_questions_that_cannot_be_are_problems(door: Door, params: dict[str, Any]) -> None:
    problem = is_problem(door.client.get("/v1/exceptions", params=params), 422, "not-valid")
    assert next(iter(params)) in problem["detail"]


def test_cursors_come_back_whatever_is_in_them() -> None:
    values = ["2026-01-01 00:00:00", "dé'vice\0", "", "{x:String}", "id"]
    assert after_cursor(cursor_of(values), 5) == values
    _, parameters = page_query(EXCEPTIONS, {}, None, None, cursor_of(values), 5)
    assert parameters["after_channel"] == ""


def test_a_store_that_is_away_is_503_and_one_that_refuses_is_500_without_its_words(door: Door) -> None:
    def away(*_: Any) -> Any:
        raise StoreError("connection refused")

    def refuses(*_: Any) -> Any:
        raise StoreError("Unknown identifier secret_column", 47)

    door.reader.rows = away  # type: ignore[method-assign]
    is_problem(door.client.get("/v1/exceptions"), 503, "store-away")
    door.reader.rows = refuses  # type: ignore[method-assign]
    assert "secret" not in is_problem(door.client.get("/v1/exceptions"), 500)["detail"]


# --- SQL --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [{"content": b"SELECT 1"}, {"json": {"sql": "SELECT 1"}}])
def test_sql_streams_ndjson(door: Door, body: dict[str, Any]) -> None:
    response = door.client.post("/v1/sql", **body)
    assert response.headers["content-type"].startswith("application/x-ndjson")
    assert [json.loads(line) for line in response.text.splitlines()] == [{"one": 1}, {"two": 2}]


def test_refused_sql_is_a_problem_in_the_engines_words(door: Door) -> None:
    problem = is_problem(door.client.post("/v1/sql", content=b"SELECT secret"), 422, "query-refused")
    assert problem["detail"] == "not allowed here"


@pytest.mark.parametrize("body", [{"content": b""}, {"content": b"\xff"}, {"json": {"query": "x"}}, {"json": ["x"]}, {"json": {"sql": 1}}])
def test_bodies_without_sql_are_problems(door: Door, body: dict[str, Any]) -> None:
    is_problem(door.client.post("/v1/sql", **body), 422, "not-valid")


# --- waiting ----------------------------------------------------------------------------------------------------------------


def payload(id: str, status: str, **figures: Any) -> dict[str, Any]:
    blank = {"reads": 0, "finals": 0, "exceptions": 0, "parked": 0, "dead": 0, "reason": ""}
    return {"id": id, "status": status, "complete": status in ("stored", "dead", "duplicate"), **blank, **figures}


def test_settle_sums_what_is_complete_and_names_what_waits(door: Door) -> None:
    door.reader.tick = 123
    door.reader.found = {
        "a": payload("a", "stored", reads=5, finals=2),
        "b": payload("b", "dead", dead=1, reason="no"),
        "c": payload("c", "decoded", reads=9),
        "e": payload("e", "stored", reads=1, dead=2, reason="2 parts"),
    }
    began = datetime.now(UTC).timestamp()
    answer = door.client.post("/v1/settle", json={"ids": ["a", "b", "c", "d", "e", "a"]}).json()
    assert (answer["complete"], answer["waiting"], answer["waiting_ids"]) == (3, 2, ["c", "d"])
    assert answer["counts"] == {"payloads": 3, "rows": 0, "reads": 6, "finals": 2, "exceptions": 0, "parked": 0, "dead": 3}
    assert sorted((it["id"], it["reason"], it["whole"]) for it in answer["dead"]) == [("b", "no", True), ("e", "2 parts", False)]
    assert answer["settled_tick"] == 123
    assert began - 1 < answer["now"] <= datetime.now(UTC).timestamp() + 1


def test_settle_waits_until_all_is_complete(door: Door) -> None:
    asked: list[int] = []

    def later(ids: list[str]) -> list[dict[str, Any]]:
        asked.append(1)
        return [payload("a", "stored")] if len(asked) > 2 else []

    door.reader.payloads = later  # type: ignore[method-assign]
    assert door.client.post("/v1/settle", json={"ids": ["a"], "wait": 10}).json()["complete"] == 1
    assert len(asked) == 3
    door.reader.payloads = lambda ids: []  # type: ignore[method-assign]
    assert door.client.post("/v1/settle", json={"ids": ["a"], "wait": 0.3}).json()["waiting"] == 1


def test_settle_has_bounds(door: Door) -> None:
    is_problem(door.client.post("/v1/settle", json={"ids": ["x"] * 10_001}), 422, "not-valid")
    is_problem(door.client.post("/v1/settle", json={"ids": [], "wait": 3600}), 422, "not-valid")
    is_problem(door.client.post("/v1/settle", content=b"{"), 422, "not-valid")


def test_a_payload_is_found_or_a_404(door: Door) -> None:
    door.reader.found = {"a": payload("a", "stored", reads=5)}
    assert door.client.get("/v1/payloads/a").json()["reads"] == 5
    is_problem(door.client.get("/v1/payloads/b"), 404, "not-found")


# --- master data ------------------------------------------------------------------------------------------------------------


def test_master_data_is_taken_line_by_line(door: Door) -> None:
    assert door.client.post("/v1/master", content=b"a\nb").json()["accepted"] == 2
    partly = door.client.post("/v1/master", content=b"a\nbad")
    assert partly.status_code == 207
    assert partly.json()["errors"] == [{"line": 2, "message": "not valid"}]
    problem = is_problem(door.client.post("/v1/master", content=b"bad\nbad"), 422, "not-valid")
    assert problem["refused"] == 2
    assert problem["detail"].startswith("line 1:")
    is_problem(door.client.post("/v1/master", content=b" \n"), 422, "not-valid")


# --- operations and documents -----------------------------------------------------------------------------------------------


def test_ready_gives_its_reasons(door: Door) -> None:
    assert door.client.get("/health/live").json()["status"] == "live"
    assert door.client.get("/health/ready").status_code == 200
    door.reasons.append("no broker")
    response = door.client.get("/health/ready")
    assert response.status_code == 503
    assert response.json() == {"status": "not ready", "reasons": ["no broker"]}


def test_unknown_paths_and_methods_are_problems_too(door: Door) -> None:
    is_problem(door.client.get("/v1/nothing"), 404)
    is_problem(door.client.delete("/v1/reads"), 405)


def test_a_crash_is_a_problem_without_its_words(door: Door) -> None:
    def crash(*_: Any) -> Any:
        raise RuntimeError("secret")

    door.reader.rows = crash  # type: ignore[method-assign]
    assert "secret" not in str(is_problem(door.client.get("/v1/exceptions"), 500))


def test_metrics_count_requests_by_route_and_not_by_what_was_asked_for(door: Door) -> None:
    door.client.get("/v1/payloads/some-secret-id")
    door.client.get("/v1/made-up-by-a-client")
    text = door.client.get("/metrics").text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    routes = {sample.labels["route"] for sample in families["mdh_http_requests"].samples}
    assert "/v1/payloads/{id}" in routes
    assert "secret" not in text
    assert "made-up" not in text


def test_the_documentation_page_needs_no_network(door: Door) -> None:
    page = door.client.get("/docs").text
    assert "http://" not in page.replace("http://testserver", "")
    assert "https://" not in page
    for path in ("/assets/docs/swagger-ui-bundle.js", "/assets/docs/swagger-ui.css", "/openapi.json"):
        assert path in page
        assert door.client.get(path).status_code == 200


def test_the_committed_openapi_document_is_the_current_one() -> None:
    committed = json.loads((ROOT / "docs" / "openapi.json").read_text())
    assert committed == json.loads(openapi_text()), "run: mdh hub --openapi > docs/openapi.json"


def test_every_route_documents_its_errors_as_problems() -> None:
    document = json.loads(openapi_text())
    assert "HTTPValidationError" not in json.dumps(document)
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for status, answer in operation["responses"].items():
                if status.startswith(("4", "5")) and path != "/health/ready":
                    spoken = "text/xml" if path.startswith("/v1/sap/") and status == "400" else "application/problem+json"  # a SOAP fault
                    assert list(answer["content"]) == [spoken], f"{method} {path} {status}"
