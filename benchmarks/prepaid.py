"""``mdh bench prepaid``: the prepaid engine against the same ledger as a row-locked SQL wallet.

All get the same top-ups in the same order, each one posting. The engine goes the way it goes in the hub: Avro records through the lane
with its checks, in batches as the runtime takes them, every output encoded and every changed row of the state compressed and written to
disk with fsync as one batch. The wallets do what a wallet does: for each posting a transaction that locks the account's row, writes the
posting (unique by payment, chained by hash) and the new balance, and is on disk when it returns: SQLite with WAL and synchronous=FULL, and
PostgreSQL with its defaults where ``postgres`` is installed. Before any figure is given, all balances must be equal.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mdh.agents import plans_and_folds
from mdh.errors import UsageError
from schemas.codec import Codec
from schemas.identity import identity
from schemas.topology import Topology, load_topology
from schemas.topology.prepaid import PrepaidSettings
from streams.runtime.lane import ID, SEQUENCE, WRITER, Lane, Record

BATCH: Final = 500
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class TopUp:
    """A payment: its id, account and amount in cents."""

    id: str
    account: str
    amount: int


def topups(count: int, accounts: int) -> list[TopUp]:
    """The load, the same every time."""
    rng = random.Random(1)
    return [TopUp(f"pay-{n}", f"account-{rng.randrange(accounts)}", rng.randrange(100, 5000)) for n in range(count)]


def bench_topology() -> Topology:
    """The shipped topology with one flat tariff."""
    tariffs = [{"id": "flat", "versions": [{"rate": "0.30"}]}]
    settings = PrepaidSettings.model_validate({"tariffs": tariffs, "assign": [{"tariff": "flat"}]})
    return load_topology(None).model_copy(update={"prepaid": settings})


def request(action: str, account: str, id: str, amount: int | None = None) -> dict[str, Any]:
    """A request as ingest hands it on."""
    blank = {"channel": "web", "reference": "", "reason": "", "user": "", "approver": "", "terms": ""}
    return blank | {"id": id, "account": account, "action": action, "amount": amount}


class Engine:
    """One lane of the prepaid agent, and a file its batches are committed to."""

    def __init__(self, folder: Path) -> None:
        self.codec = Codec()
        plan, make = plans_and_folds(bench_topology(), ["prepaid"])[0]
        self.lane, self.number = Lane(plan, 0, make, self.codec), 0
        self.file = (folder / "log").open("wb", buffering=0)
        self.postings = 0

    def records(self, kind: str, bodies: list[dict[str, Any]]) -> list[Record]:
        """Records of the inbox, numbered as its writer would."""
        records = []
        for body in bodies:
            headers = {ID: str(body.get("id", self.number)).encode(), WRITER: b"ingest/0", SEQUENCE: b"%d" % self.number}
            value = self.codec.encode(kind, body)
            records.append(Record("prepaid.inbox", 0, str(body.get("account", "")).encode(), value, headers, self.number))
            self.number += 1
        return records

    def commit(self, records: list[Record]) -> None:
        """Folds a batch and puts all it led to on disk."""
        written: list[Record] = []
        for record in records:
            if self.lane.is_next(record):
                written += self.lane.apply(record)
        self.postings += sum(record.topic == "prepaid.ledger" for record in written)
        written += self.lane.take_changed()
        self.lane.tallies.clear()
        self.file.write(zlib.compress(b"".join((record.value or b"") for record in written), 1))
        os.fsync(self.file.fileno())

    def balances(self) -> dict[str, int]:
        """By account."""
        table = self.lane.fold.state.table("accounts")
        return dict(zip(table.keys, table["balance"][: len(table)].tolist(), strict=True))


def engine(folder: Path, load: list[TopUp]) -> tuple[float, dict[str, int]]:
    """Seconds for the load, and the balances."""
    ours = Engine(folder)
    ours.commit(ours.records("Tick", [{"at": 1_770_000_000}]))
    names = sorted({topup.account for topup in load})
    ours.commit(ours.records("PrepaidRequest", [request("enrol", name, f"enrol/{name}") for name in names]))
    batches = [load[first : first + BATCH] for first in range(0, len(load), BATCH)]
    records = [ours.records("PrepaidRequest", [request("topup", t.account, t.id, t.amount) for t in batch]) for batch in batches]
    began = time.perf_counter()
    for batch in records:
        ours.commit(batch)
    seconds = time.perf_counter() - began
    ours.file.close()
    assert ours.postings == len(load)
    return seconds, ours.balances()


TABLES: Final = (
    "CREATE TABLE wallets (account TEXT PRIMARY KEY, balance BIGINT NOT NULL, postings BIGINT NOT NULL, hash TEXT NOT NULL)",
    "CREATE TABLE postings (id TEXT PRIMARY KEY, account TEXT NOT NULL, sequence BIGINT NOT NULL, debit TEXT NOT NULL,"
    " credit TEXT NOT NULL, amount BIGINT NOT NULL, balance BIGINT NOT NULL, previous TEXT NOT NULL, hash TEXT NOT NULL)",
)


def wallet(load: list[TopUp], run: Callable[..., Any], lock: str, mark: str) -> float:
    """Posts the load, one transaction each; seconds. ``run`` executes SQL; ``mark`` is its placeholder."""
    for table in TABLES:
        run(table)
    for name in sorted({topup.account for topup in load}):
        run(f"INSERT INTO wallets VALUES ({mark}, 0, 0, '')", (name,))
    begin, read = ("BEGIN IMMEDIATE", "") if not lock else ("BEGIN", lock)
    select = f"SELECT balance, postings, hash FROM wallets WHERE account = {mark}{read}"
    insert = f"INSERT INTO postings VALUES ({', '.join([mark] * 9)})"
    update = f"UPDATE wallets SET balance = {mark}, postings = {mark}, hash = {mark} WHERE account = {mark}"
    began = time.perf_counter()
    for topup in load:
        run(begin)
        balance, number, previous = run(select, (topup.account,)).fetchone()
        balance, number = balance + topup.amount, number + 1
        hashed = identity(previous, topup.id, topup.account, number, topup.amount, balance)
        customer = f"customer:{topup.account}"
        run(insert, (topup.id, topup.account, number, "cash:web", customer, topup.amount, balance, previous, hashed))
        run(update, (balance, number, hashed, topup.account))
        run("COMMIT")
    return time.perf_counter() - began


def sqlite(folder: Path, load: list[TopUp]) -> tuple[float, dict[str, int]]:
    """The wallet in SQLite."""
    connection = sqlite3.connect(folder / "wallet.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    seconds = wallet(load, connection.execute, "", "?")
    balances = dict(connection.execute("SELECT account, balance FROM wallets"))
    connection.close()
    return seconds, balances


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A fresh PostgreSQL over a socket in a folder; its connection text. It does not run as root: there the account ``nobody`` runs it."""
    data, binaries = folder / "pg", Path(str(shutil.which("postgres"))).resolve().parent
    data.mkdir()
    other: dict[str, Any] = {}
    if os.geteuid() == 0:
        other = {"user": "nobody"}
        shutil.chown(data, "nobody")
        folder.chmod(0o755)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/"}
    subprocess.run([binaries / "initdb", "-D", data / "db", "-U", "bench", "-A", "trust"], check=True, **quiet, **other)
    server = subprocess.Popen([binaries / "postgres", "-D", data / "db", "-k", data, "-c", "listen_addresses="], **quiet, **other)
    try:
        yield f"host={data} user=bench dbname=postgres"
    finally:
        server.terminate()
        server.wait(30)


