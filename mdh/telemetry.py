"""What a process tells of itself to Prometheus, beyond what its parts count."""

from __future__ import annotations

import os

from mdh.errors import UsageError


def announce(process: str, port: int | None = None) -> None:
    """Counts this start if it follows a death, and serves the metrics at ``port`` (None: nowhere). Raises UsageError where it is taken."""
    from prometheus_client import start_http_server

    from connectors.embedded.supervisor import RESTARTED
    from schemas import metrics

    if os.environ.get(RESTARTED):
        metrics.RESTARTS.labels(process).inc()
    if port is not None:
        try:
            start_http_server(port)
        except OSError as error:
            raise UsageError(f"metrics cannot be served at port {port} ({error.strerror}): give another --metrics-port") from None
