"""State rows by text: the same as a dictionary, whatever the texts are."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.block import strings
from streams.determinants.finder import Finder


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.text(max_size=12), max_size=400), max_size=6), st.integers(0, 3))
def test_rows_are_those_of_a_dictionary(rounds: list[list[str]], skipped: int) -> None:
    finder: Finder = Finder()
    known: dict[str, int] = {}
    for texts in rounds:
        fresh = list(dict.fromkeys(text for text in texts if text not in known))
        rows = np.arange(len(known), len(known) + len(fresh)) * 7
        finder.learn(strings(fresh), rows)
        known |= dict(zip(fresh, rows.tolist(), strict=True))
        asked = strings([*texts, "never told"])[min(skipped, len(texts)) :]  # an array that begins inside its buffers
        assert finder.find(asked).tolist() == [known.get(text, -1) for text in asked.to_pylist()]


def test_many_texts_and_forgetting() -> None:
    finder = Finder()
    texts = [f"account-{n}\0meter-{n % 977}" for n in range(30_000)]
    for first in range(0, len(texts), 7_000):
        part = texts[first : first + 7_000]
        finder.learn(strings(part), np.arange(first, first + len(part)))
    assert finder.find(strings(texts)).tolist() == list(range(len(texts)))
    finder.clear()
    assert finder.find(strings(texts[:3])).tolist() == [-1, -1, -1]
