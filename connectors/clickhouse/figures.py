"""What the store tells operators: parts per table, completeness by source and day, how long what arrives takes to be stored."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import structlog

from connectors.clickhouse.query import settled_tick, stored_parts
from connectors.clickhouse.store import Store
from schemas import metrics
from schemas.conditions import EXT_ESTIMATE, RANGES

log = structlog.get_logger(__name__)
DAYS: Final = {0: "today", 1: "yesterday", 2: "before"}

_OUTAGE: Final = next(band for band in RANGES if band.name == "outage")
# Received is what the source delivered, also as its own estimate or as an outage; due is every slot that has a condition
_COMPLETENESS: Final = f"""
SELECT
    source, zone, day,
    sum(arrayCount(c -> c >= {EXT_ESTIMATE} OR (c BETWEEN {_OUTAGE.bottom} AND {_OUTAGE.top}), conditions)) AS received,
    sum(arrayCount(c -> c > 0, conditions)) AS due
FROM final_days FINAL
WHERE seconds > 0 AND day BETWEEN toDate32({{first:String}}) AND toDate32({{last:String}})
GROUP BY source, zone, day
"""


class Figures:
    """Looks every ``every`` seconds, at what costs more every ``rarely`` seconds."""

    def __init__(
        self, store: Store, partitions: int, *, every: float = 5.0, rarely: float = 60.0, now: Callable[[], float] = time.time
    ) -> None:
        self.store, self.partitions, self.every, self.rarely = store, partitions, every, rarely
        self._now = now
        self._tick: int | None = None
        self._looked = float("-inf")

    def run(self, stop: threading.Event) -> None:
        """Looks until ``stop`` is set. Whatever fails, it looks again: figures for people must not end what they are about."""
        while not stop.wait(self.every):
            try:
                self.look()
            except Exception as error:
                log.warning("the store does not tell its figures", error=str(error)[:300])

    def look(self) -> None:
        """Looks once and sets the metrics. Raises StoreError where the store does not answer."""
        tick = settled_tick(self.store, self.partitions)
        if tick is not None and tick != self._tick:
            if self._tick is not None:  # the first one may be from before a stop
                metrics.PAYLOAD_SECONDS.observe(max(self._now() - tick, 0.0))
            self._tick = tick
        if time.monotonic() - self._looked >= self.rarely:
            self._looked = time.monotonic()
            for table, parts in stored_parts(self.store).items():
                metrics.STORE_PARTS.labels(table).set(parts)
            self._note_completeness()

    def _note_completeness(self) -> None:
        now = self._now()
        today = datetime.fromtimestamp(now, UTC).date()
        bounds = {"first": str(today - timedelta(3)), "last": str(today + timedelta(1))}
        sums: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
        for row in self.store.query_rows(_COMPLETENESS, bounds):
            age = (datetime.fromtimestamp(now, ZoneInfo(row["zone"])).date() - row["day"]).days
            if age in DAYS:
                shares = sums[metrics.source_label(row["source"]), DAYS[age]]
                shares[0] += row["received"]
                shares[1] += row["due"]
        for labels, (received, due) in sums.items():
            if due:
                metrics.COMPLETENESS.labels(*labels).set(received / due)
