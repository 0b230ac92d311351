"""Things kept as versions on a topic: the topic of their changes is the truth, and what holds now is a fold over it.

Everybody who changes a thing writes what is to hold next under the next version. A record counts only if its version follows the one
before; of two writers who did not know of each other the first in the topic wins, and the other is told so.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Protocol, TypeVar

import structlog
from confluent_kafka import OFFSET_BEGINNING, KafkaException, TopicPartition
from pydantic import BaseModel, ValidationError

from connectors.head_end.publish import UnavailableError, Writer
from connectors.kafka.client import consumer as make_consumer
from connectors.kafka.settings import KafkaSettings
from schemas.codec import Codec
from schemas.topology import Topology

ACTIVE: Final = "active"
HISTORY: Final = 1000  # changes kept in memory per thing
FOLLOW_SECONDS: Final = 30.0  # until who changed a thing is told that nobody follows the topic
log = structlog.get_logger(__name__)


class StaleError(Exception):
    """Somebody else changed it in the meantime."""


class Versioned(Protocol):
    """A thing as it stands."""

    @property
    def id(self) -> str:
        """What names it."""
        ...


@dataclass(frozen=True, slots=True)
class Entry:
    """A thing as it stands whose settings are a model of its kind. ``at``: of its last change, UTC milliseconds."""

    id: str
    version: int
    status: str
    at: int
    actor: str
    action: str
    reason: str
    spec: Any = field(compare=False)

    @property
    def active(self) -> bool:
        """Whether it counts."""
        return self.status == ACTIVE

    @property
    def name(self) -> str:
        """The id without its kind."""
        return self.id.partition("/")[2]


def folding(specs: Mapping[str, type[BaseModel]]) -> Callable[[Entry | None, Mapping[str, Any]], Entry | None]:
    """How records become entries; ``specs`` gives the model of what stands before the slash of an id."""

    def folded(state: Entry | None, record: Mapping[str, Any]) -> Entry | None:
        """The entry after a record; the one before where the record does not count. Raises ValueError on what nobody understands."""
        if record["version"] != (state.version if state else 0) + 1:
            return state
        model = specs.get(record["id"].partition("/")[0])
        if model is None:
            raise ValueError(f"{record['id']}: of a kind this version does not know")
        try:
            spec = model.model_validate_json(record["spec"])
        except ValidationError as error:
            raise ValueError(f"{record['id']}: {error.errors(include_url=False)[0]['msg']}") from None
        at = record["at"]
        millis = at if isinstance(at, int) else round(at.timestamp() * 1000)
        return Entry(record["id"], record["version"], record["status"], millis, record["actor"], record["action"], record["reason"], spec)

    return folded


E = TypeVar("E", bound=Versioned)


class Versions(Generic[E]):
    """Follows a topic of one partition and writes to it. ``run`` in a thread; everything else may be called by any thread.

    ``fold`` gives the entry after a record, the one before where the record does not count, and raises ValueError on what nobody
    understands.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        topology: Topology,
        codec: Codec,
        writer: Writer,
        *,
        topic: str,
        record: str,
        fold: Callable[[E | None, Mapping[str, Any]], E | None],
        noun: str,
        member: str = "registry",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.kafka, self.topology, self.codec, self.writer, self.topic = kafka, topology, codec, writer, topic
        self.record, self.noun, self._member, self._folded, self._clock = record, noun, member, fold, clock
        self._changed = threading.Condition()
        self._entries: dict[str, E] = {}
        self._histories: dict[str, list[dict[str, Any]]] = {}
        self._requests: dict[str, bool] = {}  # wishes of this process → whether they counted
        self._offset = 0
        self._caught_up = False

    # --- reading -----------------------------------------------------------------------------------------------------------

    def run(self, stop: threading.Event) -> None:
        """Follows the topic until ``stop`` is set. Raises KafkaException where the broker refuses for good."""
        quick: dict[str, Any] = {"enable_partition_eof": True, "fetch_wait_max_ms": 100, "queued_max_messages_kbytes": 4096}
        reader = make_consumer(self.kafka, self.topology.group(self._member), **quick)
        try:
            reader.assign([TopicPartition(self.topic, 0, OFFSET_BEGINNING)])
            while not stop.is_set():
                for message in reader.consume(500, 0.1):
                    error = message.error()
                    if error is None:
                        self._take(message.value() or b"", message.offset() or 0)
                    elif error.code() == error._PARTITION_EOF:
                        self._at_end()
                    elif error.fatal() or error.code() == error.TOPIC_AUTHORIZATION_FAILED:
                        raise KafkaException(error)
                    else:
                        log.warning("kafka", error=error.str())
        finally:
            reader.close()

    def _at_end(self) -> None:
        with self._changed:
            self._caught_up = True
            self._changed.notify_all()

    def _take(self, value: bytes, offset: int) -> None:
        with self._changed:
            try:
                if value:
                    self._fold(self.codec.decode(value))
            except (ValueError, KeyError) as error:
                log.error("a record of the registry cannot be read", topic=self.topic, offset=offset, reason=str(error)[:300])
            self._offset = offset + 1
            self._changed.notify_all()

    def _fold(self, record: dict[str, Any]) -> None:
        before = self._entries.get(record["id"])
        after = self._folded(before, record)
        counted = after is not None and after is not before
        if record["request"] in self._requests:
            self._requests[record["request"]] = counted
        if counted and after is not None:
            self._entries[after.id] = after
            history = self._histories.setdefault(after.id, [])
            history.append(record)
            del history[:-HISTORY]

    def wait_ready(self, seconds: float) -> bool:
        """Waits until what was in the topic at the start has been read."""
        with self._changed:
            return self._changed.wait_for(lambda: self._caught_up, seconds)

    @property
    def ready(self) -> bool:
        """Whether the topic has been read to its end once."""
        return self._caught_up

    def entries(self) -> dict[str, E]:
        """All there ever were, by id."""
        with self._changed:
            return dict(sorted(self._entries.items()))

    def get(self, id: str) -> E | None:
        """One of them."""
        with self._changed:
            return self._entries.get(id)

    def history(self, id: str) -> list[dict[str, Any]]:
        """The changes of one that counted, oldest first."""
        with self._changed:
            return list(self._histories.get(id, []))

    # --- writing -----------------------------------------------------------------------------------------------------------

    def propose(self, body: Mapping[str, Any]) -> tuple[E, dict[str, Any]]:
        """Writes the next version of a thing and waits until it counts: the thing, and the record as written.

        Raises StaleError where another record of this version came first, PublishError where Kafka or the follower is away.
        """
        request = uuid.uuid4().hex
        record = {**body, "at": round(self._clock() * 1000), "request": request}
        with self._changed:
            self._requests[request] = False
        try:
            future = self.writer.write(self.topic, self.codec.encode(self.record, record), key=str(body["id"]).encode(), partition=0)
            try:
                _, offset = future.result(self.writer.timeout + 5)
            except TimeoutError:
                raise UnavailableError("Kafka did not answer in time") from None
            with self._changed:
                if not self._changed.wait_for(lambda: self._offset > offset, FOLLOW_SECONDS):
                    raise UnavailableError("the registry does not follow its topic")
                counted = self._requests[request]
                entry = self._entries.get(body["id"])
        finally:
            with self._changed:
                self._requests.pop(request, None)
        if not counted or entry is None:
            raise StaleError(f"{self.noun} {body['id']} was changed by somebody else in the meantime: look at it again")
        return entry, record
