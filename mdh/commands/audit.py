"""``mdh audit``: who did what on a running hub, and whether the record of it is whole."""

from __future__ import annotations

import json as notation
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from mdh.commands.users import call
from mdh.errors import UsageError
from mdh.printing import table
from mdh.running import HubClient, hub_url

app = typer.Typer(help="The audit: search, export, verify.", no_args_is_help=True, add_completion=False)

Url = Annotated[str | None, typer.Option(help="The gateway of the hub; default: MDH_URL, else the hub of .mdh, else port 8080.")]
Actor = Annotated[str | None, typer.Option(help="Who.")]
Action = Annotated[str | None, typer.Option(help="What, such as commands.order or session.login.")]
Subject = Annotated[str | None, typer.Option(help="About what.")]
Outcome = Annotated[str | None, typer.Option(help="applied, refused, denied …")]
Since = Annotated[str | None, typer.Option("--from", help="ISO time.")]
Until = Annotated[str | None, typer.Option("--to", help="ISO time.")]


@app.command()
def search(
    actor: Actor = None,
    action: Action = None,
    subject: Subject = None,
    outcome: Outcome = None,
    since: Since = None,
    until: Until = None,
    most: Annotated[int, typer.Option("--max", help="Rows at most.", min=1, max=10_000)] = 100,
    url: Url = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Search the audit, oldest first."""
    wanted = {"actor": actor, "action": action, "subject": subject, "outcome": outcome, "from": since, "to": until, "limit": most}
    found = call(url, "GET", "/v1/audit", params={name: value for name, value in wanted.items() if value is not None})["items"]
    if json:
        print(notation.dumps(found, indent=2, ensure_ascii=False))
        return
    rows = [(one["at"], one["actor"], one["action"], one["outcome"], one["subject"], one["address"], one["detail"]) for one in found]
    table(("at", "who", "what", "outcome", "subject", "from", "detail"), rows, "nothing found")


@app.command()
def export(
    file: Annotated[Path | None, typer.Argument(help="Where to; left out: stdout.")] = None,
    format: Annotated[Literal["ndjson", "csv"], typer.Option(help="Of the file.")] = "ndjson",
    since: Since = None,
    until: Until = None,
    url: Url = None,
) -> None:
    """Export the audit. Without --from and --to an NDJSON file can be verified later."""
    params = {name: value for name, value in (("format", format), ("from", since), ("to", until)) if value is not None}
    with HubClient(hub_url(url)) as hub:
        content = hub.call("GET", "/v1/audit/export", params=params).content
    if file is None:
        sys.stdout.buffer.write(content)
        return
    try:
        file.write_bytes(content)
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from None
    print(f"{file}: {len(content)} bytes")


@app.command()
def verify(
    file: Annotated[Path | None, typer.Argument(help="An export in NDJSON; left out: what the hub has now.")] = None,
    url: Url = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Recompute the hash chains here and say what is changed, missing or added. Exits 1 if something is."""
    from connectors.rights.chain import Head, verify

    heads = []
    if file is None:
        known = call(url, "GET", "/v1/audit/head")  # asked first: what comes meanwhile lies behind it
        heads = [Head(**known)] if known else []
        _settle(url, heads)
        with HubClient(hub_url(url)) as hub:
            content = hub.call("GET", "/v1/audit/export").content
    else:
        try:
            content = file.read_bytes()
        except OSError as error:
            raise UsageError(f"{file}: {error.strerror}") from None
    try:
        found = verify(_entries(content), heads)
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"not an export of the audit: {error}") from None
    if json:
        told = {"entries": found.entries, "chains": found.chains, "unchained": found.unchained, "problems": found.problems}
        print(notation.dumps(told))
    else:
        for problem in found.problems:
            print(problem)
        whole = "whole" if not found.problems else f"{len(found.problems)} problems"
        print(f"{found.entries} entries in {found.chains} chains: {whole}")
    if found.problems:
        raise typer.Exit(1)


def _settle(url: str | None, heads: list[Any]) -> None:
    """Waits until the store has what the chain's writer knows Kafka has."""
    import time

    for _ in range(40):
        if not heads:
            return
        head = heads[0]
        found = call(url, "GET", "/v1/audit", params={"writer": head.writer, "hash": head.hash, "limit": 1})["items"]
        if found:
            return
        time.sleep(0.5)


def _entries(content: bytes) -> Iterator[dict[str, Any]]:
    """The entries of an export, times as UTC seconds."""
    from connectors.rights.routes import second

    for line in content.splitlines():
        if line.strip():
            entry = notation.loads(line)
            yield {**entry, **{name: second(entry[name]) for name in ("at", "start", "end")}}
