"""The tick clock: one tick per partition and step of time, never twice, never backwards, never piling up."""

from __future__ import annotations

import threading
import time
from itertools import pairwise

from connectors.head_end.clock import TickClock
from connectors.head_end.publish import Writer
from connectors.kafka.client import KafkaSettings
from schemas.codec import Codec
from tests.brokers import read_all

CODEC = Codec()


class Now:
    """A clock that a test sets."""

    def __init__(self, at: float) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


def test_every_partition_gets_the_tick_of_each_whole_step(kafka: KafkaSettings, writer: Writer) -> None:
    now = Now(1_000_001.7)
    clock = TickClock(writer, CODEC, "hub.ticks", 3, 2, now)
    written = []
    for at in (1_000_001.7, 1_000_001.9, 1_000_002.0, 1_000_003.99, 1_000_007.2):
        now.at = at
        written.append(clock.due())
        writer.flush(60)
    assert written == [1_000_000, None, 1_000_002, None, 1_000_006]
    ticks = [(r.partition(), CODEC.decode(r.value()), dict(r.headers())["id"]) for r in read_all(kafka, "hub.ticks")]
    expected = [(p, {"at": at, "close": False}, f"tick/{at}/{p}".encode()) for p in range(3) for at in (1_000_000, 1_000_002, 1_000_006)]
    assert ticks == expected


def test_time_does_not_go_back(writer: Writer) -> None:
    now = Now(10_000)
    clock = TickClock(writer, CODEC, "hub.ticks", 1, 2, now)
    assert clock.due() == 10_000
    writer.flush(60)
    now.at = 6_400
    assert clock.due() is None
    now.at = 10_001
    assert clock.due() is None
    now.at = 10_002
    assert clock.due() == 10_002


def test_ticks_do_not_pile_up_while_kafka_is_away() -> None:
    writer = Writer(KafkaSettings(bootstrap="127.0.0.1:1"), max_bytes=1000, timeout=60)
    now = Now(1000)
    clock = TickClock(writer, CODEC, "hub.ticks", 2, 2, now)
    assert clock.due() == 1000
    for at in range(1002, 1100, 2):
        now.at = at
        assert clock.due() is None
    assert writer.flush(0) == 2
    writer.close(0)


def test_it_ticks_until_it_is_stopped(kafka: KafkaSettings, writer: Writer) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=TickClock(writer, CODEC, "hub.ticks", 1, 1).run, args=(stop,))
    thread.start()
    times: list[int] = []
    while len(times) < 2:
        time.sleep(0.2)
        times = [CODEC.decode(r.value())["at"] for r in read_all(kafka, "hub.ticks")]
    stop.set()
    thread.join(60)
    assert not thread.is_alive()
    times = [CODEC.decode(r.value())["at"] for r in read_all(kafka, "hub.ticks")]
    assert all(later > earlier for earlier, later in pairwise(times))  # a machine that stalls may miss a second, never repeat one
