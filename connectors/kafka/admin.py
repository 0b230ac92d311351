# mypy: disable-error-code="attr-defined"
# confluent_kafka.admin re-exports these names without saying so
"""Makes a broker's topics what topology.yaml says: look, compare, apply. The comparison is pure.

Nothing is deleted unless named, and partitions are added only when asked for: keys move with them, state does not.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from connectors.kafka.client import administrator
from connectors.kafka.settings import KafkaSettings
from schemas.topology import Topology

Action = Literal["create", "config", "partitions", "conflict"]
TIMEOUT: Final = 15.0  # seconds until a cluster that does not answer at all is told
PATIENCE: Final = 120.0  # seconds for one that answers to do what it was asked: a hundred topics at once take their time
_PATIENTLY: Final = {"operation_timeout": PATIENCE, "request_timeout": PATIENCE + 10}


class BrokerError(Exception):
    """The cluster does not answer, or refuses what was asked; one line."""


class AlreadyThereError(BrokerError):
    """A topic to be created is there."""


@dataclass(frozen=True, slots=True)
class ActualTopic:
    """A topic as it is. ``config`` holds only what was set on the topic itself."""

    partitions: int
    replication: int
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cluster:
    """What a broker said of its cluster."""

    brokers: int
    topics: Mapping[str, ActualTopic]
    leaderless: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as written. A ``conflict`` cannot be mended by :func:`apply`; ``note`` says what can."""

    topic: str
    action: Action
    setting: str
    wanted: str | None
    found: str | None
    note: str = ""

    def sentence(self) -> str:
        """The difference in words."""
        if self.action == "create":
            return f"{self.topic}: missing; create with {self.wanted}"
        change = f"{self.found if self.found is not None else 'unset'} → {self.wanted if self.wanted is not None else 'unset'}"
        return f"{self.topic}: {self.setting} {change}" + (f" ({self.note})" if self.note else "")


def wanted(topology: Topology, name: str, brokers: int) -> ActualTopic:
    """A topic as it should be on a cluster of so many brokers. Three copies or more also make two of them obligatory."""
    declared = topology.topics[name]
    copies = min(declared.replication, max(brokers, 1))
    config = declared.kafka_config()
    if copies >= 3:
        config.setdefault("min.insync.replicas", "2")
    return ActualTopic(declared.partitions, copies, config)


def plan(topology: Topology, cluster: Cluster) -> list[Difference]:
    """All differences, in the order of the file."""
    found: list[Difference] = []
    for name in topology.topics:
        aim, actual = wanted(topology, name, cluster.brokers), cluster.topics.get(name)
        if actual is None:
            text = f"{aim.partitions} partitions, {aim.replication} copies, " + ", ".join(f"{k}={v}" for k, v in aim.config.items())
            found.append(Difference(name, "create", "topic", text, None))
            continue
        found += _compare(name, aim, actual)
    return found


def _compare(name: str, aim: ActualTopic, actual: ActualTopic) -> list[Difference]:
    found: list[Difference] = []
    if actual.partitions != aim.partitions:
        more = actual.partitions < aim.partitions
        note = (
            "keys move to other partitions and state does not follow; only with --add-partitions"
            if more
            else "Kafka cannot take partitions away: keep the number, or start with a new topic"
        )
        action: Action = "partitions" if more else "conflict"
        found.append(Difference(name, action, "partitions", str(aim.partitions), str(actual.partitions), note))
    if actual.replication != aim.replication:
        note = "use kafka-reassign-partitions"
        found.append(Difference(name, "conflict", "replication", str(aim.replication), str(actual.replication), note))
    for setting in sorted({*aim.config, *actual.config}):
        want, have = aim.config.get(setting), actual.config.get(setting)
        if want != have:
            found.append(Difference(name, "config", setting, want, have))
    return found


def unknown(topology: Topology, cluster: Cluster) -> list[str]:
    """Topics of the broker that the topology does not name, Kafka's own left out."""
    return sorted(name for name in cluster.topics if name not in topology.topics and not name.startswith("_"))


