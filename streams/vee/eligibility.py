"""Which channel-days an entry of a group is applied to: effective period, eligibility, and what has ended already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Protocol, cast

import numpy as np

from schemas.block import DIRECTIONS
from schemas.topology.vee import Conditions, Entry
from streams.vee.batch import Attributes, DayBatch, Ints, Mask


class Rolling(Protocol):
    """A rule that says when a falling register has rolled over."""

    @property
    def days(self) -> tuple[int, int]:
        """First day it holds, and the first behind."""

    @property
    def rollover_percent(self) -> int:
        """Share of the register's range."""


@dataclass(slots=True)
class Asked:
    """One channel at one day, where there is no batch: what :func:`applies` looks at."""

    day: Ints
    attributes: Attributes
    seconds: int
    ended: Mask
    settled: Mask

    @classmethod
    def of(cls, day: Ints, attributes: Attributes, seconds: int) -> DayBatch:
        """As a batch for :func:`applies`; ``day`` and ``attributes`` have one row."""
        return cast("DayBatch", cls(day, attributes, seconds, np.zeros(1, np.bool_), np.zeros(1, np.bool_)))

    def __len__(self) -> int:
        return 1


def applies(rule: Entry, batch: DayBatch, rows: Mask | None = None) -> Mask:
    """Rows (of these) whose day starts in the rule's effective period, whose channel is eligible and which nothing has ended."""
    first, behind = rule.days
    wanted = ~batch.ended & ~batch.settled
    if rows is not None:
        wanted &= rows
    if first > 0 or behind < 1 << 30:
        wanted &= (batch.day >= first) & (batch.day < behind)
    if rule.eligibility:
        wanted &= _eligible(rule, batch)
    return wanted


def rollover_on(rules: Sequence[Rolling], day: Ints) -> Ints:
    """Per day the share of a register's range (percent) that a rollover may have advanced by: the largest of the rules in force, else of
    all; without rules 50."""
    found = np.full(len(day), -1, np.int64)
    for rule in rules:
        first, behind = rule.days
        found = np.where((day >= first) & (day < behind), np.maximum(found, rule.rollover_percent), found)
    return np.where(found < 0, max((rule.rollover_percent for rule in rules), default=50), found)


def _eligible(rule: Entry, batch: DayBatch) -> Mask:
    allowed = np.full(len(batch), rule.otherwise == "apply")
    open_ = np.ones(len(batch), np.bool_)
    for step in rule.eligibility:
        fitting = fits(step, batch)
        for outcome, rows in ((step.then, open_ & fitting), (step.otherwise, open_ & ~fitting)):
            if outcome != "next":
                allowed[rows] = outcome == "apply"
                open_ = open_ & ~rows
    return allowed


def fits(step: Conditions, batch: DayBatch) -> Mask:
    """Rows for which all holds that is named."""
    about = batch.attributes
    found = np.full(len(batch), not step.seconds or batch.seconds in step.seconds)
    if step.quantities:
        found &= about.quantity_in(step.quantities)
    if step.units:
        found &= about.unit_in(step.units)
    if step.directions:
        found &= np.isin(about.direction, [DIRECTIONS.index(name) for name in step.directions])
    if step.negative_allowed is not None:
        found &= about.allow_negative == step.negative_allowed
    patterns = (
        ("device", step.devices), ("channel", step.channels), ("zone", step.zones), ("account", step.accounts),
        ("service_point", step.service_points),
    )  # fmt: skip
    for name, wanted in patterns:
        if wanted and found.any():
            rows = np.flatnonzero(found)
            found[rows] = [_like(text, wanted) for text in about.texts(name, rows)]
    return found


@lru_cache(maxsize=65_536)
def _like(text: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(text, pattern) for pattern in patterns)
