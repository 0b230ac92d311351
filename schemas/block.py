"""The block: reads of many channels × many intervals in one record, as packed columns. The one codec for them.

A block class is a frozen dataclass whose fields say how they travel:

* ``scalar()`` — a plain Avro field of the block.
* ``text()`` — one string per row, held as an Arrow string array.
* ``row(dtype)`` — one integer per row.
* ``flat(count, dtype)`` — for each row as many integers as the row column ``count`` says, row after row.

Every column is one Avro ``bytes`` field (see :mod:`schemas.packing`), so a reader in any language needs the .avsc and a page
of code. State pages use the same codec.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any, ClassVar, Self, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.arrow import integers, texts
from schemas.packing import pack, unpack

Array = npt.NDArray[Any]
MAX_ROWS = 10_000_000
MAX_FLAT = 50_000_000


def scalar(default: Any = dataclasses.MISSING) -> Any:
    """A plain field of the whole block."""
    return field(default=default, metadata={"column": "scalar"})


def text() -> Any:
    """A string per row."""
    return field(metadata={"column": "text"})


def row(dtype: Any = np.int64) -> Any:
    """An integer per row."""
    return field(metadata={"column": "row", "dtype": np.dtype(dtype)})


def flat(count: str, dtype: Any = np.int64) -> Any:
    """Per row as many integers as the row column ``count`` says."""
    return field(metadata={"column": "flat", "count": count, "dtype": np.dtype(dtype)})


def strings(values: list[str] | pa.StringArray) -> pa.StringArray:
    """A text column from a list of strings."""
    return values if isinstance(values, pa.StringArray) else texts(values)


def pack_text(values: pa.StringArray) -> bytes:
    """A text column as bytes: length of the packed lengths (uint32), packed lengths, UTF-8 of all strings."""
    _, offsets, data = values.buffers()
    if len(values) == 0:
        return b""
    bounds = np.frombuffer(offsets, np.int32, len(values) + 1, values.offset * 4)
    lengths = pack(np.diff(bounds))
    body = b"" if data is None else bytes(data[int(bounds[0]) : int(bounds[-1])])
    return len(lengths).to_bytes(4, "little") + lengths + body


@lru_cache(maxsize=512)  # head ends send the same meters in the same order again and again
def unpack_text(data: bytes, size: int) -> pa.StringArray:
    """The inverse of :func:`pack_text`. Raises ValueError on bytes that do not hold ``size`` valid UTF-8 strings."""
    if size == 0:
        return strings([])
    head = 4 + int.from_bytes(data[:4], "little")
    lengths = unpack(data[4:head], size)
    if (lengths < 0).any() or int(lengths.sum()) != len(data) - head:
        raise ValueError("text column: lengths and bytes disagree")
    bounds = np.zeros(size + 1, np.int32)
    np.cumsum(lengths, out=bounds[1:])
    array = pa.StringArray.from_buffers(size, pa.py_buffer(bounds), pa.py_buffer(data[head:]))
    try:
        array.validate(full=True)
    except pa.ArrowInvalid as error:
        raise ValueError(f"text column: {error}") from error
    return array


@cache
def _columns(kind: Any) -> tuple[tuple[str, dict[str, Any]], ...]:
    return tuple((f.name, dict(f.metadata)) for f in dataclasses.fields(kind))


def columns_of(kind: type[Block]) -> tuple[tuple[str, dict[str, Any]], ...]:
    """Name and metadata of each field of a block class, in order."""
    found: tuple[tuple[str, dict[str, Any]], ...] = _columns(cast(Any, kind))
    return found


class Block:
    """Base of the block classes: encode to and from an Avro-ready dict, take rows, join blocks."""

    SCHEMA: ClassVar[str]

    def __len__(self) -> int:
        """The number of rows."""
        first = next(name for name, meta in columns_of(type(self)) if meta["column"] in ("text", "row"))
        return len(getattr(self, first))

    def check(self) -> Self:
        """Raises ValueError where columns disagree in length; returns the block."""
        size = len(self)
        for name, meta in columns_of(type(self)):
            if meta["column"] in ("text", "row") and len(getattr(self, name)) != size:
                raise ValueError(f"{type(self).__name__}.{name}: {len(getattr(self, name))} rows instead of {size}")
            if meta["column"] == "flat":
                counts = getattr(self, meta["count"])
                if size and int(counts.min()) < 0:
                    raise ValueError(f"{type(self).__name__}.{meta['count']}: negative count")
                if len(getattr(self, name)) != int(counts.sum()):
                    raise ValueError(f"{type(self).__name__}.{name}: {len(getattr(self, name))} values instead of {int(counts.sum())}")
        return self

    def to_record(self) -> dict[str, Any]:
        """The block as a dict for Avro."""
        record: dict[str, Any] = {"rows": len(self)}
        for name, meta in columns_of(type(self)):
            value = getattr(self, name)
            kind = meta["column"]
            record[name] = value if kind == "scalar" else pack_text(value) if kind == "text" else pack(value)
        return record

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Self:
        """The block behind :meth:`to_record`. Raises ValueError on columns that do not fit together.

        A column without bytes in a block with rows is one its writer did not know (default ``""`` in the schema): zeros or empty texts.
        """
        size = record["rows"]
        if not 0 <= size <= MAX_ROWS:
            raise ValueError(f"block of {size} rows")
        values: dict[str, Any] = {}
        for name, meta in columns_of(cls):
            kind = meta["column"]
            if kind == "scalar":
                values[name] = record[name]
            elif kind == "text":
                values[name] = unpack_text(record[name], size) if record[name] else strings([""] * size)
            else:
                length = size
                if kind == "flat":
                    counts = values[meta["count"]]
                    length = int(counts.sum()) if size else 0
                    if length > MAX_FLAT or (size and int(counts.min()) < 0):
                        raise ValueError(f"block column {name}: bad counts")
                values[name] = (unpack(record[name], length) if record[name] else np.zeros(length)).astype(meta["dtype"], copy=False)
        return cls(**values)

    def take(self, rows: Array) -> Self:
        """A block of the given rows (integer indices, in that order); scalars stay."""
        rows = np.asarray(rows, np.int64)
        values: dict[str, Any] = {}
        gathers: dict[str, Array] = {}
        for name, meta in columns_of(type(self)):
            value, kind = getattr(self, name), meta["column"]
            if kind == "scalar":
                values[name] = value
            elif kind == "text":
                values[name] = value.take(integers(rows))
            elif kind == "row":
                values[name] = value[rows]
            else:
                count = meta["count"]
                if count not in gathers:
                    gathers[count] = ragged_indices(getattr(self, count), rows)
                values[name] = value[gathers[count]]
        return type(self)(**values)

    @classmethod
    def join(cls, blocks: list[Self]) -> Self:
        """All rows of the blocks in order; scalars of the first."""
        if len(blocks) == 1:
            return blocks[0]
        values: dict[str, Any] = {}
        for name, meta in columns_of(cls):
            parts = [getattr(block, name) for block in blocks]
            kind = meta["column"]
            values[name] = parts[0] if kind == "scalar" else pa.concat_arrays(parts) if kind == "text" else np.concatenate(parts)
        return cls(**values)


def starts_of(counts: Array) -> Array:
    """Where each row's part of a flat column begins: [2, 3, 1] → [0, 2, 5]."""
    bounds = np.zeros(len(counts), np.int64)
    np.cumsum(counts[:-1], out=bounds[1:])
    return bounds


