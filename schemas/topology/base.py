"""What all sections share: frozen models that refuse unknown keys, and written durations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from ipaddress import ip_network
from itertools import pairwise
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict

from schemas import quantity

FOREVER: Final = -1
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"(\d{1,9})\s*([smhdw])", re.ASCII)


class Section(BaseModel):
    """A part of topology.yaml: immutable, every key known."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def parse_duration(value: object) -> object:
    """``90d``, ``36h``, ``15m``, ``20s``, ``forever`` as seconds (forever: -1). Whole numbers are seconds already."""
    if isinstance(value, str):
        if value == "forever":
            return FOREVER
        match = _DURATION.fullmatch(value.strip())
        if not match:
            raise ValueError(f"must be a duration such as 90d, 36h, 15m, 20s or forever, not {value!r}")
        return int(match[1]) * _UNITS[match[2]]
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("must be a duration such as 90d, 36h, 15m, 20s or forever")
    return value


Seconds = Annotated[int, BeforeValidator(parse_duration)]
"""A duration in whole seconds, written with a unit."""


def _micros(value: object) -> object:
    """A decimal as millionths."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        raise ValueError("must be a decimal number")
    return quantity.parse(str(value))


Micros = Annotated[int, BeforeValidator(_micros)]
"""An amount, written in the unit of what it is about, held in millionths."""


def duration_text(seconds: int) -> str:
    """A duration as it is written in topology.yaml, in the largest unit that is exact."""
    unit = next(unit for unit in reversed(_UNITS) if seconds % _UNITS[unit] == 0 and (unit != "w"))
    return f"{seconds // _UNITS[unit]}{unit}"


def check_dated(dates: Sequence[date | None]) -> None:
    """Raises ValueError unless versions that begin on these dates follow each other; None: since ever."""
    if None in dates[1:] or any(a is not None and b is not None and b <= a for a, b in pairwise(dates)):
        raise ValueError("versions must be in the order of their dates, and only the first may leave `from` out")


def network(text: str) -> str:
    """The address of a network, checked. Raises ValueError."""
    try:
        ip_network(text)
    except ValueError as error:
        raise ValueError(f"must be a network such as 10.20.0.0/16: {error}") from None
    return text
