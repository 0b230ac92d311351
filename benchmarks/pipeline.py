"""``mdh bench pipeline``: a backlog on a real broker through the hub into the store, against the same rules read by read.

All on one machine in turn: the broker stays, one contender runs at a time. The results of the peers' part of the load are
compared, value for value, before any rate is given. A contender's clock runs from its first record to its last result: for the hub
that is the last row in the store, for the peers the last record on their output topic.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import orjson
import yaml
from confluent_kafka import OFFSET_BEGINNING, TopicPartition
from confluent_kafka.admin import NewTopic

from benchmarks.load import FIRST_DAY, SLOTS, Load
from benchmarks.vee import BARE
from connectors.embedded.kafka import Broker
from connectors.head_end.publish import MEGABYTE, Publisher, Writer
from connectors.kafka.admin import Administrator
from connectors.kafka.client import administrator, consumer, producer
from connectors.kafka.settings import KafkaSettings
from mdh.errors import UsageError
from mdh.simulation.hub import HubAt
from schemas.quantity import parse
from schemas.topology import load_topology

HERE = Path(__file__).resolve().parent
PARTITIONS = 4
PATIENCE = 900.0
MAIN_PATH = ("ingest", "vee", "determinants")
Key = tuple[str, int]  # device, day
Results = dict[Key, dict[str, Any]]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much each contender gets: channels and days. The peers' reads are the first of the hub's."""

    channels: int = 20_000
    days: int = 7
    faust_channels: int = 300
    quix_channels: int = 300


def run(sizes: Sizes, say: Say) -> dict[str, Any]:
    """The figures. Raises UsageError where the results differ."""
    load = Load(sizes.channels, sizes.days)
    with tempfile.TemporaryDirectory(prefix="mdh-bench-") as name:
        folder = Path(name)
        with Broker(folder / "kafka", say=say) as broker:
            say(f"hub: {load.reads:,} reads of {load.channels:,} channels")
            ours, json_rate, rate = hub(broker.bootstrap, folder, load, max(sizes.faust_channels, sizes.quix_channels), say)
            figures: dict[str, Any] = {
                "reads": load.reads, "ours_reads_per_s": round(rate), "ours_decode_reads_per_s": round(json_rate),
            }  # fmt: skip
            equal = True
            for peer, channels, command in (("faust", sizes.faust_channels, _faust()), ("quix", sizes.quix_channels, _quix(say))):
                say(f"{peer}: {channels * SLOTS:,} reads of {channels:,} channels")
                theirs, theirs_rate = read_by_read(peer, command, broker.bootstrap, folder, load, channels, say)
                differ = compare(ours, theirs)
                if differ:
                    raise UsageError(f"{peer} and the hub differ in {len(differ)} channel days, first {differ[0]}")
                figures |= {f"{peer}_reads_per_s": round(theirs_rate), f"ratio_{peer}": round(rate / theirs_rate, 1)}
    return figures | {"equal": equal}


# --- the hub -----------------------------------------------------------------------------------------------------------------


def cost_of_rules(channels: int, days: int, rounds: int, say: Say) -> dict[str, Any]:
    """What share of its speed the pipeline keeps with all rules, against one that only takes reads in: in turn, medians over rounds."""
    load, rates = Load(channels, days), {"bare": list[float](), "full": list[float]()}
    for number in range(rounds):
        for name in ("bare", "full") if number % 2 == 0 else ("full", "bare"):
            say(f"round {number + 1} of {rounds}, {name}: {load.reads:,} reads of {load.channels:,} channels")
            with tempfile.TemporaryDirectory(prefix="mdh-bench-") as place, Broker(Path(place) / "kafka", say=say) as broker:
                rates[name].append(hub(broker.bootstrap, Path(place), load, 1, say, bare=name == "bare")[2])
    middle = {name: median(found) for name, found in rates.items()}
    return {
        "reads": load.reads, "rounds": rounds, "full_reads_per_s": round(middle["full"]), "bare_reads_per_s": round(middle["bare"]),
        "kept": round(middle["full"] / middle["bare"], 3), "aim_kept": 0.75,
    }  # fmt: skip


