"""A running hub as the simulated head end and the demo use it: master data, payloads under fixed keys, waiting, questions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from mdh.commands.send import Shipment
from mdh.errors import UsageError
from mdh.running import HubClient


class HubAt(HubClient):
    """The hub at an address. Every method raises UsageError with one line when the hub refuses or does not answer."""

    def master(self, lines: Iterable[dict[str, Any]]) -> list[str]:
        """Sends master data; the ids to wait for. Raises UsageError if a line is refused."""
        body = "".join(json.dumps(line) + "\n" for line in lines)
        headers = {"Content-Type": "application/x-ndjson"}
        answer: dict[str, Any] = self.call("POST", "/v1/master", content=body.encode(), headers=headers).json()
        if answer["errors"]:
            first = answer["errors"][0]
            raise UsageError(f"master data line {first['line']}: {first['message']}")
        ids: list[str] = answer["ids"]
        return ids

    def reads(self, data: bytes, *, source: str, name: str, key: str) -> str:
        """Sends one payload; its id. The same key is one payload, however often it is sent."""
        headers = {"Idempotency-Key": key, "Content-Type": "application/octet-stream"}
        answer = self.call("POST", "/v1/reads", content=data, params={"source": source, "name": name}, headers=headers)
        return str(answer.json()["id"])

    def settle(self, ids: Sequence[str], patience: float = 300.0, advance: Callable[[int], None] = lambda _: None) -> dict[str, int]:
        """Waits until all payloads are decided and stored and the days they touch are closed; the sums of their counts."""
        return Shipment(self, sent=[(id, "") for id in ids]).settle(patience, advance)

    def sql(self, query: str) -> list[dict[str, Any]]:
        """The rows of a query against the public views."""
        text = self.call("POST", "/v1/sql", json={"sql": query}).text
        return [json.loads(line) for line in text.splitlines() if line]
