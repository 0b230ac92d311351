"""An independent calculation of what an account must have paid: in fractions, sharing nothing with the engine."""

from __future__ import annotations

from datetime import date, timedelta
from fractions import Fraction
from functools import cache
from typing import Any

Changes = tuple[tuple[date, int], ...]


def bill(
    tariff: dict[str, Any], usage: dict[date, dict[str, Fraction]], enrolled: date, through: date, cents: int = 100, whole: bool = False,
    cycle: int = 1, changes: Changes = (),
) -> dict[date, int]:  # fmt: skip
    """Billing month → its charges in cents for the days up to ``through`` (included), each component rounded half to even once.

    Months begin on the day ``cycle``, and on others from the first such day on or after the dates of ``changes``. Usage names TOU periods;
    ``>`` is what was received from the customer and ``^`` the day's highest demand in kW. With ``whole``, everything told is measured, so
    that complete months are closed and the minimum bill counts.
    """
    months: dict[date, int] = {}
    first = enrolled
    while first <= through:
        begin, after, length = span_of(first, cycle, changes)
        days = [begin + timedelta(days=n) for n in range((after - begin).days)]
        live = [day for day in days if enrolled <= day <= through]
        parts = _month(tariff, usage, live, length, whole and len(live) == len(days), Fraction(len(days), length))
        months[begin] = sum(round(part * cents) for part in parts.values())
        first = after
    return months


@cache
def span_of(day: date, cycle: int, changes: Changes = ()) -> tuple[date, date, int]:
    """First day of a billing month, the one behind its last, and how many days it would have without a change: by walking day by day."""
    at, held, waiting, begins = min([day, *(since for since, _ in changes)]) - timedelta(days=70), cycle, list(changes), list[date]()
    first, days_of = at, cycle
    while not begins or begins[-1] <= day:
        for number, (since, other) in enumerate(waiting):
            if at >= since and at.day == other:
                held, waiting = other, waiting[number + 1 :]
                break
        if at.day == held:
            begins.append(at)
            if at <= day:
                first, days_of = at, held
        at += timedelta(days=1)
    end = first + timedelta(days=1)
    while end.day != days_of:
        end += timedelta(days=1)
    return first, begins[-1], (end - first).days


def _version(tariff: dict[str, Any], day: date) -> dict[str, Any]:
    found = tariff["versions"][0]
    for version in tariff["versions"]:
        if "from" not in version or date.fromisoformat(str(version["from"])) <= day:
            found = version
    return dict(found)


def _month(
    tariff: dict[str, Any], usage: dict[date, dict[str, Fraction]], live: list[date], length: int, closed: bool, share: Fraction
) -> dict[str, Fraction]:
    """``length`` days have a whole month's amounts and bounds; ``share`` is how much of it the month is."""
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
            more = consumed + sum(lines.values())
            parts["energy"] += _slabs(version["slabs"], more, share) - _slabs(version["slabs"], consumed, share)
        consumed += sum(lines.values())
        peak = max(peak, told.get("^", Fraction(0)))
        parts["export"] -= told.get(">", Fraction(0)) * _exact(version.get("export", "0"))
        parts["fixed"] += _exact(version.get("fixed", "0")) / length
    version = _version(tariff, max((day for day in live if day in usage), default=live[0] if live else date(2000, 1, 1)))
    parts["demand"] = peak * _exact(version.get("demand", "0"))
    for subsidy in version.get("subsidies", []):
        parts[f"subsidy {subsidy['id']}"] = -_given(subsidy, consumed, parts["energy"], Fraction(len(live), length), share)
    if closed:
        parts["minimum"] = max(Fraction(0), _exact(version.get("minimum", "0")) * share - sum(parts.values()) + parts["export"])
    base = sum(parts.values()) - parts["export"]
    for tax in version.get("taxes", []):
        parts[f"tax {tax['id']}"] = base * _exact(tax["percent"]) / 100
    return parts


def _given(subsidy: dict[str, str], consumed: Fraction, energy: Fraction, gone: Fraction, share: Fraction) -> Fraction:
    if "lapses_above" in subsidy and consumed > round(_exact(subsidy["lapses_above"]) * share, 6):
        return Fraction(0)
    if "per_month" in subsidy:
        return _exact(subsidy["per_month"]) * gone
    if consumed <= 0:
        return Fraction(0)
    covered = min(consumed, round(_exact(subsidy.get("up_to", str(10**9))) * share, 6))
    if "per_unit" in subsidy:
        return covered * _exact(subsidy["per_unit"])
    return energy * covered / consumed * _exact(subsidy["percent"]) / 100


def _slabs(slabs: list[dict[str, str]], quantity: Fraction, share: Fraction) -> Fraction:
    """The price of the first so many units of a month."""
    total, below = Fraction(0), Fraction(0)
    for slab in slabs:
        top = round(_exact(slab["up_to"]) * share, 6) if "up_to" in slab else quantity
        if quantity > below:
            total += (min(quantity, top) - below) * _exact(slab["rate"])
        below = top
    return total


@cache
def _exact(text: str) -> Fraction:
    return Fraction(text)
