"""The whole of topology.yaml as one model, and the checks that need more than one section."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Self
from zoneinfo import available_timezones

from pydantic import AfterValidator, Field, PrivateAttr, model_validator

from schemas.topology.agents import Agent
from schemas.topology.base import Section
from schemas.topology.commands import CommandSettings
from schemas.topology.enterprise import EnterpriseSettings
from schemas.topology.ingest import IngestSettings
from schemas.topology.insights import InsightsSettings
from schemas.topology.prepaid import PrepaidSettings
from schemas.topology.profiles import Profile
from schemas.topology.rights import RightsSettings
from schemas.topology.subscribers import DeliverySettings, KafkaTopic, Subscriber, Subscribers
from schemas.topology.todo import TodoSettings
from schemas.topology.topics import MAX_PARTITIONS, RAW, Topic
from schemas.topology.tou import DeterminantsSettings
from schemas.topology.usage import UsageSettings
from schemas.topology.vee import VeeSettings

Finding = tuple[tuple[str | int, ...], str]
"""Where (keys from the top) and what is wrong there."""

ROOM = 64 * 1024  # headers, key and framing beside a payload


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def _zone(name: str) -> str:
    if name not in _zones():
        raise ValueError(f"must be an IANA time zone such as Europe/Berlin, not {name!r}")
    return name


Zone = Annotated[str, AfterValidator(_zone)]


class Clock(Section):
    """The tick clock: the only source of time the agents have."""

    tick_seconds: int = Field(default=2, ge=1, le=3600, description="Seconds between two ticks")


@dataclasses.dataclass(frozen=True)
class Source:
    """The text a topology was read from. Two topologies that say the same are equal, however they are written."""

    text: str = dataclasses.field(default="", compare=False)


class Topology(Section):
    """The system on one page. Sections that are left out have the defaults of docs/topology-reference.md."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,39}$", description="Names consumer groups, transactions and principals")
    zone: Zone = Field(default="UTC", description="Zone of service points for which master data names none")
    partitions: int = Field(default=4, gt=0, le=MAX_PARTITIONS, description="Of every topic that does not say otherwise")
    replication: int = Field(default=1, gt=0, le=9, description="Copies of every topic that does not say otherwise")
    parties: dict[str, str] = Field(description="Who else writes or reads topics, each with one sentence")
    topics: dict[str, Topic] = Field(description="All topics, by name")
    agents: dict[str, Agent] = Field(description="All agents, by name")
    clock: Clock = Field(default_factory=Clock, description="Time")
    ingest: IngestSettings = Field(default_factory=IngestSettings, description="What is taken in")
    vee: VeeSettings = Field(default_factory=VeeSettings.default, description="What is checked and estimated")
    determinants: DeterminantsSettings = Field(default_factory=DeterminantsSettings.default, description="What is summed for billing")
    usage: UsageSettings = Field(default_factory=UsageSettings, description="What is calculated for usage subscriptions")
    commands: CommandSettings = Field(default_factory=CommandSettings, description="Bulk orders of people")
    insights: InsightsSettings = Field(default_factory=InsightsSettings, description="What is told of unusual consumption")
    enterprise: EnterpriseSettings = Field(default_factory=EnterpriseSettings, description="Conversations with CIS and billing")
    delivery: DeliverySettings = Field(default_factory=DeliverySettings, description="Rules for all subscribers")
    subscribers: Subscribers = Field(default_factory=dict, description="Who is told of what; more by `/v1/subscribers`")
    prepaid: PrepaidSettings = Field(default_factory=PrepaidSettings, description="Prepaid accounts: tariffs, thresholds, supply")
    rights: RightsSettings = Field(default_factory=RightsSettings, description="Who may do what: roles, login, sessions")
    todo: TodoSettings = Field(default_factory=TodoSettings, description="To-Dos: types, routes, deadlines")
    profiles: dict[str, Profile] = Field(default_factory=dict, description="Mapping profiles for other people's CSV headers")
    _source: Source = PrivateAttr(default_factory=Source)

    @model_validator(mode="before")
    @classmethod
    def _fill_topics(cls, data: Any) -> Any:
        """Gives each topic the partitions and replication of the whole where it names none."""
        if not isinstance(data, dict) or not isinstance(data.get("topics"), dict):
            return data
        common = {}
        for name in ("partitions", "replication"):  # one that is no count is reported once, at the top
            value = data.get(name)
            common[name] = value if type(value) is int and value > 0 else cls.model_fields[name].default
        topics = {name: common | topic if isinstance(topic, dict) else topic for name, topic in data["topics"].items()}
        return data | {"topics": topics}

    @property
    def text(self) -> str:
        """The file this was read from, comments and all; empty where it was made otherwise."""
        return self._source.text

    def read_from(self, text: str) -> Self:
        """Notes the text this was read from; returns itself."""
        self._source = Source(text)
        return self

    def completed(self) -> Self:
        """With what sections take from the top where they say nothing themselves: the zone of VEE."""
        return self if self.vee.zone else self.model_copy(update={"vee": self.vee.model_copy(update={"zone": self.zone})})

    @property
    def stored(self) -> list[str]:
        """The topics the sink stores, in the order of the file."""
        return [name for name, topic in self.topics.items() if topic.stored]

    @property
    def crews(self) -> dict[str, list[str]]:
        """Which agents share a worker, by crew; the chain's crew ``agents`` first."""
        found: dict[str, list[str]] = {"agents": []}
        for name, agent in self.agents.items():
            found.setdefault(agent.crew, []).append(name)
        return found

    def group(self, member: str) -> str:
        """The consumer group of an agent or party: ``<name>.<member>``."""
        return f"{self.name}.{member}"


