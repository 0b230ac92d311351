"""The short way of clean days comes to the same as the way of all days: outputs and state, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.codec import Codec
from schemas.topology.vee import (
    INITIAL_LOAD,
    ConsecutiveInterval,
    Criterion,
    ExecuteGroup,
    Group,
    HighLow,
    IntervalSpike,
    SuccessfulTermination,
    VeeSettings,
    ZeroConsumption,
)
from tests.vee.driver import MICRO, Hub, Row, interval_row, register_row

FIRST = 19_800 * 86_400  # a Sunday in March: the clocks of New York go forward the Sunday before, those of Europe two weeks behind
CODES = Codec()
LOOK_BACK = ConsecutiveInterval(min_run=36 * 3600, each_day=True)  # type: ignore[arg-type]
TALKATIVE = Group(
    rules=(
        IntervalSpike(tolerance_percent=100, min_intervals=5, floor="0.2", history_factor=1.5),  # type: ignore[arg-type]
        LOOK_BACK,
        ConsecutiveInterval(value="> 0.5", bands=("regular",), min_run=6 * 3600, severity="issue"),  # type: ignore[arg-type]
        ConsecutiveInterval(value="< 0", bands=("suspect", "regular"), combine="or", min_run=30 * 3600, look_back=False),  # type: ignore[arg-type]
        *(rule for rule in INITIAL_LOAD.rules if rule.id not in ("interval-spike", "consecutive-interval", "high-low")),
        HighLow(high=1.5, low=0.6, min_days=1, floor=0, history=("previous",)),  # type: ignore[arg-type]
    )
)
NESTED = VeeSettings(
    groups={
        "initial-load": Group(
            rules=(ExecuteGroup(group="inner"), *INITIAL_LOAD.rules, SuccessfulTermination(exceptions=("zero-consumption",)))
        ),
        "inner": Group(
            rules=(
                ZeroConsumption(epsilon="0.5", eligibility=(Criterion(units=("kWh",)),), otherwise="skip"),  # type: ignore[arg-type]
                IntervalSpike(tolerance_percent=50, floor="0.1", effective_from="2024-03-20", severity="terminate"),  # type: ignore[arg-type]
            )
        ),
    }
)  # fmt: skip


def both(settings_: VeeSettings) -> tuple[Hub, Hub]:
    """Two folds that differ in one thing: whether there is a short way."""
    short, long = Hub(settings_), Hub(settings_)
    assert short.fold.days.sieve.open
    long.fold.days.sieve.open = False
    return short, long


def same(short: Hub, long: Hub) -> None:
    assert len(short.log) == len(long.log)
    for a, b in zip(short.log, long.log, strict=True):
        assert (a.topic, a.type, a.key, a.partition) == (b.topic, b.type, b.key, b.partition)
        if isinstance(a.body, dict):
            assert a.body == b.body
        else:
            assert CODES.encode_block(a.body) == CODES.encode_block(b.body)
    ours, theirs = short.fold.state, long.fold.state
    assert ours.entries == theirs.entries
    for name, table in ours.tables.items():
        for column in table.columns:
            np.testing.assert_array_equal(table[column][: len(table)], theirs.tables[name][column][: len(table)], f"{name}.{column}")
    assert ours.digest() == theirs.digest()
    assert ours.take_changed() == theirs.take_changed()


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[int, list[list[Row]]]:
    """What some channels send, mostly day after day, with all that can be out of order."""
    seconds = draw(st.sampled_from([900, 1800, 3600, 21_600, 86_400]))
    units = draw(st.lists(st.sampled_from(["kWh", "m3", "degC", "Wh"]), min_size=2, max_size=4))
    sent: list[list[Row]] = []
    at = [FIRST + draw(st.sampled_from([0, 0, 0, 1])) * 12 * 3600 for _ in units]
    for _ in range(draw(st.integers(2, 9))):
        rows: list[Row] = []
        for number, unit in enumerate(units):
            what = draw(st.sampled_from(["day"] * 8 + ["half", "slot", "gap", "again", "skip", "three", "register"]))
            size = {"half": 43_200, "slot": seconds, "three": 3 * 86_400}.get(what, 86_400) // seconds or 1
            if what == "skip":
                at[number] += draw(st.sampled_from([0, 86_400, 86_400 // 2]))
                continue
            if what == "register":
                rows.append(register_row([(at[number], draw(st.integers(0, 50)) / 10)], device=f"M{number}"))
                continue
            back = draw(st.sampled_from([86_400, 3 * 86_400])) if what == "again" else 0
            value = st.one_of(st.integers(1, 300), st.integers(1, 300), st.sampled_from([0, 0, 0, -5, 5000, 10**11]))
            some = draw(st.lists(value, min_size=1, max_size=5))
            values: list[float | None] = [some[k % len(some)] / 1000 for k in range(size)]
            if draw(st.integers(0, 3)) == 0:
                values[draw(st.integers(0, size - 1))] = draw(st.sampled_from([None, 9.0, -1.0, 0.0]))
            codes = None
            if draw(st.integers(0, 9)) == 0:
                codes = [draw(st.sampled_from([500_000, 510_000, 400_000, 200_000, 600_000, 450_000]))] * size
            rows.append(interval_row(at[number] - back, values, device=f"M{number}", unit=unit, seconds=seconds, codes=codes))
            at[number] += (size * seconds if what != "gap" else 2 * 86_400) - (back and size * seconds)
        if rows:
            sent.append(rows)
    return seconds, sent


def masters(data: st.DataObject, number: int) -> dict[str, Any]:
    return {
        "device": f"M{number}", "allow_negative": data.draw(st.booleans()),
        "zone": data.draw(st.sampled_from(["UTC", "America/New_York", "Europe/Oslo"])),
        "check_channel": data.draw(st.sampled_from([None, None, "R1"])), "account": data.draw(st.sampled_from([None, "A"])),
        "service_point": data.draw(st.sampled_from([None, "P"])), "multiplier": data.draw(st.sampled_from([None, MICRO, 2 * MICRO])),
        "periods": data.draw(st.sampled_from([[], [{"from": FIRST + 86_400, "to": FIRST + 7 * 86_400, "state": "connected"}]])),
    }  # fmt: skip


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_short_and_long_way_come_to_the_same(data: st.DataObject) -> None:
    base = data.draw(st.sampled_from([VeeSettings(), VeeSettings(groups={"initial-load": TALKATIVE}), NESTED]))
    change = {
        "zone": data.draw(st.sampled_from(["UTC", "Europe/London", "America/New_York"])), "hot_days": data.draw(st.sampled_from([2, 3])),
        "future_tolerance": 900 * 86_400, "silence": data.draw(st.sampled_from(["wait", "missing"])),
        "gather": data.draw(st.sampled_from([0, 10, 3 * 86_400])),
    }  # fmt: skip
    hubs = both(base.model_copy(update=change))
    _, sent = data.draw(deliveries())
    for number in range(4):
        if data.draw(st.integers(0, 3)) == 0:
            body = masters(data, number)
            for hub in hubs:
                hub.master(**body)
    for number, rows in enumerate(sent):
        event = data.draw(st.sampled_from(["", "", "", "tick", "outage", "restart"]))
        said = data.draw(st.sampled_from([0, 0, MICRO, 2 * MICRO]))
        for hub in hubs:
            hub.send(*({**row, "multiplier": said} for row in rows), name=f"b{number}", received_at=FIRST + number * 86_400)
            if event == "tick":
                hub.tick(FIRST + (number + 2) * 86_400)
            elif event == "outage":
                for kind, at in (("outage", 3600), ("restore", 9000)):
                    hub.apply("DeviceEvent", {"device": "M0", "kind": kind, "at": FIRST + number * 86_400 + at})
            elif event == "restart":
                way = hub.fold.days.sieve.open
                hub.restart()
                hub.fold.days.sieve.open = way
    for hub in hubs:
        hub.tick(close=True)
    same(*hubs)


@st.composite
def flaws(draw: st.DrawFn, size: int) -> list[float | None]:
    """A day of one channel with one or two of the flaws that the short way answers, or with one that it must leave."""
    base = draw(st.lists(st.integers(50, 400), min_size=3, max_size=7))
    values: list[float | None] = [base[k % len(base)] / 1000 for k in range(size)]
    for _ in range(draw(st.integers(0, 2))):
        at, what = (
            draw(st.integers(0, size - 1)),
            draw(st.sampled_from(["spike", "spikes", "negative", "gap", "long", "idle", "low", "huge"])),
        )
        if what == "idle":
            values = [0.0] * size
        elif what in ("gap", "long"):
            length = draw(st.integers(1, 8)) if what == "gap" else draw(st.integers(9, 30))
            values[at : at + length] = [None] * len(values[at : at + length])
        else:
            some = {"spike": [60.0], "spikes": [70.0, -65.0], "negative": [-0.1, -2.5], "low": [0.0] * 9, "huge": [10.0**8]}[what]
            values[at : at + len(some)] = some[: size - at]
    return values


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_days_with_flaws_come_to_the_same_on_both_ways(data: st.DataObject) -> None:
    hubs = both(VeeSettings(future_tolerance=900 * 86_400, hot_days=data.draw(st.sampled_from([2, 3]))))
    seconds = data.draw(st.sampled_from([900, 900, 1800, 3600]))
    size, units = 86_400 // seconds, data.draw(st.lists(st.sampled_from(["kWh", "kWh", "Wh", "degC"]), min_size=2, max_size=5))
    for number in range(len(units)):
        if data.draw(st.integers(0, 4)) == 0:
            body = masters(data, number) | {"zone": "UTC", "direction": data.draw(st.sampled_from(["delivered", "received"]))}
            for hub in hubs:
                hub.master(**body)
    for day in range(data.draw(st.integers(1, 4))):
        rows = []
        for number, unit in enumerate(units):
            values, begin = data.draw(flaws(size)), 0
            if data.draw(st.integers(0, 9)) == 0:  # the day comes in two parts: only the second one has the day whole
                begin = data.draw(st.integers(1, size - 1))
                part = interval_row(FIRST + day * 86_400, values[:begin], device=f"M{number}", unit=unit, seconds=seconds)
                for hub in hubs:
                    hub.send(part, name=f"p{day}-{number}", received_at=FIRST + day * 86_400)
            rows.append(
                interval_row(FIRST + day * 86_400 + begin * seconds, values[begin:], device=f"M{number}", unit=unit, seconds=seconds)
            )
        for hub in hubs:
            hub.send(*rows, name=f"d{day}", received_at=FIRST + day * 86_400)
    for hub in hubs:
        hub.tick(close=True)
    same(*hubs)


def test_common_flaws_take_the_short_way_and_others_the_long_one_in_one_delivery() -> None:
    short, long = both(VeeSettings(future_tolerance=900 * 86_400))
    told: list[int] = []
    decide = short.fold.days.decide

    def counted(*given_: Any, **named: Any) -> Any:
        decided = decide(*given_, **named)
        told.append(len(decided.channel))
        return decided

    short.fold.days.decide = counted  # type: ignore[method-assign]
    plain: list[float | None] = [0.1 + k % 7 / 100 for k in range(96)]
    days: list[list[float | None]] = [plain.copy() for _ in range(7)]
    days[0][40], days[1][30], days[3][20:22], days[4][10:60], days[5] = 60.0, -1.0, [None, None], [None] * 50, [0.0] * 96
    days[6][50], days[6][60] = -2.0, None
    for hub in (short, long):
        hub.send(*(interval_row(FIRST, day, device=f"M{6 - k}") for k, day in enumerate(days)), received_at=FIRST)
    assert told == [1]  # the long gap
    told.clear()
    edited = days[0].copy()  # a day with values that a person has set, and flaws of its own
    edited[3] = -4.0
    for hub in (short, long):
        rows = [interval_row(FIRST + 86_400, day, device=f"M{6 - k}") for k, day in enumerate(days[1:4])]
        hub.send(interval_row(FIRST + 86_400, edited, device="M6", codes=[600_000] * 96), *rows, received_at=FIRST + 86_400)
    assert told == [1]
    rules = [entry.body["rule"] for entry in short.log if entry.type == "VeeException" and entry.body["start"].timestamp() < FIRST + 86_400]
    assert sorted(rules) == ["interval-spike", "missing-quantity", "negative-consumption", "negative-consumption", "zero-consumption"]
    same(short, long)
