"""Scalar consumption: differences of register readings, by billing period and day.

A period here is half-open the other way round, (begin, end]: a reading taken at midnight ends the day before. Of each of the last
fourteen billing periods (``p_`` columns) and four days (``d_``) the state keeps the first and the last reading, and of what was
before them the last one (the anchor). A period's consumption is its last reading less the last reading before the period; where
there is none, less its first. So consumption telescopes: whatever is missing in between, nothing is billed twice or lost.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas import conditions as c
from schemas.arrow import numbers
from schemas.block import EXCEPTION, FINALIZED, FinalBlock
from schemas.quantity import MICRO
from schemas.topology.tou import DeterminantsSettings
from streams import calendar
from streams.determinants.corrections import Judge, Sent
from streams.determinants.kernels import BOTTOMS, ESTIMATED
from streams.determinants.keys import key_of, keys_of, parts_of
from streams.determinants.periods import Schedules
from streams.determinants.records import Figure, Subject, determinant
from streams.determinants.sums import MOST
from streams.runtime.fold import Result
from streams.runtime.state import Column, State, Table

Array = npt.NDArray[Any]

PERIODS, DAYS = 14, 4
NONE: Final = -(2**15)
DOUBTS: Final = 8
PER_TICK: Final = 20_000
TABLE: Final = "registers"
_EPOCH: Final = date(1970, 1, 1)
_ESTIMATE: Final = int(BOTTOMS[ESTIMATED.start])


def _ring(prefix: str, places: int, version: type[np.integer[Any]] = np.uint16) -> dict[str, Column]:
    reading = {
        f"{prefix}_{end}_{name}": Column(kind, (places,))
        for end in ("first", "last")
        for name, kind in (("at", np.uint32), ("value", np.int64), ("condition", np.uint16))
    }
    return {
        f"{prefix}_number": Column(np.int32, (places,), NONE),
        **reading,
        f"{prefix}_multiplier": Column(np.int64, (places,)),  # as it came with the last reading
        f"{prefix}_version": Column(version, (places,)),
        f"{prefix}_sent": Column(np.int64, (places,)),  # hash of what was sent last; of periods of its quality
    }


def make_table() -> Table:
    """The table of registers. Conditions are held as code // 100, times as UTC seconds, 0: no reading."""
    anchor = {
        f"{prefix}_anchor_{name}": Column(kind)
        for prefix in ("p", "d")
        for name, kind in (("at", np.uint32), ("value", np.int64), ("condition", np.uint16))
    }
    own = {
        "dials": Column(np.int8),
        "doubts": Column(np.uint32, (DOUBTS,)),  # times of readings that something is wrong with
        "p_reading": Column(np.int64, (PERIODS,)),  # reading and consumption that were sent last
        "p_used": Column(np.int64, (PERIODS,)),
        "p_opened": Column(np.uint32, (PERIODS,)),  # time of the tick on which it was sent first
        "p_since": Column(np.uint16, (PERIODS,)),  # version of the period with which its consumption was first told
        "p_dirty": Column(np.uint8, (PERIODS,)),
        "touched": Column(np.uint32),  # time of the newest tick when it got its newest read
        "p_sticky": Column(np.uint8, (PERIODS,)),  # more doubts than could be kept: held for good
        "p_left": Column(np.uint8, (PERIODS,)),  # readings of it or of periods before have gone to another account
    }
    return Table(_ring("p", PERIODS) | _ring("d", DAYS, np.int64) | anchor | own, ("service_point", "zone"))


@dataclass(frozen=True, slots=True)
class Reading:
    """One register reading: UTC second, millionths, condition code."""

    at: int
    value: int
    condition: int

    @property
    def usable(self) -> bool:
        """Whether it can be differenced."""
        return self.at > 0 and self.condition >= c.OUTAGE


@dataclass(frozen=True, slots=True)
class Consumption:
    """From one reading to another. ``broken``: the register went back further than a rollover explains."""

    quantity: int
    condition: int
    actual: int
    estimated: int
    broken: bool


