"""Corrections of what was sent: materiality, cut-offs and their dates, bills. Of single channels and of usage alike."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from schemas.conditions import EST_LIKE_DAY, REGULAR
from schemas.topology.corrections import Corrections
from schemas.topology.tou import DeterminantsSettings
from streams.determinants.usage.billed import subject_of
from streams.determinants.usage.transactions import changes
from tests.determinants.kit import Hub, Row, day_number
from tests.determinants.test_usage import FIRST, amounts, month, sent, settings, terms

WATT: dict[str, Any] = {"thresholds": [{"units": ["kWh"], "absolute": 0.01}, {"absolute": 0}]}
WHOLE = "interval-consumption"


def told(hub: Hub, kind: str = WHOLE) -> list[tuple[int, Decimal | int]]:
    return [(body["version"], body["quantity"]) for body in hub.sent if body["kind"] == kind]


def billed(hub: Hub, body: dict[str, Any], bill: str = "B-1", version: int | None = None) -> None:
    begin = int(body["period_start"].timestamp())
    hub.send(
        "UsedOnBill",
        {
            "id": f"u/{bill}", "account": "a1", "usage": "", "subject": subject_of(body, begin), "version": version or body["version"],
            "bill": bill, "user": "", "device": body["device"], "channel": body["channel"], "unit": body["unit"], "start": begin,
        },
    )  # fmt: skip


def sent_month(hub: Hub, **more: Any) -> Hub:
    hub.give(*month(**more))
    hub.tick("2026-04-01T03:00:00")
    return hub


def corrected(hub: Hub, value: int, version: int, before: int = 250_000, **more: Any) -> None:
    """Another value for the first interval of the month, which has left VEE's memory: what it replaces comes with it."""
    rest = [250_000] * 95
    hub.give(Row(FIRST, [value, *rest], version=version, replaces=version - 1, before=[before, *rest], **more))
    hub.tick(f"2026-04-02T{version:02d}:00:00")


# --- single channels ---------------------------------------------------------------------------------------------------------------


def test_noise_of_a_channel_is_kept_back_until_it_adds_up() -> None:
    hub = sent_month(Hub(terms(WATT)))
    corrected(hub, 254_000, 2)
    corrected(hub, 258_000, 3, 254_000)
    assert told(hub) == [(1, 743)]
    hub.restart()
    corrected(hub, 262_000, 4, 258_000)
    assert told(hub) == [(1, 743), (2, Decimal("743.012"))]
    assert {body["reason"] for body in hub.sent if body["version"] == 2} == {"late or corrected reads"}
    corrected(hub, 250_000, 5, 262_000)
    assert told(hub)[-1] == (3, 743)


def test_a_percentage_is_of_what_was_sent() -> None:
    hub = sent_month(Hub(terms({"thresholds": [{"percent": 1}]})))
    assert next(body["quantity"] for body in hub.sent if body["tou"] == "offpeak") == 413
    corrected(hub, 4_250_000, 2)
    assert len(told(hub)) == 1
    corrected(hub, 4_750_000, 3, 4_250_000)  # more than a hundredth of the off-peak line, less of the whole
    assert told(hub)[-1] == (2, Decimal("747.5"))


def test_a_register_has_thresholds_too() -> None:
    hub = Hub(terms(WATT))
    at = [int(body) for body in (1_772_319_600, 1_774_000_000)]
    reads: dict[str, Any] = {"seconds": 0, "times": at, "dials": 6, "channel": "1.8.0"}
    hub.give(Row(0, [0, 500_000_000], **reads))
    hub.tick("2026-04-01T03:00:00")
    for version, value in enumerate((500_005_000, 500_009_000, 500_011_000), 2):
        hub.give(Row(0, [0, value], version=version, replaces=version - 1, **reads))
        hub.restart()
        hub.tick(f"2026-04-01T0{version + 2}:00:00")
    assert told(hub, "scalar-consumption") == [(1, 500), (2, Decimal("500.011"))]
    assert told(hub, "scalar-reading") == [(1, 0), (1, 500), (2, Decimal("500.011"))]  # that of midnight ends February


