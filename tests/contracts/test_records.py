"""Framed records: golden bytes, framing, and refusal of what is not a record."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.block import Block
from schemas.codec import BLOCKS, Codec
from tests.contracts.examples import RECORD_TYPES, example_block, example_record, same

CODEC = Codec()
GOLDEN = Path(__file__).parent.parent / "golden"
REWRITE = os.environ.get("MDH_REWRITE_GOLDEN") == "1"  # only for versions that nothing was ever written with


def _example_bytes(name: str) -> tuple[Any, bytes]:
    if name in BLOCKS:
        block = example_block(BLOCKS[name])
        return block, CODEC.encode_block(block)
    record = example_record(name)
    return record, CODEC.encode(name, record)


@pytest.mark.parametrize("label", sorted(CODEC.ids.values()))
def test_bytes_of_every_version_stay_readable_and_the_current_ones_stay_the_same(label: str) -> None:
    name = label.rpartition(".v")[0]
    path = GOLDEN / f"{label}.bin"
    value, data = _example_bytes(name)
    if REWRITE:
        path.write_bytes(data)
    kept = path.read_bytes()
    decoded = CODEC.decode(kept)
    if label != max((v for v in CODEC.ids.values() if v.startswith(f"{name}.v")), key=lambda v: int(v.rpartition(".v")[2])):
        return
    assert kept == data
    assert same(value, decoded) if isinstance(value, Block) else decoded == value


def test_golden_files_and_versions_are_the_same() -> None:
    assert {path.stem for path in GOLDEN.glob("*.bin")} == set(CODEC.ids.values())


@pytest.mark.parametrize("name", [*RECORD_TYPES, *BLOCKS])
def test_a_record_is_framed_as_confluent_does(name: str) -> None:
    _, data = _example_bytes(name)
    number = next(number for number, label in sorted(CODEC.ids.items(), reverse=True) if label.startswith(f"{name}.v"))
    assert data[0] == 0
    assert int.from_bytes(data[1:5], "big") == number
    assert CODEC.name_of(data) == name


def test_ids_of_a_registry_take_the_place_of_the_committed_ones() -> None:
    codec = Codec({100_017: "Tick.v1"})
    data = codec.encode("Tick", {"at": 5, "close": True})
    assert data[:5] == b"\0" + (100_017).to_bytes(4, "big")
    assert codec.decode(data) == {"at": 5, "close": True}
    with pytest.raises(ValueError, match="known schema id"):
        CODEC.decode(data)


def test_the_newest_version_is_written_whatever_its_id() -> None:
    """A registry may have seen a later version first, in another subject."""
    assert Codec({7: "Tick.v2", 9: "Tick.v1"})._heads["Tick"] == b"\0\0\0\0\x07"
    assert Codec({7: "Tick.v9", 9: "Tick.v10"})._heads["Tick"] == b"\0\0\0\0\x09"


def test_old_versions_are_read_with_what_their_writer_lacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second version with a new defaulted field: bytes of the first still decode, and are given the default."""
    import json

    import schemas.codec

    (tmp_path / "avro" / "old").mkdir(parents=True)
    first = schemas.codec.schema_text("Tick")
    second = json.loads(json.dumps(first))
    second["fields"].append({"name": "reason", "type": "string", "default": "none"})
    (tmp_path / "avro" / "old" / "Tick.v1.avsc").write_text(json.dumps(first))
    (tmp_path / "avro" / "Tick.avsc").write_text(json.dumps(second))
    data = CODEC.encode("Tick", {"at": 9, "close": False})
    monkeypatch.setattr(schemas.codec, "FOLDER", tmp_path)
    schemas.codec._parsed.cache_clear()
    try:
        codec = Codec({4: "Tick.v1", 11: "Tick.v2"})
        assert codec.decode(data) == {"at": 9, "close": False, "reason": "none"}
        assert codec.encode("Tick", {"at": 1, "close": False, "reason": "x"})[4] == 11
    finally:
        schemas.codec._parsed.cache_clear()


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\0\0\0", b"\1\0\0\0\4\2\0", b"\0\0\0\0\0", b"\0\xff\xff\xff\xff\0", b"{}"])
def test_what_is_not_framed_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a framed record"):
        CODEC.decode(data)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(CODEC.ids)), st.binary(max_size=200))
def test_any_body_gives_a_record_or_valueerror(number: int, body: bytes) -> None:
    with contextlib.suppress(ValueError):
        CODEC.decode(b"\0" + number.to_bytes(4, "big") + body)


@pytest.mark.parametrize("name", RECORD_TYPES)
def test_a_record_that_lacks_a_field_or_has_a_wrong_type_is_refused(name: str) -> None:
    record = example_record(name)
    first = next(iter(record))
    with pytest.raises((ValueError, TypeError)):
        CODEC.encode(name, record | {first: object()})
