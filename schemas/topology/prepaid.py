"""Prepaid in topology.yaml: currency, tariffs by date, thresholds, emergency credit, when supply may be cut, and how.

Amounts are written as decimals in the currency ("0.2845") and become whole numbers: amounts of the smallest unit, rates of its millionths.
A tariff version holds from its first local day on; a day is charged by the version that holds on it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import date
from decimal import Decimal, InvalidOperation
from fnmatch import fnmatchcase
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from schemas.topology.base import Seconds, Section, check_dated
from schemas.topology.portal import Messages, Portal
from schemas.topology.tou import DAY, WEEKDAYS, HolidayCalendar, PeriodName, TimeOfDay, Weekdays, clock
from schemas.units import resolve

MICRO: Final = 1_000_000
MAX_THRESHOLDS: Final = 8
MAX_DIGITS: Final = 4
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,39}$")]


def _decimal(text: str) -> str:
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError(f'must be a decimal number such as "12.50", not {text!r}') from None
    if not value.is_finite() or abs(value) >= 10**12 or not text.isascii():
        raise ValueError(f"must be a plain amount below 10^12, not {text!r}")
    return text


Amount = Annotated[str, AfterValidator(_decimal)]
"""An amount or a rate in the currency, as decimal text: never a float."""


class Currency(Section):
    """The one currency of the ledger."""

    code: str = Field(default="EUR", pattern=r"^[A-Z]{3}$", description="ISO 4217")
    digits: int = Field(default=2, ge=0, le=MAX_DIGITS, description="Decimals of the smallest unit: 2 for cents")

    def whole(self, text: str) -> int:
        """An amount as whole smallest units. Raises ValueError where it is finer than that."""
        return self._scaled(text, self.digits, "the smallest unit")

    def rate(self, text: str) -> int:
        """A rate per unit of quantity as millionths of the smallest unit. Raises ValueError where it is finer than that."""
        return self._scaled(text, self.digits + 6, "a millionth of the smallest unit")

    def text(self, whole: int) -> str:
        """Whole smallest units as decimal text with all decimals."""
        sign, magnitude = ("-", -whole) if whole < 0 else ("", whole)
        major, minor = divmod(magnitude, 10**self.digits)
        return f"{sign}{major}.{minor:0{self.digits}d}" if self.digits else f"{sign}{major}"

    def _scaled(self, text: str, digits: int, what: str) -> int:
        scaled = Decimal(text).scaleb(digits)
        if scaled != scaled.to_integral_value():
            raise ValueError(f"{text} {self.code} is finer than {what}")
        return int(scaled)


class Slab(Section):
    """A step of the energy price: it holds up to a consumption of the billing month, the last one without end."""

    up_to: Amount | None = Field(default=None, description="Consumption of the month up to which it holds, in the tariff's unit")
    rate: Amount = Field(description="Price per unit")


class Tax(Section):
    """A percentage on other charges."""

    id: Name
    percent: Amount
    on: tuple[Literal["energy", "fixed", "demand", "subsidy"], ...] = ("energy", "fixed", "demand", "subsidy")


class Subsidy(Section):
    """What a third party pays of the energy charge: a percentage, an amount per unit, or an amount per month, as a negative charge."""

    id: Name
    percent: Amount | None = Field(default=None, description="Of the energy charge")
    per_unit: Amount | None = Field(default=None, description="Per unit of consumption")
    per_month: Amount | None = Field(default=None, description="Per month, spread over its days")
    up_to: Amount | None = Field(default=None, description="percent and per_unit: only on so much of the month's consumption")
    lapses_above: Amount | None = Field(
        default=None, description="A month with more consumption than this gets nothing; what was given is taken back"
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(value is not None for value in (self.percent, self.per_unit, self.per_month)) != 1:
            raise ValueError("a subsidy is one of percent, per_unit or per_month")
        if self.up_to is not None and self.per_month is not None:
            raise ValueError("up_to limits consumption; a subsidy per month has none")
        return self


class FactorStep(Section):
    """What each hundredth of the month's power factor on one side of a bound adds to the bill, or takes off it. Steps add up."""

    below: Amount | None = Field(default=None, description="Counts the hundredths by which the factor is lower than this")
    above: Amount | None = Field(default=None, description="Counts the hundredths by which it is higher")
    percent: Amount = Field(description="Of energy and demand charges, for each hundredth; negative: a rebate")

    @model_validator(mode="after")
    def _one(self) -> Self:
        bound = self.below if self.above is None else self.above
        if (self.below is None) == (self.above is None) or bound is None:
            raise ValueError("a step is either below or above a power factor")
        _hundredths(bound)
        return self


