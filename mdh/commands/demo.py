"""``mdh demo``: the whole hub on a real estate, and the story of what happened."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console


def main(
    exit: Annotated[bool, typer.Option("--exit", help="Stop after the story.")] = False,
    data_dir: Annotated[Path, typer.Option(help="Everything the hub keeps.")] = Path(".mdh"),
    port: Annotated[int, typer.Option(help="Port of the gateway; 0: any free one.")] = 8080,
    workers: Annotated[int, typer.Option(help="Worker processes.")] = 1,
    picture: Annotated[Path | None, typer.Option(help="Also save the story as a picture (SVG).")] = None,
) -> None:
    """Run the hub, load a real estate, inject known faults, and tell what happened.

    The last line of the output is one JSON object with the counts. Without --exit the hub stays up until interrupted.
    """
    from rich.console import Console

    from mdh.commands.up import Hub, interruptible
    from mdh.estate.story import WIDTH, Story
    from mdh.logs import configure
    from mdh.simulation.hub import HubAt

    configure("warning", process="demo")
    out = Console(width=WIDTH, highlight=False, soft_wrap=False, record=picture is not None)
    progress = Console(stderr=True, width=WIDTH, highlight=False)
    out.print("[bold]Meter Data Hub[/bold]  [dim]raw reads in; final reads, exceptions and bill determinants out[/dim]")
    with interruptible():
        try:
            with Hub(data_dir, port=port, workers=workers, say=lambda text: progress.print(f"  {text}", style="dim")) as hub:
                with HubAt(hub.url) as there:
                    counts = Story(there, out, progress).tell()
                    if picture:
                        _save(out, picture)
                if not exit:
                    _where(out, hub.url)
                print(json.dumps(counts), flush=True)
                if not exit:
                    print("running; Ctrl-C stops it", file=sys.stderr, flush=True)
                    hub.wait()
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)


def _where(out: Console, url: str) -> None:
    out.print()
    for what, address in (
        ("API", f"{url}/docs"),
        ("metrics", f"{url}/metrics"),
        ("ask", f'mdh sql --url {url} "SELECT rule, count() AS n FROM exceptions GROUP BY rule"'),
    ):
        out.print(f"  {what:8} {address}", soft_wrap=True)
    out.print()


def _save(console: Console, picture: Path) -> None:
    """The recorded story as an SVG that needs no font from anywhere else."""
    from rich._export_format import CONSOLE_SVG_FORMAT  # rich names no public default to start from

    plain = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    plain = plain.replace("Fira Code", "DejaVu Sans Mono, Consolas, Menlo")
    picture.write_text(console.export_svg(title="mdh demo", code_format=plain, font_aspect_ratio=0.61, clear=False))
