"""The production shape: valid, consistent with the code, and its queries answered by the real engines."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY, start_http_server

from mdh.cli import COMMANDS
from mdh.settings import Settings
from schemas import metrics

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
RATE = "30s"


def compose() -> dict[str, Any]:
    """compose.yaml with its variables filled in and its anchors resolved."""
    text = (DOCKER / "compose.yaml").read_text()
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)
    text = re.sub(r"\$\{\w+:\?[^}]*\}", "secret", text)
    document: dict[str, Any] = yaml.safe_load(text)
    return document


def panels() -> list[dict[str, Any]]:
    board = json.loads((DOCKER / "grafana" / "dashboards" / "pipeline.json").read_text())
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def queries(key: str) -> list[str]:
    return [target[key] for panel in panels() for target in panel["targets"] if key in target]


def metric_names(expression: str) -> set[str]:
    return set(re.findall(r"\bmdh_\w+", expression))


def known_names() -> set[str]:
    known = set()
    for declared in metrics.METRICS:
        known |= {declared.name + suffix for suffix in ("_bucket", "_count", "_sum")} if declared.kind == "histogram" else {declared.name}
    return known


# --- compose -----------------------------------------------------------------------------------------------------------------


def test_compose_follows_the_compose_specification() -> None:
    spec = pytest.importorskip("compose_spec", reason="the package compose-spec (group dev) is not installed")
    document = compose()
    spec.PyCompose.from_json(json.dumps(document)).validate()
    document["services"]["hub"]["helthcheck"] = {}
    with pytest.raises(ValueError, match="helthcheck"):
        spec.PyCompose.from_json(json.dumps(document))


def test_compose_is_complete_in_itself() -> None:
    document = compose()
    services = document["services"]
    for name, service in services.items():
        assert set(service.get("depends_on", [])) <= set(services), name
        assert set(service.get("networks", [])) <= set(document["networks"]), name
        for condition, wanted in service["depends_on"].items() if isinstance(service.get("depends_on"), dict) else ():
            if wanted["condition"] == "service_healthy":
                assert "healthcheck" in services[condition], f"{name} waits for the health of {condition}"
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (DOCKER / source).exists(), f"{name}: {source}"
            else:
                assert source in document["volumes"], f"{name}: {source}"
        if "build" not in service:
            assert re.search(r":[\w.-]*\d", service["image"]), f"{name}: an image needs a version"


def test_variables_are_explained() -> None:
    wanted = set(re.findall(r"\$\{(\w+):[-?]", (DOCKER / "compose.yaml").read_text())) - {"MDH_VERSION"}
    explained = set(re.findall(r"^(\w+)=", (DOCKER / ".env.example").read_text(), re.MULTILINE))
    assert wanted == explained


def test_our_containers_run_our_commands_with_our_settings() -> None:
    for name, service in compose()["services"].items():
        if "build" not in service:
            continue
        assert service["command"][0] in COMMANDS, name
        assert service["read_only"] is True
        for variable in service["environment"]:
            top = variable.removeprefix("MDH_").split("__")[0].lower()
            assert top in Settings.model_fields, f"{name}: {variable}"


def test_prometheus_scrapes_the_ports_at_which_metrics_are_served() -> None:
    jobs = {job["job_name"]: job for job in yaml.safe_load((DOCKER / "prometheus" / "prometheus.yaml").read_text())["scrape_configs"]}
    services = compose()["services"]
    assert jobs["worker"]["dns_sd_configs"][0]["port"] == services["worker"]["environment"]["MDH_METRICS_PORT"]
    assert jobs["hub"]["static_configs"][0]["targets"] == [f"hub:{services['hub']['environment']['MDH_PORT']}"]


def test_the_image_does_not_run_as_root_and_copies_what_exists() -> None:
    lines = (DOCKER / "Dockerfile").read_text().splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER")]
    assert users[-1].split(":")[0].isdigit()
    assert users[-1].split(":")[0] != "0"
    for line in lines:
        if line.startswith("COPY ") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists(), source


# --- Prometheus ----------------------------------------------------------------------------------------------------------------


def tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed (Debian: apt-get install prometheus)")
    return path


@pytest.mark.parametrize(
    "arguments", [["check", "rules", "rules.yaml"], ["check", "config", "prometheus.yaml"], ["test", "rules", "rules_test.yaml"]]
)
def test_prometheus_takes_the_rules_and_they_do_what_they_say(arguments: list[str]) -> None:
    done = subprocess.run([tool("promtool"), *arguments], cwd=DOCKER / "prometheus", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_dashboard_and_rules_use_declared_metrics_and_the_dashboard_all_of_them() -> None:
    shown = set().union(*(metric_names(expression) for expression in queries("expr")))
    rules = yaml.safe_load((DOCKER / "prometheus" / "rules.yaml").read_text())["groups"][0]["rules"]
    alerting = set().union(*(metric_names(rule["expr"]) for rule in rules))
    assert shown | alerting <= known_names()
    declared = {declared.name for declared in metrics.METRICS}
    assert declared == {re.sub(r"_(bucket|count|sum)$", "", name) if name not in declared else name for name in shown}


def test_every_alert_says_what_to_do_and_labels_exist() -> None:
    labels = {declared.name: set(declared.labels) for declared in metrics.METRICS}
    for rule in yaml.safe_load((DOCKER / "prometheus" / "rules.yaml").read_text())["groups"][0]["rules"]:
        if "alert" in rule:
            assert rule["labels"]["severity"] in ("warning", "critical")
            assert {"summary", "description"} <= set(rule["annotations"])
        names = {re.sub(r"_bucket$", "", name) for name in metric_names(rule["expr"])}
        allowed = set().union({"le"}, *(labels[name] for name in names))
        for group in re.findall(r"by \(([^)]*)\)", rule["expr"]):
            assert {label.strip() for label in group.split(",")} <= allowed, rule


def sample_every_metric() -> None:
    """Gives each declared metric a value under plausible labels."""
    collectors = {name: collector for collector, names in REGISTRY._collector_to_names.items() for name in names}
    usual = {"step": "ingest", "severity": "issue", "process": "hub", "agent": "vee", "partition": "0"}
    for declared in metrics.METRICS:
        metric: Any = collectors[declared.name]
        child = metric.labels(*(usual.get(label, "sample") for label in declared.labels)) if declared.labels else metric
        if declared.kind == "histogram":
            child.observe(0.02)
        elif declared.kind == "counter":
            child.inc()
        else:
            child.set(1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Prometheus that scrapes a process in which every declared metric has samples; its address."""
    binary = tool("prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    ours, port = free_port(), free_port()
    sample_every_metric()
    server, thread = start_http_server(ours, "127.0.0.1")
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(DOCKER / "prometheus" / "rules.yaml")],
        "scrape_configs": [{"job_name": "hub", "static_configs": [{"targets": [f"127.0.0.1:{ours}"]}]}],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    process = subprocess.Popen(
        [
            binary,
            f"--config.file={folder}/prometheus.yaml",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and scrapes(f"http://127.0.0.1:{port}") < 4:
            time.sleep(0.5)
            sample_every_metric()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(90)
        server.shutdown()
        thread.join(5)


def scrapes(url: str) -> int:
    """How often Prometheus has seen our metrics; 0 while it starts."""
    try:
        answer = ask(url, "count_over_time(mdh_ticks_total[30s])")
    except OSError:
        return 0
    return int(answer[0]["value"][1]) if answer else 0


def ask(url: str, expression: str) -> list[Any]:
    expression = expression.replace("$__rate_interval", RATE)
    request = f"{url}/api/v1/query?query={urllib.parse.quote(expression)}"
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            result: list[Any] = json.loads(answer.read())["data"]["result"]
            return result
    except urllib.error.HTTPError as error:
        pytest.fail(f"{expression}: {error.read().decode()}")


def test_every_panel_gets_an_answer_from_a_real_prometheus(prometheus: str) -> None:
    silent = [expression for expression in queries("expr") if not ask(prometheus, expression)]
    assert silent == []


def test_legends_name_labels_that_are_there(prometheus: str) -> None:
    for panel in panels():
        for target in panel["targets"]:
            labels = set(re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", "")))
            for series in ask(prometheus, target["expr"]) if labels else ():
                assert labels <= set(series["metric"]), panel["title"]


# --- Grafana and ClickHouse --------------------------------------------------------------------------------------------------------


def test_the_committed_dashboard_is_the_one_the_code_builds() -> None:
    pytest.importorskip("grafana_foundation_sdk", reason="the package grafana-foundation-sdk (group dev) is not installed")
    done = subprocess.run(
        [sys.executable, "-c", "import build, sys; sys.stdout.write(build.build())"],
        cwd=DOCKER / "grafana",
        capture_output=True,
        text=True,
        check=True,
    )
    committed = (DOCKER / "grafana" / "dashboards" / "pipeline.json").read_text()
    assert done.stdout == committed, "run: python docker/grafana/build.py"


def test_panels_use_the_provisioned_data_sources() -> None:
    folder = DOCKER / "grafana" / "provisioning" / "datasources"
    sources = {source["uid"] for source in yaml.safe_load((folder / "datasources.yaml").read_text())["datasources"]}
    assert {panel["datasource"]["uid"] for panel in panels()} == sources
    numbers = [panel["id"] for panel in panels()]
    assert len(numbers) == len(set(numbers))


def test_clickhouse_takes_every_query_of_the_dashboard(tmp_path: Path) -> None:
    """Against the views as migrated, in a process of its own: it would own the store."""
    code = """
import json, sys
from connectors.clickhouse.migrate import up
from connectors.clickhouse.store import Store, parse_dsn
store = Store(parse_dsn("chdb://" + sys.argv[1]))
up(store)
for query in json.load(sys.stdin):
    store.query_arrow(query)
store.close()
"""
    texts = []
    for query in queries("rawSql"):
        filled = re.sub(r"\$__timeFilter\((\w+)\)", r"(\1 >= toDateTime(0) AND \1 <= toDateTime(2000000000))", query)
        texts.append(filled.replace("${device:sqlstring}", "'S0000001'"))
    assert len(texts) >= 5
    assert not [text for text in texts if "$" in text]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "store")],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-2000:]
