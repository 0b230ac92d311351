"""What the HTTP interface takes and gives, as models; the OpenAPI document is made of them."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Accepted(BaseModel):
    """Kafka has the payload."""

    id: str = Field(description="ask `/v1/payloads/{id}` what became of it")


class CommandRequest(BaseModel):
    """What to do with the days of one channel; docs/vee.md tells what each action does."""

    model_config = ConfigDict(extra="forbid")

    action: Literal["re-vee", "edit", "accept", "estimate", "discard", "force"]
    device: str = Field(max_length=255)
    channel: str = Field(max_length=255)
    start: datetime = Field(description="ISO time with offset; of a register read: when it was read")
    end: datetime | None = Field(default=None, description="exclusive; left out: a second later, for one register read")
    seconds: int | None = Field(default=None, ge=0, description="interval length, where the channel has several; 0: its registers")
    values: list[Decimal | None] = Field(
        default_factory=list, max_length=100_000, description="edit: one value per interval; null leaves an interval as it is"
    )
    reading: Decimal | None = Field(default=None, description="edit of a register read")
    method: str | None = Field(default=None, max_length=64, description="estimate: an estimation rule or outage-zero")
    reason: str = Field(default="", max_length=255, description="reason code")
    user: str = Field(default="", max_length=255, description="who orders it; where people log in: they")
    expected_version: int | None = Field(default=None, description="refuse unless the newest version of these days is this")
    dry_run: bool = Field(default=False, description="say what it would change (outcome `preview`), and change nothing")
    exception: str | None = Field(
        default=None, max_length=64,
        description="the anomaly this settles: accept and force say that it was none, discard, edit and estimate that it was one",
    )  # fmt: skip


class LabelRequest(BaseModel):
    """What was found out about an anomaly: named by its exception, or by channel and local day."""

    model_config = ConfigDict(extra="forbid")

    exception: str | None = Field(default=None, max_length=64, description="id of the exception")
    device: str | None = Field(default=None, max_length=255)
    channel: str | None = Field(default=None, max_length=255)
    day: date | None = Field(default=None, description="local day")
    verdict: Literal["confirmed", "false-alarm"] = Field(description="whether something was wrong indeed")
    reason: str = Field(default="", max_length=255)
    user: str = Field(default="", max_length=255, description="who says so; where people log in: they")


class CommandAnswer(BaseModel):
    """What became of a command."""

    id: str
    at: datetime = Field(description="the hub's clock as data")
    actor: str
    action: str
    outcome: Literal["applied", "refused", "preview"]
    detail: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class MasterLine(BaseModel):
    """A line that was not taken."""

    line: int
    message: str


class MasterItem(BaseModel):
    """What became of an object of a master data document."""

    line: int
    item: str
    kind: str
    id: str
    outcome: str = Field(description="applied, unchanged, parked, refused, or accepted: not decided yet")
    reason: str = ""
    version: int = 0


class MasterAnswer(BaseModel):
    """What was taken of a master data document."""

    accepted: int
    refused: int
    ids: list[str] = Field(default_factory=list, description="one per accepted channel, for `/v1/settle`")
    errors: list[MasterLine] = Field(default_factory=list, description="the first 100 refused lines")
    items: list[MasterItem] = Field(default_factory=list, description="one per object, that is per line with a kind")


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
    history_tick: int | None = Field(
        description="the latest tick that asked the store for history: what it closed is billed by a later one"
    )
    history_under_way: bool = Field(description="an answer of the store is still under way")
    quiet_seconds: int = Field(description="a day is closed by a tick that comes so long after its last read")


class Page(BaseModel):
    """One page of rows."""

    items: list[dict[str, Any]]
    next: str | None = Field(description="cursor of the next page; null: this was the last")


class Health(BaseModel):
    """Whether reads can flow."""

    status: Literal["ready", "not ready", "live"]
    reasons: list[str] = Field(default_factory=list)
