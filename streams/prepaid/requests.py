"""What people, portals and payment providers ask of an account: each request once, with an outcome that says what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from typing import Any, Final

import orjson

from schemas.identity import identity
from schemas.quantity import parse
from schemas.topology.prepaid import PrepaidSettings
from streams import calendar
from streams.prepaid.accounts import CLOSED, CUT, STATES, Accounts
from streams.prepaid.billing import Billing
from streams.prepaid.charging import EPOCH
from streams.prepaid.ledger import Ledger, time_of
from streams.prepaid.supply import Outputs, Supply

REMEMBERED: Final = 4096  # requests of an account recognised when they come again
REVERSIBLE: Final = 512  # top-ups of an account that may still be reversed
_CONTENT: Final = ("action", "amount", "channel", "reference", "reason", "approver", "terms")
DEVICE: Final = ("connect", "disconnect", "read", "load-limit")


def content_of(request: Mapping[str, Any]) -> str:
    """A hash over what a request asks for; who asks does not matter. The same id with another content is a conflict."""
    return identity(*(str(request[name]) for name in _CONTENT))[:16]


class RefusedError(Exception):
    """A request that changes nothing; the message says why."""


class Requests:
    """Carries requests out for the accounts of one partition."""

    def __init__(self, settings: PrepaidSettings, accounts: Accounts, ledger: Ledger, billing: Billing, supply: Supply, zone: str) -> None:
        self.settings, self.accounts, self.ledger, self.billing, self.supply, self.zone = settings, accounts, ledger, billing, supply, zone
        whole = settings.currency.whole
        self.least, self.most, self.alone = whole(settings.topup_least), whole(settings.topup_most), whole(settings.four_eyes_above)
        self.credit, self.credit_below = whole(settings.emergency.limit), whole(settings.emergency.below)
        self._do: dict[str, Callable[[int, dict[str, Any], int], tuple[list[dict[str, Any]], Outputs]]] = {
            "topup": self._topup, "reversal": self._reversal, "adjustment": self._adjustment, "emergency": self._emergency,
            "debt": self._debt, "hold": self._hold, "release": self._release, "postpaid": self._postpaid, "close": self._close,
        }  # fmt: skip

    def apply(self, request: dict[str, Any], at: int) -> Outputs:
        """Carries a request out: postings, notices, commands, and the outcome as the last record."""
        account, id = request["account"], request["id"]
        content = content_of(request)
        pages = self.accounts.pages("r", account, id)
        before = next((known for _, page in pages for number, known in page if number == id), None)
        if before is not None:
            status = "duplicate" if before == content else "conflict"
            detail = "" if before == content else "another request of this id was taken before"
            return [self.outcome(request, at, status, detail, content=content)]
        out: Outputs = []
        postings: list[dict[str, Any]] = []
        command = ""
        try:
            if request["action"] == "enrol":
                postings = self._enrol(request, at, out)
            elif request["action"] in DEVICE:
                command = self._device(self._row(account), request, at, out)
            elif request["action"] in self._do:
                postings, said = self._do[request["action"]](self._row(account), request, at)
                out += said
            else:
                raise RefusedError(f"there is no action {request['action'][:40]!r}")
        except RefusedError as refused:
            return [self.outcome(request, at, "refused", str(refused), content=content)]
        self.accounts.append([id, content], "r", account, REMEMBERED)
        row = self._row(account)
        said = self.supply.evaluate(row, at, id)  # the order of records is: money, what it led to, the outcome
        status = "posted" if postings else "done"
        first = postings[0]["id"] if postings else ""
        records = [("Posting", posting) for posting in postings]
        return [*records, *out, *said, self.outcome(request, at, status, "", posting=first, command=command, content=content)]

    def _row(self, account: str) -> int:
        row = self.accounts.row(account)
        if row is None:
            raise RefusedError(f"{account} is not a prepaid account here")
        return row

    def outcome(self, request: dict[str, Any], at: int, status: str, detail: str, **about: Any) -> tuple[str, dict[str, Any]]:
        """The record that says what became of a request."""
        row, table = self.accounts.row(request["account"]), self.accounts.table
        body = {
            "id": request["id"], "account": request["account"], "at": time_of(at), "action": request["action"], "status": status,
            "detail": detail, "posting": "", "command": "", "balance": 0 if row is None else int(table["balance"][row]),
            "state": "" if row is None else STATES[table["state"][row]], **about,
        }  # fmt: skip
        body["content"] = about.get("content") or content_of(request)
        return "PrepaidOutcome", body

    def _post(
        self, row: int, kind: str, debit: str, credit: str, amount: int, request: dict[str, Any], at: int, **about: Any
    ) -> dict[str, Any]:
        told = {"reference": request["reference"], "reason": request["reason"], "user": request["user"]} | about
        return self.ledger.post(self.accounts.table.keys[row], kind, debit, credit, amount, cause=request["id"], at=at, **told)

    # --- money in and out ---------------------------------------------------------------------------------------------------------------

    def _topup(self, row: int, request: dict[str, Any], at: int) -> tuple[list[dict[str, Any]], Outputs]:
        """Money in: then emergency credit is paid back, debts take their share, and what waited is charged (domain 5.3)."""
        table, amount = self.accounts.table, _amount(request)
        if table["state"][row] == CLOSED:
            raise RefusedError("the account is closed")
        if not self.least <= amount <= self.most:
            raise RefusedError(f"a top-up is from {self.settings.topup_least} to {self.settings.topup_most} {self.settings.currency.code}")
        channel = request["channel"] or "unnamed"
        postings = [self._post(row, "TOPUP", f"cash:{channel}", "customer", amount, request, at)]
        self.accounts.append([request["id"], request["reference"], amount, channel, 0], "t", table.keys[row], REVERSIBLE)
        rest = amount * self.settings.recovery.most_of_topup // 100
        owed = min(int(table["owed"][row]), rest)
        if owed:
            postings.append(self._post(row, "EMERGENCY_REPAY", "customer", "emergency", owed, request, at))
            postings += self.billing.catch_up(row, request["id"], at)
        share = min(amount * self.settings.recovery.share_of_topup // 100, rest - owed)
        postings += self.recover(row, share, request["id"], at)
        return postings, [self.supply.notice(row, "topup.posted", at, request["id"], amount=amount)]

    def recover(self, row: int, most: int, cause: str, at: int) -> list[dict[str, Any]]:
        """Takes up to an amount for debts, oldest first."""
        left = most

        def share(debt: dict[str, Any]) -> int:
            nonlocal left
            part = min(left, int(debt["left"]))
            left -= max(part, 0)
            return part

        return self._from_debts(row, share, cause, at)

    def daily_recovery(self, row: int, cause: str, at: int) -> list[dict[str, Any]]:
        """A day's share of each debt, as far as the balance leaves what it must."""
        table, settings, whole = self.accounts.table, self.settings.recovery, self.settings.currency.whole
        if not table["debt"][row] or (self.settings.emergency.pauses_debt and table["owed"][row] > 0):
            return []

        def share(debt: dict[str, Any]) -> int:
            spare = int(table["balance"][row]) - whole(settings.keeps)
            daily = debt["per_day"] if debt["per_day"] is not None else whole(settings.per_day)
            return min(int(daily), int(debt["left"]), max(spare, 0))

        return self._from_debts(row, share, cause, at)

    def _from_debts(self, row: int, share: Callable[[dict[str, Any]], int], cause: str, at: int) -> list[dict[str, Any]]:
        """Takes its share for each debt, the oldest first; debts that are paid are forgotten."""
        account = self.accounts.table.keys[row]
        debts, postings = self.accounts.get("d", account) or [], []
        for debt in debts:
            part = share(debt)
            if part > 0:
                debt["left"] -= part
                about = {"part": debt["name"], "reference": debt["name"]}
                postings.append(self.ledger.post(account, "DEBT_RECOVERY", "customer", "debt", part, cause=cause, at=at, **about))
        if postings:
            self.accounts.put([debt for debt in debts if debt["left"]] or None, "d", account)
        return postings

    def _reversal(self, row: int, request: dict[str, Any], at: int) -> tuple[list[dict[str, Any]], Outputs]:
        """A payment that bounced: its amount is taken back; where that uses the balance up, the grace begins anew (domain 5.3)."""
        account = self.accounts.table.keys[row]
        pages = list(self.accounts.pages("t", account, request["reference"])) if request["reference"] else []
        named = [(n, page, t) for n, page in pages for t in page if request["reference"] in (t[0], t[1])]
        # a payment's reference may have been used twice: the one that stands is meant
        number, page, found = next((one for one in named if not one[2][4]), named[0] if named else (0, [], None))
        if found is None:
            raise RefusedError(f"there is no top-up {request['reference']!r} that can be reversed")
        if found[4]:
            raise RefusedError("that top-up has been reversed already")
        if request["amount"] is not None and request["amount"] != found[2]:
            raise RefusedError(f"that top-up was {self.settings.currency.text(found[2])}: a reversal takes back all of it")
        found[4] = 1
        self.accounts.put(page, "t", account, number)
        posting = self._post(row, "REVERSAL", "customer", f"cash:{found[3]}", found[2], request, at)
        self.supply.calm(row)
        return [posting], [self.supply.notice(row, "topup.reversed", at, request["id"], amount=found[2])]

    def _adjustment(self, row: int, request: dict[str, Any], at: int) -> tuple[list[dict[str, Any]], Outputs]:
        amount = _amount(request)
        if not amount or not request["reason"]:
            raise RefusedError("an adjustment needs an amount other than zero, and a reason")
        if abs(amount) > self.alone and request["approver"] in ("", request["user"]):
            raise RefusedError("an adjustment of this size needs the approval of a second person")
        sides = ("adjustment", "customer") if amount > 0 else ("customer", "adjustment")
        return [self._post(row, "ADJUST", *sides, abs(amount), request, at)], []

    def _emergency(self, row: int, request: dict[str, Any], at: int) -> tuple[list[dict[str, Any]], Outputs]:
        table = self.accounts.table
        if not self.credit:
            raise RefusedError("there is no emergency credit here")
        if table["owed"][row] > 0:
            raise RefusedError("emergency credit is in use already")
        if int(table["balance"][row]) >= self.credit_below:
            raise RefusedError(f"emergency credit can be taken when the balance is below {self.settings.emergency.below}")
        return [self._post(row, "EMERGENCY_DRAW", "emergency", "customer", self.credit, request, at)], []

    def _debt(self, row: int, request: dict[str, Any], at: int) -> tuple[list[dict[str, Any]], Outputs]:
        """A debt to recover: named by ``channel``; the same name adds to it."""
        amount = _amount(request)
        if amount <= 0:
            raise RefusedError("a debt is a positive amount")
        return [self._owe(row, request["channel"] or "debt", amount, _terms(request).get("per_day"), request, at)], []

    def _owe(self, row: int, name: str, amount: int, per_day: Any, request: dict[str, Any], at: int) -> dict[str, Any]:
        account = self.accounts.table.keys[row]
        debts = self.accounts.get("d", account) or []
        known = next((debt for debt in debts if debt["name"] == name), None)
        if known is None:
            debts.append({"name": name, "left": amount, "per_day": None if per_day is None else int(per_day)})
        else:
            known["left"] += amount
            known["per_day"] = known["per_day"] if per_day is None else int(per_day)
        self.accounts.put(debts, "d", account)
        return self._post(row, "DEBT", "debt", "opening", amount, request, at, part=name, reference=name)

    # --- coming and going ---------------------------------------------------------------------------------------------------------------

    def _enrol(self, request: dict[str, Any], at: int, out: Outputs) -> list[dict[str, Any]]:
        """Opens an account: balance from a deposit or migration, arrears as debt; charged from the next whole local day on."""
        account, terms = request["account"], _terms(request)
        known = self.accounts.row(account)
        if known is not None and self.accounts.table["state"][known] != CLOSED:
            raise RefusedError(f"{account} is prepaid already")
        rate = str(terms.get("rate", ""))
        tariff = terms.get("tariff") or getattr(self.settings.tariff_of(account, rate), "id", None)
        if tariff is None or str(tariff) not in self.billing.prices:
            raise RefusedError(f"no tariff of the topology is for {account}" if tariff is None else f"there is no tariff {tariff!r}")
        opening, arrears = int(terms.get("opening", 0)), int(terms.get("arrears", 0))
        if opening < 0 or arrears < 0:
            raise RefusedError("opening and arrears are not negative: what the customer owes is arrears")
        zone = str(terms.get("zone") or self.zone)
        first = _day(terms["from"]) if terms.get("from") else int(calendar.day_of(zone, at)) + 1
        if known is not None and first < int(self.accounts.table["through"][known]):
            raise RefusedError("days of the time before have been charged: the account can begin again only behind them")
        row = self.accounts.add(account)
        table = self.accounts.table
        self.billing.begin(row)
        for name in ("state", "told_zero", "grace_until", "warned"):
            table[name][row] = 0
        if self.supply.was_off(row):
            table["state"][row] = CUT
        table["first"][row] = table["through"][row] = first
        table["last"][row], table["armed"][row] = 2**31 - 1, 255
        table["load"][row] = parse(str(terms.get("load", "0")))
        for name, text in (
            ("zone", zone),
            ("tariff", str(tariff)),
            ("rate", rate),
            ("device", str(terms.get("device") or table.text["device"][row])),
            ("hold", ""),
        ):
            table.text[name][row] = text
        table.text["service_point"][row] = str(terms.get("service_point", ""))
        self.accounts.touch(row)
        postings = []
        if opening:
            postings.append(self._post(row, "MIGRATION_OPENING", "opening", "customer", opening, request, at))
        if arrears:
            postings.append(self._owe(row, "arrears", arrears, terms.get("per_day"), request, at))
        out.append(self.supply.notice(row, "enrolled", at, request["id"]))
        return postings

    def _postpaid(self, row: int, request: dict[str, Any], at: int) -> tuple[list[dict[str, Any]], Outputs]:
        """Back to postpaid: balance and debts are handed over; what is used from today on is billed there.

        Days before today that are not charged yet are charged now, as far as they are known; what becomes known later is handed over.
        """
        table = self.accounts.table
        if table["state"][row] == CLOSED:
            raise RefusedError("the account is closed")
        last = max(int(calendar.day_of(table.text["zone"][row], at)) - 1, int(table["first"][row]) - 1)
        postings = self.billing.ends(row, last, request["id"], at)
        while int(table["through"][row]) <= last:
            postings += self.billing.provide(row, at)
        postings += self._settle(row, request, at, "postpaid")
        self._end(row, last, at)
        return postings, [self.supply.notice(row, "closed", at, request["id"])]

    def _close(self, row: int, request: dict[str, Any], at: int) -> tuple[list[dict[str, Any]], Outputs]:
        """Move-out: charged through a last day, then what is left is paid back; what corrections change later is handed over."""
        table = self.accounts.table
        if table["state"][row] == CLOSED:
            raise RefusedError("the account is closed already")
        terms = _terms(request)
        today = int(calendar.day_of(table.text["zone"][row], at))
        last = max(_day(terms["day"]) if terms.get("day") else today, int(table["first"][row]) - 1)
        return self.billing.ends(row, last, request["id"], at), []

    def refund(self, row: int, cause: str, at: int) -> list[dict[str, Any]]:
        """Closes an account whose last day is charged: debts are met as far as the balance goes, what is left is paid back or owed."""
        request = {"id": cause, "reference": "", "reason": "moved out", "user": ""}
        postings = self.recover(row, max(int(self.accounts.table["balance"][row] - self.accounts.table["owed"][row]), 0), cause, at)
        postings += self._settle(row, request, at, "refund")
        self._end(row, int(self.accounts.table["last"][row]), at)
        return postings

    def hand_over(self, row: int, cause: str, at: int) -> list[dict[str, Any]]:
        """What a correction leaves on a closed account goes to postpaid billing."""
        return self._settle(row, {"id": cause, "reference": "", "reason": "corrected after the close", "user": ""}, at, "postpaid")

    def _settle(self, row: int, request: dict[str, Any], at: int, side: str) -> list[dict[str, Any]]:
        """Brings balance, emergency credit and debts of an account to nothing; what is owed goes to postpaid billing."""
        table, postings = self.accounts.table, []
        account = table.keys[row]
        owed = int(table["owed"][row])
        if owed:
            postings.append(self._post(row, "EMERGENCY_REPAY", "customer", "emergency", owed, request, at))
            postings += self.billing.catch_up(row, request["id"], at)
        balance = int(table["balance"][row])
        if balance > 0:
            kind = "REFUND" if side == "refund" else "MIGRATION_CLOSING"
            postings.append(self._post(row, kind, "customer", side, balance, request, at))
        elif balance < 0:
            postings.append(self._post(row, "MIGRATION_CLOSING", "postpaid", "customer", -balance, request, at))
        for debt in self.accounts.get("d", account) or []:
            about = {"part": debt["name"], "reference": debt["name"]}
            postings.append(self._post(row, "MIGRATION_CLOSING", "postpaid", "debt", debt["left"], request, at, **about))
        self.accounts.put(None, "d", account)
        return postings

    def _end(self, row: int, last: int, at: int) -> None:
        table = self.accounts.table
        self.billing.tell(row, last, at, whole=False)
        self.supply.ends(row)
        table["last"][row], table["state"][row] = last, CLOSED
        self.accounts.touch(row)

    # --- supply --------------------------------------------------------------------------------------------------------------------------

    def _hold(self, row: int, request: dict[str, Any], at: int) -> tuple[list[dict[str, Any]], Outputs]:
        if not request["reason"]:
            raise RefusedError("a hold needs a reason")
        self.accounts.table.text["hold"][row] = request["reason"][:200]
        return [], [self.supply.notice(row, "hold", at, request["id"], detail=request["reason"][:200])]

    def _release(self, row: int, request: dict[str, Any], at: int) -> tuple[list[dict[str, Any]], Outputs]:
        """Ends a hold or takes a trouble as mended; a cut then begins with its grace."""
        table = self.accounts.table
        if not table.text["hold"][row] and not table.text["trouble"][row]:
            raise RefusedError("there is neither a hold nor a trouble to release")
        table.text["hold"][row] = table.text["trouble"][row] = ""
        self.supply.calm(row)
        return [], [self.supply.notice(row, "released", at, request["id"])]

    def _device(self, row: int, request: dict[str, Any], at: int, out: Outputs) -> str:
        table, action = self.accounts.table, request["action"]
        if not table.text["device"][row]:
            raise RefusedError("no device is known for this account yet")
        if action in ("connect", "disconnect"):
            if action == "disconnect" and not request["reason"]:
                raise RefusedError("a disconnection needs a reason")
            if action == "disconnect" and table["state"][row] == CUT:
                raise RefusedError("supply is cut already")
            id, said = self.supply.by_request(row, action, at, request["id"])
            out += said
            return id
        id = self.supply.command_id(row, action, request["id"])
        watts = _terms(request).get("watts")
        if action == "load-limit" and (not isinstance(watts, int) or watts < 0):
            raise RefusedError("load-limit needs terms.watts, a whole number")
        out.append(self.supply.command(row, id, action, at, request["account"], watts if action == "load-limit" else None))
        return id


def _amount(request: dict[str, Any]) -> int:
    if request["amount"] is None:
        raise RefusedError(f"{request['action']} needs an amount")
    return int(request["amount"])


def _terms(request: dict[str, Any]) -> dict[str, Any]:
    try:
        terms = orjson.loads(request["terms"]) if request["terms"] else {}
    except orjson.JSONDecodeError:
        terms = None
    if not isinstance(terms, dict):
        raise RefusedError("terms is not a JSON object")
    return terms


def _day(text: Any) -> int:
    try:
        return (date.fromisoformat(str(text)) - EPOCH).days
    except ValueError:
        raise RefusedError(f"{str(text)[:40]!r} is not a date") from None
