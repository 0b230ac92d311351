"""What the dashboard shows: one function per widget, asked from the store at most every few seconds whoever looks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote, urlencode
from zoneinfo import ZoneInfo

from markupsafe import Markup

from connectors.console.charts import Series, stacked
from connectors.console.fleet import BANDS, SIDES, communication, side_of
from connectors.console.surroundings import stations
from connectors.console.words import age, catalogue, count, money, share, when
from connectors.head_end.listing import Rows
from connectors.rights.scope import Within

FRESH: Final = 15.0  # seconds that an answer is shown before it is asked again
IDLE: Final = 900.0  # seconds after which nobody looks any more
WATCHED: Final = 60.0  # seconds for which who looked is taken to look still
OFTEN: Final = 5.0  # an answer somebody looks at is kept so many times as long as it took
SELDOM: Final = 60.0  # and one that is only kept ready
BY_HOUR: Final = 3  # days up to which reads are told hour by hour
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
class Table:
    """A table of a widget; ``rows`` hold text or (text, href) per column."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Content:
    """What a widget shows: tiles above, a chart, tables below. ``rows`` hold text or (text, href) per column."""

    tiles: Sequence[Tile] = ()
    chart: Markup = Markup()
    legend: Sequence[tuple[str, str]] = ()
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[Any]] = ()
    folded: bool = False  # the table tells what the chart shows
    also: Sequence[Table] = ()
    said: str = ""  # instead of figures


@dataclass(frozen=True, slots=True)
class Span:
    """The days a dashboard looks at: the last of them is ``until``, exclusive."""

    until: datetime
    days: int
    zone: ZoneInfo = ZoneInfo("UTC")  # of what is shown

    def over(self, days: int) -> Span:
        """Other days with the same end."""
        return Span(self.until, days, self.zone)

    @property
    def since(self) -> datetime:
        """The begin; of more than a few days the local midnight before, so that no day is shown in part."""
        begin = self.until - timedelta(days=self.days)
        if self.days <= BY_HOUR:
            return begin
        return begin.astimezone(self.zone).replace(hour=0, minute=0, second=0).astimezone(UTC)

    @property
    def bound(self) -> dict[str, str]:
        """As parameters of a query."""
        return {"since": f"{self.since:%Y-%m-%d %H:%M:%S}", "until": f"{self.until:%Y-%m-%d %H:%M:%S}"}


T = TypeVar("T")


@dataclass
class _Kept(Generic[T]):
    content: T
    at: float
    cost: float
    asked: float
    looked: float
    busy: bool = False


@dataclass
class Memo:
    """Answers kept for a few seconds; an older one is shown while a thread asks anew, so that nobody waits for a large store twice.

    An answer that takes long is asked for less often, so that the store has its time for others.
    """

    workers: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2, "console"))
    clock: Callable[[], float] = time.monotonic
    _kept: dict[Any, _Kept[Any]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, key: Any, ask: Callable[[], T], fresh: float = FRESH, *, ready: bool = False) -> T:
        """The answer, about ``fresh`` seconds old where somebody looks all the time. Raises what the first ask raises.

        ``ready``: nobody looks, it is to be there for whoever will.
        """
        now = self.clock()
        with self._lock:
            for old in [name for name, kept in self._kept.items() if now - kept.asked > IDLE]:
                del self._kept[old]
            kept = self._kept.get(key)
            if kept is not None:
                kept.asked, kept.looked = now, kept.looked if ready else now
                pause = OFTEN if now - kept.looked < WATCHED else SELDOM
                if now - kept.at > max(fresh, pause * kept.cost) and not kept.busy:
                    kept.busy = True
                    self.workers.submit(self._renew, key, ask)
                if now - kept.at < IDLE:
                    answer: T = kept.content
                    return answer
        return self._keep(key, ask, looked=-WATCHED if ready else now)

    def _keep(self, key: Any, ask: Callable[[], T], looked: float) -> T:
        began = self.clock()
        content = ask()
        now = self.clock()
        with self._lock:
            self._kept[key] = _Kept(content, now, now - began, now, looked)
        return content

    def _renew(self, key: Any, ask: Callable[[], Any]) -> None:
        try:
            self._keep(key, ask, self._kept[key].looked)
        except Exception:
            with self._lock:
                self._kept.pop(key, None)  # the next one who looks is told what is wrong
            raise


