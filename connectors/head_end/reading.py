"""What the gateway asks the store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from connectors.clickhouse.query import SqlError, run_readonly, settled
from connectors.clickhouse.store import Limits, Store

DONE: Final = frozenset({"stored", "dead", "duplicate"})
LOOK_BACK: Final = 900  # seconds: an older tick says nothing about the present
_SETTLED_TICK: Final = """
SELECT lane, max(toUnixTimestamp(at)) AS newest
FROM
(
    SELECT splitByChar('/', payload)[3] AS lane, at
    FROM tick_receipts FINAL
    WHERE at >= (SELECT max(at) FROM tick_receipts) - {look_back:UInt32}
    GROUP BY payload, at
    HAVING countIf(agent = 'ingest') > 0 AND count() = 1 + sum(children)
)
GROUP BY lane
"""


class StoreReader:
    """The gateway's questions as queries. ``partitions`` is how many every topic of the chain has."""

    def __init__(self, store: Store, partitions: int, limits: Limits | None = None) -> None:
        self.store, self.partitions, self.limits = store, partitions, limits or Limits()

    def payloads(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """Known payloads, with ``complete``: all they led to is in the store."""
        return [{**row, "complete": row["status"] in DONE} for row in settled(self.store, ids).values()]

    def settled_tick(self) -> int | None:
        """The latest time to which every partition has stored all its ticks led to; None before the first."""
        rows = self.store.query_arrow(_SETTLED_TICK, {"look_back": LOOK_BACK}).to_pylist()
        return min(int(row["newest"]) for row in rows) if len(rows) >= self.partitions else None

    def rows(self, sql: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Rows of one of the gateway's own queries."""
        found: list[dict[str, Any]] = self.store.query_arrow(sql, parameters).to_pylist()
        return found

    def stream(self, sql: str) -> Iterator[bytes]:
        """NDJSON of somebody else's query; ValueError in the engine's words where it is refused."""
        try:
            yield from run_readonly(self.store, sql, self.limits)
        except SqlError as error:
            raise ValueError(str(error)) from None
