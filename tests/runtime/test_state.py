"""State tables: pages written and read back, growth, memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.runtime.state import PAGE, Column, State, Table


def make(_: str) -> Table:
    columns = {
        "ring": Column(np.int64, (2, 3)), "day": Column(np.int32, (2,), -1), "code": Column(np.uint16),
        "wide": Column(np.int64, (2, 3), apart=True), "also": Column(np.uint16, (2,), 7, apart=True),
    }  # fmt: skip
    return Table(columns, ["unit"])


@given(steps=st.lists(st.tuples(st.integers(0, 200), st.integers(-(2**62), 2**62), st.text(max_size=5)), max_size=60))
def test_rows_written_in_any_order_come_back(steps: list[tuple[int, int, str]]) -> None:
    state, log = State(make), []
    for number, value, unit in steps:
        table = state.table("t")
        row = table.add([f"key-{number}"])
        table["ring"][row, 1, 2] = value
        table["code"][row] = number
        table.text["unit"][int(row[0])] = unit
        table["wide"][row, number % 2, 1], table["also"][row, number % 2] = value, number
        table.mark(row, np.full(1, number % 2))
        state.put("counter", str(value).encode())
        log += state.take_changed()
    copy = State(make)
    for key, data in log:
        copy.load(key, data)
    assert copy.digest() == state.digest()
    assert copy.take_changed() == []
    newest = State(make)
    newest.load_all(dict(log))
    assert newest.digest() == state.digest()
    assert newest.take_changed() == []
    if steps:
        assert copy.table("t").find([f"key-{steps[0][0]}", "nobody"]).tolist()[1] == -1
        assert copy.table("t")["day"][0].tolist() == [-1, -1]


def test_only_pages_that_changed_are_written() -> None:
    state = State(make)
    table = state.table("t")
    rows = table.add(str(i) for i in range(3 * PAGE))
    assert len(state.take_changed()) == 3
    table.mark(rows[PAGE + 1 : PAGE + 2])
    assert [key for key, _ in state.take_changed()] == [b"t/t/1", b"t/t/1.0", b"t/t/1.1"]
    table.mark(rows[PAGE + 1 : PAGE + 3], np.array([1, 1]))
    assert [key for key, _ in state.take_changed()] == [b"t/t/1", b"t/t/1.1"]


def test_an_entry_can_be_removed() -> None:
    state, copy = State(make), State(make)
    state.put("a", b"1")
    state.put("a", None)
    for key, data in [(b"e/a", b"1"), *state.take_changed()]:
        copy.load(key, data)
    assert copy.entries == {}


def test_a_page_of_another_layout_is_refused() -> None:
    state = State(make)
    state.table("t").add(["a"])
    (key, data), *_ = state.take_changed()
    other = State(lambda _: Table({"ring": Column(np.int64, (2, 3))}))
    with pytest.raises(ValueError, match="another layout"):
        other.load(key, data)


def test_entries_take_no_more_memory_than_they_have_bytes() -> None:
    state = State(lambda _: Table({}))
    tracemalloc.start()
    try:
        for number in range(1000):
            state.put(f"{number}", orjson.dumps({"number": number}))
        assert tracemalloc.get_traced_memory()[0] < 500 * 1000, "bytes of orjson hold 4 KiB each"
    finally:
        tracemalloc.stop()
