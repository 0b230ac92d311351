"""``mdh master``: master data to and from a running hub."""

from __future__ import annotations

import json as notation
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from mdh.errors import UsageError
from mdh.running import HubClient, hub_url, printable

LINES_AT_ONCE = 20_000
PIECE = 1024 * 1024  # of an extract on its way
SHOWN = 50

Url = Annotated[str | None, typer.Option(help="The gateway of the hub; default: MDH_URL, else the hub of .mdh, else port 8080.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
At = Annotated[datetime | None, typer.Option(help="From when changes without a date hold (UTC); default: now.")]
Extract = Annotated[Path, typer.Argument(metavar="FILE", help="NDJSON, a full extract of the CIS: one object per line (docs/master.md).")]


class LoadByDefault(TyperGroup):
    """``mdh master FILE`` is ``mdh master load FILE``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "-h", "--help"):
            args = ["load", *args]
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed


app = typer.Typer(cls=LoadByDefault, help="Load, compare, show and export master data.", no_args_is_help=True, add_completion=False)


@app.command()
def load(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="NDJSON: objects with a kind, or channels (docs/master.md).")],
    url: Url = None,
    wait: Annotated[bool, typer.Option("--wait", help="Return when the hub has taken all of it into account.")] = False,
    patience: Annotated[float, typer.Option(help="With --wait: give up after so many seconds without any progress.")] = 300.0,
    apply: Annotated[
        bool, typer.Option("--apply", help="The file is a full extract: make the hub as it says, ends included (see diff).")
    ] = False,
    at: At = None,
) -> None:
    """Send master data to a running hub. From then on, reads of unknown devices are parked until master data names them.

    The last line is JSON with what was accepted and refused. Refused lines are named on stderr; the others are taken all the
    same, and the exit status is 2.
    """
    if apply:
        _apply(files, url, at)
        return
    from mdh.commands.send import Shipment

    begun, counts = time.monotonic(), {"accepted": 0, "refused": 0}
    open_ = {"parked": 0, "undecided": 0}
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
                for name in counts:
                    counts[name] += answer[name]
                shipment.sent += [(id, path.name) for id in answer.get("ids", ())]
                outcomes = [item["outcome"] for item in answer.get("items", ())]
                open_["parked"] += outcomes.count("parked")
                open_["undecided"] += outcomes.count("accepted")
                for error in answer["errors"]:
                    print(f"mdh: {path}:{start + error['line']}: {printable(error['message'])}", file=sys.stderr)
        if wait and shipment.sent:
            shipment.settle(patience)
    told = {**counts, **{name: count for name, count in open_.items() if count}, "seconds": round(time.monotonic() - begun, 3)}
    print(notation.dumps(told), flush=True)
    if counts["refused"]:
        raise UsageError(f"{counts['refused']} of {sum(counts.values())} lines were refused")


@app.command()
def diff(file: Extract, url: Url = None, json: Json = False, at: At = None) -> None:
    """Show what a CIS's full extract would add, change and end, without doing it.

    An extract is full for each kind it holds: what it does not name of these would end. `mdh master load --apply FILE` does it.
    """
    summary: dict[str, Any] = {}
    with HubClient(hub_url(url)) as hub:
        for one in _compared(hub, [file], at, apply=False):
            if "change" not in one:
                summary = one
            if json:
                print(notation.dumps(one))
            elif "change" in one:
                _print_difference(one)
    for error in summary["errors"]:
        print(f"mdh: {file}:{error['line']}: {printable(error['message'])}", file=sys.stderr)
    if not json:
        print(", ".join(f"{summary[name]} {name}" for name in ("added", "changed", "ended", "unchanged")))
    if summary["errors"]:
        raise UsageError(f"{len(summary['errors'])} lines are not valid")


def _print_difference(one: dict[str, Any]) -> None:
    mark = {"added": "+", "changed": "~", "ended": "-"}[one["change"]]
    print(printable(f"{mark} {one['kind']} {one['id']}"))
    for field in one["fields"][:SHOWN]:
        span = f" from {field['from'] or 'ever'}" + (f" to {field['to']}" if field["to"] else "")
        print(printable(f"    {field['name']}: {_word(field['here'])} → {_word(field['there'])}{span}"))


def _word(value: Any) -> str:
    return "nothing" if value is None else value if isinstance(value, str) else notation.dumps(value, ensure_ascii=False)


@app.command()
def show(
    kind: Annotated[str, typer.Argument(help="person, account, service_point, device, configuration, component, install, subscription …")],
    id: Annotated[str | None, typer.Argument(help="Left out: all of the kind.")] = None,
    url: Url = None,
    as_of: Annotated[datetime | None, typer.Option("--as-of", help="What held then (UTC).")] = None,
    history: Annotated[bool, typer.Option("--history", help="Also all versions of the object.")] = False,
    json: Json = False,
) -> None:
    """Show an object as of a date, or the objects of a kind."""
    from urllib.parse import quote

    when = {"as_of": as_of.isoformat()} if as_of else {}
    with HubClient(hub_url(url)) as hub:
        if id is not None:
            path = f"/v1/master/{quote(kind)}/{quote(id)}"
            found = hub.call("GET", path, params={**when, "history": history}).json()
            print(notation.dumps(found, indent=None if json else 2, ensure_ascii=False))
            return
        cursor: dict[str, str] = {}
        while True:
            page = hub.call("GET", f"/v1/master/{quote(kind)}", params={**when, "limit": 1000, **cursor}).json()
            for row in page["items"]:
                print(notation.dumps(row, ensure_ascii=False) if json else _row(row))
            if page["next"] is None:
                return
            cursor = {"cursor": page["next"]}


def _row(row: dict[str, Any]) -> str:
    span = f"{row['valid_from'] or '':20} {row['valid_to'] or '':20}"
    return printable(f"{row['id']:30} {span} {notation.dumps(row['attributes'], ensure_ascii=False)}")


@app.command()
def export(
    kinds: Annotated[list[str] | None, typer.Argument(metavar="[KIND...]", help="Only these kinds; default: all.")] = None,
    url: Url = None,
    personal: Annotated[bool, typer.Option("--personal", help="With persons and their data.")] = False,
) -> None:
    """Print all objects as NDJSON that can be loaded again."""
    with HubClient(hub_url(url)) as hub:
        answer = hub.call("GET", "/v1/master/export", params={"kind": kinds or [], "personal": personal})
        sys.stdout.write(answer.text)


def _apply(files: list[Path], url: str | None, at: datetime | None) -> None:
    begun = time.monotonic()
    summary: dict[str, Any] = {}
    with HubClient(hub_url(url)) as hub:
        for one in _compared(hub, files, at, apply=True):
            summary = one  # the last line
    told = {name: summary[name] for name in ("added", "changed", "ended", "unchanged", "outcomes")}
    for one in summary["refused"]:
        print(f"mdh: {printable(one['kind'])} {printable(one['id'])}: {one['outcome']}: {printable(one['reason'])}", file=sys.stderr)
    print(notation.dumps({**told, "seconds": round(time.monotonic() - begun, 3)}), flush=True)
    refused = summary["outcomes"].get("refused", 0)
    if refused:
        raise UsageError(f"{refused} changes were refused")


def _compared(hub: HubClient, files: list[Path], at: datetime | None, *, apply: bool) -> Iterator[dict[str, Any]]:
    """The lines of the answer, as they come; the last one has the counts."""
    for path in files:
        _check(path)
    params = {"apply": apply, **({"at": f"{at.isoformat()}+00:00"} if at else {}), "wait": 60}
    headers = {"Content-Type": "application/x-ndjson"}
    for line in hub.lines("POST", "/v1/master/diff", lambda: _pieces(files), headers=headers, params=params):
        yield notation.loads(line)


def _pieces(files: list[Path]) -> Iterator[bytes]:
    """Files one behind the other."""
    for path in files:
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                yield piece
        yield b"\n"


def _check(path: Path) -> None:
    try:
        with path.open("rb") as file:
            blank = not any(piece.strip() for piece in iter(lambda: file.read(PIECE), b""))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    if blank:
        raise UsageError(f"{path}: the file is empty")


def _content(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    if not data.strip():
        raise UsageError(f"{path}: the file is empty")
    return data


def _lines(path: Path) -> list[bytes]:
    return _content(path).split(b"\n")
