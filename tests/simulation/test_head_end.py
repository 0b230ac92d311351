"""The simulated head end: exact, repeatable, and honest about its faults."""

from __future__ import annotations

import hashlib
import json
from datetime import date
from decimal import Decimal
from itertools import pairwise

import numpy as np
import pytest

from mdh.errors import UsageError
from mdh.simulation.chance import below, draw, hits
from mdh.simulation.faults import FAULTS, parse_rates
from mdh.simulation.head_end import HeadEnd, Settings

EVERY = "spike=0.002,gap=0.002,missing=0.002,negative=0.002,zero=0.03,duplicate=0.03,late=0.03,correction=0.03,unknown=0.05,rollover=0.05"


def run(**changes: object) -> tuple[HeadEnd, list[bytes]]:
    head_end = HeadEnd(Settings(**{"meters": 60, "days": 3, "seed": 5, **changes}))  # type: ignore[arg-type]
    return head_end, [payload.data for payload in head_end.payloads()]


def intervals(payloads: list[bytes]) -> dict[tuple[str, str], list[tuple[int, Decimal | None, str]]]:
    """All JSON interval reads by device and start, in the order sent."""
    found: dict[tuple[str, str], list[tuple[int, Decimal | None, str]]] = {}
    for data in payloads:
        for read in json.loads(data, parse_float=Decimal, parse_int=Decimal)["reads"]:
            if read["channel"] != "E1":
                continue
            start = np.datetime64(read["start"].rstrip("Z"), "s").astype(int)
            words = read.get("conditions") or ["actual"] * len(read["values"])
            for i, (value, word) in enumerate(zip(read["values"], words, strict=True)):
                found.setdefault((read["device"], str(start + i * int(read["seconds"]))), []).append((i, value, word))
    return found


def test_same_seed_same_bytes_and_another_seed_other_bytes() -> None:
    first, again, other = run()[1], run()[1], run(seed=6)[1]
    assert first == again
    assert first != other


def test_bytes_are_those_of_every_machine() -> None:
    _, payloads = run(rates=parse_rates(EVERY))
    assert hashlib.sha256(b"".join(payloads)).hexdigest() == "95977e58cad858cc67e6167824be725be3fba843dc1890f45536fead09e060c6"


def test_a_meters_load_does_not_depend_on_how_many_others_there_are() -> None:
    few = HeadEnd(Settings(meters=10, days=1))
    many = HeadEnd(Settings(meters=500, days=1))
    day = few.first_day
    np.testing.assert_array_equal(few._loads(day, few.meters), many._loads(day, many.meters)[:10])


@pytest.mark.parametrize(("day", "slots"), [(date(2025, 3, 29), 96), (date(2025, 3, 30), 92), (date(2025, 10, 26), 100)])
def test_local_days_have_as_many_intervals_as_the_clock_gives_them(day: date, slots: int) -> None:
    head_end, payloads = run(start=day, days=1)
    assert len(intervals(payloads)) == 60 * slots
    assert head_end.totals.reads == 60 * slots


def test_both_shapes_and_both_text_formats_carry_the_same_reads_and_truth() -> None:
    rates = parse_rates(EVERY.replace("unknown=0.05,", ""))
    day, by_day = run(rates=rates)
    interval, by_interval = run(rates=rates, shape="interval")
    assert {k: [v[1:] for v in vs] for k, vs in intervals(by_day).items()} == {
        k: [v[1:] for v in vs] for k, vs in intervals(by_interval).items()
    }
    table, _ = run(rates=rates, format="csv")
    assert day.truth == interval.truth == table.truth
    assert day.totals.true_wh == interval.totals.true_wh == table.totals.true_wh
    assert day.totals.reads == interval.totals.reads == table.totals.reads


