"""What is let in: unknown devices, units, interval lengths, the future; and what master data change afterwards."""

from __future__ import annotations

import pytest

from schemas.block import FINALIZED
from schemas.conditions import REGULAR
from schemas.identity import partition_of
from schemas.topology.vee import VeeSettings
from tests.vee.driver import MICRO, Hub, block_of, interval_row, register_row

DAY = 19_800
START = DAY * 86_400
HOUR = 3600


def hours(values: list[float | None], start: int = START, **more: object) -> dict[str, object]:
    return interval_row(start, values, **{"seconds": HOUR} | more)


def test_unknown_devices_are_parked_and_released_in_order() -> None:
    hub = Hub()
    hub.apply("MasterPresent", {"at": 0})
    assert hub.send(hours([1.0, 2.0])).figures["parked"] == 1
    hub.send(hours([5.0]))
    assert hub.days == {}
    assert hub.rules() == ["unknown-device"]
    assert hub.open()[0]["detail"].endswith("2 deliveries wait")
    hub.restart()
    hub.master(unit="kWh", seconds=HOUR)
    assert hub.day(DAY, seconds=HOUR).values[:2].tolist() == [5 * MICRO, 2 * MICRO], "the later delivery counts"
    assert "unknown-device" not in hub.rules()
    assert not [key for key in hub.fold.state.entries if key.startswith("parked")]


def test_admit_known_parks_even_without_master_data() -> None:
    hub = Hub(VeeSettings(admit="known"))
    hub.send(hours([1.0]))
    assert hub.rules() == ["unknown-device"]


def test_a_channel_admitted_before_master_data_is_parked_once_they_leave_it_out() -> None:
    hub = Hub()
    hub.send(hours([1.0]))
    hub.apply("MasterPresent", {"at": 0})
    hub.send(hours([2.0], START + HOUR))
    assert hub.rules() == ["unknown-device"]
    assert hub.day(DAY, seconds=HOUR).conditions[:2].tolist() == [REGULAR, 0]


def test_a_refused_unit_waits_for_corrected_master_data() -> None:
    hub = Hub()
    hub.master(unit="m3", seconds=HOUR)
    hub.send(hours([1.0]))
    assert hub.rules() == ["unit-of-measure"]
    hub.master(unit="MWh", seconds=HOUR)
    assert hub.rules() == []
    final = hub.day(DAY, seconds=HOUR)
    assert (final.unit[0].as_py(), final.values[0]) == ("MWh", 1000)


def test_an_interval_length_that_master_data_deny_is_refused() -> None:
    hub = Hub()
    hub.master(unit="kWh", seconds=1800)
    hub.send(hours([1.0]))
    assert hub.rules() == ["interval-size"]
    assert hub.days == {}


def test_intervals_off_the_grid_are_refused() -> None:
    hub = Hub()
    hub.send(hours([1.0]))
    hub.send(hours([1.0], START + 5 * HOUR + 900))
    assert hub.rules() == ["interval-size"]
    assert hub.day(DAY, seconds=HOUR).conditions[4:7].tolist() == [0, 0, 0]


def test_reads_ahead_of_the_clock_wait_for_it() -> None:
    hub = Hub(VeeSettings(future_tolerance=HOUR))
    hub.tick(START)
    hub.send(hours([1.0], START + 10 * HOUR))
    assert hub.rules() == ["future-read"]
    hub.restart()
    hub.tick(START + 5 * HOUR)
    assert hub.days == {}
    hub.tick(START + 10 * HOUR)
    assert hub.rules() == []
    assert hub.day(DAY, seconds=HOUR).values[10] == MICRO


def test_values_announced_as_missing_may_lie_ahead() -> None:
    hub = Hub(VeeSettings(future_tolerance=0))
    hub.tick(START + HOUR)
    hub.send(hours([1.0, 1.0, None, None]))
    assert "future-read" not in hub.rules()


@pytest.mark.parametrize("start", [-86_400 * 3, 4_200_000_000])
def test_times_outside_the_calendar_are_refused(start: int) -> None:
    hub = Hub()
    hub.send(hours([1.0], start), hours([1.0]))
    assert hub.rules() == ["future-read"]
    assert len(hub.days) == 1


def test_master_data_reach_the_labels_and_the_partition_of_finals() -> None:
    hub = Hub(partitions=4)
    hub.master(unit="kWh", account="A7", service_point="S1", multiplier=2 * MICRO, dials=5, direction="received")
    hub.send(hours([1.0]))
    [output] = [o for o in hub.log if o.type == "FinalBlock"]
    assert output.partition == partition_of("A7", 4)
    body = output.body
    assert [body.account[0].as_py(), body.service_point[0].as_py()] == ["A7", "S1"]
    assert [body.multiplier[0], body.dials[0], body.direction[0]] == [2 * MICRO, 5, 2]


