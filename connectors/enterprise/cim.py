"""IEC 61968-100: one endpoint for request, event and response messages.

What comes in goes the way of everything else: readings and events to the raw topics as they are, controls and master data to the
enterprise agent. ``get`` is answered from the store at once. Replies carry the request's MessageID as CorrelationID: an
acknowledgement at once, and once it is decided what became of it, to the system's address or to be fetched.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from lxml import etree
from starlette.concurrency import run_in_threadpool

from connectors import safe_xml
from connectors.enterprise.cim_config import ACTS, KINDS, Reader, moment
from connectors.enterprise.doors import add_messages, body_of
from connectors.enterprise.sap.writing import iso
from connectors.head_end import problems
from connectors.head_end.problems import ProblemError
from connectors.head_end.publish import PublishError
from connectors.safe_xml import XmlError
from connectors.subscribers.writers.cim import MESSAGE, READINGS, quality, reading_type
from schemas.block import DIRECTIONS
from schemas.identity import identity
from schemas.topology.enterprise import System
from streams.enterprise.desk import AUE, CVE, IDE, LRE, PRE, VAE, VME, Refusal

if TYPE_CHECKING:
    from connectors.enterprise.answers import Rows
    from connectors.enterprise.part import Enterprise

CONTROLS: Final = "http://iec.ch/TC57/2011/EndDeviceControls#"
EVENTS: Final = "http://iec.ch/TC57/2011/EndDeviceEvents#"
EVENT_TYPES: Final = {
    "outage": "3.26.0.85", "restore": "3.26.0.216", "cover-removed": "3.12.29.212", "low-battery": "3.2.22.150",
    "clock-error": "3.36.0.79", "reverse-energy": "3.26.93.219",
}  # fmt: skip
"""Kind of a device event → EndDeviceEventType."""
HEADER, PAYLOAD, REQUEST, FORMAT = "1.5", "1.7", "1.6", "1.8"  # what is missing, or not as it should be
METER, NOUN, VERB, SOURCE, RELATION, MANY, FAILED, RULE, RIGHT = "2.4", "2.5", "2.9", "2.14", "2.29", "3.1", "5.3", "6.1", "7.5"
CODES: Final = {AUE: RIGHT, CVE: RULE, IDE: RELATION, LRE: RULE, VAE: FORMAT, VME: FORMAT, PRE: FAILED}
"""Error categories of conversations as error codes of IEC 61968-9."""
ACTIONS: Final = {"3.31.0.23": "disconnect", "3.31.0.18": "connect"}
TYPES: Final = {action: ref for ref, action in ACTIONS.items()}
OUTCOMES: Final = {"3.31.0.68", "3.31.0.42"}  # disconnected, connected
GET: Final = "readings-get"  # kind of a conversation: readings that are asked for to come later
MOST: Final = 100_000  # readings of one reply
XML: Final = {"requestBody": {"required": True, "content": {"application/xml": {"schema": {"type": "string"}}}}}
_INTERVALS: Final = """
SELECT device, channel, unit, direction, seconds, toUnixTimestamp(start) + seconds AS at, value, condition FROM intervals
WHERE device IN {devices:Array(String)} AND start >= fromUnixTimestamp({start:Int64}) AND start < fromUnixTimestamp({end:Int64})
ORDER BY device, channel, seconds, start LIMIT {most:Int64}"""
_REGISTERS: Final = """
SELECT device, channel, unit, direction, 0 AS seconds, toUnixTimestamp(at) AS second, reading AS value, condition FROM registers
WHERE device IN {devices:Array(String)} AND at >= fromUnixTimestamp({start:Int64}) AND at <= fromUnixTimestamp({end:Int64})
ORDER BY device, channel, registers.at LIMIT {most:Int64}"""


_HEADER: Final = ("Verb", "Noun", "MessageID", "CorrelationID", "Source", "Timestamp", "ReplyAddress", "AsyncReplyFlag")


class ReplyError(Exception):
    """A message is answered with FAILED: code and reason."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


