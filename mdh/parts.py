"""What runs in the hub process beside intake, sink and clock: each part brings its service, its routes and its threads.

To add one: a service with ``loops`` and ``close``, a function that makes its routes, one entry in ``PARTS``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from fastapi import APIRouter

    from connectors.clickhouse.store import Store
    from connectors.enterprise.service import MasterService
    from connectors.head_end.desk import Reader
    from connectors.head_end.publish import Writer
    from connectors.kafka.settings import KafkaSettings
    from connectors.rights.trail import Trail
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
    services: dict[str, Any] = field(default_factory=dict)  # of the parts built before, by name


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


def _trail(around: Surroundings) -> Trail:
    """The audit of this process: all parts write one chain."""
    trail: Trail = around.services["rights"].rights.trail
    return trail


def _shelf(around: Surroundings) -> Service:
    """What people keep in the console, and who decides an order."""
    from connectors.console.shelf import Shelf

    return Shelf(around.kafka, around.topology, around.codec, around.writer)


def delivery(around: Surroundings) -> Service:
    """Delivery to subscribers, and their registry."""
    from connectors.subscribers.past import Regions, StorePast
    from connectors.subscribers.routes import Door
    from mdh.delivering import delivery_service

    past, regions = StorePast(around.reader), Regions(around.reader)
    service = delivery_service(
        around.topology, around.kafka, around.codec, around.writer, around.data_dir, past=past, regions=regions, trail=_trail(around)
    )  # fmt: skip
    return Door(service, around.reader)


def _subscribers(door: Any) -> APIRouter:
    from connectors.subscribers.routes import routes

    return routes(door)


def _master_service(around: Surroundings) -> MasterService:
    """Master data, with the keys of persons where the settings say. Raises UsageError where these cannot be used."""
    from connectors.enterprise.persons import VaultError, master_key
    from connectors.enterprise.service import open_service
    from mdh.errors import UsageError
    from mdh.settings import load_settings

    settings, folder, topology = load_settings(), around.data_dir / "persons", around.topology
    try:
        key = master_key(settings.person_key or folder / "master.key", make=settings.person_key is None)
        keys = settings.person_keys or folder / "keys.sqlite"
        return open_service(around.writer, around.codec, around.reader, keys=keys, master_key=key, zone=topology.zone)
    except VaultError as error:
        raise UsageError(f"keys of persons: {error}") from error


def _master(around: Surroundings) -> Service:
    """Master data."""
    from connectors.enterprise.routes import MasterRoutes
    from connectors.head_end.publish import Publisher

    topology = around.topology
    reads = Publisher(around.writer, topology.agents["ingest"].inbox, max_payload_bytes=topology.ingest.limits.payload_bytes)
    return MasterRoutes(_master_service(around), reads)


def _master_routes(part: Any) -> APIRouter:
    from connectors.enterprise.routes import router

    return router(part)


def bulk(around: Surroundings) -> Service:
    """Bulk orders."""
    from connectors.head_end.bulk_desk import BulkDesk

    about = around.topology.commands, "hub.commands", _trail(around)
    return BulkDesk(around.reader, around.writer, around.codec, *about, claims=around.services[SHELF])


def _bulk(desk: Any) -> APIRouter:
    from connectors.head_end.bulk_desk import routes

    return routes(desk)


def _enterprise(around: Surroundings) -> Service:
    """Conversations with customer information systems."""
    from connectors.enterprise.part import build

    return build(around)


def _enterprise_routes(part: Any) -> APIRouter:
    from connectors.enterprise.part import routes

    return routes(part)


def _usage(around: Surroundings) -> Service:
    """Requests of usage, acknowledgements of bills, critical-peak events."""
    from connectors.usage.routes import TOPIC, UsageDesk

    maps = frozenset(tou.id for tou in around.topology.determinants.maps)
    return UsageDesk(around.writer, around.reader, around.codec, around.topology.topics[TOPIC].partitions, maps)


def _usage_routes(desk: Any) -> APIRouter:
    from connectors.usage.routes import routes

    return routes(desk)


def _prepaid(around: Surroundings) -> Service:
    """Prepaid accounts, their portal and the courier of notices."""
    from connectors.prepaid.part import Prepaid
    from connectors.subscribers.secrets import Secrets

    master = _master_service(around)
    folder = os.environ.get("MDH_SECRETS_DIR")
    secrets = Secrets(Path(folder) if folder else None, os.environ)
    store = around.reader, around.writer, around.codec
    return Prepaid(around.topology, *store, master, secrets, around.data_dir, master.close, _trail(around), around.services[SHELF])


def _prepaid_routes(part: Any) -> APIRouter:
    from connectors.prepaid.part import routes

    return routes(part)


def _todo(around: Surroundings) -> Service:
    """To-Dos: acts, resolving, searches."""
    from connectors.todo.part import TodoDesk

    held: dict[str, Any] = {"store": around.store, "trail": _trail(around), "claims": around.services[SHELF]}
    return TodoDesk(around.topology, around.reader, around.writer, around.codec, **held)


def _todo_routes(desk: Any) -> APIRouter:
    from connectors.todo.routes import routes

    return routes(desk)


def _rights(around: Surroundings) -> Service:
    """Users, tokens, sessions, the audit."""
    from connectors.rights.accounts import SESSIONS, Accounts
    from connectors.rights.oidc import Provider
    from connectors.rights.service import LINK_FILE, Rights, RightsPart
    from connectors.rights.trail import Trail
    from mdh.settings import load_settings

    settings, topology = load_settings(), around.topology.rights
    accounts = Accounts(around.kafka, around.topology, around.codec, around.writer)
    sessions = Accounts(around.kafka, around.topology, around.codec, around.writer, SESSIONS)
    trail = Trail(around.writer, around.codec, around.data_dir / "audit")
    rights = Rights(topology, accounts=accounts, sessions=sessions, trail=trail, mode=settings.rights_mode, reader=around.reader)
    secret = settings.oidc_secret.get_secret_value() if settings.oidc_secret else None
    provider = Provider(topology.oidc, secret) if topology.oidc else None
    return RightsPart(rights, provider, around.data_dir / "run" / LINK_FILE)


def _rights_routes(part: Any) -> APIRouter:
    from connectors.rights.routes import routes

    return routes(part)


def _letters(around: Surroundings) -> Service:
    """Dead letters over HTTP."""
    from connectors.head_end.dead_letter_desk import DeadLetterDesk

    return DeadLetterDesk(around.topology, around.kafka, around.writer, around.codec, around.reader)


def _letters_routes(desk: Any) -> APIRouter:
    from connectors.head_end.dead_letter_desk import routes

    return routes(desk)


def _console(around: Surroundings) -> Service:
    """The web console."""
    from connectors.console.part import Console

    return Console(around.reader, around.topology, around.services, around.services[SHELF])


def _console_routes(console: Any) -> APIRouter:
    from fastapi import APIRouter

    from connectors.console.api import api
    from connectors.console.routes import routes

    both = APIRouter()
    both.include_router(routes(console))
    both.include_router(api(console))
    return both


SHELF: Final = "shelf"
PARTS: Final[tuple[Part, ...]] = (
    Part("rights", _rights, _rights_routes),
    Part(SHELF, _shelf),
    Part("delivery", delivery, _subscribers),
    Part("master", _master, _master_routes),
    Part("usage", _usage, _usage_routes),
    Part("bulk", bulk, _bulk),
    Part("enterprise", _enterprise, _enterprise_routes),
    Part("prepaid", _prepaid, _prepaid_routes),
    Part("todo", _todo, _todo_routes),
    Part("dead-letters", _letters, _letters_routes),
    Part("console", _console, _console_routes),  # last: it shows what the others do
)
RIGHTS_PART: Final = next(number for number, part in enumerate(PARTS) if part.name == "rights")


def build_parts(around: Surroundings) -> list[Service]:
    """The services of all parts, in their order; each finds those before it in the surroundings."""
    for part in PARTS:
        around.services[part.name] = part.build(around)
    return [around.services[part.name] for part in PARTS]


MASTER_PART: Final = next(number for number, part in enumerate(PARTS) if part.name == "master")
