"""Usage in topology.yaml: what is told of consumption as it becomes known, and how billing usage is calculated.

A usage group is an ordered list of rules; each adds quantities (and curves) under a name that later rules use. Which group a
subscription has says its master data (`usage_group`), else the first group whose account patterns match.
"""

from __future__ import annotations

from datetime import date, datetime
from fnmatch import fnmatchcase
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from schemas import formula
from schemas.quantity import MICRO
from schemas.topology.base import Micros, Seconds, Section, check_dated
from schemas.topology.tou import MapName, Weekdays
from schemas.units import resolve

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,59}$")]
Label = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,59}$")]
Severity = Literal["info", "issue"]
Exclusion = Literal["suspect", "estimated", "outage"]
_DAY: Final = 86_400


def any_match(patterns: tuple[str, ...], text: str) -> bool:
    """Whether a text fits one of the shell-like patterns; no patterns fit everything."""
    return not patterns or any(fnmatchcase(text, pattern) for pattern in patterns)


class EventSettings(Section):
    """Which accounts' consumption goes to `usage.events` as it becomes known, and how finely."""

    accounts: tuple[str, ...] = Field(default=("*",), description="Patterns of accounts; none: no events")
    intervals: tuple[str, ...] = Field(default=(), description="Patterns of accounts that are told every interval instead of the day")
    measures: tuple[Literal["interval", "scalar"], ...] = Field(
        default=("interval", "scalar"),
        description="Sums of intervals, differences of register readings; a register that checks intervals is never told",
    )

    def grain_of(self, account: str) -> str:
        """``day`` or ``interval``; empty for an account that is not told of."""
        if not account or not self.accounts or not any_match(self.accounts, account):
            return ""
        return "interval" if self.intervals and any_match(self.intervals, account) else "day"


class Select(Section):
    """Which channels of the subscription; all that is said must match. Patterns are shell-like."""

    channels: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    service_points: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    directions: tuple[Literal["none", "delivered", "received"], ...] = ()

    def matches(self, channel: str, device: str, service_point: str, unit: str, direction: str) -> bool:
        """Whether a channel is meant."""
        return (
            any_match(self.channels, channel)
            and any_match(self.devices, device)
            and any_match(self.service_points, service_point)
            and (not self.units or resolve(unit) in [resolve(u) for u in self.units])
            and (not self.directions or direction in self.directions)
        )


# --- rules -----------------------------------------------------------------------------------------------------------------------


class Eligible(Section):
    """For which subscriptions and periods a rule is meant; all that is said must hold. Patterns are shell-like."""

    accounts: tuple[str, ...] = ()
    commodities: tuple[str, ...] = Field(default=(), description="As master data say")
    customer_classes: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    rates: tuple[str, ...] = ()
    has: Select | None = Field(default=None, description="Some channel of the subscription must be one of these")
    effective_from: date | None = Field(default=None, description="First local date: periods that begin then or later")
    effective_to: date | None = Field(default=None, description="First local date of no more")


class UsageRule(Section):
    """What every rule has."""

    when: Eligible = Field(default_factory=Eligible, description="For whom; where it is skipped, rules that need its name are too")
    name: Name | None = Field(default=None, alias="as", description="Under which name later rules and the bill know the quantity")
    send: bool = Field(default=True, description="false: only later rules see it")

    def needs(self) -> tuple[str, ...]:
        """Names that must have been made by rules before."""
        return tuple(
            str(getattr(self, key)) for key in ("curve", "source", "active", "reactive", "leading", "apparent", "energy", "demand",
                                                "delivered", "received", "target") if isinstance(getattr(self, key, None), str)
        )  # fmt: skip

    def makes(self) -> tuple[str, ...]:
        """Names it makes for later rules."""
        return (self.name,) if self.name else ()


class AlignmentAndDelay(UsageRule):
    """Waits for data that are not good enough yet, at most for a retry window."""

    id: Literal["alignment-and-delay"] = "alignment-and-delay"
    retry_window: Seconds = Field(default=3 * _DAY, ge=0, description="Behind the due time; then usage is released as it is, flagged")
    missing_percent: int = Field(default=0, ge=0, le=100, description="Up to this share of missing values nothing is waited for")
    estimated_percent: int = Field(default=100, ge=0, le=100, description="The same for estimated values")
    reading_tolerance: Seconds = Field(default=_DAY, ge=0, description="A register's reading may be this far before the period's end")


