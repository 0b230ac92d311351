"""Acts on To-Dos: handed to the agent through Kafka, answered with what became of them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

from connectors.head_end.desk import Reader
from connectors.head_end.orders import Claims, OrderBook, in_sight
from connectors.head_end.outcomes import awaited, send
from connectors.head_end.problems import ProblemError
from connectors.head_end.publish import RefusedError, Writer, check_label
from connectors.rights.principal import acting, require
from connectors.rights.scope import EVERYWHERE, Within, here
from connectors.rights.trail import Trail
from connectors.todo.questions import Questions, Selection, shown, within
from schemas.codec import Codec
from schemas.identity import identity
from schemas.topology.todo import TodoSettings

TOPIC: Final = "todo.commands"
PATIENCE: Final = 30.0  # seconds until an act that is not decided is answered with its id alone
PART: Final = 500  # To-Dos of one record: a bulk act is as many records as it needs
MOST: Final = 100_000  # To-Dos of one bulk act
SAMPLE: Final = 20
LOOKED_AT: Final = 1000  # To-Dos of an act that are waited for in the store
CANDIDATES: Final = 50  # how many are tried for one person before it is said that nothing waits
_BLANK: Final = {"versions": [], "approver": "", "to": "", "role": "", "roles": [], "text": "", "reason": "", "of": "", "items": ""}
Bulk = Literal["assign", "distribute", "release", "forward", "comment", "complete", "reopen", "prioritise"]


class BulkAct(BaseModel):
    """One thing done to many To-Dos: those named, or those a selection finds."""

    model_config = ConfigDict(extra="forbid")

    action: Bulk
    ids: list[str] = Field(default_factory=list, max_length=MOST)
    versions: list[int] = Field(default_factory=list, max_length=MOST, description="expected versions of the ids; none: as they are now")
    select: Selection | None = None
    to: str = Field(default="", max_length=255, description="assign, forward: a user; prioritise: a number; complete: the outcome")
    role: str = Field(default="", max_length=40, description="forward: a role")
    users: list[str] = Field(default_factory=list, max_length=200, description="distribute: among whom, to those who have least")
    text: str = Field(default="", max_length=4000)
    reason: str = Field(default="", max_length=255)
    user: str = Field(default="", max_length=255)
    dry_run: bool = Field(default=False, description="count only")


class TodoService(Questions):
    """What the routes of To-Dos do. Everything blocks: call it from threads."""

    def __init__(
        self, settings: TodoSettings, reader: Reader, writer: Writer, codec: Codec, patience: float = PATIENCE,
        clock: Callable[[], float] = time.time, trail: Trail | None = None, about: Mapping[str, str] | None = None,
        claims: Claims | None = None,
    ) -> None:  # fmt: skip
        super().__init__(settings, reader, about)
        self.writer, self.codec, self.patience, self.clock = writer, codec, patience, clock
        self.orders = OrderBook("todos", reader, trail or Trail(writer, codec, None), clock, claims)

    # --- acts on one --------------------------------------------------------------------------------------------------------------

    def act(
        self, action: str, todo: str | None, *, user: str, version: int | None = None, key: str | None = None, **fields: Any
    ) -> dict[str, Any]:
        """One act: its outcome, ``status`` done, or accepted where it is not decided yet.

        With a ``key`` it is done once however often it is sent. Raises Problem 404, 409 with the To-Do as it stands, 422, 503.
        """
        user = acting(user)
        if todo is not None and within()[0]:
            self.todo(todo)  # outside the area there is nothing to act on
        if action == "assign" and fields.get("to") not in (None, "", user):
            require("todos.assign", None)
        _label("user", user, required=True)
        for name in ("to", "role", "reason"):
            _label(name, str(fields.get(name, "")))
        id_ = identity("todo-act", action, todo or "", user, key or uuid.uuid4().hex)
        body = {"id": id_, "action": action, "todos": [todo] if todo else [], "user": user, **fields}
        self.send([body | {"versions": [] if version is None else [version]}])
        outcome = awaited(lambda: self.outcome(id_), self.patience)
        if outcome is None:
            return {"id": id_, "status": "accepted", "done": [], "conflicts": [], "detail": ""}
        if outcome["status"] == "refused":
            if todo is not None and not self.reader.rows("SELECT id FROM todos WHERE id = {id:String}", {"id": todo}):
                raise ProblemError(404, "not-found", "No To-Do of this id is known.", act=id_)
            raise ProblemError(422, "refused", _sentence(outcome["detail"]), act=id_)
        if outcome["status"] == "conflict":
            stands = shown(self.todo(todo)) if todo else None
            raise ProblemError(409, "conflict", "Somebody changed or completed it before you.", act=id_, todo=stands)
        self._followed(outcome["done"], [id_])
        return outcome

    def _followed(self, todos: Sequence[str], acts: Sequence[str]) -> None:
        """Waits until the store shows To-Dos as some acts left them, or newer, so that who acted sees it at the next look.

        The store may tell of an act before it tells of what it changed. Of very many only the first and the last are looked at.
        """
        some = list(dict.fromkeys((*todos[: LOOKED_AT // 2], *todos[-LOOKED_AT // 2 :])))
        sql = (
            "SELECT count() AS n FROM (SELECT todo, min(version) AS least FROM todo_history WHERE todo IN {todos:Array(String)} "
            "AND command IN {acts:Array(String)} GROUP BY todo) AS changed INNER JOIN (SELECT id, version FROM todos "
            "WHERE id IN {todos:Array(String)}) AS known ON known.id = changed.todo WHERE known.version >= changed.least"
        )
        asked = {"todos": some, "acts": list(acts)}
        awaited(lambda: not some or self.reader.rows(sql, asked)[0]["n"] >= len(some) or None, self.patience)

    def next(self, user: str, roles: Sequence[str]) -> dict[str, Any]:
        """Takes the most urgent open To-Do of some roles for a user: the act and the To-Do. Raises Problem 404 where none waits."""
        if within()[0]:
            return self._next_here(user, roles)
        try:
            outcome = self.act("next", None, user=user, roles=list(roles))
        except ProblemError as error:
            if error.kind != "refused":
                raise
            raise _nothing_waits() from None
        todo = outcome["done"][0] if outcome["done"] else None
        return {"act": outcome, "todo": None if todo is None else shown(self.after(todo, outcome["id"]))}

    def _next_here(self, user: str, roles: Sequence[str]) -> dict[str, Any]:
        """The same within an area, which the agent does not know: the first of those in it that nobody else takes meanwhile."""
        rows, _ = self.rows(Selection(state=["open"], role=list(roles)), "priority", None, CANDIDATES)
        for row in rows:
            try:
                outcome = self.act("assign", row["id"], user=user, version=int(row["version"]))
            except ProblemError as error:
                if error.status != 409:
                    raise
            else:
                return {"act": outcome, "todo": shown(self.after(row["id"], outcome["id"]))}
        raise _nothing_waits()

    def after(self, todo: str, act: str) -> dict[str, Any]:
        """A To-Do as an act left it, or newer: the store may tell of the act before it tells of the To-Do."""
        sql = (
            "SELECT * FROM todos WHERE id = {id:String} AND version >= (SELECT min(version) FROM todo_history WHERE todo = {id:String} "
            "AND command = {act:String} HAVING count() > 0)"
        )
        found = awaited(lambda: next(iter(self.reader.rows(sql, {"id": todo, "act": act})), None), self.patience)
        return self.todo(todo) if found is None else found

    def create(self, type: str, subject: str, user: str, key: str | None = None, **fields: Any) -> dict[str, Any]:
        """Raises a To-Do by hand; the act, whose ``done`` names it. Raises Problem 422."""
        if self.settings.type_of(type) is None:
            raise ProblemError(422, "not-valid", f"there is no To-Do type {type[:40]!r}", known=[kind.id for kind in self.settings.types])
        given = {name: value for name, value in fields.items() if value not in (None, "")}
        return self.act("create", None, user=user, key=key, items=orjson.dumps([{"type": type, "subject": subject, **given}]).decode())

    def undo(self, act: str, user: str) -> dict[str, Any]:
        """Takes an act back, where nobody has gone on since. Raises Problem 404, 422, 503."""
        user = acting(user)
        _label("user", user, required=True)
        rows = self.reader.rows(
            "SELECT DISTINCT id, user FROM todo_outcome_log WHERE (id = {act:String} OR startsWith(id, {part:String})) "
            "AND action != 'undo' AND status IN ('done', 'partly') ORDER BY id",
            {"act": act, "part": f"{act}/"},
        )
        if not rows:
            raise ProblemError(404, "not-found", "No act of this id has changed anything.")
        if any(row["user"] != user for row in rows):
            require("todos.bulk")
        ids = [identity("todo-undo", row["id"]) for row in rows]
        blank = {"action": "undo", "todos": [], "user": user}
        self.send([{**blank, "id": id_, "of": row["id"]} for id_, row in zip(ids, rows, strict=True)])
        told = self._joined(ids)
        self._followed(told["done"], ids)
        if told["refused"] and not told["done"]:
            raise ProblemError(422, "refused", _sentence(told["detail"]), act=act)
        self._note_bulk(identity("todo-undo", act), "undo", user, told["done"], act)
        return {"act": act, **told}

    # --- acts on many -------------------------------------------------------------------------------------------------------------

    def bulk(self, asked: BulkAct) -> dict[str, Any]:
        """Counts, does at once, or leaves a large act to a second person. Raises Problem 422, 503."""
        asked = asked.model_copy(update={"user": acting(asked.user)})
        _label("user", asked.user, required=True)
        found = self._found(asked)
        large = len(found) > self.settings.bulk_alone
        answer = {
            "id": None, "state": "dry-run", "action": asked.action, "user": asked.user, "count": len(found),
            "raised": sum(int(row.get("count", 0)) for *_, row in found), "needs_approval": large,
            "sample": [row for *_, row in found[:SAMPLE]],
        }  # fmt: skip
        if asked.dry_run or not found:
            return answer
        id_ = identity("todo-bulk", asked.model_dump_json(), uuid.uuid4().hex)
        self.orders.request(id_, asked.action, asked.user, len(found), asked.model_dump_json(), reason=asked.reason)
        if large:
            return answer | {"id": id_, "state": "waiting"}
        told = self._do(id_, asked, found, "")
        self.orders.note(id_, asked.action, "ordered", asked.user, f"{len(told['done'])} changed", reason=asked.reason)
        return answer | {"id": id_, "state": "ordered"} | told

    def decide(self, id_: str, user: str, *, approve: bool, count: int | None = None, reason: str = "") -> dict[str, Any]:
        """Approves or rejects a large act of somebody else. Raises Problem 403, 404, 409, 503."""
        user = acting(user)
        _label("user", user, required=True)
        with self.orders.decision(id_, user, approve=approve) as order:
            in_sight(order)
            asked = BulkAct.model_validate_json(order.request)
            answer = {"id": id_, "action": asked.action, "user": asked.user, "decided_by": user, "count": order.count}
            if not approve:
                self.orders.note(id_, asked.action, "rejected", user, reason or "rejected", reason=asked.reason)
                return answer | {"state": "rejected"}
            found = self._found(asked, order.area)
            self.orders.agreed(order, count, len(found))
            told = self._do(id_, asked, found, user)
            self.orders.note(id_, asked.action, "approved", user, f"{len(told['done'])} changed", reason=asked.reason)
            return answer | {"state": "approved", "count": len(found)} | told

    def acts(self) -> list[dict[str, Any]]:
        """Large acts that wait for a second person, the oldest first; of the area of the one who asks."""
        found = [self.show(id_) for id_ in self.orders.waiting() if here().covers(self.orders.find(id_).area)]
        return [act for act in found if act["count"] > self.settings.bulk_alone]  # a small one just asked for is as good as done

    def show(self, id_: str) -> dict[str, Any]:
        """A bulk act as it stands. Raises Problem 404, also for one that reaches outside the area of the one who asks."""
        order = self.orders.find(id_)
        in_sight(order)
        asked = BulkAct.model_validate_json(order.request)
        sample = [row for *_, row in self._found(asked, order.area)[:SAMPLE]] if order.state == "waiting" else []
        return {
            "id": id_, "state": order.state, "action": asked.action, "user": order.user, "decided_by": order.decided_by,
            "count": order.count, "reason": asked.reason, "text": asked.text, "sample": sample,
        }  # fmt: skip

    def _found(self, asked: BulkAct, area: Within = EVERYWHERE) -> list[tuple[str, int | None, dict[str, Any]]]:
        """Id, expected version and a short account of all that a bulk act is about; nothing outside the area."""
        if bool(asked.ids) == (asked.select is not None):
            raise ProblemError(422, "not-valid", "name ids or a selection, one of them")
        if asked.action == "distribute" and not asked.users:
            raise ProblemError(422, "not-valid", "distribute names the users")
        if asked.select is not None:
            found: list[tuple[str, int | None, dict[str, Any]]] = [*self.chosen(asked.select, MOST, area)]
            if len(found) > MOST:
                raise ProblemError(422, "too-many", f"The selection finds more than {MOST} To-Dos: narrow it.", most=MOST)
            return found
        if asked.versions and len(asked.versions) != len(asked.ids):
            raise ProblemError(422, "not-valid", "versions: as many as ids, or none")
        versions: Sequence[int | None] = asked.versions or [None] * len(asked.ids)
        where, parameters = within()
        condition = " AND ".join([*where, area.on("service_point"), "id IN {ids:Array(String)}"])
        known = {
            row["id"]: {**shown(row)}
            for row in self.reader.rows(
                f"SELECT id, version, type, subject, rule, count, user, state, priority FROM todos WHERE {condition}",
                {**parameters, **area.parameters, "ids": asked.ids},
            )
        }
        if (where or not area.everywhere) and len(known) < len(set(asked.ids)):
            raise ProblemError(404, "not-found", "Some of these To-Dos are not known, or lie outside your area.")
        return [
            (id_, known[id_]["version"] if version is None and id_ in known else version, known.get(id_, {"id": id_}))
            for id_, version in zip(asked.ids, versions, strict=True)
        ]

    def _do(self, id_: str, asked: BulkAct, found: Sequence[tuple[str, int | None, Any]], approver: str) -> dict[str, Any]:
        """Hands a bulk act to the agent in parts and waits for all of them."""
        fields = {
            "action": asked.action, "user": asked.user, "approver": approver, "to": asked.to, "role": asked.role, "roles": asked.users,
            "text": asked.text, "reason": asked.reason,
        }  # fmt: skip
        size = min(PART, self.settings.bulk_alone)
        parts = [found[first : first + size] for first in range(0, len(found), size)]
        bodies = [
            {
                **fields, "id": f"{id_}/{number:04}", "todos": [todo for todo, *_ in part],
                "versions": [-1 if version is None else version for _, version, _ in part],  # not known yet: -1 meets no version
            }
            for number, part in enumerate(parts)
        ]  # fmt: skip
        self.send(bodies)
        ids = [str(body["id"]) for body in bodies]
        told = self._joined(ids)
        self._followed(told["done"], ids)
        return told

    def _joined(self, ids: Sequence[str]) -> dict[str, Any]:
        """What became of several commands, together; ``status`` accepted while some are not decided."""
        found: dict[str, dict[str, Any]] = {}

        def ask() -> bool | None:
            left = [id_ for id_ in ids if id_ not in found]
            rows = self.reader.rows(f"{_OUTCOME} WHERE id IN {{ids:Array(String)}} ORDER BY status = 'duplicate'", {"ids": left})
            for row in rows:
                found.setdefault(row["id"], row)
            return len(found) == len(ids) or None

        complete = awaited(ask, self.patience + len(ids) * 0.2)
        told = list(found.values())
        done, conflicts = ([one for row in told for one in row[name]] for name in ("done", "conflicts"))
        status = "accepted" if not complete else "done" if not conflicts else "partly" if done else "conflict"
        refused = [row["detail"] for row in told if row["status"] == "refused"]
        return {"status": status, "done": done, "conflicts": conflicts, "refused": len(refused), "detail": refused[0] if refused else ""}

    def _note_bulk(self, id_: str, action: str, user: str, done: Sequence[str], subject: str) -> None:
        self.orders.note(id_, action, "ordered", user, f"{len(done)} taken back", reason=subject)

    # --- Kafka --------------------------------------------------------------------------------------------------------------------

    def send(self, bodies: Sequence[Mapping[str, Any]]) -> None:
        """Hands commands to the agent. Raises Problem 413, 503."""
        send(self.writer, self.codec, [(TOPIC, "TodoCommand", {**_BLANK, **body}, body["id"], body["id"]) for body in bodies])

    def outcome(self, id_: str) -> dict[str, Any] | None:
        """What became of a command; None: not decided yet. Of several outcomes the first real one counts: repeats come behind it."""
        rows = self.reader.rows(f"{_OUTCOME} WHERE id = {{id:String}} ORDER BY status = 'duplicate' LIMIT 1", {"id": id_})
        return readable_outcome(rows[0]) if rows else None


_OUTCOME: Final = "SELECT id, status, detail, done, conflicts, action FROM todo_outcome_log FINAL"


def readable_outcome(row: Mapping[str, Any]) -> dict[str, Any]:
    """An outcome as JSON."""
    return {**row, "done": list(row["done"]), "conflicts": list(row["conflicts"])}


def _label(name: str, text: str, *, required: bool = False) -> None:
    try:
        check_label(name, text, required=required)
    except RefusedError as error:
        raise ProblemError(422, "not-valid", str(error)) from None


def _nothing_waits() -> ProblemError:
    return ProblemError(404, "nothing-waits", "Nothing waits for these roles.")


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else "It was refused."
