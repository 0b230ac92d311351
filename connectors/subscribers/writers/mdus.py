"""Time series items as SAP's MDUS services take them: UtilitiesTimeSeriesERPItemBulkCreateRequest.

Times are UTC, half open. The time series is identified by service point (else device) and channel.
"""

from __future__ import annotations

import uuid
from typing import Any, Final

from lxml import etree

from connectors.enterprise.sap.catalog import HEADER, catalog
from connectors.enterprise.sap.documents import build
from connectors.enterprise.sap.schemas import item_validator
from connectors.subscribers.objects import iso
from connectors.subscribers.writers.content import Content
from schemas import conditions, quantity
from schemas.block import FinalBlock, starts_of

ROOT: Final = "UtilitiesTimeSeriesERPItemBulkCreateRequest"
SENDER: Final = "MDH"
_IDS: Final = uuid.UUID("6b0d7c54-54f1-4b0e-9d57-2f6f0f6f4a10")
MEASURED, ESTIMATED, EDITED, SUSPECT, OUTAGE = "01", "02", "03", "04", "05"


def document(block: FinalBlock, delivery: str, made_at: int) -> Content:
    """The bulk request of a block of final intervals: one message per channel day, its UUID made from the delivery and its place.

    Each follows the schema that the hub publishes of the service; one that cannot is left out.
    """
    root = catalog().roots[ROOT]
    whole = build(root, _header(delivery, made_at), [])
    left_out: list[str] = []
    count = 0
    for row, found in enumerate(time_series(block)):
        if not found["Item"]:
            left_out.append(f"{found['ID']}: no value in it")
            continue
        words = {HEADER: _header(f"{delivery}/{row}", made_at), root.payload.name: found}
        try:
            item = build(root, {}, [words])[1]
        except ValueError:
            left_out.append(f"{found['ID']!r}: has characters that XML cannot hold")
            continue
        schema = item_validator(ROOT)
        if not schema.validate(item):
            left_out.append(f"{found['ID']}: {schema.error_log[0].message[:200]}")
            continue
        whole.append(item)
        count += 1
    return Content(etree.tostring(whole, xml_declaration=True, encoding="UTF-8"), count, left_out)


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


def _header(name: str, made_at: int) -> dict[str, str]:
    return {"UUID": str(uuid.uuid5(_IDS, name)), "CreationDateTime": iso(made_at), "SenderBusinessSystemID": SENDER}
