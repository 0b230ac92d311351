"""What all conversations of the enterprise agent share: items known again by id, answers gathered into messages, questions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from schemas.identity import identity
from schemas.topology.enterprise import EnterpriseSettings
from streams.enterprise.records import Records
from streams.runtime.fold import Message, Output, Result

MESSAGES: Final = "enterprise.messages"
QUESTIONS: Final = "enterprise.questions"
CONVERSATIONS: Final = "enterprise.conversations"
COMMANDS: Final = "device.commands"
MASTER: Final = "master.inbox"
INBOX: Final = "enterprise.inbox"
ITEMS: Final = 500  # of one message at most
VME, PRE, AUE, CVE, IDE, LRE, VAE = "DCE.VME", "PRE", "PRE.AUE", "PRE.CVE", "PRE.IDE", "PRE.TEE.LRE", "PRE.VAE"
REFUSED: Final = "refused-item"
NOTIFICATIONS: Final = frozenset(("location", "point-of-delivery", "connection-told", "connection-cancel", "text"))


class Refusal(Exception):  # noqa: N818 it is an answer, not an error of ours
    """An item is refused: error category and one sentence."""

    def __init__(self, category: str, note: str) -> None:
        super().__init__(note)
        self.category, self.note = category, note


@dataclass(frozen=True, slots=True)
class Item:
    """One item being taken: its key in the state, and what it belongs to."""

    key: str
    id: str
    system: str
    protocol: str
    kind: str
    message: str
    bulk: bool
    at: int  # when the hub took it
    body: dict[str, Any]
    tries: int = 0  # how often an operator had it tried again


@dataclass(slots=True)
class Turn:
    """What one message of the inbox leads to, collected and written at its end."""

    message: Message
    result: Result
    answers: dict[tuple[str, str, str, str, bool], list[dict[str, Any]]] = field(default_factory=dict)
    questions: dict[str, list[bytes]] = field(default_factory=dict)


class Desk:
    """State and outputs of the agent, for its conversations."""

    def __init__(self, settings: EnterpriseSettings) -> None:
        self.settings = settings
        self.records = Records()
        self._turn: Turn | None = None

    # --- time -----------------------------------------------------------------------------------------------------------------

    @property
    def now(self) -> int:
        """UTC seconds as ticks (and the requests themselves) tell."""
        return int.from_bytes(self.records.state.entries.get("now", b""), "little")

    def pass_time(self, at: int) -> None:
        """Time never goes back."""
        if at > self.now:
            self.records.state.put("now", at.to_bytes(8, "little"))

    # --- turns ----------------------------------------------------------------------------------------------------------------

    def begin(self, message: Message, result: Result) -> None:
        """Starts collecting what a message leads to."""
        self._turn = Turn(message, result)

    @property
    def turn(self) -> Turn:
        """The message at hand."""
        assert self._turn is not None
        return self._turn

    def end(self) -> None:
        """Writes what was collected: one message per receiver, kind and cause, in pieces of bounded size."""
        turn, number = self.turn, 0
        for (system, protocol, kind, reference, bulk), items in turn.answers.items():
            for first in range(0, len(items), ITEMS):
                body = {
                    "id": turn.message.derive("message", number), "system": system, "protocol": protocol, "kind": kind,
                    "reference": reference, "bulk": bulk, "at": self.now, "items": items[first : first + ITEMS],
                }  # fmt: skip
                number += 1
                self.write(MESSAGES, "EnterpriseMessage", body, system)
        for kind, asked in turn.questions.items():
            for first in range(0, len(asked), ITEMS):
                id_ = turn.message.derive("question", kind, first)
                lines = [line.decode() for line in asked[first : first + ITEMS]]
                self.write(QUESTIONS, "EnterpriseQuestion", {"id": id_, "kind": kind, "at": self.now, "items": lines}, id_)
        self._turn = None

    def write(self, topic: str, type: str, body: dict[str, Any], key: str, partition: int | None = None) -> None:
        """One record."""
        self.turn.result.outputs.append(Output(topic, type, body, key.encode(), partition))

    def tell(
        self, system: str, protocol: str, kind: str, id: str, body: Any, *,
        reference: str = "", item: str = "", bulk: bool = True, category: str = "", note: str = "",
    ) -> None:  # fmt: skip
        """An item of a message to a system; items of the same cause travel together."""
        text = orjson.dumps(body, option=orjson.OPT_SORT_KEYS).decode()
        entry = {"id": id, "reference": item, "body": text, "category": category, "note": note}
        self.turn.answers.setdefault((system, protocol, kind, reference, bulk), []).append(entry)

    def ask(self, kind: str, item: dict[str, Any]) -> None:
        """Asks the store for one thing."""
        self.turn.questions.setdefault(kind, []).append(orjson.dumps(item, option=orjson.OPT_SORT_KEYS))

    def note(self, record: dict[str, Any], state: str, **detail: Any) -> None:
        """Moves a conversation to a state and says so. ``record`` holds system, kind, subject and is changed."""
        record["state"], record["version"] = state, record.get("version", 0) + 1
        body = {
            "id": identity(record["kind"], record["system"], record["subject"]), "system": record["system"], "kind": record["kind"],
            "subject": record["subject"], "device": record.get("device", ""), "account": record.get("account", ""), "state": state,
            "at": self.now, "version": record["version"], "detail": orjson.dumps(detail, option=orjson.OPT_SORT_KEYS).decode(),
        }  # fmt: skip
        self.write(CONVERSATIONS, "EnterpriseConversation", body, record["subject"])

    # --- items: taken once, answered the same -----------------------------------------------------------------------------------

    def known(self, item: Item, mark: str) -> dict[str, Any] | None:
        """The record of an item that was taken before; None for a new one. Raises Refusal where the same id means something else.

        What could not be read at the door was nothing: it may come again, put right, under its id.
        """
        seen = self.records.get(item.key)
        if seen is not None and seen["mark"] != mark:
            if seen.get("door"):
                return None
            raise Refusal(CVE, "this UUID was used before for something else")
        return seen

    def opened(self, item: Item, mark: str, **more: Any) -> dict[str, Any]:
        """Notes that an item is being worked on."""
        record = {
            "id": item.id, "system": item.system, "protocol": item.protocol, "kind": item.kind, "message": item.message,
            "bulk": item.bulk, "mark": mark, "open": True, "due": self.now + self.settings.remember, **more,
        }  # fmt: skip
        self.records.put(item.key, record)
        return record

    def settle(self, key: str, body: Any = None, category: str = "", note: str = "") -> None:
        """Decides an item: it is answered now, or with its group, and the same way whenever it comes again."""
        seen = self.records.get(key)
        if seen is None or not seen["open"]:
            return
        seen.update(open=False, body=body, category=category, note=note)
        group = seen.pop("group", None)
        seen.pop("request", None)
        self.records.put(key, seen)
        if not group:
            self.answer(seen)
        else:
            self._less(group)

    def forget_refused(self, item: Item) -> None:
        """What was refused at the door under this id has come again otherwise."""
        record = self.records.get(f"r/{item.system}/{item.id}")
        if record is not None and record.get("door"):
            self.records.put(f"r/{item.system}/{item.id}", None)
            self.note(record, "sent again", kind=item.kind, message=item.message)

    def refused(self, item: Item, mark: str, refusal: Refusal, *, door: bool = False) -> None:
        """Keeps an item that was refused for what it found here, so that it can be tried again when that has changed.

        ``door``: it was refused for what is written in it, before it came here; only its sender can send it again.
        """
        about = {name: getattr(item, name) for name in ("id", "system", "protocol", "message", "bulk", "body", "tries")}
        before = self.records.get(f"r/{item.system}/{item.id}") or {}
        record = {
            **about, "of": item.kind, "mark": mark, "kind": REFUSED, "subject": item.id, "device": item.body.get("device", ""),
            "account": item.body.get("account", ""), "version": before.get("version", item.tries * 2),
            "due": self.now + self.settings.keep_refused, **({"door": True} if door else {}),
        }  # fmt: skip
        self.note(record, "refused", kind=item.kind, category=refusal.category, note=refusal.note, message=item.message, door=door)
        self.records.put(f"r/{item.system}/{item.id}", record)

    def again(self, system: str, id: str) -> tuple[Item, str] | None:
        """A refused item as one to be taken now, and its mark; None where none of this id is kept."""
        record = self.records.get(f"r/{system}/{id}")
        if record is None or record.get("door"):
            return None
        self.records.put(f"r/{system}/{id}", None)
        key = f"u/{system}/{id}"
        self.records.put(key, None)
        self.note(record, "tried again", kind=record["of"], message=record["message"])
        words = ("protocol", "message", "bulk", "body")
        protocol, message, bulk, body = (record[name] for name in words)
        return Item(key, id, system, protocol, record["of"], message, bulk, self.now, body, record["tries"] + 1), record["mark"]

    def answer(self, seen: dict[str, Any], message: str | None = None, *, bulk: bool | None = None) -> None:
        """Says (again) what became of an item; to the message at hand where it came again.

        SAP's notifications have no confirmation: success is silent, failure is told as an event.
        """
        if seen["protocol"] == "sap" and seen["kind"] in NOTIFICATIONS:
            if seen["category"]:
                device = (seen.get("body") or {}).get("device", "")
                self.trouble(seen["system"], seen["id"], device, self.now, f"{seen['category']}: {seen['note']}")
            return
        self.tell(
            seen["system"], seen["protocol"], f"{seen['kind']}-answer", identity("answer", seen["system"], seen["id"]), seen.get("body"),
            reference=seen["message"] if message is None else message, item=seen["id"], bulk=seen["bulk"] if bulk is None else bulk,
            category=seen.get("category", ""), note=seen.get("note", ""),
        )  # fmt: skip

    def trouble(self, system: str, subject: str, device: str, at: int, text: str) -> None:
        """An event that tells SAP of something no confirmation can tell of."""
        told = self.settings.systems[system].trouble
        body = {"event": subject, "category": told.category, "severity": told.severity, "at": at, "device": device, "text": text}
        self.tell(system, "sap", "event", identity("trouble", system, subject, text), body)

    # --- groups: items of one message that are answered together ------------------------------------------------------------------

    def group(self, name: str, message: str, bulk: bool, keys: Iterable[str], left: int) -> None:
        """Items that are answered in one message when the last of ``left`` is decided."""
        self.records.put(f"g/{name}", {"message": message, "bulk": bulk, "keys": list(keys)})
        self.records.put(f"n/{name}", {"left": left})

    def _less(self, name: str) -> None:
        counter = self.records.get(f"n/{name}")
        if counter is None:
            return
        if counter["left"] > 1:
            self.records.put(f"n/{name}", {"left": counter["left"] - 1})
            return
        gathered = self.records.get(f"g/{name}") or {"keys": []}
        for key in gathered["keys"]:
            seen = self.records.get(key)
            if seen is not None:
                self.answer(seen, gathered["message"], bulk=gathered["bulk"])
        self.records.put(f"g/{name}", None)
        self.records.put(f"n/{name}", None)
