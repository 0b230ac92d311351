"""Gap filling: real loads with hidden gaps of more than two hours, filled by the hub and by a straight line.

Every gap is filled by both from the same data: the hub's engine with its default rules (like days; with a check register also scaling to
its readings), and linear interpolation between the values on both sides. Errors are mean absolute errors against what was hidden. Gaps
the engine leaves open (too little history) count for both with the straight line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from connectors.head_end.formats import Options, decode
from mdh.commands.decode import content_of
from mdh.commands.vee import Bench
from schemas.block import ReadBlock, starts_of, strings
from schemas.conditions import REGULAR, REPORTED_MISSING
from schemas.topology import load_topology
from streams.calendar import day_of, start_of

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
SOURCES = (
    ("homes, half hours (SGSC)", "sgsc_half_hourly/sgsc_interval_readings.csv.gz", "general", "Australia/Brisbane"),
    ("home, half hours (Ausgrid)", "ausgrid_customer12/data_2011-2012.csv", "GC", "Australia/Brisbane"),
    ("solar, half hours (Ausgrid)", "ausgrid_customer12/data_2011-2012.csv", "GG", "Australia/Brisbane"),
    ("home, half hours (Low Carbon London)", "lcl_mac000002/MAC000002.csv", "1.8.0", "Europe/London"),
    ("home, hours (HUE)", "hue_residential1/Residential_1.csv", "1.8.0", "America/Vancouver"),
    ("home, quarter hours (PG&E)", "pge_d202_csv/D202.csv", "Electric usage", "America/Los_Angeles"),
)
WARM = 21  # days before the first gap
EVERY = 6  # days from gap to gap, on average


@dataclass(frozen=True, slots=True)
class Series:
    """One channel without holes: values from ``start`` on."""

    name: str
    device: str
    zone: str
    seconds: int
    start: int
    values: Ints


@dataclass(slots=True)
class Errors:
    """Sums over all hidden intervals."""

    intervals: int = 0
    filled: int = 0
    ours: int = 0
    anchored: int = 0
    linear: int = 0


def run(data: Path, most: int, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Fills gaps in up to ``most`` channels of each source; returns the figures. Raises AssertionError where sums are not exact."""
    sources: dict[str, Any] = {}
    total = Errors()
    for name, file, channel, zone in SOURCES:
        if not (data / file).is_file():
            say(f"{name}: {file} is not there, left out")
            continue
        errors = Errors()
        for number, series in enumerate(_longest(name, data / file, channel, zone)):
            if number == most:
                break
            _compare(series, np.random.default_rng(seed + number), errors)
        for field in ("intervals", "filled", "ours", "anchored", "linear"):
            setattr(total, field, getattr(total, field) + getattr(errors, field))
        if errors.intervals:
            sources[name] = _figures(errors)
            say(f"{name}: {sources[name]}")
    return {"bench": "gaps", "seed": seed, **_figures(total), "sources": sources, "aim_ratio": 0.8}


def _figures(errors: Errors) -> dict[str, Any]:
    if not errors.intervals:
        return {"intervals": 0}
    return {
        "intervals": errors.intervals,
        "filled_share": round(errors.filled / errors.intervals, 4),
        "mae_linear": round(errors.linear / errors.intervals / 1e6, 5),
        "mae_like_day": round(errors.ours / errors.intervals / 1e6, 5),
        "mae_with_register": round(errors.anchored / errors.intervals / 1e6, 5),
        "ratio_like_day": round(errors.ours / errors.linear, 3),
        "ratio_with_register": round(errors.anchored / errors.linear, 3),
    }


def _longest(name: str, file: Path, channel: str, zone: str) -> Iterator[Series]:
    """Of each device its longest stretch without holes, the longest first."""
    decoded = decode(content_of(str(file)), Options(name=file.name, zone=zone, profiles=load_topology().profiles))
    rows: dict[str, Series] = {}
    for block in decoded.blocks:
        begins = starts_of(block.count)
        for row in np.flatnonzero(block.seconds > 0).tolist():
            if block.channel[row].as_py() != channel:
                continue
            cells = slice(int(begins[row]), int(begins[row]) + int(block.count[row]))
            good = np.flatnonzero(np.diff(np.r_[False, block.conditions[cells] >= REGULAR, False]))
            for a, b in zip(good[::2].tolist(), good[1::2].tolist(), strict=True):
                device, seconds = block.device[row].as_py(), int(block.seconds[row])
                found = Series(name, device, zone, seconds, int(block.start[row]) + a * seconds, block.values[cells][a:b])
                if device not in rows or len(found.values) > len(rows[device].values):
                    rows[device] = found
    whole = [series for series in rows.values() if len(series.values) * series.seconds >= 2 * WARM * 86_400]
    yield from sorted(whole, key=lambda series: -len(series.values))


