"""Most channel-days in one compiled pass: looked at, taken into the ring, and left to be sent.

What a rule means is said once, in ``streams/vee/rules``. Here stands when it cannot speak, and for the commonest flaws (negative and
standing out values, days without use, short gaps inside a day) what it says and does then. A channel-day of which that is not certain is
left alone and takes the way of all days (``streams/vee/days.py``). For the others the same must come out, bit for bit, as on that way;
``tests/vee/test_clean.py`` holds both against each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar, cast

import numpy as np
import numpy.typing as npt
from numba import njit

from schemas.block import EXCEPTION, FINALIZED, OPEN
from schemas.rules import BIT, METHOD
from streams.vee.history import BLOCK, BLOCKS
from streams.vee.ring import NEVER, NO_DAY
from streams.vee.rules.totals import CEILING

Array = npt.NDArray[Any]
Work = TypeVar("Work", bound=Callable[..., Any])


def compiled(work: Work) -> Work:
    """Compiles a function that allocates nothing: references to columns are not counted, which would take most of the time."""
    options: Any = {"cache": True, "_nrt": False}
    return cast(Work, njit(**options)(work))


_REGULAR, _BEHIND = 5000, 6000  # conditions in hundredths: measured, and passed as it came
_OUTAGE, _ESTIMATE, _MEASURED = 2000, 3000, 4500
_BITS: Final = 63  # days of siblings
_STATE: Final = np.uint64(0xD6E8FEB86659FD93)
_UNSEEN: Final = np.uint64(0x9E3779B97F4A7C15)
_SUSPECT: Final = 4500
_SAFE: Final = 1 << 40  # as in rules/interval_interpolation.py
_LONGEST_GAP: Final = 1000
FLAWS: Final = ("negative-consumption", "interval-spike", "zero-consumption")  # whose findings can be made here, in the order of the groups
_BITS_OF: Final = tuple(BIT[rule] for rule in FLAWS)
_INTERPOLATED: Final = METHOD["interval-interpolation"]
MODE_VALUE, MODE_BAND, MODE_AND, MODE_OR = range(4)
SIGNS: Final = ("=", "<", "<=", ">", ">=")


class Parts(NamedTuple):
    """Parts of deliveries, each inside one local day; see :class:`streams.vee.spans.Segments`. ``barred``: not to be looked at."""

    row: Array
    day: Array
    slot: Array
    size: Array
    source: Array
    time: Array
    values: Array
    codes: Array
    midnight: Array
    end: Array
    barred: Array


class Ring(NamedTuple):
    """Columns of the ring table (streams/vee/ring.py)."""

    channel: Array
    phase: Array
    newest: Array
    oldest: Array
    stored_from: Array
    stored_through: Array
    first: Array
    last: Array
    actual: Array
    head_gap: Array
    tail_run: Array
    tail_usable: Array
    tail_value: Array
    seen: Array
    present: Array
    missed: Array
    pair_due: Array
    day: Array
    count: Array  # type: ignore[assignment]
    closed: Array
    version: Array
    digest: Array
    raised: Array
    told: Array
    accepted: Array
    due: Array
    touched: Array
    published: Array
    held: Array
    values: Array
    conditions: Array


class Kept(NamedTuple):
    """Columns of the history table (streams/vee/history.py)."""

    block: Array
    sums: Array
    days: Array
    guessed: Array
    peaks: Array
    run_in: Array
    run_out: Array


class Known(NamedTuple):
    """What is known of channels, by channel number."""

    unit: Array
    negative: Array
    reported: Array
    scaled: Array
    multiplier: Array
    served: Array
    vacant: Array
    direction: Array


class Flaws(NamedTuple):
    """How days with flaws are answered, where that is as plain as by default (``open``).

    ``severities`` by rule of ``FLAWS``: 0 info, 1 issue. ``exempt`` directions of days without use. ``max_gap`` in slots (0: no gap is
    filled), and the condition of estimates in hundredths.
    """

    open: bool
    severities: Array
    exempt: Array
    max_gap: int
    estimate: int


class Found(NamedTuple):
    """Days with flaws that were decided, and findings of them, in the order they were made; ``size`` says how many there are of both.

    ``part`` of the delivery. ``codes`` in hundredths. ``edited``: final and received values differ. ``rule`` is a place in ``FLAWS``;
    ``amount``, ``slot`` and ``third`` are what its sentence names.
    """

    size: Array
    part: Array
    values: Array
    codes: Array
    methods: Array
    state: Array
    told: Array
    raised: Array
    edited: Array
    of: Array
    rule: Array
    number: Array
    first: Array
    last: Array
    amount: Array
    slot: Array
    third: Array


class Limits(NamedTuple):
    """Parameters of the rules, a line for each time a rule stands in the groups; ``*_in`` say for which units it judges.

    ``spikes``: percent, least number of intervals, floor. ``zeros``: epsilon. ``runs``: mode, sign, amount, least run in
    intervals, look back, each day, place in the history (-1: none); ``bands`` by line and condition in hundredths. ``highs``: high,
    low, floor; ``blocks``: first and second block back (0: none), least days, highest percent of estimates. ``negative_in`` by unit
    and whether the channel allows negative values. ``followed``: mode, sign, amount of the runs that the history keeps.
    """

    spikes: Array
    negative_in: Array
    zeros: Array
    zeros_in: Array
    runs: Array
    bands: Array
    runs_in: Array
    highs: Array
    blocks: Array
    highs_in: Array
    followed: Array
    followed_bands: Array
    multiplier: bool
    inactive: bool
    sums: bool
    peaks: bool
    sibling_wait: int  # -1: no such rule
    lateness: int
    flaws: Flaws


@compiled
def _fits(mode: int, sign: int, amount: int, bands: Array, value: int, code: int) -> bool:
    """The test of consecutive-interval for one slot."""
    by_value = False
    if mode != MODE_BAND and code >= _OUTAGE:
        if sign == 0:
            by_value = value == amount
        elif sign == 1:
            by_value = value < amount
        elif sign == 2:
            by_value = value <= amount
        elif sign == 3:
            by_value = value > amount
        else:
            by_value = value >= amount
    if mode == MODE_VALUE:
        return by_value
    by_band = bands[code] > 0
    if mode == MODE_BAND:
        return bool(by_band)
    return bool(by_value and by_band if mode == MODE_AND else by_value or by_band)


@compiled
def _capped(value: int) -> int:
    return min(max(value, -CEILING), CEILING)


@compiled
def _complete(values: Array, codes: Array, count: int) -> tuple[int, bool, bool]:
    """:func:`streams.vee.history.complete` for one day."""
    total = 0
    lowest: Any = np.uint16(60_000)
    own = codes[:count]
    for i in range(len(values)):
        total += _capped(values[i])
    for i in range(len(own)):
        lowest = min(lowest, own[i])
    return total, lowest >= _ESTIMATE, lowest < _MEASURED


@compiled
def _tail(rule: Array, bands: Array, values: Array, codes: Array, count: int) -> tuple[int, bool]:
    """How many slots at the end of a day fit, and whether all do."""
    for i in range(count - 1, -1, -1):
        if not _fits(rule[0], rule[1], rule[2], bands, values[i], codes[i]):
            return count - 1 - i, False
    return count, True


# --- when no rule can speak ---------------------------------------------------------------------------------------------------------


@compiled
def _spikes(spikes: Array, values: Array, codes: Array, count: int, usable: int, top: int, size: int) -> bool:
    """Whether the highest magnitude is a spike by any line; ``size`` is the sum of magnitudes.

    The third highest is at least the mean of all but the two highest, so it is seldom needed.
    """
    for k in range(len(spikes)):
        if usable < spikes[k, 1] or top <= spikes[k, 2]:
            continue
        factor = 1 + spikes[k, 0] / 100
        if usable > 2 and top + 1 < (size - 2 * top) / (usable - 2) * factor * 0.999:
            continue
        third = _third(values, codes, count) if len(values) >= 3 else 0
        if top > third + third * spikes[k, 0] // 100:
            return True
    return False


@compiled
def _entering(ring: Ring, kept: Kept, limits: Limits, k: int, row: int, day: int, hot: int) -> int:
    """:meth:`streams.vee.past.Past.entering` for the first day of a channel in a batch: how long a run is that goes on into it."""
    run = 0
    for step in range(1, hot + 2):
        before = day - step
        if ring.stored_through[row] == before:
            if limits.runs[k, 6] >= 0:
                run += kept.run_out[row, limits.runs[k, 6]]
            break
        pos = before % hot
        if before < 0 or ring.day[row, pos] != before:
            break
        tail, whole = _tail(limits.runs[k], limits.bands[k], ring.values[row, pos], ring.conditions[row, pos], ring.count[row, pos])
        run += tail
        if not whole:
            break
    return run


@compiled
def _none_fits(rule: Array, low: int, high: int) -> bool:
    """Whether no value between two bounds passes the value test of a rule that needs it."""
    mode, sign, amount = rule[0], rule[1], rule[2]
    if mode != MODE_VALUE and mode != MODE_AND:
        return False
    if sign == 0:
        return bool(amount < low or amount > high)
    if sign == 1 or sign == 2:
        return bool(low > amount)
    return bool(high < amount)


@compiled
def _runs(
    ring: Ring, kept: Kept, limits: Limits, unit: int, row: int, day: int, hot: int, values: Array, codes: Array, count: int, low: int,
    high: int,
) -> bool:  # fmt: skip
    for k in range(len(limits.runs)):
        rule, bands, least = limits.runs[k], limits.bands[k], limits.runs[k, 3]
        if not limits.runs_in[k, unit] or _none_fits(rule, low, high):
            continue
        size = 0
        before = 0
        for i in range(count + 1):
            if i < count and _fits(rule[0], rule[1], rule[2], bands, values[i], codes[i]):
                if i == 0 and rule[4]:
                    before = _entering(ring, kept, limits, k, row, day, hot)
                size += 1
            else:
                if size and before + size >= least and (before < least or rule[5]):
                    return True
                size = before = 0
    return False


@compiled
def _high_low(
    ring: Ring, kept: Kept, limits: Limits, unit: int, row: int, day: int, hot: int, total: int, share: int, count: int
) -> bool:  # fmt: skip
    pos = day % hot
    for k in range(len(limits.highs)):
        if not limits.highs_in[k, unit]:
            continue
        average, found = 0.0, False
        for n in range(2):
            if found or not limits.blocks[k, n]:
                continue
            wanted = day // BLOCK - limits.blocks[k, n]
            sums: Any = 0
            days: Any = 0
            guessed: Any = 0
            newest = kept.block[row]
            if wanted >= 0 and newest - BLOCKS < wanted <= newest:
                place = wanted % BLOCKS
                sums, days, guessed = kept.sums[row, place], np.int64(kept.days[row, place]), np.int64(kept.guessed[row, place])
            if day % BLOCK < hot:
                for p in range(hot):
                    other = ring.day[row, p]
                    if other >= 0 and other // BLOCK == wanted and not (p == pos and other == day):
                        use, whole, some = _complete(ring.values[row, p], ring.conditions[row, p], ring.count[row, p])
                        if whole:
                            sums, days, guessed = sums + use, days + 1, guessed + some
            if days >= limits.blocks[k, 2] and guessed * 100 <= days * limits.blocks[k, 3]:
                average, found = np.float64(sums) / np.float64(days), True
        if not found or average <= 0 or share * 2 < count:
            continue
        use_ = np.float64(total) * np.float64(count) / np.float64(max(share, 1))
        if max(use_, average) >= limits.highs[k, 2] and (use_ > limits.highs[k, 0] * average or use_ < limits.highs[k, 1] * average):
            return True
    return False


@compiled
def _known_plain(known: Known, limits: Limits, channel: int, start: int, end: int) -> bool:
    """Whether what is known of the channel gives no rule a reason to look closer."""
    if start < known.served[channel, 0] or end > known.served[channel, 1] or (limits.inactive and known.vacant[channel]):
        return False
    if limits.multiplier and known.scaled[channel] > 0 and known.reported[channel] > 0:
        return bool(known.reported[channel] == known.multiplier[channel])
    return True


@compiled
def _ring_plain(ring: Ring, row: int, day: int, hot: int, time: int) -> bool:
    """Whether the day is the newest one or the one behind it, and the days before it lean on nothing that comes with it."""
    newest, pos = ring.newest[row], day % hot
    inside = ring.day[row, pos] == day
    if ring.tail_run[row] > 0 or (newest >= 0 and (ring.first[row] == NEVER or time < ring.first[row])):
        return False
    if inside:
        if newest != day or ring.closed[row, pos] or ring.raised[row, pos] or ring.told[row, pos] or ring.accepted[row, pos]:
            return False
    elif newest >= 0 and newest != day - 1:
        return False
    for p in range(hot):
        other = ring.day[row, p]
        if other < 0 or (inside and p == pos):
            continue
        if newest < 0 or other >= day or other < day - hot or ring.conditions[row, p, ring.count[row, p] - 1] < _OUTAGE:
            return False
        if other == day - hot and (ring.due[row, p] < NEVER or ring.accepted[row, p]):  # what is accepted of it is kept otherwise
            return False
    return True


# --- what becomes of such days --------------------------------------------------------------------------------------------------------


@compiled
def _advance(kept: Kept, row: int, block: int) -> None:
    """:meth:`streams.vee.history.History._advance` for one row."""
    newest = kept.block[row]
    if block <= newest:
        return
    step = BLOCKS if newest < 0 else min(block - newest, BLOCKS)
    for back in range(step):
        place = (block - back) % BLOCKS
        kept.sums[row, place] = 0
        kept.days[row, place] = 0
        kept.guessed[row, place] = 0
    kept.peaks[row, 1] = kept.peaks[row, 0] if step == 1 else 0
    kept.peaks[row, 0] = 0
    kept.block[row] = block


@compiled
def _archive(ring: Ring, kept: Kept, limits: Limits, row: int, pos: int) -> None:
    """:meth:`streams.vee.keeping.Keeper.leave` for the day at a place of the ring."""
    day, count, values, codes = ring.day[row, pos], ring.count[row, pos], ring.values[row, pos], ring.conditions[row, pos]
    block: Any = np.int64(day) // BLOCK
    if limits.sums:
        _advance(kept, row, block)
        total, whole, some = _complete(values, codes, count)
        if whole and block > kept.block[row] - BLOCKS:
            place = block % BLOCKS
            kept.sums[row, place] += total
            kept.days[row, place] += 1
            kept.guessed[row, place] += some
    if limits.peaks:
        _advance(kept, row, block)
        back = kept.block[row] - block
        peak = 0
        if ring.raised[row, pos] == 0:
            for i in range(len(values)):
                if codes[i] >= _REGULAR:
                    peak = max(peak, values[i], -values[i])
        if back < 2:
            kept.peaks[row, back] = max(kept.peaks[row, back], peak)
    through = ring.stored_through[row]
    for k in range(len(limits.followed)):
        tail, whole = _tail(limits.followed[k], limits.followed_bands[k], values, codes, count)
        entering = 0
        if through == day - 1:
            entering = kept.run_out[row, k]
        elif through == day:
            entering = kept.run_in[row, k]
        if day >= through:
            kept.run_in[row, k] = entering
            kept.run_out[row, k] = entering + count if whole else tail


@compiled
def _retire(ring: Ring, row: int, pos: int) -> None:
    """Notes that the day at a place of the ring is in the store; it ends with a value."""
    day, last = ring.day[row, pos], ring.count[row, pos] - 1
    ring.stored_from[row] = day if ring.stored_from[row] < 0 else min(ring.stored_from[row], day)
    ring.stored_through[row] = max(ring.stored_through[row], day)
    if ring.stored_from[row] == day:
        ring.head_gap[row] = ring.conditions[row, pos, 0] < _OUTAGE
    if ring.stored_through[row] == day:
        ring.tail_run[row] = 0
        ring.tail_value[row] = ring.values[row, pos, last]
        ring.tail_usable[row] = ring.conditions[row, pos, last] >= _ESTIMATE
    ring.day[row, pos] = NO_DAY


@compiled
def leave(ring: Ring, kept: Kept, limits: Limits, rows: Array, places: Array) -> None:
    """Has days leave the ring that nothing but newer days concerns: one of each row, and it ends with a value."""
    for k in range(len(rows)):
        row, pos = rows[k], places[k]
        _archive(ring, kept, limits, row, pos)
        _retire(ring, row, pos)
        ring.due[row, pos] = NEVER


@compiled
def _note_siblings(ring: Ring, row: int, day: int, behind: int) -> None:
    """:meth:`streams.vee.siblings.Siblings.note` for one day."""
    seen = ring.seen[row]
    newest = max(seen, day)
    step = _BITS if seen < 0 else newest - seen
    if step >= _BITS:
        ring.present[row] = 0
        ring.missed[row] = 0
    elif step > 0:
        kept = (np.int64(1) << (_BITS - step)) - 1
        ring.present[row] = (ring.present[row] & kept) << step
        ring.missed[row] = (ring.missed[row] & kept) << step
    ring.seen[row] = newest
    if newest - day < _BITS:
        ring.present[row] |= np.int64(1) << (newest - day)
        ring.pair_due[row] = min(ring.pair_due[row], behind)


@compiled
def _copy(target: Array, source: Array) -> None:
    for i in range(len(target)):
        target[i] = source[i]


@compiled
def _merge(parts: Parts, ring: Ring, k: int, inside: bool, values: Array, codes: Array) -> bool:
    """A part together with what the ring holds of its day; False where something stood in its place."""
    row, slot, source, size, pos = parts.row[k], parts.slot[k], parts.source[k], parts.size[k], parts.day[k] % ring.day.shape[1]
    free = True
    if inside:
        _copy(values, ring.values[row, pos])
        _copy(codes, ring.conditions[row, pos])
        for i in range(slot, slot + size):
            free = free and codes[i] == 0
    else:
        for i in range(len(values)):
            values[i] = 0
        for i in range(len(codes)):
            codes[i] = 0
    _copy(values[slot : slot + size], parts.values[source : source + size])
    _copy(codes[slot : slot + size], parts.codes[source : source + size])
    return free


@compiled
def _glance(values: Array, codes: Array, count: int) -> tuple[Any, ...]:
    """Lowest and highest condition, lowest and highest value, how many slots have any, and the newest of these."""
    worst, best, low, high = np.uint16(65_535), np.uint16(0), values[0], values[0]
    own, amounts = codes[:count], values[:count]
    for i in range(len(own)):
        worst, best = min(worst, own[i]), max(best, own[i])
    for i in range(len(amounts)):
        low, high = min(low, amounts[i]), max(high, amounts[i])
    usable, newest = count, count - 1
    if worst == 0:
        usable, newest, worst = 0, -1, np.uint16(65_535)
        for i in range(len(own)):
            if own[i]:
                usable, newest, worst = usable + 1, i, min(worst, own[i])
    return np.int64(worst), np.int64(best), low, high, usable, newest


@compiled
def _sums(values: Array, codes: Array, count: int, even: bool, weights: Array, through: Array) -> tuple[int, int, np.uint64]:
    """The total, that of magnitudes, and the fingerprint of values and conditions; ``even``: all slots have one condition.

    Slots without a condition hold zero.
    """
    total, size, digest = 0, 0, np.uint64(0)
    amounts, first, second = values[:count], weights[0, :count], weights[1, :count]
    for i in range(len(amounts)):
        total += amounts[i]
        size += abs(amounts[i])
        digest += np.uint64(amounts[i]) * first[i]
    if even:
        return total, size, digest + np.uint64(np.int64(codes[0]) * 100) * through[count]
    for i in range(len(second)):
        digest += np.uint64(np.int64(codes[i]) * 100) * second[i]
    return total, size, digest


@compiled
def _third(values: Array, codes: Array, count: int) -> int:
    """The third highest magnitude, -1 where there are fewer."""
    top, second, third = -1, -1, -1
    for i in range(count):
        value = abs(values[i])
        if codes[i] and value > third:
            if value > top:
                top, second, third = value, top, second
            elif value > second:
                second, third = value, second
            else:
                third = value
    return third


@compiled
def _speaks(
    ring: Ring, kept: Kept, known: Known, limits: Limits, row: int, day: int, values: Array, codes: Array, count: int, whole: bool,
    usable: int, low: int, high: int, total: int, size: int,
) -> bool:  # fmt: skip
    """Whether a rule might have something to say of a day of measured values."""
    hot, channel = ring.day.shape[1], ring.channel[row]
    unit = known.unit[channel]
    if low < 0 and limits.negative_in[unit, np.int64(known.negative[channel] > 0)]:
        return True
    if _spikes(limits.spikes, values, codes, count, usable, max(high, -low), size):
        return True
    if whole:
        for n in range(len(limits.zeros)):
            if limits.zeros_in[n, unit] and abs(total) <= limits.zeros[n]:
                return True
        if _high_low(ring, kept, limits, unit, row, day, hot, total, usable, count):
            return True
    return bool(_runs(ring, kept, limits, unit, row, day, hot, values, codes, count, low, high))


# --- days with flaws ------------------------------------------------------------------------------------------------------------------


@compiled
def _tell(found: Found, limits: Limits, n: int, rule: int, number: int, first: int, last: int, amount: int, slot: int, third: int) -> None:
    """Adds a finding of the day at ``n``; see :meth:`streams.vee.days.Days._compare` for the mark."""
    severity, at = limits.flaws.severities[rule], found.size[1]
    found.of[at], found.rule[at], found.number[at], found.first[at], found.last[at] = n, rule, number, first, last
    found.amount[at], found.slot[at], found.third[at] = amount, slot, third
    bit = _BITS_OF[rule]
    mark = bit + number * 7919 + first * 104_729 + last * 1_299_709 + severity * 32_452_843
    found.told[n] = (found.told[n] * 31 + mark) & 0x7FFFFFFF
    found.raised[n] |= bit
    found.size[1] = at + 1


@compiled
def _received(found: Found, n: int, values: Array, codes: Array, count: int) -> tuple[int, int, int, int, bool]:
    """The day as received, without unusable values: lowest, highest, how many are measured, how many are gaps; whether that is all."""
    final, lowered, methods = found.values[n], found.codes[n], found.methods[n]
    low, high, measured, gaps, plain = 0, 0, 0, 0, True
    for i in range(len(final)):
        final[i] = values[i] if codes[i] >= _OUTAGE else 0
        lowered[i] = codes[i]
        methods[i] = 0
        low, high = min(low, final[i]), max(high, final[i])
    for i in range(count):
        gaps += 0 < codes[i] < _OUTAGE
        measured += _REGULAR <= codes[i] < _BEHIND
        plain = plain and (codes[i] < _OUTAGE or _REGULAR <= codes[i] < _BEHIND)
    return low, high, measured, gaps, plain and high <= CEILING and low >= -CEILING


@compiled
def _negatives(found: Found, limits: Limits, n: int, count: int, low: int) -> None:
    """:func:`streams.vee.rules.negative_consumption.negative_consumption` for one day."""
    final, lowered, issue = found.values[n], found.codes[n], limits.flaws.severities[0] == 1
    number, first, last = 0, 0, 0
    for i in range(count):
        if final[i] < 0:
            first = i if number == 0 else first
            number, last = number + 1, i
            if issue:
                lowered[i] = _SUSPECT
    _tell(found, limits, n, 0, number, first, last, low, 0, 0)
    found.edited[n] = found.edited[n] or issue


@compiled
def _stands_out(found: Found, limits: Limits, n: int, count: int, measured: int) -> None:
    """:func:`streams.vee.rules.interval_spike.interval_spike` for one day of measured values and gaps."""
    final, lowered, issue = found.values[n], found.codes[n], limits.flaws.severities[1] == 1
    percent, least, floor = limits.spikes[0, 0], limits.spikes[0, 1], limits.spikes[0, 2]
    if measured < least:
        return
    top, second, third, peak = -1, -1, -1, 0
    for i in range(count):
        value = abs(final[i])
        if lowered[i] >= _ESTIMATE and value > third:
            if value > top:
                top, second, third, peak = value, top, second, i
            elif value > second:
                second, third = value, second
            else:
                third = value
    limit = max(floor, third + third * percent // 100)
    if top <= limit:
        return
    number, first, last = 0, 0, 0
    for i in range(count):
        if lowered[i] >= _ESTIMATE and abs(final[i]) > limit:
            first = i if number == 0 else first
            number, last = number + 1, i
            if issue:
                lowered[i] = _SUSPECT
    _tell(found, limits, n, 1, number, first, last, final[peak], peak, third)
    found.edited[n] = found.edited[n] or issue


@compiled
def _running(left: int, right: int, k: int, parts: int) -> int:
    """As in rules/interval_interpolation.py."""
    return k * left + ((right - left) * k * (k + 1) + parts) // (2 * parts)


@compiled
def _fill(found: Found, limits: Limits, n: int, count: int) -> bool:
    """:func:`streams.vee.rules.interval_interpolation.interval_interpolation` for gaps inside a day; False where one is left."""
    final, lowered, methods = found.values[n], found.codes[n], found.methods[n]
    first = -1
    for i in range(count):
        if lowered[i] < _OUTAGE:
            first = i if first < 0 else first
        elif first >= 0:
            left, right, parts = final[first - 1], final[i], i - first + 1
            if parts - 1 > limits.flaws.max_gap or parts >= _LONGEST_GAP or max(abs(left), abs(right)) >= _SAFE:
                return False
            for k in range(1, parts):
                final[first + k - 1] = _running(left, right, k, parts) - _running(left, right, k - 1, parts)
                lowered[first + k - 1] = limits.flaws.estimate
                methods[first + k - 1] = _INTERPOLATED
            first = -1
    return True


@compiled
def _flawed(
    ring: Ring, kept: Kept, known: Known, limits: Limits, found: Found, row: int, day: int, values: Array, codes: Array, count: int,
    whole: bool,
) -> bool:  # fmt: skip
    """Whether a day has no flaws but those that are answered here; its outcome then stands in ``found``, behind those that count."""
    flaws, n, channel, hot = limits.flaws, found.size[0], ring.channel[row], ring.day.shape[1]
    unit = known.unit[channel]
    if not flaws.open or n == len(found.part):
        return False
    low, high, measured, gaps, plain = _received(found, n, values, codes, count)
    if not plain or measured == 0:
        return False
    if gaps and not (whole and measured + gaps == count and flaws.max_gap and codes[0] >= _OUTAGE and codes[count - 1] >= _OUTAGE):
        return False
    found.told[n], found.raised[n], found.edited[n] = 0, 0, gaps > 0
    if low < 0 and limits.negative_in[unit, np.int64(known.negative[channel] > 0)]:
        _negatives(found, limits, n, count, low)
    if len(limits.spikes):
        _stands_out(found, limits, n, count, measured)
    final, lowered = found.values[n], found.codes[n]
    if _runs(ring, kept, limits, unit, row, day, hot, final, lowered, count, low, high) or not _fill(found, limits, n, count):
        return False
    total = 0
    for i in range(count):
        total += final[i]
    if whole:
        idle = len(limits.zeros) > 0 and limits.zeros_in[0, unit] and abs(total) <= limits.zeros[0] and measured + gaps == count
        if idle and not flaws.exempt[known.direction[channel]]:
            _tell(found, limits, n, 2, count, 0, count - 1, 0, 0, 0)
        if _high_low(ring, kept, limits, unit, row, day, hot, total, measured + gaps, count):
            return False
    return True


@compiled
def _seal(found: Found, limits: Limits, begun: int, whole: bool, values: Array, codes: Array, weights: Array) -> np.uint64:
    """Sets the state of the day behind those that count, and returns its fingerprint: :func:`streams.vee.days._digest` for one day."""
    n, issue = found.size[0], False
    for at in range(begun, found.size[1]):
        issue = issue or limits.flaws.severities[found.rule[at]] == 1
    found.state[n] = (EXCEPTION if issue else FINALIZED) if whole else OPEN
    digest, unseen = np.uint64(found.state[n]) * _STATE, np.uint64(0)
    for i in range(len(values)):
        digest += np.uint64(found.values[n, i]) * weights[0, i]
        digest += np.uint64(np.int64(found.codes[n, i]) * 100) * weights[1, i]
        unseen += np.uint64(values[i]) * weights[1, i]
        unseen += np.uint64(codes[i]) * weights[0, i]
    return digest ^ (unseen * _UNSEEN) if found.edited[n] else digest


@compiled
def _put(
    ring: Ring, kept: Kept, limits: Limits, row: int, day: int, inside: bool, whole: bool, count: int, end: int, measured: int,
    now: int, clock: int, version: int, digest: np.uint64, raised: int, told: int, values: Array, codes: Array, fresh: bool,
) -> bool:  # fmt: skip
    """Writes a day into the ring; returns whether another one left it. ``fresh``: reads came for it now."""
    pos = day % ring.day.shape[1]
    leaves = not inside and ring.day[row, pos] >= 0
    if leaves:
        _archive(ring, kept, limits, row, pos)
        _retire(ring, row, pos)
    ring.newest[row] = max(ring.newest[row], day)
    ring.actual[row] = max(ring.actual[row], measured)
    if fresh and limits.sibling_wait >= 0:
        _note_siblings(ring, row, day, end + limits.sibling_wait)
    ring.due[row, pos] = NEVER if whole else end + limits.lateness
    ring.touched[row, pos] = max(ring.touched[row, pos] if inside else 0, now)
    ring.day[row, pos], ring.count[row, pos], ring.closed[row, pos] = day, count, 0
    ring.version[row, pos], ring.digest[row, pos] = version, np.int64(digest)
    ring.raised[row, pos], ring.told[row, pos], ring.accepted[row, pos] = raised, told, 0
    ring.published[row, pos], ring.held[row, pos] = clock, 0
    _copy(ring.values[row, pos], values)
    _copy(ring.conditions[row, pos], codes)
    return leaves


@compiled
def sift(
    parts: Parts, ring: Ring, kept: Kept, known: Known, limits: Limits, often: Array, weights: Array, seconds: int, now: int,
    clock: int, version: int, clean: Array, counts: Array, replaces: Array, states: Array, left: Array, found: Found,
    values: Array, codes: Array, through: Array,
) -> int:  # fmt: skip
    """Takes the parts of days that can be decided here; returns how many these are. Parts without slots stand for days that are held.

    ``often`` is room for a number per ring row, all zero: only channels with one part are looked at. ``weights`` (2, slots) are those of
    the fingerprint. Written of each part: ``clean`` (1: taken, no rule can speak; 2: taken, the day is in ``found``), ``counts``,
    ``replaces``, ``states``, ``left`` (a day left the ring).
    """
    hot, width = ring.day.shape[1], ring.values.shape[2]
    for i in range(width):
        through[i + 1] = through[i] + weights[1, i]
    for row in parts.row:
        often[row] += 1
    taken = 0
    for k in range(len(parts.row)):
        row, day = parts.row[k], parts.day[k]
        if parts.barred[k] or often[row] != 1 or not _ring_plain(ring, row, day, hot, parts.time[k]):
            continue
        pos, inside = day % hot, ring.day[row, day % hot] == day
        if parts.size[k] < 1 and not inside:
            continue
        count = max(1, (parts.end[k] - parts.midnight[k]) // seconds)
        start = parts.midnight[k] + max(ring.phase[row], 0)
        if parts.slot[k] + parts.size[k] > count or not _known_plain(known, limits, ring.channel[row], start, start + count * seconds):
            continue
        if not _merge(parts, ring, k, inside, values, codes):
            continue
        worst, best, low, high, usable, newest = _glance(values, codes, count)
        first = min(ring.first[row], parts.time[k])
        whole = usable == count
        if not whole:
            whole = True
            for i in range(min(max((first - parts.midnight[k]) // seconds, 0), count), count):
                whole = whole and codes[i] > 0
        plain = worst >= _REGULAR and best < _BEHIND and high <= CEILING and low >= -CEILING
        digest, raised, told, begun = np.uint64(0), 0, 0, found.size[1]
        if plain:
            total, size, digest = _sums(values, codes, count, usable == count and worst == best, weights, through)
            plain = not _speaks(ring, kept, known, limits, row, day, values, codes, count, whole, usable, low, high, total, size)
        if plain:
            state = FINALIZED if whole else OPEN
            digest += np.uint64(state) * _STATE
        elif _flawed(ring, kept, known, limits, found, row, day, values, codes, count, whole):
            digest = _seal(found, limits, begun, whole, values, codes, weights)
            state, raised, told = found.state[found.size[0]], found.raised[found.size[0]], found.told[found.size[0]]
        else:
            found.size[1] = begun
            continue
        if inside and ring.digest[row, pos] == np.int64(digest):
            found.size[1] = begun
            continue
        if not plain:
            found.part[found.size[0]] = k
            found.size[0] += 1
        taken += 1
        clean[k], counts[k], states[k], replaces[k] = 1 if plain else 2, count, state, ring.version[row, pos] if inside else 0
        ring.first[row], ring.last[row] = first, max(ring.last[row], parts.time[k] + (parts.size[k] - 1) * seconds)
        ring.oldest[row] = day if ring.oldest[row] < 0 else min(ring.oldest[row], day)
        measured = parts.end[k] - (count - 1 - newest) * seconds
        left[k] = _put(
            ring, kept, limits, row, day, inside, whole, count, parts.end[k], measured, now, clock, version, digest, raised, told,
            values, codes, parts.size[k] > 0,
        )  # fmt: skip
    for row in parts.row:
        often[row] = 0
    return taken


# --- open days that were published a moment ago -----------------------------------------------------------------------------------------


@compiled
def _actual(code: int) -> bool:
    """As in :func:`streams.vee.past.measured_until`."""
    return bool(code >= _REGULAR or _OUTAGE <= code < _ESTIMATE)


@compiled
def _waits(parts: Parts, ring: Ring, k: int, clock: int, span: int) -> bool:
    """Whether a part fills empty slots of its channel's newest day, which is open and to be published later."""
    row, day, hot = parts.row[k], parts.day[k], ring.day.shape[1]
    pos, slot, size = day % hot, parts.slot[k], parts.size[k]
    if ring.day[row, pos] != day or ring.newest[row] != day or ring.version[row, pos] == 0 or ring.due[row, pos] >= NEVER:
        return False
    if clock >= ring.published[row, pos] + span or ring.closed[row, pos] or ring.accepted[row, pos] or ring.tail_run[row] > 0:
        return False
    if size < 1 or parts.time[k] < ring.first[row] or slot + size > ring.count[row, pos]:
        return False
    for p in range(hot):
        other = ring.day[row, p]
        if p != pos and other >= 0 and (other >= day or ring.conditions[row, p, ring.count[row, p] - 1] < _OUTAGE):
            return False
    codes, held = parts.codes[parts.source[k] : parts.source[k] + size], ring.conditions[row, pos, slot : slot + size]
    fits = True
    for i in range(len(codes)):
        fits = fits and held[i] == 0 and 0 < codes[i] < _BEHIND
    return fits


