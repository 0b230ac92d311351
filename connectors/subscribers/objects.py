"""Integration objects: what subscribers can ask for, where it flows, its fields, units and a sample; and records turned into items.

An item is what a receiver sees as one thing: a channel day, a determinant, an exception. Items are plain JSON: quantities are decimal
texts in the item's ``unit``, times are ISO in UTC.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import numpy as np

from connectors.head_end.formats.events import EventError, decode_events
from schemas import conditions, quantity
from schemas.block import DIRECTIONS, DayBlock, FinalBlock, starts_of, strings
from schemas.codec import BLOCKS, Codec, schema_text
from schemas.identity import identity
from schemas.rules import METHODS
from schemas.topology import Topology
from schemas.topology.topics import RAW

STATES: Final = ("open", "final", "exception")
_EPOCH: Final = date(1970, 1, 1)
_INSIDE: Final = frozenset(
    {"Tick", "Recall", "RegisterDays", "MasterPresent", "Label", "Receipt", "MasterChannel", "UsageSubscription"}
)  # for agents, not for subscribers
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Definition:
    """An integration object: the topic it flows on and what it means."""

    name: str
    topic: str
    about: str
    key: str
    record: str = ""  # the record type it is made from; empty: all of the topic that are no other object's


DEFINITIONS: Final = {
    d.name: d
    for d in (
        Definition(
            "final-intervals",
            "reads.final",
            "Final intervals: one item per channel and local day, all its slots",
            "device, channel, seconds, day", "FinalBlock"),
        Definition(
            "final-registers",
            "reads.final",
            "Final register reads: one item per channel and change",
            "device, channel, at",
            "FinalBlock",
        ),
        Definition("exceptions", "vee.exceptions", "What the rules found, and how it ended", "id", "VeeException"),
        Definition(
            "determinants",
            "billing.determinants",
            "Bill determinants; a correction names what it replaces",
            "account, device, channel, kind, tou, period", "Determinant"),
        Definition(
            "daily-determinants",
            "determinants.daily",
            "Daily sums by time of use: one item per channel and local day",
            "device, channel, day, seconds", "DayBlock"),
        Definition(
            "usage-transactions",
            "billing.determinants",
            "Calculated usage of a subscription and period, all its quantities together",
            "id",
            "UsageTransaction",
        ),
        Definition("usage-events", "usage.events", "Consumption as it becomes known, for prepaid engines", "account"),
        Definition("prepaid-ledger", "prepaid.ledger", "Postings to prepaid accounts", "account, sequence"),
        Definition("prepaid-accounts", "prepaid.accounts", "Prepaid accounts as they stand: balance, state, days left", "account, version"),
        Definition("prepaid-notices", "prepaid.notices", "Low, zero and topped-up balances to tell the customer of", "account"),
        Definition("device-commands", "device.commands", "Connect, disconnect, read now", "device"),
        Definition("device-replies", "device.replies", "What the head end says became of a command", "device"),
        Definition("device-events", "hes.events", "Outages, tamper, clock changes as devices tell them", "device, at, kind", "DeviceEvent"),
        Definition("audit", "audit.events", "Who did what, before and after", "id", "AuditEvent"),
        Definition("todos", "todo.events", "To-Dos raised, assigned, resolved", "subject"),
    )
}  # fmt: skip
EVENT: Final = "DeviceEvent"


@dataclass(slots=True, eq=False)
class Unit:
    """The items of one record for one object, after filtering. ``block`` holds them packed where they are finals."""

    object: str
    topic: str
    partition: int
    offset: int
    at: int  # UTC milliseconds of the record
    key: str
    schema: str  # record type and version
    items: list[Json]
    block: FinalBlock | None = None
    raw: bytes = b""  # the record as it was, where nothing of it was left out
    size: int = 0  # bytes of the record

    @property
    def ids(self) -> list[str]:
        """The ids of the items."""
        return [item["id"] for item in self.items]


@dataclass(slots=True)
class Record:
    """A Kafka record with what matters of it."""

    topic: str
    partition: int
    offset: int
    at: int
    key: str
    value: bytes


Keep = Callable[[str, Mapping[str, Any]], bool]
"""Whether an item (its object, its fields) is wanted."""


class Reader:
    """Turns records into units of the objects that are wanted, leaving out what ``keep`` does not want."""

    def __init__(
        self, codec: Codec, objects: frozenset[str], keep: Keep, *, event_names: Mapping[str, str] | None = None, zone: str = "UTC"
    ) -> None:
        """``event_names`` and ``zone`` as ingest decodes device events with them."""
        self._event_names, self._zone = event_names, zone
        self.codec, self.objects, self.keep = codec, objects, keep
        self._by_topic: dict[str, list[str]] = {}
        for name in DEFINITIONS:
            if name in objects:
                self._by_topic.setdefault(DEFINITIONS[name].topic, []).append(name)
        self._claimed = {(d.topic, d.record) for d in DEFINITIONS.values() if d.record}

    def units(self, record: Record) -> Iterator[Unit]:
        """The units of one record, those without items left out. Raises ValueError on a record that is none."""
        names = self._by_topic.get(record.topic, [])
        if names == ["device-events"]:
            yield from self._events(record)
            return
        kind = self.codec.name_of(record.value)
        free = kind not in _INSIDE and (record.topic, kind) not in self._claimed
        names = [name for name in names if DEFINITIONS[name].record == kind or (free and not DEFINITIONS[name].record)]
        if not names:
            return
        body = self.codec.decode(record.value)
        label = self.codec.ids[int.from_bytes(record.value[1:5], "big")]
        if isinstance(body, FinalBlock):
            for name in names:
                yield from self._finals(record, name, body, label)
        elif isinstance(body, DayBlock):
            items = [item for item in day_items(body) if self.keep(names[0], item)]
            if items:
                yield self._unit(names[0], record, label, items)
        elif kind not in BLOCKS:
            item = item_of(body, identity(record.topic, record.partition, record.offset))
            if self.keep(names[0], item):
                yield self._unit(names[0], record, label, [item], raw=record.value)

    def _unit(self, name: str, record: Record, label: str, items: list[Json], **more: Any) -> Unit:
        place = (record.topic, record.partition, record.offset)
        return Unit(name, *place, record.at, record.key, label, items, size=len(record.value), **more)

    def _finals(self, record: Record, name: str, block: FinalBlock, label: str) -> Iterator[Unit]:
        of_intervals = name == "final-intervals"
        rows = np.flatnonzero(((block.seconds > 0) == of_intervals) & (block.count > 0))
        keys = final_keys(block)
        wanted = np.array([row for row in rows.tolist() if self.keep(name, keys[row])], np.int64)
        if len(wanted):
            part = block if len(wanted) == len(block) else block.take(wanted)
            yield self._unit(name, record, label, final_items(part), block=part)

    def _events(self, record: Record) -> Iterator[Unit]:
        try:
            found = decode_events(record.value, self._event_names, self._zone)
        except EventError as error:
            raise ValueError(str(error)) from None
        items = []
        for event in found:
            id_ = identity("event", event["device"], event["at"], event["kind"], event["code"])
            item = {"id": id_, **event, "at": iso(event["at"])}
            if self.keep("device-events", item):
                items.append(item)
        if items:
            yield self._unit("device-events", record, f"{EVENT}.v1", items)


def final_keys(block: FinalBlock) -> list[Json]:
    """What filters look at, per row."""
    names = ("device", "channel", "unit", "service_point", "account", "zone")
    columns = [getattr(block, name).to_pylist() for name in names]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def iso(second: int) -> str:
    """UTC seconds as ISO text."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=int(second))).strftime("%Y-%m-%dT%H:%M:%SZ")


