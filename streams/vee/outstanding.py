"""interval-spike over deliveries: values that stand out in the delivery they came with are marked when they come.

The mark is a condition (SUSPECT_DELIVERY), so it is kept with what was received: the rule finds it whenever it looks at the day, a better
value for the slot takes it away, and the order in which deliveries come makes no difference.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from schemas import conditions
from schemas.block import ReadBlock, starts_of
from schemas.topology.vee import IntervalSpike
from streams.calendar import day_of
from streams.vee.batch import FIRST_NEIGHBOUR, Array, Ints
from streams.vee.channels import Channels
from streams.vee.eligibility import Asked, applies
from streams.vee.merging import STEP
from streams.vee.rules.interval_spike import limits

_MARK: Final = conditions.SUSPECT_DELIVERY // STEP
_USABLE: Final = FIRST_NEIGHBOUR // STEP
_REGULAR: Final = conditions.REGULAR // STEP
_EDITED: Final = conditions.USER_EDIT // STEP
_DAY: Final = 86_400


def mark(block: ReadBlock, rows: Ints, channels: Ints, values: Ints, codes: Array, rule: IntervalSpike, about: Channels) -> None:
    """Marks in ``codes`` (hundredths) what stands out in these rows of a block; ``values`` are in the units of the rows' channels."""
    rows = rows[block.count[rows] >= rule.min_intervals]
    if not len(rows):
        return
    begins = starts_of(block.count)
    for row in rows[_striking(values, begins[rows], block.count[rows].astype(np.int64), rule)].tolist():
        seconds, channel = int(block.seconds[row]), int(channels[row])
        step = _DAY // seconds if rule.per == "chunk" else int(block.count[row])
        if not step or not _wanted(rule, about, channel, int(block.start[row]), seconds):
            continue
        for first in range(0, int(block.count[row]), step):
            cells = slice(int(begins[row]) + first, int(begins[row]) + min(first + step, int(block.count[row])))
            _mark(values[cells], codes[cells], rule)


def _striking(values: Ints, begins: Ints, counts: Ints, rule: IntervalSpike) -> Array:
    """Rows that could hold a spike: the highest magnitude is above the floor, and far above the mean of the others or beside negatives."""
    bounds = np.stack([begins, begins + counts], axis=1).ravel()
    padded = np.append(values, 0)  # the last bound may be the end
    high, low = np.maximum.reduceat(padded, bounds)[::2], np.minimum.reduceat(padded, bounds)[::2]
    total = np.add.reduceat(padded.astype(np.float64), bounds)[::2]
    top = np.maximum(high, -low).astype(np.float64)
    share = 1 + rule.tolerance_percent / 100
    # A chunk's mean is not known here, only that of the row
    level = (top * counts * 1.001 > np.maximum(total - 2 * top, 0) * share) | (rule.per == "chunk")
    return np.asarray((top > rule.floor) & ((low < 0) | level))


def _wanted(rule: IntervalSpike, about: Channels, channel: int, start: int, seconds: int) -> bool:
    about.refresh()
    day = day_of(about.zones[about.zone[channel]], np.array([start]))
    return bool(applies(rule, Asked.of(day, about.attributes(np.array([channel])), seconds)).all())


def _mark(values: Ints, codes: Array, rule: IntervalSpike) -> None:
    size = np.where(codes >= _USABLE, np.abs(values), -1)
    if int((size >= 0).sum()) < rule.min_intervals:
        return
    third = np.partition(size, len(size) - 3)[len(size) - 3 : len(size) - 2]
    codes[(size > limits(third, rule)[0]) & (codes >= _REGULAR) & (codes < _EDITED)] = _MARK
