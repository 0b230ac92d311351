"""``mdh sql``: a question to the running hub's store."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from mdh.errors import UsageError
from mdh.running import credentials, hub_url, reason_of

TIMEOUT = 120.0  # the hub ends queries long before


def main(
    query: Annotated[str, typer.Argument(help="One statement that reads: SELECT, WITH, SHOW, DESCRIBE or EXPLAIN; - reads it from stdin.")],
    url: Annotated[str | None, typer.Option(help="The gateway of the hub; default: MDH_URL, else the hub of the data directory.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Data directory of the hub; default .mdh.")] = None,
) -> None:
    """Ask the store of a running hub; one JSON object per row.

    The views intervals, registers, exceptions, determinants and payloads are described in docs/tables.md. Integers come as numbers,
    decimals as strings, times as ISO in UTC.
    """
    import httpx

    statement = sys.stdin.read() if query == "-" else query
    if not statement.strip():
        raise UsageError("the query is empty")
    address = f"{(url := hub_url(url, data_dir))}/v1/sql"
    try:
        with httpx.stream("POST", address, json={"sql": statement}, timeout=TIMEOUT, headers=credentials()) as answer:
            if answer.status_code != 200:
                answer.read()
                raise UsageError(reason_of(answer))
            for piece in answer.iter_bytes():
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
    except httpx.InvalidURL as error:
        raise UsageError(f"--url {url}: {error}") from error
    except httpx.UnsupportedProtocol as error:
        raise UsageError(f"--url {url}: write http://host:port or https://host:port") from error
    except httpx.ConnectError as error:
        raise UsageError(f"no hub answers at {url}: start one with `mdh up`, or name another with --url") from error
    except httpx.TransportError as error:
        raise UsageError(f"the hub at {url} broke off: {error or type(error).__name__}") from error
