"""The HTTP interface of the hub: reads and master data in, results out.

Everything it needs is handed in, so that the same app serves a laptop and a cluster. Handlers that wait for Kafka do so on
the event loop; everything that asks the store runs in a thread. No path acknowledges what Kafka does not have.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, MutableMapping, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Protocol, cast
from zoneinfo import available_timezones

import orjson
import structlog
from fastapi import FastAPI, Header, Query, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from connectors.clickhouse.store import StoreError
from connectors.head_end import problems
from connectors.head_end.problems import ProblemError
from connectors.head_end.publish import (
    ConflictError,
    Publisher,
    PublishError,
    RefusedError,
    TooLargeError,
    UnavailableError,
)
from schemas import metrics

log = structlog.get_logger(__name__)

RETRY_AFTER: Final = {"Retry-After": "5"}
RAW_TYPES: Final = frozenset(
    {
        "application/octet-stream",
        "application/json",
        "application/x-ndjson",
        "application/xml",
        "application/soap+xml",
        "application/zip",
        "application/gzip",
        "application/x-gzip",
        "application/x-zip-compressed",
        "application/x-www-form-urlencoded",  # what curl --data-binary says of any file
        "text/csv",
        "text/plain",
        "text/xml",
        "binary/octet-stream",
    }
)
MAX_MASTER_BYTES: Final = 64 * 1024 * 1024
MAX_SQL_BYTES: Final = 256 * 1024
PAGE: Final = 100
MAX_PAGE: Final = 10_000


# --- what the gateway needs -------------------------------------------------------------------------------------------------


class Reader(Protocol):
    """Questions to the store. All of them block: the gateway asks from threads."""

    def payloads(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """What is known of payloads: id, status, complete and the figures of their receipts; unknown ids are left out."""
        ...

    def settled_tick(self) -> int | None:
        """The latest tick all of whose work, on every partition, is in the store."""
        ...

    def rows(self, sql: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The rows of one of our own queries, parameters bound by the engine."""
        ...

    def stream(self, sql: str) -> Iterator[bytes]:
        """NDJSON of somebody else's query, read-only and bounded. Raises ValueError with the engine's words if it is refused."""
        ...


class MasterDesk(Protocol):
    """Takes master data in."""

    def take(self, data: bytes) -> MasterAnswer:
        """Publishes the good lines of an NDJSON document and waits for Kafka. Raises PublishError."""
        ...


@dataclass(frozen=True)
class Desk:
    """Everything behind the routes."""

    publisher: Publisher
    reader: Reader
    master: MasterDesk
    ready: Callable[[], list[str]]  # reasons why reads cannot flow; none: ready
    quiet_seconds: int = 3
    formats: frozenset[str] = frozenset()  # known format names; empty: anything goes
    about: Mapping[str, Any] = field(default_factory=dict)
    inflight_bytes: int = 256 * 1024 * 1024


# --- documents --------------------------------------------------------------------------------------------------------------


class Accepted(BaseModel):
    """Kafka has the payload."""

    id: str = Field(description="ask `/v1/payloads/{id}` what became of it")


class MasterLine(BaseModel):
    """A line that was not taken."""

    line: int
    message: str


class MasterAnswer(BaseModel):
    """What was taken of a master data document."""

    accepted: int
    refused: int
    ids: list[str] = Field(default_factory=list, description="one per accepted line, for `/v1/settle`")
    errors: list[MasterLine] = Field(default_factory=list, description="the first 100 refused lines")


class SettleQuestion(BaseModel):
    """Which payloads to ask about, and how long to wait for them."""

    ids: list[str] = Field(max_length=10_000)
    wait: float = Field(default=0, ge=0, le=30, description="seconds to wait at most until all are complete")


class Dead(BaseModel):
    """A payload that nobody could decode, or not all of it."""

    id: str
    reason: str
    whole: bool = Field(description="nothing of it could be used")


class Settled(BaseModel):
    """How far payloads have come."""

    complete: int
    waiting: int
    waiting_ids: list[str]
    counts: dict[str, int] = Field(description="sums over the complete payloads: reads, finals, exceptions, parked, dead …")
    dead: list[Dead]
    now: int = Field(description="the hub's time, UTC seconds")
    settled_tick: int | None = Field(description="the latest tick whose work is all in the store, UTC seconds")
    quiet_seconds: int = Field(description="a day is closed by a tick that comes so long after its last read")


