"""The pages of the portal. What a customer sees follows from the session alone: no page takes an account from outside."""

from __future__ import annotations

import hmac
import secrets as chance
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from importlib.resources import files
from typing import Annotated, Any, Final, Literal, TypeVar
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import orjson
import structlog
from fastapi import APIRouter, Form, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.concurrency import run_in_threadpool

from connectors.clickhouse.store import StoreError
from connectors.head_end.problems import ProblemError
from connectors.prepaid.courier import Courier
from connectors.prepaid.portal.charts import Bar, bars
from connectors.prepaid.portal.colours import style_of
from connectors.prepaid.portal.desk import PortalDesk, TooManyError
from connectors.prepaid.portal.payments import CALLBACK, DEMO, Payments, Provider
from connectors.prepaid.questions import local
from connectors.prepaid.routes import statement_response
from connectors.prepaid.service import PrepaidService
from connectors.prepaid.texts import Texts
from connectors.subscribers import signing
from schemas.topology.portal import LANGUAGES

COOKIE: Final = "mdh_portal"
LANGUAGE: Final = "mdh_portal_language"
PAGE: Final = 50
HOUR_DAYS: Final = 7  # most days shown by the hour
log = structlog.get_logger(__name__)
Text = Annotated[str, Form(max_length=255)]
Served = TypeVar("Served", bound=Response)


