"""``mdh send``: files to a running hub, and what became of them."""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from mdh.errors import UsageError
from mdh.running import HubClient, hub_url, printable

ASKED_AT_ONCE = 5_000
HISTORY_WAIT = 60  # seconds: a tick that asked for history so long before has been answered and billed by now
FIGURES = ("payloads", "reads", "finals", "exceptions", "parked", "dead")


def main(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Meter files in any format the hub knows; zip and gzip too.")],
    format: Annotated[str | None, typer.Option(help="Their format; left out: recognised.")] = None,
    zone: Annotated[str | None, typer.Option(help="IANA zone of local times in formats without one.")] = None,
    source: Annotated[str, typer.Option(help="Who sends. Payloads of one source are taken in order.")] = "files",
    url: Annotated[str | None, typer.Option(help="The gateway of the hub; default: MDH_URL, else the hub of .mdh, else port 8080.")] = None,
    events: Annotated[bool, typer.Option("--events", help="The files hold device events: JSON, CIM or Oracle XML.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Return when everything is decided and stored; last line JSON counts.")] = False,
    patience: Annotated[float, typer.Option(help="With --wait: give up after so many seconds without any progress.")] = 300.0,
) -> None:
    """Send meter files to a running hub; prints the id of each payload.

    Large CSV, NEM12 and NEM13 files go in parts, each a payload of its own. A payload that nobody can decode is a decision as
    well: it is named on stderr, kept as a dead letter (`mdh dlq`), and is no failure of this command.
    """
    begun = time.monotonic()
    if events and (format or zone):
        raise UsageError("--events takes neither --format nor --zone: events are recognised, and times are in the zone of topology.yaml")
    contents = [(path, _read(path)) for path in files]
    with HubClient(hub_url(url)) as hub:
        shipment = Shipment(hub, source=source, format=format, zone=zone, events=events)
        with bar("sending", sum(len(data) for _, data in contents), in_bytes=True) as advance:
            for path, data in contents:
                for sent in shipment.send(data, path.name):
                    advance(sent)
        for payload, name in shipment.sent:
            print(f"{payload}  {name}", flush=True)
        if not wait:
            return
        with bar("deciding", len(shipment.sent)) as advance:
            counts = shipment.settle(patience, advance)
    names = shipment.names
    for id, reason, whole in shipment.dead:
        what = "dead letter" if whole else "partly refused"
        print(printable(f"mdh: {names.get(id, id)}: {what}: {reason}"), file=sys.stderr)
    print(json.dumps({**{name: counts.get(name, 0) for name in FIGURES}, "seconds": round(time.monotonic() - begun, 3)}))


def _read(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    if not data.strip():
        raise UsageError(f"{path}: the file is empty")
    return data


@dataclass
class Shipment:
    """Payloads sent to a hub in one go. ``sent`` holds (id, name) in order, ``dead`` (id, reason, whole payload?)."""

    hub: HubClient
    source: str = "files"
    format: str | None = None
    zone: str | None = None
    events: bool = False
    sent: list[tuple[str, str]] = field(default_factory=list)
    dead: list[tuple[str, str, bool]] = field(default_factory=list)
    run: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def names(self) -> dict[str, str]:
        """Payload id → name."""
        return dict(self.sent)

    def send(self, data: bytes, name: str) -> Iterator[int]:
        """Sends a file, in parts where it is large; yields the bytes of each part once Kafka has it. Raises UsageError."""
        from connectors.head_end.parts import PartsError, parts

        options = {"source": self.source, "format": self.format, "zone": self.zone}
        chosen = {key: value for key, value in options.items() if value is not None}
        door, pieces = ("/v1/events", iter([(name, data)])) if self.events else ("/v1/reads", parts(data, name))
        try:
            for label, piece in pieces:
                # The key makes it safe to try again: the hub takes it once, however often an answer gets lost
                headers = {"Idempotency-Key": f"{self.run}/{len(self.sent)}", "Content-Type": "application/octet-stream"}
                answer = self.hub.call("POST", door, params={**chosen, "name": label}, content=piece, headers=headers)
                self.sent.append((answer.json()["id"], label))
                yield len(piece)
        except PartsError as error:
            raise UsageError(str(error)) from error
        except UsageError as error:
            raise UsageError(str(error) if str(error).startswith("no hub") else f"{name}: {error}") from error

    def settle(self, patience: float = 300.0, advance: Callable[[int], None] = lambda _: None) -> dict[str, int]:
        """Waits until all is decided, every closing included, and in the store; the sums. Raises UsageError.

        First all payloads are awaited, then a tick that came so long after the last of them that nothing is left open
        because of it.
        """
        open_ids = [id for id, _ in self.sent]
        counts: dict[str, int] = {}
        moved, done_at, quiet = time.monotonic(), 0, 0
        while open_ids:
            asked = open_ids[:ASKED_AT_ONCE]
            answer = self._ask(asked, wait=5)
            if answer["complete"]:
                moved = time.monotonic()
                advance(answer["complete"])
                for figure, number in answer["counts"].items():
                    counts[figure] = counts.get(figure, 0) + number
                self.dead += [(it["id"], it["reason"], it["whole"]) for it in answer["dead"]]
            done_at, quiet = answer["now"], answer["quiet_seconds"]
            waiting = set(answer["waiting_ids"])
            open_ids = [id for id in asked if id in waiting] + open_ids[ASKED_AT_ONCE:]
            if time.monotonic() - moved > patience:
                raise UsageError(f"{len(open_ids)} payloads are still undecided; {self._why()}")
        self._await_tick(done_at + quiet + 1, patience)
        return counts

    def _await_tick(self, at: int, patience: float) -> None:
        """Waits for a settled tick of time ``at`` or later; where days it closed wait for the store's history, for one after that."""
        begun, wanted = time.monotonic(), at
        while True:
            answer = self._ask([], wait=0)
            tick, history = answer["settled_tick"], answer["history_tick"]
            if tick is not None and tick >= wanted and not answer["history_under_way"]:
                if wanted > at or history is None or history < at - answer["quiet_seconds"] - HISTORY_WAIT:
                    return
                wanted = answer["now"] + 1
            if time.monotonic() - begun > patience:
                raise UsageError(f"no tick has come through the chain for {patience:.0f} s; {self._why()}")
            time.sleep(0.2)

    def _ask(self, ids: Sequence[str], wait: float) -> dict[str, Any]:
        answer: dict[str, Any] = self.hub.call("POST", "/v1/settle", json={"ids": list(ids), "wait": wait}).json()
        return answer

    def _why(self) -> str:
        health = self.hub.call("GET", "/health/ready", accept=frozenset({503})).json()
        return "; ".join(health.get("reasons", ())) or "the hub is ready: `mdh doctor` may tell more"


@contextmanager
def bar(what: str, total: int, *, in_bytes: bool = False) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr where that is a terminal; yields the function that advances it."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    amount = DownloadColumn() if in_bytes else MofNCompleteColumn()
    columns = (TextColumn("{task.description:>8}"), BarColumn(), amount, TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(what, total=total)
        yield lambda amount: progress.advance(task, amount)
