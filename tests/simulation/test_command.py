"""``mdh simulate``: files, truth and errors of the command itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def mdh(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = "from mdh.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


def test_it_writes_payloads_master_and_truth_and_ends_with_the_counts(tmp_path: Path) -> None:
    done = mdh("simulate", "--meters", "30", "--days", "2", "--chunk", "10", "--faults", "spike=0.01,unknown=0.2", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout.splitlines()[-1])
    truth = [json.loads(line) for line in (tmp_path / "truth.ndjson").read_text().splitlines()]
    master = (tmp_path / "master.ndjson").read_text().splitlines()
    payloads = list(tmp_path.glob("*.json"))
    assert counts["payloads"] == len(payloads) == 6
    assert counts["bytes"] == sum(path.stat().st_size for path in payloads)
    assert sum(counts["faults"].values()) == len(truth)
    assert len(master) == 30 - counts["faults"]["unknown"] < 30


def test_bad_input_is_one_line_and_status_2(tmp_path: Path) -> None:
    for arguments in (
        ["--meters", "3"],
        ["--out", str(tmp_path), "--faults", "nonsense=1"],
        ["--out", str(tmp_path), "--zone", "Mars/Olympus"],
        ["--out", str(tmp_path), "--start", "yesterday"],
        ["--out", str(tmp_path), "--seconds", "901"],
        ["--url", "http://127.0.0.1:9"],
    ):
        done = mdh("simulate", *arguments)
        assert done.returncode == 2, arguments
        assert done.stderr.startswith("mdh: ")
        assert done.stderr.count("\n") == 1
        assert done.stdout == ""
