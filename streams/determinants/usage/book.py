"""What is kept of subscriptions: intervals and readings of their channels, master data, critical-peak events. Entries of the state.

Only accounts that a usage group (or interval events) asks for are kept. A channel-day is one entry, values as 32-bit steps where they
fit, so that a correction rewrites one day.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from schemas import conditions as c
from schemas.block import DIRECTIONS, EXCEPTION, FinalBlock, starts_of
from schemas.quantity import MICRO
from streams import calendar
from streams.determinants.keys import key_of, parts_of
from streams.determinants.sums import limits_of
from streams.determinants.usage.curve import Curve
from streams.determinants.usage.readings import Read
from streams.runtime.state import State

Array = npt.NDArray[Any]
CHANNEL, DAY, READS, SUBSCRIPTION, INSTALLED, EVENT = "uc/", "uv/", "ur/", "us/", "ui/", "ue/"
_DAY: Final = 86_400
BUCKET: Final = 32 * 86_400  # seconds of register readings in one entry
_HEAD: Final = struct.Struct("<qiBB")  # start, slots, form of the values, form of the conditions
_STEP: Final = 1000


@dataclass(slots=True)
class Channel:
    """A channel of an account, at one interval length (0: register)."""

    account: str
    device: str
    channel: str
    unit: str
    seconds: int
    service_point: str = ""
    zone: str = "UTC"
    direction: str = "none"
    dials: int = 0
    days: set[int] = field(default_factory=set)  # kept days; of registers: kept buckets

    @property
    def key(self) -> str:
        """Its key in the state."""
        return key_of(self.account, self.device, self.channel, self.unit, str(self.seconds))

    def described(self) -> bytes:
        """What is not in the key, as bytes."""
        return json.dumps([self.service_point, self.zone, self.direction, self.dials]).encode()


@dataclass(frozen=True, slots=True)
class TouEvent:
    """A critical-peak event: in [start, end) channels under ``maps`` (none: all) have ``tou``, or the lines of map ``use``."""

    id: str
    start: int
    end: int
    tou: str
    use: str
    maps: tuple[str, ...]
    accounts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Changed:
    """A span of an account in which something is other than before, and for interval days what was kept of it."""

    account: str
    start: int
    end: int
    row: int
    channel: Channel
    before: tuple[Array, Array] | None = None


def pack_day(start: int, values: Array, codes: Array, *, held: bool = False) -> bytes:
    """A day as bytes. ``codes`` are conditions; ``held``: VEE has it in exception."""
    fits = not (values % _STEP).any()
    body = values // _STEP if fits else values
    small = not len(body) or (int(body.max()) < 2**31 and int(body.min()) >= -(2**31))
    one = len(codes) > 0 and bool((codes == codes[0]).all())
    short = (codes[:1] if one else codes) // 100
    head = _HEAD.pack(start, len(values), (1 if fits else 0) | (2 if small else 0), (1 if one else 0) | (2 if held else 0))
    return head + body.astype("<i4" if small else "<i8").tobytes() + short.astype("<u2").tobytes()


def unpack_day(data: bytes) -> tuple[int, Array, Array]:
    """The inverse of :func:`pack_day`: start, values (int64), conditions (int32)."""
    start, size, form, one = _HEAD.unpack_from(data)
    kind = "<i4" if form & 2 else "<i8"
    values = np.frombuffer(data, kind, size, _HEAD.size).astype(np.int64) * (_STEP if form & 1 else 1)
    behind = _HEAD.size + size * (4 if form & 2 else 8)
    codes = np.frombuffer(data, "<u2", 1 if one & 1 else size, behind).astype(np.int32) * 100
    return start, values, np.repeat(codes, size) if one & 1 else codes


class Book:
    """The kept data of one partition, with an index in memory."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._ready = False
        self.accounts: dict[str, dict[str, Channel]] = {}
        self.subscriptions: dict[str, list[dict[str, Any]]] = {}
        self.events: dict[str, TouEvent] = {}

    def prepare(self) -> None:
        """Builds the index after the state is loaded; later calls do nothing."""
        if self._ready:
            return
        self._ready = True
        days: list[tuple[str, int]] = []
        for key, value in self._state.entries.items():
            if key.startswith(CHANNEL):
                self._index(key[len(CHANNEL) :], value)
            elif key.startswith((DAY, READS)):
                number, _, name = key[3:].partition("/")
                days.append((name, int(number)))
            elif key.startswith(SUBSCRIPTION):
                self.subscriptions[key[len(SUBSCRIPTION) :]] = json.loads(value)
            elif key.startswith(EVENT):
                self._note(json.loads(value))
        for held, day in days:
            self.accounts[parts_of(held)[0]][held].days.add(day)

    def _index(self, name: str, value: bytes) -> Channel:
        account, device, channel, unit, seconds = parts_of(name)
        point, zone, direction, dials = json.loads(value)
        found = Channel(account, device, channel, unit, int(seconds), point, zone, direction, dials)
        self.accounts.setdefault(account, {})[name] = found
        return found

    # --- taking in -----------------------------------------------------------------------------------------------------------

    def take(self, block: FinalBlock, rows: Array) -> Iterator[Changed]:
        """Keeps rows of a block; yields what changed, row by row."""
        self.prepare()
        begins, times = starts_of(block.count), starts_of(block.reads)
        limits = limits_of(np.maximum(block.seconds, 1))
        for row in rows.tolist():
            channel = self._channel(block, row)
            part = slice(int(begins[row]), int(begins[row]) + int(block.count[row]))
            values, codes = block.values[part], block.conditions[part]
            if channel.seconds:
                beyond = np.abs(values) > int(limits[row])
                codes = np.where(beyond & (codes > 0), np.minimum(codes, c.INVALID), codes).astype(np.int32)
                held = bool(block.state[row] == EXCEPTION)
                yield from self._take_day(
                    held, channel, row, int(block.day[row]), int(block.start[row]), np.where(codes < c.OUTAGE, 0, values), codes
                )
            else:
                at = block.times[int(times[row]) : int(times[row]) + int(block.reads[row])]
                yield from self._take_reads(channel, row, at, values, codes, int(block.multiplier[row]) or MICRO)

    def _channel(self, block: FinalBlock, row: int) -> Channel:
        texts = [column[row].as_py() for column in (block.account, block.device, block.channel, block.unit)]
        seconds = int(block.seconds[row])
        name = key_of(*texts, str(seconds))
        channel = self.accounts.get(texts[0], {}).get(name)
        described = (
            block.service_point[row].as_py(),
            block.zone[row].as_py(),
            DIRECTIONS[int(block.direction[row])],
            int(block.dials[row]),
        )
        if channel is None or (channel.service_point, channel.zone, channel.direction, channel.dials) != described:
            account, device, name_, unit = texts
            point, zone, direction, dials = described
            channel = Channel(account, device, name_, unit, seconds, point, zone, direction, dials, channel.days if channel else set())
            self.accounts.setdefault(texts[0], {})[name] = channel
            self._state.put(CHANNEL + name, channel.described())
        return channel

    def _take_day(self, held: bool, channel: Channel, row: int, day: int, start: int, values: Array, codes: Array) -> Iterator[Changed]:
        key = f"{DAY}{day}/{channel.key}"
        # Where nothing is left of a day, it belongs to another account now
        data, old = pack_day(start, values, codes, held=held) if codes.any() else None, self._state.entries.get(key)
        if data == old:
            return
        before = unpack_day(old)[1:] if old else None
        self._state.put(key, data)
        (channel.days.add if data else channel.days.discard)(day)
        yield Changed(channel.account, start, start + len(values) * channel.seconds, row, channel, before)

    def _take_reads(self, channel: Channel, row: int, at: Array, values: Array, codes: Array, multiplier: int) -> Iterator[Changed]:
        touched: list[int] = []
        for bucket in np.unique(at[at > 0] // BUCKET).tolist():
            key, here = f"{READS}{bucket}/{channel.key}", np.flatnonzero(at // BUCKET == bucket)
            held = {read[0]: read for read in json.loads(self._state.entries.get(key, b"[]"))}
            before = len(touched)
            for moment, value, code in zip(at[here].tolist(), values[here].tolist(), codes[here].tolist(), strict=True):
                fresh = [moment, value if code >= c.OUTAGE else 0, code, multiplier] if code else None
                if held.get(moment) != fresh:
                    held.pop(moment, None)  # without a condition it belongs to another account now
                    held |= {moment: fresh} if fresh else {}
                    touched.append(moment)
            if len(touched) > before:
                self._state.put(key, json.dumps([held[m] for m in sorted(held)]).encode() if held else None)
                (channel.days.add if held else channel.days.discard)(bucket)
        if touched:  # the difference behind a new reading changes too
            yield Changed(channel.account, min(touched) - 1, self._next_read(channel, max(touched)), row, channel)

    def _next_read(self, channel: Channel, at: int) -> int:
        """The time of the first reading behind a moment; a second later where there is none."""
        for bucket in sorted(number for number in channel.days if number >= at // BUCKET):
            later = [read.at for read in self._bucket(channel, bucket) if read.at > at]
            if later:
                return min(later)
        return at + 1

    # --- master data ---------------------------------------------------------------------------------------------------------

    def subscribe(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        """Takes a subscription's periods over; returns what was known before."""
        self.prepare()
        before = self.subscriptions.get(body["subscription"], [])
        self.subscriptions[body["subscription"]] = body["periods"]
        self._state.put(SUBSCRIPTION + body["subscription"], json.dumps(body["periods"], sort_keys=True).encode())
        return before

    def subscription(self, account: str, at: int) -> dict[str, Any] | None:
        """What master data say of a subscription at a moment; None where they say nothing."""
        return next((p for p in self.subscriptions.get(account, []) if _inside(p, at)), None)

    def active(self, account: str) -> list[tuple[int, int]]:
        """Spans in which a subscription exists; everything where master data do not know it."""
        periods = self.subscriptions.get(account)
        if periods is None:
            return [(0, 2**40)]
        return [(p["from"] or 0, 2**40 if p["to"] is None else p["to"]) for p in periods]

    def install(self, body: dict[str, Any]) -> None:
        """Keeps when a channel's device is installed."""
        spans = [[p["from"], p["to"]] for p in body.get("periods", []) if p["state"] != "uninstalled"]
        self._state.put(INSTALLED + key_of(body["device"], body["channel"]), json.dumps(spans).encode())

    def installed(self, channel: Channel) -> list[tuple[int, int]] | None:
        """Spans in which a channel's device is installed; None where master data say nothing."""
        data = self._state.entries.get(INSTALLED + key_of(channel.device, channel.channel))
        spans = json.loads(data) if data else []
        return [(a or 0, 2**40 if b is None else b) for a, b in spans] or None

    # --- events --------------------------------------------------------------------------------------------------------------

    def event(self, body: dict[str, Any]) -> list[TouEvent]:
        """Takes a critical-peak event in, or out again where it is cancelled; what is other than before: the event as it was, and as it is.

        It comes from every VEE partition, so that each has it before what it tells again: what was heard already, or is older, is nothing.
        """
        self.prepare()
        name = EVENT + body["id"]
        held = json.loads(self._state.entries[name]) if name in self._state.entries else None
        if held is not None and held["sequence"] >= body["sequence"] > 0:
            return []
        kept = {key: body[key] for key in ("id", "start", "end", "tou", "use", "maps", "accounts", "cancelled", "sequence")}
        self._state.put(name, json.dumps(kept, sort_keys=True).encode())
        before = self.events.pop(body["id"], None)
        self._note(kept)
        return list(dict.fromkeys(event for event in (before, self.events.get(body["id"]) or _event(kept)) if event is not None))

    def known_events(self) -> Iterable[TouEvent]:
        """The critical-peak events that hold."""
        self.prepare()
        return self.events.values()

    def _note(self, body: dict[str, Any]) -> None:
        if not body["cancelled"]:
            self.events[body["id"]] = _event(body)

    # --- reading -------------------------------------------------------------------------------------------------------------

    def channels(self, account: str) -> list[Channel]:
        """The channels of an account, in the order of their keys."""
        self.prepare()
        return [found for _, found in sorted(self.accounts.get(account, {}).items())]

    def curve(self, channel: Channel, begin: int, end: int) -> Curve:
        """Intervals that begin in [begin, end); where nothing is kept, nothing is due."""
        days = np.arange(*(int(calendar.day_of(channel.zone, t)) + k for t, k in ((begin, 0), (max(begin, end - 1), 1))))
        starts = calendar.start_of(channel.zone, days)
        counts = np.array([int(calendar.slots_of(channel.zone, d, channel.seconds)) for d in days.tolist()])
        first = int(starts[0])
        size = int((int(starts[-1]) - first) // channel.seconds + counts[-1])
        values, codes = np.zeros(size, np.int64), np.zeros(size, np.int32)
        for day in sorted(channel.days & set(days.tolist())):
            start, own, conditions = unpack_day(self._state.entries[f"{DAY}{day}/{channel.key}"])
            at = (start - first) // channel.seconds
            values[at : at + len(own)], codes[at : at + len(own)] = own[: size - at], conditions[: size - at]
        return Curve(first, channel.seconds, channel.unit, values, codes).part(begin, end)

    def in_exception(self, account: str, begin: int, end: int) -> int:
        """How many channel-days of a span VEE has in exception."""
        found = 0
        for channel in self.channels(account):
            if channel.seconds:
                first, last = (int(calendar.day_of(channel.zone, t)) for t in (begin, max(begin, end - 1)))
                inside = [day for day in channel.days if first <= day <= last]
                found += sum(bool(self._state.entries[f"{DAY}{day}/{channel.key}"][_HEAD.size - 1] & 2) for day in inside)
        return found

    def reads(self, channel: Channel, begin: int, end: int) -> list[Read]:
        """Readings of a register around a span, by time: from the last usable one at or before its begin to a day behind its end."""
        numbers = [number for number in sorted(channel.days) if number <= (end + _DAY) // BUCKET]
        near = [number for number in numbers if number >= (begin - _DAY) // BUCKET]
        found = [read for number in near for read in self._bucket(channel, number)]
        for number in reversed(numbers[: len(numbers) - len(near)]):
            if any(read.at <= begin and read.condition >= c.OUTAGE for read in found):
                break
            found = self._bucket(channel, number) + found
        return found

    def _bucket(self, channel: Channel, number: int) -> list[Read]:
        return [Read(*read) for read in json.loads(self._state.entries[f"{READS}{number}/{channel.key}"])]

    def first(self, channel: Channel) -> int:
        """The UTC second from which data of a channel are kept; far away where there are none."""
        if not channel.days:
            return 2**40
        if channel.seconds:
            return int(calendar.start_of(channel.zone, min(channel.days)))
        return self._bucket(channel, min(channel.days))[0].at

    def newest(self, account: str) -> int:
        """The UTC second up to which an account has data; 0 where it has none."""
        ends = [
            int(calendar.start_of(ch.zone, max(ch.days) + 1)) if ch.seconds else (max(ch.days) + 1) * BUCKET
            for ch in self.accounts.get(account, {}).values()
            if ch.days
        ]
        return max(ends, default=0)

    def forget(self, account: str, before: int) -> None:
        """Drops days and readings that ended before a UTC second."""
        for channel in self.accounts.get(account, {}).values():
            limit = int(calendar.day_of(channel.zone, before)) if channel.seconds else before // BUCKET
            for number in [n for n in channel.days if n < limit]:
                self._state.put(f"{DAY if channel.seconds else READS}{number}/{channel.key}", None)
                channel.days.discard(number)


def _inside(period: dict[str, Any], at: int) -> bool:
    return (period["from"] or 0) <= at and (period["to"] is None or at < period["to"])


def _event(body: dict[str, Any]) -> TouEvent:
    return TouEvent(body["id"], body["start"], body["end"], body["tou"], body["use"], tuple(body["maps"]), tuple(body["accounts"]))