class InstalledDeviceCheck(UsageRule):
    """Finds periods in which no device was installed."""

    id: Literal["installed-device-check"] = "installed-device-check"
    severity: Severity = "issue"


class IntervalData(UsageRule):
    """The sum of intervals of the selected channels, and their curve."""

    id: Literal["interval-data"] = "interval-data"
    of: Select = Field(default_factory=Select)
    unit: str = Field(default="kWh", description="Unit of the curve; channels of other dimensions are left out")


class TouMappedUsage(UsageRule):
    """Sums by time-of-use period."""

    id: Literal["tou-mapped-usage"] = "tou-mapped-usage"
    curve: Name
    map: MapName | None = Field(default=None, description="Left out: the map that `determinants.assign` gives the curve's first channel")


class ScalarDetails(UsageRule):
    """Begin reading, end reading and consumption of each register."""

    id: Literal["scalar-details"] = "scalar-details"
    of: Select = Field(default_factory=Select)
    unit: str = "kWh"
    readings: bool = Field(default=True, description="Tell the readings too")


class DailyScalar(UsageRule):
    """Consumption of daily registers: first and last reading only, never estimated."""

    id: Literal["daily-scalar"] = "daily-scalar"
    of: Select = Field(default_factory=Select)
    unit: str = "kWh"


class SubtractiveIntervalDetails(UsageRule):
    """Intervals' consumption with the readings of the register beside them."""

    id: Literal["subtractive-interval-details"] = "subtractive-interval-details"
    of: Select = Field(default_factory=Select)
    unit: str = "kWh"


class Tier(Section):
    """One tier; the last has no bound."""

    tier: Label
    up_to: Micros | None = Field(default=None, ge=0)


class IntervalTier(UsageRule):
    """Consumption split into tiers."""

    id: Literal["interval-tier"] = "interval-tier"
    source: Name = Field(alias="from", description="A curve or quantity")
    tiers: tuple[Tier, ...] = Field(min_length=2, max_length=12)
    per: Literal["period", "day", "interval"] = "period"
    prorate: bool = Field(default=True, description="Bounds of a period that is shorter or longer than its cycle follow its days")

    @model_validator(mode="after")
    def _rising(self) -> Self:
        bounds = [tier.up_to for tier in self.tiers[:-1]]
        if None in bounds or self.tiers[-1].up_to is not None or sorted(set(bounds)) != bounds:  # type: ignore[type-var]
            raise ValueError("tiers must have rising bounds, and only the last none")
        return self


class _Demand(UsageRule):
    curve: Name
    window: Seconds = Field(default=1800, gt=0, le=_DAY, description="Length over which power is a mean")
    exclude: tuple[Exclusion, ...] = Field(default=("suspect",), description="Kinds of intervals that make no maximum")


class BlockDemand(_Demand):
    """Maximum demand over fixed windows."""

    id: Literal["block-demand"] = "block-demand"
    by: MapName | None = Field(default=None, description="A TOU map: one maximum for each of its periods")


class RollingDemand(_Demand):
    """Maximum demand over a sliding window."""

    id: Literal["rolling-demand"] = "rolling-demand"
    step: Seconds = Field(default=300, gt=0, description="By how much the window slides")
    carry_in: bool = Field(default=False, description="Windows may begin before the period")


class CoincidentPeak(_Demand):
    """Demand at the moment of a system or group peak, and each service point's own."""

    id: Literal["coincident-peak"] = "coincident-peak"
    peak: Label = Field(default="group", description="`group`: the peak of the curve itself; else a list of `usage.peaks`")
    each: bool = Field(default=False, description="Tell each service point's demand then, and its own maximum")


class KvaDemand(UsageRule):
    """Maximum apparent power."""

    id: Literal["kva-demand"] = "kva-demand"
    active: Name
    reactive: Name
    window: Seconds = Field(default=1800, gt=0, le=_DAY)
    exclude: tuple[Exclusion, ...] = ("suspect",)


