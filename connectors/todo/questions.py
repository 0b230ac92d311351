"""What is asked of To-Dos: the queue in pages, groups and figures of it, one with all that is known about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from connectors.head_end.desk import Reader
from connectors.head_end.listing import TIME, after_cursor, cursor_of, cursor_text, readable
from connectors.head_end.problems import ProblemError
from connectors.rights import scope
from schemas.rules import VALIDATIONS
from schemas.topology.todo import TodoSettings

State = Literal["open", "working", "completed"]
Sort = Literal["priority", "oldest", "newest", "due", "count"]
Age = Literal["fresh", "week", "old"]
By = Literal[
    "type", "role", "user", "rule", "severity", "priority", "device", "payload", "account", "region", "commodity", "customer_class"
]  # fmt: skip
AGES: Final[Mapping[Age, str]] = {
    "fresh": "first_seen > {now} - INTERVAL 1 DAY",
    "week": "first_seen <= {now} - INTERVAL 1 DAY AND first_seen > {now} - INTERVAL 7 DAY",
    "old": "first_seen <= {now} - INTERVAL 7 DAY",
}
"""Age bands: less than a day, up to a week, more."""
_NOW: Final = "now('UTC')"
_DUE: Final = "if(state = 'open', assign_by, resolve_by)"
_EQUAL: Final = (
    "type", "state", "role", "user", "device", "channel", "account", "service_point", "payload", "rule", "severity", "region", "commodity",
    "customer_class",
)  # fmt: skip
# Sort expression and its type; the id behind it makes every order unique. Expressions ascend, so a cursor is a comparison of tuples
_SORTS: Final[Mapping[Sort, tuple[tuple[str, str], ...]]] = {
    "priority": (("-priority", "Int32"), ("first_seen", TIME)),
    "oldest": (("first_seen", TIME),),
    "newest": (("-toInt64(toUnixTimestamp(first_seen))", "Int64"),),
    "due": ((f"coalesce({_DUE}, toDateTime(4294967295, 'UTC'))", TIME),),
    "count": (("-count", "Int64"),),
}
SORTS: Final[tuple[Sort, ...]] = tuple(_SORTS)
GROUPS: Final[tuple[By, ...]] = get_args(By)
_CHOICES: Final = ("type", "role", "user", "rule", "severity", "region", "commodity", "customer_class")
_PLACES: Final = ("service_point", "device", "account")
VERDICTS: Final = 200  # exceptions shown beside a To-Do


class Selection(BaseModel):
    """Which To-Dos are meant; all that is said must hold. Several values of one filter are alternatives."""

    model_config = ConfigDict(extra="forbid")

    type: list[str] = Field(default_factory=list, max_length=50)
    state: list[State] = Field(default_factory=list, max_length=3, description="left out: those that are not completed")
    role: list[str] = Field(default_factory=list, max_length=50)
    user: list[str] = Field(default_factory=list, max_length=50)
    priority: int | None = Field(default=None, ge=1, le=10, description="at least this urgent")
    device: list[str] = Field(default_factory=list, max_length=1000)
    channel: list[str] = Field(default_factory=list, max_length=100)
    account: list[str] = Field(default_factory=list, max_length=1000)
    service_point: list[str] = Field(default_factory=list, max_length=1000)
    payload: list[str] = Field(default_factory=list, max_length=100)
    rule: list[str] = Field(default_factory=list, max_length=100)
    severity: list[str] = Field(default_factory=list, max_length=3)
    region: list[str] = Field(default_factory=list, max_length=100)
    commodity: list[str] = Field(default_factory=list, max_length=20)
    customer_class: list[str] = Field(default_factory=list, max_length=100)
    age: Age | None = Field(default=None, description="fresh: less than a day, week: up to seven, old: more")
    overdue: bool = Field(default=False, description="only those past their deadline")
    grouped: bool | None = Field(default=None, description="only those that stand for many, or only the others")

    def view(self) -> str:
        """The view to ask: the live ones are apart, so that a queue is as fast whatever the history."""
        return "todos" if "completed" in self.state else "todo_queue"

    def where(self) -> tuple[list[str], dict[str, Any]]:
        """Conditions and their parameters; whose rights are bounded to an area finds nothing outside it."""
        found, parameters = within()
        for name in _EQUAL:
            if values := getattr(self, name):
                found.append(f"`{name}` IN {{{name}s:Array(String)}}")
                parameters[f"{name}s"] = list(values)
        if self.priority is not None:
            found.append("priority >= {priority:Int32}")
            parameters["priority"] = self.priority
        if self.age is not None:
            found.append(AGES[self.age].replace("{now}", _NOW))
        if self.overdue:
            found.append(f"{_DUE} < {_NOW}")
        if self.grouped is not None:
            found.append("grouped" if self.grouped else "NOT grouped")
        return found, parameters


class Questions:
    """Answers about To-Dos from the store. Everything blocks: call it from threads."""

    def __init__(self, settings: TodoSettings, reader: Reader, about: Mapping[str, str] | None = None) -> None:
        """``about`` tells what each rule in use looks for."""
        self.settings, self.reader, self.about = settings, reader, dict(about or {})

    def page(self, wanted: Selection, sort: Sort, cursor: str | None, limit: int) -> dict[str, Any]:
        """One page of To-Dos: ``items`` and the cursor of the ``next``. Raises Problem 422 for a cursor of another list."""
        rows, following = self.rows(wanted, sort, cursor, limit)
        return {"items": [shown(row) for row in rows], "next": following}

    def rows(self, wanted: Selection, sort: Sort, cursor: str | None, limit: int) -> tuple[list[dict[str, Any]], str | None]:
        """The rows of a page as the store has them, and the cursor of the next page. Raises Problem 422 for a cursor of another list."""
        where, parameters = wanted.where()
        order = (*_SORTS[sort], ("id", "String"))
        if cursor is not None:
            values = after_cursor(cursor, len(order))
            parameters |= {f"after_{n}": value for n, value in enumerate(values)}
            bound = ", ".join(f"{{after_{n}:{kind}}}" for n, (_, kind) in enumerate(order))
            where.append(f"({', '.join(name for name, _ in order)}) > ({bound})")
        keys = ", ".join(f"{name} AS key_{n}" for n, (name, _) in enumerate(order))
        sql = (
            f"SELECT *, {keys} FROM {wanted.view()}{_filter(where)} ORDER BY {', '.join(f'key_{n}' for n in range(len(order)))} "
            f"LIMIT {limit + 1}"
        )
        rows = self.reader.rows(sql, parameters)
        more, rows = len(rows) > limit, rows[:limit]
        return rows, cursor_of([cursor_text(rows[-1][f"key_{n}"]) for n in range(len(order))]) if more else None

    def count(self, wanted: Selection) -> int:
        """How many To-Dos the filters leave."""
        where, parameters = wanted.where()
        return int(self.reader.rows(f"SELECT count() AS n FROM {wanted.view()}{_filter(where)}", parameters)[0]["n"])

    def choices(self) -> dict[str, list[str]]:
        """The values that live To-Dos have, for the columns that lists are filtered by; 200 of each at most."""
        where, parameters = within()
        picks = ", ".join(f"groupUniqArray(200)(toString(`{name}`)) AS `{name}s`" for name in _CHOICES)
        found = self.reader.rows(f"SELECT {picks} FROM todo_queue{_filter(where)}", parameters)[0]
        return {name: sorted(value for value in found[f"{name}s"] if value) for name in _CHOICES}

    def groups(self, wanted: Selection, by: By) -> list[dict[str, Any]]:
        """How many To-Dos there are of each value, how old and urgent; the largest groups first, 1000 at most."""
        return [{**readable(row), "raised": int(row["raised"])} for row in self.grouped(wanted, by)]

    def grouped(self, wanted: Selection, by: By) -> list[dict[str, Any]]:
        """The same as rows of the store."""
        where, parameters = wanted.where()
        sql = (
            f"SELECT toString(`{by}`) AS value, count() AS todos, sum(count) AS raised, countIf(user = '') AS free, "
            "min(first_seen) AS oldest, "
            f"max(priority) AS highest FROM {wanted.view()}{_filter(where)} GROUP BY value ORDER BY todos DESC, value LIMIT 1000"
        )
        return self.reader.rows(sql, parameters)

    def chosen(self, wanted: Selection, most: int, area: scope.Within = scope.EVERYWHERE) -> list[tuple[str, int, dict[str, Any]]]:
        """Id, version and a short account of what a selection finds in an area, the most urgent first; at most ``most`` + 1."""
        where, parameters = wanted.where()
        where.append(area.on("service_point"))
        parameters |= area.parameters
        sql = (
            "SELECT id, version, type, subject, rule, count, user, state, priority FROM "
            f"{wanted.view()}{_filter(where)} ORDER BY priority DESC, first_seen, id LIMIT {most + 1}"
        )
        return [(row["id"], int(row["version"]), readable(row)) for row in self.reader.rows(sql, parameters)]

    def stats(self) -> dict[str, Any]:
        """Live To-Dos by type, age, role and user, how many are overdue, and the oldest."""
        where, parameters = within()
        ages = ", ".join(f"countIf({condition.replace('{now}', _NOW)}) AS {name}" for name, condition in AGES.items())
        figures = (
            f"count() AS todos, countIf(state = 'open') AS open, countIf(state = 'working') AS working, {ages}, sum(count) AS raised, "
            f"countIf({_DUE} < {_NOW}) AS overdue, countIf(level > 0) AS escalated, "
            "min(first_seen) AS oldest"
        )
        sql = (
            "SELECT type, role, user, grouping(type) AS by_type, grouping(role) AS by_role, grouping(user) AS by_user, "
            f"{figures} FROM todo_queue{_filter(where)} GROUP BY GROUPING SETS ((type), (role), (user), ()) ORDER BY todos DESC, type, "
            "role, user"
        )
        found: dict[str, Any] = {"types": [], "roles": [], "users": [], "all": None}
        names = (("types", "type", "by_type"), ("roles", "role", "by_role"), ("users", "user", "by_user"))
        for row in self.reader.rows(sql, parameters):
            told = {n: v for n, v in readable(row).items() if n not in ("type", "role", "user", "by_type", "by_role", "by_user")}
            listed = next(((name, column) for name, column, mark in names if row[mark] == 0), None)
            if listed is None:
                found["all"] = told
            elif row[listed[1]] or listed[1] != "user":
                found[listed[0]].append({listed[1]: row[listed[1]], **told})
        return found

    def types(self) -> list[dict[str, Any]]:
        """The types of the settings."""
        return [kind.model_dump(mode="json") for kind in self.settings.types]

    # --- one -------------------------------------------------------------------------------------------------------------------------

    def todo(self, id: str) -> dict[str, Any]:
        """A To-Do as it stands. Raises Problem 404, also where it lies outside the area of the one who asks."""
        where, parameters = within()
        rows = self.reader.rows(f"SELECT * FROM todos{_filter([*where, 'id = {id:String}'])}", {**parameters, "id": id})
        if not rows:
            raise ProblemError(404, "not-found", "No To-Do of this id is known; one just raised appears within seconds.")
        return rows[0]

    def detail(self, id: str) -> dict[str, Any]:
        """A To-Do with its history, the exceptions behind it, and what every rule says of the days concerned, in words."""
        todo = self.todo(id)
        return {
            "todo": shown(todo), "history": [readable(row) for row in self.history(id)],
            "exceptions": [readable(row) for row in self.exceptions(todo, VERDICTS)], "verdicts": self.verdicts(todo),
        }  # fmt: skip

    def history(self, id: str) -> list[dict[str, Any]]:
        """All that was done with a To-Do, oldest first."""
        return self.reader.rows("SELECT * FROM todo_history WHERE todo = {id:String} ORDER BY version", {"id": id})

    def exceptions(self, todo: Mapping[str, Any], most: int, *, only_open: bool = False) -> list[dict[str, Any]]:
        """The exceptions behind a To-Do, newest data first; of a grouped one by rule and payload (or span)."""
        where, parameters = behind(todo)
        if not where:
            return []
        still = " AND status = 'open'" if only_open else ""
        return self.reader.rows(f"SELECT * FROM exceptions WHERE {where}{still} ORDER BY start DESC, id LIMIT {most}", parameters)

    def verdicts(self, todo: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What each rule says of the days a To-Do is about, in words; of a grouped one what was said of those behind it.

        Every validation is there: one that said nothing is ``quiet``, one that no group of rules has is ``unused``.
        """
        if todo["grouped"] or not (todo["device"] and todo["channel"] and todo["start"]):
            rows = self.exceptions(todo, VERDICTS)
            return [self._verdict(row) for row in rows]
        rows = self.reader.rows(
            "SELECT id, rule, severity, status, detail, count, start, end FROM exceptions WHERE device = {device:String} AND channel = "
            "{channel:String} AND ((start < {end:DateTime('UTC')} AND end > {start:DateTime('UTC')}) OR id IN {ids:Array(String)}) "
            "ORDER BY rule, start",
            {"device": todo["device"], "channel": todo["channel"], "start": cursor_text(todo["start"]), "end": cursor_text(todo["end"]),
             "ids": list(todo["exceptions"])},
        )  # fmt: skip
        spoken = {row["rule"] for row in rows}
        return [self._verdict(row) for row in rows] + [self._quiet(rule) for rule in VALIDATIONS if rule not in spoken]

    def _verdict(self, row: Mapping[str, Any]) -> dict[str, Any]:
        told = {name: row[name] for name in ("rule", "severity", "status", "detail", "start", "end")}
        return {**readable(told), "text": verdict(row), "about": self.about.get(row["rule"], "")}

    def _quiet(self, rule: str) -> dict[str, Any]:
        used = not self.about or rule in self.about
        text = "nothing found" if used else "no group of rules has it"
        status = "quiet" if used else "unused"
        about = self.about.get(rule, "")
        return {"rule": rule, "severity": "", "status": status, "detail": "", "text": f"{_words(rule)}: {text}", "about": about}


