"""Mapping profiles against openly licensed files of real meters and their independently made totals."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from connectors.head_end.formats import Decoded, Options, decode
from schemas.conditions import REPORTED_MISSING
from schemas.topology.profiles import Profile
from tests.conftest import ROOT
from tests.formats.samples import reads_of, total_of

pytestmark = pytest.mark.shared_data
PROFILES = {
    name: Profile.model_validate(profile) for name, profile in yaml.safe_load((ROOT / "tests/data/profiles.yaml").read_text()).items()
}


def read(path: Path) -> Decoded:
    return decode(path.read_bytes(), Options(name=path.name, profiles=PROFILES))


def stats(folder: Path, name: str = "expected_stats.json") -> dict[str, Any]:
    meters: dict[str, Any] = json.loads((folder / name).read_text())["meters"]
    return meters


def close(reads: list[tuple[int, int, int]], total: float) -> bool:
    """Whether the sum is the given one, but for half a millionth of rounding per value."""
    return abs(total_of(reads) - Decimal(str(total)) * 10**6) <= Decimal(len(reads)) / 2 + 1


def test_ausgrid(shared_data: Path) -> None:
    folder = shared_data / "ausgrid_customer12"
    decoded = read(folder / "data_2011-2012.csv")
    for channel, expected in stats(folder).items():
        reads = reads_of(decoded)["ausgrid-12", channel, "kWh", 1800]
        assert len(reads) == expected["n"]
        assert close(reads, expected["sum"])
        assert datetime.fromtimestamp(reads[0][0], UTC).isoformat() == "2011-06-30T14:00:00+00:00"
    assert decoded.blocks[0].count.tolist() == [17_568] * 2
    assert decoded.blocks[0].direction.tolist() == [1, 2]


@pytest.mark.parametrize(("folder", "file"), [("lcl_mac000002", "MAC000002.csv"), ("rtdip_lcl", "CC_LCL-FullData.csv")])
def test_low_carbon_london(shared_data: Path, folder: str, file: str) -> None:
    expected = stats(shared_data / folder)["MAC000002"]
    decoded = read(shared_data / folder / file)
    (reads,) = reads_of(decoded).values()
    # The one value Null stands at 12:37:27, no half hour; two stamps of the other file come twice with a zero difference
    with (shared_data / folder / file).open() as lines:
        rows = list(csv.reader(lines))[1:]
    once = {row[-2]: row[-1].strip() for row in rows if row[-1].strip() != "Null"}
    assert len(reads) == len(once) == expected["n"] - expected["dup_timestamps"] - expected["nan"]
    assert close(reads, float(sum(Decimal(value) for value in once.values())))
    if not expected["dup_timestamps"]:
        assert close(reads, expected["sum"])
    assert datetime.fromtimestamp(reads[0][0] + 1800, UTC).replace(tzinfo=None) == datetime.fromisoformat(expected["first"])
    assert datetime.fromtimestamp(reads[-1][0] + 1800, UTC).replace(tzinfo=None) == datetime.fromisoformat(expected["last"])
    assert len(decoded.blocks[0]) == expected["gap_count"] + 1
    assert [problem.line for problem in decoded.problems] == ([3240] if folder == "lcl_mac000002" else [])


def test_danish_heat(shared_data: Path) -> None:
    folder = shared_data / "heat_danish"
    found = {key[1]: reads for key, reads in reads_of(read(folder / "processed_final_data_sample.csv")).items()}
    columns = {
        "energy": "energy_heat_kwh",
        "volume": "volume_flow_m3",
        "inlet": "inlet_flow_energy_m3xC",
        "outlet": "back_flow_energy_m3xC",
    }
    for channel, column in columns.items():
        expected, reads = stats(folder)[column], found[channel]
        assert len(reads) == expected["n"]
        assert reads[0][1] == round(expected["first_register"] * 10**6)
        assert reads[-1][1] == round(expected["last_register"] * 10**6)
        assert datetime.fromtimestamp(reads[-1][0], UTC).isoformat(" ") == expected["last"]


def test_hue(shared_data: Path) -> None:
    folder = shared_data / "hue_residential1"
    expected = stats(folder)["R1"]
    decoded = read(folder / "Residential_1.csv")
    (reads,) = reads_of(decoded).values()
    # Three of the four stamps that come twice are autumn hours and stay two reads; 1 April 2013 has an hour twice with the same value
    assert len(reads) == expected["n"] - 1
    assert total_of(reads) == round(expected["sum"] * 10**6) - 550_000
    assert decoded.problems == []


def test_californian_usage_keeps_both_autumn_hours(shared_data: Path) -> None:
    folder = shared_data / "pge_d202_csv"
    expected = stats(folder)["D202"]
    decoded = read(folder / "D202.csv")
    (reads,) = reads_of(decoded).values()
    assert (len(reads), total_of(reads)) == (expected["n"], round(expected["sum"] * 10**6))
    assert [reads[i + 1][0] - reads[i][0] for i in range(len(reads) - 1)] == [900] * (len(reads) - 1), "two years without a gap"
    assert decoded.problems == []


def test_smart_grid_smart_city(shared_data: Path) -> None:
    folder = shared_data / "sgsc_half_hourly"
    decoded = read(folder / "sgsc_interval_readings.csv.gz")
    found = reads_of(decoded)
    rows: dict[str, dict[str, tuple[Decimal, Decimal]]] = {}
    for row in csv.DictReader(io.StringIO(gzip.decompress((folder / "sgsc_interval_readings.csv.gz").read_bytes()).decode())):
        general, controlled = Decimal(row["GENERAL_SUPPLY_KWH"]), row["CONTROLLED_LOAD_KWH"]
        of_day = rows.setdefault(row["CUSTOMER_ID"], {})
        before = of_day.get(row["READING_DATETIME"], (Decimal(0), Decimal(0)))[1]
        of_day[row["READING_DATETIME"]] = (general, Decimal(controlled) if controlled else before)
    differing = 0
    for customer, expected in stats(folder).items():
        general = found[customer, "general", "kWh", 1800]
        # The export's stamps that come twice (see its notes) keep their later row
        assert len(general) == expected["n"] - expected["dup_timestamps"]
        assert close(general, float(sum(g for g, _ in rows[customer].values())))
        assert close(found[customer, "controlled", "kWh", 1800], float(sum(c for _, c in rows[customer].values())))
        differing += expected["dup_timestamps"]
        if not expected["dup_timestamps"]:
            assert close(general, expected["sum"])
    assert 0 < len(decoded.problems) <= differing + 10


@pytest.mark.parametrize("name", ["swm_trialA", "swm_trialA_extended"])
def test_water(shared_data: Path, name: str) -> None:
    folder = shared_data / "water_daiad"
    decoded = read(folder / f"{name}.zip")
    found = {key[0]: reads for key, reads in reads_of(decoded).items()}
    expected = stats(folder, f"expected_{name}.json")
    assert found.keys() == expected.keys()
    refused = Counter(problem.what for problem in decoded.problems)
    assert sum(refused.values()) == (5 if name == "swm_trialA" else 0), "readings written as 4e+05 are refused"
    assert sum(meter["n"] for meter in expected.values()) - sum(map(len, found.values())) == sum(refused.values())
    for meter, numbers in expected.items():
        reads = found[meter]
        assert reads[0][1] == numbers["first_reading"] * 10**6
        assert reads[-1][1] == numbers["last_reading"] * 10**6
        assert all(condition != REPORTED_MISSING for *_, condition in reads)
