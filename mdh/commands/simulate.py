"""``mdh simulate``: a seeded head end with known faults, to a hub, a broker or a folder."""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mdh.errors import UsageError

if TYPE_CHECKING:
    from mdh.simulation.head_end import HeadEnd, Payload

_IN_FLIGHT = 64
Send = Callable[["Payload"], None]


def main(
    meters: Annotated[int, typer.Option(help="How many meters.")] = 100,
    days: Annotated[int, typer.Option(help="How many local days.")] = 1,
    seconds: Annotated[int, typer.Option(help="Interval length: 300, 600, 900, 1800 or 3600.")] = 900,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 1,
    faults: Annotated[str, typer.Option(help="Rates, e.g. spike=0.001,gap=0.01 or all=0.01; docs/demo.md lists the faults.")] = "",
    start: Annotated[str, typer.Option(help="First local day.")] = "2025-03-28",
    zone: Annotated[str, typer.Option(help="IANA zone of the meters.")] = "Europe/Madrid",
    shape: Annotated[str, typer.Option(help="day: many meters × one day in a payload; interval: many meters × one interval.")] = "day",
    format: Annotated[str, typer.Option(help="json, csv or nem12.")] = "json",
    chunk: Annotated[int, typer.Option(help="Meters in one payload.")] = 500,
    registers: Annotated[bool, typer.Option(help="Send a register read for every midnight too.")] = False,
    source: Annotated[str, typer.Option(help="Name of the simulated head end.")] = "simulator",
    prefix: Annotated[str, typer.Option(help="First letters of the device names.")] = "S",
    out: Annotated[Path | None, typer.Option(help="Write payload files, master.ndjson and truth.ndjson here.")] = None,
    url: Annotated[str | None, typer.Option(help="Push to a running hub at this address.")] = None,
    broker: Annotated[str | None, typer.Option(help="Push to the raw topic of this broker.")] = None,
    truth: Annotated[Path | None, typer.Option(help="Where the injected faults are written (NDJSON).")] = None,
    master: Annotated[bool, typer.Option(help="Send master data of the known meters first (hub and folder only).")] = True,
    cis: Annotated[
        str | None,
        typer.Option(
            help="Play a CIS instead, a whole conversation with a running hub: sap, oracle or cim; sap-charges, oracle-charges: "
            "what a prepaid month came to."
        ),
    ] = None,
    customer: Annotated[bool, typer.Option("--customer", help="Play a prepaid customer: a balance used up, a payment.")] = False,
    devices: Annotated[bool, typer.Option("--devices", help="Play a head end that carries out device commands.")] = False,
    delay: Annotated[str, typer.Option(help="--devices: seconds a command takes, from-to.")] = "1-5",
    late_by: Annotated[float, typer.Option(help="--devices: seconds behind its end that a late answer comes.", min=0)] = 60.0,
    form: Annotated[str, typer.Option(help="--devices: plain, or cim for EndDeviceControls and their replies and events.")] = "plain",
    stop_after: Annotated[float | None, typer.Option("--for", help="--devices: seconds to run.", min=0)] = None,
) -> None:
    """Push realistic loads with known faults.

    Every injected fault is written down with what was true and what was sent. The last line is one JSON object with the counts.
    """
    if devices:
        from mdh.simulation.devices import run

        run(url, broker, seed=seed, faults=faults, delay=delay, late_by=late_by, form=form, stop_after=stop_after)
        return
    if cis is not None or customer:
        _converse("customer" if customer else str(cis), url, prefix)
        return
    from mdh.simulation.faults import parse_rates
    from mdh.simulation.head_end import HeadEnd, Settings
    from streams.calendar import day_starts

    if sum(target is not None for target in (out, url, broker)) != 1:
        raise UsageError("say where to: one of --out, --url and --broker")
    try:
        first = date.fromisoformat(start)
        day_starts(zone)
    except ValueError:
        raise UsageError(f"--start {start!r} is no date such as 2025-03-28") from None
    except Exception:  # zoneinfo raises whatever its files raise
        raise UsageError(f"--zone {zone!r} is no IANA time zone") from None
    settings = Settings(
        meters, days, seconds, seed, parse_rates(faults), zone, first, format, shape, chunk, registers, prefix, source
    )  # fmt: skip
    head_end = HeadEnd(settings)
    if out is not None:
        with _folder(out, head_end, master) as send:
            push(head_end, send)
    elif url is not None:
        with _hub(url, head_end, master) as send:
            push(head_end, send)
    else:
        with _broker(str(broker), source) as send:
            push(head_end, send)
    place = truth or (out / "truth.ndjson" if out is not None else None)
    if place is not None:
        place.write_text("".join(json.dumps(line) + "\n" for line in head_end.truth))
    print(json.dumps(summary(head_end)))


