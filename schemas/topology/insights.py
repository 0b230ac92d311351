"""Insights: models that learn from final measurements and tell what no fixed rule sees."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from schemas.topology.base import Section


class InsightsSettings(Section):
    """Days unlike what the channel, or its segment, has been seen to do: found by models that learn as reads come."""

    severity: Literal["info", "issue"] = Field(default="info", description="Of the exceptions; neither holds anything back")
    sensitivity: float = Field(default=1.0, gt=0, le=10, description="Scores are multiplied by it: 2 tells of days half as strange")
    quiet_days: int = Field(default=3, ge=0, le=365, description="A strange day raises nothing so many days after a channel's last one")
    sample: int = Field(default=256, ge=1, le=10_000, description="One in so many ordinary meter-days teaches its segment's models")
    most: int = Field(default=64, ge=1, le=10_000, description="Meter-days of one message that the models of segments look at")
