"""The console's own doors of the API: figures, meters, curves, what people keep."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from connectors.console import figures, fleet, meter
from connectors.console.lists import EVENTS, days_of, moment
from connectors.console.part import USUAL, Console
from connectors.console.settings import check
from connectors.console.shelf import Arrangement
from connectors.console.words import local, quality, zone_of
from connectors.head_end.documents import Page
from connectors.head_end.listing import page_of, readable
from connectors.head_end.problems import ProblemError, responses
from connectors.rights import scope
from connectors.rights.principal import acting, current

Text = Annotated[str | None, Query(max_length=255)]
Cursor = Annotated[str | None, Query(max_length=4000, description="`next` of the page before")]
LONGEST = timedelta(days=92)


class Suggestion(BaseModel):
    """A topology.yaml, from when it is to hold, and why."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(max_length=1_000_000, description="the whole file")
    title: str = Field(min_length=1, max_length=200)
    effective_from: date = Field(description="first local day it is to hold for")
    reason: str = Field(default="", max_length=500)
    user: str = Field(default="", max_length=255, description="where people log in: they")


class Why(BaseModel):
    """Why something is done."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(default="", max_length=500)
    user: str = Field(default="", max_length=255, description="where people log in: they")


def api(console: Console | None) -> APIRouter:
    """All doors; without a console they are only described."""
    router = APIRouter(prefix="/v1")
    _times(router)
    _dashboard(router, console)
    _meters(router, console)
    _proposals(router, console)
    return router


def _there(console: Console | None) -> Console:
    if console is None:
        raise ProblemError(503, "no-console", "This gateway has no console.")
    return console


def _times(router: APIRouter) -> None:
    @router.get("/local-times", tags=["console"], summary="Local times in UTC", responses=responses(422),
                description="Times are ISO, without offset those of the zone. One that does not exist or comes twice when clocks change is "
                "refused, unless the zone's short name behind it tells which is meant: `2026-10-25 02:30 CET`.")  # fmt: skip
    def times(
        at: Annotated[list[str], Query(min_length=1, max_length=20)], zone: Annotated[str, Query(max_length=64)] = "UTC"
    ) -> dict[str, Any]:
        place = zone_of(zone)
        if place.key != zone:
            raise ProblemError(422, "not-valid", f"zone: {zone} is no IANA zone such as Europe/Madrid")
        found = [(text, moment("at", text[:60], place)) for text in at]
        if not all(one for _, one in found):
            raise ProblemError(422, "not-valid", "at: a time is missing")
        return {"times": [{"given": text, "utc": readable({"at": one})["at"], "local": local(one, place)} for text, one in found if one]}


def _dashboard(router: APIRouter, console: Console | None) -> None:
    @router.get("/dashboard", tags=["console"], summary="How you arranged your dashboard, and all widgets there are")
    def arrangement() -> dict[str, Any]:
        return {**_there(console).arrangement().model_dump(), "widgets": list(figures.WIDGETS)}

    @router.put("/dashboard", tags=["console"], summary="Arrange your dashboard", responses=responses(409, 422, 503))
    def arrange(wanted: Arrangement) -> dict[str, Any]:
        return {**_there(console).arrange(wanted).model_dump(), "widgets": list(figures.WIDGETS)}

    @router.get("/dashboard/{widget}", tags=["console"], summary="The figures of a widget", responses=responses(404, 422, 503))
    def figure(widget: str, at: Text = None, days: Annotated[int, Query(ge=1, le=92)] = USUAL) -> dict[str, Any]:
        if widget not in figures.WIDGETS:
            raise ProblemError(404, "not-found", f"There is no widget {widget[:40]}; GET /v1/dashboard names all.")
        return _told(_there(console).figure(widget, at, days))


def _told(content: figures.Content) -> dict[str, Any]:
    """A widget as JSON: figures as they are shown, links to what is behind them."""

    def cells(row: Any) -> list[str]:
        return [str(cell[0] if isinstance(cell, tuple) else cell) for cell in row]

    tables = [figures.Table("", content.columns, content.rows), *content.also]
    return {
        "said": content.said,
        "tiles": [{"label": tile.label, "value": tile.value, "link": tile.href} for tile in content.tiles],
        "tables": [
            {"title": table.title, "columns": list(table.columns), "rows": [cells(row) for row in table.rows]}
            for table in tables
            if table.rows
        ],
    }


def _meters(router: APIRouter, console: Console | None) -> None:
    @router.get("/meters", tags=["meters"], summary="Meters by name, place, account, how they are reached, or with estimated values",
                responses=responses(422, 503))  # fmt: skip
    def meters(
        q: Text = None, head_end: Text = None, dcu: Text = None, region: Text = None, heard: Text = None,
        estimated: Annotated[bool, Query(description="those with estimated values on the days from `from` until `to`")] = False,
        since: Annotated[str | None, Query(alias="from")] = None, until: Annotated[str | None, Query(alias="to")] = None,
    ) -> dict[str, Any]:  # fmt: skip
        reader = _there(console).reader
        sides = {"head_end": head_end, "dcu": dcu, "region": region, "heard": heard}
        filters = {name: value for name, value in sides.items() if value}
        area = scope.here()
        if estimated:
            rows = fleet.estimated(reader, *days_of(since, until, datetime.now(UTC)), meter.FOUND + 1, area)
        elif filters:
            rows = fleet.meters(reader, filters, datetime.now(UTC), meter.FOUND + 1, area)
        else:
            rows = meter.search(reader, (q or "").strip(), area)
        return {"items": [readable(row) for row in rows[: meter.FOUND]], "more": len(rows) > meter.FOUND}

    @router.get("/meters/{device}", tags=["meters"], summary="Everything about a meter, the newest rows of each part",
                responses=responses(404, 503))  # fmt: skip
    def one(device: str) -> dict[str, Any]:
        reader = _there(console).reader
        may = scope.may_about(reader, device)
        channels = meter.channels(reader, device)
        installs = meter.installs(reader, device) if may("master.read") else []
        accounts = meter.accounts(reader, channels, installs)
        parts = {
            name: [readable(row) for row in meter.section(reader, spec, device, accounts)]
            for name, spec in meter.SECTIONS.items() if may(spec.permission)
        }  # fmt: skip
        if not (channels or installs or any(parts.values())):
            raise ProblemError(404, "not-found", f"Nothing is known of a device {device[:100]}.")
        prepaid = meter.accounts_of(reader, accounts) if may("prepaid.read") else []
        return {
            "device": device, "channels": [readable(row) for row in channels], "master": [readable(row) for row in installs],
            "accounts": [readable(row) for row in prepaid], **parts,
        }  # fmt: skip

    @router.get("/meters/{device}/curve", tags=["meters"], summary="A load curve with all that helps to judge it",
                responses=responses(422, 503))  # fmt: skip
    def curve(
        device: str, channel: str, since: Annotated[str | None, Query(alias="from")] = None,
        until: Annotated[str | None, Query(alias="to")] = None,
    ) -> dict[str, Any]:  # fmt: skip
        end = moment("to", until) or datetime.now(UTC)
        begin = max(moment("from", since) or end - timedelta(days=7), end - LONGEST)
        here = _there(console)
        known = next((row for row in meter.channels(here.reader, device) if row["channel"] == channel and row["seconds"]), None)
        found, beside, exceptions = here.curve(device, channel, (begin, end), zone_of(known["zone"] if known else None, here.topology.zone))
        return {
            "device": device, "channel": channel, "unit": found.unit, "seconds": found.seconds, "start": found.start.tolist(),
            "value": _numbers(found.value), "received": _numbers(found.received), "condition": found.condition.tolist(),
            "quality": [quality(code) for code in found.condition.tolist()], "lower": _numbers(found.lower),
            "middle": _numbers(found.middle), "upper": _numbers(found.upper),
            "neighbours": _line(beside.neighbours), "temperature": _line(beside.temperature),
            "registers": [
                {"channel": r.channel, "unit": r.unit, "at": list(r.at), "reading": [str(v) for v in r.reading]} for r in found.registers
            ],
            "events": [{"at": at, "kind": kind} for at, kind in found.events],
            "outages": [{"from": begin, "to": end} for begin, end in found.outages], "exceptions": [readable(row) for row in exceptions],
        }  # fmt: skip

    @router.get("/device-events", response_model=Page, tags=["meters"], summary="What devices told of themselves, newest first",
                responses=responses(403, 422, 503))  # fmt: skip
    def events(
        kind: Text = None, severity: Text = None, source: Text = None, code: Text = None,
        device: Annotated[str | None, Query(max_length=255, description="how it begins")] = None,
        since: Annotated[datetime | None, Query(alias="from")] = None, until: Annotated[datetime | None, Query(alias="to")] = None,
        cursor: Cursor = None, limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
    ) -> dict[str, Any]:  # fmt: skip
        filters = {"kind": kind, "severity": severity, "source": source, "code": code, "device": device}
        rows, following = page_of(_there(console).reader, EVENTS, filters, since, until, cursor, limit)
        return {"items": [readable(row) for row in rows], "next": following}


def _numbers(values: Any) -> list[float | None]:
    return [None if value != value else value for value in values.tolist()]


def _line(line: Any) -> dict[str, Any] | None:
    if line is None:
        return None
    return {"of": line.of, "count": line.count, "start": line.start.tolist(), "value": _numbers(line.value)}


def _proposals(router: APIRouter, console: Console | None) -> None:
    errors = responses(404, 409, 422, 503)

    @router.get("/proposals", tags=["console"], summary="Proposals of topology.yaml, newest first", responses=responses(503))
    def proposals() -> list[dict[str, Any]]:
        return _there(console).proposals()

    @router.post("/proposals", status_code=201, tags=["console"], summary="Propose a topology.yaml; it is checked, compared and kept",
                 responses=errors)  # fmt: skip
    def propose(asked: Suggestion) -> dict[str, Any]:
        here = _there(console)
        entry, checked = here.propose(asked.text, asked.title, asked.effective_from, asked.reason, acting(asked.user) or current().name)
        return {**here.told(entry), "settings": list(checked.settings), "undated": list(checked.undated)}

    @router.get("/proposals/{id}", tags=["console"], summary="A proposal, and what it would change now", responses=errors)
    def proposal(id: str) -> dict[str, Any]:
        here = _there(console)
        entry = here.proposal(id)
        told = check(here.topology, entry.spec.text, entry.spec.effective_from)
        return {
            **here.told(entry), "error": told.error, "settings": list(told.settings), "undated": list(told.undated),
            "diff": list(told.lines),
        }  # fmt: skip

    @router.get("/proposals/{id}/topology.yaml", tags=["console"], summary="The file, ready to be put in place", response_class=Response,
                responses=errors)  # fmt: skip
    def text(id: str) -> Response:
        entry = _there(console).proposal(id)
        name = f'attachment; filename="topology-{id}.yaml"'
        return Response(entry.spec.text, media_type="application/yaml", headers={"Content-Disposition": name})

    @router.post("/proposals/{id}/withdraw", tags=["console"], summary="Take a proposal back", responses=errors)
    def withdraw(id: str, asked: Why) -> dict[str, Any]:
        here = _there(console)
        return here.told(here.withdraw(id, acting(asked.user) or current().name, asked.reason))
