"""What stands behind the HTTP interface."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from connectors.head_end.documents import CommandRequest, LabelRequest, MasterAnswer
from connectors.head_end.publish import Publisher


class Reader(Protocol):
    """Questions to the store. All of them block: the gateway asks from threads."""

    def payloads(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """What is known of payloads: id, status, complete and the figures of their receipts; unknown ids are left out."""
        ...

    def settled_tick(self) -> int | None:
        """The latest tick all of whose work, on every partition, is in the store."""
        ...

    def history_asked(self) -> tuple[int | None, bool]:
        """The latest tick that asked the store for history (None: none did), and whether an answer is still under way."""
        ...

    def rows(self, sql: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The rows of one of our own queries, parameters bound by the engine."""
        ...

    def stream(self, sql: str) -> Iterator[bytes]:
        """NDJSON of somebody else's query, read-only and bounded. Raises ValueError with the engine's words if it is refused."""
        ...


class MasterDesk(Protocol):
    """Takes master data in."""

    def take(self, data: bytes) -> MasterAnswer:
        """Publishes the good lines of an NDJSON document and waits for Kafka. Raises PublishError."""
        ...


class CommandDesk(Protocol):
    """Takes commands in."""

    def submit(self, asked: CommandRequest, idempotency_key: str | None = None) -> tuple[str, Future[tuple[int, int]]]:
        """The id of the command and the future of Kafka's acknowledgement. Raises PublishError."""
        ...


class LabelDesk(Protocol):
    """Takes in what clerks found out about anomalies."""

    def submit(self, asked: LabelRequest) -> tuple[str, Future[tuple[int, int]]]:
        """The id of the exception and the future of Kafka's acknowledgement. Raises PublishError."""
        ...

    def of_command(self, asked: CommandRequest) -> Future[tuple[int, int]] | None:
        """The label that a command implies by the exception it names. Raises PublishError."""
        ...


@dataclass(frozen=True)
class Desk:
    """Everything behind the routes."""

    publisher: Publisher
    reader: Reader
    master: MasterDesk
    ready: Callable[[], list[str]]  # reasons why reads cannot flow; none: ready
    quiet_seconds: int = 3
    formats: frozenset[str] = frozenset()  # known format names; empty: anything goes
    about: Mapping[str, Any] = field(default_factory=dict)
    commands: CommandDesk | None = None
    events: Publisher | None = None
    labels: LabelDesk | None = None
    inflight_bytes: int = 256 * 1024 * 1024
