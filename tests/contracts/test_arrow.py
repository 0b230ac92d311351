"""Arrow arrays through buffers: the same as PyArrow's own, without importing pandas."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.arrow import column, integers, lists, numbers, texts, truths

words = st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=8), max_size=20)


@settings(deadline=None)  # the first comparison loads PyArrow's other half
@given(words)
def test_texts_are_those_of_pyarrow(values: list[str]) -> None:
    made = texts(values)
    made.validate(full=True)
    assert made.equals(pa.array(values, pa.string()))


@settings(deadline=None)
@given(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=20), st.sampled_from([np.int32, np.int64]), st.integers(0, 5))
def test_whole_numbers_survive_the_way_there_and_back(values: list[int], dtype: type, cut: int) -> None:
    given_ = np.array(values, dtype)
    made = integers(given_)
    assert made.equals(pa.array(values, made.type))
    back = numbers(made.slice(min(cut, len(values))))
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, given_[cut:])


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=40), st.integers(0, 20))
def test_booleans_come_out_of_their_bits(values: list[bool], cut: int) -> None:
    array = pa.array(values, pa.bool_()).slice(min(cut, len(values)))
    assert truths(array).tolist() == values[cut:]


_COLUMNS = st.one_of(
    st.tuples(st.just(pa.string()), words),
    st.tuples(st.just(pa.binary()), st.lists(st.binary(max_size=9), max_size=20)),
    st.tuples(st.just(pa.uint8()), st.lists(st.integers(0, 255), max_size=20)),
    st.tuples(st.just(pa.int64()), st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20)),
    st.tuples(st.just(pa.decimal128(18, 6)), st.lists(st.decimals(-(10**11), 10**11, places=6), max_size=20)),
    st.tuples(st.just(pa.map_(pa.string(), pa.string())), st.lists(st.dictionaries(st.text("ab\u00e9"), st.text("xy")), max_size=9)),
)


@settings(deadline=None)
@given(_COLUMNS)
def test_columns_of_python_values_are_those_of_pyarrow(made: tuple[pa.DataType, list[Any]]) -> None:
    kind, values = made
    own = column(values, kind)
    own.validate(full=True)
    assert own.equals(pa.array([list(v.items()) for v in values] if pa.types.is_map(kind) else values, kind))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pa.uint8(), 256), (pa.uint32(), -1), (pa.int64(), 2**63), (pa.string(), None), (pa.string(), b"x"), (pa.int32(), "x"),
        (pa.decimal128(18, 6), Decimal(10**12)), (pa.decimal128(18, 6), Decimal("0.0000001")), (pa.binary(), "x"),
    ],
)  # fmt: skip
def test_a_value_its_type_cannot_hold_is_refused(kind: pa.DataType, value: Any) -> None:
    with pytest.raises((TypeError, ValueError, OverflowError)):
        column([value], kind)


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), max_size=4), max_size=9))
def test_lists_are_cut_by_their_counts(values: list[list[int]]) -> None:
    flat = np.array([number for row in values for number in row], np.int64)
    assert lists(integers(flat), np.array([len(row) for row in values], np.int64)).to_pylist() == values


def test_strided_numbers_are_copied_first() -> None:
    assert integers(np.arange(10, dtype=np.int64)[::3]).to_pylist() == [0, 3, 6, 9]


def test_nulls_are_refused() -> None:
    with pytest.raises(ValueError, match="1 nulls"):
        numbers(pa.array([1, None]))
    with pytest.raises(ValueError, match="1 nulls"):
        truths(pa.array([True, None]))


@pytest.mark.parametrize("command", ["decode"])  # vee has models of river, which brings pandas
def test_commands_over_files_do_without_pandas(command: str, tmp_path: object) -> None:
    file = f"{tmp_path}/reads.csv"
    with open(file, "w") as out:  # noqa: PTH123
        out.write("device,channel,unit,seconds,start,value\nM1,1.8.0,kWh,900,2024-01-01T00:00:00Z,0.25\n")
    script = (
        "import sys\nfrom mdh.cli import main\n"
        f"sys.argv = ['mdh', '{command}', {file!r}]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "assert 'pandas' not in sys.modules, 'pandas was imported'"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_truths_are_bits_in_any_number() -> None:
    for count in (1, 7, 8, 9, 301):
        values = [number % 3 == 2 for number in range(count)]
        assert column(values, pa.bool_()).to_pylist() == values
