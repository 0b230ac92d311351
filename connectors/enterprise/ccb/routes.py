"""Oracle's endpoints: sync requests, the lifecycle of usage requests, and what waits for a system that has no address."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import orjson
from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from connectors import safe_xml
from connectors.enterprise.ccb.documents import Reader, written
from connectors.enterprise.devices import problems_of
from connectors.enterprise.doors import add_messages, body_of
from connectors.head_end import problems
from connectors.head_end.problems import ProblemError
from connectors.head_end.publish import PublishError
from connectors.safe_xml import XmlError
from schemas.identity import identity
from streams.enterprise.desk import Refusal

if TYPE_CHECKING:
    from connectors.enterprise.part import Enterprise

XML: Final = {"requestBody": {"required": True, "content": {"application/xml": {"schema": {"type": "string"}}}}}
_XML_FOUND: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"application/xml": {}}, "description": "XML"}, **problems.responses(404),
}  # fmt: skip


class Lifecycle(BaseModel):
    """What is to become of a usage request: Oracle's D1DD (discard), or the call-back that it stands on a bill."""

    model_config = ConfigDict(extra="forbid")

    action: Literal["D1DD", "discard", "D2-UpdUTMul", "used-on-bill"]
    bill: str = Field(default="", max_length=200)


class ChargeLifecycle(BaseModel):
    """What became of a billable charge."""

    model_config = ConfigDict(extra="forbid")

    action: Literal["accept", "reject", "used-on-bill"]
    bill: str = Field(default="", max_length=200)
    note: str = Field(default="", max_length=1000)


def routes(part: Enterprise | None) -> APIRouter:
    """The routes over a part; None where they are only described."""
    router = APIRouter(prefix="/v1/ccb", tags=["ccb"])

    @router.post(
        "/sync", status_code=202, summary="Take sync requests (XML)", responses=problems.responses(413, 422, 503), openapi_extra=XML
    )
    async def sync(request: Request, system: Annotated[str, Query(max_length=255)] = "ccb") -> dict[str, Any]:
        assert part is not None
        return await run_in_threadpool(_taken, part, system, await body_of(part, request), "sync", "syncRequest", "syncRequestId")

    @router.post(
        "/usage-requests", status_code=202, summary="Take usage requests (XML)", responses=problems.responses(413, 422, 503),
        openapi_extra=XML,
    )  # fmt: skip
    async def usage(request: Request, system: Annotated[str, Query(max_length=255)] = "ccb") -> dict[str, Any]:
        assert part is not None
        return await run_in_threadpool(_taken, part, system, await body_of(part, request), "usage-request", "usageRequest", "messageId")

    @router.patch("/usage-requests/{id}/lifecycle", status_code=202, summary="Discard a usage request, or say that it is on a bill",
                  responses=problems.responses(404, 422, 503))  # fmt: skip
    async def lifecycle(id: str, asked: Lifecycle, system: Annotated[str, Query(max_length=255)] = "ccb") -> dict[str, str]:
        assert part is not None
        kind = "usage-discard" if asked.action in ("D1DD", "discard") else "usage-used"
        body = {"id": id, "usage": id, "bill": asked.bill}
        await run_in_threadpool(_one, part, system, kind, identity(kind, system, id, asked.bill), body)
        return {"usage": id}

    @router.get("/usage-requests/{id}", summary="Where a usage request stands", responses=problems.responses(404, 503))
    async def state(id: str, system: Annotated[str, Query(max_length=255)] = "ccb") -> dict[str, Any]:
        assert part is not None
        from connectors.enterprise.part import CONVERSATIONS

        filters = {"system": system, "kind": "usage-request", "subject": id}
        found = (await run_in_threadpool(part.listed, CONVERSATIONS, filters, None, 1))["items"]
        if not found:
            raise ProblemError(404, "not-found", "There is no usage request of this id; one just taken appears within seconds.")
        return {**found[0], "detail": orjson.loads(found[0]["detail"])}

    @router.patch(
        "/charges/{id}/lifecycle", status_code=202, summary="Say what became of a billable charge of a prepaid account",
        description="What is said of a charge that is not known, or that a newer version has replaced, is refused in an acknowledgement "
        "(PRE.IDE), and so is the rejection of one that stands on a bill (PRE.CVE). The same said again counts "
        "once; what is to count again, such as a charge accepted, rejected and accepted after all, needs another Idempotency-Key.",
        responses=problems.responses(422, 503),
    )  # fmt: skip
    async def charge(
        id: str, asked: ChargeLifecycle, system: Annotated[str, Query(max_length=255)] = "ccb",
        key: Annotated[str | None, Header(alias="Idempotency-Key", max_length=255)] = None,
    ) -> dict[str, str]:  # fmt: skip
        assert part is not None
        body = {"id": id, "charge": id, "action": asked.action, "bill": asked.bill, "note": asked.note}
        own = identity("charge-lifecycle", system, id, asked.action, asked.bill, *((key,) if key else ()))
        await run_in_threadpool(_one, part, system, "charge-lifecycle", own, body)
        return {"charge": id}

    add_messages(router, part, "ccb", "Messages for CC&B, oldest first")

    @router.get("/messages/{id}", response_class=Response, summary="A message as XML", responses=_XML_FOUND)
    async def message(id: str) -> Response:
        assert part is not None
        found = await run_in_threadpool(part.message, id)
        if found is None or found["protocol"] != "ccb":
            raise ProblemError(404, "not-found", "There is no message of this id for CC&B.")
        return Response(written(found), media_type="application/xml")

    return router


