"""Where the scale of a load curve is cut, and local times: pure functions over all kinds of values and zones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.console.charts import BOTTOM, HEIGHT, curve_chart
from connectors.console.curve import FAR, REACH, Curve, cut
from connectors.console.lists import moment
from connectors.console.words import local
from connectors.head_end.problems import ProblemError

WORDS = dict.fromkeys(("outage", "register", "temperature", "beyond", "missing"), "word")
ZONES = ("Europe/Madrid", "America/Sao_Paulo", "Australia/Lord_Howe", "America/Havana", "Africa/Cairo", "Asia/Kathmandu", "UTC")
LOCAL = st.integers(946_684_800, 2_051_222_400).map(lambda second: datetime.fromtimestamp(second, UTC).replace(tzinfo=None))


def curve(values: list[float], band: float = float("nan")) -> Curve:
    """Quarter hours with these final values and an expected band of one height."""
    size = len(values)
    start, flat = np.arange(size, dtype=np.int64) * 900, np.full(size, band)
    codes = np.full(size, 500_000)
    value = np.array(values)
    return Curve(0, size * 900, 900, "kWh", start, value, codes, codes * 0, value, flat, flat, flat)


def test_one_spike_is_cut_and_found() -> None:
    values = [0.4] * 95 + [900.0]
    found = cut(curve(values))
    assert found is not None
    assert found.limit == pytest.approx(0.4 * REACH)
    assert np.flatnonzero(found.beyond).tolist() == [95]
    assert (found.value, found.at) == (900.0, 95 * 900)
    svg = curve_chart(curve(values), ZoneInfo("UTC"), "t", WORDS, None, found)
    assert svg.count('class="beyond"') == 1
    assert "900 kWh" in svg


def test_a_negative_spike_is_cut_at_the_foot() -> None:
    found = cut(curve([0.4] * 95 + [-900.0]))
    assert found is not None
    assert found.value == -900
    mark = curve_chart(curve([0.4] * 95 + [-900.0]), ZoneInfo("UTC"), "t", WORDS, None, found).split('class="beyond" d="M')[1]
    assert float(mark.split()[1]) > HEIGHT - BOTTOM


@pytest.mark.parametrize(
    ("values", "band"),
    [([], 1.0), ([float("nan")] * 4, 1.0), ([0.0] * 95 + [3.0], float("nan")), ([0.2] * 95 + [4.9], 1.0), ([1.0, 2.0] * 40, float("nan"))],
)  # fmt: skip
def test_what_is_ordinary_or_expected_is_not_cut(values: list[float], band: float) -> None:
    assert cut(curve(values, band)) is None


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=200))
def test_never_more_than_a_tenth_lies_beyond(values: list[float]) -> None:
    found = cut(curve(values))
    if found is None:
        return
    assert 0 < found.beyond.sum() <= len(values) * 0.1 + 1
    assert abs(found.value) == max(abs(value) for value in values)
    assert abs(found.value) > found.limit * FAR / REACH * 0.9


@given(LOCAL, st.sampled_from(ZONES))
def test_what_is_shown_is_read_as_the_same_moment(at: datetime, name: str) -> None:
    zone, there = ZoneInfo(name), at.replace(tzinfo=UTC, second=0, microsecond=0)
    read = moment("at", local(there, zone), zone)
    assert read is not None
    assert read.astimezone(UTC) == there


@given(LOCAL, st.sampled_from(ZONES))
def test_a_time_without_mark_is_one_moment_or_refused(at: datetime, name: str) -> None:
    zone, at = ZoneInfo(name), at.replace(second=0, microsecond=0)
    near = (at.replace(tzinfo=UTC) + timedelta(minutes=minutes) for minutes in range(-16 * 60, 16 * 60 + 1, 15))
    moments = [one for one in near if one.astimezone(zone).replace(tzinfo=None) == at]
    text = f"{at:%Y-%m-%d %H:%M}"
    if len(moments) != 1:
        with pytest.raises(ProblemError, match="comes twice" if moments else "does not exist"):
            moment("at", text, zone)
        return
    read = moment("at", text, zone)
    assert read is not None
    assert moments == [read.astimezone(UTC)]


def test_a_day_whose_midnight_does_not_exist_begins_when_clocks_went_on() -> None:
    read = moment("from", "2024-04-26", ZoneInfo("Africa/Cairo"))
    assert read is not None
    assert read.astimezone(UTC) == datetime(2024, 4, 25, 22, tzinfo=UTC)
