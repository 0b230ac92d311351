"""What the store has beside a delivery: formats whose units are other than the hub's records need their neighbours."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from connectors.clickhouse.store import StoreError
from connectors.subscribers.parcel import AwayError
from schemas import quantity
from schemas.conditions import REPORTED_MISSING

AT_ONCE: Final = 500  # devices of one question
_INTERVALS: Final = """
SELECT device, channel, seconds, toUnixTimestamp(start) AS begin, value, condition, method FROM intervals
WHERE device IN {devices:Array(String)} AND channel IN {channels:Array(String)}
AND start >= fromUnixTimestamp({start:Int64}) AND start < fromUnixTimestamp({end:Int64})"""
_BEFORE: Final = """
SELECT toUnixTimestamp(at) AS second, reading, condition, method FROM registers
WHERE device = {device:String} AND channel = {channel:String} AND at < fromUnixTimestamp({at:Int64}) AND reading IS NOT NULL
ORDER BY at DESC LIMIT 1"""
_REGIONS: Final = """
SELECT object, JSONExtractString(span_body[-1], 'region') AS region FROM master_objects FINAL
WHERE kind = 'service_point' AND notEmpty(span_body) AND region != ''"""
Slot = tuple[int, int, str]
"""Value in millionths, condition, method."""
Series = tuple[str, str, int]
"""Device, channel, seconds of an interval."""


@dataclass(frozen=True, slots=True)
class Read:
    """A register read: UTC seconds, millionths, condition, method."""

    at: int
    value: int
    condition: int
    method: str = ""


class Past(Protocol):
    """What is known beside a delivery. Raises AwayError where it cannot be asked now."""

    def intervals(self, series: Iterable[Series], start: int, end: int) -> Mapping[Series, Mapping[int, Slot]]:
        """Final intervals that start in [start, end), UTC seconds, by series and start."""
        ...

    def before(self, device: str, channel: str, at: int) -> Read | None:
        """The last read of a register before a time; None: there is none."""
        ...


class Rows(Protocol):
    """Questions to the store."""

    def rows(self, sql: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]: ...


class StorePast:
    """Asks the store."""

    def __init__(self, reader: Rows) -> None:
        self.reader = reader

    def intervals(self, series: Iterable[Series], start: int, end: int) -> Mapping[Series, Mapping[int, Slot]]:
        """See :class:`Past`."""
        wanted = sorted(set(series))
        found: dict[Series, dict[int, Slot]] = {}
        for first in range(0, len(wanted), AT_ONCE):
            some = set(wanted[first : first + AT_ONCE])
            names = {"devices": sorted({one[0] for one in some}), "channels": sorted({one[1] for one in some})}
            for row in self._rows(_INTERVALS, {**names, "start": start, "end": end}):
                key = row["device"], row["channel"], int(row["seconds"])
                if key in some:
                    code = int(row["condition"]) if row["value"] is not None else min(int(row["condition"]), REPORTED_MISSING)
                    found.setdefault(key, {})[int(row["begin"])] = (_micros(row["value"] or 0), code, row["method"])
        return found

    def before(self, device: str, channel: str, at: int) -> Read | None:
        """See :class:`Past`."""
        rows = self._rows(_BEFORE, {"device": device, "channel": channel, "at": at})
        return Read(int(rows[0]["second"]), _micros(rows[0]["reading"]), int(rows[0]["condition"]), rows[0]["method"]) if rows else None

    def _rows(self, sql: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        try:
            return self.reader.rows(sql, parameters)
        except StoreError as error:
            raise AwayError(f"the store does not answer: {error}"[:300]) from None


class Regions:
    """The region of each service point as master data have it now; read whole, again when it is older than ``every`` seconds.

    Safe for many threads. Raises AwayError while the store has never answered.
    """

    def __init__(self, reader: Rows, every: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.reader, self.every, self._clock = reader, every, clock
        self._lock = threading.Lock()
        self._known: dict[str, str] | None = None
        self._read_at = 0.0

    def of(self, point: str) -> str:
        """The region of a service point; empty: none is known."""
        with self._lock:
            if self._known is None or self._clock() - self._read_at >= self.every:
                self._read()
            assert self._known is not None
            return self._known.get(point, "")

    def _read(self) -> None:
        try:
            self._known = {row["object"]: sys.intern(row["region"]) for row in self.reader.rows(_REGIONS, {})}
        except StoreError as error:
            if self._known is None:
                raise AwayError(f"the store does not answer: {error}"[:300]) from None
        self._read_at = self._clock()


def _micros(value: Any) -> int:
    return quantity.parse(format(value, "f") if hasattr(value, "as_tuple") else str(value))
