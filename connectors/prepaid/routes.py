"""The prepaid API: what portals, payment providers and billing systems call."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Annotated, Any, Final, Literal, cast

from fastapi import APIRouter, Header, Path, Query
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError

from connectors.head_end import problems
from connectors.head_end.listing import readable
from connectors.head_end.problems import ProblemError
from connectors.prepaid.adjustments import Adjustments
from connectors.prepaid.contacts import Contacts
from connectors.prepaid.documents import (
    AdjustmentRequest,
    BalanceAnswer,
    CloseRequest,
    CommandOrder,
    ContactRequest,
    DebtRequest,
    HoldRequest,
    ListAnswer,
    ModeRequest,
    OrderAnswer,
    OutcomeAnswer,
    ReversalRequest,
    TopupRequest,
    TryRequest,
    UserRequest,
)
from connectors.prepaid.explain import Explaining
from connectors.prepaid.questions import ACCOUNTS, LEDGER, NOTICES
from connectors.prepaid.service import PrepaidService
from connectors.prepaid.texts import Texts
from connectors.rights.scope import require_within
from schemas.topology.portal import Language
from schemas.topology.prepaid import Tariff

PREFIX: Final = "/v1/prepaid"
Account = Annotated[str, Path(max_length=255, description="the account: a usage subscription", examples=["a-1001"])]
Key = Annotated[
    str | None, Header(alias="Idempotency-Key", max_length=255, description="repeats of a request under its key are carried out once")
]
Since = Annotated[datetime | None, Query(alias="from", description="ISO time, inclusive; without zone: UTC")]
Until = Annotated[datetime | None, Query(alias="to", description="ISO time, exclusive")]
First = Annotated[date | None, Query(alias="from", description="first local day; left out: 30 days before `to`")]
Last = Annotated[date | None, Query(alias="to", description="last local day; left out: the day of the account's `as_of`")]
Cursor = Annotated[str | None, Query(max_length=4000, description="`next` of the page before")]
Limit = Annotated[int, Query(ge=1, le=10_000)]
Text = Annotated[str | None, Query(max_length=255)]
_DECISIONS: Final = problems.responses(403, 404, 409, 422, 503)
Order = Annotated[str, Path(max_length=64, description="id of the adjustment")]
_ERRORS: Final = problems.responses(404, 422, 503)
_WRITES: Final[dict[int | str, dict[str, Any]]] = {
    **problems.responses(404, 409, 413, 422, 503),
    200: {"model": OutcomeAnswer, "description": "carried out, or known from before"},
    201: {"model": OutcomeAnswer, "description": "posted"},
    202: {"model": OutcomeAnswer, "description": "taken, not decided yet: ask for `/requests/{id}`"},
}


class Desk:
    """What stands behind the routes."""

    def __init__(self, service: PrepaidService, contacts: Contacts, adjustments: Adjustments) -> None:
        self.service, self.contacts, self.explaining, self.adjustments = service, contacts, Explaining(service), adjustments

    def ask(self, account: str, action: str, key: str | None, **fields: Any) -> JSONResponse:
        """Hands a request in; the answer with its status. Raises Problem."""
        status, found = self.service.submit(account, action, key, **fields)
        headers = {"Location": f"{PREFIX}/requests/{found['id']}"}
        return JSONResponse(_outcome(found).model_dump(mode="json"), status, headers)

    def days(self, account: str, first: date | None, last: date | None) -> tuple[date, date]:
        """The days that are meant where some are left out. Raises Problem 404."""
        about = self.service.account(account)
        last = last or about["as_of"].date()
        return first or last - timedelta(days=30), last


def _outcome(found: Mapping[str, Any]) -> OutcomeAnswer:
    return OutcomeAnswer(**{name: value for name, value in readable(found).items() if name != "content"})


def routes(desk: Desk | None) -> APIRouter:
    """The routes; ``desk`` None: only described."""
    router = APIRouter(prefix=PREFIX, tags=["prepaid"])
    for part in (_questions, _usage, _money, _supply, _life, _proofs):
        part(router, cast(Desk, desk))
    return router


def _questions(router: APIRouter, desk: Desk) -> None:
    @router.get("/accounts", summary="Prepaid accounts", responses=problems.responses(422, 503))
    def get_accounts(
        state: Text = None, tariff: Text = None, device: Text = None, service_point: Text = None, cursor: Cursor = None, limit: Limit = 100
    ) -> ListAnswer:
        filters = {"state": state, "tariff": tariff, "device": device, "service_point": service_point}
        return _listed(desk.service.page(ACCOUNTS, filters, None, None, cursor, limit))

    @router.get("/accounts/{id}", summary="An account with all that is known of it", responses=_ERRORS)
    def get_account(id: Account) -> dict[str, Any]:
        return readable(desk.service.account(id))

    @router.get("/accounts/{id}/balance", summary="Balance, days left, state", responses=_ERRORS)
    def get_balance(id: Account) -> BalanceAnswer:
        found = desk.service.account(id)
        return BalanceAnswer(amount=found["balance"], **{name: found[name] for name in BalanceAnswer.model_fields if name != "amount"})

    @router.get("/accounts/{id}/ledger", summary="Postings, oldest first", responses=_ERRORS)
    def get_ledger(
        id: Account, kind: Text = None, since: Since = None, until: Until = None, cursor: Cursor = None, limit: Limit = 100
    ) -> ListAnswer:
        desk.service.account(id)
        return _listed(desk.service.page(LEDGER, {"account": id, "kind": kind}, since, until, cursor, limit))

    @router.get("/accounts/{id}/notices", summary="What the customer was told, and through which channels", responses=_ERRORS)
    def get_notices(
        id: Account, kind: Text = None, since: Since = None, until: Until = None, cursor: Cursor = None, limit: Limit = 100
    ) -> ListAnswer:
        desk.service.account(id)
        page = desk.service.page(NOTICES, {"account": id, "kind": kind}, since, until, cursor, limit)
        sent = desk.service.deliveries([notice["id"] for notice in page["items"]])
        page["items"] = [{**notice, "deliveries": sent.get(notice["id"], [])} for notice in page["items"]]
        return _listed(page)

    @router.get("/accounts/{id}/debts", summary="What is left of each debt", responses=_ERRORS)
    def get_debts(id: Account) -> ListAnswer:
        desk.service.account(id)
        return _listed({"items": desk.service.debts(id), "next": None})

    @router.get("/requests/{id}", summary="What became of a request", responses=_ERRORS)
    def get_request(id: Annotated[str, Path(max_length=64)]) -> OutcomeAnswer:
        found = desk.service.outcome(id)
        require_within(desk.service.reader, ("account", found["account"] if found else ""))
        if found is None:
            raise ProblemError(404, "not-found", "No request of this id is decided yet; one just taken is within seconds.")
        return _outcome(found)

    @router.get("/tariffs", summary="Tariffs by effective date, as in topology.yaml")
    def get_tariffs() -> ListAnswer:
        items = [tariff.model_dump(mode="json", by_alias=True, exclude_defaults=True) for tariff in desk.service.settings.tariffs]
        return ListAnswer(items=items)


def _usage(router: APIRouter, desk: Desk) -> None:
    @router.get("/accounts/{id}/usage", summary="Consumption and cost by local day or hour", responses=_ERRORS)
    def get_usage(id: Account, first: First = None, last: Last = None, grain: Literal["day", "hour"] = "day") -> ListAnswer:
        return _listed({"items": desk.service.usage(id, *desk.days(id, first, last), grain), "next": None})

    @router.get(
        "/accounts/{id}/statement", summary="A statement of account", response_class=Response,
        responses={**_ERRORS, 200: {"content": {"text/csv": {}, "application/pdf": {}}, "description": "the statement"}},
    )  # fmt: skip
    def get_statement(
        id: Account, first: First = None, last: Last = None, format: Literal["csv", "pdf"] = "csv", language: Language | None = None
    ) -> Response:
        settings = desk.service.settings.portal
        found = desk.service.statement(id, *desk.days(id, first, last))
        return statement_response(found, format, Texts(language or settings.language), settings.title)


def statement_response(statement: Mapping[str, Any], format: str, texts: Texts, title: str) -> Response:
    """A statement as a file to save."""
    from connectors.prepaid.statement import as_csv, as_pdf  # what draws pages is large, and few ask for one

    data = as_csv(statement) if format == "csv" else as_pdf(statement, texts, title)
    kind = "text/csv; charset=utf-8" if format == "csv" else "application/pdf"
    name = f"statement-{statement['from']}-{statement['to']}.{format}"
    return Response(data, media_type=kind, headers={"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"})


def _money(router: APIRouter, desk: Desk) -> None:
    @router.post("/accounts/{id}/topups", status_code=201, summary="Credit a payment", responses=_WRITES, response_model=OutcomeAnswer)
    def post_topup(id: Account, asked: TopupRequest, key: Key = None) -> JSONResponse:
        if not (key or asked.external_ref):
            raise ProblemError(422, "no-key", "Send an Idempotency-Key header or external_ref: a payment is credited once.")
        amount = desk.service.amount(asked.amount)
        about = {"channel": asked.channel, "reference": asked.external_ref or key, "user": asked.user}
        return desk.ask(id, "topup", key or asked.external_ref, amount=amount, **about)

    @router.post(
        "/accounts/{id}/topups/{ref}/reversal", status_code=201, summary="Take a bounced payment back", responses=_WRITES,
        response_model=OutcomeAnswer,
    )  # fmt: skip
    def post_reversal(
        id: Account, ref: Annotated[str, Path(max_length=255, description="external_ref, key or request id of the top-up")],
        asked: ReversalRequest, key: Key = None,
    ) -> JSONResponse:  # fmt: skip
        return desk.ask(id, "reversal", key or f"reversal/{ref}", reference=ref, reason=asked.reason, user=asked.user)

    @router.post(
        "/accounts/{id}/adjustments", status_code=201, summary="Correct a balance by hand; above a limit with a second person",
        responses=_WRITES, response_model=OutcomeAnswer,
    )  # fmt: skip
    def post_adjustment(id: Account, asked: AdjustmentRequest, key: Key = None) -> JSONResponse:
        about = {"reason": asked.reason, "user": asked.user, "approver": asked.approver}
        status, found = desk.adjustments.ask(id, asked.amount, key, **about)
        if "state" in found and "decided_by" in found:
            return JSONResponse(found, status, {"Location": f"{PREFIX}/adjustments/{found['id']}"})
        return JSONResponse(_outcome(found).model_dump(mode="json"), status, {"Location": f"{PREFIX}/requests/{found['id']}"})

    @router.get("/adjustments", summary="Adjustments that wait for a second person", responses=problems.responses(503))
    def get_adjustments() -> ListAnswer:
        return ListAnswer(items=desk.adjustments.waiting())

    @router.get("/adjustments/{order}", summary="An adjustment that needs a second person", responses=_ERRORS)
    def get_adjustment(order: Order) -> OrderAnswer:
        return OrderAnswer(**desk.adjustments.find(order))

    @router.post("/adjustments/{order}/approve", summary="Approve an adjustment of somebody else", responses=_DECISIONS)
    def post_approve(order: Order, said: UserRequest) -> OrderAnswer:
        return OrderAnswer(**desk.adjustments.decide(order, said.user, approve=True, reason=said.reason))

    @router.post("/adjustments/{order}/reject", summary="Reject an adjustment that waits", responses=_DECISIONS)
    def post_reject(order: Order, said: UserRequest) -> OrderAnswer:
        return OrderAnswer(**desk.adjustments.decide(order, said.user, approve=False, reason=said.reason))

    @router.post(
        "/accounts/{id}/emergency-credit", status_code=201, summary="Take emergency credit", responses=_WRITES, response_model=OutcomeAnswer
    )
    def post_emergency(id: Account, asked: UserRequest, key: Key = None) -> JSONResponse:
        return desk.ask(id, "emergency", key, reason=asked.reason, user=asked.user)

    @router.put("/accounts/{id}/debts", status_code=201, summary="Add to a debt", responses=_WRITES, response_model=OutcomeAnswer)
    def put_debt(id: Account, asked: DebtRequest, key: Key = None) -> JSONResponse:
        terms = None if asked.per_day is None else {"per_day": desk.service.amount(asked.per_day)}
        amount = desk.service.amount(asked.amount)
        return desk.ask(id, "debt", key, amount=amount, channel=asked.name, reason=asked.reason, user=asked.user, terms=terms)


def _supply(router: APIRouter, desk: Desk) -> None:
    @router.post("/accounts/{id}/hold", summary="Do not cut supply until released", responses=_WRITES, response_model=OutcomeAnswer)
    def post_hold(id: Account, asked: HoldRequest, key: Key = None) -> JSONResponse:
        return desk.ask(id, "hold", key, reason=asked.reason, user=asked.user)

    @router.post("/accounts/{id}/release", summary="End a hold or a trouble", responses=_WRITES, response_model=OutcomeAnswer)
    def post_release(id: Account, asked: UserRequest, key: Key = None) -> JSONResponse:
        return desk.ask(id, "release", key, reason=asked.reason, user=asked.user)

    @router.post(
        "/accounts/{id}/resume", summary="Let posting go on where the books hold again", responses=_WRITES, response_model=OutcomeAnswer
    )
    def post_resume(id: Account, asked: UserRequest, key: Key = None) -> JSONResponse:
        """For all accounts of the partition this one is in."""
        return desk.ask(id, "resume", key, reason=asked.reason, user=asked.user)

    @router.post("/accounts/{id}/commands", summary="Order something of the device", responses=_WRITES, response_model=OutcomeAnswer)
    def post_command(id: Account, asked: CommandOrder, key: Key = None) -> JSONResponse:
        terms = None if asked.watts is None else {"watts": asked.watts}
        action = asked.action.lower().replace("_", "-")
        return desk.ask(id, action, key, reason=asked.reason, user=asked.user, terms=terms)

    @router.get("/accounts/{id}/commands/{command:path}", summary="What became of a device command", responses=_ERRORS)
    def get_command(id: Account, command: Annotated[str, Path(max_length=255)]) -> dict[str, Any]:
        return readable(desk.service.command(id, command))

    @router.get("/commands/{command:path}", summary="What became of a device command of any account", responses=_ERRORS)
    def get_any_command(command: Annotated[str, Path(max_length=255)]) -> dict[str, Any]:
        found = desk.service.command(None, command)
        require_within(desk.service.reader, ("device", found["device"]))
        return readable(found)


def _life(router: APIRouter, desk: Desk) -> None:
    @router.post("/accounts/{id}/mode", summary="Make an account prepaid or postpaid", responses=_WRITES, response_model=OutcomeAnswer)
    def post_mode(id: Account, asked: ModeRequest, key: Key = None) -> JSONResponse:
        if asked.mode == "POSTPAID":
            return desk.ask(id, "postpaid", key, reason=asked.reason, user=asked.user)
        amount = desk.service.amount
        given = {
            "opening": amount(asked.opening), "arrears": amount(asked.arrears), "per_day": amount(asked.arrears_per_day),
            "from": None if asked.first_day is None else asked.first_day.isoformat(),
            **{name: getattr(asked, name) for name in ("tariff", "rate", "load", "zone", "service_point", "device")},
        }  # fmt: skip
        terms = {name: value for name, value in given.items() if value is not None}
        return desk.ask(id, "enrol", key, reason=asked.reason, user=asked.user, terms=terms)

    @router.post("/accounts/{id}/close", summary="Close an account after its last day", responses=_WRITES, response_model=OutcomeAnswer)
    def post_close(id: Account, asked: CloseRequest, key: Key = None) -> JSONResponse:
        terms = None if asked.last_day is None else {"day": asked.last_day.isoformat()}
        return desk.ask(id, "close", key, reason=asked.reason, user=asked.user, terms=terms)

    @router.put("/accounts/{id}/contact", status_code=204, summary="Where the customer is told", responses=_ERRORS)
    def put_contact(id: Account, asked: ContactRequest) -> Response:
        desk.service.account(id)
        desk.contacts.put(id, asked.mail, asked.phone, asked.language, asked.user)
        return Response(status_code=204)

    @router.get("/accounts/{id}/contact", summary="Which ways to the customer are known", responses=_ERRORS)
    def get_contact(id: Account) -> dict[str, Any]:
        desk.service.account(id)
        return desk.contacts.masked(id)


def _proofs(router: APIRouter, desk: Desk) -> None:
    @router.get("/accounts/{id}/replay", summary="A balance posting by posting, with the reads behind it", responses=_ERRORS)
    def get_replay(
        id: Account, after: Annotated[int, Query(ge=0, description="number of the posting before the first")] = 0, limit: Limit = 200
    ) -> dict[str, Any]:
        return readable(desk.explaining.replay(id, after, limit))

    @router.post("/accounts/{id}/try", summary="What past usage would cost by another tariff", responses=_ERRORS)
    def post_try(id: Account, asked: TryRequest) -> dict[str, Any]:
        try:
            tariff = Tariff.model_validate(asked.tariff)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ProblemError(422, "not-valid", f"tariff{'.' if where else ''}{where}: {first['msg']}") from None
        return readable(desk.explaining.attempt(id, tariff, asked.first, asked.last))

    @router.get("/verify", summary="Prove the ledger anew: chains, double entry, balances", responses=problems.responses(503))
    def get_verify(account: Text = None) -> dict[str, Any]:
        return desk.explaining.verify(account)


def _listed(page: Mapping[str, Any]) -> ListAnswer:
    return ListAnswer(items=[readable(row) for row in page["items"]], next=page["next"])
