"""NEM12 and NEM13, the interval and accumulated meter data files of the Australian market.

Market time is UTC+10 without daylight saving; of another zone only its standard time is used, so that a day always has as many
values as its 200 record says. A record that cannot be read is refused and named; the rest is kept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from numba import njit

from connectors.head_end.formats import text
from connectors.head_end.formats.assemble import Builder, Pieces, kind_of
from connectors.head_end.formats.model import DecodeError, Options, Problems, Quantity, shown
from connectors.head_end.formats.times import known_zone, standard_offset
from schemas import conditions, quantity
from schemas.block import starts_of

Ints = npt.NDArray[np.int64]
MARKET_OFFSET: Final = 36_000
_DAY: Final = 86_400
_FIRST_LINE = re.compile(rb"\s*\"?(100\"?,\"?NEM1[23]|200\"?,|250\"?,)")
_BY_LETTER: Final = {
    "A": conditions.REGULAR,
    "E": conditions.EXT_ESTIMATE,
    "S": conditions.EXT_SUBSTITUTE,
    "F": conditions.EXT_FINAL_SUBSTITUTE,
    "N": conditions.INVALID,  # a value with it is kept as unusable; zero or nothing is a reported gap
    "V": conditions.NOT_RECEIVED,  # the 400 records say
}
_CONDITION: Final = np.full(128, -1, np.int64)
for _letter, _code in _BY_LETTER.items():
    _CONDITION[ord(_letter)] = _code
_DIRECTION: Final = {"E": "delivered", "Q": "delivered", "B": "received", "K": "received"}
_GOOD, _DATE, _LENGTH, _QUALITY, _VALUE, _OVERLAY = 0, 1, 2, 3, 4, 5


def is_nem(head: bytes) -> bool:
    """Whether a text begins like NEM12 or NEM13, with or without the 100 record."""
    return _FIRST_LINE.match(head) is not None


@dataclass(frozen=True, eq=False)
class _Days:
    """The 300 records: one row per record."""

    line: Ints
    channel: Ints  # number of the 200 record
    date: Ints  # days since 1970
    count: Ints
    begin: Ints
    values: Ints
    conditions: Ints


@njit(cache=True)
def _date(data, starts, field):  # type: ignore[no-untyped-def]
    """Days since 1970 of yyyymmdd; -1 where it is none."""
    begin, end = text.trim(data, starts[field], starts[field + 1] - 1)
    if end - begin != 8:
        return -1
    year, at = text.digits(data, begin, end, 4)
    month, behind = text.digits(data, at, end, 2)
    day, last = text.digits(data, behind, end, 2)
    if at != begin + 4 or behind != begin + 6 or last != end or year < 1970 or year > 2100:
        return -1
    return text.civil_days(year, month, day)


@njit(cache=True)
def _quality(data, starts, field, table):  # type: ignore[no-untyped-def]
    """The condition of a quality flag and method (``A``, ``S14``); -1 where it is none."""
    begin, end = text.trim(data, starts[field], starts[field + 1] - 1)
    if begin == end or end - begin > 3 or data[begin] >= 128:
        return -1
    for at in range(begin + 1, end):
        if data[at] < 48 or data[at] > 57:
            return -1
    return table[data[begin]]


@njit(cache=True)
def _days_of(data, starts, firsts, lines, counts, begins, table, dates, values, quality, status, column):  # type: ignore[no-untyped-def]
    """Reads 300 records that are long enough: date, values, quality. ``column`` is the position of the first thing wrong in a record."""
    for k in range(len(lines)):
        if status[k] != _GOOD:
            continue
        first, count = firsts[lines[k]], counts[k]
        dates[k] = _date(data, starts, first + 1)
        if dates[k] < 0:
            status[k], column[k] = _DATE, 1
            continue
        flag = _quality(data, starts, first + 2 + count, table)
        if flag < 0:
            status[k], column[k] = _QUALITY, 2 + count
            continue
        base = begins[k]
        for i in range(count):
            field = first + 2 + i
            begin, end = text.trim(data, starts[field], starts[field + 1] - 1)
            value, good = text.decimal(data, begin, end, 46)
            if good == text.BAD or good == text.LARGE:
                status[k], column[k] = _VALUE, 2 + i
                break
            values[base + i] = value
            quality[base + i] = flag if good == text.OK else 110000


@njit(cache=True)
def _overlay(data, starts, firsts, lines, days, counts, begins, table, quality, status):  # type: ignore[no-untyped-def]
    """Lays 400 records (1-based, both ends included) over the days they follow."""
    for k in range(len(lines)):
        first, day = firsts[lines[k]], days[k]
        status[k] = _OVERLAY
        if firsts[lines[k] + 1] - first < 4:
            continue
        begin, end = text.trim(data, starts[first + 1], starts[first + 2] - 1)
        low, at = text.digits(data, begin, end, 5)
        if at != end:
            continue
        begin, end = text.trim(data, starts[first + 2], starts[first + 3] - 1)
        high, at = text.digits(data, begin, end, 5)
        flag = _quality(data, starts, first + 3, table)
        if at != end or low < 1 or high < low or high > counts[day] or flag <= 0:
            continue
        status[k] = _GOOD
        for i in range(begins[day] + low - 1, begins[day] + high):
            if quality[i] != 110000:
                quality[i] = flag


def decode(data: bytes, options: Options, problems: Problems, builder: Builder) -> list[Quantity]:
    """Adds the reads of a NEM12 or NEM13 file to the builder; returns the quantities its 250 records state."""
    return _File(data, options, problems, builder).decode()


class _File:
    def __init__(self, data: bytes, options: Options, problems: Problems, builder: Builder) -> None:
        self.name, self.problems, self.builder = options.name, problems, builder
        self.zone = options.zone
        if self.zone is not None:
            try:
                known_zone(self.zone)
            except ValueError as error:
                raise DecodeError(self.name, 1, str(error)) from error
        self.table = text.split(data, ",", self.name)
        self.kinds = self.table.kinds()
        self.numbers = self.table.numbers.astype(np.int64)
        self.kept = 0

    def decode(self) -> list[Quantity]:
        known = np.isin(self.kinds, (-1, 100, 200, 250, 300, 400, 500, 550, 900))
        for line in np.flatnonzero(~known)[:1000]:
            self._problem(line, f"{shown(self.table.field(int(self.table.firsts[line])))} is no record of NEM12 or NEM13")
        quantities = [] if not (self.kinds == 250).any() else self._accumulated(np.flatnonzero(self.kinds == 250))
        self._intervals(np.flatnonzero(self.kinds == 300))
        last = np.flatnonzero(self.kinds != -1)
        if not len(last) or self.kinds[last[-1]] != 900:
            self.problems.note(int(self.numbers[-1]), "the file does not end with a 900 record: it may have been cut off")
        if not self.kept and np.isin(self.kinds, (250, 300)).any():
            first = self.problems.found[0]
            raise DecodeError(self.name, first.line, f"no record can be read: {first.what}")
        if not self.kept and not np.isin(self.kinds, (100, 900)).any():
            raise DecodeError(self.name, 1, "no record of NEM12 or NEM13 with reads")
        return quantities

    def _problem(self, line: int, what: str, column: str | None = None) -> None:
        self.problems.add(int(self.numbers[line]), what, column)

    def _midnight(self, days: Ints) -> Ints:
        """UTC second at which market days begin."""
        if self.zone is None:
            return days * _DAY - MARKET_OFFSET
        offsets = {int(day): standard_offset(self.zone, int(day)) for day in np.unique(days)}
        return days * _DAY - np.array([offsets[int(day)] for day in days], np.int64)

    def _channels(self, lines: Ints) -> tuple[Ints, Ints]:
        """(number in the builder or -1, values per day) of each 200 record."""
        codes, counts = np.full(len(lines), -1, np.int64), np.zeros(len(lines), np.int64)
        for k, line in enumerate(lines):
            cells = self.table.line(int(line))
            cells += [""] * (9 - len(cells))
            minutes = cells[8]
            try:
                if not (minutes.isascii() and minutes.isdigit() and 0 < len(minutes) <= 4 and int(minutes) and 1440 % int(minutes) == 0):
                    raise ValueError(f"{shown(minutes)} minutes is no interval length that divides the day")
                kind = kind_of(cells[4], cells[7], int(minutes) * 60, _DIRECTION.get(cells[4][:1].upper(), "none"))
                codes[k], counts[k] = self.builder.code(cells[1], kind), 1440 // int(minutes)
            except ValueError as error:
                self._problem(line, f"200 record: {error}; the records that belong to it are refused")
        return codes, counts

    def _intervals(self, lines: Ints) -> None:
        heads = np.flatnonzero(np.isin(self.kinds, (100, 200, 250, 900)))
        heads200 = np.flatnonzero(self.kinds == 200)
        codes, counts = self._channels(heads200)
        owner = np.searchsorted(heads, lines) - 1
        orphan = (owner < 0) | (self.kinds[heads[np.maximum(owner, 0)]] != 200) if len(heads) else np.ones(len(lines), np.bool_)
        for line in lines[orphan][:1000]:
            self._problem(line, "300 record that follows no 200 record")
        lines = lines[~orphan]
        own = np.searchsorted(heads200, lines) - 1
        lines, own = lines[codes[own] >= 0], own[codes[own] >= 0]
        days, status = self._read_days(lines, codes[own], counts[own])
        self._overlays(days, status, heads)
        keep = np.flatnonzero(status == _GOOD)
        self.kept += len(keep)
        if len(keep):
            self._publish(days, keep)

    def _read_days(self, lines: Ints, codes: Ints, counts: Ints) -> tuple[_Days, Ints]:
        due, widths = counts, self.table.widths[lines]
        dates, status, column = (np.zeros(len(lines), np.int64) for _ in range(3))
        short = widths < due + 3
        status[short], column[short] = _LENGTH, widths[short]
        counts = np.where(short, 0, due)  # no room for values that cannot be there
        begins, total = starts_of(counts), int(counts.sum())
        values, quality = np.zeros(total, np.int64), np.zeros(total, np.int64)
        t = self.table
        _days_of(t.data, t.starts, t.firsts, lines, counts, begins, _CONDITION, dates, values, quality, status, column)
        for k in np.flatnonzero(status != _GOOD)[:1000]:
            line, place = int(lines[k]), int(column[k])
            cell = shown(t.field(int(t.firsts[line]) + place)) if place < t.widths[line] else "nothing"
            what = {
                _DATE: f"{cell} is not a date yyyymmdd",
                _LENGTH: f"{place} fields; {due[k]} values, date and quality are expected",
                _QUALITY: f"{cell} stands where the quality of {counts[k]} values is expected",
                _VALUE: f"{cell} is not a plain decimal number the hub can hold",
            }[int(status[k])]
            self._problem(line, f"300 record refused: {what}", str(place + 1))
        return _Days(lines, codes, dates, counts, begins, values, quality), status

    def _overlays(self, days: _Days, status: Ints, heads: Ints) -> None:
        lines = np.flatnonzero(self.kinds == 400)
        every300 = np.flatnonzero(self.kinds == 300)
        before = np.searchsorted(every300, lines) - 1
        lone = before < 0
        if len(lines) and len(heads):
            owner = np.searchsorted(heads, lines) - 1
            lone |= (owner >= 0) & (heads[np.maximum(owner, 0)] > every300[np.maximum(before, 0)] if len(every300) else True)
        for line in lines[lone][:1000]:
            self._problem(line, "400 record that follows no 300 record")
        lines, before = lines[~lone], before[~lone]
        row = np.searchsorted(days.line, every300[before]) if len(lines) else before
        fits = row < len(days.line)
        fits[fits] = days.line[row[fits]] == every300[before][fits]
        fits[fits] = status[row[fits]] == _GOOD  # 400 records of a refused day go with it
        lines, row = lines[fits], row[fits]
        good = np.zeros(len(lines), np.int64)
        t = self.table
        _overlay(t.data, t.starts, t.firsts, lines, row, days.count, days.begin, _CONDITION, days.conditions, good)
        for k in np.flatnonzero(good != _GOOD)[:1000]:
            self._problem(lines[k], f"400 record {shown(','.join(t.line(int(lines[k]))[1:4]))} is no range and quality of its day; ignored")

    def _publish(self, days: _Days, keep: Ints) -> None:
        quality, values = days.conditions, days.values
        refused = np.ones(len(days.line), np.bool_)
        refused[keep] = False
        undecided = quality == conditions.NOT_RECEIVED
        if undecided.any():
            owner = np.searchsorted(days.begin, np.flatnonzero(undecided), side="right") - 1
            for line in self.numbers[days.line[np.unique(owner[~refused[owner]])]]:
                self.problems.note(int(line), "quality V, but 400 records leave intervals without one: kept as suspect")
            quality[undecided] = conditions.SUSPECT
        quality[(quality == conditions.INVALID) & (values == 0)] = conditions.REPORTED_MISSING
        flat = np.repeat(~refused, days.count)
        self.builder.intervals(
            Pieces(
                days.channel[keep], self._midnight(days.date[keep]), days.count[keep], self.numbers[days.line[keep]],
                values[flat], quality[flat],
            )
        )  # fmt: skip

    def _accumulated(self, lines: Ints) -> list[Quantity]:
        """Register reads and stated quantities of the 250 records."""
        found: list[Quantity] = []
        rows: list[tuple[int, int, int, int, int]] = []
        for line in lines:
            cells = self.table.line(int(line))
            try:
                code, quantity_, reads = self._record250(cells)
            except ValueError as error:
                self._problem(line, f"250 record refused: {error}")
                continue
            found.append(quantity_)
            rows += [(code, at, int(self.numbers[line]), value, condition) for at, value, condition in reads]
        if rows:
            self.kept += len(rows)
            code_, at_, line_, value_, condition_ = (np.array(column, np.int64) for column in zip(*rows, strict=True))
            self.builder.registers(Pieces(code_, at_, np.ones(len(rows), np.int64), line_, value_, condition_))
        return found

    def _record250(self, cells: list[str]) -> tuple[int, Quantity, list[tuple[int, int, int]]]:
        if len(cells) < 20:
            raise ValueError(f"{len(cells)} fields; 23 are expected")
        name, suffix, unit = cells[1], cells[4], cells[19]
        direction = _DIRECTION.get(suffix[:1].upper()) or {"E": "delivered", "I": "received"}.get(cells[7].upper(), "none")
        kind = kind_of(suffix, unit, 0, direction)
        start, end = self._moment(cells[9]), self._moment(cells[14])
        if end <= start:
            raise ValueError("the current read is not after the previous one")
        before, after = _condition_of(cells[10]), _condition_of(cells[15])
        reads = [(start, quantity.parse(cells[8]), before), (end, quantity.parse(cells[13]), after)]
        stated = Quantity(name, suffix, kind.unit, start, end, quantity.parse(cells[18]), min(before, after))
        return self.builder.code(name, kind), stated, reads

    def _moment(self, cell: str) -> int:
        """UTC second of yyyymmddHHMMSS (seconds and minutes may be left out)."""
        padded = cell + "0" * (14 - len(cell)) if len(cell) in (8, 12) else cell
        match = re.fullmatch(r"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)", padded, re.ASCII)
        if not match:
            raise ValueError(f"{shown(cell)} is not a time yyyymmddHHMMSS")
        year, month, day_of_month, hour, minute, second = (int(part) for part in match.groups())
        seconds, _, status = text.moment(year, month, day_of_month, hour, minute, second, 0)
        if status != text.OK:
            raise ValueError(f"{shown(cell)} is not a time between 1970 and 2100")
        day = int(seconds) // _DAY
        return int(self._midnight(np.array([day]))[0]) + int(seconds) - day * _DAY


def _condition_of(cell: str) -> int:
    if not re.fullmatch(r"[AESFN](\d\d)?", cell, re.ASCII):
        raise ValueError(f"{shown(cell)} is not a quality and method")
    return _BY_LETTER[cell[0]]
