"""Deterministic identities: the same cause always gives the same id, so every effect can be applied twice safely."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Final

_LENGTHS: Final = tuple(length.to_bytes(8, "little") for length in range(1024))


def identity(*parts: str | bytes | int) -> str:
    """32 hex digits of the hash over the parts, each delimited by its length."""
    return hashlib.blake2b(_delimited(parts), digest_size=16).hexdigest()


def identities(count: int, *parts: str | bytes | int) -> list[str]:
    """The identities of so many things that share their first parts: ``identity(*parts, 0)``, ``identity(*parts, 1)`` …"""
    shared, found = hashlib.blake2b(_delimited(parts), digest_size=16), []
    for number in range(count):
        own = shared.copy()
        own.update(_numbered(number))
        found.append(own.hexdigest())
    return found


@lru_cache(1 << 12)
def _numbered(number: int) -> bytes:
    return _delimited((number,))


def _delimited(parts: tuple[str | bytes | int, ...]) -> bytes:
    pieces: list[bytes] = []
    for part in parts:
        data = part.encode() if isinstance(part, str) else part if isinstance(part, bytes) else str(part).encode()
        length = len(data)
        pieces += (_LENGTHS[length] if length < 1024 else length.to_bytes(8, "little"), data)
    return b"".join(pieces)


def murmur2(data: bytes) -> int:
    """Kafka's key hash (Java's ``Utils.murmur2``), masked to 31 bits."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    length = len(data)
    h = (0x9747B28C ^ length) & mask
    for i in range(0, length - length % 4, 4):
        k = int.from_bytes(data[i : i + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = h * m & mask ^ k
    tail = data[length - length % 4 :]
    if tail:
        h = (h ^ int.from_bytes(tail, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return (h ^ h >> 15) & 0x7FFFFFFF


@lru_cache(1 << 16)
def partition_of(key: str | bytes, partitions: int) -> int:
    """The partition Kafka's default partitioner gives a key; all our producers agree on it."""
    return murmur2(key if isinstance(key, bytes) else key.encode()) % partitions
