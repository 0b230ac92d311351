"""Personal data, sealed per person: what leaves the door is ciphertext, and a person is forgotten by forgetting their key.

Each person has a data key of their own, kept in a small database beside the hub, wrapped by the master key. Kafka and the store hold
ciphertext only; when the data key is deleted, no copy of that ciphertext anywhere can be read again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import secrets
import sqlite3
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES: Final = 32
_NONCE: Final = 12


class VaultError(Exception):
    """The master key or the keys of persons cannot be used."""


class Vault:
    """Seals and opens personal data. Safe for many threads; several processes may share the file.

    ``master_key`` are 32 bytes. Raises VaultError where the file was written under another master key.
    """

    def __init__(self, path: Path, master_key: bytes) -> None:
        if len(master_key) != KEY_BYTES:
            raise VaultError(f"the master key must have {KEY_BYTES} bytes, not {len(master_key)}")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._master = AESGCM(master_key)
        self._lock = threading.Lock()
        self._database = sqlite3.connect(str(path), check_same_thread=False, isolation_level=None, timeout=30)
        path.chmod(0o600)
        self._database.execute("PRAGMA secure_delete=ON")  # a deleted key is overwritten in the file
        self._database.execute("PRAGMA journal_mode=DELETE")  # no log beside it that would keep the key
        self._database.execute("CREATE TABLE IF NOT EXISTS keys (person TEXT PRIMARY KEY, wrapped BLOB)")
        self._check()

    def _check(self) -> None:
        """One known text under the master key tells a wrong one at once, not at the first person."""
        with self._lock:
            found = self._database.execute("SELECT wrapped FROM keys WHERE person = ''").fetchone()
            if found is None:
                self._database.execute("INSERT OR IGNORE INTO keys VALUES ('', ?)", (self._wrap("", b"mdh"),))
                return
        self._unwrap("", found[0])

    def seal(self, person: str, data: Mapping[str, Any]) -> str:
        """The data as text that says nothing without the person's key; the same data give the same text. Raises VaultError."""
        key = self._key(person, make=True)
        assert key is not None
        plain = orjson.dumps(data, option=orjson.OPT_SORT_KEYS)
        # A nonce out of the content: no two contents of one key share it, and what comes again is seen to be the same
        nonce = hmac.new(key, b"nonce\0" + plain, hashlib.sha256).digest()[:_NONCE]
        return base64.b64encode(nonce + AESGCM(key).encrypt(nonce, plain, person.encode())).decode()

    def open(self, person: str, sealed: str) -> dict[str, Any] | None:
        """The data behind a sealed text; None where the person was forgotten. Raises VaultError where it is somebody else's."""
        key = self._key(person, make=False)
        if key is None:
            return None
        try:
            raw = base64.b64decode(sealed, validate=True)
            opened: dict[str, Any] = orjson.loads(AESGCM(key).decrypt(raw[:_NONCE], raw[_NONCE:], person.encode()))
        except (InvalidTag, binascii.Error, ValueError):
            raise VaultError(f"the data of person {person} were not sealed with their key") from None
        return opened

    def forget(self, person: str) -> bool:
        """Deletes a person's key for good; False where there was none. What comes of them later gets another key."""
        with self._lock:
            return self._database.execute("DELETE FROM keys WHERE person = ? AND person != ''", (person,)).rowcount > 0

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._database.close()

    def _key(self, person: str, *, make: bool) -> bytes | None:
        with self._lock:
            if make:
                wrapped = self._wrap(person, secrets.token_bytes(KEY_BYTES))
                self._database.execute("INSERT OR IGNORE INTO keys VALUES (?, ?)", (person, wrapped))
            found = self._database.execute("SELECT wrapped FROM keys WHERE person = ?", (person,)).fetchone()
        return None if found is None else self._unwrap(person, found[0])

    def _wrap(self, person: str, key: bytes) -> bytes:
        nonce = secrets.token_bytes(_NONCE)
        return nonce + self._master.encrypt(nonce, key, b"person\0" + person.encode())

    def _unwrap(self, person: str, wrapped: bytes) -> bytes:
        try:
            return self._master.decrypt(wrapped[:_NONCE], wrapped[_NONCE:], b"person\0" + person.encode())
        except InvalidTag:
            raise VaultError("the keys of persons were wrapped by another master key") from None


def master_key(path: Path, *, make: bool) -> bytes:
    """The master key of a file: 32 bytes, as they are or in base64. With ``make`` a missing file is written, readable by its owner only.

    Raises VaultError.
    """
    if make and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(base64.b64encode(secrets.token_bytes(KEY_BYTES)) + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except FileExistsError:
            pass  # another process was first
    try:
        data = path.read_bytes()
    except OSError as error:
        raise VaultError(f"master key {path}: {error.strerror}") from None
    if len(data) == KEY_BYTES:
        return data
    try:
        key = base64.b64decode(data.strip(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise VaultError(f"master key {path}: must be {KEY_BYTES} bytes, as they are or in base64")
    return key
