"""Bulk orders: one command for every open exception that a selection finds, with a second pair of eyes above a limit.

An order is its entries in the audit: *requested* with the selection, *ordered* or *approved* with who did it, *rejected*. Nothing else is
kept, so an order outlives the hub process. The ids of its commands follow from the order and the exception: done twice, it is done once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal

import orjson
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from connectors.head_end.command_desk import second_of
from connectors.head_end.desk import Reader
from connectors.head_end.orders import Claims, OrderBook, in_sight
from connectors.head_end.outcomes import send
from connectors.head_end.problems import ProblemError
from connectors.head_end.publish import RefusedError, Writer, check_label
from connectors.rights.principal import acting
from connectors.rights.scope import Within, here
from connectors.rights.trail import Trail
from schemas.codec import Codec
from schemas.identity import identity
from schemas.rules import RULES, SEVERITIES
from schemas.topology.commands import CommandSettings
from streams.vee.orders import MAX_SPAN, flaw

SAMPLE: Final = 20
AT_ONCE: Final = 2000  # commands on their way to Kafka


class Selection(BaseModel):
    """Which open exceptions are meant."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    rule: str = Field(description="rule id")
    since: datetime = Field(alias="from", description="ISO time with offset: exceptions that end behind it")
    until: datetime = Field(alias="to", description="and begin before this")
    devices: list[str] = Field(default_factory=list, max_length=1000, description="patterns (`*`, `?`); none: all")
    channels: list[str] = Field(default_factory=list, max_length=100, description="patterns")
    severity: str | None = Field(default=None, description="only of this one")


class BulkRequest(BaseModel):
    """A command for every exception of a selection."""

    model_config = ConfigDict(extra="forbid")

    action: Literal["re-vee", "accept", "estimate", "discard", "force"]
    select: Selection
    method: str | None = Field(default=None, max_length=64, description="estimate: an estimation rule or outage-zero")
    reason: str = Field(default="", max_length=255)
    user: str = Field(default="", max_length=255, description="where people log in: they")
    dry_run: bool = Field(default=False, description="count only")


class Decision(BaseModel):
    """What a second person says to an order."""

    model_config = ConfigDict(extra="forbid")

    user: str = Field(default="", max_length=255, description="where people log in: they")
    count: int | None = Field(default=None, description="what is agreed to; needed where the selection has changed since it was requested")
    reason: str = Field(default="", max_length=255)


class BulkAnswer(BaseModel):
    """A bulk order as it stands."""

    id: str | None = Field(description="none for a dry run")
    state: Literal["dry-run", "waiting", "ordered", "approved", "rejected"]
    action: str
    count: int = Field(description="commands")
    devices: int = 0
    channels: int = 0
    intervals: int = Field(default=0, description="that the exceptions name")
    needs_approval: bool = False
    user: str = ""
    decided_by: str = ""
    outcomes: dict[str, int] = Field(default_factory=dict, description="of its commands so far: applied, refused")
    sample: list[dict[str, Any]] = Field(default_factory=list)