def link(page: str, **query: object) -> str:
    """The address of a console page."""
    asked = {name: value if isinstance(value, list) else str(value) for name, value in query.items() if value not in (None, "", [])}
    return f"/console/{page}" + (f"?{urlencode(asked, doseq=True)}" if asked else "")


def fleet(reader: Rows, span: Span, area: Within) -> Content:
    """Meters known and heard of, by the system that reads them, the concentrator they hang on, and the region they are in."""
    known = reader.rows(
        f"SELECT count() AS n FROM master_objects FINAL WHERE kind IN ('channel', 'component') AND {area.on('places[1].device', 'device')}",
        area.parameters,
    )
    rows = communication(reader, span.until, area)
    whole = next((row for row in rows if not side_of(row)), dict.fromkeys(("meters", *BANDS), 0))
    tiles = [Tile(t("fleet.meters"), count(whole["meters"]), link("meters"))]
    tiles += [
        Tile(t(f"fleet.{band}"), count(whole[band]), link("meters", heard=band), "bad" if band == "silent" and whole[band] else "")
        for band in BANDS
    ]
    tiles.append(Tile(t("fleet.channels"), count(known[0]["n"]), link("master", kind="channel")))
    tables = [_by_side(side, [row for row in rows if side_of(row) == side]) for side in SIDES]
    return Content(tiles=tiles, also=[table for table in tables if any(cells[0][0] for cells in table.rows)])


