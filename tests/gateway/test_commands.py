"""mdh send, master, dlq and doctor, as a user calls them."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog
import uvicorn

from connectors.head_end.desk import Desk
from connectors.head_end.gateway import create_app
from connectors.head_end.publish import KeyLog, Publisher, Writer
from connectors.kafka.client import KafkaSettings
from mdh.cli import main
from mdh.commands.doctor import consumers, disk, grade, judge, machine, port_check
from schemas.topology import load_topology
from tests.brokers import read_all
from tests.gateway.conftest import FakeMaster, FakeReader

HEADER = b"device,channel,unit,seconds,start,value\n"
CSV = HEADER + b"m1,1,kWh,1800,2026-01-01T00:00:00Z,0.5\n"
PREFIX = "__connect.errors."


class DecidingReader(FakeReader):
    """Decides every payload that was asked for twice; ticks follow the clock."""

    def payloads(self, ids: Any) -> list[dict[str, Any]]:
        self.seen = getattr(self, "seen", set())
        known = [id for id in ids if id in self.seen]
        self.seen |= set(ids)
        blank = {"reads": 10, "finals": 1, "exceptions": 0, "parked": 0, "dead": 0, "reason": "", "status": "stored", "complete": True}
        return [{**blank, "id": id, **self.found.get(id, {})} for id in known]

    def history_asked(self) -> tuple[int | None, bool]:
        return None, False

    def settled_tick(self) -> int | None:
        return int(time.time())


class Served:
    """A gateway on a real port."""

    def __init__(self, kafka: KafkaSettings, folder: Path, limit: int) -> None:
        self.kafka, self.reader, self.ready = kafka, DecidingReader(), list[str]()
        self.writer = Writer(kafka, max_bytes=limit, timeout=60)
        publisher = Publisher(self.writer, "hes.reads", max_payload_bytes=limit, keys=KeyLog(folder / "keys.sqlite"))
        desk = Desk(publisher, self.reader, FakeMaster(), lambda: self.ready, quiet_seconds=0, about={"broker": kafka.bootstrap})
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.server = uvicorn.Server(uvicorn.Config(create_app(desk), log_level="warning"))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]})
        self.thread.start()

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join(120)
        self.writer.close(1)


@pytest.fixture
def served(kafka: KafkaSettings, tmp_path: Path) -> Iterator[Served]:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())  # its logs must not mix with what the command says
    running = Served(kafka, tmp_path, 10 * 1024 * 1024)
    yield running
    running.close()
    structlog.reset_defaults()


@dataclass
class Done:
    """What a command said and how it ended."""

    returncode: int
    stdout: str
    stderr: str


Mdh = Callable[..., Done]


@pytest.fixture
def mdh(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Mdh:
    """Runs the command line in this process, as its entry point does."""
    for name in list(os.environ):
        if name.startswith("MDH_"):
            monkeypatch.delenv(name)

    def run(*arguments: str | Path, folder: Path, **variables: str) -> Done:
        with monkeypatch.context() as patch:
            patch.chdir(folder)
            patch.setattr(sys, "argv", ["mdh", *map(str, arguments)])
            for name, value in variables.items():
                patch.setenv(name, value)
            capsys.readouterr()
            with pytest.raises(SystemExit) as end:
                main()
        said = capsys.readouterr()
        return Done(int(end.value.code or 0), said.out, said.err)

    return run


# --- send -------------------------------------------------------------------------------------------------------------------


def test_send_prints_ids_and_with_wait_the_counts_last(mdh: Mdh, served: Served, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(CSV)
    (tmp_path / "b.csv").write_bytes(CSV)
    done = mdh("send", "a.csv", "b.csv", "--url", served.url, "--source", "hes-1", "--zone", "Europe/Berlin", "--wait", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    *lines, last = done.stdout.splitlines()
    counts = json.loads(last)
    assert counts.pop("seconds") > 0
    assert counts == {"payloads": 2, "reads": 20, "finals": 2, "exceptions": 0, "parked": 0, "dead": 0}
    records = read_all(served.kafka, "hes.reads")
    assert [line.split() for line in lines] == [[dict(r.headers())["id"].decode(), dict(r.headers())["name"].decode()] for r in records]
    assert {(r.key(), dict(r.headers())["zone"]) for r in records} == {(b"hes-1", b"Europe/Berlin")}


def test_sending_a_file_again_is_a_payload_of_its_own(mdh: Mdh, served: Served, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(CSV)
    ids = {mdh("send", "a.csv", folder=tmp_path, MDH_URL=served.url).stdout.split()[0] for _ in range(2)}
    assert len(ids) == 2


def test_large_files_are_cut(mdh: Mdh, served: Served, tmp_path: Path) -> None:
    row = b"m1,1,kWh,1800,2026-01-01T00:00:00Z,0.5\n"
    (tmp_path / "a.csv").write_bytes(HEADER + row * (20 * 1024 * 1024 // len(row)))
    done = mdh("send", "a.csv", "--url", served.url, folder=tmp_path)
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["a.csv#1", "a.csv#2", "a.csv#3"]
    assert sum(r.value().count(b"\n") - 1 for r in read_all(served.kafka, "hes.reads")) == 20 * 1024 * 1024 // len(row)


def test_dead_letters_are_decisions_and_are_named(mdh: Mdh, served: Served, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\0nothing")
    found = served.reader.found

    class Dead(dict[str, Any]):
        def get(self, id: str, default: Any = None) -> Any:
            return {"status": "dead", "dead": 1, "reads": 0, "finals": 0, "reason": "line 1: no"}

    served.reader.found = Dead(found)
    done = mdh("send", "a.csv", "--url", served.url, "--wait", folder=tmp_path)
    assert done.returncode == 0
    assert done.stderr == "mdh: a.csv: dead letter: line 1: no\n"
    assert json.loads(done.stdout.splitlines()[-1])["dead"] == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none.csv"], "none.csv: No such file"),
        (["."], ".: Is a directory"),
        (["empty.csv"], "empty.csv: the file is empty"),
        (["a.csv", "--zone", "Mars/X"], "a.csv: zone"),
        (["a.csv", "--source", " "], "a.csv: source is empty"),
        (["large.json"], "large.json: A body may have"),
        (["a.csv", "--url", "127.0.0.1:1"], "write http://host:port"),
        (["a.csv", "--url", "http://127.0.0.1:1"], "no hub answers at http://127.0.0.1:1"),
        ([], "Missing argument"),
    ],
)
def test_what_cannot_be_sent_is_one_line_and_exit_2(mdh: Mdh, served: Served, tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "a.csv").write_bytes(CSV)
    (tmp_path / "empty.csv").touch()
    (tmp_path / "large.json").write_bytes(b'{"reads":[' + b" " * 11 * 1024 * 1024 + b"]}")
    done = mdh("send", *arguments, folder=tmp_path, MDH_URL=served.url)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("mdh: ")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr


def test_without_progress_wait_gives_up_and_tells_why(mdh: Mdh, served: Served, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(CSV)
    served.reader.payloads = lambda ids: []  # type: ignore[method-assign]
    served.ready.append("workers are gone")
    done = mdh("send", "a.csv", "--url", served.url, "--wait", "--patience", "1", folder=tmp_path)
    assert done.returncode == 2
    assert "1 payloads are still undecided; workers are gone" in done.stderr


# --- master -----------------------------------------------------------------------------------------------------------------


def test_master_tells_what_was_taken(mdh: Mdh, served: Served, tmp_path: Path) -> None:
    (tmp_path / "m.ndjson").write_text("one\ntwo\n")
    done = mdh("master", "m.ndjson", "--url", served.url, folder=tmp_path)
    assert done.returncode == 0
    assert json.loads(done.stdout) | {"seconds": 0} == {"accepted": 2, "refused": 0, "seconds": 0}
    (tmp_path / "m.ndjson").write_text("one\nbad\n")
    done = mdh("master", "m.ndjson", "--url", served.url, folder=tmp_path)
    assert done.returncode == 2
    assert json.loads(done.stdout)["refused"] == 1
    assert done.stderr.splitlines() == ["mdh: m.ndjson:2: not valid", "mdh: 1 of 2 lines were refused"]


# --- dlq --------------------------------------------------------------------------------------------------------------------


DEAD = sorted({agent.dead for agent in load_topology(Path(__file__).parents[2] / "topology.yaml").agents.values()})


@pytest.fixture
def letter(write: Callable[..., None]) -> None:
    headers = {
        "id": b"id1", "source": b"hes", "name": b"f.csv", f"{PREFIX}topic": b"hes.reads", f"{PREFIX}partition": b"0",
        f"{PREFIX}offset": b"7", f"{PREFIX}stage": b"ingest", f"{PREFIX}exception.message": b"line 1: \x1b[31mno",
    }  # fmt: skip
    for topic in DEAD:
        write(topic, b"\0body\x1b[2J" if topic == "hes.reads.dlq" else b"", headers=headers, partition=0, key=b"hes")


@pytest.mark.usefixtures("letter")
def test_letters_are_listed_shown_and_sent_again(mdh: Mdh, served: Served, tmp_path: Path) -> None:
    listed = mdh("dlq", "ls", "--url", served.url, "--json", folder=tmp_path)
    first = next(row for row in json.loads(listed.stdout) if row["ref"] == "hes.reads.dlq/0/0")
    assert (first["id"], first["source"], first["bytes"]) == ("id1", "hes", 9)
    table = mdh("dlq", "ls", "--url", served.url, folder=tmp_path)
    assert "hes.reads.dlq/0/0" in table.stdout
    assert "\x1b" not in table.stdout, "what a sender wrote must not drive the terminal"
    assert f"{len(DEAD)} dead letters wait" in table.stderr
    shown = mdh("dlq", "show", "hes.reads.dlq/0/0", "--broker", served.kafka.bootstrap, folder=tmp_path)
    assert "\\x1b[2J" in shown.stdout
    assert "\x1b" not in shown.stdout
    raw = mdh("dlq", "show", "hes.reads.dlq/0/0", "--raw", "--broker", served.kafka.bootstrap, folder=tmp_path)
    assert raw.stdout == "\0body\x1b[2J"
    again = mdh("dlq", "replay", "hes.reads.dlq/0/0", "--url", served.url, "--json", folder=tmp_path)
    assert again.returncode == 0, again.stderr
    assert [outcome["status"] for outcome in json.loads(again.stdout)] == ["sent"]
    assert [r.value() for r in read_all(served.kafka, "hes.reads")] == [b"\0body\x1b[2J"]
    assert f"{len(DEAD) - 1} dead letters wait" in mdh("dlq", "ls", "--url", served.url, folder=tmp_path).stderr
    twice = mdh("dlq", "replay", "hes.reads.dlq/0/0", "--url", served.url, folder=tmp_path)
    assert twice.returncode == 2
    assert "does not wait" in twice.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ls"], "which Kafka"),
        (["ls", "--broker", "127.0.0.1:1"], "does not answer"),
        (["ls", "--url", "http://127.0.0.1:1"], "no hub answers"),
        (["show", "x", "--broker", "127.0.0.1:1"], "names no letter"),
        (["replay", "--policy", "burn", "--broker", "127.0.0.1:1"], "--policy is stop, reinsert or drop"),
    ],
)
def test_letters_out_of_reach_are_one_line(mdh: Mdh, tmp_path: Path, arguments: list[str], words: str) -> None:
    done = mdh("dlq", *arguments, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert words in done.stderr


# --- doctor -----------------------------------------------------------------------------------------------------------------


def test_doctor_tells_what_a_machine_without_a_hub_is_like(mdh: Mdh, tmp_path: Path) -> None:
    done = mdh("doctor", "--data-dir", "nowhere", "--json", folder=tmp_path)
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert {"python", "memory", "disk", "data", "kafka jars", "topology", "hub"} <= checks.keys()
    assert checks["hub"]["state"] == "warn"
    assert "mdh up" in checks["hub"]["todo"]
    assert done.returncode == (1 if any(check["state"] == "fail" for check in checks.values()) else 0)
    assert not (tmp_path / "nowhere").exists(), "looking changes nothing"


def test_doctor_fails_where_a_hub_should_be_and_is_not(mdh: Mdh, tmp_path: Path) -> None:
    done = mdh("doctor", "--url", "http://127.0.0.1:1", folder=tmp_path)
    assert done.returncode == 1
    assert "fail  hub " in done.stdout
    assert "→" in done.stdout


def test_doctor_names_a_broken_topology(mdh: Mdh, tmp_path: Path) -> None:
    (tmp_path / "topology.yaml").write_text("name: 7\n")
    done = mdh("doctor", folder=tmp_path)
    assert done.returncode == 1
    assert "fail  topology       topology.yaml:1:" in done.stdout


def test_grades_have_three_steps() -> None:
    assert [grade(amount, 10, 5, "do")[0] for amount in (10, 9, 5, 4)] == ["ok", "warn", "warn", "fail"]
    assert grade(10, 10, 5, "do")[1] == ""


def test_the_disk_of_a_folder_that_is_not_there_is_that_of_its_parent(tmp_path: Path) -> None:
    assert str(tmp_path) in disk(tmp_path / "a" / "b").detail


def test_a_taken_port_is_a_warning() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert port_check(taken.getsockname()[1]).state == "warn"


def test_a_file_for_a_data_directory_fails(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert {check.name: check.state for check in machine(tmp_path / "file")}["data"] == "fail"


@pytest.mark.parametrize(
    ("before", "after", "state", "words"),
    [
        ({0: (5, 10)}, {0: (7, 12)}, "ok", "5 records"),
        ({0: (5, 10)}, {0: (5, 10)}, "ok", "5 records"),
        ({0: (5, 10)}, {0: (5, 12)}, "fail", "a/0 does not move"),
        ({0: (5, 10), 1: (5, 9)}, {0: (5, 12), 1: (9, 12)}, "ok", "10 records"),
        ({0: (10, 10)}, {0: (10, 10)}, "ok", "none"),
        ({0: (-1001, 10)}, {0: (-1001, 10)}, "warn", "nothing yet"),
    ],
)
def test_a_group_is_frozen_when_the_log_moves_and_it_does_not(
    before: dict[int, tuple[int, int]], after: dict[int, tuple[int, int]], state: str, words: str
) -> None:
    check = judge("x", {("a", n): v for n, v in before.items()}, {("a", n): v for n, v in after.items()})
    assert check.state == state
    assert words in check.detail


def test_consumers_are_looked_at_in_the_broker(kafka: KafkaSettings, write: Callable[..., None]) -> None:
    system = load_topology()
    for name in system.topics:
        write(name, b"", partition=0)
    checks = {check.name: check for check in consumers(system, kafka, 0.1)}
    assert {name: check.state for name, check in checks.items()} == {f"lag {crew}": "warn" for crew in ("sink", *system.crews)}
