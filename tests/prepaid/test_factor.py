"""The power factor of a month: surcharges, rebates, kVA and kvarh, in whatever order energy and reactive energy become known."""

from __future__ import annotations

import csv
import io
from datetime import date
from decimal import Decimal, localcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from connectors.clickhouse import rows
from schemas.topology.prepaid import Tariff
from tests.prepaid.driver import Driver, settings
from tests.prepaid.hub import finals_of, running, text_of
from tests.store.conftest import days

FACTOR: dict[str, Any] = {
    "steps": [
        {"below": "0.90", "percent": "1"},
        {"below": "0.85", "percent": "1.5"},
        {"above": "0.95", "percent": "-0.5"},
    ],
    "demand_at": "0.90", "free": "0.33", "rate": "0.0213",
}  # fmt: skip
VERSION: dict[str, Any] = {"rate": "0.20", "demand": "4.00", "taxes": [{"id": "vat", "percent": "20"}], "power_factor": FACTOR}


def driver(version: dict[str, Any] = VERSION) -> Driver:
    told = Driver(settings(tariffs=[{"id": "home", "versions": [version]}]))
    told.ask("enrol", terms={"from": "2026-03-02", "opening": 100_000})
    return told


def reactive(to: Driver, day: str, quantity: str, version: int = 1, **about: Any) -> None:
    about = {"channel": "3.8.0", "unit": "kvarh", "id": f"q/{day}/{version}/{quantity}"} | about
    to.use(day, quantity, version=version, **about)


def charges(to: Driver) -> dict[str, int]:
    """What was charged by component."""
    found: dict[str, int] = {}
    for posting in to.said["Posting"]:
        if posting["component"]:
            found[posting["component"]] = found.get(posting["component"], 0) - posting["change"]
    return {name: amount for name, amount in found.items() if amount}


def worked_out(days: list[tuple[str, str | None, str]]) -> dict[str, int]:
    """The same in fractions, with a root of fifty digits, from the words of the tariff. ``days``: kWh, kvarh if told, kW."""
    energy = sum(Fraction(kwh) for kwh, _, _ in days) * Fraction("0.20")
    demand = max((Fraction(kw) for _, _, kw in days), default=Fraction(0)) * 4
    parts = {"energy": energy}
    p = sum(Fraction(kwh) for kwh, kvarh, _ in days if kvarh is not None)
    q = sum(Fraction(kvarh) for _, kvarh, _ in days if kvarh is not None)
    if p or q:
        with localcontext(prec=50):
            square = (Decimal(p.numerator) / p.denominator) ** 2 + (Decimal(q.numerator) / q.denominator) ** 2
            exact = Decimal(p.numerator) / p.denominator / square.sqrt() if p else Decimal(1)
            factor = max(1, int(Decimal(round(exact * 10**6)).scaleb(-4).to_integral_value()))
        demand = demand * 90 / factor if factor < 90 else demand
        percent = max(0, 90 - factor) * Fraction(1) + max(0, 85 - factor) * Fraction("1.5") - max(0, factor - 95) * Fraction("0.5")
        parts |= {
            "power-factor": (energy + demand) * percent / 100,
            "reactive": max(Fraction(0), q - p * Fraction("0.33")) * Fraction("0.0213"),
        }
    parts["demand"] = demand
    parts["tax/vat"] = sum(parts.values()) * Fraction("0.2")
    return {name: round(amount * 100) for name, amount in parts.items() if round(amount * 100)}


def test_a_low_factor_costs_a_percentage_by_the_hundredth_kva_and_kvarh() -> None:
    to = driver()
    to.use("2026-03-02", "80", demand=Decimal(10))
    assert charges(to) == {"energy": 1600, "demand": 4000, "tax/vat": 1120}
    reactive(to, "2026-03-02", "60")  # 80 / 100 = 0.80
    expected = {
        "energy": 1600, "demand": 4500,  # 10 kW · 0.90 / 0.80
        "power-factor": 1068,  # 10 · 1 % and 5 · 1.5 % of 61.00
        "reactive": 72,  # (60 − 26.4) · 0.0213
        "tax/vat": 1448,
    }  # fmt: skip
    assert charges(to) == expected == worked_out([("80", "60", "10")])
    assert {posting["kind"] for posting in to.last["Posting"]} == {"DEMAND", "POWER_FACTOR", "REACTIVE", "TAX"}
    reactive(to, "2026-03-02", "0", version=2)
    assert {posting["kind"] for posting in to.last["Posting"]} == {"TRUE_UP"}
    assert charges(to) == worked_out([("80", "0", "10")])
    assert charges(to)["power-factor"] == -140  # five hundredths above 0.95
    to.check()


def test_metered_kvah() -> None:
    to = driver({"rate": "0.20", "power_factor": {"by": "kVAh", "steps": [{"below": "0.9", "percent": "2"}]}})
    reactive(to, "2026-03-02", "100", unit="kVAh", channel="9.8.0")  # before the energy
    reactive(to, "2026-03-02", "500", id="other")  # kvarh are not asked for
    assert charges(to) == {}
    to.use("2026-03-02", "85")
    assert charges(to) == {"energy": 1700, "power-factor": 170}
    to.check()


def test_reactive_energy_of_a_day_alone_does_not_hide_that_its_consumption_is_missing() -> None:
    to = driver()
    to.use("2026-03-02", "10")
    reactive(to, "2026-03-03", "9")
    assert to.account()["provisional"] == 0
    to.tick("2026-03-04T13:00")
    assert to.account()["provisional"] > 0
    to.use("2026-03-03", "12", version=2)
    assert charges(to) == worked_out([("10", None, "0"), ("12", "9", "0")])
    to.check()


