"""Registers and intervals together: sum-check and interval-adjustment-from-scalar, whichever comes first."""

from __future__ import annotations

from itertools import pairwise, permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st

from schemas.block import EXCEPTION, FINALIZED
from schemas.conditions import EST_SCALED, OUTAGE, REGULAR
from schemas.rules import METHOD
from schemas.topology.vee import (
    Group,
    IntervalAdjustmentFromScalar,
    IntervalInterpolation,
    LikeDayAverage,
    MissingQuantity,
    Profile,
    SumCheck,
    VeeSettings,
)  # fmt: skip
from streams.vee.rules.interval_adjustment_from_scalar import apportion
from tests.vee.driver import MICRO, Hub, Row, interval_row, register_row

MONDAY = 19_800
DAY = 86_400
START = MONDAY * DAY
HOUR = 3600
FLAT: list[float | None] = [0.999, 1.001] * 12  # one kWh on average, told to the Wh
SCALED = METHOD["interval-adjustment-from-scalar"]


def settings(*rules: Any, **more: Any) -> VeeSettings:
    rules = rules or (IntervalInterpolation(), LikeDayAverage(), Profile(flat=True), IntervalAdjustmentFromScalar(), SumCheck())
    return VeeSettings(groups={"initial-load": Group(rules=(*rules, MissingQuantity()))}, future_tolerance="900d", **more)


def hub_of(*rules: Any, **more: Any) -> Hub:
    hub = Hub(settings(*rules))
    hub.master(channel="E1", unit="kWh", check_channel="R1", **{k: v for k, v in more.items() if k == "allow_negative"})
    hub.master(channel="R1", unit=more.get("unit", "kWh"), dials=more.get("dials", 6), multiplier=more.get("multiplier"))
    return hub


def day_row(day: int, values: list[float | None], at: int = 0) -> Row:
    return interval_row((MONDAY + day) * DAY + at * HOUR, values, seconds=HOUR)


def reads(*readings: tuple[float, float], **more: Any) -> Row:
    """Readings at days (fractions of days) after the first Monday."""
    return register_row([(round(START + day * DAY), value) for day, value in readings], **more)


def total(hub: Hub, first: int, last: int) -> int:
    return sum(int(hub.day(MONDAY + day, seconds=HOUR).values.sum()) for day in range(first, last + 1))


# --- sum-check ------------------------------------------------------------------------------------------------------------------

ORDERS = list(permutations(range(3)))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("end", "found"), [(1024.0, False), (1026.0, False), (1027.0, True)])
def test_a_sum_is_checked_whoever_comes_last(order: tuple[int, ...], end: float, found: bool) -> None:
    parts = [reads((0, 1000.0)), reads((1, end)), day_row(0, FLAT)]
    hub = hub_of()
    for number in order:
        hub.send(parts[number])
    assert ("sum-check" in hub.rules()) is found  # two readings cut off to whole kWh: 2 kWh are nothing
    assert hub.day(MONDAY, seconds=HOUR).state.tolist() == [EXCEPTION if found else FINALIZED]
    assert set(hub.day(MONDAY, seconds=HOUR).conditions.tolist()[:24]) == {REGULAR}


def test_finer_readings_are_compared_more_closely() -> None:
    hub = hub_of()
    hub.send(day_row(0, FLAT), reads((0, 1000.001), (1, 1024.014)))
    assert "sum-check" not in hub.rules()  # two steps of a Wh, and half a Wh for each of 24 intervals
    hub = hub_of()
    hub.send(day_row(0, [1.001] * 24), reads((0, 1000.001), (1, 1024.125)))
    assert "sum-check" in hub.rules()
    assert "24 intervals hold 24.024 kWh, the register says 24.124 kWh" in hub.open()[0]["detail"]


def test_a_corrected_reading_takes_the_exception_back_even_from_the_store() -> None:
    hub = hub_of()
    hub.send(day_row(0, FLAT), reads((0, 1000.0), (1, 1100.0)))
    for day in range(1, 6):
        hub.send(day_row(day, FLAT))
    assert hub.rules() == ["sum-check"]
    hub.send(reads((1, 1024.0)))
    assert "sum-check" not in hub.rules()
    assert hub.day(MONDAY, seconds=HOUR).state.tolist() == [FINALIZED]


