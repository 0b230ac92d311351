"""The real chain on a broker of its own: worker and sink processes, and a test that plays head end, clock and reader."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

from connectors.embedded.kafka import Broker
from connectors.kafka.admin import Administrator
from connectors.kafka.settings import KafkaSettings
from schemas.codec import Codec
from schemas.identity import partition_of
from schemas.topology import load_topology
from streams.runtime.lane import ID, PAYLOAD, RECEIPT

RATE = 0.004  # of injected failures, twice for each transaction; workers commit small batches here
ROOT = Path(__file__).resolve().parents[2]
CODEC = Codec()
TOPOLOGY = load_topology(None)


class Chain:
    """A broker with all topics, and what the outside does to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.broker = Broker(folder / "kafka")
        self.broker.start()
        self.bootstrap = self.broker.bootstrap
        Administrator(KafkaSettings(bootstrap=self.bootstrap)).apply(TOPOLOGY)
        self.producer = Producer({"bootstrap.servers": self.bootstrap, "linger.ms": 5})
        self.watch = Watch(self.bootstrap)

    def worker(self, torment: float) -> subprocess.Popen[bytes]:
        agents = ["--agents", ",".join(TOPOLOGY.agents)]  # one worker for all, those that run apart too
        command = ["worker", *agents, "--broker", self.bootstrap, "--torment", str(torment), "--data-dir", str(self.folder / "worker")]
        return self._start("worker", [sys.executable, "-m", "mdh", *command])

    def sink(self) -> subprocess.Popen[bytes]:
        return self._start("sink", [sys.executable, "-m", "tests.torment.sink_main", self.bootstrap, str(self.folder / "store")])

    def _start(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as output:
            return subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, env={**os.environ, "MDH_LOG_LEVEL": "info"})

    def send(self, topic: str, key: str, value: bytes, id: str, **headers: str) -> str:
        """Writes one record as the outside does; returns its id."""
        number = partition_of(key, TOPOLOGY.topics[topic].partitions)
        named = {"id": id.encode(), **{name: text.encode() for name, text in headers.items()}}
        self.producer.produce(topic, value, key.encode(), partition=number, headers=named)
        self.producer.poll(0)
        return id

    def tick(self, at: int) -> list[str]:
        """Writes a tick to every partition."""
        ids = []
        for number in range(TOPOLOGY.partitions):
            ids.append(f"tick/{at}/{number}")
            self.producer.produce("hub.ticks", CODEC.encode("Tick", {"at": at}), partition=number, headers={"id": ids[-1].encode()})
        return ids

    def settle(self, ids: Iterable[str], seconds: float = 600) -> None:
        """Returns when all that these payloads led to has been written by the agents (the sink may be behind)."""
        self.producer.flush(30)
        self.watch.settle(set(ids), seconds)

    def wait_for_sink(self, seconds: float) -> None:
        """Returns when the sink has committed every record of the stored topics (control records excepted)."""
        reader = Consumer({"bootstrap.servers": self.bootstrap, "group.id": TOPOLOGY.group("sink"), "isolation.level": "read_committed"})
        places = [TopicPartition(topic, n) for topic in TOPOLOGY.stored for n in range(TOPOLOGY.topics[topic].partitions)]
        raw = [tp for tp in places if tp.topic == "hes.reads"]
        last = self.watch.last | {(tp.topic, tp.partition): reader.get_watermark_offsets(tp)[1] - 1 for tp in raw}
        deadline = time.monotonic() + seconds
        while True:
            committed = {(tp.topic, tp.partition): tp.offset for tp in reader.committed(places, timeout=10)}
            behind = {place: offset for place, offset in last.items() if 0 <= offset >= committed[place]}
            if not behind:
                break
            if time.monotonic() > deadline:
                raise AssertionError(f"the sink did not store {behind} (it is at {committed})")
            time.sleep(0.3)
        reader.close()

    def close(self) -> None:
        self.watch.close()
        del self.producer  # it would look for the broker for ever
        self.broker.stop()


