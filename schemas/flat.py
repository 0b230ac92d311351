"""Encoders made for one record type each: Avro bodies of records of plain fields, several times faster than by walking the schema.

An encoder takes what it is sure of: texts of ASCII, whole numbers, truth values, times with a zone, and null beside one of these. Anything
else it refuses, and the general writer decides. Where both take a record, they write the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from operator import index
from typing import Any, Final

Encoder = Callable[[Mapping[str, Any]], bytes]
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NEAR: Final = 8192  # numbers up to this are looked up


class NotFlatError(Exception):
    """A record holds what an encoder is not sure of."""


def _number(value: int) -> str:
    """A whole number of 64 bits as Avro has it (zigzag, seven bits a byte, the lowest first), a character a byte."""
    number = index(value)
    if not -(1 << 63) <= number < 1 << 63:
        raise NotFlatError(f"{number} does not fit 64 bits")
    rest, found = (number << 1) ^ (number >> 63), bytearray()
    while rest > 127:
        found.append(rest & 127 | 128)
        rest >>= 7
    found.append(rest)
    return found.decode("latin-1")


_NUMBERS: Final = [*map(_number, range(_NEAR)), *map(_number, range(-_NEAR, 0))]  # a negative index counts from the end


@lru_cache(1 << 12)
def _millis(value: datetime) -> str:
    """A time as milliseconds since 1970, cut down to whole ones within their second."""
    if value.tzinfo is None:
        raise NotFlatError("a time without a zone")
    since = value - _EPOCH
    return _number((since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000)


def _time(value: Any) -> str:
    return _millis(value) if isinstance(value, datetime) else _number(value)


_NAMES: Final = {"numbers": _NUMBERS, "number": _number, "time": _time}
_FORMS: Final = {  # what a field v adds to the body
    "string": f"numbers[n] if (n := len({{v}})) < {_NEAR} else number(n), {{v}}",
    "int": f"numbers[{{v}}] if -{_NEAR} <= {{v}} < {_NEAR} else number({{v}})",
    "boolean": "'\\1' if {v} else '\\0'",
    "timestamp-millis": "time({v})",
}
_FORMS["long"] = _FORMS["int"]


def encoder(schema: Mapping[str, Any], head: bytes) -> Encoder | None:
    """The encoder of a record schema, which writes ``head`` before every body; None where a field is not plain.

    It raises where it is not sure of a record: NotFlatError, or whatever taking a value for another type raises.
    """
    lines, parts, texts = ["def encode(record):", " get = record.get"], list[str](), list[str]()
    defaults: dict[str, Any] = {}
    for place, field in enumerate(schema["fields"]):
        name, told, v = field["name"], field["type"], f"v{place}"
        optional = isinstance(told, list) and len(told) == 2 and told[0] == "null"
        kind = told[1] if optional else told
        kind = kind.get("logicalType") if isinstance(kind, dict) else kind
        if not isinstance(kind, str) or kind not in _FORMS:
            return None
        defaults[f"d{place}"] = field.get("default")
        lines.append(f" {v} = get({name!r}, d{place})" if "default" in field else f" {v} = record[{name!r}]")
        form = _FORMS[kind].format(v=v)
        if optional:
            one = f"''.join(('\\2', {form}))"
            parts.append(f"'\\0' if {v} is None else {one}")
        else:
            parts.append(form)
        if kind == "string":
            texts.append(f"'' if {v} is None else {v}" if optional else v)
    lines.append(f" if not ''.join(({', '.join([*texts, repr('')])})).isascii(): raise NotFlatError('not ASCII')")
    lines.append(f" return head + ''.join(({', '.join(parts)},)).encode('latin-1')")
    space = {**_NAMES, **defaults, "head": head, "NotFlatError": NotFlatError}
    exec("\n".join(lines), space)  # of names and types in our own schemas
    made: Encoder = space["encode"]
    return made
