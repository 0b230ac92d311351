"""CSV and Parquet: flat rows. Finals become one row per interval or read, daily determinants one per time of use, others one per item.

Text cells of a CSV that a spreadsheet would take for a formula begin with an apostrophe (CWE-1236); Parquet holds texts as they are.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from connectors.subscribers.writers.content import Content
from schemas import conditions
from schemas.block import DIRECTIONS, FinalBlock
from schemas.codec import schema_text
from schemas.rules import METHODS

AMOUNT: Final = pa.decimal128(38, 6)
MOMENT: Final = pa.timestamp("ms", "UTC")
_FORMULA: Final = r"^[\s\p{Cc}\p{Cf}]*[=+\-@＝＋－＠]|^[\t\r\n]"
_ESCAPE: Final = "'"
_PLAIN: Final = {"int": pa.int64(), "long": pa.int64(), "boolean": pa.bool_(), "double": pa.float64()}


def table(object: str, schema: str, items: Sequence[dict[str, Any]], block: FinalBlock | None) -> tuple[pa.Table, int]:
    """The flat rows of items (of finals: of their block) and the number of items. ``schema`` is ``RecordType.vN``."""
    if block is not None:
        return (interval_rows(block) if object == "final-intervals" else register_rows(block)), len(block)
    if object == "daily-determinants":
        return day_rows(items), len(items)
    return plain_rows(schema, items), len(items)


def interval_rows(block: FinalBlock) -> pa.Table:
    """One row per interval that is due: our own CSV header first, so that what is exported can be taken in again."""
    owner = np.repeat(np.arange(len(block)), block.count)
    slot = np.arange(len(owner)) - np.repeat(np.cumsum(block.count) - block.count, block.count)
    due = np.flatnonzero(block.conditions != conditions.NOT_RECEIVED)
    owner, slot = owner[due], slot[due]
    seconds = block.seconds.astype(np.int64)[owner]
    return pa.table(
        {
            **_texts(block, owner, ("device", "channel", "unit")),
            "seconds": seconds,
            "start": _moments(block.start[owner] + slot * seconds),
            "value": _amounts(block.values[due], block.conditions[due]),
            "condition": block.conditions[due].astype(np.int64),
            "method": _names(METHODS, block.methods[due]),
            **_about(block, owner),
        }
    )


def register_rows(block: FinalBlock) -> pa.Table:
    """One row per register read."""
    owner = np.repeat(np.arange(len(block)), block.count)
    due = np.flatnonzero(block.conditions != conditions.NOT_RECEIVED)
    owner = owner[due]
    return pa.table(
        {
            **_texts(block, owner, ("device", "channel", "unit")),
            "at": _moments(block.times[due]),
            "reading": _amounts(block.values[due], block.conditions[due]),
            "condition": block.conditions[due].astype(np.int64),
            "method": _names(METHODS, block.methods[due]),
            "dials": block.dials.astype(np.int64)[owner],
            "multiplier": _decimals(block.multiplier[owner]),
            **_about(block, owner),
        }
    )


def _about(block: FinalBlock, owner: Any) -> dict[str, Any]:
    return {
        **_texts(block, owner, ("service_point", "account", "zone")),
        "direction": _names(DIRECTIONS, block.direction[owner]),
        "version": block.version[owner],
        "replaces": block.replaces[owner],
        "state": _names(("open", "final", "exception"), block.state[owner]),
    }


def _texts(block: FinalBlock, owner: Any, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(block, name).take(pa.array(owner)) for name in names}


def _names(words: Sequence[str], codes: Any) -> pa.Array:
    return pa.array(list(words), pa.string()).take(pa.array(codes.astype(np.int64)))


def _moments(seconds: Any) -> pa.Array:
    return pa.array(seconds.astype(np.int64) * 1000, pa.int64()).cast(MOMENT)


def _decimals(micros: Any) -> pa.Array:
    """Whole millionths as decimals, exactly."""
    values = micros.astype("<i8")
    return pa.Array.from_buffers(AMOUNT, len(values), [None, pa.py_buffer(np.stack([values, values >> 63], axis=1).tobytes())])


def _amounts(micros: Any, codes: Any) -> pa.Array:
    missing = (codes >= conditions.MISSING) & (codes < conditions.OUTAGE)
    return pc.if_else(pa.array(missing), pa.scalar(None, AMOUNT), _decimals(micros))


def day_rows(items: Sequence[dict[str, Any]]) -> pa.Table:
    """One row per day and time of use."""
    flat = [{**{k: v for k, v in item.items() if k != "lines"}, **line} for item in items for line in item["lines"]]
    names = list(dict.fromkeys(name for row in flat for name in row))
    columns = {}
    for name in names:
        values = [row.get(name) for row in flat]
        if name == "quantity":
            columns[name] = pa.array([Decimal(str(value)) for value in values], AMOUNT)
        elif name in ("start", "end"):
            columns[name] = _times(values)
        else:
            columns[name] = pa.array(values)
    return pa.table(columns)


def plain_rows(schema: str, items: Sequence[dict[str, Any]]) -> pa.Table:
    """One row per item, typed by the Avro schema its record follows; what is nested becomes JSON text."""
    kinds = _kinds(schema.partition(".v")[0])
    names = list(dict.fromkeys(["id", *(name for item in items for name in item)]))
    columns = {}
    for name in names:
        values = [item.get(name) for item in items]
        kind = kinds.get(name, pa.string())
        if kind == AMOUNT:
            columns[name] = pa.array([None if value is None else Decimal(value) for value in values], AMOUNT)
        elif kind == MOMENT:
            columns[name] = _times(values)
        elif kind == pa.string():
            columns[name] = pa.array([_text(value) for value in values], pa.string())
        else:
            columns[name] = pa.array(values, kind)
    return pa.table(columns)


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else orjson.dumps(value).decode()


def _times(values: Sequence[Any]) -> pa.Array:
    texts = pa.array([None if value is None else str(value).removesuffix("Z") for value in values], pa.string())
    return texts.cast(pa.timestamp("ms")).cast(MOMENT)


def _kinds(record: str) -> dict[str, pa.DataType]:
    try:
        fields = schema_text(record)["fields"]
    except (FileNotFoundError, RecursionError, KeyError):
        return {}
    found = {}
    for entry in fields:
        kind = entry["type"]
        if isinstance(kind, list):
            kind = next((branch for branch in kind if branch != "null"), "null")
        logical = kind.get("logicalType") if isinstance(kind, dict) else None
        plain = kind.get("type") if isinstance(kind, dict) else kind
        if logical == "decimal" and kind.get("scale", 0) <= 6:
            found[entry["name"]] = AMOUNT
        elif logical == "timestamp-millis":
            found[entry["name"]] = MOMENT
        else:
            found[entry["name"]] = _PLAIN.get(str(plain), pa.string())

    return found


def parquet(rows: tuple[pa.Table, int]) -> Content:
    """Parquet, zstd."""
    sink = io.BytesIO()
    pa.parquet.write_table(rows[0], sink, compression="zstd")
    return Content(sink.getvalue(), rows[1])


def csv(rows: tuple[pa.Table, int]) -> Content:
    """CSV with a header, UTF-8, quoted where needed; formulas are neutralised."""
    safe = {}
    for name, column in zip(rows[0].column_names, rows[0].columns, strict=True):
        if pa.types.is_string(column.type):
            safe[name] = neutral(column)
        elif column.type == AMOUNT:
            safe[name] = _plain_decimals(column)
        elif column.type == MOMENT:
            safe[name] = pc.strftime(column.cast(pa.timestamp("s", "UTC"), safe=False), "%Y-%m-%dT%H:%M:%SZ")
        else:
            safe[name] = column
    sink = io.BytesIO()
    pa.csv.write_csv(pa.table(safe), sink, pa.csv.WriteOptions(quoting_style="needed"))
    return Content(sink.getvalue(), rows[1])


def neutral(column: Any) -> Any:
    """Texts with an apostrophe in front of those that a spreadsheet would take for a formula."""
    risky = pc.match_substring_regex(column, _FORMULA)
    return pc.if_else(pc.fill_null(risky, False), pc.binary_join_element_wise(_ESCAPE, column, ""), column)


def _plain_decimals(column: Any) -> Any:
    """Decimals without trailing zeros."""
    text = column.cast(pa.string())
    trimmed = pc.utf8_rtrim(pc.utf8_rtrim(text, "0"), ".")
    return pc.if_else(pc.match_substring(text, "."), trimmed, text)
