"""Rules over register readings: negative-consumption, high-low, multiplier, inactive-measurement, prolonged-estimation.

A reading is judged with the reading before it: what counts is their difference. It is judged when it comes, and again when it or the one
before it changes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np

from schemas.block import EXCEPTION, FINALIZED
from schemas.quantity import MICRO, text_of
from schemas.rules import BIT
from schemas.topology.vee import (
    Group,
    HighLow,
    InactiveMeasurement,
    Multiplier,
    NegativeConsumption,
    ProlongedEstimation,
    RuleSettings,
)
from streams.runtime.state import State
from streams.vee.batch import Array, Attributes, DayBatch, Ints, Mask, iso
from streams.vee.channels import Channels
from streams.vee.eligibility import applies, rollover_on
from streams.vee.older import Older
from streams.vee.registers import KEPT, NAME, Changed
from streams.vee.rejudging import Judged
from streams.vee.service import CONNECTED, DISCONNECTED, UNINSTALLED, VACANT, outside, states_at

_DAY: Final = 86_400
_RAISED: Final = "readings"  # readings/<channel>: time and rules of kept readings that were found
_PAIR: Final = struct.Struct("<qI")
_USABLE, _ESTIMATE, _SUSPECT, _REGULAR = 2000, 3000, 4500, 5000


@dataclass(slots=True)
class Told:
    """A finding about a reading, or, with an empty ``says``, that it is found no more. ``start`` is the reading before."""

    rule: str
    severity: str
    channel: int
    start: int
    at: int
    says: str


@dataclass(slots=True)
class Series:
    """Usable readings, ordered by channel and time.

    ``use`` is the consumption since the reading before, in millionths of the reading's unit, without the multiplier; 0 for a channel's
    first one. ``linked``: there is a reading before.
    """

    channel: Ints
    at: Ints
    value: Ints
    code: Array
    use: Ints
    linked: Mask
    fresh: Mask  # to be judged
    attributes: Attributes
    seconds: int
    day: Ints
    ended: Mask
    settled: Mask

    def __len__(self) -> int:
        return len(self.at)

    @property
    def before(self) -> Ints:
        """The time of the reading before, or its own."""
        return np.where(self.linked, np.r_[self.at[:1], self.at[:-1]], self.at)


Finding = tuple[Mask, Callable[[int], str], str]  # readings, what to say of one, severity


def negative(series: Series, rule: NegativeConsumption) -> Iterator[Finding]:
    """Readings below the one before, if the register has not rolled over.

    A register of n dials that falls from a to b has used b - a + 10^n, if that is up to ``rollover_percent`` of 10^n. A larger use, or no
    dials in master data, means a reset, a swapped meter or a wrong reading.
    """
    bad = series.linked & (series.use < 0) & series.attributes.quantity_in(rule.quantities)
    if not rule.even_if_allowed:
        bad &= ~series.attributes.allow_negative

    def say(k: int) -> str:
        was, is_ = text_of(int(series.value[k - 1])), text_of(int(series.value[k]))
        return f"reading {is_} after {was}: {_amount(series, k, int(series.use[k]))}, more than a rollover explains"

    yield bad, say, rule.severity


def high_low(series: Series, rule: HighLow) -> Iterator[Finding]:
    """Readings whose use per day leaves the band around that of the readings before it (up to 40 of them, ``min_days`` at least)."""
    line = np.arange(len(series))
    first = np.maximum.accumulate(np.where(series.linked, 0, line))
    base = np.maximum(first, line - KEPT)
    total = np.cumsum(np.maximum(series.use, 0))
    previous = np.maximum(line - 1, 0)
    span = (series.at[previous] - series.at[base]) / _DAY
    days = (series.at - series.at[previous]) / _DAY
    known = series.linked & (span >= rule.min_days) & (days > 0) & (series.use >= 0)
    known &= series.attributes.quantity_in(rule.quantities)
    average = np.where(known, (total[previous] - total[base]) / np.maximum(span, 1), 0.0)
    use = np.where(known, series.use / np.maximum(days, 1e-9), 0.0)
    bad = known & (average > 0) & (np.maximum(use, average) >= rule.floor)
    bad &= (use > rule.high * average) | (use < rule.low * average)

    def say(k: int) -> str:
        return (
            f"{_amount(series, k, round(use[k]))} a day since the reading before, {use[k] / average[k]:.3g} times the "
            f"{_amount(series, k, round(average[k]))} of the {round(span[k])} days before it"
        )

    yield bad, say, rule.severity


def multiplier(series: Series, rule: Multiplier) -> Iterator[Finding]:
    """Readings of a channel whose newest reads came with another multiplier than master data say."""
    said, known = series.attributes.reported, series.attributes.multiplier
    bad = (said > 0) & (known > 0) & (np.abs(said - known).astype(np.float64) > rule.tolerance * known)

    def say(k: int) -> str:
        return f"reads came with multiplier {text_of(int(said[k]))}, master data say {text_of(int(known[k]))}"

    yield bad, say, rule.severity


def inactive(series: Series, rule: InactiveMeasurement) -> Iterator[Finding]:
    """Use between two readings that both lie in one time out of service (less the grace at its ends)."""
    begin = series.before
    beyond = outside(series.attributes.served, begin, series.at)
    size = np.abs(series.use)
    much = series.linked & (size > rule.tolerance * np.maximum((series.at - begin) / _DAY, 1))
    states = np.full(len(series), CONNECTED, np.int64)
    for k in np.flatnonzero(much & beyond).tolist():
        states[k] = states_at(series.attributes.periods(k), begin[k : k + 1], series.at[k : k + 1], rule.grace)[0]
    states[much & (states == CONNECTED) & series.attributes.vacant] = VACANT
    severities = {UNINSTALLED: rule.uninstalled, DISCONNECTED: rule.severity if rule.disconnected else None, VACANT: rule.no_account}
    words = {UNINSTALLED: "while no meter was installed", DISCONNECTED: "while disconnected", VACANT: "though there is no account"}
    for state, severity in severities.items():
        if severity:
            yield (states == state) & series.attributes.quantity_in(rule.quantities), _while(series, size, words[state]), severity


def _while(series: Series, size: Ints, words: str) -> Callable[[int], str]:
    return lambda k: f"{_amount(series, k, int(size[k]))} {words}"


def prolonged(series: Series, rule: ProlongedEstimation) -> Iterator[Finding]:
    """Estimated readings more than ``allowed_days`` behind the last one that was measured, or behind the first known."""
    line = np.arange(len(series))
    measured = (series.code >= _REGULAR) | (series.code < _ESTIMATE)
    last = np.maximum.accumulate(np.where(measured | ~series.linked, line, 0))
    bad = ~measured & (series.code < _SUSPECT) & (series.at[last] + rule.allowed_days * _DAY < series.at)

    def say(k: int) -> str:
        days = int(series.at[k] - series.at[last[k]]) // _DAY
        return f"estimated, and the last measured reading lies {days} days before, at {iso(int(series.at[last[k]]))}"

    yield bad, say, rule.severity


RULES: Final[dict[str, Callable[[Series, Any], Iterator[Finding]]]] = {
    "negative-consumption": negative, "high-low": high_low, "multiplier": multiplier, "inactive-measurement": inactive,
    "prolonged-estimation": prolonged,
}  # fmt: skip


def _amount(series: Series, k: int, micros: int) -> str:
    return f"{text_of(micros)} {series.attributes.unit_names[series.attributes.unit[k]]}"


class Readings:
    """Judges the register readings of one partition."""

    def __init__(self, state: State, channels: Channels, group: Group) -> None:
        self.state, self.channels = state, channels
        self.rules = [rule for rule in group.rules if isinstance(rule, RuleSettings) and rule.id in RULES]
        self.falls = [rule for rule in self.rules if isinstance(rule, NegativeConsumption)]

    def judge(
        self, changed: Changed, older: Mapping[int, Older] | None = None, known: Mapping[tuple[int, int], int] | None = None
    ) -> tuple[Array, list[Told]]:  # fmt: skip
        """State of each final row of ``changed``, and what is to be told. To be called when the register table holds the readings.

        ``older``: channel → readings of it that are back from the store, ``known``: what :meth:`found_before` said of these.
        """
        states = np.full(len(changed.channel), FINALIZED, np.int8)
        if not self.rules or not len(changed.channel):
            return states, []
        series = self._series(changed, older or {})
        bits, told, issue = self._found(series)
        told += self._gone(series, bits, known or {})
        states[np.isin(changed.channel, series.channel[issue])] = EXCEPTION
        return states, told

    def found_before(self, older: Mapping[int, Older], was: Mapping[int, Judged]) -> dict[tuple[int, int], int]:
        """Channel and time → rules that must have been found of readings back from the store: nothing is kept of these.

        ``was``: channel → as what they were judged. To be called before anything is merged with them.
        """
        if not self.rules or not older:
            return {}
        none = np.zeros(0, np.int64)
        channels = np.array(sorted(older), np.int64)
        series = self._series(Changed(channels, np.zeros(len(channels), np.int64), none, none, none, none, none, [], []), older, was)
        series.fresh = np.ones(len(series), np.bool_)
        bits = self._found(series)[0]
        first = {channel: int(one.at[-1]) if len(one) else -1 for channel, one in older.items()}
        places = zip(series.channel.tolist(), series.at.tolist(), bits.tolist(), strict=True)
        return {(channel, at): some for channel, at, some in places if some and at <= first[channel]}

    def _found(self, series: Series) -> tuple[Ints, list[Told], Mask]:
        bits, issue = np.zeros(len(series), np.int64), np.zeros(len(series), np.bool_)
        told: list[Told] = []
        before = series.before
        for rule in self.rules:
            wanted = series.fresh & applies(rule, cast(DayBatch, series))
            for bad, say, severity in RULES[rule.id](series, rule):
                hit = np.flatnonzero(bad & wanted)
                bits[hit] |= BIT[rule.id]
                issue[hit] |= severity != "info"
                for k in hit.tolist():
                    told.append(Told(rule.id, severity, int(series.channel[k]), int(before[k]), int(series.at[k]), say(k)))  # noqa: PERF401
        return bits, told, issue

    def _series(self, changed: Changed, older: Mapping[int, Older], was: Mapping[int, Judged] | None = None) -> Series:
        """Kept, older and new readings of the channels concerned, with the use between them."""
        table, keys = self.state.table(NAME), self.channels.table.keys
        row = table.find(keys[channel] for channel in changed.channel.tolist())
        place, slot = np.nonzero(table["at"][row] >= 0)
        kept = (row[place], slot)
        estimated = table["estimated"][kept] > 0
        values = np.where(estimated, table["estimate"][kept], table["value"][kept])
        codes = np.where(estimated, table["estimated"][kept], table["condition"][kept])
        back = [(np.full(len(one), owner), one.at, *one.final()) for owner, one in older.items()]
        channel = np.concatenate([np.repeat(changed.channel, changed.count), changed.channel[place], *(part[0] for part in back)])
        at = np.concatenate([changed.times, table["at"][kept], *(part[1] for part in back)])
        value = np.concatenate([changed.values, values, *(part[2] for part in back)])
        code = np.concatenate([changed.codes, codes, *(part[3] for part in back)]).astype(np.int64)
        run = np.zeros(len(at), np.int64)
        for owner, one in older.items():
            run[channel == owner] = one.run(at[channel == owner])
        new = np.arange(len(at)) < len(changed.times)
        usable = code >= _USABLE
        order = np.lexsort((~new, at, channel))
        order = order[usable[order]]
        once = np.r_[True, (channel[order][1:] != channel[order][:-1]) | (at[order][1:] != at[order][:-1])][: len(order)]
        order = order[once]
        channel, at, value, code, new, run = (column[order] for column in (channel, at, value, code, new, run))
        linked = np.r_[False, (channel[1:] == channel[:-1]) & (run[1:] == run[:-1])][: len(channel)]
        use = np.where(linked, value - np.r_[value[:1], value[:-1]][: len(value)], 0)
        dials = self.channels.table["dials"][channel].astype(np.int64)
        span = np.where(dials > 0, np.int64(10) ** np.clip(dials, 0, 12) * MICRO, 0)
        turned = use + span
        fell = use < 0
        if fell.any():
            percent = rollover_on(self.falls, at // _DAY)
            use = np.where(fell & (dials > 0) & (turned * 100.0 <= span * percent.astype(np.float64)) & (turned >= 0), turned, use)
        fresh = new | (linked & np.r_[False, new[:-1]][: len(new)])
        none = np.zeros(len(channel), np.bool_)
        about = self.channels.attributes(channel, was)
        return Series(channel, at, value, code, use, linked, fresh, about, 0, at // _DAY, none, none.copy())

    def _gone(self, series: Series, bits: Ints, older: Mapping[tuple[int, int], int]) -> list[Told]:
        """Compares with what was found before; notes what is found now of kept readings."""
        told = []
        before = series.before
        begins = np.flatnonzero(np.r_[True, np.diff(series.channel) != 0][: len(series)]).tolist()
        for begin, behind in zip(begins, [*begins[1:], len(series)], strict=False):
            channel = int(series.channel[begin])
            entry = f"{_RAISED}/{self.channels.table.keys[channel]}"
            data = self.state.entries.get(entry, b"")
            found = bits[begin:behind]
            if not data and not found.any() and not older:
                continue
            known = dict(_PAIR.iter_unpack(data))
            known |= {at: some for (owner, at), some in older.items() if owner == channel and at not in known}
            now: dict[int, int] = {}
            for k in range(begin, behind):
                at, old = int(series.at[k]), known.get(int(series.at[k]), 0)
                kept = int(bits[k]) if series.fresh[k] else old
                told += [Told(rule, "", channel, int(before[k]), at, "") for rule in RULES if old & ~kept & BIT[rule]]
                if kept and k >= behind - KEPT:
                    now[at] = kept
            self.state.put(entry, b"".join(_PAIR.pack(at, some) for at, some in now.items()) or None)
        return told
