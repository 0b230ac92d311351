"""Oracle initial measurement data as XML: a stream of ``D1-InitialLoadIMD`` (or the older ``Devices/Device`` wrapper).

Read as a stream; document types and entities are refused. An IMD that cannot be read is refused and named, the others are kept;
a document that is not well-formed is refused whole.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from lxml import etree

from connectors.head_end.formats import text
from connectors.head_end.formats.assemble import Builder, Kind, Pieces, kind_of
from connectors.head_end.formats.model import DecodeError, Options, Problems, shown
from connectors.head_end.formats.times import FINE, SKIPPED, known_zone, to_utc
from schemas import conditions, quantity

Ints = npt.NDArray[np.int64]
MAX_DEPTH: Final = 40
MAX_INTERVALS: Final = 200_000  # of one IMD
_IMD: Final = frozenset({"D1-InitialLoadIMD", "initialMeasurementData"})
_ENCODING = re.compile(rb"<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([A-Za-z0-9._-]{1,40})[\"']")
_ENCODINGS: Final = frozenset({"utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "windows-1252"})
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
    _refuse_unsafe(data, file)
    if options.zone is not None:
        try:
            known_zone(options.zone)
        except ValueError as error:
            raise DecodeError(file, 1, str(error)) from error
    found, kept = 0, 0
    reader = _Reader(options, problems, builder)
    for imd, device in _imds(data, file):
        found += 1
        try:
            kept += reader.add(imd, device)
        except ValueError as error:
            problems.add(imd.sourceline or 1, f"IMD refused: {error}")
    if not found:
        raise DecodeError(file, 1, "XML without D1-InitialLoadIMD or initialMeasurementData")
    if not kept:
        raise DecodeError(file, problems.found[0].line, problems.found[0].what) if problems.found else DecodeError(file, 1, "no reads")
    if reader.assumed_utc:
        problems.note(reader.assumed_utc, "times carry no offset and no zone was given: taken as UTC")


def _refuse_unsafe(data: bytes, file: str) -> None:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in data[:64]:
        raise DecodeError(file, 1, "XML must be UTF-8")
    encoding = _ENCODING.match(data.lstrip(b"\xef\xbb\xbf \r\n\t"))
    if encoding and encoding[1].decode().lower() not in _ENCODINGS:
        raise DecodeError(file, 1, f"XML encoding {encoding[1].decode()} is not accepted")
    for mark in (b"<!DOCTYPE", b"<!ENTITY"):
        at = data.find(mark)
        if at >= 0:
            raise DecodeError(file, data.count(b"\n", 0, at) + 1, "XML with a document type or entities is refused")


def _local(element: Any) -> str:
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def _imds(data: bytes, file: str) -> Iterator[tuple[Any, str]]:
    """Each IMD element with the device its wrapper names; elements are freed behind it."""
    depth, devices = 0, [""]
    try:
        context = etree.iterparse(
            io.BytesIO(data), events=("start", "end"), resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False,
            remove_comments=True, remove_pis=True,
        )  # fmt: skip
        inside = False
        for event, element in context:
            name = _local(element)
            if event == "start":
                depth += 1
                if depth > MAX_DEPTH:
                    raise DecodeError(file, element.sourceline or 1, f"XML nested deeper than {MAX_DEPTH}")
                inside = inside or name in _IMD
                continue
            depth -= 1
            if name in _IMD:
                yield element, devices[0]
                inside = False
            elif name == "deviceIdentifierNumber" and not inside:
                devices[0] = (element.text or "").strip()
            elif name == "Device":
                devices[0] = ""
            if not inside and name != "preVEE":
                element.clear()
                parent = element.getparent()
                while parent is not None and element.getprevious() is not None:
                    del parent[0]
    except etree.XMLSyntaxError as error:
        line = error.lineno or 1
        raise DecodeError(file, line, f"not well-formed XML: {' '.join(str(error.msg).split())[:200]}") from error


class _Reader:
    def __init__(self, options: Options, problems: Problems, builder: Builder) -> None:
        self.zone, self.problems, self.builder = options.zone, problems, builder
        self.named_source = bool(options.source)
        self.assumed_utc = 0  # line of the first time without offset or zone
        self.line = 1

    def add(self, imd: Any, device: str) -> int:
        """Adds one IMD; returns its number of reads. ValueError refuses it."""
        self.line = imd.sourceline or 1
        outer = {_local(child): child for child in imd}
        body = outer.get("preVEE", imd)
        parts = {_local(child): child for child in body}
        provider = _text(outer.get("serviceProviderExternalId"))
        if provider and not self.named_source and not self.builder.source:
            self.builder.source = provider[:200]
        seconds = self._seconds(_text(parts.get("spi")))
        name = _text(parts.get("dvcIdN")) or device
        multiplier = _text(parts.get("mcm"))
        micros = quantity.parse(multiplier) if multiplier else 0
        if micros < 0:
            raise ValueError("mcm is negative")
        unit = _text(parts.get("externalUOM")) or _text(parts.get("uom"))
        kind = kind_of(_text(parts.get("mcIdN")), unit, seconds, "none", micros)
        start, end = _text(parts.get("stDt")), _text(parts.get("enDt"))
        lists = [child for child in parts["msrs"] if _local(child) == "mL"] if "msrs" in parts else []
        if len(lists) > MAX_INTERVALS:
            raise ValueError(f"{len(lists)} intervals; {MAX_INTERVALS} are allowed")
        if "enQty" in parts or not seconds:
            return self._scalar(name, kind._replace(seconds=0), start, end, parts, lists)
        rows = [_entry(child) for child in lists]
        if not rows:
            raise ValueError("no measurements")
        first, last = self._moments([start, end])
        return self._intervals(name, kind, first, last, rows)

    @staticmethod
    def _seconds(written: str) -> int:
        if not written:
            return 0
        if not (written.isascii() and written.isdigit() and len(written) <= 6):
            raise ValueError(f"spi {shown(written)} is not a number of seconds")
        return int(written)

    def _moments(self, cells: list[str]) -> list[int]:
        found: list[int] = []
        for cell in cells:
            if not cell or "\n" in cell or '"' in cell:
                raise ValueError("stDt and enDt are needed")
            table = text.split(cell.encode(), "\n", "")
            at = np.zeros((1, 1), np.int64)
            local, offsets, status = table.stamps(at, _ISO)
            if status[0] == text.BAD:
                local, offsets, status = table.stamps(at, _OLD)
            if status[0] != text.OK:
                raise ValueError(f"{shown(cell)} is not a time between 1970 and 2100")
            if offsets[0] == text.NAIVE and self.zone is None:
                self.assumed_utc = self.assumed_utc or self.line
            utc, where = to_utc(local, offsets, self.zone or "UTC", at[0])
            if where[0] == SKIPPED:
                raise ValueError(f"{shown(cell)} does not exist in {self.zone}: clocks skip it")
            assert where[0] == FINE
            found.append(int(utc[0]))
        return found

    def _condition(self, word: str) -> int:
        """The code of a status; one that is not known is kept as suspect and told."""
        if not word:
            return conditions.REGULAR
        known = _WORDS.get(word.lower())
        if known is not None:
            return known
        try:
            return conditions.parse(word)
        except ValueError:
            self.problems.note(self.line, f"condition {shown(word)} is not known: kept as suspect")
            return conditions.SUSPECT

    def _scalar(self, device: str, kind: Kind, start: str, end: str, parts: dict[str, Any], lists: list[Any]) -> int:
        reads: list[tuple[str, str, str]] = []
        status = _status(parts)
        if "stQty" in parts:
            reads.append((start, _text(parts["stQty"]), status))
        if "enQty" in parts:
            reads.append((end or start, _text(parts["enQty"]), status))
        elif len(lists) == 1:
            _, value, reading, word = _entry(lists[0])
            reads.append((end or start, reading or value, word or status))
        elif lists:
            raise ValueError("several measurements without spi")
        if not reads:
            raise ValueError("neither enQty nor measurements")
        code = self.builder.code(device, kind)
        times = self._moments([at for at, _, _ in reads])
        micros = [quantity.parse(value) if value else 0 for _, value, _ in reads]
        codes = [self._condition(word) if value else conditions.REPORTED_MISSING for _, value, word in reads]
        codes_, micros_ = _settled(codes, micros)
        ones = np.ones(len(reads), np.int64)
        self.builder.registers(Pieces(ones * code, np.array(times, np.int64), ones, ones * self.line, micros_, codes_))
        return len(reads)

    def _intervals(self, device: str, kind: Kind, first: int, last: int, rows: list[tuple[str, str, str, str]]) -> int:
        seconds = kind.seconds
        due, rest = divmod(last - first, seconds)
        if last <= first or rest:
            raise ValueError(f"from stDt to enDt is no whole number of intervals of {seconds} seconds")
        if first % int(np.gcd(seconds, 900)):
            raise ValueError("stDt lies on no quarter of an hour (or multiple of a shorter length)")
        readings = not any(value for _, value, _, _ in rows) and any(reading for _, _, reading, _ in rows)
        places: list[int] = []
        micros: list[int] = []
        codes: list[int] = []
        for order, (sequence, value, reading, word) in enumerate(rows, 1):
            try:
                if sequence and not (sequence.isascii() and sequence.isdigit() and len(sequence) <= 9):
                    raise ValueError(f"sequence {shown(sequence)} is not a number")
                place = int(sequence) if sequence else order
                if not 1 <= place <= due:
                    raise ValueError(f"interval {place} lies outside stDt to enDt, which hold {due}")
                cell = reading if readings else value
                micros.append(quantity.parse(cell) if cell else 0)
                places.append(place)
                codes.append(self._condition(word) if cell else self._unless_outage(word))
            except ValueError as error:
                self.problems.add(self.line, f"{shown(device)} {shown(kind.channel)}: {error}")
        if not places:
            raise ValueError("no measurement can be read")
        codes_, micros_ = _settled(codes, micros)
        ones = np.ones(len(places), np.int64)
        at = first + (np.array(places, np.int64) - (0 if readings else 1)) * seconds
        code = self.builder.code(device, kind._replace(seconds=0) if readings else kind)
        pieces = Pieces(ones * code, at, ones, ones * self.line, micros_, codes_)
        (self.builder.registers if readings else self.builder.intervals)(pieces)
        return len(places)

    def _unless_outage(self, word: str) -> int:
        code = self._condition(word)
        return conditions.OUTAGE if code == conditions.OUTAGE else conditions.REPORTED_MISSING


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


def _entry(element: Any) -> tuple[str, str, str, str]:
    """(sequence, quantity, reading, status) of one ``mL``."""
    parts = {_local(child): child for child in element}
    return _text(parts.get("s")), _text(parts.get("q")), _text(parts.get("r")), _status(parts)


def _settled(codes: list[int], micros: list[int]) -> tuple[Ints, Ints]:
    quality, values = np.array(codes, np.int64), np.array(micros, np.int64)
    quality[(quality == conditions.INVALID) & (values == 0)] = conditions.REPORTED_MISSING
    return quality, np.where((quality >= conditions.MISSING) & (quality < conditions.OUTAGE), 0, values)
