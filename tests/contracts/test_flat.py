"""Encoders of plain records write what the general writer writes, and refuse what they are not sure of."""

from __future__ import annotations

import io
from datetime import UTC, timedelta, timezone
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import Codec, schema_text
from schemas.flat import encoder
from tests.contracts.examples import INT64, RECORD_TYPES, example_record

CODEC = Codec()
FLAT = [name for name in RECORD_TYPES if encoder(schema_text(name), b"") is not None]
ZONES = st.sampled_from([UTC, timezone(timedelta(hours=-7)), timezone(timedelta(hours=5, minutes=30))])
TIMES = st.datetimes(timezones=ZONES)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "string": st.one_of(st.text("aB3/:-", max_size=40), st.text(st.characters(exclude_categories=["Cs"]), max_size=9), st.just("x" * 9000)),
    "int": st.one_of(st.integers(-9000, 9000), st.integers(-(2**31), 2**31 - 1)),
    "long": st.one_of(st.integers(-9000, 9000), st.integers(*INT64)),
    "boolean": st.booleans(),
    "timestamp-millis": st.one_of(TIMES, st.integers(-(10**14), 10**14)),
}


def general(name: str, record: dict[str, Any]) -> bytes:
    """The body as the schema's own writer has it."""
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, schema_text(name), record)
    return buffer.getvalue()


def _values(told: Any) -> st.SearchStrategy[Any]:
    if isinstance(told, list):
        return st.one_of(st.none(), _values(told[1]))
    return VALUES[told["logicalType"] if isinstance(told, dict) else told]


@given(st.data())
def test_bytes_are_those_of_the_general_writer(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(FLAT))
    fields = schema_text(name)["fields"]
    left_out = data.draw(st.sets(st.sampled_from([f["name"] for f in fields if "default" in f] or [""])))
    record = {field["name"]: data.draw(_values(field["type"])) for field in fields if field["name"] not in left_out}
    assert CODEC.encode(name, record)[5:] == general(name, record)


def test_what_prepaid_and_receipts_write_is_plain() -> None:
    assert {"Posting", "PrepaidAccount", "PrepaidNotice", "PrepaidOutcome", "Receipt", "VeeException", "Tick"} <= set(FLAT)
    assert encoder(schema_text("UsageEvent"), b"") is None


@pytest.mark.parametrize(
    ("field", "value"),
    [("id", 7), ("id", None), ("id", b"bytes"), ("id", ["a", "b"]), ("amount", 1.5), ("amount", 12.0), ("amount", "12"), ("amount", None),
     ("amount", 2**63), ("at", 1.5), ("at", None), ("at", "2026-03-01")],
)  # fmt: skip
def test_values_of_another_type_are_left_to_the_general_writer(field: str, value: Any) -> None:
    record = example_record("Posting") | {field: value}
    try:
        body = general("Posting", record)
    except Exception as error:
        with pytest.raises(type(error)):
            CODEC.encode("Posting", record)
    else:
        assert CODEC.encode("Posting", record)[5:] == body


def test_a_field_that_is_missing_is_refused() -> None:
    record = example_record("Posting")
    del record["account"]
    with pytest.raises(ValueError, match="account"):
        CODEC.encode("Posting", record)
