"""The same store over HTTP: clickhouse-connect's HTTP client against the real engine behind a few lines of ClickHouse's HTTP protocol.

What only a server has (users, replicas, ON CLUSTER) is tested where a container engine is; here it is the path of bytes.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import chdb
import pytest

from connectors.clickhouse import migrate
from connectors.clickhouse.query import Limits, SqlError, run_readonly, settled
from connectors.clickhouse.sink import positions
from connectors.clickhouse.store import Store, StoreError, open_store
from connectors.clickhouse.tables import TABLES, VIEWS
from tests.store.test_migrations import columns
from tests.store.test_sink import contents, feed, make_sink, whole_log

NOT_SETTINGS = {
    "query", "database", "client_protocol_version", "wait_end_of_query", "session_id", "query_id", "compress", "buffer_size",
    "http_headers_progress_interval_ms", "send_progress_in_http_headers", "enable_http_compression",
    "cancel_http_readonly_queries_on_client_close",
}  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    """One request, one connection to the engine, as a server gives each query a context of its own."""

    protocol_version = "HTTP/1.1"
    folder: Path
    users: list[tuple[str, str]]

    def do_GET(self) -> None:
        self.answer(b"Ok.\n" if urlsplit(self.path).path == "/ping" else b"")

    def do_POST(self) -> None:
        asked = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        body = self.body()
        self.users.append((self.headers.get("Authorization", ""), asked.get("database", "")))
        params = {name[6:]: value for name, value in asked.items() if name.startswith("param_")}
        settings = {k: v for k, v in asked.items() if k not in NOT_SETTINGS and not k.startswith("param_")}
        connection = chdb.connect(str(self.folder / "engine"))
        try:
            if asked.get("database", "default") != "default":
                connection.query(f"USE `{asked['database']}`", "TabSeparated")
            for name in sorted(settings, key=lambda name: name == "readonly"):
                connection.query(f"SET {name} = '{settings[name]}'", "TabSeparated")
            self.answer(self.run(connection, asked.get("query", ""), body, params), format="TabSeparated")
        except Exception as error:
            text = str(error)
            text = text[text.find("Code: ") :] if "Code: " in text else text
            code = text.partition("Code: ")[2].partition(".")[0]
            self.answer(text.encode(), 500, code=code)
        finally:
            connection.close()

    def run(self, connection: Any, query: str, body: bytes, params: dict[str, str]) -> bytes:
        if query and body:
            path = self.folder / f"body-{threading.get_ident()}"
            path.write_bytes(body)
            head, _, format = query.rpartition("FORMAT")
            return bytes(connection.query(f"{head} FROM INFILE '{path}' FORMAT {format}", "TabSeparated").bytes() or b"")
        return bytes(connection.query(query or body.decode(), "TabSeparated", params=params).bytes() or b"")

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def answer(self, body: bytes, status: int = 200, code: str = "", format: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (("X-ClickHouse-Exception-Code", code), ("X-ClickHouse-Format", format)):
            if value:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ThreadingHTTPServer]:
    keeper = chdb.connect(str(tmp_path / "engine"))  # without it the engine would end with each request
    handler = type("Bound", (Handler,), {"folder": tmp_path, "users": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        yield web
        web.shutdown()
        thread.join()
    keeper.close()


@pytest.fixture
def store(server: ThreadingHTTPServer) -> Iterator[Store]:
    opened = open_store(f"clickhouse://user:p%40ss@127.0.0.1:{server.server_port}/meters")
    yield opened
    opened.close()


def test_the_same_code_over_http(store: Store, server: ThreadingHTTPServer) -> None:
    migrate.up(store)
    assert migrate.up(store) == []
    assert columns(store) == TABLES | VIEWS
    for _ in range(2):
        feed(make_sink(store), whole_log().messages)
    assert len(contents(store)["intervals"]) == 96
    assert positions(store, "mdh.sink") == whole_log().ends
    assert settled(store, ["p1"])["p1"]["status"] == "stored"
    rows = [json.loads(line) for line in b"".join(run_readonly(store, "SELECT sum(value) AS s FROM intervals")).splitlines()]
    assert rows == [{"s": "0.09624"}]
    users = server.RequestHandlerClass.users  # type: ignore[attr-defined]
    assert {database for _, database in users} == {"", "default", "meters"}  # the database is made before it is used
    assert all(login.startswith("Basic ") for login, _ in users)


def test_foreign_sql_over_http_is_read_only(store: Store) -> None:
    migrate.up(store)
    for sql in ("DROP TABLE final_days", "SELECT 1 SETTINGS readonly = 0", "SELECT file('/etc/passwd')"):
        with pytest.raises(SqlError):
            run_readonly(store, sql)
    for sql in ("DROP TABLE final_days", "INSERT INTO receipts (id) SELECT 'x'", "SELECT 1 SETTINGS readonly = 0"):
        with pytest.raises(StoreError, match="readonly"):
            store.query_json(sql, Limits())
    with pytest.raises(SqlError, match="more than 5 rows"):
        run_readonly(store, "SELECT number FROM numbers(6)", Limits(rows=5))
    assert columns(store) == TABLES | VIEWS


@pytest.mark.parametrize("place", ["127.0.0.1:1", "nowhere.invalid"])
def test_a_server_that_does_not_answer_is_away(place: str) -> None:
    store = open_store(f"clickhouse://user:p%40ss@{place}/meters")
    with pytest.raises(StoreError) as error:
        store.query_arrow("SELECT 1")
    assert error.value.away
    assert "p@ss" not in str(error.value)
    assert "\n" not in str(error.value)


def test_an_error_of_the_engine_has_its_code(store: Store) -> None:
    migrate.up(store)
    with pytest.raises(StoreError, match="nowhere") as error:
        store.query_arrow("SELECT * FROM nowhere")
    assert error.value.code == 60
    assert not error.value.away


@pytest.mark.docker
def test_the_same_code_on_a_server_in_a_container() -> None:
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.wait_strategies import HttpWaitStrategy

    container = DockerContainer("clickhouse/clickhouse-server:26.9").with_exposed_ports(8123)
    container = container.with_env("CLICKHOUSE_USER", "hub").with_env("CLICKHOUSE_PASSWORD", "hush")
    with container.waiting_for(HttpWaitStrategy(8123, "/ping")) as running:
        store = open_store(f"clickhouse://hub:hush@{running.get_container_host_ip()}:{running.get_exposed_port(8123)}/meters")
        migrate.up(store)
        assert columns(store) == TABLES | VIEWS
        for _ in range(2):
            feed(make_sink(store), whole_log().messages)
        assert len(contents(store)["intervals"]) == 96
        with pytest.raises(SqlError):
            run_readonly(store, "SELECT * FROM url('http://127.0.0.1:9/', 'CSV', 'a String')")
        store.close()
