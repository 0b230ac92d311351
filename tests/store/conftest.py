"""A store of one's own for each test, and builders of what agents would send."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from connectors.clickhouse import migrate
from connectors.clickhouse.query import stored_parts
from connectors.clickhouse.store import Store, open_store
from schemas.block import DayBlock, FinalBlock, strings
from schemas.conditions import REGULAR


@pytest.fixture
def bare_store(tmp_path: Path) -> Iterator[Store]:
    """The real engine in a new folder, no tables. A process can have one folder open at a time: it is closed after the test."""
    store = open_store(f"chdb://{tmp_path}/store")
    yield store
    store.close()


@pytest.fixture
def store(bare_store: Store) -> Store:
    """The real engine with all tables and views."""
    migrate.up(bare_store)
    return bare_store


@pytest.fixture(scope="module")
def module_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One migrated store for all tests of a module: for those that leave it as it was, or take :func:`emptied`."""
    store = open_store(f"chdb://{tmp_path_factory.mktemp('module')}/store")
    migrate.up(store)
    yield store
    store.close()


def emptied(store: Store) -> Store:
    """The store without rows."""
    for table in stored_parts(store):
        if table != "migrations":
            store.command(f"TRUNCATE TABLE {table}")
    return store


def finals(rows: Sequence[dict[str, Any]], **scalars: str) -> FinalBlock:
    """A FinalBlock of rows as dicts; what a row does not say is ordinary. ``values`` are millionths; seconds 0 makes a register row."""
    rows = [{"values": [], "seconds": 1800, "day": 19_800, **row} for row in rows]

    def text(name: str, default: str) -> Any:
        return strings([row.get(name, default) for row in rows])

    def number(name: str, default: Any, dtype: Any) -> Any:
        return np.array([row.get(name, default(row) if callable(default) else default) for row in rows], dtype)

    def flat(name: str, default: Any, dtype: Any) -> Any:
        return np.array([x for row in rows for x in row.get(name, default(row))], dtype)

    def size(name: str) -> Any:
        return np.array([len(row.get(name, [])) for row in rows], np.int32)

    return FinalBlock(
        id=scalars.get("id", "block"),
        payload=scalars.get("payload", "payload"),
        source=scalars.get("source", "hes"),
        device=text("device", "M1"),
        channel=text("channel", "A+"),
        unit=text("unit", "kWh"),
        service_point=text("service_point", "SP1"),
        account=text("account", "ACC1"),
        zone=text("zone", "UTC"),
        direction=number("direction", 1, np.int8),
        day=number("day", 19_800, np.int32),
        start=number("start", lambda row: row["day"] * 86_400, np.int64),
        seconds=number("seconds", 1800, np.int32),
        count=size("values"),
        reads=size("times"),
        version=number("version", 1, np.int64),
        replaces=number("replaces", 0, np.int64),
        state=number("state", 1, np.int8),
        dials=number("dials", 0, np.int8),
        multiplier=number("multiplier", 1_000_000, np.int64),
        values=flat("values", lambda row: row["values"], np.int64),
        conditions=flat("conditions", lambda row: [REGULAR] * len(row["values"]), np.int32),
        methods=flat("methods", lambda row: [0] * len(row["values"]), np.int8),
        times=flat("times", lambda row: [], np.int64),
        received_count=size("received"),
        received=flat("received", lambda row: [], np.int64),
        received_conditions=flat("received_conditions", lambda row: [REGULAR] * len(row.get("received", [])), np.int32),
        before_count=size("before"),
        before=flat("before", lambda row: [], np.int64),
        before_conditions=flat("before_conditions", lambda row: [REGULAR] * len(row.get("before", [])), np.int32),
    ).check()


def days(rows: Sequence[dict[str, Any]], tou_names: list[str], payload: str = "payload") -> DayBlock:
    """A DayBlock of rows as dicts with ``tou`` and ``quantities``."""
    size = len(rows)

    def number(name: str, default: Any, dtype: Any) -> Any:
        return np.array([row.get(name, default) for row in rows], dtype)

    def text(name: str, default: str) -> Any:
        return strings([row.get(name, default) for row in rows])

    day = number("day", 19_800, np.int32)
    return DayBlock(
        id="days",
        payload=payload,
        tou_names=tou_names,
        device=text("device", "M1"),
        channel=text("channel", "A+"),
        unit=text("unit", "kWh"),
        service_point=text("service_point", "SP1"),
        account=text("account", "ACC1"),
        map=text("map", "day-night"),
        day=day,
        start=day.astype(np.int64) * 86_400,
        end=(day.astype(np.int64) + 1) * 86_400,
        seconds=number("seconds", 1800, np.int32),
        version=number("version", 1, np.int64),
        replaces=np.zeros(size, np.int64),
        state=number("state", 1, np.int8),
        condition=number("condition", REGULAR, np.int32),
        slots=number("slots", 48, np.int32),
        actual=number("actual", 48, np.int32),
        estimated=np.zeros(size, np.int32),
        lines=np.array([len(row["tou"]) for row in rows], np.int8),
        tou=np.array([line for row in rows for line in row["tou"]], np.int8),
        quantities=np.array([q for row in rows for q in row["quantities"]], np.int64),
    ).check()
