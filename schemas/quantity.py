"""Quantities: whole millionths (10⁻⁶) of a unit in 64 bits. No floating point takes part."""

from __future__ import annotations

import re
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final

MICRO: Final = 1_000_000
LIMIT: Final = 4_000_000_000_000_000_000  # largest magnitude of one value; two of them still add within int64
_DECIMAL = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)", re.ASCII)
_LONGEST = 64


def parse(text: str) -> int:
    """Decimal text as millionths. Digits beyond the sixth decimal are rounded half to even.

    Accepted: an optional sign, ASCII digits, at most one point, surrounding blanks. Refused with ValueError: exponents
    (``1e3``), thousands separators (``1,234``), nan, inf, other digits, more than 64 characters, magnitudes above 4·10¹².
    """
    stripped = text.strip(" \t")
    if len(stripped) > _LONGEST or not _DECIMAL.fullmatch(stripped):
        raise ValueError(f"{text[:40]!r} is not a plain decimal number")
    micros = int((Decimal(stripped) * MICRO).to_integral_value(ROUND_HALF_EVEN))
    if abs(micros) > LIMIT:
        raise ValueError(f"{text[:40]!r} is larger than the hub can hold ({LIMIT // MICRO})")
    return micros


def text_of(micros: int) -> str:
    """Millionths as the shortest exact decimal text: 1500000 → ``1.5``, 0 → ``0``."""
    sign, magnitude = ("-", -micros) if micros < 0 else ("", micros)
    whole, part = divmod(int(magnitude), MICRO)
    return f"{sign}{whole}.{part:06d}".rstrip("0").rstrip(".") if part else f"{sign}{whole}"
