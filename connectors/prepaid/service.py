"""Prepaid accounts as portals and billing systems ask for them: requests go through Kafka, answers come from the store."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import orjson

from connectors.head_end.desk import Reader
from connectors.head_end.outcomes import awaited, send
from connectors.head_end.problems import ProblemError
from connectors.head_end.publish import RefusedError, Writer, check_label
from connectors.prepaid.questions import Questions
from connectors.rights.principal import acting, vouched
from schemas.codec import Codec
from schemas.identity import identity
from schemas.topology.prepaid import PrepaidSettings
from streams.prepaid.requests import content_of

TOPIC: Final = "prepaid.requests"
PATIENCE: Final = 5.0  # seconds until a request that is not decided is answered with its id alone
_STATUS: Final = {"posted": 201, "done": 200}
_DONE: Final = frozenset(_STATUS)
UNKNOWN: Final = "is not a prepaid account here"  # as the engine says it


class PrepaidService(Questions):
    """What the routes of the prepaid API do. Everything blocks: call it from threads."""

    def __init__(self, settings: PrepaidSettings, reader: Reader, writer: Writer, codec: Codec, patience: float = PATIENCE) -> None:
        super().__init__(settings, reader)
        self.writer, self.codec, self.patience = writer, codec, patience

    def outcome(self, id: str) -> dict[str, Any] | None:
        """What became of a request; None: not decided yet. What was carried out counts before what was refused at first."""
        rows = self._outcomes(id)
        found = next((row for row in rows if row["status"] in _DONE), None) or next(
            (r for r in reversed(rows) if r["status"] == "refused"), None
        )
        return None if found is None else self.in_currency(found, "balance")

    def _outcomes(self, id: str) -> list[dict[str, Any]]:
        return self.reader.rows("SELECT * FROM prepaid_outcome_log FINAL WHERE id = {id:String} ORDER BY at", {"id": id})

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
        """Hands a request to the engine and waits for what becomes of it: (HTTP status, answer). Raises Problem 404, 409, 413, 422, 503.

        With a ``key`` the same request may be sent any number of times and is carried out once; another one under the same key is
        refused. What was refused may be sent again: it is looked at anew.
        """
        if "user" in fields:
            fields["user"] = acting(str(fields["user"]))
        if fields.get("approver"):
            fields["approver"] = vouched(str(fields["approver"]))
        return self._submit(account, action, key, fields)

    def approved(self, order: str, asked: Mapping[str, Any], user: str, approver: str) -> dict[str, Any]:
        """Carries out an adjustment that two people stand for, once however often it is called. Raises as ``submit``."""
        about = {"amount": asked["amount"], "reason": asked["reason"], "user": user, "approver": approver}
        return self._submit(asked["account"], "adjustment", order, about)[1]

    def _submit(self, account: str, action: str, key: str | None, fields: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        body = self._request(account, action, key, fields)
        id, content = body["id"], content_of(body)
        known = self._outcomes(id)
        done = next((row for row in known if row["status"] in _DONE), None)
        if done is not None:
            if done["content"] != content:
                raise conflict()
            return 200, self.in_currency(done, "balance")
        refused = max((row["at"] for row in known if row["status"] == "refused"), default=None)
        send(self.writer, self.codec, [(TOPIC, "PrepaidRequest", body, account, _message(body))])
        return self._answer(id, content, refused)

    def _request(self, account: str, action: str, key: str | None, fields: dict[str, Any]) -> dict[str, Any]:
        """The record of a request; its id follows from account, action and key."""
        terms = fields.pop("terms", None)
        blank = {"amount": None, "channel": "", "reference": "", "reason": "", "user": "", "approver": ""}
        given = {name: value for name, value in fields.items() if value is not None}
        for name in ("channel", "reference", "reason", "user", "approver"):
            try:
                check_label(name, str(given.get(name, "")))
            except RefusedError as error:
                raise ProblemError(422, "not-valid", str(error)) from None
        return {
            **blank, **given, "id": identity("prepaid", account, action, key or uuid.uuid4().hex), "account": account, "action": action,
            "terms": orjson.dumps(terms, option=orjson.OPT_SORT_KEYS).decode() if terms else "",
        }  # fmt: skip

    def _answer(self, id: str, content: str, refused: datetime | None) -> tuple[int, dict[str, Any]]:
        """Waits for the outcome of this very content; ``refused``: when it was refused before."""

        def no(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
            return next((row for row in reversed(rows) if row["status"] == "refused" and row["content"] == content), None)

        def decided() -> dict[str, Any] | None:
            rows = self._outcomes(id)
            if any(row["status"] == "conflict" and row["content"] == content for row in rows):
                raise conflict()
            done = next((row for row in rows if row["status"] in _DONE and row["content"] == content), None)
            again = no(rows)
            return done or (again if again is not None and (refused is None or again["at"] > refused) else None)

        found = awaited(decided, self.patience)
        if found is None:  # refused at the same tick as before: there is no later refusal to wait for
            found = no(self._outcomes(id))
        if found is None:
            return 202, {"id": id, "status": "accepted"}
        if found["status"] in _DONE:
            return _STATUS[found["status"]], self.in_currency(found, "balance")
        text = f"{found['detail'][:1].upper()}{found['detail'][1:]}."
        raise ProblemError(*((404, "not-found") if found["detail"].endswith(UNKNOWN) else (422, "refused")), text, request=id)


def conflict() -> ProblemError:
    """The answer to another request under a key that is known."""
    return ProblemError(409, "conflict", "Another request was made under this Idempotency-Key: take a new one for a new request.")


def _message(body: Mapping[str, Any]) -> str:
    """Each try is a message of its own; the engine tells repeats by the id of the request."""
    return f"{body['id']}-{uuid.uuid4().hex[:12]}"