def take(part: Enterprise, system: str, data: bytes) -> bytes:
    """Takes one message and answers it. Raises ProblemError where it is no message, PublishError where Kafka has not got it."""
    try:
        root = safe_xml.parsed(data)
    except XmlError as error:
        raise ProblemError(422, "not-valid", f"line {error.line}: {error.reason}") from None
    if safe_xml.local(root) == "Envelope":
        body = next((one for one in root if safe_xml.local(one) == "Body"), None)
        root = body[0] if body is not None and len(body) == 1 else root
    if safe_xml.local(root) not in ("RequestMessage", "EventMessage", "ResponseMessage") or safe_xml.space(root) != MESSAGE:
        raise ProblemError(422, "not-valid", f"{safe_xml.local(root)[:60]} is no message of {MESSAGE}")
    header = {name: safe_xml.text(root, f"Header/{name}") for name in _HEADER}
    try:
        if not header["MessageID"]:
            raise ReplyError(HEADER, "Header/MessageID is missing")
        _in_time(part, header["Timestamp"])
        payload = _handled(part, system, root, header)
    except ReplyError as error:
        return reply(header, error.code, error.reason)
    except Refusal as refusal:
        return reply(header, CODES[refusal.category], refusal.note)
    return reply(header, "", "", payload)


def _handled(part: Enterprise, system: str, root: Any, header: Mapping[str, str]) -> Any:
    act, about = header["Verb"].lower(), header["Noun"]
    if about == "MeterReadings" and act in ("created", "changed", "reply"):
        _published(part.reads, root, header, "cim-xml")
        return None
    if about == "EndDeviceEvents" and act in ("created", "changed", "reply"):
        _published(part.events, root, header, None)
        _outcomes(part, root, header)
        return None
    if about == "EndDeviceControls" and act == "create":
        _controls(part, system, root, header)
        return None
    if about in KINDS and act in ACTS:
        _configured(part, system, root, header)
        return None
    if about == "EndDeviceControls" and act in ("reply", "created"):
        _control_reply(part, root, header)
        return None
    if about in ("MeterReadings", "GetMeterReadings") and act == "get":
        return _readings_asked(part, system, root, header)
    known = about in KINDS or about in ("MeterReadings", "GetMeterReadings", "EndDeviceEvents", "EndDeviceControls")
    raise ReplyError(VERB if known else NOUN, f"{header['Verb'][:40]} {about[:60]} is nothing this hub does")


def _in_time(part: Enterprise, written: str) -> None:
    if not written:
        return
    try:
        at = datetime.fromisoformat(written).timestamp()
    except ValueError:
        raise ReplyError(FORMAT, f"Header/Timestamp {written[:40]!r} is no time") from None
    now = part.intake.clock()
    if at < now - part.settings.oldest or at > now + part.settings.ahead:
        raise ReplyError(RULE, f"the message was made {written[:40]}: it has expired or is yet to come")


def _published(publisher: Any, root: Any, header: Mapping[str, str], format: str | None) -> None:
    """A message that comes again under its MessageID is the same payload, which ingest takes once."""
    id_ = identity("cim", header["Source"], header["MessageID"])
    publisher.publish(etree.tostring(root), source=header["Source"] or "cim", name=header["MessageID"][:200], format=format, payload_id=id_)


def _outcomes(part: Enterprise, root: Any, header: Mapping[str, str]) -> None:
    """Connected and disconnected, with the CorrelationID of a control, are what became of it."""
    for event in root.iter("{*}EndDeviceEvent") if header["CorrelationID"] else ():
        type_ = next((one for one in event if safe_xml.local(one) == "EndDeviceEventType"), None)
        if type_ is not None and type_.get("ref") in OUTCOMES:
            at = moment(safe_xml.text(event, "createdDateTime"))
            _replied(part, header["CorrelationID"], _device_of(event), "done", at, type_.get("ref"), "")


def _control_reply(part: Enterprise, root: Any, header: Mapping[str, str]) -> None:
    if not header["CorrelationID"]:
        raise ReplyError(HEADER, "Header/CorrelationID is missing: it is the id of the command")
    ok = safe_xml.text(root, "Reply/Result").upper() == "OK"
    found = [_device_of(control) for control in root.iter("{*}EndDeviceControl")]
    device = found[0] if found else ""
    if not device:
        rows = part.reader.rows("SELECT device FROM device_commands WHERE id = {id:String}", {"id": header["CorrelationID"]})
        device = rows[0]["device"] if rows else ""
    if not device:
        raise ReplyError("2.15", "the command of this CorrelationID is not known")
    detail = "" if ok else safe_xml.text(root, "Reply/Error/reason") or safe_xml.text(root, "Reply/Error/details")
    now = int(part.intake.clock())
    _replied(part, header["CorrelationID"], device, "accepted" if ok else "failed", now, safe_xml.text(root, "Reply/Error/code"), detail)


