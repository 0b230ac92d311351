"""``mdh bench``: ratios against other ways of doing the same, measured in turn in one run."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mdh.errors import UsageError

app = typer.Typer(add_completion=False, no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="Print the last line only.")]


@app.callback()
def bench() -> None:
    """Measure ratios against other ways of doing the same; results are compared before any rate is given."""


def _need_source() -> None:
    """The benchmarks are not part of the installed package."""
    root = Path(__file__).resolve().parents[2]
    if not (root / "benchmarks" / "pipeline.py").is_file():
        raise UsageError("the benchmarks come with the source: run this in a clone of the repository")
    if importlib.util.find_spec("benchmarks") is None:
        sys.path.insert(0, str(root))


def _show(title: str, rows: list[tuple[str, ...]], figures: dict[str, Any], only_json: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    if not only_json:
        table = Table(title=title, title_justify="left", box=None, header_style="dim", padding=(0, 2))
        for position, name in enumerate(rows[0]):
            table.add_column(name, justify="left" if position == 0 else "right")
        for row in rows[1:]:
            table.add_row(*row)
        Console(width=100, highlight=False).print(table)
    print(json.dumps(figures))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@app.command()
def pipeline(
    channels: Annotated[int, typer.Option(help="Channels the hub gets, a multiple of 500 for full blocks.")] = 20_000,
    days: Annotated[int, typer.Option(help="Days the hub gets.")] = 7,
    faust_channels: Annotated[int, typer.Option(help="Channels of one day that the Faust agent gets.")] = 300,
    quix_channels: Annotated[int, typer.Option(help="Channels of one day that Quix Streams gets.")] = 300,
    rules: Annotated[
        bool, typer.Option("--rules", help="Measure what rules cost instead: the hub with all of them and with none.")
    ] = False,
    rounds: Annotated[int, typer.Option(help="With --rules: how often each is measured.")] = 3,
    json: Json = False,
) -> None:
    """Backlog to store: the hub against a per-read Faust agent with a Table and a stateful Quix Streams app."""
    _need_source()
    from benchmarks.pipeline import Sizes, cost_of_rules, run

    if rules:
        if min(channels, days, rounds) < 1:
            raise UsageError("all sizes must be at least 1")
        cost = cost_of_rules(channels, days, rounds, _say)
        shown: list[tuple[str, ...]] = [("", "reads/s", "of the speed without rules")]
        shown.append(("no rules but those that take reads in", f"{cost['bare_reads_per_s']:,}", ""))
        shown.append(("all rules", f"{cost['full_reads_per_s']:,}", f"{cost['kept']:.0%}"))
        _show(f"{cost['reads']:,} reads, medians of {rounds} rounds", shown, cost, json)
        return
    if min(channels, days, faust_channels, quix_channels) < 1 or max(faust_channels, quix_channels) > channels:
        raise UsageError("all sizes must be at least 1, and the peers get part of the hub's channels")
    figures = run(Sizes(channels, days, faust_channels, quix_channels), _say)
    rows: list[tuple[str, ...]] = [("", "reads/s", "hub is faster by")]
    rows.append(("hub: blocks, exactly once, into the store", f"{figures['ours_reads_per_s']:,}", ""))
    rows.append(("Faust: per read, Table", f"{figures['faust_reads_per_s']:,}", f"{figures['ratio_faust']:,} ×"))
    rows.append(("Quix Streams: per read, state", f"{figures['quix_reads_per_s']:,}", f"{figures['ratio_quix']:,} ×"))
    _show(f"{figures['reads']:,} reads; the peers' results are equal", rows, figures, json)


@app.command()
def vee(
    channels: Annotated[int, typer.Option(help="Channels of the load.")] = 20_000,
    days: Annotated[int, typer.Option(help="Days that are measured, behind two that fill the state.")] = 5,
    block: Annotated[int, typer.Option(help="Channels of a block.")] = 2000,
    python_channels: Annotated[int, typer.Option(help="Channels of each day that plain Python gets.")] = 200,
    json: Json = False,
) -> None:
    """Blocks in memory through VEE and time-of-use sums: against np.sum, Polars and plain Python."""
    _need_source()
    if importlib.util.find_spec("polars") is None:
        raise UsageError("this benchmark needs polars, which comes with the development dependencies: make install")
    from benchmarks.vee import run

    if min(channels, days, block, python_channels) < 1 or python_channels > min(channels, block):
        raise UsageError("all sizes must be at least 1, and plain Python gets part of a block")
    figures = run(channels, days, block, python_channels, _say)
    rows: list[tuple[str, ...]] = [("", "ns per read", "against the engine")]
    rows.append(("the engine: rules, versions, state, sums by time of use", f"{figures['ours_ns']:.1f}", ""))
    rows.append(("  of these VEE", f"{figures['vee_ns']:.1f}", ""))
    rows.append(("  of these determinants", f"{figures['determinants_ns']:.1f}", ""))
    rows.append(("  of both the rules and sums alone", f"{figures['rules_ns']:.1f}", ""))
    rows.append(("the engine without rules", f"{figures['bare_ns']:.1f}", f"keeps {figures['kept_with_rules']:.0%} with rules"))
    rows.append(("np.sum of the values", f"{figures['np_sum_ns']:.2f}", f"1 / {figures['ratio_np_sum']:,}"))
    rows.append(("Polars: the same rules and sums, no state", f"{figures['polars_ns']:.1f}", f"{figures['ratio_polars']:,} ×"))
    rows.append(("Python, read by read: the same", f"{figures['python_ns']:,.0f}", f"{figures['ratio_python']:,} ×"))
    _show(f"{figures['reads']:,} reads; results are equal", rows, figures, json)


@app.command()
def determinants(
    meters: Annotated[int, typer.Option(help="Meters, each with 96 quarter hours of a day.")] = 100_000,
    json: Json = False,
) -> None:
    """A day of meters into time-of-use determinants against Polars, per core; and what corrections of one in a hundred cost."""
    _need_source()
    if importlib.util.find_spec("polars") is None:
        raise UsageError("this benchmark needs polars, which comes with the development dependencies: make install")
    from benchmarks.determinants import run

    if meters < 100:
        raise UsageError("at least 100 meters")
    figures = run(meters, _say)
    rows: list[tuple[str, ...]] = [("", "ns per read", "Polars takes")]
    rows.append(("compiled sums by time of use", f"{figures['kernel_ns']:.2f}", f"{figures['ratio_kernel']:,} ×"))
    rows.append(("the agent: with state and versions", f"{figures['agent_ns']:.2f}", f"{figures['ratio_agent']:,} ×"))
    rows.append(("Polars: join, filter, group_by", f"{figures['polars_ns']:.2f}", ""))
    rows.append(("the agent: 1 % of the meters' days again, of a rebuild", f"{figures['days_again_percent']} %", ""))
    spread = f"the agent: 1 % of reads again, spread over {figures['days_of_reads_percent']} % of the days, of a rebuild"
    rows.append((spread, f"{figures['reads_again_percent']} %", ""))
    _show(f"{figures['reads']:,} reads on one core; results are equal", rows, figures, json)


@app.command()
def bulk(
    items: Annotated[int, typer.Option(help="SAP device-create items of the bulk.")] = 100_000,
    json: Json = False,
) -> None:
    """A bulk of SAP devices from the SOAP door to its confirmations, and the same bulk again, which must change nothing."""
    _need_source()
    from benchmarks.bulk import run

    if items < 1:
        raise UsageError("--items must be at least 1")
    figures = run(items, _say)
    rows: list[tuple[str, ...]] = [("", "", "")]
    rows.append(("taken, applied and confirmed, µs per item", f"{figures['us_per_item']:,}", ""))
    rows.append(("the same bulk again, µs per item", f"{figures['again_us_per_item']:,}", f"{figures['ratio_again']} ×"))
    rows.append(("the door grew by, KiB", f"{figures['door_grew_kib']:,}", f"{figures['door_grew_kib_small']:,} with 1,000 items"))
    held = f"{figures['process_bytes_per_item']:,} of the process, with rows of the state topics"
    rows.append(("state of the agents, bytes per item", f"{figures['state_bytes_per_item']:,}", held))
    _show(f"{items:,} items, {figures['confirmed']:,} confirmed; the second time changed nothing", rows, figures, json)


@app.command()
def memory(
    channels: Annotated[int, typer.Option(help="Channels of a worker.")] = 100_000,
    json: Json = False,
) -> None:
    """State per channel, and a restart against the recovery of a Faust Table of as many keys."""
    _need_source()
    from benchmarks.memory import run

    if channels < 100:
        raise UsageError("--channels must be at least 100")
    figures = run(channels, _say)
    rows: list[tuple[str, ...]] = [("", "hub", "Faust Table", "")]
    rows.append(("state, bytes per channel", f"{figures['state_bytes_per_channel']:,}", "", ""))
    rows.append(("process, bytes per channel", f"{figures['process_bytes_per_channel']:,}", "", ""))
    restart = (f"{figures['restart_seconds']:.2f} s", f"{figures['faust_restart_seconds']:.1f} s", f"{figures['ratio_restart']} ×")
    rows.append(("restart", *restart))
    _show(f"{channels:,} channels of quarter hours", rows, figures, json)


@app.command()
def late(
    channels: Annotated[int, typer.Option(help="Channels that send days again.")] = 2000,
    json: Json = False,
) -> None:
    """Days that have left the state and come again, against days that come in time; with the store."""
    _need_source()
    from benchmarks.late import run

    if channels < 1:
        raise UsageError("--channels must be at least 1")
    figures = run(channels, _say)
    rows: list[tuple[str, ...]] = [("", "µs per channel day", "")]
    rows.append(("in time", f"{figures['hot_us_per_channel_day']:,}", ""))
    rows.append(("late", f"{figures['late_us_per_channel_day']:,}", f"{figures['ratio_late_to_hot']} ×"))
    asked = f"{figures['days_recalled']:,} days asked of the store in {figures['recalls']:,} records"
    _show(f"{figures['channel_days']:,} channel days; {asked}; results are equal", rows, figures, json)


@app.command()
def pushes(
    channels: Annotated[int, typer.Option(min=1, help="Channels that send interval by interval.")] = 2000,
    days: Annotated[int, typer.Option(min=1, help="Days they send.")] = 1,
    json: Json = False,
) -> None:
    """One interval of many meters at a time, against the same reads as whole days; with the store."""
    _need_source()
    from benchmarks.pushes import run

    figures = run(channels, days, _say)
    names = {
        "whole": "whole days", "each": "pushes, each published (gather: 0)", "backlog": "pushes one behind the other",
        "in_time": "pushes every quarter of an hour", "hourly": "the same with gather: 1h",
    }  # fmt: skip
    rows: list[tuple[str, ...]] = [("", "ns per read", "", "rows of days")]
    for name, said in names.items():
        ratio = f"{figures[f'ratio_{name}']} ×" if name != "whole" else ""
        rows.append((said, f"{figures[f'{name}_ns']:,}", ratio, f"{figures[f'{name}_rows']:,}"))
    _show(f"{figures['reads']:,} reads; results are equal", rows, figures, json)


@app.command()
def anomaly(
    data: Annotated[Path | None, typer.Option(envvar="MDH_SHARED_DATA", help="Folder of the sample loads; else ../shared/data.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Faults of each kind injected into each meter.")] = 2,
    json: Json = False,
) -> None:
    """What insights finds of injected faults, and how it does beside river's detectors on the same streams."""
    _need_source()
    from benchmarks.anomaly import run

    folder = data or Path(__file__).resolve().parents[2].parent / "shared" / "data"
    if not (folder / "sgsc_half_hourly").is_dir():
        raise UsageError(f"no sample loads in {folder}: name their folder with --data or MDH_SHARED_DATA")
    figures = run(folder, _say, repeats)
    rows: list[tuple[str, ...]] = [("", "recall", "false alarms per meter-year")]
    shown = {name: figures[name] for name in ("fitted", "held_out", "compared", "compared_with_labels")}
    rows += [(n.replace("_", " "), f"{f['recall']:.3f}", f"{f['false_alarms_per_meter_year']:.2f}") for n, f in shown.items()]
    rows += [(f"  {fault}", f"{recall:.3f}", "") for fault, recall in figures["held_out"]["recall_by_fault"].items()]
    rows.append(("meter-days, ROC-AUC and PR-AUC", "", "reads/s"))
    for name, told in figures["meter_day_streams"].items():
        if isinstance(told, dict):
            rows.append((f"  {name}", f"{told['roc_auc']:.3f} {told['pr_auc']:.3f}", f"{told['reads_per_s']:,}"))
    rows.append(("NAB, standard score", "", ""))
    for name, told in figures["nab"].items():
        if isinstance(told, dict):
            rows.append((f"  {name}", f"{told['standard_score']:.1f}", f"ROC {told['roc_auc']:.3f}"))
    _show("Anomalies, scored before learned", rows, figures, json)


