"""SAP's items in the words of the hub's conversations: values checked and mapped, each flaw with its error category."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo, available_timezones

from connectors.enterprise.sap.catalog import Root, Service
from schemas import quantity
from schemas.master import checked
from schemas.topology.enterprise import System
from schemas.units import resolve
from streams.enterprise.desk import VAE, VME, Refusal
from streams.enterprise.local import day_number, midnight, moment
from streams.enterprise.master_data import HERE

_EAST, _WEST = 14 * 3600, 12 * 3600  # how far from UTC the zones of the world go
_FOREVER: Final = date(9999, 12, 31)
Words = dict[str, Any]


@dataclass(frozen=True)
class Reader:
    """Reads items of one system; ``zone`` is where its dates are local."""

    system: System
    zone: str

    def body(self, service: Service, root: Root, item: Words) -> Words:
        """What a valid item says. Raises Refusal."""
        if root.answer:
            return self._confirmation(root, item)
        payload = item[root.payload.name]
        read: Callable[[Words], Words] = getattr(self, f"_{service.does.replace('-', '_')}")
        return read(payload)

    # --- values ---------------------------------------------------------------------------------------------------------------

    def _span(self, start: str, end: str | None, zone: str = "") -> tuple[int | None, int | None]:
        """UTC seconds of a span of local days, its last day included; None: open."""
        zone = zone or self.zone
        first = _date("StartDate", start)
        last = _date("EndDate", end) if end else _FOREVER
        if last < first:
            raise Refusal(VAE, f"EndDate {end} lies before StartDate {start}")
        return midnight(zone, day_number(first)), midnight(zone, day_number(last) + 1)

    def _everywhere(self, start: str, end: str | None) -> tuple[int | None, int | None]:
        """The span of days of something that has no zone yet: it holds these days wherever it will be."""
        begin, close = self._span(start, end, "UTC")
        return None if begin is None else max(begin - _EAST, 0), None if close is None else close + _WEST

    def _known_zone(self, code: str | None) -> str:
        if not code:
            return self.zone
        zone = self.system.zones.get(code, code)
        if zone not in available_timezones():
            raise Refusal(VME, f"time zone code {code!r} stands for no zone: topology.yaml maps it under zones")
        return zone

    def _unit(self, code: str) -> str:
        unit = resolve(self.system.units.get(code, code))
        if unit.quantity == "other":
            raise Refusal(VME, f"unit code {code!r} stands for no unit: topology.yaml maps it under units")
        return unit.name

    def _action(self, code: str) -> str:
        if code not in self.system.categories:
            raise Refusal(VME, f"category {code!r} is no connection change: topology.yaml maps it under categories")
        return self.system.categories[code]

    # --- devices --------------------------------------------------------------------------------------------------------------

    def _device(self, payload: Words) -> Words:
        begin, end = self._everywhere(payload["StartDate"], payload.get("EndDate"))
        individual = payload.get("IndividualMaterial") or {}
        attributes = {
            "serial": payload.get("SerialID") or individual.get("SerialID"), "model": payload.get("MaterialID"),
            "manufacturer": individual.get("ManufacturerPartyInternalID"),
        }  # fmt: skip
        ams = _ams(payload)
        if ams:
            attributes["attributes"] = {"advanced_metering_system": ams}
        entry = _put("device", payload["ID"], begin, end, attributes)
        return {"id": payload["ID"], "device": payload["ID"], "objects": [entry], "know": {"device": payload["ID"], "ams": ams}}

    _device_change = _device
    _device_replicate = _device

    def _device_cancel(self, payload: Words) -> Words:
        name, ends = payload["ID"], payload.get("EndDate")
        entry = {"action": "remove", "kind": "device", "object": name, "from": None, "to": None, "body": {}}
        if ends:
            entry |= {"action": "end", "from": self._everywhere("1970-01-01", ends)[1]}
        return {"id": name, "device": name, "objects": [entry], "know": {} if ends else {"device": name, "gone": True}}

    def _register(self, payload: Words) -> Words:
        return self._registers(payload["ID"], payload["Register"], _ams(payload))

    _register_change = _register

    def _task_change(self, payload: Words) -> Words:
        register = {"UtilitiesMeasurementTaskID": payload["UtilitiesMeasurementTaskID"], **payload["Register"]}
        return self._registers(payload["UtilitiesDeviceID"], [register], "")

    def _registers(self, device: str, registers: list[Words], ams: str) -> Words:
        objects, channels, series = [], {}, []
        for register in registers:
            code = register["UtilitiesObjectIdentificationSystemCodeText"]
            words = register["Specifications"]
            digits, decimals = (
                _whole(name, words["DecimalValuePrecision"][name], low, high)
                for name, low, high in (("TotalDigitNumberValue", 1, 18), ("FractionDigitNumberValue", 0, 9))
            )
            if not 1 <= digits - decimals <= 15:
                raise Refusal(VAE, f"register {code}: {digits} digits with {decimals} behind the point leave no 1 to 15 before it")
            zone = self._known_zone(register.get("TimeZoneCode"))
            begin, end = self._span(register["StartDate"], register.get("EndDate"), zone)
            profile = register.get("UtilitiesMeasurementTaskCategoryCode") in self.system.profiles
            unit, task = self._unit(words["MeasureUnitCode"]), register.get("UtilitiesMeasurementTaskID", "")
            attributes = {
                "device": device, "channel": code, "type": "interval" if profile else "register", "unit": unit,
                "seconds": None if profile else 0, "multiplier": words.get("MeterReadingResultAdjustmentFactorValue") or "1",
                "dials": digits - decimals, "decimals": decimals,
            }  # fmt: skip
            if task:
                attributes["attributes"] = {"measurement_task": task}
            objects.append(_put("component", f"{device}/{code}", begin, end, attributes))
            channels[code] = {"unit": unit, "decimals": decimals, "zone": zone, "task": task, "profile": profile}
            if profile and task:
                series.append({"id": task, "channel": code})
        know = {"device": device, "channels": channels, "series": series, **({"ams": ams} if ams else {})}
        return {"id": device, "device": device, "objects": objects, "know": know}

    def _location(self, payload: Words) -> Words:
        name, place = payload["ID"], payload.get("Location")
        if place is None:
            entry = _event(name, HERE, "remove", 0)
            local = [_date("StartDate", payload["StartDate"]).isoformat(), payload.get("StartTime") or "00:00:00"]
            entry |= {"local": local, "zone": self.zone}
            return {"id": name, "device": name, "objects": [entry], "know": {"device": name, "point": None}}
        zone = self._known_zone(place.get("TimeZoneCode"))
        point = place["InstallationPointID"]
        at = moment(zone, _date("StartDate", place["StartDate"]), place.get("StartTime") or "00:00:00")
        objects = [_put("service_point", point, None, None, {"zone": zone}), _event(name, point, "install", at)]
        ends = place.get("EndDate")
        if ends and _date("EndDate", ends) < _FOREVER:
            objects.append(_event(name, point, "remove", moment(zone, _date("EndDate", ends), "24:00:00")))
        return {"id": name, "device": name, "objects": objects, "know": {"device": name, "point": point, "zone": zone}}

    def _point_of_delivery(self, payload: Words) -> Words:
        device, objects = payload["UtilitiesDeviceID"], []
        for one in payload["UtilitiesPointOfDeliveryAssignment"]:
            point = one["UtilitiesPointOfDeliveryPartyID"]
            self._span(one["StartDate"], one.get("EndDate"))
            ends = _date("EndDate", one["EndDate"]) if one.get("EndDate") else _FOREVER
            days = [day_number(_date("StartDate", one["StartDate"])), day_number(ends) + 1]
            objects.append(_put("account", point, None, None, {}))
            entry = _put("subscription", point, None, None, {"account": point, "service_points": [HERE]})
            objects.append({**entry, "days": days, "zone": self.zone})
        return {"id": payload["UtilitiesMeasurementTaskID"], "device": device, "objects": objects}

    # --- readings -------------------------------------------------------------------------------------------------------------

    def _reading_order(self, payload: Words) -> Words:
        task = payload["UtiltiesMeasurementTask"]
        device = task["UtiltiesDevice"]
        return {
            "id": payload["ID"], "order": payload["ID"], "reason": payload["MeterReadingReasonCode"],
            "date": _date("ScheduledMeterReadingDate", payload["ScheduledMeterReadingDate"]).isoformat(), "zone": self.zone,
            "source": payload.get("UtilitiesAdvancedMeteringDataSourceTypeCode", ""), "task": task.get("UtilitiesMeasurementTaskID", ""),
            "channel": task["UtilitiesObjectIdentificationSystemCodeText"], "device": device["UtilitiesDeviceID"], "ams": _ams(device),
        }  # fmt: skip

    @staticmethod
    def _reading_cancel(payload: Words) -> Words:
        return {"id": payload["ID"], "order": payload["ID"]}

    def _manual_read(self, payload: Words) -> Words:
        task, result = payload["UtilitiesMeasurementTask"], payload["Result"]
        day = result.get("ActualMeterReadingDate") or result["MeterReadingDate"]
        clock = result.get("ActualMeterReadingTime") or result["MeterReadingTime"]
        try:
            value = quantity.parse(result["MeterReadingResultValue"])
        except ValueError as error:
            raise Refusal(VAE, f"MeterReadingResultValue: {error}") from None
        return {
            "id": payload["ID"], "order": payload["ID"], "device": task["UtilitiesDevice"]["UtilitiesDeviceID"],
            "channel": task["UtilitiesObjectIdentificationSystemCodeText"], "date": _date("MeterReadingDate", day).isoformat(),
            "time": clock, "zone": self.zone, "value": value,
            "estimated": result["MeterReadingTypeCode"] == self.system.statuses.get("estimated"),
        }  # fmt: skip

    _manual_change = _manual_read

    # --- connections ----------------------------------------------------------------------------------------------------------

    def _connection(self, payload: Words) -> Words:
        devices = payload["DeviceConnectionStatus"]
        names = [device["UtilitiesDeviceID"] for device in devices]
        if len(set(names)) != len(names):
            raise Refusal(VAE, "a device stands twice in the request")
        planned = payload.get("PlannedProcessingDateTime")
        return {
            "id": payload["ID"], "request": payload["ID"], "action": self._action(payload["CategoryCode"]), "devices": names,
            "category": payload["CategoryCode"], "reason": payload.get("UtilitiesServiceDisconnectionReasonCode", ""),
            "planned": instant(planned, self.zone) if planned else None,
            "ams": {device["UtilitiesDeviceID"]: _ams(device) for device in devices},
        }  # fmt: skip

    def _connection_told(self, payload: Words) -> Words:
        action, objects = self._action(payload["CategoryCode"]), []
        for device in payload["DeviceConnectionStatus"]:
            if not device.get("ProcessingDateTime"):
                raise Refusal(VAE, "ProcessingDateTime is missing")
            at = instant(device["ProcessingDateTime"], self.zone)
            objects.append(_event(device["UtilitiesDeviceID"], HERE, action, at))
        return {"id": payload["ID"], "device": objects[0]["body"]["device"], "objects": objects}

    @staticmethod
    def _connection_cancel(payload: Words) -> Words:
        return {"id": payload["ID"], "request": payload["ID"]}

    def _text(self, payload: Words) -> Words:
        ends = payload.get("EndDateTime")
        end = instant(ends, self.zone) if ends else None
        return {"id": payload["ID"], "device": payload["UtilitiesDeviceID"], "text": payload["Text"], "end": end}

    # --- sums -----------------------------------------------------------------------------------------------------------------

    def _calculation(self, payload: Words) -> Words:
        code = payload.get("CalculationRuleCode", "")
        if code not in self.system.rules:
            raise Refusal(VME, f"calculation rule {code!r} is not known: topology.yaml maps it under rules")
        begin, end = self._span(payload["StartDate"], payload["EndDate"])
        if begin is None or end is None:
            raise Refusal(VAE, "the period must lie between 1970 and 2100")
        days = [day_number(_date("StartDate", payload["StartDate"])), day_number(_date("EndDate", payload["EndDate"])) + 1]
        return {
            "id": payload["ID"], "calculation": payload["ID"], "order": payload.get("UtilitiesBillingOrderID", ""),
            "series": payload["UtilitiesTimeSeriesID"], "rule": self.system.rules[code], "days": days, "zone": self.zone,
            "device": payload["UtilitiesDeviceID"], "channel": payload["UtilitiesObjectIdentificationSystemCodeText"],
        }  # fmt: skip

    @staticmethod
    def _calculation_cancel(payload: Words) -> Words:
        return {"id": payload["ID"], "calculation": payload["ID"]}

    # --- SAP's confirmations ----------------------------------------------------------------------------------------------------

    @staticmethod
    def _confirmation(root: Root, item: Words) -> Words:
        found = item["Log"].get("Item") or []
        errors = [one for one in found if one["SeverityCode"] == "3"]
        failed = bool(errors) or item["Log"].get("BusinessDocumentProcessingResultCode") == "5"
        category = errors[0]["TypeID"] if errors else "PRE" if failed else ""
        note = "; ".join(one["Note"] for one in errors or found)
        return {"id": (item.get(root.payload.name) or {}).get("ID", ""), "category": category, "note": note[:1000]}


def instant(written: str, zone: str) -> int:
    """UTC seconds of an xsd:dateTime; one without offset is local. Raises Refusal."""
    try:
        at = datetime.fromisoformat(written)
    except ValueError:
        raise Refusal(VAE, f"{written[:40]!r} is no time the hub can hold") from None
    if at.tzinfo is None:
        at = at.replace(tzinfo=ZoneInfo(zone))
    return int(at.timestamp() // 1)


def _date(name: str, written: str) -> date:
    try:
        return date.fromisoformat(written[:10])
    except ValueError:
        raise Refusal(VAE, f"{name}: {written[:40]!r} is no date the hub can hold") from None


def _whole(name: str, written: str, low: int, high: int) -> int:
    if len(written) > 6 or not low <= int(written) <= high:
        raise Refusal(VAE, f"{name} must be from {low} to {high}, not {written[:20]}")
    return int(written)


def _ams(words: Mapping[str, Any]) -> str:
    return str((words.get("SmartMeter") or {}).get("UtilitiesAdvancedMeteringSystemID", ""))


def _put(kind: str, name: str, begin: int | None, end: int | None, attributes: Words) -> Words:
    given = {attribute: value for attribute, value in attributes.items() if value is not None}
    try:
        body = checked(kind, given)
    except ValueError as error:
        raise Refusal(VAE, f"{kind.replace('_', ' ')} {name}: {error}") from None
    return {"action": "put", "kind": kind, "object": name, "from": begin, "to": end, "body": body}


def _event(device: str, point: str, event: str, at: int) -> Words:
    return _put("install", f"{device}/{event}/{at}", at, None, {"device": device, "service_point": point, "event": event})
