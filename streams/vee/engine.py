"""Runs the rules of a group over a batch, in order, with the severities' meaning.

info: told, nothing else. issue: told, all remaining rules still run; the failed intervals become suspect. terminate: told, and the
row's remaining rules do not run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from schemas import conditions
from schemas.rules import BIT
from schemas.topology.vee import ExceptionHandler, ExecuteGroup, Group, GroupMatrix, RuleSettings, SuccessfulTermination
from streams.vee.batch import DayBatch, Findings, Mask
from streams.vee.eligibility import applies, fits
from streams.vee.groups import Parts
from streams.vee.rules import ESTIMATIONS, VALIDATIONS


def run(groups: Group | Parts, batch: DayBatch, named: Mapping[str, Group] | None = None) -> list[Findings]:
    """All findings of the groups' day rules; the batch holds the final values afterwards. ``named``: groups that others run inside them."""
    found: list[Findings] = []
    if len(batch):
        for group, rows in [(groups, None)] if isinstance(groups, Group) else groups:
            _run(group, batch, rows, named or {}, found)
    return found


def _run(group: Group, batch: DayBatch, rows: Mask | None, named: Mapping[str, Group], found: list[Findings]) -> None:
    for rule in group.rules:
        if isinstance(rule, ExecuteGroup):
            _run(named[rule.group], batch, applies(rule, batch, rows), named, found)
        elif isinstance(rule, GroupMatrix):
            for name, chosen in _chosen(rule, batch, applies(rule, batch, rows)):
                _run(named[name], batch, chosen, named, found)
        elif isinstance(rule, ExceptionHandler | SuccessfulTermination):
            _decide(rule, batch, applies(rule, batch, rows), found)
        else:
            _apply(rule, batch, rows, found)


def _apply(rule: RuleSettings, batch: DayBatch, rows: Mask | None, found: list[Findings]) -> None:
    if rule.id in ESTIMATIONS:
        trouble = ESTIMATIONS[rule.id](batch, rule, applies(rule, batch, rows))
        if trouble is not None:
            trouble.severity = rule.severity
            _consequences(batch, trouble)
            found.append(trouble)
    elif rule.id in VALIDATIONS:
        for findings in as_list(VALIDATIONS[rule.id](batch, rule)):
            if len(findings.rows):
                findings.severity = findings.severity or rule.severity
                kept = findings.keep(applies(rule, batch, rows))
                if len(kept.rows):
                    _consequences(batch, kept)
                    found.append(kept)


def _chosen(rule: GroupMatrix, batch: DayBatch, rows: Mask) -> Iterator[tuple[str, Mask]]:
    """The group of the first line of a matrix that fits each row."""
    for line in rule.matrix:
        first, behind = line.days
        chosen = rows & fits(line, batch) & (batch.day >= first) & (batch.day < behind)
        if chosen.any():
            yield line.group, chosen
        rows = rows & ~chosen
    if rule.default is not None and rows.any():
        yield rule.default, rows


def _decide(rule: ExceptionHandler | SuccessfulTermination, batch: DayBatch, rows: Mask, found: list[Findings]) -> None:
    """Ends rows by what has been found of them so far."""
    listed, others = np.zeros(len(batch), np.int64), np.zeros(len(batch), np.bool_)
    for findings in found:
        if findings.rule in rule.exceptions:
            listed[findings.rows] |= BIT[findings.rule]
        else:
            others[findings.rows] = True
    if isinstance(rule, SuccessfulTermination):
        batch.settled |= rows & ~others & ((listed > 0) | rule.without_any)
        return
    number = np.array([bits.bit_count() for bits in listed.tolist()], np.int64)
    batch.ended |= rows & (number >= rule.at_least)


def as_list(findings: Findings | list[Findings]) -> list[Findings]:
    """What a rule found, whether of one severity or of several."""
    return findings if isinstance(findings, list) else [findings]


def _consequences(batch: DayBatch, findings: Findings) -> None:
    if findings.severity == "info":
        return
    if findings.severity == "terminate":
        batch.ended[findings.rows] = True
    if findings.failed is not None:
        rows, slots = findings.failed
        codes = batch.conditions[rows, slots]
        lowered = (codes > conditions.SUSPECT) & (codes < conditions.USER_EDIT)
        batch.conditions[rows[lowered], slots[lowered]] = conditions.SUSPECT
        batch.edited[rows[lowered]] = True
