"""Oracle initial measurement data."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from connectors.head_end.formats import DecodeError, Options, decode
from schemas.conditions import EXT_ESTIMATE, INVALID, OUTAGE, REGULAR, REPORTED_MISSING, SUSPECT
from tests.formats.samples import IMD, reads_of

DAY = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())
KEY = ("M", "c", "kWh", 900)


def imd(
    measures: str, start: str = "2026-01-01T00:00:00Z", end: str = "2026-01-01T01:00:00Z", more: str = "<spi>900</spi>", device: str = "M"
) -> str:
    return (
        f"<D1-InitialLoadIMD><preVEE><dvcIdN>{device}</dvcIdN><mcIdN>c</mcIdN><externalUOM>kWh</externalUOM><stDt>{start}</stDt><enDt>{end}</enDt>"
        f"{more}<msrs>{measures}</msrs></preVEE></D1-InitialLoadIMD>\n"
    )


def xml(*imds: str) -> bytes:
    return ("<SGGIMDsEvents>\n" + "".join(imds) + "</SGGIMDsEvents>").encode()


def test_intervals_and_scalars_of_both_date_formats() -> None:
    decoded = decode(IMD, Options(zone="Europe/Berlin"))
    assert decoded.format == "imd-xml"
    assert decoded.problems == decoded.notes == []
    assert reads_of(decoded) == {
        ("METER1", "1.0.1.8.0.255", "kWh", 900): [
            (DAY - 3600, 250_000, EXT_ESTIMATE),
            (DAY - 2700, 500_000, REGULAR),
            (DAY - 900, 750_000, REGULAR),
        ],
        ("METER1", "1-0:2.8.0*255", "kWh", 0): [(DAY + 31 * 86_400 - 3600, 1_234_500_000, REGULAR)],
    }
    assert decoded.blocks[0].multiplier.tolist() == [40_000_000, 40_000_000]
    assert [block.direction.tolist() for block in decoded.blocks] == [[1, 1], [2]]
    assert decoded.blocks[0].source == "HES1"


def test_without_offset_and_zone_times_are_utc_and_that_is_told() -> None:
    decoded = decode(IMD, Options(name="f"))
    assert int(decoded.blocks[0].start[0]) == DAY
    assert [str(note) for note in decoded.notes] == ["f:4: times carry no offset and no zone was given: taken as UTC"]


def test_the_older_wrapper_names_the_device_outside() -> None:
    text = (
        "<Devices><Device><headEndExternalId>H</headEndExternalId><deviceIdentifierNumber>M7</deviceIdentifierNumber><initialMeasurementDataList>"
        "<initialMeasurementData><preVEE><mcIdN>c</mcIdN><externalUOM>kWh</externalUOM><stDt>2026-01-01-00.00.00</stDt><enDt>2026-01-01-00.30.00</enDt>"
        "<spi>900</spi><msrs><mL><q>1</q></mL><mL><q>2</q></mL></msrs></preVEE></initialMeasurementData></initialMeasurementDataList></Device></Devices>"
    )
    assert reads_of(decode(text.encode(), Options(zone="UTC"))) == {
        ("M7", "c", "kWh", 900): [(DAY, 1_000_000, REGULAR), (DAY + 900, 2_000_000, REGULAR)]
    }


def test_readings_of_a_subtractive_component_become_register_reads_at_the_end_of_each_interval() -> None:
    decoded = decode(xml(imd("<mL><s>1</s><r>100</r></mL><mL><s>2</s><r>101.5</r></mL>")), Options())
    assert reads_of(decoded) == {("M", "c", "kWh", 0): [(DAY + 900, 100_000_000, REGULAR), (DAY + 1800, 101_500_000, REGULAR)]}


def test_conditions() -> None:
    measures = "".join(
        f"<mL><q>{value}</q><{tag}>{code}</{tag}></mL>"
        for value, tag, code in [("1", "fc", "actual"), ("", "fc", "outage"), ("", "fc", "E"), ("2", "fc", "N")]
    )
    decoded = decode(xml(imd(measures), imd("<mL><q>1</q><fc>BLUE</fc></mL>", device="X")), Options(name="f"))
    assert [c for _, _, c in reads_of(decoded)[KEY]] == [REGULAR, OUTAGE, REPORTED_MISSING, INVALID]
    assert [c for _, _, c in reads_of(decoded)["X", "c", "kWh", 900]] == [SUSPECT]
    assert [str(n) for n in decoded.notes] == ["f:3: condition 'BLUE' is not known: kept as suspect"]


def test_the_autumn_day_has_as_many_intervals_as_it_lasts() -> None:
    measures = "".join(f"<mL><s>{n}</s><q>{n}</q></mL>" for n in range(1, 26))
    decoded = decode(xml(imd(measures, "2024-10-27T00:00:00", "2024-10-28T00:00:00", "<spi>3600</spi>")), Options(zone="Europe/Berlin"))
    assert decoded.problems == []
    assert decoded.blocks[0].count.tolist() == [25]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (imd("<mL><s>5</s><q>1</q></mL>"), "no number from 1 to 4, which stDt to enDt hold"),
        (imd("<mL><s>x</s><q>1</q></mL>"), "no number from 1 to 4"),
        (imd("<mL><q>1e3</q></mL>"), "'1e3' is not a plain decimal number"),
        (imd("<mL><q>1</q></mL>", end="2026-01-01T00:50:00Z"), "no whole number of intervals"),
        (imd("<mL><q>1</q></mL>", end="2025-01-01T00:00:00Z"), "no whole number of intervals"),
        (imd("<mL><q>1</q></mL>", start="gestern"), "'gestern' is not a time"),
        (imd("<mL><q>1</q></mL>", start=""), "stDt and enDt are needed"),
        (imd("<mL><q>1</q></mL>", device=""), "device is empty"),
        (imd("<mL><q>1</q></mL>", more="<spi>7</spi>"), "does not divide the day"),
        (imd("<mL><q>1</q></mL>", more="<spi>x</spi>"), "spi 'x' is not a number"),
        (imd("<mL><q>1</q></mL><mL><q>1</q></mL>", more=""), "several measurements without spi"),
        (imd("", more="<enQty>many</enQty>"), "is not a plain decimal number"),
        (imd("<mL><q>1</q></mL>", more="<mcm>-1</mcm><spi>900</spi>"), "mcm is negative"),
    ],
)
def test_a_bad_imd_is_refused_with_its_line_and_the_others_kept(bad: str, why: str) -> None:
    decoded = decode(xml(imd("<mL><q>1</q></mL>", device="GOOD"), bad), Options(name="f"))
    assert list(reads_of(decoded)) == [("GOOD", "c", "kWh", 900)]
    assert {problem.line for problem in decoded.problems} == {3}
    assert any(why in problem.what for problem in decoded.problems)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b'<?xml version="1.0"?>\n<!DOCTYPE x [<!ENTITY a "b">]>\n<x>&a;</x>', "f:2: XML with a document type or entities is refused"),
        (b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><x/>', "document type"),
        (b"<x>&undefined;</x>", "f:1:"),
        (b"<a>" * 1_000_000, "Excessive depth"),
        (b"<a><b></a>", "not well-formed"),
        (b"<a/>", "without D1-InitialLoadIMD"),
        (b'<?xml version="1.0" encoding="UTF-7"?><a/>', "encoding UTF-7 is not accepted"),
        ("<?xml version='1.0'?><a/>".encode("utf-16"), "f:1:"),
        (xml(imd("<mL><q>x</q></mL>")), "f:2: 'M' 'c': 'x' is not a plain decimal"),
        (xml(imd("<mL><q>1</q></mL>"))[:-5], "not well-formed"),
    ],
)
def test_documents_that_are_refused(data: bytes, why: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(data, Options(name="f"))
    assert why in str(caught.value)


def test_many_imds_are_read_as_a_stream() -> None:
    many = [imd("".join(f"<mL><q>{n}</q></mL>" for n in range(4)), device=f"M{n}") for n in range(2000)]
    decoded = decode(xml(*many), Options())
    assert sum(int(block.count.sum()) for block in decoded.blocks) == 8000
