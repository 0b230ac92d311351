"""Extracts of any size: what is held in memory does not grow with them, and they say the same in any order and in parts."""

from __future__ import annotations

import io
import json
import random
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import orjson
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from connectors.enterprise import comparison, routes
from connectors.enterprise.master import MAX_LINE
from connectors.enterprise.objects import numbered
from connectors.head_end import problems
from mdh.commands.master import app as command
from tests.master.conftest import Hub

# as bytes of UTF-8 they come in another order than as UTF-16, and letters before and behind those of other cases
IDS = ["Z", "a", "é", "ﬀ", "😀", "10", "9", "a b"]


def lines(ids: list[str], maker: str = "x") -> list[dict[str, Any]]:
    return [{"kind": "device", "id": id, "attributes": {"maker": maker, "note": "one\u2028two"}} for id in ids]


def ndjson(objects: list[dict[str, Any]]) -> bytes:
    return b"\n".join(orjson.dumps(line) for line in objects)


def told(client: TestClient, objects: list[dict[str, Any]], **params: Any) -> list[dict[str, Any]]:
    answer = client.post("/v1/master/diff", content=ndjson(objects), params=params)
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.content.split(b"\n") if line]


class Estate:
    """A hub that has devices 0 to ``many``, told one by one."""

    def __init__(self, many: int) -> None:
        self.many, self.zone, self.vault = many, "UTC", None

    def spans(self, kinds: list[str]) -> Iterator[tuple[str, str, list[tuple[int, int, dict[str, Any]]]]]:
        for kind in kinds:
            for number in range(self.many if kind == "device" else 0):
                yield kind, f"D{number:06}", [(-1, -1, {"attributes": {"maker": "old"}})]


def compared(file: IO[bytes], many: int) -> tuple[int, int]:
    """Lines of the answer, and the most memory that Python held (bytes)."""
    service: Any = Estate(many)
    desk = routes.MasterRoutes(service, SimpleNamespace())  # type: ignore[arg-type]
    tracemalloc.start()
    try:
        count = sum(piece.count(b"\n") for piece in desk.compare(file, 0, None, "", 0, apply=False))
        return count, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_an_extract(tmp_path: Path) -> None:
    peaks = {}
    for many in (300, 3_000):
        path = tmp_path / f"{many}"
        with path.open("wb") as file:  # every second device is not there, all others differ, and there are new ones
            for number in range(0, 2 * many, 2):
                line = {"kind": "device", "id": f"D{number:06}", "attributes": {"maker": "new", "note": "n" * 500}}
                file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        with path.open("rb") as file:
            count, peaks[many] = compared(file, many)
        assert count == many + many // 2 + 1  # changed or ended, added, and the counts
    assert peaks[3_000] < peaks[300] + 200_000 < 3_000 * 500


def test_a_line_without_an_end_is_not_held_and_the_next_ones_keep_their_numbers() -> None:
    good = b'{"kind":"device","id":"D1"}'
    data = io.BytesIO(b"\n".join([b"\xef\xbb\xbf" + good, b"x" * (3 * MAX_LINE), good, b"y" * (MAX_LINE + 1), b"", good]))
    seen = bytearray()
    found = list(numbered(data, seen.extend))
    assert [(number, len(line)) for number, line in found] == [
        (1, len(good)), (2, MAX_LINE + 2), (3, len(good)), (4, MAX_LINE + 1), (5, 0), (6, len(good))
    ]  # fmt: skip
    assert bytes(seen) == data.getvalue()
    desk = routes.MasterRoutes(Estate(0), SimpleNamespace())  # type: ignore[arg-type]
    data.seek(0)
    *_, summary = b"".join(desk.compare(data, 0, None, "", 0, apply=False)).splitlines()
    assert [(one["line"], one["message"]) for one in orjson.loads(summary)["errors"]] == [
        (number, f"has more bytes than the {MAX_LINE} that are allowed") for number in (2, 4)
    ]


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_an_extract_does_not_matter(hub: Hub, client: TestClient, seed: int) -> None:
    assert {one.outcome for one in hub.service.submit(lines(IDS), "m", source="cis")} == {"applied"}
    extract = lines(IDS[2:]) + lines(["new", "Ω"])
    extract[0]["attributes"]["maker"] = "other"
    random.Random(seed).shuffle(extract)
    *found, summary = told(client, extract)
    assert {name: summary[name] for name in ("added", "changed", "ended", "unchanged")} == {
        "added": 2, "changed": 1, "ended": 2, "unchanged": len(IDS) - 3
    }  # fmt: skip
    assert {(one["change"], one["id"]) for one in found} == {
        ("added", "new"), ("added", "Ω"), ("changed", IDS[2]), ("ended", IDS[0]), ("ended", IDS[1])
    }  # fmt: skip