def test_readings_a_month_apart_are_compared_with_days_from_the_store() -> None:
    for end, found in ((1720.0, False), (1800.0, True)):
        hub = hub_of()
        hub.send(reads((0, 1000.0)))
        for day in range(30):
            hub.send(day_row(day, FLAT))
        hub.send(reads((30, end)))
        assert ("sum-check" in hub.rules()) is found
        assert hub.open() == [] or hub.open()[0]["start"].timestamp() == START + 29 * DAY


def test_what_is_missing_is_not_compared() -> None:
    hub = hub_of(SumCheck())
    hub.send(day_row(0, [1.0] * 20 + [None] * 4), reads((0, 1000.0), (1, 2000.0)))
    assert hub.rules() == ["missing-quantity"]
    hub = hub_of(SumCheck(missing="exception"))
    hub.send(day_row(0, [1.0] * 20 + [None] * 4), reads((0, 1000.0), (1, 2000.0)))
    assert hub.rules() == ["missing-quantity", "sum-check"]


def test_rollover_multiplier_and_unit_come_first() -> None:
    hub = hub_of(dials=5, multiplier=40 * MICRO, unit="Wh")
    hub.send(day_row(0, FLAT), reads((0, 99_700.0), (1, 300.0), unit="Wh"))
    assert "sum-check" not in hub.rules()
    hub.send(reads((1, 900.0), unit="Wh"))
    assert "sum-check" in hub.rules()


def test_readings_off_the_grid_and_of_another_dimension_are_not_used() -> None:
    hub = hub_of()
    hub.send(day_row(0, FLAT), reads((0, 1000.0), (0.51, 1500.0), (1, 1024.0)))
    assert hub.rules() == []
    hub = hub_of(unit="kVAh")
    hub.send(day_row(0, FLAT), reads((0, 1000.0), (1, 5000.0), unit="kVAh"))
    assert hub.rules() == []


# --- adjustment -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
def test_estimates_are_scaled_to_the_register_whoever_comes_last(order: tuple[int, ...]) -> None:
    parts = [reads((0, 1000.0)), reads((1, 1024.5)), day_row(0, [*FLAT[:10], None, *FLAT[:13]])]
    hub = hub_of()
    for number in order:
        hub.send(parts[number])
    final = hub.day(MONDAY, seconds=HOUR)
    assert final.values[10] == 1_501_000
    assert int(final.values.sum()) == 24.5 * MICRO
    assert final.conditions[10] == EST_SCALED
    assert final.methods[10] == SCALED
    assert hub.rules() == []


def test_a_gap_of_days_is_brought_to_the_register_exactly() -> None:
    hub = hub_of()
    hub.send(reads((0, 1000.0)))
    for day in range(5):
        hub.send(day_row(day, [1.0 + day / 10] * 24))
    hub.send(day_row(9, FLAT))
    hub.send(reads((10, 1293.7)))
    hub.tick(close=True)
    assert total(hub, 0, 9) == round(293.7 * MICRO)
    assert {int(c) for day in range(5, 9) for c in hub.day(MONDAY + day, seconds=HOUR).conditions[:24]} == {EST_SCALED}
    hub.send(day_row(6, [2.0] * 24))  # late: the others make room
    assert total(hub, 0, 9) == round(293.7 * MICRO)
    assert hub.day(MONDAY + 6, seconds=HOUR).values.tolist()[:24] == [2 * MICRO] * 24


def test_each_stretch_between_readings_is_its_own() -> None:
    hub = hub_of()
    hub.send(day_row(0, [1.0] * 4 + [None] * 4 + [1.0] * 8 + [None] * 4 + [1.0] * 4), reads((0, 0.0), (0.5, 20.0), (1, 32.0)))
    values = hub.day(MONDAY, seconds=HOUR).values.tolist()
    assert sum(values[:12]) == 20 * MICRO
    assert sum(values[12:24]) == 12 * MICRO
    assert values[4:8] == [3 * MICRO] * 4


