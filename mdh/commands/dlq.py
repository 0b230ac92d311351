"""``mdh dlq``: dead letters, looked at and sent again."""

from __future__ import annotations

import json as json_
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mdh.errors import UsageError
from mdh.running import kafka_of, printable

if TYPE_CHECKING:
    from connectors.head_end.dead_letters import DeadLetters, Letter
    from connectors.kafka.settings import KafkaSettings
    from schemas.topology import Topology

app = typer.Typer(help="Look at dead letters and replay them.", no_args_is_help=True, add_completion=False)

Broker = Annotated[str | None, typer.Option(help="Kafka bootstrap servers, host:port[,…].")]
Url = Annotated[str | None, typer.Option(help="A running hub whose Kafka is meant.")]
DataDir = Annotated[Path | None, typer.Option(help="Data directory of the hub whose Kafka is meant; default .mdh.")]
File = Annotated[Path | None, typer.Option("--topology", envvar="MDH_TOPOLOGY", help="topology.yaml; default: the one here, else ours.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
EXCERPT = 600


@app.command()
def ls(
    broker: Broker = None,
    url: Url = None,
    data_dir: DataDir = None,
    topology: File = None,
    json: Json = False,
    max: Annotated[int, typer.Option(min=1, help="Show so many at most, oldest first.")] = 1000,
) -> None:
    """List the letters that wait, oldest first."""
    with opened(broker, url, data_dir, topology) as (letters, _, _):
        waiting = letters.waiting()
    shown = [letter.summary() for letter in waiting[:max]]
    if json:
        print(json_.dumps(shown, indent=1))
        return
    if shown:
        _table(shown)
    more = f", {len(shown)} of them shown" if len(shown) < len(waiting) else ""
    print(f"{len(waiting)} dead letters wait{more}" if waiting else "no dead letters wait", file=sys.stderr)


@app.command()
def show(
    letter: Annotated[str, typer.Argument(help="Its name in `mdh dlq ls`, such as hes.reads.dlq/0/12.")],
    broker: Broker = None,
    url: Url = None,
    data_dir: DataDir = None,
    topology: File = None,
    json: Json = False,
    raw: Annotated[bool, typer.Option("--raw", help="Only its bytes, as they came.")] = False,
) -> None:
    """Show one letter: headers, reason and the beginning of its bytes."""
    with opened(broker, url, data_dir, topology) as (letters, _, _):
        found = letters.get(letter)
    body = found.value or b""
    if raw:
        sys.stdout.buffer.write(body)
        sys.stdout.buffer.flush()
        return
    headers = {name: value.decode(errors="replace") for name, value in found.headers.items()}
    if json:
        print(json_.dumps({**found.summary(), "headers": headers, "excerpt": excerpt(body)}, indent=1))
        return
    for name, text in {**found.summary(), **{f"header {name}": text for name, text in headers.items()}}.items():
        print(f"{name:<50} {printable(str(text))}")
    print(f"\n{excerpt(body)}")


@app.command()
def replay(
    which: Annotated[list[str] | None, typer.Argument(metavar="[LETTER]...", help="Letters by name; none: all that wait.")] = None,
    broker: Broker = None,
    url: Url = None,
    data_dir: DataDir = None,
    topology: File = None,
    json: Json = False,
    policy: Annotated[
        str, typer.Option(help="What fails again: stop (end there), reinsert (wait as a new letter) or drop (done with).")
    ] = "reinsert",
    max: Annotated[int, typer.Option(min=1, help="Send so many at most, oldest first.")] = 1000,
) -> None:
    """Send letters again, unchanged, to the topic they came from; into the inbox of an agent they go through ingest.

    Each gets a new payload id made from its first one, so a replay that is cut off and started again has one effect. Exit
    status 1 if some were not taken.
    """
    from connectors.head_end.dead_letters import Replay
    from connectors.head_end.publish import PublishError, Writer

    if policy not in ("stop", "reinsert", "drop"):
        raise UsageError(f"--policy is stop, reinsert or drop, not {policy!r}")
    with opened(broker, url, data_dir, topology) as (letters, kafka, system):
        chosen = _chosen(letters, which or [])[:max]
        writer = Writer(kafka, max_bytes=system.ingest.limits.payload_bytes)
        plain = {topic for agent in system.agents.values() if agent.entry for topic in agent.reads}
        inboxes = {agent.inbox for agent in system.agents.values() if not agent.entry}
        try:
            outcomes = Replay(letters, writer, frozenset(plain), "hub.receipts", inboxes=frozenset(inboxes)).run(
                chosen,
                policy,  # type: ignore[arg-type]  # checked above
                lambda outcome: print(
                    printable(f"{outcome.ref}  {outcome.id}  {outcome.status}  {outcome.reason}").rstrip(), file=sys.stderr
                ),
            )
        except PublishError as error:
            raise UsageError(f"Kafka does not take records: {error}") from error
        finally:
            writer.close(5)
    if json:
        print(json_.dumps([asdict(outcome) for outcome in outcomes], indent=1))
    else:
        kinds = sorted({outcome.status for outcome in outcomes})
        told = ", ".join(f"{sum(o.status == kind for o in outcomes)} {kind}" for kind in kinds)
        print(f"{len(outcomes)} of {len(chosen)} letters dealt with{f': {told}' if told else ''}")
    if len(outcomes) < len(chosen) or any(outcome.status in ("dead", "unknown", "refused") for outcome in outcomes):
        raise typer.Exit(1)


def _chosen(letters: DeadLetters, names: list[str]) -> list[Letter]:
    waiting = letters.waiting()
    if not names:
        return waiting
    by_name = {letter.ref: letter for letter in waiting}
    missing = [name for name in names if name not in by_name]
    if missing:
        raise UsageError(f"letter {missing[0]} does not wait; `mdh dlq ls` shows those that do")
    return [by_name[name] for name in dict.fromkeys(names)]


@contextmanager
def opened(
    broker: str | None, url: str | None, data_dir: Path | None, topology: Path | None
) -> Iterator[tuple[DeadLetters, KafkaSettings, Topology]]:
    """The dead letters of the hub that is meant. Raises UsageError."""
    from connectors.head_end.dead_letters import DeadLetters, DeadLettersError
    from schemas.topology import TopologyError, load_topology

    try:
        system = load_topology(topology)
    except TopologyError as error:
        raise UsageError(str(error)) from error
    topics = [agent.dead for agent in system.agents.values() if agent.dead]
    if not topics:
        raise UsageError("no agent of this topology keeps dead letters")
    kafka = kafka_of(broker, url, data_dir)
    try:
        with DeadLetters(kafka, topics, system.group("operations")) as letters:
            yield letters, kafka, system
    except DeadLettersError as error:
        raise UsageError(f"dead letters at {kafka.bootstrap}: {error}") from error


def excerpt(body: bytes) -> str:
    """The beginning of the bytes as text a terminal can show: control characters and what is no UTF-8 as escapes."""
    return printable(body[:EXCERPT].decode(errors="backslashreplace")) + (
        f"\n… {len(body) - EXCERPT} more bytes" if len(body) > EXCERPT else ""
    )


def _table(rows: list[dict[str, object]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("ref", "at", "source", "name", "bytes", "attempt"):
        table.add_column(name, no_wrap=True, justify="right" if name in ("bytes", "attempt") else "left")
    table.add_column("reason", overflow="fold")
    for row in rows:
        cells = (printable(str(row[name])) for name in ("ref", "at", "source", "name", "bytes", "attempt", "reason"))
        table.add_row(*(Text(cell) for cell in cells))
    console = Console()
    if not console.is_terminal:
        console.width = 200
    console.print(table)
