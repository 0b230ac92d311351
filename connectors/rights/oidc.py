"""Login at an identity provider: OpenID Connect, authorisation code with PKCE, id tokens verified against the provider's keys."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import structlog
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from connectors.rights import passwords
from schemas.topology.rights import Grant, OidcSettings

with warnings.catch_warnings():  # it announces its next major version, to whoever starts a hub
    from authlib.deprecate import AuthlibDeprecationWarning

    warnings.simplefilter("ignore", AuthlibDeprecationWarning)
    from authlib.integrations.base_client import OAuthError
    from authlib.integrations.httpx_client import OAuth2Client

CALLBACK: Final = "/v1/session/oidc/callback"
FRESH: Final = 3600.0  # seconds for which discovery and keys are kept
TIMEOUT: Final = 10.0
log = structlog.get_logger(__name__)


class ProviderError(Exception):
    """The provider is away, or said something that is not taken. The message is for the log, not for the one who logs in."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What the browser must bring back: kept in its cookie while it is at the provider."""

    state: str
    nonce: str
    verifier: str
    next: str


@dataclass(frozen=True, slots=True)
class Person:
    """Who the provider says it is, by the name used here, with what the claims give."""

    name: str
    full_name: str
    grants: tuple[Grant, ...]


class Provider:
    """One identity provider. All methods block."""

    def __init__(
        self,
        settings: OidcSettings,
        secret: str | None,
        *,
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings, self._secret, self._transport, self._clock = settings, secret, transport, clock
        self._lock = threading.Lock()
        self._known: tuple[float, dict[str, Any], KeySet] | None = None

    @property
    def redirect(self) -> str:
        """Where the provider sends the browser back to."""
        return self.settings.public_url + CALLBACK

    def start(self, following: str) -> tuple[str, Attempt]:
        """The provider's address to send the browser to, and what it must bring back. Raises ProviderError."""
        attempt = Attempt(passwords.new_secret(), passwords.new_secret(), passwords.new_secret(), inside(following))
        where = self._discovered()[0]["authorization_endpoint"]
        with self._client() as client:
            address, _ = client.create_authorization_url(where, state=attempt.state, nonce=attempt.nonce, code_verifier=attempt.verifier)
        return str(address), attempt

    def finish(self, attempt: Attempt, state: str, code: str) -> Person:
        """Who logged in. Raises ProviderError for anything that does not fit."""
        if not passwords.same(state, attempt.state):
            raise ProviderError("the state is not that of this browser")
        document = self._discovered()[0]
        try:
            with self._client() as client:
                answer = client.fetch_token(
                    document["token_endpoint"], grant_type="authorization_code", code=code, code_verifier=attempt.verifier
                )
        except (OAuthError, httpx.HTTPError, ValueError) as error:
            raise ProviderError(f"the token endpoint: {error}") from None
        token = answer.get("id_token") if isinstance(answer, Mapping) else None
        if not isinstance(token, str):
            raise ProviderError("the answer holds no id token")
        return self.person(self.claims(token, attempt.nonce))

    def claims(self, token: str, nonce: str) -> dict[str, Any]:
        """The claims of an id token. Raises ProviderError unless it is signed by the provider, for us, now, for this attempt."""
        try:
            try:
                decoded = jwt.decode(token, self._discovered()[1], algorithms=list(self.settings.algorithms))
            except ValueError:  # no such key: the provider may have changed its keys
                decoded = jwt.decode(token, self._discovered(afresh=True)[1], algorithms=list(self.settings.algorithms))
            registry = jwt.JWTClaimsRegistry(
                now=int(self._clock()),
                leeway=self.settings.leeway,
                iss={"essential": True, "value": self.settings.issuer},
                aud={"essential": True, "value": self.settings.client_id},
                exp={"essential": True},
                iat={"essential": True},
                sub={"essential": True},
                nonce={"essential": True, "value": nonce},
            )
            registry.validate(decoded.claims)
        except (JoseError, ValueError, TypeError) as error:
            raise ProviderError(f"the id token: {error or type(error).__name__}") from None
        claims = dict(decoded.claims)
        audience = claims["aud"]
        if isinstance(audience, list) and len(audience) > 1 and claims.get("azp") != self.settings.client_id:
            raise ProviderError("the id token: made for another party")
        return claims

    def person(self, claims: Mapping[str, Any]) -> Person:
        """The person of claims. Raises ProviderError for one without a name, or whom no rule gives anything."""
        name = claims.get(self.settings.name)
        if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= 100 or any(c in name for c in "/ @#"):
            raise ProviderError(f"claim {self.settings.name} is no name")
        grants = tuple(dict.fromkeys(_frozen(rule.grant) for rule in self.settings.roles if rule.value in _values(claims, rule.claim)))
        if not grants:
            raise ProviderError(f"no rule gives {name} a role")
        full = claims.get("name")
        return Person(f"{name}@{self.settings.realm}", full[:200] if isinstance(full, str) else "", tuple(Grant(**dict(g)) for g in grants))

    def _client(self) -> OAuth2Client:
        more: dict[str, Any] = {"transport": self._transport} if self._transport else {}
        return OAuth2Client(
            client_id=self.settings.client_id,
            client_secret=self._secret,
            token_endpoint_auth_method="client_secret_basic" if self._secret else "none",
            scope=" ".join(self.settings.scopes),
            redirect_uri=self.redirect,
            code_challenge_method="S256",
            timeout=TIMEOUT,
            **more,
        )

    def _discovered(self, *, afresh: bool = False) -> tuple[dict[str, Any], KeySet]:
        with self._lock:
            if self._known is None or afresh or self._clock() - self._known[0] > FRESH:
                self._known = (self._clock(), *self._discover())
            return self._known[1], self._known[2]

    def _discover(self) -> tuple[dict[str, Any], KeySet]:
        try:
            with httpx.Client(timeout=TIMEOUT, transport=self._transport) as client:
                answer = client.get(f"{self.settings.issuer.rstrip('/')}/.well-known/openid-configuration")
                document = answer.raise_for_status().json()
                if document["issuer"] != self.settings.issuer:
                    raise ProviderError(f"discovery names another issuer: {document['issuer']}")
                keys = KeySet.import_key_set(client.get(document["jwks_uri"]).raise_for_status().json())
        except (httpx.HTTPError, ValueError, KeyError, TypeError, JoseError) as error:
            raise ProviderError(f"the provider at {self.settings.issuer} cannot be used: {error}") from None
        return document, keys


def inside(following: str) -> str:
    """A path of this hub to go on with; anything else is the front door."""
    parts = urlsplit(following)
    plain = following.startswith("/") and not following.startswith(("//", "/\\")) and following.isprintable() and "\\" not in following
    return following if plain and not parts.netloc and not parts.scheme and len(following) <= 500 else "/"


def _frozen(grant: Grant) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(grant.model_dump().items()))


def _values(claims: Mapping[str, Any], path: str) -> list[Any]:
    """The values of a claim; a point in its name goes into objects unless a claim is called so."""
    if path in claims:
        held = claims[path]
    else:
        held = claims
        for word in path.split("."):
            held = held.get(word) if isinstance(held, Mapping) else None
    return list(held) if isinstance(held, list) else [held]
