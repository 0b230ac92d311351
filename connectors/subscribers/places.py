"""Where a subscriber is in a topic: the next offset, and with it what must survive a crash, in the metadata of the committed position."""

from __future__ import annotations

from dataclasses import dataclass

import orjson
from confluent_kafka import Consumer, KafkaException, TopicPartition

from connectors.subscribers.registry import Entry
from schemas.topology.subscribers import start_second

Place = tuple[str, int]  # topic, partition


@dataclass(frozen=True, slots=True)
class Mark:
    """A committed position. ``until`` is the end of a batch that was begun at ``offset``: after a crash it is the same batch again."""

    offset: int
    epoch: int
    until: int = 0

    def at(self, place: Place) -> TopicPartition:
        """As it is committed."""
        body = {"e": self.epoch, "u": self.until} if self.until else {"e": self.epoch}
        return TopicPartition(*place, self.offset, orjson.dumps(body).decode())


def read_mark(part: TopicPartition) -> Mark | None:
    """The mark in a committed position; None where nothing was committed, or not by us."""
    if part.offset < 0:
        return None
    try:
        body = orjson.loads(part.metadata or "")
        return Mark(part.offset, int(body["e"]), int(body.get("u", 0)))
    except (ValueError, KeyError, TypeError):
        return None


def marks_of(consumer: Consumer, entry: Entry, parts: list[TopicPartition]) -> dict[Place, Mark]:
    """Where reading begins: at what was committed in this epoch, else where the entry's position points. Raises KafkaException."""
    found: dict[Place, Mark] = {}
    fresh = []
    for part in consumer.committed([TopicPartition(p.topic, p.partition) for p in parts], timeout=15):
        if part.error is not None:
            raise KafkaException(part.error)
        mark = read_mark(part)
        if mark is not None and mark.epoch >= entry.epoch:
            found[part.topic, part.partition] = mark
        else:
            fresh.append((part.topic, part.partition))
    for place, offset in positioned(consumer, entry, fresh).items():
        found[place] = Mark(offset, entry.epoch)
    return found


def positioned(consumer: Consumer, entry: Entry, places: list[Place]) -> dict[Place, int]:
    """The offsets a position stands for. Times are those at which Kafka got the records."""
    if not places:
        return {}
    bounds = {place: consumer.get_watermark_offsets(TopicPartition(*place), timeout=15) for place in places}
    if entry.position.startswith("{"):
        given = orjson.loads(entry.position)
        return {
            place: min(max(given.get(f"{place[0]}/{place[1]}", bounds[place][1]), bounds[place][0]), bounds[place][1]) for place in places
        }
    if entry.position == "earliest":
        return {place: bounds[place][0] for place in places}
    second = start_second(entry.position)
    moment = entry.positioned if second is None else second * 1000
    answered = consumer.offsets_for_times([TopicPartition(*place, moment) for place in places], timeout=15)
    return {(p.topic, p.partition): p.offset if p.offset >= 0 else bounds[p.topic, p.partition][1] for p in answered}
