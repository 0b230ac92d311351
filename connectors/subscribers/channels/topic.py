"""A Kafka topic of the subscriber's own: what it wants of the hub's records, as JSON or in Avro as the hub writes it."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import orjson

from connectors.head_end.publish import PublishError, TooLargeError, Writer
from connectors.subscribers.parcel import AwayError, Parcel, RefusedError, Sent
from schemas.codec import Codec
from schemas.topology.subscribers import KafkaTopic


class TopicChannel:
    """Writes the items of a parcel and waits for Kafka. Keys are those of the records, so that order per key stays."""

    kind = "kafka"

    def __init__(self, settings: KafkaTopic, writer: Writer, codec: Codec) -> None:
        assert settings.topic is not None
        self.place, self._json = settings.topic, settings.format == "json"
        self._writer, self._codec = writer, codec

    def send(self, parcel: Parcel) -> Sent:
        """Writes it."""
        waiting: list[Future[tuple[int, int]]] = []
        size = 0
        try:
            for key, value, headers in self._records(parcel):
                waiting.append(self._writer.write(self.place, value, key=key.encode(), headers=headers))
                size += len(value)
            for future in waiting:
                future.result(self._writer.timeout + 5)
        except TooLargeError as error:
            raise RefusedError(str(error)) from None
        except (PublishError, TimeoutError) as error:
            raise AwayError(str(error) or "Kafka did not answer in time") from None
        return Sent(self.place, size)

    def _records(self, parcel: Parcel) -> Any:
        common = {"type": parcel.object.encode(), "delivery": parcel.id.encode(), "subscriber": parcel.subscriber.encode()}
        if parcel.test:
            common["test"] = b"true"
        for unit in parcel.units:
            if self._json or (unit.block is None and not unit.raw):
                for item in unit.items:
                    yield unit.key, orjson.dumps(item), {**common, "id": item["id"].encode(), "content-type": b"application/json"}
            else:
                value = unit.raw if unit.block is None else self._codec.encode_block(unit.block)
                yield unit.key, value, {**common, "content-type": b"application/vnd.apache.avro"}

    def close(self) -> None:
        """Nothing: the writer is shared."""
