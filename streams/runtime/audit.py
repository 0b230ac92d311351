"""What an agent writes into the audit: one hash chain per partition, whose end is part of the state and so of every transaction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from schemas.audit import chained
from streams.runtime.fold import Output
from streams.runtime.state import State

AUDIT: Final = "audit.events"
_END: Final = "audit"  # entry of the state


class Chain:
    """The chain of one partition of an agent. It is named after agent, partition and its first entry.

    An agent that begins anew with the same inbox writes the same chain again; with another, one of another name.
    """

    def __init__(self, state: State, agent: str, partition: int) -> None:
        self.state, self.agent, self.partition = state, agent, partition

    def output(self, body: Mapping[str, Any]) -> Output:
        """The record of an entry. All of a chain go to one partition, so that readers find it in order."""
        kept = self.state.entries.get(_END)
        name = f"{self.agent}-{self.partition}-{body['id'][:8]}"
        end: dict[str, Any] = orjson.loads(kept) if kept else {"writer": name, "sequence": 0, "hash": ""}
        entry = chained(body, end["writer"], end["sequence"] + 1, end["hash"])
        self.state.put(_END, orjson.dumps({name: entry[name] for name in ("writer", "sequence", "hash")}))
        return Output(AUDIT, "AuditEvent", entry, body["subject"].encode(), self.partition)
