"""The toy chain as a worker process: ``python -m tests.runtime.toy_worker BROKER PARTITIONS TORMENT FOLDER [GROUP [wedged]]``."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from faust.transport.consumer import Consumer

from streams.runtime import conveyor
from streams.runtime.app import AgentSpec, RuntimeSettings, create_app, run_worker
from streams.runtime.sabotage import Sabotage, Torment
from tests.runtime.counting import PARTITIONS, CountFold, plan


async def never_ending(_: Any) -> None:
    await asyncio.Event().wait()


if __name__ == "__main__":
    broker, count, rate = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    conveyor.WAITING_RECORDS = 3  # type: ignore[misc]  # so that fetching is held and released all the time
    group = sys.argv[5] if len(sys.argv) > 5 else "toy"
    if "wedged" in sys.argv[6:]:
        Consumer.on_stop = never_ending  # as when its thread ended first
    PARTITIONS.update(dict.fromkeys(PARTITIONS, count))
    agents = [AgentSpec(plan("first"), lambda _: CountFold("middle")), AgentSpec(plan("second"), lambda _: CountFold("out"))]
    # librdkafka's mock broker stores transactional batches with a checksum of their own
    settings = RuntimeSettings(broker, {"bootstrap.servers": broker}, group, {"broker_check_crcs": False}, session_timeout=6.0)
    run_worker(create_app(agents, settings, Torment(rate) if rate else Sabotage()), Path(sys.argv[4]))
