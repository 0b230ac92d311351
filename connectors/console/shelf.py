"""What people keep in the console: how they arranged their dashboard, and proposals of settings. Versions on ``hub.console``."""

from __future__ import annotations

from datetime import date
from typing import Final

import orjson
from pydantic import BaseModel, ConfigDict, Field

from connectors.head_end.handlers import RETRY_AFTER, carried_out
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


SPECS: Final[dict[str, type[BaseModel]]] = {"dashboard": Arrangement, "proposal": Proposal}


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


def new_id(*parts: str) -> str:
    """The id of a new proposal."""
    return identity("proposal", *parts)[:12]
