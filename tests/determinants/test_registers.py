"""Scalar consumption: differences, rollover, resets, late and corrected readings, days."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.block import EXCEPTION, FINALIZED
from schemas.conditions import EXT_ESTIMATE, INVALID, REGULAR, REPORTED_MISSING, SUSPECT
from streams.determinants.registers import Reading, consumption
from tests.determinants.kit import EPOCH, Hub, Row, slow_month

ZONE = "Europe/Berlin"
UNIT = 1_000_000


def moment(text: str, zone: str = ZONE) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp())


def row(*reads: tuple[str | int, int], **extra: Any) -> Row:
    """Register reads as local time (or UTC seconds) and whole units."""
    zone = extra.get("zone", ZONE)
    times = [at if isinstance(at, int) else moment(at, zone) for at, _ in reads]
    day = (datetime.fromtimestamp(times[0], ZoneInfo(zone)).date() - EPOCH).days
    return Row(day, [v * UNIT for _, v in reads], times=times, seconds=0, channel="R1", **extra)


def behind(readings: Mapping[str, tuple[int | None, int | None]], days: list[str], **extra: Any) -> dict[str, Any]:
    """A RegisterDays record: readings as they were and are, by local time, in whole units."""
    told = [
        {"now": bool(now), "at": moment(at, ZONE), "value": (pair[now] or 0) * UNIT, "condition": REGULAR, "multiplier": 0,
         "service_point": "sp1"}
        for now in (0, 1) for at, pair in readings.items() if pair[now] is not None
    ]  # fmt: skip
    numbers = [(datetime.fromisoformat(day).date() - EPOCH).days for day in days]
    fixed = {"device": "m1", "channel": "R1", "unit": "kWh", "account": "a1", "zone": ZONE, "direction": 0, "version": 4}
    return fixed | extra | {"days": numbers, "readings": told}


def months(hub: Hub, kind: str = "scalar-consumption") -> dict[str, tuple[Decimal, int, str]]:
    """Quantity, condition and status by the month a period mostly is in."""
    return {
        (b["period_start"] + timedelta(days=15)).strftime("%Y-%m"): (b["quantity"], b["condition"], b["status"])
        for b in hub.latest().values()
        if b["kind"] == kind
    }


def fine(number: int | str) -> tuple[Decimal, int, str]:
    return Decimal(number), REGULAR, "released"


def test_a_period_runs_from_the_last_reading_before_it_to_its_last() -> None:
    hub = Hub()
    hub.give(row(("2024-01-20T10:00", 100)), row(("2024-01-31T23:00", 110), device="m2"))
    hub.give(row(("2024-02-10T00:00", 130), ("2024-02-29T12:00", 150)), row(("2024-03-31T12:00", 190)))
    hub.close()
    assert months(hub) == {"2024-02": fine(50), "2024-03": fine(40)}
    assert months(hub, "scalar-reading")["2024-02"] == fine(150)
    body = next(b for b in hub.sent if b["kind"] == "scalar-consumption")
    assert (body["slots"], body["actual"], body["estimated"], body["tou"]) == (2, 2, 0, "")


def test_a_reading_at_midnight_ends_the_period_before() -> None:
    hub = Hub()
    hub.give(row(("2024-01-01T00:00", 100)), row(("2024-02-01T00:00", 130)), row(("2024-03-01T00:00", 145)))
    hub.close()
    assert months(hub) == {"2024-01": fine(30), "2024-02": fine(15)}
    assert months(hub, "scalar-reading") == {"2023-12": fine(100), "2024-01": fine(130), "2024-02": fine(145)}


def test_months_without_readings_fall_to_the_next_one_with_any() -> None:
    hub = Hub()
    hub.give(row(("2023-01-15T00:30", 100)), row(("2024-06-15T00:30", 900)), row(("2024-07-15T00:30", 950)))
    hub.close()
    assert months(hub) == {"2024-06": fine(800), "2024-07": fine(50)}


def test_it_is_sent_on_the_first_tick_after_the_end_and_again_when_it_changes() -> None:
    hub = Hub()
    hub.give(row(("2024-01-20T10:00", 100), ("2024-01-25T10:00", 120)))
    hub.tick("2024-01-31T23:59:59")
    assert not hub.sent
    hub.tick("2024-02-01T00:00:00")  # 01:00 in Berlin
    assert [(b["kind"], b["version"]) for b in hub.sent] == [("scalar-reading", 1), ("scalar-consumption", 1)]
    hub.give(row(("2024-01-22T10:00", 110)))  # between: nothing changes
    hub.tick("2024-02-01T00:00:05")
    assert len(hub.sent) == 2
    hub.give(row(("2024-01-28T10:00", 126)), row(("2024-01-19T10:00", 90)))
    hub.tick("2024-02-01T00:00:09")
    assert len(hub.sent) == 2  # more may be coming
    hub.tick("2024-02-01T00:00:10")
    assert months(hub) == {"2024-01": fine(36)}
    assert [b["version"] for b in hub.sent] == [1, 1, 2, 2]


def test_a_corrected_last_reading_changes_the_next_period_too() -> None:
    hub = Hub()
    hub.give(row(("2024-01-20T10:00", 100), ("2024-01-31T10:00", 150)), row(("2024-02-20T10:00", 180)))
    hub.close()
    hub.give(row(("2024-01-31T10:00", 140), version=2, replaces=1))
    hub.close()
    assert months(hub) == {"2024-01": fine(40), "2024-02": fine(40)}


def test_rollover_and_multiplier() -> None:
    hub = Hub()
    hub.give(row(("2024-01-20T10:00", 99_990), ("2024-01-31T10:00", 3), dials=5, multiplier=2_500_000))
    hub.close()
    assert months(hub) == {"2024-01": fine("32.5")}


@pytest.mark.parametrize("dials", [0, 5])
def test_going_back_further_than_a_rollover_is_no_consumption(dials: int) -> None:
    hub = Hub()
    hub.give(row(("2024-01-20T10:00", 5000), ("2024-01-31T10:00", 3), dials=dials))
    hub.close()
    assert months(hub) == {"2024-01": (Decimal(0), INVALID, "held")}
    assert hub.days[-1]["state"] == EXCEPTION


def test_a_reset_between_two_readings_that_look_well_is_held() -> None:
    hub = Hub()
    hub.give(row(("2024-01-20T10:00", 1000), dials=5))
    hub.give(row(("2024-01-25T10:00", 0), dials=5))
    hub.give(row(("2024-01-31T10:00", 1200), dials=5))
    hub.close()
    assert months(hub) == {"2024-01": (Decimal(200), SUSPECT, "held")}
    hub.give(row(("2024-01-25T10:00", 1100), dials=5, version=2, replaces=1))
    hub.close()
    assert months(hub) == {"2024-01": fine(200)}


def test_a_reading_in_exception_holds_the_periods_it_is_in_until_it_comes_again() -> None:
    hub = Hub()
    hub.give(row(("2024-01-20T10:00", 1000)), row(("2024-01-31T10:00", 9000), conditions=[SUSPECT], state=EXCEPTION))
    hub.give(row(("2024-02-28T10:00", 9100)))
    hub.close()
    assert months(hub) == {"2024-01": (Decimal(8000), SUSPECT, "held"), "2024-02": (Decimal(100), SUSPECT, "held")}
    hub.give(row(("2024-01-31T10:00", 1050), version=2, replaces=1))
    hub.close()
    assert months(hub) == {"2024-01": fine(50), "2024-02": fine(8050)}


def test_more_doubts_than_can_be_noted_hold_for_good() -> None:
    hub = Hub()
    hub.give(row(("2024-01-01T10:00", 1000)))
    for day in range(2, 14):
        hub.give(row((f"2024-01-{day:02d}T10:00", 1000 + day), conditions=[SUSPECT], state=EXCEPTION))
    for day in range(2, 14):
        hub.give(row((f"2024-01-{day:02d}T10:00", 1000 + day), version=2, replaces=1))
    hub.give(row(("2024-01-31T10:00", 2000)))
    hub.close()
    assert months(hub) == {"2024-01": (Decimal(1000), SUSPECT, "held")}


def test_a_withdrawn_last_reading_leaves_no_consumption_until_another_comes() -> None:
    hub = Hub()
    hub.give(row(("2024-01-20T10:00", 100), ("2024-01-31T10:00", 150)), row(("2024-02-20T10:00", 180)))
    hub.give(row(("2024-01-31T10:00", 0), conditions=[REPORTED_MISSING], version=2, replaces=1))
    hub.close()
    assert months(hub) == {"2024-01": (Decimal(0), INVALID, "held"), "2024-02": fine(80)}
    hub.give(row(("2024-01-30T10:00", 148)))
    hub.close()
    assert months(hub) == {"2024-01": fine(48), "2024-02": fine(32)}


def test_estimated_readings_are_counted() -> None:
    hub = Hub()
    hub.give(row(("2024-01-20T10:00", 100), ("2024-01-31T10:00", 150), conditions=[REGULAR, EXT_ESTIMATE]))
    hub.close()
    body = next(b for b in hub.sent if b["kind"] == "scalar-consumption")
    assert (body["condition"], body["actual"], body["estimated"], body["status"]) == (EXT_ESTIMATE, 1, 1, "released")


def test_unusable_readings_alone_say_nothing() -> None:
    hub = Hub()
    hub.give(row(("2024-01-20T10:00", 0), ("2024-01-21T10:00", 0), conditions=[REPORTED_MISSING, INVALID]))
    hub.close()
    assert not hub.sent
    assert not hub.days


def test_readings_too_large_for_a_determinant_are_held() -> None:
    hub = Hub()
    big = row(("2024-01-20T10:00", 1), ("2024-01-21T10:00", 4 * 10**12))
    hub.give(big)
    hub.close()
    assert months(hub) == {"2024-01": (Decimal(0), INVALID, "held")}
    assert months(hub, "scalar-reading") == {"2024-01": (Decimal(0), INVALID, "held")}


def test_days_are_told_as_readings_come() -> None:
    hub = Hub()
    hub.give(row(("2024-01-20T00:00", 100), ("2024-01-20T12:00", 103)))
    hub.give(row(("2024-01-21T00:00", 107)))
    hub.give(row(("2024-01-22T00:00", 110)))
    hub.give(row(("2024-01-21T00:00", 106), version=2, replaces=1))
    after = {
        "2024-01-20T00:00": (100, 100),
        "2024-01-21T00:00": (107, 106),
        "2024-01-22T00:00": (110, 110),
    }
    hub.send("RegisterDays", behind(after, days=["2024-01-20", "2024-01-21"]))
    told = {}
    for day in hub.days:
        date = (EPOCH + timedelta(days=day["day"])).isoformat()
        before = told.get(date)
        assert (day["seconds"], day["map"], day["replaces"]) == (0, "", before[1] if before else 0)
        told[date] = (day["lines"], day["version"])
    assert told == {"2024-01-20": ({"": 6 * UNIT}, 3), "2024-01-21": ({"": 4 * UNIT}, 4)}
    assert hub.days[0]["end"] - hub.days[0]["start"] == 86_400
    assert hub.days[0]["state"] == FINALIZED


def test_rounding_of_multiplied_differences() -> None:
    def of(raw: int, multiplier: int) -> int:
        return consumption(Reading(1, 0, REGULAR), Reading(2, raw, REGULAR), 0, multiplier, 50).quantity

    assert [of(raw, 500_000) for raw in (1, 2, 3, 5, 7)] == [0, 1, 2, 2, 4]  # half to even
    assert of(7, 0) == 7


@given(st.integers(0, 99_999), st.integers(0, 99_999), st.integers(1, 99))
def test_rollover_share(base: int, end: int, percent: int) -> None:
    found = consumption(Reading(1, base * UNIT, REGULAR), Reading(2, end * UNIT, REGULAR), 5, UNIT, percent)
    advanced = (end - base) % 100_000
    if end >= base:
        assert (found.quantity, found.broken) == ((end - base) * UNIT, False)
    elif advanced * 100 <= 100_000 * percent:
        assert (found.quantity, found.broken) == (advanced * UNIT, False)
    else:
        assert (found.quantity, found.condition, found.broken) == (0, INVALID, True)


# --- any order and any correction equals what all readings together say -------------------------------------------------------------


def slow_consumption(reads: dict[int, int], zone: str, cycle: int = 1) -> dict[tuple[datetime, datetime], int | None]:
    """Per period: the last reading in (begin, end] less the last one at or before begin, else less the first one inside."""
    found: dict[tuple[datetime, datetime], int | None] = {}
    for at in sorted(reads):
        local = datetime.fromtimestamp(at - 1, UTC).astimezone(ZoneInfo(zone)).date()
        begin, end = slow_month(zone, (local - EPOCH).days, cycle)
        inside = [t for t in sorted(reads) if begin.timestamp() < t <= end.timestamp()]
        before = [t for t in sorted(reads) if t <= begin.timestamp()]
        base = before[-1] if before else inside[0]
        found[begin, end] = reads[inside[-1]] - reads[base] if base != inside[-1] else None
    return found


@given(seed=st.integers(0, 2**32), zone=st.sampled_from(["Europe/Berlin", "Australia/Lord_Howe", "UTC"]))
@settings(max_examples=20, deadline=None)
def test_any_order_and_correction_equals_what_all_readings_say(seed: int, zone: str) -> None:
    rng = random.Random(seed)
    hub, all_reads = Hub(), {"m1": {}, "m2": {}}
    start = moment("2023-11-20T00:00", zone)
    spacing = rng.choice([3600 * 24, 86_400 * 9, 86_400 * 31])
    plan = []
    for device in all_reads:
        value = rng.randint(0, 1000)
        for step in range(int(86_400 * 300 / spacing) + 2):
            value += rng.randint(0, 50)
            midnight = rng.random() < 0.3
            at = start + step * spacing
            if midnight:
                local = datetime.fromtimestamp(at, ZoneInfo(zone)).date()
                at = moment(f"{local}T00:00", zone)
            else:
                at += rng.randint(0, spacing // 2)
            plan.append((step + rng.choice([0, 0, 0, rng.uniform(0, 60)]), device, at, value))
            if rng.random() < 0.2:  # corrected later
                plan.append((step + rng.uniform(0.1, 80), device, at, value + rng.randint(0, 3)))
    plan.sort(key=lambda item: item[0])
    while plan:
        size = rng.randint(1, 20)
        chunk, plan = plan[:size], plan[size:]
        rows = []
        for device in ("m1", "m2"):
            mine = [(at, value) for _, d, at, value in chunk if d == device]
            if mine:
                all_reads[device] |= dict(mine)
                rows.append(row(*mine, device=device, account=f"a-{device}", zone=zone))
        hub.give(*rows)
        if rng.random() < 0.2:
            hub.close()
        if rng.random() < 0.1:
            hub.restart()
    hub.close()
    assert not hub.figures
    for device, reads in all_reads.items():
        got = {
            (b["period_start"], b["period_end"]): int(b["quantity"])
            for b in hub.latest().values()
            if b["device"] == device and b["kind"] == "scalar-consumption"
        }
        expected = {key: value for key, value in slow_consumption(reads, zone).items() if value is not None and value >= 0}
        assert {key: value for key, value in got.items() if key in expected} == expected
        reading = {
            b["period_start"]: int(b["quantity"]) for b in hub.latest().values() if b["device"] == device and b["kind"] == "scalar-reading"
        }
        assert len(reading) == len(slow_consumption(reads, zone))


def test_readings_in_one_message_or_many() -> None:
    rng = random.Random(5)
    reads, value = [], 0
    for day in range(500):
        value += rng.randint(0, 30)
        reads.append((moment("2023-01-01T06:00") + day * 86_400, value))
    one, many = Hub(), Hub()
    one.give(row(*reads))
    for read in reads:
        many.give(row(read))
    for hub in (one, many):
        hub.close()
    assert months(one) == months(many)
    assert sum(q for q, _, _ in months(one).values()) == reads[-1][1] - reads[0][1]
    state = many.fold.state.tables["registers"]
    assert state.nbytes() / len(state["dials"]) < 1536


def test_days_behind_the_newest_are_told_by_the_readings_that_come_along() -> None:
    hub = Hub()
    for day in range(1, 20):
        hub.give(row((f"2024-01-{day:02}T00:00", 10 * day)))
    hub.days.clear()
    late = {f"2024-01-{day:02}T00:00": (10 * day, 10 * day) for day in (3, 4, 6)}
    hub.send("RegisterDays", behind(late | {"2024-01-04T00:00": (40, 45)}, days=["2024-01-03", "2024-01-05"]))
    assert [(day["lines"], day["version"], day["replaces"]) for day in hub.days] == [({"": 15 * UNIT}, 4, 0), ({"": 15 * UNIT}, 4, 0)]
    hub.days.clear()
    hub.send("RegisterDays", behind(late, days=["2024-01-03", "2024-01-05"], version=5))  # as it was: there is nothing to tell
    assert hub.days == []
    gone = {at: (pair[0], None) for at, pair in late.items()}
    hub.send("RegisterDays", behind(gone, days=["2024-01-03"], version=6))
    assert [(day["lines"], day["slots"], day["version"]) for day in hub.days] == [({"": 0}, 0, 6)]
