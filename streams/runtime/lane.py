"""One partition of one agent: checks what arrives, folds it, and puts outputs into envelopes. Pure: records in, records out.

The envelope (Kafka headers) carries the id and the payload that caused a record, its writer and the writer's sequence number for
that partition, and, on the last record of each group, the receipt it completes. Delivery is checked here: a record seen
before is skipped, a gap raises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from schemas.codec import Codec
from schemas.identity import identities, identity, partition_of
from streams.runtime.fold import RAW, Fold, Message, Output, Result
from streams.runtime.meters import Tally, tally
from streams.runtime.state import LayoutError

CHECKPOINT: Final = b"checkpoint"
LAYOUT: Final = b"layout"
RECEIPTS: Final = "hub.receipts"
ID, PAYLOAD, WRITER, SEQUENCE = "mdh-id", "mdh-payload", "mdh-writer", "mdh-seq"
RECEIPT, PARENT = "mdh-receipt", "mdh-parent"


@dataclass(frozen=True, slots=True)
class Record:
    """A Kafka record as read (with its offset) or to be written (offset -1)."""

    topic: str
    partition: int
    key: bytes
    value: bytes | None
    headers: Mapping[str, bytes] = field(default_factory=dict)
    offset: int = -1


class GapError(Exception):
    """Records are missing between what was handled last and what came.

    Mostly the delivery lost them and a restart from the checkpoint brings them. If they are gone from Kafka, only a person can decide.
    """

    def __init__(self, record: Record, found: str) -> None:
        where = f"{record.topic}/{record.partition} at offset {record.offset}"
        super().__init__(f"{where}: {found}; if a restart does not bring the records between, MDH_ACCEPT_GAPS=1 goes on without them")


@dataclass(frozen=True, slots=True)
class Plan:
    """What the runtime must know of one agent and of the topics around it; made from topology.yaml."""

    system: str  # the name of the topology: one per hub and cluster
    agent: str
    inbox: str | None  # written by agents only, sequence numbers in the envelope
    plain: frozenset[str]  # written from outside, their offsets are the sequence
    raw: frozenset[str]  # of these the ones that hold bytes no schema describes
    sparse: frozenset[str]  # of these the compacted ones, whose offsets have holes
    state: str
    partitions: Mapping[str, int]  # of every topic
    stored: frozenset[str]  # the sink confirms what it stored of these
    inboxes: Mapping[str, int]  # how many agents read a topic; each will write a receipt of its own
    batch: int = 192  # records of a partition in one transaction at most
    letters: str = ""  # where records go that the fold cannot take

    @property
    def reads(self) -> frozenset[str]:
        """All topics the agent reads."""
        return self.plain | ({self.inbox} if self.inbox else frozenset())


@dataclass(slots=True)
class Checkpoint:
    """Where a lane stands. Written in the same transaction as the outputs and the state it belongs to."""

    offsets: dict[str, int] = field(default_factory=dict)  # topic → last offset handled
    received: dict[str, int] = field(default_factory=dict)  # writer → its last sequence number handled
    sent: dict[str, int] = field(default_factory=dict)  # topic/partition → last sequence number written
    folded: int = 0  # messages handled since the beginning

    def to_bytes(self) -> bytes:
        return orjson.dumps([self.offsets, self.received, self.sent, self.folded], option=orjson.OPT_SORT_KEYS)

    @classmethod
    def from_bytes(cls, data: bytes) -> Checkpoint:
        return cls(*orjson.loads(data))


class Lane:
    """Fold, state and checkpoint of one partition."""

    def __init__(self, plan: Plan, partition: int, make_fold: Callable[[int], Fold], codec: Codec) -> None:
        self.plan, self.partition, self.codec = plan, partition, codec
        self.fold = make_fold(partition)
        self.checkpoint = Checkpoint()
        self.writer = f"{plan.agent}/{partition}"
        self._signed = self.writer.encode()
        self.accept_gaps = False  # an operator decided to go on without what is missing
        self.gaps: list[str] = []  # those accepted
        self._layout: dict[str, str] = {}  # as the state topic has it
        self.tallies: list[Tally] = []  # of messages folded since someone emptied it

    # --- state -----------------------------------------------------------------------------------------------------------

    def load(self, key: bytes, value: bytes | None) -> None:
        """Takes one row of the state topic back. Raises LayoutError for a state of another layout."""
        if key == CHECKPOINT:
            self.checkpoint = Checkpoint.from_bytes(value or b"[{}, {}, {}, 0]")
        elif key == LAYOUT:
            self._layout = orjson.loads(value or b"{}")
            try:
                self.fold.state.check(self._layout)
            except LayoutError as error:
                raise LayoutError(f"state of {self.writer} in {self.plan.state}: {error} (docs/running.md: other versions)") from error
        else:
            self.fold.state.load(key, value)

    def load_all(self, rows: dict[bytes, bytes | None]) -> None:
        """Takes the newest row of every key of the state topic back. Raises as :meth:`load`."""
        for key in (CHECKPOINT, LAYOUT):
            if mark := rows.pop(key, None):
                self.load(key, mark)
        try:
            self.fold.state.load_all(rows)
        except LayoutError as error:
            raise LayoutError(f"state of {self.writer} in {self.plan.state}: {error}") from error

    def take_changed(self) -> list[Record]:
        """Rows for the state topic: what changed since the last call, the checkpoint, and the layout if it is a new one."""
        rows: list[tuple[bytes, bytes | None]] = [*self.fold.state.take_changed(), (CHECKPOINT, self.checkpoint.to_bytes())]
        layout = self.fold.state.layout()
        if layout != self._layout:
            self._layout = layout
            rows.append((LAYOUT, orjson.dumps(layout)))
        return [Record(self.plan.state, self.partition, key, value) for key, value in rows]

    def next_offset(self, topic: str) -> int:
        """Where to go on reading a topic."""
        return self.checkpoint.offsets.get(topic, -1) + 1

    # --- messages --------------------------------------------------------------------------------------------------------

    def is_next(self, record: Record) -> bool:
        """True: to be handled; False: handled before. Raises GapError where records are missing. Moves the checkpoint."""
        mark = self.checkpoint
        if record.topic in self.plan.plain:
            last = mark.offsets.get(record.topic)
            if last is not None and record.offset <= last:
                return False
            if last is not None and record.offset != last + 1 and record.topic not in self.plan.sparse:
                self._gap(record, f"offset {record.offset} came after {last}")
        else:
            writer, number = record.headers[WRITER].decode(), int(record.headers[SEQUENCE])
            last = mark.received.get(writer, -1)
            if number <= last:
                return False
            if number != last + 1:
                self._gap(record, f"{writer} sent {number} after {last}")
            mark.received[writer] = number
        mark.offsets[record.topic] = record.offset
        return True

    def _gap(self, record: Record, found: str) -> None:
        if not self.accept_gaps:
            raise GapError(record, found)
        self.gaps.append(found)

    def apply(self, record: Record) -> list[Record]:
        """Folds the record :meth:`is_next` let pass; returns what to write besides the state."""
        message = self.read(record)
        return self._seal(message, self.fold.apply(message))

    def refuse(self, record: Record, reason: Exception) -> list[Record]:
        """Dead-letters a record the fold cannot take, unchanged; its payload's receipt says so."""
        message = self._message(record, RAW, record.value)
        letter = dead_letter(self.plan.letters, record, self.plan.agent, reason)
        return self._seal(message, Result([letter], {"status": "dead", "dead": 1, "reason": str(reason)[:500]}))

    def read(self, record: Record) -> Message:
        """The message behind a record. Raises ValueError if its bytes follow no known schema."""
        if record.topic in self.plan.raw:
            return self._message(record, RAW, record.value)
        return self._message(record, self.codec.name_of(record.value or b""), self.codec.decode(record.value or b""))

    def _message(self, record: Record, kind: str, body: Any) -> Message:
        headers = record.headers
        if record.topic in self.plan.plain:
            given = headers.get("id")
            own = given.decode(errors="replace") if given else identity(record.topic, record.partition, record.offset)
            payload = own if given or record.topic in self.plan.raw else ""
            if PAYLOAD in headers and record.topic not in self.plan.raw:
                payload = headers[PAYLOAD].decode(errors="replace")  # an answer from the store belongs to the payload that asked
        else:
            own, payload = headers[ID].decode(), headers.get(PAYLOAD, b"").decode()
        writer = headers.get(WRITER, b"").decode()
        return Message(kind, body, own, payload, record.key, record.topic, record.partition, record.offset, writer, headers)

    def _seal(self, message: Message, result: Result) -> list[Record]:
        plan, mark = self.plan, self.checkpoint
        self.tallies.append(tally(plan.agent, message, result))
        receipt = f"{self.writer}/{mark.folded}"
        mark.folded += 1
        placed = [(output, self._place(output)) for output in result.outputs]
        last = {(output.topic, number): i for i, (output, number) in enumerate(placed)} if message.payload else {}
        children = sum(topic in plan.stored for topic, _ in last)
        children += sum(plan.inboxes.get(output.topic, 0) for output, _ in placed) if message.payload else 0
        records = list[Record]()
        ids = identities(len(placed) + 1, message.id, plan.agent)
        for i, (output, number) in enumerate(placed):
            headers = self._envelope(ids[i], output.topic, number)
            if message.payload:
                headers[PAYLOAD] = message.payload.encode()
                if last[output.topic, number] == i and output.topic in plan.stored:
                    headers[RECEIPT] = receipt.encode()
                if output.topic in plan.inboxes:
                    headers[PARENT] = receipt.encode()
            same = i > 0 and output.body is placed[i - 1][0].body and output.type == placed[i - 1][0].type
            known = records[-1].value if same else None
            records.append(self._record(output, number, {**output.headers, **headers} if output.headers else headers, known))
        if message.payload and not result.silent:
            parent = "" if message.topic in plan.raw else message.headers.get(PARENT, b"").decode(errors="replace")
            node = {"payload": message.payload, "id": receipt, "agent": plan.agent, "children": children, "parent": parent}
            body = {"status": "", **result.figures, **node}
            output = Output(RECEIPTS, "Receipt", body, message.payload.encode(), self.partition)
            records.append(self._record(output, self.partition, self._envelope(ids[-1], RECEIPTS, self.partition)))
        return records

    def _place(self, output: Output) -> int:
        if output.partition is not None:
            return output.partition
        return partition_of(output.key, self.plan.partitions[output.topic])

    def _envelope(self, id: str, topic: str, partition: int) -> dict[str, bytes]:
        target = f"{topic}/{partition}"
        number = self.checkpoint.sent[target] = self.checkpoint.sent.get(target, -1) + 1
        return {ID: id.encode(), WRITER: self._signed, SEQUENCE: b"%d" % number}

    def _record(self, output: Output, partition: int, headers: Mapping[str, bytes], known: bytes | None = None) -> Record:
        """The record of an output; ``known`` is its value where the same body has been encoded for another topic just before."""
        if known is not None:
            return Record(output.topic, partition, output.key, known, headers)
        body = output.body
        if output.type != RAW:
            body = self.codec.encode(output.type, body) if isinstance(body, dict) else self.codec.encode_block(body)
        return Record(output.topic, partition, output.key, body, headers)


def dead_letter(topic: str, record: Record, stage: str, reason: Exception) -> Output:
    """The record unchanged, on the dead-letter topic, with headers as Kafka Connect names them."""
    why = {
        "__connect.errors.topic": record.topic,
        "__connect.errors.partition": str(record.partition),
        "__connect.errors.offset": str(record.offset),
        "__connect.errors.stage": stage,
        "__connect.errors.exception.class.name": type(reason).__name__,
        "__connect.errors.exception.message": str(reason)[:4000],
    }
    kept = {name: value for name, value in record.headers.items() if not name.startswith(("mdh-", "__connect."))}
    return Output(topic, RAW, record.value, record.key, None, {**kept, **{k: v.encode() for k, v in why.items()}})
