"""What must hold whatever arrives, in whatever order and pieces."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.codec import Codec
from schemas.topology.vee import INITIAL_LOAD, Group, VeeSettings
from tests.vee.driver import MICRO, Hub, Row, interval_row
from tests.vee.oracle import finals

FIRST = 19_800 * 86_400
SLOW_WAY = Group(rules=tuple(rule for rule in INITIAL_LOAD.rules if rule.id != "like-day-average"))  # what the oracle can do
ZONES = ("UTC", "Europe/London", "Australia/Sydney", "America/New_York", "Australia/Adelaide")
patient = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@st.composite
def arrivals(draw: st.DrawFn) -> tuple[VeeSettings, int, list[Row], dict[int, int | None]]:
    """One channel's reads over some days with gaps of all kinds, cut into rows."""
    seconds = draw(st.sampled_from([1800, 3600]))
    zone = draw(st.sampled_from(ZONES))
    slots = draw(st.integers(1, 5 * 86_400 // seconds))
    start = FIRST + draw(st.integers(0, 23)) * 3600 + (1800 if zone == "Australia/Adelaide" and seconds == 3600 else 0)
    values: list[float | str | None] = [draw(st.integers(-20, 3000)) / 1000 for _ in range(min(slots, 12))] * (slots // 12 + 1)
    values = values[:slots]
    for _ in range(draw(st.integers(0, 8))):
        begin, size = draw(st.integers(0, slots - 1)), draw(st.sampled_from([1, 1, 2, 3, 4, 5, 30, 60]))
        what = draw(st.sampled_from([None, "absent"]))
        values[begin : begin + size] = [what] * len(values[begin : begin + size])
    rows, reads, at = [], {}, 0
    while at < slots:
        size = draw(st.sampled_from([1, 2, 7, 24, 48, 200]))
        part: list[Any] = []
        while at + len(part) < slots and len(part) < size and values[at + len(part)] != "absent":
            part.append(values[at + len(part)])
        if part:
            begin = start + at * seconds
            rows.append(interval_row(begin, part, seconds=seconds))
            reads |= {begin + k * seconds: None if v is None else round(v * MICRO) for k, v in enumerate(part)}
        at += max(1, len(part))
    settings_ = VeeSettings(
        zone=zone, hot_days=draw(st.sampled_from([2, 3])), future_tolerance="900d", groups={"initial-load": SLOW_WAY},  # type: ignore[arg-type]
    )  # fmt: skip
    return settings_, seconds, rows, reads


def fed(settings_: VeeSettings, deliveries: list[list[Row]], *, restarts: list[bool], ticks: list[int]) -> Hub:
    hub = Hub(settings_)
    for number, rows in enumerate(deliveries):
        hub.send(*rows)
        if restarts[number % len(restarts)]:
            hub.restart()
        if ticks[number % len(ticks)]:
            hub.tick(FIRST + ticks[number % len(ticks)] * 86_400)
    hub.tick(close=True)
    return hub


@patient
@given(st.data())
def test_finals_are_those_of_the_slow_way_in_any_order_and_pieces(data: st.DataObject) -> None:
    settings_, seconds, rows, reads = data.draw(arrivals())
    if not rows:
        return
    order = data.draw(st.permutations(range(len(rows))))
    sizes = data.draw(st.lists(st.sampled_from([1, 1, 2, 5]), min_size=1, max_size=4))
    deliveries: list[list[Row]] = []
    at = 0
    while at < len(order):
        size = sizes[len(deliveries) % len(sizes)]
        deliveries.append([rows[k] for k in order[at : at + size]])
        at += size
    hub = fed(
        settings_, deliveries,
        restarts=data.draw(st.lists(st.booleans(), min_size=1, max_size=3)),
        ticks=data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=3)),
    )  # fmt: skip
    expected = finals(settings_.zone or "UTC", seconds, reads)
    got = {key[3]: (values, codes) for key, (values, codes, _, _) in hub.finals().items()}
    assert got == expected


@patient
@given(st.data())
def test_open_exceptions_do_not_depend_on_the_order(data: st.DataObject) -> None:
    settings_, _, rows, _ = data.draw(arrivals())
    if not rows:
        return
    mixed = [[rows[k]] for k in data.draw(st.permutations(range(len(rows))))]
    hubs = [fed(settings_, deliveries, restarts=[False], ticks=[0]) for deliveries in ([rows], mixed)]
    one, other = ({(e["rule"], e["start"], e["end"], e["count"], e["detail"]) for e in hub.open()} for hub in hubs)
    assert one == other


@patient
@given(st.data())
def test_finals_do_not_depend_on_when_the_store_answers(data: st.DataObject) -> None:
    settings_, seconds, rows, reads = data.draw(arrivals())
    if not rows:
        return
    hub = Hub(settings_)
    hub.answering = hub.together = False
    pace = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=5))
    for number, k in enumerate(data.draw(st.permutations(range(len(rows))))):
        hub.send(rows[k])
        hub.deliver(pace[number % len(pace)])
        if pace[number % len(pace)] == 1:
            hub.restart()
    hub.deliver()
    hub.tick(close=True)
    hub.deliver()
    got = {key[3]: (values, codes) for key, (values, codes, _, _) in hub.finals().items()}
    assert got == finals(settings_.zone or "UTC", seconds, reads)
    assert [entry for entry in hub.fold.state.entries if entry != "meta"] == []


