"""What the page of a meter shows: everything the store knows of one device."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from connectors.console.words import aware
from connectors.head_end.listing import Rows
from connectors.rights.scope import Within, inside

FOUND: Final = 100
Row = dict[str, Any]
_KNOWN: Final = """
SELECT device, any(point) AS service_point, any(holder) AS account, min(began) AS since FROM (
    SELECT if(device != '', device, id) AS device, service_point AS point, account AS holder, valid_from AS began FROM master
    WHERE kind IN ('device', 'install', 'component', 'channel')
        AND (startsWith(id, {q:String}) OR startsWith(device, {q:String}) OR service_point = {q:String} OR account = {q:String}
            OR JSONExtractString(attributes, 'serial') = {q:String})
    ORDER BY valid_from DESC LIMIT 2000
) WHERE INSIDE GROUP BY device ORDER BY device LIMIT {most:UInt32}
"""
_STORED: Final = """
SELECT device, argMax(service_point, day) AS service_point, argMax(account, day) AS account, max(day) AS last FROM final_days
WHERE INSIDE AND (WHERE_) GROUP BY device ORDER BY device LIMIT {most:UInt32}
"""


def search(reader: Rows, text: str, area: Within) -> list[Row]:
    """Devices of an area whose name begins with a text, or that serve a service point or account of that name."""
    asked = {"q": text, "most": FOUND + 1, **area.parameters}
    known, stored = (sql.replace("INSIDE", area.on("device")) for sql in (_KNOWN, _STORED))
    by_name = "startsWith(device, {q:String})" if text else "day >= (SELECT max(day) FROM final_days) - 1"
    found = {row["device"]: row for row in reader.rows(stored.replace("WHERE_", by_name), asked)}
    if text:
        for row in reader.rows(known, asked):
            found.setdefault(row["device"], row)
        if not found:
            where = "final_days.service_point = {q:String} OR final_days.account = {q:String}"
            found = {row["device"]: row for row in reader.rows(stored.replace("WHERE_", where), asked)}
    return [found[name] for name in sorted(found)][: FOUND + 1]


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page: the newest rows of a view about the device (or its accounts), and who may see them."""

    view: str
    columns: tuple[str, ...]  # shown
    order: str
    permission: str = "results.read"
    also: tuple[str, ...] = ()  # read beside the shown ones
    about: str = "device = {device:String}"
    most: int = 100


_OBJECTS: Final = "id = {device:String} OR device = {device:String} OR startsWith(id, concat({device:String}, '/'))"
_ACCOUNTS: Final = "account IN {accounts:Array(String)}"
SECTIONS: Final[dict[str, Section]] = {
    "registers": Section(
        "registers", ("at", "channel", "reading", "condition_name", "method", "version"), "at DESC, channel", also=("unit",), most=60
    ),
    "exceptions": Section(
        "exceptions", ("start", "end", "channel", "rule", "severity", "status", "detail"), "status != 'open', start DESC, id"
    ),
    "todos": Section(
        "todos", ("id", "type", "rule", "state", "priority", "user", "first_seen", "outcome", "detail"),
        "state = 'completed', first_seen DESC, id", "todos.read", most=50,
    ),
    "determinants": Section(
        "bill_determinants FINAL",
        ("period_start", "period_end", "account", "channel", "kind", "tou", "quantity", "status", "version", "reason"),
        "period_start DESC, kind, tou, version DESC", also=("unit",), most=150,
    ),
    "bills": Section(
        "usage_transactions FINAL",
        ("period_start", "period_end", "account", "group", "status", "version", "correction", "reason", "bill", "at"),
        "period_start DESC, at DESC, version DESC", about=_ACCOUNTS,
    ),
    "prepaid": Section(
        "prepaid_ledger", ("at", "account", "kind", "component", "amount", "balance", "reason"), "sequence DESC", "prepaid.read",
        ("currency",), _ACCOUNTS, 50,
    ),
    "events": Section("device_events", ("at", "kind", "severity", "detail", "code", "source"), "at DESC, id", "devices.read"),
    "commands": Section(
        "device_commands", ("issued_at", "action", "by", "reason", "status", "replied_at", "detail"), "issued_at DESC, id", "devices.read",
        most=50,
    ),
    "changes": Section(
        "master_history", ("changed_at", "kind", "id", "version", "action", "user", "source"), "changed_at DESC, id", "master.read",
        about="id = {device:String} OR startsWith(id, concat({device:String}, '/'))",
    ),
    "audit": Section(
        "audit", ("at", "actor", "action", "outcome", "channel", "start", "end", "reason", "detail"), "at DESC, id", "audit.read"
    ),
}  # fmt: skip
"""The parts of a meter's page by name, in their order."""


