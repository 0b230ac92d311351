"""Searches of the store for what no event tells of: they raise To-Dos, end those whose cause is gone, and tell master data about new ones.

Every hub process may search: what is found is raised once by what it is about, and what is gone is ended by the version that was looked at.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
import structlog

from connectors.head_end.problems import ProblemError
from connectors.todo.service import TodoService
from schemas.block import OPEN
from schemas.conditions import SUSPECT
from schemas.identity import identity
from schemas.topology import Topology
from schemas.topology.todo import TodoType

log = structlog.get_logger(__name__)
FACTS_EVERY: Final = 60.0  # seconds between two looks for To-Dos that master data say more about
AT_ONCE: Final = 500  # To-Dos of one record
MOST: Final = 100_000  # of one search
SETTLE: Final = 600  # seconds for which exceptions may be on their way to the store while their To-Do is there
_WINDOW: Final = 60 * 86_400  # how far back a search for silent channels looks

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Scan:
    """A search: rows with ``subject`` and fields of a To-Do. ``{now}`` and ``{after}`` are UTC second and seconds."""

    sql: str
    holds: str = ""  # rows with ``subject`` for which it still holds, where that is more than what ``sql`` finds


HEARD: Final = f"(arrayExists(c -> c >= {SUSPECT}, conditions) OR arrayExists(c -> c >= {SUSPECT}, received_conditions))"
"""A day of ``final_days`` counts as heard of when any of its values was measured, even where another took its place."""
_SILENT: Final = (
    "SELECT concat(device, '/', channel) AS subject, device, channel, any(service_point) AS service_point, any(account) AS account, "
    "max(toUnixTimestamp(day_start)) + 86400 AS heard, concat('no reads for ', toString(intDiv({now:Int64} - heard, 86400)), ' days') "
    f"AS detail, heard AS start, {{now:Int64}} AS end FROM final_days WHERE {HEARD} "
)
SCANS: Final[Mapping[str, Scan]] = {
    "silent-channels": Scan(
        _SILENT + f"AND day_start > toDateTime({{now:Int64}} - {_WINDOW}, 'UTC') GROUP BY device, channel HAVING heard < {{now:Int64}} - "
        "{after:Int64} ORDER BY subject",
        holds="SELECT subject FROM (" + _SILENT + "AND concat(device, '/', channel) IN {subjects:Array(String)} GROUP BY device, channel "
        "HAVING heard < {now:Int64} - {after:Int64})",
    ),
    "stuck-days": Scan(
        "SELECT concat(device, '/', channel) AS subject, device, channel, any(service_point) AS service_point, any(account) AS account, "
        "min(toUnixTimestamp(day_start)) AS start, max(toUnixTimestamp(day_start)) + 86400 AS end, "
        "concat(toString(count()), ' days are open, the first ', toString(min(day))) AS detail FROM "
        "(SELECT device, channel, service_point, account, day, day_start, state FROM final_days FINAL) "
        f"WHERE state = {OPEN} AND day_start < toDateTime({{now:Int64}} - 86400 - {{after:Int64}}, 'UTC') GROUP BY device, channel "
        "ORDER BY subject"
    ),
    "waiting-determinants": Scan(
        "SELECT concat(account, ' ', toString(toDate(period_start))) AS subject, account, any(device) AS device, "
        "toUnixTimestamp(period_start) AS start, max(toUnixTimestamp(period_end)) AS end, "
        "concat(any(status), if(any(reason) = '', '', concat(': ', any(reason)))) AS detail FROM ("
        "SELECT account, device, period_start, period_end, status, reason FROM determinants WHERE period != 'day' AND usage = '' "
        "UNION ALL SELECT account, '' AS device, period_start, period_end, status, reason FROM usage) "
        "WHERE status NOT IN ('released', 'sent', '') AND period_end < toDateTime({now:Int64} - {after:Int64}, 'UTC') "
        "GROUP BY account, period_start ORDER BY subject"
    ),
    "unanswered-commands": Scan(
        "SELECT id AS subject, device, toUnixTimestamp(issued_at) AS start, toUnixTimestamp(expires_at) AS end, "
        "concat(action, ' ', status, ' since ', toString(issued_at)) AS detail FROM device_commands WHERE status IN ('sent', 'accepted') "
        "AND issued_at < toDateTime({now:Int64} - {after:Int64}, 'UTC') ORDER BY subject"
    ),
    "failed-deliveries": Scan(
        "SELECT subscriber AS subject, concat(latest.1, ': ', latest.2) AS detail, toUnixTimestamp(sent) AS start, {now:Int64} AS end "
        "FROM ("
        "SELECT subscriber, argMax(tuple(toString(status), reason), at) AS latest, maxIf(at, status = 'sent') AS sent, "
        "minIf(at, status IN ('retrying', 'failed', 'dead')) AS failing FROM deliveries GROUP BY subscriber) "
        "WHERE latest.1 IN ('retrying', 'failed', 'dead') AND greatest(sent, failing) < toDateTime({now:Int64} - {after:Int64}, 'UTC') "
        "ORDER BY subject"
    ),
    "prepaid-trouble": Scan(
        "SELECT account AS subject, account, device, service_point, trouble AS detail, toUnixTimestamp(as_of) AS start, {now:Int64} AS end "
        "FROM prepaid_accounts WHERE trouble != '' AND as_of < toDateTime({now:Int64} - {after:Int64}, 'UTC') ORDER BY subject"
    ),
}  # fmt: skip
_LIVE: Final = "SELECT id, version, subject FROM todo_queue WHERE type = {type:String}"
_NEW: Final = (
    "SELECT id, device, service_point, account, toUnixTimestamp(coalesce(start, first_seen)) AS at FROM todo_queue WHERE device != '' OR "
    "service_point != '' OR account != ''"
)
# The attributes that hold at the time of the data; of several spans the newest that has begun
_MASTER: Final = (
    "SELECT id, argMax(attributes, coalesce(valid_from, toDateTime(0, 'UTC'))) AS body FROM master WHERE kind = {kind:String} AND id IN "
    "{ids:Array(String)} GROUP BY id"
)
_PLACES: Final = (
    "SELECT device, argMax(service_point, day) AS service_point, argMax(account, day) AS account, argMax(zone, day) AS zone "
    "FROM final_days WHERE device IN {devices:Array(String)} GROUP BY device"
)
_QUIET: Final = "last_seen < toDateTime({now:Int64}, 'UTC') - INTERVAL {settle:Int64} SECOND"
_GONE: Final = (
    f"SELECT t.id AS id, t.version AS version FROM (SELECT * FROM todo_queue WHERE rule != '' AND NOT grouped AND {_QUIET}) AS t LEFT JOIN "
    "(SELECT device, channel, rule, count() AS still FROM exceptions WHERE status = 'open' GROUP BY device, channel, rule) AS e "
    "ON e.device = t.device AND e.channel = t.channel AND e.rule = t.rule WHERE e.still = 0"
)
_GROUPED: Final = f"SELECT * FROM todo_queue WHERE rule != '' AND grouped AND {_QUIET}"


class Scanner:
    """Searches the store again and again."""

    def __init__(
        self, todos: TodoService, topology: Topology, now: Callable[[], int | None], tidy: Callable[[], None] = lambda: None
    ) -> None:
        """``now`` is the hub's time: UTC second of the latest tick all of whose work is in the store; None before the first.

        ``tidy`` drops completed To-Dos from the store's table of live ones.
        """
        self.todos, self.topology, self.now, self.tidy = todos, topology, now, tidy
        self.settings = topology.todo
        self._told: dict[str, str] = {}  # To-Do → identity of the facts told last

    def run(self, stop: threading.Event) -> None:
        """Searches until ``stop``; a search that fails is told and tried again."""
        searched = None
        while not stop.wait(min(FACTS_EVERY, self.settings.scan_every)):
            now = self.now()
            if now is None:
                continue
            try:
                self.facts(now)
                if searched is None or now - searched >= self.settings.scan_every:
                    self.search(now)
                    searched = now
                    self.tidy()
            except ProblemError as error:
                log.warning("to-do search failed", reason=error.detail)
            except Exception:  # the store away, a query of a view that changes: the next one may do
                log.exception("to-do search failed")

    def search(self, now: int) -> dict[str, int]:
        """All searches once: how many To-Dos each found."""
        counts = {}
        for kind in self.settings.types:
            if kind.scan is not None:
                counts[kind.id] = self._search(kind, SCANS[kind.scan], now)
        when = {"now": now, "settle": SETTLE}
        grouped = self.todos.reader.rows(_GROUPED, when)
        gone = self.todos.reader.rows(_GONE, when) + [todo for todo in grouped if not self.todos.exceptions(todo, 1, only_open=True)]
        self._tell("gone", now, ({"todo": r["id"], "version": int(r["version"]), "detail": "no exception is open any more"} for r in gone))
        log.info("searched for to-dos", gone=len(gone), **counts)
        return counts

    def _search(self, kind: TodoType, scan: Scan, now: int) -> int:
        when = {"now": now, "after": kind.after}
        rows = self.todos.reader.rows(f"{scan.sql} LIMIT {MOST}", when)
        live = {row["subject"]: row for row in self.todos.reader.rows(_LIVE, {"type": kind.id})}
        self._tell("found", now, (_item(kind, row) for row in rows if row["subject"] not in live))
        holds = {row["subject"] for row in rows}
        rest = sorted(set(live) - holds)
        if scan.holds and rest:
            holds |= {row["subject"] for row in self.todos.reader.rows(scan.holds, {**when, "subjects": rest})}
        if len(rows) < MOST:
            gone = [live[subject] for subject in rest if subject not in holds]
            self._tell("gone", now, ({"todo": row["id"], "version": int(row["version"])} for row in gone))
        return len(rows)

    # --- facts --------------------------------------------------------------------------------------------------------------------

    def facts(self, now: int) -> int:
        """Tells what master data and billing periods say about live To-Dos; how many were told."""
        rows = self.todos.reader.rows(_NEW, {})
        live = {row["id"] for row in rows}
        self._told = {id_: told for id_, told in self._told.items() if id_ in live}
        found = []
        for first in range(0, len(rows), 5000):
            found += [(row["id"], told) for row, told in self._known(rows[first : first + 5000])]
        fresh = [(id_, told, identity("facts", *(str(told.get(name, "")) for name in _NAMES))) for id_, told in found]
        news = [(id_, told, mark) for id_, told, mark in fresh if self._told.get(id_) != mark]
        self._tell("facts", now, ({"todo": id_, **told} for id_, told, _ in news))
        self._told.update({id_: mark for id_, _, mark in news})
        return len(news)

    def _known(self, rows: Sequence[Row]) -> Iterable[tuple[Row, dict[str, Any]]]:
        """To-Dos with what is known about them beside themselves."""
        reader = self.todos.reader
        devices = sorted({row["device"] for row in rows if row["device"]})
        places = {row["device"]: row for row in reader.rows(_PLACES, {"devices": devices})} if devices else {}
        own = []
        for row in rows:
            place = places.get(row["device"], {})
            own.append(
                (row, row["service_point"] or place.get("service_point", ""), row["account"] or place.get("account", ""), place.get("zone"))
            )
        points = self._attributes("service_point", {point for _, point, *_ in own})
        accounts = self._attributes("subscription", {account for *_, account, _ in own})
        for row, point, account, zone in own:
            of_point, of_account = points.get(point, {}), accounts.get(account, {})
            told = {"service_point": point, "account": account, "customer_class": of_account.get("customer_class")}
            told |= {name: of_point.get(name) or of_account.get(name) for name in ("commodity", "region")}
            if account:
                told["bill_at"] = self.bill_at(
                    account, of_account.get("billing_cycle") or "", zone or of_point.get("zone") or self.topology.zone, int(row["at"])
                )
            told = {name: value for name, value in told.items() if value}
            if told:
                yield row, told

    def _attributes(self, kind: str, ids: set[str]) -> dict[str, dict[str, Any]]:
        wanted = sorted(ids - {""})
        if not wanted:
            return {}
        return {row["id"]: orjson.loads(row["body"]) for row in self.todos.reader.rows(_MASTER, {"kind": kind, "ids": wanted})}

    def bill_at(self, account: str, cycle: str, zone: str, at: int) -> int:
        """The end of the billing period that a moment lies in, as UTC second: of the cycle master data name, else of determinants."""
        from streams.determinants.usage.cycles import (
            dated,
            period_at,
            usual,
        )  # brings the compiled kernels, which a start need not wait for

        named = self.topology.usage.cycles.get(cycle)
        cycles = dated(named) if named else usual(self.topology.determinants.billing, account)
        return period_at(cycles, zone, at).end

    def _tell(self, action: str, now: int, items: Iterable[Mapping[str, Any]]) -> None:
        """Commands to the agent, some To-Dos each; the same finding has the same id."""
        told = list(items)
        bodies = []
        for first in range(0, len(told), AT_ONCE):
            data = orjson.dumps(told[first : first + AT_ONCE], option=orjson.OPT_SORT_KEYS).decode()
            id_ = identity("todo-scan", action, now // self.settings.scan_every if action != "facts" else "", data)
            bodies.append({"id": id_, "action": action, "todos": [], "user": "system", "items": data})
        if bodies:
            self.todos.send(bodies)


_NAMES: Final = ("service_point", "account", "commodity", "region", "customer_class", "bill_at")


def _item(kind: TodoType, row: Row) -> dict[str, Any]:
    """A found row as an item of a command."""
    times = {name: int(row[name]) for name in ("start", "end") if row.get(name)}
    texts = {name: str(row[name]) for name in ("subject", "device", "channel", "service_point", "account", "detail") if row.get(name)}
    return {"type": kind.id, **texts, **times}
