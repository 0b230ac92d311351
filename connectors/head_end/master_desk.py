"""Master data from the gateway to its topic: each good line one record, keyed by device."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

from connectors.enterprise.master import parse_master
from connectors.head_end.documents import MasterAnswer, MasterLine
from connectors.head_end.publish import UnavailableError, Writer
from schemas.codec import Codec
from schemas.identity import identity

SHOWN_ERRORS: Final = 100


class KafkaMasterDesk:
    """Publishes master data. From the first document on, unknown devices are parked: every partition is told so first."""

    def __init__(self, writer: Writer, codec: Codec, topic: str, partitions: int, clock: Callable[[], int] = time.time_ns) -> None:
        self.writer, self.codec, self.topic, self.partitions = writer, codec, topic, partitions
        self._clock = clock

    def take(self, data: bytes) -> MasterAnswer:
        """Publishes the good lines and waits for Kafka; what is refused is named by line. Raises UnavailableError."""
        records, errors = parse_master(data)
        now = self._clock()
        document = identity("master", data, now)
        ids: list[str] = []
        futures: list[Future[tuple[int, int]]] = []
        if records:
            present = self.codec.encode("MasterPresent", {"at": now // 1_000_000_000})
            for partition in range(self.partitions):
                headers = {"id": identity(document, "present", partition).encode()}
                futures.append(self.writer.write(self.topic, present, headers=headers, partition=partition))
        for number, record in enumerate(records):
            ids.append(identity(document, number))
            value = self.codec.encode("MasterChannel", record)
            futures.append(self.writer.write(self.topic, value, key=record["device"].encode(), headers={"id": ids[-1].encode()}))
        deadline = time.monotonic() + self.writer.timeout + 5
        for future in futures:
            try:
                future.result(max(deadline - time.monotonic(), 0))
            except TimeoutError:
                raise UnavailableError("no acknowledgement in time") from None
        shown = [MasterLine(line=error.line, message=error.what) for error in errors[:SHOWN_ERRORS]]
        return MasterAnswer(accepted=len(records), refused=len(errors), ids=ids, errors=shown)
