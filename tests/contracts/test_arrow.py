"""Arrow arrays through buffers: the same as PyArrow's own, without importing pandas."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.arrow import integers, numbers, texts, truths

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


def test_strided_numbers_are_copied_first() -> None:
    assert integers(np.arange(10, dtype=np.int64)[::3]).to_pylist() == [0, 3, 6, 9]


def test_nulls_are_refused() -> None:
    with pytest.raises(ValueError, match="1 nulls"):
        numbers(pa.array([1, None]))
    with pytest.raises(ValueError, match="1 nulls"):
        truths(pa.array([True, None]))


@pytest.mark.parametrize("command", ["decode", "vee"])
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
