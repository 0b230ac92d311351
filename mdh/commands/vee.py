"""``mdh vee``: validate, estimate and finalise meter files, as NDJSON, without a hub."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import orjson
import typer

from connectors.enterprise.master import parse_master
from connectors.head_end.formats import FORMATS, Decoded, DecodeError, Options, decode
from mdh.commands.decode import MAX_FILE, by_condition, content_of, iso, texts, total
from mdh.errors import UsageError
from schemas.block import DIRECTIONS, EXCEPTION, FINALIZED, OPEN, FinalBlock, ReadBlock, starts_of, strings
from schemas.identity import identity
from schemas.quantity import text_of
from schemas.rules import METHODS
from schemas.topology import Topology, TopologyError, load_topology
from schemas.units import resolve
from streams.insights.fold import InsightsFold
from streams.runtime.fold import Message
from streams.vee.fold import VeeFold
from streams.vee.older import StoredReading, answer, around

_STATES: Final = {OPEN: "open", FINALIZED: "finalized", EXCEPTION: "exception"}
_Channel = tuple[str, str, int]


def main(
    files: Annotated[list[str], typer.Argument(help="Meter files, as for `mdh decode`")],
    format_: Annotated[str | None, typer.Option("--format", help=f"{', '.join(FORMATS)} or a mapping profile; else by content")] = None,
    zone: Annotated[str | None, typer.Option(help="IANA zone of times without offset, and of days where master data name none")] = None,
    master: Annotated[Path | None, typer.Option(help="Master data as NDJSON; unknown channels are parked then")] = None,
    topology: Annotated[Path | None, typer.Option(envvar="MDH_TOPOLOGY", help="topology.yaml with VEE groups and mapping profiles")] = None,
) -> None:
    """Validate, estimate and finalise meter files, without a hub: the same engine.

    Prints NDJSON: `exception` objects, then one `final` object per channel. The end of the input counts as time having passed: what is
    missing then is missing. What is refused goes to stderr as file:line: reason; a file that is refused whole makes the exit status 2.
    """
    try:
        known = load_topology(topology)
    except TopologyError as error:
        raise UsageError(str(error)) from error
    bench = Bench(known, zone, insights=True)
    if master is not None:
        bench.master(master)
    failed = False
    for file in files:
        options = Options(
            name=file, format=format_, zone=zone, profiles=known.profiles,
            limits=known.ingest.limits.model_copy(update={"payload_bytes": MAX_FILE}),
        )  # fmt: skip
        try:
            decoded = decode(content_of(file), options)
        except (DecodeError, OSError) as error:
            print(f"{file}: {error.strerror}" if isinstance(error, OSError) else error, file=sys.stderr)
            failed = True
            continue
        for problem in sorted([*decoded.problems, *decoded.notes], key=lambda p: (p.file, p.line)):
            print(problem, file=sys.stderr)
        bench.reads(decoded)
    for item in bench.finish():
        sys.stdout.buffer.write(orjson.dumps(item) + b"\n")
    sys.stdout.flush()
    if failed:
        raise typer.Exit(2)


@dataclass
class Bench:
    """One VEE fold, the insights of each partition behind it where asked for, and a dict in the place of the store."""

    topology: Topology
    zone: str | None = None
    insights: bool = False
    fold: VeeFold = field(init=False)
    days: dict[tuple[str, str, int, int], tuple[FinalBlock, int]] = field(default_factory=dict)
    registers: dict[tuple[str, str], dict[int, tuple[int, int, int, FinalBlock, int]]] = field(default_factory=dict)
    exceptions: dict[str, dict[str, Any]] = field(default_factory=dict)
    audit: list[dict[str, Any]] = field(default_factory=list)
    _learning: dict[int, InsightsFold] = field(default_factory=dict)
    _messages: int = 0
    _end: int = 0

    def __post_init__(self) -> None:
        vee, agents = self.topology.vee, self.topology.agents
        partitions = self.topology.topics[agents["vee"].inbox].partitions if self.insights and "vee" in agents else 1
        self.fold = VeeFold(vee.model_copy(update={"zone": self.zone or vee.zone or self.topology.zone}), 0, partitions)

    def master(self, path: Path) -> None:
        """Takes master data in; from then on they decide which channels there are."""
        try:
            records, errors = parse_master(path.read_bytes())
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}") from error
        if errors:
            raise UsageError(f"{path}:{errors[0].line}: {errors[0].what}")
        self._apply("MasterPresent", {"at": 0})
        for record in records:
            self._apply("MasterChannel", record)

    def reads(self, decoded: Decoded) -> None:
        """Folds the blocks of one file in."""
        for block in decoded.blocks:
            if len(block):
                ends = block.start + block.count.astype(np.int64) * block.seconds
                self._end = max(self._end, int(ends.max()))
            self._apply("ReadBlock", block)

    def take(self, kind: str, record: dict[str, Any]) -> None:
        """Folds one Command, DeviceEvent or Tick in."""
        self._apply(kind, record)

    def finish(self, *, close: bool = True) -> Iterator[dict[str, Any]]:
        """Closes everything, unless it is to stay as it is, and tells what came of it."""
        if close:
            self._apply("Tick", {"at": self._end, "close": True})
        told = [body for body in self.exceptions.values() if body["status"] == "open"]
        for body in sorted(told, key=lambda b: (b["device"], b["channel"], b["start"], b["rule"])):
            yield {
                "type": "exception",
                **{name: body[name] for name in ("rule", "severity", "device", "channel")},
                "start": iso(int(body["start"].timestamp())),
                "end": iso(int(body["end"].timestamp())),
                **{name: body[name] for name in ("count", "detail")},
            }
        yield from self._intervals()
        yield from self._registers()

    def _apply(self, kind: str, body: ReadBlock | FinalBlock | dict[str, Any]) -> None:
        waiting: list[tuple[str, Any]] = [(kind, body)]
        while waiting:
            kind, body = waiting.pop(0)
            self._messages += 1
            payload = body.payload if isinstance(body, ReadBlock) else ""
            result = self.fold.apply(Message(kind, body, identity("vee", self._messages), payload))
            answers = []
            for output in result.outputs:
                if output.type == "FinalBlock":
                    self._store(output.body)
                    if self.insights:
                        self._learn(output.body, output.partition or 0)
                elif output.type == "VeeException":
                    self.exceptions[output.body["id"]] = output.body
                elif output.type == "AuditEvent":
                    self.audit.append(output.body)
                elif output.type == "Recall":
                    answers += [self._answer(*place) for place in output.body.places()]
            if answers:
                waiting.append(("FinalBlock", FinalBlock.join(answers)))

    def _learn(self, block: FinalBlock, partition: int) -> None:
        """What the insights of a partition tell of a block, as in the hub."""
        if partition not in self._learning:
            self._learning[partition] = InsightsFold(self.topology.insights, partition)
        result = self._learning[partition].apply(Message("FinalBlock", block, block.id, block.payload))
        self.exceptions.update((output.body["id"], output.body) for output in result.outputs)

    def _store(self, block: FinalBlock) -> None:
        columns = (block.device.to_pylist(), block.channel.to_pylist(), block.seconds.tolist(), block.day.tolist())
        begins, times = starts_of(block.count), starts_of(block.reads)
        for row, (device, channel, seconds, day) in enumerate(zip(*columns, strict=True)):
            if seconds:
                self.days[device, channel, seconds, day] = (block, row)
                continue
            reads = self.registers.setdefault((device, channel), {})
            for k in range(int(block.reads[row])):
                cell = int(begins[row]) + k
                at = int(block.times[times[row] + k])
                reads[at] = (int(block.values[cell]), int(block.conditions[cell]), int(block.methods[cell]), block, row)

    def _answer(self, device: str, channel: str, seconds: int, day: int) -> FinalBlock:
        if not seconds:
            reads = self.registers.get((device, channel), {})
            held = [StoredReading(at, *reads[at][:3], int(reads[at][3].version[reads[at][4]])) for at in sorted(reads) if reads[at][1]]
            unit = next((block.unit[row].as_py() for *_, block, row in reads.values()), "")
            return answer(device, channel, unit, day, around(held, day))
        stored = self.days.get((device, channel, seconds, day))
        if stored is not None:
            return stored[0].take(np.array([stored[1]]))
        return _absent(device, channel, seconds, day)

    # --- final objects ----------------------------------------------------------------------------------------------------------

    def _intervals(self) -> Iterator[dict[str, Any]]:
        channels: dict[_Channel, list[tuple[int, FinalBlock, int]]] = {}
        for (device, channel, seconds, day), (block, row) in self.days.items():
            channels.setdefault((device, channel, seconds), []).append((day, block, row))
        begins: dict[int, Any] = {}
        for (device, channel, seconds), parts in channels.items():
            start, values, codes, methods, states = [], [], [], [], []
            for _, block, row in sorted(parts, key=lambda part: part[0]):
                if id(block) not in begins:
                    begins[id(block)] = starts_of(block.count)
                begin, count = int(begins[id(block)][row]), int(block.count[row])
                told = np.flatnonzero(block.conditions[begin : begin + count])
                if not len(told):
                    continue
                cells = slice(begin + int(told[0]), begin + int(told[-1]) + 1)
                start.append(int(block.start[row]) + int(told[0]) * seconds + np.arange(told[-1] - told[0] + 1) * seconds)
                values.append(block.values[cells])
                codes.append(block.conditions[cells])
                methods.append(block.methods[cells])
                states.append(_STATES[int(block.state[row])])
            if start:
                last = max(parts, key=lambda part: part[0])
                yield _final(
                    _head(last[1], last[2], device, channel, seconds), np.concatenate(start), np.concatenate(values),
                    np.concatenate(codes), np.concatenate(methods), states,
                )  # fmt: skip

    def _registers(self) -> Iterator[dict[str, Any]]:
        for (device, channel), reads in self.registers.items():
            at = np.array(sorted(when for when in reads if reads[when][1]), np.int64)
            if not len(at):
                continue
            values = np.array([reads[when][0] for when in at.tolist()], np.int64)
            codes = np.array([reads[when][1] for when in at.tolist()], np.int32)
            methods = [reads[when][2] for when in at.tolist()]
            *_, block, row = reads[int(at[-1])]
            told = zip(at.tolist(), texts(values, codes), codes.tolist(), methods, strict=True)
            yield _head(block, row, device, channel, 0) | {
                "start": iso(int(at[0])),
                "end": iso(int(at[-1])),
                "intervals": 0,
                "by_condition": by_condition(codes),
                "registers": len(at),
                "reads": [
                    {"at": iso(when), "value": value, "condition": code} | ({"method": METHODS[method]} if method else {})
                    for when, value, code, method in told
                ],
            }


def _head(block: FinalBlock, row: int, device: str, channel: str, seconds: int) -> dict[str, Any]:
    unit = block.unit[row].as_py()
    return {
        "type": "final", "device": device, "channel": channel, "service_point": block.service_point[row].as_py(),
        "account": block.account[row].as_py(), "direction": DIRECTIONS[int(block.direction[row])],
        "quantity": resolve(unit).quantity, "unit": unit, "interval_seconds": seconds,
    }  # fmt: skip


def _final(
    head: dict[str, Any], start: np.ndarray, values: np.ndarray, codes: np.ndarray, methods: np.ndarray, states: list[str]
) -> dict[str, Any]:
    seconds = head["interval_seconds"]
    holes = np.flatnonzero(np.diff(start) > seconds)
    real = codes > 0
    return head | {
        "start": iso(int(start[0])),
        "end": iso(int(start[-1]) + seconds),
        "intervals": int(real.sum()),
        "total": text_of(total(values)),
        "by_condition": by_condition(codes[real]),
        "registers": 0,
        "days": {state: states.count(state) for state in dict.fromkeys(states)},
        "gaps": [{"start": iso(int(start[k]) + seconds), "end": iso(int(start[k + 1]))} for k in holes.tolist()],
        "methods": _spans(start, methods, seconds),
        "values": texts(values, codes),
        "conditions": codes.tolist(),
    }


def _spans(start: np.ndarray, methods: np.ndarray, seconds: int) -> list[dict[str, str]]:
    """Unbroken runs of one estimation method."""
    breaks = np.flatnonzero((np.diff(methods) != 0) | (np.diff(start) != seconds)) + 1
    begin = np.r_[0, breaks]
    behind = np.r_[breaks, len(methods)]
    return [
        {"start": iso(int(start[a])), "end": iso(int(start[b - 1]) + seconds), "method": METHODS[int(methods[a])]}
        for a, b in zip(begin.tolist(), behind.tolist(), strict=True)
        if methods[a]
    ]


def _absent(device: str, channel: str, seconds: int, day: int) -> FinalBlock:
    none, zero, blank = np.zeros(0, np.int64), np.zeros(1, np.int64), strings([""])
    return FinalBlock(
        id="", payload="", source="", device=strings([device]), channel=strings([channel]), unit=blank, service_point=blank,
        account=blank, zone=blank, direction=zero, day=np.array([day]), start=zero, seconds=np.array([seconds]), count=zero,
        reads=zero, version=zero, replaces=zero, state=zero, dials=zero, multiplier=zero, values=none, conditions=none,
        methods=none, times=none, received_count=zero, received=none, received_conditions=none, before_count=zero, before=none,
        before_conditions=none,
    )  # fmt: skip
