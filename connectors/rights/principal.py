"""Who acts: the principal of a request, and the questions services ask about it.

The guard in front of the HTTP interface sets the principal; services, also in threads, ask ``current`` or ``require``. Where nothing has
set one (agents, tests, programs that use the services themselves) it is ``LOCAL``, which may do everything.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final, Literal

from fastapi import Request

from connectors.head_end.problems import ProblemError
from connectors.rights.roles import EVERYWHERE, Area, Roles, permits
from schemas.topology.rights import PERMISSIONS, Grant

__all__ = [
    "EVERYWHERE",
    "LOCAL",
    "NOBODY",
    "Area",
    "Principal",
    "acting",
    "allowed",
    "as_principal",
    "current",
    "principal",
    "require",
    "vouched",
]


@dataclass(frozen=True, slots=True)
class Principal:
    """Who acts, from where, and what the grants (and the scopes of a token) give.

    ``via`` open: an open hub asks nobody who they are. ``scopes`` None: all that the grants give.
    """

    name: str
    via: Literal["open", "session", "token", "none"]
    grants: tuple[Grant, ...] = ()
    scopes: tuple[str, ...] | None = None
    roles: Roles | None = None
    machine: bool = False
    address: str = ""
    agent: str = ""
    credential: str = ""  # id of the session or token, never the secret
    full_name: str = field(default="", compare=False)

    def may(self, permission: str, area: Area | None = None) -> bool:
        """Whether the permission is held in the area; None: anywhere at all."""
        if self.via == "open":
            return True
        if self.via == "none" or self.roles is None:
            return False
        if self.scopes is not None and not any(permits(permission, scope) for scope in self.scopes):
            return False
        return self.roles.permit(self.grants, permission, area)

    def bounds(self, permission: str) -> list[tuple[Area, Area]] | None:
        """Where the permission holds, as pairs of patterns that must both match; None: everywhere."""
        if self.may(permission, EVERYWHERE):
            return None
        return self.roles.bounds(self.grants, permission) if self.roles and self.may(permission) else []

    def permissions(self) -> list[str]:
        """All that is held anywhere, sorted."""
        return sorted(name for name in PERMISSIONS if self.may(name))


LOCAL: Final = Principal("local", "open")
NOBODY: Final = Principal("", "none")
_CURRENT: ContextVar[Principal] = ContextVar("principal", default=LOCAL)
_PERMISSION: ContextVar[str] = ContextVar("permission", default="")


def current() -> Principal:
    """Who acts here and now."""
    return _CURRENT.get()


def permission_asked() -> str:
    """The permission the request in hand stands on; empty outside of one."""
    return _PERMISSION.get()


def principal(request: Request) -> Principal:
    """Dependency of routes: who asks."""
    found = request.scope.get("state", {}).get("principal")
    return found if isinstance(found, Principal) else current()


@contextmanager
def as_principal(who: Principal, permission: str = "") -> Iterator[None]:
    """What is called within acts for ``who``."""
    token, asked = _CURRENT.set(who), _PERMISSION.set(permission)
    try:
        yield
    finally:
        _CURRENT.reset(token)
        _PERMISSION.reset(asked)


def allowed(who: Principal, permission: str, area: Area | None = None) -> bool:
    """Whether ``who`` may do something in an area; None: anywhere at all."""
    return who.may(permission, area)


def require(permission: str, area: Area | None = EVERYWHERE) -> None:
    """Raises Problem 403 unless the one who acts has the permission in the area."""
    if not current().may(permission, area):
        raise denied(permission)


def denied(permission: str) -> ProblemError:
    """The answer to somebody who may not: it says what is missing and nothing of what is there."""
    return ProblemError(403, "forbidden", f"This needs the permission {permission}, which you do not have here.", permission=permission)


def acting(given: str) -> str:
    """Who is noted as the one who acts: the principal; the name that is given on an open hub, and by machines that may act for others."""
    who = current()
    return given if who.via == "open" or (given and _passes_on(who)) else who.name


def vouched(second: str) -> str:
    """A second person named in a request: counts on an open hub and from machines that may act for others; else nobody has agreed."""
    who = current()
    return second if who.via == "open" or _passes_on(who) else ""


def _passes_on(who: Principal) -> bool:
    """Whether this is a system that passes on what people do; a person with every permission is still one person."""
    return who.machine and who.may("act-for")
