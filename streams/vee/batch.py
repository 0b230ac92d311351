"""What rules work on: a matrix of channel-days × slots, and what they find in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from schemas import conditions
from schemas.quantity import text_of
from schemas.units import resolve

if TYPE_CHECKING:
    from streams.vee.stretches import Checks

if TYPE_CHECKING:
    from streams.vee.past import Past

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

FIRST_VALUE: Final = conditions.OUTAGE  # conditions below: there is no usable value
FIRST_NEIGHBOUR: Final = 300_000  # conditions from here on: a value that an estimate may lean on


class Period(NamedTuple):
    """A stretch of time in one state of service."""

    start: int
    end: int
    state: int  # see streams/vee/service.py


@dataclass(slots=True)
class Edges:
    """Per row, what lies beyond one edge of the day: first ``run`` slots without a value, then ``value`` if ``usable``."""

    run: Ints
    value: Ints
    usable: Mask

    @classmethod
    def none(cls, rows: int) -> Edges:
        """Nothing known beyond the edge."""
        return cls(np.zeros(rows, np.int64), np.zeros(rows, np.int64), np.zeros(rows, np.bool_))


@dataclass(slots=True)
class Attributes:
    """Per row, what master data (or the first reads) say of the channel. ``unit`` indexes ``unit_names``.

    ``multiplier`` in millionths, 0 where master data do not name it; ``reported`` the one its newest reads came with, 0 for none.
    ``served``: from and to (UTC seconds) of the longest time in service; what lies outside is to be asked of ``periods``, by row.
    ``vacant``: master data name a service point, and no account.
    """

    unit: Array
    direction: Array
    allow_negative: Mask
    unit_names: list[str]
    multiplier: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    reported: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    served: Ints = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    vacant: Mask = field(default_factory=lambda: np.zeros(0, np.bool_))
    periods: Callable[[int], list[Period]] = lambda _: []
    texts: Callable[[str, Ints], list[str]] = lambda _, rows: [""] * len(rows)  # device, channel, zone, account, service_point of rows

    def quantity_in(self, names: tuple[str, ...]) -> Mask:
        """Rows whose unit measures one of these quantities."""
        return np.array([resolve(unit).quantity in names for unit in self.unit_names], np.bool_)[self.unit]

    def unit_in(self, names: tuple[str, ...]) -> Mask:
        """Rows whose unit is one of these."""
        wanted = {resolve(name).name for name in names}
        return np.array([unit in wanted for unit in self.unit_names], np.bool_)[self.unit]


@dataclass(slots=True)
class DayBatch:
    """M channel-days × S slots of one interval length; rules read it and estimations write it.

    ``values`` int64 (M, S) millionths, ``conditions`` int32 (M, S) and ``methods`` int8 (M, S) become the final measurements; slots at and
    behind ``counts`` are 0. ``received``: the source said something of the slot. ``due``: received, or the day is closed.
    ``whole``: everything the day will have is due, so that it can be judged as a whole. ``before`` and ``after`` are filled
    where the day has no value at that edge. ``edited`` marks rows a rule has changed. ``past`` answers for earlier days, if they are known.
    """

    seconds: int
    values: Ints
    conditions: Array
    methods: Array
    received: Mask
    due: Mask
    whole: Mask
    counts: Array
    day: Array
    start: Ints
    attributes: Attributes
    before: Edges
    after: Edges
    edited: Mask
    past: Past | None = None
    ended: Mask = field(init=False)  # a terminating finding ended the row
    settled: Mask = field(init=False)  # ended early as a success
    leaning: Mask = field(init=False)  # has estimates that can be brought to a register
    averaged: Mask = field(init=False)  # has gaps to be estimated from like days
    refused: set[int] = field(init=False, default_factory=set)  # spans of ``checks`` that were not adjusted, and told
    checks: Checks | None = field(init=False, default=None)
    codes: Ints = field(init=False)  # channel and day as one number, ascending
    zones: tuple[Array, list[str]] = field(init=False)

    def __post_init__(self) -> None:
        self.ended = np.zeros(len(self.day), np.bool_)
        self.settled = np.zeros(len(self.day), np.bool_)
        self.leaning = np.zeros(len(self.day), np.bool_)
        self.averaged = np.zeros(len(self.day), np.bool_)

    def __len__(self) -> int:
        return len(self.day)

    @property
    def valued(self) -> Mask:
        """Slots with a usable value (outage zeros included)."""
        return self.conditions >= FIRST_VALUE

    @property
    def vacant(self) -> Mask:
        """Slots that are due and have no usable value."""
        return (self.conditions < FIRST_VALUE) & self.due

    def peers(self, row: int, days: Iterable[int]) -> list[int]:
        """Rows of other days of the row's channel, in that order; days that are not in the batch are left out."""
        offset = np.array(list(days), np.int64) - int(self.day[row])
        wanted = int(self.codes[row]) + offset
        at = np.searchsorted(self.codes, wanted).clip(0, len(self.codes) - 1)
        return [int(k) for k in at[self.codes[at] == wanted].tolist()]

    def zone_of(self, row: int) -> str:
        """The IANA zone whose days the row's channel has."""
        numbers, names = self.zones
        return names[int(numbers[row])]

    def moment(self, row: int, slot: int) -> str:
        """Where a slot starts, as ISO time in UTC."""
        return iso(int(self.start[row]) + int(slot) * self.seconds)

    def amount(self, row: int, micros: int) -> str:
        """A value with its unit."""
        return f"{text_of(int(micros))} {self.attributes.unit_names[self.attributes.unit[row]]}"


