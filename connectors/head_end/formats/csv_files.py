"""Delimited files: our own two headers, and others through mapping profiles. A bad row is refused and named; the rest is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from connectors.head_end.formats import text
from connectors.head_end.formats.assemble import Builder, Kind, Pieces, kind_of
from connectors.head_end.formats.model import MAX_COLUMNS, MAX_NAME, MAX_PROBLEMS, DecodeError, Options, Problems, shown
from connectors.head_end.formats.times import FINE, SKIPPED, ZONELESS, known_zone, to_utc
from schemas import conditions
from schemas.arrow import numbers, truths
from schemas.block import strings
from schemas.quantity import MICRO
from schemas.topology.profiles import Profile, ValueColumn

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
_COMMON: Final = {"device_column": "device", "channel_column": "channel", "unit_column": "unit", "condition_column": "condition"}
OURS: Final = {
    "csv": Profile.model_validate({**_COMMON, "seconds_column": "seconds", "time": ["start"], "value": "value"}),
    "csv-registers": Profile.model_validate({**_COMMON, "kind": "register", "time": ["at"], "value": "reading"}),
}


@dataclass(frozen=True)
class Layout:
    """A profile laid over one header: the position of each column it needs, -1 for those the file has not."""

    profile: Profile
    at: dict[str, int]
    width: int
    line: int  # index of the header line

    def position(self, column: str | None) -> int:
        """Where a column is; -1 if the profile names none or the file has not it."""
        return -1 if column is None else self.at.get(column.strip().lower(), -1)


def is_text(head: bytes) -> bool:
    """Whether the first line can be a header."""
    return b"\0" not in head.partition(b"\n")[0]


def decode(data: bytes, options: Options, problems: Problems, builder: Builder) -> None:
    """Adds the reads of a delimited file to the builder. Raises DecodeError where no row can be read."""
    file = options.name
    table, layout = _laid_out(data, options)
    zone = options.zone or layout.profile.zone
    if zone is not None:
        try:
            known_zone(zone)
        except ValueError as error:
            raise DecodeError(file, 1, str(error)) from error
    lines = np.flatnonzero(table.kinds() != -1)
    lines = lines[lines > layout.line]
    if not len(lines):
        return
    rows = _Rows(table, layout, lines, problems)
    long = ValueColumn.model_construct(column=str(layout.profile.value), channel=layout.profile.channel or "")
    columns = layout.profile.values or [long]
    if not rows.add_all(columns, zone, builder):
        first = problems.found[0] if problems.found else None
        raise DecodeError(file, first.line if first else 1, f"no row can be read: {first.what if first else 'no data'}")


def _header(cells: list[str]) -> list[str]:
    return [cell.strip(" \t\r\ufeff").strip('"').strip().lower() for cell in cells]


def _laid_out(data: bytes, options: Options) -> tuple[text.Table, Layout]:
    """The file as table under the profile that fits its header. Raises DecodeError where none does, or several do."""
    file = options.name
    forced = options.profiles.get(options.format or "")
    candidates = {options.format or "": forced} if forced else {**OURS, **options.profiles}
    tables: dict[str, text.Table] = {}
    fitting: list[tuple[int, str, Layout]] = []
    seen: list[str] = []
    for name, profile in candidates.items():
        if profile.delimiter not in tables:
            tables[profile.delimiter] = text.split(data, profile.delimiter, file)
        table = tables[profile.delimiter]
        filled = np.flatnonzero(table.kinds() != -1)
        if not len(filled):
            raise DecodeError(file, 1, "the file is empty")
        head = int(filled[0])
        if int(table.widths[head]) > MAX_COLUMNS:
            raise DecodeError(file, int(table.numbers[head]), f"{table.widths[head]} columns; {MAX_COLUMNS} are allowed")
        names = _header(table.line(head))
        if profile.delimiter == ",":
            seen = names
        while names and not names[-1]:
            names.pop()
        needed = [column.strip().lower() for column in profile.columns]
        exact = profile.header is None or _header(profile.header) == names
        if exact and set(needed) <= set(names):
            if any(names.count(column) > 1 for column in needed):
                raise DecodeError(file, int(table.numbers[head]), "the header names a column twice")
            score = len(set(needed)) + (1000 if profile.header else 0) + (10_000 if name in OURS else 0)
            at = {column: i for i, column in enumerate(names)}
            fitting.append((score, name, Layout(profile, at, len(names), head)))
    if not fitting:
        if forced:
            raise DecodeError(file, 1, f"profile {options.format} does not fit: it needs the columns {', '.join(forced.columns)}")
        raise DecodeError(file, 1, f"header {shown(','.join(seen), 120)} is neither of ours nor known to a mapping profile")
    fitting.sort(key=lambda found: -found[0])
    if len(fitting) > 1 and fitting[0][0] == fitting[1][0]:
        names_ = " and ".join(name for score, name, _ in fitting if score == fitting[0][0])
        raise DecodeError(file, 1, f"profiles {names_} both fit this header: name one with the format")
    layout = fitting[0][2]
    return tables[layout.profile.delimiter], layout


@dataclass(frozen=True, eq=False)
class _Shared:
    """What all value columns share: per row an index into the devices, one into the other keys, the time and condition."""

    devices: pa.StringArray
    device: Ints
    keys: list[dict[str, str]]  # what the columns of channel, unit and length say
    key: Ints
    times: Ints
    quality: Ints
    good: Flags


class _Rows:
    """The data rows of one file, and what all its value columns share."""

    def __init__(self, table: text.Table, layout: Layout, lines: Ints, problems: Problems) -> None:
        self.table, self.layout, self.problems = table, layout, problems
        widths = table.widths[lines]
        short = widths < 1 + max(layout.position(name) for name in layout.profile.columns)
        wide = table.overfull(lines, layout.width)
        self.numbers = table.numbers[lines].astype(np.int64)
        self._refuse(short, lambda i: f"{widths[i]} columns where the header has {layout.width}")
        self._refuse(wide, lambda i: f"{widths[i]} columns where the header has {layout.width} (a number with a comma?)")
        keep = ~(short | wide)
        self.lines, self.numbers, self.widths = lines[keep], self.numbers[keep], widths[keep]
        self.first = table.firsts[:-1][self.lines].astype(np.int64)

    def add_all(self, columns: list[ValueColumn], zone: str | None, builder: Builder) -> int:
        """Adds every column of values; returns how many values were kept."""
        if not len(self.lines):
            return 0
        shared = self._share(zone)
        return sum(self._add(column, shared, builder) for column in columns)

    def _refuse(self, bad: Flags, what: Callable[[int], str], column: str | None = None) -> None:
        rows = np.flatnonzero(bad)
        for i in rows[:MAX_PROBLEMS]:
            self.problems.add(int(self.numbers[i]), what(int(i)), column)
        self.problems.count(max(0, len(rows) - MAX_PROBLEMS))

    def _fields(self, position: int) -> Ints:
        """The field of a column in each row, -1 where a row ends before it."""
        return np.where(self.widths > position, self.first + position, -1)

    def _cell(self, row: int, column: str) -> str:
        return self.table.field(int(self.first[row]) + self.layout.position(column))

    def _add(self, column: ValueColumn, shared: _Shared, builder: Builder) -> int:
        profile, name = self.layout.profile, column.column
        kinds, wrong = self._kinds(column, shared.keys)
        if wrong:
            bad = np.isin(shared.key, list(wrong))
            self._refuse(bad, lambda i: wrong[int(shared.key[i])])
        good = shared.good & ~np.isin(shared.key, list(wrong))
        starts = shared.times
        if profile.kind == "interval":
            seconds = np.array([k.seconds if k else 1 for k in kinds], np.int64)
            starts = starts - seconds[shared.key] if profile.stamps == "end" else starts
            off = good & (starts % np.gcd(seconds, 900)[shared.key] != 0)
            self._refuse(off, lambda _: "the interval begins on no quarter of an hour (or multiple of a shorter length)", profile.time[0])
            good = good & ~off
        values, status = self.table.decimals(self._fields(self.layout.position(name)), profile.decimal, tuple(profile.missing))
        self._refuse(good & (status == text.BAD), lambda i: f"{shown(self._cell(i, name))} is not a plain decimal number", name)
        self._refuse(good & (status == text.LARGE), lambda i: f"{shown(self._cell(i, name))} is larger than the hub can hold", name)
        empty = (status == text.EMPTY) | (status == text.ABSENT)
        quality = np.where(empty & (shared.quality >= conditions.EXT_ESTIMATE), conditions.REPORTED_MISSING, shared.quality)
        values[(quality >= conditions.MISSING) & (quality < conditions.OUTAGE)] = 0
        rows = np.flatnonzero(good & ((status == text.OK) | empty))
        if not len(rows):
            return 0
        fine = [k for k in kinds if k]
        place = np.cumsum([k is not None for k in kinds]) - 1
        codes = builder.codes(shared.devices, shared.device[rows], fine, place[shared.key[rows]])
        ones = np.ones(len(rows), np.int64)
        pieces = Pieces(codes, starts[rows], ones, self.numbers[rows], values[rows], quality[rows])
        (builder.intervals if profile.kind == "interval" else builder.registers)(pieces)
        return len(rows)

    def _share(self, zone: str | None) -> _Shared:
        profile, position = self.layout.profile, self.layout.position
        if profile.device_column is None:
            device, devices = np.zeros(len(self.lines), np.int64), strings([profile.device or ""])
        else:
            device, devices = self.table.texts(self._fields(position(profile.device_column)))
        sizes = numbers(pc.utf8_length(devices))
        broken = (sizes == 0) | (sizes > MAX_NAME) | truths(pc.match_substring(devices, "\ufffd"))
        bad = broken[device]
        self._refuse(bad, lambda _: f"device is empty, longer than {MAX_NAME} characters or not UTF-8", profile.device_column)
        columns = {"channel": profile.channel_column, "unit": profile.unit_column, "seconds": profile.seconds_column}
        used = {what: position(name) for what, name in columns.items() if name is not None}
        key = np.zeros(len(self.lines), np.int64)
        keys: list[dict[str, str]] = [{}]
        if used:
            key, found = self.table.keys(np.stack([self._fields(at) for at in used.values()]))
            keys = [dict(zip(used, cells, strict=True)) for cells in found]
        times, timed = self._times(zone, device * len(keys) + key)
        quality, known = self._conditions()
        return _Shared(devices, device, keys, key, times, quality, ~bad & timed & known)

    def _kinds(self, column: ValueColumn, keys: list[dict[str, str]]) -> tuple[list[Kind | None], dict[int, str]]:
        """(kind per key, why those that are None cannot be one)."""
        kinds: list[Kind | None] = []
        wrong: dict[int, str] = {}
        for number, given in enumerate(keys):
            try:
                kinds.append(self._kind(given, column))
            except ValueError as error:
                kinds.append(None)
                wrong[number] = str(error)
        return kinds, wrong

    def _kind(self, given: dict[str, str], column: ValueColumn) -> Kind:
        profile = self.layout.profile
        seconds = 0
        if profile.kind == "interval":
            written = given.get("seconds", str(profile.seconds))
            if not (written.isascii() and written.isdigit() and len(written) <= 5 and int(written) > 0):
                raise ValueError(f"{shown(written)} is not an interval length in seconds")
            seconds = int(written)
        return kind_of(
            column.channel or given["channel"],
            column.unit or profile.unit or given.get("unit", ""),
            seconds,
            column.direction if column.direction != "none" else profile.direction,
            int(profile.multiplier * MICRO) if profile.multiplier else 0,
        )

    def _times(self, zone: str | None, codes: Ints) -> tuple[Ints, Flags]:
        """(UTC second per row, rows that have one)."""
        profile = self.layout.profile
        fields = np.stack([self._fields(self.layout.position(name)) for name in profile.time])
        local, offsets, status = self.table.stamps(fields, text.compile_format(profile.format))
        utc, where = to_utc(local, offsets, zone, codes)

        def cell(i: int) -> str:
            return shown(" ".join(self._cell(i, name) for name in profile.time))

        column = profile.time[0]
        readable = status == text.OK
        self._refuse(status == text.BAD, lambda i: f"{cell(i)} is not a time as {_explained(profile.format)}", column)
        self._refuse(status == text.RANGE, lambda i: f"{cell(i)} lies outside 1970 to 2100", column)
        self._refuse(readable & (where == ZONELESS), lambda i: f"{cell(i)} has no offset and no zone was given", column)
        self._refuse(readable & (where == SKIPPED), lambda i: f"{cell(i)} does not exist in {zone}: clocks skip it", column)
        return utc, readable & (where == FINE)

    def _conditions(self) -> tuple[Ints, Flags]:
        """(condition per row, rows where it is known); REGULAR where the file has none."""
        profile = self.layout.profile
        found, fine = np.full(len(self.lines), conditions.REGULAR, np.int64), np.ones(len(self.lines), np.bool_)
        position = self.layout.position(profile.condition_column)
        rows = np.flatnonzero(self.widths > position) if position >= 0 else np.zeros(0, np.int64)
        if not len(rows):
            return found, fine
        codes, keys = self.table.keys(self._fields(position)[rows][np.newaxis, :])
        numbers = np.zeros(len(keys), np.int64)
        wrong: dict[int, str] = {}
        for number, (word,) in enumerate(keys):
            try:
                numbers[number] = conditions.parse(profile.conditions.get(word, word)) if word else conditions.REGULAR
            except ValueError as error:
                wrong[number] = str(error)
        found[rows] = numbers[codes]
        if wrong:
            fine[rows] = ~np.isin(codes, list(wrong))
            place = np.cumsum(self.widths > position) - 1
            self._refuse(~fine, lambda i: wrong[int(codes[place[i]])], profile.condition_column)
        return found, fine


def _explained(format_: str) -> str:
    return {"iso": "2026-03-29T00:15:00+01:00", "epoch": "seconds since 1970"}.get(format_, format_)
