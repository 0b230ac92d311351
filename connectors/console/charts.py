"""Charts as SVG, drawn on the server: no script is needed to read them, and colours come from the style sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape

from connectors.console.curve import Curve, Cut
from connectors.console.surroundings import Line

WIDTH: Final = 960
HEIGHT: Final = 320
LEFT: Final = 56
RIGHT: Final = 64
STRIP: Final = 76  # of the temperature, below
TOP: Final = 24
BOTTOM: Final = 34
_STEPS: Final = (300, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800, 1_209_600, 2_592_000)
_KINDS: Final = ("regular", "estimate", "suspect", "edited", "outage", "missing", "invalid", "verified")


def ceiling(value: float) -> float:
    """The next round number not below a value: 1, 2, 2.5 or 5 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= value * 0.999_999))


def number(value: float) -> str:
    """A number on an axis."""
    return f"{value:.6g}" if abs(value) < 1e6 else f"{value:.2e}"


@dataclass(frozen=True, slots=True)
class Series:
    """The values of one kind, and the class that colours them."""

    name: str
    style: str
    values: Sequence[float]


def stacked(
    labels: Sequence[str], series: Sequence[Series], title: str, hrefs: Sequence[str], *, height: int = 160, width: int = 480
) -> Markup:
    """Stacked bars, one per label, each a link to what is behind it. Each says its figures; empty Markup without any value.

    Only the first bar is a stop of the Tab key: arrow keys go on from there.
    """
    totals = [sum(values) for values in zip(*(one.values for one in series), strict=True)] if labels else []
    if not any(totals):
        return Markup()
    top, left, floor = ceiling(max(totals)), 46, height - 22
    step = (width - left) / len(labels)
    out = [_open(width, height, title, "bars", "group")]
    for part in (0, 0.5, 1):
        y = floor - (floor - 8) * part
        out.append(f'<line class="grid" x1="{left}" x2="{width}" y1="{y:.1f}" y2="{y:.1f}"/>')
        out.append(f'<text class="tick" x="{left - 5}" y="{y + 4:.1f}" text-anchor="end">{_short(top * part)}</text>')
    every = max(1, -(-len(labels) // 7))
    for place, label in enumerate(labels):
        x, y = left + place * step, float(floor)
        told = "; ".join(f"{one.name} {one.values[place]:,.0f}" for one in series if one.values[place])
        said, stop = escape(f"{label}: {told}"), "" if place == 0 else ' tabindex="-1"'
        out.append(f'<a href="{escape(hrefs[place])}" aria-label="{said}"{stop}><title>{said}</title>')
        out.append(f'<rect class="hit" x="{x:.1f}" y="8" width="{step:.1f}" height="{floor - 8}"/>')
        for one in series:
            tall = (floor - 8) * one.values[place] / top
            y -= tall
            if tall > 0:
                out.append(
                    f'<rect class="fill-{one.style}" x="{x + step * 0.1:.1f}" y="{y:.2f}" width="{step * 0.8:.1f}" height="{tall:.2f}"/>'
                )
        out.append("</a>")
        if place % every == 0:
            out.append(f'<text class="tick" x="{x + step / 2:.1f}" y="{height - 6}" text-anchor="middle">{escape(label)}</text>')
    return Markup("".join([*out, "</svg>"]))


@dataclass(frozen=True, slots=True)
class Beside:
    """What is drawn beside a curve: what the neighbours used, and the temperature."""

    neighbours: Line | None = None
    temperature: Line | None = None


def curve_chart(
    curve: Curve, zone: ZoneInfo, title: str, words: dict[str, str], beside: Beside | None = None, cut: Cut | None = None
) -> Markup:
    """A load curve: final values by quality, what came where it differs, the expected band, neighbours, registers, events, outages.

    Readings of a register are a line on a scale of its own at the right; the temperature is a strip below. With ``cut`` the scale ends at
    its limit: what goes beyond is drawn at the edge and marked.
    """
    beside = beside or Beside()
    scale = _Scale.of(curve, zone, beside.neighbours, cut)
    tall = HEIGHT + (STRIP if beside.temperature else 0)
    out = [_open(WIDTH, tall, title, "curve", "img")]
    out += _frame(scale, curve.unit)
    out += _shades(scale, curve, words)
    out += _band(scale, curve)
    out += _neighbours(scale, curve, beside.neighbours)
    out += _registers(scale, curve, words)
    out += _received(scale, curve)
    out += _finals(scale, curve)
    out += _marks(scale, curve)
    out += _beyond(scale, curve, cut, words)
    if beside.temperature:
        out += _temperature(scale, beside.temperature, words["temperature"])
    floor = tall - (4 if beside.temperature else BOTTOM)
    out.append(f'<line class="cursor" y1="{TOP}" y2="{floor}" x1="-9" x2="-9"/>')
    out.append(f'<rect class="select" y="{TOP}" height="{floor - TOP}" x="-9" width="0"/></svg>')
    return Markup("".join(out))


@dataclass(frozen=True, slots=True)
class _Scale:
    begin: int
    end: int
    low: float
    high: float
    zone: ZoneInfo

    @classmethod
    def of(cls, curve: Curve, zone: ZoneInfo, neighbours: Line | None, cut: Cut | None) -> _Scale:
        seen = [curve.value[curve.has], curve.received[curve.sent]]
        if neighbours is not None:
            seen.append(neighbours.value[~np.isnan(neighbours.value)])
        peak = max((float(part.max()) for part in seen if part.size), default=0.0)
        band = float(np.nanmax(curve.upper)) if curve.upper.size and not np.isnan(curve.upper).all() else 0.0
        least = min((float(part.min()) for part in seen if part.size), default=0.0)
        low, high = -ceiling(-least) if least < 0 else 0.0, ceiling(max(peak, band))
        if cut is not None:
            low, high = max(low, -cut.limit), min(high, cut.limit)
        return cls(curve.begin, curve.end, low, high, zone)

    def x(self, at: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (at - self.begin) / max(self.end - self.begin, 1)

    def y(self, value: float) -> float:
        inside = min(max(value, self.low), self.high)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (inside - self.low) / (self.high - self.low)


def _open(width: int, height: int, title: str, style: str, role: str) -> str:
    return f'<svg class="{style}" viewBox="0 0 {width} {height}" role="{role}" aria-label="{escape(title)}">'


def _short(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def _frame(scale: _Scale, unit: str) -> list[str]:
    out = []
    size = ceiling((scale.high - scale.low) / 5)
    for part in range(int(np.ceil(scale.low / size)), int(scale.high / size + 1.001)):
        value = part * size
        y = scale.y(value)
        out.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        out.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number(value)}</text>')
    out.append(f'<text class="tick" x="4" y="{TOP - 10}">{escape(unit)}</text>')
    step = next((size for size in _STEPS if (scale.end - scale.begin) / size <= 9), _STEPS[-1])
    for at in _moments(scale, step):
        local = datetime.fromtimestamp(at, UTC).astimezone(scale.zone)
        label = f"{local:%d %b}" if step >= 86_400 or (local.hour, local.minute) == (0, 0) else f"{local:%H:%M}"
        x = scale.x(at)
        out.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        if x < WIDTH - RIGHT - 14:
            out.append(f'<text class="tick" x="{x:.1f}" y="{HEIGHT - BOTTOM + 22}" text-anchor="middle">{label}</text>')
    return out


def _moments(scale: _Scale, step: int) -> list[int]:
    """Marks at round local times."""
    found: list[int] = []
    at = scale.begin
    while at <= scale.end:
        offset = datetime.fromtimestamp(at, UTC).astimezone(scale.zone).utcoffset()
        beyond = (at + (int(offset.total_seconds()) if offset else 0)) % step
        if beyond and found and beyond <= step // 2:  # the clock was put forward
            at -= beyond
        elif beyond:
            at += step - beyond
            continue
        found.append(at)
        at += step
    return found


def _shades(scale: _Scale, curve: Curve, words: dict[str, str]) -> list[str]:
    out = []
    tall = HEIGHT - TOP - BOTTOM
    for begin, end in curve.outages:
        x, right = scale.x(max(begin, scale.begin)), scale.x(min(end, scale.end))
        out.append(f'<rect class="shade-outage" x="{x:.1f}" y="{TOP}" width="{max(right - x, 1):.1f}" height="{tall}">')
        out.append(f"<title>{escape(words['outage'])}</title></rect>")
    for first, last in _runs(~curve.has & (curve.condition > 0)):
        x, right = scale.x(int(curve.start[first])), scale.x(int(curve.start[last]) + curve.seconds)
        out.append(f'<rect class="shade-missing" x="{x:.1f}" y="{TOP}" width="{max(right - x, 1):.1f}" height="{tall}">')
        out.append(f"<title>{escape(words['missing'])}</title></rect>")
    for begin, end, rule in curve.doubts:
        x, right = scale.x(max(begin, scale.begin)), scale.x(min(end, scale.end))
        out.append(f'<rect class="shade-doubt" x="{x:.1f}" y="{HEIGHT - BOTTOM - 4}" width="{max(right - x, 2):.1f}" height="4">')
        out.append(f"<title>{escape(rule)}</title></rect>")
    return out


def _band(scale: _Scale, curve: Curve) -> list[str]:
    out = []
    for first, last in _runs(~np.isnan(curve.upper)):
        part = slice(first, last + 1)
        at = curve.start[part] + curve.seconds / 2
        top = [f"{scale.x(t):.1f},{scale.y(v):.1f}" for t, v in zip(at, curve.upper[part], strict=True)]
        low = [f"{scale.x(t):.1f},{scale.y(v):.1f}" for t, v in zip(at[::-1], curve.lower[part][::-1], strict=True)]
        middle = [f"{scale.x(t):.1f},{scale.y(v):.1f}" for t, v in zip(at, curve.middle[part], strict=True)]
        out.append(f'<polygon class="band" points="{" ".join(top + low)}"/><polyline class="median" points="{" ".join(middle)}"/>')
    return out


def _steps(scale: _Scale, curve: Curve, values: npt.NDArray[np.float64], first: int, last: int) -> str:
    points = []
    for place in range(first, last + 1):
        y = scale.y(float(values[place]))
        begin = int(curve.start[place])
        points.append(f"{scale.x(begin):.1f},{y:.1f} {scale.x(begin + curve.seconds):.1f},{y:.1f}")
    return " ".join(points)


def _received(scale: _Scale, curve: Curve) -> list[str]:
    differs = curve.sent & (~curve.has | (np.abs(curve.received - curve.value) > 1e-9))
    return [f'<polyline class="received" points="{_steps(scale, curve, curve.received, a, b)}"/>' for a, b in _runs(differs)]


def _finals(scale: _Scale, curve: Curve) -> list[str]:
    out = [f'<polyline class="final" points="{_steps(scale, curve, curve.value, a, b)}"/>' for a, b in _runs(curve.has)]
    for kind in _KINDS:
        if kind == "regular":
            continue
        for first, last in _runs(curve.has & (curve.kind == kind)):
            out.append(f'<polyline class="line-{kind}" points="{_steps(scale, curve, curve.value, first, last)}"/>')
    return out


def _neighbours(scale: _Scale, curve: Curve, line: Line | None) -> list[str]:
    if line is None:
        return []
    return [f'<polyline class="neighbours" points="{_steps(scale, curve, line.value, a, b)}"/>' for a, b in _runs(~np.isnan(line.value))]


def _registers(scale: _Scale, curve: Curve, words: dict[str, str]) -> list[str]:
    """Readings as triangles at the foot; those of the first register as a line, between its own lowest and highest."""
    out = []
    floor = HEIGHT - BOTTOM
    for register in curve.registers:
        for at, reading in zip(register.at, register.reading, strict=True):
            said = f"{words['register']} {register.channel}: {reading.normalize():f} {register.unit}"
            x = scale.x(at)
            out.append(f'<path class="register" d="M{x:.1f} {floor + 2} l4 7 h-8 z"><title>{escape(said)}</title></path>')
    if not curve.registers or len(curve.registers[0].at) < 2:
        return out
    first = curve.registers[0]
    values = [float(reading) for reading in first.reading]
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    points = [f"{scale.x(at):.1f},{floor - 6 - (floor - TOP - 12) * (v - low) / span:.1f}" for at, v in zip(first.at, values, strict=True)]
    out.append(f'<polyline class="register-line" points="{" ".join(points)}"/>')
    x = WIDTH - RIGHT + 6
    for y, value in ((TOP + 10, high), (floor - 2, low)):
        out.append(f'<text class="tick register-tick" x="{x}" y="{y}">{number(value)}</text>')
    out.append(f'<text class="tick register-tick" x="{x}" y="{TOP + 26}">{escape(first.unit)}</text>')
    return out


def _temperature(scale: _Scale, line: Line, name: str) -> list[str]:
    """A strip below the curve with a scale of its own."""
    top, floor = HEIGHT + 6, HEIGHT + STRIP - 8
    low, high = np.floor(line.value.min()), np.ceil(line.value.max())
    span = max(high - low, 1.0)
    points = " ".join(
        f"{scale.x(int(at)):.1f},{floor - (floor - top) * (value - low) / span:.1f}"
        for at, value in zip(line.start.tolist(), line.value.tolist(), strict=True)
    )
    out = [f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>' for y in (top, floor)]
    out += [
        f'<text class="tick" x="{LEFT - 6}" y="{y}" text-anchor="end">{value:g}</text>' for y, value in ((top + 8, high), (floor + 2, low))
    ]
    out.append(f'<text class="tick" x="{WIDTH - RIGHT + 6}" y="{top + 8}">°C</text>')
    out.append(f'<polyline class="temperature" points="{points}"><title>{escape(name)}</title></polyline>')
    return out


def _marks(scale: _Scale, curve: Curve) -> list[str]:
    out = []
    floor = HEIGHT - BOTTOM
    for at, kind in curve.events:
        x = scale.x(at)
        out.append(f'<g class="event"><title>{escape(kind)}</title><line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{floor}"/>')
        out.append(f'<circle cx="{x:.1f}" cy="{TOP}" r="4"/></g>')
    return out


def _beyond(scale: _Scale, curve: Curve, cut: Cut | None, words: dict[str, str]) -> list[str]:
    """Arrow heads at the edge where values go beyond a scale that is cut, with the furthest of each run."""
    out = []
    for first, last in _runs(cut.beyond) if cut is not None else ():
        part = np.concatenate((curve.value[first : last + 1], curve.received[first : last + 1]))
        value = float(part[np.nanargmax(np.abs(part))])
        x = (scale.x(int(curve.start[first])) + scale.x(int(curve.start[last]) + curve.seconds)) / 2
        head = f"M{x:.1f} {TOP - 10} l6 9 h-12 z" if value > 0 else f"M{x:.1f} {HEIGHT - BOTTOM + 10} l6 -9 h-12 z"
        out.append(f'<path class="beyond" d="{head}"><title>{escape(words["beyond"])}: {number(value)} {escape(curve.unit)}</title></path>')
    return out


def _runs(mask: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First and last place of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], mask.astype(np.int8), [0]))))
    return [(int(a), int(b) - 1) for a, b in zip(edges[::2], edges[1::2], strict=True)]
