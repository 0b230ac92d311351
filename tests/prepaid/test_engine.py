"""The prepaid engine by story: money in, consumption out, supply cut and restored, each by its rules."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from schemas.topology.prepaid import PrepaidSettings
from streams.prepaid.fold import PrepaidFold
from streams.runtime.state import LayoutError
from tests.prepaid.driver import TARIFF, Driver, second, settings

CUT = {"grace": "1d", "max_read_age": "2d", "command_life": "15m", "retries": 1, "reconnect_above": "1", "protected": []}


def enrolled(**change: object) -> Driver:
    driver = Driver(settings(**change))
    assert driver.ask("enrol")["status"] == "done"
    return driver


def test_consumption_is_charged_day_by_day_and_the_month_is_exact() -> None:
    driver = enrolled()
    driver.ask("topup", amount=5000, channel="cash")
    for day in driver.days("2026-03-02", 3):
        driver.use(day, "0.333")  # 9.99 cents a day: rounding alone would give 10 + 10 + 10
    assert [posting["amount"] for posting in driver.said["Posting"]] == [5000, 10, 10, 10]
    driver.use("2026-03-05", "0.016667")  # 29.97 + 0.50001 = 30.47 cents: nothing to post yet
    assert len(driver.said["Posting"]) == 4
    driver.check()


def test_a_better_read_posts_the_difference_and_never_rewrites() -> None:
    driver = enrolled()
    driver.use("2026-03-02", "10")
    driver.use("2026-03-03", "10")
    driver.use("2026-03-02", "4", version=2)
    driver.use("2026-03-02", "4", version=2)
    driver.use("2026-03-02", "99", version=1)
    assert [(p["kind"], p["change"]) for p in driver.said["Posting"]] == [("ENERGY", -300), ("ENERGY", -300), ("TRUE_UP", 180)]
    driver.check()


def test_a_day_nobody_tells_of_is_charged_by_the_average_and_trued_up_when_it_comes() -> None:
    driver = enrolled()
    for day in driver.days("2026-03-02", 2):
        driver.use(day, "10")
    driver.tick("2026-03-05T13:00")
    assert driver.account()["balance"] == -900
    assert driver.account()["provisional"] == 300
    driver.use("2026-03-04", "12")
    assert driver.account()["balance"] == -960
    assert driver.account()["provisional"] == 0
    driver.check()


def test_notices_fire_once_per_crossing_with_hysteresis_and_wait_for_the_morning() -> None:
    levels = [{"id": "soon", "amount": "5"}, {"id": "now", "amount": "2"}]
    driver = enrolled(thresholds=levels, hysteresis="1", quiet=[{"from": "21:00", "to": "24:00"}, {"from": "00:00", "to": "08:00"}])
    driver.ask("topup", amount=800)
    driver.tick("2026-03-03T22:00")
    driver.use("2026-03-02", "12")  # 4.40
    assert driver.notices()[-1] == "balance.low soon"
    told = driver.said["PrepaidNotice"][-1]
    assert (told["not_before"] - told["at"]).total_seconds() == 10 * 3600
    driver.use("2026-03-02", "11", version=2)
    driver.ask("topup", amount=120)  # 5.90: above, but not by the hysteresis
    driver.use("2026-03-03", "10")  # 2.90
    assert driver.notices().count("balance.low soon") == 1
    driver.use("2026-03-03", "14", version=2)  # 1.70
    assert driver.notices()[-1] == "balance.low now"
    driver.ask("topup", amount=1000)
    driver.use("2026-03-04", "30")  # 2.70
    assert driver.notices().count("balance.low soon") == 2
    driver.check()


def test_supply_is_cut_after_the_grace_and_back_with_the_topup() -> None:
    driver = enrolled(disconnection=CUT)
    driver.tick("2026-03-03T10:00")
    driver.use("2026-03-02", "10")
    assert driver.account()["state"] == "grace"
    assert driver.notices()[-1] == "balance.zero"
    driver.tick("2026-03-04T09:59")
    driver.use("2026-03-03", "1")
    assert not driver.said["DeviceCommand"]
    driver.tick("2026-03-04T10:00")
    assert [c["action"] for c in driver.said["DeviceCommand"]] == ["disconnect"]
    assert driver.account()["state"] == "disconnect-sent"
    driver.reply()
    driver.reply()
    assert driver.account()["state"] == "disconnected"
    assert driver.notices()[-1] == "disconnected"
    driver.ask("topup", amount=500)
    assert [c["action"] for c in driver.said["DeviceCommand"]] == ["disconnect", "connect"]
    driver.reply()
    assert driver.account()["state"] == "active"
    driver.check()


def test_a_topup_that_crosses_the_cut_is_compensated() -> None:
    driver = enrolled(disconnection=CUT | {"grace": "0s"})
    driver.tick("2026-03-03T10:00")
    driver.use("2026-03-02", "10")
    (cut,) = driver.said["DeviceCommand"]
    driver.ask("topup", amount=1000)
    assert driver.said["DeviceCommand"][-1]["action"] == "connect"
    driver.reply()  # the connect is confirmed first
    assert driver.account()["state"] == "active"
    driver.reply(command=cut["id"])  # and the cut only now: supply is off
    assert driver.said["DeviceCommand"][-1]["action"] == "connect"
    assert driver.account()["state"] == "reconnect-sent"
    driver.reply(command=cut["id"])
    assert len(driver.said["DeviceCommand"]) == 3
    driver.reply()
    assert driver.account()["state"] == "active"
    driver.check()


def test_nobody_is_cut_on_old_or_estimated_reads_on_hold_or_in_protected_times() -> None:
    evenings = [{"days": ["mon-sun"], "from": "18:00", "to": "24:00"}, {"days": ["mon-sun"], "to": "09:00"}]
    rules = CUT | {"grace": "0s", "protected": evenings}
    driver = enrolled(disconnection=rules)
    driver.tick("2026-03-03T10:00")
    driver.use("2026-03-02", "10", provisional=True)
    assert driver.account()["state"] == "disconnect-pending"
    driver.tick("2026-03-03T20:00")
    driver.use("2026-03-02", "10", version=2)
    assert not driver.said["DeviceCommand"], "protected evening"
    driver.ask("hold", reason="medical")
    driver.tick("2026-03-04T09:00")
    assert not driver.said["DeviceCommand"], "hold"
    assert driver.account()["state"] == "hold"
    driver.ask("release")
    assert driver.said["DeviceCommand"], "nothing speaks against it any more"

    stale = enrolled(disconnection=CUT)
    stale.use("2026-03-02", "10")
    stale.tick("2026-03-10T10:00")
    assert [c["action"] for c in stale.said["DeviceCommand"]] == ["read"], "the last measured read is a week old"
    assert (stale.account()["state"], stale.notices()[-1]) == ("communication-failure", "command.failed")
    stale.tick("2026-03-10T11:00")
    assert stale.notices().count("command.failed") == 1
    for day in stale.days("2026-03-03", 7):
        stale.use(day, "10")
    assert stale.said["DeviceCommand"][-1]["action"] == "disconnect", "fresh reads have come"
    assert stale.account()["trouble"] == ""


def test_a_cut_that_is_not_answered_is_tried_again_and_then_left_to_people() -> None:
    driver = enrolled(disconnection=CUT | {"grace": "0s"})
    driver.tick("2026-03-03T10:00")
    driver.use("2026-03-02", "10")
    driver.tick("2026-03-03T10:15")
    assert len(driver.said["DeviceCommand"]) == 2
    driver.tick("2026-03-03T10:30")
    driver.tick("2026-03-03T12:30")
    assert len(driver.said["DeviceCommand"]) == 2
    assert driver.account()["trouble"]
    assert driver.account()["state"] == "communication-failure"
    assert driver.notices()[-1] == "command.failed"


def test_reconnection_is_tried_until_it_is_confirmed_and_people_are_told_once() -> None:
    driver = enrolled(disconnection=CUT | {"grace": "0s", "reconnect_waits": ["1m", "2m"], "alarm_after": "5m"})
    driver.tick("2026-03-03T10:00")
    driver.use("2026-03-02", "10")
    driver.reply()
    driver.ask("topup", amount=1000)
    for minute in range(1, 12):
        driver.tick(f"2026-03-03T10:{minute:02}")
    assert [c["action"] for c in driver.said["DeviceCommand"]].count("connect") == 7
    assert driver.notices().count("command.failed") == 1
    driver.reply()
    assert driver.account()["state"] == "active"
    assert driver.account()["trouble"] == ""


def test_requests_are_carried_out_once_and_another_content_is_a_conflict() -> None:
    driver = enrolled()
    for _ in range(3):
        outcome = driver.ask("topup", id="t1", amount=500)
    assert outcome["status"] == "duplicate"
    assert driver.ask("topup", id="t1", amount=501)["status"] == "conflict"
    assert driver.kinds() == ["TOPUP"]
    driver.restart()
    assert driver.ask("topup", id="t1", amount=500)["status"] == "duplicate"
    driver.check()


def test_debts_and_emergency_credit_come_back_in_their_order() -> None:
    driver = enrolled(
        emergency={"limit": "5", "below": "1"}, recovery={"share_of_topup": 50, "most_of_topup": 70, "per_day": "1"}, provisional="none"
    )
    assert driver.ask("emergency")["status"] == "posted"
    assert driver.ask("emergency")["status"] == "refused"
    driver.ask("debt", amount=900, channel="arrears")
    driver.ask("topup", amount=1000)
    assert [(p["kind"], p["change"]) for p in driver.said["Posting"]] == [
        ("EMERGENCY_DRAW", 500), ("DEBT", 0), ("TOPUP", 1000), ("EMERGENCY_REPAY", -500), ("DEBT_RECOVERY", -200),
    ]  # fmt: skip
    driver.tick("2026-03-03T13:00")
    assert driver.kinds()[-1] == "DEBT_RECOVERY"
    assert driver.account()["debt"] == 600
    driver.check()


def test_a_bounced_payment_begins_the_grace_anew() -> None:
    driver = enrolled(disconnection=CUT)
    driver.ask("topup", id="t1", amount=1000, reference="bank-7")
    driver.tick("2026-03-03T10:00")
    driver.use("2026-03-02", "10")
    assert driver.ask("reversal", reference="bank-7")["status"] == "posted"
    assert driver.ask("reversal", reference="bank-7")["status"] == "refused"
    assert driver.account()["state"] == "grace"
    driver.check()


def test_moving_out_pays_back_what_is_left_once_the_last_day_is_charged() -> None:
    driver = enrolled()
    driver.ask("topup", amount=5000)
    driver.use("2026-03-02", "10")
    driver.ask("close", terms={"day": "2026-03-03"})
    driver.use("2026-03-03", "10")
    driver.tick("2026-03-04T13:00")
    assert (driver.kinds()[-1], driver.said["Posting"][-1]["amount"]) == ("REFUND", 4400)
    assert driver.account()["state"] == "closed"
    driver.use("2026-03-03", "11", version=2)
    assert driver.account()["balance"] == 0
    assert driver.kinds()[-2:] == ["TRUE_UP", "MIGRATION_CLOSING"]
    driver.use("2026-03-05", "11")
    driver.check()


def test_where_the_proof_fails_posting_stops_and_goes_on_when_it_holds_again() -> None:
    driver = enrolled()
    driver.ask("topup", amount=5000)
    driver.fold.accounts.table["balance"][0] += 1
    driver.fold.accounts.touch(0)
    driver.tick("2026-03-02T13:00")
    assert not driver.said["PrepaidProof"][-1]["holds"]
    driver.use("2026-03-02", "10")
    assert driver.kinds() == ["TOPUP"]
    driver.restart()
    refused = driver.ask("resume")
    assert refused["status"] == "refused"
    assert "add up" in refused["detail"]
    assert driver.kinds() == ["TOPUP"], "it does not hold yet"
    driver.fold.accounts.table["balance"][0] -= 1
    assert driver.ask("resume")["status"] == "done"
    assert driver.kinds() == ["TOPUP", "ENERGY"]
    driver.check()


def _charges(driver: Driver, component: str = "") -> int:
    return -sum(int(p["change"]) for p in driver.said["Posting"] if p["component"] and component in p["component"])


def test_another_tariff_counts_from_its_day_on_and_leaves_the_days_before_alone() -> None:
    other = {"id": "dear", "versions": [{"rate": "1.00", "fixed": "31"}]}
    rules = [{"tariff": "dear", "rates": ["dear"]}, {"tariff": "home"}]
    driver = Driver(settings(tariffs=[TARIFF, other], assign=rules))
    driver.ask("enrol", amount=None, terms={"opening": 10000})
    for day in driver.days("2026-03-02", 4):
        driver.use(day, "10")
    driver.tick("2026-03-06T10:00")
    period = {
        "from": second("2026-03-04T00:00"), "to": None, "payment": "prepaid", "rate": "dear", "zone": driver.zone,
        "service_points": ["sp1"],
    }  # fmt: skip
    driver.give("UsageSubscription", {"subscription": "a1", "version": 2, "periods": [period]})
    driver.use("2026-03-02", "20", version=2)  # a correction from before the change has the old price
    assert _charges(driver) == 20 * 30 + 10 * 30 + 2 * (10 * 100) + 200
    driver.restart()
    driver.use("2026-03-06", "1")
    assert _charges(driver) == 20 * 30 + 10 * 30 + 21 * 100 + 300
    driver.check()


def test_closing_on_a_past_day_takes_back_what_was_charged_behind_it() -> None:
    driver = Driver(settings(tariffs=[{"id": "home", "versions": [{"rate": "0.30", "fixed": "31"}]}]))
    driver.ask("enrol", terms={"opening": 10000})
    for day in driver.days("2026-03-02", 6):
        driver.use(day, "10")
    driver.tick("2026-03-08T13:00")
    driver.ask("close", terms={"day": "2026-03-04"})
    assert _charges(driver) == 3 * 400
    driver.tick("2026-03-08T14:00")
    assert driver.account()["state"] == "closed"
    assert next(p["amount"] for p in driver.said["Posting"] if p["kind"] == "REFUND") == 10000 - 1200
    driver.check()


def test_who_goes_back_to_postpaid_pays_every_day_before() -> None:
    driver = Driver(settings(tariffs=[{"id": "home", "versions": [{"rate": "0.30", "fixed": "31"}]}]))
    driver.ask("enrol", terms={"opening": 10000})
    driver.use("2026-03-02", "10")
    driver.tick("2026-03-04T09:00")
    driver.ask("postpaid")
    assert _charges(driver, "fixed") == 200, "the day nobody told of is charged too"
    driver.use("2026-03-03", "20")
    assert _charges(driver) == 200 + 30 * 30
    assert driver.account()["balance"] == 0
    driver.check()


def test_an_account_that_begins_again_starts_clean() -> None:
    driver = Driver(settings(tariffs=[{"id": "home", "versions": [{"rate": "0.30", "fixed": "31", "minimum": "40"}]}]))
    driver.ask("enrol", terms={"opening": 10000})
    driver.use("2026-03-02", "10")
    driver.tick("2026-03-03T09:00")
    driver.ask("postpaid")
    assert driver.ask("enrol", terms={"from": "2026-03-02"})["status"] == "refused"
    driver.tick("2026-03-10T09:00")
    driver.ask("enrol")
    assert driver.account()["state"] == "active", "nothing has been used up yet"
    driver.use("2026-03-11", "1")
    assert _charges(driver) == 400 + 130
    driver.check()


def test_a_correction_of_the_old_meter_does_not_make_it_the_one_to_cut() -> None:
    driver = Driver(settings())
    driver.ask("enrol")
    driver.use("2026-03-02", "1", device="old")
    driver.use("2026-03-03", "1", device="new")
    driver.use("2026-03-02", "2", device="old", version=2)
    assert driver.account()["device"] == "new"


def test_fixed_charges_that_waited_over_the_end_of_a_month_are_all_charged_when_emergency_credit_is_paid_back() -> None:
    of = settings(
        tariffs=[{"id": "home", "versions": [{"rate": "0.30", "fixed": "31"}]}],
        emergency={"limit": "50", "below": "1", "pauses_fixed": True},
    )  # fmt: skip
    driver = Driver(of, at="2026-03-28T12:00")
    driver.ask("enrol")
    assert driver.ask("emergency")["status"] == "posted"
    for day in driver.days("2026-03-29", 6):
        driver.use(day, "1")
    driver.tick("2026-04-04T14:00")
    assert _charges(driver, "fixed") == 0
    driver.ask("topup", amount=9000)
    assert _charges(driver, "fixed") == 3 * 100 + 310  # three days of March, three of April at 31/30
    driver.check()


def test_a_second_channel_of_a_day_is_no_correction() -> None:
    driver = Driver(settings(tariffs=[{"id": "home", "versions": [{"rate": "0.30", "export": "0.10"}]}]))
    driver.ask("enrol")
    driver.use("2026-03-02", "10")
    driver.use("2026-03-02", "3", channel="2.8.0", direction="received", id="x")
    assert driver.kinds() == ["ENERGY", "EXPORT"]


def test_payments_are_recognised_however_many_came_since() -> None:
    driver = Driver(settings())
    driver.ask("enrol")
    for number in range(100):
        driver.ask("topup", id=f"t{number}", amount=100 + number, reference=f"bank{number}")
    driver.restart()
    assert driver.ask("topup", id="t3", amount=103, reference="bank3")["status"] == "duplicate"
    assert driver.ask("topup", id="t3", amount=104, reference="bank3")["status"] == "conflict"
    assert driver.ask("reversal", reference="bank3")["status"] == "posted"
    assert driver.ask("reversal", reference="t3")["status"] == "refused"
    driver.check()


def test_a_balance_around_zero_is_told_once_and_each_time_begins_with_a_grace() -> None:
    driver = enrolled(disconnection=CUT, hysteresis="1")
    driver.ask("topup", amount=300)
    driver.tick("2026-03-03T10:00")
    driver.use("2026-03-02", "10")  # 0.00
    assert driver.notices().count("balance.zero") == 1
    driver.ask("topup", amount=50)
    driver.tick("2026-03-04T10:00")
    driver.use("2026-03-03", "2")  # −0.10, a day later
    assert driver.notices().count("balance.zero") == 1, "it was never above the hysteresis"
    assert driver.account()["state"] == "grace"
    driver.tick("2026-03-05T09:59")
    driver.use("2026-03-04", "0")
    assert not driver.said["DeviceCommand"]
    driver.tick("2026-03-05T10:00")
    assert driver.said["DeviceCommand"][-1]["action"] == "disconnect"
    driver.reply()
    driver.ask("topup", amount=500)
    driver.reply()
    driver.use("2026-03-05", "20")
    assert driver.notices().count("balance.zero") == 2
    driver.check()


def test_who_begins_below_a_threshold_is_told_with_the_first_consumption() -> None:
    driver = Driver(settings(thresholds=[{"id": "soon", "amount": "5"}]))
    driver.ask("enrol")
    driver.ask("topup", amount=400)
    assert "balance.low soon" not in driver.notices(), "nothing has gone down yet"
    driver.use("2026-03-02", "1")
    driver.use("2026-03-03", "1")
    assert driver.notices().count("balance.low soon") == 1


def test_a_refused_reconnection_waits_for_its_next_try() -> None:
    driver = enrolled(disconnection=CUT | {"grace": "0s", "reconnect_waits": ["1m", "1h"]})
    driver.tick("2026-03-03T10:00")
    driver.use("2026-03-02", "10")
    driver.reply()
    driver.ask("topup", amount=1000)
    driver.reply("failed")
    assert driver.account()["state"] == "reconnect-pending"
    driver.tick("2026-03-03T10:01")
    assert driver.account()["state"] == "reconnect-sent"
    driver.tick("2026-03-03T10:20")  # its life is over, the next try is not due
    assert driver.account()["state"] == "reconnect-pending"
    driver.tick("2026-03-03T11:01")
    assert [c["action"] for c in driver.said["DeviceCommand"]].count("connect") == 3
    driver.reply()
    assert driver.account()["state"] == "active"


def test_an_ordered_cut_that_is_not_answered_is_told_and_not_repeated() -> None:
    driver = enrolled(disconnection=CUT)
    driver.ask("topup", amount=1000)
    driver.use("2026-03-02", "1")
    driver.ask("disconnect", reason="works in the street")
    driver.tick("2026-03-02T15:00")
    driver.tick("2026-03-02T16:00")
    assert [c["action"] for c in driver.said["DeviceCommand"]] == ["disconnect"]
    assert driver.notices().count("command.failed") == 1
    assert driver.account()["state"] == "active"


def test_intervals_told_one_by_one_cost_what_their_day_costs() -> None:
    parts = {"tariffs": [{"id": "home", "versions": [{"rate": "0.30", "demand": "2"}]}]}
    driver = enrolled(charging="continuous", **parts)
    start = second("2026-03-02T00:00")

    def tell(slot: int, quantity: str, version: int = 1, status: str = "final") -> None:
        begin, end = (datetime.fromtimestamp(start + 900 * n, UTC) for n in (slot, slot + 1))
        about = {"grain": "interval", "start": begin, "end": end, "id": f"i/{slot}/{version}", "status": status}
        driver.use("2026-03-02", quantity, version=version, demand=Decimal(quantity) * 4, **about)

    for slot in range(96):
        tell(slot, "0.25")
        if slot == 40:
            driver.restart()
    assert _charges(driver, "energy") == 24 * 30
    assert _charges(driver, "demand") == 200
    tell(7, "1.25", version=2)
    tell(7, "1.25", version=2)
    assert _charges(driver) == 25 * 30 + 1000
    assert driver.kinds()[-2:] == ["TRUE_UP", "TRUE_UP"]
    driver.check()


def test_in_a_daily_tariff_intervals_wait_until_none_of_the_day_is_open() -> None:
    driver = enrolled()
    start = second("2026-03-02T00:00")
    for status in ("open", "final"):
        for slot in range(96):
            begin, end = (datetime.fromtimestamp(start + 900 * n, UTC) for n in (slot, slot + 1))
            driver.use(
                "2026-03-02", "0.25", version=1 + (status == "final"), grain="interval", start=begin, end=end, id=f"{status}{slot}",
                status=status,
            )  # fmt: skip
    assert [p["amount"] for p in driver.said["Posting"]] == [24 * 30]
    driver.check()


def test_months_begin_on_the_day_of_the_cycle() -> None:
    of = settings(tariffs=[{"id": "home", "versions": [{"slabs": [{"up_to": "20", "rate": "0.10"}, {"rate": "1"}]}]}], cycle_day=10)
    driver = Driver(of, at="2026-03-07T12:00")
    driver.ask("enrol")
    for day in driver.days("2026-03-08", 4):
        driver.use(day, "10")
    assert _charges(driver) == 400, "two days of the old month, two of the new one, all in the first step"
    assert {p["month"] for p in driver.said["Posting"]} == {"2026-02-10", "2026-03-10"}


MONTHLY: dict[str, Any] = {
    "slabs": [{"up_to": "31", "rate": "0.10"}, {"rate": "1"}], "fixed": "31.00", "minimum": "93.00",
    "subsidies": [{"id": "relief", "per_month": "3.10"}],
}  # fmt: skip


def cycles(*changes: tuple[str, int], **more: Any) -> PrepaidSettings:
    told = [{"from": since, "cycle_day": day} for since, day in changes]
    return settings(tariffs=[{"id": "home", "versions": [MONTHLY]}], cycle_changes=told, provisional="none", **more)


def by_month(driver: Driver) -> dict[str, dict[str, int]]:
    """What was charged, by month and component."""
    found: dict[str, dict[str, int]] = {}
    for posting in driver.said["Posting"]:
        if posting["component"]:
            month = found.setdefault(posting["month"], {})
            month[posting["component"]] = month.get(posting["component"], 0) - posting["change"]
    return found


def test_another_cycle_day_cuts_the_month_under_way_and_all_that_is_told_by_the_month() -> None:
    driver = Driver(cycles(("2026-03-05", 11)), at="2026-02-28T12:00")
    driver.ask("enrol", terms={"from": "2026-03-01", "opening": 100_000})
    for day in driver.days("2026-03-01", 12):
        driver.use(day, "2")
    driver.tick("2026-03-13T13:00")
    found = by_month(driver)
    assert found["2026-03-01"] == {
        "energy": 10 * 10 + 10 * 100,  # ten days of 31: the first step ends at 10 kWh
        "fixed": 1000, "subsidy/relief": -100, "minimum": 3000 - 2000,
    }  # fmt: skip
    assert found["2026-03-11"] == {"energy": 4 * 10, "fixed": 200, "subsidy/relief": -20}
    assert [(one["month"], one["first"], one["last"]) for one in driver.said["PrepaidCharge"]] == [
        ("2026-03-01", "2026-03-01", "2026-03-10")
    ]  # fmt: skip
    driver.use("2026-03-02", "3", version=2)
    assert {posting["kind"] for posting in driver.last["Posting"]} == {"TRUE_UP"}
    assert by_month(driver)["2026-03-01"]["energy"] == 1200
    driver.tick("2026-04-12T13:00")
    assert set(by_month(driver)) == {"2026-03-01", "2026-03-11", "2026-04-11"}
    driver.check()


def test_a_change_told_within_the_month_it_cuts_evens_out_what_was_charged() -> None:
    driver = Driver(cycles(), at="2026-02-28T12:00")
    driver.ask("enrol", terms={"from": "2026-03-01", "opening": 100_000})
    for day in driver.days("2026-03-01", 7):
        driver.use(day, "2")
    assert by_month(driver)["2026-03-01"]["energy"] == 140
    driver.settings = cycles(("2026-03-08", 11))
    driver.restart()
    for day in driver.days("2026-03-08", 3):
        driver.use(day, "2")
    assert by_month(driver)["2026-03-01"]["energy"] == 10 * 10 + 10 * 100
    driver.check()


def test_cycle_days_that_have_held_stay_and_later_ones_may_change() -> None:
    driver = Driver(cycles(("2026-03-05", 11)), at="2026-02-28T12:00")
    driver.tick("2026-03-20T01:00")
    rows = {key: value for key, value in driver.rows.items() if value is not None}
    for other in (
        cycles(),
        cycles(("2026-03-05", 12)),
        cycles(("2026-03-05", 11), ("2026-03-15", 18)),
        cycles(("2026-03-05", 11), cycle_day=2),
    ):
        with pytest.raises(LayoutError, match="add a change whose `from` lies ahead"):
            PrepaidFold(other, driver.zone, 0).state.load_all(rows)
    PrepaidFold(cycles(("2026-03-05", 11), ("2026-03-22", 25)), driver.zone, 0).state.load_all(rows)
    with pytest.raises(ValidationError, match="in the order of their dates"):
        cycles(("2026-03-05", 11), ("2026-03-05", 12))


def test_prices_put_right_count_for_the_whole_month() -> None:
    driver = enrolled()
    for day in driver.days("2026-03-02", 3):
        driver.use(day, "10")
    driver.settings = settings(tariffs=[{"id": "home", "versions": [{"rate": "0.40"}]}])
    driver.restart()
    driver.use("2026-03-05", "10")
    assert _charges(driver) == 4 * 400
    driver.check()
