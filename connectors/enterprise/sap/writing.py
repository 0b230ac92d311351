"""Messages of the hub's conversations in SAP's words."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from connectors.enterprise.sap.catalog import HEADER, LOG, Root, Service, catalog
from connectors.enterprise.sap.documents import build
from schemas import conditions, quantity
from schemas.topology.enterprise import System

Words = dict[str, Any]
OK: Final = "MDH.OK"
ANSWER: Final = "-answer"


def written(message: Mapping[str, Any], system: System) -> tuple[Root, Any] | None:
    """The root and the element of an EnterpriseMessage; None where SAP has no message for it (a notification that went well).

    Items' bodies may be JSON already read. Raises ValueError where it does not follow its own schema, which is a bug.
    """
    kind = message["kind"]
    answers = kind.endswith(ANSWER)
    service = catalog().kind(kind.removesuffix(ANSWER))
    root = _root(service, answers, message["bulk"])
    if root is None:
        return None
    writer = _Writer(system, message["at"])
    items = [writer.item(service, root, item) for item in message["items"]]
    header = writer.header(message["id"], message["reference"])
    return root, build(root, items[0][HEADER] if root.item is None else header, items)


def _root(service: Service, answers: bool, bulk: bool) -> Root | None:
    if not answers:
        return service.bulk if bulk else service.single
    return service.bulk_confirmation if bulk else service.confirmation


def uuid_text(id: str) -> str:
    """An id of ours as UUID text."""
    try:
        return str(uuid.UUID(id))
    except ValueError:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, id))


class _Writer:
    def __init__(self, system: System, at: int) -> None:
        self.system, self.at = system, at

    def header(self, id: str, reference: str) -> Words:
        """A message header."""
        header: Words = {"UUID": uuid_text(id), "CreationDateTime": iso(self.at), "SenderBusinessSystemID": self.system.own}
        if reference:
            header["ReferenceUUID"] = uuid_text(reference)
        if self.system.name:
            header["RecipientBusinessSystemID"] = self.system.name
        return header

    def item(self, service: Service, root: Root, item: Mapping[str, Any]) -> Words:
        """Header, payload and log of one item."""
        body = item["body"]
        words: Words = {HEADER: self.header(item["id"], item["reference"])}
        if root.answer:
            words[root.payload.name] = self._confirmed(service, body)
            words[LOG] = log_of(item["category"], item["note"])
        else:
            write = getattr(self, f"_{service.does.replace('-', '_')}")
            words[root.payload.name] = write(body)
        return words

    def _confirmed(self, service: Service, body: Words | None) -> Words | None:
        if not body:
            return None
        if service.does == "connection" and "devices" in body:
            devices = [self._device_status(device) for device in body["devices"]]
            if not devices:
                return None
            return {"ID": body["request"], "CategoryCode": body["category"], "DeviceConnectionStatus": devices}
        if service.does == "calculation" and "sums" in body:
            return self._sums(body)
        if service.does in ("connection", "calculation"):
            return None
        return {"ID": body["id"]} if body.get("id") else None

    @staticmethod
    def _device_status(device: Words) -> Words:
        words: Words = {
            "UtilitiesDeviceID": device["device"], "ProcessingDateTime": iso(device["at"]),
            "UtilitiesConnectionStatusChangeResultCode": device["code"],
        }  # fmt: skip
        return words | _smart(device)

    def _sums(self, body: Words) -> Words:
        items = [
            {
                "StartDate": _day(body["start"], body["zone"]), "EndDate": _day(body["end"] - 1, body["zone"]),
                "UtilitiesTimeOfUseCode": one["tou"] or None,
                "Quantity": quantity.text_of(one["quantity"]), "ItemStatus": self._status(one["estimated"] > 0),
            }
            for one in body["sums"]
        ]  # fmt: skip
        return {"ID": body["calculation"], "UtilitiesTimeSeriesID": body["series"], "MeasureUnitCode": body["unit"], "Item": items}

    def _status(self, estimated: bool) -> Words:
        """Exactly one status per item."""
        return {"UtilitiesTimeSeriesItemTypeCode": self.system.statuses["estimated" if estimated else "actual"]}

    # --- what the hub tells by itself ----------------------------------------------------------------------------------------------

    @staticmethod
    def _registered(body: Words) -> Words:
        return {"ID": body["device"], "SmartMeter": {"UtilitiesAdvancedMeteringSystemID": body["ams"] or "MDH"}}

    def _reading_result(self, body: Words) -> Words:
        day, clock = _local(body["at"], body["zone"], body["scheduled"])
        device = {"UtilitiesDeviceID": body["device"], **_smart(body)}
        return {
            "ID": body["order"], "MeterReadingReasonCode": body["reason"], "ScheduledMeterReadingDate": body["scheduled"],
            "UtilitiesAdvancedMeteringDataSourceTypeCode": body["source"] or None,
            "UtilitiesMeasurementTask": {
                "UtilitiesMeasurementTaskID": body["task"] or None, "UtilitiesObjectIdentificationSystemCodeText": body["channel"],
                "UtilitiesDevice": device,
            },
            "Result": {
                "MeterReadingDate": day, "MeterReadingTime": clock,
                "MeterReadingTypeCode": self.system.statuses["estimated" if body["estimated"] else "actual"],
                "MeterReadingResultValue": body["value"],
            },
        }  # fmt: skip

    def _series(self, body: Words) -> Words:
        items = [
            {
                "UTCValidityStartDateTime": iso(start), "UTCValidityEndDateTime": iso(end), "Quantity": quantity.text_of(value),
                "ItemStatus": self._status(condition < conditions.SUSPECT),
            }
            for start, end, value, condition in body["items"]
        ]  # fmt: skip
        return {"ID": body["series"], "MeasureUnitCode": body["unit"], "Item": items}

    _series_change = _series

    @staticmethod
    def _charge(body: Words) -> Words:
        items = [
            {"TypeCode": line["kind"], "ComponentID": line["component"], "Amount": line["amount"], "ChangeAmount": line["change"]}
            for line in body["lines"]
        ]
        used = [
            {"UtilitiesTimeOfUseCode": one["tou"] or None, "MeasureUnitCode": body["unit"], "Quantity": one["quantity"]}
            for one in body["quantities"]
        ]
        return {
            "ID": body["id"], "PredecessorID": body["replaces"] or None, "VersionID": str(body["version"]),
            "UtilitiesContractID": body["account"], "UtilitiesPointOfDeliveryPartyID": body["service_point"] or None,
            "UtilitiesDeviceID": body["device"] or None, "StartDate": body["first"], "EndDate": body["last"],
            "PriceSpecificationID": body["tariff"] or None, "CurrencyCode": body["currency"], "TotalAmount": body["total"],
            "ProvisionalIndicator": "true" if body["provisional"] else "false", "Item": items, "Consumption": used,
        }  # fmt: skip

    @staticmethod
    def _event(body: Words) -> Words:
        return {
            "ID": uuid_text(body["event"]), "CategoryCode": body["category"], "SeverityCode": body["severity"],
            "DateTime": iso(body["at"]), "UtilitiesDeviceID": body["device"] or "unknown", "Description": body["text"][:4000] or None,
        }  # fmt: skip


def log_of(category: str, note: str) -> Words:
    """The log of a confirmation."""
    entry = {"TypeID": category or OK, "SeverityCode": "3" if category else "1", "Note": (note or "processed")[:4000]}
    return {"BusinessDocumentProcessingResultCode": "5" if category else "3", "MaximumLogItemSeverityCode": entry["SeverityCode"],
            "Item": [entry]}  # fmt: skip


def _day(at: int, zone: str) -> str:
    return datetime.fromtimestamp(at, ZoneInfo(zone)).date().isoformat()


def _smart(words: Mapping[str, Any]) -> Words:
    return {"SmartMeter": {"UtilitiesAdvancedMeteringSystemID": words["ams"]}} if words.get("ams") else {}


def _local(at: int, zone: str, scheduled: str) -> tuple[str, str]:
    """Date and time of a read; one at the midnight that ends the scheduled day carries that day's date and its last second."""
    moment = datetime.fromtimestamp(at, ZoneInfo(zone))
    before = datetime.fromtimestamp(at - 1, ZoneInfo(zone))
    if (moment.hour, moment.minute, moment.second) == (0, 0, 0) and before.date() == date.fromisoformat(scheduled):
        return before.date().isoformat(), "23:59:59"
    return moment.date().isoformat(), moment.time().isoformat()


def iso(at: int) -> str:
    """UTC seconds as xsd:dateTime."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
