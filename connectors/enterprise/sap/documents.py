"""Messages as plain dictionaries, by the catalogue: elements to dictionaries and back, envelopes around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from lxml import etree

from connectors.enterprise.sap.catalog import HEADER, Root, catalog

SOAP11: Final = "http://schemas.xmlsoap.org/soap/envelope/"
SOAP12: Final = "http://www.w3.org/2003/05/soap-envelope"


def to_dict(element: Any, kind: str) -> dict[str, Any]:
    """The fields of a valid element of a group: texts stripped, groups as dictionaries, what may repeat as lists."""
    groups = catalog().groups
    declared = {field.name: field for field in groups[kind]}
    found: dict[str, Any] = {}
    for child in element:
        field = declared[child.tag]
        value = to_dict(child, field.type) if field.type in groups else (child.text or "").strip()
        if field.many:
            found.setdefault(field.name, []).append(value)
        else:
            found[field.name] = value
    return found


def message_dict(element: Any, root: Root) -> dict[str, Any]:
    """A valid message or item: its header, payload and log by element name."""
    kinds = {field.name: field.type for field in root.fields}
    return {child.tag: to_dict(child, kinds[child.tag]) for child in element if child.tag in kinds}


def fill(parent: Any, kind: str, values: Mapping[str, Any]) -> None:
    """Appends the fields of a group in declared order. Raises ValueError for a field the group does not have."""
    groups = catalog().groups
    unknown = set(values) - {field.name for field in groups[kind]}
    if unknown:
        raise ValueError(f"{kind} has no {', '.join(sorted(unknown))}")
    for field in groups[kind]:
        value = values.get(field.name)
        if value is None:
            continue
        for one in value if field.many else [value]:
            child = etree.SubElement(parent, field.name)
            if field.type in groups:
                fill(child, field.type, one)
            else:
                child.text = str(one)


def build(root: Root, header: Mapping[str, Any], items: Sequence[Mapping[str, Any]]) -> Any:
    """The element of a message. ``items`` hold header, payload and log by element name; a single message has one and its own header."""
    element = etree.Element(f"{{{catalog().namespace}}}{root.name}", nsmap={"n0": catalog().namespace})
    if root.item is None:
        (only,) = items
        _fill_message(element, root, {**only, HEADER: header})
        return element
    fill(etree.SubElement(element, HEADER), HEADER, header)
    for item in items:
        _fill_message(etree.SubElement(element, root.item), root, item)
    return element


def _fill_message(element: Any, root: Root, message: Mapping[str, Any]) -> None:
    for field in root.fields:
        if message.get(field.name) is not None:
            fill(etree.SubElement(element, field.name), field.type, message[field.name])


def envelope(body: Any, version: str = SOAP11) -> bytes:
    """A SOAP message around an element."""
    outer = etree.Element(f"{{{version}}}Envelope", nsmap={"soap": version})
    etree.SubElement(outer, f"{{{version}}}Body").append(body)
    return etree.tostring(outer, xml_declaration=True, encoding="utf-8")


def fault(reason: str, version: str = SOAP11, *, sender: bool = True, code: str = "") -> bytes:
    """A SOAP fault; ``code`` is SAP's error category where there is one."""
    if version == SOAP12:
        element = etree.Element(f"{{{version}}}Fault")
        word = etree.SubElement(etree.SubElement(element, f"{{{version}}}Code"), f"{{{version}}}Value")
        word.text = "soap:Sender" if sender else "soap:Receiver"
        text = etree.SubElement(etree.SubElement(element, f"{{{version}}}Reason"), f"{{{version}}}Text")
        text.set("{http://www.w3.org/XML/1998/namespace}lang", "en")
        text.text = reason
        detail = etree.SubElement(element, f"{{{version}}}Detail") if code else None
    else:
        element = etree.Element(f"{{{version}}}Fault")
        etree.SubElement(element, "faultcode").text = "soap:Client" if sender else "soap:Server"
        etree.SubElement(element, "faultstring").text = reason
        detail = etree.SubElement(element, "detail") if code else None
    if detail is not None:
        etree.SubElement(detail, "category").text = code
    return envelope(element, version)
