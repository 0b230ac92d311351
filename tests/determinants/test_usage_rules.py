"""Usage rules against slow, independent calculations: years of real meters, clock changes, zones off by half hours."""

from __future__ import annotations

import csv
import gzip
import math
import random
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, getcontext
from fractions import Fraction
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import formula
from schemas.conditions import MISSING, REGULAR, SUSPECT
from schemas.topology.usage import UsageSettings
from streams import calendar
from streams.determinants.usage import checks, demand, energy, formulas, reactive, readings
from streams.determinants.usage.curve import Curve, Quality
from streams.determinants.usage.exact import root, scale
from tests.determinants.kit import EPOCH, THREE_PART, Hub, Row, day_number, slots, slow_period

getcontext().prec = 60
MICRO = 1_000_000
RULES: list[dict[str, Any]] = [
    {"id": "interval-data", "as": "energy"},
    {"id": "tou-mapped-usage", "as": "by_tou", "curve": "energy"},
    {"id": "block-demand", "as": "md60", "curve": "energy", "window": "60m"},
    {"id": "block-demand", "as": "md", "curve": "energy", "window": "60m", "by": "three-part"},
    {"id": "rolling-demand", "as": "rolling", "curve": "energy", "window": "60m", "step": "30m", "carry_in": True},
]


def usage(rules: list[dict[str, Any]] | None = None) -> UsageSettings:
    return UsageSettings.model_validate({"groups": [{"id": "g", "accounts": ["a*"], "versions": [{"rules": rules or RULES}]}]})


def rounded(value: Decimal) -> Decimal:
    return value.quantize(Decimal("0.000001"), ROUND_HALF_EVEN)


