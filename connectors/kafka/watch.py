"""How far the consumers of a topology are behind, and how many dead letters there are: looked up at the broker, put into metrics."""

# mypy: disable-error-code="attr-defined,no-untyped-call"
# confluent_kafka re-exports some names without saying so
from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import structlog
from confluent_kafka import (
    TIMESTAMP_NOT_AVAILABLE,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import OffsetSpec

from connectors.kafka.client import administrator, consumer
from connectors.kafka.settings import KafkaSettings
from schemas import metrics
from schemas.topology import Topology

log = structlog.get_logger(__name__)
Place = tuple[str, int]  # topic, partition
TIMEOUT: Final = 30.0
PROBE_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Lag:
    """What a group has not handled of one partition: ``records`` at most (marks of transactions count), the oldest from ``since``
    (UTC seconds, None: nothing waits)."""

    group: str
    topic: str
    partition: int
    records: int
    since: float | None


class Watch:
    """Looks every ``every`` seconds. Groups are those whose name begins with that of the topology."""

    def __init__(self, settings: KafkaSettings, topology: Topology, every: float = 15.0, now: Callable[[], float] = time.time) -> None:
        self.topology, self.every = topology, every
        self._settings, self._now = settings, now
        self._admin = administrator(settings)
        self._moved: dict[tuple[str, int], tuple[int, float]] = {}  # agent and partition → sum of its offsets, and since when

    def run(self, stop: threading.Event) -> None:
        """Looks until ``stop`` is set. Whatever fails, it looks again: figures for people must not end what they are about."""
        while not stop.wait(self.every):
            try:
                self.look()
            except Exception as error:
                log.warning("the broker does not tell how far consumers are", error=str(error))

    def look(self) -> list[Lag]:
        """Looks once and sets the metrics. Raises KafkaException where the broker does not answer."""
        found: list[Lag] = []
        for group in self._groups():
            positions = self._positions(group)
            if positions:
                lags = self._lags(group, positions)
                self._note(lags, positions)
                found += lags
        self._note_dead_letters()
        return found

    def _groups(self) -> list[str]:
        listed = self._admin.list_consumer_groups(request_timeout=TIMEOUT).result()
        return sorted(g.group_id for g in listed.valid if g.group_id.startswith(f"{self.topology.name}."))

    def _positions(self, group: str) -> dict[Place, int]:
        """Where a group stands, of the topics of the topology."""
        wish = [ConsumerGroupTopicPartitions(group)]
        (future,) = self._admin.list_consumer_group_offsets(wish, request_timeout=TIMEOUT).values()
        places = future.result().topic_partitions
        return {(p.topic, p.partition): p.offset for p in places if p.offset >= 0 and p.topic in self.topology.topics}

    def _ends(self, places: Iterable[Place], spec: OffsetSpec | None = None) -> dict[Place, int]:
        wish = {TopicPartition(*place): spec or OffsetSpec.latest() for place in places}
        if not wish:
            return {}
        options = {"isolation_level": IsolationLevel.READ_COMMITTED, "request_timeout": TIMEOUT}
        answers = self._admin.list_offsets(wish, **options)
        return {(p.topic, p.partition): future.result().offset for p, future in answers.items()}

    def _lags(self, group: str, positions: Mapping[Place, int]) -> list[Lag]:
        ends = self._ends(positions)
        waiting = {place: offset for place, offset in positions.items() if ends[place] > offset}
        oldest = self._oldest(waiting)
        return [
            Lag(group, *place, ends[place] - offset if place in oldest else 0, oldest.get(place))
            for place, offset in sorted(positions.items())
        ]

    def _oldest(self, positions: Mapping[Place, int]) -> dict[Place, float]:
        """When the record at each position was written; places where only marks of transactions are left are not in it."""
        found: dict[Place, float] = {}
        if not positions:
            return found
        options = {"enable_partition_eof": True, "fetch_message_max_bytes": 1024, "queued_max_messages_kbytes": 4096}
        reader = consumer(self._settings, f"{self.topology.name}.watch", **options)
        open_places = set(positions)
        try:
            reader.assign([TopicPartition(*place, offset) for place, offset in positions.items()])
            until = time.monotonic() + PROBE_SECONDS
            while open_places and time.monotonic() < until:
                for message in reader.consume(100, 0.2):
                    place = (message.topic() or "", message.partition() or 0)
                    if place in open_places and (message.error() is None or _at_end(message)):
                        open_places.discard(place)
                        if message.error() is None:
                            kind, stamp = message.timestamp()
                            found[place] = self._now() if kind == TIMESTAMP_NOT_AVAILABLE else stamp / 1000
        finally:
            reader.close()
        return found

    def _note(self, lags: list[Lag], positions: Mapping[Place, int]) -> None:
        now = self._now()
        behind: set[Place] = set()
        for lag in lags:
            labels = (lag.group, lag.topic, str(lag.partition))
            metrics.LAG_RECORDS.labels(*labels).set(lag.records)
            metrics.LAG_SECONDS.labels(*labels).set(max(now - lag.since, 0.0) if lag.since is not None else 0.0)
            if lag.since is not None:
                behind.add((lag.topic, lag.partition))
        for name, agent in self.topology.agents.items():
            for partition in {number for topic, number in positions if topic in agent.reads}:
                at = sum(positions.get((topic, partition), 0) for topic in agent.reads)
                before, since = self._moved.get((name, partition), (-1, now))
                waits = any((topic, partition) in behind for topic in agent.reads)
                if at != before or not waits:
                    since = now
                self._moved[name, partition] = (at, since)
                metrics.COMMIT_AGE.labels(name, str(partition)).set(now - since)

    def _note_dead_letters(self) -> None:
        topics = {agent.dead for agent in self.topology.agents.values()}
        known = self._admin.list_topics(timeout=TIMEOUT).topics
        for topic in sorted(topics & set(known)):
            places = [(topic, number) for number in known[topic].partitions]
            ends, starts = self._ends(places), self._ends(places, OffsetSpec.earliest())
            metrics.DEAD_DEPTH.labels(topic).set(sum(ends[p] - starts[p] for p in places))


def _at_end(message: Message) -> bool:
    error = message.error()
    return error is not None and error.code() == KafkaError._PARTITION_EOF