def hub(broker: str, folder: Path, load: Load, compared: int, say: Say, *, bare: bool = False) -> tuple[Results, float, float]:
    """Results of the first channels' first day; reads/s of decoding into the inbox, and of everything behind it up to the store."""
    kafka = KafkaSettings(bootstrap=broker)
    chain = _chain_alone(folder, bare=bare)
    Administrator(kafka).apply(load_topology(chain))
    ids = _publish(kafka, load)
    log = folder / "ingest.log"
    with _process(_mdh("worker", broker, folder / "data", "--agents", "ingest", "--topology", str(chain)), log):
        began = _logged(log, "assigned")
        _decoded(kafka, len(ids))
        decoding = load.reads / (time.time() - began)
    say(f"  decoded {decoding:,.0f} reads/s")
    with settled(broker, folder, ids, "vee,determinants", chain, load.channels * load.days) as (there, seconds):
        rate = load.reads / seconds
        say(f"  {rate:,.0f} reads/s into the store")
        return _results(there, compared), decoding, rate


@contextmanager
def settled(
    broker: str, folder: Path, ids: list[str], agents: str = "", topology: Path | None = None, days: int = 0,
) -> Iterator[tuple[HubAt, float]]:  # fmt: skip
    """A hub and a worker that have stored all payloads (``days``: which lead to so many channel days at least), and the seconds since
    the worker had its partitions."""
    port, log = _free_port(), folder / "worker.log"
    system = ["--topology", str(topology)] if topology else []
    with (
        _process([*_mdh("hub", broker, folder / "data"), "--port", str(port), *system], folder / "hub.log"),
        HubAt(f"http://127.0.0.1:{port}") as there,
    ):
        _answers(there)
        with _process(_mdh("worker", broker, folder / "data", "--agents", agents, *system), log):
            began = _logged(log, "assigned")
            _stored(there, ids, days)
            yield there, time.time() - began


def _chain_alone(folder: Path, *, bare: bool = False) -> Path:
    """The default topology with the agents of the main path only: the peers neither learn nor keep To-Dos, accounts and conversations.

    ``bare``: with no rules but those that take reads in.
    """
    system = yaml.safe_load((Path(__file__).parent.parent / "topology.yaml").read_text())
    agents, topics = system["agents"], system["topics"]
    if bare:
        system["vee"] = {**{k: v for k, v in system.get("vee", {}).items() if k not in ("preset", "groups", "roles")}, **BARE}
    others = [name for name in agents if name not in MAIN_PATH]
    for name in others:
        del agents[name]
    for name, topic in list(topics.items()):
        for side in ("readers", "writers"):
            topic[side] = [who for who in topic[side] if who not in others]
        if not topic["readers"] or not topic["writers"]:
            del topics[name]
    for agent in agents.values():
        for side in ("plain", "outputs"):
            agent[side] = [topic for topic in agent.get(side, []) if topic in topics]
    path = folder / "topology.yaml"
    path.write_text(yaml.safe_dump(system, sort_keys=False, allow_unicode=True))
    return path


def _publish(kafka: KafkaSettings, load: Load) -> list[str]:
    """Puts the backlog onto the raw topic, spread over sources so that all partitions have work."""
    writer = Writer(kafka, max_bytes=32 * MEGABYTE)
    publisher = Publisher(writer, "hes.reads", max_payload_bytes=32 * MEGABYTE)
    ids = []
    for source, name, data in load.payloads():
        ids.append(publisher.publish(data, source=source, name=name))
    writer.close()
    return ids


