"""Whatever is changed in whatever order: what is told step by step adds up to what a hub would tell that learns all at once."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streams.master.timeline import EVER, FOREVER, at, changed_within, covers, differences, filled, joined, overlaid, within
from tests.master.kit import Driver, estate

DAY = 86_400
DATES = [f"2024-{month:02}-{day:02}" for month in range(1, 13) for day in (1, 15)]
STATES = ["connect", "disconnect", "remove"]
EDGES = st.one_of(st.sampled_from([EVER, FOREVER]), st.integers(0, 40))
BOUNDS = st.tuples(EDGES, EDGES).filter(lambda pair: pair[0] < pair[1])


@st.composite
def timelines(draw: st.DrawFn) -> list[tuple[int, int, int]]:
    spans: list[tuple[int, int, int]] = []
    for begin, end in draw(st.lists(BOUNDS, max_size=5)):
        spans = overlaid(spans, begin, end, draw(st.integers(0, 2)))
    return spans


def moments(spans: list[tuple[int, int, int]]) -> list[int | None]:
    return [at(spans, moment) for moment in (EVER, *range(-1, 42), FOREVER - 1)]


@given(timelines(), BOUNDS, st.one_of(st.none(), st.integers(0, 2)))
def test_what_is_laid_over_holds_there_and_nowhere_else(
    spans: list[tuple[int, int, int]], bounds: tuple[int, int], what: int | None
) -> None:
    found = overlaid(spans, *bounds, what)
    assert joined(found) == found
    for moment in (EVER, *range(-1, 42), FOREVER - 1):
        assert at(found, moment) == (what if bounds[0] <= moment < bounds[1] else at(spans, moment))


@given(timelines(), timelines())
def test_differences_are_exactly_where_two_timelines_differ(one: list[tuple[int, int, int]], other: list[tuple[int, int, int]]) -> None:
    apart = differences(one, other)
    for moment in (EVER, *range(-1, 42), FOREVER - 1):
        assert any(begin <= moment < end for begin, end in apart) == (at(one, moment) != at(other, moment))
    assert all(a[1] < b[0] for a, b in pairwise(apart))


@given(timelines(), BOUNDS)
def test_parts_and_changes_of_timelines(spans: list[tuple[int, int, int]], bounds: tuple[int, int]) -> None:
    inside = within(spans, *bounds)
    changed = changed_within(spans, *bounds, lambda what: what + 10)
    everywhere = filled(spans, -1)
    for moment in (EVER, *range(-1, 42), FOREVER - 1):
        here, held = bounds[0] <= moment < bounds[1], at(spans, moment)
        assert at(inside, moment) == (held if here else None)
        assert at(changed, moment) == (held + 10 if here and held is not None else held)
        assert at(everywhere, moment) == (-1 if held is None else held)
    assert covers(spans, *bounds) == all(
        at(spans, moment) is not None for moment in (EVER, *range(-1, 42), FOREVER - 1) if bounds[0] <= moment < bounds[1]
    )


@st.composite
def changes(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["multiplier", "unit", "rate", "end", "install", "state", "zone", "place multiplier"]))
    begin, end = sorted(draw(st.lists(st.sampled_from(DATES), min_size=2, max_size=2, unique=True)))
    component = {"kind": "component", "id": "D1/1.8.0", "action": "patch", "from": begin, "to": end}
    install = {"kind": "install", "device": "D1", "service_point": "SP1"}
    found: dict[str, dict[str, Any]] = {
        "multiplier": {**component, "multiplier": draw(st.integers(1, 3))},
        "unit": {**component, "unit": draw(st.sampled_from(["Wh", "kWh"]))},
        "rate": {"kind": "subscription", "id": "US1", "action": "patch", "from": begin, "to": end, "rate": draw(st.sampled_from("AB"))},
        "end": {"kind": "subscription", "id": "US1", "account": "A1", "service_points": ["SP1"], "from": begin, "to": end},
        "install": {**install, "id": "I-D1", "event": "install", "at": begin},
        "state": {**install, "id": f"E{draw(st.integers(0, 3))}", "event": draw(st.sampled_from(STATES)), "at": begin},
        "zone": {"kind": "service_point", "id": "SP1", "zone": draw(st.sampled_from(["Europe/Berlin", "Europe/Paris"]))},
        "place multiplier": {**install, "id": "I-D1", "event": "install", "at": begin, "multiplier": draw(st.integers(1, 3))},
    }  # fmt: skip
    return found[kind]


def uses(record: dict[str, Any]) -> list[tuple[int, int, tuple[Any, ...]]]:
    names = ("state", "service_point", "account", "multiplier", "unit")
    ends = [(EVER if p["from"] is None else p["from"], FOREVER if p["to"] is None else p["to"]) for p in record["periods"]]
    spans = [(*edges, tuple(p[n] for n in names)) for edges, p in zip(ends, record["periods"], strict=True)]
    return filled(spans, ("uninstalled", "", "", None, None))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(changes(), max_size=8))
def test_the_spans_told_are_exactly_those_that_changed_and_a_restart_makes_no_difference(lines: list[dict[str, Any]]) -> None:
    hub, restarted = Driver(), Driver()
    for one in (hub, restarted):
        one.submit(*estate())
    (last,) = hub.channels()
    for line in lines:
        hub.submit(line)
        restarted.restart()
        restarted.submit(line)
        assert restarted.last == hub.last
        for record in hub.channels():
            told = [(EVER if s["from"] is None else s["from"], FOREVER if s["to"] is None else s["to"]) for s in record["changed"]]
            assert told == ([(EVER, FOREVER)] if record["zone"] != last["zone"] else differences(uses(last), uses(record)))
            assert told
            last = record
    assert hub.fold.state.digest() == restarted.fold.state.digest()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(changes(), max_size=6))
def test_what_is_known_in_the_end_is_what_a_hub_knows_that_learns_it_at_once(lines: list[dict[str, Any]]) -> None:
    hub, fresh = Driver(), Driver()
    hub.submit(*estate())
    (last,) = hub.channels()
    for line in lines:
        hub.submit(line)
        last = (hub.channels() or [last])[-1]
    objects = [(key, hub.fold.registry.get(key)) for key in hub.fold.registry]
    order = {kind: n for n, kind in enumerate(("account", "service_point", "device", "component", "install", "subscription"))}
    objects.sort(key=lambda pair: (order[pair[0][0]], pair[1].spans[0][0]))
    fresh.take("MasterSubmission", {
        "message": "all", "source": "", "user": "", "at": 0, "strict": True, "answer": "", "answer_partition": None,
        "items": [
            {"id": f"{n}/{a}", "group": "", "action": "put", "kind": kind, "object": id, "from": None if a == EVER else a,
             "to": None if b == FOREVER else b, "body": json.dumps(body)}
            for n, ((kind, id), thing) in enumerate(objects) for a, b, body in thing.spans
        ],
    })  # fmt: skip
    (at_once,) = fresh.channels()
    assert uses(at_once) == uses(last)
    assert at_once["zone"] == last["zone"]
