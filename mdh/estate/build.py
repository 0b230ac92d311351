"""Cuts the estate out of the published data sets: ``python -m mdh.estate.build SOURCES [OUT]``.

SOURCES holds the data sets as published, in the folders named below. Run twice it writes the same bytes. Every change made to the data is
listed in ATTRIBUTION.md.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from itertools import groupby
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from schemas.quantity import parse, text_of

SYDNEY: Final = ZoneInfo("Australia/Sydney")
MARKET: Final = timezone(timedelta(hours=10))  # NEM12 knows no summer time
HOMES: Final = {
    "10006572": "H100065720", "10017478": "H100174780", "10017482": "H100174820",
    "10017572": "H100175720", "10017574": "H100175740", "10017888": "H100178880",
}  # fmt: skip
WATER: Final = {
    "f8249505-4885-4e7e-8757-6367a5": "W-0001", "5b9161a3-24b8-41f5-ac7d-6159fc": "W-0002",
    "326e83b5-50c6-44b3-8c39-e48b31": "W-0003", "df789230-d273-4fd0-aa24-6f5419": "W-0004",
    "9b531be8-9edb-4d66-acae-016d62": "W-0005", "58e154b1-e140-4b4b-9f5c-3cf335": "W-0006",
}  # fmt: skip
_WATER_KEY: Final = 30  # leading characters of the published key that tell the meters apart
GAS, HEAT = "G-0001", "T-0001"
Stamped = tuple[datetime, int | None]  # UTC and millionths, None where the source has no value
Series = dict[str, list[Stamped]]


def _homes(sources: Path) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Device and rows of September and October 2013 in the order the meter recorded them."""
    with gzip.open(sources / "sgsc_half_hourly" / "sgsc_interval_readings.csv.gz", "rt") as file:
        months = ("2013-09", "2013-10", "2013-11")
        rows = [row for row in csv.DictReader(file) if row["CUSTOMER_ID"] in HOMES and row["READING_DATETIME"][:7] in months]
    for customer, device in HOMES.items():
        mine = [row for row in rows if row["CUSTOMER_ID"] == customer]
        # The export repeats two stamps of the change day; there the calendar key, which counts on, gives the order
        yield device, sorted(mine, key=lambda row: (row["READING_DATETIME"][:10], _place(row)))


def _place(row: dict[str, str]) -> tuple[float, str]:
    on_change = row["READING_DATETIME"].startswith("2013-10-06")
    return float(row["CALENDAR_KEY"]) if on_change else 0.0, row["READING_DATETIME"]


def electricity(sources: Path) -> Series:
    """Half hours by ``device/channel`` from 2013-09-01 to 2013-11-01, Sydney time; every day of the export has 48 rows."""
    first = datetime(2013, 9, 1, tzinfo=SYDNEY).astimezone(UTC)
    end = datetime(2013, 11, 1, tzinfo=SYDNEY).astimezone(UTC)
    series: Series = {}
    for device, rows in _homes(sources):
        columns = {"E1": "GENERAL_SUPPLY_KWH"}
        if any(float(row["CONTROLLED_LOAD_KWH"] or 0) for row in rows):
            columns["E2"] = "CONTROLLED_LOAD_KWH"
        for channel, column in columns.items():
            stamps = [(first + timedelta(minutes=30 * i), parse(row[column]) if row[column] else None) for i, row in enumerate(rows)]
            series[f"{device}/{channel}"] = [(at, value) for at, value in stamps if at < end]
    return series


def write_nem12(series: Series, out: Path) -> Series:
    """September, when market time and local time agree, as NEM12."""
    lines = ["100,NEM12,201310011200,METERDATA,HUB"]
    chosen = {key: [s for s in stamps if s[0].astimezone(SYDNEY).month == 9] for key, stamps in series.items()}
    for key, stamps in chosen.items():
        device, _, channel = key.partition("/")
        config = "".join(k.partition("/")[2] for k in chosen if k.startswith(device))
        lines.append(f"200,{device},{config},{channel},{channel},N1,{device},kWh,30,")
        for i in range(0, len(stamps), 48):
            day = stamps[i][0].astimezone(MARKET)
            values = [value for _, value in stamps[i : i + 48]]
            text = ",".join(text_of(value or 0) for value in values)
            quality = "V" if None in values else "A"
            lines.append(f"300,{day:%Y%m%d},{text},{quality},,,{day + timedelta(days=1):%Y%m%d}040000,")
            lines += _overlays(values) if quality == "V" else []
    out.write_bytes("\r\n".join([*lines, "900", ""]).encode())
    return chosen


