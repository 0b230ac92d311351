"""A head end that sends days again which have left the state: as many channels at once as a block holds."""

from __future__ import annotations

import numpy as np
import pytest

from schemas.block import ReadBlock
from schemas.topology.vee import VeeSettings
from streams.vee.fold import VeeFold
from tests.vee.driver import MICRO, Hub, block_of, interval_row

CHANNELS, HOT, DAYS = 60, 2, 8
FIRST = 19_800
LATE = range(FIRST, FIRST + 3)


def delivery(day: int, *, again: bool = False) -> ReadBlock:
    """One day of all channels; what is sent again has other values in every third slot."""
    rng = np.random.default_rng(day)
    rows = []
    for number in range(CHANNELS):
        values = rng.integers(100, 900, 24) * MICRO // 1000
        if again:
            values[number % 3 :: 3] += MICRO
        rows.append(interval_row(day * 86_400, values.tolist(), device=f"M{number:03d}", seconds=3600))
    return block_of(rows, name=f"{day}{'again' if again else ''}")


def storm(*, hot_days: int = HOT, together: bool = True, restarts: bool = False) -> tuple[Hub, int, int]:
    """A hub after the storm, and how many recalls it wrote for how many days."""
    hub = Hub(VeeSettings.default().model_copy(update={"hot_days": hot_days}))
    hub.together = together
    for day in range(FIRST, FIRST + DAYS):
        hub.apply("ReadBlock", delivery(day))
    before = len(hub.log)
    for day in LATE:
        hub.apply("ReadBlock", delivery(day, again=True))
        if restarts:
            hub.restart()
    asked = [output.body for output in hub.log[before:] if output.type == "Recall"]
    assert isinstance(hub.fold, VeeFold)
    assert not [key for key in hub.fold.state.entries if key.partition("/")[0] in ("late", "asked", "again")], "something waits still"
    return hub, len(asked), sum(map(len, asked))


def test_a_storm_asks_and_is_answered_in_blocks() -> None:
    hub, records, days = storm()
    assert days >= CHANNELS * len(LATE)
    assert records <= 2 * len(LATE), "a record for each day of each channel takes as long as the storm is wide"
    for day in LATE:
        assert all(hub.day(day, f"M{number:03d}", seconds=3600).version[0] > 0 for number in range(CHANNELS))


@pytest.mark.parametrize("way", ["one by one", "restarted"])
def test_how_answers_come_makes_no_difference(way: str) -> None:
    whole = storm()[0]
    other = storm(together=way != "one by one", restarts=way == "restarted")[0]
    assert other.finals() == whole.finals()


def test_late_days_become_what_they_would_be_had_they_come_in_time() -> None:
    late, never = storm()[0].finals(), storm(hot_days=DAYS + 2)[0].finals()
    assert [values[:2] for values in late.values()] == [values[:2] for values in never.values()]
