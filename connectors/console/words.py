"""How the console says things: texts of a catalogue, local times, quantities with units."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import orjson
import yaml
from markupsafe import Markup

_ISO: Final = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?Z")
HERE: Final = Path(__file__).resolve().parent
BANDS: Final = (  # upper bound of a condition, exclusive, and the class of its colour
    (100_000, "invalid"),
    (200_000, "missing"),
    (300_000, "outage"),
    (450_000, "estimate"),
    (500_000, "suspect"),
    (600_000, "regular"),
    (700_000, "edited"),
    (800_000, "verified"),
)


class Catalogue:
    """The texts of one language. A key that is not there is shown as it is: values of the store are words already."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self.texts = texts

    def __call__(self, key: str, **values: object) -> str:
        """The text of a key, with values filled in."""
        text = self.texts.get(key)
        if text is None:
            return key.rpartition(".")[2].replace("_", " ") if "." in key else key
        return text.format(**values) if values else text

    def part(self, name: str) -> dict[str, str]:
        """All texts under a key, by the rest of their keys."""
        return {key.removeprefix(f"{name}."): text for key, text in self.texts.items() if key.startswith(f"{name}.")}


@cache
def catalogue(language: str = "en") -> Catalogue:
    """The catalogue of a language. Raises OSError where there is none."""

    def flat(tree: Mapping[str, Any], prefix: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for name, value in tree.items():
            key = f"{prefix}{name}"
            found |= flat(value, f"{key}.") if isinstance(value, dict) else {key: str(value)}
        return found

    return Catalogue(flat(yaml.safe_load((HERE / "texts" / f"{language}.yaml").read_text("utf-8")), ""))


def zone_of(name: str | None, default: str = "UTC") -> ZoneInfo:
    """The zone of a name; the default for none and for one nobody knows."""
    try:
        return ZoneInfo(name or default)
    except (ZoneInfoNotFoundError, ValueError):
        return ZoneInfo(default)


def aware(at: datetime) -> datetime:
    """A time of the store with its zone."""
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def when(at: datetime | date | str | None, zone: ZoneInfo | str | None = None, *, seconds: bool = False) -> Markup:
    """A moment in local time, with the zone's short name; the exact UTC time in the markup. Texts are ISO times, as the API gives them."""
    if not at:
        return Markup('<span class="none">–</span>')
    if isinstance(at, str):
        at = datetime.fromisoformat(at)
    if not isinstance(at, datetime):
        return Markup('<time datetime="{0}">{0}</time>').format(at.isoformat())
    place = zone if isinstance(zone, ZoneInfo) else zone_of(zone)
    local = aware(at).astimezone(place)
    shown = f"{local:%Y-%m-%d %H:%M:%S}" if seconds else f"{local:%Y-%m-%d %H:%M}"
    exact = aware(at).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Markup('<time datetime="{}">{} <span class="zone">{}</span></time>').format(exact, shown, local.tzname())


def local(at: datetime, zone: ZoneInfo | str | None) -> str:
    """A moment as people write it in local time, with the zone's short name: as :func:`connectors.console.lists.moment` reads it."""
    there = aware(at).astimezone(zone if isinstance(zone, ZoneInfo) else zone_of(zone))
    return f"{there:%Y-%m-%d %H:%M} {there.tzname()}"


def in_zone(text: str, zone: ZoneInfo | str | None) -> str:
    """A text of the store with the UTC times it names in local time."""
    return _ISO.sub(lambda found: local(datetime.fromisoformat(found[0]), zone), text or "")


def changes(text: str, zone: ZoneInfo | str | None) -> str:
    """What an entry of a To-Do's history changed, a JSON object of the store, in words; parts of many values are counted."""
    told = catalogue()

    def value_of(name: str, value: object) -> str:
        if isinstance(value, list | dict):
            return count(len(value))
        if name.endswith(("_at", "_by")) and isinstance(value, int) and value:
            return local(datetime.fromtimestamp(value, UTC), zone)
        return "–" if value in (None, "") else str(value)

    fields = orjson.loads(text)
    return "; ".join(f"{told('column.' + name)}: {value_of(name, value)}" for name, value in fields.items())


def age(at: datetime | None, now: datetime) -> str:
    """How long ago, in the largest unit that says enough."""
    if at is None:
        return "–"
    gone = now - aware(at)
    if gone < timedelta(0):
        return f"in {_length(-gone)}"
    return _length(gone)


def due(at: datetime | None, now: datetime) -> Markup:
    """Until when: how long there is, or how long it is overdue."""
    if at is None:
        return Markup("–")
    left = aware(at) - now
    if left >= timedelta(0):
        return Markup("{}").format(_length(left))
    return Markup('<span class="tag terminate">−{}</span>').format(_length(-left))


def length_of(seconds: int) -> str:
    """A length of time in the largest unit that says enough."""
    return _length(timedelta(seconds=seconds))


def _length(span: timedelta) -> str:
    seconds = int(span.total_seconds())
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def quantity(value: Decimal | int | float | None, unit: str = "", places: int = 3) -> Markup:
    """A number with thin groups of thousands and its unit."""
    if value is None:
        return Markup('<span class="none">–</span>')
    exact = Decimal(str(value))
    rounded = round(exact, places).normalize()
    text = f"{rounded:,f}".replace(",", "\u202f")
    return Markup('<span class="quantity">{}</span>{}').format(text, f" {unit}" if unit else "")


def count(value: int | None) -> str:
    """A whole number in groups of thousands."""
    return "–" if value is None else f"{value:,}".replace(",", "\u202f")


def size(value: int | None) -> str:
    """A number of bytes in the largest binary unit that says enough."""
    if value is None:
        return "–"
    amount, units = float(value), ["B", "KiB", "MiB", "GiB", "TiB"]
    while amount >= 1024 and len(units) > 1:
        amount, units = amount / 1024, units[1:]
    return f"{amount:.0f} B" if units[0] == "B" else f"{amount:.3g} {units[0]}" if amount < 1000 else f"{amount:.0f} {units[0]}"


def share(part: float, whole: float) -> str:
    """A share in percent; says less where little is known."""
    if not whole:
        return "–"
    percent = 100 * part / whole
    return f"{percent:.1f} %" if percent < 99.95 or part == whole else "99.9 %"


def money(minor: int | None, currency: str, decimals: int = 2) -> str:
    """An amount of minor units as people write it."""
    if minor is None:
        return "–"
    amount = Decimal(minor).scaleb(-decimals)
    return f"{amount:,.{decimals}f}".replace(",", "\u202f") + f" {currency}"


def quality(condition: int) -> str:
    """The class of a condition's colour; also the key of its text."""
    if condition == 0:
        return "none"
    return next((name for top, name in BANDS if condition < top), "verified")
