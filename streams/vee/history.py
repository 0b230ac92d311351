"""What is kept of a channel's past besides its newest days: daily use in blocks of 28 days, peaks, and runs that go on.

A day is added when it leaves the ring, from what was received; the days still in the ring and those being decided are added on the
fly. So it makes no difference in which pieces reads come. A correction of a day in the store corrects the sums too; peaks and runs of
newer days it leaves as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Final

import numpy as np

from schemas.topology.vee import MAX_RUNS
from streams.runtime.state import Column, State, Table
from streams.vee.batch import Array, Ints, Mask
from streams.vee.rules.totals import sums_of

BLOCK: Final = 28  # days: whole weeks, and 13 blocks are 52 weeks
BLOCKS: Final = 14
_COMPLETE: Final = 3000  # conditions (hundredths) from here on: used, and no outage
_MEASURED: Final = 4500
_REGULAR: Final = 5000

Test = Callable[[Ints, Array], Mask]  # values and conditions of slots → those that fit


def table() -> Table:
    """Columns of the history; rows are those of the ring table of the same interval length.

    ``block`` is the newest block of 28 days since 1970; block b is at place b mod 14 of ``sums`` (of complete days), ``days`` (how
    many) and ``guessed`` (how many of them held estimates of the source). ``peaks``: highest magnitudes of this block and the one before.
    ``run_in`` and ``run_out``: intervals of the run that enters and that leaves the newest stored day, for each rule that follows runs.
    """
    return Table(
        {
            "block": Column(np.int32, empty=-1),
            "sums": Column(np.int64, (BLOCKS,)),
            "days": Column(np.uint8, (BLOCKS,)),
            "guessed": Column(np.uint8, (BLOCKS,)),
            "peaks": Column(np.int64, (2,)),
            "run_in": Column(np.int32, (MAX_RUNS,)),
            "run_out": Column(np.int32, (MAX_RUNS,)),
        }
    )


class History:
    """The history tables of a partition."""

    def __init__(self, state: State) -> None:
        self.state = state

    def table(self, seconds: int) -> Table:
        """The history of channels of an interval length, with a row for every row of its ring."""
        ring, table = self.state.table(f"i{seconds}"), self.state.table(f"h{seconds}")
        if len(table) < len(ring):
            table.add(ring.keys[len(table) :])
        return table

    def add(self, seconds: int, row: Ints, day: Ints, totals: Ints, days: Ints, guessed: Ints) -> None:
        """Adds days (``days`` 1, 0 for one that is incomplete, -1 to take one back) to the blocks they lie in."""
        table, block = self.table(seconds), day // BLOCK
        self._advance(table, row, block)
        kept = (block > table["block"][row] - BLOCKS) & (days != 0)
        row, place = row[kept], block[kept] % BLOCKS
        np.add.at(table["sums"], (row, place), totals[kept])
        np.add.at(table["days"], (row, place), days[kept].astype(np.uint8))
        np.add.at(table["guessed"], (row, place), guessed[kept].astype(np.uint8))
        table.mark(row)

    def raise_peaks(self, seconds: int, row: Ints, day: Ints, peak: Ints) -> None:
        """Notes the highest magnitudes of days."""
        table = self.table(seconds)
        self._advance(table, row, day // BLOCK)
        back = table["block"][row] - day // BLOCK
        kept = back < 2
        np.maximum.at(table["peaks"], (row[kept], back[kept]), peak[kept])
        table.mark(row)

    @staticmethod
    def _advance(table: Table, row: Ints, block: Ints) -> None:
        newest = table["block"]
        ahead = np.flatnonzero(block > newest[row])
        if not len(ahead):
            return
        owners = np.unique(row[ahead])
        target = np.maximum.reduceat(block[ahead][np.argsort(row[ahead], kind="stable")], _begins(np.sort(row[ahead])))
        step = np.where(newest[owners] < 0, BLOCKS, target - newest[owners]).clip(0, BLOCKS)
        for back in range(int(step.max())):
            some = step > back
            place = (target[some] - back) % BLOCKS
            for name in ("sums", "days", "guessed"):
                table[name][owners[some], place] = 0
        peaks = table["peaks"]
        peaks[owners, 1] = np.where(step == 1, peaks[owners, 0], 0)
        peaks[owners, 0] = 0
        newest[owners] = target

    def block(self, seconds: int, row: Ints, block: Ints) -> tuple[Ints, Ints, Ints]:
        """Sum, complete days and days with estimates that are kept of a block."""
        table = self.table(seconds)
        newest = table["block"][row]
        kept = (block <= newest) & (block > newest - BLOCKS) & (block >= 0)
        place = block % BLOCKS
        parts = (table[name][row, place].astype(np.int64) for name in ("sums", "days", "guessed"))
        sums, days, guessed = (np.where(kept, part, 0) for part in parts)
        return sums, days, guessed

    def peak(self, seconds: int, row: Ints, day: Ints) -> Ints:
        """The highest magnitude in the day's block and the one before, as far as days have left the ring."""
        table = self.table(seconds)
        back = table["block"][row] - day // BLOCK
        now, before = table["peaks"][row, 0], table["peaks"][row, 1]
        return np.where(back == 0, np.maximum(now, before), np.where(back == -1, now, np.where(back == 1, before, 0)))


