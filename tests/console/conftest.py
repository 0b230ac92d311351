"""The console over a real store, served on a port of its own."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import pytest
import uvicorn
from playwright.sync_api import expect

from connectors.clickhouse import migrate
from connectors.clickhouse.store import Store, open_store
from connectors.console.api import api
from connectors.console.part import Console
from connectors.console.routes import routes
from connectors.head_end.desk import Desk
from connectors.head_end.gateway import create_app
from connectors.head_end.reading import StoreReader
from schemas.topology import load_topology
from tests.console.estate import seed
from tests.patience import PATIENCE

expect.set_options(timeout=PATIENCE * 1000)


@dataclass
class Served:
    """A running console."""

    url: str
    console: Console
    store: Store


def serve(store: Store) -> tuple[Served, uvicorn.Server, threading.Thread]:
    """The console over a store, on any free port."""
    reader = StoreReader(store, 4)
    console = Console(reader, load_topology())
    app = create_app(Desk(cast(Any, None), reader, cast(Any, None), list), [routes(console), api(console)])
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None))
    thread = threading.Thread(target=lambda: server.run(sockets=[listening]), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    return Served(f"http://127.0.0.1:{listening.getsockname()[1]}", console, store), server, thread


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The console over the fleet of ``estate``."""
    store = open_store(f"chdb://{tmp_path_factory.mktemp('console')}/store")
    migrate.up(store)
    seed(store, datetime.now(UTC))
    found, server, thread = serve(store)
    yield found
    server.should_exit = True
    thread.join(120)
    found.console.close()
    store.close()
