"""The load curve of one channel in a span of time, with all that helps to judge it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from connectors.console.words import aware, quality
from connectors.head_end.listing import Rows

WEEKS: Final = 4
MILLION: Final = 1_000_000
DAYS: Final = """
SELECT day_start, seconds, step, unit, zone, version, state, service_point, account, values, conditions, methods,
    received, received_conditions
FROM final_days FINAL
WHERE device = {device:String} AND channel = {channel:String} AND seconds > 0
    AND day BETWEEN toDate32({first:DateTime('UTC')}) - 1 AND toDate32({last:DateTime('UTC')}) + 1
ORDER BY day_start
LIMIT 800
"""
REGISTERS: Final = """
SELECT channel, at, reading, unit FROM registers
WHERE device = {device:String} AND at >= {first:DateTime('UTC')} AND at < {last:DateTime('UTC')} AND reading IS NOT NULL
ORDER BY channel, at LIMIT 400
"""
EVENTS: Final = """
SELECT at, kind, severity, detail FROM device_events
WHERE device = {device:String} AND at >= {first:DateTime('UTC')} AND at < {last:DateTime('UTC')} ORDER BY at LIMIT 400
"""
OUTAGES: Final = """
SELECT began, ended FROM outages
WHERE device = {device:String} AND began < {last:DateTime('UTC')} AND (ended IS NULL OR ended > {first:DateTime('UTC')}) LIMIT 100
"""
DOUBTS: Final = """
SELECT rule, severity, status, start, end, detail, count, id, version FROM exceptions
WHERE device = {device:String} AND channel = {channel:String} AND start < {last:DateTime('UTC')} AND end > {first:DateTime('UTC')}
ORDER BY start, rule LIMIT 500
"""
ORDINARY: Final = 90  # percentile of the values shown that counts as ordinary
FAR: Final = 5.0  # times the ordinary: who goes beyond it would flatten all others
REACH: Final = 3.0  # times the ordinary: up to where a scale reaches then
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Register:
    """Readings of one register: UTC seconds and readings in the unit."""

    channel: str
    unit: str
    at: Sequence[int]
    reading: Sequence[Decimal]


@dataclass(frozen=True)
class Curve:
    """Slots of a channel side by side: ``start`` in UTC seconds, values in the unit, NaN where there is none.

    ``lower``, ``middle`` and ``upper`` are quartiles of the same slot on like days of the four weeks before. ``outages`` are spans in UTC
    seconds; ``doubts`` spans of open exceptions with their rule.
    """

    begin: int
    end: int
    seconds: int
    unit: str
    start: npt.NDArray[np.int64]
    value: Floats
    condition: npt.NDArray[np.int64]
    method: npt.NDArray[np.int64]
    received: Floats
    lower: Floats
    middle: Floats
    upper: Floats
    registers: Sequence[Register] = ()
    events: Sequence[tuple[int, str]] = ()
    outages: Sequence[tuple[int, int]] = ()
    doubts: Sequence[tuple[int, int, str]] = ()
    version: int = 0

    @property
    def has(self) -> npt.NDArray[np.bool_]:
        """Slots with a final value."""
        return ~np.isnan(self.value)

    @property
    def sent(self) -> npt.NDArray[np.bool_]:
        """Slots the head end delivered a value for."""
        return ~np.isnan(self.received)

    @property
    def kind(self) -> npt.NDArray[Any]:
        """The class of quality of each slot."""
        codes, places = np.unique(self.condition, return_inverse=True)
        return np.array([quality(int(code)) for code in codes] or [""], dtype=object)[places]


@dataclass(frozen=True, slots=True)
class Cut:
    """Values that would flatten all others: the slots that go beyond ``limit`` (in the unit, to either side of zero).

    ``value`` is the furthest of them, ``at`` the start of its slot in UTC seconds.
    """

    limit: float
    beyond: npt.NDArray[np.bool_]
    value: float
    at: int


def cut(curve: Curve, neighbours: Floats | None = None) -> Cut | None:
    """Where a scale is cut so that the ordinary values stay readable; None where nothing goes far beyond them.

    Ordinary is the largest of the expected band, and of all but the highest tenth of the values themselves and of the neighbours.
    """
    highest = np.fmax(curve.value, curve.received)
    lowest = np.fmin(curve.value, curve.received)
    reach = np.fmax(np.abs(highest), np.abs(lowest))
    known = reach[~np.isnan(reach)]
    if not known.size:
        return None
    band = np.fmax(np.abs(curve.lower), np.abs(curve.upper))
    near = np.abs(neighbours) if neighbours is not None else known[:0]
    parts = ((known, ORDINARY), (band[~np.isnan(band)], 100), (near[~np.isnan(near)], ORDINARY))
    ordinary = max(float(np.percentile(part, most)) for part, most in parts if part.size)
    if ordinary <= 0 or float(known.max()) <= FAR * ordinary:
        return None
    place = int(np.nanargmax(reach))
    value = highest[place] if abs(highest[place]) >= abs(lowest[place]) else lowest[place]
    limit = float(f"{REACH * ordinary:.2g}")
    return Cut(limit, reach > limit, float(value), int(curve.start[place]))


def load_curve(
    reader: Rows, device: str, channel: str, begin: datetime, end: datetime, zone: ZoneInfo, seconds: int | None = None
) -> tuple[Curve, list[dict[str, Any]]]:
    """The curve of [begin, end) and its exceptions; without data all arrays are empty. ``seconds``: interval length, else the commonest."""
    span = {"device": device, "channel": channel, "first": _text(begin), "last": _text(end)}
    first, last = int(begin.timestamp()), int(end.timestamp())
    past = {**span, "first": _text(datetime.fromtimestamp(first - WEEKS * 7 * 86_400, begin.tzinfo))}
    days = reader.rows(DAYS, past)
    lengths = [day["seconds"] for day in days if aware(day["day_start"]).timestamp() >= first - 90_000]
    length = seconds or (max(set(lengths), key=lengths.count) if lengths else 0)
    slots = slots_of([day for day in days if day["seconds"] == length])
    exceptions = reader.rows(DOUBTS, span)
    inside = (slots["start"] >= first) & (slots["start"] < last)
    here = {name: column[inside] for name, column in slots.items()}
    lower, middle, upper = _expected(slots, here, zone, first)
    newest = [day for day in days if day["seconds"] == length and first - 90_000 < aware(day["day_start"]).timestamp() < last]
    curve = Curve(
        first, last, length, newest[-1]["unit"] if newest else "", here["start"], here["value"], here["condition"], here["method"],
        here["received"], lower, middle, upper,
        _registers(reader.rows(REGISTERS, span)),
        [(_second(row["at"]), f"{row['kind']} {row['detail']}".strip()) for row in reader.rows(EVENTS, span)],
        [(_second(row["began"]), _second(row["ended"]) if row["ended"] else last) for row in reader.rows(OUTAGES, span)],
        [(_second(row["start"]), _second(row["end"]), row["rule"]) for row in exceptions if row["status"] == "open"],
        max((day["version"] for day in newest), default=0),
    )  # fmt: skip
    return curve, exceptions


def _registers(rows: Sequence[Mapping[str, Any]]) -> list[Register]:
    """Readings of each register, the one with most of them first."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["channel"], row["unit"]), []).append(row)
    ordered = sorted(found.items(), key=lambda entry: (-len(entry[1]), entry[0]))
    return [Register(channel, unit, [_second(r["at"]) for r in told], [r["reading"] for r in told]) for (channel, unit), told in ordered]


