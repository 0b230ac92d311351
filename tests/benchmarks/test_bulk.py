"""The bulk of SAP devices, smaller: all are confirmed, and the same bulk again changes nothing."""

from __future__ import annotations

from benchmarks.bulk import run


def test_a_bulk_goes_all_the_way_and_again_changes_nothing() -> None:
    figures = run(1200, lambda _: None)
    assert (figures["confirmed"], figures["changes_again"]) == (1200, 0)
