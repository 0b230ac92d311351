"""VEE in topology.yaml: groups of rules in order, with severities, parameters and effective dates; admission and closing.

A rule of a group is one of the models below, told apart by ``id``. To give a new rule its settings: add a model with its
``id`` here, name it in :data:`Rule`, and put its function into ``streams/vee/rules``.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from schemas import conditions, quantity
from schemas.rules import RULES
from schemas.topology.base import Micros, Seconds, Section
from schemas.topology.presets import PRESETS
from schemas.topology.tou import WEEKDAYS, HolidayCalendar, Weekdays
from schemas.units import UNITS

Severity = Literal["info", "issue", "terminate"]
Direction = Literal["none", "delivered", "received"]
Role = Literal["initial-load", "manual-override", "estimation", "forecast"]

EPOCH: Final = date(1970, 1, 1)
HOUR: Final = 3600
MAX_DEPTH: Final = 5  # groups inside groups
MAX_RUNS: Final = 4  # for so many rules of a group the state keeps how long runs are
CONSUMPTION: Final = ("energy", "reactive-energy", "apparent-energy", "volume", "heat-flow", "count")
BANDS: Final = tuple(band.name for band in conditions.RANGES)


def _quantity(name: str) -> str:
    known = sorted({unit.quantity for unit in UNITS.values()} | {"other"})
    if name not in known:
        raise ValueError(f"must be one of {', '.join(known)}, not {name!r}")
    return name


QuantityName = Annotated[str, AfterValidator(_quantity)]


class Conditions(Section):
    """What can be asked of a channel. All that is named must hold; of several values or patterns (`*`, `?`, `[ab]`) one."""

    quantities: tuple[QuantityName, ...] = ()
    units: tuple[str, ...] = ()
    directions: tuple[Direction, ...] = ()
    seconds: tuple[int, ...] = Field(default=(), description="Interval lengths")
    devices: tuple[str, ...] = Field(default=(), description="Patterns")
    channels: tuple[str, ...] = Field(default=(), description="Patterns")
    zones: tuple[str, ...] = Field(default=(), description="Patterns")
    accounts: tuple[str, ...] = Field(default=(), description="Patterns; a channel without account has an empty one")
    service_points: tuple[str, ...] = Field(default=(), description="Patterns")
    negative_allowed: bool | None = Field(default=None, description="What master data say of negative values")


class Criterion(Conditions):
    """One step of a rule's eligibility: ``then`` where it fits, ``otherwise`` where not; ``next`` looks at the next step."""

    then: Literal["apply", "skip", "next"] = "apply"
    otherwise: Literal["apply", "skip", "next"] = "next"


class Effective(Section):
    """Something that holds for days that start inside its effective period."""

    effective_from: date | None = Field(default=None, description="First local day it is applied to")
    effective_to: date | None = Field(default=None, description="First local day it is no longer applied to")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.effective_from and self.effective_to and self.effective_from >= self.effective_to:
            raise ValueError("effective_to must lie behind effective_from")
        return self

    @property
    def days(self) -> tuple[int, int]:
        """The effective period as day numbers, the second exclusive."""
        first = (self.effective_from - EPOCH).days if self.effective_from else -1
        last = (self.effective_to - EPOCH).days if self.effective_to else 1 << 30
        return first, last


class Entry(Effective):
    """What every entry of a group has. It is applied to eligible channels."""

    id: str
    eligibility: tuple[Criterion, ...] = Field(default=(), description="Steps in order; the first that says apply or skip decides")
    otherwise: Literal["apply", "skip"] = Field(default="apply", description="Where no step decides")


class RuleSettings(Entry):
    """What every rule has."""

    severity: Severity = "info"


class ExecuteGroup(Entry):
    """Runs another group in this place."""

    id: Literal["execute-group"] = "execute-group"
    group: str


class MatrixLine(Conditions, Effective):
    """One line of a group matrix."""

    group: str


class GroupMatrix(Entry):
    """Runs the group of the first line that fits: a factor table whose lines have effective dates."""

    id: Literal["group-matrix"] = "group-matrix"
    matrix: tuple[MatrixLine, ...] = Field(min_length=1)
    default: str | None = Field(default=None, description="Group where no line fits; left out: none")