def value_text(micros: int, condition: int) -> str | None:
    """A value as decimal text; None where it is missing or not due."""
    return None if condition == conditions.NOT_RECEIVED or conditions.MISSING <= condition < conditions.OUTAGE else quantity.text_of(micros)


def final_items(block: FinalBlock) -> list[Json]:
    """Rows of final measurements as items."""
    begins, read_begins = starts_of(block.count), starts_of(block.reads)
    keys = final_keys(block)
    values, codes, methods, times = (getattr(block, name).tolist() for name in ("values", "conditions", "methods", "times"))
    found = []
    for row, key in enumerate(keys):
        seconds, first, count = int(block.seconds[row]), int(begins[row]), int(block.count[row])
        part = range(first, first + count)
        about = {
            **key,
            "direction": DIRECTIONS[int(block.direction[row])],
            "version": int(block.version[row]),
            "replaces": int(block.replaces[row]),
            "state": STATES[int(block.state[row])],
        }
        names = [METHODS[methods[i]] for i in part]
        if seconds:
            id_ = identity("final", key["device"], key["channel"], seconds, int(block.day[row]), about["version"])
            item = {
                "id": id_, **about, "day": (_EPOCH + timedelta(days=int(block.day[row]))).isoformat(), "start": iso(block.start[row]),
                "seconds": seconds, "values": [value_text(values[i], codes[i]) for i in part], "conditions": codes[first : first + count],
                "methods": names if any(names) else [],
            }  # fmt: skip
        else:
            at = times[int(read_begins[row]) : int(read_begins[row]) + count]
            id_ = identity("final", key["device"], key["channel"], 0, *at, about["version"])
            reads = [
                {"at": iso(moment), "value": value_text(values[i], codes[i]), "condition": codes[i], "method": name}
                for moment, i, name in zip(at, part, names, strict=True)
            ]
            item = {
                "id": id_, **about, "dials": int(block.dials[row]), "multiplier": quantity.text_of(int(block.multiplier[row])),
                "reads": reads,
            }  # fmt: skip
        found.append(item)
    return found