def test_master_data_are_forwarded_to_the_old_and_the_new_partition() -> None:
    hub = Hub(partitions=8)
    hub.master(account="A1")
    places = [o.partition for o in hub.master(account="A2").outputs if o.type == "MasterChannel"]
    assert sorted(places) == sorted({partition_of("A1", 8), partition_of("A2", 8)})


def test_ticks_go_to_every_partition_behind_what_they_closed() -> None:
    hub = Hub(partitions=4)
    hub.send(hours([1.0]))
    outputs = hub.tick(close=True).outputs
    assert [o.type for o in outputs] == ["FinalBlock", *["Tick"] * 4]
    assert [o.partition for o in outputs[1:]] == [0, 1, 2, 3]


def test_a_new_unit_converts_what_is_held() -> None:
    hub = Hub()
    hub.send(hours([1.5] * 24), register_row([(START, 10.0)]))
    hub.master(unit="Wh")
    final = hub.day(DAY, seconds=HOUR)
    assert (final.unit[0].as_py(), final.values[0]) == ("Wh", 1500 * MICRO)
    hub.send(hours([1.6], START + 23 * HOUR))
    assert hub.day(DAY, seconds=HOUR).values[23] == 1600 * MICRO


def test_permission_for_negative_values_decides_hot_days_anew() -> None:
    hub = Hub()
    hub.send(hours([-1.0] * 24))
    assert hub.rules() == ["negative-consumption"]
    hub.master(unit="kWh", allow_negative=True)
    assert hub.rules() == []
    assert hub.day(DAY, seconds=HOUR).state.tolist() == [FINALIZED]


def test_a_zone_that_comes_late_moves_held_reads_to_other_days() -> None:
    hub = Hub()
    hub.send(hours([float(k) for k in range(24)]))
    hub.master(unit="kWh", zone="America/New_York")
    hub.tick(close=True)
    before, after = hub.day(DAY - 1, seconds=HOUR), hub.day(DAY, seconds=HOUR)
    assert before.values.tolist() == [0] * 20 + [k * MICRO for k in range(4)]
    assert after.values.tolist() == [k * MICRO for k in range(4, 24)] + [0] * 4
    assert after.zone[0].as_py() == "America/New_York"


def test_channels_of_tricky_names_are_kept_apart() -> None:
    hub = Hub()
    hub.send(hours([1.0], device="A/1", channel="1"), hours([2.0], device="A/", channel="11"), hours([3.0], device="é\x1f", channel=" "))
    assert {key[:2]: one.values[0] // MICRO for key, one in hub.days.items()} == {("A/1", "1"): 1, ("A/", "11"): 2, ("é\x1f", " "): 3}


def test_units_of_one_dimension_convert_exactly() -> None:
    hub = Hub()
    hub.send(hours([1.0]))
    hub.send(hours([0.0015], START + HOUR, unit="MWh"), hours([7.2], START + 2 * HOUR, unit="MJ"))
    assert hub.day(DAY, seconds=HOUR).values[:3].tolist() == [MICRO, 1_500_000, 2 * MICRO]


def test_an_unknown_kind_of_message_is_a_bug() -> None:
    with pytest.raises(ValueError, match="no use for"):
        Hub().apply("Receipt", {})


def test_an_empty_block_does_nothing() -> None:
    assert Hub().apply("ReadBlock", block_of([])).outputs == []


@pytest.mark.parametrize("start", [-(1 << 50), 1 << 50, (1 << 62)])
def test_absurd_times_are_refused_and_stop_nothing(start: int) -> None:
    hub = Hub()
    hub.send(hours([1.0], start), register_row([(start, 1.0)]), hours([1.0]))
    assert {e["channel"] for e in hub.open()} == {"E1", "R1"}
    assert len(hub.days) == 1
    assert hub.reads == {}


@pytest.mark.parametrize("seconds", [-900, 420, 1 << 30])
def test_interval_lengths_without_a_place_in_the_day_lose_nothing_silently(seconds: int) -> None:
    hub = Hub()
    hub.send(interval_row(START, [1.0] * 206, seconds=seconds))
    kept = sum(int((one.conditions == REGULAR).sum()) for one in hub.days.values())
    assert kept in (0, 206)
    assert (kept == 206) or hub.rules() == ["interval-size"]


def test_rows_without_values_do_nothing() -> None:
    hub = Hub()
    hub.send(interval_row(START, []), hours([1.0]))
    assert len(hub.days) == 1
