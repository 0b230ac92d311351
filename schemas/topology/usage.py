"""Usage in topology.yaml: what is told of consumption as it becomes known, and how billing usage is calculated."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Literal

from pydantic import Field

from schemas.topology.base import Section


class EventSettings(Section):
    """Which accounts' consumption goes to `usage.events` as it becomes known, and how finely."""

    accounts: tuple[str, ...] = Field(default=("*",), description="Patterns of accounts; none: no events")
    intervals: tuple[str, ...] = Field(default=(), description="Patterns of accounts that are told every interval instead of the day")
    measures: tuple[Literal["interval", "scalar"], ...] = Field(
        default=("interval", "scalar"),
        description="Sums of intervals, differences of register readings; a register that checks intervals is never told",
    )

    def grain_of(self, account: str) -> str:
        """``day`` or ``interval``; empty for an account that is not told of."""
        if not account or not any(fnmatchcase(account, pattern) for pattern in self.accounts):
            return ""
        return "interval" if any(fnmatchcase(account, pattern) for pattern in self.intervals) else "day"


class UsageSettings(Section):
    """Usage by subscription."""

    events: EventSettings = Field(default_factory=EventSettings, description="Consumption as it becomes known")
