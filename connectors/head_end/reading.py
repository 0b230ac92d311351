"""What the gateway asks the store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from connectors.clickhouse.query import history_asked, run_readonly, settled, settled_tick
from connectors.clickhouse.store import Limits, Store


class StoreReader:
    """The gateway's questions as queries. ``partitions`` is how many every topic of the chain has."""

    def __init__(self, store: Store, partitions: int, limits: Limits | None = None) -> None:
        self.store, self.partitions, self.limits = store, partitions, limits or Limits()

    def payloads(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """Known payloads, with ``complete``: all they led to is in the store."""
        return list(settled(self.store, ids).values())

    def settled_tick(self) -> int | None:
        """The latest time to which every partition has stored all its ticks led to; None before the first."""
        return settled_tick(self.store, self.partitions)

    def history_asked(self) -> tuple[int | None, bool]:
        """The latest tick that asked the store for history, and whether an answer is still under way."""
        return history_asked(self.store)

    def rows(self, sql: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Rows of one of the gateway's own queries: aware times, exact decimals."""
        return self.store.query_rows(sql, parameters)

    def stream(self, sql: str) -> Iterator[bytes]:
        """NDJSON of somebody else's query; raises ValueError in the engine's words, at the first piece, where it is refused."""
        yield from run_readonly(self.store, sql, self.limits)
