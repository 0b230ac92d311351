"""Time of use and bill determinants in topology.yaml: TOU maps, who is billed by which, and billing periods.

A TOU map says which period (peak, shoulder, …) each moment of a local day belongs to. Times are wall-clock times, half-open:
``from: "07:00"`` to ``to: "15:00"`` holds the interval that starts at 14:45 and not the one that starts at 15:00.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from datetime import date
from fnmatch import fnmatchcase
from functools import cache
from itertools import pairwise
from typing import Annotated, Final, Literal, Self
from zoneinfo import available_timezones

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from schemas.topology.base import Seconds, Section, check_dated
from schemas.topology.corrections import Corrections
from schemas.units import resolve

DAY: Final = 86_400
MAX_PERIODS: Final = 16
WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")  # position as date.weekday()
_MONTH_LENGTHS: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def _time(value: object) -> object:
    """``HH:MM`` or ``HH:MM:SS``, up to ``24:00``, as second of the day."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    parts = value.split(":") if isinstance(value, str) else []
    if not 2 <= len(parts) <= 3 or not all(len(p) == 2 and p.isascii() and p.isdigit() for p in parts):
        raise ValueError(f'must be a time of day such as "07:00" or "24:00", not {value!r}')
    hours, minutes, *rest = map(int, parts)
    second = hours * 3600 + minutes * 60 + sum(rest)
    if minutes > 59 or sum(rest) > 59 or second > DAY:
        raise ValueError(f'must be a time of day from "00:00" to "24:00", not {value!r}')
    return second


def _month_day(value: object) -> object:
    """``MM-DD`` as (month, day)."""
    if isinstance(value, tuple | list):
        return tuple(value)
    parts = value.split("-") if isinstance(value, str) else []
    if len(parts) != 2 or not all(len(p) == 2 and p.isascii() and p.isdigit() for p in parts):
        raise ValueError(f"must be month and day such as 11-01, not {value!r}")
    month, day = map(int, parts)
    if not 1 <= month <= 12 or not 1 <= day <= _MONTH_LENGTHS[month - 1]:
        raise ValueError(f"must be a day of the year such as 11-01, not {value!r}")
    return month, day


