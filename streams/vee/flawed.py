"""Days with flaws that the compiled pass has decided, put as :meth:`streams.vee.days.Days.decide` would have put them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np

from schemas.topology.vee import Group
from streams.vee import kernel
from streams.vee.batch import Attributes, DayBatch, Edges, Findings, Ints
from streams.vee.channels import Channels
from streams.vee.clean import Flawed
from streams.vee.days import Decided, code_of
from streams.vee.merging import STEP
from streams.vee.rules.interval_spike import words as words_of_spike
from streams.vee.rules.negative_consumption import words as words_of_negative
from streams.vee.rules.zero_consumption import WORDS


def outcome(decided: Decided | None, flawed: Flawed | None, channels: Channels, group: Group) -> Decided | None:
    """What was decided on both ways as one: findings in the order of the group's rules, those of a rule in the order of the days."""
    if flawed is None:
        return decided
    batch = _batch(flawed, channels)
    severity = {rule.id: rule.severity for rule in group.rules if rule.id in kernel.FLAWS}
    findings = [
        _findings(flawed, batch, number, name, severity[name]) for number, name in enumerate(kernel.FLAWS) if (flawed.rule == number).any()
    ]
    rows, received = np.arange(len(flawed)), (flawed.received, flawed.received_codes)
    short = Decided(
        batch, flawed.channel, findings, rows, flawed.state, flawed.replaces, received, flawed.edited, {}, flawed.told != 0, [],
        np.zeros(len(flawed), np.int64),
    )  # fmt: skip
    return short if decided is None else _together(decided, short, group)


def _batch(flawed: Flawed, channels: Channels) -> DayBatch:
    none, size = np.zeros(len(flawed), np.bool_), len(flawed)
    nothing = np.zeros((size, 0), np.bool_)  # no rule will look at these days again
    batch = DayBatch(
        flawed.seconds, flawed.values, flawed.codes.astype(np.int32) * STEP, flawed.methods, nothing, nothing, none, flawed.counts,
        flawed.day, flawed.start, channels.attributes(flawed.channel), Edges.none(size), Edges.none(size), flawed.edited,
    )  # fmt: skip
    batch.codes = code_of(flawed.row, flawed.day)
    return batch


def _findings(flawed: Flawed, batch: DayBatch, number: int, rule: str, severity: str) -> Findings:
    at = np.flatnonzero(flawed.rule == number)
    rows = flawed.of[at]

    def say(k: int) -> str:
        row, which = int(rows[k]), int(at[k])
        count, amount = int(flawed.number[which]), int(flawed.amount[which])
        if rule == "negative-consumption":
            return words_of_negative(batch, row, count, amount)
        if rule == "interval-spike":
            return words_of_spike(batch, row, amount, int(flawed.slot[which]), int(flawed.third[which]))
        return WORDS.format(count)

    return Findings(rule, rows, flawed.number[at], flawed.first[at], flawed.last[at], say, severity)


# --- both ways together ----------------------------------------------------------------------------------------------------------------


def _together(long: Decided, short: Decided, group: Group) -> Decided:
    """The rows of the long way keep their numbers; those of the short one come behind them."""
    behind, cells = len(long.channel), ("values", "conditions", "methods", "counts", "day", "start")
    attributes = _attributes(long.batch.attributes, short.batch.attributes)
    batch = replace(short.batch, attributes=attributes, **{name: _joined(long.batch, short.batch, name) for name in cells})
    batch.codes = _joined(long.batch, short.batch, "codes")
    emit = np.concatenate([long.emit, short.emit + behind])
    order = np.argsort(batch.codes[emit])
    return replace(
        long, batch=batch, emit=emit[order], replaces=_joined(long, short, "replaces")[order],
        findings=_in_order(long.findings, short.findings, behind, batch.codes, [rule.id for rule in group.rules]),
        received=(np.concatenate([long.received[0], short.received[0]]), np.concatenate([long.received[1], short.received[1]])),
        **{name: _joined(long, short, name) for name in ("channel", "state", "hidden", "told", "accepted")},
    )  # fmt: skip


def _joined(long: Any, short: Any, name: str) -> Any:
    return np.concatenate([getattr(long, name), getattr(short, name)])


def _attributes(long: Attributes, short: Attributes) -> Attributes:
    columns = {f.name: _joined(long, short, f.name) for f in fields(Attributes) if isinstance(getattr(long, f.name), np.ndarray)}
    return replace(short, **columns)


def _in_order(long: list[Findings], short: list[Findings], behind: int, codes: Ints, order: list[str]) -> list[Findings]:
    """Events first, then findings by their rule's place in the group."""
    found = list(long)
    for one in short:
        one.rows = one.rows + behind
        rank = order.index(one.rule)
        at = next((k for k, other in enumerate(found) if not other.event and order.index(other.rule) >= rank), len(found))
        same = at < len(found) and found[at].rule == one.rule and not found[at].event
        found[at : at + same] = [_merged(found[at], one, codes)] if same else [one]
    return found


def _merged(long: Findings, short: Findings, codes: Ints) -> Findings:
    """Findings of one rule from both ways."""
    rows = np.concatenate([long.rows, short.rows])
    place = np.argsort(codes[rows], kind="stable")
    says: list[Callable[[], str]] = [
        *((lambda k=k: long.say(k)) for k in range(len(long.rows))), *((lambda k=k: short.say(k)) for k in range(len(short.rows)))  # type: ignore[misc]
    ]  # fmt: skip
    cut = (np.concatenate([getattr(long, name), getattr(short, name)])[place] for name in ("count", "first", "last"))
    return Findings(long.rule, rows[place], *cut, lambda k: says[int(place[k])](), long.severity)
