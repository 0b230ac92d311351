"""Readings of a register that are older than those in the state: they come back from the store, and nothing is other than in time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.conditions import EST_INTERPOLATED, REGULAR, REPORTED_MISSING
from schemas.topology.vee import VeeSettings
from streams.vee.older import AROUND, Older, StoredReading, answer, around, windows_of
from tests.vee.driver import MICRO, Hub, interval_row, register_row

DAY = 19_800
START = DAY * 86_400
HOUR = 3600
DAYS = 52
RULES = [
    {"id": "negative-consumption"}, {"id": "interval-interpolation", "max_gap": "2h"}, {"id": "like-day-average", "min_days": 1},
    {"id": "interval-adjustment-from-scalar"}, {"id": "sum-check", "severity": "issue"}, {"id": "scalar-proration"},
    {"id": "missing-quantity", "severity": "info"},
]  # fmt: skip
CONFIG = VeeSettings.model_validate({"groups": {"initial-load": {"rules": RULES}}, "future_tolerance": "900d", "zone": "UTC"})


def value(day: int) -> float:
    return 100.0 + 24.0 * day


def fed(left_out: set[int], *, wrong: dict[int, float] | None = None, gaps: set[int] | None = None, **master: Any) -> Hub:
    """Days of intervals and a daily reading each; the first twelve readings have left the state in the end."""
    hub = Hub(CONFIG)
    hub.master(channel="E1", unit="kWh", seconds=HOUR, check_channel="R1")
    hub.master(channel="R1", unit="kWh", seconds=0, **master)
    for day in range(DAYS):
        values: list[float | None] = [1.0] * 24
        if day in (gaps or set()):
            values[5:13] = [None] * 8
        hub.send(interval_row(START + day * 86_400, values, seconds=HOUR))
        if day not in left_out:
            hub.send(register_row([(START + day * 86_400, (wrong or {}).get(day, value(day)))]))
    return hub


def outcome(hub: Hub) -> tuple[Any, ...]:
    hub.tick(close=True)
    told = sorted((e["rule"], e["channel"], e["start"], e["end"], e["detail"]) for e in hub.open() if e["rule"] not in EVENTS)
    return hub.finals(), {key: one[:2] for key, one in hub.reads.items() if one[1]}, told


EVENTS = ("duplicate-imd", "final-measurement-replacement")


@pytest.mark.parametrize("restart", [False, True])
def test_a_late_reading_is_compared_with_the_intervals_of_its_time(restart: bool) -> None:
    late = fed({10}, gaps={9, 10})
    late.answering = not restart
    late.send(register_row([(START + 10 * 86_400, value(10))]))
    if restart:
        late.restart()
        late.answering = True
        late.deliver()
    assert outcome(late) == outcome(fed(set(), gaps={9, 10}))
    assert [entry for entry in late.fold.state.entries if entry.partition("/")[0] in ("asked", "late", "again")] == []


def test_a_wrong_late_reading_is_found_and_ends_when_it_is_put_right() -> None:
    late = fed({10})
    late.send(register_row([(START + 10 * 86_400, 9000.0)]))
    assert sorted((e["rule"], e["channel"]) for e in late.open()) == [
        ("negative-consumption", "R1"), ("sum-check", "E1"),
    ]  # fmt: skip
    edit = {
        "id": "c1", "action": "edit", "device": "M1", "channel": "R1", "seconds": 0, "start": START + 10 * 86_400,
        "end": START + 10 * 86_400 + 1, "values": [], "reading": round(value(10) * MICRO), "method": "", "expected_version": None,
        "reason": "typo", "user": "ann", "dry_run": False, "bulk": "", "approved_by": "",
    }  # fmt: skip
    late.apply("Command", edit)
    assert late.open() == []
    assert late.reads["M1", "R1", START + 10 * 86_400][1] == 600_000
    discard = {**edit, "id": "c2", "action": "discard", "reading": None}
    late.apply("Command", discard)
    assert late.reads["M1", "R1", START + 10 * 86_400][:2] == (round(value(10) * MICRO), EST_INTERPOLATED)  # between its neighbours
    told = [output.body for output in late.log if output.type == "AuditEvent"]
    assert [(one["outcome"], one["detail"]) for one in told] == [("applied", "1 reading edited"), ("applied", "1 reading discarded")]


def test_the_same_reading_again_is_no_news() -> None:
    hub = fed(set())
    before = hub.reads["M1", "R1", START + 5 * 86_400]
    hub.send(register_row([(START + 5 * 86_400, value(5))]))
    assert hub.reads["M1", "R1", START + 5 * 86_400] == before
    assert hub.rules() == []


def test_a_worse_reading_does_not_replace_a_better_one() -> None:
    hub = fed(set())
    hub.send(register_row([(START + 5 * 86_400, 0.0)]) | {"codes": [400_000]})
    assert hub.reads["M1", "R1", START + 5 * 86_400][:2] == (round(value(5) * MICRO), REGULAR)


def test_late_intervals_are_compared_with_older_readings() -> None:
    hub = fed(set())
    hub.send(interval_row(START + 4 * 86_400 + 6 * HOUR, [97.0], seconds=HOUR))
    assert [(e["rule"], int(e["start"].timestamp()) // 86_400 - DAY) for e in hub.open() if e["rule"] not in EVENTS] == [("sum-check", 4)]


def test_a_multiplier_put_right_back_in_time_counts_for_all_readings() -> None:
    wrong = fed(set(), multiplier=2 * MICRO)
    assert wrong.rules().count("sum-check") == DAYS - 1
    wrong.master(channel="R1", unit="kWh", seconds=0, multiplier=MICRO)
    right = fed(set(), multiplier=MICRO)
    assert outcome(wrong) == outcome(right)


def test_a_preview_of_an_older_edit_changes_nothing() -> None:
    hub = fed(set())
    before = outcome(hub)
    edit = {
        "id": "c1", "action": "edit", "device": "M1", "channel": "R1", "seconds": 0, "start": START + 10 * 86_400,
        "end": START + 10 * 86_400 + 1, "values": [], "reading": 5 * MICRO, "method": "", "expected_version": None,
        "reason": "", "user": "ann", "dry_run": True, "bulk": "", "approved_by": "",
    }  # fmt: skip
    hub.apply("Command", edit)
    told = [output.body for output in hub.log if output.type == "AuditEvent"]
    assert [one["outcome"] for one in told] == ["preview"]
    assert "sum-check" in told[0]["after"]
    assert outcome(hub) == before


@given(st.data())
@settings(max_examples=6, deadline=None)
def test_the_order_of_readings_makes_no_difference(data: st.DataObject) -> None:
    late = sorted(data.draw(st.sets(st.integers(1, 14), min_size=1, max_size=3)))
    gaps = data.draw(st.sets(st.integers(2, 14), max_size=3))
    hub = fed(set(late), gaps=gaps)
    hub.answering = False
    for day in data.draw(st.permutations(late)):
        hub.send(register_row([(START + day * 86_400, value(day))]))
        if data.draw(st.booleans()):
            hub.restart()
        hub.deliver(data.draw(st.integers(0, 3)))
    hub.answering = True
    hub.deliver()
    assert outcome(hub) == outcome(fed(set(), gaps=gaps))


def readings(*times: int) -> list[StoredReading]:
    return [StoredReading(at, at * MICRO, REGULAR, 0, 1 + at % 3) for at in times]


def test_windows_hold_a_day_and_what_is_around_it_and_join_to_runs() -> None:
    stored = readings(*range(0, 300 * 86_400, 86_400))
    blocks = [answer("M1", "R1", "kWh", day, around(stored, day)) for day in (100, 150, 240)]
    windows = [window for block in blocks for _, window in windows_of(block)]
    assert [len(window.source.times) for window in windows] == [2 * AROUND + 1] * 3
    older = Older.of(windows, "kWh", 299 * 86_400)
    assert older.starts.tolist() == [60 * 86_400, 200 * 86_400, 299 * 86_400]
    assert older.gap(61 * 86_400, 190 * 86_400) is None
    assert older.gap(61 * 86_400, 191 * 86_400) == 190 * 86_400 + 1
    assert np.unique(older.run(older.at)).tolist() == [1, 2]
    assert windows_of(answer("M1", "R1", "", 7, []))[0][1].span() == (-(1 << 62), 1 << 62)


PARKS = VeeSettings.model_validate(
    {"groups": {"initial-load": {"rules": [{"id": "inactive-measurement", "grace": "1h"}, *RULES]}}, "future_tolerance": "900d"}
)


def out_of_service(begin: int, end: int) -> dict[str, Any]:
    spans = ((None, begin, "connected"), (begin, end, "uninstalled"), (end, None, "connected"))
    return {"periods": [{"from": a, "to": b, "state": state} for a, b, state in spans]}


@pytest.mark.parametrize("restart", [False, True])
def test_readings_of_uninstalled_time_are_taken_out_and_come_back(restart: bool) -> None:
    hub = Hub(PARKS)
    hub.master(channel="R1", unit="kWh", seconds=0)
    for day in range(DAYS):
        hub.send(register_row([(START + day * 86_400, value(day))]))
    before = outcome(hub)
    begin, end = START + 5 * 86_400, START + 20 * 86_400  # readings in the store, and readings in the state
    hub.master(channel="R1", unit="kWh", seconds=0, **out_of_service(begin, end))
    left = [at for (_, _, at), one in hub.reads.items() if one[1]]
    assert sorted(left) == [START + day * 86_400 for day in range(DAYS) if not 5 < day < 20]  # those at the ends belong to a meter
    assert set(hub.rules()) == {"inactive-measurement"}
    if restart:
        hub.restart()
    hub.master(channel="R1", unit="kWh", seconds=0)
    assert outcome(hub) == before


@given(data=st.data())
@settings(max_examples=12, deadline=None)
def test_readings_of_uninstalled_time_wait_whatever_came_first(data: st.DataObject) -> None:
    cuts = st.integers(0, DAYS * 24)
    begin, end = (START + h * HOUR for h in sorted(data.draw(st.tuples(cuts, cuts).filter(lambda pair: pair[0] < pair[1]))))
    size = data.draw(st.sampled_from([1, 7, DAYS]))
    holes = data.draw(st.sets(st.integers(0, DAYS - 1), max_size=3))
    days = data.draw(st.permutations(range(0, DAYS, size)))
    master = {"channel": "R1", "unit": "kWh", "seconds": 0}

    def send(hub: Hub) -> None:
        for first in days:
            own = range(first, min(first + size, DAYS))
            codes = [REPORTED_MISSING if day in holes else REGULAR for day in own]
            hub.send(register_row([(START + day * 86_400, value(day)) for day in own], codes=codes))

    early, late = Hub(PARKS), Hub(PARKS)
    early.master(**master, **out_of_service(begin, end))
    send(early)
    late.master(**master)
    send(late)
    in_service = outcome(late)
    late.master(**master, **out_of_service(begin, end))
    ended = [outcome(hub) for hub in (early, late)]
    assert ended[0][1] == ended[1][1]
    parked = [{one[0] for one in told if one[0] == "inactive-measurement"} for _, _, told in ended]
    assert parked[0] == parked[1] == ({"inactive-measurement"} if len(ended[0][1]) < DAYS else set())
    for hub in (early, late):
        hub.master(**master)
        assert outcome(hub) == in_service


@given(data=st.data())
@settings(max_examples=10, deadline=None)
def test_a_register_read_every_hour_is_compared_whatever_comes_first(data: st.DataObject) -> None:
    days = 4
    parts = [(channel, day) for channel in ("E1", "R1") for day in range(days + (channel == "R1"))]
    restart = data.draw(st.integers(0, len(parts)))

    def hub_of(order: list[tuple[str, int]]) -> Hub:
        hub = Hub(CONFIG)
        hub.master(channel="E1", unit="kWh", seconds=HOUR, check_channel="R1")
        hub.master(channel="R1", unit="kWh", seconds=0)
        for number, (channel, day) in enumerate(order):
            begin = START + day * 86_400
            values: list[float | None] = [9.0 if (day, hour) == (1, 5) else None if (day, hour) in GAP else 1.0 for hour in range(24)]
            if channel == "E1":
                hub.send(interval_row(begin, values, seconds=HOUR))
            else:
                hub.send(
                    register_row(
                        [(begin + hour * HOUR, 100.0 + 24 * day + hour + sum(at < (day, hour) for at in GAP)) for hour in range(24)]
                    )
                )
            if number == restart:
                hub.restart()
        return hub

    shuffled, together = hub_of(data.draw(st.permutations(parts))), hub_of(sorted(parts))
    assert outcome(shuffled) == outcome(together)
    assert [(e["rule"], e["start"].day) for e in shuffled.open() if e["rule"] == "sum-check"] == [("sum-check", 19)]
    assert shuffled.day(DAY + 2, seconds=HOUR).values[7:9].tolist() == [2 * MICRO] * 2  # brought to the register


GAP = ((2, 7), (2, 8))
