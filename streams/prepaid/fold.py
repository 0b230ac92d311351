"""The prepaid agent: usage events, requests, device replies, master data and ticks in; postings, notices, commands and accounts out."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import numpy as np
import orjson

from schemas.identity import identity
from schemas.topology.prepaid import PrepaidSettings
from streams import calendar
from streams.prepaid.accounts import CLOSED, STATES, Accounts, make_table
from streams.prepaid.billing import Billing
from streams.prepaid.ledger import Ledger, time_of
from streams.prepaid.requests import Requests
from streams.prepaid.supply import Outputs, Supply
from streams.runtime.fold import Message, Output, Result
from streams.runtime.state import LayoutError, State

TOPICS: Final = {
    "Posting": "prepaid.ledger",
    "PrepaidNotice": "prepaid.notices",
    "PrepaidAccount": "prepaid.accounts",
    "PrepaidOutcome": "prepaid.outcomes",
    "PrepaidProof": "prepaid.proofs",
    "PrepaidCharge": "enterprise.inbox",
    "DeviceCommand": "device.commands",
}
CONVERSATIONS: Final = 0  # the partition in which the enterprise agent has all its conversations
HOUR: Final = 3600
DAY: Final = 86_400
NOW: Final = "now"
CYCLE: Final = "cycle"  # the cycle days that have held until now
STOPPED: Final = "stopped"
MOST_DAYS: Final = 800  # of one account charged by one tick, after a long silence


class PrepaidFold:
    """Folds the prepaid inbox of one partition.

    Time is that of the last tick. Where the hourly proof fails, nothing is posted until someone says ``resume``: messages wait in the
    state, ingest goes on.
    """

    def __init__(self, settings: PrepaidSettings, zone: str, partition: int) -> None:
        self.settings, self.partition = settings, partition
        self.state = State(make_table, verify=self._verify)
        self.accounts = Accounts(self.state)
        self.ledger = Ledger(self.accounts, settings.currency.code)
        self.billing = Billing(settings, self.accounts, self.ledger)
        self.supply = Supply(settings, self.accounts, self.billing, partition)
        self.requests = Requests(settings, self.accounts, self.ledger, self.billing, self.supply, zone)

    def _verify(self) -> None:
        held = self.accounts.get(CYCLE)
        if held is not None and held != self.billing.months.settled(_begun(self.now)):
            raise LayoutError(
                "prepaid.cycle_day and cycle_changes: what held until now is other than before, and charges are kept by month: "
                "leave it as it was and add a change whose `from` lies ahead"
            )

    @property
    def now(self) -> int:
        """UTC seconds of the last tick."""
        return int(self.state.entries.get(NOW, b"0"))

    def apply(self, message: Message) -> Result:
        """Folds one message in."""
        result = Result()
        if message.type == "Tick":
            self._tick(message, result)
        elif self.accounts.get(STOPPED):
            self._wait(message, result)
        else:
            self._one(message.type, message.body, result)
        return result

    def _one(self, kind: str, body: dict[str, Any], result: Result) -> None:
        if kind == "UsageBatch":
            for event in body["events"]:
                self._usage(event, result)
        elif kind == "PrepaidRequest":
            self._request(body, result)
        elif kind == "DeviceReply":
            self._reply(body, result)
        elif kind == "UsageSubscription":
            self._subscription(body, result)

    # --- messages -----------------------------------------------------------------------------------------------------------------

    def _usage(self, event: dict[str, Any], result: Result) -> None:
        row = self.accounts.row(event["account"])
        if row is None:
            return
        table, before = self.accounts.table, int(self.accounts.table["measured"][row])
        postings, refused = self.billing.usage(event, self.now)
        if refused:
            outcome = {"id": event["id"], "account": event["account"], "at": time_of(self.now), "action": "usage", "status": "refused"}
            figures = {"posting": "", "command": "", "balance": int(table["balance"][row]), "state": STATES[table["state"][row]]}
            self._write(result, [("PrepaidOutcome", outcome | {"detail": refused} | figures)])
            return
        measured = int(table["measured"][row])
        if measured > before and table.text["trouble"][row].startswith("disconnect"):
            table.text["trouble"][row] = ""  # the meter is heard again
        if not postings and measured == before:
            return
        if table["state"][row] == CLOSED:
            postings += self.requests.hand_over(row, event["id"], self.now)
        out: Outputs = [("Posting", posting) for posting in postings]
        out += self.supply.evaluate(row, self.now, event["id"])
        self._finish(row, out, result)

    def _request(self, request: dict[str, Any], result: Result) -> None:
        if request["action"] in ("verify", "resume"):
            self._resume(request, result)
            return
        out = self.requests.apply(request, self.now)
        row = self.accounts.row(request["account"])
        if row is None:
            self._write(result, out)
        else:
            self._finish(row, out, result)

    def _reply(self, reply: dict[str, Any], result: Result) -> None:
        row = self.supply.row_of(reply["command"])
        if row is not None:
            self._finish(row, self.supply.reply(row, reply, self.now), result)

    def _subscription(self, body: dict[str, Any], result: Result) -> None:
        """Master data says who is prepaid: enrols and closes accounts, and keeps tariff, zone and service point up to date."""
        now = self.now
        current = next((p for p in body["periods"] if p["from"] <= now and (p["to"] is None or now < p["to"])), None)
        account, row = body["subscription"], self.accounts.row(body["subscription"])
        open_ = row is not None and self.accounts.table["state"][row] != CLOSED
        request = {
            "id": identity("subscription", account, body["version"]), "account": account, "amount": None, "channel": "",
            "reference": "", "reason": "master data", "user": "master", "approver": "", "terms": "",
        }  # fmt: skip
        if current is not None and current["payment"] == "prepaid" and not open_:
            terms = {
                "rate": current["rate"] or "",
                "zone": current["zone"] or "",
                "service_point": next(iter(current["service_points"]), ""),
            }
            self._request(request | {"action": "enrol", "terms": orjson.dumps(terms, option=orjson.OPT_SORT_KEYS).decode()}, result)
        elif open_ and current is None:
            self._request(request | {"action": "close"}, result)
        elif open_ and current is not None and current["payment"] == "postpaid":
            self._request(request | {"action": "postpaid"}, result)
        elif open_ and current is not None and row is not None:
            self._renew(row, current)

    def _renew(self, row: int, current: dict[str, Any]) -> None:
        table = self.accounts.table
        tariff = self.settings.tariff_of(table.keys[row], current["rate"] or "")
        points = next(iter(current["service_points"]), "")
        for name, text in (("zone", current["zone"]), ("service_point", points), ("rate", current["rate"])):
            if text:
                table.text[name][row] = text
        if tariff is not None and tariff.id != table.text["tariff"][row]:
            self.billing.assign(row, tariff.id, int(calendar.day_of(table.text["zone"][row], int(current["from"]))))
        self.accounts.touch(row)

    # --- time ---------------------------------------------------------------------------------------------------------------------

    def _tick(self, message: Message, result: Result) -> None:
        before, now = self.now, int(message.body["at"])
        if now <= before:
            return
        self.accounts.put(now, NOW)
        if before // DAY != now // DAY and (cycle := self.billing.months.settled(_begun(now))) != self.accounts.get(CYCLE):
            self.accounts.put(cycle, CYCLE)
        if self.accounts.get(STOPPED):
            return
        table = self.accounts.table
        for row in np.flatnonzero(table["next"][: len(table)] <= now).tolist():
            self._due(row, now, result)
        if before // HOUR != now // HOUR and len(table):
            self._prove(now, result)

    def _due(self, row: int, now: int, result: Result) -> None:
        table = self.accounts.table
        account, out = table.keys[row], list[tuple[str, dict[str, Any]]]()
        for _ in range(MOST_DAYS):
            if int(table["through"][row]) > int(table["last"][row]) or self.billing.due(row) > now:
                break
            cause = f"day/{account}/{int(table['through'][row])}"
            out += [("Posting", posting) for posting in self.billing.provide(row, now)]
            out += [("Posting", posting) for posting in self.requests.daily_recovery(row, cause, now)]
        cause = f"tick/{account}/{now}"
        if table["state"][row] != CLOSED and int(table["through"][row]) > int(table["last"][row]):
            out += [("Posting", posting) for posting in self.requests.refund(row, cause, now)]
            out.append(self.supply.notice(row, "closed", now, cause))
        out += self.supply.evaluate(row, now, cause)
        self._finish(row, out, result)

    def _prove(self, now: int, result: Result) -> None:
        proof = self.ledger.proof(self.partition, now)
        self._write(result, [("PrepaidProof", proof)])
        if not proof["holds"]:
            self.accounts.put(proof["detail"], STOPPED)

    def _wait(self, message: Message, result: Result) -> None:
        """Posting has stopped: what comes waits, until the proof holds again and someone says so."""
        if message.type == "PrepaidRequest" and message.body["action"] == "resume":
            self._resume(message.body, result)
            return
        number = int(self.accounts.get("w") or 0)
        self.accounts.put(number + 1, "w")
        self.accounts.put([message.type, _parked(message.body)], "w", number)

    def _resume(self, request: dict[str, Any], result: Result) -> None:
        """Proves the books anew; where they hold, what waited is taken in, in its order."""
        proof = self.ledger.proof(self.partition, self.now)
        self._write(result, [("PrepaidProof", proof)])
        if proof["holds"] and self.accounts.get(STOPPED):
            self.accounts.put(None, STOPPED)
            for number in range(int(self.accounts.get("w") or 0)):
                kind, body = self.accounts.get("w", number)
                self.accounts.put(None, "w", number)
                self._one(kind, _revived(body), result)
            self.accounts.put(None, "w")
        status = "done" if proof["holds"] else "refused"
        self._write(result, [self.requests.outcome(request, self.now, status, proof["detail"])])

    # --- records --------------------------------------------------------------------------------------------------------------------

    def _finish(self, row: int, out: Outputs, result: Result) -> None:
        """Writes what an account's message led to, and the account as it stands now."""
        table = self.accounts.table
        table["version"][row] += 1
        self.accounts.touch(row)
        charges = [("PrepaidCharge", charge) for charge in self.billing.charges]
        self.billing.charges.clear()
        self._write(result, [*out, ("PrepaidAccount", self.snapshot(row)), *charges])

    def _write(self, result: Result, records: Outputs) -> None:
        for kind, body in records:
            key = body["device"] if kind == "DeviceCommand" else body.get("account", "")
            partition = self.partition if kind == "PrepaidProof" else CONVERSATIONS if kind == "PrepaidCharge" else None
            result.outputs.append(Output(TOPICS[kind], kind, body, key.encode(), partition))

    def snapshot(self, row: int) -> dict[str, Any]:
        """An account as it stands, as a record."""
        table, now = self.accounts.table, self.now
        balance_state = STATES[table["state"][row]]
        cut = self.supply.cut_from(row, now) if balance_state in ("zero", "grace", "disconnect-pending") else None
        measured, postings, text = int(table["measured"][row]), int(table["postings"][row]), table.text
        return {
            "service_point": text["service_point"][row], "device": text["device"][row], "zone": text["zone"][row],
            "tariff": text["tariff"][row], "level": text["level"][row], "hold": text["hold"][row], "trouble": text["trouble"][row],
            "account": table.keys[row], "version": int(table["version"][row]), "as_of": time_of(now),
            "currency": self.settings.currency.code, "balance": int(table["balance"][row]), "provisional": int(table["unsure"][row]),
            "debt": int(table["debt"][row]), "emergency": int(table["owed"][row]), "state": balance_state,
            "daily": self.billing.daily(row), "days_left": self.supply.days_left(row), "cut_from": None if cut is None else time_of(cut),
            "measured_until": time_of(measured) if measured else None, "postings": postings,
            "hash": table["chain"][row].tobytes().hex() if postings else "",
        }  # fmt: skip


def _begun(now: int) -> int:
    """The last local day that has begun anywhere."""
    return now // DAY + 1


def _parked(value: Any) -> Any:
    """A record's body as JSON can hold it; :func:`_revived` brings it back."""
    if isinstance(value, dict):
        return {name: _parked(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_parked(part) for part in value]
    if isinstance(value, Decimal):
        return {"$decimal": str(value)}
    return {"$time": int(value.timestamp())} if isinstance(value, datetime) else value


def _revived(value: Any) -> Any:
    if isinstance(value, list):
        return [_revived(part) for part in value]
    if not isinstance(value, dict):
        return value
    if "$decimal" in value:
        return Decimal(value["$decimal"])
    return time_of(value["$time"]) if "$time" in value else {name: _revived(part) for name, part in value.items()}
