"""The one way raw reads enter the hub: unchanged bytes as a record on the raw topic, acknowledged by Kafka before anyone is told.

The gateway, the drop folder and the replay of dead letters all publish here, so every payload has an id, a source and the
same headers. Ids are identities of what was sent: a retry of the same thing has the same id, and ingest takes an id once.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import structlog
from confluent_kafka import KafkaError, KafkaException, Message

from connectors.kafka.client import KafkaSettings, producer
from schemas.identity import identity

MEGABYTE: Final = 1024 * 1024
EVENT_TYPE: Final = "org.meterdatahub.reads.received"
MAX_NAME: Final = 255
log = structlog.get_logger(__name__)


class PublishError(Exception):
    """A payload was not taken; nothing of it is promised."""


class UnavailableError(PublishError):
    """Kafka does not take records now, or the buffer in front of it is full: try again later."""


class TooLargeError(PublishError):
    """More bytes than one payload may have."""


class ConflictError(PublishError):
    """An idempotency key that was used before for other bytes."""


class RefusedError(PublishError):
    """A payload that can never be published as it is (empty, a source without a name)."""


class Writer:
    """Acknowledged writes to plain topics through one idempotent producer with a bounded buffer. Safe for many threads."""

    def __init__(self, settings: KafkaSettings, *, max_bytes: int, buffer_bytes: int = 128 * MEGABYTE, timeout: float = 30.0) -> None:
        self.timeout = timeout
        self._producer = producer(
            settings,
            linger_ms=5,
            message_max_bytes=max_bytes + MEGABYTE,
            message_timeout_ms=int(timeout * 1000),
            queue_buffering_max_kbytes=max(buffer_bytes // 1024, 1),
        )
        self._closed = threading.Event()
        self._poller = threading.Thread(target=self._poll, name="kafka-acks", daemon=True)
        self._poller.start()

    def write(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Mapping[str, bytes] | None = None,
        partition: int | None = None,
    ) -> Future[tuple[int, int]]:
        """Queues one record; the future ends with (partition, offset) once Kafka has it, or with UnavailableError."""
        done: Future[tuple[int, int]] = Future()

        def acknowledged(error: KafkaError | None, message: Message) -> None:
            if error is None:
                done.set_result((message.partition() or 0, message.offset() or 0))
            else:
                kind = TooLargeError if error.code() == KafkaError.MSG_SIZE_TOO_LARGE else UnavailableError
                done.set_exception(kind(error.str()))

        where: dict[str, Any] = {} if partition is None else {"partition": partition}
        try:
            self._producer.produce(topic, value=value, key=key, headers=dict(headers or {}), on_delivery=acknowledged, **where)
        except BufferError:
            raise UnavailableError("the buffer in front of Kafka is full") from None
        except KafkaException as error:
            reason = error.args[0]
            kind = TooLargeError if reason.code() == KafkaError.MSG_SIZE_TOO_LARGE else UnavailableError
            raise kind(reason.str()) from None
        return done

    def flush(self, seconds: float) -> int:
        """Waits for acknowledgements; how many records are still without one."""
        return int(self._producer.flush(seconds))

    def close(self, seconds: float = 10.0) -> None:
        """Gives what is queued ``seconds`` to be acknowledged, then stops."""
        left = self.flush(seconds)
        if left:
            log.warning("records without acknowledgement at shutdown", records=left)
        self._closed.set()
        self._poller.join(5)

    def _poll(self) -> None:
        while not self._closed.is_set():
            self._producer.poll(0.1)


def wait_for(futures: Iterable[Future[tuple[int, int]]], seconds: float) -> None:
    """Waits until Kafka has all records. Raises UnavailableError."""
    deadline = time.monotonic() + seconds
    for future in futures:
        try:
            future.result(max(deadline - time.monotonic(), 0))
        except TimeoutError:
            raise UnavailableError("no acknowledgement in time") from None


class KeyLog:
    """Which body each idempotency key stood for, in SQLite: the last ``keep`` keys survive restarts.

    One gateway sees all its keys. Several gateways do not see each other's, and do not have to: the payload id comes
    from the key, and ingest takes an id once, so a key used twice has one effect whatever happens here.
    """

    def __init__(self, path: Path | None, keep: int = 1_000_000) -> None:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self.keep = keep
        self._lock = threading.Lock()
        self._since_prune = 0
        self._database = sqlite3.connect(str(path or ":memory:"), check_same_thread=False, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS keys (number INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, body TEXT NOT NULL, "
            "acknowledged INTEGER NOT NULL DEFAULT 0)"
        )

    def claim(self, payload: str, body: str) -> bool:
        """Notes that this id stands for this body; True if Kafka already has it.

        Raises ConflictError for another body, UnavailableError where the file cannot be written (a full disk).
        """
        try:
            with self._lock:
                known, acknowledged = self._claim(payload, body)
        except sqlite3.Error as error:
            raise UnavailableError(f"keys cannot be kept: {error}") from None
        if known != body:
            raise ConflictError("this Idempotency-Key was used before for a different body")
        return acknowledged

    def _claim(self, payload: str, body: str) -> tuple[str, bool]:
        self._database.execute("INSERT OR IGNORE INTO keys (id, body) VALUES (?, ?)", (payload, body))
        row = self._database.execute("SELECT body, acknowledged FROM keys WHERE id = ?", (payload,)).fetchone()
        self._since_prune += 1
        if self._since_prune >= min(1000, self.keep):
            self._since_prune = 0
            self._database.execute("DELETE FROM keys WHERE number <= (SELECT max(number) FROM keys) - ?", (self.keep,))
        return str(row[0]), bool(row[1])

    def acknowledge(self, payload: str) -> None:
        """Notes that Kafka has the payload."""
        with self._lock:
            self._database.execute("UPDATE keys SET acknowledged = 1 WHERE id = ?", (payload,))

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._database.close()


class Publisher:
    """Raw payloads onto the raw topic. The key, the source, decides the partition: one source stays in order whoever writes."""

    def __init__(
        self,
        writer: Writer,
        topic: str,
        *,
        max_payload_bytes: int,
        keys: KeyLog | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.writer, self.topic, self.max_payload_bytes = writer, topic, max_payload_bytes
        self._keys = keys or KeyLog(None)
        self._clock = clock

    def submit(
        self,
        data: bytes,
        *,
        source: str,
        name: str = "",
        format: str | None = None,
        zone: str | None = None,
        idempotency_key: str | None = None,
        payload_id: str | None = None,
        extra: Mapping[str, bytes] | None = None,
    ) -> tuple[str, Future[tuple[int, int]] | None]:
        """The payload id and the future of Kafka's acknowledgement (None: Kafka has had it since an earlier request).

        Raises RefusedError, TooLargeError, ConflictError or UnavailableError, each before anything is written.
        """
        if not data:
            raise RefusedError("an empty payload")
        if len(data) > self.max_payload_bytes:
            raise TooLargeError(f"{len(data)} bytes are more than the {self.max_payload_bytes} one payload may have")
        check_label("source", source, required=True)
        check_label("name", name)
        now = self._clock()
        if payload_id is None:
            payload_id = self._id(data, source, idempotency_key, now)
        if idempotency_key is not None and self._keys.claim(payload_id, identity(data, name, format or "", zone or "")):
            return payload_id, None
        headers = {**envelope(payload_id, source, name, format, zone, now), **(extra or {})}
        future = self.writer.write(self.topic, data, key=source.encode(), headers=headers)
        if idempotency_key is not None:
            claimed = payload_id
            future.add_done_callback(lambda done: None if done.exception() else self._keys.acknowledge(claimed))
        return payload_id, future

    def publish(self, data: bytes, *, source: str, **options: Any) -> str:
        """``submit``, then waits for Kafka; the payload id. Raises UnavailableError when Kafka does not answer in time."""
        payload_id, future = self.submit(data, source=source, **options)
        if future is not None:
            try:
                future.result(self.writer.timeout + 5)
            except TimeoutError:
                raise UnavailableError("Kafka did not answer in time") from None
        return payload_id

    @staticmethod
    def _id(data: bytes, source: str, idempotency_key: str | None, now: int) -> str:
        if idempotency_key is not None:
            check_label("Idempotency-Key", idempotency_key, required=True)
            return identity("key", source, idempotency_key)
        return identity("post", source, identity(data), now)


def file_id(source: str, name: str, data: bytes) -> str:
    """The id of a file's payload: the same file dropped again under the same name is the same payload."""
    return identity("file", source, name, identity(data))