def test_quality_alone_is_told_while_nothing_is_billed() -> None:
    hub = sent_month(Hub(terms(WATT)))
    codes = [EST_LIKE_DAY] + [REGULAR] * 95
    corrected(hub, 250_000, 2, conditions=codes)
    assert told(hub)[-1] == (2, 743)
    billed(hub, next(body for body in hub.sent if body["version"] == 2 and body["kind"] == WHOLE))
    corrected(hub, 250_000, 3, before_conditions=codes)
    assert told(hub)[-1] == (2, 743)  # not a reason to bill again
    corrected(hub, 350_000, 4)
    last = [body for body in hub.sent if body["version"] == 3]
    assert {(body["kind"], body["correction"]) for body in last} == {
        (WHOLE, "subsequent-correction"), ("tou-interval-consumption", "replacement"),
    }  # fmt: skip
    assert next(body for body in last if body["kind"] == WHOLE)["reason"] == "after bill B-1, which has version 2: late or corrected reads"


def test_a_bill_that_crossed_a_replacement_is_corrected() -> None:
    hub = sent_month(Hub())
    corrected(hub, 900_000, 2)
    first = next(body for body in hub.sent if body["kind"] == WHOLE)
    hub.restart()
    billed(hub, first)
    hub.tick("2026-04-02T09:00:00")
    last = hub.sent[-4:]
    assert [(body["version"], body["correction"]) for body in last] == [(3, "subsequent-correction"), *[(3, "replacement")] * 3]
    assert last[0]["quantity"] == Decimal("743.65")
    hub.tick("2026-04-02T10:00:00")
    assert len(hub.sent) == 12


@pytest.mark.parametrize("scalar", [False, True])
def test_behind_the_cut_off_a_channel_is_not_corrected_and_people_are_told(scalar: bool) -> None:
    hub = Hub(terms({"cut_off_months": 3}))
    reads: dict[str, Any] = {"seconds": 0, "times": [1_772_319_600, 1_774_000_000], "dials": 6, "channel": "1.8.0"}
    rows = [Row(0, [0, 500_000_000], **reads)] if scalar else month()
    hub.give(*rows)
    hub.tick("2026-04-01T03:00:00")
    hub.tick("2026-07-02T03:00:00")
    count = len(hub.sent)
    fresh = (
        Row(0, [0, 600_000_000], version=2, replaces=1, **reads)
        if scalar
        else Row(FIRST, [900_000, *[250_000] * 95], version=2, replaces=1, before=[250_000] * 96)
    )
    hub.give(fresh)
    hub.tick("2026-07-02T04:00:00")
    assert len(hub.sent) == count
    [refused] = hub.exceptions
    assert (refused["rule"], refused["severity"], refused["status"]) == ("settlement-cut-off", "issue", "open")
    assert ("600.000000 kWh" if scalar else "743.000000 → 743.650000 kWh") in refused["detail"]


def test_a_load_of_old_data_may_be_put_right_for_as_long_as_new_ones() -> None:
    """The cut-off runs from the first sending of what came late."""
    hub = Hub(terms({"cut_off_months": 3}), usage=settings())
    hub.tick("2027-06-01T00:00:00")
    hub.give(*month())
    hub.tick("2027-06-01T01:00:00")
    hub.give(Row(FIRST, [900_000, *[250_000] * 95], version=2, replaces=1, before=[250_000] * 96))
    hub.tick("2027-08-01T00:00:00")
    assert told(hub)[-1] == (2, Decimal("743.65"))
    assert amounts(sent(hub)[-1])["energy"] == Decimal("743.65")
    hub.give(Row(FIRST, [800_000, *[250_000] * 95], version=3, replaces=2, before=[900_000, *[250_000] * 95]))
    hub.tick("2027-09-02T00:00:00")
    assert told(hub)[-1] == (2, Decimal("743.65"))
    assert amounts(sent(hub)[-1])["energy"] == Decimal("743.65")


def test_a_correction_of_a_period_that_is_no_longer_kept_is_told() -> None:
    hub = Hub(terms({"cut_off_months": 36}))
    for number in range(16):
        hub.give(*[Row(FIRST + 31 * number, [250_000] * 96)])
    hub.close()
    hub.give(Row(FIRST, [900_000] * 96, version=2, replaces=1, before=[250_000] * 96))
    [refused] = hub.exceptions
    assert refused["detail"].endswith("2026-03-01 was corrected, what was summed of it is no longer known")
    assert hub.figures["late"] == 1


# --- by date -------------------------------------------------------------------------------------------------------------------------


