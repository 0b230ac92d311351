"""Months of lost, late, repeated and corrected usage, payments, reversals, tariff changes and restarts: the books must be right."""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import date, datetime, timedelta
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.prepaid.driver import Driver, second, settings
from tests.prepaid.reference import bill
from tests.prepaid.year import Year

TARIFFS: list[dict[str, Any]] = [
    {
        "id": "flat",
        "versions": [
            {"rate": "0.3017", "fixed": "7.77", "taxes": [{"id": "vat", "percent": "19"}]},
            {"from": "2026-05-17", "rate": "0.2999"},
        ],
    },
    {
        "id": "slabs",
        "versions": [
            {
                "slabs": [{"up_to": "50", "rate": "0.10"}, {"up_to": "150", "rate": "0.20"}, {"rate": "0.333333"}],
                "adders": {"peak": "0.05", "offpeak": "-0.01"}, "fixed": "3.10", "taxes": [{"id": "duty", "percent": "6.5"}],
                "subsidies": [{"id": "life", "per_unit": "0.02", "up_to": "30", "lapses_above": "180"}],
            }
        ],
    },
    {
        "id": "tou",
        "versions": [
            {"rate": "0.20", "rates": {"peak": "0.41", "offpeak": "0.11"}},
            {"from": "2026-05-01", "rate": "0.25", "fixed": "1"},
        ],
    },
]  # fmt: skip
FIRST = date(2026, 3, 2)


class World:
    """Accounts, what they used, and an engine that hears of it late, twice, or never at first."""

    def __init__(self, seed: int, accounts: int, days: int) -> None:
        self.rng, self.days = random.Random(seed), days
        rules = {"grace": "1d", "protected": [{"days": ["sat-sun"]}, {"days": ["mon-fri"], "from": "16:00"}], "fee": "2.50"}
        self.driver = Driver(
            settings(
                tariffs=TARIFFS, disconnection=rules, thresholds=[{"id": "low", "amount": "5"}, {"id": "days", "days": 3}], hysteresis="1",
                assign=[{"tariff": t["id"], "rates": [t["id"]]} for t in TARIFFS], correctable=24,
            ),
            at="2026-03-01T12:00",
        )  # fmt: skip
        self.rate = {f"a{n}": TARIFFS[n % len(TARIFFS)] for n in range(accounts)}
        self.usage: dict[str, dict[date, dict[str, Fraction]]] = {name: {} for name in self.rate}
        self.version: dict[tuple[str, date], int] = defaultdict(int)
        self.late: list[tuple[date, str, date]] = []
        for name, tariff in self.rate.items():
            assert self.driver.ask("enrol", name, terms={"rate": tariff["id"]})["status"] == "done"

    def run(self) -> None:
        for number in range(self.days):
            day = FIRST + timedelta(days=number)
            self.driver.tick(second(f"{day + timedelta(days=1)}T01:00"))
            for name in self.rate:
                self._account(name, day)
            for entry in [entry for entry in self.late if entry[0] <= day]:
                self.late.remove(entry)
                self.tell(entry[1], entry[2])
            for hour in (9, 13, 17):
                self.driver.tick(second(f"{day + timedelta(days=1)}T{hour:02}:00"))
                self._replies()
            if self.rng.random() < 0.05:
                self.driver.restart()
        for _, name, day in self.late:
            self.tell(name, day)
        self.driver.tick(second(f"{FIRST + timedelta(days=self.days)}T20:00"))

    def _account(self, name: str, day: date) -> None:
        rng = self.rng
        self.usage[name][day] = {tou: Fraction(rng.randrange(0, 9_000_000), 1_000_000) for tou in ("peak", "offpeak", "")}
        fate = rng.random()
        if fate < 0.06:
            self.late.append((day + timedelta(days=rng.randrange(1, 60)), name, day))
        else:
            self.tell(name, day)
            if fate < 0.12:
                self.tell(name, day, again=True)
            if fate > 0.9:
                earlier = rng.choice(sorted(self.usage[name]))
                self.usage[name][earlier]["peak"] = Fraction(rng.randrange(0, 9_000_000), 1_000_000)
                self.tell(name, earlier)
        if rng.random() < 0.1:
            self.driver.ask("topup", name, id=f"top/{name}/{day}", amount=rng.randrange(100, 6000), reference=f"bank/{name}/{day}")
            if rng.random() < 0.1:
                self.driver.ask("topup", name, id=f"top/{name}/{day}", amount=1)
                self.driver.ask("reversal", name, reference=f"bank/{name}/{day}")

    def tell(self, name: str, day: date, again: bool = False) -> None:
        self.version[name, day] += not again
        lines = {tou: f"{float(part):.6f}" for tou, part in self.usage[name][day].items()}
        total = sum(self.usage[name][day].values())
        self.driver.use(str(day), f"{float(total):.6f}", name, version=self.version[name, day], tou=lines)

    def _replies(self) -> None:
        """The head end answers, loses, repeats and delays."""
        for command in list(self.driver.last.get("DeviceCommand", [])) or self.driver.said["DeviceCommand"][-3:]:
            if self.rng.random() < 0.7:
                for _ in range(1 + (self.rng.random() < 0.2)):
                    self.driver.reply("done" if self.rng.random() < 0.9 else "failed", command=command["id"])