def day_items(block: DayBlock) -> list[Json]:
    """Rows of daily determinants as items."""
    names = ("device", "channel", "unit", "service_point", "account", "map")
    columns = [getattr(block, name).to_pylist() for name in names]
    begins, found = starts_of(block.lines), []
    for row, texts in enumerate(zip(*columns, strict=True)):
        key = dict(zip(names, texts, strict=True))
        first, count = int(begins[row]), int(block.lines[row])
        seconds, version = int(block.seconds[row]), int(block.version[row])
        lines = [
            {"tou": block.tou_names[int(block.tou[i])], "quantity": quantity.text_of(int(block.quantities[i]))}
            for i in range(first, first + count)
        ]
        found.append(
            {
                "id": identity("day", key["device"], key["channel"], seconds, int(block.day[row]), version),
                **key,
                "day": (_EPOCH + timedelta(days=int(block.day[row]))).isoformat(),
                "start": iso(block.start[row]),
                "end": iso(block.end[row]),
                "seconds": seconds,
                "version": version,
                "replaces": int(block.replaces[row]),
                "state": STATES[int(block.state[row])],
                "condition": int(block.condition[row]),
                "slots": int(block.slots[row]),
                "actual": int(block.actual[row]),
                "estimated": int(block.estimated[row]),
                "lines": lines,
            }
        )
    return found


def item_of(record: Mapping[str, Any], place: str) -> Json:
    """A plain record as item; ``place`` identifies one that has no id of its own."""
    item = {name: _plain(value) for name, value in record.items()}
    return item if isinstance(item.get("id"), str) and item["id"] else {**item, "id": place}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds" if value.microsecond else "seconds").replace("+00:00", "Z")
    if isinstance(value, Decimal):
        text = f"{value:f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def delivery_id(subscriber: str, object: str, ids: list[str], versions: list[int], again: str = "") -> str:
    """The id of a delivery: the same items to the same subscriber always have the same one; ``again`` makes it another."""
    return identity("delivery", subscriber, object, again, *(f"{id_}/{version}" for id_, version in zip(ids, versions, strict=True)))


# --- metadata ------------------------------------------------------------------------------------------------------------------

_TEXT: Final = {"type": "string"}
_WHOLE: Final = {"type": "integer"}
_TIME: Final = {"type": "string", "format": "date-time"}
_AMOUNT: Final = {"type": "string", "pattern": r"^-?\d+(\.\d{1,6})?$"}


def _named(schema: Json, about: str) -> Json:
    return {**schema, "description": about}


def _or_null(schema: Json) -> Json:
    return {**schema, "type": [schema["type"], "null"]}