def _rule_id(name: str) -> str:
    if name not in RULES:
        raise ValueError(f"there is no rule {name!r}")
    return name


class ExceptionHandler(Entry):
    """Ends validation of days for which enough of the listed exceptions were found so far; the days become exceptions."""

    id: Literal["exception-handler"] = "exception-handler"
    exceptions: tuple[Annotated[str, AfterValidator(_rule_id)], ...] = Field(min_length=1, description="Rule ids")
    at_least: int = Field(default=1, ge=1, description="How many different ones")


class SuccessfulTermination(Entry):
    """Ends validation as a success where only listed exceptions were found so far; they block nothing then."""

    id: Literal["successful-termination"] = "successful-termination"
    exceptions: tuple[Annotated[str, AfterValidator(_rule_id)], ...] = Field(default=(), description="Rule ids")
    without_any: bool = Field(default=True, description="Also where nothing was found")


class UnitOfMeasure(RuleSettings):
    """Reads in another unit of the same dimension are converted; in another dimension they are refused."""

    id: Literal["unit-of-measure"] = "unit-of-measure"
    severity: Literal["terminate"] = "terminate"


class IntervalSize(RuleSettings):
    """Reads of another interval length than master data says, or off the day's grid, are refused; days of a longer length are held."""

    id: Literal["interval-size"] = "interval-size"
    severity: Literal["terminate"] = "terminate"
    min_values: int = Field(
        default=12, ge=3, description="Values a day must have before it is asked whether they came every so many intervals"
    )


class Multiplier(RuleSettings):
    """The multiplier that reads came with against that of master data."""

    id: Literal["multiplier"] = "multiplier"
    severity: Severity = "issue"
    tolerance: float = Field(default=1e-6, ge=0, lt=1, description="Relative difference that counts as equal")


class DuplicateImd(RuleSettings):
    """What a source delivers again: the same values, other values for the same time, or a piece that overlaps what is held."""

    id: Literal["duplicate-imd"] = "duplicate-imd"
    severity: Literal["info", "issue"] = "info"
    tell: tuple[Literal["identical", "conflict", "overlap"], ...] = Field(
        default=("identical",),
        min_length=1,
        description="identical: every value is held already; conflict: all slots are held, some with another value; overlap: some are held",
    )


