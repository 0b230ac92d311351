"""The past as a batch of channel-days sees it: what is kept of older days, the days in the ring, and the earlier days of the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from schemas.topology.vee import ConsecutiveInterval
from streams.runtime.state import Table
from streams.vee.batch import Array, Ints, Mask
from streams.vee.history import BLOCK, History, Test, complete, edges_of, follow, peak_of

_OUTAGE, _ESTIMATE, _REGULAR = 2000, 3000, 5000  # conditions in hundredths


@dataclass(slots=True)
class Past:
    """Answers for the rows of one batch, which are ordered by ring row and day.

    ``values`` and ``codes`` (hundredths) are what was received of the rows, ``stored`` marks those that came back from the store:
    they are part of the history already. ``hot`` is the number of days in the ring.
    """

    seconds: int
    hot: int
    ring: Table
    history: History
    row: Ints
    day: Ints
    counts: Ints
    values: Ints
    codes: Array
    stored: Mask
    end: Ints
    followed: Sequence[ConsecutiveInterval] = ()  # rules for which the history keeps the length of runs
    _parts: tuple[Ints, ...] | None = field(default=None)

    # --- average use ------------------------------------------------------------------------------------------------------------

    def block(self, rows: Ints, back: int) -> tuple[Ints, Ints, Ints]:
        """Sum, complete days, and days with estimates among them, of the block of 28 days ``back`` blocks before each row's own."""
        wanted = self.day[rows] // BLOCK - back
        sums, days, guessed = self.history.block(self.seconds, self.row[rows], wanted)
        for owner, block, total, whole, some in (self._batch(), self._ring(rows)):
            if not len(owner):
                continue
            code = owner * (1 << 20) + block
            order = np.argsort(code, kind="stable")
            begin = np.flatnonzero(np.r_[True, np.diff(code[order]) != 0])
            keys = code[order][begin]
            at = np.searchsorted(keys, self.row[rows] * (1 << 20) + wanted).clip(0, len(keys) - 1)
            hit = keys[at] == self.row[rows] * (1 << 20) + wanted
            for target, part in ((sums, total), (days, whole), (guessed, some)):
                target += np.where(hit, np.add.reduceat(part[order], begin)[at], 0)
        return sums, days, guessed

    def _batch(self) -> tuple[Ints, ...]:
        if self._parts is None:
            # A day that is alone with its channel in the batch is not part of its own past
            company = self.row[1:] == self.row[:-1]
            own = np.flatnonzero(~self.stored & (np.r_[company, False] | np.r_[False, company])) if company.any() else self.row[:0]
            self._parts = _parts(self.row[own], self.day[own], self.values[own], self.codes[own], self.counts[own])
        return self._parts

    def _ring(self, rows: Ints) -> tuple[Ints, ...]:
        """Days of the ring in the block before that of these rows, as far as the batch does not hold them."""
        near = rows[self.day[rows] % BLOCK < self.hot]
        none = np.zeros(0, np.int64)
        if not len(near):
            return (none,) * 5
        owners = np.unique(self.row[near])
        which, pos = np.nonzero(self.ring["day"][owners] >= 0)
        owner, day = owners[which], self.ring["day"][owners[which], pos].astype(np.int64)
        fresh = ~self._among(owner, day)
        owner, day, pos = owner[fresh], day[fresh], pos[fresh]
        return _parts(owner, day, self.ring["values"][owner, pos], self.ring["conditions"][owner, pos], self.ring["count"][owner, pos])

    def _among(self, owner: Ints, day: Ints) -> Mask:
        code = self.row * (1 << 20) + self.day
        wanted = owner * (1 << 20) + day
        among: Mask = code[np.searchsorted(code, wanted).clip(0, len(code) - 1)] == wanted
        return among

    # --- the last measured value ------------------------------------------------------------------------------------------------

    def measured(self, rows: Ints) -> Ints:
        """Where the newest measured value of each row's channel ends, up to the end of its day; without any, where the channel begins."""
        ends = np.where(self.stored, 0, measured_until(self.seconds, self.codes, self.end, self.counts))
        level = np.maximum.accumulate(self.row * (1 << 40) + ends)  # ends lie below 2**40, rows are ordered
        inside = level[rows] - self.row[rows] * (1 << 40)
        known = np.minimum(self.ring["actual"][self.row[rows]], self.end[rows])
        known = np.where(known > 0, known, np.minimum(self.ring["first"][self.row[rows]], self.end[rows]))
        return np.maximum(known, inside)

    # --- peaks ------------------------------------------------------------------------------------------------------------------

    def outstanding(self, rows: Ints, bad: Mask, factor: float) -> Mask:
        """Of ``bad`` slots of rows, in order, those whose magnitude is above ``factor`` times the highest one measured before.

        What counts is the row's block of 28 days and the one before it, up to the days that have left the ring by then, without the
        slots that were found outstanding themselves.
        """
        found = bad.copy()
        own = peak_of(self.values, self.codes)
        known = self.history.peak(self.seconds, self.row[rows], self.day[rows])
        first = self.row.searchsorted(self.row[rows])
        for place, at in enumerate(rows.tolist()):
            near = self.day[first[place] : at]
            taught = (near // BLOCK >= self.day[at] // BLOCK - 1) & (near < self.day[at] - self.hot)
            peaks = [int(known[place]), *own[first[place] : at][taught].tolist(), *self._lingering(at)]
            size = np.abs(self.values[at])
            found[place] &= size > factor * max(peaks)
            usual = np.where((self.codes[at] >= _REGULAR) & ~found[place], size, 0)
            own[at] = usual.max()
        return found

    def _lingering(self, at: int) -> list[int]:
        """Peaks of days that are still in the ring although newer ones might have displaced them."""
        row, day = int(self.row[at]), self.ring["day"][int(self.row[at])].astype(np.int64)
        rest = (day >= 0) & (day < self.day[at] - self.hot) & (self.ring["raised"][row] == 0)
        rest &= ~self._among(np.full(len(day), row), day)
        pos = np.flatnonzero(rest)
        peaks: list[int] = peak_of(self.ring["values"][row, pos], self.ring["conditions"][row, pos]).tolist()
        return peaks

    # --- runs -------------------------------------------------------------------------------------------------------------------

    def entering(self, match: Mask, rule: ConsecutiveInterval, test: Test) -> Ints:
        """How many slots of the run that goes on into each row lie before it; 0 where its first slot does not fit.

        ``match`` says which slots of the batch fit, ``test`` finds that out for received values and conditions of days in the ring.
        """
        number = next((k for k, followed in enumerate(self.followed) if followed == rule), None)  # None: the ring is all that is known
        entering = np.zeros(len(self.row), np.int64)
        linked = np.r_[False, (self.row[1:] == self.row[:-1]) & (self.day[1:] == self.day[:-1] + 1)] if len(self.row) else match[:, 0]
        heads = np.flatnonzero(match[:, 0] & ~linked)
        if len(heads):
            entering[heads] = self._before(self.row[heads], self.day[heads], number, test)
        if linked.any():
            tail, whole = edges_of(match, self.counts)
            entering = follow(linked, tail, whole, self.counts, entering)
        return np.where(match[:, 0], entering, 0)

    def _before(self, row: Ints, day: Ints, number: int | None, test: Test) -> Ints:
        """The run that ends with the day before, through the ring and what is kept of stored days."""
        run = np.zeros(len(row), np.int64)
        kept, ring = self.history.table(self.seconds), self.ring
        again = ring["stored_through"][row] == day
        if number is not None:
            run[again] = kept["run_in"][row[again], number]
        left = np.flatnonzero(~again)
        for step in range(1, self.hot + 2):  # one day behind the ring: the newest stored one
            owner, before = row[left], day[left] - step
            stored = ring["stored_through"][owner] == before
            if number is not None:
                run[left[stored]] += kept["run_out"][owner[stored], number]
            pos = before % self.hot
            there = (ring["day"][owner, pos] == before) & (before >= 0) & ~stored
            left, owner, pos = left[there], owner[there], pos[there]
            if not len(left):
                break
            codes = ring["conditions"][owner, pos]
            tail, whole = edges_of(test(ring["values"][owner, pos], codes), ring["count"][owner, pos].astype(np.int64))
            run[left] += tail
            left = left[whole]
        return run


def measured_until(seconds: int, codes: Array, end: Ints, counts: Ints) -> Ints:
    """Where the newest measured slot (or outage) of each day ends, 0 without any; ``end`` is the end of the day."""
    found = np.where(_actual(codes[np.arange(len(codes)), counts - 1]), end, 0)
    rest = np.flatnonzero(found == 0)
    if len(rest):
        some = _actual(codes[rest])
        last = codes.shape[1] - 1 - some[:, ::-1].argmax(axis=1)
        found[rest] = np.where(some.any(axis=1), end[rest] - (counts[rest] - 1 - last) * seconds, 0)
    return found


def _actual(codes: Array) -> Mask:
    actual: Mask = (codes >= _REGULAR) | ((codes >= _OUTAGE) & (codes < _ESTIMATE))
    return actual


def _parts(row: Ints, day: Ints, values: Ints, codes: Array, counts: Array) -> tuple[Ints, ...]:
    """Row, block, total, complete days (1 or 0) and estimated ones among them, of days as received."""
    if not len(row):
        none = np.zeros(0, np.int64)
        return (none,) * 5
    total, whole, guessed = complete(values, codes, counts)
    return row, day // BLOCK, np.where(whole, total, 0), whole.astype(np.int64), (whole & guessed).astype(np.int64)
