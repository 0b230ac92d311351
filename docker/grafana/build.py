"""The pipeline dashboard as code: ``python docker/grafana/build.py`` writes dashboards/pipeline.json.

Metric names come from schemas/metrics.py, ClickHouse queries read the public views only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from grafana_foundation_sdk.builders import common, stat, table, timeseries
from grafana_foundation_sdk.builders import dashboard as board
from grafana_foundation_sdk.builders import prometheus as prom
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.common import BigValueColorMode, GraphDrawStyle, LegendDisplayMode, LegendPlacement, StackingMode
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DataSourceRef, Threshold, ThresholdsMode

OUT: Final = Path(__file__).parent / "dashboards" / "pipeline.json"
PROMETHEUS: Final = DataSourceRef(type_val="prometheus", uid="prometheus")
CLICKHOUSE: Final = DataSourceRef(type_val="grafana-clickhouse-datasource", uid="clickhouse")
RATE: Final = "$__rate_interval"
TABLE, SERIES = 1, 0


@dataclass
class Sql(Dataquery):
    """A query of the ClickHouse plug-in."""

    sql: str
    format: int
    ref: str = "A"

    def to_json(self) -> dict[str, Any]:
        """As the plug-in stores it."""
        kind = "timeseries" if self.format == SERIES else "table"
        return {
            "refId": self.ref,
            "datasource": CLICKHOUSE,
            "editorType": "sql",
            "queryType": kind,
            "format": self.format,
            "rawSql": self.sql,
        }


class SqlBuilder(Builder[Sql]):
    """Wraps a query for the panel builders."""

    def __init__(self, sql: str, format: int) -> None:
        self._query = Sql(" ".join(sql.split()), format)

    def build(self) -> Sql:
        """The query."""
        return self._query


def q(expr: str, legend: str = "", *, instant: bool = False) -> prom.Dataquery:
    """A PromQL query."""
    query = prom.Dataquery().expr(expr).legend_format(legend)
    return query.instant() if instant else query.range()


def limits(*steps: tuple[float | None, str]) -> board.ThresholdsConfig:
    """Colours from a value on."""
    return board.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps([Threshold(value=v, color=c) for v, c in steps])


def number(title: str, about: str, expr: str, unit: str, thresholds: board.ThresholdsConfig) -> stat.Panel:
    """One figure."""
    return (
        stat.Panel()
        .title(title)
        .description(about)
        .datasource(PROMETHEUS)
        .with_target(q(expr, instant=True).ref_id("A"))
        .unit(unit)
        .thresholds(thresholds)
        .color_mode(BigValueColorMode.BACKGROUND)
        .no_value("–")
        .height(4)
        .span(4)
    )


def chart(title: str, about: str, unit: str, *queries: prom.Dataquery, stacked: bool = False, span: int = 8) -> timeseries.Panel:
    """Lines over time."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(about)
        .datasource(PROMETHEUS)
        .unit(unit)
        .min(0)
        .height(8)
        .span(span)
        .line_width(1)
        .fill_opacity(25 if stacked else 8)
        .draw_style(GraphDrawStyle.LINE)
        .legend(common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM).show_legend(True))
    )
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    for position, query in enumerate(queries):
        panel = panel.with_target(query.ref_id(chr(ord("A") + position)))
    return panel


def quantiles(metric: str, by: str = "") -> list[prom.Dataquery]:
    """Median and 99th percentile of a histogram."""
    labels = f"le, {by}" if by else "le"
    legend = f"{{{{{by}}}}} " if by else ""
    return [
        q(f"histogram_quantile({share}, sum by ({labels}) (rate({metric}_bucket[{RATE}])))", f"{legend}{name}")
        for share, name in ((0.5, "p50"), (0.99, "p99"))
    ]


def rows(title: str, about: str, sql: str, span: int = 12) -> table.Panel:
    """Rows of the store."""
    return (
        table.Panel()
        .title(title)
        .description(about)
        .datasource(CLICKHOUSE)
        .with_target(SqlBuilder(sql, TABLE))
        .filterable(True)
        .height(9)
        .span(span)
    )


GOOD, WARN, BAD = "green", "orange", "red"


