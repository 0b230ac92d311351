"""The code of workers and sinks, and their compiled kernels: loaded once, by the process the others are forked from."""

import importlib

from mdh.kernels import compile_all

for name in (
    "faust", "connectors.clickhouse.sink", "connectors.kafka.admin", "mdh.agents", "mdh.commands.worker", "mdh.contracts", "mdh.logs",
    "mdh.settings", "mdh.telemetry", "streams.runtime.app", "streams.runtime.meters",
):  # fmt: skip
    importlib.import_module(name)
compile_all()