def _overlays(values: list[int | None]) -> Iterator[str]:
    """400 records: which runs of a day's values are actual and which have none."""
    position = 1
    for present, run in groupby(values, lambda value: value is not None):
        size = len(list(run))
        yield f"400,{position},{position + size - 1},{'A' if present else 'N'},,"
        position += size


def write_json(series: Series, out: Path) -> Series:
    """October, with the day of 46 half hours, as JSON."""
    chosen = {key: [s for s in stamps if s[0].astimezone(SYDNEY).month == 10] for key, stamps in series.items()}
    reads = []
    for key, stamps in chosen.items():
        device, _, channel = key.partition("/")
        start = stamps[0][0].astimezone(SYDNEY).isoformat()
        head = json.dumps({"device": device, "channel": channel, "unit": "kWh", "seconds": 1800, "start": start})
        reads.append(head[:-1] + ', "values": [' + ",".join("null" if value is None else text_of(value) for _, value in stamps) + "]}")
    out.write_text('{"source": "head-end-sydney", "reads": [\n' + ",\n".join(reads) + "\n]}\n")
    return chosen


def gas(sources: Path) -> Series:
    """Hours of February and March 2021, London time."""
    zone = ZoneInfo("Europe/London")
    first, end = datetime(2021, 2, 1, tzinfo=zone), datetime(2021, 4, 1, tzinfo=zone)
    with gzip.open(sources / "opendsm_samples" / "uk-gas-hdd-only-hourly-sample-0.csv.gz", "rt") as file:
        rows: list[Stamped] = [(datetime.fromisoformat(row["start"]).astimezone(UTC), parse(row["value"])) for row in csv.DictReader(file)]
    return {f"{GAS}/V": [row for row in rows if first <= row[0] < end]}


def heat(sources: Path) -> Series:
    """Hourly energy and volume registers of March 2020, Danish time, with the closing reading of the month."""
    zone = ZoneInfo("Europe/Copenhagen")
    first, end = datetime(2020, 3, 1, tzinfo=zone), datetime(2020, 4, 1, tzinfo=zone)
    series: Series = {f"{HEAT}/energy": [], f"{HEAT}/volume": []}
    with (sources / "heat_danish" / "processed_final_data_sample.csv").open() as file:
        for row in csv.DictReader(file):
            at = datetime.fromisoformat(row["time_rounded"])
            if first <= at <= end:
                series[f"{HEAT}/energy"].append((at, parse(row["energy_heat_kwh"])))
                series[f"{HEAT}/volume"].append((at, parse(row["volume_flow_m3"])))
    return series


def water(sources: Path) -> Series:
    """Cumulative litres of October 2016, Spanish time, read about hourly at odd minutes."""
    zone = ZoneInfo("Europe/Madrid")
    rows: dict[str, list[tuple[datetime, str]]] = {device: [] for device in WATER.values()}
    with zipfile.ZipFile(sources / "water_daiad" / "swm_trialA.zip").open("swm_trialA.csv") as raw:
        for row in csv.DictReader(io.TextIOWrapper(raw), delimiter=";"):
            device = WATER.get(row["user key"][:_WATER_KEY])
            if device and row["datetime"][3:10] == "10/2016":
                naive = datetime.strptime(row["datetime"], "%d/%m/%Y %H:%M:%S")  # noqa: DTZ007 the zone follows
                rows[device].append((naive, row["meter reading"]))
    series: Series = {}
    for device, mine in rows.items():
        stamps: list[Stamped] = []
        previous = datetime.min.replace(tzinfo=UTC)
        for naive, reading in mine:
            at = naive.replace(tzinfo=zone).astimezone(UTC)
            if at <= previous:  # the second pass through the hour that comes twice
                at = naive.replace(tzinfo=zone, fold=1).astimezone(UTC)
            stamps.append((at, parse(reading)))
            previous = at
        series[f"{device}/R"] = stamps
    return series


def write_csv(series: Series, out: Path, units: Callable[[str], str], seconds: int, zone: str) -> Series:
    """Interval (``seconds`` > 0) or register reads as our plain CSV, stamps in local time with offset."""
    lines = ["device,channel,unit,seconds,start,value" if seconds else "device,channel,unit,at,reading"]
    for key, stamps in series.items():
        device, _, channel = key.partition("/")
        head = f"{device},{channel},{units(channel)}" + (f",{seconds}" if seconds else "")
        lines += [f"{head},{at.astimezone(ZoneInfo(zone)).isoformat()},{text_of(value or 0)}" for at, value in stamps]
    out.write_text("\n".join([*lines, ""]))
    return series


