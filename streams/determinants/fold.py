"""The determinants agent: final measurements in; daily sums and bill determinants out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from schemas.arrow import integers, numbers
from schemas.block import DayBlock, FinalBlock, columns_of, strings
from schemas.conditions import NOT_RECEIVED
from schemas.topology.tou import DeterminantsSettings
from schemas.topology.usage import UsageSettings
from schemas.units import resolve
from streams import calendar
from streams.determinants import intervals, registers
from streams.determinants.corrections import Judge
from streams.determinants.events import TOPIC as USAGE_EVENTS
from streams.determinants.events import UsageEvents
from streams.determinants.intervals import Intervals, day_bounds
from streams.determinants.kernels import tell_days
from streams.determinants.keys import key_of
from streams.determinants.periods import Schedules, settled
from streams.determinants.registers import Day, Registers
from streams.determinants.sums import Sums
from streams.determinants.usage.billed import Billed
from streams.determinants.usage.fold import Usage
from streams.runtime.fold import Message, Output, Result
from streams.runtime.state import LayoutError, State, Table
from streams.sorting import distinct

Array = npt.NDArray[Any]

DAILY: Final = "determinants.daily"
_BILLING: Final = "billing"  # versions of the billing periods that have begun
_NOW: Final = "now"
_TICKS: Final = "ticks"  # VEE partition → its last tick
# Quantities that are not used up: their sums mean nothing
_NOT_SUMMED: Final = frozenset(
    {"power", "reactive-power", "apparent-power", "temperature", "voltage", "current", "frequency", "power-factor"}
)


@lru_cache(maxsize=4096)
def is_summed(unit: str) -> bool:
    """Whether quantities of a unit add up over time."""
    return resolve(unit).quantity not in _NOT_SUMMED


def make_table(name: str) -> Table:
    """The state table of a name."""
    return registers.make_table() if name == registers.TABLE else intervals.make_table(name)


class DeterminantsFold:
    """Sums final measurements by time of use per local day and billing period, and differences register readings.

    Inbox ``reads.final``: final blocks, ticks; other records are not its business. Every block's days go out at once
    (``determinants.daily``, to the own partition); billing periods go out on the first tick after their end and delay, later where reads
    of them are still coming in, and again when something in them changed (``billing.determinants``, by key). ``hot_days`` is how many
    days VEE keeps: corrections of these do not carry what they replace.
    """

    def __init__(
        self, settings: DeterminantsSettings, partition: int, partitions: int, hot_days: int = 2, usage: UsageSettings | None = None,
        told: tuple[str, ...] = (USAGE_EVENTS,), gathered: Mapping[str, int] | None = None,
    ) -> None:  # fmt: skip
        self.partition, self.partitions = partition, partitions
        self.state = State(make_table, verify=self._verify)
        self._billing = settings.billing
        self._settled = -1
        self._billed = Billed(self.state)
        judge = Judge(settings.corrections, self._billed)
        schedules = Schedules(settings.billing)
        self._intervals = Intervals(settings, self.state, hot_days, judge, schedules)
        self._registers = Registers(settings, self.state, judge, schedules)
        self._usage = Usage(usage or UsageSettings(), settings, self.state, judge)
        self._events = UsageEvents((usage or UsageSettings()).events, self.state, told, gathered)

    def _verify(self) -> None:
        """Sums are kept by billing period: periods that have begun stay what they are."""
        held = self.state.entries.get(_BILLING)
        if held is not None and settled(self._billing, self._now()) != json.loads(held):
            raise LayoutError(
                "determinants.billing.versions: what held until now is other than before, and sums are kept by it: "
                "leave these versions as they were and add one whose `from` lies ahead"
            )

    def apply(self, message: Message) -> Result:
        """Folds one message in."""
        result = Result()
        if message.type == "FinalBlock":
            self._block(message, result)
        elif message.type == "RegisterDays":
            self._rewritten(message, result)
        elif message.type == "Tick":
            self._tick(message, result)
        elif message.type == "MasterChannel":
            self._events.master(message.body)
            self._usage.master(message.body)
        else:
            self._order(message, result)
        self._events.gather(result)
        return result

    def _order(self, message: Message, result: Result) -> None:
        """What is said and asked of usage."""
        body, now = message.body, self._now()
        if message.type == "UsageSubscription":
            self._usage.subscription(body, now)
        elif message.type == "UsageRequest":
            self._usage.request(body, now, result)
        elif message.type == "UsedOnBill":
            if body["usage"]:
                self._usage.billed(body, now)
            else:
                self._noted(body)
        elif message.type == "TouEvent":
            self._usage.event(body, now)
            self._intervals.swap(self._usage.book.known_events())

    def _noted(self, body: dict[str, Any]) -> None:
        """A channel's determinant is on a bill. Where a later version was sent meanwhile, that is looked at once more."""
        self._billed.note(body)
        for account in dict.fromkeys((body["account"], "")):
            key = key_of(account, body["device"], body["channel"], body["unit"])
            self._intervals.again(key, body["start"])
            self._registers.again(key, body["start"])

    def _tick(self, message: Message, result: Result) -> None:
        """Time has come only as far as every VEE partition says: each of them may have written reads to this one."""
        at, close = message.body["at"], message.body["close"]
        if message.writer:
            told = json.loads(self.state.entries.get(_TICKS, b"{}"))
            told[message.writer] = [at, close]
            self.state.put(_TICKS, json.dumps(told, sort_keys=True).encode())
            if len(told) < self.partitions:
                return
            at, close = min(told.values())
        if at > self._now() or close:
            self.state.put(_NOW, max(self._now(), at).to_bytes(8, "little"))
            self._settle()
            self._intervals.tick(at, close, result)
            self._registers.tick(at, close, result)
            self._billed.mark(result)
            self._usage.tick(at, close, result)

    def _settle(self) -> None:
        day = self._now() // 86_400
        if day != self._settled:
            self._settled, terms = day, json.dumps(settled(self._billing, self._now()), sort_keys=True).encode()
            if terms != self.state.entries.get(_BILLING):
                self.state.put(_BILLING, terms)

    def _now(self) -> int:
        return int.from_bytes(self.state.entries.get(_NOW, b""), "little")

    def _block(self, message: Message, result: Result) -> None:
        block: FinalBlock = message.body
        units = block.unit.dictionary_encode()
        summed = np.array([is_summed(unit) for unit in units.dictionary.to_pylist()], bool)[numbers(units.indices)]
        self._intervals.swap(self._usage.book.known_events())
        parts = []
        for which, build in ((block.seconds > 0, self._interval_days), (block.seconds == 0, self._register_days)):
            rows = np.flatnonzero(which & summed)
            if rows.size:
                part = block if rows.size == len(block) else block.take(rows)
                parts.append(build(part, message, result))
                self._events.tell(parts[-1], part, result)
        names = list(dict.fromkeys(name for part in parts for name in part.tou_names))
        days = [_renamed(part, names) for part in parts if len(part)]
        if days:
            result.outputs.append(Output(DAILY, "DayBlock", DayBlock.join(days), partition=self.partition))
        self._events.intervals(self._usage.block(block, self._now()), block, self._usage.lines_of, result)

    def _interval_days(self, block: FinalBlock, message: Message, result: Result) -> DayBlock:
        sums, maps = self._intervals.fold(block, self._now(), result)
        names, slots, lines, tou, quantities = self._told(sums, maps)
        of_map = [name for name, _ in self._intervals.maps.names]
        return DayBlock(
            id=message.derive("days"),
            payload=message.payload,
            tou_names=names,
            device=block.device,
            channel=block.channel,
            unit=block.unit,
            service_point=block.service_point,
            account=block.account,
            map=strings(of_map).take(integers(maps)),
            day=block.day,
            start=block.start,
            end=day_bounds(block),
            seconds=block.seconds,
            version=block.version,
            replaces=block.replaces,
            state=block.state,
            condition=sums.condition.astype(np.int32),
            slots=slots[:, 0].copy(),
            actual=slots[:, 1].copy(),
            estimated=slots[:, 2].copy(),
            lines=lines,
            tou=tou,
            quantities=quantities,
        )

    def _told(self, sums: Sums, maps: Array) -> tuple[list[str], Array, Array, Array, Array]:
        """Names of all lines; per row slots due, measured and estimated; per row the whole day (empty name) and, where it is mapped, each
        of the map's periods."""
        of_map = [lines for _, lines in self._intervals.maps.names]
        used = distinct(maps).tolist()
        names = list(dict.fromkeys(["", *(name for number in used for name in of_map[number])]))
        sizes = np.array([len(lines) if number else 0 for number, lines in enumerate(of_map)], np.int64)
        places = np.zeros((len(of_map), sums.quantities.shape[1]), np.int8)
        for number in used:
            if number:
                places[number, : sizes[number]] = [names.index(name) for name in of_map[number]]
        many = int(sizes[maps].sum()) + len(maps)
        slots, lines = np.zeros((len(maps), 3), np.int32), np.zeros(len(maps), np.int8)
        tou, quantities = np.zeros(many, np.int8), np.zeros(many, np.int64)
        tell_days(sums.quantities, sums.counts, maps.astype(np.int64), sizes, places, slots, lines, tou, quantities)
        return names, slots, lines, tou, quantities

    def _rewritten(self, message: Message, result: Result) -> None:
        """Days of a register that are not kept: their readings come along."""
        body = message.body
        told = self._registers.rewritten(body) if is_summed(body["unit"]) else []
        if told:
            block = _bare(body, [point for _, point in told])
            days = self._day_block([day for day, _ in told], block, message)
            self._events.tell(days, block, result)
            result.outputs.append(Output(DAILY, "DayBlock", days, partition=self.partition))

    def _register_days(self, block: FinalBlock, message: Message, result: Result) -> DayBlock:
        return self._day_block(self._registers.fold(block, self._now(), result), block, message)

    def _day_block(self, days: list[Day], block: FinalBlock, message: Message) -> DayBlock:
        """Days of registers as they are told; ``origin`` is a row of the block."""
        origins = np.array([day.origin for day in days], np.int64)
        which = integers(origins)
        zones = block.zone.take(which).to_pylist()
        bounds = [calendar.start_of(zone, np.array([day.day, day.day + 1])) for zone, day in zip(zones, days, strict=True)]
        start, end = np.array(bounds, np.int64).reshape(-1, 2).T
        columns = {name: np.array([getattr(day, name) for day in days], np.int64) for name in Day.__slots__}
        rows = len(days)
        return DayBlock(
            id=message.derive("days"),
            payload=message.payload,
            tou_names=[""],
            device=block.device.take(which),
            channel=block.channel.take(which),
            unit=block.unit.take(which),
            service_point=block.service_point.take(which),
            account=block.account.take(which),
            map=strings([""] * rows),
            day=columns["day"].astype(np.int32),
            start=start,
            end=end,
            seconds=np.zeros(rows, np.int32),
            version=columns["version"],
            replaces=columns["replaces"],
            state=columns["state"].astype(np.int8),
            condition=columns["condition"].astype(np.int32),
            slots=np.where(columns["condition"] == NOT_RECEIVED, 0, 2).astype(np.int32),
            actual=columns["actual"].astype(np.int32),
            estimated=columns["estimated"].astype(np.int32),
            lines=np.ones(rows, np.int8),
            tou=np.zeros(rows, np.int8),
            quantities=columns["quantity"],
        )


