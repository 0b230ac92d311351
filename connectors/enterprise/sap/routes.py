"""SAP's endpoints: one per enterprise service, their WSDLs, and what waits for a system that has no address."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from connectors.enterprise.doors import add_messages
from connectors.enterprise.sap.catalog import catalog
from connectors.enterprise.sap.documents import SOAP11, SOAP12, envelope, fault
from connectors.enterprise.sap.door import FaultError
from connectors.enterprise.sap.schemas import wsdl_of
from connectors.enterprise.sap.writing import written
from connectors.head_end import problems
from connectors.head_end.problems import ProblemError
from connectors.head_end.publish import PublishError
from connectors.head_end.spool import spooled

if TYPE_CHECKING:
    from connectors.enterprise.part import Enterprise

XML: Final = {"requestBody": {"required": True, "content": {"text/xml": {"schema": {"type": "string"}}}}}
_FOUND: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"text/xml": {}}, "description": "XML"}, **problems.responses(404),
}  # fmt: skip


def routes(part: Enterprise | None) -> APIRouter:
    """The routes over a part; None where they are only described."""
    router = APIRouter(prefix="/v1/sap", tags=["sap"])

    @router.get("", summary="SAP's enterprise services: who takes them, their messages")
    async def services(request: Request) -> list[dict[str, Any]]:
        here = request.url.path
        return [
            {"service": one.name, "to": one.to, "messages": [root.name for root in one.roots], "wsdl": f"{here}/{one.name}?wsdl"}
            for one in catalog().services.values()
        ]

    add_messages(router, part, "sap", "Messages for SAP, oldest first; for systems without an address")

    @router.get("/messages/{id}", response_class=Response, summary="A message as SOAP", responses=_FOUND)
    async def message(id: str) -> Response:
        assert part is not None
        found = await run_in_threadpool(part.message, id)
        system = part.settings.systems.get(found["system"]) if found else None
        made = written(found, system) if found and system and found["protocol"] == "sap" else None
        if made is None:
            raise ProblemError(404, "not-found", "There is no message of this id for SAP.")
        return Response(envelope(made[1]), media_type="text/xml")

    @router.get("/{service}", response_class=Response, summary="The WSDL of a service", responses=_FOUND)
    async def wsdl(request: Request, service: str) -> Response:
        one = catalog().services.get(_plain(service))
        if one is None:
            raise ProblemError(404, "not-found", f"There is no service {service[:100]}; GET /v1/sap lists them.")
        return Response(wsdl_of(one, str(request.url.replace(query=""))), media_type="text/xml")

    @router.post(
        "/{service}",
        status_code=202,
        response_class=Response,
        summary="Take one message, single or bulk: acknowledged once Kafka has it, confirmed later item by item",
        responses={
            400: {"description": "SOAP fault: the message is refused whole", "content": {"text/xml": {}}},
            **problems.responses(404, 413, 503),
        },
        openapi_extra=XML,
    )
    async def take(request: Request, service: str) -> Response:
        assert part is not None
        name = _plain(service)
        if name not in catalog().services:
            raise ProblemError(404, "not-found", f"There is no service {service[:100]}; GET /v1/sap lists them.")
        version = SOAP12 if "soap+xml" in request.headers.get("content-type", "") else SOAP11
        try:
            async with spooled(request, part.settings.bulk_bytes, part.folder) as spool:
                taken = await run_in_threadpool(part.sap.take, name, spool)
        except ProblemError as error:
            return _fault(error.status, error.detail, version)
        except FaultError as error:
            return _fault(400, error.reason, error.version if version == SOAP11 else version, error.code)
        except PublishError as error:
            return _fault(503, f"not taken, send it again: {error}", version, sender=False)
        return JSONResponse({"items": taken.items, "refused": taken.refused}, 202) if _wants_json(request) else Response(status_code=202)

    return router


def _wants_json(request: Request) -> bool:
    return "application/json" in request.headers.get("accept", "")


def _plain(service: str) -> str:
    """A service under the name of its interface (``…_Out``, ``…_In``) as well."""
    return service.removesuffix("_Out").removesuffix("_In")


def _fault(status: int, reason: str, version: str, code: str = "", *, sender: bool = True) -> Response:
    media = "application/soap+xml" if version == SOAP12 else "text/xml"
    headers = {} if sender else {"Retry-After": "5"}
    return Response(fault(reason, version, sender=sender, code=code), status, headers, media)