@pytest.mark.parametrize("seed", [1, 2])
def test_after_months_of_trouble_every_balance_is_what_an_independent_calculation_says(seed: int) -> None:
    world = World(seed, accounts=6, days=100)
    world.run()
    driver = world.driver
    driver.check()
    through = FIRST + timedelta(days=world.days - 1)
    for name, tariff in world.rate.items():
        own = [posting for posting in driver.said["Posting"] if posting["account"] == name]
        charged: dict[date, int] = defaultdict(int)
        for posting in own:
            if posting["component"]:
                charged[date.fromisoformat(posting["month"])] -= posting["change"]
        expected = bill(tariff, world.usage[name], FIRST, through)
        assert dict(charged) == expected, name
        other = sum(posting["change"] for posting in own if not posting["component"])
        assert driver.account(name)["balance"] == other - sum(expected.values())
    assert {"TRUE_UP", "TOPUP", "REVERSAL", "FEE"} <= set(driver.kinds())


def test_nobody_is_cut_outside_the_rules() -> None:
    world = World(7, accounts=6, days=60)
    world.run()
    cuts = 0
    balance: dict[str, int] = {}
    grace: dict[str, int] = {}
    for kind, record in world.driver.log:
        if kind == "Posting":
            balance[record["account"]] = record["balance"]
        elif kind == "PrepaidNotice" and record["kind"] == "balance.zero":
            grace[record["account"]] = int(record["at"].timestamp()) + 86_400
        elif kind == "DeviceCommand" and record["action"] == "disconnect":
            cuts += 1
            local = datetime.fromtimestamp(record["issued_at"], ZoneInfo(world.driver.zone))
            assert local.weekday() < 5, local
            assert local.hour < 16, local
            assert balance[record["reference"]] < 0
            assert record["issued_at"] >= grace[record["reference"]]
    assert cuts > 3


@pytest.mark.parametrize("seed", range(4))
def test_a_year_of_everything_is_right_to_the_cent(seed: int) -> None:
    """Four zones; the same at any size is ``python -m benchmarks.prepaid_year``."""
    counts = Year(seed, accounts=7, days=366).run()
    assert counts["kill"] > 3
    kinds = ("TRUE_UP", "MINIMUM", "DEMAND", "SUBSIDY", "EXPORT", "EMERGENCY_REPAY", "REVERSAL", "FEE", "MIGRATION_CLOSING")
    assert all(counts[f"posting {kind}"] for kind in kinds), counts
    assert counts["disconnect"] > 5
    assert counts["notice balance.low"] > 5


@given(st.data())
@hypothesis_settings(max_examples=25, deadline=None)
def test_events_of_a_batch_count_as_if_each_came_alone(data: st.DataObject) -> None:
    of = settings(
        tariffs=TARIFFS, assign=[{"tariff": t["id"], "rates": [t["id"]]} for t in TARIFFS], thresholds=[{"id": "low", "amount": "5"}],
        disconnection={"grace": "0s", "max_read_age": "60d"},
    )  # fmt: skip
    alone, gathered = Driver(of), Driver(of)
    for driver in (alone, gathered):
        for number, tariff in enumerate(TARIFFS):
            driver.ask("enrol", f"a{number}", terms={"rate": tariff["id"], "from": "2026-03-02"})
            driver.ask("topup", f"a{number}", amount=2000, reference=f"r{number}")
    told = st.tuples(st.integers(0, len(TARIFFS)), st.integers(0, 40), st.integers(1, 3), st.integers(0, 60_000_000), st.booleans())
    for _ in range(data.draw(st.integers(1, 4))):
        events = [
            alone.event(
                str(FIRST + timedelta(days=day)), "0", f"a{account}", version=version, provisional=unsure,
                tou={"peak": f"{micros / 10**6:.6f}", "": "1.000001"},
            )
            for account, day, version, micros, unsure in data.draw(st.lists(told, max_size=12))
        ]  # fmt: skip
        for event in events:
            alone.give("UsageBatch", {"events": [event]})
        size = data.draw(st.integers(1, 12))
        for first in range(0, len(events), size):
            gathered.give("UsageBatch", {"events": events[first : first + size]})
        later = data.draw(st.integers(1, 20)) * 86_400
        alone.tick(alone.now + later)
        gathered.tick(gathered.now + later)
    assert gathered.log == alone.log
    assert gathered.fold.state.digest() == alone.fold.state.digest()
    gathered.check()


def test_a_batch_that_waits_for_the_books_is_taken_in_whole_when_they_hold_again() -> None:
    driver = Driver(settings(), at="2026-03-01T12:00")
    for name in ("a1", "a2"):
        driver.ask("enrol", name, terms={"from": "2026-03-02"})
    accounts = driver.fold.accounts
    accounts.table["balance"][0] += 5
    driver.tick("2026-03-04T12:00")
    assert not driver.said["PrepaidProof"][-1]["holds"]
    driver.give("UsageBatch", {"events": [driver.event("2026-03-03", "3.5", name) for name in ("a1", "a2")]})
    assert not driver.said["Posting"]
    accounts.table["balance"][0] -= 5
    driver.ask("resume", "a1")
    assert [(posting["account"], posting["amount"]) for posting in driver.said["Posting"]] == [("a1", 105), ("a2", 105)]
