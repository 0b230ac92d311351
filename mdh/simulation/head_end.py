"""The head end itself: payloads in the order they are sent, and the truth about what is wrong in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mdh.errors import UsageError
from mdh.simulation.chance import below, draw
from mdh.simulation.faults import ABSENT, FAULTS, DayPlan, Injected, share, spoil
from mdh.simulation.loads import day_loads
from mdh.simulation.writers import (
    CHANNEL,
    REGISTER,
    csv_payload,
    csv_registers,
    iso,
    json_payload,
    json_register,
    nem12_payload,
)
from schemas.identity import identity
from schemas.quantity import text_of
from streams.calendar import date_of, slots_of, start_of, wall_clock

Ints = npt.NDArray[np.int64]
FORMATS: Final = ("json", "csv", "nem12")
SHAPES: Final = ("day", "interval")
TURN: Final = 100_000_000  # Wh at which a register of five digits starts again


@dataclass(frozen=True, slots=True)
class Settings:
    """What to simulate. ``chunk`` is the number of meters in one payload; ``start`` the first local day."""

    meters: int
    days: int
    seconds: int = 900
    seed: int = 1
    rates: dict[str, float] = field(default_factory=dict)
    zone: str = "Europe/Madrid"
    start: date = date(2025, 3, 28)
    format: str = "json"
    shape: str = "day"
    chunk: int = 500
    registers: bool = False
    prefix: str = "S"
    source: str = "simulator"

    def check(self) -> Settings:
        """Raises UsageError on settings that cannot be simulated."""
        if self.meters < 1 or self.days < 1 or self.chunk < 1:
            raise UsageError("--meters, --days and --chunk must be at least 1")
        if self.seconds not in (300, 600, 900, 1800, 3600):
            raise UsageError("--seconds must be 300, 600, 900, 1800 or 3600")
        if self.format not in FORMATS or self.shape not in SHAPES:
            raise UsageError(f"--format is one of {', '.join(FORMATS)}, --shape one of {', '.join(SHAPES)}")
        if self.format == "nem12" and (self.zone != "Australia/Brisbane" or self.shape != "day" or self.seconds not in (300, 900, 1800)):
            raise UsageError("NEM12 has whole days of 5, 15 or 30 minutes in market time: use --zone Australia/Brisbane --shape day")
        if self.format == "nem12" and self.with_registers:
            raise UsageError("NEM12 has no register reads: leave out --registers and rollover")
        return self

    @property
    def with_registers(self) -> bool:
        """Whether a register read is sent for every midnight."""
        return self.registers or self.rates.get("rollover", 0.0) > 0


@dataclass(frozen=True, slots=True)
class Payload:
    """One thing the head end sends."""

    name: str
    data: bytes
    reads: int

    @property
    def id(self) -> str:
        """The same for the same content under the same name."""
        return identity("simulate", self.name, self.data)


@dataclass(slots=True)
class Totals:
    """What was sent so far. Wh as whole numbers."""

    payloads: int = 0
    bytes: int = 0
    reads: int = 0
    true_wh: int = 0
    faults: dict[str, int] = field(default_factory=dict)


class HeadEnd:
    """Makes payloads day by day; afterwards ``truth`` holds every fault as injected and ``totals`` what was sent."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings.check()
        self.meters = np.arange(settings.meters, dtype=np.int64)
        self.devices = [f"{settings.prefix}{number:07d}" for number in range(1, settings.meters + 1)]
        self.unknown = share(settings.seed, "unknown", self.meters, settings.rates)
        self.rolling = share(settings.seed, "rollover", self.meters, settings.rates)
        self.first_day = (settings.start - date(1970, 1, 1)).days
        self.truth: list[dict[str, Any]] = []
        self.totals = Totals(faults=dict.fromkeys(settings.rates, 0))
        self._postscript: list[tuple[int, Ints]] = []  # day, rows to send (again) at the end
        self._registers = self._first_readings()  # Wh, never turned over
        self._today = np.zeros(settings.meters, np.int64)
        for row in np.flatnonzero(self.unknown).tolist():
            self._note("unknown", row, self.first_day, 0, 0)

    def master(self) -> Iterator[dict[str, Any]]:
        """Master data of all meters but the unknown ones."""
        zone = self.settings.zone
        for row, device in enumerate(self.devices):
            if self.unknown[row]:
                continue
            common = {"service_point": f"SP-{device}", "device": device, "unit": "kWh", "direction": "delivered", "zone": zone}
            yield {**common, "channel": CHANNEL, "seconds": self.settings.seconds, "account": f"A-{device}"}
            if self.settings.with_registers:
                yield {**common, "channel": REGISTER, "seconds": 0, "dials": 5, "account": f"A-{device}"}

    @property
    def expected_payloads(self) -> int:
        """How many payloads :meth:`payloads` will yield before the postscript."""
        chunks = -(-self.settings.meters // self.settings.chunk)
        days = range(self.first_day, self.first_day + self.settings.days)
        register_files = chunks * self.settings.days if self.settings.with_registers and self.settings.format == "csv" else 0
        if self.settings.shape == "day":
            return chunks * self.settings.days + register_files
        return chunks * sum(int(slots_of(self.settings.zone, day, self.settings.seconds)) for day in days) + register_files

    def payloads(self) -> Iterator[Payload]:
        """All payloads in the order they are sent: day after day, then what comes late or again."""
        for day in range(self.first_day, self.first_day + self.settings.days):
            yield from self._day(day)
        for day, rows in self._postscript:
            loads = self._loads(day, self.meters[rows])
            yield self._payload(f"{date_of(day)}-again-{int(rows[0]):07d}", day, rows, loads, np.zeros(loads.shape, np.int8), 0, [])

    # --- one day -----------------------------------------------------------------------------------------------------------

    def _day(self, day: int) -> Iterator[Payload]:
        chunks = [
            np.arange(a, min(a + self.settings.chunk, self.settings.meters)) for a in range(0, self.settings.meters, self.settings.chunk)
        ]
        if self.settings.shape == "day":
            for rows in chunks:
                yield from self._whole_day(day, rows, self._plan(day, rows))
            return
        plans = [self._plan(day, rows) for rows in chunks]
        for slot in range(plans[0].values.shape[1]):
            for rows, plan in zip(chunks, plans, strict=True):
                here = np.flatnonzero(plan.states[:, slot] != ABSENT)
                registers = self._reads(day, rows) if slot == 0 and self.settings.with_registers else []
                if len(here) or registers:
                    values, states = plan.values[here, slot : slot + 1], plan.states[here, slot : slot + 1]
                    name = f"{date_of(day)}-{slot:03d}-{int(rows[0]):07d}"
                    yield from self._with_registers(name, day, rows[here], values, states, slot, registers)

    def _whole_day(self, day: int, rows: Ints, plan: DayPlan) -> Iterator[Payload]:
        registers = self._reads(day, rows) if self.settings.with_registers else []
        yield from self._with_registers(f"{date_of(day)}-{int(rows[0]):07d}", day, rows, plan.values, plan.states, 0, registers)

    def _with_registers(
        self, name: str, day: int, rows: Ints, values: Ints, states: npt.NDArray[np.int8], slot: int, registers: list[tuple[str, int, str]]
    ) -> Iterator[Payload]:
        if self.settings.format == "csv" and registers:
            yield self._count(Payload(f"{name}-registers.csv", csv_registers(registers), len(registers)))
            registers = []
        yield self._payload(name, day, rows, values, states, slot, registers)

    def _payload(
        self, name: str, day: int, rows: Ints, values: Ints, states: npt.NDArray[np.int8], slot: int, registers: list[tuple[str, int, str]]
    ) -> Payload:
        settings = self.settings
        start = int(start_of(settings.zone, day)) + slot * settings.seconds
        devices = [self.devices[row] for row in rows.tolist()]
        if settings.format == "json":
            extra = [json_register(*read) for read in registers]
            data = json_payload(settings.source, devices, start, settings.seconds, values, states, extra)
        elif settings.format == "csv":
            data = csv_payload(devices, start, settings.seconds, values, states)
        else:
            data = nem12_payload(devices, start, settings.seconds, values, states)
        suffix = "nem12.csv" if settings.format == "nem12" else settings.format
        return self._count(Payload(f"{name}.{suffix}", data, int((states != ABSENT).sum()) + len(registers)))

    def _count(self, payload: Payload) -> Payload:
        self.totals.payloads += 1
        self.totals.bytes += len(payload.data)
        self.totals.reads += payload.reads
        return payload

    def _loads(self, day: int, meters: Ints) -> Ints:
        clock = wall_clock(self.settings.zone, day, self.settings.seconds)
        return day_loads(self.settings.seed, meters, day, clock, self.settings.seconds)

    def _plan(self, day: int, rows: Ints) -> DayPlan:
        loads = self._loads(day, self.meters[rows])
        plan = spoil(self.settings.seed, self.meters[rows], day, loads, self.settings.rates)
        sums = loads.sum(axis=1)
        before = self._registers[rows]
        self._registers[rows], self._today[rows] = before + sums, sums
        for row in rows[(before < TURN) & (before + sums >= TURN)].tolist():
            self._note("rollover", row, day, 0, 0)
        self.totals.true_wh += int(sums.sum())
        for fault in plan.injected:
            self._tell(day, int(rows[fault.row]), fault)
        if len(plan.again):
            self._postscript.append((day, rows[plan.again]))
        return plan

    # --- registers -----------------------------------------------------------------------------------------------------------

    def _first_readings(self) -> Ints:
        readings: Ints = below(draw(self.settings.seed, "reading", self.meters), 60_000) * 1000
        rows = np.flatnonzero(self.rolling)
        first = self._loads(self.first_day, self.meters[rows]).sum(axis=1)
        turns = below(draw(self.settings.seed, "turn", self.meters[rows]), self.settings.days)  # the day it passes the end, about
        readings[rows] = TURN - 1 - first // 2 - first * turns
        return readings

    def _reads(self, day: int, rows: Ints) -> list[tuple[str, int, str]]:
        """The readings at the end of the day, which is the next midnight; on the first day those of its beginning too."""
        moments = [(int(start_of(self.settings.zone, day + 1)), self._registers[rows])]
        if day == self.first_day:
            moments.insert(0, (int(start_of(self.settings.zone, day)), self._registers[rows] - self._today[rows]))
        return [
            (self.devices[row], at, text_of(wh % TURN * 1000))
            for at, registers in moments
            for row, wh in zip(rows.tolist(), registers.tolist(), strict=True)
        ]

    # --- truth ---------------------------------------------------------------------------------------------------------------

    def _tell(self, day: int, row: int, fault: Injected) -> None:
        more: dict[str, Any] = {"true": text_of(fault.true * 1000)}
        if fault.sent is not None:
            more["sent"] = text_of(fault.sent * 1000)
        self._note(fault.fault, row, day, fault.first, fault.count, more)

    def _note(self, fault: str, row: int, day: int, first: int, count: int, more: dict[str, Any] | None = None) -> None:
        start = int(start_of(self.settings.zone, day)) + first * self.settings.seconds
        channel = REGISTER if fault == "rollover" else CHANNEL
        line: dict[str, Any] = {
            "fault": fault,
            "expect": FAULTS[fault][1],
            "device": self.devices[row],
            "channel": channel,
            "day": date_of(day),
        }
        if count:
            line |= {"start": iso(start), "end": iso(start + count * self.settings.seconds), "count": count}
        self.truth.append(line | (more or {}))
        self.totals.faults[fault] = self.totals.faults.get(fault, 0) + 1