class Portal:
    """Everything behind the pages."""

    def __init__(self, service: PrepaidService, desk: PortalDesk, courier: Courier, provider: Provider | None) -> None:
        self.service, self.desk, self.courier, self.provider = service, desk, courier, provider
        self.settings = service.settings.portal
        self.payments = Payments(service, desk, provider) if provider else None
        self._senders = ThreadPoolExecutor(2, thread_name_prefix="portal-codes")
        self._pages = Environment(
            loader=PackageLoader("connectors.prepaid.portal"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )
        sheet = (files("connectors.prepaid.portal") / "static" / "portal.css").read_text()
        self.style = sheet + style_of(self.settings.accent)
        pay = self.settings.payments
        paying = f" {urlsplit(pay.url).scheme}://{urlsplit(pay.url).netloc}" if pay is not None and pay.url else ""
        frames = " ".join(self.settings.embed) or "'none'"
        self.policy = "; ".join(
            ("default-src 'none'", "style-src 'self'", "img-src 'self' data:", "base-uri 'none'", f"form-action 'self'{paying}",
             f"frame-ancestors {frames}")
        )  # fmt: skip

    def close(self) -> None:
        """Waits for codes that are being sent."""
        self._senders.shutdown(wait=True, cancel_futures=True)
        self.desk.close()

    def origin(self, request: Request) -> str:
        """Where the portal is reached."""
        return self.settings.origin or f"{request.url.scheme}://{request.url.netloc}"

    # --- answers ----------------------------------------------------------------------------------------------------------------------

    def show(self, request: Request, name: str, *, status: int = 200, token: str = "", **values: Any) -> HTMLResponse:
        """A page in the language of the reader. ``token`` makes a session cookie where there is none."""
        held = token or request.cookies.get(COOKIE, "")
        fresh = not held
        held = held or chance.token_urlsafe(32)
        account = values.pop("account", None) or getattr(request.state, "account", None)
        page = self._pages.get_template(f"{name}.html").render(
            t=self.texts(request), portal=self.settings, form=self.desk.form_token(held), page=name, account=account,
            **({"again": False, "error": "", "note": ""} | values),
        )  # fmt: skip
        response = HTMLResponse(page, status)
        if fresh or token:
            self.set_cookie(response, request, COOKIE, held)
        if request.query_params.get("lang") in LANGUAGES:
            self.set_cookie(response, request, LANGUAGE, request.query_params["lang"], 365 * 86_400)
        return self.guarded(response)

    def guarded(self, response: Served) -> Served:
        """The headers that every page has."""
        response.headers["content-security-policy"] = self.policy
        response.headers["cache-control"] = "no-store"
        response.headers["x-content-type-options"] = "nosniff"
        response.headers["referrer-policy"] = "same-origin"
        return response

    def set_cookie(self, response: Response, request: Request, name: str, value: str, age: int | None = None) -> None:
        """A cookie no script can read; inside other sites only where the settings allow that."""
        secure = self.origin(request).startswith("https://")
        same = "None; Partitioned" if self.settings.embed else "Lax"
        parts = [f"{name}={value}", "Path=/portal", "HttpOnly", f"SameSite={same}"]
        parts += ["Secure"] if secure else []
        parts += [f"Max-Age={age}"] if age is not None else []
        response.headers.append("set-cookie", "; ".join(parts))

    def texts(self, request: Request) -> Texts:
        """The texts in the language that was chosen, else that of the settings."""
        chosen = request.query_params.get("lang") or request.cookies.get(LANGUAGE) or self.settings.language
        return Texts(chosen if chosen in LANGUAGES else self.settings.language)

    # --- who ----------------------------------------------------------------------------------------------------------------------------

    def account(self, request: Request) -> str:
        """The account of the session. Raises SignInError where there is none."""
        account = self.desk.account_of(request.cookies.get(COOKIE, ""))
        if account is None:
            raise SignInError
        request.state.account = account
        return account

    def check_form(self, request: Request, form: str) -> None:
        """Raises OldFormError unless the form was made for this session, and sent by a page of ours."""
        token = request.cookies.get(COOKIE, "")
        origin = request.headers.get("origin")
        ours = origin in (None, self.origin(request))
        if not token or not ours or not hmac.compare_digest(self.desk.form_token(token).encode(), form.encode()):
            raise OldFormError

    def send_code(self, account: str, address: str) -> None:
        """Sends a code where the account is one of ours; whoever asks cannot tell."""
        code = self.desk.new_code(account, address)
        if code is not None:
            self._senders.submit(self._send, account, code)

    def _send(self, account: str, code: str) -> None:
        try:
            self.service.account(account)
            if not self.courier.send_code(account, code, chance.token_hex(12)):
                log.warning("no way to send a sign-in code", account=account)
        except ProblemError:
            pass  # no account of ours
        except Exception as error:
            log.error("a sign-in code was not sent", reason=str(error)[:200])

    # --- what is shown ------------------------------------------------------------------------------------------------------------------

    def today(self, about: Mapping[str, Any]) -> date:
        """The last local day of which something can be known."""
        return datetime.now(ZoneInfo(about["zone"] or "UTC")).date()

    def latest(self, about: Mapping[str, Any]) -> date:
        """The last day with consumption, else today."""
        until = about["measured_until"]
        return self.today(about) if until is None else (local(until, about["zone"]) - timedelta(seconds=1)).date()

    def notices(self, about: Mapping[str, Any], texts: Texts, before: int, limit: int) -> list[dict[str, Any]]:
        """Notices as sentences, newest first."""
        rows = self.service.newest_notices(about["account"], before, limit)
        return [{**row, "text": texts.notice(row, self.service.settings.currency, about["zone"])} for row in rows]

    def rows(
        self, texts: Texts, found: Sequence[Mapping[str, Any]], grain: str, code: str
    ) -> tuple[list[dict[str, Any]], list[Bar], list[Bar]]:
        """Usage as lines of a table, bars of consumption and bars of cost; of several units the first that has a cost."""
        units = [(row["cost"] is None, row["unit"]) for row in found if row["unit"]]
        unit = min(units, key=lambda one: one[0])[1] if units else ""
        lines, quantities, costs = [], [], []
        for row in found:
            if row["unit"] not in (unit, None):
                continue
            if grain == "day":
                day = date.fromisoformat(row["day"])
                when, short = texts.date(day), f"{day.day}.{day.month}."
            else:
                at = datetime.fromisoformat(row["local"])
                when, short = at.strftime("%Y-%m-%d %H:%M"), at.strftime("%H")
            faint = bool(row.get("provisional"))
            quantity = "" if row["quantity"] is None else f"{row['quantity']} {unit}"
            cost = "" if row["cost"] is None else texts.money(row["cost"], code)
            lines.append({"when": when, "quantity": quantity, "cost": cost, "faint": faint})
            about = f"{when}: {' · '.join(part for part in (quantity, cost) if part)}"
            quantities.append(Bar(short, Decimal(row["quantity"] or 0), about, faint))
            if row["cost"] is not None:
                costs.append(Bar(short, Decimal(row["cost"]), about, faint))
        return lines, quantities, costs


class SignInError(Exception):
    """Nobody is signed in."""


class OldFormError(Exception):
    """A form that was not made for this session."""


def routes(portal: Portal | None) -> APIRouter:
    """The routes of the portal; none where it is off. They are for browsers and no part of the published API."""
    return APIRouter() if portal is None else _routes(portal)


def _routes(portal: Portal) -> APIRouter:

    class Page(APIRoute):
        """A route whose errors are pages."""

        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            inner = super().get_route_handler()

            async def handle(request: Request) -> Response:
                try:
                    return await inner(request)
                except Exception as error:
                    return await run_in_threadpool(_said, portal, request, error)

            return handle

    router = APIRouter(prefix="/portal", route_class=Page, include_in_schema=False)
    for part in (_sign_in, _home, _recharge, _history):
        part(router, portal)
    if portal.payments is not None and portal.settings.payments is not None and portal.settings.payments.kind == "demo":
        _demo(router, portal, portal.payments)
    whole = APIRouter(include_in_schema=False)
    whole.include_router(router)
    if portal.payments is not None:
        _callback(whole, portal.payments)
    return whole


def _said(portal: Portal, request: Request, error: Exception) -> Response:
    """An error as a page that says what to do."""
    texts = portal.texts(request)
    if isinstance(error, SignInError):
        return portal.guarded(RedirectResponse("/portal/signin", 303))
    if isinstance(error, OldFormError):
        return portal.show(request, "error", status=403, said=texts("form.old"))
    if isinstance(error, ProblemError) and error.status < 500:
        return portal.show(request, "error", status=error.status, said=texts("notfound") if error.status == 404 else error.detail)
    if isinstance(error, RequestValidationError):
        return portal.show(request, "error", status=422, said=texts("notfound"))
    if isinstance(error, ProblemError | StoreError):
        return portal.show(request, "error", status=503, said=texts("away"))
    raise error


def _sign_in(router: APIRouter, portal: Portal) -> None:
    def address(request: Request) -> str:
        return request.client.host if request.client else ""

    @router.get("/style.css")
    def style() -> Response:
        headers = {"cache-control": "max-age=3600", "x-content-type-options": "nosniff"}
        return Response(portal.style, media_type="text/css; charset=utf-8", headers=headers)

    @router.get("/signin")
    def get_sign_in(request: Request, out: bool = False) -> Response:
        return portal.show(request, "signin", asked="", note=portal.texts(request)("signedout") if out else "")

    @router.post("/signin")
    def post_sign_in(request: Request, account: Text, form: Text) -> Response:
        portal.check_form(request, form)
        portal.send_code(account.strip(), address(request))
        note = portal.texts(request)("signin.sent", minutes=portal.settings.code_life // 60)
        return portal.show(request, "signin", asked=account.strip(), note=note)

    @router.post("/signin/code")
    def post_code(request: Request, account: Text, code: Text, form: Text) -> Response:
        portal.check_form(request, form)
        texts = portal.texts(request)
        try:
            token = portal.desk.enter(account, code.strip(), address(request))
        except TooManyError:
            return portal.show(request, "signin", status=429, asked=account, error=texts("signin.many"))
        if token is None:
            return portal.show(request, "signin", status=403, asked=account, error=texts("signin.wrong"))
        response = portal.guarded(RedirectResponse("/portal", 303))
        portal.set_cookie(response, request, COOKIE, token)  # another one than before: nobody can have planted it
        return response

    @router.post("/signout")
    def post_sign_out(request: Request, form: Text) -> Response:
        portal.check_form(request, form)
        portal.desk.end(request.cookies.get(COOKIE, ""))
        response = portal.guarded(RedirectResponse("/portal/signin?out=true", 303))
        portal.set_cookie(response, request, COOKIE, "", 0)
        return response


def _home(router: APIRouter, portal: Portal) -> None:
    @router.get("")
    def get_home(request: Request) -> Response:
        about = portal.service.account(portal.account(request))
        texts = portal.texts(request)
        last = portal.latest(about)
        found = portal.service.usage(about["account"], last - timedelta(days=13), last, "day")
        _, quantities, costs = portal.rows(texts, found, "day", about["currency"])
        shown, what, unit = (costs, "usage.cost", about["currency"]) if costs else (quantities, "usage.quantity", "")
        chart = _chart(texts, shown, what, unit, last - timedelta(days=13), last) if shown else None
        return portal.show(request, "home", about=about, chart=chart, notices=portal.notices(about, texts, 0, 5))

    @router.get("/usage")
    def get_usage(request: Request, grain: Literal["day", "hour"] = "day") -> Response:
        about = portal.service.account(portal.account(request))
        texts = portal.texts(request)
        until = _day(request.query_params.get("to")) or portal.latest(about)
        since = _day(request.query_params.get("from")) or until - timedelta(days=30 if grain == "day" else 0)
        if grain == "hour" and (until - since).days >= HOUR_DAYS:
            since = until - timedelta(days=HOUR_DAYS - 1)
        values: dict[str, Any] = {"grain": grain, "first": since, "last": until, "rows": [], "total": ""}
        try:
            found = portal.service.usage(about["account"], since, until, grain)
        except ProblemError as error:
            return portal.show(request, "usage", status=error.status, **(values | {"error": error.detail}))
        lines, quantities, costs = portal.rows(texts, found, grain, about["currency"])
        unit = next((row["unit"] for row in found if row["unit"]), "")
        cost = texts.money(f"{sum((bar.value for bar in costs), Decimal(0)):f}", about["currency"])
        together = f"{sum((bar.value for bar in quantities), Decimal(0)):f} {unit}"
        values |= {
            "rows": lines, "total": texts("usage.total", quantity=together, cost=cost),
            "quantities": _chart(texts, quantities, "usage.quantity", unit, since, until),
            "costs": _chart(texts, costs, "usage.cost", about["currency"], since, until) if costs else None,
        }  # fmt: skip
        return portal.show(request, "usage", **values)


def _chart(texts: Texts, shown: Sequence[Bar], what: str, unit: str, first: date, last: date) -> Markup:
    most = max((bar.value for bar in shown), default=Decimal(0))
    title = texts("usage.chart", what=texts(what), first=texts.date(first), last=texts.date(last), most=f"{most:f} {unit}")
    return Markup(bars(shown, title, unit))


def _recharge(router: APIRouter, portal: Portal) -> None:
    currency = portal.service.settings.currency

    @router.get("/recharge")
    def get_recharge(request: Request) -> Response:
        portal.account(request)
        return portal.show(request, "recharge", status=200, currency=currency.code, amount="", **_nothing())

    @router.post("/recharge")
    def post_recharge(request: Request, amount: Text, form: Text) -> Response:
        portal.check_form(request, form)
        account = portal.account(request)
        whole = _amount(portal, amount)
        if whole is None or portal.provider is None:
            settings = portal.service.settings
            said = portal.texts(request)("recharge.bad", least=settings.topup_least, most=settings.topup_most, currency=currency.code)
            return portal.show(request, "recharge", status=422, currency=currency.code, amount=amount, **(_nothing() | {"error": said}))
        payment = portal.desk.new_payment(account, currency.text(whole))
        return portal.guarded(RedirectResponse(portal.provider.page(payment, currency.code, portal.origin(request)), 303))

    @router.get("/recharge/{id}")
    def get_payment(request: Request, id: str) -> Response:
        account, payment = portal.account(request), portal.desk.payment(id)
        if payment is None or payment.account != account:
            raise ProblemError(404, "not-found", "There is no such payment.")
        texts = portal.texts(request)
        said = {
            "open": lambda: texts("recharge.waiting"), "failed": lambda: texts("recharge.failed"),
            "paid": lambda: texts("recharge.paid", amount=texts.money(payment.amount, currency.code)),
            "refused": lambda: texts("recharge.refused", reason=payment.detail),
        }[payment.status]()  # fmt: skip
        values = {"currency": currency.code, "amount": "", "said": said, "again": payment.status == "open"}
        return portal.show(request, "recharge", **(_nothing() | values | {"status_of": payment.status}))


def _nothing() -> dict[str, Any]:
    return {"status_of": "", "said": "", "error": ""}


def _amount(portal: Portal, text: str) -> int | None:
    """An amount as customers write it; None where it is none that can be paid."""
    settings = portal.service.settings
    whole = settings.currency.whole
    try:
        amount = whole(str(Decimal(text.strip().replace(",", "."))))
    except (InvalidOperation, ValueError):
        return None
    return amount if whole(settings.topup_least) <= amount <= whole(settings.topup_most) else None


def _history(router: APIRouter, portal: Portal) -> None:
    @router.get("/history")
    def get_history(request: Request, before: int = 0) -> Response:
        about = portal.service.account(portal.account(request))
        rows = portal.service.newest_postings(about["account"], before, PAGE)
        last = portal.today(about)
        older = int(rows[-1]["sequence"]) if len(rows) == PAGE else 0
        return portal.show(request, "history", rows=rows, before=older, zone=about["zone"], first=last.replace(day=1), last=last)

    @router.get("/notices")
    def get_notices(request: Request, before: int = 0) -> Response:
        about = portal.service.account(portal.account(request))
        found = portal.notices(about, portal.texts(request), before, PAGE)
        older = int(found[-1]["at"].timestamp()) if len(found) == PAGE else 0
        return portal.show(request, "notices", notices=found, before=older, zone=about["zone"])

    @router.get("/statement")
    def get_statement(request: Request, format: Literal["csv", "pdf"] = "pdf") -> Response:
        account = portal.account(request)
        last = _day(request.query_params.get("to")) or portal.today(portal.service.account(account))
        first = _day(request.query_params.get("from")) or last.replace(day=1)
        found = portal.service.statement(account, first, last)
        return statement_response(found, format, portal.texts(request), portal.settings.title)


def _day(text: str | None) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise ProblemError(422, "not-valid", f"{text[:20] if text else ''!r} is not a date") from None


def _demo(router: APIRouter, portal: Portal, payments: Payments) -> None:
    """The provider's side of the demo: the very protocol of a real one, without money."""
    names = ("id", "account", "amount", "currency", "callback", "return", "signature")

    def signed(given: Mapping[str, str]) -> dict[str, str]:
        known = {name: str(given.get(name, "")) for name in names}
        if not hmac.compare_digest(payments.provider.sign(known).encode(), known["signature"].encode()):
            raise ProblemError(404, "not-found", "There is no such payment.")
        return known

    path = DEMO.removeprefix("/portal")

    @router.get(path)
    def get_page(request: Request) -> Response:
        return portal.show(request, "demo", given=signed(dict(request.query_params)))

    @router.post(path)
    async def post_choice(request: Request) -> Response:
        form = {name: str(value) for name, value in (await request.form()).items()}
        given = signed(form)
        said = {name: given[name] for name in ("id", "account", "amount", "currency")}
        body = orjson.dumps({**said, "status": "paid" if form.get("choice") == "paid" else "failed"})
        now = int(time.time())
        headers = signing.headers(payments.provider.keys(), f"demo-{given['id']}", now, body)
        try:
            await run_in_threadpool(payments.callback, headers, body, now)
        except ProblemError as error:
            if error.status != 422:
                raise
        return portal.guarded(RedirectResponse(given["return"], 303))


def _callback(router: APIRouter, payments: Payments) -> None:
    @router.post(CALLBACK)
    async def post_callback(request: Request) -> dict[str, Any]:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > 16_384:
                raise ProblemError(413, "too-large", "A callback has at most 16 KiB.")
        return await run_in_threadpool(payments.callback, dict(request.headers), body, int(time.time()))
