"""The HTTP door: subscribers, their deliveries, and the metadata of what can be delivered."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version as installed
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import orjson
from fastapi import APIRouter, Header, Query
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from connectors.head_end.desk import Reader as StoreReader
from connectors.head_end.documents import Page
from connectors.head_end.handlers import RETRY_AFTER, carried_out
from connectors.head_end.listing import TIME, Listing, cursor_of, cursor_text, page_query, readable
from connectors.head_end.problems import ProblemError, responses
from connectors.rights.principal import acting
from connectors.rights.trail import note
from connectors.subscribers import objects
from connectors.subscribers.guard import ForbiddenError
from connectors.subscribers.parcel import DeliveryError
from connectors.subscribers.places import edges_of, span_text
from connectors.subscribers.registry import ACTIVE, ENDED, PAUSED, Entry, utc
from connectors.subscribers.secrets import SecretError
from connectors.subscribers.service import DeliveryService, GoneError
from schemas.topology import documents
from schemas.topology.root import subscriber_findings
from schemas.topology.subscribers import ID, Sftp, Subscriber, Webhook, start_second

DELIVERIES: Final = Listing(
    "deliveries", {"at": TIME, "id": "String"}, "at", "at", ("subscriber", "object", "status", "topic", "channel", "key")
)
User = Annotated[str, Query(max_length=200, description="who does it, for the audit")]
IfMatch = Annotated[str | None, Header(max_length=40, description="refuse unless the subscriber still has this version")]
Text = Annotated[str | None, Query(max_length=255)]


class NewSubscriber(Subscriber):
    """A subscriber with its id."""

    id: str = Field(pattern=ID, description="Names it, its consumer group and its files")


class ReplayRequest(BaseModel):
    """What to deliver again: from a time on, the time between two, or from offsets by ``topic/partition`` on (partitions that are not
    named go on where they are). Behind a ``to`` delivery goes on where it was."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    start: str | None = Field(default=None, alias="from", max_length=40, description="ISO time or date, or earliest")
    end: str | None = Field(default=None, alias="to", max_length=40, description="ISO time or date, this moment excluded")
    offsets: dict[str, Annotated[int, Field(ge=0)]] | None = Field(default=None, max_length=10_000)
    reason: str = Field(default="", max_length=500)


class Reason(BaseModel):
    """Why something is done."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(default="", max_length=500)


class TestRequest(BaseModel):
    """Which sample to send; left out: that of the subscriber's first object."""

    __test__ = False  # for pytest: no test class
    model_config = ConfigDict(extra="forbid")

    object: str | None = None


