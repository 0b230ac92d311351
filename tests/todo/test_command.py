"""``mdh todos`` against a hub over HTTP, with agents behind it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from connectors.clickhouse import migrate
from connectors.clickhouse.store import open_store
from mdh.cli import main
from tests.enterprise.world import World, world
from tests.prepaid.hub import served
from tests.todo.test_door import moving, settings, spikes

Run = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("todos")
    store = open_store(f"chdb://{folder}/store")
    migrate.up(store)
    with world(settings(), store, Path(folder)) as made:
        made.tick()
        spikes(made, "M1", "M2", "M3", "M4", "M5")
        with served(made) as url, pytest.MonkeyPatch.context() as patch, moving(made):  # type: ignore[arg-type]
            patch.setenv("MDH_URL", url)
            yield made
    store.close()


@pytest.fixture
def run(hub: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    def told(*words: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["mdh", "todos", *words])
        with pytest.raises(SystemExit) as stop:
            main()
        said = capsys.readouterr()
        return int(stop.value.code or 0), said.out if not stop.value.code else said.err

    return told


def one(run: Run, device: str) -> dict[str, Any]:
    [found] = json.loads(run("ls", "--device", device, "--state", "open", "--state", "working", "--state", "completed", "--json")[1])
    return dict(found)


def test_the_queue_is_listed_and_filtered(run: Run) -> None:
    status, said = run("ls")
    assert (status, [device for device in ("M1", "M2", "M3", "M4", "M5") if device in said]) == (0, ["M1", "M2", "M3", "M4", "M5"])
    assert len(json.loads(run("ls", "--rule", "interval-spike", "--sort", "oldest", "--max", "3", "--json")[1])) == 3
    assert "nothing to do" in run("ls", "--device", "nobody")[1]
    assert run("ls", "--sort", "colour")[0] == 2


def test_one_is_taken_shown_given_away_and_completed(run: Run) -> None:
    todo = one(run, "M1")
    assert "1 changed" in run("assign", todo["id"], "--to", "bob", "--version", str(todo["version"]), "--user", "ann")[1]
    status, said = run("assign", todo["id"], "--to", "cid", "--version", str(todo["version"]), "--user", "ann")
    assert (status, "before you" in said, said.count("\n")) == (2, True, 1)
    shown = json.loads(run("show", todo["id"])[1])
    assert (shown["todo"]["user"], [event["action"] for event in shown["history"]]) == ("bob", ["created", "assigned"])
    assert "1 changed" in run("complete", todo["id"], "--reason", "customer called", "--user", "bob")[1]
    assert run("show", "no-such-todo")[0] == 2


def test_next_takes_the_most_urgent_of_a_role(run: Run) -> None:
    taken = json.loads(run("next", "--role", "clerk", "--user", "eve")[1])
    assert (taken["state"], taken["user"]) == ("working", "eve")
    assert run("next", "--role", "no-such-role", "--user", "eve")[0] == 2
    assert run("next")[0] == 2


def test_bulk_is_counted_done_and_undone(run: Run) -> None:
    words = ("bulk", "assign", "--device", "M4", "--device", "M5", "--to", "zoe", "--user", "ann")
    assert json.loads(run(*words, "--dry-run")[1])["count"] == 2
    done = json.loads(run(*words)[1])
    assert (done["state"], len(done["done"])) == ("ordered", 2)
    assert one(run, "M4")["user"] == "zoe"
    assert "2 changed" in run("undo", done["id"], "--user", "ann")[1]
    assert one(run, "M4")["user"] == ""
    assert run("bulk", "assign", "--to", "zoe")[0] == 2
    large = json.loads(run("bulk", "comment", "--rule", "interval-spike", "--text", "storm", "--user", "ann")[1])
    assert large["state"] == "waiting", "above the limit a second person is needed"


def test_stats_count(run: Run) -> None:
    found = json.loads(run("stats", "--json")[1])
    assert found["all"]["todos"] == 4
    assert "all" in run("stats")[1]
