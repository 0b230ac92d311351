"""Readings of registers that change behind newer ones: what their accounts had and have, so that sums of old days can be put right.

Determinants keep the sums of a register's newest days only. For others they are told all readings that count: those of the days that may
say something else, the one before them, and both as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from schemas import conditions
from streams.calendar import day_of
from streams.vee.batch import Array, Ints, Mask
from streams.vee.merging import STEP
from streams.vee.service import Owner

_USABLE: Final = conditions.OUTAGE // STEP
_DAYS: Final = 100  # told in one record at most
Owns = Callable[[int], Owner]


class Finals(NamedTuple):
    """Readings as published: values in millionths, conditions in hundredths (0: there is none)."""

    value: Ints
    code: Array


@dataclass(slots=True)
class Rewritten:
    """All known readings of a register, ascending, before and after a change. Those of one ``run`` are neighbours."""

    channel: int
    at: Ints
    had: Finals
    has: Finals
    run: Ints
    whole: Mask  # nothing is before the run a reading lies in

    def told_as(self, known: dict[int, tuple[int, int]]) -> None:
        """Takes over what had been published, time → value and condition."""
        found = [known.get(at, (0, 0)) for at in self.at.tolist()]
        self.had = Finals(*(np.array([one[k] for one in found], np.int64) for k in (0, 1)))

    def days(self, zone: str, before: Owns, after: Owns, home: Callable[[Owner], int]) -> Iterator[tuple[int, bool, dict[str, Any]]]:
        """What each account must know to tell its days anew: its partition, whether it still has them, and the fields of RegisterDays that
        differ by account.

        ``before`` and ``after`` say whose a reading was and is, ``home`` where its determinants are.
        """
        numbers = day_of(zone, self.at - 1).tolist()
        owners = [(before(at), after(at)) for at in self.at.tolist()]
        same = (self.had.value == self.has.value) & (self.had.code == self.has.code)
        touched = {k for k, (old, new) in enumerate(owners) if old != new or not same[k]}
        accounts = {(owner.account, owner.unit, home(owner)): None for k in sorted(touched) for owner in owners[k]}
        for account, unit, partition in accounts:
            own: list[list[int]] = []
            for which, finals in enumerate((self.had, self.has)):
                mine = (k for k, pair in enumerate(owners) if (pair[which].account, pair[which].unit) == (account, unit))
                own.append([k for k in mine if finals.code[k] >= _USABLE and home(owners[k][which]) == partition])
            todo, staying = self._to_tell(numbers, own, touched), {numbers[k] for k in own[1]}
            for stays in (False, True):  # days that an account has nothing of any more come first: another may have them now
                days = [day for day in todo if (day in staying) == stays]
                for first in range(0, len(days), _DAYS):
                    some = days[first : first + _DAYS]
                    told = [self._told(k, now, owners[k][now]) for now in (0, 1) for k in _around(own[now], numbers, some[0], some[-1])]
                    yield partition, stays, {"account": account, "unit": unit, "days": some, "readings": told}

    def _to_tell(self, numbers: list[int], own: list[list[int]], touched: set[int]) -> list[int]:
        """Local days of an account's readings that have changed, or begin where such ends; not those whose begin is not known."""
        found = set()
        for k in touched & {*own[0], *own[1]}:
            behind = (next((j for j in mine if numbers[j] > numbers[k] and self.run[j] == self.run[k]), None) for mine in own)
            found |= {numbers[k], *(numbers[j] for j in behind if j is not None)}
        for day in sorted(found):
            first = next((k for k in own[1] if numbers[k] == day), None)
            if first is None or self.whole[first] or any(numbers[k] < day and self.run[k] == self.run[first] for k in own[1]):
                continue
            found.discard(day)
        return sorted(found)

    def _told(self, k: int, now: int, owner: Owner) -> dict[str, Any]:
        finals = (self.had, self.has)[now]
        return {
            "now": bool(now), "at": int(self.at[k]), "value": int(finals.value[k]), "condition": int(finals.code[k]) * STEP,
            "multiplier": owner.multiplier, "service_point": owner.service_point,
        }  # fmt: skip


def _around(own: list[int], numbers: list[int], first: int, last: int) -> list[int]:
    """Readings of these days and the one before them."""
    inside = [k for k in own if first <= numbers[k] <= last]
    before = [k for k in own if numbers[k] < first]
    return before[-1:] + inside
