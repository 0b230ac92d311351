"""Real files through the running hub: what ``mdh decode`` says is in them is what ``mdh sql`` finds, and what ``mdh vee`` decides."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from mdh.commands.up import Hub
from tests.conftest import ROOT

FILES = (
    "nem12/unzipped/Example_NEM12_actual_interval.csv",
    "nem12/unzipped/Example_NEM12_different_interval_length.csv",
    "nem12/unzipped/Example_NEM12_month_solar.csv",
    "nem12/unzipped/Example_NEM12_multiple_meters.csv",
    "nem12/unzipped/Example_NEM12_multiple_quality.csv",
    "nem12/unzipped/Example_NEM12_no_scheduled_read.csv",
    "nem12/unzipped/Example_NEM12_substituted_interval.csv",
    "nem12/unzipped/Example_NEM13_consumption_data.csv",
    "nem12/unzipped/Example_NEM13_forward_estimate.csv",
    "nem12/unzipped/Example_WesternPower.csv",
    "ausgrid_customer12/data_2011-2012.csv",
    "hue_residential1/Residential_1.csv",
    "pge_d202_csv/D202.csv",
    "heat_danish/processed_final_data_sample.csv",
)
INTERVALS = """
SELECT device, channel, any(unit) AS unit, toString(sumIf(value, method = '')) AS total, countIf(method = '') AS n FROM intervals
GROUP BY device, channel
"""
REGISTERS = """
SELECT device, channel, any(unit) AS unit, toString(argMax(reading, at) - argMin(reading, at)) AS total, count() AS n FROM registers
GROUP BY device, channel
"""
CURVES = """
SELECT device, channel, arrayMap(x -> (toString(x.2), x.3), arraySort(groupArray((start, value, condition)))) AS curve
FROM intervals WHERE condition >= 200000 GROUP BY device, channel
"""


def mdh(*arguments: object, check: bool = True) -> list[dict[str, Any]]:
    """The command's stdout as objects, a line each."""
    done = subprocess.run([sys.executable, "-m", "mdh", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.mark.broker
@pytest.mark.shared_data
@pytest.mark.timeout(2700)
def test_files_through_the_hub_give_what_decode_and_vee_say(shared_data: Path, tmp_path: Path) -> None:
    files = [shared_data / name for name in FILES]
    decoded = mdh("decode", "--summary", *files)
    with Hub(tmp_path / "hub", port=0) as hub:
        counts = mdh("send", "--wait", "--url", hub.url, *files)[-1]
        found = {(row["device"], row["channel"]): row for query in (INTERVALS, REGISTERS) for row in mdh("sql", "--url", hub.url, query)}
        curves = {(row["device"], row["channel"]): row["curve"] for row in mdh("sql", "--url", hub.url, CURVES)}
    assert counts["dead"] == 0
    assert counts["payloads"] >= len(files)
    assert counts["reads"] == sum(one["intervals"] or one["registers"] for one in decoded)
    for one in decoded:
        row = found[one["device"], one["channel"]]
        assert row["unit"] == one["unit"], one
        if one["intervals"]:
            assert Decimal(row["total"]) == Decimal(one["total"]), one
        else:
            assert row["n"] == one["registers"], one
    finals = curves_of(mdh("vee", *files))
    assert finals.keys() == curves.keys()
    for key, curve in finals.items():
        assert [(Decimal(value), condition) for value, condition in curves[key]] == curve, key


def curves_of(results: list[dict[str, Any]]) -> dict[tuple[str, str], list[tuple[Decimal, int]]]:
    """Value and condition of every interval that has one, in the final objects of ``mdh vee``."""
    curves: dict[tuple[str, str], list[tuple[Decimal, int]]] = defaultdict(list)
    for one in results:
        if one["type"] == "final" and one["intervals"]:
            pairs = zip(one["values"], one["conditions"], strict=True)
            curves[one["device"], one["channel"]] += [(Decimal(value), condition) for value, condition in pairs if condition >= 200_000]
    return dict(curves)
