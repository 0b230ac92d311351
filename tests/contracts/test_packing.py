"""Packed columns: exact, narrow, and strict about what they read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.block import pack_text, strings, unpack_text
from schemas.packing import pack, unpack, unpack_into
from tests.contracts.examples import INT64, TEXTS, columns
from tests.contracts.plain_packing import pack as plain_pack


@given(st.integers(0, 40).flatmap(columns))
@example(np.array(INT64, np.int64))
@example(np.array([-(2**63), -(2**63)], np.int64))
@example(np.array([127, -128, 128], np.int64))
def test_any_column_comes_back(values: np.ndarray) -> None:
    back = unpack(pack(values), len(values))
    assert back.dtype == np.int64
    assert np.array_equal(back, values)
    out = np.empty_like(values)
    unpack_into(pack(values), out)
    assert np.array_equal(out, values)


@given(st.integers(1, 40).flatmap(lambda size: st.lists(st.integers(0, 60_000), min_size=size, max_size=size)), st.sampled_from([1, 1000]))
def test_columns_come_back_into_arrays_of_other_types(values: list[int], step: int) -> None:
    given_ = np.array(values, np.int64) * step
    out = np.empty(len(values), np.uint32)
    unpack_into(pack(given_), out)
    assert out.tolist() == given_.tolist()
    if len(set(values)) > 1:
        with pytest.raises(ValueError, match="packed column"):
            unpack_into(pack(given_), np.empty(len(values) + 1, np.int64))


@st.composite
def long_columns(draw: st.DrawFn) -> np.ndarray:
    """Columns around and beyond the length from which on runs and outliers are looked for, of any type, in any memory."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    size = draw(st.sampled_from([1, 2, 255, 256, 257, 300, 1500]))
    scale, high = draw(st.sampled_from([1, 3, 1000, 10**6])), draw(st.sampled_from([1, 100, 200, 30_000, 70_000, 2**33]))
    values = rng.integers(-high if draw(st.booleans()) else 0, high, size, endpoint=True) * scale
    values = np.repeat(values, draw(st.sampled_from([1, 1, 3, 7, 8, 9, 40])))[:size]
    odd = draw(st.sampled_from([0, 0, 1, size // 64, size // 64 + 1, size // 20]))
    values[rng.integers(0, size, odd)] = rng.integers(-(2**50), 2**50, odd)
    values = values.astype(draw(st.sampled_from(["i8", "i8", "i4", "u2", "i2", "u1", "u4", ">i8"])))[:: draw(st.sampled_from([1, 1, 2]))]
    values.flags.writeable = draw(st.booleans())
    return values


@given(long_columns())
def test_long_columns_are_packed_as_in_plain_numpy_and_come_back(values: np.ndarray) -> None:
    data = pack(values)
    assert data == plain_pack(values.astype(np.int64))
    assert unpack(data, len(values)).tolist() == values.tolist()


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "u1", "u2", "u4"])
def test_narrow_types_come_back_whole(dtype: str) -> None:
    info = np.iinfo(dtype)
    values = np.array([info.min, info.max, 0, 1], dtype)
    assert unpack(pack(values), 4).tolist() == values.tolist()


@pytest.mark.parametrize(
    ("values", "size"),
    [
        ([0, 1, -1], 2 + 3),  # one byte each
        ([1_000, 32_000_000, -5_000], 2 + 6),  # whole Wh: two bytes each
        ([7_000_000, 90_000_000], 2 + 2),  # whole kWh: one byte each
        ([123_456_789] * 96, 2 + 4),  # constant: once
        ([2**40 + 1, 0], 2 + 16),
    ],
)
def test_columns_take_the_narrowest_form(values: list[int], size: int) -> None:
    assert len(pack(np.array(values, np.int64))) == size


@given(st.integers(1, 20).flatmap(columns), st.integers(-3, 3).filter(bool))
def test_a_wrong_length_is_refused(values: np.ndarray, off: int) -> None:
    data = pack(values)
    wrong = len(values) + off
    if wrong < 0 or (len(values) > 1 and wrong > 0 and data[0] & 8):
        return  # a constant column has no length of its own; the block's other columns tell
    with pytest.raises(ValueError, match="packed column"):
        unpack(data, wrong)


@given(st.binary(max_size=40), st.integers(0, 12))
def test_any_bytes_give_values_or_valueerror(data: bytes, size: int) -> None:
    try:
        values = unpack(data, size)
    except ValueError:
        return
    assert len(values) == size


@given(st.lists(TEXTS, max_size=30))
def test_any_text_comes_back(values: list[str]) -> None:
    assert unpack_text(pack_text(strings(values)), len(values)).to_pylist() == values


@given(st.lists(TEXTS, min_size=1, max_size=10), st.data())
def test_a_slice_of_a_text_column_packs_as_its_own_strings(values: list[str], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(values)))
    part = strings(values).slice(start)
    assert pack_text(part) == pack_text(strings(values[start:]))


@given(st.binary(max_size=60), st.integers(0, 6))
def test_any_bytes_give_text_or_valueerror(data: bytes, size: int) -> None:
    try:
        values = unpack_text(data, size)
    except ValueError:
        return
    assert all(isinstance(value, str) for value in values.to_pylist())
    assert len(values) == size
