"""A year of prepaid accounts under seeded trouble, checked record by record while it passes and recomputed independently at its end.

Used by a test at a small size and by ``python -m benchmarks.prepaid_year`` at a large one.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import orjson

from streams import calendar
from streams.prepaid.fold import PrepaidFold
from streams.prepaid.ledger import chain_hash
from streams.runtime.fold import Message
from tests.prepaid.driver import CODEC, settings
from tests.prepaid.reference import Changes, bill, span_of

TARIFFS: list[dict[str, Any]] = [
    {
        "id": "flat",
        "versions": [
            {"rate": "0.3017", "fixed": "7.77", "minimum": "85", "taxes": [{"id": "vat", "percent": "19"}], "export": "0.0811"},
            {"from": "2024-05-17", "rate": "0.2999", "fixed": "8", "minimum": "85", "export": "0.07"},
        ],
    },
    {
        "id": "slabs",
        "versions": [
            {
                "slabs": [{"up_to": "50", "rate": "0.10"}, {"up_to": "150", "rate": "0.20"}, {"rate": "0.333333"}],
                "adders": {"peak": "0.05", "offpeak": "-0.01"}, "fixed": "3.10", "taxes": [{"id": "duty", "percent": "6.5"}],
                "subsidies": [
                    {"id": "life", "per_unit": "0.02", "up_to": "30", "lapses_above": "260"}, {"id": "relief", "per_month": "2.50"},
                ],
            }
        ],
    },
    {
        "id": "tou",
        "versions": [
            {"rate": "0.20", "rates": {"peak": "0.41", "offpeak": "0.11"}},
            {
                "from": "2024-08-01", "rate": "0.25", "rates": {"peak": "0.43"}, "fixed": "1", "demand": "1.15",
                "subsidies": [{"id": "share", "percent": "7.5", "up_to": "100"}],
            },
        ],
    },
]  # fmt: skip
FIRST = date(2024, 2, 20)  # a leap day is near
ZONES = ("Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe")
CYCLES = (1, 10, 28)
CHANGED: dict[int, Changes] = {
    1: ((date(2024, 6, 20), 3), (date(2024, 11, 1), 20))
}  # cycle days by seed: a month cut to 23 days, one to 17
GRACE, HYSTERESIS, LOW = 86_400, 100, 500
SILENT = (90, 102)  # days on which nothing comes from some meters
PARTS = 6  # intervals of a day that is told piece by piece
BATCH = 40  # messages of a transaction, about
Told = dict[str, int]  # of a day: millionths by TOU period, ``>`` what was received, ``^`` the highest demand
CORRECTED = 100  # days back to which reads are corrected: well within `correctable`


@dataclass
class Life:
    """What really happened on one account."""

    rate: str
    tariff: dict[str, Any]
    usage: dict[date, Told] = field(default_factory=dict)
    sure: dict[date, Told] = field(default_factory=dict)  # what was told as measured, as it was told last
    months: dict[tuple[date, date], int] = field(default_factory=dict)  # what they cost by what is sure
    version: Counter[tuple[date, str]] = field(default_factory=Counter)
    late: list[tuple[date, date]] = field(default_factory=list)  # when told, which day
    spans: list[tuple[date, date]] = field(default_factory=list)  # enrolments that have ended
    since: date | None = None
    meter: int = 1
    paid: int = 0  # top-ups less reversals
    measured: int = 0
    held: bool = False
    again: date | None = None  # when it is enrolled again


class Ledger:
    """Folds what the engine writes, and complains at once of what must not be."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.ids: set[str] = set()
        self.sums: dict[str, int] = defaultdict(int)  # ledger account → credits less debits
        self.charged: dict[tuple[str, str], int] = defaultdict(int)  # account, month → charges
        self.paid: dict[str, int] = defaultdict(int)
        self.other: dict[str, int] = defaultdict(int)
        self.hash: dict[str, str] = defaultdict(str)
        self.zero: dict[str, int] = {}
        self.highest: dict[str, int] = {}  # balance since the last low notice
        self.above: dict[str, int] = {}  # balance since the last notice that it is used up
        self.commands: list[dict[str, Any]] = []

    def posting(self, p: dict[str, Any]) -> None:
        account = p["account"]
        assert p["id"] not in self.ids, f"posting twice: {p}"
        self.ids.add(p["id"])
        self.counts[f"posting {p['kind']}"] += 1
        assert p["amount"] > 0
        self.sums[p["debit"]] -= p["amount"]
        self.sums[p["credit"]] += p["amount"]
        balance = self.sums[f"customer:{account}"]
        assert p["balance"] == balance, p
        assert p["previous"] == self.hash[account]
        self.hash[account] = chain_hash(self.hash[account], p)
        assert self.hash[account] == p["hash"]
        for highest in (self.highest, self.above):
            if account in highest:
                highest[account] = max(highest[account], balance)
        if p["component"]:
            self.charged[account, p["month"]] -= p["change"]
        else:
            self.other[account] += p["change"]
            self.paid[account] += p["change"] if p["kind"] in ("TOPUP", "REVERSAL") else 0

    def notice(self, n: dict[str, Any]) -> None:
        assert n["id"] not in self.ids, f"notice twice: {n}"
        self.ids.add(n["id"])
        self.counts[f"notice {n['kind']}"] += 1
        account = n["account"]
        if n["kind"] == "balance.zero":
            assert n["balance"] <= 0
            assert account not in self.above or self.above[account] > HYSTERESIS, "told twice that it is used up"
            self.zero[account], self.above[account] = int(n["at"].timestamp()), n["balance"]
        if n["kind"] in ("reconnected", "released", "topup.reversed", "enrolled"):  # the grace begins anew, with its notice
            self.above.pop(account, None)
        if n["kind"] == "enrolled":
            self.highest.pop(account, None)
        if n["kind"] == "balance.low" and n["level"] == "low":
            assert n["balance"] <= LOW
            assert account not in self.highest or self.highest[account] > LOW + HYSTERESIS, "a threshold told twice without re-arming"
            self.highest[account] = n["balance"]


