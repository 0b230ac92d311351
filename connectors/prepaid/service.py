"""Prepaid accounts as portals and billing systems ask for them: requests go through Kafka, answers come from the store."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import orjson

from connectors.head_end.desk import Reader
from connectors.head_end.problems import ProblemError
from connectors.head_end.publish import PublishError, RefusedError, Writer
from schemas.codec import Codec
from schemas.identity import identity
from schemas.topology.prepaid import PrepaidSettings

TOPIC: Final = "prepaid.requests"
PATIENCE: Final = 5.0  # seconds until a request that is not decided is answered with its id alone
_STATUS: Final = {"posted": 201, "done": 200, "duplicate": 200}


class PrepaidService:
    """What the routes of the prepaid API do. Everything blocks: call it from threads."""

    def __init__(self, settings: PrepaidSettings, reader: Reader, writer: Writer, codec: Codec, patience: float = PATIENCE) -> None:
        self.settings, self.reader, self.writer, self.codec, self.patience = settings, reader, writer, codec, patience

    # --- questions ----------------------------------------------------------------------------------------------------------------

    def account(self, account: str) -> dict[str, Any]:
        """An account as it stands, amounts in the currency as well. Raises Problem 404."""
        found = self.reader.rows("SELECT * FROM prepaid_accounts WHERE account = {account:String}", {"account": account})
        if not found:
            raise ProblemError(404, "not-found", f"{account[:80]} is not a prepaid account here.")
        return self.in_currency(found[0], "balance", "provisional", "debt", "emergency", "daily")

    def in_currency(self, row: Mapping[str, Any], *amounts: str) -> dict[str, Any]:
        """A row with amounts as decimal text in the currency instead of whole smallest units."""
        text = self.settings.currency.text
        return {**row, **{name: None if row[name] is None else text(int(row[name])) for name in amounts}}

    def usage(self, account: str, first: date, last: date, grain: str) -> list[dict[str, Any]]:
        """Final consumption of the account by local day or hour, with what each day was charged where that is known."""
        if grain == "hour":
            sql = (
                "SELECT toStartOfHour(start, 'UTC') AS start, unit, sum(value) AS quantity, min(condition) AS condition FROM intervals"
                " WHERE account = {account:String} AND direction != 'received' AND day >= {first:Date} AND day <= {last:Date}"
                " GROUP BY start, unit ORDER BY start, unit"
            )
            return self.reader.rows(sql, {"account": account, "first": str(first), "last": str(last)})
        sql = (
            "SELECT days.day AS day, days.unit AS unit, days.quantity AS quantity, days.condition AS condition, costs.cost AS cost,"
            " costs.provisional AS provisional FROM (SELECT toString(day) AS day, unit, sum(value) AS quantity, min(condition) AS condition"
            " FROM intervals WHERE account = {account:String} AND direction != 'received' AND day >= {first:Date} AND day <= {last:Date}"
            " GROUP BY day, unit) AS days LEFT JOIN (SELECT day, -sum(change) AS cost, max(provisional) AS provisional FROM prepaid_ledger"
            " WHERE account = {account:String} AND component != '' GROUP BY day) AS costs ON costs.day = days.day ORDER BY day, unit"
        )
        rows = self.reader.rows(sql, {"account": account, "first": str(first), "last": str(last)})
        return [self.in_currency(row, "cost") for row in rows]

    def ledger(self, account: str, since: datetime | None, until: datetime | None, after: int, limit: int) -> list[dict[str, Any]]:
        """Postings in the order they were made."""
        where, parameters = ["account = {account:String}", "sequence > {after:Int64}"], dict[str, Any](account=account, after=after)
        for name, moment, sign in (("since", since, ">="), ("until", until, "<")):
            if moment is not None:
                where.append(f"at {sign} {{{name}:DateTime('UTC')}}")
                parameters[name] = int(moment.timestamp())
        sql = f"SELECT * FROM prepaid_ledger WHERE {' AND '.join(where)} ORDER BY sequence LIMIT {limit}"
        return [self.in_currency(row, "amount", "change", "balance") for row in self.reader.rows(sql, parameters)]

    def outcome(self, id: str) -> dict[str, Any] | None:
        """What became of a request; None: not decided yet. Of several outcomes the first real one counts: repeats come behind it."""
        order = "status IN ('duplicate', 'conflict'), at"
        found = self.reader.rows(f"SELECT * FROM prepaid_outcome_log FINAL WHERE id = {{id:String}} ORDER BY {order} LIMIT 1", {"id": id})
        return self.in_currency(found[0], "balance") if found else None

    # --- requests -----------------------------------------------------------------------------------------------------------------

    def amount(self, text: str | None, *, signed: bool = False) -> int | None:
        """Decimal text as whole smallest units. Raises Problem 422."""
        if text is None:
            return None
        try:
            whole = self.settings.currency.whole(str(Decimal(text)))
        except (InvalidOperation, ValueError):
            raise ProblemError(422, "not-valid", f"amount: {text[:40]!r} is no amount in {self.settings.currency.code}") from None
        if whole < 0 and not signed:
            raise ProblemError(422, "not-valid", "amount: must not be negative")
        return whole

    def submit(self, account: str, action: str, key: str | None, **fields: Any) -> tuple[int, dict[str, Any]]:
        """Hands a request to the engine and waits for what becomes of it: (HTTP status, answer). Raises Problem 409, 422, 503.

        With a ``key`` the same request may be sent any number of times; another one under the same key is refused.
        """
        id = identity("prepaid", account, action, key or uuid.uuid4().hex)
        terms = fields.pop("terms", None)
        blank = {"amount": None, "channel": "", "reference": "", "reason": "", "user": "", "approver": ""}
        given = {name: value for name, value in fields.items() if value is not None}
        body = {
            **blank, **given, "id": id, "account": account, "action": action,
            "terms": orjson.dumps(terms, option=orjson.OPT_SORT_KEYS).decode() if terms else "",
        }  # fmt: skip
        known = self.outcome(id)
        try:
            sent = self.writer.write(TOPIC, self.codec.encode("PrepaidRequest", body), key=account.encode(), headers={"id": id.encode()})
            sent.result(self.writer.timeout + 5)
        except RefusedError as error:
            raise ProblemError(413, "too-large", str(error)) from error
        except PublishError as error:
            raise ProblemError(503, "kafka-away", "Kafka does not take requests now; try again.", headers={"Retry-After": "5"}) from error
        return self._answer(id, known)

    def _answer(self, id: str, known: dict[str, Any] | None) -> tuple[int, dict[str, Any]]:
        """Waits for the outcome; for the second of a request that was known already."""
        deadline, pause = time.monotonic() + self.patience, 0.05
        while True:
            rows = self.reader.rows("SELECT status, detail FROM prepaid_outcome_log FINAL WHERE id = {id:String} ORDER BY at", {"id": id})
            statuses = {row["status"]: row["detail"] for row in rows}
            if "conflict" in statuses and known is not None:
                raise ProblemError(409, "conflict", f"Another request was made under this key: {statuses['conflict']}.")
            decided = self.outcome(id)
            if decided is not None and decided["status"] == "refused":
                raise ProblemError(422, "refused", f"{decided['detail'][:1].upper()}{decided['detail'][1:]}.", request=id)
            if decided is not None and (known is None or "duplicate" in statuses or decided["status"] in _STATUS):
                return (200 if known is not None else _STATUS.get(decided["status"], 200)), decided
            if time.monotonic() > deadline:
                return 202, {"id": id, "status": "accepted"}
            time.sleep(pause)
            pause = min(pause * 1.5, 0.5)
