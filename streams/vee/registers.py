"""Register reads: the newest few of each channel are kept, so that a read sent again is recognised and a better one replaces it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from schemas.block import ReadBlock, starts_of
from streams.runtime.state import Column, State, Table
from streams.vee.batch import Array, Ints
from streams.vee.channels import TABLE as CHANNELS
from streams.vee.merging import STEP, Replacement

KEPT: Final = 8
NAME: Final = "register"
_NONE: Final = -1


def table() -> Table:
    """Columns of the register table: the newest reads in the order of time, unused places first (``at`` -1)."""
    return Table(
        {
            "channel": Column(np.int32, empty=-1),
            "at": Column(np.int64, (KEPT,), _NONE),
            "value": Column(np.int64, (KEPT,)),
            "condition": Column(np.uint16, (KEPT,)),
            "version": Column(np.int64, (KEPT,)),
        }
    )


@dataclass(slots=True)
class Changed:
    """Reads that are new or changed, channel by channel in the order of time, and what happened on the way."""

    channel: Ints  # one per final row
    count: Ints
    replaces: Ints
    times: Ints
    values: Ints
    codes: Array
    repeated: list[tuple[int, int, int, int]]  # channel, reads held already, first and last time
    contradicted: list[tuple[int, int, int, int]]


class Registers:
    """Folds register reads of one partition."""

    def __init__(self, state: State, replacement: Replacement) -> None:
        self.state, self.replacement = state, replacement

    def decide(self, block: ReadBlock, rows: Ints, channels: Ints, values: Ints, codes: Array, version: int) -> Changed:
        """Merges the reads of these rows of a block. ``values`` and ``codes`` are the block's, in the channel's unit and hundredths."""
        table = self.state.table(NAME)
        keys = self.state.table(CHANNELS).keys
        owner = table.add([keys[channel] for channel in channels.tolist()])
        table["channel"][owner] = channels
        counts = block.count[rows].astype(np.int64)
        flat = np.arange(int(counts.sum())) - np.repeat(starts_of(counts), counts)
        source = np.repeat(starts_of(block.count)[rows], counts) + flat
        times = block.times[np.repeat(starts_of(block.reads)[rows], counts) + flat]
        held = np.unique(owner)
        places, slots = np.nonzero(table["at"][held] != _NONE)
        old = held[places]
        # Held reads first, then what came, in the order it came; sorted by channel and time that order stays
        all_owner = np.concatenate([old, np.repeat(owner, counts)])
        all_times = np.concatenate([table["at"][old, slots], times])
        all_values = np.concatenate([table["value"][old, slots], values[source]])
        all_codes = np.concatenate([table["condition"][old, slots], codes[source]])
        all_versions = np.concatenate([table["version"][old, slots], np.zeros(len(times), np.int64)])
        order = np.lexsort((all_times, all_owner))
        return self._resolve(
            table, order < len(old), all_owner[order], all_times[order], all_values[order], all_codes[order], all_versions[order], version
        )

    def _resolve(
        self, table: Table, was: Array, owner: Ints, times: Ints, values: Ints, codes: Array, versions: Ints, version: int
    ) -> Changed:
        fresh = np.r_[True, (owner[1:] != owner[:-1]) | (times[1:] != times[:-1])] if len(owner) else np.zeros(0, np.bool_)
        begin = np.flatnonzero(fresh)
        size = np.diff(np.r_[begin, len(owner)])
        value, code, known = values[begin].copy(), codes[begin].copy(), was[begin]
        changed = ~known
        repeated, contradicted = np.zeros(len(begin), np.int64), np.zeros(len(begin), np.int64)
        for layer in range(1, int(size.max()) if len(size) else 0):
            more = np.flatnonzero(size > layer)
            at = begin[more] + layer
            accepted, merged = self.replacement.accepts(value[more], code[more], values[at], codes[at])
            value[more[accepted]], code[more[accepted]] = values[at[accepted]], codes[at[accepted]]
            changed[more[accepted]] = True
            repeated[more] += merged.identical
            contradicted[more] += merged.contradicted | merged.refused
        self._keep(table, owner[begin], times[begin], value, code, np.where(changed, version, versions[begin]))
        told = np.flatnonzero(changed)
        who = owner[begin][told]
        heads = np.flatnonzero(np.r_[True, who[1:] != who[:-1]]) if len(who) else np.zeros(0, np.int64)
        replaces = np.maximum.reduceat(versions[begin][told], heads) if len(heads) else heads
        channel = table["channel"][who[heads]].astype(np.int64)
        return Changed(
            channel, np.diff(np.r_[heads, len(who)]), replaces, times[begin][told], value[told], code[told],
            _per_channel(table, owner[begin], times[begin], repeated), _per_channel(table, owner[begin], times[begin], contradicted),
        )  # fmt: skip

    @staticmethod
    def _keep(table: Table, owner: Ints, times: Ints, value: Ints, code: Array, version: Ints) -> None:
        """Keeps the newest reads of each channel; the rest lives in the store only."""
        last = np.flatnonzero(np.r_[owner[1:] != owner[:-1], True])
        size = np.diff(np.r_[-1, last])
        back = np.repeat(last, size) - np.arange(len(owner))
        kept = back < KEPT
        row, place = owner[kept], KEPT - 1 - back[kept]
        table["at"][owner[last]] = _NONE
        for name, column in (("at", times), ("value", value), ("condition", code), ("version", version)):
            table[name][row, place] = column[kept]
        table.mark(owner[last])


def _per_channel(table: Table, owner: Ints, times: Ints, amount: Ints) -> list[tuple[int, int, int, int]]:
    """Sums per channel with the first and last time concerned, of those with any."""
    hit = np.flatnonzero(amount)
    found = []
    for row in np.unique(owner[hit]).tolist():
        own = hit[owner[hit] == row]
        found.append((int(table["channel"][row]), int(amount[own].sum()), int(times[own].min()), int(times[own].max())))
    return found


def hundredths(codes: Array) -> Array:
    """Condition codes as they are held."""
    return (codes // STEP).astype(np.uint16)
