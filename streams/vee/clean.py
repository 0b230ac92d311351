"""The short way of most days: which groups of rules it knows, and what it hands on.

Most days that come are whole, measured, and nothing is to be said of them. They are found, taken into the ring and given their version
by one compiled pass (``streams/vee/kernel.py``), and so are days with the commonest flaws where the groups are plain; all others go on to
:meth:`streams.vee.days.Days.decide`. An entry of a group that is not known here keeps every day on the way of all days. Eligibility and
effective periods need no look where nothing is said: they can only silence a rule.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from schemas import conditions
from schemas.block import DIRECTIONS
from schemas.topology.vee import (
    ConsecutiveInterval,
    ExceptionHandler,
    ExecuteGroup,
    GroupMatrix,
    HighLow,
    InactiveMeasurement,
    IntervalInterpolation,
    IntervalSpike,
    Multiplier,
    NegativeConsumption,
    Role,
    RuleSettings,
    SiblingImd,
    SuccessfulTermination,
    VeeSettings,
    ZeroConsumption,
)
from schemas.units import resolve
from streams.runtime.state import Table
from streams.vee import history, kernel
from streams.vee.batch import Array, Ints, Mask
from streams.vee.channels import Channels
from streams.vee.keeping import Keeper
from streams.vee.merging import STEP
from streams.vee.spans import Segments

_PERCENT: Final = 100_000  # spike tolerances up to here multiply inside 64 bits
_CODES: Final = 8000  # conditions in hundredths
# What has nothing to say of, and nothing to do with, measured values on which no other day leans and which no register checks
_SILENT: Final = frozenset(
    {
        "unit-of-measure", "interval-size", "duplicate-imd", "interval-interpolation", "like-day-average", "profile",
        "interval-adjustment-from-scalar", "scalar-proration", "scalar-estimation", "sum-check", "prolonged-estimation", "missing-quantity",
        "final-measurement-replacement",
    }
)  # fmt: skip
_LOOKED_AT: Final = (
    Multiplier, InactiveMeasurement, NegativeConsumption, IntervalSpike, ConsecutiveInterval, ZeroConsumption, HighLow, SiblingImd,
)  # fmt: skip
_STEERING: Final = (ExecuteGroup, GroupMatrix, ExceptionHandler, SuccessfulTermination)


@dataclass(slots=True)
class Taken:
    """Channel-days that are decided and in the ring, one per channel; ``row`` is that of the ring."""

    seconds: int
    row: Ints
    channel: Ints
    day: Ints
    start: Ints
    counts: Ints
    replaces: Ints
    state: Array

    def __len__(self) -> int:
        return len(self.row)


@dataclass(slots=True)
class Clean(Taken):
    """Channel-days without flaws, ordered by ring row. ``cell``: row of the ring's matrices."""

    cell: Ints
    values: Ints  # ring cells × slots
    codes: Array  # in hundredths


@dataclass(slots=True)
class Flawed(Taken):
    """Channel-days with flaws, and what was found of them.

    ``values``, ``codes`` (hundredths) and ``methods`` are final, ``received`` and ``received_codes`` what came. Findings: ``of`` which day,
    ``rule`` as a place in ``kernel.FLAWS``, and what its sentence names.
    """

    values: Ints
    codes: Array
    methods: Array
    received: Ints
    received_codes: Array
    told: Ints
    edited: Mask
    of: Ints
    rule: Array
    number: Ints
    first: Ints
    last: Ints
    amount: Ints
    slot: Ints
    third: Ints


def known(settings: VeeSettings, rules: list[Any]) -> bool:
    """Whether every entry of the groups of initial load is one whose silence is understood here."""
    steering = all(isinstance(rule, (RuleSettings, *_STEERING)) for group in settings.groups.values() for rule in group.rules)
    tolerances = [rule.tolerance_percent for rule in rules if isinstance(rule, IntervalSpike)]
    return steering and all(rule.id in _SILENT or isinstance(rule, _LOOKED_AT) for rule in rules) and max(tolerances, default=0) <= _PERCENT


def plain(settings: VeeSettings) -> bool:
    """Whether the rules that answer flaws stand in the group of initial load as by default: once, in that order, for all channels."""
    group = settings.group("initial-load")
    answering = [rule for rule in group.rules if rule.id in (*kernel.FLAWS, "interval-interpolation", "high-low", "consecutive-interval")]
    usual = ("negative-consumption", "interval-spike", "consecutive-interval", "interval-interpolation", "zero-consumption", "high-low")
    order = [usual.index(rule.id) for rule in answering]
    if not all(isinstance(rule, RuleSettings) for rule in group.rules) or order != sorted(set(order)):
        return False
    return all(_as_usual(rule) for rule in answering if rule.id not in ("high-low", "consecutive-interval"))


