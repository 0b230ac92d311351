"""What the dashboard shows: one function per widget, asked from the store at most every few seconds whoever looks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

from markupsafe import Markup

from connectors.console.charts import Series, stacked
from connectors.console.curve import Rows
from connectors.console.words import age, catalogue, count, money, share, when

FRESH: Final = 15.0  # seconds that an answer is shown before it is asked again
IDLE: Final = 900.0  # seconds after which nobody looks any more
AGES: Final = (("fresh", 1), ("week", 7), ("old", 10_000))
t = catalogue()


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure."""

    label: str
    value: str
    href: str = ""
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Content:
    """What a widget shows: tiles above, a chart, a table below. ``rows`` hold text or (text, href) per column."""

    tiles: Sequence[Tile] = ()
    chart: Markup = Markup()
    legend: Sequence[tuple[str, str]] = ()
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[Any]] = ()
    folded: bool = False  # the table tells what the chart shows
    note: str = ""


@dataclass(frozen=True, slots=True)
class Span:
    """The days a dashboard looks at: the last of them is ``until``, exclusive."""

    until: datetime
    days: int

    @property
    def since(self) -> datetime:
        """The begin."""
        return self.until - timedelta(days=self.days)

    @property
    def bound(self) -> dict[str, str]:
        """As parameters of a query."""
        return {"since": f"{self.since:%Y-%m-%d %H:%M:%S}", "until": f"{self.until:%Y-%m-%d %H:%M:%S}"}


@dataclass
class _Kept:
    content: Content
    at: float
    asked: float = 0.0
    busy: bool = False


@dataclass
class Memo:
    """Answers kept for a few seconds; an older one is shown while a thread asks anew, so that nobody waits for a large store twice."""

    workers: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2, "console"))
    clock: Callable[[], float] = time.monotonic
    _kept: dict[Any, _Kept] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, key: Any, ask: Callable[[], Content]) -> Content:
        """The answer, at most ``FRESH`` seconds old where somebody looks all the time. Raises what the first ask raises."""
        now = self.clock()
        with self._lock:
            for old in [name for name, kept in self._kept.items() if now - kept.asked > IDLE]:
                del self._kept[old]
            kept = self._kept.get(key)
            if kept is not None:
                kept.asked = now
                if now - kept.at > FRESH and not kept.busy:
                    kept.busy = True
                    self.workers.submit(self._renew, key, ask)
                if now - kept.at < IDLE:
                    return kept.content
        content = ask()
        with self._lock:
            self._kept[key] = _Kept(content, self.clock(), self.clock())
        return content

    def _renew(self, key: Any, ask: Callable[[], Content]) -> None:
        try:
            content = ask()
        except Exception:
            with self._lock:
                self._kept.pop(key, None)  # the next one who looks is told what is wrong
            raise
        with self._lock:
            self._kept[key] = _Kept(content, self.clock(), self.clock())


def link(page: str, **query: object) -> str:
    """The address of a console page."""
    asked = {name: str(value) for name, value in query.items() if value not in (None, "")}
    return f"/console/{page}" + (f"?{urlencode(asked)}" if asked else "")


def fleet(reader: Rows, span: Span) -> Content:
    """Meters known and heard of, by the system that reads them."""
    known = reader.rows("SELECT kind, count() AS n FROM master_objects FINAL GROUP BY kind", {})
    kinds = {row["kind"]: row["n"] for row in known}
    rows = reader.rows(
        """
        SELECT source, count() AS meters, countIf(last >= {until:DateTime('UTC')} - INTERVAL 2 DAY) AS fresh,
            countIf(last < {until:DateTime('UTC')} - INTERVAL 4 DAY) AS silent
        FROM (SELECT device, argMax(source, day_start) AS source, max(day_start) AS last FROM final_days
              WHERE day >= toDate32({since:DateTime('UTC')}) - 7 AND day < toDate32({until:DateTime('UTC')}) + 1 GROUP BY device)
        GROUP BY source ORDER BY meters DESC LIMIT 12
        """,
        span.bound,
    )
    heard = sum(row["meters"] for row in rows)
    return Content(
        tiles=(
            Tile(t("fleet.heard"), count(heard), link("meters")),
            Tile(t("fleet.fresh"), count(sum(row["fresh"] for row in rows))),
            Tile(t("fleet.silent"), count(sum(row["silent"] for row in rows)), link("todos", type="silent-meter"), "bad"),
            Tile(t("fleet.channels"), count(kinds.get("channel", 0) + kinds.get("component", 0)), link("master", kind="channel")),
        ),
        columns=(t("column.source"), t("column.meters"), t("fleet.fresh"), t("fleet.silent")),
        rows=[(row["source"] or t("word.none"), count(row["meters"]), count(row["fresh"]), count(row["silent"])) for row in rows],
    )


