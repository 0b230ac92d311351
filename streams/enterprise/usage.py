"""Usage requests of Oracle CC&B: from the request over master data and determinants to what was used on a bill, and corrections of it.

States: PENDING, AWAITING_DATA_SYNC, SEND_REQUEST, AWAITING_BILL_DETERMINANTS, BD_RECEIVED, USED_ON_BILL; ERROR, TIMEOUT, DISCARDED.
"""

from __future__ import annotations

from typing import Any

import orjson

from schemas.identity import identity
from streams.enterprise.desk import CVE, IDE, VAE, Desk, Item, Refusal
from streams.enterprise.master_data import MasterData
from streams.enterprise.readings import VEE

OPEN = frozenset(("PENDING", "AWAITING_DATA_SYNC", "SEND_REQUEST", "AWAITING_BILL_DETERMINANTS"))
GIVEN = frozenset(("BD_RECEIVED", "USED_ON_BILL"))


class Usage:
    """Usage requests by the CIS's own id."""

    def __init__(self, desk: Desk, master: MasterData) -> None:
        self.desk, self.master = desk, master

    def request(self, item: Item, mark: str) -> None:
        """Takes a request. Raises Refusal."""
        body = item.body
        key = f"q/{item.system}/{body['usage']}"
        old = self.desk.records.get(key)
        if old is not None and old["state"] in OPEN | GIVEN:
            raise Refusal(CVE, f"usage request {body['usage']} is {old['state']}")
        if body["end"] <= body["start"]:
            raise Refusal(VAE, "the end must lie behind the start")
        record = {
            "system": item.system, "protocol": item.protocol, "kind": "usage-request", "subject": body["usage"], "account": body["account"],
            "start": body["start"], "end": body["end"], "asked_at": self.desk.now, "version": (old or {}).get("version", 0),
            "given": 0, "due": self.desk.now,
        }  # fmt: skip
        self.desk.note(record, "PENDING", start=body["start"], end=body["end"])
        self.desk.opened(item, mark)
        self.desk.settle(item.key, {"usage": body["usage"]}, note="the request is taken")
        self.desk.records.put(key, record)
        self.due(key, record)

    def used(self, item: Item, mark: str) -> None:
        """The determinants stand on a bill now: what differs later is a correction. Raises Refusal."""
        key, record = self._record(item)
        if record["state"] not in GIVEN:
            raise Refusal(CVE, f"usage request {record['subject']} is {record['state']}: nothing was sent that could be on a bill")
        if record["state"] != "USED_ON_BILL" or record.get("billed") != record["given"]:
            bill = item.body.get("bill", "")
            self.desk.note(record, "USED_ON_BILL", bill=bill, given=record["given"])
            self._billed(record, item, bill)
            self.desk.records.put(key, record)
        self.desk.opened(item, mark)
        self.desk.settle(item.key, {"usage": record["subject"]}, note="noted")

    def _billed(self, record: dict[str, Any], item: Item, bill: str) -> None:
        """Tells the determinants agent what stands on the bill, so that what corrects it is known as a correction."""
        record["billed"] = record["given"]
        account = record["account"]
        for place, (usage, device, channel, unit, kind, tou, version) in enumerate(record.get("told", [])):
            body = {
                "id": self.desk.turn.message.derive("billed", item.id, place), "account": account, "usage": usage, "version": version,
                "bill": bill, "user": item.system, "device": device, "channel": channel, "unit": unit, "start": record["start"],
                "subject": "" if usage else identity(account, device, channel, unit, record["start"], kind, tou),
            }  # fmt: skip
            self.desk.write(VEE, "UsedOnBill", body, account)

    def discard(self, item: Item, mark: str) -> None:
        """The CIS does not want it any more. Raises Refusal."""
        key, record = self._record(item)
        if record["state"] == "USED_ON_BILL":
            raise Refusal(CVE, f"usage request {record['subject']} is on a bill")
        self.desk.note(record, "DISCARDED")
        self.desk.records.put(key, {**record, "due": self.desk.now + self.desk.settings.remember})
        self.desk.opened(item, mark)
        self.desk.settle(item.key, {"usage": record["subject"]}, note="discarded")

    def _record(self, item: Item) -> tuple[str, dict[str, Any]]:
        key = f"q/{item.system}/{item.body['usage']}"
        record = self.desk.records.get(key)
        if record is None:
            raise Refusal(IDE, f"there is no usage request {item.body['usage']}")
        return key, record

    def due(self, key: str, record: dict[str, Any]) -> None:
        """Takes a request on as far as it goes; compares what was given with what the store says now."""
        now, settings = self.desk.now, self.desk.settings
        state = record["state"]
        if state in ("PENDING", "AWAITING_DATA_SYNC"):
            if self.master.waiting(record["account"]):
                if now >= record["asked_at"] + settings.sync_wait:
                    self._end(key, record, "ERROR", "master data of the subscription did not come")
                    return
                if state == "PENDING":
                    self.desk.note(record, "AWAITING_DATA_SYNC")
                self.desk.records.put(key, {**record, "due": now + settings.ask})
                return
            self.desk.note(record, "SEND_REQUEST")
            self.desk.note(record, "AWAITING_BILL_DETERMINANTS", until=self._deadline(record))
            self.desk.records.put(key, {**record, "due": max(now, record["end"])})
        elif state == "AWAITING_BILL_DETERMINANTS":
            self._ask(key, record, now >= self._deadline(record))
            self.desk.records.put(key, {**record, "due": now + settings.ask})
        elif state in GIVEN and now < record["given_at"] + settings.corrections:
            self._ask(key, record, False)
            self.desk.records.put(key, {**record, "due": now + settings.recheck})
        elif now < record.get("given_at", record["asked_at"]) + settings.remember:
            self.desk.records.put(key, {**record, "due": record.get("given_at", record["asked_at"]) + settings.remember})
        else:
            self.desk.records.put(key, None)

    def _deadline(self, record: dict[str, Any]) -> int:
        return int(max(record["end"], record["asked_at"]) + self.desk.settings.usage_wait)

    def _ask(self, key: str, record: dict[str, Any], last: bool) -> None:
        asked = {name: record[name] for name in ("account", "start", "end")}
        self.desk.ask("determinants", {**asked, "key": key, "last": last})

    def _end(self, key: str, record: dict[str, Any], state: str, why: str) -> None:
        self.desk.note(record, state, reason=why)
        body = {"usage": record["subject"], "account": record["account"], "state": state, "reason": why}
        self.desk.tell(record["system"], record["protocol"], "usage-failed", self.desk.turn.message.derive(state, key), body, bulk=False)
        self.desk.records.put(key, {**record, "due": self.desk.now + self.desk.settings.remember})

    def answered(self, asked: dict[str, Any], found: dict[str, Any] | None) -> None:
        """Gives determinants out, or tells what changed in what was given."""
        key = asked["key"]
        record = self.desk.records.get(key)
        if record is None:
            return
        if record["state"] == "AWAITING_BILL_DETERMINANTS":
            if found:
                self._give(key, record, found["determinants"])
            elif asked["last"]:
                self._end(key, record, "TIMEOUT", "no bill determinants were there in time")
        elif record["state"] in GIVEN and found:
            self._compare(key, record, found["determinants"])

    def _give(self, key: str, record: dict[str, Any], determinants: list[dict[str, Any]], corrects: int = 0, reason: str = "") -> None:
        given = record["given"] + 1
        quantities = {_name(entry): entry["quantity"] for entry in determinants}
        before = record.get("quantities", {})
        changes = [
            {"name": orjson.loads(name), "old": before.get(name), "new": quantities.get(name)}
            for name in sorted(set(before) | set(quantities))
            if corrects and before.get(name) != quantities.get(name)
        ]
        body = {
            "usage": record["subject"], "account": record["account"], "start": record["start"], "end": record["end"],
            "version": given, "corrects": corrects, "reason": reason, "determinants": determinants, "changes": changes,
        }  # fmt: skip
        id_ = identity("usage", record["system"], record["subject"], given)
        kind = "usage-correction" if corrects else "usage"
        self.desk.tell(record["system"], record["protocol"], kind, id_, body, bulk=False)
        record.update(given=given, given_at=record.get("given_at", self.desk.now), quantities=quantities, told=_told(determinants))
        if not corrects:
            self.desk.note(record, "BD_RECEIVED", version=given, determinants=len(determinants), reason=reason)
        else:
            self.desk.note(record, record["state"], version=given, corrects=corrects, changed=len(changes))
        self.desk.records.put(key, {**record, "due": self.desk.now + self.desk.settings.recheck})

    def _compare(self, key: str, record: dict[str, Any], determinants: list[dict[str, Any]]) -> None:
        """What is on a bill is corrected and says what it corrects; what is not is given anew."""
        if {_name(entry): entry["quantity"] for entry in determinants} == record["quantities"]:
            return
        if record["state"] == "USED_ON_BILL":
            self._give(key, record, determinants, record["given"], "final measurements changed")
        else:
            self._give(key, record, determinants, 0, "worked out again before it was on a bill")


def _name(entry: dict[str, Any]) -> str:
    return orjson.dumps([entry[part] for part in ("device", "channel", "kind", "name", "tou", "unit")]).decode()


def _told(determinants: list[dict[str, Any]]) -> list[list[Any]]:
    """What of determinants a bill can stand on: usage as a whole once, channels' determinants each. Sums of days are no determinants."""
    usages = {entry["usage"]: entry["version"] for entry in determinants if entry["usage"]}
    single = [
        ["", *(entry[part] for part in ("device", "channel", "unit", "kind", "tou", "version"))]
        for entry in determinants
        if entry["version"] and not entry["usage"]
    ]
    return [*([usage, "", "", "", "", "", version] for usage, version in sorted(usages.items())), *single]
