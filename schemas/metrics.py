"""Every metric of the hub, declared once: name, meaning, labels. Nothing else creates metrics; docs/metrics.md is made from here.

Labels are bounded (steps, topics, partitions, rules, tables, formats, routes), never a meter, an account or a payload. Sources are
head ends, of which a hub has few; use :func:`source_label`, which keeps a hostile sender from making them many.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

Metric: Final = (Counter, Gauge, Histogram)
SHARED_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"  # read by prometheus_client when it is imported
Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Declared:
    """A metric as documented. ``name`` is what Prometheus shows (counters end in ``_total``)."""

    name: str
    kind: Kind
    about: str
    labels: tuple[str, ...]
    buckets: tuple[float, ...] = ()


METRICS: Final[list[Declared]] = []


def _counter(name: str, about: str, *labels: str) -> Counter:
    METRICS.append(Declared(name, "counter", about, labels))
    return Counter(name, about, labels)


def _gauge(name: str, about: str, *labels: str) -> Gauge:
    METRICS.append(Declared(name, "gauge", about, labels))
    # Where processes share their figures (see exposition): a partition may move, so whoever spoke last is right
    return Gauge(name, about, labels, multiprocess_mode="mostrecent")


def _histogram(name: str, about: str, buckets: Sequence[float], *labels: str) -> Histogram:
    METRICS.append(Declared(name, "histogram", about, labels, tuple(buckets)))
    return Histogram(name, about, labels, buckets=tuple(buckets))


_QUICK: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_AGES: Final = (60, 300, 900, 1800, 3600, 7200, 14_400, 28_800, 43_200, 86_400, 172_800, 604_800, 2_592_000)
_ROWS: Final = (1, 10, 50, 100, 500, 1000, 5000, 10_000, 50_000, 100_000, 500_000)
_BYTES: Final = tuple(1024 * 4**n for n in range(9))
_RECOVERY: Final = (0.1, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600)

# --- payloads and reads --------------------------------------------------------------------------------------------------------
PAYLOADS = _counter("mdh_payloads_total", "Payloads by format and outcome (decoded, partly, dead, duplicate)", "format", "outcome")
PAYLOAD_BYTES = _counter("mdh_payload_bytes_total", "Bytes of the payloads taken in", "format")
READS_IN = _counter("mdh_reads_in_total", "Reads that a step received", "step")
READS_OUT = _counter("mdh_reads_out_total", "Reads that a step passed on", "step")
READS_REJECTED = _counter("mdh_reads_rejected_total", "Reads that a step did not pass on, by rule or reason", "step", "rule")
READ_AGE = _histogram("mdh_read_age_seconds", "Age of a read (end of its interval) when it was stored", _AGES)
PAYLOAD_SECONDS = _histogram("mdh_payload_seconds", "From arrival to the last effect in the store, measured on ticks", _RECOVERY)
COMPLETENESS = _gauge("mdh_completeness_ratio", "Received of the due intervals; day is today, yesterday or before", "source", "day")
CLOCK_SKEW = _gauge("mdh_source_clock_skew_seconds", "How far the newest read of a source lies in the future, 0 if it does not", "source")

# --- VEE and determinants ------------------------------------------------------------------------------------------------------
EXCEPTIONS = _counter("mdh_exceptions_total", "Exceptions raised, by rule and severity", "rule", "severity")
ESTIMATED = _counter("mdh_estimated_intervals_total", "Intervals filled or changed, by method", "method")
CHANNEL_DAYS = _counter("mdh_channel_days_total", "Channel days written, by state (open, finalized, exception)", "state")
COMMANDS = _counter("mdh_commands_total", "Commands decided, by action and outcome (applied, refused, preview)", "action", "outcome")
DEVICE_EVENTS = _counter("mdh_device_events_total", "Device events taken in, by kind", "kind")
PARKED = _gauge("mdh_parked_rows", "Pieces of blocks that wait for master data, for time or for a recalled day", "agent", "partition")
DETERMINANTS = _counter("mdh_determinants_total", "Bill determinants emitted, by kind and status", "kind", "status")

# --- agents --------------------------------------------------------------------------------------------------------------------
BATCH_ROWS = _histogram("mdh_batch_rows", "Rows of a batch", _ROWS, "step")
BATCH_BYTES = _histogram("mdh_batch_bytes", "Bytes of a batch", _BYTES, "step")
BATCH_SECONDS = _histogram("mdh_batch_seconds", "Time a batch took, without its transaction", _QUICK, "step")
TRANSACTION_SECONDS = _histogram("mdh_transaction_seconds", "Time a transaction took to commit", _QUICK, "agent")
TRANSACTIONS_FAILED = _counter("mdh_transactions_failed_total", "Transactions that did not commit", "agent")
COMMIT_AGE = _gauge("mdh_commit_age_seconds", "Since the last commit, while records wait", "agent", "partition")
LAG_RECORDS = _gauge("mdh_lag_records", "Records not yet handled", "group", "topic", "partition")
LAG_SECONDS = _gauge("mdh_lag_seconds", "Age of the oldest record not yet handled", "group", "topic", "partition")
RESTORE_SECONDS = _histogram("mdh_restore_seconds", "Time to read a partition's state back", _RECOVERY, "agent")
STATE_BYTES = _gauge("mdh_state_bytes", "Memory of a partition's state", "agent", "partition")
STATE_ROWS = _gauge("mdh_state_rows", "Rows of a partition's state", "agent", "partition")
SKIPPED = _counter("mdh_records_skipped_total", "Records delivered again and skipped", "agent")
GAPS = _counter("mdh_delivery_gaps_total", "Gaps in what was delivered; each stops the worker", "agent")
REBALANCES = _counter("mdh_rebalances_total", "Partitions assigned anew", "agent")

# --- dead letters --------------------------------------------------------------------------------------------------------------
DEAD_LETTERS = _counter("mdh_dead_letters_total", "Records put aside as undecodable", "topic")
DEAD_DEPTH = _gauge("mdh_dead_letter_records", "Dead letters kept, replayed or not", "topic")

# --- store ---------------------------------------------------------------------------------------------------------------------
INSERT_SECONDS = _histogram("mdh_store_insert_seconds", "Time of one insert", _QUICK, "table")
STORE_ROWS = _counter("mdh_store_rows_total", "Rows inserted", "table")
STORE_RETRIES = _counter("mdh_store_retries_total", "Inserts tried again", "table")
STORE_PARTS = _gauge("mdh_store_parts", "Active parts of a table; hundreds mean merges do not keep up", "table")
QUERY_SECONDS = _histogram("mdh_store_query_seconds", "Time of one query", _QUICK)

# --- subscribers: a hub has at most 200 ----------------------------------------------------------------------------------------
DELIVERIES = _counter("mdh_deliveries_total", "What was told of deliveries, by outcome (sent, retrying, dead …)", "subscriber", "outcome")
DELIVERED_ITEMS = _counter("mdh_delivered_items_total", "Items that subscribers have taken", "subscriber", "object")
DELIVERY_SECONDS = _histogram("mdh_delivery_seconds", "Time of one successful attempt", _QUICK, "kind")
DELIVERY_WAITING = _gauge("mdh_delivery_waiting_records", "Records that a subscriber has not been served yet", "subscriber")
DELIVERY_OLDEST = _gauge("mdh_delivery_oldest_seconds", "Age of the oldest record under delivery, 0: none", "subscriber")
DELIVERY_OPEN = _gauge("mdh_delivery_circuit_open", "Whether a receiver does not answer and is left alone: 1 or 0", "subscriber")

# --- prepaid -------------------------------------------------------------------------------------------------------------------
POSTINGS = _counter("mdh_prepaid_postings_total", "Postings to prepaid accounts, by kind", "kind")
PROOF_HOLDS = _gauge("mdh_prepaid_proof_holds", "Whether an agent's last hourly proof held: 1; 0: it has stopped posting", "partition")
LEDGER_HOLDS = _gauge("mdh_prepaid_ledger_holds", "Whether the ledger in the store adds up and its chains are whole: 1 or 0")
LEDGER_PROVED = _gauge("mdh_prepaid_ledger_proved_seconds", "When the ledger in the store was proved last, seconds since 1970")

# --- front door and processes --------------------------------------------------------------------------------------------------
REQUESTS = _counter("mdh_http_requests_total", "HTTP requests", "method", "route", "status")
REQUEST_SECONDS = _histogram("mdh_http_request_seconds", "Time to answer an HTTP request", _QUICK, "method", "route")
FILES = _counter("mdh_files_total", "Files found in the drop folder, by outcome (taken, refused)", "outcome")
CIS_MESSAGES = _counter("mdh_cis_messages_total", "Messages to CIS: sent, refused, or not taken because it was away", "system", "outcome")
TICKS = _counter("mdh_ticks_total", "Ticks written")
RESTARTS = _counter("mdh_restarts_total", "Processes started again after they died", "process")
READY = _gauge("mdh_ready", "Whether reads can flow through this process: 1 or 0", "process")

_MOST_SOURCES: Final = 200
_sources: Final[set[str]] = set()
_lock: Final = threading.Lock()


def source_label(source: str) -> str:
    """The source as a label; ``other`` once there are more than 200, so that labels stay bounded."""
    with _lock:
        if source in _sources:
            return source
        if len(_sources) >= _MOST_SOURCES:
            return "other"
        _sources.add(source)
    return source


def exposition() -> bytes:
    """All metrics in Prometheus' text format: of this process, or of all processes that share ``PROMETHEUS_MULTIPROC_DIR``."""
    registry = REGISTRY
    if os.environ.get(SHARED_FOLDER):
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def document() -> str:
    """The list of metrics as Markdown (docs/metrics.md)."""
    lines = [
        "# Metrics",
        "",
        "Made from `schemas/metrics.py` by `mdh schemas metrics`; change it there. Under `mdh up` the gateway serves those of all",
        "processes at `/metrics`; elsewhere every process serves its own (`--metrics-port` of `mdh worker`).",
        "Histograms also give `_bucket`, `_count` and `_sum`.",
        "",
        "| metric | kind | labels | meaning |",
        "|---|---|---|---|",
    ]
    lines += [f"| `{m.name}` | {m.kind} | {', '.join(m.labels) or '–'} | {m.about} |" for m in METRICS]
    return "\n".join(lines) + "\n"