def overview(dashboard: board.Dashboard) -> None:
    """Six figures that tell whether all is well."""
    dashboard.with_row(board.Row("Now"))
    for panel in (
        number("Ready", "1: reads can flow through every process", "min(mdh_ready)", "none", limits((None, BAD), (1, GOOD))),
        number(
            "Reads in", "Decoded reads per second", f'sum(rate(mdh_reads_in_total{{step="ingest"}}[{RATE}]))', "ops", limits((None, GOOD))
        ),
        number("Behind", "Age of the oldest record that waits", "max(mdh_lag_seconds)", "s", limits((None, GOOD), (60, WARN), (300, BAD))),
        number(
            "Exceptions",
            "Raised in the last hour, without infos",
            'sum(increase(mdh_exceptions_total{severity!="info"}[1h]))',
            "short",
            limits((None, GOOD), (100, WARN), (1000, BAD)),
        ),
        number(
            "Dead letters",
            "Undecodable payloads of the last day",
            "sum(increase(mdh_dead_letters_total[1d]))",
            "short",
            limits((None, GOOD), (1, WARN), (100, BAD)),
        ),
        number(
            "Completeness",
            "The least complete day and source",
            "min(mdh_completeness_ratio)",
            "percentunit",
            limits((None, BAD), (0.95, WARN), (0.99, GOOD)),
        ),
    ):
        dashboard.with_panel(panel)


def flow(dashboard: board.Dashboard) -> None:
    """Payloads and reads through the steps."""
    dashboard.with_row(board.Row("Flow"))
    for panel in (
        chart(
            "Reads through the steps",
            "What each step received and passed on",
            "ops",
            q(f"sum by (step) (rate(mdh_reads_in_total[{RATE}]))", "{{step}} in"),
            q(f"sum by (step) (rate(mdh_reads_out_total[{RATE}]))", "{{step}} out"),
        ),
        chart("Payloads", "By outcome", "ops", q(f"sum by (outcome) (rate(mdh_payloads_total[{RATE}]))", "{{outcome}}"), stacked=True),
        chart(
            "Bytes taken in", "By format", "Bps", q(f"sum by (format) (rate(mdh_payload_bytes_total[{RATE}]))", "{{format}}"), stacked=True
        ),
        chart("Arrival to store", "From a payload's arrival to the last of its effects", "s", *quantiles("mdh_payload_seconds")),
        chart("Age of reads when stored", "From the end of an interval", "s", *quantiles("mdh_read_age_seconds")),
        chart(
            "Not passed on",
            "Reads by step and reason",
            "ops",
            q(f"sum by (step, rule) (rate(mdh_reads_rejected_total[{RATE}]))", "{{step}} {{rule}}"),
        ),
        chart(
            "Completeness",
            "Share of due intervals received",
            "percentunit",
            q("min by (source, day) (mdh_completeness_ratio)", "{{source}} {{day}}"),
        ),
        chart(
            "Clocks ahead",
            "How far the newest read of a source lies in the future",
            "s",
            q("max by (source) (mdh_source_clock_skew_seconds)", "{{source}}"),
        ),
        chart(
            "Drop folder and ticks",
            "Files by outcome; ticks written",
            "ops",
            q(f"sum by (outcome) (rate(mdh_files_total[{RATE}]))", "files {{outcome}}"),
            q(f"sum(rate(mdh_ticks_total[{RATE}]))", "ticks"),
        ),
    ):
        dashboard.with_panel(panel)


def vee(dashboard: board.Dashboard) -> None:
    """What validation and estimation did."""
    dashboard.with_row(board.Row("Validation, estimation, determinants"))
    for panel in (
        chart(
            "Exceptions",
            "By rule and severity",
            "ops",
            q(f"sum by (rule, severity) (rate(mdh_exceptions_total[{RATE}]))", "{{rule}} {{severity}}"),
            stacked=True,
        ),
        chart(
            "Estimated intervals",
            "By method",
            "ops",
            q(f"sum by (method) (rate(mdh_estimated_intervals_total[{RATE}]))", "{{method}}"),
            stacked=True,
        ),
        chart(
            "Channel days",
            "Written, by state",
            "ops",
            q(f"sum by (state) (rate(mdh_channel_days_total[{RATE}]))", "{{state}}"),
            stacked=True,
        ),
        chart(
            "Parked", "Rows that wait for master data or for a day from the store", "short", q("sum(mdh_parked_rows)", "parked"), span=12
        ),
        chart(
            "Determinants",
            "By kind and status",
            "ops",
            q(f"sum by (kind, status) (rate(mdh_determinants_total[{RATE}]))", "{{kind}} {{status}}"),
            span=12,
        ),
    ):
        dashboard.with_panel(panel)