def _by_side(side: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    return Table(
        t(f"fleet.by_{side}"),
        (t(f"column.{side}"), t("column.meters"), *(t(f"fleet.{band}") for band in BANDS)),
        [
            ((row[side], link("meters", **{side: row[side] or "-"})), count(row["meters"]),
             *((count(row[band]), link("meters", heard=band, **{side: row[side] or "-"})) if row[band] else "0" for band in BANDS))
            for row in rows[:12]
        ],
    )  # fmt: skip


_WHOLE: Final = tuple(timedelta(hours=hours) for hours in range(-12, 15))  # offsets of zones whose hours are those of UTC
_READS: Final = """
SELECT intDiv(toUnixTimestamp(day_start) + (slot - 1) * seconds, {unit:UInt32}) * {unit:UInt32} AS at, sum(n) AS due, sum(got) AS received
FROM (
    SELECT day_start, seconds,
        sumForEach(arrayMap(c -> toUInt64(c > 0), conditions)) AS dues,
        sumForEach(arrayMap(c -> toUInt64(c >= 400000 OR (c >= 200000 AND c < 300000)), conditions)) AS gots
    FROM final_days FINAL
    WHERE INSIDE AND seconds > 0 AND day >= toDate32({since:DateTime('UTC')}) - 1 AND day <= toDate32({until:DateTime('UTC')})
    GROUP BY day_start, seconds
)
ARRAY JOIN dues AS n, gots AS got, arrayEnumerate(dues) AS slot
WHERE at >= toUnixTimestamp({since:DateTime('UTC')}) AND at < toUnixTimestamp({until:DateTime('UTC')})
GROUP BY at ORDER BY at
SETTINGS do_not_merge_across_partitions_select_final = 1
"""


def reads(reader: Rows, span: Span, area: Within) -> Content:
    """Reads received of those expected, by hour or, over more than three days, by day."""
    hours = span.days <= BY_HOUR
    whole = all(moment.astimezone(span.zone).utcoffset() in _WHOLE for moment in (span.since, span.until))
    asked = {**span.bound, **area.parameters, "unit": 3600 if whole else 900}
    told: dict[str, list[int]] = {}  # by local hour or day: first second, expected, received
    for row in reader.rows(_READS.replace("INSIDE", area.on("service_point")), asked):
        local = datetime.fromtimestamp(row["at"], span.zone)
        kept = told.setdefault(f"{local:{'%d. %H:00 %Z' if hours else '%d %b'}}", [row["at"], 0, 0])
        kept[1:] = kept[1] + row["due"], kept[2] + row["received"]
    labels, due, got = list(told), sum(row[1] for row in told.values()), sum(row[2] for row in told.values())

    def lacking(first: int) -> str:
        last = datetime.fromtimestamp(first, UTC) + timedelta(hours=1) if hours else _next_day(first, span.zone)
        return link("exceptions", rule="missing-quantity", **_bounds(datetime.fromtimestamp(first, UTC), last))

    lacking_at_all = link("exceptions", rule="missing-quantity", **_bounds(span.since, span.until))
    return Content(
        tiles=(
            Tile(t("reads.received"), count(got), link("meters", heard="fresh")),
            Tile(t("reads.expected"), count(due), link("meters")),
            Tile(t("reads.missing"), count(due - got), link("exceptions", rule="missing-quantity", status="open")),
            Tile(
                t("reads.share"), share(got, due), lacking_at_all if due else "",
                ("bad" if got / due < 0.98 else "good") if due else "",
            ),
        ),
        chart=stacked(
            [label.rpartition(" ")[0] if hours else label for label in labels],
            (Series(t("reads.received"), "regular", [row[2] for row in told.values()]),
             Series(t("reads.missing"), "missing", [row[1] - row[2] for row in told.values()])),
            t("reads.title"),
            [lacking(row[0]) for row in told.values()],
        ),
        legend=(("regular", t("reads.received")), ("missing", t("reads.missing"))),
        columns=(t("column.time_local"), t("reads.expected"), t("reads.received")),
        rows=[((label, lacking(row[0])), count(row[1]), count(row[2])) for label, row in told.items()],
        folded=True,
    )  # fmt: skip


def _bounds(since: datetime, until: datetime) -> dict[str, str]:
    """A span as lists are filtered by it."""
    return {"from": f"{since:%Y-%m-%dT%H:%M:%SZ}", "to": f"{until:%Y-%m-%dT%H:%M:%SZ}"}


def _next_day(first: int, zone: ZoneInfo) -> datetime:
    """The local midnight behind a second, in UTC: days on which clocks change are not of 24 hours."""
    day = datetime.fromtimestamp(first, zone).date() + timedelta(days=1)
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)


_QUALITY: Final = """
SELECT day,
    sum(arrayCount(c -> c >= 500000 AND c < 600000, conditions)) AS regular,
    sum(arrayCount(c -> c >= 300000 AND c < 450000, conditions)) AS estimate,
    sum(arrayCount(c -> c >= 450000 AND c < 500000, conditions)) AS suspect,
    sum(arrayCount(c -> c >= 600000, conditions)) AS edited,
    sum(arrayCount(c -> c >= 200000 AND c < 300000, conditions)) AS outage,
    sum(arrayCount(c -> c > 0 AND c < 200000, conditions)) AS missing
FROM final_days FINAL
WHERE INSIDE AND seconds > 0 AND day >= toDate32({since:DateTime('UTC')}) AND day < toDate32({until:DateTime('UTC')})
GROUP BY day ORDER BY day
SETTINGS do_not_merge_across_partitions_select_final = 1
"""
_KINDS: Final = ("regular", "estimate", "suspect", "edited", "outage", "missing")