_READS: Final = """
SELECT intDiv(toUnixTimestamp(day_start) + (slot - 1) * seconds, {unit:UInt32}) * {unit:UInt32} AS at, sum(n) AS due, sum(got) AS received
FROM (
    SELECT day_start, seconds,
        sumForEach(arrayMap(c -> toUInt64(c > 0), conditions)) AS dues,
        sumForEach(arrayMap(c -> toUInt64(c >= 400000 OR (c >= 200000 AND c < 300000)), conditions)) AS gots
    FROM final_days FINAL
    WHERE seconds > 0 AND day >= toDate32({since:DateTime('UTC')}) - 1 AND day <= toDate32({until:DateTime('UTC')})
    GROUP BY day_start, seconds
)
ARRAY JOIN dues AS n, gots AS got, arrayEnumerate(dues) AS slot
WHERE at >= toUnixTimestamp({since:DateTime('UTC')}) AND at < toUnixTimestamp({until:DateTime('UTC')})
GROUP BY at ORDER BY at
SETTINGS do_not_merge_across_partitions_select_final = 1
"""


def reads(reader: Rows, span: Span) -> Content:
    """Reads received of those expected, by hour or, over more than three days, by day."""
    hours = span.days <= 3
    rows = reader.rows(_READS, {**span.bound, "unit": 3600 if hours else 86_400})
    labels = [f"{datetime.fromtimestamp(row['at'], UTC):{'%d. %H:%M' if hours else '%d %b'}}" for row in rows]
    missing = [row["due"] - row["received"] for row in rows]
    due, got = sum(row["due"] for row in rows), sum(row["received"] for row in rows)
    return Content(
        tiles=(
            Tile(t("reads.received"), count(got)),
            Tile(t("reads.expected"), count(due)),
            Tile(t("reads.share"), share(got, due), tone="bad" if due and got / due < 0.98 else "good"),
        ),
        chart=stacked(
            labels,
            (Series(t("reads.received"), "regular", [row["received"] for row in rows]), Series(t("reads.missing"), "missing", missing)),
            t("reads.title"),
        ),
        legend=(("regular", t("reads.received")), ("missing", t("reads.missing"))),
        columns=(t("column.time_utc"), t("reads.expected"), t("reads.received")),
        rows=[(label, count(row["due"]), count(row["received"])) for label, row in zip(labels, rows, strict=True)],
        folded=True,
    )


_QUALITY: Final = """
SELECT day,
    sum(arrayCount(c -> c >= 500000 AND c < 600000, conditions)) AS regular,
    sum(arrayCount(c -> c >= 300000 AND c < 450000, conditions)) AS estimate,
    sum(arrayCount(c -> c >= 450000 AND c < 500000, conditions)) AS suspect,
    sum(arrayCount(c -> c >= 600000, conditions)) AS edited,
    sum(arrayCount(c -> c >= 200000 AND c < 300000, conditions)) AS outage,
    sum(arrayCount(c -> c > 0 AND c < 200000, conditions)) AS missing
FROM final_days FINAL
WHERE seconds > 0 AND day >= toDate32({since:DateTime('UTC')}) AND day < toDate32({until:DateTime('UTC')})
GROUP BY day ORDER BY day
SETTINGS do_not_merge_across_partitions_select_final = 1
"""
_KINDS: Final = ("regular", "estimate", "suspect", "edited", "outage", "missing")


