"""The doors of the console. Pages are made here; what people change goes from the browser to the API, as everybody's changes do."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote, urlencode
from zoneinfo import ZoneInfo

import numpy as np
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
from connectors.console import figures, fleet, meter, queue, settings
from connectors.console.charts import LEFT, RIGHT, WIDTH, Beside, curve_chart, number
from connectors.console.curve import Curve, Cut, cut
from connectors.console.lists import LISTS, List, days_of, moment, page
from connectors.console.part import MENU, USUAL, Console
from connectors.console.surroundings import Line
from connectors.console.words import aware, catalogue, local, quality, share, zone_of
from connectors.head_end.problems import ProblemError
from connectors.rights import scope
from connectors.rights.policy import rule_of
from connectors.rights.principal import current, principal
from connectors.todo.questions import GROUPS, SORTS
from schemas import metrics
from schemas.topology.rights import PERMISSIONS
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


_PERMISSIONS: Final = {name: rule.permission for name in MENU if (rule := rule_of(f"GET /console/{name.replace('dashboard', '')}"))}


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
        may = current().may
        menu = [name for name in MENU if may(_PERMISSIONS[name])]
        text = made.render(
            {"may": may, **values}, menu=menu, page=page, user=Viewer(request), now=datetime.now(UTC), zone=self.console.topology.zone
        )
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

    @router.get("/console/refused")
    def refused(request: Request) -> Response:
        refusal = getattr(request.state, "refusal", None)
        if refusal is None:
            raise HTTPException(404)
        return pages.failed(request, refusal.status, "error.denied", refusal.detail)

    @router.get("/console/static/{name}")
    def static(name: str) -> Response:
        if name not in {path.name for path in STATIC.iterdir()}:
            raise HTTPException(404)
        return FileResponse(STATIC / name, headers={**HEADERS, "Cache-Control": "no-cache"})


def _dashboard(router: APIRouter, pages: Pages) -> None:
    @router.get("/console/")
    def dashboard(request: Request, at: str | None = None, days: int = USUAL) -> Response:
        console = pages.console
        newest, mine, names = console.newest(), console.arrangement(), tuple(figures.WIDGETS)
        order = sorted(names, key=lambda name: (mine.order.index(name) if name in mine.order else len(mine.order), names.index(name)))
        return pages.show(
            request, "dashboard.html", "dashboard", widgets=order, mine=mine, span=console.span(at, days), at=at or "", newest=newest
        )

    @router.get("/console/widgets/{name}")
    async def widget(request: Request, name: str, at: str | None = None, days: int = USUAL) -> Response:
        if name not in figures.WIDGETS:
            raise HTTPException(404)
        content = await run_in_threadpool(pages.console.figure, name, at, days)
        return pages.show(request, "widget.html", content=content, title=t(f"{name}.title"))


def _todos(router: APIRouter, pages: Pages) -> None:
    @router.get("/console/todos")
    def todos(request: Request, open: str = "") -> Response:
        service, asked = pages.console.todos, queue.Asked.of(request.query_params)
        rows, following = ([], None) if asked.group else service.rows(asked.wanted, asked.sort, asked.cursor, queue.PAGE)
        return pages.show(
            request, "todos.html", "todos", asked=asked, rows=rows, following=following, open=open, total=service.count(asked.wanted),
            grouped=service.grouped(asked.wanted, asked.group) if asked.group else [], choices=service.choices(), sorts=SORTS,
            groups=GROUPS, states=queue.states(), roles=pages.console.roles(),
            card=Markup(_card(request, open)) if open and not asked.group else "",
        )  # fmt: skip

    @router.get("/console/todo-acts")
    def acts(request: Request) -> Response:
        return pages.show(request, "acts.html", acts=pages.console.waiting())

    @router.get("/console/todos/{id}/card")
    def card(request: Request, id: str) -> Response:
        return HTMLResponse(_card(request, id), headers=HEADERS)

    def _card(request: Request, id: str) -> str:
        console, service = pages.console, pages.console.todos
        todo = service.todo(id)
        place = zone_of(queue.zone_name(console.reader, todo["device"]) if todo["device"] else None, console.topology.zone)
        curve, drawn = None, {}
        if todo["device"] and todo["channel"]:
            begin, end = _asked_span(request, queue.around(todo["start"], todo["end"], place))
            curve, beside, _ = console.curve(todo["device"], todo["channel"], (begin, end), place)
            drawn = _drawn(curve, beside, place, f"{todo['device']} {todo['channel']}", {"open": id}, _whole(request))
        return _text(
            pages.show(
                request, "todo.html", todo=todo, place=place, curve=curve, history=service.history(id)[::-1], roles=console.roles(),
                verdicts=queue.verdicts(service.verdicts(todo)), methods=METHODS, **drawn,
            )
        )  # fmt: skip


def _text(page: HTMLResponse) -> str:
    return bytes(page.body).decode()


def _asked_span(request: Request, usual: tuple[datetime, datetime]) -> tuple[datetime, datetime]:
    """The span of ``from`` and ``to``, at most 92 days of it. Raises Problem 422 for what is no time."""
    asked = (moment(name, request.query_params.get(name)) for name in ("from", "to"))
    begin, end = (aware(at or other) for at, other in zip(asked, usual, strict=True))
    end = max(end, begin + timedelta(minutes=15))
    return max(begin, end - timedelta(days=92)), end


def _whole(request: Request) -> bool:
    """Whether a curve is wanted over the whole range of its values, however few are far away."""
    return request.query_params.get("scale") == "whole"


def _drawn(curve: Curve, beside: Beside, place: ZoneInfo, name: str, query: dict[str, str], whole: bool) -> dict[str, Any]:
    """What the template of a curve needs beside the curve: picture, values to point at, and links to other spans and the other scale."""
    begin, end = datetime.fromtimestamp(curve.begin, UTC), datetime.fromtimestamp(curve.end, UTC)
    title = t(
        "curve.title",
        device=name,
        channel="",
        **{"from": f"{begin.astimezone(place):%Y-%m-%d %H:%M}", "to": f"{end.astimezone(place):%Y-%m-%d %H:%M}"},
    )
    words = {key: t(f"curve.{key}") for key in ("outage", "register", "temperature", "beyond")} | {"missing": t("quality.missing")}
    far = cut(curve, beside.neighbours.value if beside.neighbours else None)
    said = _said(far, curve, place) if far and not whole else ""
    spanned = {**query, "from": f"{begin:%Y-%m-%dT%H:%M:00Z}", "to": f"{end:%Y-%m-%dT%H:%M:00Z}"}
    kinds = list(dict.fromkeys(str(kind) for kind in curve.kind if kind not in ("regular", "none")))
    return {
        "svg": curve_chart(curve, place, f"{title}. {said}" if said else title, words, beside, None if whole else far), "kinds": kinds,
        "points": Markup(_points(curve, beside, place)), "moves": _moves(begin, end, {**query, "scale": "whole"} if whole else query),
        "beside": beside, "edges": (LEFT, WIDTH - RIGHT, WIDTH), "beyond": said,
        "shown": (local(begin, place), local(end, place)),
        "scales": {"whole": whole, "other": urlencode(spanned if whole else {**spanned, "scale": "whole"})} if far else None,
    }  # fmt: skip


def _said(far: Cut, curve: Curve, place: ZoneInfo) -> str:
    """In words that a scale is cut, and what is beyond it."""
    return t(
        "curve.cut", n=int(far.beyond.sum()), limit=f"{number(far.limit)} {curve.unit}", value=f"{number(far.value)} {curve.unit}",
        at=local(datetime.fromtimestamp(far.at, UTC), place),
    )  # fmt: skip


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


def _points(curve: Curve, beside: Beside, place: ZoneInfo) -> str:
    """Starts and a line of text for each slot, as JSON that cannot end its script element."""
    near = beside.neighbours.value.tolist() if beside.neighbours else [float("nan")] * curve.start.size
    warm = _at_slots(curve, beside.temperature) if beside.temperature else [float("nan")] * curve.start.size
    told = []
    for at, value, got, condition, low, high, near_by, degrees in zip(
        curve.start.tolist(), curve.value.tolist(), curve.received.tolist(), curve.condition.tolist(), curve.lower.tolist(),
        curve.upper.tolist(), near, warm, strict=True,
    ):  # fmt: skip
        text = f"{local(datetime.fromtimestamp(at, UTC), place)}: " + ("–" if value != value else f"{value:g} {curve.unit}")
        text += f" ({t('quality.' + quality(condition))})"
        if got == got and got != value:
            text += f", {t('column.received').lower()} {got:g} {curve.unit}"
        if low == low:
            text += f", {t('curve.usual')} {low:g}–{high:g}"
        if near_by == near_by:
            text += f", {t('curve.neighbours_short')} {near_by:g}"
        if degrees == degrees:
            text += f", {degrees:.1f} °C"
        told.append(text)
    values = [None if value != value else f"{value:.6f}".rstrip("0").rstrip(".") for value in curve.value.tolist()]
    body = orjson.dumps({"seconds": curve.seconds, "start": curve.start.tolist(), "value": values, "told": told}).decode()
    return body.replace("<", "\\u003c")


def _at_slots(curve: Curve, line: Line) -> list[float]:
    """The newest value of a line at the begin of each slot, at most three hours old; else NaN."""
    places = np.searchsorted(line.start, curve.start, side="right") - 1
    old = curve.start - line.start[np.maximum(places, 0)]
    values: list[float] = np.where((places >= 0) & (old <= 3 * 3600), line.value[np.maximum(places, 0)], np.nan).tolist()
    return values


def _meters(router: APIRouter, pages: Pages) -> None:
    @router.get("/console/meters")
    def meters(request: Request, q: str = "") -> Response:
        text, reader = q.strip()[:255], pages.console.reader
        filters = {name: request.query_params[name][:255] for name in (*fleet.SIDES, "heard") if request.query_params.get(name)}
        area = scope.here()
        asked = request.query_params
        days = days_of(asked.get("from"), asked.get("to"), datetime.now(UTC)) if asked.get("estimated") else None
        if days:
            filters = {"days": f"{days[0]} – {days[1] - timedelta(days=1)}"}
            found = fleet.estimated(reader, *days, meter.FOUND + 1, area)
        elif filters:
            found = fleet.meters(reader, filters, datetime.now(UTC), meter.FOUND + 1, area)
        else:
            found = meter.search(reader, text, area)
        if text and len(found) == 1:
            return RedirectResponse(f"/console/meters/{quote(found[0]['device'], safe='')}", 303)
        return pages.show(
            request, "meters.html", "meters", q=text, filters=filters, found=found[: meter.FOUND], more=len(found) > meter.FOUND, days=days
        )

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
        may = scope.may_about(reader, device)
        channels = meter.channels(reader, device)
        installs = meter.installs(reader, device) if may("master.read") else []
        accounts = meter.accounts(reader, channels, installs)
        parts = {
            name: (spec, meter.section(reader, spec, device, accounts) if may(spec.permission) else [])
            for name, spec in meter.SECTIONS.items()
        }
        if not (channels or installs or parts["exceptions"][1]):
            raise HTTPException(404, f"nothing is known of a device {device}")
        curves = [row for row in channels if row["seconds"]]
        chosen = next((row for row in curves if row["channel"] == channel), curves[0] if curves else None)
        place = zone_of(chosen["zone"] if chosen else channels[0]["zone"] if channels else None, pages.console.topology.zone)
        return pages.show(
            request, "meter.html", "meters", may=may, device=device, channels=channels, chosen=chosen, place=place, installs=installs,
            parts=parts, prepaid=meter.accounts_of(reader, accounts) if may("prepaid.read") else [],
            **(_chosen(request, device, chosen, place) if chosen else {"curve": None, "reads": [], "span": ()}),
        )  # fmt: skip

    def _chosen(request: Request, device: str, chosen: dict[str, Any], place: ZoneInfo) -> dict[str, Any]:
        """The curve of a channel and its reads as a table."""
        last = chosen["newest"] + timedelta(days=1)
        begin, end = _asked_span(request, (last - timedelta(days=7), last))
        curve, beside, _ = pages.console.curve(device, chosen["channel"], (begin, end), place, chosen["seconds"])
        reads = meter.intervals(pages.console.reader, device, chosen["channel"], begin, end, 2000)
        drawn = _drawn(curve, beside, place, f"{device} {chosen['channel']}", {"channel": chosen["channel"]}, _whole(request))
        return {"curve": curve, "reads": reads, "span": (begin, end), **drawn}


def _list(router: APIRouter, pages: Pages, name: str, spec: List) -> None:
    names = {*spec.names, *(("from", "to") if spec.timed else ())}

    @router.get(f"/console/{name}")
    def listed(request: Request, cursor: Annotated[str | None, Query(max_length=4000)] = None) -> Response:
        query = {key: value[:255] for key, value in request.query_params.items() if key in names and value}
        zone = zone_of(pages.console.topology.zone)
        rows, following = page(pages.console.reader, spec, query, cursor, zone)
        times = {name: moment(name, query.get(name), zone) for name in ("from", "to")}
        return pages.show(
            request, "list.html", name, spec=spec, rows=rows, following=following, query=query, cursor=cursor or "", methods=METHODS,
            choices=spec.choices, times={name: local(at, zone) for name, at in times.items() if at},
        )  # fmt: skip


def _rules(router: APIRouter, pages: Pages) -> None:
    @router.get("/console/rules")
    def rules(request: Request, proposal: str = "") -> Response:
        console = pages.console
        topology = console.topology
        chosen = console.proposal(proposal) if proposal else None
        checked = settings.check(topology, chosen.spec.text, chosen.spec.effective_from) if chosen else None
        return pages.show(
            request, "rules.html", "rules", groups=settings.groups(topology), maps=settings.maps(topology), proposals=console.proposals(),
            chosen=console.told(chosen) if chosen else None, checked=checked, tomorrow=datetime.now(UTC).date() + timedelta(days=1),
        )  # fmt: skip

    @router.get("/console/rules/in-force.yaml")
    def in_force() -> Response:
        headers = {**HEADERS, "Content-Disposition": "attachment; filename=topology.yaml"}
        return Response(pages.console.topology.text, media_type="application/yaml", headers=headers)

    @router.post("/console/rules/check")
    async def check(request: Request, since: date | None = None) -> Response:
        text = (await request.body()).decode("utf-8", "replace")
        checked = await run_in_threadpool(settings.check, pages.console.topology, text, since)
        return pages.show(request, "checked.html", checked=checked)


_TABLES: Final = (
    "SELECT table, sum(rows) AS rows, count() AS parts, sum(bytes_on_disk) AS bytes, "
    "sum(data_uncompressed_bytes) AS plain FROM system.parts "
    "WHERE active AND database = currentDatabase() AND parts.rows > 0 GROUP BY table ORDER BY bytes DESC"
)
SMALL: Final = 1 << 20  # bytes below which nothing is said of how far a table is packed: headers are most of it
_DELIVERIES: Final = (
    "SELECT at, subscriber, object, status, attempt, records, bytes, code, reason, place FROM deliveries ORDER BY at DESC, id LIMIT 100"
)


def _operations(router: APIRouter, pages: Pages) -> None:
    @router.get("/console/operations")
    def operations(request: Request) -> Response:
        console = pages.console
        if not scope.here().everywhere:  # topics, lag and store are those of the whole hub
            letters, trouble = console.letters()
            return pages.show(request, "operations.html", "operations", topics=None, letters=letters, trouble=trouble)
        topics = [{"topic": name, "about": topic.about, "partitions": topic.partitions} for name, topic in console.topology.topics.items()]
        letters, trouble = console.letters()
        return pages.show(
            request, "operations.html", "operations", topics=topics, lags=lags(), letters=letters, trouble=trouble,
            tables=sizes(console.reader.rows(_TABLES, {})),
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
        people, roles = pages.console.users()
        return pages.show(request, "users.html", "users", people=people, roles=roles, permissions=PERMISSIONS)


def sizes(tables: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Tables of the store, the largest first, with bytes per row, how far they are packed, and their share of the whole; above all: it."""
    whole = {
        "table": t("operations.all_tables"),
        **{name: sum(row[name] for row in tables) for name in ("rows", "parts", "bytes", "plain")},
    }

    def told(row: Mapping[str, Any]) -> dict[str, Any]:
        packed = f"{row['plain'] / row['bytes']:.1f} : 1" if row["bytes"] >= SMALL else ""
        return {**row, "per_row": round(row["bytes"] / row["rows"]), "packed": packed, "share": share(row["bytes"], whole["bytes"])}

    return [told(row) for row in (whole, *tables)] if tables else []


def lags() -> list[dict[str, Any]]:
    """How far each group is behind, by topic, from the figures this process keeps for operators."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for metric, name in ((metrics.LAG_RECORDS, "lag"), (metrics.LAG_SECONDS, "seconds")):
        for sample in (sample for family in metric.collect() for sample in family.samples):
            key = sample.labels["group"], sample.labels["topic"]
            row = found.setdefault(key, {"group": key[0], "topic": key[1], "lag": 0, "seconds": 0})
            row[name] = row[name] + int(sample.value) if name == "lag" else max(row[name], int(sample.value))
    return sorted(found.values(), key=lambda row: (-row["lag"], row["group"], row["topic"]))
