"""The HTTP door of subscribers, with its refusals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi import FastAPI
from fastapi.testclient import TestClient

from connectors.head_end import problems
from connectors.subscribers.routes import Door, routes
from tests.subscribers.kit import Bench, determinant, eventually, receiver


class Rows:
    """Answers of the store, and what was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.answer: list[dict[str, Any]] = []

    def rows(self, sql: str, parameters: Any) -> list[dict[str, Any]]:
        self.asked.append((sql, parameters))
        return self.answer


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, Bench, Rows]]:
    bench, rows = Bench(tmp_path_factory.mktemp("door")), Rows()
    app = FastAPI()
    problems.install(app)
    app.include_router(routes(Door(bench.service, rows)))  # type: ignore[arg-type]
    with TestClient(app) as client:
        yield client, bench, rows
    bench.close()


def spec(url: str, **more: Any) -> dict[str, Any]:
    return {"objects": ["determinants"], "channel": {"kind": "webhook", "url": url, "secrets": ["key"]}, "start": "earliest", **more}


def joined(client: TestClient, id: str) -> None:
    """Waits until its worker has its partitions: the mock forgets a group whose member leaves while it joins."""

    def has() -> bool:
        found = client.get(f"/v1/subscribers/{id}").json()
        return bool(found["delivery"].get("partitions")) and found["delivery"]["version"] == found["version"]

    eventually(has)


def test_the_life_of_a_subscriber(door: tuple[TestClient, Bench, Rows]) -> None:
    client, bench, rows = door
    with receiver() as to:
        made = client.post("/v1/subscribers?user=anna", json={**spec(to.url), "id": "crm"})
        assert made.status_code == 201, made.text
        assert made.headers["etag"] == '"1"'
        assert made.json()["group"] == "mdh.subscriber.crm"
        bench.write("billing.determinants", "Determinant", [determinant(1)])
        eventually(lambda: to.ids == ["d00001-1"])
        state = client.get("/v1/subscribers/crm").json()["delivery"]
        assert (state["state"], state["circuit"], state["delivered"]) == ("running", "closed", 1)
        tested = client.post("/v1/subscribers/crm/test").json()
        assert (tested["object"], tested["code"]) == ("determinants", 204)
        assert b'"test":true' in to.requests[-1].body
        assert client.post("/v1/subscribers", json={**spec(to.url), "id": "crm"}).status_code == 409
        assert client.put("/v1/subscribers/crm", json=spec(to.url, about="x"), headers={"If-Match": '"7"'}).status_code == 412
        assert client.put("/v1/subscribers/crm", json=spec(to.url, about="x"), headers={"If-Match": '"1"'}).json()["version"] == 2
        joined(client, "crm")
        assert client.post("/v1/subscribers/crm/pause", json={"reason": "maintenance"}).json()["status"] == "paused"
        assert client.post("/v1/subscribers/crm/resume").json()["status"] == "active"
        joined(client, "crm")
        replayed = client.post("/v1/subscribers/crm/replay", json={"from": "earliest"})
        assert (replayed.status_code, replayed.json()["position"]["from"]) == (202, "earliest")
        eventually(lambda: len([r for r in to.taken if b'"test":false' in r.body]) == 2)
        rows.answer = [{"at": "x", "id": "1", "status": "sent"}]
        assert client.get("/v1/subscribers/crm/deliveries?status=sent&limit=1").json()["items"][0]["status"] == "sent"
        assert rows.asked[-1][1] == {"subscriber": "crm", "status": "sent"}
        history = client.get("/v1/subscribers/crm/history").json()["items"]
        assert [change["action"] for change in history] == ["create", "change", "pause", "resume", "replay"]
        assert (history[0]["actor"], history[2]["reason"]) == ("anna", "maintenance")
        joined(client, "crm")
        assert client.delete("/v1/subscribers/crm").json()["status"] == "ended"
        assert client.get("/v1/subscribers/crm").status_code == 404
        assert "crm" not in {one["id"] for one in client.get("/v1/subscribers").json()["items"]}
        assert "crm" in {one["id"] for one in client.get("/v1/subscribers?ended=true").json()["items"]}
        again = client.post("/v1/subscribers", json={**spec(to.url), "id": "crm"}).json()
        assert again["version"] == 7, "a new life goes on counting"
        joined(client, "crm")
        client.delete("/v1/subscribers/crm")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"id": "../x"}, "id"),
        ({"objects": ["nonsense"]}, "objects"),
        ({"filter": {"region": ["nowhere"], "planet": ["x"]}}, "filter"),
        ({"channel": {"kind": "webhook", "url": "http://10.0.0.7/in", "secrets": ["key"]}}, "not public"),
        ({"channel": {"kind": "webhook", "url": "https://169.254.169.254/latest/meta-data", "secrets": ["key"]}}, "not public"),
        ({"channel": {"kind": "webhook", "url": "file:///etc/passwd", "secrets": ["key"]}}, "https"),
        ({"channel": {"kind": "webhook", "url": "https://x.example", "secrets": ["unknown"]}}, "no secret unknown"),
        ({"channel": {"kind": "kafka", "topic": "vee.inbox"}}, "names delivery as a writer"),
        ({"channel": {"kind": "file", "folder": "/etc"}}, "outbox"),
        ({"start": "soon"}, "start"),
    ],
)
def test_what_cannot_be_delivered_is_refused_with_the_reason(
    door: tuple[TestClient, Bench, Rows], change: dict[str, Any], what: str
) -> None:
    answer = door[0].post("/v1/subscribers", json={"id": "bad", **spec("https://x.example/in"), **change})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert what in answer.json()["detail"]
    assert door[1].registry.get("bad") is None


