"""The Faust edge: delivers inbox records to partitions, always from their checkpoint. Everything that matters happens in Partition.

Faust runs at-least-once on committed records only; its own committed offsets serve lag displays and nothing else.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn

import faust
import structlog
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport
from faust.types import TP
from mode.supervisors import CrashingSupervisor
from yarl import URL

from schemas import metrics
from schemas.codec import Codec
from streams.runtime.conveyor import Conveyor, Item
from streams.runtime.ending import end_within
from streams.runtime.fold import Fold
from streams.runtime.lane import Lane, Plan, Record
from streams.runtime.partition import Partition
from streams.runtime.sabotage import Sabotage

log = structlog.get_logger(__name__)
THREADS: Final = 64  # as many partitions of a worker may wait for the broker at a time
COMMIT_SECONDS: Final = 5.0
STOP_SECONDS: Final = 8.0  # a worker that stops or has failed ends within these, in good order or not


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """One agent to run: its plan and how to make its fold for a partition."""

    plan: Plan
    make_fold: Callable[[int], Fold]


@dataclass(frozen=True, slots=True)
class RuntimeSettings:
    """How a worker reaches the cluster and how it batches."""

    broker: str  # host:port[,host:port…]
    client: Mapping[str, Any]  # librdkafka settings
    group: str
    faust: Mapping[str, Any] = field(default_factory=dict)  # settings of the Faust app over ours: credentials, timeouts
    within: float = 0.01  # seconds to wait for a fuller batch
    session_timeout: float = 20.0
    accept_gaps: bool = False  # an operator's decision: go on although records are gone from Kafka


class Owned:
    """The partitions this worker owns, by agent and number."""

    def __init__(self, agents: Sequence[AgentSpec], settings: RuntimeSettings, sabotage: Sabotage | None, codec: Codec | None) -> None:
        self.agents = {spec.plan.agent: spec for spec in agents}
        self.settings, self.sabotage, self.codec = settings, sabotage, codec or Codec()
        self.partitions: dict[tuple[str, int], Partition] = {}
        self.executor = ThreadPoolExecutor(THREADS, "partition")

    def take_over(self, agent: str, number: int) -> Partition:
        """Takes a partition over and restores it (blocking)."""
        spec = self.agents[agent]

        def make_lane(n: int) -> Lane:
            lane = Lane(spec.plan, n, spec.make_fold, self.codec)
            lane.accept_gaps = self.settings.accept_gaps
            return lane

        return Partition(spec.plan, number, make_lane, self.settings.client, self.sabotage)

    def forget(self) -> None:
        """Every rebalance starts again from the checkpoints."""
        for partition in self.partitions.values():
            partition.close()
        self.partitions.clear()

    def assigned(self, topic_partitions: Any) -> dict[tuple[str, int], list[Any]]:
        """Faust's assignment by agent and number. Raises if an agent's topics of one number went to different workers."""
        lanes: dict[tuple[str, int], list[Any]] = defaultdict(list)
        for tp in topic_partitions:
            for name, spec in self.agents.items():
                if tp.topic in spec.plan.reads:
                    lanes[name, tp.partition].append(tp)
        for (name, number), tps in lanes.items():
            missing = self.agents[name].plan.reads - {tp.topic for tp in tps}
            if missing:
                raise RuntimeError(f"{name}/{number}: {sorted(missing)} went to another worker; partition counts must be equal")
        return lanes


def _transport(owned: Owned, broker: str, app: Any) -> Any:
    class CheckpointThread(AIOKafkaConsumerThread):
        def _create_worker_consumer(self, transport: Any) -> Any:
            # Faust reads committed records only in its own exactly_once mode: borrow that flag while the consumer is made
            mode, self.consumer.in_transaction = self.consumer.in_transaction, True
            try:
                return super()._create_worker_consumer(transport)
            finally:
                self.consumer.in_transaction = mode

        async def commit(self, offsets: Any) -> bool:
            # Faust waits for ever for a thread that has failed; and what is committed here is for displays only
            if self.should_stop:
                return False
            try:
                return bool(await asyncio.wait_for(super().commit(offsets), COMMIT_SECONDS))
            except TimeoutError:
                return False

    class CheckpointConsumer(Consumer):
        def _new_consumer_thread(self) -> Any:
            return CheckpointThread(self, loop=self.loop, beacon=self.beacon)

        async def seek_to_committed(self) -> Any:
            positions = dict(await super().seek_to_committed())
            began = time.monotonic()
            owned.forget()
            lanes = owned.assigned(self.assignment())
            run = asyncio.get_running_loop().run_in_executor
            made = await asyncio.gather(*(run(None, owned.take_over, *lane) for lane in lanes))
            owned.partitions.update(zip(lanes, made, strict=True))
            for agent, _ in lanes:
                metrics.REBALANCES.labels(agent).inc()
            starts: dict[Any, int] = {}
            for lane, tps in lanes.items():
                for tp in tps:  # of agents that share an inbox the one furthest behind; the others skip what they know
                    at = owned.partitions[lane].lane.next_offset(tp.topic)
                    starts[tp] = min(at, starts.get(tp, at))
            await self.seek_wait(starts)
            log.info("assigned", partitions=len(lanes), seconds=round(time.monotonic() - began, 3))
            return {**positions, **starts}

    class CheckpointTransport(Transport):
        Consumer = CheckpointConsumer

    return CheckpointTransport([URL(f"aiokafka://{broker}")], app, loop=app.loop)


def _faust_settings(settings: RuntimeSettings) -> dict[str, Any]:
    return {
        "store": "memory://",
        "web_enabled": False,
        "topic_allow_declare": False,
        "topic_disable_leader": True,
        "table_standby_replicas": 1,  # picks the assignor that keeps equal partition numbers of all topics together
        "key_serializer": "raw",
        "value_serializer": "raw",
        "processing_guarantee": "at_least_once",
        "consumer_auto_offset_reset": "earliest",
        "broker_session_timeout": settings.session_timeout,
        "broker_heartbeat_interval": settings.session_timeout / 5,
        "broker_commit_interval": 2.0,
        "broker_max_poll_records": 256,
        "broker_request_timeout": max(90.0, settings.session_timeout),
        "consumer_max_fetch_size": 8 * 1024 * 1024,
        "stream_buffer_maxsize": 256,
        "stream_wait_empty": True,
    }


def create_app(agents: Sequence[AgentSpec], settings: RuntimeSettings, sabotage: Sabotage | None = None, codec: Codec | None = None) -> Any:
    """A Faust app that runs the given agents. Workers with the same group share the partitions. ``codec`` without means the committed
    schema ids."""
    owned = Owned(agents, settings, sabotage, codec)
    app = faust.App(settings.group, broker=f"aiokafka://{settings.broker}", **{**_faust_settings(settings), **settings.faust})
    app.transport = _transport(owned, settings.broker, app)

    async def forget(*_: Any, **__: Any) -> None:
        owned.forget()

    app.on_partitions_revoked.connect(forget)
    for spec in agents:
        _add_agent(app, spec.plan, owned, settings)
    app.finalize()
    return app


class _Mortal(faust.Worker):
    """A worker that surely ends. Faust's own stop may wait for ever for an answer of a consumer thread that has ended before it, and
    a worker that hangs so keeps its partitions from all others. Its state is in Kafka, so it may go in the middle of anything."""

    _ending = False

    def _crash(self, reason: BaseException) -> None:
        self._end_soon()
        super()._crash(reason)

    async def stop(self) -> None:
        self._end_soon()
        await super().stop()

    def _end_soon(self) -> None:
        if not self._ending:
            self._ending = True
            end_within(STOP_SECONDS, lambda: 1 if self.crashed else 0)


def run_worker(app: Any, folder: Path) -> NoReturn:
    """Runs an app as this process until it is interrupted (exits 0) or fails (exits 1 or raises); both end within STOP_SECONDS."""
    worker = _Mortal(app, quiet=True, loglevel="WARNING", redirect_stdouts=False, workdir=str(folder), override_logging=False)
    worker.execute_from_commandline()


def _add_agent(app: Any, plan: Plan, owned: Owned, settings: RuntimeSettings) -> None:
    topic = app.topic(*sorted(plan.reads), value_type=bytes, key_type=bytes, value_serializer="raw", key_serializer="raw")

    # CrashingSupervisor: an error ends the worker, so nothing unfinished is ever acknowledged
    @app.agent(topic, name=plan.agent, supervisor_strategy=CrashingSupervisor, concurrency=1)  # type: ignore[untyped-decorator]
    async def deliver(stream: Any) -> None:
        stream.enable_acks = False  # noack_take restores this value when closed: True would acknowledge what was never handled
        conveyor = Conveyor(owned.executor, plan.batch, stream.ack, app.consumer.on_buffer_full, app.consumer.on_buffer_drop)
        batches = stream.noack_take(plan.batch, within=settings.within)
        coming = None
        try:
            while (events := await conveyor.until(coming := asyncio.ensure_future(anext(batches, None)))) is not None:
                items = []
                for event in events:
                    message = event.message
                    owner = owned.partitions.get((plan.agent, message.partition))
                    if owner is None or message.generation_id != app.consumer_generation_id:  # a rebalance took it in the meantime
                        await stream.ack(event)
                    else:
                        items.append(Item(event, TP(message.topic, message.partition), _record(message), owner))
                conveyor.add(items)
        finally:
            if coming is not None:
                coming.cancel()
            conveyor.close()


def _record(message: Any) -> Record:
    headers = message.headers
    return Record(
        message.topic,
        message.partition,
        message.key or b"",
        message.value,
        dict(headers.items() if isinstance(headers, Mapping) else headers or ()),
        message.offset,
    )
