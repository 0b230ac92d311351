"""A process that has to end surely ends, though a part of it never answers."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)


def end_within(seconds: float, status: Callable[[], int]) -> None:
    """Ends this process with ``status`` if it still runs after so many seconds: whoever keeps it alive can then start it anew.

    What is in hand is lost as in a crash, so this is for processes whose state is in Kafka or in the store.
    """

    def end() -> None:
        log.warning("did not stop in time, ending at once", seconds=seconds)
        os._exit(status())

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def end_after(stop: threading.Event, seconds: float, status: Callable[[], int]) -> None:
    """The same, counted from when ``stop`` is set."""

    def watch() -> None:
        stop.wait()
        end_within(seconds, status)

    threading.Thread(target=watch, name="ending", daemon=True).start()
