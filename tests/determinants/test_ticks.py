"""Time in determinants: it has come only as far as the slowest VEE partition."""

from __future__ import annotations

from schemas.topology.tou import DeterminantsSettings
from streams.determinants.fold import DeterminantsFold
from streams.runtime.fold import Message


def tick(fold: DeterminantsFold, writer: str, at: int) -> int:
    fold.apply(Message("Tick", {"at": at, "close": False}, f"{writer}-{at}", writer=writer))
    return int.from_bytes(fold.state.entries.get("now", b""), "little")


def test_time_passes_when_all_partitions_have_said_so() -> None:
    fold = DeterminantsFold(DeterminantsSettings.default(), 0, 3)
    assert tick(fold, "vee/0", 100) == 0
    assert tick(fold, "vee/1", 120) == 0
    assert tick(fold, "vee/2", 110) == 100
    assert tick(fold, "vee/0", 130) == 110
    assert tick(fold, "vee/0", 140) == 110
    assert tick(fold, "vee/2", 140) == 120


def test_a_tick_from_nobody_counts_by_itself() -> None:
    assert tick(DeterminantsFold(DeterminantsSettings.default(), 0, 3), "", 50) == 50
