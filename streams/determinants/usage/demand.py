"""Demand: kilowatts out of kilowatt-hours. The energy of a window times 3,600 over its length; windows that are not whole do not count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas import conditions as c
from streams.determinants.usage.curve import Curve, Quality, alike
from streams.determinants.usage.exact import divide, root

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Peak:
    """A maximum: millionths of the demand unit, the UTC second at which its window ends (0: there is none), and its quality."""

    amount: int
    at: int
    quality: Quality


def rate(energy: int, seconds: int) -> int:
    """Energy of a window as mean power over it (kWh → kW, kvarh → kvar)."""
    return divide(energy * 3600, seconds)


def valid(curve: Curve, exclude: Sequence[str] = ("suspect",)) -> Array:
    """Which intervals may make a demand: usable ones, but for the ``exclude``\\ d kinds ``suspect``, ``estimated``, ``outage``."""
    codes: Array = curve.conditions
    fit: Array = curve.usable
    for name, low, high in (("outage", c.OUTAGE, 300_000), ("estimated", 300_000, c.SUSPECT), ("suspect", c.SUSPECT, c.REGULAR)):
        if name in exclude:
            fit = fit & ~((codes >= low) & (codes < high))
    return fit


def block_demand(curve: Curve, window: int, grid: Array | None = None, exclude: Sequence[str] = ("suspect",)) -> Peak:
    """The largest mean power over fixed windows.

    Formula: ``max over windows of sum(energy) · 3600 / window``, in kW for kWh, rounded to 10⁻⁶ once, on the maximum. Windows are
    aligned to the local clock: ``grid`` has, for each interval, the second of its local day; without it they begin where the curve does.

    Edge cases: a window with an interval that is missing, invalid or of an excluded kind does not count (a catch-up lump is suspect
    and makes no maximum). On clock-change days windows follow elapsed time from local midnight. Of equal maxima the first counts. No
    whole window: 0, condition missing.

    Source: fixed-interval demand as billed by most utilities; window lengths of 15, 30 and 60 minutes.
    """
    many = window // curve.seconds
    if window % curve.seconds or not len(curve):
        return Peak(0, 0, _nothing(curve))
    starts = np.arange(0, len(curve) - many + 1, many) if grid is None else _starts(grid, curve.seconds, window)
    run = np.append(0, np.cumsum(curve.values))
    bad = np.append(0, np.cumsum(~valid(curve, exclude)))
    return _highest(curve, run[starts + many] - run[starts], bad[starts + many] == bad[starts], starts, many)


def _starts(grid: Array, seconds: int, window: int) -> Array:
    """Where whole windows begin: at multiples of the window from local midnight, and not over the next."""
    many = window // seconds
    starts = np.flatnonzero(grid % window == 0)
    starts = starts[starts + many <= len(grid)]
    whole: Array = starts[grid[starts + many - 1] == grid[starts] + window - seconds]
    return whole


def rolling_demand(curve: Curve, window: int, step: int, begin: int | None = None, exclude: Sequence[str] = ("suspect",)) -> Peak:
    """The largest mean power over a window that slides.

    Formula: ``max over j of sum(energy[j … j + window/step − 1]) · 3600 / window``, j in steps of ``step``; the value belongs to the
    window's end.

    Edge cases: windows may begin before the period where the curve has a lead-in: ``begin`` is the period's begin, and a window counts
    when it ends behind it. Without lead-in the first window begins with the period. Missing and excluded intervals as in
    `block-demand`; of equal maxima the first counts.

    Source: sliding-window demand registers of IEC 62056-6-2 (demand register, number of periods × period).
    """
    many, every = window // curve.seconds, max(1, step // curve.seconds)
    if window % curve.seconds or step % curve.seconds or len(curve) < many:
        return Peak(0, 0, _nothing(curve))
    run = np.append(0, np.cumsum(curve.values))
    bad = np.append(0, np.cumsum(~valid(curve, exclude)))
    from_ = 0 if begin is None else max(0, -(-(begin - curve.start) // curve.seconds))
    first = max(0, from_ + 1 - many) if from_ else 0
    starts = np.arange(first + (from_ - first) % every if from_ else 0, len(curve) - many + 1, every)
    sums, whole = run[starts + many] - run[starts], bad[starts + many] == bad[starts]
    own = curve if begin is None else curve.part(begin, curve.end)
    return replace(_highest(curve, sums, whole, starts, many), quality=_with(own, curve, sums, whole, starts, many))


def _highest(curve: Curve, sums: Array, whole: Array, starts: Array, many: int) -> Peak:
    if not whole.any():
        return Peak(0, 0, _nothing(curve))
    best = int(np.where(whole, sums, np.iinfo(np.int64).min).argmax())
    at = curve.start + (int(starts[best]) + many) * curve.seconds
    return Peak(rate(int(sums[best]), many * curve.seconds), at, _with(curve, curve, sums, whole, starts, many))


def _with(own: Curve, curve: Curve, sums: Array, whole: Array, starts: Array, many: int) -> Quality:
    """Parts of the whole period, the condition of the window that counts."""
    if not whole.any():
        return _nothing(own)
    best = int(starts[int(np.where(whole, sums, np.iinfo(np.int64).min).argmax())])
    return replace(own.quality, condition=Quality.of(curve.conditions[best : best + many]).condition)


def _nothing(curve: Curve) -> Quality:
    return replace(curve.quality, condition=c.MISSING)


def coincident_peak(curve: Curve, window: int, ends: Sequence[int], exclude: Sequence[str] = ("suspect",)) -> Peak:
    """Demand at the moments at which a system or group had its peak.

    Formula: mean power of the window that ends at the peak's window end; of several moments (a peak per month, four coincident peaks)
    the mean of them. ``ends`` are UTC seconds.

    Edge cases: a moment outside the period is left out; where one inside has no whole window, there is no value (condition missing).
    The peak of the group of one's own service points is the `block-demand` of their sum.

    Source: coincident-peak tariffs (transmission charges by system peaks).
    """
    many = window // curve.seconds
    inside = [end for end in ends if curve.start + window <= end <= curve.end]
    if window % curve.seconds or not inside:
        return Peak(0, 0, _nothing(curve))
    fit, energies, parts = valid(curve, exclude), [], []
    for end in inside:
        last, rest = divmod(end - curve.start, curve.seconds)
        if rest or not fit[last - many : last].all():
            return Peak(0, 0, _nothing(curve))
        energies.append(int(curve.values[last - many : last].sum()))
        parts.append(curve.conditions[last - many : last])
    quality = replace(curve.quality, condition=Quality.of(np.concatenate(parts)).condition)
    return Peak(divide(sum(energies) * 3600, window * len(energies)), inside[-1], quality)


def kva_demand(active: Curve, reactive: Curve, window: int, exclude: Sequence[str] = ("suspect",)) -> Peak:
    """The largest apparent power over fixed windows.

    Formula: ``max over windows of sqrt(kW² + kvar²)``, both of the same window; the root of separate maxima would be too high.

    Edge cases: windows in which either has an interval that does not count are left out. Curves of different interval lengths are
    brought to the longer one. Exact: squares are compared as whole numbers, the root is rounded once.

    Source: definition of apparent power (IEC 60050-131-11-41).
    """
    p, q = alike([active, reactive])
    if window % p.seconds or not len(p):
        return Peak(0, 0, _nothing(p))
    many, size = window // p.seconds, len(p) * p.seconds // window
    cut = slice(0, size * many)
    whole: Array = np.asarray((valid(p, exclude) & valid(q, exclude))[cut].reshape(size, many).all(axis=1))
    if not whole.any():
        return Peak(0, 0, _nothing(p))
    pairs = zip(*(curve.values[cut].reshape(size, many).sum(axis=1).tolist() for curve in (p, q)), whole.tolist(), strict=True)
    squares = [a * a + b * b if fit else -1 for a, b, fit in pairs]
    best = max(range(size), key=squares.__getitem__)
    codes = np.concatenate([curve.conditions[best * many : (best + 1) * many] for curve in (p, q)])
    quality = replace(p.quality.with_(q.quality), condition=Quality.of(codes).condition)
    return Peak(root(squares[best] * 3600 * 3600, window * window), p.start + (best + 1) * window, quality)


def load_factor(energy: int, peak: int, seconds: int) -> int:
    """How evenly a supply is used: 1 is the same power all the time.

    Formula: ``kWh / (MD kW · hours)``, with the hours that really elapsed in the period (a day of a clock change has 23 or 25).

    Edge cases: no demand: 0.

    Source: IEC 60050-691-10-02 (load factor).
    """
    return divide(energy * 1_000_000 * 3600, peak * seconds) if peak > 0 else 0


def billing_demand(now: int, past: Sequence[int], ratchet: int, minimum: int) -> int:
    """The demand that is billed: at least a share of what was needed before, and of what is contracted.

    Formula: ``max(MD, ratchet · max(MD of the months before), minimum)``; the ratchet is in millionths (800000: 80 %).

    Edge cases: without history only the month and the minimum count. Past demands are those that were sent last; a correction of one
    corrects the months that lean on it.

    Source: demand ratchet clauses of commercial tariffs.
    """
    return max(now, divide(max(past, default=0) * ratchet, 1_000_000), minimum)
