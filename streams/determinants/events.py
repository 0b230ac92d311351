"""Usage events: consumption of accounts as it becomes known, for prepaid engines and portals. One readable record per span."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any, Final

import numpy as np

from schemas.block import DIRECTIONS, OPEN, DayBlock, FinalBlock, starts_of
from schemas.conditions import NOT_RECEIVED, OUTAGE, REGULAR, SUSPECT
from schemas.identity import identity, partition_of
from schemas.topology.usage import EventSettings
from schemas.units import resolve
from streams import calendar
from streams.determinants.anonymous import is_anonymous
from streams.determinants.keys import key_of
from streams.determinants.sums import limits_of
from streams.determinants.usage.book import Changed
from streams.determinants.usage.curve import Curve
from streams.runtime.fold import Output, Result
from streams.runtime.state import State

LinesOf = Callable[[Changed, Curve], tuple[Any, list[str]]]
TOPIC: Final = "usage.events"
CHECKS: Final = "check/"  # device and register channel that only checks intervals of the same device
MOST: Final = 200  # events in one batch: what comes behind it does not wait long
_STATUS: Final = ("open", "final", "held")


@dataclass(frozen=True, slots=True)
class Span:
    """Whose consumption an event tells: a channel of an account, in one span of a local day."""

    account: str
    device: str
    channel: str
    unit: str
    measure: str
    grain: str
    start: int  # UTC seconds

    def identity(self, version: int) -> str:
        """The id of one version; empty for version 0, which never was."""
        return identity("usage", *(getattr(self, name) for name in self.__slots__), version) if version else ""


def batches(events: list[dict[str, Any]], partitions: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Usage events as UsageBatch records of at most MOST, by partition of their accounts; those of a partition in their order."""
    own: dict[int, list[dict[str, Any]]] = {}
    for event in events:
        own.setdefault(partition_of(event["account"], partitions), []).append(event)
    for number, told in sorted(own.items()):
        for first in range(0, len(told), MOST):
            yield number, {"events": told[first : first + MOST]}


