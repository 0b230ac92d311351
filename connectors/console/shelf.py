"""What people keep in the console: how they arranged their dashboard, proposals of settings, and who decides an order.

Versions on ``hub.console``: every hub process follows them, and of two who write at once the first in the topic counts.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import date
from typing import Final

import orjson
from pydantic import BaseModel, ConfigDict, Field

from connectors.head_end.handlers import RETRY_AFTER, carried_out
from connectors.head_end.orders import being_decided
from connectors.head_end.problems import ProblemError
from connectors.head_end.publish import Writer
from connectors.head_end.versions import ACTIVE, Entry, Versions, folding
from connectors.kafka.settings import KafkaSettings
from schemas.codec import Codec
from schemas.identity import identity
from schemas.topology import Topology

TOPIC: Final = "hub.console"
RECORD: Final = "ConsoleEntry"
WITHDRAWN: Final = "withdrawn"
MEMBER: Final = "console"
TAKEN: Final = 600.0  # seconds for which nobody else can take an order that somebody decides: by then the store knows what was decided


class Arrangement(BaseModel):
    """A dashboard as somebody arranged it; widgets that are not named stand behind the others."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    order: tuple[str, ...] = Field(default=(), max_length=100)
    hidden: tuple[str, ...] = Field(default=(), max_length=100)
    wide: tuple[str, ...] = Field(default=(), max_length=100, description="those that take the whole width")


class Proposal(BaseModel):
    """A topology.yaml that somebody proposes. ``base`` and ``digest`` name what was in force then, and what it says itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    effective_from: date
    text: str
    base: str
    digest: str


class Decision(BaseModel):
    """Who took an order to decide it, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    approve: bool


SPECS: Final[dict[str, type[BaseModel]]] = {"dashboard": Arrangement, "proposal": Proposal, "decision": Decision}


class Shelf(Versions[Entry]):
    """The topic, followed and written."""

    def __init__(self, kafka: KafkaSettings, topology: Topology, codec: Codec, writer: Writer) -> None:
        super().__init__(
            kafka, topology, codec, writer, topic=TOPIC, record=RECORD, fold=folding(SPECS), noun="what is kept as", member=MEMBER
        )

    def put(
        self, id: str, spec: BaseModel, action: str, *, actor: str, status: str = ACTIVE, reason: str = "", before: Entry | None = None
    ) -> Entry:
        """The next version of a thing. Raises Problem 409 where somebody was quicker, 503 where Kafka is away."""
        body = {
            "id": id, "version": before.version + 1 if before else 1, "actor": actor, "action": action, "reason": reason, "status": status,
            "spec": orjson.dumps(spec.model_dump(mode="json")).decode(),
        }  # fmt: skip
        return carried_out(lambda: self.propose(body)[0])

    def found(self, id: str) -> Entry | None:
        """A thing. Raises Problem 503 while the topic has not been read."""
        if not self.wait_ready(5):
            raise ProblemError(503, "kafka-away", "What people keep in the console has not been read yet; try again.", headers=RETRY_AFTER)
        return self.get(id)

    def of_kind(self, kind: str) -> list[Entry]:
        """All of a kind, the newest change first."""
        self.found("")
        return sorted((e for id, e in self.entries().items() if id.startswith(f"{kind}/")), key=lambda entry: (-entry.at, entry.id))

    # --- orders --------------------------------------------------------------------------------------------------------------------

    def claim(self, order: str, user: str, *, approve: bool) -> None:
        """Takes an order to decide it. Raises Problem 409 where somebody else, or another decision, was first; 503."""
        id, wanted = f"decision/{order}", Decision(approve=approve)
        before = self.found(id)
        if before is not None and before.active and self._clock() * 1000 - before.at < TAKEN * 1000:
            if (before.actor, before.spec) == (user, wanted):
                return
            raise being_decided()
        try:
            self.put(id, wanted, "decide", actor=user, before=before)
        except ProblemError as error:
            raise being_decided() if error.kind == "conflict" else error from None

    def release(self, order: str, user: str) -> None:
        """Gives back an order that came to no decision. Raises Problem 503."""
        before = self.found(f"decision/{order}")
        if before is not None and before.active and before.actor == user:
            self.put(before.id, before.spec, "release", actor=user, status=WITHDRAWN, before=before)

    def loops(self) -> Mapping[str, Callable[[threading.Event], None]]:
        """The follower."""
        return {"console": self.run}

    def close(self) -> None:
        """Nothing is held."""


def new_id(*parts: str) -> str:
    """The id of a new proposal."""
    return identity("proposal", *parts)[:12]
