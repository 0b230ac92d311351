"""What is written can be read back, and says what it cannot hold."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from connectors.enterprise.sap.catalog import catalog
from connectors.enterprise.sap.schemas import message_validator
from connectors.head_end.formats import decode
from connectors.head_end.formats.model import Options
from connectors.subscribers.objects import Unit, final_items, item_of, sample_block
from connectors.subscribers.parcel import Parcel, parcel_of
from connectors.subscribers.past import Read, Series, Slot
from connectors.subscribers.writers import FormatError, cim, mdus, nem12, nem13, written
from connectors.subscribers.writers.tables import neutral
from schemas import conditions, quantity
from schemas.block import FinalBlock, ReadBlock, starts_of, strings
from schemas.rules import METHOD
from tests.subscribers.kit import determinant

MIDNIGHT = 1_767_189_600  # 2026-01-01 in Brisbane, where days are market days


def day(values: list[int], codes: list[int], **changes: Any) -> FinalBlock:
    """One channel day."""
    base = sample_block()
    seconds = 86_400 // len(values)
    names = {name: strings([value]) for name, value in changes.items() if isinstance(value, str)}
    numbers = {name: np.array([value], getattr(base, name).dtype) for name, value in changes.items() if not isinstance(value, str)}
    return dataclasses.replace(
        base, values=np.array(values, np.int64), conditions=np.array(codes, np.int32), methods=np.zeros(len(values), np.int8),
        count=np.array([len(values)], np.int32), seconds=np.array([seconds], np.int32),
        **({"start": np.array([MIDNIGHT]), "channel": strings(["E1"]), "service_point": strings([""]), "device": strings(["NMI0000001"])}
           | names | numbers),
    ).check()  # fmt: skip


def parcel(block: FinalBlock, object: str = "final-intervals") -> Parcel:
    unit = Unit(object, "reads.final", 1, 17, 1_767_312_000_000, "k", "FinalBlock.v1", final_items(block), block)
    return parcel_of("s", [unit], 1)


def read_back(data: bytes, name: str, **options: Any) -> dict[tuple[str, str, int], tuple[int, int]]:
    """(device, channel, UTC second) → (value, condition) of all intervals or reads of a file."""
    decoded = decode(data, Options(name=name, **options))
    assert not decoded.problems
    found = {}
    for block in decoded.blocks:
        assert isinstance(block, ReadBlock)
        begins, read_begins = starts_of(block.count), starts_of(block.reads)
        for row in range(len(block)):
            for slot in range(int(block.count[row])):
                step = int(block.start[row]) + slot * int(block.seconds[row])
                at = step if block.seconds[row] else int(block.times[read_begins[row] + slot])
                i = int(begins[row]) + slot
                found[block.device[row].as_py(), block.channel[row].as_py(), at] = (int(block.values[i]), int(block.conditions[i]))
    return found


amounts = st.integers(-(10**12), 10**12) | st.integers(0, 5000).map(lambda n: n * 1000)
kept = st.sampled_from([conditions.REGULAR, conditions.REPORTED_MISSING, conditions.EXT_SUBSTITUTE, conditions.EXT_FINAL_SUBSTITUTE])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(amounts, kept), min_size=48, max_size=48))
def test_nem12_is_read_back_as_it_was(slots: list[tuple[int, int]]) -> None:
    values = [0 if code == conditions.REPORTED_MISSING else value for value, code in slots]
    codes = [code for _, code in slots]
    content = nem12.document(day(values, codes), 1_767_312_000)
    wanted = {("NMI0000001", "E1", MIDNIGHT + 1800 * n): slot for n, slot in enumerate(zip(values, codes, strict=True))}
    assert content.items == 1
    assert read_back(content.data, "x.nem12") == wanted


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(amounts, kept), min_size=24, max_size=24))
def test_csv_is_read_back_as_it_was(slots: list[tuple[int, int]]) -> None:
    values, codes = [0 if code == conditions.REPORTED_MISSING else value for value, code in slots], [code for _, code in slots]
    content = written("csv", parcel(day(values, codes)))
    wanted = {("NMI0000001", "E1", MIDNIGHT + 3600 * n): slot for n, slot in enumerate(zip(values, codes, strict=True))}
    assert read_back(content.data, "x.csv") == wanted


def test_register_reads_as_csv_are_read_back() -> None:
    block = sample_block(registers=True)
    content = written("csv", parcel(block, "final-registers"))
    assert read_back(content.data, "x.csv") == {("m-1001", "1-0:1.8.0*255", 1_767_225_600): (4_711_250_000, conditions.REGULAR)}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(-(2**62), 2**62), kept), min_size=24, max_size=24))
def test_parquet_holds_every_value_exactly(slots: list[tuple[int, int]]) -> None:
    block = day([value for value, _ in slots], [code for _, code in slots])
    rows = pq.read_table(io.BytesIO(written("parquet", parcel(block)).data)).to_pylist()
    for row, (value, code) in zip(rows, slots, strict=True):
        assert row["condition"] == code
        assert row["value"] is None if code == conditions.REPORTED_MISSING else int(row["value"].scaleb(6)) == value
    assert [row["start"] for row in rows] == [datetime.fromtimestamp(MIDNIGHT + 3600 * n, UTC) for n in range(24)]


def test_the_same_parcel_is_the_same_bytes_in_every_format() -> None:
    for format in ("csv", "json", "ndjson", "parquet", "nem12", "mdus", "cim"):
        one, other = (written(format, parcel(day([1000] * 48, [conditions.REGULAR] * 48))).data for _ in range(2))
        assert one == other, format


def test_slots_that_are_not_due_are_in_no_flat_file_and_keep_a_day_out_of_nem12() -> None:
    block = day([1000] * 48, [conditions.REGULAR] * 40 + [conditions.NOT_RECEIVED] * 8)
    assert len(written("csv", parcel(block)).data.splitlines()) == 41
    with pytest.raises(FormatError, match="market day 2026-01-01 is not complete"):
        written("nem12", parcel(block))


def test_local_days_with_daylight_saving_fill_market_days_together_and_the_rest_is_named() -> None:
    """Sydney's summer days begin at 23:00 of market time: two of them hold one market day."""
    first = day([1000] * 48, [conditions.REGULAR] * 48, start=MIDNIGHT - 3600, version=1)
    second = day([2000] * 48, [conditions.REGULAR] * 48, start=MIDNIGHT - 3600 + 86_400, version=2)
    content = nem12.document(FinalBlock.join([first, second]), 1_767_312_000)
    found = read_back(content.data, "x.nem12")
    assert len(found) == 48
    assert [found["NMI0000001", "E1", MIDNIGHT + 1800 * n][0] for n in (0, 45, 46, 47)] == [1000, 1000, 2000, 2000]
    assert [reason.split("market day ")[1] for reason in content.left_out] == [
        "2025-12-31 is not complete here",
        "2026-01-02 is not complete here",
    ]


