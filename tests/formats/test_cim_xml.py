"""MeterReadings of IEC 61968-9."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from connectors.head_end.formats import DecodeError, Options, decode, detect
from connectors.head_end.formats.cim_xml import condition_of, reading_type
from schemas.conditions import EXT_ESTIMATE, INVALID, REGULAR, REPORTED_MISSING, SUSPECT

TYPE = "0.0.2.4.1.1.12.0.0.0.0.0.0.0.0.3.72.0"
REGISTER = "0.0.0.9.1.2.12.0.0.0.0.0.0.0.0.0.72.0"
NS = "http://iec.ch/TC57/2011/MeterReadings#"
DAY = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())


def event(*inner: str, meter: str = "<m:Meter><m:mRID>x</m:mRID><m:Names><m:name>M1</m:name></m:Names></m:Meter>") -> bytes:
    return (
        '<EventMessage xmlns="http://iec.ch/TC57/2011/schema/message"><Header><Verb>created</Verb><Noun>MeterReadings</Noun>'
        f'<Source>HES</Source></Header><Payload><m:MeterReadings xmlns:m="{NS}"><m:MeterReading>{"".join(inner)}{meter}'
        "</m:MeterReading></m:MeterReadings></Payload></EventMessage>"
    ).encode()


def block(*values: tuple[str, str, str], ref: str = TYPE) -> str:
    readings = "".join(
        f"<m:IntervalReadings><m:timeStamp>{at}</m:timeStamp><m:value>{value}</m:value>"
        f'<m:ReadingQualities><m:ReadingQualityType ref="{q}"/></m:ReadingQualities></m:IntervalReadings>'
        for at, value, q in values
    )
    return f'<m:IntervalBlocks>{readings}<m:ReadingType ref="{ref}"/></m:IntervalBlocks>'


def test_interval_blocks_are_stamped_at_their_ends_and_bring_unit_and_direction() -> None:
    data = event(block(("2026-01-01T00:15:00Z", "0.25", "1.0.0"), ("2026-01-01T00:30:00Z", "0.5", "3.8.0")))
    assert detect(data) == "cim-xml"
    decoded = decode(data, Options())
    (found,) = decoded.blocks
    assert (found.device.to_pylist(), found.unit.to_pylist(), found.direction.tolist()) == (["M1"], ["kWh"], [1])
    assert (found.start.tolist(), found.seconds.tolist(), found.values.tolist()) == ([DAY], [900], [250_000, 500_000])
    assert found.conditions.tolist() == [REGULAR, EXT_ESTIMATE]
    assert (found.source, decoded.format) == ("HES", "cim-xml")


def test_cumulative_readings_of_any_accumulation_are_a_register() -> None:
    reading = f'<m:timeStamp>2026-01-01T00:00:00Z</m:timeStamp><m:value>1234</m:value><m:ReadingType ref="{REGISTER}"/>'
    data = event(f"<m:Readings>{reading}</m:Readings>")
    (found,) = decode(data, Options()).blocks
    assert (found.seconds.tolist(), found.times.tolist(), found.values.tolist()) == ([0], [DAY], [1_234_000_000])
    assert found.unit.to_pylist() == ["Wh"]


def test_qualities_are_reduced_to_the_worst() -> None:
    assert condition_of(["1.0.0"]) == (REGULAR, "")
    assert condition_of(["1.0.0", "3.8.1"]) == (EXT_ESTIMATE, "")
    assert condition_of(["2.5.259", "1.0.0"]) == (REPORTED_MISSING, "")
    assert condition_of(["1.5.257"]) == (INVALID, "")
    assert condition_of(["1.99.1"]) == (SUSPECT, "1.99.1")
    assert condition_of([]) == (REGULAR, "")


@pytest.mark.parametrize(
    ("ref", "words"),
    [("0.0.2", "18 fields"), (TYPE.replace(".72.", ".250."), "unit 250"), (TYPE.replace("0.0.2.4", "0.0.99.4"), "measuring period")],
)
def test_reading_types_that_mean_nothing_are_refused_by_name(ref: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        reading_type(ref)
    data = event(block(("2026-01-01T00:15:00Z", "1", "1.0.0"), ref=ref), block(("2026-01-01T00:15:00Z", "1", "1.0.0")))
    decoded = decode(data, Options())
    assert len(decoded.blocks) == 1
    assert words in str(decoded.problems[0])


def test_powers_of_ten_no_unit_has_are_taken_into_the_value() -> None:
    data = event(block(("2026-01-01T00:15:00Z", "1.5", "1.0.0"), ref=TYPE.replace(".3.72.", ".2.72.")))
    (found,) = decode(data, Options()).blocks
    assert (found.unit.to_pylist(), found.values.tolist()) == (["Wh"], [150_000_000])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'<!DOCTYPE a [<!ENTITY b "c">]><MeterReadings/>', "document type"),
        (b"<MeterReadings>" + b"<a>" * 100_000, "not well-formed"),
        (event(meter=""), "names no meter"),
        (b"<MeterReadings/>", "without readings"),
    ],
)
def test_what_cannot_be_used_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(DecodeError, match=words):
        decode(data, Options())


def test_bad_values_and_times_are_left_out_by_name() -> None:
    bad = [("2026-01-01T00:15:00Z", "1,5", "1.0.0"), ("yesterday", "1", "1.0.0"), ("2026-01-01T00:17:00Z", "1", "1.0.0")]
    decoded = decode(event(block(*bad, ("2026-01-01T00:45:00Z", "1", "1.0.0"))), Options())
    assert sum(len(one.values) for one in decoded.blocks) == 1
    assert len(decoded.problems) == 3
