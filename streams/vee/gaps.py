"""What a channel lacks: days whose estimates lean on other days or on a register, and whole days without a read between days with reads.

Both are kept as entries of the state, so that only channels with gaps pay for them. Everything else is derived.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np

from streams.runtime.state import State, Table
from streams.vee.batch import Ints, Mask

_LEANS: Final = "leans"  # leans/<seconds>/<channel>: packed day × 2, plus 1 where like days are wanted
_HOLES: Final = "holes"  # holes/<seconds>/<channel>: packed first and last day of each
_MOST: Final = 400  # leaning days remembered per channel


class Gaps:
    """The gaps of a partition's channels."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._leaning: dict[tuple[int, str], dict[int, bool]] | None = None
        self._holes: dict[tuple[int, str], list[tuple[int, int]]] = {}
        self._rows: dict[int, Mask] = {}  # interval length → ring rows with leaning days
        self._moved: dict[int, set[str]] = {}  # channels for which that may have changed

    def _load(self) -> dict[tuple[int, str], dict[int, bool]]:
        if self._leaning is None:
            self._leaning, self._holes = {}, {}
            for entry, data in self.state.entries.items():
                kind, _, rest = entry.partition("/")
                if kind not in (_LEANS, _HOLES):
                    continue
                seconds, _, key = rest.partition("/")
                numbers = np.frombuffer(data, "<i4").tolist()
                if kind == _LEANS:
                    self._leaning[int(seconds), key] = {number >> 1: bool(number & 1) for number in numbers}
                else:
                    self._holes[int(seconds), key] = list(zip(numbers[::2], numbers[1::2], strict=True))
        return self._leaning

    # --- days whose estimates lean ----------------------------------------------------------------------------------------------

    @property
    def any_leaning(self) -> bool:
        """Whether any channel has such days."""
        return bool(self._load())

    def leaning(self, seconds: int, key: str) -> dict[int, bool]:
        """Days of a channel whose estimates lean on more than the days beside them; true where they want like days."""
        return self._load().get((seconds, key), {})

    def rows_leaning(self, seconds: int, table: Table) -> Mask:
        """Which rows of a ring table have such days."""
        known, rows = self._load(), self._rows.get(seconds)
        if rows is None or len(rows) < len(table):
            rows = self._rows[seconds] = np.zeros(len(table) * 5 // 4 + 64, np.bool_)
            rows[[table.index[key] for length, key in known if length == seconds]] = True
        for key in self._moved.pop(seconds, ()):
            rows[table.index[key]] = (seconds, key) in known
        return rows

    def lean(self, seconds: int, key: str, changes: Iterable[tuple[int, bool | None]]) -> None:
        """Sets days of a channel (None: it leans no more)."""
        known = self._load()
        days = known.setdefault((seconds, key), {})
        before = dict(days)
        for day, like in changes:
            if like is None:
                days.pop(day, None)
            else:
                days[day] = like
        for day in sorted(days)[:-_MOST]:
            del days[day]
        if days != before:
            self._moved.setdefault(seconds, set()).add(key)
            packed = np.array([day * 2 + like for day, like in sorted(days.items())], "<i4").tobytes()
            self.state.put(f"{_LEANS}/{seconds}/{key}", packed or None)
        if not days:
            del known[seconds, key]

    # --- days without a read ----------------------------------------------------------------------------------------------------

    def holes(self, seconds: int) -> Iterator[tuple[str, list[tuple[int, int]]]]:
        """Channels with whole days without a read, and first and last day of each run of these."""
        self._load()
        for (length, key), holes in list(self._holes.items()):
            if length == seconds:
                yield key, list(holes)

    def has_holes(self, seconds: int, key: str) -> bool:
        """Whether a channel has such days."""
        self._load()
        return (seconds, key) in self._holes

    @property
    def any_holes(self) -> bool:
        """Whether any channel has such days."""
        self._load()
        return bool(self._holes)

    def open(self, seconds: int, key: str, first: int, last: int) -> None:
        """Notes days without a read."""
        self._load()
        self._set(seconds, key, sorted([*self._holes.get((seconds, key), ()), (first, last)]))

    def fill(self, seconds: int, key: str, days: Iterable[int]) -> None:
        """Notes that these days have a row now."""
        self._load()
        holes = self._holes.get((seconds, key))
        if holes is None:
            return
        for day in sorted(days):
            holes = [
                part for a, b in holes for part in (((a, day - 1), (day + 1, b)) if a <= day <= b else ((a, b),)) if part[0] <= part[1]
            ]
        self._set(seconds, key, holes)

    def _set(self, seconds: int, key: str, holes: list[tuple[int, int]]) -> None:
        entry = f"{_HOLES}/{seconds}/{key}"
        if holes:
            self._holes[seconds, key] = holes
        else:
            self._holes.pop((seconds, key), None)
        data = np.array(holes, "<i4").tobytes() if holes else None
        if data != self.state.entries.get(entry):
            self.state.put(entry, data)


def new_holes(row: Ints, day: Ints, oldest: Ints, newest: Ints) -> list[tuple[int, int, int]]:
    """Days without a read that days with reads (``row``, ``day`` ascending) leave: (row, first, last).

    ``oldest`` and ``newest`` are the days of each row that were reached before, -1 for none.
    """
    if not len(row):
        return []
    same = row[1:] == row[:-1]
    before = np.r_[-1, np.where(same, day[:-1], -1)]
    behind = np.r_[np.where(same, day[1:], 1 << 30), 1 << 30]
    floor = np.maximum(before, newest)
    ahead = (day > newest) & (floor >= 0) & (day > floor + 1)
    ceiling = np.minimum(behind, oldest)
    back = (newest >= 0) & (day < oldest) & (ceiling > day + 1)
    found = [(int(row[k]), int(floor[k]) + 1, int(day[k]) - 1) for k in np.flatnonzero(ahead).tolist()]
    return found + [(int(row[k]), int(day[k]) + 1, int(ceiling[k]) - 1) for k in np.flatnonzero(back).tolist()]