def _days(value: object) -> object:
    """A list of weekdays and ranges of them: ``[mon-fri, sun]``."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list | tuple):
        return value
    found: list[str] = []
    for word in value:
        first, _, last = str(word).partition("-")
        if first not in WEEKDAYS or (last or first) not in WEEKDAYS:
            raise ValueError(f"must be weekdays such as mon or mon-fri, not {word!r}")
        a, b = WEEKDAYS.index(first), WEEKDAYS.index(last or first)
        found += [WEEKDAYS[i % 7] for i in range(a, b + 1 if b >= a else b + 8)]
    return tuple(dict.fromkeys(found))


def _zone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError(f"must be an IANA time zone such as Europe/Berlin, not {name!r}")
    return name


TimeOfDay = Annotated[int, BeforeValidator(_time)]
MonthDay = Annotated[tuple[int, int], BeforeValidator(_month_day)]
Weekdays = Annotated[tuple[str, ...], BeforeValidator(_days)]
ZoneName = Annotated[str, AfterValidator(_zone)]
PeriodName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _./-]{0,39}$")]
MapName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,59}$")]


class Season(Section):
    """A part of the year, first and last day included; it may run over the new year. A last day of 02-29 is the end of February."""

    first: MonthDay = Field(alias="from")
    last: MonthDay = Field(alias="to")

    def holds(self, month: int, day: int) -> bool:
        """Whether a day of the year lies in the season."""
        here = (month, day)
        return self.first <= here <= self.last if self.first <= self.last else here >= self.first or here <= self.last


class Window(Section):
    """A time range of a day and the period it belongs to; where ranges overlap, the lowest priority number wins."""

    period: PeriodName
    start: TimeOfDay = Field(default=0, alias="from")
    end: TimeOfDay = Field(default=DAY, alias="to")
    priority: int = Field(default=100, ge=0, le=1000)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.start >= self.end:
            raise ValueError(f"{clock(self.start)} to {clock(self.end)} is empty: write a range over midnight as two, one to 24:00")
        return self


class Rule(Window):
    """A time range on some weekdays of some seasons; without them, on all."""

    days: Weekdays = Field(default=WEEKDAYS, min_length=1)
    seasons: tuple[str, ...] = ()


class HolidayCalendar(Section):
    """Which dates are holidays: those of a country (and subdivision) as the ``holidays`` package knows them, and listed ones."""

    country: str | None = Field(default=None, pattern=r"^[A-Z]{2,3}$", description="ISO 3166 code")
    subdivision: str | None = None
    observed: bool | None = Field(
        default=None, description="Whether a weekend holiday is kept on the day the law moves it to; must be said with a country"
    )
    dates: tuple[date, ...] = Field(default=(), description="Further holidays")
    without: tuple[date, ...] = Field(default=(), description="Dates that are none, whatever the calendar says")

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.country is None:
            if self.subdivision or self.observed is not None:
                raise ValueError("subdivision and observed need a country")
            return self
        if self.observed is None:
            raise ValueError("observed must be said: true moves weekend holidays as the law does, false keeps their dates")
        import holidays  # large, and needed by few

        try:
            holidays.country_holidays(self.country, subdiv=self.subdivision)
        except NotImplementedError:
            place = f"{self.country}/{self.subdivision}" if self.subdivision else self.country
            raise ValueError(f"no holiday calendar is known for {place}") from None
        return self

    def holds(self, day: date) -> bool:
        """Whether a date is a holiday."""
        return day not in self.without and (day in self.dates or day in self._national(day.year))

    def _national(self, year: int) -> frozenset[date]:
        return _national(self.country, self.subdivision, bool(self.observed), year) if self.country else frozenset()


@cache
def _national(country: str, subdivision: str | None, observed: bool, year: int) -> frozenset[date]:
    import holidays

    # The observed day of a holiday may fall into the year before or after it
    found = holidays.country_holidays(country, subdiv=subdivision, years=range(year - 1, year + 2), observed=observed)
    return frozenset(d for d in found if d.year == year)


class MapVersion(Section):
    """What a map says from a date on: a schedule of rules over a default, and what holds on holidays instead."""

    since: date | None = Field(default=None, alias="from", description="First local date; only the first version may leave it out")
    default: PeriodName | None = Field(default=None, description="Period of all times no rule covers; without it the rules must cover all")
    seasons: dict[str, Season] = Field(default_factory=dict)
    schedule: tuple[Rule, ...] = ()
    holidays: HolidayCalendar | None = None
    holiday_schedule: tuple[Window, ...] | None = Field(default=None, description="Instead of the schedule on holidays; needs holidays")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        for position, rule in enumerate(self.schedule, 1):
            for name in rule.seasons:
                if name not in self.seasons:
                    raise ValueError(f"rule {position} ({rule.period}) names season {name!r}, which is not among the seasons")
        if (self.holidays is None) != (self.holiday_schedule is None):
            raise ValueError("holidays and holiday_schedule come together: which dates, and what holds on them")
        for where, windows in self._kinds():
            _check_day(where, windows, self.default)
        return self

    def _kinds(self) -> Iterator[tuple[str, tuple[Window, ...]]]:
        """Every kind of day there is, as a phrase and its windows."""
        combinations = {self._seasons_of(m, d): None for m in range(1, 13) for d in range(1, _MONTH_LENGTHS[m - 1] + 1)}
        for names in combinations:
            for weekday, name in enumerate(WEEKDAYS):
                season = f" in season {' and '.join(names)}" if names else " outside all seasons" if self.seasons else ""
                yield f"on {name}{season}", self._windows(names, weekday)
        if self.holiday_schedule is not None:
            yield "on holidays", self.holiday_schedule

    def _seasons_of(self, month: int, day: int) -> tuple[str, ...]:
        return tuple(name for name, season in self.seasons.items() if season.holds(month, day))

    def _windows(self, seasons: tuple[str, ...], weekday: int) -> tuple[Window, ...]:
        named = frozenset(seasons)
        return tuple(r for r in self.schedule if WEEKDAYS[weekday] in r.days and (not r.seasons or named & frozenset(r.seasons)))

    def windows_of(self, day: date) -> tuple[Window, ...]:
        """The windows that hold on a local date, lowest priority number first."""
        if self.holidays is not None and self.holidays.holds(day):
            found = self.holiday_schedule or ()
        else:
            found = self._windows(self._seasons_of(day.month, day.day), day.weekday())
        return tuple(sorted(found, key=lambda w: w.priority))

    def bounds(self) -> set[int]:
        """All seconds of the day at which a window begins or ends."""
        return {t for w in (*self.schedule, *(self.holiday_schedule or ())) for t in (w.start, w.end)}

    def periods(self) -> tuple[str, ...]:
        """All period names, in the order they appear, the default last."""
        names = [w.period for w in (*self.schedule, *(self.holiday_schedule or ()))]
        return tuple(dict.fromkeys([*names, *([self.default] if self.default else [])]))


def clock(second: int) -> str:
    """A second of the day as ``HH:MM``, with seconds where there are some."""
    text = f"{second // 3600:02d}:{second // 60 % 60:02d}"
    return f"{text}:{second % 60:02d}" if second % 60 else text


def _check_day(where: str, windows: tuple[Window, ...], default: str | None) -> None:
    """Raises ValueError where two windows of equal priority claim the same moment for two periods, or nothing does."""
    edges = sorted({0, DAY, *(t for w in windows for t in (w.start, w.end))})
    for start, end in pairwise(edges):
        over = [w for w in windows if w.start <= start and end <= w.end]
        best = min((w.priority for w in over), default=0)
        claims = list(dict.fromkeys(w.period for w in over if w.priority == best))
        if len(claims) > 1:
            raise ValueError(
                f"{where}, {clock(start)} to {clock(end)} is both {' and '.join(claims)} with priority {best}: "
                "give one a lower priority number or make the ranges disjoint"
            )
        if not claims and default is None:
            raise ValueError(f"{where}, {clock(start)} to {clock(end)} is in no period: add a rule or a default")


class TouMap(Section):
    """A TOU map: versions by effective date, all over the same slot."""

    id: MapName
    zone: ZoneName | None = Field(default=None, description="Zone of its times; by default each service point's own")
    slot: Seconds = Field(default=1800, description="All times are multiples of it")
    versions: tuple[MapVersion, ...] = Field(min_length=1)
    events: tuple[PeriodName, ...] = Field(
        default=(), description="Further periods that critical-peak events bring (`tou`, or those of the map in `use`)"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.slot <= 0 or DAY % self.slot:
            raise ValueError(f"slot of {self.slot} s does not divide a day")
        for version in self.versions:
            for second in sorted(version.bounds()):
                if second % self.slot:
                    raise ValueError(f"{clock(second)} is no multiple of the slot of {self.slot} s")
        check_dated([version.since for version in self.versions])
        if len(self.periods()) > MAX_PERIODS:
            raise ValueError(f"has {len(self.periods())} periods, more than {MAX_PERIODS}")
        return self

    def version_of(self, day: date) -> MapVersion | None:
        """The version that holds on a local date; None before the first."""
        held = [v for v in self.versions if v.since is None or v.since <= day]
        return held[-1] if held else None

    def periods(self) -> tuple[str, ...]:
        """All period names of all versions, without repetition."""
        return tuple(dict.fromkeys([*(name for version in self.versions for name in version.periods()), *self.events]))

    def grid(self) -> int:
        """The longest interval (seconds) that never straddles two periods on an ordinary day."""
        return math.gcd(DAY, *(t for version in self.versions for t in version.bounds()))


class MapRule(Section):
    """Which channels a map is for. All that is said must match; patterns are shell-like (``*``, ``?``, ``[ab]``), case counts."""

    map: MapName | None = Field(description="Id of a map, or null: these channels are not mapped")
    units: tuple[str, ...] = ()
    directions: tuple[Literal["none", "delivered", "received"], ...] = ()
    channels: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()
    since: date | None = Field(default=None, alias="from", description="First local day")
    until: date | None = Field(default=None, alias="to", description="First local day of no more")

    def holds(self, day: date) -> bool:
        """Whether the rule is in force on a local day."""
        return (self.since is None or self.since <= day) and (self.until is None or day < self.until)

    def matches(self, unit: str, direction: str, channel: str, account: str) -> bool:
        """Whether a channel falls under the rule, on the days on which it is in force."""
        return (
            (not self.units or resolve(unit).name in {resolve(u).name for u in self.units})
            and (not self.directions or direction in self.directions)
            and _any_match(self.channels, channel)
            and _any_match(self.accounts, account)
        )


def _any_match(patterns: tuple[str, ...], text: str) -> bool:
    return not patterns or any(fnmatchcase(text, pattern) for pattern in patterns)


class CycleRule(Section):
    """Accounts whose billing period begins on another day of the month."""

    accounts: tuple[str, ...] = Field(min_length=1)
    cycle_day: int = Field(ge=1, le=28)


class BillingTerms(Section):
    """On which day of the month billing periods begin, from a date on."""

    since: date | None = Field(
        default=None,
        alias="from",
        description="Holds from the first such day of the month on or after this date; only the first may leave it out",
    )
    cycle_day: int = Field(default=1, ge=1, le=28, description="1: calendar months")
    cycles: tuple[CycleRule, ...] = Field(default=(), description="Exceptions by account, the first that matches counts")

    def cycle_of(self, account: str) -> int:
        """The day of the month on which an account's period begins."""
        return next((rule.cycle_day for rule in self.cycles if _any_match(rule.accounts, account)), self.cycle_day)


