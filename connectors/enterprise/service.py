"""Master data for whoever brings them: the HTTP door, files, and the connectors to enterprise systems."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol

import orjson

from connectors.enterprise.objects import attributes_of, item_of, lines_of, time_text
from connectors.enterprise.persons import Vault
from connectors.head_end.publish import Writer, wait_for
from connectors.rights.principal import acting
from schemas.codec import Codec
from schemas.identity import identity
from schemas.master import CHANNEL, KINDS

TOPIC: Final = "master.data"
KEY: Final = b"master"  # one key: all changes keep one order
ITEMS: Final = 100  # per record
BYTES: Final = 400_000
ASKED: Final = 2_000  # item ids per question
PAUSE: Final = 0.1
NANO: Final = 1_000_000_000
_COLUMNS: Final = "item, kind, object, outcome, reason, version"


class Asking(Protocol):
    """The store, as far as it is asked here."""

    def rows(self, sql: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]: ...


@dataclass(frozen=True, slots=True)
class ItemOutcome:
    """What became of one object that was submitted.

    ``outcome`` is applied, unchanged, parked (it names something unknown and waits), refused, or accepted: not decided yet.
    """

    item: str
    kind: str
    id: str
    outcome: str
    reason: str = ""
    version: int = 0


class MasterService:
    """Takes changes of objects in and tells what holds. Safe for many threads."""

    def __init__(
        self, writer: Writer, codec: Codec, reader: Asking, vault: Vault, *, zone: str = "UTC", topic: str = TOPIC,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:  # fmt: skip
        self.writer, self.codec, self.reader, self.vault, self.zone, self.topic = writer, codec, reader, vault, zone, topic
        self._clock = clock

    def close(self) -> None:
        """Closes the keys of persons."""
        self.vault.close()

    # --- changes -----------------------------------------------------------------------------------------------------------

    def submit(
        self, objects: Sequence[Any], message: str, *, source: str, user: str = "", strict: bool = False, wait: float = 10.0,
        first: int = 0,
    ) -> list[ItemOutcome]:  # fmt: skip
        """Submits objects (as lines have them) in order and waits at most ``wait`` seconds for what becomes of each.

        ``message`` makes it repeatable: the same message, or the same ``item`` ids, change nothing again and give the same answers. It may
        be submitted in parts: ``first`` is how many objects of it came before. ``strict`` refuses what names something unknown instead of
        parking it. Raises UnavailableError where Kafka does not take it.
        """
        outcomes: list[ItemOutcome] = []
        items: list[dict[str, Any]] = []
        for position, line in enumerate(objects, first):
            number = identity(source, message, position)
            try:
                item = item_of(line, number, self.zone, self.vault)
            except ValueError as error:
                said = line if isinstance(line, dict) else {}
                outcomes.append(ItemOutcome(number, str(said.get("kind", "")), str(said.get("id", "")), "refused", str(error)))
                continue
            items.append(item)
            outcomes.append(ItemOutcome(item["id"], item["kind"], item["object"], "accepted"))
        items, outcomes = _whole_groups(objects, items, outcomes)
        self._publish(items, message, source, acting(user), strict=strict)
        return self.decided(outcomes, wait) if items and wait > 0 else outcomes

    def outcomes(self, message: str) -> list[ItemOutcome]:
        """What became of the items of a message, as far as it is stored."""
        sql = f"SELECT {_COLUMNS} FROM master_items FINAL WHERE message = {{message:String}} ORDER BY sequence"
        return [_outcome(row) for row in self.reader.rows(sql, {"message": message})]

    def erase(self, person: str, *, user: str = "", wait: float = 10.0) -> ItemOutcome:
        """Erases a person's data for good: their key is deleted first, then their object says so. Ids stay, so bills stay provable."""
        self.vault.forget(person)
        message = identity("erase", person)
        line = {"kind": "person", "id": person, "action": "forget", "item": identity(message, self._clock())}
        return self.submit([line], message, source="erase", user=user, strict=True, wait=wait)[0]

    def _publish(self, items: list[dict[str, Any]], message: str, source: str, user: str, *, strict: bool) -> None:
        futures: list[Future[tuple[int, int]]] = []
        head = {"message": message, "source": source, "user": user, "at": self._clock() // NANO, "strict": strict, "answer": "",
                "answer_partition": None}  # fmt: skip
        for part in _parts(items):
            value = self.codec.encode("MasterSubmission", {**head, "items": part})
            headers = {"id": identity("master", message, part[0]["id"], self._clock()).encode()}
            futures.append(self.writer.write(self.topic, value, key=KEY, headers=headers))
        wait_for(futures, self.writer.timeout + 5)

    def decided(self, outcomes: list[ItemOutcome], wait: float) -> list[ItemOutcome]:
        """The outcomes, once they are stored or time is up. What is parked is asked once more: a later item may have released it."""
        deadline, pause = time.monotonic() + wait, PAUSE
        known: dict[str, ItemOutcome] = {}
        while True:
            open_ = [one.item for one in outcomes if one.outcome == "accepted" and one.item not in known]
            known |= self._asked(open_)
            if len(known) >= len({one.item for one in outcomes if one.outcome == "accepted"}) or time.monotonic() >= deadline:
                break
            time.sleep(pause)
            pause = min(pause * 1.5, 1.0)
        waiting = [item for item, one in known.items() if one.outcome == "parked"]
        if waiting and len(outcomes) > 1 and time.monotonic() < deadline:
            time.sleep(min(1.0, max(deadline - time.monotonic(), 0)))
            known |= self._asked(waiting)
        return [known.get(one.item, one) if one.outcome == "accepted" else one for one in outcomes]

    def _asked(self, items: Sequence[str]) -> dict[str, ItemOutcome]:
        found: dict[str, ItemOutcome] = {}
        sql = f"SELECT {_COLUMNS} FROM master_items FINAL WHERE item IN {{items:Array(String)}}"
        for first in range(0, len(items), ASKED):
            for row in self.reader.rows(sql, {"items": list(items[first : first + ASKED])}):
                found[row["item"]] = _outcome(row)
        return found

    # --- what holds -----------------------------------------------------------------------------------------------------------

    def find(self, kind: str, id: str, as_of: datetime | None = None, *, history: bool = False) -> dict[str, Any] | None:
        """An object: its attributes at a time (now), its spans, and with ``history`` all its versions. None for an unknown one."""
        rows = self.reader.rows(
            "SELECT * FROM master_objects FINAL WHERE kind = {kind:String} AND object = {id:String}", {"kind": kind, "id": id}
        )
        if not rows:
            return None
        row = rows[0]
        spans = spans_of(row)
        at = self._clock() // NANO if as_of is None else int((as_of if as_of.tzinfo else as_of.replace(tzinfo=UTC)).timestamp())
        now = next((span for span in spans if max(span[0], 0) <= at and (span[1] < 0 or at < span[1])), None)
        found: dict[str, Any] = {
            "kind": kind, "id": id, "version": row["version"], "changed_at": row["at"], "source": row["source"], "user": row["user"],
            "as_of": time_text(at), "exists": now is not None, "valid_from": time_text(now[0]) if now else None,
            "valid_to": time_text(now[1]) if now else None, "attributes": attributes_of(kind, id, now[2], self.vault) if now else {},
            "spans": [self._span(kind, id, span) for span in spans],
        }  # fmt: skip
        if history:
            past = self.reader.rows(
                "SELECT * FROM master_versions FINAL WHERE kind = {kind:String} AND object = {id:String} ORDER BY version",
                {"kind": kind, "id": id},
            )
            found["history"] = [
                {**{name: old[name] for name in ("version", "source", "user", "action", "message")}, "changed_at": old["at"],
                 "spans": [self._span(kind, id, span) for span in spans_of(old)]}
                for old in past
            ]  # fmt: skip
        return found

    def _span(self, kind: str, id: str, span: tuple[int, int, dict[str, Any]]) -> dict[str, Any]:
        return {"from": time_text(span[0]), "to": time_text(span[1]), **attributes_of(kind, id, span[2], self.vault)}

    def spans(self, kinds: Iterable[str]) -> Iterator[tuple[str, str, list[tuple[int, int, dict[str, Any]]]]]:
        """All objects of some kinds: kind, id and spans (UTC seconds, -1: open), in the order of kinds and ids."""
        sql = (
            "SELECT object, span_from, span_to, span_body FROM master_objects FINAL WHERE kind = {kind:String} AND object > {after:String} "
            "ORDER BY object LIMIT 10000"
        )
        for kind in kinds:
            after = ""
            while rows := self.reader.rows(sql, {"kind": kind, "after": after}):
                for row in rows:
                    yield kind, row["object"], spans_of(row)
                after = rows[-1]["object"]

    def export(self, kinds: Sequence[str] | None = None, *, personal: bool = False) -> Iterator[bytes]:
        """All objects as NDJSON that says the same when it is loaded; persons, who are nothing without their data, only where asked for."""
        wanted = [kind for kind in kinds or [*KINDS, CHANNEL] if personal or kind != "person"]
        for kind, id, spans in self.spans(wanted):
            for line in lines_of(kind, id, spans, self.vault if personal else None):
                yield orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)

    def placed_at(self, device: str, at: int) -> str | None:
        """The service point at which a device is installed at a second."""
        rows = self.reader.rows(
            "SELECT object, span_from, span_to, span_body FROM master_objects FINAL "
            "WHERE kind = 'install' AND JSONExtractString(span_body[1], 'device') = {device:String}",
            {"device": device},
        )
        events = sorted((spans_of(row)[0] for row in rows if row["span_body"]), key=lambda span: (span[0], span[2]["event"] == "install"))
        place = None
        for begin, _, body in events:
            if begin <= at and body["event"] in ("install", "remove"):
                place = body["service_point"] if body["event"] == "install" else None
        return place

    def subscriptions_of(self, point: str, at: int) -> list[tuple[str, tuple[int, int, dict[str, Any]]]]:
        """The subscriptions that use a service point at a second, each with the span that holds then."""
        rows = self.reader.rows(
            "SELECT object, span_from, span_to, span_body FROM master_objects FINAL WHERE kind = 'subscription' "
            "AND arrayExists(body -> has(JSONExtract(body, 'service_points', 'Array(String)'), {point:String}), span_body) ORDER BY object",
            {"point": point},
        )
        return [
            (row["object"], span)
            for row in rows
            for span in spans_of(row)
            if span[0] <= at and (span[1] < 0 or at < span[1]) and point in span[2]["service_points"]
        ]

    def of_device(self, kind: str, device: str) -> list[tuple[str, dict[str, Any]]]:
        """Components or configurations of a device, each as it is last."""
        rows = self.reader.rows(
            "SELECT object, span_from, span_to, span_body FROM master_objects FINAL "
            "WHERE kind = {kind:String} AND JSONExtractString(span_body[-1], 'device') = {device:String} ORDER BY object",
            {"kind": kind, "device": device},
        )
        return [(row["object"], attributes_of(kind, row["object"], spans_of(row)[-1][2], None)) for row in rows if row["span_body"]]


