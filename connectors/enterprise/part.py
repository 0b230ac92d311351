"""The part of the hub process that talks with CIS: doors in, deliveries out, and the answers of the store to conversations."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import orjson
from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from connectors.enterprise import cim, devices
from connectors.enterprise.answers import Answerer, Finder, Rows
from connectors.enterprise.ccb import documents as ccb
from connectors.enterprise.ccb import routes as ccb_routes
from connectors.enterprise.delivery import Delivery, Letter, RefusedError, Render
from connectors.enterprise.devices import Text
from connectors.enterprise.intake import Intake
from connectors.enterprise.sap import routes as sap_routes
from connectors.enterprise.sap.catalog import catalog
from connectors.enterprise.sap.documents import SOAP11, envelope
from connectors.enterprise.sap.door import Door
from connectors.enterprise.sap.writing import written
from connectors.head_end import problems
from connectors.head_end.listing import Listing, cursor_of, cursor_text, page_query, readable
from connectors.head_end.problems import ProblemError
from connectors.head_end.publish import Publisher, PublishError, Writer
from connectors.kafka.settings import KafkaSettings
from connectors.rights.trail import note
from schemas.codec import Codec
from schemas.identity import identity
from schemas.topology import Topology
from schemas.topology.enterprise import System
from streams.enterprise.desk import REFUSED

EVENT_BYTES: Final = 900_000
MOST_RETRIED: Final = 10_000
TIME: Final = "DateTime('UTC')"
MESSAGES: Final = Listing("conversation_messages", {"at": TIME, "id": "String"}, "at", "at", ("system", "kind", "reference"))
CONVERSATIONS: Final = Listing(
    "conversations", {"system": "String", "kind": "String", "subject": "String", "id": "String"}, "at", "at",
    ("system", "kind", "subject", "state", "device", "account"),
)  # fmt: skip


class RetryRequest(BaseModel):
    """Which refused items to try again: those named, else all of a system, or all of an error category."""

    model_config = ConfigDict(extra="forbid")

    system: str = Field(max_length=60)
    items: list[Annotated[str, Field(max_length=255)]] = Field(default_factory=list, max_length=10_000)
    category: str = Field(default="", max_length=20, description="such as PRE.IDE: what they name is not known")
    reason: str = Field(default="", max_length=500)


class Enterprise:
    """Doors, deliveries and answers over one writer and one store."""

    def __init__(self, topology: Topology, kafka: KafkaSettings, codec: Codec, reader: Rows, writer: Writer, folder: Path) -> None:
        self.settings, self.zone, self.reader, self.folder = topology.enterprise, topology.zone, reader, folder / "enterprise"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.intake = Intake(writer, codec)
        self.sap = Door(self.settings, self.intake, self.zone)
        limit = topology.ingest.limits.payload_bytes
        self.reads = Publisher(writer, topology.agents["ingest"].inbox, max_payload_bytes=limit)
        self.events = Publisher(writer, "hes.events", max_payload_bytes=EVENT_BYTES)
        self.finder = Finder(reader)
        self.answerer = Answerer(kafka, topology.group("cis-answers"), codec, writer, self.finder)
        renders: dict[str, Render] = {"sap": self._sap_letter, "ccb": self._ccb_letter, "cim": self._cim_letter}
        self.delivery = Delivery(kafka, topology.group("cis"), codec, self.settings, renders, self.folder, writer)

    def loops(self) -> Mapping[str, Callable[[threading.Event], None]]:
        """Its threads."""
        return {"cis-answers": self.answerer.run, **self.delivery.loops()}

    def close(self) -> None:
        """Holds nothing of its own: its threads close what they opened."""

    def _sap_letter(self, message: Mapping[str, Any], system: System) -> Letter | None:
        made = written(message, system)
        if made is None:
            return None
        root, element = made
        headers = {"Content-Type": "text/xml; charset=utf-8", "SOAPAction": f'"{catalog().namespace}/{root.name}"'}
        return Letter(envelope(element, SOAP11), headers, root.service)

    @staticmethod
    def _ccb_letter(message: Mapping[str, Any], system: System) -> Letter:  # noqa: ARG004
        return Letter(ccb.written(message), {"Content-Type": "application/xml"}, message["kind"])

    def _cim_letter(self, message: Mapping[str, Any], system: System) -> Letter | None:  # noqa: ARG002
        made = cim.written(message, self.reader)
        return None if made is None else Letter(made, {"Content-Type": "application/xml"}, message["kind"])

    # --- what an operator does ----------------------------------------------------------------------------------------------------

    def resend(self, id: str) -> dict[str, Any]:
        """Sends a message to its system once more. Raises ProblemError."""
        found = self.message(id)
        if found is None:
            raise ProblemError(404, "not-found", "There is no message of this id.")
        system = self.settings.systems.get(found["system"])
        if system is None or not system.url:
            raise ProblemError(409, "conflict", f"{found['system']} has no address: it fetches its messages.")
        try:
            self.delivery.again(found)
        except (RefusedError, httpx.HTTPError) as error:
            raise ProblemError(502, "not-delivered", str(error)[:500]) from None
        return {"id": id, "system": found["system"], "kind": found["kind"], "items": len(found["items"])}

    def retry(self, asked: RetryRequest) -> dict[str, Any]:
        """Has refused items tried again; how many. Raises ProblemError."""
        system = self.settings.systems.get(asked.system)
        if system is None:
            raise ProblemError(422, "not-valid", f"system: topology.yaml has no system {asked.system[:60]!r}.")
        sql = (
            "SELECT subject FROM conversations WHERE kind = {kind:String} AND system = {system:String} AND state = 'refused' "
            "AND NOT JSONExtractBool(detail, 'door') "
            "AND ({category:String} = '' OR JSONExtractString(detail, 'category') = {category:String}) "
            "AND (empty({items:Array(String)}) OR has({items:Array(String)}, subject)) ORDER BY at, subject LIMIT {most:Int64}"
        )
        where = {"kind": REFUSED, "system": asked.system, "category": asked.category, "items": asked.items, "most": MOST_RETRIED}
        ids = [row["subject"] for row in self.reader.rows(sql, where)]
        missing = sorted(set(asked.items) - set(ids))
        if missing:
            raise ProblemError(404, "not-found", f"{asked.system} has no refused item {missing[0][:80]} that can be tried again.")
        request = self.intake.request(asked.system, system.protocol, "retry", identity("retry", asked.system, *ids), bulk=True)
        for id in ids:
            request.add(id, {"id": id})
        try:
            request.close()
        except PublishError as error:
            raise devices.problems_of(error) from None
        return {"system": asked.system, "items": len(ids), "more": len(ids) == MOST_RETRIED}

    # --- what is in the store -----------------------------------------------------------------------------------------------------

    def page(self, system: str, cursor: str | None, limit: int) -> dict[str, Any]:
        """Messages for a system, oldest first, without their items."""
        return self.listed(MESSAGES, {"system": system}, cursor, limit, leave_out=("body",))

    def listed(
        self, listing: Listing, filters: Mapping[str, str | None], cursor: str | None, limit: int, leave_out: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        """One page of a view."""
        sql, parameters = page_query(listing, filters, None, None, cursor, limit)
        rows = self.reader.rows(sql, parameters)
        more, rows = len(rows) > limit, rows[:limit]
        following = cursor_of([cursor_text(rows[-1][column]) for column in listing.order]) if more else None
        return {"items": [{k: v for k, v in readable(row).items() if k not in leave_out} for row in rows], "next": following}

    def message(self, id: str) -> dict[str, Any] | None:
        """A message with its items; None: there is none of this id."""
        rows = self.reader.rows("SELECT * FROM conversation_messages WHERE id = {id:String} LIMIT 1", {"id": id})
        if not rows:
            return None
        row = rows[0]
        return {**row, "at": int(row["at"].timestamp()), "bulk": bool(row["bulk"]), "items": orjson.loads(row["body"])}


def build(around: Any) -> Enterprise:
    """The part from what is around it (``mdh.parts.Surroundings``)."""
    return Enterprise(around.topology, around.kafka, around.codec, around.reader, around.writer, around.data_dir)


def routes(part: Enterprise | None) -> APIRouter:
    """All its routes."""
    router = APIRouter()
    router.include_router(sap_routes.routes(part))
    router.include_router(ccb_routes.routes(part))
    router.include_router(cim.routes(part))
    router.include_router(devices.routes(part))
    router.include_router(_conversations(part))
    return router


def _conversations(part: Enterprise | None) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["conversations"])

    @router.get("/conversations", summary="Where conversations with CIS stand", responses=problems.responses(422, 503))
    async def conversations(
        system: Text = None,
        kind: Text = None,
        subject: Text = None,
        state: Text = None,
        device: Text = None,
        account: Text = None,
        cursor: Annotated[str | None, Query(max_length=4000, description="`next` of the page before")] = None,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
    ) -> dict[str, Any]:
        assert part is not None
        filters = {"system": system, "kind": kind, "subject": subject, "state": state, "device": device, "account": account}
        return await run_in_threadpool(part.listed, CONVERSATIONS, filters, cursor, limit)

    @router.post(
        "/conversations/refused/retry", status_code=202, summary="Try refused items again, such as when what they name has come",
        responses=problems.responses(404, 422, 503),
    )  # fmt: skip
    async def retry(asked: RetryRequest) -> dict[str, Any]:
        assert part is not None
        note(subject=f"cis/{asked.system}", reason=asked.reason, after=asked.model_dump())
        return await run_in_threadpool(part.retry, asked)

    @router.post(
        "/conversations/messages/{id}/resend", summary="Send a message to its CIS once more", responses=problems.responses(404, 409, 502)
    )
    async def resend(id: str) -> dict[str, Any]:
        assert part is not None
        note(subject=f"cis-message/{id}")
        return await run_in_threadpool(part.resend, id)

    return router
