"""Which read answers a reading order, and a reading where there is none. Pure functions over the reads of one register."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from schemas import conditions
from schemas.quantity import MICRO

ACTUAL: Final = conditions.SUSPECT  # conditions from here on are measured or decided by people


@dataclass(frozen=True, slots=True)
class Read:
    """A register read: UTC seconds, millionths, condition."""

    at: int
    value: int
    condition: int

    @property
    def estimated(self) -> bool:
        """Whether nobody read it."""
        return self.condition < ACTUAL


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an order wants: the scheduled day [low, high] in UTC seconds (a read at the midnight that ends it belongs to it), the moment
    ``closest`` means, and by how much a read may lie outside the day."""

    which: Literal["earliest", "latest", "closest"]
    low: int
    high: int
    target: int
    tolerance: int


def usable(read: Read, *, estimates: bool) -> bool:
    """Whether a read may be given out: billable, and measured unless estimates are allowed."""
    billable = any(band.billable and read.condition in band for band in conditions.RANGES)
    return billable and (estimates or not read.estimated)


def choose(reads: list[Read], wanted: Wanted, *, estimates: bool) -> Read | None:
    """The read that answers, measured ones before estimated ones; None where there is none within the tolerance.

    >>> day = Wanted("earliest", 0, 86_400, 86_400, 3600)
    >>> choose([Read(50, 7, 500_000), Read(90, 8, 500_000)], day, estimates=False).value
    7
    """
    for allow in (False, True) if estimates else (False,):
        fit = [read for read in reads if usable(read, estimates=allow)]
        within = [read for read in fit if wanted.low <= read.at <= wanted.high]
        if wanted.which == "earliest" and within:
            return min(within, key=lambda read: read.at)
        if wanted.which == "latest" and within:
            return max(within, key=lambda read: read.at)
        near = {"earliest": wanted.low, "latest": wanted.high}.get(wanted.which, wanted.target)
        pool = within or [r for r in fit if wanted.low - wanted.tolerance <= r.at <= wanted.high + wanted.tolerance]
        if pool:
            return min(pool, key=lambda read: (abs(read.at - near), read.at))
    return None


def estimate(reads: list[Read], at: int, dials: int = 0) -> Read | None:
    """A reading at a moment from the reads around it: on the line between its neighbours, else on that of the last two before it.

    Rounds down, as a register does, and turns over at ``dials`` digits (0: never). None with fewer than two usable reads.
    """
    known = sorted((read for read in reads if usable(read, estimates=True)), key=lambda read: read.at)
    before = [read for read in known if read.at <= at]
    after = [read for read in known if read.at > at]
    if before and after:
        first, second = before[-1], after[0]
    elif len(before) > 1:
        first, second = before[-2], before[-1]
    else:
        return None
    turn = 10**dials * MICRO if dials else 0
    used = second.value - first.value
    if used < 0 and turn:
        used += turn
    if used < 0:
        return None
    value = first.value + used * (at - first.at) // (second.at - first.at)
    return Read(at, value % turn if turn else value, conditions.EST_INTERPOLATED if after else conditions.EST_FLAT)