class Page(BaseModel):
    """One page of rows."""

    items: list[dict[str, Any]]
    next: str | None = Field(description="cursor of the next page; null: this was the last")


class Health(BaseModel):
    """Whether reads can flow."""

    status: Literal["ready", "not ready", "live"]
    reasons: list[str] = Field(default_factory=list)


# --- bodies -----------------------------------------------------------------------------------------------------------------


class Budget:
    """Bytes of request bodies held at one time, over all requests: a crowd of large posts must not take the memory."""

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, 0

    def take(self, amount: int) -> None:
        """Raises Problem 503 where the amount does not fit now."""
        if self.used + amount > self.limit:
            raise ProblemError(503, "busy", "The hub is taking in as much as it can hold; try again.", headers=RETRY_AFTER)
        self.used += amount


@asynccontextmanager
async def body_of(request: Request, limit: int, budget: Budget) -> AsyncIterator[bytes]:
    """The body, read while it fits the limit and the budget; Problem 413 or 503 where it does not."""
    declared = request.headers.get("content-length", "")
    too_large = ProblemError(413, "too-large", f"A body may have {limit} bytes; send larger files in parts (`mdh send` does).", limit=limit)
    if declared.isascii() and declared.isdigit() and int(declared) > limit:
        raise too_large
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in request.stream():
            if size + len(chunk) > limit:
                raise too_large
            budget.take(len(chunk))
            size += len(chunk)
            chunks.append(chunk)
        yield b"".join(chunks)
    finally:
        budget.used -= size


def media_type(request: Request) -> str:
    """The media type of the body without parameters."""
    return request.headers.get("content-type", "application/octet-stream").partition(";")[0].strip().lower()


def as_problem(error: PublishError) -> ProblemError:
    """The answer to a payload that was not taken."""
    if isinstance(error, TooLargeError):
        return ProblemError(413, "too-large", str(error))
    if isinstance(error, ConflictError):
        return ProblemError(409, "conflict", str(error))
    if isinstance(error, RefusedError):
        return ProblemError(422, "not-valid", str(error))
    return ProblemError(503, "kafka-away", f"Kafka does not take records now ({error}); try again.", headers=RETRY_AFTER)


async def acknowledged(future: Future[Any] | None, seconds: float) -> None:
    """Waits for Kafka. Raises UnavailableError when it does not answer in time."""
    if future is None:
        return
    try:
        await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(future)), seconds)
    except TimeoutError:
        raise UnavailableError("no acknowledgement in time") from None


# --- pages ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Listing:
    """A view that is read in pages: what is shown, in which unique order, by which filters.

    ``order`` gives the columns that identify a row, in sort order, each with its ClickHouse type.
    """

    view: str
    order: Mapping[str, str]
    start: str  # the time columns that `from` and `to` compare with
    end: str
    equals: tuple[str, ...]  # columns that can be filtered by value


TIME: Final = "DateTime('UTC')"
EXCEPTIONS: Final = Listing(
    "exceptions",
    {"start": TIME, **dict.fromkeys(("device", "channel", "rule", "id"), "String")},
    "start",
    "end",
    ("device", "channel", "rule", "severity", "status"),
)
DETERMINANTS: Final = Listing(
    "determinants",
    {"period_start": TIME, **dict.fromkeys(("account", "device", "channel", "kind", "tou", "period"), "String")},
    "period_start",
    "period_end",
    ("account", "device", "channel", "kind", "tou", "unit", "period", "status"),
)
INTERVALS: Final = Listing("intervals", {"start": TIME, "device": "String", "channel": "String"}, "start", "start", ("device", "channel"))


def cursor_of(values: Sequence[str]) -> str:
    """The cursor after a row, opaque to clients."""
    return base64.urlsafe_b64encode(orjson.dumps(list(values))).decode().rstrip("=")


def after_cursor(cursor: str, size: int) -> list[str]:
    """The row values of a cursor. Raises Problem 422 if it is not one of ours."""
    try:
        values = orjson.loads(base64.urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError):
        values = None
    if not isinstance(values, list) or len(values) != size or not all(isinstance(v, str) for v in values):
        raise ProblemError(422, "not-valid", "cursor: not one that this hub gave out")
    return values


