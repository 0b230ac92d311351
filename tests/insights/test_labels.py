"""What labels do to odds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.insights import labels, words
from streams.insights.labels import Labels, looks_of
from streams.runtime.state import State

PARTS = np.linspace(-1.0, 2.0, len(words.NAMES))


def looks(beyond: float, which: int = 0) -> labels.Array:
    return looks_of(PARTS, beyond, which, np.zeros(2))


def heard(verdicts: list[bool], beyond: float = 1.0) -> Labels:
    model = Labels(State(lambda _: labels.make_table()))
    for number, verdict in enumerate(verdicts):
        model.keep(str(number), looks(beyond))
        assert model.learn(str(number), verdict)
    return model


@settings(max_examples=30, deadline=None)
@given(st.lists(st.booleans(), max_size=12), st.floats(-2, 6))
def test_labels_move_odds_no_further_than_half_up_and_one_and_a_half_down(verdicts: list[bool], beyond: float) -> None:
    mixed = [verdict for pair in verdicts for verdict in (pair, True)]  # no streak of rejections
    moved = heard(mixed).beyond(looks(beyond)) - np.float32(beyond)
    assert -1.5 - 1e-5 <= moved <= 0.5 + 1e-5
    if not mixed:
        assert moved == pytest.approx(0.0)


def test_what_is_confirmed_rises_and_what_is_rejected_falls() -> None:
    assert heard([False] * 3).beyond(looks(1.0)) < 1.0
    assert heard([True] * 30).beyond(looks(1.0)) > 1.0


def test_where_everything_is_rejected_the_bounds_widen_until_something_is_confirmed() -> None:
    streak = heard([False] * 12)
    assert streak.beyond(looks(1.0)) < 1.0 - 1.5
    streak.keep("right", looks(1.0))
    assert streak.learn("right", True)
    assert streak.beyond(looks(1.0)) >= 1.0 - 1.5


def test_a_restored_model_says_the_same() -> None:
    model = heard([False] * 6 + [True] + [False] * 5)
    again = Labels(model._state)
    assert again.beyond(looks(2.0)) == model.beyond(looks(2.0))
    assert again.labels == 12
