"""The contract of an agent: (state, message) → (state', outputs). No clock, no randomness, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from schemas.identity import identity
from streams.runtime.state import State

RAW = "raw"  # the type of messages from outside, whose bytes no schema describes


@dataclass(frozen=True, slots=True)
class Message:
    """One record of an inbox, decoded. ``id`` is deterministic; ``payload`` names what came from outside and caused it, if anything."""

    type: str  # record type of schemas.codec, or RAW
    body: Any  # a Block, a dict, or bytes for RAW
    id: str
    payload: str = ""
    key: bytes = b""
    topic: str = ""
    partition: int = 0
    offset: int = -1
    writer: str = ""  # agent and partition that wrote it; empty: the outside
    headers: Mapping[str, bytes] = field(default_factory=dict)

    def derive(self, *parts: str | int) -> str:
        """The id of something this message causes."""
        return identity(self.id, *parts)


@dataclass(frozen=True, slots=True)
class Output:
    """One record to write. Without ``partition`` the key decides. ``body`` is a Block, a dict of type ``type``, or bytes for RAW."""

    topic: str
    type: str
    body: Any
    key: bytes = b""
    partition: int | None = None
    headers: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class Result:
    """What one message led to: records to write and figures for its receipt (fields of the Receipt schema)."""

    outputs: list[Output] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    silent: bool = False  # no receipt: the message repeats one that has left its own

    def count(self, name: str, amount: int = 1) -> None:
        """Adds to a figure of the receipt."""
        self.figures[name] = self.figures.get(name, 0) + amount


class Fold(Protocol):
    """An agent's logic for one partition. Made anew for each partition on assignment, then given its state rows."""

    state: State

    def apply(self, message: Message) -> Result:
        """Folds one message in. Must depend on nothing but state and message; raising is a bug and stops the worker."""
        ...
