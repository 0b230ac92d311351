"""Merging received values into a day: final-measurement-replacement and duplicate-imd.

Only what a source has said is held and merged here; estimates are made anew from it whenever a day is looked at. So no estimate can
ever stand in the way of a measured value, and the order in which reads arrive does not matter, save where two values of equal
rank contradict each other: then the later one counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from schemas import conditions
from schemas.topology.vee import FinalMeasurementReplacement, Group
from streams.vee.batch import Array, Ints, Mask

STEP: Final = 100  # conditions are held divided by this, in 16 bits
_CODES: Final = 8000
_USER_EDIT: Final = (conditions.USER_EDIT // STEP, 7000)


@dataclass(slots=True)
class Merged:
    """What became of the values of one merge; all masks are per incoming value."""

    identical: Mask  # held already, value and condition
    contradicted: Mask  # another value of equal rank stood there and was replaced
    refused: Mask  # not taken: trivial, or protected
    outranked: Mask  # not taken: a better condition stands there
    held: Mask  # something stood there


class Replacement:
    """Which of two values for one slot stays, interval by interval: the one of higher rank, of equal ranks the later one.

    Ranks go by condition range (``ranks``). A later value of equal rank that changes little is refused: abs(new - old) < ``min_change``,
    or · 100 < ``min_change_percent`` · abs(old). Values of a person stay with ``protect_edits: always``. Estimates are never held, so no
    estimate stands in the way of a measured value.
    Source: final measurement replacement of the domain.
    """

    def __init__(self, rule: FinalMeasurementReplacement) -> None:
        self.rule = rule
        self.ranks = np.zeros(_CODES, np.int8)
        self.bands = np.zeros(_CODES, np.int8)
        for number, band in enumerate(conditions.RANGES, 1):
            self.bands[band.bottom // STEP : band.top // STEP + 1] = number
        ranges = [(rule.codes(name), rank) for rank, names in enumerate(rule.ranks, 1) for name in names]
        for (bottom, top), rank in sorted(ranges, key=lambda entry: entry[0][0] - entry[0][1]):  # wide ones first: parts of them override
            self.ranks[bottom // STEP : top // STEP + 1] = rank

    @classmethod
    def of(cls, group: Group) -> Replacement:
        """The replacement rule of a group; ranks alone decide where it has none."""
        rules = [rule for rule in group.rules if isinstance(rule, FinalMeasurementReplacement)]
        return cls(rules[0] if rules else FinalMeasurementReplacement())

    def accepts(self, old_value: Ints, old_code: Array, new_value: Ints, new_code: Array) -> tuple[Mask, Merged]:
        """Which new values replace the ones held (codes are conditions / 100, 0: nothing held), and what it means."""
        empty = old_code == 0
        if empty.all():
            none = np.zeros(len(old_code), np.bool_)
            return ~none, Merged(none, none, none, none, none)
        same = (old_value == new_value) & (old_code == new_code)
        old_rank, new_rank = self.ranks[old_code], self.ranks[new_code]
        equal = old_rank == new_rank
        # One value under two codes of a band: the better code, whichever came first
        moved = np.where(self.bands[old_code] != self.bands[new_code], True, new_code > old_code)
        weighty = np.where(old_value != new_value, ~self._trivial(old_value, new_value), moved)
        accepted = empty | (new_rank > old_rank) | (equal & weighty & ~same)
        if self.rule.protect_edits == "always":
            protected = (old_code >= _USER_EDIT[0]) & (old_code < _USER_EDIT[1]) & (new_code < _USER_EDIT[0])
            accepted &= ~protected
        else:
            protected = np.zeros(len(accepted), np.bool_)
        differs = (old_value != new_value) & ~empty
        has_value = old_code >= conditions.OUTAGE // STEP
        refused = ~accepted & differs & (equal | protected)
        return accepted, Merged(same, accepted & equal & differs & has_value, refused, ~accepted & differs & ~refused, ~empty)

    def _trivial(self, old: Ints, new: Ints) -> Mask:
        change = np.abs(new - old)
        trivial: Mask = change < self.rule.min_change
        if self.rule.min_change_percent:
            trivial |= change * 100.0 < self.rule.min_change_percent * np.abs(old)
        return trivial
