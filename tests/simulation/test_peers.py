"""The peers' rules of the pipeline benchmark agree with the hub's, so that its ratios compare like with like."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from benchmarks.load import FIRST_DAY, SLOTS, Load
from connectors.head_end.formats import Options, decode
from mdh.agents import make_folds
from schemas.block import DayBlock, FinalBlock, starts_of
from schemas.topology import load_topology
from streams.runtime.fold import Message

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks" / "peers"))
import rules

LOAD = Load(300, 3)


@pytest.fixture(scope="module")
def ours() -> dict[tuple[str, int], dict[str, Any]]:
    """The last version of every channel day that the folds give."""
    folds = {name: make(0) for name, make in make_folds(load_topology(None)).items() if name != "ingest"}
    results: dict[tuple[str, int], dict[str, Any]] = {}
    number = 0
    for _, name, data in LOAD.payloads():
        for block in decode(data, Options(name=name)).blocks:
            for output in folds["vee"].apply(Message("ReadBlock", block, f"m{number}", "p")).outputs:
                number += 1
                if isinstance(output.body, FinalBlock):
                    _finals(output.body, results)
                    for sums in folds["determinants"].apply(Message(output.type, output.body, f"d{number}", "p")).outputs:
                        if isinstance(sums.body, DayBlock):
                            _sums(sums.body, results)
                elif output.type == "VeeException":
                    day = int(output.body["start"].timestamp()) // 86_400
                    results.setdefault((output.body["device"], day), {"found": {}, "tou": {}})["found"][output.body["rule"]] = output.body[
                        "count"
                    ]
    return results


def _finals(block: FinalBlock, results: dict[tuple[str, int], dict[str, Any]]) -> None:
    for row, (first, count) in enumerate(zip(starts_of(block.count).tolist(), block.count.tolist(), strict=True)):
        part = slice(first, first + count)
        held = results.setdefault((block.device[row].as_py(), int(block.day[row])), {"found": {}, "tou": {}})
        held["values"], held["codes"] = block.values[part].tolist(), block.conditions[part].tolist()


def _sums(block: DayBlock, results: dict[tuple[str, int], dict[str, Any]]) -> None:
    for row, (first, lines) in enumerate(zip(starts_of(block.lines).tolist(), block.lines.tolist(), strict=True)):
        pairs = zip(block.tou[first : first + lines].tolist(), block.quantities[first : first + lines].tolist(), strict=True)
        held = results[block.device[row].as_py(), int(block.day[row])]
        held["tou"] = {block.tou_names[tou]: quantity for tou, quantity in pairs if block.tou_names[tou]}


def test_reads_one_by_one_and_blocks_give_the_same_days(ours: dict[tuple[str, int], dict[str, Any]]) -> None:
    states: dict[bytes, dict[str, Any] | None] = {}
    theirs = {}
    for key, message in LOAD.messages(LOAD.channels, LOAD.days):
        states[key], result = rules.take(states.get(key), orjson.loads(message))
        if result is not None:
            theirs[result["device"], result["day"]] = {name: result[name] for name in ("found", "tou", "values", "codes")}
    assert len(theirs) == LOAD.channels * LOAD.days == len(ours)
    for key, result in theirs.items():
        assert ours[key] == result, key


def test_the_load_has_what_the_rules_are_for(ours: dict[tuple[str, int], dict[str, Any]]) -> None:
    found = Counter(rule for result in ours.values() for rule in result["found"])
    assert {"interval-spike", "negative-consumption", "zero-consumption"} <= set(found)
    assert any(360_000 in result["codes"] for result in ours.values())
    assert LOAD.reads == sum(len(result["values"]) for result in ours.values()) == LOAD.channels * LOAD.days * SLOTS
    values, _ = LOAD.day(0, np.arange(5))
    assert ours["B0000000", FIRST_DAY]["values"][0] == int(values[0, 0]) * 1000
