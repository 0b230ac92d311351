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


CIM = b"""<?xml version="1.0"?><EventMessage xmlns="http://iec.ch/TC57/2011/schema/message"><Header><Verb>created</Verb><Noun>EndDeviceEvents</Noun>
<Source>HES-1</Source></Header><Payload><EndDeviceEvents xmlns="http://iec.ch/TC57/2011/EndDeviceEvents#">
<EndDeviceEvent><createdDateTime>2026-03-29T00:30:00Z</createdDateTime><severity>high</severity><EndDeviceEventType ref="3.26.0.85"/>
<Assets><mRID>5f0c</mRID><Names><name>M1</name><NameType><name>serial</name></NameType></Names></Assets></EndDeviceEvent>
<EndDeviceEvent><createdDateTime>2026-03-29T02:30:00+01:00</createdDateTime>
<issuerID>DCU-7</issuerID><EndDeviceEventType ref="3.12.29.212"/>
<EndDeviceEventDetails><name>count</name><value>3</value></EndDeviceEventDetails><Assets><mRID>5f0d</mRID></Assets></EndDeviceEvent>
</EndDeviceEvents></Payload></EventMessage>"""
ORACLE = b"""<events><D1-DeviceEventSeeder><externalSenderId>LG</externalSenderId><deviceIdentifierNumber>M1</deviceIdentifierNumber>
<externalEventName>Last Gasp</externalEventName><eventDateTime>2026-07-01-00.30.00</eventDateTime>
<externalSourceIdentifier>f1</externalSourceIdentifier>
</D1-DeviceEventSeeder><D1-DeviceEventSeeder><deviceIdentifierNumber>M2</deviceIdentifierNumber><externalEventName>E_114</externalEventName>
<eventDateTime>2026-07-01T00:30:00Z</eventDateTime><externalStatusValue>7</externalStatusValue></D1-DeviceEventSeeder></events>"""


def test_end_device_events() -> None:
    first, second = decode_events(CIM)
    assert first == {
        "device": "M1", "kind": "outage", "code": "3.26.0.85", "at": 1_774_744_200, "source": "HES-1", "severity": "high", "detail": ""
    }  # fmt: skip
    assert second == {
        "device": "5f0d", "kind": "cover-removed", "code": "3.12.29.212", "at": 1_774_747_800, "source": "DCU-7", "severity": "",
        "detail": "count=3",
    }  # fmt: skip


def test_event_seeders() -> None:
    first, second = decode_events(ORACLE, {"E_114": "clock-change"}, "Europe/London")
    assert (first["device"], first["kind"], first["code"], first["source"]) == ("M1", "outage", "Last Gasp", "LG")
    assert first["at"] == 1_782_862_200  # half past midnight in summer is half past eleven in UTC
    assert (second["kind"], second["at"], second["detail"]) == ("clock-change", 1_782_865_800, "externalStatusValue=7")
    assert decode_events(ORACLE)[1]["kind"] == "other"


@pytest.mark.parametrize(
    ("payload", "what"),
    [
        (b"<EndDeviceEvents/>", "no events"),
        (b"<EndDeviceEvents><EndDeviceEvent/></EndDeviceEvents>", "event 1: device"),
        (CIM.replace(b"2026-03-29T00:30:00Z", b"soon"), "event 1: at must be an ISO time"),
        (CIM[:-20], "not well-formed"),
        (b'<!DOCTYPE a [<!ENTITY b "c">]><EndDeviceEvents/>', "document type"),
        (b"<a>" * 1_000_000, "not well-formed"),
        ("<?xml version='1.0' encoding='utf-16'?><a/>".encode("utf-16"), "UTF-8|not JSON"),
    ],
)
def test_xml_that_is_refused(payload: bytes, what: str) -> None:
    with pytest.raises(EventError, match=what):
        decode_events(payload)
