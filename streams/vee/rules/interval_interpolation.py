"""interval-interpolation: short gaps on a straight line between their neighbours."""

from __future__ import annotations

import numpy as np

from schemas.rules import METHOD
from schemas.topology.vee import IntervalInterpolation
from streams.vee.batch import FIRST_NEIGHBOUR, DayBatch, Edges, Ints, Mask

_SAFE = 1 << 40  # magnitudes up to here keep the exact arithmetic below inside int64 for gaps of up to 1,000 slots
_LONGEST_FAST_GAP = 1000


def interval_interpolation(batch: DayBatch, rule: IntervalInterpolation, wanted: Mask) -> None:
    """Fills gaps of due slots without a value, up to the longest gap, of rows in ``wanted``.

    A gap is a maximal run; at midnight it goes on into the neighbouring day, whose first value beyond is the other neighbour. Between
    two neighbours L and R the k-th of g slots gets L + (R - L)·k / (g + 1), rounded so that the gap's sum is that of the exact line
    rounded once. With one neighbour only the gap gets that value (flat load); with none it stays.
    Source: linear interpolation of California's DASMMD, gaps up to two hours.
    """
    vacant = batch.vacant & wanted[:, None]
    rows = np.flatnonzero(vacant.any(axis=1))
    if not len(rows):
        return
    row, first, size = _runs(vacant[rows])
    row = rows[row]
    last = first + size - 1
    counts = batch.counts[row]
    left, left_ok, lead = _side(batch, row, first - 1, first == 0, batch.before)
    right, right_ok, trail = _side(batch, row, last + 1, last + 1 >= counts, batch.after)
    total = lead + size + trail
    fits = (total * batch.seconds <= rule.max_gap) & ((left_ok | right_ok) if rule.one_sided else (left_ok & right_ok))
    if not fits.any():
        return
    row, first, size, total, lead = row[fits], first[fits], size[fits], total[fits], lead[fits]
    both = (left_ok & right_ok)[fits]
    left, right = np.where(left_ok, left, right)[fits], np.where(right_ok, right, left)[fits]
    run = np.repeat(np.arange(len(row)), size)
    step = np.arange(len(run)) - np.repeat(np.cumsum(size) - size, size)
    slot = first[run] + step
    batch.values[row[run], slot] = _line(left[run], right[run], step + 1 + lead[run], total[run] + 1)
    batch.conditions[row[run], slot] = np.where(both[run], rule.condition, rule.flat_condition)
    batch.methods[row[run], slot] = METHOD["interval-interpolation"]
    batch.edited[row] = True


def _runs(mask: Mask) -> tuple[Ints, Ints, Ints]:
    """Row, first column and length of each maximal run of True."""
    padded = np.zeros((mask.shape[0], mask.shape[1] + 2), np.int8)
    padded[:, 1:-1] = mask
    change = np.diff(padded, axis=1)
    row, first = np.nonzero(change == 1)
    end = np.nonzero(change == -1)[1]
    return row, first, end - first


def _side(batch: DayBatch, row: Ints, slot: Ints, edge: Mask, beyond: Edges) -> tuple[Ints, Mask, Ints]:
    """Neighbour value, whether it can be leant on, and how many slots of the gap lie on that side beyond midnight."""
    inside = slot.clip(0, batch.values.shape[1] - 1)
    value = batch.values[row, inside]
    usable = (batch.conditions[row, inside] >= FIRST_NEIGHBOUR) & (batch.methods[row, inside] == 0)
    return np.where(edge, beyond.value[row], value), np.where(edge, beyond.usable[row], usable), np.where(edge, beyond.run[row], 0)


def _line(left: Ints, right: Ints, k: Ints, parts: Ints) -> Ints:
    """The k-th of parts - 1 values on the line from left to right: differences of rounded running sums, so sums are exact."""
    small = len(k) == 0 or (max(int(np.abs(left).max()), int(np.abs(right).max())) < _SAFE and int(parts.max()) < _LONGEST_FAST_GAP)
    if small:
        return _running(left, right, k, parts) - _running(left, right, k - 1, parts)
    wide = [v.astype(object) for v in (left, right, k, parts)]
    exact = _running(*wide) - _running(wide[0], wide[1], wide[2] - 1, wide[3])
    return exact.astype(np.int64)


def _running(left: Ints, right: Ints, k: Ints, parts: Ints) -> Ints:
    """Sum of the first k values of the line, rounded half up."""
    # k·L + (R - L)·k(k+1) / 2·parts
    total: Ints = k * left + ((right - left) * k * (k + 1) + parts) // (2 * parts)
    return total
