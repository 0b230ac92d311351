"""What the consumption of a billing month costs so far, exactly.

The charge of a month is a function of all that is known of it, not a sum of steps: whatever arrives, late or better, the whole month
is worked out again and the difference to what was posted is posted. So the end of a month needs no settlement, and the order in
which reads come changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cache
from typing import Final

from schemas.identity import identity
from schemas.quantity import parse
from schemas.topology.prepaid import Currency, PowerFactor, PrepaidSettings, Subsidy, Tariff, TariffVersion
from streams.determinants.usage.reactive import apparent_power_factor, power_factor
from streams.prepaid.money import EXACT, divide, part_of, share

EPOCH: Final = date(1970, 1, 1)
_EVER: Final = -(2**31)
Exact = int  # 10⁻¹² of the currency's smallest unit
Part = tuple[int, int]  # days of a month, and how many it would have if the cycle day did not change within it


@dataclass(slots=True)
class Day:
    """Consumption of one local day: millionths of the tariff's unit by TOU period, what was received, the highest mean power (10⁻⁶ kW)."""

    lines: dict[str, int] = field(default_factory=dict)
    received: int = 0
    demand: int = 0
    beside: int | None = None  # 10⁻⁶ kvarh or kVAh, whichever the tariff asks for; None: not told

    @property
    def consumed(self) -> int:
        """All that was delivered."""
        return sum(self.lines.values())


@dataclass(frozen=True, slots=True)
class Month:
    """A billing month: its first day and the one behind its last (days since 1970), and what is known of it."""

    first: int
    end: int
    days: Mapping[int, Day]
    fixed_until: int  # fixed charges are due for the days before this one
    load: int = 0  # sanctioned load, 10⁻⁶ kW
    closed: bool = False  # it is over and nothing of it is missing: the minimum bill counts
    part: Part | None = None  # where it is cut by a change of the cycle day; amounts and bounds are those of the whole one

    @property
    def length(self) -> int:
        """Days that amounts per month are for."""
        return self.end - self.first if self.part is None else self.part[1]


@dataclass(slots=True)
class Tally:
    """What days of a month, taken in their order, come to: all that the days behind them and the month's charges need of them."""

    last: int = -1  # the newest day; -1: none yet
    count: int = 0
    energy: Exact = 0
    export: Exact = 0
    consumed: int = 0  # 10⁻⁶ of the tariff's unit
    peak: int = 0  # 10⁻⁶ kW
    paired: int = 0  # consumption of the days of which something is known beside it
    beside: int = 0  # what is known beside it: 10⁻⁶ kvarh or kVAh


class Prices:
    """A tariff version in whole numbers."""

    def __init__(self, version: TariffVersion, currency: Currency) -> None:
        self.since = -1 if version.since is None else (version.since - EPOCH).days
        self.slabs = tuple((None if s.up_to is None else parse(s.up_to), currency.rate(s.rate)) for s in version.slabs)
        self.rates = {name: currency.rate(rate) for name, rate in version.rates.items()}
        self.rate = 0 if version.rate is None else currency.rate(version.rate)
        self.adders = {name: currency.rate(rate) for name, rate in version.adders.items()}
        self.export = 0 if version.export is None else currency.rate(version.export)
        self.fixed = currency.whole(version.fixed) * EXACT
        self.fixed_per_kw = currency.rate(version.fixed_per_kw)
        self.demand = currency.rate(version.demand)
        self.minimum = currency.whole(version.minimum) * EXACT
        self.factor = None if version.power_factor is None else Factor(version.power_factor, currency)
        self.taxes = tuple((tax.id, share(tax.percent), frozenset(tax.on)) for tax in version.taxes)
        self.subsidies = tuple(Grant(subsidy, currency) for subsidy in version.subsidies)