def consumption(base: Reading, end: Reading, dials: int, multiplier: int, rollover_percent: int) -> Consumption:
    """The difference of two readings times the combined multiplier (millionths; 0: one), rounded half to even.

    A negative difference is a rollover if the register of ``dials`` digits then advanced by at most ``rollover_percent`` of its range.
    """
    raw = end.value - base.value
    if raw < 0:
        span = 10 ** (dials + 6)
        rolled = raw + span
        raw = rolled if dials and 0 <= rolled * 100 <= span * rollover_percent else raw
    pair = (base.condition, end.condition)
    actual, estimated = sum(x >= c.REGULAR for x in pair), sum(_ESTIMATE <= x < c.SUSPECT for x in pair)
    scaled, rest = divmod(raw * (multiplier or MICRO), MICRO)
    quantity = scaled + (rest * 2 > MICRO or (rest * 2 == MICRO and scaled % 2))
    if raw < 0 or abs(quantity) > MOST:
        return Consumption(0, c.INVALID, actual, estimated, True)
    return Consumption(quantity, min(pair), actual, estimated, False)


@dataclass(frozen=True, slots=True)
class Day:
    """Scalar consumption of a local day, in the ``version`` to be told; ``origin`` is a row of the block that caused it.

    Versions are those of VEE, so that they rise from one account of a register to the next. ``replaces``: the version told before, 0: none,
    or not known any more.
    """

    origin: int
    day: int
    quantity: int
    condition: int
    actual: int
    estimated: int
    state: int
    version: int
    replaces: int


@dataclass(slots=True)
class Reads:
    """Register reads of a block, flat: state row, block row, time, value, condition, VEE's version; sorted by state
    row and time, no time twice."""

    row: Array
    origin: Array
    at: Array
    value: Array
    condition: Array
    version: Array

    def take(self, which: Array) -> Reads:
        """The given reads."""
        return Reads(*(getattr(self, name)[which] for name in self.__slots__))


