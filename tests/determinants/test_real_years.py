"""Years of real meters: every determinant equals what a slow, independent way finds, and nothing of the files' totals is lost."""

from __future__ import annotations

import csv
import gzip
import random
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from schemas.conditions import REPORTED_MISSING
from streams import calendar
from tests.determinants.kit import EPOCH, Hub, Row, slots, slow_determinants, slow_month, told

pytestmark = pytest.mark.shared_data
MICRO = 1_000_000


def micros(text: str) -> int:
    return round(Decimal(text) * MICRO)


def days_of(reads: dict[int, int], zone: str, seconds: int, device: str) -> list[Row]:
    """Intervals by UTC second as local days; what is not there is missing inside, and not due before the first and after the last."""
    days: dict[int, Row] = {}
    first, last = min(reads), max(reads)
    for at in sorted(reads):
        day = (datetime.fromtimestamp(at, UTC).astimezone(ZoneInfo(zone)).date() - EPOCH).days
        if day not in days:
            start, size = int(calendar.start_of(zone, day)), slots(zone, day, seconds)
            moments = [start + i * seconds for i in range(size)]
            codes = [500_000 if m in reads else REPORTED_MISSING if first < m < last else 0 for m in moments]
            days[day] = Row(
                day, [reads.get(m, 0) for m in moments], codes, device=device, account=f"a-{device}", zone=zone, seconds=seconds
            )
    return list(days.values())


