"""Orders that may wait for a second person, kept as entries of the audit and nowhere else, so that they outlive the hub process.

*requested* holds what is wanted, *ordered* or *approved* say who did it, *rejected* who did not let it happen. Of two decisions that meet,
the first counts: whoever decides takes the order first, on a topic that all hub processes follow, and what was decided here is known before
the store knows it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Protocol

import orjson

from connectors.head_end.desk import Reader
from connectors.head_end.problems import ProblemError
from connectors.head_end.publish import PublishError
from connectors.rights.roles import Area
from connectors.rights.scope import EVERYWHERE, Within, here
from connectors.rights.trail import Trail
from schemas.identity import identity

DECIDED: Final = ("ordered", "approved", "rejected")
REMEMBERED: Final = 1000  # requests and decisions: by then the store has them


@dataclass(frozen=True, slots=True)
class Order:
    """An order as it stands: ``request`` is the JSON it was made with, ``count`` how much it found then."""

    id: str
    request: str
    user: str
    count: int
    state: str  # waiting, or one of DECIDED
    decided_by: str
    area: Within = EVERYWHERE  # where the one who asked may do it: what it finds lies there, whoever decides


class Claims(Protocol):
    """Where those who decide an order take it first, so that of all hub processes one decides."""

    def claim(self, order: str, user: str, *, approve: bool) -> None:
        """Takes an order; the same decision of the same person may be taken up again. Raises ProblemError 409, 503."""
        ...

    def release(self, order: str, user: str) -> None:
        """Gives an order back that came to no decision."""
        ...


class OrderBook:
    """The orders of one kind: ``kind`` begins the actions of their audit entries. Without claims this process is the only one."""

    def __init__(
        self, kind: str, reader: Reader, trail: Trail, clock: Callable[[], float] = time.time, claims: Claims | None = None
    ) -> None:
        self.kind, self.reader, self.trail, self.clock, self.claims = kind, reader, trail, clock, claims
        self._lock = threading.Lock()
        self._deciding: set[str] = set()
        self._asked: dict[str, Order] = {}  # the latest requests and decisions of this process: the store may not have them yet
        self._decided: dict[str, tuple[str, str]] = {}  # outcome, who

    def note(
        self, id_: str, action: str, outcome: str, actor: str, detail: str, *, reason: str = "", before: str = "", after: str = "",
        span: tuple[datetime, datetime] | None = None,
    ) -> None:  # fmt: skip
        """An entry of the audit; returns when Kafka has it. Raises ProblemError 503."""
        now = int(self.clock())
        since, until = (int(one.timestamp()) for one in span) if span else (now, now)
        try:
            self.trail.write(
                f"{self.kind}-{action}", id_, outcome, actor=actor, at=now, start=since, end=until, reason=reason, detail=detail,
                before=before, after=after, bulk=id_, approved_by=actor if outcome == "approved" else "",
                id=identity("audit", self.kind, id_, outcome),
            )  # fmt: skip
        except PublishError as error:
            detail = "Kafka does not take requests now; what was asked may be asked again."
            raise ProblemError(503, "kafka-away", detail, headers={"Retry-After": "5"}) from error
        if outcome in DECIDED:
            with self._lock:
                self._decided[id_] = outcome, actor
                _shorten(self._decided)

    def request(self, id_: str, action: str, user: str, count: int, request: str, *, detail: str = "", **more: Any) -> None:
        """Notes what somebody wants done with ``count`` things."""
        area = here(mark="asked")
        after = orjson.dumps({"count": count} | ({} if area.bounds is None else {"area": area.bounds})).decode()
        self.note(id_, action, "requested", user, detail or f"{count} in all", before=request, after=after, **more)
        with self._lock:
            self._asked[id_] = Order(id_, request, user, count, "waiting", "", area)
            _shorten(self._asked)

    def find(self, id_: str) -> Order:
        """An order. Raises ProblemError 404."""
        rows = self.reader.rows(
            "SELECT outcome, actor, before, after FROM audit WHERE subject = {id:String} AND bulk = {id:String} AND command = '' "
            "AND startsWith(action, {kind:String}) ORDER BY at, sequence",
            {"id": id_, "kind": f"{self.kind}-"},
        )
        asked = next((row for row in rows if row["outcome"] == "requested"), None)
        if asked is None and id_ in self._asked:
            known = self._asked[id_]
            state, by = self._decided.get(id_, ("waiting", ""))
            return replace(known, state=state, decided_by=by)
        if asked is None:
            raise _unknown()
        decided = next((row for row in rows if row["outcome"] in DECIDED), None)
        told = orjson.loads(asked["after"])
        state, by = (decided["outcome"], decided["actor"]) if decided else self._decided.get(id_, ("waiting", ""))
        return Order(id_, asked["before"], asked["actor"], int(told["count"]), state, by, _area(told.get("area")))

    @contextmanager
    def decision(self, id_: str, user: str, *, approve: bool) -> Iterator[Order]:
        """An order that waits and that ``user`` may decide, held while it is decided.

        Raises ProblemError: 404, 403 by the one who asked, 409 decided or being decided.
        """
        with self._lock:
            if id_ in self._deciding:
                raise being_decided()
            self._deciding.add(id_)
        try:
            order = self._decidable(id_, user, approve=approve)
            with self._claimed(id_, user, approve=approve):
                yield order
        finally:
            with self._lock:
                self._deciding.discard(id_)

    @contextmanager
    def _claimed(self, id_: str, user: str, *, approve: bool) -> Iterator[None]:
        """Holds an order against other processes. What failed on the way to a decision gives it back."""
        if self.claims is None:
            yield
            return
        self.claims.claim(id_, user, approve=approve)
        try:
            yield
        except ProblemError as error:
            if error.status < 500:  # beyond, parts may be on their way: the same person goes on with it
                self.claims.release(id_, user)
            raise

    def _decidable(self, id_: str, user: str, *, approve: bool) -> Order:
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
        with self._lock:
            asked = [id_ for id_ in self._asked if id_ not in self._decided]
        there = self.reader.rows("SELECT DISTINCT bulk FROM audit WHERE bulk IN {ids:Array(String)}", {"ids": asked}) if asked else ()
        stored = {row["bulk"] for row in there}  # of these the store tells, others may have been decided by another process
        rows = self.reader.rows(  # asked last: what was not stored a moment ago must not be missed by both questions
            "SELECT bulk FROM audit WHERE bulk != '' AND command = '' AND startsWith(action, {kind:String}) GROUP BY bulk "
            "HAVING countIf(outcome IN ('ordered', 'approved', 'rejected')) = 0 ORDER BY min(at), bulk LIMIT 100",
            {"kind": f"{self.kind}-"},
        )
        listed = [row["bulk"] for row in rows if row["bulk"] not in self._decided]
        return listed + [id_ for id_ in asked if id_ not in stored and id_ not in listed]


def in_sight(order: Order) -> None:
    """Raises ProblemError 404, as for one that is not there, where an order reaches outside the area of the one who asks."""
    if not here().covers(order.area):
        raise _unknown()


def being_decided() -> ProblemError:
    """Somebody else holds an order."""
    return ProblemError(409, "decided", "Somebody else is deciding this order right now.")


def _unknown() -> ProblemError:
    return ProblemError(404, "not-found", "No order of this id is known yet; one just taken appears within seconds.")


def _area(told: Any) -> Within:
    """The area of an order as its entry says it."""
    return EVERYWHERE if told is None else Within(tuple((Area(**one), Area(**other)) for one, other in told), "asked")


def _shorten(kept: dict[str, Any]) -> None:
    while len(kept) > REMEMBERED:
        kept.pop(next(iter(kept)))
