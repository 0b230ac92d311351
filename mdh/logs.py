"""Logs of every process: one JSON object per line on stderr, whichever library speaks. stdout belongs to results."""

from __future__ import annotations

import logging
import sys
from typing import Any

import orjson
import structlog

# Talk about every request or rebalance at INFO; what matters to an operator they say at WARNING
QUIET = ("aiokafka", "faust", "mode", "uvicorn.access", "httpx", "httpcore", "numba", "watchfiles", "asyncio", "rdkafka")


def configure(level: str = "info", **context: Any) -> None:
    """Sends structlog and the standard library's logging to stderr as JSON; ``context`` is on every line (``process="hub"``).

    Modules log through ``structlog.get_logger(__name__)``; what belongs to a payload carries ``payload=<id>``.
    """
    number = logging.getLevelNamesMapping()[level.upper()]

    def add_context(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        for name, value in context.items():  # contextvars would not reach the lines of other threads
            event.setdefault(name, value)
        return event

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        add_context,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        structlog.processors.UnicodeDecoder(),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(serializer=_json),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))


def _json(value: Any, default: Any = None, **_: Any) -> str:
    return orjson.dumps(value, default=default or str, option=orjson.OPT_NON_STR_KEYS).decode()
