"""Every usage rule has an example that shows what it does, and does it."""

from __future__ import annotations

import pytest

from mdh.docs_usage import models
from tests.usage.example import FOLDER, load, run


def test_every_rule_has_one() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(models())


@pytest.mark.parametrize("rule", models())
def test_an_example_comes_out_as_written(rule: str) -> None:
    example = load(rule)
    assert rule in [one["id"] for one in example["rules"]]
    assert run(example) == example["then"]
