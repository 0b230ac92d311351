"""The master agent: changes of master data in; what became of each, channels for VEE and subscriptions for billing out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

import orjson

from schemas.identity import partition_of
from schemas.master import CHANNEL, PERSONAL
from streams.master import derive
from streams.master.parked import Parked
from streams.master.registry import Body, Key, Registry, Thing
from streams.master.rules import MissingError, RefusedError, check, words
from streams.master.timeline import EVER, FOREVER, Bounds, Span, changed_within, differences, outward, overlaid, records
from streams.runtime.fold import Message, Output, Result
from streams.runtime.seen import Seen
from streams.runtime.state import State, Table

CHANNELS: Final = "vee.inbox"
CHANGES: Final = "master.changes"
_MADE: Final = "c/"  # c/<component>: the channel as told last, with its version
_SEQUENCE: Final = "sequence"
_PRESENT: Final = "present"  # VEE was told that there are master data
_BATCH: Final = ("message", "source", "user", "at", "answer", "answer_partition")


@dataclass(slots=True)
class Outcome:
    """What became of an item."""

    outcome: str
    reason: str = ""
    thing: Thing | None = None
    changed: Sequence[Bounds] = ()


class MasterFold:
    """Folds MasterSubmission and MasterChannel messages; one partition holds everything, since everything refers to everything.

    ``partitions`` are those of ``vee.inbox``. ``listeners`` are the topics that hear of usage subscriptions, with their partitions.
    ``remember`` ids of items are kept to recognise one that comes again; at most ``most_parked`` items wait for what they name.
    """

    def __init__(
        self, partitions: int, listeners: dict[str, int], *, remember: int = 1_000_000, most_parked: int = 200_000
    ) -> None:  # fmt: skip
        self.partitions, self.listeners, self.most_parked = partitions, listeners, most_parked
        self.state = State(lambda _: Table({}))
        self.registry = Registry(self.state)
        self.parked = Parked(self.state)
        self._seen = Seen(self.state, "s/", remember)
        self._dirty: dict[str, None] = {}  # components whose channel may be other than told, of the message in hand

    def apply(self, message: Message) -> Result:
        """Folds one message in."""
        result = Result()
        if message.type == "MasterSubmission":
            self._submission(message.body, result)
        elif message.type == "MasterChannel":
            self._channel(message, result)
        else:
            raise ValueError(f"master data have no use for a {message.type}")
        return result

    # --- items ------------------------------------------------------------------------------------------------------------

    def _submission(self, body: dict[str, Any], result: Result) -> None:
        batch = {name: body[name] for name in _BATCH}
        for _, some in groupby(enumerate(body["items"]), lambda pair: pair[1]["group"] or pair[0]):
            items = [item for _, item in some if self._seen.is_new(item["id"])]
            if items:
                self._together(batch, items, strict=body["strict"], result=result)
        result.count("rows", len(body["items"]))
        self._tell_channels(result)

    def _together(self, batch: dict[str, Any], items: list[dict[str, Any]], *, strict: bool, result: Result) -> None:
        """Applies items all or none; then what has waited for any of them, and so on."""
        queue = [(batch, items, strict)]
        while queue:
            batch, items, strict = queue.pop(0)
            outcomes = self._attempt(batch, items, strict)
            for item, outcome in zip(items, outcomes, strict=True):
                self._tell(batch, item, outcome, result)
            if outcomes[0].outcome == "parked":
                result.count("parked", len(items))
            for item, outcome in zip(items, outcomes, strict=True):
                if outcome.outcome != "applied":
                    continue
                key = (item["kind"], item["object"])
                if item["action"] == "put":
                    for waiting in self.parked.replaced(key, (_edge(item["from"], EVER), _edge(item["to"], FOREVER))):
                        reason = f"item {item['id']} said something else of it while this one waited"
                        for old in waiting[1]:
                            self._tell(waiting[0], old, Outcome("refused", reason), result)
                queue += [(*waiting, False) for waiting in self.parked.release(key)]

    def _attempt(self, batch: dict[str, Any], items: list[dict[str, Any]], strict: bool) -> list[Outcome]:
        dirty = dict(self._dirty)
        try:
            outcomes = [self._one(item) for item in items]
        except MissingError as error:
            self.registry.take_back()
            self._dirty = dirty
            if strict:
                return [Outcome("refused", str(error))] * len(items)
            if self.parked.count >= self.most_parked:
                return [Outcome("refused", f"{error}, and {self.most_parked} items wait already")] * len(items)
            self.parked.park(self._next(), error.target, batch, items)
            return [Outcome("parked", f"{error} yet")] * len(items)
        except RefusedError as error:
            self.registry.take_back()
            self._dirty = dirty
            return [Outcome("refused", str(error))] * len(items)
        self.registry.keep()
        return outcomes

    def _one(self, item: dict[str, Any]) -> Outcome:
        key = (item["kind"], item["object"])
        before = self.registry.get(key)
        spans, touched = self._changed(key, before, item)
        changed = differences(before.spans, spans)
        if not changed:
            return Outcome("unchanged", thing=before)
        if item["action"] == "end" and key[0] == "device":
            for name in self.registry.all_users(key):
                kind, _, part = name.partition("/")
                if kind in ("component", "configuration"):
                    self._set((kind, part), overlaid(self.registry.get((kind, part)).spans, touched[0], FOREVER, None))
        after = self._set(key, spans)
        check(self.registry, key, before.spans, spans, touched)
        return Outcome("applied", thing=after, changed=changed)

    def _changed(self, key: Key, before: Thing, item: dict[str, Any]) -> tuple[list[Span[Body]], Bounds]:
        """The spans of an object with an item applied, and the span of time that the item concerns."""
        action, begin, end = item["action"], _edge(item["from"], EVER), _edge(item["to"], FOREVER)
        if key[0] == "person" and action in ("put", "patch") and any(body.get("erased") for _, _, body in before.spans):
            raise RefusedError(f"the data of {words(key)} were erased: who comes back is another person")
        if action != "put" and not before.exists:
            raise MissingError(key)
        if action == "put":
            body = orjson.loads(item["body"])
            if key[0] == "install":  # a moment: said again, it is another one
                return [(begin, FOREVER, body)], (EVER, FOREVER)
            return overlaid(before.spans, begin, end, body), (begin, end)
        if action == "patch":
            named_only = orjson.loads(item["body"])
            return changed_within(before.spans, begin, end, lambda body: _patched(body, named_only)), (begin, end)
        if action == "forget":
            return changed_within(before.spans, EVER, FOREVER, _forgotten), (EVER, FOREVER)
        if action == "remove":
            users = self.registry.all_users(key)
            if users:
                kind, _, one = users[0].partition("/")
                more = f" and {len(users) - 1} others name" if len(users) > 1 else " names"
                raise RefusedError(f"{words((kind, one))}{more} it: {words(key)} cannot be taken away as if it never was")
            return [], (EVER, FOREVER)
        if key[0] == "install":
            raise RefusedError("an install event has no end: a device is removed by another one")
        return overlaid(before.spans, begin, FOREVER, None), (begin, FOREVER)

    def _set(self, key: Key, spans: list[Span[Body]]) -> Thing:
        before = self.registry.get(key)
        self._mark(key, before.spans)
        after = Thing(before.version + 1, spans)
        self.registry.set(key, after)
        self._mark(key, spans)
        return after

    # --- what others hear -------------------------------------------------------------------------------------------------

    def _mark(self, key: Key, spans: Iterable[Span[Body]]) -> None:
        """Notes the components whose channel an object may change."""
        kind, one = key
        if kind == "component":
            self._dirty[one] = None
        elif kind == "device":
            self._dirty.update(dict.fromkeys(self.registry.users(key, "component")))
        elif kind == "install":
            for device in {body["device"] for _, _, body in spans}:
                self._mark(("device", device), ())
        elif kind == "subscription":
            for point in {point for _, _, body in spans for point in body["service_points"]}:
                self._mark(("service_point", point), ())
        elif kind == "service_point":
            for event in self.registry.users(key, "install"):
                self._mark(("install", event), self.registry.get(("install", event)).spans)

    def _tell_channels(self, result: Result) -> None:
        for component in sorted(self._dirty):
            entry = f"{_MADE}{component}"
            data = self.state.entries.get(entry)
            version, old = _unpacked(data)
            new = derive.channel_of(self.registry, component)
            if new is None:
                if old is None:
                    continue
                new = old._replace(uses=[])
            changed = derive.changes(old, new)
            if not changed:
                continue
            if _PRESENT not in self.state.entries:
                self.state.put(_PRESENT, b"1")
                for number in range(self.partitions):
                    result.outputs.append(Output(CHANNELS, "MasterPresent", {"at": 0}, partition=number))
            self.state.put(entry, new.pack(version + 1))
            self._tell_channel(derive.master_channel(new, changed, version + 1), result)
        self._dirty.clear()

    def _tell_channel(self, record: dict[str, Any], result: Result) -> None:
        key = record["device"].encode()
        result.outputs.append(Output(CHANNELS, "MasterChannel", record, key, partition_of(key, self.partitions)))

    def _tell(self, batch: dict[str, Any], item: dict[str, Any], outcome: Outcome, result: Result) -> None:
        thing = outcome.thing
        applied = outcome.outcome == "applied" and thing is not None
        body = {
            **{name: batch[name] for name in ("message", "source", "user", "at")},
            "item": item["id"], "sequence": self._next(), "action": item["action"], "kind": item["kind"], "object": item["object"],
            "outcome": outcome.outcome, "reason": outcome.reason, "version": thing.version if thing else 0,
            "spans": [
                {"from": outward(begin), "to": outward(end), "body": orjson.dumps(body, option=orjson.OPT_SORT_KEYS).decode()}
                for begin, end, body in (thing.spans if applied and thing else ())
            ],
            "changed": records(outcome.changed),
        }  # fmt: skip
        result.outputs.append(Output(CHANGES, "MasterChange", body, f"{item['kind']}/{item['object']}".encode()))
        if batch["answer"]:
            result.outputs.append(Output(batch["answer"], "MasterChange", body, batch["message"].encode(), batch["answer_partition"]))
        if applied and thing and item["kind"] == "subscription":
            record = derive.usage_subscription(item["object"], thing.version, thing.spans, list(outcome.changed))
            key = item["object"].encode()
            for topic, partitions in self.listeners.items():
                result.outputs.append(Output(topic, "UsageSubscription", record, key, partition_of(key, partitions)))

    def _next(self) -> int:
        number = int.from_bytes(self.state.entries.get(_SEQUENCE, b""), "little") + 1
        self.state.put(_SEQUENCE, number.to_bytes(8, "little"))
        return number

    # --- channels given whole -----------------------------------------------------------------------------------------------

    def _channel(self, message: Message, result: Result) -> None:
        """Keeps a channel that was given as a whole for lists and comparisons; VEE has it already. A component says more and wins."""
        record = message.body
        id = f"{record['device']}/{record['channel']}"
        item = {"id": message.id, "action": "put", "kind": CHANNEL, "object": id}
        batch = {"message": message.id, "source": "", "user": "", "at": 0, "answer": "", "answer_partition": None}
        component = self._component(record["device"], record["channel"])
        if component is not None:
            version, made = _unpacked(self.state.entries.get(f"{_MADE}{component}"))
            if made is not None:
                self._tell_channel(derive.master_channel(made, [], version), result)
            self._tell(batch, item, Outcome("refused", f"this channel is made of component {component}"), result)
            return
        body = {name: value for name, value in record.items() if value is not None and name not in ("changed", "version")}
        before = self.registry.get((CHANNEL, id))
        spans: list[Span[Body]] = [(EVER, FOREVER, body)]
        if before.spans == spans:
            self._tell(batch, item, Outcome("unchanged", thing=before), result)
            return
        after = Thing(before.version + 1, spans)
        self.registry.set((CHANNEL, id), after)
        self.registry.keep()
        self._tell(batch, item, Outcome("applied", thing=after, changed=[(EVER, FOREVER)]), result)

    def _component(self, device: str, channel: str) -> str | None:
        for one in self.registry.users(("device", device), "component"):
            if self.registry.get(("component", one)).spans[0][2]["channel"] == channel:
                return one
        return None


def _unpacked(data: bytes | None) -> tuple[int, derive.Channel | None]:
    if data is None:
        return 0, None
    return derive.Channel.unpack(data)


def _edge(value: int | None, open_end: int) -> int:
    return open_end if value is None else value


def _patched(body: Body, change: Body) -> Body:
    attributes = {**(body.get("attributes") or {}), **(change.get("attributes") or {})}
    merged = {**body, **change, **({"attributes": attributes} if attributes else {})}
    return {name: value for name, value in merged.items() if value is not None}


def _forgotten(body: Body) -> Body:
    return {**{name: value for name, value in body.items() if name not in ("sealed", "attributes", *PERSONAL)}, "erased": True}
