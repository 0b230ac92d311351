"""Payments through a provider's hosted page: the customer is sent there, a signed callback says what came of it.

To the page: ``id``, ``account``, ``amount``, ``currency``, ``callback``, ``return`` and ``signature`` (hex HMAC-SHA256 over these values in
this order, joined by line ends) in the query. From it: a POST of ``{id, account, amount, currency, status: paid|failed}``, signed as in the
Standard Webhooks specification. A callback that comes again credits nothing again; one that is not answered 2xx must come again.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

import orjson

from connectors.head_end.problems import ProblemError
from connectors.prepaid.portal.desk import Payment, PortalDesk
from connectors.prepaid.service import PrepaidService
from connectors.subscribers import signing
from connectors.subscribers.secrets import SecretError, Secrets

CALLBACK: Final = "/portal/payments/callback"
DEMO: Final = "/portal/demo-provider"
CHANNEL: Final = "portal"


@dataclass(frozen=True)
class Provider:
    """Where customers pay, and the keys shared with whoever that is."""

    url: str
    keys: Callable[[], list[bytes]]

    def page(self, payment: Payment, currency: str, origin: str) -> str:
        """The address to send the customer to. Raises SecretError."""
        given = {
            "id": payment.id, "account": payment.account, "amount": payment.amount, "currency": currency,
            "callback": f"{origin}{CALLBACK}", "return": f"{origin}/portal/recharge/{payment.id}",
        }  # fmt: skip
        url = self.url if "://" in self.url else f"{origin}{self.url}"
        return f"{url}{'&' if '?' in url else '?'}{urlencode({**given, 'signature': self.sign(given)})}"

    def sign(self, given: Mapping[str, str]) -> str:
        """The signature of what is sent to the page."""
        text = "\n".join(given[name] for name in ("id", "account", "amount", "currency", "callback", "return"))
        return hmac.new(self.keys()[0], text.encode(), hashlib.sha256).hexdigest()


def provider_of(service: PrepaidService, secrets: Secrets, desk: PortalDesk) -> Provider | None:
    """The provider of the settings; None: there is none."""
    settings = service.settings.portal.payments
    if settings is None:
        return None
    if settings.kind == "demo":
        return Provider(DEMO, lambda: [desk.demo_key])
    names, url = settings.secrets, settings.url or ""
    return Provider(url, lambda: [secrets.signing_key(name) for name in names])


class Payments:
    """Takes callbacks of the provider."""

    def __init__(self, service: PrepaidService, desk: PortalDesk, provider: Provider) -> None:
        self.service, self.desk, self.provider = service, desk, provider

    def callback(self, headers: Mapping[str, str], body: bytes, now: int) -> dict[str, Any]:
        """Credits what a provider says was paid, once. Raises Problem 401 (signature), 409, 422, 503 (come again)."""
        try:
            keys = self.provider.keys()
        except SecretError:
            raise ProblemError(503, "no-secret", "The secret shared with the provider is not there; come again.") from None
        if not signing.verify(keys, dict(headers), body, now):
            raise ProblemError(401, "signature", "This callback is not signed by the provider, or its time is too far off.")
        said = self._said(body)
        known = self.desk.payment(said["id"])
        if known is not None and (known.account, known.amount) != (said["account"], said["amount"]):
            raise ProblemError(409, "conflict", "This payment was begun for another account or amount.")
        if said["status"] == "failed":
            self.desk.settle(said["id"], "failed")
            return {"id": said["id"], "status": "failed"}
        try:
            status, found = self.service.submit(
                said["account"], "topup", said["id"], amount=self.service.amount(said["amount"]), channel=CHANNEL, reference=said["id"],
                user="portal",
            )  # fmt: skip
        except ProblemError as error:
            if error.status in (404, 422):
                self.desk.settle(said["id"], "refused", error.detail)
            raise
        if status == 202:
            raise ProblemError(503, "not-decided", "The payment is taken but not booked yet: come again.", headers={"Retry-After": "5"})
        self.desk.settle(said["id"], "paid")
        return {"id": said["id"], "status": "paid", "request": found["id"]}

    def _said(self, body: bytes) -> dict[str, str]:
        try:
            said = orjson.loads(body)
        except orjson.JSONDecodeError:
            said = None
        fields = ("id", "account", "amount", "currency", "status")
        if not isinstance(said, dict) or not all(isinstance(said.get(name), str) and 0 < len(said[name]) <= 255 for name in fields):
            raise ProblemError(422, "not-valid", f"A callback is a JSON object with {', '.join(fields)}, all texts.")
        if said["status"] not in ("paid", "failed") or said["currency"] != self.service.settings.currency.code:
            raise ProblemError(422, "not-valid", f"status is paid or failed, currency {self.service.settings.currency.code}")
        return said
