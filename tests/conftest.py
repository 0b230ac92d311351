"""Fixtures all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from schemas.packing import pack

pack(np.zeros(1, np.int64))  # loads the compiled code before the time of any example is taken

pytest_plugins = ["tests.brokers"]

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real sample files; tests that need it are marked ``shared_data``."""
    folder = Path(os.environ.get("MDH_SHARED_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"sample files are not here ({folder}); set MDH_SHARED_DATA")
    return folder