def vee(reader: Rows, span: Span) -> Content:
    """What VEE made of the reads, day by day, and how much is estimated."""
    rows = reader.rows(_QUALITY, Span(span.until, max(span.days, 7)).bound)
    sums = {kind: sum(row[kind] for row in rows) for kind in _KINDS}
    whole = sum(sums.values())
    labels = [f"{row['day']:%d %b}" for row in rows]
    return Content(
        tiles=(
            Tile(t("vee.estimated"), share(sums["estimate"], whole)),
            Tile(t("quality.suspect"), count(sums["suspect"]), link("exceptions", status="open")),
            Tile(t("quality.missing"), count(sums["missing"])),
        ),
        chart=stacked(labels, [Series(t(f"quality.{kind}"), kind, [row[kind] for row in rows]) for kind in _KINDS], t("vee.title")),
        legend=[(kind, t(f"quality.{kind}")) for kind in _KINDS if sums[kind]],
        columns=(t("column.day"), *(t(f"quality.{kind}") for kind in _KINDS)),
        rows=[(label, *(count(row[kind]) for kind in _KINDS)) for label, row in zip(labels, rows, strict=True)],
        folded=True,
    )


def exceptions(reader: Rows, span: Span) -> Content:
    """Open exceptions by rule, and how old what they are about is."""
    rows = reader.rows(
        """
        SELECT rule, count() AS n, countIf(start >= {until:DateTime('UTC')} - INTERVAL 1 DAY) AS fresh,
            countIf(start < {until:DateTime('UTC')} - INTERVAL 1 DAY AND start >= {until:DateTime('UTC')} - INTERVAL 7 DAY) AS week,
            countIf(start < {until:DateTime('UTC')} - INTERVAL 7 DAY) AS old
        FROM vee_exceptions FINAL WHERE status = 'open' GROUP BY rule ORDER BY n DESC LIMIT 12
        """,
        span.bound,
    )
    return _aged(rows, "rule", lambda value, _age: link("exceptions", rule=value, status="open"), t("column.rule"))


