"""Settings that say when and how periods are billed hold from a date on; what was before stays as it was."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.topology.tou import Billing, DeterminantsSettings
from schemas.topology.usage import Cycle, UsageSettings
from streams import calendar
from streams.determinants.fold import DeterminantsFold
from streams.determinants.periods import Schedules
from streams.determinants.usage.cycles import dated, period_at, usual
from streams.runtime.state import LayoutError
from tests.determinants.kit import EPOCH, Hub, Row, day_number, slots

EMPTY = dict.fromkeys(("commodity", "usage_group", "rate", "payment", "customer_class", "region", "zone"))


def billing(*versions: tuple[str | None, int]) -> dict[str, object]:
    return {"versions": [{"cycle_day": day} | ({"from": since} if since else {}) for since, day in versions]}


def determinants(*versions: tuple[str | None, int], **more: object) -> DeterminantsSettings:
    return DeterminantsSettings.model_validate({"billing": billing(*versions), **more})


def slow_periods(versions: list[tuple[date | None, int]], first: date, last: date) -> list[date]:
    """Begins of periods, day by day: the newest version whose first cycle day has come says which day of the month begins one."""
    begins, cycle, day = [], versions[0][1], first
    while day < last:
        for since, other in versions[1:]:
            if since is not None and since <= day and day.day == other and day - since < timedelta(days=31):
                cycle = other
        if day.day == cycle:
            begins.append(day)
        day += timedelta(days=1)
    return begins


changes = st.lists(st.tuples(st.integers(60, 400), st.integers(1, 28)), min_size=0, max_size=3)


@settings(max_examples=60, deadline=None)
@given(first=st.integers(1, 28), gaps=changes)
def test_periods_begin_where_a_calendar_kept_by_hand_says(first: int, gaps: list[tuple[int, int]]) -> None:
    versions: list[tuple[date | None, int]] = [(None, first)]
    at = date(2024, 1, 1)
    for gap, cycle in gaps:
        at += timedelta(days=gap)
        versions.append((at, cycle))
    told = Billing.model_validate(billing(*((since and since.isoformat(), day) for since, day in versions)))
    expected = slow_periods(versions, date(2023, 11, 1), date(2028, 1, 1))
    schedules = Schedules(told)
    which = schedules.of("any")
    number = int(schedules.period_of((expected[0] - EPOCH).days, which))
    found = [EPOCH + timedelta(days=int(schedules.first_day(number + k, which))) for k in range(len(expected))]
    assert found == expected
    for day in range((expected[0] - EPOCH).days, (expected[-1] - EPOCH).days, 5):
        here = int(schedules.period_of(day, which))
        assert int(schedules.first_day(here, which)) <= day < int(schedules.first_day(here + 1, which))
        second = int(calendar.start_of("Europe/Berlin", day))
        period = period_at(usual(told, "any"), "Europe/Berlin", second)
        assert (period.begin, period.end) == tuple(int(x) for x in schedules.bounds("Europe/Berlin", here, which))


def days(first: str, last: str, value: int = 1_000_000) -> list[Row]:
    span = range(day_number(first), day_number(last))
    return [Row(day, [value] * slots("Europe/Berlin", day, 3600), seconds=3600) for day in span]


def told(hub: Hub) -> dict[tuple[str, str], Decimal]:
    berlin = "Europe/Berlin"
    found = {}
    for body in hub.latest().values():
        if not body["tou"]:
            begin, end = (
                (EPOCH + timedelta(days=int(calendar.day_of(berlin, int(body[name].timestamp()))))).isoformat()
                for name in ("period_start", "period_end")
            )
            found[begin, end] = body["quantity"]
    return found


def test_months_before_a_new_cycle_day_keep_their_values() -> None:
    before = Hub(determinants((None, 1)))
    before.give(*days("2026-01-01", "2026-03-15"))
    before.tick("2026-03-01T12:00")
    settings_ = determinants((None, 1), ("2026-03-05", 15))
    before.fold = DeterminantsFold(settings_, 0, 1)
    before.fold.state.load_all(dict(before.states))
    before.give(*days("2026-03-15", "2026-05-15"))
    before.close()
    assert told(before) == {
        ("2026-01-01", "2026-02-01"): 31 * 24, ("2026-02-01", "2026-03-01"): 28 * 24, ("2026-03-01", "2026-03-15"): 14 * 24,
        ("2026-03-15", "2026-04-15"): 31 * 24 - 1, ("2026-04-15", "2026-05-15"): 30 * 24,
    }  # fmt: skip
    assert [body["version"] for body in before.sent if body["period_start"].month == 1] == [1]
    fresh = Hub(settings_)
    fresh.give(*days("2026-01-01", "2026-05-15"))
    fresh.close()
    assert told(fresh) == told(before)


def test_a_correction_of_a_month_under_the_old_cycle_day_stays_in_it() -> None:
    hub = Hub(determinants((None, 1), ("2026-03-05", 28)))
    hub.give(*days("2026-02-01", "2026-05-01"))
    hub.close()
    old = days("2026-02-10", "2026-02-11")[0]
    hub.give(Row(old.day, [2_000_000] * 24, seconds=3600, version=2, replaces=1, before=old.values))
    hub.close()
    found = told(hub)
    assert found["2026-02-01", "2026-03-01"] == 29 * 24
    assert found["2026-03-01", "2026-03-28"] == 27 * 24
    assert found["2026-03-28", "2026-04-28"] == 31 * 24 - 1


def test_begun_periods_cannot_be_moved() -> None:
    hub = Hub(determinants((None, 1)))
    hub.give(*days("2026-01-01", "2026-03-15"))
    hub.tick("2026-03-15T12:00")
    for other in (determinants((None, 2)), determinants((None, 1), ("2026-02-20", 15))):
        with pytest.raises(LayoutError, match=r"billing\.versions.*add one whose `from` lies ahead"):
            DeterminantsFold(other, 0, 1).state.load_all(dict(hub.states))
    DeterminantsFold(determinants((None, 1), ("2026-03-20", 15)), 0, 1).state.load_all(dict(hub.states))


def second(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def test_a_named_cycle_changes_by_date_and_by_master_data() -> None:
    cycles = UsageSettings.model_validate({"cycles": {"a": [{"day": 1}, {"from": "2026-04-03", "day": 10, "months": 2}]}}).cycles["a"]
    found = [period_at(dated(cycles), "UTC", second(f"2026-{text}")) for text in ("03-20", "04-20", "05-05")]
    assert [(p.begin, p.end) for p in found] == [
        (second("2026-03-01"), second("2026-04-01")), (second("2026-04-01"), second("2026-05-01")),
        (second("2026-05-01"), second("2026-05-10")),
    ]  # fmt: skip
    assert found[2].cycle_days == 31  # tiers are pro-rated by the month it would have been
    assert period_at([(None, Cycle(day=1)), (day_number("2026-03-10"), Cycle(day=15))], "UTC", second("2026-03-12")).end == second(
        "2026-03-15"
    )


def test_usage_of_old_periods_stays_when_the_cycle_changes() -> None:
    rules = [{"id": "interval-data", "as": "e"}]
    usage = UsageSettings.model_validate(
        {
            "groups": [{"id": "g", "accounts": ["a*"], "versions": [{"rules": rules}]}],
            "cycles": {"x": [{"day": 1}, {"from": "2026-03-05", "day": 15}], "y": [{"day": 20}]},
        }
    )
    hub = Hub(determinants((None, 1)), usage=usage)
    about = {"account": "c", "service_points": [], **EMPTY, "attributes": {}}
    moved = int(calendar.start_of("UTC", day_number("2026-04-17")))
    periods = [
        {"from": None, "to": moved, **about, "billing_cycle": "x"}, {"from": moved, "to": None, **about, "billing_cycle": "y"}
    ]  # fmt: skip
    hub.send("UsageSubscription", {"subscription": "a1", "version": 1, "periods": periods, "changed": []})
    hub.give(*days("2026-02-01", "2026-05-20"))
    hub.close()
    found = sorted((body["period_start"].date(), body["period_end"].date()) for body in hub.usage_sent if body["status"] == "sent")
    assert [f"{a:%m-%d}/{b:%m-%d}" for a, b in found] == [
        "01-31/02-28", "02-28/03-14", "03-14/04-14", "04-14/04-17", "04-17/04-19", "04-19/05-19"
    ]  # fmt: skip


def test_rollovers_by_date() -> None:
    """A register of three digits falls from 900 to 300: it advanced by 40 %, which is a rollover up to 50 % and none up to 30 %."""
    rollover = [{"percent": 50}, {"from": "2026-02-01", "percent": 30}]
    hub = Hub(determinants((None, 1), rollover=rollover))
    for device, month in (("m1", 1), ("m2", 2)):
        at = [second(f"2026-{month:02d}-{day:02d}T12:00") for day in (5, 25)]
        row = Row(
            day_number(f"2026-{month:02d}-25"), [900_000_000, 300_000_000], seconds=0, device=device, channel="1.8.0", dials=3, times=at
        )
        hub.give(row)
    hub.close()
    found = {body["device"]: (body["quantity"], body["status"]) for body in hub.latest().values() if body["kind"] == "scalar-consumption"}
    assert found["m1"] == (400, "released")
    assert found["m2"][1] == "held"


@pytest.mark.parametrize(
    "wrong",
    [
        {"billing": billing((None, 1), (None, 2))}, {"billing": billing((None, 1), ("2026-02-01", 2), ("2026-02-01", 3))},
        {"rollover": [{"percent": 50}, {"percent": 40}]},
    ],
)  # fmt: skip
def test_versions_are_in_order(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="versions must be in the order of their dates"):
        DeterminantsSettings.model_validate(wrong)


def test_versions_of_cycles_are_in_order() -> None:
    with pytest.raises(ValidationError, match="versions must be in the order of their dates"):
        UsageSettings.model_validate({"cycles": {"a": [{"from": "2026-02-01"}, {"from": "2026-01-01"}]}})