def solar(sources: Path, out: Path) -> Series:
    """A month of five-minute import and export, the published NEM12 file as it is."""
    origin = sources / "nem12" / "unzipped" / "Example_NEM12_month_solar.csv"
    shutil.copyfile(origin, out)
    series: Series = {}
    key = ""
    for row in csv.reader(origin.read_text().splitlines()):
        if row[0] == "200":
            key = f"{row[1]}/{row[4]}"
            series[key] = []
        elif row[0] == "300":
            day = datetime.strptime(row[1], "%Y%m%d").replace(tzinfo=MARKET)
            series[key] += [(day + timedelta(minutes=5 * i), parse(text)) for i, text in enumerate(row[2:290])]
    return series


def figures(series: Series, unit: Callable[[str], str], seconds: int) -> dict[str, Any]:
    """What the channels of a file must add up to: the sum of intervals, the advance of registers."""
    result: dict[str, Any] = {}
    for key, stamps in series.items():
        values = [value for _, value in stamps if value is not None]
        total = sum(values) if seconds else values[-1] - values[0]
        last = stamps[-1][0] + timedelta(seconds=seconds)
        result[key] = {
            "unit": unit(key.partition("/")[2]), "seconds": seconds, "count": len(stamps),
            "missing": len(stamps) - len(values), "total": text_of(total),
            "start": f"{stamps[0][0].astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}", "end": f"{last.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
        }  # fmt: skip
    return result


def master(keys: Iterable[tuple[str, str, int, str]]) -> Iterator[dict[str, Any]]:
    """Master data of ``(device/channel, unit, seconds, zone)``: one service point and account per device."""
    for key, unit, seconds, zone in keys:
        device, _, channel = key.partition("/")
        direction = "received" if channel == "B1" else "delivered"
        line = {"service_point": f"SP-{device}", "device": device, "channel": channel, "unit": unit, "direction": direction,
                "seconds": seconds, "zone": zone, "account": f"A-{device}"}  # fmt: skip
        yield line if seconds else {**line, "dials": 6 if unit == "kWh" or unit == "m3" else 7}


def build(sources: Path, out: Path) -> None:
    """Writes all files of the estate to ``out``."""
    kwh = lambda _channel: "kWh"  # noqa: E731
    litres = lambda _channel: "L"  # noqa: E731
    heat_unit = {"energy": "kWh", "volume": "m3"}.__getitem__
    homes = electricity(sources)
    sydney, brisbane, london, madrid, copenhagen = (
        "Australia/Sydney", "Australia/Brisbane", "Europe/London", "Europe/Madrid", "Europe/Copenhagen"
    )  # fmt: skip
    names = [
        "homes-2013-09.nem12.csv",
        "homes-2013-10.json",
        "solar-2023-03.nem12.csv",
        "gas-2021.csv",
        "water-2016-10.csv",
        "heat-2020-03.csv",
    ]
    paths = [out / name for name in names]
    files: list[tuple[str, str, Series, Callable[[str], str], int, str]] = [
        ("electricity", "NEM12: six homes, half hours", write_nem12(homes, paths[0]), kwh, 1800, sydney),
        ("electricity", "JSON: the same, a day of 46", write_json(homes, paths[1]), kwh, 1800, sydney),
        ("electricity", "NEM12: a solar home, 5 minutes", solar(sources, paths[2]), kwh, 300, brisbane),
        ("gas", "CSV: a gas meter, a day of 23 h", write_csv(gas(sources), paths[3], kwh, 3600, london), kwh, 3600, london),
        ("water", "CSV: six water registers", write_csv(water(sources), paths[4], litres, 0, madrid), litres, 0, madrid),
        ("heat", "CSV: a heat meter, 2 registers",
         write_csv(heat(sources), paths[5], heat_unit, 0, copenhagen), heat_unit, 0, copenhagen),
    ]  # fmt: skip
    expected = {
        path.name: {"commodity": commodity, "about": about, "channels": figures(series, unit, seconds)}
        for path, (commodity, about, series, unit, seconds, _) in zip(paths, files, strict=True)
    }
    (out / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    keys = {key: (key, unit(key.partition("/")[2]), seconds, zone) for _, _, series, unit, seconds, zone in files for key in series}
    (out / "master.ndjson").write_text("".join(json.dumps(line) + "\n" for line in master(keys.values())))


if __name__ == "__main__":
    build(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).parent)
