"""Outages that devices tell of: what they make of intervals, in whatever order events and reads come."""

from __future__ import annotations

import itertools

import pytest

from schemas.block import FINALIZED
from schemas.conditions import OUTAGE_TOLD, REGULAR
from schemas.rules import METHOD
from schemas.topology.vee import VeeSettings
from tests.vee.driver import MICRO, Hub, interval_row

DAY = 19_800
START = DAY * 86_400
QUARTER = 900


def settings() -> VeeSettings:
    rules = [{"id": "interval-spike"}, {"id": "interval-interpolation"}, {"id": "zero-consumption"}, {"id": "missing-quantity"}]
    return VeeSettings.model_validate({"groups": {"initial-load": {"rules": rules}}})


def event(hub: Hub, kind: str, slot: float, device: str = "M1") -> None:
    at = START + int(slot * QUARTER)
    hub.apply("DeviceEvent", {"id": f"{kind}{at}", "payload": "", "source": "", "device": device, "kind": kind, "code": "", "at": at})


def test_what_is_missing_or_zero_inside_an_outage_is_the_outage() -> None:
    hub = Hub(settings())
    hub.send(interval_row(START, [1.0] * 10 + [0.0, None, 0.5, None, 0.0] + [1.0] * 81))
    event(hub, "outage", 9.5)
    event(hub, "restore", 14.5)
    day = hub.day(DAY)
    assert day.conditions[9:15].tolist() == [REGULAR, OUTAGE_TOLD, OUTAGE_TOLD, REGULAR, OUTAGE_TOLD, REGULAR]
    assert day.values[10:15].tolist() == [0, 0, MICRO // 2, 0, 0]
    assert day.methods[9:15].tolist() == [0, METHOD["outage-zero"], METHOD["outage-zero"], 0, METHOD["outage-zero"], 0]
    assert int(day.state[0]) == FINALIZED


def test_a_day_in_the_dark_is_neither_zero_nor_missing() -> None:
    hub = Hub(settings())
    hub.send(interval_row(START, [0.0] * 80 + [None] * 16))
    assert hub.rules() == ["missing-quantity"]
    event(hub, "outage", -1)
    event(hub, "restore", 97)
    assert hub.rules() == []
    assert set(hub.day(DAY).conditions.tolist()) == {OUTAGE_TOLD}


def test_the_load_that_comes_back_is_no_spike() -> None:
    spiky = [1.0] * 30 + [0.0] * 10 + [300.0] + [1.0] * 55
    hub = Hub(settings())
    hub.send(interval_row(START, spiky))
    assert hub.rules() == ["interval-spike"]
    event(hub, "outage", 30)
    event(hub, "restore", 40)
    assert hub.rules() == []


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_events_and_reads_come_in_any_order(order: tuple[int, ...]) -> None:
    def finals(steps: tuple[int, ...]) -> object:
        hub = Hub(settings())
        for step in steps:
            if step == 0:
                hub.send(interval_row(START, [1.0] * 20 + [None] * 30 + [1.0] * 46))
            else:
                event(hub, "outage" if step == 1 else "restore", 20 if step == 1 else 50)
        return hub.finals()

    assert finals(order) == finals((0, 1, 2))


def test_a_measured_value_that_comes_later_replaces_the_outage() -> None:
    hub = Hub(settings())
    event(hub, "outage", 20)
    event(hub, "restore", 50)
    hub.send(interval_row(START, [1.0] * 20 + [None] * 30 + [1.0] * 46))
    hub.send(interval_row(START + 25 * QUARTER, [2.0, 0.0]))
    day = hub.day(DAY)
    assert (int(day.values[25]), int(day.conditions[25])) == (2 * MICRO, REGULAR)
    assert int(day.conditions[26]) == OUTAGE_TOLD


@pytest.mark.parametrize("restart", [False, True])
def test_days_in_the_store_are_brought_back_for_an_outage(restart: bool) -> None:
    hub = Hub(settings())
    for day in range(6):
        hub.send(interval_row(START + day * 86_400, [1.0] * 30 + [0.0] * 20 + [1.0] * 46))
    event(hub, "outage", 30)
    if restart:
        hub.restart()
    event(hub, "restore", 50)
    assert hub.recalls >= 1
    assert set(hub.day(DAY).conditions[30:50].tolist()) == {OUTAGE_TOLD}
    assert set(hub.day(DAY + 1).conditions.tolist()) == {REGULAR}


def test_other_devices_and_other_kinds_change_nothing() -> None:
    hub = Hub(settings())
    hub.send(interval_row(START, [1.0] * 30 + [0.0] * 20 + [1.0] * 46))
    before = hub.finals()
    event(hub, "outage", 30, device="M2")
    event(hub, "restore", 50, device="M2")
    event(hub, "comm-outage", 30)
    event(hub, "restore", 50)
    assert hub.finals() == before


# --- widespread outages -------------------------------------------------------------------------------------------------------------


def stormy(devices: int, silent: int, **more: int) -> Hub:
    """A day of all devices, half a day of some, and the others go on."""
    rules = [{"id": "interval-interpolation"}, {"id": "missing-quantity"}]
    config = {"groups": {"initial-load": {"rules": rules}}, "silence": "missing", "widespread_outage": {"min_devices": 100} | more}
    hub = Hub(VeeSettings.model_validate(config))
    names = [f"M{number}" for number in range(devices)]
    hub.send(*(interval_row(START, [1.0] * 24, seconds=3600, device=name) for name in names))
    hub.send(*(interval_row(START + 86_400, [1.0] * (12 if n < silent else 48), seconds=3600, device=name) for n, name in enumerate(names)))
    return hub


def closed(hub: Hub, at: float) -> bool:
    """Whether the half day of the first device is closed after a tick, so many days on."""
    hub.tick(START + int(at * 86_400))
    return bool(hub.day(DAY + 1, device="M0", seconds=3600).conditions[20])


@pytest.mark.parametrize(("devices", "silent", "held"), [(100, 30, True), (100, 29, False), (99, 90, False), (200, 199, True)])
def test_many_silent_devices_are_not_estimated_for_a_while(devices: int, silent: int, held: bool) -> None:
    hub = stormy(devices, silent)
    assert closed(hub, 3.1) is not held
    assert closed(hub, 6.1)  # three days later at most


def test_a_device_that_reports_again_is_closed_at_once() -> None:
    hub = stormy(100, 40)
    assert not closed(hub, 3.1)
    hub.send(interval_row(START + 3 * 86_400 - 3600, [1.0, 1.0], seconds=3600, device="M0"))
    assert closed(hub, 3.11)


def test_the_hold_can_be_left_out() -> None:
    assert closed(stormy(100, 40, hold=0), 3.1)
