"""The wheel carries what the code reads at run time, and nothing else of the repository."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAYERS = ("schemas", "streams", "connectors", "mdh")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "--no-build-isolation", "--no-index", "-q", "-w", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [path] = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_every_file_of_the_packages_is_in_it(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    tracked = subprocess.run(["git", "ls-files", "-z", *LAYERS], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.skip("not a git checkout: what belongs to the packages is not known")
    wanted = {name for name in tracked.stdout.split("\0") if name and (ROOT / name).exists()}
    assert wanted <= names, sorted(wanted - names)


def test_it_has_what_is_read_at_run_time(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert "mdh/topology.yaml" in names
    assert "connectors/embedded/kafka.lock.json" in names
    assert "connectors/embedded/log4j2.properties" in names
    assert "schemas/ids.json" in names
    assert any(name.startswith("schemas/avro/") and name.endswith(".avsc") for name in names)
    assert any(name.startswith("connectors/clickhouse/migrations/") and name.endswith(".sql") for name in names)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert "mdh = mdh.cli:main" in wheel.read(next(n for n in names if n.endswith("entry_points.txt"))).decode()


def test_it_has_nothing_else(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(LAYERS)
    assert not [name for name in wheel.namelist() if "__pycache__" in name or name.endswith(".pyc")]


def test_the_topology_in_it_is_the_one_of_the_repository(wheel: zipfile.ZipFile) -> None:
    assert wheel.read("mdh/topology.yaml") == (ROOT / "topology.yaml").read_bytes()
