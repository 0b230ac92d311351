"""Rights at work: who a request comes from, what login takes, and the part of the hub that keeps both."""

from __future__ import annotations

import base64
import binascii
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

from connectors.head_end.handlers import RETRY_AFTER, carried_out
from connectors.head_end.problems import ProblemError
from connectors.head_end.publish import PublishError
from connectors.head_end.versions import Entry, StaleError
from connectors.rights import passwords
from connectors.rights.accounts import ENDED, Accounts, LinkSpec, SessionSpec, UserSpec
from connectors.rights.limits import Locks, Rate
from connectors.rights.principal import LOCAL, NOBODY, Principal
from connectors.rights.roles import EVERYWHERE, Roles
from connectors.rights.trail import Trail, anchor
from schemas.topology.rights import Grant, RightsSettings

if TYPE_CHECKING:
    from connectors.rights.oidc import Provider

COOKIE: Final = "mdh_session"
CSRF_COOKIE: Final = "mdh_csrf"
CSRF_HEADER: Final = "x-csrf-token"
WRONG: Final = "The name or the password is wrong, or the account may not log in."  # whatever the reason is
INVALID_LINK: Final = "This link is not valid (any more): it works once, and not for long."
LINK_FILE: Final = "first-admin"
ANCHOR_FIRST: Final = 60.0  # seconds after the start: by then the store has what was written before
ANCHORED: Final = 3600.0  # seconds between two looks at the ends of other chains
log = structlog.get_logger(__name__)


class BadCredentialError(Exception):
    """A token or session that does not count; never says why."""


class UnknownCredentialError(BadCredentialError):
    """A token or session that looks right and is not known here: made up, or made at another hub a moment ago."""


@dataclass(frozen=True, slots=True)
class Login:
    """A session just begun: the secret for the cookie, and who it is of."""

    secret: str
    principal: Principal
    expires: int


