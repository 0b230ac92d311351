"""A usage group applied to one subscription and period: rules in order, each on what the ones before it made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from fractions import Fraction
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from schemas import conditions as c
from schemas import formula
from schemas.quantity import MICRO
from schemas.topology import usage as model
from schemas.topology.tou import WEEKDAYS
from schemas.topology.usage import UsageSettings, any_match
from schemas.units import resolve
from streams import calendar
from streams.determinants.maps import Maps
from streams.determinants.sums import MOST
from streams.determinants.usage import checks, demand, energy, formulas, reactive, readings
from streams.determinants.usage.book import Book, Channel, TouEvent
from streams.determinants.usage.curve import Curve, Quality, Quantity, added, alike, ratio, worst
from streams.determinants.usage.demand import Peak
from streams.determinants.usage.exact import divide

Array = npt.NDArray[Any]
EPOCH: Final = date(1970, 1, 1)
FOREVER: Final = 2**40
_POWER: Final = {"kWh": "kW", "Wh": "W", "MWh": "MW", "kvarh": "kvar", "varh": "var", "kVAh": "kVA", "VAh": "VA"}


@dataclass(frozen=True, slots=True)
class Period:
    """What usage is calculated for: UTC seconds, the zone its local days are counted in, days of the cycle it is part of."""

    begin: int
    end: int
    zone: str
    cycle_days: int

    @property
    def seconds(self) -> int:
        """Elapsed time."""
        return self.end - self.begin

    @property
    def days(self) -> int:
        """Local days begun."""
        first, last = (int(calendar.day_of(self.zone, t)) for t in (self.begin, max(self.begin, self.end - 1)))
        return last - first + 1

    @property
    def first(self) -> date:
        """The local date on which it begins."""
        return EPOCH + timedelta(days=int(calendar.day_of(self.zone, self.begin)))


@dataclass(frozen=True, slots=True)
class Past:
    """What was sent for another period of the subscription: amounts by name, adding up time-of-use lines."""

    begin: int
    end: int
    days: int
    amounts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found: rule, severity (info or issue), one plain sentence."""

    rule: str
    severity: str
    detail: str


@dataclass(slots=True)
class Outcome:
    """What came of it. ``waits`` says why usage should wait, empty: it need not; ``window`` for how long it may."""

    quantities: list[Quantity] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    waits: str = ""
    window: int = 0
    reaches_back: bool = False  # leans on quantities of other periods


@dataclass(slots=True)
class Sources:
    """All that rules may see beside what they made."""

    book: Book
    settings: UsageSettings
    maps: Maps
    rollover_percent: int
    account: str
    period: Period
    past: Sequence[Past]
    channels: list[Channel]
    about: Mapping[str, Any]  # of the subscription, from master data


def calculate(version: model.GroupVersion, sources: Sources) -> Outcome:
    """Runs the rules of a group version."""
    run = _Run(sources)
    for rule in version.rules:
        if run.is_for(rule):
            run.apply(rule)
    return run.outcome


