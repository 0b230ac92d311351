"""Spans of time that each hold something: how they are laid over one another, and where two of them differ.

A timeline is a list of (from, to, what) in order, without overlaps; times are UTC seconds, half open, with ``EVER`` and ``FOREVER`` for
open ends. What holds is compared by ``==``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, Final, TypeVar

EVER: Final = -(1 << 62)
FOREVER: Final = 1 << 62

What = TypeVar("What")
Span = tuple[int, int, What]
Bounds = tuple[int, int]


def joined(spans: Iterable[Span[What]]) -> list[Span[What]]:
    """The same with equal neighbours made one and empty spans left out."""
    found: list[Span[What]] = []
    for begin, end, what in spans:
        if end <= begin:
            continue
        if found and found[-1][1] == begin and found[-1][2] == what:
            found[-1] = (found[-1][0], end, what)
        else:
            found.append((begin, end, what))
    return found


def overlaid(spans: Sequence[Span[What]], begin: int, end: int, what: What | None) -> list[Span[What]]:
    """The timeline with ``what`` from ``begin`` to ``end`` in place of whatever was there; None: nothing holds there."""
    before = [(a, min(b, begin), w) for a, b, w in spans if a < begin]
    behind = [(max(a, end), b, w) for a, b, w in spans if b > end]
    return joined([*before, *([(begin, end, what)] if what is not None else []), *behind])


def changed_within(spans: Sequence[Span[What]], begin: int, end: int, change: Callable[[What], What]) -> list[Span[What]]:
    """The timeline with what holds between ``begin`` and ``end`` changed; where nothing holds, nothing changes."""
    found: list[Span[What]] = []
    for a, b, what in spans:
        low, high = max(a, begin), min(b, end)
        found.append((a, min(b, begin), what))
        if low < high:
            found.append((low, high, change(what)))
        found.append((max(a, end), b, what))
    return joined(sorted(found, key=lambda span: (span[0], span[1])))


def at(spans: Sequence[Span[What]], moment: int) -> What | None:
    """What holds at a moment."""
    return next((what for begin, end, what in spans if begin <= moment < end), None)


def within(spans: Sequence[Span[What]], begin: int, end: int) -> list[Span[What]]:
    """The part of a timeline between two moments."""
    return [(max(a, begin), min(b, end), what) for a, b, what in spans if a < end and b > begin]


def filled(spans: Sequence[Span[What]], what: What) -> list[Span[What]]:
    """All of time: ``what`` wherever nothing else holds."""
    found: list[Span[What]] = []
    reached = EVER
    for begin, end, other in spans:
        found += [(reached, begin, what), (begin, end, other)]
        reached = end
    return joined([*found, (reached, FOREVER, what)])


def differences(old: Sequence[Span[Any]], new: Sequence[Span[Any]]) -> list[Bounds]:
    """The spans, joined, in which two timelines do not hold the same."""
    edges = sorted({edge for spans in (old, new) for begin, end, _ in spans for edge in (begin, end)})
    apart = [(a, b, True) for a, b in pairwise(edges) if at(old, a) != at(new, a)]
    return [(begin, end) for begin, end, _ in joined(apart)]


def covers(spans: Sequence[Span[Any]], begin: int, end: int) -> bool:
    """Whether something holds at every moment between two."""
    reached = begin
    for a, b, _ in within(spans, begin, end):
        if a > reached:
            return False
        reached = b
    return reached >= end


def outward(edge: int) -> int | None:
    """A moment as records carry it: null for an open end."""
    return None if edge in (EVER, FOREVER) else edge


def records(bounds: Iterable[Bounds]) -> list[dict[str, int | None]]:
    """Spans as records carry them."""
    return [{"from": outward(begin), "to": outward(end)} for begin, end in bounds]
