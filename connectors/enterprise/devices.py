"""The head end's side of device commands: what waits to be carried out, and what became of it."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from connectors.head_end import problems
from connectors.head_end.listing import Listing
from connectors.head_end.problems import ProblemError
from connectors.head_end.publish import PublishError

if TYPE_CHECKING:
    from connectors.enterprise.part import Enterprise

ORDERS: Final = Listing(
    "device_commands", {"issued_at": "DateTime('UTC')", "id": "String"}, "issued_at", "issued_at", ("device", "action", "status", "by")
)  # fmt: skip


class Reply(BaseModel):
    """What became of a command."""

    model_config = ConfigDict(extra="forbid")

    command: str = Field(min_length=1, max_length=255, description="its id")
    device: str = Field(min_length=1, max_length=200)
    status: Literal["accepted", "done", "failed"]
    at: datetime = Field(description="when it happened, ISO time with offset")
    code: str = Field(default="", max_length=100, description="as the head end names it")
    detail: str = Field(default="", max_length=1000)


Text = Annotated[str | None, Query(max_length=255)]


def routes(part: Enterprise | None) -> APIRouter:
    """The routes over a part; None where they are only described."""
    router = APIRouter(prefix="/v1", tags=["devices"])

    @router.get("/device-commands", summary="Commands to devices, oldest first", responses=problems.responses(422, 503))
    async def commands(
        device: Text = None,
        action: Text = None,
        status: Text = None,
        by: Text = None,
        cursor: Annotated[str | None, Query(max_length=4000, description="`next` of the page before")] = None,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
    ) -> dict[str, Any]:
        assert part is not None
        filters = {"device": device, "action": action, "status": status, "by": by}
        return await run_in_threadpool(part.listed, ORDERS, filters, cursor, limit)

    @router.post("/device-replies", status_code=202, summary="Say what became of a command", responses=problems.responses(422, 503))
    async def reply(said: Reply) -> dict[str, str]:
        assert part is not None
        if said.at.tzinfo is None or not 0 <= said.at.timestamp() < 4_102_444_800:
            raise ProblemError(422, "not-valid", "at: a time between 1970 and 2100 with an offset, such as 2026-03-29T00:00:00Z")
        body = {**said.model_dump(), "at": int(said.at.timestamp())}
        try:
            await run_in_threadpool(part.intake.reply, body)
        except PublishError as error:
            raise problems_of(error) from None
        return {"command": said.command}

    return router


def problems_of(error: PublishError) -> ProblemError:
    """The answer where Kafka did not take something."""
    return ProblemError(503, "kafka-away", f"Kafka does not take records now ({error}); try again.", headers={"Retry-After": "5"})
