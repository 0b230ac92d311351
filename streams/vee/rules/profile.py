"""profile: what no other estimation could fill, from a configured day or flat."""

from __future__ import annotations

import numpy as np

from schemas import conditions
from schemas.block import DIRECTIONS
from schemas.rules import METHOD
from schemas.topology.vee import DayProfile, Profile
from schemas.units import resolve
from streams.calendar import wall_clock
from streams.vee.batch import DayBatch, Ints, Mask
from streams.vee.likeness import is_holiday, type_of


def profile(batch: DayBatch, rule: Profile, wanted: Mask) -> None:
    """Fills what is left of whole days from the first profile that fits the channel, by wall-clock time.

    With ``scale`` the profile is multiplied by what was measured in the day over what the profile says of the same slots. Without a
    profile, and with ``flat``, every slot gets the mean of what was measured in the day, else of what lies beside it.
    Source: standard load profiles of European market rules, scaled to the day; flat load as the last resort of most codes.
    """
    for row in np.flatnonzero(batch.whole & wanted & batch.vacant.any(axis=1)).tolist():
        slots = np.flatnonzero(batch.vacant[row])
        measured = np.flatnonzero((batch.conditions[row] >= conditions.REGULAR) & (batch.methods[row] == 0))
        fitting = next((p for p in rule.profiles if _fits(batch, p, row)), None)
        if fitting is not None:
            values = _from_profile(batch, rule, fitting, row, slots, measured)
        elif rule.flat:
            values = _flat(batch, row, measured, len(slots))
        else:
            continue
        if values is None:
            continue
        batch.values[row, slots] = values
        batch.conditions[row, slots] = rule.condition
        batch.methods[row, slots] = METHOD["profile"]
        batch.edited[row] = True


def _fits(batch: DayBatch, profile: DayProfile, row: int) -> bool:
    unit = batch.attributes.unit_names[batch.attributes.unit[row]]
    direction = DIRECTIONS[int(batch.attributes.direction[row])]
    units = {resolve(name).name for name in profile.units}
    return (not units or unit in units) and (not profile.directions or direction in profile.directions)


def _from_profile(batch: DayBatch, rule: Profile, profile: DayProfile, row: int, slots: Ints, measured: Ints) -> Ints | None:
    day = int(batch.day[row])
    if profile.holiday and is_holiday(rule.day_types, day):
        load = profile.holiday
    else:
        load = profile.values[type_of(rule.day_types, day) if len(profile.values) > 1 else 0]
    clock = wall_clock(batch.zone_of(row), day, batch.seconds)
    if len(clock) != int(batch.counts[row]):
        return None
    # Energy of an interval: the share of the profile's slots it covers, in whole numbers
    said = [_energy(load, profile.slot, int(clock[slot]), batch.seconds) for slot in range(len(clock))]
    top, bottom = 1, profile.slot
    if rule.scale and len(measured):
        has, should = sum(batch.values[row, measured].tolist()), sum(said[slot] for slot in measured.tolist())
        if has > 0 and should > 0:
            top, bottom = has, should
    return np.array([(2 * said[slot] * top + bottom) // (2 * bottom) for slot in slots.tolist()], np.int64)


def _energy(load: tuple[int, ...], slot: int, begin: int, seconds: int) -> int:
    """What a profile says of the time from a second of the day on, in millionths × the seconds of a profile slot."""
    total, at, end = 0, begin, begin + seconds
    while at < end:
        upto = min(end, (at // slot + 1) * slot)
        total += load[(at // slot) % len(load)] * (upto - at)
        at = upto
    return total


def _flat(batch: DayBatch, row: int, measured: Ints, size: int) -> Ints | None:
    if len(measured):
        values = batch.values[row, measured].tolist()
    else:
        values = [int(edges.value[row]) for edges in (batch.before, batch.after) if edges.usable[row]]
    if not values:
        return None
    return np.full(size, (2 * sum(values) + len(values)) // (2 * len(values)), np.int64)
