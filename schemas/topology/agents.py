"""Agents: one inbox, one state topic, some outputs."""

from __future__ import annotations

from pydantic import Field

from schemas.topology.base import Section


class Agent(Section):
    """A fold over one inbox. The first agent of the chain also reads ``plain`` topics, which the outside writes."""

    about: str = Field(min_length=1, description="One sentence: what it does")
    inbox: str = Field(description="The topic whose order counts; written by agents only, but for the first agent's")
    plain: list[str] = Field(default_factory=list, description="Topics written by the outside that it reads besides its inbox")
    outputs: list[str] = Field(min_length=1, description="Topics it writes")
    state: str = Field(description="Compacted topic with its state and checkpoint")
    crew: str = Field(
        default="agents",
        pattern=r"^[a-z][a-z0-9-]{0,39}$",
        description="Agents of one crew share a worker process; one that must never slow the chain has a crew of its own",
    )
    batch: int = Field(
        default=192,
        ge=1,
        le=10_000,
        description="Records of a partition in one transaction at most: more for small records, fewer for blocks",
    )
    dead: str = Field(description="Dead letters: where it puts what it cannot take, unchanged")

    @property
    def entry(self) -> bool:
        """True where the outside writes what this agent reads; offsets are the sequence there."""
        return bool(self.plain)

    @property
    def reads(self) -> list[str]:
        """All topics it reads: the inbox first."""
        return [self.inbox, *self.plain]

    @property
    def writes(self) -> list[str]:
        """All topics it writes, but its state."""
        return [*self.outputs, self.dead]
