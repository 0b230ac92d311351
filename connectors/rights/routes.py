"""The HTTP doors of rights: sessions, users, roles, tokens, and the audit."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal
from urllib.parse import parse_qs

import orjson
import structlog
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool

from connectors.head_end.documents import Page
from connectors.head_end.handlers import carried_out
from connectors.head_end.listing import TIME, Listing, cursor_of, cursor_text, page_query, readable
from connectors.head_end.problems import ProblemError, responses
from connectors.head_end.versions import ACTIVE, Entry
from connectors.rights import passwords
from connectors.rights.accounts import (
    DISABLED,
    ENDED,
    KNOWN,
    NAME,
    UserSpec,
    new_token,
    shown_token,
    shown_user,
)  # fmt: skip
from connectors.rights.oidc import Attempt, ProviderError, inside
from connectors.rights.principal import Principal, denied, principal, require
from connectors.rights.roles import EVERYWHERE
from connectors.rights.service import COOKIE, CSRF_COOKIE, Login, Rights, RightsPart, cookie
from connectors.rights.trail import note
from schemas.topology.rights import PERMISSIONS, Grant

AUDIT: Final = Listing(
    "audit", {"at": TIME, "id": "String"}, "at", "at",
    ("actor", "action", "subject", "outcome", "device", "channel", "command", "bulk", "address", "principal", "writer", "hash"),
)  # fmt: skip
LONGEST_TOKEN: Final = 366
AWAY: Final = "mdh_login"  # the cookie of a login under way at an identity provider
CHUNK: Final = 5000
Who = Annotated[Principal, Depends(principal)]
Text = Annotated[str | None, Query(max_length=1000)]
log = structlog.get_logger(__name__)


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class LoginRequest(_Model):
    """Name and password of a local account."""

    user: str = Field(min_length=1, max_length=200)
    password: str = Field(max_length=1000)


class FirstRequest(LoginRequest):
    """The link's code, and the first administrator."""

    code: str = Field(max_length=200)
    user: str = Field(pattern=NAME)


class ResetRequest(_Model):
    """A link's code, and the new password of whom it is for."""

    code: str = Field(max_length=200)
    password: str = Field(max_length=1000)


class Change(_Model):
    """What people read of a user."""

    full_name: str = Field(max_length=200)
    reason: str = Field(default="", max_length=500)


class Me(BaseModel):
    """Who you are to this hub."""

    name: str
    full_name: str = ""
    via: str
    roles: list[Grant]
    permissions: list[str] = Field(description="held anywhere; areas tell where")
    mode: str
    login: list[str] = Field(description="ways to log in: password, oidc")
    csrf: str = Field(default="", description="for the header X-CSRF-Token")
    expires: int | None = Field(default=None, description="of the session, UTC seconds")


class NewUser(_Model):
    """An account."""

    name: str = Field(
        pattern=KNOWN, description="lower case; with @realm: somebody of the identity provider, to be blocked or given tokens"
    )
    full_name: str = Field(default="", max_length=200)
    machine: bool = Field(default=False, description="another system: no password, only tokens")
    password: str | None = Field(default=None, max_length=1000)
    grants: list[Grant] = Field(default_factory=list, max_length=100)
    reason: str = Field(default="", max_length=500)


class NewPassword(_Model):
    """A new password; one's own needs the old one."""

    password: str = Field(max_length=1000)
    old_password: str = Field(default="", max_length=1000)


class GrantRequest(_Model):
    """A role for a user, in an area."""

    grant: Grant
    reason: str = Field(default="", max_length=500)


class Why(_Model):
    """Why something is done."""

    reason: str = Field(default="", max_length=500)


class NewTokenRequest(_Model):
    """An API token."""

    owner: str | None = Field(default=None, max_length=200, description="whose rights it has; left out: yours")
    about: str = Field(default="", max_length=200)
    scopes: list[str] | None = Field(default=None, max_length=100, description="permissions it is bounded to; left out: all of its owner")
    days: int = Field(default=90, ge=1, le=LONGEST_TOKEN)


