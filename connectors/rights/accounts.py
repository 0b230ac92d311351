"""Users, tokens, sessions and links: versions on topics, never a secret in clear.

Users and tokens are on ``hub.rights``, which is kept forever; sessions on ``hub.sessions``, which forgets them after their time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from pydantic import BaseModel, ConfigDict

from connectors.head_end.publish import Writer
from connectors.head_end.versions import ACTIVE, Entry, Versions, folding
from connectors.kafka.settings import KafkaSettings
from connectors.rights import passwords
from schemas.codec import Codec
from schemas.topology import Topology
from schemas.topology.rights import Grant

RIGHTS: Final = "hub.rights"
SESSIONS: Final = "hub.sessions"
RECORD: Final = "RightsEntry"
DISABLED, ENDED = "disabled", "ended"
NAME: Final = r"^[a-z0-9][a-z0-9._-]{0,62}$"  # local names; those of an identity provider hold an @
KNOWN: Final = r"^[^\s/]{1,200}$"


class UserSpec(BaseModel):
    """An account. ``password`` is an argon2id hash; ``epoch`` the version that set it: older sessions have ended."""

    model_config = ConfigDict(frozen=True)

    full_name: str = ""
    machine: bool = False
    password: str = ""
    epoch: int = 0
    grants: tuple[Grant, ...] = ()


class TokenSpec(BaseModel):
    """An API token of an account; ``hash`` is the digest of its secret, ``expires`` UTC seconds."""

    model_config = ConfigDict(frozen=True)

    owner: str
    about: str = ""
    hash: str
    scopes: tuple[str, ...] | None = None
    expires: int


class SessionSpec(BaseModel):
    """A session; its id is the digest of the cookie. ``grants``: what an identity provider's claims gave; None: as the account's."""

    model_config = ConfigDict(frozen=True)

    user: str
    full_name: str = ""
    epoch: int = 0
    expires: int
    grants: tuple[Grant, ...] | None = None
    address: str = ""


class LinkSpec(BaseModel):
    """A link that works once: it makes the first administrator, or lets ``user`` choose a password. Its id is the digest of its secret."""

    model_config = ConfigDict(frozen=True)

    expires: int
    user: str = ""


SPECS: Final[dict[str, type[BaseModel]]] = {"user": UserSpec, "token": TokenSpec, "session": SessionSpec, "link": LinkSpec}


folded = folding(SPECS)


class Accounts(Versions[Entry]):
    """One of the two topics, followed and written."""

    def __init__(
        self,
        kafka: KafkaSettings,
        topology: Topology,
        codec: Codec,
        writer: Writer,
        topic: str = RIGHTS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(
            kafka, topology, codec, writer, topic=topic, record=RECORD, fold=folded, noun="the entry", member="rights", clock=clock
        )

    def of_kind(self, kind: str) -> list[Entry]:
        """All users or tokens, by id."""
        return [entry for id, entry in self.entries().items() if id.startswith(f"{kind}/")]

    def put(
        self, id: str, spec: BaseModel, action: str, *, actor: str, before: Entry | None, status: str = ACTIVE, reason: str = ""
    ) -> Entry:
        """The next version of a thing. Raises StaleError, PublishError."""
        version = before.version + 1 if before else 1
        body = {
            "id": id, "version": version, "actor": actor, "action": action, "reason": reason, "status": status,
            "spec": orjson.dumps(spec.model_dump(mode="json")).decode(),
        }  # fmt: skip
        return self.propose(body)[0]

    def set_status(self, entry: Entry, status: str, action: str, *, actor: str, reason: str = "") -> Entry:
        """Disables, enables or ends. Raises StaleError, PublishError."""
        return self.put(entry.id, entry.spec, action, actor=actor, status=status, before=entry, reason=reason)


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token just made; ``secret`` is shown once."""

    entry: Entry
    secret: str = field(repr=False)


def new_token(accounts: Accounts, owner: str, about: str, scopes: tuple[str, ...] | None, expires: int, *, actor: str) -> NewToken:
    """Makes an API token ``mdh_<id>_<secret>``. Raises StaleError, PublishError."""
    secret = passwords.new_secret()
    id = passwords.digest(secret)[:12]
    spec = TokenSpec(owner=owner, about=about, hash=passwords.digest(secret), scopes=scopes, expires=expires)
    entry = accounts.put(f"token/{id}", spec, "create", actor=actor, before=None)
    return NewToken(entry, f"mdh_{id}_{secret}")


def shown_user(entry: Entry) -> dict[str, Any]:
    """A user as it is shown: no hash."""
    spec: UserSpec = entry.spec
    return {
        "name": entry.name, "full_name": spec.full_name, "machine": spec.machine, "status": entry.status, "version": entry.version,
        "password": bool(spec.password), "grants": [grant.model_dump() for grant in spec.grants],
    }  # fmt: skip


def shown_token(entry: Entry) -> dict[str, Any]:
    """A token as it is shown: its prefix, never its secret."""
    spec: TokenSpec = entry.spec
    return {
        "id": entry.name, "prefix": f"mdh_{entry.name}_", "owner": spec.owner, "about": spec.about, "status": entry.status,
        "scopes": None if spec.scopes is None else list(spec.scopes), "expires": spec.expires, "version": entry.version,
    }  # fmt: skip
