"""Master data that change after days were decided: the time they concern, and what was known when the days were judged.

Days still in the state are looked at anew whenever master data of their channel come. Days in the store are asked for only where the
change can make a difference to a rule; with them is kept as what they were judged, so that exceptions end which would not be found now.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Final, Self

from schemas.topology.vee import Conditions, Entry, GroupMatrix, InactiveMeasurement, VeeSettings
from streams.vee.service import FOREVER, SINCE_EVER, Owner, owner_at, periods_of, uses_of

Span = tuple[int, int]
ALWAYS: Final[Span] = (SINCE_EVER, FOREVER)


@dataclass(frozen=True, slots=True)
class Judged:
    """What rules look at of a channel's master data. ``multiplier`` in millionths, 0 where master data name none."""

    unit: str
    direction: int
    negative: bool
    multiplier: int
    dials: int
    reported: int
    vacant: bool
    periods: str
    check_channel: str
    account: str
    service_point: str
    applied: int  # the multiplier that final rows carry, millionths
    uses: str

    def dump(self) -> bytes:
        """As an entry of the state."""
        return json.dumps(asdict(self), sort_keys=True).encode()

    @classmethod
    def load(cls, data: bytes) -> Self:
        """What :meth:`dump` wrote."""
        return cls(**json.loads(data))

    def owner(self, at: int) -> Owner:
        """Whose the channel is at a time, as final rows tell it."""
        return owner_at(self.uses, Owner(self.account, self.service_point, self.applied, self.unit), at)


class Rejudging:
    """Which time a change concerns, by the rules of the settings."""

    def __init__(self, settings: VeeSettings) -> None:
        entries = [entry for group in settings.groups.values() for entry in group.rules]
        self.grace = max((rule.grace for rule in entries if isinstance(rule, InactiveMeasurement)), default=0)
        self.names_matter = any(step.accounts or step.service_points for entry in entries for step in _conditions(entry))

    def concerned(self, before: Judged, after: Judged) -> list[Span]:
        """Spans of time whose days can be judged otherwise, in order; empty: none."""
        if self.whole(before, after):
            return [ALWAYS]
        states = self._moved(before.periods, after.periods) if before.periods != after.periods else []
        return _joined([*states, *self.passed_on(before, after)])

    def concerned_readings(self, before: Judged, after: Judged) -> list[Span]:
        """Spans of time whose register readings can be judged or counted otherwise, in order."""
        return [ALWAYS] if before.dials != after.dials else self.concerned(before, after)

    def whole(self, before: Judged, after: Judged) -> bool:
        """Whether the change concerns all of a channel's time."""
        named = ["unit", "direction", "negative", "vacant", "check_channel", *(("account", "service_point") if self.names_matter else ())]
        multiplied = before.multiplier != after.multiplier and after.reported > 0
        return multiplied or any(getattr(before, name) != getattr(after, name) for name in named)

    def _moved(self, before: str, after: str) -> list[Span]:
        """Where the state of service differs, with the grace around it."""
        old, new = periods_of(before), periods_of(after)
        cuts = sorted({bound for period in (*old, *new) for bound in (period.start, period.end)})
        found: list[Span] = []
        for begin, end in pairwise(cuts):
            states = [next(p.state for p in periods if p.start <= begin < p.end) for periods in (old, new)]
            if states[0] != states[1]:
                found.append((max(begin - self.grace, SINCE_EVER), min(end + self.grace, FOREVER)))
        return found

    @staticmethod
    def passed_on(before: Judged, after: Judged) -> list[Span]:
        """Where the channel belongs to another account or service point, or counts with another multiplier."""
        uses = [use for one in (before, after) for use in uses_of(one.uses)]
        cuts = sorted({SINCE_EVER, FOREVER, *(bound for use in uses for bound in (use.start, use.end))})
        return [(begin, end) for begin, end in pairwise(cuts) if before.owner(begin) != after.owner(begin)]


def _joined(spans: list[Span]) -> list[Span]:
    """Spans in order, those that touch as one."""
    found: list[Span] = []
    for first, last in sorted(spans):
        if found and first <= found[-1][1]:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return found


def _conditions(entry: Entry) -> tuple[Conditions, ...]:
    return (*entry.eligibility, *(entry.matrix if isinstance(entry, GroupMatrix) else ()))
