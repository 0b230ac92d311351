"""Views read in pages: the query of a page, the cursor between two, rows as JSON."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import orjson

from connectors.head_end.problems import ProblemError
from connectors.rights import scope


class Rows(Protocol):
    """What asks the store."""

    def rows(self, sql: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Rows of a query of our own."""
        ...


@dataclass(frozen=True)
class Listing:
    """A view that is read in pages: what is shown, in which unique order, by which filters.

    ``order`` gives the columns that identify a row, in sort order, each with its ClickHouse type; ``backward`` turns all of it round.
    """

    view: str
    order: Mapping[str, str]
    start: str  # the time columns that `from` and `to` compare with
    end: str
    equals: tuple[str, ...]  # columns that can be filtered by value
    begins: tuple[str, ...] = ()  # and by how it begins
    flags: Mapping[str, str] = field(default_factory=dict)  # conditions that can be asked for, by name
    columns: tuple[str, ...] = ()  # that are read; none: all
    backward: bool = False


TIME: Final = "DateTime('UTC')"
EXCEPTIONS: Final = Listing(
    "exceptions",
    {"start": TIME, **dict.fromkeys(("device", "channel", "rule", "id"), "String")},
    "start",
    "end",
    ("device", "channel", "rule", "severity", "status"),
)
DETERMINANTS: Final = Listing(
    "determinants",
    {"period_start": TIME, **dict.fromkeys(("account", "device", "channel", "kind", "tou", "period", "unit", "name", "usage"), "String")},
    "period_start",
    "period_end",
    ("account", "device", "channel", "kind", "tou", "unit", "period", "status", "name", "usage", "correction"),
)
INTERVALS: Final = Listing(
    "intervals",
    {"start": TIME, "device": "String", "channel": "String", "seconds": "Int64"},
    "start",
    "start",
    ("device", "channel"),
)


def cursor_of(values: Sequence[str]) -> str:
    """The cursor after a row, opaque to clients."""
    return base64.urlsafe_b64encode(orjson.dumps(list(values))).decode().rstrip("=")


def after_cursor(cursor: str, size: int) -> list[str]:
    """The row values of a cursor. Raises Problem 422 if it is not one of ours."""
    try:
        values = orjson.loads(base64.urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError):
        values = None
    if not isinstance(values, list) or len(values) != size or not all(isinstance(v, str) for v in values):
        raise ProblemError(422, "not-valid", "cursor: not one that this hub gave out")
    return values


def page_query(
    listing: Listing,
    filters: Mapping[str, str | None],
    since: datetime | None,
    until: datetime | None,
    cursor: str | None,
    limit: int,
) -> tuple[str, dict[str, Any]]:
    """The query of one page and its parameters; one row more than the limit, which tells whether there is a next page.

    Whose rights are bounded to an area sees no rows outside it. Raises Problem 403 where rows cannot be placed.
    """
    where, parameters = [], dict[str, Any]()
    for column in (*listing.equals, *listing.begins):
        value = filters.get(column)
        if value is not None:
            alike = "{0} = {{{0}:String}}" if column in listing.equals else "startsWith(toString({0}), {{{0}:String}})"
            where.append(alike.format(column))
            parameters[column] = value
    where += [f"({condition})" for name, condition in listing.flags.items() if filters.get(name) is not None]
    if since is not None:
        overlaps = f"{listing.start} >=" if listing.end == listing.start else f"{listing.end} >"
        where.append(f"{overlaps} {{since:{TIME}}}")
        parameters["since"] = clickhouse_time(since)
    if until is not None:
        where.append(f"{listing.start} < {{until:{TIME}}}")
        parameters["until"] = clickhouse_time(until)
    key = ", ".join(listing.order)
    if cursor is not None:
        values = after_cursor(cursor, len(listing.order))
        names = [f"after_{column}" for column in listing.order]
        bound = ", ".join(f"{{{name}:{kind}}}" for name, kind in zip(names, listing.order.values(), strict=True))
        where.append(f"({key}) {'<' if listing.backward else '>'} ({bound})")
        parameters |= dict(zip(names, values, strict=True))
    within, bounds = scope.condition((*listing.equals, *listing.begins))
    if within:
        where.append(within)
        parameters |= bounds
    condition = f" WHERE {' AND '.join(where)}" if where else ""
    order = ", ".join(f"{column} DESC" for column in listing.order) if listing.backward else key
    shown = ", ".join(dict.fromkeys((*listing.columns, *listing.order))) if listing.columns else "*"
    return f"SELECT {shown} FROM {listing.view}{condition} ORDER BY {order} LIMIT {limit + 1}", parameters


def page_of(
    reader: Rows, listing: Listing, filters: Mapping[str, str | None], since: datetime | None, until: datetime | None,
    cursor: str | None, limit: int,
) -> tuple[list[dict[str, Any]], str | None]:  # fmt: skip
    """The rows of one page as the store has them, and the cursor of the next page. Raises Problem 403, 422."""
    rows = reader.rows(*page_query(listing, filters, since, until, cursor, limit))
    more, rows = len(rows) > limit, rows[:limit]
    return rows, cursor_of([cursor_text(rows[-1][column]) for column in listing.order]) if more else None


def clickhouse_time(at: datetime) -> str:
    """UTC seconds as ClickHouse writes them; a time without zone is UTC."""
    aware = at if at.tzinfo else at.replace(tzinfo=UTC)
    return aware.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def cursor_text(value: Any) -> str:
    """A column value as ClickHouse's ``toString`` writes it."""
    return clickhouse_time(value) if isinstance(value, datetime) else str(value)


def readable(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as JSON: ISO times in UTC, decimals as strings."""
    return {name: readable_value(value) for name, value in row.items()}


def readable_value(value: Any) -> Any:
    """One value as JSON."""
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        return aware.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, Mapping):
        return readable(value)
    if isinstance(value, (list, tuple)):
        return [readable_value(item) for item in value]
    return str(value)
