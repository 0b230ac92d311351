"""Master data from the gateway to their topic: channels given whole as one record each, objects as submissions."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict
from typing import Final

from connectors.enterprise.objects import Document
from connectors.enterprise.service import MasterService
from connectors.head_end.documents import MasterAnswer, MasterItem, MasterLine
from connectors.head_end.publish import Writer, wait_for
from schemas.codec import Codec
from schemas.identity import identity

SHOWN_ERRORS: Final = 100
PATIENCE: Final = 30.0  # seconds to wait for what becomes of objects


class KafkaMasterDesk:
    """Publishes master data. From the first document on, unknown devices are parked: every partition is told so first."""

    def __init__(
        self, writer: Writer, codec: Codec, topic: str, partitions: int, objects: MasterService | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:  # fmt: skip
        self.writer, self.codec, self.topic, self.partitions, self.objects = writer, codec, topic, partitions, objects
        self._clock = clock

    def take(self, data: bytes) -> MasterAnswer:
        """Publishes the good lines and waits for Kafka; what is refused is named by line. Raises UnavailableError."""
        document = Document.read(data)
        if document.objects and self.objects is None:
            document.errors += [(line, "this door takes channels only") for line, _ in document.objects]
            document.objects.clear()
        id = identity("master", data, self._clock())
        ids = self._channels(document, id)
        items = self._objects(document, id)
        document.errors += [(item.line, item.reason) for item in items if item.outcome == "refused"]
        shown = [MasterLine(line=line, message=what) for line, what in sorted(document.errors)[:SHOWN_ERRORS]]
        accepted = len(ids) + sum(item.outcome != "refused" for item in items)
        return MasterAnswer(accepted=accepted, refused=len(document.errors), ids=ids, errors=shown, items=items)

    def _objects(self, document: Document, id: str) -> list[MasterItem]:
        if self.objects is None or not document.objects:
            return []
        outcomes = self.objects.submit([line for _, line in document.objects], id, source="document", wait=PATIENCE)
        numbers = (line for line, _ in document.objects)
        return [MasterItem(line=line, **asdict(one)) for line, one in zip(numbers, outcomes, strict=True)]

    def _channels(self, document: Document, id: str) -> list[str]:
        ids: list[str] = []
        futures: list[Future[tuple[int, int]]] = []
        if document.channels:
            present = self.codec.encode("MasterPresent", {"at": self._clock() // 1_000_000_000})
            for partition in range(self.partitions):
                headers = {"id": identity(id, "present", partition).encode()}
                futures.append(self.writer.write(self.topic, present, headers=headers, partition=partition))
        for number, (_, record) in enumerate(document.channels):
            ids.append(identity(id, number))
            value = self.codec.encode("MasterChannel", record)
            futures.append(self.writer.write(self.topic, value, key=record["device"].encode(), headers={"id": ids[-1].encode()}))
        wait_for(futures, self.writer.timeout + 5)
        return ids
