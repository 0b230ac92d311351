"""To-Dos through the door: real broker and store, agents between, people in front."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from connectors.clickhouse import migrate
from connectors.clickhouse.store import open_store
from connectors.head_end.outcomes import awaited
from schemas.topology import Topology, load_topology
from tests.enterprise.world import World, world
from tests.patience import PATIENCE

START = datetime(2024, 6, 3, tzinfo=UTC)


def settings() -> Topology:
    topology = load_topology(None)
    todo = topology.todo.model_copy(update={"bulk_alone": 3})
    return topology.model_copy(update={"todo": todo})


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[World]:
    store = open_store(f"chdb://{tmp_path}/store")
    migrate.up(store)
    with world(settings(), store, tmp_path) as made:
        made.tick()
        yield made
    store.close()


@contextmanager
def moving(hub: World) -> Iterator[None]:
    """Agents run while requests wait."""
    stop = threading.Event()
    failed: list[BaseException] = []

    def run() -> None:
        try:
            while not stop.wait(0.05):
                hub.move()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        if failed:
            raise failed[0]


def spikes(hub: World, *devices: str) -> list[dict[str, Any]]:
    """A day with one absurd hour for each device; the To-Dos it led to."""
    lines = ["device,channel,unit,seconds,start,value,condition"]
    for device in devices:
        values = [42 if hour == 14 else 0.5 for hour in range(24)]
        lines += [f"{device},E1,kWh,3600,{START + timedelta(hours=h):%Y-%m-%dT%H:%M:%SZ},{v},actual" for h, v in enumerate(values)]
    hub.publisher.publish("\n".join(lines).encode(), source="test", name="a.csv")
    return list(hub.until(lambda: len(found := queue(hub)) == len(devices) and found))  # the first one compiles


def queue(hub: World, **filters: Any) -> list[dict[str, Any]]:
    answer = hub.client.get("/v1/todos", params=filters)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["items"])


def post(hub: World, path: str, **body: Any) -> Any:
    return hub.client.post(f"/v1/todos{path}", json={"user": "ann", **body})


def test_a_clerk_takes_looks_previews_and_resolves(hub: World) -> None:
    (todo,) = spikes(hub, "M1")
    assert (todo["rule"], todo["device"], todo["state"], todo["count"]) == ("interval-spike", "M1", "open", 1)
    with moving(hub):
        taken = post(hub, "/next", roles=["clerk"]).json()["todo"]
        assert (taken["id"], taken["state"], taken["user"]) == (todo["id"], "working", "ann")
        assert post(hub, "/next", roles=["clerk"]).status_code == 404
        conflict = post(hub, f"/{todo['id']}/assign", user="bob", version=todo["version"])
        assert (conflict.status_code, conflict.json()["todo"]["user"]) == (409, "ann")
        looked = hub.client.get(f"/v1/todos/{todo['id']}").json()
        assert [event["action"] for event in looked["history"]] == ["created", "assigned"]
        verdicts = {row["rule"]: row["text"] for row in looked["verdicts"]}
        assert all(row["about"] for row in looked["verdicts"] if row["status"] == "quiet")
        assert verdicts["interval-spike"].startswith("Interval spike: ")
        assert verdicts["negative-consumption"] == "Negative consumption: nothing found"

        preview = post(hub, f"/{todo['id']}/resolve", action="estimate", method="interval-interpolation", dry_run=True).json()
        assert (preview["changed_intervals"], preview["complete"]) == (1, True)
        assert (preview["changes"][0]["from"]["value"], preview["changes"][0]["to"]["value"]) == ("42", "0.5")
        sums = {row["tou"]: (row["before"], row["after"]) for row in preview["determinants"]}
        assert sums == {"": ("53.5", "12"), "shoulder": ("46", "4.5"), "peak": ("3", "3"), "offpeak": ("4.5", "4.5")}
        assert queue(hub)[0]["version"] == taken["version"], "a preview changes nothing"

        done = post(hub, f"/{todo['id']}/resolve", action="accept", reason="customer called", version=taken["version"])
        assert (done.status_code, done.json()["applied"]) == (200, 1), done.text
        finished = wait(hub, todo["id"])
    assert (finished["outcome"], finished["reason"]) == ("accept", "customer called")
    assert queue(hub) == []
    assert queue(hub, state="completed", device="M1")[0]["id"] == todo["id"]


def wait(hub: World, id: str) -> dict[str, Any]:
    """The To-Do once it is completed."""

    def ask() -> dict[str, Any] | None:
        todo: dict[str, Any] = hub.client.get(f"/v1/todos/{id}").json()["todo"]
        return todo if todo["state"] == "completed" else None

    found = awaited(ask, PATIENCE)
    assert found is not None
    return found


def test_bulk_work_previewed_approved_and_undone(hub: World) -> None:
    todos = spikes(hub, *(f"M{number}" for number in range(5)))
    select = {"rule": ["interval-spike"], "state": ["open"]}
    with moving(hub):
        preview = post(hub, "/bulk", action="complete", select=select, dry_run=True).json()
        assert (preview["state"], preview["count"], preview["needs_approval"], len(preview["sample"])) == ("dry-run", 5, True, 5)
        small = post(hub, "/bulk", action="comment", ids=[todo["id"] for todo in todos[:2]], text="same feeder").json()
        assert (small["state"], small["status"], len(small["done"])) == ("ordered", "done", 2)

        asked = post(hub, "/bulk", action="complete", select=select, reason="known test")
        assert (asked.status_code, asked.json()["state"]) == (202, "waiting")
        act = asked.json()["id"]
        waiting = awaited(lambda: hub.client.get("/v1/todo-acts").json() or None, PATIENCE) or []
        assert [order["id"] for order in waiting] == [act]
        refused = hub.client.post(f"/v1/todo-acts/{act}/approve", json={"user": "ann"})
        assert (refused.status_code, refused.json()["type"].rsplit(":", 1)[1]) == (403, "four-eyes")
        assert len(queue(hub)) == 5
        approved = hub.client.post(f"/v1/todo-acts/{act}/approve", json={"user": "sue"}).json()
        assert (approved["state"], approved["status"], len(approved["done"])) == ("approved", "done", 5)
        assert queue(hub) == []
        undone = post(hub, "/undo", act=act).json()
        assert (undone["status"], len(undone["done"])) == ("done", 5)
    history = hub.client.get(f"/v1/todos/{todos[0]['id']}").json()["history"]
    assert [event["action"] for event in history][-2:] == ["completed", "undone"]
    assert "approved by sue" in history[-2]["text"]
    assert len(queue(hub)) == 5


@contextmanager
def on_loopback(hub: World) -> Iterator[str]:
    """The hub's interface on a port of this machine; its address."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=256)
    server = uvicorn.Server(uvicorn.Config(hub.client.app, log_config=None, lifespan="off"))
    thread = threading.Thread(target=lambda: server.run(sockets=[listening]), daemon=True)
    thread.start()
    assert awaited(lambda: server.started or None, PATIENCE)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(120)