class Factor:
    """What the power factor of a month does, in whole numbers."""

    def __init__(self, told: PowerFactor, currency: Currency) -> None:
        self.by, self.free, self.rate = told.by, parse(told.free), currency.rate(told.rate)
        self.steps = tuple((parse(s.below or s.above or "1") // 10_000, s.below is not None, share(s.percent)) for s in told.steps)
        self.demand_at = None if told.demand_at is None else parse(told.demand_at) // 10_000

    def hundredths(self, tally: Tally) -> int | None:
        """The power factor of the days of a tally; None: nothing is known of it."""
        if not tally.beside and not tally.paired:
            return None
        exact = power_factor(tally.paired, tally.beside) if self.by == "kvarh" else apparent_power_factor(tally.paired, tally.beside)
        return max(1, divide(exact, 10_000))

    def demand(self, charge: Exact, factor: int) -> Exact:
        """The demand charge, of kW or, where the factor is too low, of kVA at the factor asked for."""
        return charge if self.demand_at is None or factor >= self.demand_at else divide(charge * self.demand_at, factor)

    def surcharge(self, base: Exact, factor: int) -> Exact:
        """What the steps add to charges; negative: a rebate."""
        counts = ((max(0, bound - factor if below else factor - bound), parts) for bound, below, parts in self.steps)
        return part_of(base, sum(count * parts for count, parts in counts))

    def reactive(self, tally: Tally) -> Exact:
        """The price of the kvarh beyond the free ones."""
        return max(0, tally.beside - divide(max(tally.paired, 0) * self.free, 10**6)) * self.rate


class Grant:
    """A subsidy in whole numbers."""

    def __init__(self, subsidy: Subsidy, currency: Currency) -> None:
        self.id = subsidy.id
        self.share = None if subsidy.percent is None else share(subsidy.percent)
        self.per_unit = None if subsidy.per_unit is None else currency.rate(subsidy.per_unit)
        self.per_month = 0 if subsidy.per_month is None else currency.whole(subsidy.per_month) * EXACT
        self.up_to = None if subsidy.up_to is None else parse(subsidy.up_to)
        self.lapses_above = None if subsidy.lapses_above is None else parse(subsidy.lapses_above)

    def amount(self, month: Month, since: int, consumed: int, energy: Exact) -> Exact:
        """What is given for a month so far, as a positive number."""
        lapses, up_to = _of(self.lapses_above, month.part), _of(self.up_to, month.part)
        if lapses is not None and consumed > lapses:
            return 0
        if self.share is None and self.per_unit is None:
            return divide(self.per_month * max(0, min(month.fixed_until, month.end) - since), month.length)
        if consumed <= 0:
            return 0
        covered = consumed if up_to is None else min(consumed, up_to)
        if self.per_unit is not None:
            return covered * self.per_unit
        return part_of(divide(energy * covered, consumed), self.share or 0)


class PriceList:
    """A tariff made ready: its versions in the order of their dates."""

    def __init__(self, tariff: Tariff, currency: Currency) -> None:
        self.id, self.unit = tariff.id, tariff.unit
        self.versions = [Prices(version, currency) for version in tariff.versions]
        self.mark = identity(currency.model_dump_json(), tariff.model_dump_json())[:16]  # two lists of one mark charge the same

    @classmethod
    def joined(cls, parts: Sequence[tuple[int, PriceList]]) -> PriceList:
        """Several tariffs one after the other, each from a local day on (days since 1970), the first from the beginning."""
        whole = copy(parts[-1][1])
        whole.versions = []
        whole.mark = identity(*(text for since, part in parts for text in (since, part.mark)))[:16]
        for position, (since, part) in enumerate(parts):
            begin = -1 if position == 0 else since
            end = parts[position + 1][0] if position + 1 < len(parts) else None
            held = part.of(since)
            for version in [held, *(v for v in part.versions if v.since > since and v is not held)]:
                if end is None or max(version.since, begin) < end:
                    dated = copy(version)
                    dated.since = max(version.since, begin) if version is not held else begin
                    whole.versions.append(dated)
        return whole

    def of(self, day: int) -> Prices:
        """The version that holds on a local day; before the first date, the first."""
        held = self.versions[0]
        for version in self.versions[1:]:
            if version.since > day:
                break
            held = version
        return held

    def charges(self, month: Month, fixed_from: int | None = None) -> dict[str, Exact]:
        """The charges of a month so far: ``energy``, ``export``, ``fixed``, ``demand``, ``power-factor``, ``reactive``,
        ``subsidy/<id>``, ``minimum``, ``tax/<id>``.

        Credits are negative; fixed charges begin with the day ``fixed_from``, else with the month. Slabs fill up over the month in the
        order of its days, each day at the prices of that day; demand, power factor, subsidies, minimum and taxes follow the version of
        the last day known. Sources: domain 2.4 and 5.3 (marginal price over the cumulative consumption of the month, minimum bill).
        """
        tally = Tally()
        for number in sorted(month.days):
            self.add(tally, number, month.days[number], month.part)
        return self.total(tally, month, month.first if fixed_from is None else fixed_from)

    def add(self, tally: Tally, number: int, day: Day, part: Part | None = None) -> None:
        """Takes the next day in, which lies behind all that were taken before; ``part`` where a change of the cycle day cuts its month."""
        prices = self.of(number)
        consumed = day.consumed
        tally.energy += _energy(day, consumed, prices, tally.consumed, part)
        tally.export -= day.received * prices.export
        tally.consumed += consumed
        tally.peak = max(tally.peak, day.demand)
        tally.last, tally.count = number, tally.count + 1
        if day.beside is not None:
            tally.paired += consumed
            tally.beside += day.beside

    def total(self, tally: Tally, month: Month, since: int) -> dict[str, Exact]:
        """The charges of a month of whose days the tally is, as :meth:`charges`; ``month.days`` is not looked at."""
        found: dict[str, Exact] = {}
        _add(found, "energy", tally.energy)
        _add(found, "export", tally.export)
        self._fixed(found, month, since)
        prices = self.of(tally.last if tally.count else month.first)
        demand, factor = tally.peak * prices.demand, None if prices.factor is None else prices.factor.hundredths(tally)
        if prices.factor is not None and factor is not None:
            demand = prices.factor.demand(demand, factor)
            _add(found, "power-factor", prices.factor.surcharge(tally.energy + demand, factor))
            _add(found, "reactive", prices.factor.reactive(tally))
        _add(found, "demand", demand)
        for grant in prices.subsidies:
            _add(found, f"subsidy/{grant.id}", -grant.amount(month, since, tally.consumed, tally.energy))
        if month.closed and prices.minimum:
            before = sum(amount for name, amount in found.items() if name != "export")
            _add(found, "minimum", max(0, divide(prices.minimum * (month.end - month.first), month.length) - before))
        untaxed = list(found.items())
        for name, parts, kinds in prices.taxes:
            base = sum([amount for component, amount in untaxed if _taxed_as(component) in kinds])
            _add(found, f"tax/{name}", part_of(base, parts))
        return found

    def _fixed(self, found: dict[str, Exact], month: Month, since: int) -> None:
        """By day, so that a tariff that changes within the month counts from its date; a whole month is exact."""
        days: dict[Exact, int] = {}
        end = min(month.fixed_until, month.end)
        while since < end:
            prices = self.of(since)
            until = next((version.since for version in self.versions if version.since > since), end)
            whole = prices.fixed + prices.fixed_per_kw * month.load
            days[whole] = days.get(whole, 0) + min(until, end) - since
            since = min(until, end)
        for whole, count in days.items():
            _add(found, "fixed", divide(whole * count, month.length))


def _add(found: dict[str, Exact], name: str, amount: Exact) -> None:
    if amount or name in found:
        found[name] = found.get(name, 0) + amount


@cache
def _taxed_as(component: str) -> str:
    kind = component.partition("/")[0]
    return "energy" if kind in ("minimum", "power-factor", "reactive") else kind


def _energy(day: Day, quantity: int, prices: Prices, before: int, part: Part | None) -> Exact:
    if not prices.slabs:
        rates, rate = prices.rates, prices.rate
        return sum([amount * rates.get(tou, rate) for tou, amount in day.lines.items()])
    slabs = prices.slabs if part is None else tuple((_of(bound, part), rate) for bound, rate in prices.slabs)
    total = sum([amount * prices.adders.get(tou, 0) for tou, amount in day.lines.items()])
    if quantity < 0:  # goes back down the steps it came up
        return total - _climb(slabs, before + quantity, -quantity)
    return total + _climb(slabs, before, quantity)


def _of(bound: int | None, part: Part | None) -> int | None:
    """A bound of a whole month in one that is cut."""
    return bound if bound is None or part is None else divide(bound * part[0], part[1])


def _climb(slabs: tuple[tuple[int | None, int], ...], at: int, quantity: int) -> Exact:
    """The price of a quantity that begins at a consumption of the month."""
    total = 0
    for bound, rate in slabs:
        step = quantity if bound is None else min(quantity, max(bound - at, 0))
        total += step * rate
        at, quantity = at + step, quantity - step
        if not quantity:
            break
    return total


class Months:
    """The billing months: from the cycle day of one calendar month to that of the next.

    Where the cycle day changes, the month under way ends at the first begin of the new one, so it is shorter.
    """

    def __init__(self, settings: PrepaidSettings) -> None:
        self._steps = [(_EVER, settings.cycle_day)]  # first day, cycle day
        for change in settings.cycle_changes:
            begin, end = _around((change.since - EPOCH).days, change.cycle_day)
            first = begin if begin == (change.since - EPOCH).days else end
            while len(self._steps) > 1 and self._steps[-1][0] >= first:  # it never holds
                self._steps.pop()
            self._steps.append((first, change.cycle_day))
        self.of = cache(self._of)

    def _of(self, day: int) -> tuple[int, int]:
        """The month of a local day: its first day and the one behind its last, days since 1970."""
        number = self._step(day)
        first, end = _around(day, self._steps[number][1])
        later = self._steps[number + 1][0] if number + 1 < len(self._steps) else end
        return max(first, self._steps[number][0]), min(end, later)

    def part(self, span: tuple[int, int]) -> Part | None:
        """How much of a whole month one is; None: all."""
        begin, end = _around(span[0], self._steps[self._step(span[0])][1])
        return None if span == (begin, end) else (span[1] - span[0], end - begin)

    def settled(self, day: int) -> list[list[int]]:
        """First days and cycle days of all that has begun by a day: months are kept by them, so they stay."""
        return [list(step) for step in self._steps if step[0] <= day]

    def _step(self, day: int) -> int:
        return max(number for number, (first, _) in enumerate(self._steps) if first <= day)


@cache
def _around(day: int, cycle_day: int) -> tuple[int, int]:
    at = EPOCH + timedelta(days=day)
    first = at.replace(day=cycle_day)
    if at < first:
        first = (first.replace(day=1) - timedelta(days=1)).replace(day=cycle_day)
    after = (first.replace(day=1) + timedelta(days=32)).replace(day=cycle_day)
    return (first - EPOCH).days, (after - EPOCH).days
