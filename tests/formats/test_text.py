"""The compiled readers of decimals and times against the plain ones."""
# ruff: noqa: DTZ001 wall-clock times are meant

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.head_end.formats import text
from connectors.head_end.formats.model import DecodeError
from connectors.head_end.formats.times import FINE, SKIPPED, ZONELESS, to_utc, transitions
from schemas import quantity

EDGES = [
    "0",
    "-0",
    "-0.0",
    "+1",
    "1.",
    ".5",
    ".",
    "-",
    "+",
    "--1",
    "1e3",
    "1E3",
    "1,5",
    "1,234",
    "nan",
    "NaN",
    "inf",
    "-inf",
    "0x1",
    "1_000",
    "１２",
    "٣",
    "0.0000005",
    "0.0000015",
    "0.0000025",
    "0.00000050000001",
    "-0.0000005",
    "-0.0000015",
    "1.9999995",
    "1.9999999",
    "0.9999995",
    "4000000000000",
    "4000000000000.0000004",
    "4000000000000.0000005",
    "4000000000000.0000006",
    "4000000000000.000001",
    "-4000000000000",
    "-4000000000000.1",
    "9223372036854.775807",
    "9223372036854775807",
    "99999999999999999999",
    "0" * 64,
    "0" * 65,
    "1" + "0" * 63,
    "0." + "0" * 61 + "1",
    "0." + "0" * 62 + "1",
    " 5 ",
    "\t5",
    "5 5",
    "1 000",
    "½",
    "1.2.3",
    "=1+1",
    "\x00",
    "1\x00",
]


def compiled(cell: str) -> int | None:
    """The value the compiled reader gives, None where it refuses."""
    table = text.split(f"{cell};\n".encode(), ";", "")
    values, status = table.decimals(np.array([0]))
    return int(values[0]) if status[0] == text.OK else None


def plain(cell: str) -> int | None:
    try:
        return quantity.parse(cell)
    except ValueError:
        return None


@pytest.mark.parametrize("cell", EDGES)
def test_edges_of_decimals_are_read_as_the_contract_says(cell: str) -> None:
    assert compiled(cell) == plain(cell)


@settings(deadline=None)
@given(st.text("0123456789.+- eE,\t", max_size=70) | st.from_regex(r"[+-]?\d{0,14}\.?\d{0,12}", fullmatch=True))
def test_decimals_equal_the_contract(cell: str) -> None:
    assert compiled(cell) == plain(cell)


@settings(deadline=None)
@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**13), max_value=10**13).map(lambda d: f"{d:f}"))
def test_every_decimal_equals_the_contract(cell: str) -> None:
    assert compiled(cell) == plain(cell)


def test_decimals_may_use_another_point_and_words_for_nothing() -> None:
    table = text.split(b'1,5;Null;"2,25";NA ;-;1.5\n', ";", "")
    values, status = table.decimals(np.arange(6), ",", ("Null", "NA"))
    assert values.tolist()[:3] == [1_500_000, 0, 2_250_000]
    assert status.tolist() == [text.OK, text.EMPTY, text.OK, text.EMPTY, text.BAD, text.BAD]


def test_fields_lines_and_quotes() -> None:
    table = text.split(b'a,"b,1",c\r\n\n"x\ny",2\n,\nlast', ",", "")
    assert [table.line(i) for i in range(len(table))] == [["a", "b,1", "c"], [""], ["x\ny", "2"], ["", ""], ["last"]]
    assert table.numbers.tolist() == [1, 2, 3, 5, 6]


@pytest.mark.parametrize("data", [b"", b"\n", b"a", b"a\n", b",", b",\n", b'""', b'"a""b",c'])
def test_small_tables(data: bytes) -> None:
    table = text.split(data, ",", "")
    lines = data.decode().split("\n")
    assert len(table) == len(lines if lines[-1] else lines[:-1])


