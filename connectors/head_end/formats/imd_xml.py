"""Oracle initial measurement data as XML: a stream of ``D1-InitialLoadIMD`` (or the older ``Devices/Device`` wrapper).

Read as a stream; document types and entities are refused. An IMD that cannot be read is refused and named, the others are kept;
a document that is not well-formed is refused whole.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from lxml import etree

from connectors import safe_xml
from connectors.head_end.formats import text
from connectors.head_end.formats.assemble import Builder, Pieces, kind_of
from connectors.head_end.formats.model import MAX_PROBLEMS, DecodeError, Options, Problems, shown
from connectors.head_end.formats.times import FINE, known_zone, to_utc
from schemas import conditions, quantity

Ints = npt.NDArray[np.int64]
Row = tuple[str, str, str, str]
MAX_TAGS: Final = 8_000_000
MAX_INTERVALS: Final = 200_000  # of one IMD
_WATCHED: Final = ("{*}D1-InitialLoadIMD", "{*}initialMeasurementData", "{*}deviceIdentifierNumber", "{*}Device")
_ISO: Final = text.compile_format("iso")
_OLD: Final = text.compile_format("%Y-%m-%d-%H.%M.%S")
# Status and condition words seen in feeds, beside our own words and six-digit codes
_WORDS: Final = {
    "a": conditions.REGULAR, "actual": conditions.REGULAR, "ok": conditions.REGULAR, "0": conditions.REGULAR,
    "e": conditions.EXT_ESTIMATE, "s": conditions.EXT_SUBSTITUTE, "f": conditions.EXT_FINAL_SUBSTITUTE,
    "n": conditions.INVALID, "m": conditions.REPORTED_MISSING, "o": conditions.OUTAGE,
}  # fmt: skip


def decode(data: bytes, options: Options, problems: Problems, builder: Builder) -> None:
    """Adds the reads of an IMD document to the builder. Raises DecodeError where the document or all its IMDs cannot be read."""
    file = options.name
    refuse_unsafe(data, file)
    if options.zone is not None:
        try:
            known_zone(options.zone)
        except ValueError as error:
            raise DecodeError(file, 1, str(error)) from error
    found = 0
    reader = _Reader(options, problems, builder)
    for imd, device in _imds(data, file):
        found += 1
        try:
            reader.take(imd, device)
        except ValueError as error:
            problems.add(imd.sourceline or 1, f"IMD refused: {error}")
    if not found:
        raise DecodeError(file, 1, "XML without D1-InitialLoadIMD or initialMeasurementData")
    if not reader.add_all():
        first = problems.found[0] if problems.found else None
        raise DecodeError(file, first.line if first else 1, first.what if first else "no reads")


def refuse_unsafe(data: bytes, file: str) -> None:
    """Raises DecodeError for a document that is not UTF-8 or the like, or has a document type or entities."""
    try:
        safe_xml.refuse_unsafe(data)
    except safe_xml.XmlError as error:
        raise DecodeError(file, error.line, error.reason) from error


@lru_cache(maxsize=1000)
def _bare(tag: str) -> str:
    return tag.rpartition("}")[2]


def _local(element: Any) -> str:
    tag = element.tag
    return _bare(tag) if isinstance(tag, str) else ""


def _imds(data: bytes, file: str) -> Iterator[tuple[Any, str]]:
    """Each IMD element with the device its wrapper names; elements are freed behind it. libxml2 bounds depth and the size of texts."""
    if data.count(b"<") > MAX_TAGS:
        raise DecodeError(file, 1, f"XML with more than {MAX_TAGS} tags")
    device = ""
    try:
        for _, element in etree.iterparse(
            io.BytesIO(data), events=("end",), tag=_WATCHED, **safe_xml.PARSER
        ):  # fmt: skip
            name, parent = _local(element), element.getparent()
            if name == "deviceIdentifierNumber":
                if parent is not None and _local(parent) == "Device":
                    device = _text(element)
                continue
            if name == "Device":
                device = ""
            else:
                yield element, device
            element.clear()
            while parent is not None and element.getprevious() is not None:
                del parent[0]
    except etree.XMLSyntaxError as error:
        raise DecodeError(file, error.lineno or 1, f"not well-formed XML: {' '.join(str(error.msg).split())[:200]}") from error


@dataclass(frozen=True)
class _Imd:
    """One IMD that may hold reads: where it stands, its channel and its period; ``count`` measurements."""

    line: int
    name: str
    code: int
    seconds: int  # 0: register reads, each with a time of its own
    readings: bool  # of a subtractive component: one reading at the end of each interval
    count: int


class _Reader:
    """Collects what all IMDs hold and reads it in one go."""

    def __init__(self, options: Options, problems: Problems, builder: Builder) -> None:
        self.zone, self.problems, self.builder = options.zone, problems, builder
        self.named_source = bool(options.source)
        self._imds: list[_Imd] = []
        self._times: list[str] = []  # two per IMD: start and end, or of register reads
        self._values: list[str] = []
        self._words: list[str] = []
        self._places: list[int] = []  # sequence numbers from 1; -1 where one is none

    def take(self, imd: Any, device: str) -> None:
        """Notes one IMD. Raises ValueError where it is refused."""
        outer = {_local(child): child for child in imd}
        parts = {_local(child): child for child in outer.get("preVEE", imd)}
        provider = _text(outer.get("serviceProviderExternalId"))
        if provider and not self.named_source and not self.builder.source:
            self.builder.source = provider[:200]
        rows = [_entry(child) for child in parts["msrs"] if _local(child) == "mL"] if "msrs" in parts else []
        seconds = _seconds(_text(parts.get("spi")))
        start, end = _text(parts.get("stDt")), _text(parts.get("enDt"))
        if "enQty" in parts or not seconds:
            reads = _scalar(parts, rows, start, end)
            for at, value, word in reads:
                self._note(imd, device, parts, 0, False, [("1", value, "", word)], (at, at))
            return
        if not rows:
            raise ValueError("no measurements")
        if len(rows) > MAX_INTERVALS:
            raise ValueError(f"{len(rows)} intervals; {MAX_INTERVALS} are allowed")
        readings = not any(value for _, value, _, _ in rows) and any(reading for _, _, reading, _ in rows)
        self._note(imd, device, parts, seconds, readings, rows, (start, end))

    def _note(
        self, imd: Any, device: str, parts: dict[str, Any], seconds: int, readings: bool, rows: list[Row], period: tuple[str, str]
    ) -> None:
        if not all(period):
            raise ValueError("stDt and enDt are needed")
        multiplier = _text(parts.get("mcm"))
        micros = quantity.parse(multiplier) if multiplier else 0
        if micros < 0:
            raise ValueError("mcm is negative")
        unit = _text(parts.get("externalUOM")) or _text(parts.get("uom"))
        kind = kind_of(_text(parts.get("mcIdN")), unit, seconds, "none", micros)
        name = _text(parts.get("dvcIdN")) or device
        code = self.builder.code(name, kind._replace(seconds=0) if readings else kind)
        label = f"{shown(name)} {shown(kind.channel)}"
        self._imds.append(_Imd(imd.sourceline or 1, label, code, seconds, readings, len(rows)))
        self._times += period
        for order, (sequence, value, reading, word) in enumerate(rows, 1):
            self._values.append(reading if readings else value)
            self._words.append(word)
            known = sequence.isascii() and sequence.isdigit() and len(sequence) <= 9
            self._places.append(int(sequence) if known else -1 if sequence else order)

    def add_all(self) -> int:
        """Adds what was collected to the builder; returns how many reads there are."""
        if not self._imds:
            return 0
        line, code, seconds, count = (np.array([getattr(i, n) for i in self._imds], np.int64) for n in ("line", "code", "seconds", "count"))
        readings = np.array([i.readings for i in self._imds], np.bool_)
        starts, ends = self._periods()
        due = self._due(starts, ends, seconds)
        owner = np.repeat(np.arange(len(self._imds)), count)
        place = np.array(self._places, np.int64)
        good = due[owner] > 0
        outside = good & ((place < 1) | (place > due[owner]))
        self._tell(owner, outside, lambda i: f"the sequence is no number from 1 to {due[owner[i]]}, which stDt to enDt hold")
        good &= ~outside
        micros, status = text.column(self._values).decimals(np.arange(len(self._values)))
        bad = good & ((status == text.BAD) | (status == text.LARGE))
        self._tell(owner, bad, lambda i: f"{shown(self._values[i])} is not a plain decimal number the hub can hold")
        good &= ~bad
        micros, quality = self._settled(micros, status == text.EMPTY, line[owner])
        at = starts[owner] + (place - np.where(readings[owner], 0, 1)) * seconds[owner]
        scalar = readings[owner] | (seconds[owner] == 0)
        for chosen, add in ((good & ~scalar, self.builder.intervals), (good & scalar, self.builder.registers)):
            rows = np.flatnonzero(chosen)
            add(Pieces(code[owner[rows]], at[rows], np.ones(len(rows), np.int64), line[owner[rows]], micros[rows], quality[rows]))
        return int(good.sum())

    def _periods(self) -> tuple[Ints, Ints]:
        """(start, end) of each IMD in UTC seconds; -1 and a problem where one is none."""
        table = text.column(self._times)
        fields = np.arange(len(self._times))[np.newaxis, :]
        local, offsets, status = table.stamps(fields, _ISO)
        older = np.flatnonzero(status == text.BAD)
        if len(older):
            local[older], offsets[older], status[older] = table.stamps(fields[:, older], _OLD)
        naive = np.flatnonzero((status == text.OK) & (offsets == text.NAIVE))
        if len(naive) and self.zone is None:
            line = self._imds[int(naive[0]) // 2].line
            self.problems.note(line, "times carry no offset and no zone was given: taken as UTC")
        utc, where = to_utc(local, offsets, self.zone or "UTC", fields[0])
        told: set[int] = set()
        for i in np.flatnonzero((status != text.OK) | (where != FINE)).tolist():
            what = f"does not exist in {self.zone}: clocks skip it" if status[i] == text.OK else "is not a time between 1970 and 2100"
            if i // 2 not in told:
                self.problems.add(self._imds[i // 2].line, f"IMD refused: {shown(self._times[i])} {what}")
            told.add(i // 2)
            utc[i] = -1
        return utc[::2], utc[1::2]

    def _due(self, starts: Ints, ends: Ints, seconds: Ints) -> Ints:
        """How many intervals each IMD's period holds, 1 for a register read; 0 and a problem where it is none."""
        step = np.maximum(seconds, 1)
        due = np.where(seconds == 0, 1, (ends - starts) // step)
        known = (starts >= 0) & (ends >= 0)
        uneven = known & (seconds > 0) & ((ends <= starts) | ((ends - starts) % step != 0))
        off = known & ~uneven & (seconds > 0) & (starts % np.gcd(step, 900) != 0)
        for k in np.flatnonzero(uneven).tolist():
            what = f"IMD refused: from stDt to enDt is no whole number of intervals of {seconds[k]} seconds"
            self.problems.add(self._imds[k].line, what)
        for k in np.flatnonzero(off).tolist():
            what = "IMD refused: stDt lies on no quarter of an hour (or multiple of a shorter length)"
            self.problems.add(self._imds[k].line, what)
        return np.where(known & ~uneven & ~off, due, 0)

    def _tell(self, owner: Ints, rows: npt.NDArray[np.bool_], what: Callable[[int], str]) -> None:
        found = np.flatnonzero(rows)
        for i in found[:MAX_PROBLEMS].tolist():
            self.problems.add(self._imds[owner[i]].line, f"{self._imds[owner[i]].name}: {what(i)}")
        self.problems.count(max(0, len(found) - MAX_PROBLEMS))

    def _settled(self, micros: Ints, empty: npt.NDArray[np.bool_], line: Ints) -> tuple[Ints, Ints]:
        """(millionths, condition): a status that is not known is kept as suspect and told; what is missing is zero."""
        known: dict[str, int] = {"": conditions.REGULAR}
        quality = np.empty(len(self._words), np.int64)
        for i, word in enumerate(self._words):
            code = known.get(word)
            if code is None:
                code = known[word] = _condition(word)
                if code == conditions.SUSPECT:
                    self.problems.note(int(line[i]), f"condition {shown(word)} is not known: kept as suspect")
            quality[i] = code
        quality[empty & (quality != conditions.OUTAGE)] = conditions.REPORTED_MISSING
        quality[(quality == conditions.INVALID) & (micros == 0)] = conditions.REPORTED_MISSING
        return np.where((quality >= conditions.MISSING) & (quality < conditions.OUTAGE), 0, micros), quality


def _condition(word: str) -> int:
    known = _WORDS.get(word.lower())
    if known is not None:
        return known
    try:
        return conditions.parse(word)
    except ValueError:
        return conditions.SUSPECT


def _seconds(written: str) -> int:
    if not written:
        return 0
    if not (written.isascii() and written.isdigit() and len(written) <= 6):
        raise ValueError(f"spi {shown(written)} is not a number of seconds")
    return int(written)


def _scalar(parts: dict[str, Any], rows: list[Row], start: str, end: str) -> list[tuple[str, str, str]]:
    """(time, reading, status) of a scalar IMD."""
    status = _status(parts)
    reads = [(start, _text(parts["stQty"]), status)] if "stQty" in parts else []
    if "enQty" in parts:
        reads.append((end or start, _text(parts["enQty"]), status))
    elif len(rows) == 1:
        _, value, reading, word = rows[0]
        reads.append((end or start, reading or value, word or status))
    elif rows:
        raise ValueError("several measurements without spi")
    if not reads:
        raise ValueError("neither enQty nor measurements")
    return reads


def _text(element: Any) -> str:
    return (element.text or "").strip() if element is not None else ""


def _status(parts: dict[str, Any]) -> str:
    """The condition code ``fc``, else the first status of the vendor's list."""
    code = _text(parts.get("fc"))
    if code or "sts" not in parts:
        return code
    for item in parts["sts"].iter():
        if _local(item) == "st" and _text(item):
            return _text(item)
    return _text(parts["sts"])


def _entry(element: Any) -> Row:
    """(sequence, quantity, reading, status) of one ``mL``."""
    sequence = value = reading = word = ""
    for child in element:
        name = _local(child)
        if name == "s":
            sequence = _text(child)
        elif name == "q":
            value = _text(child)
        elif name == "r":
            reading = _text(child)
        elif name in ("sts", "fc"):
            word = _status({_local(item): item for item in element})
    return sequence, value, reading, word
