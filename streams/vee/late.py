"""Reads for days that have left the state: they wait until the store has given the days back, with the neighbours that matter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from schemas import conditions
from schemas.block import FinalBlock, ReadBlock, starts_of, strings
from schemas.identity import identity
from streams.calendar import day_of
from streams.runtime.state import Table
from streams.vee.admission import Admission, Admitted, Part, convert, factor
from streams.vee.batch import Array, Ints, Mask
from streams.vee.channels import Channels, key_of, names_of
from streams.vee.days import Days, Stored, code_of
from streams.vee.merging import STEP
from streams.vee.older import DAY, Older, Window, windows_of
from streams.vee.orders import Order
from streams.vee.parking import Given, Late, Parking, given_of
from streams.vee.registers import NAME, Registers
from streams.vee.rejudging import Judged, Span
from streams.vee.ring import NEVER, Rings
from streams.vee.spans import Segments
from streams.vee.uninstalled import TakenOut

_EMPTY = conditions.OUTAGE // STEP


@dataclass(slots=True)
class _Plan:
    """What one channel needs: days to decide anew, and days only to be looked at."""

    decide: set[int] = field(default_factory=set)
    needed: set[int] = field(default_factory=set)  # of the store
    context: set[int] = field(default_factory=set)  # days that those to decide lean on, wherever they are
    low: int = NEVER  # first start and last end of the reads that wait
    high: int = -NEVER
    stretches: set[int] = field(default_factory=set)  # of these, days between the same register readings


class LateReads:
    """Keeps late reads of one partition until they can be folded in."""

    def __init__(self, channels: Channels, rings: Rings, days: Days, parking: Parking, admission: Admission, registers: Registers) -> None:
        self.channels, self.rings, self.days, self.parking, self.admission = channels, rings, days, parking, admission
        self.registers = registers
        self._older: dict[str, Older] = {}
        days.context.anchors.at_hand = lambda: bool(parking.windowed)
        days.context.anchors.older = self.older

    def hold(self, seconds: int, block: ReadBlock, segments: Segments, number: Callable[[], int]) -> list[int]:
        """Keeps segments until their days are back; returns their channels."""
        owners = self.rings.table(seconds)["channel"][segments.row]
        channels: list[int] = np.unique(owners).tolist()
        for channel in channels:
            own = segments.take(np.flatnonzero(owners == channel))
            part = self.rows(seconds, channel, block, own)
            self.parking.hold(seconds, self.channels.table.keys[channel], part, number())
        return channels

    def rows(self, seconds: int, channel: int, block: ReadBlock, segments: Segments) -> ReadBlock:
        """Segments of one channel as rows of a block of their own."""
        cells = np.concatenate([np.arange(a, a + n) for a, n in zip(segments.source.tolist(), segments.size.tolist(), strict=True)])
        return self._block(
            block.id, block.payload, block.source, block.received_at, seconds, channel, segments.time, segments.size,
            segments.values[cells], segments.codes[cells],
        )  # fmt: skip

    def taken(self, seconds: int, out: TakenOut) -> ReadBlock:
        """What was taken out of a day, as a block of its own."""
        id_ = identity("uninstalled", self.channels.table.keys[out.channel], seconds, int(out.start[0]))
        return self._block(id_, "", "", 0, seconds, out.channel, out.start, out.size, out.values, out.codes)

    def taken_readings(self, channel: int, at: Ints, values: Ints, codes: Array) -> ReadBlock:
        """Readings that were taken out of a register, as a block of their own."""
        one, size = np.zeros(1, np.int64), np.array([len(at)], np.int64)
        block = self._block(
            identity("uninstalled", self.channels.table.keys[channel], 0, int(at[0])), "", "", 0, 0, channel, at[:1], size, values, codes
        )
        return replace(block, seconds=one.astype(np.int32), reads=size.astype(np.int32), times=at)

    def _block(
        self, id_: str, payload: str, source: str, received_at: int, seconds: int, channel: int, start: Ints, size: Ints,
        values: Ints, codes: Array,
    ) -> ReadBlock:  # fmt: skip
        table, rows = self.channels.table, len(start)
        device, name = names_of(table.keys[channel])
        return ReadBlock(
            id=id_, payload=payload, source=source, format="", received_at=received_at, device=strings([device] * rows),
            channel=strings([name] * rows), unit=strings([table.text["unit"][channel]] * rows),
            direction=np.full(rows, table["direction"][channel], np.int8), start=start, seconds=np.full(rows, seconds, np.int32),
            count=size.astype(np.int32), reads=np.zeros(rows, np.int32), multiplier=np.zeros(rows, np.int64), values=values,
            conditions=codes.astype(np.int32) * STEP, times=np.zeros(0, np.int64),
        )  # fmt: skip

    def answer(self, block: FinalBlock) -> set[tuple[int, int]]:
        """Takes days in that the store gave back (``count`` 0: it has none); returns who has all they asked for."""
        index, parking = self.channels.table.index, self.parking
        who = self._windows(block) if (block.seconds == 0).any() else set()
        owners = zip(block.device.to_pylist(), block.channel.to_pylist(), block.seconds.tolist(), given_of(block), strict=True)
        for device, channel, seconds, given in owners:
            key = key_of(device, channel)
            if not seconds or key not in index or not parking.answer(seconds, key, given):
                continue
            late = parking.late(seconds, key)
            if late.asked == late.answered:
                who.add((seconds, index[key]))
        return who

    def _windows(self, block: FinalBlock) -> set[tuple[int, int]]:
        """Takes windows of registers in; returns these registers, and the channels they check that wait."""
        who: set[tuple[int, int]] = set()
        index, parking = self.channels.table.index, self.parking
        for (device, name), window in windows_of(block):
            key = key_of(device, name)
            if key not in index or not parking.answer(0, key, window):
                continue
            self._older.pop(key, None)
            late = parking.late(0, key)
            if late.asked == late.answered:
                who |= {(0, index[key]), *self._checked(index[key])}
        return who

    def _checked(self, register: int) -> list[tuple[int, int]]:
        """Interval length and channel of what waits and is compared with a register."""
        keys, lengths = self.channels.table.keys, self.rings.lengths()
        users = self.days.context.anchors.users(register)
        return [(length, user) for length in lengths for user in users if not self.parking.late(length, keys[user]).empty]

    def look(self, channels: list[int], seconds: int) -> tuple[dict[int, _Plan], list[tuple[int, int, int]]]:
        """Of channels with late reads: those that have all they need, and the (channel, length, day) the store must be asked for."""
        ready: dict[int, _Plan] = {}
        asked = []
        keys = self.channels.table.keys
        waiting = {channel: late for channel in channels if not (late := self.parking.late(seconds, keys[channel])).empty}
        plans = self._begun(seconds, waiting)
        for channel, late in waiting.items():
            plan = plans[channel]
            self._plan(plan, seconds, channel, late)
            missing = plan.needed - late.answered
            asked += [(channel, seconds, day) for day in sorted(missing) if self.parking.ask(seconds, keys[channel], day)]
            register, windows = self._lacking(plan, seconds, channel)
            asked += [(register, 0, day) for day in sorted(windows) if self.parking.ask(0, keys[register], day)]
            if not missing and not windows:
                ready[channel] = plan
        return ready, asked

    def _lacking(self, plan: _Plan, seconds: int, channel: int) -> tuple[int, set[int]]:
        """The check register of a channel, and the windows of it that its days are compared with and that are not at hand."""
        anchors = self.days.context.anchors
        row = int(self.rings.find(seconds, np.array([channel]))[0])
        found = set()
        for day in plan.decide:
            begin, end = self.days.start(seconds, row, day), self.days.start(seconds, row, day + 1)
            unknown = anchors.lacking(channel, begin, end - 1)
            if unknown is not None:
                found.add(unknown // DAY)
        return (anchors.register_of(channel) if found else -1), found

    # --- readings of registers ----------------------------------------------------------------------------------------------

    def older(self, key: str) -> Older | None:
        """What is at hand of a register's older readings."""
        if key not in self.parking.windowed:
            return None
        if key not in self._older:
            windows = self.parking.windows(key)
            if not windows:
                return None
            self._older[key] = self._older_of(key, windows)
        return self._older[key]

    def _older_of(self, key: str, windows: list[Window]) -> Older:
        table = self.registers.state.table(NAME)
        unit = self.channels.table.text["unit"][self.channels.table.index[key]]
        return Older.of(windows, unit, int(table["at"][table.index[key], 0]))

    def older_now(self, channel: int) -> Older:
        """The older readings of a register, to be merged with: nobody else sees this copy."""
        key = self.channels.table.keys[channel]
        return self._older_of(key, self.parking.windows(key))

    def hold_readings(self, block: ReadBlock, row: int, channel: int, old: Array, admitted: Admitted, number: int) -> None:
        """Keeps some readings of a row of a block until those around them are back."""
        self.parking.hold(0, self.channels.table.keys[channel], self.readings(block, row, channel, old, admitted), number)

    def readings(self, block: ReadBlock, row: int, channel: int, chosen: Array, admitted: Admitted) -> ReadBlock:
        """Some readings of a row of a block as a block of their own."""
        cells = np.flatnonzero(chosen)
        first, time = int(starts_of(block.count)[row]), int(starts_of(block.reads)[row])
        size = np.array([len(cells)], np.int32)
        return replace(
            block.take(np.array([row])), unit=strings([self.channels.table.text["unit"][channel]]), count=size, reads=size,
            start=block.times[time + cells[:1]], values=admitted.values[first + cells],
            conditions=admitted.codes[first + cells].astype(np.int32) * STEP, times=block.times[time + cells],
        )  # fmt: skip

    def look_readings(self, channels: list[int], spans: Callable[[int], list[Span]]) -> tuple[list[int], list[tuple[int, int]]]:
        """Of registers for which something waits: those that have all they need, and the (channel, UTC day) of windows to ask for.

        ``spans`` gives the time from which all readings are needed because master data changed.
        """
        ready, asked, keys = [], [], self.channels.table.keys
        for channel in channels:
            late = self.parking.late(0, keys[channel])
            if late.empty:
                continue
            windows = self._unknown(channel, late, spans(channel) if late.was else [])
            asked += [(channel, day) for day in sorted(windows) if self.parking.ask(0, keys[channel], day)]
            if not windows:
                ready.append(channel)
        return ready, asked

    def _unknown(self, channel: int, late: Late, spans: list[Span]) -> set[int]:
        """The next windows that are missing for what waits for a register."""
        table = self.registers.state.table(NAME)
        row = self.registers.row(channel)
        since, kept = int(table["since"][row]), int(table["at"][row, 0])
        older = self._older_of(table.keys[row], self.parking.windows(table.keys[row]))
        needed = [(at, at) for block in self.parking.rows_of(late) for at in block.times.tolist() if at < kept]
        needed += [(max(begin, since), min(end, kept) - 1) for begin, end in spans]
        for command in self.parking.orders_of(late):
            first = command["start"] if command["action"] == "edit" else max(command["start"], since)
            needed.append((first, max(first, min(command["end"], kept) - 1)))
        found = (older.gap(begin, end) for begin, end in needed if begin <= end and begin < kept)
        return {at // DAY for at in found if at is not None}

    def forget_readings(self) -> None:
        """Forgets windows of registers that nothing waits for."""
        for key in sorted(self.parking.windowed):
            channel, device = self.channels.table.index[key], names_of(key)[0]
            if self.parking.late(0, key).empty and not self._checked(channel) and not self.parking.previews({device}):
                self.drop_windows(key)

    def drop_windows(self, key: str) -> None:
        """Forgets the windows of a register: its readings have changed, or nobody needs them."""
        self.parking.forget_windows(key)
        self._older.pop(key, None)

    def _begun(self, seconds: int, waiting: dict[int, Late]) -> dict[int, _Plan]:
        """Plans that hold the days of the reads that wait, and from when to when these are."""
        plans = {channel: _Plan(set(late.again)) for channel, late in waiting.items()}
        segments, joined, owners = self._joined(seconds, waiting)
        if segments is None or joined is None:
            return plans
        ends = joined.start + joined.count.astype(np.int64) * seconds
        for channel, begin, end in zip(owners, joined.start.tolist(), ends.tolist(), strict=True):
            plan = plans[channel]
            plan.low, plan.high = min(plan.low, begin), max(plan.high, end)
        of_days = self.rings.table(seconds)["channel"][segments.row].tolist()
        for channel, day in zip(of_days, segments.day.tolist(), strict=True):
            plans[channel].decide.add(day)
        return plans

    def _joined(self, seconds: int, waiting: Mapping[int, Late]) -> tuple[Segments | None, ReadBlock | None, list[int]]:
        """All reads that wait for these channels, also as a block, and the channel of each of its rows."""
        blocks: list[ReadBlock] = []
        owners: list[int] = []
        for channel, late in waiting.items():
            for block in self.parking.rows_of(late):
                blocks.append(block)
                owners += [channel] * len(block)
        if not blocks:
            return None, None, owners
        joined = ReadBlock.join(blocks)
        part = Part(seconds, np.arange(len(joined)), np.array(owners, np.int64))
        return self.admission.segments(joined, part, self.admission.plain(joined), self.rings)[0], joined, owners

    def _plan(self, plan: _Plan, seconds: int, channel: int, late: Late) -> None:
        """The days concerned, their neighbours in the store, and the neighbours of those neighbours whose estimates may change."""
        table, key = self.rings.table(seconds), self.channels.table.keys[channel]
        row = int(self.rings.find(seconds, np.array([channel]))[0])
        first, last = int(table["stored_from"][row]), int(table["stored_through"][row])

        def in_store(days: set[int]) -> set[int]:
            return {day for day in days if first <= day <= last}

        for command in self.parking.orders_of(late):
            days = set(self.days_of(command, channel))
            plan.decide |= in_store(days)
            if command["action"] == "estimate":
                plan.context |= self.days.leant_on(command["method"], days)
        self._grow(plan, seconds, table, row, plan.decide)
        own = set(plan.decide)
        plan.needed = in_store({day + step for day in own for step in (-1, 0, 1)} | plan.context)
        for day in sorted((plan.needed & late.answered) - own):
            held = self.parking.answered(seconds, key, day)
            codes = _received(held)[1]
            if not len(codes):
                continue
            scaled = day in plan.stretches and bool((held.methods > 0).any() or (codes < _EMPTY).any())
            if scaled or (day + 1 in own and codes[-1] < _EMPTY) or (day - 1 in own and codes[0] < _EMPTY):
                plan.decide.add(day)
                self._grow(plan, seconds, table, row, {day})
                plan.needed |= in_store({near + step for near in plan.decide for step in (-1, 0, 1)} | plan.context)

    def _grow(self, plan: _Plan, seconds: int, table: Table, row: int, days: set[int]) -> None:
        """Adds what these days lean on, and the days that lean on the same."""
        context = self.days.context
        leaning, spans = context.gaps.leaning(seconds, table.keys[row]), context.spans(seconds, table, row, plan.low, plan.high)
        ring = {day for day in table["day"][row].tolist() if day >= 0}
        todo, seen = set(days), set()
        while todo:
            day = todo.pop()
            seen.add(day)
            plan.decide.add(day)
            more: set[int] = set()
            for first, last in spans:
                if first <= day <= last and last > first:
                    stretch = set(range(first, last + 1))
                    plan.context |= stretch
                    plan.stretches |= stretch
                    plan.decide.add(last)
                    more |= stretch & leaning.keys()
            if day in leaning:
                more |= {day - 1, day + 1} & leaning.keys()
            if leaning.get(day):
                plan.context |= set(context.like_days(day))
            if (plan.decide | plan.context) & ring:
                more |= ring & leaning.keys()
            todo |= more - seen

    def waits_for(self, seconds: int, segments: Segments) -> Mask:
        """Segments of days that lean on days or are compared with readings in the store: they are folded in when these are there."""
        gaps, table = self.days.context.gaps, self.rings.table(seconds)
        found = np.zeros(len(segments), np.bool_)
        old = segments.day <= table["newest"][segments.row] - self.days.settings.hot_days
        for k in np.flatnonzero(old & self.days.context.anchors.has(table["channel"][segments.row])).tolist():
            at = int(segments.time[k])
            channel = int(table["channel"][segments.row[k]])
            found[k] = self.days.context.anchors.lacking(channel, at, at + int(segments.size[k]) * seconds - 1) is not None
        if not gaps.any_leaning:
            return found
        keys = self.rings.table(seconds).keys
        for owner in np.unique(segments.row).tolist():
            leaning = gaps.leaning(seconds, keys[owner])
            if leaning:
                own = segments.row == owner
                found[own] = np.isin(segments.day[own], list(leaning))
        return found

    def days_of(self, command: dict[str, Any], channel: int) -> list[int]:
        """The local days of a channel that a command's span touches."""
        zone = self.channels.zones[int(self.channels.zone[channel])]
        first, last = (int(day_of(zone, at)) for at in (command["start"], command["end"] - 1))
        return list(range(first, last + 1))

    def orders(self, seconds: int, channels: list[int]) -> list[Order]:
        """The commands that wait for these channels."""
        found = []
        for channel in channels:
            row = int(self.rings.find(seconds, np.array([channel]))[0])
            for command in self.parking.orders_of(self.parking.late(seconds, self.channels.table.keys[channel])):
                days = np.array(self.days_of(command, channel), np.int64)
                found.append(Order(command, code_of(np.full(len(days), row), days)))
        return found

    def gather(self, seconds: int, plans: dict[int, _Plan]) -> tuple[Segments | None, dict[int, Stored], Ints, Ints]:
        """All late segments and stored days of channels that have what they need, ring days to look at, and days to be decided."""
        stored: dict[int, Stored] = {}
        look: list[int] = []
        informed: list[int] = []
        days, keys = self.rings.table(seconds)["day"], self.channels.table.keys
        for channel, plan in plans.items():
            row = int(self.rings.find(seconds, np.array([channel]))[0])
            ring = set(days[row].tolist())
            look += [int(code_of(row, day)) for day in sorted((plan.decide | plan.context) & ring) if day >= 0]
            informed += [int(code_of(row, day)) for day in sorted(plan.decide)]
            for day in sorted(plan.needed):
                held = self.parking.answered(seconds, keys[channel], day)
                if len(held.values):
                    stored[int(code_of(row, day))] = self._stored(held, channel, passive=day not in plan.decide)
        segments = self._joined(seconds, {channel: self.parking.late(seconds, keys[channel]) for channel in plans})[0]
        return segments, stored, np.array(look, np.int64), np.array(informed, np.int64)

    def to_tell(self, seconds: int, channels: list[int]) -> Ints:
        """Days of these channels that are to be told again, whether anything of them changed or not."""
        found = []
        for channel in channels:
            days = np.array(sorted(self.parking.late(seconds, self.channels.table.keys[channel]).tell), np.int64)
            found.append(code_of(np.full(len(days), int(self.rings.find(seconds, np.array([channel]))[0])), days))
        return np.concatenate([np.zeros(0, np.int64), *found])

    def was(self, seconds: int, channels: list[int]) -> list[dict[int, Judged]]:
        """As what stored days of these channels were judged: the first of each channel, then the second, and so on."""
        found: list[dict[int, Judged]] = []
        for channel in channels:
            for number, one in enumerate(self.parking.was_of(self.parking.late(seconds, self.channels.table.keys[channel]))):
                if number == len(found):
                    found.append({})
                found[number][channel] = one
        return found

    def _stored(self, given: Given, channel: int, *, passive: bool) -> Stored:
        """A day back from the store, what was received of it in the unit that the channel has now."""
        values, codes = _received(given)
        unit, old = self.channels.table.text["unit"][channel], given.unit
        was = None
        if old != unit:
            was, ratio = (values, codes), factor(old, unit)
            values, codes = (convert(values, ratio), codes) if ratio is not None else (values * 0, codes * 0)
        return Stored(values, codes, given.values, given.conditions, given.version, given.state, passive, was, given.owner)

    def home(self, seconds: int, channel: int, day: int) -> int:
        """The partition a stored day was published to: master data may have changed while it waits to be decided anew."""
        late, known = self.parking.late(seconds, self.channels.table.keys[channel]), self.channels
        if not late.was and known.names[channel] not in known.dated:
            return int(known.partition[channel])
        if not seconds:
            return known.partition_of((self.parking.first_was(late) or known.judged(channel)).owner(day * DAY), channel)
        row = int(self.rings.find(seconds, np.array([channel]))[0])
        at = self.days.start(seconds, row, day) + max(int(self.rings.table(seconds)["phase"][row]), 0)
        judged = self.parking.first_was(late) or known.judged(channel)
        return known.partition_of(judged.owner(at), channel)

    def taken_out(self, seconds: int, table: Table, row: int, channel: int) -> list[ReadBlock]:
        """Takes the held values of a channel out of its ring, as reads; the ring keeps its days, empty."""
        starts, sizes, values, codes = [], [], [], []
        first, phase = int(table["first"][row]), max(int(table["phase"][row]), 0)
        for pos in np.argsort(table["day"][row]).tolist():
            held = np.flatnonzero(table["conditions"][row, pos])
            if table["day"][row, pos] < 0 or not len(held):
                continue
            a, b = int(held[0]), int(held[-1]) + 1
            midnight = self.days.start(seconds, row, int(table["day"][row, pos]))
            starts.append(midnight + phase + a * seconds)
            sizes.append(b - a)
            values.append(table["values"][row, pos, a:b].copy())
            codes.append(table["conditions"][row, pos, a:b].copy())
        table["values"][row], table["conditions"][row] = 0, 0
        table["first"][row], table["last"][row], table["phase"][row] = NEVER, -NEVER, -1
        table.mark(np.array([row]))
        if not starts:
            return []
        id_ = identity("moved", self.channels.table.keys[channel], seconds, first)
        return [
            self._block(id_, "", "", 0, seconds, channel, np.array(starts), np.array(sizes), np.concatenate(values), np.concatenate(codes))
        ]


def _received(given: Given) -> tuple[Ints, Array]:
    """What had been received of a stored day: values and codes in hundredths, 0 where nothing came."""
    values, codes = (given.received, given.received_conditions) if len(given.received) else (given.values, given.conditions)
    hundredths = (codes // STEP).astype(np.uint16)
    hundredths[hundredths == conditions.MISSING // STEP] = 0
    return values, hundredths
