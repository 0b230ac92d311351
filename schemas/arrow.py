"""NumPy to Arrow and back through buffers. PyArrow's own ``array`` and ``to_numpy`` import pandas, a second and more of every start."""

from __future__ import annotations

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


def integers(values: Array) -> pa.Array:
    """An Arrow array of signed integers over the same memory."""
    values = np.ascontiguousarray(values)
    kind = {4: pa.int32, 8: pa.int64}[values.dtype.itemsize]
    return pa.Array.from_buffers(kind(), len(values), [None, pa.py_buffer(values)])


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