class PowerFactor(Section):
    """Surcharges and rebates for the power factor of a month, and the price of reactive energy.

    The factor is kWh / √(kWh² + kvarh²) of what was delivered, or kWh / kVAh, over the days of which both are known, rounded to
    hundredths. A month of which no such day is known has none.
    """

    by: Literal["kvarh", "kVAh"] = Field(default="kvarh", description="Unit of the channels that are measured beside the energy")
    steps: tuple[FactorStep, ...] = Field(default=(), max_length=8)
    demand_at: Amount | None = Field(
        default=None, description="Where the factor is lower than this, demand counts as kW × this / factor: kVA at this power factor"
    )
    free: Amount = Field(default="0", description="kvarh for each kWh that cost nothing: 0.33 up to a power factor of about 0.95")
    rate: Amount = Field(default="0", description="Price per kvarh beyond the free ones")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.demand_at is not None:
            _hundredths(self.demand_at)
        if Decimal(self.rate) and self.by != "kvarh":
            raise ValueError("reactive energy has a price only where it is measured: by: kvarh")
        if not self.steps and self.demand_at is None and not Decimal(self.rate):
            raise ValueError("say what the power factor does: steps, demand_at or rate")
        return self


def _hundredths(text: str) -> int:
    """A power factor in hundredths. Raises ValueError for one that is finer, or not from 0.01 to 1."""
    scaled = Decimal(text) * 100
    if scaled != scaled.to_integral_value() or not 1 <= scaled <= 100:
        raise ValueError(f"{text} is not a power factor: 0.01 to 1, in hundredths")
    return int(scaled)


class TariffVersion(Section):
    """What a tariff says from a date on."""

    since: date | None = Field(default=None, alias="from", description="First local day; only the first version may leave it out")
    slabs: tuple[Slab, ...] = Field(default=(), description="Price by consumption of the month")
    rates: dict[PeriodName, Amount] = Field(default_factory=dict, description="Price by TOU period, instead of slabs")
    rate: Amount | None = Field(default=None, description="Price of what has no TOU period or an unnamed one, instead of slabs")
    adders: dict[PeriodName, Amount] = Field(
        default_factory=dict, description="Added per unit by TOU period, on top of slabs; may be negative"
    )
    export: Amount | None = Field(default=None, description="Credit per unit received from the customer; left out: none")
    fixed: Amount = Field(default="0", description="Per month, spread over its days")
    fixed_per_kw: Amount = Field(default="0", description="Per month and kW of sanctioned load")
    demand: Amount = Field(default="0", description="Per month and kW of the month's highest demand")
    minimum: Amount = Field(default="0", description="Least bill of a month before taxes, evened out at its end")
    power_factor: PowerFactor | None = Field(default=None, description="What the power factor of the month costs; taxed as energy")
    taxes: tuple[Tax, ...] = Field(default=(), max_length=4)
    subsidies: tuple[Subsidy, ...] = Field(default=(), max_length=4)

    @model_validator(mode="after")
    def _prices(self) -> Self:
        if bool(self.slabs) == (self.rate is not None):
            raise ValueError("say either slabs or rate (with rates by TOU period beside it)")
        if self.slabs and self.rates:
            raise ValueError("rates by TOU period replace slabs: use adders on top of slabs")
        bounds = [slab.up_to for slab in self.slabs]
        if self.slabs and (bounds[-1] is not None or None in bounds[:-1]):
            raise ValueError("every slab but the last needs up_to, and the last must have none")
        limits = [Decimal(b) for b in bounds[:-1] if b is not None]
        if any(b <= a for a, b in zip([Decimal(0), *limits], limits, strict=False)):
            raise ValueError("slabs must be in growing order of up_to")
        return self

    def amounts(self) -> Iterator[tuple[str, bool]]:
        """All amounts of the version and whether each is a rate per unit, to be checked against the currency."""
        yield from ((slab.rate, True) for slab in self.slabs)
        yield from ((rate, True) for rate in (*self.rates.values(), *self.adders.values()))
        yield from ((text, True) for text in (self.rate, self.export, self.demand, self.fixed_per_kw) if text is not None)
        yield from ((text, False) for text in (self.fixed, self.minimum))
        yield from ((self.power_factor.rate, True),) if self.power_factor is not None else ()
        for subsidy in self.subsidies:
            yield from ((text, True) for text in (subsidy.per_unit,) if text is not None)
            yield from ((text, False) for text in (subsidy.per_month,) if text is not None)


