"""Every real year there is, against another library: time of use and demand as Polars finds them, to the last millionth."""

from __future__ import annotations

import csv
import gzip
import zipfile
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, localcontext
from io import TextIOWrapper
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from schemas.conditions import REGULAR, REPORTED_MISSING
from schemas.topology.usage import UsageSettings
from streams import calendar
from tests.determinants.kit import EPOCH, Hub, Row, slots

pytestmark = pytest.mark.shared_data
MICRO = 1_000_000
HOUR = 3600
RULES: list[dict[str, Any]] = [
    {"id": "interval-data", "as": "energy"},
    {"id": "tou-mapped-usage", "as": "by_tou", "curve": "energy"},
    {"id": "block-demand", "as": "block", "curve": "energy", "window": "60m"},
    {"id": "block-demand", "as": "peaks", "curve": "energy", "window": "60m", "by": "three-part"},
]


@dataclass(frozen=True)
class Series:
    """A channel: what it read, by UTC second at which the interval begins, in millionths."""

    name: str
    zone: str
    seconds: int
    reads: dict[int, int]
    unit: str = "kWh"


def micros(text: str) -> int:
    return round(Decimal(text) * MICRO)


def table(path: Path) -> Iterator[dict[str, str]]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open(encoding="utf-8-sig") as file:
        yield from csv.DictReader(file)


def stamp(text: str, zone: str) -> int:
    """A stamp that has its offset, or is in a zone's standard time."""
    moment = datetime.fromisoformat(text.replace(".0000000", ""))
    return int((moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(zone))).timestamp())


def in_order(values: list[int], first: str, seconds: int) -> dict[int, int]:
    begin = stamp(first, "UTC")
    return {begin + i * seconds: value for i, value in enumerate(values)}


# --- where the years are -------------------------------------------------------------------------------------------------------------


def sgsc(folder: Path) -> Iterator[Series]:
    reads: dict[str, dict[int, int]] = defaultdict(dict)
    for r in table(folder / "sgsc_half_hourly" / "sgsc_interval_readings.csv.gz"):
        reads[r["CUSTOMER_ID"]][stamp(r["READING_DATETIME"], "Etc/GMT-10")] = micros(r["GENERAL_SUPPLY_KWH"])
    yield from (Series(name, "Australia/Sydney", 1800, own) for name, own in reads.items())


def london(folder: Path) -> Iterator[Series]:
    reads = {stamp(r["DateTime"], "UTC"): r["KW"] for r in table(folder / "lcl_mac000002" / "MAC000002.csv")}
    yield Series("MAC000002", "Europe/London", 1800, {at: micros(v) for at, v in reads.items() if at % 1800 == 0 and v[:1].isdigit()})


def ausgrid(folder: Path) -> Iterator[Series]:
    rows = list(table(folder / "ausgrid_customer12" / "data_2011-2012.csv"))
    for channel in ("GC", "GG"):
        reads = {stamp(r[""], "Etc/GMT-10"): micros(str(round(Decimal(r[channel]), 3))) for r in rows}
        yield Series(channel, "Australia/Sydney", 1800, reads)


def bdg2(folder: Path) -> Iterator[Series]:
    rows = list(table(folder / "bdg2_sample" / "bdg2_hourly_sample.csv"))
    for name in ("building_1", "building_2"):
        yield Series(name, "America/New_York", HOUR, {stamp(r["timestamp"], "Etc/GMT+5"): micros(r[name]) for r in rows})


def fontana(folder: Path) -> Iterator[Series]:
    for path in sorted((folder / "citylearn_2022").glob("Building_*.csv")):
        values = [micros(r["non_shiftable_load"]) for r in table(path)]
        yield Series(path.stem, "America/Los_Angeles", HOUR, in_order(values, "2016-07-31T23:00-08:00", HOUR))


def steel(folder: Path) -> Iterator[Series]:
    values = [micros(r["Usage_kWh"]) for r in table(folder / "steel_15min" / "Steel_industry_data.csv")]
    yield Series("steel", "Asia/Seoul", 900, in_order(values, "2018-01-01T00:00+09:00", 900))


def hue(folder: Path) -> Iterator[Series]:
    rows = table(folder / "hue_residential1" / "Residential_1.csv")
    reads = {
        stamp("{2}-{0:0>2}-{1:0>2}".format(*r["date"].split("/")), "Etc/GMT+8") + int(r["hour"]) * HOUR: micros(r["energy_kWh"])
        for r in rows
        if r["energy_kWh"]
    }
    yield Series("hue", "America/Vancouver", HOUR, reads)