def ragged_indices(counts: Array, rows: Array) -> Array:
    """Positions in a flat column of the parts of ``rows``, in that order."""
    begins, sizes = starts_of(counts)[rows], counts[rows].astype(np.int64)
    total = int(sizes.sum()) if len(sizes) else 0
    indices: Array = np.arange(total) + np.repeat(begins - starts_of(sizes), sizes)
    return indices


DIRECTIONS = ("none", "delivered", "received")  # index is the code; delivered: grid → customer


@dataclass(frozen=True, slots=True, eq=False)
class ReadBlock(Block):
    """Initial measurements as decoded: a row is one channel and one unbroken span of intervals, or a list of register reads.

    ``seconds`` is the interval length; 0 marks register reads. ``start`` is the UTC second of the first interval's start (of
    the first read). ``values`` are millionths of ``unit``, ``times`` has one UTC second per register read and nothing for
    intervals. A value that is missing is 0 with a missing condition. ``multiplier`` (millionths) is what the source sent with the
    reads, 0 if nothing; it has not been applied.
    """

    SCHEMA: ClassVar[str] = "ReadBlock"

    id: str = scalar()  # deterministic: payload and position in it
    payload: str = scalar()
    source: str = scalar()
    format: str = scalar()
    received_at: int = scalar()  # UTC seconds, from the payload's message
    device: pa.StringArray = text()
    channel: pa.StringArray = text()
    unit: pa.StringArray = text()
    direction: Array = row(np.int8)
    start: Array = row()
    seconds: Array = row(np.int32)
    count: Array = row(np.int32)
    reads: Array = row(np.int32)  # = count for register rows, 0 for interval rows
    multiplier: Array = row()
    values: Array = flat("count")
    conditions: Array = flat("count", np.int32)
    times: Array = flat("reads")


