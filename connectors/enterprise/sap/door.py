"""SAP's side of the hub: SOAP messages in, checked against their schema item by item and handed to Kafka before they are acknowledged."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, Any, Final

from lxml import etree

from connectors import safe_xml
from connectors.enterprise.intake import Intake, Request
from connectors.enterprise.sap.catalog import HEADER, Root, Service, catalog
from connectors.enterprise.sap.documents import SOAP11, SOAP12, message_dict, to_dict
from connectors.enterprise.sap.reading import Reader
from connectors.enterprise.sap.schemas import header_validator, item_validator
from connectors.safe_xml import XmlError
from schemas.identity import identity
from schemas.topology.enterprise import EnterpriseSettings, System
from streams.enterprise.desk import AUE, IDE, VAE, Refusal

LEVEL: Final = 3  # of the message inside Envelope and Body


class FaultError(Exception):
    """A whole message is refused: nothing of it was taken. ``version`` is the SOAP namespace the answer is in."""

    def __init__(self, reason: str, version: str = SOAP11, code: str = VAE) -> None:
        super().__init__(reason)
        self.reason, self.version, self.code = reason, version, code


@dataclass(frozen=True, slots=True)
class Taken:
    """What was taken of a message."""

    items: int
    refused: int
    version: str


@dataclass(frozen=True)
class Door:
    """Takes messages of all systems that speak SAP. ``zone`` is that of the whole hub."""

    settings: EnterpriseSettings
    intake: Intake
    zone: str

    def take(self, service: str, stream: IO[bytes]) -> Taken:
        """Takes one message from a stream that can be read twice: once to see that all of it is well-formed, once for its items.

        Raises FaultError before anything is taken, UnavailableError where Kafka has not got everything.
        """
        version, root = self._message(service, stream)
        known = catalog().services[root.service]
        if root.item is None:
            return self._single(known, root, version, stream)
        return self._bulk(known, root, version, stream)

    def _message(self, service: str, stream: IO[bytes]) -> tuple[str, Root]:
        stream.seek(0)
        try:
            outer, body, inner = safe_xml.path_of(stream, LEVEL)
        except XmlError as error:
            raise FaultError(f"line {error.line}: {error.reason}") from None
        version, name = _split(outer)
        if name != "Envelope" or version not in (SOAP11, SOAP12) or _split(body) != (version, "Body"):
            raise FaultError("not a SOAP 1.1 or 1.2 message")
        namespace, name = _split(inner)
        root = catalog().roots.get(name)
        if root is None or root.service != service:
            raise FaultError(f"{name[:100]} is no message of {service}", version)
        if namespace != catalog().namespace:
            raise FaultError(f"{name} must be in namespace {catalog().namespace}, not {namespace[:200] or 'none'}", version)
        if root not in catalog().services[service].taken_by("hub"):
            raise FaultError(f"{name} is a message of the hub's, not one it takes", version)
        return version, root

    # --- one message ------------------------------------------------------------------------------------------------------------

    def _single(self, service: Service, root: Root, version: str, stream: IO[bytes]) -> Taken:
        stream.seek(0)
        data = stream.read(self.settings.item_bytes + 1)
        if len(data) > self.settings.item_bytes:
            raise FaultError(f"a message that is no bulk may have {self.settings.item_bytes} bytes", version)
        try:
            element = next(iter(_body_of(safe_xml.parsed(data))))
        except XmlError as error:
            raise FaultError(f"line {error.line}: {error.reason}", version) from None
        element.tag = root.name
        id_, name, system = self._sender(element, version)
        if not id_:
            raise FaultError("MessageHeader/UUID is missing: without it a message can be neither confirmed nor known again", version, IDE)
        request = self.intake.request(name, "sap", _kind(service, root), id_, bulk=False)
        refused = self._item(service, root, element, request, system)
        request.close()
        return Taken(1, refused, version)

    # --- bulks ------------------------------------------------------------------------------------------------------------------

    def _bulk(self, service: Service, root: Root, version: str, stream: IO[bytes]) -> Taken:
        assert root.item is not None
        head: Any = None
        try:
            stream.seek(0)
            for element in self._parts(root, stream):
                if element.tag == HEADER and head is None:
                    head = etree.fromstring(etree.tostring(element))
        except XmlError as error:
            raise FaultError(f"line {error.line}: {error.reason}", version) from None
        if head is None:
            raise FaultError("MessageHeader is missing", version)
        outer = etree.Element(root.name)
        outer.append(head)
        id_, name, system = self._sender(outer, version)
        if not id_:
            raise FaultError("MessageHeader/UUID is missing: without it a bulk can be neither confirmed nor known again", version, IDE)
        request = self.intake.request(name, "sap", _kind(service, root), id_, bulk=True)
        refused = 0
        stream.seek(0)
        for element in self._parts(root, stream):
            if element.tag == root.item:
                refused += self._item(service, root, element, request, system)
        request.close()
        return Taken(request.taken, refused, version)

    def _parts(self, root: Root, stream: IO[bytes]) -> Any:
        parent = f"{{{catalog().namespace}}}{root.name}"
        return safe_xml.children(stream, parent, (HEADER, root.item or ""), LEVEL + 1, self.settings.item_bytes)

    # --- items ------------------------------------------------------------------------------------------------------------------

    def _item(self, service: Service, root: Root, element: Any, request: Request, system: System) -> int:
        """Adds one item to the request, with what is wrong with it; how many were refused."""
        id_ = _uuid_of(element)
        known = id_ or identity("item", request.head["message"], request.taken)
        try:
            if not id_:
                raise Refusal(IDE, "MessageHeader/UUID is missing or no UUID")
            schema = item_validator(root.name)
            if not schema.validate(element):
                first = schema.error_log[0]
                raise Refusal(VAE, _plain(first.message))
            words = message_dict(element, root)
            self._in_time(words[HEADER]["CreationDateTime"], request.received_at)
            self._allowed(words[HEADER], system)
            body = Reader(system, system.zone or self.zone).body(service, root, words)
        except Refusal as refusal:
            about = {"id": safe_xml.text(element, f"{root.payload.name}/ID"), "device": _device_of(element, root)}
            request.add(known, about, refusal.category, refusal.note)
            return 1
        request.add(known, body)
        return 0

    def _sender(self, message: Any, version: str) -> tuple[str, str, System]:
        """The message's id, and the system that sent it by its own word."""
        header = next((child for child in message if child.tag == HEADER), None)
        if header is None or not header_validator().validate(header):
            found = "is missing" if header is None else _plain(header_validator().error_log[0].message)
            raise FaultError(f"MessageHeader {found}", version)
        words = to_dict(header, HEADER)
        try:
            self._in_time(words["CreationDateTime"], int(self.intake.clock()))
        except Refusal as refusal:
            raise FaultError(refusal.note, version, refusal.category) from None
        sender = words.get("SenderBusinessSystemID", "")
        for name, system in self.settings.systems.items():
            if system.protocol == "sap" and (not system.senders or sender in system.senders):
                return _uuid_of(message), name, system
        raise FaultError(f"{sender or 'a sender without a name'} may not send here: topology.yaml names who may", version, AUE)

    @staticmethod
    def _allowed(header: dict[str, Any], system: System) -> None:
        sender = header.get("SenderBusinessSystemID")
        if sender and system.senders and sender not in system.senders:
            raise Refusal(AUE, f"{sender} may not send here")

    def _in_time(self, written: str, now: int) -> None:
        try:
            made = datetime.fromisoformat(written)
            at = int(made.timestamp() if made.tzinfo else made.replace(tzinfo=UTC).timestamp())
        except (ValueError, OverflowError):
            raise Refusal(VAE, f"CreationDateTime {written[:40]!r} is no time the hub can hold") from None
        if at < now - self.settings.oldest:
            raise Refusal(VAE, f"the message has expired: it was made {written}, more than {self.settings.oldest // 3600} hours ago")
        if at > now + self.settings.ahead:
            raise Refusal(VAE, f"the message was made {written}, which is yet to come")


def _kind(service: Service, root: Root) -> str:
    return f"{service.does}-confirmed" if root.answer else service.does


def _split(tag: str) -> tuple[str, str]:
    namespace, _, name = tag.rpartition("}")
    return namespace.removeprefix("{"), name


def _body_of(envelope: Any) -> Any:
    body = next((child for child in envelope if safe_xml.local(child) == "Body"), None)
    if body is None or len(body) != 1:
        raise XmlError("Body must hold one message")
    return body


def _uuid_of(message: Any) -> str:
    header = next((child for child in message if safe_xml.local(child) == HEADER), None)
    try:
        return str(uuid.UUID(safe_xml.text(header, "UUID"))) if header is not None else ""
    except ValueError:
        return ""


def _device_of(element: Any, root: Root) -> str:
    if root.payload.name == "UtilitiesDevice":
        return safe_xml.text(element, "UtilitiesDevice/ID")
    return safe_xml.text(element, f"{root.payload.name}/UtilitiesDeviceID")


def _plain(message: str) -> str:
    return message.replace(f"{{{catalog().namespace}}}", "")[:800]