def section(reader: Rows, spec: Section, device: str, accounts: Sequence[str]) -> list[Row]:
    """The rows of a part of the page."""
    if spec.about == _ACCOUNTS and not accounts:
        return []
    columns = ", ".join(f"`{name}`" for name in dict.fromkeys((*spec.columns, *spec.also)))
    sql = f"SELECT {columns} FROM {spec.view} WHERE {spec.about} ORDER BY {spec.order} LIMIT {spec.most}"
    return reader.rows(sql, {"device": device, "accounts": list(accounts)})


def channels(reader: Rows, device: str) -> list[Row]:
    """The channels of a device with their newest day, interval lengths and registers alike (0 seconds)."""
    return reader.rows(
        """
        SELECT * FROM (
        SELECT channel, seconds, argMax(unit, day) AS unit, argMax(zone, day) AS zone, min(day) AS first, max(day) AS last, count() AS days,
            argMax(service_point, day) AS service_point, argMax(account, day) AS account, argMax(source, day) AS source,
            max(day_start) AS newest
        FROM final_days WHERE device = {device:String} GROUP BY channel, seconds
        UNION ALL
        SELECT channel, 0, argMax(unit, at), argMax(zone, at), toDate32(min(at)), toDate32(max(at)), count(), argMax(service_point, at),
            argMax(account, at), argMax(source, at), max(at)
        FROM register_reads WHERE device = {device:String} GROUP BY channel
        ) ORDER BY seconds = 0, channel
        """,
        {"device": device},
    )


def installs(reader: Rows, device: str) -> list[Row]:
    """What master data say of the device: each object and span."""
    rows = reader.rows(
        "SELECT kind, id, span, valid_from, valid_to, service_point, account, attributes, version, changed_at, source FROM master "
        f"WHERE {_OBJECTS} "
        "ORDER BY kind, id, span LIMIT 200",
        {"device": device},
    )
    return [{**row, "told": attributes(row["attributes"])} for row in rows]


def attributes(body: str) -> list[tuple[str, str]]:
    """The attributes of a master data body as pairs of texts; what is empty is left out."""
    try:
        tree = orjson.loads(body)
    except orjson.JSONDecodeError:
        return []
    pairs = [(str(name), value) for name, value in tree.items() if value not in (None, "", [], {})] if isinstance(tree, dict) else []
    return [(name, value if isinstance(value, str) else orjson.dumps(value).decode()) for name, value in pairs]


def accounts(reader: Rows, known: Sequence[Row], installed: Sequence[Row]) -> list[str]:
    """The accounts that a device's channels and installs name, of the area of the one who asks."""
    return inside(reader, "account", sorted({row["account"] for row in [*known, *installed] if row["account"]}))


def accounts_of(reader: Rows, accounts: Sequence[str]) -> list[Row]:
    """Prepaid accounts as they stand."""
    if not accounts:
        return []
    return reader.rows("SELECT * FROM prepaid_accounts WHERE account IN {accounts:Array(String)}", {"accounts": list(accounts)})


_READS: Final = """
SELECT device, channel, start, seconds, value, unit, condition, condition_name, method, version, state, service_point, account, source
FROM intervals
WHERE device = {device:String} AND channel = {channel:String} AND start >= {first:DateTime('UTC')} AND start < {last:DateTime('UTC')}
    AND day >= toDate32({first:DateTime('UTC')}) - 1 AND day <= toDate32({last:DateTime('UTC')}) + 1
ORDER BY start, seconds LIMIT {most:UInt32}
"""


def intervals(reader: Rows, device: str, channel: str, begin: datetime, end: datetime, most: int = 200_000) -> list[Row]:
    """Final intervals of [begin, end)."""
    bound = {"device": device, "channel": channel, "first": str(int(begin.timestamp())), "last": str(int(end.timestamp())), "most": most}
    return reader.rows(_READS, bound)


def as_csv(rows: list[Row]) -> Iterator[bytes]:
    """Rows as CSV in UTF-8; times in UTC with Z. Texts that a spreadsheet would take for a formula are led by an apostrophe."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    if rows:
        writer.writerow(rows[0])
    for row in rows:
        writer.writerow([_cell(value) for value in row.values()])
        if text.tell() > 1 << 16:
            yield text.getvalue().encode()
            text.seek(0)
            text.truncate()
    yield text.getvalue().encode()


def _cell(value: Any) -> Any:
    if isinstance(value, datetime):
        return f"{aware(value):%Y-%m-%dT%H:%M:%SZ}"
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return "" if value is None else value


def as_parquet(rows: list[Mapping[str, Any]] | list[Row]) -> bytes:
    """Rows as one Parquet file; values stay exact decimals."""
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), sink)
    return sink.getvalue()
