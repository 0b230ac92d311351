"""Readings that a source reports as missing: prorated between valid ones, estimated behind the last."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from schemas.conditions import EST_FLAT, EST_INTERPOLATED, REGULAR, REPORTED_MISSING
from schemas.topology.vee import Group, ScalarEstimation, ScalarProration, VeeSettings
from tests.vee.driver import MICRO, Hub, register_row

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