def test_an_open_quote_and_an_endless_line_are_refused() -> None:
    with pytest.raises(DecodeError, match="f:2: a quote opened here is never closed"):
        text.split(b'a\n"b\nc', ",", "f")
    with pytest.raises(DecodeError, match="a line of 10000000 bytes"):
        text.split(b"x" * 10_000_000, ",", "f")


def stamp(cell: str, form: str = "iso") -> tuple[int, int, int]:
    table = text.split(cell.encode() + b"\n", ";", "")
    seconds, offsets, status = table.stamps(np.array([[0]]), text.compile_format(form))
    return int(seconds[0]), int(offsets[0]), int(status[0])


@settings(deadline=None)
@given(
    st.datetimes(datetime(1970, 1, 1), datetime(2100, 12, 31, 23, 59, 59)),
    st.sampled_from([None, 0, 3600, -12600, 50400]),
    st.sampled_from("T "),
)
def test_iso_times_equal_the_standard_library(moment: datetime, offset: int | None, joint: str) -> None:
    moment = moment.replace(microsecond=0)
    zone = (
        ""
        if offset is None
        else "Z"
        if offset == 0
        else f"{'-' if offset < 0 else '+'}{abs(offset) // 3600:02d}:{abs(offset) // 60 % 60:02d}"
    )
    seconds, found, status = stamp(moment.isoformat(joint) + zone)
    assert status == text.OK
    assert seconds == (moment - datetime(1970, 1, 1)).total_seconds()
    assert found == (text.NAIVE if offset is None else offset)


@pytest.mark.parametrize(
    "cell",
    [
        "",
        "2024",
        "2024-1-01",
        "2024-02-30",
        "2023-02-29",
        "2024-13-01",
        "2024-01-01T",
        "2024-01-01T24:01",
        "2024-01-01T12:60",
        "2024-01-01T12:00:60",
        "2024-01-01T12:00:00X",
        "2024-01-01T12:00:00+1",
        "2024-01-01T12:00:00+19:00",
        "2024-01-01T12:00:00ZZ",
        "20240101",
        "２０２４-01-01",
        "2024-01-01T1:00",
    ],
)
def test_what_is_no_iso_time(cell: str) -> None:
    assert stamp(cell)[2] == text.BAD


def test_iso_times_of_unusual_shape() -> None:
    noon = int(datetime(2024, 1, 1, 12, tzinfo=UTC).timestamp())
    assert stamp("2024-01-01T12:00:00.0000000Z") == (noon, 0, text.OK)
    assert stamp("2024-01-01T12:00+0130") == (noon, 5400, text.OK)
    assert stamp("2024-01-01 24:00") == (noon + 43_200, text.NAIVE, text.OK)
    assert stamp("2024-01-01") == (noon - 43_200, text.NAIVE, text.OK)
    assert stamp("1969-12-31T00:00Z")[2] == text.RANGE
    assert stamp("2101-01-01T00:00Z")[2] == text.RANGE


@pytest.mark.parametrize(
    ("form", "cell"),
    [
        ("%d/%m/%Y %H:%M:%S", "30/10/2016 02:08:53"),
        ("%m/%d/%Y %H:%M", "3/9/2018 7:05"),
        ("%d-%b-%y %I:%M %p", "05-Mar-24 12:30 AM"),
        ("%Y%m%d%H%M", "202403051230"),
        ("%d.%m.%Y %H:%M", "05.03.2024 23:59"),
        ("%Y-%m-%dT%H:%M:%S%z", "2024-03-05T10:00:00+0100"),
    ],
)
def test_formats_equal_strptime(form: str, cell: str) -> None:
    expected = datetime.strptime(cell, form)  # noqa: DTZ007 wall-clock time is meant
    seconds, offset, status = stamp(cell, form)
    assert status == text.OK
    assert seconds == (expected.replace(tzinfo=None) - datetime(1970, 1, 1)).total_seconds()
    assert offset == (text.NAIVE if expected.tzinfo is None else 3600)
    assert stamp(cell + "1x", form)[2] == text.BAD


