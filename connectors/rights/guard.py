"""The guard in front of the HTTP interface: says who asks, refuses what they may not, and writes both into the audit.

It decides before a byte of the body is read. Bounds to an area that only the body can tell are checked by ``within_area``, a dependency
of every route, which also refuses a route that was reached under another rule than its own.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import MutableMapping
from typing import Any, Final
from urllib.parse import urlsplit

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection, Request
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from connectors.head_end import problems
from connectors.head_end.handlers import RETRY_AFTER
from connectors.head_end.problems import ProblemError
from connectors.rights import passwords
from connectors.rights.policy import OPEN, Rule, match, rule_of
from connectors.rights.principal import Principal, as_principal, current, denied
from connectors.rights.scope import MASTER, all_within, needs_everything
from connectors.rights.service import COOKIE, CSRF_HEADER, BadCredentialError, Rights, UnknownCredentialError, cookie
from connectors.rights.trail import Notes, as_text, noting, redacted

SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
SEEN: Final = 16_384  # bytes of bodies that the audit looks at
LATE: Final = 2.0  # seconds that a credential may be on its way from the hub that made it
QUIET: Final = 60.0  # seconds in which the same refusal is told once
log = structlog.get_logger(__name__)


REFUSED: Final = "/console/refused"  # says in words what the state of a request holds as refusal


class Guard:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, rights: Rights) -> None:
        self.app, self.rights = app, rights
        self._lock = threading.Lock()
        self._refusals: OrderedDict[tuple[str, ...], tuple[float, int]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers, peer = Headers(scope=scope), (scope.get("client") or ("", 0))[0]
        method, path = scope["method"], scope["path"]
        key = match(method, path)
        rule = self._rule(key) if key else None
        closed = not self.rights.open and (rule is None or rule.permission != OPEN)
        if closed and not await run_in_threadpool(self._ready):
            away = ProblemError(503, "kafka-away", "The accounts have not been read yet; try again.", headers=RETRY_AFTER)
            await self._answer(scope, receive, send, away)
            return
        try:
            patience = LATE if closed or path == "/v1/session" else 0.0
            who, refusal = await self._identified(headers, peer, patience), None
        except BadCredentialError:
            nobody = Principal("", "none", address=self.rights.address_of(peer, headers), agent=headers.get("user-agent", ""))
            who, refusal = nobody, _unknown()
            if rule is not None and rule.permission == OPEN:
                refusal = None
        refusal = refusal or self._refused(who, rule, method, headers)
        if refusal is not None:
            self._tell_refusal(who, rule, key or "unknown", method, path, refusal)
            if refusal.status == 401 and path.startswith("/console") and "text/html" in headers.get("accept", ""):
                await RedirectResponse("/console/login", 303)(scope, receive, send)
                return
            if refusal.status == 403 and method == "GET" and path.startswith("/console/") and "text/html" in headers.get("accept", ""):
                scope.setdefault("state", {}).update(principal=who, rights=self.rights, rule_key=f"GET {REFUSED}", refusal=refusal)
                with as_principal(who):  # people get a page that says so
                    await self.app({**scope, "path": REFUSED, "raw_path": REFUSED.encode()}, receive, send)
                return
            await self._answer(scope, receive, send, refusal)
            return
        scope.setdefault("state", {}).update(principal=who, rights=self.rights, rule_key=key)
        with as_principal(who, rule.permission if rule else ""):
            await self._pass(scope, receive, send, who, key or path, rule)

    async def _identified(self, headers: Headers, peer: str, patience: float) -> Principal:
        """Who asks. What another hub made a moment ago is waited for as long as its record is on the way. Raises BadCredentialError."""
        deadline = time.monotonic() + patience
        while True:
            try:
                return self.rights.identify(headers, peer)
            except UnknownCredentialError:
                if time.monotonic() >= deadline:
                    raise
            await asyncio.sleep(0.05)

    def _rule(self, key: str) -> Rule | None:
        return Rule(OPEN) if key == "GET /metrics" and self.rights.settings.open_metrics else rule_of(key)

    def _ready(self) -> bool:
        accounts, sessions = self.rights.accounts, self.rights.sessions
        return bool(accounts and sessions and accounts.wait_ready(2) and sessions.wait_ready(2))

    def _refused(self, who: Principal, rule: Rule | None, method: str, headers: Headers) -> ProblemError | None:
        """Why a request goes no further; None: it does."""
        rights = self.rights
        unsafe = method not in SAFE
        if unsafe and who.via in ("open", "session") and _foreign(headers):
            return ProblemError(403, "forged", "Another site asked your browser for this; the hub does not do it.")
        if unsafe and who.via == "session" and not (rule and rule.permission == OPEN):
            sent = headers.get(CSRF_HEADER, "")
            if not sent or not passwords.same(sent, passwords.csrf_of(cookie(headers, COOKIE))):
                return ProblemError(403, "forged", f"A change by cookie needs the header {CSRF_HEADER} with the session's token.")
        if rule is None:
            return None if rights.open else (_unknown() if who.via == "none" else ProblemError(404, "", "There is nothing here."))
        if rule.permission == OPEN:
            return None
        if who.via == "none":
            return _unknown()
        return None if who.may(rule.permission) else denied(rule.permission)

    async def _pass(self, scope: Scope, receive: Receive, send: Send, who: Principal, key: str, rule: Rule | None) -> None:
        """Lets a request through, and writes down what it changed before its answer begins."""
        unsafe = scope["method"] not in SAFE
        audited = unsafe if rule is None or rule.audited is None else rule.audited
        if not audited or self.rights.trail is None or (rule is not None and rule.permission == OPEN):
            await self.app(scope, receive, send)
            return
        notes, seen = Notes(), bytearray()

        async def noted() -> Message:
            message = await receive()
            if message["type"] == "http.request" and len(seen) < SEEN:
                seen.extend(message.get("body", b"")[: SEEN - len(seen)])
            return message

        async def told(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                await self._tell(scope, who, key, rule, notes, bytes(seen), message)
            await send(message)

        with noting(notes):
            await self.app(scope, noted, told)

    async def _tell(
        self, scope: Scope, who: Principal, key: str, rule: Rule | None, notes: Notes, body: bytes, start: MutableMapping[str, Any]
    ) -> None:
        trail, status = self.rights.trail, int(start["status"])
        assert trail is not None
        asked = redacted(body) if body else None
        after = notes.after if notes.after is not None else {} if asked is None else {"request": asked}
        after = after if isinstance(after, dict) else {"value": after}
        where = next((value.decode() for name, value in start.get("headers", ()) if name.lower() == b"location"), "")
        outcome = "applied" if status < 400 else "denied" if status in (401, 403) else "refused"
        reason = notes.reason or (str(asked.get("reason") or "") if isinstance(asked, dict) else "")
        detail = notes.detail or f"{key} answered {status}"
        future = trail.tell(
            rule.permission if rule else key, notes.subject or scope["path"], outcome, who, actor=notes.actor, reason=reason,
            detail=detail, command=notes.command, before=as_text(notes.before),
            after=as_text({**after, "at": where} if where else after or ""),
        )  # fmt: skip
        try:
            await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(future)), 5)
        except Exception as error:  # it is kept and tried again; the act itself has been done
            log.warning("an entry of the audit waits", action=key, reason=str(error) or type(error).__name__)

    def _tell_refusal(self, who: Principal, rule: Rule | None, key: str, method: str, path: str, refusal: ProblemError) -> None:
        """Refusals are audited; the same again within a minute is counted and told with the next."""
        if self.rights.trail is None or refusal.status == 404:
            return
        now, same = self.rights.clock(), (who.name, who.address, key, str(refusal.status))
        with self._lock:
            last, more = self._refusals.pop(same, (0.0, 0))
            told = now - last >= QUIET
            self._refusals[same] = (now, 0) if told else (last, more + 1)
            while len(self._refusals) > 10_000:
                self._refusals.popitem(last=False)
        if told:
            detail = f"{method} {path[:500]}: {refusal.kind}" + (f", and {more} more since then" if more else "")
            self.rights.tell(rule.permission if rule and rule.permission else key, path[:500], "denied", who, detail=detail)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, problem: ProblemError) -> None:
        answer = problems.answer(Request(scope), problem.status, problem.kind, problem.detail, problem.extra, problem.headers)
        await answer(scope, receive, send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A websocket carries the session of its browser; another site's page gets none."""
        headers, peer = Headers(scope=scope), (scope.get("client") or ("", 0))[0]
        try:
            who = await self._identified(headers, peer, LATE)
        except BadCredentialError:
            who = Principal("", "none")
        if who.via == "none" or _foreign(headers):
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        scope.setdefault("state", {}).update(principal=who, rights=self.rights)
        with as_principal(who):
            await self.app(scope, receive, send)