class _Run:
    """One calculation."""

    def __init__(self, sources: Sources) -> None:
        self.at = sources
        self.outcome = Outcome()
        self.curves: dict[str, Curve] = {}
        self.recipes: dict[str, tuple[list[Channel], str]] = {}
        self.numbers: dict[str, list[Quantity]] = {}
        self._hidden: set[str] = set()

    # --- which rules ---------------------------------------------------------------------------------------------------------

    def is_for(self, rule: Any) -> bool:
        """Whether a rule is meant for the subscription and period, and what it needs was made."""
        when, about, first = rule.when, self.at.about, self.at.period.first
        words = (
            (when.accounts, self.at.account), (when.commodities, about.get("commodity")), (when.regions, about.get("region")),
            (when.customer_classes, about.get("customer_class")), (when.rates, about.get("rate")),
        )  # fmt: skip
        return (
            all(any_match(patterns, word or "") for patterns, word in words)
            and (when.effective_from is None or when.effective_from <= first)
            and (when.effective_to is None or first < when.effective_to)
            and (when.has is None or any(_selected(when.has, channel) for channel in self.at.channels))
            and all(name in self.curves or name in self.numbers for name in rule.needs())
        )

    def apply(self, rule: Any) -> None:
        """Runs one rule. What cannot be calculated is an invalid quantity, not an error."""
        before = len(self.outcome.quantities)
        try:
            _RULES[rule.id](self, rule)
        except (ValueError, ZeroDivisionError, OverflowError) as error:
            del self.outcome.quantities[before:]
            self._tell(rule, 0, Quality(c.INVALID, 0, 0, 0), getattr(rule, "unit", "") or "count")
            self.outcome.findings.append(Finding(rule.id, "issue", f"{rule.name or rule.id}: {error}"))
        if not rule.send:
            self._hidden.update(rule.makes())
            del self.outcome.quantities[before:]

    # --- what rules share ------------------------------------------------------------------------------------------------------

    def _tell(self, rule: Any, amount: int, quality: Quality, unit: str, **more: Any) -> None:
        """Adds a quantity under the rule's name."""
        name = more.pop("name", None) or rule.name or rule.id.replace("-", "_")
        if abs(amount) > MOST:
            amount, quality = 0, replace(quality, condition=c.INVALID)
        found = Quantity(name, more.pop("kind", None) or rule.id, unit, amount, quality, **more)
        self.numbers.setdefault(name, []).append(found)
        self.outcome.quantities.append(found)

    def _amount(self, name: str) -> tuple[int, Quality]:
        """The number of a name: of a curve its sum, of several quantities theirs."""
        if name in self.numbers:
            found = self.numbers[name]
            quality = found[0].quality
            for other in found[1:]:
                quality = quality.with_(other.quality)
            return sum(q.amount for q in found), quality
        return self.curves[name].amount, self.curves[name].quality

    def _unit(self, name: str) -> str:
        return self.curves[name].unit if name in self.curves else self.numbers[name][0].unit

    def _curve(self, name: str) -> Curve:
        if name not in self.curves:
            raise ValueError(f"{name} is no curve")
        return self.curves[name]

    def _chosen(self, select: model.Select, unit: str, registers: bool) -> list[Channel]:
        dimension = resolve(unit).dimension
        return [
            channel
            for channel in self.at.channels
            if (channel.seconds == 0) == registers and resolve(channel.unit).dimension == dimension and _selected(select, channel)
        ]

    def _clock(self, curve: Curve) -> Array:
        """The second of the local day, in elapsed time, at which each interval begins."""
        days = calendar.day_of(self.at.period.zone, curve.times)
        return curve.times - calendar.start_of(self.at.period.zone, days)

    def _factor(self, table: str, day: date) -> int:
        """A factor of a table as it holds on a local date. Raises ValueError where the table says nothing."""
        fits = [
            row.value
            for row in self.at.settings.tables[table]
            if (row.since is None or row.since <= day) and (not row.accounts or any_match(row.accounts, self.at.account))
        ]
        if not fits:
            raise ValueError(f"table {table} has no value for {day.isoformat()}")
        return fits[-1]

    def _factors(self, table: str, curve: Curve) -> Array:
        """A factor per interval, by its local day."""
        days, place = np.unique(calendar.day_of(self.at.period.zone, curve.times), return_inverse=True)
        held = [self._factor(table, EPOCH + timedelta(days=int(day))) for day in days.tolist()]
        return np.array(held, np.int64)[place]

    def _lines(self, curve: Curve, named: str | None, channels: Sequence[Channel]) -> tuple[Array, list[str]]:
        """The time-of-use period of each interval, as a number, and the names."""
        maps, zone = self.at.maps, self.at.period.zone
        number = (
            maps.number_of(named)
            if named
            else maps.assign(channels[0].unit, channels[0].direction, channels[0].channel, self.at.account)
            if channels
            else 0
        )
        names: list[str] = []
        return swapped_lines(maps, number, zone, curve, names, self.at.book.events, self.at.account), names

    # --- rules -----------------------------------------------------------------------------------------------------------------

    def _alignment(self, rule: model.AlignmentAndDelay) -> None:
        period = self.at.period
        expected = usable = estimated = 0
        for channel in self.at.channels:
            if channel.seconds:
                if not resolve(channel.unit).quantity.endswith(("energy", "volume", "heat-flow")):
                    continue
                begin = max(period.begin, self.at.book.first(channel)) if "usage_group" not in self.at.about else period.begin
                curve = self.at.book.curve(channel, begin, max(begin, period.end))
                expected, usable = expected + len(curve), usable + int(curve.usable.sum())
                estimated += curve.quality.estimated
            else:
                since = period.end - rule.reading_tolerance
                near = [r for r in self.at.book.reads(channel, since, FOREVER) if r.at > since and r.condition >= c.OUTAGE]
                expected, usable = expected + 1, usable + bool(near)
                estimated += bool(near) and near[0].condition < c.SUSPECT
        self.outcome.waits = checks.alignment_and_delay(expected, usable, estimated, rule.missing_percent, rule.estimated_percent)
        self.outcome.window = rule.retry_window

    def _installed(self, rule: model.InstalledDeviceCheck) -> None:
        spans: list[tuple[int, int]] = []
        for channel in self.at.channels:
            known = self.at.book.installed(channel)
            spans += known if known is not None else [(self.at.book.first(channel), 2**40)]
        said = checks.installed_device_check(spans, self.at.period.begin, self.at.period.end)
        if said:
            self.outcome.findings.append(Finding(rule.id, rule.severity, said))

    def _interval_data(self, rule: model.IntervalData) -> None:
        channels = self._chosen(rule.of, rule.unit, registers=False)
        if not channels:
            return
        self.recipes[str(rule.name)] = channels, rule.unit
        curve = self.curves[str(rule.name)] = self._summed(channels, rule.unit, self.at.period.begin)
        self._tell(rule, *energy.interval_data(curve), rule.unit)

    def _summed(self, channels: Sequence[Channel], unit: str, begin: int) -> Curve:
        return added([self.at.book.curve(channel, begin, self.at.period.end) for channel in channels], unit)

    def _tou(self, rule: model.TouMappedUsage) -> None:
        curve = self._curve(rule.curve)
        lines, names = self._lines(curve, rule.map, self.recipes.get(rule.curve, ([], ""))[0])
        for name, (amount, quality) in zip(names, energy.tou_mapped_usage(curve, lines, len(names)), strict=True):
            self._tell(rule, amount, quality, curve.unit, tou=name)

    def _scalar(self, rule: model.ScalarDetails) -> None:
        self._registers(rule, readings.scalar_details, rule.readings)

    def _daily_scalar(self, rule: model.DailyScalar) -> None:
        self._registers(rule, readings.daily_scalar, told=False)

    def _registers(self, rule: Any, work: Callable[..., readings.Details], told: bool) -> None:
        period = self.at.period
        for channel in self._chosen(rule.of, rule.unit, registers=True):
            found = work(
                self.at.book.reads(channel, period.begin, period.end), period.begin, period.end, channel.dials, self.at.rollover_percent
            )
            where = {"device": channel.device, "channel": channel.channel}
            amount = energy.unit_conversion(found.amount, ratio(channel.unit, rule.unit))
            self._tell(rule, amount, found.quality, rule.unit, at=found.end.at if found.end else 0, **where)
            if told:
                self._readings(rule, channel, found.base, found.end)

    def _readings(self, rule: Any, channel: Channel, base: readings.Read | None, end: readings.Read | None) -> None:
        for kind, read in (("begin-reading", base), ("end-reading", end)):
            if read is not None:
                quality = Quality.of(np.array([read.condition], np.int32))
                name = f"{rule.name}_{kind.replace('-', '_')}"
                self._tell(
                    rule,
                    read.value,
                    quality,
                    channel.unit,
                    name=name,
                    kind=kind,
                    at=read.at,
                    device=channel.device,
                    channel=channel.channel,
                )

    def _subtractive(self, rule: model.SubtractiveIntervalDetails) -> None:
        period = self.at.period
        for channel in self._chosen(rule.of, rule.unit, registers=False):
            curve = self.at.book.curve(channel, period.begin, period.end).in_unit(rule.unit)
            self._tell(rule, curve.amount, curve.quality, rule.unit, device=channel.device, channel=channel.channel)
            beside = [
                r
                for r in self._chosen(model.Select(), rule.unit, registers=True)
                if (r.device, r.direction) == (channel.device, channel.direction)
            ]
            for register in beside[:1]:
                pair = readings.subtractive_interval_details(
                    self.at.book.reads(register, period.begin, period.end), period.begin, period.end
                )
                self._readings(rule, register, *pair)

    def _tiers(self, rule: model.IntervalTier) -> None:
        bounds = [tier.up_to or 0 for tier in rule.tiers[:-1]]
        amount, quality = self._amount(rule.source)
        period = self.at.period
        if rule.per == "period":
            if rule.prorate and period.days != period.cycle_days:
                bounds = energy.tier_bounds(bounds, period.days, period.cycle_days)
            parts = energy.interval_tier(amount, bounds)
        else:
            curve = self._curve(rule.source)
            sums = curve.values
            if rule.per == "day":
                days = calendar.day_of(period.zone, curve.times)
                _, first = np.unique(days, return_index=True)
                sums = np.add.reduceat(curve.values, first) if len(days) else curve.values
            parts = [sum(part) for part in zip(*(energy.interval_tier(v, bounds) for v in sums.tolist()), strict=True)] or [0] * len(
                rule.tiers
            )
        for tier, part in zip(rule.tiers, parts, strict=True):
            self._tell(rule, part, quality, self._unit(rule.source), tou=tier.tier)

    def _peak(self, rule: Any, peak: Peak, unit: str, **more: Any) -> None:
        self._tell(rule, peak.amount, peak.quality, _POWER.get(unit, f"{unit}/h"), at=peak.at, **more)

    def _block(self, rule: model.BlockDemand) -> None:
        curve = self._curve(rule.curve)
        if rule.window % curve.seconds:
            raise ValueError(f"a window of {rule.window} s is no multiple of intervals of {curve.seconds} s")
        grid = self._clock(curve)
        if rule.by is None:
            self._peak(rule, demand.block_demand(curve, rule.window, grid, rule.exclude), curve.unit)
            return
        lines, names = self._lines(curve, rule.by, [])
        whole = lines[
            np.maximum.accumulate(np.where(grid % rule.window == 0, np.arange(len(curve)), 0))
        ]  # a window's period is that of its begin
        for number, name in enumerate(names):
            own = replace(curve, conditions=np.where(whole == number, curve.conditions, 0).astype(np.int32))
            self._peak(rule, demand.block_demand(own, rule.window, grid, rule.exclude), curve.unit, tou=name)

    def _rolling(self, rule: model.RollingDemand) -> None:
        curve, begin = self._curve(rule.curve), None
        if rule.window % curve.seconds or rule.step % curve.seconds:
            raise ValueError(f"window and step must be multiples of intervals of {curve.seconds} s")
        if rule.carry_in and rule.curve in self.recipes:
            begin = self.at.period.begin
            curve = self._summed(*self.recipes[rule.curve], begin - rule.window + curve.seconds)
        self._peak(rule, demand.rolling_demand(curve, rule.window, rule.step, begin, rule.exclude), curve.unit)

    def _coincident(self, rule: model.CoincidentPeak) -> None:
        curve = self._curve(rule.curve)
        grid = self._clock(curve)
        if rule.peak == "group":
            found = demand.block_demand(curve, rule.window, grid, rule.exclude)
            ends: list[int] = [found.at] if found.at else []
        else:
            ends = [int(at.timestamp()) for at in self.at.settings.peaks[rule.peak]]
        self._peak(rule, demand.coincident_peak(curve, rule.window, ends, rule.exclude), curve.unit)
        channels, unit = self.recipes.get(rule.curve, ([], ""))
        for point in sorted({channel.service_point for channel in channels}) if rule.each else []:
            own = self._summed([channel for channel in channels if channel.service_point == point], unit, self.at.period.begin)
            then = demand.coincident_peak(own, rule.window, ends, rule.exclude)
            most = demand.block_demand(own, rule.window, grid if len(own) == len(curve) else None, rule.exclude)
            self._peak(rule, then, unit, name=f"{rule.name}_then", kind="coincident-peak", device=point)
            self._peak(rule, most, unit, name=f"{rule.name}_own", kind="individual-peak", device=point)

    def _kva(self, rule: model.KvaDemand) -> None:
        active, other = self._curve(rule.active).in_unit("kWh"), self._curve(rule.reactive).in_unit("kvarh")
        self._tell_peak_kva(rule, demand.kva_demand(active, other, rule.window, rule.exclude))

    def _tell_peak_kva(self, rule: Any, peak: Peak) -> None:
        self._tell(rule, peak.amount, peak.quality, "kVA", at=peak.at)

    def _power_factor(self, rule: model.PowerFactor) -> None:
        if rule.method == "at-md":
            at = self.numbers[str(rule.demand)][0].at
            if not at:
                raise ValueError(f"{rule.demand} has no moment")
            self._tell(rule, *reactive.at_maximum(self._curve(rule.active), self._curve(str(rule.reactive)), at, rule.window), "pf")
            return
        active, quality = self._amount(rule.active)
        if rule.apparent is not None:
            apparent, other = self._amount(rule.apparent)
            self._tell(rule, reactive.apparent_power_factor(active, apparent), quality.with_(other), "pf")
            return
        lagging, other = self._lagging(str(rule.reactive), rule.leading if rule.sign == "net" else None)
        self._tell(rule, reactive.power_factor(active, lagging), quality.with_(other), "pf")

    def _lagging(self, name: str, leading: str | None) -> tuple[int, Quality]:
        amount, quality = self._amount(name)
        if leading is not None:
            off, other = self._amount(leading)
            amount, quality = amount - off, quality.with_(other)
        return amount, quality

    def _load_factor(self, rule: model.LoadFactor) -> None:
        (amount, quality), (peak, other) = self._amount(rule.energy), self._amount(rule.demand)
        self._tell(rule, demand.load_factor(amount, peak, self.at.period.seconds), quality.with_(other), "pf")

    def _excess(self, rule: model.ExcessKvarh) -> None:
        active, quality = self._amount(rule.active)
        lagging, other = self._lagging(rule.reactive, rule.leading)
        self._tell(rule, reactive.excess_kvarh(active, lagging, rule.target_factor), quality.with_(other), "kvarh")

    def _billing_demand(self, rule: model.BillingDemand) -> None:
        now, quality = self._amount(rule.demand)
        self.outcome.reaches_back = True
        since = self.at.period.begin - (rule.months * 31 + 15) * 86_400
        held = [p for p in self.at.past if since <= p.begin and p.end <= self.at.period.begin]
        past = (
            [p.amounts[rule.demand] for p in sorted(held, key=lambda p: p.begin)[-rule.months :] if rule.demand in p.amounts]
            if rule.months
            else []
        )
        minimum = self._factor(rule.minimum_table, self.at.period.first) if rule.minimum_table else rule.minimum
        self._tell(rule, demand.billing_demand(now, past, rule.ratchet, minimum), quality, self._unit(rule.demand))

    def _net_interval(self, rule: model.NetInterval) -> None:
        for name, curve in zip(rule.makes(), energy.net_interval(self._curve(rule.delivered), self._curve(rule.received)), strict=True):
            self.curves[name] = curve
            self._tell(rule, curve.amount, curve.quality, curve.unit, name=name)

    def _net_period(self, rule: model.NetPeriod) -> None:
        (delivered, quality), (received, other) = self._amount(rule.delivered), self._amount(rule.received)
        self.outcome.reaches_back = True
        carried = 0
        if rule.carry and rule.expires != self.at.period.first.month:
            before = next((p for p in self.at.past if p.end == self.at.period.begin), None)
            carried = before.amounts.get(f"{rule.name}_carried", 0) if before else 0
        unit = self._unit(rule.delivered)
        received = energy.unit_conversion(received, ratio(self._unit(rule.received), unit))
        for name, amount in zip(rule.makes(), energy.net_period(delivered, received, carried), strict=True):
            self._tell(rule, amount, quality.with_(other), unit, name=name)

    def _profile(self, rule: model.ProfileAccumulation) -> None:
        amount, quality = self._amount(rule.source)
        period = self.at.period
        size = period.seconds // rule.seconds
        times = period.begin + np.arange(size, dtype=np.int64) * rule.seconds
        days = calendar.day_of(period.zone, times)
        weights = np.zeros(size, np.int64)
        for day in np.unique(days).tolist():
            local = EPOCH + timedelta(days=int(day))
            weekday, known = WEEKDAYS[local.weekday()], self.at.settings.profiles[rule.profile]
            held = [p for p in known if weekday in p.days and (p.since is None or p.since <= local)]
            line = max(held, key=lambda p: p.since or date.min).weights if held else (0,)
            here = np.flatnonzero(days == day)
            clock = calendar.wall_clock(period.zone, int(day), rule.seconds)[
                (times[here] - int(calendar.start_of(period.zone, day))) // rule.seconds
            ]
            weights[here] = np.array(line, np.int64)[clock * len(line) // 86_400]
        values = energy.profile_accumulation(amount, weights)
        codes = np.full(size, min(quality.condition, c.EST_FLAT) if quality.condition >= c.OUTAGE else quality.condition, np.int32)
        curve = self.curves[str(rule.name)] = Curve(period.begin, rule.seconds, self._unit(rule.source), values, codes)
        self._tell(rule, curve.amount, curve.quality, curve.unit)

    def _gas(self, rule: model.GasEnergy) -> None:
        period = self.at.period
        if rule.source in self.curves:
            volume = self.curves[rule.source].in_unit("m3")
            z, calorific = self._z(rule, lambda table: self._factors(table, volume), len(volume)), self._factors(rule.calorific, volume)
            curve = replace(volume, unit="kWh", values=energy.gas_energy(volume.values, z, calorific))
            self.curves[str(rule.name)] = curve
            self._tell(rule, curve.amount, curve.quality, "kWh")
            return
        amount, quality = self._amount(rule.source)
        amount = energy.unit_conversion(amount, ratio(self._unit(rule.source), "m3"))
        days = [period.first + timedelta(days=k) for k in range(period.days)]

        def factors(table: str) -> Array:
            return np.array([self._factor(table, day) for day in days], np.int64)

        z, calorific = (np.array([energy.day_mean(f)]) for f in (self._z(rule, factors, len(days)), factors(rule.calorific)))
        self._tell(rule, int(energy.gas_energy(np.array([amount]), z, calorific)[0]), quality, "kWh")

    def _z(self, rule: model.GasEnergy, factors: Callable[[str], Array], size: int) -> Array:
        if rule.z is not None:
            return factors(rule.z)
        if rule.pressure is None or rule.temperature is None:
            return np.full(size, MICRO, np.int64)
        k = factors(rule.compressibility) if rule.compressibility else np.full(size, MICRO, np.int64)
        held = zip(factors(rule.pressure).tolist(), factors(rule.temperature).tolist(), k.tolist(), strict=True)
        return np.array([energy.volume_factor(*one) for one in held], np.int64)

    def _convert(self, rule: model.UnitConversion) -> None:
        factor = ratio(self._unit(rule.source), rule.unit)
        amount, quality = self._amount(rule.source)
        if rule.source in self.curves:
            self.curves[str(rule.name)] = self.curves[rule.source].in_unit(rule.unit)
        self._tell(rule, energy.unit_conversion(amount, factor), quality, rule.unit)

    def _math(self, rule: model.Math) -> None:
        tree = formula.parse(rule.formula)
        names = formula.names_of(tree)
        around = formulas.Surroundings(
            {name: self.curves[name] for name in sorted(names) if name in self.curves},
            {name: self._amount(name) for name in names if name not in self.curves},
            lambda table: self._factor(table, self.at.period.first),
            self._factors,
            self.at.period.seconds,
            self.at.period.days,
        )
        value, used, quality = formulas.evaluate(tree, around)
        if isinstance(value, np.ndarray):
            grid = alike(list(around.curves.values()))
            codes = worst(alike(used)) if used else grid[0].conditions
            values = np.where(codes >= c.OUTAGE, value.astype(np.int64), 0)
            curve = self.curves[str(rule.name)] = Curve(grid[0].start, grid[0].seconds, rule.unit, values, codes)
            self._tell(rule, curve.amount, curve.quality, rule.unit)
            return
        self._tell(rule, round(Fraction(value) * MICRO), quality, rule.unit)

    def _round(self, rule: model.RoundAndAdjust) -> None:
        amount, _ = self._amount(rule.target)
        parts = [q.amount for name in rule.sources for q in self.numbers.get(name, [])]
        adjusted, difference = checks.round_and_adjust(amount, rule.decimals, parts)
        if rule.max_difference is not None and abs(difference) > rule.max_difference:
            said = f"{rule.target} differs by {difference / 1e6:.6f} from what it is adjusted to"
            self.outcome.findings.append(Finding(rule.id, rule.severity, said))
        held = self.numbers.get(rule.target, [])
        if len(held) != 1:
            raise ValueError(f"{rule.target} is not one quantity")
        fresh = replace(held[0], amount=adjusted)
        self.numbers[rule.target] = [fresh]
        self.outcome.quantities = [fresh if q is held[0] else q for q in self.outcome.quantities]
        for name in rule.sources:  # the lines of a bill are told as they are added up
            exact = self.numbers.get(name, [])
            rounded = [replace(q, amount=checks.round_and_adjust(q.amount, rule.decimals, ())[0]) for q in exact]
            told = self.outcome.quantities
            self.outcome.quantities = [next((r for e, r in zip(exact, rounded, strict=True) if e is q), q) for q in told]
            self.numbers[name] = rounded

    def _high_low(self, rule: model.UsageHighLow) -> None:
        period = self.at.period
        self.outcome.reaches_back = True
        if rule.compare == "previous":
            then = next((p for p in self.at.past if p.end == period.begin), None)
        else:
            near = [p for p in self.at.past if abs(p.begin - (period.begin - 365 * 86_400)) <= 16 * 86_400]
            then = min(near, key=lambda p: abs(p.begin - (period.begin - 365 * 86_400)), default=None)
        if then is None or rule.target not in then.amounts:
            return
        amount, before = self._amount(rule.target)[0], then.amounts[rule.target]
        if max(divide(amount, period.days), divide(before, max(1, then.days))) < rule.floor:
            return
        said = checks.usage_high_low(amount, period.days, before, then.days, rule.high, rule.low)
        if said:
            self.outcome.findings.append(Finding(rule.id, rule.severity, f"{rule.target}: {said}"))


def _selected(select: model.Select, channel: Channel) -> bool:
    return select.matches(channel.channel, channel.device, channel.service_point, channel.unit, channel.direction)


def _place(names: list[str], name: str) -> int:
    if name not in names:
        names.append(name)
    return names.index(name)


def swapped_lines(
    maps: Maps, number: int, zone: str, curve: Curve, names: list[str], events: Mapping[str, TouEvent], account: str
) -> Array:
    """The time-of-use period of each interval as :func:`map_lines`, with what critical-peak events for the account and map change; of
    several the one whose id comes last holds."""
    lines = map_lines(maps, number, zone, curve, names)
    name = maps.names[maps.on(number, int(calendar.day_of(zone, curve.start)))][0]
    for _, event in sorted(events.items()):
        if (event.maps and name not in event.maps) or (event.accounts and not any_match(event.accounts, account)):
            continue
        inside = (curve.times >= event.start) & (curve.times < event.end)
        if event.use and inside.any():
            lines = np.where(inside, map_lines(maps, maps.number_of(event.use), zone, curve, names), lines)
        elif inside.any():
            lines = np.where(inside, _place(names, event.tou), lines)
    return lines


def map_lines(maps: Maps, number: int, zone: str, curve: Curve, names: list[str]) -> Array:
    """Periods of a map for each interval, as places in ``names``, which grows."""
    if not len(curve):
        return np.zeros(0, np.int64)
    first, last = (int(calendar.day_of(zone, t)) for t in (curve.start, curve.end - 1))
    parts = []
    for day in range(first, last + 1):
        vector = maps.vectors[maps.vector(number, zone, day, curve.seconds, int(calendar.slots_of(zone, day, curve.seconds)))]
        own = maps.names[vector.map][1]
        if vector.map == maps.on(number, day):
            for name in own:  # periods without intervals are told too
                _place(names, name)
        places = np.array([_place(names, own[line]) if line in vector.lines else 0 for line in range(len(own))], np.int64)
        parts.append(places[vector.lines])
    lines = np.concatenate(parts)
    skip = (curve.start - int(calendar.start_of(zone, first))) // curve.seconds
    return lines[skip : skip + len(curve)]


_RULES: Final[dict[str, Callable[[_Run, Any], None]]] = {
    "alignment-and-delay": _Run._alignment, "installed-device-check": _Run._installed, "interval-data": _Run._interval_data,
    "tou-mapped-usage": _Run._tou, "scalar-details": _Run._scalar, "daily-scalar": _Run._daily_scalar,
    "subtractive-interval-details": _Run._subtractive, "interval-tier": _Run._tiers, "block-demand": _Run._block,
    "rolling-demand": _Run._rolling, "coincident-peak": _Run._coincident, "kva-demand": _Run._kva, "power-factor": _Run._power_factor,
    "load-factor": _Run._load_factor, "excess-kvarh": _Run._excess, "billing-demand": _Run._billing_demand,
    "net-interval": _Run._net_interval, "net-period": _Run._net_period, "profile-accumulation": _Run._profile, "gas-energy": _Run._gas,
    "unit-conversion": _Run._convert, "math": _Run._math, "round-and-adjust": _Run._round, "usage-high-low": _Run._high_low,
}  # fmt: skip
