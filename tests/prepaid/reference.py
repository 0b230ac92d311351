"""An independent calculation of what an account must have paid: in fractions, sharing nothing with the engine."""

from __future__ import annotations

from datetime import date, timedelta
from fractions import Fraction
from typing import Any


def bill(
    tariff: dict[str, Any], usage: dict[date, dict[str, Fraction]], enrolled: date, through: date, cents: int = 100
) -> dict[date, int]:
    """Calendar month → its charges in cents for the days up to ``through`` (included), each component rounded half to even once."""
    months: dict[date, int] = {}
    first = enrolled.replace(day=1)
    while first <= through:
        after = (first + timedelta(days=32)).replace(day=1)
        days = [first + timedelta(days=n) for n in range((after - first).days)]
        live = [day for day in days if enrolled <= day <= through]
        months[first] = sum(round(part * cents) for part in _month(tariff, usage, live, len(days)).values())
        first = after
    return months


def _version(tariff: dict[str, Any], day: date) -> dict[str, Any]:
    found = tariff["versions"][0]
    for version in tariff["versions"]:
        if "from" not in version or date.fromisoformat(str(version["from"])) <= day:
            found = version
    return dict(found)


def _month(tariff: dict[str, Any], usage: dict[date, dict[str, Fraction]], live: list[date], length: int) -> dict[str, Fraction]:
    parts: dict[str, Fraction] = {"energy": Fraction(0), "fixed": Fraction(0)}
    consumed = Fraction(0)
    for day in live:
        version = _version(tariff, day)
        lines = usage.get(day, {})
        for tou, quantity in sorted(lines.items()):
            if "slabs" not in version:
                parts["energy"] += quantity * Fraction(version.get("rates", {}).get(tou, version["rate"]))
            else:
                parts["energy"] += quantity * Fraction(version.get("adders", {}).get(tou, "0"))
        if "slabs" in version:
            parts["energy"] += _slabs(version["slabs"], consumed + sum(lines.values())) - _slabs(version["slabs"], consumed)
        consumed += sum(lines.values())
        parts["fixed"] += Fraction(version.get("fixed", "0")) / length
    version = _version(tariff, max((day for day in live if day in usage), default=live[0] if live else date(2000, 1, 1)))
    for subsidy in version.get("subsidies", []):
        if "lapses_above" not in subsidy or consumed <= Fraction(subsidy["lapses_above"]):
            covered = min(consumed, Fraction(subsidy.get("up_to", str(10**9))))
            parts["subsidy"] = -covered * Fraction(subsidy["per_unit"])
    base = sum(parts.values())
    for tax in version.get("taxes", []):
        parts[f"tax {tax['id']}"] = base * Fraction(tax["percent"]) / 100
    return parts


def _slabs(slabs: list[dict[str, str]], quantity: Fraction) -> Fraction:
    """The price of the first so many units of a month."""
    total, below = Fraction(0), Fraction(0)
    for slab in slabs:
        top = Fraction(slab["up_to"]) if "up_to" in slab else quantity
        if quantity > below:
            total += (min(quantity, top) - below) * Fraction(slab["rate"])
        below = top
    return total