class Registers:
    """Register readings of one partition."""

    def __init__(self, settings: DeterminantsSettings, state: State, judge: Judge, schedules: Schedules) -> None:
        self._settings, self._state, self._judge, self._schedules = settings, state, judge, schedules
        self._now = 0
        self._next: int | None = None
        self._cycle: dict[int, int] = {}
        self._known: dict[tuple[str, int, int], tuple[int, int]] = {}  # bounds of periods

    @property
    def table(self) -> Table:
        """The state."""
        return self._state.table(TABLE)

    # --- folding reads in --------------------------------------------------------------------------------------------------

    def fold(self, block: FinalBlock, now: int, result: Result) -> list[Day]:
        """Adds register rows to the state. Returns the days that say something new. ``now`` is the time of the newest tick."""
        table, self._now = self.table, now
        rows = table.add(keys_of(block))
        table["touched"][rows] = now
        for name, column in (("service_point", block.service_point), ("zone", block.zone)):
            texts = table.text[name]
            for row, value in zip(rows.tolist(), column.to_pylist(), strict=True):
                texts[row] = value
        table["dials"][rows] = block.dials
        table.mark(rows)
        reads = _read(block, rows)
        back = np.flatnonzero(reads.condition == c.NOT_RECEIVED)
        if back.size:
            self._take_back(reads.take(back))
        told: list[Day] = []
        reads = reads.take(np.flatnonzero(reads.condition != c.NOT_RECEIVED))
        self._doubt(block, reads)
        day = np.zeros(len(reads.at), np.int64)
        zones = block.zone.dictionary_encode()
        of_zone = numbers(zones.indices)[reads.origin]
        for number, zone in enumerate(zones.dictionary.to_pylist()):
            here = of_zone == number
            day[here] = calendar.day_of(zone, reads.at[here] - 1)
        cycle = np.array([self._cycle_of(row) for row in rows.tolist()], np.int64)[reads.origin]
        month = self._schedules.period_of(day, cycle)
        for some in _bands(month, PERIODS):
            late = self._place("p", PERIODS, month[some], reads.take(some), block, result)
            if late:
                result.count("late", late)
        for some in _bands(day, DAYS):
            here = reads.take(some)
            self._place("d", DAYS, day[some], here, block, result)
            told += self._tell(here, day[some], block.service_point)
        self._next = None
        return told

    def _take_back(self, reads: Reads) -> None:
        """Forgets readings that belong to another account now; VEE sends those again that are left, and then which days are concerned."""
        table = self.table
        for row, at in zip(reads.row.tolist(), reads.at.tolist(), strict=True):
            for prefix in ("p", "d"):
                for end in ("first", "last"):
                    place = np.flatnonzero(table[f"{prefix}_{end}_at"][row] == at)
                    for name in ("at", "value", "condition"):
                        table[f"{prefix}_{end}_{name}"][row, place] = 0
                if table[f"{prefix}_anchor_at"][row] == at:
                    for name in ("at", "value", "condition"):
                        table[f"{prefix}_anchor_{name}"][row] = 0
            table["doubts"][row][table["doubts"][row] == at] = 0
            known = table["p_number"][row] != NONE
            table["p_dirty"][row][known], table["p_left"][row][known] = 1, 1

    def _nothing(self, row: int, number: int, cause: tuple[int, int]) -> list[Day]:
        """A day of which nothing is left, if it was told."""
        table, place = self.table, number % DAYS
        before, digest = int(table["d_version"][row, place]), _digest(0)
        if not before or table["d_sent"][row, place] == digest:
            return []
        version = max(cause[1], before + 1)
        table["d_version"][row, place], table["d_sent"][row, place] = version, digest
        return [Day(cause[0], number, 0, c.NOT_RECEIVED, 0, 0, FINALIZED, version, before)]

    def _percent(self, day: int) -> int:
        return self._settings.rollover_on(_EPOCH + timedelta(days=day))

    def _cycle_of(self, row: int) -> int:
        if row not in self._cycle:
            self._cycle[row] = self._schedules.of(parts_of(self.table.keys[row])[0])
        return self._cycle[row]

    def _place(self, prefix: str, places: int, numbers: Array, reads: Reads, block: FinalBlock, result: Result) -> int:
        """Puts reads into periods or days, no two of which share a place; returns how many came for ones that are gone."""
        table = self.table
        code = reads.row * 2**20 + numbers + 2**16
        groups, first, inverse = np.unique(code, return_index=True, return_inverse=True)
        row, number = groups >> 20, (groups & 0xFFFFF) - 2**16
        place = number % places
        stored = table[f"{prefix}_number"][row, place]
        gone = stored > number
        self._evict(prefix, row, place, (stored < number) & (stored != NONE), result)
        live = ~gone
        table[f"{prefix}_number"][row[live], place[live]] = number[live]
        unusable = reads.condition < c.OUTAGE
        lasts = np.append(first[1:], len(code)) - 1
        for end, candidate in (("first", _nearest(~unusable, first, lasts)), ("last", _nearest(~unusable, lasts, first))):
            names = [f"{prefix}_{end}_{name}" for name in ("at", "value", "condition")]
            known = table[names[0]][row, place].astype(np.int64)
            spoiled = np.flatnonzero(unusable & live[inverse])
            spoiled = spoiled[reads.at[spoiled] == known[inverse[spoiled]]]  # the reading we go by has been withdrawn
            table[names[2]][row[inverse[spoiled]], place[inverse[spoiled]]] = c.INVALID // 100
            poor = table[names[2]][row, place] < c.OUTAGE // 100
            at = np.where(candidate >= 0, reads.at[candidate], 0)
            better = at <= known if end == "first" else at >= known
            take = np.flatnonzero(live & (candidate >= 0) & ((known == 0) | poor | better))
            chosen = candidate[take]
            for name, values in zip(names, (reads.at, reads.value, reads.condition // 100), strict=True):
                table[name][row[take], place[take]] = values[chosen]
            if end == "last":
                table[f"{prefix}_multiplier"][row[take], place[take]] = block.multiplier[reads.origin[chosen]]
            if end == "last" and gone.any():
                self._lean(prefix, row, np.flatnonzero(gone & (candidate >= 0)), reads, candidate)
        if prefix == "p":
            self._touch(row[live], number[live])
        return int(gone[inverse].sum())

    def _lean(self, prefix: str, row: Array, groups: Array, reads: Reads, candidate: Array) -> None:
        """Reads of periods or days that are gone, which are newer than all known before the kept ones."""
        for group in groups.tolist():
            r, read = int(row[group]), int(candidate[group])
            if int(reads.at[read]) >= int(self.table[f"{prefix}_anchor_at"][r]):
                for name, value in (("at", reads.at[read]), ("value", reads.value[read]), ("condition", reads.condition[read] // 100)):
                    self.table[f"{prefix}_anchor_{name}"][r] = value

    def _touch(self, row: Array, number: Array) -> None:
        """Periods with new reads, and those after them, may say something else now."""
        table = self.table
        touched = table["p_number"][row] >= number[:, None]
        r, place = np.nonzero(touched)
        table["p_dirty"][row[r], place] = 1

    def _evict(self, prefix: str, row: Array, place: Array, which: Array, result: Result) -> None:
        """Forgets periods or days whose places are needed; the newest reading of them becomes the anchor."""
        if not which.any():
            return
        table, row, place = self.table, row[which], place[which]
        if prefix == "p":
            waiting = table["p_dirty"][row, place] != 0
            self._send(row[waiting], place[waiting], result)
        order = np.argsort(table[f"{prefix}_last_at"][row, place], kind="stable")
        for r, p in zip(row[order].tolist(), place[order].tolist(), strict=True):
            reading = self._reading(f"{prefix}_last", r, p)
            if reading.usable and reading.at >= int(table[f"{prefix}_anchor_at"][r]):
                table[f"{prefix}_anchor_at"][r], table[f"{prefix}_anchor_value"][r] = reading.at, reading.value
                table[f"{prefix}_anchor_condition"][r] = reading.condition // 100
        for name, column in table.columns.items():
            if name.startswith(f"{prefix}_") and column.shape:
                table[name][row, place] = column.empty

    # --- doubt -------------------------------------------------------------------------------------------------------------

    def _doubt(self, block: FinalBlock, reads: Reads) -> None:
        """Notes readings that failed a check or went back unexplained, and clears those that came again and are well."""
        table = self.table
        bad = (block.state[reads.origin] == EXCEPTION) & (reads.condition <= c.SUSPECT)
        bad |= self._drops(reads)
        doubts = table["doubts"][np.unique(reads.row)].any()
        if not bad.any() and not doubts:
            return
        for row, at, wrong in zip(reads.row.tolist(), reads.at.tolist(), bad.tolist(), strict=True):
            noted = table["doubts"][row]
            if wrong and at not in noted:
                free = np.flatnonzero(noted == 0)
                if free.size:
                    noted[free[0]] = at
                else:
                    self._stick(row, int(noted.min()))
                    noted[noted.argmin()] = at
            elif not wrong and at in noted:
                noted[noted == at] = 0
        for row in np.unique(reads.row).tolist():
            table["p_dirty"][row][table["p_number"][row] != NONE] = 1

    def _stick(self, row: int, at: int) -> None:
        table = self.table
        zone = table.text["zone"][row]
        number = self._schedules.period_of(calendar.day_of(zone, at - 1), self._cycle_of(row))
        table["p_sticky"][row][table["p_number"][row] == number] = 1

    def _drops(self, reads: Reads) -> Array:
        """Which readings, newest of their register so far, are below the one before by more than a rollover explains."""
        table = self.table
        drop = np.zeros(len(reads.at), bool)
        usable = np.flatnonzero(reads.condition >= c.OUTAGE)
        if not usable.size:
            return drop
        row, at, value = reads.row[usable], reads.at[usable], reads.value[usable]
        good = table["d_last_condition"][row] >= c.OUTAGE // 100
        times = np.where(good, table["d_last_at"][row], 0)
        newest = times.argmax(axis=1)
        span = np.arange(len(row))
        known, before = times[span, newest].astype(np.int64), table["d_last_value"][row, newest]
        follows = np.append(False, row[1:] == row[:-1])
        before = np.where(follows & (np.append(0, at[:-1]) >= known), np.append(0, value[:-1]), before)
        has = (follows | (known > 0)) & (at > known)
        fell = np.flatnonzero(has & (value < before))
        for position in fell.tolist():
            base, end = (Reading(1, int(v[position]), c.REGULAR) for v in (before, value))
            dials = int(table["dials"][row[position]])
            day = int(calendar.day_of(table.text["zone"][row[position]], at[position] - 1))
            drop[usable[position]] = consumption(base, end, dials, MICRO, self._percent(day)).broken
        return drop

    def _doubtful(self, row: int, begin: int, end: int) -> bool:
        noted = self.table["doubts"][row]
        return bool(((noted >= begin) & (noted <= end) & (noted > 0)).any())

    # --- telling -----------------------------------------------------------------------------------------------------------

    def _reading(self, name: str, row: int, place: int | None = None) -> Reading:
        table, at = self.table, (row,) if place is None else (row, place)
        return Reading(int(table[f"{name}_at"][at]), int(table[f"{name}_value"][at]), int(table[f"{name}_condition"][at]) * 100)

    def _ends(self, prefix: str, row: int, place: int) -> tuple[Reading, Reading]:
        """Base and end of a period or day; the base is not usable where there is none."""
        numbers = self.table[f"{prefix}_number"][row]
        first, last = self._reading(f"{prefix}_first", row, place), self._reading(f"{prefix}_last", row, place)
        earlier = np.flatnonzero((numbers != NONE) & (numbers < numbers[place])).tolist()
        before = [self._reading(f"{prefix}_{end}", row, p) for p in earlier for end in ("first", "last")]
        before += [reading for reading in [self._reading(f"{prefix}_anchor", row)] if reading.at < first.at]
        return max((reading for reading in before if reading.usable), key=lambda reading: reading.at, default=first), last

    def _tell(self, reads: Reads, numbers: Array, points: pa.StringArray) -> list[Day]:
        """The days of new reads, as far as they say something new. VEE says which others begin where these end (RegisterDays)."""
        causes = zip(reads.origin.tolist(), reads.version.tolist(), strict=True)
        touched = {(row, n): cause for row, n, cause in zip(reads.row.tolist(), numbers.tolist(), causes, strict=True)}
        told = (self._day(row, number, cause, points[cause[0]].as_py()) for (row, number), cause in touched.items())
        return [day for day in told if day]

    def _day(self, row: int, number: int, cause: tuple[int, int], point: str) -> Day | None:
        table, place = self.table, number % DAYS
        if table["d_number"][row, place] != number:
            return None
        found = self._sum(row, number, *self._ends("d", row, place), int(table["d_multiplier"][row, place]))
        return self._say(row, number, cause, found, point) if found is not None else None

    def _sum(self, row: int, number: int, base: Reading, end: Reading, multiplier: int) -> Consumption | None:
        """Consumption of a local day; ``broken``: it is doubtful. None: there is none."""
        if not base.usable or not end.usable or base.at >= end.at:
            return None
        found = consumption(base, end, int(self.table["dials"][row]), multiplier, self._percent(number))
        return replace(found, broken=found.broken or self._doubtful(row, base.at, end.at))

    def _say(self, row: int, number: int, cause: tuple[int, int], found: Consumption, point: str) -> Day | None:
        """A day of the newest ones as it is told, if that is not what was told last."""
        table, place = self.table, number % DAYS
        digest = _digest(found.quantity, found.condition, found.actual, found.estimated, found.broken, point)
        before = int(table["d_version"][row, place])
        if before and table["d_sent"][row, place] == digest:
            return None
        version = max(cause[1], before + 1)
        table["d_version"][row, place], table["d_sent"][row, place] = version, digest
        return _as_day(cause[0], number, found, version, before)

    def rewritten(self, body: dict[str, Any]) -> list[tuple[Day, str]]:
        """Days of which readings changed behind newer ones (a RegisterDays record), as far as they say something new, and their service
        points. What was told of days that are not kept is known from the readings they had then, but not in which version."""
        table, zone = self.table, body["zone"]
        row = int(table.add([key_of(body["account"], body["device"], body["channel"], body["unit"])])[0])
        readings = [[one for one in body["readings"] if one["now"] == now] for now in (False, True)]
        told: list[tuple[Day, str]] = []
        for number in body["days"]:
            bounds = calendar.start_of(zone, np.array([number, number + 1])).tolist()
            (had, before), (has, point) = (self._sum_of(row, number, bounds, one) for one in readings)
            cause, place = (len(told), body["version"]), number % DAYS
            if table["d_number"][row, place] == number:
                day = self._say(row, number, cause, has, point) if has else next(iter(self._nothing(row, number, cause)), None)
                table.mark(np.array([row]))
            elif has is not None:
                same = (had, before) == (has, point) and not has.broken
                day = None if same else _as_day(cause[0], number, has, cause[1], 0)
            else:
                day = Day(cause[0], number, 0, c.NOT_RECEIVED, 0, 0, FINALIZED, cause[1], 0) if had else None
            if day is not None:
                told.append((day, point or before))
        return told

    def _sum_of(self, row: int, number: int, bounds: list[int], readings: list[dict[str, Any]]) -> tuple[Consumption | None, str]:
        """Consumption of a local day by these readings, and the service point of the last of them."""
        inside = [one for one in readings if bounds[0] < one["at"] <= bounds[1]]
        if not inside:
            return None, ""
        before = [one for one in readings if one["at"] <= bounds[0]]
        base, end = (Reading(one["at"], one["value"], one["condition"]) for one in ((before or inside[:1])[-1], inside[-1]))
        return self._sum(row, number, base, end, inside[-1]["multiplier"]), inside[-1]["service_point"]

    def tick(self, at: int, close: bool, result: Result) -> None:
        """Sends the determinants of changed periods that ended long enough ago; on ``close`` of all changed ones."""
        self._now = max(self._now, at)
        if not close and self._next is not None and at < self._next:
            return
        table = self.table
        rows, place = np.nonzero(table["p_dirty"][: len(table)])
        due = np.array([self._bounds(r, p)[1] for r, p in zip(rows.tolist(), place.tolist(), strict=True)], np.int64)
        due += self._settings.billing.delay
        last = table["p_number"][rows, place] == table["p_number"][rows].max(axis=1, initial=NONE)
        quiet = table["touched"][rows].astype(np.int64) + self._settings.billing.quiet
        due = np.where(last, np.maximum(due, quiet), due)
        ready = np.flatnonzero((due <= at) | close)
        upcoming = [int(due[due > at].min())] if (due > at).any() else []
        if not close and len(ready) > PER_TICK:
            ready, upcoming = ready[:PER_TICK], [at]
        self._send(rows[ready], place[ready], result)
        self._next = 2**62 if close else min(upcoming, default=2**62)

    def again(self, key: str, begin: int) -> None:
        """Looks at the period of a register that begins at a UTC second once more on the next tick; what is not known is left alone."""
        row = int(self.table.find([key])[0])
        if row < 0:
            return
        number = int(self._schedules.period_of(calendar.day_of(self.table.text["zone"][row], begin), self._cycle_of(row)))
        known = self.table["p_number"][row] == number
        self.table["p_dirty"][row][known] = 1
        self.table.mark(np.array([row]))
        self._next = None

    def _bounds(self, row: int, place: int) -> tuple[int, int]:
        table = self.table
        key = table.text["zone"][row], int(table["p_number"][row, place]), self._cycle_of(row)
        found = self._known.get(key)
        if found is None:
            begin, end = self._schedules.bounds(*key)
            found = self._known[key] = int(begin), int(end)
        return found

    def _send(self, rows: Array, places: Array, result: Result) -> None:
        """Sends periods for the first time, and again where they differ from what was sent last by so much that it matters."""
        table = self.table
        table["p_dirty"][rows, places] = 0
        if len(rows):
            table.mark(rows)
        for row, place in zip(rows.tolist(), places.tolist(), strict=True):
            reading, used = self._figures(row, place)
            if reading is None:
                continue
            figures = [f for f in (reading, used) if f]
            digest = _digest(*(x for f in figures for x in (f.condition, f.slots, f.held)))
            version, since = int(table["p_version"][row, place]), int(table["p_since"][row, place])
            subject = Subject.of(table.keys[row], table.text["service_point"][row], *self._bounds(row, place))
            reason = ""
            if version:
                quality = bool(table["p_sent"][row, place] != digest)
                amounts = [int(table[name][row, place]) for name in ("p_reading", "p_used")][: len(figures)]
                versions = [version, version - since + 1 if since else 0][: len(figures)]
                sent = Sent(amounts, versions, int(table["p_opened"][row, place]), quality)
                if not self._judge.is_sent(table.text["zone"][row], subject, figures, sent, self._now, result.outputs):
                    continue
                reason = "late or corrected reads"
            else:
                table["p_opened"][row, place] = self._now
            version += 1
            table["p_version"][row, place], table["p_sent"][row, place] = version, digest
            table["p_reading"][row, place], table["p_used"][row, place] = reading.quantity, used.quantity if used else 0
            result.outputs.append(determinant(subject, reading, version, reason))
            if used:
                table["p_since"][row, place] = since = since or version
                result.outputs.append(determinant(subject, used, version - since + 1, reason))

    def _figures(self, row: int, place: int) -> tuple[Figure | None, Figure | None]:
        """Reading and consumption of a period; a consumption that was told once is always told."""
        table = self.table
        base, end = self._ends("p", row, place)
        nothing = Figure("scalar-consumption", "", 0, c.NOT_RECEIVED, 0, 0, 0, False) if table["p_since"][row, place] else None
        if not end.at:
            none = Figure("scalar-reading", "", 0, c.NOT_RECEIVED, 0, 0, 0, False) if table["p_version"][row, place] else None
            return none, nothing
        beyond = abs(end.value) > MOST
        held = not end.usable or beyond or self._doubtful(row, end.at, end.at)
        shown, condition = (0, c.INVALID) if beyond or not end.usable else (end.value, end.condition)
        known = end.condition >= c.REGULAR, _ESTIMATE <= end.condition < c.SUSPECT
        reading = Figure("scalar-reading", "", shown, condition, 1, int(known[0]), int(known[1]), held)
        if not end.usable or not base.usable or base.at >= end.at:
            if end.usable and table["p_left"][row, place]:
                return reading, nothing
            nothing = Figure("scalar-consumption", "", 0, c.MISSING if end.usable else c.INVALID, 2, 0, 0, True)
            return reading, nothing if table["p_since"][row, place] or not end.usable else None
        first = int(self._schedules.first_day(table["p_number"][row, place], self._cycle_of(row)))
        found = consumption(base, end, int(table["dials"][row]), int(table["p_multiplier"][row, place]), self._percent(first))
        doubtful = found.broken or self._doubtful(row, base.at, end.at) or bool(table["p_sticky"][row, place])
        condition = min(found.condition, c.SUSPECT) if doubtful else found.condition
        return reading, Figure("scalar-consumption", "", found.quantity, condition, 2, found.actual, found.estimated, doubtful)


def _as_day(origin: int, number: int, found: Consumption, version: int, replaces: int) -> Day:
    condition = min(found.condition, c.SUSPECT) if found.broken else found.condition
    state = EXCEPTION if found.broken else FINALIZED
    return Day(origin, number, found.quantity, condition, found.actual, found.estimated, state, version, replaces)


def _digest(*parts: int | str) -> int:
    data = ",".join(part if isinstance(part, str) else str(int(part)) for part in parts).encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little", signed=True)


def _bands(numbers: Array, places: int) -> list[Array]:
    """Positions of numbers in ascending bands inside which no two different numbers share a place."""
    return [np.flatnonzero(numbers // places == band) for band in np.unique(numbers // places).tolist()]


def _nearest(usable: Array, begin: Array, end: Array) -> Array:
    """Per group of neighbouring reads the usable one nearest to ``begin`` on the way to ``end``; -1: none."""
    found = np.where(usable[begin], begin, -1)
    for group in np.flatnonzero(found < 0).tolist():
        a, b = int(begin[group]), int(end[group])
        inside = np.flatnonzero(usable[min(a, b) : max(a, b) + 1])
        if inside.size:
            found[group] = min(a, b) + int(inside[0] if a <= b else inside[-1])
    return found


def _read(block: FinalBlock, rows: Array) -> Reads:
    """The reads of a block, sorted; of several of one time the last in the block counts. Condition 0: the account has it no more."""
    origin = np.repeat(np.arange(len(block)), block.reads)
    at, condition = block.times, block.conditions.astype(np.int64)
    order = np.lexsort((np.arange(len(at)), at, rows[origin]))
    order = order[at[order] > 0]
    row, times = rows[origin[order]], at[order]
    last = np.append((row[1:] != row[:-1]) | (times[1:] != times[:-1]), True)[: len(order)]
    order = order[last]
    return Reads(rows[origin[order]], origin[order], at[order], block.values[order], condition[order], block.version[origin[order]])
