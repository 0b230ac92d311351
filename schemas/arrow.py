"""NumPy to Arrow and back through buffers. PyArrow's own ``array`` and ``to_numpy`` import pandas, a second and more of every start."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Array = npt.NDArray[Any]


def texts(values: list[str]) -> pa.StringArray:
    """A string array from strings. Raises UnicodeEncodeError on lone surrogates, OverflowError beyond two gigabytes."""
    joined = "".join(values)
    data = joined.encode()
    sizes = map(len, values) if len(data) == len(joined) else (len(value.encode()) for value in values)
    bounds = np.fromiter(accumulate(sizes, initial=0), np.int64, len(values) + 1)
    if len(data) >= 2**31:
        raise OverflowError(f"{len(data)} bytes of text in one column")
    return pa.StringArray.from_buffers(len(values), pa.py_buffer(bounds.astype(np.int32)), pa.py_buffer(data))


def integers(values: Array, kind: pa.DataType | None = None) -> pa.Array:
    """An Arrow array of integers over the same memory; ``kind`` is another type of the same width (a date)."""
    values = np.ascontiguousarray(values)
    return pa.Array.from_buffers(kind or pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(values)])


def lists(values: pa.Array, counts: Array) -> pa.ListArray:
    """A list array: of each row as many of the values as its count says."""
    return pa.ListArray.from_arrays(integers(bounds_of(counts)), values)


def bounds_of(counts: Array) -> npt.NDArray[np.int32]:
    """Where each row's values begin, and the end of the last: [2, 3] → [0, 2, 5]."""
    bounds = np.zeros(len(counts) + 1, np.int32)
    np.cumsum(counts, out=bounds[1:])
    return bounds


def table(columns: Mapping[str, pa.Array | Array]) -> pa.Table:
    """A table of columns, of which NumPy's may be integers only."""
    arrays = [integers(values) if isinstance(values, np.ndarray) else values for values in columns.values()]
    return pa.Table.from_arrays(arrays, list(columns))


def column(values: list[Any], kind: pa.DataType) -> pa.Array:
    """A column of Python values: text, bytes, integers, truths, decimals, dicts of text, lists; None only among integers.

    Raises ValueError, TypeError or OverflowError on a value the type cannot hold.
    """
    if pa.types.is_string(kind):
        return texts(values)
    if pa.types.is_binary(kind):
        data = b"".join(values)
        bounds = bounds_of(np.fromiter(map(len, values), np.int64, len(values)))
        return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(bounds), pa.py_buffer(data)])
    if pa.types.is_decimal(kind):
        return _decimals(values, kind)
    if pa.types.is_map(kind):
        counts = np.fromiter(map(len, values), np.int64, len(values))
        names, held = [name for row in values for name in row], [text for row in values for text in row.values()]
        return pa.MapArray.from_arrays(integers(bounds_of(counts)), column(names, kind.key_type), column(held, kind.item_type))
    if pa.types.is_list(kind):
        counts = np.fromiter(map(len, values), np.int64, len(values))
        return lists(column([one for row in values for one in row], kind.value_type), counts)
    if pa.types.is_boolean(kind):  # Arrow holds them as bits
        bits = np.packbits(np.array(values, np.bool_), bitorder="little")
        return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(bits)])
    if None in values:
        there = np.array([value is not None for value in values])
        filled = np.array([0 if value is None else value for value in values], np.dtype(str(kind)))
        mask = np.packbits(there, bitorder="little")
        return pa.Array.from_buffers(kind, len(values), [pa.py_buffer(mask), pa.py_buffer(filled)])
    return integers(np.array(values, np.dtype(str(kind))))


def _decimals(values: list[Any], kind: pa.Decimal128Type) -> pa.Array:
    """Decimals as the 128-bit integers Arrow keeps, of at most 18 digits."""
    whole = [value.scaleb(kind.scale) for value in values]
    numbers = [int(value) for value in whole]
    if any(number != value or abs(number) >= 10**kind.precision for number, value in zip(numbers, whole, strict=True)):
        raise ValueError(f"a decimal that {kind} cannot hold")
    low = np.array(numbers, np.int64)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(np.stack([low, low >> 63], axis=1))])


def numbers(array: pa.Array) -> Array:
    """The values of an Arrow array of whole numbers without nulls, over the same memory and read-only."""
    if array.null_count:
        raise ValueError(f"{array.null_count} nulls among whole numbers")
    dtype = np.dtype(str(array.type))
    if not len(array):
        return np.zeros(0, dtype)
    return np.frombuffer(array.buffers()[1], dtype, len(array), array.offset * dtype.itemsize)


def truths(array: pa.BooleanArray) -> npt.NDArray[np.bool_]:
    """The values of an Arrow array of booleans without nulls."""
    if array.null_count:
        raise ValueError(f"{array.null_count} nulls among booleans")
    if not len(array):
        return np.zeros(0, np.bool_)
    bits = np.unpackbits(np.frombuffer(array.buffers()[1], np.uint8), bitorder="little")
    return bits[array.offset : array.offset + len(array)].astype(np.bool_)
