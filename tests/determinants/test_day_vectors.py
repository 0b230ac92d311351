"""Lines of the slots of days: clock changes, zones, effective dates; sums of days by line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.topology.tou import DeterminantsSettings
from streams import calendar
from streams.determinants.kernels import CLASSES, GOOD
from streams.determinants.maps import Maps
from streams.determinants.sums import MOST, Sums, limits_of, sum_days, worst_of
from tests.determinants.kit import EPOCH, THREE_PART, day_number, slots, slow_period

# Zone, day the clocks go forward, day they go back; Lord Howe moves by half an hour
CHANGES = [
    ("Europe/Berlin", "2024-03-31", "2024-10-27"),
    ("America/Los_Angeles", "2024-03-10", "2024-11-03"),
    ("Australia/Sydney", "2024-10-06", "2024-04-07"),
    ("Australia/Lord_Howe", "2024-10-06", "2024-04-07"),
    ("America/St_Johns", "2024-03-10", "2024-11-03"),
]
LINES = ["peak", "shoulder", "offpeak"]


def lines_of(maps: Maps, zone: str, day: int, seconds: int) -> list[str]:
    vector = maps.vectors[maps.vector(1, zone, day, seconds, slots(zone, day, seconds))]
    return [maps.names[vector.map][1][line] for line in vector.lines.tolist()]


def slow_lines(zone: str, day: int, seconds: int) -> list[str]:
    here = EPOCH + timedelta(days=day)
    begin, end = (datetime(d.year, d.month, d.day, tzinfo=ZoneInfo(zone)).timestamp() for d in (here, here + timedelta(days=1)))
    moments = range(int(begin), int(end), seconds)
    return [slow_period(THREE_PART, datetime.fromtimestamp(m, UTC).astimezone(ZoneInfo(zone))) for m in moments]


@pytest.mark.parametrize(("zone", "spring", "autumn"), CHANGES)
@pytest.mark.parametrize("seconds", [300, 900, 1800])
def test_days_of_clock_changes(zone: str, spring: str, autumn: str, seconds: int) -> None:
    maps = Maps(DeterminantsSettings.default())
    shift = 1800 if zone == "Australia/Lord_Howe" else 3600
    for text, length in ((spring, 86_400 - shift), (autumn, 86_400 + shift)):
        for day in range(day_number(text) - 1, day_number(text) + 3):
            found = lines_of(maps, zone, day, seconds)
            assert len(found) == (length if day == day_number(text) else 86_400) // seconds
            assert found == slow_lines(zone, day, seconds)


def test_slots_of_quarter_hour_days() -> None:
    maps = Maps(DeterminantsSettings.default())
    assert [len(lines_of(maps, "Europe/Berlin", day_number(d), 900)) for d in ("2024-03-31", "2024-04-01", "2024-10-27")] == [92, 96, 100]


@given(day=st.integers(10_000, 20_000), zone=st.sampled_from([z for z, _, _ in CHANGES]), seconds=st.sampled_from([900, 1800, 3600]))
@settings(max_examples=40, deadline=None)
def test_any_day_as_slowly_computed(day: int, zone: str, seconds: int) -> None:
    assert lines_of(Maps(DeterminantsSettings.default()), zone, day, seconds) == slow_lines(zone, day, seconds)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_sums_by_line_are_the_sums_of_intervals(data: st.DataObject) -> None:
    zone, spring, autumn = data.draw(st.sampled_from(CHANGES))
    maps = Maps(DeterminantsSettings.default())
    seconds = data.draw(st.sampled_from([900, 1800]))
    days = data.draw(st.lists(st.sampled_from([day_number(spring), day_number(autumn), day_number("2024-06-14")]), min_size=1, max_size=5))
    kinds = np.array([maps.vector(1, zone, day, seconds, slots(zone, day, seconds)) for day in days])
    sizes = [len(maps.vectors[k].lines) for k in kinds]
    limit = int(limits_of(np.array([seconds]))[0])
    value = st.one_of(st.integers(-limit, limit), st.integers(-(2**63), 2**63 - 1), st.just(limit + 1))
    code = st.sampled_from([0, 10_000, 100_000, 110_000, 200_000, 310_000, 360_000, 400_000, 450_000, 500_000, 600_000, 700_000])
    values = np.array(data.draw(st.lists(value, min_size=sum(sizes), max_size=sum(sizes))), np.int64)
    codes = np.array(data.draw(st.lists(code, min_size=sum(sizes), max_size=sum(sizes))), np.int32)
    begins = np.cumsum(sizes) - sizes
    sums = sum_days(values, codes, begins, limits_of(np.full(len(days), seconds)), kinds, maps.vectors, maps.width)
    for i, begin in enumerate(begins.tolist()):
        vector = maps.vectors[kinds[i]]
        expected = [0] * maps.width
        counts = [[0] * CLASSES for _ in range(maps.width)]
        worst = []
        for j, line in enumerate(vector.lines.tolist()):
            v, code_ = int(values[begin + j]), int(codes[begin + j])
            if code_ == 0:
                continue
            if abs(v) > limit:
                code_ = 10_000
            worst.append(code_)
            expected[line] += v if code_ >= 200_000 else 0
            bounds = [100, 100_000, 200_000, 300_000, 350_000, 400_000, 450_000, 500_000]
            counts[line][max(k for k, bottom in enumerate(bounds) if bottom <= code_)] += 1
        assert sums.quantities[i].tolist() == expected
        assert sums.counts[i].tolist() == counts
        assert sums.condition[i] == min(worst, default=0)


def test_a_month_of_largest_values_fits_a_determinant() -> None:
    for seconds in (60, 300, 900, 1800, 3600, 86_400):
        assert int(limits_of(np.array([seconds]))[0]) * (31 * 86_400 + 3600) // seconds <= MOST


def test_worst_of_counts() -> None:
    counts = np.zeros((4, CLASSES), np.int64)
    counts[0, GOOD] = 5
    counts[1, [3, GOOD]] = 1
    counts[2, [0, 4]] = 2
    assert worst_of(counts).tolist() == [500_000, 300_000, 10_000, 0]
    zero = Sums.zeros(2, 3)
    assert not zero.difference(zero)[0].any()


def made(**extra: object) -> DeterminantsSettings:
    version = {"default": "low", "schedule": [{"period": "high", "from": "07:00", "to": "22:00"}]}
    return DeterminantsSettings.model_validate({"maps": [{"id": "m", "versions": [version]} | extra], "default_map": "m"})


def test_intervals_that_could_straddle_two_periods_are_not_mapped() -> None:
    maps = Maps(made())  # all its times are full hours
    day = day_number("2024-03-04")
    for seconds, mapped in ((900, True), (3600, True), (7200, False), (86_400, False)):
        vector = maps.vectors[maps.vector(1, "UTC", day, seconds, slots("UTC", day, seconds))]
        assert (vector.map == 1) is mapped
        assert len(vector.lines) == max(1, 86_400 // seconds)


def test_a_map_with_a_zone_of_its_own_keeps_its_clock() -> None:
    maps = Maps(made(zone="Etc/GMT-1"))  # standard time all year round
    winter, summer = (lines_of(maps, "Europe/Berlin", day_number(d), 3600) for d in ("2024-01-15", "2024-07-15"))
    assert winter.index("high") == 7
    assert summer.index("high") == 8


def test_before_the_first_version_a_day_is_not_mapped() -> None:
    version = {"default": "low", "from": "2024-07-01"}
    maps = Maps(made(versions=[version, version | {"from": "2024-08-01", "default": "high"}]))
    names = [lines_of(maps, "UTC", day_number(d), 3600)[0] for d in ("2024-06-30", "2024-07-01", "2024-07-31", "2024-08-01")]
    assert names == ["", "low", "low", "high"]


def test_lines_keep_their_numbers_when_the_map_changes() -> None:
    before = Maps(made())
    changed = made(versions=[{"default": "base", "schedule": [{"period": "high", "from": "06:00", "to": "22:00"}]}])
    after = Maps(changed, before.numbering())
    assert after.names == [("", [""]), ("m", ["high", "low", "base"])]
    assert Maps(changed, after.numbering()).numbering() == after.numbering()


def test_wall_clock_of_the_calendar_agrees() -> None:
    day = day_number("2024-10-27")
    assert calendar.wall_clock("Europe/Berlin", day, 3600).tolist() == [h * 3600 for h in (0, 1, 2, 2, *range(3, 24))]