def test_fifty_clerks_do_everything_once(hub: World) -> None:
    """Over sockets: no To-Do is given to two people, none is completed twice, and nobody's change is lost."""
    spikes(hub, *(f"M{number}" for number in range(61)))
    shared = queue(hub)[-1]["id"]
    taken: dict[str, str] = {}
    completed: list[str] = []
    conflicts: list[str] = []
    all_have_looked = threading.Barrier(10)

    def clerk(url: str, name: str) -> None:
        with httpx.Client(base_url=url, timeout=PATIENCE) as client:

            def post(path: str, **body: Any) -> httpx.Response:
                return client.post(f"/v1/todos{path}", json={"user": name, **body})

            while (answer := post("/next", roles=["clerk"])).status_code != 404:
                todo = answer.json()["todo"]
                assert todo["id"] not in taken
                taken[todo["id"]] = name
                for user in (name, "thief"):
                    done = client.post(f"/v1/todos/{todo['id']}/complete", json={"user": user, "version": todo["version"]})
                    (completed if done.status_code == 200 else conflicts).append(f"{todo['id']} {user}")

    def changer(url: str, name: str) -> int:
        """Reads the To-Do, changes what was read, and begins anew where somebody was quicker; how often that was."""
        with httpx.Client(base_url=url, timeout=PATIENCE) as client:
            for tries in range(1000):
                seen = client.get(f"/v1/todos/{shared}").json()["todo"]
                if tries == 0:
                    all_have_looked.wait(PATIENCE)  # so that they do meet
                body = {"user": name, "version": seen["version"], "priority": seen["priority"] % 10 + 1}
                if client.post(f"/v1/todos/{shared}/prioritise", json=body).status_code == 200:
                    return tries
        raise AssertionError(f"{name} never came through")

    with moving(hub), on_loopback(hub) as url, ThreadPoolExecutor(50) as people:
        before = hub.client.get(f"/v1/todos/{shared}").json()["todo"]
        assert hub.client.post(f"/v1/todos/{shared}/forward", json={"user": "sue", "role": "team"}).status_code == 200
        changes = [people.submit(changer, url, f"changer-{number}") for number in range(10)]
        for result in [people.submit(clerk, url, f"clerk-{number}") for number in range(50)]:
            result.result(2 * PATIENCE)
        clashes = sum(change.result(2 * PATIENCE) for change in changes)
        told = hub.client.get(f"/v1/todos/{shared}").json()
    assert len(taken) == 60
    assert sorted(completed) == sorted(f"{id} {name}" for id, name in taken.items())
    assert len(conflicts) == 60
    steps = [event for event in told["history"] if event["action"] == "prioritised"]
    assert sorted(event["user"] for event in steps) == sorted(f"changer-{number}" for number in range(10)), "each change once"
    assert told["todo"]["priority"] == (before["priority"] - 1 + 10) % 10 + 1, "each change stands on the one before"
    assert [event["version"] for event in told["history"]] == list(range(1, told["todo"]["version"] + 1))
    assert clashes > 0, "nobody met anybody: this proves nothing"
    assert [todo["id"] for todo in queue(hub)] == [shared]