class UsageEvents:
    """Tells accounts' daily sums, one by one in some topics, gathered by partition in others. Registers that only check intervals are
    not told twice.

    ``gathered``: topics that take batches, with their partitions.
    """

    def __init__(
        self, settings: EventSettings, state: State, topics: tuple[str, ...] = (TOPIC,), gathered: Mapping[str, int] | None = None
    ) -> None:
        self._settings, self._state, self._topics, self._gathered = settings, state, topics, gathered or {}
        self._waiting: list[dict[str, Any]] = []
        self._grains: dict[str, str] = {}

    def master(self, body: dict[str, Any]) -> None:
        """Takes over which register of a device only checks its intervals."""
        if body.get("check_channel"):
            self._state.put(CHECKS + key_of(body["device"], body["check_channel"]), b"")

    def grain_of(self, account: str) -> str:
        """How finely an account is told: ``day``, ``interval`` or not at all (empty)."""
        found = self._grains.get(account)
        if found is None:
            found = self._grains[account] = self._settings.grain_of(account)
        return found

    def tell(self, days: DayBlock, block: FinalBlock, result: Result) -> None:
        """Adds an event for each day of an account that is told by day. ``days`` are sums of the block's rows."""
        if is_anonymous(days.account):
            return
        accounts = days.account.to_pylist()
        told = [row for row, account in enumerate(accounts) if self.grain_of(account) == "day"]
        if not told:
            return
        about, highest = _About.of(block), _highest(block)
        begins = starts_of(days.lines)
        for row in told:
            span = Span(
                accounts[row], days.device[row].as_py(), days.channel[row].as_py(), days.unit[row].as_py(),
                "interval" if days.seconds[row] else "scalar", "day", int(days.start[row]),
            )  # fmt: skip
            if not self.tells(span):
                continue
            part = slice(int(begins[row]), int(begins[row]) + int(days.lines[row]))
            named = [(days.tou_names[t], q) for t, q in zip(days.tou[part].tolist(), days.quantities[part].tolist(), strict=True)]
            lines = [line for line in named if line[0]] or named
            peak = highest[row] if days.seconds[row] else (0, 0)
            body = _body(span, days, row, lines, about) | _demand(span.unit, int(days.seconds[row]), *peak)
            self._add(body, result)

    def intervals(self, changes: list[Changed], block: FinalBlock, lines_of: LinesOf, result: Result) -> None:
        """Adds an event for each interval that changed, of accounts that are told by interval."""
        for change in changes:
            channel, start = change.channel, change.start
            if not channel.seconds or self.grain_of(change.account) != "interval" or "interval" not in self._settings.measures:
                continue
            size = (change.end - start) // channel.seconds
            first = int(starts_of(block.count)[change.row])
            codes = block.conditions[first : first + size]
            values = np.where(codes >= OUTAGE, block.values[first : first + size], 0)
            had = change.before if change.before is not None and len(change.before[1]) == size else (np.zeros(size), np.zeros(size))
            lines, names = lines_of(change, Curve(start, channel.seconds, channel.unit, values, codes))
            version, replaces = int(block.version[change.row]), int(block.replaces[change.row])
            for slot in np.flatnonzero((codes != had[1]) | (values != had[0])).tolist():
                span = Span(
                    change.account, channel.device, channel.channel, channel.unit, "interval", "interval", start + slot * channel.seconds
                )  # fmt: skip
                code, name = int(codes[slot]), names[int(lines[slot])]
                amount = int(values[slot])
                body = {
                    "id": span.identity(version), "account": span.account, "service_point": channel.service_point, "device": span.device,
                    "channel": span.channel, "direction": channel.direction, "zone": channel.zone, "measure": span.measure,
                    "grain": span.grain, "day": calendar.date_of(int(block.day[change.row])), "start": span.start * 1000,
                    "end": (span.start + channel.seconds) * 1000, "unit": span.unit, "quantity": _decimal(amount),
                    "lines": [{"tou": name, "quantity": _decimal(amount)}], "condition": code, "slots": int(code > 0),
                    "actual": int(code >= REGULAR), "estimated": int(300_000 <= code < SUSPECT), "missing": int(0 < code < OUTAGE),
                    "provisional": code < REGULAR, "status": _STATUS[int(block.state[change.row])], "version": version,
                    "replaces": span.identity(replaces) if int(had[1][slot]) else "",
                    **_demand(span.unit, channel.seconds, amount, span.start + channel.seconds if makes_maximum(code) else 0),
                }  # fmt: skip
                self._add(body, result)

    def _add(self, body: dict[str, Any], result: Result) -> None:
        result.outputs += [Output(topic, "UsageEvent", body, body["account"].encode()) for topic in self._topics]
        if self._gathered:
            self._waiting.append(body)

    def gather(self, result: Result) -> None:
        """Adds what the message has told so far to the topics that take batches."""
        for topic, partitions in self._gathered.items():
            result.outputs += [Output(topic, "UsageBatch", batch, partition=number) for number, batch in batches(self._waiting, partitions)]
        self._waiting.clear()

    def tells(self, span: Span) -> bool:
        """Whether a channel's spans are told at all."""
        checks = span.measure == "scalar" and CHECKS + key_of(span.device, span.channel) in self._state.entries
        return span.measure in self._settings.measures and not checks


@dataclass(frozen=True, slots=True)
class _About:
    """What a block says of its channels beside their days."""

    directions: dict[tuple[str, str], str]
    zones: dict[str, str]
    missing: dict[tuple[str, str, int, int], int]  # device, channel, day, seconds → slots due without a usable value
    first: set[tuple[str, str, int, int]]  # days that come from another account: nothing of them has been told to this one

    @classmethod
    def of(cls, block: FinalBlock) -> _About:
        devices, channels = block.device.to_pylist(), block.channel.to_pylist()
        bad = np.append(0, np.cumsum((block.conditions > NOT_RECEIVED) & (block.conditions < OUTAGE)))
        begins = starts_of(block.count)
        missing = bad[begins + block.count] - bad[begins]
        days = list(zip(devices, channels, block.day.tolist(), block.seconds.tolist(), strict=True))
        had = np.append(0, np.cumsum(block.before_conditions > NOT_RECEIVED))
        before = starts_of(block.before_count)
        first = (block.before_count > 0) & (had[before + block.before_count] == had[before])
        names = list(zip(devices, channels, strict=True))
        return cls(
            {name: DIRECTIONS[code] for name, code in zip(names, block.direction.tolist(), strict=True)},
            dict(zip(devices, block.zone.to_pylist(), strict=True)),
            dict(zip(days, missing.tolist(), strict=True)),
            {days[row] for row in np.flatnonzero(first).tolist()},
        )


