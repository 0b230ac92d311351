"""Register reads: the newest few of each channel are kept, so that a read sent again is recognised and a better one replaces it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from typing import Any, Final

import numpy as np

from schemas import conditions
from schemas.block import ReadBlock, starts_of, strings
from schemas.quantity import text_of
from schemas.topology.vee import Group, RuleSettings, ScalarEstimation, ScalarProration
from streams.calendar import day_of
from streams.runtime.fold import Message
from streams.runtime.state import Column, State, Table
from streams.vee.batch import Array, Ints
from streams.vee.channels import TABLE as CHANNELS
from streams.vee.channels import Channels
from streams.vee.eligibility import Asked, applies
from streams.vee.merging import STEP, Replacement
from streams.vee.readings import Known, Reading, estimates

KEPT: Final = 40  # a month of daily reads: what intervals are compared with
NAME: Final = "register"
RELATED: Final = "related/"  # related/<register>: missing reading → interval channel → what it knows (streams/vee/related.py)
_NONE: Final = -1
_USABLE: Final = conditions.OUTAGE // STEP


def table() -> Table:
    """Columns of the register table: the newest reads in the order of time, unused places first (``at`` -1)."""
    return Table(
        {
            "channel": Column(np.int32, empty=-1),
            "at": Column(np.int64, (KEPT,), _NONE),
            "value": Column(np.int64, (KEPT,)),
            "condition": Column(np.uint16, (KEPT,)),
            "version": Column(np.int64, (KEPT,)),
            "estimate": Column(np.int64, (KEPT,)),  # what was published in the place of a missing reading
            "estimated": Column(np.uint16, (KEPT,)),  # its condition, 0: none
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
    methods: Array
    repeated: list[tuple[int, int, int, int]]  # channel, reads held already, first and last time
    contradicted: list[tuple[int, int, int, int]]


@dataclass(slots=True)
class Ordered:
    """Readings as a command wants them."""

    before: str
    refused: str = ""
    done: str = ""
    times: list[int] = field(default_factory=list)
    value: int = 0
    code: int = 0

    def block(self, message: Message, names: tuple[str, str], unit: str) -> ReadBlock:
        """The readings as if a source had sent them."""
        size = len(self.times)
        one = np.zeros(1, np.int64)
        return ReadBlock(
            id=message.id, payload=message.payload, source="", format="", received_at=0, device=strings([names[0]]),
            channel=strings([names[1]]), unit=strings([unit]), direction=one.astype(np.int8), start=np.array(self.times[:1], np.int64),
            seconds=one.astype(np.int32), count=np.array([size], np.int32), reads=np.array([size], np.int32), multiplier=one,
            values=np.full(size, self.value, np.int64), conditions=np.full(size, self.code, np.int32), times=np.array(self.times, np.int64),
        )  # fmt: skip


class Registers:
    """Folds register reads of one partition."""

    def __init__(self, state: State, replacement: Replacement, channels: Channels, group: Group) -> None:
        self.state, self.replacement, self.channels = state, replacement, channels
        self.rules = [rule for rule in group.rules if isinstance(rule, ScalarProration | ScalarEstimation)]

    # --- commands -----------------------------------------------------------------------------------------------------------

    def _held(self, channel: int, body: dict[str, Any]) -> tuple[int, Ints]:
        """The row of a channel, and the places of its readings inside a command's span."""
        table = self.state.table(NAME)
        row = table.index[self.state.table(CHANNELS).keys[channel]]
        at = table["at"][row]
        return row, np.flatnonzero((at >= body["start"]) & (at < body["end"]))

    def summary(self, channel: int, body: dict[str, Any]) -> str:
        """The readings of a command's span, as JSON."""
        table = self.state.table(NAME)
        row, places = self._held(channel, body)
        told = {
            "version": int(table["version"][row, places].max(initial=0)),
            "readings": [
                {"at": int(table["at"][row, k]), "value": text_of(int(table["value"][row, k])),
                 "condition": conditions.name_of(int(table["condition"][row, k]) * STEP)}
                for k in places.tolist()
            ],
        }  # fmt: skip
        return json.dumps(told, sort_keys=True)

    def ordered(self, channel: int, body: dict[str, Any]) -> Ordered:
        """What a command wants of readings. Those it concerns give up their rank: what is decided next takes their place."""
        table = self.state.table(NAME)
        row, places = self._held(channel, body)
        found = Ordered(before=self.summary(channel, body))
        newest, expected = int(table["version"][row, places].max(initial=0)), body["expected_version"]
        if body["action"] not in ("edit", "discard"):
            found.refused = "readings of a register can be edited and discarded only"
        elif expected is not None and expected != newest:
            found.refused = f"version conflict: expected {expected}, it is {newest}"
        elif body["action"] == "edit" and body["reading"] is None:
            found.refused = "a register is edited by a reading"
        elif body["action"] == "discard" and not len(places):
            found.refused = f"no reading of this span is among the newest {KEPT}"
        else:
            edit = body["action"] == "edit"
            found.times = [body["start"]] if edit else table["at"][row, places].tolist()
            found.value, found.code = (body["reading"], conditions.USER_EDIT) if edit else (0, conditions.REPORTED_MISSING)
            found.done = "1 reading edited" if edit else f"{len(places)} {'reading' if len(places) == 1 else 'readings'} discarded"
            table["condition"][row, places[np.isin(table["at"][row, places], found.times)]] = 0
        return found

    def held(self, channel: int) -> list[tuple[int, int]]:
        """Time and version of the kept readings of a channel."""
        table = self.state.table(NAME)
        row = table.index[self.state.table(CHANNELS).keys[channel]]
        places = table["at"][row] != _NONE
        return list(zip(table["at"][row, places].tolist(), table["version"][row, places].tolist(), strict=True))

    def anew(self, channel: int, version: int, *, all_: bool = True) -> Changed:
        """Kept readings of a channel looked at again: all as if they had changed, or those with another estimate now."""
        table = self.state.table(NAME)
        row = table.index[self.state.table(CHANNELS).keys[channel]]
        places = np.flatnonzero(table["at"][row] != _NONE)
        owner = np.full(len(places), row, np.int64)
        at, value, code, versions = (table[name][row, places] for name in ("at", "value", "condition", "version"))
        said = (table["estimate"][row, places], table["estimated"][row, places].astype(np.int64))
        return self._resolve(table, np.ones(len(places), np.bool_), owner, at, value, code, versions, version, said, anew=all_)

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
        said = tuple(np.concatenate([table[name][old, slots], np.zeros(len(times), np.int64)]) for name in ("estimate", "estimated"))
        order = np.lexsort((all_times, all_owner))
        return self._resolve(
            table, order < len(old), all_owner[order], all_times[order], all_values[order], all_codes[order], all_versions[order], version,
            (said[0][order], said[1][order]),
        )  # fmt: skip

    def _resolve(
        self, table: Table, was: Array, owner: Ints, times: Ints, values: Ints, codes: Array, versions: Ints, version: int,
        said: tuple[Ints, Ints], *, anew: bool = False,
    ) -> Changed:  # fmt: skip
        fresh = np.r_[True, (owner[1:] != owner[:-1]) | (times[1:] != times[:-1])] if len(owner) else np.zeros(0, np.bool_)
        begin = np.flatnonzero(fresh)
        size = np.diff(np.r_[begin, len(owner)])
        value, code, known = values[begin].copy(), codes[begin].copy(), was[begin]
        changed = ~known | anew
        repeated, contradicted = np.zeros(len(begin), np.int64), np.zeros(len(begin), np.int64)
        for layer in range(1, int(size.max()) if len(size) else 0):
            more = np.flatnonzero(size > layer)
            at = begin[more] + layer
            accepted, merged = self.replacement.accepts(value[more], code[more], values[at], codes[at])
            value[more[accepted]], code[more[accepted]] = values[at[accepted]], codes[at[accepted]]
            changed[more[accepted]] = True
            repeated[more] += merged.identical
            contradicted[more] += merged.contradicted | merged.refused
        guess, guessed, method = self._estimates(table, owner[begin], times[begin], value, code)
        changed |= (guess != said[0][begin]) | (guessed != said[1][begin])
        self._keep(table, owner[begin], times[begin], value, code, np.where(changed, version, versions[begin]), guess, guessed)
        value, code = np.where(guessed > 0, guess, value), np.where(guessed > 0, guessed, code).astype(np.uint16)
        told = np.flatnonzero(changed)
        who = owner[begin][told]
        heads = np.flatnonzero(np.r_[True, who[1:] != who[:-1]]) if len(who) else np.zeros(0, np.int64)
        replaces = np.maximum.reduceat(versions[begin][told], heads) if len(heads) else heads
        channel = table["channel"][who[heads]].astype(np.int64)
        return Changed(
            channel, np.diff(np.r_[heads, len(who)]), replaces, times[begin][told], value[told], code[told], method[told],
            _per_channel(table, owner[begin], times[begin], repeated), _per_channel(table, owner[begin], times[begin], contradicted),
        )  # fmt: skip

    def _estimates(self, table: Table, owner: Ints, times: Ints, value: Ints, code: Array) -> tuple[Ints, Ints, Array]:
        """What stands in for missing readings, with condition and method; 0 where nothing does. All readings of the owners, ascending."""
        guess, guessed, method = (np.zeros(len(owner), np.int64) for _ in range(3))
        missing = np.flatnonzero(code < _USABLE)
        if self.rules and len(missing):
            for row in np.unique(owner[missing]).tolist():
                own = np.flatnonzero(owner == row)
                columns = (times[own].tolist(), value[own].tolist(), (code[own].astype(np.int64) * STEP).tolist())
                readings = [Reading(*cells) for cells in zip(*columns, strict=True)]
                channel = int(table["channel"][row])
                dials, known = int(self.channels.table["dials"][channel]), partial(known_of, self.state, table.keys[row])
                for k, found in estimates(readings, dials, self.rules, lambda rule, at: self._applies(rule, channel, at), known).items():  # noqa: B023
                    guess[own[k]], guessed[own[k]], method[own[k]] = found.value, found.condition // STEP, found.method
        return guess, guessed, method.astype(np.int8)

    def _applies(self, rule: RuleSettings, channel: int, at: int) -> bool:
        """Whether a rule holds for a channel at a time."""
        self.channels.refresh()
        day = day_of(self.channels.zones[self.channels.zone[channel]], np.array([at]))
        return bool(applies(rule, Asked.of(day, self.channels.attributes(np.array([channel])), 0)).all())

    @staticmethod
    def _keep(table: Table, owner: Ints, times: Ints, value: Ints, code: Array, version: Ints, guess: Ints, guessed: Ints) -> None:
        """Keeps the newest reads of each channel; the rest lives in the store only."""
        last = np.flatnonzero(np.r_[owner[1:] != owner[:-1], True])
        size = np.diff(np.r_[-1, last])
        back = np.repeat(last, size) - np.arange(len(owner))
        kept = back < KEPT
        row, place = owner[kept], KEPT - 1 - back[kept]
        table["at"][owner[last]] = _NONE
        for name, column in (
            ("at", times), ("value", value), ("condition", code), ("version", version), ("estimate", guess), ("estimated", guessed),
        ):  # fmt: skip
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


def known_of(state: State, key: str, before: int, at: int, behind: int) -> Known | None:
    """What is known of a register between two readings for a missing one at ``at``; of several interval channels the first counts."""
    data = state.entries.get(RELATED + key)
    for _, told in sorted(json.loads(data).get(str(at), {}).items()) if data else ():
        if told[:2] == [before, behind]:
            return Known(Fraction(told[2]), told[3], Fraction(told[4]), told[5])
    return None
