"""Ingest: what is taken in, and how much of it at once."""

from __future__ import annotations

from pydantic import Field, field_validator

from schemas.events import KINDS
from schemas.topology.base import Section

MIB = 1024 * 1024


class Limits(Section):
    """Bounds on one payload, so that a hostile or broken one costs fixed memory."""

    payload_bytes: int = Field(default=32 * MIB, ge=1024, le=256 * MIB, description="As it arrives; more is refused (413)")
    unpacked_bytes: int = Field(default=256 * MIB, ge=1024, le=4096 * MIB, description="After decompression, all members together")
    archive_members: int = Field(default=1000, ge=1, le=100_000, description="Files in one archive")


class IngestSettings(Section):
    """How raw payloads become blocks."""

    event_names: dict[str, str] = Field(
        default_factory=dict,
        description="Kinds of device events by the names that head ends give them: {PwrDn: outage}",
    )
    limits: Limits = Field(default_factory=Limits, description="Of one payload")

    @field_validator("event_names")
    @classmethod
    def _known(cls, names: dict[str, str]) -> dict[str, str]:
        for name, kind in names.items():
            if kind not in KINDS:
                raise ValueError(f"{name}: {kind!r} is none of {', '.join(KINDS)}")
        return names
