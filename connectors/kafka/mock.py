"""librdkafka's broker inside this process: groups, transactions and fetches in milliseconds, for tests and rehearsals.

It makes topics by itself on first use and knows no administration requests.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from confluent_kafka import Producer


class MockBroker:
    """A running mock cluster. ``bootstrap`` is what clients of any library connect to; it ends with :meth:`close`."""

    def __init__(self, brokers: int = 1, **extra: str | int) -> None:
        config = {f"test.mock.{name}": value for name, value in extra.items()}
        # The cluster lives inside a client; its metadata is the only way to learn the addresses
        self._owner = Producer({"bootstrap.servers": "mock:1", "test.mock.num.brokers": brokers, "log_level": 3, **config})
        found = self._owner.list_topics(timeout=120).brokers.values()
        self.bootstrap = ",".join(sorted(f"{b.host}:{b.port}" for b in found))

    def close(self) -> None:
        """Ends the cluster."""
        del self._owner

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
