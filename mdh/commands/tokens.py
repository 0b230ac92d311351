"""``mdh tokens``: API tokens of a running hub."""

from __future__ import annotations

import getpass
import json as notation
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from mdh.commands.users import call
from mdh.errors import UsageError
from mdh.printing import table
from mdh.running import HubClient, hub_url, reason_of

app = typer.Typer(help="API tokens: list, make, revoke.", no_args_is_help=True, add_completion=False)

Url = Annotated[str | None, typer.Option(help="The gateway of the hub; default: MDH_URL, else the hub of .mdh, else port 8080.")]


@app.command()
def ls(url: Url = None, json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List tokens: yours, or all for those who see users."""
    found = call(url, "GET", "/v1/tokens")["items"]
    if json:
        print(notation.dumps(found, indent=2, ensure_ascii=False))
        return
    rows = [
        (one["id"], one["owner"], one["status"], _day(one["expires"]), ", ".join(one["scopes"] or ["all"]), one["about"]) for one in found
    ]
    table(("token", "owner", "status", "expires", "scopes", "about"), rows, "no tokens")


@app.command()
def create(
    owner: Annotated[str | None, typer.Option(help="Whose rights it has; default: yours.")] = None,
    scope: Annotated[list[str] | None, typer.Option(help="A permission it is bounded to; may be given several times.")] = None,
    days: Annotated[int, typer.Option(help="For how long.", min=1, max=366)] = 90,
    about: Annotated[str, typer.Option(help="What it is for.")] = "",
    login: Annotated[str | None, typer.Option(help="Log in as this user first, with a password, where you have no token yet.")] = None,
    url: Url = None,
) -> None:
    """Make a token and print it: it is shown once."""
    body: dict[str, Any] = {"owner": owner, "scopes": scope or None, "days": days, "about": about}
    made = _by_password(url, login, body) if login else call(url, "POST", "/v1/tokens", json=body)
    print(made["token"])


@app.command()
def revoke(id: Annotated[str, typer.Argument(help="Id of the token, as `ls` shows it.")], url: Url = None) -> None:
    """Revoke a token, at once."""
    found = call(url, "DELETE", f"/v1/tokens/{id}")
    print(f"{found['id']}: {found['status']}")


def _by_password(url: str | None, user: str, body: dict[str, Any]) -> Any:
    """Logs in, makes the token, logs out."""
    with HubClient(hub_url(url), token="") as hub:
        answer = hub.call(
            "POST", "/v1/session", accept=frozenset({401, 429}), json={"user": user, "password": getpass.getpass("password: ")}
        )
        if not answer.is_success:
            raise UsageError(reason_of(answer))
        headers = {"X-CSRF-Token": answer.json()["csrf"]}
        made = hub.call("POST", "/v1/tokens", accept=frozenset({422}), json=body, headers=headers)
        hub.call("DELETE", "/v1/session", headers=headers)
        if not made.is_success:
            raise UsageError(reason_of(made))
        return made.json()


def _day(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%d")