def routes(part: RightsPart | None) -> APIRouter:
    """The router; without a part it is only described."""
    router = APIRouter()
    _sessions(router, part)  # type: ignore[arg-type]  # a description is never called
    _oidc(router, part)  # type: ignore[arg-type]
    _users(router, part)  # type: ignore[arg-type]
    _tokens(router, part)  # type: ignore[arg-type]
    _audit(router, part)  # type: ignore[arg-type]
    return router


def _set_cookies(answer: Response, rights: Rights, login: Login) -> None:
    age = rights.settings.session.lifetime
    secure = rights.settings.session.secure
    answer.set_cookie(COOKIE, login.secret, max_age=age, httponly=True, samesite="lax", secure=secure, path="/")
    answer.set_cookie(CSRF_COOKIE, passwords.csrf_of(login.secret), max_age=age, samesite="strict", secure=secure, path="/")
    answer.headers["Cache-Control"] = "no-store"


def _me(part: RightsPart, who: Principal, secret: str, expires: int | None) -> dict[str, Any]:
    rights = part.rights
    ways = ["password"] + (["oidc"] if part.provider else [])
    me = Me(
        name=who.name, full_name=who.full_name, via=who.via, roles=list(who.grants), permissions=who.permissions(), mode=rights.mode,
        login=ways, csrf=passwords.csrf_of(secret) if secret and who.via == "session" else "", expires=expires,
    )  # fmt: skip
    return me.model_dump()


def _sessions(router: APIRouter, part: RightsPart) -> None:
    errors = responses(401, 403, 422, 429, 503)

    @router.get("/v1/session", tags=["rights"], summary="Who you are, and what you may do", response_model=Me, responses=responses(401))
    async def me(request: Request, who: Who) -> JSONResponse:
        if who.via == "none":
            ways = ["password"] + (["oidc"] if part.provider else [])
            raise ProblemError(401, "not-logged-in", "Nobody is logged in.", headers={"WWW-Authenticate": "Bearer"}, login=ways)
        secret = cookie(request.headers, COOKIE)
        entry = part.rights.sessions.get(f"session/{passwords.digest(secret)}") if secret and part.rights.sessions else None
        expires = entry.spec.expires if entry and who.via == "session" else None
        return JSONResponse(_me(part, who, secret, expires), headers={"Cache-Control": "no-store"})

    @router.post("/v1/session", tags=["rights"], summary="Log in with a local account", response_model=Me, responses=errors)
    async def log_in(request: Request, asked: LoginRequest, who: Who) -> JSONResponse:
        login = await run_in_threadpool(part.rights.login, asked.user, asked.password, who)
        await run_in_threadpool(part.rights.end, cookie(request.headers, COOKIE), who)  # no session outlives the next login
        answer = JSONResponse(_me(part, login.principal, login.secret, login.expires))
        _set_cookies(answer, part.rights, login)
        return answer

    @router.delete("/v1/session", status_code=204, tags=["rights"], summary="Log out", responses=responses(503))
    async def log_out(request: Request, who: Who) -> Response:
        await run_in_threadpool(part.rights.end, cookie(request.headers, COOKIE), who)
        answer = Response(status_code=204)
        for name in (COOKIE, CSRF_COOKIE):
            answer.delete_cookie(name, path="/")
        return answer

    @router.get("/v1/session/first", include_in_schema=False)
    async def first_page(code: Annotated[str, Query(max_length=200)] = "") -> HTMLResponse:
        return HTMLResponse(FIRST.replace("%CODE%", html.escape(code, quote=True)), headers=PAGE_HEADERS)

    @router.post("/v1/session/first", tags=["rights"], summary="Make the first administrator", response_model=Me, responses=errors)
    async def first(request: Request, who: Who) -> Response:
        """By JSON, or by the form behind the printed link."""
        given, form = await _given(request)
        try:
            asked = FirstRequest.model_validate(given)
        except ValueError:
            raise ProblemError(422, "not-valid", "Give code, user (lower case letters, digits, . _ -) and password.") from None
        login = await run_in_threadpool(part.rights.use_link, asked.code, asked.user, asked.password, who)
        return _entered(part, login, form=form)

    @router.get("/v1/session/reset", include_in_schema=False)
    async def reset_page(code: Annotated[str, Query(max_length=200)] = "") -> HTMLResponse:
        return HTMLResponse(RESET.replace("%CODE%", html.escape(code, quote=True)), headers=PAGE_HEADERS)

    @router.post("/v1/session/reset", tags=["rights"], summary="Choose a password by a link", response_model=Me, responses=errors)
    async def reset(request: Request, who: Who) -> Response:
        """By JSON, or by the form behind the link."""
        given, form = await _given(request)
        try:
            asked = ResetRequest.model_validate(given)
        except ValueError:
            raise ProblemError(422, "not-valid", "Give code and password.") from None
        login = await run_in_threadpool(part.rights.use_reset, asked.code, asked.password, who)
        return _entered(part, login, form=form)


