"""What prepaid accounts came to, handed over to the CIS their subscriptions came from: month by month, and anew when a month changes."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

from streams.enterprise.desk import CVE, IDE, Desk, Item, Refusal
from streams.enterprise.master_data import MasterData

TIMES: Final = 5  # a charge is told where nobody confirms it
SENT, CONFIRMED, REFUSED, BILLED, UNCONFIRMED = "SENT", "CONFIRMED", "REFUSED", "USED_ON_BILL", "UNCONFIRMED"
_ACTS: Final = {"accept": CONFIRMED, "reject": REFUSED, "used-on-bill": BILLED}


class Charges:
    """One record per system, account and billing month: ``b/<system>/<account>/<month>``, and under ``e/`` which one an id is of."""

    def __init__(self, desk: Desk, master: MasterData) -> None:
        self.desk, self.master = desk, master

    def charged(self, body: dict[str, Any]) -> None:
        """A month is over, or what it came to has changed: each version replaces the one before as a whole."""
        name = self.master.system_of(body["account"])
        system = self.desk.settings.systems.get(name)
        if system is None or not system.charges or system.protocol not in ("sap", "ccb"):
            return
        key = f"b/{name}/{body['account']}/{body['month']}"
        record = self.desk.records.get(key) or {}
        words = _words(body, record.get("amounts", {}), record.get("id", ""))
        record |= {
            "system": name, "protocol": system.protocol, "kind": "prepaid-charge", "subject": f"{body['account']}/{body['month']}",
            "account": body["account"], "device": body["device"], "id": body["id"], "charge": words, "times": 0,
            "amounts": {line["component"]: line["amount"] for line in words["lines"]},
        }  # fmt: skip
        self.desk.records.put(f"e/{name}/{body['id']}", {"key": key, "due": self.desk.now + self.desk.settings.remember})
        self._send(key, record)

    def _send(self, key: str, record: dict[str, Any]) -> None:
        record["times"] += 1
        words = record["charge"]
        self.desk.tell(record["system"], record["protocol"], "charge", words["id"], words, bulk=record["protocol"] == "sap")
        self.desk.note(record, SENT, charge=words["id"], version=words["version"], total=words["total"], currency=words["currency"])
        wait = self.desk.settings.charge_wait if record["protocol"] == "sap" else self.desk.settings.remember
        self.desk.records.put(key, {**record, "due": self.desk.now + wait})

    def due(self, key: str, record: dict[str, Any]) -> None:
        """Tells SAP again what it did not confirm; a month that has long been settled is forgotten."""
        if record["state"] != SENT or record["protocol"] != "sap":
            self.desk.records.put(key, None)
        elif record["times"] < TIMES:
            self._send(key, record)
        else:
            self._settle(key, record, UNCONFIRMED, charge=record["id"], times=record["times"])

    def confirmed(self, system: str, id: str, category: str, note: str) -> None:
        """SAP says what it made of a charge. What is said of an older version than the last one told changes nothing."""
        found = self._found(system, id)
        if found is not None and found[1]["state"] in (SENT, UNCONFIRMED):
            self._settle(*found, REFUSED if category else CONFIRMED, charge=id, category=category, note=note)

    def decided(self, item: Item, mark: str) -> None:
        """CC&B says that a charge was taken, refused, or stands on a bill. Raises Refusal."""
        found = self._found(item.system, item.body["charge"])
        if found is None:
            raise Refusal(IDE, f"there is no charge {item.body['charge']}, or a newer version was told")
        if found[1]["state"] == BILLED and item.body["action"] == "reject":
            raise Refusal(CVE, f"charge {item.body['charge']} is on a bill")
        self._settle(*found, _ACTS[item.body["action"]], charge=item.body["charge"], bill=item.body["bill"], note=item.body["note"])
        self.desk.opened(item, mark)
        self.desk.settle(item.key, {"charge": item.body["charge"]}, note="noted")

    def _found(self, system: str, id: str) -> tuple[str, dict[str, Any]] | None:
        key = (self.desk.records.get(f"e/{system}/{id}") or {}).get("key", "")
        record = self.desk.records.get(key) if key else None
        return (key, record) if record is not None and record["id"] == id else None

    def _settle(self, key: str, record: dict[str, Any], state: str, **detail: Any) -> None:
        self.desk.note(record, state, **detail)
        self.desk.records.put(key, {**record, "due": self.desk.now + self.desk.settings.remember})


def _words(body: dict[str, Any], before: dict[str, str], replaces: str) -> dict[str, Any]:
    """A charge as messages tell it: amounts as decimal text, with what each differs by from the version before."""

    def text(whole: int | Decimal) -> str:
        return f"{Decimal(whole).scaleb(-body['digits']):f}"

    amounts = {line["component"]: line for line in body["lines"]}
    lines = [
        {
            "kind": line["kind"], "component": name, "amount": text(line["amount"]),
            "change": text(line["amount"] - _whole(before.get(name, "0"), body["digits"])),
        }
        for name, line in amounts.items()
    ]  # fmt: skip
    gone = [name for name, amount in before.items() if name not in amounts and Decimal(amount)]
    lines += [
        {"kind": "TRUE_UP", "component": name, "amount": text(0), "change": text(-_whole(before[name], body["digits"]))} for name in gone
    ]
    names = ("id", "account", "service_point", "device", "month", "first", "last", "version", "tariff", "currency", "provisional", "unit")
    quantities = [{"tou": one["tou"], "quantity": f"{one['quantity']:f}"} for one in body["quantities"]]
    return {name: body[name] for name in names} | {
        "replaces": replaces, "total": text(body["total"]), "lines": lines, "quantities": quantities,
    }  # fmt: skip


def _whole(text: str, digits: int) -> int:
    return int(Decimal(text).scaleb(digits))
