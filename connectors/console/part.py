"""The part of the hub that shows the console: what its pages stand on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from connectors.console import words
from connectors.console.figures import Memo, link
from connectors.head_end.dead_letters import DeadLettersError

if TYPE_CHECKING:
    from connectors.head_end.desk import Reader
    from schemas.topology import Topology

MENU: Final = (
    "dashboard", "todos", "meters", "exceptions", "determinants", "usage", "prepaid", "master", "events", "subscribers", "rules",
    "operations", "audit", "users",
)  # fmt: skip
NUMBERS: Final = frozenset(
    {"quantity", "reading", "value", "version", "count", "amount", "balance", "attempt", "records", "bytes", "priority"}
)


def environment() -> Environment:
    """The templates. Everything they are given is escaped."""
    made = Environment(loader=PackageLoader("connectors.console"), autoescape=select_autoescape(), undefined=StrictUndefined,
                       trim_blocks=True, lstrip_blocks=True)  # fmt: skip
    made.globals.update(t=words.catalogue(), menu=MENU, link=link, numbers=NUMBERS)
    made.tests["time"] = lambda value: isinstance(value, date)
    made.filters.update(
        when=words.when, age=words.age, due=words.due, quantity=words.quantity, count=words.count, money=words.money, quality=words.quality
    )
    return made


@dataclass
class Console:
    """What pages may use. ``services`` are the other parts of the hub by name."""

    reader: Reader
    topology: Topology
    services: Mapping[str, Any] = field(default_factory=dict)
    memo: Memo = field(default_factory=Memo)
    templates: Environment = field(default_factory=environment)

    def subscribers(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Subscribers and integration objects, as the API shows them. Raises Problem 503 while the registry is not read."""
        door = self.services.get("delivery")
        if door is None:
            return [], []
        door.ready()
        from connectors.subscribers import objects

        found = [door.shown(entry) for entry in door.service.registry.entries().values() if entry.status != "ended"]
        tools = door.service.tools
        return found, [objects.describe(tools.topology, tools.codec, name) for name in objects.DEFINITIONS]

    def letters(self) -> tuple[list[dict[str, Any]], str]:
        """Dead letters that wait, or why they cannot be told."""
        desk = self.services.get("dead-letters")
        if desk is None:
            return [], ""
        try:
            return desk.waiting(), ""
        except DeadLettersError as error:
            return [], str(error)

    def loops(self) -> Mapping[str, Callable[[threading.Event], None]]:
        """None: it only answers."""
        return {}

    def close(self) -> None:
        """Lets its threads go."""
        self.memo.workers.shutdown(wait=False, cancel_futures=True)
