"""Master data that change back in time: exactly the days concerned are decided again, and the outcome is that of a full rebuild."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.conditions import EST_LIKE_DAY, MISSING, REGULAR, SUSPECT
from schemas.topology.vee import VeeSettings
from tests.vee.driver import MICRO, Hub, interval_row, register_row

DAY = 19_800
START = DAY * 86_400
HOUR = 3600
DAYS = 8
GROUP = {
    "rules": [
        {"id": "multiplier", "severity": "issue"},
        {"id": "inactive-measurement", "severity": "issue", "uninstalled": "issue", "no_account": "info", "grace": "2h"},
        {"id": "negative-consumption", "severity": "issue"},
        {"id": "interval-interpolation", "max_gap": "2h"},
        {"id": "like-day-average", "min_days": 1, "max_days": 3},
        {"id": "sum-check", "severity": "issue"},
        {"id": "zero-consumption", "severity": "info"},
        {"id": "missing-quantity", "severity": "info"},
    ]
}


def config(**more: Any) -> VeeSettings:
    return VeeSettings.model_validate({"groups": {"initial-load": GROUP}, "future_tolerance": "900d"} | more)


def period(begin: int | None, end: int | None, state: str) -> dict[str, Any]:
    return {"from": begin, "to": end, "state": state}


def told(hub: Hub) -> list[tuple[Any, ...]]:
    return sorted((e["rule"], e["severity"], e["channel"], e["start"], e["end"], e["count"], e["detail"]) for e in hub.open())


def outcome(hub: Hub) -> tuple[Any, Any]:
    hub.tick(close=True)
    return {key: final for key, final in hub.finals().items() if any(final[1])}, told(hub)


@st.composite
def masters(draw: st.DrawFn, states: tuple[str, ...] = ("", "", "disconnected", "uninstalled")) -> dict[str, Any]:
    cut, back = sorted(START + HOUR * h for h in draw(st.lists(st.integers(0, 24 * DAYS), min_size=2, max_size=2, unique=True)))
    state = draw(st.sampled_from(states))
    periods = [period(None, cut, "connected"), period(cut, back, state), period(back, None, "connected")]
    return {
        "unit": draw(st.sampled_from(["kWh", "Wh"])), "allow_negative": draw(st.booleans()), "seconds": HOUR,
        "multiplier": draw(st.sampled_from([None, 20 * MICRO, 40 * MICRO])), "service_point": "P1",
        "account": draw(st.sampled_from([None, "A1"])), "periods": periods if state else [],
    }  # fmt: skip


@st.composite
def loads(draw: st.DrawFn) -> list[float | None]:
    values: list[float | None] = [draw(st.sampled_from([0.0, 0.5, 1.0, 2.5])) for _ in range(24 * DAYS)]
    for _ in range(draw(st.integers(0, 4))):
        begin, size = draw(st.integers(0, len(values) - 1)), draw(st.sampled_from([1, 2, 5, 24, 30]))
        what = draw(st.sampled_from([None, -1.0, 0.0]))
        values[begin : begin + size] = [what] * len(values[begin : begin + size])
    return values


@given(values=loads(), before=masters(), after=masters(), closed=st.booleans())
@settings(max_examples=15, deadline=None)
def test_the_outcome_is_that_of_a_rebuild(values: list[float | None], before: dict[str, Any], after: dict[str, Any], closed: bool) -> None:
    changed, rebuilt = Hub(config()), Hub(config())
    for hub, first in ((changed, before), (rebuilt, after)):
        hub.master(**first)
        for day in range(DAYS):
            part = values[24 * day : 24 * day + 24]
            hub.send(interval_row(START + day * 86_400, part, seconds=HOUR, multiplier=20 * MICRO))
            if closed:
                hub.tick(START + (day + 3) * 86_400)
    changed.master(**after)
    assert outcome(changed) == outcome(rebuilt)


@given(values=loads(), before=masters(), after=masters(states=("uninstalled",)), closed=st.booleans(), pieces=st.sampled_from([24, 17, 60]))
@settings(max_examples=12, deadline=None)
def test_reads_of_uninstalled_time_wait_as_in_a_rebuild(
    values: list[float | None], before: dict[str, Any], after: dict[str, Any], closed: bool, pieces: int
) -> None:
    rules = [rule if rule["id"] != "inactive-measurement" else rule | {"uninstalled": "terminate"} for rule in GROUP["rules"]]
    parks = VeeSettings.model_validate({"groups": {"initial-load": {"rules": rules}}, "future_tolerance": "900d"})
    changed, rebuilt = Hub(parks), Hub(parks)
    for hub, first in ((changed, before), (rebuilt, after)):
        hub.master(**first)
        for at in range(0, len(values), pieces):
            hub.send(interval_row(START + at * HOUR, values[at : at + pieces], seconds=HOUR, multiplier=20 * MICRO))
            if closed:
                hub.tick(START + (at // 24 + 3) * 86_400)
    changed.master(**after)
    ended = [outcome(hub) for hub in (changed, rebuilt)]
    parked = [{(rule, channel) for rule, severity, channel, *_ in told if severity == "terminate"} for _, told in ended]
    others = [[one for one in told if one[1] != "terminate"] for _, told in ended]
    assert (ended[0][0], others[0], parked[0]) == (ended[1][0], others[1], parked[1])
    changed.master(**before)
    changed.master(**{**before, "periods": []})
    assert not [e for e in changed.open() if e["severity"] == "terminate"]  # nothing is lost: all is back
    assert sum(len(one.values) for one in changed.days.values()) >= len(values) - 24
    assert sum(int((one.conditions > 0).sum()) for one in changed.days.values()) >= len(values)


def test_intervals_already_taken_in_are_taken_out_and_come_back() -> None:
    rules = [{"id": "inactive-measurement", "grace": "1h"}, {"id": "missing-quantity"}]
    hub = Hub(VeeSettings.model_validate({"groups": {"initial-load": {"rules": rules}}, "future_tolerance": "900d"}))
    hub.master(unit="kWh", seconds=HOUR)
    for day in range(8):
        hub.send(interval_row(START + day * 86_400, [1.0] * 24, seconds=HOUR))
    begin, end = START + 86_400 + 10 * HOUR, START + 7 * 86_400 + 5 * HOUR  # days in the store, and days in the state
    hub.master(unit="kWh", seconds=HOUR, periods=[
        period(None, begin, "connected"), period(begin, end, "uninstalled"), period(end, None, "connected"),
    ])  # fmt: skip
    assert [e["rule"] for e in hub.open()] == ["inactive-measurement"]
    assert hub.day(DAY + 1, seconds=HOUR).conditions.tolist() == [REGULAR] * 11 + [0] * 13
    assert not any(hub.day(DAY + day, seconds=HOUR).conditions.any() for day in range(2, 7))
    assert hub.day(DAY + 7, seconds=HOUR).conditions.tolist() == [0] * 4 + [REGULAR] * 20
    hub.restart()
    hub.master(unit="kWh", seconds=HOUR)
    assert hub.open() == []
    assert all(hub.day(DAY + day, seconds=HOUR).conditions.tolist() == [REGULAR] * 24 for day in range(8))


def test_only_the_days_concerned_are_asked_for() -> None:
    hub = Hub(config())
    hub.master(unit="kWh", seconds=HOUR)
    for day in range(20):
        hub.send(interval_row(START + day * 86_400, [1.0] * 24, seconds=HOUR))
    hub.recalls = 0
    begin = START + 8 * 86_400 + 6 * HOUR
    hub.master(unit="kWh", seconds=HOUR, periods=[
        period(None, begin, "connected"), period(begin, begin + 86_400, "disconnected"), period(begin + 86_400, None, "connected"),
    ])  # fmt: skip
    assert 2 <= hub.recalls <= 4  # the two days and their neighbours
    assert {e["rule"] for e in hub.open()} == {"inactive-measurement"}
    assert int(hub.day(DAY + 8, seconds=HOUR).conditions[20]) == SUSPECT
    hub.recalls = 0
    hub.master(unit="kWh", seconds=HOUR)
    assert 2 <= hub.recalls <= 4
    assert hub.open() == []
    assert int(hub.day(DAY + 8, seconds=HOUR).conditions[20]) == REGULAR


def test_master_data_that_say_the_same_ask_for_nothing() -> None:
    hub = Hub(config())
    same = {"unit": "kWh", "seconds": HOUR, "account": "A", "service_point": "P", "multiplier": MICRO}
    hub.master(**same)
    for day in range(6):
        hub.send(interval_row(START + day * 86_400, [1.0] * 24, seconds=HOUR, multiplier=MICRO))
    hub.master(**same)
    assert hub.recalls == 0


@pytest.mark.parametrize("restart", [False, True])
def test_a_day_in_the_store_that_becomes_wrong_is_not_taken_for_accepted(restart: bool) -> None:
    hub = Hub(config())
    hub.master(unit="kWh", seconds=HOUR, allow_negative=True)
    for day in range(6):
        hub.send(interval_row(START + day * 86_400, [1.0] * 23 + [-1.0 if day == 1 else 1.0], seconds=HOUR))
    hub.answering = False
    hub.master(unit="kWh", seconds=HOUR, allow_negative=False)
    if restart:
        hub.restart()
    hub.answering = True
    hub.deliver()
    assert [e["rule"] for e in hub.open()] == ["negative-consumption"]


def test_days_out_of_service_are_neither_missing_nor_estimated() -> None:
    hub = Hub(config())
    hub.master(unit="kWh", seconds=HOUR, periods=[
        period(None, START + 4 * 86_400 + 12 * HOUR, "connected"),
        period(START + 4 * 86_400 + 12 * HOUR, START + 6 * 86_400 + 12 * HOUR, "disconnected"),
        period(START + 6 * 86_400 + 12 * HOUR, None, "connected"),
    ])  # fmt: skip
    for day in range(4):
        hub.send(interval_row(START + day * 86_400, [1.0] * 24, seconds=HOUR))
    hub.send(interval_row(START + 4 * 86_400, [1.0] * 12, seconds=HOUR))
    hub.send(interval_row(START + 6 * 86_400 + 12 * HOUR, [1.0] * 12, seconds=HOUR))
    hub.send(interval_row(START + 8 * 86_400, [1.0] * 24, seconds=HOUR))
    hub.tick(START + 12 * 86_400)
    assert ("M1", "E1", HOUR, DAY + 5) not in hub.days
    assert hub.day(DAY + 4, seconds=HOUR).conditions[12:].tolist() == [0] * 12
    assert hub.day(DAY + 6, seconds=HOUR).conditions[:12].tolist() == [0] * 12
    assert set(hub.day(DAY + 7, seconds=HOUR).conditions.tolist()) == {EST_LIKE_DAY}  # a gap while connected
    assert hub.rules() == []
    hub.master(unit="kWh", seconds=HOUR)  # it was never disconnected
    hub.tick(START + 13 * 86_400)
    assert set(hub.day(DAY + 5, seconds=HOUR).conditions.tolist()) == {MISSING}  # a Saturday, like no day before
    assert MISSING not in hub.day(DAY + 4, seconds=HOUR).conditions.tolist()


def test_a_multiplier_of_the_register_put_right_is_compared_anew() -> None:
    hub = Hub(config())
    hub.master(channel="E1", unit="kWh", seconds=HOUR, check_channel="R1")
    hub.master(channel="R1", unit="kWh", seconds=0, multiplier=2 * MICRO)
    for day in range(5):
        hub.send(interval_row(START + day * 86_400, [1.0] * 24, seconds=HOUR))
        hub.send(register_row([(START + day * 86_400, 100.0 + 24 * day)]))
    hub.tick(START + 10 * 86_400)
    assert hub.rules().count("sum-check") == 4
    hub.master(channel="R1", unit="kWh", seconds=0, multiplier=MICRO)
    assert hub.rules() == []
