"""A load curve as SVG: what a rule found or estimated is marked. Text and coordinates only, so the same input gives the same bytes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

Rows = list[dict[str, str]]

WIDTH: Final = 760
HEIGHT: Final = 240
LEFT: Final = 56
RIGHT: Final = 16
TOP: Final = 34
BOTTOM: Final = 40
FOUND: Final = "#c4452f"
MADE: Final = "#1f7a8c"
CURVE: Final = "#3b4252"
QUIET: Final = "#9aa3b2"
SHOWN: Final = 300  # values at most: more cannot be told apart


@dataclass(frozen=True)
class Point:
    """One value: when, for how long (0: a register reading), what, and how it is marked."""

    at: float
    seconds: float
    value: float | None
    mark: str = ""


def picture(rule: str, _given: dict[str, Any], when: dict[str, Rows], exceptions: Rows, finals: Rows) -> str | None:
    """The curve of the channel that the rule concerns; of what arrived where nothing became final. None where there is nothing to draw."""
    arrived = [row for rows in when.values() for row in rows]
    concerned = [e for e in exceptions if e["rule"] == rule]
    estimated = [row for row in finals if row.get("method") == rule]
    owner = next(((row["device"], row["channel"]) for row in [*estimated, *concerned]), None)
    rows = [row for row in finals if owner in (None, (row["device"], row["channel"]))]
    refused = not rows
    if refused:
        rows = [row for row in arrived if owner in (None, (row.get("device"), row.get("channel")))]
    points = _points(rule, rows, arrived, concerned, refused=refused)
    return _drawn(rule, points, _unit(arrived)) if len(points) > 1 else None


def lanes(title: str, _given: dict[str, Any], when: dict[str, Rows], _exceptions: Rows, finals: Rows) -> str:
    """A lane of time for each device: where it has values, where these are an outage, and where it is silent while others are not."""
    arrived = [row for rows in when.values() for row in rows]
    seconds = {row["device"]: float(row["seconds"]) for row in arrived if row.get("seconds")}
    spans = [(row["device"], _second(_time(row)), row.get("method", "")) for row in finals if row.get("value")]
    devices = sorted({device for device, _, _ in spans})
    begin, end = min(at for _, at, _ in spans), max(at + seconds[device] for device, at, _ in spans)
    step = (HEIGHT - TOP - BOTTOM) / len(devices)

    def x(at: float) -> float:
        return LEFT + (at - begin) / (end - begin) * (WIDTH - LEFT - RIGHT)

    def bar(lane: int, a: float, b: float, color: str, opacity: float) -> str:
        top, height = TOP + lane * step + 0.2 * step, 0.6 * step
        return (
            f'<rect x="{x(a):.1f}" y="{top:.1f}" width="{x(b) - x(a):.1f}" height="{height:.1f}" fill="{color}" fill-opacity="{opacity}"/>'
        )

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12" role="img">',
        f"<title>{title}</title>", f'<rect width="{WIDTH}" height="{HEIGHT}" rx="6" fill="#ffffff"/>',
    ]  # fmt: skip
    for lane, device in enumerate(devices):
        own = sorted((at, method) for owner, at, method in spans if owner == device)
        middle = TOP + (lane + 0.5) * step
        parts.append(f'<text x="{LEFT - 8}" y="{middle:.1f}" text-anchor="end" dominant-baseline="middle" fill="{CURVE}">{device}</text>')
        for at, method in own:
            parts.append(bar(lane, at, at + seconds[device], MADE if method else CURVE, 0.6 if method else 0.75))
        last = own[-1][0] + seconds[device]
        if last < end:
            parts.append(bar(lane, last, end, FOUND, 0.22))
    for at, anchor in ((begin, "start"), (end, "end")):
        moment = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
        parts.append(f'<text x="{x(at):.1f}" y="{HEIGHT - 14}" text-anchor="{anchor}" fill="{CURVE}">{moment}</text>')
    left = LEFT
    for color, word in ((CURVE, "values"), (MADE, "outage"), (FOUND, "silent, not estimated")):
        parts.append(f'<rect x="{left}" y="8" width="12" height="12" fill="{color}" fill-opacity="0.6"/>')
        parts.append(f'<text x="{left + 18}" y="18" fill="{CURVE}">{word}</text>')
        left += 96
    return "\n".join([*parts, "</svg>"]) + "\n"


def _points(rule: str, rows: Rows, arrived: Rows, concerned: Rows, *, refused: bool) -> list[Point]:
    seconds = {row.get("device", ""): float(row["seconds"]) for row in arrived if row.get("seconds")}
    spans = [(_second(e["start"]), _second(e["end"])) for e in concerned]
    inside = [row for row in rows if any(a <= _second(_time(row)) < b for a, b in spans)]
    suspect = any(row.get("condition", "").startswith("45") for row in inside)
    points = []
    for row in rows:
        at = _second(_time(row))
        hit = any(a <= at < b or a == b == at for a, b in spans) and (not suspect or row.get("condition", "").startswith("45"))
        mark = "made" if row.get("method") == rule else "found" if hit or (refused and concerned) else ""
        text = row.get("value", row.get("reading", ""))
        length = 0.0 if "reading" in row or "at" in row else seconds.get(row.get("device", ""), 0.0)
        points.append(Point(at, length, _number(text), mark))
    points.sort(key=lambda p: p.at)
    return _window(points)


def _window(points: list[Point]) -> list[Point]:
    """The part around the first mark, where there are too many to show."""
    if len(points) <= SHOWN:
        return points
    first = next((k for k, point in enumerate(points) if point.mark), 0)
    begin = max(0, min(first - SHOWN // 2, len(points) - SHOWN))
    return points[begin : begin + SHOWN]


def _drawn(rule: str, points: list[Point], unit: str) -> str:
    begin, end = points[0].at, max(p.at + p.seconds for p in points)
    values = [p.value for p in points if p.value is not None] or [0.0]
    low, high = min(0.0, *values), max(values)
    if points[0].seconds == 0:  # readings: the difference matters, not the height
        low = min(values)
    span = (high - low) or 1.0

    def x(at: float) -> str:
        return f"{LEFT + (at - begin) / ((end - begin) or 1.0) * (WIDTH - LEFT - RIGHT):.1f}"

    def y(value: float) -> str:
        return f"{TOP + (high - value) / span * (HEIGHT - TOP - BOTTOM):.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12" role="img">',
        f"<title>{rule}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="6" fill="#ffffff"/>',
        *_axes(x, y, begin, end, low, high, unit),
    ]
    parts += [_band(point, x, y, low, high, begin, end) for point in points if point.mark]
    parts += _curve(points, x, y)
    parts += _legend({point.mark for point in points})
    return "\n".join([*parts, "</svg>"]) + "\n"


def _axes(x: Any, y: Any, begin: float, end: float, low: float, high: float, unit: str) -> list[str]:
    floor = y(max(low, 0.0) if low <= 0 <= high else low)
    lines = [f'<path d="M{x(begin)} {floor}H{x(end)}" stroke="{QUIET}" fill="none"/>']
    label = f'text-anchor="end" fill="{CURVE}"'
    lines += [f'<text x="{LEFT - 8}" y="{y(value)}" dominant-baseline="middle" {label}>{value:.6g}</text>' for value in sorted({low, high})]
    lines.append(f'<text x="{LEFT - 8}" y="16" {label}>{unit}</text>')
    for at, anchor in ((begin, "start"), (end, "end")):
        when = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
        lines.append(f'<text x="{x(at)}" y="{HEIGHT - 14}" text-anchor="{anchor}" fill="{CURVE}">{when}</text>')
    return lines


def _band(point: Point, x: Any, y: Any, low: float, high: float, begin: float, end: float) -> str:
    """The height of the picture behind a marked value."""
    half = (end - begin) / 200
    left, right = (point.at, point.at + point.seconds) if point.seconds else (point.at - half, point.at + half)
    left, right = max(left, begin), min(right, end)
    width = float(x(right)) - float(x(left))
    color = MADE if point.mark == "made" else FOUND
    height = float(y(low)) - float(y(high))
    return f'<rect x="{x(left)}" y="{y(high)}" width="{width:.1f}" height="{height:.1f}" fill="{color}" fill-opacity="0.22"/>'


def _curve(points: list[Point], x: Any, y: Any) -> list[str]:
    """Steps for intervals, dots joined by a line for readings; a gap where there is no value."""
    path, dots, broken = [], [], True
    for before, point in zip([None, *points], points, strict=False):
        if point.value is None:
            broken = True
            continue
        broken = broken or (before is not None and point.seconds > 0 and point.at > before.at + before.seconds)
        path.append(f"{'M' if broken else 'L'}{x(point.at)} {y(point.value)}")
        if point.seconds:
            path.append(f"H{x(point.at + point.seconds)}")
        else:
            color = {"made": MADE, "found": FOUND}.get(point.mark, CURVE)
            dots.append(f'<circle cx="{x(point.at)}" cy="{y(point.value)}" r="3.5" fill="{color}"/>')
        broken = False
    return [f'<path d="{"".join(path)}" stroke="{CURVE}" stroke-width="1.6" fill="none"/>', *dots]


def _legend(marks: set[str]) -> list[str]:
    shown = [(FOUND, "found", "found"), (MADE, "made", "estimated")]
    parts, left = [], LEFT
    for color, mark, word in shown:
        if mark in marks:
            parts.append(f'<rect x="{left}" y="8" width="12" height="12" fill="{color}" fill-opacity="0.5"/>')
            parts.append(f'<text x="{left + 18}" y="18" fill="{CURVE}">{word}</text>')
            left += 96
    return parts


def _unit(rows: Rows) -> str:
    return next((row["unit"] for row in rows if row.get("unit")), "")


def _time(row: dict[str, str]) -> str:
    return row.get("start") or row.get("at") or "1970-01-01T00:00:00Z"


def _second(text: str) -> float:
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