def vee(reader: Rows, span: Span, area: Within) -> Content:
    """What VEE made of the reads, day by day, and how much is estimated."""
    span = span.over(max(span.days, 7))
    rows = reader.rows(_QUALITY.replace("INSIDE", area.on("service_point")), {**span.bound, **area.parameters})
    sums = {kind: sum(row[kind] for row in rows) for kind in _KINDS}
    whole = sum(sums.values())
    labels = [f"{row['day']:%d %b}" for row in rows]
    hrefs = [link("exceptions", **{"from": row["day"], "to": row["day"] + timedelta(days=1)}) for row in rows]
    days = {"from": f"{span.since:%Y-%m-%d}", "to": f"{span.until:%Y-%m-%d}"}
    return Content(
        tiles=(
            Tile(t("vee.estimated"), share(sums["estimate"], whole), link("meters", estimated="1", **days) if whole else ""),
            Tile(t("quality.suspect"), count(sums["suspect"]), link("exceptions", status="open")),
            Tile(t("quality.missing"), count(sums["missing"]), link("exceptions", rule="missing-quantity", status="open")),
        ),
        chart=stacked(labels, [Series(t(f"quality.{kind}"), kind, [row[kind] for row in rows]) for kind in _KINDS], t("vee.title"), hrefs),
        legend=[(kind, t(f"quality.{kind}")) for kind in _KINDS if sums[kind]],
        columns=(t("column.day"), *(t(f"quality.{kind}") for kind in _KINDS)),
        rows=[((label, href), *(count(row[kind]) for kind in _KINDS)) for label, href, row in zip(labels, hrefs, rows, strict=True)],
        folded=True,
    )


def exceptions(reader: Rows, span: Span, area: Within) -> Content:
    """Open exceptions by rule, and how old what they are about is."""
    rows = reader.rows(
        f"""
        SELECT rule, count() AS n, countIf(start >= {{until:DateTime('UTC')}} - INTERVAL 1 DAY) AS fresh,
            countIf(start < {{until:DateTime('UTC')}} - INTERVAL 1 DAY AND start >= {{until:DateTime('UTC')}} - INTERVAL 7 DAY) AS week,
            countIf(start < {{until:DateTime('UTC')}} - INTERVAL 7 DAY) AS old
        FROM vee_exceptions FINAL WHERE status = 'open' AND {area.on("service_point")} GROUP BY rule ORDER BY n DESC LIMIT 12
        """,
        span.bound | area.parameters,
    )
    edges = {band: f"{span.until - timedelta(days=days):%Y-%m-%dT%H:%M:%SZ}" for band, days in (("fresh", 1), ("week", 7))}
    spans = {"": {}, "fresh": {"from": edges["fresh"]}, "week": {"from": edges["week"], "to": edges["fresh"]}, "old": {"to": edges["week"]}}
    return _aged(rows, "rule", lambda value, band: link("exceptions", rule=value, status="open", **spans[band]), t("column.rule"))


_WORK: Final = """
SELECT role, type, grouping(role) AS by_role, count() AS n, countIf(first_seen > {now:DateTime('UTC')} - INTERVAL 1 DAY) AS fresh,
    countIf(first_seen <= {now:DateTime('UTC')} - INTERVAL 1 DAY AND first_seen > {now:DateTime('UTC')} - INTERVAL 7 DAY) AS week,
    countIf(first_seen <= {now:DateTime('UTC')} - INTERVAL 7 DAY) AS old,
    countIf(if(state = 'open', assign_by, resolve_by) < {now:DateTime('UTC')}) AS late, countIf(user = '') AS free
FROM todo_queue WHERE INSIDE GROUP BY GROUPING SETS ((role), (type)) ORDER BY n DESC, role, type
"""


