"""Reads as JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.head_end.formats import DecodeError, Options, decode
from schemas.conditions import EXT_ESTIMATE, OUTAGE, REGULAR, REPORTED_MISSING, USER_EDIT
from schemas.quantity import text_of
from tests.formats.samples import JSON, reads_of

DAY = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp())
KEY = ("M", "c", "kWh", 900)


def item(**changes: Any) -> dict[str, Any]:
    base = {"device": "M", "channel": "c", "unit": "kWh", "seconds": 900, "start": "2024-01-01T00:00:00Z", "values": [1, 2]}
    return {key: value for key, value in (base | changes).items() if value is not ...}


def read(*items: Any, **options: Any) -> tuple[dict[Any, list[tuple[int, int, int]]], list[str]]:
    decoded = decode(json.dumps({"reads": list(items)}).encode(), Options(name="f", **options))
    return reads_of(decoded), [problem.what for problem in decoded.problems]


def test_intervals_and_readings() -> None:
    decoded = decode(JSON, Options())
    assert decoded.format == "json"
    assert decoded.blocks[0].source == "hes-1"
    assert reads_of(decoded) == {
        ("M1", "1.8.0", "kWh", 900): [
            (DAY, 100_000, REGULAR),
            (DAY + 900, 200_000, EXT_ESTIMATE),
            (DAY + 1800, 0, REPORTED_MISSING),
            (DAY + 2700, 1_500_000, REGULAR),
        ],
        ("W1", "vol", "m3", 0): [(DAY, 10_500_000, REGULAR), (DAY + 86_400, 11_000_000, REGULAR)],
    }


def test_the_source_of_the_message_wins() -> None:
    assert decode(JSON, Options(source="gateway")).blocks[0].source == "gateway"


def test_numbers_are_taken_as_written() -> None:
    text = json.dumps({"reads": [item(values=["V"])]}).replace('"V"', "0.1234565, 4000000000000, -0.0")
    assert [v for _, v, _ in reads_of(decode(text.encode(), Options()))[KEY]] == [123_456, 4 * 10**18, 0]


@pytest.mark.parametrize(
    "bad",
    [
        "1e3",
        '"1,234"',
        '"１２"',
        "true",
        "{}",
        "[1]",
        '"a\\nb"',
        '"\\""',
        "9223372036854.775808",
        "1e400",
        '"\\ud800"',
        '"nan"',
        '"\\u0000"',
    ],
)
def test_a_bad_value_leaves_a_gap(bad: str) -> None:
    text = json.dumps({"reads": [item(values=[1, "BAD", 3])]}).replace('"BAD"', bad)
    decoded = decode(text.encode(), Options())
    assert reads_of(decoded) == {KEY: [(DAY, 1_000_000, REGULAR), (DAY + 1800, 3_000_000, REGULAR)]}
    assert [p.what.split(":")[0] for p in decoded.problems] == ["reads[0].values[1]"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"device": ""}, "device is empty"),
        ({"device": None}, "device is not a text"),
        ({"unit": ...}, "unit is not a text"),
        ({"seconds": 7}, "does not divide the day"),
        ({"seconds": 0}, "seconds is not a whole number"),
        ({"seconds": 9.5}, "seconds is not a whole number"),
        ({"seconds": -900}, "seconds is not a whole number"),
        ({"start": "2024-01-01T00:07:00Z"}, "start lies on no quarter"),
        ({"start": "2024-01-01T00:00:00"}, "has no offset and no zone"),
        ({"start": 20240101}, "is not a time"),
        ({"start": "2100-12-31T23:45:00Z", "values": [1, 2]}, "beyond the year 2100"),
        ({"values": "1,2"}, "values is not a list"),
        ({"conditions": ["actual"]}, "conditions is not a list as long as values"),
        ({"direction": "up"}, "direction is none of"),
        ({"multiplier": -1}, "multiplier is negative"),
        ({"colour": "red"}, "unknown key 'colour'"),
        ({"readings": []}, "unknown key 'seconds'"),
    ],
)
def test_a_bad_object_is_refused_and_the_others_kept(changes: dict[str, Any], why: str) -> None:
    found, problems = read(item(**changes), item(device="N"))
    assert list(found) == [("N", "c", "kWh", 900)]
    assert len(problems) == 1
    assert problems[0].startswith("reads[0]: ")
    assert why in problems[0]


def test_conditions_and_missing_values() -> None:
    found, problems = read(item(values=[1, None, "", 4, 5], conditions=["edited", "outage", None, "missing", "odd"]))
    assert found[KEY] == [
        (DAY, 1_000_000, USER_EDIT),
        (DAY + 900, 0, OUTAGE),
        (DAY + 1800, 0, REPORTED_MISSING),
        (DAY + 2700, 0, REPORTED_MISSING),
    ]
    assert problems == ["reads[0].conditions[4]: 'odd' is no condition"]


def test_a_bad_reading_is_refused_alone() -> None:
    readings = [
        {"at": "2024-01-01T00:00Z", "value": 1},
        {"at": "soon", "value": 2},
        {"value": 3},
        {"at": "2024-01-02T00:00Z", "value": "x"},
    ]
    found, problems = read({"device": "M", "channel": "c", "unit": "kWh", "readings": readings})
    assert found == {("M", "c", "kWh", 0): [(DAY, 1_000_000, REGULAR)]}
    assert len(problems) == 3


def test_objects_that_overlap_merge_and_the_later_wins() -> None:
    found, problems = read(
        item(values=[1, 2, 3]), item(start="2024-01-01T00:30:00Z", values=[9, 4]), item(start="2023-12-31T23:45:00Z", values=[0, 7])
    )
    assert [v // 10**6 for _, v, _ in found[KEY]] == [0, 7, 2, 9, 4]
    assert len(problems) == 1, "both are told in one problem, for there are no lines in JSON"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "not JSON"),
        ('{"reads": 1}', 'a list "reads"'),
        ('{"reads": [], "reads": []}', "key 'reads' stands twice"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ('{"reads": [NaN]}', "NaN is not a number"),
        ('{"reads": [{"values": [Infinity]}]}', "Infinity"),
        ('{"source": 5, "reads": [1]}', "no reads can be read"),
        ('{"source": [], "reads": []}', "source is not"),
        ('{"reads": [[]]}', "is not an object"),
        ('{"reads": [\n1,\n}', "f:3: not JSON"),
    ],
)
def test_documents_that_are_refused(text: str, why: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(text.encode(), Options(name="f"))
    assert why in str(caught.value)


def test_a_million_digits_cost_nothing() -> None:
    found, problems = read(item(values=["9" * 1_000_000, 1]))
    assert [v for _, v, _ in found[KEY]] == [1_000_000]
    assert len(problems[0]) < 200


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\ufffd"), min_size=1, max_size=5),
            st.lists(
                st.tuples(st.integers(-4 * 10**18, 4 * 10**18) | st.none(), st.sampled_from([EXT_ESTIMATE, REGULAR])),
                min_size=1,
                max_size=20,
            ),
        ),
        min_size=1,
        max_size=4,
        unique_by=lambda channel: channel[0],
    )
)
def test_what_is_written_is_read_back(channels: list[tuple[str, list[tuple[int | None, int]]]]) -> None:
    items = [
        item(device=name, values=[None if v is None else text_of(v) for v, _ in cells], conditions=[str(c) for _, c in cells])
        for name, cells in channels
    ]
    found, problems = read(*items)
    assert problems == []
    assert found == {
        (name, "c", "kWh", 900): [(DAY + 900 * i, v or 0, REPORTED_MISSING if v is None else c) for i, (v, c) in enumerate(cells)]
        for name, cells in channels
    }
