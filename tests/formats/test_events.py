"""Device events: the shapes a payload may have, and what is refused."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.head_end.formats.events import EventError, decode_events
from schemas.events import CODES, KINDS

ONE = {"device": "m1", "kind": "outage", "at": "2026-03-29T01:30:00+01:00"}


@pytest.mark.parametrize(
    "payload",
    [
        orjson.dumps(ONE),
        orjson.dumps([ONE]),
        orjson.dumps({"events": [ONE]}),
        orjson.dumps(ONE) + b"\n",
        orjson.dumps({"device": "m1", "code": "3.26.0.85", "at": "2026-03-29T00:30:00Z"}),
    ],
)
def test_one_event_in_every_shape(payload: bytes) -> None:
    (event,) = decode_events(payload)
    assert (event["device"], event["kind"], event["at"]) == ("m1", "outage", 1_774_744_200)


def test_lines_and_sources() -> None:
    found = decode_events(orjson.dumps(ONE) + b"\n\n" + orjson.dumps(ONE | {"kind": "restore"}) + b"\n")
    assert [event["kind"] for event in found] == ["outage", "restore"]
    (event,) = decode_events(orjson.dumps({"source": "hes7", "events": [ONE | {"code": "X1"}]}))
    assert (event["source"], event["code"]) == ("hes7", "X1")


def test_codes_are_kinds_and_unknown_ones_are_kept() -> None:
    assert set(CODES.values()) < set(KINDS)
    (event,) = decode_events(orjson.dumps({"device": "m", "code": "9.9.9.9", "at": "2026-01-01T00:00:00Z"}))
    assert (event["kind"], event["code"]) == ("other", "9.9.9.9")


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"", "no events"),
        (b"[]", "no events"),
        (b"outage", "not JSON"),
        (b"[1]", "event 1: must be an object"),
        (orjson.dumps([ONE, {}]), "event 2: device"),
        (orjson.dumps(ONE | {"device": " "}), "device"),
        (orjson.dumps(ONE | {"kind": "party"}), "kind must be one of outage"),
        (orjson.dumps({"device": "m", "at": ONE["at"]}), "kind"),
        (orjson.dumps(ONE | {"at": "2026-01-01T00:00:00"}), "offset"),
        (orjson.dumps(ONE | {"at": 7}), "ISO"),
        (orjson.dumps(ONE | {"at": "1950-01-01T00:00:00Z"}), "1970"),
        (orjson.dumps({"events": {"device": "m"}}), "kind"),
    ],
)
def test_what_is_refused(payload: bytes, says: str) -> None:
    with pytest.raises(EventError, match=says):
        decode_events(payload)


def _dump(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # integers beyond 64 bits
        return b""


NAMES = st.sampled_from(["device", "at", "kind", "code", "events", "source"])
SHAPES = st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner))


@given(st.binary(max_size=60) | SHAPES.map(_dump))
def test_anything_is_events_or_refused(payload: bytes) -> None:
    with suppress(EventError):
        assert decode_events(payload)
