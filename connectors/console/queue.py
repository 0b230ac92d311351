"""To-Dos as the console shows them: the list with filters and groups, and one To-Do with what its rules say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from connectors.console.curve import Rows
from connectors.console.words import aware
from schemas.topology.vee import VeeSettings

PAGE: Final = 100
FILTERS: Final = ("type", "state", "role", "user", "rule", "severity", "device", "account", "service_point", "payload")
GROUPS: Final = ("type", "role", "user", "rule", "severity", "device", "payload")
SORTS: Final = {
    "priority": "priority DESC, resolve_by, id",
    "oldest": "first_seen, id",
    "newest": "first_seen DESC, id",
    "due": "resolve_by, id",
    "count": "count DESC, id",
}
_AGES: Final = {
    "fresh": "first_seen >= {now:DateTime('UTC')} - INTERVAL 1 DAY",
    "week": "first_seen < {now:DateTime('UTC')} - INTERVAL 1 DAY AND first_seen >= {now:DateTime('UTC')} - INTERVAL 7 DAY",
    "old": "first_seen < {now:DateTime('UTC')} - INTERVAL 7 DAY",
}
_SHOWN: Final = (
    "id, version, type, state, priority, role, user, device, channel, service_point, account, payload, rule, severity, count, `open`, "
    "grouped, first_seen, start, `end`, resolve_by, level, detail"
)
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """Which To-Dos are wanted. Completed ones are in the history, the others in the queue."""

    filters: Mapping[str, str]
    age: str = ""
    sort: str = "priority"
    group: str = ""
    offset: int = 0

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Asked:
        """From the query of an address; what is not known is left out."""
        place = query.get("offset", "")
        return cls(
            {name: query[name][:255] for name in FILTERS if query.get(name)},
            query.get("age", "") if query.get("age") in _AGES else "",
            query["sort"] if query.get("sort") in SORTS else "priority",
            query.get("group", "") if query.get("group") in GROUPS else "",
            min(int(place), 100_000) if place.isdigit() else 0,
        )

    def where(self) -> tuple[str, str, dict[str, Any]]:
        """The view, the condition and its parameters."""
        parts = [f"`{name}` = {{{name}:String}}" for name in self.filters]
        if self.age:
            parts.append(_AGES[self.age])
        bound: dict[str, Any] = {**self.filters, "now": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"}
        view = "todos" if self.filters.get("state") == "completed" else "todo_queue"
        return view, f" WHERE {' AND '.join(parts)}" if parts else "", bound

    def query(self, **changed: str) -> dict[str, str]:
        """The query of the same list with something changed, for links."""
        own = {**self.filters, "age": self.age, "sort": self.sort if self.sort != "priority" else "", "group": self.group}
        return {name: value for name, value in {**own, **changed}.items() if value}


def listed(reader: Rows, asked: Asked) -> tuple[list[Row], bool]:
    """A page of To-Dos, and whether there are more."""
    view, where, bound = asked.where()
    rows = reader.rows(f"SELECT {_SHOWN} FROM {view}{where} ORDER BY {SORTS[asked.sort]} LIMIT {PAGE + 1} OFFSET {asked.offset}", bound)
    return rows[:PAGE], len(rows) > PAGE


def total(reader: Rows, asked: Asked) -> int:
    """How many To-Dos the filters leave."""
    view, where, bound = asked.where()
    return int(reader.rows(f"SELECT count() AS n FROM {view}{where}", bound)[0]["n"])


def grouped(reader: Rows, asked: Asked) -> list[Row]:
    """The groups of To-Dos: value, count, oldest, highest priority; the largest first."""
    view, where, bound = asked.where()
    return reader.rows(
        f"SELECT toString(`{asked.group}`) AS value, count() AS n, min(first_seen) AS oldest, max(priority) AS highest, "
        f"countIf(user = '') AS free FROM {view}{where} GROUP BY value ORDER BY n DESC, value LIMIT 200",
        bound,
    )


def choices(reader: Rows) -> dict[str, list[str]]:
    """The values that filters offer."""
    names = ("type", "role", "user", "rule", "severity")
    picks = ", ".join(f"groupUniqArray(200)(toString(`{name}`)) AS `{name}s`" for name in names)
    found = reader.rows(f"SELECT {picks} FROM todo_queue", {})[0]
    return {name: sorted(value for value in found[f"{name}s"] if value) for name in names}


def one(reader: Rows, id: str) -> Row | None:
    """A To-Do as it stands, done or not."""
    rows = reader.rows("SELECT * FROM todos WHERE id = {id:String}", {"id": id})
    return rows[0] if rows else None


def history(reader: Rows, id: str) -> list[Row]:
    """All that was done with a To-Do, newest first."""
    return reader.rows(
        "SELECT version, at, action, user, text FROM todo_history WHERE todo = {id:String} ORDER BY version DESC, id", {"id": id}
    )


def exceptions_of(reader: Rows, todo: Mapping[str, Any]) -> list[Row]:
    """The exceptions a To-Do stands for, at most 500; of a grouped one those of its payload and rule."""
    if todo["grouped"]:
        sql = "SELECT * FROM exceptions WHERE payload = {payload:String} AND rule = {rule:String} ORDER BY device, start LIMIT 500"
        return reader.rows(sql, {"payload": todo["payload"], "rule": todo["rule"]})
    if not todo["exceptions"]:
        return []
    sql = "SELECT * FROM exceptions WHERE device = {device:String} AND id IN {ids:Array(String)} ORDER BY start LIMIT 500"
    return reader.rows(sql, {"device": todo["device"], "ids": list(todo["exceptions"])})


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
    """What one rule says of a span: ``clear`` (no objection), ``noted`` (info only) or ``said``."""

    rule: str
    about: str
    status: str
    said: Sequence[Row]


def verdicts(vee: VeeSettings, exceptions: Sequence[Row]) -> list[Verdict]:
    """Every rule of the group for first reads, and every other rule that spoke, in the order they run."""
    spoken: dict[str, list[Row]] = {}
    for row in exceptions:
        spoken.setdefault(row["rule"], []).append(row)
    about: dict[str, str] = {}
    for group in vee.groups.values():
        for rule in group.rules:
            about.setdefault(rule.id, " ".join((type(rule).__doc__ or "").split()))
    first = vee.groups.get("initial-load") or next(iter(vee.groups.values()))
    order = list(dict.fromkeys([*(rule.id for rule in first.rules), *spoken]))
    found = []
    for rule_id in order:
        said = spoken.get(rule_id, [])
        live = [row for row in said if row["status"] == "open"]
        status = "clear" if not live else "noted" if all(row["severity"] == "info" for row in live) else "said"
        found.append(Verdict(rule_id, about.get(rule_id, ""), status, said))
    return sorted(found, key=lambda verdict: ("said", "noted", "clear").index(verdict.status))
