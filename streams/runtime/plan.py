"""Plans from topology.yaml: what the runtime must know of each agent."""

from __future__ import annotations

from collections import Counter

from schemas.topology import Topology
from streams.runtime.fold import RAW
from streams.runtime.lane import Plan


def plan_of(topology: Topology, name: str) -> Plan:
    """The plan of one agent. Raises KeyError for an agent that is not in the topology."""
    agent, topics = topology.agents[name], topology.topics
    plain = frozenset(agent.reads) if agent.entry else frozenset()
    return Plan(
        system=topology.name,
        agent=name,
        inbox=None if agent.entry else agent.inbox,
        plain=plain,
        raw=frozenset(topic for topic in plain if RAW in topics[topic].records),
        sparse=frozenset(topic for topic in plain if topics[topic].cleanup == "compact"),
        state=agent.state,
        partitions={topic: declared.partitions for topic, declared in topics.items()},
        stored=frozenset(topology.stored),
        inboxes=Counter(other.inbox for other in topology.agents.values() if not other.entry),
        batch=agent.batch,
        letters=agent.dead or "",
    )
