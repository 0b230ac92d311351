"""Large files in parts: cut where one record ends and the next begins, so that every part is a payload that stands for itself."""

from __future__ import annotations

import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

PART_BYTES: Final = 8 * 1024 * 1024
UNPACKED_BYTES: Final = 1024 * 1024 * 1024
MEMBERS: Final = 1000
_NEM_BLOCK: Final = (b"200,", b"250,")
_NEM_END: Final = b"900\n"
_CSV_COLUMNS: Final = {b"device", b"channel"}


class PartsError(ValueError):
    """A file that cannot be cut or unpacked; the message says what to do."""


def parts(data: bytes, name: str, limit: int = PART_BYTES, *, most: int = UNPACKED_BYTES) -> Iterator[tuple[str, bytes]]:
    """The payloads a file is sent as: itself where it fits, else ``name#1``, ``name#2`` … of about ``limit`` bytes.

    Archives and gzip files are unpacked where what is inside is larger than a part; what is unpacked together has at most
    ``most`` bytes. Formats that cannot be cut between records (JSON, XML) go whole, and the hub decides. Raises PartsError.
    """
    members = [(name, data)]
    if data[:4] == b"PK\x03\x04":
        members = list(_unzipped(data, name, limit, most))
    elif data[:2] == b"\x1f\x8b":
        members = [_gunzipped(data, name, limit, most)]
    for member, content in members:
        yield from _cut(content, member, limit)


def _unzipped(data: bytes, name: str, limit: int, most: int) -> Iterator[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            declared = sum(entry.file_size for entry in entries)
            if declared <= limit:
                yield name, data
                return
            if declared > most or len(entries) > MEMBERS:
                raise PartsError(f"{name}: unpacks to {declared} bytes in {len(entries)} members; send the files inside one by one")
            for entry in entries:
                with archive.open(entry) as stream:
                    content = stream.read(entry.file_size + 1)
                if len(content) > entry.file_size:
                    raise PartsError(f"{name}: {entry.filename} unpacks to more than it says")
                yield f"{name}/{entry.filename}", content
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError):
        yield name, data  # not a sound archive: the hub says why, and keeps the bytes


def _gunzipped(data: bytes, name: str, limit: int, most: int) -> tuple[str, bytes]:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
            content = stream.read(most + 1)
    except (OSError, EOFError, zlib.error):
        return name, data  # not a sound gzip file: the hub says why, and keeps the bytes
    if len(content) > most:
        raise PartsError(f"{name}: unpacks to more than {most} bytes; cut it into smaller files")
    return (name, data) if len(content) <= limit else (name.removesuffix(".gz"), content)


def _cut(data: bytes, name: str, limit: int) -> Iterator[tuple[str, bytes]]:
    if len(data) <= limit:
        yield name, data
        return
    head = data[:4096].removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith(b"100,NEM1"):
        pieces = _cut_nem(data, limit)
    elif _is_our_csv(head):
        pieces = _cut_csv(data, limit)
    else:
        yield name, data
        return
    for number, piece in enumerate(pieces, 1):
        yield f"{name}#{number}", piece


def _is_our_csv(head: bytes) -> bool:
    names = re.split(rb"[,;\t|]", head.partition(b"\n")[0].lower())
    return {name.strip(b' "\r') for name in names} >= _CSV_COLUMNS


def _cut_csv(data: bytes, limit: int) -> Iterator[bytes]:
    """The header line in front of each part; cut at line ends."""
    end_of_header = data.find(b"\n") + 1
    header, position = data[:end_of_header], end_of_header
    limit = max(limit - len(header), 1)
    while position < len(data):
        end = min(position + limit, len(data))
        if end < len(data):
            newline = data.rfind(b"\n", position, end)
            if newline < 0:
                newline = data.find(b"\n", end)
            end = len(data) if newline < 0 else newline + 1
        yield header + data[position:end]
        position = end


def _cut_nem(data: bytes, limit: int) -> Iterator[bytes]:
    """The 100 record in front and a 900 record behind each part; cut in front of 200 and 250 records."""
    end_of_header = data.find(b"\n") + 1
    header = data[:end_of_header]
    limit = max(limit - len(header) - len(_NEM_END), 1)
    starts = _block_starts(data, end_of_header)
    tail = data.rstrip().rfind(b"\n") + 1
    body_end = tail if data[tail : tail + 3] == b"900" else len(data)
    if not starts:
        yield data
        return
    begin = end_of_header
    cuts: list[int] = []
    for previous, start in zip([begin, *starts], [*starts, body_end], strict=True):
        if start - begin > limit and previous > begin:
            cuts.append(previous)
            begin = previous
    edges = [end_of_header, *cuts, body_end]
    for start, end in pairwise(edges):
        if body_end == len(data) and end == body_end:
            yield header + data[start:end]  # the file itself lacks its end record: the last part says so as well
        else:
            yield header + data[start:end] + _NEM_END


def _block_starts(data: bytes, position: int) -> list[int]:
    """Where lines begin that open a block of a meter's channel."""
    starts = [position] if data[position : position + 4] in _NEM_BLOCK else []
    for opener in _NEM_BLOCK:
        at = data.find(b"\n" + opener, position)
        while at >= 0:
            starts.append(at + 1)
            at = data.find(b"\n" + opener, at + 1)
    return sorted(set(starts))
