"""The HTTP interface of the hub: reads and master data in, results out.

Everything it needs is handed in, so that the same app serves a laptop and a cluster. No route acknowledges what Kafka does
not have.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, MutableMapping
from datetime import datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Final, cast

import structlog
from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from connectors.clickhouse.store import StoreError
from connectors.head_end import problems
from connectors.head_end.desk import Desk
from connectors.head_end.documents import (
    Accepted,
    CommandAnswer,
    CommandRequest,
    Health,
    LabelRequest,
    MasterAnswer,
    Page,
    Settled,
    SettleQuestion,
)
from connectors.head_end.handlers import RETRY_AFTER, Gateway
from connectors.head_end.listing import DETERMINANTS, EXCEPTIONS, INTERVALS, readable
from connectors.rights.guard import Guard, within_area
from connectors.rights.policy import OPEN, match, rule_of
from connectors.rights.service import Rights
from schemas import metrics
from schemas.topology.rights import RightsSettings

log = structlog.get_logger(__name__)

PAGE: Final = 100
MAX_PAGE: Final = 10_000

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


def create_app(desk: Desk, routers: Iterable[APIRouter] = (), rights: Rights | None = None) -> FastAPI:
    """The whole interface over what is behind it; ``routers`` are those of other parts of the hub. Without ``rights`` it is open."""
    gateway = Gateway(desk)
    app = FastAPI(
        title="Meter Data Hub",
        version=version("meter-data-hub"),
        description="Raw meter reads and master data in; final reads, exceptions and bill determinants out. "
        "Errors are problem documents (RFC 9457).",
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        dependencies=[Depends(within_area)],
    )
    problems.install(app)
    app.add_exception_handler(StoreError, _store_failed)
    app.add_middleware(Guard, rights=rights or Rights(RightsSettings()))
    app.add_middleware(Measured)
    _intake(app, gateway)
    _results(app, gateway)
    _operations(app, gateway)
    for router in routers:
        app.include_router(router)
    _documentation(app)
    return app


def describe(routers: Iterable[APIRouter] = ()) -> dict[str, Any]:
    """The OpenAPI document, without anything behind it."""
    nothing = cast(Any, None)
    return create_app(Desk(nothing, nothing, nothing, list), routers).openapi()


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

    @app.post(
        "/v1/events",
        status_code=202,
        response_model=Accepted,
        tags=["intake"],
        summary="Take device events: outages, restorations and others, as JSON, CIM EndDeviceEvents or Oracle seeders",
        responses={**errors, **problems.responses(409)},
        openapi_extra={
            "requestBody": {"required": True, "content": {**{f"application/{kind}": {"schema": {}} for kind in ("json", "xml")}}}
        },
    )
    async def post_events(
        request: Request,
        source: Annotated[str, Query(description="who sends", max_length=255)] = "http",
        idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
    ) -> JSONResponse:
        return await gateway.events(request, source, idempotency_key)

    @app.post(
        "/v1/commands",
        status_code=202,
        response_model=Accepted,
        tags=["commands"],
        summary="Order something done with channel days: re-vee, edit, accept, estimate, discard, force",
        responses=problems.responses(413, 422, 503),
    )
    async def post_command(asked: CommandRequest, idempotency_key: Annotated[str | None, Header(max_length=255)] = None) -> JSONResponse:
        return await gateway.command(asked, idempotency_key)

    @app.post(
        "/v1/labels",
        status_code=202,
        tags=["commands"],
        summary="Say whether an anomaly was a fault; the models learn from it",
        responses=problems.responses(422, 503),
    )
    async def post_label(asked: LabelRequest) -> Accepted:
        return await gateway.label(asked)  # type: ignore[return-value]

    @app.get(
        "/v1/commands/{id}",
        tags=["commands"],
        summary="What became of a command: its entry of the audit",
        responses=problems.responses(404, 503),
    )
    async def get_command(id: str) -> CommandAnswer:
        return await gateway.command_answer(id)

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
        name: Annotated[str | None, Query(max_length=255, description="as the usage group calls it")] = None,
        usage: Annotated[str | None, Query(max_length=255, description="all of one subscription and period")] = None,
        correction: Text = None,
        since: Since = None,
        until: Until = None,
        cursor: Cursor = None,
        limit: Limit = PAGE,
    ) -> JSONResponse:
        filters = {
            "account": account, "device": device, "channel": channel, "kind": kind, "tou": tou, "unit": unit,
            "period": period, "status": status, "name": name, "usage": usage, "correction": correction,
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
            _describe_rights(document)
            parts.pop("HTTPValidationError", None)
            parts.pop("ValidationError", None)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]


def _problem_for_validation(operation: dict[str, Any]) -> None:
    answers = operation.get("responses", {})
    if "HTTPValidationError" in str(answers.get("422", "")):
        answers["422"] = problems.responses(422)[422]


def _describe_rights(document: dict[str, Any]) -> None:
    """Ways to log in, the permission each operation needs, and the answers of those who do not have it."""
    document["components"]["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer", "description": "an API token: mdh_…"},
        "session": {"type": "apiKey", "in": "cookie", "name": "mdh_session", "description": "changes need X-CSRF-Token too"},
    }
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            rule = rule_of(f"{method.upper()} {path}") or next((rule_of(key) for key in (match(method.upper(), path),) if key), None)
            if rule is None or rule.permission == OPEN:
                continue
            operation["security"] = [{"token": []}, {"session": []}]
            operation["x-permission"] = rule.permission
            for status, answer in problems.responses(401, 403).items():
                operation.setdefault("responses", {}).setdefault(str(status), answer)