def page_query(
    listing: Listing,
    filters: Mapping[str, str | None],
    since: datetime | None,
    until: datetime | None,
    cursor: str | None,
    limit: int,
) -> tuple[str, dict[str, Any]]:
    """The query of one page and its parameters; one row more than the limit, which tells whether there is a next page."""
    where, parameters = [], dict[str, Any]()
    for column in listing.equals:
        value = filters.get(column)
        if value is not None:
            where.append(f"{column} = {{{column}:String}}")
            parameters[column] = value
    if since is not None:
        overlaps = f"{listing.start} >=" if listing.end == listing.start else f"{listing.end} >"
        where.append(f"{overlaps} {{since:{TIME}}}")
        parameters["since"] = clickhouse_time(since)
    if until is not None:
        where.append(f"{listing.start} < {{until:{TIME}}}")
        parameters["until"] = clickhouse_time(until)
    key = ", ".join(listing.order)
    if cursor is not None:
        values = after_cursor(cursor, len(listing.order))
        names = [f"after_{column}" for column in listing.order]
        bound = ", ".join(f"{{{name}:{kind}}}" for name, kind in zip(names, listing.order.values(), strict=True))
        where.append(f"({key}) > ({bound})")
        parameters |= dict(zip(names, values, strict=True))
    condition = f" WHERE {' AND '.join(where)}" if where else ""
    return f"SELECT * FROM {listing.view}{condition} ORDER BY {key} LIMIT {limit + 1}", parameters


def clickhouse_time(at: datetime) -> str:
    """UTC seconds as ClickHouse writes them; a time without zone is UTC."""
    aware = at if at.tzinfo else at.replace(tzinfo=UTC)
    return aware.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


# --- the app ----------------------------------------------------------------------------------------------------------------