async def _given(request: Request) -> tuple[Any, bool]:
    """The fields of a small JSON body or form, and which of them it was; None: neither."""
    body = await request.body() if int(request.headers.get("content-length") or 0) <= 10_000 else b""
    form = request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded")
    try:
        return ({name: values[0] for name, values in parse_qs(body.decode()).items()} if form else orjson.loads(body)), form
    except ValueError:
        return None, form


def _entered(part: RightsPart, login: Login, *, form: bool) -> Response:
    """The answer to somebody who has just come in."""
    answer: Response = RedirectResponse("/", 303) if form else JSONResponse(_me(part, login.principal, login.secret, login.expires))
    _set_cookies(answer, part.rights, login)
    return answer


def _oidc(router: APIRouter, part: RightsPart) -> None:
    def provider() -> Any:
        if part.provider is None:
            raise ProblemError(404, "not-found", "This hub has no identity provider.")
        return part.provider

    def failed(error: ProviderError, who: Principal) -> ProblemError:
        log.warning("login at the identity provider failed", reason=str(error))
        part.rights.tell("session.login", "oidc", "denied", who, detail=str(error)[:500])
        return ProblemError(403, "not-logged-in", "The identity provider's answer cannot be used here; the hub's log has the reason.")

    @router.get("/v1/session/oidc", tags=["rights"], summary="Log in at the identity provider", responses=responses(403, 404))
    async def begin(who: Who, following: Annotated[str, Query(alias="next", max_length=500)] = "/") -> RedirectResponse:
        pause = part.rights.addresses.take(f"a/{who.address}")
        if pause > 0:
            raise ProblemError(429, "too-many-attempts", "Too many attempts.", headers={"Retry-After": str(int(pause) + 1)})
        try:
            address, attempt = await run_in_threadpool(provider().start, following)
        except ProviderError as error:
            raise failed(error, who) from None
        answer = RedirectResponse(address, 303, headers={"Cache-Control": "no-store"})
        kept = cursor_of([attempt.state, attempt.nonce, attempt.verifier, attempt.next])
        secure = part.rights.settings.session.secure
        answer.set_cookie(AWAY, kept, max_age=600, httponly=True, samesite="lax", secure=secure, path="/v1/session/oidc")
        return answer

    @router.get("/v1/session/oidc/callback", include_in_schema=False)
    async def back(
        request: Request,
        who: Who,
        state: Annotated[str, Query(max_length=200)] = "",
        code: Annotated[str, Query(max_length=4000)] = "",
        error: Annotated[str, Query(max_length=200)] = "",
    ) -> RedirectResponse:
        try:
            if error or not code:
                raise ProviderError(f"the provider answered {error or 'nothing'}")
            attempt = _attempt(cookie(request.headers, AWAY))
            person = await run_in_threadpool(provider().finish, attempt, state, code)
        except ProviderError as problem:
            raise failed(problem, who) from None
        blocked = part.rights.user(person.name)
        if blocked is not None and not blocked.active:
            raise failed(ProviderError(f"{person.name} is disabled"), who)
        await run_in_threadpool(part.rights.end, cookie(request.headers, COOKIE), who)
        login = await run_in_threadpool(lambda: part.rights.begin(person.name, who, full_name=person.full_name, grants=person.grants))
        answer = RedirectResponse(attempt.next, 303)
        _set_cookies(answer, part.rights, login)
        answer.delete_cookie(AWAY, path="/v1/session/oidc")
        return answer


