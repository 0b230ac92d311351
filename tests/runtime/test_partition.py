"""Where a partition commits: a transaction holds so many records and no more, and a refusal goes back to what was committed."""

from __future__ import annotations

from itertools import pairwise

import pytest

from streams.runtime import partition
from streams.runtime.lane import Lane, Record
from streams.runtime.partition import Partition
from streams.runtime.sabotage import Sabotage
from tests.runtime.counting import CODEC, CountFold, plan


class Kept(Partition):
    """A partition whose transactions are lists."""

    def __init__(self) -> None:
        self.plan, self.number, self.sabotage, self.closed = plan("first"), 0, Sabotage(), False
        self.transactions: list[list[Record]] = []
        self.rows: dict[bytes, bytes | None] = {}
        self.lane = self.restore()

    def restore(self) -> Lane:
        lane = Lane(self.plan, 0, lambda _: CountFold("middle"), CODEC)
        lane.load_all(dict(self.rows))
        return lane

    def _commit(self, outputs: object) -> None:
        assert isinstance(outputs, list)
        self.transactions.append([record for record in outputs if record.topic == "middle"])
        self.rows.update((row.key, row.value) for row in self.lane.take_changed())


def _records(*values: bytes) -> list[Record]:
    return [Record("in", 0, b"k", value, {"id": b"m%d" % offset}, offset) for offset, value in enumerate(values)]


def test_a_transaction_that_is_full_is_committed_before_the_next_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition, "FULL", 6)  # a count and a receipt of each record
    kept = Kept()
    assert kept.process(_records(*[b"x"] * 8)) == 8
    assert [len(records) for records in kept.transactions] == [3, 3, 2]


def test_a_refused_record_costs_nothing_that_was_committed_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition, "FULL", 4)
    kept = Kept()
    kept.process(_records(b"x", b"x", b"x", b"poison", b"x", b"x"))
    counted = [CODEC.decode(record.value or b"")["at"] for records in kept.transactions for record in records]
    assert counted == [1, 2, 3, 4, 5]
    numbers = [int(record.headers["mdh-seq"]) for records in kept.transactions for record in records]
    assert all(later == earlier + 1 for earlier, later in pairwise(numbers))
    assert kept.process(_records(b"x", b"x", b"x", b"poison", b"x", b"x")) == 0
