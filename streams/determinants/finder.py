"""Finds the state rows of many channels at once by what a block says of them: a hash table over bytes, compiled.

A block of scattered corrections names channels that no block named together before. Looking them up one by one as Python strings
costs as much as summing their days.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

Array = npt.NDArray[Any]
_FREE: Final = -1
_SEED: Final = np.uint64(0xCBF29CE484222325)
_PRIME: Final = np.uint64(0x100000001B3)


@njit(cache=True, nogil=True)
def _hashes(offsets: Array, data: Array, out: Array) -> None:
    """FNV-1a of each text, its high bits folded into the low ones that choose the slot."""
    for i in range(len(out)):
        code = _SEED
        for at in range(offsets[i], offsets[i + 1]):
            code = (code ^ np.uint64(data[at])) * _PRIME
        out[i] = code ^ (code >> np.uint64(32))


@njit(cache=True, nogil=True)
def _look(
    offsets: Array, data: Array, hashes: Array, slots: Array, known: Array, begins: Array, texts: Array, out: Array
) -> None:  # fmt: skip
    """The entry of each text, -1 where there is none. Texts are compared byte by byte."""
    mask = np.uint64(len(slots) - 1)
    for i in range(len(out)):
        out[i] = _FREE
        slot, first, size = hashes[i] & mask, offsets[i], offsets[i + 1] - offsets[i]
        while slots[slot] >= 0:
            entry = slots[slot]
            if known[entry] == hashes[i] and begins[entry + 1] - begins[entry] == size:
                same = True
                for k in range(size):
                    if texts[begins[entry] + k] != data[first + k]:
                        same = False
                        break
                if same:
                    out[i] = entry
                    break
            slot = (slot + np.uint64(1)) & mask


@njit(cache=True, nogil=True)
def _place(hashes: Array, first: int, slots: Array) -> None:
    """Puts entries from ``first`` on into free slots."""
    mask = np.uint64(len(slots) - 1)
    for entry in range(first, len(hashes)):
        slot = hashes[entry] & mask
        while slots[slot] >= 0:
            slot = (slot + np.uint64(1)) & mask
        slots[slot] = entry


class Finder:
    """Texts, each with the state row it means. Kept in memory only."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forgets everything."""
        self._size = 0
        self._slots = np.full(1024, _FREE, np.int64)
        self._hashes = np.zeros(512, np.uint64)
        self._begins = np.zeros(513, np.int64)
        self._texts = np.zeros(1 << 14, np.uint8)
        self._rows = np.zeros(512, np.int64)

    def find(self, texts: pa.StringArray) -> Array:
        """The rows of texts, -1 for unknown ones."""
        offsets, data = _buffers(texts)
        hashes, entries = np.zeros(len(texts), np.uint64), np.zeros(len(texts), np.int64)
        _hashes(offsets, data, hashes)
        _look(offsets, data, hashes, self._slots, self._hashes, self._begins, self._texts, entries)
        return np.where(entries >= 0, self._rows[entries], -1)

    def learn(self, texts: pa.StringArray, rows: Array) -> None:
        """Takes texts in that are not known yet, no two alike."""
        offsets, data = _buffers(texts)
        first, self._size = self._size, self._size + len(texts)
        self._hashes, self._rows = _room(self._hashes, self._size), _room(self._rows, self._size)
        self._begins = _room(self._begins, self._size + 1)
        begin = int(self._begins[first])
        self._texts = _room(self._texts, begin + int(offsets[-1] - offsets[0]))
        self._texts[begin : begin + int(offsets[-1] - offsets[0])] = data[int(offsets[0]) : int(offsets[-1])]
        self._begins[first : self._size + 1] = begin + (offsets - offsets[0])
        self._rows[first : self._size] = rows
        _hashes(offsets, data, self._hashes[first : self._size])
        if self._size * 2 > len(self._slots):
            self._slots, first = np.full(1 << int(self._size * 4).bit_length(), _FREE, np.int64), 0
        _place(self._hashes[: self._size], first, self._slots)


def _room(array: Array, size: int) -> Array:
    """The array, twice as long where it is too short."""
    if size <= len(array):
        return array
    return np.concatenate([array, np.zeros(max(size, 2 * len(array)) - len(array), array.dtype)])


def _buffers(texts: pa.StringArray) -> tuple[Array, Array]:
    """Where each text begins (and the last one ends) in the bytes of all."""
    _, offsets, data = texts.buffers()
    bounds = np.frombuffer(offsets, np.int32, len(texts) + 1, texts.offset * 4)
    return bounds, np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
