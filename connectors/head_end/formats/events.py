"""Device events as JSON: one object, a list, ``{"source": …, "events": […]}``, or one object per line; or as XML (event_xml.py).

An event names ``device``, ``at`` (ISO time with offset) and ``kind`` (a word of :data:`schemas.events.KINDS`), ``code`` (the type of
an IEC 61968-9 EndDeviceEvent, such as 3.26.0.85) or ``name`` (as the head end calls it). A payload is taken whole or refused whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from itertools import islice
from typing import Any, Final
from zoneinfo import ZoneInfo

import orjson

from connectors.head_end.formats.event_xml import EventXmlError, events_of
from schemas.events import CODES, KINDS, kind_of_name

MOST: Final = 100_000
_LATEST: Final = 4_102_444_800  # 2100


class EventError(ValueError):
    """A payload that holds no events, or one that cannot be understood."""


def decode_events(data: bytes, names: Mapping[str, str] | None = None, zone: str = "UTC") -> list[dict[str, Any]]:
    """Device, kind, code, at (UTC seconds), source, severity and detail of each event. Raises EventError naming the first that is wrong.

    ``names`` gives the kinds of head ends' own names, before :data:`schemas.events.NAMES`; ``zone`` is that of XML times without offset.
    """
    xml = data.lstrip(b"\xef\xbb\xbf \r\n\t")[:1] == b"<"
    items = _xml_items(data, zone) if xml else _items(data)
    found = [_event(number, item, source, names or {}) for number, (item, source) in enumerate(items, 1)]
    if not found:
        raise EventError("no events in it")
    return found


def _xml_items(data: bytes, zone: str) -> list[tuple[Any, str]]:
    try:
        items = list(islice(events_of(data), MOST + 1))
    except EventXmlError as error:
        raise EventError(str(error)) from None
    if len(items) > MOST:
        raise EventError(f"more than the {MOST} events one payload may have")
    return [(item | {"at": _with_offset(item["at"], zone)}, item["source"]) for item in items]


def _with_offset(at: str, zone: str) -> str:
    """A time as ISO text with an offset; what cannot be read stays, and is refused as what it is."""
    for form in (None, "%Y-%m-%d-%H.%M.%S"):
        try:
            moment = datetime.fromisoformat(at) if form is None else datetime.strptime(at, form)  # noqa: DTZ007
        except ValueError:
            continue
        return (moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(zone))).isoformat()
    return at


def _items(data: bytes) -> list[tuple[Any, str]]:
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        try:
            document = [orjson.loads(line) for line in data.splitlines() if line.strip()]
        except orjson.JSONDecodeError as error:
            raise EventError(f"not JSON: {error}") from None
    source = ""
    if isinstance(document, dict) and "events" in document:
        source, document = str(document.get("source") or ""), document["events"]
    items = document if isinstance(document, list) else [document]
    if len(items) > MOST:
        raise EventError(f"{len(items)} events are more than the {MOST} one payload may have")
    return [(item, source) for item in items]


def _event(number: int, item: Any, source: str, names: Mapping[str, str]) -> dict[str, Any]:
    def wrong(what: str) -> EventError:
        return EventError(f"event {number}: {what}")

    if not isinstance(item, dict):
        raise wrong("must be an object")
    device, kind, code, name = (item.get(part) for part in ("device", "kind", "code", "name"))
    if not isinstance(device, str) or not device.strip() or len(device) > 255:
        raise wrong("device must be a name")
    if kind is None and isinstance(code, str):
        kind = CODES.get(code) or names.get(code) or "other"
    if kind is None and isinstance(name, str) and name.strip():
        kind, code = names.get(name) or kind_of_name(name), code or name
    if kind not in KINDS:
        raise wrong(f"kind must be one of {', '.join(KINDS)}, or code an event type, or name what the head end calls it, not {kind!r}")
    try:
        at = datetime.fromisoformat(item["at"])
    except (KeyError, TypeError, ValueError):
        raise wrong("at must be an ISO time") from None
    if at.tzinfo is None:
        raise wrong("at needs an offset, such as 2026-03-29T01:30:00Z")
    second = int(at.timestamp() // 1)
    if not 0 <= second < _LATEST:
        raise wrong("at must lie between 1970 and 2100")
    texts = {part: str(item.get(part) or "")[:1000] for part in ("severity", "detail")}
    return {"device": device, "kind": kind, "code": str(code or ""), "at": second, "source": str(item.get("source") or source), **texts}
