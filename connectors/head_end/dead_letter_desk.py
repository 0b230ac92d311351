"""Dead letters over HTTP: those that wait, and sending them again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Final, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from connectors.head_end.dead_letters import DeadLetters, DeadLettersError, Letter, Replay
from connectors.head_end.listing import Rows
from connectors.head_end.problems import ProblemError, responses
from connectors.head_end.publish import PublishError, Writer
from connectors.kafka.settings import KafkaSettings
from connectors.rights.principal import permission_asked
from connectors.rights.scope import here, needs_everything
from schemas.codec import Codec
from schemas.topology import Topology

MOST: Final = 1000
RECEIPTS: Final = "hub.receipts"
# Head ends all of whose devices lie within
_HEAD_ENDS: Final = (
    "SELECT JSONExtractString(span_body[-1], 'head_end') AS source FROM master_objects FINAL WHERE kind = 'device' "
    "GROUP BY source HAVING source != '' AND countIf(NOT (INSIDE)) = 0"
)


class ReplayQuestion(BaseModel):
    """Which letters are sent again, unchanged."""

    model_config = ConfigDict(extra="forbid")

    letters: list[str] = Field(min_length=1, max_length=MOST, description="by `ref`")
    policy: Literal["reinsert", "stop", "drop"] = Field(default="reinsert", description="what becomes of one that fails again")


class DeadLetterDesk:
    """Looks at dead letters and sends them again, one request at a time: what was dealt with is a position of one consumer group."""

    def __init__(self, topology: Topology, kafka: KafkaSettings, writer: Writer, codec: Codec, reader: Rows | None = None) -> None:
        """``reader`` asks the store which head ends lie in an area; without one nobody whose rights are bounded sees letters."""
        self.topology, self.kafka, self.writer, self.codec, self.reader = topology, kafka, writer, codec, reader
        self._lock = threading.Lock()

    def loops(self) -> Mapping[str, Callable[[threading.Event], None]]:
        """None: it only answers."""
        return {}

    def close(self) -> None:
        """Nothing is held."""

    def waiting(self) -> list[dict[str, Any]]:
        """The oldest letters that wait; of the area of the one who asks. Raises DeadLettersError, Problem 403."""
        sources = self._sources()
        with self._lock, self._open() as letters:
            return [letter.summary() for letter in _of(letters, sources)[:MOST]]

    def _sources(self) -> frozenset[str] | None:
        """The head ends whose letters the one who asks may see; None: all. Raises Problem 403 where there is none."""
        area = here()
        if area.everywhere:
            return None
        rows = self.reader.rows(_HEAD_ENDS.replace("INSIDE", area.on("object", "device")), area.parameters) if self.reader else []
        if not rows:
            why = "Dead letters are known by the head end that sent them, and no head end of master data lies wholly in your area."
            raise needs_everything(permission_asked(), why)
        return frozenset(row["source"] for row in rows)

    def replay(self, asked: ReplayQuestion) -> list[dict[str, Any]]:
        """What became of the letters. Raises DeadLettersError, PublishError, Problem 403, 404."""
        sources = self._sources()
        agents = self.topology.agents.values()
        plain = frozenset(topic for agent in agents if agent.entry for topic in agent.reads)
        inboxes = frozenset(agent.inbox for agent in agents if not agent.entry)
        with self._lock, self._open() as letters:
            known = {letter.ref: letter for letter in _of(letters, sources)}
            missing = [ref for ref in asked.letters if ref not in known]
            if missing:
                raise ProblemError(404, "not-found", f"The dead letter {missing[0]} does not wait.", missing=missing)
            chosen = [known[ref] for ref in dict.fromkeys(asked.letters)]
            replay = Replay(letters, self.writer, plain, RECEIPTS, self.codec, inboxes=inboxes)
            return [asdict(outcome) for outcome in replay.run(chosen, asked.policy)]

    def _open(self) -> DeadLetters:
        topics = [agent.dead for agent in self.topology.agents.values() if agent.dead]
        return DeadLetters(self.kafka, topics, self.topology.group("operations"))


def _of(letters: DeadLetters, sources: frozenset[str] | None) -> list[Letter]:
    return [letter for letter in letters.waiting() if sources is None or letter.text("source") in sources]


def routes(desk: DeadLetterDesk | None) -> APIRouter:
    """The routes; without a desk the interface is only described."""
    router = APIRouter(prefix="/v1/dead-letters", tags=["operations"])

    def there() -> DeadLetterDesk:
        if desk is None:
            raise ProblemError(503, "no-dead-letters", "This gateway has no dead letters.")
        return desk

    @router.get("", summary="Dead letters that wait, oldest first", responses=responses(403, 503))
    def waiting() -> dict[str, Any]:
        try:
            return {"items": there().waiting(), "next": None}
        except DeadLettersError as error:
            raise ProblemError(503, "kafka-away", str(error)) from error

    @router.post("/replay", summary="Send dead letters again", responses=responses(403, 404, 422, 503))
    def replay(asked: ReplayQuestion) -> dict[str, Any]:
        try:
            return {"items": there().replay(asked), "next": None}
        except (DeadLettersError, PublishError) as error:
            raise ProblemError(503, "kafka-away", str(error)) from error

    return router
