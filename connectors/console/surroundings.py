"""What is around a meter: the meters that hang on the same piece of grid, and the temperature outside where somebody measures it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson

from connectors.console.curve import Curve, Floats, slots_of
from connectors.console.words import aware
from connectors.head_end.listing import Rows
from connectors.rights.scope import Within

NEIGHBOURS: Final = 40
FEWEST: Final = 3  # neighbours with a value, so that a median says something
STATIONS: Final = 2000
CELSIUS: Final = "C"
_POINT: Final = "SELECT argMax(service_point, day) AS id FROM final_days WHERE device = {device:String} AND service_point != ''"
_INSTALLED: Final = "SELECT service_point AS id FROM master WHERE kind = 'install' AND device = {device:String} ORDER BY span DESC LIMIT 1"
_ATTRIBUTES: Final = (
    "SELECT id, argMax(attributes, span) AS body FROM master WHERE kind = 'service_point' AND id IN {ids:Array(String)} GROUP BY id"
)
_NEAR: Final = (
    "SELECT DISTINCT device FROM master WHERE INSIDE AND kind IN ('install', 'channel') AND device NOT IN ('', {device:String}) "
    "AND service_point IN (SELECT id FROM master WHERE kind = 'service_point' AND JSONExtractString(attributes, {side:String}) = "
    "{area:String}) ORDER BY device < {device:String}, device LIMIT {most:UInt32}"
)
_DAYS: Final = """
SELECT device, day_start, seconds, step, values, conditions, methods, received, received_conditions FROM final_days FINAL
WHERE device IN {devices:Array(String)} AND channel = {channel:String} AND seconds = {seconds:UInt32} AND unit = {unit:String}
    AND day BETWEEN toDate32({first:DateTime('UTC')}) - 1 AND toDate32({last:DateTime('UTC')}) + 1
"""
_STATIONS: Final = (
    "SELECT device, channel, argMax(service_point, day) AS service_point, max(day_start) AS newest FROM final_days "
    "WHERE INSIDE AND unit = {unit:String} AND day >= toDate32({since:DateTime('UTC')}) GROUP BY device, channel ORDER BY device, channel "
    "LIMIT {most:UInt32}"
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a device is, as master data tell: empty texts where they do not."""

    service_point: str = ""
    grid_area: str = ""
    region: str = ""


@dataclass(frozen=True, slots=True)
class Station:
    """A channel that measures the temperature, and where."""

    device: str
    channel: str
    place: Place
    newest: datetime


@dataclass(frozen=True, slots=True)
class Line:
    """Values beside a curve: UTC seconds of their starts, the values (NaN: none), and what they are of."""

    start: npt.NDArray[np.int64]
    value: Floats
    of: str
    count: int = 1


def place_of(reader: Rows, device: str) -> Place:
    """Where a device is."""
    for sql in (_POINT, _INSTALLED):
        point = next((row["id"] for row in reader.rows(sql, {"device": device}) if row["id"]), "")
        if point:
            return _places(reader, [point])[point]
    return Place()


def _places(reader: Rows, points: Sequence[str]) -> dict[str, Place]:
    found = {point: Place(point) for point in points}
    for row in reader.rows(_ATTRIBUTES, {"ids": list(points)}) if points else ():
        told = orjson.loads(row["body"] or "{}")
        found[row["id"]] = Place(row["id"], told.get("grid_area") or "", told.get("region") or "")
    return found


def near(reader: Rows, device: str, place: Place, inside: Within) -> tuple[list[str], str]:
    """Devices of the same grid area, or where none is known of the same region; and the name of what they share."""
    for side, area in (("grid_area", place.grid_area), ("region", place.region)):
        if area:
            rows = reader.rows(
                _NEAR.replace("INSIDE", inside.on("device")),
                {**inside.parameters, "device": device, "side": side, "area": area, "most": NEIGHBOURS},
            )
            if len(rows) >= FEWEST:
                return [row["device"] for row in rows], area
    return [], ""


def neighbours(reader: Rows, curve: Curve, channel: str, devices: Sequence[str], area: str) -> Line | None:
    """The median of what these devices measured in each slot of a curve; None where fewer than three did."""
    if not devices or not curve.start.size:
        return None
    asked = {
        "devices": list(devices), "channel": channel, "seconds": curve.seconds, "unit": curve.unit, "first": str(curve.begin),
        "last": str(curve.end),
    }  # fmt: skip
    by_device: dict[str, list[Mapping[str, Any]]] = {}
    for row in reader.rows(_DAYS, asked):
        by_device.setdefault(row["device"], []).append(row)
    rows = np.full((len(by_device), curve.start.size), np.nan)
    for number, days in enumerate(by_device.values()):
        slots = slots_of(days)
        places = np.searchsorted(curve.start, slots["start"])
        there = (places < curve.start.size) & (curve.start[np.minimum(places, curve.start.size - 1)] == slots["start"])
        rows[number, places[there]] = slots["value"][there]
    known = (~np.isnan(rows)).sum(axis=0) >= FEWEST
    if not known.any():
        return None
    value = np.full(curve.start.size, np.nan)
    value[known] = np.nanmedian(rows[:, known], axis=0)
    return Line(curve.start, value, area, len(by_device))


def stations(reader: Rows, now: datetime, area: Within) -> list[Station]:
    """Channels of an area that measured a temperature in the last forty days."""
    since = str(int((now - timedelta(days=40)).timestamp()))
    sql = _STATIONS.replace("INSIDE", area.on("final_days.service_point", "service_point"))
    rows = reader.rows(sql, {**area.parameters, "unit": CELSIUS, "since": since, "most": STATIONS})
    places = _places(reader, sorted({row["service_point"] for row in rows} - {""}))
    return [Station(row["device"], row["channel"], places.get(row["service_point"], Place()), aware(row["newest"])) for row in rows]


def station_for(device: str, place: Place, known: Sequence[Station]) -> Station | None:
    """The station that tells best of a place: of the device itself, its service point, its grid area, its region; else one of nowhere."""

    def rank(station: Station) -> int:
        at = station.place
        asked = (
            station.device == device, at.service_point != "" and at.service_point == place.service_point,
            at.grid_area != "" and at.grid_area == place.grid_area, at.region != "" and at.region == place.region, at == Place(),
        )  # fmt: skip
        return next((number for number, fits in enumerate(asked) if fits), len(asked))

    best = min(known, key=rank, default=None)
    return best if best is not None and rank(best) < 5 else None


def temperature(reader: Rows, station: Station, begin: int, end: int) -> Line | None:
    """What a station measured in a span of UTC seconds; None where it measured nothing."""
    rows = reader.rows(
        "SELECT start, value FROM intervals WHERE device = {device:String} AND channel = {channel:String} AND value IS NOT NULL "
        "AND start >= {first:DateTime('UTC')} AND start < {last:DateTime('UTC')} AND day >= toDate32({first:DateTime('UTC')}) - 1 "
        "AND day <= toDate32({last:DateTime('UTC')}) + 1 ORDER BY start LIMIT 20000",
        {"device": station.device, "channel": station.channel, "first": str(begin), "last": str(end)},
    )
    if not rows:
        return None
    start = np.array([int(aware(row["start"]).timestamp()) for row in rows], np.int64)
    return Line(start, np.array([float(row["value"]) for row in rows]), station.device)
