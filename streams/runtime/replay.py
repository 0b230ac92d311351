"""A whole chain of agents in memory: the same lanes and envelopes as on Kafka, topics as lists. For tools, tests and simulation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from schemas.codec import Codec
from streams.runtime.fold import Fold
from streams.runtime.lane import Lane, Plan, Record

MakeFold = Callable[[int], Fold]


class Pipeline:
    """Lanes of the given agents joined by in-memory topics. :meth:`publish` from outside, then :meth:`run` until nothing is left."""

    def __init__(self, agents: Iterable[tuple[Plan, MakeFold]], codec: Codec | None = None) -> None:
        self.codec = codec or Codec()
        self.topics: dict[str, list[list[Record]]] = defaultdict(list)
        self.states: dict[tuple[str, int], dict[bytes, bytes | None]] = defaultdict(dict)
        self.agents = {plan.agent: (plan, make) for plan, make in agents}
        self.lanes: dict[tuple[str, int], Lane] = {}
        for plan, _ in self.agents.values():
            for number in range(max(plan.partitions[topic] for topic in plan.reads)):
                self.restart(plan.agent, number)

    def restart(self, agent: str, partition: int) -> Lane:
        """Throws a lane away and restores it from its state rows, as a new worker would."""
        plan, make = self.agents[agent]
        lane = self.lanes[agent, partition] = Lane(plan, partition, make, self.codec)
        for key, value in self.states[agent, partition].items():
            lane.load(key, value)
        return lane

    def log(self, topic: str, partition: int) -> list[Record]:
        """All records of one partition so far."""
        partitions = self.topics[topic]
        while len(partitions) <= partition:
            partitions.append([])
        return partitions[partition]

    def publish(self, topic: str, partition: int, key: bytes, value: bytes, headers: Mapping[str, bytes] | None = None) -> None:
        """Writes one record from outside."""
        self._append(Record(topic, partition, key, value, headers or {}))

    def _append(self, record: Record) -> Record:
        log = self.log(record.topic, record.partition)
        stored = replace(record, offset=len(log))
        log.append(stored)
        return stored

    def waiting(self) -> list[tuple[Lane, Record]]:
        """The next record of each lane and topic that has one."""
        found = []
        for (_, number), lane in self.lanes.items():
            for topic in sorted(lane.plan.reads):
                log, at = self.log(topic, number), lane.next_offset(topic)
                if at < len(log):
                    found.append((lane, log[at]))
        return found

    def step(self, lane: Lane, record: Record) -> list[Record]:
        """Handles one record and commits: outputs and state become visible together. Returns the outputs as written."""
        outputs = lane.apply(record) if lane.is_next(record) else []
        for row in lane.take_changed():
            self.states[lane.plan.agent, lane.partition][row.key] = row.value
        lane.tallies.clear()
        return [self._append(record) for record in outputs]

    def run(self) -> None:
        """Handles everything there is, lane by lane in a fixed order."""
        while waiting := self.waiting():
            for lane, record in waiting:
                self.step(lane, record)
