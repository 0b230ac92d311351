"""``mdh subscribers``: who is told of what, on a running hub."""

from __future__ import annotations

import getpass
import json as notation
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mdh.errors import UsageError
from mdh.printing import table
from mdh.running import HubClient, hub_url

app = typer.Typer(help="Subscribers: list, add, pause, replay, test.", no_args_is_help=True, add_completion=False)

Id = Annotated[str, typer.Argument(help="Id of the subscriber.")]
Url = Annotated[str | None, typer.Option(help="The gateway of the hub; default: MDH_URL, else the hub of .mdh, else port 8080.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
User = Annotated[str | None, typer.Option(help="Who does it; default: you.")]
Why = Annotated[str, typer.Option("--reason", help="For the audit.")]
ACCEPT = frozenset({404, 409, 412, 422, 502})


@app.command()
def ls(
    url: Url = None, json: Json = False, ended: Annotated[bool, typer.Option("--ended", help="Those that have ended too.")] = False
) -> None:
    """List subscribers and how delivery goes."""
    found = _call(url, "GET", f"/v1/subscribers?ended={str(ended).lower()}")["items"]
    if json:
        _print(found)
        return
    rows = []
    for one in found:
        delivery = one["delivery"]
        state = delivery["state"] if one["status"] == "active" else one["status"]
        waiting = str(delivery.get("waiting_records", ""))
        rows.append((one["id"], state, one["channel"]["kind"], ", ".join(one["objects"]), waiting, delivery.get("problem", "")))
    table(("subscriber", "state", "channel", "objects", "waiting", "problem"), rows, "no subscribers")


@app.command()
def show(id: Id, url: Url = None) -> None:
    """Show a subscriber with its settings and state, as JSON."""
    _print(_call(url, "GET", f"/v1/subscribers/{id}"))


@app.command()
def add(
    id: Id,
    file: Annotated[Path, typer.Argument(help="Its settings as in topology.yaml, YAML or JSON; - for stdin.")],
    user: User = None,
    change: Annotated[bool, typer.Option("--change", help="Change the one that is there.")] = False,
    url: Url = None,
) -> None:
    """Register a subscriber (or change one), effective at once."""
    import yaml

    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text()
        spec = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{file}: {' '.join(str(error).split())}") from None
    if not isinstance(spec, dict):
        raise UsageError(f"{file}: must hold the settings of one subscriber")
    spec = notation.loads(notation.dumps(spec, default=str))
    if change:
        _print(_call(url, "PUT", f"/v1/subscribers/{id}", user, json=spec))
    else:
        _print(_call(url, "POST", "/v1/subscribers", user, json={**spec, "id": id}))


@app.command()
def pause(id: Id, reason: Why = "", user: User = None, url: Url = None) -> None:
    """Stop delivering; what comes waits in Kafka."""
    _verb(url, id, "pause", user, {"reason": reason})


@app.command()
def resume(id: Id, reason: Why = "", user: User = None, url: Url = None) -> None:
    """Go on delivering where it stopped."""
    _verb(url, id, "resume", user, {"reason": reason})


@app.command()
def end(id: Id, user: User = None, url: Url = None) -> None:
    """End a subscriber."""
    found = _call(url, "DELETE", f"/v1/subscribers/{id}", user)
    print(f"{found['id']}: {found['status']}, version {found['version']}")


@app.command()
def replay(
    id: Id,
    start: Annotated[str, typer.Option("--from", help="earliest, a date, or an ISO time with offset.")],
    end: Annotated[str | None, typer.Option("--to", help="Stop before this time, and go on where delivery was.")] = None,
    reason: Why = "",
    user: User = None,
    url: Url = None,
) -> None:
    """Deliver again what Kafka got since a time (or between two), in order, then go on."""
    _verb(url, id, "replay", user, {"from": start, "reason": reason, **({"to": end} if end else {})})


@app.command()
def resend(id: Id, delivery: Annotated[str, typer.Argument(help="Id of the delivery (see deliveries --json).")], url: Url = None) -> None:
    """Send one delivery once more, such as one that was given up."""
    _print(_call(url, "POST", f"/v1/subscribers/{id}/deliveries/{delivery}/resend"))


@app.command("test")
def try_out(id: Id, object: Annotated[str | None, typer.Option(help="Which sample.")] = None, url: Url = None) -> None:
    """Send a sample now, marked as a test."""
    _print(_call(url, "POST", f"/v1/subscribers/{id}/test", json={"object": object}))


@app.command()
def deliveries(
    id: Id,
    status: Annotated[str | None, typer.Option(help="pending, sent, retrying, failed, dead or skipped.")] = None,
    since: Annotated[str | None, typer.Option("--from", help="ISO time.")] = None,
    most: Annotated[int, typer.Option("--max", help="Rows at most.", min=1, max=10_000)] = 50,
    url: Url = None,
    json: Json = False,
) -> None:
    """What became of its deliveries, oldest first."""
    wanted = {name: value for name, value in (("status", status), ("from", since), ("limit", most)) if value is not None}
    with HubClient(hub_url(url)) as hub:
        found = _answered(hub.call("GET", f"/v1/subscribers/{id}/deliveries", params=wanted, accept=ACCEPT))["items"]
    if json:
        _print(found)
        return
    rows = [(d["at"], d["status"], str(d["attempt"]), d["object"], str(d["records"]), d["place"], d["reason"] or d["key"]) for d in found]
    table(("at", "status", "attempt", "object", "items", "place", "reason or key"), rows, "no deliveries")


@app.command()
def objects(
    name: Annotated[str | None, typer.Argument(help="One of them in full, as JSON.")] = None, url: Url = None, json: Json = False
) -> None:
    """What subscribers can ask for."""
    if name is not None:
        _print(_call(url, "GET", f"/v1/objects/{name}"))
        return
    found = _call(url, "GET", "/v1/objects")["items"]
    if json:
        _print(found)
        return
    rows = [(o["name"], o["topic"], ", ".join(o["schema_versions"]) or "reserved", o["about"]) for o in found]
    table(("object", "topic", "schemas", "what"), rows, "no objects")


def _verb(url: str | None, id: str, verb: str, user: str | None, body: dict[str, Any]) -> None:
    found = _call(url, "POST", f"/v1/subscribers/{id}/{verb}", user, json=body)
    print(f"{found['id']}: {found['status']}, version {found['version']}")


def _call(url: str | None, method: str, path: str, user: str | None = None, **options: Any) -> Any:
    params = {"user": user or getpass.getuser()} if method != "GET" and not path.endswith("/test") else None
    with HubClient(hub_url(url)) as hub:
        return _answered(hub.call(method, path, accept=ACCEPT, **options, **({"params": params} if params else {})))


def _answered(answer: Any) -> Any:
    body = answer.json()
    if not answer.is_success:
        raise UsageError(str(body.get("detail") or body.get("title")))
    return body


def _print(value: Any) -> None:
    print(notation.dumps(value, indent=2, ensure_ascii=False))
