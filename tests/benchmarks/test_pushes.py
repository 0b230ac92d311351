"""Pushes against whole days, small: results are compared inside, and a backlog publishes a day a few times."""

from __future__ import annotations

from benchmarks.pushes import run


def test_gathered_days_are_those_sent_whole_and_are_published_seldom() -> None:
    figures = run(20, 1, lambda _: None)
    assert figures["equal"]
    assert figures["whole_rows"] == 20
    assert figures["each_rows"] == 20 * 96
    assert figures["backlog_rows"] <= 20 * 8
    assert figures["hourly_rows"] <= 20 * 30
