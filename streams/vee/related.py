"""What intervals know of the time between two readings: taken out before a missing reading between them is prorated.

A register's readings and its intervals come in any order. So what is known is worked out whenever days between two readings are decided
together, kept as an entry of the state for each missing reading, and the register is looked at again when it changes.
"""

from __future__ import annotations

import json
from fractions import Fraction
from typing import TYPE_CHECKING, Final

import numpy as np

from schemas import conditions
from schemas.quantity import MICRO
from schemas.topology.vee import Group, ScalarProration
from streams.runtime.state import State
from streams.vee.admission import factor
from streams.vee.anchors import Anchors
from streams.vee.batch import DayBatch
from streams.vee.channels import Channels
from streams.vee.merging import STEP
from streams.vee.registers import NAME, RELATED

if TYPE_CHECKING:
    from streams.vee.days import _Work

_USABLE: Final = conditions.OUTAGE // STEP


class Related:
    """Keeps what intervals know of missing readings of one partition."""

    def __init__(self, state: State, channels: Channels, anchors: Anchors, group: Group) -> None:
        self.state, self.channels, self.anchors = state, channels, anchors
        rules = (rule for rule in group.rules if isinstance(rule, ScalarProration) and rule.related_condition is not None)
        self.rule = next(rules, None)

    def note(self, work: _Work, batch: DayBatch) -> list[int]:
        """Notes what these days know; returns the register channels for which that is news."""
        checks = batch.checks
        if self.rule is None or checks is None:
            return []
        table = self.state.table(NAME)
        channel = work.table["channel"][work.row[checks.last]].astype(np.int64)
        register = self.anchors.rows_of(channel)
        open_ = ((table["condition"][register] > 0) & (table["condition"][register] < _USABLE)).any(axis=1)
        news: set[int] = set()
        for number in np.flatnonzero(open_ & checks.complete & ~checks.spans.broken).tolist():
            if self._span(work, batch, number, int(channel[number]), int(register[number])):
                news.add(int(table["channel"][register[number]]))
        return sorted(news)

    def _span(self, work: _Work, batch: DayBatch, number: int, channel: int, row: int) -> bool:
        checks, table = batch.checks, self.state.table(NAME)
        assert checks is not None
        assert self.rule is not None
        begin, end = int(checks.spans.start[number]), int(checks.spans.end[number])
        at = table["at"][row]
        code = table["condition"][row]
        missing = at[(at > begin) & (at < end) & (code > 0) & (code < _USABLE)].tolist()
        if not missing:
            return False
        row_of, slot = checks.cells(number)
        known = work.coded[row_of, slot] >= self.rule.related_condition // STEP  # type: ignore[operator]
        ends, values = (work.start[row_of] + (slot + 1) * work.seconds)[known], work.values[row_of, slot][known]
        one = self._one(channel, int(table["channel"][row]))
        found = {}
        for when in missing:
            before = ends <= when
            amounts = [str(sum(part.tolist()) * one) for part in (values[before], values)]
            found[str(when)] = [begin, end, amounts[0], int(before.sum()) * work.seconds, amounts[1], len(values) * work.seconds]
        return self._keep(table.keys[row], f"{work.seconds}/{channel}", found, set(map(str, at.tolist())))

    def _one(self, channel: int, register: int) -> Fraction:
        """What one millionth of the interval channel is in the register's own counting."""
        texts, multiplier = self.channels.table.text["unit"], int(self.channels.table["multiplier"][register])
        ratio = factor(texts[channel], texts[register]) or Fraction(1)
        return ratio * Fraction(MICRO, multiplier or MICRO)

    def _keep(self, key: str, owner: str, found: dict[str, list[object]], kept: set[str]) -> bool:
        entry = RELATED + key
        before = json.loads(self.state.entries.get(entry, b"{}"))
        now = {when: dict(owners) for when, owners in before.items() if when in kept}
        for when, told in found.items():
            now.setdefault(when, {})[owner] = told
        if now == before:
            return False
        self.state.put(entry, json.dumps(now, sort_keys=True).encode())
        return any(before.get(when, {}).get(owner) != told for when, told in found.items())