@app.command()
def gaps(
    channels: Annotated[int, typer.Option(help="Channels of each source at most.")] = 2,
    seed: Annotated[int, typer.Option(help="Where the gaps lie.")] = 1,
    data: Annotated[
        Path | None, typer.Option(envvar="MDH_SHARED_DATA", help="Folder of the sample data; else shared/data beside the clone.")
    ] = None,
    json: Json = False,
) -> None:
    """Hidden gaps of more than two hours in real loads: the hub's estimates against straight lines."""
    _need_source()
    from benchmarks.gaps import run

    if channels < 1:
        raise UsageError("--channels must be at least 1")
    folder = data or Path(__file__).resolve().parents[3] / "shared" / "data"
    if not folder.is_dir():
        _say(f"no sample data at {folder}: nothing was measured (--data, or MDH_SHARED_DATA)")
        _show("no data", [("",)], {"bench": "gaps", "skipped": "no sample data"}, json)
        return
    figures = run(folder, channels, seed, _say)
    rows: list[tuple[str, ...]] = [("", "intervals", "line", "like days", "with register")]
    for name, one in [*figures["sources"].items(), ("all", figures)]:
        rows.append((name, f"{one['intervals']:,}", "1", f"{one['ratio_like_day']}", f"{one['ratio_with_register']}"))
    _show("Mean absolute error against that of a straight line; sums between readings are exact", rows, figures, json)


