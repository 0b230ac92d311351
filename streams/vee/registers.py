"""Register reads: the newest few of each channel are kept, so that a read sent again is recognised and a better one replaces it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from typing import Any, Final

import numpy as np

from schemas import conditions
from schemas.block import ReadBlock, starts_of, strings
from schemas.quantity import text_of
from schemas.rules import METHOD
from schemas.topology.vee import Group, RuleSettings, ScalarEstimation, ScalarProration
from streams.calendar import day_of
from streams.runtime.fold import Message
from streams.runtime.state import Column, State, Table
from streams.vee.batch import Array, Ints
from streams.vee.channels import TABLE as CHANNELS
from streams.vee.channels import Channels
from streams.vee.eligibility import Asked, applies
from streams.vee.merging import STEP, Replacement
from streams.vee.older import Older
from streams.vee.readings import Estimate, Known, Reading, estimates
from streams.vee.rewritten import Finals, Rewritten

KEPT: Final = 40  # a month of daily reads: what intervals are compared with
NAME: Final = "register"
RELATED: Final = "related/"  # related/<register>: missing reading → interval channel → what it knows (streams/vee/related.py)
_NONE: Final = -1
_USABLE: Final = conditions.OUTAGE // STEP
_COLUMNS: Final = ("at", "value", "condition", "version", "estimate", "estimated")
_EMPTY: Final = np.zeros(0, np.int64)


def table() -> Table:
    """Columns of the register table: the newest reads in the order of time, unused places first (``at`` -1).

    ``since`` is when the first of the reads was taken that are in the store only, -1: there are none. A read of condition 0 was taken out
    (streams/vee/uninstalled.py).
    """
    return Table(
        {
            "channel": Column(np.int32, empty=-1),
            "since": Column(np.int64, empty=_NONE),
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
    rewritten: list[Rewritten] = field(default_factory=list)  # registers of which not only the newest reads are concerned


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


@dataclass(frozen=True, slots=True)
class Held:
    """Readings as they are held: conditions in hundredths."""

    at: Ints
    value: Ints
    code: Array


class Registers:
    """Folds register reads of one partition."""

    def __init__(self, state: State, replacement: Replacement, channels: Channels, group: Group) -> None:
        self.state, self.replacement, self.channels = state, replacement, channels
        self.rules = [rule for rule in group.rules if isinstance(rule, ScalarProration | ScalarEstimation)]
        self.methods = {rule.condition // STEP: METHOD[rule.id] for rule in reversed(self.rules)}

    # --- what is in the store only ------------------------------------------------------------------------------------------

    def row(self, channel: int) -> int:
        """The row of a channel, -1 without readings."""
        return self.state.table(NAME).index.get(self.state.table(CHANNELS).keys[channel], -1)

    def since(self, channel: int) -> int | None:
        """When the first reading of a channel was taken that is in the store only."""
        row = self.row(channel)
        at = int(self.state.table(NAME)["since"][row]) if row >= 0 else _NONE
        return None if at == _NONE else at

    def gone(self, row: int, at: int) -> bool:
        """Whether a time lies before the kept readings of a row, while there are older ones in the store."""
        table = self.state.table(NAME)
        return row >= 0 and bool(table["since"][row] != _NONE) and at < int(table["at"][row, 0])

    def early(self, block: ReadBlock, rows: Ints, channels: Ints) -> list[tuple[int, int, Array]]:
        """Row, channel and which readings of these rows of a block lie before the kept ones, where there are older ones."""
        found = []
        begins = starts_of(block.reads)
        for row, channel in zip(rows.tolist(), channels.tolist(), strict=True):
            place = self.row(channel)
            if place < 0 or self.state.table(NAME)["since"][place] == _NONE:
                continue
            times = block.times[int(begins[row]) : int(begins[row]) + int(block.reads[row])]
            old = times < self.state.table(NAME)["at"][place, 0]
            if old.any():
                found.append((row, channel, old))
        return found

    # --- commands -----------------------------------------------------------------------------------------------------------

    def _held(self, channel: int, body: dict[str, Any], older: Older | None) -> tuple[int, Ints, Ints]:
        """The row of a channel, and the places of its readings inside a command's span: among the kept and the older ones."""
        table, row = self.state.table(NAME), self.row(channel)
        inside = [np.flatnonzero((at >= body["start"]) & (at < body["end"])) for at in (table["at"][row], older.at if older else _EMPTY)]
        return row, inside[0], inside[1]

    def summary(self, channel: int, body: dict[str, Any], older: Older | None = None) -> str:
        """The readings of a command's span, as JSON."""
        table = self.state.table(NAME)
        row, places, old = self._held(channel, body, older)
        columns = [table[name][row, places] for name in ("at", "value", "condition", "version")]
        if older is not None and len(old):
            more = (older.at, older.value, older.code, older.version)
            columns = [np.concatenate([a[old], b]) for a, b in zip(more, columns, strict=True)]
        at, value, code, version = (column[columns[2] > 0].tolist() for column in columns)
        told = {
            "version": max([0, *version]),
            "readings": [
                {"at": when, "value": text_of(amount), "condition": conditions.name_of(condition * STEP)}
                for when, amount, condition in zip(at, value, code, strict=True)
            ],
        }
        return json.dumps(told, sort_keys=True)

    def ordered(self, channel: int, body: dict[str, Any], older: Older | None = None) -> Ordered:
        """What a command wants of readings. Those it concerns give up their rank: what is decided next takes their place."""
        table = self.state.table(NAME)
        row, places, old = self._held(channel, body, older)
        found = Ordered(before=self.summary(channel, body, older))
        newest, expected = json.loads(found.before)["version"], body["expected_version"]
        times = [
            *(older.at[old].tolist() if older is not None else ()),
            *table["at"][row, places[table["condition"][row, places] > 0]].tolist(),
        ]
        if body["action"] not in ("edit", "discard"):
            found.refused = "readings of a register can be edited and discarded only"
        elif expected is not None and expected != newest:
            found.refused = f"version conflict: expected {expected}, it is {newest}"
        elif body["action"] == "edit" and body["reading"] is None:
            found.refused = "a register is edited by a reading"
        elif body["action"] == "discard" and not times:
            found.refused = "there is no reading in this span"
        else:
            edit = body["action"] == "edit"
            found.times = [body["start"]] if edit else times
            found.value, found.code = (body["reading"], conditions.USER_EDIT) if edit else (0, conditions.REPORTED_MISSING)
            found.done = "1 reading edited" if edit else f"{len(times)} {'reading' if len(times) == 1 else 'readings'} discarded"
            table["condition"][row, places[np.isin(table["at"][row, places], found.times)]] = 0
            if older is not None:
                older.code[old[np.isin(older.at[old], found.times)]] = 0
        return found

    def take_out(self, channel: int, beyond: Callable[[Ints, Array], Array]) -> Held:
        """Takes kept readings out that are ``beyond`` (of times and conditions). Their places stay, with condition 0: to be told again."""
        table, row = self.state.table(NAME), self.row(channel)
        places = np.flatnonzero(beyond(table["at"][row], table["condition"][row]))
        taken = Held(*(table[name][row, places].copy() for name in ("at", "value", "condition")))
        for name in ("value", "condition", "estimate", "estimated"):
            table[name][row, places] = 0
        table.mark(np.array([row]))
        return taken

    def held(self, channel: int) -> list[tuple[int, int]]:
        """Time and version of the kept readings of a channel."""
        table = self.state.table(NAME)
        row = table.index[self.state.table(CHANNELS).keys[channel]]
        places = table["at"][row] != _NONE
        return list(zip(table["at"][row, places].tolist(), table["version"][row, places].tolist(), strict=True))

    def finals(self, channel: int, older: Older | None = None) -> dict[int, tuple[int, int]]:
        """The known readings of a channel as published: time → value and condition in hundredths."""
        table, row = self.state.table(NAME), self.row(channel)
        if row < 0:
            return {}
        places = table["at"][row] != _NONE
        at, value, code, _, guess, guessed = (table[name][row, places] for name in _COLUMNS)
        found = dict(zip(older.at.tolist(), zip(*(c.tolist() for c in older.final()), strict=True), strict=True)) if older else {}
        now = np.where(guessed > 0, guess, value), np.where(guessed > 0, guessed, code)
        return found | dict(zip(at.tolist(), zip(*(c.tolist() for c in now), strict=True), strict=True))

    def anew(self, channel: int, version: int, *, all_: bool = True) -> Changed:
        """Kept readings of a channel looked at again: all as if they had changed, or those with another estimate now."""
        table = self.state.table(NAME)
        row = table.index[self.state.table(CHANNELS).keys[channel]]
        places = np.flatnonzero(table["at"][row] != _NONE)
        held = [(np.full(len(places), row, np.int64), *(table[name][row, places] for name in _COLUMNS))]
        return self._resolve(table, held, [np.zeros(0, np.int64)] * 4, version, {}, anew=np.full(len(places), all_))

    def anew_older(self, channel: int, version: int, older: Older, spans: Sequence[tuple[int, int]]) -> Changed:
        """Older readings of a channel in these spans of time (the end exclusive) looked at again as if they had changed."""
        row = self.row(channel)
        held = [(np.full(len(older), row, np.int64), older.at, older.value, older.code, older.version, older.estimate, older.estimated)]
        held.append(self._kept(np.array([row])))
        inside = np.zeros(len(older), np.bool_)
        for first, behind in spans:
            inside |= (older.at >= first) & (older.at < behind)
        anew = np.concatenate([inside, np.zeros(len(held[1][0]), np.bool_)])
        return self._resolve(self.state.table(NAME), held, [np.zeros(0, np.int64)] * 4, version, {row: older}, anew=anew)

    def _kept(self, rows: Ints) -> tuple[Any, ...]:
        """The kept readings of rows, flat: row, then the columns."""
        table = self.state.table(NAME)
        places, slots = np.nonzero(table["at"][rows] != _NONE)
        old = rows[places]
        return old, *(table[name][old, slots] for name in _COLUMNS)

    def decide(
        self, block: ReadBlock, rows: Ints, channels: Ints, values: Ints, codes: Array, version: int,
        older: Mapping[int, Older] | None = None,
    ) -> Changed:  # fmt: skip
        """Merges the reads of these rows of a block. ``values`` and ``codes`` are the block's, in the channel's unit and hundredths.

        ``older``: row of this table → readings of it that are back from the store; what is merged with them is put into them.
        """
        table = self.state.table(NAME)
        keys = self.state.table(CHANNELS).keys
        owner = table.add([keys[channel] for channel in channels.tolist()])
        table["channel"][owner] = channels
        counts = block.count[rows].astype(np.int64)
        flat = np.arange(int(counts.sum())) - np.repeat(starts_of(counts), counts)
        source = np.repeat(starts_of(block.count)[rows], counts) + flat
        times = block.times[np.repeat(starts_of(block.reads)[rows], counts) + flat]
        held = [self._kept(np.unique(owner))]
        for row, more in (older or {}).items():
            size = np.full(len(more), row, np.int64)
            held.append((size, more.at, more.value, more.code, more.version, more.estimate, more.estimated))
        return self._resolve(table, held, [np.repeat(owner, counts), times, values[source], codes[source]], version, older or {})

    def _resolve(
        self, table: Table, held: list[tuple[Any, ...]], came: list[Array], version: int, older: Mapping[int, Older],
        *, anew: Array | None = None,
    ) -> Changed:  # fmt: skip
        """Held readings (row and columns) and those that came (row, time, value, condition), decided. ``anew``: held ones to be told."""
        old = [np.concatenate(column) for column in zip(*held, strict=True)]
        none = np.zeros(len(came[0]), np.int64)
        # Held reads first, then what came, in the order it came; sorted by channel and time that order stays
        columns = [np.concatenate([a, b]) for a, b in zip(old, [*came, none, none, none], strict=True)]
        order = np.lexsort((columns[1], columns[0]))
        was = order < len(old[0])
        owner, times, values, codes, versions, said, said_code = (column[order] for column in columns)
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
        before = said[begin], said_code[begin].astype(np.int64)
        guess, guessed, method = self._estimates(table, owner[begin], times[begin], value, code, before, changed, older)
        changed |= (guess != before[0]) | (guessed != before[1])
        if anew is not None:
            changed |= anew[order][begin]
        had = Finals(
            np.where(before[1] > 0, before[0], values[begin]), np.where(known, np.where(before[1] > 0, before[1], codes[begin]), 0)
        )
        has = Finals(np.where(guessed > 0, guess, value), np.where(guessed > 0, guessed, code).astype(np.uint16))
        rewritten = _rewritten(table, owner[begin], times[begin], (had, has), changed, older, anew is not None)
        self._keep(table, owner[begin], times[begin], value, code, np.where(changed, version, versions[begin]), guess, guessed, older)
        value, code = has
        told = np.flatnonzero(changed)
        who = owner[begin][told]
        heads = np.flatnonzero(np.r_[True, who[1:] != who[:-1]]) if len(who) else np.zeros(0, np.int64)
        replaces = np.maximum.reduceat(versions[begin][told], heads) if len(heads) else heads
        channel = table["channel"][who[heads]].astype(np.int64)
        return Changed(
            channel, np.diff(np.r_[heads, len(who)]), replaces, times[begin][told], value[told], code[told], method[told],
            _per_channel(table, owner[begin], times[begin], repeated), _per_channel(table, owner[begin], times[begin], contradicted),
            rewritten,
        )  # fmt: skip

    def _estimates(
        self, table: Table, owner: Ints, times: Ints, value: Ints, code: Array, said: tuple[Ints, Ints], changed: Array,
        older: Mapping[int, Older],
    ) -> tuple[Ints, Ints, Array]:  # fmt: skip
        """What stands in for missing readings, with condition and method; 0 where nothing does. All readings of the owners, ascending.

        ``said`` is what was published. It stays where the readings that an estimate leans on are not known any more.
        """
        guess, guessed, method = (np.zeros(len(owner), np.int64) for _ in range(3))
        missing = np.flatnonzero((code > 0) & (code < _USABLE))
        if self.rules and len(missing):
            for row in np.unique(owner[missing]).tolist():
                whole = np.flatnonzero((owner == row) & (code > 0))
                runs = older[row].run(times[whole]) if row in older else np.zeros(len(whole), np.int64)
                for run in np.unique(runs).tolist():
                    own = whole[runs == run]
                    found = self._estimated(table, row, times[own], value[own], code[own])
                    newest = run == runs[-1]
                    stays = self._stays(table, row, code[own], changed[own], times[own], newest=newest)
                    for k in np.flatnonzero(code[own] < _USABLE).tolist():
                        if stays[k]:
                            guess[own[k]], guessed[own[k]] = said[0][own[k]], said[1][own[k]]
                            method[own[k]] = self.methods.get(int(said[1][own[k]]), 0)
                        elif k in found:
                            one = found[k]
                            guess[own[k]], guessed[own[k]], method[own[k]] = one.value, one.condition // STEP, one.method
        return guess, guessed, method.astype(np.int8)

    def _estimated(self, table: Table, row: int, times: Ints, value: Ints, code: Array) -> dict[int, Estimate]:
        columns = (times.tolist(), value.tolist(), (code.astype(np.int64) * STEP).tolist())
        readings = [Reading(*cells) for cells in zip(*columns, strict=True)]
        channel = int(table["channel"][row])
        dials, known = int(self.channels.table["dials"][channel]), partial(known_of, self.state, table.keys[row])
        return estimates(readings, dials, self.rules, lambda rule, at: self._applies(rule, channel, at), known)

    @staticmethod
    def _stays(table: Table, row: int, code: Array, changed: Array, times: Ints, *, newest: bool) -> Array:
        """Of readings that are neighbours, which keep the estimate they have: nothing they lean on is new, or it is in the store only."""
        valid = np.flatnonzero(code >= conditions.SUSPECT // STEP)
        line = np.arange(len(code))
        before = np.searchsorted(valid, line) - 1
        behind = np.searchsorted(valid, line, side="right")
        opens = (before < 0) & bool(table["since"][row] != _NONE)
        closes = (behind >= len(valid)) & (not newest)
        if not len(valid):
            return opens | closes
        near = changed[valid[before.clip(0)]] | changed[valid[behind.clip(0, len(valid) - 1)]] | changed
        gone = (table["since"][row] != _NONE) & (times < table["at"][row, 0])
        return np.asarray(opens | closes | (gone & ~near))

    def _applies(self, rule: RuleSettings, channel: int, at: int) -> bool:
        """Whether a rule holds for a channel at a time."""
        self.channels.refresh()
        day = day_of(self.channels.zones[self.channels.zone[channel]], np.array([at]))
        return bool(applies(rule, Asked.of(day, self.channels.attributes(np.array([channel])), 0)).all())

    @staticmethod
    def _keep(
        table: Table, owner: Ints, times: Ints, value: Ints, code: Array, version: Ints, guess: Ints, guessed: Ints,
        older: Mapping[int, Older],
    ) -> None:  # fmt: skip
        """Keeps the newest reads of each channel; the rest lives in the store only, and for now in ``older``."""
        last = np.flatnonzero(np.r_[owner[1:] != owner[:-1], True])
        size = np.diff(np.r_[-1, last])
        back = np.repeat(last, size) - np.arange(len(owner))
        kept = back < KEPT
        row, place = owner[kept], KEPT - 1 - back[kept]
        columns = (times, value, code, version, guess, guessed)
        table["at"][owner[last]] = _NONE
        for name, column in zip(_COLUMNS, columns, strict=True):
            table[name][row, place] = column[kept]
        for number in np.unique(owner[~kept]).tolist():
            own = ~kept & (owner == number)
            first, since = int(times[own].min()), int(table["since"][number])
            table["since"][number] = first if since == _NONE else min(first, since)
            if number in older:
                for name, column in zip(("at", "value", "code", "version", "estimate", "estimated"), columns, strict=True):
                    setattr(older[number], name, column[own])
        table.mark(owner[last])


def _per_channel(table: Table, owner: Ints, times: Ints, amount: Ints) -> list[tuple[int, int, int, int]]:
    """Sums per channel with the first and last time concerned, of those with any."""
    hit = np.flatnonzero(amount)
    found = []
    for row in np.unique(owner[hit]).tolist():
        own = hit[owner[hit] == row]
        found.append((int(table["channel"][row]), int(amount[own].sum()), int(times[own].min()), int(times[own].max())))
    return found


def _rewritten(
    table: Table, owner: Ints, times: Ints, finals: tuple[Finals, Finals], changed: Array, older: Mapping[int, Older], every: bool
) -> list[Rewritten]:
    """Registers with changed reads that lie before others which did not change; ``every``: all registers."""
    if not len(owner):
        return []
    since = np.cumsum(changed)
    heads = np.flatnonzero(np.r_[True, owner[1:] != owner[:-1]])
    size = np.diff(np.r_[heads, len(owner)])
    behind = ~changed & (since > np.repeat(since[heads] - changed[heads], size))
    found = []
    for row in np.unique(owner if every else owner[behind]).tolist():
        own = owner == row
        at = times[own]
        run, whole = np.zeros(len(at), np.int64), np.full(len(at), table["since"][row] == _NONE)
        if row in older:
            run = older[row].run(at)
            whole = run == older[row].first_run
        had, has = (Finals(one.value[own], one.code[own]) for one in finals)
        found.append(Rewritten(int(table["channel"][row]), at, had, has, run, whole))
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
