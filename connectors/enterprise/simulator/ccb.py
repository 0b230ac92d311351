"""Oracle CC&B as the hub sees it: objects synced in load order, usage requested, used on a bill."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

from lxml import etree

from connectors import safe_xml
from connectors.enterprise.ccb.documents import NAMESPACE, NSMAP
from connectors.enterprise.simulator.charges import Charge, noted, prepaid_month
from connectors.enterprise.simulator.hub import Hub, SimulationError

ZONE: Final = "America/New_York"
CHANNEL: Final = "kWh15"


class Ccb:
    """One CC&B system."""

    def __init__(self, hub: Hub, system: str = "ccb") -> None:
        self.hub, self.system = hub, system
        self.inbox: list[Any] = []
        self._seen: set[str] = set()

    def sync(self, id: str, objects: list[tuple[str, Mapping[str, Any], Mapping[str, Any]]]) -> None:
        """One sync request: objects as (element, XML attributes, children); waits until it is acknowledged."""
        root = etree.Element(f"{{{NAMESPACE}}}syncRequest", nsmap=NSMAP)
        etree.SubElement(root, f"{{{NAMESPACE}}}syncRequestId").text = id
        for name, attributes, children in objects:
            element = etree.SubElement(root, f"{{{NAMESPACE}}}{name}", dict(attributes))
            for child, value in children.items():
                entry = etree.SubElement(element, f"{{{NAMESPACE}}}{child}")
                if isinstance(value, list):
                    for one in value:
                        etree.SubElement(entry, f"{{{NAMESPACE}}}id").text = one
                else:
                    entry.text = str(value)
        self.hub.post(f"/v1/ccb/sync?system={self.system}", 202, content=etree.tostring(root))

    def acknowledged(self, what: str, reference: str) -> None:
        """Waits for an acknowledgement. Raises SimulationError where it is a refusal."""

        def look() -> Any:
            self.fetch()
            answers = (one for message in self.inbox if safe_xml.local(message) == "acknowledgements" for one in message)
            return [one for one in answers if one.get("reference") == reference]  # an element without children is false

        entry = self.hub.wait(f"acknowledgement of {what}", look)[0]
        if entry.get("status") != "accepted":
            raise SimulationError(f"{what}: {safe_xml.text(entry, 'category')} {safe_xml.text(entry, 'note')}")
        self.hub.say(f"{what}: accepted")

    def fetch(self) -> None:
        """Gets what waits."""
        cursor: str | None = None
        while True:
            params = {"system": self.system, "limit": 1000, **({"cursor": cursor} if cursor else {})}
            page = self.hub.get("/v1/ccb/messages", params=params).json()
            for row in page["items"]:
                if row["id"] not in self._seen:
                    self._seen.add(row["id"])
                    self.inbox.append(safe_xml.parsed(self.hub.get(f"/v1/ccb/messages/{row['id']}").content))
            cursor = page["next"]
            if cursor is None:
                return

    def usage(self, id: str) -> list[Any]:
        """The last usage of a request; none: it has not come yet. Raises SimulationError where it failed."""
        self.fetch()
        mine = [one for one in self.inbox if safe_xml.text(one, "usageId") == id]
        failed = next((one for one in mine if safe_xml.local(one) == "usageFailed"), None)
        if failed is not None:
            raise SimulationError(f"usage {id}: {safe_xml.text(failed, 'state')} {safe_xml.text(failed, 'reason')}")
        return mine[-1:]

    def charges(self, account: str) -> list[Charge]:
        """Billable charges of a usage subscription, in the order in which they came."""
        self.fetch()
        found = (one for one in self.inbox if safe_xml.local(one) == "billableCharge")
        return [_charge(one) for one in found if safe_xml.text(one, "usageSubscriptionId") == account]

    def accept(self, charge: Charge) -> None:
        """Says that a charge was taken."""
        self.says(charge, "accept")

    def says(self, charge: Charge, action: str, **more: str) -> None:
        """Says what became of a charge: ``accept``, ``reject`` or ``used-on-bill``."""
        path, body = f"/v1/ccb/charges/{charge.id}/lifecycle", {"action": action, **more}
        answer = self.hub.client.patch(path, params={"system": self.system}, json=body)
        if answer.status_code != 202:
            raise SimulationError(f"PATCH {path} was answered with {answer.status_code}: {answer.text[:300]}")

    def state(self, id: str) -> str:
        """Where a usage request stands; empty: unknown yet."""
        answer = self.hub.client.get(f"/v1/ccb/usage-requests/{id}", params={"system": self.system})
        return str(answer.json()["state"]) if answer.status_code == 200 else ""


def load(ccb: Ccb, meter: str) -> None:
    """Master data of a meter ``M``, from its customer to the usage subscription ``USM``, synced in load order."""
    since = "2020-01-01T00:00:00-05:00"
    objects: list[tuple[str, Mapping[str, Any], Mapping[str, Any]]] = [
        ("contact", {"id": f"P{meter}"}, {"language": "en"}),
        ("account", {"id": f"A{meter}"}, {"person": f"P{meter}", "customerClass": "residential"}),
        ("servicePoint", {"id": f"SP{meter}"}, {"zone": ZONE, "commodity": "electricity"}),
        ("device", {"id": meter}, {"serial": f"S{meter}", "manufacturer": "LG"}),
        ("measuringComponent", {"id": f"{meter}/{CHANNEL}"},
         {"device": meter, "channel": CHANNEL, "type": "interval", "unit": "kWh", "seconds": 900}),
        ("installEvent", {"id": f"{meter}/on", "from": since}, {"device": meter, "servicePoint": f"SP{meter}", "event": "install"}),
        ("usageSubscription", {"id": f"US{meter}", "from": since}, {"account": f"A{meter}", "servicePoints": [f"SP{meter}"]}),
    ]  # fmt: skip
    for number, one in enumerate(objects):
        ccb.sync(f"{meter}-{number}", [one])
    for number, (name, _, _) in enumerate(objects):
        ccb.acknowledged(f"sync of {name}", f"sync/{meter}-{number}")


def sync_to_bill(ccb: Ccb, meter: str, today: datetime | None = None) -> dict[str, Any]:
    """From master data to what stands on a bill: synced, read, usage requested, determinants received, used on bill.

    Raises SimulationError at the first thing that is not as CC&B needs it.
    """
    zone = ZoneInfo(ZONE)
    now = (today or datetime.now(UTC)).astimezone(zone)
    day = (now - timedelta(days=3)).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    start, end = (moment.replace(tzinfo=zone).astimezone(UTC) for moment in (day, day + timedelta(days=1)))
    load(ccb, meter)
    values = ["0.25"] * (int((end - start).total_seconds()) // 900)
    read = {"device": meter, "channel": CHANNEL, "unit": "kWh", "seconds": 900, "start": start.isoformat(), "values": values}
    ccb.hub.reads({"source": "simulated", "reads": [read]}, "simulated")
    request = etree.Element(f"{{{NAMESPACE}}}usageRequest", nsmap=NSMAP)
    words = {
        "usageId": f"U{meter}",
        "usageSubscriptionId": f"US{meter}",
        "startDateTime": start.isoformat(),
        "endDateTime": end.isoformat(),
    }
    for name, value in words.items():
        etree.SubElement(request, f"{{{NAMESPACE}}}{name}").text = value
    ccb.hub.post(f"/v1/ccb/usage-requests?system={ccb.system}", 202, content=etree.tostring(request))
    usage = ccb.hub.wait("usage", lambda: ccb.usage(f"U{meter}"))[0]
    quantities = [{safe_xml.local(leaf): leaf.text for leaf in entry} for entry in usage if safe_xml.local(entry) == "serviceQuantity"]
    ccb.hub.say(f"usage: {len(quantities)} service quantities, {ccb.state(f'U{meter}')}")
    answer = ccb.hub.client.patch(
        f"/v1/ccb/usage-requests/U{meter}/lifecycle", params={"system": ccb.system}, json={"action": "used-on-bill", "bill": f"B{meter}"}
    )
    if answer.status_code != 202:
        raise SimulationError(f"used on bill was answered with {answer.status_code}: {answer.text[:300]}")
    ccb.hub.wait("used on bill", lambda: ccb.state(f"U{meter}") == "USED_ON_BILL")
    ccb.hub.say("used on bill")
    return {"meter": meter, "usage": quantities, "state": "USED_ON_BILL", "intervals": len(values)}


def month_to_charge(ccb: Ccb, meter: str, today: datetime | None = None) -> dict[str, Any]:
    """From master data to what a prepaid month came to: told, accepted, told anew with late reads, on a bill. Raises SimulationError."""
    load(ccb, meter)
    account = f"US{meter}"
    story = prepaid_month(ccb, account, meter, CHANNEL, ZONE, today)
    last = next(one for one in ccb.charges(account) if one.id == story["last"])
    ccb.says(last, "used-on-bill", bill=f"B{meter}")
    ccb.hub.wait("used on bill", lambda: noted(ccb, account, last, "USED_ON_BILL"))
    ccb.hub.say("used on bill")
    return story | {"meter": meter}


def _charge(element: Any) -> Charge:
    def amounts(path: str, leaf: str) -> Decimal:
        found = [safe_xml.text(one, leaf) for one in element if safe_xml.local(one) == path]
        return sum(map(Decimal, found), Decimal(0))

    words = {name: safe_xml.text(element, name) for name in ("version", "replaces", "startDate", "totalAmount", "provisional")}
    return Charge(
        element.get("id"), int(words["version"]), words["replaces"], words["startDate"], Decimal(words["totalAmount"]),
        amounts("billableChargeLine", "change"), amounts("serviceQuantity", "quantity"), words["provisional"] == "true",
    )  # fmt: skip
