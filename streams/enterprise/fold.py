"""The enterprise agent: every conversation with a CIS as one fold, so that none is lost, doubled or half done whatever is killed.

Inbox ``enterprise.inbox``: requests (checked at the door), answers of the store, of the master agent and of devices, device events,
ticks. All conversations live in partition 0: they are few beside reads, and a CIS expects one order of what it sends.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from schemas.identity import identity
from schemas.topology.enterprise import EnterpriseSettings
from streams.enterprise.charges import Charges
from streams.enterprise.connections import Connections
from streams.enterprise.desk import CVE, IDE, PRE, VAE, Desk, Item, Refusal
from streams.enterprise.master_data import KINDS, MasterData
from streams.enterprise.readings import Readings
from streams.enterprise.series import SeriesOut
from streams.enterprise.sums import Sums
from streams.enterprise.usage import Usage
from streams.runtime.fold import Message, Result

_CONFIRMED: Final = frozenset(("reading-result", "series", "series-change", "event", "usage", "usage-correction", "charge"))


class EnterpriseFold:
    """Folds one partition. Only the first holds conversations; the others see ticks alone."""

    def __init__(self, settings: EnterpriseSettings, partition: int = 0) -> None:
        self.partition = partition
        self.desk = Desk(settings)
        self.state = self.desk.records.state
        self.master = MasterData(self.desk)
        self.readings = Readings(self.desk, self.master)
        self.connections = Connections(self.desk, self.master)
        self.sums = Sums(self.desk, self.master)
        self.series = SeriesOut(self.desk)
        self.usage = Usage(self.desk, self.master)
        self.charges = Charges(self.desk, self.master)
        self._due = {
            "o": self.readings.due, "x": self.connections.due, "z": self.sums.due, "s": self.series.due, "q": self.usage.due,
            "b": self.charges.due,
        }  # fmt: skip
        self._answered = {
            "reading": self.readings.answered, "sum": self.sums.answered, "series": self.series.answered,
            "determinants": self.usage.answered,
        }  # fmt: skip
        self._kinds = {
            "reading-order": self.readings.order, "reading-cancel": self.readings.cancel,
            "manual-read": self.readings.manual, "manual-change": self.readings.manual, "connection": self.connections.request,
            "connection-cancel": self.connections.cancel, "text": self.connections.text, "calculation": self.sums.request,
            "calculation-cancel": self.sums.cancel, "usage-request": self.usage.request, "usage-used": self.usage.used,
            "usage-discard": self.usage.discard, "charge-lifecycle": self.charges.decided, "readings-get": self._told_later,
        }  # fmt: skip

    def apply(self, message: Message) -> Result:
        """Folds one message in."""
        result = Result()
        self.desk.begin(message, result)
        body = message.body
        if message.type == "EnterpriseRequest":
            self._request(message, body)
        elif message.type == "Tick":
            self._tick(body["at"])
        elif message.type == "EnterpriseAnswer":
            for line in body["items"]:
                asked, found = orjson.loads(line)
                self._answered[body["kind"]](asked, found)
        elif message.type == "MasterChange":
            self.master.changed(body)
        elif message.type == "DeviceReply":
            self.connections.replied(body)
        elif message.type == "PrepaidCharge":
            self.charges.charged(body)
        elif message.type == "DeviceEvent":
            self._event(body)
        self.desk.end()
        return result

    # --- time --------------------------------------------------------------------------------------------------------------------

    def _tick(self, at: int) -> None:
        if self.partition:
            return
        self.desk.pass_time(at)
        for key in self.desk.records.due(self.desk.now):
            record = self.desk.records.get(key)
            handle = self._due.get(key.partition("/")[0])
            if record is None:
                continue
            if handle is None:
                self.desk.records.put(key, None)  # an id that need not be known again
            else:
                handle(key, record)

    # --- requests ----------------------------------------------------------------------------------------------------------------

    def _request(self, message: Message, body: dict[str, Any]) -> None:
        self.desk.pass_time(body["received_at"])
        if body["kind"] == "retry":
            self._again(body)
            return
        grouped = body["kind"] in KINDS
        name = message.derive("group")
        keys: set[str] = set()
        open_: set[str] = set()
        for entry in body["items"]:
            item = Item(
                f"u/{body['system']}/{entry['id']}", entry["id"], body["system"], body["protocol"], body["kind"], body["message"],
                body["bulk"], body["received_at"], orjson.loads(entry["body"]) if entry["body"] else {},
            )  # fmt: skip
            self._item(item, entry, name)
            if item.key in keys:
                continue
            keys.add(item.key)
            seen = self.desk.records.get(item.key)
            if seen is not None and seen["open"] and seen.get("group") == name:
                open_.add(item.key)
        self.master.submit(body["system"], body["protocol"], body["received_at"])
        if grouped and open_:
            self._hold(name, body, open_)

    def _again(self, body: dict[str, Any]) -> None:
        """An operator has refused items tried again: each is answered anew, in its message."""
        for entry in body["items"]:
            found = self.desk.again(body["system"], entry["id"])
            if found is not None:
                self._tried(*found, "")
        self.master.submit(body["system"], body["protocol"], body["received_at"])

    def _hold(self, name: str, body: dict[str, Any], open_: set[str]) -> None:
        """Items that wait for the master agent are answered together; the others were answered at once."""
        self.desk.group(name, body["message"], body["bulk"], sorted(open_), len(open_))

    def _item(self, item: Item, entry: dict[str, Any], group: str) -> None:
        mark = identity(item.kind, entry["body"], entry["category"])
        try:
            seen = self.desk.known(item, mark)
            if seen is None:
                self.desk.forget_refused(item)
            else:
                if not seen["open"]:
                    self.desk.answer(seen, item.message, bulk=item.bulk)
                return
        except Refusal as refusal:  # what was first known by this id stays; this one is answered as what it is
            self._refuse_unknown(item, refusal)
            return
        if entry["category"]:
            flaw = Refusal(entry["category"], entry["note"])
            self.desk.refused(item, mark, flaw, door=True)
            self._refuse(item, mark, flaw, door=True)
            return
        self._tried(item, mark, group)

    def _tried(self, item: Item, mark: str, group: str) -> None:
        try:
            self._take(item, mark, group)
        except Refusal as refusal:
            self.desk.refused(item, mark, refusal)
            self._refuse(item, mark, refusal)

    def _take(self, item: Item, mark: str, group: str) -> None:
        handle = self._kinds.get(item.kind)
        if item.kind in KINDS:
            self.master.take(item, mark, group)
        elif handle is not None:
            handle(item, mark)
        elif item.kind.endswith("-confirmed") and item.kind.removesuffix("-confirmed") in _CONFIRMED:
            self._confirmed(item, mark)
        else:
            raise Refusal(VAE, f"nothing is known of {item.kind}")

    def _told_later(self, item: Item, mark: str) -> None:
        """Readings are put into the message by whoever sends it: they are in the store, and may be many."""
        self.desk.opened(item, mark)
        self.desk.settle(item.key, item.body)

    def _refuse(self, item: Item, mark: str, refusal: Refusal, *, door: bool = False) -> None:
        self.desk.opened(item, mark, **({"door": True} if door else {}))
        about = {"id": item.body.get("id", ""), "device": item.body.get("device", "")}
        self.desk.settle(item.key, about, refusal.category, refusal.note)

    def _refuse_unknown(self, item: Item, refusal: Refusal) -> None:
        self.desk.tell(
            item.system, item.protocol, f"{item.kind}-answer", self.desk.turn.message.derive("refused", item.id), None,
            reference=item.message, item=item.id, bulk=item.bulk, category=refusal.category, note=refusal.note,
        )  # fmt: skip

    def _confirmed(self, item: Item, mark: str) -> None:
        """The CIS confirms something the hub told it. There is no answer to an answer."""
        body = item.body
        seen = self.desk.opened(item, mark)
        self.desk.records.put(item.key, {**seen, "open": False, "silent": True})
        if item.kind == "reading-result-confirmed" and body.get("id"):
            self.readings.confirmed(item.system, body["id"], body.get("category", ""), body.get("note", ""))
        elif item.kind == "charge-confirmed" and body.get("id"):
            self.charges.confirmed(item.system, body["id"], body.get("category", ""), body.get("note", ""))

    # --- events ------------------------------------------------------------------------------------------------------------------

    def _event(self, body: dict[str, Any]) -> None:
        """A device event is told to the CIS that knows the device; connected and disconnected are outcomes of commands besides."""
        device = self.master.device(body["device"])
        if device is None:
            return
        system = self.desk.settings.systems.get(device["system"])
        told = system.events.get(body["kind"]) if system is not None else None
        if system is None or told is None or system.protocol not in ("sap", "cim"):
            return
        words = {"event": body["id"], "category": told.category, "severity": told.severity, "at": body["at"], "device": body["device"],
                 "text": f"{body['kind']} {body['code']}".strip()}  # fmt: skip
        self.desk.tell(device["system"], system.protocol, "event", self.desk.turn.message.derive("event"), words)


__all__ = ["CVE", "IDE", "PRE", "VAE", "EnterpriseFold"]
