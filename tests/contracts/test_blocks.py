"""Blocks: any block round-trips, taking and joining rows keeps them, nonsense is refused."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.block import Block, columns_of
from schemas.codec import Codec
from tests.contracts.examples import BLOCK_TYPES, blocks, example_block, same

CODEC = Codec()
any_block = st.sampled_from(BLOCK_TYPES).flatmap(blocks)
SLOW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@SLOW
@given(any_block)
def test_any_block_round_trips(block: Block) -> None:
    back = CODEC.decode(CODEC.encode_block(block))
    assert same(block, back)


@SLOW
@given(any_block)
def test_equal_blocks_have_equal_bytes(block: Block) -> None:
    data = CODEC.encode_block(block)
    assert CODEC.encode_block(CODEC.decode(data)) == data


@SLOW
@given(any_block, st.data())
def test_taken_rows_hold_what_those_rows_held(block: Block, data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, len(block) - 1), max_size=8)) if len(block) else []
    taken = block.take(np.array(rows, np.int64)).check()
    assert [_row(taken, i) for i in range(len(taken))] == [_row(block, i) for i in rows]


@SLOW
@given(st.sampled_from(BLOCK_TYPES).flatmap(lambda kind: st.lists(blocks(kind, 4), min_size=1, max_size=3)))
def test_joined_blocks_hold_all_rows_in_order(parts: list[Block]) -> None:
    joined = type(parts[0]).join(parts).check()
    assert [_row(joined, i) for i in range(len(joined))] == [_row(p, i) for p in parts for i in range(len(p))]


def _row(block: Block, number: int) -> list[object]:
    """Everything of one row, cut out column by column in the plainest way."""
    parts: list[object] = []
    for name, meta in columns_of(type(block)):
        value = getattr(block, name)
        if meta["column"] == "text":
            parts.append(value[number].as_py())
        elif meta["column"] == "row":
            parts.append(int(value[number]))
        elif meta["column"] == "flat":
            counts = getattr(block, meta["count"]).tolist()
            begin = sum(counts[:number])
            parts.append(value[begin : begin + counts[number]].tolist())
    return parts


@pytest.mark.parametrize("kind", BLOCK_TYPES)
def test_columns_of_different_length_are_named(kind: type[Block]) -> None:
    block = example_block(kind)
    for name, meta in columns_of(kind):
        if meta["column"] in ("row", "flat") and name not in {m.get("count") for _, m in columns_of(kind)}:
            values = {n: getattr(block, n) for n, _ in columns_of(kind)} | {name: getattr(block, name)[:-1]}
            with pytest.raises(ValueError, match=f"{kind.__name__}.{name}: "):
                kind(**values).check()


@pytest.mark.parametrize("kind", BLOCK_TYPES)
def test_every_column_is_a_field_of_the_schema_in_the_same_order(kind: type[Block]) -> None:
    from schemas.codec import schema_text

    fields = [(field["name"], field["type"]) for field in schema_text(kind.SCHEMA)["fields"]]
    assert fields[0] == ("rows", "int")
    assert [name for name, _ in fields[1:]] == [name for name, _ in columns_of(kind)]
    packed = {name for name, meta in columns_of(kind) if meta["column"] != "scalar"}
    assert all((type_ == "bytes") == (name in packed) for name, type_ in fields[1:])


@pytest.mark.parametrize("rows", [-1, 10_000_001, 2**31 - 1])
def test_an_absurd_number_of_rows_is_refused_before_memory_is_taken(rows: int) -> None:
    record = example_block(BLOCK_TYPES[0]).to_record() | {"rows": rows}
    with pytest.raises(ValueError, match="rows"):
        BLOCK_TYPES[0].from_record(record)


def test_absurd_counts_are_refused_before_memory_is_taken() -> None:
    from schemas.packing import pack

    record = example_block(BLOCK_TYPES[0]).to_record()
    for counts in ([2**31 - 1, 2**31 - 1], [-5, 103]):
        with pytest.raises(ValueError, match="counts"):
            BLOCK_TYPES[0].from_record(record | {"count": pack(np.array(counts, np.int64))})


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(BLOCK_TYPES), st.data())
def test_damaged_bytes_give_a_block_or_valueerror(kind: type[Block], data: st.DataObject) -> None:
    whole = bytearray(CODEC.encode_block(example_block(kind)))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    for damaged in (bytes(whole), bytes(whole[:cut])):
        with contextlib.suppress(ValueError):
            CODEC.decode(damaged)


@pytest.mark.parametrize("kind", BLOCK_TYPES)
def test_a_column_its_writer_did_not_know_reads_as_zeros_or_empty_texts(kind: type[Block]) -> None:
    block = example_block(kind)
    record = block.to_record()
    counters = {meta.get("count") for _, meta in columns_of(kind)}
    for name, meta in columns_of(kind):
        if meta["column"] == "scalar" or name in counters:
            continue
        read = kind.from_record(record | {name: b""}).check()
        column = getattr(read, name)
        assert len(column) == len(getattr(block, name))
        assert set(column.to_pylist() if meta["column"] == "text" else column.tolist()) == {"" if meta["column"] == "text" else 0}
