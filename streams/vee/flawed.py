"""Days with flaws that the compiled pass has decided, put as :meth:`streams.vee.days.Days.decide` would have put them."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np

from schemas.topology.vee import RuleSettings
from streams.vee import kernel
from streams.vee.batch import Attributes, DayBatch, Edges, Findings, Ints, Mask
from streams.vee.channels import Channels
from streams.vee.clean import Flawed
from streams.vee.days import Decided, code_of
from streams.vee.groups import Groups
from streams.vee.merging import STEP
from streams.vee.rules.interval_spike import words as words_of_spike
from streams.vee.rules.negative_consumption import words as words_of_negative
from streams.vee.rules.zero_consumption import WORDS


def outcome(decided: Decided | None, flawed: Flawed | None, channels: Channels, groups: Groups) -> Decided | None:
    """What was decided on both ways as one: findings in the order of the group's rules, those of a rule in the order of the days."""
    if flawed is None:
        return decided
    batch = _batch(flawed, channels)
    severity: dict[str, str] = {rule.id: rule.severity for rule in groups.initial.rules if isinstance(rule, RuleSettings)}
    findings = [
        _findings(flawed, batch, number, name, severity[name]) for number, name in enumerate(kernel.FLAWS) if (flawed.rule == number).any()
    ]
    rows, received = np.arange(len(flawed)), (flawed.received, flawed.received_codes)
    short = Decided(
        batch, flawed.channel, findings, rows, flawed.state, flawed.replaces, received, flawed.edited, {}, flawed.told != 0, [],
        np.zeros(len(flawed), np.int64),
    )  # fmt: skip
    return short if decided is None else _together(decided, short, groups)


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


def _together(long: Decided, short: Decided, groups: Groups) -> Decided:
    """The rows of the long way keep their numbers; those of the short one come behind them."""
    behind, cells = len(long.channel), ("values", "conditions", "methods", "counts", "day", "start")
    attributes = _attributes(long.batch.attributes, short.batch.attributes)
    batch = replace(short.batch, attributes=attributes, **{name: _joined(long.batch, short.batch, name) for name in cells})
    batch.codes = _joined(long.batch, short.batch, "codes")
    emit = np.concatenate([long.emit, short.emit + behind])
    order = np.argsort(batch.codes[emit])
    return replace(
        long, batch=batch, emit=emit[order], replaces=_joined(long, short, "replaces")[order],
        findings=_in_order(long, short.findings, batch.codes, groups),
        received=(np.concatenate([long.received[0], short.received[0]]), np.concatenate([long.received[1], short.received[1]])),
        **{name: _joined(long, short, name) for name in ("channel", "state", "hidden", "told", "accepted")},
    )  # fmt: skip


def _joined(long: Any, short: Any, name: str) -> Any:
    return np.concatenate([getattr(long, name), getattr(short, name)])


def _attributes(long: Attributes, short: Attributes) -> Attributes:
    columns = {f.name: _joined(long, short, f.name) for f in fields(Attributes) if isinstance(getattr(long, f.name), np.ndarray)}
    return replace(short, **columns)


def _in_order(long: Decided, short: list[Findings], codes: Ints, groups: Groups) -> list[Findings]:
    """Events first, then findings by their rule's place in the group, then those of days of other roles."""
    found, behind = list(long.findings), len(long.channel)
    order: list[str] = [rule.id for rule in groups.initial.rules]
    initial = groups.initial_load(long.received[1])
    for one in short:
        one.rows, rank, at = one.rows + behind, order.index(one.rule), 0
        while at < len(found) and (found[at].event or (_of(found[at], initial) and order.index(found[at].rule) < rank)):
            at += 1
        same = at < len(found) and _of(found[at], initial) and found[at].rule == one.rule
        found[at : at + same] = [_merged(found[at], one, codes)] if same else [one]
    return found


def _of(found: Findings, rows: Mask) -> bool:
    """Whether a finding, whose days are all of one role, is of these rows; days of the short way are of initial load."""
    return bool(found.rows[0] >= len(rows) or rows[found.rows[0]])


def _merged(long: Findings, short: Findings, codes: Ints) -> Findings:
    """Findings of one rule from both ways."""
    rows, size = np.concatenate([long.rows, short.rows]), len(long.rows)
    place = np.argsort(codes[rows], kind="stable")

    def say(k: int) -> str:
        at = int(place[k])
        return long.say(at) if at < size else short.say(at - size)

    count, first, last = (np.concatenate([getattr(long, name), getattr(short, name)])[place] for name in ("count", "first", "last"))
    return Findings(long.rule, rows[place], count, first, last, say, long.severity)
