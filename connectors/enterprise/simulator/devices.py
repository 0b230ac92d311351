"""A head end as the hub sees it: it takes device commands and says what became of them, with the faults that head ends have.

``Fleet`` is the head end and its meters: commands in, answers out, each at its second. Doors bring both to a hub: ``HttpDoor`` by
``/v1/device-commands`` and ``/v1/device-replies`` or, in the form ``cim``, by EndDeviceControls, replies and events of IEC 61968;
``KafkaDoor`` by the topics ``device.commands`` and ``device.replies``. What chance decides hangs on seed and command id alone.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from heapq import heappop, heappush
from typing import Any, Final, Protocol

from lxml import etree

from connectors import safe_xml
from connectors.enterprise.cim import CONTROLS, EVENTS, OUTCOMES, TYPES, message
from connectors.enterprise.simulator.hub import Hub, SimulationError
from schemas.identity import identity

FAULTS: Final = ("lose", "silent", "duplicate", "late", "fail")
CODES: Final = {"disconnect": "3.31.0.68", "connect": "3.31.0.42"}
assert set(CODES.values()) == OUTCOMES


@dataclass(frozen=True, slots=True)
class Manner:
    """How a head end behaves: seconds a command takes, and how often (0 to 1) something goes wrong.

    ``lose``: the command never reaches the meter. ``silent``: it is carried out, nobody says so. ``duplicate``: answers come twice.
    ``late``: it is carried out in time, the answer comes ``late_by`` seconds after the command has expired. ``fail``: the meter refuses.
    """

    seed: int = 1
    delay: tuple[float, float] = (1.0, 5.0)
    late_by: float = 60.0
    accepts: bool = True
    lose: float = 0.0
    silent: float = 0.0
    duplicate: float = 0.0
    late: float = 0.0
    fail: float = 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the head end says of a command: ``at`` is when it happened, UTC seconds."""

    command: str
    device: str
    action: str
    status: str  # accepted, done or failed
    at: int
    code: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What will become of a command: done or failed at a second, told at others."""

    lost: bool
    refused: bool
    acts: float
    tells: tuple[float, ...]


class Fleet:
    """Meters behind a head end. ``take`` and ``due`` want the time in UTC seconds; ``supplied`` is each meter's relay."""

    def __init__(self, manner: Manner) -> None:
        self.manner = manner
        self.supplied: dict[str, bool] = {}
        self.counts: Counter[str] = Counter()
        self.untold: deque[Answer] = deque()  # due, and not handed in yet
        self._plans: dict[str, _Plan] = {}
        self._queue: list[tuple[float, int, str, Any]] = []
        self._number = 0

    def take(self, command: Mapping[str, Any], now: float) -> bool:
        """A command that has come in; False for one that is known already: it is carried out once, whatever comes again."""
        id = command["id"]
        if id in self._plans:
            self.counts["repeated"] += 1
            return False
        plan = self._plans[id] = self._plan(id, float(command["expires_at"]), now)
        self.counts["commands"] += 1
        about = {name: command[name] for name in ("id", "device", "action", "expires_at")}
        if self.manner.accepts:
            self._at(now, "tell", Answer(id, about["device"], about["action"], "accepted", int(now)))
        if plan.lost:
            self.counts["lose"] += 1
            return True
        self._at(plan.acts, "act", about)
        return True

    def due(self, now: float) -> list[Answer]:
        """All that happens up to now, in the order of time; the answers to give."""
        answers: list[Answer] = []
        while self._queue and self._queue[0][0] <= now:
            at, _, what, about = heappop(self._queue)
            if what == "tell":
                self.counts[about.status] += 1
                answers.append(about)
            else:
                self._act(about, at)
        return answers

    @property
    def busy(self) -> bool:
        """Whether something is still to happen."""
        return bool(self._queue)

    def next(self) -> float | None:
        """When the next thing happens."""
        return self._queue[0][0] if self._queue else None

    def _plan(self, id: str, expires: float, now: float) -> _Plan:
        chance, manner = random.Random(identity("head-end", self.manner.seed, id)), self.manner
        lost, silent, twice, late, refused = (chance.random() < getattr(manner, name) for name in FAULTS)
        acts = now + chance.uniform(*manner.delay)
        back = acts + chance.uniform(0, manner.delay[0])
        tells = [max(back, expires + manner.late_by) if late else back]
        if twice:
            tells.append(tells[0] + chance.uniform(*manner.delay))
        for name, hit in zip(FAULTS[1:], (silent, twice, late, refused), strict=True):
            self.counts[name] += hit and not lost
        return _Plan(lost, refused, acts, () if silent else tuple(tells))

    def _act(self, about: dict[str, Any], at: float) -> None:
        """The meter does it, or says why not."""
        id, device, action, plan = about["id"], about["device"], about["action"], self._plans[about["id"]]
        status, code, detail = "done", "", ""
        if at > about["expires_at"]:
            status, code, detail = "failed", "expired", "the command came too late to be carried out"
        elif plan.refused:
            status, code, detail = "failed", "relay", "the relay did not move"
        elif action in CODES:
            self.supplied[device] = action == "connect"
        for when in plan.tells:
            self._at(when, "tell", Answer(id, device, action, status, int(at), code, detail))

    def _at(self, when: float, what: str, about: Any) -> None:
        self._number += 1
        heappush(self._queue, (when, self._number, what, about))


