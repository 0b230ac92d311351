"""State of conversations: small JSON records by key, and when each wants to be looked at again."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any

import orjson

from streams.runtime.state import State, Table


class Records:
    """JSON objects in the entries of a state. A member ``due`` (UTC seconds) brings the record up in :meth:`due`."""

    def __init__(self) -> None:
        self.state = State(lambda _: Table({}))
        self._heap: list[tuple[int, str]] | None = None
        self._due: dict[str, int] = {}

    def get(self, key: str) -> dict[str, Any] | None:
        """The record of a key; None: there is none."""
        data = self.state.entries.get(key)
        return None if data is None else orjson.loads(data)

    def put(self, key: str, record: dict[str, Any] | None) -> None:
        """Sets a record; None removes it."""
        self._load()
        self.state.put(key, None if record is None else orjson.dumps(record, option=orjson.OPT_SORT_KEYS))
        due = None if record is None else record.get("due")
        if due is None:
            self._due.pop(key, None)
        elif self._due.get(key) != due:
            self._due[key] = due
            assert self._heap is not None
            heapq.heappush(self._heap, (due, key))

    def due(self, now: int) -> Iterator[str]:
        """Keys of records due by now, in order of time and key. Put each back with a later ``due``, or it is not brought up again."""
        self._load()
        heap = self._heap
        assert heap is not None
        while heap and heap[0][0] <= now:
            due, key = heapq.heappop(heap)
            if self._due.get(key) == due:
                del self._due[key]
                yield key

    def _load(self) -> None:
        if self._heap is not None:
            return
        self._due = {}
        for key, data in self.state.entries.items():
            due = orjson.loads(data).get("due") if b'"due":' in data else None
            if due is not None:
                self._due[key] = due
        self._heap = [(due, key) for key, due in self._due.items()]
        heapq.heapify(self._heap)
