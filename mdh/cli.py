"""``mdh``: one command, nouns and verbs. Commands are imported when called, so that ``mdh --help`` is instant."""

from __future__ import annotations

import importlib
import os
import sys
from importlib import metadata
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

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
    "master": "Load, compare, show and export master data",
    "subscribers": "Subscribers: who is told of what",
    "prepaid": "Prepaid accounts: balances, top-ups, proofs",
    "deliver": "Deliver to subscribers in a process of its own",
    "users": "Users of the hub and their roles",
    "tokens": "API tokens",
    "audit": "Search, export and verify the audit",
    "command": "Order something done with channel days",
    "todos": "To-Dos: the queue, and acts on it",
    "schemas": "Check contracts, register them",
}


class LazyGroup(TyperGroup):
    """Imports ``mdh.commands.<name>`` when the command is used."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module: Any = importlib.import_module(f"mdh.commands.{cmd_name}")
        app = getattr(module, "app", None)
        if app is None:
            app = typer.Typer(add_completion=False)
            app.command()(module.main)
        command = typer.main.get_command(app)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


app = typer.Typer(
    cls=LazyGroup,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,  # logs of children are read by machines, one line at a time
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
_CLICK_ERROR: Any = typer.BadParameter.__mro__[2]  # the base of all errors in the words of a command; typer does not export it


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"mdh {metadata.version('meter-data-hub')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")] = False,  # noqa: ARG001
    token: Annotated[str | None, typer.Option(help="API token for hubs that ask who you are; better: MDH_TOKEN.")] = None,
) -> None:
    """Meter Data Hub: every meter's raw reads in, trusted consumption out.

    Start with `mdh demo`. Results go to stdout, everything else to stderr; bad input exits with status 2 and one line.
    """
    if token:
        os.environ["MDH_TOKEN"] = token


def main() -> None:
    """The entry point of the ``mdh`` command."""
    try:
        status = app(standalone_mode=False)
    except UsageError as error:
        status = _fail(str(error), 2)
    except typer.Exit as stop:
        status = stop.exit_code
    except _CLICK_ERROR as error:
        status = _fail(error.format_message(), 2)
    except (typer.Abort, KeyboardInterrupt):
        status = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader went away; Python would complain while flushing
        status = 0
    sys.exit(status if isinstance(status, int) else 0)


def _fail(message: str, status: int) -> int:
    print(f"mdh: {message}", file=sys.stderr)
    return status
