"""``mdh worker``: runs agents against a broker until interrupted. Exits 1 when something must be started again."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Annotated

import typer

from mdh.errors import UsageError


def main(
    broker: Annotated[str | None, typer.Option(help="Kafka bootstrap servers, host:port[,…].")] = None,
    topology: Annotated[Path | None, typer.Option(envvar="MDH_TOPOLOGY", help="topology.yaml; default: the one here, else ours.")] = None,
    agents: Annotated[str, typer.Option(help="Agents to run, joined by commas. Workers that share an agent must run the same set.")] = "",
    index: Annotated[int, typer.Option(help="Number of this worker, for logs.")] = 0,
    data_dir: Annotated[Path, typer.Option(help="Where logs and local files go.")] = Path(".mdh"),
    metrics_port: Annotated[int | None, typer.Option(help="Serve metrics at this port.")] = None,
    torment: Annotated[float, typer.Option(hidden=True, help="Rate of injected failures, for tests.")] = 0.0,
) -> None:
    """Run agents: the chain of the topology, or those named (an agent that runs apart must be named).

    Each takes its share of the partitions: start more to share the load. State lives in Kafka, so a worker may be killed at any time.
    """
    from mdh.agents import plans_and_folds
    from mdh.contracts import codec_of
    from mdh.logs import configure
    from mdh.settings import load_settings
    from mdh.telemetry import announce
    from schemas.topology import TopologyError, load_topology
    from streams.runtime.app import AgentSpec, RuntimeSettings, create_app, run_worker
    from streams.runtime.meters import show_all
    from streams.runtime.sabotage import Sabotage, Torment

    settings = load_settings(broker=broker, metrics_port=metrics_port)
    configure(settings.log_level, process=f"worker-{index}")
    announce(f"worker-{index}", settings.metrics_port)
    try:
        system = load_topology(topology)
    except TopologyError as error:
        raise UsageError(str(error)) from error
    names = [name.strip() for name in agents.split(",") if name.strip()] or system.crews["agents"]
    unknown = sorted(set(names) - set(system.agents))
    if unknown:
        raise UsageError(f"no agent {', '.join(unknown)} in the topology; there are {', '.join(system.agents)}")
    kafka = settings.kafka.at(settings.broker)
    crew = next((crew for crew, members in system.crews.items() if members == names), "+".join(names))
    runtime = RuntimeSettings(
        broker=kafka.bootstrap,
        client=kafka.librdkafka(),
        group=system.group(crew),
        faust=kafka.faust(),
        session_timeout=6.0 if torment else 20.0,
        accept_gaps=settings.accept_gaps,
    )
    data_dir.mkdir(parents=True, exist_ok=True)
    if "vee" in names:
        show_all()
    if "ingest" in names:
        from connectors.head_end.formats import warm

        warm()  # compiles the decoders once per machine, before a payload waits for them
    if "vee" in names:
        from streams.vee.clean import warm as warm_vee

        warm_vee()
    if "determinants" in names:
        from streams.determinants.kernels import warm as warm_sums

        warm_sums()
    if "insights" in names:
        from streams.insights.kernel import warm as warm_profiles

        warm_profiles()
    specs = [AgentSpec(*pair) for pair in plans_and_folds(system, names)]
    app = create_app(specs, runtime, Torment(torment) if torment else Sabotage(), codec_of(settings, system))
    gc.freeze()  # what is there now stays: looking through it again and again took a fifth of the time of the thread that reads from Kafka
    run_worker(app, data_dir)
