"""Every module keeps the rules, and every rule notices who does not."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.architecture import rules
from tests.architecture.rules import LAYERS, ROOT, STEPS, Module, modules

Rule = Callable[[Module], Iterator[str]]
RULES: list[Rule] = [rules.one_way, rules.steps_apart, rules.pure_steps, rules.faust_at_the_edge, rules.metrics_in_one_place]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_module_keeps_it(rule: Rule) -> None:
    broken = [found for module in modules() for found in rule(module)]
    assert not broken, f"{rule.__doc__}\n" + "\n".join(broken)


def test_all_modules_are_looked_at() -> None:
    names = {module.name for module in modules()}
    assert {"schemas.block", "streams.vee.engine", "streams.ingest.fold", "connectors.embedded.kafka", "mdh.cli"} <= names
    assert {name.split(".")[0] for name in names} == set(LAYERS)


@pytest.mark.parametrize(
    ("rule", "name", "source"),
    [
        (rules.one_way, "schemas.block", "from streams import calendar"),
        (rules.one_way, "schemas.block", "def f():\n    import mdh.cli"),
        (rules.one_way, "streams.vee.fold", "from connectors.clickhouse.store import Store"),
        (rules.one_way, "streams.vee.fold", "from ...connectors import kafka"),
        (rules.one_way, "connectors.embedded.kafka", "from mdh.errors import UsageError"),
        (rules.steps_apart, "streams.vee.fold", "from streams.ingest import fold"),
        (rules.steps_apart, "streams.vee.fold", "from ..determinants.fold import DeterminantsFold"),
        (rules.pure_steps, "streams.vee.rules.spike", "import time"),
        (rules.pure_steps, "streams.vee.rules.spike", "from os import environ"),
        (rules.pure_steps, "streams.ingest.fold", "def f():\n    from confluent_kafka import Producer"),
        (rules.pure_steps, "streams.determinants.fold", "x = datetime.datetime.now()"),
        (rules.pure_steps, "streams.determinants.fold", "x = date.today()"),
        (rules.pure_steps, "streams.vee.engine", "x = np.random.default_rng()"),
        (rules.pure_steps, "streams.vee.engine", "x = hash(device)"),
        (rules.pure_steps, "streams.vee.engine", "text = open('rules.txt').read()"),
        (rules.faust_at_the_edge, "connectors.clickhouse.sink", "import faust"),
        (rules.faust_at_the_edge, "streams.calendar", "from mode.supervisors import CrashingSupervisor"),
        (rules.metrics_in_one_place, "connectors.clickhouse.sink", "from prometheus_client import Counter"),
    ],
)
def test_a_breach_is_noticed_with_its_place(rule: Rule, name: str, source: str) -> None:
    [found] = rule(Module(name, ast.parse(source)))
    assert found.startswith(f"{name}:{2 if source.startswith('def') else 1}: ")


@pytest.mark.parametrize(
    ("rule", "name", "source"),
    [
        (rules.one_way, "mdh.cli", "from schemas.block import Block"),
        (rules.one_way, "streams.vee.fold", "from ..runtime import state"),
        (rules.steps_apart, "streams.vee.fold", "from streams.runtime.state import State"),
        (rules.pure_steps, "streams.runtime.partition", "import time"),
        (rules.pure_steps, "streams.determinants.fold", "x = datetime.fromtimestamp(at, UTC)"),
        (rules.metrics_in_one_place, "connectors.head_end.gateway", "from prometheus_client import generate_latest"),
    ],
)
def test_what_is_allowed_stays_allowed(rule: Rule, name: str, source: str) -> None:
    assert not list(rule(Module(name, ast.parse(source))))


def test_importing_a_step_loads_neither_kafka_nor_a_database() -> None:
    steps = [module.name for module in modules() if module.step]
    assert {name.split(".")[1] for name in steps} == set(STEPS)
    loaded = "import sys; bad = {'confluent_kafka', 'aiokafka', 'faust', 'chdb', 'clickhouse_connect', 'fastapi'} & set(sys.modules); "
    script = "".join(f"import {name}\n" for name in steps) + loaded + "sys.exit(' '.join(sorted(bad)) or 0)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"steps load {done.stderr.strip()}"
