"""`mdh vee` as a user meets it, and the engine over real files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from connectors.head_end.formats import Options, decode
from mdh.commands.decode import objects
from mdh.commands.vee import Bench, main
from mdh.errors import UsageError
from schemas.topology import default_path, load_topology

READS = """device,channel,unit,seconds,start,value,condition
M1,E1,kWh,3600,2024-03-30T22:00:00Z,1.5,actual
M1,E1,kWh,3600,2024-03-30T23:00:00Z,,missing
M1,E1,kWh,3600,2024-03-31T00:00:00Z,3.5,actual
M1,E1,kWh,3600,2024-03-31T01:00:00Z,-1,actual
"""
REGISTERS = """device,channel,unit,at,reading
M1,R1,kWh,2024-03-31T00:00:00Z,100.5
M1,R1,kWh,2024-03-30T00:00:00Z,90
"""


def test_exceptions_and_finals_as_ndjson(tmp_path: Path) -> None:
    (tmp_path / "reads.csv").write_text(READS)
    (tmp_path / "registers.csv").write_text(REGISTERS)
    command = [sys.executable, "-m", "mdh", "vee", tmp_path / "reads.csv", tmp_path / "registers.csv", "--zone", "Europe/London"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    items = [json.loads(line) for line in done.stdout.splitlines()]
    exception, final, register = items
    assert {k: exception[k] for k in ("type", "rule", "severity", "device", "channel", "start", "end")} == {
        "type": "exception", "rule": "negative-consumption", "severity": "issue", "device": "M1", "channel": "E1",
        "start": "2024-03-31T01:00:00Z", "end": "2024-03-31T02:00:00Z",
    }  # fmt: skip
    assert exception["detail"] == "1 negative interval, the lowest -1 kWh"
    assert final["values"] == ["1.5", "2.5", "3.5", "-1"]
    assert final["conditions"] == [500_000, 360_000, 500_000, 450_000]
    assert final["methods"] == [{"start": "2024-03-30T23:00:00Z", "end": "2024-03-31T00:00:00Z", "method": "interval-interpolation"}]
    assert (final["start"], final["end"], final["intervals"], final["total"]) == ("2024-03-30T22:00:00Z", "2024-03-31T02:00:00Z", 4, "6.5")
    assert [read["value"] for read in register["reads"]] == ["90", "100.5"]


def test_unreadable_input_is_named_and_the_rest_is_done(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    (tmp_path / "reads.csv").write_text(READS)
    (tmp_path / "broken.json").write_text('{"reads": [')
    with pytest.raises(typer.Exit) as end:
        main([str(tmp_path / name) for name in ("broken.json", "reads.csv", "none.csv")])
    out, errors = capfdbinary.readouterr()
    assert end.value.exit_code == 2
    assert json.loads(out.splitlines()[-1])["total"] == "6.5"
    assert b"broken.json:1" in errors
    assert b"none.csv: No such file" in errors


def test_bad_master_data_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "reads.csv").write_text(READS)
    (tmp_path / "master.ndjson").write_text('{"device": "M1", "channel": "E1"}\n{"device": 7}\n')
    with pytest.raises(UsageError, match=r"master\.ndjson:2: ") as refused:
        main([str(tmp_path / "reads.csv")], master=tmp_path / "master.ndjson")
    assert "\n" not in str(refused.value)


def test_a_topology_brings_its_own_rules(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    (tmp_path / "reads.csv").write_text(READS)
    text = default_path().read_text()
    begin, end = text.index("  groups:\n    initial-load:"), text.index("\n\n", text.index("  groups:\n    initial-load:"))
    rules = "  groups:\n    initial-load:\n      rules:\n        - {id: negative-consumption, severity: info}\n"
    (tmp_path / "topology.yaml").write_text(text[:begin] + rules + text[end:])
    main([str(tmp_path / "reads.csv")], topology=tmp_path / "topology.yaml")
    exception, final = map(json.loads, capfdbinary.readouterr().out.splitlines())
    assert (exception["severity"], final["values"][1], final["methods"]) == ("info", None, [])


def bench_over(*files: Path, zone: str | None = None) -> list[dict[str, Any]]:
    bench = Bench(load_topology(), zone)
    for file in files:
        bench.reads(decode(file.read_bytes(), Options(name=file.name, zone=zone)))
    return list(bench.finish())


def test_late_reads_across_files_are_merged_into_days_that_left_the_state(tmp_path: Path) -> None:
    head = READS.splitlines()[0]
    months = [f"M1,E1,kWh,86400,2024-{month:02d}-{day:02d}T00:00:00Z,1,actual" for month in (1, 2, 3) for day in range(1, 29)]
    (tmp_path / "a.csv").write_text("\n".join([head, *months]))
    (tmp_path / "b.csv").write_text(f"{head}\nM1,E1,kWh,86400,2024-01-05T00:00:00Z,5,actual\n")
    final = bench_over(tmp_path / "a.csv", tmp_path / "b.csv")[-1]
    assert final["total"] == str(3 * 28 + 4 + 4)  # four days between the files' months have no read and get the mean of like days
    assert [(span["start"][:10], span["end"][:10], span["method"]) for span in final["methods"]] == [
        ("2024-01-29", "2024-02-01", "like-day-average"), ("2024-02-29", "2024-03-01", "like-day-average"),
    ]  # fmt: skip
    assert final["gaps"] == []


@pytest.mark.shared_data
def test_finals_of_real_files_are_what_was_read_where_nothing_was_estimated(shared_data: Path) -> None:
    compared = 0
    for file in sorted((shared_data / "nem12" / "unzipped").glob("*.csv")):
        for zone in (None, "Australia/Sydney"):
            read = decode(file.read_bytes(), Options(name=file.name, zone=zone))
            expected = {(o["device"], o["channel"], o["interval_seconds"]): o for o in objects(read, file.name, summary=True)}
            for final in bench_over(file, zone=zone):
                key = final.get("device"), final.get("channel"), final.get("interval_seconds")
                if final["type"] != "final" or key not in expected or final.get("methods") or not final["interval_seconds"]:
                    continue
                was = expected[key]
                compared += 1
                assert final["total"] == was["total"], (file.name, key)
                assert (final["start"], final["end"]) == (was["start"], was["end"])
    assert compared > 20
