"""An app with rights over librdkafka's mock broker, its clock in the test's hand."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from fastapi.testclient import TestClient

from connectors.head_end.desk import Desk
from connectors.head_end.gateway import create_app
from connectors.head_end.publish import Writer
from connectors.kafka.client import producer
from connectors.kafka.mock import MockBroker
from connectors.kafka.settings import KafkaSettings
from connectors.rights.accounts import SESSIONS, Accounts, UserSpec, new_token
from connectors.rights.oidc import Provider
from connectors.rights.passwords import hashed
from connectors.rights.routes import routes
from connectors.rights.service import CSRF_COOKIE, Rights, RightsPart
from connectors.rights.trail import Trail
from schemas.codec import Codec
from schemas.topology import load_topology
from schemas.topology.rights import Grant, RightsSettings
from tests.patience import PATIENCE

CODEC = Codec()
TOPOLOGY = load_topology(Path(__file__).resolve().parent.parent.parent / "topology.yaml")
PASSWORD = "correct horse battery"
HASH = hashed(PASSWORD)


@dataclass
class FakeReader:
    """Remembers questions; answers what a test puts in."""

    answer: list[dict[str, Any]] = field(default_factory=list)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    within: set[str] = field(default_factory=set)

    def rows(self, sql: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        self.asked.append((sql, dict(parameters)))
        if "thing" in parameters:
            return [{"n": int(parameters["thing"] in self.within)}]
        return self.answer


@dataclass
class Clock:
    """Time that a test moves."""

    ahead: float = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


class World:
    """A hub's door with rights; several share a broker."""

    def __init__(
        self, broker: MockBroker, folder: Path, settings: RightsSettings, provider: Provider | None = None, routers: Sequence[Any] = ()
    ) -> None:
        kafka = KafkaSettings(bootstrap=broker.bootstrap)
        self.clock, self.reader, self.folder = Clock(), FakeReader(), folder
        self.writer = Writer(kafka, max_bytes=1_000_000, timeout=60)
        made = producer(kafka, linger_ms=0)
        for topic in ("hub.rights", "hub.sessions", "audit.events"):
            made.produce(topic, b"", partition=0)
        assert made.flush(120) == 0
        self.accounts = Accounts(kafka, TOPOLOGY, CODEC, self.writer, clock=self.clock)
        self.sessions = Accounts(kafka, TOPOLOGY, CODEC, self.writer, SESSIONS, clock=self.clock)
        self.trail = Trail(self.writer, CODEC, folder / "audit", clock=self.clock)
        self.rights = Rights(
            settings, accounts=self.accounts, sessions=self.sessions, trail=self.trail, reader=self.reader, clock=self.clock
        )
        self.part = RightsPart(self.rights, provider, folder / "run" / "first-admin")
        nothing = cast(Any, None)
        self.app = create_app(Desk(nothing, cast(Any, self.reader), nothing, list), [routes(self.part), *routers], self.rights)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=loop, args=(self._stop,), daemon=True) for loop in self.part.loops().values()]
        for thread in self._threads:
            thread.start()
        assert self.accounts.wait_ready(PATIENCE)
        assert self.sessions.wait_ready(PATIENCE)

    def user(self, name: str, *grants: Grant, machine: bool = False) -> None:
        spec = UserSpec(password="" if machine else HASH, epoch=1, grants=grants, machine=machine)
        self.accounts.put(f"user/{name}", spec, "create", actor="test", before=None)

    def token(self, owner: str, *scopes: str, days: int = 1) -> dict[str, str]:
        made = new_token(self.accounts, owner, "", scopes or None, int(self.clock()) + days * 86_400, actor="test")
        return {"Authorization": f"Bearer {made.secret}"}

    def browser(self) -> TestClient:
        return TestClient(self.app, base_url="http://hub", raise_server_exceptions=False, follow_redirects=False)

    def logged_in(self, name: str) -> TestClient:
        client = self.browser()
        assert client.post("/v1/session", json={"user": name, "password": PASSWORD}).status_code == 200
        client.headers["X-CSRF-Token"] = client.cookies[CSRF_COOKIE]
        return client

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(120)
        self.writer.close(1)
