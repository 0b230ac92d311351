"""The ledger: double entry, append only, one posting per cause and kind, chained by hashes account by account.

Ledger accounts: ``customer:<account>`` is what the utility owes the customer (the balance), ``debt:<account>`` and
``emergency:<account>`` are what the customer owes; ``revenue:<component>``, ``tax:<id>``, ``subsidy:<id>``, ``cash:<channel>``,
``adjustment``, ``opening``, ``postpaid`` and ``refund`` are the other side. Each posting takes from one and gives to another, so
debits equal credits by construction; the hourly proof checks what was built from them.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

import numpy as np
import orjson

from schemas.identity import identity
from streams.prepaid.accounts import CLASSES, TOTALS, Accounts
from streams.prepaid.charging import EPOCH

CHAINED: Final = (
    "id", "account", "sequence", "kind", "component", "debit", "credit", "amount", "currency", "change", "balance", "day", "month",
    "provisional", "cause", "reference", "reason", "user",
)  # fmt: skip


def chain_hash(previous: str, posting: dict[str, Any]) -> str:
    """The hash of a posting: over the one before, its time in milliseconds, and every field (``CHAINED``), as a JSON array."""
    at = posting["at"]
    stamp = round(at.timestamp() * 1000) if isinstance(at, datetime) else int(at)
    return identity(previous, orjson.dumps([stamp, *map(posting.__getitem__, CHAINED)]))


@lru_cache(1 << 12)
def time_of(second: int) -> datetime:
    """UTC seconds as an aware time, as records carry it."""
    return datetime.fromtimestamp(second, UTC)


@lru_cache(1 << 12)
def day_text(number: int) -> str:
    """A day number as ISO date."""
    return (EPOCH + timedelta(days=number)).isoformat()


@lru_cache(1 << 12)
def day_number(text: str) -> int:
    """An ISO date as the number of days since 1970."""
    return (date.fromisoformat(text) - EPOCH).days


class Ledger:
    """Posts to the accounts of one partition and keeps their balances."""

    def __init__(self, accounts: Accounts, currency: str) -> None:
        self.accounts, self.currency = accounts, currency

    def post(
        self, account: str, kind: str, debit: str, credit: str, amount: int, *, cause: str, at: int, part: str = "", component: str = "",
        day: str = "", month: str = "", provisional: bool = False, reference: str = "", reason: str = "", user: str = "",
    ) -> dict[str, Any]:  # fmt: skip
        """One posting of a positive amount; returns the record. ``part`` tells postings of one cause and kind apart.

        ``debit`` gives, ``credit`` takes; ``customer``, ``debt`` and ``emergency`` stand for the account's own.
        """
        if amount <= 0:
            raise ValueError(f"a posting moves a positive amount, not {amount}")
        table = self.accounts.table
        row = table.index[account]
        change = amount if credit == "customer" else -amount if debit == "customer" else 0
        number, balance = int(table["postings"][row]) + 1, int(table["balance"][row]) + change
        table["postings"][row], table["balance"][row] = number, balance
        table["credited" if change > 0 else "debited"][row] += abs(change)
        for name, column in (("debt", "debt"), ("emergency", "owed")):
            if name in (debit, credit):
                table[column][row] += amount if debit == name else -amount
        self._total(debit, credit, amount)
        chain = table["chain"]
        previous = chain[row].tobytes().hex() if number > 1 else ""
        id = identity("posting", account, cause, kind, part)
        debit, credit, currency = _named(debit, account), _named(credit, account), self.currency
        chained = [
            at * 1000, id, account, number, kind, component, debit, credit, amount, currency, change, balance, day, month, provisional,
            cause, reference, reason, user,
        ]  # fmt: skip
        hash = identity(previous, orjson.dumps(chained))
        chain[row] = np.frombuffer(bytes.fromhex(hash), np.uint8)
        self.accounts.touch(row)
        return {
            "id": id, "account": account, "sequence": number, "at": time_of(at), "kind": kind, "component": component, "debit": debit,
            "credit": credit, "amount": amount, "currency": currency, "change": change, "balance": balance, "day": day, "month": month,
            "provisional": provisional, "cause": cause, "reference": reference, "reason": reason, "user": user, "previous": previous,
            "hash": hash,
        }  # fmt: skip

    def _total(self, debit: str, credit: str, amount: int) -> None:
        totals, other = self.accounts.state.table(TOTALS), len(CLASSES) - 1
        if not len(totals):
            totals.add(CLASSES)
        totals["debit"][totals.index.get(debit, other)] += amount
        totals["credit"][totals.index.get(credit, other)] += amount
        totals.touch(0)

    def proof(self, partition: int, at: int) -> dict[str, Any]:
        """Whether all adds up now: debits and credits, balances against totals and against what came in and went out."""
        table, totals = self.accounts.table, self.accounts.state.table(TOTALS)
        size, rows = len(table), totals.add(CLASSES)
        net = {name: int(totals["credit"][row] - totals["debit"][row]) for name, row in zip(CLASSES, rows.tolist(), strict=True)}
        debits, credits = int(totals["debit"][rows].sum()), int(totals["credit"][rows].sum())
        balance, debt, owed = (table[name][:size] for name in ("balance", "debt", "owed"))
        customers, debts, emergencies = int(balance.sum()), int(debt.sum()), int(owed.sum())
        wrong = [
            text
            for fails, text in (
                (debits != credits, f"debits {debits} and credits {credits} differ"),
                (customers != net["customer"], f"balances add up to {customers}, their postings to {net['customer']}"),
                (debts != -net["debt"], f"debts add up to {debts}, their postings to {-net['debt']}"),
                (emergencies != -net["emergency"], f"emergency credit adds up to {emergencies}, its postings to {-net['emergency']}"),
            )
            if fails
        ]
        odd = np.flatnonzero(balance != table["credited"][:size] - table["debited"][:size])
        wrong += [f"the balance of {table.keys[row]} is not what came in less what went out" for row in odd[:5].tolist()]
        order = sorted(range(size), key=table.keys.__getitem__)
        chain = identity(*(part for row in order for part in (table.keys[row], table["chain"][row].tobytes())))
        return {
            "id": identity("proof", partition, at), "partition": partition, "at": time_of(at), "currency": self.currency,
            "accounts": size, "postings": int(table["postings"][:size].sum()), "debits": debits, "credits": credits,
            "customers": customers, "debts": debts, "emergencies": emergencies, "chain": chain, "holds": not wrong,
            "detail": "; ".join(wrong),
        }  # fmt: skip


def _named(name: str, account: str) -> str:
    return f"{name}:{account}" if name in CLASSES else name
