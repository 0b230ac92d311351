"""The ingest agent: decodes what head ends send, cuts it into one block per partition, and puts everything in one order.

It is the only writer of ``vee.inbox``: reads, master data, recalled days and ticks all pass through it, so that what the VEE
agent sees has one order that can be replayed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from schemas.block import FinalBlock, ReadBlock
from schemas.identity import partition_of
from streams.runtime.fold import RAW, Message, Output, Result
from streams.runtime.lane import Record, dead_letter
from streams.runtime.routing import split
from streams.runtime.seen import Seen
from streams.runtime.state import State, Table

INBOX: Final = "vee.inbox"
MASTER: Final = "master.inbox"
WHOLE: Final = 0  # the one partition of master.inbox that is used: master data refer to each other all over
EVENTS: Final = "hes.events"
CONVERSATIONS: Final = "enterprise.inbox"
CONVERSATION: Final = 0  # the partition all conversations with CIS live in
_CONVERSING: Final = frozenset(("EnterpriseRequest", "EnterpriseAnswer", "DeviceReply"))
TOLD: Final = "device.events"
REPLAYS: Final = "hub.replays"
PREPAID: Final = "prepaid.inbox"
TODO: Final = "todo.inbox"
PREPAID_COMMAND: Final = "pp/"  # how ids of device commands begin that the prepaid agent gave; its partition follows
TOGETHER: Final = 50_000  # reads in a block that leaves, as decoders make them at most


class Decoded(Protocol):
    """What a decoder returns (see connectors.head_end.formats): blocks, and parts that were refused while the rest was kept."""

    @property
    def format(self) -> str: ...
    @property
    def blocks(self) -> list[ReadBlock]: ...
    @property
    def problems(self) -> list[Any]: ...


Decode = Callable[[bytes, Mapping[str, str], str], Decoded]  # bytes, headers as text, payload id


DecodeEvents = Callable[[bytes], list[dict[str, Any]]]


class PartlyRefusedError(Exception):
    """Some parts of a payload were refused, the rest was taken."""


class IngestFold:
    """Folds raw payloads, master data, recalled days and ticks of one partition.

    ``decode`` turns a payload's bytes and headers into blocks and raises on a payload it refuses whole. ``remember`` payload ids are
    kept (rounded up to whole segments) to recognise one that is sent again. ``inboxes`` are where replayed dead letters may go,
    ``told`` where events are told to those who are no agents.
    """

    def __init__(
        self, decode: Decode, partition: int, partitions: int, *, letters: str = "hes.reads.dlq", remember: int = 65_536,
        decode_events: DecodeEvents | None = None, inboxes: frozenset[str] = frozenset({INBOX}), told: str = "",
    ) -> None:  # fmt: skip
        self.inboxes = inboxes
        self.events_to = tuple(topic for topic in (INBOX, told) if topic)
        self.decode_events = decode_events
        self.decode, self.partition, self.partitions, self.letters = decode, partition, partitions, letters
        self.state = State(lambda _: Table({}))
        self._seen = Seen(self.state, "", remember)

    def apply(self, message: Message) -> Result:
        if message.type == RAW:
            return self._payload(message)
        if message.type in ("Tick", "MasterPresent"):
            result = Result([Output(INBOX, message.type, message.body, message.key, self.partition)])
            if message.type == "Tick" and PREPAID in self.inboxes:
                result.outputs.append(Output(PREPAID, message.type, message.body, message.key, self.partition))
            if message.type == "Tick" and self.partition == WHOLE and TODO in self.inboxes:
                result.outputs.append(Output(TODO, message.type, message.body, message.key, WHOLE))
            if message.type == "Tick" and self.partition == CONVERSATION:
                result.outputs += self._converse(message.type, message.body)
            return result
        if message.type == "TodoCommand":
            return Result([Output(TODO, message.type, message.body, message.key, WHOLE)])
        if message.type == "PrepaidRequest":
            key = message.body["account"].encode()
            return Result([Output(PREPAID, message.type, message.body, key, partition_of(key, self.partitions))])
        if message.type == "DeviceReply" and message.body["command"].startswith(PREPAID_COMMAND):
            return Result(self._reply(message))
        if message.type in _CONVERSING:
            return Result(self._converse(message.type, message.body))
        if message.type in ("MasterChannel", "Label"):
            key = message.body["device"].encode()
            outputs = [Output(INBOX, message.type, message.body, key, partition_of(key, self.partitions))]
            if message.type == "MasterChannel":  # after what VEE gets: what the master agent may have to say against it comes behind
                outputs.append(Output(MASTER, message.type, message.body, key, WHOLE))
            return Result(outputs)
        if message.type == "MasterSubmission":
            return Result([Output(MASTER, message.type, message.body, message.key, WHOLE)])
        if message.type in ("UsageRequest", "UsedOnBill", "TouEvent"):
            return self._usage(message)
        if message.type == "Command":
            if not self._seen.is_new(f"command/{message.body['id']}"):
                return Result(silent=True)
            key = message.body["device"].encode()
            return Result([Output(INBOX, message.type, message.body, key, partition_of(key, self.partitions))])
        if isinstance(message.body, FinalBlock):  # a recalled day; the sink may answer twice if it was killed in between
            return Result(self._split(message.body)) if self._seen.is_new(message.id) else Result(silent=True)
        raise ValueError(f"ingest has no use for a {message.type}")

    def _usage(self, message: Message) -> Result:
        """What is asked or said of usage goes the way of the reads it is about; an event concerns all partitions."""
        if message.type == "TouEvent":  # may change and be taken back as often as it likes: the last word holds
            body = {**message.body, "sequence": message.offset + 1}
            return Result([Output(INBOX, message.type, body, message.key, number) for number in range(self.partitions)])
        if not self._seen.is_new(f"usage/{message.type}/{message.body['id']}"):
            return Result(silent=True)
        key = message.body["account"].encode()
        return Result([Output(INBOX, message.type, message.body, key, partition_of(key, self.partitions))])

    def _payload(self, message: Message) -> Result:
        headers = {name: value.decode(errors="replace") for name, value in message.headers.items()}
        about = {"source": headers.get("source", ""), "received_at": _whole(headers.get("received_at", ""))}
        if not self._seen.is_new(message.payload):
            return Result([], {**about, "status": "duplicate", "reason": "this payload was taken before"})
        if message.topic == REPLAYS:
            return self._replay(message, headers, about)
        if message.topic == EVENTS and self.decode_events is not None:
            return self._events(message, about, self.decode_events)
        try:
            decoded = self.decode(message.body or b"", headers, message.payload)
        except Exception as error:  # a decoder meets hostile bytes: whatever goes wrong concerns this payload only
            letter = self._letter(message, error)
            return Result([letter], {**about, "status": "dead", "dead": 1, "reason": str(error)[:500]})
        result = Result([], {**about, "status": "decoded", "format": decoded.format})
        for block in decoded.blocks:
            result.count("rows", len(block))
            result.count("reads", len(block.values))
        result.outputs += self._together(decoded.blocks)
        if decoded.problems:
            words = "; ".join(str(problem) for problem in decoded.problems[:20])
            more = len(decoded.problems) - 20
            reason = f"{len(decoded.problems)} parts refused: {words}{f'; and {more} more' if more > 0 else ''}"
            result.outputs.append(self._letter(message, PartlyRefusedError(reason)))
            result.count("dead", len(decoded.problems))
            result.figures["reason"] = reason[:500]
        return result

    def _events(self, message: Message, about: dict[str, Any], decode: DecodeEvents) -> Result:
        try:
            found = decode(message.body or b"")
        except ValueError as error:
            return Result([self._letter(message, error)], {**about, "status": "dead", "dead": 1, "reason": str(error)[:500]})
        result = Result([], {**about, "status": "decoded", "format": "events", "rows": len(found)})
        for number, event in enumerate(found):
            body = {"severity": "", "detail": "", **event, "id": message.derive("event", number), "payload": message.payload}
            body["source"] = event["source"] or about["source"]
            key = body["device"].encode()
            result.outputs += [Output(topic, "DeviceEvent", body, key, partition_of(key, self.partitions)) for topic in self.events_to]
            result.outputs += self._converse("DeviceEvent", body)
        return result

    def _reply(self, message: Message) -> list[Output]:
        """An answer of a device to a command of the prepaid agent, whose partition the id names."""
        number = message.body["command"].removeprefix(PREPAID_COMMAND).partition("/")[0]
        if not number.isascii() or not number.isdigit() or int(number) >= self.partitions:
            return []
        return [Output(PREPAID, message.type, message.body, message.key, int(number))]

    def _replay(self, message: Message, headers: dict[str, str], about: dict[str, Any]) -> Result:
        """A dead letter of an inbox, put back where it came from: its bytes are a record of ours and stay as they are."""
        inbox, number = headers.get("inbox", ""), _whole(headers.get("partition", ""))
        if inbox not in self.inboxes or number >= self.partitions:
            reason = f"no inbox {inbox[:80]}/{number} to replay to; there are {', '.join(sorted(self.inboxes))}"
            return Result([self._letter(message, ValueError(reason))], {**about, "status": "dead", "dead": 1, "reason": reason})
        output = Output(inbox, RAW, message.body, message.key, number)
        return Result([output], {**about, "status": "decoded", "format": "replay"})

    def _together(self, blocks: list[ReadBlock]) -> list[Output]:
        """The blocks of a payload by partition, what goes to one partition joined again: what a block costs depends little on its rows."""
        waiting: dict[int, list[ReadBlock]] = {}
        outputs: list[Output] = []

        def send(number: int) -> None:
            outputs.append(Output(INBOX, ReadBlock.SCHEMA, ReadBlock.join(waiting.pop(number)), b"", number))

        for block in blocks:
            for number, part in split(block, block.device, self.partitions):
                held = waiting.get(number, [])
                if held and not (_alike(held[0], part) and sum(len(other.values) for other in held) + len(part.values) <= TOGETHER):
                    send(number)
                waiting.setdefault(number, []).append(part)
        for number in list(waiting):
            send(number)
        return outputs

    def _converse(self, kind: str, body: dict[str, Any]) -> list[Output]:
        """To the agent that talks with customer information systems, where the topology has one."""
        return [Output(CONVERSATIONS, kind, body, b"", CONVERSATION)] if CONVERSATIONS in self.inboxes else []

    def _split(self, block: ReadBlock | FinalBlock) -> list[Output]:
        parts = split(block, block.device, self.partitions)
        return [Output(INBOX, block.SCHEMA, part, b"", number) for number, part in parts]

    def _letter(self, message: Message, reason: Exception) -> Output:
        record = Record(message.topic, message.partition, message.key, message.body, message.headers, message.offset)
        return dead_letter(self.letters, record, "ingest", reason)


def _alike(one: ReadBlock, other: ReadBlock) -> bool:
    """Whether the rows of two blocks of a payload can share a block."""
    return (one.source, one.format, one.received_at) == (other.source, other.format, other.received_at)


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0
