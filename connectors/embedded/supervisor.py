"""Keeps a set of processes alive: starts them in order, restarts what dies, gives up on what cannot live, stops in reverse order.

One thread does all of it. Children are on its leash (`leash`), so it must outlive them, and it does: it ends with the last one.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal

import structlog

from connectors.embedded import EmbeddedError
from connectors.embedded.leash import leashed

log = structlog.get_logger(__name__)

FOR_GOOD = 2  # exit status of bad input or circumstances: starting again would not help
STOP_SECONDS = 25.0
RESTARTED = "MDH_RESTARTED"  # set in the environment of a child that is started again
_PAUSE = 0.05
_LOG_BYTES = 16 << 20
_LOG_FILES = 4

_RAISED = re.compile(r"[A-Za-z_][\w.]*(Error|Exception): ")  # the end of a traceback

Phase = Literal["waiting", "starting", "ready"]


@dataclass(frozen=True, slots=True)
class Child:
    """A process to keep alive.

    ``command`` is asked at every start. ``gate`` returns why it cannot be started yet, None if it can: a death behind a closed
    gate is not the child's fault. ``ready`` tells when it works; a child without it is ready when it runs. ``stop_seconds`` is
    how long it may take to end after SIGTERM. Children of a higher ``stage`` are stopped first.
    """

    name: str
    command: Callable[[], Sequence[str]]
    stage: int = 0
    gate: Callable[[], str | None] | None = None
    ready: Callable[[], bool] | None = None
    start_seconds: float = 120.0
    stop_seconds: float = 10.0
    environment: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Patience:
    """How restarts are spaced, and when there are too many: ``deaths`` within ``window`` seconds."""

    first: float = 0.5
    longest: float = 10.0
    deaths: int = 6
    window: float = 120.0


@dataclass(slots=True)
class _Running:
    child: Child
    phase: Phase = "waiting"
    process: subprocess.Popen[bytes] | None = None
    not_before: float = 0.0
    since: float = 0.0
    deaths: deque[float] = field(default_factory=deque)
    restarts: int = 0
    excuse: str | None = None
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=40))
    output: threading.Thread | None = None


class Supervisor:
    """Runs children until stopped. ``failure`` is set, with one line for the user, when it gives up."""

    def __init__(
        self,
        logs: Path,
        *,
        patience: Patience | None = None,
        checks: Sequence[Callable[[], str | None]] = (),
        check_seconds: float = 5.0,
        echo: bool = False,
        changed: Callable[[dict[str, int]], None] | None = None,
    ) -> None:
        """``checks`` are asked every ``check_seconds`` and return why it must end, if so. ``echo`` repeats the children's output on
        stderr with their names before it. ``changed`` is told the process ids by name whenever they change."""
        self.logs, self.failure = logs, ""
        self._patience = patience or Patience()
        self._checks, self._check_seconds, self._echo, self._changed = checks, check_seconds, echo, changed
        self._children: dict[str, _Running] = {}
        self._guard = threading.Condition()
        self._stopping = threading.Event()
        self._deadline = float("inf")
        self._next_check = 0.0
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    def add(self, *children: Child) -> None:
        """Starts children, in this order; returns at once."""
        with self._guard:
            for child in children:
                if child.name in self._children:
                    raise ValueError(f"{child.name} is already there")
                self._children[child.name] = _Running(child)
        if not self._thread.is_alive() and not self._stopping.is_set():
            self._thread.start()

    def wait_ready(self, seconds: float) -> None:
        """Returns when all children are ready. Raises EmbeddedError when it gives up on one or the time is over."""
        deadline = time.monotonic() + seconds
        with self._guard:
            while not self.failure and (slow := [n for n, r in self._children.items() if r.phase != "ready"]):
                if time.monotonic() > deadline:
                    reasons = "; ".join(self._reason(self._children[name]) for name in slow)
                    raise EmbeddedError(f"not ready after {seconds:.0f} s: {reasons}")
                self._guard.wait(_PAUSE)
        self.check()

    def check(self) -> None:
        """Raises EmbeddedError with the reason if it gave up."""
        if self.failure:
            raise EmbeddedError(self.failure)

    def processes(self) -> dict[str, int]:
        """Process ids by name, of those that run."""
        with self._guard:
            running = ((name, r.process) for name, r in self._children.items())
            return {name: process.pid for name, process in running if process and process.poll() is None}

    def restarts(self) -> dict[str, int]:
        """How often each child was started again."""
        with self._guard:
            return {name: running.restarts for name, running in self._children.items()}

    def signal(self, name: str, number: int) -> None:
        """Sends a signal to a child, if it runs."""
        with self._guard:
            process = self._children[name].process
            if process and process.poll() is None:
                process.send_signal(number)

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Stops all children, last stage first, within the budget; what takes longer is killed. Interrupted: kills at once."""
        self._deadline = time.monotonic() + seconds
        self._stopping.set()
        if not self._thread.ident:
            return
        try:
            self._thread.join()
        except BaseException:
            self._deadline = 0.0
            self._thread.join(5)
            raise

    # Everything below runs in the supervisor's thread

    def _run(self) -> None:
        while not self._stopping.is_set() and not self.failure:
            try:
                self._step()
            except Exception as error:
                log.exception("supervisor")
                self.failure = f"the supervisor failed: {error}"
            self._stopping.wait(_PAUSE)
        if self.failure:
            log.error("giving up", reason=self.failure)
            self._deadline = time.monotonic() + STOP_SECONDS
        self._stop_all()

    def _step(self) -> None:
        now = time.monotonic()
        if now >= self._next_check:
            self._next_check = now + self._check_seconds
            self.failure = self.failure or next((reason for check in self._checks if (reason := check())), "")
        with self._guard:
            children = list(self._children.values())
        for running in children:
            if self.failure or self._stopping.is_set():
                return
            if running.process is None:
                if now >= running.not_before:
                    self._start(running)
            elif running.process.poll() is not None:
                self._died(running)
            elif running.phase == "starting":
                self._probe(running)

    def _start(self, running: _Running) -> None:
        child = running.child
        excuse = child.gate() if child.gate else None
        if excuse:
            if excuse != running.excuse:
                log.warning("waiting", process=child.name, reason=excuse)
            running.excuse, running.not_before = excuse, time.monotonic() + 0.5
            return
        running.excuse = None
        try:
            command = list(child.command())
            environment = dict(child.environment) if child.environment is not None else None
            if running.restarts:
                environment = {**(os.environ if environment is None else environment), RESTARTED: "1"}
            process = subprocess.Popen(
                leashed(command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                process_group=0,  # Ctrl-C in the terminal reaches us; the order of stopping is ours
                env=environment,
            )
        except (EmbeddedError, OSError) as error:
            self.failure = str(error)
            return
        assert process.stdout
        running.tail.clear()
        running.output = threading.Thread(target=self._pump, args=(child.name, process.stdout, running.tail), daemon=True)
        running.output.start()
        with self._guard:
            running.process, running.since = process, time.monotonic()
            running.phase = "starting" if child.ready else "ready"
            self._guard.notify_all()
        log.info("started", process=child.name, pid=process.pid)
        self._tell()

    def _probe(self, running: _Running) -> None:
        child = running.child
        assert child.ready
        assert running.process
        if child.ready():
            with self._guard:
                running.phase = "ready"
                self._guard.notify_all()
            log.info("ready", process=child.name, seconds=round(time.monotonic() - running.since, 2))
        elif time.monotonic() - running.since > child.start_seconds:
            log.error("does not get ready", process=child.name, seconds=child.start_seconds)
            running.process.kill()

    def _died(self, running: _Running) -> None:
        assert running.process
        child, status, now = running.child, running.process.returncode, time.monotonic()
        if running.output:
            running.output.join(5)  # its last words may still be on the way; a grandchild may keep its output open for ever
        with self._guard:
            running.process, running.phase = None, "waiting"
        running.restarts += 1
        excuse = child.gate() if child.gate else None
        if status == FOR_GOOD:
            self.failure = f"{child.name}: {_last_words(running.tail)}"
            return
        if excuse:
            running.not_before = now + self._patience.first
        else:
            running.deaths.append(now)
            while now - running.deaths[0] > self._patience.window:
                running.deaths.popleft()
            if len(running.deaths) >= self._patience.deaths:
                span = now - running.deaths[0]
                self.failure = (
                    f"{child.name} ended {len(running.deaths)} times in {span:.0f} s, last {_how(status)}: "
                    f"{_last_words(running.tail)} (all of it in {self._log_file(child.name)})"
                )
                return
            pause = min(self._patience.first * 2 ** (len(running.deaths) - 1), self._patience.longest)
            running.not_before = now + pause
        log.warning("ended, starting it again", process=child.name, how=_how(status), said=_last_words(running.tail))
        self._tell()

    def _stop_all(self) -> None:
        with self._guard:
            running = [r for r in self._children.values() if r.process and r.process.poll() is None]
        for stage in sorted({r.child.stage for r in running}, reverse=True):
            batch = [r for r in running if r.child.stage == stage]
            for r in batch:
                assert r.process
                r.process.send_signal(signal.SIGTERM)
                r.process.send_signal(signal.SIGCONT)  # a suspended one must hear it too
            limit = time.monotonic() + max(r.child.stop_seconds for r in batch)
            for r in batch:
                self._await_end(r, limit)
        for r in running:
            if r.output:
                r.output.join(1)

    def _await_end(self, running: _Running, limit: float) -> None:
        process = running.process
        assert process
        while process.poll() is None:
            if time.monotonic() > min(limit, self._deadline):
                log.warning("killed, it did not stop in time", process=running.child.name)
                process.kill()
                process.wait()
                return
            time.sleep(0.02)
        log.info("stopped", process=running.child.name)

    def _tell(self) -> None:
        if self._changed:
            self._changed(self.processes())

    def _reason(self, running: _Running) -> str:
        words = running.excuse or (_last_words(running.tail) if running.tail else "it said nothing yet")
        return f"{running.child.name}: {words}"

    def _log_file(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def _pump(self, name: str, source: IO[bytes], tail: deque[str]) -> None:
        """Copies a child's output line by line into its log file; runs in a thread of its own."""
        with source, LogFile(self._log_file(name)) as file:
            for line in source:
                file.write(line)
                tail.append(line.decode(errors="replace").rstrip())
                if self._echo:
                    sys.stderr.write(f"{name} | {tail[-1]}\n")


class LogFile:
    """A log file that turns over at a size and keeps a few old ones. A full disk costs lines, never the process that writes."""

    def __init__(self, path: Path, limit: int = _LOG_BYTES, keep: int = _LOG_FILES) -> None:
        self.path, self.limit, self.keep = path, limit, keep
        self._file: IO[bytes] | None = None
        self._size = 0

    def write(self, line: bytes) -> None:
        """Appends one line."""
        try:
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.path.open("ab", buffering=0)
                self._size = self._file.tell()
            if self._size and self._size + len(line) > self.limit:
                self._turn_over()
            self._size += self._file.write(line)
        except OSError:
            self.close()

    def close(self) -> None:
        """Closes the file; a later write opens it again."""
        if self._file:
            self._file.close()
        self._file = None

    def _turn_over(self) -> None:
        assert self._file
        self._file.close()
        for number in range(self.keep - 1, 0, -1):
            old = self.path.with_name(f"{self.path.name}.{number}")
            if old.exists():
                old.replace(self.path.with_name(f"{self.path.name}.{number + 1}"))
        self.path.replace(self.path.with_name(f"{self.path.name}.1"))
        self._file, self._size = self.path.open("ab", buffering=0), 0

    def __enter__(self) -> LogFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _how(status: int) -> str:
    if status >= 0:
        return f"with status {status}"
    try:
        return f"by {signal.Signals(-status).name}"
    except ValueError:
        return f"by signal {-status}"


def _last_words(tail: Sequence[str]) -> str:
    """The line that most likely says why: a message of the command line, an error in the logs, else simply the last one."""
    lines = [line for line in tail if line.strip()]
    for line in reversed(lines):
        if line.startswith("mdh: "):
            return line.removeprefix("mdh: ")
        if line.startswith("{"):
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if entry.get("level") in ("error", "critical"):
                cause = str(entry.get("exception", "")).strip().rpartition("\n")[2]
                return f"{entry.get('event', '')}: {cause}" if cause else str(entry.get("event", ""))
        elif " ERROR " in line or " FATAL " in line or _RAISED.match(line):
            return line
    return lines[-1].strip() if lines else "it said nothing"
