"""The two commands of a newcomer: what make offers, and what it says where it cannot go on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def make(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **({"PATH": path} if path else {})}
    command = [shutil.which("make") or "make", "-f", str(ROOT / "Makefile"), "-C", str(ROOT), "--no-print-directory", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture
def bare_path(tmp_path: Path) -> str:
    """A PATH with the usual small tools and no Python."""
    for tool in ("sh", "awk", "touch", "mkdir", "rm"):
        found = shutil.which(tool)
        assert found
        (tmp_path / tool).symlink_to(found)
    return str(tmp_path)


def test_help_lists_every_target_and_is_the_default() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^([a-z-]+):.*## ", text, re.M)
    assert {"help", "install", "demo", "test", "lint", "bench", "docs"} <= set(targets)
    shown = make("help").stdout
    assert [line.split()[0] for line in shown.splitlines()[1:]] == targets
    assert make().stdout == shown
    [phony] = re.findall(r"^\.PHONY: (.*)$", text, re.M)
    assert set(phony.split()) == set(targets)


def test_without_a_fitting_python_install_says_what_to_do(bare_path: str, tmp_path: Path) -> None:
    old = Path(bare_path) / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = make("install", f"VENV={tmp_path}/venv", path=bare_path)
    assert done.returncode != 0
    assert "no Python 3.11 or 3.12 found; install one, or name it: make install PYTHON=" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_a_step_that_fails_says_so_and_is_not_taken_for_done(bare_path: str, tmp_path: Path) -> None:
    python = Path(bare_path) / "python3.11"
    python.write_text('#!/bin/sh\ncase "$*" in *venv*) exit 1;; *--version*) echo Python 3.11.0;; esac\n')
    python.chmod(0o755)
    done = make("install", f"VENV={tmp_path}/venv", path=bare_path)
    assert done.returncode != 0
    assert "cannot make a virtual environment" in done.stderr
    assert not list(tmp_path.glob("venv/.stamp*"))


def test_requirements_are_pinned_with_checksums_and_name_no_host() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    entries = re.split(r"\n(?=[a-z0-9])", text.strip())
    assert len(entries) > 80
    assert all(re.match(r"[a-z0-9._-]+==\S+", entry) and "--hash=sha256:" in entry for entry in entries)


def test_the_lock_covers_what_the_project_asks_for() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    locked = set(re.findall(r"^([a-z0-9._-]+)==", (ROOT / "requirements.lock").read_text(), re.M))
    names = {re.split(r"[^A-Za-z0-9._-]", line)[0].lower().replace("_", "-") for line in wanted}
    assert names <= locked, f"run `make lock`: {sorted(names - locked)}"


def test_ci_runs_what_the_readme_says() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    text = script.read_text()
    assert "make test" in (ROOT / "README.md").read_text()
    assert text.rstrip().splitlines()[-1].startswith("exec make test")
