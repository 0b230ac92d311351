"""Energy: sums by time of use, tiers, netting, profiles, gas and heat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from streams.determinants.kernels import line_sums
from streams.determinants.usage.curve import Curve, Quality, alike, worst
from streams.determinants.usage.exact import divide, scale, total

Array = npt.NDArray[Any]
_ONE: Final = 1_000_000
ZERO_CELSIUS: Final = 273_150_000  # kelvin, millionths
NORMAL_PRESSURE: Final = 1_013_250_000  # mbar, millionths


def interval_data(curve: Curve) -> tuple[int, Quality]:
    """The sum of the intervals of the selected channels, which later rules know as a curve by the rule's name.

    Formula: ``sum(value_i)`` over all intervals that begin in the period; several channels are added interval by interval in one unit.

    Edge cases: missing and invalid intervals add nothing and show in the quality. Channels of different interval lengths are added
    on the longest. An interval belongs to the period of its begin.

    Source: Oracle Utilities MDM, rule *Get Interval Data*.
    """
    return curve.amount, curve.quality


def tou_mapped_usage(curve: Curve, lines: Array, width: int) -> list[tuple[int, Quality]]:
    """Sums by time-of-use period.

    Formula: ``sum(value_i where line_i = k)`` for each period k of the map; ``lines`` has the period number of each interval.

    Edge cases: every interval is in exactly one period, so the periods add up to the curve. On clock-change days an interval has the
    period of its local time, the repeated hour twice. During a critical-peak event the map of the event holds. Periods without
    intervals are told as 0.

    Source: Oracle Utilities MDM, rule *Get TOU Mapped Usage*, and its dynamic options.
    """
    sums, codes = line_sums(curve.values, curve.conditions, lines, width)
    return [(int(amount), Quality.of(curve.conditions[lines == k]) if codes[k] else Quality()) for k, amount in enumerate(sums.tolist())]


def interval_tier(amount: int, bounds: Sequence[int]) -> list[int]:
    """Consumption split into tiers.

    Formula: tier k holds ``clip(amount, bound[k−1], bound[k]) − bound[k−1]``; the last has no upper bound. Amounts are those of the
    period, or of each day (`per: day`) and then added up.

    Edge cases: in a period that is shorter or longer than the cycle's own, bounds are pro-rated by days. A negative amount is all in
    the first tier. The tiers add up to the amount.

    Source: block tariffs; Oracle Utilities MDM, rule *Interval Tier*.
    """
    edges = [0, *bounds]
    if amount <= 0 or not bounds:
        return [amount, *[0] * len(bounds)]
    return [max(0, min(amount, high) - low) for low, high in zip(edges, [*bounds, max(amount, edges[-1])], strict=True)]


def tier_bounds(bounds: Sequence[int], days: int, of: int) -> list[int]:
    """Bounds pro-rated: ``bound · days / of`` where the period has other days than its cycle."""
    return [divide(bound * days, of) for bound in bounds]


def net_interval(delivered: Curve, received: Curve) -> tuple[Curve, Curve]:
    """Netting interval by interval.

    Formula: ``D = sum(max(0, d_i − r_i))`` and ``R = sum(max(0, r_i − d_i))``. This is more than what netting the period's sums gives
    whenever both directions occur.

    Edge cases: an interval of which one side is missing is netted with 0 and shows as missing.

    Source: net billing and self-consumption rules per metering interval.
    """
    d, r = alike([delivered, received.in_unit(delivered.unit)])
    difference, codes = d.values - r.values, worst([d, r])
    return (
        replace(d, values=np.maximum(difference, 0), conditions=codes),
        replace(d, values=np.maximum(-difference, 0), conditions=codes),
    )


def net_period(delivered: int, received: int, carried: int) -> tuple[int, int]:
    """Netting by period, with what is left over carried forward.

    Formula: ``net = delivered − received − carried``; billed is ``max(0, net)``, carried on ``max(0, −net)``.

    Edge cases: what is carried comes from the period that ends where this one begins, as it was sent last; without one it is 0. The
    rule's `expires` (a month) lets the carry lapse.

    Source: net energy metering with monthly true-up and annual expiry.
    """
    net = delivered - received - carried
    return max(0, net), max(0, -net)


def profile_accumulation(amount: int, weights: Array) -> Array:
    """An amount spread over intervals by a load profile.

    Formula: ``value_i = round(amount · W_i / W) − round(amount · W_{i−1} / W)`` with W_i the sum of the weights up to i: the values add
    up to the amount exactly. ``weights`` are whole numbers, 0 or more.

    Edge cases: without any weight the amount is spread evenly.

    Source: profiling of non-interval customers in settlement (for example Elexon profile coefficients); Oracle Utilities MDM, rules
    *Profile Accumulation* and *Profile Service Quantity*.
    """
    if not len(weights):
        return np.zeros(0, np.int64)
    run = np.cumsum(weights if weights.any() else np.ones_like(weights)).tolist()
    reached = [0, *(divide(amount * w, run[-1]) for w in run)]
    return np.diff(np.array(reached, np.int64))


def volume_factor(pressure: int, temperature: int, compressibility: int = _ONE) -> int:
    """The z-number of gas: what a cubic metre in the meter is in normal cubic metres, in millionths.

    ``pressure`` absolute in millionths of a mbar, ``temperature`` in millionths of a degree Celsius. Rounded to 4 decimals, as it is
    printed on bills. Raises ValueError at or below absolute zero.
    """
    kelvin = temperature + ZERO_CELSIUS
    if kelvin <= 0 or compressibility <= 0:
        raise ValueError("temperature and compressibility must be above zero")
    z = Fraction(ZERO_CELSIUS, kelvin) * Fraction(pressure, NORMAL_PRESSURE) / Fraction(compressibility, _ONE)
    return round(z * 10_000) * 100


def gas_energy(volumes: Array, z: Array, calorific: Array) -> Array:
    """Energy of gas.

    Formula: ``kWh = m³ · z · H``: volume at the meter, z-number (temperature 273.15 K over that of the gas, pressure over 1013.25 mbar,
    over compressibility, 4 decimals), calorific value in kWh per normal m³. One factor of each per volume, as they hold on its local
    day; rounded once per volume.

    Edge cases: where a factor changes inside the period, each day has its own; a volume that is known only for the period as a whole
    takes the mean of the days. A day without a factor in the table cannot be converted: the quantity is invalid.

    Source: DVGW G 685 (thermal gas billing); EN 12405 (volume conversion devices).
    """
    factors = {(int(a), int(b)) for a, b in zip(z, calorific, strict=True)}
    out = np.zeros(len(volumes), np.int64)
    for a, b in factors:
        here = (z == a) & (calorific == b)
        out[here] = scale(volumes[here], Fraction(a * b, _ONE * _ONE))
    return out


def day_mean(values: Array) -> int:
    """The mean of a factor over days, in millionths."""
    return divide(total(values), len(values))


def unit_conversion(amount: int, factor: Fraction) -> int:
    """A quantity in another unit of the same dimension.

    Formula: ``amount · factor``, rounded to 10⁻⁶ once: 1 Gcal = 1.163 MWh = 4.1868 GJ, 1 m³ = 1000 L.

    Edge cases: units of another dimension are refused when topology.yaml is read (volume becomes energy through `gas-energy` only).

    Source: SI brochure; the International Table calorie (ISO 31-4).
    """
    return round(amount * factor)
