"""Commands: what people order done with the days of a channel, and what came of it.

An order is carried out where days are decided, between merging and the rules, so that there is one writer and one order of events.
It changes what was received (edit, estimate, discard) or what the rules' findings mean (accept, force, re-vee), all of its days or none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from schemas import conditions
from schemas.block import EXCEPTION, FINALIZED, OPEN
from schemas.quantity import text_of
from schemas.rules import ACTIONS, BIT, METHOD
from streams.vee.batch import FIRST_VALUE, DayBatch, Findings, Ints, Mask
from streams.vee.merging import STEP

if TYPE_CHECKING:
    from streams.vee.days import _Work

WHOLE_DAYS: Final = ("re-vee", "accept", "force")
MAX_SPAN: Final = 62 * 86_400
FORCED: Final = -1  # acceptance of whatever is found
STATES: Final = {OPEN: "open", FINALIZED: "final", EXCEPTION: "exception"}
_EDITED: Final = conditions.USER_EDIT // STEP
_ESTIMATED: Final = conditions.USER_ESTIMATE // STEP
_MISSING: Final = conditions.REPORTED_MISSING // STEP

Look = Callable[["_Work"], tuple[DayBatch, list[Findings]]]
Estimate = Callable[["_Work", str, Mask], DayBatch | None]
"""Runs an estimation over days as they would be without the marked slots; None for a method that cannot be ordered."""


@dataclass(slots=True)
class Order:
    """A command on interval days: ``codes`` are the channel-days of its span."""

    body: dict[str, Any]
    codes: Ints
    refused: str = ""
    done: str = ""
    before: str = ""
    after: str = ""
    rows: Ints = field(default_factory=lambda: np.zeros(0, np.int64))


def flaw(body: dict[str, Any]) -> str:
    """What is wrong with a command in itself; empty: nothing."""
    action, start, end = body["action"], body["start"], body["end"]
    if action not in ACTIONS:
        return f"{action!r} is none of {', '.join(ACTIONS)}"
    if not body["id"] or not body["device"] or not body["channel"]:
        return "id, device and channel must be named"
    if not 0 <= start < end:
        return "start must lie before end"
    if end - start > MAX_SPAN:
        return f"a command may concern {MAX_SPAN // 86_400} days at most"
    if action == "edit" and not body["values"] and body["reading"] is None:
        return "an edit needs values or a reading"
    if action == "edit" and body["values"] and body["reading"] is not None:
        return "an edit has values or a reading, not both"
    if action == "estimate" and body["method"] not in METHOD:
        return f"method must be one of {', '.join(name for name in METHOD if name and name != 'manual')}"
    return ""


def carry_out_all(orders: Sequence[Order], work: _Work, version: int, look: Look, estimate: Estimate) -> None:
    """Does what orders say, one after the other; days that one has changed have ``version`` for those behind it."""
    newest = work.version.copy()
    for order in orders:
        _carry_out(order, work, newest, *look(work), estimate)
        if not order.refused:
            newest[order.rows] = version


def _carry_out(order: Order, work: _Work, versions: Ints, batch: DayBatch, findings: list[Findings], estimate: Estimate) -> None:
    """Does what an order says to the days in work, or says in ``refused`` why not. ``batch`` and ``findings`` are as they stand."""
    rows = order.rows = work.index(order.codes)
    order.before = summary(work, batch, states(work, batch, findings), rows)
    expected, newest = order.body["expected_version"], int(versions[rows].max())
    known = (work.version[rows] > 0) | (work.coded[rows] > 0).any(axis=1)
    if expected is not None and expected != newest:
        order.refused = f"version conflict: expected {expected}, it is {newest}"
    elif not known.any():
        order.refused = "nothing has been received of these days"
    else:
        action = _ACTIONS[order.body["action"]]
        action(order, work, rows[known], batch, findings, estimate)


def states(work: _Work, batch: DayBatch, findings: list[Findings]) -> Ints:
    """The state of each day: an exception where an issue was found that nobody accepted."""
    issue = batch.ended & (work.accepted == 0)
    for found in findings:
        if not found.event and found.severity in ("issue", "terminate"):
            issue[found.rows[(work.accepted[found.rows] & BIT[found.rule]) == 0]] = True
    issue &= ~batch.settled
    return np.where(batch.whole | (work.accepted == FORCED), np.where(issue, EXCEPTION, FINALIZED), OPEN)


def summary(work: _Work, batch: DayBatch, state: Ints, rows: Ints) -> str:
    """Version, state, total and conditions of days, as JSON."""
    codes = batch.conditions[rows]
    bands, counts = np.unique([conditions.name_of(int(code)) for code in codes[codes > 0]], return_counts=True)
    told = {
        "days": len(rows),
        "version": int(work.version[rows].max()),
        "state": STATES[int(max(state[rows], key=(FINALIZED, OPEN, EXCEPTION).index))],
        "total": text_of(sum(int(value) for value in batch.values[rows].sum(axis=1, dtype=object))),
        "conditions": dict(zip(bands.tolist(), counts.tolist(), strict=True)),
    }
    return json.dumps(told, sort_keys=True)


# --- the slots of a span --------------------------------------------------------------------------------------------------------


def _slots(order: Order, work: _Work, rows: Ints) -> Mask:
    """The slots of all days in work that lie inside the span."""
    at = work.start[rows, None] + np.arange(work.values.shape[1]) * work.seconds
    inside = np.zeros(work.values.shape, np.bool_)
    inside[rows] = (at >= order.body["start"]) & (at < order.body["end"]) & (np.arange(at.shape[1]) < work.counts[rows, None])
    return inside


def _off_grid(order: Order, work: _Work, rows: Ints) -> bool:
    """Start or end of the span lie inside an interval; intervals of a day or longer are meant wherever they begin."""
    offset = np.array([order.body["start"], order.body["end"]]) - int(work.start[rows[0]])
    return work.seconds < 86_400 and bool((offset % work.seconds).any())


def _edit(order: Order, work: _Work, rows: Ints, _: DayBatch, __: list[Findings], ___: Estimate) -> None:
    rows, inside = order.rows, _slots(order, work, order.rows)
    values = order.body["values"]
    if not values or _off_grid(order, work, rows):
        order.refused = "the span does not begin and end where intervals do" if values else "an interval channel is edited by values"
    elif len(values) != inside.sum():
        order.refused = f"{len(values)} values for {int(inside.sum())} intervals"
    elif all(value is None for value in values):
        order.refused = "no value is given"
    else:
        given = np.array([value is not None for value in values])
        row, slot = (index[given] for index in np.nonzero(inside))
        work.values[row, slot] = [value for value in values if value is not None]
        work.coded[row, slot] = _EDITED
        work.accepted[rows] = 0
        order.done = f"{len(row)} {'interval' if len(row) == 1 else 'intervals'} edited"


def _discard(order: Order, work: _Work, rows: Ints, _: DayBatch, __: list[Findings], ___: Estimate) -> None:
    inside = _slots(order, work, rows) & (work.coded > 0)
    if not inside.any():
        order.refused = "nothing has been received of this span"
        return
    work.values[inside], work.coded[inside] = 0, 0
    work.accepted[rows] = 0
    order.done = f"{int(inside.sum())} received {'value' if inside.sum() == 1 else 'values'} discarded"


def _estimate(order: Order, work: _Work, rows: Ints, _: DayBatch, __: list[Findings], estimate: Estimate) -> None:
    inside, method = _slots(order, work, rows), order.body["method"]
    if not inside.any() or _off_grid(order, work, rows):
        order.refused = "the span does not begin and end where intervals do"
        return
    values, coded = work.values.copy(), work.coded.copy()
    work.values[inside], work.coded[inside] = 0, _MISSING
    if method == "outage-zero":
        left = np.zeros(1, np.bool_)
    else:
        batch = estimate(work, method, inside)
        left = inside & (batch.conditions < FIRST_VALUE) if batch is not None else inside
        if batch is not None:
            work.values[inside] = batch.values[inside]
    if left.any():
        work.values[:], work.coded[:] = values, coded
        order.refused = f"{method} has no value for {int(left.sum())} of {int(inside.sum())} intervals"
        return
    work.coded[inside] = _ESTIMATED + METHOD[method]
    work.accepted[rows] = 0
    order.done = f"{int(inside.sum())} {'interval' if inside.sum() == 1 else 'intervals'} estimated by {method}"


# --- what findings mean ---------------------------------------------------------------------------------------------------------


def _re_vee(order: Order, work: _Work, rows: Ints, _: DayBatch, __: list[Findings], ___: Estimate) -> None:
    work.accepted[rows] = 0
    order.done = f"{_days(len(rows))} validated anew"


def _accept(order: Order, work: _Work, rows: Ints, batch: DayBatch, findings: list[Findings], _: Estimate) -> None:
    raised, ended = np.zeros(len(work.row), np.int64), batch.ended.copy()
    for found in findings:
        if not found.event:
            raised[found.rows] |= BIT[found.rule]
    open_ = states(work, batch, findings)[rows] == OPEN
    if open_.any():
        order.refused = f"{_days(int(open_.sum()))} still open"
    elif ended[rows].any():
        order.refused = "a terminating exception can only be forced"
    elif not (raised[rows] & ~work.accepted[rows]).any():
        order.refused = "there is no open exception of these days"
    else:
        work.accepted[rows] |= raised[rows]
        order.done = f"{_days(len(rows))} accepted as found"


def _force(order: Order, work: _Work, rows: Ints, _: DayBatch, __: list[Findings], ___: Estimate) -> None:
    work.closed[rows], work.accepted[rows] = True, FORCED
    order.done = f"{_days(len(rows))} made final whatever was found"


def _days(number: int) -> str:
    return f"{number} day" if number == 1 else f"{number} days"


_ACTIONS: Final = {
    "re-vee": _re_vee, "edit": _edit, "accept": _accept, "estimate": _estimate, "discard": _discard, "force": _force,
}  # fmt: skip
