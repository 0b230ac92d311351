"""docs/faults.md: every fault has its tests, and they exist."""

from __future__ import annotations

import ast
import re

from tests.conftest import ROOT

ROW = re.compile(r"^\| (\d+) \|.*\| ([^|]+) \|$", re.M)


def test_every_fault_names_tests_that_exist() -> None:
    rows = ROW.findall((ROOT / "docs/faults.md").read_text())
    assert [int(number) for number, _ in rows] == list(range(1, 41))
    missing = []
    for _, tests in rows:
        for test in tests.split(", "):
            file, _, name = test.partition("::")
            tree = ast.parse((ROOT / file).read_text())
            if name not in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}:
                missing.append(test)
    assert missing == []
