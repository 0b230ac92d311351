"""What the doors of all systems have in common: bodies of bounded size, and the list of what waits for a system."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool

from connectors.head_end import problems
from connectors.head_end.problems import ProblemError

if TYPE_CHECKING:
    from connectors.enterprise.part import Enterprise


async def body_of(part: Enterprise, request: Request) -> bytes:
    """The body of a message that is no bulk. Raises ProblemError 413."""
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > part.settings.item_bytes:
            raise ProblemError(413, "too-large", f"A message may have {part.settings.item_bytes} bytes: send several.")
        chunks.append(chunk)
    return b"".join(chunks)


def add_messages(router: APIRouter, part: Enterprise | None, standard: str, summary: str) -> None:
    """The route of messages for a system, ``standard`` unless it is named. Without a part it is only described."""

    @router.get("/messages", summary=summary, responses=problems.responses(422, 503))
    async def messages(
        system: Annotated[str, Query(max_length=255)] = standard,
        cursor: Annotated[str | None, Query(max_length=4000, description="`next` of the page before")] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> dict[str, Any]:
        assert part is not None
        return await run_in_threadpool(part.page, system, cursor, limit)