class Administrator:
    """Looks at a cluster and changes it. Every method raises BrokerError where the cluster does not answer or refuses."""

    def __init__(self, settings: KafkaSettings, client: AdminClient | None = None, timeout: float = TIMEOUT) -> None:
        self.settings, self.timeout = settings, timeout
        self._client = client or administrator(settings)

    def look(self, names: Iterable[str]) -> Cluster:
        """The cluster as it is, with the settings of the named topics."""
        try:
            metadata = self._client.list_topics(timeout=self.timeout)
        except KafkaException as error:
            raise BrokerError(f"no Kafka broker answers at {self.settings.bootstrap}: {error.args[0].str()}") from None
        wanted_names = set(names)
        present = {name: topic for name, topic in metadata.topics.items() if topic.error is None}
        configs = self._configs([name for name in present if name in wanted_names])
        topics = {}
        for name, topic in present.items():
            copies = min((len(p.replicas) for p in topic.partitions.values()), default=0)
            topics[name] = ActualTopic(len(topic.partitions), copies, configs.get(name, {}))
        leaderless = frozenset(n for n, topic in present.items() if any(p.leader < 0 for p in topic.partitions.values()))
        return Cluster(len(metadata.brokers), topics, leaderless)

    def _configs(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        if not names:
            return {}
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
        answers = self._client.describe_configs(resources, request_timeout=PATIENCE)
        configs: dict[str, dict[str, str]] = {}
        for resource, future in answers.items():
            entries = self._result(future, f"settings of {resource.name}")
            own = (entry for entry in entries.values() if entry.source == ConfigSource.DYNAMIC_TOPIC_CONFIG.value)
            configs[resource.name] = {entry.name: entry.value for entry in own if entry.value is not None}
        return configs

    def apply(
        self, topology: Topology, *, add_partitions: bool = False, delete: Sequence[str] = ()
    ) -> tuple[list[Difference], list[Difference]]:
        """Mends the differences; returns those mended and those left. ``delete`` names topics outside the topology to remove."""
        for name in delete:
            if name in topology.topics:
                raise BrokerError(f"{name} is in the topology; take it out there before deleting it")
        cluster = self.look(topology.topics)
        missing = [name for name in delete if name not in cluster.topics]
        if missing:
            raise BrokerError(f"there is no topic {', '.join(missing)} to delete")
        found = plan(topology, cluster)
        mended = [d for d in found if d.action in ("create", "config") or (d.action == "partitions" and add_partitions)]
        others = self._create(topology, [d.topic for d in mended if d.action == "create"], cluster.brokers)
        self._alter([d for d in mended if d.action == "config"])
        self._grow({d.topic: int(d.wanted or 0) for d in mended if d.action == "partitions"})
        if delete:
            for name, future in self._client.delete_topics(list(delete), **_PATIENTLY).items():
                self._result(future, f"deleting {name}")
        self._settle(topology, mended, delete)
        left = [d for d in found if d not in mended]
        if others:  # somebody else created these since we looked: they may differ
            more, left = self.apply(topology, add_partitions=add_partitions)
            mended = [d for d in mended if d.action != "create" or d.topic not in others] + more
        return mended, left

    def _create(self, topology: Topology, names: Sequence[str], brokers: int) -> set[str]:
        """Creates topics; returns those that were there already."""
        fresh: list[NewTopic] = []
        others: set[str] = set()
        for name in names:
            aim = wanted(topology, name, brokers)
            config = dict(aim.config)
            fresh.append(NewTopic(name, num_partitions=aim.partitions, replication_factor=aim.replication, config=config))
        if not fresh:
            return others
        for name, future in self._client.create_topics(fresh, **_PATIENTLY).items():
            try:
                self._result(future, f"creating {name}")
            except AlreadyThereError:
                others.add(name)
        return others

    def _alter(self, differences: Sequence[Difference]) -> None:
        entries: dict[str, list[ConfigEntry]] = {}
        for change in differences:
            operation = AlterConfigOpType.DELETE if change.wanted is None else AlterConfigOpType.SET
            entries.setdefault(change.topic, []).append(ConfigEntry(change.setting, change.wanted, incremental_operation=operation))
        resources = [ConfigResource(ResourceType.TOPIC, name, incremental_configs=changes) for name, changes in entries.items()]
        if not resources:
            return
        for resource, future in self._client.incremental_alter_configs(resources, request_timeout=PATIENCE).items():
            self._result(future, f"settings of {resource.name}")

    def _grow(self, sizes: Mapping[str, int]) -> None:
        if not sizes:
            return
        wishes = [NewPartitions(name, size) for name, size in sizes.items()]
        for name, future in self._client.create_partitions(wishes, **_PATIENTLY).items():
            self._result(future, f"partitions of {name}")

    def _settle(self, topology: Topology, mended: Sequence[Difference], deleted: Sequence[str]) -> None:
        """Waits until the cluster shows what was changed, with a leader for each partition, so that workers can start at once."""
        until = time.monotonic() + PATIENCE
        waiting = [d.sentence() for d in mended] + [f"{name}: deleted" for name in deleted]
        while waiting and time.monotonic() < until:
            cluster = self.look(topology.topics)
            changes = {(d.topic, d.setting) for d in mended}
            waiting = [d.sentence() for d in plan(topology, cluster) if (d.topic, d.setting) in changes]
            waiting += [f"{name}: deleted" for name in deleted if name in cluster.topics]
            waiting += [f"{name}: without a leader" for name in {d.topic for d in mended} & cluster.leaderless]
            if waiting:
                time.sleep(0.1)
        if waiting:
            raise BrokerError(f"the cluster does not show after {PATIENCE:.0f} s: {'; '.join(sorted(waiting))}")

    @staticmethod
    def _result(future: Future[Any], what: str) -> Any:
        try:
            return future.result()
        except KafkaException as error:
            reason = error.args[0]
            if reason.code() == KafkaError.TOPIC_ALREADY_EXISTS:
                raise AlreadyThereError(f"{what}: it is there already") from None
            raise BrokerError(f"{what}: {reason.str()}") from None