def test_an_extract_is_applied_in_parts_as_one_message(hub: Hub, client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "AT_ONCE", 3)
    extract = lines([f"D{n}" for n in range(8)])
    extract[1]["group"] = extract[2]["group"] = extract[3]["group"] = "g"  # it is kept together: the second part begins behind it
    extract.append({"kind": "component", "id": "c", "device": "nowhere", "channel": "r"})
    *_, summary = told(client, extract, apply=True, at="2026-01-01T00:00:00Z")
    assert summary["outcomes"] == {"applied": 8, "parked": 1}
    assert [(one["id"], one["outcome"]) for one in summary["refused"]] == [("c", "parked")]
    sent = [hub.codec.decode(record.value) for record in hub.log("master.data")]
    assert [len(record["items"]) for record in sent] == [4, 3, 2]
    outcomes = client.get(f"/v1/master/messages/{summary['message']}").json()
    assert outcomes["counts"] == {"applied": 8, "parked": 1}
    assert told(client, extract[:8])[-1]["unchanged"] == 8


def test_install_events_are_applied_in_the_order_in_which_they_happened(hub: Hub, client: TestClient) -> None:
    extract: list[dict[str, Any]] = [
        {"kind": "install", "id": "3", "device": "B", "service_point": "P", "event": "install", "at": "2025-03-01T00:00:00+01:00"},
        {"kind": "install", "id": "2", "device": "A", "service_point": "P", "event": "remove", "from": "2025-02-28T23:00:00Z"},
        {"kind": "install", "id": "1", "device": "A", "service_point": "P", "event": "install", "at": "2025-01-01T00:00:00-05:00"},
        {"kind": "device", "id": "A"},
        {"kind": "device", "id": "B"},
        {"kind": "service_point", "id": "P", "zone": "Europe/Berlin"},
    ]
    assert told(client, extract, apply=True)[-1]["outcomes"] == {"applied": 6}
    items = [item for record in hub.log("master.data") for item in hub.codec.decode(record.value)["items"]]
    assert [item["object"] for item in items if item["kind"] == "install"] == ["1", "2", "3"]


def test_at_most_a_hundred_lines_that_are_not_valid_are_named(hub: Hub, client: TestClient) -> None:
    extract = [{"kind": "device", "id": ""}] * 150
    assert len(told(client, extract)[-1]["errors"]) == comparison.TOLD
    assert client.post("/v1/master/diff", params={"apply": True}, content=ndjson(extract)).status_code == 422


@pytest.fixture
def address(hub: Hub) -> Iterator[str]:
    """The doors over HTTP."""
    app = FastAPI()
    problems.install(app)
    app.include_router(routes.router(hub.routes))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        thread.join(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


def test_the_command_sends_an_extract_piece_by_piece(hub: Hub, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mdh.commands.master.PIECE", 64)
    hub.service.submit(lines(IDS, "old"), "m", source="cis")
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(ndjson(lines(IDS[:4])))
    other.write_bytes(ndjson(lines(IDS[4:])))
    runner = CliRunner()
    shown = runner.invoke(command, ["diff", str(one), "--json", "--url", address])
    assert shown.exit_code == 0, shown.output
    found = [json.loads(line) for line in shown.stdout.split("\n") if line]
    assert [found[-1][name] for name in ("added", "changed", "ended")] == [0, 4, len(IDS) - 4]
    applied = runner.invoke(command, ["load", "--apply", str(one), str(other), "--url", address])
    assert json.loads(applied.stdout.splitlines()[-1])["outcomes"] == {"applied": len(IDS)}
    listed = runner.invoke(command, ["diff", str(other), "--url", address])
    assert listed.stdout.splitlines()[-1] == f"0 added, 0 changed, 4 ended, {len(IDS) - 4} unchanged"
    (tmp_path / "empty").write_bytes(b" \n" * 100)
    assert "the file is empty" in str(runner.invoke(command, ["diff", str(tmp_path / "empty"), "--url", address]).exception)
