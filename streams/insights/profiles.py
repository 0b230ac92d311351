"""Profiles in the state: one table per interval length, one row per channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from schemas import conditions
from schemas.block import FINALIZED, OPEN, FinalBlock, pack_text, ragged_indices
from schemas.quantity import MICRO
from schemas.units import resolve
from streams import calendar
from streams.insights import kernel
from streams.insights.trees import Forest, forest
from streams.runtime.state import Column, State, Table

Array = npt.NDArray[Any]
DAY: Final = 86_400
RAISED: Final = 4  # days of a channel whose exception may still be taken back
NEVER: Final = -(2**31)
_KNOWN: Final = 256  # lists of channels remembered
# Quantities whose days have no meaningful total
_NOT_LEARNED: Final = frozenset({"temperature", "voltage", "current", "frequency", "power-factor"})


def is_learned(seconds: int, unit: str) -> bool:
    """Whether channels of this interval length and unit have a profile: whole minutes to an hour, and a quantity that adds up."""
    return 60 <= seconds <= 3600 and 3600 % seconds == 0 and resolve(unit).quantity not in _NOT_LEARNED


def key_of(device: str, channel: str) -> str:
    """The key of a channel in the tables."""
    return f"{len(device)} {device}{channel}"


def make_table(name: str) -> Table:
    """The table of a name ``p<seconds>``. Columns of 32-bit floats are kept as the integers of the same bits."""
    if name[:1] != "p":
        raise ValueError(f"insights has no table {name}")
    return Table(
        {
            "location": Column(np.int32, (2, kernel.HOURS)),
            "spread": Column(np.int32, (kernel.HOURS,)),
            "memory": Column(np.int32, (kernel.F, kernel.M)),
            "shares": Column(np.int16, (kernel.HOURS, kernel.LEVELS), kernel.WHOLE // kernel.LEVELS),
            "fits": Column(np.int32, (kernel.S - 1, kernel.HOURS + 2 * kernel.SCALES + 1)),
            "scalars": Column(np.int32, (3,)),
            "ages": Column(np.int32, (3,)),
            "strange": Column(np.int32),
            "last": Column(np.int32, empty=NEVER),  # newest day seen
            "told": Column(np.int32, (2,), NEVER),  # newest strange day, acute and lasting
            "raised": Column(np.int32, (RAISED,), NEVER),
            "labels": Column(np.int32, (2,)),  # exceptions that clerks rejected and confirmed
        }
    )


@dataclass(frozen=True, slots=True)
class Scored:
    """Channel-days after scoring: rows of the block, rows of the table, and what the kernel found."""

    table: Table
    block: FinalBlock
    rows: Array  # state rows
    fresh: Array  # newer than all days of the channel seen before
    features: Array  # (rows, F)
    inputs: Array  # (rows, INPUTS), of the trees
    odds: Array  # (rows, 2): acute, lasting
    score: Array  # (rows, 2)
    worst: Array
    before: Array  # (rows, F, 4): centre, lowest, highest before this day; mean of the last days with it
    level: Array  # usual consumption of a day before

    def day(self, k: int) -> int:
        """The local day of a row."""
        return int(self.block.day[k])


class Profiles:
    """Scores and learns the channel-days of a block."""

    def __init__(self, state: State, trees: Forest | None = None) -> None:
        self._state = state
        self.trees = trees or forest()
        self._patterns: dict[tuple[str, int, int], int] = {}
        self._bins: dict[int, list[Array]] = {}
        self._known: dict[tuple[int, bytes, bytes], Array] = {}

    def fold(self, block: FinalBlock) -> list[Scored]:
        """Takes all days in that are decided, one result per interval length."""
        decided = np.flatnonzero((block.seconds > 0) & (block.state != OPEN) & (block.reads == 0))
        parts = []
        for seconds in np.unique(block.seconds[decided]).tolist():
            own = decided[block.seconds[decided] == seconds]
            units = block.unit.dictionary_encode()
            known = np.array([is_learned(seconds, unit) for unit in units.dictionary.to_pylist()], bool)
            own = own[known[np.asarray(units.indices)[own]]]
            if len(own):
                parts.append(self._fold(seconds, block, own))
        return parts

    def _fold(self, seconds: int, block: FinalBlock, own: Array) -> Scored:
        table = self._state.table(f"p{seconds}")
        rows = self._rows(table, seconds, block if len(own) == len(block) else block.take(own))
        order = np.lexsort((block.day[own], rows))
        own, rows = own[order], rows[order]
        part = block if np.array_equal(own, np.arange(len(block))) else block.take(own)
        day = part.day.astype(np.int64)
        again = np.zeros(len(own), bool)
        again[1:] = (rows[1:] == rows[:-1]) & (day[1:] == day[:-1])
        fresh = (day > table["last"][rows]) & ~again
        scored = self._score(seconds, table, part, rows, fresh)
        np.maximum.at(table["last"], rows, part.day)
        table.mark(rows)
        return scored

    def _rows(self, table: Table, seconds: int, block: FinalBlock) -> Array:
        """The state row of each row of a block. Head ends send the same meters in the same order again and again."""
        mark = (seconds, pack_text(block.device), pack_text(block.channel))
        rows = self._known.get(mark)
        if rows is None:
            pairs = zip(block.device.to_pylist(), block.channel.to_pylist(), strict=True)
            rows = table.add(key_of(device, channel) for device, channel in pairs)
            if len(self._known) >= _KNOWN:
                self._known.clear()
            self._known[mark] = rows
        return rows

    def _score(self, seconds: int, table: Table, part: FinalBlock, rows: Array, fresh: Array) -> Scored:
        n, slots = len(rows), DAY // seconds
        counts = part.count.astype(np.int64)
        begins = np.cumsum(counts) - counts
        patterns, pattern = self._pattern_of(seconds, part)
        features, inputs, odds, score = (np.zeros((n, width)) for width in (kernel.F, kernel.INPUTS, 2, 2))
        worst, before, level = np.zeros(n, np.int64), np.zeros((n, kernel.F, 4)), np.zeros(n)
        floats = {name: table[name].view(np.float32) for name in ("location", "spread", "memory", "fits", "scalars")}
        trees = self.trees
        kernel.fold_days(
            part.values / MICRO, part.conditions >= conditions.SUSPECT, begins, counts, patterns, pattern, slots, rows,
            (((part.day.astype(np.int64) + 3) % 7) >= 5).astype(np.int64), fresh & (part.state == FINALIZED),
            floats["location"], floats["spread"], floats["memory"], table["shares"], floats["fits"], floats["scalars"], table["ages"],
            table["strange"], trees.acute, trees.lasting, trees.feature, trees.threshold, trees.left, trees.right, trees.value,
            trees.limits, features, inputs, odds, score, worst, before, level,
        )  # fmt: skip
        return Scored(table, part, rows, fresh, features, inputs, odds, score, worst, before, level)

    def _pattern_of(self, seconds: int, part: FinalBlock) -> tuple[Array, Array]:
        """Bins of the slots of each row's day, as few distinct ones and which of them each row has. Days with a change of the clock
        follow the wall clock."""
        known = self._bins.setdefault(seconds, [])
        slots = DAY // seconds
        if not known:
            known.append(self._padded(seconds, np.arange(slots) * seconds))
        pattern = np.zeros(len(part), np.int64)
        for k in np.flatnonzero(part.count != slots).tolist():
            key = (part.zone[k].as_py(), int(part.day[k]), seconds)
            if key not in self._patterns:
                known.append(self._padded(seconds, calendar.wall_clock(*key)[: int(part.count[k])]))
                self._patterns[key] = len(known) - 1
            pattern[k] = self._patterns[key]
        return np.array(known), pattern

    @staticmethod
    def _padded(seconds: int, clock: Array) -> Array:
        bins = np.zeros(2 * calendar.width_of(seconds), np.int64)
        bins[: len(clock)] = clock // 3600
        return bins


def values_of(block: FinalBlock, row: int) -> Array:
    """The values of one row in its unit."""
    values: Array = block.values[ragged_indices(block.count, np.array([row]))] / MICRO
    return values
