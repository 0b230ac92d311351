"""The registry of subscribers: versions on a topic."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import structlog
from pydantic import ValidationError

from connectors.head_end.publish import PublishError, Writer
from connectors.head_end.versions import StaleError, Versions
from connectors.kafka.settings import KafkaSettings
from connectors.rights.trail import Trail
from schemas.codec import Codec
from schemas.identity import identity
from schemas.topology import Topology
from schemas.topology.subscribers import MOST, Subscriber

TOPIC: Final = "hub.subscribers"
ACTIVE, PAUSED, SUSPENDED, ENDED = "active", "paused", "suspended", "ended"
log = structlog.get_logger(__name__)


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


class Registry(Versions[Entry]):
    """The subscribers. ``run`` in a thread; everything else may be called by any thread."""

    def __init__(
        self,
        kafka: KafkaSettings,
        topology: Topology,
        codec: Codec,
        writer: Writer,
        *,
        topic: str = TOPIC,
        clock: Callable[[], float] = time.time,
        trail: Trail | None = None,
    ) -> None:
        self.trail = trail or Trail(writer, codec, None, clock=clock)
        super().__init__(
            kafka, topology, codec, writer, topic=topic, record="Subscriber", fold=folded, noun="subscriber", clock=clock
        )  # fmt: skip

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
        entry, record = self.propose({
            "id": id, "version": version, "actor": actor, "action": action, "reason": reason, "origin": origin, "status": status,
            "epoch": epoch, "position": position,
            "spec": orjson.dumps(spec.model_dump(mode="json", exclude_defaults=False)).decode(),
        })  # fmt: skip
        self._audit(record, before)
        return entry

    def _audit(self, record: Mapping[str, Any], before: Entry | None) -> None:
        """An entry of the audit; its id follows from the change, so that it is there once."""
        try:
            self.trail.write(
                f"subscriber-{record['action']}", f"subscriber/{record['id']}", "applied", actor=record["actor"], at=record["at"] // 1000,
                id=identity("subscriber", record["id"], record["version"]), command=record["request"], reason=record["reason"],
                detail=f"subscriber {record['id']}: {record['action']}, now version {record['version']}, {record['status']}",
                before=_told(before), after=orjson.dumps({"status": record["status"], "spec": orjson.loads(record["spec"])}).decode(),
            )  # fmt: skip
        except PublishError as error:
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
