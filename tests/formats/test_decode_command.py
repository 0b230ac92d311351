"""``mdh decode``: one object per channel and file, errors on stderr, exit status 2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mdh import cli
from tests.formats.samples import CSV, IMD, NEM12, NEM13, REGISTERS


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Any:
    """Runs the command in an empty folder: (status, objects, lines on stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, list[dict[str, Any]], list[str]]:
        monkeypatch.setattr("sys.argv", ["mdh", "decode", *arguments])
        try:
            cli.main()
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
        out, err = capfdbinary.readouterr()
        return status, [json.loads(line) for line in out.splitlines()], err.decode().splitlines()

    return call


def test_intervals(run: Any) -> None:
    Path("a.csv").write_bytes(CSV)
    status, objects, errors = run("a.csv")
    assert (status, errors) == (0, [])
    assert objects[0] == {
        "file": "a.csv",
        "format": "csv",
        "device": "M1",
        "channel": "1.8.0",
        "direction": "delivered",
        "quantity": "energy",
        "unit": "kWh",
        "interval_seconds": 900,
        "start": "2024-10-27T00:00:00Z",
        "end": "2024-10-27T01:15:00Z",
        "intervals": 4,
        "total": "1.873456",
        "by_condition": {"regular": 2, "external-estimate": 1, "missing": 1},
        "registers": 0,
        "gaps": [{"start": "2024-10-27T00:45:00Z", "end": "2024-10-27T01:00:00Z"}],
        "values": ["0.25", "0.5", None, "1.123456"],
        "conditions": [500000, 400000, 110000, 500000],
    }
    assert objects[1]["direction"] == "received"
    assert len(objects) == 2


def test_summary_leaves_the_values_out(run: Any) -> None:
    Path("a.csv").write_bytes(CSV)
    Path("r.csv").write_bytes(REGISTERS)
    status, objects, _ = run("--summary", "a.csv", "r.csv")
    assert status == 0
    assert [o["intervals"] + o["registers"] for o in objects] == [4, 1, 2, 1]
    assert not any(key in o for o in objects for key in ("values", "conditions", "reads", "gaps"))


def test_registers_and_stated_quantities(run: Any) -> None:
    Path("r.csv").write_bytes(REGISTERS)
    Path("n13.csv").write_bytes(NEM13)
    _, objects, _ = run("r.csv", "n13.csv")
    assert objects[0]["reads"] == [
        {"at": "2024-01-01T00:00:00Z", "value": "100.5", "condition": 500000},
        {"at": "2024-02-01T00:00:00Z", "value": "110.25", "condition": 500000},
    ]
    assert (objects[0]["total"], objects[0]["registers"], objects[0]["interval_seconds"]) == ("9.75", 2, 0)
    assert (objects[1]["total"], objects[1]["reads"][0]["value"]) == (None, None)
    assert objects[2]["total"] == objects[2]["quantities"][0]["value"] == "1312.1"


def test_a_bad_file_is_one_line_and_the_others_are_decoded(run: Any) -> None:
    Path("good.xml").write_bytes(IMD)
    Path("bad.csv").write_bytes(b"hello\n")
    Path("part.csv").write_bytes(CSV + b"M1,1.8.0,kWh,900,2024-10-27T03:00:00Z,1e3,\n")
    status, objects, errors = run("bad.csv", "absent.csv", "part.csv", "good.xml", "--zone", "UTC")
    assert status == 2
    assert [o["file"] for o in objects] == ["part.csv", "part.csv", "good.xml", "good.xml"]
    assert errors == [
        "bad.csv:1: header 'hello' is neither of ours nor known to a mapping profile",
        "absent.csv: No such file or directory",
        "part.csv:7: '1e3' is not a plain decimal number (column value)",
    ]


def test_format_and_zone(run: Any) -> None:
    Path("x").write_bytes(NEM12)
    assert run("x", "--format", "nem12", "--zone", "Australia/Perth")[1][0]["start"] == "2024-04-16T16:00:00Z"
    assert run("x", "--format", "nope")[0] == 2
    status, objects, errors = run("x", "--zone", "Mars")
    assert (status, objects) == (2, [])
    assert errors == ["x:1: 'Mars' is not an IANA time zone such as Europe/Berlin"]


def test_totals_never_overflow(run: Any) -> None:
    rows = "".join(f"M,c,kWh,60,2024-01-01T00:{n:02d}:00Z,4000000000000\n" for n in range(10))
    Path("big.csv").write_text("device,channel,unit,seconds,start,value\n" + rows)
    assert run("big.csv")[1][0]["total"] == "40000000000000"
