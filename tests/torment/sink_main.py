"""The sink alone, as a process that can be killed: ``python -m tests.torment.sink_main BROKER FOLDER``."""

from __future__ import annotations

import signal
import sys
import threading

from connectors.clickhouse.migrate import up
from connectors.clickhouse.sink import Sink
from connectors.clickhouse.store import open_store
from connectors.kafka.settings import KafkaSettings
from mdh.logs import configure
from schemas.topology import load_topology

if __name__ == "__main__":
    broker, folder = sys.argv[1:]
    configure("warning", process="sink")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    store = open_store(f"chdb://{folder}")
    up(store)
    sink = Sink.from_topology(store, KafkaSettings(bootstrap=broker), load_topology(None))
    sink.run(stop)
    store.close()
