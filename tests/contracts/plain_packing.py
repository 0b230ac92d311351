"""Packed columns in plain NumPy, to compare the compiled ones with."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from schemas.packing import Ints

_WIDTHS = (np.dtype("<i1"), np.dtype("<i2"), np.dtype("<i4"), np.dtype("<i8"))
_LIMITS = tuple((int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)) for dtype in _WIDTHS)
_CONSTANT, _RUNS, _OUTLIERS = 8, 16, 32
_SCALES = (6, 3)
_NUMBER = np.dtype("<u4")
_LONG = 256
_FEW = 64


def pack(values: npt.NDArray[np.integer]) -> bytes:
    """Any integer array as packed bytes; the inverse is :func:`unpack` given its length."""
    size = len(values)
    if size == 0:
        return b""
    low, high = int(values.min()), int(values.max())
    if low == high and size > 1:
        return _plain(values[:1], low, high, _CONSTANT)
    if size < _LONG:
        return _plain(values, low, high, 0)
    head = values[:_LONG]
    if np.count_nonzero(head[1:] != head[:-1]) * 8 < _LONG:
        begins = np.flatnonzero(values[1:] != values[:-1]) + 1
        if len(begins) * 8 < size:
            bounds = np.concatenate([[0], begins, [size]])
            return _plain(values[bounds[:-1]], low, high, _RUNS, np.diff(bounds).astype(_NUMBER).tobytes())
    return _with_outliers(values.astype(np.int64, copy=False), low, high)


def _plain(values: npt.NDArray[np.integer], low: int, high: int, form: int, before: bytes = b"") -> bytes:
    """Scaled and as narrow as all values allow, behind ``before``."""
    data, scale = values, 0
    if high > 127 or low < -128:
        for exponent in _SCALES:
            step = 10**exponent
            if low % step == 0 and high % step == 0:
                reduced = data // step
                if np.array_equal(reduced * step, data):
                    data, scale, low, high = reduced, exponent, low // step, high // step
                    break
    code = _width(low, high)
    count = len(values).to_bytes(4, "little") if form == _RUNS else b""
    return bytes((code | form, scale)) + count + before + data.astype(_WIDTHS[code]).tobytes()


def _width(low: int, high: int) -> int:
    return next(i for i, (least, most) in enumerate(_LIMITS) if least <= low and high <= most)


def _with_outliers(values: Ints, low: int, high: int) -> bytes:
    """In the scale and width that all but a few values fit."""
    size = len(values)
    most, sample = size // _FEW, values[:: size // _LONG]
    data, scale, odd = values, 0, np.zeros(0, np.int64)
    for exponent in _SCALES if high > 127 or low < -128 else ():
        step = 10**exponent
        if np.count_nonzero(sample % step) * 16 > len(sample):
            continue
        reduced = values // step
        uneven = np.flatnonzero(reduced * step != values)
        if len(uneven) <= most:
            data, scale, odd = reduced, exponent, uneven
            data[odd] = 0
            low, high = int(data.min()), int(data.max())
            break
    code = _width(low, high)
    if code:
        least, most_ = _LIMITS[code - 1]
        far = np.flatnonzero((data < least) | (data > most_))
        if len(far) and len(odd) + len(far) <= most:
            data = data if scale else data.copy()
            data[far] = 0
            odd, code = np.sort(np.concatenate([odd, far])), code - 1
    if not len(odd):
        return bytes((code, scale)) + data.astype(_WIDTHS[code]).tobytes()
    parts = (len(odd).to_bytes(4, "little"), odd.astype(_NUMBER).tobytes(), values[odd].astype(_WIDTHS[3]).tobytes())
    return bytes((code | _OUTLIERS, scale)) + b"".join(parts) + data.astype(_WIDTHS[code]).tobytes()
