"""``mdh topology``: the system on one page, and the broker as it should be."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mdh.errors import UsageError

if TYPE_CHECKING:
    from connectors.kafka.admin import Administrator
    from schemas.topology import Topology

app = typer.Typer(help="Show, check and apply topology.yaml.", no_args_is_help=True, add_completion=False)

File = Annotated[Path | None, typer.Option("--topology", envvar="MDH_TOPOLOGY", help="The file; default: ./topology.yaml, else ours.")]
Broker = Annotated[str | None, typer.Option(help="Kafka bootstrap servers, host:port[,…]; default: MDH_BROKER, else 127.0.0.1:9092.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
AddPartitions = Annotated[
    bool, typer.Option("--add-partitions", help="Also raise partition counts. Keys move, state does not: only where no agent reads.")
]
Delete = Annotated[list[str] | None, typer.Option("--delete", help="Delete this topic, which the file does not name. May be repeated.")]


@app.command()
def show(
    topology: File = None,
    json: Json = False,
    docs: Annotated[bool, typer.Option("--docs", help="The page of topics, as in docs/topics.md.")] = False,
    asyncapi: Annotated[bool, typer.Option("--asyncapi", help="The AsyncAPI description, as in docs/asyncapi.yaml.")] = False,
    reference: Annotated[bool, typer.Option("--reference", help="Every setting, as in docs/topology-reference.md.")] = False,
    acls: Annotated[bool, typer.Option("--acls", help="Access rights for kafka-acls; with --json as a list.")] = False,
) -> None:
    """Show topics and agents, or what is generated from them."""
    from importlib.metadata import version

    from schemas.topology import documents

    if docs + asyncapi + reference + acls > 1:
        raise UsageError("--docs, --asyncapi, --reference and --acls exclude each other")
    if reference:
        from schemas.topology.reference import reference as page

        print(page(), end="")
        return
    system = _load(topology)
    if docs:
        print(documents.page(system), end="")
    elif asyncapi:
        print(documents.asyncapi(system, documents.committed_schemas(), version("meter-data-hub")), end="")
    elif acls:
        print(documents.acls_json(system) if json else documents.acls(system).rstrip())
    elif json:
        print(system.model_dump_json(indent=2, by_alias=True))
    else:
        _table(system)


@app.command()
def check(topology: File = None, json: Json = False) -> None:
    """Check the file; exit 2 with a line for each error."""
    from schemas.topology import default_path

    system = _load(topology)
    figures = {"file": str(topology or default_path()), "topics": len(system.topics), "agents": len(system.agents), "valid": True}
    if json:
        _print_json(figures)
    else:
        print(f"{figures['file']}: {figures['topics']} topics, {figures['agents']} agents: all in order")


@app.command()
def plan(topology: File = None, broker: Broker = None, json: Json = False) -> None:
    """Show how a broker differs from the file; exit 1 if it does."""
    from connectors.kafka.admin import plan as differences
    from connectors.kafka.admin import unknown

    system = _load(topology)
    with _reported():
        cluster = _administrator(broker).look(system.topics)
    found, others = differences(system, cluster), unknown(system, cluster)
    if json:
        _print_json({"brokers": cluster.brokers, "differences": [asdict(d) for d in found], "unknown": others})
    else:
        print("\n".join(d.sentence() for d in found) or f"{len(system.topics)} topics: nothing to do")
        if others:
            print(f"not in the file and left alone: {', '.join(others)}")
    if found:
        raise typer.Exit(1)


@app.command()
def apply(
    topology: File = None,
    broker: Broker = None,
    json: Json = False,
    add_partitions: AddPartitions = False,
    delete: Delete = None,
) -> None:
    """Make the broker's topics as the file says; exit 1 if something is left.

    Creates what is missing and sets what differs. Deletes nothing but what --delete names.
    """
    system = _load(topology)
    with _reported():
        mended, left = _administrator(broker).apply(system, add_partitions=add_partitions, delete=delete or [])
    if json:
        _print_json({"applied": [asdict(d) for d in mended], "deleted": delete or [], "left": [asdict(d) for d in left]})
    else:
        for change in mended:
            print(f"done: {change.sentence()}")
        for name in delete or []:
            print(f"deleted: {name}")
        for rest in left:
            print(f"left: {rest.sentence()}")
        if not (mended or left or delete):
            print(f"{len(system.topics)} topics: nothing to do")
    if left:
        raise typer.Exit(1)


def _load(path: Path | None) -> Topology:
    from schemas.topology import TopologyError, load_topology

    try:
        return load_topology(path)
    except TopologyError as error:
        raise UsageError(str(error)) from None


def _administrator(broker: str | None) -> Administrator:
    from connectors.kafka.admin import Administrator
    from mdh.settings import load_settings

    settings = load_settings(broker=broker)
    return Administrator(settings.kafka.at(settings.broker))


class _reported:  # noqa: N801 reads as a statement
    """Turns refusals of the cluster into one line."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        from connectors.kafka.admin import BrokerError

        if isinstance(error, BrokerError):
            raise UsageError(str(error)) from None


def _print_json(value: Any) -> None:
    import json

    print(json.dumps(value, indent=2))


def _table(system: Topology) -> None:
    from rich.console import Console
    from rich.table import Table

    from schemas.topology.documents import kept

    console = Console(width=None if sys.stdout.isatty() else 140)
    topics = Table(title=f"{system.name}: {len(system.topics)} topics", title_justify="left")
    for column in ("topic", "records", "writers → readers", "partitions", "kept"):
        topics.add_column(column, justify="right" if column == "partitions" else "left", no_wrap=column in ("topic", "kept"))
    for name, topic in system.topics.items():
        flow = f"{', '.join(topic.writers)} → {', '.join(topic.readers)}"
        topics.add_row(name, ", ".join(topic.records) or "reserved", flow, str(topic.partitions), kept(topic))
    agents = Table(title=f"{len(system.agents)} agents", title_justify="left")
    for column in ("agent", "reads", "writes", "state", "dead letters"):
        agents.add_column(column, no_wrap=column == "agent")
    for name, agent in system.agents.items():
        agents.add_row(name, ", ".join(agent.reads), ", ".join(agent.outputs), agent.state, agent.dead)
    console.print(topics)
    console.print(agents)