def _attempt(kept: str) -> Attempt:
    from connectors.head_end.listing import after_cursor

    try:
        state, nonce, verifier, following = after_cursor(kept, 4)
    except ProblemError:
        raise ProviderError("the browser brought no login back that began here") from None
    return Attempt(state, nonce, verifier, inside(following))


def _users(router: APIRouter, part: RightsPart) -> None:
    rights = part.rights if part else None
    errors = responses(401, 403, 404, 409, 422, 503)

    def known(name: str) -> Entry:
        assert rights is not None
        entry = rights.user(name)
        if entry is None:
            raise ProblemError(404, "not-found", f"There is no user {name}.")
        return entry

    def changed(entry: Entry, spec: UserSpec, action: str, who: Principal, reason: str = "", status: str | None = None) -> JSONResponse:
        assert rights is not None
        assert rights.accounts is not None
        accounts = rights.accounts
        note(before=shown_user(entry), reason=reason, subject=f"user/{entry.name}")
        after = carried_out(
            lambda: accounts.put(entry.id, spec, action, actor=who.name, before=entry, reason=reason, status=status or entry.status)
        )
        note(after=shown_user(after))
        return JSONResponse(shown_user(after))

    def valid(grants: list[Grant]) -> None:
        assert rights is not None
        for grant in grants:
            if grant.role not in rights.settings.all_roles:
                raise ProblemError(422, "not-valid", f"there is no role {grant.role}", known=sorted(rights.settings.all_roles))
        require("users.write", EVERYWHERE)  # rights are given only by those who hold them everywhere

    @router.get("/v1/users", tags=["rights"], summary="All users", responses=responses(401, 403))
    async def users() -> dict[str, Any]:
        accounts = rights.accounts if rights else None
        return {"items": [shown_user(entry) for entry in (accounts.of_kind("user") if accounts else ())], "next": None}

    @router.post("/v1/users", status_code=201, tags=["rights"], summary="Add a user", responses=errors)
    def add(asked: NewUser, who: Who) -> JSONResponse:
        assert rights is not None
        assert rights.accounts is not None
        accounts = rights.accounts
        valid(asked.grants)
        local = "@" not in asked.name
        if local and not _local(asked.name):
            raise ProblemError(422, "not-valid", "name: lower case letters, digits and . _ -, or name@realm of an identity provider")
        if (asked.machine and asked.password) or (not local and asked.password):
            raise ProblemError(422, "not-valid", "password: only people with a local account have one")
        before = rights.user(asked.name)
        if before is not None:
            raise ProblemError(409, "conflict", f"There is a user {asked.name} already.")
        kept = rights.password(asked.password, asked.name) if asked.password else ""
        spec = UserSpec(full_name=asked.full_name, machine=asked.machine, password=kept, epoch=1, grants=tuple(asked.grants))
        after = carried_out(lambda: accounts.put(f"user/{asked.name}", spec, "create", actor=who.name, before=None, reason=asked.reason))
        note(after=shown_user(after), reason=asked.reason, subject=f"user/{asked.name}")
        return JSONResponse(shown_user(after), 201, headers={"Location": f"/v1/users/{asked.name}"})

    @router.get("/v1/users/{name}", tags=["rights"], summary="A user", responses=responses(401, 403, 404))
    async def user(name: str) -> dict[str, Any]:
        return shown_user(known(name))

    @router.put("/v1/users/{name}/password", tags=["rights"], summary="Set a password; it ends the user's sessions", responses=errors)
    def password(name: str, asked: NewPassword, who: Who) -> JSONResponse:
        assert rights is not None
        own = who.name == name and who.via != "open"
        if not own:
            require("users.write", EVERYWHERE)
        entry = known(name)
        if entry.spec.machine or "@" in name:
            raise ProblemError(422, "not-valid", f"{name} has no password here.")
        if own:
            rights.throttle(who.address, name)
            if entry.spec.password and not passwords.verified(entry.spec.password, asked.old_password):
                rights.locks.failed(name)
                raise ProblemError(403, "forbidden", "The old password is wrong.")
        spec = entry.spec.model_copy(update={"password": rights.password(asked.password, name), "epoch": entry.version + 1})
        return changed(entry, spec, "password", who)

    @router.post("/v1/users/{name}/reset", tags=["rights"], summary="A link to choose a new password; the old one ends", responses=errors)
    def reset(name: str, who: Who, asked: Why | None = None) -> JSONResponse:
        assert rights is not None
        require("users.write", EVERYWHERE)
        entry = known(name)
        if entry.spec.machine or "@" in name or not entry.active:
            raise ProblemError(422, "not-valid", f"{name} has no password here, or is disabled.")
        reason = asked.reason if asked else ""
        note(before=shown_user(entry), reason=reason, subject=f"user/{name}")
        after, secret, expires = rights.reset(entry, who.name, reason)
        note(after=shown_user(after))
        answer = {**shown_user(after), "link": f"/v1/session/reset?code={secret}", "expires": expires}
        return JSONResponse(answer, headers={"Cache-Control": "no-store"})

    @router.patch("/v1/users/{name}", tags=["rights"], summary="Change what people read of a user", responses=errors)
    def change(name: str, asked: Change, who: Who) -> JSONResponse:
        require("users.write", EVERYWHERE)
        entry = known(name)
        return changed(entry, entry.spec.model_copy(update={"full_name": asked.full_name}), "change", who, asked.reason)

    @router.post("/v1/users/{name}/grants", tags=["rights"], summary="Give a role in an area", responses=errors)
    def grant(name: str, asked: GrantRequest, who: Who) -> JSONResponse:
        valid([asked.grant])
        entry = known(name)
        held = entry.spec.grants
        if asked.grant in held:
            return JSONResponse(shown_user(entry))
        return changed(entry, entry.spec.model_copy(update={"grants": (*held, asked.grant)}), "grant", who, asked.reason)

    @router.delete("/v1/users/{name}/grants", tags=["rights"], summary="Take a role away", responses=errors)
    def revoke(name: str, asked: GrantRequest, who: Who) -> JSONResponse:
        valid([asked.grant])
        entry = known(name)
        left = tuple(grant for grant in entry.spec.grants if grant != asked.grant)
        if len(left) == len(entry.spec.grants):
            raise ProblemError(404, "not-found", f"{name} does not have this role there.")
        _keeps_one(rights, entry, left)
        return changed(entry, entry.spec.model_copy(update={"grants": left}), "revoke", who, asked.reason)

    @router.post("/v1/users/{name}/disable", tags=["rights"], summary="Disable a user: sessions and tokens end at once", responses=errors)
    def disable(name: str, who: Who, asked: Why | None = None) -> JSONResponse:
        require("users.write", EVERYWHERE)
        entry = known(name)
        _keeps_one(rights, entry, ())
        spec = entry.spec.model_copy(update={"epoch": entry.version + 1})
        return changed(entry, spec, "disable", who, asked.reason if asked else "", DISABLED)

    @router.post("/v1/users/{name}/enable", tags=["rights"], summary="Enable a user again", responses=errors)
    def enable(name: str, who: Who, asked: Why | None = None) -> JSONResponse:
        require("users.write", EVERYWHERE)
        entry = known(name)
        return changed(entry, entry.spec, "enable", who, asked.reason if asked else "", ACTIVE)

    @router.get("/v1/roles", tags=["rights"], summary="Roles and permissions, as topology.yaml has them", responses=responses(401, 403))
    async def roles() -> dict[str, Any]:
        assert rights is not None
        items = [{"name": name, **role.model_dump()} for name, role in rights.settings.all_roles.items()]
        return {"items": items, "permissions": PERMISSIONS, "next": None}


