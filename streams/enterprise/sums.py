"""Sums over profiles: a calculation request is asked of the store from the end of its period on, and answered once.

While one is open, another for the same billing order or series is refused as locked, and so are changes of the device's registers.
"""

from __future__ import annotations

from typing import Any

from streams.enterprise.desk import CVE, IDE, LRE, PRE, VAE, Desk, Item, Refusal
from streams.enterprise.local import midnight
from streams.enterprise.master_data import MasterData


class Sums:
    """Calculation requests by the CIS's own id."""

    def __init__(self, desk: Desk, master: MasterData) -> None:
        self.desk, self.master = desk, master

    def request(self, item: Item, mark: str) -> None:
        """Takes a request; its confirmation holds the sums. Raises Refusal."""
        body = item.body
        key = f"z/{item.system}/{body['calculation']}"
        if self.desk.records.get(key) is not None:
            raise Refusal(CVE, f"calculation {body['calculation']} exists already")
        device = self.master.device(body["device"])
        if device is None:
            raise Refusal(IDE, f"there is no device {body['device']}")
        known = device["channels"].get(body["channel"])
        if known is None:
            raise Refusal(IDE, f"device {body['device']} has no register {body['channel']}")
        zone = known.get("zone") or device.get("zone") or body["zone"]
        start, end = (midnight(zone, number) for number in body["days"])
        if start is None or end is None:
            raise Refusal(VAE, "the period must lie between 1970 and 2100")
        locks = [f"l/{item.system}/{kind}/{body[kind]}" for kind in ("order", "series") if body.get(kind)]
        held = next((lock for lock in locks if self.desk.records.get(lock) is not None), None)
        if held is not None:
            raise Refusal(LRE, f"calculation {(self.desk.records.get(held) or {}).get('by')} is still open for this order or series")
        for lock in locks:
            self.desk.records.put(lock, {"by": body["calculation"]})
        self._count(body["device"], 1)
        record = {
            "system": item.system, "protocol": item.protocol, "kind": "calculation", "subject": body["calculation"], "item": item.key,
            "device": body["device"], "channel": body["channel"], "series": body["series"], "start": start, "end": end, "zone": zone,
            "rule": body["rule"], "locks": locks, "deadline": end + self.desk.settings.calculation_wait,
            "due": max(self.desk.now, end),
        }  # fmt: skip
        self.desk.opened(item, mark)
        self.desk.note(record, "waiting", start=start, end=end)
        self.desk.records.put(key, record)

    def cancel(self, item: Item, mark: str) -> None:
        """Withdraws an open request, or a finished one so that it can be made again. Raises Refusal."""
        key = f"z/{item.system}/{item.body['calculation']}"
        record = self.desk.records.get(key)
        if record is None:
            raise Refusal(IDE, f"there is no calculation {item.body['calculation']}")
        was = record["state"]
        self._close(key, record, "cancelled")
        self.desk.records.put(key, None)
        self.desk.opened(item, mark)
        self.desk.settle(item.key, {"id": item.body["calculation"]}, note="the calculation is cancelled")
        if was == "waiting":
            self.desk.settle(record["item"], None, CVE, "cancelled before it was worked out")

    def due(self, key: str, record: dict[str, Any]) -> None:
        """Asks the store; forgets a calculation that ended long ago."""
        if record["state"] != "waiting":
            self.desk.records.put(key, None)
            return
        last = self.desk.now >= record["deadline"]
        asked = {name: record[name] for name in ("device", "channel", "start", "end", "rule")}
        self.desk.ask("sum", {**asked, "key": key, "last": last})
        self.desk.records.put(key, {**record, "due": self.desk.now + self.desk.settings.ask})

    def answered(self, asked: dict[str, Any], found: dict[str, Any] | None) -> None:
        """Gives sums out when every interval is final, or as they are when time is up."""
        key = asked["key"]
        record = self.desk.records.get(key)
        if record is None or record["state"] != "waiting" or not (asked["last"] or (found and found["complete"])):
            return
        if not found:
            self._close(key, record, "failed")
            self.desk.settle(record["item"], None, PRE, f"no final measurements of {record['device']} {record['channel']} in the period")
            return
        body = {
            "calculation": record["subject"], "series": record["series"], "unit": found["unit"], "zone": record["zone"],
            "start": record["start"],
            "end": record["end"], "sums": found["sums"],
        }  # fmt: skip
        self._close(key, record, "confirmed", complete=found["complete"])
        note = "worked out" if found["complete"] else f"worked out with {found['missing']} intervals missing"
        self.desk.settle(record["item"], body, "", note)

    def _close(self, key: str, record: dict[str, Any], state: str, **detail: Any) -> None:
        if record["state"] == "waiting":
            for lock in record["locks"]:
                self.desk.records.put(lock, None)
            self._count(record["device"], -1)
        self.desk.note(record, state, **detail)
        self.desk.records.put(key, {**record, "due": self.desk.now + self.desk.settings.remember})

    def _count(self, device: str, change: int) -> None:
        key = f"k/{device}"
        count = (self.desk.records.get(key) or {"count": 0})["count"] + change
        self.desk.records.put(key, {"count": count} if count else None)