# --- doors ----------------------------------------------------------------------------------------------------------------------


class Door(Protocol):
    """A way to a hub."""

    def commands(self) -> Iterable[Mapping[str, Any]]:
        """Commands that have come since the last call; some may come again."""
        ...

    def answer(self, answer: Answer) -> None:
        """Hands an answer in; returns when the hub has it."""
        ...


@dataclass
class HttpDoor:
    """By HTTP. ``form`` plain: JSON; cim: messages of IEC 61968-9, for connect and disconnect."""

    hub: Hub
    form: str = "plain"
    prefix: str = ""
    _known: set[str] = field(default_factory=set)

    def commands(self) -> Iterator[Mapping[str, Any]]:
        """Commands nobody has answered; what has expired by now is left to time."""
        cursor: str | None = None
        while True:
            params = {"status": "sent", "limit": 1000, **({"cursor": cursor} if cursor else {})}
            page = self.hub.get("/v1/device-commands", params=params).json()
            for row in page["items"]:
                if row["id"] in self._known or not row["device"].startswith(self.prefix):
                    continue
                command = {**row, "expires_at": datetime.fromisoformat(row["expires_at"]).timestamp()}
                if self.form == "cim" and row["action"] in TYPES:
                    checked(self.hub.get(f"/v1/cim/controls/{row['id']}").content, row)
                self._known.add(row["id"])
                yield command
            cursor = page["next"]
            if cursor is None:
                return

    def answer(self, answer: Answer) -> None:
        """As JSON, or as the reply or event that CIM has for it. Raises SimulationError where the hub does not take it."""
        if self.form == "cim" and answer.action in TYPES:
            told = self.hub.post("/v1/cim", 200, content=as_cim(answer), headers={"Content-Type": "application/xml"})
            if safe_xml.text(safe_xml.parsed(told.content), "Reply/Result") != "OK":
                raise SimulationError(f"POST /v1/cim: {told.text[:500]}")
            return
        body = {name: getattr(answer, name) for name in ("command", "device", "status", "code", "detail")}
        self.hub.post("/v1/device-replies", 202, json={**body, "at": datetime.fromtimestamp(answer.at, UTC).isoformat()})


