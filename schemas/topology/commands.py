"""Commands of people: how many at once, and from when on a second person must agree."""

from __future__ import annotations

from pydantic import Field

from schemas.topology.base import Section


class CommandSettings(Section):
    """Bounds on bulk orders."""

    four_eyes_above: int = Field(default=1000, ge=0, description="Bulk orders of more commands wait until a second person approves them")
    most: int = Field(default=100_000, ge=1, le=1_000_000, description="Commands of one bulk order; larger selections are refused")
