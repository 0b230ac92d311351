"""From the doors of CIS to Kafka: items in records of bounded size, acknowledged before the sender is told anything."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final

import orjson

from connectors.head_end.publish import UnavailableError, Writer
from schemas.codec import Codec
from schemas.identity import identity

REQUESTS: Final = "enterprise.requests"
REPLIES: Final = "device.replies"
PARTITION: Final = 0
ITEMS: Final = 500  # of one record at most
BYTES: Final = 512 * 1024  # of bodies of one record, about
IN_FLIGHT: Final = 32  # records without acknowledgement


class Intake:
    """Publishes what CIS and head ends say."""

    def __init__(self, writer: Writer, codec: Codec, clock: Callable[[], float] = time.time) -> None:
        self.writer, self.codec, self.clock = writer, codec, clock

    def request(self, system: str, protocol: str, kind: str, message: str, *, bulk: bool) -> Request:
        """A message whose items are added one by one and written in pieces; :meth:`Request.close` waits for Kafka."""
        return Request(self, {"system": system, "protocol": protocol, "kind": kind, "message": message, "bulk": bulk})

    def reply(self, body: dict[str, Any]) -> None:
        """What became of a device command. Raises UnavailableError."""
        key = body["device"].encode()
        headers = {"id": identity("reply", body["command"], body["status"], body["at"]).encode()}
        self.await_(self.writer.write(REPLIES, self.codec.encode("DeviceReply", body), key=key, headers=headers))

    def await_(self, future: Future[Any]) -> None:
        """Waits for Kafka. Raises UnavailableError when it does not answer in time."""
        try:
            future.result(self.writer.timeout + 5)
        except TimeoutError:
            raise UnavailableError("Kafka did not answer in time") from None


class Request:
    """One message being taken."""

    def __init__(self, intake: Intake, head: dict[str, Any]) -> None:
        self.intake, self.head = intake, head
        self.received_at = int(intake.clock())
        self.taken = 0
        self._items: list[dict[str, Any]] = []
        self._size = 0
        self._pieces = 0
        self._waiting: deque[Future[Any]] = deque()

    def add(self, id: str, body: Any, category: str = "", note: str = "") -> None:
        """One item: valid, or refused with category and reason."""
        text = orjson.dumps(body, option=orjson.OPT_SORT_KEYS).decode() if body is not None else ""
        self._items.append({"id": id, "body": text, "category": category, "note": note[:1000]})
        self._size += len(text)
        self.taken += 1
        if len(self._items) >= ITEMS or self._size >= BYTES:
            self._write()

    def _write(self) -> None:
        record = {**self.head, "received_at": self.received_at, "items": self._items}
        value = self.intake.codec.encode("EnterpriseRequest", record)
        # the moment is part of the id: a message that is sent again is answered again, by its items' ids
        id_ = identity("request", self.head["system"], self.head["message"], self.received_at, time.monotonic_ns(), self._pieces)
        headers = {"id": id_.encode()}
        self._waiting.append(self.intake.writer.write(REQUESTS, value, key=b"", headers=headers, partition=PARTITION))
        self._items, self._size, self._pieces = [], 0, self._pieces + 1
        while len(self._waiting) > IN_FLIGHT:
            self.intake.await_(self._waiting.popleft())

    def close(self) -> None:
        """Writes what is left and waits until Kafka has all of it. Raises UnavailableError."""
        if self._items:
            self._write()
        while self._waiting:
            self.intake.await_(self._waiting.popleft())
