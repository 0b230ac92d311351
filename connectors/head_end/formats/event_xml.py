"""Device events as XML: EndDeviceEvents of IEC 61968-9, bare or inside an EventMessage, and Oracle's D1-DeviceEventSeeder.

Document types and entities are refused, and so is a document that is not well-formed. A payload is taken whole or refused whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from lxml import etree

from connectors.head_end.formats.imd_xml import refuse_unsafe
from connectors.head_end.formats.model import DecodeError

MAX_TAGS: Final = 4_000_000


class EventXmlError(ValueError):
    """A document that cannot be read."""


def events_of(data: bytes) -> Iterator[dict[str, str]]:
    """Device, code or name, at, source, severity and detail of each event, as written. Raises EventXmlError."""
    try:
        refuse_unsafe(data, "")
        if data.count(b"<") > MAX_TAGS:
            raise EventXmlError(f"XML with more than {MAX_TAGS} tags")
        root = etree.fromstring(data, etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False))
    except DecodeError as error:
        raise EventXmlError(error.reason) from None
    except etree.XMLSyntaxError as error:
        raise EventXmlError(f"not well-formed XML: {' '.join(str(error.msg).split())[:200]}") from None
    source = _first(root, "Header", "Source")
    for element in root.iter("{*}EndDeviceEvent", "{*}D1-DeviceEventSeeder"):
        found = _cim(element) if _bare(element) == "EndDeviceEvent" else _oracle(element)
        yield found | {"source": found["source"] or source}


def _cim(event: Any) -> dict[str, str]:
    details = [
        f"{_text(part, 'name')}={_text(part, 'value')}" for part in event if _bare(part) == "EndDeviceEventDetails" and _text(part, "value")
    ]
    type_ = next((part for part in event if _bare(part) == "EndDeviceEventType"), None)
    device = next((name for tag in ("Assets", "EndDevice", "Meter") for part in event if _bare(part) == tag and (name := _named(part))), "")
    return {
        "device": device,
        "code": (type_.get("ref") or (type_.text or "").strip()) if type_ is not None else "",
        "at": _text(event, "createdDateTime"),
        "source": _text(event, "issuerID"),
        "severity": _text(event, "severity"),
        "detail": "; ".join(details)[:1000],
    }


def _named(asset: Any) -> str:
    """The name of an asset; its mRID where it has none."""
    names = [_text(part, "name") for part in asset if _bare(part) == "Names"]
    return next((name for name in names if name), "") or _text(asset, "mRID")


def _oracle(event: Any) -> dict[str, str]:
    known = {
        "deviceIdentifierNumber", "externalEventName", "eventDateTime", "externalSenderId", "externalEventSeverity",
        "externalSourceIdentifier",
    }  # fmt: skip
    rest = [f"{_bare(part)}={(part.text or '').strip()}" for part in event if _bare(part) not in known and (part.text or "").strip()]
    return {
        "device": _text(event, "deviceIdentifierNumber"),
        "name": _text(event, "externalEventName"),
        "at": _text(event, "eventDateTime"),
        "source": _text(event, "externalSenderId"),
        "severity": _text(event, "externalEventSeverity"),
        "detail": "; ".join(rest)[:1000],
    }


def _bare(element: Any) -> str:
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def _text(element: Any, name: str) -> str:
    return next(((part.text or "").strip() for part in element if _bare(part) == name), "")


def _first(root: Any, *names: str) -> str:
    """The text of the first element of the last name inside one of the first name."""
    for outer in root.iter(f"{{*}}{names[0]}"):
        return _text(outer, names[1])
    return ""