def test_a_register_below_what_was_measured_is_told_and_changes_nothing() -> None:
    hub = hub_of()
    hub.send(day_row(0, [*FLAT[:10], None, *FLAT[:13]]), reads((0, 1000.0), (1, 1010.0)))
    assert "interval-adjustment-from-scalar" in hub.rules()
    assert hub.day(MONDAY, seconds=HOUR).values[10] == MICRO
    assert hub.day(MONDAY, seconds=HOUR).state.tolist() == [EXCEPTION]


def test_a_factor_above_the_limit_is_told_and_not_applied() -> None:
    hub = hub_of()
    hub.send(day_row(0, [*FLAT[:10], None, *FLAT[:13]]), reads((0, 1000.0), (1, 1123.0)))
    assert "interval-adjustment-from-scalar" in hub.rules()
    assert "multiplied by 100" in hub.open()[0]["detail"]


def test_outages_stay_zero() -> None:
    hub = hub_of()
    row = day_row(0, [1.0] * 10 + [None] + [0.0] * 3 + [1.0] * 10)
    row["codes"][11:14] = [OUTAGE] * 3
    hub.send(row, reads((0, 1000.0), (1, 1024.0)))
    values = hub.day(MONDAY, seconds=HOUR).values.tolist()
    assert values[11:14] == [0, 0, 0]
    assert sum(values) == 24 * MICRO


def test_all_intervals_can_be_scaled() -> None:
    hub = hub_of(IntervalAdjustmentFromScalar(adjust="all"))
    hub.send(day_row(0, [1.0] * 12 + [3.0] * 12), reads((0, 1000.0), (1, 1050.0)))
    values = hub.day(MONDAY, seconds=HOUR).values.tolist()[:24]
    assert sum(values) == 50 * MICRO
    assert max(values[:12]) - min(values[:12]) <= 1
    hub.send(day_row(1, [0.0] * 24), reads((2, 1074.0)))
    assert hub.day(MONDAY + 1, seconds=HOUR).values.tolist()[:24] == [MICRO] * 24


@given(st.integers(-10, 10**14), st.lists(st.integers(0, 10**13), min_size=1, max_size=50).filter(any))
def test_shares_sum_up_exactly_and_differ_from_their_fraction_by_less_than_one(target: int, weights: list[int]) -> None:
    shares = apportion(target, weights).tolist()
    assert sum(shares) == target
    assert all(abs(share * sum(weights) - target * weight) < sum(weights) for share, weight in zip(shares, weights, strict=True))


# --- in any order ---------------------------------------------------------------------------------------------------------------


@st.composite
def stories(draw: st.DrawFn) -> tuple[list[Row], list[tuple[int, int]], dict[int, int]]:
    """Ten days of hours with holes of all kinds, and readings between them that agree with the energy that really flowed."""
    days = draw(st.integers(2, 10))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    load = rng.integers(200, 3000, days * 24) * 1000
    absent = set(draw(st.lists(st.integers(0, days * 24 - 1), max_size=20)))
    for day in draw(st.lists(st.integers(0, days - 1), max_size=3)):
        absent |= set(range(day * 24, day * 24 + 24))
    absent -= {0, days * 24 - 1}
    cuts = sorted({0, days * 24, *draw(st.lists(st.sampled_from([6, 12, *range(24, days * 24, 24)]), max_size=5))})
    readings = [(cut, int(load[:cut].sum())) for cut in cuts]
    rows: list[Row] = []
    at = 0
    while at < days * 24:
        size = draw(st.sampled_from([24, 24, 12, 48]))
        part = [k for k in range(at, min(at + size, days * 24)) if k not in absent]
        for begin, behind in _runs(part):
            rows.append(interval_row(START + begin * HOUR, [int(v) / MICRO for v in load[begin:behind]], seconds=HOUR))
        at += size
    rows += [register_row([(START + cut * HOUR, value / MICRO)]) for cut, value in readings]
    actual = {k: int(load[k]) for k in range(days * 24) if k not in absent}
    return rows, readings, actual


