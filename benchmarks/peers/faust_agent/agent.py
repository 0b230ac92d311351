"""The rules as a per-read Faust agent with a Table, the way the framework is documented: one message per read."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import faust
import orjson

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import rules

app = faust.App(
    "bench-faust",
    broker=f"kafka://{os.environ['BENCH_BROKER']}",
    store="memory://",
    topic_partitions=int(os.environ["BENCH_PARTITIONS"]),
    consumer_auto_offset_reset="earliest",
    producer_linger=0.02,
    stream_wait_empty=False,
    web_enabled=False,
    datadir=os.environ["BENCH_DATA"],
)
reads = app.topic(os.environ["BENCH_READS"], key_type=bytes, key_serializer="raw", value_type=bytes, value_serializer="raw")
days = app.topic(os.environ["BENCH_DAYS"], key_type=bytes, key_serializer="raw", value_type=bytes, value_serializer="raw")
first = True


async def recovered(*_) -> None:
    """Tells when the Table is back."""
    print(f"recovered {time.time()} {len(state)}", flush=True)


state = app.Table("state", default=lambda: None, key_type=str, on_recover=recovered)


@app.on_partitions_assigned.connect
async def assigned(*_, **__) -> None:
    """Tells when recovery begins."""
    print(f"assigned {time.time()}", flush=True)


@app.agent(reads)
async def work(stream) -> None:
    """One read after the other."""
    global first
    async for data in stream:
        if first:
            print(f"first {time.time()}", flush=True)
            first = False
        read = orjson.loads(data)
        key = f"{read['device']}|{read['channel']}"
        state[key], result = rules.take(state.get(key), read)
        if result is not None:
            await days.send(key=key.encode(), value=orjson.dumps(result))


if __name__ == "__main__":
    app.main()