def agents(dashboard: board.Dashboard) -> None:
    """The machinery."""
    dashboard.with_row(board.Row("Agents"))
    for panel in (
        chart(
            "Lag, seconds",
            "Age of the oldest record not yet handled",
            "s",
            q("max by (group, topic) (mdh_lag_seconds)", "{{group}} {{topic}}"),
        ),
        chart("Lag, records", "Not yet handled", "short", q("sum by (group, topic) (mdh_lag_records)", "{{group}} {{topic}}")),
        chart("Age of the last commit", "While records wait", "s", q("max by (agent) (mdh_commit_age_seconds)", "{{agent}}")),
        chart("Batches", "Time without the transaction", "s", *quantiles("mdh_batch_seconds", "step")),
        chart("Rows of a batch", "Median and 99th percentile", "short", *quantiles("mdh_batch_rows", "step")),
        chart("Bytes of a batch", "Median and 99th percentile", "bytes", *quantiles("mdh_batch_bytes", "step")),
        chart("Transactions", "Time to commit", "s", *quantiles("mdh_transaction_seconds", "agent")),
        chart("State", "Memory", "bytes", q("sum by (agent) (mdh_state_bytes)", "{{agent}}"), stacked=True),
        chart("State rows", "Channels and accounts known", "short", q("sum by (agent) (mdh_state_rows)", "{{agent}}"), stacked=True),
        chart("Restores", "Time to read a partition's state back", "s", *quantiles("mdh_restore_seconds", "agent")),
        chart(
            "Disturbances",
            "Rebalances, records seen twice, gaps, failed transactions",
            "short",
            q("sum by (agent) (increase(mdh_rebalances_total[5m]))", "{{agent}} rebalances"),
            q("sum by (agent) (increase(mdh_records_skipped_total[5m]))", "{{agent}} skipped"),
            q("sum by (agent) (increase(mdh_delivery_gaps_total[5m]))", "{{agent}} gaps"),
            q("sum by (agent) (increase(mdh_transactions_failed_total[5m]))", "{{agent}} failed"),
        ),
        chart("Processes started again", "By process", "short", q("sum by (process) (increase(mdh_restarts_total[5m]))", "{{process}}")),
    ):
        dashboard.with_panel(panel)


def store(dashboard: board.Dashboard) -> None:
    """Store and front door."""
    dashboard.with_row(board.Row("Store and front door"))
    for panel in (
        chart("Rows stored", "By table", "ops", q(f"sum by (table) (rate(mdh_store_rows_total[{RATE}]))", "{{table}}"), stacked=True),
        chart("Inserts", "Time of one insert", "s", *quantiles("mdh_store_insert_seconds", "table")),
        chart("Queries", "Time of one query", "s", *quantiles("mdh_store_query_seconds")),
        chart("Parts", "Hundreds mean merges do not keep up", "short", q("max by (table) (mdh_store_parts)", "{{table}}")),
        chart("Inserts tried again", "By table", "short", q("sum by (table) (increase(mdh_store_retries_total[5m]))", "{{table}}")),
        chart("Dead letters kept", "Replayed or not", "short", q("max by (topic) (mdh_dead_letter_records)", "{{topic}}")),
        chart(
            "Requests",
            "By status",
            "ops",
            q(f"sum by (status) (rate(mdh_http_requests_total[{RATE}]))", "{{status}}"),
            stacked=True,
            span=12,
        ),
        chart("Time to answer", "By route", "s", *quantiles("mdh_http_request_seconds", "route"), span=12),
        chart(
            "Delivered",
            "Items that subscribers have taken",
            "ops",
            q(f"sum by (subscriber) (rate(mdh_delivered_items_total[{RATE}]))", "{{subscriber}}"),
        ),
        chart("Deliveries", "By outcome", "ops", q(f"sum by (outcome) (rate(mdh_deliveries_total[{RATE}]))", "{{outcome}}")),
        chart("Time of a delivery", "One successful attempt", "s", *quantiles("mdh_delivery_seconds", "kind")),
        chart(
            "Deliveries that wait",
            "Age of the oldest, records, and receivers that are left alone",
            "short",
            q("max by (subscriber) (mdh_delivery_oldest_seconds)", "{{subscriber}} s"),
            q("sum by (subscriber) (mdh_delivery_waiting_records)", "{{subscriber}} records"),
            q("max by (subscriber) (mdh_delivery_circuit_open)", "{{subscriber}} left alone"),
        ),
        chart(
            "Commands and events",
            "Commands decided, events of devices, messages to CIS",
            "ops",
            q(f"sum by (action, outcome) (rate(mdh_commands_total[{RATE}]))", "{{action}} {{outcome}}"),
            q(f"sum by (kind) (rate(mdh_device_events_total[{RATE}]))", "event {{kind}}"),
            q(f"sum by (system, outcome) (rate(mdh_cis_messages_total[{RATE}]))", "{{system}} {{outcome}}"),
        ),
        chart(
            "Prepaid postings",
            "By kind",
            "ops",
            q(f"sum by (kind) (rate(mdh_prepaid_postings_total[{RATE}]))", "{{kind}}"),
            span=12,
        ),
        chart(
            "Prepaid proofs",
            "1: the books hold; the ledger in the store is proved every hour",
            "short",
            q("min by (partition) (mdh_prepaid_proof_holds)", "books of partition {{partition}}"),
            q("min(mdh_prepaid_ledger_holds)", "ledger in the store"),
            q("(time() - max(mdh_prepaid_ledger_proved_seconds)) / 3600", "hours since the ledger was proved"),
            span=12,
        ),
    ):
        dashboard.with_panel(panel)


