"""What a channel's check register says of its intervals: consumption between readings, and the slots that lie between them."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Final

import numpy as np

from schemas import conditions
from schemas.quantity import MICRO
from schemas.topology.vee import Group, IntervalAdjustmentFromScalar, ScalarProration, SumCheck
from streams.calendar import day_of
from streams.runtime.state import State
from streams.vee.admission import convert, factor
from streams.vee.batch import Array, Ints, Mask
from streams.vee.channels import Channels, key_of
from streams.vee.eligibility import rollover_on
from streams.vee.merging import STEP
from streams.vee.older import Older
from streams.vee.registers import NAME
from streams.vee.stretches import Checks, Spans, rolled, steps_of

MEASURED: Final = conditions.SUSPECT // STEP  # readings below are no anchors: an estimate must not be confirmed by another
SHIFT: Final = 17
_NONE: Final = np.zeros(0, np.int64)


class Anchors:
    """Finds check registers of interval channels, and what they say. Lookups are derived from the state and made when needed."""

    def __init__(self, state: State, channels: Channels, group: Group) -> None:
        self.state, self.channels = state, channels
        rules = [
            rule for rule in group.rules
            if isinstance(rule, IntervalAdjustmentFromScalar | SumCheck)
            or (isinstance(rule, ScalarProration) and rule.related_condition is not None)
        ]  # fmt: skip
        self.wanted = bool(rules)
        self.longest = max((rule.max_span_days for rule in rules), default=0) * 86_400
        self.rules = rules
        self._link = np.zeros(0, np.int64)
        self._seen = 0  # channels looked at
        self._known = 0  # register rows looked at
        self._open: dict[str, set[int]] = {}  # register not seen yet → interval channels that wait for it
        self._users: dict[int, set[int]] = {}  # register row → interval channels it checks
        self.at_hand: Callable[[], bool] = lambda: False  # whether older readings of any register are
        self.older: Callable[[str], Older | None] = lambda _: None

    def refresh(self) -> None:
        """Brings the links up to the channels and registers there are."""
        names = self.channels.table.text["check_channel"]
        if len(self._link) < len(names):
            room = np.full(max(64, len(names) * 5 // 4) - len(self._link), -1, np.int64)
            self._link = np.concatenate([self._link, room])
        for channel in range(self._seen, len(names)):
            if names[channel]:
                self._connect(channel)
        self._seen = len(names)
        keys = self.state.table(NAME).keys
        for row in range(self._known, len(keys)):
            for channel in sorted(self._open.pop(keys[row], ())):
                self._link[channel] = row
                self._users.setdefault(row, set()).add(channel)
        self._known = len(keys)

    def _connect(self, channel: int) -> None:
        self.channels.refresh()
        key = key_of(self.channels.names[channel][0], self.channels.table.text["check_channel"][channel])
        row = self.state.table(NAME).index.get(key, -1)
        if 0 <= row < self._known:
            self._link[channel] = row
            self._users.setdefault(row, set()).add(channel)
        else:
            self._open.setdefault(key, set()).add(channel)

    def changed(self, channel: int) -> None:
        """Says that master data of a channel changed."""
        if channel >= self._seen:
            return
        for users in (*self._open.values(), *self._users.values()):
            users.discard(channel)
        self._link[channel] = -1
        if self.channels.table.text["check_channel"][channel]:
            self._connect(channel)

    def users(self, register: int) -> list[int]:
        """Interval channels that a register channel checks."""
        if not self.wanted:
            return []
        self.refresh()
        row = self.state.table(NAME).index.get(self.channels.table.keys[register], -1)
        return sorted(self._users.get(row, ()))

    def has(self, channels: Ints) -> Mask:
        """Which of these channels have a register with readings."""
        if not self.wanted:
            return np.zeros(len(channels), np.bool_)
        self.refresh()
        return np.asarray(self._link[channels] >= 0)

    def rows_of(self, channels: Ints) -> Ints:
        """The register table's row of each channel's check register; only of channels that :meth:`has` one."""
        return np.asarray(self._link[channels])

    def latest(self, channels: Ints) -> Ints:
        """When the newest reading was taken of the registers of these channels, which all have one."""
        newest: Ints = self.state.table(NAME)["at"][self._link[channels]].max(axis=1)
        return newest

    def spans(self, channels: Ints, origin: Ints, seconds: int) -> Spans:
        """What the check registers of these channels say. ``origin`` is some interval start of each: readings off its grid are left out."""
        rows = self._link[channels]
        at, values, codes, runs = self._readings(rows)
        usable = (codes >= MEASURED) & ((at - origin[:, None]) % seconds == 0) & (at >= 0)
        which, slot = np.nonzero(usable)
        pair = _NONE
        if len(which):
            run = runs[which, slot] if runs is not None else which
            pair = np.flatnonzero((which[1:] == which[:-1]) & (run[1:] == run[:-1]))
        owner, a, b = which[pair], slot[pair], slot[pair + 1] if len(pair) else _NONE
        start, end = at[owner, a], at[owner, b]
        near = end - start <= self.longest
        owner, a, b, start, end = owner[near], a[near], b[near], start[near], end[near]
        register = self._register(rows)
        raw = values[owner, b] - values[owner, a]
        dials = self.channels.table["dials"][register][owner].astype(np.int64)
        raw, broken = rolled(raw, dials, rollover_on(self.rules, end // 86_400) if (raw < 0).any() else _NONE)
        step = steps_of(np.where(usable, values, 0))[owner]
        quantity, step, strange = self._scaled(channels, register, owner, raw, step)
        return Spans(owner, start, end, quantity, step, broken | strange)

    def _readings(self, rows: Ints) -> tuple[Ints, Ints, Array, Ints | None]:
        """Times, values and codes of the readings of register rows, ascending, and in which run each is if older ones are at hand."""
        table = self.state.table(NAME)
        at, values, codes = table["at"][rows], table["value"][rows], table["condition"][rows]
        some = np.flatnonzero(table["since"][rows] >= 0).tolist() if self.at_hand() else []
        back = {k: one for k in some if (one := self.older(table.keys[int(rows[k])])) is not None and len(one)}
        if not back:
            return at, values, codes, None
        width = max(map(len, back.values()))
        more = np.full((3, len(rows), width), -1, np.int64)
        more[1:] = 0
        for k, one in back.items():
            more[:, k, width - len(one) :] = one.at, one.value, one.code
        at, values, codes = (np.concatenate(part, axis=1) for part in zip(more, (at, values, codes), strict=True))
        runs = np.zeros(at.shape, np.int64)
        for k, one in back.items():
            runs[k] = one.run(at[k])
        return at, values, codes, runs

    def behind(self, channel: int, origin: int, seconds: int, times: Ints) -> list[int]:
        """Of readings at these times of a channel's register: when the next one behind each was taken that intervals are compared with."""
        at, _, codes, _ = self._readings(self._link[[channel]])
        usable = np.sort(at[(codes >= MEASURED) & ((at - origin) % seconds == 0) & (at >= 0)])
        place = np.searchsorted(usable, times, side="right")
        found: list[int] = np.unique(usable[place[place < len(usable)]]).tolist()
        return found

    def lacking(self, channel: int, begin: int, end: int) -> int | None:
        """From ``begin`` to ``end`` the first time of which readings of a channel's register are in the store only."""
        if not self.has(np.array([channel]))[0]:
            return None
        row, table = int(self._link[channel]), self.state.table(NAME)
        if table["since"][row] < 0 or begin >= table["at"][row, 0]:
            return None
        back = self.older(table.keys[row])
        return begin if back is None else back.gap(begin, end)

    def short(self, channels: Ints, start: Ints) -> Mask:
        """Which of these channels have a register whose kept readings begin behind these times, while there are older ones."""
        found = self.has(channels)
        own = np.flatnonzero(found)
        table, rows = self.state.table(NAME), self._link[channels[own]]
        found[own] = (table["since"][rows] >= 0) & (start[own] < table["at"][rows, 0])
        return found

    def register_of(self, channel: int) -> int:
        """The channel of the check register of a channel that :meth:`has` one."""
        return int(self.state.table(NAME)["channel"][self._link[channel]])

    def _register(self, rows: Ints) -> Ints:
        return np.asarray(self.state.table(NAME)["channel"][rows].astype(np.int64))

    def _scaled(self, channels: Ints, register: Ints, owner: Ints, raw: Ints, step: Ints) -> tuple[Ints, Ints, Mask]:
        """Differences and steps times multiplier, in the unit of the interval channel; strange: another dimension."""
        quantity, scaled, strange = raw.copy(), step.copy(), np.zeros(len(owner), np.bool_)
        multiplier = self.channels.table["multiplier"][register]
        texts = self.channels.table.text["unit"]
        kinds = [(int(m), texts[r], texts[c]) for m, r, c in zip(multiplier.tolist(), register.tolist(), channels.tolist(), strict=True)]
        for kind in dict.fromkeys(kinds):
            own = np.flatnonzero(np.array([k == kind for k in kinds], np.bool_)[owner])
            ratio = factor(kind[1], kind[2])
            if ratio is None:
                strange[own] = True
            elif kind[0] != MICRO or ratio != 1:
                whole = ratio * Fraction(kind[0], MICRO)
                quantity[own], scaled[own] = convert(raw[own], whole), np.maximum(1, convert(step[own], whole))
        return quantity, scaled, strange

    def days(self, spans: Spans, channels: Ints) -> tuple[Ints, Ints]:
        """First and last local day of each span of these channels."""
        first, last = np.empty(len(spans), np.int64), np.empty(len(spans), np.int64)
        zones = self.channels.zone[channels][spans.which]
        for zone in np.unique(zones).tolist():
            here = zones == zone
            name = self.channels.zones[zone]
            first[here], last[here] = day_of(name, spans.start[here]), day_of(name, spans.end[here] - 1)
        return first, last

    def checks(self, seconds: int, codes: Ints, channel: Ints, origin: Ints, start: Ints, counts: Ints) -> Checks | None:
        """Spans that touch these channel-days (``codes``: row and day as one number, ascending; ``start``: of their first slot)."""
        own = np.flatnonzero(self.has(channel))
        if not len(own):
            return None
        row, at = np.unique(codes[own] >> SHIFT, return_index=True)
        firsts = own[at]
        spans = self.spans(channel[firsts], origin[firsts], seconds)
        if not len(spans):
            return None
        first_day, last_day = self.days(spans, channel[firsts])
        base = row[spans.which] << SHIFT
        low = np.searchsorted(codes, base | first_day)
        high = np.searchsorted(codes, base | last_day, side="right")
        touching = np.flatnonzero(high > low)
        if not len(touching):
            return None
        spans, low, high = spans.take(touching), low[touching], high[touching]
        complete = high - low == last_day[touching] - first_day[touching] + 1
        size = high - low
        span = np.repeat(np.arange(len(spans)), size)
        rows = np.repeat(low - (np.cumsum(size) - size), size) + np.arange(len(span))
        first = ((spans.start[span] - start[rows]) // seconds).clip(0, counts[rows])
        behind = ((spans.end[span] - start[rows]) // seconds).clip(0, counts[rows])
        return Checks(spans, (first_day[touching], last_day[touching]), complete, high - 1, span, rows, first, behind)
