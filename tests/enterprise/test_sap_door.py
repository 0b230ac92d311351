"""SAP's door: what is refused whole, what item by item, and what it costs."""

from __future__ import annotations

import io
import resource
import uuid
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from lxml import etree

from connectors.enterprise.intake import Intake
from connectors.enterprise.sap.catalog import HEADER, catalog
from connectors.enterprise.sap.documents import SOAP12, build, envelope
from connectors.enterprise.sap.door import Door, FaultError, Taken
from connectors.enterprise.sap.schemas import message_validator, wsdl_of
from connectors.enterprise.simulator import sap
from schemas.codec import Codec
from schemas.topology.enterprise import EnterpriseSettings, System

CODEC = Codec()
NOW = 1_800_000_000
NS = "http://sap.com/xi/IS-U/Global2"
DEVICE = "UtilitiesDeviceERPSmartMeterCreateRequest"
BULK = "UtilitiesDeviceERPSmartMeterBulkCreateRequest"
ORDER = "SmartMeterMeterReadingDocumentERPCreateRequest"


class FakeWriter:
    """Takes records at once."""

    timeout = 1.0

    def __init__(self, keep: bool = True) -> None:
        self.requests: list[dict[str, Any]] = []
        self.keep, self.count = keep, 0

    def write(self, topic: str, value: bytes, **_: Any) -> Future[tuple[int, int]]:
        self.count += 1
        if self.keep:
            body = CODEC.decode(value)
            items = [{**item, "body": orjson.loads(item["body"] or b"null")} for item in body["items"]]
            self.requests.append({**body, "items": items})
        done: Future[tuple[int, int]] = Future()
        done.set_result((0, 0))
        return done


def door(writer: FakeWriter | None = None, **system: Any) -> tuple[Door, FakeWriter]:
    writer = writer or FakeWriter()
    settings = EnterpriseSettings(systems={"sap": System(protocol="sap", **system)})
    return Door(settings, Intake(writer, CODEC, lambda: NOW), "Europe/Berlin"), writer  # type: ignore[arg-type]


def header(at: int = NOW, **more: str) -> dict[str, Any]:
    made = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"UUID": str(uuid.uuid4()), "CreationDateTime": made, "SenderBusinessSystemID": "SAP", **more}


def bulk(root: str, payloads: list[dict[str, Any]], headers: list[dict[str, Any]] | None = None) -> bytes:
    declared = catalog().roots[root]
    headers = headers or [header() for _ in payloads]
    items = [{HEADER: h, declared.payload.name: p} for h, p in zip(headers, payloads, strict=True)]
    return envelope(build(declared, header(), items))


def single(root: str, payload: dict[str, Any], head: dict[str, Any] | None = None, version: str = "") -> bytes:
    declared = catalog().roots[root]
    element = build(declared, head or header(), [{declared.payload.name: payload}])
    return envelope(element, version) if version else envelope(element)


def take(data: bytes, service: str = DEVICE, **system: Any) -> tuple[Taken, list[dict[str, Any]]]:
    entry, writer = door(**system)
    taken = entry.take(service, io.BytesIO(data))
    return taken, [item for request in writer.requests for item in request["items"]]


def refused(data: bytes, service: str = DEVICE, **system: Any) -> str:
    entry, writer = door(**system)
    with pytest.raises(FaultError) as caught:
        entry.take(service, io.BytesIO(data))
    assert writer.count == 0, "nothing is taken of a message that is refused whole"
    return f"{caught.value.code} {caught.value.reason}"


def test_every_service_has_a_wsdl_whose_schema_compiles() -> None:
    for service in catalog().services.values():
        document = etree.fromstring(wsdl_of(service, "http://hub/v1/sap"))
        inner = document.find(".//{http://www.w3.org/2001/XMLSchema}schema")
        assert inner is not None
        etree.XMLSchema(etree.fromstring(etree.tostring(inner)))
        names = {root.name for root in service.roots}
        assert {e.get("name") for e in document.iter("{http://schemas.xmlsoap.org/wsdl/}message")} == names
    assert len(catalog().services) == 25


