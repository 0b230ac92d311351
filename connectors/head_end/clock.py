"""The tick clock: time enters the hub as records, so that no agent ever reads a clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

import structlog

from connectors.head_end.publish import PublishError, Writer
from schemas import metrics
from schemas.codec import Codec

log = structlog.get_logger(__name__)


def tick_id(at: int, partition: int) -> str:
    """The payload id of a tick: receipts for it tell when everything before it is stored."""
    return f"tick/{at}/{partition}"


class TickClock:
    """Writes one tick per partition of the tick topic at every whole multiple of ``every`` seconds.

    Time never goes back: after the machine's clock was set back, ticks pause until it has passed the last one. Ticks do
    not pile up while Kafka is away: the next one is written when the last one is there.
    """

    def __init__(
        self,
        writer: Writer,
        codec: Codec,
        topic: str,
        partitions: int,
        every: int,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.writer, self.codec, self.topic, self.partitions, self.every = writer, codec, topic, partitions, every
        self.last = 0
        self._now = now
        self._pending: list[Future[tuple[int, int]]] = []

    def run(self, stop: threading.Event) -> None:
        """Ticks until ``stop`` is set."""
        while not stop.is_set():
            self.due()
            wait = self.every - self._now() % self.every
            stop.wait(min(max(wait, 0.01), self.every))

    def due(self) -> int | None:
        """Writes the tick of the current time unless it is there already; its time, or None."""
        at = int(self._now()) // self.every * self.every
        if at <= self.last:
            if at < self.last - self.every:
                log.warning("the clock of this machine went back", last_tick=self.last, now=at)
            return None
        if any(not future.done() for future in self._pending):
            return None
        failed = [future for future in self._pending if future.exception() is not None]
        if failed:
            log.warning("a tick did not reach Kafka", error=str(failed[0].exception()))
        self._pending = []
        value = self.codec.encode("Tick", {"at": at, "close": False})
        try:
            for partition in range(self.partitions):
                headers = {"id": tick_id(at, partition).encode()}
                self._pending.append(self.writer.write(self.topic, value, key=None, headers=headers, partition=partition))
        except PublishError as error:
            log.warning("a tick could not be written", error=str(error))
        else:
            metrics.TICKS.inc()
        self.last = at
        return at
