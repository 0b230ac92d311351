"""The story of the demo: what was sent, what the hub made of it, and whether both agree. Asks the hub only what anybody may ask."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from mdh.estate import Part, master_lines, parts
from mdh.simulation.faults import FAULTS
from mdh.simulation.head_end import HeadEnd, Settings
from mdh.simulation.hub import HubAt
from schemas.identity import identity

WIDTH: Final = 100
PATIENCE: Final = 300.0
RATES: Final = {
    "spike": 0.0003, "negative": 0.0003, "gap": 0.0006, "missing": 0.0004, "zero": 0.01, "duplicate": 0.01, "late": 0.01,
    "correction": 0.01, "unknown": 0.02,
}  # fmt: skip
SIMULATED: Final = Settings(meters=200, days=4, seed=2025, rates=RATES, start=date(2025, 3, 28), source="simulator")
CORRECTED: Final = ("H100175740", "E1", "2013-10-15", "Australia/Sydney")
CORRECTION: Final = f"correction-{CORRECTED[2]}.json"
MORE, MORE_IN = Decimal("0.05"), range(16, 20)  # kWh, half hours of the day
_BARS: Final = "▁▂▃▄▅▆▇█"
_ESTIMATED: Final = "condition >= 200000 AND condition < 400000"


@dataclass
class Story:
    """Sends the estate to a hub and tells what became of it. ``counts`` collects the figures of the last line."""

    hub: HubAt
    out: Console
    progress: Console
    counts: dict[str, Any] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    def tell(self) -> dict[str, Any]:
        """The whole story; the counts."""
        self.estate()
        self.faults()
        self.exceptions()
        self.correction()
        self.estimated_day()
        self.totals()
        return self.counts

    # --- chapters ------------------------------------------------------------------------------------------------------------

    def estate(self) -> None:
        """Real files of four commodities, and whether the store holds what they hold."""
        ids = self.hub.master(master_lines())
        files = parts()
        for part in self._bar("sending the estate", files):
            data = part.path.read_bytes()
            ids.append(self.hub.reads(data, source="estate", name=part.path.name, key=identity("estate", part.path.name, data)))
        self._settle("deciding and storing", ids)
        self.heading("A real estate", "homes in Sydney, a solar home, gas in Britain, water in Alicante, heat in Denmark")
        table = _table("what", "channels>", "reads>", "total in the store>", "estimated>", "")
        corrected = bool(self.hub.sql(f"SELECT id FROM payloads WHERE name = '{CORRECTION}' AND status = 'stored'"))
        agree = True
        for part in files:
            agree &= self._estate_row(table, part, corrected)
        self.out.print(table)
        self.counts |= {
            "files": len(files),
            "channels": len(master_lines()),
            "estate_reads": sum(p.reads for p in files),
            "totals_agree": agree,
        }

    def _estate_row(self, table: Table, part: Part, corrected: bool) -> bool:
        same, estimated = True, 0
        wanted: dict[str, Decimal] = {}
        stored: dict[str, Decimal] = {}
        for key, figures in part.channels.items():
            found, filled = self._found(key, figures)
            unit, expected = figures["unit"], Decimal(figures["total"])
            if corrected and key == "/".join(CORRECTED[:2]) and part.path.suffix == ".json":
                expected += len(MORE_IN) * MORE  # an earlier run of the demo has sent the correction
            same &= found == expected
            wanted[unit] = wanted.get(unit, Decimal(0)) + expected
            stored[unit] = stored.get(unit, Decimal(0)) + found
            estimated += filled
        total = Text(_amounts(stored)) if same else Text(f"{_amounts(stored)} instead of {_amounts(wanted)}", style="red")
        mark = Text("✓", style="green") if same else Text("✗", style="red")
        table.add_row(part.about, str(len(part.channels)), f"{part.reads:,}", total, str(estimated) if estimated else "–", mark)
        return same

    def _found(self, key: str, figures: dict[str, Any]) -> tuple[Decimal, int]:
        """What the store holds of one channel of a file: total as received, estimated intervals."""
        device, _, channel = key.partition("/")
        of = f"device = '{device}' AND channel = '{channel}'"
        start, end = (f"toDateTime('{figures[side].rstrip('Z')}', 'UTC')" for side in ("start", "end"))
        if figures["seconds"]:
            rows = self.hub.sql(
                f"SELECT sumIf(value, method = '') AS total, countIf({_ESTIMATED}) AS filled FROM intervals"
                f" WHERE {of} AND start >= {start} AND start < {end}"
            )
            return Decimal(rows[0]["total"] or 0), int(rows[0]["filled"])
        rows = self.hub.sql(
            f"SELECT argMax(reading, at) - argMin(reading, at) AS total FROM registers WHERE {of} AND at >= {start} AND at <= {end}"
        )
        return Decimal(rows[0]["total"] or 0), 0

    def faults(self) -> None:
        """A simulated head end with known faults, and which of them the hub answered."""
        head_end = HeadEnd(SIMULATED)
        ids = self.hub.master(head_end.master())
        payloads = list(head_end.payloads())
        for payload in self._bar("sending simulated meters with faults", payloads):
            ids.append(self.hub.reads(payload.data, source=SIMULATED.source, name=payload.name, key=payload.id))
        self._settle("deciding and storing", ids)
        self.heading(
            "Known faults", f"{SIMULATED.meters} simulated meters × {SIMULATED.days} days in Madrid, a day of 92 quarter hours among them"
        )
        table = _table("fault", "what was done", "injected>", "answered>", "by")
        answered = self._answered(head_end)
        for fault in RATES:
            injected = head_end.totals.faults[fault]
            style = "green" if answered[fault] == injected else "yellow"
            table.add_row(
                fault, Text(FAULTS[fault][2], style="dim"), str(injected), Text(str(answered[fault]), style=style), _ANSWERS[fault]
            )
        self.out.print(table)
        self.counts["faults"] = {fault: {"injected": head_end.totals.faults[fault], "answered": answered[fault]} for fault in RATES}
        self.counts["simulated_reads"] = head_end.totals.reads

    def _answered(self, head_end: HeadEnd) -> Counter[str]:
        """How many of the injected faults the hub dealt with as it must, per fault."""
        prefix = f"startsWith(device, '{SIMULATED.prefix}0')"
        raised = {
            (row["rule"], row["device"], row["day"])
            for row in self.hub.sql(
                f"SELECT rule, device, toString(toDate(start, '{SIMULATED.zone}')) AS day FROM exceptions WHERE {prefix}"
            )
        }
        unknown = {device for rule, device, _ in raised if rule == "unknown-device"}
        days = {
            (row["device"], row["on"]): row
            for row in self.hub.sql(
                f"SELECT device, toString(day) AS on, sum(value) AS total, countIf(method = 'interval-interpolation') AS filled,"
                f" count() AS slots, uniqExact(start) AS distinct, max(version) AS version"
                f" FROM intervals WHERE {prefix} GROUP BY device, day"
            )
        }
        answered: Counter[str] = Counter()
        for line in head_end.truth:
            row = days.get((line["device"], line["day"]))
            answered[line["fault"]] += _is_answered(line, row, raised, unknown)
        return answered

    def exceptions(self) -> None:
        """What waits for people, by rule."""
        rows = self.hub.sql(
            "SELECT rule, severity, countIf(status = 'open') AS open, countIf(status != 'open') AS closed, uniqExact(device) AS devices,"
            " any(detail) AS example FROM exceptions GROUP BY rule, severity ORDER BY severity = 'info', rule"
        )
        self.heading("Exceptions", "one per rule, channel and day; with `info` nothing is held back")
        table = _table("rule", "severity", "open>", "closed>", "devices>", "for example")
        colours = {"info": "cyan", "issue": "yellow", "terminate": "red"}
        for row in rows:
            example = Text(row["example"], style="dim", overflow="ellipsis", no_wrap=True)
            table.add_row(
                row["rule"],
                Text(row["severity"], style=colours[row["severity"]]),
                str(row["open"]),
                str(row["closed"]),
                str(row["devices"]),
                example,
            )
        self.out.print(table)
        self.counts["exceptions"] = {row["rule"]: int(row["open"]) + int(row["closed"]) for row in rows}

    def correction(self) -> None:
        """Determinants of one account before and after a late correction."""
        device, channel, day, zone = CORRECTED
        before = self._determinants(device, channel, day)
        source = next(part for part in parts() if f"{device}/{channel}" in part.channels and part.path.suffix == ".json")
        payload = _corrected(source, device, channel, day, zone)
        ids = [self.hub.reads(payload, source="estate", name=CORRECTION, key=identity("estate", CORRECTION, payload))]
        self._settle("correcting one day", ids)
        after = self._determinants(device, channel, day)
        self.heading(f"Bill determinants of account A-{device}, October 2013", "before and after a late correction")
        table = _table("kind", "time of use", "before>", "version>", "now>", "version>", "measured>")
        for key, row in sorted(after.items()):
            old = before.get(key)
            changed = old is not None and old["quantity"] != row["quantity"]
            now = Text(f"{_short(row['quantity'])} {row['unit']}", style="bold yellow" if changed else "")
            measured = f"{100 * int(row['actual']) / max(1, int(row['slots'])):.0f} %"
            was = (f"{_short(old['quantity'])} {old['unit']}", str(old["version"])) if old else ("–", "–")
            table.add_row(key[0], key[1] or "–", *was, now, str(row["version"]), measured)
        self.out.print(table)
        reasons = {row["reason"] for row in after.values() if int(row["version"]) > 1}
        again = "; it came in an earlier run already" if before == after else ""
        self.out.print(Text(f" reason of the later version: {', '.join(sorted(reasons)) or 'none yet'}{again}", style="dim"))
        self.counts["corrected"] = sum(1 for row in after.values() if int(row["version"]) > 1)

    def _determinants(self, device: str, channel: str, day: str) -> dict[tuple[str, str], dict[str, Any]]:
        rows = self.hub.sql(
            "SELECT kind, tou, unit, quantity, version, status, slots, actual, reason FROM determinants"
            f" WHERE device = '{device}' AND channel = '{channel}' AND period = 'billing'"
            f" AND toDate(period_start, '{CORRECTED[3]}') <= '{day}' AND toDate(period_end, '{CORRECTED[3]}') > '{day}' ORDER BY kind, tou"
        )
        return {(row["kind"], row["tou"]): row for row in rows}

    def estimated_day(self) -> None:
        """One day with a gap as a line of bars, the estimated ones marked."""
        rows = self.hub.sql(
            "SELECT device, channel, day FROM intervals WHERE method = 'interval-interpolation' AND seconds = 900"
            " GROUP BY device, channel, day ORDER BY count() DESC, device, day LIMIT 1"
        )
        if not rows:
            return
        device, channel, day = rows[0]["device"], rows[0]["channel"], rows[0]["day"]
        of = f"device = '{device}' AND channel = '{channel}' AND day = '{day}'"
        slots = self.hub.sql(f"SELECT value, unit, method FROM intervals WHERE {of} ORDER BY start")
        values = [Decimal(row["value"] or 0) for row in slots]
        top = max(values) or Decimal(1)
        line, marks = Text(" "), Text(" ")
        for row, value in zip(slots, values, strict=True):
            estimated = row["method"] != ""
            line.append(_BARS[min(7, int(value * 8 / top))], style="bold yellow" if estimated else "green")
            marks.append("▲" if estimated else " ", style="bold yellow")
        filled = sum(1 for row in slots if row["method"])
        self.heading(f"{device} on {str(day)[:10]}", f"{sum(values):,} {slots[0]['unit']}, highest {_short(top)}; ▲ {filled} estimated")
        self.out.print(line)
        self.out.print(marks)

    def totals(self) -> None:
        """The figures of the last line that are left."""
        row = self.hub.sql(
            "SELECT (SELECT count() FROM intervals) AS intervals, (SELECT count() FROM registers) AS registers,"
            f" (SELECT countIf({_ESTIMATED}) FROM intervals) AS estimated, (SELECT count() FROM determinants) AS determinants,"
            " (SELECT count() FROM payloads) AS payloads, (SELECT countIf(status = 'dead') FROM payloads) AS dead"
        )[0]
        self.counts |= {name: int(count) for name, count in row.items()}
        self.counts["seconds"] = round(time.monotonic() - self.began, 1)

    # --- telling -------------------------------------------------------------------------------------------------------------

    def heading(self, title: str, about: str) -> None:
        """A chapter begins."""
        self.out.print()
        self.out.print(Text.assemble((title, "bold"), "  ", (about, "dim")))

    def _bar(self, what: str, things: Sequence[Any]) -> Any:
        columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, console=self.progress, transient=True, disable=not self.progress.is_terminal) as progress:
            yield from progress.track(things, description=what)

    def _settle(self, what: str, ids: list[str]) -> None:
        columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, console=self.progress, transient=True, disable=not self.progress.is_terminal) as progress:
            task = progress.add_task(what, total=len(ids))
            self.hub.settle(ids, PATIENCE, lambda more: progress.advance(task, more))


_ANSWERS: Final = {
    "spike": "exception interval-spike",
    "negative": "exception negative-consumption",
    "gap": "estimated by interpolation",
    "missing": "estimated by interpolation",
    "zero": "exception zero-consumption",
    "duplicate": "stored once",
    "late": "merged into its day",
    "correction": "measured replaced estimated",
    "unknown": "parked until master data come",
}


def _is_answered(line: dict[str, Any], row: dict[str, Any] | None, raised: set[tuple[str, str, str]], unknown: set[str]) -> bool:
    fault, device = line["fault"], line["device"]
    if device in unknown:
        return True  # nothing of it is stored until master data know the meter
    if fault in ("spike", "negative", "zero"):
        return (line["expect"], device, line["day"]) in raised
    if row is None:
        return False
    if fault in ("gap", "missing"):
        return bool(int(row["filled"]) == line["count"])
    once = int(row["slots"]) == int(row["distinct"]) == line["count"]
    return bool(once and Decimal(row["total"]) == Decimal(line["true"]))


def _corrected(source: Part, device: str, channel: str, day: str, zone: str) -> bytes:
    """The day again, from eight to ten in the morning with 50 Wh more in every half hour, as the head end would send it after a re-read."""
    document = json.loads(source.path.read_text(), parse_float=Decimal, parse_int=Decimal)
    read = next(r for r in document["reads"] if (r["device"], r["channel"]) == (device, channel))
    start = datetime.fromisoformat(read["start"])
    first = datetime.fromisoformat(f"{day}T00:00").replace(tzinfo=ZoneInfo(zone))
    offset = int((first - start) / timedelta(seconds=int(read["seconds"])))
    values = [v + MORE if i in MORE_IN else v for i, v in enumerate(read["values"][offset : offset + 48])]
    texts = ",".join(f"{value:f}" for value in values)
    head = json.dumps(
        {"device": device, "channel": channel, "unit": read["unit"], "seconds": int(read["seconds"]), "start": first.isoformat()}
    )
    return f'{{"source": "estate", "reads": [{head[:-1]}, "values": [{texts}]}}]}}\n'.encode()


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="dim", show_edge=False, pad_edge=True)
    for name in columns:
        right = name.endswith(">")
        table.add_column(name.rstrip(">"), justify="right" if right else "left", no_wrap=right)
    return table


def _short(quantity: Any) -> str:
    return f"{Decimal(quantity).normalize():f}"


def _amounts(sums: dict[str, Decimal]) -> str:
    return ", ".join(f"{amount.normalize():,f} {unit}" for unit, amount in sums.items())