def _body(span: Span, days: DayBlock, row: int, lines: list[tuple[str, int]], about: _About) -> dict[str, Any]:
    slots, actual, state = int(days.slots[row]), int(days.actual[row]), int(days.state[row])
    day = (span.device, span.channel, int(days.day[row]), int(days.seconds[row]))
    missing = about.missing.get(day, 0) if days.seconds[row] else 0
    return {
        "id": span.identity(int(days.version[row])), "account": span.account, "service_point": days.service_point[row].as_py(),
        "device": span.device, "channel": span.channel, "direction": about.directions[span.device, span.channel],
        "zone": about.zones[span.device], "measure": span.measure, "grain": span.grain, "day": calendar.date_of(int(days.day[row])),
        "start": span.start * 1000, "end": int(days.end[row]) * 1000, "unit": span.unit,
        "quantity": _decimal(sum(quantity for _, quantity in lines)),
        "lines": [{"tou": name, "quantity": _decimal(quantity)} for name, quantity in lines],
        "condition": int(days.condition[row]), "slots": slots, "actual": actual, "estimated": int(days.estimated[row]), "missing": missing,
        "provisional": state == OPEN or actual < slots, "status": _STATUS[state], "version": int(days.version[row]),
        "replaces": "" if day in about.first else span.identity(int(days.replaces[row])),
    }  # fmt: skip


def makes_maximum(code: Any) -> Any:
    """Whether intervals of these conditions count for a maximum: usable ones, but for suspect ones (lumps, clock adjustments)."""
    return (code >= OUTAGE) & ((code < SUSPECT) | (code >= REGULAR))


def _highest(block: FinalBlock) -> list[tuple[int, int]]:
    """Of each row the largest interval (millionths) that counts, of equal ones the first, and the UTC second of its end (0: none)."""
    if not len(block.values) or not block.seconds.any():
        return [(0, 0)] * len(block)
    size = block.count.astype(np.int64)
    fit = makes_maximum(block.conditions) & (np.abs(block.values) <= np.repeat(limits_of(np.maximum(block.seconds, 1)), size))
    values = np.where(fit, block.values, np.iinfo(np.int64).min)
    begins, found = starts_of(block.count), []
    for row, (begin, many, seconds) in enumerate(zip(begins.tolist(), size.tolist(), block.seconds.tolist(), strict=True)):
        slot = int(values[begin : begin + many].argmax()) if many and seconds else -1
        has = slot >= 0 and bool(fit[begin + slot])
        found.append((int(values[begin + slot]), int(block.start[row]) + (slot + 1) * seconds) if has else (0, 0))
    return found


@lru_cache(maxsize=1024)
def _kilowatts(unit: str, seconds: int) -> Fraction | None:
    """What energy of one interval is multiplied by to be its mean power in kW; None: the unit is not one of energy."""
    found, kwh = resolve(unit), resolve("kWh")
    return found.ratio / kwh.ratio * Fraction(3600, seconds) if seconds and found.dimension == kwh.dimension else None


def _demand(unit: str, seconds: int, amount: int, end: int) -> dict[str, Any]:
    """Demand of an event: the power of its highest interval, that interval's length and end. ``end`` 0: none counts."""
    factor = _kilowatts(unit, seconds) if end else None
    if factor is None:
        return {"demand": None, "demand_seconds": 0, "demand_end": None}
    return {"demand": _decimal(round(amount * factor)), "demand_seconds": seconds, "demand_end": end * 1000}


def _decimal(micros: int) -> Decimal:
    return Decimal(micros).scaleb(-6)