def _local(name: str) -> bool:
    import re

    return re.fullmatch(NAME, name) is not None


def _keeps_one(rights: Rights | None, entry: Entry, left: tuple[Grant, ...]) -> None:
    """Raises Problem 409 where an enforced hub would have no administrator any more."""
    assert rights is not None
    others = [user for user in rights.administrators() if user.id != entry.id]
    was = entry.active and rights.roles.permit(entry.spec.grants, "users.write", EVERYWHERE)
    stays = rights.roles.permit(left, "users.write", EVERYWHERE)
    if not rights.open and was and not stays and not others:
        raise ProblemError(409, "conflict", "This is the last administrator: make another one first.")


def _tokens(router: APIRouter, part: RightsPart) -> None:
    rights = part.rights if part else None
    errors = responses(401, 403, 404, 409, 422, 503)

    @router.get("/v1/tokens", tags=["rights"], summary="API tokens: yours, or all for those who see users", responses=responses(401, 403))
    async def tokens(who: Who) -> dict[str, Any]:
        accounts = rights.accounts if rights else None
        found = accounts.of_kind("token") if accounts else []
        every = who.may("users.read", EVERYWHERE)
        return {"items": [shown_token(entry) for entry in found if every or entry.spec.owner == who.name], "next": None}

    @router.post("/v1/tokens", status_code=201, tags=["rights"], summary="Make a token; its secret is shown once", responses=errors)
    def create(asked: NewTokenRequest, who: Who) -> JSONResponse:
        assert rights is not None
        assert rights.accounts is not None
        owner = asked.owner or who.name
        if owner != who.name:
            require("users.write", EVERYWHERE)
        user = rights.user(owner)
        if user is None or not user.active:
            raise ProblemError(422, "not-valid", f"owner: there is no active account {owner}; tokens belong to accounts of this hub")
        scopes = _scopes(asked.scopes, who)
        expires = int(rights.clock()) + asked.days * 86_400
        accounts = rights.accounts
        made = carried_out(lambda: new_token(accounts, owner, asked.about, scopes, expires, actor=who.name))
        shown = shown_token(made.entry)
        note(after=shown, subject=f"token/{made.entry.name}")
        return JSONResponse({**shown, "token": made.secret}, 201, headers={"Cache-Control": "no-store"})

    @router.delete("/v1/tokens/{id}", tags=["rights"], summary="Revoke a token, at once", responses=errors)
    def end(id: str, who: Who) -> JSONResponse:
        assert rights is not None
        assert rights.accounts is not None
        accounts = rights.accounts
        entry = accounts.get(f"token/{id}")
        own = entry is not None and entry.spec.owner == who.name
        if entry is None or not (own or who.may("users.write", EVERYWHERE)):
            raise ProblemError(404, "not-found", "There is no such token of yours.")
        note(before=shown_token(entry), subject=f"token/{id}")
        after = carried_out(lambda: accounts.set_status(entry, ENDED, "revoke", actor=who.name)) if entry.active else entry
        note(after=shown_token(after))
        return JSONResponse(shown_token(after))