def iso(second: int) -> str:
    """A UTC second as ``2024-03-31T01:00:00Z``."""
    return moment(second).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(second: int) -> datetime:
    """A UTC second as datetime; what lies outside the years 1 to 9999 is put at their ends."""
    return datetime.fromtimestamp(min(max(second, -62_135_596_800), 253_402_300_799), UTC)


@dataclass(slots=True)
class Findings:
    """What one rule found: one entry per row, ``first`` and ``last`` slot concerned, how many, and how to say it.

    ``failed`` are the single slots (rows, slots) that a finding of severity issue makes suspect.
    """

    rule: str
    rows: Ints
    count: Ints
    first: Ints
    last: Ints
    say: Callable[[int], str]  # position in rows → one plain sentence
    severity: str = ""  # empty: that of the rule's settings
    failed: tuple[Ints, Ints] | None = None
    event: bool = False  # tells of something that happened; a later look at the day does not take it back
    kind: int = 0  # tells findings of one rule apart that differ in nothing else but words

    def keep(self, wanted: Mask) -> Findings:
        """Only the findings of rows in ``wanted``."""
        chosen = np.flatnonzero(wanted[self.rows])
        if len(chosen) == len(self.rows):
            return self
        say, failed = self.say, self.failed
        if failed is not None:
            inside = wanted[failed[0]]
            failed = failed[0][inside], failed[1][inside]
        cut = (self.rows[chosen], self.count[chosen], self.first[chosen], self.last[chosen])
        return Findings(self.rule, *cut, lambda k: say(int(chosen[k])), self.severity, failed, self.event, self.kind)


def from_slots(rule: str, bad: Mask, say: Callable[[int, int], str], *, judged: bool = True) -> Findings:
    """Findings for all rows of a matrix with any bad slot; ``say`` gets row and count."""
    rows = np.flatnonzero(bad.any(axis=1))
    part = bad[rows]
    count = part.sum(axis=1)
    first = part.argmax(axis=1)
    last = part.shape[1] - 1 - part[:, ::-1].argmax(axis=1)
    where = np.nonzero(part)

    def sentence(k: int) -> str:
        return say(int(rows[k]), int(count[k]))

    return Findings(rule, rows, count, first, last, sentence, failed=(rows[where[0]], where[1]) if judged else None)