@app.command()
def todos(
    completed: Annotated[int, typer.Option(help="Completed To-Dos in the history.")] = 10_000_000,
    meters: Annotated[int, typer.Option(help="Meters with a day in the store.")] = 1_000_000,
    exceptions: Annotated[int, typer.Option(help="Exceptions of the storm.")] = 1_000_000,
    json: Json = False,
) -> None:
    """The To-Do queue with a long history against the same queue without one; a storm of exceptions through the agent."""
    _need_source()
    from benchmarks.todos import run

    if min(completed, meters) < 0 or exceptions < 100:
        raise UsageError("--completed and --meters must not be negative, --exceptions at least 100")
    figures = run(completed, meters, exceptions, _say)
    rows: list[tuple[str, ...]] = [("", "processors, empty", "full", "", "wall, empty", "full", "")]
    for name in figures["full_ms"]:
        told = ((figures[f"{kind}empty_ms"], figures[f"{kind}full_ms"], figures[f"{kind}ratios"]) for kind in ("", "wall_"))
        rows.append(
            (name.replace("_", " "), *(f"{one[name]} {unit}" for kind in told for one, unit in zip(kind, ("ms", "ms", "×"), strict=True)))
        )
    storm = f"{figures['todos']:,} To-Dos, {figures['us_per_exception']} µs each, {figures['grown_mib']} MiB more"
    rows.append((f"{figures['exceptions']:,} exceptions of one payload", "", storm, "", "", "", ""))
    _show(f"{figures['live']:,} live To-Dos, {completed:,} completed, {meters:,} meters", rows, figures, json)