def test_what_nem12_cannot_hold_is_left_out_by_name() -> None:
    good = day([1000] * 48, [conditions.REGULAR] * 48)
    comma = day([1000] * 48, [conditions.REGULAR] * 48, device="a,b")
    volume = day([1000] * 48, [conditions.REGULAR] * 48, channel="flow", unit="m3")
    content = nem12.document(FinalBlock.join([good, comma, volume]), 0)
    assert content.items == 1
    assert ["cannot stand in" in content.left_out[0], "no data stream for m3" in content.left_out[1]] == [True, True]


def test_quality_of_estimates_in_nem12_names_the_method() -> None:
    assert nem12.quality(conditions.EST_LIKE_DAY, "like-day-average") == "S15"
    assert nem12.quality(conditions.EST_INTERPOLATED, "interval-interpolation") == "S17"
    assert nem12.quality(conditions.USER_EDIT, "manual") == "F16"
    assert nem12.quality(conditions.MISSING, "") == "N"
    assert METHOD.keys() >= nem12._METHODS.keys()


def test_mdus_items_are_half_open_in_utc_with_one_status_each() -> None:
    codes = [conditions.REGULAR] * 45 + [conditions.MISSING, conditions.EST_LIKE_DAY, conditions.USER_EDIT]
    content = mdus.document(day([1_250_000] * 48, codes), "delivery", 1_767_312_000)
    root = etree.fromstring(content.data)
    assert root.tag == f"{{{catalog().namespace}}}UtilitiesTimeSeriesERPItemBulkCreateRequest"
    items = root.findall(".//Item")
    assert len(items) == 47, "a missing interval has no item"
    assert items[0].findtext("UTCValidityStartDateTime") == "2025-12-31T14:00:00Z"
    assert items[0].findtext("UTCValidityEndDateTime") == "2025-12-31T14:30:00Z"
    assert items[0].findtext("Quantity") == "1.25"
    assert [item.findtext("ItemStatus/UtilitiesTimeSeriesItemTypeCode") for item in items[-3:]] == ["01", "02", "03"]
    assert root.findtext(".//UtilitiesTimeSeries/ID") == "NMI0000001/E1"
    uuids = [element.text for element in root.iter("UUID")]
    assert len(set(uuids)) == len(uuids) == 2
    assert message_validator("UtilitiesTimeSeriesERPItemCreateRequest").validate(root)


def test_mdus_leaves_out_what_its_schema_cannot_hold() -> None:
    good, bad = day([1] * 48, [conditions.REGULAR] * 48), day([1] * 48, [conditions.REGULAR] * 48, device="m" * 70)
    content = mdus.document(FinalBlock.join([bad, good]), "delivery", 0)
    assert content.items == 1
    assert "maximum" in content.left_out[0]


