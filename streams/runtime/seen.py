"""Ids taken before: hashed, in segments of one state entry each, the oldest segment forgotten first."""

from __future__ import annotations

from typing import Final

from schemas.identity import identity
from streams.runtime.state import State

SEGMENT: Final = 256  # ids per state entry
ID_BYTES: Final = 16


class Seen:
    """The last ``remember`` ids (rounded up to whole segments). Entries are ``<prefix><number>``, and no others begin like that."""

    def __init__(self, state: State, prefix: str, remember: int) -> None:
        self.state, self.prefix = state, prefix
        self._segments = max(2, -(-remember // SEGMENT) + 1)
        self._marks: set[bytes] | None = None
        self._newest = 0

    def is_new(self, id: str) -> bool:
        """Whether an id is seen for the first time; it is not from then on."""
        marks = self._known()
        mark = bytes.fromhex(identity(id))
        if mark in marks:
            return False
        marks.add(mark)
        entries = self.state.entries
        segment = entries.get(self._entry(self._newest), b"") + mark
        if len(segment) > SEGMENT * ID_BYTES:
            self._newest, segment = self._newest + 1, mark
            old = self._entry(self._newest - self._segments)
            if old in entries:
                marks.difference_update(_cut(entries[old]))
                self.state.put(old, None)
        self.state.put(self._entry(self._newest), segment)
        return True

    def _entry(self, number: int) -> str:
        return f"{self.prefix}{number}"

    def _known(self) -> set[bytes]:
        if self._marks is None:
            size = len(self.prefix)
            own = [key for key in self.state.entries if key.startswith(self.prefix)]
            self._marks = {mark for key in own for mark in _cut(self.state.entries[key])}
            self._newest = max((int(key[size:]) for key in own), default=0)
        return self._marks


def _cut(data: bytes) -> list[bytes]:
    return [data[i : i + ID_BYTES] for i in range(0, len(data), ID_BYTES)]
