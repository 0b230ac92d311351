"""Long gaps: like days, profiles, days without a read, and what comes late."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.conditions import EST_FLAT, EST_LIKE_DAY, MISSING, OUTAGE, REGULAR
from schemas.topology.vee import Group, LikeDayAverage, MissingQuantity, Profile, VeeSettings
from streams.calendar import start_of
from tests.vee.driver import MICRO, Hub, Row, interval_row

MONDAY = 19_800  # 2024-03-18
HOUR = 3600


def settings(*rules: Any, **more: Any) -> VeeSettings:
    return VeeSettings(groups={"initial-load": Group(rules=(*rules, MissingQuantity()))}, future_tolerance="900d", **more)


def day_row(day: int, values: list[float | None], zone: str = "UTC", at: int = 0, **more: Any) -> Row:
    return interval_row(int(start_of(zone, day)) + at * HOUR, values, seconds=HOUR, **more)


def values(hub: Hub, day: int) -> list[float]:
    return [v / MICRO for v in hub.day(day, seconds=HOUR).values.tolist()]


def codes(hub: Hub, day: int) -> list[int]:
    return [int(c) for c in hub.day(day, seconds=HOUR).conditions.tolist()]


def send_days(hub: Hub, first: int, last: int, level: float = 1.0) -> None:
    for day in range(first, last + 1):
        hub.send(day_row(day, [level + (day - first) + k / 100 for k in range(24)]))


def test_a_long_gap_gets_the_mean_of_like_days_that_the_store_gives_back() -> None:
    hub = Hub(settings(LikeDayAverage()))
    send_days(hub, MONDAY, MONDAY + 3)
    friday = MONDAY + 4
    hub.send(day_row(friday, [9.0] * 6 + [None] * 12 + [9.0] * 6))
    assert hub.recalls > 0
    mean = (1 + 2 + 3 + 4) / 4
    assert values(hub, friday)[6:18] == pytest.approx([mean + k / 100 for k in range(6, 18)])
    assert set(codes(hub, friday)[6:18]) == {EST_LIKE_DAY}
    assert values(hub, friday)[:6] == [9.0] * 6
    assert "missing-quantity" not in hub.rules()


def test_three_days_are_needed() -> None:
    hub = Hub(settings(LikeDayAverage()))
    send_days(hub, MONDAY, MONDAY + 1)
    hub.send(day_row(MONDAY + 2, [9.0] * 6 + [None] * 12 + [9.0] * 6))
    assert set(codes(hub, MONDAY + 2)[6:18]) == {110_000}
    assert "missing-quantity" in hub.rules()


def test_a_saturday_is_not_like_a_friday() -> None:
    hub = Hub(settings(LikeDayAverage()))
    send_days(hub, MONDAY, MONDAY + 4)
    hub.send(day_row(MONDAY + 5, [9.0] * 6 + [None] * 12 + [9.0] * 6))
    assert EST_LIKE_DAY not in codes(hub, MONDAY + 5)


def test_days_with_an_outage_or_many_estimates_do_not_count() -> None:
    hub = Hub(settings(LikeDayAverage()))
    send_days(hub, MONDAY, MONDAY + 2)
    outage = day_row(MONDAY + 3, [50.0] * 24)
    outage["codes"] = [OUTAGE] + [REGULAR] * 23
    hub.send(outage)
    external = day_row(MONDAY + 4, [50.0] * 24)
    external["codes"] = [400_000] * 3 + [REGULAR] * 21
    hub.send(external)
    send_days(hub, MONDAY + 5, MONDAY + 6)
    hub.send(day_row(MONDAY + 7, [9.0] * 6 + [None] * 12 + [9.0] * 6))
    assert values(hub, MONDAY + 7)[6] == pytest.approx(2.06)


def test_holidays_stand_for_holidays() -> None:
    rule = LikeDayAverage.model_validate({"id": "like-day-average", "day_types": {"holidays": {"dates": ["2024-03-20", "2024-03-29"]}}})
    hub = Hub(settings(rule))
    send_days(hub, MONDAY, MONDAY + 3)  # Wednesday is a holiday, so it lends nothing to Friday
    hub.send(day_row(MONDAY + 4, [9.0] * 6 + [None] * 12 + [9.0] * 6))
    assert values(hub, MONDAY + 4)[6] == pytest.approx((1 + 2 + 4) / 3 + 0.06)


def test_the_australian_order_takes_the_best_single_day() -> None:
    hub = Hub(settings(LikeDayAverage(priority="aemo")))
    send_days(hub, MONDAY, MONDAY + 6)
    hub.send(day_row(MONDAY + 7, [9.0] * 6 + [None] * 12 + [9.0] * 6))
    assert values(hub, MONDAY + 7)[6] == pytest.approx(1.06)  # Monday leans on Monday only


@pytest.mark.parametrize("zone", ["Europe/London", "America/New_York"])
def test_like_days_are_matched_by_wall_clock_over_a_clock_change(zone: str) -> None:
    hub = Hub(settings(LikeDayAverage(), zone=zone))
    change = {"Europe/London": 19_813, "America/New_York": 19_792}[zone]  # Sundays in March 2024
    sundays = [change - 21, change - 14, change - 7]
    for day in range(sundays[0], change):
        hub.send(day_row(day, [float(k) for k in range(24)], zone))
    hub.send(day_row(change, [0.0] * 2 + [None] * 19 + [22.0, 23.0], zone))
    hub.send(day_row(change + 1, [0.0], zone))
    clock = [0.0, 1.0, *range(3, 24)] if zone == "America/New_York" else [0.0, *range(2, 24)]
    assert values(hub, change)[2:21] == clock[2:21]


def test_a_reference_day_that_changes_changes_the_estimate() -> None:
    hub = Hub(settings(LikeDayAverage()))
    send_days(hub, MONDAY, MONDAY + 3)
    hub.send(day_row(MONDAY + 4, [9.0] * 6 + [None] * 12 + [9.0] * 6))
    send_days(hub, MONDAY + 5, MONDAY + 8)
    before = values(hub, MONDAY + 4)[6]
    hub.send(day_row(MONDAY, [5.0] * 24))
    assert values(hub, MONDAY + 4)[6] == pytest.approx(before + (5.0 - 1.06) / 4)


def test_a_measured_value_that_comes_late_replaces_the_estimate() -> None:
    hub = Hub(settings(LikeDayAverage()))
    send_days(hub, MONDAY, MONDAY + 3)
    hub.send(day_row(MONDAY + 4, [9.0] * 6 + [None] * 12 + [9.0] * 6))
    send_days(hub, MONDAY + 5, MONDAY + 8)
    before = hub.day(MONDAY + 4, seconds=HOUR).values.tolist()
    hub.send(day_row(MONDAY + 4, [7.0], at=10))
    final = hub.day(MONDAY + 4, seconds=HOUR)
    assert final.values[10] == 7 * MICRO
    assert final.conditions[10] == REGULAR
    assert final.methods[10] == 0
    assert set(final.conditions.tolist()[6:10]) == {EST_LIKE_DAY}
    assert final.before.tolist() == before
    hub.send(day_row(MONDAY + 4, [8.0] * 12, at=6))
    assert values(hub, MONDAY + 4)[6:18] == [8.0] * 12
    assert not [e for e in hub.fold.state.entries if e.startswith(("leans/", "asked/", "again/", "late/"))]


# --- days without a read --------------------------------------------------------------------------------------------------------


def test_a_day_without_a_read_is_missing_once_a_tick_says_so() -> None:
    hub = Hub(settings(LikeDayAverage(), lateness=0, quiet=60))
    send_days(hub, MONDAY, MONDAY + 2)
    send_days(hub, MONDAY + 4, MONDAY + 4, 9.0)
    assert (("M1", "E1", HOUR, MONDAY + 3)) not in hub.days
    late = (MONDAY + 10) * 86_400
    hub.tick(late)
    assert values(hub, MONDAY + 3) == pytest.approx([2 + k / 100 for k in range(24)])
    assert set(codes(hub, MONDAY + 3)) == {EST_LIKE_DAY}
    before = hub.day(MONDAY + 3, seconds=HOUR).version[0]
    hub.send(day_row(MONDAY + 3, [4.0] * 24))
    assert values(hub, MONDAY + 3) == [4.0] * 24
    assert hub.day(MONDAY + 3, seconds=HOUR).replaces[0] == before


def test_days_without_a_read_that_arrive_before_the_tick_are_not_estimated() -> None:
    hub = Hub(settings(LikeDayAverage()))
    send_days(hub, MONDAY, MONDAY + 2)
    send_days(hub, MONDAY + 5, MONDAY + 6)
    send_days(hub, MONDAY + 3, MONDAY + 4)
    hub.tick(close=True)
    assert {c for day in range(MONDAY, MONDAY + 7) for c in codes(hub, day)} == {REGULAR}
    assert not [e for e in hub.fold.state.entries if e.startswith("holes/")]


def test_a_very_long_silence_is_no_run_of_missing_days() -> None:
    hub = Hub(settings(LikeDayAverage(), absent_days=3))
    send_days(hub, MONDAY, MONDAY)
    send_days(hub, MONDAY + 5, MONDAY + 5)
    hub.tick(close=True)
    assert len(hub.days) == 2
    send_days(hub, MONDAY + 2, MONDAY + 2)
    hub.tick(close=True)
    assert sorted(key[3] - MONDAY for key in hub.days) == [0, 1, 2, 3, 4, 5]
    assert set(codes(hub, MONDAY + 1)) == {MISSING}


# --- profiles -------------------------------------------------------------------------------------------------------------------


def test_a_profile_fills_what_is_left_at_the_level_of_the_day() -> None:
    profile = Profile.model_validate({"id": "profile", "profiles": [{"slot": 7200, "values": [[1] * 6 + [2] * 6]}]})
    hub = Hub(settings(profile))
    hub.send(day_row(MONDAY, [1.0] * 10 + [None] * 4 + [2.0] * 10))
    assert values(hub, MONDAY)[10:14] == [1.0, 1.0, 2.0, 2.0]
    assert set(codes(hub, MONDAY)[10:14]) == {EST_FLAT}


def test_without_scaling_a_profile_is_taken_as_it_is() -> None:
    profile = Profile.model_validate({"id": "profile", "scale": False, "profiles": [{"values": [[0.5] * 24], "units": ["kWh"]}]})
    hub = Hub(settings(profile))
    hub.send(day_row(MONDAY, [1.0] * 10 + [None] * 4 + [2.0] * 10))
    assert values(hub, MONDAY)[10:14] == [0.5] * 4


def test_flat_load_is_the_mean_of_the_day() -> None:
    hub = Hub(settings(Profile(flat=True)))
    hub.send(day_row(MONDAY, [1.0] * 10 + [None] * 4 + [2.0] * 10))
    assert values(hub, MONDAY)[10:14] == [1.5] * 4
