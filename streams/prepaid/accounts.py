"""The accounts of one partition as a table: one row per account, and small odd things as entries beside it.

Entries: ``m/<account>/<first day>`` a billing month, ``r/<account>`` requests taken, ``d/<account>`` debts, ``c/<account>`` the device
command under way, ``t/<account>`` top-ups that may be reversed, ``p/<account>`` tariffs by date where the tariff has changed,
``u/<account>/<day>`` what was told of a day in many parts, ``v/<account>/<day>`` kvarh or kVAh of a day. Requests
and top-ups are series: their number under the name itself, and ``<name>/<page>`` for each page of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson

from streams.runtime.state import Column, State, Table

Array = npt.NDArray[Any]
ACCOUNTS: Final = "accounts"
TOTALS: Final = "totals"
NEVER: Final = np.iinfo(np.int64).max
PACE_DAYS: Final = 7
SERIES_PAGE: Final = 32
(ACTIVE, LOW, ZERO, EMERGENCY, GRACE, CUT_PENDING, CUT_SENT, CUT, BACK_PENDING, BACK_SENT, CLOSED, HOLD, SILENT) = range(13)
STATES: Final = (
    "active", "low", "zero", "emergency", "grace", "disconnect-pending", "disconnect-sent", "disconnected", "reconnect-pending",
    "reconnect-sent", "closed", "hold", "communication-failure",
)  # fmt: skip
CLASSES: Final = ("customer", "debt", "emergency", "other")  # of ledger accounts, for the hourly proof
_LONGS: Final = (
    "balance", "debt", "owed",  # of the customer, to recover, emergency credit to pay back
    "credited", "debited",  # all that ever came in and went out: balance is their difference
    "postings", "version", "unsure",  # unsure: charges that may still change
    "measured",  # end of the last measured consumption
    "told_zero", "grace_until",
    "begun",  # what had gone out when the account was enrolled last
    "notices",  # how many there were
    "seen",  # end of the newest consumption told of: its device is the one that is there
)  # fmt: skip


def make_table(name: str) -> Table:
    """The tables of the fold's state."""
    if name == TOTALS:
        return Table({"debit": Column(np.int64), "credit": Column(np.int64)})
    longs = {name: Column(np.int64) for name in _LONGS}
    return Table(
        longs
        | {
            "chain": Column(np.uint8, (16,)),
            "next": Column(np.int64, empty=int(NEVER)),  # when a tick must look at it
            "pace": Column(np.int64, (PACE_DAYS,)),  # charges of the last days charged, newest first
            "pace_days": Column(np.int8),
            "pace_last": Column(np.int32, empty=-1),  # the day the newest of them is of
            "load": Column(np.int64),
            "first": Column(np.int32),  # first local day that is charged
            "last": Column(np.int32, empty=2**31 - 1),  # last one, where the account is being closed
            "through": Column(np.int32),  # every day before it is charged, if only provisionally
            "state": Column(np.int8),
            "armed": Column(np.uint8, empty=255),  # bit per threshold: it tells at the next crossing
            "warned": Column(np.int8),
        },
        ("service_point", "device", "zone", "tariff", "rate", "hold", "trouble", "level"),
    )


class Accounts:
    """Rows by account, and the entries of each."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.table = state.table(ACCOUNTS)

    def row(self, account: str) -> int | None:
        """The row of an account; None: not enrolled."""
        return self.table.index.get(account)

    def add(self, account: str) -> int:
        """A new row."""
        return int(self.table.add([account])[0])

    def touch(self, row: int) -> None:
        """Says that a row changed."""
        self.table.touch(row)

    def get(self, kind: str, *names: str | int) -> Any:
        """An entry as JSON; None: there is none."""
        data = self.state.entries.get(_key(kind, names))
        return None if data is None else orjson.loads(data)

    def put(self, value: Any, kind: str, *names: str | int) -> None:
        """Sets an entry; None removes it."""
        data = None if value is None else orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        self.state.put(_key(kind, names), data)

    # --- series: the newest so many items of a kind, in pages, so that one more costs the same however many there are ------------------

    def append(self, item: list[Any], kind: str, account: str, most: int) -> None:
        """Adds an item, and drops the page of items older than the newest ``most``."""
        number = int(self.get(kind, account) or 0)
        page = number // SERIES_PAGE
        self.put([*(self.get(kind, account, page) or []), item], kind, account, page)
        self.put(number + 1, kind, account)
        if number % SERIES_PAGE == 0:
            old = page - -(-most // SERIES_PAGE) - 1
            if old >= 0:
                self.put(None, kind, account, old)

    def pages(self, kind: str, account: str, text: str) -> Iterator[tuple[int, list[list[Any]]]]:
        """The pages that may name a text, newest first, with their numbers."""
        needle = orjson.dumps(text)
        for page in range((int(self.get(kind, account) or 0) - 1) // SERIES_PAGE, -1, -1):
            data = self.state.entries.get(f"{kind}/{account}/{page}")
            if data is None:
                break
            if needle in data:
                yield page, orjson.loads(data)


def _key(kind: str, names: tuple[str | int, ...]) -> str:
    if len(names) == 1:
        return f"{kind}/{names[0]}"
    return f"{kind}/{names[0]}/{names[1]}" if len(names) == 2 else "/".join((kind, *map(str, names)))
