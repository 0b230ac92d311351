"""What the simulators need of a hub: its doors, and patience."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


class SimulationError(Exception):
    """The hub did not do what the conversation needs."""


@dataclass
class Hub:
    """A hub's doors. ``client`` is an HTTP client bound to it (``httpx.Client`` with a base URL, or FastAPI's test client); ``idle`` is
    called while waiting; ``patience`` is in seconds."""

    client: Any
    idle: Callable[[], None] = lambda: time.sleep(0.3)
    patience: float = 60.0
    say: Callable[[str], None] = lambda _: None

    def wait(self, what: str, check: Callable[[], Any]) -> Any:
        """The first true answer. Raises SimulationError when patience ends."""
        deadline = time.monotonic() + self.patience
        while True:
            if answer := check():
                return answer
            if time.monotonic() > deadline:
                raise SimulationError(f"{what}: nothing came in {self.patience:.0f} seconds")
            self.idle()

    def post(self, path: str, expect: int, **options: Any) -> Any:
        """A POST that must be answered as expected."""
        answer = self.client.post(path, **options)
        if answer.status_code != expect:
            raise SimulationError(f"POST {path} was answered with {answer.status_code}: {answer.text[:500]}")
        return answer

    def get(self, path: str, **options: Any) -> Any:
        """A GET that must succeed."""
        answer = self.client.get(path, **options)
        if answer.status_code != 200:
            raise SimulationError(f"GET {path} was answered with {answer.status_code}: {answer.text[:500]}")
        return answer

    def reads(self, document: Mapping[str, Any], source: str) -> None:
        """Reads as a head end sends them."""
        self.post(f"/v1/reads?source={source}", 202, json=document)
