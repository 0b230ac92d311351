"""An independent calculation of what an account must have paid: in fractions, sharing nothing with the engine."""

from __future__ import annotations

from datetime import date, timedelta
from fractions import Fraction
from functools import cache
from typing import Any


def bill(
    tariff: dict[str, Any], usage: dict[date, dict[str, Fraction]], enrolled: date, through: date, cents: int = 100, whole: bool = False,
    cycle: int = 1,
) -> dict[date, int]:  # fmt: skip
    """Billing month → its charges in cents for the days up to ``through`` (included), each component rounded half to even once.

    Months begin on the day ``cycle``. Usage names TOU periods; ``>`` is what was received from the customer and ``^`` the day's highest
    demand in kW. With ``whole``, everything told is measured, so that complete months are closed and the minimum bill counts.
    """
    months: dict[date, int] = {}
    first = enrolled
    while first.day != cycle:
        first -= timedelta(days=1)
    while first <= through:
        after = first + timedelta(days=1)
        while after.day != cycle:
            after += timedelta(days=1)
        days = [first + timedelta(days=n) for n in range((after - first).days)]
        live = [day for day in days if enrolled <= day <= through]
        months[first] = sum(round(part * cents) for part in _month(tariff, usage, live, len(days), whole).values())
        first = after
    return months


def _version(tariff: dict[str, Any], day: date) -> dict[str, Any]:
    found = tariff["versions"][0]
    for version in tariff["versions"]:
        if "from" not in version or date.fromisoformat(str(version["from"])) <= day:
            found = version
    return dict(found)


def _month(
    tariff: dict[str, Any], usage: dict[date, dict[str, Fraction]], live: list[date], length: int, whole: bool
) -> dict[str, Fraction]:
    parts: dict[str, Fraction] = {"energy": Fraction(0), "fixed": Fraction(0), "export": Fraction(0)}
    consumed = peak = Fraction(0)
    for day in live:
        version = _version(tariff, day)
        told = usage.get(day, {})
        lines = {name: quantity for name, quantity in told.items() if name not in (">", "^")}
        for tou, quantity in sorted(lines.items()):
            if "slabs" not in version:
                parts["energy"] += quantity * Fraction(version.get("rates", {}).get(tou, version["rate"]))
            else:
                parts["energy"] += quantity * Fraction(version.get("adders", {}).get(tou, "0"))
        if "slabs" in version:
            parts["energy"] += _slabs(version["slabs"], consumed + sum(lines.values())) - _slabs(version["slabs"], consumed)
        consumed += sum(lines.values())
        peak = max(peak, told.get("^", Fraction(0)))
        parts["export"] -= told.get(">", Fraction(0)) * _exact(version.get("export", "0"))
        parts["fixed"] += _exact(version.get("fixed", "0")) / length
    version = _version(tariff, max((day for day in live if day in usage), default=live[0] if live else date(2000, 1, 1)))
    parts["demand"] = peak * _exact(version.get("demand", "0"))
    for subsidy in version.get("subsidies", []):
        parts[f"subsidy {subsidy['id']}"] = -_given(subsidy, consumed, parts["energy"], Fraction(len(live), length))
    if whole and len(live) == length:
        parts["minimum"] = max(Fraction(0), _exact(version.get("minimum", "0")) - sum(parts.values()) + parts["export"])
    base = sum(parts.values()) - parts["export"]
    for tax in version.get("taxes", []):
        parts[f"tax {tax['id']}"] = base * _exact(tax["percent"]) / 100
    return parts


def _given(subsidy: dict[str, str], consumed: Fraction, energy: Fraction, share: Fraction) -> Fraction:
    if "lapses_above" in subsidy and consumed > _exact(subsidy["lapses_above"]):
        return Fraction(0)
    if "per_month" in subsidy:
        return _exact(subsidy["per_month"]) * share
    if consumed <= 0:
        return Fraction(0)
    covered = min(consumed, Fraction(subsidy.get("up_to", str(10**9))))
    if "per_unit" in subsidy:
        return covered * _exact(subsidy["per_unit"])
    return energy * covered / consumed * _exact(subsidy["percent"]) / 100


def _slabs(slabs: list[dict[str, str]], quantity: Fraction) -> Fraction:
    """The price of the first so many units of a month."""
    total, below = Fraction(0), Fraction(0)
    for slab in slabs:
        top = _exact(slab["up_to"]) if "up_to" in slab else quantity
        if quantity > below:
            total += (min(quantity, top) - below) * _exact(slab["rate"])
        below = top
    return total


@cache
def _exact(text: str) -> Fraction:
    return Fraction(text)
