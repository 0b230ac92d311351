"""Usage transactions: one per subscription and period, from first data to the last correction. Entries of the state."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from schemas.identity import identity
from streams.determinants.keys import key_of
from streams.determinants.records import words
from streams.determinants.usage.checks import material
from streams.determinants.usage.curve import Quality, Quantity
from streams.runtime.state import State

PREFIX: Final = "ut/"
KEPT: Final = 3  # versions before the newest that are remembered, for bills that say late what they stand on
Sent = list[list[Any]]  # name, kind, tou, unit, device, channel, amount, condition, slots, actual, estimated, at


@dataclass(slots=True)
class Transaction:
    """Usage of one period. ``sent`` is what billing has; later results are compared with it and nothing else."""

    account: str
    begin: int
    end: int
    trigger: str
    group: str = ""
    status: str = "pending"
    version: int = 0
    sent: Sent = field(default_factory=list)
    opened: int = 0  # time of the tick on which it was sent first
    held: bool = False  # as it was sent last
    bill: str = ""  # on which a sent version was used
    billed: int = 0  # that version
    older: dict[str, Sent] = field(default_factory=dict)  # what the versions before the newest said, by version; the last few
    requests: list[str] = field(default_factory=list)
    dirty: bool = True
    again: bool = False  # tell it once more, though nothing changed
    forced: bool = False
    touched: int = 0
    reason: str = ""
    until: int = 0  # how long it may wait for better data
    found: list[str] = field(default_factory=list)  # rules whose exceptions are open

    @property
    def key(self) -> str:
        """Its key in the state."""
        return PREFIX + key_of(self.account, str(self.begin), str(self.end))

    @property
    def usage(self) -> str:
        """What is the same in all versions."""
        return identity("usage", self.account, self.begin, self.end)

    def id(self, version: int) -> str:
        """The id of one version; empty for version 0, which never was."""
        return identity(self.usage, version) if version else ""

    def succeed(self, rows: Sent, held: bool, now: int) -> None:
        """A new version says ``rows``; the one before is remembered for a while."""
        if self.version:
            self.older[str(self.version)] = self.sent
            for version in sorted(self.older, key=int)[:-KEPT]:
                del self.older[version]
        self.opened = self.opened or now
        self.version, self.status, self.sent, self.held = self.version + 1, "sent", rows, held

    def overlaps(self, begin: int, end: int) -> bool:
        """Whether a span touches the period."""
        return begin < self.end and self.begin < end


def row_of(quantity: Quantity) -> list[Any]:
    """A quantity as it is kept."""
    q = quantity.quality
    return [
        quantity.name, quantity.kind, quantity.tou, quantity.unit, quantity.device, quantity.channel, quantity.amount, q.condition,
        q.slots, q.actual, q.estimated, quantity.at,
    ]  # fmt: skip


def quantity_of(row: list[Any]) -> Quantity:
    """The inverse of :func:`row_of`."""
    name, kind, tou, unit, device, channel, amount, condition, slots, actual, estimated, at = row
    return Quantity(name, kind, unit, amount, Quality(condition, slots, actual, estimated), tou, at, device, channel)


def named(rows: Sent) -> dict[tuple[str, ...], int]:
    """Amounts by what identifies a quantity: name, kind, tou, unit, device, channel."""
    return {tuple(row[:6]): row[6] for row in rows}


def changes(before: Sent, now: Sent, thresholds: Mapping[str, tuple[int, int]]) -> list[str]:
    """What differs enough to be corrected, in words. ``thresholds`` by unit: absolute and percent, in millionths."""
    old, new = named(before), named(now)
    found = []
    for key in [*old, *(key for key in new if key not in old)]:
        a, b = old.get(key), new.get(key)
        if a is None or b is None:
            if (a or 0) != (b or 0) or key not in old:
                found.append(f"{_words(key)} {'is new' if a is None else 'is gone'}")
        elif a != b and material(b, a, *thresholds[key[3]]):
            found.append(f"{_words(key)} {words(a)} → {words(b)} {key[3]}")
    return found


def _words(key: tuple[str, ...]) -> str:
    return f"{key[0]} {key[2]}".strip()


class Transactions:
    """All transactions of a partition, by account and span."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.accounts: dict[str, dict[tuple[int, int], Transaction]] = {}
        self._ready = False

    def prepare(self) -> None:
        """Reads them back after the state is loaded; later calls do nothing."""
        if self._ready:
            return
        self._ready = True
        for key, value in self._state.entries.items():
            if key.startswith(PREFIX):
                self._place(Transaction(**json.loads(value)))

    def _place(self, one: Transaction) -> None:
        self.accounts.setdefault(one.account, {})[one.begin, one.end] = one

    def of(self, account: str) -> list[Transaction]:
        """The transactions of an account, the earliest first."""
        self.prepare()
        return [one for _, one in sorted(self.accounts.get(account, {}).items())]

    def get(self, account: str, begin: int, end: int) -> Transaction | None:
        """The transaction of a span."""
        self.prepare()
        return self.accounts.get(account, {}).get((begin, end))

    def keep(self, one: Transaction) -> None:
        """Notes that a transaction is new or changed."""
        self._place(one)
        self._state.put(one.key, json.dumps(asdict(one), sort_keys=True).encode())

    def drop(self, one: Transaction) -> None:
        """Forgets a transaction."""
        self.accounts.get(one.account, {}).pop((one.begin, one.end), None)
        self._state.put(one.key, None)

    def open(self) -> list[Transaction]:
        """Those with something to do, in a fixed order."""
        self.prepare()
        found = [one for held in self.accounts.values() for one in held.values() if one.dirty or one.again or one.status == "waiting"]
        return sorted(found, key=lambda one: (one.end, one.account, one.begin))
