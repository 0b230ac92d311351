"""``mdh master``: master data to a running hub."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from mdh.errors import UsageError
from mdh.running import HubClient, hub_url

LINES_AT_ONCE = 20_000


def main(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="NDJSON, one object per channel (docs/formats.md).")],
    url: Annotated[str | None, typer.Option(help="The gateway of the hub; default: MDH_URL, else the hub of .mdh, else port 8080.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Return when the hub has taken all of it into account.")] = False,
    patience: Annotated[float, typer.Option(help="With --wait: give up after so many seconds without any progress.")] = 300.0,
) -> None:
    """Send master data to a running hub. From then on, reads of unknown devices are parked until master data names them.

    The last line is JSON with what was accepted and refused. Refused lines are named on stderr; the others are taken all the
    same, and the exit status is 2.
    """
    from mdh.commands.send import Shipment

    begun, accepted, refused = time.monotonic(), 0, 0
    documents = [(path, _lines(path)) for path in files]
    with HubClient(hub_url(url)) as hub:
        shipment = Shipment(hub)
        for path, lines in documents:
            for start in range(0, len(lines), LINES_AT_ONCE):
                body = b"\n".join(lines[start : start + LINES_AT_ONCE])
                if not body.strip():
                    continue
                headers = {"Content-Type": "application/x-ndjson"}
                answer = hub.call("POST", "/v1/master", content=body, headers=headers, accept=frozenset({422})).json()
                if "accepted" not in answer:
                    raise UsageError(f"{path}: {answer.get('detail')}")
                accepted += answer["accepted"]
                refused += answer["refused"]
                shipment.sent += [(id, path.name) for id in answer.get("ids", ())]
                for error in answer["errors"]:
                    print(f"mdh: {path}:{start + error['line']}: {error['message']}", file=sys.stderr)
        if wait and shipment.sent:
            shipment.settle(patience)
    print(json.dumps({"accepted": accepted, "refused": refused, "seconds": round(time.monotonic() - begun, 3)}), flush=True)
    if refused:
        raise UsageError(f"{refused} of {accepted + refused} lines were refused")


def _lines(path: Path) -> list[bytes]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    if not data.strip():
        raise UsageError(f"{path}: the file is empty")
    return data.split(b"\n")