class Tariff(Section):
    """A prepaid tariff: versions by effective date."""

    id: Name
    unit: str = Field(default="kWh", description="Unit of its rates; consumption is converted")
    versions: tuple[TariffVersion, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        resolve(self.unit)
        if self.unit != "kWh" and any(version.power_factor is not None for version in self.versions):
            raise ValueError("a power factor needs a tariff in kWh")
        check_dated([version.since for version in self.versions])
        return self

    def version_of(self, day: date) -> TariffVersion:
        """The version that holds on a local day; before the first date, the first."""
        held = [version for version in self.versions if version.since is None or version.since <= day]
        return held[-1] if held else self.versions[0]


class TariffRule(Section):
    """Which accounts have a tariff. All that is said must match; ``rates`` are those of the usage subscription in master data."""

    tariff: Name
    accounts: tuple[str, ...] = ()
    rates: tuple[str, ...] = ()

    def matches(self, account: str, rate: str) -> bool:
        """Whether an account falls under the rule; patterns are shell-like."""
        return all(
            not patterns or any(fnmatchcase(text, pattern) for pattern in patterns)
            for patterns, text in ((self.accounts, account), (self.rates, rate))
        )


class Threshold(Section):
    """A balance the customer is told of when it is crossed downwards: an amount, or days left at the usual pace."""

    id: Name
    amount: Amount | None = None
    days: int | None = Field(default=None, ge=1, le=365)

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.amount is None) == (self.days is None):
            raise ValueError("a threshold is either an amount or days")
        return self


class Emergency(Section):
    """Credit a customer may take when the balance is low."""

    limit: Amount = "0"
    below: Amount = Field(default="0", description="Balance below which it may be taken")
    pauses_fixed: bool = Field(default=False, description="Fixed charges wait while it is in use, and are evened out at the next top-up")
    pauses_debt: bool = Field(default=True, description="Debt recovery waits while it is in use")


class Protected(Section):
    """A time range of some weekdays in which supply is not cut."""

    days: Weekdays = Field(default=WEEKDAYS, min_length=1)
    start: TimeOfDay = Field(default=0, alias="from")
    end: TimeOfDay = Field(default=DAY, alias="to")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.start >= self.end:
            raise ValueError(f"{clock(self.start)} to {clock(self.end)} is empty: write a range over midnight as two, one to 24:00")
        return self


class Disconnection(Section):
    """When supply may be cut, and how the command is carried out. Everything here errs on the side of supply."""

    enabled: bool = True
    below: Amount = Field(default="0", description="Balance below which supply is cut")
    grace: Seconds = Field(default=86_400, ge=0, description="Time between the notice of a zero balance and the cut")
    max_read_age: Seconds = Field(default=172_800, ge=0, description="Never cut on reads older than this")
    only_on_measured: bool = Field(default=True, description="Never cut while the balance rests on provisional or estimated consumption")
    protected: tuple[Protected, ...] = Field(default=(), description="Local times in which supply is not cut")
    holidays: HolidayCalendar | None = Field(default=None, description="Days on which supply is not cut")
    eve_from: TimeOfDay | None = Field(default=None, description="On the day before a holiday supply is not cut from this time on")
    command_life: Seconds = Field(default=900, ge=10, description="A command not carried out by then is void")
    retries: int = Field(default=3, ge=0, le=20, description="Times a failed cut is tried again before someone must look")
    reconnect_above: Amount = Field(default="0", description="Balance from which supply comes back")
    reconnect_waits: tuple[Seconds, ...] = Field(
        default=(60, 120, 300, 900, 3600), min_length=1, description="Waits between tries to reconnect; the last one repeats"
    )
    alarm_after: Seconds = Field(default=1800, ge=60, description="A reconnection that takes longer is told to people")
    fee: Amount = Field(default="0", description="Charged for a cut")


