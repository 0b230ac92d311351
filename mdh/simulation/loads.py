"""What a meter measures: day profile × weekday × season × noise, with appliances on top. Watt-hours, whole numbers."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt

from mdh.simulation.chance import below, draw, hits

Ints = npt.NDArray[np.int64]

# Share of the mean power per hour of the local day, in percent: home, all-electric home, shop
_WORKDAY: Final = np.array(
    [
        [52, 46, 42, 40, 42, 52, 84, 112, 104, 88, 80, 84, 96, 92, 84, 88, 108, 144, 188, 204, 188, 152, 108, 72],
        [88, 92, 96, 96, 100, 112, 132, 124, 100, 84, 76, 76, 80, 76, 76, 80, 92, 116, 140, 144, 132, 116, 100, 92],
        [44, 42, 42, 42, 44, 52, 72, 108, 156, 180, 184, 184, 180, 176, 176, 172, 164, 140, 104, 76, 60, 52, 48, 46],
    ],
    np.int64,
)
_WEEKEND: Final = np.array(
    [
        [60, 52, 46, 44, 44, 46, 56, 80, 112, 132, 132, 136, 148, 136, 116, 108, 116, 140, 172, 184, 168, 140, 108, 80],
        [92, 94, 96, 96, 98, 102, 112, 116, 116, 104, 96, 92, 96, 92, 88, 88, 96, 112, 128, 132, 124, 112, 102, 96],
        [46, 44, 44, 44, 44, 46, 52, 60, 72, 84, 92, 92, 88, 80, 72, 64, 56, 52, 50, 48, 48, 46, 46, 46],
    ],
    np.int64,
)
_YEARLY_KWH: Final = np.array([3300, 8800, 14000], np.int64)
# Percent of the mean by month, northern year: home, all-electric home, shop
_SEASON: Final = np.array(
    [
        [122, 116, 106, 98, 92, 86, 84, 85, 91, 100, 111, 121],
        [186, 170, 138, 98, 64, 44, 38, 38, 54, 88, 136, 176],
        [106, 104, 100, 97, 97, 100, 104, 104, 99, 97, 100, 105],
    ],
    np.int64,
)
_HOUR: Final = 3600


def kinds(seed: int, meters: Ints) -> Ints:
    """What stands behind each meter: 0 home (70 %), 1 all-electric home (20 %), 2 shop (10 %)."""
    lot = below(draw(seed, "kind", meters), 10)
    return np.where(lot < 7, 0, np.where(lot < 9, 1, 2))


def day_loads(seed: int, meters: Ints, day: int, clock: Ints, seconds: int) -> Ints:
    """Wh per meter and interval of one local day.

    ``clock`` holds the wall-clock second at which each interval starts (92 or 100 quarter hours on days the clocks change); ``day`` counts
    since 1970-01-01.
    """
    kind = kinds(seed, meters)
    when = date(1970, 1, 1) + timedelta(days=day)
    shape = _WEEKEND if when.weekday() >= 5 else _WORKDAY
    hour = clock // _HOUR
    within = clock % _HOUR
    level = (shape[:, hour] * (_HOUR - within) + shape[:, (hour + 1) % 24] * within) // _HOUR  # kind × slot, percent
    size = 60 + below(draw(seed, "size", meters), 100)  # percent of the usual
    mean_mw = _YEARLY_KWH[kind] * size * 10_000 // 8760  # milliwatts: kWh a year × 1e6 / 8760 h × size / 100
    day_mw = mean_mw * _season(kind, when) // 100 * (85 + below(draw(seed, "mood", meters, day), 30)) // 100
    noise = 70 + below(draw(seed, "noise", meters[:, None], day, np.arange(len(clock))), 60)
    power = day_mw[:, None] * level[kind] // 100 * noise // 100
    power += _appliances(seed, meters, kind, day, clock)
    energy: Ints = power * seconds // (_HOUR * 1000)
    return energy


def _season(kind: Ints, when: date) -> Ints:
    part = when.day - 1
    here, there = _SEASON[:, when.month - 1], _SEASON[:, when.month % 12]
    factor: Ints = ((here * (31 - part) + there * part) // 31)[kind]
    return factor


def _appliances(seed: int, meters: Ints, kind: Ints, day: int, clock: Ints) -> Ints:
    """Milliwatts of cooking, washing and (one home in seven) car charging."""
    home = kind < 2
    owns_car = home & hits(draw(seed, "car", meters), 1 / 7)
    total = np.zeros((len(meters), len(clock)), np.int64)
    for name, who, often, first, spread, shortest, longer, watts in (
        ("cook", home, 0.8, 64_800, 7_200, 1_800, 3_600, 1_800),
        ("wash", home, 0.4, 28_800, 43_200, 3_600, 3_600, 650),
        ("charge", owns_car, 0.6, 75_600, 5_400, 3_600, 3_600, 7_200),
    ):
        use = who & hits(draw(seed, name, meters, day), often)
        begin = first + below(draw(seed, name + "b", meters, day), spread)
        end = begin + shortest + below(draw(seed, name + "e", meters, day), longer)
        running = use[:, None] & (clock >= begin[:, None]) & (clock < end[:, None])
        total += running * (watts * 1000)
    return total
