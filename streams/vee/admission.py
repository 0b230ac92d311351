"""Admission: which rows of a block can be folded in, in what unit, and where they lie; the rest is refused with a reason.

Rules here end a row (severity terminate): unknown-device, future-read, unit-of-measure, interval-size. Refused rows are parked, so that
they are folded in once master data (or time) permits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from typing import Final

import numpy as np

from schemas import conditions
from schemas.arrow import numbers
from schemas.block import ReadBlock, starts_of
from schemas.topology.vee import InactiveMeasurement, IntervalSpike, VeeSettings
from schemas.units import resolve
from streams.calendar import LAST_DAY
from streams.sorting import distinct
from streams.vee.batch import Array, Ints, Mask, iso
from streams.vee.channels import UNSET, Channels
from streams.vee.merging import STEP
from streams.vee.outstanding import mark
from streams.vee.ring import NEVER, Rings
from streams.vee.service import UNINSTALLED, outside, periods_of, states_at
from streams.vee.spans import DAILY, Segments, cut

_CALENDAR: Final = LAST_DAY * DAILY - DAILY  # no local day begins behind this
_LONGEST: Final = 366 * DAILY
_TOP: Final = 7_999  # highest condition in hundredths


@dataclass(slots=True)
class Refused:
    """Rows that one rule keeps out, and how to say it for one of them."""

    rule: str
    rows: Ints
    says: Callable[[int], str]


@dataclass(slots=True)
class Part:
    """Rows of one interval length (0: registers) with their channels."""

    seconds: int
    rows: Ints
    channels: Ints


@dataclass(slots=True)
class Admitted:
    """What of a block can be folded in. Values are in the channels' units, codes are conditions in hundredths."""

    values: Ints
    codes: Array
    intervals: list[Part] = field(default_factory=list)
    registers: list[Part] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)