def wallet_in_postgres(folder: Path, load: list[TopUp]) -> tuple[float, dict[str, int]]:
    """The wallet in PostgreSQL: ``SELECT … FOR UPDATE``, prepared statements, synchronous commit."""
    import psycopg

    with postgres(folder) as where:
        for _ in range(100):
            try:
                connection = psycopg.connect(where, autocommit=True, prepare_threshold=1)
                break
            except psycopg.OperationalError:
                time.sleep(0.1)
        else:
            raise UsageError("PostgreSQL did not start")
        with connection:
            seconds = wallet(load, connection.execute, " FOR UPDATE", "%s")
            balances = dict(connection.execute("SELECT account, balance FROM wallets").fetchall())
    return seconds, balances


def run(count: int, accounts: int, say: Say) -> dict[str, Any]:
    """The figures. Raises UsageError where balances differ."""
    load = topups(count, accounts)
    expected: Counter[str] = Counter()
    for topup in load:
        expected[topup.account] += topup.amount
    ways: dict[str, Callable[[Path, list[TopUp]], tuple[float, dict[str, int]]]] = {"ours": engine, "sqlite": sqlite}
    try:
        import psycopg  # noqa: F401

        if shutil.which("postgres"):
            ways["postgres"] = wallet_in_postgres
    except ImportError:
        pass
    figures: dict[str, Any] = {"postings": count, "accounts": len(expected), "equal": True}
    for name, way in ways.items():
        with tempfile.TemporaryDirectory(prefix="mdh-bench-") as folder:
            seconds, balances = way(Path(folder), load)
        if balances != dict(expected):
            raise UsageError(f"{name}: balances are not the sums of the payments")
        figures[f"{name}_postings_per_s"] = round(count / seconds)
        say(f"{name}: {count / seconds:,.0f} postings/s")
    for name in ("sqlite", "postgres"):
        known = figures.get(f"{name}_postings_per_s")
        figures[f"ratio_{name}"] = None if known is None else round(figures["ours_postings_per_s"] / known, 1)
    return figures
