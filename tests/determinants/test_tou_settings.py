"""TOU maps as written in topology.yaml: what is refused and with which words, and what holds when."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from pydantic import ValidationError

from schemas.topology import TopologyError, default_path, parse_topology
from schemas.topology.tou import Billing, DeterminantsSettings, HolidayCalendar, MapVersion, Season, TouMap
from schemas.topology.usage import UsageSettings
from streams import calendar
from tests.determinants.kit import Hub, Row, day_number, slots


def version(**extra: Any) -> dict[str, Any]:
    return {"default": "offpeak", "schedule": [{"period": "peak", "days": ["mon-fri"], "from": "07:00", "to": "22:00"}]} | extra


def refusal(model: Any, data: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as error:
        model.model_validate(data)
    return "\n".join(e["msg"] for e in error.value.errors())


def period_at(made: MapVersion, day: str, hour: int) -> str | None:
    second = hour * 3600
    return next((w.period for w in made.windows_of(date.fromisoformat(day)) if w.start <= second < w.end), made.default)


def test_default_has_one_map_for_energy_only() -> None:
    settings = DeterminantsSettings.default()
    for unit in ("kWh", "KWH", "Wh", "kvarh"):
        found = settings.maps_of(unit, "delivered", "E1", "a")[0][1]
        assert found is not None
        assert set(found.periods()) == {"peak", "shoulder", "offpeak"}
    assert settings.maps_of("m3", "none", "V1", "a")[0][1] is None


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        (
            [{"period": "peak", "from": "07:00", "to": "12:00"}, {"period": "high", "from": "11:00", "to": "13:00"}],
            ["on mon", "11:00 to 12:00", "both peak and high", "priority 100"],
        ),
        ([{"period": "peak", "from": "22:00", "to": "06:00"}], ["22:00 to 06:00 is empty", "over midnight"]),
        ([{"period": "peak", "from": "07:00", "to": "07:00"}], ["is empty"]),
        ([{"period": "peak", "from": "7:00", "to": "12:00"}], ["time of day", "'7:00'"]),
        ([{"period": "peak", "from": "24:30"}], ["24:30"]),
        ([{"period": "peak", "days": ["monday"]}], ["weekdays such as mon", "'monday'"]),
        ([{"period": "peak", "days": []}], ["at least 1 item"]),
        ([{"period": "peak", "seasons": ["winter"]}], ["rule 1 (peak)", "'winter'"]),
        ([{"period": "", "from": "07:00"}], ["pattern"]),
    ],
)
def test_schedules_that_cannot_be_meant_are_refused(schedule: list[dict[str, Any]], words: list[str]) -> None:
    message = refusal(MapVersion, version(schedule=schedule))
    for word in words:
        assert word in message


def test_overlap_is_decided_by_priority_and_allowed_for_one_period() -> None:
    rules = [
        {"period": "peak", "from": "07:00", "to": "12:00", "priority": 20},
        {"period": "critical", "from": "11:00", "to": "13:00", "priority": 10},
        {"period": "peak", "from": "06:00", "to": "08:00", "priority": 20},
    ]
    made = MapVersion.model_validate(version(schedule=rules))
    assert [period_at(made, "2024-03-04", hour) for hour in (5, 6, 7, 10, 11, 12, 13)] == [
        "offpeak", "peak", "peak", "peak", "critical", "critical", "offpeak",
    ]  # fmt: skip


def test_without_a_default_the_rules_must_cover_every_kind_of_day() -> None:
    night = {"period": "night", "from": "00:00", "to": "07:00"}
    day = {"period": "day", "from": "07:00", "to": "24:00"}
    MapVersion.model_validate({"schedule": [night, day]})
    message = refusal(MapVersion, {"schedule": [night, day | {"days": ["mon-sat"]}]})
    assert "on sun, 07:00 to 24:00 is in no period" in message
    seasons = {"summer": {"from": "06-01", "to": "08-31"}}
    message = refusal(MapVersion, {"seasons": seasons, "schedule": [night, day | {"seasons": ["summer"]}]})
    assert "outside all seasons, 07:00 to 24:00 is in no period" in message
    holiday = {"holidays": {"dates": ["2024-12-24"]}, "holiday_schedule": [night]}
    assert "on holidays, 07:00 to 24:00 is in no period" in refusal(MapVersion, {"schedule": [night, day], **holiday})


def test_overlap_only_where_seasons_meet_is_found() -> None:
    seasons = {"summer": {"from": "11-01", "to": "03-31"}, "school": {"from": "03-15", "to": "06-30"}}
    rules = [
        {"period": "a", "seasons": ["summer"], "from": "08:00", "to": "10:00", "days": ["sat"]},
        {"period": "b", "seasons": ["school"], "from": "09:00", "to": "11:00", "days": ["sat-sun"]},
    ]
    message = refusal(MapVersion, version(seasons=seasons, schedule=rules))
    assert "on sat in season summer and school, 09:00 to 10:00 is both a and b" in message


def test_seasons_run_over_the_new_year() -> None:
    season = Season.model_validate({"from": "11-01", "to": "02-29"})
    assert [season.holds(m, d) for m, d in ((10, 31), (11, 1), (12, 31), (1, 1), (2, 28), (2, 29), (3, 1))] == [
        False, True, True, True, True, True, False,
    ]  # fmt: skip
    assert "day of the year" in refusal(Season, {"from": "02-30", "to": "03-01"})


def test_weekday_ranges_wrap() -> None:
    made = MapVersion.model_validate(version(schedule=[{"period": "peak", "days": ["sat-mon", "wed"]}]))
    assert made.schedule[0].days == ("sat", "sun", "mon", "wed")


def test_holidays_of_a_country_with_an_explicit_observed_rule() -> None:
    assert "observed must be said" in refusal(HolidayCalendar, {"country": "US"})
    assert "no holiday calendar is known for XX" in refusal(HolidayCalendar, {"country": "XX", "observed": True})
    assert "no holiday calendar is known for US/ZZ" in refusal(HolidayCalendar, {"country": "US", "subdivision": "ZZ", "observed": True})
    assert "need a country" in refusal(HolidayCalendar, {"observed": True})
    moved = HolidayCalendar.model_validate({"country": "US", "observed": True})
    kept = HolidayCalendar.model_validate({"country": "US", "observed": False})
    # 4 July 2021 was a Sunday, 1 January 2022 a Saturday: observed on the Monday after and the Friday before
    assert [moved.holds(date(2021, 7, d)) for d in (4, 5)] == [True, True]
    assert [kept.holds(date(2021, 7, d)) for d in (4, 5)] == [True, False]
    assert moved.holds(date(2021, 12, 31))
    assert not kept.holds(date(2021, 12, 31))


def test_listed_dates_come_on_top_and_can_be_taken_away() -> None:
    made = HolidayCalendar.model_validate(
        {"country": "AU", "subdivision": "NSW", "observed": True, "dates": ["2012-03-14"], "without": ["2012-12-26"]}
    )
    assert made.holds(date(2012, 3, 14))
    assert made.holds(date(2012, 12, 25))
    assert not made.holds(date(2012, 12, 26))
    assert not made.holds(date(2012, 12, 27))


def test_on_holidays_only_the_holiday_schedule_holds() -> None:
    made = MapVersion.model_validate(
        version(holidays={"dates": ["2024-03-04"]}, holiday_schedule=[{"period": "holiday", "from": "10:00", "to": "12:00"}])
    )
    assert [period_at(made, "2024-03-04", hour) for hour in (8, 10, 12)] == ["offpeak", "holiday", "offpeak"]
    assert [period_at(made, "2024-03-05", hour) for hour in (8, 10, 22)] == ["peak", "peak", "offpeak"]
    assert "come together" in refusal(MapVersion, version(holidays={"dates": ["2024-03-04"]}))
    assert "come together" in refusal(MapVersion, version(holiday_schedule=[]))


def test_times_are_multiples_of_the_slot() -> None:
    odd = version(schedule=[{"period": "peak", "from": "07:10", "to": "12:00"}])
    assert "07:10 is no multiple of the slot of 1800 s" in refusal(TouMap, {"id": "m", "slot": "30m", "versions": [odd]})
    assert TouMap.model_validate({"id": "m", "slot": "5m", "versions": [odd]}).grid() == 600
    assert "does not divide a day" in refusal(TouMap, {"id": "m", "slot": "7h", "versions": [version()]})
    assert "IANA" in refusal(TouMap, {"id": "m", "zone": "Mars/Olympus", "versions": [version()]})


def test_versions_follow_their_dates() -> None:
    later = version(default="low") | {"from": "2024-07-01"}
    made = TouMap.model_validate({"id": "m", "versions": [version(), later]})
    assert [made.version_of(date(2024, *d)).default for d in ((6, 30), (7, 1))] == ["offpeak", "low"]  # type: ignore[union-attr]
    assert made.periods() == ("peak", "offpeak", "low")
    assert TouMap.model_validate({"id": "m", "versions": [later]}).version_of(date(2024, 6, 30)) is None
    for wrong in ([later, version()], [later, later], [later, version() | {"from": "2024-06-01"}]):
        assert "order of their dates" in refusal(TouMap, {"id": "m", "versions": wrong})


def test_maps_are_assigned_by_the_first_rule_that_matches() -> None:
    maps = [{"id": name, "versions": [version()]} for name in ("one", "two", "three")]
    assign = [
        {"map": None, "units": ["kWh"], "directions": ["received"]},
        {"map": "two", "channels": ["CL*"]},
        {"map": "three", "accounts": ["big-*", "huge"]},
    ]
    settings = DeterminantsSettings.model_validate({"maps": maps, "default_map": "one", "assign": assign})

    def assigned(unit: str, direction: str, channel: str, account: str) -> str | None:
        found = settings.maps_of(unit, direction, channel, account)[0][1]
        return found.id if found else None

    assert assigned("kWh", "received", "CL1", "huge") is None
    assert assigned("KWH", "delivered", "CL1", "huge") == "two"
    assert assigned("kWh", "delivered", "E1", "big-7") == "three"
    assert assigned("kWh", "delivered", "cl1", "bigger") == "one"
    assert "there is no map 'x'; known: one, three, two" in refusal(DeterminantsSettings, {"maps": maps, "default_map": "x"})
    assert "defined 2 times" in refusal(DeterminantsSettings, {"maps": [maps[0], maps[0]]})


def test_billing_cycles_by_account() -> None:
    billing = Billing.model_validate({"versions": [{"cycle_day": 1, "cycles": [{"accounts": ["b*"], "cycle_day": 15}]}], "delay": "36h"})
    assert (billing.cycles_of("a"), billing.cycles_of("b1"), billing.delay) == ([(None, 1)], [(None, 15)], 36 * 3600)
    assert "less than or equal to 28" in refusal(Billing, {"versions": [{"cycle_day": 29}]})


def test_errors_name_the_line_of_the_file() -> None:
    text = default_path().read_text()
    section = (
        "\ndeterminants:\n  maps:\n    - id: m\n      versions:\n        - default: low\n          schedule:\n"
        "            - {period: peak, from: 07:00, to: 12:00}\n            - {period: high, from: 11:00, to: 13:00}\n"
    )
    cut = text.find("\ndeterminants:")
    base = text if cut < 0 else text[:cut] + "\n"
    line = base.count("\n") + section[: section.index("- default")].count("\n") + 1
    with pytest.raises(TopologyError, match=rf"topology.yaml:{line}: determinants.maps\[0\].versions\[0\]: on mon, 11:00 to 12:00 is both"):
        parse_topology(base + section)


def dated() -> DeterminantsSettings:
    """Two maps of one period each: a holds to the end of March, b from April on, c for water."""
    maps = [{"id": name, "versions": [{"default": name.upper()}]} for name in "abc"]
    assign = [
        {"map": "a", "units": ["kWh"], "to": "2026-04-01"}, {"map": "b", "units": ["kWh"], "from": "2026-04-01"},
        {"map": "c", "units": ["m3"]},
    ]  # fmt: skip
    return DeterminantsSettings.model_validate({"maps": maps, "assign": assign})


def test_who_is_billed_by_which_map_has_dates() -> None:
    found = dated().maps_of("kWh", "delivered", "E1", "a1")
    assert [(since and since.isoformat(), tou and tou.id) for since, tou in found] == [(None, "a"), ("2026-04-01", "b")]
    assert [since for since, _ in dated().maps_of("m3", "none", "V", "a1")] == [None]


def test_a_channel_changes_its_map_with_the_period_and_usage_on_the_day() -> None:
    rules = [{"id": "interval-data", "as": "e"}, {"id": "tou-mapped-usage", "as": "t", "curve": "e"}]
    cycles = {"late": [{"day": 15}]}
    group = {"id": "g", "accounts": ["a*"], "versions": [{"rules": rules}]}
    hub = Hub(dated(), usage=UsageSettings.model_validate({"groups": [group], "cycles": cycles}))
    first = day_number("2026-03-15")
    empty = dict.fromkeys(("commodity", "usage_group", "rate", "payment", "customer_class", "region", "zone"))
    period = {"from": None, "to": None, "account": "c", "service_points": [], **empty, "billing_cycle": "late", "attributes": {}}
    hub.send("UsageSubscription", {"subscription": "a1", "version": 1, "periods": [period], "changed": []})
    rows = [Row(day, [1_000_000] * slots("Europe/Berlin", day, 3600), seconds=3600) for day in range(first, first + 31)]
    hub.give(*rows[:20])
    hub.restart()
    hub.give(*rows[20:])
    hub.close()
    lines = {(body["period_start"].month, body["tou"]): int(body["quantity"]) for body in hub.latest().values() if body["tou"]}
    assert lines == {(2, "A"): 17 * 24 - 1, (3, "B"): 14 * 24}  # local March begins in February, UTC
    told = {q["tou"]: int(q["quantity"]) for q in hub.usage_sent[-1]["quantities"] if q["name"] == "t"}
    assert told == {"A": 17 * 24 - 1, "B": 14 * 24}


def test_a_profile_has_dates_too() -> None:
    rules = [
        {"id": "scalar-details", "as": "used", "readings": False},
        {"id": "profile-accumulation", "as": "spread", "from": "used", "profile": "p", "seconds": "12h"},
        {"id": "math", "as": "mornings", "unit": "count", "formula": "count(spread > 1.5)"},
    ]
    profile = [{"weights": [1, 0]}, {"from": "2026-03-21", "weights": [0, 0]}]
    group = {"id": "g", "accounts": ["a*"], "versions": [{"rules": rules}]}
    hub = Hub(usage=UsageSettings.model_validate({"groups": [group], "profiles": {"p": profile}}))
    start = int(calendar.start_of("UTC", day_number("2026-03-01")))
    reads: dict[str, Any] = {"seconds": 0, "zone": "UTC", "times": [start + 60, start + 31 * 86_400], "dials": 6}
    hub.give(Row(0, [0, 40_000_000], **reads))
    hub.tick("2026-04-01T06:00:00")
    told = {q["name"]: q["quantity"] for q in hub.usage_sent[-1]["quantities"]}
    assert (told["spread"], told["mornings"]) == (40, 20)  # two kWh in each of the first twenty mornings
