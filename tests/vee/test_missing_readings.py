"""Readings that a source reports as missing: prorated between valid ones, estimated behind the last."""

from __future__ import annotations

import random
from itertools import permutations
from typing import Any

import pytest

from schemas.conditions import EST_FLAT, EST_INTERPOLATED, REGULAR, REPORTED_MISSING
from schemas.topology.vee import Group, ScalarEstimation, ScalarProration, VeeSettings
from tests.vee.driver import MICRO, Hub, interval_row, register_row

DAY = 86_400
START = 19_800 * DAY


def hub_of(*rules: Any, dials: int = 5, **more: Any) -> Hub:
    rules = rules or (ScalarProration(), ScalarEstimation())
    hub = Hub(VeeSettings(groups={"initial-load": Group(rules=rules)}, future_tolerance="900d"))
    hub.master(channel="R1", unit="kWh", dials=dials, **more)
    return hub


def send(hub: Hub, *readings: tuple[float, float | None]) -> None:
    row = register_row([(round(START + day * DAY), value or 0.0) for day, value in readings])
    row["codes"] = [REPORTED_MISSING if value is None else REGULAR for _, value in readings]
    hub.send(row)


def reading(hub: Hub, day: float) -> tuple[float, int]:
    value, code, _ = hub.reads["M1", "R1", round(START + day * DAY)]
    return value / MICRO, code


@pytest.mark.parametrize("order", list(permutations([(0, 100.0), (3, None), (4, 120.0)])))
def test_a_missing_reading_between_two_is_prorated_whatever_came_first(order: list[tuple[float, float | None]]) -> None:
    hub = hub_of()
    for one in order:
        send(hub, one)
    assert reading(hub, 3) == (115.0, EST_INTERPOLATED)


def test_estimates_go_over_the_rollover() -> None:
    hub = hub_of(multiplier=40 * MICRO)
    send(hub, (0, 99_990.0), (1, None), (2, 10.0))
    assert reading(hub, 1) == (0.0, EST_INTERPOLATED)
    hub = hub_of()
    send(hub, (0, 99_960.0), (4, 99_980.0), (5, 99_998.0), (6, None))
    assert reading(hub, 6)[0] == pytest.approx(99_998 + 38 / 5 - 100_000)


def test_a_register_that_fell_is_not_prorated() -> None:
    hub = hub_of()
    send(hub, (0, 500.0), (1, None), (2, 400.0))
    assert reading(hub, 1) == (0.0, REPORTED_MISSING)


def test_the_last_reading_is_estimated_until_one_behind_it_comes() -> None:
    hub = hub_of()
    send(hub, (0, 100.0), (5, 150.0), (7, None))
    assert reading(hub, 7) == (170.0, EST_FLAT)
    send(hub, (9, 158.0))
    assert reading(hub, 7) == (154.0, EST_INTERPOLATED)
    send(hub, (7, 151.0))
    assert reading(hub, 7) == (151.0, REGULAR)


def test_a_year_ago_can_come_first() -> None:
    for history, expected in ((("year", "before"), 1150.0), (("before",), pytest.approx(1100 + 5 * 1000 / 365))):
        hub = hub_of(ScalarEstimation(history=history))
        send(hub, (0, 100.0), (5, 150.0), (365, 1100.0), (370, None))
        assert reading(hub, 370)[0] == expected


def test_too_short_a_history_and_too_far_ahead_estimate_nothing() -> None:
    hub = hub_of()
    send(hub, (0, 100.0), (1, 110.0), (2, None))
    assert reading(hub, 2)[1] == REPORTED_MISSING
    hub = hub_of(ScalarEstimation(max_ahead_days=10))
    send(hub, (0, 100.0), (5, 150.0), (20, None))
    assert reading(hub, 20)[1] == REPORTED_MISSING


def test_estimates_survive_a_restart_and_are_told_once() -> None:
    hub = hub_of()
    send(hub, (0, 100.0), (5, 150.0), (7, None))
    hub.restart()
    published = len([o for o in hub.log if o.type == "FinalBlock"])
    send(hub, (7, None))
    assert len([o for o in hub.log if o.type == "FinalBlock"]) == published
    assert reading(hub, 7) == (170.0, EST_FLAT)


def test_rules_hold_in_their_time_only() -> None:
    hub = hub_of(ScalarProration.model_validate({"id": "scalar-proration", "effective_from": "2024-03-20"}))
    send(hub, (0, 100.0), (1, None), (2, 120.0), (3, None), (4, 140.0))
    assert reading(hub, 1)[1] == REPORTED_MISSING
    assert reading(hub, 3) == (130.0, EST_INTERPOLATED)


def related_hub(**more: Any) -> Hub:
    group = {"rules": [{"id": "scalar-proration"} | more, {"id": "sum-check"}]}
    hub = Hub(VeeSettings.model_validate({"groups": {"initial-load": group}}))
    hub.master(channel="R1", unit="kWh", dials=6, seconds=0)
    hub.master(channel="E1", unit="Wh", seconds=3600, check_channel="R1")
    return hub


def related_parts() -> list[dict[str, Any]]:
    """Readings at midnight, 150 kWh in 72 hours; of the second day the intervals know 100 kWh."""
    known = interval_row(START + DAY, [100_000 / 24] * 24, seconds=3600, unit="Wh")
    known["values"] = [4_166_666_667] * 16 + [4_166_666_666] * 8  # 100 kWh to the millionth of a watt hour
    edges = [interval_row(at, [0.0], seconds=3600, unit="Wh") | {"codes": [400_000]} for at in (START, START + 3 * DAY - 3600)]
    readings = [(START, 1000.0), (START + DAY, 0.0), (START + 2 * DAY, 0.0), (START + 3 * DAY, 1150.0)]
    rows = [register_row([reading], codes=[110_000 if reading[1] == 0.0 else 500_000]) for reading in readings]
    later = [interval_row(START + (3 + k) * DAY, [1.0] * 24, seconds=3600, unit="Wh") for k in range(4)]
    return [known, *edges, *rows, *later]


@pytest.mark.parametrize("seed", range(8))
def test_what_intervals_know_is_taken_out_first(seed: int) -> None:
    hub, parts = related_hub(), related_parts()
    random.Random(seed).shuffle(parts)
    for part in parts:
        hub.send(part)
    hub.tick(close=True)
    # (150 - 100) / 48 · 24 = 25 kWh for the first day, and the known 100 for the second
    assert hub.reads["M1", "R1", START + DAY][0] == 1025 * MICRO
    assert hub.reads["M1", "R1", START + 2 * DAY][0] == 1125 * MICRO


def test_without_related_intervals_only_time_counts() -> None:
    hub = related_hub(related_condition=None)
    for part in related_parts():
        hub.send(part)
    hub.tick(close=True)
    assert hub.reads["M1", "R1", START + DAY][0] == 1050 * MICRO


def test_intervals_that_hold_more_than_the_register_are_not_leant_on() -> None:
    hub, parts = related_hub(), related_parts()
    parts[0]["values"] = [10_000_000_000] * 24
    for part in parts:
        hub.send(part)
    hub.tick(close=True)
    assert hub.reads["M1", "R1", START + DAY][0] == 1050 * MICRO