def opendsm(folder: Path) -> Iterator[Series]:
    for path in sorted((folder / "opendsm_samples").glob("*hourly*.csv.gz")):
        zone = "America/Chicago" if path.name.startswith("il") else "Europe/London"
        reads = {stamp(r["start"], "UTC"): micros(r["value"]) for r in table(path) if r["value"]}
        seconds = min(b - a for a, b in pairwise(sorted(reads)))
        yield Series(path.name.partition(".")[0], zone, seconds, reads, "kWh" if "electricity" in path.name else "therm")


# --- both ways -----------------------------------------------------------------------------------------------------------------------


def days_of(series: Series) -> list[Row]:
    """Local days; what is not there is missing inside, and not due before the first and behind the last."""
    first, last, seconds = min(series.reads), max(series.reads), series.seconds
    numbers = sorted({(datetime.fromtimestamp(at, UTC).astimezone(ZoneInfo(series.zone)).date() - EPOCH).days for at in series.reads})
    rows = []
    for day in numbers:
        start = int(calendar.start_of(series.zone, day))
        moments = [start + i * seconds for i in range(slots(series.zone, day, seconds))]
        codes = [REGULAR if m in series.reads else REPORTED_MISSING if first < m < last else 0 for m in moments]
        values = [series.reads.get(m, 0) for m in moments]
        rows.append(Row(day, values, codes, series.name, unit=series.unit, account=f"a-{series.name}", zone=series.zone, seconds=seconds))
    return rows