def _bare(body: dict[str, Any], points: list[str]) -> FinalBlock:
    """Rows that say of a register (a RegisterDays record) all but its readings, one for each of these service points."""
    many = len(points)
    texts = {name: strings([body[name]] * many) for name in ("device", "channel", "unit", "account", "zone")}
    none, empty, zero = np.zeros(0, np.int64), np.zeros(many, np.int32), np.zeros(many, np.int64)
    codes, version = none.astype(np.int32), np.full(many, body["version"], np.int64)
    return FinalBlock(
        id="", payload="", source="", **texts, service_point=strings(points), direction=np.full(many, body["direction"], np.int8),
        day=empty, start=zero, seconds=empty, count=empty, reads=empty, version=version, replaces=zero, state=empty.astype(np.int8),
        dials=empty.astype(np.int8), multiplier=zero, values=none, conditions=codes, methods=none.astype(np.int8), times=none,
        received_count=empty, received=none, received_conditions=codes, before_count=empty, before=none, before_conditions=codes,
    )  # fmt: skip


def _renamed(block: DayBlock, names: list[str]) -> DayBlock:
    """The block with its lines indexing ``names``."""
    if block.tou_names == names:
        return block
    index = np.array([names.index(name) for name in block.tou_names], np.int8)
    values = {name: getattr(block, name) for name, _ in columns_of(DayBlock)}
    return DayBlock(**values | {"tou_names": names, "tou": index[block.tou]})
