"""Views of the store as lists: which columns are shown, by what they can be filtered, in which order."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Any, Final
from zoneinfo import ZoneInfo

from connectors.enterprise.routes import OBJECTS
from connectors.head_end.listing import EXCEPTIONS, TIME, Listing, Rows, page_of
from connectors.head_end.problems import ProblemError
from connectors.rights.routes import AUDIT
from connectors.usage.routes import USAGE
from schemas.rules import RULES, SEVERITIES

PAGE: Final = 100
_MARKED: Final = re.compile(r"(.*:\d\d) ([A-Za-z]{2,6}|[+-]\d{2,4})")  # a time and the short name of its zone
EVENTS: Final = Listing(
    "device_events", {"at": TIME, "device": "String", "id": "String"}, "at", "at", ("kind", "severity", "source", "code"), ("device",),
    backward=True,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class List:
    """``columns`` are shown of a listing; ``timed``: it can be bounded by times."""

    listing: Listing
    columns: tuple[str, ...]
    timed: bool = True
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict)  # usual values of filters

    @property
    def names(self) -> tuple[str, ...]:
        """What it can be filtered by, times left out."""
        return (*self.listing.equals, *self.listing.begins, *self.listing.flags)


LISTS: Final[dict[str, List]] = {
    "exceptions": List(
        replace(EXCEPTIONS, equals=("rule", "severity", "status", "channel", "payload"), begins=("device", "service_point"), backward=True),
        ("start", "end", "device", "channel", "rule", "severity", "status", "count", "detail"),
        choices={"rule": sorted(RULES), "severity": SEVERITIES, "status": ("open", "resolved", "superseded", "overridden")},
    ),
    "determinants": List(
        Listing(
            "bill_determinants FINAL",
            {"period_start": TIME, **dict.fromkeys(("account", "device", "channel", "kind", "tou", "period", "unit"), "String"),
             "version": "Int64", "id": "String"},
            "period_start", "period_end", ("kind", "tou", "status", "period"), ("account", "device"), backward=True,
        ),
        ("period_start", "period_end", "account", "device", "channel", "kind", "tou", "quantity", "status", "version", "reason"),
    ),
    "usage": List(
        replace(USAGE, equals=("status", "group", "trigger", "bill"), begins=("account",), backward=True),
        ("period_start", "period_end", "account", "group", "trigger", "status", "version", "correction", "reason", "bill"),
    ),
    "prepaid": List(
        Listing(
            "prepaid_accounts", {"account": "String"}, "as_of", "as_of", ("state", "level", "tariff"), ("account", "device"),
            {"below": "balance < 0", "trouble": "trouble != ''"},
        ),
        ("account", "device", "state", "balance", "debt", "days_left", "tariff", "level", "hold", "trouble", "as_of"), timed=False,
    ),
    "master": List(
        replace(OBJECTS, equals=("kind", "source"), begins=("id", "device", "service_point", "account")),
        ("kind", "id", "valid_from", "valid_to", "device", "service_point", "account", "version", "changed_at", "source"), timed=False,
    ),
    "events": List(EVENTS, ("at", "device", "kind", "severity", "code", "detail", "source")),
    "audit": List(
        replace(AUDIT, equals=("actor", "action", "outcome", "reason", "command", "bulk"), begins=("device", "subject"), backward=True),
        ("at", "actor", "action", "outcome", "device", "channel", "start", "end", "reason", "detail", "approved_by"),
    ),
}  # fmt: skip


def page(reader: Rows, spec: List, query: Mapping[str, str], cursor: str | None, zone: ZoneInfo) -> tuple[list[dict[str, Any]], str | None]:
    """One page of a list, and the cursor of the next; times without offset are those of the zone. Raises Problem 403, 422."""
    times = [moment(name, query.get(name), zone) if spec.timed else None for name in ("from", "to")]
    return page_of(reader, spec.listing, query, times[0], times[1], cursor, PAGE)


def moment(name: str, text: str | None, zone: tzinfo = UTC) -> datetime | None:
    """A time that people gave: ISO with an offset, or local time of ``zone``, with the zone's short name behind it or without.

    A date alone is the begin of that local day. Raises Problem 422, also for a local time that there is not or that comes twice when
    clocks change, unless the short name tells which is meant.
    """
    if not text:
        return None
    marked = _MARKED.fullmatch(text.strip())
    local, mark = (marked[1], marked[2]) if marked else (text.strip(), "")
    try:
        at = datetime.fromisoformat(local)
    except ValueError:
        raise ProblemError(422, "not-valid", f"{name}: {text[:60]} is no time such as 2026-03-29T00:00:00Z") from None
    if at.tzinfo:
        return at
    twice = [at.replace(tzinfo=zone, fold=fold) for fold in (0, 1)]
    if len(local) <= len("2026-03-29"):
        return twice[0]
    there = [one for one in twice if one.astimezone(UTC).astimezone(zone).replace(tzinfo=None) == at]
    meant = {one.astimezone(UTC): one for one in there if mark in ("", one.tzname())}
    if len(meant) == 1:
        return next(iter(meant.values()))
    shown = f"{name}: {at:%Y-%m-%d %H:%M}"
    if not there:
        raise ProblemError(422, "not-valid", f"{shown} does not exist in {zone}: clocks are put forward over it.")
    ways = " or ".join(dict.fromkeys(f"{at:%H:%M} {one.tzname()} ({one.astimezone(UTC):%H:%MZ})" for one in there))
    if not meant:
        raise ProblemError(422, "not-valid", f"{shown} in {zone} is {ways}, not {mark[:20]}.")
    raise ProblemError(422, "not-valid", f"{shown} comes twice in {zone} when clocks are put back: write {ways}.")


def days_of(since: str | None, until: str | None, now: datetime) -> tuple[date, date]:
    """The days of a span, the last exclusive: usually the seven before today, 92 at most. Raises Problem 422."""
    end = moment("to", until) or now
    begin = moment("from", since) or end - timedelta(days=7)
    last = max(end.date(), begin.date() + timedelta(days=1))
    return max(begin.date(), last - timedelta(days=92)), last
