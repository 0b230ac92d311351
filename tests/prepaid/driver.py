"""A prepaid fold on its own: messages in by hand, records out, and what a ledger says of itself checked at every step."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson

from schemas.codec import Codec
from schemas.topology.prepaid import PrepaidSettings
from streams import calendar
from streams.prepaid.fold import TOPICS, PrepaidFold
from streams.prepaid.ledger import chain_hash
from streams.runtime.fold import Message

CODEC = Codec()
ZONE = "Europe/Berlin"
TARIFF = {"id": "home", "versions": [{"rate": "0.30"}]}


def settings(**change: Any) -> PrepaidSettings:
    """Settings with one tariff of 0.30 EUR/kWh for everybody."""
    return PrepaidSettings.model_validate({"tariffs": [TARIFF], "assign": [{"tariff": "home"}]} | change)


def second(text: str, zone: str = ZONE) -> int:
    """UTC second of a local wall-clock time."""
    from zoneinfo import ZoneInfo

    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp())


class Driver:
    """One fold and everything it wrote, by record type. Every record is written and read as Kafka would have it."""

    def __init__(self, of: PrepaidSettings, *, at: str = "2026-03-01T12:00", zone: str = ZONE) -> None:
        self.settings, self.zone = of, zone
        self.fold = PrepaidFold(of, zone, 0)
        self.rows: dict[bytes, bytes | None] = {}
        self.said: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.log: list[tuple[str, dict[str, Any]]] = []
        self.last: dict[str, list[dict[str, Any]]] = {}
        self.number = 0
        self.tick(at)

    def give(self, kind: str, body: dict[str, Any]) -> None:
        """Folds one message in and keeps what it led to."""
        self.number += 1
        result = self.fold.apply(Message(kind, body, f"m{self.number}"))
        self.rows.update(self.fold.state.take_changed())
        self.last = defaultdict(list)
        for output in result.outputs:
            assert output.topic == TOPICS[output.type]
            record = CODEC.decode(CODEC.encode(output.type, output.body))
            self.said[output.type].append(record)
            self.log.append((output.type, record))
            self.last[output.type].append(record)

    def restart(self) -> None:
        """A new fold from the state topic."""
        self.fold = PrepaidFold(self.settings, self.zone, 0)
        for key, value in self.rows.items():
            self.fold.state.load(key, value)

    def tick(self, at: str | int) -> None:
        """Time goes on to a local time."""
        self.now = second(at, self.zone) if isinstance(at, str) else at
        self.give("Tick", {"at": self.now, "close": False})

    def ask(self, action: str, account: str = "a1", *, id: str = "", **fields: Any) -> dict[str, Any]:
        """A request; its outcome."""
        terms = fields.pop("terms", None)
        blank = {"amount": None, "channel": "", "reference": "", "reason": "", "user": "clerk", "approver": ""}
        body = blank | fields | {"terms": orjson.dumps(terms).decode() if terms else ""}
        self.give("PrepaidRequest", {"id": id or f"r{self.number}", "account": account, "action": action} | body)
        return self.last["PrepaidOutcome"][-1]

    def use(self, day: str, quantity: str, account: str = "a1", **fields: Any) -> None:
        """Tells a usage event of a whole local day; ``fields`` as of :meth:`event`."""
        self.give("UsageBatch", {"events": [self.event(day, quantity, account, **fields)]})

    def event(
        self, day: str, quantity: str, account: str = "a1", *, version: int = 1, tou: dict[str, str] | None = None, **fields: Any
    ) -> dict[str, Any]:
        """A usage event of a whole local day."""
        number = (date.fromisoformat(day) - date(1970, 1, 1)).days
        start, end = (datetime.fromtimestamp(int(calendar.start_of(self.zone, n)), UTC) for n in (number, number + 1))
        lines = [{"tou": name, "quantity": Decimal(part)} for name, part in (tou or {"": quantity}).items()]
        body = {
            "id": f"u/{account}/{day}/{version}/{fields.get('device', 'd1')}", "account": account, "service_point": "sp1", "device": "d1",
            "channel": "1.8.0", "direction": "delivered", "zone": self.zone, "measure": "interval", "grain": "day", "day": day,
            "start": start, "end": end, "unit": "kWh", "quantity": Decimal(quantity), "lines": lines, "condition": 500_000, "slots": 96,
            "actual": 96, "estimated": 0, "missing": 0, "provisional": False, "status": "final", "version": version, "replaces": "",
            "demand": None, "demand_seconds": 0, "demand_end": None,
        }  # fmt: skip
        return body | fields

    def days(self, first: str, count: int) -> list[str]:
        """ISO dates from one on."""
        begin = date.fromisoformat(first)
        return [(begin + timedelta(days=n)).isoformat() for n in range(count)]

    def reply(self, status: str = "done", command: str = "", **fields: Any) -> None:
        """An answer of the device to the last command, or to the one named."""
        id = command or self.said["DeviceCommand"][-1]["id"]
        self.give("DeviceReply", {"command": id, "device": "d1", "status": status, "at": self.now, "code": "", "detail": ""} | fields)

    def account(self, account: str = "a1") -> dict[str, Any]:
        """The account as told last."""
        return next(record for record in reversed(self.said["PrepaidAccount"]) if record["account"] == account)

    def kinds(self) -> list[str]:
        """Kinds of all postings, in order."""
        return [posting["kind"] for posting in self.said["Posting"]]

    def notices(self) -> list[str]:
        """Kinds and levels of all notices, in order."""
        return [f"{notice['kind']} {notice['level']}".strip() for notice in self.said["PrepaidNotice"]]

    def check(self) -> None:
        """Everything a ledger must be, worked out from its postings alone."""
        balances: dict[str, int] = defaultdict(int)
        hashes: dict[str, str] = defaultdict(str)
        numbers: dict[str, int] = defaultdict(int)
        ids = [posting["id"] for posting in self.said["Posting"]]
        assert len(ids) == len(set(ids)), "a posting twice"
        for posting in self.said["Posting"]:
            account = posting["account"]
            assert posting["amount"] > 0
            balances[posting["debit"]] -= posting["amount"]
            balances[posting["credit"]] += posting["amount"]
            numbers[account] += 1
            assert posting["sequence"] == numbers[account]
            assert posting["balance"] == balances[f"customer:{account}"]
            assert posting["previous"] == hashes[account]
            assert posting["hash"] == chain_hash(hashes[account], posting)
            hashes[account] = posting["hash"]
        assert sum(balances.values()) == 0
        table = self.fold.accounts.table
        for row, account in enumerate(table.keys):
            assert table["balance"][row] == balances[f"customer:{account}"]
            assert table["debt"][row] == -balances[f"debt:{account}"]
            assert table["owed"][row] == -balances[f"emergency:{account}"]
        proof = self.fold.ledger.proof(0, self.now)
        assert proof["holds"], proof["detail"]
        ids = [notice["id"] for notice in self.said["PrepaidNotice"]]
        assert len(ids) == len(set(ids)), "a notice twice"
