"""Objects of master data as lines: what a line says as an item of a submission, and an object as lines again."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import IO, Any, Final
from zoneinfo import ZoneInfo

from connectors.enterprise.master import MAX_LINE, channel_record, moment, object_of
from connectors.enterprise.persons import Vault
from schemas import quantity
from schemas.master import ACTIONS, CHANNEL, KINDS, PERSONAL, checked

HEAD: Final = ("kind", "id", "from", "to", "at", "action", "item", "group")
LATEST: Final = int(datetime(2100, 1, 1, tzinfo=UTC).timestamp())
LONGEST_BODY: Final = 400_000  # so that an item always fits a record
_OURS: Final = ("sealed", "erased")


@dataclass(slots=True)
class Document:
    """A document of master data, line by line: channels given whole, objects, and what is neither."""

    channels: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    objects: list[tuple[int, dict[str, Any]]] = field(default_factory=list)  # as they stand in the lines
    errors: list[tuple[int, str]] = field(default_factory=list)

    @classmethod
    def read(cls, data: bytes) -> Document:
        """The document of NDJSON bytes. Empty lines are skipped; what is wrong concerns a line alone."""
        document = cls()
        for number, line in numbered(io.BytesIO(data)):
            if not line.strip():
                continue
            try:
                found = object_of(line)
                if isinstance(found, dict) and "kind" in found:
                    document.objects.append((number, found))
                else:
                    document.channels.append((number, channel_record(found)))
            except ValueError as error:
                document.errors.append((number, str(error)))
        return document


def numbered(data: IO[bytes], seen: Callable[[bytes], object] = lambda _: None) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers, without line ends; each byte is handed to ``seen``. Of one that is too long a part, too long still."""
    number = 0
    while piece := data.readline(MAX_LINE + 2):
        seen(piece)
        number += 1
        line = piece.removeprefix(b"\xef\xbb\xbf") if number == 1 else piece
        while not piece.endswith(b"\n") and (piece := data.readline(MAX_LINE + 2)):
            seen(piece)
        yield number, line.removesuffix(b"\n")


def item_of(line: Any, number: str, zone: str, vault: Vault) -> dict[str, Any]:
    """An object as item of a submission; ``number`` is its id where it brings none. Raises ValueError in words.

    Times without offset are local times of the object's zone, else of ``zone``. Personal data are sealed.
    """
    if not isinstance(line, dict):
        raise ValueError("is not an object")
    kind, action = line.get("kind"), line.get("action", "put")
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {str(kind)[:40]!r}")
    if action not in ACTIONS:
        raise ValueError(f"action must be one of {', '.join(ACTIONS)}, not {str(action)[:40]!r}")
    texts = {name: _name(line, name) for name in ("id", "item", "group")}
    if texts["id"] is None:
        raise ValueError("id is missing")
    attributes = {name: value for name, value in line.items() if name not in HEAD}
    begin, end = _bounds(
        line, kind, action, ZoneInfo(attributes.get("zone") or zone) if _is_zone(attributes.get("zone")) else ZoneInfo(zone)
    )
    if any(name in attributes for name in _OURS):
        raise ValueError("sealed and erased are written by the hub alone")
    if action not in ("put", "patch") and attributes:
        raise ValueError(f"{action} takes no attributes, not {min(attributes)[:40]!r}")
    body: dict[str, Any] = {}
    if action in ("put", "patch"):
        body = checked(kind, attributes, partial=action == "patch")
        if kind == "person":
            body = sealed(texts["id"], body, action, vault)
    text = json.dumps(body, ensure_ascii=False, sort_keys=True)
    if len(text.encode()) > LONGEST_BODY:
        raise ValueError(f"the attributes have more than {LONGEST_BODY} bytes")
    return {
        "id": texts["item"] or number, "group": texts["group"] or "", "action": action, "kind": kind, "object": texts["id"],
        "from": begin, "to": end, "body": text,
    }  # fmt: skip


def sealed(person: str, body: dict[str, Any], action: str, vault: Vault) -> dict[str, Any]:
    """A person's attributes with the personal ones as ciphertext. Raises ValueError."""
    personal: dict[str, Any] = {name: body[name] for name in PERSONAL if name in body}
    if not personal:
        return body
    if action == "patch":
        raise ValueError("personal data are given whole: put the person")
    rest = {name: value for name, value in body.items() if name not in PERSONAL}
    return {**rest, "sealed": vault.seal(person, personal)}


def _name(line: Mapping[str, Any], name: str) -> str | None:
    value = line.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip() or len(value) > 200 or not value.isprintable():
        raise ValueError(f"{name} must be a printable text of 1 to 200 characters")
    return value


def _is_zone(name: Any) -> bool:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, LookupError, TypeError, AttributeError):
        return False  # said in words where the attribute is checked
    return True


def _bounds(line: Mapping[str, Any], kind: str, action: str, zone: ZoneInfo) -> tuple[int | None, int | None]:
    """From and to, within what calendars know."""
    momentary = kind == "install" or action == "end"
    if momentary and action in ("put", "end"):
        begin, end = moment(line.get("at", line.get("from")), "at", zone), None
        if begin is None:
            raise ValueError(f"{'an install event' if kind == 'install' else 'an end'} needs the time at which it happens: at")
    else:
        if line.get("at") is not None:
            raise ValueError("at is for install events and ends; spans have from and to")
        begin, end = moment(line.get("from"), "from", zone), moment(line.get("to"), "to", zone)
    for name, edge in (("from", begin), ("to", end)):
        if edge is not None and not 0 <= edge <= LATEST:
            raise ValueError(f"{name} lies outside the years 1970 to 2100")
    if begin is not None and end is not None and end <= begin:
        raise ValueError("to must be after from")
    return begin, end


# --- and back ---------------------------------------------------------------------------------------------------------------


def time_text(second: int | None) -> str | None:
    """A second as ISO time in UTC."""
    return None if second is None or second < 0 else datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def attributes_of(kind: str, id: str, body: Mapping[str, Any], vault: Vault | None) -> dict[str, Any]:
    """The attributes of an object as lines have them; with ``vault`` a person's data are opened, else they are left out."""
    found = dict(body)
    sealed_text = found.pop("sealed", None)
    if kind == "person" and vault is not None and sealed_text is not None:
        opened = vault.open(id, sealed_text)
        found |= {"erased": True} if opened is None else opened
    if kind == CHANNEL:
        found["periods"] = [
            {name: time_text(value) if name in ("from", "to") else value for name, value in period.items() if value is not None}
            for period in found.get("periods", ())
        ]
        if not found["periods"]:
            del found["periods"]
    if "multiplier" in found:
        found["multiplier"] = quantity.text_of(found["multiplier"])
    if "reading" in found:
        found["reading"] = {channel: quantity.text_of(value) for channel, value in found["reading"].items()}
    return found


def lines_of(kind: str, id: str, spans: list[tuple[int, int, dict[str, Any]]], vault: Vault | None) -> Iterator[dict[str, Any]]:
    """An object as lines that say the same when they are loaded; times -1 are open ends."""
    for begin, end, body in spans:
        attributes = attributes_of(kind, id, body, vault)
        if kind == CHANNEL:
            yield attributes
            continue
        erased = attributes.pop("erased", None)
        if erased:
            continue
        edges = {"at": time_text(begin)} if kind == "install" else {"from": time_text(begin), "to": time_text(end)}
        yield {"kind": kind, "id": id, **{name: value for name, value in edges.items() if value is not None}, **attributes}
