"""What the days of a batch lean on besides the days beside them: like days before them, and the readings of a check register.

Rules see the other days as rows of the same batch. What is neither in the batch nor in the ring must come from the store; until it has
come, a day is published with what is known, and a day that was published before stays as it is (``held``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from schemas.topology.vee import Group, LikeDayAverage, SumCheck
from streams.runtime.state import State, Table
from streams.vee.anchors import SHIFT, Anchors
from streams.vee.batch import DayBatch, Ints, Mask
from streams.vee.channels import Channels
from streams.vee.gaps import Gaps, new_holes
from streams.vee.likeness import candidates
from streams.vee.related import Related
from streams.vee.ring import NEVER

if TYPE_CHECKING:
    from streams.vee.days import _Work

_DAY: Final = (1 << SHIFT) - 1
Days = list[tuple[int, int]]  # (ring row, day)


class Context:
    """Keeps track of what days lean on, for one partition."""

    def __init__(self, state: State, channels: Channels, group: Group, hot_days: int) -> None:
        self.channels, self.hot = channels, hot_days
        self.gaps = Gaps(state)
        self.anchors = Anchors(state, channels, group)
        self.likes = [rule for rule in group.rules if isinstance(rule, LikeDayAverage)]
        self.related = Related(state, channels, self.anchors, group)
        self.compares = self.related.rule is not None or any(isinstance(rule, SumCheck) for rule in group.rules)

    def bars(self, seconds: int, table: Table, rows: Ints, midnight: Ints) -> Mask:
        """Of days that are their channel's newest, those that estimates may lean on or that readings of a register may concern."""
        barred = self.gaps.rows_leaning(seconds, table)[rows] if self.gaps.any_leaning else np.zeros(len(rows), np.bool_)
        channels = table["channel"][rows].astype(np.int64)
        checked = np.flatnonzero(self.anchors.has(channels))
        if len(checked):
            barred[checked] |= self.anchors.latest(channels[checked]) > midnight[checked]
        return barred

    # --- days without a read ----------------------------------------------------------------------------------------------------

    def reached(self, seconds: int, table: Table, touched: Ints) -> None:
        """Notes which whole days reads of ``touched`` (ascending) leave without any, or bring."""
        row, day = touched >> SHIFT, touched & _DAY
        for owner, first, last in new_holes(row, day, table["oldest"][row].astype(np.int64), table["newest"][row].astype(np.int64)):
            self.gaps.open(seconds, table.keys[owner], first, last)
        oldest = table["oldest"]
        oldest[row[oldest[row] < 0]] = 1 << 30
        np.minimum.at(oldest, row, day.astype(np.int32))
        if self.gaps.any_holes:
            for owner in np.unique(row).tolist():
                if self.gaps.has_holes(seconds, table.keys[owner]):
                    self.gaps.fill(seconds, table.keys[owner], day[row == owner].tolist())

    # --- what a channel's days lean on --------------------------------------------------------------------------------------------

    def like_days(self, day: int) -> list[int]:
        """Days that a missing day may be estimated from."""
        return [other for rule in self.likes for other in candidates(rule, day)]

    def spans(self, seconds: int, table: Table, row: int, low: int = NEVER, high: int = -NEVER) -> Days:
        """First and last day of each stretch between readings of the channel's check register, where reads cover it.

        ``low`` and ``high``: first start and last end of reads that wait to be folded in.
        """
        channel = table["channel"][row : row + 1].astype(np.int64)
        if not self.anchors.has(channel)[0] or table["first"][row] == NEVER:
            return []
        spans = self.anchors.spans(channel, table["first"][row : row + 1], seconds)
        low, high = min(low, int(table["first"][row])), max(high, int(table["last"][row]) + seconds)
        covered = (spans.start >= low) & (spans.end <= high)
        first, last = self.anchors.days(spans, channel)
        return list(zip(first[covered].tolist(), last[covered].tolist(), strict=True))

    def concerned(self, table: Table, rows: Ints, seconds: int, times: dict[int, tuple[int, int]]) -> tuple[Ints, Days]:
        """Days between readings that changed: those wholly in the ring as channel-days, of the others (channel, last day).

        ``times`` has first and last time of the changed readings of the check register of each channel (those of ``rows``).
        """
        channels = table["channel"][rows].astype(np.int64)
        spans = self.anchors.spans(channels, table["first"][rows], seconds)
        bounds = np.array([times[channel] for channel in channels.tolist()], np.int64)[spans.which]
        owner = rows[spans.which]
        wanted = (spans.end >= bounds[:, 0]) & (spans.start <= bounds[:, 1])
        wanted &= (spans.start >= table["first"][owner]) & (spans.end <= table["last"][owner] + seconds)
        spans = spans.take(np.flatnonzero(wanted))
        owner, (first, last) = rows[spans.which], self.anchors.days(spans, channels)
        hot, short = [], last - first < self.hot
        for step in range(self.hot):
            day = np.minimum(first + step, last)
            short &= table["day"][owner, day % self.hot] == day
            hot.append((owner << SHIFT) | day)
        cold = zip(table["channel"][owner[~short]].tolist(), last[~short].tolist(), strict=True)
        return np.unique(np.concatenate([codes[short] for codes in hot])), list(dict.fromkeys(cold))

    # --- after the rules ----------------------------------------------------------------------------------------------------------

    def judge(self, work: _Work, batch: DayBatch, touched: Ints, informed: Ints) -> tuple[Mask, Days]:
        """Which rows must wait for days that are not in the batch, and the days to decide again once these are there.

        ``informed`` are channel-days for which the store was asked all there is to ask.
        """
        # Days that were not known to want like days when the store was asked
        fresh = {row for row in np.flatnonzero(batch.averaged).tolist() if not self._leaning(work, row).get(int(work.day[row]))}
        self._remember(work, batch)
        lacking = np.zeros(len(batch), np.bool_)
        again: Days = []
        known = set(informed.tolist())
        for row in self._unread(work, batch).tolist():
            if int(work.codes[row]) not in known:
                lacking[row] = True
                again.append((int(work.row[row]), int(work.day[row])))
        for row, days in self._wanted(work, batch).items():
            code = int(work.codes[row])
            if (code not in known or row in fresh) and not work.passive[row] and self._absent(work, row, days):
                lacking[row] = True
                again.append((int(work.row[row]), int(work.day[row])))
        return lacking, again + self._leaners(work, touched, known)

    def _unread(self, work: _Work, batch: DayBatch) -> Ints:
        """Rows that would be compared with readings of their check register that have left the state, as those of dense registers do."""
        channel = work.table["channel"][work.row].astype(np.int64)
        some = self.anchors.short(channel, work.start) & ~work.passive & (batch.leaning | self.compares)
        end = work.start + work.counts * work.seconds
        found = [row for row in np.flatnonzero(some).tolist() if self._lacks(int(channel[row]), int(work.start[row]), int(end[row]))]
        return np.array(found, np.int64)

    def _lacks(self, channel: int, begin: int, end: int) -> bool:
        return self.anchors.lacking(channel, begin, end - 1) is not None

    def _leaning(self, work: _Work, row: int) -> dict[int, bool]:
        return self.gaps.leaning(work.seconds, work.table.keys[int(work.row[row])])

    def _remember(self, work: _Work, batch: DayBatch) -> None:
        rows = np.flatnonzero((batch.leaning | batch.averaged) & ~work.passive)
        if not len(rows) and not self.gaps.any_leaning:
            return
        changes: dict[int, list[tuple[int, bool | None]]] = {}
        for row in rows.tolist():
            changes.setdefault(int(work.row[row]), []).append((int(work.day[row]), bool(batch.averaged[row])))
        for row in np.flatnonzero(~(batch.leaning | batch.averaged) & ~work.passive).tolist() if self.gaps.any_leaning else ():
            owner = int(work.row[row])
            if int(work.day[row]) in self.gaps.leaning(work.seconds, work.table.keys[owner]):
                changes.setdefault(owner, []).append((int(work.day[row]), None))
        for owner, days in changes.items():
            self.gaps.lean(work.seconds, work.table.keys[owner], days)

    def _wanted(self, work: _Work, batch: DayBatch) -> dict[int, list[int]]:
        """Row → other days it leans on or is compared with."""
        wanted: dict[int, list[int]] = {}
        for row in np.flatnonzero(batch.averaged).tolist():
            wanted[row] = self.like_days(int(work.day[row]))
        checks = batch.checks
        if checks is None or checks.complete.all():
            return wanted
        spans, table = checks.spans, work.table
        owner = work.row[checks.last]
        covered = (spans.start >= table["first"][owner]) & (spans.end <= table["last"][owner] + work.seconds)
        open_ = np.flatnonzero(covered & ~checks.complete & ~spans.broken)
        first, last = checks.days
        for number in open_.tolist():
            for row in checks.row[checks.parts(number)].tolist():
                if self.compares or batch.leaning[row]:
                    wanted.setdefault(row, []).extend(range(int(first[number]), int(last[number]) + 1))
        return wanted

    def _absent(self, work: _Work, row: int, days: list[int]) -> bool:
        """Whether any of these days of a row's channel is kept somewhere and not in the batch."""
        table, owner = work.table, int(work.row[row])
        low, high, ring = int(table["stored_from"][owner]), int(table["stored_through"][owner]), table["day"][owner].tolist()
        kept = [day for day in days if day >= 0 and ((low <= day <= high and low >= 0) or day in ring)]
        codes = (np.int64(owner) << SHIFT) | np.array(kept, np.int64)
        return bool((work.index(codes) < 0).any())

    def _leaners(self, work: _Work, touched: Ints, known: set[int]) -> Days:
        """Days with estimates that lean on days touched now."""
        if not len(touched) or not self.gaps.any_leaning:
            return []
        found: Days = []
        for owner in np.unique(touched >> SHIFT).tolist():
            leaning = self.gaps.leaning(work.seconds, work.table.keys[owner])
            if not leaning:
                continue
            days = set((touched[touched >> SHIFT == owner] & _DAY).tolist())
            spans = [range(a, b + 1) for a, b in self.spans(work.seconds, work.table, owner)]
            near = {day for span in spans if any(x in span for x in days) for day in span}
            for day, like in leaning.items():
                code = (owner << SHIFT) | day
                if code not in known and day not in days and (day in near or (like and not days.isdisjoint(self.like_days(day)))):
                    found.append((owner, day))
        return found