def slow_month(reads: dict[int, int], zone: str, seconds: int, begin: int, end: int) -> dict[str, Decimal]:
    """One interval after the other, with datetime and Decimal."""
    info, inside = ZoneInfo(zone), {at: v for at, v in reads.items() if begin <= at < end}
    found: dict[str, Decimal] = defaultdict(Decimal)
    windows: dict[int, list[int]] = defaultdict(list)
    for at, value in sorted(inside.items()):
        local = datetime.fromtimestamp(at, UTC).astimezone(info)
        amount = Decimal(value) / MICRO
        found["energy"] += amount
        found[f"by_tou {slow_period(THREE_PART, local)}"] += amount
        midnight = local.replace(hour=0, minute=0, second=0, fold=0).astimezone(UTC)
        windows[int(midnight.timestamp()) + int(at - midnight.timestamp()) // 3600 * 3600].append(value)
    best: dict[str, Decimal] = defaultdict(Decimal)
    for start, values in windows.items():
        if len(values) == 3600 // seconds:
            power = rounded(Decimal(sum(values)) / MICRO)
            period = slow_period(THREE_PART, datetime.fromtimestamp(start, UTC).astimezone(info))
            best["md60"], best[f"md {period}"] = max(best["md60"], power), max(best[f"md {period}"], power)
    step = max(1800, seconds)
    start = begin - 3600 + step if seconds <= 1800 else begin
    while start + 3600 <= end:
        part = [reads.get(start + k * seconds) for k in range(3600 // seconds)]
        if None not in part:
            best["rolling"] = max(best["rolling"], rounded(Decimal(sum(part)) / MICRO))  # type: ignore[arg-type]
        start += step
    return {**found, **best}


def days_of(reads: dict[int, int], zone: str, seconds: int) -> list[Row]:
    days: dict[int, Row] = {}
    first, last = min(reads), max(reads)
    for at in sorted(reads):
        day = (datetime.fromtimestamp(at, UTC).astimezone(ZoneInfo(zone)).date() - EPOCH).days
        if day not in days:
            start, size = int(calendar.start_of(zone, day)), slots(zone, day, seconds)
            moments = [start + i * seconds for i in range(size)]
            codes = [REGULAR if m in reads else MISSING if first < m < last else 0 for m in moments]
            days[day] = Row(day, [reads.get(m, 0) for m in moments], codes, account="a1", zone=zone, seconds=seconds)
    return list(days.values())


def compare(reads: dict[int, int], zone: str, seconds: int) -> int:
    """Every month of a meter: hub against the slow way; how many there were."""
    rules = [{**rule, "step": f"{max(1800, seconds)}s"} if rule["id"] == "rolling-demand" else rule for rule in RULES]
    hub = Hub(usage=usage(rules))
    rows = days_of(reads, zone, seconds)
    rng = random.Random(7)
    at = 0
    while at < len(rows):
        size = rng.choice([3, 40, 200])
        hub.give(*rows[at : at + size])
        at += size
    hub.close()
    sent = [body for body in hub.usage_sent if body["status"] == "sent"]
    total = Decimal(0)
    for body in sent:
        told = {f"{q['name']} {q['tou']}".strip(): q["quantity"] for q in body["quantities"]}
        begin, end = int(body["period_start"].timestamp()), int(body["period_end"].timestamp())
        slow = {k: v for k, v in slow_month(reads, zone, seconds, begin, end).items() if v}
        assert {k: v for k, v in told.items() if v} == slow
        own = {
            f"by_tou {b['tou']}".removesuffix(" "): b["quantity"]
            for b in hub.latest().values()
            if b["period_start"] == body["period_start"]
        }
        own["energy"] = own.pop("by_tou", Decimal(0))
        assert {k: v for k, v in own.items() if v} == {k: v for k, v in slow.items() if k in ("energy", *own)}
        total += told["energy"]
    assert total == Decimal(sum(reads.values())) / MICRO
    return len(sent)


def read_csv(path: Path) -> Iterator[dict[str, str]]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        yield from csv.DictReader(file)


@pytest.mark.shared_data
def test_a_year_of_a_solar_home(shared_data: Path) -> None:
    standard = ZoneInfo("Etc/GMT-10")
    reads = {
        int(datetime.fromisoformat(r[""]).replace(tzinfo=standard).timestamp()): int(round(Decimal(r["GC"]), 3) * MICRO)
        for r in read_csv(shared_data / "ausgrid_customer12" / "data_2011-2012.csv")
    }
    assert compare(reads, "Australia/Sydney", 1800) >= 12


@pytest.mark.shared_data
def test_quarter_hours_of_a_year(shared_data: Path) -> None:
    zone, seen, reads = "America/Los_Angeles", set(), {}
    for r in read_csv(shared_data / "pge_d202_csv" / "D202.csv"):
        local = datetime.strptime(f"{r['DATE']} {r['START TIME']}", "%m/%d/%Y %H:%M").replace(tzinfo=ZoneInfo(zone))
        reads[int(local.replace(fold=1 if local in seen else 0).timestamp())] = int(Decimal(r["USAGE"]) * MICRO)
        seen.add(local)
    assert compare(reads, zone, 900) >= 12


@pytest.mark.shared_data
def test_hours_of_three_years(shared_data: Path) -> None:
    standard, reads = ZoneInfo("Etc/GMT+8"), {}
    for r in read_csv(shared_data / "hue_residential1" / "Residential_1.csv"):
        if r["energy_kWh"]:
            begin = datetime.strptime(r["date"], "%m/%d/%Y").replace(tzinfo=standard)
            reads[int(begin.timestamp()) + int(r["hour"]) * 3600] = int(Decimal(r["energy_kWh"]) * MICRO)
    assert compare(reads, "America/Vancouver", 3600) >= 36


@pytest.mark.parametrize("seconds", [900, 1800])
@pytest.mark.parametrize(
    ("zone", "first", "days"),
    [
        ("Europe/Berlin", "2026-03-27", 5), ("Europe/Berlin", "2026-10-23", 5), ("America/New_York", "2026-03-06", 5),
        ("America/New_York", "2026-10-30", 5), ("Australia/Sydney", "2026-04-03", 5), ("Australia/Sydney", "2026-10-02", 5),
        ("Asia/Kolkata", "2026-05-30", 4), ("Asia/Kathmandu", "2026-05-30", 4), ("America/St_Johns", "2026-03-06", 5),
        ("America/St_Johns", "2026-10-30", 5), ("Australia/Adelaide", "2026-04-03", 4), ("Australia/Adelaide", "2026-10-02", 4),
        ("Australia/Lord_Howe", "2026-04-03", 4), ("Australia/Lord_Howe", "2026-10-02", 4),
    ],
)  # fmt: skip
def test_clock_changes_and_half_hour_zones(zone: str, first: str, days: int, seconds: int) -> None:
    rng, reads = random.Random(zone + first), {}
    for day in range(day_number(first), day_number(first) + days):
        start = int(calendar.start_of(zone, day))
        for slot in range(slots(zone, day, seconds)):
            reads[start + slot * seconds] = rng.randrange(0, 3 * MICRO)
    assert compare(reads, zone, seconds) >= 1


# --- single rules ------------------------------------------------------------------------------------------------------------------


def curve(values: list[int], codes: list[int] | None = None, seconds: int = 900, unit: str = "kWh") -> Curve:
    return Curve(1_772_319_600, seconds, unit, np.array(values, np.int64), np.array(codes or [REGULAR] * len(values), np.int32))


VALUES = st.lists(st.integers(0, 10**10), min_size=4, max_size=64).filter(lambda v: len(v) % 4 == 0)


@given(VALUES, VALUES)
def test_kva_is_the_largest_of_roots_and_exact(p: list[int], q: list[int]) -> None:
    size = min(len(p), len(q))
    found = demand.kva_demand(curve(p[:size]), curve(q[:size], unit="kvarh"), 1800)
    roots = [
        (Decimal(sum(p[i : i + 2])) ** 2 + Decimal(sum(q[i : i + 2])) ** 2).sqrt() * 2 for i in range(0, size, 2)
    ]  # fmt: skip
    assert abs(Decimal(found.amount) - max(roots)) <= Decimal("0.5")


@given(st.integers(0, 10**16), st.integers(-(10**16), 10**16))
def test_power_factor_and_excess_are_exact(active: int, other: int) -> None:
    square = Decimal(active) ** 2 + Decimal(other) ** 2
    expected = Decimal(active) / square.sqrt() if active else Decimal(1)
    assert abs(Decimal(reactive.power_factor(active, other)) / MICRO - expected) <= Decimal("0.0000005")
    target = Decimal("0.95")
    allowed = Decimal(active) * (1 - target**2).sqrt() / target
    assert abs(Decimal(reactive.excess_kvarh(active, other, 950_000)) - max(Decimal(0), other - allowed)) <= 1


def test_a_lump_makes_no_maximum() -> None:
    lump = curve([250_000] * 4 + [40_000_000, 0, 0, 0], [REGULAR] * 4 + [SUSPECT] + [REGULAR] * 3)
    assert demand.block_demand(lump, 1800).amount == 1_000_000
    assert demand.rolling_demand(lump, 1800, 900).amount == 1_000_000
    assert demand.block_demand(curve([1] * 4, [MISSING] * 4), 1800).quality.condition == MISSING


def test_coincident_peaks_are_read_at_their_moment() -> None:
    mine = curve([100_000, 200_000, 900_000, 800_000, 100_000, 100_000])
    assert demand.coincident_peak(mine, 1800, [mine.start + 1800]).amount == 600_000
    assert demand.coincident_peak(mine, 1800, [mine.start + 1800, mine.start + 3600]).amount == 2_000_000
    assert demand.coincident_peak(mine, 1800, [mine.end + 1800]).quality.condition == MISSING


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9)), min_size=1, max_size=50))
def test_interval_netting_keeps_the_balance_and_is_never_less_than_period_netting(pairs: list[tuple[int, int]]) -> None:
    d, r = (curve(list(side)) for side in zip(*pairs, strict=True))
    out, back = energy.net_interval(d, r)
    assert out.amount - back.amount == d.amount - r.amount
    billed, carried = energy.net_period(d.amount, r.amount, 0)
    assert out.amount >= billed
    assert billed - carried == d.amount - r.amount
    assert min(billed, carried) == 0


