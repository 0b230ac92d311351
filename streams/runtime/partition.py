"""A lane on Kafka: takes a partition over, restores it, and commits outputs, state and checkpoint in one transaction."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from schemas import metrics
from streams.runtime.lane import GapError, Lane, Plan, Record
from streams.runtime.meters import publish
from streams.runtime.sabotage import Sabotage

log = structlog.get_logger(__name__)
RESTORE_BATCH: Final = 2_000
LARGEST: Final = 64 * 1024 * 1024  # of one record: a dead letter is as large as the largest payload, and its headers come on top
TELL_SECONDS: Final = 5.0  # between two looks at the size of the state, which take as long as it has entries
WAITING: Final = ("parked/", "late/")  # entries of the state that hold rows which wait for something
COMMIT_ATTEMPTS: Final = 8
FULL: Final = 20_000  # records in one transaction: what a few messages led to may be many times what they were


class FoldError(Exception):
    """A fold raised on a record: a bug, or bytes it should have refused."""

    def __init__(self, index: int, cause: Exception) -> None:
        super().__init__(f"{type(cause).__name__}: {cause}")
        self.index, self.cause = index, cause


class Partition:
    """Owner of one partition of one agent. Creating it fences the previous owner and reads the state back.

    ``client`` are librdkafka settings to reach the cluster. Methods block; call them from a thread, one at a time.
    """

    def __init__(
        self,
        plan: Plan,
        number: int,
        make_lane: Callable[[int], Lane],
        client: Mapping[str, Any],
        sabotage: Sabotage | None = None,
    ) -> None:
        self.plan, self.number, self.make_lane, self.client = plan, number, make_lane, dict(client)
        self.sabotage = sabotage or Sabotage()
        self.closed = False
        self._told = 0.0
        self.producer = Producer(
            {
                **self.client,
                "transactional.id": f"{plan.system}-{plan.agent}-{number}",
                "transaction.timeout.ms": 60_000,
                "partitioner": "murmur2_random",
                "compression.type": "lz4",
                "linger.ms": 5,
                "batch.size": 1_000_000,
                "message.max.bytes": LARGEST,
                "queue.buffering.max.messages": 1_000_000,
                "queue.buffering.max.kbytes": 1_048_576,
            }
        )
        self.producer.init_transactions(60)  # a crash right after: nothing changed, the next owner fences us the same way
        self.lane = self.restore()

    def restore(self) -> Lane:
        """A lane with the state of the last committed transaction."""
        began = time.monotonic()
        newest: dict[bytes, bytes | None] = {}
        lane = self.make_lane(self.number)
        reader = Consumer(
            {
                **self.client,
                "group.id": f"{self.plan.system}.{self.plan.agent}.restore",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "fetch.message.max.bytes": 16 * 1024 * 1024,
                "fetch.wait.max.ms": 10,  # an empty partition answers at once
            }
        )
        try:
            reader.assign([TopicPartition(self.plan.state, self.number, 0)])
            at_end = False
            while not at_end:
                for message in reader.consume(RESTORE_BATCH, 0.05):
                    error = message.error()
                    if error is None:
                        newest[message.key() or b""] = message.value()  # what compaction has not thrown away yet is not decoded
                    elif error.code() == KafkaError._PARTITION_EOF:
                        at_end = True
                    else:
                        raise KafkaException(error)
        finally:
            reader.close()
        rows = len(newest)
        lane.load_all(newest)
        metrics.RESTORE_SECONDS.labels(self.plan.agent).observe(time.monotonic() - began)
        log.info("restored", agent=self.plan.agent, partition=self.number, rows=rows, seconds=round(time.monotonic() - began, 3))
        return lane

    def process(self, records: Sequence[Record]) -> int:
        """Folds the records in order and commits what they led to; returns how many were new. Raises on anything unfinished."""
        records = [record for record in records if not self.sabotage.drop(record)]
        try:
            return self._advance(records)
        except FoldError as error:
            if not self.plan.letters:
                raise
            return self._around(records, error.index)

    def process_if_owned(self, records: Sequence[Record]) -> int:
        """As :meth:`process`; once the partition was left, a failure (mostly: fenced by the next owner) is no longer ours."""
        try:
            return self.process(records)
        except Exception as error:
            if not self.closed:
                raise
            log.info("left behind", agent=self.plan.agent, partition=self.number, reason=str(error))
            return 0

    def _advance(self, records: Sequence[Record]) -> int:
        agent, began = self.plan.agent, time.monotonic()
        handled, outputs = 0, list[Record]()
        for index, record in enumerate(records):
            if not self._is_next(record):
                continue
            try:
                outputs += self.lane.apply(record)
            except Exception as cause:
                raise FoldError(index, cause) from cause
            handled += 1
            if len(outputs) >= FULL:
                self.sabotage.strike("between fold and writes")
                self._commit(outputs)
                outputs = []
        if handled:
            metrics.BATCH_SECONDS.labels(agent).observe(time.monotonic() - began)
            metrics.BATCH_ROWS.labels(agent).observe(handled)
            metrics.BATCH_BYTES.labels(agent).observe(sum(len(record.value or b"") for record in records))
            self.sabotage.strike("between fold and writes")
            self._commit(outputs)
        return handled

    def _is_next(self, record: Record) -> bool:
        try:
            fresh = self.lane.is_next(record)
        except GapError:
            metrics.GAPS.labels(self.plan.agent).inc()
            raise
        for gap in self.lane.gaps:
            log.error("went on over a gap", agent=self.plan.agent, partition=self.number, gap=gap)
        self.lane.gaps.clear()
        if not fresh:
            metrics.SKIPPED.labels(self.plan.agent).inc()
        return fresh

    def _around(self, records: Sequence[Record], index: int) -> int:
        """Handles records of which one could not be folded: that one, if it fails again on restored state, is dead-lettered."""
        self.lane = self.restore()
        handled = self._advance(records[:index])
        poison = records[index]
        try:
            handled += self._advance([poison])
        except FoldError as error:
            where = {"topic": poison.topic, "partition": poison.partition, "offset": poison.offset}
            log.error("refused", agent=self.plan.agent, **where, reason=str(error))
            self.lane = self.restore()
            if self.lane.is_next(poison):
                self._commit(self.lane.refuse(poison, error.cause))
                handled += 1
        return handled + self.process(records[index + 1 :])

    def _commit(self, outputs: Sequence[Record]) -> None:
        agent, number, began = self.plan.agent, str(self.number), time.monotonic()
        try:
            self.producer.begin_transaction()
            for record in (*outputs, *self.lane.take_changed()):
                self._produce(record)
            self.sabotage.strike("between writes and commit")
            self._commit_transaction()
        except Exception:
            metrics.TRANSACTIONS_FAILED.labels(agent).inc()
            raise
        publish(self.lane.tallies)
        self.lane.tallies.clear()
        metrics.TRANSACTION_SECONDS.labels(agent).observe(time.monotonic() - began)
        if time.monotonic() - self._told > TELL_SECONDS:
            self._told = time.monotonic()
            state = self.lane.fold.state
            metrics.STATE_BYTES.labels(agent, number).set(state.nbytes())
            metrics.STATE_ROWS.labels(agent, number).set(sum(map(len, state.tables.values())))
            metrics.PARKED.labels(agent, number).set(sum(key.startswith(WAITING) for key in state.entries))

    def _commit_transaction(self) -> None:
        for attempt in range(1, COMMIT_ATTEMPTS + 1):
            try:
                self.producer.commit_transaction(30)
                return
            except KafkaException as error:
                # anything but "try again" leaves memory ahead of the log: the worker ends and starts from the checkpoint
                if not error.args[0].retriable() or attempt == COMMIT_ATTEMPTS:
                    raise

    def _produce(self, record: Record) -> None:
        while True:
            try:
                self.producer.produce(
                    record.topic, record.value, record.key, partition=record.partition, headers=dict(record.headers) or None
                )
                return
            except BufferError:
                self.producer.poll(0.1)

    def close(self) -> None:
        """Leaves the partition; what is not committed stays undone."""
        self.closed = True
