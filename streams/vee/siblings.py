"""sibling-imd: days that some channels of a device have reads for, and others do not.

Judged by ticks, for all interval channels of one length of a device together, over the newest 63 days. Which days a channel has
reads for is kept as bits, so it makes no difference whether a day is still in the ring.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from schemas.topology.vee import Group, SiblingImd
from streams.calendar import LAST_DAY, day_of, day_starts
from streams.runtime.state import Table
from streams.vee.batch import Array, Ints
from streams.vee.channels import Channels
from streams.vee.ring import NEVER, Rings

_BITS: Final = 63
_FAR: Final = 1 << 30  # a day behind all others


@dataclass(slots=True)
class Missed:
    """A day of a channel that siblings lack (``names``), or, without names, lack no more."""

    channel: int
    start: int
    end: int
    names: list[str]


class Siblings:
    """Days that other channels of a device have reads for and this one lacks, ``after`` the day's end. Does nothing without the rule.

    Channels of one device and interval length are siblings. A day is missed where some sibling has reads for it and this channel
    none; it is told by the first tick late enough and taken back once reads come. It does not hold the day.
    Source: sibling IMD check of the domain.
    """

    def __init__(self, rings: Rings, channels: Channels, group: Group) -> None:
        self.rings, self.channels = rings, channels
        self.rule = next((rule for rule in group.rules if isinstance(rule, SiblingImd)), None)

    def note(self, table: Table, row: Ints, day: Ints, end: Ints) -> None:
        """Ring rows have reads for these days, which end at ``end``. ``row`` is ordered, and ``day`` for each row."""
        if self.rule is None or not len(row):
            return
        last = np.flatnonzero(np.r_[row[1:] != row[:-1], True])
        owner, newest = row[last], np.maximum(table["seen"][row[last]], day[last])
        step = np.where(table["seen"][owner] < 0, _BITS, newest - table["seen"][owner])
        for name in ("present", "missed"):
            table[name][owner] = _shifted(table[name][owner], step)
        table["seen"][owner] = newest
        back = table["seen"][row] - day
        kept = back < _BITS
        np.bitwise_or.at(table["present"], row[kept], np.int64(1) << back[kept].astype(np.int64))
        np.minimum.at(table["pair_due"], row[kept], end[kept] + self.rule.wait)

    def judge(self, seconds: int, now: int, *, close: bool) -> list[Missed]:
        """What is to be told at a tick: days missed, and days that are missed no longer."""
        if self.rule is None:
            return []
        table = self.rings.table(seconds)
        due = table["pair_due"][: len(table)]
        ripe = np.flatnonzero(due < NEVER if close else due <= now)
        if not len(ripe):
            return []
        device = self.channels.device[table["channel"][: len(table)]]
        rows = np.flatnonzero(np.isin(device, device[ripe]))
        rows = rows[np.argsort(device[rows], kind="stable")]
        begin = np.flatnonzero(np.r_[True, np.diff(device[rows]) != 0])
        size = np.diff(np.r_[begin, len(rows)])
        seen = np.repeat(np.maximum.reduceat(table["seen"][rows], begin), size).astype(np.int64)
        step = np.where(table["seen"][rows] < 0, _BITS, seen - table["seen"][rows])
        present, missed = (_shifted(table[name][rows], step) for name in ("present", "missed"))
        ready = self._judged(rows, table, now, close=close)
        first, behind = self._expected(seconds, rows, table)
        fits = present | ~_between(seen, first, behind)
        fits_all = np.repeat(np.bitwise_and.reduceat(fits, begin), size)
        from_, to = self.rule.days
        flagged = present & ~fits_all & _between(seen, np.full(len(rows), from_), np.minimum(ready + 1, to))
        told = []
        for at in np.flatnonzero(flagged != missed).tolist():
            place = int(np.searchsorted(begin, at, "right")) - 1
            group = slice(int(begin[place]), int(begin[place] + size[place]))
            channels = table["channel"][rows[group]]
            told += self._told(int(table["channel"][rows[at]]), int(seen[at]), int(flagged[at]), int(missed[at]), fits[group], channels)
        table["missed"][rows] = np.where(step < _BITS, flagged >> np.minimum(step, _BITS - 1), 0)
        self._wait(table, rows, ready)
        table.mark(rows)
        return told

    def _told(self, channel: int, seen: int, flagged: int, missed: int, fits: Ints, group: Array) -> list[Missed]:
        midnights = day_starts(self.channels.zones[self.channels.zone[channel]])
        found = []
        for back in range(_BITS - 1, -1, -1):
            bit = 1 << back
            if (flagged ^ missed) & bit:
                day = seen - back
                lacking = group[(fits & bit) == 0] if flagged & bit else group[:0]
                names = [self.channels.names[number][1] for number in lacking.tolist()]
                found.append(Missed(channel, int(midnights[day]), int(midnights[day + 1]), names))
        return found

    def _judged(self, rows: Ints, table: Table, now: int, *, close: bool) -> Ints:
        """The newest day of each row whose waiting time is over."""
        if close:
            return np.full(len(rows), _FAR)
        assert self.rule is not None
        return self._by_zone(rows, table, np.full(len(rows), now - self.rule.wait)) - 1

    def _expected(self, seconds: int, rows: Ints, table: Table) -> tuple[Ints, Ints]:
        """First and last day (exclusive) for which a channel should have reads: since its first one, or ever if master data name it."""
        channel = table["channel"][rows]
        served = self.channels.served[channel]
        known = (self.channels.table["known"][channel] > 0) & (self.channels.table["seconds"][channel] == seconds)
        begins = np.maximum(np.where(known, 0, table["first"][rows]), served[:, 0]).clip(0, NEVER)
        first = np.where(begins >= NEVER, _FAR, self._by_zone(rows, table, np.where(begins >= NEVER, 0, begins)))
        behind = np.where(served[:, 1] >= NEVER, _FAR, self._by_zone(rows, table, served[:, 1].clip(0, 1 << 40)))
        return np.where(known & (served[:, 0] > 0), first + 1, first), behind

    def _by_zone(self, rows: Ints, table: Table, at: Ints) -> Ints:
        zone = self.channels.zone[table["channel"][rows]]
        days = np.zeros(len(rows), np.int64)
        for number in np.unique(zone).tolist():
            own = zone == number
            days[own] = day_of(self.channels.zones[number], at[own])
        return days

    def _wait(self, table: Table, rows: Ints, ready: Ints) -> None:
        """Sets when each row is to be looked at next: when the waiting time of its next day is over."""
        assert self.rule is not None
        table["pair_due"][rows] = NEVER
        more = np.flatnonzero(table["seen"][rows] > ready)
        zone = self.channels.zone[table["channel"][rows[more]]]
        for number in np.unique(zone).tolist():
            own = more[zone == number]
            ends = day_starts(self.channels.zones[number])[np.minimum(ready[own] + 2, LAST_DAY)]
            table["pair_due"][rows[own]] = ends + self.rule.wait


def _shifted(bits: Ints, step: Array) -> Ints:
    """Bits moved up by so many days; what passes the 63rd is gone."""
    step = np.asarray(step, np.int64)
    kept = (np.int64(1) << (_BITS - np.minimum(step, _BITS))) - 1
    return np.where(step < _BITS, (bits & kept) << np.minimum(step, _BITS - 1), 0)


def _between(seen: Ints, first: Ints, behind: Ints) -> Ints:
    """Bits of the days from ``first`` to before ``behind``; bit k is day ``seen`` - k."""
    high, low = (seen - first + 1).clip(0, _BITS), (seen - behind + 1).clip(0, _BITS)

    def upto(count: Ints) -> Ints:
        ones: Ints = np.where(count >= _BITS, np.iinfo(np.int64).max, (np.int64(1) << np.minimum(count, _BITS - 1)) - 1)
        return ones

    return upto(high) & ~upto(low)
