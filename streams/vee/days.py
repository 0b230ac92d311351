"""Interval reads into channel-days: merge what was received, run the rules, keep what is hot, tell what changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

import numpy as np

from schemas import conditions
from schemas.block import EXCEPTION, FINALIZED
from schemas.rules import BIT, METHOD, SEVERITIES
from schemas.topology.vee import (
    DuplicateImd,
    FinalMeasurementReplacement,
    Group,
    LikeDayAverage,
    RuleSettings,
    VeeSettings,
)
from streams.calendar import day_starts
from streams.runtime.state import Table
from streams.sorting import distinct, rising
from streams.vee.acceptance import Acceptance
from streams.vee.batch import FIRST_NEIGHBOUR, Array, DayBatch, Edges, Findings, Ints, Mask
from streams.vee.channels import Channels
from streams.vee.clean import Clean, Flawed, Sieve
from streams.vee.context import Context
from streams.vee.deliveries import again_and_again, duplicates, grouped, replacements
from streams.vee.eligibility import applies
from streams.vee.engine import run
from streams.vee.groups import Groups
from streams.vee.history import History
from streams.vee.keeping import Keeper
from streams.vee.likeness import candidates
from streams.vee.merging import STEP, Merged, Replacement
from streams.vee.orders import Order, carry_out_all, states
from streams.vee.orders import summary as summary_of
from streams.vee.outages import Outages
from streams.vee.past import Past, measured_until
from streams.vee.rejudging import Judged, Span
from streams.vee.ring import NEVER, NO_DAY, Rings
from streams.vee.rules import ESTIMATIONS
from streams.vee.service import Owner, idle_slots, outside, periods_of
from streams.vee.siblings import Siblings
from streams.vee.spans import DAILY, Segments, summary
from streams.vee.uninstalled import TakenOut, Uninstalled

SHIFT: Final = 17  # a channel-day as one number: ring row and day
_DAY: Final = (1 << SHIFT) - 1
_EMPTY: Final = conditions.OUTAGE // STEP  # codes below: no usable value
_PERSONS: Final = conditions.USER_EDIT // STEP  # codes from here on (to 6999) were set by a person
_NONE: Final = np.zeros(0, np.int64)
_COMPARED: Final = 1 << 20  # values of repeated parts that are compared at once
_REPEATS: Final = 8  # parts of one day in one message from which on those that repeat the one before are merged once
_CHUNK: Final = 2048  # channel-days worked on at once: their matrices stay in the processor's cache


def code_of(row: Any, day: Any) -> Ints:
    """Channel-days as single numbers, ordered by row, then day."""
    return (np.asarray(row, np.int64) << SHIFT) | np.asarray(day, np.int64)


@dataclass(slots=True)
class Stored:
    """A channel-day read back from the store. Passive: only to be looked at, not to be decided anew."""

    values: Ints  # as received
    codes: Array
    final_values: Ints
    final_conditions: Array
    version: int
    state: int
    passive: bool = False
    was: tuple[Ints, Array] | None = None  # values and codes in the unit they were stored in, if that is another one
    owner: Owner | None = None  # whose it was when it was published


@dataclass(frozen=True, slots=True)
class Moved:
    """A published day that belongs to another owner now; ``stored`` is what the store had, None of a day in the ring."""

    owner: Owner
    replaces: int
    stored: Stored | None


@dataclass(slots=True)
class Decided:
    """The outcome for a batch of channel-days: what to write and what to ask the store for."""

    batch: DayBatch
    channel: Ints
    findings: list[Findings]
    emit: Ints  # rows whose final content or state changed
    state: Array
    replaces: Ints
    received: tuple[Ints, Array]  # values and codes as received, all rows
    hidden: Mask  # rows whose received values cannot be told from the final ones
    previous: dict[int, Stored]  # row → what the store had
    told: Mask  # rows whose findings changed
    gone: list[tuple[int, int]]  # (row, rule bit) no longer found
    accepted: Ints  # per row, rules whose findings a person has accepted
    again: list[tuple[int, int]] = field(default_factory=list)  # (channel, day) in the store that must be decided anew
    registers: list[int] = field(default_factory=list)  # register channels of which more is known now
    left: dict[int, Moved] = field(default_factory=dict)  # row → the owner whose sums the day must leave
    out: list[TakenOut] = field(default_factory=list)  # received intervals that are parked from now on


@dataclass(slots=True)
class _Work:
    """Channel-days being worked on; one row each, ordered by ring row and day."""

    seconds: int
    table: Table
    codes: Ints
    row: Ints
    day: Ints
    pos: Ints
    inside: Mask  # the ring holds the day
    hot: Mask  # the ring keeps the day
    values: Ints
    coded: Array
    closed: Mask
    start: Ints
    end: Ints
    counts: Ints
    opening: Ints  # slots are due from here, once the day is closed
    ending: Ints  # and before here
    version: Ints
    digest: Ints
    raised: Ints
    told: Ints
    accepted: Ints
    published: Ints
    passive: Mask
    stored: dict[int, Stored]
    idle: dict[int, Mask]  # row → slots out of service, where there are any
    held: Mask = field(default_factory=lambda: np.zeros(0, np.bool_))  # stays as published until the store has answered
    moved: dict[int, Moved] = field(default_factory=dict)  # rows to be published though nothing else may have changed

    def index(self, codes: Ints) -> Ints:
        """Positions of channel-days, -1 for those not worked on."""
        at = np.searchsorted(self.codes, codes).clip(0, len(self.codes) - 1)
        return np.where(self.codes[at] == codes, at, -1)


class Days:
    """Folds parts of rows into channel-days of one partition."""

    def __init__(self, rings: Rings, channels: Channels, settings: VeeSettings) -> None:
        self.rings, self.channels, self.settings = rings, channels, settings
        self.group: Group = settings.rules_of("initial-load")
        self.groups = Groups(settings)
        self.outages = Outages(rings.state)
        self.acceptance = Acceptance(rings.state)
        self.replacement = Replacement.of(self.group)
        self.siblings = Siblings(rings, channels, self.group)
        self.keeper = Keeper(History(rings.state), settings)
        self.context = Context(rings.state, channels, self.group, settings.hot_days)
        self.sieve = Sieve(settings, channels, self.keeper)
        self.clock = 0  # the time of the newest tick
        self.uninstalled = Uninstalled(channels, settings)
        self._events: dict[str, RuleSettings] = {
            rule.id: rule for rule in self.group.rules if rule.id in ("duplicate-imd", "final-measurement-replacement")
        }

    def chunks(self, rows: Ints) -> list[Ints]:
        """Positions of ``rows`` in groups of whole channels, each small enough to be worked on at once."""
        if len(rows) <= _CHUNK:
            return [np.arange(len(rows))]
        order = np.argsort(rows, kind="stable")
        ordered = rows[order]
        begins = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        cuts, limit = [0], _CHUNK
        for begin, behind in zip(begins.tolist(), [*begins[1:].tolist(), len(rows)], strict=True):
            if behind > limit and begin > cuts[-1]:
                cuts.append(begin)
                limit = begin + _CHUNK
        return [order[a:b] for a, b in zip(cuts, [*cuts[1:], len(rows)], strict=True)]

    def waiting(self, seconds: int, segments: Segments) -> Mask:
        """Segments of days that have left the ring and are in the store: they cannot be merged before the day is back."""
        table, row, day = self.rings.table(seconds), segments.row, segments.day
        newest, first = table["newest"][row], table["stored_from"][row]
        late = (newest >= 0) & (day <= newest - self.settings.hot_days)
        return late & (first >= 0) & (day >= first) & (day <= table["stored_through"][row])

    def absent(self, seconds: int, now: int, *, close: bool) -> Ints:
        """Whole days without a read that a tick declares missing, between days with reads; not those of very long silences."""
        table, found = self.rings.table(seconds), []
        for key, holes in self.context.gaps.holes(seconds):
            row = table.index[key]
            if not close and int(table["touched"][row].max()) + self.settings.quiet > now:
                continue
            for first, last in holes:
                if last - first < self.settings.absent_days:
                    days = np.arange(first, last + 1)
                    begin, end = self._bounds(table, np.full(len(days), row), days)
                    over = np.full(len(days), close) | (end + self.settings.lateness <= now)
                    counts = np.maximum(1, (end - begin) // seconds)
                    for k, idle in self._idle(seconds, table, np.full(len(days), row), begin, counts).items():
                        over[k] &= not idle.all()  # nothing is missing of a day out of service
                    found.append(code_of(row, days[over]))
        return distinct(np.concatenate(found)) if found else _NONE

    def declared(self, seconds: int, codes: Ints) -> list[tuple[int, int]]:
        """Notes that these days without a read have a row now; returns the stored (channel, day) beside them, which can see them now."""
        table = self.rings.table(seconds)
        row, day = codes >> SHIFT, codes & _DAY
        for owner in np.unique(row).tolist():
            self.context.gaps.fill(seconds, table.keys[owner], day[row == owner].tolist())
        beside = distinct(np.concatenate([codes - 1, codes + 1]))
        beside = beside[~np.isin(beside, codes)]
        row, day = beside >> SHIFT, beside & _DAY
        stored = (table["stored_from"][row] >= 0) & (table["stored_from"][row] <= day) & (day <= table["stored_through"][row])
        return list(zip(table["channel"][row[stored]].tolist(), day[stored].tolist(), strict=True))

    def in_store(self, seconds: int, channel: int, days: list[int]) -> list[int]:
        """Of these days of a channel the ones that have left the ring."""
        table = self.rings.table(seconds)
        row = int(self.rings.find(seconds, np.array([channel]))[0])
        first, last = int(table["stored_from"][row]), int(table["stored_through"][row])
        return [day for day in days if 0 <= first <= day <= last]

    def changed_hands(self, seconds: int, stored: Mapping[int, Stored]) -> bool:
        """Whether any of these days, which are to be decided anew, belongs to another owner than when it was published."""
        table = self.rings.table(seconds)
        now = {row: self.channels.judged(int(table["channel"][row])) for row in {code >> SHIFT for code in stored}}
        for code, one in stored.items():
            row = code >> SHIFT
            if not one.passive and one.version:
                at = self.start(seconds, row, code & _DAY) + max(int(table["phase"][row]), 0) if now[row].uses else 0
                if one.owner != now[row].owner(at):
                    return True
        return False

    def stored_within(self, seconds: int, channel: int, spans: list[Span]) -> list[int]:
        """Days of a channel in the store that these spans of time touch."""
        table, found = self.rings.table(seconds), set[int]()
        row = self.rings.find(seconds, np.array([channel]))
        if row[0] < 0 or table["stored_from"][row[0]] < 0:
            return []
        days = np.arange(int(table["stored_from"][row[0]]), int(table["stored_through"][row[0]]) + 1)
        begin, end = self._bounds(table, np.full(len(days), row[0]), days)
        for first, behind in spans:
            found.update(days[(end > first) & (begin < behind)].tolist())
        return sorted(found)

    def due(self, seconds: int, now: int, *, close: bool) -> Ints:
        """Channel-days that a tick closes."""
        table = self.rings.table(seconds)
        size = len(table)
        due, touched = table["due"][:size], table["touched"][:size]
        ripe = due < NEVER if close else (due <= now) & (touched + self.settings.quiet <= now)
        if not close and self.settings.silence == "missing" and ripe.any():
            ripe &= ~(self._in_the_dark(seconds, table, now)[:, None] & (due + self.settings.widespread_outage.hold > now))
        row, pos = np.nonzero(ripe)
        return code_of(row, table["day"][row, pos])

    def _in_the_dark(self, seconds: int, table: Table, now: int) -> Mask:
        """Rows of devices that are silent together with many others: what they have not reported is not estimated yet."""
        rule, size, lateness = self.settings.widespread_outage, len(table), self.settings.lateness
        device = self.channels.device[table["channel"][:size]]
        until = table["last"][:size] + seconds
        reported = until > now - 7 * DAILY - lateness
        usual = np.unique(device[reported])
        silent = np.setdiff1d(usual, device[until > now - lateness])
        if len(usual) < rule.min_devices or len(silent) * 100 < rule.silent_percent * len(usual):
            return np.zeros(size, np.bool_)
        return np.isin(device, silent)

    def gather(self, seconds: int, segments: Segments, now: int) -> tuple[int, Segments]:
        """Merges what comes for open days that were published a moment ago (``gather`` of the settings).

        Returns until when these days wait (0: none does), and the segments that are left. They are decided when :meth:`ripe`, or when
        anything else has them decided.
        """
        if not self.settings.gather or not self.clock or not len(segments):
            return 0, segments
        table = self.rings.table(seconds)
        bounds, barred = self._surroundings(seconds, table, segments.row, segments.day)
        taken, until = self.sieve.gather(seconds, table, segments, bounds, barred, now, self.clock, self.settings.gather)
        return until, segments.take(np.flatnonzero(~taken)) if until else segments

    def ripe(self, seconds: int, *, close: bool = False) -> Ints:
        """Channel-days that have waited long enough to be published again; all that wait, if everything is to be closed."""
        table = self.rings.table(seconds)
        size = len(table)
        over = table["published"][:size] + self.settings.gather <= self.clock
        row, pos = np.nonzero((table["held"][:size] > 0) & (over | close))
        return code_of(row, table["day"][row, pos])

    def overtaken(self, seconds: int, segments: Segments) -> Ints:
        """Channel-days that wait to be published while reads of later days come."""
        table = self.rings.table(seconds)
        newest = table["newest"][segments.row].astype(np.int64)
        pos = newest % self.settings.hot_days
        passed = (segments.day > newest) & (table["held"][segments.row, pos] > 0) & (table["day"][segments.row, pos] == newest)
        return distinct(code_of(segments.row[passed], newest[passed])) if passed.any() else _NONE

    def sift(self, seconds: int, segments: Segments, now: int, version: int) -> tuple[Clean | None, Flawed | None, Segments]:
        """Takes days that are plain to decide into the ring; returns them, and the segments that are left to :meth:`decide`."""
        if not self.sieve.open or not len(segments):
            return None, None, segments
        table = self.rings.table(seconds)
        bounds, barred = self._surroundings(seconds, table, segments.row, segments.day)
        weights = _weights(table["values"].shape[2])
        return self.sieve.take(seconds, table, segments, bounds, barred, now, self.clock, version, weights)

    def sift_held(self, seconds: int, codes: Ints, version: int) -> tuple[Clean | None, Flawed | None, Ints]:
        """As :meth:`sift` for days that waited; returns those that are left to :meth:`decide`."""
        row, day, none = codes >> SHIFT, codes & _DAY, np.zeros(len(codes), np.int64)
        time = self.rings.table(seconds)["first"][row]
        held = Segments(row, day, none, none, none, time, none, _NONE, np.zeros(0, np.uint16))
        clean, flawed, left = self.sift(seconds, held, 0, version)
        return clean, flawed, code_of(left.row, left.day)

    def _surroundings(self, seconds: int, table: Table, row: Ints, day: Ints) -> tuple[tuple[Ints, Ints], Mask]:
        """Where days begin and end, and which of them something concerns that only :meth:`decide` knows of."""
        bounds = self._bounds(table, row, day)
        barred = self.context.bars(seconds, table, row, bounds[0])
        if self.outages.periods:
            device = self.channels.device[table["channel"][row]].astype(np.int64)
            barred |= self.outages.touched(device, self.channels.devices)
        return bounds, barred

    def decide(
        self, seconds: int, segments: Segments | None, close: Ints, stored: dict[int, Stored], now: int, version: int,
        look: Ints = _NONE, informed: Ints = _NONE, orders: Sequence[Order] = (), was: Sequence[Mapping[int, Judged]] = (),
        owners: Mapping[int, Judged] | None = None, tell: Ints = _NONE,
    ) -> Decided:  # fmt: skip
        """Merges segments, closes days, and decides every channel-day concerned, those of ``look`` too.

        ``stored`` maps channel-days to what the store had of them, ``informed`` are those that need nothing more from it. ``was`` says for
        channels whose master data changed since then as what their stored days were judged, ``owners`` the same of their days in the ring.
        Days that belong to another owner now, and those of ``tell``, are published again; ``version`` - 1 is free for taking the former
        from the old owner.
        """
        table = self.rings.table(seconds)
        if not self.keeper.idle:
            self.keeper.history.table(seconds)
        touched = code_of(segments.row, segments.day) if segments is not None else np.zeros(0, np.int64)
        ordered = [order.codes for order in orders]
        base = distinct(np.concatenate([touched, close, look, np.fromiter(stored, np.int64, len(stored)), *ordered]))
        earlier, later = self._stretch(seconds, table, segments)
        self.context.reached(seconds, table, distinct(touched))
        work, leaving = self._gather(seconds, table, base, close, stored, earlier, later)
        if stored or owners:
            work.moved = self._moved(work, owners or {})
        before = self._before(work, was) if stored else []
        again = self._again(work, earlier) if len(earlier) or table["tail_run"][work.row].any() else []
        shown = self._shown(work)
        events = self._merge_accepted(work, segments, touched) if segments is not None else []
        out = self.uninstalled.take_out(work)
        carry_out_all(orders, work, version, self._look, self._estimated)
        if self.outages.periods:
            self.outages.write(work, [self.channels.names[channel][0] for channel in table["channel"][work.row].tolist()])
        batch, findings = self._look(work)
        events = [event.keep(applies(self._events[event.rule], batch)) for event in events]
        lacking, more = self.context.judge(work, batch, distinct(touched), informed)
        work.held = lacking & work.hot & (work.version > 0)
        work.held[list(work.moved)] = False
        places = work.index(tell)
        decided = self._compare(work, batch, [*events, *findings], before, version, places[places >= 0])
        for order in orders:
            order.after = summary_of(work, batch, decided.state, order.rows) if not order.refused else ""
        decided.out = out
        decided.registers = self.context.related.note(work, batch)
        decided.again = [*again, *self._stale(work, shown), *more]
        decided.again = [(int(table["channel"][row]), day) for row, day in dict.fromkeys(decided.again)]
        leaving = self._leave_plainly(work, leaving)
        self._archive(work, batch, leaving)
        self._retire(work, leaving)
        self._keep(work, decided, touched, now)
        return decided

    # --- gathering ----------------------------------------------------------------------------------------------------------

    def _stretch(self, seconds: int, table: Table, segments: Segments | None) -> tuple[Ints, Ints]:
        """Moves each channel's first and last read; returns ring rows of known channels whose first and whose last moved."""
        if segments is None or not len(segments):
            return _NONE, _NONE
        row = segments.row
        newest = segments.time + (segments.size - 1) * seconds
        earlier, later = segments.time < table["first"][row], newest > table["last"][row]
        moved = []
        for bound, some, value, best in (("first", earlier, segments.time, np.minimum), ("last", later, newest, np.maximum)):
            rows = row[some]
            moved.append(distinct(rows[np.abs(table[bound][rows]) < NEVER]))
            best.at(table[bound], rows, value[some])
        return moved[0], moved[1]

    def _gather(
        self, seconds: int, table: Table, base: Ints, close: Ints, stored: dict[int, Stored], earlier: Ints, later: Ints
    ) -> tuple[_Work, tuple[Ints, Ints]]:
        """Loads all channel-days concerned, and says which (row, position) of the ring leave it without being among them."""
        hot = self.settings.hot_days
        owners, last = np.unique(base >> SHIFT, return_index=True)
        newest_day = (base & _DAY)[np.r_[last[1:], len(base)][: len(owners)] - 1]
        newest = np.maximum(table["newest"][owners], newest_day)
        ring = table["day"][owners]
        leave = (ring >= 0) & (ring <= newest[:, None] - hot)
        more = leave & (table["due"][owners] < NEVER)
        if len(earlier):
            more |= np.isin(owners, earlier)[:, None] & (ring >= 0) & (table["conditions"][owners, :, 0] < _EMPTY)
        if len(later) and table["closed"][owners].any():
            ends = table["conditions"][owners[:, None], np.arange(hot), table["count"][owners] - 1]
            more |= np.isin(owners, later)[:, None] & (ring >= 0) & (table["closed"][owners] > 0) & (ends < _EMPTY)
        which, pos = np.nonzero(more)
        codes = np.union1d(base, code_of(owners[which], ring[which, pos])) if len(which) else base
        codes = self._with_neighbours(table, codes)
        row, day = codes >> SHIFT, codes & _DAY
        work = self._load(seconds, table, codes, row, day, newest[np.searchsorted(owners, row)] - hot, stored)
        work.closed |= np.isin(codes, close) if len(close) else False
        which, pos = np.nonzero(leave)
        outside = work.index(code_of(owners[which], ring[which, pos])) < 0
        return work, (owners[which[outside]], pos[outside])

    def _with_neighbours(self, table: Table, codes: Ints) -> Ints:
        """Adds ring days beside these whose estimates depend on them: they have no value at the edge that touches."""
        row, day, hot = codes >> SHIFT, codes & _DAY, self.settings.hot_days
        found = [codes]
        for step in (-1, 1):
            beside = day + step
            pos = beside % hot
            there = np.flatnonzero((table["day"][row, pos] == beside) & (beside >= 0))
            owner, at = row[there], pos[there]
            edge = 0 if step > 0 else table["count"][owner, at] - 1
            bare = table["conditions"][owner, at, edge] < _EMPTY
            if bare.any():
                found.append(code_of(owner[bare], beside[there[bare]]))
        return distinct(np.concatenate(found)) if len(found) > 1 else codes

    def _load(self, seconds: int, table: Table, codes: Ints, row: Ints, day: Ints, cold: Ints, stored: dict[int, Stored]) -> _Work:
        pos = day % self.settings.hot_days
        inside = table["day"][row, pos] == day
        shape = (len(row), table["values"].shape[2])
        values, coded = (
            (table["values"][row, pos], table["conditions"][row, pos])
            if inside.any() else (np.zeros(shape, np.int64), np.zeros(shape, np.uint16))
        )  # fmt: skip
        version, digest = table["version"][row, pos], table["digest"][row, pos]
        raised, told = table["raised"][row, pos].astype(np.int64), table["told"][row, pos].astype(np.int64)
        accepted, published = table["accepted"][row, pos].astype(np.int64), table["published"][row, pos]
        closed = (table["closed"][row, pos] > 0) & inside
        if not inside.all():
            fresh = ~inside
            values[fresh], coded[fresh] = 0, 0
            for column in (version, digest, raised, told, accepted, published):
                column[fresh] = 0
        start, end = self._bounds(table, row, day)
        counts = np.maximum(1, (end - start) // seconds)
        hot = day > cold
        idle = self._idle(seconds, table, row, start, counts)
        opening, ending = self._span(seconds, table, row, start, counts, idle)
        start = start + np.maximum(table["phase"][row], 0)
        passive = np.zeros(len(codes), np.bool_)
        work = _Work(
            seconds, table, codes, row, day, pos, inside, hot, values, coded, closed | ~hot, start, end, counts, opening, ending,
            version, digest, raised, told, accepted, published, passive, {}, idle,
        )  # fmt: skip
        for code, old in stored.items():
            at = int(np.searchsorted(codes, code))
            work.stored[at] = old
            values[at, : len(old.values)], coded[at, : len(old.codes)] = old.values, old.codes
            work.version[at], passive[at] = old.version, old.passive
            wide = np.zeros((2, 1, values.shape[1]), np.int64)
            wide[0, 0, : len(old.values)], wide[1, 0, : len(old.values)] = old.final_values, old.final_conditions
            own = slice(at, at + 1)
            known = hidden(values[own], coded[own], wide[0], wide[1], np.ones(1, np.bool_))
            work.digest[at] = _digest(wide[0], wide[1], np.array([old.state]), values[own], coded[own], known)[0]
            work.accepted[at] = self.acceptance.of(seconds, table.keys[int(row[at])]).get(int(day[at]), 0)
        return work

    def start(self, seconds: int, row: int, day: int) -> int:
        """UTC second at which a channel's local day begins."""
        return int(self._bounds(self.rings.table(seconds), np.array([row]), np.array([day]))[0][0])

    def _idle(self, seconds: int, table: Table, row: Ints, midnight: Ints, counts: Ints) -> dict[int, Mask]:
        """Position → slots of the day out of service, for days that have any: nothing is missing there, and nothing is estimated."""
        self.channels.refresh()
        channel, begin = table["channel"][row], midnight + np.maximum(table["phase"][row], 0)
        beyond = outside(self.channels.served[channel], begin, begin + counts * seconds)
        texts = self.channels.table.text["periods"]
        return {
            k: idle_slots(periods_of(texts[channel[k]]), int(begin[k]), seconds, int(counts[k])) for k in np.flatnonzero(beyond).tolist()
        }

    def _span(
        self, seconds: int, table: Table, row: Ints, midnight: Ints, counts: Ints, idle: dict[int, Mask] | None = None
    ) -> tuple[Ints, Ints]:
        """The slots of each day that can be due: from the channel's first read to its last one, and in service."""
        opening = ((table["first"][row] - midnight) // seconds).clip(0, counts)
        ending = counts if self.settings.silence == "missing" else ((table["last"][row] - midnight) // seconds + 1).clip(0, counts)
        for k, mask in (self._idle(seconds, table, row, midnight, counts) if idle is None else idle).items():
            used = np.flatnonzero(~mask)
            ending = ending.copy() if ending is counts else ending
            opening[k], ending[k] = (max(opening[k], used[0]), min(ending[k], used[-1] + 1)) if len(used) else (0, 0)
        return opening, ending

    def _bounds(self, table: Table, row: Ints, day: Ints) -> tuple[Ints, Ints]:
        """UTC seconds at which each channel-day begins and ends."""
        self.channels.refresh()
        zone = self.channels.zone[table["channel"][row]]
        numbers = distinct(zone).tolist()
        if len(numbers) == 1:
            midnights = day_starts(self.channels.zones[numbers[0]])
            return midnights[day], midnights[day + 1]
        start, end = np.empty(len(row), np.int64), np.empty(len(row), np.int64)
        for number in numbers:
            own = zone == number
            midnights = day_starts(self.channels.zones[number])
            start[own], end[own] = midnights[day[own]], midnights[day[own] + 1]
        return start, end

    def _merge_accepted(self, work: _Work, segments: Segments, touched: Ints) -> list[Findings]:
        """Merges; where that changes what was received of a day, what was accepted of it is to be judged anew."""
        some = np.flatnonzero(work.accepted)
        values, coded = work.values[some], work.coded[some]
        events = self._merge(work, segments, touched)
        if len(some):
            work.accepted[some[((work.values[some] != values) | (work.coded[some] != coded)).any(axis=1)]] = 0
        return events

    # --- merging ------------------------------------------------------------------------------------------------------------

    def _merge(self, work: _Work, segments: Segments, touched: Ints) -> list[Findings]:
        """Puts segments into their days, those of one day one after another in the order they came."""
        owner = np.searchsorted(work.codes, touched)
        layers = _layers(owner)
        events: list[Findings] = []
        twice = self._events.get("duplicate-imd")
        if len(layers) and int(layers.max()) >= _REPEATS:
            fresh = _fresh(segments, owner)
            if isinstance(twice, DuplicateImd):
                events += again_and_again(twice, segments.take(~fresh), owner[~fresh])
            segments, owner = segments.take(fresh), owner[fresh]
            layers = _layers(owner)
        for layer in range(int(layers.max()) + 1 if len(layers) else 0):
            chosen = np.flatnonzero(layers == layer) if layers.any() else np.arange(len(owner))
            events += self._merge_layer(work, segments.take(chosen), owner[chosen])
        return grouped(events)

    def _merge_layer(self, work: _Work, segments: Segments, owner: Ints) -> list[Findings]:
        width, sizes = work.values.shape[1], segments.size
        same = len(sizes) > 0 and (sizes == sizes[0]).all()
        if same and self._fill(work, segments, owner):
            return []
        if same:
            step = np.arange(int(sizes[0]))
            target = ((owner * width + segments.slot)[:, None] + step).ravel()
            source = (segments.source[:, None] + step).ravel()
        else:
            step = np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
            target = np.repeat(owner * width + segments.slot, sizes) + step
            source = np.repeat(segments.source, sizes) + step
        values, codes = work.values.reshape(-1), work.coded.reshape(-1)
        new_values, new_codes = segments.values[source], segments.codes[source]
        accepted, merged = self.replacement.accepts(values[target], codes[target], new_values, new_codes)
        if accepted.all():
            values[target], codes[target] = new_values, new_codes
        else:
            values[target[accepted]], codes[target[accepted]] = new_values[accepted], new_codes[accepted]
        if not merged.held.any():
            return []
        return self._events_of(segments, owner, merged, target % width)

    @staticmethod
    def _fill(work: _Work, segments: Segments, owner: Ints) -> bool:
        """Places segments of one shape where nothing is held yet, the way most days come; False where that is not so."""
        size, slot = int(segments.size[0]), int(segments.slot[0])
        if (segments.slot != slot).any() or (np.diff(segments.source) != size).any():
            return False
        columns = slice(slot, slot + size)
        if work.coded[owner, columns].any():
            return False
        cells = slice(int(segments.source[0]), int(segments.source[0]) + len(owner) * size)
        work.values[owner, columns] = segments.values[cells].reshape(-1, size)
        work.coded[owner, columns] = segments.codes[cells].reshape(-1, size)
        return True

    def _events_of(self, segments: Segments, owner: Ints, merged: Merged, slots: Ints) -> list[Findings]:
        events: list[Findings] = []
        twice, other = self._events.get("duplicate-imd"), self._events.get("final-measurement-replacement")
        if isinstance(twice, DuplicateImd):
            events += duplicates(twice, segments.size, segments.slot, owner, merged)
        if isinstance(other, FinalMeasurementReplacement):
            events += replacements(other, segments.size, owner, merged, slots)
        return events

    # --- deciding -----------------------------------------------------------------------------------------------------------

    def _look(self, work: _Work, was: Mapping[int, Judged] | None = None) -> tuple[DayBatch, list[Findings]]:
        """Runs the rules over the days as they are now, under master data as they were for channels in ``was``."""
        batch = self._batch(work, was)
        findings = run(self.groups.of(work.coded), batch, self.groups.named)
        if work.coded.max(initial=0) >= _PERSONS:
            _name_methods(batch)
        if self.outages.periods:
            batch.methods[batch.conditions == conditions.OUTAGE_TOLD] = METHOD["outage-zero"]
        return batch, findings

    def _before(self, work: _Work, was: Sequence[Mapping[int, Judged]]) -> list[Findings]:
        """What must have been found of days that are back from the store."""
        now = {row: (work.values[row].copy(), work.coded[row].copy()) for row, old in work.stored.items() if old.was is not None}
        for row in now:
            values, codes = work.stored[row].was or (work.values[:0, 0], work.coded[:0, 0])
            work.values[row, : len(values)], work.coded[row, : len(codes)] = values, codes
        found = self._look(work, was[0] if was else None)[1]
        for other in was[1:]:
            found += self._look(work, other)[1]
        for row, (values, codes) in now.items():
            work.values[row], work.coded[row] = values, codes
        return found

    def _batch(self, work: _Work, was: Mapping[int, Judged] | None = None) -> DayBatch:
        """The days as they are now, before any rule."""
        received = work.coded > 0
        slots = np.arange(work.values.shape[1])
        real = slots < work.counts[:, None]
        silent = (slots < work.opening[:, None]) | (work.closed[:, None] & (slots >= work.ending[:, None]))
        for row, idle in work.idle.items():
            silent[row, : len(idle)] |= idle
        codes = work.coded.astype(np.int32)
        codes *= STEP
        due = received
        if work.closed.any():
            due = received | (work.closed[:, None] & real & ~silent)
            codes[due & ~received] = conditions.MISSING
        values = work.values.copy()
        unusable = codes < conditions.OUTAGE
        if unusable.any():
            values[unusable] = 0
        channel = work.table["channel"][work.row].astype(np.int64)
        batch = DayBatch(
            work.seconds, values, codes, np.zeros(codes.shape, np.int8), received, due, np.all(due | ~real | silent, axis=1),
            work.counts, work.day, work.start, self.channels.attributes(channel, was),
            *self._edges(work, due & (codes < conditions.OUTAGE)), np.zeros(len(codes), np.bool_),
            self._past(work),
        )  # fmt: skip
        batch.codes, batch.zones = work.codes, (self.channels.zone[channel], self.channels.zones)
        if self.context.anchors.wanted:
            batch.checks = self.context.anchors.checks(
                work.seconds, work.codes, channel, work.table["first"][work.row], work.start, work.counts
            )
        return batch

    def _estimated(self, work: _Work, method: str, wanted: Mask) -> DayBatch | None:
        """The days with what a method makes of the slots that have no value; None where no estimation of that name is at hand."""
        rule = self.groups.estimation(method)
        if rule is None:
            return None
        batch = self._batch(work)
        ESTIMATIONS[method](batch, rule, wanted.any(axis=1))
        return batch

    def leant_on(self, method: str, days: set[int]) -> set[int]:
        """Other days that a method ordered for these days takes its estimates from."""
        rule = self.groups.estimation(method)
        return {like for day in days for like in candidates(rule, day)} if isinstance(rule, LikeDayAverage) else set()

    def _past(self, work: _Work) -> Past:
        known = work.passive.copy()
        known[[row for row, old in work.stored.items() if old.version]] = True
        return Past(
            work.seconds, self.settings.hot_days, work.table, self.keeper.history, work.row, work.day, work.counts, work.values,
            work.coded, known, work.end, self.keeper.followed,
        )  # fmt: skip

    def _edges(self, work: _Work, vacant: Mask) -> tuple[Edges, Edges]:
        """What lies beyond both edges, for days that have no value there."""
        before, after = Edges.none(len(work.row)), Edges.none(len(work.row))
        if vacant.any():
            line = np.arange(len(work.row))
            self._beyond(work, np.flatnonzero(vacant[:, 0]), -1, before)
            self._beyond(work, np.flatnonzero(vacant[line, work.counts - 1]), 1, after)
        return before, after

    def _beyond(self, work: _Work, rows: Ints, step: int, edges: Edges) -> None:
        if not len(rows):
            return
        table, owner, day = work.table, work.row[rows], work.day[rows] + step
        beside = work.index(code_of(owner, day))
        own = beside >= 0
        if own.any():
            at = beside[own]
            view = (work.values[at], work.coded[at], work.closed[at], work.counts[at], work.opening[at], work.ending[at])
            self._put(edges, rows[own], summary(*view, head=step > 0))
        pos = day % self.settings.hot_days
        ring = np.flatnonzero(~own & (table["day"][owner, pos] == day))
        if len(ring):
            self._put(edges, rows[ring], self._ring_summary(work.seconds, table, owner[ring], pos[ring], head=step > 0))
        if step < 0:
            tail = np.flatnonzero(~own & (table["stored_through"][owner] == day) & (day >= 0))
            owner = owner[tail]
            self._put(edges, rows[tail], (table["tail_run"][owner], table["tail_value"][owner], table["tail_usable"][owner] > 0))

    @staticmethod
    def _put(edges: Edges, rows: Ints, shown: tuple[Array, Array, Array]) -> None:
        edges.run[rows], edges.value[rows], edges.usable[rows] = shown

    def _ring_summary(self, seconds: int, table: Table, row: Ints, pos: Ints, *, head: bool) -> tuple[Ints, Ints, Mask]:
        counts = table["count"][row, pos].astype(np.int64)
        edge = np.zeros_like(counts) if head else counts - 1
        codes = table["conditions"][row, pos, edge]
        run_, value, usable = np.zeros(len(row), np.int64), table["values"][row, pos, edge], codes >= FIRST_NEIGHBOUR // STEP
        bare = np.flatnonzero(codes < _EMPTY)  # days of which the edge alone does not tell all
        if len(bare):
            row, pos, counts = row[bare], pos[bare], counts[bare]
            start, _ = self._bounds(table, row, table["day"][row, pos].astype(np.int64))
            opening, ending = self._span(seconds, table, row, start, counts)
            view = (table["values"][row, pos], table["conditions"][row, pos], table["closed"][row, pos] > 0, counts, opening, ending)
            run_[bare], value[bare], usable[bare] = summary(*view, head=head)
        return run_, value, usable

    def _compare(
        self, work: _Work, batch: DayBatch, findings: list[Findings], before: list[Findings], version: int, again: Ints = _NONE
    ) -> Decided:
        """What differs from what was told last; the rows of ``again`` count as different."""
        rows = len(work.row)
        raised, told = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
        for found in before:
            at = np.array([k in work.stored for k in found.rows.tolist()], np.bool_)
            work.raised[found.rows[at]] |= BIT[found.rule]
        self._told_before(work, batch)
        for found in findings:
            if found.event:
                continue
            raised[found.rows] |= BIT[found.rule]
            mark = BIT[found.rule] + found.count * 7919 + found.first * 104_729 + found.last * 1_299_709
            mark += ((work.accepted[found.rows] & BIT[found.rule]) != 0) * 15_485_863
            mark += SEVERITIES.index(found.severity) * 32_452_843 + found.kind * 49_979_687
            told[found.rows] = (told[found.rows] * 31 + mark) & 0x7FFFFFFF
        state = states(work, batch, findings)
        unseen = hidden(work.values, work.coded, batch.values, batch.conditions, batch.edited)
        digest = _digest(batch.values, batch.conditions, state, work.values, work.coded, unseen)
        active = ~work.passive & ~work.held
        fresh = (digest != work.digest) | (work.version == 0)
        fresh[list(work.moved)] = True
        fresh[again] = work.version[again] > 0
        emit = np.flatnonzero(fresh & active)
        changed = (told != work.told) & active
        gone_bits = np.where(active, work.raised & ~raised, 0)
        gone = [(int(r), bit) for r in np.flatnonzero(gone_bits) for bit in BIT.values() if gone_bits[r] & bit]
        channel = work.table["channel"][work.row].astype(np.int64)
        replaces = work.version[emit]
        work.version[emit], work.published[emit] = version, self.clock
        for column, now in ((work.digest, digest), (work.raised, raised), (work.told, told)):
            column[:] = np.where(work.held, column, now)
        received = (work.values, work.coded)
        decided = Decided(batch, channel, findings, emit, state, replaces, received, unseen, work.stored, changed, gone, work.accepted)
        return self._leave(work, decided, version) if work.moved else decided

    def _moved(self, work: _Work, owners: Mapping[int, Judged]) -> dict[int, Moved]:
        """Rows of published days that belong to another owner than when they were published."""
        channel = work.table["channel"][work.row].tolist()
        found: dict[int, Moved] = {}
        now: dict[int, Judged] = {}
        for row in np.flatnonzero((work.version > 0) & ~work.passive).tolist():
            stored = work.stored.get(row)
            if stored is None and channel[row] not in owners:
                continue
            at = int(work.start[row])
            owner = owners[channel[row]].owner(at) if stored is None else stored.owner
            judged = now.get(channel[row]) or now.setdefault(channel[row], self.channels.judged(channel[row]))
            if owner is not None and owner != judged.owner(at):
                found[row] = Moved(owner, int(work.version[row]), stored)
        return found

    def _leave(self, work: _Work, decided: Decided, version: int) -> Decided:
        """Has days leave the sums of the owners they had: what is published now follows a version in which nothing is left of them."""
        place = {row: k for k, row in enumerate(decided.emit.tolist())}
        decided.previous = dict(decided.previous)
        for row, moved in work.moved.items():
            channel = int(decided.channel[row])
            owner, count = self.channels.judged(channel).owner(int(work.start[row])), int(work.counts[row])
            ways = [(one.account, one.unit, self.channels.partition_of(one, channel)) for one in (moved.owner, owner)]
            if ways[0] != ways[1]:
                nothing = np.zeros(count, np.int64)
                decided.left[row] = moved
                decided.replaces[place[row]] = version - 1
                decided.previous[row] = Stored(nothing, nothing, nothing, nothing, version - 1, FINALIZED)
        return decided

    @staticmethod
    def _told_before(work: _Work, batch: DayBatch) -> None:
        """What must have been told of days back from the store, though with what is known now it would not be found."""
        ends = set(batch.checks.last.tolist()) if batch.checks is not None else set()
        for at, old in work.stored.items():
            if ((old.final_conditions > 0) & (old.final_conditions < conditions.OUTAGE)).any():
                work.raised[at] |= BIT["missing-quantity"]
            if old.state == EXCEPTION and at in ends:
                work.raised[at] |= BIT["sum-check"] | BIT["interval-adjustment-from-scalar"]

    # --- what the store must give back ----------------------------------------------------------------------------------------

    def _again(self, work: _Work, earlier: Ints) -> list[tuple[int, int]]:
        """Oldest stored days that began without a value before the channel's first read, now that an earlier one has come."""
        table = work.table
        rows = earlier[(table["head_gap"][earlier] > 0) & (table["stored_from"][earlier] >= 0)]
        days = table["stored_from"][rows]
        out = work.index(code_of(rows, days)) < 0
        return list(zip(rows[out].tolist(), days[out].tolist(), strict=True))

    def _followers(self, work: _Work) -> Ints:
        """Rows that follow the newest stored day, whose end is a gap, while that day is not being worked on."""
        table = work.table
        through = table["stored_through"][work.row]
        after = (through >= 0) & (work.day == through + 1) & (table["tail_run"][work.row] > 0) & ~work.passive
        rows = np.flatnonzero(after)
        return rows[work.index(code_of(work.row[rows], through[rows])) < 0] if len(rows) else rows

    def _shown(self, work: _Work) -> tuple[Ints, tuple[Array, ...]]:
        """What followers showed to the day before them until now."""
        rows = self._followers(work)
        if not len(rows):
            return rows, ()
        run, value, usable = np.full(len(rows), -1), np.zeros(len(rows), np.int64), np.zeros(len(rows), np.bool_)
        inside = np.flatnonzero(work.inside[rows])
        if len(inside):
            at = rows[inside]
            run[inside], value[inside], usable[inside] = self._ring_summary(work.seconds, work.table, work.row[at], work.pos[at], head=True)
        return rows, (run, value, usable)

    def _stale(self, work: _Work, shown: tuple[Ints, tuple[Array, ...]]) -> list[tuple[int, int]]:
        """Stored days whose estimates lean on a day that changed now, or that could not see the stored day behind them."""
        rows, was = shown
        stale: list[tuple[int, int]] = []
        if len(rows):
            now = summary(
                work.values[rows], work.coded[rows], work.closed[rows], work.counts[rows], work.opening[rows], work.ending[rows],
                head=True,
            )  # fmt: skip
            moved = np.logical_or.reduce([a != b for a, b in zip(was, now, strict=True)])
            stale += zip(work.row[rows[moved]].tolist(), (work.day[rows[moved]] - 1).tolist(), strict=True)
        table = work.table
        blind = np.flatnonzero((work.day + 1 == table["stored_from"][work.row]) & ~work.passive & ~work.hot)
        if len(blind):
            blind = blind[work.index(code_of(work.row[blind], work.day[blind] + 1)) < 0]
            bare = work.coded[blind, work.counts[blind] - 1] < _EMPTY
            stale += zip(work.row[blind[bare]].tolist(), work.day[blind[bare]].tolist(), strict=True)
        return stale

    # --- writing back ---------------------------------------------------------------------------------------------------------

    def _leave_plainly(self, work: _Work, leaving: tuple[Ints, Ints]) -> tuple[Ints, Ints]:
        """Has days leave the ring the short way where nothing else leaves with them; returns those that are left to the long one."""
        table, (owner, pos) = work.table, leaving
        if not len(owner) or not self.sieve.open or (~work.hot & ~work.passive).any() or (owner[1:] == owner[:-1]).any():
            return leaving
        if (table["conditions"][owner, pos, table["count"][owner, pos] - 1] < _EMPTY).any() or table["accepted"][owner, pos].any():
            return leaving
        self.sieve.leave(work.seconds, table, owner, pos)
        return _NONE, _NONE

    def _archive(self, work: _Work, batch: DayBatch, leaving: tuple[Ints, Ints]) -> None:
        """Gives the history the days that leave the ring, and those that never enter it."""
        table, (owner, pos) = work.table, leaving
        own = np.flatnonzero(~work.hot & ~work.passive)
        if self.keeper.idle or not (len(own) or len(owner)):
            return
        peaks = self.keeper.peaks
        parts: list[tuple[Array, ...]] = []
        if len(own):
            usual = np.where(batch.conditions[own] >= conditions.REGULAR, batch.values[own], 0) if peaks else work.values[:0]
            parts.append((work.codes[own], work.values[own], work.coded[own], work.counts[own], usual))
        if len(owner):
            values, coded, usual = table["values"][owner, pos], table["conditions"][owner, pos], work.values[:0]
            if peaks:
                usual = np.where((coded >= conditions.REGULAR // STEP) & (table["raised"][owner, pos] == 0)[:, None], values, 0)
            parts.append((code_of(owner, table["day"][owner, pos]), values, coded, table["count"][owner, pos].astype(np.int64), usual))
        columns: list[Any] = [np.concatenate(column) for column in zip(*parts, strict=True)] if len(parts) > 1 else list(parts[0])
        order = np.argsort(columns[0]) if not rising(columns[0]) else None
        place = np.argsort(order) if order is not None else np.arange(len(columns[0]))
        stored = [(int(place[k]), work.stored.get(row)) for k, row in enumerate(own.tolist())] if work.stored else []
        before = [(at, was.values, was.codes) for at, was in stored if was is not None and was.version]
        if order is not None:
            columns = [column[order] if len(column) else column for column in columns]
        codes, values, coded, counts, usual = columns
        self.keeper.leave(work.seconds, table, codes, values, coded, counts, usual, before)

    def _retire(self, work: _Work, leaving: tuple[Ints, Ints]) -> None:
        """Notes what leaves the ring (or never enters it) as stored."""
        table, (owner, pos) = work.table, leaving
        own = np.flatnonzero(~work.hot & ~work.passive)
        gone = own[work.inside[own]]
        parts = []
        if len(own):
            view = (work.values[own], work.coded[own], work.closed[own], work.counts[own], work.opening[own], work.ending[own])
            parts.append((work.row[own], work.day[own], work.coded[own, 0] < _EMPTY, summary(*view, head=False)))
        if len(owner):
            tail = self._ring_summary(work.seconds, table, owner, pos, head=False)
            parts.append((owner, table["day"][owner, pos].astype(np.int64), table["conditions"][owner, pos, 0] < _EMPTY, tail))
            told = table["accepted"][owner, pos] != 0
            self._accepted(work.seconds, table, owner[told], table["day"][owner, pos][told], table["accepted"][owner, pos][told])
            table["day"][owner, pos] = NO_DAY
        told = own[(work.accepted[own] != 0) | np.isin(own, list(work.stored))]
        self._accepted(work.seconds, table, work.row[told], work.day[told], work.accepted[told])
        table["day"][work.row[gone], work.pos[gone]] = NO_DAY
        table["due"][owner, pos] = NEVER
        table["due"][work.row[gone], work.pos[gone]] = NEVER
        for row, day, _, _ in parts:
            table["stored_from"][row[table["stored_from"][row] < 0]] = 1 << 30
            np.minimum.at(table["stored_from"], row, day.astype(np.int32))
            np.maximum.at(table["stored_through"], row, day.astype(np.int32))
        for row, day, bare, (run_, value, usable) in parts:
            oldest = table["stored_from"][row] == day
            table["head_gap"][row[oldest]] = bare[oldest]
            newest = table["stored_through"][row] == day
            at = row[newest]
            table["tail_run"][at], table["tail_value"][at], table["tail_usable"][at] = run_[newest], value[newest], usable[newest]

    def _accepted(self, seconds: int, table: Table, row: Ints, day: Ints, bits: Ints) -> None:
        """Notes what is accepted of days in the store."""
        for owner in distinct(row).tolist():
            own = row == owner
            self.acceptance.note(seconds, table.keys[owner], zip(day[own].tolist(), bits[own].tolist(), strict=True))

    def _keep(self, work: _Work, decided: Decided, touched: Ints, now: int) -> None:
        """Writes the hot days into the ring."""
        table = work.table
        np.maximum.at(table["newest"], work.row, work.day.astype(np.int32))
        kept = np.flatnonzero(work.hot & ~work.passive)
        row, pos = work.row[kept], work.pos[kept]
        measured = measured_until(work.seconds, work.coded, work.end, work.counts)
        np.maximum.at(table["actual"], work.row, np.where(work.passive, 0, measured))
        whole = decided.batch.whole[kept]
        table["due"][row, pos] = np.where(whole & ~work.held[kept], NEVER, work.end[kept] + self.settings.lateness)
        before = np.where(work.inside[kept], table["touched"][row, pos], 0)
        marked = np.zeros(len(work.codes), np.bool_)
        marked[np.searchsorted(work.codes, touched)] = True
        self.siblings.note(table, work.row[marked], work.day[marked], work.end[marked])
        fresh = marked[kept]
        table["touched"][row, pos] = np.where(fresh, np.maximum(before, now), before)
        for name, column in (
            ("day", work.day), ("count", work.counts), ("closed", work.closed), ("version", work.version), ("digest", work.digest),
            ("raised", work.raised), ("told", work.told), ("accepted", work.accepted), ("published", work.published),
            ("values", work.values), ("conditions", work.coded),
        ):  # fmt: skip
            table[name][row, pos] = column if len(kept) == len(column) else column[kept]
        table["held"][row, pos] = 0
        table.mark(work.row, work.pos)


def _name_methods(batch: DayBatch) -> None:
    """Says of values that a person set or ordered how they came about."""
    codes = batch.conditions
    given = (codes >= conditions.USER_EDIT) & (codes < conditions.SUPER) & (batch.methods == 0)
    named = np.where(codes >= conditions.USER_ESTIMATE, (codes - conditions.USER_ESTIMATE) // STEP, METHOD["manual"])
    batch.methods[given] = named[given]


def _fresh(segments: Segments, owner: Ints) -> Mask:
    """Which parts are another than the one of their day that came just before: the same once more changes nothing."""
    fresh = np.ones(len(segments), np.bool_)
    order = np.argsort(owner, kind="stable")
    before, part = order[:-1], order[1:]
    alike = owner[before] == owner[part]
    for column in (segments.slot, segments.size):
        alike &= column[before] == column[part]
    before, part = before[alike], part[alike]
    for size in distinct(segments.size[part]).tolist():
        own = np.flatnonzero(segments.size[part] == size)
        step = max(1, _COMPARED // max(size, 1))
        for first in range(0, len(own), step):
            a, b = before[own[first : first + step]], part[own[first : first + step]]
            cells = np.arange(size)
            old, new = segments.source[a][:, None] + cells, segments.source[b][:, None] + cells
            same = (segments.values[old] == segments.values[new]) & (segments.codes[old] == segments.codes[new])
            fresh[b] = ~same.all(axis=1)
    return fresh


def _layers(owner: Ints) -> Ints:
    """For each entry, how many equal ones came before it."""
    order = np.argsort(owner, kind="stable")
    ordered = owner[order]
    begins = np.r_[True, ordered[1:] != ordered[:-1]] if len(owner) else np.zeros(0, np.bool_)
    if begins.all():
        return np.zeros(len(owner), np.int64)
    line = np.arange(len(owner))
    layers = np.empty(len(owner), np.int64)
    layers[order] = line - np.maximum.accumulate(np.where(begins, line, 0))
    return layers


@cache
def _weights(width: int) -> Array:
    """Two lines of fixed odd 64-bit weights, one per slot."""
    seeds = np.arange(1, 2 * width + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (seeds ^ (seeds >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    odd = (mixed ^ (mixed >> np.uint64(31))) | np.uint64(1)
    return odd.reshape(2, width)


def hidden(values: Ints, codes: Array, final_values: Ints, final_conditions: Array, edited: Mask) -> Mask:
    """Rows whose received values (codes in hundredths) cannot be told from the final ones: estimates and unusable values hide them."""
    found = edited.copy()
    if codes.size and int(codes.min()) < conditions.MISSING // STEP:
        found |= ((codes > 0) & (codes < conditions.MISSING // STEP)).any(axis=1)
    at = np.flatnonzero(found)
    if len(at):
        had = np.where(codes[at] > 0, codes[at].astype(np.int32) * STEP, conditions.MISSING)
        final = np.where(final_conditions[at] > 0, final_conditions[at], conditions.MISSING)
        found[at] = ((had != final) | (values[at] != final_values[at])).any(axis=1)
    return found


def _digest(values: Ints, codes: Array, state: Array, received: Ints, received_codes: Array, unseen: Mask) -> Ints:
    """A 64-bit fingerprint of each day's final values, conditions and state, and of what was received where these do not show it."""
    first, second = _weights(values.shape[1])
    mixed: Array = np.einsum("ij,j->i", values.view(np.uint64), first) + _coded(codes, second)
    mixed += state.astype(np.uint64) * np.uint64(0xD6E8FEB86659FD93)
    at = np.flatnonzero(unseen)
    if len(at):
        told = np.einsum("ij,j->i", received[at].view(np.uint64), second)
        told += np.einsum("ij,j->i", received_codes[at].astype(np.uint64), first)
        mixed[at] ^= told * np.uint64(0x9E3779B97F4A7C15)
    return mixed.view(np.int64)


def _coded(codes: Array, weights: Array) -> Array:
    """Weighted sums of each row's codes; most days have one code throughout."""
    same = codes[:, :1] == codes
    sums: Array = codes[:, 0].astype(np.uint64) * weights.sum()
    mixed = np.flatnonzero(~same.all(axis=1))
    if len(mixed):
        sums[mixed] = np.einsum("ij,j->i", codes[mixed].astype(np.uint64), weights)
    return sums
