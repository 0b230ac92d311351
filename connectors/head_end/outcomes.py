"""Requests that an agent decides: handed to Kafka, answered when what became of them is in the store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from connectors.head_end.problems import ProblemError
from connectors.head_end.publish import PublishError, RefusedError, Writer
from schemas.codec import Codec

T = TypeVar("T")
Record = tuple[str, str, dict[str, Any], str, str]
"""Topic, record type, fields, key, and id of a record."""
_FIRST, _MOST = 0.05, 0.5  # seconds between two looks


def send(writer: Writer, codec: Codec, records: Iterable[Record]) -> None:
    """Writes records and waits until Kafka has all of them. Raises Problem 413, 503."""
    try:
        sent = [
            writer.write(topic, codec.encode(kind, body), key=key.encode(), headers={"id": id.encode()})
            for topic, kind, body, key, id in records
        ]
        for future in sent:
            future.result(writer.timeout + 5)
    except RefusedError as error:
        raise ProblemError(413, "too-large", str(error)) from error
    except (PublishError, TimeoutError) as error:
        detail = "Kafka does not take requests now; what was asked may be asked again."
        raise ProblemError(503, "kafka-away", detail, headers={"Retry-After": "5"}) from error


def awaited(ask: Callable[[], T | None], patience: float) -> T | None:
    """The first answer of ``ask`` that is not None; None where there was none within ``patience`` seconds."""
    deadline, pause = time.monotonic() + patience, _FIRST
    while True:
        found = ask()
        if found is not None or time.monotonic() > deadline:
            return found
        time.sleep(pause)
        pause = min(pause * 1.5, _MOST)
