"""The committed estate: complete, attributed, and what the sources give."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mdh.estate import FOLDER, master_lines, parts
from mdh.estate.build import build


def test_every_channel_has_master_data_and_every_file_is_attributed() -> None:
    known = {f"{line['device']}/{line['channel']}" for line in master_lines()}
    attribution = (FOLDER / "ATTRIBUTION.md").read_text()
    channels = set()
    for part in parts():
        assert part.path.is_file()
        assert part.path.name in attribution
        channels |= set(part.channels)
    assert channels == known
    assert {part.commodity for part in parts()} == {"electricity", "gas", "water", "heat"}


def test_it_stays_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) < 1_500_000


@pytest.mark.shared_data
def test_building_again_gives_the_committed_bytes(shared_data: Path, tmp_path: Path) -> None:
    build(shared_data, tmp_path)
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (FOLDER / path.name).read_bytes(), path.name


@pytest.mark.shared_data
def test_the_file_used_whole_agrees_with_an_independent_sum(shared_data: Path) -> None:
    sums = json.loads((shared_data / "nem12" / "expected_rawsum.json").read_text())
    channels = next(value for key, value in sums.items() if key.endswith("month_solar.csv"))["channels"]
    solar = next(part for part in parts() if part.path.name.startswith("solar"))
    ours = {"|".join((*key.split("/"), item["unit"])): [item["count"], item["total"]] for key, item in solar.channels.items()}
    assert ours == {key: [count, str(total)] for key, (count, total) in channels.items()}


def test_decoding_gives_the_expected_figures(tmp_path: Path) -> None:
    files = {str(part.path): part for part in parts()}
    done = subprocess.run([sys.executable, "-m", "mdh", "decode", "--summary", *files], capture_output=True, text=True, check=True)
    seen = set()
    for found in map(json.loads, done.stdout.splitlines()):
        key = f"{found['device']}/{found['channel']}"
        expected = files[found["file"]].channels[key]
        assert (found["unit"], found["total"]) == (expected["unit"], expected["total"]), key
        assert (found["start"], found["end"]) == (expected["start"], expected["end"]), key
        assert found["intervals"] + found["registers"] == expected["count"], key
        assert found["by_condition"].get("missing", 0) == expected["missing"], key
        seen.add((found["file"], key))
    assert seen == {(path, key) for path, part in files.items() for key in part.channels}
