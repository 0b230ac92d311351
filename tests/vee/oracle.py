"""The final values of one channel worked out slowly: one slot after the other, with fractions, knowing everything at once."""

from __future__ import annotations

from fractions import Fraction
from math import floor

from schemas.conditions import EST_FLAT, EST_INTERPOLATED, MISSING, REGULAR, REPORTED_MISSING, SUSPECT
from streams.calendar import day_of, slots_of, start_of

Finals = dict[int, tuple[list[int], list[int]]]


def finals(zone: str, seconds: int, reads: dict[int, int | None], longest: int = 7200) -> Finals:
    """Day → values and conditions, from interval start → value (None: reported missing)."""
    first, last = min(reads), max(reads)
    days = list(range(int(day_of(zone, first)), int(day_of(zone, last)) + 1))
    return _chain(zone, seconds, reads, days, first, last, longest)


def _chain(zone: str, seconds: int, reads: dict[int, int | None], days: list[int], first: int, last: int, longest: int) -> Finals:
    """All days from the first to the last; what lies beyond them is not known."""
    slots = [int(start_of(zone, d)) + k * seconds for d in days for k in range(int(slots_of(zone, d, seconds)))]
    values, codes = [], []
    for at in slots:
        got = reads.get(at)
        values.append(got or 0)
        inside = first <= at <= last
        codes.append((REPORTED_MISSING if got is None else SUSPECT if got < 0 else REGULAR) if at in reads else MISSING if inside else 0)
    vacant = [code in (MISSING, REPORTED_MISSING) for code in codes]
    k = 0
    while k < len(slots):
        if not vacant[k]:
            k += 1
            continue
        end = k
        while end < len(slots) and vacant[end]:
            end += 1
        left = values[k - 1] if k > 0 and codes[k - 1] else None
        right = values[end] if end < len(slots) and codes[end] else None
        if (end - k) * seconds <= longest and (left is not None or right is not None):
            _fill(values, codes, k, end, left, right)
        k = end
    found: Finals = {}
    begin = 0
    for day in days:
        behind = begin + int(slots_of(zone, day, seconds))
        found[day] = (values[begin:behind], codes[begin:behind])
        begin = behind
    return found


def _fill(values: list[int], codes: list[int], k: int, end: int, left: int | None, right: int | None) -> None:
    low, high = (left if left is not None else right), (right if right is not None else left)
    assert low is not None
    assert high is not None
    parts = end - k + 1
    total = Fraction(0)
    given = 0
    for step in range(1, parts):
        total += low + Fraction(high - low) * step / parts
        rounded = floor(total + Fraction(1, 2))
        values[k + step - 1] = rounded - given
        codes[k + step - 1] = EST_FLAT if left is None or right is None else EST_INTERPOLATED
        given = rounded
