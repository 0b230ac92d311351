"""SAP IS-U as the hub sees it: requests with UUIDs, confirmations awaited item by item, results confirmed back."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

from lxml import etree

from connectors import safe_xml
from connectors.enterprise.sap.catalog import HEADER, LOG, Root, catalog, confirmation_of
from connectors.enterprise.sap.documents import build, envelope, message_dict
from connectors.enterprise.sap.schemas import message_validator
from connectors.enterprise.simulator.charges import Charge, prepaid_month
from connectors.enterprise.simulator.devices import Fleet, HttpDoor, Manner, step
from connectors.enterprise.simulator.hub import Hub, SimulationError

Words = dict[str, Any]
ZONE: Final = "Europe/Berlin"
CHARGE: Final = "UtilitiesPrepaymentChargeERPCreateRequest"
PROFILE: Final = "1-0:1.29.0"


class Sap:
    """One SAP system. Every message it gets is checked against the published schema."""

    def __init__(self, hub: Hub, system: str = "sap", name: str = "SAPCLNT800") -> None:
        self.hub, self.system, self.name = hub, system, name
        self.inbox: list[tuple[Root, Words]] = []  # items got: what they are, header and payload by element name
        self.forgets: dict[str, int] = {}  # items it will take without confirming them, by service
        self._seen: set[str] = set()
        self._cursor: str | None = None

    # --- sending ----------------------------------------------------------------------------------------------------------------

    def header(self, uuid_: str | None = None) -> Words:
        """A message header of now."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {"UUID": uuid_ or str(uuid.uuid4()), "CreationDateTime": now, "SenderBusinessSystemID": self.name}

    def single(self, root: str, payload: Words, uuid_: str | None = None, log: Words | None = None) -> str:
        """Sends one message; its UUID."""
        declared = catalog().roots[root]
        header = self.header(uuid_)
        words: Words = {declared.payload.name: payload, **({LOG: log} if log else {})}
        self._send(declared, build(declared, header, [words]))
        return str(header["UUID"])

    def bulk(self, root: str, payloads: Iterable[Words], uuids: Iterable[str] | None = None) -> list[str]:
        """Sends a bulk; the UUIDs of its items."""
        declared = catalog().roots[root]
        payloads = list(payloads)
        headers = [self.header(one) for one in (uuids or [str(uuid.uuid4()) for _ in payloads])]
        items = [{HEADER: header, declared.payload.name: payload} for header, payload in zip(headers, payloads, strict=True)]
        self._send(declared, build(declared, self.header(), items))
        return [str(header["UUID"]) for header in headers]

    def _send(self, root: Root, element: Any) -> None:
        body = envelope(element)
        self.hub.post(f"/v1/sap/{root.service}", 202, content=body, headers={"Content-Type": "text/xml; charset=utf-8"})

    # --- receiving --------------------------------------------------------------------------------------------------------------

    def fetch(self) -> None:
        """Gets what waits, checks it, and confirms what SAP confirms."""
        cursor: str | None = None
        while True:
            params = {"system": self.system, "limit": 1000, **({"cursor": cursor} if cursor else {})}
            page = self.hub.get("/v1/sap/messages", params=params).json()
            for row in page["items"]:
                if row["id"] not in self._seen:
                    self._seen.add(row["id"])
                    self._take(row["id"])
            cursor = page["next"]
            if cursor is None:
                return

    def _take(self, id: str) -> None:
        answer = self.hub.client.get(f"/v1/sap/messages/{id}")
        if answer.status_code == 404:
            return  # a notification that went well has no message
        self.receive(answer.content)

    def receive(self, body: bytes) -> None:
        """Takes one SOAP message from the hub. Raises SimulationError where it breaks the published schema."""
        message = safe_xml.parsed(body)[0][0]
        name = safe_xml.local(message)
        root = catalog().roots[name]
        validator = message_validator(root.service)
        if not validator.validate(etree.fromstring(etree.tostring(message))):
            raise SimulationError(f"{name} breaks its schema: {validator.error_log[0].message}")
        items = [child for child in message if child.tag == root.item] if root.item else [message]
        for item in items:
            words = message_dict(item, root)
            self.inbox.append((root, words))
            if not root.answer and catalog().services[root.service].confirmation is not None:
                self._confirm(root, words)

    def _confirm(self, root: Root, words: Words) -> None:
        """Says that a result was taken."""
        if self.forgets.get(root.service, 0):
            self.forgets[root.service] -= 1
            return
        answer = catalog().roots[confirmation_of(root.service)]
        header = {**self.header(), "ReferenceUUID": words[HEADER]["UUID"]}
        log = {"BusinessDocumentProcessingResultCode": "3", "Item": [{"TypeID": "OK", "SeverityCode": "1", "Note": "taken"}]}
        payload = {answer.payload.name: {"ID": words[root.payload.name]["ID"]}, LOG: log}
        self._send(answer, build(answer, header, [payload]))

    def answer_to(self, uuid_: str) -> Words | None:
        """The confirmation of an item; None: it has not come yet."""
        self.fetch()
        found = (words for root, words in self.inbox if root.answer and words[HEADER].get("ReferenceUUID") == uuid_)
        return next(found, None)

    def told(self, service: str, **fields: str) -> list[Words]:
        """Payloads of what the hub told by itself, by service and fields."""
        self.fetch()
        found = [words[root.payload.name] for root, words in self.inbox if root.service == service and not root.answer]
        return [payload for payload in found if all(payload.get(name) == value for name, value in fields.items())]

    def charges(self, account: str) -> list[Charge]:
        """Charges of a contract, in the order in which they came; one that is told again is there again."""
        return [_charge(payload) for payload in self.told(CHARGE, UtilitiesContractID=account)]

    def accept(self, charge: Charge) -> None:
        """Nothing: what was taken is confirmed as it comes."""

    def confirmed(self, what: str, uuid_: str) -> Words:
        """Waits for the confirmation of an item and checks that it is good. Raises SimulationError with its log."""
        words = self.hub.wait(f"confirmation of {what}", lambda: self.answer_to(uuid_))
        first = words[LOG]["Item"][0]
        if first["SeverityCode"] == "3":
            raise SimulationError(f"{what}: {first['TypeID']} {first['Note']}")
        self.hub.say(f"{what}: {first['Note']}")
        return dict(words)