def findings(topology: Topology, records: frozenset[str]) -> Iterator[Finding]:
    """All that does not fit together across sections. ``records`` are the known record types."""
    yield from _topic_findings(topology, records)
    for name, agent in topology.agents.items():
        yield from _agent_findings(topology, name, agent)
    yield from _flow_findings(topology)
    yield from (((("vee", *place), what)) for place, what in topology.vee.problems())
    yield from ((("enterprise", *place), what) for place, what in topology.enterprise.problems())
    for id_, subscriber in topology.subscribers.items():
        yield from ((("subscribers", id_, *place), what) for place, what in subscriber_findings(topology, subscriber))
    known = {tou.id for tou in topology.determinants.maps}
    yield from (
        (("usage", *place), f"there is no map {name!r} among determinants.maps")
        for place, name in topology.usage.maps()
        if name not in known
    )
    need = topology.ingest.limits.payload_bytes + ROOM
    for topic in {topology.agents[a].inbox for a in topology.agents if topology.agents[a].entry}:
        declared = topology.topics.get(topic)
        room = declared.largest if declared else need
        if room < need:
            yield (
                ("topics", topic, "config"),
                f"max.message.bytes must be at least {need} to carry a payload of ingest.limits.payload_bytes, not {room}",
            )


def _topic_findings(topology: Topology, records: frozenset[str]) -> Iterator[Finding]:
    members = {*topology.parties, *topology.agents}
    for member in sorted(set(topology.parties) & set(topology.agents)):
        yield ("parties", member), "is also the name of an agent; names must differ"
    for name, topic in topology.topics.items():
        if not _legal(name):
            yield ("topics", name), "must be lower-case words of letters, digits and - joined by points, at most 200 characters"
        for side in ("writers", "readers"):
            for position, who in enumerate(getattr(topic, side)):
                if who not in members:
                    yield ("topics", name, side, position), f"{who!r} is neither an agent nor one of the parties"
        for position, record in enumerate(topic.records):
            if record != RAW and record not in records:
                yield ("topics", name, "records", position), f"{record!r} is no committed schema ({', '.join(sorted(records))}) nor raw"
        if topic.cleanup == "compact" and topic.retention != -1:
            yield ("topics", name, "retention"), "a compacted topic keeps the last record of each key: leave retention out"


def subscriber_findings(topology: Topology, subscriber: Subscriber) -> Iterator[Finding]:
    """What a subscriber names that the topology does not have; places are from the subscriber on."""
    for position, region in enumerate(subscriber.filter.region):
        if "*" not in region and topology.delivery.regions and region not in topology.delivery.regions:
            yield ("filter", "region", position), f"there is no region {region!r} in delivery.regions"
    channel = subscriber.channel
    if isinstance(channel, KafkaTopic) and channel.topic is not None:
        declared = topology.topics.get(channel.topic)
        if declared is None or "delivery" not in declared.writers:
            yield ("channel", "topic"), f"{channel.topic!r} is no topic that names delivery as a writer"