@given(st.integers(-(10**12), 10**12), st.lists(st.integers(0, 10**12), min_size=1, max_size=6, unique=True))
def test_tiers_add_up(amount: int, bounds: list[int]) -> None:
    parts = energy.interval_tier(amount, sorted(bounds))
    assert sum(parts) == amount
    assert all(part >= 0 for part in parts) or amount < 0


@given(st.integers(-(10**15), 10**15), st.lists(st.integers(0, 1000), min_size=1, max_size=200))
def test_a_profile_spreads_everything(amount: int, weights: list[int]) -> None:
    assert int(energy.profile_accumulation(amount, np.array(weights)).sum()) == amount


def test_gas_becomes_energy() -> None:
    # 15 °C, 22 mbar over 1000 mbar: (273.15 / 288.15) · (1022 / 1013.25) = 0.9561 to four decimals
    assert energy.volume_factor(1_022_000_000, 15_000_000) == 956_100
    found = energy.gas_energy(np.array([100_000_000, 50_000_000]), np.array([956_100] * 2), np.array([11_200_000, 11_300_000]))
    assert found.tolist() == [1_070_832_000, 540_196_500]
    with pytest.raises(ValueError, match="above zero"):
        energy.volume_factor(1, -273_150_000)


def read(at: int, value: float, condition: int = REGULAR, multiplier: int = MICRO) -> readings.Read:
    return readings.Read(at, round(value * MICRO), condition, multiplier)