@dataclass(frozen=True)
class Door:
    """What the routes need."""

    service: DeliveryService
    reader: StoreReader

    def loops(self) -> Mapping[str, Callable[[threading.Event], None]]:
        """Those of the service."""
        return self.service.loops()

    def close(self) -> None:
        """Closes the service."""
        self.service.close()

    def entry(self, id: str) -> Entry:
        """A subscriber that has not ended. Raises Problem 404."""
        self.ready()
        entry = self.service.registry.get(id)
        if entry is None or entry.status == ENDED:
            raise ProblemError(404, "not-found", f"There is no subscriber {id}.")
        return entry

    def ready(self) -> None:
        """Raises Problem 503 while the registry has not been read."""
        if not self.service.registry.wait_ready(5):
            raise ProblemError(503, "kafka-away", "The registry has not been read yet; try again.", headers=RETRY_AFTER)

    def shown(self, entry: Entry) -> dict[str, Any]:
        """A subscriber as it is shown."""
        return {
            "id": entry.id,
            "version": entry.version,
            "status": entry.status,
            "origin": entry.origin,
            "changed": {"at": utc(entry.at), "by": entry.actor, "action": entry.action, "reason": entry.reason},
            "position": {**_edges(entry), "epoch": entry.epoch, "since": utc(entry.positioned)},
            "group": self.service.tools.group(entry.id),
            **entry.spec.model_dump(mode="json", exclude_none=True),
            "delivery": self.service.state(entry),
        }

    def answer(self, entry: Entry, status: int = 200) -> JSONResponse:
        """A subscriber with its version as entity tag."""
        return JSONResponse(self.shown(entry), status, headers={"ETag": f'"{entry.version}"', "Location": f"/v1/subscribers/{entry.id}"})

    def check(self, spec: Subscriber) -> None:
        """Raises Problem 422 for what this hub cannot or may not deliver."""
        tools = self.service.tools
        for place, what in subscriber_findings(tools.topology, spec):
            raise ProblemError(422, "not-valid", f"{'.'.join(map(str, place))}: {what}")
        channel = spec.channel
        try:
            if isinstance(channel, Webhook):
                parts = urlsplit(channel.url)
                tools.guard.check_name(parts.hostname or "", parts.scheme)
                for name in channel.secrets:
                    tools.secrets.signing_key(name)
            if isinstance(channel, Sftp):
                tools.guard.check_name(channel.host, "sftp")
                tools.secrets.get(channel.key or channel.password or "")
        except (ForbiddenError, SecretError) as error:
            raise ProblemError(422, "not-valid", f"channel: {error}") from None

    def changeable(self, id: str, if_match: str | None) -> Entry:
        """A subscriber that the API may change. Raises Problem 404, 409, 412."""
        entry = self.matching(id, if_match)
        if entry.origin == "topology":
            raise ProblemError(409, "conflict", f"{id} is declared in topology.yaml: change it there.")
        return entry

    def matching(self, id: str, if_match: str | None) -> Entry:
        """A subscriber that still has the version somebody saw. Raises Problem 404, 412."""
        entry = self.entry(id)
        if if_match is not None and if_match.strip().removeprefix("W/").strip('"') not in ("*", str(entry.version)):
            raise ProblemError(412, "changed", f"{id} is at version {entry.version} by now: look at it again.", version=entry.version)
        return entry

    def position(self, asked: ReplayRequest, entry: Entry) -> str:
        """The position a replay asks for. Raises Problem 422."""
        if (asked.start is None) == (asked.offsets is None):
            raise ProblemError(422, "not-valid", "Give either from or offsets.")
        if asked.offsets is not None:
            if asked.end is not None:
                raise ProblemError(422, "not-valid", "to: goes with from, not with offsets")
            topics = {objects.DEFINITIONS[name].topic for name in entry.spec.objects}
            for place in asked.offsets:
                topic, _, number = place.rpartition("/")
                if topic not in topics or not (number.isascii() and number.isdigit()):
                    raise ProblemError(
                        422, "not-valid", f"offsets: {place!r} is no topic/partition of its objects ({', '.join(sorted(topics))})"
                    )
            return orjson.dumps(asked.offsets).decode()
        start = str(asked.start)
        begin = self._second("from", start, entry)
        if asked.end is None:
            return start
        end = self._second("to", asked.end, entry)
        if asked.end == "earliest" or end is None or (begin is not None and end <= begin):
            raise ProblemError(422, "not-valid", "to: must be a time behind from")
        return span_text(start, asked.end)

    @staticmethod
    def _second(name: str, text: str, entry: Entry) -> int | None:
        """UTC seconds of an edge of a replay; None for the earliest there is. Raises Problem 422."""
        if text == "now":
            raise ProblemError(422, "not-valid", f"{name}: give a time in the past; one from now would skip what waits")
        try:
            Subscriber.model_validate({**entry.spec.model_dump(mode="json"), "start": text})
            second = start_second(text)
        except ValueError:
            raise ProblemError(422, "not-valid", f"{name}: must be earliest or an ISO time with offset, not {text!r}") from None
        if second is not None and second > datetime.now(UTC).timestamp():
            raise ProblemError(422, "not-valid", f"{name}: lies in the future")
        return second

    def again(self, entry: Entry, delivery: str) -> dict[str, Any]:
        """Sends one delivery once more. Raises Problem 404, 409, 422, 502."""
        if not self.service.wanted(replace(entry, status=ACTIVE)):
            raise ProblemError(422, "not-valid", "It reads the hub's own topics: there is nothing to send.")
        sql = "SELECT * FROM deliveries WHERE subscriber = {subscriber:String} AND id = {id:String}"
        rows = self.reader.rows(sql, {"subscriber": entry.id, "id": delivery})
        if not rows:
            raise ProblemError(404, "not-found", f"{entry.id} has no delivery {delivery}; one just made appears within seconds.")
        if rows[0]["status"] not in ("dead", "sent"):
            raise ProblemError(409, "conflict", f"it is {rows[0]['status']}: only a delivery that was given up or sent is sent again")
        try:
            sent = self.service.tools.again(entry, rows[0])
        except GoneError as error:
            raise ProblemError(409, "conflict", str(error)) from None
        except DeliveryError as error:
            raise ProblemError(502, "not-delivered", error.reason, code=error.code) from None
        return {"id": delivery, "place": sent.place, "bytes": sent.bytes, "code": sent.code, "left_out": sent.left_out}


