"""Decisions as records: final blocks per partition, exceptions, recalls."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

import numpy as np

from schemas import conditions
from schemas.block import FINALIZED, FinalBlock, RecallBlock, starts_of, strings
from schemas.identity import identity
from schemas.rules import BIT
from schemas.topology.vee import Group, RuleSettings
from streams.calendar import day_of
from streams.runtime.audit import Chain
from streams.runtime.fold import Message, Output, Result
from streams.sorting import distinct, rising
from streams.vee.batch import Array, Ints, moment
from streams.vee.channels import Channels, Labels
from streams.vee.clean import Clean
from streams.vee.days import SHIFT, Decided
from streams.vee.judging import Told
from streams.vee.kernel import spread
from streams.vee.merging import STEP
from streams.vee.registers import Changed
from streams.vee.service import Owner

FINALS: Final = "reads.final"
EXCEPTIONS: Final = "vee.exceptions"
_CELLS: Final = 100_000  # values of one final block at most
_ASKED: Final = 500  # channel-days in a recall at most: its answer is a block as large as others
_RULES: Final = {bit: name for name, bit in BIT.items()}


@dataclass(slots=True)
class Emitter:
    """Collects the outputs of one message."""

    channels: Channels
    message: Message
    source: str
    severities: dict[str, str]
    result: Result
    chain: Chain
    blocks: int = 0
    asked: dict[int, list[tuple[int, int, int]]] = field(default_factory=dict)  # partition → channel, interval length, day

    @classmethod
    def make(cls, channels: Channels, message: Message, group: Group, result: Result, chain: Chain) -> Emitter:
        """An emitter for a message; the source is that of the block it carries."""
        source = getattr(message.body, "source", "")
        severities: dict[str, str] = {rule.id: rule.severity for rule in group.rules if isinstance(rule, RuleSettings)}
        return cls(channels, message, source, severities, result, chain)

    # --- finals ---------------------------------------------------------------------------------------------------------------

    def days(self, decided: Decided | None, version: int, clean: Clean | None = None) -> None:
        """All that a batch of channel-days leads to, of those that took the short way too."""
        final = Outcome.of(decided, clean)
        if len(final.channel):
            width = max(int(final.clean.counts.max(initial=0)) if final.clean else 0, int(decided.batch.counts.max()) if decided else 0)
            step = max(1, _CELLS // max(1, width))
            partitions = self.channels.partition[final.channel]
            for partition in distinct(partitions).tolist():
                own = np.flatnonzero(partitions == partition)
                for first in range(0, len(own), step):
                    self._send(self._days_block(final, own[first : first + step], version), partition)
        if decided is not None:
            self._day_exceptions(decided, version)

    def _days_block(self, final: Outcome, rows: Ints, version: int) -> FinalBlock:
        labels = self.channels.labels(final.channel[rows])
        counts = final.counts[rows].astype(np.int32)
        empty, none = np.zeros(len(rows), np.int32), np.zeros(0, np.int64)
        rest: dict[str, Any] = {
            "received_count": empty, "received": none, "received_conditions": none.astype(np.int32),
            "before_count": empty, "before": none, "before_conditions": none.astype(np.int32),
        }  # fmt: skip
        if final.decided is not None:
            rest |= self._kept(final.decided, final.place[rows], counts)
        return self._block(
            labels, final.day[rows].astype(np.int32), final.start[rows], np.full(len(rows), final.seconds, np.int32), counts, version,
            final.replaces[rows], final.state[rows].astype(np.int8), *final.cells(rows, counts),
            reads=np.zeros(len(rows), np.int32), times=none, **rest,
        )  # fmt: skip

    def _kept(self, decided: Decided, place: Ints, counts: Array) -> dict[str, Any]:
        """What was received and what stood there before, for rows at ``place`` of a batch (-1: it took the short way)."""
        at = np.flatnonzero(place >= 0)
        kept = np.zeros(len(place), np.bool_)
        if len(at):
            kept[at] = decided.hidden[place[at]]
        changed = place[kept]
        columns: dict[str, Any] = {
            "received_count": np.where(kept, counts, 0).astype(np.int32),
            "received": _flat(decided.received[0], changed, counts[kept]),
            "received_conditions": _flat(decided.received[1], changed, counts[kept]).astype(np.int32) * STEP,
        }
        if decided.previous:
            old = [decided.previous.get(row) for row in place.tolist()]
            before = [o if o is not None and o.version else None for o in old]
            columns |= {
                "before_count": np.array([len(o.final_values) if o else 0 for o in before], np.int32),
                "before": np.concatenate([np.zeros(0, np.int64), *(o.final_values for o in before if o)]),
                "before_conditions": np.concatenate([np.zeros(0, np.int32), *(o.final_conditions.astype(np.int32) for o in before if o)]),
            }
        return columns

    def leaving(self, decided: Decided, version: int) -> None:
        """Takes days from the accounts they were told to: each once more, in the store's order behind what it was, with nothing in it."""
        by_partition: dict[int, list[int]] = {}
        for row, moved in decided.left.items():
            partition = self.channels.partition_of(moved.owner, int(decided.channel[row]))
            by_partition.setdefault(partition, []).append(row)
        for partition, rows in sorted(by_partition.items()):
            self._deliver(self._left_block(decided, np.array(rows, np.int64), version), partition)

    def _left_block(self, decided: Decided, rows: Ints, version: int) -> FinalBlock:
        batch, left = decided.batch, [decided.left[row] for row in rows.tolist()]
        labels = self.channels.labels(decided.channel[rows])
        labels = replace(
            labels, unit=strings([one.owner.unit for one in left]), service_point=strings([one.owner.service_point for one in left]),
            account=strings([one.owner.account for one in left]), multiplier=np.array([one.owner.multiplier for one in left], np.int64),
        )  # fmt: skip
        counts = batch.counts[rows].astype(np.int32)
        nothing, none, empty = np.zeros(int(counts.sum()), np.int64), np.zeros(0, np.int64), np.zeros(len(rows), np.int32)
        had = [one.stored for one in left]
        return self._block(
            labels, batch.day[rows].astype(np.int32), batch.start[rows], np.full(len(rows), batch.seconds, np.int32), counts, version,
            np.array([one.replaces for one in left], np.int64), np.full(len(rows), FINALIZED, np.int8), nothing, nothing.astype(np.int32),
            nothing.astype(np.int8), reads=empty, times=none, received_count=empty, received=none,
            received_conditions=none.astype(np.int32),
            before_count=np.array([len(one.final_values) if one else 0 for one in had], np.int32),
            before=np.concatenate([none, *(one.final_values for one in had if one)]),
            before_conditions=np.concatenate([none.astype(np.int32), *(one.final_conditions.astype(np.int32) for one in had if one)]),
        )  # fmt: skip

    def registers(self, changed: Changed, version: int, states: Array, told: list[Told]) -> None:
        """Changed register reads, one row per channel, and what was found about them."""
        if len(changed.channel):
            self._registers_block(*self._by_owner(changed, states), version)
        for one in told:
            severity, says = one.severity or self.severities.get(one.rule, "info"), one.says or "no longer found"
            status, count = ("open", 1) if one.says else ("superseded", 0)
            self.exception(one.rule, severity, one.channel, one.start, one.at, count, says, version, one.at, status)
        self._register_exceptions(changed, version)

    def _by_owner(self, changed: Changed, states: Array) -> tuple[Changed, Array]:
        """Rows cut where the channel passes to another owner."""
        begins = np.cumsum(changed.count) - changed.count
        dated = self.channels.dated
        extra: list[int] = []
        for row in [k for k, channel in enumerate(changed.channel.tolist()) if self.channels.names[channel] in dated]:
            judged = self.channels.judged(int(changed.channel[row]))
            first = int(begins[row])
            owners = [judged.owner(at) for at in changed.times[first : first + int(changed.count[row])].tolist()]
            extra += [first + k for k in range(1, len(owners)) if owners[k] != owners[k - 1]]
        if not extra:
            return changed, states
        cuts = np.union1d(begins, np.array(extra, np.int64))
        origin = np.searchsorted(begins, cuts, side="right") - 1
        count = np.diff(np.r_[cuts, len(changed.times)])
        return replace(changed, channel=changed.channel[origin], count=count, replaces=changed.replaces[origin]), states[origin]

    def readings_leaving(self, channel: int, left: dict[Owner, list[tuple[int, int]]], version: int) -> None:
        """Takes readings from the accounts they were told to; ``left``: old owner → time and version of each."""
        for owner, readings in left.items():
            labels = replace(
                self.channels.labels(np.array([channel])), unit=strings([owner.unit]), service_point=strings([owner.service_point]),
                account=strings([owner.account]), multiplier=np.array([owner.multiplier], np.int64),
            )  # fmt: skip
            times, size = np.array([at for at, _ in readings], np.int64), len(readings)
            day = np.array([int(day_of(labels.zone[0].as_py(), int(times[0])))], np.int32)
            nothing, none, empty = np.zeros(size, np.int64), np.zeros(0, np.int64), np.zeros(1, np.int32)
            block = self._block(
                labels, day, times[:1], empty, np.array([size], np.int32), version, np.array([max(v for _, v in readings)], np.int64),
                np.full(1, FINALIZED, np.int8), nothing, nothing.astype(np.int32), nothing.astype(np.int8),
                reads=np.array([size], np.int32), times=times, received_count=empty, received=none,
                received_conditions=none.astype(np.int32), before_count=empty, before=none, before_conditions=none.astype(np.int32),
            )  # fmt: skip
            self._deliver(block, self.channels.partition_of(owner, channel))

    def register_days(self, told: list[tuple[int, tuple[int, bool, dict[str, Any]]]], version: int, leaving: int) -> None:
        """What determinants need for days of registers (channel, and partition, whether the account still has them, what differs by
        account). Versions of days that an account still has, and of those it has nothing of any more."""
        for channel, (partition, stays, body) in told:
            labels = self.channels.labels(np.array([channel]))
            fixed = {
                "device": labels.device[0].as_py(), "channel": labels.channel[0].as_py(), "zone": labels.zone[0].as_py(),
                "direction": int(labels.direction[0]), "version": version if stays else leaving,
            }  # fmt: skip
            self.result.outputs.append(Output(FINALS, "RegisterDays", fixed | body, partition=partition))

    def _registers_block(self, changed: Changed, states: Array, version: int) -> None:
        labels = self.channels.labels(changed.channel)
        counts = changed.count.astype(np.int32)
        start = changed.times[np.cumsum(counts) - counts]
        day = np.array([int(day_of(zone, at)) for zone, at in zip(labels.zone.to_pylist(), start.tolist(), strict=True)], np.int32)
        empty = np.zeros(len(counts), np.int32)
        none = np.zeros(0, np.int64)
        conditions_ = changed.codes.astype(np.int32) * STEP
        values = np.where(conditions_ < conditions.OUTAGE, 0, changed.values)
        block = self._block(
            labels, day, start, empty, counts, version, changed.replaces, states,
            values, conditions_, changed.methods, reads=counts, times=changed.times,
            received_count=empty, received=none, received_conditions=none.astype(np.int32),
            before_count=empty, before=none, before_conditions=none.astype(np.int32),
        )  # fmt: skip
        for partition in np.unique(labels.partition).tolist():
            own = np.flatnonzero(labels.partition == partition)
            self._send(block if len(own) == len(block) else block.take(own), partition)

    def _register_exceptions(self, changed: Changed, version: int) -> None:
        for rule, entries in (("duplicate-imd", changed.repeated), ("final-measurement-replacement", changed.contradicted)):
            if rule in self.severities:
                for channel, count, first, last in entries:
                    words = "had been received before" if rule == "duplicate-imd" else "contradict what was received before"
                    reads = "register read" if count == 1 else "register reads"
                    self.exception(rule, self.severities[rule], channel, first, last, count, f"{count} {reads} {words}", version, first)

    def _block(
        self, labels: Labels, day: Array, start: Ints, seconds: Array, counts: Array, version: int, replaces: Ints, state: Array,
        values: Ints, codes: Array, methods: Array, **rest: Any,
    ) -> FinalBlock:  # fmt: skip
        return FinalBlock(
            id=self.message.derive("final", self.blocks), payload=self.message.payload, source=self.source, device=labels.device,
            channel=labels.channel, unit=labels.unit, service_point=labels.service_point, account=labels.account, zone=labels.zone,
            direction=labels.direction, day=day, start=start, seconds=seconds, count=counts,
            version=np.full(len(day), version, np.int64), replaces=replaces, state=state, dials=labels.dials,
            multiplier=labels.multiplier, values=values, conditions=codes, methods=methods, **rest,
        )  # fmt: skip

    def _send(self, block: FinalBlock, partition: int) -> None:
        for part, number in self.channels.in_time(block, partition):
            self._deliver(part, number)

    def _deliver(self, block: FinalBlock, partition: int) -> None:
        self.result.count("finals", len(block))
        self.result.outputs.append(
            Output(FINALS, "FinalBlock", replace(block, id=self.message.derive("final", self.blocks)), partition=partition)
        )
        self.blocks += 1

    # --- exceptions -------------------------------------------------------------------------------------------------------------

    def _day_exceptions(self, decided: Decided, version: int) -> None:
        batch = decided.batch
        for found in decided.findings:
            for k in np.flatnonzero(decided.told[found.rows] | found.event).tolist():
                row = int(found.rows[k])
                start = int(batch.start[row])
                first, behind = start + int(found.first[k]) * batch.seconds, start + (int(found.last[k]) + 1) * batch.seconds
                channel = int(decided.channel[row])
                self.exception(
                    found.rule,
                    found.severity,
                    channel,
                    first,
                    behind,
                    int(found.count[k]),
                    found.say(k),
                    version,
                    start,
                    "overridden" if not found.event and decided.accepted[row] & BIT[found.rule] else "open",
                )
        for row, bit in decided.gone:
            start = int(batch.start[row])
            end = start + int(batch.counts[row]) * batch.seconds
            rule = _RULES[bit]
            self.exception(
                rule, self.severities.get(rule, "info"), int(decided.channel[row]), start, end, 0, "no longer found", version, start,
                "superseded",
            )  # fmt: skip

    def exception(
        self, rule: str, severity: str, channel: int, start: int, end: int, count: int, detail: str, version: int, day: int,
        status: str = "open",
    ) -> None:  # fmt: skip
        """One exception of a known channel; ``day`` is what tells it from others of the rule and channel."""
        table = self.channels.table
        device, name = self.channels.names[channel]
        point = table.text["service_point"][channel]
        self.write(rule, severity, device, name, point, start, end, count, detail, version, day, status)

    def write(
        self, rule: str, severity: str, device: str, channel: str, point: str, start: int, end: int, count: int, detail: str,
        version: int, day: int | str, status: str = "open",
    ) -> None:  # fmt: skip
        """One exception record."""
        self.result.count("exceptions")
        body = {
            "id": identity(rule, device, channel, day), "rule": rule, "severity": severity, "status": status, "version": version,
            "device": device, "channel": channel, "service_point": point, "payload": self.message.payload,
            "start": moment(start), "end": moment(end), "count": count, "detail": detail,
        }  # fmt: skip
        self.result.outputs.append(Output(EXCEPTIONS, "VeeException", body, device.encode()))

    # --- audit ------------------------------------------------------------------------------------------------------------------

    def audit(self, command: dict[str, Any], now: int, refused: str, done: str = "", before: str = "", after: str = "") -> None:
        """What became of a command. The id is that of the command: told twice, it is one act."""
        self.result.count("rows")
        body = {
            "id": identity("audit", command["id"]), "at": moment(now), "actor": command["user"], "action": command["action"],
            "command": command["id"], "subject": command["device"], "device": command["device"], "channel": command["channel"],
            "start": _stored(command["start"]), "end": _stored(command["end"]), "reason": command["reason"],
            "outcome": "refused" if refused else "applied", "detail": refused or done, "before": before, "after": after,
            "bulk": command.get("bulk", ""), "approved_by": command.get("approved_by", ""),
        }  # fmt: skip
        self.result.outputs.append(self.chain.output(body))

    def audited(self, body: dict[str, Any]) -> None:
        """An entry of the audit that exists already."""
        self.result.count("rows")
        self.result.outputs.append(self.chain.output(body))

    # --- the rest ---------------------------------------------------------------------------------------------------------------

    def recall(self, channel: int, seconds: int, day: int, partition: int) -> None:
        """Asks the store for a channel-day, with all others of this message, in the partition the day was published to."""
        self.asked.setdefault(partition, []).append((channel, seconds, day))

    def recalls(self) -> None:
        """Sends what was asked for: behind all that the message published, so that the store knows it when it answers."""
        for partition, asked in sorted(self.asked.items()):
            for first in range(0, len(asked), _ASKED):
                channels, seconds, days = zip(*asked[first : first + _ASKED], strict=True)
                names = [self.channels.names[channel] for channel in channels]
                device, channel = ([name[i] for name in names] for i in (0, 1))
                block = RecallBlock(strings(device), strings(channel), np.array(seconds, np.int32), np.array(days, np.int32))
                self.result.outputs.append(Output(FINALS, block.SCHEMA, block, partition=partition))


