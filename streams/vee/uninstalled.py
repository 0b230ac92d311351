"""Reads of time in which no meter was installed, where that terminates: they wait, whether they come or are there already.

What counts is each interval and each reading, not the row it came in: so it makes no difference whether master data or reads came first.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

from schemas import conditions
from schemas.block import ReadBlock, starts_of
from schemas.topology.vee import InactiveMeasurement, VeeSettings
from streams.vee.batch import Array, Ints, Mask
from streams.vee.channels import Channels
from streams.vee.merging import STEP
from streams.vee.service import UNINSTALLED, outside, periods_of, states_at
from streams.vee.spans import DAILY, Segments

if TYPE_CHECKING:
    from streams.vee.days import _Work

_PERSONS: Final = (conditions.USER_EDIT // STEP, conditions.SUPER // STEP)


@dataclass(frozen=True, slots=True)
class TakenOut:
    """Received intervals of one channel that are no longer part of their day: codes in hundredths."""

    channel: int
    start: Ints  # of each run
    size: Ints
    values: Ints
    codes: Array


class Uninstalled:
    """Finds reads that lie wholly in time in which no meter was installed, less the rule's grace, and no person has set."""

    def __init__(self, channels: Channels, settings: VeeSettings) -> None:
        self.channels = channels
        rules = (rule for rule in settings.rules_of("initial-load").rules if isinstance(rule, InactiveMeasurement))
        self.rule = next((rule for rule in rules if rule.uninstalled == "terminate" and not rule.eligibility), None)

    def split(self, segments: Segments, channel: Ints, seconds: int) -> tuple[Segments, Segments]:
        """Segments of ``channel`` (one each) as they can be folded in, and what of them must wait."""
        if self.rule is None or not len(segments):
            return segments, segments.take(np.zeros(0, np.int64))
        beyond = self._beyond(channel, segments.time, segments.time + segments.size * seconds)
        if not len(beyond):
            return segments, segments.take(beyond)
        pieces: tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]] = ([], [])  # segment, first cell, size
        plain = np.setdiff1d(np.arange(len(segments)), beyond)
        for k in beyond.tolist():
            codes = segments.codes[int(segments.source[k]) : int(segments.source[k]) + int(segments.size[k])]
            out = self._slots(int(channel[k]), int(segments.time[k]), seconds, codes)
            for first, behind in _runs(out):
                pieces[bool(out[first])].append((k, first, behind - first))
        kept, waits = (_cut(segments, part, seconds) for part in pieces)
        rest = segments.take(plain)
        if len(kept):
            order = np.argsort(np.r_[plain, [k for k, _, _ in pieces[0]]], kind="stable")
            parts = (np.concatenate([getattr(rest, name), getattr(kept, name)])[order] for name in _COLUMNS)
            row, day, slot, size, source, time, origin = parts
            rest = Segments(row, day, slot, size, source, time, origin, segments.values, segments.codes)
        return rest, waits

    def take_out(self, work: _Work) -> list[TakenOut]:
        """Takes intervals out of days, one entry for each day that had any."""
        if self.rule is None or not len(work.codes):
            return []
        channel = work.table["channel"][work.row].astype(np.int64)
        found = []
        for row in self._beyond(channel, work.start, work.start + work.counts * work.seconds).tolist():
            count = int(work.counts[row])
            if work.passive[row] or not work.coded[row, :count].any():
                continue
            out = self._slots(int(channel[row]), int(work.start[row]), work.seconds, work.coded[row, :count])
            out &= work.coded[row, :count] > 0
            if out.any():
                runs = [(a, b) for a, b in _runs(out) if out[a]]
                start = int(work.start[row]) + np.array([a for a, _ in runs], np.int64) * work.seconds
                size = np.array([b - a for a, b in runs], np.int64)
                found.append(TakenOut(int(channel[row]), start, size, work.values[row, :count][out], work.coded[row, :count][out]))
                work.values[row, :count][out], work.coded[row, :count][out], work.accepted[row] = 0, 0, 0
        return found

    def rows(self, block: ReadBlock, rows: Ints, channels: Ints) -> Ints:
        """Positions of the rows of register readings that do not lie within the longest time in service."""
        if self.rule is None or not len(rows):
            return np.zeros(0, np.int64)
        registers, low, high = np.flatnonzero(block.reads > 0), block.start.copy(), block.start.copy()
        begins = starts_of(block.reads)[registers]
        low[registers], high[registers] = np.minimum.reduceat(block.times, begins), np.maximum.reduceat(block.times, begins)
        return np.flatnonzero(outside(self.channels.served[channels], low[rows], high[rows]))

    def readings(self, channel: int, times: Ints, codes: Array) -> Mask:
        """Which readings of a register were taken while no meter was installed. One taken just then belongs to the meter that goes or
        comes."""
        out = np.zeros(len(times), np.bool_)
        beyond = self._beyond(np.full(len(times), channel), times, times) if self.rule is not None else np.zeros(0, np.int64)
        if self.rule is not None and len(beyond):
            at, persons = times[beyond], (codes[beyond] >= _PERSONS[0]) & (codes[beyond] < _PERSONS[1])
            states = states_at(periods_of(self.channels.table.text["periods"][channel]), at - 1, at + 1, self.rule.grace)
            out[beyond] = (states == UNINSTALLED) & ~persons & (codes[beyond] > 0)
        return out

    def _beyond(self, channel: Ints, start: Ints, end: Ints) -> Ints:
        """Positions that do not lie within the longest time in service, on days on which the rule holds."""
        assert self.rule is not None
        self.channels.refresh()
        first, behind = self.rule.days
        day = start // DAILY
        return np.flatnonzero(outside(self.channels.served[channel], start, end) & (day >= first) & (day < behind))

    def _slots(self, channel: int, start: int, seconds: int, codes: Array) -> Mask:
        assert self.rule is not None
        begin = start + np.arange(len(codes)) * seconds
        states = states_at(periods_of(self.channels.table.text["periods"][channel]), begin, begin + seconds, self.rule.grace)
        persons = (codes >= _PERSONS[0]) & (codes < _PERSONS[1])
        return np.asarray((states == UNINSTALLED) & ~persons)


_COLUMNS: Final = ("row", "day", "slot", "size", "source", "time", "origin")


def _runs(mask: Mask) -> list[tuple[int, int]]:
    """Unbroken runs of equal cells: first, and first behind."""
    cuts = np.flatnonzero(mask[1:] != mask[:-1]) + 1
    return list(pairwise([0, *cuts.tolist(), len(mask)])) if len(mask) else []


def _cut(segments: Segments, pieces: list[tuple[int, int, int]], seconds: int) -> Segments:
    which, first, size = (np.array([piece[k] for piece in pieces], np.int64) for k in range(3))
    part = segments.take(which)
    part.slot, part.source, part.time, part.size = part.slot + first, part.source + first, part.time + first * seconds, size
    return part