def expected(series: Series) -> dict[tuple[str, datetime, str], int]:
    """By what, month and period: sums, and the largest mean power of whole hours from local midnight."""
    at = pl.from_epoch("at", time_unit="s").dt.replace_time_zone("UTC").dt.convert_time_zone(series.zone)
    read = pl.DataFrame({"at": list(series.reads), "value": list(series.reads.values())}).sort("at").with_columns(local=at)
    read = read.with_columns(
        month=pl.col("local").dt.truncate("1mo"),
        hour=pl.col("at") - (pl.col("at") - pl.col("local").dt.truncate("1d").dt.epoch("s")) % HOUR,
        tou=_period(pl.col("local")),
    )
    found = {("energy", month, ""): value for month, value in _rows(read.group_by("month").agg(pl.col("value").sum()))}
    sums = read.group_by("month", "tou").agg(pl.col("value").sum())
    found |= {("by_tou", month, tou): value for month, tou, value in _rows(sums)}
    hours = read.group_by("month", "hour").agg(pl.col("value").sum(), pl.len().alias("many"), pl.col("tou").first(), pl.col("at").min())
    whole = hours.filter((pl.col("many") == HOUR // series.seconds) & (pl.col("at") == pl.col("hour")))
    found |= {("block", month, ""): value for month, value in _rows(whole.group_by("month").agg(pl.col("value").max()))}
    by_tou = whole.sort("hour").group_by("month", "tou").agg(pl.col("value").max())
    return found | {("peaks", month, tou): value for month, tou, value in _rows(by_tou)}


def _period(local: pl.Expr) -> pl.Expr:
    hour = local.dt.hour()
    busy = local.dt.weekday() <= 5
    return (
        pl.when(busy & hour.is_between(15, 20)).then(pl.lit("peak"))
        .when(busy & (hour.is_between(7, 14) | (hour == 21))).then(pl.lit("shoulder"))
        .otherwise(pl.lit("offpeak"))
    )  # fmt: skip


def _rows(frame: pl.DataFrame) -> list[tuple[Any, ...]]:
    return [tuple(x.astimezone(UTC) if isinstance(x, datetime) else x for x in row) for row in frame.iter_rows()]


def usage(rules: list[dict[str, Any]]) -> UsageSettings:
    return UsageSettings.model_validate({"groups": [{"id": "g", "accounts": ["*"], "versions": [{"rules": rules}]}]})


def told(hub: Hub, device: str) -> dict[tuple[str, datetime, str], int]:
    """What usage and the channel's own determinants said of a series, which must agree."""
    found = {}
    for body in hub.usage_sent:
        if body["status"] == "sent" and body["account"] == f"a-{device}":
            for q in body["quantities"]:
                found[q["name"], body["period_start"], q["tou"]] = int(q["quantity"] * MICRO)
    for body in hub.latest().values():
        if body["device"] == device:
            name = "by_tou" if body["tou"] else "energy"
            if body["kind"].endswith("interval-consumption") and body["unit"] == "kWh":
                assert found[name, body["period_start"], body["tou"]] == int(body["quantity"] * MICRO)
    return {key: value for key, value in found.items() if value}


@pytest.mark.parametrize(("load", "months"), [(sgsc, 500), (london, 17), (ausgrid, 24), (bdg2, 18), (fontana, 200), (steel, 12), (hue, 40)])
def test_years_of_power(shared_data: Path, load: Callable[[Path], Iterator[Series]], months: int) -> None:
    hub, every = Hub(usage=usage(RULES)), list(load(shared_data))
    for series in every:
        rows = days_of(series)
        for first in range(0, len(rows), 400):
            hub.give(*rows[first : first + 400])
    hub.close()
    for series in every:
        assert told(hub, series.name) == {key: value for key, value in expected(series).items() if value}, series.name
    assert sum(body["status"] == "sent" for body in hub.usage_sent) >= months
    total = sum(body["quantity"] for body in hub.latest().values() if body["kind"] == "interval-consumption")
    assert total == Decimal(sum(sum(series.reads.values()) for series in every)).scaleb(-6)


def test_years_of_power_and_gas_of_illinois_and_britain(shared_data: Path) -> None:
    rules = [{**rule, "unit": "therm"} if rule["id"] == "interval-data" else rule for rule in RULES[:1]]
    for series in opendsm(shared_data):
        kwh = series.unit == "kWh"
        hub = Hub(usage=usage(RULES if kwh else rules))
        hub.give(*days_of(series))
        hub.close()
        names = ("energy", "by_tou", "block", "peaks") if kwh else ("energy",)
        wanted = {key: value for key, value in expected(series).items() if value and key[0] in names}
        assert told(hub, series.name) == wanted, series.name


STEEL: list[dict[str, Any]] = [
    {"id": "interval-data", "as": "energy", "of": {"channels": ["P"]}},
    {"id": "interval-data", "as": "lag", "unit": "kvarh", "of": {"channels": ["Q+"]}},
    {"id": "interval-data", "as": "lead", "unit": "kvarh", "of": {"channels": ["Q-"]}},
    {"id": "block-demand", "as": "md", "curve": "energy", "window": "30m"},
    {"id": "rolling-demand", "as": "rolling", "curve": "energy", "window": "30m", "step": "15m"},
    {"id": "kva-demand", "as": "kva", "active": "energy", "reactive": "lag", "window": "30m"},
    {"id": "power-factor", "as": "pf", "active": "energy", "reactive": "lag"},
    {"id": "power-factor", "as": "pf_net", "active": "energy", "reactive": "lag", "leading": "lead", "sign": "net"},
    {"id": "load-factor", "as": "lf", "energy": "energy", "demand": "md"},
    {"id": "excess-kvarh", "as": "excess", "active": "energy", "reactive": "lag", "target_factor": "0.95"},
]


def test_a_year_of_a_steel_plant_with_its_reactive_energy(shared_data: Path) -> None:
    rows = list(table(shared_data / "steel_15min" / "Steel_industry_data.csv"))
    columns = {
        "P": "Usage_kWh", "Q+": "Lagging_Current_Reactive_Power_kVarh", "Q-": "Leading_Current_Reactive_Power_kVarh",
    }  # fmt: skip
    series = {
        channel: Series("steel", "Asia/Seoul", 900, in_order([micros(r[column]) for r in rows], "2018-01-01T00:00+09:00", 900))
        for channel, column in columns.items()
    }
    hub = Hub(usage=usage(STEEL))
    for channel, one in series.items():
        hub.give(*[Row(**{**vars(r), "channel": channel, "unit": "kWh" if channel == "P" else "kvarh"}) for r in days_of(one)])
    hub.close()
    p, lag, lead = (list(one.reads.values()) for one in series.values())
    at, months = 0, 0
    with localcontext() as context:
        context.prec = 50
        for body in (body for body in hub.usage_sent if body["status"] == "sent"):
            size = int((body["period_end"] - body["period_start"]).total_seconds()) // 900
            a, b, c = (values[at : at + size] for values in (p, lag, lead))
            at, months = at + size, months + 1
            active, lagging, leading = (Decimal(sum(part)) / MICRO for part in (a, b, c))
            md = max(Decimal(a[i] + a[i + 1]) * 2 / MICRO for i in range(0, size, 2))
            wanted = {
                "energy": active, "lag": lagging, "lead": leading, "md": md,
                "rolling": max(Decimal(a[i] + a[i + 1]) * 2 / MICRO for i in range(size - 1)),
                "kva": max((Decimal(a[i] + a[i + 1]) ** 2 + Decimal(b[i] + b[i + 1]) ** 2).sqrt() * 2 / MICRO for i in range(0, size, 2)),
                "pf": active / (active**2 + lagging**2).sqrt(), "pf_net": active / (active**2 + (lagging - leading) ** 2).sqrt(),
                "lf": active / (md * size / 4),
                "excess": max(Decimal(0), lagging - active * (1 - Decimal("0.95") ** 2).sqrt() / Decimal("0.95")),
            }  # fmt: skip
            found = {q["name"]: q["quantity"] for q in body["quantities"]}
            assert found == {name: value.quantize(Decimal("0.000001")) for name, value in wanted.items()}
    assert (months, at) == (12, len(p))


# --- registers -----------------------------------------------------------------------------------------------------------------------


def water(folder: Path, most: int) -> dict[str, dict[int, int]]:
    """Cumulative litres by UTC second; local stamps, the later of two alike being the second time round."""
    reads: dict[str, dict[int, int]] = defaultdict(dict)
    seen = set()
    with zipfile.ZipFile(folder / "water_daiad" / "swm_trialA.zip") as archive, archive.open("swm_trialA.csv") as file:
        for key, text, value, _ in csv.reader(TextIOWrapper(file), delimiter=";"):
            if key == "user key" or (key not in reads and len(reads) == most):
                continue
            local = datetime.strptime(text, "%d/%m/%Y %H:%M:%S").replace(tzinfo=ZoneInfo("Europe/Madrid"))
            again = (key, text) in seen
            seen.add((key, text))
            reads[key][int(local.replace(fold=int(again)).timestamp())] = micros(value)
    return reads


def heat(folder: Path) -> dict[str, dict[int, int]]:
    rows = list(table(folder / "heat_danish" / "processed_final_data_sample.csv"))
    names = ("energy_heat_kwh", "volume_flow_m3")
    return {name: {stamp(r["time_rounded"], "UTC"): micros(r[name]) for r in rows if r[name]} for name in names}


@pytest.mark.parametrize(("kind", "zone", "unit"), [("water", "Europe/Madrid", "L"), ("heat", "Europe/Copenhagen", "kWh")])
def test_years_of_registers(shared_data: Path, kind: str, zone: str, unit: str) -> None:
    """Months of registers that never go back: by channel and by subscription the difference of the readings around local midnights."""
    known = water(shared_data, 12) if kind == "water" else heat(shared_data)
    rules = [{"id": "scalar-details", "as": "used", "unit": unit, "readings": False}]
    hub = Hub(usage=usage(rules))
    rising = {name: own for name, own in known.items() if all(a <= b for a, b in pairwise(own[t] for t in sorted(own)))}
    assert len(rising) >= 2
    for name, own in rising.items():
        times = sorted(own)
        for first in range(0, len(times), 700):
            part = times[first : first + 700]
            hub.give(Row(0, [own[t] for t in part], [], name, unit=unit, account=f"a-{name}", zone=zone, seconds=0, times=part, dials=9))
    hub.close()
    for name, own in rising.items():
        wanted = _months(own, zone)
        by_channel = {
            body["period_start"]: int(body["quantity"] * MICRO)
            for body in hub.latest().values()
            if body["device"] == name and body["kind"] == "scalar-consumption"
        }
        by_usage = {
            body["period_start"]: int(body["quantities"][0]["quantity"] * MICRO)
            for body in hub.usage_sent
            if body["account"] == f"a-{name}" and body["status"] == "sent"
        }
        for found in (by_channel, by_usage):
            assert {k: v for k, v in found.items() if v} == {k: v for k, v in wanted.items() if v}, name


def _months(own: dict[int, int], zone: str) -> dict[datetime, int]:
    """By local month the last reading at or before its end less that at or before its begin (else the first there is)."""
    times, found = sorted(own), {}
    day = datetime.fromtimestamp(times[0] - 1, UTC).astimezone(ZoneInfo(zone)).date().replace(day=1)
    while True:
        after = (day + timedelta(days=32)).replace(day=1)
        begin, end = (_midnight(d, zone) for d in (day, after))
        base, last = bisect_right(times, begin) - 1, bisect_right(times, end) - 1
        found[datetime.fromtimestamp(begin, UTC)] = own[times[last]] - own[times[max(base, 0)]]
        if end >= times[-1]:
            return found
        day = after


def _midnight(day: date, zone: str) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone)).timestamp())