def test_without_faults_the_sum_sent_is_the_sum_measured() -> None:
    head_end, payloads = run()
    sent = sum((value for reads in intervals(payloads).values() for _, value, _ in reads if value is not None), Decimal(0))
    assert sent * 1000 == head_end.totals.true_wh
    assert head_end.truth == []


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_injected_where_the_truth_says(fault: str) -> None:
    rate = {"interval": 0.002, "day": 0.1, "meter": 0.2}[FAULTS[fault][0]]
    head_end, payloads = run(rates={fault: rate}, days=4)
    assert head_end.truth, "the rate must be high enough for the test to mean anything"
    assert head_end.totals.faults == {fault: len(head_end.truth)}
    reads = intervals(payloads)
    known = {line["device"] for line in head_end.master()}
    for line in head_end.truth:
        assert line["fault"] == fault
        if fault == "unknown":
            assert line["device"] not in known
            continue
        if fault == "rollover":
            continue
        start = np.datetime64(line["start"].rstrip("Z"), "s").astype(int)
        spots = [reads.get((line["device"], str(start + i * 900)), []) for i in range(line["count"])]
        sent = [value for spot in spots for _, value, _ in spot[:1] if value is not None]
        words = [word for spot in spots for _, _, word in spot[:1]]
        true = Decimal(line["true"])
        if fault == "gap":
            assert spots == [[]] * line["count"]
        elif fault == "missing":
            assert sent == []
            assert words == ["missing"] * line["count"]
        elif fault == "duplicate":
            assert all(len(spot) == 2 and spot[0] == spot[1] for spot in spots)
        elif fault == "late":
            assert all(len(spot) == 1 for spot in spots)
            assert sum(sent) == true
        elif fault == "correction":
            assert "estimated" in words
            assert sum(spot[1][1] for spot in spots) == true  # type: ignore[misc]
            assert all(spot[1][2] == "actual" for spot in spots)
        else:
            assert sum(sent) == Decimal(line["sent"]) != true
    if fault == "spike":
        assert all(Decimal(line["sent"]) >= 5 for line in head_end.truth)


def test_registers_advance_by_the_consumption_and_roll_over() -> None:
    head_end, payloads = run(rates={"rollover": 0.3}, days=4)
    readings: dict[str, list[Decimal]] = {}
    daily: dict[tuple[str, int], Decimal] = {}
    for number, data in enumerate(payloads):
        for read in json.loads(data, parse_float=Decimal, parse_int=Decimal)["reads"]:
            if read["channel"] == "R1":
                readings.setdefault(read["device"], []).extend(r["value"] for r in read["readings"])
            else:
                daily[read["device"], number] = sum(read["values"])
    assert all(len(values) == 5 for values in readings.values())
    turned = 0
    for device, values in readings.items():
        for day in range(4):
            advance = values[day + 1] - values[day]
            turned += advance < 0
            assert (advance + 100_000 if advance < 0 else advance) == daily[device, day]
    assert turned > 0
    rolled = {line["device"] for line in head_end.truth}
    assert {device for device, values in readings.items() if any(b < a for a, b in pairwise(values))} == rolled


def test_nem12_is_only_made_where_market_days_are_local_days() -> None:
    with pytest.raises(UsageError, match="Brisbane"):
        Settings(meters=1, days=1, format="nem12").check()
    head_end, payloads = run(format="nem12", zone="Australia/Brisbane", rates={"missing": 0.01})
    lines = payloads[0].decode().split("\r\n")
    assert lines[0].startswith("100,NEM12,")
    assert lines[-2:] == ["900", ""]
    days = [line.split(",") for line in lines if line.startswith("300,")]
    assert len(days) == 60
    assert all(len(fields) == 2 + 96 + 5 for fields in days)
    overlays = [line.split(",") for line in lines if line.startswith("400,")]
    assert sum(int(f[2]) - int(f[1]) + 1 for f in overlays if f[3] == "N") == sum(
        line["count"] for line in head_end.truth if line["day"] == "2025-03-28"
    )


def test_all_is_every_fault_and_what_is_named_later_counts() -> None:
    assert parse_rates("all=0.01,gap=0.5") == dict.fromkeys(FAULTS, 0.01) | {"gap": 0.5}


@pytest.mark.parametrize("text", ["spik=0.1", "spike", "all", "spike=x", "spike=2", "gap=-0.1"])
def test_bad_fault_rates_are_refused_by_name(text: str) -> None:
    with pytest.raises(UsageError, match="--faults"):
        parse_rates(text)


def test_chance_is_even_and_keeps_to_its_rate() -> None:
    words = draw(3, "test", np.arange(200_000))
    counts = np.bincount(below(words, 10), minlength=10)
    assert counts.min() > 19_000
    assert counts.max() < 21_000
    assert abs(hits(words, 0.03).mean() - 0.03) < 0.002
    assert not hits(words, 0.0).any()
    assert hits(words, 1.0).all()
