"""Rows that cannot be folded in yet, kept as encoded blocks in the state: parked until master data or time comes, or a stored day."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from schemas.block import FinalBlock, ReadBlock
from schemas.codec import Codec
from streams.runtime.state import State
from streams.vee.batch import Array, Ints
from streams.vee.older import Window, windows_of
from streams.vee.rejudging import Judged
from streams.vee.service import Owner

_PARKED: Final = "parked"  # parked/<sequence>/<reason>/<channel>: rows refused or early
_LATE: Final = "late"  # late/<sequence>/<seconds>/<channel>: rows of days that are in the store
_AGAIN: Final = "again"  # again/<day>/<seconds>/<channel>: stored days to be decided anew
_ASKED: Final = "asked"  # asked/<day>/<seconds>/<channel>: days asked of the store, then the answer
_ORDERS: Final = "orders"  # orders/<sequence>/<seconds>/<channel>: commands that wait for the days they concern
_WAS: Final = "was"  # was/<sequence>/<seconds>/<channel>: as what stored days that wait were judged
_PREVIEW: Final = "preview"  # preview/<sequence>: commands of which it is to be told what they would change
_BLANK: Final = b"-"
_TELL: Final = b"+"  # a day that is told again even if nothing changed
_VOID: Final = b"!"  # asked before readings of the register changed: what comes is to be asked anew


@dataclass(slots=True)
class Late:
    """What waits for stored days of one channel and interval length."""

    rows: list[str] = field(default_factory=list)  # entries, in the order the rows came
    again: set[int] = field(default_factory=set)
    tell: set[int] = field(default_factory=set)  # of these to be told whether anything changed or not
    asked: set[int] = field(default_factory=set)
    answered: set[int] = field(default_factory=set)
    void: set[int] = field(default_factory=set)
    orders: list[str] = field(default_factory=list)
    was: list[str] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Nothing waits."""
        return not (self.rows or self.again or self.orders)


@dataclass(slots=True)
class Given:
    """A channel-day as the store gave it back: one row of a FinalBlock, its cells as views of the block's columns."""

    source: FinalBlock
    row: int
    day: int
    unit: str
    version: int
    state: int
    values: Ints
    conditions: Array
    methods: Array
    received: Ints
    received_conditions: Array

    @property
    def owner(self) -> Owner:
        """Whose the day was when it was published."""
        block, row = self.source, self.row
        return Owner(block.account[row].as_py(), block.service_point[row].as_py(), int(block.multiplier[row]), self.unit)

    def block(self) -> FinalBlock:
        """The row as a block of its own."""
        return self.source if len(self.source) == 1 else self.source.take(np.array([self.row]))


def given_of(block: FinalBlock) -> list[Given]:
    """The rows of a block."""
    ends, received_ends = np.cumsum(block.count).tolist(), np.cumsum(block.received_count).tolist()
    found, units = [], block.unit.to_pylist()
    begin = received_begin = 0
    for row, (end, received_end) in enumerate(zip(ends, received_ends, strict=True)):
        cells, received = slice(begin, end), slice(received_begin, received_end)
        found.append(
            Given(
                block, row, int(block.day[row]), units[row], int(block.version[row]), int(block.state[row]), block.values[cells],
                block.conditions[cells], block.methods[cells], block.received[received], block.received_conditions[received],
            )
        )  # fmt: skip
        begin, received_begin = end, received_end
    return found