class Billing(Section):
    """Billing periods: from the cycle day of a month to that of the next, local time. Where the cycle day changes, the period before the
    first new one is shorter."""

    versions: tuple[BillingTerms, ...] = Field(
        default=(BillingTerms(),), min_length=1, description="The first holds for all periods before the second"
    )
    delay: Seconds = Field(default=3600, ge=0, description="Wait after a period's end before its determinants are sent")
    quiet: Seconds = Field(
        default=5,
        ge=0,
        description="A period that still receives reads and has none behind it is not sent for this long: a load in progress",
    )

    @model_validator(mode="after")
    def _dated(self) -> Self:
        check_dated([version.since for version in self.versions])
        return self

    def cycles_of(self, account: str) -> list[tuple[date | None, int]]:
        """The days of the month on which an account's periods begin, each with its date (None: since ever), in order."""
        return [(version.since, version.cycle_of(account)) for version in self.versions]


class Rollover(Section):
    """When a register that went back has rolled over, from a date on."""

    since: date | None = Field(
        default=None, alias="from", description="First local day of periods and days; only the first may leave it out"
    )
    percent: int = Field(default=50, ge=1, le=99, description="If it then advanced by at most this share of its range")


class DeterminantsSettings(Section):
    """How bill determinants are made."""

    maps: tuple[TouMap, ...] = ()
    default_map: MapName | None = Field(default=None, description="Map of channels no rule of `assign` matches; null: they are not mapped")
    assign: tuple[MapRule, ...] = Field(default=(), description="Which channel is billed by which map; the first that matches counts")
    billing: Billing = Field(default_factory=Billing)
    corrections: Corrections = Field(default_factory=Corrections, description="Of determinants and usage that were sent")
    rollover: tuple[Rollover, ...] = Field(
        default=(Rollover(),), min_length=1, description="Rollovers of registers by date; the first holds for all before the second"
    )

    @model_validator(mode="after")
    def _references(self) -> Self:
        check_dated([version.since for version in self.rollover])
        ids = Counter(m.id for m in self.maps)
        for name, count in ids.items():
            if count > 1:
                raise ValueError(f"map {name!r} is defined {count} times")
        for used in (self.default_map, *(rule.map for rule in self.assign)):
            if used is not None and used not in ids:
                raise ValueError(f"there is no map {used!r}; known: {', '.join(sorted(ids)) or 'none'}")
        return self

    def rollover_on(self, day: date) -> int:
        """The share of a register's range (percent) that a rollover may have advanced by, on a local day."""
        return next((v.percent for v in reversed(self.rollover) if v.since is None or v.since <= day), self.rollover[0].percent)

    def maps_of(self, unit: str, direction: str, channel: str, account: str) -> list[tuple[date | None, TouMap | None]]:
        """The maps a channel is billed by, each with its first local day (None: since ever), in order. ``direction`` is none, delivered or
        received; a map of None: not mapped."""
        rules = [rule for rule in self.assign if rule.matches(unit, direction, channel, account)]
        edges = {edge for rule in rules for edge in (rule.since, rule.until) if edge is not None}
        found: list[tuple[date | None, TouMap | None]] = []
        for since in (None, *sorted(edges)):
            day = since or date.min
            name = next((rule.map for rule in rules if rule.holds(day)), self.default_map)
            chosen = next((m for m in self.maps if m.id == name), None)
            if not found or found[-1][1] is not chosen:
                found.append((since, chosen))
        return found

    @classmethod
    def default(cls) -> Self:
        """The settings of a topology that says nothing: energy by peak, shoulder and off-peak on weekdays, off-peak else."""
        return cls.model_validate(
            {
                "maps": [
                    {
                        "id": "three-part",
                        "slot": "30m",
                        "versions": [
                            {
                                "default": "offpeak",
                                "schedule": [
                                    {"period": "peak", "days": ["mon-fri"], "from": "15:00", "to": "21:00"},
                                    {"period": "shoulder", "days": ["mon-fri"], "from": "07:00", "to": "15:00"},
                                    {"period": "shoulder", "days": ["mon-fri"], "from": "21:00", "to": "22:00"},
                                ],
                            }
                        ],
                    }
                ],
                "assign": [{"map": "three-part", "units": ["Wh", "kWh", "MWh", "kvarh", "kVAh"]}],
            }
        )