class PowerFactor(UsageRule):
    """Average power factor, at maximum demand, or by apparent energy."""

    id: Literal["power-factor"] = "power-factor"
    active: Name
    reactive: Name | None = Field(default=None, description="Lagging reactive energy")
    leading: Name | None = Field(default=None, description="Leading reactive energy; taken off where sign is net")
    apparent: Name | None = Field(default=None, description="Apparent energy instead of reactive")
    method: Literal["average", "at-md"] = "average"
    sign: Literal["lagging", "net"] = "lagging"
    demand: Name | None = Field(default=None, description="at-md: the demand whose moment counts")
    window: Seconds = Field(default=1800, gt=0, le=_DAY, description="at-md: the demand's window")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.reactive is None) == (self.apparent is None):
            raise ValueError("needs reactive or apparent, one of them")
        if self.method == "at-md" and (self.demand is None or self.reactive is None):
            raise ValueError("at-md needs demand and reactive")
        return self


class LoadFactor(UsageRule):
    """Energy over what the maximum demand would have taken all the time."""

    id: Literal["load-factor"] = "load-factor"
    energy: Name
    demand: Name


class ExcessKvarh(UsageRule):
    """Reactive energy beyond that of a target power factor."""

    id: Literal["excess-kvarh"] = "excess-kvarh"
    active: Name
    reactive: Name
    leading: Name | None = None
    target_factor: Micros = Field(default=950_000, gt=0, le=MICRO, description="0.95 allows 0.3287 kvarh per kWh")


class BillingDemand(UsageRule):
    """Demand with ratchet and minimum."""

    id: Literal["billing-demand"] = "billing-demand"
    demand: Name
    ratchet: Micros = Field(default=800_000, ge=0, le=MICRO, description="Share of the highest demand of the months before")
    months: int = Field(default=11, ge=0, le=36)
    minimum: Micros = Field(default=0, ge=0, description="Contracted minimum")
    minimum_table: Label | None = Field(default=None, description="The same from `usage.tables`")


class NetInterval(UsageRule):
    """Netting interval by interval: `<as>_delivered` and `<as>_received`."""

    id: Literal["net-interval"] = "net-interval"
    delivered: Name
    received: Name

    def makes(self) -> tuple[str, ...]:
        return (f"{self.name}_delivered", f"{self.name}_received")


class NetPeriod(UsageRule):
    """Netting by period with carry forward: `<as>` is billed, `<as>_carried` goes on."""

    id: Literal["net-period"] = "net-period"
    delivered: Name
    received: Name
    carry: bool = True
    expires: int | None = Field(default=None, ge=1, le=12, description="Month at whose begin what is carried lapses")

    def makes(self) -> tuple[str, ...]:
        return (str(self.name), f"{self.name}_carried")


class ProfileAccumulation(UsageRule):
    """A quantity spread over intervals by a load profile; makes a curve."""

    id: Literal["profile-accumulation"] = "profile-accumulation"
    source: Name = Field(alias="from")
    profile: Label
    seconds: Seconds = Field(default=1800, gt=0, le=_DAY)


class GasEnergy(UsageRule):
    """Energy of gas by z-number and calorific value."""

    id: Literal["gas-energy"] = "gas-energy"
    source: Name = Field(alias="from", description="A curve or quantity in m3")
    calorific: Label = Field(description="Table of kWh per normal m3")
    z: Label | None = Field(default=None, description="Table of z-numbers; left out: from pressure and temperature, else 1")
    pressure: Label | None = Field(default=None, description="Table of absolute pressure, mbar")
    temperature: Label | None = Field(default=None, description="Table of gas temperature, °C")
    compressibility: Label | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.pressure is None) != (self.temperature is None):
            raise ValueError("pressure and temperature come together")
        return self


class UnitConversion(UsageRule):
    """A quantity or curve in another unit of its dimension."""

    id: Literal["unit-conversion"] = "unit-conversion"
    source: Name = Field(alias="from")
    unit: str


class Math(UsageRule):
    """A formula over curves and quantities."""

    id: Literal["math"] = "math"
    formula: str
    unit: str

    @model_validator(mode="after")
    def _parses(self) -> Self:
        formula.parse(self.formula)
        return self

    def needs(self) -> tuple[str, ...]:
        return tuple(sorted(formula.names_of(formula.parse(self.formula))))


