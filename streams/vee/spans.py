"""Rows of intervals cut into local days."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from schemas.block import starts_of
from streams.calendar import day_of, day_starts
from streams.sorting import distinct
from streams.vee.batch import Array, Ints, Mask

DAILY = 86_400


@dataclass(slots=True)
class Segments:
    """Parts of rows, each inside one local day: ``size`` slots from ``slot``; values from ``source`` in ``values`` and ``codes``.

    ``row`` is the row of the ring table, ``origin`` the row of the block, ``time`` the UTC second of the first slot.
    """

    row: Ints
    day: Ints
    slot: Ints
    size: Ints
    source: Ints
    time: Ints
    origin: Ints
    values: Ints
    codes: Array

    def __len__(self) -> int:
        return len(self.row)

    def take(self, chosen: Array) -> Segments:
        """Some of the segments; values stay where they are."""
        return Segments(
            self.row[chosen], self.day[chosen], self.slot[chosen], self.size[chosen], self.source[chosen], self.time[chosen],
            self.origin[chosen], self.values, self.codes,
        )  # fmt: skip


def cut(start: Ints, count: Array, seconds: int, zone: Array, zones: list[str]) -> tuple[Ints, ...]:
    """Cuts rows at local midnights. Returns origin, day, first slot, size, position in the row, phase, and the day's slots of each part.

    The phase is how far behind a multiple of the interval length, counted from midnight, the intervals start. Parts come row by
    row in the order of time. Rows outside the calendar (1970-2100) give parts with day -1.
    """
    parts = [_cut(np.flatnonzero(zone == z), start, count, seconds, zones[z]) for z in distinct(zone).tolist()]
    if len(parts) == 1:
        return parts[0]
    joined = tuple(np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = np.argsort(joined[0], kind="stable")
    return tuple(column[order] for column in joined)


def _cut(rows: Ints, start: Ints, count: Array, seconds: int, zone: str) -> tuple[Ints, ...]:
    begins, sizes = start[rows], count[rows].astype(np.int64)
    midnights = day_starts(zone)
    first, last = day_of(zone, begins), day_of(zone, begins + (sizes - 1) * seconds)
    first, last = np.where(last >= len(midnights) - 1, -1, first), np.where((last >= len(midnights) - 1) | (first < 0), -1, last)
    parts = np.maximum(0, last - first + 1)
    which = np.repeat(np.arange(len(rows)), parts)
    day = np.repeat(first - starts_of(parts), parts) + np.arange(len(which))
    begin, size = begins[which], sizes[which]
    inside = np.maximum(0, -((begin - midnights[day]) // seconds))  # intervals of the row before this midnight
    behind = np.minimum(size, -((begin - midnights[day + 1]) // seconds))
    valid = day >= 0
    inside, behind = np.where(valid, inside, 0), np.where(valid, behind, size)
    offset = begin + inside * seconds - midnights[day]
    slot, phase = offset // seconds, offset % seconds
    slots = np.maximum(1, (midnights[day + 1] - midnights[day]) // seconds)
    if seconds >= DAILY:
        slot, phase = np.zeros_like(slot), offset
    keep = behind > inside
    return tuple(column[keep] for column in (rows[which], day, slot, behind - inside, inside, phase, slots))


def summary(
    values: Ints, codes: Array, closed: Mask, counts: Array, opening: Array, ending: Array, *, head: bool
) -> tuple[Ints, Ints, Mask]:
    """What a day shows to its neighbour: how many slots at the edge are due and empty, then the value, and if it can be leant on.

    ``head``: seen from the day before, else from the day after. Slots can be due
    from ``opening`` to before ``ending``.
    """
    rows, width = codes.shape
    slots = np.arange(width)
    empty = (codes < 2000) & ((codes > 0) | (closed[:, None] & (slots >= opening[:, None]) & (slots < ending[:, None])))
    stop = ~empty & (slots < counts[:, None])
    any_ = stop.any(axis=1)
    if head:
        at = stop.argmax(axis=1)
        run = np.where(any_, at, counts)
    else:
        at = width - 1 - stop[:, ::-1].argmax(axis=1)
        run = np.where(any_, counts - 1 - at, counts)
    line = np.arange(rows)
    return run.astype(np.int64), values[line, at], any_ & (codes[line, at] >= 3000)
