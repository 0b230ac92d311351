"""Register readings that have left the state, for as long as something needs them.

A register keeps its newest readings. What concerns an older time asks the store for a *window*: the readings of a UTC day with up to
:data:`AROUND` before and behind it. Windows are answers like any other (streams/vee/parking.py, interval length 0), and are forgotten when
nothing waits for them; what lies between two windows is not known, so readings of one *run* of windows only are neighbours.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa

from schemas import conditions
from schemas.block import FinalBlock, starts_of, strings
from streams.vee.admission import convert, factor
from streams.vee.batch import Array, Ints
from streams.vee.merging import STEP

AROUND: Final = 40  # readings before and behind the day of a window, if there are so many
DAY: Final = 86_400
_EVER: Final = 1 << 62
_MISSING: Final = conditions.REPORTED_MISSING // STEP


@dataclass(frozen=True, slots=True)
class StoredReading:
    """A reading as the store has it: final value in millionths, condition, method and version."""

    at: int
    value: int
    condition: int
    method: int
    version: int


def around(readings: Sequence[StoredReading], day: int) -> list[StoredReading]:
    """Of a register's readings, ascending, those of a window."""
    times = [one.at for one in readings]
    first, behind = bisect_left(times, day * DAY), bisect_left(times, (day + 1) * DAY)
    return list(readings[max(0, first - AROUND) : behind + AROUND])


def answer(
    device: str, channel: str, unit: str, day: int, window: Sequence[StoredReading], *, id: str = "", payload: str = ""
) -> FinalBlock:
    """A window as the answer to a recall: a row for each version among its readings, or one without readings."""
    versions = sorted({one.version for one in window}) or [0]
    parts = [[one for one in window if one.version == version] for version in versions]
    flat = [one for part in parts for one in part]
    count = np.array([len(part) for part in parts], np.int32)
    rows, none, zero = len(parts), np.zeros(0, np.int64), np.zeros(len(parts), np.int32)

    def repeated(text: str) -> pa.StringArray:
        return strings([text] * rows)

    return FinalBlock(
        id=id, payload=payload, source="store", device=repeated(device), channel=repeated(channel), unit=repeated(unit),
        service_point=repeated(""), account=repeated(""), zone=repeated(""), direction=zero.astype(np.int8),
        day=np.full(rows, day, np.int32), start=np.array([part[0].at if part else 0 for part in parts], np.int64), seconds=zero,
        count=count, reads=count, version=np.array(versions, np.int64), replaces=np.zeros(rows, np.int64), state=zero.astype(np.int8),
        dials=zero.astype(np.int8), multiplier=np.zeros(rows, np.int64), values=np.array([one.value for one in flat], np.int64),
        conditions=np.array([one.condition for one in flat], np.int32), methods=np.array([one.method for one in flat], np.int8),
        times=np.array([one.at for one in flat], np.int64), received_count=zero, received=none,
        received_conditions=none.astype(np.int32), before_count=zero, before=none, before_conditions=none.astype(np.int32),
    )  # fmt: skip


@dataclass(slots=True)
class Window:
    """A window that has come: the rows of one register and day of an answer."""

    day: int
    source: FinalBlock

    def block(self) -> FinalBlock:
        """The rows as a block of their own."""
        return self.source

    def span(self) -> tuple[int, int]:
        """From when to when nothing of the register is missing here; without end where the store has nothing more."""
        begin, end = self.day * DAY, (self.day + 1) * DAY
        before = int((self.source.times < begin).sum())
        behind = int((self.source.times >= end).sum())
        first, last = (int(self.source.times.min()), int(self.source.times.max())) if len(self.source.times) else (begin, end)
        return (min(first, begin) if before >= AROUND else -_EVER), (max(last, end - 1) if behind >= AROUND else _EVER)


def windows_of(block: FinalBlock) -> list[tuple[tuple[str, str], Window]]:
    """The windows among the rows of an answer, with device and channel."""
    rows = np.flatnonzero(block.seconds == 0)
    places: dict[tuple[str, str, int], list[int]] = {}
    for row in rows.tolist():
        places.setdefault((block.device[row].as_py(), block.channel[row].as_py(), int(block.day[row])), []).append(row)
    return [((device, channel), Window(day, block.take(np.array(own)))) for (device, channel, day), own in places.items()]


