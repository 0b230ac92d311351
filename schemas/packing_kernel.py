"""The compiled side of packed columns: :mod:`schemas.packing` says what their bytes mean. Loaded on first use."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numba import njit, types

Array = npt.NDArray[Any]

CONSTANT, RUNS, OUTLIERS = 8, 16, 32
_LONG: Final = 256  # shorter columns have neither runs nor outliers
_FEW: Final = 64  # one value in so many may be an outlier
_NARROW: Final = 128  # numbers below are not scaled: they take one byte anyway
_TYPES: Final = (types.int64, types.int32, types.uint16)
TAKEN: Final = frozenset(np.dtype(str(kind)) for kind in _TYPES)
_SIGNATURES: Final = [types.int64(types.Array(kind, 1, "C", readonly=True), types.uint8[::1]) for kind in _TYPES]


def room(size: int) -> int:
    """Bytes that are enough for any column of a length."""
    return 16 + 8 * size + 12 * (size // _FEW)


@njit(cache=True, nogil=True)
def _width(low: int, high: int) -> int:
    for code in range(3):
        bound = 1 << ((8 << code) - 1)
        if -bound <= low and high < bound:
            return code
    return 3


@njit(cache=True, nogil=True)
def _put(out: Array, at: int, data: Array) -> int:
    """Adds the bytes of an array; returns where they end."""
    raw = data.view(np.uint8)
    out[at : at + len(raw)] = raw
    return at + len(raw)


@njit(cache=True, nogil=True)
def _put_narrow(out: Array, at: int, data: Array, code: int) -> int:
    if code == 0:
        return _put(out, at, data.astype(np.int8))
    if code == 1:
        return _put(out, at, data.astype(np.int16))
    if code == 2:
        return _put(out, at, data.astype(np.int32))
    return _put(out, at, data)


@njit(inline="always")
def _reduced(values: Array, data: Array, odd: Array, most: int, step: int) -> int:
    """Divides all but at most ``most`` values; returns how many do not divide, -1 for more. Those are 0 in ``data``."""
    found = 0
    for i in range(len(values)):
        value = np.int64(values[i])
        part: Any = value // step
        if part * step != value:
            if found == most:
                return -1
            odd[found] = i
            found += 1
            part = 0
        data[i] = part
    return found


@njit(cache=True, nogil=True)
def _plain(values: Array, low: Any, high: Any, form: int, lengths: Array, out: Array) -> int:
    """Scaled and as narrow as all values allow, behind the lengths of runs."""
    data, scale, none = values, 0, np.empty(0, np.int64)
    step: Any = 1
    if high >= _NARROW or low < -_NARROW:
        reduced = np.empty(len(values), np.int64)
        if low % 1_000_000 == 0 and high % 1_000_000 == 0 and _reduced(values, reduced, none, 0, 1_000_000) == 0:
            data, scale, step = reduced, 6, 1_000_000
        elif low % 1000 == 0 and high % 1000 == 0 and _reduced(values, reduced, none, 0, 1000) == 0:
            data, scale, step = reduced, 3, 1000
    code = _width(low // step, high // step)
    out[0], out[1], at = code | form, scale, 2
    if form == RUNS:
        at = _put(out, at, np.array([len(lengths)], np.uint32))
        at = _put(out, at, lengths)
    return _put_narrow(out, at, data, code)


@njit(cache=True, nogil=True)
def _uneven(values: Array, step: int) -> bool:
    """Whether a sample says that too many values do not divide."""
    stride = len(values) // _LONG
    size, uneven = 0, 0
    for i in range(0, len(values), stride):
        size += 1
        uneven += np.int64(values[i]) % step != 0
    return uneven * 16 > size


@njit(cache=True, nogil=True)
def _with_outliers(values: Array, low: Any, high: Any, out: Array) -> int:
    """In the scale and width that all but a few values fit."""
    size = len(values)
    most = size // _FEW
    data, odd, found, scale = np.empty(size, np.int64), np.empty(most, np.int64), -1, 0
    if high >= _NARROW or low < -_NARROW:
        if not _uneven(values, 1_000_000):
            found, scale = _reduced(values, data, odd, most, 1_000_000), 6
        if found < 0 and not _uneven(values, 1000):
            found, scale = _reduced(values, data, odd, most, 1000), 3
    if found < 0:
        found, scale = 0, 0
        for i in range(size):
            data[i] = values[i]
    else:
        low, high = data[0], data[0]
        for i in range(size):
            low, high = min(low, data[i]), max(high, data[i])
    code = _width(low, high)
    if code:
        bound, far = 1 << ((8 << (code - 1)) - 1), 0
        for i in range(size):
            far += data[i] < -bound or data[i] >= bound
        if far and found + far <= most:
            code -= 1
            for i in range(size):
                if data[i] < -bound or data[i] >= bound:
                    odd[found], data[i] = i, 0
                    found += 1
    if not found:
        out[0], out[1] = code, scale
        return _put_narrow(out, 2, data, code)
    places = np.sort(odd[:found])
    kept = np.empty(found, np.int64)
    for k in range(found):
        kept[k] = values[places[k]]
    out[0], out[1] = code | OUTLIERS, scale
    at = _put(out, 2, np.array([found], np.uint32))
    at = _put(out, at, places.astype(np.uint32))
    return _put_narrow(out, _put(out, at, kept), data, code)


@njit(_SIGNATURES, cache=True, nogil=True)
def pack_into(values: Array, out: Array) -> int:
    """Writes the packed column into ``out``, which has :func:`room`; returns its length. ``values`` are not empty."""
    size, none = len(values), np.empty(0, np.uint32)
    low, high = values[0], values[0]
    for i in range(size):
        low, high = min(low, values[i]), max(high, values[i])
    least, largest = np.int64(low), np.int64(high)
    if low == high and size > 1:
        return _plain(np.array([least]), least, largest, CONSTANT, none, out)
    if size < _LONG:
        return _plain(values.astype(np.int64), least, largest, 0, none, out)
    ahead, changes = values[1:], 0
    for i in range(_LONG - 1):
        changes += ahead[i] != values[i]
    if changes * 8 < _LONG:
        changes = 0
        for i in range(size - 1):
            changes += ahead[i] != values[i]
        if changes * 8 < size:
            ends, heads, run = np.empty(changes + 1, np.uint32), np.empty(changes + 1, np.int64), 0
            for i in range(size - 1):  # without a branch: the last end written to a place counts
                ends[run] = i + 1
                run += ahead[i] != values[i]
            ends[changes] = size
            for run in range(changes + 1):
                heads[run] = values[ends[run] - 1]
            for run in range(changes, 0, -1):
                ends[run] -= ends[run - 1]
            return _plain(heads, least, largest, RUNS, ends, out)
    return _with_outliers(values, least, largest, out)
