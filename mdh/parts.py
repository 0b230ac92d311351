"""What runs in the hub process beside intake, sink and clock: each part brings its service, its routes and its threads.

To add one: a service with ``loops`` and ``close``, a function that makes its routes, one entry in ``PARTS``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from fastapi import APIRouter

    from connectors.clickhouse.store import Store
    from connectors.head_end.desk import Reader
    from connectors.head_end.publish import Writer
    from connectors.kafka.settings import KafkaSettings
    from schemas.codec import Codec
    from schemas.topology import Topology

Loop = Callable[[threading.Event], None]


@dataclass(frozen=True)
class Surroundings:
    """What a part may use. The writer acknowledges what Kafka has; the reader asks the store from threads."""

    topology: Topology
    kafka: KafkaSettings
    codec: Codec
    store: Store
    reader: Reader
    writer: Writer
    data_dir: Path


class Service(Protocol):
    """A part that runs."""

    def loops(self) -> Mapping[str, Loop]:
        """Threads by name. Each runs until its event is set; one that ends or raises before ends the process, which starts anew."""
        ...

    def close(self) -> None:
        """Gives back what it holds, after its loops have ended."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """A service and its door. ``routes`` gets the service, or None where the interface is only described."""

    name: str
    build: Callable[[Surroundings], Service]
    routes: Callable[[Any], APIRouter] | None = None


def delivery(around: Surroundings) -> Service:
    """Delivery to subscribers, and their registry."""
    from connectors.subscribers.routes import Door
    from mdh.delivering import delivery_service

    service = delivery_service(around.topology, around.kafka, around.codec, around.writer, around.data_dir)
    return Door(service, around.reader)


def _subscribers(door: Any) -> APIRouter:
    from connectors.subscribers.routes import routes

    return routes(door)


PARTS: Final[tuple[Part, ...]] = (Part("delivery", delivery, _subscribers),)
