"""A circuit breaker with exponential pauses: a receiver that does not answer is left alone, then probed by one delivery."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from random import Random
from typing import Final

from schemas.topology.subscribers import Retry

OPENS_AFTER: Final = 3  # failures in a row


def pause(retry: Retry, failures: int, chance: Callable[[], float]) -> float:
    """Seconds before the next attempt after so many failures: doubling from ``first`` up to ``most``, the upper half of it by chance."""
    whole = min(retry.most, retry.first * 2.0 ** min(failures - 1, 40))
    return whole * (0.5 + 0.5 * chance())


class Circuit:
    """Whether a receiver may be called. Safe for the threads of one subscriber."""

    def __init__(self, retry: Retry, clock: Callable[[], float] = time.monotonic, chance: Callable[[], float] | None = None) -> None:
        self.retry, self._clock = retry, clock
        self._chance = chance or Random().random
        self._lock = threading.Lock()
        self._failures = 0
        self._opens_at = 0.0  # when the next probe may go
        self._probing = False
        self.failing_since: float | None = None
        self.last_error = ""

    @property
    def state(self) -> str:
        """``closed`` (calls go), ``open`` (none go) or ``half-open`` (one goes)."""
        with self._lock:
            return self._state()

    def _state(self) -> str:
        if self._failures < OPENS_AFTER:
            return "closed"
        return "half-open" if self._probing or self._clock() >= self._opens_at else "open"

    def admit(self) -> float:
        """0 where a call may go now (and must be followed by ``succeeded`` or ``failed``), else seconds to wait before asking again."""
        with self._lock:
            state = self._state()
            if state == "closed":
                return 0.0
            if state == "half-open" and not self._probing:
                self._probing = True
                return 0.0
            return max(0.05, min(self._opens_at - self._clock(), 1.0))

    def succeeded(self) -> None:
        """The receiver answered."""
        with self._lock:
            self._failures, self._probing, self.failing_since, self.last_error = 0, False, None, ""

    def failed(self, reason: str) -> float:
        """The receiver did not: seconds until the next attempt."""
        with self._lock:
            self._failures += 1
            self._probing = False
            self.last_error = reason
            now = self._clock()
            if self.failing_since is None:
                self.failing_since = now
            wait = pause(self.retry, self._failures, self._chance)
            self._opens_at = now + wait
            return wait

    @property
    def exhausted(self) -> bool:
        """Whether the receiver has failed without a break for longer than the patience."""
        with self._lock:
            return self.failing_since is not None and self._clock() - self.failing_since > self.retry.patience
