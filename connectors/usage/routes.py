"""The HTTP door of usage: ask for it, read it, say that it stands on a bill, announce critical peaks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Literal

import orjson
from fastapi import APIRouter, Header, Query
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.concurrency import run_in_threadpool

from connectors.head_end.desk import Reader
from connectors.head_end.documents import Accepted, Page
from connectors.head_end.handlers import acknowledged, as_problem
from connectors.head_end.listing import TIME, Listing, cursor_of, cursor_text, page_query, readable
from connectors.head_end.problems import ProblemError, responses
from connectors.head_end.publish import PublishError, Writer, check_label
from connectors.rights.principal import acting
from connectors.rights.scope import require_within
from schemas.codec import Codec
from schemas.identity import identity, partition_of
from streams.calendar import LAST_DAY
from streams.determinants.usage.billed import subject_of

TOPIC: Final = "hub.commands"
LONGEST: Final = 400 * 86_400
USAGE: Final = Listing(
    "usage",
    {"period_start": TIME, "account": "String", "usage": "String"},
    "period_start",
    "period_end",
    ("account", "group", "trigger", "status", "correction", "bill", "usage"),
)
Key = Annotated[str | None, Header(max_length=255)]
Text = Annotated[str | None, Query(max_length=255)]
Id = Annotated[str, Field(min_length=1, max_length=200)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class UsageRequestDocument(_Model):
    """Which usage is wanted. Asked again for the same period, it has the same ids."""

    account: Id = Field(description="usage subscription")
    start: datetime = Field(alias="from", description="ISO time with offset")
    end: datetime | None = Field(default=None, alias="to", description="left out: the newest local midnight all channels have data for")
    trigger: Literal["request", "final", "off-cycle"] = Field(
        default="request", description="final: the customer moves out; off-cycle: the regular period goes on behind it"
    )
    force: bool = Field(default=False, description="release what checks hold, and do not wait")
    user: str = Field(default="", max_length=200)


class BillDocument(_Model):
    """On which bill it stands."""

    bill: Id
    version: int | None = Field(default=None, ge=1, description="that was billed; left out: the newest")
    user: str = Field(default="", max_length=200)


class TouEventDocument(_Model):
    """A critical-peak event: in its span a time-of-use period, or another map, holds."""

    id: Id
    start: datetime = Field(alias="from")
    end: datetime = Field(alias="to")
    tou: str = Field(default="", max_length=40, description="period that holds, such as critical")
    use: str = Field(default="", max_length=60, description="map of topology.yaml that holds instead")
    maps: list[Id] = Field(default=[], max_length=100, description="maps it applies to; none: all")
    accounts: list[Id] = Field(default=[], max_length=1000, description="patterns; none: all")
    cancelled: bool = Field(default=False, description="takes the event of this id back")
    user: str = Field(default="", max_length=200)

    @model_validator(mode="after")
    def _one(self) -> TouEventDocument:
        if bool(self.tou) == bool(self.use) and not self.cancelled:
            raise ValueError("needs tou or use, one of them")
        return self


@dataclass(frozen=True, slots=True)
class UsageDesk:
    """Publishes what is asked and said of usage; acknowledged means Kafka has it."""

    writer: Writer
    reader: Reader
    codec: Codec
    partitions: int
    maps: frozenset[str]
    clock: Callable[[], int] = time.time_ns

    def loops(self) -> Mapping[str, Callable[[threading.Event], None]]:
        """None: it only answers."""
        return {}

    def close(self) -> None:
        """Nothing is held."""

    async def publish(self, kind: str, body: dict[str, Any], route: str) -> JSONResponse:
        """Writes one record and waits for Kafka."""
        try:
            future = await run_in_threadpool(self._write, kind, body, route)
            await acknowledged(future, self.writer.timeout + 5)
        except PublishError as error:
            raise as_problem(error) from None
        return JSONResponse({"id": body["id"]}, 202)

    def _write(self, kind: str, body: dict[str, Any], route: str) -> Any:
        key = route.encode()
        header = identity(kind, body["id"], str(body.get("cancelled", "")))
        place = partition_of(key, self.partitions)
        return self.writer.write(TOPIC, self.codec.encode(kind, body), key=key, headers={"id": header.encode()}, partition=place)

    def id_of(self, kind: str, asked: BaseModel, key: str | None, *more: str) -> str:
        """The id of what is asked: from the idempotency key, else new."""
        if key is not None:
            check_label("Idempotency-Key", key, required=True)
            return identity(kind, "key", key)
        return identity(kind, asked.model_dump_json(), *more, self.clock())

    def find(self, id_: str) -> dict[str, Any]:
        """What a determinant or usage id stands for: key, account, usage, subject, version. Raises Problem 404."""
        usage = self.reader.rows(
            "SELECT account, usage, max(version) AS version FROM usage_transactions WHERE status = 'sent' AND (id = {id:String} "
            "OR usage = {id:String}) GROUP BY account, usage LIMIT 1",
            {"id": id_},
        )
        if usage:
            return {**usage[0], "subject": "", "route": usage[0]["account"], "device": "", "channel": "", "unit": "", "start": 0}
        found = self.reader.rows("SELECT * FROM bill_determinants WHERE id = {id:String} LIMIT 1", {"id": id_})
        if not found:
            raise ProblemError(404, "not-found", "No determinant and no usage of this id is in the store.")
        row = found[0]
        route = row["account"] or row["service_point"] or row["device"]
        begin = int(row["period_start"].timestamp())
        return {**row, "route": route, "start": begin, "subject": "" if row["usage"] else subject_of(row, begin)}


def second(name: str, at: datetime) -> int:
    """A time as whole UTC second. Raises Problem 422."""
    if at.tzinfo is None:
        raise ProblemError(422, "not-valid", f"{name}: a time needs an offset, such as 2026-03-29T00:00:00Z")
    if at.microsecond or not 0 <= at.timestamp() < LAST_DAY * 86_400:
        raise ProblemError(422, "not-valid", f"{name}: must be a whole second between 1970 and 2100")
    return int(at.timestamp())


def routes(desk: UsageDesk) -> APIRouter:
    """The router; ``desk`` is None where the interface is only described."""
    router = APIRouter(tags=["usage"])
    errors = responses(422, 503)

    @router.post("/v1/usage-requests", status_code=202, response_model=Accepted, summary="Ask for usage of a period", responses=errors)
    async def ask(asked: UsageRequestDocument, idempotency_key: Key = None) -> JSONResponse:
        start, end = second("from", asked.start), None if asked.end is None else second("to", asked.end)
        if end is not None and not start < end <= start + LONGEST:
            raise ProblemError(422, "not-valid", f"to: must lie behind from, at most {LONGEST // 86_400} days")
        body = {
            "id": desk.id_of("usage-request", asked, idempotency_key), "account": asked.account, "start": start, "end": end,
            "trigger": asked.trigger, "force": asked.force, "user": acting(asked.user), "again": True,
        }  # fmt: skip
        return await desk.publish("UsageRequest", body, asked.account)

    @router.get("/v1/usage-requests/{id}", summary="What became of a request", responses=responses(404, 503))
    async def answer(id: str) -> dict[str, Any]:
        sql = (
            "SELECT * FROM usage_transactions FINAL "
            "WHERE has(JSONExtract(requests, 'Array(String)'), {id:String}) ORDER BY at DESC, version DESC LIMIT 1"
        )
        found = await run_in_threadpool(desk.reader.rows, sql, {"id": id})
        await run_in_threadpool(require_within, desk.reader, ("account", found[0]["account"] if found else ""))
        if not found:
            raise ProblemError(404, "not-found", "No request of this id has been answered yet; one just taken is within seconds.")
        return opened(found[0])

    @router.get("/v1/usage", response_model=Page, summary="Usage of subscriptions, newest version of each period", responses=errors)
    async def usage(
        account: Text = None,
        group: Text = None,
        trigger: Text = None,
        status: Text = None,
        correction: Text = None,
        bill: Text = None,
        usage: Text = None,
        since: Annotated[datetime | None, Query(alias="from")] = None,
        until: Annotated[datetime | None, Query(alias="to")] = None,
        cursor: Annotated[str | None, Query(max_length=2000)] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> JSONResponse:
        filters = {
            "account": account, "group": group, "trigger": trigger, "status": status, "correction": correction, "bill": bill,
            "usage": usage,
        }  # fmt: skip
        sql, parameters = page_query(USAGE, filters, since, until, cursor, limit)
        found = await run_in_threadpool(desk.reader.rows, sql, parameters)
        more, rows = len(found) > limit, found[:limit]
        following = cursor_of([cursor_text(rows[-1][column]) for column in USAGE.order]) if more else None
        return JSONResponse({"items": [opened(row) for row in rows], "next": following})

    @router.post(
        "/v1/determinants/{id}/used-on-bill",
        status_code=202,
        response_model=Accepted,
        summary="Say that a determinant, or usage with all its determinants, stands on a bill",
        responses=responses(404, 422, 503),
    )
    async def used(id: str, said: BillDocument, idempotency_key: Key = None) -> JSONResponse:
        found = await run_in_threadpool(desk.find, id)
        body = {
            "id": desk.id_of("used-on-bill", said, idempotency_key, id), "account": found["route"], "usage": found["usage"],
            "subject": found["subject"], **{name: found[name] for name in ("device", "channel", "unit", "start")},
            "version": said.version or found["version"], "bill": said.bill, "user": acting(said.user),
        }  # fmt: skip
        return await desk.publish("UsedOnBill", body, found["route"])

    @router.post("/v1/tou-events", status_code=202, response_model=Accepted, summary="Announce a critical-peak event", responses=errors)
    async def event(told: TouEventDocument) -> JSONResponse:
        start, end = second("from", told.start), second("to", told.end)
        if not start < end <= start + LONGEST:
            raise ProblemError(422, "not-valid", "to: must lie behind from")
        for name in [*told.maps, *([told.use] if told.use else [])]:
            if name not in desk.maps:
                raise ProblemError(422, "not-valid", f"there is no map {name!r}", known=sorted(desk.maps))
        body = {**told.model_dump(exclude={"start", "end"}), "start": start, "end": end, "user": acting(told.user)}
        return await desk.publish("TouEvent", body, told.id)

    return router


def opened(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with its lists as JSON."""
    lists = {name: orjson.loads(row[name] or "[]") for name in ("requests", "quantities")}
    return {**readable(row), **lists}
