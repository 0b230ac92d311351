"""Bad input, item by item: which documented rule catches it, and that nothing is lost or counted twice."""

from __future__ import annotations

import time

import numpy as np
import pytest

from connectors.head_end.formats import DecodeError, Options, decode
from schemas.block import ReadBlock
from schemas.conditions import REGULAR
from schemas.rules import RULES
from schemas.topology.vee import VeeSettings
from tests.vee.driver import MICRO, Hub, block_of, interval_row, register_row

DAY = 19_800
START = DAY * 86_400
HEADER = "device,channel,unit,seconds,start,value\n"


def csv(*values: str) -> bytes:
    return (HEADER + "".join(f'M1,E1,kWh,900,2024-03-18T{k:02}:00:00Z,"{value}"\n' for k, value in enumerate(values))).encode()


@pytest.mark.parametrize(
    "value", ["NaN", "inf", "-inf", "1e308", "1,234", "١٢", "１２", "0x10", "1_000", "99999999999999999999", "--1", "1 2"]
)
def test_values_that_are_no_plain_decimal_numbers_are_refused_and_named(value: str) -> None:
    decoded = decode(csv("1.5", value, "2.5"), Options(name="f.csv"))
    assert [problem.line for problem in decoded.problems] == [3]
    assert sorted(v for block in decoded.blocks for v in block.values.tolist()) == [1_500_000, 2_500_000]  # the others are kept
    with pytest.raises(DecodeError):
        decode(csv(value), Options(name="f.csv"))


@pytest.mark.parametrize(("value", "micros"), [("-0.0", 0), ("9000000000000", 9 * 10**18), ("1e3", None), ("+1", None)])
def test_values_at_the_edge_are_taken_exactly_or_not_at_all(value: str, micros: int | None) -> None:
    decoded = decode(csv("1", value), Options(name="f.csv"))
    taken = [v for block in decoded.blocks for v in block.values.tolist()]
    if len(taken) == 2 and micros is not None:
        assert taken == [MICRO, micros]
    else:
        assert decoded.problems or taken[1] in (10**9, MICRO)


def test_values_at_the_edge_of_64_bits_never_overflow_a_sum() -> None:
    hub, top = Hub(), (1 << 63) - 1
    row = interval_row(START, [1.0] * 96)
    row["values"] = [top, -top, *row["values"][2:]]
    hub.send(row)
    hub.tick(close=True)
    assert hub.day(DAY).values[:2].tolist() == [top, -top]
    assert {"negative-consumption"} <= set(hub.rules())


CAUGHT = {
    "a wrong unit": ("unit-of-measure", {"unit": "kWh"}, interval_row(START, [1.0] * 96, unit="m3")),
    "half hours where quarter hours are declared": ("interval-size", {"seconds": 900}, interval_row(START, [1.0] * 48, seconds=1800)),
    "shifted off the grid": ("interval-size", {"seconds": 900}, interval_row(START + 86_400 + 300, [1.0] * 4)),
    "reads of the future": ("future-read", {}, interval_row(START + 400 * 86_400, [1.0] * 96)),
    "reads before the meter was installed": (
        "inactive-measurement", {"periods": [{"from": START + 9 * 86_400, "to": None, "state": "connected"}]},
        interval_row(START, [1.0] * 96),
    ),
    "reads after it was removed": (
        "inactive-measurement", {"periods": [{"from": None, "to": START - 9 * 86_400, "state": "connected"}]},
        interval_row(START, [1.0] * 96),
    ),
    "an unknown channel": ("unknown-device", {}, interval_row(START, [1.0] * 96, channel="E7")),
}  # fmt: skip


@pytest.mark.parametrize("what", CAUGHT)
def test_what_cannot_be_right_waits_under_a_rule_and_is_released(what: str) -> None:
    rule, master, row = CAUGHT[what]
    assert rule in RULES
    hub = Hub()
    hub.apply("MasterPresent", {"at": 0})
    hub.tick(START + 3 * 86_400)
    hub.master(unit="kWh", **{name: value for name, value in master.items() if name != "unit"})
    hub.send(interval_row(START, [1.0] * 4)) if what == "shifted off the grid" else None
    before = dict(hub.days)
    for _ in range(3):
        hub.send(row)
    assert hub.days.keys() == before.keys()
    caught = [e for e in hub.open() if e["rule"] == rule]
    assert [(e["severity"], e["count"]) for e in caught] == [("terminate", 3)]  # one exception with a count
    if rule in ("unit-of-measure", "unknown-device", "inactive-measurement"):
        hub.master(channel=row["channel"], unit=row["unit"])
        assert [e for e in hub.open() if e["rule"] == rule] == []
        assert ("M1", row["channel"], 900, DAY) in hub.days  # nothing is lost


def swapped(*channels: str) -> list[str]:
    """Intervals and registers of two channels; the intervals stand under these names."""
    hub = Hub(VeeSettings.default())
    for number in (1, 2):
        hub.master(channel=f"E{number}", unit="kWh", seconds=900, check_channel=f"R{number}")
        hub.master(channel=f"R{number}", unit="kWh", seconds=0)
    for channel, value in zip(channels, (1.0, 2.0), strict=True):
        hub.send(interval_row(START, [value] * 96, channel=channel))
    for number in (1, 2):
        hub.send(register_row([(START, 0.0), (START + 86_400, 96.0 * number)], channel=f"R{number}"))
    hub.tick(close=True)
    return [rule for rule in hub.rules() if rule == "sum-check"]


def test_swapped_channels_do_not_agree_with_their_registers() -> None:
    assert swapped("E1", "E2") == []
    assert swapped("E2", "E1") == ["sum-check"] * 2


def repeated(row: dict[str, object], times: int) -> ReadBlock:
    return block_of([row]).take(np.zeros(times, np.int64))


def test_a_million_repeats_are_one_exception_with_a_count() -> None:
    hub = Hub()
    hub.send(interval_row(START, [1.0] * 96))
    begun = time.process_time()
    result = hub.apply("ReadBlock", repeated(interval_row(START, [1.0] * 4), 1_000_000))
    assert time.process_time() - begun < 60
    told = [output.body for output in result.outputs if output.type == "VeeException"]
    assert [(body["rule"], body["count"]) for body in told] == [("duplicate-imd", 4_000_000)]
    assert "1000000 times" in told[0]["detail"]
    assert hub.day(DAY).conditions.tolist() == [REGULAR] * 96


def test_repeats_of_an_unknown_device_are_one_exception_and_all_kept() -> None:
    hub = Hub()
    hub.apply("MasterPresent", {"at": 0})
    begun = time.process_time()
    for number in range(1000):
        hub.send(interval_row(START + 900 * (number % 96), [1.0], device="M9"))
    assert time.process_time() - begun < 20
    assert [(e["rule"], e["count"]) for e in hub.open()] == [("unknown-device", 1000)]
    hub.master(device="M9", unit="kWh")
    assert [e["rule"] for e in hub.open() if e["rule"] == "unknown-device"] == []
    assert hub.day(DAY, device="M9").conditions[:96].tolist() == [REGULAR] * 96
