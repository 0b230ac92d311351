"""Rules on batches: settings, extremes, severities, eligibility, effective dates."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from schemas import rules as names
from schemas.block import EXCEPTION, FINALIZED
from schemas.conditions import EST_FLAT, EST_INTERPOLATED, EXT_ESTIMATE, OUTAGE, REGULAR, SUPER, SUSPECT
from schemas.topology.vee import Group, IntervalInterpolation, IntervalSpike, MissingQuantity, NegativeConsumption, VeeSettings
from streams.vee.engine import run
from streams.vee.rules import ESTIMATIONS, EVENTS, VALIDATIONS
from tests.vee.driver import MICRO, Hub, interval_row

DAY = 19_800
START = DAY * 86_400
HOUR = 3600
BIG = 4_000_000_000_000_000_000


def with_rules(*rules: Any, **more: Any) -> VeeSettings:
    return VeeSettings(groups={"initial-load": Group(rules=rules)}, **more)


def sent(settings: VeeSettings | None, values: list[float | None], **more: Any) -> Hub:
    hub = Hub(settings)
    hub.send(interval_row(START, values, seconds=HOUR, **more))
    hub.tick(close=True)
    return hub


def raw(values: list[int], settings: VeeSettings | None = None) -> Hub:
    hub = Hub(settings)
    row = interval_row(START, [0.0] * len(values), seconds=HOUR)
    row["values"] = values
    hub.send(row)
    hub.tick(close=True)
    return hub


def test_every_registered_rule_is_known_and_has_settings() -> None:
    assert {*VALIDATIONS, *EVENTS} <= set(names.VALIDATIONS)
    assert set(ESTIMATIONS) <= set(names.ESTIMATIONS)
    placed = {rule.id for rule in VeeSettings.default().group().rules}
    elsewhere = {"unit-of-measure", "interval-size", "sibling-imd", "scalar-proration", "scalar-estimation"}
    assert placed | {"profile"} == {*VALIDATIONS, *ESTIMATIONS, *EVENTS, *elsewhere}


# --- extremes -----------------------------------------------------------------------------------------------------------------


def test_the_largest_values_neither_overflow_nor_pass_for_a_spike() -> None:
    hub = raw([BIG] * 24)
    assert hub.rules() == []
    assert hub.day(DAY, seconds=HOUR).values.tolist() == [BIG] * 24


def test_one_value_at_the_edge_of_what_can_be_held_is_a_spike() -> None:
    assert raw([MICRO] * 23 + [BIG]).rules() == ["interval-spike"]
    assert raw([BIG, *[0] * 23]).rules() == ["interval-spike"]


def test_gaps_between_the_largest_values_are_exact() -> None:
    row = interval_row(START, [0.0, None, None, 0.0], seconds=HOUR)
    row["values"][0], row["values"][3] = -BIG, BIG
    hub = Hub(with_rules(IntervalInterpolation()))
    hub.send(row)
    values = hub.day(DAY, seconds=HOUR).values[1:3].tolist()
    assert values[0] == -values[1] == pytest.approx(-BIG / 3, abs=1)


def test_a_negative_extreme_is_flagged() -> None:
    assert raw([-BIG, *[MICRO] * 23]).rules() == ["interval-spike", "negative-consumption"]


# --- spike --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("peak", "found"), [(21.0, []), (21.000001, ["interval-spike"])])
def test_the_tolerance_is_exact(peak: float, found: list[str]) -> None:
    assert sent(None, [1.0] * 23 + [peak]).rules() == found


@pytest.mark.parametrize(("peak", "found"), [(1.0, []), (1.000001, ["interval-spike"])])
def test_nothing_up_to_the_floor_is_a_spike(peak: float, found: list[str]) -> None:
    assert sent(None, [0.0] * 23 + [peak]).rules() == found


def test_two_equal_spikes_are_both_suspect() -> None:
    hub = sent(None, [0.5] * 22 + [40.0, 40.0])
    assert hub.open()[0]["count"] == 2
    assert hub.day(DAY, seconds=HOUR).conditions[22:].tolist() == [SUSPECT] * 2


def test_a_verified_peak_is_no_spike() -> None:
    assert sent(None, [0.5] * 23 + [40.0], codes=[REGULAR] * 23 + [SUPER]).rules() == []


def test_outage_zeros_do_not_make_the_rest_a_spike() -> None:
    codes = [OUTAGE] * 10 + [REGULAR] * 14
    assert sent(with_rules(IntervalSpike(min_intervals=14)), [0.0] * 10 + [2.0] * 14, codes=codes).rules() == []
    assert sent(with_rules(IntervalSpike(min_intervals=15)), [0.0] * 10 + [90.0] + [2.0] * 13, codes=codes).rules() == []


def test_spikes_of_feed_in_written_as_negative_values_are_seen() -> None:
    assert sent(with_rules(IntervalSpike()), [-0.5] * 23 + [-40.0]).rules() == ["interval-spike"]


# --- severities, effective dates, eligibility -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("severity", "state", "code"), [("info", FINALIZED, REGULAR), ("issue", EXCEPTION, SUSPECT), ("terminate", EXCEPTION, SUSPECT)]
)
def test_severities(severity: str, state: int, code: int) -> None:
    hub = sent(with_rules(NegativeConsumption(severity=severity), MissingQuantity()), [-1.0, None, None, None, 1.0])  # type: ignore[arg-type]
    final = hub.day(DAY, seconds=HOUR)
    assert (int(final.state[0]), int(final.conditions[0])) == (state, code)
    assert ("missing-quantity" in hub.rules()) == (severity != "terminate"), "a terminating finding ends the row"


def test_a_rule_is_applied_to_days_in_its_effective_period() -> None:
    day = date.fromordinal(date(1970, 1, 1).toordinal() + DAY)
    after, before = date.fromordinal(day.toordinal() + 1), date.fromordinal(day.toordinal() - 1)
    assert sent(with_rules(NegativeConsumption(effective_from=after)), [-1.0]).rules() == []
    assert sent(with_rules(NegativeConsumption(effective_to=day)), [-1.0]).rules() == []
    assert sent(with_rules(NegativeConsumption(effective_from=before, effective_to=after)), [-1.0]).rules() == ["negative-consumption"]
    assert sent(with_rules(IntervalInterpolation(effective_from=after)), [1.0, None, 1.0]).day(DAY, seconds=HOUR).methods.max() == 0


@pytest.mark.parametrize(
    ("eligibility", "otherwise", "found"),
    [
        ([{"units": ["kWh"], "then": "skip"}], "apply", False),
        ([{"units": ["Wh"], "then": "skip"}], "apply", True),
        ([{"quantities": ["energy"], "seconds": [900], "then": "skip"}, {"directions": ["delivered"], "then": "apply"}], "skip", True),
        ([{"directions": ["received"], "then": "apply"}], "skip", False),
    ],
)
def test_the_first_criterion_that_fits_decides(eligibility: list[dict[str, Any]], otherwise: str, found: bool) -> None:
    rule = NegativeConsumption.model_validate({"eligibility": eligibility, "otherwise": otherwise})
    assert (sent(with_rules(rule), [-1.0], direction=1).rules() == ["negative-consumption"]) is found


def test_a_rule_may_look_again_after_estimation() -> None:
    group = with_rules(NegativeConsumption(), IntervalInterpolation(), NegativeConsumption(per="day"))
    hub = sent(group, [-3.0, None, 1.0])
    assert hub.rules() == ["negative-consumption"]
    assert hub.open()[0]["count"] == 3


# --- interpolation ----------------------------------------------------------------------------------------------------------------


def test_the_longest_gap_is_a_duration() -> None:
    for limit, filled in ((2 * HOUR, False), (3 * HOUR, True)):
        hub = sent(with_rules(IntervalInterpolation(max_gap=limit)), [1.0, None, None, None, 5.0])
        assert (hub.day(DAY, seconds=HOUR).values[1:4].tolist() == [2 * MICRO, 3 * MICRO, 4 * MICRO]) is filled


def test_estimates_of_the_source_may_be_leant_on() -> None:
    hub = sent(None, [1.0, None, 3.0], codes=[EXT_ESTIMATE, 110_000, EXT_ESTIMATE])
    assert hub.day(DAY, seconds=HOUR).conditions[1] == EST_INTERPOLATED


def test_a_gap_longer_over_midnight_than_in_its_day_is_not_filled() -> None:
    hub = Hub()
    hub.send(interval_row(START + 22 * HOUR, [1.0, None], seconds=HOUR))
    assert hub.day(DAY, seconds=HOUR).conditions[23] == EST_FLAT
    hub.send(interval_row(START + 24 * HOUR, [None, None, 5.0], seconds=HOUR))
    assert hub.day(DAY, seconds=HOUR).methods[23] == 0
    assert sorted(e["count"] for e in hub.open()) == [1, 2]


def test_unusable_values_are_estimated_and_kept_as_received() -> None:
    hub = sent(None, [1.0, 9.0, 3.0], codes=[REGULAR, 10_000, REGULAR])
    final = hub.day(DAY, seconds=HOUR)
    assert final.values[:3].tolist() == [MICRO, 2 * MICRO, 3 * MICRO]
    assert final.received[:3].tolist() == [MICRO, 9 * MICRO, 3 * MICRO]
    assert final.received_conditions[1] == 10_000


# --- settings -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "section",
    [
        {"groups": {"initial-load": {"rules": []}}},
        {"groups": {"initial-load": {"rules": [{"id": "no-such-rule"}]}}},
        {"groups": {"initial-load": {"rules": [{"id": "interval-spike", "tolerance": 5}]}}},
        {"groups": {"initial-load": {"rules": [{"id": "unit-of-measure", "severity": "info"}]}}},
        {"groups": {"initial-load": {"rules": [{"id": "duplicate-imd"}, {"id": "duplicate-imd"}]}}},
        {"groups": {"initial-load": {"rules": [{"id": "interval-interpolation", "condition": 500_000}]}}},
        {"groups": {"initial-load": {"rules": [{"id": "interval-interpolation", "max_gap": "1d"}]}}},
        {"groups": {"initial-load": {"rules": [{"id": "missing-quantity", "exempt_bands": ["gone"]}]}}},
        {"groups": {"initial-load": {"rules": [{"id": "final-measurement-replacement", "ranks": [["regular"]]}]}}},
        {"groups": {"initial-load": {"rules": [{"id": "zero-consumption", "quantities": ["heat"]}]}}},
        {"groups": {"initial-load": {"rules": [{"id": "zero-consumption", "effective_from": "2025-01-02", "effective_to": "2025-01-02"}]}}},
        {"roles": {"estimation": "initial-load"}},
        {"hot_days": 1},
        {"lateness": "soon"},
    ],
)
def test_settings_that_make_no_sense_are_refused(section: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        VeeSettings.model_validate(section)


def test_settings_as_written() -> None:
    settings = VeeSettings.model_validate(
        {
            "lateness": "36h",
            "groups": {"strict": {"rules": [{"id": "interval-spike", "floor": "0.5", "effective_from": "2024-01-01"}]}},
            "roles": {"initial-load": "strict"},
        }
    )
    [rule] = settings.group("estimation").rules
    assert settings.lateness == 36 * HOUR
    assert isinstance(rule, IntervalSpike)
    assert (rule.floor, rule.days[0]) == (500_000, 19_723)
    assert settings.within("Europe/Berlin").zone == "Europe/Berlin"
    assert settings.within("Europe/Berlin").within("UTC").zone == "Europe/Berlin"


def test_the_engine_takes_an_empty_batch() -> None:
    from streams.vee.batch import Attributes, DayBatch, Edges

    none, flat = np.zeros((0, 24), np.int64), np.zeros(0, np.int64)
    attributes = Attributes(flat, flat, flat > 0, [])
    batch = DayBatch(
        HOUR, none, none.astype(np.int32), none.astype(np.int8), none > 0, none > 0, flat > 0, flat, flat, flat, attributes,
        Edges.none(0), Edges.none(0), flat > 0,
    )  # fmt: skip
    assert run(VeeSettings.default().group(), batch) == []


def test_state_of_a_quarter_hour_channel_fits_three_kilobytes() -> None:
    hub = Hub()
    hub.send(*(interval_row(START, [1.0] * 96, device=f"D{k}") for k in range(640)))
    hub.fold.days.keeper.history.table(900)
    tables = hub.fold.state.tables
    room = {name: len(table[next(iter(table.columns))]) for name, table in tables.items()}  # rows made beforehand take no memory yet
    assert sum(table.nbytes() / room[name] for name, table in tables.items() if room[name]) <= 3072
