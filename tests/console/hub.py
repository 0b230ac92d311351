"""The whole hub process over the mock broker, with agents that a thread moves; what people click is answered by the real parts."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import orjson

from connectors.kafka.mock import MockBroker
from connectors.kafka.settings import KafkaSettings
from connectors.todo.part import TodoDesk
from mdh.agents import plans_and_folds
from mdh.commands.hub import HubProcess
from schemas.topology import load_topology
from streams.runtime.replay import Pipeline
from tests.brokers import begin_topics
from tests.enterprise.world import CODEC, World
from tests.patience import PATIENCE, eventually


@dataclass
class Running:
    """A hub that runs. ``mover`` failed where ``failed`` is not empty."""

    url: str
    data_dir: Path
    process: HubProcess
    failed: list[BaseException]

    def until(self, check: Any) -> Any:
        """Waits until something is so; what it was."""
        return eventually(check, meanwhile=self._alive, pause=0.2)

    def _alive(self) -> None:
        assert not self.failed, self.failed[0]
        assert not self.process.stop.is_set(), self.process.failed


@contextmanager
def running(folder: Path, **settings: Any) -> Iterator[Running]:
    """A hub in this process, on any free port; ``settings`` replace sections of the topology."""
    topology = load_topology(None)
    changed = {
        name: getattr(topology, name).model_copy(update=values) if isinstance(values, dict) else values for name, values in settings.items()
    }
    topology = topology.model_copy(update=changed)
    with MockBroker() as broker, socket.create_server(("127.0.0.1", 0)) as listening:
        kafka = KafkaSettings(bootstrap=broker.bootstrap)
        begin_topics(kafka, topology)
        nobody: Any = None
        pipeline = Pipeline(plans_and_folds(topology, [name for name in topology.agents if name != "insights"]), CODEC)
        world = World(topology, kafka, nobody, nobody, nobody, nobody, pipeline, 0)
        process, failed = HubProcess(topology, kafka, None, folder, listening, CODEC), list[BaseException]()

        def move() -> None:
            try:
                while not process.stop.wait(0.1):
                    world.move()
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=work, daemon=True) for work in (process.run, move)]
        for thread in threads:
            thread.start()
        hub = Running(f"http://127.0.0.1:{listening.getsockname()[1]}", folder, process, failed)
        try:
            hub.until(lambda: _answers(f"{hub.url}/health/live"))
            for desk in (service for service in process.services if isinstance(service, TodoDesk)):
                desk.todos.patience = PATIENCE  # who acts is told what became of it, not that it is on its way
            yield hub
        finally:
            process.stop.set()
            for thread in threads:
                thread.join(120)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=20).status_code == 200
    except httpx.HTTPError:
        return False


def master(count: int) -> bytes:
    """Master data of so many meters on two transformers, as NDJSON: two concentrators, two regions; and of a weather station."""

    def lines(device: str, point: str, channel: str, unit: str, region: str, **more: str) -> list[dict[str, Any]]:
        place = {"zone": "Europe/Madrid", "region": region, "grid_area": f"G-{region}", "commodity": "electricity"}
        return [
            {"kind": "service_point", "id": point, **place},
            {"kind": "device", "id": device, "head_end": "hes-1", **more},
            {"kind": "component", "id": f"{device}/{channel}", "device": device, "channel": channel, "unit": unit, "seconds": 3600},
            {
                "kind": "install",
                "id": f"{device}/1",
                "from": "2024-01-01T00:00:00Z",
                "device": device,
                "service_point": point,
                "event": "install",
            },
        ]

    found = lines("W1", "SPW", "T", "C", "north")
    for n in range(count):
        found += lines(f"M{n:02}", f"SP{n:02}", "E1", "kWh", "north" if n < count - 3 else "south", dcu=f"DCU-{n % 2}")
    return b"\n".join(orjson.dumps(line) for line in found)


def reads(count: int, days: int = 4) -> bytes:
    """Days of hourly reads up to yesterday, as CSV; on the last but one each meter has one absurd hour. A station tells the temperature."""
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    start = midnight - timedelta(days=days)
    lines = ["device,channel,unit,seconds,start,value,condition"]
    for hour in range(24 * days):
        at = f"{start + timedelta(hours=hour):%Y-%m-%dT%H:%M:%SZ}"
        for n in range(count):
            spike = hour == 24 * (days - 2) + 14
            lines.append(f"M{n:02},E1,kWh,3600,{at},{42 + n if spike else 0.4 + (hour % 24) / 40 + n / 100:.3f},actual")
        lines.append(f"W1,T,C,3600,{at},{8 + (hour % 24) / 3:.1f},actual")
    return "\n".join(lines).encode()
