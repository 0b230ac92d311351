"""``mdh todos``: the To-Do queue of a running hub."""

from __future__ import annotations

import getpass
import json as notation
from typing import Annotated, Any

import typer

from mdh.errors import UsageError
from mdh.printing import table
from mdh.running import HubClient, hub_url

app = typer.Typer(help="To-Dos: list, take, show, assign, complete, in bulk, undo.", no_args_is_help=True, add_completion=False)

Id = Annotated[str, typer.Argument(help="Id of the To-Do.")]
Url = Annotated[str | None, typer.Option(help="The gateway of the hub; default: MDH_URL, else the hub of .mdh, else port 8080.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
User = Annotated[str | None, typer.Option(help="Who does it; default: you.")]
Reason = Annotated[str, typer.Option(help="Reason code.")]
Note = Annotated[str, typer.Option("--text", help="A note for its history.")]
Version = Annotated[int | None, typer.Option(help="Only if it still has this version.")]
Many = list[str] | None
Type = Annotated[Many, typer.Option("--type", help="Only this type; may be given again, like all filters.")]
State = Annotated[Many, typer.Option("--state", help="open, working or completed; default: not completed.")]
Role = Annotated[Many, typer.Option("--role", help="Only of this role.")]
Rule = Annotated[Many, typer.Option("--rule", help="Only of this rule.")]
Device = Annotated[Many, typer.Option("--device", help="Only of this device.")]
Payload = Annotated[Many, typer.Option("--payload", help="Only of this payload.")]
Of = Annotated[Many, typer.Option("--of", help="Only those this user works on.")]
Age = Annotated[str | None, typer.Option(help="fresh (less than a day), week, or old.")]
ACCEPT = frozenset({403, 404, 409, 413, 422})


@app.command()
def ls(
    type: Type = None, state: State = None, role: Role = None, rule: Rule = None, device: Device = None, payload: Payload = None,
    of: Of = None, age: Age = None, sort: Annotated[str, typer.Option(help="priority, oldest, newest, due or count.")] = "priority",
    most: Annotated[int, typer.Option("--max", help="Rows at most.", min=1, max=10_000)] = 50, url: Url = None, json: Json = False,
) -> None:  # fmt: skip
    """List To-Dos, the most urgent first."""
    wanted = _filters(type, state, role, rule, device, payload, of, age) | {"sort": sort, "limit": most}
    found = _call(url, "GET", "/v1/todos", params=wanted)["items"]
    if json:
        _print(found)
        return
    rows = [
        (t["id"], str(t["priority"]), t["state"], t["user"] or t["role"], t["type"], t["subject"], str(t["count"]), t["detail"])
        for t in found
    ]
    table(("to-do", "prio", "state", "whose", "type", "subject", "count", "detail"), rows, "nothing to do")


@app.command("next")
def take(
    role: Annotated[list[str], typer.Option("--role", help="A role of yours; may be given again.")], user: User = None, url: Url = None
) -> None:
    """Take the most urgent open To-Do."""
    found = _post(url, "/v1/todos/next", user, {"roles": role})
    _print(found["todo"] or found["act"])


@app.command()
def show(id: Id, url: Url = None) -> None:
    """Show one with its history, exceptions and verdicts, as JSON."""
    _print(_call(url, "GET", f"/v1/todos/{id}"))


@app.command()
def assign(
    id: Id, to: Annotated[str, typer.Option(help="To whom; default: the one who does it.")] = "", version: Version = None, text: Note = "",
    user: User = None, url: Url = None,
) -> None:  # fmt: skip
    """Give one to somebody."""
    _told(_post(url, f"/v1/todos/{id}/assign", user, {"to": to, "version": version, "text": text}))


@app.command()
def complete(
    id: Id, outcome: Annotated[str, typer.Option(help="How it ended.")] = "done", reason: Reason = "", version: Version = None,
    text: Note = "", user: User = None, url: Url = None,
) -> None:  # fmt: skip
    """Say that one is done."""
    _told(_post(url, f"/v1/todos/{id}/complete", user, {"outcome": outcome, "reason": reason, "version": version, "text": text}))


@app.command()
def bulk(
    action: Annotated[str, typer.Argument(help="assign, distribute, release, forward, comment, complete, reopen or prioritise.")],
    type: Type = None, state: State = None, role: Role = None, rule: Rule = None, device: Device = None, payload: Payload = None,
    of: Of = None, age: Age = None, to: Annotated[str, typer.Option(help="A user; prioritise: a number; complete: the outcome.")] = "",
    among: Annotated[Many, typer.Option("--among", help="distribute: a user; may be given again.")] = None, reason: Reason = "",
    text: Note = "", dry_run: Annotated[bool, typer.Option("--dry-run", help="Count only.")] = False, user: User = None, url: Url = None,
) -> None:  # fmt: skip
    """Do one thing to all that the filters find. Large acts wait until somebody else approves them."""
    select = _filters(type, state, role, rule, device, payload, of, age)
    if not select:
        raise UsageError("say which: give at least one filter")
    body = {"action": action, "select": select, "to": to, "users": among or [], "reason": reason, "text": text, "dry_run": dry_run}
    _print(_post(url, "/v1/todos/bulk", user, body))


@app.command()
def undo(act: Annotated[str, typer.Argument(help="Id of the act.")], user: User = None, url: Url = None) -> None:
    """Take an act back where nobody has gone on since."""
    _told(_post(url, "/v1/todos/undo", user, {"act": act}))


@app.command()
def stats(url: Url = None, json: Json = False) -> None:
    """How much there is to do, by type, role and user, and how old it is."""
    found = _call(url, "GET", "/v1/todos/stats")
    if json:
        _print(found)
        return
    names = ("todos", "open", "working", "fresh", "week", "old", "overdue")
    rows = [
        (f"{column} {row[column]}", *(str(row[name]) for name in names))
        for group, column in (("types", "type"), ("roles", "role"), ("users", "user"))
        for row in found[group]
    ]
    if found["all"]:
        rows.append(("all", *(str(found["all"][name]) for name in names)))
    table(("", "to-dos", "open", "working", "< 1 day", "1-7 days", "> 7 days", "overdue"), rows, "nothing to do")


def _filters(type: Many, state: Many, role: Many, rule: Many, device: Many, payload: Many, user: Many, age: str | None) -> dict[str, Any]:
    given = {"type": type, "state": state, "role": role, "rule": rule, "device": device, "payload": payload, "user": user, "age": age}
    return {name: value for name, value in given.items() if value}


def _post(url: str | None, path: str, user: str | None, body: dict[str, Any]) -> Any:
    return _call(url, "POST", path, json={**body, "user": user or getpass.getuser()})


def _print(value: Any) -> None:
    print(notation.dumps(value, indent=2, ensure_ascii=False))


def _told(outcome: dict[str, Any]) -> None:
    conflicts = f", {len(outcome['conflicts'])} in conflict" if outcome["conflicts"] else ""
    print(f"{outcome.get('act') or outcome['id']}: {outcome['status']}, {len(outcome['done'])} changed{conflicts}")


def _call(url: str | None, method: str, path: str, **options: Any) -> Any:
    with HubClient(hub_url(url)) as hub:
        answer = hub.call(method, path, accept=ACCEPT, **options)
    body = answer.json() if answer.content else {}
    if not answer.is_success:
        raise UsageError(str(body.get("detail") or body.get("title") or notation.dumps(body)))
    return body
