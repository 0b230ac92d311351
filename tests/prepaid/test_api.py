"""The prepaid API over a real store and the real engine."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client import REGISTRY

from connectors.clickhouse import rows
from connectors.prepaid.proving import Prover
from tests.patience import PATIENCE
from tests.prepaid.driver import TARIFF
from tests.prepaid.hub import Hub, finals_of, running, text_of

SETTINGS = {"emergency": {"limit": "5", "below": "1"}, "four_eyes_above": "10", "provisional": "none", "topup_most": "100"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """One hub for all tests here: each has accounts of its own."""
    with running(tmp_path_factory.mktemp("hub"), **SETTINGS) as found:
        yield found


@pytest.fixture
def hub(shared: Hub) -> Hub:
    shared.engine.away = False
    shared.part.service.patience = PATIENCE
    return shared


def test_a_topup_is_credited_once_whatever_comes_again(hub: Hub) -> None:
    hub.enrol("once")
    first = hub.topup(account="once", external_ref="pay-7", channel="card")
    assert (first.status_code, first.json()["status"], first.json()["balance"]) == (201, "posted", "20.00")
    again = hub.topup(account="once", external_ref="pay-7", channel="card")
    assert (again.status_code, again.json()) == (200, first.json())
    other = hub.topup("21.00", account="once", external_ref="pay-7", channel="card")
    assert other.status_code == 409
    assert other.headers["content-type"] == "application/problem+json"
    assert hub.balance("once") == "20.00"
    assert hub.client.get(first.headers["location"]).json() == first.json()


def test_the_number_of_the_payment_is_the_key_where_no_header_is_sent(hub: Hub) -> None:
    hub.enrol("ref")
    assert hub.topup(account="ref", key="").status_code == 422
    assert [hub.topup(account="ref", key="", external_ref="x").status_code for _ in range(2)] == [201, 200]
    assert hub.balance("ref") == "20.00"


def test_a_thousand_topups_at_once_are_one_posting_and_other_bodies_conflict(hub: Hub) -> None:
    hub.enrol("race")
    hub.part.service.patience = PATIENCE

    def one(number: int) -> tuple[str, int]:
        amount = "13.00" if number % 50 == 7 else "12.00"
        return amount, hub.topup(amount, account="race", key="same", external_ref="p").status_code

    with ThreadPoolExecutor(64) as pool:
        answers = Counter(pool.map(one, range(1000)))
    won = "12.00" if answers["12.00", 201] else "13.00"
    lost = "13.00" if won == "12.00" else "12.00"
    assert answers[lost, 409] == (20 if lost == "13.00" else 980)
    assert answers[won, 200] + answers[won, 201] == (980 if won == "12.00" else 20)
    assert hub.balance("race") == won
    with hub.engine as driver:
        assert [p["amount"] for p in driver.said["Posting"] if p["account"] == "race"] == [int(won.replace(".", ""))]


def test_what_is_refused_says_why_and_may_come_again(hub: Hub) -> None:
    answer = hub.topup(account="nobody", key="n1")
    assert answer.status_code == 404
    hub.enrol("nobody")
    with hub.engine as driver:
        driver.tick(driver.now + 60)
    assert hub.topup(account="nobody", key="n1").status_code == 201
    assert hub.topup("100.01", account="nobody", key="n2").status_code == 422
    assert hub.topup("0.001", account="nobody", key="n3").json()["detail"].startswith("amount")
    assert hub.topup("-1", account="nobody", key="n4").status_code == 422
    assert hub.client.get("/v1/prepaid/accounts/stranger/balance").status_code == 404


def test_kafka_away_is_said_so_and_nothing_is_promised(hub: Hub) -> None:
    hub.enrol("away")
    hub.engine.away = True
    answer = hub.topup(account="away")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    hub.engine.away = False
    assert hub.topup(account="away").status_code == 201
    hub.engine.away = True
    assert hub.topup(account="away").status_code == 200, "what is known is answered without Kafka"


def test_what_is_not_decided_in_time_is_accepted(hub: Hub) -> None:
    hub.enrol("slow")
    hub.part.service.patience = 0.2
    with hub.engine:
        answer = hub.topup(account="slow")
        assert (answer.status_code, answer.json()["status"]) == (202, "accepted")
    hub.part.service.patience = PATIENCE
    assert hub.topup(account="slow").status_code in (200, 201)
    assert hub.client.get(f"/v1/prepaid/requests/{answer.json()['id']}").json()["status"] == "posted"


def test_a_bounced_payment_is_taken_back_once(hub: Hub) -> None:
    hub.enrol("bounce")
    hub.topup(account="bounce", external_ref="bank-1")
    path = "/v1/prepaid/accounts/bounce/topups/bank-1/reversal"
    assert [hub.client.post(path, json={"reason": "no cover"}).status_code for _ in range(2)] == [201, 200]
    assert hub.balance("bounce") == "0.00"
    assert hub.client.post(path.replace("bank-1", "bank-2"), json={}).status_code == 422
    page = hub.client.get("/v1/prepaid/accounts/bounce/ledger", params={"limit": 1}).json()
    assert [item["kind"] for item in page["items"]] == ["TOPUP"]
    page = hub.client.get("/v1/prepaid/accounts/bounce/ledger", params={"limit": 1, "cursor": page["next"]}).json()
    assert ([item["change"] for item in page["items"]], page["next"]) == (["-20.00"], None)


def test_adjustments_above_the_limit_need_somebody_else(hub: Hub) -> None:
    hub.enrol("adjust")
    path = "/v1/prepaid/accounts/adjust/adjustments"
    body = {"amount": "-10.01", "reason": "meter read wrong", "user": "ann"}
    assert hub.client.post(path, json={**body, "approver": "ann"}).status_code == 422
    assert hub.client.post(path, json={**body, "approver": "bob"}).status_code == 201
    assert hub.client.post(path, json={**body, "amount": "10.00"}).json()["balance"] == "-0.01"
    assert hub.client.post(path, json={"amount": "1", "user": "ann"}).status_code == 422


def test_a_large_adjustment_waits_for_somebody_else(hub: Hub) -> None:
    hub.enrol("waits")
    path, orders = "/v1/prepaid/accounts/waits/adjustments", "/v1/prepaid/adjustments"
    body = {"amount": "25.00", "reason": "burst pipe", "user": "ann"}
    first = hub.client.post(path, json=body, headers={"Idempotency-Key": "w1"})
    assert (first.status_code, first.json()["state"], first.json()["amount"]) == (202, "waiting", "25.00")
    order = first.json()["id"]
    assert first.headers["location"] == f"{orders}/{order}"
    assert hub.client.post(path, json=body, headers={"Idempotency-Key": "w1"}).json() == first.json(), "asked again, it is the same"
    assert hub.client.post(path, json={**body, "amount": "26.00"}, headers={"Idempotency-Key": "w1"}).status_code == 409
    assert hub.balance("waits") == "0.00"
    assert hub.client.post(path, json={**body, "reason": ""}).status_code == 422
    assert hub.client.post(path.replace("waits", "nobody-here"), json=body).status_code == 404

    own = hub.client.post(f"{orders}/{order}/approve", json={"user": "ann"})
    assert (own.status_code, own.json()["type"].rpartition(":")[2]) == (403, "four-eyes")
    assert hub.client.post(f"{orders}/{'0' * 32}/approve", json={"user": "bob"}).status_code == 404
    approved = hub.client.post(f"{orders}/{order}/approve", json={"user": "bob"})
    assert (approved.status_code, approved.json()["state"], approved.json()["outcome"]["balance"]) == (200, "approved", "25.00")
    assert hub.client.post(f"{orders}/{order}/approve", json={"user": "cid"}).status_code == 409
    assert hub.client.get(f"{orders}/{order}").json()["decided_by"] == "bob"
    with hub.engine as driver:
        [posting] = [p for p in driver.said["Posting"] if p["account"] == "waits"]
    assert (posting["kind"], posting["amount"]) == ("ADJUST", 2500)

    other = hub.client.post(path, json=body).json()["id"]
    assert hub.client.post(f"{orders}/{other}/reject", json={"user": "bob", "reason": "no"}).json()["state"] == "rejected"
    assert hub.client.post(f"{orders}/{other}/approve", json={"user": "bob"}).status_code == 409
    assert hub.balance("waits") == "25.00"


def test_emergency_credit_debts_hold_and_modes(hub: Hub) -> None:
    hub.enrol("life", opening="0.50", arrears="9.00")
    assert hub.client.post("/v1/prepaid/accounts/life/emergency-credit", json={}).json()["balance"] == "5.50"
    assert hub.client.post("/v1/prepaid/accounts/life/emergency-credit", json={}).status_code == 422
    hub.client.put("/v1/prepaid/accounts/life/debts", json={"amount": "3.00", "name": "meter", "per_day": "0.10"})
    found = hub.client.get("/v1/prepaid/accounts/life/debts").json()["items"]
    assert [(debt["name"], debt["left"]) for debt in found] == [("arrears", "9.00"), ("meter", "3.00")]
    assert hub.client.post("/v1/prepaid/accounts/life/hold", json={}).status_code == 422
    assert hub.client.post("/v1/prepaid/accounts/life/hold", json={"reason": "medical"}).json()["status"] == "done"
    assert hub.client.get("/v1/prepaid/accounts/life").json()["hold"] == "medical"
    assert hub.client.post("/v1/prepaid/accounts/life/release", json={}).status_code == 200
    assert hub.client.post("/v1/prepaid/accounts/life/mode", json={"mode": "PREPAID"}).status_code == 422
    assert hub.client.post("/v1/prepaid/accounts/life/mode", json={"mode": "POSTPAID"}).status_code == 201
    assert hub.client.get("/v1/prepaid/accounts/life/balance").json()["state"] == "closed"


def test_commands_reach_the_device_and_tell_what_became_of_them(hub: Hub) -> None:
    hub.enrol("device", device="d9")
    path = "/v1/prepaid/accounts/device/commands"
    assert hub.client.post(path, json={"action": "DISCONNECT"}).status_code == 422
    for order in ({"action": "DISCONNECT", "reason": "tamper"}, {"action": "READ"}, {"action": "LOAD_LIMIT", "watts": 2000}):
        id = hub.client.post(path, json=order).json()["command"]
        found = hub.client.get(f"{path}/{id}").json()
        assert (found["status"], found["device"]) == ("sent", "d9")
        assert found["action"] == order["action"].lower().replace("_", "-")
        assert found["limit"] == order.get("watts")
    assert hub.client.get(f"/v1/prepaid/accounts/life/commands/{id}").status_code == 404, "somebody else's command"
    assert hub.client.get(f"/v1/prepaid/commands/{id}").status_code == 200


def test_lists_are_filtered_and_paged(hub: Hub) -> None:
    hub.enrol("l1", "l2", "l3")
    names, cursor = [], None
    while True:
        page = hub.client.get(
            "/v1/prepaid/accounts", params={"state": "active", "limit": 2, **({"cursor": cursor} if cursor else {})}
        ).json()
        names += [item["account"] for item in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert {"l1", "l2", "l3"} <= set(names)
    assert len(names) == len(set(names))
    assert hub.client.get("/v1/prepaid/accounts", params={"cursor": "x"}).status_code == 422
    assert hub.client.get("/v1/prepaid/tariffs").json()["items"][0]["id"] == TARIFF["id"]


def used(hub: Hub, account: str) -> None:
    """Two days of consumption, in the store and in the engine."""
    hub.enrol(account)
    hub.topup(account=account, key=f"t{account}", external_ref="=1+1")
    days = {"2026-03-02": [500_000] * 24, "2026-03-03": [0] * 12 + [250_000] * 12}
    blocks = [finals_of(account, day, values, device=f"d-{account}") for day, values in days.items()]
    table = rows.final_days(blocks)
    assert table is not None
    hub.store.insert_arrow("final_days", table)
    with hub.engine as driver:
        for day, values in days.items():
            driver.use(day, str(sum(values) / 1_000_000), account, device=f"d-{account}")


def test_usage_by_day_and_hour_adds_up_to_the_postings(hub: Hub) -> None:
    used(hub, "usage")
    span = {"from": "2026-03-01", "to": "2026-03-03"}
    found = hub.client.get("/v1/prepaid/accounts/usage/usage", params=span).json()["items"]
    assert [(row["day"], row["quantity"], row["cost"]) for row in found] == [("2026-03-02", "12", "3.60"), ("2026-03-03", "3", "0.90")]
    hours = hub.client.get("/v1/prepaid/accounts/usage/usage", params={**span, "grain": "hour"}).json()["items"]
    assert len(hours) == 48
    assert hours[0]["local"] == "2026-03-02T00:00:00+01:00"
    assert sum(round(float(row["cost"]) * 100) for row in hours) == 450
    assert {row["cost"] for row in hours[:24]} == {"0.15"}
    assert hub.client.get("/v1/prepaid/accounts/usage/usage", params={"from": "2026-03-03", "to": "2026-03-01"}).status_code == 422


def test_the_statement_as_csv_and_pdf(hub: Hub) -> None:
    used(hub, "paper")
    path, span = "/v1/prepaid/accounts/paper/statement", {"from": "2026-03-01", "to": "2026-03-31"}
    answer = hub.client.get(path, params=span)
    lines = list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"))))
    assert [(line["kind"], line["amount"], line["balance"]) for line in lines] == [
        ("TOPUP", "20.00", "20.00"), ("ENERGY", "-3.60", "16.40"), ("ENERGY", "-0.90", "15.50"),
    ]  # fmt: skip
    assert lines[0]["reference"] == "'=1+1", "no formula from outside"
    pdf = hub.client.get(path, params={**span, "format": "pdf", "language": "de"})
    assert pdf.headers["content-type"] == "application/pdf"
    assert pdf.content.startswith(b"%PDF-")
    text = text_of(pdf.content)
    for word in ("Kontoauszug", "paper", "Anfangsstand", "15.50", "Aufladung", "2026-03-03"):
        assert word in text, word


def test_replay_tells_each_posting_with_the_reads_behind_it(hub: Hub) -> None:
    used(hub, "why")
    found = hub.client.get("/v1/prepaid/accounts/why/replay").json()
    assert all(step["sound"] for step in found["items"])
    topup, first, second = found["items"]
    assert (topup["request"]["action"], topup["reads"]) == ("topup", [])
    assert (first["day"], first["change"]) == ("2026-03-02", "-3.60")
    assert [(r["quantity"], r["conditions"], r["device"]) for r in first["reads"]] == [("12", {"regular": 24}, "d-why")]
    assert second["reads"][0]["quantity"] == "3"
    half = hub.client.get("/v1/prepaid/accounts/why/replay", params={"limit": 2}).json()
    rest = hub.client.get("/v1/prepaid/accounts/why/replay", params={"after": half["next"]}).json()
    assert [*half["items"], *rest["items"]] == found["items"]


def test_another_tariff_is_tried_on_past_usage(hub: Hub) -> None:
    used(hub, "try")
    hub.store.insert_arrow("determinant_days", days_of("try", {"2026-03-02": 12_000_000, "2026-03-03": 3_000_000}))
    body = {"tariff": {"id": "new", "versions": [{"slabs": [{"up_to": "10", "rate": "0.10"}, {"rate": "0.50"}], "fixed": "3.10"}]},
            "first": "2026-03-02", "last": "2026-03-03"}  # fmt: skip
    found = hub.client.post("/v1/prepaid/accounts/try/try", json=body).json()
    (month,) = found["months"]
    assert month["asked"]["charges"] == {"energy": "3.50", "fixed": "0.20"}
    assert (month["own"]["total"], found["difference"]) == ("4.50", "-0.80")
    bad = {**body, "tariff": {"id": "new", "versions": [{"fixed": "1"}]}}
    answer = hub.client.post("/v1/prepaid/accounts/try/try", json=bad)
    assert (answer.status_code, "slabs" in answer.json()["detail"]) == (422, True)


def days_of(account: str, days: dict[str, int]) -> object:
    """Stored daily sums."""
    from datetime import date

    from tests.store.conftest import days as block

    numbers = {(date.fromisoformat(day) - date(1970, 1, 1)).days: amount for day, amount in days.items()}
    found = [
        {"device": f"d-{account}", "account": account, "day": day, "tou": [0], "quantities": [amount]} for day, amount in numbers.items()
    ]
    return rows.determinant_days([block(found, [""])])


def test_verify_finds_what_was_tampered_with(hub: Hub) -> None:
    """Comes last: it breaks the ledger of one account."""
    prover = Prover(hub.part.desk.explaining, clock=lambda: 1_800_000_000.0)
    hub.enrol("v1", "v2")
    hub.topup(account="v1")
    before = prover.once()
    hub.topup("7.00", account="v2")
    after = prover.once()
    assert before["holds"], before
    assert after["holds"], after
    assert after["postings"] == before["postings"] + 1, "only what is new was read"
    assert (_metric("mdh_prepaid_ledger_holds"), _metric("mdh_prepaid_ledger_proved_seconds")) == (1, 1_800_000_000)
    found = hub.client.get("/v1/prepaid/verify").json()
    assert found["holds"], found
    assert found["postings"] > 10
    alone = hub.client.get("/v1/prepaid/verify", params={"account": "v2"}).json()
    assert (alone["accounts"], alone["postings"], alone["customers"]) == (1, 1, "7.00")
    hub.store.command("ALTER TABLE prepaid_postings UPDATE amount = 701 WHERE account = 'v2' SETTINGS mutations_sync = 1")
    found = hub.client.get("/v1/prepaid/verify").json()
    assert not found["holds"]
    assert all(flaw.startswith("v2") for flaw in found["flaws"])
    assert hub.client.get("/v1/prepaid/verify", params={"account": "v1"}).json()["holds"]
    assert not hub.client.get("/v1/prepaid/accounts/v2/replay").json()["items"][0]["sound"]
    anew = Prover(hub.part.desk.explaining)
    assert not anew.once()["holds"]
    assert _metric("mdh_prepaid_ledger_holds") == 1, "it may have been on its way into the store"
    assert not anew.once()["holds"]
    assert _metric("mdh_prepaid_ledger_holds") == 0


def _metric(name: str) -> float | None:
    return REGISTRY.get_sample_value(name)