@patient
@given(arrivals())
def test_no_estimate_stands_in_the_place_of_a_received_value(drawn: tuple[VeeSettings, int, list[Row], dict[int, int | None]]) -> None:
    settings_, seconds, rows, reads = drawn
    if not rows:
        return
    hub = fed(settings_, [[row] for row in rows], restarts=[False], ticks=[0])
    for one in hub.days.values():
        for slot, (value, method) in enumerate(zip(one.values.tolist(), one.methods.tolist(), strict=True)):
            got = reads.get(int(one.start[0]) + slot * seconds)
            if got is not None:
                assert (value, method) == (got, 0)


@patient
@given(arrivals())
def test_the_same_messages_give_the_same_bytes(drawn: tuple[VeeSettings, int, list[Row], dict[int, int | None]]) -> None:
    settings_, _, rows, _ = drawn
    codec = Codec()
    logs = []
    for restart in (False, True):
        hub = fed(settings_, [[row] for row in rows], restarts=[restart], ticks=[0, 3])
        logs.append(
            [codec.encode(o.type, o.body) if isinstance(o.body, dict) else codec.encode_block(o.body) for o in hub.log]
        )  # fmt: skip
        digest = hub.fold.state.digest()
        hub.restart()
        assert hub.fold.state.digest() == digest
    assert logs[0] == logs[1]


@given(st.integers(0, 4_000_000_000_000), st.integers(0, 4_000_000_000_000), st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_an_interpolated_gap_sums_to_the_line_rounded_once(left: int, right: int, gap: int) -> None:
    hub = Hub()
    row = interval_row(FIRST, [0.0, *[None] * gap, 0.0], seconds=1800)
    row["values"][0], row["values"][-1] = left, right
    hub.send(row)
    hub.tick(close=True)
    values = hub.day(19_800, seconds=1800).values[1 : gap + 1].tolist()
    assert sum(values) == (gap * (left + right) + 1) // 2
    assert np.abs(np.diff([left, *values, right], 2)).max() <= 4  # straight, but for rounding


def test_a_missing_value_told_late_behind_an_estimate_is_still_known_when_the_estimate_goes() -> None:
    settings_ = VeeSettings(zone="UTC", hot_days=2, future_tolerance="900d", groups={"initial-load": SLOW_WAY})  # type: ignore[arg-type]
    hour, day = 3600, FIRST
    hub = Hub(settings_)
    hub.send(interval_row(day, [0.5] * 22, seconds=hour))
    hub.send(interval_row(day + 85 * hour, [0.5], seconds=hour))  # the day leaves the state with its last hours estimated
    hub.send(interval_row(day + 23 * hour, [None], seconds=hour))  # hides behind the estimate
    hub.send(interval_row(day + 25 * hour, [None], seconds=hour))
    hub.tick(close=True)
    reads = {day + slot * hour: 500_000 for slot in (*range(22), 85)} | {day + 23 * hour: None, day + 25 * hour: None}
    assert {key[3]: found[:2] for key, found in hub.finals().items()} == finals("UTC", hour, reads)
