"""Runs a command that dies with its parent: ``python leash.py PARENT_PID COMMAND…``.

A supervisor that is killed outright must leave nothing behind, and only the kernel can see to that. The request survives exec,
so it is made here, in the child, rather than between fork and exec of a parent that has threads.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def leashed(command: list[str]) -> list[str]:
    """The command line that runs ``command`` on a leash of the calling process."""
    return [sys.executable, "-I", "-S", str(Path(__file__)), str(os.getpid()), *command]


def main() -> None:
    """Sets the parent-death signal and becomes the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)  # it died before the kernel knew
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
