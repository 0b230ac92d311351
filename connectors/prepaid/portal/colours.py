"""The utility's colour made readable: WCAG contrast of 4.5 on light and dark ground."""

from __future__ import annotations

from typing import Final

LEAST: Final = 4.5
GROUNDS: Final = {"light": "#f6f7f9", "dark": "#1c232b"}
Rgb = tuple[int, int, int]


def style_of(accent: str) -> str:
    """The variables of the style sheet that follow from the accent."""
    light, dark = (readable(accent, GROUNDS[name]) for name in ("light", "dark"))
    over = max(("#ffffff", "#101418"), key=lambda text: contrast(accent, text))
    return (
        f":root {{ --accent: {accent}; --link: {light}; --on-accent: {over}; }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{ --link: {dark}; }} }}\n"
    )


def readable(colour: str, ground: str) -> str:
    """The colour, mixed with black or white until it can be read on a ground."""
    towards = (0, 0, 0) if _luminance(_rgb(ground)) > 0.2 else (255, 255, 255)
    for part in range(0, 101, 5):
        mixed = _hex(tuple(round(a + (b - a) * part / 100) for a, b in zip(_rgb(colour), towards, strict=True)))
        if contrast(mixed, ground) >= LEAST:
            return mixed
    return _hex(towards)


def contrast(one: str, other: str) -> float:
    """The contrast of two colours, 1 to 21 (WCAG 2, 1.4.3)."""
    high, low = sorted((_luminance(_rgb(one)), _luminance(_rgb(other))), reverse=True)
    return (high + 0.05) / (low + 0.05)


def _luminance(rgb: Rgb) -> float:
    parts = [c / 255 for c in rgb]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _rgb(colour: str) -> Rgb:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return red, green, blue


def _hex(rgb: tuple[int, ...]) -> str:
    return "#" + "".join(f"{part:02x}" for part in rgb)
