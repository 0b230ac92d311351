"""One way to ClickHouse for two kinds of it: the engine in this process (chDB) and a server or cluster.

Both are reached through clickhouse-connect; nothing above this module knows which one it talks to.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

import clickhouse_connect
import pyarrow as pa
from clickhouse_connect.driver.exceptions import ClickHouseError

from schemas import metrics

TOO_MANY_PARTS: Final = 252
FOREIGN_QUERIES: Final = 4  # at a time: each may take its memory, and the sink must not starve
_WRITE: Final = {
    "async_insert": "0",  # the sink batches; the server must have stored a batch when the insert returns
    "max_partitions_per_insert_block": "0",  # a load of twenty years touches 240 months
}


class StoreError(Exception):
    """The store refused something or is away; ``code`` is ClickHouse's error code, 0 if it never answered."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code

    @property
    def away(self) -> bool:
        """True where nobody answered; False where the store answered and refused."""
        return self.code == 0


@dataclass(frozen=True, slots=True)
class Limits:
    """What one read-only query may take."""

    seconds: int = 30
    rows: int = 1_000_000
    bytes: int = 256 * 1024 * 1024
    memory: int = 2 * 1024 * 1024 * 1024

    def settings(self) -> dict[str, str]:
        """As ClickHouse settings. ``readonly`` comes last: nothing can be changed after it."""
        return {
            "max_execution_time": str(self.seconds),
            "timeout_overflow_mode": "throw",
            "max_result_rows": str(self.rows),
            "max_result_bytes": str(self.bytes),
            "result_overflow_mode": "throw",
            "max_memory_usage": str(self.memory),
            "output_format_json_quote_64bit_integers": "0",
            "output_format_json_quote_decimals": "1",
            "output_format_json_validate_utf8": "1",
            "output_format_json_escape_forward_slashes": "0",
            "date_time_output_format": "iso",
            "readonly": "1",
        }


@dataclass(frozen=True, slots=True)
class Target:
    """A DSN taken apart. ``path`` is set for the engine in process, ``cluster`` where tables are replicated."""

    path: str = ""
    host: str = ""
    port: int = 0
    user: str = "default"
    password: str = field(default="", repr=False)
    database: str = "default"
    secure: bool = False
    cluster: str = ""

    def __str__(self) -> str:
        """The DSN without its password."""
        if self.path:
            return f"chdb://{self.path}"
        return f"{'https' if self.secure else 'http'}://{self.user}@{self.host}:{self.port}/{self.database}"


def parse_dsn(dsn: str) -> Target:
    """``chdb:///dir`` or ``clickhouse|http|https://user:password@host:port/database?cluster=name&secure=1``; ValueError else."""
    parts = urlsplit(dsn)
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    if parts.scheme == "chdb":
        if parts.netloc or not parts.path.strip("/") or query:
            raise ValueError(f"{dsn!r} names no folder: write chdb:///folder")
        return Target(path=unquote(parts.path))
    if parts.scheme not in ("clickhouse", "http", "https"):
        raise ValueError(f"a store is chdb:///folder or clickhouse://user:password@host:port/database, not {parts.scheme or dsn!r}")
    unknown = set(query) - {"cluster", "secure"}
    if not parts.hostname or unknown:
        what = f"unknown options {', '.join(sorted(unknown))}" if unknown else "no host"
        raise ValueError(f"store {parts.scheme}://{parts.hostname or ''}: {what}")
    cluster = query.get("cluster", "")
    database = unquote(parts.path.strip("/")) or "default"
    for what, name in (("cluster", cluster), ("database", database)):
        if name and not name.replace("_", "").replace("-", "").isalnum():
            raise ValueError(f"store {parts.hostname}: {what} {name!r} may hold letters, digits, _ and - only")
    secure = parts.scheme == "https" or query.get("secure", "") in ("1", "true")
    return Target(
        host=parts.hostname,
        port=parts.port or (8443 if secure else 8123),
        user=unquote(parts.username or "default"),
        password=unquote(parts.password or ""),
        database=database,
        secure=secure,
        cluster=cluster,
    )


