"""Days on their way out of the ring, into the history."""

from __future__ import annotations

from typing import Any

import numpy as np

from schemas.topology.vee import MAX_RUNS, ConsecutiveInterval, HighLow, IntervalSpike, Role, VeeSettings
from streams.runtime.state import Table
from streams.vee.batch import Array, Ints
from streams.vee.history import History, complete, edges_of, follow
from streams.vee.rules.consecutive_interval import fits

_SHIFT = 17  # channel-days as single numbers, as everywhere in VEE
_DAY = (1 << _SHIFT) - 1


class Keeper:
    """Adds days that leave the ring to the history, or corrects it."""

    def __init__(self, history: History, settings: VeeSettings) -> None:
        self.history = history
        roles: tuple[Role, ...] = ("initial-load", "manual-override", "estimation")
        rules: list[Any] = [rule for role in roles for rule in settings.rules_of(role).rules]
        followed: list[ConsecutiveInterval] = []
        for rule in rules:
            if isinstance(rule, ConsecutiveInterval) and rule.look_back and rule not in followed:
                followed.append(rule)
        self.followed = tuple(followed[:MAX_RUNS])
        self.sums = any(isinstance(rule, HighLow) for rule in rules)
        self.peaks = any(isinstance(rule, IntervalSpike) and rule.history_factor > 0 for rule in rules)

    @property
    def idle(self) -> bool:
        """No rule of the group asks for anything that is kept."""
        return not (self.followed or self.sums or self.peaks)

    def leave(
        self, seconds: int, ring: Table, codes: Ints, values: Ints, coded: Array, counts: Ints, usual: Ints,
        before: list[tuple[int, Ints, Array]],
    ) -> None:  # fmt: skip
        """Channel-days ``codes`` leave, with what was received of them; ``usual`` are the values that may count as peaks.

        ``before``: position, values and conditions of days that had been counted already and are counted anew. To be called before
        the ring notes that the days are stored.
        """
        row, day = codes >> _SHIFT, codes & _DAY
        if self.sums:
            self._add(seconds, row, day, values, coded, counts, before)
        if self.peaks:
            self.history.raise_peaks(seconds, row, day, np.maximum(usual.max(axis=1), -usual.min(axis=1)))
        if self.followed:
            self._runs(seconds, ring, row, day, values, coded, counts)

    def _add(
        self, seconds: int, row: Ints, day: Ints, values: Ints, coded: Array, counts: Ints, before: list[tuple[int, Ints, Array]]
    ) -> None:  # fmt: skip
        total, whole, guessed = complete(values, coded, counts)
        total, days, some = np.where(whole, total, 0), whole.astype(np.int64), (whole & guessed).astype(np.int64)
        self.history.add(seconds, row, day, total, days, some)
        for place, old_values, old_codes in before:
            size = np.array([len(old_values)])
            total, whole, guessed = complete(old_values[None, :], old_codes[None, :], size)
            if whole[0]:
                at = slice(place, place + 1)
                self.history.add(seconds, row[at], day[at], -total, np.array([-1]), np.array([-1 if guessed[0] else 0]))

    def _runs(self, seconds: int, ring: Table, row: Ints, day: Ints, values: Ints, coded: Array, counts: Ints) -> None:
        """Keeps the runs that enter and leave the newest stored day of each channel."""
        kept, through = self.history.table(seconds), ring["stored_through"][row]
        linked = np.r_[False, (row[1:] == row[:-1]) & (day[1:] == day[:-1] + 1)]
        last = np.flatnonzero(np.r_[row[1:] != row[:-1], True] & (day >= through))
        line, end, slots = np.arange(len(row)), counts - 1, np.arange(values.shape[1])
        for number, rule in enumerate(self.followed):
            tail, whole = np.zeros(len(row), np.int64), np.zeros(len(row), np.bool_)
            at = np.flatnonzero(fits(rule, values[line, end], coded[line, end], 100))  # only these can end in a run
            if len(at):
                inside = slots < counts[at][:, None]
                tail[at], whole[at] = edges_of(fits(rule, values[at], coded[at], 100) & inside, counts[at])
            entering = np.where(through == day - 1, kept["run_out"][row, number], np.where(through == day, kept["run_in"][row, number], 0))
            entering = follow(linked, tail, whole, counts, entering.astype(np.int64))
            kept["run_in"][row[last], number] = entering[last]
            kept["run_out"][row[last], number] = np.where(whole, entering + counts, tail)[last]
        kept.mark(row)