def _scopes(asked: list[str] | None, who: Principal) -> tuple[str, ...] | None:
    """The scopes of a new token: a token makes no token that may more than itself. Raises Problem 403, 422."""
    families = {f"{name.partition('.')[0]}.*" for name in PERMISSIONS}
    for scope in asked or ():
        if scope != "*" and scope not in PERMISSIONS and scope not in families:
            raise ProblemError(422, "not-valid", f"scopes: there is no permission {scope}")
    if who.scopes is None:
        return None if asked is None else tuple(asked)
    if asked is None:
        return who.scopes
    for scope in asked:
        if scope not in who.scopes and "*" not in who.scopes and not ("*" not in scope and who.may(scope)):
            raise denied(scope)
    return tuple(asked)


def _audit(router: APIRouter, part: RightsPart) -> None:
    errors = responses(401, 403, 422, 503)

    @router.get("/v1/audit", response_model=Page, tags=["audit"], summary="Who did what, when, from where", responses=errors)
    async def search(
        actor: Text = None, action: Text = None, subject: Text = None, outcome: Text = None, device: Text = None, channel: Text = None,
        command: Text = None, bulk: Text = None, address: Text = None, writer: Text = None, hash: Text = None,
        since: Annotated[datetime | None, Query(alias="from")] = None,
        until: Annotated[datetime | None, Query(alias="to")] = None,
        cursor: Annotated[str | None, Query(max_length=4000)] = None,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
    ) -> JSONResponse:  # fmt: skip
        filters = {
            "actor": actor, "action": action, "subject": subject, "outcome": outcome, "device": device, "channel": channel,
            "command": command, "bulk": bulk, "address": address, "writer": writer, "hash": hash,
        }  # fmt: skip
        sql, parameters = page_query(AUDIT, filters, since, until, cursor, limit)
        rows = await run_in_threadpool(part.rights.reader.rows, sql, parameters)
        more, rows = len(rows) > limit, rows[:limit]
        following = cursor_of([cursor_text(rows[-1][column]) for column in AUDIT.order]) if more else None
        return JSONResponse({"items": [readable(row) for row in rows], "next": following})

    @router.get(
        "/v1/audit/export", tags=["audit"], summary="The audit as a file", response_class=Response,
        responses={200: {"content": {"application/x-ndjson": {}, "text/csv": {}}}, **errors},
    )  # fmt: skip
    async def export(
        format: Literal["ndjson", "csv"] = "ndjson",
        actor: Text = None,
        action: Text = None,
        subject: Text = None,
        outcome: Text = None,
        since: Annotated[datetime | None, Query(alias="from")] = None,
        until: Annotated[datetime | None, Query(alias="to")] = None,
    ) -> StreamingResponse:
        filters = {"actor": actor, "action": action, "subject": subject, "outcome": outcome}
        rows = _rows(part, filters, since, until)
        kind = "text/csv" if format == "csv" else "application/x-ndjson"
        headers = {"Content-Disposition": f'attachment; filename="audit.{format}"'}
        return StreamingResponse(iterate_in_threadpool(_csv(rows) if format == "csv" else _ndjson(rows)), media_type=kind, headers=headers)

    @router.get("/v1/audit/head", tags=["audit"], summary="The end of this hub's chain, for verification", responses=errors)
    async def head() -> dict[str, Any]:
        found = part.rights.trail.head if part.rights.trail else None
        return {"writer": found.writer, "sequence": found.sequence, "hash": found.hash} if found else {}


