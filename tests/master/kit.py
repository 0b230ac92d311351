"""The master fold alone: objects in, what it tells out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from schemas.codec import Codec
from schemas.master import ACTIONS, checked
from streams.master.fold import MasterFold
from streams.runtime.fold import Message, Output

CODEC = Codec()
_HEAD = ("kind", "id", "from", "to", "at", "action", "item", "group")


def second(text: str | None) -> int | None:
    """UTC seconds of an ISO date or time in UTC."""
    return None if text is None else int(datetime.fromisoformat(f"{text}+00:00").timestamp())


def item(line: dict[str, Any], number: str) -> dict[str, Any]:
    """One item of a submission from an object as lines have it."""
    action = line.get("action", "put")
    assert action in ACTIONS
    attributes = {name: value for name, value in line.items() if name not in _HEAD}
    body = checked(line["kind"], attributes, partial=action == "patch") if action in ("put", "patch") else {}
    return {
        "id": line.get("item", number), "group": line.get("group", ""), "action": action, "kind": line["kind"], "object": line["id"],
        "from": second(line.get("at", line.get("from"))), "to": second(line.get("to")), "body": json.dumps(body),
    }  # fmt: skip


class Driver:
    """One fold; every output goes through the codec, and a second fold is restored from the state rows after each message."""

    def __init__(self, partitions: int = 4) -> None:
        self.partitions = partitions
        self.rows: dict[bytes, bytes | None] = {}
        self.fold = self._make()
        self.outputs: list[Output] = []
        self.number = 0

    def _make(self) -> MasterFold:
        return MasterFold(self.partitions, {"reads.final": self.partitions})

    def restart(self) -> None:
        """A new fold from the state rows."""
        self.fold = self._make()
        for key, value in self.rows.items():
            self.fold.state.load(key, value)

    def submit(self, *lines: dict[str, Any], strict: bool = False, answer: str = "", **more: Any) -> list[dict[str, Any]]:
        """One submission; the MasterChange records that came of it."""
        self.number += 1
        message = f"m{self.number}"
        items = [item(line, f"{message}/{position}") for position, line in enumerate(lines)]
        body = {
            "message": message, "source": "test", "user": "u", "at": 1_700_000_000, "strict": strict, "answer": answer,
            "answer_partition": None, "items": items, **more,
        }  # fmt: skip
        return self.take("MasterSubmission", body)

    def take(self, kind: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        """Folds one record in; the MasterChange records that came of it."""
        body = CODEC.decode(CODEC.encode(kind, body))
        result = self.fold.apply(Message(kind, body, f"id{self.number}", f"p{self.number}", topic="master.inbox"))
        for key, value in self.fold.state.take_changed():
            self.rows[key] = value
        self.outputs += result.outputs
        self.last = [(output, CODEC.decode(CODEC.encode(output.type, output.body))) for output in result.outputs]
        return self.told("master.changes")

    def told(self, topic: str, kind: str = "") -> list[dict[str, Any]]:
        """What the last message wrote to a topic."""
        return [body for output, body in self.last if output.topic == topic and (not kind or output.type == kind)]

    def channels(self) -> list[dict[str, Any]]:
        """The MasterChannel records of the last message."""
        return self.told("vee.inbox", "MasterChannel")


def outcomes(changes: Iterable[dict[str, Any]]) -> list[str]:
    """The outcomes alone."""
    return [change["outcome"] for change in changes]


def estate(device: str = "D1", point: str = "SP1", since: str = "2024-01-01") -> list[dict[str, Any]]:
    """The objects of one metered place, in the order of loading."""
    return [
        {"kind": "account", "id": "A1"},
        {"kind": "service_point", "id": point, "zone": "Europe/Berlin", "commodity": "electricity"},
        {"kind": "device", "id": device},
        {"kind": "component", "id": f"{device}/1.8.0", "device": device, "channel": "1.8.0", "unit": "kWh", "seconds": 900,
         "multiplier": "40", "direction": "delivered"},
        {"kind": "install", "id": f"I-{device}", "device": device, "service_point": point, "event": "install", "at": since},
        {"kind": "subscription", "id": "US1", "account": "A1", "service_points": [point], "from": since, "usage_group": "residential",
         "payment": "postpaid"},
    ]  # fmt: skip
