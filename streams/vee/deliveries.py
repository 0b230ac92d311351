"""What is told of deliveries that meet values held already: duplicate-imd and final-measurement-replacement.

Both tell of events: a later look at the day does not take them back.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from schemas.topology.vee import DuplicateImd, FinalMeasurementReplacement
from streams.vee.batch import Findings, Ints, Mask
from streams.vee.merging import Merged
from streams.vee.spans import Segments


def duplicates(rule: DuplicateImd, size: Ints, first: Ints, owner: Ints, merged: Merged) -> list[Findings]:
    """Parts of deliveries (``size`` slots from ``first`` of day ``owner``) that bring what is held, as far as the rule tells of it.

    identical: every value is held with the same condition; conflict: every slot is held, some otherwise; overlap: some slots are held.
    A message that Kafka delivers twice never comes here: its number has been seen.
    Source: duplicate IMD check of the domain, by values in place of identifiers.
    """
    segment = np.repeat(np.arange(len(size)), size)
    same, held = _per_segment(segment, merged.identical, len(size)), _per_segment(segment, merged.held, len(size))
    kinds = {
        "identical": same == size,
        "conflict": (held == size) & (same < size),
        "overlap": (held > 0) & (held < size),
    }
    events = []
    for kind in rule.tell:
        hit = np.flatnonzero(kinds[kind])
        if len(hit):
            count = {"identical": size, "conflict": size - same, "overlap": held}[kind][hit]
            events.append(
                Findings("duplicate-imd", owner[hit], count, first[hit], (first + size)[hit] - 1, _words(kind, count, size[hit]),
                         rule.severity, event=True)
            )  # fmt: skip
    return events


def again_and_again(rule: DuplicateImd, segments: Segments, owner: Ints) -> list[Findings]:
    """Parts of deliveries that repeat, in one message, the part of their day (``owner``) that came just before."""
    if "identical" not in rule.tell or not len(owner):
        return []
    size, say = segments.size, _words("identical", segments.size, segments.size)
    return [Findings("duplicate-imd", owner, size, segments.slot, segments.slot + size - 1, say, rule.severity, event=True)]


def grouped(events: list[Findings]) -> list[Findings]:
    """One finding for each rule and day, however often a message gives rise to it: counts add up, the last one's words stay."""
    found: list[Findings] = []
    for rule in dict.fromkeys(event.rule for event in events):
        own = [event for event in events if event.rule == rule]
        row, count, first, last = (np.concatenate([getattr(event, name) for event in own]) for name in ("rows", "count", "first", "last"))
        rows, where = np.unique(row, return_inverse=True)
        if len(rows) == len(row):
            found += own
            continue
        counts, times, newest = np.zeros(len(rows), np.int64), np.bincount(where), np.zeros(len(rows), np.int64)
        low, high = np.full(len(rows), 1 << 30), np.full(len(rows), -1)
        np.add.at(counts, where, count)
        np.minimum.at(low, where, first)
        np.maximum.at(high, where, last)
        newest[where] = np.arange(len(row))
        found.append(Findings(rule, rows, counts, low, high, _often(own, newest, times), own[-1].severity, event=True))
    return found


def _often(events: list[Findings], newest: Ints, times: Ints) -> Callable[[int], str]:
    bounds = np.cumsum([len(event.rows) for event in events])

    def say(k: int) -> str:
        which = int(np.searchsorted(bounds, newest[k], side="right"))
        said = events[which].say(int(newest[k] - (bounds[which] - len(events[which].rows))))
        return f"{said}; {int(times[k])} times in one delivery" if times[k] > 1 else said

    return say


def _words(kind: str, count: Ints, size: Ints) -> Callable[[int], str]:
    def say(k: int) -> str:
        some, all_ = int(count[k]), int(size[k])
        if kind == "identical":
            return f"all {some} {'value' if some == 1 else 'values'} had been received before"
        if kind == "conflict":
            return f"{some} of {all_} values differ from those received before for the same time"
        return f"{some} of {all_} values are for a time that had been received before, the others are new"

    return say


def replacements(rule: FinalMeasurementReplacement, size: Ints, owner: Ints, merged: Merged, slots: Ints) -> list[Findings]:
    """Days on which a value that came did not fit the one held, and which of them stays, as far as the rule tells of it.

    ``size`` slots of a delivery fall into day ``owner``; ``merged`` and ``slots`` have one entry for each of them.
    """
    kinds: dict[str, tuple[Mask, str]] = {
        "replaced": (merged.contradicted, "replaced by a later value of equal rank"),
        "refused": (merged.refused, "kept against a later value"),
        "outranked": (merged.outranked, "kept against a later value of lower rank"),
    }
    told = {kind: kinds[kind] for kind in kinds if kind in rule.tell and kinds[kind][0].any()}
    if not told:
        return []
    segment = np.repeat(np.arange(len(size)), size)
    counts = {kind: _per_segment(segment, mask, len(size)) for kind, (mask, _) in told.items()}
    total = sum(counts.values(), np.zeros(len(size), np.int64))
    hit = np.flatnonzero(total)
    touched = np.flatnonzero(np.logical_or.reduce([mask for mask, _ in told.values()]))
    low, high = np.full(len(size), 1 << 30), np.full(len(size), -1)
    np.minimum.at(low, segment[touched], slots[touched])
    np.maximum.at(high, segment[touched], slots[touched])

    def say(k: int) -> str:
        parts = [f"{int(counts[kind][hit[k]])} {words}" for kind, (_, words) in told.items() if counts[kind][hit[k]]]
        return f"values contradict each other: {', '.join(parts)}"

    return [Findings("final-measurement-replacement", owner[hit], total[hit], low[hit], high[hit], say, rule.severity, event=True)]


def _per_segment(segment: Ints, mask: Mask, segments: int) -> Ints:
    counts: Ints = np.bincount(segment[mask], minlength=segments)
    return counts