class Rights:
    """Principals of one hub. Without accounts (an app that is only described, tests) it is open."""

    def __init__(
        self,
        settings: RightsSettings,
        *,
        accounts: Accounts | None = None,
        sessions: Accounts | None = None,
        trail: Trail | None = None,
        mode: str | None = None,
        reader: Any = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings, self.accounts, self.sessions, self.trail, self.clock = settings, accounts, sessions, trail, clock
        self.mode, self.reader = mode or settings.mode, reader
        self.roles = Roles(settings.all_roles)
        self.addresses = Rate(settings.login.per_address, clock)
        self.names = Rate(settings.login.per_account, clock)
        self.locks = Locks(settings.login, clock)
        self._proxies = [ip_network(network) for network in settings.proxies]

    @property
    def open(self) -> bool:
        """Whether this hub asks nobody who they are."""
        return self.mode == "open"

    # --- who asks ----------------------------------------------------------------------------------------------------------

    def address_of(self, peer: str, headers: Mapping[str, str]) -> str:
        """Where a request comes from: behind proxies that are trusted, what the outermost of them saw."""
        hops = [hop.strip() for hop in headers.get("x-forwarded-for", "").split(",") if hop.strip()]
        address = peer
        while hops and self._trusted(address):
            address = hops.pop()
        return address

    def _trusted(self, address: str) -> bool:
        try:
            at = ip_address(address)
        except ValueError:
            return False
        return any(at in network for network in self._proxies)

    def identify(self, headers: Mapping[str, str], peer: str) -> Principal:
        """Who a request comes from; NOBODY where it does not say. Raises BadCredentialError for what does not count (any more)."""
        address, agent = self.address_of(peer, headers), headers.get("user-agent", "")
        bearer = _bearer(headers.get("authorization", ""))
        if bearer is not None:
            return replace(self._by_token(bearer), address=address, agent=agent)
        secret = cookie(headers, COOKIE)
        if secret and self.sessions is not None:
            try:
                return replace(self._by_session(secret), address=address, agent=agent)
            except BadCredentialError:
                if not self.open:
                    raise
        return replace(LOCAL if self.open else NOBODY, address=address, agent=agent)

    def _by_token(self, text: str) -> Principal:
        word, _, rest = text.partition("_")
        id, _, secret = rest.partition("_")
        entry = self.accounts.get(f"token/{id}") if self.accounts and word == "mdh" else None
        digest = passwords.digest(secret)
        if entry is None and word == "mdh" and digest.startswith(id) and passwords.like_secret(secret):
            raise UnknownCredentialError
        if entry is None or not passwords.same(entry.spec.hash, digest) or not entry.active or entry.spec.expires <= self.clock():
            raise BadCredentialError
        user = self.user(entry.spec.owner)
        if user is None:
            raise UnknownCredentialError
        if not user.active:
            raise BadCredentialError
        spec: UserSpec = user.spec
        return Principal(
            user.name, "token", spec.grants, entry.spec.scopes, self.roles, spec.machine, credential=id, full_name=spec.full_name
        )

    def _by_session(self, secret: str) -> Principal:
        id = f"session/{passwords.digest(secret)}"
        entry = self.sessions.get(id) if self.sessions else None
        if entry is None and passwords.like_secret(secret):
            raise UnknownCredentialError
        if entry is None or not entry.active or entry.spec.expires <= self.clock():
            raise BadCredentialError
        spec: SessionSpec = entry.spec
        user = self.user(spec.user)
        if user is not None and not user.active:
            raise BadCredentialError
        grants, full = spec.grants, spec.full_name
        if grants is None:
            if user is None or user.spec.epoch < spec.epoch:
                raise UnknownCredentialError
            if user.spec.epoch != spec.epoch:
                raise BadCredentialError
            grants, full = user.spec.grants, user.spec.full_name
        return Principal(spec.user, "session", grants, None, self.roles, credential=entry.name[:12], full_name=full)

    def user(self, name: str) -> Entry | None:
        """The account of a name."""
        return self.accounts.get(f"user/{name}") if self.accounts else None

    # --- login -------------------------------------------------------------------------------------------------------------

    def throttle(self, address: str, name: str) -> None:
        """Raises Problem 429 where there were too many attempts. The same for accounts that do not exist."""
        pause = max(self.addresses.take(f"a/{address}"), self.names.take(f"n/{name}"), self.locks.locked(name))
        if pause > 0:
            seconds = int(pause) + 1
            retry = {"Retry-After": str(seconds)}
            raise ProblemError(429, "too-many-attempts", f"Too many attempts; try again in {seconds} s.", headers=retry)

    def login(self, name: str, password: str, asker: Principal) -> Login:
        """A session for a local account. Raises Problem 401, 429, 503."""
        self.throttle(asker.address, name)
        self.ready()
        user = self.user(name)
        usable = user if user is not None and user.active and not user.spec.machine else None
        right = passwords.verified(usable.spec.password if usable else "", password)
        if usable is None or not right:
            self.locks.failed(name)
            self.tell("session.login", f"user/{name[:80]}", "denied", replace(asker, name=name[:80]))
            raise ProblemError(401, "not-logged-in", WRONG)
        self.locks.succeeded(name)
        return self.begin(name, asker, epoch=usable.spec.epoch, full_name=usable.spec.full_name)

    def begin(self, name: str, asker: Principal, *, epoch: int = 0, full_name: str = "", grants: tuple[Grant, ...] | None = None) -> Login:
        """A new session with a new secret, whatever cookie came along. Raises Problem 503."""
        if self.sessions is None:
            raise ProblemError(503, "no-login", "This hub has no accounts.")
        secret, expires = passwords.new_secret(), int(self.clock()) + self.settings.session.lifetime
        spec = SessionSpec(user=name, full_name=full_name, epoch=epoch, expires=expires, grants=grants, address=asker.address)
        carried_out(lambda: self.sessions.put(f"session/{passwords.digest(secret)}", spec, "begin", actor=name, before=None))  # type: ignore[union-attr]
        who = replace(self._by_session(secret), address=asker.address, agent=asker.agent)
        self.tell("session.login", f"user/{name}", "applied", who)
        return Login(secret, who, expires)

    def end(self, secret: str, who: Principal) -> None:
        """Ends a session, on all hubs. Raises Problem 503."""
        entry = self.sessions.get(f"session/{passwords.digest(secret)}") if self.sessions else None
        if entry is not None and entry.active:
            carried_out(lambda: self.sessions.set_status(entry, ENDED, "end", actor=who.name))  # type: ignore[union-attr]
            self.tell("session.logout", f"user/{who.name}", "applied", who)

    # --- the first administrator -------------------------------------------------------------------------------------------

    def administrators(self) -> list[Entry]:
        """Active accounts that may change users everywhere."""
        users = self.accounts.of_kind("user") if self.accounts else []
        return [user for user in users if user.active and self.roles.permit(user.spec.grants, "users.write", EVERYWHERE)]

    def first_link(self) -> str | None:
        """The secret of a new link that makes the first administrator; None where there is one. Links before it end."""
        if self.accounts is None or self.administrators():
            return None
        return self._link("", "hub")[0]

    def _link(self, user: str, actor: str) -> tuple[str, int]:
        """A new link for a user, or for the first administrator, and when it ends; links before it end."""
        assert self.accounts is not None
        for old in self.accounts.of_kind("link"):
            if old.active and old.spec.user == user:
                self.accounts.set_status(old, ENDED, "replaced", actor=actor)
        secret = passwords.new_secret()
        spec = LinkSpec(expires=int(self.clock()) + self.settings.first_link, user=user)
        self.accounts.put(f"link/{passwords.digest(secret)}", spec, "create", actor=actor, before=None)
        return secret, spec.expires

    def reset(self, entry: Entry, actor: str, reason: str) -> tuple[Entry, str, int]:
        """Ends a user's password and sessions; the user, the secret of the link that lets them choose a new one, and when it ends.

        Raises Problem 409, 503.
        """
        accounts = self.accounts
        assert accounts is not None
        spec = entry.spec.model_copy(update={"password": "", "epoch": entry.version + 1})
        about: dict[str, Any] = {"actor": actor, "before": entry, "reason": reason, "status": entry.status}
        after: Entry = carried_out(lambda: accounts.put(entry.id, spec, "reset", **about))
        secret, expires = carried_out(lambda: self._link(entry.name, actor))
        return after, secret, expires

    def use_reset(self, secret: str, password: str, asker: Principal) -> Login:
        """Sets the password that a link's user has chosen. Raises Problem 401, 409, 422, 429, 503."""
        self.throttle(asker.address, "link")
        self.ready()
        accounts = self.accounts
        assert accounts is not None
        link = accounts.get(f"link/{passwords.digest(secret)}")
        user = self.user(link.spec.user) if link is not None and link.spec.user else None
        if link is None or not link.active or link.spec.expires <= self.clock() or user is None or not user.active:
            self.tell("session.reset", "users", "denied", asker)
            raise ProblemError(401, "not-logged-in", INVALID_LINK)
        spec = user.spec.model_copy(update={"password": self.password(password, user.name), "epoch": user.version + 1})
        carried_out(lambda: accounts.set_status(link, ENDED, "used", actor=user.name))  # one of two wins here
        after: Entry = carried_out(lambda: accounts.put(user.id, spec, "password", actor=user.name, before=user))
        self.tell("users.password", user.id, "applied", replace(asker, name=user.name), detail="by a link")
        return self.begin(user.name, asker, epoch=after.spec.epoch, full_name=after.spec.full_name)

    def use_link(self, secret: str, name: str, password: str, asker: Principal) -> Login:
        """Makes the first administrator. Raises Problem 401, 409, 422, 429, 503."""
        self.throttle(asker.address, "link")
        self.ready()
        assert self.accounts is not None
        link = self.accounts.get(f"link/{passwords.digest(secret)}")
        if link is None or link.spec.user or not link.active or link.spec.expires <= self.clock() or self.administrators():
            self.tell("session.first", "users", "denied", asker)
            raise ProblemError(401, "not-logged-in", INVALID_LINK)
        kept = self.password(password, name)
        before = self.user(name)
        if before is not None:
            raise ProblemError(409, "conflict", f"There is a user {name} already.")
        carried_out(lambda: self.accounts.set_status(link, ENDED, "used", actor=name))  # type: ignore[union-attr]  # one of two wins here
        spec = UserSpec(password=kept, epoch=1, grants=(Grant(role=self._admin_role()),))
        carried_out(lambda: self.accounts.put(f"user/{name}", spec, "create", actor=name, before=None))  # type: ignore[union-attr]
        self.tell("users.create", f"user/{name}", "applied", replace(asker, name=name), detail="first administrator")
        return self.begin(name, asker, epoch=1)

    def _admin_role(self) -> str:
        return next(name for name, role in self.settings.all_roles.items() if "*" in role.permissions)

    # --- in common -----------------------------------------------------------------------------------------------------------

    def password(self, password: str, name: str) -> str:
        """The hash to keep. Raises Problem 422."""
        try:
            return passwords.hashed(password, name)
        except passwords.PasswordError as error:
            raise ProblemError(422, "not-valid", f"password: {error}") from None

    def ready(self) -> None:
        """Raises Problem 503 while accounts have not been read."""
        for topic in (self.accounts, self.sessions):
            if topic is None or not topic.wait_ready(5):
                raise ProblemError(503, "kafka-away", "The accounts have not been read yet; try again.", headers=RETRY_AFTER)

    def tell(self, action: str, subject: str, outcome: str, who: Principal, **more: Any) -> None:
        """An entry of the audit, where there is one."""
        if self.trail is not None:
            self.trail.tell(action, subject, outcome, who, **more)


class RightsPart:
    """Rights as a part of the hub process: follows accounts and sessions, writes the audit, offers the first link."""

    def __init__(self, rights: Rights, provider: Provider | None = None, link_file: Path | None = None) -> None:
        self.rights, self.provider, self._link_file = rights, provider, link_file

    def loops(self) -> Mapping[str, Callable[[threading.Event], None]]:
        """The followers, the writer of the audit, and the first link."""
        rights = self.rights
        if rights.accounts is None or rights.sessions is None or rights.trail is None:
            return {}
        followers = {"rights": rights.accounts.run, "sessions": rights.sessions.run, "audit": rights.trail.run}
        return {**followers, "first-admin": self._offer, "audit-heads": self._anchor}

    def close(self) -> None:
        """Nothing is held."""

    def _anchor(self, stop: threading.Event) -> None:
        """Names the ends of all other chains in this one, soon after the start and every hour: what is cut off behind them shows."""
        rights, known = self.rights, dict[str, int]()
        stop.wait(ANCHOR_FIRST)
        while not stop.is_set():
            try:
                known = anchor(rights.trail, rights.reader, known)  # type: ignore[arg-type]
            except Exception as error:  # the store is away or not there yet; the next hour is soon enough
                log.warning("ends of chains could not be named", reason=str(error)[:300])
            stop.wait(ANCHORED)

    def _offer(self, stop: threading.Event) -> None:
        """Writes the link of the first administrator where rights are enforced and there is none; then waits for the end."""
        rights = self.rights
        while not stop.is_set() and not (rights.accounts and rights.accounts.wait_ready(0.5)):
            pass
        if self._link_file is not None:
            self._link_file.unlink(missing_ok=True)
        while not rights.open and not stop.is_set():
            try:
                self._told(rights.first_link())
                break
            except (PublishError, StaleError) as error:  # Kafka is slow or away, or another hub was quicker: what holds then decides
                log.warning("no link for the first administrator could be made yet", reason=str(error))
                stop.wait(2)
        stop.wait()

    def _told(self, secret: str | None) -> None:
        """Leaves the link in a file that only its owner reads, an empty one where there is an administrator."""
        if self._link_file is not None:
            part = self._link_file.with_suffix(".part")
            part.parent.mkdir(parents=True, exist_ok=True)
            part.unlink(missing_ok=True)
            part.touch(mode=0o600)
            part.write_text(f"/v1/session/first?code={secret}" if secret else "")
            part.replace(self._link_file)
        if secret:
            log.warning("no administrator yet: the link in this file makes the first, once", file=str(self._link_file))


def cookie(headers: Mapping[str, str], name: str) -> str:
    """A cookie of a request; empty where there is none."""
    try:
        jar = SimpleCookie(headers.get("cookie", ""))
    except CookieError:
        return ""
    found = jar.get(name)
    return found.value if found else ""


def _bearer(authorization: str) -> str | None:
    """The token of a request: as bearer, or as the password of basic authentication, as older systems send it."""
    kind, _, value = authorization.partition(" ")
    if kind.lower() == "bearer":
        return value.strip()
    if kind.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return None if not authorization else ""