def check(rows: list[Row], total: int, seed: int = 1) -> Hub:
    """Folds days in messages of many sizes, a tick here and there, and some days twice; compares with the slow way."""
    rng, hub = random.Random(seed), Hub()
    sent: list[Row] = []
    at = 0
    while at < len(rows):
        chunk = rows[at : at + rng.choice([1, 3, 30, 200])]
        at += len(chunk)
        hub.give(*chunk)
        hub.tick(int(calendar.start_of(chunk[-1].zone, chunk[-1].day)) + 86_400)  # time goes on: nothing waits until behind the cut-off
        sent += chunk
        if rng.random() < 0.3:  # a day read badly first, then well
            good = chunk[-1]
            bad = Row(**{**vars(good), "values": [v // 2 for v in good.values], "version": 2, "replaces": 1})
            again = Row(**{**vars(good), "version": 3, "replaces": 2})
            hub.give(bad)
            hub.tick(int(calendar.start_of(good.zone, good.day)) + 40 * 86_400)
            hub.give(again)
    hub.close()
    found = told(hub)
    assert found == slow_determinants(sent)
    for kind in ("interval-consumption", "tou-interval-consumption"):
        assert sum(body["quantity"] for key, body in found.items() if key[5] == kind) == total
    assert not hub.figures
    return hub


def read_csv(path: Path) -> Iterator[dict[str, str]]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        yield from csv.DictReader(file)


@pytest.mark.parametrize(("channel", "total"), [("GC", "11876.738"), ("GG", "2592.808")])
def test_half_hours_of_a_solar_home(shared_data: Path, channel: str, total: str) -> None:
    """Standard time all year in a zone with summer time: days have 46, 48 and 50 half hours."""
    standard = ZoneInfo("Etc/GMT-10")
    reads = {
        int(datetime.fromisoformat(r[""]).replace(tzinfo=standard).timestamp()): round(Decimal(r[channel]), 3) * MICRO
        for r in read_csv(shared_data / "ausgrid_customer12" / "data_2011-2012.csv")
    }
    rows = days_of({at: int(v) for at, v in reads.items()}, "Australia/Sydney", 1800, channel)
    assert {len(r.values) for r in rows} == {46, 48, 50}
    check(rows, micros(total))


def test_quarter_hours_with_local_stamps(shared_data: Path) -> None:
    """Local stamps: on the autumn day four stamps come twice, on the spring day four are absent."""
    zone, seen, reads = "America/Los_Angeles", set(), {}
    total = 0
    for r in read_csv(shared_data / "pge_d202_csv" / "D202.csv"):
        local = datetime.strptime(f"{r['DATE']} {r['START TIME']}", "%m/%d/%Y %H:%M").replace(tzinfo=ZoneInfo(zone))
        at = int(local.replace(fold=1 if local in seen else 0).timestamp())
        seen.add(local)
        reads[at] = micros(r["USAGE"])
        total += reads[at]
    assert total == micros("8580.72")
    rows = days_of(reads, zone, 900, "d202")
    assert {len(r.values) for r in rows} == {92, 96, 100}
    check(rows, total)


def test_hours_of_a_home_over_three_years(shared_data: Path) -> None:
    standard, reads = ZoneInfo("Etc/GMT+8"), {}
    for r in read_csv(shared_data / "hue_residential1" / "Residential_1.csv"):
        if r["energy_kWh"]:
            begin = datetime.strptime(r["date"], "%m/%d/%Y").replace(tzinfo=standard)
            reads[int(begin.timestamp()) + int(r["hour"]) * 3600] = micros(r["energy_kWh"])
    assert len(reads) > 29_000
    rows = days_of(reads, "America/Vancouver", 3600, "hue")
    assert {len(r.values) for r in rows} == {23, 24, 25}
    check(rows, sum(reads.values()))


def test_half_hours_of_many_customers_with_gaps(shared_data: Path) -> None:
    standard = ZoneInfo("Etc/GMT-10")
    reads: dict[str, dict[int, int]] = defaultdict(dict)
    for r in read_csv(shared_data / "sgsc_half_hourly" / "sgsc_interval_readings.csv.gz"):
        if len(reads) < 6 or r["CUSTOMER_ID"] in reads:
            if len(reads) == 6 and r["CUSTOMER_ID"] not in reads:
                break
            at = int(datetime.fromisoformat(r["READING_DATETIME"]).replace(tzinfo=standard).timestamp())
            reads[r["CUSTOMER_ID"]][at] = micros(r["GENERAL_SUPPLY_KWH"])
    rows = [row for device, of in reads.items() for row in days_of(of, "Australia/Sydney", 1800, device)]
    rows.sort(key=lambda r: r.day)
    hub = check(rows, sum(sum(of.values()) for of in reads.values()))
    assert {b["condition"] for b in hub.sent} >= {100_000, 500_000}  # gaps are told
    assert len(hub.fold.state.tables["now-3-3"]) == len(reads)


@pytest.mark.parametrize("column", ["energy_heat_kwh", "volume_flow_m3"])
def test_hourly_registers_of_a_heat_meter(shared_data: Path, column: str) -> None:
    """Three years of hourly cumulative readings: months telescope to the whole."""
    zone, rng = "Europe/Copenhagen", random.Random(3)
    reads = {
        int(datetime.fromisoformat(r["time_rounded"]).timestamp()): micros(r[column])
        for r in read_csv(shared_data / "heat_danish" / "processed_final_data_sample.csv")
        if r[column]
    }
    times, hub, at = sorted(reads), Hub(), 0
    while at < len(times):
        chunk = times[at : at + rng.choice([1, 24, 24, 500])]
        at += len(chunk)
        late = [chunk.pop(rng.randrange(len(chunk)))] if len(chunk) > 2 else []
        for some in (chunk, late):
            if some:
                hub.give(Row(0, [reads[t] for t in some], times=some, seconds=0, channel=column, unit="kWh", zone=zone, dials=9))
    hub.close()
    found = {b["period_start"]: int(b["quantity"] * MICRO) for b in hub.latest().values() if b["kind"] == "scalar-consumption"}
    expected = {}
    for index, t in enumerate(times):
        day = (datetime.fromtimestamp(t - 1, UTC).astimezone(ZoneInfo(zone)).date() - EPOCH).days
        begin, end = slow_month(zone, day)
        base, last = bisect_right(times, begin.timestamp()) - 1, bisect_right(times, end.timestamp()) - 1
        if index == last:
            expected[begin] = reads[times[last]] - reads[times[max(base, 0)]]
    assert {k: v for k, v in found.items() if v} == {k: v for k, v in expected.items() if v}
    assert sum(found.values()) == reads[times[-1]] - reads[times[0]]
    days = {(d["day"], d["version"]): d["lines"][""] for d in hub.days}
    newest = dict(sorted(days))
    assert sum(days[key] for key in newest.items()) == reads[times[-1]] - reads[times[0]]
    assert timedelta(days=1000) < timedelta(days=len(newest)) < timedelta(days=1100)
