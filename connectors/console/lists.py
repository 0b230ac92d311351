"""Views of the store as lists: which columns are shown, by what they can be filtered, in which order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from connectors.console.curve import Rows

PAGE: Final = 100


@dataclass(frozen=True, slots=True)
class List:
    """``columns`` are shown; ``equals`` and ``begins`` filter by a value or by its beginning; ``flags`` are conditions by name."""

    view: str
    columns: tuple[str, ...]
    order: str
    equals: tuple[str, ...] = ()
    begins: tuple[str, ...] = ()
    also: tuple[str, ...] = ()  # read beside the shown columns
    time: str = ""  # the column that from and to compare with
    flags: Mapping[str, str] | None = None


LISTS: Final[dict[str, List]] = {
    "exceptions": List(
        "exceptions", ("start", "end", "device", "channel", "rule", "severity", "status", "count", "detail"),
        "start DESC, device, rule, id",
        ("rule", "severity", "status", "channel", "payload"), ("device", "service_point"), time="start",
    ),
    "determinants": List(
        "bill_determinants FINAL",
        ("period_start", "period_end", "account", "device", "channel", "kind", "tou", "quantity", "status", "version", "reason"),
        "period_start DESC, account, device, channel, kind, tou, version DESC",
        ("kind", "tou", "status", "period"), ("account", "device"), ("unit",), "period_start",
    ),
    "usage": List(
        "usage", ("period_start", "period_end", "account", "group", "trigger", "status", "version", "correction", "reason", "bill"),
        "period_start DESC, account, usage", ("status", "group", "trigger", "bill"), ("account",), time="period_start",
    ),
    "prepaid": List(
        "prepaid_accounts", ("account", "device", "state", "balance", "debt", "days_left", "tariff", "level", "hold", "trouble", "as_of"),
        "account", ("state", "level", "tariff"), ("account", "device"), ("currency",),
        flags={"below": "balance < 0", "trouble": "trouble != ''"},
    ),
    "master": List(
        "master", ("kind", "id", "valid_from", "valid_to", "device", "service_point", "account", "version", "changed_at", "source"),
        "kind, id, span", ("kind", "source"), ("id", "device", "service_point", "account"),
    ),
    "events": List(
        "device_events", ("at", "device", "kind", "severity", "code", "detail", "source"), "at DESC, device, id",
        ("kind", "severity", "source", "code"), ("device",), time="at",
    ),
    "audit": List(
        "audit", ("at", "actor", "action", "outcome", "device", "channel", "start", "end", "reason", "detail", "approved_by"),
        "at DESC, id", ("actor", "action", "outcome", "reason", "command", "bulk"), ("device", "subject"), time="at",
    ),
}  # fmt: skip


def page(reader: Rows, spec: List, query: Mapping[str, str], offset: int) -> tuple[list[dict[str, Any]], bool]:
    """One page of a list, and whether there are more rows."""
    where, bound = [], dict[str, Any]()
    for name in (*spec.equals, *spec.begins):
        if query.get(name):
            where.append(f"`{name}` = {{{name}:String}}" if name in spec.equals else f"startsWith(toString(`{name}`), {{{name}:String}})")
            bound[name] = query[name][:255]
    for name, condition in (spec.flags or {}).items():
        if query.get(name) == "1":
            where.append(f"({condition})")
    for name, sign in (("from", ">="), ("to", "<")):
        if spec.time and query.get(name):
            where.append(f"`{spec.time}` {sign} parseDateTimeBestEffort({{{name}:String}}, 'UTC')")
            bound[name] = query[name][:40]
    columns = ", ".join(f"`{name}`" for name in (*spec.columns, *spec.also))
    condition = f" WHERE {' AND '.join(where)}" if where else ""
    sql = f"SELECT {columns} FROM {spec.view}{condition} ORDER BY {spec.order} LIMIT {PAGE + 1} OFFSET {offset}"
    rows = reader.rows(sql, bound)
    return rows[:PAGE], len(rows) > PAGE