@app.command()
def prepaid(
    accounts: Annotated[int, typer.Option(help="Accounts of the agent's load.")] = 4000,
    days: Annotated[int, typer.Option(help="Days, each a usage event of every account and a top-up of every third.")] = 5,
    peers: Annotated[int, typer.Option(help="Accounts of the load that the SQL wallets get.")] = 300,
    recharges: Annotated[int, typer.Option(help="Recharges whose reconnection is timed.")] = 300,
    json: Json = False,
) -> None:
    """Postings a second of the ledger agent against the same ledger as an SQL wallet with row locks; from a recharge to its command."""
    _need_source()
    from benchmarks.prepaid import run

    if min(accounts, days, peers, recharges) < 1 or peers > accounts:
        raise UsageError("all sizes must be at least 1, and the wallets get some of the accounts")
    figures = run(accounts, days, peers, recharges, _say)
    rows: list[tuple[str, ...]] = [("", "postings/s", "the agent is faster by")]
    rows.append(("agent: charges, states, messages, exactly once on Kafka", f"{figures['agent_postings_per_s']:,}", ""))
    rows.append(("  its engine alone", f"{figures['engine_postings_per_s']:,}", ""))
    names = {"sqlite": "SQLite", "postgresql": "PostgreSQL, eight clients", "postgresql_one_client": "PostgreSQL, one client"}
    for name, title in names.items():
        told = figures[f"{name}_postings_per_s"]
        rows.append((title, "not here" if told is None else f"{told:,}", "" if told is None else f"{figures[f'ratio_{name}']} ×"))
    reconnect = f"{figures['reconnect_p50_ms']} ms, p99 {figures['reconnect_p99_ms']} ms"
    rows.append(("from a recharge to its command", reconnect, f"{figures['ratio_reconnect']} × Kafka's own"))
    _show(f"{figures['postings']:,} postings; balances and chains are equal", rows, figures, json)