def test_what_is_received_and_other_units_change_nothing() -> None:
    to = driver()
    to.use("2026-03-02", "10")
    before = len(to.said["Posting"])
    reactive(to, "2026-03-02", "9", direction="received")
    reactive(to, "2026-03-02", "9", unit="m3", id="gas")
    assert len(to.said["Posting"]) == before


def test_the_surcharge_holds_from_its_date() -> None:
    plain = {name: value for name, value in VERSION.items() if name != "power_factor"}
    to = Driver(settings(tariffs=[{"id": "home", "versions": [plain, {"from": "2026-04-01", **VERSION}]}]))
    to.ask("enrol", terms={"from": "2026-03-30", "opening": 100_000})
    for day in ("2026-03-30", "2026-04-01"):
        to.use(day, "80")
        reactive(to, day, "60")
    assert {posting["month"] for posting in to.said["Posting"] if posting["component"] == "power-factor"} == {"2026-04-01"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"power_factor": {"free": "0.3"}}, "what the power factor does"),
        ({"power_factor": {"by": "kVAh", "rate": "0.01"}}, "by: kvarh"),
        ({"power_factor": {"steps": [{"below": "0.9", "above": "0.95", "percent": "1"}]}}, "either below or above"),
        ({"power_factor": {"steps": [{"below": "0.905", "percent": "1"}]}}, "in hundredths"),
    ],
)
def test_a_wrong_tariff_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Tariff.model_validate({"id": "t", "versions": [{"rate": "1"} | change]})


quantities = st.decimals(0, 300, places=3).map(str)


@hypothesis_settings(max_examples=40, deadline=None)
@given(
    days=st.lists(st.tuples(quantities, st.none() | quantities, quantities), min_size=1, max_size=6),
    order=st.randoms(use_true_random=False),
)
def test_charges_are_those_of_the_whole_month_in_any_order(days: list[tuple[str, str | None, str]], order: Any) -> None:
    to = driver()
    events: list[tuple[str, str, str, str]] = []
    for number, (kwh, kvarh, kw) in enumerate(days):
        day = f"2026-03-{number + 2:02d}"
        events.append(("energy", day, kwh, kw))
        if kvarh is not None:
            events.append(("reactive", day, kvarh, ""))
    order.shuffle(events)
    for kind, day, quantity, kw in events:
        if kind == "energy":
            to.use(day, quantity, demand=Decimal(kw))
        else:
            reactive(to, day, quantity)
        if order.random() < 0.2:
            to.restart()
    assert charges(to) == worked_out(days)
    to.check()


def test_what_if_and_statement_tell_the_power_factor(tmp_path: Path) -> None:
    """The store has what the engine was told, so a trial of the account's own tariff comes to its postings."""
    day = "2026-03-02"
    kwh, kvarh = [10_000_000] * 8 + [0] * 16, 60_000_000
    with running(tmp_path, tariffs=[{"id": "home", "versions": [VERSION]}]) as hub:
        hub.enrol("a1", first_day=day)
        hub.store.insert_arrow("final_days", rows.final_days([finals_of("a1", day, kwh)]))
        number = (date.fromisoformat(day) - date(1970, 1, 1)).days
        stored = [("1.8.0", "kWh", sum(kwh)), ("3.8.0", "kvarh", kvarh)]
        about = {"device": "d1", "account": "a1", "day": number, "tou": [0]}
        found = [about | {"channel": channel, "unit": unit, "quantities": [amount]} for channel, unit, amount in stored]
        hub.store.insert_arrow("determinant_days", rows.determinant_days([days([one], [""]) for one in found]))
        with hub.engine as to:
            to.use(day, "80", demand=Decimal(10))
            reactive(to, day, "60")
        expected = {name: f"{Decimal(amount).scaleb(-2)}" for name, amount in worked_out([("80", "60", "10")]).items()}
        asked = {"tariff": {"id": "plain", "versions": [{"rate": "0.20"}]}, "first": day, "last": day}
        answer = hub.client.post("/v1/prepaid/accounts/a1/try", json=asked).json()
        (month,) = answer["months"]
        assert month["own"]["charges"] == expected
        assert month["asked"]["charges"] == {"energy": "16.00"}
        asked["tariff"] = {"id": "factor", "versions": [{"rate": "0.20", "power_factor": {"free": "0.5", "rate": "0.10"}}]}
        (month,) = hub.client.post("/v1/prepaid/accounts/a1/try", json=asked).json()["months"]
        assert month["asked"]["charges"] == {"energy": "16.00", "reactive": "2.00"}

        path, span = "/v1/prepaid/accounts/a1/statement", {"from": "2026-01-01", "to": "2026-12-31"}
        lines = list(csv.DictReader(io.StringIO(hub.client.get(path, params=span).content.decode("utf-8-sig"))))
        assert {line["component"] for line in lines if line["kind"] == "POWER_FACTOR"} == {"power-factor"}
        sums = {name: -sum(Decimal(line["amount"]) for line in lines if line["component"] == name) for name in expected}
        assert {name: f"{amount:f}" for name, amount in sums.items()} == expected
        pdf = text_of(hub.client.get(path, params={**span, "format": "pdf", "language": "de"}).content)
        for word in ("Leistungsfaktor", expected["power-factor"], expected["reactive"]):
            assert word in pdf, word
