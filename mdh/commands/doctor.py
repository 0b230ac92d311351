"""``mdh doctor``: is this machine fit for a hub, and is the running hub well?"""

from __future__ import annotations

import json as json_
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mdh.errors import UsageError
from mdh.running import HubClient, data_folder, hub_url, kafka_of, state_of

if TYPE_CHECKING:
    from connectors.kafka.settings import KafkaSettings
    from schemas.topology import Topology

State = Literal["ok", "warn", "fail"]
GIB = 1 << 30
WATCHED_SECONDS = 5.0  # longer than the consumers' commit interval: whoever works has committed in between
MANY_LETTERS = 100


@dataclass(frozen=True)
class Check:
    """One line of the report. ``todo`` says what to do where it is not ok."""

    name: str
    state: State
    detail: str
    todo: str = ""


def main(
    data_dir: Annotated[Path | None, typer.Option(help="Data directory of the hub; default .mdh.")] = None,
    url: Annotated[str | None, typer.Option(help="The gateway of the hub; default: MDH_URL, else the hub of the data directory.")] = None,
    broker: Annotated[str | None, typer.Option(help="Kafka bootstrap servers, where no hub tells them.")] = None,
    topology: Annotated[Path | None, typer.Option(envvar="MDH_TOPOLOGY", help="topology.yaml; default: the one here, else ours.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """Check this machine and, where one runs, the hub: each line ok, warn or fail, with what to do.

    Exit status 1 if anything failed. Nothing is changed. Takes some seconds to see whether consumers move.
    """
    from schemas.topology import TopologyError, load_topology

    checks: list[Check] = []

    def tell(check: Check) -> None:
        checks.append(check)
        if not json:
            print(f"{check.state:<5} {check.name:<14} {check.detail}" + (f"\n{'':21}→ {check.todo}" if check.todo else ""), flush=True)

    for check in machine(data_folder(data_dir)):
        tell(check)
    try:
        system = load_topology(topology)
        tell(Check("topology", "ok", f"{len(system.topics)} topics, {len(system.agents)} agents, {system.partitions} partitions"))
    except TopologyError as error:
        system = None
        tell(Check("topology", "fail", str(error).splitlines()[0], "mend topology.yaml; `mdh topology check` shows all errors"))
    asked = bool(url or os.environ.get("MDH_URL"))
    runs = asked or state_of(data_dir) is not None
    if runs:
        for check in hub_checks(hub_url(url, data_dir)):
            tell(check)
    else:
        tell(Check("hub", "warn", "none runs on this data directory", "start one with `mdh up`, or name one with --url"))
        tell(port_check(8080))
    if system is not None and (runs or broker):
        for check in kafka_checks(system, lambda: kafka_of(broker, url if asked else None, data_dir)):
            tell(check)
    if json:
        print(json_.dumps([asdict(check) for check in checks], indent=1))
    if any(check.state == "fail" for check in checks):
        raise typer.Exit(1)


# --- this machine -----------------------------------------------------------------------------------------------------------


def machine(folder: Path) -> Iterator[Check]:
    """Python, processors, memory, disk, open files, jars and the data directory."""
    import psutil

    version = ".".join(map(str, sys.version_info[:3]))
    fits = (3, 11) <= sys.version_info[:2] < (3, 13)
    yield Check("python", "ok" if fits else "fail", version, "" if fits else "use Python 3.11 or 3.12")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Check("processors", "ok" if cores > 1 else "warn", str(cores), "" if cores > 1 else "two or more keep Kafka and workers apart")
    free = psutil.virtual_memory().available
    state, todo = grade(free, 2 * GIB, GIB // 2, "the embedded Kafka and a worker need about 2 GiB")
    yield Check("memory", state, f"{free / GIB:.1f} GiB free", todo)
    yield disk(folder)
    yield data_directory(folder)
    yield open_files()
    yield jars()


def grade(amount: int, enough: int, least: int, todo: str) -> tuple[State, str]:
    """ok from ``enough`` on, warn from ``least`` on, else fail, with what to do."""
    if amount >= enough:
        return "ok", ""
    return ("warn", todo) if amount >= least else ("fail", todo)


def disk(folder: Path) -> Check:
    """Room where the data directory is or would be."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(there).free
    state, todo = grade(free, 10 * GIB, GIB, f"make room on the disk of {there}, or put the data elsewhere with --data-dir")
    return Check("disk", state, f"{free / GIB:.1f} GiB free at {there}", todo)


def data_directory(folder: Path) -> Check:
    """Whether the data directory can be written."""
    if not folder.exists():
        return Check("data", "ok", f"{folder} is not there yet; the first start makes it")
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        return Check("data", "fail", f"{folder} cannot be written", "give this user the right, or name another with --data-dir")
    return Check("data", "ok", str(folder))


def open_files() -> Check:
    """Kafka keeps a few files open for each partition."""
    try:
        import resource
    except ImportError:
        return Check("open files", "ok", "no limit on this system")
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    enough = limit == resource.RLIM_INFINITY or limit >= 4096
    return Check("open files", "ok" if enough else "warn", str(limit), "" if enough else "raise the limit: `ulimit -n 8192`")


def jars() -> Check:
    """Whether the embedded Kafka is here, as locked."""
    import hashlib

    from connectors.embedded.jars import JarLock, cache_dir

    lock = JarLock.load()
    folder = cache_dir() / f"kafka-{lock.version}"
    missing = [jar.name for jar in lock.jars if not (folder / jar.name).is_file()]
    if missing:
        return Check("kafka jars", "warn", f"{len(missing)} of {len(lock.jars)} not fetched yet", "the first `mdh up` fetches them")
    wrong = [jar.name for jar in lock.jars if hashlib.sha256((folder / jar.name).read_bytes()).hexdigest() != jar.sha256]
    if wrong:
        return Check("kafka jars", "fail", f"{wrong[0]} is not the locked one", f"delete {folder / wrong[0]}; the next start fetches it")
    return Check("kafka jars", "ok", f"Kafka {lock.version}, {len(lock.jars)} jars verified")


def port_check(port: int) -> Check:
    """Whether the gateway's usual port is free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return Check("port", "warn", f"{port} is taken", "stop what uses it, or start with `mdh up --port N`")
    return Check("port", "ok", f"{port} is free")


# --- the hub ----------------------------------------------------------------------------------------------------------------


def hub_checks(url: str) -> Iterator[Check]:
    """Gateway, readiness, and how old what came through the chain is."""
    with HubClient(url, patience=5) as hub:
        try:
            about = hub.get("/v1/hub")
        except UsageError as error:
            yield Check("hub", "fail", str(error), "look into the logs of its data directory, or start it with `mdh up`")
            return
        yield Check("hub", "ok", f"{url}, version {about.get('version')}, store {about.get('store')}")
        try:
            health = hub.call("GET", "/health/ready", accept=frozenset({503})).json()
            answer = hub.call("POST", "/v1/settle", json={"ids": []}).json()
        except UsageError as error:
            yield Check("ready", "fail", str(error), "look into the log of the hub process")
            return
    reasons = health.get("reasons", [])
    yield Check("ready", "fail" if reasons else "ok", "; ".join(reasons) or "reads can flow", "see the lines below" if reasons else "")
    tick = answer["settled_tick"]
    if tick is None:
        yield Check("chain", "fail", "no tick has come through yet", "check that workers run and read their logs")
        return
    age = max(answer["now"] - tick, 0)
    state, todo = grade(-age, -15, -60, "workers or sink are behind or gone: see lag below and their logs")
    yield Check("chain", state, f"a tick of {age} s ago has gone through everything into the store", todo)


# --- Kafka ------------------------------------------------------------------------------------------------------------------


def kafka_checks(system: Topology, find: Callable[[], KafkaSettings]) -> Iterator[Check]:
    """Broker, topics, consumers and dead letters."""
    from connectors.head_end.dead_letters import DeadLetters, DeadLettersError
    from connectors.kafka.admin import Administrator, BrokerError, plan

    try:
        kafka = find()
        cluster = Administrator(kafka, timeout=10).look(system.topics)
    except (UsageError, BrokerError, ValueError) as error:
        yield Check("kafka", "fail", str(error), "start the broker, or name the right one with --broker")
        return
    yield Check("kafka", "ok", f"{kafka.bootstrap}, {cluster.brokers} broker{'s' if cluster.brokers != 1 else ''}")
    differences = plan(system, cluster)
    missing = [it for it in differences if it.action == "create"]
    state: State = "fail" if missing else "warn" if differences else "ok"
    said = differences[0].sentence() + (f"; and {len(differences) - 1} more" if len(differences) > 1 else "") if differences else ""
    yield Check("topics", state, said or "as in topology.yaml", "`mdh topology plan` shows all, `apply` mends" if differences else "")
    if missing:
        return
    yield from consumers(system, kafka)
    topics = [agent.dead for agent in system.agents.values() if agent.dead]
    try:
        with DeadLetters(kafka, topics, system.group("operations"), patience=10) as letters:
            waiting = len(letters.waiting())
    except DeadLettersError as error:
        yield Check("dead letters", "fail", str(error), "check the broker")
        return
    state = "ok" if not waiting else "warn"
    yield Check("dead letters", state, f"{waiting} wait" if waiting else "none wait", "`mdh dlq ls` shows them" if waiting else "")


def consumers(system: Topology, kafka: KafkaSettings, seconds: float = WATCHED_SECONDS) -> Iterator[Check]:
    """Lag of sink and agents, and whether they move: two looks, some seconds apart."""
    groups = {"sink": (system.group("sink"), system.stored)}
    for crew, members in system.crews.items():
        groups[crew] = (system.group(crew), [topic for name in members for topic in system.agents[name].reads])
    first = {name: positions(kafka, group, topics) for name, (group, topics) in groups.items()}
    time.sleep(seconds)
    for name, (group, topics) in groups.items():
        yield judge(name, first[name], positions(kafka, group, topics))


Positions = Mapping[tuple[str, int], tuple[int, int]]  # (topic, partition) → committed offset (below 0: none), log end


def positions(kafka: KafkaSettings, group: str, topics: list[str]) -> Positions:
    """Committed offsets and log ends of a group."""
    from confluent_kafka import TopicPartition

    from connectors.kafka.client import consumer

    looking: Any = consumer(kafka, group)
    try:
        known = looking.list_topics(timeout=10).topics
        places = [TopicPartition(topic, number) for topic in topics if topic in known for number in known[topic].partitions]
        found: dict[tuple[str, int], tuple[int, int]] = {}
        for place in looking.committed(places, timeout=10):
            _, end = looking.get_watermark_offsets(TopicPartition(place.topic, place.partition), timeout=10)
            found[place.topic, place.partition] = (place.offset, end)
        return found
    finally:
        looking.close()


def judge(name: str, before: Positions, after: Positions) -> Check:
    """A group is frozen where the log has moved and its offset has not; lag alone may be a load being worked off."""
    if all(offset < 0 for offset, _ in after.values()):
        return Check(f"lag {name}", "warn", "has committed nothing yet", "normal in the first seconds; else start it")
    lag = sum(max(end - max(offset, 0), 0) for offset, end in after.values())
    frozen = [
        place
        for place, (offset, end) in after.items()
        if place in before and end > before[place][1] and offset == before[place][0] and end > max(offset, 0)
    ]
    # Transactions leave a marker behind that nobody reads, so a partition or two may look still for a moment
    if frozen and len(frozen) == len([place for place in after if place in before and after[place][1] > before[place][1]]):
        topic, partition = frozen[0]
        return Check(
            f"lag {name}", "fail", f"{lag} records; {topic}/{partition} does not move", "its process is gone or stuck: read its log"
        )
    return Check(f"lag {name}", "ok", f"{lag} records, moving" if lag else "none")
