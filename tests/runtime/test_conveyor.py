"""The conveyor: a partition that stands still holds back nobody else, and what waits for it is bounded."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from streams.runtime.conveyor import WAITING_RECORDS, Conveyor, Item
from streams.runtime.lane import Record

BATCH = 16


class Place:
    """Stands for a Partition: keeps what it was given, waits while its gate is shut, fails on demand."""

    def __init__(self, number: int) -> None:
        self.number, self.closed = number, False
        self.gate = threading.Event()
        self.gate.set()
        self.seen: list[int] = []
        self.largest = 0

    def process_if_owned(self, records: list[Record]) -> int:
        assert self.gate.wait(300)
        if any(record.value == b"poison" for record in records):
            raise RuntimeError(f"partition {self.number} cannot go on")
        self.seen += [record.offset for record in records]
        self.largest = max(self.largest, len(records))
        return len(records)


class Delivery:
    """Stands for Faust: what it was told, and which sources it may still fetch."""

    def __init__(self, executor: ThreadPoolExecutor) -> None:
        self.done: dict[int, list[int]] = defaultdict(list)
        self.held: set[str] = set()
        self.releases = 0
        self.conveyor = Conveyor(executor, BATCH, self.acknowledge, self.held.add, self.release)

    async def acknowledge(self, event: Any) -> None:
        self.done[event[0]].append(event[1])

    def release(self, source: str) -> None:
        self.held.discard(source)
        self.releases += 1

    def give(self, place: Place, first: int, last: int, value: bytes = b"x") -> None:
        items = [
            Item((place.number, n), f"in-{place.number}", Record("in", place.number, b"", value, {}, n), place)  # type: ignore[arg-type]
            for n in range(first, last)
        ]
        self.conveyor.add(items)

    async def settle(self, number: int, count: int) -> None:
        async def enough() -> None:
            while len(self.done[number]) < count:
                await asyncio.sleep(0.001)

        await asyncio.wait_for(self.conveyor.until(asyncio.ensure_future(enough())), 300)


@pytest.fixture
def delivery() -> Any:
    with ThreadPoolExecutor(4) as executor:
        yield Delivery(executor)


def test_a_partition_that_stands_still_holds_back_itself_only(delivery: Delivery) -> None:
    slow, quick = Place(0), Place(1)
    slow.gate.clear()
    limit = WAITING_RECORDS + BATCH

    async def run() -> None:
        delivery.give(slow, 0, 10)
        for n in range(0, 5_000, 50):
            if "in-0" not in delivery.held:
                delivery.give(slow, 10 + n, 60 + n)
            delivery.give(quick, n, n + 50)
            await delivery.settle(1, n + 50)
        assert delivery.done[0] == []
        assert delivery.held == {"in-0"}
        waiting = len(delivery.conveyor.belts[0].items)
        assert WAITING_RECORDS < waiting <= limit + 50
        slow.gate.set()
        await delivery.settle(0, waiting)

    asyncio.run(run())
    assert delivery.done[1] == quick.seen == list(range(5_000))
    assert delivery.done[0] == slow.seen == list(range(len(slow.seen)))
    assert delivery.held == set()
    assert delivery.releases == 1
    assert slow.largest == BATCH


def test_what_a_partition_raises_ends_the_delivery_and_is_not_acknowledged(delivery: Delivery) -> None:
    bad, good = Place(0), Place(1)

    async def run() -> None:
        delivery.give(bad, 0, 1, b"poison")
        delivery.give(good, 0, 1)
        await delivery.conveyor.until(asyncio.get_running_loop().create_future())

    with pytest.raises(RuntimeError, match="partition 0 cannot go on"):
        asyncio.run(run())
    assert delivery.done[0] == []


def test_records_for_an_owner_of_before_are_let_go_and_the_next_one_gets_its_own(delivery: Delivery) -> None:
    before, after = Place(3), Place(3)

    async def run() -> None:
        before.gate.clear()
        delivery.give(before, 0, BATCH)
        await asyncio.sleep(0)  # it is at work on these
        delivery.give(before, BATCH, 2 * BATCH)
        before.closed = True
        delivery.give(after, BATCH, 3 * BATCH)
        before.gate.set()
        await delivery.settle(3, 4 * BATCH)

    asyncio.run(run())
    assert before.seen == list(range(BATCH))
    assert after.seen == list(range(BATCH, 3 * BATCH))
