"""From decoded pieces of one file to blocks: order, duplicates, unbroken spans, size."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from connectors.head_end.formats.model import BLOCK_READS, MAX_NAME, MAX_PROBLEMS, Options, Problems, shown
from schemas.arrow import integers
from schemas.block import DIRECTIONS, ReadBlock, ragged_indices, starts_of, strings
from schemas.identity import identity
from schemas.units import resolve

Ints = npt.NDArray[np.int64]
DAY: Final = 86_400
_OBIS = re.compile(r"(?:\d{1,3}-\d{1,3}:|\d{1,3}[.-]\d{1,3}[.:])?([1-9]\d?)\.(?:8|9|29|6|4|7)\.\d{1,3}(?:[.*]\d{1,3})?", re.ASCII)
_OBIS_DIRECTION: Final = {1: "delivered", 3: "delivered", 9: "delivered", 2: "received", 4: "received", 10: "received"}


class Kind(NamedTuple):
    """What a channel is besides its device. ``seconds`` 0: register reads; ``multiplier`` in millionths, 0: none sent."""

    channel: str
    unit: str
    seconds: int
    direction: str
    multiplier: int


@lru_cache(maxsize=10_000)
def kind_of(channel: str, unit: str, seconds: int, direction: str = "none", multiplier: int = 0) -> Kind:
    """A channel's kind, its unit in canonical spelling and, for OBIS codes, its direction. Raises ValueError where it cannot be one."""
    _check_name("channel", channel)
    if len(unit) > 40 or "\ufffd" in unit:
        raise ValueError("unit is not one")
    if seconds < 0 or (seconds and DAY % seconds):
        raise ValueError(f"an interval of {seconds} seconds does not divide the day")
    if direction not in DIRECTIONS:
        raise ValueError(f"direction is none of {', '.join(DIRECTIONS)}")
    match = _OBIS.fullmatch(channel) if direction == "none" else None
    if match:
        direction = _OBIS_DIRECTION.get(int(match[1]), direction)
    return Kind(channel, resolve(unit).name, seconds, direction, multiplier)


def _check_name(what: str, name: str) -> None:
    if not name:
        raise ValueError(f"{what} is empty")
    if len(name) > MAX_NAME:
        raise ValueError(f"{what} has {len(name)} characters; {MAX_NAME} are allowed")
    if "\ufffd" in name:
        raise ValueError(f"{what} is not UTF-8 text")


@dataclass(frozen=True, eq=False)
class Pieces:
    """Runs of values without gaps, in file order; ``line`` is where a piece stands. Values of all pieces follow each other."""

    code: Ints
    start: Ints
    count: Ints
    line: Ints
    values: Ints
    conditions: Ints


