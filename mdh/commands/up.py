"""``mdh up``: the whole hub on one machine, until interrupted. `Hub` is the same for programs and tests."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mdh.errors import UsageError

if TYPE_CHECKING:
    from connectors.embedded.supervisor import Patience

READY_SECONDS = 300.0


def main(
    data_dir: Annotated[Path | None, typer.Option(help="Everything the hub keeps; default .mdh.")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the gateway; 0: any free one; default 8080.")] = None,
    host: Annotated[str | None, typer.Option(help="Address the gateway listens on; default 127.0.0.1.")] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes; they share the partitions; default 1.")] = None,
    broker: Annotated[str | None, typer.Option(help="Kafka to use instead of the embedded one, host:port[,…].")] = None,
    clickhouse: Annotated[str | None, typer.Option(help="DSN of the store to use instead of the embedded one.")] = None,
    topology: Annotated[Path | None, typer.Option(envvar="MDH_TOPOLOGY", help="topology.yaml; default: the one here, else ours.")] = None,
    broker_port: Annotated[int, typer.Option(help="Port of the embedded Kafka; 0: any free one, kept over restarts.")] = 0,
    show_logs: Annotated[bool, typer.Option("--show-logs", help="Repeat the logs of all processes on stderr.")] = False,
) -> None:
    """Run everything until interrupted: Kafka, workers, store and gateway. Ctrl-C stops it cleanly; the next start goes on from there."""
    from mdh.logs import configure
    from mdh.settings import load_settings

    settings = load_settings(data_dir=data_dir, port=port, host=host, workers=workers, broker=broker, clickhouse=clickhouse)
    configure("warning" if settings.log_level == "info" else settings.log_level, process="up")
    hub = Hub(
        settings.data_dir,
        port=settings.port,
        host=settings.host,
        workers=settings.workers,
        broker=settings.broker,
        clickhouse=settings.clickhouse,
        topology=topology,
        broker_port=broker_port,
        echo=show_logs,
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )
    with interruptible():
        try:
            with hub:
                print("\n".join(hub.places()), flush=True)
                if link := hub.first_link():
                    print(f"admin    {link}", flush=True)
                    print("the admin link makes the first administrator; it works once, and not for long", file=sys.stderr, flush=True)
                print("running; Ctrl-C stops it", file=sys.stderr, flush=True)
                hub.wait()
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM and SIGHUP interrupt as Ctrl-C does: KeyboardInterrupt in the main thread."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Hub:
    """A whole hub in child processes, as a context manager: entered, reads can flow; left, everything is stopped.

    ``url`` is the gateway's address, ``broker`` Kafka's. All problems of this machine or its input are raised as UsageError.
    """

    def __init__(
        self,
        data_dir: Path | str = Path(".mdh"),
        *,
        port: int = 0,
        host: str = "127.0.0.1",
        workers: int = 1,
        broker: str | None = None,
        clickhouse: str | None = None,
        topology: Path | None = None,
        broker_port: int = 0,
        echo: bool = False,
        patience: Patience | None = None,
        environment: Mapping[str, str] | None = None,
        worker_options: tuple[str, ...] = (),
        say: Callable[[str], None] | None = None,
    ) -> None:
        """``port`` 0 takes any free one. ``environment`` is added to that of the children, ``worker_options`` to the command
        line of the workers. ``say`` gets progress, one line at a time."""
        from connectors.embedded.place import Place

        self.place = Place(Path(data_dir))
        self.port, self.host, self.workers = port, host, workers
        self.broker, self.clickhouse, self.topology = broker or "", clickhouse, topology
        self._external = broker is not None
        self._broker_port, self._echo, self._patience = broker_port, echo, patience
        self._environment = {**os.environ, "PYTHONUNBUFFERED": "1", "MDH_HOST": host, **(environment or {})}
        self._worker_options = worker_options
        self._say = say or (lambda _: None)
        self._ready = threading.Event()
        self._enforced = False

    @property
    def url(self) -> str:
        """The gateway, as seen from this machine."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    def places(self) -> list[str]:
        """What to open where, one line each."""
        return [
            f"hub      {self.url}",
            f"api      {self.url}/docs",
            f"metrics  {self.url}/metrics",
            f"kafka    {self.broker}",
            f"data     {self.place.root}",
        ]

    def first_link(self) -> str | None:
        """Where the first administrator is made, on a hub that needs one; told once."""
        from connectors.rights.service import LINK_FILE

        file = self.place.run / LINK_FILE
        deadline = time.monotonic() + (60.0 if self._enforced else 0.0)
        while not file.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        try:
            path = file.read_text()
            file.unlink()
        except OSError:
            return None
        return f"{self.url}{path}" if path else None

    def start(self) -> None:
        """Starts everything and returns when reads can flow. Raises UsageError, and leaves nothing running then."""
        from connectors.embedded import EmbeddedError
        from connectors.kafka.admin import BrokerError
        from schemas.topology import TopologyError

        try:
            self._start()
        except (EmbeddedError, BrokerError, TopologyError, ValueError) as error:
            self.stop()
            raise UsageError(str(error)) from error
        except BaseException:
            self.stop()
            raise

    def wait(self, seconds: float | None = None) -> None:
        """Returns after so many seconds, or never. Raises UsageError when the hub cannot go on."""
        deadline = float("inf") if seconds is None else time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._check()
            time.sleep(min(0.2, max(0.0, deadline - time.monotonic())))

    def stop(self) -> None:
        """Stops everything, in reverse order; harmless when nothing runs."""
        try:
            if supervisor := getattr(self, "supervisor", None):
                supervisor.stop()
        finally:
            if kept := getattr(self, "_kept", None):
                kept.free()
            self.place.leave()

    def __enter__(self) -> Hub:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self) -> None:
        from connectors.embedded import EmbeddedError
        from connectors.embedded.place import ROOM_TO_START, Port
        from connectors.embedded.supervisor import Supervisor
        from connectors.kafka.admin import Administrator
        from mdh.commands.hub import check_openness
        from mdh.settings import load_settings
        from schemas.topology import load_topology

        system = load_topology(self.topology)
        settings = load_settings(host=self.host)
        check_openness(system, settings)
        self._enforced = (settings.rights_mode or system.rights.mode) == "enforced"
        self.place.take()
        if full := self.place.room(ROOM_TO_START):
            raise EmbeddedError(full)
        self._share_metrics()
        self._kept = Port.claim(self.port, "the gateway", "--port", self.host)
        self.port = self._kept.number
        self.supervisor = Supervisor(
            self.place.logs, patience=self._patience, checks=[self.place.room], echo=self._echo, changed=self._publish
        )
        kafka = load_settings().kafka
        if self._external:
            kafka = kafka.at(self.broker)
            self._security = kafka.librdkafka()
            self._say(f"using Kafka at {self.broker}")
            if reason := self._broker_away(15.0):
                raise EmbeddedError(reason)
        else:
            self._security = {}
            for name in [name for name in self._environment if name.startswith("MDH_KAFKA__")]:
                del self._environment[name]  # logins are for clusters
            self._start_broker()
            kafka = type(kafka)(bootstrap=self.broker)
        Administrator(kafka).apply(system)
        self._say("starting gateway, store and workers")
        self.supervisor.add(self._hub_process(), *(self._worker_process(index, f"worker-{index}") for index in range(self.workers)))
        for index, crew in enumerate((crew for crew in system.crews if crew != "agents"), self.workers):
            self.supervisor.add(self._worker_process(index, f"worker-{crew}", "--agents", ",".join(system.crews[crew])))
        self._await_health()
        self._ready.set()
        self._publish(self.supervisor.processes())

    def _share_metrics(self) -> None:
        """A fresh folder through which the gateway sees the metrics of all processes."""
        folder = self.place.root / "run" / "metrics"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._environment["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
        self._environment.pop("MDH_METRICS_PORT", None)  # one port is not for several workers

    def _start_broker(self) -> None:
        from connectors.embedded.kafka import START_SECONDS, STOP_SECONDS, Broker
        from connectors.embedded.supervisor import Child

        broker = Broker(self.place.root / "kafka", self._broker_port, say=self._say)
        broker.command()  # downloads happen here, where they can be interrupted
        self._say("starting Kafka")
        self.broker = broker.bootstrap
        child = Child("kafka", broker.command, ready=lambda: broker.answers(2.0), start_seconds=START_SECONDS, stop_seconds=STOP_SECONDS)
        self.supervisor.add(child)
        self.supervisor.wait_ready(START_SECONDS)

    def _hub_process(self) -> Any:
        from connectors.embedded.supervisor import Child

        command = [*self._mdh("hub"), "--port", str(self.port)]
        environment = self._environment
        if self.clickhouse:  # it may hold a password, and command lines are for all to see
            environment = {**environment, "MDH_CLICKHOUSE": self.clickhouse}
        return Child("hub", lambda: command, stage=1, gate=self._broker_away, stop_seconds=15, environment=environment)

    def _worker_process(self, index: int, name: str, *agents: str) -> Any:
        from connectors.embedded.supervisor import Child

        command = [*self._mdh("worker"), "--index", str(index), *agents, *self._worker_options]
        return Child(name, lambda: command, stage=2, gate=self._broker_away, environment=self._environment)

    def _mdh(self, command: str) -> list[str]:
        topology = ["--topology", str(self.topology.absolute())] if self.topology else []
        return [sys.executable, "-m", "mdh", command, "--broker", self.broker, "--data-dir", str(self.place.root), *topology]

    def _broker_away(self, seconds: float = 3.0) -> str | None:
        from connectors.embedded.kafka import broker_answers

        answers = broker_answers(self.broker, seconds, self._security)
        return None if answers else f"no Kafka broker answers at {self.broker}"

    def _check(self) -> None:
        from connectors.embedded import EmbeddedError

        try:
            self.supervisor.check()
        except EmbeddedError as error:
            raise UsageError(str(error)) from error

    def _await_health(self) -> None:
        deadline, reason = time.monotonic() + READY_SECONDS, "no answer"
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # this machine is not reached through a proxy
        while time.monotonic() < deadline:
            self._check()
            try:
                with direct.open(f"{self.url}/health/ready", timeout=5) as answer:
                    if answer.status == 200:
                        return
            except urllib.error.HTTPError as error:
                reason = _detail(error.read())
            except OSError as error:
                reason = str(error)
            time.sleep(0.1)
        raise UsageError(f"the hub was not ready after {READY_SECONDS:.0f} s: {reason} (see {self.place.logs})")

    def _publish(self, processes: dict[str, int]) -> None:
        from connectors.embedded.place import HubState

        if self._ready.is_set():
            topology = str(self.topology.absolute()) if self.topology else None
            root = str(self.place.root)
            state = HubState(os.getpid(), self.url, self.broker, root, topology, processes)
            self.place.publish(state)


def _detail(body: bytes) -> str:
    """The reasons in an answer of ``/health/ready``, or its beginning."""
    try:
        problem = json.loads(body)
        return "; ".join(problem.get("reasons", ())) or str(problem.get("detail") or problem)
    except (ValueError, AttributeError):
        return body[:200].decode(errors="replace")
