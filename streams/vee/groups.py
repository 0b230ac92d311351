"""Which group of rules runs over which channel-days, by the role of what they hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from schemas import conditions
from schemas.topology.vee import Group, Role, RuleSettings, VeeSettings
from streams.vee.batch import Array, Mask
from streams.vee.merging import STEP

_EDITED: Final = conditions.USER_EDIT // STEP
_ESTIMATED: Final = conditions.USER_ESTIMATE // STEP
_BEHIND: Final = conditions.SUPER // STEP

Parts = list[tuple[Group, Mask | None]]
"""Groups with the rows each of them is meant for; None: all."""


class Groups:
    """The groups of the settings by role.

    A day that holds a value which a person has set is one of *manual-override*; one without, with estimates that a person has ordered or
    without anything received, is one of *estimation*; all others are of *initial-load*. So the role follows from what was received, and
    a day that comes back from the store has the one it had.
    """

    def __init__(self, settings: VeeSettings) -> None:
        settings.check()
        self.named: Mapping[str, Group] = settings.groups
        self.initial, self.manual, self.estimation_group = (
            settings.group(role) for role in ("initial-load", "manual-override", "estimation")
        )
        self._methods = {rule.id: rule for rule in self._all(settings)}

    @staticmethod
    def _all(settings: VeeSettings) -> Iterator[RuleSettings]:
        roles: tuple[Role, ...] = ("initial-load", "estimation")
        for role in roles:  # the estimation group's settings count where both have a method
            yield from (rule for rule in settings.rules_of(role).rules if isinstance(rule, RuleSettings))

    def estimation(self, method: str) -> RuleSettings | None:
        """The settings of an estimation that a person orders."""
        return self._methods.get(method)

    def of(self, coded: Array) -> Parts:
        """The groups for channel-days, from the codes of what was received (hundredths)."""
        if self.manual is self.initial and self.estimation_group is self.initial:
            return [(self.initial, None)]
        manual, estimation = self._others(coded)
        initial = ~manual & ~estimation
        if initial.all():
            return [(self.initial, None)]
        found = ((self.initial, initial), (self.manual, manual), (self.estimation_group, estimation))
        return [(group, rows) for group, rows in found if rows.any()]

    def initial_load(self, coded: Array) -> Mask:
        """Which channel-days come first in :meth:`of`."""
        if self.manual is self.initial and self.estimation_group is self.initial:
            return np.ones(len(coded), np.bool_)
        manual, estimation = self._others(coded)
        return ~manual & ~estimation

    def _others(self, coded: Array) -> tuple[Mask, Mask]:
        """Channel-days of the roles manual-override and estimation."""
        manual: Mask = np.zeros(len(coded), np.bool_)
        estimation: Mask = manual
        if coded.max(initial=0) >= _EDITED:
            manual = np.logical_or.reduce((coded >= _EDITED) & (coded < _ESTIMATED), axis=1)
            estimation = np.logical_or.reduce((coded >= _ESTIMATED) & (coded < _BEHIND), axis=1)
        if self.estimation_group is not self.initial:
            estimation = estimation | ~coded.any(axis=1)
        return manual, estimation & ~manual