class Watch:
    """Follows receipts as the store does, but on Kafka: a payload is done when nodes = roots + sum of children."""

    def __init__(self, bootstrap: str) -> None:
        self.reader = Consumer({"bootstrap.servers": bootstrap, "group.id": "watch", "isolation.level": "read_committed"})
        topics = [name for name in TOPOLOGY.stored if name != "hes.reads"]
        self.reader.assign([TopicPartition(topic, n, 0) for topic in topics for n in range(TOPOLOGY.topics[topic].partitions)])
        self.due: Counter[str] = Counter()  # payload → children announced less children seen, each weighed with its parent's id
        self.entries: set[str] = set()
        self.last: dict[tuple[str, int], int] = {}  # place → offset of its last record

    def settle(self, ids: set[str], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while waiting := {id for id in ids if not self.done(id)}:
            if time.monotonic() > deadline:
                raise AssertionError(f"{len(waiting)} of {len(ids)} payloads not settled in {seconds} s, e.g. {sorted(waiting)[:3]}")
            for message in self.reader.consume(1000, 0.2):
                if message.error() is None:
                    self._take(message)

    def done(self, id: str) -> bool:
        return id in self.entries and self.due[id] == 0

    def _take(self, message: Any) -> None:
        self.last[message.topic(), message.partition()] = message.offset()
        headers = dict(message.headers() or ())
        payload = headers.get(PAYLOAD, b"").decode()
        if not payload and message.topic() != "hub.receipts":
            return
        kind = CODEC.name_of(message.value())
        if kind == "Receipt":
            receipt = CODEC.decode(message.value())
            if receipt["agent"] == "ingest":
                self.entries.add(receipt["payload"])
            self._count(receipt["payload"], receipt["id"], receipt["children"], receipt["parent"])
            return
        if kind == "Recall":  # the sink's answer is its child
            self._count(payload, f"recall:{headers[ID].decode()}", 1, "")
        if RECEIPT in headers:
            self._count(payload, "", 0, headers[RECEIPT].decode())

    def _count(self, payload: str, id: str, children: int, parent: str) -> None:
        self.due[payload] += children * hash(id) - (hash(parent) if parent else 0)

    def close(self) -> None:
        self.reader.close()


class Tormentor:
    """Kills, stops and suspends processes at random, and starts again what ended; :meth:`calm` leaves everything running."""

    def __init__(self, chain: Chain, actions: int, seed: int, *, sink: bool = True) -> None:
        self.chain, self.left = chain, actions
        self.done: Counter[str] = Counter()
        self._calm = threading.Event()
        self._stop = threading.Event()
        makers = [lambda: chain.worker(RATE), lambda: chain.worker(RATE), *([chain.sink] if sink else [])]
        self._threads = [threading.Thread(target=self._run, args=(make, random.Random(seed + i))) for i, make in enumerate(makers)]
        for thread in self._threads:
            thread.start()

    def _run(self, make: Any, rng: random.Random) -> None:
        process = make()
        while self._pause(process, rng.uniform(3, 9)):
            if process.poll() is not None:
                self.done["ended"] += 1
                process = make()
            elif self.left > 0 and not self._calm.is_set():
                self.left -= 1
                action = rng.choice(["KILL", "TERM", "STOP"])
                self.done[action] += 1
                process.send_signal(getattr(signal, f"SIG{action}"))
                if action == "STOP":
                    self._stop.wait(9)  # longer than the session: others take over, then it wakes up as a zombie
                    process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _pause(self, process: subprocess.Popen[bytes], seconds: float) -> bool:
        """Waits so long or until the process ends. False when all is to end."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and process.poll() is None:
            if self._stop.wait(0.2):
                return False
        return not self._stop.is_set()

    def calm(self) -> None:
        self._calm.set()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@contextmanager
def undisturbed(chain: Chain) -> Iterator[None]:
    """One worker and the sink, left alone."""
    processes = [chain.worker(0), chain.sink()]
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(120)


def dump(chain: Chain) -> dict[str, list[bytes]]:
    """The store's rows by table, once everything in Kafka has been stored."""
    output = subprocess.run(
        [sys.executable, "-m", "tests.torment.dump_main", str(chain.folder / "store")], cwd=ROOT, capture_output=True, check=True
    ).stdout
    tables = defaultdict(list)
    for line in output.splitlines():
        tables[line[len(b'{"table":"') :].split(b'"')[0].decode()].append(line)
    return dict(tables)
