"""Topics: what flows, keyed by what, kept how long, written and read by whom."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from schemas.topology.base import FOREVER, Seconds, Section

MAX_PARTITIONS = 10_000
RAW = "raw"  # records whose bytes no schema of ours describes


def _retention(seconds: int) -> int:
    if seconds != FOREVER and seconds < 60:
        raise ValueError("must be at least 1m, or forever")
    return seconds


Retention = Annotated[Seconds, AfterValidator(_retention)]


class Topic(Section):
    """A Kafka topic. ``partitions`` and ``replication`` fall back to those of the whole topology."""

    about: str = Field(min_length=1, description="One sentence: what is in it")
    key: str = Field(min_length=1, description="What the record key is, in words")
    partitions: int = Field(gt=0, le=MAX_PARTITIONS)
    replication: int = Field(gt=0, le=9)
    cleanup: Literal["delete", "compact"] = "delete"
    retention: Retention = Field(default=FOREVER, description="How long records stay; a compacted topic keeps the last per key")
    records: list[str] = Field(default_factory=list, description="Record types of the committed schemas, or raw; none: reserved")
    writers: list[str] = Field(min_length=1)
    readers: list[str] = Field(min_length=1)
    stored: bool = Field(default=False, description="The sink writes it to the store")
    config: dict[str, str | int] = Field(default_factory=dict, description="Further Kafka topic settings")

    def kafka_config(self) -> dict[str, str]:
        """The topic settings as Kafka spells them."""
        settings: dict[str, str] = {"cleanup.policy": self.cleanup}
        if self.cleanup == "delete":
            settings["retention.ms"] = str(FOREVER if self.retention == FOREVER else self.retention * 1000)
        return settings | {name: str(value) for name, value in self.config.items()}
