"""Register reads: new, repeated, corrected, out of order."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.block import FINALIZED
from schemas.conditions import EXT_ESTIMATE, REGULAR, REPORTED_MISSING
from streams.vee.registers import KEPT
from tests.vee.driver import MICRO, Hub, register_row

START = 19_800 * 86_400
DAY = 86_400


def published(hub: Hub) -> list[tuple[int, int]]:
    return [(at, v) for o in hub.log if o.type == "FinalBlock" for at, v in zip(o.body.times.tolist(), o.body.values.tolist(), strict=True)]


def test_reads_are_published_in_the_order_of_time() -> None:
    hub = Hub()
    hub.send(register_row([(START + DAY, 11.5), (START, 10.0)]))
    [block] = [o.body for o in hub.log if o.type == "FinalBlock"]
    assert block.times.tolist() == [START, START + DAY]
    assert block.values.tolist() == [10 * MICRO, 11_500_000]
    assert (block.seconds[0], block.count[0], block.reads[0], block.state[0]) == (0, 2, 2, FINALIZED)


def test_a_repeated_read_is_told_and_not_published() -> None:
    hub = Hub()
    hub.send(register_row([(START, 10.0)]))
    hub.send(register_row([(START, 10.0)]))
    assert len(published(hub)) == 1
    assert hub.rules() == ["duplicate-imd"]


def test_a_corrected_read_replaces_and_names_the_version_before() -> None:
    hub = Hub()
    hub.send(register_row([(START, 10.0), (START + DAY, 12.0)]))
    first = hub.reads["M1", "R1", START][2]
    hub.send(register_row([(START, 10.5)]))
    value, code, version = hub.reads["M1", "R1", START]
    assert (value, code) == (10_500_000, REGULAR)
    block = [o.body for o in hub.log if o.type == "FinalBlock"][-1]
    assert block.replaces.tolist() == [first]
    assert version > first
    assert hub.rules() == ["final-measurement-replacement"]


def test_an_estimate_never_replaces_a_reading() -> None:
    hub = Hub()
    hub.send(register_row([(START, 10.0)]))
    hub.send(register_row([(START, 11.0)], codes=[EXT_ESTIMATE]))
    assert hub.reads["M1", "R1", START][0] == 10 * MICRO
    hub.send(register_row([(START + DAY, 11.0)], codes=[EXT_ESTIMATE]))
    hub.send(register_row([(START + DAY, 12.0)]))
    assert hub.reads["M1", "R1", START + DAY][:2] == (12 * MICRO, REGULAR)


def test_the_ring_forgets_old_reads_but_never_publishes_a_kept_one_twice() -> None:
    hub = Hub()
    hub.send(register_row([(START + k * DAY, float(k)) for k in range(100)]))
    hub.send(register_row([(START + k * DAY, float(k)) for k in range(100 - KEPT, 100)]))
    assert len(published(hub)) == 100


def test_a_missing_reading_keeps_its_condition() -> None:
    hub = Hub()
    hub.send(register_row([(START, 0.0)], codes=[REPORTED_MISSING]))
    assert hub.reads["M1", "R1", START][:2] == (0, REPORTED_MISSING)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 5)), min_size=1, max_size=20), st.lists(st.booleans(), min_size=1, max_size=4))
@settings(max_examples=100, deadline=None)
def test_what_is_published_last_is_what_came_last(reads: list[tuple[int, int]], restarts: list[bool]) -> None:
    hub = Hub()
    for number, (at, value) in enumerate(reads):
        hub.send(register_row([(START + at * DAY, float(value))]))
        if restarts[number % len(restarts)]:
            hub.restart()
    latest = {START + at * DAY: value * MICRO for at, value in reads}
    assert {at: entry[0] for (_, _, at), entry in hub.reads.items()} == latest
