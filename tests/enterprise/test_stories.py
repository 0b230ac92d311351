"""Whole conversations with SAP: real XML through the real doors, over a broker and a store, with agents between."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from connectors import safe_xml
from connectors.clickhouse import migrate
from connectors.clickhouse.store import open_store
from connectors.enterprise.simulator.ccb import Ccb, month_to_charge, sync_to_bill
from connectors.enterprise.simulator.cim import Cim, link, meter, meter_to_reading, usage_point
from connectors.enterprise.simulator.hub import Hub
from connectors.enterprise.simulator.sap import CHARGE, Sap, device, meter_to_cash, order
from connectors.enterprise.simulator.sap import month_to_charge as sap_month_to_charge
from schemas.topology import load_topology
from tests.enterprise.world import World, world
from tests.patience import PATIENCE


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[World]:
    topology = load_topology(None)
    enterprise = topology.enterprise.model_copy(update={"ask": 1})
    store = open_store(f"chdb://{tmp_path}/store")
    migrate.up(store)
    with world(topology.model_copy(update={"enterprise": enterprise, "partitions": topology.partitions}), store, tmp_path) as made:
        made.tick()
        yield made
    store.close()


def test_from_sync_to_what_stands_on_the_bill(hub: World) -> None:
    heard: list[str] = []
    story = sync_to_bill(Ccb(Hub(hub.client, idle=hub.tick, patience=PATIENCE, say=heard.append)), "E2000001")
    total = [one for one in story["usage"] if one["sqi"] == "interval-consumption"]
    assert [Decimal(one["quantity"]) for one in total] == [Decimal(story["intervals"]) / 4]
    assert total[0]["uom"] == "kWh"
    assert any("used on bill" in line for line in heard)


def test_from_a_new_meter_to_the_bill(hub: World) -> None:
    heard: list[str] = []
    sap = Sap(Hub(hub.client, idle=hub.tick, patience=PATIENCE, say=heard.append))
    story = meter_to_cash(sap, "M1000001")
    assert story["switched"] == {"disconnect": "1", "reconnect": "1"}
    assert story["reading"]["MeterReadingTime"] == "23:59:59"
    assert story["reading"]["MeterReadingTypeCode"] == "01"
    slots = len(story["profile"])
    assert slots in (92, 96, 100)
    assert Decimal(story["sum"]) == Decimal(slots) / 10
    assert Decimal(story["reading"]["MeterReadingResultValue"]) == Decimal("1234.567") + Decimal(slots) / 10, "cut to three decimals"


def test_a_prepaid_month_reaches_sap_until_it_is_confirmed_and_again_with_its_late_reads(hub: World) -> None:
    heard: list[str] = []
    moved: list[int] = []

    def idle() -> None:
        told = hub.messages("charge")
        if told and not moved:  # nobody has confirmed it for a day
            moved.append(len(sap.charges(told[0]["items"][0]["body"]["account"])))
            hub.tick(hub.now + hub.topology.enterprise.charge_wait)
        hub.tick()

    sap = Sap(Hub(hub.client, idle=idle, patience=PATIENCE, say=heard.append))
    sap.forgets[CHARGE] = 1
    story = sap_month_to_charge(sap, "M3000001")
    assert story["provisional"][1] is False
    told = [(one.version, one.replaces) for one in sap.charges("PODM3000001") if one.id in (story["first"], story["last"])]
    assert told[:2] == [(1, ""), (1, "")], "told again under the same id"
    ids = [words["MessageHeader"]["UUID"] for root, words in sap.inbox if root.service == CHARGE]
    assert ids[0] == ids[1]
    assert told[-1][0] > 1
    assert told[-1][1]
    assert sap.forgets[CHARGE] == 0


def test_a_prepaid_month_reaches_ccb_and_what_it_says_of_it_counts(hub: World) -> None:
    heard: list[str] = []
    ccb = Ccb(Hub(hub.client, idle=hub.tick, patience=PATIENCE, say=heard.append))
    story = month_to_charge(ccb, "E3000001")
    assert heard[-1] == "used on bill"
    assert Decimal(story["quantity"]) in (Decimal("11.5"), 12, Decimal("12.5")), "a day of 23, 24 or 25 hours at half a kW"
    last = next(one for one in ccb.charges("USE3000001") if one.id == story["last"])
    for action, id in (("reject", last.id), ("reject", story["first"]), ("accept", "nothing")):
        answer = hub.client.patch(f"/v1/ccb/charges/{id}/lifecycle", json={"action": action})
        assert answer.status_code == 202

    def refused() -> list[str]:
        return sorted(one["items"][0]["category"] for one in hub.messages("charge-lifecycle-answer", "ccb") if one["items"][0]["category"])

    assert hub.until(lambda: len(found := refused()) == 3 and found) == ["PRE.CVE", "PRE.IDE", "PRE.IDE"]


def test_from_a_meter_of_cim_to_its_readings_and_what_was_refused_is_tried_again(hub: World) -> None:
    heard: list[str] = []
    cim = Cim(Hub(hub.client, idle=hub.tick, patience=PATIENCE, say=heard.append))
    story = meter_to_reading(cim, "C2000001")
    assert story["intervals"] in (92, 96, 100)
    assert Decimal(story["total"]) == Decimal(story["intervals"]) / 4
    assert heard[-1] == "connect: OK"

    early = cim.config("create", "MasterDataLinkageConfig", link("2026-01-01T00:00:00Z", Meter="C9", UsagePoint="UP9"))
    reply = hub.until(lambda: cim.replies(early))[0]
    told = [safe_xml.text(reply, f"Reply/{path}") for path in ("Result", "Error/code", "Error/reason", "Error/ID")]
    assert told == ["FAILED", "2.29", "there is no device C9", "UP9"]
    retry = {"system": "cim", "category": "PRE.IDE", "reason": "its meter has come"}
    assert hub.until(lambda: hub.client.post("/v1/conversations/refused/retry", json=retry).json().get("items")) == 1
    again = hub.until(lambda: len(found := cim.replies(early)) == 2 and found)[1]
    assert safe_xml.text(again, "Reply/Error/code") == "2.29", "it is refused again, and can be tried again"
    for noun, what in (("UsagePointConfig", usage_point("UP9")), ("MeterConfig", meter("C9"))):
        cim.done(noun, cim.config("create", noun, what))
    assert hub.client.post("/v1/conversations/refused/retry", json={"system": "cim", "items": ["nobody"]}).status_code == 404
    named = {"system": "cim", "items": [f"{early}/0"]}
    hub.until(lambda: hub.client.post("/v1/conversations/refused/retry", json=named).status_code == 202)
    last = hub.until(lambda: len(found := cim.replies(early)) == 3 and found)[2]
    assert safe_xml.text(last, "Reply/Result") == "OK"
    rows = hub.client.get("/v1/conversations", params={"kind": "refused-item", "system": "cim"}).json()["items"]
    assert [(one["subject"], one["state"]) for one in rows] == [(f"{early}/0", "tried again")]


CIM = "http://iec.ch/TC57/2011/schema/message"


def cim(verb: str, noun: str, id: str, inner: str, kind: str = "RequestMessage", correlation: str = "") -> bytes:
    header = (
        f"<Verb>{verb}</Verb><Noun>{noun}</Noun><Source>HES</Source><MessageID>{id}</MessageID><CorrelationID>{correlation}</CorrelationID>"
    )
    return f'<{kind} xmlns="{CIM}"><Header>{header}</Header>{inner}</{kind}>'.encode()


def test_cim_readings_in_and_out_and_a_control_with_its_outcome(hub: World) -> None:
    def send(data: bytes) -> str:
        answer = hub.client.post("/v1/cim", content=data)
        assert answer.status_code == 200, answer.text
        return answer.text

    now = datetime.now(UTC)
    day = (now - timedelta(days=3)).date().isoformat()
    values = "".join(
        f"<IntervalReadings><timeStamp>{day}T{hour:02d}:00:00Z</timeStamp><value>2.5</value></IntervalReadings>" for hour in range(1, 24)
    )
    block = f'<IntervalBlocks>{values}<ReadingType ref="0.0.7.4.1.1.12.0.0.0.0.0.0.0.0.3.72.0"/></IntervalBlocks>'
    meter = "<Meter><Names><name>C1</name></Names></Meter>"
    readings = f'<MeterReadings xmlns="http://iec.ch/TC57/2011/MeterReadings#"><MeterReading>{block}{meter}</MeterReading></MeterReadings>'
    event = cim("created", "MeterReadings", "m1", f"<Payload>{readings}</Payload>", "EventMessage")
    assert "<e:Result>OK</e:Result>" in send(event)
    assert "OK" in send(event), "sent again it is the same payload"
    period = f"<timePeriod><start>{day}T00:00:00Z</start><end>{day}T23:59:59Z</end></timePeriod>"
    wanted = f"<Request><GetMeterReadings><EndDevice><Names><name>C1</name></Names></EndDevice>{period}</GetMeterReadings></Request>"
    found = hub.until(lambda: (text := send(cim("get", "MeterReadings", "g1", wanted))).count("IntervalReadings>") and text)
    assert found.count("<m:value>2.5</m:value>") == 23
    assert "<e:CorrelationID>g1</e:CorrelationID>" in found

    name = "<Names><name>C1</name></Names>"
    one = f'<EndDeviceControl><mRID>ctl1</mRID><EndDeviceControlType ref="3.31.0.23"/><EndDevices>{name}</EndDevices></EndDeviceControl>'
    send(cim("create", "EndDeviceControls", "c1", f"<Payload><EndDeviceControls>{one}</EndDeviceControls></Payload>"))
    waits = {"device": "C1", "status": "sent"}
    command = hub.until(lambda: hub.client.get("/v1/device-commands", params=waits).json()["items"])[0]
    assert 'ref="3.31.0.23"' in hub.client.get(f"/v1/cim/controls/{command['id']}").text
    at = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    what = f'<createdDateTime>{at}</createdDateTime><EndDeviceEventType ref="3.31.0.68"/><Assets>{name}</Assets>'
    inner = f"<Payload><EndDeviceEvents><EndDeviceEvent>{what}</EndDeviceEvent></EndDeviceEvents></Payload>"
    send(cim("created", "EndDeviceEvents", "e1", inner, "EventMessage", command["id"]))
    answer = hub.until(lambda: hub.messages("connection-answer", "cim"))[0]
    assert (answer["reference"], answer["items"][0]["reference"], answer["items"][0]["category"]) == ("c1", "ctl1", "")
    assert "FAILED" in send(cim("paint", "MeterReadings", "p1", ""))
    assert hub.client.post("/v1/cim", content=b"<!DOCTYPE a><RequestMessage/>").status_code == 422


def test_conversations_survive_losing_every_agent_and_a_bulk_sent_twice_changes_nothing(hub: World) -> None:
    sap = Sap(Hub(hub.client, idle=hub.tick, patience=PATIENCE))
    uuids = sap.bulk("UtilitiesDeviceERPSmartMeterBulkCreateRequest", [device(f"B{n}") for n in range(20)])
    hub.move()
    hub.restart()
    for one in uuids:
        sap.confirmed("device", one)
    changes = sum(len(hub.pipeline.log("master.changes", n)) for n in range(4))
    first = {item["reference"]: item["id"] for message in hub.messages("device-answer") for item in message["items"]}
    hub.restart()
    sap.bulk("UtilitiesDeviceERPSmartMeterBulkCreateRequest", [device(f"B{n}") for n in range(20)], uuids)
    hub.until(lambda: len(hub.messages("device-answer")) == 2)
    again = {item["reference"]: item["id"] for item in hub.messages("device-answer")[-1]["items"]}
    assert again == first
    assert sum(len(hub.pipeline.log("master.changes", n)) for n in range(4)) == changes
    other = sap.single("UtilitiesDeviceERPSmartMeterCreateRequest", device("B0"))
    words = hub.until(lambda: sap.answer_to(other))
    assert words["Log"]["Item"][0]["TypeID"] == "PRE.CVE"
    strange = sap.single("SmartMeterMeterReadingDocumentERPCreateRequest", order("X1", "nowhere", "2026-05-01"))
    assert hub.until(lambda: sap.answer_to(strange))["Log"]["Item"][0]["TypeID"] == "PRE.IDE"
