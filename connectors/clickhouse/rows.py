"""Records of the stored topics as Arrow tables: whole columns at a time where there are reads, record by record elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from connectors.clickhouse.tables import arrow_schema
from schemas.arrow import column, integers, lists, numbers, table
from schemas.block import Array, DayBlock, FinalBlock, ragged_indices, strings

LAST_SECOND: Final = 2**32 - 1  # of ClickHouse's DateTime: 2106-02-07
STEP: Final = 1000  # most meters report whole Wh: kept as such, T64 needs half the bits
LAST_DAY: Final = 47_846  # 2101-01-01, the last one the calendar knows
Place = tuple[str, str, int, int]  # device, channel, interval length, day
_SAME: Final = ("device", "channel", "unit", "service_point", "account", "zone")


def second(moment: datetime | int | None) -> int:
    """UTC seconds inside what a DateTime holds; a date beyond becomes the nearest one (meters do report the year 9999)."""
    if moment is None:
        return 0
    whole = moment if isinstance(moment, int) else int(moment.timestamp())
    return min(max(whole, 0), LAST_SECOND)


def _seconds(values: Array) -> Array:
    return np.clip(values, 0, LAST_SECOND).astype(np.uint32)


def _dates(days: Array) -> pa.Array:
    return integers(np.clip(days, 0, LAST_DAY).astype(np.int32, copy=False), pa.date32())


def _lists(values: Array, counts: Array) -> pa.ListArray:
    return lists(integers(values), counts)


def _per_row(values: Sequence[str], sizes: Sequence[int]) -> pa.Array:
    """A scalar of each block as a column of all their rows."""
    names = list(dict.fromkeys(values))  # ClickHouse takes no dictionary that holds a string twice
    position = {name: i for i, name in enumerate(names)}
    indices = np.repeat(np.array([position[value] for value in values], np.int32), sizes)
    return pa.DictionaryArray.from_arrays(integers(indices), strings(names))


def _steps(values: Array, counts: Array) -> tuple[Array, Array]:
    """Values in the largest of two steps (1 or 1000 millionths) that fits a whole row, and the step of each row (counts above 0)."""
    reduced = values // STEP
    exact = reduced * STEP == values
    if exact.all():
        return reduced, np.full(len(counts), STEP, np.int64)
    bounds = np.zeros(len(counts), np.int64)
    np.cumsum(counts[:-1], out=bounds[1:])
    whole = np.logical_and.reduceat(exact, bounds)
    return np.where(np.repeat(whole, counts), reduced, values), np.where(whole, STEP, 1)


def _joined(blocks: Sequence[FinalBlock], registers: bool) -> tuple[FinalBlock, pa.Array, pa.Array] | None:
    """The interval or the register rows of all blocks in one, with payload and source per row; None if there are none."""
    parts = []
    for block in blocks:
        wanted = ((block.seconds == 0) == registers) & (block.count > 0)
        if wanted.all() and len(block):
            parts.append(block)
        elif wanted.any():
            parts.append(block.take(np.flatnonzero(wanted)))
    if not parts:
        return None
    sizes = [len(part) for part in parts]
    return FinalBlock.join(parts), _per_row([p.payload for p in parts], sizes), _per_row([p.source for p in parts], sizes)


def final_days(blocks: Sequence[FinalBlock]) -> pa.Table | None:
    """Rows of ``final_days``: one per channel and local day. None where the blocks hold register reads only."""
    joined = _joined(blocks, registers=False)
    if joined is None:
        return None
    block, payload, source = joined
    values, steps = _steps(block.values, block.count)
    return table(
        {name: getattr(block, name) for name in _SAME}
        | {
            "direction": block.direction,
            "day": _dates(block.day),
            "day_start": _seconds(block.start),
            "seconds": block.seconds.astype(np.uint32),
            "step": steps,
            "version": block.version,
            "replaces": block.replaces,
            "state": block.state.view(np.uint8),
            "dials": block.dials.view(np.uint8),
            "multiplier": block.multiplier,
            "values": _lists(values, block.count),
            "conditions": _lists(block.conditions, block.count),
            "methods": _lists(block.methods.view(np.uint8), block.count),
            "received": _lists(block.received, block.received_count),
            "received_conditions": _lists(block.received_conditions, block.received_count),
            "payload": payload,
            "source": source,
        }
    )


def register_reads(blocks: Sequence[FinalBlock]) -> pa.Table | None:
    """Rows of ``register_reads``: one per read. None where the blocks hold intervals only."""
    joined = _joined(blocks, registers=True)
    if joined is None:
        return None
    block, payload, source = joined
    repeated = np.repeat(np.arange(len(block)), block.count)
    index = integers(repeated)
    received, received_condition = _received_reads(block)
    return table(
        {name: getattr(block, name).take(index) for name in _SAME}
        | {
            "direction": block.direction[repeated],
            "at": _seconds(block.times),
            "reading": block.values,
            "condition": block.conditions,
            "method": block.methods.view(np.uint8),
            "received": received,
            "received_condition": received_condition,
            "version": block.version[repeated],
            "replaces": block.replaces[repeated],
            "state": block.state.view(np.uint8)[repeated],
            "dials": block.dials.view(np.uint8)[repeated],
            "multiplier": block.multiplier[repeated],
            "payload": payload.take(index),
            "source": source.take(index),
        }
    )


def _received_reads(block: FinalBlock) -> tuple[Array, Array]:
    """What was received for each read of the register rows, condition 0 where that is what is final too."""
    values, conditions = np.zeros(len(block.values), np.int64), np.zeros(len(block.values), np.int32)
    rows = np.flatnonzero(block.received_count == block.count)
    if len(rows):
        target = ragged_indices(block.count, rows)
        origin = ragged_indices(block.received_count, rows)
        values[target], conditions[target] = block.received[origin], block.received_conditions[origin]
    return values, conditions


def determinant_days(blocks: Sequence[DayBlock]) -> pa.Table | None:
    """Rows of ``determinant_days``: one per channel and local day, its time-of-use periods by name."""
    parts = [block for block in blocks if len(block)]
    if not parts:
        return None
    block = DayBlock.join(parts)
    sizes = [len(part) for part in parts]
    return table(
        {name: getattr(block, name) for name in ("device", "channel", "unit", "service_point", "account", "map")}
        | {
            "day": _dates(block.day),
            "start": _seconds(block.start),
            "end": _seconds(block.end),
            "seconds": block.seconds.astype(np.uint32),
            "version": block.version,
            "replaces": block.replaces,
            "state": block.state.view(np.uint8),
            **{name: getattr(block, name) for name in ("condition", "slots", "actual", "estimated")},
            "tou": lists(tou_names(parts), block.lines),
            "quantities": _lists(block.quantities, block.lines),
            "payload": _per_row([p.payload for p in parts], sizes),
        }
    )


def tou_names(blocks: Sequence[DayBlock]) -> pa.Array:
    """Each block numbers its periods by its own list: brought to one list. Raises ValueError on a number outside it."""
    names = list(dict.fromkeys(name for block in blocks for name in block.tou_names))
    position = {name: i for i, name in enumerate(names)}
    indices: list[npt.NDArray[np.int32]] = []
    for block in blocks:
        own = np.array([position[name] for name in block.tou_names], np.int32)
        if len(block.tou) and not 0 <= int(block.tou.min()) <= int(block.tou.max()) < len(own):
            raise ValueError("a time-of-use number outside the names of its block")
        indices.append(own[block.tou] if len(block.tou) else np.zeros(0, np.int32))
    return pa.DictionaryArray.from_arrays(integers(np.concatenate(indices)), strings(names))


def from_dicts(name: str, records: Iterable[Mapping[str, Any]]) -> pa.Table | None:
    """Rows of a table without arrays from one dict each; None for no records. Other keys of the dicts are left out."""
    schema = arrow_schema(name)
    rows = list(records)
    if not rows:
        return None
    return pa.Table.from_arrays([column([row[field.name] for row in rows], field.type) for field in schema], schema=schema)


def with_seconds(record: Mapping[str, Any], *fields: str) -> dict[str, Any]:
    """The record with these times as UTC seconds."""
    return {**record, **{name: second(record[name]) for name in fields}}


def usage_transaction(record: Mapping[str, Any], at: int) -> dict[str, Any]:
    """A row of ``usage_transactions``: requests and quantities as JSON, decimals as text; ``at`` is when it was said."""
    quantities = [{name: _plain(value) for name, value in quantity.items()} for quantity in record["quantities"]]
    lists = {"requests": json.dumps(record["requests"]), "quantities": json.dumps(quantities)}
    return {**with_seconds(record, "period_start", "period_end"), **lists, "at": at}


def _plain(value: Any) -> Any:
    return value.strftime("%Y-%m-%dT%H:%M:%SZ") if isinstance(value, datetime) else str(value) if isinstance(value, Decimal) else value


def recalled(found: pa.Table, absent: Sequence[Place], id: str, payload: str) -> FinalBlock:
    """The answer to a recall: rows of ``final_days`` as a FinalBlock, and a row without slots for each day the store has not."""
    parts = [part for part in (_days(found, id, payload), _nothing(absent, id, payload)) if len(part)]
    return FinalBlock.join(parts)


def _days(found: pa.Table, id: str, payload: str) -> FinalBlock:
    own = {name: found[name].combine_chunks() for name in found.column_names}
    listed = {name: own[name] for name in ("values", "conditions", "methods", "received", "received_conditions")}
    counts = {name: np.diff(numbers(array.offsets)) for name, array in listed.items()}
    flat = {name: numbers(array.flatten()) for name, array in listed.items()}
    number = {name: numbers(own[name]) for name in ("step", "version", "replaces", "multiplier")}
    count, received_count = counts["values"], counts["received"]
    rows = found.num_rows
    none = np.zeros(rows, np.int32)
    return FinalBlock(
        id=id,
        payload=payload,
        source="store",
        **{name: own[name].cast(pa.string()) for name in _SAME},
        direction=numbers(own["direction"]).astype(np.int8),
        day=numbers(own["day"].cast(pa.int32())),
        start=numbers(own["day_start"].cast(pa.int64())),
        seconds=numbers(own["seconds"]).astype(np.int32),
        count=count,
        reads=none,
        version=number["version"],
        replaces=number["replaces"],
        state=numbers(own["state"]).astype(np.int8),
        dials=numbers(own["dials"]).astype(np.int8),
        multiplier=number["multiplier"],
        values=flat["values"] * np.repeat(number["step"], count),
        conditions=flat["conditions"].astype(np.int32),
        methods=flat["methods"].astype(np.int8),
        times=np.zeros(0, np.int64),
        received_count=received_count,
        received=flat["received"].astype(np.int64),
        received_conditions=flat["received_conditions"].astype(np.int32),
        before_count=none,
        before=np.zeros(0, np.int64),
        before_conditions=np.zeros(0, np.int32),
    ).check()


def _nothing(absent: Sequence[Place], id: str, payload: str) -> FinalBlock:
    rows = len(absent)
    zero, none, blank = np.zeros(rows, np.int32), np.zeros(0, np.int64), strings([""] * rows)
    wide = zero.astype(np.int64)
    return FinalBlock(
        id=id,
        payload=payload,
        source="store",
        device=strings([place[0] for place in absent]),
        channel=strings([place[1] for place in absent]),
        unit=blank,
        service_point=blank,
        account=blank,
        zone=blank,
        direction=zero.astype(np.int8),
        day=np.array([place[3] for place in absent], np.int32),
        start=wide,
        seconds=np.array([place[2] for place in absent], np.int32),
        count=zero,
        reads=zero,
        version=wide,
        replaces=wide,
        state=zero.astype(np.int8),
        dials=zero.astype(np.int8),
        multiplier=wide,
        values=none,
        conditions=none.astype(np.int32),
        methods=none.astype(np.int8),
        times=none,
        received_count=zero,
        received=none,
        received_conditions=none.astype(np.int32),
        before_count=zero,
        before=none,
        before_conditions=none.astype(np.int32),
    )


def message_row(body: Mapping[str, Any]) -> dict[str, Any]:
    """A message to a CIS as a row: its items as one JSON text."""
    items = [{**item, "body": orjson.loads(item["body"] or b"null")} for item in body["items"]]
    text = orjson.dumps(items, option=orjson.OPT_SORT_KEYS).decode()
    return {**body, "at": second(body["at"]), "bulk": int(body["bulk"]), "items": len(items), "body": text}
