"""The agents put together: which fold each name in topology.yaml stands for, and how it is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from connectors.head_end.formats import Options, decode
from connectors.head_end.formats.events import decode_events
from schemas.topology import Topology
from streams.determinants.fold import DeterminantsFold
from streams.enterprise.fold import EnterpriseFold
from streams.ingest.fold import TOLD, IngestFold
from streams.insights.fold import InsightsFold
from streams.master.fold import MasterFold
from streams.prepaid.fold import PrepaidFold
from streams.runtime.fold import Fold
from streams.runtime.lane import Plan
from streams.runtime.plan import plan_of
from streams.todo.feed import INBOX as TODO
from streams.todo.feed import Fed
from streams.todo.fold import TodoFold
from streams.vee.fold import VeeFold

MakeFold = Callable[[int], Fold]


def make_folds(topology: Topology) -> dict[str, MakeFold]:
    """How to make each agent's fold for a partition number."""

    def count(agent: str) -> int:
        return topology.topics[topology.agents[agent].inbox].partitions

    inboxes = frozenset(agent.inbox for agent in topology.agents.values() if not agent.entry)
    return {
        "ingest": lambda n: IngestFold(
            decoder(topology),
            n,
            count("ingest"),
            letters=topology.agents["ingest"].dead or "",
            decode_events=partial(decode_events, names=topology.ingest.event_names, zone=topology.zone),
            inboxes=inboxes,
            told=TOLD if TOLD in topology.agents["ingest"].outputs else "",
        ),
        "master": lambda _: MasterFold(count("vee"), told(topology, "master", "UsageSubscription")),
        "vee": lambda n: _fed(topology, "vee", VeeFold(topology.vee.within(topology.zone), n, count("vee"))),
        "determinants": lambda n: DeterminantsFold(
            topology.determinants,
            n,
            count("determinants"),
            topology.vee.hot_days,
            topology.usage,
            tuple(told(topology, "determinants", "UsageEvent")),
        ),
        "insights": lambda n: _fed(topology, "insights", InsightsFold(topology.insights, n)),
        "enterprise": lambda n: EnterpriseFold(topology.enterprise, n),
        "todo": lambda _: TodoFold(topology.todo),
        "prepaid": lambda n: PrepaidFold(topology.prepaid, topology.zone, n),
    }


def _fed(topology: Topology, agent: str, fold: Fold) -> Fold:
    """The fold, whose exceptions reach the To-Do agent where the topology lets this agent write to its inbox."""
    return Fed(fold, topology.todo.wants) if TODO in topology.agents[agent].outputs else fold


def told(topology: Topology, agent: str, record: str) -> dict[str, int]:
    """The topics in which an agent tells records of a type, with their partitions: those of its outputs that name it."""
    outputs = topology.agents[agent].outputs
    return {name: topology.topics[name].partitions for name in outputs if record in topology.topics[name].records}


def plans_and_folds(topology: Topology, names: list[str] | None = None) -> list[tuple[Plan, MakeFold]]:
    """Plan and fold maker of the named agents, of all by default, in the order of the chain."""
    makers = make_folds(topology)
    return [(plan_of(topology, name), makers[name]) for name in names or makers]


def decoder(topology: Topology) -> Callable[[bytes, Mapping[str, str], str], Any]:
    """The decoder the ingest agent uses: message headers say what is known of the payload."""

    def decode_payload(data: bytes, headers: Mapping[str, str], payload: str) -> Any:
        received = headers.get("received_at", "")
        options = Options(
            name=headers.get("name", ""),
            format=headers.get("format") or None,
            zone=headers.get("zone") or None,
            source=headers.get("source", ""),
            payload=payload,
            received_at=int(received) if received.isascii() and received.isdigit() and len(received) < 19 else 0,
            profiles=topology.profiles,
            limits=topology.ingest.limits,
        )
        return decode(data, options)

    return decode_payload