def test_replays_need_a_place_that_there_is(door: tuple[TestClient, Bench, Rows]) -> None:
    client = door[0]
    made = client.post("/v1/subscribers", json={"id": "direct", "objects": ["audit"], "channel": {"kind": "kafka"}})
    assert made.status_code == 201
    for body in (
        {},
        {"from": "now"},
        {"from": "2999-01-01"},
        {"from": "x"},
        {"offsets": {"vee.inbox/0": 1}},
        {"offsets": {"audit.events/0": -1}},
    ):
        assert client.post("/v1/subscribers/direct/replay", json=body).status_code == 422, body
    assert client.post("/v1/subscribers/nobody/replay", json={"from": "earliest"}).status_code == 404
    assert client.post("/v1/subscribers/direct/test").status_code == 422


def test_a_test_that_fails_says_why(door: tuple[TestClient, Bench, Rows]) -> None:
    client = door[0]
    with receiver(lambda _: (418, {}, b"no")) as to:
        client.post("/v1/subscribers", json={**spec(to.url), "id": "pot", "filter": {"account": ["none"]}})
        answer = client.post("/v1/subscribers/pot/test", json={"object": "determinants"})
        assert (answer.status_code, answer.json()["detail"], answer.json()["code"]) == (502, "answered 418: no", 418)
        assert client.post("/v1/subscribers/pot/test", json={"object": "audit"}).status_code == 422


def test_objects_can_be_browsed(door: tuple[TestClient, Bench, Rows]) -> None:
    client = door[0]
    names = {one["name"] for one in client.get("/v1/objects").json()["items"]}
    assert {"final-intervals", "determinants", "exceptions", "audit"} <= names
    found = client.get("/v1/objects/determinants").json()
    assert found["sample"]["unit"] == "kWh"
    assert client.get("/v1/objects/determinants/schema").headers["content-type"] == "application/schema+json"
    assert client.get("/v1/objects/nothing").status_code == 404
    assert yaml.safe_load(client.get("/v1/asyncapi").text)["asyncapi"] == "3.0.0"


def test_nothing_of_a_secret_is_shown(door: tuple[TestClient, Bench, Rows], tmp_path: Path) -> None:
    from tests.subscribers.kit import SECRET

    text = door[0].get("/v1/subscribers?ended=true").text + door[0].get("/v1/subscribers/pot/history").text
    assert SECRET not in text
