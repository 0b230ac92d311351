"""``mdh bench vee``: the contenders agree, and a difference is told instead of a figure."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks import vee
from benchmarks.load import FIRST_DAY, SECONDS, SLOTS, Load
from benchmarks.peers import frames
from mdh.commands.bench import app
from mdh.errors import UsageError


def test_the_contenders_agree_and_the_last_line_is_json() -> None:
    result = CliRunner().invoke(app, ["vee", "--channels", "120", "--days", "1", "--block", "60", "--python-channels", "30"])
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout.splitlines()[-1])
    assert figures["equal"] is True
    assert figures["reads"] == 120 * SLOTS
    assert {"ours_ns", "np_sum_ns", "ratio_np_sum", "ratio_polars", "ratio_python"} <= figures.keys()


def test_the_load_makes_every_rule_of_the_peers_speak() -> None:
    load, engine = Load(600, 1), vee.Engine()
    (block,) = vee.blocks_of(load, 0, 600)
    found = vee.result_of(block, engine.fold(block)[0]).found
    assert {"negative-consumption", "interval-spike", "zero-consumption"} <= found.keys()
    assert (block.conditions == vee.REPORTED_MISSING).any()


def test_a_difference_is_found_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = frames.finish

    def tampered(*args: object) -> object:
        values, codes, found, tou = honest(*args)  # type: ignore[arg-type]
        return values, codes, found, {name: sums + 1 for name, sums in tou.items()}

    monkeypatch.setattr(frames, "finish", tampered)
    with pytest.raises(UsageError, match=r"Polars and the engine differ on day 2 of the load: sums of"):
        vee.run(40, 1, 40, 10, lambda _: None)


def test_polars_leaves_long_gaps_and_says_so() -> None:
    values, codes = np.full(SLOTS, 1_000_000, np.int64), np.full(SLOTS, 500_000, np.int32)
    codes[10:19], values[10:19] = 110_000, 0  # nine quarter hours: more than two hours
    codes[30], values[30] = 110_000, 0
    finals, conditions, found, _ = frames.finish(frames.frame(values, codes, SLOTS), FIRST_DAY, SECONDS)
    assert found["missing-quantity"] == {0: 9}
    assert (conditions[0, 10:19] == 110_000).all()
    assert (finals[0, 30], conditions[0, 30]) == (1_000_000, 360_000)