@compiled
def gather(
    parts: Parts, ring: Ring, often: Array, seconds: int, now: int, clock: int, span: int, sibling_wait: int, taken: Array
) -> int:  # fmt: skip
    """Merges the parts of open days that are to be published ``span`` after they last were; returns until when all of these are.

    ``often`` as for :func:`sift`; ``taken``: a part was merged. Nothing is decided: the tick that comes then decides the day as it is.
    """
    hot, until = ring.day.shape[1], 0
    for row in parts.row:
        often[row] += 1
    for k in range(len(parts.row)):
        row = parts.row[k]
        if parts.barred[k] or often[row] != 1 or not _waits(parts, ring, k, clock, span):
            continue
        pos, slot, source, size = parts.day[k] % hot, parts.slot[k], parts.source[k], parts.size[k]
        _copy(ring.values[row, pos, slot : slot + size], parts.values[source : source + size])
        _copy(ring.conditions[row, pos, slot : slot + size], parts.codes[source : source + size])
        behind = slot + size  # of the newest measured slot or outage
        while behind > slot and not _actual(ring.conditions[row, pos, behind - 1]):
            behind -= 1
        if behind > slot:
            ring.actual[row] = max(ring.actual[row], parts.end[k] - (ring.count[row, pos] - behind) * seconds)
        ring.last[row] = max(ring.last[row], parts.time[k] + (size - 1) * seconds)
        ring.touched[row, pos] = max(ring.touched[row, pos], now)
        if sibling_wait >= 0:
            _note_siblings(ring, row, parts.day[k], parts.end[k] + sibling_wait)
        ring.held[row, pos], taken[k] = 1, True
        until = max(until, ring.published[row, pos] + span)
    for row in parts.row:
        often[row] = 0
    return until


@compiled
def spread(target: Array, offset: Array, matrix: Array, rows: Array, counts: Array, factor: int) -> None:
    """Puts the first ``counts`` cells of rows of a matrix, times ``factor``, to their places in a flat column."""
    for k in range(len(rows)):
        cells, part = matrix[rows[k]], target[offset[k] : offset[k] + counts[k]]
        if factor == 1:
            for i in range(len(part)):
                part[i] = cells[i]
        else:
            for i in range(len(part)):
                part[i] = cells[i] * factor
