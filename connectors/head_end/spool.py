"""Large bodies on disk: read while they fit, held in memory only as long as they are small."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Final

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from connectors.head_end.problems import ProblemError

MEMORY: Final = 4 * 1024 * 1024  # of a body; the rest of it goes to disk


@asynccontextmanager
async def spooled(request: Request, limit: int, folder: Path | None = None) -> AsyncIterator[IO[bytes]]:
    """The body as a file at its beginning. Raises Problem 413 as soon as it is known to have more than ``limit`` bytes."""
    too_large = ProblemError(413, "too-large", f"A body may have {limit} bytes.", limit=limit)
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared) > limit:
        raise too_large
    with tempfile.SpooledTemporaryFile(MEMORY, dir=None if folder is None else str(folder)) as spool:
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise too_large
            if size > MEMORY:
                await run_in_threadpool(spool.write, chunk)
            else:
                spool.write(chunk)
        spool.seek(0)
        yield spool
