"""Reactive energy: power factors and the kvarh beyond what a tariff allows. Exact: whole numbers under one rounded root."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from streams.determinants.usage.curve import Curve, Quality, alike
from streams.determinants.usage.exact import divide, root

_ONE: Final = 1_000_000


def power_factor(active: int, reactive: int) -> int:
    """The mean power factor of energies, or the factor at one moment of powers.

    Formula: ``kWh / sqrt(kWh² + kvarh²)``, in millionths. `method: average` takes the energies of the period; `at-md` those of the
    window of the largest kW (`kW / kVA` there); `apparent` divides by metered kVAh. `sign: lagging` takes lagging kvarh only, `net`
    lagging less leading.

    Edge cases: nothing consumed: 1, there is nothing to charge for. A negative balance counts by its magnitude.

    Source: IEC 60050-131-11-46 (power factor); lagging-only and net clauses of tariffs.
    """
    square = active * active + reactive * reactive
    return root(active * active * _ONE * _ONE, square) if active and square else _ONE


def apparent_power_factor(active: int, apparent: int) -> int:
    """kWh over metered kVAh, in millionths, 1 at most; nothing consumed: 1."""
    return min(_ONE, divide(abs(active) * _ONE, abs(apparent))) if apparent else _ONE


def excess_kvarh(active: int, lagging: int, target: int) -> int:
    """Reactive energy beyond that of the target power factor.

    Formula: ``max(0, kvarh lagging − tan(acos(target)) · kWh)``, with ``tan(acos f) = sqrt(1 − f²) / f``; target in millionths.

    Edge cases: where energy flows back more than forth (negative kWh) the magnitude counts. Target 1 allows none.

    Source: reactive energy clauses (for example tan φ limits of European network tariffs).
    """
    allowed = root(active * active * (_ONE * _ONE - target * target), target * target)
    return max(0, lagging - allowed)


def at_maximum(active: Curve, reactive: Curve, end: int, window: int) -> tuple[int, Quality]:
    """The power factor of the window that ends at a UTC second (that of the maximum demand), and its quality."""
    p, q = (curve.part(end - window, end) for curve in alike([active, reactive]))
    quality = Quality.of(p.conditions).with_(Quality.of(q.conditions))
    return power_factor(p.amount, q.amount), replace(quality)
