"""Master data of IEC 61968-9: MeterConfig, UsagePointConfig, CustomerAccountConfig and MasterDataLinkageConfig as objects of the hub.

Each element of the payload is an item of its own. What it says holds from the ``effectiveDateTime`` of its configuration event on, for
links else from the time of the message. An object is named by ``Names/name``, else by its mRID, as in readings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import Any, Final
from zoneinfo import available_timezones

from connectors import safe_xml
from connectors.head_end.formats.cim_xml import reading_type
from schemas import quantity
from schemas.master import checked
from schemas.topology.enterprise import System
from streams.enterprise.desk import IDE, VAE, VME, Refusal

ACTS: Final = {
    "create": "put", "created": "put", "change": "patch", "changed": "patch", "close": "end", "closed": "end", "cancel": "remove",
    "canceled": "remove", "cancelled": "remove", "delete": "remove", "deleted": "remove",
}  # fmt: skip
"""Verb → what becomes of the object: put, changed, ended, or taken away as if it had never been."""
LATEST: Final = 4_102_444_800
_COMMODITIES: Final = {"electricity": "electricity", "gas": "gas", "water": "water", "heat": "heat", "steam": "steam", "cooling": "cooling"}
_RATIOS: Final = ("ctRatio", "ptRatio", "kR")
Words = dict[str, Any]


class Reader:
    """Reads the payloads of one system. ``written`` is the time of the message, UTC seconds."""

    def __init__(self, system: System, zone: str, written: int) -> None:
        self.system, self.zone, self.written = system, system.zone or zone, written

    def items(self, noun: str, verb: str, payload: Any) -> Iterator[tuple[str, Callable[[], Words]]]:
        """The name of each item (empty: it has none), and what makes its body: that raises Refusal."""
        name, make = _NOUNS[noun]
        config = next((one for one in payload.iter() if safe_xml.local(one) == noun), None)
        shared = _event_time(config) if config is not None else ""
        elements = [] if config is None else [config] if name == noun else [one for one in config if safe_xml.local(one) in name.split("|")]
        for element in elements:
            at = _event_time(element) or shared
            yield name_of(element), partial(self._made, make, ACTS[verb], element, at)

    def _made(self, make: Callable[..., Words], action: str, element: Any, at: str) -> Words:
        return make(self, action, element, moment(at) if at else None)

    # --- objects ---------------------------------------------------------------------------------------------------------------

    def meter(self, action: str, element: Any, at: int | None) -> Words:
        """A meter and its channels: one component for each reading type of its registers."""
        name = _named("Meter", element)
        model = next((one for one in element.iter() if safe_xml.local(one) in ("AssetModel", "ProductAssetModel")), None)
        given = {
            "serial": safe_xml.text(element, "serialNumber"), "head_end": safe_xml.text(element, "amrSystem"),
            "model": _text(model, "modelNumber") or _text(model, "Names/name"), "manufacturer": _text(model, "Manufacturer/Names/name"),
        }  # fmt: skip
        more = {"mrid": safe_xml.text(element, "mRID"), "form": safe_xml.text(element, "formNumber")}
        told = {key: value[:200] for key, value in more.items() if value and value != name}
        attributes = {**_filled(given), **({"attributes": told} if told else {})}
        components = [self._component(name, register, element) for register in element.iter() if safe_xml.local(register) == "Registers"]
        parts = [part for part in components if part is not None]
        if len({part["object"] for part in parts}) < len(parts):
            raise Refusal(VAE, f"meter {name}: two registers have the same reading type")
        for part in parts:
            part.update(self._act(action, part, at))
        meter = self._act(action, {"kind": "device", "object": name, "body": attributes}, at)
        ending = action == "remove"  # what stands on a meter goes before it
        objects = [*parts, meter] if ending else [meter, *([] if action == "end" else parts)]
        channels: Words = {part["body"]["channel"]: {} for part in parts} if action in ("put", "patch") else {}
        know = {"device": name, "gone": True} if ending else {"device": name, "channels": channels}
        return {"id": name, "device": name, "objects": objects, "know": know}

    @staticmethod
    def _component(meter: str, register: Any, element: Any) -> Words | None:
        types = [one for one in register.iter() if safe_xml.local(one) == "ReadingType"]
        ref = next((one.get("ref") or safe_xml.text(one, "Names/name") for one in types), "")
        if not ref:
            return None
        try:
            kind = reading_type(ref)
        except ValueError as error:
            raise Refusal(VME, f"meter {meter}: {error}") from None
        body: Words = {
            "device": meter, "channel": ref, "type": "interval" if kind.seconds else "register", "unit": kind.unit,
            "seconds": kind.seconds, "direction": kind.direction, "multiplier": _multiplier(meter, element),
        }  # fmt: skip
        for attribute, digits in (("dials", "leftDigitCount"), ("decimals", "rightDigitCount")):
            written = safe_xml.text(register, digits)
            if written:
                body[attribute] = _whole(f"meter {meter}: {digits}", written)
        return {"kind": "component", "object": f"{meter}/{ref}", "body": body}

    def usage_point(self, action: str, element: Any, at: int | None) -> Words:
        """A usage point is a service point."""
        name = _named("UsagePoint", element)
        kind = safe_xml.text(element, "ServiceCategory/kind")
        given = {
            "zone": self._zone(element), "commodity": _COMMODITIES.get(kind, "other") if kind else "",
            "region": next((name_of(one) for one in element if safe_xml.local(one) == "UsagePointGroups"), ""),
            "grid_area": safe_xml.text(element, "outageRegion"),
        }  # fmt: skip
        words = ("phaseCode", "connectionState", "amiBillingReady")
        told = {word: safe_xml.text(element, word)[:200] for word in words if safe_xml.text(element, word)}
        attributes = {**_filled(given), **({"attributes": told} if told else {})}
        return {"id": name, "objects": [self._act(action, {"kind": "service_point", "object": name, "body": attributes}, at)]}

    def _zone(self, element: Any) -> str:
        code = safe_xml.text(element, "UsagePointLocation/timeZoneOffset") or safe_xml.text(element, "ServiceLocation/timeZoneOffset")
        if not code:
            return self.zone
        zone = self.system.zones.get(code, code)
        if zone not in available_timezones():
            raise Refusal(VME, f"timeZoneOffset {code[:40]!r} stands for no zone: topology.yaml maps it under zones")
        return zone

    def account(self, action: str, element: Any, at: int | None) -> Words:
        """A customer account pays; who is behind it comes through ``/v1/master``, which seals personal data."""
        name = _named("CustomerAccount", element)
        body = _filled({"customer_class": safe_xml.text(element, "Customer/kind") or safe_xml.text(element, "kind")})
        return {"id": name, "objects": [self._act(action, {"kind": "account", "object": name, "body": body}, at)]}

    def linkage(self, action: str, element: Any, at: int | None) -> Words:
        """Links: a meter at a usage point is its installation (closed: its removal), an account there is a usage subscription."""
        at = self.written if at is None else at
        points, meters = _names(element, "UsagePoint", "UsagePoints"), _names(element, "Meter", "Meters", "EndDevice", "EndDevices")
        accounts, agreements = _names(element, "CustomerAccount"), _names(element, "CustomerAgreement")
        if len(points) != 1:
            raise Refusal(VAE, f"a linkage names one UsagePoint, not {len(points)}")
        (point,) = points
        objects: list[Words] = []
        for meter in meters:
            event = "install" if action in ("put", "patch") else "remove"
            body = {"device": meter, "service_point": point, "event": event}
            if action == "remove":  # linked by mistake: it never was
                gone = {"action": "remove", "kind": "install", "object": f"{meter}/install/{at}"}
                objects.append({**gone, "from": None, "to": None, "body": {}})
            else:
                entry = {"kind": "install", "object": f"{meter}/{event}/{at}", "body": _checked("install", body)}
                objects.append({**entry, "action": "put", "from": at, "to": None})
        if accounts or agreements:
            objects.append(self._subscription(action, element, at, point, accounts, agreements))
        if not objects:
            raise Refusal(VAE, "a linkage names a Meter, a CustomerAccount or a CustomerAgreement beside its UsagePoint")
        know = {"device": meters[0], "point": point if action in ("put", "patch") else None} if len(meters) == 1 else {}
        account = objects[-1]["object"] if accounts or agreements else ""
        return {"id": point, "device": meters[0] if meters else "", "objects": objects, "account": account, "know": know}

    def _subscription(self, action: str, element: Any, at: int, point: str, accounts: list[str], agreements: list[str]) -> Words:
        name = agreements[0] if agreements else point
        rates = _names(element, "PricingStructure", "PricingStructures")
        if action in ("put", "patch") and not accounts:
            raise Refusal(IDE, f"agreement {name}: the linkage names no CustomerAccount")
        body = {"account": accounts[0], "service_points": [point], "rate": rates[0] if rates else None} if accounts else {}
        return self._act("put" if action == "patch" else action, {"kind": "subscription", "object": name, "body": _filled(body)}, at)

    # --- values ----------------------------------------------------------------------------------------------------------------

    def _act(self, action: str, entry: Words, at: int | None) -> Words:
        """An object with what becomes of it and from when."""
        kind, name = entry["kind"], entry["object"]
        body = _checked(kind, entry["body"], partial=action == "patch") if action in ("put", "patch") else {}
        begin = None if action == "remove" else at if at is not None or action == "put" else self.written
        return {"action": action, "kind": kind, "object": name, "from": begin, "to": None, "body": body}


_NOUNS: Final[Mapping[str, tuple[str, Callable[..., Words]]]] = {
    "MeterConfig": ("Meter|EndDevice", Reader.meter),
    "UsagePointConfig": ("UsagePoint", Reader.usage_point),
    "CustomerAccountConfig": ("CustomerAccount", Reader.account),
    "MasterDataLinkageConfig": ("MasterDataLinkageConfig", Reader.linkage),
}
"""Noun → the elements that are items, and how one is read."""
KINDS: Final = {
    "MeterConfig": "meter-config", "UsagePointConfig": "usage-point-config", "CustomerAccountConfig": "account-config",
    "MasterDataLinkageConfig": "linkage-config",
}  # fmt: skip
"""Noun → the kind of its conversations."""


def name_of(element: Any) -> str:
    """The name of an object, else its mRID, else nothing."""
    return safe_xml.text(element, "Names/name") or safe_xml.text(element, "mRID")


def moment(written: str) -> int:
    """UTC seconds of a time; one without offset is UTC. Raises Refusal."""
    try:
        at = datetime.fromisoformat(written.strip())
        second = int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        raise Refusal(VAE, f"{written[:40]!r} is no time") from None
    if not 0 <= second < LATEST:
        raise Refusal(VAE, f"{written[:40]!r} lies outside 1970 to 2100")
    return second


def _event_time(element: Any) -> str:
    for one in element:
        if safe_xml.local(one) in ("ConfigurationEvent", "ConfigurationEvents"):
            return safe_xml.text(one, "effectiveDateTime")
    return ""


def _named(what: str, element: Any) -> str:
    name = name_of(element)
    if not name or len(name) > 120 or not name.isprintable():
        raise Refusal(VAE, f"a {what} needs Names/name or an mRID of 1 to 120 printable characters")
    return name


def _names(element: Any, *tags: str) -> list[str]:
    found = [name_of(one) for one in element if safe_xml.local(one) in tags]
    if not all(found):
        raise Refusal(VAE, f"a {tags[0]} of the linkage has neither Names/name nor mRID")
    return list(dict.fromkeys(found))


def _text(element: Any, path: str) -> str:
    return "" if element is None else safe_xml.text(element, path)


def _filled(given: Mapping[str, Any]) -> Words:
    return {name: value for name, value in given.items() if value}


def _checked(kind: str, body: Words, *, partial: bool = False) -> Words:
    try:
        return checked(kind, body, partial=partial)
    except ValueError as error:
        raise Refusal(VAE, f"{kind.replace('_', ' ')}: {error}") from None


def _whole(what: str, written: str) -> int:
    if not re.fullmatch(r"\d{1,3}", written, re.ASCII):
        raise Refusal(VAE, f"{what} must be a whole number, not {written[:20]!r}")
    return int(written)


def _multiplier(meter: str, element: Any) -> str:
    """The product of register multiplier and transformer ratios, exact."""
    found: dict[str, Decimal] = {}
    for one in element:
        if safe_xml.local(one) == "MeterMultipliers":
            try:
                found[safe_xml.text(one, "kind")] = Decimal(safe_xml.text(one, "value"))
            except InvalidOperation:
                raise Refusal(VAE, f"meter {meter}: a multiplier is no decimal number") from None
    if "transformerRatio" in found:
        found = {"kR": found.get("kR", Decimal(1)), "ctRatio": found["transformerRatio"]}
    product = Decimal(1)
    for kind in _RATIOS:
        product *= found.get(kind, Decimal(1))
    try:
        return quantity.text_of(quantity.parse(format(product, "f")))
    except ValueError as error:
        raise Refusal(VAE, f"meter {meter}: multiplier: {error}") from None
