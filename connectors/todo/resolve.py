"""Resolving what is behind a To-Do: commands to VEE for its exceptions, or a preview of what they would change, determinants included."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

from connectors.head_end.command_desk import KafkaCommandDesk
from connectors.head_end.documents import CommandRequest
from connectors.head_end.label_desk import LabelDesk
from connectors.head_end.listing import readable
from connectors.head_end.outcomes import awaited
from connectors.head_end.problems import ProblemError
from connectors.head_end.publish import PublishError, RefusedError
from connectors.rights.principal import acting
from connectors.todo.service import TodoService
from schemas import quantity
from schemas.identity import identity
from schemas.topology.tou import DeterminantsSettings
from streams import calendar
from streams.determinants.maps import Maps
from streams.vee.orders import MAX_SPAN

Micros = int
PREVIEWED: Final = 20  # exceptions of one To-Do that are previewed; resolving does all
MOST: Final = 1000  # exceptions of one To-Do that are resolved in one go; for more there are bulk orders
_DAY: Final = 86_400


class Resolution(BaseModel):
    """What is to be done with the data a To-Do is about."""

    model_config = ConfigDict(extra="forbid")

    action: Literal["re-vee", "edit", "accept", "estimate", "discard", "force"]
    version: int | None = Field(default=None, description="refuse unless the To-Do still has this version")
    start: datetime | None = Field(default=None, description="ISO time with offset: another span than that of the exceptions")
    end: datetime | None = None
    seconds: int | None = Field(default=None, ge=0, description="interval length, where the channel has several; 0: its registers")
    values: list[Decimal | None] = Field(default_factory=list, max_length=100_000, description="edit: one per interval; null leaves one")
    reading: Decimal | None = Field(default=None, description="edit of a register read")
    method: str | None = Field(default=None, max_length=64, description="estimate: an estimation rule or outage-zero")
    reason: str = Field(default="", max_length=255)
    user: str = Field(default="", max_length=255)
    dry_run: bool = Field(default=False, description="say what it would change, and change nothing")


class Resolver:
    """Carries resolutions out."""

    def __init__(self, todos: TodoService, commands: KafkaCommandDesk, labels: LabelDesk, determinants: DeterminantsSettings) -> None:
        self.todos, self.commands, self.labels = todos, commands, labels
        self.maps = Maps(determinants)

    def resolve(self, id: str, asked: Resolution) -> dict[str, Any]:
        """The preview, or the outcomes of the commands. Raises Problem 404, 409, 422, 503."""
        todo = self.todos.todo(id)
        if todo["state"] == "completed" or asked.version not in (None, todo["version"]):
            raise ProblemError(409, "conflict", "Somebody changed or completed it before you.", todo=readable(todo))
        requests = self._requests(todo, asked)
        return self._preview(todo, asked, requests) if asked.dry_run else self._carry_out(todo, asked, requests)

    def _requests(self, todo: Mapping[str, Any], asked: Resolution) -> list[CommandRequest]:
        """One command per open exception behind the To-Do, or one for the span that is given."""
        common = asked.model_dump(include={"action", "seconds", "values", "reading", "method", "reason", "user", "dry_run"})
        found = self.todos.exceptions(todo, MOST + 1, only_open=True)
        if len(found) > MOST:
            detail = f"More than {MOST} exceptions are behind it: order it for all of them with POST /v1/commands/bulk."
            raise ProblemError(422, "too-many", detail, most=MOST)
        if asked.start is not None:
            if not (todo["device"] and todo["channel"]):
                raise ProblemError(422, "not-valid", "start: this To-Do is not about one channel")
            one = found[0]["id"] if len(found) == 1 else None
            return [_command(common, todo["device"], todo["channel"], asked.start, asked.end, one)]
        if not found:
            raise ProblemError(422, "nothing-open", "No open exception is behind it: name the span with start and end.")
        if asked.action == "edit" and len(found) > 1:
            raise ProblemError(422, "not-valid", "edit: several exceptions are behind it, name the span with start and end")
        return [_command(common, row["device"], row["channel"], row["start"], row["end"], row["id"]) for row in found]

    # --- preview ------------------------------------------------------------------------------------------------------------------

    def _preview(self, todo: Mapping[str, Any], asked: Resolution, requests: Sequence[CommandRequest]) -> dict[str, Any]:
        shown = requests[:PREVIEWED]
        outcomes = self._sent(shown)
        changes = [change | {"device": told["device"]} for told in outcomes for change in told["after"].get("changes", [])]
        count = sum(int(told["after"].get("changed_intervals", 0)) for told in outcomes)
        return {
            "todo": todo["id"], "action": asked.action, "dry_run": True, "commands": len(requests), "previewed": len(shown),
            "outcomes": [{name: told[name] for name in _OUTCOME} for told in outcomes], "changed_intervals": count, "changes": changes,
            "exceptions": [row for told in outcomes for row in told["after"].get("exceptions", [])],
            "determinants": self.effect(changes), "complete": len(shown) == len(requests) and count == len(changes),
        }  # fmt: skip

    def effect(self, changes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """What changed intervals do to the sums of their local days, by time of use: before, after, difference."""
        spans: dict[tuple[str, str, int], list[Mapping[str, Any]]] = defaultdict(list)
        for change in changes:
            spans[change["device"], change["channel"], change["seconds"]].append(change)
        found = []
        for (device, channel, seconds), told in spans.items():
            starts = [_second(change["start"]) for change in told]
            days = self.todos.reader.rows(
                "SELECT d.map AS map, d.day AS day, toUnixTimestamp(d.start) AS begin, toUnixTimestamp(d.end) AS until, d.tou AS tou, "
                "d.quantities AS quantities, d.unit AS unit, d.account AS account, f.zone AS zone FROM (SELECT * FROM determinant_days "
                "FINAL WHERE device = {device:String} AND channel = {channel:String} AND seconds = {seconds:UInt32} AND start <= "
                "toDateTime({last:Int64}, 'UTC') AND end > toDateTime({first:Int64}, 'UTC')) AS d LEFT JOIN (SELECT DISTINCT day, zone "
                "FROM final_days WHERE device = {device:String} AND channel = {channel:String}) AS f ON f.day = d.day ORDER BY begin",
                {"device": device, "channel": channel, "seconds": seconds, "first": min(starts), "last": max(starts)},
            )
            for day in days:
                here = [c for c, at in zip(told, starts, strict=True) if day["begin"] <= at < day["until"]]
                found += self._day(device, channel, seconds, day, here)
        return found

    def _day(
        self, device: str, channel: str, seconds: int, day: Mapping[str, Any], changes: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        before: dict[str, Micros] = dict(zip(day["tou"], map(int, day["quantities"]), strict=True))
        after = dict(before)
        count = int(day["until"] - day["begin"]) // seconds
        number = self.maps.number_of(day["map"]) if day["map"] else 0
        zone = day["zone"] or "UTC"
        local = int(calendar.day_of(zone, int(day["begin"])))
        vector = self.maps.vectors[self.maps.vector(number, zone, local, seconds, count)]
        names = self.maps.names[vector.map][1]
        for change in changes:
            line = names[int(vector.lines[(_second(change["start"]) - day["begin"]) // seconds])]
            moved = _micros(change["to"]["value"]) - _micros(change["from"]["value"])
            for name in {"", line}:  # the nameless line is the whole day
                after[name] = after.get(name, 0) + moved
        return [
            {
                "device": device, "channel": channel, "account": day["account"], "day": str(day["day"]), "map": day["map"], "tou": line,
                "unit": day["unit"], "before": quantity.text_of(before.get(line, 0)), "after": quantity.text_of(value),
                "difference": quantity.text_of(value - before.get(line, 0)),
            }
            for line, value in after.items()
        ]  # fmt: skip

    # --- doing it -----------------------------------------------------------------------------------------------------------------

    def _carry_out(self, todo: Mapping[str, Any], asked: Resolution, requests: Sequence[CommandRequest]) -> dict[str, Any]:
        """The To-Do is taken first, with its version: of two people one gets the conflict before anything happens to data."""
        act = self.todos.act(
            "resolve", todo["id"], user=acting(asked.user), version=int(todo["version"]), to=asked.action, reason=asked.reason
        )
        if act["status"] == "accepted":
            detail = "The To-Do could not be taken in time; nothing was ordered. Try again."
            raise ProblemError(503, "not-decided", detail, headers={"Retry-After": "5"}, act=act["id"])
        for request in requests:
            try:
                label = self.labels.of_command(request)
                if label is not None:
                    label.result(self.todos.writer.timeout + 5)
            except (PublishError, TimeoutError) as error:
                raise ProblemError(503, "kafka-away", f"Kafka did not take all of it: {error}") from error
        outcomes = self._sent(requests, act["id"])
        applied = [told for told in outcomes if told["outcome"] == "applied"]
        if applied and not todo["rule"]:  # no exception will go and end it
            self.todos.act("complete", todo["id"], user=acting(asked.user), to=asked.action, reason=asked.reason)
        return {
            "todo": todo["id"], "action": asked.action, "dry_run": False, "act": act["id"], "commands": len(requests),
            "applied": len(applied), "outcomes": [{name: told[name] for name in _OUTCOME} for told in outcomes],
            "complete": len(outcomes) == len(requests),
        }  # fmt: skip

    def _sent(self, requests: Sequence[CommandRequest], act: str | None = None) -> list[dict[str, Any]]:
        """Sends commands and waits for what becomes of them; those decided in time, in the order asked."""
        ids = []
        try:
            for request in requests:
                key = None if act is None else identity("resolve", act, request.device, request.channel, request.start.isoformat())
                id_, sent = self.commands.submit(request, key)
                ids.append((id_, sent))
            for _, sent in ids:
                sent.result(self.todos.writer.timeout + 5)
        except RefusedError as error:
            raise ProblemError(422, "not-valid", str(error)) from None
        except (PublishError, TimeoutError) as error:
            raise ProblemError(503, "kafka-away", f"Kafka did not take all of it: {error}") from error
        told: dict[str, dict[str, Any]] = {}

        def ask() -> bool | None:
            left = [id_ for id_, _ in ids if id_ not in told]
            rows = self.todos.reader.rows(
                "SELECT command, device, channel, outcome, detail, after FROM audit WHERE command IN {ids:Array(String)}", {"ids": left}
            )
            told.update({row["command"]: {**row, "after": orjson.loads(row["after"] or "{}")} for row in rows})
            return len(told) == len(ids) or None

        awaited(ask, self.todos.patience + len(ids) * 0.05)
        return [told[id_] for id_, _ in ids if id_ in told]


_OUTCOME: Final = ("command", "device", "channel", "outcome", "detail")


def _command(
    common: Mapping[str, Any], device: str, channel: str, start: datetime, end: datetime | None, exception: str | None
) -> CommandRequest:
    """A command; spans of exceptions that are longer than a command may be are cut, those of a moment become a second."""
    begin = start if start.tzinfo else start.replace(tzinfo=UTC)
    until = None if end is None else (end if end.tzinfo else end.replace(tzinfo=UTC))
    if until is not None and exception is not None:
        until = min(max(until, begin + timedelta(seconds=1)), begin + timedelta(seconds=MAX_SPAN))
    return CommandRequest(**common, device=device, channel=channel, start=begin, end=until, exception=exception)


def _second(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def _micros(text: str | None) -> Micros:
    return 0 if text is None else int(Decimal(text) * 1_000_000)