def test_unknown_directives_are_refused() -> None:
    with pytest.raises(ValueError, match="%Q is not one of"):
        text.compile_format("%Y-%Q")
    assert stamp("1700000000", "epoch")[0] == 1_700_000_000


ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Africa/Casablanca", "UTC"]


@pytest.mark.parametrize("zone", ZONES)
def test_transitions_equal_the_zone_database(zone: str) -> None:
    changes, offsets = transitions(zone)
    info = ZoneInfo(zone)
    for change, before, after in zip(changes.tolist(), offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        for second, expected in ((change - 1, before), (change, after)):
            found = datetime.fromtimestamp(second, info).utcoffset()
            assert found == timedelta(seconds=expected)


@settings(deadline=None)
@given(st.sampled_from(ZONES), st.lists(st.datetimes(datetime(1990, 1, 1), datetime(2037, 1, 1)), min_size=1, max_size=5))
def test_local_times_equal_the_zone_database(zone: str, moments: list[datetime]) -> None:
    info = ZoneInfo(zone)
    moments = [m.replace(microsecond=0, fold=0) for m in moments]  # the first of two: what is read has no fold
    local = np.array([int((m - datetime(1970, 1, 1)).total_seconds()) for m in moments])
    utc, status = to_utc(local, np.full(len(local), text.NAIVE), zone, np.arange(len(local)))
    for moment, second, state in zip(moments, utc.tolist(), status.tolist(), strict=True):
        exists = moment.replace(tzinfo=info).astimezone(UTC).astimezone(info).replace(tzinfo=None) == moment
        assert state == (FINE if exists else SKIPPED)
        if exists:
            assert second == moment.replace(tzinfo=info).timestamp()


def berlin(*cells: str, group: list[int] | None = None) -> list[str]:
    """Local times of 27 October 2024 as UTC clock times."""
    moments = [datetime.fromisoformat(f"2024-10-27T{c}") for c in cells]
    local = np.array([int((m - datetime(1970, 1, 1)).total_seconds()) for m in moments])
    utc, _ = to_utc(local, np.full(len(local), text.NAIVE), "Europe/Berlin", np.array(group or [0] * len(local)))
    return [f"{datetime.fromtimestamp(s, UTC):%H:%M}" for s in utc.tolist()]


def test_the_repeated_hour_follows_the_order_of_the_file() -> None:
    assert berlin("01:30", "02:00", "02:30", "02:00", "02:30", "03:00") == ["23:30", "00:00", "00:30", "01:00", "01:30", "02:00"]
    # the same one after the other, as some exports sort
    assert berlin("01:30", "02:00", "02:00", "02:30", "02:30") == ["23:30", "00:00", "01:00", "00:30", "01:30"]
    # irregular times: going back means the second pass
    assert berlin("02:08", "02:58", "02:09", "02:59") == ["00:08", "00:58", "01:09", "01:59"]
    # newest first
    assert berlin("03:00", "02:30", "02:00", "02:30", "02:00", "01:30") == ["02:00", "01:30", "01:00", "00:30", "00:00", "23:30"]
    # a channel that has the hour once keeps the first pass
    assert berlin("01:30", "02:00", "02:30", "03:00") == ["23:30", "00:00", "00:30", "02:00"]
    # two channels, row by row in turn
    assert berlin("02:00", "02:00", "02:30", "02:30", "02:00", "02:00", group=[1, 2] * 3) == [
        "00:00",
        "00:00",
        "00:30",
        "00:30",
        "01:00",
        "01:00",
    ]
    # the file delivers the day twice
    twice = ["01:30", "02:00", "02:00", "03:00"] * 2
    assert berlin(*twice) == ["23:30", "00:00", "01:00", "02:00"] * 2


def test_without_a_zone_there_is_no_time() -> None:
    _, status = to_utc(np.array([0, 0]), np.array([0, text.NAIVE]), None, np.zeros(2, np.int64))
    assert status.tolist() == [FINE, ZONELESS]
