"""Reads as JSON: ``{"source": …, "reads": [{device, channel, unit, seconds, start, values, conditions} or {…, readings}]}``.

An object that cannot be read is refused and named, the others are kept. A bad one among the ``values`` of an object is refused
alone: it leaves a gap.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt

from connectors.head_end.formats import text
from connectors.head_end.formats.assemble import Builder, Pieces, kind_of
from connectors.head_end.formats.model import MAX_PROBLEMS, DecodeError, Options, Problems, shown
from connectors.head_end.formats.times import FINE, SKIPPED, known_zone, to_utc
from schemas import conditions, quantity

Ints = npt.NDArray[np.int64]
_INTERVAL_KEYS: Final = frozenset({"device", "channel", "unit", "seconds", "start", "values", "conditions", "direction", "multiplier"})
_REGISTER_KEYS: Final = frozenset({"device", "channel", "unit", "readings", "direction", "multiplier"})
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
        return json.loads(
            data.decode("utf-8-sig"), parse_float=str, parse_int=str, parse_constant=_constant, object_pairs_hook=_object
        )
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
    kept = 0
    for number, item in enumerate(reads):
        try:
            kept += _Item(item, f"reads[{number}]", options.zone, problems, builder).add()
        except ValueError as error:
            problems.add(1, f"reads[{number}]: {error}")
    if reads and not kept:
        raise DecodeError(file, 1, f"no reads can be read: {problems.found[0].what if problems.found else 'all are empty'}")


class _Item:
    """One object of ``reads``. ValueError refuses it whole."""

    def __init__(self, item: Any, place: str, zone: str | None, problems: Problems, builder: Builder) -> None:
        if not isinstance(item, dict):
            raise ValueError("is not an object")
        self.item, self.place, self.zone, self.problems, self.builder = item, place, zone, problems, builder
        self.scalar = "readings" in item
        unknown = set(item) - (_REGISTER_KEYS if self.scalar else _INTERVAL_KEYS)
        if unknown:
            raise ValueError(f"unknown key {shown(min(unknown))}")

    def add(self) -> int:
        """Adds the object's reads to the builder; returns how many there are."""
        code = self._channel()
        return self._readings(code) if self.scalar else self._values(code)

    def _text(self, key: str, default: str | None = None) -> str:
        value = self.item.get(key, default)
        if not isinstance(value, str):
            raise ValueError(f"{key} is not a text")
        return value

    def _channel(self) -> int:
        seconds = 0
        if not self.scalar:
            written = self.item.get("seconds")
            if not isinstance(written, str) or not (written.isascii() and written.isdigit()) or len(written) > 5 or int(written) == 0:
                raise ValueError("seconds is not a whole number above zero")
            seconds = int(written)
        multiplier = self.item.get("multiplier")
        micros = quantity.parse(str(multiplier)) if multiplier is not None else 0
        if micros < 0:
            raise ValueError("multiplier is negative")
        device, channel, unit = self._text("device"), self._text("channel"), self._text("unit")
        return self.builder.code(device, kind_of(channel, unit, seconds, self._text("direction", "none"), micros))

    def _values(self, code: int) -> int:
        values, quality = self.item.get("values"), self.item.get("conditions")
        if not isinstance(values, list):
            raise ValueError("values is not a list")
        if quality is not None and (not isinstance(quality, list) or len(quality) != len(values)):
            raise ValueError("conditions is not a list as long as values")
        if not values:
            return 0
        start = int(self._times([self._text("start")])[0])
        seconds = int(self.item["seconds"])
        if start % int(np.gcd(seconds, 900)):
            raise ValueError("start lies on no quarter of an hour (or multiple of a shorter length)")
        if start + len(values) * seconds > 4_133_980_800:
            raise ValueError("the values reach beyond the year 2100")
        micros, bad = self._decimals(values, "values")
        codes, unknown = self._conditions(quality, values)
        bad |= unknown
        codes, micros = _settled(codes, micros, np.array([v is None or v == "" for v in values], np.bool_))
        good = ~bad
        edges = np.flatnonzero(np.diff(good.astype(np.int8), prepend=0, append=0))
        firsts, ends = edges[::2], edges[1::2]
        lines = np.ones(len(firsts), np.int64)
        self.builder.intervals(
            Pieces(np.full(len(firsts), code), start + firsts * seconds, ends - firsts, lines, micros[good], codes[good])
        )
        return int(good.sum())

    def _readings(self, code: int) -> int:
        readings = self.item["readings"]
        if not isinstance(readings, list) or not all(isinstance(r, dict) and set(r) <= {"at", "value", "condition"} for r in readings):
            raise ValueError("readings is not a list of objects with at, value and condition")
        if not readings:
            return 0
        times = self._times([r.get("at") for r in readings])
        values = [r.get("value") for r in readings]
        micros, bad = self._decimals(values, "readings")
        codes, unknown = self._conditions([r.get("condition") for r in readings], values)
        codes, micros = _settled(codes, micros, np.array([v is None or v == "" for v in values], np.bool_))
        rows = np.flatnonzero(~(bad | unknown | (times < 0)))
        ones = np.ones(len(rows), np.int64)
        self.builder.registers(Pieces(ones * code, times[rows], ones, ones, micros[rows], codes[rows]))
        return len(rows)

    def _problem(self, where: str, number: int, what: str) -> None:
        self.problems.add(1, f"{self.place}.{where}[{number}]: {what}")

    def _times(self, cells: list[Any]) -> Ints:
        """UTC seconds; -1 and a problem for a reading's bad time, ValueError for the only one."""
        texts = [c if isinstance(c, str) and "\n" not in c and '"' not in c and c else "?" for c in cells]
        table = text.split("\n".join(texts).encode("utf-8", "replace"), "\n", "")
        local, offsets, status = table.stamps(np.arange(len(cells))[np.newaxis, :], _ISO)
        utc, where = to_utc(local, offsets, self.zone, np.zeros(len(cells), np.int64))
        wrong = np.flatnonzero((status != text.OK) | (where != FINE))
        for i in wrong[:MAX_PROBLEMS]:
            cell = shown(texts[i]) if texts[i] != "?" else "the time"
            if status[i] == text.RANGE:
                what = f"{cell} lies outside 1970 to 2100"
            elif status[i] != text.OK:
                what = f"{cell} is not a time as 2026-03-29T00:15:00+01:00"
            elif where[i] == SKIPPED:
                what = f"{cell} does not exist in {self.zone}: clocks skip it"
            else:
                what = f"{cell} has no offset and no zone was given"
            if not self.scalar:
                raise ValueError(what)
            self._problem("readings", int(i), what)
        self.problems.count(max(0, len(wrong) - MAX_PROBLEMS))
        utc[wrong] = -1
        return utc

    def _decimals(self, values: list[Any], where: str) -> tuple[Ints, npt.NDArray[np.bool_]]:
        """(millionths, which are none)."""
        table = None
        try:
            joined = "\n".join(["" if value is None else value for value in values])
            if '"' not in joined and "\r" not in joined:
                table = text.split((joined + "\n").encode("utf-8", "replace"), "\n", "")
        except (TypeError, DecodeError):
            table = None  # something that is no text, or a text longer than any number
        if table is not None and len(table) == len(values):
            micros, status = table.decimals(np.arange(len(values)))
        else:
            micros, status = np.zeros(len(values), np.int64), np.zeros(len(values), np.int8)
            for i, value in enumerate(values):
                try:
                    micros[i] = quantity.parse(value) if value not in (None, "") else 0
                except (ValueError, AttributeError, TypeError):
                    status[i] = text.BAD
        bad = (status == text.BAD) | (status == text.LARGE)
        wrong = np.flatnonzero(bad)
        for i in wrong[:MAX_PROBLEMS]:
            self._problem(where, int(i), f"{shown(str(values[i]))} is not a plain decimal number the hub can hold")
        self.problems.count(max(0, len(wrong) - MAX_PROBLEMS))
        return micros, bad

    def _conditions(self, given: list[Any] | None, values: list[Any]) -> tuple[Ints, npt.NDArray[np.bool_]]:
        """(codes, which are unknown); REGULAR where nothing is given."""
        codes, bad = np.full(len(values), conditions.REGULAR, np.int64), np.zeros(len(values), np.bool_)
        known: dict[Any, int] = {}
        for i, word in enumerate(given or ()):
            if word is None:
                continue
            code = known.get(word) if isinstance(word, str) else -1
            if code is None:
                try:
                    code = conditions.parse(word)
                except ValueError:
                    code = -1
                known[word] = code
            codes[i] = max(code, 0)
            if code < 0:
                bad[i] = True
                self._problem("conditions", i, f"{shown(str(word))} is no condition")
        return codes, bad


def _settled(codes: Ints, micros: Ints, empty: npt.NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """An empty value is missing unless its condition explains it; what is missing is zero."""
    codes = np.where(empty & (codes >= conditions.EXT_ESTIMATE), conditions.REPORTED_MISSING, codes)
    missing = (codes >= conditions.MISSING) & (codes < conditions.OUTAGE)
    return codes, np.where(missing | empty, 0, micros)
