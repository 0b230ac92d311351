"""The pages of the usage rules are complete and say what the code says."""

from __future__ import annotations

from pathlib import Path

import pytest

from mdh.docs_usage import CODE, documents, models

FOLDER = Path(__file__).parents[2] / "docs" / "usage"


def test_the_committed_pages_are_the_generated_ones() -> None:
    assert {path.name: path.read_text() for path in FOLDER.glob("*.md")} == documents(), "run make docs"


@pytest.mark.parametrize("rule", models())
def test_every_rule_says_its_formula_edge_cases_and_source(rule: str) -> None:
    words = CODE[rule].__doc__
    assert all(f"{head}:" in words for head in ("Formula", "Edge cases", "Source"))
