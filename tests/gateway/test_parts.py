"""Large files in parts: nothing lost, nothing double, every part a file of its own."""

from __future__ import annotations

import gzip
import io
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.head_end.parts import PartsError, parts

HEADER = b"device,channel,unit,seconds,start,value\n"
NEM_HEAD = b"100,NEM12,200405010900,UNITEDDP,NEMMCO\n"


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@given(st.binary(max_size=300), st.integers(300, 400))
def test_what_fits_goes_as_it_is(data: bytes, limit: int) -> None:
    assert list(parts(data, "f", limit)) == [("f", data)]


@given(st.lists(st.from_regex(rb"[a-z0-9,]{1,40}", fullmatch=True), min_size=1, max_size=80), st.integers(60, 400), st.booleans())
def test_csv_parts_have_the_header_and_all_lines_once_in_order(lines: list[bytes], limit: int, ends: bool) -> None:
    data = HEADER + b"\n".join(lines) + (b"\n" if ends else b"")
    pieces = list(parts(data, "f.csv", limit))
    if len(data) <= limit:
        assert pieces == [("f.csv", data)]
        return
    assert [name for name, _ in pieces] == [f"f.csv#{n}" for n in range(1, len(pieces) + 1)]
    assert all(piece.startswith(HEADER) for _, piece in pieces)
    assert all(len(piece) <= limit + len(HEADER) + 41 for _, piece in pieces)
    assert [line for _, piece in pieces for line in piece.splitlines()[1:]] == lines


def block(nmi: int, days: int) -> bytes:
    rows = b"".join(b"300,200405%02d,%d,%d,A,,,2004,\n" % (day, nmi, day) for day in range(1, days + 1))
    return b"200,NMI%07d,E1,E1,E1,N1,M1,kWh,30,\n" % nmi + rows


@given(st.lists(st.integers(0, 6), min_size=1, max_size=30), st.integers(80, 1200), st.booleans())
def test_nem12_parts_open_and_end_and_keep_blocks_whole(sizes: list[int], limit: int, ended: bool) -> None:
    blocks = [block(n, days) for n, days in enumerate(sizes)]
    data = NEM_HEAD + b"".join(blocks) + (b"900\n" if ended else b"")
    pieces = [piece for _, piece in parts(data, "f.csv", limit)]
    if len(data) <= limit:
        assert pieces == [data]
        return
    assert all(piece.startswith(NEM_HEAD) for piece in pieces)
    assert all(piece.endswith(b"900\n") for piece in pieces[:-1])
    assert pieces[-1].endswith(b"900\n") == ended
    inside = [piece.removeprefix(NEM_HEAD).removesuffix(b"900\n") for piece in pieces]
    assert b"".join(inside) == b"".join(blocks)
    assert all(piece.startswith(b"200,") for piece in inside)
    largest = max(len(b) for b in blocks)
    assert all(len(piece) <= limit + largest for piece in inside)


def test_a_windows_nem12_file_is_cut_as_well() -> None:
    data = (NEM_HEAD + block(1, 3) + block(2, 3) + b"900\n").replace(b"\n", b"\r\n")
    inside = [piece.partition(b"\n")[2].removesuffix(b"900\n").removesuffix(b"900\r\n") for _, piece in parts(data, "f", 120)]
    assert len(inside) == 2
    assert b"".join(inside) == (block(1, 3) + block(2, 3)).replace(b"\n", b"\r\n")


def test_formats_that_cannot_be_cut_go_whole() -> None:
    data = b'{"reads": [' + b"1," * 500 + b"1]}"
    assert list(parts(data, "f.json", 100)) == [("f.json", data)]


def test_archives_are_unpacked_only_where_what_is_inside_is_large() -> None:
    small = zipped(a=HEADER + b"x\n")
    assert list(parts(small, "s.zip", 1000)) == [("s.zip", small)]
    large = zipped(a=HEADER + b"line\n" * 100, b=b"other")
    names = [name for name, _ in parts(large, "l.zip", 200)]
    assert names[0] == "l.zip/a#1"
    assert names[-1] == "l.zip/b"
    packed = gzip.compress(HEADER + b"line\n" * 100)
    assert [name for name, _ in parts(packed, "g.csv.gz", 200)][:2] == ["g.csv#1", "g.csv#2"]
    assert list(parts(packed, "g.csv.gz", 1000)) == [("g.csv.gz", packed)]


def test_bombs_are_refused_before_they_are_unpacked() -> None:
    with pytest.raises(PartsError, match=r"bomb\.zip"):
        list(parts(zipped(a=b"0" * 100_000), "bomb.zip", 100, most=50_000))
    with pytest.raises(PartsError, match=r"bomb\.gz"):
        list(parts(gzip.compress(b"0" * 100_000), "bomb.gz", 100, most=50_000))


@pytest.mark.parametrize("data", [b"PK\x03\x04 not really", b"\x1f\x8b not really", gzip.compress(b"0" * 1000, mtime=0)[:-6]])
def test_broken_archives_go_whole_so_that_the_hub_keeps_and_explains_them(data: bytes) -> None:
    assert list(parts(data, "f", 5)) == [("f", data)]