def test_cim_intervals_carry_reading_type_end_and_quality() -> None:
    codes = [conditions.REGULAR] * 94 + [conditions.MISSING, conditions.EST_LIKE_DAY]
    block = day([250_000] * 96, codes, channel="1-0:1.29.0*255")
    content = cim.document(block, "delivery", 1_767_312_000)
    root = etree.fromstring(content.data)
    ns = {"e": cim.MESSAGE, "m": cim.READINGS}
    assert root.findtext("e:Header/e:Noun", namespaces=ns) == "MeterReadings"
    assert root.find(".//m:ReadingType", ns).get("ref") == "0.0.2.4.1.1.12.0.0.0.0.0.0.0.0.3.72.0"
    readings = root.findall(".//m:IntervalReadings", ns)
    assert readings[0].findtext("m:timeStamp", namespaces=ns) == "2025-12-31T14:15:00Z"
    assert readings[0].findtext("m:value", namespaces=ns) == "0.25"
    assert readings[94].find("m:value", ns) is None
    assert [r.find(".//m:ReadingQualityType", ns).get("ref") for r in readings[93:]] == ["3.0.0", "3.5.259", "3.8.0"]
    assert [etree.QName(child).localname for child in root.find(".//m:MeterReading", ns)] == ["IntervalBlocks", "Meter"]


def test_cim_register_reads() -> None:
    root = etree.fromstring(cim.document(sample_block(registers=True), "d", 0).data)
    ns = {"m": cim.READINGS}
    assert root.findtext(".//m:Readings/m:value", namespaces=ns) == "4711.25"
    assert root.find(".//m:Readings/m:ReadingType", ns).get("ref") == "0.0.0.1.1.1.12.0.0.0.0.0.0.0.0.3.72.0"
    assert root.findtext(".//m:UsagePoint/m:Names/m:name", namespaces=ns) == "sp-1001"


@pytest.mark.parametrize("format", ["cim", "mdus"])
def test_what_xml_cannot_hold_is_left_out_by_name(format: str) -> None:
    good, bad = day([1] * 48, [conditions.REGULAR] * 48), day([1] * 48, [conditions.REGULAR] * 48, device="a\0b")
    content = written(format, parcel(FinalBlock.join([bad, good])))
    assert content.items == 1
    assert "a\\x00b" in content.left_out[0]
    etree.fromstring(content.data)


def plain(*records: dict[str, Any]) -> Parcel:
    items = [item_of(record, "place") for record in records]
    units = [Unit("determinants", "billing.determinants", 0, n, 0, "k", "Determinant.v1", [item]) for n, item in enumerate(items)]
    return parcel_of("s", units, 1)


def test_determinants_as_csv_and_parquet() -> None:
    content = written("csv", plain(determinant(1), determinant(2)))
    rows = list(csv.DictReader(io.StringIO(content.data.decode())))
    assert rows[0]["quantity"] == "12.5"
    assert rows[0]["period_start"] == "2026-01-01T00:00:00Z"
    typed = pq.read_table(io.BytesIO(written("parquet", plain(determinant(1))).data)).to_pylist()
    assert typed[0]["quantity"] * 2 == 25
    assert typed[0]["period_end"] == datetime(2026, 2, 1, tzinfo=UTC)


FORMULAS = ['=HYPERLINK("http://x")', "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", " =1", "＝1", "\u200b=1"]


class Known:
    """A past of one series' intervals, or of one read."""

    def __init__(self, slots: dict[int, Slot] | None = None, read: Read | None = None) -> None:
        self.slots, self.read = slots or {}, read
        self.asked: list[tuple[Any, ...]] = []

    def intervals(self, series: Iterable[Series], start: int, end: int) -> Mapping[Series, Mapping[int, Slot]]:
        self.asked += [(one, start, end) for one in series]
        return {one: self.slots for one, _, _ in self.asked}

    def before(self, device: str, channel: str, at: int) -> Read | None:
        return self.read if self.read is not None and self.read.at < at else None


def test_market_days_at_the_edges_of_a_batch_are_completed_from_the_store() -> None:
    """Sydney in summer, a batch of one local day: the market day it ends is whole with the day before, the one it begins comes later."""
    one = day([2000] * 48, [conditions.REGULAR] * 48, start=MIDNIGHT - 3600 + 86_400)
    earlier = {MIDNIGHT - 3600 + 1800 * n: (1000 + n, conditions.EST_LIKE_DAY, "like-day-average") for n in range(48)}
    past = Known(earlier)
    content = nem12.document(one, 1_767_312_000, past)
    found = read_back(content.data, "x.nem12")
    assert len(found) == 48
    assert [found["NMI0000001", "E1", MIDNIGHT + 1800 * n][0] for n in (0, 45, 46, 47)] == [1002, 1047, 2000, 2000]
    assert b"400,1,46,S15," in content.data
    assert content.left_out == ["NMI0000001 E1: market day 2026-01-02 is not complete here"]
    assert past.asked == [(("NMI0000001", "E1", 1800), MIDNIGHT, MIDNIGHT + 2 * 86_400)]
    nothing = Known()
    assert nem12.document(day([1] * 48, [conditions.REGULAR] * 48), 0, nothing).items == 1
    assert not nothing.asked, "whole days ask nobody"