_COMMON: Final[Json] = {
    "id": _named(_TEXT, "deterministic: the same version of the same thing always has the same"),
    "device": _TEXT,
    "channel": _named(_TEXT, "OBIS code or name"),
    "unit": _named(_TEXT, "of all quantities of the item"),
    "service_point": _TEXT,
    "account": _TEXT,
}
_VERSIONED: Final[Json] = {
    "version": _named(_WHOLE, "grows with every change of the same thing"),
    "replaces": _named(_WHOLE, "the version before; 0: first"),
    "state": {"type": "string", "enum": list(STATES)},
}
_FINALS: Final[Json] = {
    **_COMMON,
    "zone": _named(_TEXT, "IANA zone of the service point"),
    "direction": {"type": "string", "enum": list(DIRECTIONS)},
    **_VERSIONED,
}
_BLOCK_FIELDS: Final[dict[str, Json]] = {
    "final-intervals": {
        **_FINALS,
        "day": {"type": "string", "format": "date", "description": "local day"},
        "start": _named(_TIME, "of the first slot"),
        "seconds": _named(_WHOLE, "length of a slot"),
        "values": {"type": "array", "items": _or_null(_AMOUNT), "description": "one per slot, in unit; null: missing or not due yet"},
        "conditions": {"type": "array", "items": _WHOLE, "description": "condition code of each slot; 0: not due yet"},
        "methods": {"type": "array", "items": _TEXT, "description": "rule that made each value, empty: as received; []: all as received"},
    },
    "final-registers": {
        **_FINALS,
        "dials": _named(_WHOLE, "integer digits of the register; 0: unknown"),
        "multiplier": _named(_AMOUNT, "to be applied to differences of readings"),
        "reads": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"at": _TIME, "value": _or_null(_AMOUNT), "condition": _WHOLE, "method": _TEXT},
                "required": ["at", "value", "condition", "method"],
                "additionalProperties": False,
            },
        },
    },
    "daily-determinants": {
        **_COMMON,
        "map": _named(_TEXT, "map of times of use; empty: none"),
        "day": {"type": "string", "format": "date"},
        "start": _TIME,
        "end": _TIME,
        "seconds": _named(_WHOLE, "length of a slot; 0: difference of register readings"),
        **_VERSIONED,
        "condition": _named(_WHOLE, "the worst of its parts"),
        "slots": _WHOLE,
        "actual": _WHOLE,
        "estimated": _WHOLE,
        "lines": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"tou": _named(_TEXT, "empty: the whole day"), "quantity": _AMOUNT},
                "required": ["tou", "quantity"],
                "additionalProperties": False,
            },
        },
    },
    "device-events": {
        "id": _COMMON["id"],
        "device": _TEXT,
        "kind": _named(_TEXT, "outage, restoration and others"),
        "code": _named(_TEXT, "type of an EndDeviceEvent of IEC 61968-9, where the device gave one"),
        "at": _TIME,
        "source": _TEXT,
        "severity": _named(_TEXT, "as the head end says it; empty: nothing"),
        "detail": _TEXT,
    },
}


def record_types(topology: Topology, name: str) -> list[str]:
    """The record types that an object's items come from; none: its topic is reserved."""
    declared = topology.topics.get(DEFINITIONS[name].topic)
    if declared is None:
        return []
    if declared.records == [RAW]:
        return [EVENT] if name == "device-events" else []
    own, others = DEFINITIONS[name].record, {d.record for d in DEFINITIONS.values() if d.topic == DEFINITIONS[name].topic}
    return [record for record in declared.records if (record == own if own else record not in _INSIDE | others)]


def describe(topology: Topology, codec: Codec, name: str) -> Json:
    """All there is to know of an object: fields, units, schema versions, sample, topic and key."""
    definition, records = DEFINITIONS[name], record_types(topology, name)
    available = bool(records)
    schema = json_schema(topology, name) if available else None
    declared = topology.topics.get(definition.topic)
    return {
        "name": name,
        "about": definition.about,
        "topic": definition.topic,
        "key": declared.key if declared else "",
        "identified_by": definition.key,
        "available": available,
        "records": records,
        "schema_versions": sorted(label for label in codec.ids.values() if label.rpartition(".v")[0] in records),
        "units": "each item names its unit; quantities are decimal texts with at most six decimals",
        "formats": ["json", "ndjson", "csv", "parquet", *_more_formats(name)],
        "fields": _fields(schema) if schema else [],
        "sample": sample(topology, name) if available else None,
    }