class Gateway:
    """The handlers; ``create_app`` puts them on routes."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.budget = Budget(desk.inflight_bytes)

    async def reads(
        self,
        request: Request,
        source: str,
        name: str,
        format: str | None,
        zone: str | None,
        idempotency_key: str | None,
    ) -> JSONResponse:
        """Takes one payload."""
        desk = self.desk
        if media_type(request) not in RAW_TYPES:
            raise ProblemError(
                415,
                "media-type",
                f"{media_type(request)} is no type for meter data; send the bytes as application/octet-stream.",
                accepted=sorted(RAW_TYPES),
            )
        if request.headers.get("content-encoding", "identity").lower() not in ("identity", "gzip"):
            raise ProblemError(415, "media-type", "Content-Encoding may be gzip or nothing.")
        if format is not None and desk.formats and format not in desk.formats:
            raise ProblemError(422, "not-valid", f"format: there is no {format!r}", known=sorted(desk.formats))
        if zone is not None and zone not in available_timezones():
            raise ProblemError(422, "not-valid", f"zone: {zone!r} is no IANA time zone")
        async with body_of(request, desk.publisher.max_payload_bytes, self.budget) as data:
            if not data.strip():
                raise ProblemError(422, "not-valid", "The body is empty.")
            try:
                payload, future = await run_in_threadpool(
                    desk.publisher.submit,
                    data,
                    source=source,
                    name=name,
                    format=format,
                    zone=zone,
                    idempotency_key=idempotency_key,
                )
                await acknowledged(future, desk.publisher.writer.timeout + 5)
            except PublishError as error:
                raise as_problem(error) from None
        log.info("payload taken", payload=payload, source=source, name=name, bytes=len(data))
        return JSONResponse({"id": payload}, 202, headers={"Location": f"/v1/payloads/{payload}"})

    async def payload(self, id: str) -> dict[str, Any]:
        """What became of one payload."""
        found = await run_in_threadpool(self.desk.reader.payloads, [id])
        if not found:
            raise ProblemError(404, "not-found", "No payload of this id has been seen yet; one just taken appears within seconds.")
        return found[0]

    async def settle(self, question: SettleQuestion) -> Settled:
        """How far payloads have come, after waiting for them at most as long as asked."""
        deadline, pause = time.monotonic() + question.wait, 0.1
        while True:
            answer = await run_in_threadpool(self._settled, question.ids)
            if not answer.waiting or time.monotonic() >= deadline:
                return answer
            await asyncio.sleep(min(pause, max(deadline - time.monotonic(), 0)))
            pause = min(pause * 1.5, 1.0)

    def _settled(self, ids: list[str]) -> Settled:
        wanted = set(ids)
        found = self.desk.reader.payloads(sorted(wanted)) if wanted else []
        complete = [row for row in found if row["complete"]]
        counts = {"payloads": len(complete)}
        for name in ("rows", "reads", "finals", "exceptions", "parked", "dead"):
            counts[name] = sum(int(row.get(name) or 0) for row in complete)
        return Settled(
            complete=len(complete),
            waiting=len(wanted) - len(complete),
            counts=counts,
            waiting_ids=sorted(wanted - {row["id"] for row in complete}),
            dead=[
                Dead(id=row["id"], reason=row.get("reason") or "", whole=row["status"] == "dead")
                for row in complete
                if row["status"] == "dead" or row.get("dead")
            ],
            now=int(time.time()),
            settled_tick=self.desk.reader.settled_tick(),
            quiet_seconds=self.desk.quiet_seconds,
        )

    async def master(self, request: Request) -> JSONResponse:
        """Takes a master data document."""
        async with body_of(request, MAX_MASTER_BYTES, self.budget) as data:
            if not data.strip():
                raise ProblemError(422, "not-valid", "The body is empty.")
            try:
                answer = await run_in_threadpool(self.desk.master.take, data)
            except PublishError as error:
                raise as_problem(error) from None
        if not answer.accepted:
            first = answer.errors[0] if answer.errors else MasterLine(line=1, message="nothing in it")
            raise ProblemError(
                422,
                "not-valid",
                f"line {first.line}: {first.message}",
                **answer.model_dump(exclude={"ids"}),
            )
        return JSONResponse(answer.model_dump(), 207 if answer.refused else 200)

    async def page(
        self,
        listing: Listing,
        filters: Mapping[str, str | None],
        since: datetime | None,
        until: datetime | None,
        cursor: str | None,
        limit: int,
    ) -> JSONResponse:
        """One page of a view."""
        sql, parameters = page_query(listing, filters, since, until, cursor, limit)
        rows = await run_in_threadpool(self.desk.reader.rows, sql, parameters)
        for row in rows:  # the engine's columnar answer has times as bare seconds
            row.update(
                {name: datetime.fromtimestamp(row[name], UTC) for name in (listing.start, listing.end) if isinstance(row[name], int)}
            )
        more = len(rows) > limit
        rows = rows[:limit]
        following = cursor_of([cursor_text(rows[-1][column]) for column in listing.order]) if more else None
        return JSONResponse({"items": [readable(row) for row in rows], "next": following})

    async def sql(self, request: Request) -> StreamingResponse:
        """Runs a read-only query; the first piece is awaited so that a refused query gets a proper answer."""
        async with body_of(request, MAX_SQL_BYTES, self.budget) as data:
            statement = sql_of(data, media_type(request))
        pieces = await run_in_threadpool(self.desk.reader.stream, statement)
        try:
            first = await run_in_threadpool(next, pieces, b"")
        except ValueError as error:
            raise ProblemError(422, "query-refused", str(error)) from None

        def all_pieces() -> Iterator[bytes]:
            yield first
            yield from pieces

        return StreamingResponse(iterate_in_threadpool(all_pieces()), media_type="application/x-ndjson")


def sql_of(data: bytes, kind: str) -> str:
    """The statement of a request body: plain text, or JSON ``{"sql": …}``. Raises Problem 422."""
    try:
        text = orjson.loads(data)["sql"] if kind == "application/json" else data.decode()
    except (ValueError, KeyError, TypeError):
        text = None
    if not isinstance(text, str) or not text.strip():
        raise ProblemError(422, "not-valid", 'The body must be a query as text, or JSON {"sql": "SELECT …"}.')
    return text


def cursor_text(value: Any) -> str:
    """A column value as ClickHouse's ``toString`` writes it."""
    return clickhouse_time(value) if isinstance(value, datetime) else str(value)