def test_the_reading_order_is_spelled_as_sap_spells_it() -> None:
    data = single(ORDER, sap.order("1", "M1", "2026-05-01"))
    assert b"<UtiltiesMeasurementTask>" in data
    assert b"<UtiltiesDevice>" in data
    taken, items = take(data, ORDER)
    assert (taken.items, taken.refused) == (1, 0)
    assert items[0]["body"]["date"] == "2026-05-01"
    spelled_right = data.replace(b"Utilties", b"Utilities")
    assert take(spelled_right, ORDER)[1][0]["category"] == "PRE.VAE"


def test_a_soap_1_2_message_is_taken_as_well() -> None:
    taken, items = take(single(DEVICE, sap.device("M1"), version=SOAP12))
    assert taken.version == SOAP12
    assert items[0]["body"]["objects"][0]["object"] == "M1"


def test_one_bad_item_in_a_thousand_is_refused_and_the_rest_go_through() -> None:
    payloads = [sap.device(f"M{n}") for n in range(1000)]
    payloads[500]["StartDate"] = "yesterday"
    taken, items = take(bulk(BULK, payloads))
    assert (taken.items, taken.refused) == (1000, 1)
    bad = [item for item in items if item["category"]]
    assert [(item["category"], item["body"]["device"]) for item in bad] == [("PRE.VAE", "M500")]
    assert "StartDate" in bad[0]["note"]


@pytest.mark.parametrize(
    ("payload", "root", "category", "words"),
    [
        (sap.device("M1") | {"StartDate": "2026-02-01", "EndDate": "2026-01-01"}, DEVICE, "PRE.VAE", "lies before"),
        (sap.order("1", "M1", "9999-99-99"), ORDER, "PRE.VAE", "ScheduledMeterReadingDate"),
        (sap.switch("1", "M1", "77"), "SmartMeterUtilitiesConnectionStatusChangeRequestERPCreateRequest", "DCE.VME", "categories"),
    ],
)
def test_values_are_refused_by_category(payload: dict[str, Any], root: str, category: str, words: str) -> None:
    _, items = take(single(root, payload), root)
    assert items[0]["category"] == category
    assert words in items[0]["note"]


@pytest.mark.parametrize(
    ("change", "category", "words"),
    [
        ({"MeasureUnitCode": "FURLONG"}, "DCE.VME", "units"),
        ({"DecimalValuePrecision": {"TotalDigitNumberValue": 3, "FractionDigitNumberValue": 3}}, "PRE.VAE", "digits"),
        ({"MeterReadingResultAdjustmentFactorValue": "-1"}, "PRE.VAE", "multiplier"),
    ],
)
def test_registers_are_checked(change: dict[str, Any], category: str, words: str) -> None:
    payload = sap.registers("M1")
    payload["Register"][0]["Specifications"] |= change
    root = "UtilitiesDeviceERPSmartMeterRegisterCreateRequest"
    _, items = take(single(root, payload), root)
    assert items[0]["category"] == category
    assert words in items[0]["note"]


def test_expired_future_and_nameless_items_are_refused_one_by_one() -> None:
    heads = [header(), header(NOW - 8 * 86_400), header(NOW + 3600), header(UUID="not one")]
    del heads[3]["UUID"]
    _, items = take(bulk(BULK, [sap.device(f"M{n}") for n in range(4)], heads))
    assert [item["category"] for item in items] == ["", "PRE.VAE", "PRE.VAE", "PRE.IDE"]
    assert "expired" in items[1]["note"]