def _more_formats(name: str) -> list[str]:
    return {"final-intervals": ["nem12", "mdus", "cim"], "final-registers": ["cim"]}.get(name, [])


def _fields(schema: Json) -> list[Json]:
    kinds = schema.get("oneOf", [schema])
    found: dict[str, Json] = {}
    for kind in kinds:
        for name, about in kind["properties"].items():
            written = about.get("type", "")
            found.setdefault(
                name,
                {
                    "name": name,
                    "type": "/".join(written) if isinstance(written, list) else written,
                    "format": about.get("format", ""),
                    "about": about.get("description", ""),
                },
            )
    return list(found.values())


def json_schema(topology: Topology, name: str) -> Json:
    """The JSON Schema of an item."""
    title = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": name, "description": DEFINITIONS[name].about}
    if name in _BLOCK_FIELDS:
        fields = _BLOCK_FIELDS[name]
        return {**title, "type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
    kinds = [_with_id(_of_avro(schema_text(record))) for record in record_types(topology, name)]
    return {**title, **kinds[0]} if len(kinds) == 1 else {**title, "oneOf": kinds}


def _with_id(schema: Json) -> Json:
    """The schema of a record with the id that every item has."""
    fields = {"id": _COMMON["id"], **schema["properties"]}
    return {**schema, "properties": fields, "required": list(fields)}


def _of_avro(schema: Any) -> Json:
    """The JSON Schema of items made from an Avro type."""
    if isinstance(schema, list):
        inner = [_of_avro(branch) for branch in schema if branch != "null"]
        null = [{"type": "null"}] if "null" in schema else []
        return {"anyOf": [*inner, *null]} if null or len(inner) > 1 else inner[0]
    if isinstance(schema, str):
        return {
            "string": _TEXT, "bytes": {"type": "string", "contentEncoding": "base64"}, "boolean": {"type": "boolean"},
            "int": _WHOLE, "long": _WHOLE, "float": {"type": "number"}, "double": {"type": "number"}, "null": {"type": "null"},
        }.get(schema, {})  # fmt: skip
    kind, logical = schema["type"], schema.get("logicalType")
    if logical == "decimal":
        return {"type": "string", "pattern": r"^-?\d+(\.\d+)?$"}
    if logical in ("timestamp-millis", "timestamp-micros"):
        return _TIME
    if kind == "record":
        fields = {}
        for entry in schema["fields"]:
            fields[entry["name"]] = {**_of_avro(entry["type"]), **({"description": entry["doc"]} if "doc" in entry else {})}
        about = {"title": schema["name"], "description": schema["doc"]} if "doc" in schema else {"title": schema["name"]}
        return {**about, "type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
    if kind == "array":
        return {"type": "array", "items": _of_avro(schema["items"])}
    if kind == "map":
        return {"type": "object", "additionalProperties": _of_avro(schema["values"])}
    if kind == "enum":
        return {"type": "string", "enum": schema["symbols"]}
    return _of_avro(kind)


def sample_block(registers: bool = False) -> FinalBlock:
    """A block of one channel day (one register read): what samples and tests of channels are made from."""
    count, start = (1, 1_767_225_600) if registers else (96, 1_767_222_000)  # Berlin's 2026-01-01 begins at 23:00 UTC
    texts = {"device": "m-1001", "unit": "kWh", "service_point": "sp-1001", "account": "a-1001", "zone": "Europe/Berlin"}
    one = {name: np.array([value], np.int64) for name, value in {
        "day": 20_454, "start": start, "version": 1, "replaces": 0, "multiplier": quantity.MICRO if registers else 0,
    }.items()}  # fmt: skip
    values = np.array([4_711_250_000] if registers else [125_000 + 1_000 * (slot % 8) for slot in range(count)], np.int64)
    return FinalBlock(
        id="sample", payload="", source="sample", **{name: strings([text]) for name, text in texts.items()},
        channel=strings(["1-0:1.8.0*255" if registers else "1-0:1.29.0*255"]), **one, direction=np.array([1], np.int8),
        seconds=np.array([0 if registers else 900], np.int32), count=np.array([count], np.int32),
        reads=np.array([count if registers else 0], np.int32),
        state=np.array([1], np.int8), dials=np.array([6 if registers else 0], np.int8),
        values=values, conditions=np.full(count, conditions.REGULAR, np.int32), methods=np.zeros(count, np.int8),
        times=np.array([start] if registers else [], np.int64), received_count=np.zeros(1, np.int32), received=np.zeros(0, np.int64),
        received_conditions=np.zeros(0, np.int32), before_count=np.zeros(1, np.int32), before=np.zeros(0, np.int64),
        before_conditions=np.zeros(0, np.int32),
    ).check()  # fmt: skip


def sample_unit(topology: Topology, name: str) -> Unit:
    """A unit with the sample of an object, for trying a channel."""
    block = sample_block(name == "final-registers") if name in ("final-intervals", "final-registers") else None
    items = [sample(topology, name)]
    label = f"{(record_types(topology, name) or ['Sample'])[0]}.v1"
    return Unit(name, DEFINITIONS[name].topic, 0, 0, 1_767_312_000_000, "sample", label, items, block)


def sample(topology: Topology, name: str) -> Json:
    """A made-up item of an object."""
    if name in ("final-intervals", "final-registers"):
        return final_items(sample_block(name == "final-registers"))[0]
    if name == "daily-determinants":
        return {
            "id": identity("sample", name), "device": "m-1001", "channel": "1-0:1.29.0*255", "unit": "kWh", "service_point": "sp-1001",
            "account": "a-1001", "map": "three-part", "day": "2026-01-01", "start": "2025-12-31T23:00:00Z", "end": "2026-01-01T23:00:00Z",
            "seconds": 900, "version": 1, "replaces": 0, "state": "final", "condition": conditions.REGULAR, "slots": 96, "actual": 96,
            "estimated": 0, "lines": [{"tou": "peak", "quantity": "4.25"}, {"tou": "offpeak", "quantity": "8.086"}],
        }  # fmt: skip
    if name == "device-events":
        return {
            "id": identity("sample", name), "device": "m-1001", "kind": "outage", "code": "3.26.0.85", "at": "2026-01-01T04:12:00Z",
            "source": "hes-1",
            "severity": "",
            "detail": "",
        }  # fmt: skip
    record = schema_text(record_types(topology, name)[0])
    made = {entry["name"]: _made(entry["name"], entry["type"]) for entry in record["fields"]}
    return item_of(made, identity("sample", name))


_WORDS: Final = {
    "account": "a-1001", "service_point": "sp-1001", "device": "m-1001", "channel": "1-0:1.29.0*255", "unit": "kWh", "period": "billing",
    "kind": "tou-interval-consumption", "tou": "peak", "status": "released", "severity": "issue", "rule": "interval-spike",
    "actor": "clerk-7", "action": "edit", "outcome": "applied", "replaces": "", "reason": "", "payload": "",
}  # fmt: skip


def _made(name: str, kind: Any) -> Any:
    """A value for a field of a sample, by its name and Avro type."""
    if isinstance(kind, list):
        return _made(name, next((branch for branch in kind if branch != "null"), "null"))
    if isinstance(kind, dict):
        logical, inner = kind.get("logicalType"), kind["type"]
        if logical == "decimal":
            return Decimal("12.345678")
        if logical in ("timestamp-millis", "timestamp-micros"):
            return datetime(2026, 2, 1, tzinfo=UTC) if "end" in name else datetime(2026, 1, 1, tzinfo=UTC)
        if inner == "record":
            return {entry["name"]: _made(entry["name"], entry["type"]) for entry in kind["fields"]}
        if inner in ("array", "map"):
            return [_made(name, kind["items"])] if inner == "array" else {}
        return kind["symbols"][0] if inner == "enum" else _made(name, inner)
    if kind == "string":
        return identity("sample", name) if name == "id" else _WORDS.get(name, name.replace("_", " "))
    numbers = {"condition": conditions.REGULAR, "slots": 2976, "actual": 2976, "estimated": 0}
    return {"int": numbers.get(name, 1), "long": numbers.get(name, 1), "boolean": True, "bytes": b"", "double": 1.0, "float": 1.0}.get(kind)
