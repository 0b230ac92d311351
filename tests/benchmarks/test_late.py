"""Late days against days in time, small: results are compared inside, and the store is asked in blocks."""

from __future__ import annotations

from benchmarks.late import LATE, run


def test_late_days_are_asked_for_in_blocks_and_become_what_they_become_in_time() -> None:
    figures = run(40, lambda _: None)
    assert figures["equal"]
    assert figures["channel_days"] == 40 * LATE
    assert figures["days_recalled"] >= 40 * LATE
    assert figures["recalls"] <= 3 * LATE
    # measured: 14; one record and one answer for each day made it several hundred
    assert figures["ratio_late_to_hot"] < 60
