"""A To-Do fold on its own: messages in by hand, records out."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from typing import Any

import orjson

from schemas.codec import Codec
from schemas.topology.todo import TodoSettings
from streams.runtime.fold import Message
from streams.todo.fold import TodoFold

CODEC = Codec()
MONDAY = int(datetime(2026, 3, 2, 9, tzinfo=UTC).timestamp())
HOUR = 3600


class Driver:
    """One fold and everything it wrote; every record is written and read as Kafka would have it."""

    def __init__(self, **settings: Any) -> None:
        self.settings = TodoSettings.model_validate(settings)
        self.fold = TodoFold(self.settings)
        self.rows: dict[bytes, bytes | None] = {}
        self.said: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.number = 0
        self.now = MONDAY
        self.tick(MONDAY)

    def give(self, kind: str, body: dict[str, Any]) -> None:
        """Folds one message in."""
        self.number += 1
        result = self.fold.apply(Message(kind, body, f"m{self.number}"))
        self.rows.update(self.fold.state.take_changed())
        for output in result.outputs:
            self.said[output.type].append(CODEC.decode(CODEC.encode(output.type, output.body)))

    def restart(self) -> None:
        """A new fold from the state topic."""
        self.fold = TodoFold(self.settings)
        for key, value in self.rows.items():
            self.fold.state.load(key, value)

    def tick(self, at: int) -> None:
        """Time goes on."""
        self.now = at
        self.give("Tick", {"at": at, "close": False})

    def exception(self, id: str, *, device: str = "m1", rule: str = "interval-spike", status: str = "open", **fields: Any) -> None:
        """An exception of VEE."""
        at = datetime.fromtimestamp(self.now, UTC)
        body = {
            "id": id, "rule": rule, "severity": "issue", "status": status, "version": 1, "device": device, "channel": "1.8.0",
            "service_point": "", "payload": "p1", "start": at, "end": at, "count": 1, "detail": "a spike",
        }  # fmt: skip
        self.give("VeeException", body | fields)

    def act(self, action: str, *todos: str, user: str = "ann", **fields: Any) -> dict[str, Any]:
        """A command; its outcome."""
        items = fields.pop("items", None)
        blank = {"versions": [], "approver": "", "to": "", "role": "", "roles": [], "text": "", "reason": "", "of": ""}
        body = {
            "id": f"c{self.number}",
            "action": action,
            "todos": list(todos),
            "user": user,
            "items": orjson.dumps(items).decode() if items else "",
        }
        self.give("TodoCommand", blank | body | fields)
        return self.said["TodoOutcome"][-1]

    def todo(self, id: str = "") -> dict[str, Any]:
        """A To-Do as told last; without an id, the one told last."""
        return next(record for record in reversed(self.said["Todo"]) if not id or record["id"] == id)

    def history(self, id: str) -> list[str]:
        """Actions of a To-Do's history."""
        return [event["action"] for event in self.said["TodoEvent"] if event["todo"] == id]
