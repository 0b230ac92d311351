"""Tokens for aiokafka by the OAuth client-credentials grant (librdkafka fetches its own)."""

from __future__ import annotations

import time

import httpx
from aiokafka.abc import AbstractTokenProvider

EARLY = 30.0  # a token this close to its end is not handed out any more
SHORTEST = 60.0  # assumed where the server does not say how long its token lasts


class TokenProvider(AbstractTokenProvider):  # type: ignore[misc]
    """Fetches a token and keeps it until shortly before it ends. Raises httpx.HTTPError where the server refuses."""

    def __init__(self, url: str, client: str, secret: str, scope: str | None = None) -> None:
        self.url, self._auth, self._scope = url, (client, secret), scope
        self._token, self._ends = "", 0.0

    async def token(self) -> str:
        """A valid token."""
        if time.monotonic() < self._ends:
            return self._token
        form = {"grant_type": "client_credentials"} | ({"scope": self._scope} if self._scope else {})
        async with httpx.AsyncClient(timeout=10) as client:
            answer = await client.post(self.url, data=form, auth=self._auth)
        answer.raise_for_status()
        body = answer.json()
        self._token = str(body["access_token"])
        self._ends = time.monotonic() + max(float(body.get("expires_in", SHORTEST)) - EARLY, 1.0)
        return self._token