def rescale(table: Table, row: int, factor: Fraction | None) -> None:
    """Brings sums and peaks of a channel into another unit; None forgets them."""
    for name in ("sums", "peaks"):
        table[name][row] = 0 if factor is None else [round(value * factor) for value in table[name][row].tolist()]
    if factor is None:
        for name in ("days", "guessed"):
            table[name][row] = 0
    table.mark(np.array([row]))


def complete(values: Ints, codes: Array, counts: Array) -> tuple[Ints, Mask, Mask]:
    """Of days as received: total, whether every slot has a value and none an outage, and whether one is an estimate of the source."""
    width = codes.shape[1]
    every = bool((counts == width).all())
    lowest = (codes if every else np.where(np.arange(width) < counts[:, None], codes, 60_000)).min(axis=1)
    return sums_of(values), lowest >= _COMPLETE, lowest < _MEASURED


def peak_of(values: Ints, codes: Array) -> Ints:
    """The highest magnitude of measured values of each day."""
    size = np.where(codes >= _REGULAR, values, 0)
    top: Ints = np.maximum(size.max(axis=1), -size.min(axis=1))
    return top


def edges_of(match: Mask, counts: Array) -> tuple[Ints, Mask]:
    """Of each row: how many slots at its end match, and whether all do."""
    width = match.shape[1]
    tail, whole = np.zeros(len(match), np.int64), np.zeros(len(match), np.bool_)
    rows = np.flatnonzero(match[np.arange(len(match)), counts - 1])
    if len(rows):
        some = ~match[rows] & (np.arange(width) < counts[rows][:, None])
        broken = some.any(axis=1)
        tail[rows] = np.where(broken, counts[rows] - (width - some[:, ::-1].argmax(axis=1)), counts[rows])
        whole[rows] = ~broken
    return tail, whole


def follow(linked: Mask, tail: Ints, whole: Mask, counts: Array, entering: Ints) -> Ints:
    """The run that enters each row: of the row before where ``linked``, else ``entering``. Rows are ordered by channel and day."""
    size = len(tail)
    if not size:
        return entering
    total = np.cumsum(np.where(whole, counts, 0))
    line = np.arange(size)
    reset = ~whole | ~linked
    last = np.maximum.accumulate(np.where(reset, line, 0))
    leaving = np.where(whole[last], entering[last] + counts[last], tail[last]) + total - total[last]
    before: Ints = np.where(linked, np.r_[0, leaving[:-1]], entering)
    return before


def _begins(ordered: Array) -> Ints:
    return np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
