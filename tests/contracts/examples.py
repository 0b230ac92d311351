"""Random and fixed blocks and records of every type."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from schemas.block import Block, DayBlock, FinalBlock, ReadBlock, RecallBlock, columns_of, strings
from schemas.codec import BLOCKS, Codec, schema_text

INT64 = (-(2**63), 2**63 - 1)
BLOCK_TYPES: tuple[type[Block], ...] = (ReadBlock, FinalBlock, DayBlock, RecallBlock)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def meter_values() -> st.SearchStrategy[int]:
    """Integers as they occur: small, whole Wh in µkWh, anything."""
    return st.one_of(
        st.integers(-130, 130),
        st.integers(-70_000, 70_000).map(lambda v: v * 1000),
        st.integers(-200, 200).map(lambda v: v * 1_000_000),
        st.integers(*INT64),
    )


def columns(size: int) -> st.SearchStrategy[np.ndarray]:
    """An int64 array of a size; sometimes constant."""
    varied = st.lists(meter_values(), min_size=size, max_size=size).map(lambda v: np.array(v, np.int64))
    return st.one_of(varied, meter_values().map(lambda v: np.full(size, v, np.int64)))


@st.composite
def blocks(draw: st.DrawFn, kind: type[Block], max_rows: int = 6) -> Block:
    """Any block of a class whose columns fit together."""
    size = draw(st.integers(0, max_rows))
    counters = {meta["count"] for _, meta in columns_of(kind) if meta["column"] == "flat"}
    values: dict[str, Any] = {}
    for name, meta in columns_of(kind):
        column = meta["column"]
        if column == "scalar":
            values[name] = draw(_scalar(kind, name))
        elif column == "text":
            values[name] = strings(draw(st.lists(TEXTS, min_size=size, max_size=size)))
        elif name in counters:
            values[name] = np.array(draw(st.lists(st.integers(0, 9), min_size=size, max_size=size)), meta["dtype"])
        else:
            length = size if column == "row" else int(values[meta["count"]].sum())
            info = np.iinfo(meta["dtype"])
            if meta["dtype"] == np.int64:
                values[name] = draw(columns(length))
            else:
                values[name] = draw(arrays.arrays(meta["dtype"], length, elements=st.integers(info.min, info.max)))
    return kind(**values)


def _scalar(kind: type[Block], name: str) -> st.SearchStrategy[Any]:
    field = next(field for field in schema_text(kind.SCHEMA)["fields"] if field["name"] == name)
    if isinstance(field["type"], dict):
        return st.lists(TEXTS, max_size=4)
    return TEXTS if field["type"] == "string" else st.integers(*INT64)


def same(a: Block, b: Block) -> bool:
    """Equal in every column, types included."""
    for name, meta in columns_of(type(a)):
        x, y = getattr(a, name), getattr(b, name)
        if meta["column"] == "scalar":
            if x != y:
                return False
        elif meta["column"] == "text":
            if not x.equals(y):
                return False
        elif x.dtype != y.dtype or not np.array_equal(x, y):
            return False
    return type(a) is type(b)


def example_block(kind: type[Block]) -> Block:
    """The block whose bytes are kept in tests/golden: two rows, one of 96 quarter hours."""
    values: dict[str, Any] = {}
    counters = [meta["count"] for _, meta in columns_of(kind) if meta["column"] == "flat"]
    for position, (name, meta) in enumerate(columns_of(kind)):
        column = meta["column"]
        if column == "scalar":
            kind_of = next(field["type"] for field in schema_text(kind.SCHEMA)["fields"] if field["name"] == name)
            values[name] = [name, "peak"] if isinstance(kind_of, dict) else name if kind_of == "string" else 1_773_532_800
        elif column == "text":
            values[name] = strings([f"{name}-ä", ""])
        elif name in counters:
            values[name] = np.array([96 if meta["dtype"].itemsize > 1 else 5, 2], meta["dtype"])
        elif column == "row":
            top = np.iinfo(meta["dtype"]).max
            values[name] = np.array([position, min(top, 2_000_000_000_000_000)], meta["dtype"])
        else:
            length = int(values[meta["count"]].sum())
            step = 1 if meta["dtype"].itemsize < 8 else 250_000
            values[name] = (np.arange(length) * step).astype(meta["dtype"])
    return kind(**values)


def example_record(name: str) -> dict[str, Any]:
    """The record whose bytes are kept in tests/golden, for types that are no blocks: every field filled by its name and type."""
    return {field["name"]: _example(field["name"], field["type"]) for field in schema_text(name)["fields"]}


def _example(name: str, kind: Any) -> Any:
    if isinstance(kind, list):
        return _example(name, kind[-1])
    if isinstance(kind, dict):
        logical = kind.get("logicalType")
        if logical == "decimal":
            return Decimal("-123.456789")
        if logical == "timestamp-millis":
            return datetime(2026, 3, 29, 1, 30, tzinfo=UTC)
        if kind["type"] == "array":
            return [_example(name, kind["items"])]
        if kind["type"] == "map":
            return {name: _example(name, kind["values"])}
        if kind["type"] == "record":
            return {field["name"]: _example(field["name"], field["type"]) for field in kind["fields"]}
        return _example(name, kind["type"])
    return {"string": f"{name}-é", "int": -7, "long": 1_773_532_800, "boolean": True, "bytes": b"\0\xff", "double": 0.5}[kind]


RECORD_TYPES = sorted({label.rpartition(".v")[0] for label in Codec().ids.values()} - set(BLOCKS))
