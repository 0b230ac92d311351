"""Passwords (argon2id) and the random secrets of tokens, sessions and links."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

SHORTEST: Final = 12
LONGEST: Final = 200
LENGTH: Final = 43  # characters of a secret
_HASHER: Final = PasswordHasher()
_SLOTS: Final = threading.BoundedSemaphore(2)  # each hash takes 64 MiB
_NOBODYS: Final = _HASHER.hash(secrets.token_urlsafe(16))  # verified for accounts that do not exist, so that both take as long


class PasswordError(ValueError):
    """A password that cannot be taken; the message says why."""


def hashed(password: str, name: str = "") -> str:
    """The argon2id hash to keep. Raises PasswordError."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise PasswordError(f"a password has {SHORTEST} to {LONGEST} characters")
    if len(set(password)) < 5 or (name and name.casefold() in password.casefold()):
        raise PasswordError("this password is easily guessed: more different characters, and not the name")
    with _SLOTS:
        return _HASHER.hash(password)


def verified(kept: str, password: str) -> bool:
    """Whether the password is right; takes as long where there is no hash."""
    with _SLOTS:
        try:
            return _HASHER.verify(kept or _NOBODYS, password[: LONGEST + 1]) and bool(kept)
        except (VerificationError, InvalidHashError):
            return False


def new_secret() -> str:
    """256 bits, as text for URLs, headers and cookies."""
    return secrets.token_urlsafe(32)


def like_secret(text: str) -> bool:
    """Whether a text could be a secret that was made here."""
    return len(text) == LENGTH


def digest(secret: str) -> str:
    """What is kept of a random secret. A fast hash will do: there is nothing to guess."""
    return hashlib.sha256(secret.encode()).hexdigest()


def same(one: str, other: str) -> bool:
    """Compares without telling by its time where they differ."""
    return hmac.compare_digest(one.encode(), other.encode())


def csrf_of(secret: str) -> str:
    """The token against forged requests that belongs to a session's secret, and tells nothing of it."""
    return hmac.new(secret.encode(), b"csrf", hashlib.sha256).hexdigest()
