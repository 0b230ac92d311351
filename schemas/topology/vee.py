"""VEE in topology.yaml: groups of rules in order, with severities, parameters and effective dates; admission and closing.

A rule of a group is one of the models below, told apart by ``id``. To give a new rule its settings: add a model with its
``id`` here, name it in :data:`Rule`, and put its function into ``streams/vee/rules``.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from schemas import conditions, quantity
from schemas.topology.base import Seconds, Section
from schemas.units import UNITS

Severity = Literal["info", "issue", "terminate"]
Direction = Literal["none", "delivered", "received"]
Role = Literal["initial-load", "manual-override", "estimation", "forecast"]

EPOCH: Final = date(1970, 1, 1)
HOUR: Final = 3600
CONSUMPTION: Final = ("energy", "reactive-energy", "apparent-energy", "volume", "heat-flow", "count")
BANDS: Final = tuple(band.name for band in conditions.RANGES)


def _micros(value: object) -> object:
    """A decimal in the channel's unit as millionths."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        raise ValueError("must be a decimal number")
    return quantity.parse(str(value))


def _quantity(name: str) -> str:
    known = sorted({unit.quantity for unit in UNITS.values()} | {"other"})
    if name not in known:
        raise ValueError(f"must be one of {', '.join(known)}, not {name!r}")
    return name


Micros = Annotated[int, BeforeValidator(_micros)]
"""An amount, written in the unit of the channel, held in millionths."""
QuantityName = Annotated[str, AfterValidator(_quantity)]


class Criterion(Section):
    """One step of a rule's eligibility: where all that is named fits, ``then`` decides; else the next step is looked at."""

    quantities: tuple[QuantityName, ...] = ()
    units: tuple[str, ...] = ()
    directions: tuple[Direction, ...] = ()
    seconds: tuple[int, ...] = ()
    then: Literal["apply", "skip"] = "apply"


class RuleSettings(Section):
    """What every rule has. A rule is applied to days that start inside its effective period, and to eligible channels."""

    id: str
    severity: Severity = "info"
    effective_from: date | None = Field(default=None, description="First local day the rule is applied to")
    effective_to: date | None = Field(default=None, description="First local day it is no longer applied to")
    eligibility: tuple[Criterion, ...] = Field(default=(), description="First criterion that fits decides")
    otherwise: Literal["apply", "skip"] = Field(default="apply", description="Where no criterion fits")

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


class UnitOfMeasure(RuleSettings):
    """Reads in another unit of the same dimension are converted; in another dimension they are refused."""

    id: Literal["unit-of-measure"] = "unit-of-measure"
    severity: Literal["terminate"] = "terminate"


class IntervalSize(RuleSettings):
    """Reads of another interval length than master data says, or off the day's grid, are refused."""

    id: Literal["interval-size"] = "interval-size"
    severity: Literal["terminate"] = "terminate"


class DuplicateImd(RuleSettings):
    """A row whose every value is held already is dropped and told."""

    id: Literal["duplicate-imd"] = "duplicate-imd"
    severity: Literal["info", "issue"] = "info"


class NegativeConsumption(RuleSettings):
    """Consumption below zero where the channel does not allow it."""

    id: Literal["negative-consumption"] = "negative-consumption"
    severity: Severity = "issue"
    per: Literal["interval", "day"] = Field(default="interval", description="Judge each interval, or the day's total")
    even_if_allowed: bool = Field(default=False, description="Also where master data allows negative values")
    quantities: tuple[QuantityName, ...] = CONSUMPTION


class IntervalSpike(RuleSettings):
    """The day's highest interval out of proportion to its third highest: (P1 - P3) / P3 above the tolerance."""

    id: Literal["interval-spike"] = "interval-spike"
    severity: Severity = "issue"
    tolerance_percent: int = Field(default=2000, gt=0, le=10_000_000)
    min_intervals: int = Field(default=20, ge=3)
    floor: Micros = Field(default=quantity.MICRO, gt=0, description="A highest interval up to this is never a spike")


class IntervalInterpolation(RuleSettings):
    """Short gaps: a straight line between the neighbours, flat load where only one side has a value."""

    id: Literal["interval-interpolation"] = "interval-interpolation"
    max_gap: Seconds = Field(default=2 * HOUR, gt=0, lt=86_400, description="Longer gaps are left to other rules")
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