class Parking:
    """Entries of the state that hold rows. The index over them is derived, and made when first needed."""

    def __init__(self, state: State) -> None:
        self.state, self.codec = state, Codec()
        self._parked: dict[str, list[str]] | None = None
        self._late: dict[tuple[int, str], Late] = {}
        self._timed: dict[str, int] = {}
        # Entries as they were before they became bytes
        self._rows: dict[str, ReadBlock] = {}
        self._given: dict[str, Given | Window] = {}
        self._unwritten: dict[str, Given | Window] = {}  # answers that are not in the state yet
        self._looks: dict[str, str] | None = None
        self._windowed: set[str] = set()  # registers of which windows were asked for
        self._numbers: Counter[tuple[str, str]] = Counter()  # parked entries by channel and reason

    # --- refused or early rows ----------------------------------------------------------------------------------------------

    @property
    def parked(self) -> dict[str, list[str]]:
        """Channel → its parked entries in order."""
        if self._parked is None:
            self._index()
        assert self._parked is not None
        return self._parked

    def _index(self) -> None:
        self._parked, self._late = {}, {}
        for entry in sorted(self.state.entries):
            kind, _, rest = entry.partition("/")
            if kind == _PARKED:
                self._parked.setdefault(rest.split("/", 2)[2], []).append(entry)
                self._numbers[rest.split("/", 2)[2], reason_of(entry)] += 1
                self._time(entry)
            elif kind in (_LATE, _AGAIN, _ASKED, _ORDERS, _WAS):
                number, seconds, key = rest.split("/", 2)
                if kind == _ASKED and seconds == "0":
                    self._windowed.add(key)
                self._note(kind, int(number), self._at(int(seconds), key), entry)

    def _note(self, kind: str, number: int, late: Late, entry: str) -> None:
        if kind == _LATE:
            late.rows.append(entry)
        elif kind == _ORDERS:
            late.orders.append(entry)
        elif kind == _WAS:
            late.was.append(entry)
        elif kind == _AGAIN:
            late.again.add(number)
            if self.state.entries[entry] == _TELL:
                late.tell.add(number)
        else:
            late.asked.add(number)
            if self.state.entries[entry] == _VOID:
                late.void.add(number)
            elif self.state.entries[entry] != _BLANK:
                late.answered.add(number)

    def park(self, key: str, block: ReadBlock, reason: str, sequence: int, until: int = 0) -> int:
        """Parks rows of one channel (``until`` some second); returns how many entries the channel has parked for that reason."""
        entry = f"{_PARKED}/{sequence:015d}/{reason}@{until}/{key}"
        entries = self.parked.setdefault(key, [])
        entries.append(entry)
        self._time(entry)
        self.state.put(entry, self.codec.encode_block(block))
        self._numbers[key, reason] += 1
        return self._numbers[key, reason]

    def _time(self, entry: str) -> None:
        until = int(entry.split("/", 3)[2].partition("@")[2])
        if until:
            self._timed[entry] = until

    def release(self, key: str) -> list[tuple[str, ReadBlock]]:
        """Takes out all that is parked for a channel, in the order it came, with the reason."""
        return [(reason_of(entry), self._take(entry)) for entry in self.parked.pop(key, [])]

    def release_until(self, now: int) -> list[tuple[str, list[tuple[str, ReadBlock]]]]:
        """Takes out what was parked until a second that has come: per channel in the order it came, with the reason."""
        parked = self.parked
        ready = sorted(entry for entry, until in self._timed.items() if until <= now)
        taken: dict[str, list[tuple[str, ReadBlock]]] = {}
        for entry in ready:
            key = entry.split("/", 3)[3]
            parked[key].remove(entry)
            if not parked[key]:
                del parked[key]
            taken.setdefault(key, []).append((reason_of(entry), self._take(entry)))
        return list(taken.items())

    def holds(self, key: str, reason: str) -> bool:
        """Whether anything of a channel is parked for a reason."""
        return key in self.parked and self._numbers[key, reason] > 0

    def _take(self, entry: str) -> ReadBlock:
        block: ReadBlock = self.codec.decode(self.state.entries[entry])
        self.state.put(entry, None)
        self._timed.pop(entry, None)
        self._numbers[entry.split("/", 3)[3], reason_of(entry)] -= 1
        return block

    # --- previews of commands ---------------------------------------------------------------------------------------------------

    def look(self, command: dict[str, Any], sequence: int) -> str:
        """Keeps a command whose effect is asked for; returns its entry."""
        entry = f"{_PREVIEW}/{sequence:015d}"
        self.waiting_looks[entry] = command["device"]
        self.state.put(entry, self.codec.encode("Command", command))
        return entry

    @property
    def waiting_looks(self) -> dict[str, str]:
        """Entry → device of the previews that wait."""
        if self._looks is None:
            self._looks = {entry: self.previewed(entry)["device"] for entry in self.state.entries if entry.startswith(f"{_PREVIEW}/")}
        return self._looks

    def previews(self, devices: set[str]) -> list[str]:
        """Entries of commands on these devices that wait to be previewed, in order."""
        return sorted(entry for entry, device in self.waiting_looks.items() if device in devices)

    def previewed(self, entry: str) -> dict[str, Any]:
        """The command of an entry."""
        command: dict[str, Any] = self.codec.decode(self.state.entries[entry])
        return command

    def at_hand(self, place: tuple[str, int, int]) -> FinalBlock | None:
        """A stored day that was asked for and has come."""
        key, seconds, day = place
        return self._answered(seconds, key, day).block() if day in self.late(seconds, key).answered else None

    def seen(self, entry: str, keys: list[str]) -> None:
        """Forgets a preview, and what was asked of the store for it alone."""
        self.state.put(entry, None)
        device = self.waiting_looks.pop(entry)
        if not self.previews({device}):
            for seconds, key in [place for place, late in self._late.items() if place[1] in keys and late.empty and late.asked]:
                self.done(seconds, key)

    # --- rows that wait for stored days ---------------------------------------------------------------------------------------

    def _at(self, seconds: int, key: str) -> Late:
        return self._late.setdefault((seconds, key), Late())

    def late(self, seconds: int, key: str) -> Late:
        """What waits for a channel's stored days."""
        if self._parked is None:
            self._index()
        return self._at(seconds, key)

    def hold(self, seconds: int, key: str, block: ReadBlock, sequence: int) -> None:
        """Keeps rows of one channel until its stored days are back."""
        entry = f"{_LATE}/{sequence:015d}/{seconds}/{key}"
        self.late(seconds, key).rows.append(entry)
        self._rows[entry] = block
        self.state.put(entry, self.codec.encode_block(block))

    def order(self, seconds: int, key: str, command: dict[str, Any], sequence: int) -> None:
        """Keeps a command on interval days of one channel until these days are at hand."""
        entry = f"{_ORDERS}/{sequence:015d}/{seconds}/{key}"
        self.late(seconds, key).orders.append(entry)
        self.state.put(entry, self.codec.encode("Command", command))

    def waiting(self, late: Late) -> list[ReadBlock | dict[str, Any]]:
        """All rows and commands that wait, in the order they came."""
        entries = sorted([*late.rows, *late.orders], key=lambda entry: int(entry.split("/", 2)[1]))
        rows = set(late.rows)
        return [self._read(entry) if entry in rows else self.codec.decode(self.state.entries[entry]) for entry in entries]

    def orders_of(self, late: Late) -> list[dict[str, Any]]:
        """All commands that wait, in order."""
        return [self.codec.decode(self.state.entries[entry]) for entry in late.orders]

    def want_again(self, seconds: int, key: str, day: int, *, tell: bool = False) -> None:
        """Notes that a stored day is to be decided anew; with ``tell`` to be told even if nothing changed."""
        late = self.late(seconds, key)
        late.again.add(day)
        if tell:
            late.tell.add(day)
        self.state.put(f"{_AGAIN}/{day}/{seconds}/{key}", _TELL if day in late.tell else _BLANK)

    def judged_as(self, seconds: int, key: str, was: Judged, sequence: int) -> None:
        """Notes as what the stored days of a channel that are to be decided anew were judged."""
        entry = f"{_WAS}/{sequence:015d}/{seconds}/{key}"
        self.late(seconds, key).was.append(entry)
        self.state.put(entry, was.dump())

    def first_was(self, late: Late) -> Judged | None:
        """The first that was noted by :meth:`judged_as`."""
        return Judged.load(self.state.entries[late.was[0]]) if late.was else None

    def was_of(self, late: Late) -> list[Judged]:
        """All that was noted by :meth:`judged_as`, in order."""
        return [Judged.load(self.state.entries[entry]) for entry in late.was]

    def ask(self, seconds: int, key: str, day: int) -> bool:
        """Notes that the store is asked for a day; False where it had been asked before."""
        late = self.late(seconds, key)
        if day in late.asked:
            return False
        late.asked.add(day)
        if not seconds:
            self._windowed.add(key)
        self.state.put(f"{_ASKED}/{day}/{seconds}/{key}", _BLANK)
        return True

    def answer(self, seconds: int, key: str, given: Given | Window) -> bool:
        """Takes a stored day in; False where nobody waits for it. Call :meth:`keep` when the message is done."""
        late = self.late(seconds, key)
        if given.day not in late.asked:
            return False
        entry = f"{_ASKED}/{given.day}/{seconds}/{key}"
        if given.day in late.void:  # whoever waits asks again
            self._unask(entry, late, given.day)
            return True
        late.answered.add(given.day)
        self._given[entry] = self._unwritten[entry] = given
        return True

    def keep(self) -> None:
        """Puts the answers into the state that wait for others still; most were used by the message that brought them."""
        for entry, given in self._unwritten.items():
            self.state.put(entry, self.codec.encode_block(given.block()))
        self._unwritten.clear()

    def answered(self, seconds: int, key: str, day: int) -> Given:
        """A stored day that was answered."""
        given = self._answered(seconds, key, day)
        assert isinstance(given, Given)
        return given

    def _answered(self, seconds: int, key: str, day: int) -> Given | Window:
        entry = f"{_ASKED}/{day}/{seconds}/{key}"
        given = self._given.get(entry)
        if given is None:
            block: FinalBlock = self.codec.decode(self.state.entries[entry])
            given = self._given[entry] = given_of(block)[0] if seconds else windows_of(block)[0][1]
        return given

    # --- windows of older register readings -----------------------------------------------------------------------------------

    def windows(self, key: str) -> list[Window]:
        """The windows of a register that have come."""
        found = [self._answered(0, key, day) for day in sorted(self.late(0, key).answered)]
        return [window for window in found if isinstance(window, Window)]

    @property
    def windowed(self) -> set[str]:
        """Registers of which windows were asked for."""
        if self._parked is None:
            self._index()
        return self._windowed

    def forget_windows(self, key: str) -> None:
        """Forgets the windows of a register that have come; those still to come are void when they do."""
        late = self.late(0, key)
        for day in sorted(late.asked):
            entry = f"{_ASKED}/{day}/0/{key}"
            if day in late.answered:
                self._unask(entry, late, day)
            elif day not in late.void:
                late.void.add(day)
                self.state.put(entry, _VOID)
        self._windowed.discard(key)

    def _unask(self, entry: str, late: Late, day: int) -> None:
        for days in (late.asked, late.answered, late.void):
            days.discard(day)
        self.state.put(entry, None)
        self._given.pop(entry, None)
        self._unwritten.pop(entry, None)

    def rows_of(self, late: Late) -> list[ReadBlock]:
        """All rows that wait, in order."""
        return [self._read(entry) for entry in late.rows]

    def _read(self, entry: str) -> ReadBlock:
        block = self._rows.get(entry)
        if block is None:
            block = self._rows[entry] = self.codec.decode(self.state.entries[entry])
        return block

    def done(self, seconds: int, key: str) -> None:
        """Forgets all that waited for a channel: it has been folded in. Windows of a register stay until they are forgotten."""
        late = self._late.pop((seconds, key))
        if not seconds:
            self._late[seconds, key] = Late(asked=late.asked, answered=late.answered, void=late.void)
            late.asked = set()
        for entry in (*late.rows, *late.orders, *late.was):
            self.state.put(entry, None)
            self._rows.pop(entry, None)
        for kind, days in ((_AGAIN, late.again), (_ASKED, late.asked)):
            for day in days:
                entry = f"{kind}/{day}/{seconds}/{key}"
                self.state.put(entry, None)
                self._given.pop(entry, None)
                self._unwritten.pop(entry, None)


def reason_of(entry: str) -> str:
    """Why an entry was parked."""
    return entry.split("/", 3)[2].partition("@")[0]
