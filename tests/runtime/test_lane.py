"""Lanes and the in-memory chain: delivery checks, receipts, crashes at any step, dead letters."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.runtime.lane import GapError, Lane, Record
from streams.runtime.replay import Pipeline
from streams.runtime.state import Column, LayoutError, State, Table
from tests.runtime.counting import CODEC, CountFold, plan

AGENTS = [(plan("first"), lambda _: CountFold("middle")), (plan("second"), lambda _: CountFold("out"))]


def feed(pipeline: Pipeline, messages: int) -> None:
    for i in range(messages):
        pipeline.publish("in", i % 2, b"k%d" % (i % 5), b"x", {"id": b"p%d" % (i // 3)})


def outputs(pipeline: Pipeline) -> dict[bytes, list[int]]:
    seen = defaultdict(list)
    for log in pipeline.topics["out"]:
        for record in log:
            seen[record.key].append(CODEC.decode(record.value)["at"])
    return dict(seen)


def receipts(pipeline: Pipeline) -> dict[str, list[dict[str, Any]]]:
    found = defaultdict(list)
    for log in pipeline.topics["hub.receipts"]:
        for record in log:
            receipt = CODEC.decode(record.value)
            found[receipt["payload"]].append(receipt)
    return dict(found)


def test_every_payload_completes_and_only_then() -> None:
    pipeline = Pipeline(AGENTS)
    feed(pipeline, 30)
    pipeline.run()
    leaves = defaultdict(int)
    for log in pipeline.topics["out"]:
        for record in log:
            if "mdh-receipt" in record.headers:
                leaves[record.headers["mdh-payload"].decode()] += 1
    trees = receipts(pipeline)
    assert len(trees) == 10
    for payload, nodes in trees.items():
        roots = sum(node["agent"] == "first" for node in nodes)
        assert roots == 3  # three records carry the same payload id here
        assert len(nodes) + leaves[payload] == roots + sum(node["children"] for node in nodes)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_crashes_between_any_two_steps_change_nothing(seed: int) -> None:
    rng = random.Random(seed)
    calm, wild = Pipeline(AGENTS), Pipeline(AGENTS)
    for pipeline in (calm, wild):
        feed(pipeline, 40)
    calm.run()
    while waiting := wild.waiting():
        lane, record = rng.choice(waiting)
        if rng.random() < 0.3:  # the fold ran, the commit did not
            lane.is_next(record)
            lane.apply(record)
            wild.restart(lane.plan.agent, lane.partition)
        elif rng.random() < 0.2:  # delivered twice
            wild.step(lane, record)
            assert not wild.lanes[lane.plan.agent, lane.partition].is_next(record)
        else:
            wild.step(lane, record)
    counts = {key: sorted(values) for key, values in outputs(wild).items()}
    assert counts == {key: list(range(1, 9)) for key in (b"k0", b"k1", b"k2", b"k3", b"k4")}
    assert {k: sorted(v) for k, v in outputs(calm).items()} == counts


def test_the_same_inbox_gives_the_same_bytes() -> None:
    def run() -> dict[str, list[list[Record]]]:
        pipeline = Pipeline(AGENTS)
        feed(pipeline, 50)
        pipeline.run()
        return dict(pipeline.topics)

    assert run() == run()


def test_a_gap_is_noticed_and_a_repeat_is_skipped() -> None:
    pipeline = Pipeline(AGENTS)
    feed(pipeline, 20)
    pipeline.run()
    log = pipeline.log("middle", 0)
    assert len(log) > 3
    lane = Lane(plan("second"), 0, lambda _: CountFold("out"), CODEC)
    own = [record for record in log if record.headers["mdh-writer"] == log[0].headers["mdh-writer"]]
    assert lane.is_next(own[0])
    assert not lane.is_next(own[0])
    with pytest.raises(GapError, match=r"first/\d sent 2 after 0"):
        lane.is_next(own[2])
    outside = Lane(plan("first"), 0, lambda _: CountFold("middle"), CODEC)
    first = pipeline.log("in", 0)[0]
    assert outside.is_next(first)
    with pytest.raises(GapError, match=r"offset 7 came after 0; .* MDH_ACCEPT_GAPS=1"):
        outside.is_next(replace(first, offset=7))
    outside.accept_gaps = True
    assert outside.is_next(replace(first, offset=7))
    assert outside.gaps == ["offset 7 came after 0"]


def test_a_refused_record_keeps_its_bytes_and_completes_its_payload() -> None:
    lane = Lane(plan("first"), 1, lambda _: CountFold("middle"), CODEC)
    record = Record("in", 1, b"k", b"\x00\xffraw", {"id": b"p9", "source": b"hes"}, 4)
    assert lane.is_next(record)
    letter, receipt = lane.refuse(record, RuntimeError("cannot stomach this"))
    assert (letter.topic, letter.value, letter.key) == ("first.dlq", b"\x00\xffraw", b"k")
    assert letter.headers["source"] == b"hes"
    assert letter.headers["__connect.errors.offset"] == b"4"
    assert letter.headers["__connect.errors.exception.message"] == b"cannot stomach this"
    body = CODEC.decode(receipt.value)
    assert (body["payload"], body["status"], body["dead"], body["children"]) == ("p9", "dead", 1, 0)


def test_state_of_another_layout_is_refused_in_one_line() -> None:
    pipeline = Pipeline(AGENTS)
    feed(pipeline, 20)
    pipeline.run()

    class WiderFold(CountFold):
        def __init__(self, target: str) -> None:
            super().__init__(target)
            self.state = State(lambda _: Table({"count": Column(np.int64), "since": Column(np.int64)}))

    class NewerFold(CountFold):
        def __init__(self, target: str) -> None:
            super().__init__(target)
            self.state = State(lambda _: Table({"count": Column(np.int64)}), version=2)

    rows = pipeline.states["first", 0]
    for make, words in ((WiderFold, "table counts"), (NewerFold, r"entries \(version 1, here 2\)")):
        lane = Lane(plan("first"), 0, lambda _, make=make: make("middle"), CODEC)
        with pytest.raises(LayoutError, match=rf"^state of first/0 in first\.state: {words}: laid out otherwise"):
            lane.load_all(dict(rows))
    same = Lane(plan("first"), 0, lambda _: CountFold("middle"), CODEC)
    same.load_all(dict(rows))
    assert same.fold.state.digest() == pipeline.lanes["first", 0].fold.state.digest()
    assert [row.key for row in same.take_changed()] == [b"checkpoint"]  # the layout is known and not written again
