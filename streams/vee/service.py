"""When a channel is in service: the periods of master data as one text per channel, and as arrays."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np

from streams.vee.batch import Ints, Mask, Period


class Use(NamedTuple):
    """Who uses a channel for a time; None: as its master data say outside of periods."""

    start: int
    end: int
    service_point: str | None
    account: str | None
    multiplier: int | None


SINCE_EVER: Final = -(1 << 62)
FOREVER: Final = 1 << 62
CONNECTED, VACANT, DISCONNECTED, UNINSTALLED = range(4)  # ordered: where several hold, the higher one counts
NAMES: Final = ("connected", "no account", "disconnected", "uninstalled")
_LETTERS: Final = {"connected": "c", "disconnected": "d", "uninstalled": "u"}
_STATES: Final = {"c": CONNECTED, "d": DISCONNECTED, "u": UNINSTALLED}


def text_of_periods(periods: Iterable[dict[str, Any]]) -> str:
    """Periods of a MasterChannel record as ``from:to:letter;…``, an open end empty, in order of time."""
    parts = [
        (SINCE_EVER if p["from"] is None else p["from"], FOREVER if p["to"] is None else p["to"], _LETTERS[p["state"]]) for p in periods
    ]
    return ";".join(f"{'' if a == SINCE_EVER else a}:{'' if b == FOREVER else b}:{letter}" for a, b, letter in sorted(parts))


def text_of_uses(periods: Sequence[dict[str, Any]]) -> str:
    """Who uses a channel when, as JSON of (from, to, service point, account, multiplier); empty where that is the same in all periods."""
    uses = [[p["from"], p["to"], *(p.get(name) for name in ("service_point", "account", "multiplier"))] for p in periods]
    return json.dumps(uses) if len({tuple(use[2:]) for use in uses}) > 1 else ""


@lru_cache(4096)
def uses_of(text: str) -> tuple[Use, ...]:
    """The uses of :func:`text_of_uses`, in order of time."""
    return tuple(
        Use(SINCE_EVER if begin is None else begin, FOREVER if end is None else end, *rest)
        for begin, end, *rest in json.loads(text or "[]")
    )


class Owner(NamedTuple):
    """Whose a channel is at a time, and how it counts: ``multiplier`` in millionths."""

    account: str
    service_point: str
    multiplier: int
    unit: str

    def route(self, device: str) -> str:
        """The key final rows travel by: account, else service point, else device."""
        return self.account or self.service_point or device


def owner_at(uses: str, otherwise: Owner, at: int) -> Owner:
    """The owner at a UTC second by the uses of :func:`text_of_uses`; ``otherwise`` where they leave it open."""
    use = next((use for use in uses_of(uses) if use.start <= at < use.end), None)
    if use is None:
        return otherwise
    return Owner(
        otherwise.account if use.account is None else use.account,
        otherwise.service_point if use.service_point is None else use.service_point,
        otherwise.multiplier if use.multiplier is None else use.multiplier,
        otherwise.unit,
    )


@lru_cache(4096)
def _parsed(text: str) -> tuple[Period, ...]:
    found = [Period(SINCE_EVER, FOREVER, CONNECTED)] if not text else []
    reached = SINCE_EVER
    for part in text.split(";") if text else []:
        begin, end, letter = part.split(":")
        period = Period(int(begin) if begin else SINCE_EVER, int(end) if end else FOREVER, _STATES[letter])
        for piece in (Period(reached, period.start, UNINSTALLED), period):
            if piece.end <= piece.start:
                continue
            if found and found[-1].state == piece.state and found[-1].end == piece.start:
                found[-1] = Period(found[-1].start, piece.end, piece.state)
            else:
                found.append(piece)
        reached = max(reached, period.end)
    if text and reached < FOREVER:
        last = found[-1]
        if last.state == UNINSTALLED:
            found[-1] = Period(last.start, FOREVER, UNINSTALLED)
        else:
            found.append(Period(reached, FOREVER, UNINSTALLED))
    return tuple(found)


def periods_of(text: str) -> list[Period]:
    """All of time in periods. Without any in master data a channel is connected; else it is uninstalled where no period says otherwise."""
    return list(_parsed(text))


def served(text: str) -> tuple[int, int]:
    """The longest time in which the channel is connected: from, and to (exclusive); both 0 if it never is."""
    spans = [(min(p.end - p.start, FOREVER), p) for p in _parsed(text) if p.state == CONNECTED]
    if not spans:
        return 0, 0
    _, longest = max(spans, key=lambda span: (span[0], span[1].start))
    return longest.start, longest.end


def states_at(periods: list[Period], start: Ints, end: Ints, grace: int) -> Ints:
    """The state of each span of time: that of a period which holds all of it, less ``grace`` at both of the period's ends.

    Around every change a span thus counts as connected.
    """
    states = np.full(len(start), CONNECTED, np.int64)
    for period in periods:
        if period.state != CONNECTED:
            first = period.start if period.start == SINCE_EVER else period.start + grace
            last = period.end if period.end == FOREVER else period.end - grace
            states[(start >= first) & (end <= last)] = period.state
    return states


def idle_slots(periods: list[Period], start: int, seconds: int, count: int) -> Mask:
    """Which of ``count`` slots from ``start`` on lie wholly in one time in which no meter is installed or it is disconnected."""
    begin = start + np.arange(count) * seconds
    return np.asarray(states_at(periods, begin, begin + seconds, 0) != CONNECTED)


def outside(served_: Ints, start: Ints, end: Ints) -> Mask:
    """Spans of time that do not lie within the longest time in service."""
    return (start < served_[:, 0]) | (end > served_[:, 1])
