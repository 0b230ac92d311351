"""Connection status changes: a request becomes one command per device, and is confirmed when every device has replied or time is up."""

from __future__ import annotations

from typing import Any

from schemas.identity import identity
from streams.enterprise.desk import COMMANDS, CVE, IDE, Desk, Item, Refusal
from streams.enterprise.master_data import MasterData

DONE, NOT_DONE = "1", "2"  # UtilitiesConnectionStatusChangeResultCode


class Connections:
    """Requests by the CIS's own id, and the commands they became."""

    def __init__(self, desk: Desk, master: MasterData) -> None:
        self.desk, self.master = desk, master

    def request(self, item: Item, mark: str) -> None:
        """Takes a request; it is confirmed when it has been carried out. Raises Refusal."""
        body = item.body
        key = f"x/{item.system}/{body['request']}"
        if self.desk.records.get(key) is not None:
            raise Refusal(CVE, f"connection request {body['request']} exists already")
        unknown = [name for name in body["devices"] if item.protocol == "sap" and self.master.device(name) is None]
        if unknown:
            raise Refusal(IDE, f"there is no device {unknown[0]}")
        planned = body.get("planned") or 0
        record = {
            "system": item.system, "protocol": item.protocol, "kind": "connection", "subject": body["request"],
            "device": body["devices"][0], "devices": dict.fromkeys(body["devices"]), "action": body["action"], "item": item.key,
            "category": body.get("category", ""), "reason": body.get("reason", ""), "due": max(planned, self.desk.now),
            "ams": body.get("ams", {}),
        }  # fmt: skip
        self.desk.opened(item, mark)
        if planned > self.desk.now:
            self.desk.note(record, "planned", planned=planned)
            self.desk.records.put(key, record)
        else:
            self._send(key, record)

    def text(self, item: Item, mark: str) -> None:
        """Something to be shown by the device."""
        body = item.body
        command = identity("command", item.system, "text", item.id)
        ends = body.get("end") or self.desk.now + self.desk.settings.connection_wait
        self._command(command, body["device"], "text", ends, item.system, "", item.id, body["text"])
        self.desk.opened(item, mark)
        self.desk.settle(item.key, {"id": body["id"]}, note="sent to the device")

    def _send(self, key: str, record: dict[str, Any]) -> None:
        ends = self.desk.now + self.desk.settings.connection_wait
        for device in record["devices"]:
            command = identity("command", record["system"], record["subject"], device)
            self._command(command, device, record["action"], ends, record["system"], record["reason"], record["subject"])
            self.desk.records.put(f"m/{command}", {"key": key, "due": ends + self.desk.settings.remember})
        record["due"] = ends
        self.desk.note(record, "sent", until=ends)
        self.desk.records.put(key, record)

    def _command(self, id: str, device: str, action: str, ends: int, by: str, reason: str, reference: str, text: str = "") -> None:
        body = {
            "id": id, "device": device, "action": action, "issued_at": self.desk.now, "expires_at": ends, "by": by, "reason": reason,
            "reference": reference, "text": text, "limit": None,
        }  # fmt: skip
        self.desk.write(COMMANDS, "DeviceCommand", body, device)

    def due(self, key: str, record: dict[str, Any]) -> None:
        """Sends a planned request; gives up on one that was sent; forgets one that ended long ago."""
        if record["state"] == "planned":
            self._send(key, record)
        elif record["state"] == "sent":
            open_ = [name for name, reply in record["devices"].items() if reply is None]
            for name in open_:
                record["devices"][name] = {"ok": False, "at": self.desk.now, "note": "no reply in time"}
            self._decide(key, record)
        else:
            self.desk.records.put(key, None)

    def cancel(self, item: Item, mark: str) -> None:
        """Withdraws a request that has not been sent yet. Raises Refusal."""
        key = f"x/{item.system}/{item.body['request']}"
        record = self.desk.records.get(key)
        if record is None:
            raise Refusal(IDE, f"there is no connection request {item.body['request']}")
        if record["state"] != "planned":
            raise Refusal(CVE, f"connection request {item.body['request']} is {record['state']} already")
        self.desk.note(record, "cancelled")
        self.desk.records.put(key, {**record, "due": self.desk.now + self.desk.settings.remember})
        self.desk.opened(item, mark)
        self.desk.settle(item.key, {"id": item.body["request"]}, note="the request is cancelled")
        self.desk.settle(record["item"], {"request": record["subject"], "category": record["category"], "devices": []},
                         CVE, "cancelled before it was carried out")  # fmt: skip

    def replied(self, body: dict[str, Any]) -> None:
        """A head end says what became of a command. ``accepted`` is no outcome; a late outcome is noted and told."""
        link = self.desk.records.get(f"m/{body['command']}")
        record = self.desk.records.get(link["key"]) if link else None
        if link is None or record is None or body["status"] not in ("done", "failed") or body["device"] not in record["devices"]:
            return
        before = record["devices"][body["device"]]
        ok = body["status"] == "done"
        if before is not None and (before["ok"] or not ok):
            return  # said before; a failure after success is about a repetition
        record["devices"][body["device"]] = {"ok": ok, "at": body["at"], "note": body["detail"] or body["code"]}
        if ok:  # VEE then expects no consumption, or some again
            self.master.switch(record["system"], body["device"], record["action"], body["at"], body["command"])
        if record["state"] == "sent" and all(reply is not None for reply in record["devices"].values()):
            self._decide(link["key"], record)
        elif record["state"] != "sent":
            self._late(link["key"], record, body)
        else:
            self.desk.records.put(link["key"], record)

    def _decide(self, key: str, record: dict[str, Any]) -> None:
        failed = {name: reply["note"] for name, reply in record["devices"].items() if not reply["ok"]}
        record["due"] = self.desk.now + self.desk.settings.remember
        self.desk.note(record, "failed" if failed else "confirmed", devices=record["devices"])
        self.desk.records.put(key, record)
        note = "; ".join(f"{name}: {note or 'not carried out'}" for name, note in failed.items())
        self.desk.settle(record["item"], self._body(record), "PRE" if failed else "", note or "carried out")

    @staticmethod
    def _body(record: dict[str, Any]) -> dict[str, Any]:
        devices = [
            {"device": name, "ams": record["ams"].get(name, ""), "at": reply["at"], "code": DONE if reply["ok"] else NOT_DONE}
            for name, reply in record["devices"].items()
            if reply is not None
        ]
        return {"request": record["subject"], "category": record["category"], "devices": devices}

    def _late(self, key: str, record: dict[str, Any], body: dict[str, Any]) -> None:
        """Carried out after it had been given up: what was confirmed stays, the CIS hears of it as an event."""
        self.desk.note(record, "late", device=body["device"], at=body["at"])
        self.desk.records.put(key, record)
        if record["protocol"] == "sap":
            text = f"connection request {record['subject']}: {record['action']} of {body['device']} was carried out after it was given up"
            self.desk.trouble(record["system"], record["subject"], body["device"], body["at"], text)
