"""``mdh users``: who may use a running hub, and in which roles."""

from __future__ import annotations

import getpass
import json as notation
import sys
from typing import Annotated, Any

import typer

from mdh.errors import UsageError
from mdh.printing import table
from mdh.running import HubClient, hub_url

app = typer.Typer(help="Users: list, add, give and take roles.", no_args_is_help=True, add_completion=False)

Name = Annotated[str, typer.Argument(help="Name of the user.")]
Url = Annotated[str | None, typer.Option(help="The gateway of the hub; default: MDH_URL, else the hub of .mdh, else port 8080.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Why = Annotated[str, typer.Option("--reason", help="For the audit.")]
RoleName = Annotated[str, typer.Argument(help="A role; GET /v1/roles has them all.")]
Utility = Annotated[str, typer.Option(help="Where the role holds; * for everywhere, patterns such as north*.")]
Region = Annotated[str, typer.Option(help="As --utility.")]
Commodity = Annotated[str, typer.Option(help="As --utility: electricity, gas, water, heat.")]


@app.command()
def ls(url: Url = None, json: Json = False) -> None:
    """List users with their roles."""
    found = call(url, "GET", "/v1/users")["items"]
    if json:
        print(notation.dumps(found, indent=2, ensure_ascii=False))
        return
    rows = [
        (one["name"], one["full_name"], one["status"], "machine" if one["machine"] else "person", ", ".join(map(_told, one["grants"])))
        for one in found
    ]
    table(("user", "name", "status", "kind", "roles"), rows, "no users")


@app.command()
def add(
    name: Name,
    role: Annotated[list[str] | None, typer.Option(help="A role it has everywhere; may be given several times.")] = None,
    full_name: Annotated[str, typer.Option(help="For people to read.")] = "",
    machine: Annotated[bool, typer.Option("--machine", help="Another system: tokens only, no password.")] = False,
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read the password from stdin instead of asking.")] = False,
    reason: Why = "",
    url: Url = None,
) -> None:
    """Add a user; asks for the password."""
    secret = None if machine or "@" in name else _password(from_stdin=password_stdin)
    grants = [{"role": one} for one in role or ()]
    body = {"name": name, "full_name": full_name, "machine": machine, "password": secret, "grants": grants, "reason": reason}
    _done(call(url, "POST", "/v1/users", json=body))


@app.command()
def passwd(
    name: Name,
    own: Annotated[bool, typer.Option("--own", help="Your own: asks for the old one too.")] = False,
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read the new password from stdin.")] = False,
    url: Url = None,
) -> None:
    """Set a password; the user's sessions end."""
    old = getpass.getpass("old password: ") if own else ""
    _done(call(url, "PUT", f"/v1/users/{name}/password", json={"password": _password(from_stdin=password_stdin), "old_password": old}))


@app.command()
def grant(
    name: Name, role: RoleName, utility: Utility = "*", region: Region = "*", commodity: Commodity = "*", reason: Why = "", url: Url = None
) -> None:
    """Give a role, everywhere or in an area."""
    held = {"role": role, "utility": utility, "region": region, "commodity": commodity}
    _done(call(url, "POST", f"/v1/users/{name}/grants", json={"grant": held, "reason": reason}))


@app.command()
def revoke(
    name: Name, role: RoleName, utility: Utility = "*", region: Region = "*", commodity: Commodity = "*", reason: Why = "", url: Url = None
) -> None:
    """Take a role away, as it was given."""
    held = {"role": role, "utility": utility, "region": region, "commodity": commodity}
    _done(call(url, "DELETE", f"/v1/users/{name}/grants", json={"grant": held, "reason": reason}))


@app.command()
def disable(name: Name, reason: Why = "", url: Url = None) -> None:
    """Disable a user: sessions and tokens end at once."""
    _done(call(url, "POST", f"/v1/users/{name}/disable", json={"reason": reason}))


@app.command()
def enable(name: Name, reason: Why = "", url: Url = None) -> None:
    """Enable a user again."""
    _done(call(url, "POST", f"/v1/users/{name}/enable", json={"reason": reason}))


def call(url: str | None, method: str, path: str, **options: Any) -> Any:
    """The JSON answer of the hub. Raises UsageError."""
    with HubClient(hub_url(url)) as hub:
        answer = hub.call(method, path, accept=frozenset({404, 409, 422, 429}), **options)
        body = answer.json() if answer.content else {}
    if not answer.is_success:
        raise UsageError(str(body.get("detail") or body.get("title")))
    return body


def _password(*, from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\n")
    first, again = getpass.getpass("password: "), getpass.getpass("again: ")
    if first != again:
        raise UsageError("the two differ")
    return first


def _told(grant: dict[str, str]) -> str:
    where = [f"{side}={grant[side]}" for side in ("utility", "region", "commodity") if grant[side] != "*"]
    return grant["role"] + (f" ({', '.join(where)})" if where else "")


def _done(user: dict[str, Any]) -> None:
    print(f"{user['name']}: {user['status']}, roles {', '.join(map(_told, user['grants'])) or 'none'}")
