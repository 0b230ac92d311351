"""Drives one VEE fold without a broker: a dict stands in for the store and answers its questions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from schemas.block import FinalBlock, ReadBlock, RecallBlock, strings
from schemas.conditions import MISSING, REGULAR, REPORTED_MISSING
from schemas.identity import identity
from schemas.topology.vee import VeeSettings
from streams.runtime.fold import Message, Output, Result
from streams.vee.fold import VeeFold
from streams.vee.older import StoredReading, answer, around

MICRO = 1_000_000
Row = dict[str, Any]


def interval_row(start: int, values: Sequence[float | None], **more: Any) -> Row:
    """A row of intervals; None is a value the source reports as missing."""
    codes = more.pop("codes", None) or [REPORTED_MISSING if v is None else REGULAR for v in values]
    micros = [0 if v is None else round(v * MICRO) for v in values]
    return {"device": "M1", "channel": "E1", "unit": "kWh", "seconds": 900, "start": start, "values": micros, "codes": codes} | more


def register_row(readings: Sequence[tuple[int, float]], **more: Any) -> Row:
    """A row of register reads."""
    values, codes = [round(v * MICRO) for _, v in readings], [REGULAR] * len(readings)
    times = [at for at, _ in readings]
    return {"device": "M1", "channel": "R1", "unit": "kWh", "seconds": 0, "start": times[0], "values": values, "codes": codes,
            "times": times} | more  # fmt: skip


def block_of(rows: Iterable[Row], *, name: str = "b", received_at: int = 0) -> ReadBlock:
    """Rows as one block."""
    rows = list(rows)

    def column(key: str, dtype: Any, default: Any = 0) -> Any:
        return np.array([row.get(key, default) for row in rows], dtype)

    def flat(key: str, dtype: Any) -> Any:
        return np.array([cell for row in rows for cell in row.get(key, [])], dtype)

    return ReadBlock(
        id=name, payload=name, source="test", format="test", received_at=received_at,
        device=strings([r["device"] for r in rows]), channel=strings([r["channel"] for r in rows]),
        unit=strings([r["unit"] for r in rows]), direction=column("direction", np.int8), start=column("start", np.int64),
        seconds=column("seconds", np.int32), count=np.array([len(r["values"]) for r in rows], np.int32),
        reads=np.array([len(r.get("times", [])) for r in rows], np.int32), multiplier=column("multiplier", np.int64),
        values=flat("values", np.int64), conditions=flat("codes", np.int32), times=flat("times", np.int64),
    ).check()  # fmt: skip


class Hub:
    """A fold, what it published, and a store that holds the newest version of each channel-day."""

    def __init__(self, settings: VeeSettings | None = None, partitions: int = 1) -> None:
        self.settings = settings or VeeSettings.default()
        self.partitions = partitions
        self.fold = VeeFold(self.settings, 0, partitions)
        self.days: dict[tuple[str, str, int, int], FinalBlock] = {}
        self.reads: dict[tuple[str, str, int], tuple[int, int, int]] = {}
        self.windows: dict[tuple[str, str], dict[int, StoredReading]] = {}
        self.units: dict[tuple[str, str], str] = {}
        self.exceptions: dict[str, dict[str, Any]] = {}
        self.log: list[Output] = []
        self.figures: list[dict[str, Any]] = []
        self.recalls = 0
        self.count = 0
        self.together = True
        self.answering = True  # False: answers wait until delivered
        self.queue: list[FinalBlock] = []

    def apply(self, kind: str, body: Any) -> Result:
        self.count += 1
        result = self.fold.apply(Message(kind, body, identity("m", self.count), getattr(body, "payload", "")))
        self.figures.append(result.figures)
        for output in result.outputs:
            self._take(output)
        if self.answering:
            self.deliver()
        return result

    def deliver(self, most: int | None = None) -> None:
        """The store's answers arrive, all or the first few of those waiting."""
        while self.queue and most != 0:
            self.apply("FinalBlock", self.queue.pop(0))
            most = None if most is None else most - 1

    def send(self, *rows: Row, name: str = "", received_at: int = 0) -> Result:
        return self.apply("ReadBlock", block_of(rows, name=name or f"b{self.count}", received_at=received_at))

    def tick(self, at: int = 0, *, close: bool = False) -> Result:
        return self.apply("Tick", {"at": at, "close": close})

    def master(self, **fields: Any) -> Result:
        return self.apply("MasterChannel", {"device": "M1", "channel": "E1", "periods": []} | fields)

    def restart(self) -> None:
        """A new fold from the state rows, as after a crash."""
        rows = self.rows
        for key, value in self.fold.state.take_changed():
            rows[key] = value
        self.fold = VeeFold(self.settings, 0, self.partitions)
        for key, value in rows.items():
            self.fold.state.load(key, value)

    @property
    def rows(self) -> dict[bytes, bytes | None]:
        """The state rows written so far."""
        if not hasattr(self, "_rows"):
            self._rows: dict[bytes, bytes | None] = {}
        return self._rows

    def _take(self, output: Output) -> None:
        self.log.append(output)
        if isinstance(output.body, RecallBlock):
            self.recalls += len(output.body)
            answers = [self._answer(*place) for place in output.body.places()]
            # in one block as the store answers, or day by day: it must make no difference
            self.queue += [FinalBlock.join(answers)] if self.together else answers
        if output.type == "VeeException":
            known = self.exceptions.get(output.body["id"])
            assert known is None or known["version"] <= output.body["version"]
            self.exceptions[output.body["id"]] = output.body
        if output.type == "FinalBlock":
            self._store(output.body.check())

    def _store(self, block: FinalBlock) -> None:
        for row in range(len(block)):
            one = block.take(np.array([row]))
            device, channel = one.device[0].as_py(), one.channel[0].as_py()
            if one.reads[0]:
                columns = (one.times.tolist(), one.values.tolist(), one.conditions.tolist(), one.methods.tolist())
                for at, value, code, method in zip(*columns, strict=True):
                    self.reads[device, channel, at] = (value, code, int(one.version[0]))
                    reading = StoredReading(at, value, code, method, int(one.version[0]))
                    self.windows.setdefault((device, channel), {})[at] = reading
                    self.units[device, channel] = one.unit[0].as_py()
                continue
            key = (device, channel, int(one.seconds[0]), int(one.day[0]))
            before = self.days.get(key)
            assert int(one.replaces[0]) == (int(before.version[0]) if before else 0), f"{key}: replaces another version"
            assert before is None or one.version[0] > before.version[0]
            if one.before_count[0]:
                assert before is not None
                assert one.before.tolist() == before.values.tolist()
                assert one.before_conditions.tolist() == before.conditions.tolist()
            self.days[key] = one

    def _answer(self, *place: Any) -> FinalBlock:
        device, channel, seconds, day = place
        if not seconds:
            held = self.windows.get((device, channel), {})
            window = around([held[at] for at in sorted(held) if held[at].condition], day)
            return answer(device, channel, self.units.get((device, channel), ""), day, window)
        stored = self.days.get(place)
        return stored if stored is not None else empty_answer(*place)

    # --- what a reader of the store sees ----------------------------------------------------------------------------------------

    def finals(self) -> dict[tuple[str, str, int, int], tuple[list[int], list[int], list[int], int]]:
        """Values, conditions, methods and state of each channel-day."""
        return {
            key: (one.values.tolist(), one.conditions.tolist(), one.methods.tolist(), int(one.state[0]))
            for key, one in sorted(self.days.items())
        }

    def day(self, number: int, device: str = "M1", channel: str = "E1", seconds: int = 900) -> FinalBlock:
        return self.days[device, channel, seconds, number]

    def open(self) -> list[dict[str, Any]]:
        """Open exceptions."""
        return [body for body in self.exceptions.values() if body["status"] == "open"]

    def rules(self) -> list[str]:
        return sorted(body["rule"] for body in self.open())


def empty_answer(device: str, channel: str, seconds: int, day: int) -> FinalBlock:
    """What the store says of a day it does not have."""
    none, zero = np.zeros(0, np.int64), np.zeros(1, np.int64)
    one = strings([""])
    return FinalBlock(
        id="", payload="", source="", device=strings([device]), channel=strings([channel]), unit=one,
        service_point=one, account=one, zone=one, direction=zero, day=np.array([day]), start=zero,
        seconds=np.array([seconds]), count=zero, reads=zero, version=zero, replaces=zero, state=zero, dials=zero,
        multiplier=zero, values=none, conditions=none, methods=none, times=none, received_count=zero, received=none,
        received_conditions=none, before_count=zero, before=none, before_conditions=none,
    )  # fmt: skip


__all__ = ["MICRO", "MISSING", "Hub", "block_of", "empty_answer", "interval_row", "register_row"]
