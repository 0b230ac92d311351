"""What became of each delivery, onto its topic; the sink brings it into the store."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final

from connectors.head_end.publish import UnavailableError, Writer
from connectors.subscribers.parcel import Parcel
from schemas import metrics
from schemas.codec import Codec

TOPIC: Final = "hub.deliveries"
PENDING, SENT, RETRYING, FAILED, DEAD, SKIPPED = "pending", "sent", "retrying", "failed", "dead", "skipped"
OVERTAKEN: Final = "overtaken"  # what came later made it untrue before it could be told


class Journal:
    """Writes Delivery records of one subscriber. Safe for its threads."""

    def __init__(self, writer: Writer, codec: Codec, channel: str, *, topic: str = TOPIC, clock: Callable[[], float] = time.time) -> None:
        self._writer, self._codec, self._channel, self._topic, self._clock = writer, codec, channel, topic, clock

    def note(
        self, parcel: Parcel, status: str, *, attempt: int, since: float, place: str = "", size: int = 0, code: int = 0, reason: str = "",
        wait: float = 0.0, count: int | None = None,
    ) -> Future[tuple[int, int]] | None:  # fmt: skip
        """Tells it; the future of Kafka's acknowledgement, None where Kafka takes nothing now.

        ``since`` is UTC seconds; ``count`` is of what the parcel holds, where that is no items.
        """
        now, held = self._clock(), len(parcel.items) if count is None else count
        record: dict[str, Any] = {
            "id": parcel.id, "subscriber": parcel.subscriber, "object": parcel.object, "status": status,
            "version": round(now * 1_000_000) , "at": round(now * 1000), "since": round(since * 1000), "attempt": attempt,
            "next_at": round((now + wait) * 1000) if wait else 0, "channel": self._channel, "place": place[:500], "topic": parcel.topic,
            "partition": parcel.partition, "first": parcel.first, "last": parcel.last, "key": parcel.key, "records": held,
            "bytes": size, "code": code, "reason": reason[:1000], "replay": parcel.epoch,
        }  # fmt: skip
        metrics.DELIVERIES.labels(parcel.subscriber, status).inc()
        if status == SENT:
            metrics.DELIVERED_ITEMS.labels(parcel.subscriber, parcel.object).inc(held)
        try:
            return self._writer.write(self._topic, self._codec.encode("Delivery", record), key=parcel.subscriber.encode())
        except UnavailableError:
            return None
