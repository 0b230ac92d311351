"""A CIS and a head end that speak IEC 61968-9/-100: master data, links, readings in and out, controls and their outcomes."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

from lxml import etree

from connectors import safe_xml
from connectors.enterprise.cim import CONTROLS, EVENTS, TYPES
from connectors.enterprise.simulator.hub import Hub, SimulationError
from connectors.subscribers.writers.cim import MESSAGE, READINGS

ZONE: Final = "Europe/Berlin"
PROFILE: Final = "0.0.2.4.1.1.12.0.0.0.0.0.0.0.0.3.72.0"  # kWh of each quarter hour
REGISTER: Final = "0.0.0.1.1.1.12.0.0.0.0.0.0.0.0.3.72.0"
OUTCOME: Final = {"disconnect": "3.31.0.68", "connect": "3.31.0.42"}
Tree = Mapping[str, Any]
"""Element name → text, another tree, a list of either, or attributes of an empty element (names beginning with @)."""


class Cim:
    """One system. Messages are as the standard has them; what the hub answers is read by local names."""

    def __init__(self, hub: Hub, system: str = "cim", source: str = "CIS") -> None:
        self.hub, self.system, self.source = hub, system, source
        self.inbox: list[Any] = []
        self._seen: set[str] = set()

    # --- sending ----------------------------------------------------------------------------------------------------------------

    def send(
        self, verb: str, noun: str, inner: Any, *, kind: str = "RequestMessage", within: str = "Payload", correlation: str = "",
    ) -> tuple[str, Any]:  # fmt: skip
        """Sends a message; its MessageID and the acknowledgement. Raises SimulationError where that is no OK."""
        id = str(uuid.uuid4())
        root = etree.Element(f"{{{MESSAGE}}}{kind}", nsmap={"e": MESSAGE})
        header = {
            "Verb": verb, "Noun": noun, "Revision": "2.0", "Timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "Source": self.source, "AsyncReplyFlag": "true", "MessageID": id, **({"CorrelationID": correlation} if correlation else {}),
        }  # fmt: skip
        fill(etree.SubElement(root, f"{{{MESSAGE}}}Header"), header, MESSAGE)
        etree.SubElement(root, f"{{{MESSAGE}}}{within}").append(inner)
        answer = self.hub.post(f"/v1/cim?system={self.system}", 200, content=etree.tostring(root))
        found = safe_xml.parsed(answer.content)
        result_of(f"{verb} {noun}", found)
        return id, found

    def config(self, verb: str, noun: str, *elements: Tree) -> str:
        """Sends master data; the MessageID."""
        return self.send(verb, noun, payload(f"http://iec.ch/TC57/2011/{noun}#", noun, *elements))[0]

    # --- receiving --------------------------------------------------------------------------------------------------------------

    def fetch(self) -> None:
        """Gets what waits."""
        cursor: str | None = None
        while True:
            params = {"system": self.system, "limit": 1000, **({"cursor": cursor} if cursor else {})}
            page = self.hub.get("/v1/cim/messages", params=params).json()
            for row in page["items"]:
                if row["id"] not in self._seen:
                    self._seen.add(row["id"])
                    answer = self.hub.client.get(f"/v1/cim/messages/{row['id']}")
                    if answer.status_code == 200:
                        self.inbox.append(safe_xml.parsed(answer.content))
            cursor = page["next"]
            if cursor is None:
                return

    def replies(self, id: str) -> list[Any]:
        """The replies to a message that came later."""
        self.fetch()
        return [one for one in self.inbox if safe_xml.text(one, "Header/CorrelationID") == id]

    def done(self, what: str, id: str) -> None:
        """Waits until a message has been carried out. Raises SimulationError where it was not."""
        result_of(what, self.hub.wait(what, lambda: self.replies(id))[0])
        self.hub.say(f"{what}: OK")


def result_of(what: str, message: Any) -> None:
    """Raises SimulationError unless the Reply of a message says OK."""
    if safe_xml.text(message, "Reply/Result") != "OK":
        flaw = f"{safe_xml.text(message, 'Reply/Error/code')} {safe_xml.text(message, 'Reply/Error/reason')}"
        raise SimulationError(f"{what}: {safe_xml.text(message, 'Reply/Result')} {flaw}")


def fill(parent: Any, tree: Tree, space: str) -> Any:
    """Appends a tree to an element, which is given back."""
    for name, value in tree.items():
        for one in value if isinstance(value, list) else [value]:
            if name.startswith("@"):
                parent.set(name[1:], one)
            elif isinstance(one, Mapping):
                fill(etree.SubElement(parent, f"{{{space}}}{name}"), one, space)
            else:
                etree.SubElement(parent, f"{{{space}}}{name}").text = str(one)
    return parent


def payload(space: str, noun: str, *elements: Tree) -> Any:
    """A payload with elements in it."""
    root = etree.Element(f"{{{space}}}{noun}", nsmap={"m": space})
    for one in elements:
        fill(root, one, space)
    return root


def named(name: str) -> dict[str, Any]:
    """What an object is called."""
    return {"Names": {"name": name}}


def usage_point(name: str) -> Tree:
    """A usage point of the simulated zone."""
    return {"UsagePoint": {**named(name), "ServiceCategory": {"kind": "electricity"}, "UsagePointLocation": {"timeZoneOffset": ZONE}}}


def meter(name: str) -> Tree:
    """A meter with a profile and a register."""
    registers = [
        {"leftDigitCount": 6, "rightDigitCount": 3, "Channels": {"ReadingType": {"@ref": ref}}} for ref in (PROFILE, REGISTER)
    ]  # fmt: skip
    model = {"modelNumber": "M1", "Manufacturer": named("Maker")}
    functions = {"EndDeviceFunctions": {"Registers": registers}}
    return {"Meter": {**named(name), "serialNumber": f"S{name}", "EndDeviceInfo": {"AssetModel": model}, **functions}}


def link(at: str, **objects: str) -> Tree:
    """A linkage of objects (CIM's names for their kinds) from a time on."""
    return {"ConfigurationEvent": {"effectiveDateTime": at}, **{kind: named(name) for kind, name in objects.items()}}


def readings(name: str, start: datetime, slots: int) -> Any:
    """Quarter hours of 0.25 kWh, stamped at their ends."""
    ends = [(start + timedelta(minutes=15 * (slot + 1))).strftime("%Y-%m-%dT%H:%M:%SZ") for slot in range(slots)]
    block = {"IntervalReadings": [{"timeStamp": end, "value": "0.25"} for end in ends], "ReadingType": {"@ref": PROFILE}}
    return payload(READINGS, "MeterReadings", {"MeterReading": {"IntervalBlocks": block, "Meter": named(name)}})


# --- the story ------------------------------------------------------------------------------------------------------------------


def meter_to_reading(cim: Cim, name: str, today: datetime | None = None) -> dict[str, Any]:
    """From a new meter to its readings at whoever asks: configured, linked, read, switched. What came of it.

    Raises SimulationError at the first thing that is not as the standard has it.
    """
    zone = ZoneInfo(ZONE)
    now = (today or datetime.now(UTC)).astimezone(zone)
    day = (now - timedelta(days=3)).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    start, end = (moment.replace(tzinfo=zone).astimezone(UTC) for moment in (day, day + timedelta(days=1)))
    since, point = (start - timedelta(days=10)).isoformat(), f"UP{name}"
    cim.done("usage point", cim.config("create", "UsagePointConfig", usage_point(point)))
    cim.done("account", cim.config("create", "CustomerAccountConfig", {"CustomerAccount": named(f"A{name}")}))
    cim.done("meter", cim.config("create", "MeterConfig", meter(name)))
    cim.done("meter at its usage point", cim.config("create", "MasterDataLinkageConfig", link(since, Meter=name, UsagePoint=point)))
    agreed = link(since, CustomerAccount=f"A{name}", CustomerAgreement=f"US{name}", UsagePoint=point, PricingStructure="T1")
    cim.done("agreement", cim.config("create", "MasterDataLinkageConfig", agreed))
    slots = int((end - start).total_seconds()) // 900
    cim.send("created", "MeterReadings", readings(name, start, slots), kind="EventMessage")
    values = cim.hub.wait("readings", lambda: _all_of(cim, name, start, end, slots))
    total = sum(values)
    cim.hub.say(f"readings: {slots} intervals, {total} kWh")
    for action in ("disconnect", "connect"):
        cim.done(action, _switched(cim, name, action))
    return {"meter": name, "intervals": slots, "total": str(total), "switched": list(OUTCOME)}


def _all_of(cim: Cim, name: str, start: datetime, end: datetime, slots: int) -> list[Decimal]:
    """The values of a day once all are there, else none."""
    period = {"start": start.isoformat(), "end": end.isoformat()}
    asked = payload(READINGS, "GetMeterReadings", {"EndDevice": named(name), "ReadingSchedule": {"timePeriod": period}})
    _, answer = cim.send("get", "MeterReadings", asked, within="Request")
    values = [Decimal(safe_xml.text(one, "value")) for one in answer.iter("{*}IntervalReadings")]
    return values if len(values) == slots else []


def _switched(cim: Cim, name: str, action: str) -> str:
    """Asks for a control, carries it out as the head end does, and says so as an event; the MessageID of the request."""
    control = {"EndDeviceControlType": {"@ref": TYPES[action]}, "EndDevices": named(name)}
    asked, _ = cim.send("create", "EndDeviceControls", payload(CONTROLS, "EndDeviceControls", {"EndDeviceControl": control}))
    waits = {"device": name, "action": action, "status": "sent"}
    command = cim.hub.wait("the command", lambda: cim.hub.get("/v1/device-commands", params=waits).json()["items"])[0]
    cim.hub.get(f"/v1/cim/controls/{command['id']}")
    at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    event = {"createdDateTime": at, "Assets": named(name), "EndDeviceEventType": {"@ref": OUTCOME[action]}}
    told = payload(EVENTS, "EndDeviceEvents", {"EndDeviceEvent": event})
    cim.send("created", "EndDeviceEvents", told, kind="EventMessage", correlation=command["id"])
    return asked
