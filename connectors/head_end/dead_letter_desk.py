"""Dead letters over HTTP: those that wait, and sending them again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Final, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from connectors.head_end.dead_letters import DeadLetters, DeadLettersError, Replay
from connectors.head_end.problems import ProblemError, responses
from connectors.head_end.publish import PublishError, Writer
from connectors.kafka.settings import KafkaSettings
from schemas.codec import Codec
from schemas.topology import Topology

MOST: Final = 1000
RECEIPTS: Final = "hub.receipts"


class ReplayQuestion(BaseModel):
    """Which letters are sent again, unchanged."""

    model_config = ConfigDict(extra="forbid")

    letters: list[str] = Field(min_length=1, max_length=MOST, description="by `ref`")
    policy: Literal["reinsert", "stop", "drop"] = Field(default="reinsert", description="what becomes of one that fails again")


class DeadLetterDesk:
    """Looks at dead letters and sends them again, one request at a time: what was dealt with is a position of one consumer group."""

    def __init__(self, topology: Topology, kafka: KafkaSettings, writer: Writer, codec: Codec) -> None:
        self.topology, self.kafka, self.writer, self.codec = topology, kafka, writer, codec
        self._lock = threading.Lock()

    def loops(self) -> Mapping[str, Callable[[threading.Event], None]]:
        """None: it only answers."""
        return {}

    def close(self) -> None:
        """Nothing is held."""

    def waiting(self) -> list[dict[str, Any]]:
        """The oldest letters that wait. Raises DeadLettersError."""
        with self._lock, self._open() as letters:
            return [letter.summary() for letter in letters.waiting()[:MOST]]

    def replay(self, asked: ReplayQuestion) -> list[dict[str, Any]]:
        """What became of the letters. Raises DeadLettersError, PublishError, Problem 404."""
        agents = self.topology.agents.values()
        plain = frozenset(topic for agent in agents if agent.entry for topic in agent.reads)
        inboxes = frozenset(agent.inbox for agent in agents if not agent.entry)
        with self._lock, self._open() as letters:
            known = {letter.ref: letter for letter in letters.waiting()}
            missing = [ref for ref in asked.letters if ref not in known]
            if missing:
                raise ProblemError(404, "not-found", f"The dead letter {missing[0]} does not wait.", missing=missing)
            chosen = [known[ref] for ref in dict.fromkeys(asked.letters)]
            replay = Replay(letters, self.writer, plain, RECEIPTS, self.codec, inboxes=inboxes)
            return [asdict(outcome) for outcome in replay.run(chosen, asked.policy)]

    def _open(self) -> DeadLetters:
        topics = [agent.dead for agent in self.topology.agents.values() if agent.dead]
        return DeadLetters(self.kafka, topics, self.topology.group("operations"))


def routes(desk: DeadLetterDesk | None) -> APIRouter:
    """The routes; without a desk the interface is only described."""
    router = APIRouter(prefix="/v1/dead-letters", tags=["operations"])

    def there() -> DeadLetterDesk:
        if desk is None:
            raise ProblemError(503, "no-dead-letters", "This gateway has no dead letters.")
        return desk

    @router.get("", summary="Dead letters that wait, oldest first", responses=responses(503))
    def waiting() -> dict[str, Any]:
        try:
            return {"items": there().waiting(), "next": None}
        except DeadLettersError as error:
            raise ProblemError(503, "kafka-away", str(error)) from error

    @router.post("/replay", summary="Send dead letters again", responses=responses(404, 422, 503))
    def replay(asked: ReplayQuestion) -> dict[str, Any]:
        try:
            return {"items": there().replay(asked), "next": None}
        except (DeadLettersError, PublishError) as error:
            raise ProblemError(503, "kafka-away", str(error)) from error

    return router