def within() -> tuple[list[str], dict[str, Any]]:
    """Conditions on To-Dos that keep to the area of the one who asks; none where rights are not bounded."""
    condition, parameters = scope.condition(_PLACES)
    return [condition] if condition else [], parameters


def behind(todo: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A condition on the view ``exceptions`` for those behind a To-Do, and its parameters; empty where it has none."""
    if not todo["rule"]:
        return "", {}
    if todo["grouped"]:
        return (
            "rule = {rule:String} AND payload = {payload:String} AND start >= {start:DateTime('UTC')} AND start <= {end:DateTime('UTC')} "
            "AND id NOT IN (SELECT arrayJoin(exceptions) FROM todo_queue WHERE NOT grouped AND rule = {rule:String} AND payload = "
            "{payload:String})",  # the first of a storm have To-Dos of their own
            {"rule": todo["rule"], "payload": todo["payload"], "start": cursor_text(todo["start"]), "end": cursor_text(todo["end"])},
        )
    where = "device = {device:String} AND channel = {channel:String} AND rule = {rule:String}"
    parameters = {"device": todo["device"], "channel": todo["channel"], "rule": todo["rule"]}
    if todo["count"] <= len(todo["exceptions"]):
        return f"{where} AND id IN {{ids:Array(String)}}", {**parameters, "ids": list(todo["exceptions"])}
    return where, parameters


_ENDS: Final = {
    "superseded": "later reads or another version took its place", "resolved": "it no longer holds",
    "overridden": "somebody accepted the values",
}  # fmt: skip


def verdict(row: Mapping[str, Any]) -> str:
    """What a rule said, in a sentence."""
    told = f"{_words(row['rule'])}: {row['detail'] or row['severity']}"
    return told if row["status"] == "open" else f"{told} ({row['status']}: {_ENDS.get(row['status'], '')})"


def _words(rule: str) -> str:
    text = rule.replace("-", " ")
    return text[:1].upper() + text[1:]


def shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as JSON, without sort keys."""
    return {name: value for name, value in readable(row).items() if not name.startswith("key_")}


def _filter(where: Sequence[str]) -> str:
    return f" WHERE {' AND '.join(where)}" if where else ""