def test_whole_messages_are_refused_by_category() -> None:
    assert refused(single(DEVICE, sap.device("M1"), header(NOW - 8 * 86_400))).startswith("PRE.VAE the message has expired")
    assert refused(single(DEVICE, sap.device("M1")), senders=["PRD"]).startswith("PRE.AUE SAP may not send here")
    head = header()
    del head["UUID"]
    assert refused(single(DEVICE, sap.device("M1"), head)).startswith("PRE.IDE MessageHeader/UUID is missing")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not well-formed"),
        (b"<a/>", "Envelope, Body"),
        (single(DEVICE, sap.device("M1")).replace(NS.encode(), b"http://example.com/other"), "must be in namespace"),
        (single(ORDER, sap.order("1", "M1", "2026-05-01")), "is no message of"),
        (single(DEVICE, sap.device("M1"))[:-40], "not well-formed"),
        (b'<!DOCTYPE a [<!ENTITY b "c">]>' + single(DEVICE, sap.device("M1")).split(b"?>", 1)[1], "document type"),
        (b"<?xml version='1.0'?>\n" + b"<a>" * 1_000_000, "not well-formed"),
        ("<?xml version='1.0' encoding='utf-16'?><a/>".encode("utf-16"), "UTF-8"),
        (bulk(BULK, [sap.device("M1")]).replace(b"</n0:", b"<Stranger/></n0:"), "does not belong here"),
    ],
)
def test_hostile_and_broken_messages_are_refused_whole(data: bytes, words: str) -> None:
    assert words in refused(data)


def test_a_document_type_behind_many_items_takes_nothing() -> None:
    data = bulk(BULK, [sap.device(f"M{n}") for n in range(2000)])
    assert "document type" in refused(data + b'<!DOCTYPE a [<!ENTITY b "c">]>')


def test_an_item_that_never_ends_is_refused() -> None:
    settings = EnterpriseSettings(item_bytes=100_000, systems={"sap": System(protocol="sap")})
    entry = Door(settings, Intake(FakeWriter(), CODEC, lambda: NOW), "UTC")  # type: ignore[arg-type]
    data = bulk(BULK, [sap.device("M1")]).replace(b"<SerialID>", b"<SerialID>" + b"9" * 400_000)
    with pytest.raises(FaultError, match="longer than"):
        entry.take(DEVICE, io.BytesIO(data))


def test_a_bulk_of_a_hundred_thousand_devices_takes_no_more_memory_than_a_small_one() -> None:
    head, _, tail = bulk(BULK, [sap.device("M0")]).partition(b"<UtilitiesDeviceERPSmartMeterCreateRequestMessage>")
    item, _, end = tail.partition(b"</UtilitiesDeviceERPSmartMeterCreateRequestMessage>")
    tag = b"UtilitiesDeviceERPSmartMeterCreateRequestMessage"
    whole = b"<" + tag + b">" + item + b"</" + tag + b">"

    class Endless(io.RawIOBase):
        """The bulk made as it is read, so that this test holds none of it."""

        def __init__(self, count: int) -> None:
            self.count = count
            self.seek(0)

        def seek(self, at: int, _: int = 0) -> int:
            self.left, self.rest, self.at = self.count, head, 0
            return at

        def tell(self) -> int:
            return self.at

        def read(self, size: int = -1) -> bytes:
            while len(self.rest) < size and self.left:
                some = min(self.left, 100)
                self.rest += whole * some
                self.left -= some
                if not self.left:
                    self.rest += end
            piece, self.rest = self.rest[:size], self.rest[size:]
            self.at += len(piece)
            return piece

    entry, _ = door(FakeWriter(keep=False))
    entry.take(DEVICE, Endless(1000))  # type: ignore[arg-type]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    taken = entry.take(DEVICE, Endless(100_000))  # type: ignore[arg-type]
    assert (taken.items, taken.refused) == (100_000, 0)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8 * 1024, "KiB"


def test_messages_the_hub_writes_follow_the_published_schema() -> None:
    from connectors.enterprise.sap.writing import written

    system = System(protocol="sap")
    answer = {"id": "0" * 32, "reference": str(uuid.uuid4()), "body": {"id": "M1"}, "category": "PRE.IDE", "note": "there is no device"}
    for service in catalog().services.values():
        if service.to != "hub" or service.confirmation is None:
            continue
        for many in (True, False):
            message = {"id": "1" * 32, "kind": f"{service.does}-answer", "reference": "", "bulk": many, "at": NOW, "items": [answer]}
            made = written(message, system)
            assert made is not None
            assert message_validator(service.name).validate(etree.fromstring(etree.tostring(made[1]))), service.name