def _replied(part: Enterprise, command: str, device: str, status: str, at: int, code: str, detail: str) -> None:
    body = {"command": command, "device": device, "status": status, "at": at, "code": code[:100], "detail": detail[:1000]}
    part.intake.reply(body)


def _controls(part: Enterprise, system: str, root: Any, header: Mapping[str, str]) -> None:
    system, _ = _system(part, system, header)
    controls = list(root.iter("{*}EndDeviceControl"))
    if not controls:
        raise ReplyError(PAYLOAD, "the message holds no EndDeviceControl")
    request = part.intake.request(system, "cim", "connection", header["MessageID"], bulk=False)
    for number, control in enumerate(controls):
        name = safe_xml.text(control, "mRID") or f"{header['MessageID']}/{number}"
        type_ = next((one for one in control if safe_xml.local(one) == "EndDeviceControlType"), None)
        ref = type_.get("ref", "") if type_ is not None else ""
        devices = list(dict.fromkeys(_devices(control)))
        if ref not in ACTIONS or not devices:
            note = f"control type {ref[:40]!r} is none of {', '.join(ACTIONS)}" if ref not in ACTIONS else "it names no device"
            request.add(name, {"id": name}, VME if ref not in ACTIONS else IDE, note)
            continue
        planned = safe_xml.text(control, "scheduledInterval/start")
        body: dict[str, Any] = {
            "id": name, "request": name, "action": ACTIONS[ref], "devices": devices, "category": ref, "ams": {},
            "reason": safe_xml.text(control, "reason")[:200], "planned": moment(planned) if planned else None,
        }  # fmt: skip
        request.add(name, body)
    request.close()


def _system(part: Enterprise, name: str, header: Mapping[str, str]) -> tuple[str, System]:
    """The system that asks: the one whose address the message names for replies, else that of the query."""
    address = header["ReplyAddress"]
    if address:
        named = [(key, one) for key, one in part.settings.systems.items() if one.protocol == "cim" and one.url == address]
        if not named:
            raise ReplyError(HEADER, f"ReplyAddress {address[:200]}: topology.yaml has no system of this address that speaks cim")
        ((name, found),) = named[:1]
    else:
        found = part.settings.systems.get(name)  # type: ignore[assignment]
    if found is None or found.protocol != "cim":
        raise ReplyError(SOURCE, f"topology.yaml has no system {name[:60]} that speaks cim")
    if found.senders and header["Source"] not in found.senders:
        raise ReplyError(RIGHT, f"{header['Source'][:60]} may not send here")
    return name, found


def _configured(part: Enterprise, system: str, root: Any, header: Mapping[str, str]) -> None:
    """Master data: each element of the payload is an item."""
    name, settings = _system(part, system, header)
    payload = next((one for one in root if safe_xml.local(one) == "Payload"), None)
    written = header["Timestamp"]
    reader = Reader(settings, part.zone, moment(written) if written else int(part.intake.clock()))
    found = [] if payload is None else list(reader.items(header["Noun"], header["Verb"].lower(), payload))
    if not found:
        raise ReplyError(PAYLOAD, f"the message holds nothing of a {header['Noun']}")
    request = part.intake.request(name, "cim", KINDS[header["Noun"]], header["MessageID"], bulk=len(found) > 1)
    for number, (about, make) in enumerate(found):
        id_ = f"{header['MessageID']}/{number}"
        try:
            request.add(id_, make())
        except Refusal as refusal:
            request.add(id_, {"id": about}, refusal.category, refusal.note)
    request.close()


def _devices(element: Any) -> Iterable[str]:
    for child in element:
        if safe_xml.local(child) in ("EndDevices", "EndDevice", "Assets", "Meter"):
            name = safe_xml.text(child, "Names/name") or safe_xml.text(child, "mRID")
            if name:
                yield name


