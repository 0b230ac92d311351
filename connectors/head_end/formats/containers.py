"""Archives around files: zip and gzip, one inside the other at most once. Nothing is written to disk; names are labels only."""

from __future__ import annotations

import io
import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import Final

from connectors.head_end.formats.model import DecodeError
from schemas.topology.ingest import Limits

RATIO: Final = 200  # unpacked to packed bytes; meter text packs 5 to 40 times
FREE: Final = 4 * 1024 * 1024  # unpacked bytes to which the ratio does not apply
DEPTH: Final = 2
_CHUNK: Final = 256 * 1024
_BROKEN: Final = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, NotImplementedError, RuntimeError, ValueError, struct.error,
    KeyError, OverflowError,
)  # fmt: skip


class _Budget:
    """What may still be unpacked of one payload."""

    def __init__(self, packed: int, limits: Limits, name: str) -> None:
        self.packed, self.limits, self.name = packed, limits, name
        self.unpacked, self.members = 0, 0

    def spend(self, size: int) -> None:
        self.unpacked += size
        if self.unpacked > self.limits.unpacked_bytes:
            raise DecodeError(self.name, 1, f"unpacks to more than {self.limits.unpacked_bytes} bytes")
        if self.unpacked > max(FREE, self.packed * RATIO):
            raise DecodeError(self.name, 1, f"unpacks to more than {RATIO} times its size")

    def member(self) -> None:
        self.members += 1
        if self.members > self.limits.archive_members:
            raise DecodeError(self.name, 1, f"holds more than {self.limits.archive_members} files")


def is_packed(data: bytes) -> bool:
    """Whether bytes are a zip or gzip archive."""
    return data[:2] == b"\x1f\x8b" or data[:4] in (b"PK\x03\x04", b"PK\x05\x06")


def unpacked(data: bytes, name: str, limits: Limits) -> Iterator[tuple[str, bytes | DecodeError]]:
    """(label, bytes) of each file in a payload; the payload itself if it is no archive. A broken member comes as its error."""
    yield from _members(data, name, _Budget(len(data), limits, name), 0)


def _members(data: bytes, name: str, budget: _Budget, depth: int) -> Iterator[tuple[str, bytes | DecodeError]]:
    if not is_packed(data):
        yield name, data
        return
    if depth == DEPTH:
        yield name, DecodeError(name, 1, "archive inside an archive inside an archive")
    elif data[:2] == b"\x1f\x8b":
        budget.member()
        yield from _members(_gunzip(data, name, budget), name, budget, depth + 1)
    else:
        yield from _unzip(data, name, budget, depth)


def _gunzip(data: bytes, name: str, budget: _Budget) -> bytes:
    parts: list[bytes] = []
    rest = data
    try:
        while rest[:2] == b"\x1f\x8b":
            engine = zlib.decompressobj(wbits=31)
            while not engine.eof:
                part = engine.decompress(rest, _CHUNK)
                budget.spend(len(part))
                parts.append(part)
                if not part and not engine.unconsumed_tail and not engine.eof:
                    raise DecodeError(name, 1, "gzip ends too early")
                rest = engine.unconsumed_tail
            rest = engine.unused_data
        if rest.strip(b"\0"):
            raise DecodeError(name, 1, "something that is not gzip follows the gzip data")
    except zlib.error as error:
        raise DecodeError(name, 1, f"broken gzip: {error}") from error
    return b"".join(parts)


def _unzip(data: bytes, name: str, budget: _Budget, depth: int) -> Iterator[tuple[str, bytes | DecodeError]]:
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        entries = [e for e in archive.infolist() if not e.is_dir() and not e.filename.startswith("__MACOSX/")]
    except _BROKEN as error:
        raise DecodeError(name, 1, f"broken zip: {error}") from error
    for entry in entries:
        budget.member()
        label = f"{name}!{''.join(c if c.isprintable() else '?' for c in entry.filename[:200])}"
        try:
            content = _content(archive, entry, label, budget)
        except DecodeError as error:
            if error.file == name:
                raise
            yield label, error
            continue
        try:
            yield from _members(content, label, budget, depth + 1)
        except DecodeError as error:
            if error.file == budget.name:
                raise
            yield label, error
    archive.close()


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, label: str, budget: _Budget) -> bytes:
    if entry.flag_bits & 1:
        raise DecodeError(label, 1, "is encrypted")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DecodeError(label, 1, "is packed by a method other than deflate")
    parts: list[bytes] = []
    try:
        with archive.open(entry) as stream:
            while part := stream.read(_CHUNK):
                budget.spend(len(part))
                parts.append(part)
    except DecodeError:
        raise
    except _BROKEN as error:
        raise DecodeError(label, 1, f"broken zip entry: {error}") from error
    return b"".join(parts)