# --- payloads -------------------------------------------------------------------------------------------------------------------


def device(id: str, start: str = "2020-01-01") -> Words:
    """A meter."""
    smart = {"UtilitiesAdvancedMeteringSystemID": "MDH"}
    return {"ID": id, "StartDate": start, "EndDate": "9999-12-31", "SerialID": f"S{id}", "MaterialID": "E350", "SmartMeter": smart}


def registers(id: str, start: str = "2020-01-01") -> Words:
    """A kWh register with five digits and three decimals, and a quarter-hour profile."""

    def one(code: str, category: str, digits: int, decimals: int) -> Words:
        return {
            "StartDate": start, "EndDate": "9999-12-31", "UtilitiesMeasurementTaskID": f"{id}-{code}",
            "UtilitiesObjectIdentificationSystemCodeText": code, "UtilitiesMeasurementTaskCategoryCode": category,
            "UtilitiesDivisionCategoryCode": "01", "TimeZoneCode": ZONE,
            "Specifications": {
                "MeasureUnitCode": "KWH",
                "DecimalValuePrecision": {"TotalDigitNumberValue": digits, "FractionDigitNumberValue": decimals},
                "MeterReadingResultAdjustmentFactorValue": "1",
            },
        }  # fmt: skip

    return {"ID": id, "Register": [one("1-0:1.8.0", "1", 8, 3), one("1-0:1.29.0", "2", 8, 3)]}