def push(head_end: HeadEnd, send: Send) -> None:
    """Sends everything, with a progress bar on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[reads]:,} reads"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task("sending", total=head_end.expected_payloads, reads=0)
        for payload in head_end.payloads():
            send(payload)
            total = max(head_end.expected_payloads, head_end.totals.payloads)
            progress.update(bar, advance=1, total=total, reads=head_end.totals.reads)


def summary(head_end: HeadEnd) -> dict[str, object]:
    """The counts of a finished run."""
    from schemas.quantity import text_of

    totals = head_end.totals
    return {
        "meters": head_end.settings.meters,
        "payloads": totals.payloads,
        "bytes": totals.bytes,
        "reads": totals.reads,
        "total_kwh": text_of(totals.true_wh * 1000),
        "faults": totals.faults,
        "seed": head_end.settings.seed,
    }


def _converse(cis: str, url: str | None, prefix: str) -> None:
    """Plays a conversation from a new meter to the bill, line by line on stderr; the last line on stdout is what came of it."""
    import time

    import httpx

    from connectors.enterprise.simulator import ccb, sap
    from connectors.enterprise.simulator.cim import Cim, meter_to_reading
    from connectors.enterprise.simulator.customer import to_zero_and_back
    from connectors.enterprise.simulator.hub import Hub, SimulationError
    from mdh.running import credentials, hub_url

    stories: dict[str, Callable[[Hub, str], dict[str, object]]] = {
        "sap": lambda hub, meter: sap.meter_to_cash(sap.Sap(hub), meter),
        "sap-charges": lambda hub, meter: sap.month_to_charge(sap.Sap(hub), meter),
        "oracle": lambda hub, meter: ccb.sync_to_bill(ccb.Ccb(hub), meter),
        "oracle-charges": lambda hub, meter: ccb.month_to_charge(ccb.Ccb(hub), meter),
        "customer": to_zero_and_back,
        "cim": lambda hub, meter: meter_to_reading(Cim(hub), meter),
    }
    if cis not in stories:
        raise UsageError(f"--cis must be one of {', '.join(s for s in stories if s != 'customer')}, not {cis!r}")
    meter = f"{prefix}{time.time_ns() // 1_000_000 % 10_000_000_000:010d}"
    with httpx.Client(base_url=hub_url(url), timeout=60, trust_env=False, headers=credentials()) as client:
        hub = Hub(client, patience=180, say=lambda line: print(line, file=sys.stderr, flush=True))
        try:
            story = stories[cis](hub, meter)
        except SimulationError as error:
            raise UsageError(str(error)) from None
        except httpx.HTTPError as error:
            raise UsageError(f"{hub_url(url)}: {error}") from None
    told = {name: len(value) if isinstance(value, list) and len(value) > 10 else value for name, value in story.items()}
    print(json.dumps(told), flush=True)


@contextmanager
def _folder(out: Path, head_end: HeadEnd, master: bool) -> Iterator[Send]:
    out.mkdir(parents=True, exist_ok=True)
    if master:
        (out / "master.ndjson").write_text("".join(json.dumps(line) + "\n" for line in head_end.master()))

    def send(payload: Payload) -> None:
        (out / payload.name).write_bytes(payload.data)

    yield send


@contextmanager
def _hub(url: str, head_end: HeadEnd, master: bool) -> Iterator[Send]:
    from mdh.simulation.hub import HubAt

    with HubAt(url) as hub:
        if master:
            hub.master(head_end.master())

        def send(payload: Payload) -> None:
            hub.reads(payload.data, source=head_end.settings.source, name=payload.name, key=payload.id)

        yield send


@contextmanager
def _broker(broker: str, source: str) -> Iterator[Send]:
    from connectors.head_end.publish import MEGABYTE, Publisher, PublishError, Writer
    from connectors.kafka.client import KafkaSettings

    writer = Writer(KafkaSettings(bootstrap=broker), max_bytes=32 * MEGABYTE)
    publisher = Publisher(writer, "hes.reads", max_payload_bytes=32 * MEGABYTE)

    waiting: deque[Future[tuple[int, int]]] = deque()

    def send(payload: Payload) -> None:
        while len(waiting) >= _IN_FLIGHT:
            waiting.popleft().result(30)
        _, future = publisher.submit(payload.data, source=source, name=payload.name, payload_id=payload.id)
        if future is not None:
            waiting.append(future)

    try:
        yield send
        for future in waiting:
            future.result(30)
    except PublishError as error:
        raise UsageError(f"{broker}: {error}") from None
    finally:
        writer.close()
