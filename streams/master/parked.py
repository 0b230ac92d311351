"""Items that name something unknown, kept until it comes."""

from __future__ import annotations

from typing import Any, Final

import orjson

from streams.master.registry import Key
from streams.master.timeline import EVER, FOREVER, Bounds
from streams.runtime.state import State

PREFIX: Final = "parked/"
Waiting = tuple[dict[str, Any], list[dict[str, Any]]]  # who asked, and the items that belong together


class Parked:
    """Entries of the state that hold waiting items, by what they wait for and by what they are about. Both indexes are derived."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._known = False
        self._waiting: dict[Key, list[str]] = {}
        self._about: dict[Key, list[str]] = {}

    @property
    def count(self) -> int:
        """How many sets of items wait."""
        self._index()
        return sum(map(len, self._waiting.values()))

    def park(self, sequence: int, target: Key, batch: dict[str, Any], items: list[dict[str, Any]]) -> None:
        """Keeps items until ``target`` is known."""
        self._index()
        entry = f"{PREFIX}{sequence:015d}"
        self.state.put(entry, orjson.dumps([target, batch, items]))
        self._note(entry, target, items)

    def release(self, target: Key) -> list[Waiting]:
        """Takes out what waits for an object, in the order in which it came."""
        self._index()
        return [self._take(entry) for entry in sorted(self._waiting.get(target, ()))]

    def replaced(self, about: Key, bounds: Bounds) -> list[Waiting]:
        """Takes out single items that put the same object in a span of time which ``bounds`` cover: they are out of date."""
        self._index()
        found = []
        for entry in sorted(self._about.get(about, ())):
            _, _, items = orjson.loads(self.state.entries[entry])
            begin, end = items[0]["from"], items[0]["to"]
            if len(items) == 1 and bounds[0] <= (EVER if begin is None else begin) and (FOREVER if end is None else end) <= bounds[1]:
                found.append(self._take(entry))
        return found

    def _take(self, entry: str) -> Waiting:
        target, batch, items = orjson.loads(self.state.entries[entry])
        self.state.put(entry, None)
        about = {(item["kind"], item["object"]): self._about for item in items}
        for key, index in [((target[0], target[1]), self._waiting), *about.items()]:
            index[key].remove(entry)
            if not index[key]:
                del index[key]
        return batch, items

    def _note(self, entry: str, target: Key, items: list[dict[str, Any]]) -> None:
        self._waiting.setdefault(target, []).append(entry)
        for item in items:
            about = self._about.setdefault((item["kind"], item["object"]), [])
            if entry not in about:
                about.append(entry)

    def _index(self) -> None:
        if not self._known:
            self._known = True
            for entry in sorted(self.state.entries):
                if entry.startswith(PREFIX):
                    target, _, items = orjson.loads(self.state.entries[entry])
                    self._note(entry, (target[0], target[1]), items)