# State of a final row
OPEN, FINALIZED, EXCEPTION = 0, 1, 2


@dataclass(frozen=True, slots=True, eq=False)
class FinalBlock(Block):
    """Final measurements: a row is one channel and one local day (all its slots), or the register reads that changed.

    ``day`` counts days since 1970-01-01 in the service point's ``zone``; ``start`` is the UTC second the day begins; ``count`` is the
    day's number of slots (92/96/100 for quarter hours), condition 0 marks slots for which nothing is due yet. ``methods`` index
    :data:`schemas.rules.METHODS` (0: as received). ``version`` grows with every change of the row, ``replaces`` is the version
    before (0: first). ``state`` is OPEN, FINALIZED or EXCEPTION. Where a method changed a received value, ``received`` keeps
    the day's received values and ``received_conditions`` their conditions, else these are empty for the row; ``before`` holds the day's
    values of version ``replaces`` for rows whose reader may have forgotten them.
    """

    SCHEMA: ClassVar[str] = "FinalBlock"

    id: str = scalar()
    payload: str = scalar()
    source: str = scalar()
    device: pa.StringArray = text()
    channel: pa.StringArray = text()
    unit: pa.StringArray = text()
    service_point: pa.StringArray = text()
    account: pa.StringArray = text()
    zone: pa.StringArray = text()
    direction: Array = row(np.int8)
    day: Array = row(np.int32)
    start: Array = row()
    seconds: Array = row(np.int32)
    count: Array = row(np.int32)
    reads: Array = row(np.int32)
    version: Array = row()
    replaces: Array = row()
    state: Array = row(np.int8)
    dials: Array = row(np.int8)  # register rows: integer digits, 0 unknown
    multiplier: Array = row()  # combined multiplier applied by whoever computes consumption from readings, millionths
    values: Array = flat("count")
    conditions: Array = flat("count", np.int32)
    methods: Array = flat("count", np.int8)
    times: Array = flat("reads")
    received_count: Array = row(np.int32)
    received: Array = flat("received_count")
    received_conditions: Array = flat("received_count", np.int32)
    before_count: Array = row(np.int32)
    before: Array = flat("before_count")
    before_conditions: Array = flat("before_count", np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class DayBlock(Block):
    """Daily determinants: a row is one channel, one local day; per row ``lines`` pairs of time-of-use period and quantity.

    ``tou`` indexes ``tou_names`` of the block; the empty name is the whole day. ``seconds`` is the interval length; 0 marks scalar
    consumption, the difference of register readings. Quantities are millionths of ``unit``. ``actual`` and ``slots`` give the
    quality share.
    """

    SCHEMA: ClassVar[str] = "DayBlock"

    id: str = scalar()
    payload: str = scalar()
    tou_names: list[str] = scalar()
    device: pa.StringArray = text()
    channel: pa.StringArray = text()
    unit: pa.StringArray = text()
    service_point: pa.StringArray = text()
    account: pa.StringArray = text()
    map: pa.StringArray = text()
    day: Array = row(np.int32)
    start: Array = row()
    end: Array = row()
    seconds: Array = row(np.int32)
    version: Array = row()
    replaces: Array = row()
    state: Array = row(np.int8)
    condition: Array = row(np.int32)  # the worst of the day's parts
    slots: Array = row(np.int32)  # due in the day
    actual: Array = row(np.int32)  # of these measured and passed
    estimated: Array = row(np.int32)
    lines: Array = row(np.int8)
    tou: Array = flat("lines", np.int8)
    quantities: Array = flat("lines")


@dataclass(frozen=True, slots=True, eq=False)
class RecallBlock(Block):
    """Channel days VEE asks the store for. The answer is one FinalBlock with a row for each; ``count`` 0 where the store has none.

    Interval length 0 asks for the register readings of a UTC day and those around it (streams/vee/older.py): a row for each version.
    """

    SCHEMA: ClassVar[str] = "Recall"

    device: pa.StringArray = text()
    channel: pa.StringArray = text()
    seconds: Array = row(np.int32)
    day: Array = row(np.int32)

    def places(self) -> list[tuple[str, str, int, int]]:
        """Device, channel, interval length and day of each row."""
        columns = (self.device.to_pylist(), self.channel.to_pylist(), self.seconds.tolist(), self.day.tolist())
        return list(zip(*columns, strict=True))
