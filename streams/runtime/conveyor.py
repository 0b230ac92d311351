"""Hands the records of one agent to its partitions, each at its own pace: a slow partition holds back itself only.

What waits for a partition is bounded: beyond it the partition's topics are not fetched any further until half of it is worked off.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from streams.runtime.lane import Record
from streams.runtime.partition import Partition

T = TypeVar("T")
WAITING_RECORDS: Final = 768  # for one partition, before its topics are left alone
WAITING_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Item:
    """One delivered record, the partition that owned it then, and what tells the delivery that it is done with."""

    event: Any
    source: Any  # topic and partition as the consumer names them
    record: Record
    owner: Partition


@dataclass(slots=True)
class Belt:
    """What waits for one partition."""

    items: deque[Item] = field(default_factory=deque)
    nbytes: int = 0
    held: set[Any] = field(default_factory=set)  # sources that are not fetched any further

    def over(self, share: float = 1.0) -> bool:
        """Whether more waits than that share of what may."""
        return len(self.items) > WAITING_RECORDS * share or self.nbytes > WAITING_BYTES * share


class Conveyor:
    """One belt and at most one running task per partition.

    ``acknowledge`` is awaited for each record done with; ``hold`` and ``release`` stop and resume the fetching of a source. Use it from one
    event loop; partitions run in ``executor``.
    """

    def __init__(
        self,
        executor: Executor,
        batch: int,
        acknowledge: Callable[[Any], Awaitable[Any]],
        hold: Callable[[Any], None],
        release: Callable[[Any], None],
    ) -> None:
        self.executor, self.batch = executor, batch
        self.acknowledge, self.hold, self.release = acknowledge, hold, release
        self.belts: dict[int, Belt] = {}
        self.tasks: dict[int, asyncio.Task[None]] = {}

    def add(self, items: Sequence[Item]) -> None:
        """Puts records on their belts, in order."""
        for item in items:
            belt = self.belts.setdefault(item.owner.number, Belt())
            belt.items.append(item)
            belt.nbytes += len(item.record.value or b"")
            if belt.over():
                belt.held.add(item.source)
                self.hold(item.source)
        for number, belt in self.belts.items():
            if belt.items and number not in self.tasks:
                self.tasks[number] = asyncio.create_task(self._work(belt))

    async def until(self, coming: asyncio.Future[T]) -> T:
        """Waits for something while partitions work. Raises what a partition raised."""
        while not coming.done():
            waiting: set[asyncio.Future[Any]] = {coming, *self.tasks.values()}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for number, task in list(self.tasks.items()):
                if task.done():
                    del self.tasks[number]
                    task.result()
        return coming.result()

    async def _work(self, belt: Belt) -> None:
        run = asyncio.get_running_loop().run_in_executor
        while belt.items:
            owner = belt.items[0].owner
            batch: list[Item] = []
            while belt.items and belt.items[0].owner is owner and len(batch) < self.batch:
                batch.append(belt.items.popleft())
            if not owner.closed:  # else a rebalance took it, or gave it anew: the next owner starts from the checkpoint
                await run(self.executor, owner.process_if_owned, [item.record for item in batch])
            belt.nbytes -= sum(len(item.record.value or b"") for item in batch)
            for item in batch:
                await self.acknowledge(item.event)
            if belt.held and not belt.over(0.5):
                for source in belt.held:
                    self.release(source)
                belt.held.clear()

    def close(self) -> None:
        """Hands nothing over any more; what runs comes to its end in its thread."""
        for task in self.tasks.values():
            task.cancel()
        self.tasks.clear()
        self.belts.clear()
