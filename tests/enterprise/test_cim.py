"""The door of IEC 61968-100: master data as objects, and what is refused, with the standard's codes."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from lxml import etree

from connectors import safe_xml
from connectors.enterprise.cim import MOST, take, written
from connectors.enterprise.intake import Intake
from connectors.enterprise.simulator.cim import PROFILE, REGISTER, fill, link, meter, named, payload
from connectors.head_end.problems import ProblemError
from connectors.subscribers.writers.cim import MESSAGE, reading_type
from schemas.topology.enterprise import EnterpriseSettings, System
from streams.enterprise.fold import EnterpriseFold
from streams.runtime.fold import Message
from tests.enterprise.test_sap_door import CODEC, NOW, FakeWriter

HEADER = {"Source": "CIS", "MessageID": "m1"}


def stamp(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()


def message(verb: str, noun: str, *elements: Any, header: dict[str, str] | None = None) -> bytes:
    root = etree.Element(f"{{{MESSAGE}}}RequestMessage")
    fill(etree.SubElement(root, f"{{{MESSAGE}}}Header"), {"Verb": verb, "Noun": noun, **(HEADER if header is None else header)}, MESSAGE)
    etree.SubElement(root, f"{{{MESSAGE}}}Payload").append(payload(f"http://iec.ch/TC57/2011/{noun}#", noun, *elements))
    return etree.tostring(root)


def asked(data: bytes, **system: Any) -> tuple[list[str], list[dict[str, Any]]]:
    """Result, code and reason of the acknowledgement, and the items that went on."""
    writer = FakeWriter()
    settings = EnterpriseSettings(systems={"cim": System(protocol="cim", **system)})
    part: Any = SimpleNamespace(settings=settings, zone="Europe/Berlin", intake=Intake(writer, CODEC, lambda: NOW))  # type: ignore[arg-type]
    answer = safe_xml.parsed(take(part, "cim", data))
    assert safe_xml.text(answer, "Header/CorrelationID") == safe_xml.text(safe_xml.parsed(data), "Header/MessageID")
    told = [safe_xml.text(answer, f"Reply/{path}") for path in ("Result", "Error/code", "Error/reason")]
    return told, [item for request in writer.requests for item in request["items"]]


class Shelf:
    """A store of one interval."""

    def __init__(self, many: int = 1) -> None:
        self.many, self.asked = many, dict[str, Any]()

    def rows(self, sql: str, parameters: Any) -> list[dict[str, Any]]:
        self.asked = dict(parameters)
        about = {"device": "M1", "channel": "E1", "unit": "kWh", "direction": "delivered", "seconds": 900, "at": NOW, "condition": 500_000}
        return [{**about, "value": Decimal("1.25")}] * self.many if "FROM intervals" in sql else []


def objects(data: bytes, **system: Any) -> list[dict[str, Any]]:
    told, items = asked(data, **system)
    assert told[0] == "OK"
    assert [item["category"] for item in items] == [""] * len(items), items
    return [one for item in items for one in item["body"]["objects"]]


def test_a_meter_is_a_device_with_a_component_for_each_reading_type() -> None:
    what = meter("M1")
    what["Meter"]["MeterMultipliers"] = [{"kind": "ctRatio", "value": "40"}, {"kind": "kR", "value": "1.5"}]
    device, profile, register = objects(message("create", "MeterConfig", what))
    assert (device["kind"], device["object"], device["body"]["serial"], device["body"]["manufacturer"]) == ("device", "M1", "SM1", "Maker")
    assert (profile["object"], profile["body"]["seconds"], profile["body"]["unit"]) == (f"M1/{PROFILE}", 900, "kWh")
    assert (register["body"]["seconds"], register["body"]["dials"], register["body"]["decimals"]) == (0, 6, 3)
    assert profile["body"]["multiplier"] == 60_000_000
    assert reading_type(PROFILE, "kWh", 1, 900) == PROFILE
    assert reading_type(REGISTER, "kWh", 1, 0) == REGISTER, "a channel named by its reading type is told under it"


@pytest.mark.parametrize(
    ("verb", "wanted"), [("change", ["patch", "patch", "patch"]), ("close", ["end"]), ("delete", ["remove", "remove", "remove"])]
)
def test_verbs(verb: str, wanted: list[str]) -> None:
    assert [one["action"] for one in objects(message(verb, "MeterConfig", meter("M1")))] == wanted


def test_links_are_installations_and_subscriptions_and_closed_links_their_ends() -> None:
    at = 1_767_225_600
    both = link(stamp(at), Meter="M1", UsagePoint="P1", CustomerAccount="A1", CustomerAgreement="US1", PricingStructure="T1")
    install, subscription = objects(message("create", "MasterDataLinkageConfig", both))
    assert (install["object"], install["from"]) == (f"M1/install/{at}", at)
    assert (subscription["object"], subscription["from"], subscription["body"]["rate"]) == ("US1", at, "T1")
    remove, end = objects(message("close", "MasterDataLinkageConfig", both))
    assert (remove["body"]["event"], remove["from"], end["action"], end["from"]) == ("remove", at, "end", at)


def test_zones_are_the_systems_or_mapped_codes() -> None:
    plain = {"UsagePoint": named("P1")}
    coded = {"UsagePoint": {**named("P1"), "UsagePointLocation": {"timeZoneOffset": "600"}}}
    assert objects(message("create", "UsagePointConfig", plain))[0]["body"]["zone"] == "Europe/Berlin"
    (point,) = objects(message("create", "UsagePointConfig", coded), zones={"600": "Australia/Brisbane"})
    assert point["body"]["zone"] == "Australia/Brisbane"


def test_one_bad_meter_in_a_thousand_is_refused_and_the_rest_go_on() -> None:
    many = [meter(f"M{n}") for n in range(1000)]
    many[500]["Meter"]["EndDeviceFunctions"]["Registers"][0]["Channels"]["ReadingType"]["@ref"] = "1.2.3"
    told, items = asked(message("create", "MeterConfig", *many))
    assert told[0] == "OK", "the message is taken; what became of each follows"
    assert [(item["id"], item["category"], item["body"]["id"]) for item in items if item["category"]] == [("m1/500", "DCE.VME", "M500")]
    assert len(items) == 1000


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ({"UsagePoint": {}}, "needs Names/name or an mRID"),
        ({"UsagePoint": {**named("P"), "UsagePointLocation": {"timeZoneOffset": "600"}}}, "stands for no zone"),
    ],
)
def test_usage_points_that_cannot_be(what: Any, words: str) -> None:
    _, (item,) = asked(message("create", "UsagePointConfig", what))
    assert words in item["note"]


@pytest.mark.parametrize(
    ("objects", "at"),
    [({"Meter": "M"}, "2026-01-01"), ({"UsagePoint": "P"}, "2026-01-01"), ({"UsagePoint": "P", "Meter": "M"}, "yesterday")],
)
def test_links_of_nothing_and_of_no_time(objects: dict[str, str], at: str) -> None:
    told, (item,) = asked(message("create", "MasterDataLinkageConfig", link(at, **objects)))
    assert (told[0], item["category"]) == ("OK", "PRE.VAE")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (message("create", "MeterConfig", meter("M"), header={"Source": "CIS"}), "1.5"),
        (message("create", "MeterConfig"), "1.7"),
        (message("paint", "MeterConfig", meter("M")), "2.9"),
        (message("create", "Weather"), "2.5"),
        (message("create", "MeterConfig", meter("M"), header={**HEADER, "Timestamp": stamp(NOW - 8 * 86_400)}), "6.1"),
        (message("create", "MeterConfig", meter("M"), header={**HEADER, "Timestamp": stamp(NOW + 3600)}), "6.1"),
        (message("create", "MeterConfig", meter("M"), header={**HEADER, "Timestamp": "soon"}), "1.8"),
        (message("create", "MeterConfig", meter("M"), header={**HEADER, "ReplyAddress": "http://elsewhere"}), "1.5"),
        (message("create", "MeterConfig", meter("M"), header={**HEADER, "Source": "SOMEBODY"}), "7.5"),
    ],
)
def test_messages_are_refused_with_the_standards_codes_and_nothing_goes_on(data: bytes, code: str) -> None:
    told, items = asked(data, senders=["CIS"], url="http://cis/in")
    assert (told[0], told[1], items) == ("FAILED", code, [])


def test_replies_go_to_the_system_whose_address_the_message_names() -> None:
    assert asked(message("create", "MeterConfig", meter("M"), header={**HEADER, "ReplyAddress": "http://cis/in"}), url="http://cis/in")[1]


BOMB = b'<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>'


@pytest.mark.parametrize(
    "data",
    [
        BOMB + message("create", "MeterConfig", meter("M")),
        message("create", "MeterConfig", meter("M")).replace(MESSAGE.encode(), b"http://example.com/other"),
        message("create", "MeterConfig", meter("M"))[:-20],
        b"<a>" * 100_000,
        "<?xml version='1.0' encoding='utf-16'?><a/>".encode("utf-16"),
        b"",
    ],
)
def test_hostile_and_strange_documents_are_no_messages(data: bytes) -> None:
    with pytest.raises(ProblemError) as caught:
        asked(data)
    assert caught.value.status == 422


def test_a_reply_names_each_object_that_was_refused() -> None:
    items = [
        {"id": "a", "reference": "m1/0", "body": {"id": "M1"}, "category": "", "note": ""},
        {"id": "b", "reference": "m1/1", "body": {"id": "M2"}, "category": "PRE.CVE", "note": "exists already"},
    ]
    reply = safe_xml.parsed(written({"id": "r", "kind": "meter-config-answer", "reference": "m1", "items": items}, Shelf()) or b"")
    told = [safe_xml.text(reply, path) for path in ("Header/Noun", "Header/CorrelationID", "Reply/Result", "Reply/Error/ID")]
    assert told == ["MeterConfig", "m1", "PARTIAL", "M2"]
    assert written({"id": "r", "kind": "series", "reference": "", "items": []}, Shelf()) is None


def test_events_of_devices_are_told_by_their_cim_codes() -> None:
    body = {"text": "outage 12", "at": NOW, "device": "M1", "severity": "3"}
    told = written({"id": "r", "kind": "event", "items": [{"id": "e", "reference": "", "body": body, "category": "", "note": ""}]}, Shelf())
    event = next(safe_xml.parsed(told or b"").iter("{*}EndDeviceEvent"))
    assert (safe_xml.text(event, "Assets/Names/name"), event[-1].get("ref")) == ("M1", "3.26.0.85")


def get(**header: str) -> bytes:
    root = etree.Element(f"{{{MESSAGE}}}RequestMessage")
    fill(etree.SubElement(root, f"{{{MESSAGE}}}Header"), {"Verb": "get", "Noun": "MeterReadings", **HEADER, **header}, MESSAGE)
    wanted = etree.SubElement(etree.SubElement(root, f"{{{MESSAGE}}}Request"), "GetMeterReadings")
    fill(etree.SubElement(etree.SubElement(wanted, "EndDevice"), "Names"), {"name": "M1"}, "")
    fill(etree.SubElement(etree.SubElement(wanted, "ReadingSchedule"), "timePeriod"), {"start": stamp(NOW - 900), "end": stamp(NOW)}, "")
    return etree.tostring(root)


def test_readings_that_are_to_come_later_are_acknowledged_and_sent_with_the_requests_id() -> None:
    told, (item,) = asked(get(AsyncReplyFlag="true", ReplyAddress="http://cis/in"), url="http://cis/in")
    assert (told, item["id"], item["body"]) == (
        ["OK", "", ""], "m1", {"devices": ["M1"], "start": NOW - 900, "end": NOW, "types": []}
    )  # fmt: skip
    fold = EnterpriseFold(EnterpriseSettings(systems={"cim": System(protocol="cim")}))
    request = {"system": "cim", "protocol": "cim", "kind": "readings-get", "message": "m1", "bulk": False, "received_at": NOW}
    items = [{**item, "body": orjson.dumps(item["body"]).decode()}]
    (answer,) = [out.body for out in fold.apply(Message("EnterpriseRequest", {**request, "items": items}, "a" * 32)).outputs]
    answer["items"] = [{**one, "body": orjson.loads(one["body"])} for one in answer["items"]]
    shelf = Shelf()
    reply = safe_xml.parsed(written(answer, shelf) or b"")
    assert [safe_xml.text(reply, path) for path in ("Header/CorrelationID", "Header/Noun", "Reply/Result")] == ["m1", "MeterReadings", "OK"]
    assert [one.text for one in reply.iter("{*}value")] == ["1.25"]
    assert (shelf.asked["devices"], shelf.asked["start"], shelf.asked["end"]) == (["M1"], NOW - 900, NOW)
    many = safe_xml.parsed(written(answer, Shelf(MOST + 1)) or b"")
    assert [safe_xml.text(many, path) for path in ("Reply/Result", "Reply/Error/code")] == ["FAILED", "3.1"]


def test_later_readings_need_a_system_that_is_known() -> None:
    told, items = asked(get(AsyncReplyFlag="true", ReplyAddress="http://elsewhere"), url="http://cis/in")
    assert (told[:2], items) == (["FAILED", "1.5"], [])
