"""Archives: what is in them, and that hostile ones cost little."""

from __future__ import annotations

import gzip
import io
import zipfile

import pytest

from connectors.head_end.formats import DecodeError, Options, decode
from schemas.topology.ingest import Limits
from tests.formats.samples import CSV, JSON, NEM12, reads_of


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def test_all_files_of_an_archive_are_read_and_blocks_numbered_through() -> None:
    decoded = decode(zipped(a=CSV, b=JSON, c=NEM12), Options(name="z.zip", payload="p"))
    assert {key[0] for key in reads_of(decoded)} == {"M1", "M,2", "W1", "6001000001"}
    assert len({block.id for block in decoded.blocks}) == len(decoded.blocks) == 4
    assert [block.format for block in decoded.blocks] == ["csv", "json", "json", "nem12"]


@pytest.mark.parametrize(
    "data",
    [
        gzip.compress(CSV),
        gzip.compress(CSV[:80]) + gzip.compress(CSV[80:]),
        gzip.compress(zipped(a=CSV)),
        zipped(a=gzip.compress(CSV)),
        zipped(a=zipped(b=CSV)),
    ],
)
def test_gzip_members_and_one_archive_in_another(data: bytes) -> None:
    assert reads_of(decode(data, Options())) == reads_of(decode(CSV, Options()))


def test_a_bad_file_of_an_archive_is_told_and_the_others_kept() -> None:
    decoded = decode(zipped(**{"bad.csv": b"hello", "../good.csv": CSV, "e\x1b[2J.csv": b""}), Options(name="z.zip"))
    assert reads_of(decoded) == reads_of(decode(CSV, Options()))
    assert [(p.file, p.line) for p in decoded.problems] == [("z.zip!bad.csv", 1), ("z.zip!e?[2J.csv", 1)]


def test_an_archive_of_bad_files_is_refused() -> None:
    with pytest.raises(DecodeError, match=r"z\.zip!a:1: header 'hello'"):
        decode(zipped(a=b"hello"), Options(name="z.zip"))
    with pytest.raises(DecodeError, match="the archive holds no file"):
        decode(zipped(), Options(name="z.zip"))


def bomb() -> bytes:
    return zipped(a=b"1" * 30_000_000)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (gzip.compress(b"\0" * 30_000_000), "more than 200 times its size"),
        (bomb(), "more than 200 times its size"),
        (zipped(**{f"{n}.zip": bomb() for n in range(3)}), "more than 200 times its size"),
        (zipped(**{str(n): b"x" for n in range(1001)}), "holds more than 1000 files"),
        (gzip.compress(gzip.compress(gzip.compress(CSV))), "archive inside an archive inside an archive"),
        (gzip.compress(CSV)[:-5], "gzip ends too early"),
        (gzip.compress(CSV) + b"rest", "something that is not gzip follows"),
        (zipped(a=CSV)[:-30], "broken zip"),
        (b"PK\x03\x04", "broken zip"),
        (b"\x1f\x8b", "gzip ends too early"),
    ],
)
def test_hostile_and_broken_archives_are_refused(data: bytes, why: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(data, Options(name="f"))
    assert why in str(caught.value)


def test_limits_are_the_topology_s() -> None:
    small = Limits(payload_bytes=1024, unpacked_bytes=2048)
    with pytest.raises(DecodeError, match="1025 bytes; 1024 are allowed"):
        decode(b"x" * 1025, Options(limits=small))
    with pytest.raises(DecodeError, match="unpacks to more than 2048 bytes"):
        decode(gzip.compress(b"x" * 3000), Options(limits=small))


def test_encrypted_and_unusual_packing_are_refused() -> None:
    data = bytearray(zipped(a=CSV))
    at = data.index(b"PK\x01\x02")
    data[at + 8] |= 1
    with pytest.raises(DecodeError, match="is encrypted"):
        decode(bytes(data), Options())
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a", CSV)
    with pytest.raises(DecodeError, match="method other than deflate"):
        decode(buffer.getvalue(), Options())
