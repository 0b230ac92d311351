"""interval-spike among the intervals of a delivery, or of 24 hours from its begin, in place of the local day."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.block import EXCEPTION, FINALIZED
from schemas.conditions import REGULAR, SUSPECT
from schemas.topology.vee import VeeSettings
from tests.vee.driver import Hub, Row, interval_row

DAY = 19_800
START = DAY * 86_400
HOUR = 3600


def hub_of(per: str, **more: Any) -> Hub:
    rule = {"id": "interval-spike", "severity": "issue", "tolerance_percent": 180, "min_intervals": 20, "per": per} | more
    return Hub(VeeSettings.model_validate({"groups": {"initial-load": {"rules": [rule]}}, "zone": "UTC"}))


def load(peaks: dict[int, float], hours: int = 48) -> list[float | None]:
    return [peaks.get(k, 1.0) for k in range(hours)]


def row(values: list[float | None], start: int = START) -> Row:
    return interval_row(start, values, seconds=HOUR)


# One peak of 10 on the first day, three of 8 on the second: alone in its day, and in the 24 hours from noon on
PEAKS = {10: 10.0, 30: 8.0, 31: 8.0, 32: 8.0}


@pytest.mark.parametrize(("per", "begin", "found"), [("day", 0, True), ("delivery", 0, False), ("chunk", 0, True), ("chunk", 12, False)])
def test_what_a_peak_is_compared_with(per: str, begin: int, found: bool) -> None:
    hub = hub_of(per)
    peaks = {hour + begin if begin else hour: value for hour, value in PEAKS.items()}
    if begin:  # peaks of two local days in one stretch of 24 hours
        peaks = {20: 10.0, 26: 8.0, 27: 8.0, 28: 8.0}
    hub.send(row(load(peaks, 60)[begin:], START + begin * HOUR))
    assert (hub.rules() == ["interval-spike"]) is found
    if found:
        day = hub.day(DAY, seconds=HOUR)
        assert (int(day.conditions[10]), int(day.state[0])) == (SUSPECT, EXCEPTION)
        assert int(day.conditions[11]) == REGULAR


def test_a_delivery_tells_what_a_day_cannot() -> None:
    values = load(dict.fromkeys(range(24, 48), 40.0), 168)  # a whole day far above the six others
    for per, expected in (("day", []), ("delivery", [])):  # forty of one day are no spike: the third highest is one of them
        hub = hub_of(per)
        hub.send(row(values))
        assert hub.rules() == expected
    hub = hub_of("delivery", min_intervals=100)
    hub.send(row(load({26: 40.0, 90: 39.0}, 168)))
    assert hub.rules() == ["interval-spike"] * 2  # one for each day concerned
    assert "of its delivery" in hub.open()[0]["detail"]


def test_the_order_of_deliveries_makes_no_difference() -> None:
    wide, narrow = row(load({10: 10.0})), row([8.0, 10.0, 9.0], START + 9 * HOUR)  # told twice: once alone, once among others
    outcomes = []
    for deliveries in ((wide, narrow), (narrow, wide)):
        hub = hub_of("delivery")
        for delivery in deliveries:
            hub.send(delivery)
        outcomes.append((hub.finals()["M1", "E1", HOUR, DAY][:2], hub.rules()))
    assert outcomes[0][1] == outcomes[1][1] == []  # where the same value is beyond doubt, it is regular
    assert outcomes[0][0][0][10] == outcomes[1][0][0][10]


def test_a_better_value_ends_it_and_loads_that_come_back_are_none() -> None:
    hub = hub_of("delivery", after_outage="2h")
    hub.send(row(load({10: 10.0}, 24)))
    assert hub.rules() == ["interval-spike"]
    hub.send(row([1.5], START + 10 * HOUR))
    assert hub.rules() == []
    assert int(hub.day(DAY, seconds=HOUR).state[0]) == FINALIZED
    hub = hub_of("delivery", after_outage="2h")
    values = load({10: 10.0}, 24)
    hub.send(interval_row(START, values, seconds=HOUR, codes=[200_000 if k in (8, 9) else 500_000 for k in range(24)]))
    assert hub.rules() == []
    assert int(hub.day(DAY, seconds=HOUR).conditions[10]) == REGULAR


@pytest.mark.parametrize("restart", [False, True])
def test_it_is_known_when_the_day_comes_back_from_the_store(restart: bool) -> None:
    hub = hub_of("delivery")
    for day in range(5):
        hub.send(row(load({10: 10.0} if day == 0 else {}, 24), START + day * 86_400))
    if restart:
        hub.restart()
    hub.send(row([1.0], START + 5 * HOUR))
    hub.send(row([1.25], START + 6 * HOUR))
    assert hub.recalls
    assert hub.rules() == ["interval-spike"]
    hub.send(row([1.25], START + 10 * HOUR))
    assert hub.rules() == []


def test_channels_that_are_not_eligible_are_left_alone() -> None:
    hub = hub_of("delivery", eligibility=[{"channels": ["E1"], "then": "skip"}])
    hub.send(row(load({10: 10.0}, 24)), interval_row(START, load({10: 10.0}, 24), seconds=HOUR, channel="E2"))
    assert [(e["channel"], e["rule"]) for e in hub.open()] == [("E2", "interval-spike")]
    assert int(hub.day(DAY, seconds=HOUR).conditions[10]) == REGULAR


def test_a_group_can_look_at_deliveries_once() -> None:
    rules = [{"id": "interval-spike", "per": per} for per in ("chunk", "delivery")]
    with pytest.raises(ValueError, match="deliveries once"):
        VeeSettings.model_validate({"groups": {"initial-load": {"rules": rules}}})