def envelope(payload_id: str, source: str, name: str, format: str | None, zone: str | None, now: int) -> dict[str, bytes]:
    """The headers of a raw record: ours, and CloudEvents in binary mode. ``now`` in nanoseconds since 1970."""
    at = datetime.fromtimestamp(now // 1_000_000_000, UTC)
    headers = {
        "id": payload_id,
        "source": source,
        "name": name,
        "format": format or "",
        "zone": zone or "",
        "received_at": str(now // 1_000_000_000),
        "ce_specversion": "1.0",
        "ce_id": payload_id,
        "ce_source": quote(source, safe="/:@"),
        "ce_type": EVENT_TYPE,
        "ce_time": at.isoformat().replace("+00:00", "Z"),
        "content-type": "application/octet-stream",
    }
    return {key: value.encode() for key, value in headers.items() if value}


def check_label(what: str, text: str, *, required: bool = False) -> None:
    """Raises RefusedError unless the text can stand in a header, a log line and a table: printable and short."""
    if required and not text.strip():
        raise RefusedError(f"{what} is empty")
    if len(text) > MAX_NAME:
        raise RefusedError(f"{what} is longer than {MAX_NAME} characters")
    if not text.isprintable():
        raise RefusedError(f"{what} holds characters that cannot be printed")
