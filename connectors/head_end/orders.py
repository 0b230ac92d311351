"""Orders that may wait for a second person, kept as entries of the audit and nowhere else, so that they outlive the hub process.

*requested* holds what is wanted, *ordered* or *approved* say who did it, *rejected* who did not let it happen. Decisions share one id: of
two that meet, one stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from connectors.head_end.desk import Reader
from connectors.head_end.outcomes import send
from connectors.head_end.problems import ProblemError
from connectors.head_end.publish import Writer
from schemas.codec import Codec
from schemas.identity import identity

DECIDED: Final = ("ordered", "approved", "rejected")


@dataclass(frozen=True, slots=True)
class Order:
    """An order as it stands: ``request`` is the JSON it was made with, ``count`` how much it found then."""

    id: str
    request: str
    user: str
    count: int
    state: str  # waiting, or one of DECIDED
    decided_by: str


class OrderBook:
    """The orders of one kind: ``kind`` begins the actions of their audit entries."""

    def __init__(self, kind: str, reader: Reader, writer: Writer, codec: Codec, topic: str, clock: Callable[[], float]) -> None:
        self.kind, self.reader, self.writer, self.codec, self.topic, self.clock = kind, reader, writer, codec, topic, clock

    def note(
        self, id_: str, action: str, outcome: str, actor: str, detail: str, *, reason: str = "", before: str = "", after: str = "",
        span: tuple[datetime, datetime] | None = None,
    ) -> None:  # fmt: skip
        """An entry of the audit; returns when Kafka has it. Raises ProblemError 503."""
        now = datetime.fromtimestamp(int(self.clock()), UTC)
        since, until = span or (now, now)
        body = {
            "id": identity("audit", self.kind, id_, "decision" if outcome in DECIDED else outcome), "at": now, "actor": actor,
            "action": f"{self.kind}-{action}", "command": "", "subject": id_, "device": "", "channel": "", "start": since, "end": until,
            "reason": reason, "outcome": outcome, "detail": detail, "before": before, "after": after, "bulk": id_,
            "approved_by": actor if outcome == "approved" else "",
        }  # fmt: skip
        send(self.writer, self.codec, [(self.topic, "AuditEvent", body, id_, str(body["id"]))])

    def request(self, id_: str, action: str, user: str, count: int, request: str, **more: Any) -> None:
        """Notes what somebody wants done with ``count`` things."""
        self.note(id_, action, "requested", user, f"{count} in all", before=request, after=orjson.dumps({"count": count}).decode(), **more)

    def find(self, id_: str) -> Order:
        """An order. Raises ProblemError 404."""
        rows = self.reader.rows(
            "SELECT outcome, actor, before, after FROM audit WHERE subject = {id:String} AND bulk = {id:String} AND command = '' "
            "AND startsWith(action, {kind:String})",
            {"id": id_, "kind": f"{self.kind}-"},
        )
        asked = next((row for row in rows if row["outcome"] == "requested"), None)
        if asked is None:
            raise ProblemError(404, "not-found", "No order of this id is known yet; one just taken appears within seconds.")
        decided = next((row for row in rows if row["outcome"] in DECIDED), None)
        count = int(orjson.loads(asked["after"])["count"])
        state, by = (decided["outcome"], decided["actor"]) if decided else ("waiting", "")
        return Order(id_, asked["before"], asked["actor"], count, state, by)

    def decidable(self, id_: str, user: str, *, approve: bool) -> Order:
        """An order that waits and that ``user`` may decide. Raises ProblemError: 404, 403 by the one who asked, 409 decided."""
        order = self.find(id_)
        if order.state != "waiting":
            raise ProblemError(409, "decided", f"The order was {order.state} by {order.decided_by}.")
        if user == order.user and approve:
            raise ProblemError(403, "four-eyes", "Somebody else than the one who asked for it must approve an order.")
        return order

    @staticmethod
    def agreed(order: Order, count: int | None, found: int) -> None:
        """Raises ProblemError 409 where a selection finds another number than was agreed to."""
        wanted = order.count if count is None else count
        if found != wanted:
            detail = f"The selection finds {found} now, not {wanted}: approve again with this count."
            raise ProblemError(409, "changed", detail, count=found)

    def waiting(self) -> list[str]:
        """Orders that wait for a second person, the oldest first, 100 at most."""
        rows = self.reader.rows(
            "SELECT bulk FROM audit WHERE bulk != '' AND command = '' AND startsWith(action, {kind:String}) GROUP BY bulk "
            "HAVING countIf(outcome IN ('ordered', 'approved', 'rejected')) = 0 ORDER BY min(at), bulk LIMIT 100",
            {"kind": f"{self.kind}-"},
        )
        return [row["bulk"] for row in rows]
