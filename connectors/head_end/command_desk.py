"""Commands from the gateway to their topic: one record each, keyed by device."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from datetime import datetime
from typing import Any, Final

from connectors.head_end.documents import CommandRequest
from connectors.head_end.publish import RefusedError, Writer, check_label
from schemas import quantity
from schemas.codec import Codec
from schemas.identity import identity
from streams.calendar import LAST_DAY
from streams.vee.orders import flaw

_LATEST: Final = LAST_DAY * 86_400


class KafkaCommandDesk:
    """Publishes commands. The id is that of the idempotency key where one is given: sent again, it is the same command."""

    def __init__(self, writer: Writer, codec: Codec, topic: str, clock: Callable[[], int] = time.time_ns) -> None:
        self.writer, self.codec, self.topic = writer, codec, topic
        self._clock = clock

    def submit(self, asked: CommandRequest, idempotency_key: str | None = None) -> tuple[str, Future[tuple[int, int]]]:
        """The id of the command and the future of Kafka's acknowledgement. Raises RefusedError or UnavailableError."""
        if idempotency_key is not None:
            check_label("Idempotency-Key", idempotency_key, required=True)
            id_ = identity("command", "key", idempotency_key)
        else:
            id_ = identity("command", asked.model_dump_json(), self._clock())
        record = self.record(asked, id_)
        value = self.codec.encode("Command", record)
        return id_, self.writer.write(self.topic, value, key=asked.device.encode(), headers={"id": id_.encode()})

    @staticmethod
    def record(asked: CommandRequest, id_: str) -> dict[str, Any]:
        """The record of a request. Raises RefusedError where it cannot be one."""
        for name in ("device", "channel", "user"):
            check_label(name, getattr(asked, name), required=True)
        check_label("reason", asked.reason)
        try:
            values = [None if value is None else quantity.parse(str(value)) for value in asked.values]
            reading = None if asked.reading is None else quantity.parse(str(asked.reading))
        except ValueError as error:
            raise RefusedError(str(error)) from None
        start = second_of("start", asked.start)
        record = {
            "id": id_, "action": asked.action, "device": asked.device, "channel": asked.channel, "start": start,
            "end": second_of("end", asked.end) if asked.end is not None else start + 1, "seconds": asked.seconds, "values": values,
            "reading": reading, "method": asked.method, "reason": asked.reason, "user": asked.user,
            "expected_version": asked.expected_version, "dry_run": asked.dry_run, "bulk": "", "approved_by": "",
        }  # fmt: skip
        wrong = flaw(record)
        if wrong:
            raise RefusedError(wrong)
        return record


def second_of(name: str, at: datetime) -> int:
    """A time as UTC second. Raises RefusedError for one without offset, or outside 1970 to 2100."""
    if at.tzinfo is None:
        raise RefusedError(f"{name}: a time needs an offset, such as 2026-03-29T00:00:00Z")
    if at.microsecond or not 0 <= at.timestamp() < _LATEST:
        raise RefusedError(f"{name}: must be a whole second between 1970 and 2100")
    return int(at.timestamp())
