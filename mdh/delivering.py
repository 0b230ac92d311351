"""Puts delivery to subscribers together, for the hub process and for one of its own."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from connectors.head_end.publish import Writer
    from connectors.kafka.settings import KafkaSettings
    from connectors.rights.trail import Trail
    from connectors.subscribers.past import Past, Regions
    from connectors.subscribers.service import DeliveryService
    from schemas.codec import Codec
    from schemas.topology import Topology


def delivery_service(
    topology: Topology, kafka: KafkaSettings, codec: Codec, writer: Writer, data_dir: Path, *, apart: bool = False,
    past: Past | None = None, regions: Regions | None = None, trail: Trail | None = None,
) -> DeliveryService:  # fmt: skip
    """The service. ``apart``: in a process of its own, which delivers whatever ``within_hub`` says and declares nothing.

    ``past`` is what files in market formats are completed from, ``regions`` what filters by region look service points up in.
    """
    from connectors.rights.trail import Trail
    from connectors.subscribers.guard import Guard
    from connectors.subscribers.registry import Registry
    from connectors.subscribers.secrets import Secrets
    from connectors.subscribers.service import DeliveryService, Tools

    folder = os.environ.get("MDH_SECRETS_DIR")
    secrets = Secrets(Path(folder) if folder else None, os.environ)
    outbox = data_dir / "outbox"
    guard, own = Guard(topology.delivery), version("meter-data-hub")
    tools = Tools(topology, kafka, codec, writer, secrets, guard, outbox, own, past=past, regions=regions)
    registry = Registry(kafka, topology, codec, writer, trail=trail or Trail(writer, codec, data_dir / "audit" / "delivery"))
    return DeliveryService(tools, registry, deliver=apart or topology.delivery.within_hub, declare=not apart)
