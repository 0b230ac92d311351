"""The To-Do part of the hub process: service, resolver and the thread that searches."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Final

from connectors.clickhouse.migrate import render
from connectors.clickhouse.store import Store
from connectors.head_end.command_desk import KafkaCommandDesk
from connectors.head_end.desk import Reader
from connectors.head_end.label_desk import LabelDesk
from connectors.head_end.orders import Claims
from connectors.head_end.publish import Writer
from connectors.rights.trail import Trail
from connectors.todo.resolve import Resolver
from connectors.todo.scans import Scanner
from connectors.todo.service import PATIENCE, TodoService
from schemas.codec import Codec
from schemas.topology import Topology
from schemas.topology.vee import VeeSettings

COMMANDS: Final = "hub.commands"


class TodoDesk:
    """What stands behind the routes of To-Dos."""

    def __init__(
        self, topology: Topology, reader: Reader, writer: Writer, codec: Codec, patience: float = PATIENCE, store: Store | None = None,
        trail: Trail | None = None, claims: Claims | None = None,
    ) -> None:  # fmt: skip
        self.todos = TodoService(topology.todo, reader, writer, codec, patience, trail=trail, about=abouts(topology.vee), claims=claims)
        commands, labels = KafkaCommandDesk(writer, codec, COMMANDS), LabelDesk(writer, codec, COMMANDS, reader)
        self.resolver = Resolver(self.todos, commands, labels, topology.determinants)
        self.scanner = Scanner(self.todos, topology, reader.settled_tick, lambda: tidy(store) if store is not None else None)

    def loops(self) -> Mapping[str, Callable[[threading.Event], None]]:
        """The thread that searches the store."""
        return {"todo-scans": self.scanner.run}

    def close(self) -> None:
        """Nothing is held."""


def abouts(vee: VeeSettings) -> dict[str, str]:
    """What each rule that some group has looks for, in a sentence, in the order rules run."""
    found: dict[str, str] = {}
    for group in vee.groups.values():
        for rule in group.rules:
            found.setdefault(rule.id, " ".join((type(rule).__doc__ or "").split()))
    return found


def tidy(store: Store) -> None:
    """Drops completed To-Dos from the table of live ones; until then they are read and left out."""
    store.command(render("OPTIMIZE TABLE todo_open /*cluster*/ FINAL CLEANUP", store.database, store.target.cluster))
