"""docs/rules: generated from the rules as they are, with everything a reader needs of each."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from mdh.docs_rules import SCENARIOS, Page, cases, documents, page_of, read, registered, worked_example
from mdh.rule_pictures import FOUND, MADE, picture
from schemas import metrics, rules

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "rules"
PAGES = registered()


def test_every_rule_there_is_a_name_for_exists() -> None:
    assert {page.id for page in PAGES} == set(rules.RULES)


def test_the_committed_pages_are_the_current_ones() -> None:
    now = documents()
    there = {path.name: path.read_text() for path in FOLDER.iterdir()}
    assert sorted(there) == sorted(now), "run `make docs`"
    assert [name for name in now if now[name] != there[name]] == [], "run `make docs`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.id)
def test_a_rule_says_what_it_does_and_where_it_comes_from(page: Page) -> None:
    assert page.summary.endswith(".")
    assert len(" ".join([page.summary, *page.text])) > 100
    assert page.source, "its docstring needs a line `Source: …`"


@pytest.mark.parametrize("rule", rules.RULES)
def test_a_rule_has_all_that_belongs_to_it(rule: str) -> None:
    """Docstring with source, page with a worked example and a picture, metric, scenarios in which it speaks and in which it does not."""
    page = next(page for page in PAGES if page.id == rule)
    text = (FOLDER / f"{rule}.md").read_text()
    assert page.source
    assert f'mdh_exceptions_total{{rule="{rule}"}}' in text
    assert "## Worked example" in text
    assert "**When**" in text
    assert "**Then**" in text
    assert f"]({rule}.svg)" in text
    drawn = (FOLDER / f"{rule}.svg").read_text()
    assert FOUND in drawn or MADE in drawn or rule == "final-measurement-replacement", "the picture marks nothing"
    told = [read(case)[2:] for case in cases(rule)]
    speaks = [any(e["rule"] == rule for e in exceptions) or any(f.get("method") == rule for f in finals) for exceptions, finals in told]
    assert any(speaks), "no scenario in which it speaks"
    assert not all(speaks), "no scenario of an edge at which it is silent"


def test_outages_have_a_page_with_pictures_too() -> None:
    text = (FOLDER / "outages.md").read_text()
    for name in ("outage.svg", "widespread-outage.svg"):
        assert f"]({name})" in text
        ElementTree.fromstring((FOLDER / name).read_text())
    assert FOUND in (FOLDER / "widespread-outage.svg").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.id)
def test_a_rule_has_scenarios_in_one_of_which_it_speaks(page: Page) -> None:
    example = worked_example(page.id)
    assert example is not None, f"{SCENARIOS}/{page.id} has no scenario"
    told = [read(case)[2:] for case in cases(page.id)]
    assert any(
        any(row["rule"] == page.id for row in exceptions) or any(row.get("method") == page.id for row in finals)
        for exceptions, finals in told
    )  # fmt: skip


def test_the_metric_that_pages_name_has_the_rule_as_label() -> None:
    assert metrics.EXCEPTIONS._name == "mdh_exceptions"
    assert "rule" in metrics.EXCEPTIONS._labelnames


def test_pictures_are_xml_and_mark_what_is_concerned() -> None:
    for name, color in (("interval-spike", FOUND), ("interval-interpolation", MADE)):
        case = worked_example(name)
        assert case is not None
        drawn = picture(name, *read(case))
        assert drawn is not None
        root = ElementTree.fromstring(drawn)
        assert any(shape.get("fill") == color for shape in root.iter("{http://www.w3.org/2000/svg}rect"))
        assert drawn == picture(name, *read(case))


def test_of_many_rows_those_around_the_finding_are_shown() -> None:
    rows = [{"device": "M", "channel": "E", "start": f"2024-06-03T{k // 4:02}:{k % 4 * 15:02}:00Z", "value": "1"} for k in range(96)]
    from mdh.docs_rules import _table

    lines = _table(rows, {50})
    assert len(lines) < 15
    assert any("47 more" in line for line in lines)
    assert any(rows[50]["start"] in line for line in lines)


def test_a_page_links_to_all_cases() -> None:
    page = next(page for page in PAGES if page.id == "interval-spike")
    text = page_of(page, worked_example(page.id), drawn=False)
    assert all(f"interval-spike/{case.name})" in text for case in cases(page.id))
