"""The part of the hub process that serves prepaid: the API, the customers' portal, and the courier of notices."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from fastapi import APIRouter

from connectors.head_end.desk import Reader
from connectors.head_end.orders import Claims, OrderBook
from connectors.head_end.publish import Writer
from connectors.prepaid import routes as api
from connectors.prepaid.adjustments import KIND, Adjustments
from connectors.prepaid.contacts import Contacts, Master
from connectors.prepaid.courier import Courier
from connectors.prepaid.messages import ways_of
from connectors.prepaid.portal import pages
from connectors.prepaid.portal.desk import PortalDesk
from connectors.prepaid.portal.payments import provider_of
from connectors.prepaid.proving import Prover
from connectors.prepaid.service import PrepaidService
from connectors.rights.trail import Trail
from connectors.subscribers.guard import Guard
from connectors.subscribers.journal import Journal
from connectors.subscribers.secrets import Secrets
from schemas.codec import Codec
from schemas.topology import Topology


class Prepaid:
    """Service, courier and portal over one writer and one store. ``close_master`` gives master data back."""

    def __init__(
        self, topology: Topology, reader: Reader, writer: Writer, codec: Codec, master: Master, secrets: Secrets, folder: Path,
        close_master: Callable[[], None] = lambda: None, trail: Trail | None = None,
        claims: Claims | None = None,
    ) -> None:  # fmt: skip
        settings = topology.prepaid
        self.service = PrepaidService(settings, reader, writer, codec)
        self.contacts = Contacts(master)
        ways = ways_of(settings.messages, secrets, Guard(topology.delivery), folder / "outbox")
        self.courier = Courier(settings, reader, self.contacts, ways, lambda kind: Journal(writer, codec, kind))
        orders = OrderBook(KIND, reader, trail or Trail(writer, codec, None), claims=claims)
        self.desk = api.Desk(self.service, self.contacts, Adjustments(self.service, orders))
        self.portal: pages.Portal | None = None
        self._close_master = close_master
        if settings.portal.enabled:
            memory = PortalDesk(folder / "portal" / "portal.sqlite", settings.portal)
            self.portal = pages.Portal(self.service, memory, self.courier, provider_of(self.service, secrets, memory))

    def loops(self) -> Mapping[str, Callable[[threading.Event], None]]:
        """The threads of the courier and of the hourly proof."""
        return {"prepaid-courier": self.courier.run, "prepaid-proof": Prover(self.desk.explaining).run}

    def close(self) -> None:
        """Closes files."""
        if self.portal is not None:
            self.portal.close()
        self._close_master()


def routes(part: Prepaid | None) -> APIRouter:
    """All its routes."""
    router = APIRouter()
    router.include_router(api.routes(None if part is None else part.desk))
    router.include_router(pages.routes(None if part is None else part.portal))
    return router