def _unknown() -> ProblemError:
    return ProblemError(
        401, "not-logged-in", "Log in, or send an API token: Authorization: Bearer mdh_….", headers={"WWW-Authenticate": "Bearer"}
    )


def _foreign(headers: Headers) -> bool:
    """Whether a page of another site made the browser send this."""
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "same-site", "none"):
        return True
    return origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower()


async def within_area(request: HTTPConnection) -> None:
    """Dependency of all routes: holds the rights of the one who asks against what the request is about. Raises Problem 403."""
    rights = request.scope.get("state", {}).get("rights")
    if rights is None or request.scope["type"] != "http":
        return
    who = current()
    route = getattr(request.scope.get("route"), "path", "")
    method = "GET" if request.scope["method"] == "HEAD" else request.scope["method"]
    known = request.scope["state"].get("rule_key") or ""
    rule = rule_of(f"{method} {route}") or (rule_of(known) if known.endswith("/{rest:path}") else None)
    if route == "/metrics" and rights.settings.open_metrics:
        return
    if rule is None:
        if rights.open:
            return
        raise ProblemError(403, "forbidden", "This door has no rule; nobody may use it.")
    if rule.permission == OPEN or who.via == "open":
        return
    if not who.may(rule.permission):
        raise denied(rule.permission)
    if rule.people and request.path_params.get("kind", "person") == "person" and not who.may("persons.read"):
        raise denied("persons.read")
    bounds = who.bounds(rule.permission)
    if bounds is None or rule.scoped:
        return
    if not rule.places:
        raise needs_everything(rule.permission, rule.whole)
    things = await _things(request, rule)
    if not things or not await run_in_threadpool(all_within, rights.reader, things, bounds):
        raise denied(rule.permission)


async def _things(request: HTTPConnection, rule: Rule) -> list[tuple[str, str]]:
    """Kind and id of all that the request says it is about."""
    found, body = [], None
    for place in rule.places:
        source, name, kind = place.split(":")
        if source == "body" and body is None:
            body = await request.json() if isinstance(request, Request) else {}
        held: Any = {"path": request.path_params, "query": request.query_params, "body": body if isinstance(body, dict) else {}}[source]
        value = held.get(name)
        if kind == "master":
            kind = f"{MASTER}{request.path_params.get('kind', '')}"
        if isinstance(value, str) and value:
            found.append((kind, value))
    return found