def test_a_period_has_the_terms_of_its_first_day() -> None:
    """March is corrected from 1 kWh on, April from 0.01; the cut-offs are one month and six."""
    old, new = {"thresholds": [{"absolute": 1}], "cut_off_months": 1}, {"from": "2026-04-01", **WATT, "cut_off_months": 6}
    hub = Hub(terms(old, new), usage=settings())
    april = day_number("2026-04-01")
    hub.give(*month(), *month(first=april, days=30))
    hub.tick("2026-05-01T03:00:00")
    for day in (FIRST, april):
        hub.give(Row(day, [750_000, *[250_000] * 95], version=2, replaces=1, before=[250_000] * 96))
    hub.tick("2026-05-01T04:00:00")
    assert told(hub) == [(1, 743), (1, 720), (2, Decimal("720.5"))]
    assert [amounts(body)["energy"] for body in sent(hub)] == [743, 720, Decimal("720.5")]
    hub.tick("2026-07-02T00:00:00")
    for day in (FIRST, april):
        hub.give(Row(day, [9_250_000, *[250_000] * 95], version=3, replaces=2, before=[750_000, *[250_000] * 95]))
    hub.tick("2026-07-02T04:00:00")
    assert told(hub)[-1] == (3, 729)
    assert len(told(hub)) == 4
    assert [amounts(body)["energy"] for body in sent(hub)][3:] == [729]
    assert {e["rule"] for e in hub.exceptions} == {"settlement-cut-off"}
    assert len({e["id"] for e in hub.exceptions}) == 2  # of the channel and of its subscription


def test_versions_of_terms_are_in_order() -> None:
    wrong: list[list[dict[str, str]]] = [[{}, {}], [{"from": "2026-02-01"}, {"from": "2026-01-01"}], []]
    for versions in wrong:
        with pytest.raises(ValidationError):
            Corrections.model_validate({"versions": versions})
    usual = Corrections()
    assert DeterminantsSettings().corrections == usual
    assert (usual.versions[0].of("Wh").absolute, usual.versions[0].of("kWh").absolute) == (1, 1000)


# --- usage ---------------------------------------------------------------------------------------------------------------------------


def acknowledged(hub: Hub, body: dict[str, Any], bill: str) -> None:
    hub.send(
        "UsedOnBill",
        {"id": bill, "account": "a1", "usage": body["usage"], "subject": "", "version": body["version"], "bill": bill, "user": ""},
    )


def test_usage_that_was_replaced_while_its_bill_was_made_is_corrected() -> None:
    hub = sent_month(Hub(usage=settings()))
    corrected(hub, 900_000, 2)
    first, second = sent(hub)
    assert second["correction"] == "replacement"
    hub.restart()
    acknowledged(hub, first, "B-9")
    hub.tick("2026-04-02T09:00:00")
    third = sent(hub)[-1]
    assert (third["version"], third["correction"], third["bill"], third["corrects"]) == (3, "subsequent-correction", "B-9", first["id"])
    energy = third["quantities"][0]
    assert (energy["quantity"], energy["previous"]) == (Decimal("743.65"), 743)
    acknowledged(hub, third, "B-10")
    hub.tick("2026-04-02T10:00:00")
    assert len(sent(hub)) == 3


def test_usage_held_by_an_exception_is_released_when_that_is_settled() -> None:
    hub = Hub(usage=settings())
    rows = month()
    rows[3].state = 2
    hub.give(*rows)
    hub.tick("2026-04-01T03:00:00")
    hub.give(Row(rows[3].day, rows[3].values, version=2, replaces=1))
    hub.tick("2026-04-01T04:00:00")
    first, second = sent(hub)
    assert [amounts(body)["energy"] for body in (first, second)] == [743, 743]
    assert (second["correction"], second["reason"]) == ("replacement", "released: nothing is in exception any more")
    assert [{line["status"] for line in hub.usage_lines if line["version"] == v} for v in (1, 2)] == [{"held"}, {"released"}]


def test_large_amounts_are_told_to_the_last_place() -> None:
    before, now = ([["e", "interval-data", "", "kWh", "", "", amount]] for amount in (90_071_992_547_409_930, 90_071_992_547_419_931))
    assert changes(before, now, {"kWh": (0, 0)}) == ["e 90071992547.409930 → 90071992547.419931 kWh"]