def open_service(
    writer: Writer, codec: Codec, reader: Asking, *, keys: Path, master_key: bytes, zone: str = "UTC", topic: str = TOPIC
) -> MasterService:
    """The service with the keys of persons in a file. Raises VaultError."""
    return MasterService(writer, codec, reader, Vault(keys, master_key), zone=zone, topic=topic)


def spans_of(row: Mapping[str, Any]) -> list[tuple[int, int, dict[str, Any]]]:
    """The spans of a stored object: from, to (UTC seconds, -1: open) and attributes."""
    bodies = (orjson.loads(body) for body in row["span_body"])
    return list(zip(row["span_from"], row["span_to"], bodies, strict=True))


def _outcome(row: Mapping[str, Any]) -> ItemOutcome:
    return ItemOutcome(row["item"], row["kind"], row["object"], row["outcome"], row["reason"], row["version"])


def _whole_groups(
    objects: Sequence[Any], items: list[dict[str, Any]], outcomes: list[ItemOutcome]
) -> tuple[list[dict[str, Any]], list[ItemOutcome]]:
    """A group of which one item is refused at the door is refused whole."""
    broken = {
        line["group"] for line, one in zip(objects, outcomes, strict=True)
        if one.outcome == "refused" and isinstance(line, dict) and isinstance(line.get("group"), str)
    }  # fmt: skip
    if not broken:
        return items, outcomes
    lost = {item["id"] for item in items if item["group"] in broken}
    reason = "another item of its group is not valid"
    told = [replace(one, outcome="refused", reason=reason) if one.item in lost and one.outcome == "accepted" else one for one in outcomes]
    return [item for item in items if item["id"] not in lost], told


def _parts(items: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Items in records of bounded size; a group stays in one record."""
    part: list[dict[str, Any]] = []
    size = 0
    for item in items:
        length = len(item["body"]) * 4 + 200  # characters, at most four bytes each
        together = part and item["group"] and item["group"] == part[-1]["group"]
        if part and not together and (len(part) >= ITEMS or size + length > BYTES * 4):
            yield part
            part, size = [], 0
        part.append(item)
        size += length
    if part:
        yield part
