"""Worlds for tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from connectors.kafka.mock import MockBroker
from schemas.topology.rights import Grant, RightsSettings
from tests.rights.kit import World


@pytest.fixture
def worlds(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Makes hubs over one broker."""
    made: list[World] = []
    with MockBroker() as broker:

        def make(mode: str = "enforced", provider: Any = None, **settings: Any) -> World:
            made.append(World(broker, tmp_path / str(len(made)), RightsSettings(mode=mode, **settings), provider))
            return made[-1]

        yield make
        for world in made:
            world.close()


@pytest.fixture
def world(worlds: Callable[..., World]) -> World:
    """One enforced hub with an administrator ``root`` and a clerk ``anna``."""
    found = worlds()
    found.user("root", Grant(role="admin"))
    found.user("anna", Grant(role="clerk"))
    return found
