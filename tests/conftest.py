"""Fixtures all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# The same examples every time and no limits of time: a run says something of the code, not of luck or of the machine.
# MDH_TEST_EXAMPLES (`make test-long`) looks for new ones, so many times as many.
TIMES = int(os.environ.get("MDH_TEST_EXAMPLES", "1"))
settings.register_profile("here", derandomize=TIMES == 1, deadline=None, database=None, print_blob=True)
settings.load_profile("here")
_SLOW = {HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example}

pytest_plugins = ["tests.brokers", "tests.patience"]

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A slow machine is no finding, whatever a test says of its examples; and their number is as often theirs as asked for."""
    for test in {getattr(item, "obj", None) for item in items}:
        if own := getattr(test, "_hypothesis_internal_use_settings", None):
            calm = settings(own, max_examples=own.max_examples * TIMES, suppress_health_check={*own.suppress_health_check, *_SLOW})
            test._hypothesis_internal_use_settings = calm  # type: ignore[union-attr]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real sample files; tests that need it are marked ``shared_data``."""
    folder = Path(os.environ.get("MDH_SHARED_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"sample files are not here ({folder}); set MDH_SHARED_DATA")
    return folder
