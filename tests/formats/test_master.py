"""Master data as NDJSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from connectors.enterprise.master import parse_master
from schemas.codec import Codec

FULL = {
    "service_point": "SP",
    "device": "M",
    "channel": "1.8.0",
    "unit": "KWH",
    "direction": "delivered",
    "seconds": 900,
    "zone": "Europe/Berlin",
    "multiplier": 40,
    "dials": 6,
    "allow_negative": False,
    "check_channel": "R",
    "account": "A",
    "periods": [
        {"from": "2024-01-01T00:00:00+01:00", "to": "2024-06-01", "state": "connected"},
        {"from": "2024-06-01T00:00:00", "state": "disconnected"},
    ],
}


def second(*when: int) -> int:
    return int(datetime(*when, tzinfo=UTC).timestamp())  # type: ignore[misc, arg-type]


def test_a_full_line_and_the_least_one() -> None:
    records, errors = parse_master(b"\xef\xbb\xbf" + json.dumps(FULL).encode() + b'\n\n{"device": "M", "channel": "c"}\r\n')
    assert errors == []
    assert records[0] == FULL | {
        "unit": "kWh",
        "multiplier": 40_000_000,
        "periods": [
            {"from": second(2023, 12, 31, 23), "to": second(2024, 5, 31, 22), "state": "connected"},
            {"from": second(2024, 5, 31, 22), "to": None, "state": "disconnected"},
        ],
    }
    assert set(records[1]) == set(records[0])
    assert [v for k, v in records[1].items() if k not in ("device", "channel")] == [None] * 10 + [[]]
    codec = Codec()
    decoded = [codec.decode(codec.encode("MasterChannel", record)) for record in records]
    made_of_objects = {"changed": [], "version": 0}  # a channel given as a whole says nothing of what only objects have
    undated = dict.fromkeys(("service_point", "account", "multiplier", "unit"))
    assert decoded == [
        {**record, **made_of_objects, "periods": [{**period, **undated} for period in record["periods"]]} for record in records
    ]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"device": ""}, "device must be a text"),
        ({"channel": None}, "channel must be a text"),
        ({"device": 5}, "device must be a text"),
        ({"device": "x" * 201}, "device must be a text"),
        ({"direction": "up"}, "direction must be one of none, delivered, received"),
        ({"seconds": 7}, "does not divide the day"),
        ({"seconds": 900.5}, "seconds must be a whole number"),
        ({"seconds": True}, "seconds must be a whole number"),
        ({"zone": "Mars"}, "zone 'Mars' is not an IANA time zone"),
        ({"zone": "../../etc/passwd"}, "is not an IANA time zone"),
        ({"multiplier": 0}, "multiplier must be a number above 0"),
        ({"multiplier": -2}, "multiplier must be a number above 0"),
        ({"multiplier": True}, "multiplier must be"),
        ({"multiplier": "1e3"}, "multiplier: '1e3' is not a plain decimal"),
        ({"dials": 0}, "dials must be a whole number from 1 to 15"),
        ({"allow_negative": "no"}, "allow_negative must be true or false"),
        ({"periods": {}}, "periods must be a list"),
        ({"periods": [{"state": "gone"}]}, "state must be one of"),
        ({"periods": [{"from": "2024", "state": "connected"}]}, "from must be an ISO time"),
        ({"periods": [{"from": "2024-02-30", "state": "connected"}]}, "from '2024-02-30'"),
        ({"periods": [{"from": "2024-02-02", "to": "2024-02-01", "state": "connected"}]}, "to must be after from"),
        ({"periods": [{"state": "connected"}, {"from": "2024-02-01", "state": "connected"}]}, "periods overlap"),
        ({"zone": None, "periods": [{"from": "2024-02-01", "state": "connected"}]}, "has no offset, and the line names no zone"),
        ({"colour": "red"}, "unknown key 'colour'"),
    ],
)
def test_a_bad_line_is_named_and_the_others_kept(change: dict[str, Any], why: str) -> None:
    records, errors = parse_master(
        f'{{"device": "A", "channel": "c"}}\n{json.dumps(FULL | change)}\n{{"device": "B", "channel": "c"}}'.encode()
    )
    assert [record["device"] for record in records] == ["A", "B"]
    assert [error.line for error in errors] == [2]
    assert why in errors[0].what


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[]",
        b"5",
        b"null",
        b"\xff",
        b"NaN",
        b'{"device": "A", "device": "B", "channel": "c"}',
        b"[" * 100_000,
        b'{"device": "A", "channel": "c", "dials": ' + b"9" * 100_000 + b"}",
        b'{"device": "' + b"x" * 300_000 + b'"}',
    ],
)
def test_hostile_lines_are_errors(line: bytes) -> None:
    records, errors = parse_master(line)
    assert (records, len(errors)) == ([], 1)


def test_decimals_are_exact() -> None:
    records, _ = parse_master(b'{"device": "A", "channel": "c", "multiplier": 0.1}')
    assert records[0]["multiplier"] == 100_000
