"""``mdh schemas``: contracts checked, frozen, registered, documented."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mdh.errors import UsageError

app = typer.Typer(help="Check contracts, register them.", no_args_is_help=True, add_completion=False)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command()
def check(json: Json = False) -> None:
    """Check that every current schema reads all older versions, and that files and ids fit; exit 1 if not."""
    import json as notation

    from schemas.compatibility import check as findings
    from schemas.compatibility import read

    found = findings()
    _, versions = read()
    figures = {"types": len(versions), "versions": sum(len(v.schemas) for v in versions), "findings": found}
    if json:
        print(notation.dumps(figures, indent=2))
    else:
        print("\n".join(found) or f"{figures['types']} record types, {figures['versions']} versions: all readable")
    if found:
        raise typer.Exit(1)


@app.command()
def freeze(
    again: Annotated[list[str] | None, typer.Option(help="Record type whose version was never written yet: overwrite it.")] = None,
) -> None:
    """Note new versions as final: from then on a change needs a new version."""
    from schemas.compatibility import freeze as write

    try:
        fresh = write(again=frozenset(again or []))
    except ValueError as error:
        raise UsageError(str(error)) from None
    print("\n".join(fresh) or "nothing new")


@app.command()
def register(
    url: Annotated[str | None, typer.Option(help="The registry; default: MDH_REGISTRY__URL.")] = None,
    topology: Annotated[Path | None, typer.Option(envvar="MDH_TOPOLOGY", help="topology.yaml; default: the one here, else ours.")] = None,
    json: Json = False,
) -> None:
    """Register all versions under the subjects of all topics, compatibility BACKWARD_TRANSITIVE, and print their ids."""
    import json as notation

    from connectors.kafka.registry import Registry, RegistryError
    from mdh.settings import RegistrySettings, load_settings
    from schemas.compatibility import read
    from schemas.topology import TopologyError, load_topology

    known = load_settings().registry
    if url is None and known is None:
        raise UsageError("no schema registry is configured: give --url or set MDH_REGISTRY__URL")
    if url is not None and not url.startswith(("http://", "https://")):
        raise UsageError(f"--url: must begin with http:// or https://, not {url!r}")
    login = known or RegistrySettings(url=str(url))
    password = login.password.get_secret_value() if login.password else None
    try:
        with Registry(url or login.url, login.username, password, login.ca_file) as registry:
            ids = registry.register(load_topology(topology), read()[1])
    except (RegistryError, TopologyError) as error:
        raise UsageError(str(error)) from None
    if json:
        print(notation.dumps(ids, indent=2))
    else:
        print("\n".join(f"{number}  {label}" for number, label in sorted(ids.items())))


@app.command()
def metrics() -> None:
    """Print the list of metrics, as in docs/metrics.md."""
    from schemas.metrics import document

    print(document(), end="")