def location(id: str, point: str | None, start: str = "2020-01-01") -> Words:
    """An installation, or without a point a removal."""
    words: Words = {"ID": id, "StartDate": start}
    if point:
        words["Location"] = {"StartDate": start, "EndDate": "9999-12-31", "InstallationPointID": point, "TimeZoneCode": ZONE}
    return words


def delivery_point(id: str, point: str, start: str = "2020-01-01") -> Words:
    """A register assigned to a point of delivery."""
    assigned = {"StartDate": start, "EndDate": "9999-12-31", "UtilitiesPointOfDeliveryPartyID": point}
    return {
        "UtilitiesMeasurementTaskID": f"{id}-1-0:1.8.0", "UtilitiesDeviceID": id, "UtilitiesPointOfDeliveryAssignment": [assigned],
    }  # fmt: skip


def order(id: str, meter: str, day: str, reason: str = "01", code: str = "1-0:1.8.0") -> Words:
    """A meter reading order, with SAP's spelling."""
    smart = {"UtilitiesAdvancedMeteringSystemID": "MDH"}
    return {
        "ID": id, "MeterReadingReasonCode": reason, "ScheduledMeterReadingDate": day, "UtilitiesAdvancedMeteringDataSourceTypeCode": "1",
        "UtiltiesMeasurementTask": {
            "UtilitiesMeasurementTaskID": f"{meter}-{code}", "UtilitiesObjectIdentificationSystemCodeText": code,
            "UtiltiesDevice": {"UtilitiesDeviceID": meter, "SmartMeter": smart},
        },
    }  # fmt: skip


def switch(id: str, meter: str, category: str) -> Words:
    """A disconnection (1) or reconnection (2)."""
    return {"ID": id, "CategoryCode": category, "DeviceConnectionStatus": [{"UtilitiesDeviceID": meter}]}


def calculation(id: str, meter: str, start: str, end: str) -> Words:
    """The sum of a profile over some days."""
    return {
        "ID": id, "UtilitiesBillingOrderID": f"B{id}", "UtilitiesTimeSeriesID": f"{meter}-1-0:1.29.0", "StartDate": start, "EndDate": end,
        "UtilitiesDeviceID": meter, "UtilitiesObjectIdentificationSystemCodeText": "1-0:1.29.0",
    }  # fmt: skip


# --- the story ------------------------------------------------------------------------------------------------------------------


def meter_to_cash(sap: Sap, meter: str, today: datetime | None = None) -> dict[str, Any]:
    """From a new meter to what SAP bills: installed, read, ordered, disconnected, summed. What came of it, as SAP got it.

    Raises SimulationError at the first thing that is not as SAP needs it.
    """
    zone = ZoneInfo(ZONE)
    now = (today or datetime.now(UTC)).astimezone(zone)
    day = (now - timedelta(days=2)).date()
    install(sap, meter)
    send_reads(sap.hub, meter, day.isoformat(), zone)
    number = meter[-6:]
    sap.confirmed(
        "reading order", sap.single("SmartMeterMeterReadingDocumentERPCreateRequest", order(f"MR{number}", meter, day.isoformat()))
    )
    result = sap.hub.wait("reading result", lambda: sap.told("MeterReadingDocumentERPResultCreateRequest", ID=f"MR{number}"))[0]["Result"]
    sap.hub.say(f"reading result: {result['MeterReadingResultValue']} kWh at {result['MeterReadingDate']} {result['MeterReadingTime']}")
    states, fleet = {}, Fleet(Manner(delay=(0.0, 0.0)))
    for words, category in (("disconnect", "1"), ("reconnect", "2")):
        root = "SmartMeterUtilitiesConnectionStatusChangeRequestERPCreateRequest"
        asked = sap.single(root, switch(f"C{category}{number}", meter, category))
        done = fleet.counts["done"]
        sap.hub.wait("the command", lambda before=done: head_end(fleet, sap.hub, meter)["done"] > before)  # type: ignore[misc]
        status = sap.confirmed(words, asked)["UtilitiesConnectionStatusChangeRequest"]["DeviceConnectionStatus"][0]
        states[words] = status["UtilitiesConnectionStatusChangeResultCode"]
    root = "UtilitiesTimeSeriesCalculationERPCreateRequest"
    asked = sap.single(root, calculation(f"K{number}", meter, day.isoformat(), day.isoformat()))
    sums = sap.confirmed("sum of the profile", asked)["UtilitiesTimeSeriesCalculation"]["Item"]
    series = sap.hub.wait("profile", lambda: sap.told("UtilitiesTimeSeriesERPItemCreateRequest", ID=f"{meter}-1-0:1.29.0"))
    sap.hub.say(f"profile: {sum(len(one['Item']) for one in series)} items")
    return {
        "meter": meter,
        "reading": result,
        "switched": states,
        "sum": sums[0]["Quantity"],
        "profile": [i for s in series for i in s["Item"]],
    }


