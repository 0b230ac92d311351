"""The rules of the house, as functions over syntax trees. ARCHITECTURE.md says why."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LAYERS = ("schemas", "streams", "connectors", "mdh")  # each may import those before it
STEPS = ("ingest", "master", "vee", "determinants", "insights")  # they know each other by topics only

# Steps are pure: what they may not touch, and what it is
OUTSIDE = {
    "confluent_kafka": "Kafka", "aiokafka": "Kafka", "faust": "Faust", "mode": "Faust",
    "clickhouse_connect": "a database", "chdb": "a database", "sqlite3": "a database",
    "time": "the clock", "os": "the environment", "subprocess": "the environment", "socket": "the network", "ssl": "the network",
    "httpx": "the network", "requests": "the network", "urllib": "the network", "fastapi": "the network",
    "random": "chance", "secrets": "chance", "uuid": "chance",
    "threading": "threads", "asyncio": "threads", "multiprocessing": "threads",
}  # fmt: skip
CLOCKS = {"now", "utcnow", "today"}  # of datetime and date
BUILTINS = {
    "open": "the environment",
    "input": "the environment",
    "print": "the environment",
    "hash": "chance: the hash of a text differs from run to run",
    "id": "chance: addresses differ from run to run",
}
METRICS = {"Counter", "Gauge", "Histogram", "Summary", "Info", "Enum"}


@dataclass(frozen=True, slots=True)
class Module:
    """A parsed file: ``name`` as it is imported, ``package`` tells an ``__init__``."""

    name: str
    tree: ast.Module
    package: bool = False

    @property
    def layer(self) -> str:
        return self.name.split(".")[0]

    @property
    def step(self) -> str | None:
        parts = self.name.split(".")
        return parts[1] if parts[0] == "streams" and len(parts) > 1 and parts[1] in STEPS else None


def modules() -> Iterator[Module]:
    """Every module of the product."""
    for layer in LAYERS:
        for path in sorted((ROOT / layer).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            package = parts[-1] == "__init__"
            yield Module(".".join(parts[:-1] if package else parts), ast.parse(path.read_text(), str(path)), package)


def imports(module: Module) -> Iterator[tuple[str, int]]:
    """What a module imports, at its head or inside functions, by full name: ``a.b`` and, for ``from a import b``, ``a.b`` too."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = module.name.split(".")[: (1 if module.package else 0) - node.level or None]
                base = ".".join([*above, base] if base else above)
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)


def one_way(module: Module) -> Iterator[str]:
    """Imports point one way: schemas ← streams ← connectors ← mdh."""
    own = LAYERS.index(module.layer)
    for name, line in imports(module):
        layer = name.split(".")[0]
        if layer in LAYERS and LAYERS.index(layer) > own:
            yield f"{module.name}:{line}: {module.layer} may not import {name}: imports point one way, {' ← '.join(LAYERS)}"


def steps_apart(module: Module) -> Iterator[str]:
    """Steps know each other by topics only."""
    for name, line in imports(module):
        parts = name.split(".")
        other = parts[1] if parts[0] == "streams" and len(parts) > 1 else None
        if module.step and other in STEPS and other != module.step:
            yield f"{module.name}:{line}: step {module.step} may not import step {other}: steps know each other by topics only"


def pure_steps(module: Module) -> Iterator[str]:
    """A step sees its state and a message, nothing else: no Kafka, clock, environment, chance, threads or database."""
    if not module.step:
        return
    for name, line in imports(module):
        if what := OUTSIDE.get(name.split(".")[0]):
            yield f"{module.name}:{line}: a step may not import {name} ({what}): it is a pure function of state and message"
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        if isinstance(function, ast.Name) and function.id in BUILTINS:
            yield f"{module.name}:{node.lineno}: a step may not call {function.id}() ({BUILTINS[function.id]}): runs must repeat exactly"
        if isinstance(function, ast.Attribute) and function.attr in CLOCKS and _names(function.value) & {"datetime", "date", "Timestamp"}:
            yield f"{module.name}:{node.lineno}: a step may not ask {ast.unparse(function)}(): time comes in as Tick records"
        if isinstance(function, ast.Attribute) and "random" in _names(function.value) and _names(function.value) & {"np", "numpy"}:
            yield f"{module.name}:{node.lineno}: a step may not call {ast.unparse(function)}(): runs must repeat exactly"


def faust_at_the_edge(module: Module) -> Iterator[str]:
    """Faust is imported in streams/runtime and, for its credentials, in connectors/kafka; nowhere else."""
    if module.name.startswith(("streams.runtime.", "connectors.kafka.", "mdh.")):
        return
    for name, line in imports(module):
        if name.split(".")[0] in ("faust", "mode"):
            yield f"{module.name}:{line}: Faust stays in streams/runtime, behind the fold: {name}"


def metrics_in_one_place(module: Module) -> Iterator[str]:
    """Metrics are declared in schemas/metrics.py, once, with their help."""
    if module.name == "schemas.metrics":
        return
    for name, line in imports(module):
        if name.startswith("prometheus_client.") and name.rpartition(".")[2] in METRICS:
            yield f"{module.name}:{line}: metrics are declared in schemas/metrics.py only: {name}"


def _names(node: ast.expr) -> set[str]:
    """The words of a dotted expression: ``np.random`` → {np, random}."""
    if isinstance(node, ast.Attribute):
        return {node.attr} | _names(node.value)
    return {node.id} if isinstance(node, ast.Name) else set()
