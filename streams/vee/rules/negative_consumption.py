"""negative-consumption: use below zero where the channel does not allow it."""

from __future__ import annotations

import numpy as np

from schemas import conditions
from schemas.topology.vee import NegativeConsumption
from streams.vee.batch import DayBatch, Findings, from_slots
from streams.vee.rules.totals import day_totals


def negative_consumption(batch: DayBatch, rule: NegativeConsumption) -> Findings:
    """Each negative interval, v < 0, or all intervals of a day whose total is negative, Σ v < 0.

    Not judged: channels that master data allow negative values (unless ``even_if_allowed``), quantities that are no consumption, and
    values a person has set. What fails becomes suspect. Source: negative consumption check of the domain.
    """
    judged = batch.attributes.quantity_in(rule.quantities)
    if not rule.even_if_allowed:
        judged = judged & ~batch.attributes.allow_negative
    bad = batch.values < 0
    if not bad.any():
        judged = np.zeros_like(judged)
    if rule.per == "day":
        bad = batch.valued
        judged = judged & (day_totals(batch) < 0)
    bad = bad & judged[:, None] & (batch.conditions < conditions.USER_EDIT)  # not what a person has decided

    def say(row: int, count: int) -> str:
        if rule.per == "day":
            total = sum(batch.values[row].tolist())
            return f"the day's total is {batch.amount(row, total)}, and the channel does not allow negative consumption"
        return words(batch, row, count, int(batch.values[row][bad[row]].min()))

    return from_slots("negative-consumption", bad, say)


def words(batch: DayBatch, row: int, count: int, low: int) -> str:
    """What is said of negative intervals."""
    return f"{count} negative {'interval' if count == 1 else 'intervals'}, the lowest {batch.amount(row, low)}"
