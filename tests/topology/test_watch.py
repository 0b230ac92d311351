"""Lag as operators see it: nothing waits behind a transaction's mark, and what waits has an age."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from connectors.kafka.admin import Administrator
from connectors.kafka.client import consumer, producer
from connectors.kafka.settings import KafkaSettings
from connectors.kafka.watch import Watch
from schemas import metrics
from schemas.topology import Topology, parse_topology
from tests.patience import eventually
from tests.topology.test_admin import SMALL

pytestmark = pytest.mark.broker


@pytest.fixture
def small(broker: str, topic_prefix: str) -> Iterator[Topology]:
    name = topic_prefix.rstrip(".")
    text = SMALL.replace("name: small", f"name: {name}").replace("partitions: 2", "partitions: 1")
    topology = parse_topology(text.format(p=topic_prefix))
    administrator = Administrator(KafkaSettings(bootstrap=broker))
    administrator.apply(topology)
    yield topology
    client = administrator._client
    for future in client.delete_topics(list(topology.topics)).values():
        future.exception(120)


def write(kafka: KafkaSettings, topic: str, count: int, transaction: str | None = None) -> None:
    made = producer(kafka, transaction)
    if transaction:
        made.init_transactions(120)
        made.begin_transaction()
    for _ in range(count):
        made.produce(topic, b"x", partition=0)
    if transaction:
        made.commit_transaction(120)
    assert made.flush(120) == 0


def handle(kafka: KafkaSettings, group: str, topic: str, offset: int) -> None:
    reader = consumer(kafka, group)

    def committed() -> bool:
        try:
            reader.commit(offsets=[TopicPartition(topic, 0, offset)], asynchronous=False)
        except KafkaException as error:
            if error.args[0].code() not in (KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.NOT_COORDINATOR):
                raise
            return False  # the broker has just begun
        return True

    eventually(committed)
    reader.close()


def value(gauge: object, **labels: str) -> float:
    (family,) = gauge.collect()  # type: ignore[attr-defined]
    return next(sample.value for sample in family.samples if sample.labels == labels)


def test_lag_counts_records_and_not_the_marks_of_transactions(broker: str, small: Topology) -> None:
    kafka, clock = KafkaSettings(bootstrap=broker), time.time
    inbox, group = small.agents["first"].inbox, small.group("agents")
    watch = Watch(kafka, small, now=lambda: clock() + shift)
    shift = 0.0
    write(kafka, inbox, 3, transaction=f"{small.name}-a")
    handle(kafka, group, inbox, 3)
    handle(kafka, "stranger", inbox, 1)
    (lag,) = watch.look()
    assert (lag.group, lag.topic, lag.partition, lag.records, lag.since) == (group, inbox, 0, 0, None)
    before = clock()
    write(kafka, inbox, 2)
    shift = 100.0
    (lag,) = eventually(lambda: (found := watch.look())[0].records == 3 and found)  # two records and the mark before them
    assert lag.since is not None
    assert 95 < value(metrics.LAG_SECONDS, group=group, topic=inbox, partition="0") < 105 + clock() - before
    handle(kafka, group, inbox, 6)
    (lag,) = watch.look()
    assert (lag.records, lag.since) == (0, None)
    assert value(metrics.LAG_RECORDS, group=group, topic=inbox, partition="0") == 0


def test_the_age_of_a_commit_grows_only_while_records_wait(broker: str, small: Topology) -> None:
    kafka, clock = KafkaSettings(bootstrap=broker), time.time
    inbox, group = small.agents["first"].inbox, small.group("agents")
    watch = Watch(kafka, small, now=lambda: clock() + shift)
    shift = 0.0

    def age() -> float:
        watch.look()
        return value(metrics.COMMIT_AGE, agent="first", partition="0")

    write(kafka, inbox, 5)
    handle(kafka, group, inbox, 5)
    assert age() == 0
    shift, before = 1000.0, clock()
    assert age() == 0, "nothing waits"
    write(kafka, inbox, 5)
    age()
    shift = 1300.0
    assert 300 <= age() <= 300 + clock() - before
    handle(kafka, group, inbox, 6)
    assert age() == 0, "it has moved"


def test_dead_letters_are_counted(broker: str, small: Topology) -> None:
    kafka = KafkaSettings(bootstrap=broker)
    dead = small.agents["first"].dead
    write(kafka, dead, 4)
    Watch(kafka, small).look()
    assert value(metrics.DEAD_DEPTH, topic=dead) == 4