class InactiveMeasurement(RuleSettings):
    """Consumption while the channel is uninstalled, disconnected, or its service point has no account."""

    id: Literal["inactive-measurement"] = "inactive-measurement"
    severity: Severity = Field(default="issue", description="While disconnected")
    uninstalled: Severity | None = Field(
        default="terminate", description="While uninstalled; terminate: rows wholly in that time wait for master data"
    )
    disconnected: bool = Field(default=True, description="Whether being disconnected counts")
    no_account: Severity | None = Field(default="info", description="While master data name a service point and no account for it")
    tolerance: Micros = Field(default=quantity.MICRO // 2, ge=0, description="Amount of a day in that time up to which nothing is said")
    grace: Seconds = Field(default=24 * HOUR, ge=0, description="Time behind and before every change that does not count")
    quantities: tuple[QuantityName, ...] = CONSUMPTION


class NegativeConsumption(RuleSettings):
    """Consumption below zero where the channel does not allow it."""

    id: Literal["negative-consumption"] = "negative-consumption"
    severity: Severity = "issue"
    per: Literal["interval", "day"] = Field(default="interval", description="Judge each interval, or the day's total")
    even_if_allowed: bool = Field(default=False, description="Also where master data allows negative values")
    quantities: tuple[QuantityName, ...] = CONSUMPTION
    rollover_percent: int = Field(
        default=50, ge=1, le=99, description="A register with dials that falls has rolled over if its use is up to this share of the range"
    )


class IntervalSpike(RuleSettings):
    """The highest interval out of proportion to the third highest: (P1 - P3) / P3 above the tolerance."""

    id: Literal["interval-spike"] = "interval-spike"
    severity: Severity = "issue"
    per: Literal["day", "chunk", "delivery"] = Field(
        default="day",
        description="Among which intervals: of the local day; of 24 hours, counted from the begin of the delivery; of the whole delivery",
    )
    tolerance_percent: int = Field(default=2000, gt=0, le=10_000_000)
    min_intervals: int = Field(default=20, ge=3)
    floor: Micros = Field(default=quantity.MICRO, gt=0, description="A highest interval up to this is never a spike")
    history_factor: float = Field(
        default=0, ge=0, le=1000, description="Only above so many times the highest interval of the last 28 to 56 days; 0: not looked at"
    )
    after_outage: Seconds = Field(default=2 * HOUR, ge=0, le=86_400, description="Intervals so long after an outage are never a spike")


class ConsecutiveInterval(RuleSettings):
    """Unbroken runs of intervals alike: stuck at zero, never at zero, a condition that lasts."""

    id: Literal["consecutive-interval"] = "consecutive-interval"
    value: Annotated[str, Field(pattern=r"^(=|<|<=|>|>=) ?-?[0-9]{1,9}(\.[0-9]{1,6})?$")] | None = Field(
        default="= 0", description="What a value must be, such as `= 0`, `< 0` or `> 0.1` (in the unit of the channel)"
    )
    bands: tuple[str, ...] = Field(default=(), description="Condition ranges an interval must be in; without any, only the value counts")
    combine: Literal["and", "or"] = Field(default="and", description="Whether value and condition must both fit, or one of them")
    min_run: Seconds = Field(default=7 * 86_400, gt=0, description="Shorter runs are not told")
    look_back: bool = Field(default=True, description="Runs go on from the day before")
    each_day: bool = Field(default=False, description="Tell of every further day of a run, not only of the one on which it gets that long")
    exempt_directions: tuple[Direction, ...] = ()
    quantities: tuple[QuantityName, ...] = CONSUMPTION

    @model_validator(mode="after")
    def _tests_something(self) -> Self:
        _known(self.bands)
        if self.value is None and not self.bands:
            raise ValueError("consecutive-interval needs a value or bands")
        return self

    @property
    def test(self) -> tuple[str, int] | None:
        """Comparison and amount in millionths of the value test."""
        if self.value is None:
            return None
        sign = self.value.rstrip("-.0123456789").rstrip()
        return sign, quantity.parse(self.value.removeprefix(sign).strip())


class IntervalInterpolation(RuleSettings):
    """Short gaps: a straight line between the neighbours, flat load where only one side has a value."""

    id: Literal["interval-interpolation"] = "interval-interpolation"
    max_gap: Seconds = Field(default=2 * HOUR, gt=0, lt=86_400, description="Longer gaps are left to other rules")
    one_sided: bool = Field(default=True, description="Whether gaps with a value on one side only are filled")
    condition: int = Field(default=conditions.EST_INTERPOLATED, description="Of estimates between two neighbours")
    flat_condition: int = Field(default=conditions.EST_FLAT, description="Of estimates from one neighbour")

    @model_validator(mode="after")
    def _estimates(self) -> Self:
        for code in (self.condition, self.flat_condition):
            if not 300_000 <= code < 400_000 or code % 100:
                raise ValueError(f"{code} is no system estimate (300000 to 399900 in steps of 100)")
        return self


class ZeroConsumption(RuleSettings):
    """A whole day without any use."""

    id: Literal["zero-consumption"] = "zero-consumption"
    epsilon: Micros = Field(default=1000, ge=0, description="A day's total up to this counts as zero")
    exempt_directions: tuple[Direction, ...] = ("received",)
    quantities: tuple[QuantityName, ...] = CONSUMPTION
    with_outage: Severity | None = Field(default=None, description="Severity for days with an outage, which are not told unless set")
    exempt_disconnected: bool = Field(default=True, description="Nothing is said of days in which the channel is not in service")


class HighLow(RuleSettings):
    """A day's use against the average day of the same channel in earlier days, or a year before."""

    id: Literal["high-low"] = "high-low"
    high: float = Field(default=5.0, gt=1, le=1000, description="So many times the average day is high")
    low: float = Field(default=0.0, ge=0, lt=1, description="Less than so many times the average day is low; 0: never")
    history: tuple[Literal["previous", "last-year"], ...] = Field(
        default=("previous", "last-year"),
        min_length=1,
        description="Which history counts, the first that qualifies: the 28 day blocks before the day's, or the block 52 weeks earlier",
    )
    min_days: int = Field(default=14, ge=1, le=28, description="Complete days that a block of history must have")
    max_estimated_percent: int = Field(default=20, ge=0, le=100, description="A block with more estimated days does not qualify")
    floor: Micros = Field(default=10 * quantity.MICRO, ge=0, description="Nothing is said where day and average are both below this")
    quantities: tuple[QuantityName, ...] = CONSUMPTION


class ProlongedEstimation(RuleSettings):
    """Estimates that go on for too long: the channel's newest measured value lies too far back."""

    id: Literal["prolonged-estimation"] = "prolonged-estimation"
    allowed_days: int = Field(default=60, ge=1, le=3660)


class SiblingImd(RuleSettings):
    """A day that some channels of a device have reads for and others do not, some time after its end. It does not hold the day."""

    id: Literal["sibling-imd"] = "sibling-imd"
    severity: Literal["info", "issue"] = "info"
    wait: Seconds = Field(default=2 * HOUR, ge=0, le=30 * 86_400, description="After the day's end until the others are missed")

    @model_validator(mode="after")
    def _for_all(self) -> Self:
        if self.eligibility or self.otherwise != "apply":
            raise ValueError("sibling-imd looks at whole devices and takes no eligibility")
        return self


class MissingQuantity(RuleSettings):
    """Intervals still without a value after all estimation."""

    id: Literal["missing-quantity"] = "missing-quantity"
    exempt_bands: tuple[str, ...] = Field(default=("outage",), description="Condition ranges that do not count as missing")

    @model_validator(mode="after")
    def _known_bands(self) -> Self:
        _known(self.exempt_bands)
        return self


class DayTypes(Section):
    """Which days are alike. A holiday is like other holidays, then like Sundays."""

    types: tuple[Weekdays, ...] = Field(
        default=(("mon", "tue", "wed", "thu", "fri"), ("sat",), ("sun",)), description="Weekdays that are alike: [[mon-fri], [sat, sun]]"
    )
    holidays: HolidayCalendar | None = Field(default=None, description="Which dates are holidays; none unless said")

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if sorted(day for days in self.types for day in days) != sorted(WEEKDAYS):
            raise ValueError(f"types must name each of {', '.join(WEEKDAYS)} once")
        return self


class LikeDayAverage(RuleSettings):
    """Longer gaps of a whole day: the average of the same wall-clock slots of like days before it."""

    id: Literal["like-day-average"] = "like-day-average"
    window_days: int = Field(default=60, ge=1, le=366, description="How far back like days may lie")
    candidates: int = Field(default=8, ge=1, le=16, description="So many of the newest like days are looked at")
    min_days: int = Field(default=3, ge=1, le=10, description="With fewer days that qualify nothing is estimated")
    max_days: int = Field(default=5, ge=1, le=10, description="So many of the newest that qualify are averaged")
    max_estimated_percent: int = Field(default=10, ge=0, le=50, description="A day with a larger share not measured does not qualify")
    priority: Literal["recent", "aemo"] = Field(
        default="recent", description="recent: days of the same type; aemo: the one best day in the Australian order of weekdays"
    )
    day_types: DayTypes = DayTypes()
    condition: int = Field(default=conditions.EST_LIKE_DAY, description="Of the estimates")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _estimate(self.condition)
        if not self.min_days <= self.max_days <= self.candidates:
            raise ValueError("min_days must not exceed max_days, nor max_days candidates")
        return self


class DayProfile(Section):
    """A day's load by type of day, in the unit of the channel per slot, from local midnight on."""

    slot: Seconds = Field(default=HOUR, gt=0, le=86_400, description="Length of a slot of the profile; divides a day")
    values: tuple[tuple[Micros, ...], ...] = Field(min_length=1, description="One list for each of day_types.types, or one for all")
    holiday: tuple[Micros, ...] = Field(default=(), description="On holidays; else that of Sundays")
    units: tuple[str, ...] = Field(default=(), description="Channels in these units; all if empty")
    directions: tuple[Direction, ...] = ()

    @model_validator(mode="after")
    def _whole_days(self) -> Self:
        for values in (*self.values, *((self.holiday,) if self.holiday else ())):
            if len(values) * self.slot != 86_400:
                raise ValueError(f"a profile of {self.slot} second slots has {86_400 / self.slot:g} values, not {len(values)}")
        return self


class Profile(RuleSettings):
    """What is still missing of a whole day: a configured profile, to the level of the day's measured slots; else flat load."""

    id: Literal["profile"] = "profile"
    profiles: tuple[DayProfile, ...] = Field(default=(), description="The first that fits the channel counts")
    day_types: DayTypes = DayTypes()
    scale: bool = Field(default=True, description="Bring the profile to the level of the slots of the day that were measured")
    flat: bool = Field(default=False, description="Where no profile fits: the mean of the measured slots of the day, or of its neighbours")
    condition: int = Field(default=conditions.EST_FLAT, description="Of the estimates")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _estimate(self.condition)
        for profile in self.profiles:
            if len(profile.values) not in (1, len(self.day_types.types)):
                raise ValueError(f"a profile has one list of values, or one for each of the {len(self.day_types.types)} types of days")
        return self


class IntervalAdjustmentFromScalar(RuleSettings):
    """Estimates between two register readings are scaled until all intervals sum up to what the register says, exactly."""

    id: Literal["interval-adjustment-from-scalar"] = "interval-adjustment-from-scalar"
    severity: Literal["info", "issue"] = "issue"
    adjust: Literal["estimates", "all"] = Field(default="estimates", description="Scale what was estimated, or every interval")
    max_factor: float = Field(default=10, gt=1, le=1000, description="A larger factor is not applied but told")
    max_span_days: int = Field(default=35, ge=1, le=400, description="Readings further apart are not used")
    rollover_percent: int = Field(default=50, ge=1, le=99, description="A reading that falls is a rollover up to this share of the range")
    condition: int = Field(default=conditions.EST_SCALED, description="Of scaled intervals")

    @model_validator(mode="after")
    def _estimates(self) -> Self:
        _estimate(self.condition)
        return self


class SumCheck(RuleSettings):
    """Intervals against the difference of the register readings around them."""

    id: Literal["sum-check"] = "sum-check"
    severity: Severity = "issue"
    tolerance: Micros = Field(default=0, ge=0, description="Besides the resolution of register and intervals")
    tolerance_percent: float = Field(default=0, ge=0, le=100, description="Of the register's difference, if that is more")
    resolution: Micros | None = Field(default=None, gt=0, description="Smallest step of the register; else as its readings show")
    missing: Literal["skip", "exception"] = Field(default="skip", description="What to do if intervals between two readings have no value")
    max_span_days: int = Field(default=35, ge=1, le=400, description="Readings further apart are not compared")
    rollover_percent: int = Field(default=50, ge=1, le=99, description="A reading that falls is a rollover up to this share of the range")


class ScalarProration(RuleSettings):
    """A missing register reading between two valid ones: consumption by time, put back into a reading."""

    id: Literal["scalar-proration"] = "scalar-proration"
    related_condition: int | None = Field(
        default=conditions.REGULAR,
        ge=conditions.OUTAGE,
        lt=800_000,
        description="Intervals that the register checks, from this condition on, are known: only the rest is prorated; null: not looked at",
    )
    max_span_days: int = Field(default=70, ge=1, le=400, description="Valid readings further apart are not used")
    rollover_percent: int = Field(default=50, ge=1, le=99, description="A reading that falls is a rollover up to this share of the range")
    condition: int = Field(default=conditions.EST_INTERPOLATED, description="Of the estimates")

    @model_validator(mode="after")
    def _estimates(self) -> Self:
        _estimate(self.condition)
        return self


class ScalarEstimation(RuleSettings):
    """A missing register reading with none behind it: consumption as in the channel's history, put back into a reading."""

    id: Literal["scalar-estimation"] = "scalar-estimation"
    history: tuple[Literal["month", "year", "before"], ...] = Field(
        default=("month", "year", "before"),
        min_length=1,
        description="Which history first: the days a month or a year ago, or all that is kept",
    )
    window_days: int = Field(default=7, ge=0, le=60, description="Days around the time a month or a year ago that belong to it")
    min_days: int = Field(default=3, ge=1, le=366, description="A shorter history does not qualify")
    max_ahead_days: int = Field(default=70, ge=1, le=400, description="Further behind the last valid reading nothing is estimated")
    rollover_percent: int = Field(default=50, ge=1, le=99, description="A reading that falls is a rollover up to this share of the range")
    condition: int = Field(default=conditions.EST_FLAT, description="Of the estimates")

    @model_validator(mode="after")
    def _estimates(self) -> Self:
        _estimate(self.condition)
        return self


def _estimate(code: int) -> None:
    if not 300_000 <= code < 400_000 or code % 100:
        raise ValueError(f"{code} is no system estimate (300000 to 399900 in steps of 100)")


class FinalMeasurementReplacement(RuleSettings):
    """Decides interval by interval whether a later value replaces the one held: better condition, or no trivial change."""

    id: Literal["final-measurement-replacement"] = "final-measurement-replacement"
    severity: Literal["info", "issue"] = "info"
    min_change: Micros = Field(default=0, ge=0, description="Smaller changes of equal rank are trivial and refused")
    min_change_percent: float = Field(default=0, ge=0, le=1_000_000)
    protect_edits: Literal["always", "by-rank"] = Field(default="by-rank", description="Whether a person's value can be replaced")
    tell: tuple[Literal["replaced", "refused", "outranked"], ...] = Field(
        default=("replaced", "refused"),
        description="replaced: another value of equal rank stood there; refused: of equal rank, trivial or against a person's; "
        "outranked: a better condition stood there",
    )
    ranks: tuple[tuple[str, ...], ...] = Field(
        default=(
            ("missing",), ("invalid",), ("system-estimate-poor",), ("system-estimate-good",), ("external-estimate",), ("suspect",),
            ("outage", "regular"), ("user-edit",), ("super",),
        ),
        description="Condition ranges from lowest to highest; ranges in one line rank equal. Besides the named ones: `450000-459900`, "
        "which counts before the range it is a part of",
    )  # fmt: skip

    @model_validator(mode="after")
    def _complete(self) -> Self:
        named = [name for rank in self.ranks for name in rank if not name[:1].isdigit()]
        _known(named)
        if sorted(named) != sorted(BANDS):
            raise ValueError(f"ranks must name each of {', '.join(BANDS)} once")
        for rank in self.ranks:
            for name in rank:
                bottom, top = self.codes(name)
                if not 100 <= bottom <= top <= 799_999:
                    raise ValueError(f"{name!r} is no range of conditions from 000100 to 799999")
        return self

    @staticmethod
    def codes(name: str) -> tuple[int, int]:
        """Lowest and highest condition of a named range, or of one written with its codes."""
        for band in conditions.RANGES:
            if band.name == name:
                return band.bottom, band.top
        bottom, _, top = name.partition("-")
        if not (bottom.isdigit() and top.isdigit()):
            return 0, 0
        return int(bottom), int(top)


def _known(names: Any) -> None:
    unknown = [name for name in names if name not in BANDS]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no condition range ({', '.join(BANDS)})")


Rule = Annotated[
    UnitOfMeasure
    | IntervalSize
    | Multiplier
    | DuplicateImd
    | InactiveMeasurement
    | NegativeConsumption
    | IntervalSpike
    | ConsecutiveInterval
    | IntervalInterpolation
    | ZeroConsumption
    | HighLow
    | ProlongedEstimation
    | SiblingImd
    | MissingQuantity
    | LikeDayAverage
    | Profile
    | IntervalAdjustmentFromScalar
    | SumCheck
    | ScalarProration
    | ScalarEstimation
    | FinalMeasurementReplacement
    | ExecuteGroup
    | GroupMatrix
    | ExceptionHandler
    | SuccessfulTermination,
    Field(discriminator="id"),
]


class Group(Section):
    """Rules in the order they run: validate before estimating; a rule may stand twice to look at estimates too."""

    rules: tuple[Rule, ...] = Field(min_length=1)


INITIAL_LOAD: Final = Group(
    rules=(
        UnitOfMeasure(), IntervalSize(), Multiplier(), DuplicateImd(), InactiveMeasurement(), NegativeConsumption(), IntervalSpike(),
        ConsecutiveInterval(), IntervalInterpolation(), LikeDayAverage(), Profile(), IntervalAdjustmentFromScalar(), ScalarProration(),
        ScalarEstimation(), SumCheck(), ZeroConsumption(), HighLow(), ProlongedEstimation(), SiblingImd(), MissingQuantity(),
        FinalMeasurementReplacement(),
    )
)  # fmt: skip


# What a person has set is filled up and compared with the register, and not held against the rules for meters
MANUAL_OVERRIDE: Final = Group(
    rules=(
        IntervalInterpolation(), LikeDayAverage(), Profile(), IntervalAdjustmentFromScalar(), NegativeConsumption(severity="info"),
        SumCheck(), MissingQuantity(),
    )
)  # fmt: skip
ESTIMATION: Final = Group(
    rules=(
        IntervalInterpolation(), LikeDayAverage(), Profile(), IntervalAdjustmentFromScalar(), SumCheck(), ProlongedEstimation(),
        MissingQuantity(),
    )
)  # fmt: skip


class WidespreadOutage(Section):
    """While many devices of a partition that used to report are silent, theirs are no gaps to be estimated, but an outage."""

    min_devices: int = Field(default=100, ge=1, description="With fewer devices that reported in the last week, nothing is concluded")
    silent_percent: int = Field(default=30, ge=1, le=100, description="So many of them silent for `lateness` make a widespread outage")
    hold: Seconds = Field(default=3 * 86_400, ge=0, description="So long at most days of silent devices stay open; 0: never")


class VeeSettings(Section):
    """How validation, estimation and editing behave. ``zone`` comes from the top of topology.yaml unless set here."""

    zone: str | None = Field(default=None, description="Zone of channels for which master data names none")
    hot_days: int = Field(
        default=2,
        ge=2,
        le=3,
        description="Local days of received values kept per channel; older ones come back from the store. Choose before the first start",
    )
    lateness: Seconds = Field(default=24 * HOUR, ge=0, description="After a day's end until what is missing counts as missing")
    quiet: Seconds = Field(default=3, ge=0, description="A day that still receives reads is not closed for this long")
    gather: Seconds = Field(
        default=10,
        ge=0,
        description="A day that is not whole yet is published again this long after it was; what comes in between is gathered. 0: at once",
    )
    silence: Literal["wait", "missing"] = Field(
        default="wait",
        description="Slots behind a channel's newest read when their day is closed: wait until it reports again, or missing at once",
    )
    widespread_outage: WidespreadOutage = Field(
        default_factory=WidespreadOutage, description="Matters with `silence: missing`; with wait, silent devices are never estimated"
    )
    absent_days: int = Field(
        default=35, ge=0, le=400, description="Whole days without a read between days with reads, up to so many in a row, are missing"
    )
    admit: Literal["auto", "known"] = Field(default="auto", description="auto: until master data exists, channels come as they are")
    future_tolerance: Seconds = Field(default=24 * HOUR, ge=0, description="Reads further ahead of the clock wait for it")
    preset: Literal["california", "aemo", "gb", "germany", "default"] | None = Field(
        default=None, description="Groups after a public standard (docs/presets.md); groups written out here replace those of the same name"
    )
    groups: dict[str, Group] = Field(
        default_factory=lambda: {"initial-load": INITIAL_LOAD, "manual-override": MANUAL_OVERRIDE, "estimation": ESTIMATION}
    )
    roles: dict[Role, str] = Field(
        default={"initial-load": "initial-load"},
        description="Group of each role; one not named here runs the group of its own name if there is one, else that of initial-load",
    )

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, data: Any) -> Any:
        """Puts the groups of a preset under those that are written out, which take the place of groups of the same name."""
        chosen = data.get("preset") if isinstance(data, dict) else None
        if not isinstance(chosen, str) or chosen not in PRESETS:
            return data
        merged = {name: PRESETS[chosen][name] | data[name] for name in ("groups", "roles") if isinstance(data.get(name), dict)}
        return data | PRESETS[chosen] | merged

    @model_validator(mode="after")
    def _resolved(self) -> Self:
        if "initial-load" not in self.roles:
            raise ValueError("roles must name the group of initial-load")
        for name, group in self.groups.items():
            followed = [rule for rule in group.rules if isinstance(rule, ConsecutiveInterval) and rule.look_back]
            if len(followed) > MAX_RUNS:
                raise ValueError(f"groups.{name}: consecutive-interval can look back {MAX_RUNS} times, and stands {len(followed)} times")
            placed = [rule.id for rule in group.rules]
            for single in ("unit-of-measure", "interval-size", "duplicate-imd", "sibling-imd", "final-measurement-replacement"):
                if placed.count(single) > 1:
                    raise ValueError(f"groups.{name}: {single} stands {placed.count(single)} times")
            if sum(isinstance(rule, IntervalSpike) and rule.per != "day" for rule in group.rules) > 1:
                raise ValueError(f"groups.{name}: interval-spike can look at deliveries once")
        return self

    def problems(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """What does not fit together between groups: where (keys from ``vee``) and what."""
        for role, name in self.roles.items():
            if name not in self.groups:
                yield ("roles", role), f"there is no group {name!r}"
        for name, group in self.groups.items():
            for place, target in self._targets(name, group):
                if target not in self.groups:
                    yield place, f"there is no group {target!r}"
                    continue
                path = self._cycle(name, (target,))
                if path and name in path:
                    yield place, f"groups run each other in a circle: {' → '.join((name, *path))}"
                elif not path and 1 + self._depth(target) > MAX_DEPTH:
                    yield place, f"groups run each other {1 + self._depth(target)} deep, {MAX_DEPTH} is the most"

    def check(self) -> Self:
        """Raises ValueError with the first of :meth:`problems`; returns the settings."""
        for place, what in self.problems():
            raise ValueError(f"{'.'.join(map(str, place))}: {what}")
        return self

    @staticmethod
    def _targets(name: str, group: Group) -> Iterator[tuple[tuple[str | int, ...], str]]:
        for number, rule in enumerate(group.rules):
            here = ("groups", name, "rules", number)
            if isinstance(rule, ExecuteGroup):
                yield (*here, "group"), rule.group
            elif isinstance(rule, GroupMatrix):
                yield from (((*here, "matrix", k, "group"), line.group) for k, line in enumerate(rule.matrix))
                if rule.default is not None:
                    yield (*here, "default"), rule.default

    def _cycle(self, start: str, path: tuple[str, ...]) -> tuple[str, ...]:
        """The way from a group through others back to one that was passed; empty: none."""
        group = self.groups.get(path[-1])
        for _, target in self._targets(path[-1], group) if group and path[-1] != start else ():
            found = (*path, target) if target in path or target == start else self._cycle(start, (*path, target))
            if found:
                return found
        return path if path[-1] == start else ()

    def _depth(self, name: str) -> int:
        targets = {target for _, target in self._targets(name, self.groups[name]) if target in self.groups}
        return 1 + max(map(self._depth, targets), default=0)

    def rules_of(self, role: Role = "initial-load") -> Group:
        """The rules of a role's group and of all groups it runs, without the entries that only steer."""

        def flat(group: Group) -> Iterator[Any]:
            for rule in group.rules:
                if isinstance(rule, RuleSettings):
                    yield rule
            for _, target in self._targets("", group):
                yield from flat(self.groups[target])

        self.check()
        return Group.model_construct(rules=tuple(flat(self.group(role))))

    def group(self, role: Role = "initial-load") -> Group:
        """The group that a role runs: the one ``roles`` says, else the one of its own name, else that of initial load."""
        return self.groups[self.roles.get(role, role if role in self.groups else self.roles["initial-load"])]

    def within(self, zone: str) -> Self:
        """The same with a default zone, unless it has its own."""
        return self if self.zone else self.model_copy(update={"zone": zone})

    @classmethod
    def default(cls) -> Self:
        """The settings of a topology that says nothing."""
        return cls()
