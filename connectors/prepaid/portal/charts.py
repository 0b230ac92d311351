"""Bars as plain SVG: no script, sharp at any size, in the colours of the page; the numbers are in a table beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from html import escape
from typing import Final

WIDTH: Final = 640
HEIGHT: Final = 220
_LEFT: Final = 44
_BELOW: Final = 24
_ABOVE: Final = 28


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: what is written below it, its value, the words a pointer shows; ``faint``: may still change."""

    label: str
    value: Decimal
    about: str
    faint: bool = False


def bars(values: Sequence[Bar], title: str, unit: str) -> str:
    """An SVG picture of bars from zero; negative ones hang below it."""
    most = max((bar.value for bar in values), default=Decimal(0))
    least = min((bar.value for bar in values), default=Decimal(0))
    top, bottom = _nice(max(most, Decimal(0))), -_nice(max(-least, Decimal(0)))
    span = float(top - bottom) or 1.0
    room, height = WIDTH - _LEFT - 4, HEIGHT - _BELOW - _ABOVE
    step = room / max(len(values), 1)

    def y(value: Decimal) -> float:
        return _ABOVE + float(top - value) / span * height

    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">']
    for line in sorted({top, top / 2, Decimal(0), bottom}):
        at = y(line)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - 4}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{_short(line)}</text>')
    parts.append(f'<text class="tick" x="{_LEFT}" y="18">{escape(unit)}</text>')
    every = max(1, -(-len(values) // 8))
    for number, bar in enumerate(values):
        x, width = _LEFT + number * step + step * 0.14, step * 0.72
        high, low = y(max(bar.value, Decimal(0))), y(min(bar.value, Decimal(0)))
        kind = "bar faint" if bar.faint else "bar"
        parts.append(
            f'<rect class="{kind}" x="{x:.1f}" y="{high:.1f}" width="{width:.1f}" height="{max(low - high, 0.5):.1f}" rx="1.5">'
            f"<title>{escape(bar.about)}</title></rect>"
        )
        if number % every == 0:
            parts.append(f'<text class="tick" x="{x + width / 2:.1f}" y="{HEIGHT - 7}" text-anchor="middle">{escape(bar.label)}</text>')
    return "".join([*parts, "</svg>"])


def _nice(value: Decimal) -> Decimal:
    """The next of 1, 2, 5 times a power of ten that is not below a value."""
    if value <= 0:
        return Decimal(0)
    unit = Decimal(10) ** value.adjusted()
    return next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= value)


def _short(value: Decimal) -> str:
    text = f"{value.normalize():f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