def overlaid(block: FinalBlock, told: Sequence[FinalBlock]) -> FinalBlock:
    """Windows as an answer, with what was told of their registers since put over them."""
    parts = [block]
    for (device, channel), window in windows_of(block):
        inside = window.source.times
        first, last = min([window.day * DAY, *inside.tolist()]), max([(window.day + 1) * DAY - 1, *inside.tolist()])
        for other in told:
            begins, times = starts_of(other.count), starts_of(other.reads)
            for row in np.flatnonzero(other.reads > 0).tolist():
                if (other.device[row].as_py(), other.channel[row].as_py()) != (device, channel):
                    continue
                cells = int(begins[row]) + np.arange(int(other.count[row]))
                at = other.times[int(times[row]) : int(times[row]) + len(cells)]
                columns = zip(at, *(column[cells] for column in (other.values, other.conditions, other.methods)), strict=True)
                own = (tuple(map(int, one)) for one in columns if first <= one[0] <= last)
                readings = [StoredReading(t, value, code, method, int(other.version[row])) for t, value, code, method in own]
                if readings:
                    parts.append(answer(device, channel, other.unit[row].as_py(), window.day, readings))
    return FinalBlock.join(parts) if len(parts) > 1 else block


@dataclass(slots=True)
class Older:
    """The older readings at hand of one register, ascending: as received, with what was published in the place of missing ones.

    ``starts`` are the times at which runs begin: of neighbours in the list those in one run are neighbours of the register, too.
    """

    at: Ints
    value: Ints
    code: Array  # hundredths
    version: Ints
    estimate: Ints
    estimated: Ints  # hundredths, 0: none
    starts: Ints = field(default_factory=lambda: np.array([-_EVER], np.int64))
    ends: Ints = field(default_factory=lambda: np.array([_EVER], np.int64))

    @classmethod
    def of(cls, windows: Sequence[Window], unit: str, kept: int) -> Older:
        """What windows hold older than the ``kept`` first reading of the state, in the channel's unit."""
        found: dict[int, tuple[int, int, int, int]] = {}
        for window in windows:
            block, begins, times = window.source, starts_of(window.source.count), starts_of(window.source.reads)
            for row in range(len(block)):
                cells = slice(int(begins[row]), int(begins[row]) + int(block.count[row]))
                values, ratio = block.values[cells], factor(block.unit[row].as_py(), unit) if len(block.values[cells]) else None
                values = values * 0 if ratio is None else values if ratio == 1 else convert(values, ratio)
                codes, methods = block.conditions[cells].tolist(), block.methods[cells].tolist()
                own = block.times[int(times[row]) : int(times[row]) + int(block.reads[row])].tolist()
                for at, value, code, method in zip(own, values.tolist(), codes, methods, strict=True):
                    if at < kept and code and (at not in found or found[at][3] < block.version[row]):
                        found[at] = (value, code // STEP, method, int(block.version[row]))
        at = sorted(found)
        value, code, method, version = (np.array([found[t][k] for t in at], np.int64) for k in range(4))
        made = method > 0
        starts, ends = _runs([*(window.span() for window in windows), (kept, _EVER)])
        return cls(
            np.array(at, np.int64), np.where(made, 0, value), np.where(made, _MISSING, code).astype(np.uint16), version,
            np.where(made, value, 0), np.where(made, code, 0), starts, ends,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.at)

    def run(self, times: Ints) -> Ints:
        """The number of the run each time lies in; readings of the state are in the last one."""
        return np.asarray(np.searchsorted(self.starts, times, side="right"), np.int64)

    @property
    def first_run(self) -> int:
        """The number of the run before which there are no readings; 0: none is known to be that."""
        return int(len(self.starts) > 0 and self.starts[0] == -_EVER)

    def gap(self, begin: int, end: int) -> int | None:
        """The first time from ``begin`` to ``end`` of which readings are not known."""
        run = int(np.searchsorted(self.starts, begin, side="right")) - 1
        unknown = max(begin, int(self.ends[run]) + 1) if run >= 0 else begin
        return unknown if unknown <= end else None

    def take_out(self, places: Array) -> None:
        """Leaves nothing of these readings but their places."""
        for column in (self.value, self.code, self.estimate, self.estimated):
            column[places] = 0

    def final(self) -> tuple[Ints, Ints]:
        """Values and conditions (hundredths) as published."""
        made = self.estimated > 0
        return np.where(made, self.estimate, self.value), np.where(made, self.estimated, self.code)


def _runs(spans: Sequence[tuple[int, int]]) -> tuple[Ints, Ints]:
    """Spans of time that overlap joined: where they begin and end."""
    starts: list[int] = []
    ends: list[int] = []
    for begin, end in sorted(spans):
        if starts and begin <= ends[-1] + 1:
            ends[-1] = max(ends[-1], end)
        else:
            starts.append(begin)
            ends.append(end)
    return np.array(starts, np.int64), np.array(ends, np.int64)