def _edges(entry: Entry) -> dict[str, str]:
    begin, end = edges_of(entry.position)
    return {"from": begin, **({"to": end} if end else {})}


def routes(door: Door | None) -> APIRouter:
    """The routes; without a door they are only described."""
    router = APIRouter()
    _registry(router, door)  # type: ignore[arg-type]  # a description is never called
    _verbs(router, door)  # type: ignore[arg-type]
    _metadata(router, door)  # type: ignore[arg-type]
    return router


def _registry(router: APIRouter, door: Door) -> None:
    errors = responses(404, 409, 412, 422, 503)

    @router.get("/v1/subscribers", tags=["subscribers"], summary="All subscribers", responses=responses(503))
    async def subscribers(ended: bool = False) -> JSONResponse:
        await run_in_threadpool(door.ready)
        found = door.service.registry.entries().values()
        return JSONResponse({"items": [door.shown(entry) for entry in found if ended or entry.status != ENDED], "next": None})

    @router.post("/v1/subscribers", status_code=201, tags=["subscribers"], summary="Register a subscriber", responses=errors)
    async def create(asked: NewSubscriber, user: User = "api") -> JSONResponse:
        spec = Subscriber.model_validate(asked.model_dump(exclude={"id"}))
        await run_in_threadpool(door.ready)
        await run_in_threadpool(door.check, spec)
        entry = await run_in_threadpool(carried_out, lambda: door.service.registry.create(asked.id, spec, actor=acting(user)))
        return door.answer(entry, 201)

    @router.get(
        "/v1/subscribers/{id}", tags=["subscribers"], summary="A subscriber and how its delivery goes", responses=responses(404, 503)
    )
    async def subscriber(id: str) -> JSONResponse:
        return door.answer(await run_in_threadpool(door.entry, id))

    @router.put("/v1/subscribers/{id}", tags=["subscribers"], summary="Change a subscriber, effective at once", responses=errors)
    async def change(id: str, spec: Subscriber, user: User = "api", if_match: IfMatch = None) -> JSONResponse:
        entry = await run_in_threadpool(door.changeable, id, if_match)
        await run_in_threadpool(door.check, spec)
        return door.answer(await run_in_threadpool(carried_out, lambda: door.service.registry.change(entry, spec, actor=acting(user))))

    @router.delete("/v1/subscribers/{id}", tags=["subscribers"], summary="End a subscriber", responses=errors)
    async def end(id: str, user: User = "api", if_match: IfMatch = None) -> JSONResponse:
        entry = await run_in_threadpool(door.changeable, id, if_match)
        done = await run_in_threadpool(carried_out, lambda: door.service.registry.set_status(entry, "end", ENDED, actor=acting(user)))
        return door.answer(done)

    @router.get("/v1/subscribers/{id}/history", tags=["subscribers"], summary="Its changes, oldest first", responses=responses(404, 503))
    async def history(id: str) -> JSONResponse:
        await run_in_threadpool(door.ready)
        found = door.service.registry.history(id)
        if not found:
            raise ProblemError(404, "not-found", f"There never was a subscriber {id}.")
        rows = [{**readable(record), "spec": orjson.loads(record["spec"])} for record in found]
        return JSONResponse({"items": rows, "next": None})