def _taken(part: Enterprise, system: str, data: bytes, kind: str, name: str, id_name: str) -> dict[str, Any]:
    """Takes a document of one element ``name``, or of many inside another one; each is confirmed on its own."""
    settings = _system(part, system)
    try:
        root = safe_xml.parsed(data)
    except XmlError as error:
        raise ProblemError(422, "not-valid", f"line {error.line}: {error.reason}") from None
    found = [root] if safe_xml.local(root) == name else [child for child in root if safe_xml.local(child) == name]
    strange = [] if found == [root] else [child for child in root if safe_xml.local(child) != name]
    if not found or strange:
        what = safe_xml.local(strange[0])[:60] if strange else safe_xml.local(root)[:60]
        raise ProblemError(422, "not-valid", f"{what} is no {name}")
    reader = Reader(settings, part.zone)
    message = root.get("id") or identity("ccb", kind, data)
    request = part.intake.request(system, "ccb", kind, message, bulk=len(found) > 1)
    refused, ids = 0, []
    for number, element in enumerate(found):
        own = safe_xml.text(element, id_name) or (safe_xml.text(element, "usageId") if kind == "usage-request" else "")
        id_ = f"{kind}/{own}" if own else identity(message, number)
        ids.append(id_)
        try:
            body = reader.sync(element) | {"id": own} if kind == "sync" else reader.usage(element)
        except Refusal as refusal:
            refused += 1
            request.add(id_, {"id": own}, refusal.category, refusal.note)
        else:
            request.add(id_, body)
    _close(request)
    return {"message": message, "items": len(found), "refused": refused, "ids": ids}


def _one(part: Enterprise, system: str, kind: str, id_: str, body: dict[str, Any]) -> None:
    _system(part, system)
    request = part.intake.request(system, "ccb", kind, id_, bulk=False)
    request.add(id_, body)
    _close(request)


def _system(part: Enterprise, name: str) -> Any:
    found = part.settings.systems.get(name)
    if found is None or found.protocol != "ccb":
        raise ProblemError(422, "not-valid", f"system: topology.yaml has no system {name[:60]!r} that speaks ccb")
    return found


def _close(request: Any) -> None:
    try:
        request.close()
    except PublishError as error:
        raise problems_of(error) from None
