"""``mdh hub``: gateway, store and sink, tick clock and drop folder in one process."""

from __future__ import annotations

import gc
import signal
import socket
import sys
import threading
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from mdh.errors import UsageError

if TYPE_CHECKING:
    from connectors.clickhouse.store import Store
    from connectors.kafka.settings import KafkaSettings
    from mdh.parts import Service
    from mdh.settings import Settings
    from schemas.codec import Codec
    from schemas.topology import Topology


def main(
    broker: Annotated[str | None, typer.Option(help="Kafka bootstrap servers, host:port[,…].")] = None,
    clickhouse: Annotated[str | None, typer.Option(help="DSN of the store; default: the engine in DATA_DIR/store.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Store, drop folder and small files; default .mdh.")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the gateway; default 8080.")] = None,
    host: Annotated[str | None, typer.Option(help="Address the gateway listens on; default 127.0.0.1.")] = None,
    topology: Annotated[Path | None, typer.Option(envvar="MDH_TOPOLOGY", help="topology.yaml; default: the one here, else ours.")] = None,
    openapi: Annotated[bool, typer.Option("--openapi", help="Print the OpenAPI document of the gateway and stop.")] = False,
) -> None:
    """Run the gateway, the store and its sink, the tick clock and the drop folder until interrupted."""
    if openapi:
        sys.stdout.write(openapi_text())
        return
    from mdh.contracts import codec_of
    from mdh.logs import configure
    from mdh.settings import load_settings
    from mdh.telemetry import announce
    from schemas.topology import TopologyError, load_topology
    from streams.runtime.ending import end_after

    settings = load_settings(broker=broker, clickhouse=clickhouse, data_dir=data_dir, port=port, host=host)
    configure(settings.log_level, process="hub")
    announce("hub")
    try:
        system = load_topology(topology)
    except TopologyError as error:
        raise UsageError(str(error)) from error
    check_openness(system, settings)
    kafka = settings.kafka.at(settings.broker)
    listening = listen(settings.host, settings.port)
    hub = HubProcess(system, kafka, settings.clickhouse, settings.data_dir, listening, codec_of(settings, system))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: hub.stop.set())
    end_after(hub.stop, STOP_SECONDS, lambda: 1 if hub.failed else 0)
    raise SystemExit(hub.run())


def check_openness(topology: Topology, settings: Settings) -> None:
    """Raises UsageError for a hub that everybody who reaches this machine could use as they like."""
    rights = topology.rights
    if (settings.rights_mode or rights.mode) == "enforced" or rights.open_to_network or is_local(settings.host):
        return
    raise UsageError(
        f"--host {settings.host}: an open hub listens on this machine only; set rights.mode: enforced (or MDH_RIGHTS_MODE=enforced), "
        "or rights.open_to_network: true if something else guards it"
    )