def checked(data: bytes, command: Mapping[str, Any]) -> None:
    """Reads a command as EndDeviceControls, as a head end does. Raises SimulationError where it says something else."""
    root = safe_xml.parsed(data)
    control = next(root.iter(f"{{{CONTROLS}}}EndDeviceControl"), None)
    kind = next((one for one in control if safe_xml.local(one) == "EndDeviceControlType"), None) if control is not None else None
    said = {
        "id": safe_xml.text(root, "Header/MessageID"),
        "device": safe_xml.text(control, "EndDevices/Names/name") if control is not None else "",
        "type": kind.get("ref") if kind is not None else "",
    }
    if said != {"id": command["id"], "device": command["device"], "type": TYPES[command["action"]]}:
        raise SimulationError(f"EndDeviceControls of {command['id']} say {said}")


def as_cim(answer: Answer) -> bytes:
    """Accepted and failed: a reply to the control; done: the event that the meter is connected or disconnected."""
    id = identity("head-end", answer.command, answer.status, answer.at)
    if answer.status == "done":
        root = message("EventMessage", "created", "EndDeviceEvents", id, answer.command)
        space = EVENTS
    else:
        flaws = [(answer.code, answer.detail, "")] if answer.status == "failed" else []
        root = message("ResponseMessage", "reply", "EndDeviceControls", id, answer.command, "FAILED" if flaws else "OK", flaws)
        space = CONTROLS
    for source in root.iter("{*}Source"):
        source.text = "HES"
    payload = etree.SubElement(root, f"{{{safe_xml.space(root)}}}Payload")
    nouns = etree.SubElement(payload, f"{{{space}}}{'EndDeviceEvents' if space == EVENTS else 'EndDeviceControls'}")
    one = etree.SubElement(nouns, f"{{{space}}}{'EndDeviceEvent' if space == EVENTS else 'EndDeviceControl'}")
    if space == EVENTS:
        etree.SubElement(one, f"{{{space}}}createdDateTime").text = datetime.fromtimestamp(answer.at, UTC).isoformat()
        etree.SubElement(one, f"{{{space}}}EndDeviceEventType").set("ref", CODES[answer.action])
    assets = etree.SubElement(one, f"{{{space}}}{'Assets' if space == EVENTS else 'EndDevices'}")
    etree.SubElement(etree.SubElement(assets, f"{{{space}}}Names"), f"{{{space}}}name").text = answer.device
    return etree.tostring(root, xml_declaration=True, encoding="utf-8")


class KafkaDoor:
    """By the topics of a broker, as a head end that speaks Kafka. A group of its own remembers what was taken."""

    def __init__(self, settings: Any, topology: Any, codec: Any, prefix: str = "") -> None:
        from connectors.enterprise.intake import Intake
        from connectors.head_end.publish import MEGABYTE, Writer
        from connectors.kafka.client import consumer

        self.codec, self.prefix = codec, prefix
        self.writer = Writer(settings, max_bytes=MEGABYTE)
        self.intake = Intake(self.writer, codec)
        self.reader = consumer(settings, topology.group("device-simulator"))
        self.reader.subscribe(["device.commands"])

    def commands(self) -> Iterator[Mapping[str, Any]]:
        """What has come; what a run before has taken does not come again."""
        found = self.reader.consume(500, 0.2)
        for message_ in found:
            if message_.error() is None:
                command = self.codec.decode(message_.value())
                if command["device"].startswith(self.prefix):
                    yield command
        if any(message_.error() is None for message_ in found):
            for message_ in found:
                if message_.error() is None:
                    self.reader.store_offsets(message_)
            self.reader.commit(asynchronous=False)

    def answer(self, answer: Answer) -> None:
        """A DeviceReply."""
        names = ("command", "device", "status", "at", "code", "detail")
        self.intake.reply({name: getattr(answer, name) for name in names})

    def close(self) -> None:
        """Leaves the group."""
        self.reader.close()
        self.writer.close()


def step(fleet: Fleet, door: Door, now: float, told: Callable[[Answer], None] = lambda _: None) -> None:
    """Takes what has come, and gives the answers that are due. ``told`` hears of each that was given; the rest waits where a door fails."""
    for command in door.commands():
        fleet.take(command, now)
    fleet.untold.extend(fleet.due(now))
    while fleet.untold:
        door.answer(fleet.untold[0])
        told(fleet.untold.popleft())
