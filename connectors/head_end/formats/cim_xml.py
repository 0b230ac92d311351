"""MeterReadings of IEC 61968-9, bare or in a message of IEC 61968-100: interval blocks and single readings with their quality codes.

What a channel is follows from the 18 fields of its ReadingType: interval length, register or interval, direction, unit and power of
ten. Head ends do not agree on all codes, so sets of codes stand for the same thing. Interval readings are stamped at their ends.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np

from connectors import safe_xml
from connectors.head_end.formats import text
from connectors.head_end.formats.assemble import Builder, Kind, Pieces, kind_of
from connectors.head_end.formats.imd_xml import refuse_unsafe
from connectors.head_end.formats.model import DecodeError, Options, Problems, shown
from connectors.head_end.formats.times import FINE, known_zone, to_utc
from schemas import conditions

MAX_TAGS: Final = 8_000_000
SECONDS: Final = {1: 600, 2: 900, 3: 60, 4: 86_400, 5: 1800, 6: 300, 7: 3600, 31: 1200, 50: 3600, 51: 1800, 52: 1200, 53: 900, 54: 600,
                  55: 300, 56: 60}  # fmt: skip
"""Measuring periods: codes 1–31 and the fixed blocks of demand 50–56."""
REGISTERS: Final = frozenset((0, 1, 2, 3, 6, 9, 12))
"""Accumulations that are readings: bulk, continuous and plain cumulative, indicating, summation, instantaneous; 4 is what was used."""
DIRECTIONS: Final = {1: "delivered", 5: "delivered", 19: "received"}
UNITS: Final = {72: "Wh", 73: "varh", 71: "VAh", 38: "W", 63: "var", 61: "VA", 29: "V", 5: "A", 65: "pf", 42: "m3", 119: "ft3",
                169: "therm", 111: "count", 31: "J", 33: "Hz", 23: "C", 134: "L"}  # fmt: skip
_POWERS: Final = {
    ("Wh", 3): "kWh", ("Wh", 6): "MWh", ("Wh", 9): "GWh", ("varh", 3): "kvarh", ("varh", 6): "Mvarh", ("VAh", 3): "kVAh", ("W", 3): "kW",
    ("W", 6): "MW", ("var", 3): "kvar", ("VA", 3): "kVA", ("J", 6): "MJ", ("J", 9): "GJ", ("m3", -3): "L", ("ft3", 2): "CCF",
}  # fmt: skip
_TIME: Final = text.compile_format("iso")
# category.sub of a ReadingQualityType → condition; a sub of None stands for all of a category. Sub-codes before categories.
QUALITIES: Final[dict[tuple[int, int | None], int]] = {
    (5, 257): conditions.INVALID, (5, 258): conditions.SUSPECT, (5, 259): conditions.REPORTED_MISSING, (5, 260): conditions.REGULAR,
    (4, 1): conditions.INVALID, (4, 4): conditions.REPORTED_MISSING, (4, 5): conditions.INVALID, (4, 7): conditions.REPORTED_MISSING,
    (4, 260): conditions.REGULAR, (4, 131): conditions.REGULAR, (2, 32): conditions.OUTAGE, (4, 2002): conditions.OUTAGE,
    (4, 3002): conditions.SUSPECT, (7, 1): conditions.REGULAR, (7, 3): conditions.INVALID,
    (0, None): conditions.REGULAR, (1, None): conditions.REGULAR, (2, None): conditions.REGULAR, (3, None): conditions.SUSPECT,
    (4, None): conditions.SUSPECT, (5, None): conditions.SUSPECT, (6, None): conditions.SUSPECT, (7, None): conditions.USER_EDIT,
    (8, None): conditions.EXT_ESTIMATE, (10, None): conditions.SUSPECT, (11, None): conditions.REGULAR, (12, None): conditions.EXT_ESTIMATE,
}  # fmt: skip


def is_cim(head: bytes) -> bool:
    """Whether content is XML that speaks of MeterReadings."""
    return head[:1] == b"<" and b"MeterReadings" in head


@dataclass(frozen=True, slots=True)
class ReadingType:
    """What the 18 fields of a ReadingType say. ``seconds`` 0: readings of a register."""

    name: str
    seconds: int
    direction: str
    unit: str
    scale: int  # power of ten the unit does not take up


@lru_cache(maxsize=10_000)
def reading_type(ref: str) -> ReadingType:
    """The meaning of a ReadingType. Raises ValueError where it has no 18 fields or its unit is not known."""
    if not re.fullmatch(r"\d{1,4}(\.-?\d{1,4}){17}", ref, re.ASCII):
        raise ValueError(f"{shown(ref)} has not the 18 fields of a ReadingType")
    fields = [int(part) for part in ref.split(".")]
    period, accumulation, flow, power, unit = fields[2], fields[3], fields[4], fields[15], fields[16]
    if unit not in UNITS:
        raise ValueError(f"unit {unit} of ReadingType {ref} is not known")
    base = UNITS[unit]
    whole = _POWERS.get((base, power))
    seconds = 0 if accumulation in REGISTERS else SECONDS.get(period, 0)
    if accumulation not in REGISTERS and not seconds:
        raise ValueError(f"measuring period {period} of ReadingType {ref} is no interval length")
    return ReadingType(ref, seconds, DIRECTIONS.get(flow, "none"), whole or base, 0 if whole else power)


def condition_of(refs: list[str]) -> tuple[int, str]:
    """The condition of a value with these qualities, the worst of several, and the first code that is not known."""
    worst, strange = conditions.REGULAR, ""
    for ref in refs:
        parts = ref.split(".")
        numbers = [int(part) for part in parts if part.isascii() and part.isdigit() and len(part) < 6]
        found = None
        if len(parts) == 3 and len(numbers) == 3:
            found = QUALITIES.get((numbers[1], numbers[2]), QUALITIES.get((numbers[1], None)))
        if found is None:
            strange, found = strange or ref, conditions.SUSPECT
        worst = min(worst, found)
    return worst, strange


def decode(data: bytes, options: Options, problems: Problems, builder: Builder) -> None:
    """Adds the reads of a document to the builder. Raises DecodeError where the document or all of it cannot be read."""
    file = options.name
    refuse_unsafe(data, file)
    if data.count(b"<") > MAX_TAGS:
        raise DecodeError(file, 1, f"XML with more than {MAX_TAGS} tags")
    try:
        zone = known_zone(options.zone) if options.zone else None
        root = safe_xml.parsed(data)
    except safe_xml.XmlError as error:
        raise DecodeError(file, error.line, error.reason) from error
    except ValueError as error:
        raise DecodeError(file, 1, str(error)) from error
    if not builder.source:
        builder.source = safe_xml.text(root, "Header/Source")[:200]
    reader = _Reader(zone, problems, builder)
    for reading in root.iter("{*}MeterReading"):
        try:
            reader.take(reading)
        except ValueError as error:
            problems.add(reading.sourceline or 1, f"MeterReading refused: {error}")
    if not reader.add_all():
        first = problems.found[0] if problems.found else None
        raise DecodeError(file, first.line if first else 1, first.what if first else "MeterReadings without readings")


class _Reader:
    """Collects all readings and adds them in one go."""

    def __init__(self, zone: str | None, problems: Problems, builder: Builder) -> None:
        self.zone, self.problems, self.builder = zone, problems, builder
        self.codes: list[int] = []
        self.seconds: list[int] = []
        self.lines: list[int] = []
        self.times: list[str] = []
        self.values: list[str] = []
        self.scales: list[int] = []
        self.conditions: list[int] = []

    def take(self, reading: Any) -> None:
        """Notes one MeterReading. Raises ValueError where it names no meter."""
        meter = next((child for child in reading if safe_xml.local(child) in ("Meter", "UsagePoint")), None)
        device = (safe_xml.text(meter, "Names/name") or safe_xml.text(meter, "mRID")) if meter is not None else ""
        if not device:
            raise ValueError("it names no meter")
        for child in reading:
            name = safe_xml.local(child)
            if name == "IntervalBlocks":
                inner = [one for one in child if safe_xml.local(one) == "IntervalReadings"]
                self._some(device, child, inner)
            elif name == "Readings":
                self._some(device, child, [child])

    def _some(self, device: str, holder: Any, readings: list[Any]) -> None:
        line = holder.sourceline or 1
        type_ = next((one for one in holder if safe_xml.local(one) == "ReadingType"), None)
        try:
            kind = reading_type((type_.get("ref") or (type_.text or "").strip()) if type_ is not None else "")
            code = self.builder.code(device, self._kind(kind))
        except ValueError as error:
            self.problems.add(line, f"{shown(device)}: {error}")
            return
        for one in readings:
            qualities = [q for q in one if safe_xml.local(q) == "ReadingQualities"]
            condition, strange = condition_of([ref for q in qualities if (ref := _quality(q))])
            if strange:
                self.problems.note(one.sourceline or line, f"quality {shown(strange)} is not known: kept as suspect")
            self.codes.append(code)
            self.seconds.append(kind.seconds)
            self.lines.append(one.sourceline or line)
            self.times.append(safe_xml.text(one, "timeStamp"))
            self.values.append(safe_xml.text(one, "value"))
            self.scales.append(kind.scale)
            self.conditions.append(condition)

    @staticmethod
    def _kind(kind: ReadingType) -> Kind:
        return kind_of(kind.name, kind.unit, kind.seconds, kind.direction)

    def add_all(self) -> int:
        """Adds what was collected; how many reads there are."""
        if not self.codes:
            return 0
        code, seconds, line, scale, quality = (
            np.array(values, np.int64) for values in (self.codes, self.seconds, self.lines, self.scales, self.conditions)
        )
        count = np.arange(len(code))
        local, offsets, status = text.column(self.times).stamps(count[np.newaxis, :], _TIME)
        if self.zone is None and bool(((status == text.OK) & (offsets == text.NAIVE)).any()):
            self.problems.note(1, "times carry no offset and no zone was given: taken as UTC")
        at, where = to_utc(local, offsets, self.zone or "UTC", count)
        micros, kinds = text.column(self.values).decimals(count)
        good = (status == text.OK) & (where == FINE)
        self._tell(~good, lambda i: f"{shown(self.times[i])} is no time that exists")
        bad = good & ((kinds == text.BAD) | (kinds == text.LARGE))
        self._tell(bad, lambda i: f"{shown(self.values[i])} is not a plain decimal number the hub can hold")
        good &= ~bad
        micros, fits = _scaled(micros, scale)
        self._tell(good & ~fits, lambda i: f"{shown(self.values[i])} · 10^{self.scales[i]} is larger than the hub can hold")
        good &= fits
        empty = kinds == text.EMPTY
        quality[empty & (quality != conditions.OUTAGE)] = conditions.REPORTED_MISSING
        micros = np.where((quality >= conditions.MISSING) & (quality < conditions.OUTAGE), 0, micros)
        uneven = good & (seconds > 0) & (at % np.gcd(np.maximum(seconds, 1), 900) != 0)
        self._tell(uneven, lambda i: f"{shown(self.times[i])} is no end of an interval of {self.seconds[i]} seconds")
        good &= ~uneven
        for chosen, add in ((good & (seconds > 0), self.builder.intervals), (good & (seconds == 0), self.builder.registers)):
            rows = np.flatnonzero(chosen)
            starts = at[rows] - seconds[rows]
            add(Pieces(code[rows], starts, np.ones(len(rows), np.int64), line[rows], micros[rows], quality[rows]))
        return int(good.sum())

    def _tell(self, rows: Any, what: Any) -> None:
        for i in np.flatnonzero(rows).tolist():
            self.problems.add(self.lines[i], what(i))


def _scaled(micros: Any, scale: Any) -> tuple[Any, Any]:
    """Values times powers of ten in whole millionths, and whether the hub can hold each; what is smaller is rounded half to even."""
    factor = 10 ** np.clip(np.abs(scale), 0, 15)
    fits = (np.abs(scale) <= 15) & ((scale <= 0) | (np.abs(micros) <= np.int64(4 * 10**18) // factor))
    larger = np.where(fits & (scale > 0), micros * np.where(scale > 0, factor, 1), micros)
    whole, rest = np.divmod(larger, np.where(scale < 0, factor, 1))
    up = (2 * rest > factor) | ((2 * rest == factor) & (whole % 2 == 1))
    return np.where(scale < 0, whole + up, larger), fits


def _quality(element: Any) -> str:
    inner = next((one for one in element if safe_xml.local(one) == "ReadingQualityType"), None)
    return (inner.get("ref") or (inner.text or "").strip()) if inner is not None else element.get("ref", "")
