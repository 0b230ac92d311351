"""The To-Dos of the agent: live ones in memory and as state entries, found by what they are about, and queued by role.

A To-Do is live until some time after its completion, so that it can be opened again; then the store alone remembers it. Entries:
``t/<id>`` a To-Do, ``g/<type>/<batch>`` how many exceptions of one payload (or one moment) raised a type and when, ``b/<command>`` what an
act changed, for undoing it.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final

import orjson

from streams.runtime.state import State

OPEN, WORKING, COMPLETED = "open", "working", "completed"
KEPT: Final = 50  # ids of exceptions a To-Do names
Item = dict[str, Any]  # fields of the Todo record, times as UTC seconds or None; and ``key``


class Items:
    """The live To-Dos. Made from the state at the first use after a restore."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._items: dict[str, Item] | None = None
        self._by_key: dict[str, str] = {}
        self._by_exception: dict[str, str] = {}
        self._queues: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
        self._loads: dict[str, int] = defaultdict(int)
        self._deadlines: list[tuple[int, str]] = []
        self._untold: set[str] = set()

    @property
    def all(self) -> dict[str, Item]:
        """Every live To-Do by id."""
        if self._items is None:
            self._items = {}
            for key in sorted(self.state.entries):
                if key.startswith("t/"):
                    self._note(orjson.loads(self.state.entries[key]))
        return self._items

    def get(self, id: str) -> Item | None:
        """A live To-Do."""
        return self.all.get(id)

    def of_key(self, key: str) -> Item | None:
        """The To-Do that is about something, completed ones included."""
        items = self.all
        return items.get(self._by_key.get(key, ""))

    def of_exception(self, exception: str) -> Item | None:
        """The To-Do that names an exception."""
        items = self.all
        return items.get(self._by_exception.get(exception, ""))

    def save(self, item: Item) -> None:
        """Takes a new To-Do or a new version of one."""
        before = self.all.get(item["id"])
        if before is not None:
            if before["state"] == WORKING:
                self._loads[before["user"]] -= 1
            if before["exceptions"] is not item["exceptions"]:
                self._forget(item["id"], set(before["exceptions"]).difference(item["exceptions"]))
        self.state.put(f"t/{item['id']}", orjson.dumps(item, option=orjson.OPT_SORT_KEYS))
        self._note(item, before)

    def _note(self, item: Item, before: Item | None = None) -> None:
        """Makes a To-Do found; queues hear of it only where its place changed: one that grows a million times is queued once."""
        assert self._items is not None
        self._items[item["id"]] = item
        (self._untold.add if item.get("untold") else self._untold.discard)(item["id"])
        self._by_key[item["key"]] = item["id"]
        if before is None or before["exceptions"] is not item["exceptions"]:
            for exception in item["exceptions"]:
                self._by_exception[exception] = item["id"]
        if item["state"] == WORKING:
            self._loads[item["user"]] += 1
        elif item["state"] == OPEN and (before is None or any(before[name] != item[name] for name in ("state", "role", "priority"))):
            heapq.heappush(self._queues[item["role"]], (-item["priority"], item["first_seen"], item["id"]))
        due = self.due(item)
        if due is not None and (before is None or self.due(before) != due):
            heapq.heappush(self._deadlines, (due, item["id"]))

    def _forget(self, id: str, exceptions: Iterable[str]) -> None:
        for exception in exceptions:
            if self._by_exception.get(exception) == id:
                del self._by_exception[exception]

    def drop(self, item: Item) -> None:
        """Forgets a To-Do; the store has it."""
        self.state.put(f"t/{item['id']}", None)
        self.all.pop(item["id"], None)
        if self._by_key.get(item["key"]) == item["id"]:
            del self._by_key[item["key"]]
        self._forget(item["id"], item["exceptions"])

    def due(self, item: Item) -> int | None:
        """When time changes something about it: a deadline passes, or it is forgotten."""
        if item["state"] == COMPLETED:
            return int(item["forget_at"])
        deadline = item["assign_by"] if item["state"] == OPEN else item["resolve_by"]
        return None if deadline is None else int(deadline)

    def overdue(self, now: int) -> list[Item]:
        """To-Dos whose moment has come, each once, the longest overdue first."""
        items, found = self.all, dict[str, Item]()
        while self._deadlines and self._deadlines[0][0] <= now:
            at, id = heapq.heappop(self._deadlines)
            item = items.get(id)
            if item is not None and self.due(item) == at:  # else it was put off, or done
                found[id] = item
        return list(found.values())

    def untold(self) -> list[Item]:
        """To-Dos that grew without a record of it."""
        return [self.all[id] for id in sorted(self._untold)] if self.all else []

    def next_for(self, roles: list[str]) -> Item | None:
        """The most urgent open To-Do of some roles, the oldest of equals."""
        items = self.all
        best: tuple[int, int, str] | None = None
        for role in roles:
            queue = self._queues.get(role)
            while queue:
                item = items.get(queue[0][2])
                if item is not None and item["state"] == OPEN and (item["role"], -item["priority"]) == (role, queue[0][0]):
                    break
                heapq.heappop(queue)
            if queue and (best is None or queue[0] < best):
                best = queue[0]
        return None if best is None else items[best[2]]

    def least_loaded(self, users: list[str]) -> str:
        """Who of some users has the fewest To-Dos at work; the first of equals."""
        loads = self._loads if self.all is not None else {}
        return min(users, key=lambda user: (loads.get(user, 0), users.index(user)))