def readable(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as JSON: ISO times in UTC, decimals as strings."""
    return {name: readable_value(value) for name, value in row.items()}


def readable_value(value: Any) -> Any:
    """One value as JSON."""
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        return aware.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, (list, tuple)):
        return [readable_value(item) for item in value]
    return str(value)


Since = Annotated[datetime | None, Query(alias="from", description="ISO time, inclusive; without zone: UTC")]
Until = Annotated[datetime | None, Query(alias="to", description="ISO time, exclusive")]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]
Cursor = Annotated[str | None, Query(max_length=4000, description="`next` of the page before")]
Text = Annotated[str | None, Query(max_length=255)]

RAW_BODY: Final = {
    "requestBody": {
        "required": True,
        "description": "The bytes exactly as the head end made them: CSV, JSON, XML, NEM12/NEM13, zip or gzip of them.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
MASTER_BODY: Final = {
    "requestBody": {
        "required": True,
        "description": "NDJSON: one object per channel.",
        "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
    }
}
SQL_BODY: Final = {
    "requestBody": {
        "required": True,
        "content": {
            "text/plain": {"schema": {"type": "string"}},
            "application/json": {"schema": {"type": "object", "properties": {"sql": {"type": "string"}}, "required": ["sql"]}},
        },
    }
}


def create_app(desk: Desk) -> FastAPI:
    """The whole interface over what is behind it."""
    gateway = Gateway(desk)
    app = FastAPI(
        title="Meter Data Hub",
        version=version("meter-data-hub"),
        description="Raw meter reads and master data in; final reads, exceptions and bill determinants out. "
        "Errors are problem documents (RFC 9457).",
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    problems.install(app)
    app.add_exception_handler(StoreError, _store_failed)
    app.add_middleware(Measured)
    _intake(app, gateway)
    _results(app, gateway)
    _operations(app, gateway)
    _documentation(app)
    return app


def describe() -> dict[str, Any]:
    """The OpenAPI document, without anything behind it."""
    nothing = cast(Any, None)
    return create_app(Desk(nothing, nothing, nothing, list)).openapi()


class Measured:
    """ASGI middleware: counts and times requests by route pattern, never by what a client made up."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 500

        async def noted(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if scope["method"] in ("GET", "POST", "HEAD", "OPTIONS") else "other"
            metrics.REQUESTS.labels(method, route, str(status)).inc()
            metrics.REQUEST_SECONDS.labels(method, route).observe(time.perf_counter() - begun)


async def _store_failed(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, StoreError) and not error.away:
        log.error("the store refused a query", path=request.url.path, reason=str(error))
        return problems.answer(request, 500, "", "The store refused the hub's question; the log has the reason.")
    return problems.answer(request, 503, "store-away", "The store does not answer now; try again.", headers=RETRY_AFTER)


def _intake(app: FastAPI, gateway: Gateway) -> None:
    errors = problems.responses(413, 415, 422, 503)

    @app.post(
        "/v1/reads",
        status_code=202,
        response_model=Accepted,
        tags=["intake"],
        summary="Take one payload of meter reads",
        responses={**errors, **problems.responses(409)},
        openapi_extra=RAW_BODY,
    )
    async def post_reads(
        request: Request,
        source: Annotated[str, Query(description="who sends: reads of one source stay in order", max_length=255)] = "http",
        name: Annotated[str, Query(description="a file name or message name, for people", max_length=255)] = "",
        format: Annotated[str | None, Query(description="left out: recognised", max_length=64)] = None,
        zone: Annotated[str | None, Query(description="IANA zone of local times in formats without one", max_length=64)] = None,
        idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
    ) -> JSONResponse:
        return await gateway.reads(request, source, name, format, zone, idempotency_key)

    @app.post(
        "/v1/master",
        response_model=MasterAnswer,
        tags=["intake"],
        summary="Take master data",
        description="Lines that are not valid are refused one by one (207); a document without a valid line is refused whole (422).",
        responses={207: {"model": MasterAnswer, "description": "some lines were refused"}, **errors},
        openapi_extra=MASTER_BODY,
    )
    async def post_master(request: Request) -> JSONResponse:
        return await gateway.master(request)

    @app.get(
        "/v1/payloads/{id}",
        tags=["intake"],
        summary="What became of a payload",
        responses=problems.responses(404, 422, 503),
    )
    async def get_payload(id: str) -> dict[str, Any]:
        return readable(await gateway.payload(id))

    @app.post("/v1/settle", tags=["intake"], summary="Wait for payloads", responses=problems.responses(422, 503))
    async def post_settle(question: SettleQuestion) -> Settled:
        return await gateway.settle(question)


def _results(app: FastAPI, gateway: Gateway) -> None:
    errors = problems.responses(422, 503)

    @app.get("/v1/exceptions", response_model=Page, tags=["results"], summary="Exceptions of VEE", responses=errors)
    async def exceptions(
        device: Text = None,
        channel: Text = None,
        rule: Text = None,
        severity: Text = None,
        status: Text = None,
        since: Since = None,
        until: Until = None,
        cursor: Cursor = None,
        limit: Limit = PAGE,
    ) -> JSONResponse:
        filters = {"device": device, "channel": channel, "rule": rule, "severity": severity, "status": status}
        return await gateway.page(EXCEPTIONS, filters, since, until, cursor, limit)

    @app.get("/v1/determinants", response_model=Page, tags=["results"], summary="Bill determinants", responses=errors)
    async def determinants(
        account: Text = None,
        device: Text = None,
        channel: Text = None,
        kind: Text = None,
        tou: Text = None,
        unit: Text = None,
        period: Text = None,
        status: Text = None,
        since: Since = None,
        until: Until = None,
        cursor: Cursor = None,
        limit: Limit = PAGE,
    ) -> JSONResponse:
        filters = {
            "account": account, "device": device, "channel": channel, "kind": kind, "tou": tou, "unit": unit,
            "period": period, "status": status,
        }  # fmt: skip
        return await gateway.page(DETERMINANTS, filters, since, until, cursor, limit)

    @app.get("/v1/intervals", response_model=Page, tags=["results"], summary="Final intervals of a device", responses=errors)
    async def intervals(
        device: Annotated[str, Query(max_length=255)],
        channel: Text = None,
        since: Since = None,
        until: Until = None,
        cursor: Cursor = None,
        limit: Limit = PAGE,
    ) -> JSONResponse:
        return await gateway.page(INTERVALS, {"device": device, "channel": channel}, since, until, cursor, limit)

    @app.post(
        "/v1/sql",
        tags=["results"],
        summary="Read-only SQL, NDJSON out",
        response_class=Response,
        responses={200: {"content": {"application/x-ndjson": {}}}, **problems.responses(413, 422, 503)},
        openapi_extra=SQL_BODY,
    )
    async def sql(request: Request) -> StreamingResponse:
        return await gateway.sql(request)


def _operations(app: FastAPI, gateway: Gateway) -> None:
    @app.get("/health/live", tags=["operations"], summary="The process answers")
    async def live() -> Health:
        return Health(status="live")

    @app.get(
        "/health/ready",
        tags=["operations"],
        summary="Reads can flow",
        responses={503: {"model": Health, "description": "reads cannot flow, with reasons"}},
    )
    async def ready() -> Health:
        reasons = await run_in_threadpool(gateway.desk.ready)
        if reasons:
            return JSONResponse(Health(status="not ready", reasons=reasons).model_dump(), 503)  # type: ignore[return-value]
        return Health(status="ready")

    @app.get("/v1/hub", tags=["operations"], summary="What this hub is and stands on")
    async def hub() -> dict[str, Any]:
        return {"name": "meter-data-hub", "version": app.version, **gateway.desk.about}

    @app.get("/metrics", tags=["operations"], summary="Prometheus metrics", response_class=Response)
    async def prometheus() -> Response:
        return Response(await run_in_threadpool(metrics.exposition), media_type=CONTENT_TYPE_LATEST)


def _documentation(app: FastAPI) -> None:
    assets = find_spec("fastapi_offline")  # Swagger UI from an installed package: the page works without a network
    if assets is not None and assets.origin:
        app.mount("/assets/docs", StaticFiles(directory=Path(assets.origin).parent / "static"), name="docs-assets")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title="Meter Data Hub",
            swagger_js_url="/assets/docs/swagger-ui-bundle.js",
            swagger_css_url="/assets/docs/swagger-ui.css",
            swagger_favicon_url="/assets/docs/favicon.png",
        )

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            parts = document.setdefault("components", {}).setdefault("schemas", {})
            parts["ProblemDocument"] = problems.ProblemDocument.model_json_schema()
            for path in document["paths"].values():
                for operation in path.values():
                    _problem_for_validation(operation)
            parts.pop("HTTPValidationError", None)
            parts.pop("ValidationError", None)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]


def _problem_for_validation(operation: dict[str, Any]) -> None:
    answers = operation.get("responses", {})
    if "HTTPValidationError" in str(answers.get("422", "")):
        answers["422"] = problems.responses(422)[422]
