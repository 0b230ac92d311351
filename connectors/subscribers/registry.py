"""The registry of subscribers: the topic of their changes is the truth, and what holds now is a fold over it.

Everybody who changes a subscriber writes what is to hold next under the next version. A record counts only if its version follows the one
before; of two writers who did not know of each other the first in the topic wins, and the other is told so.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import structlog
from confluent_kafka import OFFSET_BEGINNING, KafkaException, TopicPartition
from pydantic import ValidationError

from connectors.head_end.publish import PublishError, UnavailableError, Writer
from connectors.kafka.client import consumer as make_consumer
from connectors.kafka.settings import KafkaSettings
from schemas.codec import Codec
from schemas.identity import identity
from schemas.topology import Topology
from schemas.topology.subscribers import MOST, Subscriber

TOPIC: Final = "hub.subscribers"
AUDIT: Final = "audit.events"
HISTORY: Final = 1000  # changes kept in memory per subscriber
ACTIVE, PAUSED, SUSPENDED, ENDED = "active", "paused", "suspended", "ended"
log = structlog.get_logger(__name__)


class StaleError(Exception):
    """Somebody else changed the subscriber in the meantime."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A subscriber as it stands: its settings, where it is in its life, and where its reading begins.

    ``epoch`` is the version that last set ``position`` (see Subscriber.avsc); ``at`` of that version is ``positioned``, UTC milliseconds.
    """

    id: str
    version: int
    status: str
    origin: str
    spec: Subscriber
    epoch: int
    position: str
    positioned: int
    at: int  # UTC milliseconds
    actor: str
    action: str
    reason: str

    @property
    def running(self) -> bool:
        """Whether something is to be delivered."""
        return self.status == ACTIVE


def folded(state: Entry | None, record: Mapping[str, Any]) -> Entry | None:
    """The entry after a record; the one before where the record does not count. Raises ValueError on settings nobody understands."""
    if record["version"] != (state.version if state else 0) + 1:
        return state
    try:
        spec = Subscriber.model_validate_json(record["spec"])
    except ValidationError as error:
        raise ValueError(f"subscriber {record['id']}: {error.errors(include_url=False)[0]['msg']}") from None
    at = _millis(record["at"])
    positioned = at if record["epoch"] == record["version"] or state is None else state.positioned
    names = ("id", "version", "status", "origin", "epoch", "position", "actor", "action", "reason")
    return Entry(**{name: record[name] for name in names}, spec=spec, positioned=positioned, at=at)


def _millis(moment: datetime | int) -> int:
    return moment if isinstance(moment, int) else round(moment.timestamp() * 1000)


class Registry:
    """Follows the topic and writes to it. ``run`` in a thread; everything else may be called by any thread."""

    def __init__(
        self,
        kafka: KafkaSettings,
        topology: Topology,
        codec: Codec,
        writer: Writer,
        *,
        topic: str = TOPIC,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.kafka, self.topology, self.codec, self.writer, self.topic = kafka, topology, codec, writer, topic
        self._clock = clock
        self._changed = threading.Condition()
        self._entries: dict[str, Entry] = {}
        self._histories: dict[str, list[dict[str, Any]]] = {}
        self._requests: dict[str, bool] = {}  # wishes of this process → whether they counted
        self._offset = 0
        self._caught_up = False

    # --- reading -----------------------------------------------------------------------------------------------------------

    def run(self, stop: threading.Event) -> None:
        """Follows the topic until ``stop`` is set. Raises KafkaException where the broker refuses for good."""
        reader = make_consumer(self.kafka, self.topology.group("registry"), enable_partition_eof=True, queued_max_messages_kbytes=4096)
        try:
            reader.assign([TopicPartition(self.topic, 0, OFFSET_BEGINNING)])
            while not stop.is_set():
                for message in reader.consume(500, 0.2):
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
                log.error("a record of the registry cannot be read", offset=offset, reason=str(error)[:300])
            self._offset = offset + 1
            self._changed.notify_all()

    def _fold(self, record: dict[str, Any]) -> None:
        before = self._entries.get(record["id"])
        after = folded(before, record)
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

    def entries(self) -> dict[str, Entry]:
        """All subscribers, ended ones included, by id."""
        with self._changed:
            return dict(sorted(self._entries.items()))

    def get(self, id: str) -> Entry | None:
        """One subscriber."""
        with self._changed:
            return self._entries.get(id)

    def history(self, id: str) -> list[dict[str, Any]]:
        """The changes of a subscriber that counted, oldest first."""
        with self._changed:
            return list(self._histories.get(id, []))

    # --- writing -----------------------------------------------------------------------------------------------------------

    def create(self, id: str, spec: Subscriber, *, actor: str, origin: str = "api") -> Entry:
        """A new subscriber, or a new life of one that has ended. Raises StaleError, PublishError."""
        before = self.get(id)
        if before is not None and before.status != ENDED:
            raise StaleError(f"there is a subscriber {id} already")
        if sum(entry.status != ENDED for entry in self.entries().values()) >= MOST:
            raise StaleError(f"there are {MOST} subscribers, as many as a hub may have")
        version = before.version + 1 if before else 1
        return self._propose(id, version, "create", ACTIVE, spec, origin, version, spec.start, actor=actor)

    def change(self, entry: Entry, spec: Subscriber, *, actor: str, origin: str | None = None) -> Entry:
        """Other settings from now on; what is delivered already stays so."""
        return self._next(entry, "change", spec=spec, actor=actor, origin=origin or entry.origin)

    def set_status(self, entry: Entry, action: str, status: str, *, actor: str, reason: str = "") -> Entry:
        """pause, resume, suspend or end."""
        return self._next(entry, action, status=status, actor=actor, reason=reason)

    def replay(self, entry: Entry, position: str, *, actor: str, reason: str = "") -> Entry:
        """Reading goes on from another position."""
        return self._next(entry, "replay", position=position, epoch=entry.version + 1, actor=actor, reason=reason)

    def _next(self, entry: Entry, action: str, *, actor: str, reason: str = "", **changes: Any) -> Entry:
        wanted = replace(entry, **changes)
        return self._propose(
            entry.id, entry.version + 1, action, wanted.status, wanted.spec, wanted.origin, wanted.epoch, wanted.position, actor=actor,
            reason=reason, before=entry,
        )  # fmt: skip

    def _propose(
        self, id: str, version: int, action: str, status: str, spec: Subscriber, origin: str, epoch: int, position: str, *, actor: str,
        reason: str = "", before: Entry | None = None,
    ) -> Entry:  # fmt: skip
        request = uuid.uuid4().hex
        record = {
            "id": id, "version": version, "at": round(self._clock() * 1000), "actor": actor, "action": action, "reason": reason,
            "request": request, "origin": origin, "status": status, "epoch": epoch, "position": position,
            "spec": orjson.dumps(spec.model_dump(mode="json", exclude_defaults=False)).decode(),
        }  # fmt: skip
        with self._changed:
            self._requests[request] = False
        try:
            future = self.writer.write(self.topic, self.codec.encode("Subscriber", record), key=id.encode(), partition=0)
            try:
                _, offset = future.result(self.writer.timeout + 5)
            except TimeoutError:
                raise UnavailableError("Kafka did not answer in time") from None
            with self._changed:
                if not self._changed.wait_for(lambda: self._offset > offset, 15):
                    raise UnavailableError("the registry does not follow its topic")
                counted = self._requests[request]
                entry = self._entries.get(id)
        finally:
            with self._changed:
                self._requests.pop(request, None)
        if not counted or entry is None:
            raise StaleError(f"subscriber {id} was changed by somebody else in the meantime: look at it again")
        self._audit(record, before)
        return entry

    def _audit(self, record: Mapping[str, Any], before: Entry | None) -> None:
        """An entry of the audit; its id follows from the change, so that it is there once."""
        event = {
            "id": identity("subscriber", record["id"], record["version"]), "at": record["at"], "actor": record["actor"],
            "action": f"subscriber-{record['action']}", "command": record["request"], "subject": f"subscriber/{record['id']}",
            "device": "", "channel": "", "start": record["at"], "end": record["at"], "reason": record["reason"], "outcome": "applied",
            "detail": f"subscriber {record['id']}: {record['action']}, now version {record['version']}, {record['status']}",
            "before": _told(before),
            "after": orjson.dumps({"status": record["status"], "spec": orjson.loads(record["spec"])}).decode(),
        }  # fmt: skip
        try:
            self.writer.write(AUDIT, self.codec.encode("AuditEvent", event), key=event["subject"].encode()).result(self.writer.timeout + 5)
        except (PublishError, TimeoutError) as error:
            log.error("an entry of the audit is missing", subscriber=record["id"], version=record["version"], reason=str(error))

    def declare(self, declared: Mapping[str, Subscriber]) -> list[str]:
        """Makes the registry agree with topology.yaml: what is new, changed or gone there. The ids that changed."""
        changed = []
        for id, spec in declared.items():
            entry = self.get(id)
            if entry is None or entry.status == ENDED:
                self.create(id, spec, actor="topology", origin="topology")
            elif entry.spec != spec or entry.origin != "topology":
                self.change(entry, spec, actor="topology", origin="topology")
            else:
                continue
            changed.append(id)
        for id, entry in self.entries().items():
            if entry.origin == "topology" and entry.status != ENDED and id not in declared:
                self.set_status(entry, "end", ENDED, actor="topology", reason="no longer in topology.yaml")
                changed.append(id)
        return changed


def _told(entry: Entry | None) -> str:
    return "" if entry is None else orjson.dumps({"status": entry.status, "spec": entry.spec.model_dump(mode="json")}).decode()


def utc(millis: int) -> str:
    """UTC milliseconds as ISO text."""
    return datetime.fromtimestamp(millis / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
