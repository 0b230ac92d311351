"""Channel-days: merging, closing, versions, exceptions, days that come back from the store, days of other lengths."""

from __future__ import annotations

import pytest

from schemas.block import EXCEPTION, FINALIZED, OPEN
from schemas.conditions import EST_FLAT, EST_INTERPOLATED, MISSING, REGULAR, SUSPECT, USER_EDIT
from schemas.topology.vee import VeeSettings
from streams.calendar import start_of
from tests.vee.driver import MICRO, Hub, interval_row

DAY = 19_800
START = DAY * 86_400
HOUR = 3600


def hours(values: list[float | None], start: int = START, **more: object) -> dict[str, object]:
    return interval_row(start, values, seconds=HOUR, **more)


def test_a_day_stays_open_until_it_is_complete() -> None:
    hub = Hub()
    hub.send(hours([1.0] * 23))
    assert hub.day(DAY, seconds=HOUR).state.tolist() == [OPEN]
    hub.send(hours([1.0], START + 23 * HOUR))
    assert hub.day(DAY, seconds=HOUR).state.tolist() == [FINALIZED]


def test_ticks_close_a_day_after_lateness_and_quiet() -> None:
    hub = Hub(VeeSettings(lateness=2 * HOUR, quiet=60))
    hub.tick(START + 86_400)
    hub.send(hours([1.0, 1.0, 1.0]), hours([1.0], START + 6 * HOUR))
    hub.tick(START + 86_400 + 2 * HOUR - 1)
    assert hub.day(DAY, seconds=HOUR).state.tolist() == [OPEN]
    hub.tick(START + 86_400 + 2 * HOUR)
    final = hub.day(DAY, seconds=HOUR)
    assert final.state.tolist() == [FINALIZED]
    assert final.conditions.tolist()[:8] == [REGULAR] * 3 + [MISSING] * 3 + [REGULAR, 0]


def test_a_day_that_still_receives_reads_is_not_closed() -> None:
    hub = Hub(VeeSettings(lateness=0, quiet=60))
    late = START + 10 * 86_400
    hub.tick(late)
    hub.send(hours([1.0]))
    hub.tick(late + 59)
    assert hub.day(DAY, seconds=HOUR).state.tolist() == [OPEN]
    hub.tick(late + 60)
    assert hub.day(DAY, seconds=HOUR).state.tolist() == [FINALIZED]


def test_an_arrival_time_counts_as_touch_before_the_first_tick() -> None:
    hub = Hub(VeeSettings(lateness=0, quiet=60))
    arrived = START + 10 * 86_400
    hub.send(hours([1.0]), received_at=arrived)
    hub.tick(arrived + 10)
    assert hub.day(DAY, seconds=HOUR).state.tolist() == [OPEN]
    hub.tick(arrived + 60)
    assert hub.day(DAY, seconds=HOUR).state.tolist() == [FINALIZED]


def test_only_changed_days_are_published_again_and_say_what_they_replace() -> None:
    hub = Hub()
    hub.send(hours([1.0] * 48))
    first = hub.day(DAY, seconds=HOUR).version[0]
    hub.send(hours([2.0], START + 30 * HOUR))
    assert hub.day(DAY, seconds=HOUR).version[0] == first
    second = hub.day(DAY + 1, seconds=HOUR)
    assert second.replaces[0] == first < second.version[0]
    published = len([o for o in hub.log if o.type == "FinalBlock"])
    hub.send(hours([2.0], START + 30 * HOUR))
    assert len([o for o in hub.log if o.type == "FinalBlock"]) == published


def test_silence_behind_the_newest_read_becomes_missing_when_the_channel_reports_again() -> None:
    hub = Hub()
    hub.send(hours([1.0, 1.0]))
    hub.tick(close=True)
    assert hub.rules() == []
    assert hub.day(DAY, seconds=HOUR).conditions.tolist() == [REGULAR] * 2 + [0] * 22
    hub.send(hours([1.0], START + 30 * HOUR))
    assert hub.day(DAY, seconds=HOUR).conditions.tolist() == [REGULAR] * 2 + [MISSING] * 22
    assert hub.rules() == ["missing-quantity"]