def _legal(name: str) -> bool:
    parts = name.split(".")
    return len(name) <= 200 and all(p and p.replace("-", "").isalnum() and p.isascii() and p == p.lower() for p in parts)


def _agent_findings(topology: Topology, name: str, agent: Agent) -> Iterator[Finding]:
    topics, here = topology.topics, ("agents", name)
    used = [("inbox", agent.inbox), ("state", agent.state), *(("plain", t) for t in agent.plain), *(("outputs", t) for t in agent.outputs)]
    used.append(("dead", agent.dead))
    for field, topic in used:
        if topic not in topics:
            yield (*here, field), f"there is no topic {topic!r}"
    for field, topic in used:
        if topic not in topics:
            continue
        if field in ("inbox", "plain") and name not in topics[topic].readers:
            yield (*here, field), f"topic {topic} does not name {name} as a reader"
        if field in ("outputs", "dead", "state") and name not in topics[topic].writers:
            yield (*here, field), f"topic {topic} does not name {name} as a writer"
    if not agent.entry and agent.inbox in topics:
        outside = [who for who in topics[agent.inbox].writers if who not in topology.agents]
        if outside:
            yield (
                ("topics", agent.inbox, "writers"),
                f"only agents may write to the inbox of {name}, not {', '.join(outside)}: let them write to a plain topic",
            )
    if agent.entry:
        for topic in agent.reads:
            inside = [who for who in topics[topic].writers if who in topology.agents] if topic in topics else []
            if inside:
                yield ("topics", topic, "writers"), f"{', '.join(inside)} is an agent; {name} takes {topic} for written by the outside"
    yield from _state_findings(topology, name, agent)


def _state_findings(topology: Topology, name: str, agent: Agent) -> Iterator[Finding]:
    topics = topology.topics
    state, inbox = topics.get(agent.state), topics.get(agent.inbox)
    if state is None or inbox is None:
        return
    if state.cleanup != "compact":
        yield ("topics", agent.state, "cleanup"), f"holds the state of {name} and must be compact"
    for topic in (*agent.plain, agent.state):
        if topic in topics and topics[topic].partitions != inbox.partitions:
            yield (
                ("topics", topic, "partitions"),
                f"must be {inbox.partitions} as those of {agent.inbox}, not {topics[topic].partitions}: "
                f"{name} works partition by partition",
            )
    sharers = [other for other, it in topology.agents.items() if other != name and it.state == agent.state]
    if sharers:
        yield ("agents", name, "state"), f"is the state of {', '.join(sharers)} too; every agent needs its own"


def _flow_findings(topology: Topology) -> Iterator[Finding]:
    """Chain: what one agent reads from another has as many partitions as what the other reads."""
    topics, agents = topology.topics, topology.agents
    inboxes: dict[str, list[str]] = {}
    for name, agent in agents.items():
        inboxes.setdefault(agent.inbox, []).append(name)
    for names in inboxes.values():
        if len(names) > 1 and any(agents[name].entry for name in names):
            yield ("agents",), f"{' and '.join(names)} read the same inbox, which the outside writes: only one agent can put it in order"
    for name, agent in agents.items():
        for topic in agent.outputs:
            readers = inboxes.get(topic)
            if readers is None or topic not in topics or agent.inbox not in topics:
                continue
            if topics[topic].partitions != topics[agent.inbox].partitions:
                yield (
                    ("topics", topic, "partitions"),
                    f"must be {topics[agent.inbox].partitions} as those of {agent.inbox}, not {topics[topic].partitions}: "
                    f"{name} and {', '.join(readers)} form one chain",
                )
    for topic, declared in topics.items():
        for who in declared.readers:
            if who in agents and topic not in (*agents[who].reads, agents[who].state):
                yield ("topics", topic, "readers"), f"agent {who} does not read {topic}"
        for who in declared.writers:
            if who in agents and topic not in (*agents[who].writes, agents[who].state):
                yield ("topics", topic, "writers"), f"agent {who} does not write {topic}"


def known_records() -> frozenset[str]:
    """The record types of the committed schemas."""
    return frozenset(path.stem for path in (Path(__file__).parent.parent / "avro").glob("*.avsc"))