class Builder:
    """Collects the reads of one file and makes blocks of them. Channels are numbered in the order they are made known."""

    def __init__(self, options: Options, format_name: str, problems: Problems) -> None:
        self.options, self.format, self.problems = options, format_name, problems
        self.source = options.source
        self._known: dict[tuple[str, Kind], int] = {}
        self._kinds: dict[Kind, int] = {}
        self._devices: list[pa.StringArray] = []  # the channels: device and number of the kind
        self._kind: list[Ints] = []
        self._size = 0
        self._intervals: list[Pieces] = []
        self._registers: list[Pieces] = []

    def code(self, device: str, kind: Kind) -> int:
        """The number of a channel. Raises ValueError where ``device`` cannot be one."""
        number = self._known.get((device, kind))
        if number is None:
            _check_name("device", device)
            number = self._known[device, kind] = self._size
            self._append(strings([device]), np.array([self._kind_number(kind)], np.int64))
        return number

    def codes(self, devices: pa.StringArray, device: Ints, kinds: list[Kind], kind: Ints) -> Ints:
        """The numbers of many channels: row by row an index into ``devices`` and one into ``kinds``. Both must have been checked."""
        pairs, codes = np.unique(device * len(kinds) + kind, return_inverse=True)
        numbers = np.array([self._kind_number(k) for k in kinds], np.int64)
        first = self._size
        self._append(devices.take(integers(pairs // len(kinds))), numbers[pairs % len(kinds)])
        return np.asarray(codes, np.int64) + first

    def _kind_number(self, kind: Kind) -> int:
        return self._kinds.setdefault(kind, len(self._kinds))

    def _append(self, devices: pa.StringArray, kinds: Ints) -> None:
        self._devices.append(devices)
        self._kind.append(kinds)
        self._size += len(kinds)

    def _column(self, name: str) -> Ints:
        """A number of the kind of each channel."""
        values = [getattr(k, name) for k in self._kinds]
        numbers = [DIRECTIONS.index(v) for v in values] if name == "direction" else values
        column: Ints = np.array(numbers, np.int64)[np.concatenate(self._kind)]
        return column

    def intervals(self, pieces: Pieces) -> None:
        """Adds interval values; ``start`` is the first interval's start of each piece."""
        if len(pieces.code):
            self._intervals.append(pieces)

    def registers(self, pieces: Pieces) -> None:
        """Adds register reads: pieces of one value, ``start`` is the time of the read."""
        if len(pieces.code):
            self._registers.append(pieces)

    def blocks(self, first: int) -> list[ReadBlock]:
        """All reads as blocks; ``first`` is the number of the first one within the payload."""
        rows = [self._spans(_joined(self._intervals))] if self._intervals else []
        if self._registers:
            rows.append(self._reads(_joined(self._registers)))
        found: list[ReadBlock] = []
        for spans, times in rows:
            found += self._cut(spans, times, first + len(found))
        return found

    def _spans(self, pieces: Pieces) -> tuple[Pieces, bool]:
        """Sorted, each interval once, neighbours merged."""
        seconds = self._column("seconds")
        in_file, pieces = pieces, _sorted(pieces)
        length = pieces.count * seconds[pieces.code]
        clash = (pieces.code[1:] == pieces.code[:-1]) & (pieces.start[1:] < (pieces.start + length)[:-1])
        if clash.any():
            touched = np.isin(in_file.code, np.unique(pieces.code[1:][clash]))
            apart = self._each_once(_exploded(_taken(in_file, np.flatnonzero(touched)), seconds))
            pieces = _sorted(_joined([_taken(in_file, np.flatnonzero(~touched)), apart]))
        ends = pieces.start + pieces.count * seconds[pieces.code]
        breaks = np.ones(len(pieces.code), np.bool_)
        breaks[1:] = (pieces.code[1:] != pieces.code[:-1]) | (pieces.start[1:] != ends[:-1])
        heads = np.flatnonzero(breaks)
        counts = np.add.reduceat(pieces.count, heads) if len(heads) else np.zeros(0, np.int64)
        return Pieces(pieces.code[heads], pieces.start[heads], counts, pieces.line[heads], pieces.values, pieces.conditions), False

    def _reads(self, pieces: Pieces) -> tuple[Pieces, bool]:
        return self._each_once(_sorted(pieces)), True

    def _each_once(self, reads: Pieces) -> Pieces:
        """Of reads of one channel and time keeps the later record, but never a missing one over a value."""
        present = (reads.conditions < 100_000) | (reads.conditions >= 200_000)
        order = np.lexsort((np.arange(len(reads.code)), present, reads.start, reads.code))
        code, start = reads.code[order], reads.start[order]
        lost = np.zeros(len(order), np.bool_)
        lost[:-1] = (code[1:] == code[:-1]) & (start[1:] == start[:-1])
        if not lost.any():
            return reads
        at = np.flatnonzero(lost)
        at = at[(reads.values[order[at]] != reads.values[order[at + 1]]) & present[order[at]]]
        self._tell_replaced(code[at], reads.line[order[at]], reads.line[order[at + 1]])
        return _taken(reads, order[~lost])

    def _tell_replaced(self, codes: Ints, line: Ints, by: Ints) -> None:
        """One problem for each pair of lines of a channel that disagree."""
        devices, kinds, kind = pa.concat_arrays(self._devices), list(self._kinds), np.concatenate(self._kind)
        pairs, counts = np.unique(np.stack([line, by, codes]), axis=1, return_counts=True)
        for k in range(min(pairs.shape[1], MAX_PROBLEMS)):
            code, reads = int(pairs[2, k]), "a read" if counts[k] == 1 else f"{counts[k]} reads"
            name = f"{shown(devices[code].as_py())} {shown(kinds[kind[code]].channel)}"
            where = f"line {pairs[1, k]}" if pairs[1, k] != pairs[0, k] else "the same line"
            self.problems.add(int(pairs[0, k]), f"{name}: {where} has other values for {reads} given here; the later are kept")
        self.problems.count(max(0, pairs.shape[1] - MAX_PROBLEMS))

    def _cut(self, spans: Pieces, scalar: bool, first: int) -> list[ReadBlock]:
        """Blocks of at most BLOCK_READS reads, the spans in order."""
        if scalar:  # one row per channel: its reads follow each other, ``start`` holds their times
            heads = np.flatnonzero(np.diff(spans.code, prepend=-1))
            code, count = spans.code[heads], np.diff(np.append(heads, len(spans.code)))
            start = spans.start[heads]
        else:
            code, count, start = spans.code, spans.count, spans.start
        seconds = self._column("seconds")
        begins = starts_of(count)
        parts = -(-count // BLOCK_READS)
        if len(parts) and int(parts.max()) > 1:
            row = np.repeat(np.arange(len(count)), parts)
            skip = (np.arange(len(row)) - np.repeat(starts_of(parts), parts)) * BLOCK_READS
            begins, code = begins[row] + skip, code[row]
            count = np.minimum(count[row] - skip, BLOCK_READS)
            start = spans.start[begins] if scalar else start[row] + skip * seconds[code]
        texts = self._texts()
        total = np.cumsum(count)
        found: list[ReadBlock] = []
        low = 0
        while low < len(count):
            base = int(total[low - 1]) if low else 0
            high = max(low + 1, int(np.searchsorted(total, base + BLOCK_READS, side="right")))
            flat = slice(int(begins[low]), int(begins[high - 1] + count[high - 1]))
            rows = slice(low, high)
            found.append(self._block(first + len(found), code[rows], start[rows], count[rows], spans, flat, scalar, texts))
            low = high
        return found

    def _texts(self) -> tuple[Any, Any, Any, Ints, Ints, Ints]:
        kinds = list(self._kinds)
        at = integers(np.concatenate(self._kind))
        channel, unit = (strings([getattr(k, name) for k in kinds]).take(at) for name in ("channel", "unit"))
        numbers = (self._column(name) for name in ("direction", "seconds", "multiplier"))
        direction, seconds, multiplier = numbers
        return pa.concat_arrays(self._devices), channel, unit, direction, seconds, multiplier

    def _block(self, number: int, code: Ints, start: Ints, count: Ints, spans: Pieces, flat: slice, scalar: bool, texts: Any) -> ReadBlock:
        device, channel, unit, direction, seconds, multiplier = texts
        which = integers(code)
        return ReadBlock(
            id=identity(self.options.payload, number),
            payload=self.options.payload,
            source=self.source,
            format=self.format,
            received_at=self.options.received_at,
            device=device.take(which),
            channel=channel.take(which),
            unit=unit.take(which),
            direction=direction[code].astype(np.int8),
            start=start,
            seconds=seconds[code].astype(np.int32),
            count=count.astype(np.int32),
            reads=(count if scalar else np.zeros(len(count))).astype(np.int32),
            multiplier=multiplier[code],
            values=spans.values[flat],
            conditions=spans.conditions[flat].astype(np.int32),
            times=spans.start[flat] if scalar else np.zeros(0, np.int64),
        ).check()


def _joined(parts: list[Pieces]) -> Pieces:
    if len(parts) == 1:
        return parts[0]
    return Pieces(*(np.concatenate([getattr(p, name) for p in parts]) for name in Pieces.__dataclass_fields__))


def _taken(pieces: Pieces, rows: Ints) -> Pieces:
    flat = ragged_indices(pieces.count, rows)
    return Pieces(
        pieces.code[rows], pieces.start[rows], pieces.count[rows], pieces.line[rows], pieces.values[flat], pieces.conditions[flat]
    )


def _sorted(pieces: Pieces) -> Pieces:
    """By channel and time; what is equal in both stays in file order."""
    code, start = pieces.code, pieces.start
    if bool(((code[1:] > code[:-1]) | ((code[1:] == code[:-1]) & (start[1:] >= start[:-1]))).all()):
        return pieces
    return _taken(pieces, np.lexsort((start, code)))


def _exploded(pieces: Pieces, seconds: Ints) -> Pieces:
    """Every value as a piece of its own."""
    if int(pieces.count.max()) == 1:
        return pieces
    code = np.repeat(pieces.code, pieces.count)
    within = np.arange(len(code)) - np.repeat(starts_of(pieces.count), pieces.count)
    start = np.repeat(pieces.start, pieces.count) + within * seconds[code]
    ones = np.ones(len(code), np.int64)
    return Pieces(code, start, ones, np.repeat(pieces.line, pieces.count), pieces.values, pieces.conditions)