class Admission:
    """Decides row by row of a block whether it can be folded in."""

    def __init__(self, channels: Channels, settings: VeeSettings) -> None:
        self.channels, self.settings = channels, settings
        inactive = (rule for rule in settings.rules_of("initial-load").rules if isinstance(rule, InactiveMeasurement))
        self.inactive = next((rule for rule in inactive if rule.uninstalled == "terminate" and not rule.eligibility), None)
        spikes = (rule for rule in settings.rules_of("initial-load").rules if isinstance(rule, IntervalSpike) and rule.per != "day")
        self.spikes = next(spikes, None)
        self.sizes_matter = any(rule.id == "interval-size" for rule in settings.rules_of("initial-load").rules)

    @staticmethod
    def plain(block: ReadBlock) -> Admitted:
        """A block's values and codes as they are."""
        return Admitted(block.values, np.minimum(block.conditions // STEP, _TOP).astype(np.uint16))

    def admit(self, block: ReadBlock, now: int, *, strict: bool) -> Admitted:
        """Sorts the rows of a block. ``strict``: channels that master data do not name stay outside."""
        admitted = self.plain(block)
        channels = self._channels(block, admitted, strict=strict)
        open_ = channels >= 0
        self._check_size(block, channels, open_, admitted)
        self._convert(block, channels, open_, admitted)
        self._check_future(block, now, open_, admitted)
        self._check_service(block, channels, open_, admitted)
        rows = np.flatnonzero(open_)
        if self.spikes is not None:
            mark(block, rows[block.seconds[rows] > 0], channels, admitted.values, admitted.codes, self.spikes, self.channels)
        seconds = block.seconds[rows]
        for length in distinct(seconds).tolist():
            own = rows if (seconds == length).all() else rows[seconds == length]
            (admitted.intervals if length else admitted.registers).append(Part(length, own, channels[own]))
        return admitted

    def _channels(self, block: ReadBlock, admitted: Admitted, *, strict: bool) -> Ints:
        """Rows of channels that master data do not name wait, once there are master data or with ``admit: known``.

        Told once per channel, with the number of deliveries that wait. They are folded in, and the exception ends, when master data name
        device and channel. Without master data channels come as they are, with defaults.
        Source: device and measuring component lookup at the head of every IMD process.
        """
        channels = self.channels.find(block)
        unknown = channels < 0
        if strict:
            if len(self.channels.table):
                unknown = unknown | (self.channels.table["known"][channels] == 0)
            if unknown.any():
                said = "no master data name this device and channel"
                admitted.refused.append(Refused("unknown-device", np.flatnonzero(unknown), lambda _: said))
        elif unknown.any():
            self.channels.admit(block, np.flatnonzero(unknown))
            channels, unknown = self.channels.find(block), np.zeros(len(block), np.bool_)
        known = np.flatnonzero(~unknown)
        self.channels.complete(block, channels[known], known)
        self.channels.note_multipliers(block, channels[known], known)
        return np.where(unknown, -1, channels) if unknown.any() else channels

    def _check_size(self, block: ReadBlock, channels: Ints, open_: Mask, admitted: Admitted) -> None:
        """Rows with interval length s where master data say m wait: s ≠ m. So do intervals off the day's grid, and lengths no meter has.

        The grid begins at local midnight plus the phase of the channel's first interval: (start - midnight) mod s must be the phase.
        A day has (midnight behind - midnight) / s slots, so days of 23 and 25 hours fit.

        Data of a longer length that are declared as s, such as half hours under 15 minutes, fit every grid and leave every second slot
        empty. A whole day with ``min_values`` or more whose slots lie a multiple of k > 1 slots apart (k: the greatest common divisor of
        their distances; announced gaps count as values) becomes an exception, and nothing of it is estimated: that would invent energy.
        Source: interval size validation of the domain.
        """
        senseless = ((block.seconds < 0) | (block.seconds > _LONGEST)) & open_
        if senseless.any():
            said = "an interval length that no meter has"
            admitted.refused.append(Refused("interval-size", np.flatnonzero(senseless), lambda _: said))
            open_ &= ~senseless
        if not self.sizes_matter or not open_.any():
            return
        want = self.channels.table["seconds"][channels]
        wrong = (want != UNSET) & (want != block.seconds) & open_
        if wrong.any():
            admitted.refused.append(
                Refused("interval-size", np.flatnonzero(wrong),
                        lambda row: f"{_length(int(block.seconds[row]))} where master data say {_length(int(want[row]))}")
            )  # fmt: skip
            open_ &= ~wrong

    def _convert(self, block: ReadBlock, channels: Ints, open_: Mask, admitted: Admitted) -> None:
        """Brings values into their channel's unit, v · (unit sent / unit held), exactly; rows of another dimension wait.

        Rounded half to even to the millionth. A channel is held in the unit of its master data, else of its first reads.
        Source: unit of measure validation of the domain, with conversion in place of refusal inside a dimension.
        """
        if not open_.any():
            return
        coded = block.unit.dictionary_encode()
        spellings = coded.dictionary.to_pylist()
        said = numbers(coded.indices).astype(np.int64)
        pair = said * (len(self.channels.units) + 1) + np.where(open_, self.channels.unit[channels], len(self.channels.units))
        begins = starts_of(block.count)
        for code in distinct(pair[open_]).tolist():
            spelling, unit = spellings[code // (len(self.channels.units) + 1)], self.channels.units[code % (len(self.channels.units) + 1)]
            if resolve(spelling).name == unit:
                continue
            rows, ratio = np.flatnonzero((pair == code) & open_), factor(spelling, unit)
            if ratio is None:
                text = f"reads in {spelling or 'no unit'}, the channel is held in {unit}"
                admitted.refused.append(Refused("unit-of-measure", rows, lambda _, text=text: text))  # type: ignore[misc]
                open_[rows] = False
                continue
            if admitted.values is block.values:
                admitted.values = block.values.copy()
            for begin, size in zip(begins[rows].tolist(), block.count[rows].tolist(), strict=True):
                admitted.values[begin : begin + size] = convert(block.values[begin : begin + size], ratio)

    def _check_future(self, block: ReadBlock, now: int, open_: Mask, admitted: Admitted) -> None:
        """Rows whose last value lies ahead of the clock by more than ``future_tolerance`` wait until it has come: last > clock + tolerance.

        The clock is the newest tick or the time the payload came, whichever is later. Values that a source announces as missing may
        lie ahead. Reads outside the years 1970 to 2100 wait for ever.
        Source: date checks at the head of every IMD process.
        """
        clock = max(now, block.received_at)
        if not len(block):
            return
        limit = min(clock + self.settings.future_tolerance, _CALENDAR) if clock else _CALENDAR
        last = block.start + np.maximum(block.count.astype(np.int64) - 1, 0) * block.seconds
        registers = np.flatnonzero(block.reads > 0)
        if len(registers):
            last[registers] = np.maximum.reduceat(block.times, starts_of(block.reads)[registers])
            outside = np.minimum.reduceat(block.times, starts_of(block.reads)[registers]) < 0
            last[registers[outside]] = NEVER  # before 1970: no calendar, no day
        early = np.flatnonzero((last > limit) & open_)
        begins = starts_of(block.count)
        for row in early.tolist():  # values that a source announces as missing may lie ahead
            codes = block.conditions[begins[row] : begins[row] + block.count[row]]
            real = np.flatnonzero(codes >= conditions.OUTAGE)
            if block.seconds[row] and (not len(real) or block.start[row] + real[-1] * block.seconds[row] <= limit):
                last[row] = 0
        early = early[last[early] > limit]
        if len(early):
            ahead = (
                f"reads ahead of the clock, which shows {iso(clock)}" if limit < _CALENDAR else "reads lie outside the years 1970 to 2100"
            )
            admitted.refused.append(Refused("future-read", early, lambda _: ahead))
            open_[early] = False

    def _check_service(self, block: ReadBlock, channels: Ints, open_: Mask, admitted: Admitted) -> None:
        """Rows that lie wholly in time in which no meter was installed, where that terminates, wait for other master data.

        So do parts of rows, and single readings of registers (streams/vee/uninstalled.py).
        """
        rule = self.inactive
        if rule is None or not open_.any():
            return
        start, end = block.start, block.start + np.maximum(block.count.astype(np.int64), 1) * block.seconds
        self.channels.refresh()
        beyond = np.flatnonzero(outside(self.channels.served[channels], start, end) & open_ & (block.seconds > 0))
        first, behind = rule.days
        early = []
        for row in beyond.tolist():
            periods = periods_of(self.channels.table.text["periods"][channels[row]])
            state = states_at(periods, start[row : row + 1], end[row : row + 1], rule.grace)
            if state[0] == UNINSTALLED and first <= int(start[row]) // DAILY < behind:
                early.append(row)
        if early:
            said = "reads of a time in which no meter was installed"
            admitted.refused.append(Refused("inactive-measurement", np.array(early), lambda _: said))
            open_[early] = False

    def segments(self, block: ReadBlock, part: Part, admitted: Admitted, rings: Rings) -> tuple[Segments, list[Refused]]:
        """The rows of one interval length cut into local days, and those that lie on no grid or outside the calendar."""
        seconds, table = part.seconds, rings.table(part.seconds)
        owner = rings.rows(seconds, part.channels)
        self.channels.refresh()
        zone = self.channels.zone[part.channels]
        origin, day, slot, size, ahead, phase, slots = cut(
            block.start[part.rows], block.count[part.rows], seconds, zone, self.channels.zones
        )
        row = owner[origin]
        outside = day < 0
        fresh = (table["phase"][row] < 0) & ~outside
        if fresh.any():
            first, at = np.unique(row[fresh], return_index=True)
            table["phase"][first] = phase[fresh][at]
        off = (phase != table["phase"][row]) & ~outside if seconds < DAILY else np.zeros(len(row), np.bool_)
        off |= slot + size > slots
        off &= ~outside
        time = block.start[part.rows][origin] + ahead * seconds
        refused = []
        for bad, rule, said in (
            (outside, "future-read", "reads lie outside the years 1970 to 2100"),
            (off, "interval-size", f"intervals do not start on the day's {_length(seconds)} grid"),
        ):
            if bad.any():
                refused.append(Refused(rule, part.rows[np.unique(origin[bad])], lambda _, said=said: said))  # type: ignore[misc]
        if refused:
            keep = ~np.isin(origin, np.unique(origin[outside | off]))
            row, day, slot, size, ahead, time, origin = (c[keep] for c in (row, day, slot, size, ahead, time, origin))
        source = starts_of(block.count)[part.rows][origin] + ahead
        return Segments(row, day, slot, size, source, time, part.rows[origin], admitted.values, admitted.codes), refused


@cache
def factor(source: str, target: str) -> Fraction | None:
    """The exact ratio between two units, None across dimensions."""
    a, b = resolve(source), resolve(target)
    return a.ratio / b.ratio if a.dimension == b.dimension else None


def convert(values: Ints, ratio: Fraction) -> Ints:
    """Values times an exact ratio, rounded half to even, saturating at the largest magnitude a quantity can have."""
    top, bottom = ratio.numerator, ratio.denominator
    highest = int(np.abs(values).max()) if len(values) else 0
    if highest * top < 1 << 62 and bottom < 1 << 61:
        scaled = values * top
        whole, rest = np.divmod(scaled, bottom)
        twice = rest * 2
        up = (twice > bottom) | ((twice == bottom) & (whole % 2 == 1))
        rounded: Ints = whole + up
        return rounded
    limit = 4_000_000_000_000_000_000
    return np.array([max(-limit, min(limit, round(value * ratio))) for value in values.tolist()], np.int64)


def span_of(block: ReadBlock) -> tuple[int, int]:
    """First second and end of all rows of a block."""
    ends = block.start + block.count.astype(np.int64) * block.seconds
    last = int(block.times.max()) if len(block.times) else 0
    return int(block.start.min()), max(int(ends.max()), last)


def _length(seconds: int) -> str:
    return f"{seconds // 60} minute" if seconds and seconds % 60 == 0 else f"{seconds} second" if seconds else "register"