def _device_of(element: Any) -> str:
    return next(iter(_devices(element)), "")


# --- get ------------------------------------------------------------------------------------------------------------------------


def _readings_asked(part: Enterprise, system: str, root: Any, header: Mapping[str, str]) -> Any:
    """The readings at once; with AsyncReplyFlag and a ReplyAddress nothing now, and a message of its own to that address, correlated."""
    asked = _asked(root)
    if header["AsyncReplyFlag"].lower() not in ("true", "1") or not header["ReplyAddress"]:
        return _readings(part.reader, asked)
    name, _ = _system(part, system, header)
    request = part.intake.request(name, "cim", GET, header["MessageID"], bulk=False)
    request.add(header["MessageID"], asked)
    request.close()
    return None


def _asked(root: Any) -> dict[str, Any]:
    """What a GetMeterReadings asks for: devices, UTC seconds from and to, and reading types."""
    asked = next(root.iter("{*}GetMeterReadings"), None)
    if asked is None:
        raise ReplyError(REQUEST, "Request/GetMeterReadings is missing")
    devices = list(_devices(asked))
    periods = [one for one in asked.iter() if safe_xml.local(one) == "timePeriod"]
    start, end = (safe_xml.text(periods[0], edge) if periods else "" for edge in ("start", "end"))
    if not devices or not start or not end:
        raise ReplyError(REQUEST, "GetMeterReadings must name EndDevice and a timePeriod with start and end")
    wanted = {one.get("ref") for one in asked if safe_xml.local(one) == "ReadingType"}
    return {"devices": devices, "start": moment(start), "end": moment(end), "types": sorted(one for one in wanted if one)}


def _readings(reader: Rows, asked: Mapping[str, Any]) -> Any:
    """The final readings of devices in a time. Raises ReplyError where they are too many for one message."""
    where = {name: asked[name] for name in ("devices", "start", "end")} | {"most": MOST + 1}
    rows = reader.rows(_INTERVALS, where)
    rows += [{**row, "at": row["second"]} for row in reader.rows(_REGISTERS, where)]
    if len(rows) > MOST:
        raise ReplyError(MANY, f"more than {MOST} readings: ask for a shorter time or fewer devices")
    return readings(rows, set(asked["types"]))


def readings(rows: Iterable[Mapping[str, Any]], wanted: set[str | None] = frozenset()) -> Any:  # type: ignore[assignment]
    """MeterReadings of rows of the views, each with ``at`` the end of its interval (or the time of a register read)."""
    root = etree.Element(f"{{{READINGS}}}MeterReadings", nsmap={"m": READINGS})
    meters: dict[str, Any] = {}
    blocks: dict[tuple[str, str, int], Any] = {}
    for row in rows:
        seconds = int(row["seconds"])
        code = reading_type(row["channel"], row["unit"], DIRECTIONS.index(row["direction"]), seconds)
        if not code or (wanted and code not in wanted):
            continue
        device, key = row["device"], (row["device"], row["channel"], seconds)
        if device not in meters:
            meters[device] = _sub(root, "MeterReading")
        if seconds:
            if key not in blocks:
                blocks[key] = _sub(meters[device], "IntervalBlocks")
                _sub(blocks[key], "ReadingType").set("ref", code)
            entry = etree.Element(f"{{{READINGS}}}IntervalReadings")
            blocks[key].insert(len(blocks[key]) - 1, entry)
        else:
            entry = _sub(meters[device], "Readings")
        _sub(entry, "timeStamp").text = iso(int(row["at"]))
        if row["value"] is not None:
            _sub(entry, "value").text = format(row["value"], "f").rstrip("0").rstrip(".")
        _sub(_sub(entry, "ReadingQualities"), "ReadingQualityType").set("ref", quality(int(row["condition"])))
        if not seconds:
            _sub(entry, "ReadingType").set("ref", code)
    for device, element in meters.items():
        _sub(_sub(_sub(element, "Meter"), "Names"), "name").text = device
    return root


def _sub(parent: Any, name: str) -> Any:
    return etree.SubElement(parent, f"{{{READINGS}}}{name}")


# --- messages out -----------------------------------------------------------------------------------------------------------------


