"""From usage events to charges: what is known of each billing month, and the postings that bring the ledger up to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import copy
from decimal import Decimal
from functools import cache
from typing import Any, Final

from schemas.identity import identity
from schemas.topology.prepaid import PrepaidSettings
from schemas.units import convert, resolve
from streams import calendar
from streams.prepaid.accounts import Accounts
from streams.prepaid.charging import Day, Month, Months, Part, PriceList, Tally
from streams.prepaid.ledger import Ledger, day_number, day_text, time_of
from streams.prepaid.money import divide, rounded

PROVISIONAL: Final = "~"  # the source of a day nobody has told of
_KINDS: Final = {
    "energy": "ENERGY",
    "export": "EXPORT",
    "fixed": "FIXED",
    "demand": "DEMAND",
    "minimum": "MINIMUM",
    "power-factor": "POWER_FACTOR",
    "reactive": "REACTIVE",
    "tax": "TAX",
    "subsidy": "SUBSIDY",
}
_MICRO: Final = 1_000_000
APART: Final = "*"  # the source that stands for many, which are an entry of their own
FEW: Final = 4  # sources of a day that are kept with its month
_ALL_OPEN, _SOME_OPEN = 1, 2
Known = dict[str, Any]
"""What is known of a month: ``days`` {number: {source: [version, open, unsure, lines, received, demand]}}, ``posted`` by component,
``unsure``, ``fixed`` (fixed charges are due before this day), ``walk``: what the days before the newest one charged come to, and
``beside`` {number: kvarh or kVAh} where the tariff asks for a power factor, and ``told``: the version its CIS has of it.
"""


class Billing:
    """Charges the accounts of one partition."""

    def __init__(self, settings: PrepaidSettings, accounts: Accounts, ledger: Ledger) -> None:
        self.settings, self.accounts, self.ledger = settings, accounts, ledger
        self.prices = {tariff.id: PriceList(tariff, settings.currency) for tariff in settings.tariffs}
        self.months = Months(settings)
        self._joined: dict[tuple[tuple[int, str], ...], PriceList] = {}
        self.charges: list[dict[str, Any]] = []  # what is to be told to the CIS, until someone takes it
        self._daily: dict[int, int] = {}  # mean charge of an account's last days, as long as they stay
        self._oldest_of = cache(self._months_back)

    # --- usage --------------------------------------------------------------------------------------------------------------------

    def usage(self, event: dict[str, Any], at: int) -> tuple[list[dict[str, Any]], str]:
        """Takes a usage event of an enrolled account in; (postings, why it was refused if it was).

        An event of a version known already, of a day before enrolment or behind the close, or of a unit the tariff has no price for
        changes nothing.
        """
        account, table = event["account"], self.accounts.table
        row = table.index[account]
        number = day_number(event["day"])
        prices = self._prices(row)
        if prices is None or not int(table["first"][row]) <= number <= int(table["last"][row]):
            return [], ""
        priced = resolve(event["unit"]).dimension == resolve(prices.unit).dimension
        factor = None if priced else prices.of(number).factor
        if not priced and (factor is None or resolve(event["unit"]).dimension != resolve(factor.by).dimension):
            return [], ""
        first, end = self.months.of(number)
        if first < self._oldest(row):
            return [], f"{event['day']} is too far back: charges of its month are final"
        month = self._month(account, first)
        source = "/".join((event["device"], event["channel"], event["unit"], event["measure"], _begin(event)))
        if factor is not None:
            return self._beside(event, row, month, (first, end), number, source, factor.by, at), ""
        sources = self._sources(account, month, number)
        if sources.get(source, [0])[0] >= event["version"]:
            return [], ""
        settled = number < int(table["through"][row]) or (source in sources and self._charged(row, number, month["days"][str(number)]))
        correction = settled and bool(sources) and not any(known[1] for known in sources.values())
        sources.pop(PROVISIONAL, None)
        unsure = int(event["provisional"] or event["status"] != "final")
        sources[source] = [event["version"], int(event["status"] == "open"), unsure, *_amounts(event, prices.unit)]
        self._keep(account, month, number, sources)
        self._seen(row, event, unsure)
        if not self._charged(row, number, month["days"][str(number)]):
            self.accounts.put(month, "m", account, first)
            return [], ""
        kind = "TRUE_UP" if correction else ""
        return self.charge(account, month, (first, end), kind, cause=event["id"], at=at, number=number), ""

    def _beside(
        self, event: dict[str, Any], row: int, month: Known, span: tuple[int, int], number: int, source: str, unit: str, at: int
    ) -> list[dict[str, Any]]:
        """Takes in what was measured beside the energy of a day: delivered kvarh or kVAh, for the power factor."""
        account = event["account"]
        told = self.accounts.get("v", account, number) or {}
        if event["direction"] == "received" or told.get(source, [0])[0] >= event["version"]:
            return []
        kind = "TRUE_UP" if source in told else ""
        told[source] = [event["version"], convert(int(event["quantity"] * _MICRO), event["unit"], unit)]
        self.accounts.put(told, "v", account, number)
        month.setdefault("beside", {})[str(number)] = sum(amount for _, amount in told.values())
        if self._charged(row, number, month["days"].get(str(number), {})):
            return self.charge(account, month, span, kind, cause=event["id"], at=at, number=number)
        self.accounts.put(month, "m", account, span[0])
        return []

    def _seen(self, row: int, event: dict[str, Any], unsure: int) -> None:
        table = self.accounts.table
        end = int(event["end"].timestamp())
        if end >= table["seen"][row]:  # a correction from before a meter exchange does not bring the old meter back
            table["seen"][row] = end
            for name in ("service_point", "device", "zone"):
                if event[name] and table.text[name][row] != event[name]:
                    table.text[name][row] = event[name]
        if not unsure:
            table["measured"][row] = max(table["measured"][row], end)
        self.accounts.touch(row)

    def _oldest(self, row: int) -> int:
        return self._oldest_of(self.months.of(int(self.accounts.table["through"][row]))[0])

    def _months_back(self, first: int) -> int:
        for _ in range(self.settings.correctable):
            first = self.months.of(first - 1)[0]
        return first

    def _month(self, account: str, first: int) -> Known:
        found = self.accounts.get("m", account, first)
        return found if found is not None else {"days": {}, "posted": {}, "unsure": 0, "fixed": first}

    def _sources(self, account: str, month: Known, number: int) -> dict[str, list[Any]]:
        """All that was told of a day, by source."""
        near: dict[str, list[Any]] = month["days"].get(str(number), {})
        return self.accounts.get("u", account, number) if APART in near else near

    def _keep(self, account: str, month: Known, number: int, sources: dict[str, list[Any]]) -> None:
        """Sets what was told of a day: with its month, or apart with only the sum in the month, as for intervals told one by one."""
        if len(sources) > FEW:
            self.accounts.put(sources, "u", account, number)
            opened = [known[1] for known in sources.values()]
            day, unsure = _sum(sources), max(known[2] for known in sources.values())
            state = 0 if not any(opened) else _ALL_OPEN if all(opened) else _SOME_OPEN
            sources = {APART: [0, state, unsure, day.lines, day.received, day.demand]}
        month["days"][str(number)] = sources

    def _drop(self, account: str, month: Known, numbers: Iterable[str]) -> None:
        """Forgets days of a month."""
        for number in list(numbers):
            if APART in month["days"].pop(number, {}):
                self.accounts.put(None, "u", account, number)
            if month.get("beside", {}).pop(number, None) is not None:
                self.accounts.put(None, "v", account, number)

    def _charged(self, row: int, number: int, sources: dict[str, list[Any]]) -> bool:
        """Whether a day counts: something of it is known that is not open, or it must be charged with what there is."""
        if not sources:
            return False
        if number < int(self.accounts.table["through"][row]) or self.settings.charging == "continuous":
            return True
        return any(not known[1] for known in sources.values())

    # --- charges ------------------------------------------------------------------------------------------------------------------

    def charge(
        self, account: str, month: Known, span: tuple[int, int], kind: str, *, cause: str, at: int, number: int
    ) -> list[dict[str, Any]]:
        """Posts the difference between what a month costs by now and what was posted of it. ``kind`` empty: that of each component.

        Called for each day that begins to count, and for each that changes.
        """
        table = self.accounts.table
        row = table.index[account]
        prices = self._prices(row)
        assert prices is not None, "callers charge only what has a price"
        part = self.months.part(span)
        every, sure = self._tallies(row, month, prices, number, part)
        if not (self.settings.emergency.pauses_fixed and table["owed"][row] > 0):
            month["fixed"] = max(month["fixed"], every.last + 1 if every.count else span[0])
        first = max(span[0], int(table["first"][row]))
        last = min(span[1], int(table["last"][row]) + 1)
        closed = first == span[0] and last == span[1] and sure.count == span[1] - span[0]

        def costs(tally: Tally, closed: bool = False) -> dict[str, int]:
            # what fell due before enrolment is nobody's: fixed charges begin with the first day
            whole = Month(span[0], span[1], {}, month["fixed"], int(table["load"][row]), closed, part)
            return {name: rounded(exact) for name, exact in prices.total(tally, whole, first).items()}

        target = costs(every, closed)
        unsure = 0 if sure.count == every.count else sum(target.values()) - sum(costs(sure).values())
        if unsure != month["unsure"]:
            table["unsure"][row] += unsure - month["unsure"]
            month["unsure"] = unsure
        known = month["days"].get(str(number), {})
        about = {
            "cause": cause, "at": at, "day": day_text(number), "month": day_text(span[0]),
            "provisional": not self._charged(row, number, known) or _doubtful(known),
        }  # fmt: skip
        postings = self._post(account, month["posted"], target, kind, about)
        if postings and "told" in month:
            self._tell(row, month, span, at)
        self.accounts.put(month, "m", account, span[0])
        self._pace(row, number, -sum(posting["change"] for posting in postings))
        self.accounts.touch(row)
        return postings

    def _post(self, account: str, posted: dict[str, int], target: dict[str, int], kind: str, about: dict[str, Any]) -> list[dict[str, Any]]:
        """Brings what was posted by component to what it must be."""
        postings = []
        for component in sorted({*target, *posted}):
            change = target.get(component, 0) - posted.get(component, 0)
            if not change:
                continue
            posted[component] = target.get(component, 0)
            own, side = _about(component)
            debit, credit = ("customer", side) if change > 0 else (side, "customer")
            name = kind or own
            part = f"{component}/{about['day']}"
            postings.append(self.ledger.post(account, name, debit, credit, abs(change), part=part, component=component, **about))
        return postings

    def _tallies(self, row: int, month: Known, prices: PriceList, number: int, part: Part | None) -> tuple[Tally, Tally]:
        """What the days of a month that count come to, and those of them that are certain.

        The month keeps both up to the day before the newest one (``walk``). So a day at the end costs the same on any day of the month;
        a correction of an earlier one, or other prices, walk through the month anew.
        """
        days, walk = month["days"], month.get("walk")
        newest, mark = str(number), self._mark(prices, part)
        if walk is None or walk["of"] != mark or number < walk["to"]:
            counted = sorted(int(n) for n, sources in days.items() if self._charged(row, int(n), sources))
            every = sure = Tally()
            for day in counted[:-1]:
                sure = self._add(prices, every, sure, day, month, part)
            to = counted[-1] if counted else -1
        else:
            every, to = _tally(walk["all"]), walk["to"]
            sure = every if walk["sure"] is None else _tally(walk["sure"])
            if number > to and newest in days:
                if to >= 0:
                    sure = self._add(prices, every, sure, to, month, part)
                to = number
        month["walk"] = {"of": mark, "to": to, "all": _packed(every), "sure": None if sure is every else _packed(sure)}
        if to >= 0:
            sure = self._add(prices, every, sure, to, month, part)
        return every, sure

    @staticmethod
    def _add(prices: PriceList, every: Tally, sure: Tally, number: int, month: Known, part: Part | None) -> Tally:
        """Takes a day in; returns the tally of what is certain, which is ``every`` itself while all of it is."""
        sources = month["days"][str(number)]
        day, doubtful = _sum(sources), _doubtful(sources)
        if "beside" in month:
            day.beside = month["beside"].get(str(number))
        if sure is every and doubtful:
            sure = copy(every)
        elif sure is not every and not doubtful:
            prices.add(sure, number, day, part)
        prices.add(every, number, day, part)
        return sure

    def _mark(self, prices: PriceList, part: Part | None) -> str:
        return f"{prices.mark}/{self.settings.charging}" + (f"/{part[0]}/{part[1]}" if part else "")

    def _pace(self, row: int, number: int, amount: int) -> None:
        """Notes what a day cost; corrections of days before the newest do not change the pace."""
        table = self.accounts.table
        pace, last = table["pace"], int(table["pace_last"][row])
        if number > last:
            pace[row, 1:] = pace[row, :-1].copy()
            pace[row, 0] = amount
            table["pace_last"][row] = number
            table["pace_days"][row] = min(int(table["pace_days"][row]) + 1, pace.shape[1])
        elif number == last:
            pace[row, 0] += amount
        self._daily.pop(row, None)

    def daily(self, row: int) -> int:
        """The mean charge of the last days charged, rounded; 0 where none is known."""
        found = self._daily.get(row)
        if found is None:
            table = self.accounts.table
            days = int(table["pace_days"][row])
            found = self._daily[row] = divide(sum(table["pace"][row, :days].tolist()), days) if days else 0
        return found

    def slower(self, row: int) -> None:
        """Forgets at what pace an account was charged."""
        self.accounts.table["pace_days"][row] = 0
        self._daily.pop(row, None)

    # --- days nobody has told of ----------------------------------------------------------------------------------------------------

    def due(self, row: int) -> int:
        """The second from which the account's next day must be charged with whatever is known; 0: there is no next day."""
        table = self.accounts.table
        through, zone = int(table["through"][row]), table.text["zone"][row]
        if through > int(table["last"][row]):
            return 0  # all its days are charged: it is to be closed
        return calendar.start(zone, through + 1) + self.settings.provisional_after

    def provide(self, row: int, at: int) -> list[dict[str, Any]]:
        """Charges the account's next day, provisionally where nothing is known of it, and goes on to the day behind it.

        Behind the last day of a month the CIS is told what the month came to.
        """
        postings = self._provide(row, at)
        self.tell(row, int(self.accounts.table["through"][row]) - 1, at, whole=True)
        return postings

    def tell(self, row: int, last: int, at: int, *, whole: bool) -> None:
        """Tells what the month of a day came to, unless it was told; ``whole``: only where the day is its last one."""
        account, span = self.accounts.table.keys[row], self.months.of(last)
        if whole and last + 1 != span[1]:
            return
        month = self.accounts.get("m", account, span[0])
        if month is not None and "told" not in month and any(month["posted"].values()):
            self._tell(row, month, span, at)
            self.accounts.put(month, "m", account, span[0])

    def _tell(self, row: int, month: Known, span: tuple[int, int], at: int) -> None:
        table, version = self.accounts.table, month.get("told", 0) + 1
        month["told"] = version
        account, prices = table.keys[row], self._prices(row)
        first, last = max(span[0], int(table["first"][row])), min(span[1] - 1, int(table["last"][row]))
        quantities: dict[str, int] = {}
        for number, sources in month["days"].items():
            if self._charged(row, int(number), sources):
                for tou, quantity in _sum(sources).lines.items():
                    quantities[tou] = quantities.get(tou, 0) + quantity
        charged = sorted((name, amount) for name, amount in month["posted"].items() if amount)
        lines = [{"kind": _about(name)[0], "component": name, "amount": amount} for name, amount in charged]
        self.charges.append({
            "id": identity("charge", account, span[0], version), "account": account, "service_point": table.text["service_point"][row],
            "device": table.text["device"][row], "month": day_text(span[0]), "first": day_text(first), "last": day_text(max(first, last)),
            "version": version, "at": time_of(at), "tariff": table.text["tariff"][row], "currency": self.settings.currency.code,
            "digits": self.settings.currency.digits, "total": sum(month["posted"].values()), "provisional": month["unsure"] != 0,
            "lines": lines, "unit": prices.unit if prices is not None else "",
            "quantities": [{"tou": tou, "quantity": Decimal(amount).scaleb(-6)} for tou, amount in sorted(quantities.items())],
        })  # fmt: skip

    def _provide(self, row: int, at: int) -> list[dict[str, Any]]:
        table = self.accounts.table
        account, number = table.keys[row], int(table["through"][row])
        first, end = self.months.of(number)
        month = self._month(account, first)
        known = month["days"].get(str(number), {})
        charged = self._charged(row, number, known)
        correction = charged and not any(told[1] for told in known.values())
        if not known:
            month["days"][str(number)] = {PROVISIONAL: [0, 0, 1, self._average(account, first), 0, 0]}
        table["through"][row] = number + 1
        self.accounts.touch(row)
        late = self._forget(account, row, number, at)
        prices = self._prices(row)
        if prices is None:
            return late
        if charged and month["fixed"] > number and month["walk"]["of"] == self._mark(prices, self.months.part((first, end))):
            return late  # it was charged when it was told of
        kind = "TRUE_UP" if correction else ""
        return late + self.charge(account, month, (first, end), kind, cause=f"day/{account}/{number}", at=at, number=number)

    def _average(self, account: str, first: int) -> dict[str, int]:
        if self.settings.provisional == "none":
            return {}
        before = self.months.of(first - 1)[0]
        days: list[tuple[int, dict[str, int]]] = []
        for begin in (first, before):
            known = self.accounts.get("m", account, begin)
            days += [(int(n), _sum(s).lines) for n, s in (known or {"days": {}})["days"].items() if s and PROVISIONAL not in s]
        newest = [lines for _, lines in sorted(days, key=lambda day: -day[0])[:7]]
        names = sorted({name for lines in newest for name in lines})
        return {name: divide(sum(lines.get(name, 0) for lines in newest), len(newest)) for name in names}

    def _forget(self, account: str, row: int, number: int, at: int) -> list[dict[str, Any]]:
        """At the first day of a month, the month that can no longer be corrected is dropped; what still waits in it is charged."""
        if self.months.of(number)[0] != number:
            return []
        span = self.months.of(self._oldest(row) - 1)
        known, postings = self.accounts.get("m", account, span[0]), list[dict[str, Any]]()
        if known is not None:
            if self._prices(row) is not None and known["fixed"] < span[1]:
                known["fixed"] = span[1]
                postings = self.charge(account, known, span, "TRUE_UP", cause=f"day/{account}/{number}", at=at, number=span[1] - 1)
            self.accounts.table["unsure"][row] -= known["unsure"]
            self._drop(account, known, {**known["days"], **known.get("beside", {})})
            self.accounts.put(None, "m", account, span[0])
        return postings

    def catch_up(self, row: int, cause: str, at: int) -> list[dict[str, Any]]:
        """Charges what waited while emergency credit was in use, once it is paid back: fixed charges, month by month."""
        table = self.accounts.table
        if not self.settings.emergency.pauses_fixed or table["owed"][row] > 0:
            return []
        return [posting for number in self._last_days(row) for posting in self._again(row, number, cause, at)]

    def _last_days(self, row: int) -> list[int]:
        """The last day charged of each month that may still change, oldest first."""
        table = self.accounts.table
        number, oldest, found = int(table["through"][row]) - 1, self._oldest(row), list[int]()
        while number >= max(oldest, int(table["first"][row])):
            found.append(number)
            number = self.months.of(number)[0] - 1
        return found[::-1]

    def _again(self, row: int, number: int, cause: str, at: int) -> list[dict[str, Any]]:
        account, span = self.accounts.table.keys[row], self.months.of(number)
        found = self.accounts.get("m", account, span[0])
        if found is None or self._prices(row) is None:
            return []
        return self.charge(account, found, span, "TRUE_UP", cause=cause, at=at, number=number)

    # --- coming and going -------------------------------------------------------------------------------------------------------------

    def begin(self, row: int) -> None:
        """An account is enrolled, perhaps again: what was known of the time before is settled and forgotten."""
        table = self.accounts.table
        account, entries = table.keys[row], self.accounts.state.entries
        prefixes = (f"m/{account}/", f"u/{account}/", f"v/{account}/")
        for key in [key for key in entries if key.startswith(prefixes)] if table["postings"][row] else []:
            self.accounts.put(None, *key.split("/", 1))
        self.accounts.put(None, "p", account)
        table["unsure"][row], table["begun"][row] = 0, table["debited"][row]
        self.slower(row)

    def ends(self, row: int, last: int, cause: str, at: int) -> list[dict[str, Any]]:
        """Sets the last day of an account; days behind it that are charged already are taken back."""
        table = self.accounts.table
        account, postings = table.keys[row], list[dict[str, Any]]()
        table["last"][row] = last
        self.accounts.touch(row)
        first = self.months.of(last + 1)[0]
        while first <= int(table["seen"][row]) // 86_400 + 1 or first < int(table["through"][row]):
            month, span = self.accounts.get("m", account, first), self.months.of(first)
            if month is not None and self._prices(row) is not None:
                told = {**month["days"], **month.get("beside", {})}
                self._drop(account, month, [number for number in told if int(number) > last])
                month.pop("walk", None)
                month["fixed"] = min(month["fixed"], max(last + 1, span[0]))
                postings += self.charge(account, month, span, "TRUE_UP", cause=cause, at=at, number=max(last, span[0]))
            first = span[1]
        return postings

    # --- prices -----------------------------------------------------------------------------------------------------------------------

    def assign(self, row: int, tariff: str, since: int) -> None:
        """Gives an account another tariff from a local day on; days before it keep theirs."""
        table = self.accounts.table
        account = table.keys[row]
        history = self.accounts.get("p", account) or [[int(table["first"][row]), table.text["tariff"][row]]]
        kept = [entry for entry in history if entry[0] < since]
        self.accounts.put([*kept, [since, tariff]] if kept else None, "p", account)
        table.text["tariff"][row] = tariff
        self.accounts.touch(row)

    def _prices(self, row: int) -> PriceList | None:
        """The prices of an account; None: its tariff is no longer in the topology."""
        table = self.accounts.table
        if f"p/{table.keys[row]}" not in self.accounts.state.entries:  # most accounts have had one tariff only
            return self.prices.get(table.text["tariff"][row])
        history = self.accounts.get("p", table.keys[row])
        if any(name not in self.prices for _, name in history):
            return None
        told = tuple((since, name) for since, name in history)
        if told not in self._joined:
            self._joined[told] = PriceList.joined([(since, self.prices[name]) for since, name in history])
        return self._joined[told]


