"""Why a balance is what it is: postings with the reads behind them, a ledger proved anew from the store, and other tariffs tried out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Final

from connectors.head_end.problems import ProblemError
from connectors.prepaid.questions import MOST_DAYS, Questions
from schemas.quantity import MICRO, text_of
from schemas.topology.prepaid import Tariff
from schemas.units import convert, resolve
from streams.prepaid.charging import EPOCH, Day, Month, Months, PriceList
from streams.prepaid.ledger import chain_hash
from streams.prepaid.money import rounded

PAGE: Final = 10_000
MOST_FLAWS: Final = 100
_RECEIVED: Final = 2  # direction as final_days has it


class Explaining:
    """Questions that go through a whole ledger. Everything blocks."""

    def __init__(self, questions: Questions) -> None:
        self.questions, self.settings, self.reader = questions, questions.settings, questions.reader

    # --- replay -----------------------------------------------------------------------------------------------------------------------

    def replay(self, account: str, after: int, limit: int) -> dict[str, Any]:
        """Postings one by one, each with what caused it and the reads of its day; ``sound`` says whether balance and chain follow.

        Raises Problem 404.
        """
        about = self.questions.account(account)
        rows = self._postings(account, after, limit)
        before = self._postings(account, after - 1, 1) if after else []
        balance, previous = (int(before[0]["balance"]), before[0]["hash"]) if before else (0, "")
        reads = self._reads(account, sorted({row["day"] for row in rows if row["day"]}))
        asked = self._asked([row["cause"] for row in rows if not row["day"]])
        steps = []
        for row in rows:
            balance += int(row["change"])
            sound = balance == int(row["balance"]) and _hash(row, previous) == row["hash"] and row["previous"] == previous
            previous = row["hash"]
            shown = self.questions.in_currency(row, "amount", "change", "balance")
            steps.append({**shown, "sound": sound, "request": asked.get(row["cause"]), "reads": reads.get(row["day"], [])})
        following = int(rows[-1]["sequence"]) if len(rows) == limit else None
        return {"account": about, "items": steps, "next": following}

    def _postings(self, account: str, after: int, limit: int) -> list[dict[str, Any]]:
        sql = (
            "SELECT * FROM prepaid_ledger WHERE account = {account:String} AND sequence > {after:Int64}"
            f" ORDER BY sequence, id LIMIT {limit}"
        )
        return self.reader.rows(sql, {"account": account, "after": after})

    def _asked(self, ids: list[str]) -> dict[str, dict[str, Any]]:
        sql = (
            "SELECT id, action, status, at FROM prepaid_outcome_log FINAL WHERE id IN {ids:Array(String)} AND status IN ('posted', 'done')"
        )
        return {row["id"]: row for row in self.reader.rows(sql, {"ids": sorted(set(ids))})}

    def _reads(self, account: str, days: list[str]) -> dict[str, list[dict[str, Any]]]:
        """What the store holds of local days: per channel the consumption and how many values are of which condition."""
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        if not days:
            return found
        parameters = {"account": account, "days": days}
        intervals = (
            "SELECT local_day, device, channel, unit, direction, toString(sum(part)) AS quantity, max(newest) AS version,"
            " groupArray((name, n)) AS conditions FROM (SELECT toString(day) AS local_day, device, channel, unit, direction,"
            " condition_name AS name, count() AS n, sum(value) AS part, max(version) AS newest FROM intervals"
            " WHERE account = {account:String} AND day IN (SELECT toDate32(arrayJoin({days:Array(String)})))"
            " GROUP BY local_day, device, channel, unit, direction, name ORDER BY name)"
            " GROUP BY local_day, device, channel, unit, direction ORDER BY local_day, device, channel"
        )
        registers = (
            "SELECT toString(toDate(at)) AS local_day, device, channel, unit, direction, toString(any(reading)) AS quantity,"
            " max(version) AS version, [(any(condition_name), 1)] AS conditions FROM registers WHERE account = {account:String}"
            " GROUP BY at, device, channel, unit, direction HAVING has({days:Array(String)}, local_day)"
            " ORDER BY local_day, device, channel, at"
        )
        for kind, sql in (("intervals", intervals), ("register", registers)):
            for row in self.reader.rows(sql, parameters):
                found[row["local_day"]].append(
                    {
                        "kind": kind, "device": row["device"], "channel": row["channel"], "unit": row["unit"],
                        "direction": row["direction"], "quantity": row["quantity"], "version": row["version"],
                        "conditions": {name: int(count) for name, count in row["conditions"]},
                    }
                )  # fmt: skip
        return found

    # --- verify -----------------------------------------------------------------------------------------------------------------------

    def verify(self, account: str | None = None) -> dict[str, Any]:
        """Works all balances and chains out anew from the postings in the store; ``flaws`` is empty where all holds."""
        proof = Proof(self.settings.currency.code)
        for row in self._all(account):
            proof.take(row)
        states = self.states(account)
        for state in states:
            proof.compare(state)
        return proof.found(len(states), self.settings.currency.text)

    def states(self, account: str | None = None) -> list[dict[str, Any]]:
        """Accounts as they stand: balance, debt, emergency, number of postings, hash of the last one."""
        where = " WHERE account = {account:String}" if account else ""
        return self.reader.rows(
            f"SELECT account, balance, debt, emergency, postings, hash FROM prepaid_accounts{where} ORDER BY account",
            {"account": account} if account else {},
        )

    def postings_of(self, accounts: list[str], after: int) -> Iterator[dict[str, Any]]:
        """Postings of some accounts behind a number, account by account in order."""
        yield from self._pages(
            " AND account IN {accounts:Array(String)} AND sequence > {after:Int64}", {"accounts": accounts, "after": after}
        )

    def _all(self, account: str | None) -> Iterator[dict[str, Any]]:
        """All postings, account by account in order."""
        return self._pages(" AND account = {only:String}" if account else "", {"only": account} if account else {})

    def _pages(self, only: str, parameters: dict[str, Any]) -> Iterator[dict[str, Any]]:
        at: dict[str, Any] = {"account": "", "sequence": 0, "id": "", **parameters}
        while True:
            rows = self.reader.rows(
                "SELECT * FROM prepaid_ledger WHERE (account, sequence, id) > ({account:String}, {sequence:Int64}, {id:String})"
                f"{only} ORDER BY account, sequence, id LIMIT {PAGE}",
                at,
            )
            yield from rows
            if len(rows) < PAGE:
                return
            at |= {name: rows[-1][name] for name in ("account", "sequence", "id")}

    # --- try --------------------------------------------------------------------------------------------------------------------------

    def attempt(self, account: str, tariff: Tariff, first: date, last: date) -> dict[str, Any]:
        """What past usage would cost by another tariff, month by month, beside the account's own on the same usage.

        Charges of single months are exact; a month that is not whole has its share of fixed charges. Raises Problem 404, 422.
        """
        about = self.questions.account(account)
        if not 0 <= (last - first).days < MOST_DAYS:
            raise ProblemError(422, "not-valid", f"from must not lie behind to, nor more than {MOST_DAYS} days before it")
        try:
            asked = PriceList(tariff, self.settings.currency)
        except ValueError as error:
            raise ProblemError(422, "not-valid", f"tariff: {error}") from None
        own = next((PriceList(t, self.settings.currency) for t in self.settings.tariffs if t.id == about["tariff"]), None)
        begin, end = (first - EPOCH).days, (last - EPOCH).days + 1
        months, here = [], Months(self.settings)
        sums = {"asked": 0, "own": 0}
        while begin < end:
            start, behind = here.of(begin)
            until = min(behind, end)
            line: dict[str, Any] = {"month": _date(start), "from": _date(begin), "to": _date(until - 1)}
            for name, prices in (("asked", asked), ("own", own)):
                if prices is not None:
                    factor = prices.of(until - 1).factor
                    days = self._days(account, prices.unit, begin, until, "" if factor is None else factor.by)
                    month = Month(start, behind, days, until, 0, closed=begin == start and until == behind, part=here.part((start, behind)))
                    charges = {component: rounded(exact) for component, exact in prices.charges(month, begin).items()}
                    sums[name] += sum(charges.values())
                    text = self.settings.currency.text
                    line[name] = {"total": text(sum(charges.values())), "charges": {c: text(v) for c, v in charges.items()}}
                    line |= {"days": len(days), "unit": prices.unit, "quantity": text_of(sum(day.consumed for day in days.values()))}
            months.append(line)
            begin = until
        text = self.settings.currency.text
        totals = {"asked": text(sums["asked"]), "own": text(sums["own"]) if own else None}
        if own is not None:
            totals["difference"] = text(sums["asked"] - sums["own"])
        return {
            "account": account, "tariff": tariff.id, "own_tariff": about["tariff"], "currency": self.settings.currency.code,
            "months": months, **totals,
        }  # fmt: skip

    def _days(self, account: str, unit: str, begin: int, end: int, beside: str) -> dict[int, Day]:
        """Consumption by local day and TOU period in the unit of a tariff: intervals where a day has them, else register readings.

        ``beside`` is the unit of what is measured beside it for the power factor, if anything.
        """
        span = {"account": account, "first": _date(begin), "last": _date(end - 1)}
        within = "account = {account:String} AND day >= {first:Date32} AND day <= {last:Date32}"
        rows = self.reader.rows(
            "SELECT toString(day) AS local_day, device, channel, unit, seconds > 0 AS fine, tou, quantities FROM determinant_days FINAL"
            f" WHERE {within} AND state != 2 ORDER BY day, device, channel",
            span,
        )
        received = {
            (row["device"], row["channel"])
            for table in ("final_days", "register_reads")
            for row in self.reader.rows(
                f"SELECT DISTINCT device, channel FROM {table} FINAL WHERE account = {{account:String}} AND direction = {_RECEIVED}",
                {"account": account},
            )
        }
        fine = {(row["local_day"], row["device"]) for row in rows if row["fine"]}
        days: dict[int, Day] = defaultdict(Day)
        other: dict[int, int] = defaultdict(int)
        for row in rows:
            if beside and _same_kind(row["unit"], beside) and (row["device"], row["channel"]) not in received:
                total = sum(convert(int(quantity), row["unit"], beside) for quantity in row["quantities"])
                other[(date.fromisoformat(row["local_day"]) - EPOCH).days] += total
                continue
            if not _same_kind(row["unit"], unit) or (not row["fine"] and (row["local_day"], row["device"]) in fine):
                continue
            day = days[(date.fromisoformat(row["local_day"]) - EPOCH).days]
            for tou, quantity in zip(row["tou"], row["quantities"], strict=True):
                amount = convert(int(quantity), row["unit"], unit)
                if (row["device"], row["channel"]) in received:
                    day.received += amount
                else:
                    day.lines[tou] = day.lines.get(tou, 0) + amount
        for number in days.keys() & other.keys():
            days[number].beside = other[number]
        self._demand(days, span)
        return dict(days)

    def _demand(self, days: Mapping[int, Day], span: Mapping[str, str]) -> None:
        """The highest mean power of each day, of the intervals in kWh."""
        rows = self.reader.rows(
            "SELECT toString(day) AS local_day, toString(max(value * 3600 / seconds)) AS demand FROM intervals"
            " WHERE account = {account:String} AND day >= {first:Date32} AND day <= {last:Date32} AND unit = 'kWh' AND seconds > 0"
            " AND direction != 'received' AND isNotNull(value) GROUP BY local_day",
            span,
        )
        for row in rows:
            number = (date.fromisoformat(row["local_day"]) - EPOCH).days
            if number in days and row["demand"] is not None:
                days[number].demand = int(Decimal(row["demand"]) * MICRO)


class Proof:
    """Balances and chains as they follow from postings that come account by account in order; more may come later."""

    def __init__(self, currency: str) -> None:
        self.currency = currency
        self.postings = 0
        self.debits: dict[str, int] = defaultdict(int)
        self.flaws: list[str] = []
        self.balances: dict[str, int] = defaultdict(int)  # by ledger account
        self.last: dict[str, tuple[int, str]] = {}  # account → number and hash of its last posting
        self.account = ""  # whose ids ``seen`` holds
        self.seen: set[tuple[str, str]] = set()

    def number(self, account: str) -> int:
        """How many postings of an account have been taken."""
        return self.last.get(account, (0, ""))[0]

    def take(self, row: Mapping[str, Any]) -> None:
        """Takes the next posting of an account."""
        account, number = row["account"], int(row["sequence"])
        before, previous = self.last.get(account, (0, ""))
        amount, name = int(row["amount"]), f"{account} posting {number}"
        self.postings += 1
        self._say((account, row["id"]) not in self.seen, f"{name}: its id is there twice")
        if self.account != account:  # ids name their account: only those of one need to be remembered
            self.account, self.seen = account, set()
        self.seen.add((account, row["id"]))
        self._say(amount > 0, f"{name}: moves {amount}")
        self._say(number == before + 1, f"{name}: follows number {before}")
        self._say(row["previous"] == previous and row["hash"] == _hash(row, row["previous"]), f"{name}: the chain of hashes is broken")
        self.balances[row["debit"]] -= amount
        self.balances[row["credit"]] += amount
        self.debits[row["currency"]] += amount
        self._say(self.balances[f"customer:{account}"] == int(row["balance"]), f"{name}: the balance does not follow")
        self.last[account] = (number, row["hash"])

    def compare(self, state: Mapping[str, Any]) -> None:
        """An account as it stands against what its postings say."""
        account = state["account"]
        number, last = self.last.get(account, (0, ""))
        if int(state["postings"]) != number:
            self._say(int(state["postings"]) < number, f"{account}: {state['postings']} postings are known, the store has {number}")
            return  # one of the two is not stored yet
        self._say(state["hash"] == last, f"{account}: the last hash is another")
        for column, name, sign in (("balance", "customer", 1), ("debt", "debt", -1), ("emergency", "emergency", -1)):
            expected = sign * self.balances[f"{name}:{account}"]
            self._say(int(state[column]) == expected, f"{account}: {column} is {state[column]}, its postings say {expected}")

    def found(self, accounts: int, text: Callable[[int], str]) -> dict[str, Any]:
        """The result: debits and credits per currency are equal because each posting is both; the sum over all accounts is told too."""
        credits, debits = (sum(v for v in self.balances.values() if (v > 0) == up) for up in (True, False))
        self._say(credits == -debits, f"what was given ({-debits}) is not what was taken ({credits})")
        for currency in self.debits:
            self._say(currency == self.currency, f"postings in {currency}: the ledger is in {self.currency}")
        customers = sum(v for name, v in self.balances.items() if name.startswith("customer:"))
        return {
            "accounts": accounts, "postings": self.postings, "currency": self.currency, "customers": text(customers),
            "moved": text(sum(self.debits.values())), "holds": not self.flaws, "flaws": self.flaws[:MOST_FLAWS],
        }  # fmt: skip

    def _say(self, holds: bool, flaw: str) -> None:
        if not holds and len(self.flaws) < MOST_FLAWS:
            self.flaws.append(flaw)


def _hash(row: Mapping[str, Any], previous: str) -> str:
    return chain_hash(previous, {**row, "provisional": bool(row["provisional"])})


def _date(number: int) -> str:
    return (EPOCH + timedelta(days=number)).isoformat()


def _same_kind(unit: str, other: str) -> bool:
    return resolve(unit).dimension == resolve(other).dimension
