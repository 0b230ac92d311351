"""The doors of the console. Pages are made here; what people change goes from the browser to the API, as everybody's changes do."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote, urlencode
from zoneinfo import ZoneInfo

import orjson
import structlog
from fastapi import APIRouter, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, StreamingResponse
from fastapi.routing import APIRoute
from markupsafe import Markup
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from connectors.clickhouse.store import StoreError
from connectors.console import figures, meter, queue, settings
from connectors.console.charts import curve_chart
from connectors.console.curve import Curve, load_curve
from connectors.console.lists import LISTS, List, page
from connectors.console.part import Console
from connectors.console.words import catalogue, quality, zone_of
from connectors.head_end.problems import ProblemError
from connectors.rights.principal import current, principal
from schemas import metrics
from streams.vee.rules import ESTIMATIONS

log = structlog.get_logger(__name__)
t = catalogue()
METHODS: Final = (*ESTIMATIONS, "outage-zero")
STATIC: Final = Path(__file__).resolve().parent / "static"
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Viewer:
    """Who looks: the name the guard in front of the interface found, empty on an open hub."""

    def __init__(self, request: Request) -> None:
        found = principal(request)
        self.name = "" if found.via == "open" else found.name


class Pages:
    """Answers with templates."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def show(self, request: Request, template: str, page: str = "", status: int = 200, **values: Any) -> HTMLResponse:
        """A page, or a piece of one."""
        made = self.console.templates.get_template(template)
        text = made.render(page=page, user=Viewer(request), now=datetime.now(UTC), zone=self.console.topology.zone, **values)
        return HTMLResponse(text, status, HEADERS)

    def failed(self, request: Request, status: int, key: str, detail: str = "") -> HTMLResponse:
        """An error for people; of a piece of a page only the words."""
        piece = "X-Piece" in request.headers
        return self.show(request, "piece_error.html" if piece else "error.html", "", status, key=key, detail=detail)


