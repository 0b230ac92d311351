"""inactive-measurement: consumption while the channel should have none."""

from __future__ import annotations

import numpy as np

from schemas import conditions
from schemas.topology.vee import InactiveMeasurement
from streams.vee.batch import DayBatch, Findings, Ints
from streams.vee.rules.totals import CEILING
from streams.vee.service import CONNECTED, DISCONNECTED, UNINSTALLED, VACANT, outside, states_at

_WORDS = {
    VACANT: "though the service point has no account",
    DISCONNECTED: "while the channel was disconnected",
    UNINSTALLED: "while no meter was installed",
}


def inactive_measurement(batch: DayBatch, rule: InactiveMeasurement) -> list[Findings]:
    """Days (M) whose slots in inactive time sum up to more than the tolerance (magnitudes, in the unit of the channel).

    A slot counts if it lies wholly in one period of master data, less the grace at both of its ends; where no period says anything, a
    channel that has periods is uninstalled. Of uninstalled, disconnected, no account the first that applies is told, with its own
    severity; estimates and missing values do not count. Intervals and readings of uninstalled time never come here if that
    terminates: they wait until master data change, and are taken out of their days where master data change back in
    time. Values a person set stay.
    Source: inactive measurement check of the domain, by interval in place of whole deliveries.
    """
    attributes = batch.attributes
    if not len(attributes.served) or not len(batch):
        return []
    end = batch.start + batch.counts * batch.seconds
    beyond = outside(attributes.served, batch.start, end)
    suspects = np.flatnonzero(beyond | attributes.vacant)
    if not len(suspects):
        return []
    suspects = suspects[attributes.quantity_in(rule.quantities)[suspects]]
    severities = {
        UNINSTALLED: rule.uninstalled, DISCONNECTED: rule.severity if rule.disconnected else None, VACANT: rule.no_account,
    }  # fmt: skip
    hits: dict[int, list[tuple[int, Ints]]] = {}
    for row in suspects.tolist():
        states = _states(batch, row, rule.grace, beyond=bool(beyond[row]))
        measured = (batch.conditions[row] >= conditions.OUTAGE) & (batch.methods[row] == 0)
        for state in (UNINSTALLED, DISCONNECTED, VACANT):
            slots = np.flatnonzero((states == state) & measured) if severities[state] else np.zeros(0, np.int64)
            if int(np.abs(batch.values[row, slots].clip(-CEILING, CEILING)).sum()) > rule.tolerance:
                hits.setdefault(state, []).append((row, slots))
                break
    return [_findings(batch, state, found, severities[state] or "") for state, found in hits.items()]


def _states(batch: DayBatch, row: int, grace: int, *, beyond: bool) -> Ints:
    begin = batch.start[row] + np.arange(batch.values.shape[1]) * batch.seconds
    periods = batch.attributes.periods(row) if beyond else []
    states = states_at(periods, begin, begin + batch.seconds, grace)
    if batch.attributes.vacant[row]:
        states[states == CONNECTED] = VACANT
    states[int(batch.counts[row]) :] = CONNECTED
    return states


def _findings(batch: DayBatch, state: int, found: list[tuple[int, Ints]], severity: str) -> Findings:
    rows = np.array([row for row, _ in found])
    used = [slots for _, slots in found]

    def say(k: int) -> str:
        row = int(rows[k])
        return f"{batch.amount(row, sum(np.abs(batch.values[row, used[k]]).tolist()))} {_WORDS[state]}"

    return Findings(
        "inactive-measurement", rows, np.array([len(slots) for slots in used]), np.array([slots[0] for slots in used]),
        np.array([slots[-1] for slots in used]), say, severity,
        (np.repeat(rows, [len(slots) for slots in used]), np.concatenate(used)) if state != VACANT else None,
        kind=state,
    )  # fmt: skip
