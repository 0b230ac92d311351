"""Charges of prepaid accounts on their way to the CIS their subscriptions came from."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from lxml import etree

from connectors import safe_xml
from connectors.enterprise.ccb.documents import NAMESPACE
from connectors.enterprise.ccb.documents import written as to_ccb
from connectors.enterprise.ccb.routes import routes
from connectors.enterprise.intake import Intake
from connectors.enterprise.sap.schemas import message_validator
from connectors.enterprise.sap.writing import written as to_sap
from connectors.kafka.mock import MockBroker
from schemas.codec import Codec
from schemas.topology.enterprise import EnterpriseSettings, System
from schemas.topology.rights import Grant, RightsSettings
from tests.enterprise.test_fold import NOW, Talk
from tests.enterprise.test_sap_door import FakeWriter
from tests.prepaid.driver import Driver, settings
from tests.rights.kit import World as Door

CODEC = Codec()
WAIT = 86_400


def charge(version: int, **amounts: int) -> dict[str, Any]:
    return {
        "id": f"c{version}", "account": "a1", "service_point": "P1", "device": "M1", "month": "2026-04-01", "first": "2026-04-03",
        "last": "2026-04-30", "version": version, "at": datetime.fromtimestamp(NOW, UTC), "tariff": "home", "currency": "EUR", "digits": 2,
        "total": sum(amounts.values()), "provisional": False, "unit": "kWh", "quantities": [{"tou": "peak", "quantity": Decimal("12.5")}],
        "lines": [{"kind": name.upper(), "component": name, "amount": amount} for name, amount in amounts.items()],
    }  # fmt: skip


@pytest.fixture(params=["sap", "ccb"])
def talk(request: pytest.FixtureRequest) -> Talk:
    talk = Talk()
    talk.fold.desk.records.put("a/a1", {"system": request.param})
    talk.tick(NOW)
    return talk


def told(talk: Talk, version: int, **amounts: int) -> dict[str, Any]:
    said = talk._tell("PrepaidCharge", charge(version, **amounts))
    (message,) = said["charge"]
    (item,) = message["items"]
    return {**message, "items": [{**item, "body": orjson.loads(item["body"])}]}


def test_a_month_and_its_correction_as_each_system_reads_them(talk: Talk) -> None:
    first, second = told(talk, 1, energy=375, tax=75), told(talk, 2, energy=300)
    assert second["items"][0]["body"]["lines"] == [
        {"kind": "ENERGY", "component": "energy", "amount": "3.00", "change": "-0.75"},
        {"kind": "TRUE_UP", "component": "tax", "amount": "0.00", "change": "-0.75"},
    ]
    for message in (first, second):
        if message["protocol"] == "ccb":
            root = safe_xml.parsed(to_ccb(message))
            assert etree.QName(root).localname == "billableCharge"
            assert next(safe_xml.text(line, "amount") for line in root.iter(f"{{{NAMESPACE}}}billableChargeLine")) in ("3.75", "3.00")
            assert safe_xml.text(root, "replaces") == ("" if message is first else "c1")
        else:
            written = to_sap(message, System(protocol="sap"))
            assert written is not None
            validator = message_validator(written[0].service)
            assert validator.validate(etree.fromstring(etree.tostring(written[1]))), validator.error_log


def state(talk: Talk) -> list[str]:
    return [one["state"] for one in talk.said.get("EnterpriseConversation", [])]


def test_sap_confirms_or_is_told_again_under_the_same_id() -> None:
    talk = Talk()
    talk.fold.desk.records.put("a/a1", {"system": "sap"})
    talk.tick(NOW)
    message = told(talk, 1, energy=375)
    assert (message["bulk"], state(talk)) == (True, ["SENT"])
    again = talk.tick(NOW + WAIT)["charge"][0]
    assert again["items"][0]["id"] == message["items"][0]["id"]
    talk.ask("charge-confirmed", {"id": "c1", "category": "PRE", "note": "no such contract"}, at=NOW + WAIT)
    assert state(talk) == ["REFUSED"]
    told(talk, 2, energy=300)
    talk.ask("charge-confirmed", {"id": "c1", "category": "", "note": ""}, at=NOW + WAIT)
    assert state(talk) == [], "what is said of an older version changes nothing"
    talk.ask("charge-confirmed", {"id": "c2", "category": "", "note": ""}, at=NOW + WAIT)
    assert state(talk) == ["CONFIRMED"]
    assert "charge" not in talk.tick(NOW + 5 * WAIT)


def test_sap_that_never_confirms_is_given_up_in_the_open() -> None:
    talk = Talk()
    talk.fold.desk.records.put("a/a1", {"system": "sap"})
    talk.tick(NOW)
    told(talk, 1, energy=375)
    times = [bool(talk.tick(NOW + day * WAIT).get("charge")) for day in range(1, 7)]
    assert times == [True] * 4 + [False] * 2


def test_ccb_says_what_became_of_it() -> None:
    talk = Talk()
    talk.fold.desk.records.put("a/a1", {"system": "ccb"})
    talk.tick(NOW)
    told(talk, 1, energy=375)
    act = {"id": "c1", "charge": "c1", "bill": "B1", "note": ""}
    assert talk.ask("charge-lifecycle", act | {"action": "used-on-bill"}, system="ccb") == ""
    assert state(talk) == ["USED_ON_BILL"]
    assert talk.ask("charge-lifecycle", act | {"action": "reject"}, system="ccb") == "PRE.CVE"
    assert talk.ask("charge-lifecycle", act | {"action": "accept", "charge": "c9"}, system="ccb") == "PRE.IDE"
    assert "charge" not in talk.tick(NOW + 5 * WAIT)


def test_nobody_is_told_of_accounts_that_are_not_theirs() -> None:
    talk = Talk()
    assert talk._tell("PrepaidCharge", charge(1, energy=1)) == {}
    talk = Talk(systems={"sap": {"protocol": "sap", "charges": False}})
    talk.fold.desk.records.put("a/a1", {"system": "sap"})
    assert talk._tell("PrepaidCharge", charge(1, energy=1)) == {}


def test_the_engine_tells_a_month_when_it_is_over_and_whenever_it_changes() -> None:
    to = Driver(settings(tariffs=[{"id": "home", "versions": [{"rate": "0.30", "taxes": [{"id": "vat", "percent": "20"}]}]}]))
    to.ask("enrol", terms={"from": "2026-03-30", "opening": 10_000})
    to.use("2026-03-30", "10")
    to.use("2026-03-31", "5", tou={"peak": "2", "offpeak": "3"})
    assert "PrepaidCharge" not in to.said
    to.tick("2026-04-01T13:00")
    (month,) = to.said["PrepaidCharge"]
    assert (month["month"], month["first"], month["last"], month["version"]) == ("2026-03-01", "2026-03-30", "2026-03-31", 1)
    assert [(line["component"], line["amount"]) for line in month["lines"]] == [("energy", 450), ("tax/vat", 90)]
    assert {one["tou"]: str(one["quantity"]) for one in month["quantities"]} == {"": "10.000000", "offpeak": "3.000000", "peak": "2.000000"}
    to.restart()
    to.use("2026-03-30", "20", version=2)
    assert [(one["version"], one["total"]) for one in to.said["PrepaidCharge"]] == [(1, 540), (2, 900)]
    to.use("2026-04-01", "1")
    to.tick("2026-04-02T09:00")
    to.ask("postpaid")
    assert [(one["month"], one["total"]) for one in to.said["PrepaidCharge"][2:]] == [("2026-04-01", 36)]
    posted = sum(-posting["change"] for posting in to.said["Posting"] if posting["component"])
    assert posted == 900 + 36
    to.check()


def test_the_route_takes_what_ccb_says_from_those_who_may_and_nothing_else(tmp_path: Path) -> None:
    writer = FakeWriter()
    settings = EnterpriseSettings(systems={"sap": System(protocol="sap"), "ccb": System(protocol="ccb"), "other": System(protocol="ccb")})
    part: Any = SimpleNamespace(settings=settings, intake=Intake(writer, CODEC, lambda: NOW), zone="UTC")  # type: ignore[arg-type]
    with MockBroker() as broker:
        door = Door(broker, tmp_path, RightsSettings(mode="enforced"), routers=[routes(part)])
        door.user("cis", Grant(role="integrator"), machine=True)
        door.user("anna", Grant(role="analyst"))
        client, cis, path = door.browser(), door.token("cis"), "/v1/ccb/charges/c1/lifecycle"
        try:
            said = {"action": "used-on-bill", "bill": "B1", "note": "May"}
            assert client.patch(path, json=said).status_code == 401
            refused = client.patch(path, json=said, headers=door.token("anna"))
            assert (refused.status_code, refused.json()["permission"]) == (403, "usage.billed")
            for wrong in ({}, {"action": "paint"}, {"action": "accept", "colour": "red"}, {"action": "accept", "note": "x" * 1001}):
                assert client.patch(path, json=wrong, headers=cis).status_code == 422, wrong
            for system in ("sap", "nobody"):
                answer = client.patch(path, params={"system": system}, json=said, headers=cis)
                assert (answer.status_code, "speaks ccb" in answer.json()["detail"]) == (422, True)
            assert writer.requests == [], "nothing was taken of what was refused"

            for system in ("ccb", "ccb", "other"):
                answer = client.patch(path, params={"system": system}, json=said, headers=cis)
                assert (answer.status_code, answer.json()) == (202, {"charge": "c1"})
            for key in ("k1", "k1", "k2"):
                assert client.patch(path, json=said, headers={**cis, "Idempotency-Key": key}).status_code == 202
            first, again, other, *keyed = writer.requests
            ids = [request["items"][0]["id"] for request in keyed]
            assert (ids[0] == ids[1], len({*ids, first["items"][0]["id"]})) == (True, 3), "under another key it counts again"
            (item,) = first["items"]
            assert (first["system"], first["kind"], first["bulk"]) == ("ccb", "charge-lifecycle", False)
            assert item["body"] == {"id": "c1", "charge": "c1", "action": "used-on-bill", "bill": "B1", "note": "May"}
            assert again["items"][0]["id"] == item["id"], "said again it is the same"
            assert other["items"][0]["id"] != item["id"]
        finally:
            door.close()
