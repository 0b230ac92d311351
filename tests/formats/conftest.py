"""Compiled readers are made ready once, before any test is timed."""

from __future__ import annotations

import pytest

from connectors.head_end.formats import warm


@pytest.fixture(scope="session", autouse=True)
def _compiled() -> None:
    warm()
