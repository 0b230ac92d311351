"""What a person has accepted of days that are in the store: an entry of the state per channel that has any.

It cannot be told from what is stored: a day may be final because its findings were accepted, or because nothing was found when it was
decided, though the readings it is compared with have come since.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from streams.runtime.state import State

PREFIX: Final = "accepted/"  # accepted/<seconds>/<channel>: days and the bits of rules
_PAIR: Final = struct.Struct("<iq")


class Acceptance:
    """Accepted findings of stored days of one partition."""

    def __init__(self, state: State) -> None:
        self._state = state

    def of(self, seconds: int, key: str) -> dict[int, int]:
        """Day → bits of the rules whose findings were accepted, of a channel."""
        return dict(_PAIR.iter_unpack(self._state.entries.get(f"{PREFIX}{seconds}/{key}", b"")))

    def note(self, seconds: int, key: str, days: Iterable[tuple[int, int]]) -> None:
        """Notes the bits of stored days of a channel; 0: nothing is accepted."""
        before = self.of(seconds, key)
        after = {day: bits for day, bits in sorted((before | dict(days)).items()) if bits}
        if after != before:
            self._state.put(f"{PREFIX}{seconds}/{key}", b"".join(_PAIR.pack(*pair) for pair in after.items()) or None)
