"""The wallet in SQLite and in PostgreSQL; both wait for the disk at every commit, as a ledger must."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from streams.prepaid.ledger import CHAINED, chain_hash

Posting = dict[str, Any]
Cause = Sequence[Posting]  # the postings of one account and one cause, without sequence, balance and hashes
FIELDS = ("id", "account", "sequence", "at", *(name for name in CHAINED if name not in ("id", "account", "sequence")), "previous", "hash")
_KIND = {**dict.fromkeys(("sequence", "at", "amount", "change", "balance"), "{long}"), "provisional": "{flag}"}
SCHEMA = (
    "CREATE TABLE account (id {text} PRIMARY KEY, balance {long} NOT NULL, postings {long} NOT NULL, hash {text} NOT NULL)",
    "CREATE TABLE posting ("
    + ", ".join(f'"{name}" {_KIND.get(name, "{text}")} NOT NULL' for name in FIELDS)
    + ", PRIMARY KEY (id), UNIQUE (account, sequence))",
)


class Wallet(Protocol):
    """One client of a wallet."""

    def post(self, cause: Cause) -> None:
        """Posts a cause, once."""

    def heads(self) -> dict[str, tuple[int, int, str]]:
        """Account → balance, postings, hash of the last one."""

    def close(self) -> None:
        """Ends the connection."""


def chained(cause: Cause, known: set[str], balance: int, number: int, last: str) -> tuple[list[tuple[Any, ...]], int, int, str]:
    """Rows of the postings not known yet, and where the account stands behind them."""
    rows = []
    for posting in cause:
        if posting["id"] in known:
            continue
        number, balance = number + 1, balance + posting["change"]
        row = {**posting, "sequence": number, "balance": balance, "previous": last}
        row["hash"] = last = chain_hash(last, row)
        rows.append(tuple(row[name] for name in FIELDS))
    return rows, balance, number, last


class SqliteWallet:
    """A file with a write-ahead log; a write locks the whole of it."""

    def __init__(self, path: Path) -> None:
        new = not path.exists()
        self.base = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.base.execute("PRAGMA journal_mode = WAL")
        self.base.execute("PRAGMA synchronous = FULL")
        if new:
            for line in SCHEMA:
                self.base.execute(line.format(text="TEXT", long="INTEGER", flag="INTEGER"))

    def post(self, cause: Cause) -> None:
        account, run = cause[0]["account"], self.base.execute
        run("BEGIN IMMEDIATE")
        run("INSERT OR IGNORE INTO account VALUES (?, 0, 0, '')", (account,))
        ((balance, number, last),) = run("SELECT balance, postings, hash FROM account WHERE id = ?", (account,))
        marks = ", ".join("?" * len(cause))
        known = {id for (id,) in run(f"SELECT id FROM posting WHERE id IN ({marks})", [p["id"] for p in cause])}
        rows, balance, number, last = chained(cause, known, balance, number, last)
        self.base.executemany(f"INSERT INTO posting VALUES ({', '.join('?' * len(FIELDS))})", rows)
        run("UPDATE account SET balance = ?, postings = ?, hash = ? WHERE id = ?", (balance, number, last, account))
        run("COMMIT")

    def heads(self) -> dict[str, tuple[int, int, str]]:
        return {row[0]: row[1:] for row in self.base.execute("SELECT * FROM account")}

    def close(self) -> None:
        self.base.close()


class PostgresWallet:
    """A server; a write locks the account's row."""

    def __init__(self, dsn: str, *, new: bool = False) -> None:
        import psycopg

        self.base = psycopg.connect(dsn, autocommit=True)
        if new:
            for line in SCHEMA:
                self.base.execute(line.format(text="text", long="bigint", flag="boolean"))

    def post(self, cause: Cause) -> None:
        account = cause[0]["account"]
        with self.base.transaction(), self.base.cursor() as cursor:
            cursor.execute("INSERT INTO account VALUES (%s, 0, 0, '') ON CONFLICT DO NOTHING", (account,))
            cursor.execute("SELECT balance, postings, hash FROM account WHERE id = %s FOR UPDATE", (account,))
            balance, number, last = cursor.fetchone() or (0, 0, "")
            cursor.execute("SELECT id FROM posting WHERE id = ANY(%s)", ([p["id"] for p in cause],))
            known = {id for (id,) in cursor}
            rows, balance, number, last = chained(cause, known, balance, number, last)
            cursor.executemany(f"INSERT INTO posting VALUES ({', '.join(['%s'] * len(FIELDS))})", rows)
            cursor.execute("UPDATE account SET balance = %s, postings = %s, hash = %s WHERE id = %s", (balance, number, last, account))

    def heads(self) -> dict[str, tuple[int, int, str]]:
        return {row[0]: row[1:] for row in self.base.execute("SELECT * FROM account")}

    def close(self) -> None:
        self.base.close()