def test_a_row_of_a_year_passes_in_one_message() -> None:
    hub = Hub()
    result = hub.send(interval_row(START, [0.25] * 96 * 365))
    assert result.figures["finals"] == 365
    assert sum(int(one.values.sum()) for one in hub.days.values()) == 96 * 365 * MICRO // 4
    assert {int(one.state[0]) for one in hub.days.values()} == {FINALIZED}


def test_rows_of_one_day_in_one_block_count_in_their_order() -> None:
    hub = Hub()
    hub.send(hours([1.0, 1.0]), hours([2.0]), hours([3.0]))
    assert hub.day(DAY, seconds=HOUR).values[:2].tolist() == [3 * MICRO, MICRO]


# --- exceptions ---------------------------------------------------------------------------------------------------------------


def test_an_issue_holds_the_day_and_is_superseded_when_better_data_come() -> None:
    hub = Hub()
    hub.send(hours([1.0] * 5 + [-1.0] + [1.0] * 18))
    final = hub.day(DAY, seconds=HOUR)
    assert final.state.tolist() == [EXCEPTION]
    assert final.conditions[5] == SUSPECT
    assert final.received_conditions[5] == REGULAR
    [told] = hub.open()
    hub.send(hours([1.0], START + 5 * HOUR))
    assert hub.day(DAY, seconds=HOUR).state.tolist() == [FINALIZED]
    [now] = [e for e in hub.exceptions.values() if e["id"] == told["id"]]
    assert now["status"] == "superseded"
    assert now["version"] > told["version"]


def test_one_exception_per_rule_and_day_grows_in_versions() -> None:
    hub = Hub()
    hub.send(hours([-1.0]))
    hub.send(hours([-1.0], START + HOUR))
    [told] = hub.open()
    assert (told["rule"], told["count"]) == ("negative-consumption", 2)
    records = [o for o in hub.log if o.type == "VeeException"]
    assert len(records) == 2
    hub.send(hours([1.0], START + 2 * HOUR))
    assert len([o for o in hub.log if o.type == "VeeException"]) == 2, "nothing new to tell"


def test_a_person_s_value_is_not_made_suspect() -> None:
    hub = Hub()
    hub.send(hours([-1.0, 1.0], codes=[USER_EDIT, REGULAR]))
    assert hub.open() == []
    assert hub.day(DAY, seconds=HOUR).conditions[0] == USER_EDIT


# --- days from the store --------------------------------------------------------------------------------------------------------


def test_a_late_read_asks_the_store_and_carries_what_it_replaces() -> None:
    hub = Hub()
    hub.send(hours([1.0] * 24 * 5))
    old = hub.day(DAY, seconds=HOUR)
    hub.send(hours([2.0], START + 7 * HOUR))
    new = hub.day(DAY, seconds=HOUR)
    assert hub.recalls > 0
    assert new.values.tolist() == [MICRO] * 7 + [2 * MICRO] + [MICRO] * 16
    assert new.replaces[0] == old.version[0]
    assert new.before.tolist() == old.values.tolist()


def test_reads_wait_for_the_answer_in_order_and_survive_a_restart() -> None:
    hub = Hub()
    hub.send(hours([1.0] * 24 * 5))
    hub.answering = False
    hub.send(hours([2.0], START + 7 * HOUR))
    asked = hub.recalls
    hub.send(hours([3.0], START + 7 * HOUR), hours([4.0], START + 8 * HOUR))
    assert hub.recalls == asked, "a day is asked for once"
    hub.restart()
    hub.deliver()
    assert hub.day(DAY, seconds=HOUR).values[7:9].tolist() == [3 * MICRO, 4 * MICRO]
    assert not [key for key in hub.fold.state.entries if not key.startswith("meta")]