def todos(reader: Rows, _: Span) -> Content:
    """To-Dos that are not done, by role and age."""
    rows = reader.rows(
        """
        SELECT role, count() AS n, countIf(first_seen >= {now:DateTime('UTC')} - INTERVAL 1 DAY) AS fresh,
            countIf(first_seen < {now:DateTime('UTC')} - INTERVAL 1 DAY AND first_seen >= {now:DateTime('UTC')} - INTERVAL 7 DAY) AS week,
            countIf(first_seen < {now:DateTime('UTC')} - INTERVAL 7 DAY) AS old,
            countIf(resolve_by < {now:DateTime('UTC')}) AS late, countIf(user = '') AS free
        FROM todo_queue WHERE state != 'completed' GROUP BY role ORDER BY n DESC
        """,
        {"now": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"},
    )
    content = _aged(rows, "role", lambda value, band: link("todos", role=value, age=band), t("column.role"))
    tiles = (
        Tile(t("todos.live"), count(sum(row["n"] for row in rows)), link("todos")),
        Tile(t("todos.free"), count(sum(row["free"] for row in rows)), link("todos", state="open")),
        Tile(
            t("todos.late"),
            count(sum(row["late"] for row in rows)),
            link("todos", sort="due"),
            "bad" if any(r["late"] for r in rows) else "",
        ),
    )
    return Content(tiles, columns=content.columns, rows=content.rows)


def _aged(rows: Sequence[Mapping[str, Any]], name: str, href: Callable[[str, str], str], title: str) -> Content:
    return Content(
        tiles=(Tile(t("word.open"), count(sum(row["n"] for row in rows)), href("", "")),),
        columns=(title, t("word.all"), *(t(f"age.{band}") for band, _ in AGES)),
        rows=[
            (
                (t(row[name]), href(row[name], "")),
                count(row["n"]),
                *((count(row[band]), href(row[name], band)) if row[band] else "0" for band, _ in AGES),
            )
            for row in rows
        ],
    )


def billing(reader: Rows, span: Span) -> Content:
    """Bill determinants and usage of the last periods: released, held, waiting."""
    bound = Span(span.until, 62).bound
    rows = reader.rows(
        """
        SELECT kind, countIf(status = 'released') AS released, countIf(status = 'held') AS held, uniq(account) AS accounts
        FROM bill_determinants WHERE period_end >= {since:DateTime('UTC')} AND period_start < {until:DateTime('UTC')}
        GROUP BY kind ORDER BY kind
        """,
        bound,
    )
    usage = reader.rows(
        "SELECT status, count() AS n FROM usage WHERE period_end >= {since:DateTime('UTC')} AND period_start < {until:DateTime('UTC')} "
        "GROUP BY status ORDER BY status",
        bound,
    )
    tiles = [Tile(t(f"usage.{row['status']}"), count(row["n"]), link("usage", status=row["status"])) for row in usage]
    return Content(
        tiles=(Tile(t("billing.released"), count(sum(row["released"] for row in rows)), link("determinants", status="released")),
               Tile(t("billing.held"), count(sum(row["held"] for row in rows)), link("determinants", status="held")), *tiles),
        columns=(t("column.kind"), t("billing.released"), t("billing.held"), t("column.accounts")),
        rows=[((row["kind"], link("determinants", kind=row["kind"])), count(row["released"]), count(row["held"]), count(row["accounts"]))
              for row in rows],
    )  # fmt: skip


def prepaid(reader: Rows, _: Span) -> Content:
    """Prepaid accounts by state of their supply, and their money."""
    rows = reader.rows(
        "SELECT state, currency, count() AS n, sum(balance) AS money, countIf(balance < 0) AS below, countIf(trouble != '') AS troubled "
        "FROM prepaid_accounts GROUP BY state, currency ORDER BY n DESC",
        {},
    )
    return Content(
        tiles=(Tile(t("prepaid.accounts"), count(sum(row["n"] for row in rows)), link("prepaid")),
               Tile(t("prepaid.below"), count(sum(row["below"] for row in rows)), link("prepaid", below=1)),
               Tile(t("prepaid.trouble"), count(sum(row["troubled"] for row in rows)), link("prepaid", trouble=1))) if rows else (),
        columns=(t("column.state"), t("column.accounts"), t("column.balance")),
        rows=[((t(row["state"]), link("prepaid", state=row["state"])), count(row["n"]), money(row["money"], row["currency"]))
              for row in rows],
    )  # fmt: skip


def events(reader: Rows, span: Span) -> Content:
    """What devices told of themselves."""
    rows = reader.rows(
        "SELECT kind, count() AS n, uniq(device) AS devices, max(at) AS last FROM device_events "
        "WHERE at >= {since:DateTime('UTC')} AND at < {until:DateTime('UTC')} GROUP BY kind ORDER BY n DESC LIMIT 12",
        span.bound,
    )
    return Content(
        tiles=(Tile(t("word.all"), count(sum(row["n"] for row in rows)), link("events")),) if rows else (),
        columns=(t("column.kind"), t("column.events"), t("column.devices"), t("column.last")),
        rows=[((row["kind"], link("events", kind=row["kind"])), count(row["n"]), count(row["devices"]), when(row["last"])) for row in rows],
    )


def deliveries(reader: Rows, _: Span) -> Content:
    """What subscribers took, and what waits for them."""
    rows = reader.rows(
        "SELECT subscriber, countIf(status = 'delivered') AS done, countIf(status NOT IN ('delivered', 'dropped')) AS waiting, "
        "countIf(code >= 400 OR status = 'failed') AS failed, maxIf(at, status = 'delivered') AS last FROM deliveries "
        "WHERE at >= {since:DateTime('UTC')} - INTERVAL 7 DAY GROUP BY subscriber ORDER BY subscriber LIMIT 20",
        {"since": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"},
    )
    return Content(
        columns=(t("column.subscriber"), t("delivery.done"), t("delivery.waiting"), t("delivery.failed"), t("column.last")),
        rows=[((row["subscriber"], link("subscribers")), count(row["done"]), count(row["waiting"]), count(row["failed"]),
               age(row["last"], datetime.now(UTC))) for row in rows],
    )  # fmt: skip


Widget = Callable[[Rows, Span], Content]
WIDGETS: Final[dict[str, Widget]] = {
    "fleet": fleet,
    "reads": reads,
    "vee": vee,
    "todos": todos,
    "exceptions": exceptions,
    "billing": billing,
    "prepaid": prepaid,
    "events": events,
    "deliveries": deliveries,
}


def newest(reader: Rows) -> datetime | None:
    """The end of the newest day in the store; answered from the parts' bounds, not from rows."""
    found = reader.rows("SELECT max(day) AS day, count() AS n FROM final_days", {})
    if not found or not found[0]["n"]:
        return None
    day = found[0]["day"]
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
