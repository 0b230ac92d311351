"""Packed columns: integer arrays as bytes, in the narrowest exact form.

Layout: one byte of width code, one byte of scale exponent e, then the values divided by 10^e as little-endian integers.
Meter values are mostly whole Wh held in µkWh: scale 3 and two bytes each instead of eight. A constant column (length above
one) is stored once. Decoding never copies more than the widening to 64 bits.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

_WIDTHS: Final = (np.dtype("<i1"), np.dtype("<i2"), np.dtype("<i4"), np.dtype("<i8"))
_LIMITS: Final = tuple((int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)) for dtype in _WIDTHS)
_CONSTANT: Final = 8
_SCALES: Final = (6, 3)  # tried in this order; 0 is what is left


def pack(values: npt.NDArray[np.integer]) -> bytes:
    """Any integer array as packed bytes; the inverse is :func:`unpack` given its length."""
    size = len(values)
    if size == 0:
        return b""
    low, high = int(values.min()), int(values.max())
    constant = low == high and size > 1
    data = values[:1] if constant else values
    scale = 0
    if high > 127 or low < -128:
        for exponent in _SCALES:
            step = 10**exponent
            if low % step == 0 and high % step == 0:
                reduced = data // step
                if np.array_equal(reduced * step, data):
                    data, scale, low, high = reduced, exponent, low // step, high // step
                    break
    code = next(i for i, (least, most) in enumerate(_LIMITS) if least <= low and high <= most)
    return bytes((code | (_CONSTANT if constant else 0), scale)) + data.astype(_WIDTHS[code]).tobytes()


def unpack(data: bytes, size: int) -> Ints:
    """The array of the given length behind :func:`pack`. Raises ValueError if the bytes do not hold exactly that."""
    if size == 0:
        if data:
            raise ValueError("packed column of length 0 has bytes")
        return np.zeros(0, np.int64)
    if len(data) < 3 or data[0] & ~(_CONSTANT | 3) or data[1] > 6:
        raise ValueError("packed column has a bad head")
    dtype, constant = _WIDTHS[data[0] & 3], bool(data[0] & _CONSTANT)
    if len(data) - 2 != dtype.itemsize * (1 if constant else size):
        raise ValueError(f"packed column has {len(data) - 2} bytes, not those of {size} values")
    values = np.frombuffer(data, dtype, offset=2).astype(np.int64)
    if data[1]:
        values *= 10 ** data[1]
    return np.repeat(values, size) if constant else values


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