def test_lists_pages_groups_and_figures(hub: World) -> None:
    spikes(hub, *(f"M{number}" for number in range(7)))
    for sort in ("priority", "oldest", "newest", "due", "count"):
        seen, cursor = [], None
        while True:
            page = hub.client.get("/v1/todos", params={"limit": 3, "sort": sort} | ({"cursor": cursor} if cursor else {})).json()
            seen += [todo["id"] for todo in page["items"]]
            cursor = page["next"]
            if cursor is None:
                break
        assert len(seen) == len(set(seen)) == 7
    groups = hub.client.get("/v1/todos/groups", params={"by": "rule", "severity": "issue"}).json()
    assert [(group["value"], group["todos"]) for group in groups] == [("interval-spike", 7)]
    stats = hub.client.get("/v1/todos/stats").json()
    assert (stats["all"]["todos"], stats["all"]["fresh"], stats["types"][0]["type"]) == (7, 7, "validation")
    assert [(row["role"], row["open"]) for row in stats["roles"]] == [("clerk", 7)]
    assert stats["users"] == []
    assert {kind["id"] for kind in hub.client.get("/v1/todos/types").json()} >= {"validation", "silent-meter"}
    assert hub.client.get("/v1/todos", params={"cursor": "x"}).status_code == 422
    assert hub.client.get("/v1/todos/nonsense").status_code == 404


def test_raised_by_hand_once_per_key(hub: World) -> None:
    body = {"type": "validation", "subject": "feeder 7", "detail": "looks odd", "user": "ann", "priority": 9}
    with moving(hub):
        first, again = (hub.client.post("/v1/todos", json=body, headers={"Idempotency-Key": "k"}) for _ in range(2))
        assert first.status_code == again.status_code == 201
        (id_,) = first.json()["done"]
        assert again.json()["done"] == [id_]
        todo = hub.todo.todos.after(id_, first.json()["id"])
    assert (todo["subject"], todo["priority"], todo["count"]) == ("feeder 7", 9, 1)
    assert hub.client.post("/v1/todos", json=body | {"type": "nonsense"}).status_code == 422