def route_class(pages: Pages) -> type[APIRoute]:
    """Routes whose errors are pages, not problem documents."""

    class Page(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            inner = super().get_route_handler()

            async def handle(request: Request) -> Response:
                try:
                    return await inner(request)
                except StoreError as error:
                    log.warning("a page of the console got no answer from the store", path=request.url.path, reason=str(error))
                    return pages.failed(request, 503 if error.away else 500, "error.store" if error.away else "error.what")
                except ProblemError as error:
                    return pages.failed(request, error.status, "error.denied" if error.status == 403 else "error.title", error.detail)
                except HTTPException as error:
                    return pages.failed(
                        request, error.status_code, "error.lost" if error.status_code == 404 else "error.title", error.detail
                    )
                except RequestValidationError as error:
                    said = "; ".join(f"{entry['loc'][-1]}: {entry['msg']}" for entry in error.errors())
                    return pages.failed(request, 422, "error.title", said)

            return handle

    return Page


def routes(console: Console | None) -> APIRouter:
    """All pages under ``/console``; the console is None where only the interface is described."""
    pages = Pages(console) if console is not None else Pages.__new__(Pages)
    router = APIRouter(route_class=route_class(pages), include_in_schema=False)
    _front(router, pages)
    _dashboard(router, pages)
    _todos(router, pages)
    _meters(router, pages)
    _rules(router, pages)
    _operations(router, pages)
    for name, spec in LISTS.items():
        _list(router, pages, name, spec)
    return router


def _front(router: APIRouter, pages: Pages) -> None:
    @router.get("/")
    def root(request: Request) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            return RedirectResponse("/console/", 307)
        return JSONResponse({"name": "meter-data-hub", "console": "/console/", "api": "/docs"})

    @router.get("/console")
    def front() -> Response:
        return RedirectResponse("/console/", 307)

    @router.get("/console/login")
    def login(request: Request) -> Response:
        return pages.show(request, "login.html", "login")

    @router.get("/console/static/{name}")
    def static(name: str) -> Response:
        if name not in {path.name for path in STATIC.iterdir()}:
            raise HTTPException(404)
        return FileResponse(STATIC / name, headers={**HEADERS, "Cache-Control": "no-cache"})


def _span(at: str | None, days: int) -> figures.Span:
    until = datetime.now(UTC)
    if at:
        try:
            until = min(datetime.fromisoformat(at).replace(tzinfo=UTC), until + timedelta(days=1))
        except ValueError:
            raise ProblemError(422, "not-valid", f"at: {at} is no date such as 2026-03-29") from None
    else:
        until = until.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    return figures.Span(until, min(max(days, 1), 92))


def _dashboard(router: APIRouter, pages: Pages) -> None:
    @router.get("/console/")
    def dashboard(request: Request, at: str | None = None, days: int = 3) -> Response:
        newest = figures.newest(pages.console.reader)
        return pages.show(
            request, "dashboard.html", "dashboard", widgets=tuple(figures.WIDGETS), span=_span(at, days), at=at or "", newest=newest
        )

    @router.get("/console/widgets/{name}")
    async def widget(request: Request, name: str, at: str | None = None, days: int = 3) -> Response:
        if name not in figures.WIDGETS:
            raise HTTPException(404)
        span, console = _span(at, days), pages.console
        content = await run_in_threadpool(
            console.memo.get, (name, span.until, span.days), lambda: figures.WIDGETS[name](console.reader, span)
        )
        return pages.show(request, "widget.html", content=content, title=t(f"{name}.title"))


def _todos(router: APIRouter, pages: Pages) -> None:
    @router.get("/console/todos")
    def todos(request: Request, open: str = "") -> Response:
        reader, asked = pages.console.reader, queue.Asked.of(request.query_params)
        rows, more = ([], False) if asked.group else queue.listed(reader, asked)
        return pages.show(
            request, "todos.html", "todos", asked=asked, rows=rows, more=more, open=open, total=queue.total(reader, asked),
            grouped=queue.grouped(reader, asked) if asked.group else [], choices=queue.choices(reader), sorts=tuple(queue.SORTS),
            groups=queue.GROUPS, card=Markup(_card(request, open)) if open and not asked.group else "",
        )  # fmt: skip

    @router.get("/console/todos/{id}/card")
    def card(request: Request, id: str) -> Response:
        return HTMLResponse(_card(request, id), headers=HEADERS)

    def _card(request: Request, id: str) -> str:
        console = pages.console
        todo = queue.one(console.reader, id)
        if todo is None:
            raise HTTPException(404, f"there is no To-Do {id}")
        place = zone_of(queue.zone_name(console.reader, todo["device"]) if todo["device"] else None, console.topology.zone)
        behind = queue.exceptions_of(console.reader, todo)
        curve, drawn, said = None, {}, behind
        if todo["device"] and todo["channel"]:
            begin, end = _asked_span(request, queue.around(todo["start"], todo["end"], place))
            curve, said = load_curve(console.reader, todo["device"], todo["channel"], begin, end, place)
            drawn = _drawn(curve, place, f"{todo['device']} {todo['channel']}", {"open": id})
        roles = sorted({kind.role for kind in console.topology.todo.types} | {"supervisor"})
        return _text(
            pages.show(
                request, "todo.html", todo=todo, place=place, curve=curve, history=queue.history(console.reader, id), roles=roles,
                verdicts=queue.verdicts(console.topology.vee, list({row["id"]: row for row in [*behind, *said]}.values())),
                methods=METHODS, **drawn,
            )
        )  # fmt: skip


def _text(page: HTMLResponse) -> str:
    return bytes(page.body).decode()


def _asked_span(request: Request, usual: tuple[datetime, datetime]) -> tuple[datetime, datetime]:
    """The span of ``from`` and ``to``, at most 92 days of it. Raises Problem 422 for what is no time."""
    found = []
    for name, other in zip(("from", "to"), usual, strict=True):
        text = request.query_params.get(name)
        try:
            at = datetime.fromisoformat(text) if text else other
        except ValueError:
            raise ProblemError(422, "not-valid", f"{name}: {text} is no time such as 2026-03-29T00:00:00Z") from None
        found.append(at if at.tzinfo else at.replace(tzinfo=UTC))
    begin, end = found
    end = max(end, begin + timedelta(minutes=15))
    return max(begin, end - timedelta(days=92)), end


def _drawn(curve: Curve, place: ZoneInfo, name: str, query: dict[str, str]) -> dict[str, Any]:
    """What the template of a curve needs beside the curve: picture, values to point at, and links to other spans."""
    begin, end = datetime.fromtimestamp(curve.begin, UTC), datetime.fromtimestamp(curve.end, UTC)
    title = t(
        "curve.title",
        device=name,
        channel="",
        **{"from": f"{begin.astimezone(place):%Y-%m-%d %H:%M}", "to": f"{end.astimezone(place):%Y-%m-%d %H:%M}"},
    )
    words = {key: t(f"curve.{key}") for key in ("outage", "register")} | {"missing": t("quality.missing")}
    kinds = list(dict.fromkeys(str(kind) for kind in curve.kind if kind not in ("regular", "none")))
    return {
        "svg": curve_chart(curve, place, title, words), "kinds": kinds, "points": Markup(_points(curve, place)),
        "moves": _moves(begin, end, query),
    }  # fmt: skip


def _moves(begin: datetime, end: datetime, query: dict[str, str]) -> list[tuple[str, str]]:
    span = end - begin
    middle = begin + span / 2
    day = timedelta(days=1)
    spans = {
        "back": (begin - span / 2, end - span / 2), "on": (begin + span / 2, end + span / 2), "in": (begin + span / 4, end - span / 4),
        "out": (begin - span / 2, end + span / 2), "day": (middle - day / 2, middle + day / 2),
        "week": (middle - 3.5 * day, middle + 3.5 * day), "month": (middle - 15 * day, middle + 15 * day),
    }  # fmt: skip
    return [
        (name, urlencode({**query, "from": f"{first:%Y-%m-%dT%H:%M:00Z}", "to": f"{last:%Y-%m-%dT%H:%M:00Z}"}))
        for name, (first, last) in spans.items()
    ]


def _points(curve: Curve, place: ZoneInfo) -> str:
    """Starts and a line of text for each slot, as JSON that cannot end its script element."""
    told = []
    for at, value, got, condition in zip(
        curve.start.tolist(), curve.value.tolist(), curve.received.tolist(), curve.condition.tolist(), strict=True
    ):
        local = datetime.fromtimestamp(at, place)
        text = f"{local:%Y-%m-%d %H:%M} {local.tzname()}: " + ("–" if value != value else f"{value:g} {curve.unit}")
        text += f" ({t('quality.' + quality(condition))})"
        if got == got and got != value:
            text += f", {t('column.received').lower()} {got:g} {curve.unit}"
        told.append(text)
    body = orjson.dumps({"seconds": curve.seconds, "start": curve.start.tolist(), "told": told}).decode()
    return body.replace("<", "\\u003c")


def _meters(router: APIRouter, pages: Pages) -> None:
    @router.get("/console/meters")
    def meters(request: Request, q: str = "") -> Response:
        text = q.strip()[:255]
        found = meter.search(pages.console.reader, text)
        if text and len(found) == 1:
            return RedirectResponse(f"/console/meters/{quote(found[0]['device'], safe='')}", 303)
        return pages.show(request, "meters.html", "meters", q=text, found=found[: meter.FOUND], more=len(found) > meter.FOUND)

    @router.get("/console/meters/{device}/reads.{kind}")
    def export(request: Request, device: str, kind: str, channel: str) -> Response:
        now = datetime.now(UTC)
        begin, end = _asked_span(request, (now - timedelta(days=7), now))
        rows = meter.intervals(pages.console.reader, device, channel, begin, end)
        name = quote(f"{device}-{channel}-{begin:%Y%m%d}.{kind}", safe="")
        headers = {**HEADERS, "Content-Disposition": f"attachment; filename*=UTF-8''{name}"}
        if kind == "csv":
            return StreamingResponse(meter.as_csv(rows), media_type="text/csv; charset=utf-8", headers=headers)
        if kind == "parquet":
            return Response(meter.as_parquet(rows), media_type="application/vnd.apache.parquet", headers=headers)
        raise HTTPException(404)

    @router.get("/console/meters/{device}")
    def one(request: Request, device: str, channel: str = "") -> Response:
        reader = pages.console.reader
        channels = meter.channels(reader, device)
        installs = meter.installs(reader, device) if current().may("master.read") else []
        errors = meter.exceptions(reader, device)
        if not (channels or installs or errors):
            raise HTTPException(404, f"nothing is known of a device {device}")
        curves = [row for row in channels if row["seconds"]]
        chosen = next((row for row in curves if row["channel"] == channel), curves[0] if curves else None)
        place = zone_of(chosen["zone"] if chosen else channels[0]["zone"] if channels else None, pages.console.topology.zone)
        shown: dict[str, Any] = {"curve": None, "reads": [], "span": ()}
        if chosen:
            last = chosen["newest"] + timedelta(days=1)
            begin, end = _asked_span(request, (last - timedelta(days=7), last))
            curve, _ = load_curve(reader, device, chosen["channel"], begin, end, place, chosen["seconds"])
            reads = meter.intervals(reader, device, chosen["channel"], begin, end, 2000)
            shown = {"curve": curve, "reads": reads, "span": (begin, end),
                     **_drawn(curve, place, f"{device} {chosen['channel']}", {"channel": chosen["channel"]})}  # fmt: skip
        accounts = sorted({row["account"] for row in [*channels, *installs] if row["account"]})
        may = current().may
        prepaid, postings = meter.prepaid(reader, accounts) if may("prepaid.read") else ([], [])
        return pages.show(
            request, "meter.html", "meters", device=device, channels=channels, chosen=chosen, place=place, installs=installs,
            changes=meter.changes(reader, device) if may("master.read") else [],
            registers=meter.registers(reader, device), exceptions=errors,
            determinants=meter.determinants(reader, device), audit=meter.audit(reader, device) if may("audit.read") else [],
            events=meter.events(reader, device) if may("devices.read") else [],
            commands=meter.commands(reader, device) if may("devices.read") else [], prepaid=prepaid, postings=postings, **shown,
        )  # fmt: skip


def _list(router: APIRouter, pages: Pages, name: str, spec: List) -> None:
    names = {*spec.equals, *spec.begins, *(spec.flags or {}), "from", "to"}

    @router.get(f"/console/{name}")
    def listed(request: Request, offset: Annotated[int, Query(ge=0, le=100_000)] = 0) -> Response:
        query = {key: value for key, value in request.query_params.items() if key in names and value}
        rows, more = page(pages.console.reader, spec, query, offset)
        return pages.show(request, "list.html", name, spec=spec, rows=rows, more=more, query=query, offset=offset)


def _rules(router: APIRouter, pages: Pages) -> None:
    @router.get("/console/rules")
    def rules(request: Request) -> Response:
        topology = pages.console.topology
        return pages.show(request, "rules.html", "rules", groups=settings.groups(topology), maps=settings.maps(topology))

    @router.get("/console/rules/in-force.yaml")
    def in_force() -> Response:
        headers = {**HEADERS, "Content-Disposition": "attachment; filename=in-force.yaml"}
        return Response(settings.text_of(pages.console.topology), media_type="application/yaml", headers=headers)

    @router.post("/console/rules/check")
    async def check(request: Request) -> Response:
        text = (await request.body()).decode("utf-8", "replace")
        checked = await run_in_threadpool(settings.check, pages.console.topology, text)
        return pages.show(request, "checked.html", checked=checked)


_TABLES: Final = (
    "SELECT table, sum(rows) AS rows, count() AS parts, sum(bytes_on_disk) AS bytes FROM system.parts "
    "WHERE active AND database = currentDatabase() GROUP BY table ORDER BY bytes DESC"
)
_DELIVERIES: Final = (
    "SELECT at, subscriber, object, status, attempt, records, bytes, code, reason, place FROM deliveries ORDER BY at DESC, id LIMIT 100"
)


def _operations(router: APIRouter, pages: Pages) -> None:
    @router.get("/console/operations")
    def operations(request: Request) -> Response:
        console = pages.console
        topics = [{"topic": name, "about": topic.about, "partitions": topic.partitions} for name, topic in console.topology.topics.items()]
        letters, trouble = console.letters()
        return pages.show(
            request, "operations.html", "operations", topics=topics, lags=lags(), letters=letters, trouble=trouble,
            tables=console.reader.rows(_TABLES, {}),
        )  # fmt: skip

    @router.get("/console/subscribers")
    def subscribers(request: Request) -> Response:
        found, objects = pages.console.subscribers()
        return pages.show(
            request,
            "subscribers.html",
            "subscribers",
            subscribers=found,
            objects=objects,
            deliveries=pages.console.reader.rows(_DELIVERIES, {}),
        )

    @router.get("/console/users")
    def users(request: Request) -> Response:
        there = any(getattr(route, "path", "") == "/v1/users" for route in request.app.routes)
        return pages.show(request, "users.html", "users", there=there)


def lags() -> list[dict[str, Any]]:
    """How far each group is behind, by topic, from the figures this process keeps for operators."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for metric, name in ((metrics.LAG_RECORDS, "lag"), (metrics.LAG_SECONDS, "seconds")):
        for sample in (sample for family in metric.collect() for sample in family.samples):
            key = sample.labels["group"], sample.labels["topic"]
            row = found.setdefault(key, {"group": key[0], "topic": key[1], "lag": 0, "seconds": 0})
            row[name] = row[name] + int(sample.value) if name == "lag" else max(row[name], int(sample.value))
    return sorted(found.values(), key=lambda row: (-row["lag"], row["group"], row["topic"]))
