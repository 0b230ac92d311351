"""Interval consumption: days into billing periods, with corrections as differences.

State of a channel: the sums of its newest days (``r_`` columns; one more than VEE keeps), against which a later version of the day
is a difference, and the sums of its last fourteen billing periods: two in the table that is written with every day, twelve in one
that is written when months end or old days are corrected. A correction of a day that has left the ring carries the values it replaces.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from schemas import conditions as c
from schemas.arrow import integers, numbers
from schemas.block import DIRECTIONS, EXCEPTION, FinalBlock
from schemas.topology.tou import DeterminantsSettings
from streams import calendar
from streams.determinants.corrections import Judge, Sent
from streams.determinants.finder import Finder
from streams.determinants.kernels import ESTIMATED, GOOD, NewDays, Ring, add_days
from streams.determinants.keys import SEPARATOR, described, keys_of, mark_of, parts_of
from streams.determinants.maps import PLANS, UNMAPPED, Maps
from streams.determinants.periods import Schedules
from streams.determinants.records import Figure, Subject, determinant, refused
from streams.determinants.sums import MOST, Sums, limits_of, sum_days, worst_of
from streams.determinants.swaps import SWAPS, Swaps, swap_table
from streams.determinants.usage.book import TouEvent
from streams.runtime.fold import Output, Result
from streams.runtime.state import Column, State, Table
from streams.sorting import distinct

Array = npt.NDArray[Any]

NOW, PAST = 2, 12  # billing periods in the two tables
NONE: Final = -(2**15)  # the period of an empty slot
SHORTEST: Final = 60  # seconds; more slots than this gives to a month do not fit the counters
PER_TICK: Final = 20_000  # channel periods sent on one tick, so that a month's end does not become one giant transaction
NUMBERING: Final = "maps"
_CACHED: Final = 512


def columns(slots: int, width: int) -> dict[str, Column]:
    """Columns of billing periods, each with ``slots`` places."""
    return {
        "period": Column(np.int16, (slots,), NONE),
        "map": Column(np.int16, (slots,)),  # number; negative: days under other maps came too, all is on the first line
        "days": Column(np.uint32, (slots,)),  # bit per day of the period that is in the sums
        "held": Column(np.uint32, (slots,)),  # of these in exception
        "quantities": Column(np.int64, (slots, width)),
        "good": Column(np.uint16, (slots, width)),  # number of slots in the best class, and in all others: mostly zeros,
        "poor": Column(np.uint16, (slots, width, GOOD)),  # which packed pages hold in three bytes
        "version": Column(np.uint16, (slots,)),
        "sent": Column(np.int64, (slots,)),  # hash of the quality that was sent last
        "unsaid": Column(np.int64, (slots, width)),  # by how much quantities differ from those that were sent last
        "first": Column(np.uint32, (slots,)),  # time of the tick on which it was sent first
        "dirty": Column(np.uint8, (slots,)),
        "touched": Column(np.uint32, (slots,)),  # time of the newest tick when it changed last
    }


def make_table(name: str) -> Table:
    """The table of a name: ``now-<lines>-<days of the ring>``, ``past-<lines>``, or that of critical-peak events."""
    if name == SWAPS:
        return swap_table()
    kind, width, *ring = [int(part) if part.isdigit() else part for part in name.split("-")]
    if kind == "past":
        return Table(columns(PAST, int(width)))
    days = int(ring[0])
    own = {
        "seconds": Column(np.int32),
        "r_day": Column(np.int32, (days,), -1),
        "r_map": Column(np.int16, (days,)),
        "r_quantities": Column(np.int64, (days, int(width))),
        "r_good": Column(np.uint16, (days, int(width))),
        "r_poor": Column(np.uint16, (days, int(width), GOOD)),
    }
    return Table(own | columns(NOW, int(width)), ("service_point", "zone"))


@dataclass(slots=True)
class Days:
    """What a block holds, row by row: state rows (of the channel, and of the channel at this interval length), vectors, sums, and the
    critical-peak events of the day (0: none)."""

    channels: Array
    rings: Array
    day: Array
    period: Array
    kinds: Array
    maps: Array
    sums: Sums
    swaps: Array


@dataclass(slots=True)
class Change:
    """Differences to be added, one row per channel and period."""

    rows: Array
    period: Array
    low: Array  # lowest and highest map number of the days; differing ones cannot be told apart by line
    high: Array
    mixed: Array
    quantities: Array
    counts: Array
    days: Array
    held: Array
    cleared: Array

    def take(self, which: Array) -> Change:
        """The given rows."""
        return Change(*(getattr(self, name)[which] for name in self.__slots__))


class Intervals:
    """Interval consumption of one partition."""

    def __init__(self, settings: DeterminantsSettings, state: State, hot_days: int, judge: Judge, schedules: Schedules) -> None:
        self._settings, self._state, self._judge, self._schedules = settings, state, judge, schedules
        self._ring = hot_days + 1
        self._ready = False
        self.maps = Maps(settings)
        self._zones: dict[str, int] = {}
        self._map = self._direction = self._zone = self._cycle = np.zeros(0, np.int64)
        self._swaps = Swaps(state)
        self._finder = Finder()
        self._rows: OrderedDict[bytes, tuple[Array, Array]] = OrderedDict()  # of blocks whose channels are known as they describe them
        self._now = 0
        self._next: int | None = None  # no period is due before; None: not known

    # --- what is derived from settings and keys, kept in memory only -------------------------------------------------------

    def _prepare(self) -> None:
        """After the state is loaded: numbers of maps and lines, tables of the right width."""
        self.maps = Maps(self._settings, self._state.entries.get(NUMBERING))
        numbering = self.maps.numbering()
        if self._state.entries.get(NUMBERING) != numbering:
            self._state.put(NUMBERING, numbering)
        names = {"now": f"now-{self.maps.width}-{self._ring}", "past": f"past-{self.maps.width}"}
        for kind, name in names.items():
            table = self._state.table(name)
            for other in [n for n in self._state.tables if n.startswith(kind) and n != name]:
                if not len(table):
                    _widen(self._state.tables[other], table)
                del self._state.tables[other]
        self.now, self.past = (self._state.table(name) for name in names.values())
        self._ready = True

    def _grow(self) -> None:
        known, size = len(self._map), len(self.now)
        if size <= known:
            return
        fresh = np.full(max(size, known * 2) - known, -1, np.int64)
        self._map, self._direction, self._zone, self._cycle = (
            np.concatenate([a, fresh]) for a in (self._map, self._direction, self._zone, self._cycle)
        )

    def _know(self, rows: Array) -> None:
        """Zone and billing periods of channels."""
        self._grow()
        for row in distinct(rows[self._cycle[rows] < 0]).tolist():
            self._cycle[row] = self._schedules.of(parts_of(self.now.keys[row])[0])
            self._zone[row] = self._zones.setdefault(self.now.text["zone"][row], len(self._zones))

    def _describe(self, block: FinalBlock, rows: Array) -> None:
        """Takes over service point and zone of the rows' channels, and assigns maps."""
        self._grow()
        for name, column in (("service_point", block.service_point), ("zone", block.zone)):
            texts, told, known = self.now.text[name], column.to_pylist(), rows.tolist()
            if [texts[row] for row in known] == told:
                continue
            changed = []
            for row, value in zip(known, told, strict=True):
                if texts[row] != value:
                    if self._map[row] >= 0:  # known before, so perhaps to a block that is remembered
                        self._forget()
                    texts[row] = value
                    changed.append(row)
            self.now.mark(np.array(changed, np.int64))
            self._cycle[changed] = -1
        self._know(rows)
        fresh = self._map[rows] < 0
        stale = fresh | (self._direction[rows] != block.direction)
        if (stale & ~fresh).any():
            self._forget()
        for position in np.flatnonzero(stale).tolist():
            row, direction = int(rows[position]), int(block.direction[position])
            account, _, channel, unit = parts_of(self.now.keys[row])[:4]
            self._map[row] = self.maps.assign(unit, DIRECTIONS[direction], channel, account)
            self._direction[row] = direction
            if self.maps.wide:
                self._renumber(row)

    def _forget(self) -> None:
        """A channel is described otherwise than before: what is remembered of descriptions is void."""
        self._rows.clear()
        self._finder.clear()

    def _renumber(self, row: int) -> None:
        """Calls periods of a channel, and its newest days, by the number they have since it is known that its map changes in them, or does
        not: the lines of the first map are the same."""
        number, cycle, key = int(self._map[row]), self._cycle[row], self.now.keys[row]
        for table, at in ((self.now, row), (self.past, int(self.past.find([key])[0]))):
            for place in np.flatnonzero(table["period"][at] != NONE).tolist() if at >= 0 else ():
                period, had = int(table["period"][at, place]), int(table["map"][at, place])
                whole = self.maps.whole(number, *self._within(period, cycle))
                first = self.maps.parts(had)[0] if had > 0 else None
                if first is None or whole == had or first.map != self.maps.parts(whole)[0].map:
                    continue
                if not table["quantities"][at, place, first.size :].any() and not _slots(table, at, place)[first.size :].any():
                    table["map"][at, place] = whole
                    table.mark(np.array([at]))
        for place in np.flatnonzero(self.now["r_day"][row] >= 0).tolist():
            day, had = int(self.now["r_day"][row, place]), int(self.now["r_map"][row, place])
            whole = self.maps.whole(number, *self._within(int(self._schedules.period_of(day, cycle)), cycle))
            first, parts = self.maps.parts(had)[0], self.maps.parts(whole)
            if first.map and first.map == parts[0].map and (len(parts) == 1 or day < (parts[1].since or 0)):
                self.now["r_map"][row, place] = whole
                self.now.mark(np.array([row]))

    def _within(self, period: int, cycle: Any) -> tuple[int, int]:
        """The local days of a billing period."""
        first, end = self._schedules.first_day(np.array([period, period + 1]), np.array([cycle, cycle])).tolist()
        return int(first), int(end)

    def swap(self, events: Iterable[TouEvent]) -> None:
        """Takes over which critical-peak events there are. Days they touch are told again by VEE, if they were told before."""
        self._swaps.events = tuple(events)

    # --- folding days in ---------------------------------------------------------------------------------------------------

    def fold(self, block: FinalBlock, now: int, result: Result) -> tuple[Sums, Array]:
        """Adds interval rows to the state. Returns the rows' sums and the numbers of the maps they were summed by.

        ``now`` is the time of the newest tick.
        """
        self._now = now
        if not self._ready:
            self._prepare()
        days = self._read(block)
        plain = self._add_plain(block, days)
        self._note_swaps(days, np.flatnonzero(plain))
        whole = np.flatnonzero(~plain)
        twice = days.rings * 100_000 + days.day
        while whole.size:  # a day that is in the block twice must be folded twice, in order
            _, first = np.unique(twice[whole], return_index=True)
            self._fold_once(block, days, np.sort(whole[first]), result)
            whole = np.delete(whole, first)
        self._next = None
        return self._as_days(days)

    def _as_days(self, days: Days) -> tuple[Sums, Array]:
        """Sums by the lines of each day's own map, and its number, where sums of its period are kept by several."""
        if not self.maps.wide:
            return days.sums, days.maps
        own, first = (np.array([getattr(v, name) for v in self.maps.vectors], np.int64)[days.kinds] for name in ("own", "first"))
        quantities, counts = days.sums.quantities.copy(), days.sums.counts.copy()
        for shift in distinct(first[first > 0]).tolist():
            rows = first == shift
            for values in (quantities, counts):
                values[rows] = np.roll(values[rows], -shift, axis=1)
        return Sums(quantities, counts, days.sums.condition), own

    def _read(self, block: FinalBlock) -> Days:
        known = len(self.maps.names)
        channels, rings = self._find(block)
        period = self._schedules.period_of(block.day, self._cycle[channels])
        kinds, swaps = self._kinds(block, channels, period)
        if len(self.maps.names) > known:
            self._state.put(NUMBERING, self.maps.numbering())
        maps = np.array([v.map for v in self.maps.vectors], np.int64)[kinds]
        begins = np.cumsum(block.count, dtype=np.int64) - block.count
        limits = limits_of(block.seconds)
        sums = sum_days(block.values, block.conditions, begins, limits, kinds, self.maps.vectors, self.maps.width)
        return Days(channels, rings, block.day.astype(np.int64), period, kinds, maps, sums, swaps)

    def _find(self, block: FinalBlock) -> tuple[Array, Array]:
        """State rows of each row's channel, and of its channel at this interval length; new ones are made, changed ones described."""
        mark = mark_of(block)
        found = self._rows.get(mark)
        if found is not None:
            self._rows.move_to_end(mark)
            return found
        texts = described(block)
        rows = self._finder.find(texts) if texts is not None else np.full(len(block), -1, np.int64)
        known = rows >= 0
        if known.all() and (self._direction[rows] == block.direction).all() and (self.now["seconds"][rows] == block.seconds).all():
            return rows, rows
        keys = keys_of(block)
        channels = self.now.add(keys)
        self._describe(block, channels)
        fresh = self.now["seconds"][channels] == 0
        self.now["seconds"][channels[fresh]] = block.seconds[fresh]
        rings = channels.copy()
        for position in np.flatnonzero(self.now["seconds"][channels] != block.seconds).tolist():
            seconds = int(block.seconds[position])
            rings[position] = self.now.add([f"{keys[position]}{SEPARATOR}{seconds}"])[0]
            self.now["seconds"][rings[position]] = seconds
        self._rows[mark] = channels, rings
        if len(self._rows) > _CACHED:
            self._rows.popitem(last=False)
        if texts is not None:
            fresh = np.flatnonzero(self._finder.find(texts) < 0)  # anew: what changed has been forgotten
            fresh = np.sort(fresh[np.unique(channels[fresh], return_index=True)[1]])
            self._finder.learn(texts.take(integers(fresh)), channels[fresh])
        return channels, rings

    def _kinds(self, block: FinalBlock, channels: Array, period: Array) -> tuple[Array, Array]:
        """The vector of each row's day, and the events of that day."""
        shape = block.seconds.astype(np.int64) * 100_000 + block.count
        shapes, of_shape = np.unique(shape, return_inverse=True)
        code = (self._map[channels] * (len(self._zones) + 1) + self._zone[channels]) * 50_000 + block.day
        if self.maps.wide:
            code = code * 1000 + self._cycle[channels]
        code = code * len(shapes) + of_shape
        swaps = self._events_of(block, channels)
        if swaps.any():
            code = code * (len(self._swaps.sets) + 1) + swaps
        if (code == code[0]).all():
            first, inverse = np.zeros(1, np.int64), np.zeros(len(code), np.int64)
        else:
            _, first, inverse = np.unique(code, return_index=True, return_inverse=True)
        kinds = [
            self._vector(int(channels[i]), int(block.day[i]), int(block.seconds[i]), int(block.count[i]), int(period[i]), int(swaps[i]))
            for i in first.tolist()
        ]
        return np.array(kinds, np.int64)[inverse], swaps

    def _vector(self, channel: int, day: int, seconds: int, count: int, period: int, swaps: int) -> int:
        number = int(self._map[channel])
        within = self._within(period, self._cycle[channel]) if number >= PLANS else None
        zone = self.now.text["zone"][channel]
        return self.maps.vector(number, zone, day, seconds, count, within, self._swaps.sets[swaps - 1] if swaps else ())

    def _events_of(self, block: FinalBlock, channels: Array) -> Array:
        """Number of the critical-peak events that touch each row's day; 0: none."""
        found = np.zeros(len(block), np.int64)
        if not self._swaps.events:
            return found
        zones, near = list(self._zones), np.flatnonzero(self._swaps.near(block.start))
        known: dict[tuple[int, int, int, str], int] = {}
        patterns = any(event.accounts for event in self._swaps.events)
        for row in near.tolist():
            channel, day = int(channels[row]), int(block.day[row])
            account = parts_of(self.now.keys[channel])[0] if patterns else ""
            key = int(self._map[channel]), int(self._zone[channel]), day, account
            if key not in known:
                begin, end = calendar.start_of(zones[key[1]], np.array([day, day + 1])).tolist()
                known[key] = self._swaps.number(int(begin), int(end), self.maps.names[self.maps.on(key[0], day)][0], account)
            found[row] = known[key]
        return found

    def _add_plain(self, block: FinalBlock, days: Days) -> Array:
        """Adds the days that are nothing but new, or whose older version is still known; returns which rows of the block these are."""
        size = len(block)
        if len(distinct(days.channels)) < size:
            return np.zeros(size, np.bool_)
        taken: Array = block.seconds >= SHORTEST
        bit = self._bit(days, np.arange(size))
        held = np.where(block.state == EXCEPTION, bit, np.uint32(0))
        new = NewDays(
            days.channels, days.rings, days.day, days.period, days.maps, days.sums.quantities, days.sums.counts, bit, held,
            block.replaces == 0,
        )  # fmt: skip
        add_days(Ring(*(self.now[name] for name in Ring._fields)), new, taken, self._now, NONE)
        if taken.all():
            self.now.mark(days.channels)
            self.now.mark(days.rings)
        else:
            self.now.mark(days.channels[taken])
            self.now.mark(days.rings[taken])
        return taken

    def _note_swaps(self, days: Days, at: Array) -> None:
        """Keeps by which events days were summed."""
        if self._swaps.any or days.swaps.any():
            which = at[(days.swaps[at] > 0) | self._swaps.are_known(days.day[at])]
            self._swaps.note([self.now.keys[row] for row in days.rings[which].tolist()], days.day[which], days.swaps[which])

    def _bit(self, days: Days, at: Array) -> Array:
        """The place of days in the days of their periods."""
        since = days.day[at] - self._schedules.first_day(days.period[at], self._cycle[days.channels[at]])
        return np.uint32(1) << since.astype(np.uint32)

    def _fold_once(self, block: FinalBlock, days: Days, at: Array, result: Result) -> None:
        """Rows ``at`` of the block, each day of a channel at most once."""
        rings = days.rings[at]
        alike = self.now["r_day"][rings] == days.day[at, None]
        known, place = alike.any(axis=1), alike.argmax(axis=1)
        before = Sums.zeros(len(at), self.maps.width)
        if known.any():
            before.quantities[known] = self.now["r_quantities"][rings[known], place[known]]
            before.counts[known] = _counts(self.now, "r_", rings[known], place[known])
        mixed = known & (self.now["r_map"][rings, place] != days.maps[at])
        lost = self._recall(block, days, at, known, before) | (block.seconds[at] < SHORTEST)
        quantities, counts = Sums(days.sums.quantities[at], days.sums.counts[at], days.sums.condition[at]).difference(before)
        bit = self._bit(days, at)
        held = np.where(block.state[at] == EXCEPTION, bit, np.uint32(0))
        for band in distinct(days.period[at][~lost] // NOW).tolist():  # inside a band no two periods share a place
            rows = np.flatnonzero(~lost & (days.period[at] // NOW == band))
            some = at[rows]
            change, inverse = _group(days, some, mixed[rows], quantities[rows], counts[rows], bit[rows], held[rows])
            lost[rows] |= self._add(change, result)[inverse]
        kept = np.flatnonzero(~lost)
        self._remember(days, at[kept])
        self._note_swaps(days, at[kept])
        short = block.seconds[at] < SHORTEST
        self._tell_lost(block, days, at[lost & ~short & (block.replaces[at] > 0)], result)
        for name, which in (("late", lost & ~short), ("unbilled", short)):
            if which.any():
                result.count(name, int(which.sum()))

    def _tell_lost(self, block: FinalBlock, days: Days, at: Array, result: Result) -> None:
        """Corrections of days whose periods are no longer kept: people are told, once per channel and period of a block."""
        if not at.size:
            return
        homes = days.channels[at]
        self._know(homes)
        begin, end = self._bounds(homes, days.period[at])
        told: dict[tuple[int, int], Output] = {}
        for i, row in enumerate(at.tolist()):
            home = int(homes[i])
            subject = Subject.of(self.now.keys[home], self.now.text["service_point"][home], int(begin[i]), int(end[i]))
            said = f"{calendar.date_of(int(block.day[row]))} was corrected, what was summed of it is no longer known"
            told[home, subject.begin] = refused(subject, said, self._now)
        result.outputs += told.values()

    def _recall(self, block: FinalBlock, days: Days, at: Array, known: Array, before: Sums) -> Array:
        """Fills ``before`` for days that are in their period but not in the ring; returns those whose old values nobody knows."""
        lost = np.zeros(len(at), bool)
        rest = np.flatnonzero(~known & (block.replaces[at] > 0))
        if not rest.size:
            return lost
        rows = at[rest]
        counted = self._counted(days, rows)
        carried = block.before_count[rows] > 0
        lost[rest[counted & ~carried]] = True
        use = rows[counted & carried]
        if use.size:
            had = self._swaps.summed([self.now.keys[row] for row in days.rings[use].tolist()], days.day[use])
            kinds = [
                self._vector(row, int(block.day[i]), int(block.seconds[i]), int(block.before_count[i]), int(days.period[i]), swaps)
                for i, row, swaps in zip(use.tolist(), days.channels[use].tolist(), had.tolist(), strict=True)
            ]
            begins = (np.cumsum(block.before_count, dtype=np.int64) - block.before_count)[use]
            limits, width = limits_of(block.seconds[use]), self.maps.width
            old = sum_days(block.before, block.before_conditions, begins, limits, np.array(kinds), self.maps.vectors, width)
            into = rest[counted & carried]
            before.quantities[into], before.counts[into] = old.quantities, old.counts
        return lost

    def _counted(self, days: Days, at: Array) -> Array:
        """Whether the days of rows are in the sums of their periods."""
        channels, period = days.channels[at], days.period[at]
        bit = self._bit(days, at)
        old = self.past.find([self.now.keys[row] for row in channels.tolist()])
        counted = np.zeros(len(at), bool)
        for table, rows, places in ((self.now, channels, NOW), (self.past, old, PAST)):
            has = np.flatnonzero(rows >= 0)
            row, place = rows[has], period[has] % places
            counted[has] |= (table["period"][row, place] == period[has]) & (table["days"][row, place] & bit[has] != 0)
        return counted

    def _remember(self, days: Days, at: Array) -> None:
        """Puts days into their channels' rings, which hold the newest days seen."""
        order = np.lexsort((days.day[at], days.rings[at]))
        at = at[order]
        rank = np.searchsorted(days.rings[at], days.rings[at], side="right") - np.arange(len(at))  # 1: the newest of its channel
        for newest in range(min(self._ring, int(rank.max(initial=0))), 0, -1):
            rows = at[rank == newest]
            rings, day = days.rings[rows], days.day[rows]
            held = self.now["r_day"][rings]
            alike = held == day[:, None]
            known = alike.any(axis=1)
            place = np.where(known, alike.argmax(axis=1), held.argmin(axis=1))
            use = known | (day > held.min(axis=1))
            rows, rings, place = rows[use], rings[use], place[use]
            self.now["r_day"][rings, place] = days.day[rows]
            self.now["r_map"][rings, place] = days.maps[rows]
            self.now["r_quantities"][rings, place] = days.sums.quantities[rows]
            _set_counts(self.now, "r_", rings, place, days.sums.counts[rows])
            self.now.mark(rings)

    # --- periods -----------------------------------------------------------------------------------------------------------

    def _add(self, change: Change, result: Result) -> Array:
        """Adds differences to their periods; returns which were of periods too old to be known."""
        place = change.period % NOW
        stored = self.now["period"][change.rows, place].astype(np.int64)
        self._retire(change.rows, place, (stored < change.period) & (stored != NONE), result)
        older = stored > change.period
        self._merge(self.now, change.take(~older), NOW)
        lost = np.zeros(len(older), bool)
        if older.any():
            old = change.take(older)
            old.rows = self.past.add([self.now.keys[row] for row in old.rows.tolist()])
            stored = self.past["period"][old.rows, old.period % PAST].astype(np.int64)
            self._clear(old.rows, old.period % PAST, (stored < old.period) & (stored != NONE), result)
            lost[older] = stored > old.period
            self._merge(self.past, old.take(stored <= old.period), PAST)
        return lost

    def _retire(self, rows: Array, place: Array, which: Array, result: Result) -> None:
        """Moves periods from the table of new ones to the table of old ones."""
        if not which.any():
            return
        rows, place = rows[which], place[which]
        old = self.past.add([self.now.keys[row] for row in rows.tolist()])
        into = self.now["period"][rows, place].astype(np.int64) % PAST
        self._clear(old, into, self.past["period"][old, into] != NONE, result)
        for name, column in columns(NOW, self.maps.width).items():
            self.past[name][old, into] = self.now[name][rows, place]
            self.now[name][rows, place] = column.empty
        self.past.mark(old)

    def _clear(self, rows: Array, place: Array, which: Array, result: Result) -> None:
        """Forgets periods of the table of old ones; what was still to be sent is sent now."""
        if not which.any():
            return
        rows, place = rows[which], place[which]
        waiting = self.past["dirty"][rows, place] != 0
        self._send(self.past, rows[waiting], place[waiting], result)
        for name, column in columns(PAST, self.maps.width).items():
            self.past[name][rows, place] = column.empty
        self.past.mark(rows)

    def _merge(self, table: Table, change: Change, places: int) -> None:
        """Adds differences to periods that are in the table or whose places are empty."""
        rows, place = change.rows, change.period % places
        empty = table["period"][rows, place] == NONE
        number = np.where(empty, change.low, table["map"][rows, place])
        alike = (change.low == change.high) & (number == change.low) & ~change.mixed
        quantities = table["quantities"][rows, place]
        counts = _counts(table, "", rows, place)
        flat = np.flatnonzero(~alike | (number <= UNMAPPED))
        quantities += change.quantities
        counts += change.counts
        quantities[flat], counts[flat] = _one_line(quantities[flat]), _one_line(counts[flat])
        table["period"][rows, place] = change.period
        table["map"][rows, place] = np.where(alike, number, -np.maximum(np.abs(number), np.maximum(change.low, change.high)))
        table["quantities"][rows, place] = quantities
        sent = table["version"][rows, place] > 0
        table["unsaid"][rows[sent], place[sent]] += change.quantities[sent]
        _set_counts(table, "", rows, place, counts)
        table["days"][rows, place] |= change.days
        table["held"][rows, place] = table["held"][rows, place] & ~change.cleared | change.held
        table["dirty"][rows, place] = 1
        table["touched"][rows, place] = self._now
        table.mark(rows)

    # --- sending -----------------------------------------------------------------------------------------------------------

    def tick(self, at: int, close: bool, result: Result) -> None:
        """Sends the determinants of changed periods that ended long enough ago; on ``close`` of all changed ones."""
        if not self._ready:
            self._prepare()
        self._now = max(self._now, at)
        if not close and self._next is not None and at < self._next:
            return
        self._next, room = None, PER_TICK
        upcoming = []
        for table in (self.past, self.now):
            rows, place = np.nonzero(table["dirty"][: len(table)])
            if not rows.size:
                continue
            due = self._due(table, rows, place)
            ready = np.flatnonzero((due <= at) | close)
            if not close:
                upcoming += [int(due[due > at].min())] if (due > at).any() else []
                upcoming += [at] if len(ready) > room else []
                ready = ready[:room]
                room -= len(ready)
            self._send(table, rows[ready], place[ready], result)
        self._next = min(upcoming, default=2**62)

    def again(self, key: str, begin: int) -> None:
        """Looks at the period of a channel that begins at a UTC second once more on the next tick; what is not known is left alone."""
        if not self._ready:
            self._prepare()
        for table, places in ((self.now, NOW), (self.past, PAST)):
            home = self.now.find([key])
            row = table.find([key])
            if row[0] < 0 or home[0] < 0:
                continue
            self._know(home)
            day = calendar.day_of(self.now.text["zone"][int(home[0])], begin)
            period = self._schedules.period_of(day, self._cycle[home[0]])
            if table["period"][row[0], period % places] == period:
                table["dirty"][row[0], period % places] = 1
                table.mark(row)
                self._next = None

    def _due(self, table: Table, rows: Array, place: Array) -> Array:
        """When periods may be sent, UTC seconds."""
        homes, period = self._homes(table, rows), table["period"][rows, place].astype(np.int64)
        end = self._bounds(homes, period)[1] + self._settings.billing.delay
        behind = self.now["r_day"][homes].max(axis=1) >= self._schedules.first_day(period + 1, self._cycle[homes])
        quiet = table["touched"][rows, place].astype(np.int64) + self._settings.billing.quiet
        return np.where(behind, end, np.maximum(end, quiet))

    def _homes(self, table: Table, rows: Array) -> Array:
        homes = rows if table is self.now else self.now.find([table.keys[row] for row in rows.tolist()])
        self._know(homes)
        return homes

    def _bounds(self, homes: Array, period: Array) -> tuple[Array, Array]:
        begin, end = np.zeros(len(homes), np.int64), np.zeros(len(homes), np.int64)
        zone, names = self._zone[homes], list(self._zones)
        for number in np.unique(zone).tolist():
            here = zone == number
            begin[here], end[here] = self._schedules.bounds(names[number], period[here], self._cycle[homes[here]])
        return begin, end

    def _send(self, table: Table, rows: Array, place: Array, result: Result) -> None:
        """Sends periods for the first time, and again where they differ from what was sent last by so much that it matters."""
        if not len(rows):
            return
        homes = self._homes(table, rows)
        begin, end = self._bounds(homes, table["period"][rows, place])
        quantities, counts = table["quantities"][rows, place], _counts(table, "", rows, place)
        held, number = (table["held"][rows, place] != 0).tolist(), table["map"][rows, place].tolist()
        version, unsaid = table["version"][rows, place], table["unsaid"][rows, place]
        table["dirty"][rows, place] = 0
        table.mark(rows)
        said = _said(quantities, counts)
        qualities = np.concatenate(
            [said[:, :, 1:3].reshape(len(rows), -1), table["held"][rows, place, None] != 0, table["map"][rows, place, None]], axis=1
        )
        digests = np.array(
            [int.from_bytes(hashlib.blake2b(q.tobytes(), digest_size=8).digest(), "little", signed=True) for q in qualities], np.int64
        )
        other = digests != table["sent"][rows, place]
        asked = (version == 0) | other | unsaid.any(axis=1) | self._judge.billed.some
        for i in np.flatnonzero(asked).tolist():
            home, at = int(homes[i]), (int(rows[i]), int(place[i]))
            subject = Subject.of(table.keys[at[0]], self.now.text["service_point"][home], int(begin[i]), int(end[i]))
            figures = _figures(self.maps.names[abs(number[i])][1], said[i].tolist(), held[i], number[i] >= 0)
            if len(self.maps.parts(abs(number[i]))) > 1:
                figures = self._by_part(figures, abs(number[i]), self.now.text["zone"][home])
            reason = ""
            if version[i]:
                amounts = _amounts(figures, quantities[i] - unsaid[i])
                sent = Sent(amounts, [int(version[i])] * len(figures), int(table["first"][at]), bool(other[i]))
                if not self._judge.is_sent(self.now.text["zone"][home], subject, figures, sent, self._now, result.outputs):
                    continue
                reason = "late or corrected reads"
            else:
                table["first"][at] = self._now
            table["version"][at], table["sent"][at], table["unsaid"][at] = version[i] + 1, digests[i], 0
            result.outputs += [determinant(subject, figure, int(version[i]) + 1, reason) for figure in figures]

    def _by_part(self, figures: list[Figure], number: int, zone: str) -> list[Figure]:
        """The figures with the span of the map they belong to."""
        parts = self.maps.parts(number)
        ends = [part.since for part in parts[1:]] + [None]
        found = figures[:1]
        for part, end in zip(parts, ends, strict=True):
            span = [0 if day is None else int(calendar.start_of(zone, day)) for day in (part.since, end)]
            lines = figures[1 + part.first : 1 + part.first + part.size] if part.map else []
            found += [replace(figure, begin=span[0], end=span[1]) for figure in lines]
        return found


def _said(quantities: Array, counts: Array) -> Array:
    """Quantity, condition, slots, actual and estimated of whole periods (first) and of each line: rows × (1 + lines) × 5."""
    amount = np.concatenate([quantities.sum(axis=1, keepdims=True), quantities], axis=1)
    slots = np.concatenate([counts.sum(axis=1, keepdims=True), counts], axis=1)
    return np.stack([amount, worst_of(slots), slots.sum(axis=2), slots[:, :, GOOD], slots[:, :, ESTIMATED].sum(axis=2)], axis=2)


def _figures(names: list[str], said: list[list[int]], held: bool, split: bool) -> list[Figure]:
    """The whole period, and each line of a mapped one; where days under other maps cannot be ``split``, the lines are invalid and held."""
    whole = _figure("interval-consumption", "", said[0], held)
    if names == [""]:
        return [whole]
    kind = "tou-interval-consumption"
    if not split:
        return [whole, *(Figure(kind, name, 0, c.INVALID, 0, 0, 0, True) for name in names)]
    return [whole, *(_figure(kind, name, line, held) for name, line in zip(names, said[1:], strict=False))]


def _amounts(figures: list[Figure], quantities: Array) -> list[int]:
    """What of the quantities by line belongs to each figure; to lines that cannot be told apart, nothing."""
    lines = quantities.tolist()
    split = len(figures) > 1 and not all(figure.held and figure.condition == c.INVALID for figure in figures[1:])
    return [sum(lines), *(lines[: len(figures) - 1] if split else [0] * (len(figures) - 1))]


def _figure(kind: str, tou: str, said: list[int], held: bool) -> Figure:
    quantity, condition, slots, actual, estimated = said
    if abs(quantity) > MOST:  # intervals of several lengths can add up to more than a record can carry
        return Figure(kind, tou, 0, c.INVALID, slots, actual, estimated, True)
    return Figure(kind, tou, quantity, condition, slots, actual, estimated, held)


def _counts(table: Table, prefix: str, rows: Array, place: Array) -> Array:
    """Slots by line and class of the given places."""
    good, poor = table[f"{prefix}good"][rows, place], table[f"{prefix}poor"][rows, place]
    return np.concatenate([poor, good[:, :, None]], axis=2).astype(np.int64)


def _slots(table: Table, row: int, place: int) -> Array:
    """Number of slots by line of a period."""
    total: Array = table["good"][row, place].astype(np.int64) + table["poor"][row, place].sum(axis=1)
    return total


def _set_counts(table: Table, prefix: str, rows: Array, place: Array, counts: Array) -> None:
    table[f"{prefix}good"][rows, place] = counts[:, :, GOOD]
    table[f"{prefix}poor"][rows, place] = counts[:, :, :GOOD]


def _one_line(values: Array) -> Array:
    """Everything on the first line."""
    out = np.zeros_like(values)
    out[:, 0] = values.sum(axis=1)
    return out


def _group(days: Days, at: Array, mixed: Array, quantities: Array, counts: Array, bit: Array, held: Array) -> tuple[Change, Array]:
    """Differences of days as differences of channel periods, and which of these each row belongs to."""
    codes, first, inverse = np.unique(days.channels[at] * 2**16 + days.period[at] + 2**15, return_index=True, return_inverse=True)
    rows, period, maps = codes >> 16, (codes & 0xFFFF) - 2**15, days.maps[at]
    if len(codes) == len(at):
        alike = maps[first]
        return Change(
            rows, period, alike, alike, mixed[first], quantities[first], counts[first], bit[first], held[first], bit[first]
        ), inverse
    size = len(codes)
    change = Change(
        rows,
        period,
        maps[first],
        maps[first],
        np.zeros(size, bool),
        np.zeros((size, *quantities.shape[1:]), np.int64),
        np.zeros((size, *counts.shape[1:]), np.int64),
        np.zeros(size, np.uint32),
        np.zeros(size, np.uint32),
        np.zeros(size, np.uint32),
    )
    np.minimum.at(change.low, inverse, maps)
    np.maximum.at(change.high, inverse, maps)
    np.logical_or.at(change.mixed, inverse, mixed)
    np.add.at(change.quantities, inverse, quantities)
    np.add.at(change.counts, inverse, counts)
    for into, bits in ((change.days, bit), (change.held, held), (change.cleared, bit)):
        np.bitwise_or.at(into, inverse, bits)
    return change, inverse


def _widen(old: Table, new: Table) -> None:
    """Copies a table into one with more lines or another number of days."""
    rows = new.add(old.keys)
    for name, texts in old.text.items():
        new.text[name][:] = texts
    for name in old.columns:
        values = old[name][: len(old)]
        if name.startswith("r_"):  # of a longer ring the newest days stay
            newest = np.argsort(-old["r_day"][: len(old)], axis=1, kind="stable")
            values = values[np.arange(len(old))[:, None], newest]
        shared = tuple(slice(min(a, b)) for a, b in zip(values.shape[1:], new[name].shape[1:], strict=True))
        new[name][(slice(len(rows)), *shared)] = values[(slice(None), *shared)]
    new.mark(rows)


def day_bounds(block: FinalBlock) -> Array:
    """UTC second at which each row's day ends."""
    end = np.zeros(len(block), np.int64)
    zones = block.zone.dictionary_encode()
    codes = numbers(zones.indices)
    for number, zone in enumerate(zones.dictionary.to_pylist()):
        here = codes == number
        end[here] = calendar.start_of(zone, block.day[here].astype(np.int64) + 1)
    return end
