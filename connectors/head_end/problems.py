"""Errors of the HTTP interface as problem documents (RFC 9457): one shape for every error, validation included."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

MEDIA_TYPE: Final = "application/problem+json"
log = structlog.get_logger(__name__)


class ProblemDocument(BaseModel):
    """A problem document as it is published in the OpenAPI description."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="a URN that names the kind of problem; `about:blank` where the status says it all")
    title: str
    status: int
    detail: str = Field(default="", description="what happened and what to do, in one sentence")
    instance: str = Field(default="", description="the path that was asked for")


class ProblemError(Exception):
    """Raised anywhere below a route to answer with a problem document.

    ``kind`` is the stable last part of the type URN; ``extra`` become members of the document.
    """

    def __init__(self, status: int, kind: str, detail: str, *, headers: Mapping[str, str] | None = None, **extra: Any) -> None:
        super().__init__(detail)
        self.status, self.kind, self.detail, self.extra = status, kind, detail, extra
        self.headers = dict(headers or {})


def answer(
    request: Request,
    status: int,
    kind: str,
    detail: str,
    extra: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """The response of a problem; an empty ``kind`` stands for ``about:blank``."""
    phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Error"
    body = {
        **(extra or {}),
        "type": f"urn:meter-data-hub:problem:{kind}" if kind else "about:blank",
        "title": kind.replace("-", " ").capitalize() if kind else phrase,
        "status": status,
        "detail": detail,
        "instance": request.url.path,
    }
    return JSONResponse(jsonable_encoder(body), status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Makes every error of the app a problem document."""

    async def problem(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ProblemError)
        return answer(request, error.status, error.kind, error.detail, error.extra, error.headers)

    async def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return answer(request, error.status_code, "", str(error.detail), headers=error.headers)

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        errors = [{"at": ".".join(str(part) for part in entry["loc"]), "message": entry["msg"]} for entry in error.errors()]
        first = errors[0] if errors else {"at": "request", "message": "not valid"}
        return answer(request, 422, "not-valid", f"{first['at']}: {first['message']}", {"errors": errors})

    async def crash(request: Request, error: Exception) -> JSONResponse:
        log.error("request failed", path=request.url.path, exc_info=error)
        return answer(request, 500, "", "The hub failed to answer; its log has the reason.")

    app.add_exception_handler(ProblemError, problem)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, crash)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries for the error statuses of a route."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
        }
        for status in statuses
    }