class RoundAndAdjust(UsageRule):
    """Rounds a quantity, or makes it the sum of rounded others."""

    id: Literal["round-and-adjust"] = "round-and-adjust"
    target: Name
    decimals: int = Field(default=0, ge=0, le=6)
    sources: tuple[Name, ...] = Field(default=(), description="The rounded sum of these; a name stands for all its TOU lines or tiers")
    max_difference: Micros | None = Field(default=None, ge=0, description="A larger one is found")
    severity: Severity = "issue"

    def needs(self) -> tuple[str, ...]:
        return (self.target, *self.sources)


class UsageHighLow(UsageRule):
    """Finds usage out of line with the past."""

    id: Literal["usage-high-low"] = "usage-high-low"
    target: Name
    compare: Literal["previous", "year"] = "previous"
    high: int = Field(default=300, gt=100, description="Percent of the past daily use")
    low: int = Field(default=25, ge=0, lt=100)
    floor: Micros = Field(default=10 * MICRO, ge=0, description="Nothing is said where daily use then and now are both below")
    severity: Severity = "info"


UsageRules = Annotated[
    AlignmentAndDelay
    | InstalledDeviceCheck
    | IntervalData
    | TouMappedUsage
    | ScalarDetails
    | DailyScalar
    | SubtractiveIntervalDetails
    | IntervalTier
    | BlockDemand
    | RollingDemand
    | CoincidentPeak
    | KvaDemand
    | PowerFactor
    | LoadFactor
    | ExcessKvarh
    | BillingDemand
    | NetInterval
    | NetPeriod
    | ProfileAccumulation
    | GasEnergy
    | UnitConversion
    | Math
    | RoundAndAdjust
    | UsageHighLow,
    Field(discriminator="id"),
]
NAMELESS: Final = frozenset({"alignment-and-delay", "installed-device-check", "round-and-adjust", "usage-high-low"})


