"""The gateway with the prepaid part over a real store, and behind it the engine: what is written to Kafka goes straight into its fold."""

from __future__ import annotations

import queue
import re
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from connectors.clickhouse import migrate, rows
from connectors.clickhouse.sink import ANSWERS, PLAIN
from connectors.clickhouse.store import Store, open_store
from connectors.head_end.desk import Desk
from connectors.head_end.gateway import create_app
from connectors.head_end.publish import UnavailableError
from connectors.head_end.reading import StoreReader
from connectors.prepaid.part import Prepaid, routes
from connectors.subscribers.secrets import Secrets
from schemas.codec import Codec
from schemas.topology import Topology, load_topology
from schemas.topology.prepaid import PrepaidSettings
from schemas.topology.subscribers import DeliverySettings
from tests.patience import PATIENCE
from tests.prepaid.driver import Driver, settings

CODEC = Codec()
TOPOLOGY = load_topology(Path(__file__).resolve().parents[2] / "topology.yaml")


class Engine:
    """Stands for Kafka, the agent and the sink: takes records of requests in their order, folds them, stores what comes out."""

    timeout = 60.0

    def __init__(self, of: PrepaidSettings, store: Store) -> None:
        self.driver, self.store = Driver(of), store
        self.away = False
        self._queue: queue.Queue[tuple[str, bytes] | None] = queue.Queue()
        self._lock = threading.Lock()
        self._stored = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def write(self, topic: str, value: bytes, *, key: bytes | None = None, headers: Any = None, partition: int | None = None) -> Any:
        """As a Writer."""
        if self.away:
            raise UnavailableError("no broker")
        done: Future[tuple[int, int]] = Future()
        self._queue.put((topic, value))
        done.set_result((0, 0))
        return done

    def close(self) -> None:
        """Stops."""
        self._queue.put(None)
        self._thread.join(120)

    def __enter__(self) -> Driver:
        self._lock.acquire()
        return self.driver

    def __exit__(self, *_: object) -> None:
        try:
            self._keep()
        finally:
            self._lock.release()

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            batch = [first]
            while not self._queue.empty() and len(batch) < 500:
                found = self._queue.get()
                if found is None:
                    return
                batch.append(found)
            with self._lock:
                others: dict[str, list[dict[str, Any]]] = {}
                for topic, value in batch:
                    body = CODEC.decode(value)
                    if topic == "prepaid.requests":
                        self.driver.give("PrepaidRequest", body)
                    elif topic == "audit.events":
                        others.setdefault("audit_events", []).append(rows.with_seconds(body, "at", "start", "end"))
                    elif topic == "hub.deliveries":
                        others.setdefault("delivery_log", []).append(rows.with_seconds(body, "at", "since", "next_at"))
                for table, found_rows in others.items():
                    self._insert(table, found_rows)
                self._keep()
            for _ in batch:
                self._queue.task_done()

    def settle(self) -> None:
        """Waits until everything written so far is stored."""
        self._queue.join()

    def _keep(self) -> None:
        tables: dict[str, list[dict[str, Any]]] = {}
        for kind, record in self.driver.log[self._stored :]:
            table, times = PLAIN[kind]
            known = {name: rows.second(record[name]) for name in times if record[name] is not None}
            tables.setdefault(table, []).append({**record, **known})
        self._stored = len(self.driver.log)
        for table in sorted(tables, key=ANSWERS.__contains__):
            self._insert(table, tables[table])

    def _insert(self, table: str, found: list[dict[str, Any]]) -> None:
        data = rows.from_dicts(table, found)
        assert data is not None
        self.store.insert_arrow(table, data)


@dataclass
class FakeMaster:
    """Master data in a dictionary."""

    objects: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    def find(self, kind: str, id: str) -> dict[str, Any] | None:
        found = self.objects.get((kind, id))
        return None if found is None else {"attributes": found}

    def submit(self, objects: list[dict[str, Any]], message: str, **about: Any) -> list[Any]:
        for line in objects:
            self.objects[line["kind"], line["id"]] = {k: v for k, v in line.items() if k not in ("kind", "id", "action")}
        return [type("Outcome", (), {"outcome": "applied", "reason": ""})() for _ in objects]


