"""Compiled sums by time-of-use line. One pass over values and conditions, in 64-bit integers."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit, types

from schemas import conditions as c

Array = npt.NDArray[Any]
_USABLE: Final = c.OUTAGE
_GOOD: Final = c.REGULAR

# Classes of conditions, worst first; an aggregate reports the bottom of its worst class. Regular, edited and verified values are
# one class: all of them are as good as measured.
BOTTOMS: Final = np.array([100, 100_000, 200_000, 300_000, 350_000, 400_000, 450_000, 500_000], np.int64)
INVALID, MISSING, GOOD = 0, 1, 7
CLASSES: Final = len(BOTTOMS)
_NOT_DUE: Final = CLASSES
_CLASS_OF: Final = np.full(8_000, _NOT_DUE, np.int64)  # by code // 100
_CLASS_OF[1:] = np.searchsorted(BOTTOMS, np.arange(1, 8_000) * 100, side="right") - 1
_BEYOND: Final = c.INVALID
_NONE: Final = np.iinfo(np.int64).max


@njit("Tuple((int64[:], int64[:]))(int64[:], int32[:], int64[:], int64)", cache=True, nogil=True)
def _line_sums(values: Array, conditions: Array, lines: Array, width: int) -> Any:
    sums, due = np.zeros(width, np.int64), np.zeros(width, np.int64)
    for i in range(len(values)):
        code = conditions[i]
        if code > 0:
            due[lines[i]] += 1
            if code >= _USABLE:
                sums[lines[i]] += values[i]
    return sums, due


def line_sums(values: Array, conditions: Array, lines: Array, width: int) -> tuple[Array, Array]:
    """Sums of usable values (int64) and number of due slots by line, of one long row of intervals."""
    found: tuple[Array, Array] = _line_sums(
        np.ascontiguousarray(values, np.int64), np.ascontiguousarray(conditions, np.int32), np.ascontiguousarray(lines, np.int64), width
    )
    return found


@njit("void(int64[:, :], int32[:, :], int64[:], int64[:], int64[:, :], int32[:, :], int32[:, :])", cache=True, nogil=True)
def day_sums(values: Array, conditions: Array, starts: Array, runs: Array, sums: Array, good: Array, due: Array) -> None:
    """Sums of whole days by line: rows × slots into rows × lines of ``sums``, measured (``good``) and due slots, which begin as zeros.

    ``starts`` are the first slots of runs of equal lines, ``runs`` the line of each (streams.determinants.maps.Vector).
    """
    slots, parts = values.shape[1], len(starts)
    for row in range(values.shape[0]):
        for part in range(parts):
            end = starts[part + 1] if part + 1 < parts else slots
            amount, actual, all_ = 0, 0, 0
            for slot in range(starts[part], end):
                code = conditions[row, slot]
                amount += values[row, slot] if code >= _USABLE else 0
                actual += code >= _GOOD
                all_ += code > 0
            line = runs[part]
            sums[row, line] += amount
            good[row, line] += actual
            due[row, line] += all_


_INTS: Final = types.Array(types.int64, 1, "C", readonly=True)
_DAYS: Final = types.Array(types.int64, 2, "C", readonly=True)
_CODES: Final = types.Array(types.int32, 2, "C", readonly=True)


@njit(
    types.void(_DAYS, _CODES, _INTS, _INTS, _INTS, _INTS, types.int64[:, ::1], types.int64[:, :, ::1], types.int64[::1]),
    cache=True,
    nogil=True,
)
def class_sums(
    values: Array, conditions: Array, rows: Array, limits: Array, starts: Array, runs: Array, sums: Array, counts: Array, lowest: Array
) -> None:
    """Sums of whole days by line, slots by line and class, and the lowest condition (0: nothing due), into ``rows`` of the last three.

    These hold zeros. Values of larger magnitude than their row's limit count as invalid; invalid and missing ones add nothing.
    """
    slots, parts = values.shape[1], len(starts)
    for k in range(len(rows)):
        row, limit = rows[k], limits[k]
        low: Any = _NONE
        for part in range(parts):
            first, line = starts[part], runs[part]
            end = starts[part + 1] if part + 1 < parts else slots
            amount, odd = 0, 0
            least: Any = _NONE
            for slot in range(first, end):
                value, code = values[k, slot], np.int64(conditions[k, slot])
                amount += value
                odd += (code < _GOOD) | (value > limit) | (value < -limit)
                least = min(least, code)
            if not odd:
                sums[row, line] += amount
                counts[row, line, GOOD] += end - first
                low = min(low, least)
                continue
            for slot in range(first, end):
                value = values[k, slot]
                code = np.int64(conditions[k, slot])
                kind = _CLASS_OF[code // 100]
                if kind == _NOT_DUE:
                    continue
                if value > limit or value < -limit:
                    kind = INVALID
                    code = min(code, np.int64(_BEYOND))
                low = min(low, code)
                counts[row, line, kind] += 1
                if kind > MISSING:
                    sums[row, line] += value
        lowest[row] = 0 if low == _NONE else low


class Ring(NamedTuple):
    """Columns of the newest days and billing periods of channels (streams.determinants.intervals.make_table)."""

    r_day: Array
    r_map: Array
    r_quantities: Array
    r_good: Array
    r_poor: Array
    period: Array
    map: Array
    days: Array
    held: Array
    quantities: Array
    good: Array
    poor: Array
    dirty: Array
    touched: Array
    version: Array
    unsaid: Array


class NewDays(NamedTuple):
    """Days to be added, one row each: state rows, the day and its period and map, sums and slots by line and class, its bit."""

    channels: Array
    rings: Array
    day: Array
    period: Array
    maps: Array
    quantities: Array
    counts: Array
    bit: Array
    held: Array


@njit(cache=True, nogil=True)
def add_new(table: Ring, new: NewDays, taken: Array, now: int, none: int) -> None:
    """Adds days that were not known before, each of another channel, to a period that is there or whose place is empty.

    ``taken`` says which may be, and afterwards which were. What is not so plain is left to the caller. ``none`` is the period of an
    empty place.
    """
    places, width = table.period.shape[1], table.quantities.shape[2]
    for k in range(len(taken)):
        row, ring, day = new.channels[k], new.rings[k], new.day[k]
        place = new.period[k] % places
        had = table.period[row, place]
        oldest = 0
        known = False
        for i in range(table.r_day.shape[1]):
            known |= table.r_day[ring, i] == day
            if table.r_day[ring, i] < table.r_day[ring, oldest]:
                oldest = i
        if not taken[k] or known or (had != none and had != new.period[k]):
            taken[k] = False
            continue
        number = new.maps[k] if had == none else np.int64(table.map[row, place])
        alike = number == new.maps[k]
        flat = not alike or number <= 0
        if flat:
            for line in range(1, width):
                table.quantities[row, place, 0] += table.quantities[row, place, line]
                table.good[row, place, 0] += table.good[row, place, line]
                table.quantities[row, place, line], table.good[row, place, line] = 0, 0
                for kind in range(GOOD):
                    table.poor[row, place, 0, kind] += table.poor[row, place, line, kind]
                    table.poor[row, place, line, kind] = 0
        sent = table.version[row, place] > 0
        for line in range(width):
            into = 0 if flat else line
            if sent:
                table.unsaid[row, place, line] += new.quantities[k, line]
            table.quantities[row, place, into] += new.quantities[k, line]
            table.good[row, place, into] += new.counts[k, line, GOOD]
            for kind in range(GOOD):
                table.poor[row, place, into, kind] += new.counts[k, line, kind]
        table.period[row, place] = new.period[k]
        table.map[row, place] = number if alike else -max(abs(number), new.maps[k])
        table.days[row, place] |= new.bit[k]
        table.held[row, place] = (table.held[row, place] & ~new.bit[k]) | new.held[k]
        table.dirty[row, place], table.touched[row, place] = 1, now
        if day > table.r_day[ring, oldest]:
            table.r_day[ring, oldest], table.r_map[ring, oldest] = day, new.maps[k]
            for line in range(width):
                table.r_quantities[ring, oldest, line] = new.quantities[k, line]
                table.r_good[ring, oldest, line] = new.counts[k, line, GOOD]
                for kind in range(GOOD):
                    table.r_poor[ring, oldest, line, kind] = new.counts[k, line, kind]


@njit(
    "void(int64[:], int64[:], int64[:], int32[:], int64[:, :], int32[:, :], int64[:], int64[:, :], int32[:, :], int32[:, :])",
    cache=True,
    nogil=True,
)
def correct_sums(
    rows: Array,
    slots: Array,
    fresh: Array,
    codes: Array,
    values: Array,
    conditions: Array,
    lines: Array,
    sums: Array,
    good: Array,
    due: Array,
) -> None:
    """Corrects single reads: adds the difference of each to its row's line and takes it over into ``values`` and ``conditions``."""
    for k in range(len(rows)):
        row, slot = rows[k], slots[k]
        line, code, was = lines[slot], codes[k], conditions[row, slot]
        sums[row, line] += (fresh[k] if code >= _USABLE else 0) - (values[row, slot] if was >= _USABLE else 0)
        good[row, line] += (code >= _GOOD) - (was >= _GOOD)
        due[row, line] += (code > 0) - (was > 0)
        values[row, slot], conditions[row, slot] = fresh[k], code


