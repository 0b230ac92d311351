"""``mdh deliver``: delivery to subscribers in a process of its own. Start several to share the partitions of each subscriber."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from mdh.errors import UsageError

STOP_SECONDS = 60.0  # ends within these, in good order or not


def main(
    broker: Annotated[str | None, typer.Option(help="Kafka bootstrap servers, host:port[,…].")] = None,
    topology: Annotated[Path | None, typer.Option(envvar="MDH_TOPOLOGY", help="topology.yaml; default: the one here, else ours.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Holds the outbox of file subscribers; default .mdh.")] = None,
    metrics_port: Annotated[int | None, typer.Option(help="Serve metrics at this port.")] = None,
) -> None:
    """Deliver to subscribers until interrupted. Set delivery.within_hub to false where only such processes shall deliver."""
    import structlog

    from connectors.head_end.publish import Writer
    from mdh.contracts import codec_of
    from mdh.delivering import delivery_service
    from mdh.logs import configure
    from mdh.settings import load_settings
    from mdh.telemetry import announce
    from schemas.topology import TopologyError, load_topology
    from streams.runtime.ending import end_after

    settings = load_settings(broker=broker, metrics_port=metrics_port, data_dir=data_dir)
    configure(settings.log_level, process="deliver")
    announce("deliver", settings.metrics_port)
    try:
        system = load_topology(topology)
    except TopologyError as error:
        raise UsageError(str(error)) from None
    kafka, stop = settings.kafka.at(settings.broker), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    writer = Writer(kafka, max_bytes=max(topic.largest for topic in system.topics.values()))
    service = delivery_service(system, kafka, codec_of(settings, system), writer, settings.data_dir.absolute(), apart=True)
    failed: list[str] = []

    def guarded(name: str, work: object) -> None:
        try:
            work(stop)  # type: ignore[operator]
        except BaseException as error:  # whatever ends a thread must end the process, not pass in silence
            structlog.get_logger(__name__).error("delivery failed", part=name, exc_info=error)
            failed.append(name)
        stop.set()

    threads = [threading.Thread(target=guarded, args=(name, work), name=name, daemon=True) for name, work in service.loops().items()]
    for thread in threads:
        thread.start()
    structlog.get_logger(__name__).info("delivery runs", broker=kafka.bootstrap)
    end_after(stop, STOP_SECONDS, lambda: 1 if failed else 0)
    while not stop.wait(1.0):
        pass
    for thread in threads:
        thread.join(15)
    service.close()
    writer.close(5)
    if failed:
        raise typer.Exit(1)
