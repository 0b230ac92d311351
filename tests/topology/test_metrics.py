"""Metrics: declared once, named alike, bounded, created nowhere else."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from schemas import metrics
from schemas.metrics import METRICS, source_label

ROOT = Path(__file__).resolve().parent.parent.parent
CODE = [path for part in ("schemas", "streams", "connectors", "mdh") for path in (ROOT / part).rglob("*.py")]
MAKERS = {"Counter", "Gauge", "Histogram", "Summary", "Info", "Enum"}


def made_metrics(source: str) -> list[str]:
    """Calls that create a metric in a module, under whatever name it imported the class."""
    tree = ast.parse(source)
    names: set[str] = set()
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("prometheus_client"):
            names |= {alias.asname or alias.name for alias in node.names if alias.name in MAKERS}
        if isinstance(node, ast.Import):
            modules |= {alias.asname or alias.name for alias in node.names if alias.name.startswith("prometheus_client")}
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [ast.unparse(c) for c in calls if ast.unparse(c.func) in names or (
        isinstance(c.func, ast.Attribute) and c.func.attr in MAKERS and ast.unparse(c.func.value) in modules)]  # fmt: skip


def test_nobody_else_makes_metrics() -> None:
    made = {path.relative_to(ROOT).as_posix(): made_metrics(path.read_text()) for path in CODE}
    assert [path for path, calls in made.items() if calls] == ["schemas/metrics.py"]


@pytest.mark.parametrize(
    "source",
    [
        "from prometheus_client import Counter\nCounter('a', 'b')",
        "from prometheus_client import Gauge as G\nx = [G('a', 'b')]",
        "import prometheus_client\nprometheus_client.Histogram('a', 'b')",
        "import prometheus_client as p\np.Info('a', 'b')",
    ],
)
def test_the_search_finds_every_way_to_make_one(source: str) -> None:
    assert made_metrics(source)
    assert not made_metrics("from collections import Counter\nCounter('abc')")


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
def test_names_units_and_labels_follow_the_rules(metric: metrics.Declared) -> None:
    assert re.fullmatch(r"mdh_[a-z]+(_[a-z]+)*", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    if metric.kind == "histogram":
        assert metric.name.endswith(("_seconds", "_bytes", "_rows"))
        assert list(metric.buckets) == sorted(set(metric.buckets))
    assert metric.about[0].isupper()
    assert "\n" not in metric.about
    assert not {"device", "channel", "meter", "account", "payload", "id"} & set(metric.labels)
    assert all(re.fullmatch("[a-z]+", label) for label in metric.labels)


def test_declared_and_created_are_the_same() -> None:
    assert len({m.name for m in METRICS}) == len(METRICS)
    served = {family.name: family.documentation for family in text_string_to_metric_families(generate_latest().decode())}
    for metric in METRICS:
        assert served[metric.name.removesuffix("_total")] == metric.about


def test_the_minimum_set_is_there() -> None:
    names = {m.name for m in METRICS}
    assert {
        "mdh_reads_in_total", "mdh_reads_out_total", "mdh_reads_rejected_total", "mdh_read_age_seconds", "mdh_batch_rows",
        "mdh_batch_bytes", "mdh_batch_seconds", "mdh_commit_age_seconds", "mdh_lag_records", "mdh_lag_seconds", "mdh_restore_seconds",
        "mdh_dead_letters_total", "mdh_dead_letter_records", "mdh_store_insert_seconds", "mdh_store_parts", "mdh_completeness_ratio",
        "mdh_exceptions_total", "mdh_transaction_seconds", "mdh_restarts_total", "mdh_store_query_seconds", "mdh_source_clock_skew_seconds",
    } <= names  # fmt: skip


def test_sources_do_not_multiply_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_sources", set())
    labels = {source_label(f"source-{n}") for n in range(1000)}
    assert len(labels) == metrics._MOST_SOURCES + 1
    assert source_label("source-3") == "source-3"
    assert source_label("source-999") == "other"


def test_processes_that_share_a_folder_are_seen_as_one(tmp_path: Path) -> None:
    program = """
import sys
from schemas import metrics
metrics.READS_IN.labels("vee").inc(int(sys.argv[1]))
metrics.STATE_ROWS.labels("vee", "0").set(int(sys.argv[1]))
metrics.INSERT_SECONDS.labels("t").observe(0.5)
sys.stdout.write(metrics.exposition().decode())
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), metrics.SHARED_FOLDER: str(tmp_path)}
    seen = ""
    for amount in ("5", "7"):
        seen = subprocess.run([sys.executable, "-c", program, amount], env=environment, capture_output=True, text=True, check=True).stdout
    assert 'mdh_reads_in_total{step="vee"} 12.0' in seen
    assert 'mdh_state_rows{agent="vee",partition="0"} 7.0' in seen, "whoever spoke last is right"
    assert 'mdh_store_insert_seconds_count{table="t"} 2.0' in seen


def test_a_process_alone_shows_itself() -> None:
    assert b"mdh_ticks_total" in metrics.exposition()
    assert b"python_info" in metrics.exposition()


def test_every_declared_metric_is_set_somewhere() -> None:
    names = {name for name, value in vars(metrics).items() if isinstance(value, metrics.Metric)}
    assert len(names) == len(METRICS)
    code = "\n".join(path.read_text() for path in CODE if path.name != "metrics.py")
    assert not [name for name in names if not re.search(rf"\bmetrics\.{name}\b", code)]
