"""Numbered migrations: forward, backward, dry; and the one place that knows how a cluster differs from a single engine.

``migrations/NNNN_name.sql`` holds two parts, ``-- forward`` and ``-- backward``, of statements that can each be run again, so a
migration that was cut off is simply run anew. ``/*cluster*/`` marks where ON CLUSTER goes. Applied files must not change.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from connectors.clickhouse.store import Store, StoreError

FOLDER: Final = Path(__file__).parent / "migrations"
_STATUS: Final = """
CREATE TABLE IF NOT EXISTS migrations /*cluster*/
(
    number   UInt32,
    name     String,
    checksum String,
    applied  UInt8,
    step     UInt64
)
ENGINE = ReplacingMergeTree(step)
ORDER BY number
"""
log = structlog.get_logger(__name__)


class MigrationError(Exception):
    """The migrations at hand do not fit what the store has seen."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered change of the schema."""

    number: int
    name: str
    forward: tuple[str, ...]
    backward: tuple[str, ...]
    checksum: str


@dataclass(frozen=True, slots=True)
class Status:
    """A migration and whether the store has it."""

    number: int
    name: str
    applied: bool


def load(folder: Path = FOLDER) -> list[Migration]:
    """All migrations in order. Raises MigrationError where numbers have holes or a part is missing."""
    found = []
    for position, path in enumerate(sorted(folder.glob("*.sql")), start=1):
        number, _, name = path.stem.partition("_")
        if not number.isdigit() or int(number) != position:
            raise MigrationError(f"{path.name}: number {position:04} was expected")
        text = path.read_text(encoding="utf-8")
        _, forward, rest = text.partition("\n-- forward\n")
        up, backward, down = rest.partition("\n-- backward\n")
        if not forward or not backward:
            raise MigrationError(f"{path.name}: needs the lines '-- forward' and '-- backward'")
        checksum = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        found.append(Migration(position, name, _statements(up), _statements(down), checksum))
    return found


def _statements(text: str) -> tuple[str, ...]:
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("--"))
    return tuple(part.strip() for part in lines.split(";\n") if part.strip().strip(";")) if lines.strip() else ()


def render(statement: str, database: str, cluster: str) -> str:
    """A statement for a single engine (``cluster`` empty) or for all replicas of a cluster."""
    statement = statement.rstrip(";\n ")
    if not cluster:
        return statement.replace(" /*cluster*/", "")
    table = re.search(r"CREATE TABLE IF NOT EXISTS (\w+)", statement)
    statement = statement.replace("/*cluster*/", f"ON CLUSTER '{cluster}'")
    if table is None:
        return statement
    path = f"'/clickhouse/tables/{{shard}}/{database}/{table[1]}', '{{replica}}'"
    return re.sub(
        r"ENGINE = (\w*MergeTree)(?:\(([^)]*)\))?",
        lambda match: f"ENGINE = Replicated{match[1]}({path}{', ' + match[2] if match[2] else ''})",
        statement,
    )


def status(store: Store, folder: Path = FOLDER) -> list[Status]:
    """Every migration at hand and whether it is applied; changes nothing. Raises MigrationError where files and store disagree."""
    at_hand, seen = load(folder), _seen(store)
    newest = max((number for number, (_, applied) in seen.items() if applied), default=0)
    if newest > len(at_hand):
        raise MigrationError(f"the store is at migration {newest}, this version of the hub knows {len(at_hand)}: use a newer one")
    for migration in at_hand:
        checksum, applied = seen.get(migration.number, ("", False))
        if applied and checksum != migration.checksum:
            raise MigrationError(f"migration {migration.number:04}_{migration.name} was changed after it had been applied")
    return [Status(m.number, m.name, seen.get(m.number, ("", False))[1]) for m in at_hand]


def up(store: Store, to: int | None = None, *, dry_run: bool = False, folder: Path = FOLDER) -> list[str]:
    """Applies what is missing, up to number ``to``; the statements run (or, with ``dry_run``, those that would be)."""
    if not dry_run:
        _prepare(store)
    pending = {s.number for s in status(store, folder) if not s.applied and (to is None or s.number <= to)}
    return _run(store, [m for m in load(folder) if m.number in pending], forward=True, dry_run=dry_run)


def down(store: Store, to: int, *, dry_run: bool = False, folder: Path = FOLDER) -> list[str]:
    """Takes migrations above number ``to`` back, newest first, **with the data in their tables**; the statements as in :func:`up`."""
    applied = {s.number for s in status(store, folder) if s.applied and s.number > to}
    return _run(store, [m for m in reversed(load(folder)) if m.number in applied], forward=False, dry_run=dry_run)


def _prepare(store: Store) -> None:
    target = store.target
    if not target.path and target.database != "default":
        store.create_database()
    store.command(render(_STATUS, target.database, target.cluster))


def _run(store: Store, migrations: list[Migration], *, forward: bool, dry_run: bool) -> list[str]:
    statements: list[str] = []
    for migration in migrations:
        todo = [render(s, store.database, store.target.cluster) for s in (migration.forward if forward else migration.backward)]
        statements += todo
        if dry_run:
            continue
        for statement in todo:
            store.command(statement)
        # A crash before this line leaves the migration pending: it runs again, and every statement may run twice
        _note(store, migration, applied=forward)
        log.info("migrated", migration=f"{migration.number:04}_{migration.name}", forward=forward)
    return statements


def _note(store: Store, migration: Migration, *, applied: bool) -> None:
    store.command(
        "INSERT INTO migrations (number, name, checksum, applied, step) "
        "SELECT {number:UInt32}, {name:String}, {checksum:String}, {applied:UInt8}, (SELECT max(step) + 1 FROM migrations)",
        {"number": migration.number, "name": migration.name, "checksum": migration.checksum, "applied": int(applied)},
    )


def _seen(store: Store) -> dict[int, tuple[str, bool]]:
    try:
        rows = store.query_arrow("SELECT number, checksum, applied FROM migrations FINAL ORDER BY number")
    except StoreError as error:
        if error.code in (60, 81):  # no such table, no such database: nothing was ever applied
            return {}
        raise
    return {row["number"]: (row["checksum"], bool(row["applied"])) for row in rows.to_pylist()}