@pytest.mark.parametrize("clocks", ["forward", "back"])
def test_days_on_which_clocks_change_lie_in_market_days_too(clocks: str) -> None:
    """Sydney: 2025-10-05 has 23 hours, 2026-04-05 has 25; with the day before and after all market days between are whole."""
    first, hours = (1_759_500_000, (24, 23, 24)) if clocks == "forward" else (1_775_221_200, (24, 25, 24))
    blocks, start = [], first
    for number, count in enumerate(hours):
        made = dataclasses.replace(
            day([1000] * 24, [conditions.REGULAR] * 24), values=np.full(count, 1000 * (number + 1), np.int64), start=np.array([start]),
            conditions=np.full(count, conditions.REGULAR, np.int32), methods=np.zeros(count, np.int8), count=np.array([count], np.int32),
            version=np.array([number + 1]),
        ).check()  # fmt: skip
        blocks.append(made)
        start += count * 3600
    found = read_back(nem12.document(FinalBlock.join(blocks), 0).data, "x.nem12")
    held = [value for value, _ in found.values()]
    assert [held.count(1000 * number) for number in (1, 2, 3)] == ([24, 23, 1] if clocks == "forward" else [23, 25, 24])


def test_nem13_pairs_reads_with_those_before_them_and_is_read_back() -> None:
    base = sample_block(registers=True)
    at = int(base.times[0])
    block = dataclasses.replace(
        base, values=np.array([999_990_000_000, 15_500_000]), conditions=np.array([conditions.REGULAR, conditions.EXT_ESTIMATE], np.int32),
        methods=np.zeros(2, np.int8), count=np.array([2], np.int32), reads=np.array([2], np.int32), times=np.array([at, at + 86_400]),
        dials=np.array([6], base.dials.dtype), multiplier=np.array([2_000_000]), service_point=strings(["NMI0000001"]),
    ).check()  # fmt: skip
    content = nem13.document(block, 1_767_312_000, Known(read=Read(at - 86_400, 999_980_000_000, conditions.REGULAR)))
    assert content.items == 1
    assert not content.left_out
    fields = [line.split(",") for line in content.data.decode().splitlines() if line.startswith("250")]
    assert [len(one) for one in fields] == [23, 23]
    assert [one[18] for one in fields] == ["20", "51"], "twice what the register moved; it turned over in between"
    assert [one[15] for one in fields] == ["A", "E52"]
    decoded = read_back(content.data, "x.nem13")
    assert {second: value for (_, _, second), (value, _) in decoded.items()} == {
        at - 86_400: 999_980_000_000, at: 999_990_000_000, at + 86_400: 15_500_000,
    }  # fmt: skip
    first_ever = nem13.document(block, 0, Known())
    assert len(first_ever.left_out) == 1
    assert "has none before it" in first_ever.left_out[0]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_spreadsheet_sees_no_formula_in_a_csv_and_other_formats_keep_the_text(text: str) -> None:
    record = determinant(1, account=text, reason="a=b", quantity=determinant(1)["quantity"] * -1)
    rows = list(csv.DictReader(io.StringIO(written("csv", plain(record)).data.decode(), newline="")))
    assert rows[0]["account"] == "'" + text
    assert (rows[0]["reason"], rows[0]["quantity"]) == ("a=b", "-12.5"), "amounts and innocent texts stay"
    assert orjson.loads(written("ndjson", plain(record)).data)["account"] == text
    assert pq.read_table(io.BytesIO(written("parquet", plain(record)).data))["account"].to_pylist() == [text]


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=12))
def test_neutral_texts_never_begin_with_a_sign_of_a_formula(text: str) -> None:
    made = neutral(strings([text]))[0].as_py()
    assert made in (text, "'" + text)
    assert not made.lstrip().startswith(("=", "+", "-", "@"))


def test_amounts_of_items_are_exact_texts() -> None:
    values = [1, -1, 10**18, 1_500_000, 0]
    block = day([*values, *[0] * 19], [conditions.REGULAR] * 24)
    texts = final_items(block)[0]["values"]
    assert [quantity.parse(texts[n]) for n in (0, 1, 3, 4)] == [1, -1, 1_500_000, 0]
    assert texts[2] == "1000000000000"