def _rows(
    part: RightsPart, filters: dict[str, str | None], since: datetime | None, until: datetime | None
) -> Iterator[list[dict[str, Any]]]:
    cursor: str | None = None
    while True:
        sql, parameters = page_query(AUDIT, filters, since, until, cursor, CHUNK)
        rows = part.rights.reader.rows(sql, parameters)
        yield [readable(row) for row in rows[:CHUNK]]
        if len(rows) <= CHUNK:
            return
        cursor = cursor_of([cursor_text(rows[CHUNK - 1][column]) for column in AUDIT.order])


def _ndjson(pages: Iterator[list[dict[str, Any]]]) -> Iterator[bytes]:
    for rows in pages:
        yield b"".join(orjson.dumps(row) + b"\n" for row in rows)


def _csv(pages: Iterator[list[dict[str, Any]]]) -> Iterator[bytes]:
    """Cells that a spreadsheet would take for formulas begin with an apostrophe."""
    first = True
    for rows in pages:
        text = io.StringIO()
        writer = csv.writer(text)
        if first and rows:
            writer.writerow(rows[0])
            first = False
        writer.writerows([_cell(value) for value in row.values()] for row in rows)
        yield text.getvalue().encode()


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def second(text: str) -> int:
    """UTC seconds of a time as ``readable`` writes it."""
    return int(datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp())


PAGE_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
FIRST: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Meter Data Hub: first administrator</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body{font:1rem/1.5 system-ui,sans-serif;max-width:26rem;margin:4rem auto;padding:0 1rem;color-scheme:light dark}
label{display:block;margin:1rem 0 .25rem}input{font:inherit;width:100%;padding:.4rem;box-sizing:border-box}
button{font:inherit;margin-top:1.5rem;padding:.5rem 1rem}</style></head>
<body><main><h1>First administrator</h1><p>This link works once. Choose the name and the password of the account that may do everything.</p>
<form method="post" action="/v1/session/first"><input type="hidden" name="code" value="%CODE%">
<label for="user">Name (lower case)</label><input id="user" name="user" required autocomplete="username">
<label for="password">Password (at least 12 characters)</label>
<input id="password" name="password" type="password" required minlength="12" autocomplete="new-password">
<button>Make the account</button></form></main></body></html>
"""
RESET: Final = (
    FIRST.replace("First administrator", "New password")
    .replace("This link works once. Choose the name and the password of the account that may do everything.", "This link works once.")
    .replace('<label for="user">Name (lower case)</label><input id="user" name="user" required autocomplete="username">\n', "")
    .replace("Make the account", "Set the password")
    .replace("/v1/session/first", "/v1/session/reset")
)
