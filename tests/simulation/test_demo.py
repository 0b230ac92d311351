"""The demo as a newcomer runs it, twice on the same data."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mdh.estate import parts
from mdh.estate.story import RATES, WIDTH


def demo(folder: Path) -> tuple[list[str], dict[str, Any]]:
    command = [sys.executable, "-m", "mdh", "demo", "--exit", "--data-dir", str(folder), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1200)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    return lines[:-1], json.loads(lines[-1])


@pytest.mark.broker
@pytest.mark.timeout(2700)
def test_the_demo_tells_the_truth_and_can_be_run_again(tmp_path: Path) -> None:
    story, counts = demo(tmp_path)
    assert max(len(line) for line in story) <= WIDTH
    assert counts["totals_agree"] is True
    assert counts["estate_reads"] == sum(part.reads for part in parts())
    assert set(counts["faults"]) == set(RATES)
    for name, fault in counts["faults"].items():
        assert fault["injected"] == fault["answered"] > 0, name
    assert counts["corrected"] == 4
    assert counts["estimated"] > 0
    assert counts["dead"] == 0
    _, again = demo(tmp_path)
    for name in ("intervals", "registers", "estimated", "determinants", "payloads", "faults", "totals_agree", "corrected"):
        assert again[name] == counts[name], name