def test_registers_roll_over_and_change_their_multiplier() -> None:
    rolled = readings.scalar_details([read(0, 99_990), read(50, 99_999), read(100, 3)], 0, 100, 5, 50)
    assert rolled.amount == 13 * MICRO
    changed = readings.scalar_details([read(0, 10), read(50, 20, multiplier=2 * MICRO), read(100, 25, multiplier=3 * MICRO)], 0, 100, 5, 50)
    assert changed.amount == 35 * MICRO
    broken = readings.scalar_details([read(0, 500), read(100, 100)], 0, 100, 0, 50)
    assert (broken.amount, broken.quality.condition) == (0, 10_000)
    assert readings.scalar_details([read(100, 5)], 0, 100, 5, 50).quality.condition == MISSING


def test_daily_scalars_never_estimate() -> None:
    day = 86_400
    reads = [read(0, 10), read(15 * day, 999_999), read(30 * day, 40)]
    assert readings.daily_scalar(reads, 0, 30 * day, 6, 50).amount == 30 * MICRO
    reads[-1] = read(30 * day, 40, 400_000)
    assert readings.daily_scalar(reads, 0, 30 * day, 6, 50).quality.condition == MISSING


@given(st.integers(0, 10**30), st.integers(1, 10**12))
@settings(max_examples=300)
def test_roots_are_the_nearest_whole_numbers(amount: int, by: int) -> None:
    found = root(amount, by)
    assert (2 * found - 1) ** 2 * by <= 4 * amount or found == 0
    assert 4 * amount <= (2 * found + 1) ** 2 * by
    assert abs(found - math.isqrt(amount // by)) <= 1


@given(st.lists(st.integers(-(10**17), 10**17), max_size=20), st.fractions(max_denominator=10**6).filter(lambda f: abs(f) < 20))
def test_scaling_rounds_each_value_once(values: list[int], ratio: Fraction) -> None:
    assert scale(np.array(values, np.int64), ratio).tolist() == [round(v * ratio) for v in values]


def around(**names: Any) -> formulas.Surroundings:
    curves = {n: v for n, v in names.items() if isinstance(v, Curve)}
    numbers = {n: (v, Quality(REGULAR, 1, 1, 0)) for n, v in names.items() if not isinstance(v, Curve)}
    return formulas.Surroundings(curves, numbers, lambda _: 2 * MICRO, lambda _, c: np.full(len(c), 2 * MICRO), 7200, 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a + 1.5", Fraction(7, 2)), ("max(a, 3) * 2", 6), ("where(a > 1, 10, 20)", 10), ("sum(c)", 10), ("max(c)", 4),
        ("sum(max(c - 2, 0))", 3), ("sum(where(c >= 2 and c < 4, c, 0))", 5), ("count(c > 2)", 2), ("sqrt(a + 2)", 2),
        ("sum(c * c)", 30), ("sum(c / c)", 4), ("hours() + days()", 3), ("table(t) * a", 4), ("sum(c * daily(t))", 20),
        ("round(a / 3, 2)", Fraction(67, 100)), ("-a + 2", 0), ("max(power(c))", 16), ("mean(c)", Fraction(5, 2)), ("count(c)", 4),
    ],
)  # fmt: skip
def test_formulas(text: str, expected: Fraction) -> None:
    value, _, quality = formulas.evaluate(formula.parse(text), around(a=2 * MICRO, c=curve([MICRO, 2 * MICRO, 3 * MICRO, 4 * MICRO])))
    assert value == expected
    assert quality.condition in (0, REGULAR)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')", "a.b", "a[0]", "lambda: 1", "a if b else c", "1e9", "0x10", "f(a)", "max()", "a ** 9", "'x'", "a; b", "(" * 400,
        "a = 1", "[1]", "max(a, key=b)", "a < b < c", "é + 1", "round(a, 9)", "table(1)", "1" * 600, "+".join(["a"] * 240), "True",
    ],
)  # fmt: skip
def test_what_is_no_formula_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 the words differ
        formula.parse(text)