def _stored(there: HubAt, ids: list[str], days: int) -> None:
    """Returns when everything is in the store. What the hub counts of its own rows is looked at first, which costs the store nothing."""
    deadline = time.monotonic() + PATIENCE
    while (rows := _rows(there)) < days:
        _pause(deadline, 0.1 if rows > 0.9 * days else 0.5)
    open_ids = list(ids)
    while open_ids:
        answer = there.call("POST", "/v1/settle", json={"ids": open_ids[-1:], "wait": 0}).json()
        if answer["waiting"]:
            _pause(deadline, 0.1)
        else:
            open_ids = [id for a in range(0, len(ids), 5000) for id in _waiting(there, ids[a : a + 5000])]


def _pause(deadline: float, seconds: float) -> None:
    if time.monotonic() > deadline:
        raise UsageError(f"the hub has not stored everything after {PATIENCE:.0f} s")
    time.sleep(seconds)


def _rows(there: HubAt) -> int:
    """Channel days the hub has stored, by its own count."""
    found = re.search(r'^mdh_store_rows_total{table="final_days"} (\S+)', there.call("GET", "/metrics").text, re.MULTILINE)
    return int(float(found[1])) if found else 0


def _waiting(there: HubAt, ids: list[str]) -> list[str]:
    answer: dict[str, Any] = there.call("POST", "/v1/settle", json={"ids": ids, "wait": 0}).json()
    waiting: list[str] = answer["waiting_ids"]
    return waiting


def _results(there: HubAt, channels: int) -> Results:
    """Finals, exceptions and sums by time of use of the first channels' first day, as the peers write them."""
    last = f"B{channels:07d}"
    where = f"device < '{last}'"
    results: Results = {}
    for row in there.sql(
        "SELECT device, toUInt32(any(day)) AS number, arraySort(x -> x.1, groupArray((start, value, condition))) AS slots"
        f" FROM intervals WHERE {where} AND day = toDate({FIRST_DAY}) GROUP BY device"
    ):
        values = [parse(str(slot[1])) if slot[1] is not None else 0 for slot in row["slots"]]
        results[row["device"], int(row["number"])] = {"values": values, "codes": [slot[2] for slot in row["slots"]], "found": {}, "tou": {}}
    day = "toUInt32(toDate({}, 'UTC'))"
    for row in there.sql(f"SELECT device, {day.format('start')} AS number, rule, count FROM exceptions WHERE {where}"):
        if (row["device"], int(row["number"])) in results:
            results[row["device"], int(row["number"])]["found"][row["rule"]] = int(row["count"])
    for row in there.sql(
        f"SELECT device, {day.format('period_start')} AS number, tou, quantity FROM determinants"
        f" WHERE {where} AND kind = 'tou-interval-consumption-daily'"
    ):
        if (row["device"], int(row["number"])) in results:
            results[row["device"], int(row["number"])]["tou"][row["tou"]] = parse(str(row["quantity"]))
    return results


# --- the peers -----------------------------------------------------------------------------------------------------------------


def read_by_read(peer: str, command: list[str], broker: str, folder: Path, load: Load, channels: int, say: Say) -> tuple[Results, float]:
    """Results and reads/s of one peer over the first channels' first day."""
    kafka = KafkaSettings(bootstrap=broker)
    reads, days = f"bench.{peer}.reads", f"bench.{peer}.days"
    admin = administrator(kafka)
    for future in admin.create_topics([NewTopic(topic, PARTITIONS, 1) for topic in (reads, days)]).values():
        future.result()
    write = producer(kafka, queue_buffering_max_messages=1_000_000)
    for key, value in load.messages(channels, 1):
        write.produce(reads, value, key)
        write.poll(0)
    write.flush(60)
    log = folder / f"{peer}.log"
    with _process(command, log, peer_environment(broker, folder / peer, reads, days)) as process:
        results = _collect(kafka, days, channels, process)
        ended = time.time()
        first = re.search(r"first (\d+\.\d+)", log.read_text())
    if first is None:
        raise UsageError(f"{peer} gave results without having begun")
    rate = channels * SLOTS / (ended - float(first[1]))
    say(f"  {rate:,.0f} reads/s")
    return results, rate