Flaw = tuple[str, str, str]
"""Code, reason, and the object it is about (empty: all)."""


def message(kind: str, verb: str, noun: str, id: str, correlation: str = "", result: str = "", flaws: Iterable[Flaw] = ()) -> Any:
    """A message with its header and, with a result, its Reply; what is to be its payload is appended by the caller."""
    root = etree.Element(f"{{{MESSAGE}}}{kind}", nsmap={"e": MESSAGE})
    header = etree.SubElement(root, f"{{{MESSAGE}}}Header")
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    words = {
        "Verb": verb,
        "Noun": noun,
        "Revision": "2.0",
        "Timestamp": now,
        "Source": "MDH",
        "MessageID": id,
        "CorrelationID": correlation,
    }
    for name, value in words.items():
        if value:
            etree.SubElement(header, f"{{{MESSAGE}}}{name}").text = value
    if result:
        answer = etree.SubElement(root, f"{{{MESSAGE}}}Reply")
        etree.SubElement(answer, f"{{{MESSAGE}}}Result").text = result
        for code, reason, about in flaws:
            flaw = etree.SubElement(answer, f"{{{MESSAGE}}}Error")
            for name, value in (("code", code), ("level", "FATAL"), ("reason", reason)):
                etree.SubElement(flaw, f"{{{MESSAGE}}}{name}").text = value
            if about:
                etree.SubElement(flaw, f"{{{MESSAGE}}}ID").text = about
    return root


def reply(header: Mapping[str, str], code: str, reason: str, payload: Any = None) -> bytes:
    """The ResponseMessage to a message: OK with a payload, or FAILED with its error."""
    id_ = identity("reply", header["MessageID"], code, reason)
    flaws = [(code, reason, "")] if reason else []
    result = "FAILED" if reason else "OK"
    root = message("ResponseMessage", "reply", header["Noun"] or "none", id_, header["MessageID"], result, flaws)
    if payload is not None:
        etree.SubElement(root, f"{{{MESSAGE}}}Payload").append(payload)
    return etree.tostring(root, xml_declaration=True, encoding="utf-8")


def written(told: Mapping[str, Any], reader: Rows) -> bytes | None:
    """A message of the enterprise agent: what became of controls or master data, and readings that were asked for to come later, each
    correlated with its request; or events of devices. Readings are those the store has when the message is written.

    None where CIM has no message for it.
    """
    if told["kind"] == "event":
        return _events(told)
    if told["kind"] == f"{GET}-answer":
        return _readings_later(told, reader)
    noun = _ANSWERED.get(told["kind"])
    if noun is None:
        return None
    failed = [item for item in told["items"] if item["category"]]
    flaws = [(CODES.get(item["category"], FAILED), item["note"], (item["body"] or {}).get("id") or item["reference"]) for item in failed]
    result = "OK" if not failed else "FAILED" if len(failed) == len(told["items"]) else "PARTIAL"
    root = message("ResponseMessage", "reply", noun, told["id"], told["reference"], result, flaws)
    return etree.tostring(root, xml_declaration=True, encoding="utf-8")


def _readings_later(told: Mapping[str, Any], reader: Rows) -> bytes:
    (item,) = told["items"]
    flaws, payload = [(CODES.get(item["category"], FAILED), item["note"], "")] if item["category"] else [], None
    if not flaws:
        try:
            payload = _readings(reader, item["body"])
        except ReplyError as error:
            flaws = [(error.code, error.reason, "")]
    result = "FAILED" if flaws else "OK"
    root = message("ResponseMessage", "reply", "MeterReadings", told["id"], told["reference"], result, flaws)
    if payload is not None:
        etree.SubElement(root, f"{{{MESSAGE}}}Payload").append(payload)
    return etree.tostring(root, xml_declaration=True, encoding="utf-8")


_ANSWERED: Final = {"connection-answer": "EndDeviceControls", **{f"{kind}-answer": noun for noun, kind in KINDS.items()}}


