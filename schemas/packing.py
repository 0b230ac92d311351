"""Packed columns: integer arrays as bytes, in the narrowest exact form.

Layout: one byte of form, one byte of scale exponent e, then what the form says. Two bits of the form are the width w (1, 2, 4 or 8
bytes, little-endian signed). Numbers are stored divided by 10^e: meter values are mostly whole Wh held in µkWh, and with scale 3
two bytes do for eight. The other bits:

* none: one number of width w per value.
* 8, constant: one number for a column longer than one.
* 16, runs: a uint32 with the number of runs, for each a uint32 with its length, then for each a number of width w.
* 32, outliers: a uint32 with their number, for each a uint32 with its position, for each an int64 with its value (not scaled), then
  one number of width w per value, 0 for outliers. A spike or an estimate between a thousand plain values does not widen them all.

Decoding never copies more than the widening to 64 bits.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

_WIDTHS: Final = (np.dtype("<i1"), np.dtype("<i2"), np.dtype("<i4"), np.dtype("<i8"))
_CONSTANT, _RUNS, _OUTLIERS = 8, 16, 32
_NUMBER: Final = np.dtype("<u4")


@cache
def _kernel() -> ModuleType:
    """Compiled code, which is not loaded by who only reads."""
    from schemas import packing_kernel

    return packing_kernel


def pack(values: npt.NDArray[np.integer]) -> bytes:
    """Any integer array as packed bytes; the inverse is :func:`unpack` given its length."""
    if not len(values):
        return b""
    kernel = _kernel()
    narrow = values if values.dtype in kernel.TAKEN else values.astype(np.int64)
    out = np.empty(kernel.room(len(values)), np.uint8)
    return out[: kernel.pack_into(np.ascontiguousarray(narrow), out)].tobytes()


def unpack(data: bytes, size: int) -> Ints:
    """The array of the given length behind :func:`pack`. Raises ValueError if the bytes do not hold exactly that."""
    if size == 0:
        if data:
            raise ValueError("packed column of length 0 has bytes")
        return np.zeros(0, np.int64)
    if len(data) < 3 or data[0] & ~3 not in (0, _CONSTANT, _RUNS, _OUTLIERS) or data[1] > 6:
        raise ValueError("packed column has a bad head")
    dtype, form, scale = _WIDTHS[data[0] & 3], data[0] & ~3, 10 ** data[1]
    if form == _RUNS:
        lengths, at = _numbers(data, 2, size)
        if int(lengths.sum()) != size or not len(lengths) or int(lengths.min()) < 1:
            raise ValueError(f"packed column has runs of {int(lengths.sum())} values instead of {size}")
        return np.repeat(_values(data, at, dtype, len(lengths), scale), lengths)
    if form == _OUTLIERS:
        places, at = _numbers(data, 2, size)
        if len(places) and int(places.max()) >= size:
            raise ValueError(f"packed column has an outlier behind its {size} values")
        behind = at + 8 * len(places)
        values = _values(data, behind, dtype, size, scale)
        values[places] = np.frombuffer(data, _WIDTHS[3], len(places), at)
        return values
    values = _values(data, 2, dtype, 1 if form else size, scale)
    return np.repeat(values, size) if form else values


def unpack_into(data: bytes, out: npt.NDArray[np.integer]) -> None:
    """As :func:`unpack`, into an array of the right length and of any integer type that holds the values."""
    size = len(out)
    head, scale = (data[0], data[1]) if len(data) > 2 else (255, 0)
    width = 1 << (head & 3)
    if head | 3 | _CONSTANT != 3 | _CONSTANT or scale > 6 or len(data) != 2 + width * (1 if head & _CONSTANT else size):
        out[:] = unpack(data, size)  # another form, or not what was to be expected
        return
    values = np.frombuffer(data, _WIDTHS[head & 3], offset=2)
    if head & _CONSTANT:
        out[:] = int(values[0]) * 10**scale
    elif scale:
        np.multiply(values, 10**scale, out=out, casting="unsafe", dtype=np.int64)
    else:
        out[:] = values


def _numbers(data: bytes, at: int, most: int) -> tuple[Ints, int]:
    """As many uint32 as the one at ``at`` says, and where they end."""
    count = int.from_bytes(data[at : at + 4], "little")
    if count > most or len(data) < at + 4 + 4 * count:
        raise ValueError("packed column ends before its runs or outliers do")
    return np.frombuffer(data, _NUMBER, count, at + 4).astype(np.int64), at + 4 + 4 * count


def _values(data: bytes, at: int, dtype: np.dtype[Any], count: int, scale: int) -> Ints:
    if len(data) - at != dtype.itemsize * count:
        raise ValueError(f"packed column has {len(data) - at} bytes, not those of {count} values")
    values = np.frombuffer(data, dtype, count, at).astype(np.int64)
    if scale > 1:
        values *= scale
    return values
