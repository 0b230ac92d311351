"""The state of interval channels: per channel the received values of its newest local days, and what is known of older ones."""

from __future__ import annotations

from typing import Final

import numpy as np

from streams.calendar import width_of
from streams.runtime.state import Column, State, Table
from streams.vee.batch import Ints
from streams.vee.channels import TABLE as CHANNELS

NEVER: Final = 1 << 62
NO_DAY: Final = -1


def table(seconds: int, hot_days: int) -> Table:
    """Columns of the ring of one interval length.

    The ring holds the ``hot_days`` local days that end with ``newest``, day d at position d mod hot_days. ``values`` and ``conditions``
    (hundredths) are what was received; 0 is nothing. Older days are in the store: none outside ``stored_from`` … ``stored_through``.
    ``first`` and ``last`` are where the oldest and the newest interval start that was ever received.
    ``actual`` is where the newest measured interval ends. ``present``: bit k is set if there are reads for day ``seen`` - k, ``missed``: if
    channels of the same device have none and that is told; ``pair_due``: when to look at that next.
    ``published`` is the tick clock when a day was last published; ``held``: more has been merged since, for a tick to publish.
    ``tail_*`` is what the newest stored day shows to the day behind it, ``head_gap`` whether the oldest begins without a value.
    """
    day, width = (hot_days,), (hot_days, width_of(seconds))
    return Table(
        {
            "channel": Column(np.int32, empty=-1),
            "phase": Column(np.int32, empty=-1),
            "newest": Column(np.int32, empty=NO_DAY),
            "oldest": Column(np.int32, empty=NO_DAY),  # first day ever reached by a read
            "stored_from": Column(np.int32, empty=NO_DAY),
            "stored_through": Column(np.int32, empty=NO_DAY),
            "first": Column(np.int64, empty=NEVER),
            "last": Column(np.int64, empty=-NEVER),
            "actual": Column(np.int64),
            "head_gap": Column(np.int8),
            "tail_run": Column(np.int32),
            "tail_usable": Column(np.int8),
            "tail_value": Column(np.int64),
            "seen": Column(np.int32, empty=NO_DAY),
            "present": Column(np.int64),
            "missed": Column(np.int64),
            "pair_due": Column(np.int64, empty=NEVER),
            "day": Column(np.int32, day, NO_DAY),
            "count": Column(np.int32, day),
            "closed": Column(np.int8, day),
            "version": Column(np.int64, day),
            "digest": Column(np.int64, day),
            "raised": Column(np.int32, day),
            "told": Column(np.int32, day),
            "accepted": Column(np.int32, day),  # rules whose findings a person has accepted, -1: forced
            "due": Column(np.int64, day, NEVER),
            "touched": Column(np.int64, day),
            "published": Column(np.int64, day),
            "held": Column(np.int8, day),
            "values": Column(np.int64, width, apart=True),
            "conditions": Column(np.uint16, width, apart=True),
        }
    )


class Rings:
    """The ring tables of a partition, and the way from a channel to its row in each."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._links: dict[int, Ints] = {}

    def table(self, seconds: int) -> Table:
        """The ring table of an interval length."""
        return self.state.table(f"i{seconds}")

    def lengths(self) -> list[int]:
        """The interval lengths there are tables for."""
        return sorted(int(name[1:]) for name in self.state.tables if name[0] == "i")

    def find(self, seconds: int, channels: Ints) -> Ints:
        """Ring rows of channels, -1 where a channel has none."""
        table, known = self.table(seconds), len(self.state.table(CHANNELS))
        link = self._links.get(seconds)
        if link is None or len(link) < known:
            link = np.full(max(64, known * 5 // 4), -1, np.int64)
            link[table["channel"][: len(table)]] = np.arange(len(table))
            self._links[seconds] = link
        return link[channels]

    def rows(self, seconds: int, channels: Ints) -> Ints:
        """Ring rows of channels, made where there are none."""
        rows = self.find(seconds, channels)
        missing = rows < 0
        if not missing.any():
            return rows
        table, keys = self.table(seconds), self.state.table(CHANNELS).keys
        fresh = np.array(list(dict.fromkeys(channels[missing].tolist())), np.int64)
        made = table.add([keys[channel] for channel in fresh])
        table["channel"][made] = fresh
        self._links[seconds][fresh] = made
        return self.find(seconds, channels)