class MissingQuantity(RuleSettings):
    """Intervals still without a value after all estimation."""

    id: Literal["missing-quantity"] = "missing-quantity"
    exempt_bands: tuple[str, ...] = Field(default=("outage",), description="Condition ranges that do not count as missing")

    @model_validator(mode="after")
    def _known_bands(self) -> Self:
        _known(self.exempt_bands)
        return self


class FinalMeasurementReplacement(RuleSettings):
    """Decides interval by interval whether a later value replaces the one held: better condition, or no trivial change."""

    id: Literal["final-measurement-replacement"] = "final-measurement-replacement"
    severity: Literal["info", "issue"] = "info"
    min_change: Micros = Field(default=0, ge=0, description="Smaller changes of equal rank are trivial and refused")
    min_change_percent: float = Field(default=0, ge=0, le=1_000_000)
    protect_edits: Literal["always", "by-rank"] = Field(default="by-rank", description="Whether a person's value can be replaced")
    ranks: tuple[tuple[str, ...], ...] = Field(
        default=(
            ("missing",), ("invalid",), ("system-estimate-poor",), ("system-estimate-good",), ("external-estimate",), ("suspect",),
            ("outage", "regular"), ("user-edit",), ("super",),
        ),
        description="Condition ranges from lowest to highest; ranges in one line rank equal",
    )  # fmt: skip

    @model_validator(mode="after")
    def _complete(self) -> Self:
        named = [name for rank in self.ranks for name in rank]
        _known(named)
        if sorted(named) != sorted(BANDS):
            raise ValueError(f"ranks must name each of {', '.join(BANDS)} once")
        return self


def _known(names: Any) -> None:
    unknown = [name for name in names if name not in BANDS]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no condition range ({', '.join(BANDS)})")


Rule = Annotated[
    UnitOfMeasure
    | IntervalSize
    | DuplicateImd
    | NegativeConsumption
    | IntervalSpike
    | IntervalInterpolation
    | ZeroConsumption
    | MissingQuantity
    | FinalMeasurementReplacement,
    Field(discriminator="id"),
]


class Group(Section):
    """Rules in the order they run: validate before estimating; a rule may stand twice to look at estimates too."""

    rules: tuple[Rule, ...] = Field(min_length=1)


INITIAL_LOAD: Final = Group(
    rules=(
        UnitOfMeasure(), IntervalSize(), DuplicateImd(), NegativeConsumption(), IntervalSpike(), IntervalInterpolation(),
        ZeroConsumption(), MissingQuantity(), FinalMeasurementReplacement(),
    )
)  # fmt: skip


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
    silence: Literal["wait", "missing"] = Field(
        default="wait",
        description="Slots behind a channel's newest read when their day is closed: wait until it reports again, or missing at once",
    )
    admit: Literal["auto", "known"] = Field(default="auto", description="auto: until master data exists, channels come as they are")
    future_tolerance: Seconds = Field(default=24 * HOUR, ge=0, description="Reads further ahead of the clock wait for it")
    groups: dict[str, Group] = Field(default_factory=lambda: {"initial-load": INITIAL_LOAD})
    roles: dict[Role, str] = Field(default={"initial-load": "initial-load"}, description="Group of each role")

    @model_validator(mode="after")
    def _resolved(self) -> Self:
        for role, name in self.roles.items():
            if name not in self.groups:
                raise ValueError(f"roles.{role}: there is no group {name!r}")
        if "initial-load" not in self.roles:
            raise ValueError("roles must name the group of initial-load")
        for name, group in self.groups.items():
            placed = [rule.id for rule in group.rules]
            for single in ("unit-of-measure", "interval-size", "duplicate-imd", "final-measurement-replacement"):
                if placed.count(single) > 1:
                    raise ValueError(f"groups.{name}: {single} stands {placed.count(single)} times")
        return self

    def group(self, role: Role = "initial-load") -> Group:
        """The group that a role runs; one without an own group runs that of initial load."""
        return self.groups[self.roles.get(role, self.roles["initial-load"])]

    def within(self, zone: str) -> Self:
        """The same with a default zone, unless it has its own."""
        return self if self.zone else self.model_copy(update={"zone": zone})

    @classmethod
    def default(cls) -> Self:
        """The settings of a topology that says nothing."""
        return cls()
