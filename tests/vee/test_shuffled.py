"""Reads, late reads, readings, device events and an edit in any order of arrival, with restarts between: one outcome."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.topology.vee import VeeSettings
from tests.vee.driver import MICRO, Hub, interval_row, register_row

DAY = 19_800
START = DAY * 86_400
HOUR = 3600
CONFIG = VeeSettings.model_validate({"future_tolerance": "900d", "zone": "UTC"})


def parts() -> list[tuple[str, Any]]:
    """Six days with gaps, an outage that explains one of them, a register, and what a person sets."""
    found: list[tuple[str, Any]] = []
    for day in range(6):
        values: list[float | None] = [1.0 + day + (k % 5) / 10 for k in range(24)]
        if day == 1:
            values[8:11] = [0.0, 0.0, 0.0]
        if day == 2:
            values[5:7] = [None, None]
        at = START + day * 86_400
        found += [
            ("reads", interval_row(at, values[:14], seconds=HOUR)),
            ("reads", interval_row(at + 14 * HOUR, values[14:], seconds=HOUR)),
        ]
    found += [("reads", register_row([(START + day * 86_400, 100.0 * day)])) for day in range(6)]
    for kind, hour in (("outage", 8), ("restore", 11)):
        found.append(("event", {"id": kind, "device": "M1", "kind": kind, "at": START + 86_400 + hour * HOUR}))
    found.append(("reads", interval_row(START + 3 * 86_400 + 9 * HOUR, [9.0], seconds=HOUR) | {"codes": [600_000]}))
    return found


def outcome(order: list[int], restarts: list[bool]) -> Any:
    hub, all_ = Hub(CONFIG), parts()
    hub.master(channel="E1", unit="kWh", seconds=HOUR, check_channel="R1")
    hub.master(channel="R1", unit="kWh", seconds=0)
    for number in order:
        kind, body = all_[number]
        hub.send(body) if kind == "reads" else hub.apply("DeviceEvent", body)
        if restarts[number % len(restarts)]:
            hub.restart()
    hub.tick(close=True)
    told = sorted((e["rule"], e["channel"], e["start"], e["detail"]) for e in hub.open() if e["rule"] not in EVENTS)
    return hub.finals(), {key: read[:2] for key, read in hub.reads.items()}, told


EVENTS = ("duplicate-imd", "final-measurement-replacement")  # tell of what happened on the way
EXPECTED = outcome(list(range(len(parts()))), [False])


def test_the_outcome_holds_something_of_each() -> None:
    finals, reads, _ = EXPECTED
    assert (len(finals), len(reads)) == (6, 6)
    assert finals["M1", "E1", HOUR, DAY + 1][1][8:11] == [200_100] * 3
    assert finals["M1", "E1", HOUR, DAY + 3][0][9] == 9 * MICRO


@given(order=st.permutations(range(len(parts()))), restarts=st.lists(st.booleans(), min_size=1, max_size=5))
@settings(max_examples=12, deadline=None)
def test_the_order_of_arrival_makes_no_difference(order: list[int], restarts: list[bool]) -> None:
    assert outcome(order, restarts) == EXPECTED
