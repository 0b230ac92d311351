"""Bounds on attempts: so many a minute per key, and locks with back-off. Kept in memory, per process."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from schemas.topology.rights import LoginSettings

KEYS = 50_000


class Rate:
    """At most ``per_minute`` a minute per key, as a bucket that fills steadily."""

    def __init__(self, per_minute: int, clock: Callable[[], float]) -> None:
        self.per_minute, self._clock = per_minute, clock
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # key → tokens, as of when

    def take(self, key: str) -> float:
        """0 where one more is allowed now; else in how many seconds it will be."""
        now, speed = self._clock(), self.per_minute / 60
        with self._lock:
            tokens, since = self._buckets.pop(key, (float(self.per_minute), now))
            tokens = min(self.per_minute, tokens + (now - since) * speed)
            allowed = tokens >= 1
            self._buckets[key] = (tokens - 1 if allowed else tokens, now)
            while len(self._buckets) > KEYS:
                self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - tokens) / speed


class Locks:
    """Locks a key after some failures in a row, longer with each further one."""

    def __init__(self, settings: LoginSettings, clock: Callable[[], float]) -> None:
        self.settings, self._clock = settings, clock
        self._lock = threading.Lock()
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()  # key → failures, locked until

    def locked(self, key: str) -> float:
        """For how many seconds the key is still locked; 0: it is not."""
        with self._lock:
            return max(self._failures.get(key, (0, 0.0))[1] - self._clock(), 0.0)

    def failed(self, key: str) -> None:
        """Notes a failure."""
        with self._lock:
            count = self._failures.pop(key, (0, 0.0))[0] + 1
            over = count - self.settings.lock_after
            pause = min(self.settings.lock_first * 2 ** min(over, 20), self.settings.lock_most) if over >= 0 else 0
            self._failures[key] = (count, self._clock() + pause)
            while len(self._failures) > KEYS:
                self._failures.popitem(last=False)

    def succeeded(self, key: str) -> None:
        """Forgets failures."""
        with self._lock:
            self._failures.pop(key, None)
