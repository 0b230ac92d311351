"""NEM12 and NEM13, small cases and the collected examples of two other readers."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from connectors.head_end.formats import Decoded, DecodeError, Options, decode
from schemas.conditions import EXT_ESTIMATE, EXT_FINAL_SUBSTITUTE, EXT_SUBSTITUTE, INVALID, REGULAR, REPORTED_MISSING, SUSPECT
from tests.formats.samples import NEM12, NEM13, reads_of, total_of

MIDNIGHT = int(datetime(2023, 12, 31, 14, tzinfo=UTC).timestamp())  # 1 January 2024 of market time


def nem(*lines: str, head: str = "200,N1,E1,1,E1,N1,S1,kWh,360,") -> bytes:
    return "\n".join(["100,NEM12,202401020000,A,B", head, *lines, "900", ""]).encode()


def six_hours(quality: str = "A", values: str = "1,2,3,4", day: str = "20240101") -> str:
    return f"300,{day},{values},{quality},,,20240102000000,"


KEY = ("N1", "E1", "kWh", 21_600)


def test_a_day_in_market_time_with_quality_by_range() -> None:
    decoded = decode(NEM12, Options(name="f"))
    start = int(datetime(2024, 4, 16, 14, tzinfo=UTC).timestamp())
    reads = reads_of(decoded)
    assert [c for _, _, c in reads["6001000001", "E1", "kWh", 1800]] == [EXT_FINAL_SUBSTITUTE] * 20 + [REGULAR] * 28
    assert reads["6001000001", "E1", "kWh", 1800][47] == (start + 47 * 1800, 1_250_000, REGULAR)
    assert decoded.blocks[0].direction.tolist() == [1, 2], "E is delivered, B received"
    assert decoded.problems == decoded.notes == []


def test_previous_and_current_reads_of_nem13_are_register_reads_and_the_quantity_stays_readable() -> None:
    decoded = decode(NEM13, Options())
    first = int(datetime(2003, 10, 4, 23, 30, 55, tzinfo=UTC).timestamp())
    second = int(datetime(2004, 1, 7, 0, 3, 33, tzinfo=UTC).timestamp())
    assert reads_of(decoded) == {("6001000002", "11", "kWh", 0): [(first, 6_342_800_000, REGULAR), (second, 7_654_900_000, EXT_ESTIMATE)]}
    (stated,) = decoded.quantities
    assert (stated.start, stated.end, stated.micros, stated.condition) == (first, second, 1_312_100_000, EXT_ESTIMATE)


def test_qualities() -> None:
    decoded = decode(nem(six_hours("S14"), six_hours("E", day="20240102"), six_hours("N", "0,,7,0", day="20240103")), Options())
    assert [c for _, _, c in reads_of(decoded)[KEY]] == (
        [EXT_SUBSTITUTE] * 4 + [EXT_ESTIMATE] * 4 + [REPORTED_MISSING, REPORTED_MISSING, INVALID, REPORTED_MISSING]
    )


def test_ranges_lie_over_any_quality_and_what_v_leaves_open_is_suspect() -> None:
    decoded = decode(nem(six_hours("V"), "400,1,2,A", "400,3,3,E", six_hours("A", day="20240102"), "400,2,3,S53,1,text"), Options(name="f"))
    assert [c for _, _, c in reads_of(decoded)[KEY]] == [
        REGULAR,
        REGULAR,
        EXT_ESTIMATE,
        SUSPECT,
        REGULAR,
        EXT_SUBSTITUTE,
        EXT_SUBSTITUTE,
        REGULAR,
    ]
    assert [str(n) for n in decoded.notes] == ["f:3: quality V, but 400 records leave intervals without one: kept as suspect"]
    assert decoded.problems == []


def test_days_join_to_one_span_and_the_later_record_of_a_day_wins() -> None:
    decoded = decode(nem(six_hours(), six_hours(day="20240102"), six_hours(values="1,2,3,9"), six_hours(day="20240104")), Options(name="f"))
    assert decoded.blocks[0].count.tolist() == [8, 4], "a day not there starts a new row"
    assert [v // 10**6 for _, v, _ in reads_of(decoded)[KEY]] == [1, 2, 3, 9, 1, 2, 3, 4, 1, 2, 3, 4]
    assert [str(p) for p in decoded.problems] == ["f:3: 'N1' 'E1': line 5 has other values for a read given here; the later are kept"]


def test_market_time_and_the_standard_time_of_another_zone() -> None:
    assert int(decode(nem(six_hours()), Options()).blocks[0].start[0]) == MIDNIGHT
    sydney = decode(nem(six_hours(), six_hours(day="20240702")), Options(zone="Australia/Sydney"))
    assert sydney.blocks[0].start.tolist() == [MIDNIGHT, MIDNIGHT + 183 * 86_400], "without daylight saving, whatever the season"
    assert int(decode(nem(six_hours()), Options(zone="Australia/Perth")).blocks[0].start[0]) == MIDNIGHT + 7200


@pytest.mark.parametrize("minutes", [1, 5, 10, 15, 30, 60, 1440])
def test_every_interval_length_that_divides_the_day(minutes: int) -> None:
    count = 1440 // minutes
    decoded = decode(nem(f"300,20240101,{'1,' * count}A", head=f"200,N1,E1,1,E1,N1,S1,kWh,{minutes},"), Options())
    assert decoded.problems == []
    assert decoded.blocks[0].count.tolist() == [count]
    assert decoded.blocks[0].seconds.tolist() == [minutes * 60]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (six_hours(values="1,2,3"), "stands where the quality of 4 values is expected"),
        (six_hours(values="1,2,3,4,5"), "'5' stands where the quality of 4 values is expected"),
        (six_hours(values="1,2,1e3,4"), "'1e3' is not a plain decimal number"),
        (six_hours(values='1,2,"1,234",4'), "'1,234' is not a plain decimal number"),
        (six_hours(day="20240230"), "'20240230' is not a date"),
        (six_hours(day="2024010"), "'2024010' is not a date"),
        (six_hours("Q"), "'Q' stands where the quality"),
        ("300,20240101,V,,", "5 fields; 4 values, date and quality are expected"),
        ("350,x", "'350' is no record of NEM12 or NEM13"),
        ("400,3,9,A", "400 record '3,9,A' is no range and quality of its day; ignored"),
        ("400,0,1,A", "is no range"),
        ("400,2,1,A", "is no range"),
        ("400,1,1,V", "is no range"),
    ],
)
def test_a_bad_record_is_refused_and_the_rest_kept(line: str, why: str) -> None:
    decoded = decode(nem(six_hours(day="20240105"), line), Options(name="f"))
    assert len(reads_of(decoded)[KEY]) == 4
    assert [problem.line for problem in decoded.problems] == [4]
    assert why in decoded.problems[0].what


def test_records_without_their_head_are_refused() -> None:
    good = [six_hours(), "900", "400,1,2,A", six_hours(day="20240102"), "100,NEM12,202401020000,A,B", "400,1,2,A"]
    decoded = decode(nem(*good), Options(name="f"))
    assert [(p.line, p.what) for p in decoded.problems] == [
        (6, "300 record that follows no 200 record"),
        (5, "400 record that follows no 300 record"),
        (8, "400 record that follows no 300 record"),
    ]
    assert len(reads_of(decoded)[KEY]) == 4


def test_a_bad_200_record_takes_its_days_along() -> None:
    for head, why in [
        ("200,N1,E1,1,E1,N1,S1,kWh,7,", "'7' minutes is no interval length"),
        ("200,,E1,1,E1,N1,S1,kWh,30,", "device is empty"),
        ("200,N1", "minutes"),
    ]:
        decoded = decode(nem(six_hours(), "200,N2,E1,1,E1,N1,S1,kWh,360,", six_hours(), head=head), Options(name="f"))
        assert list(reads_of(decoded)) == [("N2", "E1", "kWh", 21_600)]
        assert [p.line for p in decoded.problems] == [2]
        assert why in decoded.problems[0].what


def test_a_file_without_end_record_is_told() -> None:
    decoded = decode(nem(six_hours()).replace(b"900\n", b""), Options(name="f"))
    assert [str(n) for n in decoded.notes] == ["f:3: the file does not end with a 900 record: it may have been cut off"]


def test_a_file_cut_inside_a_day_loses_that_day_only() -> None:
    whole = nem(six_hours(), six_hours(day="20240102"))
    decoded = decode(whole[: whole.index(b"300,20240102") + 18], Options())
    assert len(reads_of(decoded)[KEY]) == 4
    assert len(decoded.problems) == 1


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        (9, "2003", "is not a time yyyymmddHHMMSS"),
        (9, "20050101000000", "is not after the previous"),
        (8, "x", "'x' is not a plain decimal"),
        (10, "V", "quality"),
    ],
)
def test_a_bad_250_record(field: int, value: str, why: str) -> None:
    lines = NEM13.decode().split("\n")
    cells = lines[1].split(",")
    cells[field] = value
    decoded = decode("\n".join([lines[0], lines[1], ",".join(cells), *lines[2:]]).encode(), Options(name="f"))
    assert len(reads_of(decoded)["6001000002", "11", "kWh", 0]) == 2
    assert [p.line for p in decoded.problems] == [3]
    assert why in decoded.problems[0].what


# What the collected files must give. Where the other readers differ we decide as docs/formats.md says:
# - a record whose values do not fit the interval length of its 200 record is refused, not cut to size
# - of two records for the same day the later is kept, where one reader counts both and one stops at the first 900 record
REFUSED = {
    "Example_NEM12_15min_200_30min_300.csv",
    "Example_NEM12_30min_200_15min_300.csv",
    "Example_NEM12_30min_200_15min_400.csv",
    "Example_empty_file.csv",
}
OURS = {
    "Example_NEM12_powercor.csv": {"VABD000163|E1": (48, "159.984"), "VABD000163|Q1": (48, "213.312")},
    "Example_NEM12_powercor.csv.zip": {"VABD000163|E1": (48, "53.328"), "VABD000163|Q1": (48, "106.656")},
    "Example_NEM12_powercor_missing_fields.csv": {"VABD000163|E1": (48, "159.984"), "VABD000163|Q1": (48, "213.312")},
}


def summed(decoded: Decoded) -> dict[str, tuple[int, Decimal]]:
    """Per NMI and suffix the number of values and their sum; for NEM13 of the stated quantities."""
    if decoded.quantities:
        stated: dict[str, tuple[int, Decimal]] = {}
        for q in decoded.quantities:
            count, total = stated.get(f"{q.device}|{q.channel}", (0, Decimal(0)))
            stated[f"{q.device}|{q.channel}"] = (count + 1, total + Decimal(q.micros) / 10**6)
        return stated
    return {f"{k[0]}|{k[1]}": (len(reads), Decimal(total_of(reads)) / 10**6) for k, reads in reads_of(decoded).items()}


@pytest.mark.shared_data
@pytest.mark.parametrize("folder", ["nem12", "nem12_mdff_reader"])
def test_collected_files_give_the_totals_of_other_readers(shared_data: Path, folder: str) -> None:
    peers: dict[str, Any] = json.loads((shared_data / folder / "expected_nemreader.json").read_text())["files"]
    checked = 0
    for name, peer in peers.items():
        path = shared_data / folder / name
        if path.name in REFUSED:
            with pytest.raises(DecodeError):
                decode(path.read_bytes(), Options(name=name))
            continue
        found = summed(decode(path.read_bytes(), Options(name=name)))
        expected = (
            {f"{nmi}|{suffix}": (c["n"], c["sum"]) for nmi, channels in peer.get("nmis", {}).items() for suffix, c in channels.items()}
            if path.name not in OURS
            else OURS[path.name]
        )
        assert found == {key: (count, Decimal(total)) for key, (count, total) in expected.items()}, name
        checked += 1
    assert checked == (19 if folder == "nem12" else 2)


@pytest.mark.shared_data
def test_collected_files_have_the_qualities_and_times_of_another_reader(shared_data: Path) -> None:
    peers = json.loads((shared_data / "nem12" / "expected_nemreader.json").read_text())["files"]
    name = "unzipped/Example_NEM12_multiple_quality.csv"
    reads = reads_of(decode((shared_data / "nem12" / name).read_bytes(), Options()))["CCCC123456", "E1", "kWh", 1800]
    peer = peers[name]["nmis"]["CCCC123456"]["E1"]
    ours = {"F14": EXT_FINAL_SUBSTITUTE, "A": REGULAR, "S14": EXT_SUBSTITUTE}
    assert [reads[i][2] for i in (0, 20, 47)] == list(ours.values())
    assert peer["quality"] == {word: sum(c == code for *_, c in reads) for word, code in ours.items()}
    market = datetime.fromisoformat(peer["first_start"] + "+10:00")
    assert reads[0][0] == market.timestamp()
