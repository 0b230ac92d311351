"""The channels a partition knows: who they are, what master data say of them, and where their finals go."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa

from schemas.arrow import integers
from schemas.block import DIRECTIONS, FinalBlock, ReadBlock, pack_text, strings
from schemas.identity import partition_of
from schemas.quantity import MICRO
from schemas.units import resolve
from streams.runtime.state import Column, State, Table
from streams.sorting import distinct
from streams.vee.batch import Array, Attributes, Ints
from streams.vee.rejudging import Judged
from streams.vee.service import Owner, Use, periods_of, served, text_of_periods, text_of_uses, uses_of

TABLE: Final = "channels"
UNSET: Final = -1
_CACHED: Final = 512


def table() -> Table:
    """Columns of the channel table.

    ``seconds`` -1: any, ``known``: master data name the channel, ``scaled``: and its multiplier, ``reported``: the multiplier its newest
    reads came with (0: none did),
    ``periods``, ``uses``: see streams/vee/service.py.
    """
    columns = {
        "known": Column(np.int8), "seconds": Column(np.int32, empty=UNSET), "direction": Column(np.int8),
        "negative": Column(np.int8), "dials": Column(np.int8), "multiplier": Column(np.int64, empty=MICRO),
        "reported": Column(np.int64), "scaled": Column(np.int8),
    }  # fmt: skip
    return Table(columns, ("unit", "service_point", "account", "zone", "check_channel", "periods", "uses"))


def key_of(device: str, channel: str) -> str:
    """One string for a channel, whatever its names contain."""
    return f"{len(device)} {device}{channel}"


def names_of(key: str) -> tuple[str, str]:
    """Device and channel behind :func:`key_of`."""
    size, _, rest = key.partition(" ")
    return rest[: int(size)], rest[int(size) :]


@dataclass(slots=True)
class Labels:
    """Everything a final row says of its channel, for a list of channels."""

    device: pa.StringArray
    channel: pa.StringArray
    unit: pa.StringArray
    service_point: pa.StringArray
    account: pa.StringArray
    zone: pa.StringArray
    partition: Array
    direction: Array
    dials: Array
    multiplier: Ints


class Channels:
    """Lookups over the channel table. Rows are never removed, so row numbers found once stay right."""

    def __init__(self, state: State, zone: str, partitions: int) -> None:
        self.state, self.default_zone, self.partitions = state, zone, partitions
        self.units: list[str] = []  # distinct units and zones: rows refer to them by number
        self.zones: list[str] = []
        self.unit = np.zeros(0, np.int32)
        self.zone = np.zeros(0, np.int32)
        self.partition = np.zeros(0, np.int32)  # where finals go
        self.device = np.zeros(0, np.int32)  # a number per device
        self.devices: dict[str, int] = {}
        self.served = np.zeros((0, 2), np.int64)  # from and to of the longest time the channel is in service
        self.vacant = np.zeros(0, np.bool_)  # master data name a service point and no account
        self.dated: dict[tuple[str, str], int] = {}  # channels whose service point, account or multiplier change in time → row
        self.names: list[tuple[str, str]] = []
        self._rows: OrderedDict[bytes, Ints] = OrderedDict()
        self._labels: OrderedDict[bytes, Labels] = OrderedDict()

    @property
    def table(self) -> Table:
        """The channel table."""
        return self.state.table(TABLE)

    def find(self, block: ReadBlock) -> Ints:
        """The row of each row's channel, -1 for unknown ones."""
        mark = pack_text(block.device) + pack_text(block.channel)
        rows = self._rows.get(mark)
        if rows is None:
            pairs = zip(block.device.to_pylist(), block.channel.to_pylist(), strict=True)
            rows = self.table.find(key_of(device, channel) for device, channel in pairs)
            if len(rows) and rows.min() >= 0:
                self._rows[mark] = rows
                if len(self._rows) > _CACHED:
                    self._rows.popitem(last=False)
        return rows

    def admit(self, block: ReadBlock, rows: Ints) -> None:
        """Adds the channels of these rows of a block as they come, with defaults; a first delivery brings thousands."""
        table, first = self.table, dict[str, int]()
        which = integers(rows)
        pairs = zip(block.device.take(which).to_pylist(), block.channel.take(which).to_pylist(), strict=True)
        for row, (device, channel) in zip(rows.tolist(), pairs, strict=True):
            key = key_of(device, channel)
            if key not in table.index:
                first.setdefault(key, row)
        if first:
            numbers = table.add(list(first))
            for number in numbers.tolist():
                table.text["zone"][number] = self.default_zone
            self._learn(numbers, block, np.array(list(first.values()), np.int64))

    def complete(self, block: ReadBlock, rows: Ints, positions: Ints) -> None:
        """Takes from the reads at ``positions`` of a block what master data leave open: unit and direction of their channels."""
        self.refresh()
        blank = self.units.index("") if "" in self.units else UNSET
        if blank == UNSET:
            return
        at = np.flatnonzero(self.unit[rows] == blank)
        if len(at):
            self._learn(rows[at], block, positions[at])

    def _learn(self, numbers: Ints, block: ReadBlock, rows: Ints) -> None:
        table, units = self.table, block.unit.take(integers(rows)).to_pylist()
        for number, row, unit in zip(numbers.tolist(), rows.tolist(), units, strict=True):
            if not table.text["unit"][number]:
                table.text["unit"][number] = resolve(unit).name
            if not table["direction"][number]:
                table["direction"][number] = block.direction[row]
            if not table["known"][number] and block.multiplier[row] > 0:
                table["multiplier"][number] = block.multiplier[row]
        table.mark(numbers)
        known = len(self.names)
        self._labels.clear()
        self.refresh()
        for number in numbers[numbers < known].tolist():
            self._derive(number)

    def refresh(self) -> None:
        """Brings unit and zone numbers up to the rows there are."""
        size = len(self.table)
        first = len(self.names)
        if first == size:
            return
        if len(self.unit) < size:
            room = np.zeros(max(64, size * 5 // 4) - len(self.unit), np.int32)
            self.unit, self.zone, self.partition = (np.concatenate([a, room]) for a in (self.unit, self.zone, self.partition))
            self.vacant, self.device = np.concatenate([self.vacant, room > 0]), np.concatenate([self.device, room])
            self.served = np.concatenate([self.served, np.zeros((len(room), 2), np.int64)])
        self.names += [names_of(key) for key in self.table.keys[first:]]
        for row in range(first, size):
            self._derive(row)

    def changed(self, row: int) -> None:
        """Says that a row's texts changed."""
        self._labels.clear()
        self.refresh()
        self._derive(row)

    def _derive(self, row: int) -> None:
        texts = self.table.text
        self.unit[row] = _number(self.units, texts["unit"][row])
        self.zone[row] = _number(self.zones, texts["zone"][row])
        self.partition[row] = partition_of(self.routing(row), self.partitions)
        self.device[row] = self.devices.setdefault(self.names[row][0], len(self.devices))
        self.served[row] = served(texts["periods"][row])
        if texts["uses"][row]:
            self.dated[self.names[row]] = row
        else:
            self.dated.pop(self.names[row], None)
        self.vacant[row] = self.table["known"][row] > 0 and texts["service_point"][row] != "" and texts["account"][row] == ""

    def judged(self, row: int) -> Judged:
        """What rules look at of a channel's master data."""
        self.refresh()
        table, texts = self.table, self.table.text
        return Judged(
            texts["unit"][row], int(table["direction"][row]), bool(table["negative"][row]),
            int(table["multiplier"][row]) if table["scaled"][row] else 0, int(table["dials"][row]), int(table["reported"][row]),
            bool(self.vacant[row]), texts["periods"][row], texts["check_channel"][row], texts["account"][row],
            texts["service_point"][row], int(table["multiplier"][row]), texts["uses"][row],
        )  # fmt: skip

    def attributes(self, rows: Ints, was: Mapping[int, Judged] | None = None) -> Attributes:
        """What rules may ask of these channels; of those in ``was`` as it was."""
        found = self._attributes(rows)
        if was:
            self._as_it_was(found, rows, was)
        return found

    def _as_it_was(self, about: Attributes, rows: Ints, was: Mapping[int, Judged]) -> None:
        now_periods, now_texts = about.periods, about.texts
        about.unit, about.direction, about.served = about.unit.copy(), about.direction.copy(), about.served.copy()
        old = {k: was[channel] for k, channel in enumerate(rows.tolist()) if channel in was}
        for k, one in old.items():
            about.unit[k], about.direction[k] = _number(self.units, one.unit), one.direction
            about.allow_negative[k], about.vacant[k] = one.negative, one.vacant
            about.multiplier[k], about.reported[k] = one.multiplier, one.reported
            about.served[k] = served(one.periods)
        about.periods = lambda row: periods_of(old[row].periods) if row in old else now_periods(row)
        about.texts = lambda name, some: [
            getattr(old[k], name) if k in old and name in ("account", "service_point") else text
            for k, text in zip(some.tolist(), now_texts(name, some), strict=True)
        ]

    def _attributes(self, rows: Ints) -> Attributes:
        table = self.table
        return Attributes(
            self.unit[rows], table["direction"][rows], table["negative"][rows] > 0, self.units,
            np.where(table["scaled"][rows] > 0, table["multiplier"][rows], 0), table["reported"][rows],
            self.served[rows], self.vacant[rows],
            lambda row: periods_of(table.text["periods"][rows[row]]), lambda name, some: self._texts(name, rows[some]),
        )  # fmt: skip

    def _texts(self, name: str, rows: Ints) -> list[str]:
        if name in ("device", "channel"):
            return [self.names[row][name == "channel"] for row in rows.tolist()]
        texts = self.table.text[name]
        return [texts[row] for row in rows.tolist()]

    def note_multipliers(self, block: ReadBlock, rows: Ints, positions: Ints) -> None:
        """Remembers the multipliers that the reads at ``positions`` of a block came with."""
        said = block.multiplier[positions]
        new = np.flatnonzero((said > 0) & (said != self.table["reported"][rows])) if said.any() else said[:0]
        if len(new):
            self.table["reported"][rows[new]] = said[new]
            self.table.mark(rows[new])

    def of_device(self, device: str) -> list[int]:
        """The rows of a device's channels."""
        self.refresh()
        number = self.devices.get(device, -1)
        found: list[int] = np.flatnonzero(self.device[: len(self.names)] == number).tolist()
        return found

    def routing(self, row: int) -> str:
        """The key finals of a channel travel by: account, else service point, else device."""
        self.refresh()
        texts = self.table.text
        return texts["account"][row] or texts["service_point"][row] or self.names[row][0]

    def partition_of(self, owner: Owner, row: int) -> int:
        """Where final rows of a channel go while it belongs to an owner."""
        self.refresh()
        return partition_of(owner.route(self.names[row][0]), self.partitions)

    def routes(self, row: int) -> list[str]:
        """All keys that finals of a channel travel by at one time or another."""
        texts, device = self.table.text, self.names[row][0]
        uses = uses_of(texts["uses"][row])
        return [self.routing(row), *(_route(use, texts["account"][row], texts["service_point"][row], device) for use in uses)]

    def in_time(self, block: FinalBlock, partition: int) -> list[tuple[FinalBlock, int]]:
        """A block of finals with the service point, account and multiplier that hold when each row begins, by partition."""
        if not self.dated:
            return [(block, partition)]
        names = list(zip(block.device.to_pylist(), block.channel.to_pylist(), strict=True))
        at = {
            k: use
            for k, name in enumerate(names)
            if name in self.dated
            for use in uses_of(self.table.text["uses"][self.dated[name]])
            if use.start <= block.start[k] < use.end
        }
        if not at:
            return [(block, partition)]
        points, accounts, multipliers = block.service_point.to_pylist(), block.account.to_pylist(), block.multiplier.copy()
        partitions = np.full(len(block), partition, np.int64)
        for k, use in at.items():
            partitions[k] = partition_of(_route(use, accounts[k], points[k], names[k][0]), self.partitions)
            points[k] = points[k] if use.service_point is None else use.service_point
            accounts[k] = accounts[k] if use.account is None else use.account
            multipliers[k] = multipliers[k] if use.multiplier is None else use.multiplier
        told = replace(block, service_point=strings(points), account=strings(accounts), multiplier=multipliers)
        return [(told.take(np.flatnonzero(partitions == number)), number) for number in distinct(partitions).tolist()]

    def labels(self, rows: Ints) -> Labels:
        """Labels of these channels; the same list asked again costs nothing."""
        mark = rows.tobytes()
        labels = self._labels.get(mark)
        if labels is None:
            labels = self._labels[mark] = self._make_labels(rows)
            if len(self._labels) > _CACHED:
                self._labels.popitem(last=False)
        return labels

    def _make_labels(self, rows: Ints) -> Labels:
        table, chosen = self.table, rows.tolist()
        names = [self.names[row] for row in chosen]
        texts = {name: strings([values[row] for row in chosen]) for name, values in table.text.items()}
        return Labels(
            strings([device for device, _ in names]), strings([channel for _, channel in names]),
            texts["unit"], texts["service_point"], texts["account"], texts["zone"], self.partition[rows],
            table["direction"][rows], table["dials"][rows], table["multiplier"][rows],
        )  # fmt: skip

    def set_master(self, body: dict[str, Any]) -> int:
        """Takes one MasterChannel record in; returns the channel's row. Unit and zone are set by the caller, who holds reads in them."""
        table = self.table
        row = int(table.add([key_of(body["device"], body["channel"])])[0])
        texts = table.text
        texts["zone"][row] = texts["zone"][row] or self.default_zone
        for name in ("service_point", "account", "check_channel"):
            texts[name][row] = body.get(name) or ""
        table["known"][row] = 1
        table["seconds"][row] = UNSET if body.get("seconds") is None else body["seconds"]
        if body.get("direction"):
            table["direction"][row] = DIRECTIONS.index(body["direction"])
        table["negative"][row] = bool(body.get("allow_negative"))
        table["dials"][row] = body.get("dials") or 0
        table["multiplier"][row] = body.get("multiplier") or MICRO
        table["scaled"][row] = body.get("multiplier") is not None
        texts["periods"][row] = text_of_periods(body.get("periods") or [])
        texts["uses"][row] = text_of_uses(body.get("periods") or [])
        table.mark(np.array([row]))
        self.changed(row)
        return row


def _route(use: Use, account: str, service_point: str, device: str) -> str:
    known = (account if use.account is None else use.account, service_point if use.service_point is None else use.service_point)
    return known[0] or known[1] or device


def _number(names: list[str], name: str) -> int:
    try:
        return names.index(name)
    except ValueError:
        names.append(name)
        return len(names) - 1
