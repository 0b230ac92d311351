"""Oracle's documents: sync requests and usage requests in, acknowledgements and usage out.

Sync requests name objects as CC&B does and their attributes in camel case; what an attribute means is what `schemas.master` says of it.
Values are translated by the system's lookups in topology.yaml (units, zones).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo, available_timezones

from lxml import etree

from connectors import safe_xml
from schemas.master import KINDS, checked
from schemas.topology.enterprise import System
from streams.enterprise.desk import VAE, VME, Refusal

NAMESPACE: Final = "http://meterdatahub.org/ccb"
NSMAP: Final[Any] = {None: NAMESPACE}
OBJECTS: Final = {
    "contact": "person", "person": "person", "account": "account", "servicePoint": "service_point", "device": "device",
    "deviceConfiguration": "configuration", "measuringComponent": "component", "installEvent": "install",
    "usageSubscription": "subscription", "contract": "contract",
}  # fmt: skip
ACTIONS: Final = {"initial": "put", "ongoing": "put", "change": "patch", "end": "end", "remove": "remove"}
_LISTS: Final = frozenset(("service_points", "related"))
_NUMBERS: Final = frozenset(("seconds", "dials", "decimals"))
_TRUTHS: Final = frozenset(("allow_negative", "several", "disconnected"))
_SEALED: Final = frozenset(("name", "address", "phone", "mail", "tax_id"))
Words = dict[str, Any]


class Reader:
    """Reads documents of one system."""

    def __init__(self, system: System, zone: str) -> None:
        self.system, self.zone = system, system.zone or zone

    def sync(self, element: Any) -> Words:
        """One sync request: the objects it brings, and the usage subscription they belong to. Raises Refusal."""
        objects, account = [], safe_xml.text(element, "usageSubscriptionId")
        for child in element:
            name = safe_xml.local(child)
            if name in ("syncRequestId", "usageSubscriptionId"):
                continue
            kind = OBJECTS.get(name)
            if kind is None:
                raise Refusal(VAE, f"{name[:60]} is no object of a sync request; known are {', '.join(OBJECTS)}")
            objects.append(self._object(kind, name, child))
            if kind == "subscription" and not account:
                account = str(child.get("id") or "")
        if not objects:
            raise Refusal(VAE, "the sync request holds no object")
        return {"id": "", "objects": objects, "account": account}

    def _object(self, kind: str, name: str, element: Any) -> Words:
        id_, action = element.get("id", ""), ACTIONS.get(element.get("action", "initial"))
        if not id_.strip() or len(id_) > 200:
            raise Refusal(VAE, f"{name} needs an id of 1 to 200 characters")
        if action is None:
            raise Refusal(VAE, f"{name} {id_}: action must be one of {', '.join(ACTIONS)}")
        begin, end = (self.moment(element.get(edge)) for edge in ("from", "to"))
        if begin is not None and end is not None and end <= begin:
            raise Refusal(VAE, f"{name} {id_}: its end must lie behind its start")
        given = dict(self._attributes(kind, element))
        if kind == "person" and _SEALED & set(given):
            raise Refusal(VAE, f"{name} {id_}: personal data come through /v1/master, which seals them; sync the id, language and role")
        try:
            body = {} if action in ("end", "remove") else checked(kind, given, partial=action == "patch")
        except ValueError as error:
            raise Refusal(VAE, f"{name} {id_}: {error}") from None
        return {"action": action, "kind": kind, "object": id_, "from": begin, "to": None if kind == "install" else end, "body": body}

    def _attributes(self, kind: str, element: Any) -> Iterator[tuple[str, Any]]:
        for child in element:
            name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", safe_xml.local(child)).lower()
            name = {"service_point_id": "service_point", "device_id": "device", "account_id": "account"}.get(name, name)
            text = (child.text or "").strip()
            if name in _LISTS:
                yield name, [(one.text or "").strip() for one in child] or text.split()
            elif name in _NUMBERS:
                if not (text.isascii() and text.isdigit() and len(text) < 10):
                    raise Refusal(VAE, f"{kind}: {name} must be a whole number")
                yield name, int(text)
            elif name in _TRUTHS:
                yield name, text in ("true", "1", "Y")
            elif name == "unit":
                yield name, self.system.units.get(text, text)
            elif name == "zone":
                zone = self.system.zones.get(text, text)
                if zone not in available_timezones():
                    raise Refusal(VME, f"time zone {text!r} stands for no zone: topology.yaml maps it under zones")
                yield name, zone
            elif name in KINDS[kind].model_fields:
                yield name, text
            else:
                raise Refusal(VAE, f"{kind}: unknown attribute {name[:60]!r}")

    def usage(self, element: Any) -> Words:
        """A usage request. Raises Refusal."""
        words = {safe_xml.local(child): (child.text or "").strip() for child in element}
        missing = [name for name in ("usageId", "usageSubscriptionId", "startDateTime", "endDateTime") if not words.get(name)]
        if missing:
            raise Refusal(VAE, f"{missing[0]} is missing")
        start, end = self.moment(words["startDateTime"]), self.moment(words["endDateTime"])
        assert start is not None
        assert end is not None
        usage = words["usageId"][:200]
        return {"id": usage, "usage": usage, "account": words["usageSubscriptionId"][:200], "start": start, "end": end}

    def moment(self, written: str | None) -> int | None:
        """UTC seconds of a time, local where it names no offset; CC&B's ``yyyy-MM-dd-HH.mm.ss`` is read as well. Raises Refusal."""
        if not written:
            return None
        text = written.strip()[:40]
        old = re.fullmatch(r"(\d{4}-\d\d-\d\d)-(\d\d)\.(\d\d)\.(\d\d)", text, re.ASCII)
        try:
            at = datetime.fromisoformat(f"{old[1]}T{old[2]}:{old[3]}:{old[4]}" if old else text)
        except ValueError:
            raise Refusal(VAE, f"{text!r} is no time") from None
        at = at if at.tzinfo else at.replace(tzinfo=ZoneInfo(self.zone))
        if not 0 <= at.timestamp() < 4_102_444_800:
            raise Refusal(VAE, f"{text!r} lies outside 1970 to 2100")
        return int(at.timestamp())


