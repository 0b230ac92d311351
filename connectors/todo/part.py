"""The To-Do part of the hub process: service, resolver and the thread that searches."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Final

from connectors.head_end.command_desk import KafkaCommandDesk
from connectors.head_end.desk import Reader
from connectors.head_end.label_desk import LabelDesk
from connectors.head_end.publish import Writer
from connectors.todo.resolve import Resolver
from connectors.todo.scans import Scanner
from connectors.todo.service import PATIENCE, TodoService
from schemas.codec import Codec
from schemas.topology import Topology

COMMANDS: Final = "hub.commands"


class TodoDesk:
    """What stands behind the routes of To-Dos."""

    def __init__(self, topology: Topology, reader: Reader, writer: Writer, codec: Codec, patience: float = PATIENCE) -> None:
        self.todos = TodoService(topology.todo, reader, writer, codec, patience)
        commands, labels = KafkaCommandDesk(writer, codec, COMMANDS), LabelDesk(writer, codec, COMMANDS, reader)
        self.resolver = Resolver(self.todos, commands, labels, topology.determinants)
        self.scanner = Scanner(self.todos, topology, reader.settled_tick)

    def loops(self) -> Mapping[str, Callable[[threading.Event], None]]:
        """The thread that searches the store."""
        return {"todo-scans": self.scanner.run}

    def close(self) -> None:
        """Nothing is held."""
