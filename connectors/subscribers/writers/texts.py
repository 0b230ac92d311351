"""JSON and NDJSON: items as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from connectors.subscribers.writers.content import Content


def ndjson(items: Sequence[dict[str, Any]]) -> Content:
    """One item per line."""
    return Content(b"".join(orjson.dumps(item, option=orjson.OPT_APPEND_NEWLINE) for item in items), len(items))


def json_document(items: Sequence[dict[str, Any]]) -> Content:
    """``{"items": […]}``."""
    return Content(orjson.dumps({"items": items}, option=orjson.OPT_APPEND_NEWLINE), len(items))
