"""Pytest plugin: waiting for what processes and threads do, and their last words where a test failed.

A limit of time here is only there so that a hang ends: it is never what a test is about, and a slow machine must not reach it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 300.0  # seconds
_RECENT, _FILES, _CHARACTERS = 900, 12, 3000


def eventually(
    check: Callable[[], Any], seconds: float = PATIENCE, *, meanwhile: Callable[[], object] | None = None, pause: float = 0.05
) -> Any:
    """The first true answer of ``check``; ``meanwhile`` is called between two looks and may raise."""
    deadline = time.monotonic() + seconds
    while True:
        if answer := check():
            return answer
        assert time.monotonic() < deadline, "did not happen in time"
        if meanwhile is not None:
            meanwhile()
        time.sleep(pause)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Puts the ends of the logs that processes wrote lately into the report of a test that failed: their folders go with the machine."""
    report = yield
    if report.failed:
        factory: pytest.TempPathFactory = item.config._tmp_path_factory  # type: ignore[attr-defined]
        report.sections += [(f"end of {path.name}", text) for path, text in _last_words(factory.getbasetemp())]
    return report


def _last_words(folder: Path) -> Iterator[tuple[Path, str]]:
    found = (path for path in folder.rglob("*.log") if path.is_file() and not path.stem.isdigit())  # Kafka numbers its own files
    recent = sorted((path for path in found if path.stat().st_mtime > time.time() - _RECENT), key=lambda path: path.stat().st_mtime)
    for path in recent[-_FILES:]:
        yield path, path.read_text(errors="replace")[-_CHARACTERS:]