def _events(told: Mapping[str, Any]) -> bytes | None:
    """Events of devices; None where none of them has a type in CIM."""
    root = message("EventMessage", "created", "EndDeviceEvents", told["id"])
    payload = etree.SubElement(etree.SubElement(root, f"{{{MESSAGE}}}Payload"), f"{{{EVENTS}}}EndDeviceEvents", nsmap={"m": EVENTS})
    for item in told["items"]:
        body = item["body"]
        ref = EVENT_TYPES.get(body["text"].partition(" ")[0])
        if ref is None:
            continue
        event = etree.SubElement(payload, f"{{{EVENTS}}}EndDeviceEvent")
        for name, value in (
            ("mRID", item["id"]),
            ("createdDateTime", iso(body["at"])),
            ("reason", body["text"]),
            ("severity", body["severity"]),
        ):
            etree.SubElement(event, f"{{{EVENTS}}}{name}").text = value
        names = etree.SubElement(etree.SubElement(event, f"{{{EVENTS}}}Assets"), f"{{{EVENTS}}}Names")
        etree.SubElement(names, f"{{{EVENTS}}}name").text = body["device"]
        etree.SubElement(event, f"{{{EVENTS}}}EndDeviceEventType").set("ref", ref)
    return etree.tostring(root, xml_declaration=True, encoding="utf-8") if len(payload) else None


def control(command: Mapping[str, Any]) -> Any:
    """A device command as ``create EndDeviceControls``: its id is the MessageID, which replies and events give as CorrelationID."""
    root = message("RequestMessage", "create", "EndDeviceControls", command["id"])
    payload = etree.SubElement(etree.SubElement(root, f"{{{MESSAGE}}}Payload"), f"{{{CONTROLS}}}EndDeviceControls", nsmap={"m": CONTROLS})
    one = etree.SubElement(payload, f"{{{CONTROLS}}}EndDeviceControl")
    etree.SubElement(one, f"{{{CONTROLS}}}mRID").text = command["id"]
    if command["reason"]:
        etree.SubElement(one, f"{{{CONTROLS}}}reason").text = command["reason"]
    etree.SubElement(one, f"{{{CONTROLS}}}EndDeviceControlType").set("ref", TYPES[command["action"]])
    names = etree.SubElement(etree.SubElement(one, f"{{{CONTROLS}}}EndDevices"), f"{{{CONTROLS}}}Names")
    etree.SubElement(names, f"{{{CONTROLS}}}name").text = command["device"]
    return root


def routes(part: Enterprise | None) -> APIRouter:
    """The routes over a part; None where they are only described."""
    router = APIRouter(prefix="/v1/cim", tags=["cim"])

    found: dict[int | str, dict[str, Any]] = {200: {"content": {"application/xml": {}}, "description": "a message"}}
    taken, one_of = {**found, **problems.responses(413, 422, 503)}, {**found, **problems.responses(404)}

    @router.post("", response_class=Response, summary="Take one message of IEC 61968-100", openapi_extra=XML, responses=taken)
    async def post(request: Request, system: Annotated[str, Query(max_length=255)] = "cim") -> Response:
        assert part is not None
        data = await body_of(part, request)
        try:
            answer = await run_in_threadpool(take, part, system, data)
        except PublishError as error:
            raise ProblemError(503, "kafka-away", f"not taken: {error}; try again", headers={"Retry-After": "5"}) from None
        return Response(answer, media_type="application/xml")

    add_messages(router, part, "cim", "Messages for a CIM system, oldest first")

    @router.get("/messages/{id}", response_class=Response, summary="A message as XML", responses=one_of)
    async def told(id: str) -> Response:
        assert part is not None
        row = await run_in_threadpool(part.message, id)
        made = await run_in_threadpool(written, row, part.reader) if row is not None and row["protocol"] == "cim" else None
        if made is None:
            raise ProblemError(404, "not-found", "There is no message of this id for a CIM system.")
        return Response(made, media_type="application/xml")

    @router.get("/controls/{id:path}", response_class=Response, summary="A device command as EndDeviceControls", responses=one_of)
    async def one(id: str) -> Response:
        assert part is not None
        rows = await run_in_threadpool(part.reader.rows, "SELECT * FROM device_commands WHERE id = {id:String}", {"id": id})
        if not rows or not re.fullmatch("|".join(TYPES), rows[0]["action"]):
            raise ProblemError(404, "not-found", "There is no command of this id that CIM has a control for.")
        return Response(etree.tostring(control(rows[0])), media_type="application/xml")

    return router
