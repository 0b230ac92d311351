"""Signed webhooks. The address that was checked is the one connected to; redirects are not followed; answers are read in part."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

import httpx
import orjson

from connectors.subscribers import signing
from connectors.subscribers.guard import ForbiddenError, Guard, UnresolvedError
from connectors.subscribers.objects import iso
from connectors.subscribers.parcel import AwayError, BrokenError, Parcel, RefusedError, Sent
from connectors.subscribers.secrets import SecretError, Secrets
from schemas.topology.subscribers import Webhook

ABOUT_THIS_DELIVERY: Final = frozenset({400, 406, 409, 411, 413, 414, 415, 416, 417, 418, 422, 431, 451})
BUSY: Final = frozenset({408, 425, 429, 502, 503, 504})
_LONGEST_WAIT: Final = 3600.0


class WebhookChannel:
    """POSTs parcels to a URL, signed by the secrets as they are at that moment."""

    kind = "webhook"

    def __init__(
        self, settings: Webhook, guard: Guard, secrets: Secrets, *, response_bytes: int, agent: str, clock: Callable[[], float] = time.time
    ) -> None:
        self.settings, self._guard, self._secrets = settings, guard, secrets
        self._response_bytes, self._agent, self._clock = response_bytes, agent, clock
        self._parts = urlsplit(settings.url)
        self.place = self._parts.hostname or ""
        limits = httpx.Limits(max_connections=settings.parallel, max_keepalive_connections=settings.parallel)
        # No proxy of the environment: it would connect to addresses that nobody checked
        self._client = httpx.Client(
            verify=self._context(), follow_redirects=False, trust_env=False, timeout=settings.timeout, limits=limits, cookies=None
        )

    def _context(self) -> ssl.SSLContext:
        if self.settings.authority is None:
            return ssl.create_default_context()
        try:
            return ssl.create_default_context(cadata=self._secrets.get(self.settings.authority).decode())
        except (SecretError, ssl.SSLError, UnicodeDecodeError) as error:
            raise AwayError(f"authority: {error}") from None

    def send(self, parcel: Parcel) -> Sent:
        """Posts it. 2xx is taken; every other answer is an error by its kind."""
        body = body_of(parcel)
        scheme, host = self._parts.scheme, self._parts.hostname or ""
        port = self._parts.port or (443 if scheme == "https" else 80)
        try:
            address = self._guard.address(host, port, scheme)
            headers = self._headers(parcel, body)
        except ForbiddenError as error:
            raise AwayError(f"not allowed: {error}") from None
        except (UnresolvedError, SecretError) as error:
            raise AwayError(str(error)) from None
        shown = f"[{address}]" if ":" in address else address
        url = httpx.URL(self.settings.url).copy_with(host=shown.strip("[]"), port=port)
        extensions = {"sni_hostname": host}  # the certificate is that of the name, whatever the address
        deadline = time.monotonic() + self.settings.timeout
        try:
            with self._client.stream("POST", url, content=body, headers=headers, extensions=extensions) as answer:
                text = self._read(answer, deadline)
                return self._judged(answer, text, len(body))
        except httpx.TimeoutException as error:
            raise AwayError(f"no answer in time ({type(error).__name__})") from None
        except httpx.HTTPError as error:
            raise AwayError(f"{type(error).__name__}: {error}") from None

    def _headers(self, parcel: Parcel, body: bytes) -> dict[str, str]:
        keys = [self._secrets.signing_key(name) for name in self.settings.secrets]
        netloc = self._parts.netloc
        headers = {
            **self.settings.headers,
            "host": netloc,
            "user-agent": self._agent,
            "content-type": "application/json",
            "accept-encoding": "identity",
            **signing.headers(keys, parcel.id, int(self._clock()), body),
        }
        if self.settings.token is not None:
            headers["authorization"] = f"Bearer {self._secrets.get(self.settings.token).decode(errors='replace')}"
        return headers

    def _read(self, answer: httpx.Response, deadline: float) -> bytes:
        """The beginning of the answer: enough to say why, never more than allowed, nor longer than the timeout."""
        found = b""
        for chunk in answer.iter_raw(4096):
            found += chunk
            if len(found) >= self._response_bytes:
                break
            if time.monotonic() > deadline:
                raise AwayError("the answer took too long", answer.status_code)
        return found[: self._response_bytes]

    def _judged(self, answer: httpx.Response, text: bytes, size: int) -> Sent:
        code = answer.status_code
        if answer.is_success:
            return Sent(self.place, size, code)
        said = "".join(c if c.isprintable() else " " for c in text[:200].decode(errors="replace")).strip()
        reason = f"answered {code}" + (f": {said}" if said else "")
        if code in ABOUT_THIS_DELIVERY:
            raise RefusedError(reason, code)
        if code >= 500 and code not in BUSY:
            raise BrokenError(reason, code)
        if 300 <= code < 400:
            reason = (
                f"answered {code} to {answer.headers.get('location', 'nowhere')[:200]!r}: redirects are not followed, register that address"
            )
        raise AwayError(reason, code, _wait(answer.headers.get("retry-after", "")))

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()


def body_of(parcel: Parcel) -> bytes:
    """The body of a request: the same for every attempt."""
    document = {
        "id": parcel.id,
        "type": parcel.object,
        "schema": parcel.units[0].schema,
        "timestamp": iso(parcel.at // 1000),
        "subscriber": parcel.subscriber,
        "test": parcel.test,
        "data": parcel.items,
    }
    return orjson.dumps(document)


def _wait(text: str) -> float:
    return min(float(text), _LONGEST_WAIT) if text.isascii() and text.isdigit() and len(text) < 8 else 0.0