def _compare(series: Series, rng: np.random.Generator, errors: Errors) -> None:
    gaps = list(_gaps(series, rng))
    hidden = np.zeros(len(series.values), np.bool_)
    for a, b in gaps:
        hidden[a:b] = True
    line = np.rint(np.interp(np.arange(len(hidden)), np.flatnonzero(~hidden), series.values[~hidden])).astype(np.int64)
    alone, known = _filled(series, hidden, line, readings=False)
    anchored, _ = _filled(series, hidden, line, readings=True)
    errors.intervals += int(hidden.sum())
    errors.filled += int((known & hidden).sum())
    for name, guess in (("ours", alone), ("anchored", anchored), ("linear", line)):
        setattr(errors, name, getattr(errors, name) + int(np.abs(guess - series.values)[hidden].sum()))


def _gaps(series: Series, rng: np.random.Generator) -> Iterator[tuple[int, int]]:
    """Gaps of more than two hours up to a day, after the warm-up."""
    hour = 3600 // series.seconds if series.seconds < 3600 else 1
    at = WARM * 24 * hour
    while True:
        at += int(rng.integers(1, 2 * EVERY * 24) * hour)
        size = int(rng.integers(2 * hour + 1, 24 * hour + 1))
        if at + size + 1 >= len(series.values):
            return
        yield at, at + size
        at += size


def _filled(series: Series, hidden: Mask, line: Ints, *, readings: bool) -> tuple[Ints, Mask]:
    """What the engine makes of the series without the hidden values, and which intervals it filled."""
    bench = Bench(load_topology(), series.zone)
    midnights, total = _midnights(series), np.r_[0, np.cumsum(series.values)]
    for channel, check in (("E", "R"), ("R", "")) if readings else ():
        bench._apply("MasterChannel", {"device": "D", "channel": channel, "unit": "kWh", "check_channel": check, "periods": []})
    values, codes = np.where(hidden, 0, series.values), np.where(hidden, REPORTED_MISSING, REGULAR)
    cuts = np.unique(np.r_[0, (midnights[::7] - series.start) // series.seconds, len(values)])
    for a, b in pairwise(cuts.tolist()):  # week by week, as a head end sends it
        start, end = series.start + a * series.seconds, series.start + b * series.seconds
        bench._apply("ReadBlock", _intervals(start, series.seconds, values[a:b], codes[a:b]))
        read = midnights[(midnights > start) & (midnights <= end) | (midnights == start) & (a == cuts[1])]
        if readings and len(read):
            bench._apply("ReadBlock", _register(read, total[(read - series.start) // series.seconds]))
    list(bench.finish())
    values, known = line.copy(), np.zeros(len(line), np.bool_)
    for (_, channel, seconds, _), (block, row) in bench.days.items():
        if channel != "E" or seconds != series.seconds:
            continue
        begin, count = int(starts_of(block.count)[row]), int(block.count[row])
        at = (int(block.start[row]) - series.start) // seconds + np.arange(count)
        fine = (block.conditions[begin : begin + count] >= 200_000) & (at >= 0) & (at < len(line))
        values[at[fine]], known[at[fine]] = block.values[begin : begin + count][fine], True
    if readings:
        cuts = (_midnights(series) - series.start) // series.seconds
        sums, truth = (np.add.reduceat(v[: cuts[-1]], cuts[:-1]) for v in (values, series.values))
        whole = np.logical_and.reduceat(known[: cuts[-1]], cuts[:-1])
        wrong = whole & (sums != truth) & np.logical_or.reduceat(hidden[: cuts[-1]], cuts[:-1])
        told = {int(e["start"].timestamp()) for e in bench.exceptions.values() if e["rule"] == "interval-adjustment-from-scalar"}
        open_ = [int(k) for k in np.flatnonzero(wrong) if int(_midnights(series)[k]) not in told]
        assert not open_, f"{series.name} {series.device}: {len(open_)} days do not sum up to the register"
    return values, known


def _midnights(series: Series) -> Ints:
    end = series.start + len(series.values) * series.seconds
    days = np.arange(int(day_of(series.zone, series.start)) + 1, int(day_of(series.zone, end)) + 1)
    found: Ints = start_of(series.zone, days)
    return found[(found - series.start) % series.seconds == 0]


def _intervals(start: int, seconds: int, values: Ints, codes: Ints) -> ReadBlock:
    return _block("E", start, seconds, values, codes, np.zeros(0, np.int64))


def _register(times: Ints, values: Ints) -> ReadBlock:
    return _block("R", int(times[0]), 0, values, np.full(len(values), REGULAR), times)


def _block(channel: str, start: int, seconds: int, values: Ints, codes: Ints, times: Ints) -> ReadBlock:
    one = np.ones(1, np.int64)
    return ReadBlock(
        id=channel, payload=channel, source="gaps", format="", received_at=0, device=strings(["D"]), channel=strings([channel]),
        unit=strings(["kWh"]), direction=one * 0, start=one * start, seconds=(one * seconds).astype(np.int32),
        count=(one * len(values)).astype(np.int32), reads=(one * len(times)).astype(np.int32), multiplier=one * 0, values=values,
        conditions=codes.astype(np.int32), times=times,
    ).check()  # fmt: skip
