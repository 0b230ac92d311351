"""The VEE agent: initial measurements in; final measurements, exceptions and questions to the store out.

State of a partition: what channels there are (channels.py), the received values of their newest days (ring.py) or reads (registers.py),
and parked rows (parking.py). Everything published follows from it; docs/adr/0011 tells why it is kept this way.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Final

import numpy as np
import orjson

from schemas.block import FinalBlock, ReadBlock, starts_of
from schemas.identity import partition_of
from schemas.topology.usage import any_match
from schemas.topology.vee import VeeSettings
from schemas.units import resolve
from streams.calendar import day_of
from streams.runtime.audit import Chain
from streams.runtime.fold import Message, Output, Result
from streams.runtime.state import State, Table
from streams.vee import admission, history, orders, ring
from streams.vee import channels as channel_rows
from streams.vee import registers as register_rows
from streams.vee.admission import Admission, Admitted, Part, Refused
from streams.vee.batch import Ints
from streams.vee.channels import Channels, key_of, names_of
from streams.vee.clean import Clean
from streams.vee.days import SHIFT, Days, Decided, code_of
from streams.vee.emit import FINALS, Emitter
from streams.vee.flawed import outcome
from streams.vee.judging import Readings
from streams.vee.late import LateReads
from streams.vee.merging import Replacement
from streams.vee.older import Older
from streams.vee.parking import Parking
from streams.vee.preview import preview
from streams.vee.registers import Changed, Registers
from streams.vee.rejudging import Judged, Rejudging, Span
from streams.vee.rewritten import Owns
from streams.vee.ring import Rings
from streams.vee.service import Owner
from streams.vee.spans import Segments

_META: Final = "meta"
_TOU_EVENT: Final = "tou-event"  # tou-event/<id>: a critical-peak event as it was passed on
_META_FORM: Final = struct.Struct("<QqQB")  # version, now, sequence of parked rows, master data present
_NOTHING: Final = np.zeros(0, np.int64)


class VeeFold:
    """Folds ReadBlock, FinalBlock (a day back from the store), MasterChannel, MasterPresent and Tick messages of one partition.

    Writes ``reads.final`` (FinalBlock, RegisterDays, Recall, and what determinants must see in the same order: Tick, MasterChannel) and
    ``vee.exceptions``. Depends on nothing but its state and the message.
    """

    def __init__(self, settings: VeeSettings, partition: int, partitions: int) -> None:
        self.settings, self.partition, self.partitions = settings, partition, partitions
        self.state = State(self._make)
        self.channels = Channels(self.state, settings.zone or "UTC", partitions)
        self.chain = Chain(self.state, "vee", partition)
        self.rings = Rings(self.state)
        self.group = settings.rules_of("initial-load")
        self.days = Days(self.rings, self.channels, settings)
        self.registers = Registers(self.state, Replacement.of(self.group), self.channels, self.group)
        self.readings = Readings(self.state, self.channels, self.group)
        self.rejudging = Rejudging(settings)
        self.parking = Parking(self.state)
        self.admission = Admission(self.channels, settings)
        self.late = LateReads(self.channels, self.rings, self.days, self.parking, self.admission, self.registers)

    def _make(self, name: str) -> Table:
        if name == channel_rows.TABLE:
            return channel_rows.table()
        if name == register_rows.NAME:
            return register_rows.table()
        return history.table() if name[0] == "h" else ring.table(int(name[1:]), self.settings.hot_days)

    # --- the counters that are state too ----------------------------------------------------------------------------------------

    def _meta(self) -> list[int]:
        data = self.state.entries.get(_META)
        return list(_META_FORM.unpack(data)) if data else [0, 0, 0, 0]

    def _set_meta(self, **changes: int) -> None:
        names = ("version", "now", "sequence", "master")
        meta = [changes.get(name, old) for name, old in zip(names, self._meta(), strict=True)]
        self.state.put(_META, _META_FORM.pack(*meta))

    @property
    def now(self) -> int:
        """The time of the newest tick, 0 before the first."""
        return self._meta()[1]

    def _next(self, name: str) -> int:
        number = self._meta()[("version", "now", "sequence", "master").index(name)] + 1
        self._set_meta(**{name: number})
        return number

    # --- messages ---------------------------------------------------------------------------------------------------------------

    def apply(self, message: Message) -> Result:
        """Folds one message in."""
        self.channels.refresh()
        self.days.clock = self.now
        result = Result()
        emitter = Emitter.make(self.channels, message, self.group, result, self.chain)
        body = message.body
        if isinstance(body, ReadBlock):
            result.count("rows", len(body))
            result.count("reads", len(body.values))
            self._reads(body, emitter)
        elif isinstance(body, FinalBlock):
            self._pursue(self.late.answer(body), emitter)
            for entry in self.parking.previews(set(body.device.to_pylist())):
                self._preview(entry, emitter)
            self.parking.keep()
        elif message.type == "Tick":
            self._tick(body, emitter)
        elif message.type == "MasterChannel":
            self._master(body, emitter)
        elif message.type == "Label":  # for insights, which has the channel's finals where they go
            row = self.channels.table.index.get(key_of(body["device"], body["channel"]))
            partition = self.partition if row is None else int(self.channels.partition[row])
            result.outputs.append(Output(FINALS, message.type, body, message.key, partition))
        elif message.type == "DeviceEvent":
            self._event(body, emitter)
        elif message.type == "Command":
            self._command(body, emitter)
        elif message.type == "TouEvent":
            self._tou_event(body, emitter)
        elif message.type in ("UsageRequest", "UsedOnBill"):  # for determinants, behind the finals that came before
            result.outputs.append(Output(FINALS, message.type, body, message.key, self.partition))
        elif message.type == "MasterPresent":
            self._set_meta(master=1)
            result.outputs.append(Output(FINALS, message.type, body, message.key, self.partition))
        else:
            raise ValueError(f"VEE has no use for a {message.type}")
        self.late.forget_readings()
        emitter.recalls()
        return result

    def _reads(self, block: ReadBlock, emitter: Emitter) -> None:
        version = self._next("version")
        admitted = self.admission.admit(block, self.now, strict=self.settings.admit == "known" or bool(self._meta()[3]))
        for refused in admitted.refused:
            self._park(block, refused, emitter, version)
        changes: list[Changed] = []
        for part in admitted.registers:
            changes += self._readings(block, part, admitted, version, emitter)
        clock = max(self.now, block.received_at)
        for part in admitted.intervals:
            segments, off_grid = self.admission.segments(block, part, admitted, self.rings)
            for refused in off_grid:
                self._park(block, refused, emitter, version)
            segments = self._serviced(part.seconds, block, segments, emitter, version)
            waiting = self.days.waiting(part.seconds, segments) | self.late.waits_for(part.seconds, segments)
            if waiting.any():
                behind = segments.take(np.flatnonzero(waiting))
                channels = self.late.hold(part.seconds, block, behind, lambda: self._next("sequence"))
                segments = segments.take(np.flatnonzero(~waiting))
                self._fold(part.seconds, segments, clock, version, emitter)
                self._pursue({(part.seconds, channel) for channel in channels}, emitter)
            else:
                self._fold(part.seconds, segments, clock, version, emitter)
        for changed in changes:
            self._checked(changed, emitter)

    def _readings(self, block: ReadBlock, part: Part, admitted: Admitted, version: int, emitter: Emitter) -> list[Changed]:
        """Folds readings of registers in; those before the kept ones wait for their neighbours in the store."""
        part, rests = self._in_service(block, part, admitted, emitter, version)
        changes = []
        for rest, channel in rests:
            alone = Part(0, np.zeros(1, np.int64), np.array([channel]))
            changes += self._readings(rest, alone, self.admission.plain(rest), version, emitter)
        early = self.registers.early(block, part.rows, part.channels)
        now = ~np.isin(part.rows, [row for row, _, _ in early])
        if now.any():
            changes.append(self.registers.decide(block, part.rows[now], part.channels[now], admitted.values, admitted.codes, version))
        for row, channel, old in early:
            if not old.all():
                rest = self.late.readings(block, row, channel, ~old, admitted)
                told = self.admission.plain(rest)
                one = np.zeros(1, np.int64)
                changes.append(self.registers.decide(rest, one, np.array([channel]), told.values, told.codes, version))
            self.late.hold_readings(block, row, channel, old, admitted, self._next("sequence"))
        for changed in changes:
            self._tell_readings(changed, version, emitter)
        self._pursue({(0, channel) for _, channel, _ in early}, emitter)
        return changes

    def _tell_readings(
        self, changed: Changed, version: int, emitter: Emitter, older: Mapping[int, Older] | None = None,
        known: Mapping[tuple[int, int], int] | None = None, had: dict[int, tuple[int, int]] | None = None, before: Owns | None = None,
    ) -> None:  # fmt: skip
        """Publishes changed readings, and what days are made of that lie behind newer ones.

        ``had``: what was published of a register, ``before``: whose its readings were, where that is not what was held and now holds.
        """
        emitter.registers(changed, version, *self.readings.judge(changed, older, known))
        told = []
        for one in changed.rewritten:
            if had is not None:
                one.told_as(had)
            zone, owner = self.channels.zones[int(self.channels.zone[one.channel])], self.channels.judged(one.channel).owner
            days = one.days(zone, before or owner, owner, partial(self.channels.partition_of, row=one.channel))
            told += [(one.channel, day) for day in days]
        if told:
            after = self._next("version")
            emitter.register_days(told, after, after if before is None else version - 1)

    def _in_service(
        self, block: ReadBlock, part: Part, admitted: Admitted, emitter: Emitter, version: int
    ) -> tuple[Part, list[tuple[ReadBlock, int]]]:
        """Parks readings of time in which no meter was installed; returns the rows without any, and of the others what is left."""
        times, cells = starts_of(block.reads), starts_of(block.count)
        touched, rests = [], []
        for place in self.days.uninstalled.rows(block, part.rows, part.channels).tolist():
            row, channel = int(part.rows[place]), int(part.channels[place])
            at = block.times[int(times[row]) : int(times[row]) + int(block.reads[row])]
            out = self.days.uninstalled.readings(channel, at, admitted.codes[int(cells[row]) : int(cells[row]) + len(at)])
            if out.any():
                touched.append(place)
                self._uninstalled(self.late.readings(block, row, channel, out, admitted), channel, emitter, version)
                if not out.all():
                    rests.append((self.late.readings(block, row, channel, ~out, admitted), channel))
        stays = np.setdiff1d(np.arange(len(part.rows)), touched)
        return (Part(0, part.rows[stays], part.channels[stays]), rests) if touched else (part, [])

    def _pursue_readings(self, channels: list[int], emitter: Emitter) -> None:
        """Asks the store for what older readings of registers need, and decides those that have everything."""
        ready, asked = self.late.look_readings(channels, self._changed_spans)
        for channel, day in asked:
            emitter.recall(channel, 0, day, self.late.home(0, channel, day))
        for channel in ready:
            changes = self._older_readings(channel, emitter)
            again = [days for changed in changes for days in self._compared(channel, changed)]
            key = self.channels.table.keys[channel]
            self.parking.done(0, key)
            self.late.drop_windows(key)  # the store is asked anew, behind what was told now
            for seconds, days in again:
                self._again(seconds, days, emitter)

    def _changed_spans(self, channel: int) -> list[Span]:
        """Time in which readings of a register are to be told again for the master data that changed."""
        after = self.channels.judged(channel)
        noted = self.parking.was_of(self.parking.late(0, self.channels.table.keys[channel]))
        return [span for before in noted for span in self.rejudging.concerned_readings(before, after)]

    def _older_readings(self, channel: int, emitter: Emitter) -> list[Changed]:
        """Decides what waits for older readings of a register."""
        late, row = self.parking.late(0, self.channels.table.keys[channel]), self.registers.row(channel)
        older, changes = self.late.older_now(channel), []
        was = self.parking.first_was(late)
        if was is not None:
            spans, known = self._changed_spans(channel), self.readings.found_before({channel: older}, {channel: was})
            had = self.registers.finals(channel, older)
            version = self._after_leaving()
            out = self.days.uninstalled.readings(channel, older.at, older.code)
            out &= np.array([_within(at, spans) for at in older.at.tolist()], np.bool_)
            if out.any():
                taken = self.late.taken_readings(channel, older.at[out], older.value[out], older.code[out])
                self._uninstalled(taken, channel, emitter, version)
                older.take_out(out)
            inside = [(at, v) for at, v in zip(older.at.tolist(), older.version.tolist(), strict=True) if _within(at, spans)]
            gone = set(older.at.tolist())
            emitter.readings_leaving(channel, self._left(channel, was, self.channels.judged(channel), inside), version - 1)
            changed = self.registers.anew_older(channel, version, older, spans)
            after = self.channels.judged(channel)
            self._tell_readings(
                changed, version, emitter, {channel: older}, known, had, lambda at: (was if at in gone else after).owner(at)
            )
            changes.append(changed)
        for what in self.parking.waiting(late):
            if isinstance(what, ReadBlock):
                version, told = self._next("version"), self.admission.plain(what)
                all_ = Part(0, np.arange(len(what)), np.full(len(what), channel))
                part, rests = self._in_service(what, all_, told, emitter, version)
                pieces = [(what, part.rows)] if len(part.rows) else []
                for block, rows in (*pieces, *((rest, np.zeros(1, np.int64)) for rest, _ in rests)):
                    known, told = self.readings.found_before({channel: older}, {}), self.admission.plain(block)
                    owners = np.full(len(rows), channel)
                    changed = self.registers.decide(block, rows, owners, told.values, told.codes, version, {row: older})
                    self._tell_readings(changed, version, emitter, {channel: older}, known)
                    changes.append(changed)
            else:
                changes += self._carry_out(channel, what, emitter, older)
        return changes

    def _compared(self, channel: int, changed: Changed) -> Iterator[tuple[int, list[tuple[int, int]]]]:
        """Interval length and days of channels that a register checks, which end at changed readings or at those behind them."""
        anchors = self.days.context.anchors
        for user in anchors.users(channel):
            zone = self.channels.zones[int(self.channels.zone[user])]
            for seconds in self.rings.lengths():
                row = int(self.rings.find(seconds, np.array([user]))[0])
                if row < 0:
                    continue
                ends = [
                    *changed.times.tolist(),
                    *anchors.behind(user, int(self.rings.table(seconds)["first"][row]), seconds, changed.times),
                ]
                days = {int(day_of(zone, at - 1)) for at in ends}
                table = self.rings.table(seconds)
                known = {*self.days.in_store(seconds, user, sorted(days)), *(days & set(table["day"][row].tolist()))}
                yield seconds, [(user, day) for day in sorted(known)]

    def _checked(self, changed: Changed, emitter: Emitter) -> None:
        """Decides days again that lie between readings which are new: they are compared with the register, or brought to it."""
        context = self.days.context
        begins = np.cumsum(changed.count) - changed.count
        times: dict[int, tuple[int, int]] = {}  # interval channel → first and last time of a changed reading of its register
        for register, begin, count in zip(changed.channel.tolist(), begins.tolist(), changed.count.tolist(), strict=True):
            for user in context.anchors.users(register):
                times[user] = (int(changed.times[begin]), int(changed.times[begin + count - 1]))
        if not times:
            return
        for seconds in self.rings.lengths():
            channels = np.array(sorted(times), np.int64)
            channels = channels[self.rings.find(seconds, channels) >= 0]
            if len(channels):
                hot, cold = context.concerned(self.rings.table(seconds), self.rings.find(seconds, channels), seconds, times)
                if len(hot):
                    self._decide_again(seconds, hot, emitter, close=False)
                self._again(seconds, cold, emitter)

    def _fold(self, seconds: int, segments: Segments, clock: int, version: int, emitter: Emitter) -> None:
        for chosen in self.days.chunks(segments.row):
            if len(chosen):
                part = segments if len(chosen) == len(segments) else segments.take(chosen)
                until, part = self.days.gather(seconds, part, clock)
                if until:
                    emitter.result.figures["until"] = max(until, emitter.result.figures.get("until", 0))
                if not len(part):
                    continue
                overtaken = self.days.overtaken(seconds, part)
                if len(overtaken):
                    self._publish(seconds, overtaken, emitter)
                    version = self._next("version")  # what follows may change these days again
                clean, flawed, part = self.days.sift(seconds, part, clock, version)
                decided = self.days.decide(seconds, part, _NOTHING, {}, clock, version) if len(part) else None
                self._told(seconds, outcome(decided, flawed, self.channels, self.days.groups), version, emitter, clean)

    def _after_leaving(self) -> int:
        """A version behind one in which days leave their old owner."""
        self._next("version")
        return self._next("version")

    def _told(self, seconds: int, decided: Decided | None, version: int, emitter: Emitter, clean: Clean | None = None) -> None:
        """Publishes what was decided, and pursues what it leads to."""
        if decided is not None:
            emitter.leaving(decided, version - 1)
        emitter.days(decided, version, clean)
        if decided is not None:
            for out in decided.out:
                self._uninstalled(self.late.taken(seconds, out), out.channel, emitter, version)
            for register in decided.registers:
                changed = self.registers.anew(register, version, all_=False)
                self._tell_readings(changed, version, emitter)
            self._again(seconds, decided.again, emitter)

    def _again(self, seconds: int, days: list[tuple[int, int]], emitter: Emitter) -> None:
        for channel, day in days:
            self.parking.want_again(seconds, self.channels.table.keys[channel], day)
        self._pursue({(seconds, channel) for channel, _ in days}, emitter)

    def _pursue(self, who: set[tuple[int, int]], emitter: Emitter) -> None:
        """Asks the store for what late reads of these (interval length, channel) need, and folds in those that have everything."""
        for seconds in sorted({seconds for seconds, _ in who}):
            channels = [channel for length, channel in sorted(who) if length == seconds]
            if not seconds:
                self._pursue_readings(channels, emitter)
                continue
            ready, asked = self.late.look(channels, seconds)
            for channel, length, day in asked:
                emitter.recall(channel, length, day, self.late.home(length, channel, day))
            if ready:
                segments, stored, look, informed = self.late.gather(seconds, ready)
                version = self._next("version") if not self.days.changed_hands(seconds, stored) else self._after_leaving()
                commands = self.late.orders(seconds, list(ready))
                was = self.late.was(seconds, list(ready))
                tell = self.late.to_tell(seconds, list(ready))
                decided = self.days.decide(seconds, segments, _NOTHING, stored, self.now, version, look, informed, commands, was, tell=tell)
                for order in commands:
                    emitter.audit(order.body, self.now, order.refused, order.done, order.before, order.after)
                for channel in ready:
                    self.parking.done(seconds, self.channels.table.keys[channel])
                self._told(seconds, decided, version, emitter)

    # --- device events ----------------------------------------------------------------------------------------------------------

    def _event(self, body: dict[str, Any], emitter: Emitter) -> None:
        """Takes an event of a device in; days that an outage touches are decided anew, those in the store when they are back."""
        emitter.result.count("rows")
        for begin, end in self.days.outages.note(body["device"], body["kind"], body["at"]):
            for channel in self.channels.of_device(body["device"]):
                for seconds in self.rings.lengths():
                    if self.rings.find(seconds, np.array([channel]))[0] >= 0:
                        self._look_at(seconds, channel, emitter)
                        days = self.late.days_of({"start": begin, "end": end}, channel)
                        self._again(seconds, [(channel, day) for day in self.days.in_store(seconds, channel, days)], emitter)

    def _tou_event(self, body: dict[str, Any], emitter: Emitter) -> None:
        """Passes a critical-peak event on, and behind it tells days again that were told before they were known to be under it, or not.

        Each partition of determinants hears it from each of VEE, so that none gets such a day before the event.
        """
        for number in range(self.partitions):
            emitter.result.outputs.append(Output(FINALS, "TouEvent", body, body["id"].encode(), number))
        entry = f"{_TOU_EVENT}/{body['id']}"
        held = self.state.entries.get(entry)
        told = {name: body[name] for name in ("start", "end", "tou", "use", "maps", "accounts", "cancelled")}
        data = orjson.dumps(told, option=orjson.OPT_SORT_KEYS)
        if data == held:
            return
        self.state.put(entry, data)
        spans = [one for one in (orjson.loads(held) if held else None, told) if one is not None and one["start"] < self.now]
        for seconds in self.rings.lengths():
            self._tell_again(seconds, spans, emitter)

    def _tell_again(self, seconds: int, spans: list[dict[str, Any]], emitter: Emitter) -> None:
        """Tells days of channels of an interval length again as they are: those in the ring now, those in the store when they are back."""
        table = self.rings.table(seconds)
        hot: list[int] = []
        stored = set[int]()
        for row, channel in enumerate(table["channel"][: len(table)].tolist()):
            days = {day for one in spans if self._concerns(one, channel) for day in self.late.days_of(one, channel)}
            if days:
                key = self.channels.table.keys[channel]
                hot += [int(code_of(row, day)) for day in sorted(days & set(table["day"][row].tolist()))]
                for day in self.days.in_store(seconds, channel, sorted(days)):
                    self.parking.want_again(seconds, key, day, tell=True)
                    stored.add(channel)
        if hot:
            self._decide_again(seconds, np.array(hot, np.int64), emitter, close=False, tell=True)
        self._pursue({(seconds, channel) for channel in stored}, emitter)

    def _concerns(self, event: dict[str, Any], channel: int) -> bool:
        """Whether a critical-peak event is for the account of a channel."""
        return not event["accounts"] or any_match(event["accounts"], self.channels.judged(channel).owner(event["start"]).account)

    # --- commands ---------------------------------------------------------------------------------------------------------------

    def _command(self, body: dict[str, Any], emitter: Emitter) -> None:
        """Carries a command out, or refuses it; one on days in the store waits for them."""
        if body.get("dry_run"):
            self._preview(self.parking.look(body, self._next("sequence")), emitter)
            return
        channel = self.channels.table.index.get(key_of(body["device"], body["channel"]), -1)
        lengths = self._lengths(channel) if channel >= 0 else []
        if body["seconds"] is not None:
            lengths = [length for length in lengths if length == body["seconds"]]
        refused = orders.flaw(body)
        if not refused and channel < 0:
            refused = "no channel of this name is known"
        elif not refused and len(lengths) != 1:
            refused = "it has intervals of several lengths: say which" if lengths else "nothing has been received of this channel"
        if refused:
            emitter.audit(body, self.now, refused)
        elif lengths[0]:
            self._order(lengths[0], channel, body, emitter)
        else:
            self._register_command(channel, body, emitter)

    def _preview(self, entry: str, emitter: Emitter) -> None:
        """Tells what a command would change, or asks the store for what is missing to tell."""
        body = self.parking.previewed(entry)
        found = preview(self, body, emitter.message, self.parking.at_hand)
        for key, seconds, day in found.missing:
            if self.parking.ask(seconds, key, day):
                channel = self.channels.table.index[key]
                emitter.recall(channel, seconds, day, self.late.home(seconds, channel, day))
        if found.audit is not None:
            self.parking.seen(entry, [self.channels.table.keys[channel] for channel in self.channels.of_device(body["device"])])
            emitter.audited(found.audit)

    def _lengths(self, channel: int) -> list[int]:
        """Interval lengths a channel has, 0 for registers."""
        found = [0] if self.channels.table.keys[channel] in self.state.table(register_rows.NAME).index else []
        return found + [s for s in self.rings.lengths() if self.rings.find(s, np.array([channel]))[0] >= 0]

    def _order(self, seconds: int, channel: int, body: dict[str, Any], emitter: Emitter) -> None:
        row = self.rings.find(seconds, np.array([channel]))
        days = self.late.days_of(body, channel)
        if days[0] < 0 or days[-1] > int(self.rings.table(seconds)["newest"][row][0]):
            emitter.audit(body, self.now, "nothing has been received of these days")
            return
        self.parking.order(seconds, self.channels.table.keys[channel], body, self._next("sequence"))
        self._pursue({(seconds, channel)}, emitter)

    def _register_command(self, channel: int, body: dict[str, Any], emitter: Emitter) -> None:
        """Edits or discards readings of a register; nothing else can be ordered of them. Older ones come back from the store first."""
        if self.registers.gone(self.registers.row(channel), body["start"]):
            self.parking.order(0, self.channels.table.keys[channel], body, self._next("sequence"))
            self._pursue({(0, channel)}, emitter)
            return
        for changed in self._carry_out(channel, body, emitter):
            self._checked(changed, emitter)

    def _carry_out(self, channel: int, body: dict[str, Any], emitter: Emitter, older: Older | None = None) -> list[Changed]:
        known = self.readings.found_before({channel: older}, {}) if older is not None else {}
        had = self.registers.finals(channel, older)
        asked = self.registers.ordered(channel, body, older)
        if asked.refused:
            emitter.audit(body, self.now, asked.refused, before=asked.before)
            return []
        version, rows = self._next("version"), np.zeros(1, np.int64)
        block = asked.block(emitter.message, self.channels.names[channel], self.channels.table.text["unit"][channel])
        admitted = self.admission.plain(block)
        back = {} if older is None else {self.registers.row(channel): older}
        changed = self.registers.decide(block, rows, np.array([channel]), admitted.values, admitted.codes, version, back)
        self._tell_readings(changed, version, emitter, {channel: older} if older is not None else None, known, had)
        emitter.audit(body, self.now, "", asked.done, asked.before, self.registers.summary(channel, body, older))
        return [changed]

    # --- parking ----------------------------------------------------------------------------------------------------------------

    def _park(self, block: ReadBlock, refused: Refused, emitter: Emitter, version: int) -> None:
        """Parks the refused rows channel by channel, one exception each."""
        owners: dict[tuple[str, str], list[int]] = {}
        for row in refused.rows.tolist():
            owners.setdefault((block.device[row].as_py(), block.channel[row].as_py()), []).append(row)
        for (device, channel), rows in owners.items():
            part = block.take(np.array(rows))
            key = key_of(device, channel)
            start, end = admission.span_of(part)
            until = end - self.settings.future_tolerance if refused.rule == "future-read" else 0
            count = self.parking.park(key, part, refused.rule, self._next("sequence"), max(until, 0))
            emitter.result.count("parked", len(rows))
            detail = f"{refused.says(rows[0])}; {count} {'delivery waits' if count == 1 else 'deliveries wait'}"
            point = self._point(key)
            emitter.write(refused.rule, "terminate", device, channel, point, start, end, count, detail, version, "")

    def _serviced(self, seconds: int, block: ReadBlock, segments: Segments, emitter: Emitter, version: int) -> Segments:
        """Parks what of segments lies in time in which no meter was installed; returns the rest."""
        owners = self.rings.table(seconds)["channel"][segments.row].astype(np.int64)
        kept, waits = self.days.uninstalled.split(segments, owners, seconds)
        if len(waits):
            owners = self.rings.table(seconds)["channel"][waits.row]
            for channel in np.unique(owners).tolist():
                own = waits.take(np.flatnonzero(owners == channel))
                self._uninstalled(self.late.rows(seconds, channel, block, own), channel, emitter, version)
        return kept

    def _uninstalled(self, part: ReadBlock, channel: int, emitter: Emitter, version: int) -> None:
        """Parks rows of one channel because no meter was installed then."""
        key, rule, (device, name) = self.channels.table.keys[channel], "inactive-measurement", self.channels.names[channel]
        start, end = admission.span_of(part)
        count = self.parking.park(key, part, rule, self._next("sequence"))
        emitter.result.count("parked", len(part))
        detail = f"reads of a time in which no meter was installed; {count} {'delivery waits' if count == 1 else 'deliveries wait'}"
        emitter.write(rule, "terminate", device, name, self._point(key), start, end, count, detail, version, "")

    def _point(self, key: str) -> str:
        table = self.channels.table
        return table.text["service_point"][table.index[key]] if key in table.index else ""

    def _released(self, key: str, parts: list[tuple[str, ReadBlock]], emitter: Emitter) -> None:
        """Folds rows in that were parked, and takes back the exceptions of those that are parked no more."""
        for _, part in parts:
            self._reads(part, emitter)
        device, channel = names_of(key)
        for reason in dict.fromkeys(reason for reason, _ in parts):
            if not self.parking.holds(key, reason):
                spans = [admission.span_of(part) for other, part in parts if other == reason]
                start, end = min(s for s, _ in spans), max(e for _, e in spans)
                version = self._meta()[0]
                emitter.write(
                    reason, "terminate", device, channel, self._point(key), start, end, 0, "released", version, "", "superseded"
                )  # fmt: skip

    # --- time -------------------------------------------------------------------------------------------------------------------

    def _tick(self, body: dict[str, Any], emitter: Emitter) -> None:
        now = max(self.now, body["at"])
        if now != self.now:
            self._set_meta(now=now)
        self.days.clock = now
        for key, parts in self.parking.release_until(now):
            self._released(key, parts, emitter)
        close = bool(body.get("close"))
        for seconds in self.rings.lengths():
            self._publish(seconds, self.days.ripe(seconds, close=close), emitter)  # some are whole: these are not to be closed
            absent = self.days.absent(seconds, now, close=close)
            if len(absent):  # where answers of the store are awaited, days may be about to come
                keys = self.rings.table(seconds).keys
                absent = absent[[self.parking.late(seconds, keys[row]).empty for row in (absent >> SHIFT).tolist()]]
            codes = np.union1d(self.days.due(seconds, now, close=close), absent)
            if len(codes):
                self._decide_again(seconds, codes, emitter, close=True)
            if len(absent):
                self._again(seconds, self.days.declared(seconds, absent), emitter)
        self._siblings(now, emitter, close=close)
        # To every partition: what this one wrote went to any of them, and a reader may act on a time only when all have reached it
        emitter.result.outputs.extend(Output(FINALS, "Tick", body, partition=number) for number in range(self.partitions))

    def _decide_again(
        self, seconds: int, codes: Ints, emitter: Emitter, *, close: bool, owners: Mapping[int, Judged] | None = None, tell: bool = False
    ) -> None:
        version = self._after_leaving() if owners else self._next("version")
        for chosen in self.days.chunks(codes >> SHIFT):
            part = codes[chosen]
            decided = self.days.decide(
                seconds, None, part if close else _NOTHING, {}, 0, version, look=part, owners=owners, tell=part if tell else _NOTHING
            )  # fmt: skip
            self._told(seconds, decided, version, emitter)

    def _publish(self, seconds: int, codes: Ints, emitter: Emitter) -> None:
        """Decides days that have waited for it."""
        if not len(codes):
            return
        version = self._next("version")
        for chosen in self.days.chunks(codes >> SHIFT):
            clean, flawed, part = self.days.sift_held(seconds, codes[chosen], version)
            decided = self.days.decide(seconds, None, _NOTHING, {}, 0, version, look=part) if len(part) else None
            self._told(seconds, outcome(decided, flawed, self.channels, self.days.groups), version, emitter, clean)

    def _siblings(self, now: int, emitter: Emitter, *, close: bool) -> None:
        """Tells of days that only some channels of a device have reads for."""
        siblings = self.days.siblings
        told = [missed for seconds in self.rings.lengths() for missed in siblings.judge(seconds, now, close=close)]
        if not told or siblings.rule is None:
            return
        version = self._next("version")
        for one in told:
            said = f"no reads for this day of {', '.join(one.names)} of the same device" if one.names else "no longer found"
            emitter.exception(
                "sibling-imd", siblings.rule.severity, one.channel, one.start, one.end, len(one.names), said, version, one.start,
                "open" if one.names else "superseded",
            )  # fmt: skip

    # --- master data --------------------------------------------------------------------------------------------------------------

    def _master(self, body: dict[str, Any], emitter: Emitter) -> None:
        key = key_of(body["device"], body["channel"])
        table = self.channels.table
        known = table.index.get(key, -1)
        routes = self.channels.routes(known) if known >= 0 else []
        before = self.channels.judged(known) if known >= 0 else None
        row = self.channels.set_master(body)
        self.days.context.anchors.changed(row)
        self._set_unit(row, body.get("unit"))
        if self.days.siblings.rule is not None and body.get("seconds"):
            self.rings.rows(body["seconds"], np.array([row]))  # so that it is missed before its first read
        passed_on = before if before is not None and self.rejudging.passed_on(before, self.channels.judged(row)) else None
        if passed_on is not None:  # while days are still those of the zone they were published in
            for seconds in self.rings.lengths():
                self._look_at(seconds, row, emitter, passed_on)
        moved = self._set_zone(row, body.get("zone"))
        for block in moved:
            self._reads(block, emitter)
        if passed_on is None or moved:
            for seconds in self.rings.lengths():
                self._look_at(seconds, row, emitter)
        if before is not None:
            self._rejudge(row, before, emitter)
        self._released(key, self.parking.release(key), emitter)
        partitions = dict.fromkeys(partition_of(route, self.partitions) for route in [*routes, *self.channels.routes(row)])
        for partition in partitions:
            emitter.result.outputs.append(Output(FINALS, "MasterChannel", body, body["device"].encode(), partition))

    def _rejudge(self, channel: int, before: Judged, emitter: Emitter) -> None:
        """Decides what is in the store anew where it was decided under other master data, and the readings of a register."""
        key, after = self.channels.table.keys[channel], self.channels.judged(channel)
        spans = self.rejudging.concerned(before, after)
        for seconds in self.rings.lengths() if spans else ():
            days = self.days.stored_within(seconds, channel, spans)
            if days:
                self.parking.judged_as(seconds, key, before, self._next("sequence"))
                self._again(seconds, [(channel, day) for day in days], emitter)
        if before != after and key in self.state.table(register_rows.NAME).index:
            version = self._after_leaving()
            emitter.readings_leaving(channel, self._left(channel, before, after, self.registers.held(channel)), version - 1)
            had = self.registers.finals(channel)
            out = self.registers.take_out(channel, lambda at, code: self.days.uninstalled.readings(channel, at, code))
            if len(out.at):
                self._uninstalled(self.late.taken_readings(channel, out.at, out.value, out.code), channel, emitter, version)
            changed = self.registers.anew(channel, version)
            self._tell_readings(changed, version, emitter, had=had, before=before.owner)
            self._checked(changed, emitter)
            first = self.registers.since(channel)
            if first is not None and any(end > first for _, end in self.rejudging.concerned_readings(before, after)):
                self.parking.judged_as(0, key, before, self._next("sequence"))
                self._again(0, [(channel, 0)], emitter)

    def _left(
        self, channel: int, before: Judged, after: Judged, readings: list[tuple[int, int]]
    ) -> dict[Owner, list[tuple[int, int]]]:  # fmt: skip
        """Of readings (time and version) of a register those that another account had: its owner then → these."""
        left: dict[Owner, list[tuple[int, int]]] = {}
        for at, version in readings:
            old, new = before.owner(at), after.owner(at)
            ways = [(one.account, one.unit, self.channels.partition_of(one, channel)) for one in (old, new)]
            if ways[0] != ways[1]:
                left.setdefault(old, []).append((at, version))
        return left

    def _look_at(self, seconds: int, channel: int, emitter: Emitter, before: Judged | None = None) -> None:
        """Decides the hot days of a channel anew: what master data say may change what rules find.

        ``before``: master data under which they were published, if they may belong to another owner now.
        """
        row = int(self.rings.find(seconds, np.array([channel]))[0])
        if row >= 0:
            days = self.rings.table(seconds)["day"][row]
            days = np.sort(days[days >= 0]).astype(np.int64)
            if len(days):
                owners = None if before is None else {channel: before}
                self._decide_again(seconds, code_of(np.full(len(days), row), days), emitter, close=False, owners=owners)

    def _set_unit(self, channel: int, unit: str | None) -> None:
        """Sets a channel's unit; values held in another unit of the dimension are converted, those of another dimension forgotten."""
        texts = self.channels.table.text["unit"]
        if unit is None or texts[channel] == resolve(unit).name:
            return
        old, new = texts[channel], resolve(unit).name
        texts[channel] = new
        self.channels.changed(channel)
        if not old:
            return
        factor = admission.factor(old, new)
        for table, row in self._held(channel):
            if "sums" in table.columns:
                history.rescale(table, row, factor)
                continue
            name = "value" if "value" in table.columns else "values"
            if "told" in table.columns:
                table["told"][row] = 0  # amounts are told in the new unit
            held = table[name][row]
            if factor is None:
                held[...] = 0
                table["condition" if name == "value" else "conditions"][row] = 0
            else:
                held[...] = admission.convert(held.ravel(), factor).reshape(held.shape)
            table.mark(np.array([row]))

    def _held(self, channel: int) -> list[tuple[Table, int]]:
        """The tables that hold reads of a channel, with its row in each."""
        found = []
        key = self.channels.table.keys[channel]
        for name, table in sorted(self.state.tables.items()):
            if name != channel_rows.TABLE and key in table.index:
                found.append((table, table.index[key]))
        return found

    def _set_zone(self, channel: int, zone: str | None) -> list[ReadBlock]:
        """Moves a channel to another zone and returns its held reads, which then fall into other days.

        A channel keeps its zone once days of it are in the store: they are days of that zone.
        """
        texts = self.channels.table.text["zone"]
        if zone is None or texts[channel] == zone:
            return []
        rows = [(seconds, int(self.rings.find(seconds, np.array([channel]))[0])) for seconds in self.rings.lengths()]
        held = [(seconds, self.rings.table(seconds), row) for seconds, row in rows if row >= 0]
        if any(table["stored_from"][row] >= 0 for _, table, row in held):
            return []
        moved = [block for seconds, table, row in held for block in self.late.taken_out(seconds, table, row, channel)]
        texts[channel] = zone
        self.channels.changed(channel)
        self.channels.table.mark(np.array([channel]))
        return moved


def _within(at: int, spans: list[Span]) -> bool:
    return any(begin <= at < end for begin, end in spans)
