"""The VEE agent: initial measurements in; final measurements, exceptions and questions to the store out.

State of a partition: what channels there are (channels.py), the received values of their newest days (ring.py) or reads (registers.py),
and parked rows (parking.py). Everything published follows from it; docs/adr/0011 tells why it is kept this way.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import numpy as np

from schemas.block import FinalBlock, ReadBlock
from schemas.identity import partition_of
from schemas.topology.vee import VeeSettings
from schemas.units import resolve
from streams.runtime.fold import Message, Output, Result
from streams.runtime.state import State, Table
from streams.vee import admission, ring
from streams.vee import channels as channel_rows
from streams.vee import registers as register_rows
from streams.vee.admission import Admission, Refused
from streams.vee.batch import Ints
from streams.vee.channels import Channels, key_of, names_of
from streams.vee.days import SHIFT, Days, code_of
from streams.vee.emit import FINALS, Emitter
from streams.vee.late import LateReads
from streams.vee.merging import Replacement
from streams.vee.parking import Parking
from streams.vee.registers import Registers
from streams.vee.ring import Rings
from streams.vee.spans import Segments

_META: Final = "meta"
_META_FORM: Final = struct.Struct("<QqQB")  # version, now, sequence of parked rows, master data present
_NOTHING: Final = np.zeros(0, np.int64)


class VeeFold:
    """Folds ReadBlock, FinalBlock (a day back from the store), MasterChannel, MasterPresent and Tick messages of one partition.

    Writes ``reads.final`` (FinalBlock, Recall, and what determinants must see in the same order: Tick, MasterChannel) and
    ``vee.exceptions``. Depends on nothing but its state and the message.
    """

    def __init__(self, settings: VeeSettings, partition: int, partitions: int) -> None:
        self.settings, self.partition, self.partitions = settings, partition, partitions
        self.state = State(self._make)
        self.channels = Channels(self.state, settings.zone or "UTC", partitions)
        self.rings = Rings(self.state)
        self.group = settings.group("initial-load")
        self.days = Days(self.rings, self.channels, settings)
        self.registers = Registers(self.state, Replacement.of(self.group))
        self.parking = Parking(self.state)
        self.admission = Admission(self.channels, settings)
        self.late = LateReads(self.channels, self.rings, self.days, self.parking, self.admission)

    def _make(self, name: str) -> Table:
        if name == channel_rows.TABLE:
            return channel_rows.table()
        if name == register_rows.NAME:
            return register_rows.table()
        return ring.table(int(name[1:]), self.settings.hot_days)

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
        result = Result()
        emitter = Emitter.make(self.channels, message, self.group, result)
        body = message.body
        if isinstance(body, ReadBlock):
            result.count("rows", len(body))
            result.count("reads", len(body.values))
            self._reads(body, emitter)
        elif isinstance(body, FinalBlock):
            self._pursue(self.late.answer(body), emitter)
        elif message.type == "Tick":
            self._tick(body, emitter)
        elif message.type == "MasterChannel":
            self._master(body, emitter)
        elif message.type == "Label":  # for insights, which has the channel's finals where they go
            row = self.channels.table.index.get(key_of(body["device"], body["channel"]))
            partition = self.partition if row is None else int(self.channels.partition[row])
            result.outputs.append(Output(FINALS, message.type, body, message.key, partition))
        elif message.type == "MasterPresent":
            self._set_meta(master=1)
            result.outputs.append(Output(FINALS, message.type, body, message.key, self.partition))
        else:
            raise ValueError(f"VEE has no use for a {message.type}")
        return result

    def _reads(self, block: ReadBlock, emitter: Emitter) -> None:
        version = self._next("version")
        admitted = self.admission.admit(block, self.now, strict=self.settings.admit == "known" or bool(self._meta()[3]))
        for refused in admitted.refused:
            self._park(block, refused, emitter, version)
        for part in admitted.registers:
            changed = self.registers.decide(block, part.rows, part.channels, admitted.values, admitted.codes, version)
            emitter.registers(changed, version)
        clock = max(self.now, block.received_at)
        for part in admitted.intervals:
            segments, off_grid = self.admission.segments(block, part, admitted, self.rings)
            for refused in off_grid:
                self._park(block, refused, emitter, version)
            waiting = self.days.waiting(part.seconds, segments)
            if waiting.any():
                behind = segments.take(np.flatnonzero(waiting))
                channels = self.late.hold(part.seconds, block, behind, lambda: self._next("sequence"))
                segments = segments.take(np.flatnonzero(~waiting))
                self._fold(part.seconds, segments, clock, version, emitter)
                self._pursue({(part.seconds, channel) for channel in channels}, emitter)
            else:
                self._fold(part.seconds, segments, clock, version, emitter)

    def _fold(self, seconds: int, segments: Segments, clock: int, version: int, emitter: Emitter) -> None:
        for chosen in self.days.chunks(segments.row):
            if len(chosen):
                part = segments if len(chosen) == len(segments) else segments.take(chosen)
                decided = self.days.decide(seconds, part, _NOTHING, {}, clock, version)
                emitter.days(decided, version)
                self._again(seconds, decided.again, emitter)

    def _again(self, seconds: int, days: list[tuple[int, int]], emitter: Emitter) -> None:
        for channel, day in days:
            self.parking.want_again(seconds, self.channels.table.keys[channel], day)
        self._pursue({(seconds, channel) for channel, _ in days}, emitter)

    def _pursue(self, who: set[tuple[int, int]], emitter: Emitter) -> None:
        """Asks the store for what late reads of these (interval length, channel) need, and folds in those that have everything."""
        for seconds in sorted({seconds for seconds, _ in who}):
            ready, asked = self.late.look([channel for length, channel in sorted(who) if length == seconds], seconds)
            for channel, day in asked:
                emitter.recall(channel, seconds, day, int(self.channels.partition[channel]))
            if ready:
                version = self._next("version")
                segments, stored = self.late.gather(seconds, ready)
                decided = self.days.decide(seconds, segments, _NOTHING, stored, self.now, version)
                emitter.days(decided, version)
                for channel in ready:
                    self.parking.done(seconds, self.channels.table.keys[channel])
                self._again(seconds, decided.again, emitter)

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
        for key, parts in self.parking.release_until(now):
            self._released(key, parts, emitter)
        close = bool(body.get("close"))
        for seconds in self.rings.lengths():
            codes = self.days.due(seconds, now, close=close)
            if len(codes):
                self._decide_again(seconds, codes, emitter, close=True)
        # To every partition: what this one wrote went to any of them, and a reader may act on a time only when all have reached it
        emitter.result.outputs.extend(Output(FINALS, "Tick", body, partition=number) for number in range(self.partitions))

    def _decide_again(self, seconds: int, codes: Ints, emitter: Emitter, *, close: bool) -> None:
        version = self._next("version")
        for chosen in self.days.chunks(codes >> SHIFT):
            part = codes[chosen]
            decided = self.days.decide(seconds, None, part if close else _NOTHING, {}, 0, version, look=part)
            emitter.days(decided, version)
            self._again(seconds, decided.again, emitter)

    # --- master data --------------------------------------------------------------------------------------------------------------

    def _master(self, body: dict[str, Any], emitter: Emitter) -> None:
        key = key_of(body["device"], body["channel"])
        table = self.channels.table
        routes = [self.channels.routing(table.index[key])] if key in table.index else []
        row = self.channels.set_master(body)
        self._set_unit(row, body.get("unit"))
        moved = self._set_zone(row, body.get("zone"))
        for block in moved:
            self._reads(block, emitter)
        for seconds in self.rings.lengths():
            self._look_at(seconds, row, emitter)
        self._released(key, self.parking.release(key), emitter)
        partitions = dict.fromkeys(partition_of(route, self.partitions) for route in [*routes, self.channels.routing(row)])
        for partition in partitions:
            emitter.result.outputs.append(Output(FINALS, "MasterChannel", body, body["device"].encode(), partition))

    def _look_at(self, seconds: int, channel: int, emitter: Emitter) -> None:
        """Decides the hot days of a channel anew: what master data say may change what rules find."""
        row = int(self.rings.find(seconds, np.array([channel]))[0])
        if row >= 0:
            days = self.rings.table(seconds)["day"][row]
            days = np.sort(days[days >= 0]).astype(np.int64)
            if len(days):
                self._decide_again(seconds, code_of(np.full(len(days), row), days), emitter, close=False)

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
            name = "value" if "value" in table.columns else "values"
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