@dataclass
class Hub:
    """What a test handles."""

    client: TestClient
    engine: Engine
    part: Prepaid
    store: Store
    master: FakeMaster
    folder: Path

    def enrol(self, *accounts: str, **terms: Any) -> None:
        """Makes accounts prepaid."""
        for account in accounts or ("a1",):
            answer = self.client.post(f"/v1/prepaid/accounts/{account}/mode", json={"mode": "PREPAID", **terms})
            assert answer.status_code in (200, 201), answer.text

    def topup(self, amount: str = "20.00", account: str = "a1", key: str = "k1", **body: Any) -> Any:
        """A top-up; the answer."""
        headers = {"Idempotency-Key": key} if key else {}
        return self.client.post(f"/v1/prepaid/accounts/{account}/topups", json={"amount": amount, **body}, headers=headers)

    def balance(self, account: str = "a1") -> str:
        """The balance as the API tells it."""
        return str(self.client.get(f"/v1/prepaid/accounts/{account}/balance").json()["amount"])


def hub_topology(of: PrepaidSettings, delivery: DeliverySettings | None = None) -> Topology:
    """The packaged topology with other prepaid settings."""
    return TOPOLOGY.model_copy(update={"prepaid": of, **({"delivery": delivery} if delivery else {})})


@contextmanager
def running(folder: Path, delivery: DeliverySettings | None = None, secrets: dict[str, str] | None = None, **change: Any) -> Iterator[Hub]:
    """A running hub with a store of its own."""
    of = settings(**change)
    store = open_store(f"chdb://{folder}/store")
    migrate.up(store)
    engine, master = Engine(of, store), FakeMaster()
    kept = Secrets(None, {f"MDH_SUBSCRIBER_SECRET_{name.upper()}": value for name, value in (secrets or {}).items()})
    reader = StoreReader(store, 1)
    part = Prepaid(hub_topology(of, delivery), reader, engine, CODEC, master, kept, folder)  # type: ignore[arg-type]
    part.service.patience = PATIENCE
    app = create_app(Desk(None, reader, None, list), [routes(part)])  # type: ignore[arg-type]
    try:
        with TestClient(app, raise_server_exceptions=False, follow_redirects=False) as client:
            yield Hub(client, engine, part, store, master, folder)
    finally:
        part.close()
        engine.close()
        store.close()


def finals_of(account: str, day: str, values: list[int], *, device: str = "d1", zone: str = "Europe/Berlin") -> Any:
    """A stored day of hourly consumption, millionths of a kWh."""
    from datetime import date
    from zoneinfo import ZoneInfo

    from tests.store.conftest import finals

    local = date.fromisoformat(day)
    start = int(datetime(local.year, local.month, local.day, tzinfo=ZoneInfo(zone)).timestamp())
    row = {
        "device": device, "channel": "1.8.0", "unit": "kWh", "account": account, "service_point": "sp1", "zone": zone, "seconds": 3600,
        "day": (local - date(1970, 1, 1)).days, "start": start, "values": values, "direction": 1, "state": 1,
    }  # fmt: skip
    return finals([row])


def text_of(pdf: bytes) -> str:
    """The texts of a PDF with plain fonts."""
    parts = []
    for stream in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.S):
        try:
            parts.append(zlib.decompress(stream).decode("latin-1"))
        except zlib.error:
            parts.append(stream.decode("latin-1"))
    return " ".join(re.findall(r"\(((?:[^()\\]|\\.)*)\)", " ".join(parts)))


@contextmanager
def served(hub: Hub) -> Iterator[str]:
    """The address of the same hub over HTTP."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(hub.client.app, port=0, log_config=None, lifespan="off"))  # type: ignore[arg-type]
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.02)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(120)
