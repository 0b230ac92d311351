"""What agents count: refused reads by rule, how far a source's clock runs ahead."""

from __future__ import annotations

import dataclasses

import numpy as np

from schemas import metrics
from schemas.block import ReadBlock
from streams.runtime.fold import Message, Output, Result
from streams.runtime.meters import publish, tally
from tests.contracts.examples import example_block, example_record


def reads(received_at: int, start: int, source: str) -> ReadBlock:
    block = example_block(ReadBlock)
    assert isinstance(block, ReadBlock)
    spans = {"start": np.array([start, start]), "seconds": np.array([900, 0], np.int32), "count": np.array([96, 2], np.int32)}
    times = {"reads": np.array([0, 2], np.int32), "times": np.array([start, start + 10])}
    return dataclasses.replace(block, source=source, received_at=received_at, **spans, **times)


def sample(metric: object, *labels: str) -> float:
    return metric.labels(*labels)._value.get()  # type: ignore[attr-defined,no-any-return]


def test_the_clock_skew_of_a_source_is_that_of_its_last_payload_and_goes_back_to_zero() -> None:
    message = Message("raw", b"x", "id")
    for received_at, expected in [(1_000_000, 86_400.0), (1_000_000 + 86_400, 0.0), (1_000_000 + 200_000, 0.0)]:
        result = Result([Output("vee.inbox", "ReadBlock", reads(received_at, 1_000_000, "dcu-skew"))])
        publish([tally("ingest", message, result)])
        assert sample(metrics.CLOCK_SKEW, "dcu-skew") == expected


def test_refused_reads_are_counted_by_rule() -> None:
    before = sample(metrics.READS_REJECTED, "vee", "interval-size")
    raised = {"rule": "interval-size", "status": "open", "count": 48}
    outputs = [
        Output("vee.exceptions", "VeeException", example_record("VeeException") | raised | {"severity": severity})
        for severity in ("info", "issue", "terminate")
    ]
    ended = example_record("VeeException") | raised | {"severity": "terminate", "status": "superseded"}
    closed = Output("vee.exceptions", "VeeException", ended)
    publish([tally("vee", Message("Tick", {"at": 1, "close": False}, "id"), Result([*outputs, closed]))])
    assert sample(metrics.READS_REJECTED, "vee", "interval-size") == before + 48
