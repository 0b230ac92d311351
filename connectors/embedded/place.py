"""The data directory of a hub: who owns it, what is in it, where its parts listen, and whether there is room.

Layout: ``kafka/`` the broker's log, ``store/`` ClickHouse, ``logs/`` one file per process, ``run/`` lock, ports and ``hub.json``.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import socket
import weakref
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self, TextIO

from connectors.embedded import EmbeddedError

HOST = "127.0.0.1"
ROOM_TO_START = 1 << 30  # bytes: less would end in the middle of the first big load
ROOM_TO_RUN = 256 << 20  # bytes: a clean stop still fits


@dataclass(frozen=True, slots=True)
class HubState:
    """What ``run/hub.json`` tells other commands about a running hub."""

    pid: int
    url: str
    broker: str
    data_dir: str
    topology: str | None = None
    processes: dict[str, int] = field(default_factory=dict)


class Place:
    """A data directory, held by one hub at a time."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        self.logs = self.root / "logs"
        self.run = self.root / "run"
        self._lock: TextIO | None = None

    def take(self) -> None:
        """Makes the directory and holds it until `leave`. Raises EmbeddedError if it cannot be used or another hub runs on it."""
        try:
            for folder in (self.root, self.logs, self.run):
                folder.mkdir(parents=True, exist_ok=True)
            lock = (self.run / "lock").open("a")
        except OSError as error:
            raise EmbeddedError(f"cannot use {self.root} as data directory: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            state = read_state(self.root)
            who = f" (process {state.pid}, {state.url})" if state else ""
            raise EmbeddedError(f"another hub runs on {self.root}{who}: stop it or name another --data-dir") from error
        self._lock = lock
        self._state_file.unlink(missing_ok=True)

    def leave(self) -> None:
        """Gives the directory free."""
        if self._lock:
            self._state_file.unlink(missing_ok=True)
            self._lock.close()
            self._lock = None

    def publish(self, state: HubState) -> None:
        """Writes ``run/hub.json`` for other commands."""
        part = self._state_file.with_suffix(".part")
        part.write_text(json.dumps(asdict(state), indent=1) + "\n")
        part.replace(self._state_file)

    def room(self, needed: int = ROOM_TO_RUN) -> str | None:
        """None if ``needed`` bytes are free, else a line that says how little is."""
        free = shutil.disk_usage(self.root).free
        if free >= needed:
            return None
        return f"the disk of {self.root} is nearly full: {free >> 20} MB free, {needed >> 20} MB needed"

    @property
    def _state_file(self) -> Path:
        return self.run / "hub.json"


def read_state(root: Path) -> HubState | None:
    """The state of the hub that runs on a data directory; None if none does."""
    try:
        state = HubState(**json.loads((root / "run" / "hub.json").read_text()))
        os.kill(state.pid, 0)
    except PermissionError:
        return state  # alive, of another user
    except (OSError, ValueError, TypeError):
        return None
    return state


class Port:
    """A port kept for a child that is to listen on it.

    Until :meth:`free`, or the end of this object, the system gives it to nobody who asks for any free port; whoever binds it by number
    with SO_REUSEADDR, as servers do, may listen there.
    """

    def __init__(self, preferred: int = 0, host: str = HOST) -> None:
        """The preferred port if nobody listens on it, else any. Raises EmbeddedError where there is none."""
        for port in (preferred, 0):
            with suppress(OSError):
                self._keep(_bound(host, port))
                return
        raise EmbeddedError(f"no free port on {host}")

    def _keep(self, held: socket.socket) -> None:
        self.number = int(held.getsockname()[1])
        self.free = weakref.finalize(self, held.close)

    @classmethod
    def claim(cls, port: int, what: str, option: str, host: str = HOST) -> Self:
        """The port if it can be listened on, any free one for 0. Raises EmbeddedError with what to do otherwise."""
        if not port:
            return cls(host=host)
        kept = cls.__new__(cls)
        try:
            kept._keep(_bound(host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise EmbeddedError(f"port {port} for {what} is taken: stop what uses it or give another {option}") from error
            raise EmbeddedError(f"cannot listen on port {port} for {what}: {error.strerror}") from error
        return kept


def _bound(host: str, port: int) -> socket.socket:
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        held.bind((host, port))
    except OSError:
        held.close()
        raise
    return held
