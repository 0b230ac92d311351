"""The doors of master data under ``/v1/master``."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict
from datetime import datetime, timedelta
from itertools import chain
from typing import IO, Annotated, Any, Final, Literal, cast

import orjson
from fastapi import APIRouter, Body, Header, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from connectors.enterprise import acts
from connectors.enterprise.comparison import TOLD, Comparison
from connectors.enterprise.objects import attributes_of, numbered
from connectors.enterprise.persons import VaultError
from connectors.enterprise.service import ItemOutcome, MasterService
from connectors.head_end import problems
from connectors.head_end.handlers import as_problem
from connectors.head_end.listing import Listing, cursor_of, cursor_text, page_query, readable
from connectors.head_end.problems import ProblemError
from connectors.head_end.publish import Publisher, PublishError
from connectors.head_end.spool import spooled
from schemas.identity import identity

SOURCE: Final = "http"
MAX_EXTRACT_BYTES: Final = 16 * 1024**3  # it lies on disk while it is compared
PIECE: Final = 64 * 1024  # of an answer
AT_ONCE: Final = 5_000  # items submitted together
OBJECTS: Final = Listing(
    "master",
    {"kind": "String", "id": "String", "span": "UInt32"},
    "ifNull(valid_from, toDateTime(0, 'UTC'))",
    "ifNull(valid_to, toDateTime(4102444800, 'UTC'))",
    ("kind", "id", "device", "service_point", "account", "source"),
)
Settable = Literal["person", "account", "service_point", "device", "configuration", "component", "install", "subscription", "contract"]
Kind = Settable | Literal["channel"]
Wait = Annotated[float, Query(ge=0, le=60, description="seconds to wait at most for what becomes of it; 0: not at all")]
Key = Annotated[str | None, Header(alias="Idempotency-Key", max_length=255)]
User = Annotated[str, Query(max_length=255, description="who asks for it")]
_ANSWERS: Final = problems.responses(404, 409, 422, 503)


class Outcome(BaseModel):
    """What became of one object."""

    item: str = Field(description="sent again under this id it changes nothing")
    kind: str
    id: str
    outcome: Literal["applied", "unchanged", "parked", "refused", "accepted"]
    reason: str = ""
    version: int = 0


class Outcomes(BaseModel):
    """What became of each object of a message."""

    message: str
    counts: dict[str, int]
    items: list[Outcome]


class MasterRoutes:
    """The part of the hub process that is master data, and its handlers. Everything here blocks: routes call it from threads."""

    def __init__(self, service: MasterService, publisher: Publisher) -> None:
        self.service, self.publisher = service, publisher

    def loops(self) -> dict[str, Any]:
        """Nothing runs by itself."""
        return {}

    def close(self) -> None:
        """Closes the keys of persons."""
        self.service.close()

    def submit(self, lines: list[Any], key: str | None, user: str, wait: float, *, strict: bool = False) -> JSONResponse:
        """Submits lines; 200 where all were applied, 207 where what became of them differs, 202 where that is not known yet."""
        message = identity("key", SOURCE, key) if key else identity("master", orjson.dumps(lines, default=str), time.time_ns())
        found = self._submitted(lines, message, user, wait, strict=strict)
        return answer_of(message, found)

    def _submitted(
        self, lines: list[Any], message: str, user: str, wait: float, *, strict: bool = False, first: int = 0
    ) -> list[ItemOutcome]:
        try:
            return self.service.submit(lines, message, source=SOURCE, user=user, strict=strict, wait=wait, first=first)
        except PublishError as error:
            raise as_problem(error) from None
        except VaultError as error:
            raise ProblemError(503, "keys-away", str(error)) from None

    def one(self, line: dict[str, Any], key: str | None, user: str, wait: float) -> JSONResponse:
        """One object: 409 with the reason where it is refused."""
        response = self.submit([line], key, user, wait)
        item = json.loads(bytes(response.body))["items"][0]
        return self._single(item)

    @staticmethod
    def _single(item: dict[str, Any]) -> JSONResponse:
        if item["outcome"] == "refused":
            raise ProblemError(409, "conflict", item["reason"], item=item["item"])
        return JSONResponse(item, 202 if item["outcome"] in ("parked", "accepted") else 200)

    def act(
        self, make: Callable[[], list[dict[str, Any]]], key: str | None, user: str, wait: float, reads: list[dict[str, Any]]
    ) -> JSONResponse:
        """Several objects that belong together, and the readings taken then, which go the way of all reads."""
        try:
            lines = make()
        except acts.UnknownError as error:
            raise ProblemError(409, "conflict", str(error)) from None
        except ValueError as error:
            raise ProblemError(422, "not-valid", str(error)) from None
        message = identity("key", SOURCE, key) if key else identity("master", orjson.dumps(lines, default=str))
        found = self._submitted(lines, message, user, wait)
        refused = next((one for one in found if one.outcome == "refused"), None)
        if refused is not None:
            raise ProblemError(409, "conflict", refused.reason, items=[asdict(one) for one in found])
        payload = None
        if reads:
            data = orjson.dumps({"source": "master", "reads": reads})
            try:
                payload = self.publisher.publish(data, source="master", name=message, payload_id=identity("act", message))
            except PublishError as error:
                raise as_problem(error) from None
        return answer_of(message, found, payload=payload)

    def units(self, device: str) -> dict[str, str]:
        """The unit of each channel of a device."""
        return {body["channel"]: body.get("unit") or "" for _, body in self.service.of_device("component", device)}

    def exchange(self, device: str, asked: acts.Exchange, key: str | None, user: str, wait: float) -> JSONResponse:
        """A device swap in one act."""
        at, units = self._second(asked), self.units(device)
        new = units | {part["channel"]: part.get("unit") or "" for part in asked.components or () if "channel" in part}
        reads = acts.register_reads(device, at, asked.removal_readings, units)
        reads += acts.register_reads(asked.device, at, asked.start_readings, new)
        return self.act(lambda: acts.exchange_lines(self.service, device, asked), key, user, wait, reads)

    def happening(self, device: str, event: str, asked: acts.Happening, key: str | None, user: str, wait: float) -> JSONResponse:
        """An install event with the readings taken then."""
        reads = acts.register_reads(device, self._second(asked), asked.readings, self.units(device))
        return self.act(lambda: acts.event_lines(self.service, device, event, asked), key, user, wait, reads)

    @staticmethod
    def _second(asked: acts.Act) -> int:
        try:
            return asked.second()
        except ValueError as error:
            raise ProblemError(422, "not-valid", str(error)) from None

    def find(self, kind: str, id: str, as_of: datetime | None, *, history: bool) -> dict[str, Any]:
        """One object. Raises Problem 404."""
        try:
            found = self.service.find(kind, id, as_of, history=history)
        except VaultError as error:
            raise ProblemError(503, "keys-away", str(error)) from None
        if found is None:
            raise ProblemError(404, "not-found", f"There is no {kind} {id}; one just taken appears within seconds.")
        return found

    def page(self, filters: dict[str, str | None], as_of: datetime | None, cursor: str | None, limit: int) -> dict[str, Any]:
        """One page of spans of objects, those that hold at a time or all."""
        sql, parameters = page_query(OBJECTS, filters, as_of, as_of and as_of + timedelta(seconds=1), cursor, limit)
        rows = self.service.reader.rows(sql, parameters)
        more, rows = len(rows) > limit, rows[:limit]
        following = cursor_of([cursor_text(rows[-1][column]) for column in OBJECTS.order]) if more else None
        return {"items": [shown(row) for row in rows], "next": following}

    def compare(self, data: IO[bytes], at: int, key: str | None, user: str, wait: float, *, apply: bool) -> Iterator[bytes]:
        """The differences of an extract as NDJSON, then a line of counts; with ``apply`` they are made to go, and what became of it.

        What is held in memory does not grow with the extract. The iterator is to be read to its end or closed.
        """
        comparison = Comparison(self.service, at)
        try:
            digest = hashlib.sha256()
            for number, line in numbered(data, digest.update):
                comparison.take(number, line)
            errors = comparison.errors
            if errors and apply:
                raise ProblemError(
                    422, "not-valid", f"line {errors[0][0]}: {errors[0][1]}", errors=[f"line {n}: {what}" for n, what in errors]
                )
            comparison.compare()
            summary: dict[str, Any] = {name: comparison.counts[name] for name in ("added", "changed", "ended", "unchanged")}
            summary["errors"] = [{"line": number, "message": what} for number, what in errors]
            if apply:
                message = identity("key", SOURCE, key) if key else identity("extract", digest.hexdigest(), at)
                summary |= {"message": message, **self._apply(comparison, message, user, wait)}
        except BaseException:
            comparison.close()
            raise
        return _told(comparison, summary)

    def _apply(self, comparison: Comparison, message: str, user: str, wait: float) -> dict[str, Any]:
        """Submits what differs, some at a time, and then waits for what becomes of it: how many of each outcome, and what was refused."""
        deadline, first = time.monotonic() + wait, 0
        for lines in _batches(comparison.to_apply()):
            comparison.note(self._submitted(lines, message, user, 0, first=first))
            first += len(lines)
        counts: Counter[str] = Counter()
        refused: list[dict[str, Any]] = []
        for noted in comparison.noted(AT_ONCE):
            outcomes = self.service.decided(noted, max(deadline - time.monotonic(), 0)) if wait > 0 else noted
            counts.update(one.outcome for one in outcomes)
            refused += [asdict(one) for one in outcomes if one.outcome in ("refused", "parked")][: TOLD - len(refused)]
        return {"outcomes": dict(counts), "refused": refused}


def _told(comparison: Comparison, summary: dict[str, Any]) -> Iterator[bytes]:
    """The answer in pieces of many lines: each piece costs a change of threads."""
    piece = bytearray()
    with closing(comparison):
        for line in chain(comparison.differences(), [orjson.dumps(summary, option=orjson.OPT_APPEND_NEWLINE)]):
            piece += line
            if len(piece) >= PIECE:
                yield bytes(piece)
                piece.clear()
    if piece:
        yield bytes(piece)


def _batches(lines: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Lines, so many at a time; a group stays together."""
    batch: list[dict[str, Any]] = []
    for line in lines:
        if len(batch) >= AT_ONCE and not (line.get("group") and line["group"] == batch[-1].get("group")):
            yield batch
            batch = []
        batch.append(line)
    if batch:
        yield batch


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the view as JSON: attributes as they stand in lines, personal data left out."""
    return readable({**row, "attributes": attributes_of(row["kind"], row["id"], orjson.loads(row["attributes"]), None)})


def counted(outcomes: list[ItemOutcome]) -> dict[str, int]:
    """How many of each outcome."""
    counts: dict[str, int] = {}
    for one in outcomes:
        counts[one.outcome] = counts.get(one.outcome, 0) + 1
    return counts


def answer_of(message: str, found: list[ItemOutcome], **more: Any) -> JSONResponse:
    """The outcomes of a message with the status that fits them."""
    counts = counted(found)
    status = 207 if counts.keys() & {"refused", "parked"} else 202 if "accepted" in counts else 200
    told = {name: value for name, value in more.items() if value is not None}
    return JSONResponse({"message": message, "counts": counts, "items": [asdict(one) for one in found], **told}, status)


def router(part: MasterRoutes | None) -> APIRouter:
    """The routes over what stands behind them; None where they are only described."""
    here = APIRouter(prefix="/v1/master", tags=["master data"], responses=problems.responses(503))
    desk = cast(MasterRoutes, part)
    _lists(here, desk)
    _objects(here, desk)
    _acts(here, desk)
    return here


def _lists(here: APIRouter, desk: MasterRoutes) -> None:
    @here.post("/objects", summary="Change objects: one message, what became of each item", response_model=Outcomes, responses=_ANSWERS)
    async def post_objects(
        objects: Annotated[list[dict[str, Any]], Body(max_length=100_000)], strict: bool = False, wait: Wait = 10, user: User = "",
        idempotency_key: Key = None,
    ) -> JSONResponse:  # fmt: skip
        return await run_in_threadpool(desk.submit, objects, idempotency_key, user, wait, strict=strict)

    @here.get("/messages/{message}", summary="What became of the items of a message", response_model=Outcomes)
    async def get_message(message: str) -> JSONResponse:
        return answer_of(message, await run_in_threadpool(desk.service.outcomes, message))

    @here.get("/export", summary="All objects as NDJSON that can be loaded again", response_class=Response)
    async def export(
        kind: Annotated[list[Kind] | None, Query(description="only these kinds")] = None,
        personal: Annotated[bool, Query(description="with the data of persons, opened")] = False,
    ) -> StreamingResponse:
        return StreamingResponse(desk.service.export(kind, personal=personal), media_type="application/x-ndjson")

    @here.post(
        "/diff",
        summary="Compare a full extract with what the hub has, and make the hub as it says if asked to",
        description="NDJSON in; one line per difference out, the last line has the counts. An extract is full for each kind in it; "
        f"it may have {MAX_EXTRACT_BYTES // 1024**3} GiB.",
        response_class=Response,
        responses=problems.responses(413, 422),
        openapi_extra={"requestBody": {"required": True, "content": {"application/x-ndjson": {"schema": {"type": "string"}}}}},
    )
    async def diff(
        request: Request, apply: bool = False, at: Annotated[datetime | None, Query(description="from when changes hold; now")] = None,
        wait: Wait = 30, user: User = "", idempotency_key: Key = None,
    ) -> StreamingResponse:  # fmt: skip
        second = int(time.time() if at is None else at.timestamp())
        async with spooled(request, MAX_EXTRACT_BYTES) as data:
            pieces = await run_in_threadpool(desk.compare, data, second, idempotency_key, user, wait, apply=apply)
        return StreamingResponse(pieces, media_type="application/x-ndjson")

    @here.get("/{kind}", summary="Objects of a kind, by spans of time", responses=_ANSWERS)
    async def get_list(
        kind: Kind, device: str | None = None, service_point: str | None = None, account: str | None = None, source: str | None = None,
        as_of: Annotated[datetime | None, Query(description="only what holds then")] = None,
        cursor: Annotated[str | None, Query(max_length=4000)] = None, limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
    ) -> dict[str, Any]:  # fmt: skip
        filters = {"kind": kind, "device": device, "service_point": service_point, "account": account, "source": source}
        return await run_in_threadpool(desk.page, filters, as_of, cursor, limit)


def _objects(here: APIRouter, desk: MasterRoutes) -> None:
    @here.get("/{kind}/{id:path}", summary="One object as of a date, with its spans", responses=_ANSWERS)
    async def get_one(kind: Kind, id: str, as_of: datetime | None = None, history: bool = False) -> dict[str, Any]:
        return readable(await run_in_threadpool(desk.find, kind, id, as_of, history=history))

    @here.put("/{kind}/{id:path}", summary="Say what holds of an object, always or in a span of time", response_model=Outcome,
              responses=_ANSWERS)  # fmt: skip
    async def put(kind: Settable, id: str, attributes: Annotated[dict[str, Any], Body()], wait: Wait = 10, user: User = "",
                  idempotency_key: Key = None) -> JSONResponse:  # fmt: skip
        line = {**attributes, "kind": kind, "id": id, "action": "put"}
        return await run_in_threadpool(desk.one, line, idempotency_key, user, wait)

    @here.patch("/{kind}/{id:path}", summary="Change some attributes of an object", response_model=Outcome, responses=_ANSWERS)
    async def patch(kind: Settable, id: str, attributes: Annotated[dict[str, Any], Body()], wait: Wait = 10, user: User = "",
                    idempotency_key: Key = None) -> JSONResponse:  # fmt: skip
        line = {**attributes, "kind": kind, "id": id, "action": "patch"}
        return await run_in_threadpool(desk.one, line, idempotency_key, user, wait)

    @here.delete("/person/{id:path}/data", summary="Erase a person's data for good; their id stays, so that bills stay provable",
                 response_model=Outcome, responses=_ANSWERS)  # fmt: skip
    async def erase(id: str, wait: Wait = 10, user: User = "") -> JSONResponse:
        def erased() -> JSONResponse:
            try:
                return desk._single(asdict(desk.service.erase(id, user=user, wait=wait)))
            except PublishError as error:
                raise as_problem(error) from None

        return await run_in_threadpool(erased)

    @here.delete("/{kind}/{id:path}", summary="Take an object away as if it never was; refused where others name it",
                 response_model=Outcome, responses=_ANSWERS)  # fmt: skip
    async def remove(kind: Settable, id: str, wait: Wait = 10, user: User = "", idempotency_key: Key = None) -> JSONResponse:
        return await run_in_threadpool(desk.one, {"kind": kind, "id": id, "action": "remove"}, idempotency_key, user, wait)


def _acts(here: APIRouter, desk: MasterRoutes) -> None:
    @here.post("/{kind}/{id:path}/retire", summary="End an object from a moment on", response_model=Outcome, responses=_ANSWERS)
    async def retire(kind: Settable, id: str, asked: acts.Act, wait: Wait = 10, user: User = "",
                     idempotency_key: Key = None) -> JSONResponse:  # fmt: skip
        line = {"kind": kind, "id": id, "action": "end", "at": asked.at.isoformat()}
        return await run_in_threadpool(desk.one, line, idempotency_key, user, wait)

    @here.post("/device/{id:path}/exchange", summary="Swap a device: removal, new device, installation and readings in one act",
               response_model=Outcomes, responses=_ANSWERS)  # fmt: skip
    async def exchange(id: str, asked: acts.Exchange, wait: Wait = 10, user: User = "", idempotency_key: Key = None) -> JSONResponse:
        return await run_in_threadpool(desk.exchange, id, asked, idempotency_key, user, wait)

    for event in ("install", "connect", "disconnect", "remove"):
        _happening(here, desk, event)

    @here.post("/device/{id:path}/configuration", summary="Set a device up otherwise from a moment on", response_model=Outcomes,
               responses=_ANSWERS)  # fmt: skip
    async def configuration(id: str, asked: acts.Reconfiguration, wait: Wait = 10, user: User = "",
                            idempotency_key: Key = None) -> JSONResponse:  # fmt: skip
        def make() -> list[dict[str, Any]]:
            return acts.configuration_lines(desk.service, id, asked)

        return await run_in_threadpool(desk.act, make, idempotency_key, user, wait, [])

    @here.post("/service_point/{id:path}/account", summary="Another account uses a service point from a moment on",
               response_model=Outcomes, responses=_ANSWERS)  # fmt: skip
    async def account(id: str, asked: acts.AccountChange, wait: Wait = 10, user: User = "", idempotency_key: Key = None) -> JSONResponse:
        def make() -> list[dict[str, Any]]:
            return acts.account_lines(desk.service, id, asked)

        return await run_in_threadpool(desk.act, make, idempotency_key, user, wait, [])


def _happening(here: APIRouter, desk: MasterRoutes, event: str) -> None:
    @here.post(f"/device/{{id:path}}/{event}", name=f"{event}_device", summary=f"A device: {event}, with the readings taken then",
               response_model=Outcomes, responses=_ANSWERS)  # fmt: skip
    async def happening(id: str, asked: acts.Happening, wait: Wait = 10, user: User = "", idempotency_key: Key = None) -> JSONResponse:
        return await run_in_threadpool(desk.happening, id, event, asked, idempotency_key, user, wait)
