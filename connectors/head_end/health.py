"""Whether reads can flow through this hub, with reasons where they cannot."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from confluent_kafka import KafkaException

from connectors.kafka.client import KafkaSettings, administrator
from schemas import metrics


class Readiness:
    """Checks broker, topics, threads and the age of the last settled tick; an answer is kept for ``keep`` seconds.

    A tick is settled when everything it caused is in the store. Ticks pass every partition of the whole chain, so a recent
    one proves the chain and the store.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        topics: Sequence[str],
        parts: Callable[[], list[str]],
        settled_tick: Callable[[], int | None],
        *,
        oldest_tick: int,
        keep: float = 1.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._admin = administrator(settings)
        self._brokers, self._topics, self._parts, self._settled_tick = settings.bootstrap, topics, parts, settled_tick
        self._oldest_tick, self._keep, self._now = oldest_tick, keep, now
        self._lock = threading.Lock()
        self._answer: list[str] = ["the hub is starting"]
        self._asked = 0.0

    def reasons(self) -> list[str]:
        """Why reads cannot flow, one sentence each; empty: they can."""
        with self._lock:
            if time.monotonic() - self._asked > self._keep:
                self._answer = self._check()
                self._asked = time.monotonic()
                metrics.READY.labels("hub").set(0 if self._answer else 1)
            return self._answer

    def _check(self) -> list[str]:
        reasons = list(self._parts())
        try:
            there = self._admin.list_topics(timeout=3).topics
        except KafkaException:
            return [*reasons, f"the broker at {self._brokers} does not answer"]
        missing = [topic for topic in self._topics if topic not in there]
        if missing:
            shown = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
            return [*reasons, f"topics are missing ({shown}): run `mdh topology apply`"]
        try:
            tick = self._settled_tick()
        except Exception as error:  # whatever the store fails with, it is not ready
            return [*reasons, f"the store does not answer ({error})"]
        if tick is None:
            reasons.append("no tick has come through the chain yet: workers are starting, or none runs")
        elif self._now() - tick > self._oldest_tick:
            reasons.append(f"the last tick that came through the chain is {int(self._now() - tick)} s old: workers are behind or gone")
        return reasons
