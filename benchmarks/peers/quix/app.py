"""The rules as a stateful Quix Streams application: one message per read, state by key in its store with a changelog."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import orjson
from quixstreams import Application, State

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import rules

first = True


def work(data: bytes, state: State) -> bytes | None:
    """One read; the day's result once it is complete."""
    global first
    if first:
        print(f"first {time.time()}", flush=True)
        first = False
    held, result = rules.take(state.get("day"), orjson.loads(data))
    state.set("day", held)
    return None if result is None else orjson.dumps(result)


def main() -> None:
    """Runs until terminated."""
    app = Application(
        broker_address=os.environ["BENCH_BROKER"],
        consumer_group="bench-quix",
        auto_offset_reset="earliest",
        processing_guarantee="at-least-once",
        state_dir=os.environ["BENCH_DATA"],
        producer_extra_config={"partitioner": "murmur2_random", "linger.ms": 20},
        loglevel="WARNING",
    )
    reads = app.topic(os.environ["BENCH_READS"], key_deserializer="bytes", value_deserializer="bytes")
    days = app.topic(os.environ["BENCH_DAYS"], key_serializer="bytes", value_serializer="bytes")
    frame = app.dataframe(reads).apply(work, stateful=True)
    frame = frame[frame.apply(lambda result: result is not None)]
    frame.to_topic(days)
    app.run()


if __name__ == "__main__":
    main()
