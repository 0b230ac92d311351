"""CIM MeterReadings (IEC 61968-9) in an EventMessage (IEC 61968-100).

Interval readings are stamped at their ends, as the standard has it.
"""

from __future__ import annotations

import re
from typing import Any, Final

from lxml import etree

from connectors.subscribers.filters import commodity_of
from connectors.subscribers.objects import iso
from connectors.subscribers.writers.content import Content
from schemas import conditions, quantity
from schemas.block import FinalBlock, starts_of
from schemas.rules import METHODS
from schemas.units import resolve

MESSAGE: Final = "http://iec.ch/TC57/2011/schema/message"
READINGS: Final = "http://iec.ch/TC57/2011/MeterReadings#"
SOURCE: Final = "MDH"
_PERIODS: Final = {60: 3, 300: 6, 600: 1, 900: 2, 1200: 31, 1800: 5, 3600: 7, 86_400: 4}
_COMMODITIES: Final = {"electricity": 1, "gas": 7, "water": 9, "heat": 13}
_REFERENCE: Final = re.compile(r"\d{1,4}(\.-?\d{1,4}){17}", re.ASCII)
# unit → kind of measurement, power of ten, unit code
_UNITS: Final = {
    "Wh": (12, 0, 72), "kWh": (12, 3, 72), "MWh": (12, 6, 72), "GWh": (12, 9, 72), "varh": (12, 0, 73), "kvarh": (12, 3, 73),
    "Mvarh": (12, 6, 73), "VAh": (12, 0, 71), "kVAh": (12, 3, 71), "W": (37, 0, 38), "kW": (37, 3, 38), "MW": (37, 6, 38),
    "var": (37, 0, 63), "kvar": (37, 3, 63), "VA": (37, 0, 61), "kVA": (37, 3, 61), "V": (54, 0, 29), "A": (4, 0, 5), "pf": (38, 0, 65),
    "m3": (58, 0, 42), "L": (58, -3, 42), "ft3": (58, 0, 119), "CCF": (58, 2, 119), "therm": (12, 0, 169), "MJ": (12, 6, 31),
    "GJ": (12, 9, 31), "count": (0, 0, 111),
}  # fmt: skip


def document(block: FinalBlock, delivery: str, made_at: int) -> Content:
    """The message of a block of finals, intervals or register reads; its MessageID is the delivery's id."""
    left_out: list[str] = []
    readings, count = meter_readings(block, left_out)
    root = etree.Element(f"{{{MESSAGE}}}EventMessage", nsmap={"e": MESSAGE})
    header = etree.SubElement(root, f"{{{MESSAGE}}}Header")
    for name, value in (
        ("Verb", "created"),
        ("Noun", "MeterReadings"),
        ("Timestamp", iso(made_at)),
        ("Source", SOURCE),
        ("MessageID", delivery),
    ):
        etree.SubElement(header, f"{{{MESSAGE}}}{name}").text = value
    etree.SubElement(root, f"{{{MESSAGE}}}Payload").append(readings)
    return Content(etree.tostring(root, xml_declaration=True, encoding="UTF-8"), count, left_out)


def meter_readings(block: FinalBlock, left_out: list[str]) -> tuple[Any, int]:
    """The MeterReadings element and how many rows are in it; reasons for those that are not are appended to ``left_out``."""
    root = etree.Element(f"{{{READINGS}}}MeterReadings", nsmap={"m": READINGS})
    begins, read_begins = starts_of(block.count), starts_of(block.reads)
    meters: dict[str, Any] = {}
    count = 0
    for row in range(len(block)):
        device, channel, unit = (getattr(block, name)[row].as_py() for name in ("device", "channel", "unit"))
        code = reading_type(channel, unit, int(block.direction[row]), int(block.seconds[row]))
        if not code:
            left_out.append(f"{device} {channel}: CIM has no reading type for {unit} each {int(block.seconds[row])} seconds")
            continue
        try:
            meter = meters[device] if device in meters else _meter(root, device, block.service_point[row].as_py())
        except ValueError:
            left_out.append(f"{device!r}: has characters that XML cannot hold")
            continue
        meters[device] = meter
        read_begin = int(read_begins[row])
        if int(block.seconds[row]):
            _intervals(meter, block, row, int(begins[row]), code)
        else:
            _registers(meter, block, row, int(begins[row]), read_begin, code)
        count += 1
    for meter in meters.values():  # the schema has IntervalBlocks, Readings, then Meter and UsagePoint
        meter[:] = sorted(
            meter, key=lambda child: ("IntervalBlocks", "Readings", "Meter", "UsagePoint").index(etree.QName(child).localname)
        )
    return root, count


