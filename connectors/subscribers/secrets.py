"""Secrets by name: topology and API only refer to them. They come from files, or from the environment, and may change at any time."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

FOLDER: Final = "subscribers"
VARIABLE: Final = "MDH_SUBSCRIBER_SECRET_"
SHORTEST: Final = 24  # bytes of a signing secret
_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}", re.ASCII)
_LARGEST: Final = 1024 * 1024


class SecretError(Exception):
    """A secret that is not there or cannot be used. The message names it and holds nothing of it."""


class Secrets:
    """Secrets of subscribers: the file ``subscribers/NAME`` of the folder of secrets, else ``MDH_SUBSCRIBER_SECRET_NAME``.

    No other secret of the hub can be reached from here: whoever may register a subscriber must not be able to have them sent.
    """

    def __init__(self, folder: Path | None, environment: Mapping[str, str]) -> None:
        self.folder, self.environment = folder, environment

    def get(self, name: str) -> bytes:
        """The secret as it is now, without a line end behind it. Raises SecretError."""
        if not _NAME.fullmatch(name):
            raise SecretError(f"{name!r} is no name of a secret")
        path = self.path(name)
        if path is not None:
            try:
                data = path.read_bytes()
            except OSError as error:
                raise SecretError(f"secret {name}: {error.strerror}") from None
            if len(data) > _LARGEST:
                raise SecretError(f"secret {name} has more than {_LARGEST} bytes")
        else:
            text = self.environment.get(VARIABLE + name.upper().replace("-", "_"))
            if text is None:
                raise SecretError(f"there is no secret {name}: give {FOLDER}/{name} in MDH_SECRETS_DIR, or {VARIABLE}{name.upper()}")
            data = text.encode()
        data = data.rstrip(b"\r\n")
        if not data:
            raise SecretError(f"secret {name} is empty")
        return data

    def path(self, name: str) -> Path | None:
        """The file of a secret, if it is one."""
        if self.folder is None or not _NAME.fullmatch(name):
            return None
        path = self.folder / FOLDER / name
        return path if path.is_file() else None

    def signing_key(self, name: str) -> bytes:
        """The bytes to sign with: ``whsec_`` and base64, or the secret itself. Raises SecretError."""
        data = self.get(name)
        if data.startswith(b"whsec_"):
            try:
                data = base64.b64decode(data.removeprefix(b"whsec_"), validate=True)
            except binascii.Error:
                raise SecretError(f"secret {name}: what follows whsec_ is no base64") from None
        if len(data) < SHORTEST:
            raise SecretError(f"secret {name} has {len(data)} bytes; a signing secret has at least {SHORTEST}")
        return data


def key_id(key: bytes) -> str:
    """Tells signing keys apart without telling anything of them."""
    return hashlib.sha256(b"key id of " + key).hexdigest()[:12]
