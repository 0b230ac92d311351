"""Processes of the chain that start at once: forked from one that has loaded the code and runs nothing.

A torment starts dozens of workers, and reading the libraries anew takes each of them longer than all it does afterwards. What runs is
the command itself, in a process of its own: it is killed, stopped and suspended as any other.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import runpy
import signal
import sys
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from connectors.embedded.leash import PR_SET_PDEATHSIG

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.torment.loaded"])


class Process:
    """A running command, handled like one of `subprocess`."""

    def __init__(self, process: ForkServerProcess) -> None:
        self._process = process

    def poll(self) -> int | None:
        """How it ended; None while it runs."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """A signal, if it still runs."""
        if self.poll() is None and self._process.pid:
            os.kill(self._process.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, seconds: float | None = None) -> int:
        """How it ended. Raises TimeoutError where it still runs after so many seconds."""
        self._process.join(seconds)
        status = self.poll()
        if status is None:
            raise TimeoutError(f"process {self._process.pid} still runs after {seconds} s")
        return status


def start(module: str, arguments: list[str], log: Path) -> Process:
    """Runs ``python -m module arguments…``, its output added to a file. It dies with the test process."""
    process = _context.Process(target=_run, args=(module, arguments, str(log)), daemon=True)
    process.start()
    return Process(process)


def _run(module: str, arguments: list[str], log: str) -> None:
    if sys.platform == "linux":  # the server that forked us ends with the test process, however that ends
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ["MDH_LOG_LEVEL"] = "info"
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
