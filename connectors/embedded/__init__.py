"""Real parts without a service to install: Apache Kafka in a child process, and the supervisor that keeps processes alive."""

from __future__ import annotations


class EmbeddedError(Exception):
    """Something of this machine is in the way (port, disk, network, a part that keeps failing); the text is one line for the user."""
