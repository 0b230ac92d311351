"""Topics: what flows, keyed by what, kept how long, written and read by whom."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from schemas.topology.base import FOREVER, Seconds, Section

MAX_PARTITIONS: Final = 10_000
RAW: Final = "raw"  # records whose bytes no schema of ours describes
KAFKA_DEFAULT_LARGEST: Final = 1_048_588
_OWN: Final = {"retention.ms": "retention", "cleanup.policy": "cleanup"}
_NUMBERS: Final = {
    "delete.retention.ms", "file.delete.delay.ms", "flush.messages", "flush.ms", "index.interval.bytes", "local.retention.bytes",
    "local.retention.ms", "max.compaction.lag.ms", "max.message.bytes", "message.timestamp.after.max.ms",
    "message.timestamp.before.max.ms", "min.compaction.lag.ms", "min.insync.replicas", "retention.bytes", "segment.bytes",
    "segment.index.bytes", "segment.jitter.ms", "segment.ms",
}  # fmt: skip
_WORDS: Final = {
    "compression.gzip.level", "compression.lz4.level", "compression.type", "compression.zstd.level", "message.timestamp.type",
    "min.cleanable.dirty.ratio", "preallocate", "remote.storage.enable", "unclean.leader.election.enable",
}  # fmt: skip


def _retention(seconds: int) -> int:
    if seconds != FOREVER and seconds < 60:
        raise ValueError("must be at least 1m, or forever")
    return seconds


Retention = Annotated[Seconds, AfterValidator(_retention)]


def _config(settings: dict[str, str | int | float]) -> dict[str, str | int | float]:
    for name, value in settings.items():
        if name in _OWN:
            raise ValueError(f"{name} is set by {_OWN[name]}")
        if name not in _NUMBERS | _WORDS:
            raise ValueError(f"{name} is no Kafka topic setting")
        if name in _NUMBERS and not (type(value) is int or (isinstance(value, str) and value.lstrip("-").isdigit())):
            raise ValueError(f"{name} must be a whole number, not {value!r}")
    return settings


Config = Annotated[dict[str, str | int | float], AfterValidator(_config)]


class Topic(Section):
    """A Kafka topic. ``partitions`` and ``replication`` fall back to those of the whole topology."""

    about: str = Field(min_length=1, description="One sentence: what is in it")
    key: str = Field(min_length=1, description="What the record key is, in words")
    partitions: int = Field(gt=0, le=MAX_PARTITIONS, description="Left out: those of the whole topology")
    replication: int = Field(gt=0, le=9, description="Copies, left out: those of the whole topology; never more than there are brokers")
    cleanup: Literal["delete", "compact"] = Field(default="delete", description="delete by age, or compact to the last record per key")
    retention: Retention = Field(default=FOREVER, description="How long records stay; a compacted topic keeps the last per key")
    records: list[str] = Field(default_factory=list, description="Record types of the committed schemas, or raw; none: reserved")
    writers: list[str] = Field(min_length=1, description="Agents and parties that may write")
    readers: list[str] = Field(min_length=1, description="Agents and parties that may read")
    stored: bool = Field(default=False, description="The sink writes it to the store")
    config: Config = Field(default_factory=dict, description="Further Kafka topic settings")

    @property
    def largest(self) -> int:
        """The most bytes a record (rather: a batch of them, compressed) may have."""
        return int(self.config.get("max.message.bytes", KAFKA_DEFAULT_LARGEST))

    def kafka_config(self) -> dict[str, str]:
        """The topic settings as Kafka spells them."""
        settings: dict[str, str] = {"cleanup.policy": self.cleanup}
        if self.cleanup == "delete":
            settings["retention.ms"] = str(FOREVER if self.retention == FOREVER else self.retention * 1000)
        return settings | {name: str(value) for name, value in self.config.items()}