class Recovery(Section):
    """How debts come back."""

    per_day: Amount = Field(default="0", description="Of each debt that names no amount of its own")
    share_of_topup: int = Field(default=0, ge=0, le=100, description="Percent of a top-up that goes to debts")
    most_of_topup: int = Field(
        default=70, ge=0, le=100, description="Percent of a top-up that emergency credit and debts together take at most"
    )
    keeps: Amount = Field(default="0", description="Daily recovery leaves at least this balance")


class Quiet(Section):
    """Local times in which customers are not told anything but that the balance is used up."""

    start: TimeOfDay = Field(alias="from")
    end: TimeOfDay = Field(alias="to")


class CycleChange(Section):
    """Another cycle day, from a date on. The month under way ends where the first one of the new cycle day begins."""

    since: date = Field(alias="from", description="Holds from the first such day of the month on or after this date")
    cycle_day: int = Field(ge=1, le=28)


class PrepaidSettings(Section):
    """The prepaid engine."""

    currency: Currency = Field(default_factory=Currency)
    tariffs: tuple[Tariff, ...] = ()
    assign: tuple[TariffRule, ...] = Field(default=(), description="Which account has which tariff; the first that matches counts")
    charging: Literal["daily", "continuous"] = Field(
        default="daily", description="daily: a day is charged when it is over; continuous: as its consumption becomes known"
    )
    cycle_day: int = Field(default=1, ge=1, le=28, description="Day of the month on which slabs and fixed charges begin anew")
    cycle_changes: tuple[CycleChange, ...] = Field(
        default=(), description="Other cycle days by date, in their order; `cycle_day` holds for all months before the first"
    )
    provisional_after: Seconds = Field(
        default=43_200, ge=0, description="After a day's end, consumption not known by then is charged provisionally"
    )
    provisional: Literal["average", "none"] = Field(default="average", description="average: of the last seven days known; none: nothing")
    correctable: int = Field(
        default=4, ge=1, le=24, description="Months back to which better reads still change charges; older ones are told to people"
    )
    thresholds: tuple[Threshold, ...] = Field(default=(), max_length=MAX_THRESHOLDS, description="From the highest to the lowest")
    hysteresis: Amount = Field(default="0", description="A threshold tells again only after the balance was this much above it")
    quiet: tuple[Quiet, ...] = Field(default=(), description="Local times without notices")
    emergency: Emergency = Field(default_factory=Emergency)
    recovery: Recovery = Field(default_factory=Recovery)
    disconnection: Disconnection = Field(default_factory=Disconnection)
    topup_least: Amount = Field(default="0.01", description="Smallest top-up")
    topup_most: Amount = Field(default="10000", description="Largest top-up")
    four_eyes_above: Amount = Field(default="0", description="Adjustments of more than this need a second person")
    messages: Messages = Field(default_factory=Messages, description="How customers are told")
    portal: Portal = Field(default_factory=Portal, description="The customers' own pages")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        ids = Counter(tariff.id for tariff in self.tariffs)
        for name, count in ids.items():
            if count > 1:
                raise ValueError(f"tariff {name!r} is defined {count} times")
        for rule in self.assign:
            if rule.tariff not in ids:
                raise ValueError(f"there is no tariff {rule.tariff!r}; known: {', '.join(sorted(ids)) or 'none'}")
        check_dated([change.since for change in self.cycle_changes])
        for text, per_unit in self._amounts():
            (self.currency.rate if per_unit else self.currency.whole)(text)
        return self

    def _amounts(self) -> Iterator[tuple[str, bool]]:
        for tariff in self.tariffs:
            for version in tariff.versions:
                yield from version.amounts()
        cut, back = self.disconnection, self.recovery
        plain = [
            self.hysteresis,
            self.emergency.limit,
            self.emergency.below,
            cut.below,
            cut.reconnect_above,
            cut.fee,
            back.per_day,
            back.keeps,
        ]
        plain += [
            self.topup_least,
            self.topup_most,
            self.four_eyes_above,
            *(t.amount for t in self.thresholds if t.amount is not None),
            *self.portal.amounts,
        ]
        yield from ((text, False) for text in plain)

    def tariff_of(self, account: str, rate: str) -> Tariff | None:
        """The tariff of an account; None: it cannot be charged."""
        found = next((rule.tariff for rule in self.assign if rule.matches(account, rate)), None)
        return next((tariff for tariff in self.tariffs if tariff.id == found), None)
