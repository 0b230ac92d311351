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
    """A committed position. ``until`` is the end of a batch that was begun at ``offset``: after a crash it is the same batch again.

    ``stop`` is where a replay of a span of time ends, ``back`` where reading goes on behind it; both 0: there is none.
    """

    offset: int
    epoch: int
    until: int = 0
    stop: int = 0
    back: int = 0

    def at(self, place: Place) -> TopicPartition:
        """As it is committed."""
        told = {"e": self.epoch, "u": self.until, "s": self.stop, "b": self.back}
        body = {name: value for name, value in told.items() if value or name == "e"}
        return TopicPartition(*place, self.offset, orjson.dumps(body).decode())

    @property
    def reached(self) -> int:
        """How far everything has been delivered, whatever is being delivered again."""
        return self.back if self.stop else self.offset


def read_mark(part: TopicPartition) -> Mark | None:
    """The mark in a committed position; None where nothing was committed, or not by us."""
    if part.offset < 0:
        return None
    try:
        body = orjson.loads(part.metadata or "")
        return Mark(part.offset, int(body["e"]), *(int(body.get(name, 0)) for name in ("u", "s", "b")))
    except (ValueError, KeyError, TypeError):
        return None


def marks_of(consumer: Consumer, entry: Entry, parts: list[TopicPartition]) -> dict[Place, Mark]:
    """Where reading begins: at what was committed in this epoch, else where the entry's position points. Raises KafkaException."""
    found: dict[Place, Mark] = {}
    fresh: list[Place] = []
    reached: dict[Place, int] = {}
    for part in consumer.committed([TopicPartition(p.topic, p.partition) for p in parts], timeout=15):
        if part.error is not None:
            raise KafkaException(part.error)
        mark = read_mark(part)
        if mark is not None and mark.epoch >= entry.epoch:
            found[part.topic, part.partition] = mark if mark.offset < mark.stop else Mark(mark.reached, mark.epoch, mark.until)
        else:
            fresh.append((part.topic, part.partition))
            if mark is not None:
                reached[part.topic, part.partition] = mark.reached
    begin, end = edges_of(entry.position)
    ends = positioned(consumer, entry, fresh, end) if end else {}
    for place, offset in positioned(consumer, entry, fresh, begin).items():
        found[place] = _span(offset, ends[place], reached.get(place, 0), entry.epoch) if ends else Mark(offset, entry.epoch)
    return found


def _span(begin: int, end: int, reached: int, epoch: int) -> Mark:
    """A replay from one offset to another, for a subscriber that has got everything before ``reached``."""
    if begin >= min(end, reached):
        return Mark(reached or begin, epoch)  # nothing of it has been delivered yet
    return Mark(begin, epoch, 0, end, reached) if end < reached else Mark(begin, epoch)


def edges_of(position: str) -> tuple[str, str]:
    """Where a position begins, and where a replay ends; empty: it does not, reading goes on."""
    if position.startswith("{"):
        told = orjson.loads(position)
        if set(told) == {"from", "to"}:
            return told["from"], told["to"]
    return position, ""


def span_text(begin: str, end: str) -> str:
    """The position of a replay between two times."""
    return orjson.dumps({"from": begin, "to": end}).decode()


def positioned(consumer: Consumer, entry: Entry, places: list[Place], position: str) -> dict[Place, int]:
    """The offsets a position stands for. Times are those at which Kafka got the records."""
    if not places:
        return {}
    bounds = {place: consumer.get_watermark_offsets(TopicPartition(*place), timeout=15) for place in places}
    if position.startswith("{"):
        given = orjson.loads(position)
        return {
            place: min(max(given.get(f"{place[0]}/{place[1]}", bounds[place][1]), bounds[place][0]), bounds[place][1]) for place in places
        }
    if position == "earliest":
        return {place: bounds[place][0] for place in places}
    second = start_second(position)
    moment = entry.positioned if second is None else second * 1000
    answered = consumer.offsets_for_times([TopicPartition(*place, moment) for place in places], timeout=15)
    return {(p.topic, p.partition): p.offset if p.offset >= 0 else bounds[p.topic, p.partition][1] for p in answered}