def todos(reader: Rows, _: Span, area: Within) -> Content:
    """To-Dos that are not done, by role, type and age."""
    sql = _WORK.replace("INSIDE", area.on("service_point"))
    told = reader.rows(sql, {"now": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}", **area.parameters})
    rows = [row for row in told if row["by_role"] == 0]
    content = _aged(rows, "role", lambda value, band: link("todos", role=value, age=band), t("column.role"))
    types = _aged(
        [row for row in told if row["by_role"]], "type", lambda value, band: link("todos", type=value, age=band), t("column.type")
    )
    late = sum(row["late"] for row in rows)
    tiles = (
        Tile(t("todos.live"), count(sum(row["n"] for row in rows)), link("todos")),
        Tile(t("todos.free"), count(sum(row["free"] for row in rows)), link("todos", state="open")),
        Tile(t("todos.late"), count(late), link("todos", sort="due", overdue="true"), "bad" if late else ""),
    )
    return Content(tiles, columns=content.columns, rows=content.rows, also=[Table(t("todos.by_type"), types.columns, types.rows)])


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


def billing(reader: Rows, span: Span, area: Within) -> Content:
    """Bill determinants and usage of the last periods: due, released, held, waiting, delivered."""
    bound = span.over(62).bound | area.parameters
    rows = reader.rows(
        f"""
        SELECT kind, countIf(status = 'released') AS released, countIf(status = 'held') AS held, uniq(account) AS accounts
        FROM bill_determinants
        WHERE {area.on("device")} AND period_end >= {{since:DateTime('UTC')}} AND period_start < {{until:DateTime('UTC')}}
        GROUP BY kind ORDER BY kind
        """,
        bound,
    )
    usage = reader.rows(
        f"SELECT status, count() AS n FROM usage WHERE {area.on('account')} AND "
        "period_end >= {since:DateTime('UTC')} AND period_start < {until:DateTime('UTC')} "
        "GROUP BY status ORDER BY status",
        bound,
    )
    sent = (
        reader.rows(
            "SELECT sum(records) AS n FROM deliveries WHERE status = 'delivered' AND object IN ('determinants', 'usage-transactions') "
            "AND at >= {since:DateTime('UTC')} AND at < {until:DateTime('UTC')}",
            span.over(62).bound,
        )[0]["n"]
        if area.everywhere
        else None
    )  # deliveries are those of the whole hub
    tiles = [Tile(t(f"usage.{row['status']}"), count(row["n"]), link("usage", status=row["status"])) for row in usage]
    released, held = (sum(row[name] for row in rows) for name in ("released", "held"))
    return Content(
        tiles=(Tile(t("billing.due"), count(released + held), link("determinants")),
               Tile(t("billing.released"), count(released), link("determinants", status="released")),
               Tile(t("billing.held"), count(held), link("determinants", status="held"), "bad" if held else ""),
               *([] if sent is None else [Tile(t("billing.sent"), count(int(sent)), link("subscribers"))]), *tiles),
        columns=(t("column.kind"), t("billing.released"), t("billing.held"), t("column.accounts")),
        rows=[((row["kind"], link("determinants", kind=row["kind"])), count(row["released"]), count(row["held"]), count(row["accounts"]))
              for row in rows],
    )  # fmt: skip


def prepaid(reader: Rows, _: Span, area: Within) -> Content:
    """Prepaid accounts by state of their supply, and their money."""
    rows = reader.rows(
        "SELECT state, currency, count() AS n, sum(balance) AS money, countIf(balance < 0) AS below, countIf(trouble != '') AS troubled "
        f"FROM prepaid_accounts WHERE {area.on('device')} GROUP BY state, currency ORDER BY n DESC",
        area.parameters,
    )
    return Content(
        tiles=(Tile(t("prepaid.accounts"), count(sum(row["n"] for row in rows)), link("prepaid")),
               Tile(t("prepaid.below"), count(sum(row["below"] for row in rows)), link("prepaid", below=1)),
               Tile(t("prepaid.trouble"), count(sum(row["troubled"] for row in rows)), link("prepaid", trouble=1))) if rows else (),
        columns=(t("column.state"), t("column.accounts"), t("column.balance")),
        rows=[((t(row["state"]), link("prepaid", state=row["state"])), count(row["n"]), money(row["money"], row["currency"]))
              for row in rows],
    )  # fmt: skip


def events(reader: Rows, span: Span, area: Within) -> Content:
    """What devices told of themselves."""
    rows = reader.rows(
        "SELECT kind, count() AS n, uniq(device) AS devices, max(at) AS last FROM device_events "
        f"WHERE {area.on('device')} AND at >= {{since:DateTime('UTC')}} AND at < {{until:DateTime('UTC')}} "
        "GROUP BY kind ORDER BY n DESC LIMIT 12",
        span.bound | area.parameters,
    )
    return Content(
        tiles=(Tile(t("word.all"), count(sum(row["n"] for row in rows)), link("events")),) if rows else (),
        columns=(t("column.kind"), t("column.events"), t("column.devices"), t("column.last")),
        rows=[
            ((row["kind"], link("events", kind=row["kind"])), count(row["n"]), count(row["devices"]), when(row["last"], span.zone))
            for row in rows
        ],
    )


def deliveries(reader: Rows, _: Span, area: Within) -> Content:
    """What subscribers took, and what waits for them."""
    if not area.everywhere:
        return Content(said=t("deliveries.whole"))
    rows = reader.rows(
        "SELECT subscriber, countIf(status = 'delivered') AS done, countIf(status NOT IN ('delivered', 'dropped')) AS waiting, "
        "countIf(code >= 400 OR status = 'failed') AS failed, maxIf(at, status = 'delivered') AS last FROM deliveries "
        "WHERE at >= {since:DateTime('UTC')} - INTERVAL 7 DAY GROUP BY subscriber ORDER BY subscriber LIMIT 20",
        {"since": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"},
    )
    return Content(
        columns=(t("column.subscriber"), t("delivery.done"), t("delivery.waiting"), t("delivery.failed"), t("column.last")),
        rows=[((row["subscriber"], link("subscribers")), count(row["done"]), count(row["waiting"]), count(row["failed"]),
               age(row["last"] if row["done"] else None, datetime.now(UTC))) for row in rows],
    )  # fmt: skip


def temperature(reader: Rows, span: Span, area: Within) -> Content:
    """What is known of the temperature outside: each station's newest day."""
    known = stations(reader, span.until, area)[:12]
    if not known:
        return Content()
    rows = reader.rows(
        "SELECT device, channel, argMax(value, start) AS last, min(value) AS least, max(value) AS most, max(start) AS at FROM intervals "
        "WHERE device IN {devices:Array(String)} AND unit = 'C' AND value IS NOT NULL AND start >= {since:DateTime('UTC')} AND "
        "start < {until:DateTime('UTC')} AND day >= toDate32({since:DateTime('UTC')}) - 1 GROUP BY device, channel",
        {"devices": [station.device for station in known], **span.over(2).bound},
    )
    told = {(row["device"], row["channel"]): row for row in rows}
    lines = []
    for station in known:
        row = told.get((station.device, station.channel))
        where = station.place.region or station.place.grid_area or station.place.service_point
        figures = ("–", "–", "–") if row is None else tuple(f"{row[name]:.1f} °C" for name in ("last", "least", "most"))
        lines.append(((station.device, link(f"meters/{quote(station.device, safe='')}", channel=station.channel)), where, *figures))
    columns = (t("column.station"), t("column.region"), t("temperature.last"), t("temperature.least"), t("temperature.most"))
    return Content(columns=columns, rows=lines)


Widget = Callable[[Rows, Span, Within], Content]
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
    "temperature": temperature,
}


def newest(reader: Rows, area: Within) -> datetime | None:
    """The end of the newest day in the store; without bounds answered from those of the parts, not from rows."""
    inside = "" if area.everywhere else f" WHERE {area.on('service_point')}"
    found = reader.rows(f"SELECT max(day) AS day, count() AS n FROM final_days{inside}", area.parameters)
    if not found or not found[0]["n"]:
        return None
    day = found[0]["day"]
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
