"""What the routes of the HTTP interface do. Waiting for Kafka happens on the event loop; whatever asks the store runs in a thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final, TypeVar
from zoneinfo import available_timezones

import orjson
import structlog
from fastapi import Request
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool

from connectors.head_end.desk import Desk
from connectors.head_end.documents import CommandAnswer, CommandRequest, Dead, LabelRequest, MasterLine, Settled, SettleQuestion
from connectors.head_end.formats.events import EventError, decode_events
from connectors.head_end.listing import Listing, cursor_of, cursor_text, page_query, readable
from connectors.head_end.problems import ProblemError
from connectors.head_end.publish import ConflictError, PublishError, RefusedError, TooLargeError, UnavailableError
from connectors.head_end.versions import StaleError
from connectors.rights.principal import acting
from connectors.rights.scope import require_within
from connectors.rights.trail import note

log = structlog.get_logger(__name__)
T = TypeVar("T")

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


def carried_out(work: Callable[[], T]) -> T:
    """Does a change of something kept in versions; raises its errors as problems."""
    try:
        return work()
    except StaleError as error:
        raise ProblemError(409, "conflict", str(error)) from None
    except PublishError as error:
        raise as_problem(error) from None


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

    async def events(self, request: Request, source: str, idempotency_key: str | None) -> JSONResponse:
        """Takes one payload of device events."""
        publisher = self.desk.events
        if publisher is None:
            raise ProblemError(503, "no-events", "This gateway takes no device events.")
        async with body_of(request, publisher.max_payload_bytes, self.budget) as data:
            try:
                await run_in_threadpool(decode_events, data)
                payload, future = await run_in_threadpool(publisher.submit, data, source=source, idempotency_key=idempotency_key)
                await acknowledged(future, publisher.writer.timeout + 5)
            except EventError as error:
                raise ProblemError(422, "not-valid", str(error)) from None
            except PublishError as error:
                raise as_problem(error) from None
        return JSONResponse({"id": payload}, 202, headers={"Location": f"/v1/payloads/{payload}"})

    async def command(self, asked: CommandRequest, idempotency_key: str | None) -> JSONResponse:
        """Takes one command."""
        desk = self.desk
        if desk.commands is None:
            raise ProblemError(503, "no-commands", "This gateway takes no commands.")
        try:
            asked = asked.model_copy(update={"user": acting(asked.user)})
            id_, future = await run_in_threadpool(desk.commands.submit, asked, idempotency_key)
            note(command=id_, actor=asked.user, subject=f"{asked.device}/{asked.channel}")
            await acknowledged(future, desk.publisher.writer.timeout + 5)
            if desk.labels is not None and asked.exception is not None:
                await acknowledged(await run_in_threadpool(desk.labels.of_command, asked), desk.publisher.writer.timeout + 5)
        except PublishError as error:
            raise as_problem(error) from None
        log.info("command taken", command=id_, action=asked.action, device=asked.device, user=asked.user)
        return JSONResponse({"id": id_}, 202, headers={"Location": f"/v1/commands/{id_}"})

    async def label(self, asked: LabelRequest) -> JSONResponse:
        """Takes what was found out about an anomaly."""
        desk = self.desk
        if desk.labels is None:
            raise ProblemError(503, "no-labels", "This gateway takes no labels.")
        try:
            asked = asked.model_copy(update={"user": acting(asked.user)})
            exception, future = await run_in_threadpool(desk.labels.submit, asked)
            note(actor=asked.user, subject=f"exception/{exception}")
            await acknowledged(future, desk.publisher.writer.timeout + 5)
        except PublishError as error:
            raise as_problem(error) from None
        log.info("label taken", exception=exception, verdict=asked.verdict, user=asked.user)
        return JSONResponse({"id": exception}, 202)

    async def command_answer(self, id: str) -> CommandAnswer:
        """What became of a command."""
        sql = "SELECT * FROM audit WHERE command = {id:String} AND device != ''"  # what VEE made of it: the request has an entry of its own
        found = await run_in_threadpool(self.desk.reader.rows, sql, {"id": id})
        await run_in_threadpool(require_within, self.desk.reader, ("device", found[0]["device"] if found else ""))
        if not found:
            raise ProblemError(404, "not-found", "No command of this id has been decided yet; one just taken appears within seconds.")
        row = found[0]
        before, after = (orjson.loads(row[name]) if row[name] else None for name in ("before", "after"))
        return CommandAnswer.model_validate({**row, "id": id, "before": before, "after": after})

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
            found = await run_in_threadpool(self._known, question.ids)
            complete = sum(bool(row["complete"]) for row in found)
            if complete == len(set(question.ids)) or time.monotonic() >= deadline:
                return await run_in_threadpool(self._settled, question.ids, found)
            await asyncio.sleep(min(pause, max(deadline - time.monotonic(), 0)))
            pause = min(pause * 1.5, 1.0)

    def _known(self, ids: list[str]) -> list[dict[str, Any]]:
        """What the store has heard of these payloads."""
        return self.desk.reader.payloads(sorted(set(ids))) if ids else []

    def _settled(self, ids: list[str], found: list[dict[str, Any]]) -> Settled:
        """The answer; ticks are asked for after the payloads, so that they say no less than these."""
        wanted = set(ids)
        complete = [row for row in found if row["complete"]]
        counts = {"payloads": len(complete)}
        for name in ("rows", "reads", "finals", "exceptions", "parked", "dead"):
            counts[name] = sum(int(row.get(name) or 0) for row in complete)
        history_tick, under_way = self.desk.reader.history_asked()
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
            history_tick=history_tick,
            history_under_way=under_way,
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