def peer_environment(broker: str, data: Path, reads: str, days: str) -> dict[str, str]:
    """What a peer is told."""
    data.mkdir()
    names = {"BROKER": broker, "READS": reads, "DAYS": days, "DATA": str(data), "PARTITIONS": str(PARTITIONS)}
    return {**os.environ, "PYTHONUNBUFFERED": "1", **{f"BENCH_{name}": value for name, value in names.items()}}


def _collect(kafka: KafkaSettings, topic: str, wanted: int, process: subprocess.Popen[bytes]) -> Results:
    reader = consumer(kafka, f"bench-{topic}")
    reader.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(PARTITIONS)])
    results: Results = {}
    deadline = time.monotonic() + PATIENCE
    while len(results) < wanted and time.monotonic() < deadline and process.poll() is None:
        for message in reader.consume(500, 0.2):
            if message.error() is None:
                day = orjson.loads(message.value())
                results[day.pop("device"), day.pop("day")] = {name: day[name] for name in ("values", "codes", "found", "tou")}
    reader.close()
    if len(results) < wanted:
        raise UsageError(f"{topic}: {len(results)} of {wanted} channel days came")
    return results


def compare(ours: Results, theirs: Results) -> list[Key]:
    """Channel days on which a peer's result is not the hub's."""
    return [key for key, result in theirs.items() if ours.get(key) != result]


def _faust() -> list[str]:
    return [sys.executable, str(HERE / "peers" / "faust_agent" / "agent.py"), "worker", "-l", "warn", "--without-web"]


def _quix(say: Say) -> list[str]:
    """The peer's interpreter: its pins clash with ours, so it lives in an environment of its own, made on first use."""
    home = HERE / "peers" / "quix"
    python = home / ".venv" / "bin" / "python"
    if not python.exists():
        say("setting up the environment of Quix Streams")
        subprocess.run([sys.executable, "-m", "venv", str(home / ".venv")], check=True)
        pip = [str(python), "-m", "pip", "install", "-q", "-r", str(home / "requirements.txt")]
        if subprocess.run(pip, check=False).returncode:
            shutil.rmtree(home / ".venv")
            raise UsageError("Quix Streams could not be installed: see above")
    return [str(python), str(home / "app.py")]


# --- processes -----------------------------------------------------------------------------------------------------------------


def _mdh(command: str, broker: str, data: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "mdh", command, "--broker", broker, "--data-dir", str(data), *more]


@contextmanager
def _process(command: list[str], log: Path, environment: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a command, its output in a log; ended with TERM, then KILL. What it said last is told if it ended by itself."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment, cwd=HERE.parent, start_new_session=True)
    try:
        yield process
    except UsageError as error:
        tail = log.read_text(errors="replace")[-600:]
        raise UsageError(f"{error}; {log.name}: …{tail}") from None
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _logged(log: Path, event: str, seconds: float = 300.0) -> float:
    """When the event stood in a JSON log for the first time, seconds since 1970."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for line in log.read_text(errors="replace").splitlines():
            if f'"event":"{event}"' in line:
                return datetime.fromisoformat(json.loads(line)["at"]).timestamp()
        time.sleep(0.02)
    raise UsageError(f"{log.name}: no {event!r} within {seconds:.0f} s")


def _decoded(kafka: KafkaSettings, wanted: int) -> None:
    """Returns when as many payloads are decoded: each has its receipt then."""
    reader = consumer(kafka, "bench-receipts")
    reader.assign([TopicPartition("hub.receipts", number, OFFSET_BEGINNING) for number in range(PARTITIONS)])
    deadline, seen = time.monotonic() + PATIENCE, 0
    while seen < wanted:
        seen += sum(1 for message in reader.consume(500, 0.1) if message.error() is None)
        if time.monotonic() > deadline:
            raise UsageError(f"{seen} of {wanted} payloads decoded after {PATIENCE:.0f} s")
    reader.close()


def _answers(there: HubAt, seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            there.sql("SELECT 1")
            return
        except UsageError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _free_port() -> int:
    from connectors.embedded.place import Port

    return Port().number
