"""Device events as JSON: one object, a list, ``{"source": …, "events": […]}``, or one object per line.

An event names ``device``, ``at`` (ISO time with offset) and ``kind`` (a word of :data:`schemas.events.KINDS`) or ``code`` (the type of
an IEC 61968-9 EndDeviceEvent, such as 3.26.0.85). A payload is taken whole or refused whole.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import orjson

from schemas.events import CODES, KINDS

MOST: Final = 100_000
_LATEST: Final = 4_102_444_800  # 2100


class EventError(ValueError):
    """A payload that holds no events, or one that cannot be understood."""


def decode_events(data: bytes) -> list[dict[str, Any]]:
    """Device, kind, code, at (UTC seconds) and source of each event. Raises EventError naming the first that is wrong."""
    found = [_event(number, item, source) for number, (item, source) in enumerate(_items(data), 1)]
    if not found:
        raise EventError("no events in it")
    return found


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


def _event(number: int, item: Any, source: str) -> dict[str, Any]:
    def wrong(what: str) -> EventError:
        return EventError(f"event {number}: {what}")

    if not isinstance(item, dict):
        raise wrong("must be an object")
    device, kind, code = (item.get(name) for name in ("device", "kind", "code"))
    if not isinstance(device, str) or not device.strip() or len(device) > 255:
        raise wrong("device must be a name")
    if kind is None and isinstance(code, str):
        kind = CODES.get(code, "other")
    if kind not in KINDS:
        raise wrong(f"kind must be one of {', '.join(KINDS)}, or code an event type, not {kind!r}")
    try:
        at = datetime.fromisoformat(item["at"])
    except (KeyError, TypeError, ValueError):
        raise wrong("at must be an ISO time") from None
    if at.tzinfo is None:
        raise wrong("at needs an offset, such as 2026-03-29T01:30:00Z")
    second = int(at.timestamp() // 1)
    if not 0 <= second < _LATEST:
        raise wrong("at must lie between 1970 and 2100")
    return {"device": device, "kind": kind, "code": str(code or ""), "at": second, "source": str(item.get("source") or source)}
