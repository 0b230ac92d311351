"""Stretches between two readings of a register, and the intervals that lie in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from schemas.quantity import MICRO
from streams.vee.batch import Array, Ints, Mask

_NONE: Final = np.zeros(0, np.int64)


@dataclass(slots=True)
class Spans:
    """Consumption between neighbouring readings of check registers, in the unit of the interval channel; one entry per pair of readings.

    ``which`` is the position in the list of channels asked for. ``broken``: the register fell further than a rollover explains. ``step`` is
    the register's smallest step times its multiplier.
    """

    which: Ints
    start: Ints
    end: Ints
    quantity: Ints
    step: Ints
    broken: Mask

    def __len__(self) -> int:
        return len(self.which)

    def take(self, chosen: Array) -> Spans:
        """Some of them."""
        return Spans(*(getattr(self, name)[chosen] for name in ("which", "start", "end", "quantity", "step", "broken")))


@dataclass(slots=True)
class Checks:
    """Spans that touch a batch of channel-days, and their parts: slots ``first`` to before ``behind`` of row ``row``.

    ``complete``: all days of the span are rows of the batch. ``last`` is the batch's last row of each span, ``days`` first and last day.
    """

    spans: Spans
    days: tuple[Ints, Ints]
    complete: Mask
    last: Ints
    span: Ints
    row: Ints
    first: Ints
    behind: Ints

    def parts(self, number: int) -> slice:
        """The parts of one span."""
        return slice(int(np.searchsorted(self.span, number)), int(np.searchsorted(self.span, number, side="right")))

    def cells(self, number: int) -> tuple[Ints, Ints]:
        """Row and slot of every interval of one span, in the order of time."""
        own = self.parts(number)
        sizes = self.behind[own] - self.first[own]
        slots = [np.arange(a, b) for a, b in zip(self.first[own].tolist(), self.behind[own].tolist(), strict=True)]
        return np.repeat(self.row[own], sizes), np.concatenate(slots) if slots else _NONE

    def sums(self, matrix: Array) -> Ints:
        """The sum of a matrix of days × slots over each span."""
        running = np.zeros((matrix.shape[0], matrix.shape[1] + 1), np.int64)
        np.cumsum(matrix, axis=1, out=running[:, 1:])
        totals = np.zeros(len(self.spans), np.int64)
        np.add.at(totals, self.span, running[self.row, self.behind] - running[self.row, self.first])
        return totals


def rolled(raw: Ints, dials: Ints, percent: Ints) -> tuple[Ints, Mask]:
    """Differences of readings with rollovers taken out (registers of ``dials`` digits, 0: unknown), and which stay negative.

    ``percent``: of its range a register may have rolled over by, one per difference; not looked at where none is negative.
    """
    negative = raw < 0
    if not negative.any():
        return raw, negative
    raw = raw.copy()
    for k in np.flatnonzero(negative).tolist():
        span = 10 ** (int(dials[k]) + 6)
        more = int(raw[k]) + span
        if dials[k] and 0 <= more * 100 <= span * int(percent[k]):
            raw[k], negative[k] = more, False
    return raw, negative


def step_of(values: Ints) -> int:
    """The smallest step values show: the highest power of ten up to one unit that divides them all."""
    return int(steps_of(values[None, :])[0])


def steps_of(matrix: Ints) -> Ints:
    """:func:`step_of` of each row."""
    common = np.gcd.reduce(np.abs(matrix), axis=1) if matrix.shape[1] else np.zeros(len(matrix), np.int64)
    steps = np.full(len(common), MICRO, np.int64)
    for _ in range(6):
        steps = np.where(common % steps == 0, steps, np.maximum(steps // 10, 1))
    return steps
