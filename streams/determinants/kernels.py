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
_FIRST_ESTIMATE, _BEHIND_ESTIMATES = 3, 6
ESTIMATED: Final = slice(_FIRST_ESTIMATE, _BEHIND_ESTIMATES)
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
    """Days to be added, one row each: state rows, the day and its period and map, sums and slots by line and class, its bit.

    ``first`` says that VEE tells a day for the first time, so that nothing of it can be in the sums.
    """

    channels: Array
    rings: Array
    day: Array
    period: Array
    maps: Array
    quantities: Array
    counts: Array
    bit: Array
    held: Array
    first: Array


@njit(cache=True, nogil=True)
def _place_of(days: Array, day: int) -> tuple[int, bool]:
    """Where a ring holds a day, else where it holds its oldest; and whether it does."""
    oldest = 0
    for i in range(len(days)):
        if days[i] == day:
            return i, True
        if days[i] < days[oldest]:
            oldest = i
    return oldest, False


@njit(cache=True, nogil=True)
def _one_line(table: Ring, row: int, place: int, width: int) -> None:
    """Puts a period's slots and quantities on its first line."""
    for line in range(1, width):
        table.quantities[row, place, 0] += table.quantities[row, place, line]
        table.good[row, place, 0] += table.good[row, place, line]
        table.quantities[row, place, line], table.good[row, place, line] = 0, 0
        for kind in range(GOOD):
            table.poor[row, place, 0, kind] += table.poor[row, place, line, kind]
            table.poor[row, place, line, kind] = 0


@njit(cache=True, nogil=True)
def add_days(table: Ring, new: NewDays, taken: Array, now: int, none: int) -> None:
    """Adds days, each of another channel, to a period that is there or whose place is empty: whole where a day was not known before, the
    difference where the ring holds it under the same map.

    ``taken`` says which may be, and afterwards which were. What is not so plain is left to the caller. ``none`` is the period of an
    empty place.
    """
    places, width = table.period.shape[1], table.quantities.shape[2]
    for k in range(len(taken)):
        row, ring, day = new.channels[k], new.rings[k], new.day[k]
        place = new.period[k] % places
        had = table.period[row, place]
        at, known = _place_of(table.r_day[ring], day)
        plain = table.r_map[ring, at] == new.maps[k] and had == new.period[k] if known else new.first[k]
        if not taken[k] or not plain or (had != none and had != new.period[k]):
            taken[k] = False
            continue
        number = new.maps[k] if had == none else np.int64(table.map[row, place])
        alike = number == new.maps[k]
        flat = not alike or number <= 0
        if flat:
            _one_line(table, row, place, width)
        sent = table.version[row, place] > 0
        for line in range(width):
            into = 0 if flat else line
            amount = new.quantities[k, line] - (table.r_quantities[ring, at, line] if known else 0)
            table.quantities[row, place, into] += amount
            if sent:
                table.unsaid[row, place, line] += amount
            table.good[row, place, into] += new.counts[k, line, GOOD] - (np.int64(table.r_good[ring, at, line]) if known else 0)
            for kind in range(GOOD):
                table.poor[row, place, into, kind] += new.counts[k, line, kind] - (
                    np.int64(table.r_poor[ring, at, line, kind]) if known else 0
                )
        table.period[row, place] = new.period[k]
        table.map[row, place] = number if alike else -max(abs(number), new.maps[k])
        table.days[row, place] |= new.bit[k]
        table.held[row, place] = (table.held[row, place] & ~new.bit[k]) | new.held[k]
        table.dirty[row, place], table.touched[row, place] = 1, now
        if known or day > table.r_day[ring, at]:
            table.r_day[ring, at], table.r_map[ring, at] = day, new.maps[k]
            for line in range(width):
                table.r_quantities[ring, at, line] = new.quantities[k, line]
                table.r_good[ring, at, line] = new.counts[k, line, GOOD]
                for kind in range(GOOD):
                    table.r_poor[ring, at, line, kind] = new.counts[k, line, kind]


@njit(
    types.void(
        types.Array(types.int64, 2, "C"), types.Array(types.int64, 3, "C"), types.int64[::1], types.int64[::1], types.int8[:, ::1],
        types.int32[:, ::1], types.int8[::1], types.int8[::1], types.int64[::1],
    ),
    cache=True,
    nogil=True,
)  # fmt: skip
def tell_days(
    quantities: Array, counts: Array, maps: Array, sizes: Array, names: Array, slots: Array, lines: Array, tou: Array, told: Array
) -> None:
    """Days as they are told: of each row slots due, measured and estimated (``slots``), how many ``lines`` it has, and flat, one row after
    the other, the name (``tou``) and amount (``told``) of each: the whole day, then the lines of its map.

    ``sizes`` is how many lines a map has (0: the day is not mapped), ``names`` the names of these, by map number.
    """
    at = 0
    for row in range(len(maps)):
        size, whole = sizes[maps[row]], np.int64(0)
        for line in range(quantities.shape[1]):
            whole += quantities[row, line]
            for kind in range(CLASSES):
                many = counts[row, line, kind]
                slots[row, 0] += many
                slots[row, 1] += many if kind == GOOD else 0
                slots[row, 2] += many if _FIRST_ESTIMATE <= kind < _BEHIND_ESTIMATES else 0
        lines[row], tou[at], told[at] = 1 + size, 0, whole
        for line in range(size):
            tou[at + 1 + line], told[at + 1 + line] = names[maps[row], line], quantities[row, line]
        at += 1 + size


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