def _begin(event: dict[str, Any]) -> str:
    return "" if event["grain"] == "day" else str(int(event["start"].timestamp()))


def _amounts(event: dict[str, Any], unit: str) -> Iterator[Any]:
    """Lines, what was received, and the highest demand of an event, in millionths of the tariff's unit and of a kW."""
    told = ((line["tou"], int(line["quantity"] * _MICRO)) for line in event["lines"])
    lines = dict(told) if event["unit"] == unit else {tou: convert(quantity, event["unit"], unit) for tou, quantity in told}
    received = event["direction"] == "received"
    yield {} if received else lines
    yield sum(lines.values()) if received else 0
    demand = event.get("demand")
    yield 0 if demand is None or received else int(demand * _MICRO)


def _sum(sources: dict[str, list[Any]]) -> Day:
    """A day's consumption. The highest powers of several meters are taken as one, span by span: they share the connection."""
    if len(sources) == 1:
        ((_, _, _, lines, received, demand),) = sources.values()
        return Day(lines, received, max(demand, 0))
    day, demands = Day(), dict[str, int]()
    for source, (_, _, _, lines, received, demand) in sources.items():
        for tou, quantity in lines.items():
            day.lines[tou] = day.lines.get(tou, 0) + quantity
        day.received += received
        if demand:
            begin = source.rpartition("/")[2]
            demands[begin] = demands.get(begin, 0) + demand
    day.demand = max(demands.values(), default=0)
    return day


def _doubtful(sources: dict[str, list[Any]]) -> bool:
    return any(known[2] for known in sources.values())


def _packed(tally: Tally) -> list[Any]:
    """Charges are exact and may be larger than numbers of JSON are safe for: they are texts."""
    beside = [tally.paired, tally.beside] if tally.paired or tally.beside else []
    return [tally.last, tally.count, str(tally.energy), str(tally.export), str(tally.consumed), tally.peak, *beside]


def _tally(kept: list[Any]) -> Tally:
    return Tally(kept[0], kept[1], int(kept[2]), int(kept[3]), int(kept[4]), *kept[5:])


@cache
def _about(component: str) -> tuple[str, str]:
    """The kind of posting of a component, and the ledger account on its other side."""
    kind, _, id = component.partition("/")
    return _KINDS[kind], f"{kind}:{id}" if id else f"revenue:{component}"
