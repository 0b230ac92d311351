"""Builds final blocks row by row, runs the fold over messages, and computes what must come out slowly and independently."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from schemas.block import FINALIZED, DayBlock, FinalBlock, strings
from schemas.codec import Codec
from schemas.conditions import REGULAR, name_of
from schemas.topology.tou import DeterminantsSettings
from schemas.topology.usage import UsageSettings
from streams import calendar
from streams.determinants.fold import DeterminantsFold
from streams.determinants.kernels import warm
from streams.runtime.fold import Message, Result

warm()  # before the time of any example is taken
EPOCH = date(1970, 1, 1)
CODEC = Codec()


def day_number(text: str) -> int:
    return (date.fromisoformat(text) - EPOCH).days


@dataclass
class Row:
    """One row of a final block: a day of intervals, or register reads where ``seconds`` is 0 and ``times`` are given."""

    day: int
    values: list[int]
    conditions: list[int] = field(default_factory=list)
    device: str = "m1"
    channel: str = "E1"
    unit: str = "kWh"
    account: str = "a1"
    service_point: str = "sp1"
    zone: str = "Europe/Berlin"
    seconds: int = 900
    direction: int = 1
    version: int = 1
    replaces: int = 0
    state: int = FINALIZED
    dials: int = 0
    multiplier: int = 0
    times: list[int] = field(default_factory=list)
    before: list[int] = field(default_factory=list)
    before_conditions: list[int] = field(default_factory=list)


def flat(lists: list[list[int]], dtype: Any = np.int64) -> np.ndarray:
    return np.array([x for values in lists for x in values], dtype)


def finals(rows: list[Row], name: str = "b") -> FinalBlock:
    conditions = [r.conditions or [REGULAR] * len(r.values) for r in rows]
    before = [r.before_conditions or [REGULAR] * len(r.before) for r in rows]
    nothing = np.zeros(0, np.int64)
    return FinalBlock(
        id=name, payload="p", source="s",
        device=strings([r.device for r in rows]), channel=strings([r.channel for r in rows]), unit=strings([r.unit for r in rows]),
        service_point=strings([r.service_point for r in rows]), account=strings([r.account for r in rows]),
        zone=strings([r.zone for r in rows]),
        direction=np.array([r.direction for r in rows], np.int8), day=np.array([r.day for r in rows], np.int32),
        start=np.array([int(calendar.start_of(r.zone, r.day)) for r in rows], np.int64),
        seconds=np.array([r.seconds for r in rows], np.int32), count=np.array([len(r.values) for r in rows], np.int32),
        reads=np.array([len(r.times) for r in rows], np.int32),
        version=np.array([r.version for r in rows], np.int64), replaces=np.array([r.replaces for r in rows], np.int64),
        state=np.array([r.state for r in rows], np.int8), dials=np.array([r.dials for r in rows], np.int8),
        multiplier=np.array([r.multiplier for r in rows], np.int64),
        values=flat([r.values for r in rows]), conditions=flat(conditions, np.int32),
        methods=np.zeros(sum(len(r.values) for r in rows), np.int8), times=flat([r.times for r in rows]),
        received_count=np.zeros(len(rows), np.int32), received=nothing, received_conditions=np.zeros(0, np.int32),
        before_count=np.array([len(r.before) for r in rows], np.int32),
        before=flat([r.before for r in rows]), before_conditions=flat(before, np.int32),
    ).check()  # fmt: skip


def slots(zone: str, day: int, seconds: int) -> int:
    return int(calendar.slots_of(zone, day, seconds))


class Hub:
    """A fold that is fed messages; remembers what came out, checked against the schemas."""

    def __init__(self, settings: DeterminantsSettings | None = None, hot_days: int = 2, usage: UsageSettings | None = None) -> None:
        self.settings, self.hot_days, self.usage = settings or DeterminantsSettings.default(), hot_days, usage
        self.fold = DeterminantsFold(self.settings, 0, 1, hot_days, usage)
        self.sent: list[dict[str, Any]] = []
        self.days: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self.usage_sent: list[dict[str, Any]] = []
        self.usage_lines: list[dict[str, Any]] = []
        self.exceptions: list[dict[str, Any]] = []
        self.bytes: list[bytes] = []
        self.figures: dict[str, int] = defaultdict(int)
        self.states: dict[bytes, bytes | None] = {}
        self._count = 0

    def give(self, *rows: Row) -> Result:
        return self.send("FinalBlock", finals(list(rows)))

    def tick(self, at: int | str, close: bool = False) -> Result:
        moment = int(datetime.fromisoformat(at).replace(tzinfo=UTC).timestamp()) if isinstance(at, str) else at
        return self.send("Tick", {"at": moment, "close": close})

    def close(self) -> Result:
        return self.tick(0, close=True)

    def send(self, kind: str, body: Any) -> Result:
        self._count += 1
        result = self.fold.apply(Message(kind, body, f"m{self._count}", "p"))
        for output in result.outputs:
            data = CODEC.encode_block(output.body) if output.type == "DayBlock" else CODEC.encode(output.type, output.body)
            self.bytes.append(output.key + data)
            if output.type == "DayBlock":
                assert output.topic == "determinants.daily"
                assert output.partition == 0
                self.days += unrolled(CODEC.decode(data))
            elif output.type == "UsageTransaction":
                assert output.topic == "billing.determinants"
                self.usage_sent.append(CODEC.decode(data))
            elif output.type == "VeeException":
                assert output.topic == "vee.exceptions"
                self.exceptions.append(CODEC.decode(data))
            elif output.type == "Determinant" and output.body.get("usage"):
                self.usage_lines.append(CODEC.decode(data))
            elif output.type == "UsageEvent":
                assert output.topic == "usage.events"
                self.events.append(CODEC.decode(data) | {"key": output.key})
            else:
                assert output.topic == "billing.determinants"
                self.sent.append(CODEC.decode(data) | {"key": output.key})
        for name, value in result.figures.items():
            self.figures[name] += value
        for key, value in self.fold.state.take_changed():
            self.states[key] = value
        return result

    def restart(self, *, widened: bool = False) -> None:
        """As a new worker would: a new fold from the state rows. ``widened``: they still have tables that other settings left."""
        digest = self.fold.state.digest()
        self.fold = DeterminantsFold(self.settings, 0, 1, self.hot_days, self.usage)
        for key, value in self.states.items():
            self.fold.state.load(key, value)
        assert widened or self.fold.state.digest() == digest

    def latest(self) -> dict[tuple[str, ...], dict[str, Any]]:
        """The newest version of each determinant by account, device, channel, unit, period start, kind, period."""
        found: dict[tuple[str, ...], dict[str, Any]] = {}
        for body in self.sent:
            key = (
                *(body[n] for n in ("account", "device", "channel", "unit")),
                body["period_start"].isoformat(),
                body["kind"],
                body["tou"],
            )
            before = found.get(key)
            assert body["version"] == (before["version"] + 1 if before else 1)
            assert body["replaces"] == (before["id"] if before else "")
            found[key] = body
        return found


def unrolled(block: DayBlock) -> list[dict[str, Any]]:
    rows, at = [], 0
    for i in range(len(block)):
        lines = {block.tou_names[block.tou[at + j]]: int(block.quantities[at + j]) for j in range(int(block.lines[i]))}
        at += int(block.lines[i])
        whole = {n: int(getattr(block, n)[i]) for n in ("day", "start", "end", "seconds", "version", "replaces", "state", "condition")}
        rest = {n: int(getattr(block, n)[i]) for n in ("slots", "actual", "estimated")}
        rows.append({"device": block.device[i].as_py(), "map": block.map[i].as_py(), "lines": lines, **whole, **rest})
    return rows


# --- the slow way: one slot at a time, with datetime ---------------------------------------------------------------------------

Schedule = list[tuple[str, set[int], int, int]]  # period, weekdays, from and to as second of the day; the first that matches
THREE_PART: Schedule = [
    ("peak", {0, 1, 2, 3, 4}, 15 * 3600, 21 * 3600),
    ("shoulder", {0, 1, 2, 3, 4}, 7 * 3600, 15 * 3600),
    ("shoulder", {0, 1, 2, 3, 4}, 21 * 3600, 22 * 3600),
]


def slow_period(schedule: Schedule, moment: datetime) -> str:
    second = moment.hour * 3600 + moment.minute * 60 + moment.second
    return next((p for p, days, a, b in schedule if moment.weekday() in days and a <= second < b), "offpeak")


def slow_month(zone: str, day: int, cycle: int = 1) -> tuple[datetime, datetime]:
    """Begin and end of the billing period a local day is in."""
    here = EPOCH + timedelta(days=day)
    year, month = here.year, here.month
    if here.day < cycle:
        year, month = (year, month - 1) if month > 1 else (year - 1, 12)
    after = (year, month + 1) if month < 12 else (year + 1, 1)
    info = ZoneInfo(zone)
    return tuple(datetime(y, m, cycle, tzinfo=info).astimezone(UTC) for y, m in ((year, month), after))  # type: ignore[return-value]


def slow_determinants(rows: list[Row], schedule: Schedule = THREE_PART, cycle: int = 1) -> dict[tuple[str, ...], dict[str, Any]]:
    """What the newest version of each determinant must say, from the newest version of each day. Conditions are given as range names."""
    newest: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        newest[row.account, row.device, row.channel, row.unit, row.day, row.seconds] = row
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in newest.values():
        begin, end = slow_month(row.zone, row.day, cycle)
        for name in ("", "peak", "shoulder", "offpeak"):
            kind = "tou-interval-consumption" if name else "interval-consumption"
            key = (row.account, row.device, row.channel, row.unit, begin.isoformat(), kind, name)
            into = found.setdefault(key, {"quantity": 0, "slots": 0, "actual": 0, "estimated": 0, "codes": [], "end": end, "held": False})
            into["held"] |= row.state == 2
        start = int(calendar.start_of(row.zone, row.day))
        for i, (value, code) in enumerate(zip(row.values, row.conditions or [REGULAR] * len(row.values), strict=True)):
            moment = datetime.fromtimestamp(start + i * row.seconds, UTC).astimezone(ZoneInfo(row.zone))
            for name in ("", slow_period(schedule, moment)):
                kind = "tou-interval-consumption" if name else "interval-consumption"
                into = found[row.account, row.device, row.channel, row.unit, begin.isoformat(), kind, name]
                if code == 0:
                    continue
                into["slots"] += 1
                into["actual"] += code >= 500_000
                into["estimated"] += 300_000 <= code < 450_000
                into["codes"].append(code)
                into["quantity"] += value if code >= 200_000 else 0
    for into in found.values():
        codes = into.pop("codes")
        into["range"] = name_of(min(min(codes), REGULAR)) if codes else "not-received"
    return found


def told(hub: Hub) -> dict[tuple[str, ...], dict[str, Any]]:
    """What the hub said last of each interval determinant, in the words of :func:`slow_determinants`."""
    return {
        key: {
            "quantity": int(body["quantity"] * 1_000_000),
            "slots": body["slots"],
            "actual": body["actual"],
            "estimated": body["estimated"],
            "end": body["period_end"],
            "held": body["status"] == "held",
            "range": name_of(body["condition"]),
        }
        for key, body in hub.latest().items()
        if body["kind"].endswith("interval-consumption")
    }