# --- messages to CC&B -------------------------------------------------------------------------------------------------------------


def written(message: Mapping[str, Any]) -> bytes:
    """A message in XML: ``acknowledgements`` for answers, else ``usage``, ``usageFailed`` or ``billableCharge``."""
    if message["kind"].endswith("-answer"):
        root = _root("acknowledgements", id=message["id"], reference=message["reference"])
        for item in message["items"]:
            status = "refused" if item["category"] else "accepted"
            entry = etree.SubElement(root, f"{{{NAMESPACE}}}acknowledgement", id=item["id"], reference=item["reference"], status=status)
            _leaf(entry, "category", item["category"])
            _leaf(entry, "note", item["note"])
        return _bytes(root)
    (item,) = message["items"]
    body = item["body"]
    if message["kind"] == "charge":
        return _charge(item["id"], body)
    root = _root("usageFailed" if message["kind"] == "usage-failed" else "usage", id=item["id"])
    _leaf(root, "usageId", body["usage"])
    _leaf(root, "usageSubscriptionId", body["account"])
    if message["kind"] == "usage-failed":
        _leaf(root, "state", body["state"])
        _leaf(root, "reason", body["reason"])
        return _bytes(root)
    for name, edge in (("startDateTime", "start"), ("endDateTime", "end")):
        _leaf(root, name, datetime.fromtimestamp(body[edge], UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
    _leaf(root, "version", body["version"])
    _leaf(root, "corrects", body["corrects"] or "")
    _leaf(root, "reason", body["reason"])
    for one in body["determinants"]:
        entry = etree.SubElement(root, f"{{{NAMESPACE}}}serviceQuantity")
        for name, member in (("deviceId", "device"), ("channel", "channel"), ("sqi", "kind"), ("name", "name"), ("tou", "tou"),
                             ("uom", "unit"), ("quantity", "quantity"), ("conditionCode", "condition"), ("intervals", "slots"),
                             ("actual", "actual"), ("estimated", "estimated")):  # fmt: skip
            _leaf(entry, name, one[member])
    for change in body["changes"]:
        parts = dict(zip(("deviceId", "channel", "sqi", "name", "tou", "uom"), change["name"], strict=True))
        entry = etree.SubElement(root, f"{{{NAMESPACE}}}changed")
        for name, value in {**parts, "old": change["old"], "new": change["new"]}.items():
            _leaf(entry, name, value)
    return _bytes(root)


def _charge(id: str, body: Mapping[str, Any]) -> bytes:
    """A billable charge as CC&B's upload has it: a header, a line per component, the service quantities behind them."""
    root = _root("billableCharge", id=id)
    for name, member in (
        ("usageSubscriptionId", "account"), ("servicePointId", "service_point"), ("deviceId", "device"), ("startDate", "first"),
        ("endDate", "last"), ("version", "version"), ("replaces", "replaces"), ("rateSchedule", "tariff"), ("currency", "currency"),
        ("totalAmount", "total"),
    ):  # fmt: skip
        _leaf(root, name, body[member])
    _leaf(root, "provisional", "true" if body["provisional"] else "false")
    for number, line in enumerate(body["lines"], 1):
        entry = etree.SubElement(root, f"{{{NAMESPACE}}}billableChargeLine")
        _leaf(entry, "lineSequence", number)
        for name in ("kind", "component", "amount", "change"):
            _leaf(entry, name, line[name])
    for one in body["quantities"]:
        entry = etree.SubElement(root, f"{{{NAMESPACE}}}serviceQuantity")
        for name, value in (("tou", one["tou"]), ("uom", body["unit"]), ("quantity", one["quantity"])):
            _leaf(entry, name, value)
    return _bytes(root)


def _root(name: str, **attributes: str) -> Any:
    return etree.Element(f"{{{NAMESPACE}}}{name}", {k: v for k, v in attributes.items() if v}, nsmap=NSMAP)


def _leaf(parent: Any, name: str, value: Any) -> None:
    if value not in ("", None):
        etree.SubElement(parent, f"{{{NAMESPACE}}}{name}").text = str(value)


def _bytes(root: Any) -> bytes:
    return etree.tostring(root, xml_declaration=True, encoding="utf-8")
