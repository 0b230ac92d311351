"""Delimited files under our headers and under mapping profiles."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from connectors.head_end.formats import DecodeError, Options, decode
from connectors.head_end.formats.model import BLOCK_READS
from schemas.conditions import EXT_ESTIMATE, OUTAGE, REGULAR, REPORTED_MISSING, USER_EDIT
from schemas.quantity import text_of
from schemas.topology.profiles import Profile
from tests.formats.samples import CSV, REGISTERS, reads_of

HEAD = "device,channel,unit,seconds,start,value,condition\n"
DAY = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp())


def read(body: str, **options: Any) -> tuple[dict[Any, list[tuple[int, int, int]]], list[str]]:
    decoded = decode((HEAD + body).encode(), Options(name="f.csv", **options))
    return reads_of(decoded), [str(problem) for problem in decoded.problems]


def row(minute: int, value: str, condition: str = "", device: str = "M") -> str:
    return f"{device},c,kWh,900,2024-01-01T{minute // 60:02d}:{minute % 60:02d}:00Z,{value},{condition}\n"


def test_intervals() -> None:
    decoded = decode(CSV, Options(name="f"))
    start = int(datetime(2024, 10, 27, tzinfo=UTC).timestamp())
    assert decoded.format == "csv"
    assert reads_of(decoded) == {
        ("M1", "1.8.0", "kWh", 900): [
            (start, 250_000, REGULAR),
            (start + 900, 500_000, EXT_ESTIMATE),
            (start + 1800, 0, REPORTED_MISSING),
            (start + 3600, 1_123_456, REGULAR),
        ],
        ("M,2", "2.8.0", "kWh", 3600): [(start + 3600, -3_000_000, OUTAGE)],
    }
    block = decoded.blocks[0]
    assert block.count.tolist() == [3, 1, 1], "a gap starts a new row"
    assert block.direction.tolist() == [1, 1, 2], "OBIS codes tell the direction"


def test_registers() -> None:
    decoded = decode(REGISTERS, Options())
    first, second = (int(datetime(2024, month, 1, tzinfo=UTC).timestamp()) for month in (1, 2))
    assert reads_of(decoded) == {
        ("W1", "vol", "m3", 0): [(first, 100_500_000, REGULAR), (second, 110_250_000, REGULAR)],
        ("W2", "vol", "m3", 0): [(second, 0, REPORTED_MISSING)],
    }
    assert decoded.blocks[0].reads.tolist() == [2, 1]


def test_rows_need_no_order_and_columns_neither() -> None:
    body = "value,start,seconds,unit,channel,device,note\n2,2024-01-01T00:15:00Z,900,kWh,c,M,x\n1,2024-01-01T00:00:00Z,900,kWh,c,M,\n"
    assert reads_of(decode(body.encode(), Options())) == {
        ("M", "c", "kWh", 900): [(DAY, 1_000_000, REGULAR), (DAY + 900, 2_000_000, REGULAR)]
    }


def test_a_byte_order_mark_blank_lines_and_windows_line_ends() -> None:
    data = b"\xef\xbb\xbf" + (HEAD + "\n" + row(0, "1") + "\n\n" + row(15, "2")).replace("\n", "\r\n").encode()
    assert [v for _, v, _ in reads_of(decode(data, Options()))["M", "c", "kWh", 900]] == [1_000_000, 2_000_000]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (row(0, "1e3"), "'1e3' is not a plain decimal number (column value)"),
        (row(0, "1,234"), "condition '234' is none of"),
        ("M,c,kWh,900,2024-01-01T00:00:00Z,1,,234\n", "8 columns where the header has 7 (a number with a comma?)"),
        (row(0, '"1,234"'), "'1,234' is not a plain decimal number"),
        (row(0, "１２"), "is not a plain decimal number"),
        (row(0, "9223372036854.775808"), "is larger than the hub can hold"),
        (row(0, "1", "fine"), "condition 'fine' is none of"),
        ("M,c,kWh,900,2024-01-01T00:07:00Z,1,\n", "begins on no quarter of an hour"),
        ("M,c,kWh,7,2024-01-01T00:00:00Z,1,\n", "7 seconds does not divide the day"),
        ("M,c,kWh,0,2024-01-01T00:00:00Z,1,\n", "'0' is not an interval length"),
        ("M,c,kWh,900,2024-01-01T00:00:00,1,\n", "has no offset and no zone was given"),
        ("M,c,kWh,900,yesterday,1,\n", "'yesterday' is not a time as"),
        (",c,kWh,900,2024-01-01T00:00:00Z,1,\n", "device is empty"),
        ("M,,kWh,900,2024-01-01T00:00:00Z,1,\n", "channel is empty"),
        (f"{'x' * 201},c,kWh,900,2024-01-01T00:00:00Z,1,\n", "device is empty, longer than 200"),
        ("M,c\n", "2 columns where the header has 7"),
    ],
)
def test_a_bad_row_is_refused_with_its_line_and_the_rest_kept(bad: str, why: str) -> None:
    found, problems = read(row(30, "5") + bad + row(45, "6"))
    assert found == {("M", "c", "kWh", 900): [(DAY + 1800, 5_000_000, REGULAR), (DAY + 2700, 6_000_000, REGULAR)]}
    assert len(problems) == 1
    assert problems[0].startswith("f.csv:3: ")
    assert why in problems[0]


def test_a_file_of_bad_rows_is_refused_whole() -> None:
    with pytest.raises(DecodeError, match=r"^f.csv:2: no row can be read: 'x' is not a plain decimal"):
        read(row(0, "x") + row(15, "y"))


def test_a_header_alone_has_no_reads() -> None:
    assert read("") == ({}, [])


def test_names_are_data_whatever_they_look_like() -> None:
    names = ['=HYPERLINK("x")', "../../etc/passwd", "a\u202eb", "a\x00b", "'; DROP TABLE reads; --", "{{var}}"]
    quoted = [name.replace('"', '""') for name in names]
    found, problems = read("".join(row(0, "1", device=f'"{name}"') for name in quoted))
    assert [key[0] for key in found] == names
    assert problems == []


def test_names_that_are_not_utf8_are_refused() -> None:
    data = (HEAD + row(0, "1")).encode() + row(15, "2", device="X").encode().replace(b"X", b"\xff\xfe")
    decoded = decode(data, Options(name="f"))
    assert list(reads_of(decoded)) == [("M", "c", "kWh", 900)]
    assert [problem.line for problem in decoded.problems] == [3]


def test_missing_values_are_part_of_a_span_and_never_replace_a_value() -> None:
    found, problems = read(row(0, "1") + row(15, "") + row(30, "7", "missing") + row(45, "", "outage") + row(0, ""))
    assert found["M", "c", "kWh", 900] == [
        (DAY, 1_000_000, REGULAR),
        (DAY + 900, 0, REPORTED_MISSING),
        (DAY + 1800, 0, REPORTED_MISSING),
        (DAY + 2700, 0, OUTAGE),
    ]
    assert problems == []


def test_of_one_interval_twice_the_later_is_kept_and_a_difference_told() -> None:
    found, problems = read(row(0, "1") + row(15, "2") + row(0, "1") + row(15, "3", "edited"))
    assert found["M", "c", "kWh", 900] == [(DAY, 1_000_000, REGULAR), (DAY + 900, 3_000_000, USER_EDIT)]
    assert problems == ["f.csv:3: 'M' 'c': line 5 has other values for a read given here; the later are kept"]


def test_the_repeated_autumn_hour_by_order_and_the_skipped_spring_hour_refused() -> None:
    def local(day: str, clock: str, value: int) -> str:
        return f"M,c,kWh,3600,{day}T{clock},{value},\n"

    autumn = "".join(local("2024-10-27", f"{hour:02d}:00", n) for n, hour in enumerate([0, 1, 2, 2, 3, 4]))
    decoded = decode((HEAD + autumn).encode(), Options(zone="Europe/Berlin"))
    assert decoded.blocks[0].count.tolist() == [6], "one unbroken span"
    assert decoded.blocks[0].values.tolist() == [n * 1_000_000 for n in range(6)]
    spring = "".join(local("2024-03-31", f"{hour:02d}:00", n) for n, hour in enumerate([0, 1, 2, 3, 4]))
    found, problems = read(spring, zone="Europe/Berlin")
    assert [v // 1_000_000 for _, v, _ in found["M", "c", "kWh", 3600]] == [0, 1, 3, 4]
    assert len(problems) == 1
    assert "does not exist in Europe/Berlin" in problems[0]


def test_an_unknown_zone_or_format_is_one_clear_line() -> None:
    with pytest.raises(DecodeError, match="'Mars/Olympus' is not an IANA time zone"):
        read(row(0, "1"), zone="Mars/Olympus")
    with pytest.raises(DecodeError, match="format 'docx' is none of json, cim-xml, imd-xml, nem12, csv"):
        read(row(0, "1"), format="docx")


@pytest.mark.parametrize("data", [b"", b"\n \n", b"hello", b"a,b\n1,2\n", b"device,channel,unit,seconds,start\nM,c,kWh,900,2024-01-01\n"])
def test_what_is_no_meter_file(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode(data, Options(name="f"))


def test_blocks_are_bounded_and_their_ids_follow_payload_and_number() -> None:
    def body(meters: int, slots: int) -> bytes:
        rows = [
            f"M{m},c,kWh,60,{datetime.fromtimestamp(DAY + s * 60, UTC):%Y-%m-%dT%H:%M}Z,1," for m in range(meters) for s in range(slots)
        ]
        return (HEAD + "\n".join(rows) + "\n").encode()

    long = decode(body(1, BLOCK_READS + 10), Options(payload="p"))
    assert [block.count.tolist() for block in long.blocks] == [[BLOCK_READS], [10]]
    assert int(long.blocks[1].start[0]) == DAY + BLOCK_READS * 60
    wide = decode(body(60, 1000), Options(payload="p"))
    assert [int(block.count.sum()) for block in wide.blocks] == [50_000, 10_000]
    assert [b.id for b in wide.blocks] == [b.id for b in long.blocks]
    assert len({b.id for b in wide.blocks} | {b.id for b in decode(body(60, 1000), Options(payload="q")).blocks}) == 4


BASE: dict[str, Any] = {"device": "D", "channel": "c", "unit": "kWh", "seconds": 1800, "value": "v", "time": ["t"]}


def test_a_profile_maps_columns_units_conditions_and_end_stamps() -> None:
    profile = Profile.model_validate(
        BASE
        | {
            "device": None,
            "device_column": "Meter",
            "delimiter": ";",
            "decimal": ",",
            "stamps": "end",
            "format": "%d.%m.%Y %H:%M",
            "zone": "Europe/Berlin",
            "missing": ["n/a"],
            "condition_column": "q",
            "conditions": {"W": "actual", "E": "estimated"},
            "multiplier": "40",
        }
    )
    data = b"Meter;t;v;q\nA;01.01.2024 00:30;1,5;W\nA;01.01.2024 01:00;n/a;W\nA;01.01.2024 01:30;2;E\n"
    decoded = decode(data, Options(profiles={"german": profile}))
    assert reads_of(decoded) == {
        ("A", "c", "kWh", 1800): [(DAY - 3600, 1_500_000, REGULAR), (DAY - 1800, 0, REPORTED_MISSING), (DAY, 2_000_000, EXT_ESTIMATE)]
    }
    assert decoded.blocks[0].multiplier.tolist() == [40_000_000]


def test_a_wide_profile_gives_a_channel_per_column() -> None:
    columns = [
        {"column": "in", "channel": "A+", "direction": "delivered"},
        {"column": "out", "channel": "A-", "direction": "received", "unit": "Wh"},
    ]
    profile = Profile.model_validate({k: v for k, v in BASE.items() if k not in ("value", "channel")} | {"values": columns})
    data = b"t,in,out\n2024-01-01T00:00Z,1,2\n2024-01-01T00:30Z,x,3\n"
    decoded = decode(data, Options(profiles={"wide": profile}))
    assert {key: [v for _, v, _ in reads] for key, reads in reads_of(decoded).items()} == {
        ("D", "A+", "kWh", 1800): [1_000_000],
        ("D", "A-", "Wh", 1800): [2_000_000, 3_000_000],
    }
    assert [str(p) for p in decoded.problems] == ["payload:3: 'x' is not a plain decimal number (column in)"]


def test_the_profile_that_fits_is_found_and_two_that_fit_are_told() -> None:
    one = Profile.model_validate(BASE)
    options = Options(name="f", profiles={"one": one, "two": Profile.model_validate(BASE | {"header": ["t", "v", "x"]})})
    assert decode(b"t,v,x\n2024-01-01T00:00Z,1,\n", options).blocks
    both = Options(name="f", profiles={"one": one, "two": one})
    with pytest.raises(DecodeError, match="profiles one and two both fit this header"):
        decode(b"t,v\n2024-01-01T00:00Z,1\n", both)
    named = Options(name="f", format="two", profiles={"one": one, "two": one})
    assert decode(b"t,v\n2024-01-01T00:00Z,1\n", named).blocks
    with pytest.raises(DecodeError, match="profile two does not fit: it needs the columns v, t"):
        decode(b"t,w\n2024-01-01T00:00Z,1\n", named)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"device": None}, "device or device_column is needed"),
        ({"device_column": "d"}, "either device or device_column"),
        ({"values": [{"column": "v", "channel": "c"}]}, "either value"),
        ({"seconds": None}, "seconds or seconds_column is needed"),
        ({"seconds": 7}, "does not divide the day"),
        ({"format": "%Q"}, "%Q is not one of"),
        ({"format": "yyyy"}, "must be iso, epoch or directives"),
        ({"zone": "Mars"}, "must be an IANA time zone"),
        ({"conditions": {"X": "nope"}}, "condition 'nope'"),
        ({"decimal": ",", "delimiter": ","}, "cannot be the same"),
        ({"kind": "register", "stamps": "end"}, "stamps is about intervals"),
        ({"colour": "red"}, "Extra inputs"),
    ],
)
def test_profiles_that_contradict_themselves_are_refused(change: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        Profile.model_validate(BASE | change)


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\n\r\t ", exclude_categories=("Cs",)), min_size=1, max_size=8).filter(
    lambda t: "\ufffd" not in t and not t.startswith("\ufeff")
)
VALUES = st.integers(-4 * 10**18, 4 * 10**18) | st.none()
CONDITIONS = st.sampled_from([EXT_ESTIMATE, REGULAR, USER_EDIT])


@settings(deadline=None)
@given(
    st.dictionaries(
        st.tuples(NAMES, NAMES, st.sampled_from(["kWh", "m3"]), st.sampled_from([300, 900, 1800, 3600])),
        st.dictionaries(st.integers(0, 50), st.tuples(VALUES, CONDITIONS), min_size=1, max_size=12),
        min_size=1,
        max_size=4,
    ),
    st.randoms(use_true_random=False),
)
def test_what_is_written_is_read_back(channels: dict[Any, dict[int, tuple[int | None, int]]], random: Any) -> None:
    lines: list[str] = []
    expected: dict[Any, list[tuple[int, int, int]]] = {}
    for (device, channel, unit, seconds), slots in channels.items():
        for slot, (value, condition) in slots.items():
            at = DAY + slot * seconds
            cells = [device, channel, unit, str(seconds), f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%S}Z"]
            cells += ["" if value is None else text_of(value), str(condition)]
            lines.append(",".join('"' + cell.replace('"', '""') + '"' for cell in cells))
            read_as = (at, 0, REPORTED_MISSING) if value is None else (at, value, condition)
            expected.setdefault((device, channel, unit, seconds), []).append(read_as)
    random.shuffle(lines)
    decoded = decode((HEAD + "\n".join(lines) + "\n").encode(), Options())
    assert decoded.problems == []
    assert reads_of(decoded) == {key: sorted(reads) for key, reads in expected.items()}