def _stored(second: int) -> datetime:
    """A time as the store can hold it: what the hash of an entry covers must come back as it was."""
    return moment(min(max(second, 0), 2**32 - 1))


@dataclass(slots=True)
class Outcome:
    """Channel-days to be sent, in order: those of a batch that changed, and those that took the short way.

    ``place`` is the row in the batch, -1 for the latter; ``short`` the number among these, -1 for the former.
    """

    seconds: int
    channel: Ints
    day: Ints
    start: Ints
    counts: Ints
    replaces: Ints
    state: Array
    place: Ints
    short: Ints
    decided: Decided | None
    clean: Clean | None

    @classmethod
    def of(cls, decided: Decided | None, clean: Clean | None) -> Outcome:
        """Both together, ordered by ring row and day."""
        parts: list[tuple[Any, ...]] = []
        if decided is not None:
            rows, batch = decided.emit, decided.batch
            parts.append((
                batch.codes[rows] >> SHIFT, decided.channel[rows], batch.day[rows], batch.start[rows], batch.counts[rows],
                decided.replaces, decided.state[rows], rows, np.full(len(rows), -1),
            ))  # fmt: skip
        if clean is not None and len(clean):
            rows = np.arange(len(clean))
            parts.append((
                clean.row, clean.channel, clean.day, clean.start, clean.counts, clean.replaces, clean.state, np.full(len(rows), -1), rows,
            ))  # fmt: skip
        columns = parts[0]
        if len(parts) > 1:
            order = np.argsort(np.concatenate([part[0] for part in parts]), kind="stable")
            columns = tuple(np.concatenate(column)[order] for column in zip(*parts, strict=True))
        seconds = decided.batch.seconds if decided is not None else clean.seconds if clean is not None else 0
        names = ("channel", "day", "start", "counts", "replaces", "state", "place", "short")
        return cls(seconds=seconds, decided=decided, clean=clean, **dict(zip(names, columns[1:], strict=True)))

    def cells(self, rows: Ints, counts: Array) -> tuple[Ints, Array, Array]:
        """Values, conditions and methods of these rows, one after the other."""
        batch = self.decided.batch if self.decided is not None else None
        if batch is not None and (self.clean is None or not len(self.clean)):
            place = self.place[rows]
            return _flat(batch.values, place, counts), _flat(batch.conditions, place, counts), _flat(batch.methods, place, counts)
        offset, total = starts_of(counts), int(counts.sum())
        values, codes, methods = np.empty(total, np.int64), np.empty(total, np.int32), np.zeros(total, np.int8)
        clean, own = self.clean, np.flatnonzero(self.short[rows] >= 0)
        assert clean is not None
        cells = clean.cell[self.short[rows[own]]]
        spread(values, offset[own], clean.values, cells, counts[own], 1)
        spread(codes, offset[own], clean.codes, cells, counts[own], STEP)
        others = np.flatnonzero(self.short[rows] < 0)
        if batch is not None and len(others):
            place = self.place[rows[others]]
            for target, matrix in ((values, batch.values), (codes, batch.conditions), (methods, batch.methods)):
                spread(target, offset[others], matrix, place, counts[others], 1)
        return values, codes, methods


def _flat(matrix: Array, rows: Ints, counts: Array) -> Array:
    """The first ``counts`` cells of each row, row after row."""
    if not len(rows):
        return np.zeros(0, matrix.dtype)
    neighbours = int(rows[-1] - rows[0]) == len(rows) - 1 and rising(rows)
    part = matrix[rows[0] : rows[-1] + 1] if neighbours else matrix[rows]
    if (counts == counts[0]).all():
        return part[:, : int(counts[0])].reshape(-1)
    return part[np.arange(part.shape[1]) < counts[:, None]]