class BulkDesk:
    """Takes bulk orders, and what second persons say to them."""

    def __init__(
        self, reader: Reader, writer: Writer, codec: Codec, settings: CommandSettings, topic: str, trail: Trail,
        clock: Callable[[], float] = time.time, claims: Claims | None = None,
    ) -> None:  # fmt: skip
        self.orders = OrderBook("bulk", reader, trail, clock, claims)
        self.reader, self.writer, self.codec, self.settings, self.topic, self.clock = reader, writer, codec, settings, topic, clock

    def loops(self) -> Mapping[str, Any]:
        """No threads."""
        return {}

    def close(self) -> None:
        """Nothing is held."""

    # --- orders -----------------------------------------------------------------------------------------------------------------

    def submit(self, asked: BulkRequest) -> BulkAnswer:
        """Counts, orders at once, or leaves the order to a second person. Raises ProblemError."""
        self._check(asked)
        found = self._find(asked.select, here())
        waits = len(found) > self.settings.four_eyes_above
        answer = self._answer(None, "dry-run", asked, found) if asked.dry_run or not found else None
        if answer is not None:
            return answer
        id_ = identity("bulk", asked.model_dump_json(by_alias=True), int(self.clock() * 1e9))
        request = orjson.dumps(asked.model_dump(mode="json", by_alias=True)).decode()
        self.orders.request(id_, asked.action, asked.user, len(found), request, reason=asked.reason, span=_span(asked))
        if waits:
            return self._answer(id_, "waiting", asked, found)
        self._order(id_, asked, found, "")
        self._note(id_, asked, "ordered", asked.user, f"{len(found)} commands")
        return self._answer(id_, "ordered", asked, found)

    def decide(self, id_: str, said: Decision, *, approve: bool) -> BulkAnswer:
        """Approves or rejects a waiting order. Raises ProblemError: 404, 403 by the one who asked, 409 decided or changed."""
        check_label("user", said.user, required=True)
        with self.orders.decision(id_, said.user, approve=approve) as known:
            in_sight(known)
            asked = BulkRequest.model_validate_json(known.request)
            if not approve:
                self._note(id_, asked, "rejected", said.user, said.reason or "rejected")
                return self._answer(id_, "rejected", asked, [], decided_by=said.user, count=known.count)
            found = self._find(asked.select, known.area, here())
            self.orders.agreed(known, said.count, len(found))
            self._order(id_, asked, found, said.user)
            self._note(id_, asked, "approved", said.user, f"{len(found)} commands")
            return self._answer(id_, "approved", asked, found, decided_by=said.user)

    def show(self, id_: str) -> BulkAnswer:
        """An order as it stands. Raises ProblemError 404, also for one that reaches outside the area of the one who asks."""
        known = self.orders.find(id_)
        in_sight(known)
        asked = BulkRequest.model_validate_json(known.request)
        rows = self.reader.rows(
            "SELECT outcome, count() AS n FROM audit WHERE bulk = {id:String} AND command != '' GROUP BY outcome", {"id": id_}
        )
        outcomes = {row["outcome"]: int(row["n"]) for row in rows}
        return self._answer(id_, known.state, asked, [], decided_by=known.decided_by, count=known.count, outcomes=outcomes)

    def waiting(self) -> list[BulkAnswer]:
        """Orders that wait for a second person, the oldest first, 100 at most; of the area of the one who asks."""
        return [self.show(id_) for id_ in self.orders.waiting() if here().covers(self.orders.find(id_).area)]

    # --- the rest ---------------------------------------------------------------------------------------------------------------

    def _check(self, asked: BulkRequest) -> None:
        try:
            check_label("user", asked.user, required=True)
            check_label("reason", asked.reason)
            start, end = second_of("from", asked.select.since), second_of("to", asked.select.until)
        except RefusedError as error:
            raise ProblemError(422, "not-valid", str(error)) from None
        if start >= end:
            raise ProblemError(422, "not-valid", "from must lie before to")
        if asked.select.rule not in RULES:
            raise ProblemError(422, "not-valid", f"there is no rule {asked.select.rule!r}", known=sorted(RULES))
        if asked.select.severity not in (None, *SEVERITIES):
            raise ProblemError(422, "not-valid", f"severity is one of {', '.join(SEVERITIES)}")
        wrong = flaw(self._record("x", asked, {"device": "x", "channel": "x", "begins": 0, "ends": 1, "id": "x"}, ""))
        if wrong:
            raise ProblemError(422, "not-valid", wrong)

    def _find(self, select: Selection, *areas: Within) -> list[dict[str, Any]]:
        """The open exceptions of a selection whose devices lie in all areas. Raises ProblemError where they are too many for one order."""
        where = [
            "status = 'open'",
            "rule = {rule:String}",
            "start < toDateTime({to:Int64}, 'UTC')",
            "end > toDateTime({from:Int64}, 'UTC')",
        ]
        parameters: dict[str, Any] = {"rule": select.rule, "from": int(select.since.timestamp()), "to": int(select.until.timestamp())}
        if select.severity:
            where.append("severity = {severity:String}")
            parameters["severity"] = select.severity
        for column, patterns in (("device", select.devices), ("channel", select.channels)):
            if patterns:
                where.append(f"arrayExists(p -> {column} LIKE p, {{{column}s:Array(String)}})")
                parameters[f"{column}s"] = [_like(pattern) for pattern in patterns]
        for area in areas:
            where.append(area.on("device"))
            parameters |= area.parameters
        most = self.settings.most
        found = self.reader.rows(
            "SELECT id, device, channel, severity, toUnixTimestamp(start) AS begins, toUnixTimestamp(end) AS ends, count, detail "
            f"FROM exceptions "
            f"WHERE {' AND '.join(where)} ORDER BY device, channel, start, id LIMIT {most + 1}", parameters,
        )  # fmt: skip
        if len(found) > most:
            raise ProblemError(422, "too-many", f"The selection finds more than {most} exceptions: narrow it.", most=most)
        return found

    def _order(self, id_: str, asked: BulkRequest, found: list[dict[str, Any]], approved_by: str) -> None:
        """Writes the commands, some at a time; returns when Kafka has them all. Raises ProblemError."""
        for first in range(0, len(found), AT_ONCE):
            records = [self._record(id_, asked, row, approved_by) for row in found[first : first + AT_ONCE]]
            send(self.writer, self.codec, [(self.topic, "Command", record, record["device"], record["id"]) for record in records])

    def _record(self, id_: str, asked: BulkRequest, row: Mapping[str, Any], approved_by: str) -> dict[str, Any]:
        start = int(row["begins"])
        return {
            "id": identity("command", id_, row["id"]), "action": asked.action, "device": row["device"], "channel": row["channel"],
            "start": start, "end": min(max(int(row["ends"]), start + 1), start + MAX_SPAN), "seconds": None, "values": [], "reading": None,
            "method": asked.method, "reason": asked.reason, "user": asked.user, "expected_version": None, "dry_run": False, "bulk": id_,
            "approved_by": approved_by,
        }  # fmt: skip

    def _note(self, id_: str, asked: BulkRequest, outcome: str, actor: str, detail: str) -> None:
        self.orders.note(id_, asked.action, outcome, actor, detail, reason=asked.reason, span=_span(asked))

    def _answer(self, id_: str | None, state: Any, asked: BulkRequest, found: list[dict[str, Any]], **more: Any) -> BulkAnswer:
        shown = [{name: row[name] for name in ("device", "channel", "severity", "detail")} for row in found[:SAMPLE]]
        figures = {
            "count": len(found), "devices": len({row["device"] for row in found}),
            "channels": len({(row["device"], row["channel"]) for row in found}), "intervals": sum(int(row["count"]) for row in found),
            "needs_approval": len(found) > self.settings.four_eyes_above, "sample": shown,
        }  # fmt: skip
        if "count" in more:
            figures["needs_approval"] = more["count"] > self.settings.four_eyes_above
        return BulkAnswer(**({"id": id_, "state": state, "action": asked.action, "user": asked.user} | figures | more))