def _verbs(router: APIRouter, door: Door) -> None:
    errors = responses(404, 409, 412, 422, 503)

    def status_route(verb: str, action: str, status: str, about: str) -> None:
        @router.post(f"/v1/subscribers/{{id}}/{verb}", tags=["subscribers"], summary=about, responses=errors, name=verb)
        async def set_status(id: str, why: Reason | None = None, user: User = "api", if_match: IfMatch = None) -> JSONResponse:
            entry = await run_in_threadpool(door.matching, id, if_match)
            reason = why.reason if why else ""
            work = partial(door.service.registry.set_status, entry, action, status, actor=acting(user), reason=reason)
            return door.answer(await run_in_threadpool(carried_out, work))

    status_route("pause", "pause", PAUSED, "Stop delivering; what comes waits in Kafka")
    status_route("resume", "resume", ACTIVE, "Go on delivering where it stopped")

    @router.post("/v1/subscribers/{id}/replay", tags=["subscribers"], summary="Deliver a time again", responses=errors)
    async def replay(id: str, asked: ReplayRequest, user: User = "api", if_match: IfMatch = None) -> JSONResponse:
        entry = await run_in_threadpool(door.matching, id, if_match)
        position = door.position(asked, entry)
        work = partial(door.service.registry.replay, entry, position, actor=acting(user), reason=asked.reason)
        return door.answer(await run_in_threadpool(carried_out, work), 202)

    @router.post("/v1/subscribers/{id}/test", tags=["subscribers"], summary="Send a sample now", responses=responses(404, 422, 502, 503))
    async def test(id: str, asked: TestRequest | None = None) -> dict[str, Any]:
        entry = await run_in_threadpool(door.entry, id)
        tools = door.service.tools
        able = tools.testable(entry.spec)
        wanted = (asked.object if asked else None) or (able[0] if able else entry.spec.objects[0])
        if wanted not in able:
            raise ProblemError(422, "not-valid", f"object: {wanted} is none of its objects of which there are samples ({', '.join(able)})")
        if not door.service.wanted(entry) and entry.spec.channel.kind == "kafka":
            raise ProblemError(422, "not-valid", "It reads the hub's own topics: there is nothing to send.")
        try:
            sent = await run_in_threadpool(tools.try_out, id, entry.spec, wanted)
        except DeliveryError as error:
            raise ProblemError(502, "not-delivered", error.reason, code=error.code) from None
        return {"object": wanted, "place": sent.place, "bytes": sent.bytes, "code": sent.code}

    @router.post(
        "/v1/subscribers/{id}/deliveries/{delivery}/resend",
        tags=["subscribers"],
        summary="Send one delivery once more, under its id",
        responses=responses(404, 409, 422, 502, 503),
    )
    async def resend(id: str, delivery: str) -> dict[str, Any]:
        entry = await run_in_threadpool(door.entry, id)
        note(subject=f"subscriber/{id}", after={"delivery": delivery})
        return await run_in_threadpool(door.again, entry, delivery)

    @router.get(
        "/v1/subscribers/{id}/deliveries",
        response_model=Page,
        tags=["subscribers"],
        summary="What became of its deliveries",
        responses=errors,
    )
    async def deliveries(
        id: str,
        status: Text = None,
        object: Text = None,
        key: Text = None,
        since: Annotated[datetime | None, Query(alias="from")] = None,
        until: Annotated[datetime | None, Query(alias="to")] = None,
        cursor: Annotated[str | None, Query(max_length=4000)] = None,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
    ) -> JSONResponse:
        filters = {"subscriber": id, "status": status, "object": object, "key": key}
        sql, parameters = page_query(DELIVERIES, filters, since, until, cursor, limit)
        rows = await run_in_threadpool(door.reader.rows, sql, parameters)
        more, rows = len(rows) > limit, rows[:limit]
        following = cursor_of([cursor_text(rows[-1][column]) for column in DELIVERIES.order]) if more else None
        return JSONResponse({"items": [readable(row) for row in rows], "next": following})


def _metadata(router: APIRouter, door: Door) -> None:
    def known(name: str) -> None:
        if name not in objects.DEFINITIONS:
            raise ProblemError(404, "not-found", f"There is no object {name}.", known=sorted(objects.DEFINITIONS))

    @router.get("/v1/objects", tags=["objects"], summary="What subscribers can ask for")
    async def all_objects() -> dict[str, Any]:
        tools = door.service.tools
        found = [objects.describe(tools.topology, tools.codec, name) for name in objects.DEFINITIONS]
        brief = ("name", "about", "topic", "key", "identified_by", "available", "schema_versions", "formats")
        return {"items": [{name: one[name] for name in brief} for one in found], "next": None}

    @router.get("/v1/objects/{name}", tags=["objects"], summary="Fields, units, schema versions and a sample", responses=responses(404))
    async def one_object(name: str) -> dict[str, Any]:
        known(name)
        return objects.describe(door.service.tools.topology, door.service.tools.codec, name)

    @router.get("/v1/objects/{name}/schema", tags=["objects"], summary="JSON Schema of an item", responses=responses(404))
    async def schema(name: str) -> JSONResponse:
        known(name)
        topology = door.service.tools.topology
        if not objects.record_types(topology, name):
            raise ProblemError(404, "not-found", f"{name} is reserved: nothing flows there yet.")
        return JSONResponse(objects.json_schema(topology, name), media_type="application/schema+json")

    @router.get("/v1/asyncapi", tags=["objects"], summary="AsyncAPI description of all topics (YAML)", response_class=Response)
    async def asyncapi() -> Response:
        text = documents.asyncapi(door.service.tools.topology, documents.committed_schemas(), installed("meter-data-hub"))
        return Response(text, media_type="application/vnd.aai.asyncapi+yaml;version=3.0.0")
