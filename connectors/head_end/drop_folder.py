"""The drop folder: files that appear complete are published, then moved aside with what became of them.

A file may be dropped in the folder itself or in a folder below it, whose name is then its source. Written files are taken
when their size and time have stood still, files moved in at once; ``*.part``, ``*.tmp`` and hidden files are left alone.
The payload id comes from source, name and content, so a file published just before a crash is the same payload afterwards.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import structlog

from connectors.head_end.parts import PART_BYTES, parts
from connectors.head_end.publish import Publisher, PublishError, UnavailableError, file_id
from schemas import metrics

DONE: Final = "done"
FAILED: Final = "failed"
UNFINISHED: Final = (".part", ".tmp", ".filepart", ".crdownload")
MAX_FILE_BYTES: Final = 1024 * 1024 * 1024
log = structlog.get_logger(__name__)


class DropFolder:
    """Watches one folder. ``every`` seconds between looks; a file is complete when two looks see the same of it."""

    def __init__(
        self,
        folder: Path,
        publisher: Publisher,
        *,
        source: str = "drop",
        every: float = 0.5,
        part_bytes: int = PART_BYTES,
    ) -> None:
        self.folder, self.publisher, self.source, self.every = folder, publisher, source, every
        self.part_bytes = min(part_bytes, publisher.max_payload_bytes)
        self._seen: dict[Path, tuple[int, int, int]] = {}
        for made in (folder, folder / DONE, folder / FAILED):
            made.mkdir(parents=True, exist_ok=True)

    def run(self, stop: threading.Event) -> None:
        """Watches until ``stop`` is set."""
        pause = self.every
        while not stop.wait(pause):
            try:
                self.look()
                pause = self.every
            except UnavailableError as error:
                pause = min(max(pause * 2, 1.0), 15.0)
                log.warning("files wait in the drop folder", reason=str(error), again_in=pause)
            except OSError as error:
                pause = 5.0
                log.error("the drop folder cannot be read", folder=str(self.folder), reason=str(error))

    def look(self) -> list[str]:
        """Takes the files that have stood still since the last look; their payload ids. Raises UnavailableError, OSError."""
        found: dict[Path, tuple[int, int, int]] = {}
        ids: list[str] = []
        for path in self._files():
            with contextlib.suppress(FileNotFoundError):
                status = path.lstat()
                found[path] = (status.st_size, status.st_mtime_ns, status.st_ino)
        for path, state in found.items():
            if self._seen.get(path) == state:
                ids += self._take(path)
        self._seen = {path: state for path, state in found.items() if path.exists()}
        return ids

    def _files(self) -> Iterator[Path]:
        for entry in sorted(self.folder.iterdir()):
            if entry.name.startswith(".") or entry.suffix.lower() in UNFINISHED or entry.name in (DONE, FAILED):
                continue
            if entry.is_dir() and not entry.is_symlink():
                inside = sorted(entry.iterdir())
                yield from (f for f in inside if not f.name.startswith(".") and f.suffix.lower() not in UNFINISHED)
            else:
                yield entry

    def _take(self, path: Path) -> list[str]:
        source = self.source if path.parent == self.folder else path.parent.name
        try:
            data = read_regular(path)
            ids = []
            for name, piece in parts(data, path.name, self.part_bytes):
                identity = file_id(source, name, piece)
                ids.append(self.publisher.publish(piece, source=source, name=name, payload_id=identity))
        except UnavailableError:
            raise
        except (PublishError, ValueError, OSError) as error:
            reason = error.strerror or str(error) if isinstance(error, OSError) else str(error)
            self._move(path, FAILED, source, reason)
            metrics.FILES.labels("refused").inc()
            return []
        self._move(path, DONE, source)
        metrics.FILES.labels("taken").inc()
        log.info("file taken from the drop folder", file=path.name, source=source, payload=ids[0], parts=len(ids))
        return ids

    def _move(self, path: Path, where: str, source: str, reason: str = "") -> None:
        target = self.folder / where / (path.name if source == self.source else f"{source}--{path.name}")
        if target.exists() or target.is_symlink():
            target = target.with_name(f"{target.name}.{time.time_ns()}")
        if reason:
            target.with_name(f"{target.name}.reason.txt").write_text(f"{reason}\n")
            log.warning("file in the drop folder refused", file=path.name, source=source, reason=reason)
        path.replace(target)


def read_regular(path: Path) -> bytes:
    """The bytes of a regular file; links and devices are refused, so that nobody reads the hub's own files through a drop."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(handle, "rb") as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("not a regular file")
        if status.st_size > MAX_FILE_BYTES:
            raise ValueError(f"{status.st_size} bytes are more than the {MAX_FILE_BYTES} a dropped file may have")
        return stream.read()
