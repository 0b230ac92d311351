"""What the portal must remember: sign-in codes, sessions, payments under way. In one small file beside the hub.

Codes and session tokens are kept as hashes only. One hub process serves the portal; a session lost with its file is a new sign-in, a
payment lost with it is credited all the same: the provider's callback carries account and amount under its signature.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from schemas.topology.portal import Portal

DIGITS: Final = 6
PER_ADDRESS: Final = 60  # codes asked for, and codes entered, by one address and hour
HOUR: Final = 3600
_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS codes (account TEXT PRIMARY KEY, hash BLOB, expires REAL, tries INTEGER)",
    "CREATE TABLE IF NOT EXISTS sessions (hash BLOB PRIMARY KEY, account TEXT, seen REAL)",
    "CREATE TABLE IF NOT EXISTS events (kind TEXT, who TEXT, at REAL)",
    "CREATE INDEX IF NOT EXISTS events_by ON events (kind, who, at)",
    "CREATE TABLE IF NOT EXISTS payments (id TEXT PRIMARY KEY, account TEXT, amount TEXT, status TEXT, detail TEXT, at REAL)",
    "CREATE TABLE IF NOT EXISTS keys (name TEXT PRIMARY KEY, value BLOB)",
)


@dataclass(frozen=True, slots=True)
class Payment:
    """A payment under way. ``status`` is open, paid, failed or refused."""

    id: str
    account: str
    amount: str
    status: str
    detail: str


class PortalDesk:
    """Codes, sessions and payments. Safe for many threads."""

    def __init__(self, path: Path | None, settings: Portal, clock: Callable[[], float] = time.time) -> None:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self.settings, self._clock = settings, clock
        self._lock = threading.Lock()
        self._database = sqlite3.connect(str(path or ":memory:"), check_same_thread=False, isolation_level=None)
        if path is not None:
            path.chmod(0o600)
        self._database.execute("PRAGMA journal_mode=WAL")
        for statement in _TABLES:
            self._database.execute(statement)
        self._do("INSERT OR IGNORE INTO keys VALUES ('csrf', ?)", secrets.token_bytes(32))
        self._do("INSERT OR IGNORE INTO keys VALUES ('demo', ?)", secrets.token_bytes(32))
        self._csrf, self.demo_key = (self._one("SELECT value FROM keys WHERE name = ?", name)[0] for name in ("csrf", "demo"))

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._database.close()

    # --- codes ------------------------------------------------------------------------------------------------------------------------

    def new_code(self, account: str, address: str) -> str | None:
        """A fresh code for an account, which voids the one before; None where too many were asked for."""
        if self._often("code", account, self.settings.codes_per_hour) or self._often("ask", address, PER_ADDRESS):
            return None
        code = f"{secrets.randbelow(10**DIGITS):0{DIGITS}d}"
        expires = self._clock() + self.settings.code_life
        self._do("INSERT OR REPLACE INTO codes VALUES (?, ?, ?, 0)", account, self._hash(account, code), expires)
        return code

    def enter(self, account: str, code: str, address: str) -> str | None:
        """The token of a new session where the code is right; it is good once. None: it is not. Raises TooManyError."""
        if self._often("enter", address, PER_ADDRESS):
            raise TooManyError
        with self._lock:
            self._database.execute("UPDATE codes SET tries = tries + 1 WHERE account = ?", (account,))
            row = self._database.execute("SELECT hash, expires, tries FROM codes WHERE account = ?", (account,)).fetchone()
            known, expires, tries = row or (b"", 0.0, 0)
            right = hmac.compare_digest(self._hash(account, code), known)  # always, so that an unknown account takes as long
            if row is not None and tries > self.settings.tries:
                raise TooManyError
            if not right or self._clock() > expires:
                return None
            self._database.execute("DELETE FROM codes WHERE account = ?", (account,))
            token = secrets.token_urlsafe(32)
            self._database.execute("INSERT INTO sessions VALUES (?, ?, ?)", (_digest(token), account, self._clock()))
        return token

    def _hash(self, account: str, code: str) -> bytes:
        return hmac.new(self._csrf, f"code\0{account}\0{code}".encode(), hashlib.sha256).digest()

    def _often(self, kind: str, who: str, most: int) -> bool:
        """Notes an event; whether there were more than ``most`` within the hour."""
        now = self._clock()
        with self._lock:
            self._database.execute("DELETE FROM events WHERE at < ?", (now - HOUR,))
            (count,) = self._database.execute("SELECT count(*) FROM events WHERE kind = ? AND who = ?", (kind, who)).fetchone()
            if count >= most:
                return True
            self._database.execute("INSERT INTO events VALUES (?, ?, ?)", (kind, who, now))
        return False

    # --- sessions ---------------------------------------------------------------------------------------------------------------------

    def account_of(self, token: str) -> str | None:
        """The account of a session that is alive; it stays so from now on."""
        now = self._clock()
        row = self._one("SELECT account, seen FROM sessions WHERE hash = ?", _digest(token))
        if row is None:
            return None
        if now - row[1] > self.settings.session:
            self.end(token)
            return None
        self._do("UPDATE sessions SET seen = ? WHERE hash = ?", now, _digest(token))
        return str(row[0])

    def end(self, token: str) -> None:
        """Ends a session, and forgets those nobody used."""
        self._do("DELETE FROM sessions WHERE hash = ? OR seen < ?", _digest(token), self._clock() - self.settings.session)

    def form_token(self, token: str) -> str:
        """What forms of a session carry, so that no other site can send them."""
        return hmac.new(self._csrf, b"form\0" + token.encode(), hashlib.sha256).hexdigest()

    # --- payments ---------------------------------------------------------------------------------------------------------------------

    def new_payment(self, account: str, amount: str) -> Payment:
        """A payment that is to be made."""
        payment = Payment(secrets.token_hex(16), account, amount, "open", "")
        self._do("INSERT INTO payments VALUES (?, ?, ?, 'open', '', ?)", payment.id, account, amount, self._clock())
        return payment

    def payment(self, id: str) -> Payment | None:
        """A payment as it stands."""
        row = self._one("SELECT id, account, amount, status, detail FROM payments WHERE id = ?", id)
        return None if row is None else Payment(*row)

    def settle(self, id: str, status: str, detail: str = "") -> None:
        """Notes what became of a payment; one that is paid stays so."""
        self._do("UPDATE payments SET status = ?, detail = ? WHERE id = ? AND status != 'paid'", status, detail, id)

    # --- the file ---------------------------------------------------------------------------------------------------------------------

    def _do(self, sql: str, *values: Any) -> None:
        with self._lock:
            self._database.execute(sql, values)

    def _one(self, sql: str, *values: Any) -> Any:
        with self._lock:
            return self._database.execute(sql, values).fetchone()


class TooManyError(Exception):
    """Too many tries: nothing is looked at for a while."""


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
