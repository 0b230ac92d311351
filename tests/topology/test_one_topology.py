"""Every command that reads topology.yaml can be pointed at one by the environment."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from mdh.cli import COMMANDS, app


def options() -> dict[str, Any]:
    """Command → its option for topology.yaml, subcommands included."""
    found: dict[str, Any] = {}
    root: Any = typer.main.get_command(app)

    def look(name: str, command: Any) -> None:
        for parameter in command.params:
            if "--topology" in parameter.opts:
                found[name] = parameter
        for child, below in getattr(command, "commands", {}).items():
            look(f"{name} {child}", below)

    for name in COMMANDS:
        look(name, root.get_command(None, name))
    return found


OPTIONS = options()


def test_the_commands_over_files_and_the_hub_have_the_option() -> None:
    assert {"decode", "vee", "doctor", "up", "worker", "hub", "dlq ls", "topology check"} <= OPTIONS.keys()


@pytest.mark.parametrize("name", OPTIONS)
def test_the_environment_names_the_topology(name: str) -> None:
    assert OPTIONS[name].envvar == "MDH_TOPOLOGY"
