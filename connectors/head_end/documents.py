"""What the HTTP interface takes and gives, as models; the OpenAPI document is made of them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class Accepted(BaseModel):
    """Kafka has the payload."""

    id: str = Field(description="ask `/v1/payloads/{id}` what became of it")


class MasterLine(BaseModel):
    """A line that was not taken."""

    line: int
    message: str


class MasterAnswer(BaseModel):
    """What was taken of a master data document."""

    accepted: int
    refused: int
    ids: list[str] = Field(default_factory=list, description="one per accepted line, for `/v1/settle`")
    errors: list[MasterLine] = Field(default_factory=list, description="the first 100 refused lines")


class SettleQuestion(BaseModel):
    """Which payloads to ask about, and how long to wait for them."""

    ids: list[str] = Field(max_length=10_000)
    wait: float = Field(default=0, ge=0, le=30, description="seconds to wait at most until all are complete")


class Dead(BaseModel):
    """A payload that nobody could decode, or not all of it."""

    id: str
    reason: str
    whole: bool = Field(description="nothing of it could be used")


class Settled(BaseModel):
    """How far payloads have come."""

    complete: int
    waiting: int
    waiting_ids: list[str]
    counts: dict[str, int] = Field(description="sums over the complete payloads: reads, finals, exceptions, parked, dead …")
    dead: list[Dead]
    now: int = Field(description="the hub's time, UTC seconds")
    settled_tick: int | None = Field(description="the latest tick whose work is all in the store, UTC seconds")
    quiet_seconds: int = Field(description="a day is closed by a tick that comes so long after its last read")


class Page(BaseModel):
    """One page of rows."""

    items: list[dict[str, Any]]
    next: str | None = Field(description="cursor of the next page; null: this was the last")


class Health(BaseModel):
    """Whether reads can flow."""

    status: Literal["ready", "not ready", "live"]
    reasons: list[str] = Field(default_factory=list)
