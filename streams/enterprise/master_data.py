"""Master data a CIS sends: to the master agent in the order it came, and its answers back to the items.

An item's body holds ``objects`` (what the master agent takes) and ``know`` (what the other conversations want to remember of the
device once it holds).
"""

from __future__ import annotations

from datetime import date
from typing import Any, Final

import orjson

from streams.enterprise.desk import CVE, IDE, INBOX, LRE, MASTER, VAE, Desk, Item, Refusal
from streams.enterprise.local import midnight, moment

KINDS: Final = frozenset(
    ("device", "device-change", "device-cancel", "device-replicate", "register", "register-change", "task-change", "location",
     "point-of-delivery", "connection-told", "sync", "meter-config", "usage-point-config", "account-config", "linkage-config")
)  # fmt: skip
LOCKED: Final = frozenset(("register-change", "task-change", "device-cancel"))  # while sums of the device are being worked out
PARTITION: Final = 0
HERE: Final = "@here"  # the service point at which the device is installed


class MasterData:
    """Devices, registers, locations, points of delivery, and the objects of Oracle's sync requests."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._items: list[dict[str, Any]] = []

    def take(self, item: Item, mark: str, group: str) -> None:
        """Takes one new item. Raises Refusal."""
        body = item.body
        self._check(item)
        objects = [self._placed(given, body.get("device", "")) for given in body["objects"]]
        account = body.get("account", "")
        if account:
            self._pending(account, 1)
        for given in objects:
            if given["kind"] == "subscription":
                self.desk.records.put(f"a/{given['object']}", {"system": item.system})
        undo = self._remember(body.get("know") or {}, item)
        more: dict[str, Any] = {"group": group, "left": len(objects), "request": body, "undo": undo, "tries": item.tries}
        self.desk.opened(item, mark, **more)
        again = f"{item.tries}." if item.tries else ""  # the master agent takes an id once
        for number, given in enumerate(objects):
            text = orjson.dumps(given["body"], option=orjson.OPT_SORT_KEYS).decode()
            entry = {
                "id": f"{item.key}#{again}{number}", "group": item.key if len(objects) > 1 else "", "action": given["action"],
                "kind": given["kind"], "object": given["object"], "from": given.get("from"), "to": given.get("to"), "body": text,
            }  # fmt: skip
            self._items.append(entry)

    def submit(self, system: str, protocol: str, at: int) -> None:
        """Hands what was taken to the master agent. Oracle's objects may name what comes later, others' may not."""
        if not self._items:
            return
        body = {
            "message": self.desk.turn.message.derive("master"), "source": system, "user": "", "at": at, "strict": protocol != "ccb",
            "answer": INBOX, "answer_partition": PARTITION, "items": self._items,
        }  # fmt: skip
        self.desk.write(MASTER, "MasterSubmission", body, system, PARTITION)
        self._items = []

    def switch(self, system: str, device: str, action: str, at: int, command: str) -> None:
        """A device was connected or disconnected: an event of its installation."""
        point = (self.device(device) or {}).get("point")
        if not point:
            return  # installed by somebody else's word: nothing is known of the place
        body = {"device": device, "event": action, "service_point": point}
        item = {"id": f"switch/{command}", "group": "", "action": "put", "kind": "install", "object": f"{device}/{action}/{at}",
                "from": at, "to": None, "body": orjson.dumps(body, option=orjson.OPT_SORT_KEYS).decode()}  # fmt: skip
        submission = {
            "message": self.desk.turn.message.derive("switch", command), "source": system, "user": "", "at": self.desk.now,
            "strict": False, "answer": "", "answer_partition": None, "items": [item],
        }  # fmt: skip
        self.desk.write(MASTER, "MasterSubmission", submission, system, PARTITION)

    def changed(self, body: dict[str, Any]) -> None:
        """What the master agent made of one object of an item."""
        key, _, _ = body["item"].rpartition("#")
        seen = self.desk.records.get(key)
        if seen is None or not seen["open"] or body["outcome"] == "parked":
            return  # parked: the answer comes when what it waits for is there
        if body["outcome"] == "refused":
            self._done(key, seen, _category(body["reason"]), body["reason"])
            return
        seen["left"] -= 1
        if seen["left"]:
            self.desk.records.put(key, seen)
        else:
            self._done(key, seen)

    def _done(self, key: str, seen: dict[str, Any], category: str = "", note: str = "") -> None:
        request = seen["request"]
        account = request.get("account", "")
        if account:
            self._pending(account, -1)
        if category:
            self._forget(seen.pop("undo"))
            item = Item(
                key, seen["id"], seen["system"], seen["protocol"], seen["kind"], seen["message"], seen["bulk"], self.desk.now, request,
                seen["tries"],
            )  # fmt: skip
            self.desk.refused(item, seen["mark"], Refusal(category, note))
        self.desk.settle(key, {"id": request.get("id", ""), "device": request.get("device", "")}, category, note)
        if category:
            return
        self._start_series(seen, request.get("know") or {})
        if seen["kind"] == "register" and seen["protocol"] == "sap":
            self._registered(seen, request)

    def _pending(self, account: str, change: int) -> None:
        key = f"y/{account}"
        count = (self.desk.records.get(key) or {"count": 0})["count"] + change
        self.desk.records.put(key, {"count": count} if count > 0 else None)

    def waiting(self, account: str) -> bool:
        """Whether master data of a usage subscription is still being taken."""
        return self.desk.records.get(f"y/{account}") is not None

    # --- what is remembered of devices ------------------------------------------------------------------------------------------

    def _remember(self, know: dict[str, Any], item: Item) -> dict[str, Any]:
        """Notes what an item says of a device, for the items behind it; what is needed to take it back."""
        name = know.get("device")
        if not name:
            return {}
        key = f"d/{name}"
        device = self.desk.records.get(key)
        if know.get("gone"):
            self.desk.records.put(key, None)
            return {"key": key, "before": device, "whole": True}
        before = device or {"channels": {}}
        device = orjson.loads(orjson.dumps(before))
        device["system"] = item.system
        told = {member: know[member] for member in ("ams", "point", "zone") if know.get(member) is not None or member == "point" in know}
        device.update(told)
        channels = know.get("channels") or {}
        device["channels"].update(channels)
        self.desk.records.put(key, device)
        return {
            "key": key, "before": {member: before.get(member) for member in told},
            "channels": {name: before["channels"].get(name) for name in channels}, "new": "system" not in before,
        }  # fmt: skip

    def _forget(self, undo: dict[str, Any]) -> None:
        """Takes back what was noted of a device for an item that was refused."""
        if not undo:
            return
        if undo.get("whole") or undo["new"]:
            self.desk.records.put(undo["key"], undo.get("before") if undo.get("whole") else None)
            return
        device = self.desk.records.get(undo["key"])
        if device is None:
            return
        for place, old in ((device, undo["before"]), (device["channels"], undo["channels"])):
            for member, value in old.items():
                if value is None:
                    place.pop(member, None)
                else:
                    place[member] = value
        self.desk.records.put(undo["key"], device)

    def _start_series(self, seen: dict[str, Any], know: dict[str, Any]) -> None:
        for series in know.get("series") or []:
            if self.desk.records.get(f"s/{series['id']}") is None:
                record = {**series, "system": seen["system"], "device": know["device"], "since": 0, "upto": 0, "due": self.desk.now}
                self.desk.records.put(f"s/{series['id']}", record)

    def system_of(self, account: str) -> str:
        """The system a usage subscription came from; empty: it came otherwise."""
        return str((self.desk.records.get(f"a/{account}") or {}).get("system", ""))

    def device(self, name: str) -> dict[str, Any] | None:
        """What is known of a device: system, ams, point, zone, channels (unit, decimals, dials, zone, task)."""
        return self.desk.records.get(f"d/{name}")

    def _check(self, item: Item) -> None:
        name = item.body.get("device", "")
        if item.kind in LOCKED and self.desk.records.get(f"k/{name}") is not None:
            raise Refusal(LRE, f"sums of device {name} are being worked out; its registers cannot change now")
        if item.kind == "device" and self.desk.records.get(f"d/{name}") is not None and item.protocol == "sap":
            raise Refusal(CVE, f"device {name} exists already")

    def _placed(self, given: dict[str, Any], device: str) -> dict[str, Any]:
        """An object that is about wherever the device is installed, with that place and its local days."""
        body = given["body"]
        single, several = body.get("service_point") == HERE, body.get("service_points") == [HERE]
        if not (single or several):
            return given
        device = body.get("device", device)
        known = self.device(device) or {}
        point, zone = known.get("point"), known.get("zone") or given.get("zone", "UTC")
        if not point:
            raise Refusal(IDE, f"device {device} is not installed anywhere: its location comes first")
        placed = {**given, "body": {**body, **({"service_point": point} if single else {"service_points": [point]})}}
        if "days" in given:
            placed["from"], placed["to"] = (midnight(zone, number) for number in given["days"])
        if "local" in given:
            day, clock = given["local"]
            placed["from"] = moment(zone, date.fromisoformat(day), clock)
            placed["object"] = f"{device}/{body['event']}/{placed['from']}"
        return placed

    # --- what SAP is told beside the answer ---------------------------------------------------------------------------------------

    def _registered(self, seen: dict[str, Any], request: dict[str, Any]) -> None:
        """The meter is known in the metering system now."""
        device = self.device(request["device"]) or {}
        if device.get("told"):
            return
        device["told"] = True
        self.desk.records.put(f"d/{request['device']}", device)
        body = {"device": request["device"], "ams": device.get("ams", "")}
        self.desk.tell(seen["system"], "sap", "registered", self.desk.turn.message.derive("registered", request["device"]), body)


def _category(reason: str) -> str:
    words = reason.lower()
    if "overlap" in words or "already" in words or "another" in words:
        return CVE
    if "does not exist" in words or "unknown" in words or "there is no" in words or "is not known" in words or "not there" in words:
        return IDE
    return VAE
