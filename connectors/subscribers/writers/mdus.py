"""Time series items as SAP's MDUS services take them: UtilitiesTimeSeriesERPItemBulkCreateRequest.

Times are UTC, half open. The time series is identified by service point (else device) and channel.
"""

from __future__ import annotations

import uuid
from typing import Any, Final

from lxml import etree

from connectors.subscribers.objects import iso
from connectors.subscribers.writers.content import Content
from schemas import conditions, quantity
from schemas.block import FinalBlock, starts_of

NAMESPACE: Final = "http://sap.com/xi/IS-U/Global2"
ROOT: Final = "UtilitiesTimeSeriesERPItemBulkCreateRequest"
ITEM: Final = "UtilitiesTimeSeriesERPItemCreateRequestMessage"
SENDER: Final = "MDH"
_IDS: Final = uuid.UUID("6b0d7c54-54f1-4b0e-9d57-2f6f0f6f4a10")
MEASURED, ESTIMATED, EDITED, SUSPECT, OUTAGE = "01", "02", "03", "04", "05"


def document(block: FinalBlock, delivery: str, made_at: int) -> Content:
    """The bulk request of a block of final intervals: one message per channel day, its UUID made from the delivery and its place."""
    root = etree.Element(f"{{{NAMESPACE}}}{ROOT}", nsmap={"n0": NAMESPACE})
    _header(root, delivery, made_at)
    left_out: list[str] = []
    count = 0
    for row, found in enumerate(time_series(block)):
        if not found["Item"]:
            left_out.append(f"{found['ID']}: no value in it")
            continue
        message = etree.Element(ITEM)
        try:
            _header(message, f"{delivery}/{row}", made_at)
            _fill(etree.SubElement(message, "UtilitiesTimeSeries"), found)
        except ValueError:
            left_out.append(f"{found['ID']!r}: has characters that XML cannot hold")
            continue
        root.append(message)
        count += 1
    return Content(etree.tostring(root, xml_declaration=True, encoding="UTF-8"), count, left_out)


def time_series(block: FinalBlock) -> list[dict[str, Any]]:
    """Each row as the fields of a UtilitiesTimeSeries; intervals without a value are left out, as SAP has no status for nothing."""
    begins, found = starts_of(block.count), []
    for row in range(len(block)):
        device, channel, unit, point = (getattr(block, name)[row].as_py() for name in ("device", "channel", "unit", "service_point"))
        start, seconds, first = int(block.start[row]), int(block.seconds[row]), int(begins[row])
        items = []
        for slot in range(int(block.count[row])):
            code = int(block.conditions[first + slot])
            if code < conditions.OUTAGE:
                continue
            at = start + slot * seconds
            items.append(
                {
                    "UTCValidityStartDateTime": iso(at),
                    "UTCValidityEndDateTime": iso(at + seconds),
                    "Quantity": quantity.text_of(int(block.values[first + slot])),
                    "ItemStatus": {"UtilitiesTimeSeriesItemTypeCode": status(code)},
                }
            )
        found.append({"ID": f"{point or device}/{channel}", "MeasureUnitCode": unit.upper(), "Item": items})
    return found


def status(code: int) -> str:
    """The status of an item: one only, as SAP keeps one."""
    if code < conditions.EST_FLAT - 10_000:
        return OUTAGE
    if code < conditions.SUSPECT:
        return ESTIMATED
    if code < conditions.REGULAR:
        return SUSPECT
    return MEASURED if code < conditions.USER_EDIT or code >= conditions.SUPER else EDITED


def _header(parent: Any, name: str, made_at: int) -> None:
    header = etree.SubElement(parent, "MessageHeader")
    etree.SubElement(header, "UUID").text = str(uuid.uuid5(_IDS, name))
    etree.SubElement(header, "CreationDateTime").text = iso(made_at)
    etree.SubElement(header, "SenderBusinessSystemID").text = SENDER


def _fill(parent: Any, values: dict[str, Any]) -> None:
    for name, value in values.items():
        for one in value if isinstance(value, list) else [value]:
            child = etree.SubElement(parent, name)
            if isinstance(one, dict):
                _fill(child, one)
            else:
                child.text = one