def _sub(parent: Any, name: str, text: str | None = None) -> Any:
    child = etree.SubElement(parent, f"{{{READINGS}}}{name}")
    child.text = text
    return child


def _meter(root: Any, device: str, point: str) -> Any:
    reading = etree.Element(f"{{{READINGS}}}MeterReading")
    _sub(_sub(_sub(reading, "Meter"), "Names"), "name", device)
    if point:
        _sub(_sub(_sub(reading, "UsagePoint"), "Names"), "name", point)
    root.append(reading)
    return reading


def _intervals(meter: Any, block: FinalBlock, row: int, first: int, code: str) -> None:
    start, seconds = int(block.start[row]), int(block.seconds[row])
    element = _sub(meter, "IntervalBlocks")
    for slot in range(int(block.count[row])):
        at = first + slot
        if block.conditions[at] != conditions.NOT_RECEIVED:
            _reading(_sub(element, "IntervalReadings"), block, at, start + (slot + 1) * seconds)
    _sub(element, "ReadingType").set("ref", code)


def _registers(meter: Any, block: FinalBlock, row: int, first: int, read_first: int, code: str) -> None:
    for number in range(int(block.count[row])):
        element = _sub(meter, "Readings")
        _reading(element, block, first + number, int(block.times[read_first + number]))
        _sub(element, "ReadingType").set("ref", code)


def _reading(element: Any, block: FinalBlock, at: int, moment: int) -> None:
    condition = int(block.conditions[at])
    _sub(element, "timeStamp", iso(moment))
    if not conditions.MISSING <= condition < conditions.OUTAGE:
        _sub(element, "value", quantity.text_of(int(block.values[at])))
    qualities = _sub(element, "ReadingQualities")
    comments = [METHODS[int(block.methods[at])]] if block.methods[at] else []
    if comments:
        _sub(qualities, "comment", comments[0])
    _sub(qualities, "ReadingQualityType").set("ref", quality(condition))


def reading_type(channel: str, unit: str, direction: int, seconds: int) -> str:
    """The 18 fields of the reading type of a channel; empty where the standard has none.

    ``direction`` as in blocks, ``seconds`` 0: register.
    """
    name = resolve(unit).name
    fields = channel.split(".") if _REFERENCE.fullmatch(channel) else []
    if fields and name in _UNITS and tuple(map(int, fields[15:17])) == _UNITS[name][1:]:
        return channel  # as its head end named it
    if name not in _UNITS or (seconds and seconds not in _PERIODS):
        return ""
    kind, power, code = _UNITS[name]
    flow = {0: 0, 1: 1, 2: 19}[direction]
    commodity = _COMMODITIES.get(commodity_of(channel, unit), 0)
    return ".".join(map(str, (0, 0, _PERIODS.get(seconds, 0), 4 if seconds else 1, flow, commodity, kind, *[0] * 8, power, code, 0)))


def quality(condition: int) -> str:
    """The reading quality of a condition: system 3 (the hub), category, subcategory."""
    bands = (
        (conditions.MISSING, "3.5.257"), (conditions.OUTAGE, "3.5.259"), (300_000, "3.2.32"), (conditions.SUSPECT, "3.8.0"),
        (conditions.REGULAR, "3.5.258"), (conditions.USER_EDIT, "3.0.0"), (conditions.SUPER, "3.7.0"),
    )  # fmt: skip
    return next((code for bound, code in bands if condition < bound), "3.0.0")