class GroupVersion(Section):
    """The rules of a group from a date on; periods that begin before have the version before."""

    since: date | None = Field(default=None, alias="from", description="First local date; only the first version may leave it out")
    accounts: tuple[str, ...] | None = Field(
        default=None, description="Patterns that take the place of the group's from this date on; left out: those before stay"
    )
    rules: tuple[UsageRules, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        made: set[str] = set()
        for position, rule in enumerate(self.rules, 1):
            if rule.name is None and rule.id not in NAMELESS:
                raise ValueError(f"rule {position} ({rule.id}) needs a name: `as`")
            for name in rule.needs():
                if name not in made:
                    raise ValueError(f"rule {position} ({rule.id}) uses {name!r}, which no rule before it makes")
            for name in rule.makes():
                if name in made:
                    raise ValueError(f"rule {position} ({rule.id}) makes {name!r}, which is there already")
                made.add(name)
        return self


class UsageGroup(Section):
    """A usage group: for whom, and its rules by effective date."""

    id: Label
    accounts: tuple[str, ...] = Field(default=(), description="Patterns; none: only subscriptions whose master data name the group")
    versions: tuple[GroupVersion, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _dated(self) -> Self:
        check_dated([version.since for version in self.versions])
        return self

    def version_of(self, day: date) -> GroupVersion | None:
        """The version that holds on a local date; None before the first."""
        held = [v for v in self.versions if v.since is None or v.since <= day]
        return held[-1] if held else None

    def takes(self, account: str, day: date | None) -> bool:
        """Whether the patterns match that hold on a local date; None: those of any date."""
        named = [(v.since, v.accounts) for v in self.versions if v.accounts is not None]
        if day is None:
            return any(any_match(patterns, account) for patterns in (self.accounts, *(patterns for _, patterns in named)) if patterns)
        patterns = next((p for since, p in reversed(named) if since is None or since <= day), self.accounts)
        return bool(patterns) and any_match(patterns, account)


# --- factors, profiles, peaks, cycles ---------------------------------------------------------------------------------


class Factor(Section):
    """A value from a local date on."""

    since: date | None = Field(default=None, alias="from")
    value: Micros
    accounts: tuple[str, ...] = Field(default=(), description="Patterns; none: all. The last line that fits counts")


class ProfileDay(Section):
    """Weights of a day in equal parts, for some weekdays, from a date on."""

    since: date | None = Field(default=None, alias="from", description="First local day; of several that fit the last in force counts")
    days: Weekdays = Field(default=("mon", "tue", "wed", "thu", "fri", "sat", "sun"), min_length=1)
    weights: tuple[int, ...] = Field(min_length=1, max_length=288)

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if _DAY % len(self.weights) or min(self.weights) < 0:
            raise ValueError("weights must be whole numbers, 0 or more, as many as divide a day")
        return self


class Cycle(Section):
    """A billing cycle: every so many months, on a day of the month; from a date on."""

    since: date | None = Field(
        default=None, alias="from", description="Holds from its first begin on or after this date; only the first may leave it out"
    )
    day: int = Field(default=1, ge=1, le=28)
    months: Literal[1, 2, 3, 4, 6, 12] = 1
    first_month: int = Field(default=1, ge=1, le=12, description="A month in which a period begins")


def _instant(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("a moment needs an offset, such as 2026-01-15T18:00+01:00")
    return moment


Instant = Annotated[datetime, AfterValidator(_instant)]


class UsageSettings(Section):
    """Usage by subscription: all its channels together."""

    events: EventSettings = Field(default_factory=EventSettings, description="Consumption as it becomes known")
    groups: tuple[UsageGroup, ...] = Field(default=(), description="In order: the first whose account patterns match")
    cycles: dict[Label, tuple[Cycle, ...]] = Field(
        default_factory=dict, description="Billing cycles that master data name, each a list of versions by date; else determinants.billing"
    )
    tables: dict[Name, tuple[Factor, ...]] = Field(
        default_factory=dict, description="Factors by date: calorific values, pressures, minima …"
    )
    profiles: dict[Label, tuple[ProfileDay, ...]] = Field(default_factory=dict, description="Load profiles")
    peaks: dict[Label, tuple[Instant, ...]] = Field(default_factory=dict, description="Moments (window ends) of system peaks")

    @model_validator(mode="after")
    def _references(self) -> Self:
        ids = [group.id for group in self.groups]
        if len(set(ids)) < len(ids):
            raise ValueError("two groups have the same id")
        for name, cycle in self.cycles.items():
            if not cycle:
                raise ValueError(f"cycle {name!r} has no version")
            check_dated([version.since for version in cycle])
        for group in self.groups:
            for version in group.versions:
                for position, rule in enumerate(version.rules, 1):
                    for kind, name, known in self._used(rule):
                        if name not in known:
                            raise ValueError(f"group {group.id}, rule {position} ({rule.id}): there is no {kind} {name!r}")
        return self

    def _used(self, rule: Any) -> list[tuple[str, str, Any]]:
        names = [getattr(rule, key, None) for key in ("calorific", "z", "pressure", "temperature", "compressibility", "minimum_table")]
        if isinstance(rule, Math):
            names += sorted(formula.tables_of(formula.parse(rule.formula)))
        found = [("table", name, self.tables) for name in names if name]
        if isinstance(rule, ProfileAccumulation):
            found.append(("profile", rule.profile, self.profiles))  # type: ignore[arg-type]
        if isinstance(rule, CoincidentPeak) and rule.peak != "group":
            found.append(("peak", rule.peak, self.peaks))  # type: ignore[arg-type]
        return found

    def maps(self) -> list[tuple[tuple[str | int, ...], str]]:
        """The TOU maps that rules name, each with its place below `usage`."""
        return [
            (("groups", g, "versions", v, "rules", r, key), name)
            for g, group in enumerate(self.groups)
            for v, version in enumerate(group.versions)
            for r, rule in enumerate(version.rules)
            for key in ("map", "by")
            if isinstance(name := getattr(rule, key, None), str)
        ]

    def group_of(self, account: str, named: str | None, day: date | None) -> UsageGroup | None:
        """The group of a subscription on a local date: the one its master data name, else the first whose patterns match; None: on any
        date."""
        if named:
            return next((group for group in self.groups if group.id == named), None)
        return next((group for group in self.groups if group.takes(account, day)), None)
