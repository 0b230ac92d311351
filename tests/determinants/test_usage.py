"""Usage of a subscription: billing periods, waiting, corrections by materiality, requests, move-out, critical peaks."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from schemas.conditions import MISSING, REGULAR
from schemas.topology.corrections import Corrections
from schemas.topology.tou import DeterminantsSettings
from schemas.topology.usage import UsageSettings
from streams import calendar
from tests.determinants.kit import Hub, Row, day_number, slots

ZONE = "Europe/Berlin"
FIRST = day_number("2026-03-01")
DAYS = 31
RULES: list[dict[str, Any]] = [
    {"id": "alignment-and-delay", "retry_window": "3d"},
    {"id": "installed-device-check"},
    {"id": "interval-data", "as": "energy", "of": {"directions": ["delivered"]}},
    {"id": "tou-mapped-usage", "as": "by_tou", "curve": "energy"},
    {"id": "block-demand", "as": "md", "curve": "energy", "window": "30m"},
    {"id": "billing-demand", "as": "billed", "demand": "md", "ratchet": 0.8},
    {"id": "load-factor", "as": "lf", "energy": "energy", "demand": "md"},
]


def terms(*versions: dict[str, Any]) -> DeterminantsSettings:
    """Determinants as usual, corrected by these versions of terms."""
    usual = DeterminantsSettings.default()
    return usual.model_copy(update={"corrections": Corrections.model_validate({"versions": versions})})


def settings(rules: list[dict[str, Any]] | None = None, **more: Any) -> UsageSettings:
    group = {"id": "g", "accounts": ["a*"], "versions": [{"rules": rules or RULES}]}
    return UsageSettings.model_validate({"groups": [group], **more})


def instant(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(ZONE)).astimezone(UTC).timestamp())


def month(first: int = FIRST, days: int = DAYS, value: int = 250_000, **more: Any) -> list[Row]:
    return [Row(day, [value] * slots(ZONE, day, 900), **more) for day in range(first, first + days)]


def sent(hub: Hub) -> list[dict[str, Any]]:
    return [body for body in hub.usage_sent if body["status"] == "sent"]


def amounts(body: dict[str, Any]) -> dict[str, Any]:
    return {f"{q['name']} {q['tou']}".strip(): q["quantity"] for q in body["quantities"]}


def test_a_month_is_told_once_after_its_end() -> None:
    hub = Hub(usage=settings())
    hub.give(*month())
    hub.tick("2026-03-31T22:30:00")
    assert not sent(hub)
    hub.tick("2026-04-01T03:00:00")
    hub.tick("2026-04-01T03:10:00")
    [body] = sent(hub)
    hours = 31 * 24 - 1  # the clock went forward
    found = amounts(body)
    assert (found["energy"], found["md"], found["billed"], found["lf"]) == (hours, 1, 1, 1)
    assert sum(found[f"by_tou {name}"] for name in ("peak", "shoulder", "offpeak")) == hours
    assert (body["period_start"], body["period_end"]) == (
        datetime.fromtimestamp(instant("2026-03-01"), UTC), datetime.fromtimestamp(instant("2026-04-01"), UTC),
    )  # fmt: skip
    assert (body["version"], body["correction"], body["trigger"], body["group"]) == (1, "", "cycle", "g")
    assert {line["usage"] for line in hub.usage_lines} == {body["usage"]}
    assert len(hub.usage_lines) == len(body["quantities"])


def test_missing_data_are_waited_for_then_released_as_they_are() -> None:
    hub = Hub(usage=settings())
    rows = month()
    rows[9] = Row(rows[9].day, [0] * 96, [MISSING] * 96)
    hub.give(*rows)
    hub.tick("2026-04-01T03:00:00")
    [waiting] = hub.usage_sent
    assert (waiting["status"], waiting["reason"]) == ("waiting", "96 of 2972 intervals or readings are missing")
    hub.restart()
    hub.tick("2026-04-03T03:00:00")
    assert len(hub.usage_sent) == 1
    hub.tick("2026-04-04T03:00:00")
    [body] = sent(hub)
    energy = body["quantities"][0]
    assert (energy["slots"], energy["actual"], energy["condition"], energy["quantity"]) == (2972, 2876, MISSING, 719)
    assert body["reason"].startswith("released after the retry window")


def test_data_that_come_in_time_end_the_waiting() -> None:
    hub = Hub(usage=settings())
    rows = month()
    hub.give(*rows[:20], *rows[21:])
    hub.tick("2026-04-01T03:00:00")
    hub.give(rows[20])
    hub.tick("2026-04-01T04:00:00")
    assert [body["status"] for body in hub.usage_sent] == ["waiting", "sent"]
    assert amounts(hub.usage_sent[-1])["energy"] == 743


def corrected(hub: Hub, value: int, version: int) -> None:
    hub.give(Row(FIRST, [value, *[250_000] * 95], version=version, replaces=version - 1))
    hub.tick(f"2026-04-02T{version:02d}:00:00")


def test_noise_is_absorbed_and_adds_up() -> None:
    hub = Hub(terms({"thresholds": [{"units": ["kWh", "kW", "pf"], "absolute": 0.01}]}), usage=settings(RULES[:4]))
    hub.give(*month())
    hub.tick("2026-04-01T03:00:00")
    corrected(hub, 254_000, 2)
    corrected(hub, 258_000, 3)
    assert len(sent(hub)) == 1
    hub.restart()
    corrected(hub, 262_000, 4)
    first, second = sent(hub)
    assert (second["version"], second["corrects"], second["correction"]) == (2, first["id"], "replacement")
    energy = second["quantities"][0]
    assert (energy["quantity"], energy["previous"]) == (Decimal("743.012"), 743)
    assert "energy 743.000000 → 743.012000 kWh" in second["reason"]


def test_a_correction_of_billed_usage_is_a_subsequent_one_and_told_once() -> None:
    hub = Hub(usage=settings())
    hub.give(*month())
    hub.tick("2026-04-01T03:00:00")
    first = sent(hub)[0]
    bill = {"id": "u1", "account": "a1", "usage": first["usage"], "subject": "", "version": 1, "bill": "B-7", "user": ""}
    hub.send("UsedOnBill", bill)
    corrected(hub, 900_000, 2)
    hub.tick("2026-04-02T05:00:00")
    second = sent(hub)[-1]
    assert (len(sent(hub)), second["correction"], second["bill"], second["corrects"]) == (2, "subsequent-correction", "B-7", first["id"])
    assert amounts(second)["md"] == Decimal("2.3")
    replaced = {line["replaces"] for line in hub.usage_lines if line["version"] == 2}
    assert replaced == {line["id"] for line in hub.usage_lines if line["version"] == 1}


def test_behind_the_cut_off_nothing_is_corrected_and_people_are_told() -> None:
    hub = Hub(terms({"cut_off_months": 3}), usage=settings())
    hub.give(*month())
    hub.tick("2026-04-01T03:00:00")
    hub.tick("2026-07-02T03:00:00")
    hub.give(Row(FIRST, [900_000, *[250_000] * 95], version=2, replaces=1))
    hub.tick("2026-07-02T04:00:00")
    hub.tick("2026-07-02T05:00:00")
    assert len(sent(hub)) == 1
    [refused] = [body for body in hub.usage_sent if body["status"] == "refused"]
    assert "settlement cut-off" in refused["reason"]
    told = [(e["rule"], e["status"], e["severity"]) for e in hub.exceptions if not e["channel"]]
    assert told == [("settlement-cut-off", "open", "issue")]


def request(hub: Hub, start: str, end: str | None, trigger: str = "request", id_: str = "r1") -> None:
    body = {"id": id_, "account": "a1", "start": instant(start), "end": instant(end) if end else None, "trigger": trigger, "force": False}
    hub.send("UsageRequest", {**body, "user": "", "again": True})


def test_the_same_period_asked_for_twice_is_the_same_usage() -> None:
    hub = Hub(usage=settings())
    hub.give(*month(days=10))
    hub.tick("2026-03-11T03:00:00")
    request(hub, "2026-03-03", "2026-03-08")
    hub.tick("2026-03-11T03:00:02")
    request(hub, "2026-03-03", "2026-03-08", id_="r2")
    hub.tick("2026-03-11T03:00:04")
    first, second = sent(hub)
    assert (first["id"], first["quantities"]) == (second["id"], [{**q, "previous": None} for q in second["quantities"]])
    assert (first["requests"], second["requests"]) == (["r1"], ["r1", "r2"])
    assert amounts(first)["energy"] == 120
    ids = [line["id"] for line in hub.usage_lines]
    assert ids[: len(ids) // 2] == ids[len(ids) // 2 :]


def test_a_request_without_end_stops_where_all_channels_have_data() -> None:
    hub = Hub(usage=settings())
    hub.give(*month(days=10), *month(days=8, device="m2"))
    request(hub, "2026-03-03", None)
    hub.tick("2026-03-11T03:00:02")
    assert sent(hub)[0]["period_end"] == datetime.fromtimestamp(instant("2026-03-09"), UTC)
    assert amounts(sent(hub)[0])["energy"] == 288


def test_move_out_bills_to_the_moment_and_nothing_behind_it() -> None:
    hub = Hub(usage=settings())
    hub.give(*month(days=20))
    request(hub, "2026-03-01", "2026-03-15T12:00", "final")
    hub.tick("2026-03-21T03:00:00")
    hub.give(*month(first=FIRST + 20, days=30))
    hub.tick("2026-06-01T00:00:00")
    hub.close()
    assert [(body["trigger"], amounts(body)["energy"]) for body in sent(hub)] == [("final", Decimal(348))]


def test_off_cycle_usage_leaves_the_rest_of_the_cycle() -> None:
    hub = Hub(usage=settings())
    hub.give(*month())
    request(hub, "2026-03-01", "2026-03-11", "off-cycle")
    hub.tick("2026-04-01T05:00:00")
    hub.tick("2026-04-01T05:10:00")
    assert [(body["trigger"], amounts(body)["energy"]) for body in sent(hub)] == [("off-cycle", 240), ("cycle", 503)]


def test_unknown_subscriptions_are_refused_in_plain_words() -> None:
    hub = Hub(usage=settings())
    body = {"id": "r", "account": "zzz", "start": 0, "end": 86_400, "trigger": "request", "force": False, "user": "", "again": True}
    hub.send("UsageRequest", body)
    assert [(b["status"], b["requests"]) for b in hub.usage_sent] == [("refused", ["r"])]


def test_a_critical_peak_swaps_the_period_of_its_span_also_in_sent_usage() -> None:
    hub = Hub(usage=settings())
    hub.give(*month())
    hub.tick("2026-04-01T03:00:00")
    event = {
        "id": "cpp-1", "start": instant("2026-03-10T16:00"), "end": instant("2026-03-10T19:00"), "tou": "critical", "use": "",
        "maps": ["three-part"], "accounts": [], "cancelled": False, "user": "", "sequence": 1,
    }  # fmt: skip
    hub.send("TouEvent", event)
    hub.restart()
    hub.tick("2026-04-01T04:00:00")
    before, after = (amounts(body) for body in sent(hub))
    assert after["by_tou critical"] == 3
    assert after["by_tou peak"] == before["by_tou peak"] - 3
    assert after["energy"] == before["energy"]
    hub.send("TouEvent", {**event, "cancelled": True, "sequence": 2})
    hub.tick("2026-04-01T05:00:00")
    again = amounts(sent(hub)[-1])
    assert (again["by_tou peak"], again["by_tou critical"]) == (before["by_tou peak"], 0)


def subscription(hub: Hub, periods: list[dict[str, Any]], changed: list[dict[str, Any]] | None = None) -> None:
    empty = dict.fromkeys(("commodity", "usage_group", "rate", "billing_cycle", "payment", "customer_class", "region", "zone"))
    filled = [{"from": None, "to": None, "account": "c1", "service_points": [], **empty, "attributes": {}, **p} for p in periods]
    hub.send("UsageSubscription", {"subscription": "a1", "version": 1, "periods": filled, "changed": changed or []})


def test_a_move_in_put_right_moves_the_period_and_takes_the_old_usage_back() -> None:
    hub = Hub(usage=settings())
    subscription(hub, [{"from": instant("2026-03-05")}])
    hub.give(*month())
    hub.tick("2026-04-01T03:00:00")
    assert amounts(sent(hub)[0])["energy"] == 647
    subscription(hub, [{"from": instant("2026-03-09")}], [{"from": instant("2026-03-05"), "to": instant("2026-03-09")}])
    hub.tick("2026-04-01T04:00:00")
    hub.tick("2026-04-01T05:00:00")
    old = [body for body in sent(hub) if body["period_start"] == datetime.fromtimestamp(instant("2026-03-05"), UTC)]
    new = [body for body in sent(hub) if body["period_start"] == datetime.fromtimestamp(instant("2026-03-09"), UTC)]
    assert set(amounts(old[-1]).values()) == {Decimal(0)}
    assert [amounts(body)["energy"] for body in new] == [551]
    fresh = Hub(usage=settings())
    subscription(fresh, [{"from": instant("2026-03-09")}])
    fresh.give(*month())
    fresh.tick("2026-04-01T05:00:00")
    assert sent(fresh)[0]["quantities"] == [{**q, "previous": None} for q in new[0]["quantities"]]


def test_other_settings_recalculate_exactly_what_they_change() -> None:
    hub = Hub(usage=settings())
    hub.give(*month(), *month(first=FIRST + 31, days=30))
    hub.tick("2026-05-01T03:00:00")
    assert len(sent(hub)) == 2
    group = {"id": "g", "accounts": ["a*"], "versions": [{"rules": RULES}, {"from": "2026-04-01", "rules": RULES[:3]}]}
    hub.usage = UsageSettings.model_validate({"groups": [group]})
    hub.restart()
    hub.tick("2026-05-01T04:00:00")
    assert [body["period_start"].month for body in sent(hub)[2:]] == [3]  # April, whose begin is 31 March in UTC


def test_the_ratchet_leans_on_what_was_sent_and_follows_its_correction() -> None:
    hub = Hub(usage=settings())
    hub.give(*month(value=1_000_000), *month(first=FIRST + 31, days=30))
    hub.tick("2026-05-01T03:00:00")
    assert [amounts(body)["billed"] for body in sent(hub)] == [4, Decimal("3.2")]
    hub.give(*[Row(r.day, [500_000] * len(r.values), version=2, replaces=1) for r in month()])
    hub.tick("2026-05-01T04:00:00")
    hub.tick("2026-05-01T05:00:00")
    assert [amounts(body)["billed"] for body in sent(hub)[2:]] == [2, Decimal("1.6")]


def test_a_day_in_exception_holds_its_determinants() -> None:
    hub = Hub(usage=settings())
    rows = month()
    rows[3].state = 2
    hub.give(*rows)
    hub.tick("2026-04-01T03:00:00")
    assert {line["status"] for line in hub.usage_lines} == {"held"}


@pytest.mark.parametrize("cut", [3, 17])
def test_order_and_restarts_make_no_difference(cut: int) -> None:
    straight, broken = Hub(usage=settings()), Hub(usage=settings())
    rows = month()
    straight.give(*rows)
    broken.give(*rows[cut:])
    broken.restart()
    broken.give(*rows[:cut])
    for hub in (straight, broken):
        hub.tick("2026-04-01T03:00:00")
    assert sent(straight)[0]["quantities"] == sent(broken)[0]["quantities"]
    assert sent(straight)[0]["id"] == sent(broken)[0]["id"]


def test_intervals_are_told_one_by_one_where_asked_for() -> None:
    hub = Hub(usage=UsageSettings.model_validate({"events": {"intervals": ["a*"]}}))
    hub.give(Row(FIRST, [250_000] * 96, [REGULAR] * 40 + [0] * 56))
    hub.give(Row(FIRST, [250_000] * 50 + [500_000] + [250_000] * 45, version=2, replaces=1))
    assert [len([e for e in hub.events if e["version"] == v]) for v in (1, 2)] == [40, 56]
    start = int(calendar.start_of(ZONE, FIRST))
    [told] = [e for e in hub.events if e["start"] == datetime.fromtimestamp(start + 50 * 900, UTC)]
    assert (told["quantity"], told["lines"], told["replaces"]) == (Decimal("0.5"), [{"tou": "offpeak", "quantity": Decimal("0.5")}], "")


def test_account_patterns_of_a_group_change_by_date() -> None:
    later = {"from": "2026-04-01", "accounts": ["a*"], "rules": RULES}
    dated = UsageSettings.model_validate({"groups": [{"id": "g", "accounts": ["x*"], "versions": [{"rules": RULES}, later]}]})
    hub = Hub(usage=dated)
    hub.give(*month(), *month(first=FIRST + 31, days=30))
    hub.tick("2026-05-01T03:00:00")
    assert [body["period_start"].month for body in sent(hub)] == [3]  # April, whose begin is 31 March in UTC
    days = [date(2026, 3, 31), date(2026, 4, 1), None]
    assert [[dated.group_of(name, None, day) is not None for day in days] for name in ("a1", "x1")] == [
        [False, True, True],
        [True, False, True],
    ]
