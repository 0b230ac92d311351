"""IEC 61968-100: one endpoint for request, event and response messages; nouns MeterReadings, EndDeviceEvents, EndDeviceControls.

What comes in goes the way of everything else: readings and events to the raw topics as they are, controls to the enterprise agent.
``get`` is answered from the store at once. Replies carry the request's MessageID as CorrelationID.
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
from connectors.enterprise.sap.writing import iso
from connectors.head_end import problems
from connectors.head_end.problems import ProblemError
from connectors.head_end.publish import PublishError
from connectors.safe_xml import XmlError
from connectors.subscribers.writers.cim import MESSAGE, READINGS, quality, reading_type
from schemas.block import DIRECTIONS
from schemas.identity import identity
from schemas.topology.enterprise import System

if TYPE_CHECKING:
    from connectors.enterprise.part import Enterprise

CONTROLS: Final = "http://iec.ch/TC57/2011/EndDeviceControls#"
ACTIONS: Final = {"3.31.0.23": "disconnect", "3.31.0.18": "connect"}
TYPES: Final = {action: ref for ref, action in ACTIONS.items()}
OUTCOMES: Final = {"3.31.0.68", "3.31.0.42"}  # disconnected, connected
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
    header = {name: safe_xml.text(root, f"Header/{name}") for name in ("Verb", "Noun", "MessageID", "CorrelationID", "Source", "Timestamp")}
    try:
        if not header["MessageID"]:
            raise ReplyError("2.9", "Header/MessageID is missing")
        _in_time(part, header["Timestamp"])
        payload = _handled(part, system, root, header)
    except ReplyError as error:
        return reply(header, error.code, error.reason)
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
    if about == "EndDeviceControls" and act in ("reply", "created"):
        _control_reply(part, root, header)
        return None
    if about in ("MeterReadings", "GetMeterReadings") and act == "get":
        return _readings(part, root)
    raise ReplyError("2.4", f"{header['Verb'][:40]} {about[:60]} is nothing this hub does")


def _in_time(part: Enterprise, written: str) -> None:
    if not written:
        return
    try:
        at = datetime.fromisoformat(written).timestamp()
    except ValueError:
        raise ReplyError("2.9", f"Header/Timestamp {written[:40]!r} is no time") from None
    now = part.intake.clock()
    if at < now - part.settings.oldest or at > now + part.settings.ahead:
        raise ReplyError("2.9", f"the message was made {written[:40]}: it has expired or is yet to come")


def _published(publisher: Any, root: Any, header: Mapping[str, str], format: str | None) -> None:
    """A message that comes again under its MessageID is the same payload, which ingest takes once."""
    id_ = identity("cim", header["Source"], header["MessageID"])
    publisher.publish(etree.tostring(root), source=header["Source"] or "cim", name=header["MessageID"][:200], format=format, payload_id=id_)


def _outcomes(part: Enterprise, root: Any, header: Mapping[str, str]) -> None:
    """Connected and disconnected, with the CorrelationID of a control, are what became of it."""
    for event in root.iter("{*}EndDeviceEvent") if header["CorrelationID"] else ():
        type_ = next((one for one in event if safe_xml.local(one) == "EndDeviceEventType"), None)
        if type_ is not None and type_.get("ref") in OUTCOMES:
            at = _moment(safe_xml.text(event, "createdDateTime"))
            _replied(part, header["CorrelationID"], _device_of(event), "done", at, type_.get("ref"), "")


def _control_reply(part: Enterprise, root: Any, header: Mapping[str, str]) -> None:
    if not header["CorrelationID"]:
        raise ReplyError("2.9", "Header/CorrelationID is missing: it is the id of the command")
    ok = safe_xml.text(root, "Reply/Result").upper() == "OK"
    found = [_device_of(control) for control in root.iter("{*}EndDeviceControl")]
    device = found[0] if found else ""
    if not device:
        rows = part.reader.rows("SELECT device FROM device_commands WHERE id = {id:String}", {"id": header["CorrelationID"]})
        device = rows[0]["device"] if rows else ""
    if not device:
        raise ReplyError("2.9", "the command of this CorrelationID is not known")
    detail = "" if ok else safe_xml.text(root, "Reply/Error/reason") or safe_xml.text(root, "Reply/Error/details")
    now = int(part.intake.clock())
    _replied(part, header["CorrelationID"], device, "accepted" if ok else "failed", now, safe_xml.text(root, "Reply/Error/code"), detail)


def _replied(part: Enterprise, command: str, device: str, status: str, at: int, code: str, detail: str) -> None:
    body = {"command": command, "device": device, "status": status, "at": at, "code": code[:100], "detail": detail[:1000]}
    part.intake.reply(body)


def _controls(part: Enterprise, system: str, root: Any, header: Mapping[str, str]) -> None:
    found = part.settings.systems.get(system)
    if found is None or found.protocol != "cim":
        raise ReplyError("2.9", f"topology.yaml has no system {system[:60]} that speaks cim")
    if found.senders and header["Source"] not in found.senders:
        raise ReplyError("4.1", f"{header['Source'][:60]} may not send here")
    controls = list(root.iter("{*}EndDeviceControl"))
    if not controls:
        raise ReplyError("2.9", "the message holds no EndDeviceControl")
    request = part.intake.request(system, "cim", "connection", header["MessageID"], bulk=False)
    for number, control in enumerate(controls):
        name = safe_xml.text(control, "mRID") or f"{header['MessageID']}/{number}"
        type_ = next((one for one in control if safe_xml.local(one) == "EndDeviceControlType"), None)
        ref = type_.get("ref", "") if type_ is not None else ""
        devices = list(dict.fromkeys(_devices(control)))
        if ref not in ACTIONS or not devices:
            note = f"control type {ref[:40]!r} is none of {', '.join(ACTIONS)}" if ref not in ACTIONS else "it names no device"
            request.add(name, {"id": name}, "2.9", note)
            continue
        planned = safe_xml.text(control, "scheduledInterval/start")
        body: dict[str, Any] = {
            "id": name, "request": name, "action": ACTIONS[ref], "devices": devices, "category": ref, "ams": {},
            "reason": safe_xml.text(control, "reason")[:200], "planned": _moment(planned) if planned else None,
        }  # fmt: skip
        request.add(name, body)
    request.close()


def _devices(element: Any) -> Iterable[str]:
    for child in element:
        if safe_xml.local(child) in ("EndDevices", "EndDevice", "Assets", "Meter"):
            name = safe_xml.text(child, "Names/name") or safe_xml.text(child, "mRID")
            if name:
                yield name


def _device_of(element: Any) -> str:
    return next(iter(_devices(element)), "")


def _moment(written: str) -> int:
    try:
        at = datetime.fromisoformat(written)
    except ValueError:
        raise ReplyError("2.9", f"{written[:40]!r} is no time") from None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())


# --- get ------------------------------------------------------------------------------------------------------------------------


def _readings(part: Enterprise, root: Any) -> Any:
    """The final readings of the devices and the time a GetMeterReadings names."""
    asked = next(root.iter("{*}GetMeterReadings"), None)
    if asked is None:
        raise ReplyError("2.9", "Request/GetMeterReadings is missing")
    devices = list(_devices(asked))
    periods = [one for one in asked.iter() if safe_xml.local(one) == "timePeriod"]
    start, end = (safe_xml.text(periods[0], edge) if periods else "" for edge in ("start", "end"))
    if not devices or not start or not end:
        raise ReplyError("2.9", "GetMeterReadings must name EndDevice and a timePeriod with start and end")
    wanted = {one.get("ref") for one in asked if safe_xml.local(one) == "ReadingType"}
    where = {"devices": devices, "start": _moment(start), "end": _moment(end), "most": MOST + 1}
    rows = part.reader.rows(_INTERVALS, where)
    rows += [{**row, "at": row["second"]} for row in part.reader.rows(_REGISTERS, where)]
    if len(rows) > MOST:
        raise ReplyError("2.11", f"more than {MOST} readings: ask for a shorter time or fewer devices")
    return readings(rows, wanted)


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


def message(kind: str, verb: str, noun: str, id: str, correlation: str = "", result: str = "", error: tuple[str, str] = ("", "")) -> Any:
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
        if error[1]:
            flaw = etree.SubElement(answer, f"{{{MESSAGE}}}Error")
            for name, value in (("code", error[0]), ("level", "ERROR"), ("reason", error[1])):
                etree.SubElement(flaw, f"{{{MESSAGE}}}{name}").text = value
    return root


def reply(header: Mapping[str, str], code: str, reason: str, payload: Any = None) -> bytes:
    """The ResponseMessage to a message: OK with a payload, or FAILED with its error."""
    id_ = identity("reply", header["MessageID"], code, reason)
    root = message(
        "ResponseMessage", "reply", header["Noun"] or "none", id_, header["MessageID"], "FAILED" if reason else "OK", (code, reason)
    )
    if payload is not None:
        etree.SubElement(root, f"{{{MESSAGE}}}Payload").append(payload)
    return etree.tostring(root, xml_declaration=True, encoding="utf-8")


def written(told: Mapping[str, Any], system: System) -> bytes:  # noqa: ARG001
    """A message of the enterprise agent: what became of controls, correlated with the request that asked for them."""
    failed = [item for item in told["items"] if item["category"]]
    reason = "; ".join(f"{item['reference']}: {item['note']}" for item in failed)
    code = failed[0]["category"] if failed else ""
    result = "OK" if not failed else "FAILED" if len(failed) == len(told["items"]) else "PARTIAL"
    root = message("ResponseMessage", "reply", "EndDeviceControls", told["id"], told["reference"], result, (code, reason))
    return etree.tostring(root, xml_declaration=True, encoding="utf-8")


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
        from connectors.enterprise.ccb.routes import body_of

        data = await body_of(part, request)
        try:
            answer = await run_in_threadpool(take, part, system, data)
        except PublishError as error:
            raise ProblemError(503, "kafka-away", f"not taken: {error}; try again", headers={"Retry-After": "5"}) from None
        return Response(answer, media_type="application/xml")

    @router.get("/controls/{id}", response_class=Response, summary="A device command as EndDeviceControls", responses=one_of)
    async def one(id: str) -> Response:
        assert part is not None
        rows = await run_in_threadpool(part.reader.rows, "SELECT * FROM device_commands WHERE id = {id:String}", {"id": id})
        if not rows or not re.fullmatch("|".join(TYPES), rows[0]["action"]):
            raise ProblemError(404, "not-found", "There is no command of this id that CIM has a control for.")
        return Response(etree.tostring(control(rows[0])), media_type="application/xml")

    return router