class Store:
    """A ClickHouse. Safe for many threads: each call borrows a client of its own, so queries run while inserts do.

    Every method raises StoreError.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self._lock = threading.Lock()
        self._idle: dict[Limits | None, list[Any]] = {}
        self._closed = False
        self._foreign = threading.BoundedSemaphore(FOREIGN_QUERIES)
        self.notes: dict[str, Any] = {}  # what callers learned of this engine once and for all

    @property
    def database(self) -> str:
        """The database all names are looked up in."""
        return self.target.database

    def command(self, sql: str, params: Mapping[str, Any] | None = None) -> None:
        """Runs a statement whose result nobody needs (DDL, INSERT … SELECT)."""
        with self._client(None) as client:
            client.command(sql, parameters=dict(params or {}))

    def create_database(self) -> None:
        """Makes the database of a server or cluster if it is not there."""
        name, cluster = self.target.database, self.target.cluster
        where = f" ON CLUSTER '{cluster}'" if cluster else ""
        with self._client(None, database="default") as client:
            client.command(f"CREATE DATABASE IF NOT EXISTS `{name}`{where}")

    def insert_arrow(self, table: str, rows: pa.Table) -> None:
        """Appends rows; returns when they are stored. Columns are matched by name."""
        if not rows.num_rows:
            return
        started = time.perf_counter()
        with self._client(None) as client:
            client.insert_arrow(table, rows, settings=_WRITE)
        metrics.INSERT_SECONDS.labels(table).observe(time.perf_counter() - started)
        metrics.STORE_ROWS.labels(table).inc(rows.num_rows)

    def query_arrow(self, sql: str, params: Mapping[str, Any] | None = None, settings: Mapping[str, str] | None = None) -> pa.Table:
        """The rows of a query. Parameters stand in it as ``{name:Type}``."""
        started = time.perf_counter()
        with self._client(None) as client:
            rows = client.query_arrow(sql, parameters=dict(params or {}), settings=dict(settings or {}), use_strings=True)
        metrics.QUERY_SECONDS.observe(time.perf_counter() - started)
        return rows

    def query_rows(self, sql: str, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """The rows of a query as dicts of Python values: aware datetimes, Decimals. For pages of hundreds, not for columns."""
        started = time.perf_counter()
        with self._client(None) as client:
            rows = list(client.query(sql, parameters=dict(params or {})).named_results())
        metrics.QUERY_SECONDS.observe(time.perf_counter() - started)
        return rows

    def query_json(self, sql: str, limits: Limits) -> bytes:
        """NDJSON of a query that can change nothing and takes no more than its limits. Check foreign SQL first: see query.py."""
        started = time.perf_counter()
        with self._foreign, self._client(limits) as client:
            rows = client.raw_query(sql, fmt="JSONEachRow")
        metrics.QUERY_SECONDS.observe(time.perf_counter() - started)
        return bytes(rows)

    def close(self) -> None:
        """Lets go of the store; an engine in process is shut down when the last call has returned."""
        with self._lock:
            self._closed = True
            clients = [client for idle in self._idle.values() for client in idle]
            self._idle.clear()
        for client in clients:
            client.close()

    @contextmanager
    def _client(self, limits: Limits | None, database: str | None = None) -> Iterator[Any]:
        # One client carries one query at a time (chDB refuses more); settings are those of the client, because a query
        # that comes from outside must not share a session with anything that may write.
        with self._lock:
            if self._closed:
                raise StoreError("the store is closed")
            idle = self._idle.setdefault(limits, [])
            client = idle.pop() if idle and database is None else None
        try:
            client = client or self._connect(limits, database)
            yield client
        except ClickHouseError as error:
            if client is not None and not self.target.path:
                client.close()  # the connection may be the reason
                client = None
            raise StoreError(_plain(str(error)), getattr(error, "code", None) or 0) from error
        finally:
            if client is not None:
                self._give_back(limits, client, keep=database is None)

    def _give_back(self, limits: Limits | None, client: Any, *, keep: bool) -> None:
        with self._lock:
            if keep and not self._closed and len(self._idle.setdefault(limits, [])) < 8:
                self._idle[limits].append(client)
                return
        client.close()

    def _connect(self, limits: Limits | None, database: str | None) -> Any:
        settings = limits.settings() if limits else {}
        target = self.target
        if target.path:
            Path(target.path).mkdir(parents=True, exist_ok=True)
            return clickhouse_connect.get_client(dsn=f"chdb://{target.path}", settings=settings, tz_mode="aware")
        return clickhouse_connect.get_client(
            host=target.host,
            port=target.port,
            username=target.user,
            password=target.password,
            database=database or target.database,
            secure=target.secure,
            settings=settings,
            autogenerate_session_id=False,  # a session would serialise the calls of all threads
            connect_timeout=5,
            query_retries=0,
            tz_mode="aware",
        )


def open_store(dsn: str) -> Store:
    """The store behind a DSN (see :func:`parse_dsn`); connects at the first call. Raises ValueError for a DSN that is none.

    A folder can be open in one process at a time.
    """
    return Store(parse_dsn(dsn))


def _plain(message: str) -> str:
    """ClickHouse's message as one line, without code, version and the copy of the query."""
    text = " ".join(message.split())
    text = text.rpartition("DB::Exception: ")[2] or text
    for tail in (" (version ", ": (in file/uri ", " In scope ", ": While executing ", ": while executing "):
        text = text.partition(tail)[0]
    return text.strip()
