"""What the store knows of prepaid accounts, with amounts as decimal text in the currency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

from connectors.head_end.desk import Reader
from connectors.head_end.listing import TIME, Listing, cursor_of, cursor_text, page_query
from connectors.head_end.problems import ProblemError
from schemas.topology.prepaid import PrepaidSettings
from streams.prepaid.money import apportion

ACCOUNTS: Final = Listing("prepaid_accounts", {"account": "String"}, "as_of", "as_of", ("state", "tariff", "device", "service_point"))
LEDGER: Final = Listing("prepaid_ledger", {"sequence": "Int64", "id": "String"}, "at", "at", ("account", "kind"))
NOTICES: Final = Listing("prepaid_notices", {"at": TIME, "sequence": "Int64", "id": "String"}, "at", "at", ("account", "kind"))
MONEY: Final = {
    "prepaid_accounts": ("balance", "provisional", "debt", "emergency", "daily"),
    "prepaid_ledger": ("amount", "change", "balance"),
    "prepaid_notices": ("balance", "amount"),
}
MOST_DAYS: Final = 800  # of one question for usage
MICRO: Final = Decimal(1_000_000)
_NOT_RECEIVED: Final = "direction != 'received' AND isNotNull(value)"


class Questions:
    """Answers from the store. Everything blocks: call it from threads."""

    def __init__(self, settings: PrepaidSettings, reader: Reader) -> None:
        self.settings, self.reader = settings, reader

    # --- accounts and money -----------------------------------------------------------------------------------------------------------

    def account(self, account: str) -> dict[str, Any]:
        """An account as it stands, amounts in the currency. Raises Problem 404."""
        found = self.reader.rows("SELECT * FROM prepaid_accounts WHERE account = {account:String}", {"account": account})
        if not found:
            raise ProblemError(404, "not-found", f"{account[:80]} is not a prepaid account here.")
        return self.in_currency(found[0], *MONEY["prepaid_accounts"])

    def in_currency(self, row: Mapping[str, Any], *amounts: str) -> dict[str, Any]:
        """A row with amounts as decimal text in the currency instead of whole smallest units."""
        text = self.settings.currency.text
        return {**row, **{name: None if row[name] is None else text(int(row[name])) for name in amounts}}

    def page(
        self, listing: Listing, filters: Mapping[str, str | None], since: datetime | None, until: datetime | None, cursor: str | None,
        limit: int,
    ) -> dict[str, Any]:  # fmt: skip
        """One page of a view: ``items`` and the cursor of the ``next`` page. Raises Problem 422 for a cursor that is none."""
        sql, parameters = page_query(listing, filters, since, until, cursor, limit)
        rows = self.reader.rows(sql, parameters)
        more, rows = len(rows) > limit, rows[:limit]
        following = cursor_of([cursor_text(rows[-1][column]) for column in listing.order]) if more else None
        return {"items": [self.in_currency(row, *MONEY[listing.view]) for row in rows], "next": following}

    def ledger(self, account: str, since: datetime | None, until: datetime | None, after: int, limit: int) -> list[dict[str, Any]]:
        """Postings in the order they were made, as the store has them; amounts in the currency."""
        where, parameters = ["account = {account:String}", "sequence > {after:Int64}"], dict[str, Any](account=account, after=after)
        for name, moment, sign in (("since", since, ">="), ("until", until, "<")):
            if moment is not None:
                where.append(f"at {sign} toDateTime({{{name}:Int64}}, 'UTC')")
                parameters[name] = int(moment.timestamp())
        sql = f"SELECT * FROM prepaid_ledger WHERE {' AND '.join(where)} ORDER BY sequence LIMIT {limit}"
        return [self.in_currency(row, *MONEY["prepaid_ledger"]) for row in self.reader.rows(sql, parameters)]

    def newest_postings(self, account: str, before: int, limit: int) -> list[dict[str, Any]]:
        """Postings newest first, before a number (0: the newest); amounts in the currency."""
        sql = (
            "SELECT * FROM prepaid_ledger WHERE account = {account:String} AND ({before:Int64} = 0 OR sequence < {before:Int64})"
            f" ORDER BY sequence DESC LIMIT {limit}"
        )
        rows = self.reader.rows(sql, {"account": account, "before": before})
        return [self.in_currency(row, *MONEY["prepaid_ledger"]) for row in rows]

    def newest_notices(self, account: str, before: int, limit: int) -> list[dict[str, Any]]:
        """Notices newest first, before a UTC second (0: the newest), as the store has them; those for people at the utility left out."""
        sql = (
            "SELECT * FROM prepaid_notices WHERE account = {account:String} AND kind != 'command.failed'"
            f" AND ({{before:Int64}} = 0 OR at < toDateTime({{before:Int64}}, 'UTC')) ORDER BY at DESC, sequence DESC, id LIMIT {limit}"
        )
        return self.reader.rows(sql, {"account": account, "before": before})

    def debts(self, account: str) -> list[dict[str, Any]]:
        """What is left of each debt, by its name."""
        sql = (
            "SELECT reference AS name, sum(if(debit = {side:String}, amount, -amount)) AS left, min(at) AS since FROM prepaid_ledger"
            " WHERE account = {account:String} AND (debit = {side:String} OR credit = {side:String}) GROUP BY name"
            " HAVING left != 0 ORDER BY since, name"
        )
        return [self.in_currency(row, "left") for row in self.reader.rows(sql, {"account": account, "side": f"debt:{account}"})]

    # --- usage ------------------------------------------------------------------------------------------------------------------------

    def usage(self, account: str, first: date, last: date, grain: str) -> list[dict[str, Any]]:
        """Final consumption by local day or hour, both ends included, with what it cost where that is charged.

        A day's cost is what was posted of it. An hour's is its share of that by consumption: the parts add up to the day.
        Raises Problem 422 for a span that is none or too long.
        """
        if not 0 <= (last - first).days < MOST_DAYS:
            raise ProblemError(422, "not-valid", f"from must not lie behind to, nor more than {MOST_DAYS} days before it")
        parameters = {"account": account, "first": str(first), "last": str(last)}
        costs = {row["day"]: row for row in self.reader.rows(
            "SELECT day, -sum(change) AS cost, argMax(provisional, sequence) AS provisional FROM prepaid_ledger"
            " WHERE account = {account:String} AND component != '' AND day >= {first:String} AND day <= {last:String} GROUP BY day",
            parameters,
        )}  # fmt: skip
        if grain == "hour":
            return self._hours(parameters, costs)
        rows = self.reader.rows(
            "SELECT toString(day) AS local_day, unit, sum(value) AS quantity, min(condition) AS worst FROM intervals"
            f" WHERE account = {{account:String}} AND {_NOT_RECEIVED} AND day >= {{first:Date}} AND day <= {{last:Date}}"
            " GROUP BY local_day, unit ORDER BY local_day, unit",
            parameters,
        )
        found, told = [], set[str]()
        for row in rows:
            cost = costs.get(row["local_day"]) if row["local_day"] not in told else None  # charges are of the day, not of a unit
            told.add(row["local_day"])
            found.append(self._day(row["local_day"], row["unit"], row["quantity"], row["worst"], cost))
        found += [self._day(day, None, None, None, cost) for day, cost in costs.items() if day not in told]
        return sorted(found, key=lambda row: (row["day"], row["unit"] or ""))

    def _day(self, day: str, unit: str | None, quantity: Any, condition: int | None, cost: Mapping[str, Any] | None) -> dict[str, Any]:
        return {
            "day": day, "unit": unit, "quantity": None if quantity is None else _plain(quantity), "condition": condition,
            "cost": None if cost is None else self.settings.currency.text(int(cost["cost"])),
            "provisional": bool(cost["provisional"]) if cost else False,
        }  # fmt: skip

    def _hours(self, parameters: Mapping[str, str], costs: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
        rows = self.reader.rows(
            "SELECT toString(day) AS local_day, toStartOfHour(start, 'UTC') AS hour, unit, any(zone) AS place, sum(value) AS quantity,"
            f" min(condition) AS worst FROM intervals WHERE account = {{account:String}} AND {_NOT_RECEIVED} AND day >= {{first:Date}}"
            " AND day <= {last:Date} GROUP BY local_day, hour, unit ORDER BY local_day, unit, hour",
            parameters,
        )
        parts: dict[int, int] = {}
        for day in dict.fromkeys(row["local_day"] for row in rows):
            of_day = [n for n, row in enumerate(rows) if row["local_day"] == day]
            leading = [n for n in of_day if rows[n]["unit"] == rows[of_day[0]]["unit"]]
            if day in costs:
                weights = [max(int(Decimal(str(rows[n]["quantity"])) * MICRO), 0) for n in leading]
                parts |= dict(zip(leading, apportion(int(costs[day]["cost"]), weights), strict=True))
        return [
            {
                "start": row["hour"], "local": local(row["hour"], row["place"]).isoformat(), "day": row["local_day"], "unit": row["unit"],
                "quantity": _plain(row["quantity"]), "condition": row["worst"],
                "cost": self.settings.currency.text(parts[n]) if n in parts else None,
            }
            for n, row in enumerate(rows)
        ]  # fmt: skip

    # --- requests, commands, statements -----------------------------------------------------------------------------------------------

    def command(self, account: str | None, id: str) -> dict[str, Any]:
        """A device command that was given for an account (None: any). Raises Problem 404."""
        only = "" if account is None else " AND reference = {account:String}"
        sql = f"SELECT * FROM device_commands WHERE id = {{id:String}} AND `by` = 'prepaid'{only}"
        rows = self.reader.rows(sql, {"id": id, "account": account or ""})
        if not rows:
            raise ProblemError(404, "not-found", "No command of this id is known here yet; one just given appears within seconds.")
        return rows[0]

    def deliveries(self, notices: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
        """What became of the messages of notices, by the id of the notice."""
        rows = self.reader.rows(
            "SELECT key, channel, status, attempt, at, next_at, reason FROM deliveries WHERE subscriber LIKE 'prepaid-%'"
            " AND key IN {ids:Array(String)} ORDER BY channel",
            {"ids": list(notices)},
        )
        found: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            found.setdefault(row["key"], []).append({name: value for name, value in row.items() if name != "key"})
        return found

    def statement(self, account: str, first: date, last: date) -> dict[str, Any]:
        """A statement of local days, both ends included: opening and closing balance, totals by kind, all postings.

        Raises Problem 404, 422.
        """
        about = self.account(account)
        if last < first:
            raise ProblemError(422, "not-valid", "from must not lie behind to")
        zone = ZoneInfo(about["zone"] or "UTC")
        begin = datetime(first.year, first.month, first.day, tzinfo=zone)
        end = datetime.combine(last + timedelta(days=1), datetime.min.time(), zone)
        postings: list[dict[str, Any]] = []
        while page := self.ledger(account, begin, end, int(postings[-1]["sequence"]) if postings else 0, 10_000):
            postings += page
        before = self.reader.rows(
            "SELECT balance FROM prepaid_ledger WHERE account = {account:String} AND at < toDateTime({begin:Int64}, 'UTC')"
            " ORDER BY sequence DESC LIMIT 1",
            {"account": account, "begin": int(begin.timestamp())},
        )
        opening = self.settings.currency.text(int(before[0]["balance"]) if before else 0)
        totals: dict[str, int] = {}
        for posting in postings:
            totals[posting["kind"]] = totals.get(posting["kind"], 0) + self.settings.currency.whole(posting["change"])
        return {
            "account": about, "from": first, "to": last, "opening": opening,
            "closing": postings[-1]["balance"] if postings else opening,
            "totals": {kind: self.settings.currency.text(total) for kind, total in sorted(totals.items()) if total},
            "postings": postings,
        }  # fmt: skip


def _plain(quantity: Any) -> str:
    text = f"{Decimal(str(quantity)):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def local(at: datetime, zone: str) -> datetime:
    """A time of the store in a zone."""
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(ZoneInfo(zone or "UTC"))
