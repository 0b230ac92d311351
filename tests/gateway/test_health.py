"""Readiness: whether reads can flow, and if not, why."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from connectors.head_end.health import Readiness
from connectors.kafka.client import KafkaSettings
from schemas import metrics

TOPICS = ["hes.reads", "hub.ticks"]
NOW = 1_000_000


def ready(kafka: KafkaSettings, tick: Callable[[], int | None], parts: list[str] | None = None, keep: float = 0.0) -> Readiness:
    return Readiness(kafka, TOPICS, lambda: list(parts or []), tick, oldest_tick=30, keep=keep, now=lambda: NOW)


@pytest.fixture
def topics(write: Callable[..., None]) -> None:
    for name in TOPICS:
        write(name, b"x")


@pytest.mark.usefixtures("topics")
@pytest.mark.parametrize(("tick", "words"), [(NOW - 30, ""), (NOW - 31, "31 s old"), (None, "no tick"), (NOW + 5, "")])
def test_a_recent_tick_through_the_chain_proves_it(kafka: KafkaSettings, tick: int | None, words: str) -> None:
    reasons = ready(kafka, lambda: tick).reasons()
    assert len(reasons) == (1 if words else 0)
    assert words in "".join(reasons)
    assert metrics.READY.labels("hub")._value.get() == (0 if words else 1)


def test_missing_topics_and_failed_parts_are_named_together(kafka: KafkaSettings, write: Callable[..., None]) -> None:
    write("hes.reads", b"x")
    reasons = ready(kafka, lambda: NOW, ["the sink does not run"]).reasons()
    assert reasons[0] == "the sink does not run"
    assert "hub.ticks" in reasons[1]
    assert "hes.reads" not in reasons[1]
    assert "mdh topology apply" in reasons[1]


@pytest.mark.usefixtures("topics")
def test_a_store_that_fails_is_a_reason_and_no_crash(kafka: KafkaSettings) -> None:
    def away() -> int:
        raise RuntimeError("gone")

    assert ready(kafka, away).reasons() == ["the store does not answer (gone)"]


def test_a_broker_that_is_away_is_named() -> None:
    (reason,) = ready(KafkaSettings(bootstrap="127.0.0.1:1"), lambda: NOW).reasons()
    assert "127.0.0.1:1" in reason


@pytest.mark.usefixtures("topics")
def test_answers_are_kept_for_a_moment(kafka: KafkaSettings) -> None:
    asked: list[int] = []

    def tick() -> int:
        asked.append(1)
        return NOW

    kept = ready(kafka, tick, keep=60)
    assert kept.reasons() == kept.reasons() == []
    assert len(asked) == 1
