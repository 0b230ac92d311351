"""The agents put together: which fold each name in topology.yaml stands for, and how it is made.

The code of an agent is loaded by who runs it: the office need not wait for compilers and decoders.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from schemas.topology import Topology
from streams.runtime.fold import Fold
from streams.runtime.lane import Plan
from streams.runtime.plan import plan_of

MakeFold = Callable[[int], Fold]


def make_folds(topology: Topology) -> dict[str, MakeFold]:
    """How to make each agent's fold for a partition number."""
    return {name: maker(topology) for name, maker in MAKERS.items()}


def _count(topology: Topology, agent: str) -> int:
    return topology.topics[topology.agents[agent].inbox].partitions


def _ingest(topology: Topology) -> MakeFold:
    from connectors.head_end.formats.events import decode_events
    from streams.ingest.fold import TOLD, IngestFold

    inboxes = frozenset(agent.inbox for agent in topology.agents.values() if not agent.entry)
    return lambda n: IngestFold(
        decoder(topology),
        n,
        _count(topology, "ingest"),
        letters=topology.agents["ingest"].dead or "",
        decode_events=partial(decode_events, names=topology.ingest.event_names, zone=topology.zone),
        inboxes=inboxes,
        told=TOLD if TOLD in topology.agents["ingest"].outputs else "",
    )


def _master(topology: Topology) -> MakeFold:
    from streams.master.fold import MasterFold

    return lambda _: MasterFold(_count(topology, "vee"), told(topology, "master", "UsageSubscription"))


def _vee(topology: Topology) -> MakeFold:
    from streams.vee.fold import VeeFold

    return lambda n: _fed(topology, "vee", VeeFold(topology.vee.within(topology.zone), n, _count(topology, "vee")))


def _determinants(topology: Topology) -> MakeFold:
    from streams.determinants.fold import DeterminantsFold

    return lambda n: DeterminantsFold(
        topology.determinants,
        n,
        _count(topology, "determinants"),
        topology.vee.hot_days,
        topology.usage,
        tuple(told(topology, "determinants", "UsageEvent")),
        told(topology, "determinants", "UsageBatch"),
    )


def _insights(topology: Topology) -> MakeFold:
    from streams.insights.fold import InsightsFold

    return lambda n: _fed(topology, "insights", InsightsFold(topology.insights, n))


def _enterprise(topology: Topology) -> MakeFold:
    from streams.enterprise.fold import EnterpriseFold

    return lambda n: EnterpriseFold(topology.enterprise, n)


def _todo(topology: Topology) -> MakeFold:
    from streams.todo.fold import TodoFold

    return lambda _: TodoFold(topology.todo)


def _prepaid(topology: Topology) -> MakeFold:
    from streams.prepaid.fold import PrepaidFold

    return lambda n: PrepaidFold(topology.prepaid, topology.zone, n)


MAKERS: Final[dict[str, Callable[[Topology], MakeFold]]] = {
    "ingest": _ingest,
    "master": _master,
    "vee": _vee,
    "determinants": _determinants,
    "insights": _insights,
    "enterprise": _enterprise,
    "todo": _todo,
    "prepaid": _prepaid,
}
"""In the order of the chain."""


def _fed(topology: Topology, agent: str, fold: Fold) -> Fold:
    """The fold, whose exceptions reach the To-Do agent where the topology lets this agent write to its inbox."""
    from streams.todo.feed import INBOX, Fed

    return Fed(fold, topology.todo.wants) if INBOX in topology.agents[agent].outputs else fold


def told(topology: Topology, agent: str, record: str) -> dict[str, int]:
    """The topics in which an agent tells records of a type, with their partitions: those of its outputs that name it."""
    outputs = topology.agents[agent].outputs
    return {name: topology.topics[name].partitions for name in outputs if record in topology.topics[name].records}


def plans_and_folds(topology: Topology, names: list[str] | None = None) -> list[tuple[Plan, MakeFold]]:
    """Plan and fold maker of the named agents, of all by default, in the order of the chain."""
    return [(plan_of(topology, name), MAKERS[name](topology)) for name in names or MAKERS]


def decoder(topology: Topology) -> Callable[[bytes, Mapping[str, str], str], Any]:
    """The decoder the ingest agent uses: message headers say what is known of the payload."""
    from connectors.head_end.formats import Options, decode

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
