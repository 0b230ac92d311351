"""missing-quantity: intervals that still have no value. Place it behind all estimations."""

from __future__ import annotations

import numpy as np

from schemas import conditions
from schemas.topology.vee import MissingQuantity
from streams.vee.batch import DayBatch, Findings, Ints, from_slots

SHOWN = 5  # gaps named in the sentence


def missing_quantity(batch: DayBatch, rule: MissingQuantity) -> Findings:
    """All due slots whose condition is invalid, missing, or an outage where that is not exempt: condition < 200000, or in its range.

    Told with the first gaps. Nothing becomes suspect: there is no value. Source: missing quantity check of the domain.
    """
    bad = (batch.conditions < conditions.OUTAGE) & batch.due
    for band in conditions.RANGES:
        if band.name == "outage" and band.name not in rule.exempt_bands:
            bad |= (batch.conditions >= band.bottom) & (batch.conditions <= band.top)
        elif band.top < conditions.OUTAGE and band.name in rule.exempt_bands:
            bad &= ~((batch.conditions >= band.bottom) & (batch.conditions <= band.top))

    def say(row: int, count: int) -> str:
        begins, ends = _gaps(np.flatnonzero(bad[row]))
        gaps = [f"{batch.moment(row, int(a))} to {batch.moment(row, int(b) + 1)}" for a, b in zip(begins, ends, strict=True)]
        more = f" and {len(gaps) - SHOWN} more gaps" if len(gaps) > SHOWN else ""
        return f"{count} {'interval has' if count == 1 else 'intervals have'} no value: {', '.join(gaps[:SHOWN])}{more}"

    return from_slots("missing-quantity", bad, say, judged=False)


def _gaps(slots: Ints) -> tuple[Ints, Ints]:
    """First and last slot of each unbroken run."""
    breaks = np.flatnonzero(np.diff(slots) > 1)
    return slots[np.r_[0, breaks + 1]], slots[np.r_[breaks, len(slots) - 1]]
