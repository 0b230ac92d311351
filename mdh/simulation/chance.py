"""Chance by counting: a random number is a hash of seed, purpose and coordinates, so it can be drawn in any order."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]
BILLION: Final = 1_000_000_000
_STEP: Final = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIERS: Final = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))


def _mix(words: Words) -> Words:
    for shift, factor in _MULTIPLIERS:
        words = (words ^ (words >> shift)) * factor
    return words ^ (words >> np.uint64(31))


def draw(seed: int, purpose: str, *axes: Any) -> Words:
    """64 random bits per coordinate; the axes broadcast (``meters[:, None], slots``)."""
    with np.errstate(over="ignore"):
        words = _mix(np.atleast_1d(np.uint64(seed % 2**64) + np.uint64(int.from_bytes(purpose.encode()[:8].ljust(8), "little"))))
        for axis in axes:
            words = _mix(words + np.asarray(axis).astype(np.uint64) * _STEP + _STEP)
    return words


def below(words: Words, limit: Any) -> npt.NDArray[np.int64]:
    """A whole number from 0 to ``limit`` - 1 from the upper half of each word."""
    return (((words >> np.uint64(32)) * np.asarray(limit).astype(np.uint64)) >> np.uint64(32)).astype(np.int64)


def hits(words: Words, rate: float) -> npt.NDArray[np.bool_]:
    """True for the share ``rate`` of the words."""
    return below(words, BILLION) < round(rate * BILLION)