def test_an_answer_nobody_waits_for_changes_nothing() -> None:
    hub = Hub()
    hub.send(hours([1.0] * 24 * 5))
    before = hub.fold.state.digest()
    assert hub.apply("FinalBlock", hub.day(DAY, seconds=HOUR)).outputs == []
    assert hub.fold.state.digest() == before


def test_an_edge_gap_of_a_stored_day_follows_its_neighbour() -> None:
    hub = Hub()
    hub.send(hours([1.0] * 23 + [None]))
    hub.send(hours([1.0] * 24, START + 4 * 86_400))  # moves the first day out of the ring
    assert hub.day(DAY, seconds=HOUR).conditions[23] == EST_FLAT
    hub.send(hours([3.0] * 24, START + 86_400))
    assert hub.day(DAY, seconds=HOUR).conditions[23] == EST_INTERPOLATED
    assert hub.day(DAY, seconds=HOUR).values[23] == 2 * MICRO


def test_an_issue_of_a_stored_day_is_superseded_too() -> None:
    hub = Hub()
    hub.send(hours([-1.0] + [1.0] * 24 * 5))
    assert hub.rules() == ["negative-consumption"]
    hub.send(hours([1.0]))
    assert hub.rules() == ["final-measurement-replacement"]
    assert hub.day(DAY, seconds=HOUR).state.tolist() == [FINALIZED]


def test_older_days_that_were_never_stored_need_no_answer() -> None:
    hub = Hub()
    for back in range(10):
        hub.send(hours([1.0] * 24, START - back * 86_400))
    assert hub.recalls == 0
    assert len(hub.days) == 10


# --- days of other lengths ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zone", "date", "hours_"),
    [
        ("Europe/London", "2024-03-31", 23.0), ("Europe/London", "2024-10-27", 25.0),
        ("America/New_York", "2024-03-10", 23.0), ("America/New_York", "2024-11-03", 25.0),
        ("Australia/Sydney", "2024-10-06", 23.0), ("Australia/Sydney", "2024-04-07", 25.0),
        ("Australia/Adelaide", "2024-10-06", 23.0), ("Australia/Adelaide", "2024-04-07", 25.0),
        ("Australia/Lord_Howe", "2024-10-06", 23.5), ("Australia/Lord_Howe", "2024-04-07", 24.5),
    ],
)  # fmt: skip
@pytest.mark.parametrize("seconds", [900, 1800])
def test_clock_change_days_have_all_their_slots(zone: str, date: str, hours_: float, seconds: int) -> None:
    from datetime import date as day_date

    day = (day_date.fromisoformat(date) - day_date(1970, 1, 1)).days
    begin, behind = int(start_of(zone, day - 1)), int(start_of(zone, day + 2))
    count = (behind - begin) // seconds
    hub = Hub(VeeSettings(zone=zone))
    hub.send(interval_row(begin, [k / 1000 for k in range(count)], seconds=seconds))
    hub.send(interval_row(behind, [1.0], seconds=seconds))
    days = {key[3]: one for key, one in hub.days.items()}
    assert len(days[day].values) == hours_ * 3600 / seconds
    assert {int(one.state[0]) for number, one in days.items() if number < day + 2} == {FINALIZED}
    kept = [v for number in (day - 1, day, day + 1) for v in days[number].values.tolist()]
    assert kept == [k * 1000 for k in range(count)]


def test_hours_of_a_half_hour_zone_sent_on_utc_hours_keep_their_times() -> None:
    hub = Hub(VeeSettings(zone="Australia/Adelaide"))
    hub.send(hours([1.0] * 48))
    one = hub.day(DAY + 1, seconds=HOUR)
    assert one.start[0] % HOUR == 0
    assert int(one.values.sum()) == 24 * MICRO


def test_daily_values_are_one_slot_however_long_the_day() -> None:
    hub = Hub(VeeSettings(zone="Europe/London"))
    for day in range(19_810, 19_815):  # over the clock change of 31 March 2024
        hub.send(interval_row(int(start_of("Europe/London", day)), [24.0], seconds=86_400))
    assert [one.values.tolist() for one in hub.days.values()] == [[24 * MICRO]] * 5
