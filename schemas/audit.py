"""The hash chain of the audit: every writer numbers its entries, and each holds the hash of the one before and its own.

All times count in whole UTC seconds, so that what is stored hashes as what was written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import orjson

TEXTS: Final = (
    "id", "actor", "action", "command", "subject", "device", "channel", "reason", "outcome", "detail", "before", "after", "bulk",
    "approved_by", "principal", "address", "agent", "writer", "previous",
)  # fmt: skip
TIMES: Final = ("at", "start", "end")
BLANK: Final = dict.fromkeys(TEXTS, "")


def sealed(entry: Mapping[str, Any]) -> str:
    """The hash of an entry over all its fields but the hash; times are datetimes or UTC seconds."""
    body = {name: entry[name] for name in TEXTS}
    numbers = {name: _second(entry[name]) for name in (*TIMES, "sequence")}
    return hashlib.sha256(orjson.dumps(body | numbers, option=orjson.OPT_SORT_KEYS)).hexdigest()


def chained(entry: Mapping[str, Any], writer: str, sequence: int, previous: str) -> dict[str, Any]:
    """An entry at its place in the chain of a writer; fields it does not name are empty."""
    whole = {**BLANK, **entry, "writer": writer, "sequence": sequence, "previous": previous}
    whole["hash"] = sealed(whole)
    return whole


def _second(value: Any) -> int:
    return int(value.timestamp()) if isinstance(value, datetime) else int(value)
