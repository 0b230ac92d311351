"""Master data as NDJSON: one measuring component per line, to records of the ``MasterChannel`` schema."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final, NoReturn
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from schemas import quantity
from schemas.block import DIRECTIONS
from schemas.units import resolve

STATES: Final = ("connected", "disconnected", "uninstalled")
MAX_LINE: Final = 256 * 1024
MAX_PERIODS: Final = 1000
_TEXTS: Final = ("service_point", "account", "unit", "check_channel")
_KEYS: Final = frozenset(("device", "channel", "direction", "seconds", "zone", "multiplier", "dials", "allow_negative", "periods", *_TEXTS))
_DAY: Final = 86_400


@dataclass(frozen=True)
class LineError:
    """A line that is no master data; the other lines are not touched by it."""

    line: int
    what: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.what}"


def parse_master(data: bytes) -> tuple[list[dict[str, Any]], list[LineError]]:
    """(records, errors) of NDJSON master data (``docs/formats.md``). Times become UTC seconds, the multiplier millionths.

    Empty lines are skipped. The records are complete and fit the ``MasterChannel`` schema.
    """
    records: list[dict[str, Any]] = []
    errors: list[LineError] = []
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            records.append(channel_record(object_of(line)))
        except ValueError as error:
            errors.append(LineError(number, str(error)))
    return records, errors


def channel_record(item: Any) -> dict[str, Any]:
    """One object of the interface as record of the ``MasterChannel`` schema. Raises ValueError that names the key."""
    if not isinstance(item, dict):
        raise ValueError("is not an object")
    unknown = sorted(set(item) - _KEYS)
    if unknown:
        raise ValueError(f"unknown key {unknown[0][:40]!r}; known are {', '.join(sorted(_KEYS))}")
    record: dict[str, Any] = {name: _text(item, name, required=True) for name in ("device", "channel")}
    record |= {name: _text(item, name) for name in _TEXTS}
    if record["unit"] is not None:
        record["unit"] = resolve(record["unit"]).name
    direction = _text(item, "direction")
    if direction is not None and direction not in DIRECTIONS:
        raise ValueError(f"direction must be one of {', '.join(DIRECTIONS)}, not {direction[:40]!r}")
    seconds = _whole(item, "seconds", 0, _DAY)
    if seconds and _DAY % seconds:
        raise ValueError(f"seconds: an interval of {seconds} seconds does not divide the day")
    allow = item.get("allow_negative")
    if allow is not None and not isinstance(allow, bool):
        raise ValueError("allow_negative must be true or false")
    zone = _text(item, "zone")
    return record | {
        "direction": direction,
        "seconds": seconds,
        "zone": None if zone is None else _zone(zone).key,
        "multiplier": _multiplier(item),
        "dials": _whole(item, "dials", 1, 15),
        "allow_negative": allow,
        "periods": _periods(item.get("periods"), None if zone is None else _zone(zone)),
    }


def object_of(line: bytes) -> Any:
    """The JSON of one line; numbers with a fraction stay as they were written. Raises ValueError."""
    if len(line) > MAX_LINE:
        raise ValueError(f"has more bytes than the {MAX_LINE} that are allowed")
    try:
        return json.loads(line.decode(), object_pairs_hook=_once, parse_constant=_constant, parse_int=_number, parse_float=_Decimal)
    except UnicodeDecodeError as error:
        raise ValueError("is not UTF-8 text") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error.msg} (column {error.colno})") from error
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error


class _Decimal(str):
    """A JSON number with a fraction or exponent, as it was written."""

    __slots__ = ()


def _number(digits: str) -> int:
    if len(digits) > 20:
        raise ValueError(f"number of {len(digits)} digits")
    return int(digits)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a number")


def _text(item: dict[str, Any], name: str, *, required: bool = False) -> str | None:
    value = item.get(name)
    if value is None and not required:
        return None
    if not isinstance(value, str) or isinstance(value, _Decimal) or not value.strip() or len(value) > 200:
        raise ValueError(f"{name} must be a text of 1 to 200 characters")
    return value


def _whole(item: dict[str, Any], name: str, low: int, high: int) -> int | None:
    value = item.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name} must be a whole number from {low} to {high}")
    return value


def _multiplier(item: dict[str, Any]) -> int | None:
    value = item.get("multiplier")
    if value is None:
        return None
    try:
        micros = quantity.parse(str(value)) if isinstance(value, str | int) and not isinstance(value, bool) else 0
    except ValueError as error:
        raise ValueError(f"multiplier: {error}") from error
    if not 0 < micros <= 1_000_000 * quantity.MICRO:
        raise ValueError("multiplier must be a number above 0, at most 1000000")
    return micros


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"zone {name[:40]!r} is not an IANA time zone such as Europe/Berlin") from error


def moment(value: Any, name: str, zone: ZoneInfo | None) -> int | None:
    """UTC seconds of an ISO time or date; one without offset is local time of ``zone``. Raises ValueError."""
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > 40 or not re.match(r"\d{4}-\d\d-\d\d", value, re.ASCII):
        raise ValueError(f"{name} must be an ISO time such as 2026-01-01T00:00:00+01:00")
    try:
        at = datetime.fromisoformat(value)
        if at.tzinfo is None:
            if zone is None:
                raise ValueError("has no offset, and the line names no zone")
            at = at.replace(tzinfo=zone)
        second = (at - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{name} {value!r}: {error}") from error
    return int(second // 1)


def _periods(value: Any, zone: ZoneInfo | None) -> list[dict[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > MAX_PERIODS:
        raise ValueError(f"periods must be a list of at most {MAX_PERIODS}")
    found: list[dict[str, Any]] = []
    for period in value:
        if not isinstance(period, dict) or not set(period) <= {"from", "to", "state"}:
            raise ValueError("periods: each must be an object with from, to and state")
        if period.get("state") not in STATES:
            raise ValueError(f"periods: state must be one of {', '.join(STATES)}")
        begin, end = moment(period.get("from"), "periods: from", zone), moment(period.get("to"), "periods: to", zone)
        if begin is not None and end is not None and end <= begin:
            raise ValueError("periods: to must be after from")
        found.append({"from": begin, "to": end, "state": period["state"]})
    found.sort(key=lambda p: (p["from"] is not None, p["from"] or 0))
    for earlier, later in pairwise(found):
        if earlier["to"] is None or later["from"] is None or later["from"] < earlier["to"]:
            raise ValueError("periods overlap")
    return found