def is_local(host: str) -> bool:
    """Whether an address is of this machine alone."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def openapi_text() -> str:
    """The OpenAPI document, as committed in docs/openapi.json."""
    import orjson

    from connectors.head_end.gateway import describe
    from mdh.parts import PARTS

    routers = [part.routes(None) for part in PARTS if part.routes]
    return orjson.dumps(describe(routers), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode() + "\n"


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises UsageError where the port is taken or the address is not ours."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(1024)
    except OSError as error:
        raise UsageError(f"cannot listen on {host}:{port} ({error.strerror}): stop what uses it or give another --port") from error
    return listening


class HubProcess:
    """The parts of the process and their threads. A part that ends by itself ends the process, so that it is started anew."""

    def __init__(
        self,
        topology: Topology,
        kafka: KafkaSettings,
        clickhouse: str | None,
        data_dir: Path,
        listening: socket.socket,
        codec: Codec,
    ) -> None:
        self.codec = codec
        self.topology, self.kafka, self.data_dir, self.listening = topology, kafka, data_dir.expanduser().absolute(), listening
        self.clickhouse = clickhouse or f"chdb://{self.data_dir / 'store'}"
        self.stop = threading.Event()
        self.services: list[Service] = []
        self._threads: dict[str, threading.Thread] = {}
        self.failed: dict[str, str] = {}

    def run(self) -> int:
        """Runs until ``stop`` is set (0) or a part fails (1)."""
        import structlog
        import uvicorn

        from connectors.clickhouse.figures import Figures
        from connectors.clickhouse.sink import Sink
        from connectors.head_end.clock import TickClock
        from connectors.head_end.drop_folder import DropFolder
        from connectors.head_end.gateway import create_app
        from connectors.head_end.publish import KeyLog, Publisher, Writer
        from connectors.head_end.reading import StoreReader
        from connectors.kafka.watch import Watch
        from mdh.parts import MASTER_PART, PARTS, RIGHTS_PART, Surroundings, build_parts

        log = structlog.get_logger(__name__)
        store = self._open_store()
        limit = self.topology.ingest.limits.payload_bytes
        keys = KeyLog(self.data_dir / "gateway" / "keys.sqlite")
        writer = Writer(self.kafka, max_bytes=limit)
        publisher = Publisher(writer, self.topology.agents["ingest"].inbox, max_payload_bytes=limit, keys=keys)
        sink = Sink.from_topology(store, self.kafka, self.topology, codec=self.codec)
        ticks = TickClock(writer, self.codec, TICKS, self.topology.topics[TICKS].partitions, self.topology.clock.tick_seconds)
        drop = DropFolder(self.data_dir / "drop", publisher)
        watch = Watch(self.kafka, self.topology)
        figures = Figures(store, self.topology.topics[TICKS].partitions)
        reader = StoreReader(store, self.topology.topics[self.topology.agents["ingest"].inbox].partitions)
        around = Surroundings(self.topology, self.kafka, self.codec, store, reader, writer, self.data_dir)
        services = self.services = build_parts(around)
        desk = self._desk(publisher, reader, store, sink, services[MASTER_PART])
        routers = [part.routes(service) for part, service in zip(PARTS, services, strict=True) if part.routes]
        app = create_app(desk, routers, cast(Any, services[RIGHTS_PART]).rights)
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=5, server_header=False))
        try:
            self._start("sink", lambda: sink.run(self.stop))
            self._start("clock", lambda: ticks.run(self.stop))
            self._start("drop-folder", lambda: drop.run(self.stop))
            self._start("watch", lambda: watch.run(self.stop))
            self._start("figures", lambda: figures.run(self.stop))
            for service in services:
                for name, loop in service.loops().items():
                    self._start(name, lambda loop=loop: loop(self.stop))  # type: ignore[misc]
            self._start("gateway", lambda: server.run(sockets=[self.listening]))
            gc.freeze()  # what is there now stays, nobody need look through it again
            log.info("hub runs", address=self.listening.getsockname()[:2], store=str(store.target), broker=self.kafka.bootstrap)
            self.stop.wait()
        finally:
            self.stop.set()
            server.should_exit = True
            for name in reversed(self._threads):
                self._threads[name].join(15)
            for service in services:
                service.close()
            writer.close(5)
            keys.close()
            store.close()
            self.listening.close()
        log.info("hub stopped", failed=self.failed)
        return 1 if self.failed else 0

    def _start(self, name: str, work: Callable[[], None]) -> None:
        import structlog

        def guarded() -> None:
            try:
                work()
            except BaseException as error:  # whatever ends a part must end the process, not pass in silence
                structlog.get_logger(__name__).error("a part of the hub failed", part=name, exc_info=error)
                self.failed[name] = str(error)
            if not self.stop.is_set():
                self.failed.setdefault(name, "ended by itself")
                self.stop.set()

        self._threads[name] = threading.Thread(target=guarded, name=name, daemon=True)
        self._threads[name].start()

    def _open_store(self) -> Store:
        from connectors.clickhouse.migrate import MigrationError, up
        from connectors.clickhouse.store import StoreError, open_store

        self.data_dir.mkdir(parents=True, exist_ok=True)
        try:
            store = open_store(self.clickhouse)
            up(store)
        except (StoreError, MigrationError, ValueError) as error:
            raise UsageError(f"store: {error}") from error
        return store

    def _desk(self, publisher: Any, reader: Any, store: Store, sink: Any, master: Any) -> Any:
        from connectors.head_end.command_desk import KafkaCommandDesk
        from connectors.head_end.desk import Desk
        from connectors.head_end.formats import FORMATS
        from connectors.head_end.health import Readiness
        from connectors.head_end.label_desk import LabelDesk
        from connectors.head_end.master_desk import KafkaMasterDesk
        from connectors.head_end.publish import Publisher

        topology = self.topology
        tick = topology.clock.tick_seconds

        def parts() -> list[str]:
            reasons = [f"{name}: {reason}" for name, reason in self.failed.items()]
            if not sink.health.running:
                reasons.append(f"the sink does not run yet{f' ({sink.health.problem})' if sink.health.problem else ''}")
            return reasons

        chain = [name for name, topic in topology.topics.items() if topic.records]
        ready = Readiness(self.kafka, chain, parts, reader.settled_tick, oldest_tick=max(30, 10 * tick))
        return Desk(
            publisher,
            reader,
            KafkaMasterDesk(publisher.writer, self.codec, MASTER, topology.topics[MASTER].partitions, master.service),
            ready.reasons,
            quiet_seconds=topology.vee.quiet,
            events=Publisher(publisher.writer, EVENTS, max_payload_bytes=900_000),
            commands=KafkaCommandDesk(publisher.writer, self.codec, COMMANDS),
            labels=LabelDesk(publisher.writer, self.codec, COMMANDS, reader),
            formats=frozenset(FORMATS) | frozenset(topology.profiles),
            about={"broker": self.kafka.bootstrap, "store": str(store.target), "topology": topology.name},
        )


STOP_SECONDS = 60.0  # a hub that was told to stop, or one of whose parts failed, ends within these, in good order or not
TICKS = "hub.ticks"
MASTER = "master.data"
COMMANDS = "hub.commands"
EVENTS = "hes.events"
