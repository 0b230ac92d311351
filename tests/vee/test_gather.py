"""Open days that get interval after interval are published now and then, and come to the same in the end."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.topology.vee import VeeSettings
from tests.vee.driver import Hub, Row, interval_row
from tests.vee.test_clean import FIRST, TALKATIVE, deliveries, masters

DAY = FIRST // 86_400
QUARTER = 900


def hub_of(gather: int, **more: Any) -> Hub:
    return Hub(VeeSettings(zone="UTC", gather=gather, future_tolerance=900 * 86_400, **more))


def push(hub: Hub, slot: int, meters: int = 3, value: float = 0.5) -> Any:
    """One interval of each of some meters."""
    return hub.send(*(interval_row(FIRST + slot * QUARTER, [value], device=f"M{number}") for number in range(meters)))


def versions(hub: Hub) -> int:
    return sum(output.type == "FinalBlock" for output in hub.log)


def test_an_open_day_is_published_once_in_a_while() -> None:
    hub = hub_of(60)
    hub.tick(FIRST)
    assert "until" not in push(hub, 0).figures  # the first of a day goes out at once
    assert versions(hub) == 1
    for slot in range(1, 10):
        assert push(hub, slot).figures["until"] == FIRST + 60
    hub.tick(FIRST + 58)
    assert versions(hub) == 1
    hub.tick(FIRST + 60)
    assert versions(hub) == 2
    assert hub.day(DAY, "M1").conditions[:12].tolist() == [500_000] * 10 + [0] * 2
    assert int(hub.day(DAY, "M1").replaces[0]) > 0
    hub.tick(FIRST + 600)
    assert versions(hub) == 2  # nothing came
    assert "until" not in push(hub, 10).figures  # long ago: at once
    assert versions(hub) == 3


def test_without_a_clock_or_without_the_setting_nothing_waits() -> None:
    for hub in (hub_of(60), hub_of(0)):
        if not hub.settings.gather:
            hub.tick(FIRST)
        for slot in range(4):
            push(hub, slot)
        assert versions(hub) == 4


def test_a_day_that_becomes_whole_waits_for_its_tick_too() -> None:
    hub = hub_of(60)
    hub.tick(FIRST)
    for slot in range(96):
        push(hub, slot)
    assert versions(hub) == 1
    hub.tick(FIRST + 60)
    assert versions(hub) == 2
    assert [int(hub.day(DAY, f"M{number}").state[0]) for number in range(3)] == [1, 1, 1]


def test_what_must_be_told_or_decided_at_once_is() -> None:
    hub = hub_of(3600)
    hub.tick(FIRST)
    push(hub, 0)
    push(hub, 1)
    hub.send(interval_row(FIRST + 2 * QUARTER, [None], device="M1"))  # reported as missing
    push(hub, 1, value=0.7)  # contradicts what was received
    assert "final-measurement-replacement" in hub.rules()
    hub.master(device="M2", channel="E1", allow_negative=True)
    assert int((hub.day(DAY, "M2").conditions > 0).sum()) == 2
    push(hub, 3)
    push(hub, 97)  # the next day
    assert int((hub.day(DAY, "M0").conditions > 0).sum()) >= 2


def test_days_that_wait_survive_a_restart() -> None:
    hub = hub_of(60)
    hub.tick(FIRST)
    push(hub, 0)
    push(hub, 1)
    hub.restart()
    assert versions(hub) == 1
    hub.tick(FIRST + 60)
    assert versions(hub) == 2


def pushes(rows: list[Row], seconds: int) -> list[list[Row]]:
    """Short rows interval by interval, the first of all rows, then the second; long ones whole."""
    short = [row for row in rows if len(row["values"]) <= 4 and not row.get("times")]
    parts = [[row for row in rows if row not in short]]
    for k in range(4):
        cells = [row for row in short if k < len(row["values"])]
        parts.append(
            [{**r, "start": r["start"] + k * seconds, "values": r["values"][k : k + 1], "codes": r["codes"][k : k + 1]} for r in cells]
        )
    return [part for part in parts if part]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_finals_exceptions_and_state_are_those_without_waiting(data: st.DataObject) -> None:
    more: dict[str, Any] = {"hot_days": data.draw(st.sampled_from([2, 3])), "silence": data.draw(st.sampled_from(["wait", "missing"]))}
    if data.draw(st.booleans()):
        more["groups"] = {"initial-load": TALKATIVE}
    hubs = [hub_of(gather, **more) for gather in (0, data.draw(st.sampled_from([10, 3600, 2 * 86_400])))]
    seconds, sent = data.draw(deliveries())
    if data.draw(st.booleans()):
        body = masters(data, 0)
        for hub in hubs:
            hub.master(**body)
    now = FIRST
    for hub in hubs:
        hub.tick(now)
    for number, rows in enumerate(sent[:5]):
        event = data.draw(st.sampled_from(["", "", "tick", "outage", "restart", "master"]))
        now += data.draw(st.sampled_from([2, 60, 7200]))
        for part in pushes(rows, seconds):
            for hub in hubs:
                hub.send(*part, name=f"b{number}", received_at=FIRST)
        for hub in hubs:
            if event == "tick":
                hub.tick(now)
            elif event == "outage":
                for kind, at_ in (("outage", 3600), ("restore", 9000)):
                    hub.apply("DeviceEvent", {"device": "M0", "kind": kind, "at": FIRST + number * 86_400 + at_})
            elif event == "restart":
                hub.restart()
            elif event == "master":
                hub.master(device="M0", allow_negative=bool(number % 2))
    for hub in hubs:
        hub.tick(close=True)
    plain, gathered = hubs
    assert plain.finals() == gathered.finals()
    assert plain.reads.keys() == gathered.reads.keys()
    told = [sorted((e["rule"], e["device"], e["channel"], str(e["start"]), e["count"], e["detail"]) for e in hub.open()) for hub in hubs]
    assert told[0] == told[1], set(told[0]) ^ set(told[1])
    for name, table in plain.fold.state.tables.items():
        for column in table.columns:
            # closed: a whole day that asks the store for others when all is closed counts as closed until these are there
            if column not in ("version", "published", "closed"):
                found = gathered.fold.state.tables[name][column][: len(table)]
                np.testing.assert_array_equal(table[column][: len(table)], found, f"{name}.{column}")
    assert gathered.fold.days.ripe(seconds, close=True).size == 0