def _text(at: datetime) -> str:
    return f"{int(at.timestamp())}"


def _second(at: datetime) -> int:
    return int(aware(at).timestamp())


def slots_of(days: Sequence[Mapping[str, Any]]) -> dict[str, npt.NDArray[Any]]:
    """Arrays over all slots of the days; those that are not due are left out."""
    columns: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in ("start", "value", "condition", "method", "received")}
    for day in days:
        size = len(day["values"])
        values = np.array(day["values"], np.float64) * (day["step"] / MILLION)
        conditions = np.array(day["conditions"], np.int64)
        values[(conditions < 200_000) & (conditions >= 100_000)] = np.nan
        # Empty arrays of received values: exactly the final ones came
        got = np.array(day["received_conditions"], np.int64) if len(day["received_conditions"]) else conditions
        sent = np.array(day["received"], np.float64) / MILLION if len(day["received"]) else values.copy()
        sent[(got == 0) | ((got >= 100_000) & (got < 200_000))] = np.nan
        due = conditions > 0
        columns["start"].append((_second(day["day_start"]) + np.arange(size, dtype=np.int64) * day["seconds"])[due])
        columns["value"].append(values[due])
        columns["condition"].append(conditions[due])
        columns["method"].append(np.array(day["methods"], np.int64)[due])
        columns["received"].append(sent[due])
    types = {"start": np.int64, "value": np.float64, "condition": np.int64, "method": np.int64, "received": np.float64}
    return {name: np.concatenate(parts) if parts else np.empty(0, types[name]) for name, parts in columns.items()}


def _expected(
    slots: Mapping[str, npt.NDArray[Any]], here: Mapping[str, npt.NDArray[Any]], zone: ZoneInfo, first: int
) -> tuple[Floats, Floats, Floats]:
    """Quartiles of like slots (weekday or weekend, local time of day) with measured values in the weeks before; NaN below four of them."""
    past = (slots["start"] < first) & (slots["condition"] >= 500_000) & ~np.isnan(slots["value"])
    groups: dict[tuple[bool, int], list[float]] = {}
    for at, value in zip(slots["start"][past].tolist(), slots["value"][past].tolist(), strict=True):
        groups.setdefault(_like(at, zone), []).append(value)
    nothing = (np.nan, np.nan, np.nan)
    found = {key: tuple(np.percentile(values, (25, 50, 75))) for key, values in groups.items() if len(values) >= 4}
    rows = np.array([found.get(_like(at, zone), nothing) for at in here["start"].tolist()], np.float64).reshape(-1, 3)
    return rows[:, 0], rows[:, 1], rows[:, 2]


def _like(at: int, zone: ZoneInfo) -> tuple[bool, int]:
    local = datetime.fromtimestamp(at, zone)
    return local.weekday() >= 5, local.hour * 60 + local.minute
