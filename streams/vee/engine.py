"""Runs the rules of a group over a batch, in order, with the severities' meaning.

info: told, nothing else. issue: told, all remaining rules still run; the failed intervals become suspect. terminate: told, and the
row's remaining rules do not run.
"""

from __future__ import annotations

import numpy as np

from schemas import conditions
from schemas.block import DIRECTIONS
from schemas.topology.vee import Group, RuleSettings
from streams.vee.batch import DayBatch, Findings, Mask
from streams.vee.rules import ESTIMATIONS, VALIDATIONS


def run(group: Group, batch: DayBatch) -> list[Findings]:
    """All findings of the group's day rules; the batch holds the final values afterwards."""
    found: list[Findings] = []
    if not len(batch):
        return found
    for rule in group.rules:
        if rule.id in ESTIMATIONS:
            ESTIMATIONS[rule.id](batch, rule, applies(rule, batch))
        elif rule.id in VALIDATIONS:
            findings = VALIDATIONS[rule.id](batch, rule)
            if len(findings.rows):
                findings.severity = rule.severity
                findings = findings.keep(applies(rule, batch))
            if len(findings.rows):
                _consequences(batch, findings)
                found.append(findings)
    return found


def applies(rule: RuleSettings, batch: DayBatch) -> Mask:
    """Rows whose day lies in the rule's effective period, whose channel is eligible and which no finding has ended."""
    first, behind = rule.days
    wanted = ~batch.ended
    if first > 0 or behind < 1 << 30:
        wanted &= (batch.day >= first) & (batch.day < behind)
    if rule.eligibility:
        wanted &= _eligible(rule, batch)
    return wanted


def _eligible(rule: RuleSettings, batch: DayBatch) -> Mask:
    allowed = np.full(len(batch), rule.otherwise == "apply")
    open_ = np.ones(len(batch), np.bool_)
    for step in rule.eligibility:
        fits = open_.copy()
        if step.quantities:
            fits &= batch.attributes.quantity_in(step.quantities)
        if step.units:
            fits &= batch.attributes.unit_in(step.units)
        if step.directions:
            fits &= np.isin(batch.attributes.direction, [DIRECTIONS.index(name) for name in step.directions])
        if step.seconds and batch.seconds not in step.seconds:
            fits[:] = False
        allowed[fits] = step.then == "apply"
        open_ &= ~fits
    return allowed


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
