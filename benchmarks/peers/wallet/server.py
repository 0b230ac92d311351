"""A PostgreSQL server for the time of a measurement, in a folder of its own, at a socket only."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

INSTALLED = "/usr/lib/postgresql"  # Debian's place; elsewhere the programs are on the path


def programs() -> Path | None:
    """The folder of ``initdb`` and ``pg_ctl`` of the newest server here; None: there is none."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    versions = sorted(Path(INSTALLED).glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]) if path.parts[-3].isdigit() else 0)
    return versions[-1].parent if versions else None


@contextmanager
def server(folder: Path, bin: Path) -> Iterator[str]:
    """A fresh server with its own defaults (it waits for the disk at every commit); yields a connection string."""
    user = "postgres" if os.geteuid() == 0 else None  # the server refuses to run as root
    folder.mkdir()
    if user:
        shutil.chown(folder, user)
        for parent in (folder, *folder.parents):
            if not os.access(parent, os.X_OK) or not parent.stat().st_mode & 0o001:
                parent.chmod(parent.stat().st_mode | 0o011)
    data, log = folder / "data", folder / "log"

    def run(*command: str | Path) -> None:
        subprocess.run(command, check=True, user=user, stdout=subprocess.DEVNULL, cwd=folder)

    run(bin / "initdb", "-D", data, "-U", "wallet", "-A", "trust", "-E", "UTF8", "--locale", "C")
    run(bin / "pg_ctl", "-D", data, "-l", log, "-w", "-o", f"-k {folder} -c listen_addresses=''", "start")
    try:
        yield f"host={folder} user=wallet dbname=postgres"
    finally:
        run(bin / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