def _runs(numbers: list[int]) -> list[tuple[int, int]]:
    cuts = [0, *(k for k in range(1, len(numbers)) if numbers[k] != numbers[k - 1] + 1), len(numbers)]
    return [(numbers[a], numbers[b - 1] + 1) for a, b in pairwise(cuts) if b > a]


FREELY = (IntervalInterpolation(), LikeDayAverage(), Profile(flat=True), IntervalAdjustmentFromScalar(max_factor=1000), SumCheck())


def told(rows: list[Row], *, restarts: bool) -> Hub:
    hub = hub_of(*FREELY, dials=0)
    for number, row in enumerate(rows):
        hub.send(row)
        if restarts and number % 3 == 1:
            hub.restart()
    hub.tick(close=True)
    return hub


@example_settings(max_examples=40, deadline=None)
@given(st.data())
def test_energy_of_intervals_is_that_of_the_register_in_any_order(data: st.DataObject) -> None:
    rows, readings, actual = data.draw(stories())
    first = told(rows, restarts=False)
    got = {}
    for (_, _, seconds, day), one in first.days.items():
        for slot, value in enumerate(one.values.tolist()):
            if one.conditions[slot]:
                got[(day - MONDAY) * 24 + slot * seconds // HOUR] = (value, int(one.methods[slot]))
    for (begin, low), (end, high) in pairwise(readings):
        assert sum(got[k][0] for k in range(begin, end)) == high - low
    for slot, value in actual.items():
        assert got[slot] == (value, 0)
    other = told(data.draw(st.permutations(rows)), restarts=True)
    assert other.finals() == first.finals()
    assert sorted((e["rule"], e["start"], e["detail"]) for e in other.open()) == sorted(
        (e["rule"], e["start"], e["detail"]) for e in first.open()
    )


@example_settings(max_examples=25, deadline=None)
@given(st.data())
def test_like_days_give_the_same_in_any_order(data: st.DataObject) -> None:
    days = data.draw(st.integers(4, 16))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    rows: list[Row] = []
    for day in range(days):
        values: list[float | None] = [int(v) / 1000 for v in rng.integers(200, 3000, 24)]
        what = data.draw(st.sampled_from(["full", "full", "gap", "absent", "pieces"]))
        if what == "gap":
            values[6:18] = [None] * 12
        if what == "pieces":
            rows += [day_row(day, values[:3]), day_row(day, values[9:], at=9)]
        elif what != "absent" or day in (0, days - 1):
            rows.append(day_row(day, values))
    hubs = []
    for order in (rows, data.draw(st.permutations(rows))):
        hub = Hub(settings(IntervalInterpolation(), LikeDayAverage()))
        for number, row in enumerate(order):
            hub.send(row)
            if number % 5 == 4:
                hub.restart()
        hub.tick(close=True)
        hubs.append(hub)
    assert hubs[0].finals() == hubs[1].finals()
    assert sorted((e["rule"], e["start"], e["detail"]) for e in hubs[0].open()) == sorted(
        (e["rule"], e["start"], e["detail"]) for e in hubs[1].open()
    )


@example_settings(max_examples=25, deadline=None)
@given(st.data())
def test_it_makes_no_difference_when_the_answers_come_late(data: st.DataObject) -> None:
    rows, _, _ = data.draw(stories())
    first = told(rows, restarts=False)
    hub = hub_of(*FREELY, dials=0)
    hub.answering = hub.together = False
    pace = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=5))
    for number, row in enumerate(data.draw(st.permutations(rows))):
        hub.send(row)
        if number % 4 == 3:
            hub.tick((MONDAY + 100) * DAY + number * 60)
        hub.deliver(pace[number % len(pace)])
        if pace[number % len(pace)] == 1:
            hub.restart()
    hub.deliver()
    hub.tick(close=True)
    hub.deliver()
    assert hub.finals() == first.finals()
    assert not [entry for entry in hub.fold.state.entries if entry.startswith(("late/", "again/", "asked/", "holes/"))]
