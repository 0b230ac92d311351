"""To-Dos as the console shows them: the list with its filters, and what belongs beside one. All answers are those of the To-Do service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, get_args
from zoneinfo import ZoneInfo

from pydantic import ValidationError
from starlette.datastructures import QueryParams

from connectors.console.words import aware
from connectors.head_end.listing import Rows
from connectors.head_end.problems import ProblemError
from connectors.todo.questions import GROUPS, SORTS, By, Selection, Sort

PAGE: Final = 100
_LISTS: Final = tuple(name for name, field in Selection.model_fields.items() if "list" in str(field.annotation))
_SINGLE: Final = ("age", "priority", "overdue", "grouped")
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """Which To-Dos are wanted, how sorted or grouped, and from which place on."""

    wanted: Selection
    sort: Sort = "priority"
    group: By | None = None
    cursor: str | None = None

    @classmethod
    def of(cls, query: QueryParams) -> Asked:
        """From the query of an address. Raises Problem 422 for values that filters do not have."""
        given: dict[str, Any] = {name: [value for value in query.getlist(name) if value] for name in _LISTS}
        given |= {name: query[name] for name in _SINGLE if query.get(name)}
        try:
            wanted = Selection.model_validate({name: value for name, value in given.items() if value})
        except ValidationError as error:
            said = "; ".join(f"{problem['loc'][0]}: {problem['msg']}" for problem in error.errors())
            raise ProblemError(422, "not-valid", said) from None
        sort, group = query.get("sort") or "priority", query.get("group") or None
        if sort not in SORTS or (group is not None and group not in GROUPS):
            raise ProblemError(422, "not-valid", f"sort is one of {', '.join(SORTS)}; group one of {', '.join(GROUPS)}")
        return cls(wanted, sort, group, query.get("cursor") or None)

    def one(self, name: str) -> str:
        """The value of a filter; the first of several."""
        value = getattr(self.wanted, name)
        if isinstance(value, list):
            return str(value[0]) if value else ""
        return "" if value in (None, False) else str(value)

    @property
    def filters(self) -> dict[str, Any]:
        """The filters that are set, as the API takes them."""
        return self.wanted.model_dump(mode="json", exclude_defaults=True)

    def query(self, **changed: str) -> dict[str, Any]:
        """The query of the same list from its beginning with something changed, for links."""
        own = {**self.filters, "sort": self.sort if self.sort != "priority" else "", "group": self.group or ""}
        return {name: value for name, value in {**own, **changed}.items() if value}


def states() -> Sequence[str]:
    """The states a list can be filtered by."""
    return get_args(get_args(Selection.model_fields["state"].annotation)[0])


def zone_name(reader: Rows, device: str) -> str:
    """The zone of a device's newest day; empty where it has none."""
    rows = reader.rows("SELECT zone FROM final_days WHERE device = {device:String} ORDER BY day DESC LIMIT 1", {"device": device})
    return str(rows[0]["zone"]) if rows else ""


def around(start: datetime | None, end: datetime | None, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Whole local days around what a To-Do is about, with one day to either side."""
    begin = aware(start or datetime.now(UTC)).astimezone(zone)
    last = aware(end).astimezone(zone) if end else begin
    first_day, last_day = begin.date() - timedelta(days=1), (last - timedelta(seconds=1)).date() + timedelta(days=2)
    first_day = max(first_day, last_day - timedelta(days=31))
    return (datetime(d.year, d.month, d.day, tzinfo=zone).astimezone(UTC) for d in (first_day, last_day))  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one rule says: ``said`` objections, ``noted`` (info only), ``clear`` or ``unused``; and what it looks for."""

    rule: str
    about: str
    status: str
    said: Sequence[Row]
    text: str


def verdicts(told: Sequence[Mapping[str, Any]]) -> list[Verdict]:
    """Verdicts of the service by rule, those that object first."""
    by_rule: dict[str, list[Row]] = {}
    for row in told:
        by_rule.setdefault(row["rule"], []).append(dict(row))
    found = []
    for rule, rows in by_rule.items():
        live = [row for row in rows if row["status"] == "open"]
        quiet = rows[0]["status"] if rows[0]["status"] in ("quiet", "unused") else ""
        status = {"quiet": "clear", "unused": "unused"}.get(quiet) or (
            "clear" if not live else "noted" if all(row["severity"] == "info" for row in live) else "said"
        )
        found.append(Verdict(rule, rows[0]["about"], status, [] if quiet else rows, rows[0]["text"] if quiet else ""))
    return sorted(found, key=lambda verdict: ("said", "noted", "clear", "unused").index(verdict.status))