def head_end(fleet: Fleet, hub: Hub, meter: str) -> Counter[str]:
    """Carries out what waits for a meter; what was said so far."""
    step(fleet, HttpDoor(hub, prefix=meter), datetime.now(UTC).timestamp())
    return fleet.counts


def install(sap: Sap, meter: str) -> None:
    """A new meter with its registers at its place, assigned to a point of delivery."""
    sap.confirmed("device", sap.single("UtilitiesDeviceERPSmartMeterCreateRequest", device(meter)))
    sap.confirmed("registers", sap.single("UtilitiesDeviceERPSmartMeterRegisterCreateRequest", registers(meter)))
    sap.hub.wait("the meter registered", lambda: sap.told("UtilitiesDeviceERPSmartMeterRegisteredNotification", ID=meter))
    sap.single("UtilitiesDeviceERPSmartMeterLocationNotification", location(meter, f"IP{meter}"))
    root = "SmartMeterUtilitiesMeasurementTaskERPPointOfDeliveryAssignedNotification"
    sap.single(root, delivery_point(meter, f"POD{meter}"))
    sap.hub.say("location and point of delivery: told, no news is good news")


def send_reads(hub: Hub, meter: str, day: str, zone: ZoneInfo) -> None:
    """A day of a meter as its head end sends it: a register read at either midnight, quarter hours of 0.1 kWh between."""
    start = datetime.fromisoformat(day).replace(tzinfo=zone).astimezone(UTC)
    end = (datetime.fromisoformat(day) + timedelta(days=1)).replace(tzinfo=zone).astimezone(UTC)
    slots = int((end - start).total_seconds()) // 900
    readings = [
        {"at": start.isoformat(), "value": "1234.5678"},
        {"at": end.isoformat(), "value": f"{1234.5678 + slots / 10:.4f}"},
    ]
    profile: Mapping[str, Any] = {
        "device": meter, "channel": "1-0:1.29.0", "unit": "kWh", "seconds": 900, "start": start.isoformat(), "values": ["0.1"] * slots,
    }  # fmt: skip
    register = {"device": meter, "channel": "1-0:1.8.0", "unit": "kWh", "readings": readings}
    hub.reads({"source": "simulated", "reads": [profile, register]}, "simulated")


def month_to_charge(sap: Sap, meter: str, today: datetime | None = None) -> dict[str, Any]:
    """From a new meter to what a prepaid month came to: told, confirmed, told anew with late reads. Raises SimulationError."""
    install(sap, meter)
    return prepaid_month(sap, f"POD{meter}", meter, PROFILE, ZONE, today) | {"meter": meter}


def _charge(payload: Words) -> Charge:
    changed = sum((Decimal(one["ChangeAmount"]) for one in payload["Item"]), Decimal(0))
    quantity = sum((Decimal(one["Quantity"]) for one in payload.get("Consumption", [])), Decimal(0))
    return Charge(
        payload["ID"], int(payload["VersionID"]), payload.get("PredecessorID", ""), payload["StartDate"], Decimal(payload["TotalAmount"]),
        changed, quantity, payload["ProvisionalIndicator"] == "true",
    )  # fmt: skip