def _as_usual(rule: Any) -> bool:
    if rule.eligibility or rule.effective_from or rule.effective_to or rule.severity == "terminate":
        return False
    if isinstance(rule, NegativeConsumption):
        return rule.per == "interval"
    if isinstance(rule, IntervalSpike):
        return rule.per == "day" and not rule.history_factor
    return not isinstance(rule, ZeroConsumption) or rule.with_outage is None


class Sieve:
    """Takes days that are plain to decide out of what is to be folded in, for one partition."""

    def __init__(self, settings: VeeSettings, channels: Channels, keeper: Keeper) -> None:
        self.settings, self.channels, self.keeper = settings, channels, keeper
        initial: Role = "initial-load"
        self.rules: list[Any] = list(settings.rules_of(initial).rules)
        self.open = known(settings, self.rules)
        self.mends = self.open and plain(settings)
        self._limits: dict[tuple[int, int], kernel.Limits] = {}
        self._room = np.zeros(0, np.int32)
        self._nothing = history.table()
        self._sibling_wait = next((rule.wait for rule in self.rules if isinstance(rule, SiblingImd)), -1)

    def take(
        self, seconds: int, table: Table, segments: Segments, bounds: tuple[Ints, Ints], barred: Mask, now: int, clock: int,
        version: int, weights: Array,
    ) -> tuple[Clean, Flawed | None, Segments]:  # fmt: skip
        """Takes days into the ring; returns those that are clean, those with flaws, and the segments that are left.

        ``bounds``: where the day of each segment begins and ends; ``barred``: segments of channels that are not to be looked at.
        ``clock``: time of the newest tick.
        """
        size, hot, width = len(segments), table["day"].shape[1], table["values"].shape[2]
        kept = self._nothing if self.keeper.idle else self.keeper.history.table(seconds)
        parts = _parts(segments, bounds, barred)
        clean, left = np.zeros(size, np.int8), np.zeros(size, np.bool_)
        counts, replaces, state = np.zeros(size, np.int64), np.zeros(size, np.int64), np.zeros(size, np.int8)
        found = _room_for(min(size, 32 + size // 4) if self.mends else 0, width)
        taken = kernel.sift(
            parts, columns_of(kernel.Ring, table), columns_of(kernel.Kept, kept), self._known(), self._limits_of(seconds),
            self._counters(table), weights, seconds, now, clock, version, clean, counts, replaces, state, left, found,
            np.zeros(width, np.int64), np.zeros(width, np.uint16), np.zeros(width + 1, np.uint64),
        )  # fmt: skip
        days = int(found.size[0])
        at = np.flatnonzero(clean == 1) if taken < size or days else np.arange(size)
        row = segments.row[at]
        if (row[1:] < row[:-1]).any():
            order = np.argsort(row)
            at, row = at[order], row[order]
        if not self.keeper.idle and left.any():
            kept.mark(segments.row[left])
        day = segments.day[at]
        some = found.part[:days]
        table.mark(np.concatenate([row, segments.row[some]]), np.concatenate([day, segments.day[some]]) % hot)
        place = row * hot + day % hot
        start = bounds[0] + np.maximum(table["phase"][segments.row], 0)
        short = Clean(
            seconds, row, table["channel"][row].astype(np.int64), day, start[at], counts[at],
            replaces[at], state[at], place, table["values"].reshape(-1, width), table["conditions"].reshape(-1, width),
        )  # fmt: skip
        flawed = _flawed(seconds, table, segments, start, counts, replaces, found) if days else None
        return short, flawed, segments if not taken else segments.take(np.flatnonzero(clean == 0))

    def gather(
        self, seconds: int, table: Table, segments: Segments, bounds: tuple[Ints, Ints], barred: Mask, now: int, clock: int, span: int
    ) -> tuple[Mask, int]:
        """Merges what comes for open days published less than ``span`` ago; returns which segments, and until when these days wait."""
        taken = np.zeros(len(segments), np.bool_)
        until = kernel.gather(
            _parts(segments, bounds, barred), columns_of(kernel.Ring, table), self._counters(table), seconds, now, clock, span,
            self._sibling_wait, taken,
        )  # fmt: skip
        if until:
            table.mark(segments.row[taken], segments.day[taken] % table["day"].shape[1])
        return taken, until

    def leave(self, seconds: int, table: Table, rows: Ints, places: Ints) -> None:
        """Has the days at these places of the ring leave it: one of each row, which ends with a value."""
        kept = self._nothing if self.keeper.idle else self.keeper.history.table(seconds)
        kernel.leave(columns_of(kernel.Ring, table), columns_of(kernel.Kept, kept), self._limits_of(seconds), rows, places)
        if not self.keeper.idle:
            kept.mark(rows)

    def _counters(self, table: Table) -> Array:
        """Room for a number per row of a table, all zero."""
        if len(self._room) < len(table):
            self._room = np.zeros(len(table) * 2, np.int32)
        return self._room

    def _known(self) -> kernel.Known:
        channels, table = self.channels, self.channels.table
        return kernel.Known(
            channels.unit, table["negative"], table["reported"], table["scaled"], table["multiplier"], channels.served, channels.vacant,
            table["direction"],
        )  # fmt: skip

    def _limits_of(self, seconds: int) -> kernel.Limits:
        units = self.channels.units
        found = self._limits.get((seconds, len(units)))
        if found is None:
            found = self._limits[seconds, len(units)] = self._make_limits(seconds, units)
        return found

    def _make_limits(self, seconds: int, units: list[str]) -> kernel.Limits:
        quantities = [resolve(unit).quantity for unit in units]

        def of(kind: type) -> list[Any]:
            return [rule for rule in self.rules if isinstance(rule, kind)]

        def judged(rules: list[Any]) -> Array:
            return np.array([[quantity in rule.quantities for quantity in quantities] for rule in rules], np.bool_).reshape(-1, len(units))

        spikes = [rule for rule in of(IntervalSpike) if rule.per == "day"]  # what stands out of a delivery has a mark of its own
        zeros, runs, highs = of(ZeroConsumption), of(ConsecutiveInterval), of(HighLow)
        negatives = of(NegativeConsumption)
        below = np.zeros((len(units), 2), np.bool_)
        below[:, 0] = judged(negatives).any(axis=0)
        below[:, 1] = judged([rule for rule in negatives if rule.even_if_allowed]).any(axis=0)
        back = {"previous": 1, "last-year": 13}
        history = [[*(back[name] for name in (*rule.history, "")[:2] if name), 0][:2] for rule in highs]
        followed = list(self.keeper.followed)
        return kernel.Limits(
            spikes=_lines([(rule.tolerance_percent, rule.min_intervals, rule.floor) for rule in spikes], 3),
            negative_in=below,
            zeros=np.array([rule.epsilon for rule in zeros], np.int64),
            zeros_in=judged(zeros),
            runs=_lines(
                [(*_test(rule), -(-rule.min_run // seconds), rule.look_back, rule.each_day, _place(rule, followed)) for rule in runs], 7
            ),
            bands=_bands(runs),
            runs_in=judged(runs),
            highs=np.array([(rule.high, rule.low, rule.floor) for rule in highs], np.float64).reshape(-1, 3),
            blocks=_lines([(*blocks, rule.min_days, rule.max_estimated_percent) for blocks, rule in zip(history, highs, strict=True)], 4),
            highs_in=judged(highs),
            followed=_lines([_test(rule) for rule in followed], 3),
            followed_bands=_bands(followed),
            multiplier=bool(of(Multiplier)),
            inactive=bool(of(InactiveMeasurement)),
            sums=self.keeper.sums,
            peaks=self.keeper.peaks,
            sibling_wait=self._sibling_wait,
            lateness=self.settings.lateness,
            flaws=self._flaws(seconds),
        )

    def _flaws(self, seconds: int) -> kernel.Flaws:
        by_id = {rule.id: rule for rule in self.rules} if self.mends else {}
        zero, line = by_id.get("zero-consumption"), by_id.get("interval-interpolation")
        exempt = zero.exempt_directions if isinstance(zero, ZeroConsumption) else ()
        gap, estimate = (line.max_gap // seconds, line.condition // STEP) if isinstance(line, IntervalInterpolation) else (0, 0)
        issues = [rule in by_id and by_id[rule].severity == "issue" for rule in kernel.FLAWS]
        return kernel.Flaws(self.mends, np.array(issues, np.int64), np.array([name in exempt for name in DIRECTIONS]), gap, estimate)


def _parts(segments: Segments, bounds: tuple[Ints, Ints], barred: Mask) -> kernel.Parts:
    return kernel.Parts(
        segments.row, segments.day, segments.slot, segments.size, segments.source, segments.time, segments.values, segments.codes,
        *bounds, barred,
    )  # fmt: skip


def _room_for(days: int, width: int) -> kernel.Found:
    """Room for that many days with flaws, and for as many findings as there can be of them."""
    of_days, matrix, findings = (np.empty(days, np.int64) for _ in range(4)), (days, width), days * len(kernel.FLAWS)
    part, state, told, raised = of_days
    told_of = (np.empty(findings, np.int64) for _ in range(8))
    return kernel.Found(
        np.zeros(2, np.int64), part, np.empty(matrix, np.int64), np.empty(matrix, np.uint16), np.empty(matrix, np.int8), state, told,
        raised, np.empty(days, np.bool_), *told_of,
    )  # fmt: skip


def _flawed(
    seconds: int, table: Table, segments: Segments, start: Ints, counts: Ints, replaces: Ints, found: kernel.Found
) -> Flawed:  # fmt: skip
    """What was found, ordered by ring row; findings by day."""
    days, findings = found.size.tolist()
    order = np.argsort(segments.row[found.part[:days]])
    place = np.empty(days, np.int64)
    place[order] = np.arange(days)
    of = place[found.of[:findings]]
    by_day = np.argsort(of, kind="stable")
    at = found.part[:days][order]
    row, day = segments.row[at], segments.day[at]
    pos = day % table["day"].shape[1]
    return Flawed(
        seconds, row, table["channel"][row].astype(np.int64), day, start[at], counts[at], replaces[at], found.state[order],
        found.values[order], found.codes[order], found.methods[order], table["values"][row, pos], table["conditions"][row, pos],
        found.told[order], found.edited[order], of[by_day],
        *(getattr(found, name)[:findings][by_day] for name in ("rule", "number", "first", "last", "amount", "slot", "third")),
    )  # fmt: skip


def columns_of(kind: Any, table: Table) -> Any:
    """The columns of a table as the named tuple the kernel takes."""
    return kind(*(table[name] for name in kind._fields))


def _lines(lines: list[Any], width: int) -> Ints:
    return np.array(lines, np.int64).reshape(-1, width)


def _test(rule: ConsecutiveInterval) -> tuple[int, int, int]:
    """Mode, sign and amount of a rule's test."""
    if rule.test is None:
        return kernel.MODE_BAND, 0, 0
    mode = kernel.MODE_VALUE if not rule.bands else kernel.MODE_AND if rule.combine == "and" else kernel.MODE_OR
    return mode, kernel.SIGNS.index(rule.test[0]), rule.test[1]


def _place(rule: ConsecutiveInterval, followed: list[ConsecutiveInterval]) -> int:
    return followed.index(rule) if rule in followed else -1


def _bands(rules: list[ConsecutiveInterval]) -> Array:
    """Per rule and condition in hundredths, whether its bands hold it."""
    found = np.zeros((len(rules), _CODES), np.bool_)
    for line, rule in zip(found, rules, strict=True):
        for band in conditions.RANGES:
            if band.name in rule.bands:
                line[-(-band.bottom // STEP) : band.top // STEP + 1] = True
    return found


def warm() -> None:
    """Compiles the kernel, or loads what was compiled before: two channels of which one takes the short way, until days leave the ring."""
    from schemas.block import ReadBlock, strings
    from streams.runtime.fold import Message
    from streams.vee.fold import VeeFold

    two, none = np.zeros(2, np.int64), np.zeros(0, np.int64)
    block = ReadBlock(
        id="warm", payload="", source="", format="", received_at=0, device=strings(["a", "b"]), channel=strings(["a", "b"]),
        unit=strings(["kWh"] * 2), direction=np.zeros(2, np.int8), start=two, seconds=np.full(2, 3600, np.int32),
        count=np.full(2, 24, np.int32), reads=np.zeros(2, np.int32), multiplier=two,
        values=np.repeat([1_000_000, -1_000_000], 24), conditions=np.full(48, conditions.REGULAR, np.int32), times=none,
    )  # fmt: skip
    fold = VeeFold(VeeSettings.default(), 0, 1)
    fold.apply(Message("Tick", {"at": 30 * 86_400, "close": False}, "warm"))
    for day in range(fold.settings.hot_days + 1):
        fold.apply(Message("ReadBlock", replace(block, start=two + day * 86_400), block.id))
