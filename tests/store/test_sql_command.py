"""``mdh sql``: what it asks, what it prints, how it fails."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

ROWS = b'{"device":"M1","value":"1.5"}\n{"device":"M\xc3\xbc","value":null}\n'


@pytest.fixture
def hub() -> Iterator[dict[str, Any]]:
    """A hub that answers as told and keeps what it was asked."""
    told: dict[str, Any] = {"status": 200, "body": ROWS, "asked": []}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told["asked"].append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(told["status"])
            self.send_header("Content-Length", str(told.get("length", len(told["body"]))))
            self.end_headers()
            self.wfile.write(told["body"])

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        told["url"] = f"http://127.0.0.1:{web.server_port}"
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        yield told
        web.shutdown()
        thread.join()


def run(*arguments: str, text: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", "mdh", "sql", *arguments], input=text, capture_output=True, timeout=300, check=False)


def test_rows_are_printed_as_they_come(hub: dict[str, Any]) -> None:
    done = run("SELECT 1", "--url", hub["url"] + "/")
    assert (done.returncode, done.stdout, done.stderr) == (0, ROWS, b"")
    assert hub["asked"] == [("/v1/sql", {"sql": "SELECT 1"})]


def test_the_hub_is_found_like_for_every_other_command(hub: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MDH_URL", hub["url"])
    assert run("SELECT 3").stdout == ROWS
    assert hub["asked"] == [("/v1/sql", {"sql": "SELECT 3"})]


def test_the_query_may_come_from_stdin(hub: dict[str, Any]) -> None:
    assert run("-", "--url", hub["url"], text=b"SELECT\n2").stdout == ROWS
    assert hub["asked"] == [("/v1/sql", {"sql": "SELECT\n2"})]


def test_a_refused_query_is_one_line_and_status_2(hub: dict[str, Any]) -> None:
    hub.update(status=422, body=json.dumps({"title": "refused", "detail": "one statement\nat a time"}).encode())
    done = run("SELECT 1; SELECT 2", "--url", hub["url"])
    assert (done.returncode, done.stdout, done.stderr) == (2, b"", b"mdh: one statement at a time\n")
    hub.update(status=502, body=b"<html>bad gateway</html>")
    assert run("SELECT 1", "--url", hub["url"]).stderr == b"mdh: the hub answered 502\n"


def test_an_answer_cut_off_is_no_success(hub: dict[str, Any]) -> None:
    hub["length"] = len(ROWS) + 100
    done = run("SELECT 1", "--url", hub["url"])
    assert done.returncode == 2
    assert done.stderr.startswith(b"mdh: the hub at")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("SELECT 1", "--url", "http://127.0.0.1:1"), "mdh up"),
        (("SELECT 1", "--url", "nonsense"), "http://host:port"),
        (("SELECT 1", "--url", "http://[bad"), "--url"),
        (("  ",), "empty"),
        ((), "query"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments: tuple[str, ...], says: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert says in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1
    assert done.stdout == b""
