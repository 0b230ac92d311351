"""Meter reading orders: asked of the store from the scheduled day on, answered with a read, an estimate, or an event that there is none."""

from __future__ import annotations

from datetime import date
from typing import Any, Final

import numpy as np

from schemas.block import ReadBlock, strings
from schemas.conditions import EXT_ESTIMATE, REGULAR
from schemas.quantity import text_of
from streams import calendar
from streams.enterprise.desk import CVE, IDE, VAE, Desk, Item, Refusal
from streams.enterprise.local import day_number, moment
from streams.enterprise.master_data import MasterData
from streams.runtime.fold import Output

VEE: Final = "vee.inbox"


class Readings:
    """Orders by the CIS's own id, until they are answered, cancelled or overdue."""

    def __init__(self, desk: Desk, master: MasterData) -> None:
        self.desk, self.master = desk, master

    def order(self, item: Item, mark: str) -> None:
        """Takes an order and confirms it. Raises Refusal."""
        body = item.body
        key = f"o/{item.system}/{body['order']}"
        old = self.desk.records.get(key)
        if old is not None and old["state"] in ("waiting", "delivered", "confirmed"):
            raise Refusal(CVE, f"reading order {body['order']} exists already")
        channel, zone, decimals = self._channel(item)
        rule = self.desk.settings.rule(body["reason"])
        day = day_number(date.fromisoformat(body["date"]))
        if not calendar.FIRST_DAY <= day < calendar.LAST_DAY:
            raise Refusal(VAE, f"{body['date']} lies outside 1970 to 2100")
        low, high = int(calendar.start_of(zone, day)), int(calendar.start_of(zone, day + 1))
        hours, minutes = (int(part) for part in rule.at.split(":"))
        record = {
            "system": item.system, "protocol": item.protocol, "kind": "reading-order", "subject": body["order"], "device": body["device"],
            "channel": channel, "zone": zone, "decimals": decimals, "reason": body["reason"], "date": body["date"],
            "task": body.get("task", ""), "source": body.get("source", ""), "ams": body.get("ams", ""), "low": low, "high": high,
            "target": high if rule.at == "24:00" else low + hours * 3600 + minutes * 60, "deadline": high + rule.wait,
            "due": max(self.desk.now, low if rule.which == "earliest" else high), "version": (old or {}).get("version", 0),
        }  # fmt: skip
        self.desk.note(record, "waiting", reason=body["reason"], date=body["date"])
        self.desk.records.put(key, record)
        self.desk.opened(item, mark)
        self.desk.settle(item.key, {"id": body["order"]}, note="the order is taken")

    def _channel(self, item: Item) -> tuple[str, str, int | None]:
        """Channel, zone and decimals. SAP's register code must be that of the channel, letter by letter."""
        body, zone = item.body, item.body["zone"]
        device = self.master.device(body["device"])
        if device is None:
            if item.protocol == "sap":
                raise Refusal(IDE, f"there is no device {body['device']}")
            return body["channel"], zone, None
        channels = device["channels"]
        channel = body["channel"]
        if channels and channel not in channels:
            raise Refusal(IDE, f"device {body['device']} has no register {channel}; it has {', '.join(sorted(channels))}")
        known = channels.get(channel) or {}
        return channel, known.get("zone") or device.get("zone") or zone, known.get("decimals")

    def manual(self, item: Item, mark: str) -> None:
        """A read somebody took and typed in: to VEE like any other. Raises Refusal."""
        body = item.body
        channel, zone, _ = self._channel(item)
        known = (self.master.device(body["device"]) or {"channels": {}})["channels"].get(channel) or {}
        at = moment(zone, date.fromisoformat(body["date"]), body["time"])
        if not 0 <= at <= self.desk.now + self.desk.settings.ahead:
            raise Refusal(VAE, f"{body['date']} {body['time']} is yet to come, or before 1970")
        one = np.ones(1, np.int32)
        block = ReadBlock(
            id=self.desk.turn.message.derive("manual", item.id), payload=self.desk.turn.message.payload, source=item.system, format="sap",
            received_at=item.at, device=strings([body["device"]]), channel=strings([channel]), unit=strings([known.get("unit", "")]),
            direction=np.zeros(1, np.int8), start=np.array([at], np.int64), seconds=np.zeros(1, np.int32), count=one, reads=one,
            multiplier=np.zeros(1, np.int64), values=np.array([body["value"]], np.int64),
            conditions=np.array([EXT_ESTIMATE if body["estimated"] else REGULAR], np.int32), times=np.array([at], np.int64),
        )  # fmt: skip
        key = body["device"].encode()
        self.desk.turn.result.outputs.append(Output(VEE, ReadBlock.SCHEMA, block, key))
        self.desk.opened(item, mark)
        self.desk.settle(item.key, {"id": body["order"]}, note="the read is taken")

    def cancel(self, item: Item, mark: str) -> None:
        """Withdraws an order. Raises Refusal."""
        key = f"o/{item.system}/{item.body['order']}"
        record = self.desk.records.get(key)
        if record is None:
            raise Refusal(IDE, f"there is no reading order {item.body['order']}")
        if record["state"] != "waiting":
            raise Refusal(CVE, f"reading order {item.body['order']} is {record['state']} already")
        record.pop("due", None)
        self._keep(key, record, "cancelled")
        self.desk.opened(item, mark)
        self.desk.settle(item.key, {"id": item.body["order"]}, note="the order is cancelled")

    def due(self, key: str, record: dict[str, Any]) -> None:
        """Asks the store for an order whose time has come; forgets one that ended long ago."""
        if record["state"] != "waiting":
            self.desk.records.put(key, None)
            return
        now, rule = self.desk.now, self.desk.settings.rule(record["reason"])
        over = now >= record["deadline"]
        self.desk.ask(
            "reading",
            {
                "key": key, "device": record["device"], "channel": record["channel"], "which": rule.which, "low": record["low"],
                "high": record["high"], "target": record["target"], "tolerance": rule.tolerance if now >= record["high"] else 0,
                "estimate": over and rule.estimate, "last": over,
            },
        )  # fmt: skip
        self.desk.records.put(key, {**record, "due": now + self.desk.settings.ask})

    def answered(self, asked: dict[str, Any], found: dict[str, Any] | None) -> None:
        """Gives the result out; without one after the deadline, says that there is none."""
        key = asked["key"]
        record = self.desk.records.get(key)
        if record is None or record["state"] != "waiting":
            return
        if found is None:
            if asked["last"]:
                self._overdue(key, record)
            return
        value, decimals = found["value"], record["decimals"]
        if decimals is not None and decimals < 6:
            step = 10 ** (6 - decimals)
            value = value // step * step  # what the register would show
        body = {
            "order": record["subject"], "reason": record["reason"], "scheduled": record["date"], "source": record["source"],
            "task": record["task"], "channel": record["channel"], "device": record["device"], "ams": record["ams"],
            "zone": record["zone"], "at": found["at"], "value": text_of(value), "unit": found.get("unit", ""),
            "estimated": found["estimated"], "condition": found["condition"],
        }  # fmt: skip
        record.pop("due", None)
        self.desk.tell(record["system"], record["protocol"], "reading-result", self.desk.turn.message.derive("result", key), body)
        self._keep(key, record, "delivered", value=body["value"], at=found["at"], estimated=found["estimated"])

    def _overdue(self, key: str, record: dict[str, Any]) -> None:
        record.pop("due", None)
        self._keep(key, record, "overdue")
        if record["protocol"] != "sap":
            return
        text = f"reading order {record['subject']}: no read of {record['channel']} on {record['date']}, and none may be estimated"
        self.desk.trouble(record["system"], record["subject"], record["device"], self.desk.now, text)

    def _keep(self, key: str, record: dict[str, Any], state: str, **detail: Any) -> None:
        self.desk.note(record, state, **detail)
        self.desk.records.put(key, {**record, "due": self.desk.now + self.desk.settings.remember})

    def confirmed(self, system: str, id: str, category: str, note: str) -> None:
        """The CIS says what it made of a result."""
        key = f"o/{system}/{id}"
        record = self.desk.records.get(key)
        if record is not None and record["state"] == "delivered":
            self._keep(key, record, "failed" if category else "confirmed", category=category, note=note)