class Year:
    """The accounts of one partition and everything that befalls them."""

    def __init__(self, seed: int, accounts: int, days: int, kills: int = 20) -> None:
        self.rng, self.days, self.kills = random.Random(seed), days, kills
        self.zone = ZONES[seed % len(ZONES)]
        self.cycle = CYCLES[seed % len(CYCLES)], CHANGED.get(seed % len(ZONES), ())
        self.settings = settings(
            tariffs=TARIFFS, assign=[{"tariff": t["id"], "rates": [t["id"]]} for t in TARIFFS], correctable=6, hysteresis="1",
            thresholds=[{"id": "low", "amount": "5"}, {"id": "days", "days": 3}],
            cycle_day=self.cycle[0], cycle_changes=[{"from": str(since), "cycle_day": day} for since, day in self.cycle[1]],
            emergency={"limit": "10", "below": "3", "pauses_fixed": True}, recovery={"per_day": "0.35", "share_of_topup": 15},
            disconnection={
                "grace": "1d", "protected": [{"days": ["sat-sun"]}, {"days": ["mon-fri"], "from": "16:00"}], "fee": "2.50",
            },
        )  # fmt: skip
        self.fold = PrepaidFold(self.settings, self.zone, 0)
        self.rows: dict[bytes, bytes | None] = {}
        self.ledger, self.number, self.now = Ledger(), 0, 0
        self.outcome: dict[str, Any] = {}
        self.batch: list[tuple[Message, list[tuple[str, Any]]]] = []  # since the last commit
        self.lives = {f"a{seed}-{n}": Life(t["id"], t) for n in range(accounts) for t in [TARIFFS[n % len(TARIFFS)]]}

    # --- the engine ----------------------------------------------------------------------------------------------------------------

    def give(self, kind: str, body: dict[str, Any]) -> None:
        self.number += 1
        message = Message(kind, body, f"m{self.number}")
        outputs = [(output.type, output.body) for output in self.fold.apply(message).outputs]
        self.batch.append((message, outputs))
        for name, record in outputs:
            self._said(name, record)
        chance = self.rng.random()
        if chance < self.kills / (self.days * 5 * (len(self.lives) + 1)):
            self.kill()
        elif chance > 1 - 1 / BATCH:
            self.commit()

    def _said(self, name: str, record: dict[str, Any]) -> None:
        CODEC.encode(name, record)
        if name == "Posting":
            self.ledger.posting(record)
        elif name == "PrepaidNotice":
            self.ledger.notice(record)
        elif name == "DeviceCommand":
            self._command(record)
        elif name == "PrepaidOutcome":
            self.outcome = record
            self.ledger.counts[f"outcome {record['status']}"] += 1
        elif name == "PrepaidProof":
            assert record["holds"], record["detail"]

    def commit(self) -> None:
        """The transaction of what was folded since the last one."""
        self.rows.update(self.fold.state.take_changed())
        self.batch.clear()

    def kill(self) -> None:
        """Killed before the commit: a new fold from the rows of the state topic, which gets the same messages again and says the same."""
        digest = self.fold.state.digest()
        self.fold = PrepaidFold(self.settings, self.zone, 0)
        self.fold.state.load_all({key: value for key, value in self.rows.items() if value is not None})
        for message, outputs in self.batch:
            again = [(output.type, output.body) for output in self.fold.apply(message).outputs]
            assert again == outputs, (message, again, outputs)
        assert self.fold.state.digest() == digest
        self.ledger.counts["kill"] += 1

    def _command(self, command: dict[str, Any]) -> None:
        account, at = command["reference"], command["issued_at"]
        self.ledger.commands.append(command)
        self.ledger.counts[command["action"]] += 1
        if command["action"] != "disconnect":
            return
        assert self._certain(account, at) < 0, "cut on what is not certain"
        local, life = datetime.fromtimestamp(at, ZoneInfo(self.zone)), self.lives[account]
        assert local.weekday() < 5, local
        assert local.hour < 16, local
        assert self.ledger.sums[f"customer:{account}"] < 0
        assert at >= self.ledger.zero[account] + GRACE, "cut before the grace was over"
        assert at - life.measured <= 172_800, "cut on old reads"
        assert not life.held, "cut on hold"
        assert command["device"] == f"{account}/{life.meter}" or at - self.start(FIRST) < 90_000 or life.late, "a meter long gone"

    def _certain(self, account: str, at: int) -> int:
        """The balance by what was measured alone; fixed charges up to the day before."""
        life = self.lives[account]
        through = datetime.fromtimestamp(at, ZoneInfo(self.zone)).date() - timedelta(days=1)
        charged = 0
        for first, last in [*life.spans, *([(life.since, through)] if life.since is not None else [])]:
            while first <= last:  # month by month: those that are over seldom change
                end = min(last, span_of(first, *self.cycle)[1] - timedelta(days=1))
                if (first, end) not in life.months:
                    life.months[first, end] = sum(self._bill(life, life.sure, first, end).values())
                charged += life.months[first, end]
                first = end + timedelta(days=1)
        return self.ledger.other[account] - charged

    def _bill(self, life: Life, usage: dict[date, Told], first: date, last: date) -> dict[date, int]:
        own = {day: {name: Fraction(part, 1_000_000) for name, part in told.items()} for day, told in usage.items() if first <= day <= last}
        return bill(life.tariff, own, first, last, whole=True, cycle=self.cycle[0], changes=self.cycle[1])

    def start(self, day: date) -> int:
        return int(calendar.start_of(self.zone, (day - date(1970, 1, 1)).days))

    def tick(self, day: date, hour: int) -> None:
        self.now = self.start(day) + hour * 3600
        self.give("Tick", {"at": self.now, "close": False})

    def ask(self, action: str, account: str, id: str = "", terms: dict[str, Any] | None = None, **fields: Any) -> str:
        blank = {"amount": None, "channel": "", "reference": "", "reason": "", "user": "u", "approver": ""}
        body = blank | fields | {"terms": orjson.dumps(terms).decode() if terms else ""}
        self.give("PrepaidRequest", {"id": id or f"r{self.number}", "account": account, "action": action} | body)
        return str(self.outcome["status"])

    def tell(self, account: str, day: date, again: bool = False, unsure: bool = False) -> None:
        """The day's usage as it is known now, by channel; of every twenty-fifth account interval by interval."""
        life = self.lives[account]
        told = life.usage[day]
        if not unsure:  # what was fed in is told after what was used: until then nobody knows of it
            self._sure(life, day, told | ({">": life.sure.get(day, {}).get(">", 0)} if ">" in told else {}))
        lines = {name: part for name, part in told.items() if name not in (">", "^")}
        if int(account.rpartition("-")[2]) % 25 == 4:
            for part in range(PARTS):
                own = {name: _share(quantity, part) for name, quantity in lines.items()}
                self._event(account, day, "1.8.0", "delivered", own, told.get("^"), again, unsure, part)
        else:
            self._event(account, day, "1.8.0", "delivered", lines, told.get("^"), again, unsure)
        if ">" in told:
            if not unsure:
                self._sure(life, day, dict(told))
            self._event(account, day, "2.8.0", "received", {"": told[">"]}, None, again, unsure)

    @staticmethod
    def _sure(life: Life, day: date, told: Told) -> None:
        life.sure[day] = told
        life.months = {span: charged for span, charged in life.months.items() if not span[0] <= day <= span[1]}

    def _event(
        self, account: str, day: date, channel: str, direction: str, lines: Told, demand: int | None, again: bool, unsure: bool,
        part: int | None = None,
    ) -> None:  # fmt: skip
        life, name = self.lives[account], channel if part is None else f"{channel}/{part}"
        life.version[day, name] += not again
        version = life.version[day, name]
        # the meter of a day stays the one it was told of first: versions are of one channel of one device
        device = f"{account}/{self.meter_of(account, day)}"
        start, end = self.start(day), self.start(day + timedelta(days=1))
        if not unsure:
            life.measured = max(life.measured, end if part is None else start + (end - start) // PARTS * (part + 1))
        if part is not None:
            start, end = (start + (end - start) // PARTS * (part + more) for more in (0, 1))
        parts: list[dict[str, Any]] = [{"tou": name, "quantity": _decimal(part)} for name, part in lines.items()]
        body = {
            "id": f"u/{account}/{day}/{name}/{version}", "account": account, "service_point": "sp", "device": device,
            "channel": channel, "direction": direction, "zone": self.zone, "measure": "interval",
            "grain": "day" if part is None else "interval", "day": str(day),
            "start": datetime.fromtimestamp(start, UTC), "end": datetime.fromtimestamp(end, UTC), "unit": "kWh",
            "quantity": sum((part["quantity"] for part in parts), Decimal(0)), "lines": parts, "condition": 500_000, "slots": 96,
            "actual": 96 - unsure, "estimated": int(unsure), "missing": 0, "provisional": unsure, "status": "final", "version": version,
            "replaces": "", "demand": None if demand is None else _decimal(demand), "demand_seconds": 0 if demand is None else 1800,
            "demand_end": None if demand is None else datetime.fromtimestamp(end, UTC),
        }  # fmt: skip
        self.ledger.counts["usage events"] += 1
        self.give("UsageBatch", {"events": [body]})

    def meter_of(self, account: str, day: date) -> int:
        """The second meter hangs from day 150 on, on every fourth account."""
        return 2 if int(account.rpartition("-")[2]) % 4 == 3 and day >= FIRST + timedelta(days=150) else 1

    # --- the world -----------------------------------------------------------------------------------------------------------------

    def run(self) -> Counter[str]:
        """The whole year, then the comparison. Returns what happened, by name. Raises AssertionError."""
        self.tick(FIRST - timedelta(days=1), 12)
        for number in range(self.days):
            day = FIRST + timedelta(days=number)
            self.tick(day + timedelta(days=1), 1)
            for name in self.lives:
                self._day(name, day, number)
            for hour in (9, 13, 17):
                self.tick(day + timedelta(days=1), hour)
                self._replies()
        last = FIRST + timedelta(days=self.days - 1)
        for name, life in self.lives.items():
            for _, day in life.late:
                self.tell(name, day)
            life.late.clear()
            if life.since is not None:
                self._top_up(name, f"end/{name}", 900_000)  # pays emergency credit back, so that nothing waits
        self.tick(last + timedelta(days=1), 23)
        self._compare(last)
        return self.ledger.counts

    def _day(self, name: str, day: date, number: int) -> None:
        life, n = self.lives[name], int(name.rpartition("-")[2])
        life.meter = self.meter_of(name, day)
        begins = (n % 5) * 9  # enrolled on different days of the month
        if number == begins or (life.again is not None and day == life.again):
            terms = {"rate": life.rate, "from": str(day), "opening": 500, "arrears": 700 * (n % 3), "device": f"{name}/{life.meter}"}
            assert self.ask("enrol", name, terms=terms) == "posted", self.outcome
            life.since, life.again = day, None
        if life.since is None:
            if life.spans:
                self._late(name, day)
            return
        self._use(name, day)
        self._late(name, day)
        self._ask(name, day, number)
        if number == 200 and n % 7 in (2, 5):
            self._leave(name, day, "close" if n % 7 == 2 else "postpaid")

    def _use(self, name: str, day: date) -> None:
        life, rng = self.lives[name], self.rng
        life.usage[day] = {tou: rng.randrange(0, 5_000_000) for tou in ("peak", "offpeak", "")}
        if life.rate == "flat":
            life.usage[day][">"] = rng.randrange(0, 3_000_000)
        if life.rate == "tou":
            life.usage[day]["^"] = rng.randrange(500_000, 6_000_000)
        fate = rng.random()
        if int(name.rpartition("-")[2]) % 11 == 6 and SILENT[0] <= (day - FIRST).days < SILENT[1]:
            life.late.append((FIRST + timedelta(days=SILENT[1]), day))  # the head end is away
        elif fate < 0.05:
            life.late.append((day + timedelta(days=rng.randrange(1, 60)), day))
        elif fate < 0.08:  # an estimate first, the measurement later
            self.tell(name, day, unsure=True)
            life.late.append((day + timedelta(days=rng.randrange(1, 9)), day))
        else:
            self.tell(name, day)
            if fate < 0.12:
                self.tell(name, day, again=True)
        if fate > 0.95:
            known = [d for d in life.usage if life.since is not None and max(life.since, day - timedelta(days=CORRECTED)) <= d]
            earlier = rng.choice(known)
            if not any(d == earlier for _, d in life.late):
                # more than was taken may come back: a register that ran backwards
                life.usage[earlier]["peak"] = rng.randrange(-2_000_000, 9_000_000)
                self.tell(name, earlier)

    def _late(self, name: str, day: date) -> None:
        life = self.lives[name]
        for entry in [entry for entry in life.late if entry[0] <= day]:
            life.late.remove(entry)
            self.tell(name, entry[1])

    def _top_up(self, name: str, id: str, amount: int) -> None:
        if self.ask("topup", name, id, amount=amount, reference=f"bank/{id}", channel="web") == "posted":
            self.lives[name].paid += amount

    def _ask(self, name: str, day: date, number: int) -> None:
        life, rng = self.lives[name], self.rng
        if rng.random() < 0.09:
            id, amount = f"top/{name}/{day}", rng.randrange(100, 6000)
            self._top_up(name, id, amount)
            if rng.random() < 0.2:
                assert self.ask("topup", name, id, amount=amount, reference=f"bank/{id}", channel="web") == "duplicate"
                assert self.ask("topup", name, id, amount=1) == "conflict"
            if rng.random() < 0.1:
                assert self.ask("reversal", name, reference=f"bank/{id}") == "posted"
                life.paid -= amount
        if rng.random() < 0.02:
            self.ask("emergency", name)
        if rng.random() < 0.004:
            self.ask("debt", name, amount=rng.randrange(100, 2000), channel=f"debt{number % 3}")
        if rng.random() < 0.004 and not life.held:
            life.held = self.ask("hold", name, reason="dispute") == "done"
        elif life.held and rng.random() < 0.2:
            life.held = self.ask("release", name) != "done"
        if number == 300:  # long final: refused, and nothing changes
            old = next((d for d in life.usage if d >= (life.since or d)), day)
            if (day - old).days > 230:
                self._event(name, old, "1.8.0", "delivered", {"": 77_000_000}, None, False, False)
                assert self.outcome["status"] == "refused"

    def _leave(self, name: str, day: date, how: str) -> None:
        life = self.lives[name]
        assert life.since is not None
        if how == "close":
            self.ask("close", name, terms={"day": str(day)})
        else:  # asked on the next local day: charged through this one
            self.ask("postpaid", name)
        life.spans.append((life.since, day))
        life.since, life.held = None, False
        life.again = day + timedelta(days=75)

    def _replies(self) -> None:
        """The head end answers, loses, repeats and delays."""
        waiting, self.ledger.commands = self.ledger.commands, []
        for command in waiting:
            fate = self.rng.random()
            if fate < 0.2:
                self.ledger.commands.append(command)
            elif fate < 0.9:
                status = "done" if self.rng.random() < 0.9 else "failed"
                for _ in range(1 + (self.rng.random() < 0.2)):
                    said = {"command": command["id"], "device": command["device"], "status": status, "at": self.now}
                    self.give("DeviceReply", said | {"code": "", "detail": ""})

    def _compare(self, last: date) -> None:
        table = self.fold.accounts.table
        assert sum(self.ledger.sums.values()) == 0
        for name, life in self.lives.items():
            expected: dict[str, int] = defaultdict(int)
            for first, end in [*life.spans, *([(life.since, last)] if life.since is not None else [])]:
                for month, amount in self._bill(life, life.usage, first, end).items():
                    expected[str(month)] += amount
            found = {month: amount for (account, month), amount in self.ledger.charged.items() if account == name and amount}
            assert found == {month: amount for month, amount in expected.items() if amount}, (name, found, dict(expected))
            row = table.index[name]
            assert int(table["balance"][row]) == self.ledger.other[name] - sum(expected.values())
            assert self.ledger.paid[name] == life.paid
            for kind, column, sign in (("customer", "balance", 1), ("debt", "debt", -1), ("emergency", "owed", -1)):
                assert int(table[column][row]) == sign * self.ledger.sums[f"{kind}:{name}"]
            if life.since is None:
                assert int(table["balance"][row]) == int(table["debt"][row]) == int(table["owed"][row]) == 0
            assert int(table["unsure"][row]) == 0
        proof = self.fold.ledger.proof(0, self.now)
        assert proof["holds"], proof["detail"]


def _decimal(part: int) -> Decimal:
    return Decimal(part).scaleb(-6)


def _share(quantity: int, part: int) -> int:
    """The part of a day's quantity that falls into one of its intervals; all of them add up to it."""
    return quantity * (part + 1) // PARTS - quantity * part // PARTS
