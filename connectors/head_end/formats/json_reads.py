"""Reads as JSON: ``{"source": …, "reads": [{device, channel, unit, seconds, start, values, conditions} or {…, readings}]}``.

An object that cannot be read is refused and named, the others are kept. A bad one among the ``values`` of an object is refused
alone: it leaves a gap.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt

from connectors.head_end.formats import text
from connectors.head_end.formats.assemble import Builder, Pieces, kind_of
from connectors.head_end.formats.model import MAX_PROBLEMS, DecodeError, Options, Problems, shown
from connectors.head_end.formats.times import FINE, SKIPPED, known_zone, to_utc
from schemas import conditions, quantity
from schemas.block import starts_of

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
_INTERVAL_KEYS: Final = frozenset({"device", "channel", "unit", "seconds", "start", "values", "conditions", "direction", "multiplier"})
_REGISTER_KEYS: Final = frozenset({"device", "channel", "unit", "readings", "direction", "multiplier"})
_READING_KEYS: Final = frozenset({"at", "value", "condition"})
_LAST: Final = 4_133_980_800  # the end of 2100
_ISO: Final = text.compile_format("iso")


class _RefusedError(ValueError):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise _RefusedError(f"key {shown(twice)} stands twice in one object")
    return found


def _constant(word: str) -> NoReturn:
    raise _RefusedError(f"{word} is not a number")


def parse(data: bytes, file: str) -> Any:
    """A JSON document with its numbers as text. Raises DecodeError on what is not JSON, duplicate keys, NaN, too deep nesting."""
    try:
        return json.loads(data.decode("utf-8-sig"), parse_float=str, parse_int=str, parse_constant=_constant, object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DecodeError(file, line, "not UTF-8 text") from error
    except json.JSONDecodeError as error:
        raise DecodeError(file, error.lineno, f"not JSON: {error.msg} (column {error.colno})") from error
    except _RefusedError as error:
        raise DecodeError(file, 1, str(error)) from error
    except RecursionError as error:
        raise DecodeError(file, 1, "nested too deeply") from error


def decode(data: bytes, options: Options, problems: Problems, builder: Builder) -> None:
    """Adds the reads of a JSON document to the builder. Raises DecodeError where nothing can be read."""
    file = options.name
    document = parse(data, file)
    reads = document.get("reads") if isinstance(document, dict) else document
    if not isinstance(reads, list):
        raise DecodeError(file, 1, 'JSON of reads is an object with a list "reads"')
    if isinstance(document, dict) and not options.source:
        source = document.get("source", "")
        if not isinstance(source, str) or len(source) > 200:
            raise DecodeError(file, 1, "source is not a short text")
        builder.source = source
    if options.zone is not None:
        try:
            known_zone(options.zone)
        except ValueError as error:
            raise DecodeError(file, 1, str(error)) from error
    found = _Reads(options.zone, problems, builder)
    for number, item in enumerate(reads):
        try:
            found.take(number, item)
        except ValueError as error:
            problems.add(1, f"reads[{number}]: {error}")
    kept = found.intervals() + found.registers()
    if reads and not kept:
        raise DecodeError(file, 1, f"no reads can be read: {problems.found[0].what if problems.found else 'all are empty'}")


@dataclass(frozen=True)
class _Item:
    """One object of ``reads`` that may hold reads: its place in the list and its channel."""

    number: int
    code: int
    seconds: int
    count: int


class _Reads:
    """Collects what all objects hold and reads it in one go."""

    def __init__(self, zone: str | None, problems: Problems, builder: Builder) -> None:
        self.zone, self.problems, self.builder = zone, problems, builder
        self._items: dict[bool, list[_Item]] = {False: [], True: []}  # by: are they registers
        self._times: dict[bool, list[Any]] = {False: [], True: []}
        self._values: dict[bool, list[Any]] = {False: [], True: []}
        self._words: dict[bool, list[Any]] = {False: [], True: []}

    def take(self, number: int, item: Any) -> None:
        """Notes one object. Raises ValueError where it is refused whole."""
        if not isinstance(item, dict):
            raise ValueError("is not an object")
        scalar = "readings" in item
        unknown = set(item) - (_REGISTER_KEYS if scalar else _INTERVAL_KEYS)
        if unknown:
            raise ValueError(f"unknown key {shown(min(unknown))}")
        seconds = 0 if scalar else _seconds(item)
        values, words, times = _readings(item) if scalar else _series(item)
        code = self._code(item, seconds)
        self._items[scalar].append(_Item(number, code, seconds, len(values)))
        self._values[scalar] += values
        self._words[scalar] += words
        self._times[scalar] += times

    def _code(self, item: dict[str, Any], seconds: int) -> int:
        multiplier = item.get("multiplier")
        micros = quantity.parse(str(multiplier)) if multiplier is not None else 0
        if micros < 0:
            raise ValueError("multiplier is negative")
        device, channel, unit = _text(item, "device"), _text(item, "channel"), _text(item, "unit")
        return self.builder.code(device, kind_of(channel, unit, seconds, _text(item, "direction", "none"), micros))

    def intervals(self) -> int:
        """Adds all interval values to the builder; returns how many there are."""
        items = self._items[False]
        if not items:
            return 0
        code, seconds, count = (np.array([getattr(i, name) for i in items], np.int64) for name in ("code", "seconds", "count"))
        starts, wrong = self._moments(self._times[False], code)
        for k in np.flatnonzero(starts % np.gcd(seconds, 900) != 0).tolist():
            wrong.setdefault(k, "start lies on no quarter of an hour (or multiple of a shorter length)")
        for k in np.flatnonzero(starts + count * seconds > _LAST).tolist():
            wrong.setdefault(k, "the values reach beyond the year 2100")
        for k, what in sorted(wrong.items()):
            self.problems.add(1, f"reads[{items[k].number}]: {what}")
        refused = np.isin(np.arange(len(items)), list(wrong))
        owner = np.repeat(np.arange(len(items)), count)
        micros, quality, good = self._cells(False, owner, ~refused[owner], "values", "conditions")
        good &= ~refused[owner]
        # A run of good values of one object is one piece
        heads = good & ~np.concatenate(([False], good[:-1] & (owner[1:] == owner[:-1]))) if len(good) else good
        first = np.flatnonzero(heads)
        run = np.cumsum(heads)[good] - 1
        slot = first - starts_of(count)[owner[first]]
        own = owner[first]
        lines = np.ones(len(first), np.int64)
        begins = starts[own] + slot * seconds[own]
        lengths = np.bincount(run, minlength=len(first)).astype(np.int64)
        self.builder.intervals(Pieces(code[own], begins, lengths, lines, micros[good], quality[good]))
        return int(good.sum())

    def registers(self) -> int:
        """Adds all register reads to the builder; returns how many there are."""
        items = self._items[True]
        if not self._values[True]:
            return 0
        count = np.array([i.count for i in items], np.int64)
        owner = np.repeat(np.arange(len(items)), count)
        code = np.array([i.code for i in items], np.int64)[owner]
        times, wrong = self._moments(self._times[True], code)
        begins = starts_of(count)
        for k, what in sorted(wrong.items()):
            self.problems.add(1, f"reads[{items[owner[k]].number}].readings[{k - begins[owner[k]]}]: {what}")
        timed = ~np.isin(np.arange(len(owner)), list(wrong))
        micros, quality, good = self._cells(True, owner, timed, "readings", "readings")
        rows = np.flatnonzero(good & timed)
        ones = np.ones(len(rows), np.int64)
        self.builder.registers(Pieces(code[rows], times[rows], ones, ones, micros[rows], quality[rows]))
        return len(rows)

    def _cells(self, scalar: bool, owner: Ints, wanted: Flags, values: str, words: str) -> tuple[Ints, Ints, Flags]:
        """(millionths, condition, which can be used) of all values; what is wrong with wanted ones is told."""
        cells, items = self._values[scalar], self._items[scalar]
        begins = starts_of(np.array([i.count for i in items], np.int64))
        micros, status = text.column(cells).decimals(np.arange(len(cells)))
        bad = (status == text.BAD) | (status == text.LARGE)
        quality, unknown = _conditions(self._words[scalar])

        def tell(rows: Ints, where: str, what: Callable[[int], str]) -> None:
            for i in rows[:MAX_PROBLEMS].tolist():
                self.problems.add(1, f"reads[{items[owner[i]].number}].{where}[{i - begins[owner[i]]}]: {what(i)}")
            self.problems.count(max(0, len(rows) - MAX_PROBLEMS))

        tell(np.flatnonzero(bad & wanted), values, lambda i: f"{shown(str(cells[i]))} is not a plain decimal number the hub can hold")
        tell(np.flatnonzero(unknown & wanted & ~bad), words, lambda i: f"{shown(str(self._words[scalar][i]))} is no condition")
        empty = status == text.EMPTY
        quality = np.where(empty & (quality >= conditions.EXT_ESTIMATE), conditions.REPORTED_MISSING, quality)
        missing = (quality >= conditions.MISSING) & (quality < conditions.OUTAGE)
        return np.where(missing, 0, micros), quality, ~(bad | unknown)

    def _moments(self, cells: list[Any], group: Ints) -> tuple[Ints, dict[int, str]]:
        """(UTC second of each time, what is wrong with those that have none)."""
        table = text.column(cells)
        local, offsets, status = table.stamps(np.arange(len(cells))[np.newaxis, :], _ISO)
        utc, where = to_utc(local, offsets, self.zone, group)
        wrong: dict[int, str] = {}
        for i in np.flatnonzero((status != text.OK) | (where != FINE)).tolist():
            cell = shown(str(cells[i]))
            if status[i] == text.RANGE:
                wrong[i] = f"{cell} lies outside 1970 to 2100"
            elif status[i] != text.OK:
                wrong[i] = f"{cell} is not a time as 2026-03-29T00:15:00+01:00"
            elif where[i] == SKIPPED:
                wrong[i] = f"{cell} does not exist in {self.zone}: clocks skip it"
            else:
                wrong[i] = f"{cell} has no offset and no zone was given"
            utc[i] = 0
        return utc, wrong


def _text(item: dict[str, Any], key: str, default: str | None = None) -> str:
    value = item.get(key, default)
    if not isinstance(value, str):
        raise ValueError(f"{key} is not a text")
    return value


def _seconds(item: dict[str, Any]) -> int:
    written = item.get("seconds")
    if not isinstance(written, str) or not (written.isascii() and written.isdigit()) or len(written) > 5 or int(written) == 0:
        raise ValueError("seconds is not a whole number above zero")
    return int(written)


def _series(item: dict[str, Any]) -> tuple[list[Any], list[Any], list[Any]]:
    """(values, conditions, the start) of an object of intervals."""
    values, words = item.get("values"), item.get("conditions")
    if not isinstance(values, list):
        raise ValueError("values is not a list")
    if words is not None and (not isinstance(words, list) or len(words) != len(values)):
        raise ValueError("conditions is not a list as long as values")
    return values, [None] * len(values) if words is None else words, [_text(item, "start")]


def _readings(item: dict[str, Any]) -> tuple[list[Any], list[Any], list[Any]]:
    """(values, conditions, times) of an object of register reads."""
    readings = item["readings"]
    if not isinstance(readings, list) or not all(isinstance(r, dict) and set(r) <= _READING_KEYS for r in readings):
        raise ValueError("readings is not a list of objects with at, value and condition")
    values, words = [r.get("value") for r in readings], [r.get("condition") for r in readings]
    return values, words, [r.get("at", "?") for r in readings]


def _conditions(words: list[Any]) -> tuple[Ints, Flags]:
    """(codes, which words are none); REGULAR where nothing is given."""
    known: dict[Any, int] = {None: conditions.REGULAR}
    codes = np.empty(len(words), np.int64)
    for i, word in enumerate(words):
        code = known.get(word) if word is None or isinstance(word, str) else -1
        if code is None:
            try:
                code = conditions.parse(word)
            except ValueError:
                code = -1
            known[word] = code
        codes[i] = code
    return np.maximum(codes, 0), codes < 0