def _span(asked: BulkRequest) -> tuple[datetime, datetime]:
    return asked.select.since.astimezone(UTC), asked.select.until.astimezone(UTC)


def _like(pattern: str) -> str:
    """A pattern with `*` and `?` for LIKE."""
    escaped = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%").replace("?", "_")


def _signed(said: Decision) -> Decision:
    return said.model_copy(update={"user": acting(said.user)})


def routes(desk: BulkDesk) -> APIRouter:
    """The door of bulk orders."""
    router = APIRouter(tags=["commands"])

    @router.post("/v1/commands/bulk", status_code=202, summary="Order something done with every open exception of a selection")
    def post_bulk(asked: BulkRequest) -> BulkAnswer:
        return desk.submit(asked.model_copy(update={"user": acting(asked.user)}))

    @router.get("/v1/bulk-orders", summary="Bulk orders that wait for a second person")
    def get_waiting() -> list[BulkAnswer]:
        return desk.waiting()

    @router.get("/v1/bulk-orders/{id}", summary="A bulk order as it stands")
    def get_bulk(id: str) -> BulkAnswer:
        return desk.show(id)

    @router.post("/v1/bulk-orders/{id}/approve", status_code=202, summary="Approve a bulk order of somebody else")
    def post_approve(id: str, said: Decision) -> BulkAnswer:
        return desk.decide(id, _signed(said), approve=True)

    @router.post("/v1/bulk-orders/{id}/reject", summary="Reject a bulk order")
    def post_reject(id: str, said: Decision) -> BulkAnswer:
        return desk.decide(id, _signed(said), approve=False)

    return router
