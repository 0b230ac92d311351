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
from streams.insights.limits import LIMITS
from streams.runtime.state import Column, State, Table

Array = npt.NDArray[Any]
DAY: Final = 86_400
MOST_BINS: Final = 48  # of a day's profile: quarter hours share one with their neighbour, which keeps a channel below 1.5 KB
RAISED: Final = 4  # days of a channel whose exception may still be taken back
NEVER: Final = -(2**31)
_KNOWN: Final = 256  # lists of channels remembered
# Quantities whose days have no meaningful total
_NOT_LEARNED: Final = frozenset({"temperature", "voltage", "current", "frequency", "power-factor"})


def bins_of(seconds: int) -> int:
    """How many bins the profile of an interval length has."""
    return min(MOST_BINS, DAY // seconds)


def is_learned(seconds: int, unit: str) -> bool:
    """Whether channels of this interval length and unit have a profile: whole minutes to an hour, and a quantity that adds up."""
    return 60 <= seconds <= 3600 and 3600 % seconds == 0 and resolve(unit).quantity not in _NOT_LEARNED


def key_of(device: str, channel: str) -> str:
    """The key of a channel in the tables."""
    return f"{len(device)} {device}{channel}"


def make_table(name: str) -> Table:
    """The table of a name ``p<seconds>``. Columns of 32-bit floats are kept as the integers of the same bits."""
    bins = bins_of(int(name[1:]))
    return Table(
        {
            "location": Column(np.int32, (2, bins)),
            "spread": Column(np.int32, (bins,)),
            "shape": Column(np.int32, (kernel.HOURS,), int(np.float32(-1).view(np.int32))),
            "memory": Column(np.int32, (kernel.F, kernel.M)),
            "level": Column(np.int32),
            "ages": Column(np.int32, (3,)),
            "strange": Column(np.int32),
            "last": Column(np.int32, empty=NEVER),  # newest day seen
            "told": Column(np.int32, empty=NEVER),  # newest strange day
            "loudest": Column(np.int32),  # score of what was told last, float bits
            "raised": Column(np.int32, (RAISED,), NEVER),
        }
    )


@dataclass(frozen=True, slots=True)
class Scored:
    """Channel-days after scoring: rows of the block, rows of the table, and what the kernel found."""

    table: Table
    block: FinalBlock
    rows: Array  # state rows
    fresh: Array  # newer than all days of the channel seen before
    features: Array
    z: Array
    score: Array
    which: Array
    worst: Array
    before: Array  # (rows, 3): centre, low and high of the feature in question before this day; level last

    def day(self, k: int) -> int:
        """The local day of a row."""
        return int(self.block.day[k])


class Profiles:
    """Scores and learns the channel-days of a block."""

    def __init__(self, state: State) -> None:
        self._state = state
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
        features, z = np.zeros((n, kernel.F)), np.zeros((n, kernel.F))
        score, which, worst, before = np.zeros(n), np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros((n, 4))
        floats = {name: table[name].view(np.float32) for name in ("location", "spread", "shape", "memory", "level")}
        kernel.fold_days(
            part.values / MICRO, part.conditions >= conditions.SUSPECT, begins, counts, patterns, pattern, slots, rows,
            (((part.day.astype(np.int64) + 3) % 7) >= 5).astype(np.int64), fresh & (part.state == FINALIZED),
            floats["location"], floats["spread"], floats["shape"], floats["memory"], floats["level"], table["ages"], table["strange"],
            LIMITS, features, z, score, which, worst, before,
        )  # fmt: skip
        return Scored(table, part, rows, fresh, features, z, score, which, worst, before)

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
        bins[: len(clock)] = clock * bins_of(seconds) // DAY
        return bins


def values_of(block: FinalBlock, row: int) -> Array:
    """The values of one row in its unit."""
    values: Array = block.values[ragged_indices(block.count, np.array([row]))] / MICRO
    return values
