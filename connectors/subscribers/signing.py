"""Signatures of webhooks, as in the Standard Webhooks specification: HMAC-SHA256 over id, timestamp and body."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

from connectors.subscribers.secrets import key_id

TOLERANCE: Final = 300  # seconds; what a receiver should allow between its clock and the timestamp


def signature(key: bytes, id: str, timestamp: int, body: bytes) -> str:
    """``v1,`` and the base64 of the HMAC over ``id.timestamp.body``."""
    digest = hmac.new(key, f"{id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def headers(keys: Sequence[bytes], id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of a signed request. While a secret is being changed there are two keys, and a signature by each."""
    return {
        "webhook-id": id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signature(key, id, timestamp, body) for key in keys),
        "webhook-key-id": " ".join(key_id(key) for key in keys),
        "idempotency-key": id,
    }


def verify(keys: Sequence[bytes], headers: dict[str, str], body: bytes, now: int, tolerance: int = TOLERANCE) -> bool:
    """Whether a request was signed by one of the keys, not longer ago (nor in the future) than ``tolerance`` seconds."""
    stamp = headers.get("webhook-timestamp", "")
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= 12) or abs(now - int(stamp)) > tolerance:
        return False
    given = headers.get("webhook-signature", "").split()
    wanted = [signature(key, headers.get("webhook-id", ""), int(stamp), body) for key in keys]
    return any(hmac.compare_digest(one, other) for one in wanted for other in given)