def warm() -> None:
    """Loads or compiles the kernels: one new day goes through the agent."""
    from schemas.block import FinalBlock, strings
    from schemas.topology.tou import DeterminantsSettings
    from streams.determinants.fold import DeterminantsFold
    from streams.runtime.fold import Message

    line_sums(np.zeros(1, np.int64), np.zeros(1, np.int32), np.zeros(1, np.int64), 1)
    zero, none, empty = np.zeros(1, np.int64), np.zeros(1, np.int32), np.zeros(0, np.int64)
    one = strings(["-"])
    block = FinalBlock(
        id="warm", payload="", source="", device=one, channel=one, unit=strings(["kWh"]), service_point=one, account=strings([""]),
        zone=strings(["UTC"]), direction=np.zeros(1, np.int8), day=none, start=zero, seconds=np.full(1, 3600, np.int32),
        count=np.full(1, 24, np.int32), reads=none, version=zero, replaces=zero, state=np.zeros(1, np.int8), dials=np.zeros(1, np.int8),
        multiplier=zero, values=np.zeros(24, np.int64), conditions=np.full(24, c.REGULAR, np.int32), methods=np.zeros(24, np.int8),
        times=empty, received_count=none, received=empty, received_conditions=np.zeros(0, np.int32), before_count=none, before=empty,
        before_conditions=np.zeros(0, np.int32),
    )  # fmt: skip
    DeterminantsFold(DeterminantsSettings(), 0, 1).apply(Message("FinalBlock", block, block.id))
