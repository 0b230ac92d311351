"""Validations that look beyond the day: master data, runs, history, siblings, register readings."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.block import EXCEPTION, FINALIZED
from schemas.conditions import EST_FLAT, EXT_ESTIMATE, OUTAGE, REGULAR, SUSPECT
from schemas.topology.vee import (
    ConsecutiveInterval,
    Group,
    HighLow,
    InactiveMeasurement,
    IntervalSpike,
    Multiplier,
    NegativeConsumption,
    ProlongedEstimation,
    SiblingImd,
    VeeSettings,
)
from streams.vee.history import BLOCK
from streams.vee.service import CONNECTED, DISCONNECTED, FOREVER, SINCE_EVER, UNINSTALLED, periods_of, served, text_of_periods
from tests.vee.driver import MICRO, Hub, Row, interval_row, register_row

DAY = 19_796  # a multiple of 28: days and blocks of history begin together
START = DAY * 86_400
HOUR, LONG = 3600, 86_400


def with_rules(*rules: Any, **more: Any) -> VeeSettings:
    return VeeSettings(groups={"initial-load": Group(rules=rules)}, absent_days=0, **more)


def hours(day: int, values: list[float], **more: Any) -> Row:
    return interval_row(START + day * LONG, values, seconds=HOUR, **more)


def days(values: list[float], first: int = 0, **more: Any) -> list[Row]:
    return [interval_row(START + (first + k) * LONG, [value], seconds=LONG, **more) for k, value in enumerate(values)]


def told(hub: Hub, rule: str) -> list[tuple[int, str]]:
    """Day and sentence of open exceptions of a rule."""
    found = [e for e in hub.open() if e["rule"] == rule]
    return sorted(((int(e["start"].timestamp()) - START) // LONG, e["detail"]) for e in found)


def both_ways(rules: VeeSettings, rows: list[Row]) -> list[Hub]:
    """Everything at once, and row by row with restarts."""
    one, other = Hub(rules), Hub(rules)
    one.send(*rows)
    for number, row in enumerate(rows):
        other.send(row)
        if number % 5 == 3:
            other.restart()
    return [one, other]


# --- multiplier -----------------------------------------------------------------------------------------------------------------


def test_another_multiplier_is_told_until_master_data_agree() -> None:
    hub = Hub(with_rules(Multiplier()))
    hub.master(multiplier=40 * MICRO)
    hub.send(hours(0, [1.0] * 24, multiplier=20 * MICRO))
    assert told(hub, "multiplier") == [(0, "reads came with multiplier 20, master data say 40")]
    assert hub.day(DAY, seconds=HOUR).state[0] == EXCEPTION
    assert hub.day(DAY, seconds=HOUR).conditions.tolist() == [REGULAR] * 24, "the values themselves are not in doubt"
    hub.restart()
    hub.master(multiplier=20 * MICRO)
    assert told(hub, "multiplier") == []
    assert hub.day(DAY, seconds=HOUR).state[0] == FINALIZED


@pytest.mark.parametrize(
    ("master", "reported", "found"), [(None, 20, False), (40, 0, False), (40, 40, False), (40, 40.00002, False), (40, 40.0001, True)]
)
def test_multipliers_are_compared_where_both_are_known(master: int | None, reported: float, found: bool) -> None:
    hub = Hub(with_rules(Multiplier()))
    hub.master(multiplier=None if master is None else master * MICRO)
    hub.send(hours(0, [1.0], multiplier=round(reported * MICRO)))
    assert bool(told(hub, "multiplier")) is found


def test_without_master_data_no_multiplier_is_wrong() -> None:
    hub = Hub(with_rules(Multiplier()))
    hub.send(hours(0, [1.0], multiplier=20 * MICRO))
    hub.send(hours(1, [1.0], multiplier=30 * MICRO))
    assert hub.open() == []


# --- time in service --------------------------------------------------------------------------------------------------------------


def period(begin: int | None, end: int | None, state: str) -> dict[str, Any]:
    return {"from": begin, "to": end, "state": state}


def test_what_no_period_names_is_uninstalled() -> None:
    text = text_of_periods([period(200, None, "disconnected"), period(100, 200, "connected")])
    assert [tuple(p) for p in periods_of(text)] == [
        (SINCE_EVER, 100, UNINSTALLED), (100, 200, CONNECTED), (200, FOREVER, DISCONNECTED),
    ]  # fmt: skip
    assert served(text) == (100, 200)
    assert [tuple(p) for p in periods_of("")] == [(SINCE_EVER, FOREVER, CONNECTED)]
    assert served(text_of_periods([period(None, None, "uninstalled")])) == (0, 0)
    assert [p.state for p in periods_of(text_of_periods([period(1, 2, "connected"), period(3, 4, "connected")]))] == [
        UNINSTALLED, CONNECTED, UNINSTALLED, CONNECTED, UNINSTALLED,
    ]  # fmt: skip


def test_reads_before_the_meter_was_there_wait_until_master_data_say_otherwise() -> None:
    hub = Hub(with_rules(InactiveMeasurement()))
    hub.master(periods=[period(START + 9 * LONG, None, "connected")])
    hub.send(hours(0, [1.0] * 24))
    assert [e["rule"] for e in hub.open()] == ["inactive-measurement"]
    assert not hub.days
    hub.restart()
    hub.master(periods=[period(START - LONG, None, "connected")])
    assert hub.open() == []
    assert hub.day(DAY, seconds=HOUR).values.tolist() == [MICRO] * 24


def test_a_read_at_the_time_of_removal_belongs_to_the_old_meter() -> None:
    hub = Hub(with_rules(InactiveMeasurement(grace=0)))
    hub.master(channel="R1", periods=[period(START, START + LONG, "connected")])
    hub.send(register_row([(START + LONG, 10.0)]))
    assert hub.open() == []
    hub.send(register_row([(START + 2 * LONG, 11.0)]))
    assert [e["rule"] for e in hub.open()] == ["inactive-measurement"]


def test_the_state_that_counts_most_is_told_with_its_own_severity() -> None:
    rule = InactiveMeasurement(severity="info", uninstalled="issue", no_account="issue", grace=0)
    hub = Hub(with_rules(rule))
    hub.master(
        service_point="SP",
        periods=[period(None, START + 8 * HOUR, "connected"), period(START + 8 * HOUR, START + 16 * HOUR, "disconnected")],
    )
    hub.send(hours(0, [1.0] * 24))
    [one] = hub.open()
    assert (one["severity"], one["detail"], one["count"]) == ("issue", "8 kWh while no meter was installed", 8)
    assert hub.day(DAY, seconds=HOUR).conditions.tolist() == [REGULAR] * 16 + [SUSPECT] * 8
    hub.master(service_point="SP", periods=[period(None, None, "disconnected")])
    [one] = hub.open()
    assert (one["severity"], one["detail"]) == ("info", "24 kWh while the channel was disconnected")
    hub.master(service_point="SP", periods=[])
    assert hub.open()[0]["detail"] == "24 kWh though the service point has no account"
    hub.master(service_point="SP", account="A", periods=[])
    assert hub.open() == []


# --- runs -------------------------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_runs_are_those_of_the_slow_way_in_any_pieces(data: st.DataObject) -> None:
    hot = data.draw(st.sampled_from([2, 3]))
    limit = data.draw(st.integers(1, 60))
    parts = data.draw(st.lists(st.tuples(st.integers(0, 1), st.integers(1, 40)), min_size=1, max_size=8))
    values = [float(v) for v, size in parts for _ in range(size)]
    values += [1.0] * (-len(values) % 24)
    hub = Hub(with_rules(ConsecutiveInterval(min_run=limit * HOUR), hot_days=hot))
    at = 0
    while at < len(values):
        size = data.draw(st.sampled_from([5, 24, 24, 30, 100]))
        hub.send(interval_row(START + at * HOUR, values[at : at + size], seconds=HOUR))
        at += size
        if data.draw(st.booleans()):
            hub.restart()
    expected, run = set(), 0
    for slot, value in enumerate(values):
        run = run + 1 if value == 0 else 0
        if run == limit:
            expected.add(slot // 24)
    assert {day for day, _ in told(hub, "consecutive-interval")} == expected


def test_a_late_value_ends_a_run_in_the_days_that_are_hot() -> None:
    hub = Hub(with_rules(ConsecutiveInterval(min_run=30 * HOUR)))
    hub.send(hours(0, [0.0] * 24, codes=[EXT_ESTIMATE] * 24))
    hub.send(hours(1, [0.0] * 24))
    assert len(told(hub, "consecutive-interval")) == 1
    hub.send(hours(0, [0.0] * 20 + [1.0] * 4))
    hub.send(hours(1, [0.0] * 24))
    assert told(hub, "consecutive-interval") == []


def test_several_rules_follow_runs_of_their_own() -> None:
    rules = with_rules(ConsecutiveInterval(min_run=4 * LONG), ConsecutiveInterval(value="> 0.5", min_run=3 * LONG))
    for hub in both_ways(rules, days([0, 0, 0, 0, 1, 1, 1, 0])):
        assert [day for day, _ in told(hub, "consecutive-interval")] == [3, 6]


# --- history ------------------------------------------------------------------------------------------------------------------------


def test_history_is_the_same_in_any_pieces_and_after_a_restart() -> None:
    values = [10.0 + k % 5 for k in range(3 * BLOCK)]
    values[BLOCK + 3] = values[2 * BLOCK] = 60.0
    rows = days(values)
    found = [told(hub, "high-low") for hub in both_ways(with_rules(HighLow(high=3, floor=1)), rows)]
    assert found[0] == found[1]
    assert [day for day, _ in found[0]] == [BLOCK + 3, 2 * BLOCK]
    mean = sum(values[:BLOCK]) / BLOCK
    assert found[0][0][1] == f"60 kWh in a day, {60 / mean:.3g} times the average day of the 28 days before its block: {mean:.6f} kWh"


def test_a_corrected_day_corrects_the_history() -> None:
    rules = with_rules(HighLow(high=3, floor=1))
    hub = Hub(rules)
    for row in days([10.0] * BLOCK):
        hub.send(row)
    hub.send(*days([1000.0], first=BLOCK))
    hub.send(*days([10.0] * (BLOCK - 1), first=BLOCK + 1))
    hub.send(*days([10.0], first=BLOCK))  # the correction of a day that has left the state
    assert hub.recalls
    hub.send(*days([10.0, 10.0, 40.0], first=2 * BLOCK))
    assert (2 * BLOCK + 2) in [day for day, _ in told(hub, "high-low")]


def test_the_same_weeks_a_year_before_count_where_the_weeks_before_do_not() -> None:
    rules = with_rules(HighLow(high=3, floor=1, history=("previous", "last-year")))
    hub = Hub(rules)
    hub.send(*days([10.0] * BLOCK))
    hub.send(*days([10.0, 50.0], first=13 * BLOCK))
    [(day, words)] = told(hub, "high-low")
    assert (day, "a year before" in words) == (13 * BLOCK + 1, True)


def test_history_moves_with_the_unit_of_the_channel() -> None:
    hub = Hub(with_rules(HighLow(high=3, floor=1)))
    hub.send(*days([10.0] * (BLOCK + 2)))
    hub.master(unit="Wh")
    hub.send(*days([10_000.0, 40_000.0], first=BLOCK + 2, unit="Wh"))
    assert [day for day, _ in told(hub, "high-low")] == [BLOCK + 3]


def test_a_spike_must_stand_out_of_the_past_too() -> None:
    rule = IntervalSpike(history_factor=2, min_intervals=3)
    for hub in both_ways(with_rules(rule), [hours(0, [0.1] * 21 + [6.0] * 3), hours(1, [0.1] * 24), hours(2, [0.1] * 24),
                                             hours(3, [0.1] * 23 + [13.0]), hours(4, [0.1] * 23 + [11.0])]):  # fmt: skip
        assert [day for day, _ in told(hub, "interval-spike")] == [3]


def test_a_spike_does_not_teach_that_spikes_are_usual() -> None:
    rule = IntervalSpike(history_factor=2, min_intervals=3)
    rows = [hours(k, [0.1] * 23 + [13.0 if k in (1, 5) else 0.2]) for k in range(6)]
    for hub in both_ways(with_rules(rule), rows):
        assert [day for day, _ in told(hub, "interval-spike")] == [1, 5]


# --- prolonged estimation -------------------------------------------------------------------------------------------------------------


def test_estimates_go_on_from_the_last_measured_value() -> None:
    rows = days([1.0]) + days([1.0] * 9, first=1, codes=[EXT_ESTIMATE])
    for hub in both_ways(with_rules(ProlongedEstimation(allowed_days=5)), rows):
        assert [day for day, _ in told(hub, "prolonged-estimation")] == [6, 7, 8, 9]


def test_an_outage_is_as_good_as_measured() -> None:
    rows = days([1.0] * 4, codes=[EXT_ESTIMATE]) + days([0.0], first=4, codes=[OUTAGE]) + days([1.0] * 4, first=5, codes=[EST_FLAT])
    for hub in both_ways(with_rules(ProlongedEstimation(allowed_days=4)), rows):
        assert told(hub, "prolonged-estimation") == []


# --- siblings ---------------------------------------------------------------------------------------------------------------------------


def test_siblings_are_missed_after_a_while_and_until_they_come() -> None:
    hub = Hub(with_rules(SiblingImd(wait=2 * HOUR)))
    for k in range(4):
        hub.send(*(hours(k, [1.0] * 24, channel=name) for name in ("A", "B", "C") if (k, name) != (2, "B")))
    hub.tick(START + 3 * LONG + 2 * HOUR - 1)
    assert told(hub, "sibling-imd") == []
    hub.restart()
    hub.tick(START + 3 * LONG + 2 * HOUR)
    assert told(hub, "sibling-imd") == [(2, "no reads for this day of B of the same device")] * 2
    hub.tick(START + 5 * LONG)
    assert len(hub.log[-1:]) == 1
    assert len(told(hub, "sibling-imd")) == 2
    hub.send(hours(2, [1.0] * 24, channel="B"))
    hub.restart()
    hub.tick(START + 5 * LONG + 2)
    assert told(hub, "sibling-imd") == []


def test_a_removed_channel_is_not_missed() -> None:
    hub = Hub(with_rules(SiblingImd()))
    hub.master(channel="A", seconds=HOUR)
    hub.master(channel="B", seconds=HOUR, periods=[period(START, START + LONG, "connected")])
    for k in range(3):
        hub.send(*(hours(k, [1.0] * 24, channel=name) for name in "AB" if (k, name) not in ((1, "B"), (2, "B"))))
    hub.tick(close=True)
    assert told(hub, "sibling-imd") == []


def test_only_the_newest_days_of_siblings_are_compared() -> None:
    hub = Hub(with_rules(SiblingImd()))
    hub.send(*days([1.0] * 200, channel="A"), *days([1.0], channel="B"), *days([1.0], first=199, channel="B"))
    hub.tick(close=True)
    missed = [day for day, _ in told(hub, "sibling-imd")]
    assert missed == list(range(200 - 63, 199))


# --- register readings --------------------------------------------------------------------------------------------------------------------


def readings(hub: Hub, *values: float, first: int = 0, **more: Any) -> None:
    for k, value in enumerate(values):
        hub.send(register_row([(START + (first + k) * LONG, value)], **more))


def test_how_far_a_register_may_roll_over_changes_by_date() -> None:
    change = datetime.fromtimestamp(START + 3 * LONG, UTC).date()
    wide, narrow = NegativeConsumption(effective_to=change), NegativeConsumption(effective_from=change, rollover_percent=1)
    hub = Hub(with_rules(wide, narrow))
    hub.master(channel="R1", dials=5)
    readings(hub, 99_990, 3_000, 99_990, 3_000)
    assert told(hub, "negative-consumption") == [(2, "reading 3000 after 99990: -96990 kWh, more than a rollover explains")]


def test_a_register_may_roll_over_and_may_not_fall() -> None:
    hub = Hub(with_rules(NegativeConsumption()))
    hub.master(channel="R1", dials=5)
    readings(hub, 99_990, 99_999, 3, 0, 50)
    assert told(hub, "negative-consumption") == [(2, "reading 0 after 3: -3 kWh, more than a rollover explains")]
    states = [int(o.body.state[0]) for o in hub.log if o.type == "FinalBlock"]
    assert states == [FINALIZED, FINALIZED, FINALIZED, EXCEPTION, FINALIZED]
    hub.restart()
    readings(hub, 40.0, first=3)
    assert told(hub, "negative-consumption") == []


def test_what_is_found_of_readings_is_the_same_in_any_pieces() -> None:
    rows = [register_row([(START + k * LONG, 10.0 * k + (300 if k > 30 else 0))]) for k in range(60)]
    found = [told(hub, "high-low") for hub in both_ways(with_rules(HighLow(floor=1)), rows)]
    assert found[0] == found[1]
    assert [day for day, _ in found[0]] == [30]


def test_findings_of_readings_do_not_pile_up_in_the_state() -> None:
    hub = Hub(with_rules(NegativeConsumption()))
    readings(hub, *(1000.0 - k for k in range(100)))
    [entry] = [key for key in hub.fold.state.entries if key.startswith("readings/")]
    assert len(hub.fold.state.entries[entry]) <= 40 * 12
    assert len(told(hub, "negative-consumption")) == 99


# --- settings -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule",
    [
        {"id": "consecutive-interval", "value": "about 3"},
        {"id": "consecutive-interval", "value": None},
        {"id": "consecutive-interval", "bands": ["gone"]},
        {"id": "sibling-imd", "eligibility": [{"units": ["kWh"]}]},
        {"id": "sibling-imd", "severity": "terminate"},
        {"id": "high-low", "high": 0.5},
        {"id": "high-low", "history": []},
        {"id": "duplicate-imd", "tell": ["sometimes"]},
        {"id": "prolonged-estimation", "allowed_days": 0},
        {"id": "inactive-measurement", "grace": "long"},
        {"id": "final-measurement-replacement", "ranks": [["missing", "900000-950000"]]},
    ],
)
def test_settings_that_make_no_sense_are_refused(rule: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        VeeSettings.model_validate({"groups": {"initial-load": {"rules": [rule]}}})


def test_only_so_many_rules_follow_runs() -> None:
    with pytest.raises(ValidationError, match="look back 4 times"):
        with_rules(*[ConsecutiveInterval() for _ in range(5)])
    assert with_rules(*[ConsecutiveInterval(look_back=False) for _ in range(5)])
