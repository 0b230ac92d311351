"""``mdh``: one command, nouns and verbs. Commands are imported when called, so that ``mdh --help`` is instant."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click
import typer

from mdh.errors import UsageError

# name → module in mdh.commands that has a typer app `app` (a group) or a function `main` (a single command)
COMMANDS = {
    "up": "Run the whole hub on this machine until interrupted",
    "demo": "Run the hub, load a real estate and tell what happened",
    "decode": "Show what is in meter files, without a hub",
    "send": "Send meter files to a running hub",
    "vee": "Validate, estimate and finalise files, without a hub",
    "sql": "Ask the running hub's store",
    "topology": "Show, check and apply topology.yaml",
    "doctor": "Check this machine and a running hub",
    "dlq": "Look at dead letters and replay them",
    "simulate": "Push realistic loads with known faults",
    "bench": "Measure ratios against other ways of doing it",
    "worker": "Run the agents against a broker (what `up` starts)",
    "hub": "Run gateway, sink and store (what `up` starts)",
    "master": "Send master data to a running hub",
    "schemas": "Check contracts, register them",
}


class LazyGroup(click.Group):
    """Imports ``mdh.commands.<name>`` when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module: Any = importlib.import_module(f"mdh.commands.{cmd_name}")
        if hasattr(module, "app"):
            command = typer.main.get_command(module.app)
        else:
            single = typer.Typer(add_completion=False)
            single.command()(module.main)
            command = typer.main.get_command(single)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="meter-data-hub")
def cli() -> None:
    """Meter Data Hub: every meter's raw reads in, trusted consumption out.

    Start with `mdh demo`. Results go to stdout, everything else to stderr; bad input exits with status 2 and one line.
    """


def main() -> None:
    """The entry point of the ``mdh`` command."""
    try:
        cli(standalone_mode=False)
    except UsageError as error:
        sys.exit(_fail(str(error), 2))
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        sys.exit(_fail(error.format_message(), 2))
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)


def _fail(message: str, status: int) -> int:
    print(f"mdh: {message}", file=sys.stderr)
    return status