def data(dashboard: board.Dashboard) -> None:
    """What is in the store, from its public views."""
    dashboard.with_row(board.Row("Data"))
    curve = (
        timeseries.Panel()
        .title("Load curve of the device")
        .description("Final intervals; choose the device above")
        .datasource(CLICKHOUSE)
        .draw_style(GraphDrawStyle.BARS)
        .fill_opacity(60)
        .height(9)
        .span(24)
        .with_target(
            SqlBuilder(
                "SELECT start AS time, concat(channel, ' ', unit) AS label, toFloat64(value) AS value FROM intervals"
                " WHERE device = ${device:sqlstring} AND $__timeFilter(start) AND value IS NOT NULL ORDER BY time",
                SERIES,
            )
        )
    )
    dashboard.with_panel(curve)
    for panel in (
        rows(
            "Open exceptions",
            "The newest",
            "SELECT start, rule, severity, device, channel, count, detail FROM exceptions"
            " WHERE status = 'open' AND $__timeFilter(start) ORDER BY start DESC LIMIT 200",
        ),
        rows(
            "Open exceptions by rule",
            "All",
            "SELECT rule, severity, count() AS exceptions, uniqExact(device) AS devices FROM exceptions"
            " WHERE status = 'open' GROUP BY rule, severity ORDER BY exceptions DESC",
        ),
        rows(
            "Newest payloads",
            "And what became of them",
            "SELECT received_at, source, format, status, reads, exceptions, dead, reason, id FROM payloads"
            " WHERE $__timeFilter(received_at) ORDER BY received_at DESC LIMIT 100",
        ),
        rows(
            "Determinants of the device",
            "Current versions",
            "SELECT period_start, period_end, account, kind, tou, quantity, unit, status, version"
            " FROM determinants WHERE device = ${device:sqlstring} AND $__timeFilter(period_start) ORDER BY period_start DESC, kind, tou"
            " LIMIT 500",
        ),
    ):
        dashboard.with_panel(panel)


def build() -> str:
    """The dashboard as JSON text."""
    dashboard = (
        board.Dashboard("Meter Data Hub: pipeline")
        .uid("mdh-pipeline")
        .tags(["meter-data-hub"])
        .timezone("browser")
        .readonly()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .time("now-6h", "now")
        .refresh("30s")
        .with_variable(board.TextBoxVariable("device").label("Device").default_value(""))
    )
    for part in (overview, flow, vee, agents, store, data):
        part(dashboard)
    built = dashboard.build()
    for number, panel in enumerate(built.panels or [], start=1):
        panel.id_val = number
    return JSONEncoder(sort_keys=True, indent=1).encode(built) + "\n"


if __name__ == "__main__":
    OUT.write_text(build())
