"""An identity provider over HTTP: discovery, keys, authorisation with PKCE, codes that count once."""

from __future__ import annotations

import base64
import hashlib
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, RedirectResponse
from joserfc import jwt
from joserfc.jwk import RSAKey


@dataclass
class IdentityProvider:
    """Logs in whoever is ``person`` at the moment, without asking."""

    client_id: str
    secret: str
    redirect: str
    issuer: str = ""
    person: dict[str, Any] = field(default_factory=dict)
    refuse: str = ""
    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "k1"}))
    codes: dict[str, dict[str, Any]] = field(default_factory=dict)

    def app(self) -> FastAPI:
        """Its doors."""
        app = FastAPI()

        @app.get("/.well-known/openid-configuration")
        def discovery() -> dict[str, str]:
            at = self.issuer
            places = {"authorization_endpoint": f"{at}/auth", "token_endpoint": f"{at}/token", "jwks_uri": f"{at}/keys"}
            return {"issuer": at, **places}

        @app.get("/keys")
        def keys() -> dict[str, Any]:
            return {"keys": [self.key.as_dict(private=False)]}

        @app.get("/auth")
        def auth(request: Request) -> RedirectResponse:
            asked = dict(request.query_params)
            assert (asked["response_type"], asked["client_id"], asked["redirect_uri"]) == ("code", self.client_id, self.redirect)
            assert asked["code_challenge_method"] == "S256"
            if self.refuse:
                return RedirectResponse(f"{self.redirect}?{urlencode({'error': self.refuse, 'state': asked['state']})}", 302)
            code = secrets.token_urlsafe(16)
            self.codes[code] = {**asked, "claims": dict(self.person)}
            return RedirectResponse(f"{self.redirect}?{urlencode({'code': code, 'state': asked['state']})}", 302)

        @app.post("/token")
        async def token(request: Request) -> JSONResponse:
            given = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
            kept = self.codes.pop(given["code"], None)
            basic = base64.b64encode(f"{self.client_id}:{self.secret}".encode()).decode()
            challenge = base64.urlsafe_b64encode(hashlib.sha256(given.get("code_verifier", "").encode()).digest()).decode().rstrip("=")
            if kept is None or request.headers.get("authorization") != f"Basic {basic}" or challenge != kept["code_challenge"]:
                return JSONResponse({"error": "invalid_grant"}, 400)
            now = int(time.time())
            claims = {"iss": self.issuer, "aud": self.client_id, "iat": now, "exp": now + 60, "sub": "1", "nonce": kept["nonce"]}
            signed = jwt.encode({"alg": "RS256", "kid": "k1"}, claims | kept["claims"], self.key)
            return JSONResponse({"access_token": "a", "token_type": "Bearer", "id_token": signed})

        return app


@contextmanager
def running(provider: IdentityProvider) -> Iterator[IdentityProvider]:
    """The provider at a free port; its issuer is that address."""
    server = uvicorn.Server(uvicorn.Config(provider.app(), port=0, log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.02)
    provider.issuer = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        yield provider
    finally:
        server.should_exit = True
        thread.join(10)