def test_materiality_and_rounding() -> None:
    assert not checks.material(1_009_000, MICRO, 10_000, 0)
    assert checks.material(1_011_000, MICRO, 10_000, 0)
    assert not checks.material(1_011_000, MICRO, 10_000, 2 * MICRO)  # 2 %
    assert checks.round_and_adjust(10_500_000, 0, ()) == (10_000_000, -500_000)
    assert checks.round_and_adjust(10_000_000, 0, [3_400_000, 3_400_000, 3_200_000]) == (9_000_000, -1_000_000)
    assert timedelta(0) == timedelta()


MULTI: list[dict[str, Any]] = [
    {"id": "interval-data", "as": "gas", "unit": "m3"},
    {"id": "gas-energy", "as": "gas_energy", "from": "gas", "calorific": "hs", "pressure": "p", "temperature": "t"},
    {"id": "scalar-details", "as": "heat", "unit": "GJ", "readings": False},
    {"id": "unit-conversion", "as": "heat_mwh", "from": "heat", "unit": "MWh"},
    {"id": "interval-data", "as": "power"},
    {"id": "math", "as": "all", "unit": "kWh", "formula": "sum(gas_energy) + heat_mwh * 1000 + sum(power)"},
    {"id": "round-and-adjust", "target": "all", "decimals": 0},
]


def test_a_subscription_of_gas_heat_and_power_with_factors_by_date() -> None:
    day = day_number("2026-03-10")
    tables = {
        "hs": [{"value": "11.2"}, {"from": "2026-03-11", "value": "11.3"}], "p": [{"value": "1022"}], "t": [{"value": "15"}],
    }  # fmt: skip
    group = {"id": "g", "accounts": ["a*"], "versions": [{"rules": MULTI}]}
    hub = Hub(usage=UsageSettings.model_validate({"groups": [group], "tables": tables}))
    for number, volume in ((day, 100), (day + 1, 50)):
        hub.give(Row(number, [volume * MICRO] + [0] * 23, device="g1", unit="m3", seconds=3600))
        hub.give(Row(number, [MICRO] * 24, device="e1", seconds=3600))
    start = int(calendar.start_of("Europe/Berlin", day))
    hub.give(Row(day, [0, 2 * MICRO], device="h1", unit="Gcal", seconds=0, times=[start + 60, start + 7200], dials=5))
    hub.close()
    told = {q["name"]: q["quantity"] for q in hub.usage_sent[-1]["quantities"]}
    assert told["gas"] == 150
    assert told["gas_energy"] == Decimal("1611.0285")
    assert told["heat"] == Decimal("8.3736")  # 2 Gcal
    assert told["heat_mwh"] == Decimal("2.326")
    assert told["all"] == 3985  # 1611.0285 + 2326 + 48, to whole kWh
