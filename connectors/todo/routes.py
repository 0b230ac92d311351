"""The HTTP door of To-Dos."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Query
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from connectors.head_end import problems
from connectors.head_end.documents import Page
from connectors.head_end.problems import ProblemError
from connectors.rights.principal import acting
from connectors.todo.part import TodoDesk
from connectors.todo.questions import Age, By, Selection, Sort, State
from connectors.todo.resolve import Resolution
from connectors.todo.service import BulkAct

Many = Annotated[list[str] | None, Query(max_length=100)]
Key = Annotated[str | None, Header(max_length=255, description="the same act, however often it is sent")]
Cursor = Annotated[str | None, Query(max_length=4000, description="`next` of the page before")]
Limit = Annotated[int, Query(ge=1, le=10_000)]
_ERRORS: Final = problems.responses(404, 409, 422, 503)


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")

    user: str = Field(default="", max_length=255, description="who does it")


class Act(_Model):
    """One thing done to one To-Do."""

    version: int | None = Field(default=None, description="refuse with 409 unless the To-Do still has this version")
    text: str = Field(default="", max_length=4000, description="a note for its history")


class Assign(Act):
    """Who is to work on it."""

    to: str = Field(default="", max_length=255, description="left out: the one who asks")


class Forward(Act):
    """To whom it goes: a user or a role."""

    to: str = Field(default="", max_length=255)
    role: str = Field(default="", max_length=40)


class Comment(_Model):
    """A note for its history."""

    text: str = Field(min_length=1, max_length=4000)


class Complete(Act):
    """That it is done, and how."""

    outcome: str = Field(default="done", min_length=1, max_length=40)
    reason: str = Field(default="", max_length=255)


class Prioritise(Act):
    """How urgent it is."""

    priority: int = Field(ge=1, le=10, description="10: most urgent")


class Next(_Model):
    """For whom the most urgent one is wanted."""

    roles: list[str] = Field(min_length=1, max_length=50)


class New(_Model):
    """A To-Do raised by hand."""

    type: str = Field(max_length=40)
    subject: str = Field(min_length=1, max_length=255, description="what it is about; raised again, it is counted")
    device: str = Field(default="", max_length=255)
    channel: str = Field(default="", max_length=255)
    service_point: str = Field(default="", max_length=255)
    account: str = Field(default="", max_length=255)
    detail: str = Field(default="", max_length=4000)
    role: str = Field(default="", max_length=40)
    priority: int | None = Field(default=None, ge=1, le=10)


class Undo(_Model):
    """Which act is taken back."""

    act: str = Field(max_length=64)


class Decision(_Model):
    """What a second person says to a large act."""

    count: int | None = Field(default=None, description="what is agreed to; needed where the selection has changed since")
    reason: str = Field(default="", max_length=255)


def selection(
    type: Many = None,
    state: Annotated[list[State] | None, Query(description="left out: those that are not completed")] = None,
    role: Many = None,
    user: Many = None,
    priority: Annotated[int | None, Query(ge=1, le=10, description="at least this urgent")] = None,
    device: Many = None,
    channel: Many = None,
    account: Many = None,
    service_point: Many = None,
    payload: Many = None,
    rule: Many = None,
    severity: Many = None,
    region: Many = None,
    commodity: Many = None,
    customer_class: Many = None,
    age: Annotated[Age | None, Query(description="fresh: less than a day, week: up to seven, old: more")] = None,
    overdue: bool = False,
    grouped: bool | None = None,
) -> Selection:
    """The filters of a list."""
    lists = {
        "type": type, "state": state, "role": role, "user": user, "device": device, "channel": channel, "account": account,
        "service_point": service_point, "payload": payload, "rule": rule, "severity": severity, "region": region, "commodity": commodity,
        "customer_class": customer_class,
    }  # fmt: skip
    given: dict[str, Any] = {name: values for name, values in lists.items() if values}
    return Selection(**given, priority=priority, age=age, overdue=overdue, grouped=grouped)


def routes(desk: TodoDesk | None) -> APIRouter:
    """All routes of To-Dos. Without a desk the interface is only described."""
    router = APIRouter(prefix="/v1", tags=["todos"])
    _lists(router, desk)  # before those of one To-Do: their paths would be taken for ids
    _many(router, desk)
    _one(router, desk)
    return router


def _there(desk: TodoDesk | None) -> TodoDesk:
    if desk is None:
        raise ProblemError(503, "no-todos", "This gateway has no To-Dos.")
    return desk


def _lists(router: APIRouter, desk: TodoDesk | None) -> None:
    @router.get("/todos", response_model=Page, summary="To-Dos: the queue, or completed ones", responses=problems.responses(422, 503))
    def todos(
        wanted: Annotated[Selection, Depends(selection)], sort: Sort = "priority", cursor: Cursor = None, limit: Limit = 100
    ) -> dict[str, Any]:
        return _there(desk).todos.page(wanted, sort, cursor, limit)

    @router.get("/todos/groups", summary="How many To-Dos there are of each value of a column", responses=problems.responses(422, 503))
    def groups(wanted: Annotated[Selection, Depends(selection)], by: By) -> list[dict[str, Any]]:
        return _there(desk).todos.groups(wanted, by)

    @router.get("/todos/types", summary="Types of To-Dos")
    def types() -> list[dict[str, Any]]:
        return _there(desk).todos.types()

    @router.get("/todos/stats", summary="Live To-Dos by type, age, role and user", responses=problems.responses(503))
    def stats() -> dict[str, Any]:
        return _there(desk).todos.stats()


def _many(router: APIRouter, desk: TodoDesk | None) -> None:
    @router.post("/todos/next", summary="Take the most urgent open To-Do of some roles", responses=_ERRORS)
    def take(asked: Next) -> dict[str, Any]:
        return _there(desk).todos.next(acting(asked.user), asked.roles)

    @router.post("/todos/bulk", summary="Do one thing to many To-Dos, or count them", responses=_ERRORS)
    def bulk(asked: BulkAct) -> JSONResponse:
        told = _there(desk).todos.bulk(asked.model_copy(update={"user": acting(asked.user)}))
        return JSONResponse(told, 202 if told["state"] == "waiting" or told.get("status") == "accepted" else 200)

    @router.post("/todos/undo", summary="Take an act back", responses=_ERRORS)
    def undo(asked: Undo) -> JSONResponse:
        return _answer(_there(desk).todos.undo(asked.act, acting(asked.user)))

    @router.get("/todo-acts", summary="Large acts that wait for a second person", responses=problems.responses(503))
    def acts() -> list[dict[str, Any]]:
        return _there(desk).todos.acts()

    @router.get("/todo-acts/{id}", summary="A bulk act as it stands", responses=problems.responses(404, 503))
    def act(id: str) -> dict[str, Any]:
        return _there(desk).todos.show(id)

    @router.post(
        "/todo-acts/{id}/approve", summary="Approve a large act of somebody else", responses=problems.responses(403, 404, 409, 503)
    )
    def approve(id: str, said: Decision) -> dict[str, Any]:
        return _there(desk).todos.decide(id, acting(said.user), approve=True, count=said.count, reason=said.reason)

    @router.post("/todo-acts/{id}/reject", summary="Reject a large act", responses=problems.responses(404, 409, 503))
    def reject(id: str, said: Decision) -> dict[str, Any]:
        return _there(desk).todos.decide(id, acting(said.user), approve=False, reason=said.reason)


def _one(router: APIRouter, desk: TodoDesk | None) -> None:
    @router.post("/todos", status_code=201, summary="Raise a To-Do by hand", responses=_ERRORS)
    def create(asked: New, idempotency_key: Key = None) -> JSONResponse:
        fields = asked.model_dump(exclude={"type", "subject", "user"})
        return _answer(_there(desk).todos.create(asked.type, asked.subject, acting(asked.user), idempotency_key, **fields), 201)

    @router.get("/todos/{id}", summary="A To-Do: history, exceptions, every rule's verdict", responses=problems.responses(404, 503))
    def todo(id: str) -> dict[str, Any]:
        return _there(desk).todos.detail(id)

    def do(action: str, id: str, asked: Act, key: str | None, **fields: Any) -> JSONResponse:
        found = _there(desk).todos.act(action, id, user=acting(asked.user), version=asked.version, key=key, text=asked.text, **fields)
        return _answer(found)

    @router.post("/todos/{id}/assign", summary="Give it to somebody, or take it", responses=_ERRORS)
    def assign(id: str, asked: Assign, idempotency_key: Key = None) -> JSONResponse:
        return do("assign", id, asked, idempotency_key, to=asked.to)

    @router.post("/todos/{id}/release", summary="Put it back into the queue", responses=_ERRORS)
    def release(id: str, asked: Act, idempotency_key: Key = None) -> JSONResponse:
        return do("release", id, asked, idempotency_key)

    @router.post("/todos/{id}/forward", summary="Pass it on to a user or a role", responses=_ERRORS)
    def forward(id: str, asked: Forward, idempotency_key: Key = None) -> JSONResponse:
        return do("forward", id, asked, idempotency_key, to=asked.to, role=asked.role)

    @router.post("/todos/{id}/comment", summary="Write a note into its history", responses=_ERRORS)
    def comment(id: str, asked: Comment, idempotency_key: Key = None) -> JSONResponse:
        return do("comment", id, Act(user=acting(asked.user), text=asked.text), idempotency_key)

    @router.post("/todos/{id}/complete", summary="Say that it is done", responses=_ERRORS)
    def complete(id: str, asked: Complete, idempotency_key: Key = None) -> JSONResponse:
        return do("complete", id, asked, idempotency_key, to=asked.outcome, reason=asked.reason)

    @router.post("/todos/{id}/reopen", summary="Open a completed one again", responses=_ERRORS)
    def reopen(id: str, asked: Act, idempotency_key: Key = None) -> JSONResponse:
        return do("reopen", id, asked, idempotency_key)

    @router.post("/todos/{id}/prioritise", summary="Say how urgent it is", responses=_ERRORS)
    def prioritise(id: str, asked: Prioritise, idempotency_key: Key = None) -> JSONResponse:
        return do("prioritise", id, asked, idempotency_key, to=str(asked.priority))

    @router.post("/todos/{id}/resolve", summary="Resolve what is behind it, or see what that would change", responses=_ERRORS)
    def resolve(id: str, asked: Resolution) -> dict[str, Any]:
        return _there(desk).resolver.resolve(id, asked)


def _answer(outcome: dict[str, Any], status: int = 200) -> JSONResponse:
    return JSONResponse(outcome, 202 if outcome["status"] == "accepted" else status)
