"""The one place that makes Kafka producers, consumers and administrators (librdkafka), so that all agree on what matters.

What matters: keys land where Faust and Java put them (murmur2), nothing is lost or doubled by a retry, nobody reads what a
transaction has not committed, and offsets are committed by whoever did the work.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient

from connectors.kafka.settings import KafkaSecurity, KafkaSettings

__all__ = ["KafkaSecurity", "KafkaSettings", "administrator", "consumer", "consumer_config", "producer", "producer_config"]

LARGEST: Final = 64 * 1024 * 1024  # of one record; what a topic takes is its max.message.bytes
TRANSACTION_SECONDS: Final = 30
_log = logging.getLogger("kafka")


def producer_config(settings: KafkaSettings, transactional_id: str | None = None, **extra: Any) -> dict[str, Any]:
    """Settings of every producer. Underscores in ``extra`` stand for points: ``linger_ms=0``."""
    config = {
        **settings.librdkafka(),
        "partitioner": "murmur2_random",
        "enable.idempotence": True,
        "acks": "all",
        "compression.type": "zstd",
        "linger.ms": 20,
        "message.max.bytes": LARGEST,
        "queue.buffering.max.kbytes": 256 * 1024,
    }
    if transactional_id:
        config |= {"transactional.id": transactional_id, "transaction.timeout.ms": TRANSACTION_SECONDS * 1000}
    return config | _spelled(extra)


def consumer_config(settings: KafkaSettings, group: str, **extra: Any) -> dict[str, Any]:
    """Settings of every consumer: committed records only, from the beginning, no commits behind our back."""
    config = {
        **settings.librdkafka(),
        "group.id": group,
        "isolation.level": "read_committed",
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "fetch.message.max.bytes": 8 * 1024 * 1024,
        "receive.message.max.bytes": 2 * LARGEST,
        "queued.max.messages.kbytes": 64 * 1024,
        "session.timeout.ms": 20_000,
        "heartbeat.interval.ms": 4_000,
    }
    return config | _spelled(extra)


def producer(settings: KafkaSettings, transactional_id: str | None = None, **extra: Any) -> Producer:
    """A producer; with ``transactional_id`` call ``init_transactions`` first. Its log goes to the logger ``kafka``."""
    return Producer(producer_config(settings, transactional_id, **extra), logger=_log)


def consumer(settings: KafkaSettings, group: str, **extra: Any) -> Consumer:
    """A consumer; subscribe or assign it, commit by hand after the work is done."""
    return Consumer(consumer_config(settings, group, **extra), logger=_log)


def administrator(settings: KafkaSettings) -> AdminClient:
    """For topics, their settings and groups."""
    return AdminClient({**settings.librdkafka(), "socket.timeout.ms": 10_000}, logger=_log)


def _spelled(extra: dict[str, Any]) -> dict[str, Any]:
    return {name.replace("_", "."): value for name, value in extra.items()}
